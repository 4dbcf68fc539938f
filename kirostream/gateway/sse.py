"""The pump: from a turn's rendering to a client, and the heartbeats of all pumps.

A pump sends what has piled up since its last send, in one write: coalescing is natural, never timed. It arms no timer
of its own: one task (`Heartbeats.run`) sweeps over all live pumps and wakes the ones that were silent for too long.

A pump that has everything leaves its task asleep: what is said next is sent by whoever says it, as far as that goes
without waiting (`Pump.serve`), the head with the first and the end with the last of it. The task is there for the rest:
a heartbeat, a client that does not take everything at once, and what follows the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import RunReader
from kirostream.filters import Gate
from kirostream.net.exchange import Exchange, Headers, Part
from kirostream.relay.lane import Lane
from kirostream.relay.log import START, Cursor, Rendering, TurnLog
from kirostream.turn.events import TurnFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How answers are streamed."""

    heartbeat: float = field(
        default=10.0, metadata={"help": "Silence after which a streaming client gets a sign of life.", "unit": "s"}
    )
    hold_head: float = field(
        default=20.0,
        metadata={
            "help": "How long the status line waits for the first event, so that an early error keeps its status.",
            "unit": "s",
        },
    )


class Pump:
    """Sends one rendering to one client."""

    __slots__ = (
        "_at",
        "_ended",
        "_exchange",
        "_fanout",
        "_head",
        "_heartbeats",
        "_lane",
        "_log",
        "_owes",
        "_rendering",
        "_seen",
        "_sent_at",
        "_unsaid",
    )

    def __init__(
        self,
        exchange: Exchange,
        log: TurnLog,
        rendering: Rendering,
        *,
        at: Cursor = START,
        follows: bool = False,
    ) -> None:
        """A pump from the place `at` on. One that `follows` never holds the turn back, however slow its client is."""
        self._exchange = exchange
        self._log = log
        self._rendering = rendering
        self._at = at
        self._fanout = rendering.fanout if follows else None
        self._owes = False  # an offer was not sent whole
        self._unsaid = b""  # was read, and not offered to anybody
        self._head: Callable[[], Headers] | None = None  # that is held
        self._heartbeats: Heartbeats | None = None  # who holds it
        self._ended: bool | None = None  # the end was offered, and went out whole or not
        self._lane: Lane | None = None  # the last that there was
        self._seen = 0
        self._sent_at = trio.current_time()

    @property
    def last_sent(self) -> float:
        """When, in Trio's time; at the latest, where the pump is one of many.

        What a lane carries it does not stamp: that there was something is seen when it is asked.
        """
        if self._lane is not None and self._lane.count != self._seen:
            self._seen = self._lane.count
            self._sent_at = trio.current_time()
        return self._sent_at if self._fanout is None else max(self._sent_at, self._fanout.served_at)

    def nudge(self) -> None:
        """Wake the pump, so that it sends a heartbeat."""
        if self._fanout is None or not self._fanout.recall(self):
            self._log.nudge()

    async def answer(self, head: Callable[[], Headers], heartbeats: Heartbeats) -> None:
        """As `run`, once the turn has said something, or has been silent for long enough.

        What is said first is sent with the head, by whoever says it, where that goes without waiting: so the client
        has its first token a lap of the scheduler sooner.

        Args:
            head: makes the headers, when it is time.
            heartbeats: as for `run`.

        Raises:
            KirostreamError: the turn failed before it said anything.
            PeerGone, PeerStalled: as `run`.
        """
        log, exchange = self._log, self._exchange
        if self._fanout is None:
            self._head, self._heartbeats = head, heartbeats
        try:
            await heartbeats.hold(log, self if self._fanout is None else None)
            self._head = None
            if not exchange.started and log.events and isinstance(log.events[0], TurnFailed):
                raise log.events[0].error.anew()
            await self.run(() if exchange.started else head(), heartbeats)
        finally:
            heartbeats.discard(self)

    async def run(self, headers: Headers, heartbeats: Heartbeats) -> None:
        """Answer 200, and send until the turn is over.

        The head goes out with what was said so far, and the last part with the end: each write wakes the client, and
        that is most of what a short answer costs.

        Args:
            headers: of the answer.
            heartbeats: who wakes this pump when the model is silent.

        Raises:
            PeerGone, PeerStalled: the client is not there, or does not read.
        """
        exchange = self._exchange
        heartbeats.add(self)
        try:
            if not exchange.started:
                await exchange.start(200, headers, self._rest())
                await self._wait()
            while self._ended is None:
                whole = self._log.finished and self._place.event >= len(self._log.events)
                if whole and not self._unsaid:
                    break
                said = self._owes or self._log.finished or self._place.event < len(self._log.events)
                data = self._rest() if said else self._rendering.heartbeat()
                if self._is_whole():
                    await exchange.finish(data)
                    return
                if data or self._owes:
                    self._owes = False
                    await exchange.send(data)
                    self._sent_at = trio.current_time()
                await self._wait()
            if not self._ended:
                await exchange.finish()
        finally:
            heartbeats.discard(self)

    async def _wait(self) -> None:
        """Wait until the task is needed: there is something to send, or has not been for long.

        What is said meanwhile is sent by whoever says it: `serve`; one of many is served by `Fanout`.
        """
        if self._is_whole() or self._unsaid:
            return
        fanout = self._fanout
        if fanout is None:
            await self._log.beyond(self._place.event, self)
        elif not fanout.takes(self._at):
            await self._log.beyond(self._at.event)
        else:
            outlet = self._exchange.outlet
            self._at = await fanout.follow(self, self._at, outlet)
            self._owes = self._owes or (outlet is not None and bool(outlet.unsent))

    def serve(self) -> bool:
        """As `Straight` has it: send what was said just now, as far as that goes without waiting."""
        log, exchange = self._log, self._exchange
        opens = not exchange.started
        if log.finished:
            outlet = exchange.outlet
            if opens or self._owes or outlet is None or not outlet.free:
                return False
        elif opens and self._head is None:
            return False
        try:
            data = self._next()
            if opens:
                return self._open(data)
        except Exception:  # noqa: BLE001  a bug of a writer: the pump's own task meets it again, and tells of it
            return False
        if log.finished:
            if self._is_whole():
                self._ended = exchange.offer_finish(data)
            else:
                self._unsaid = data
            return False
        if not data:
            return True
        self._sent_at = trio.current_time()
        return self.offer(Part(data))

    def _open(self, data: bytes) -> bool:
        """Send the head, and what was said first."""
        head, self._head, self._unsaid = self._head, None, data
        assert head is not None
        assert self._heartbeats is not None
        whole = self._exchange.offer_start(200, head(), data)
        if self._exchange.started:
            self._unsaid = b""
            self._owes = not whole
            self._sent_at = trio.current_time()
            self._heartbeats.opened(self)
        return whole

    def lane(self, block: int, reader: RunReader, gate: Gate) -> Lane | None:
        """As `Straight` has it."""
        rendering = self._rendering
        if self._owes or not rendering.can_follow or self._place.event != len(self._log.events):
            return None
        self._seen = 0
        self._lane = Lane(self._log, rendering, block, reader, gate, self._exchange, self._fall_behind)
        return self._lane

    def _fall_behind(self) -> None:
        """The lane's last block was not sent whole."""
        self._owes = True
        self._log.nudge()

    def read(self, at: Cursor) -> tuple[Part | None, Cursor]:
        """As `Follower` has it."""
        data, end = self._rendering.read(at)
        return Part(data) if data else None, end

    def offer(self, message: Part) -> bool:
        """As `Follower` has it."""
        if self._exchange.offer(message):
            return True
        self._owes = True
        return False

    @property
    def _place(self) -> Cursor:
        """Behind what the client has: its lane may have carried it on."""
        if self._lane is not None:
            self._lane.settle()
            if self._lane.reached > self._at.event:
                self._at = Cursor(self._lane.reached)
        return self._at

    def _next(self) -> bytes:
        """What was said since the last time."""
        data, self._at = self._rendering.read(self._place)
        if self._fanout is None:
            self._log.mark_read(self._at.event)
        return data

    def _rest(self) -> bytes:
        """The same, and what was read before and not sent."""
        data, self._unsaid = self._unsaid + self._next(), b""
        return data

    def _is_whole(self) -> bool:
        """Whether everything was read that will ever be said."""
        return self._log.finished and self._place.event >= len(self._log.events)


class Held:
    """A head that waits for the first event of a turn. `late`: it has waited long enough."""

    __slots__ = ("due", "late", "log")

    def __init__(self, log: TurnLog, due: float) -> None:
        self.log = log
        self.due = due
        self.late = False


AT_ONCE: Final = 64
"""Pumps that a sweep looks at in one go: what is looked at was in no cache, and takes some 10 us each."""


class Heartbeats:
    """Wakes the pumps that have been silent for too long, and whoever has held a head for long enough.

    Args:
        interval: seconds of silence.
        hold: seconds that a head is held.
    """

    def __init__(self, interval: float, hold: float = StreamSettings().hold_head) -> None:
        self.interval = interval
        self.hold_head = hold
        self._pumps: set[Pump] = set()
        self._held: dict[object, Held] = {}  # by who holds it

    def __repr__(self) -> str:
        return f"<Heartbeats {len(self._pumps)} pumps, every {self.interval:g} s>"

    async def hold(self, log: TurnLog, pump: Pump | None = None) -> None:
        """Wait for the first event of a turn, but not for ever. A scope of its own would cost 30 us.

        Args:
            pump: can send the head by itself, and calls `opened` then. The wait goes on until its task is needed.
        """
        if log.events:
            return
        held = Held(log, trio.current_time() + self.hold_head)
        holder = pump or held
        self._held[holder] = held
        try:
            while not held.late and not await log.beyond(0, pump):
                if log.finished:
                    return
        finally:
            self._held.pop(holder, None)

    def opened(self, pump: Pump) -> None:
        """The head was sent that a pump held. From now on it is watched over."""
        self._held.pop(pump, None)
        self._pumps.add(pump)

    def add(self, pump: Pump) -> None:
        """Watch over a pump."""
        self._pumps.add(pump)

    def discard(self, pump: Pump) -> None:
        """Forget a pump."""
        self._pumps.discard(pump)

    async def run(self) -> None:
        """Sweep until cancelled. A pump is woken within a quarter of the interval after it is due, a head on time."""
        sweep_at = trio.current_time() + self.interval / 4
        while True:
            # Whoever is held from now on is due after this: nobody has to wake this task for it.
            due_at = min((held.due for held in self._held.values()), default=trio.current_time() + self.hold_head)
            await trio.sleep_until(min(sweep_at, due_at))
            now = trio.current_time()
            for holder, held in [each for each in self._held.items() if each[1].due <= now]:
                del self._held[holder]
                held.late = True
                held.log.nudge()
            if now >= sweep_at:
                sweep_at = now + self.interval / 4
                await self._sweep(now - self.interval)

    async def _sweep(self, due: float) -> None:
        """Wake the pumps that have sent nothing since `due`. The tokens of all wait meanwhile, so it makes pauses."""
        for number, pump in enumerate((*self._pumps,), 1):
            if pump in self._pumps and pump.last_sent <= due:
                pump.nudge()
            if not number % AT_ONCE:
                await trio.lowlevel.checkpoint()
