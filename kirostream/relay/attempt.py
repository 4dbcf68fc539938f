"""One try on one account: token, request, and the stream read to its end.

Deadlines live here, at the caller of every read. One cancel scope guards the whole stream. Its deadline is moved ahead,
but not with every read: moving it costs about as much as reading a token does. It is set a sixteenth later than it has
to be, and moved once that sixteenth is used up; so a silence is found after `idle` seconds at the earliest, and at most
a sixteenth later.

- `first_event`: from the request until the upstream says anything of the turn;
- `idle`: between two reads afterwards;
- `total`: the whole try.

Bytes read before a fault are delivered before it is raised: the codec hands out good frames first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Final

import trio

from kirostream.accounts.account import Account, Token
from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import RunReader
from kirostream.errors import KirostreamError, UpstreamTimeout
from kirostream.filters import EventFilter, gate_of
from kirostream.net.client import ClientResponse, HttpClient
from kirostream.providers.provider import Call, Provider
from kirostream.relay.log import TurnLog
from kirostream.turn.events import TurnEvent, TurnFailed
from kirostream.turn.request import TurnRequest

ERROR_BODY_LIMIT: Final = 256 * 1024
"""Bytes of an upstream error body that are read; real ones are under a kilobyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long an upstream may take."""

    first_event: float = field(
        default=120.0,
        metadata={"help": "From the request to the first event of the answer. Models think first.", "unit": "s"},
    )
    idle: float = field(default=300.0, metadata={"help": "Between two reads of a stream.", "unit": "s"})
    total: float = field(default=3600.0, metadata={"help": "One try of one turn, from start to end.", "unit": "s"})


async def attempt(
    request: TurnRequest,
    call: Call,
    *,
    account: Account,
    token: Token,
    provider: Provider,
    client: HttpClient,
    log: TurnLog,
    deadlines: Deadlines,
    on_first_event: Callable[[], None],
    filters: Sequence[EventFilter] = (),
) -> None:
    """Ask once, and append the whole answer to `log`, as `filters` leave it, in their order.

    An answer that they end early ends the upstream call too. They may keep the end of the answer to themselves, where
    it is one of several that make a turn.

    Raises:
        KirostreamError: whatever went wrong; where the log already holds events, the answer is not whole.
    """
    upstream = provider.prepare(request, call, account, token)
    started = trio.current_time()
    waiting_for = "first event"
    with trio.CancelScope(deadline=started + min(deadlines.first_event, deadlines.total)) as patience:
        async with client.stream(upstream.method, upstream.url, upstream.headers, upstream.body) as response:
            await _refuse_unless_ok(response, provider)
            reader = provider.dialect.reader(request, call.model)
            gate = gate_of(filters)
            runs = reader if isinstance(reader, RunReader) else None
            total = started + deadlines.total
            slack = deadlines.idle / 16
            move_at = 0.0
            before = len(log.events)

            def take(data: bytes) -> bool:
                """What was read goes into the log. Returns whether the next piece can be read at once."""
                nonlocal waiting_for, move_at
                if not data:
                    _append(reader.close(), log, filters, before)
                elif runs is None or gate is None:
                    _append(reader.feed(data), log, filters, before)
                else:
                    items = runs.decode(data)
                    if log.lane and len(items) == 1 and type(items[0]) is list and log.lane.carry(items[0]):
                        runs.hear(items[0])
                    else:
                        _append(runs.read(items), log, filters, before)
                        log.open_lane(runs, gate)
                if not log.events:
                    return True
                now = trio.current_time()
                if now >= move_at:
                    if not move_at:
                        waiting_for = "idle"
                        on_first_event()
                    patience.deadline = min(now + deadlines.idle + slack, total)
                    move_at = now + slack
                return log.has_room and not log.finished

            while not log.finished:
                if not await response.each(take):
                    take(b"")
                    break
                await log.room()
    if patience.cancelled_caught:
        raise _timeout(waiting_for, started, deadlines)


def _append(events: Sequence[TurnEvent], log: TurnLog, filters: Sequence[EventFilter], before: int) -> None:
    """Put what was read into the log. A refusal in the first event is raised, not logged.

    Args:
        before: events that the log had before this try.
    """
    if filters:
        for each in filters:
            events = each.take(events)
    if events and len(log.events) == before and isinstance(events[0], TurnFailed):
        raise events[0].error
    log.append(events)


async def _refuse_unless_ok(response: ClientResponse, provider: Provider) -> None:
    if response.status == 200:
        return
    body = await response.read_all(ERROR_BODY_LIMIT)
    complaint = provider.dialect.read_error(response.headers, body)
    raise provider.classify(response.status, response.headers, complaint)


def _timeout(waiting_for: str, started: float, deadlines: Deadlines) -> KirostreamError:
    if trio.current_time() - started >= deadlines.total:
        return UpstreamTimeout(
            f"The answer took longer than {deadlines.total:g} s in all (relay.total).", reason="total"
        )
    if waiting_for == "idle":
        return UpstreamTimeout(f"The upstream fell silent for {deadlines.idle:g} s (relay.idle).", reason="idle")
    return UpstreamTimeout(
        f"The upstream said nothing for {deadlines.first_event:g} s (relay.first_event).", reason="first_event"
    )
