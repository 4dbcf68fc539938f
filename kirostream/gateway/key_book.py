"""The keys of a gateway that runs: who a key is, whether it may begin a turn, and what it has used.

The list is looked at from time to time, and taken in when it was written. Rates and places are counted in memory, for a
restart gives back no more than a minute's worth. Credits are read from the usage ledger when a key is first used, and
counted on from there; without a ledger they are counted from the start of the process.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import BudgetSpent, CallerThrottled, KeyRejected, StoreError
from kirostream.gateway.callers import INTERNAL, OWN, Caller
from kirostream.gateway.keys import Key, KeyFile, digest_of
from kirostream.gateway.limits import Calendar, Meter, Refusal
from kirostream.relay.live import Settle
from kirostream.telemetry.facts import Fact, KeyRefused, KeysTroubled
from kirostream.turn.request import TurnRequest
from kirostream.turn.tokens import estimate

T = TypeVar("T")

Spent = Callable[[str, float], Awaitable[float]]
"""Credits that the key of this name has spent since a moment, in unix seconds."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A key, and what of its limits is used up now. Credits are those of the day and of the month, UTC."""

    key: Key
    in_flight: int
    credits_today: float
    credits_this_month: float


class KeyBook:
    """Knows the keys. It is the `Gate` of the relay.

    Args:
        file: the list.
        spent: asks the ledger; None: there is none.
        tell: told of what is refused, and of trouble.
        now: unix seconds.
        clock: seconds that never jump.
    """

    def __init__(
        self,
        file: KeyFile,
        spent: Spent | None = None,
        tell: Callable[[Fact], None] = lambda fact: None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.file: Final = file
        self._spent = spent
        self._tell = tell
        self._now = now
        self._clock = clock
        self._named: dict[str, Key] = {}
        self._callers: dict[str, Caller] = {}
        self._digests: tuple[tuple[bytes, Key], ...] = ()
        self._meters: dict[str, Meter] = {}
        self._version: object = None
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<KeyBook {len(self._named)} keys>"

    # Taking the list in

    async def load(self) -> None:
        """Take in the list as it is now.

        Raises:
            StoreError: it cannot be read; what was known stays.
        """
        version = await self.file.version()
        if version != self._version:
            self.adopt(await self.file.keys() if version is not None else ())
            self._version = version

    async def run(self, every: float) -> None:
        """Follow the list, until cancelled. `every` is in seconds."""
        while True:
            await trio.sleep(every)
            await self.look()

    async def look(self) -> None:
        """Take in the list where it was written. Trouble with it is told of, once."""
        try:
            await self.load()
        except StoreError as error:
            self._troubled(error)
        else:
            self._trouble = ""

    async def changed(self, change: Awaitable[T]) -> T:
        """Do a change of the list, as ``book.file.add("ci")``, and take it in at once.

        Raises:
            SettingsError, StoreError: as the change has it.
        """
        done = await change
        await self.load()
        return done

    def adopt(self, keys: Iterable[Key]) -> None:
        """Go by these keys from now on. Turns in flight end as they would have."""
        self._named = {key.name: key for key in keys}
        self._callers = {key.name: Caller(key.name, key.id, "", key.scopes) for key in self._named.values()}
        digests = [(key.digest.encode(), key) for key in self._named.values()]
        self._digests = (*digests, *((key.older.encode(), key) for key in self._named.values() if key.older))
        here = {key.id: key for key in self._named.values()}
        self._meters = {id_: meter for id_, meter in self._meters.items() if id_ in here or meter.in_flight}
        for id_, meter in self._meters.items():
            if id_ in here and here[id_].limits != meter.limits:
                meter.adopt(here[id_].limits, self._clock())

    def uses(self) -> list[KeyUse]:
        """Every key, and what it uses now."""
        found = []
        for key in self._named.values():
            meter = self._meters.get(key.id)
            credits_ = meter.spent(self._calendar()) if meter is not None else (0.0, 0.0)
            found.append(KeyUse(key, meter.in_flight if meter is not None else 0, *credits_))
        return found

    # Who it is

    def find(self, offered: Sequence[bytes]) -> Caller | None:
        """Whose key was offered; None: nobody's. How long it takes says nothing of which, nor how much of it.

        Raises:
            KeyRejected: it is one of ours, and no good any more.
        """
        if not self._digests:
            return None
        digests = [digest_of(each).encode() for each in offered]
        found: tuple[bytes, Key] | None = None
        for entry in self._digests:
            for digest in digests:
                if hmac.compare_digest(entry[0], digest):
                    found = entry
        if found is None:
            return None
        digest, key = found
        self._check(key)
        if digest != key.digest.encode() and self._now() >= key.older_until:
            raise KeyRejected(f"This secret of the key {key.name!r} was replaced. Take the new one.")
        return self._callers[key.name]

    def _check(self, key: Key) -> None:
        if not key.enabled:
            raise KeyRejected(f"The key {key.name!r} is disabled.", reason="key_disabled")
        if key.expires_at and self._now() >= key.expires_at:
            raise KeyRejected(f"The key {key.name!r} has expired ({_at(key.expires_at)}).", reason="key_expired")

    # Whether it may

    async def admit(self, key: str, request: TurnRequest) -> Settle | None:
        """Let a turn of the key of this name begin.

        Returns:
            What has to be called once the turn is over, however it ends; None: nothing of it is counted.

        Raises:
            CallerThrottled, BudgetSpent: not now; says which limit, and after how many seconds.
            KeyRejected: the key was taken back meanwhile.
        """
        if key in ("", OWN, INTERNAL):
            return None
        held = self._named.get(key)
        if held is None:
            raise KeyRejected(f"The key {key!r} was taken back.")
        self._check(held)
        if not held.limits:
            return None
        meter = self._meters.setdefault(held.id, Meter(held.limits, self._clock()))
        if held.limits.budgets and not meter.recalled:
            await self._recall(held, meter)
        refusal = meter.refusal(self._clock(), self._calendar())
        if refusal is not None:
            self._tell(KeyRefused(key=key, limit=refusal.limit, seconds=round(refusal.seconds, 3)))
            raise _refused(held, refusal, self._now())
        expected = estimate(request) if held.limits.tokens else 0
        meter.begin(expected, self._clock())
        open_ = True

        def settle(tokens: int, credits: float) -> None:  # noqa: A002
            nonlocal open_
            if open_:
                open_ = False
                meter.end(expected, tokens, credits, self._clock(), self._calendar())

        return settle

    async def _recall(self, key: Key, meter: Meter) -> None:
        """Read what the key has spent, before it is counted on."""
        calendar = self._calendar()
        if self._spent is None:
            meter.recall(calendar, 0.0, 0.0)
            return
        try:
            month = await self._spent(key.name, max(calendar.month, key.created_at))
            day = await self._spent(key.name, max(calendar.day, key.created_at))
        except StoreError as error:  # the next one tries again; nobody is refused for a disk's sake
            self._troubled(error)
        else:
            if not meter.recalled:
                meter.recall(calendar, day, month)

    def _calendar(self) -> Calendar:
        now = self._now()
        at = datetime.fromtimestamp(now, UTC)
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        month = day.replace(day=1)
        after = (month + timedelta(days=32)).replace(day=1)
        tomorrow = day + timedelta(days=1)
        return Calendar(day.timestamp(), tomorrow.timestamp() - now, month.timestamp(), after.timestamp() - now)

    def _troubled(self, error: StoreError) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            self._tell(KeysTroubled(message=error.message))


def _at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _refused(key: Key, refusal: Refusal, now: float) -> CallerThrottled:
    """The refusal in words for the client: which limit, and when."""
    limit, most, seconds = refusal
    words = {
        "concurrency": f"may have {most:g} turns at the same time",
        "requests": f"may make {most:g} requests a minute",
        "tokens": f"may use {most:g} tokens a minute",
        "credits_per_day": f"has spent its {most:g} credits of the day",
        "credits_per_month": f"has spent its {most:g} credits of the month",
    }
    when = f"Try again in {seconds:.3g} s."
    kind = CallerThrottled
    if limit in ("credits_per_day", "credits_per_month"):
        kind, when = BudgetSpent, f"They come back at {_at(now + seconds)}."
    elif limit == "concurrency":
        when = "Try again when one of them is over."
    return kind(f"The key {key.name!r} {words[limit]}. {when}", reason=limit, retry_after=seconds)
