"""A gateway from its start to its end: signals, settings that are read again, and the drain.

A stop starts the drain: the door takes no new connections; streams in flight may go on for `server.grace` seconds; then
their turns end with an error event that says why; what still does not end is cut. A second signal ends at once.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from kirostream.accounts.discovery import Discovery
from kirostream.app import Gateway, open_gateway
from kirostream.doors import check_exposure
from kirostream.errors import ShuttingDown
from kirostream.finding import find_accounts, look_for_accounts
from kirostream.settings import Settings, Sources
from kirostream.simulated import open_simulator
from kirostream.telemetry.facts import ServiceChanged
from kirostream.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from kirostream.simulator.upstream import Simulator

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


async def _signalled(signals: AsyncIterator[int], reload: Callable[[], Awaitable[None]] | None = None) -> None:
    """Wait for a signal to end. A hang-up is one where a terminal is gone; else it means to read the settings again."""
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    async for number in signals:
        if number not in HANG_UP or reload is None or (on_terminal and not sys.stdin.isatty()):
            return
        await reload()
