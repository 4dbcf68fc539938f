"""One try on one account: token, request, and the stream read to its end.

Deadlines live here, at the caller of every read. One cancel scope guards the whole try; it has no deadline of its own,
for `_Patience` says when it ends, and `relay.sweep` looks after that. So a deadline is moved with every read, at the
cost of a number. A token that goes by a track (`relay.lane`) moves nothing: when the deadline has come, the log is
asked when the last one was, and the reads go on for as long as is left.

- `first_event`: from the request until the upstream says anything of the turn;
- `idle`: between two reads afterwards;
- `total`: the whole try.

Bytes read before a fault are delivered before it is raised: the codec hands out good frames first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import field
from time import perf_counter
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from kirostream.accounts.account import Account, Token
from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Reader, RunReader
from kirostream.errors import KirostreamError, UpstreamTimeout
from kirostream.filters import EventFilter, gate_of
from kirostream.net.client import ClientResponse, HttpClient
from kirostream.providers.provider import Call, Provider
from kirostream.relay.log import TurnLog
from kirostream.relay.sweep import current_sweep
from kirostream.telemetry.captures import Capture, Try
from kirostream.turn.events import TurnEvent, TurnFailed
from kirostream.turn.request import TurnRequest

if TYPE_CHECKING:
    from kirostream.net._wire import Track

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
    capture: Capture | None = None,
) -> None:
    """Ask once, and append the whole answer to `log`, as `filters` leave it, in their order.

    An answer that they end early ends the upstream call too. They may keep the end of the answer to themselves, where
    it is one of several that make a turn. `capture` gets what goes and comes.

    Raises:
        KirostreamError: whatever went wrong; where the log already holds events, the answer is not whole.
    """
    upstream = provider.prepare(request, call, account, token)
    tried: Try | None = None
    if capture is not None:
        tried = capture.trying(account.label, upstream.method, upstream.url, upstream.headers, upstream.body)
    log.spent.asking()
    patience = _Patience(deadlines, log)
    sweep = current_sweep()
    with patience.scope:
        sweep.add(patience)
        try:
            async with client.stream(upstream.method, upstream.url, upstream.headers, upstream.body) as response:
                del upstream  # its body is as long as the conversation, and is not needed while the answer comes
                if tried is not None:
                    tried.answered(response.status, response.headers)
                if response.status != 200:
                    await _refuse(response, provider, tried)
                reader = provider.dialect.reader(request, call.model)
                intake = _Intake(reader, log, filters, patience, on_first_event, tried)
                while not log.finished:
                    if not await response.each(intake):
                        intake.end()
                        break
                    if not log.has_room:
                        patience.pause()
                        await log.room()
                        patience.listen()
        finally:
            sweep.remove(patience)
    if patience.scope.cancelled_caught:
        raise patience.error()


class _Patience:
    """How long a try may go on. See the module's docstring, and `relay.sweep.Timed`.

    Attributes:
        scope: holds the try.
        at: its next deadline, in Trio's time.
    """

    __slots__ = (
        "_begun",
        "_carried_at",
        "_deadlines",
        "_listens",
        "_log",
        "_reason",
        "_sweep",
        "_total",
        "at",
        "scope",
    )

    def __init__(self, deadlines: Deadlines, log: TurnLog) -> None:
        started = trio.current_time()
        self.scope = trio.CancelScope()
        self._deadlines = deadlines
        self._log = log
        self._sweep = current_sweep()
        self._total = started + deadlines.total
        self.at = min(started + deadlines.first_event, self._total)
        self._carried_at = 0.0
        self._begun = self._listens = False
        self._reason = ""

    def listen(self) -> None:
        """The answer has begun. From now on the upstream may be silent for as long as it may."""
        self._begun = self._listens = True
        self.at = at = min(trio.current_time() + self._deadlines.idle, self._total)
        if at < self._sweep.next:
            self._sweep.sooner(at)

    def pause(self) -> None:
        """Nobody reads: it is the client who is silent, and for that its own deadline is."""
        self._listens = False
        self.at = self._total

    def due(self, now: float) -> None:
        """See `Timed.due`."""
        if now >= self._total:
            self._reason = "total"
        elif not self._begun:
            self._reason = "first_event"
        elif not self._listens or self.was_carried():
            return
        else:
            self._reason = "idle"
        self.at = math.inf
        self.scope.cancel()

    def was_carried(self) -> bool:
        """Whether a track, which moves no deadline, took something since the last call, and not too long ago."""
        before, self._carried_at = self._carried_at, self._log.carried_at
        if before == self._carried_at:
            return False
        left = self._deadlines.idle - (time.monotonic() - self._carried_at)
        self.at = min(trio.current_time() + left, self._total)
        return left > 0

    def error(self) -> KirostreamError:
        """What it means that it has come to its end."""
        deadlines = self._deadlines
        match self._reason:
            case "total":
                said = f"The answer took longer than {deadlines.total:g} s in all (relay.total)."
            case "idle":
                said = f"The upstream fell silent for {deadlines.idle:g} s (relay.idle)."
            case _:
                said = f"The upstream said nothing for {deadlines.first_event:g} s (relay.first_event)."
        return UpstreamTimeout(said, reason=self._reason)


class _Intake:
    """Takes what a try reads into the log. See the module's docstring, and `net.upstream.Taker`.

    Attributes:
        begun: the log has an event.
    """

    def __init__(
        self,
        reader: Reader,
        log: TurnLog,
        filters: Sequence[EventFilter],
        patience: _Patience,
        on_first_event: Callable[[], None],
        tried: Try | None,
    ) -> None:
        self._tried = tried
        self._reader = reader
        self._runs = reader if isinstance(reader, RunReader) else None
        self._gate = gate_of(filters)
        self._log = log
        self._filters = filters
        self._before = len(log.events)
        self._on_first_event = on_first_event
        self._patience = patience
        self.begun = False

    def __call__(self, data: bytes) -> bool:
        log = self._log
        spent = log.spent
        spent.came = came = perf_counter()
        if self._tried is not None:
            self._tried.answer.add(data)
        if log.lane is None or not log.lane.push(data):
            self._append(self._reader.feed(data))
            if self._runs is not None:
                log.open_lane(self._runs, self._gate)
        if self.begun or log.events:
            self._patience.listen()
            if not self.begun:
                self.begun = True
                self._on_first_event()
            spent.took(came, heard=True)
            return log.has_room and not log.finished
        spent.took(came, heard=False)
        return True

    @property
    def track(self) -> Track | None:
        lane = self._log.lane
        return None if lane is None else lane.track

    def end(self) -> None:
        """The body is at its end."""
        self._append(self._reader.close())

    def _append(self, events: Sequence[TurnEvent]) -> None:
        """Put what was read into the log. A refusal in the first event is raised, not logged."""
        for each in self._filters:
            events = each.take(events)
        log = self._log
        if events and len(log.events) == self._before and isinstance(events[0], TurnFailed):
            raise events[0].error
        log.append(events)


async def _refuse(response: ClientResponse, provider: Provider, tried: Try | None) -> NoReturn:
    body = await response.read_all(ERROR_BODY_LIMIT)
    if tried is not None:
        tried.answer.add(body)
    complaint = provider.dialect.read_error(response.headers, body)
    raise provider.classify(response.status, response.headers, complaint)
