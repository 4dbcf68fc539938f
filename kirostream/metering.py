"""The composition root of ``GET /metrics``: figures of a running gateway, for whoever has a key.

Loaded with the first request, and never before: a gateway that nobody measures does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from kirostream.accounts.pool import Pool
from kirostream.gateway.callers import Callers
from kirostream.net.door import DoorSnapshot
from kirostream.net.exchange import Exchange
from kirostream.net.hub import BOUNDS, Hub
from kirostream.relay.relay import Relay
from kirostream.telemetry.captures import Captures
from kirostream.telemetry.counts import Counts, Histogram
from kirostream.telemetry.logfiles import LogFiles
from kirostream.telemetry.metrics import CONTENT_TYPE, Metrics, Sample
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger


class MetricsHandler:
    """Serves the text."""

    def __init__(self, metrics: Metrics, callers: Callers) -> None:
        self._metrics = metrics
        self._callers = callers

    def __repr__(self) -> str:
        return "<MetricsHandler>"

    async def __call__(self, exchange: Exchange) -> None:
        """``GET /metrics``.

        Raises:
            KeyRejected, NotAllowed: the key may not.
        """
        self._callers.check(exchange.request, "api", "admin")
        await exchange.reply(200, ((b"content-type", CONTENT_TYPE),), self._metrics.text())


def open_metering(
    counts: Counts,
    *,
    callers: Callers,
    relay: Relay,
    pool: Pool,
    door: Callable[[], DoorSnapshot],
    recorder: Recorder,
    ledger: Ledger | None,
    logs: LogFiles | None,
    captures: Captures,
    hub: Hub | None,
    nursery: trio.Nursery,
) -> MetricsHandler:
    """The handler. From now on the event loop is watched for being late."""
    nursery.start_soon(counts.watch_lag)

    def now() -> Iterator[Sample]:
        yield from _turns(relay)
        yield from _doors(door())
        yield from _accounts(pool)
        yield from _sinks(recorder, ledger, logs, captures)

    def carried() -> Histogram | None:
        if hub is None:
            return None
        found = Histogram(BOUNDS)
        found.counts, found.total = hub.times
        return found

    return MetricsHandler(Metrics(counts, now, carried), callers)


def _turns(relay: Relay) -> Iterator[Sample]:
    kept = relay.directory.snapshot()
    yield Sample(name="kirostream_turns_in_flight", help="Turns under way.", value=kept.in_flight)
    yield Sample(name="kirostream_turns_kept", help="Turns that are over and can be replayed.", value=kept.over)
    in_flight = sum(live.log.size for live in relay.directory)
    for state, size in (("in_flight", in_flight), ("over", kept.size)):
        yield Sample(
            name="kirostream_turn_log_bytes",
            help="Memory of what was said in turns.",
            value=size,
            labels=(("state", state),),
        )


def _doors(door: DoorSnapshot) -> Iterator[Sample]:
    yield Sample(name="kirostream_connections", help="Connections of clients.", value=door.connections)
    yield Sample(name="kirostream_exchanges_in_flight", help="HTTP requests under way.", value=door.active)
    for name, text, value in (
        ("evicted", "Clients that did not read, and were cut.", door.evicted),
        ("refused", "What came and was no request.", door.refused),
    ):
        yield Sample(name=f"kirostream_clients_{name}", help=text, value=value, counter=True)


def _accounts(pool: Pool) -> Iterator[Sample]:
    snapshot = pool.snapshot()
    states: dict[str, int] = {}
    for account in snapshot.accounts:
        state = account.state.value
        states[state] = states.get(state, 0) + 1
    for state, count in sorted(states.items()):
        yield Sample(name="kirostream_accounts", help="Accounts, by state.", value=count, labels=(("state", state),))
    yield Sample(name="kirostream_leases", help="Tries under way.", value=snapshot.in_flight)
    yield Sample(name="kirostream_leases_waiting", help="Turns that wait for an account.", value=snapshot.waiting)


def _sinks(recorder: Recorder, ledger: Ledger | None, logs: LogFiles | None, captures: Captures) -> Iterator[Sample]:
    yield Sample(
        name="kirostream_facts_dropped", help="Facts that a sink refused.", value=recorder.dropped, counter=True
    )
    snapshots = {
        "usage": ledger and ledger.snapshot(),
        "logs": logs and logs.snapshot(),
        "captures": captures.snapshot() if captures.on else None,
    }
    for sink, of in snapshots.items():
        if not of:
            continue
        labels = (("sink", sink),)
        yield Sample(name="kirostream_sink_queue", help="What waits to be written.", value=of.queued, labels=labels)
        yield Sample(
            name="kirostream_sink_written", help="What was written.", value=of.written, labels=labels, counter=True
        )
        yield Sample(
            name="kirostream_sink_dropped", help="What was dropped.", value=of.dropped, labels=labels, counter=True
        )
        yield Sample(
            name="kirostream_sink_failing", help="1: it cannot be written.", value=bool(of.trouble), labels=labels
        )
    if logs is not None:
        value = logs.snapshot().bytes
        yield Sample(name="kirostream_log_bytes", help="Bytes of log lines written.", value=value, counter=True)
