"""Stop a refresh anywhere, whatever the source: what is on disk works against a simulator that rotates."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from helpers.cancel import every_checkpoint
from helpers.simulated import FakeExchange
from kirostream.accounts.discovery import Found, discover, from_environment
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import AuthHosts, Headers
from kirostream.errors import KirostreamError
from kirostream.net.exchange import HttpRequest
from kirostream.settings import load
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator
from leaks.plants import SOURCES, Place

SETTINGS = KeeperSettings(hosts=AuthHosts(social="http://sim", oidc="http://sim"))
TAKEN = ("ide idc", "kiro-cli social", "kiro-cli oidc", "variables")
"""A file with its registration, a database both ways, and what cannot be written back; the others go the same ways."""


class Machine:
    """A simulator that rotates, and a person's folders: each `process` knows what is on disk, and nothing else."""

    def __init__(self, folder: Path, source: str) -> None:
        self.simulator = Simulator(SimulatorSettings(rotate=True))
        self.asked = 0
        self._data = folder / "data"
        self._place = Place(folder / "home", self.simulator, source)
        self._place.home.mkdir(parents=True)
        SOURCES[source](self._place)

    async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        """As `kirostream.accounts.keeper.Post`, with a checkpoint before the token rotates, and one after."""
        self.asked += 1
        await trio.lowlevel.checkpoint()
        exchange = FakeExchange(HttpRequest(method, urlsplit(url).path, "", headers), body)
        await self.simulator(exchange)
        await trio.lowlevel.checkpoint()
        return exchange.status, exchange.answer

    async def found(self) -> Found:
        """The first account that a new process finds."""
        home = self._place.home
        env = {"HOME": str(home), "KIROSTREAM_CONFIG_DIR": str(home), **self._place.env}
        chosen = (("the environment", from_environment(env)), ("the settings", load(env).account))
        discovery = await discover(*chosen, env=env, home=home, data_dir=self._data, platform="linux")
        return discovery.require()

    async def process(self, nursery: trio.Nursery, found: Found) -> TokenKeeper:
        """A new process that keeps the account, until `nursery` ends."""
        keeper = TokenKeeper(self.post, SETTINGS, lock_folder=self._data / "locks")
        keeper.add(found.account, found.source, found.credential)
        await nursery.start(keeper.run)
        return keeper

    async def works(self) -> None:
        """A new process gets a token that the service takes."""
        found = await self.found()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                keeper = await self.process(nursery, found)
                token = await keeper.token(found.account)
                assert self.simulator._issuer.check(token.access.reveal(), self.simulator._now()) is not None
                keeper.reject(token)  # and its refresh token is the one that lives
                token = await keeper.token(found.account)
                assert self.simulator._issuer.check(token.access.reveal(), self.simulator._now()) is not None
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("source", TAKEN)
async def test_a_process_may_be_stopped_at_any_checkpoint_of_a_refresh(source: str, tmp_path: Path) -> None:
    """Looking, asking, saving, and the lock that processes share."""
    sent = 0
    for cut in every_checkpoint():
        machine = Machine(tmp_path / str(cut.k), source)
        found = await machine.found()
        async with trio.open_nursery() as callers:
            with trio.move_on_after(5) as stopped:
                async with trio.open_nursery() as nursery:
                    keeper = await machine.process(nursery, found)
                    cut.watch(lambda task: task.name.startswith("refresh "), nursery.cancel_scope)
                    callers.start_soon(_ask, keeper, found)
                    await trio.testing.wait_all_tasks_blocked()
                    while any(each.refreshing for each in keeper.snapshot().tokens):
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()
            callers.cancel_scope.cancel()
        cut.stop()
        assert not stopped.cancelled_caught
        sent += machine.asked
        await machine.works()
    assert sent > 1


async def _ask(keeper: TokenKeeper, found: Found) -> None:
    with contextlib.suppress(KirostreamError):  # it was stopped, and says so
        await keeper.token(found.account)
