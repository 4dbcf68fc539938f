"""The composition root: settings in, nested owners out, and the order in which they end.

Owners, outermost first: the database, the simulator (in a demo), the accounts' connections, the token keeper and the
pool, the relay (one pump a turn), the heartbeats, the door (one task a connection). What an owner owns is gone before
the owner is.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from kirostream.accounts.account import Account, Token
from kirostream.accounts.discovery import (
    Discovery,
    Found,
)
from kirostream.accounts.health import Health
from kirostream.accounts.keeper import TokenKeeper, no_post
from kirostream.accounts.pool import Pool
from kirostream.accounts.roster import Roster
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.accounts.terms import terms_of
from kirostream.admin.lazy import PREFIXES, Lazily, refusing
from kirostream.dataclass import dataclass
from kirostream.doors import Doors, Places
from kirostream.finding import as_set, described
from kirostream.gateway.callers import Callers, load_or_make_key
from kirostream.gateway.captured import Capturing
from kirostream.gateway.cors import Cors
from kirostream.gateway.key_book import KeyBook
from kirostream.gateway.keys import KeyFile
from kirostream.gateway.media import Media
from kirostream.gateway.responses import Responses
from kirostream.gateway.responses_store import ResponseStore
from kirostream.gateway.routes import make_router, refuse
from kirostream.gateway.sse import Heartbeats
from kirostream.net.client import HttpClient
from kirostream.net.exchange import Handler
from kirostream.net.hub import opened
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.archive import open_archive
from kirostream.relay.calibration_store import open_calibration
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.clients import Clients
from kirostream.relay.fleet import Fleet
from kirostream.relay.guests import Guests
from kirostream.relay.house import House
from kirostream.relay.relay import Relay
from kirostream.relay.resets import Resets
from kirostream.relay.switch import Switch
from kirostream.reporting import changes_to, exchanges_to, faults_to, tokens_to, traced
from kirostream.settings import DATABASE, Settings, Sources
from kirostream.simulated import found_in_demo, open_simulator, open_stand_in, pointed_at, simulated_account
from kirostream.steering import Steering
from kirostream.stores.sealed import SealedStore
from kirostream.stores.sqlite import open_or_copy
from kirostream.telemetry.captures import FOLDER as CAPTURES
from kirostream.telemetry.captures import open_captures
from kirostream.telemetry.counts import Counts
from kirostream.telemetry.facts import (
    PoolTroubled,
    SinkTroubled,
    TurnFinished,
)
from kirostream.telemetry.logfiles import FOLDER as LOGS
from kirostream.telemetry.logfiles import LogFiles, open_log_files
from kirostream.telemetry.recent import Recent
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger, open_ledger
from kirostream.turn.memory import Memory

if TYPE_CHECKING:
    from kirostream.providers.kiro_management import AccountUsage
    from kirostream.simulator.upstream import Simulator

AGE: Final = 300.0
"""Seconds of a generation of `turn.memory`: what is not sent for one or two of them is let go."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that listens.

    `url` has no slash at its end; `more_urls` are those of ``[[listen]]``. `key` is what clients send; `new_key` says
    whether it was made just now. `simulator` is that of a demo. `using` says which credential is used, `notes` what a
    person should know of it. `closed` is set once no door serves any more. `hub` says whether there is one (`net.hub`).
    """

    url: str
    more_urls: tuple[str, ...]
    key: str = field(repr=False)
    new_key: bool
    using: str
    notes: tuple[str, ...]
    relay: Relay
    pool: Pool
    door: Doors
    responses: Responses
    simulator: Simulator | None
    switch: Switch
    ledger: Ledger | None
    logs: LogFiles | None
    steering: Steering
    book: KeyBook
    closed: trio.Event
    hub: bool


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    found: Sequence[Found] | None,
    *,
    data_dir: Path,
    recorder: Recorder,
    find: Callable[[], Awaitable[Discovery]] | None = None,
    sources: Sources | None = None,
    listens: bool = True,
) -> AsyncIterator[Gateway]:
    """A gateway that listens until the context ends. `drain` it first, to end it in good order.

    Args:
        settings: everything that is set.
        found: the accounts to use, at least one where none may come with requests; None: a built-in simulator is the
            upstream.
        data_dir: where the key, the device ids and the locks live.
        recorder: where facts go.
        find: looks for the accounts again, when the list of our own was written; None: they stay what they are.
        sources: where `settings` were read, to read them again; None: they stay what they are.
        listens: False: somebody else serves `Doors.application`, and there is no `url`.

    Raises:
        SettingsError, StoreError: it cannot start. The message says why, and what to do.
    """
    steering = Steering(settings, sources, recorder)
    key, new_key = (settings.server.key, False) if settings.server.key else load_or_make_key(data_dir)
    async with AsyncExitStack() as owners:
        hub = owners.enter_context(opened(wanted=settings.upstream.hub))
        logs = await owners.enter_async_context(open_log_files(data_dir / LOGS, settings.log, recorder.record))
        if logs is not None:
            owners.enter_context(recorder.adding(logs.take))
        captures = await owners.enter_async_context(
            open_captures(data_dir / CAPTURES, settings.relay.captures, recorder.record)
        )
        owners.enter_context(traced(recorder, os.environ))
        database, trouble = await owners.enter_async_context(open_or_copy(data_dir / DATABASE))
        unkept = ""
        if trouble is not None:
            unkept = f"Nothing that changes from now on outlives this process: {trouble.message}."
            recorder.record(SinkTroubled(sink="data directory", message=unkept))
        calibration = await owners.enter_async_context(open_calibration(database, recorder.record))
        archive = await owners.enter_async_context(
            open_archive(database, settings.relay.turns.archive, recorder.record)
        )
        ledger = await owners.enter_async_context(open_ledger(database, settings.usage, recorder.record))
        if ledger is not None:
            owners.enter_context(recorder.adding(ledger.take, TurnFinished))
        simulator: Simulator | None = None
        accounts_dir, started_at = data_dir, time.time()
        if found is None:
            demo, upstream = await owners.enter_async_context(open_simulator(settings, recorder))
            steering.dress(lambda settings: pointed_at(settings, upstream))
            settings = steering.now
            found = await simulated_account(demo, data_dir)
            simulator = demo
            # A demo's sign-ins are worth nothing elsewhere, and the person's own are nothing for a simulator.
            from tempfile import TemporaryDirectory

            accounts_dir = Path(owners.enter_context(TemporaryDirectory(prefix="kirostream-demo-")))
            find = found_in_demo(found, accounts_dir)
        places = Places()
        if listens:
            await places.bind(settings, owners)
        clients = Clients(settings.upstream, lambda account: terms_of(account, steering.now.pool.accounts).proxy)
        owners.push_async_callback(clients.aclose)
        tell = changes_to(recorder)

        def on_change(account: Account, before: Health, now: Health) -> None:
            tell(account, before, now)
            resets.noticed(account, before, now)

        pool = Pool(
            settings.pool,
            SqlitePoolStore(database),
            on_change=on_change,
            on_trouble=lambda error: recorder.record(PoolTroubled(message=error.message)),
        )
        provider = KiroProvider(settings.kiro)

        async def look_up(account: Account, token: Token) -> str:
            from kirostream.relay.management import Management  # here and below: at the start nobody asks

            return await Management(provider, clients.of(account)).profile(account, token)

        keeper = TokenKeeper(
            no_post,
            settings.keeper,
            ide_version=settings.kiro.ide_version,
            lock_folder=data_dir / "locks",
            look_up=look_up,
            **tokens_to(recorder, pool.label),
        )
        keeping = await owners.enter_async_context(trio.open_nursery())
        await keeping.start(keeper.run)

        async def usage(account: Account) -> AccountUsage:
            from kirostream.relay.management import Management, with_token

            return await with_token(keeper, account, Management(provider, clients.of(account)).usage)

        resets = Resets(
            keeping,
            usage,
            pool,
            lambda account, error: recorder.record(
                PoolTroubled(message=f"{account.label}: when its credits come back is not known: {error.message}")
            ),
        )
        turns = await owners.enter_async_context(trio.open_nursery())

        def catalogues(of: Pool, tokens: TokenKeeper) -> Catalogues:
            return Catalogues(turns, provider, of, tokens, clients.of, recorder, steering.now.catalogue)

        fleet = Fleet(pool, keeper, catalogues(pool, keeper))
        house = House(
            fleet,
            clients,
            clients.post_of,
            lambda account: as_set(account, steering.now),
            recorder,
        )
        for one in found:
            house.add(one)
        await keeping.start(pool.run)
        guests: Guests | None = None
        if settings.guests.key:
            guest_keeper = TokenKeeper(
                no_post,
                replace(settings.keeper, sweep=0.0),
                ide_version=settings.kiro.ide_version,
                look_up=look_up,
                **tokens_to(recorder),
            )
            await keeping.start(guest_keeper.run)
            guests = Guests(guest_keeper, clients, catalogues, settings.pool, settings.guests)

        async def spent(name: str, since: float) -> float:
            return 0.0 if ledger is None else (await ledger.totals(name, since)).credits

        book = KeyBook(KeyFile(data_dir, time.time), spent, recorder.record)
        await book.load()
        relay = Relay(
            turns,
            pool=pool,
            keeper=keeper,
            provider=provider,
            client_of=clients.of,
            catalogues=fleet.catalogues,
            recorder=recorder,
            settings=settings.relay,
            clock=time.time,
            calibration=calibration,
            archive=archive,
            captures=captures,
            guests=guests,
            gate=book,
        )
        heartbeats = Heartbeats(settings.server.stream.heartbeat, settings.server.stream.hold_head)
        callers = Callers(
            [key],
            book=book,
            in_query=settings.server.key_in_query,
            internal=settings.guests.key,
            admit=guests.admit if guests is not None else None,
        )
        # Own connections, and never through the upstream's proxy (see gateway.media).
        web = HttpClient(replace(settings.upstream, proxy=""))
        owners.push_async_callback(web.aclose)
        media = Media(web, settings.media)
        responses = Responses(
            relay,
            callers,
            heartbeats,
            media,
            ResponseStore(database, settings.responses.store),
            SealedStore(data_dir / "sealed").envelope("thoughts"),
            recorder.record,
            gateway=settings.server,
            settings=settings.responses,
        )
        memory = Memory(settings.server.memory)
        cors = Cors(settings.server.cors_origins)
        router = make_router(
            relay,
            callers,
            heartbeats,
            media,
            responses,
            settings.websocket,
            settings.server,
            memory,
            recorder.record,
        )
        door = Doors(
            Capturing(cors.around(router), captures, {path for method, path in router.routes() if method == "POST"}),
            settings,
            refuse=cors.refusing(refusing(refuse)),
            on_fault=faults_to(recorder, "door"),
            on_exchange=exchanges_to(recorder),
        )

        def adopt(new: Settings) -> None:
            pool.adopt(new.pool)
            keeper.adopt(new.keeper)
            fleet.catalogues.adopt(new.catalogue)
            relay.adopt(new.relay)
            heartbeats.interval = new.server.stream.heartbeat
            heartbeats.hold_head = new.server.stream.hold_head
            callers.in_query = new.server.key_in_query
            media.adopt(new.media)
            responses.adopt(new.server, new.responses)
            router.adopt(new.server, new.websocket)
            door.adopt(new)
            if ledger is not None:
                ledger.adopt(new.usage)
            if logs is not None:
                logs.adopt(new.log)
            if guests is not None:
                guests.adopt(new.guests, new.pool, new.keeper)

        steering.adopters.append(adopt)
        serving = await owners.enter_async_context(trio.open_nursery())
        serving.start_soon(heartbeats.run)
        serving.start_soon(relay.directory.run)
        serving.start_soon(book.run, settings.pool.sync)
        if find is not None:
            roster = Roster(accounts_dir, SealedStore(accounts_dir / "sealed"))
            serving.start_soon(house.run, roster, find, lambda: tuple(relay.directory), settings.pool.sync)
        if guests is not None:
            serving.start_soon(guests.run, lambda: {live.caller for live in relay.directory})
        serving.start_soon(_aging, memory)
        await serving.start(responses.run)
        switch = Switch(relay, lambda: open_stand_in(steering.now, relay, recorder), serving, recorder)
        if settings.simulator.instead and simulator is None:
            await switch.turn(on=True)
        serving.start_soon(relay.models)  # so that the first request need not wait for the list, nor for the connection
        using = described(found, settings) if simulator is None else "the built-in simulator"
        notes = tuple(note for one in found for note in one.notes) if simulator is None else ()
        if unkept:
            notes = (unkept, *notes)
        recent = Recent()

        watched = False

        def watch(settings: Settings) -> None:
            nonlocal watched
            if settings.admin.enabled and not watched:
                recorder.add(recent, *Recent.KINDS)
                watched = True

        watch(settings)
        steering.adopters.append(watch)

        def admin() -> Handler:
            from kirostream.admin.desk import About
            from kirostream.operating import open_operating

            return open_operating(
                steering.now,
                About(
                    urls=(places.url, *places.urls),
                    using=using,
                    notes=notes,
                    started_at=started_at,
                    data_dir=data_dir,
                    demo=simulator is not None,
                    guests=guests is not None,
                    unkept=unkept,
                ),
                switch=switch if simulator is None else None,
                accounts_dir=accounts_dir,
                relay=relay,
                pool=pool,
                keeper=keeper,
                house=house,
                clients=clients,
                callers=callers,
                book=book,
                recent=recent,
                recorder=recorder,
                ledger=ledger,
                logs=data_dir / LOGS if logs is not None else None,
                captures=captures,
                editor=lambda: steering.editor,
                door=door.snapshot,
                adopters=steering.adopters,
                nursery=serving,
            )

        room = Lazily("kirostream.operating", admin, lambda: steering.now.admin.enabled)
        for prefix in PREFIXES:
            router.mount(prefix, room)
        counts = Counts()
        owners.enter_context(recorder.adding(counts, *Counts.KINDS))

        def metering() -> Handler:
            from kirostream.metering import open_metering

            return open_metering(
                counts,
                callers=callers,
                relay=relay,
                pool=pool,
                door=door.snapshot,
                recorder=recorder,
                ledger=ledger,
                logs=logs,
                captures=captures,
                hub=hub,
                nursery=serving,
            )

        router.add("GET", "/metrics", Lazily("kirostream.metering", metering))
        closed = trio.Event()

        async def run_door(task_status: trio.TaskStatus[None]) -> None:
            await door.serve(places, task_status=task_status)
            closed.set()

        await serving.start(run_door)
        yield Gateway(
            url=places.url,
            more_urls=tuple(places.urls),
            key=key,
            new_key=new_key,
            using=using,
            notes=notes,
            relay=relay,
            pool=pool,
            door=door,
            responses=responses,
            simulator=simulator,
            switch=switch,
            ledger=ledger,
            logs=logs,
            steering=steering,
            book=book,
            closed=closed,
            hub=hub is not None,
        )
        for owner in (serving, turns, keeping):
            owner.cancel_scope.cancel()


async def _aging(memory: Memory) -> None:
    """Let the memory forget what nobody sends any more."""
    while True:
        await trio.sleep(AGE)
        memory.age()
