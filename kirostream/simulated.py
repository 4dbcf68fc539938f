"""The built-in simulator in the place of the service: it, its account, and the settings that lead there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from kirostream.accounts.devices import Devices
from kirostream.accounts.discovery import AccountSettings, Discovery, Found, accounts_of, discover
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.sources.direct import DirectSource
from kirostream.reporting import faults_to
from kirostream.settings import Settings
from kirostream.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from kirostream.simulator.upstream import Simulator


@asynccontextmanager
async def open_simulator(settings: Settings, recorder: Recorder) -> AsyncIterator[tuple[Simulator, str]]:
    """A simulator that listens until the context ends, and its base URL."""
    from kirostream.simulator.upstream import serve

    async with trio.open_nursery() as nursery:
        on_fault = faults_to(recorder, "simulator")
        simulator, url = await nursery.start(serve, settings.simulator, on_fault)
        yield simulator, url
        nursery.cancel_scope.cancel()


async def simulated_account(simulator: Simulator, data_dir: Path) -> Sequence[Found]:
    """An account of the simulator's, under the device identity that the demo keeps."""
    source = DirectSource(simulator.credential(), name="simulator")
    return await accounts_of(source, Devices(data_dir), time.time())


def found_in_demo(simulated: Sequence[Found], folder: Path) -> Callable[[], Awaitable[Discovery]]:
    """How a demo looks for accounts: the simulated one, and those that were added meanwhile; never at the person's."""

    async def find() -> Discovery:
        nothing = AccountSettings()
        added = await discover(
            ("the environment", nothing), ("the settings", nothing), env={}, home=folder, data_dir=folder
        )
        return replace(added, found=(*simulated, *added.found))

    return find


def pointed_at(settings: Settings, upstream: str) -> Settings:
    """The settings with every upstream address replaced by one."""
    return replace(
        settings,
        kiro=replace(settings.kiro, endpoint=upstream),
        keeper=replace(settings.keeper, hosts=AuthHosts(social=upstream, oidc=upstream)),
    )
