"""One try on one account: token, request, and the stream read to its end.

Deadlines live here, at the caller of every read. One cancel scope guards the whole try, one the reads. The latter's
deadline is moved ahead, but not with every read: moving it costs about as much as reading a token does. It is set a
sixteenth later than it has to be, and moved once that sixteenth is used up; so a silence is found after `idle` seconds
at the earliest, and at most a sixteenth later. A token that goes by a track (`relay.lane`) moves nothing: when the
deadline has come, it is asked when the last one was, and the reads go on for as long as is left.

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
from typing import TYPE_CHECKING, Final

import trio

from kirostream.accounts.account import Account, Token
from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Reader, RunReader
from kirostream.errors import KirostreamError, UpstreamTimeout
from kirostream.filters import EventFilter, gate_of
from kirostream.net.client import ClientResponse, HttpClient
from kirostream.providers.provider import Call, Provider
from kirostream.relay.log import TurnLog
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
    started = trio.current_time()
    total = started + deadlines.total
    log.spent.asking()
    intake: _Intake | None = None
    with trio.CancelScope(deadline=min(started + deadlines.first_event, total)) as patience:
        async with client.stream(upstream.method, upstream.url, upstream.headers, upstream.body) as response:
            del upstream  # its body is as long as the conversation, and is not needed while the answer comes
            if tried is not None:
                tried.answered(response.status, response.headers)
            await _refuse_unless_ok(response, provider, tried)

            def on_first() -> None:
                patience.deadline = total
                on_first_event()

            reader = provider.dialect.reader(request, call.model)
            intake = _Intake(reader, log, filters, deadlines.idle, on_first, tried)
            while not log.finished:
                more = True
                with trio.CancelScope(deadline=intake.silent_at) as intake.silence:
                    more = await response.each(intake)
                if not more:
                    intake.end()
                    break
                if not intake.silence.cancelled_caught:
                    await log.room()  # the client's silence, for which its own deadline is
                    intake.listen()
                elif not intake.was_carried():
                    raise UpstreamTimeout(
                        f"The upstream fell silent for {deadlines.idle:g} s (relay.idle).", reason="idle"
                    )
    if patience.cancelled_caught:
        raise _timeout(started, deadlines, begun=intake is not None and intake.begun)


class _Intake:
    """Takes what a try reads into the log. See the module's docstring, and `net.upstream.Taker`.

    Attributes:
        begun: the log has an event.
        silence: the scope round the reads.
        silent_at: when nothing was read for too long, in Trio's time; inf before the first event.
    """

    def __init__(
        self,
        reader: Reader,
        log: TurnLog,
        filters: Sequence[EventFilter],
        idle: float,
        on_first_event: Callable[[], None],
        tried: Try | None = None,
    ) -> None:
        self._tried = tried
        self._reader = reader
        self._runs = reader if isinstance(reader, RunReader) else None
        self._gate = gate_of(filters)
        self._log = log
        self._filters = filters
        self._before = len(log.events)
        self._on_first_event = on_first_event
        self._idle = idle
        self._slack = idle / 16
        self._move_at = 0.0
        self._carried_at = 0.0
        self.begun = False
        self.silence = trio.CancelScope()
        self.silent_at = math.inf

    def __call__(self, data: bytes) -> bool:
        came = perf_counter()
        more = self._take(data)
        self._log.spent.took(came, heard=self.begun)
        return more

    def _take(self, data: bytes) -> bool:
        log = self._log
        if self._tried is not None:
            self._tried.answer.add(data)
        if log.lane is None or not log.lane.push(data):
            self._append(self._reader.feed(data))
            if self._runs is not None:
                log.open_lane(self._runs, self._gate)
        if not self.begun:
            if not log.events:
                return True
            self.begun = True
            self._on_first_event()
        now = trio.current_time()
        if now >= self._move_at:
            self._expect(now + self._idle + self._slack)
            self._move_at = now + self._slack
        return log.has_room and not log.finished

    @property
    def track(self) -> Track | None:
        lane = self._log.lane
        return None if lane is None else lane.track

    def was_carried(self) -> bool:
        """Whether a track, which moves no deadline, took something since the last call, and not too long ago."""
        before, self._carried_at = self._carried_at, self._log.carried_at
        if before == self._carried_at:
            return False
        left = self._idle - (time.monotonic() - self._carried_at)
        self._expect(trio.current_time() + left)
        return left > 0

    def listen(self) -> None:
        """From now on the upstream may be silent for as long as it may."""
        if self.begun:
            self._expect(trio.current_time() + self._idle)
            self._move_at = 0.0

    def end(self) -> None:
        """The body is at its end."""
        self._append(self._reader.close())

    def _expect(self, at: float) -> None:
        self.silent_at = self.silence.deadline = at

    def _append(self, events: Sequence[TurnEvent]) -> None:
        """Put what was read into the log. A refusal in the first event is raised, not logged."""
        for each in self._filters:
            events = each.take(events)
        log = self._log
        if events and len(log.events) == self._before and isinstance(events[0], TurnFailed):
            raise events[0].error
        log.append(events)


async def _refuse_unless_ok(response: ClientResponse, provider: Provider, tried: Try | None) -> None:
    if response.status == 200:
        return
    body = await response.read_all(ERROR_BODY_LIMIT)
    if tried is not None:
        tried.answer.add(body)
    complaint = provider.dialect.read_error(response.headers, body)
    raise provider.classify(response.status, response.headers, complaint)


def _timeout(started: float, deadlines: Deadlines, *, begun: bool) -> KirostreamError:
    if begun or trio.current_time() - started >= deadlines.total:
        return UpstreamTimeout(
            f"The answer took longer than {deadlines.total:g} s in all (relay.total).", reason="total"
        )
    return UpstreamTimeout(
        f"The upstream said nothing for {deadlines.first_event:g} s (relay.first_event).", reason="first_event"
    )
