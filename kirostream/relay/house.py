"""The accounts of the house, while it serves: what a person changes of them on disk is taken in without a restart.

The list of our own accounts is looked at from time to time; when it was written, the accounts are looked for again, as
at the start, and compared. A new one is leased at once. One that is not to be used any more gets no new leases, while
its turns in flight go on; its token and its connections stay until they are over, and until a refresh under way has
saved what it got. One that is still listed and cannot be read just now stays as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.discovery import Discovery, Found
from kirostream.accounts.health import State
from kirostream.accounts.keeper import Post
from kirostream.accounts.roster import Roster
from kirostream.errors import KirostreamError
from kirostream.relay.clients import Clients
from kirostream.relay.fleet import Fleet
from kirostream.relay.live import LiveTurn
from kirostream.telemetry.facts import AccountJoined, AccountLeft, PoolTroubled
from kirostream.telemetry.recorder import Recorder


class House:
    """The accounts of one gateway.

    Args:
        fleet: where they are leased.
        clients: their connections.
        post_of: the way of an account to the token service.
        as_set: an account as the operator wants it addressed.
        recorder: told who comes and goes.
    """

    def __init__(
        self,
        fleet: Fleet,
        clients: Clients,
        post_of: Callable[[Account], Post],
        as_set: Callable[[Account], Account],
        recorder: Recorder,
    ) -> None:
        self._fleet = fleet
        self._clients = clients
        self._post_of = post_of
        self._as_set = as_set
        self._recorder = recorder
        self._here: dict[AccountId, Found] = {}
        self._leaving: dict[AccountId, tuple[LiveTurn, ...]] = {}
        self._troubles: frozenset[str] = frozenset()
        self._following = False
        self._wanted = trio.Event()
        self._looked = trio.Event()

    def __repr__(self) -> str:
        return f"<House of {len(self._here)} accounts, {len(self._leaving)} leaving>"

    def add(self, found: Found) -> None:
        """Use an account from now on."""
        account = self._as_set(found.account)
        held = self._here.get(account.id)
        if held is None or self._as_set(held.account) != account:
            self._fleet.pool.add(account)
        if held is None and self._leaving.pop(account.id, None) is None:
            self._keep(found)
        self._here[account.id] = found

    def _keep(self, found: Found) -> None:
        account = self._as_set(found.account)
        self._fleet.keeper.add(account, found.source, found.credential, self._post_of(account))

    def found(self, account: AccountId) -> Found | None:
        """An account that is used, and where its credential lives."""
        return self._here.get(account)

    async def look_now(self) -> None:
        """Take in what was changed on disk, and return once that is done. Without a list to follow, at once."""
        if self._following:
            self._wanted.set()
            await self._looked.wait()

    async def run(
        self,
        roster: Roster,
        find: Callable[[], Awaitable[Discovery]],
        in_flight: Callable[[], Sequence[LiveTurn]],
        every: float,
    ) -> None:
        """Follow the list, until cancelled.

        Args:
            roster: the list.
            find: looks for the accounts, as at the start.
            in_flight: all turns.
            every: seconds between two looks.
        """
        seen: object = self  # so it is looked at once: what was changed while the gateway started is taken in, too
        self._following = True
        try:
            while True:
                with trio.move_on_after(every):
                    await self._wanted.wait()
                self._wanted, looked = trio.Event(), self._looked
                self._looked = trio.Event()
                try:
                    await self.see_off()
                    version = await roster.version()
                    if version != seen:
                        await self._look(roster, find, in_flight)
                        seen = version
                except KirostreamError as error:  # it is looked at again; until then everything stays as it is
                    self._tell_of((error.message,))
                finally:
                    looked.set()
        finally:
            self._following = False
            self._looked.set()

    async def _look(
        self, roster: Roster, find: Callable[[], Awaitable[Discovery]], in_flight: Callable[[], Sequence[LiveTurn]]
    ) -> None:
        entries = await roster.entries()
        listed = {(entry.kind, entry.place) for entry in entries if entry.enabled}
        discovery = await find()
        found = {each.account.id: each for each in discovery.found}
        for name, source in [(name, held.source) for name, held in self._here.items()]:
            there = (source.kind, source.place) in listed or (not entries and discovery.trouble)
            if name not in found and not there:
                self._leave(name, in_flight())
        lost = {each.id for each in self._fleet.pool.snapshot().accounts if each.state is State.NEEDS_LOGIN}
        for name, each in found.items():
            held = self._here.get(name)
            if held is None:
                self._recorder.record(AccountJoined(account=each.account.label, id=name))
            elif name in lost and each.credential.refresh_token != held.credential.refresh_token:  # somebody signed in
                self._keep(each)
                await self._fleet.pool.clear(name)
            self.add(each)
        await self._fleet.pool.sync()
        self._tell_of(discovery.trouble)

    def _leave(self, name: AccountId, in_flight: Sequence[LiveTurn]) -> None:
        self._leaving[name] = tuple(in_flight)
        self._fleet.pool.remove(name)
        self._fleet.catalogues.forget(name)
        label = self._here.pop(name).account.label
        self._recorder.record(AccountLeft(account=label, id=name))

    async def see_off(self) -> None:
        """Let go of those that have left, and that nothing hangs on any more."""
        refreshing = {token.account for token in self._fleet.keeper.snapshot().tokens if token.refreshing}
        for name, turns in list(self._leaving.items()):
            if name not in refreshing and all(turn.over.is_set() for turn in turns):
                del self._leaving[name]
                self._fleet.keeper.remove(name)
                await self._clients.close(name)

    def _tell_of(self, troubles: Sequence[str]) -> None:
        """Tell of trouble with the list, once."""
        for trouble in troubles:
            if trouble not in self._troubles:
                self._recorder.record(PoolTroubled(message=trouble))
        self._troubles = frozenset(troubles)
