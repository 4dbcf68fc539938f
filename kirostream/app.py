"""The composition root: settings in, nested owners out, and the order in which they end.

Owners, outermost first: the database, the simulator (in a demo), the accounts' connections, the token keeper and the
pool, the relay (one pump a turn), the heartbeats, the door (one task a connection). What an owner owns is gone before
the owner is.

A stop starts the drain: the door takes no new connections; streams in flight may go on for `server.grace` seconds; then
their turns end with an error event that says why; what still does not end is cut. A second signal ends at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from kirostream.accounts.account import Account, Token
from kirostream.accounts.devices import Devices
from kirostream.accounts.discovery import (
    AccountSettings,
    Discovery,
    Found,
    accounts_of,
    discover,
    from_environment,
)
from kirostream.accounts.health import Health
from kirostream.accounts.keeper import Post, TokenKeeper
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.pool import Pool
from kirostream.accounts.roster import Roster
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.accounts.terms import terms_of
from kirostream.admin.lazy import PREFIXES, Lazily
from kirostream.dataclass import dataclass
from kirostream.doors import Doors, Places, check_exposure
from kirostream.errors import LocalProtocolError, SettingsError, ShuttingDown
from kirostream.gateway.callers import Callers, load_or_make_key
from kirostream.gateway.cors import Cors
from kirostream.gateway.key_book import KeyBook
from kirostream.gateway.keys import KeyFile
from kirostream.gateway.media import Media
from kirostream.gateway.responses import Responses
from kirostream.gateway.responses_store import ResponseStore
from kirostream.gateway.routes import make_router, refuse
from kirostream.gateway.sse import Heartbeats
from kirostream.net.client import HttpClient
from kirostream.net.door import ExchangeRecord
from kirostream.net.exchange import Handler, Headers, HttpRequest
from kirostream.net.hub import opened
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.kiro_management import AccountUsage
from kirostream.relay.archive import open_archive
from kirostream.relay.calibration_store import open_calibration
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.clients import Clients
from kirostream.relay.fleet import Fleet
from kirostream.relay.guests import Guests
from kirostream.relay.house import House
from kirostream.relay.management import Management, with_token
from kirostream.relay.refusals import Captures
from kirostream.relay.relay import Relay
from kirostream.relay.resets import Resets
from kirostream.settings import Settings, Sources
from kirostream.steering import Steering
from kirostream.stores.sealed import SealedStore
from kirostream.stores.sqlite import open_database
from kirostream.telemetry.counts import Counts
from kirostream.telemetry.facts import (
    AccountChanged,
    ExchangeFinished,
    PoolTroubled,
    RefreshFailed,
    ServiceChanged,
    SinkTroubled,
    TokenRefreshed,
)
from kirostream.telemetry.faults import faulted
from kirostream.telemetry.logfiles import FOLDER as LOGS
from kirostream.telemetry.logfiles import LogFiles, open_log_files
from kirostream.telemetry.recent import Recent
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger, open_ledger
from kirostream.turn.memory import Memory

if TYPE_CHECKING:
    from kirostream.simulator.upstream import Simulator

DATABASE: Final = "kirostream.db"
"""The file in the data directory that holds what clients may come back to."""
AGE: Final = 300.0
"""Seconds of a generation of `turn.memory`: what is not sent for one or two of them is let go."""
SETTLING: Final = 1.0
"""Seconds between the first request that can be answered and the one pass over the heap: it takes 40 ms."""
HANG_UP: Final = (signal.SIGHUP,) if sys.platform != "win32" else ()
"""The signal that asks a service to read its settings again."""
THRESHOLDS: Final = (700, 10, 100)
"""Of the collector of cyclic garbage, once the heap has settled: Python's own, but a tenth of the full collections.

Measured with 512 streams of 20 tokens a second that begin within two seconds. With (700, 10, 10) a tenth of the CPU
went into seven full collections, and all streams waited for each, up to 0.3 s. With these there was none, and the young
ones took 4 %, 26 ms at most. Larger young generations take as much and wait longer: 46 ms with 2,000, 70 with 50,000.
"""
LAST_WORDS: Final = 5.0
"""Seconds between the error event of a stopped turn and the cutting of its connection."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that listens.

    `url` has no slash at its end; `more_urls` are those of ``[[listen]]``. `key` is what clients send; `new_key` says
    whether it was made just now. `using` says which credential is used, `notes` what a person should know of it.
    `closed` is set once no door serves any more. `hub` says whether there is one (`net.hub`).
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
    ledger: Ledger | None
    logs: LogFiles | None
    steering: Steering
    book: KeyBook
    closed: trio.Event
    hub: bool


def faults_to(recorder: Recorder, where: str) -> Callable[[HttpRequest | None, Exception], None]:
    """What a door does with a bug of ours: it becomes a fact, and nothing of it reaches the client."""

    def on_fault(request: HttpRequest | None, error: Exception) -> None:
        at = f"{where}: {request.method} {request.path}" if request else where
        recorder.record(faulted(at, error))

    return on_fault


def exchanges_to(recorder: Recorder) -> Callable[[ExchangeRecord], None]:
    """The access log: one fact an exchange."""

    def on_exchange(done: ExchangeRecord) -> None:
        request = done.request or HttpRequest("-", "-", "", ())
        recorder.record(
            ExchangeFinished(
                method=request.method,
                path=request.path,
                status=done.status,
                sent=done.sent,
                seconds=round(done.seconds, 6),
                peer=request.peer,
                ending=done.ending,
            )
        )

    return on_exchange


def changes_to(recorder: Recorder) -> Callable[[Account, Health, Health], None]:
    """What the pool tells of its accounts, as facts."""

    def on_change(account: Account, before: Health, now: Health) -> None:
        recorder.record(
            AccountChanged(
                account=account.label,
                before=before.state.value,
                state=now.state.value,
                why=now.why,
                seconds=round(max(now.until - time.time(), 0.0)),
            )
        )

    return on_change


@asynccontextmanager
async def open_simulator(settings: Settings, recorder: Recorder) -> AsyncIterator[tuple[Simulator, str]]:
    """A simulator that listens until the context ends, and its base URL."""
    from kirostream.simulator.upstream import serve

    async with trio.open_nursery() as nursery:
        on_fault = faults_to(recorder, "simulator")
        simulator, url = await nursery.start(serve, settings.simulator, on_fault)
        yield simulator, url
        nursery.cancel_scope.cancel()


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
        owners.enter_context(_traced(recorder, os.environ))
        database = await owners.enter_async_context(open_database(data_dir / DATABASE))
        calibration = await owners.enter_async_context(open_calibration(database, recorder.record))
        archive = await owners.enter_async_context(
            open_archive(database, settings.relay.turns.archive, recorder.record)
        )
        ledger = await owners.enter_async_context(open_ledger(database, settings.usage, recorder.record))
        if ledger is not None:
            owners.enter_context(recorder.adding(ledger.take))
        simulator: Simulator | None = None
        accounts_dir, started_at = data_dir, time.time()
        if found is None:
            demo, upstream = await owners.enter_async_context(open_simulator(settings, recorder))
            steering.dress(lambda settings: _pointed_at(settings, upstream))
            settings = steering.now
            found = await _simulated_account(demo, data_dir)
            simulator = demo
            # A demo's sign-ins are worth nothing elsewhere, and the person's own are nothing for a simulator.
            from tempfile import TemporaryDirectory

            accounts_dir = Path(owners.enter_context(TemporaryDirectory(prefix="kirostream-demo-")))
            find = _found_in_demo(found, accounts_dir)
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
            return await Management(provider, clients.of(account)).profile(account, token)

        keeper = TokenKeeper(
            no_post,
            settings.keeper,
            ide_version=settings.kiro.ide_version,
            lock_folder=data_dir / "locks",
            look_up=look_up,
            on_refreshed=lambda name, seconds: recorder.record(
                TokenRefreshed(account=pool.label(name), expires_in=round(seconds))
            ),
            on_failed=lambda name, error: recorder.record(
                RefreshFailed(account=pool.label(name), error=type(error).__name__, message=error.message)
            ),
        )
        keeping = await owners.enter_async_context(trio.open_nursery())
        await keeping.start(keeper.run)

        async def usage(account: Account) -> AccountUsage:
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
            lambda account: post_by(clients.of(account)),
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
                on_refreshed=lambda name, seconds: recorder.record(
                    TokenRefreshed(account=name, expires_in=round(seconds))
                ),
                on_failed=lambda name, error: recorder.record(
                    RefreshFailed(account=name, error=type(error).__name__, message=error.message)
                ),
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
            captures=Captures(data_dir / "captures", settings.relay.captures, time.time),
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
            cors.around(router),
            settings,
            refuse=cors.refusing(refuse),
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
        serving.start_soon(relay.models)  # so that the first request need not wait for the list, nor for the connection
        using = _described(found) if simulator is None else "the built-in simulator"
        notes = tuple(note for one in found for note in one.notes) if simulator is None else ()
        if settings.admin.enabled:
            recent = Recent()
            recorder.add(recent)

            def admin() -> Handler:
                from kirostream.admin.desk import About
                from kirostream.operating import open_operating

                return open_operating(
                    settings,
                    About(
                        urls=(places.url, *places.urls),
                        using=using,
                        notes=notes,
                        started_at=started_at,
                        data_dir=data_dir,
                        demo=simulator is not None,
                    ),
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
                    editor=lambda: steering.editor,
                    door=door.snapshot,
                    nursery=serving,
                )

            room = Lazily("kirostream.operating", admin)
            for prefix in PREFIXES:
                router.mount(prefix, room)
        counts = Counts()
        owners.enter_context(recorder.adding(counts))

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
            ledger=ledger,
            logs=logs,
            steering=steering,
            book=book,
            closed=closed,
            hub=hub is not None,
        )
        for owner in (serving, turns, keeping):
            owner.cancel_scope.cancel()


async def drain(gateway: Gateway, grace: float) -> None:
    """End a gateway in good order: what is in flight may go on for `grace` seconds, and is told when it may not.

    Returns as soon as nothing is in flight.
    """
    gateway.door.stop(grace + LAST_WORDS)
    gateway.responses.stopping.set()
    with trio.move_on_after(grace):
        await gateway.closed.wait()
        return
    gateway.relay.fail_all(ShuttingDown("The gateway is being stopped. The same request will work once it is back."))
    with trio.move_on_after(LAST_WORDS):
        await gateway.closed.wait()


async def serve(
    settings: Settings,
    *,
    demo: bool,
    env: Mapping[str, str],
    data_dir: Path,
    recorder: Recorder,
    announce: Callable[[Gateway], None],
    sources: Sources | None = None,
    on_settings: Callable[[Settings], None] = lambda settings: None,
) -> None:
    """Run a gateway until SIGINT or SIGTERM, and drain it. SIGHUP has it read its settings again.

    Args:
        settings: everything that is set.
        demo: use the built-in simulator, and no account.
        env: the environment, for the folders in which credentials are looked for.
        data_dir: our own.
        recorder: where facts go.
        announce: called once the gateway listens.
        sources: where `settings` were read.
        on_settings: told of those that act from now on, whenever some have changed.

    Raises:
        SettingsError, StoreError: it cannot start.
    """
    check_exposure(settings)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *HANG_UP) as signals:
        found = None if demo else await find_accounts(settings, env, data_dir)

        async def find() -> Discovery:
            return await look_for_accounts(settings, env, data_dir)

        async with open_gateway(
            settings, found, data_dir=data_dir, recorder=recorder, find=None if demo else find, sources=sources
        ) as gateway:
            gateway.steering.adopters.append(on_settings)
            reload = gateway.steering.reload
            announce(gateway)
            recorder.record(ServiceChanged(service="gateway", state="listening", detail=gateway.url))
            async with trio.open_nursery() as settling:
                settling.start_soon(_settle)
                await _signalled(signals, reload)
                settling.cancel_scope.cancel()
            recorder.record(ServiceChanged(service="gateway", state="draining"))
            async with trio.open_nursery() as nursery:

                async def drained() -> None:
                    await drain(gateway, gateway.steering.now.server.grace)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(drained)
                await _signalled(signals, reload)  # a second signal: now
                nursery.cancel_scope.cancel()
    recorder.record(ServiceChanged(service="gateway", state="stopped"))


async def _settle() -> None:
    await trio.sleep(SETTLING)
    settle_heap()


def settle_heap() -> None:
    """Take what start-up made out of every later collection of cyclic garbage.

    A full collection looks at every object, and holds up all streams meanwhile. Most objects belong to modules and stay
    until the end: with them it takes some 40 ms, without them 10.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def simulate(settings: Settings, *, recorder: Recorder, announce: Callable[[Simulator, str], None]) -> None:
    """Run the simulator alone, until SIGINT or SIGTERM."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_simulator(settings, recorder) as (simulator, url):
            announce(simulator, url)
            await _signalled(signals)


async def find_accounts(settings: Settings, env: Mapping[str, str], data_dir: Path) -> Sequence[Found]:
    """The accounts that were chosen, or else those that are found; at least one, the preferred one first.

    Raises:
        SettingsError, StoreError: there is none; the message says where it was looked for and how to get one.
    """
    discovery = await look_for_accounts(settings, env, data_dir)
    if not discovery.found:
        if settings.guests.key:  # every request may bring its own
            return []
        raise SettingsError(f"{discovery.explain()}\nTo try it without an account: kirostream serve --demo")
    first, *others = discovery.found
    return [replace(first, notes=(*first.notes, *discovery.trouble)), *others]


async def look_for_accounts(settings: Settings, env: Mapping[str, str], data_dir: Path) -> Discovery:
    """What there is, and what was looked at.

    Raises:
        SettingsError, StoreError: what was chosen cannot be used.
    """
    return await discover(
        ("the environment", from_environment(env)),
        ("the settings", settings.account),
        env=env,
        home=Path(env.get("HOME") or Path.home()),
        data_dir=data_dir,
    )


def as_set(account: Account, settings: Settings) -> Account:
    """The account as the operator wants it addressed."""
    terms = terms_of(account, settings.pool.accounts)
    return replace(account, api_region=terms.region or account.api_region, endpoint=terms.endpoint)


def _described(found: Sequence[Found]) -> str:
    """Which credentials are used."""
    if not found:
        return "the accounts that come with requests"
    first = found[0].source.describe()
    return first if len(found) == 1 else f"{len(found)} accounts, the first from {first}"


async def _simulated_account(simulator: Simulator, data_dir: Path) -> Sequence[Found]:
    """An account of the simulator's, under the device identity that the demo keeps."""
    source = DirectSource(simulator.credential(), name="simulator")
    return await accounts_of(source, Devices(data_dir), time.time())


def _found_in_demo(simulated: Sequence[Found], folder: Path) -> Callable[[], Awaitable[Discovery]]:
    """How a demo looks for accounts: the simulated one, and those that were added meanwhile; never at the person's."""

    async def find() -> Discovery:
        nothing = AccountSettings()
        added = await discover(
            ("the environment", nothing), ("the settings", nothing), env={}, home=folder, data_dir=folder
        )
        return replace(added, found=(*simulated, *added.found))

    return find


def _pointed_at(settings: Settings, upstream: str) -> Settings:
    """The settings with every upstream address replaced by one."""
    return replace(
        settings,
        kiro=replace(settings.kiro, endpoint=upstream),
        keeper=replace(settings.keeper, hosts=AuthHosts(social=upstream, oidc=upstream)),
    )


def post_by(client: HttpClient) -> Post:
    """The keeper's way to the token service."""

    async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        status, _, answer = await client.fetch(method, url, headers, body)
        return status, answer

    return post


async def no_post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
    """For accounts that are added to a keeper without a way of their own: there are none."""
    raise LocalProtocolError("an account was added to the keeper without a way out")


@contextmanager
def _traced(recorder: Recorder, env: Mapping[str, str]) -> Iterator[None]:
    """Send traces where the standard variables of OpenTelemetry name a place for them, until the context ends."""
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not any(env.get(name) for name in places) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    try:
        from kirostream.telemetry.otel import open_sink

        sink = open_sink()
    except ImportError:
        why = "OTEL_EXPORTER_OTLP_ENDPOINT is set; to send traces: pip install 'kirostream[otel]'"
        recorder.record(SinkTroubled(sink="opentelemetry", message=why))
        yield
        return
    try:
        with recorder.adding(sink):
            yield
    finally:
        sink.close()


async def _aging(memory: Memory) -> None:
    """Let the memory forget what nobody sends any more."""
    while True:
        await trio.sleep(AGE)
        memory.age()


async def _signalled(signals: AsyncIterator[int], reload: Callable[[], Awaitable[None]] | None = None) -> None:
    """Wait for a signal to end. A hang-up is one where a terminal is gone; else it means to read the settings again."""
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    async for number in signals:
        if number not in HANG_UP or reload is None or (on_terminal and not sys.stdin.isatty()):
            return
        await reload()
