"""A place where turns are asked: its provider, the accounts and the connections there, and what was learned of it.

A gateway has one, the service. For a while the simulator may stand in for it (`switch`), and is a place of its own:
what one has, the other never sees. No credential, no conversation's account, no pause and no correction of an estimate
goes from one to the other, because no part of either knows the other's parts.
"""

from __future__ import annotations

import trio

from kirostream.accounts.sources.headers import is_guest
from kirostream.dataclass import replace
from kirostream.filters import FilterSettings
from kirostream.providers.provider import Provider
from kirostream.relay.asking import Asker
from kirostream.relay.attempt import Deadlines
from kirostream.relay.clients import ClientOf
from kirostream.relay.failover import FailoverSettings
from kirostream.relay.fleet import Fleet
from kirostream.relay.guests import Guests
from kirostream.relay.refusals import Refusals
from kirostream.telemetry.captures import Captures
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.calibration import Calibration
from kirostream.turn.model import Model


class Service:
    """One place. See the relay for its parts.

    Args:
        house: the accounts of the gateway there.
        guests: accounts that come with requests; None: whoever asks, is asked for on the house's.
        calibration: corrects estimates by what was seen there.
        captures: keeps what it refuses; None: nothing is kept.
        free: its turns cost nobody anything, whatever it says of credits.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        house: Fleet,
        client_of: ClientOf,
        recorder: Recorder,
        deadlines: Deadlines,
        failover: FailoverSettings,
        filters: FilterSettings,
        guests: Guests | None = None,
        calibration: Calibration | None = None,
        captures: Captures | None = None,
        free: bool = False,
    ) -> None:
        self.provider = provider
        self.house = house
        self.client_of = client_of
        self.calibration = calibration or Calibration()
        self.refusals = Refusals(provider.forms, captures, recorder)
        self.asker = Asker(
            house=house,
            provider=provider,
            client_of=client_of,
            recorder=recorder,
            refusals=self.refusals,
            deadlines=deadlines,
            failover=failover,
            filters=filters,
        )
        self.free = free
        self.turns = 0
        """Those that were begun here and are not over, and questions for what models there are."""
        self._guests = guests
        self._idle = trio.Event()

    def __repr__(self) -> str:
        return f"<Service {self.provider.name}, {self.turns} turns, {self.house.pool!r}>"

    def fleet(self, scope: str) -> Fleet:
        """What the turns of a scope are asked on.

        Raises:
            NoAccount: it is a guest that was let go meanwhile.
        """
        return self._guests.fleet(scope) if self._guests is not None and is_guest(scope) else self.house

    def corrected(self, model: Model) -> Model:
        """`model` with what is known by now of how far our estimates are off for it."""
        correction = self.calibration.correction(model.id)
        return model if correction == model.correction else replace(model, correction=correction)

    def enter(self) -> None:
        """One more turn begins here."""
        self.turns += 1

    def leave(self) -> None:
        """One of its turns is over, or could not begin."""
        self.turns -= 1
        if not self.turns:
            self._idle.set()

    async def idle(self) -> None:
        """Return when no turn is here."""
        while self.turns:
            self._idle = trio.Event()
            await self._idle.wait()
