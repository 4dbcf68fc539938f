"""The built-in simulator in the place of the service: it, its account, and the settings that lead there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from kirostream.accounts.account import Account, account_id
from kirostream.accounts.devices import Devices, random_machine_id
from kirostream.accounts.discovery import AccountSettings, Discovery, Found, accounts_of, discover
from kirostream.accounts.keeper import TokenKeeper, no_post
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.pool import Pool
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.store import MemoryPoolStore
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.clients import Clients
from kirostream.relay.fleet import Fleet
from kirostream.relay.relay import Relay
from kirostream.relay.service import Service
from kirostream.reporting import faults_to, tokens_to
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


CLOSE: Final = 1.0
"""Seconds for closing the connections to a simulator in this process."""


class SimulatedKiro(KiroProvider):
    """Kiro as the simulator speaks it. Its turns are told apart by the name."""

    name = "simulator"


@asynccontextmanager
async def open_stand_in(settings: Settings, relay: Relay, recorder: Recorder) -> AsyncIterator[Service]:
    """A simulator with an account of its own, as a place for the relay's turns, until the context ends.

    It has its own pool, keeper and connections, which know nothing of the gateway's accounts, and no proxy: it is here.
    """
    own = replace(settings, simulator=replace(settings.simulator, host="127.0.0.1", port=0))
    async with open_simulator(own, recorder) as (simulator, url), trio.open_nursery() as nursery:
        there = pointed_at(settings, url)
        provider = SimulatedKiro(there.kiro)
        clients = Clients(replace(there.upstream, proxy=""))
        pool = Pool(replace(there.pool, selected="", sticky=False, accounts={}), MemoryPoolStore())
        told = tokens_to(recorder, pool.label)
        keeper = TokenKeeper(no_post, there.keeper, ide_version=there.kiro.ide_version, **told)
        credential = simulator.credential()
        account = Account(
            id=account_id("simulator", credential.key),
            label="simulator",
            auth=credential.auth,
            region=credential.region,
            api_region=credential.api_region,
            provider=credential.provider,
            machine_id=random_machine_id(),
            source="the built-in simulator",
        )
        keeper.add(account, DirectSource(credential, name="simulator"), credential, clients.post_of(account))
        pool.add(account)
        await nursery.start(keeper.run)
        await nursery.start(pool.run)
        catalogues = Catalogues(nursery, provider, pool, keeper, clients.of, recorder, there.catalogue)
        try:
            yield relay.service(provider, Fleet(pool, keeper, catalogues), clients.of, free=True)
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(CLOSE, shield=True):
                await clients.aclose()


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
