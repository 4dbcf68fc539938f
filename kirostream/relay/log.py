"""The log of a turn: what the model said, kept until the turn is forgotten, read by anybody at their own pace.

One writer (the turn's pump) appends; watchers read with a cursor and wait at the end. Nobody is handed anything: a
watcher that is slow holds back nobody but, if it is the one that asked, the pump itself, once it is a whole window
behind (`room`). A `Rendering` is the log in one dialect: the writer runs once an event, however many watchers read it.

Appending and reading are synchronous; only `room` and `beyond` wait, without a timer. A reader that can do without its
task says so to `beyond` (`Straight`), is served in the append itself, and its task sleeps on: so a token goes from the
upstream's socket to the client's without a switch between tasks (`net.hub`), and while nothing but tokens come, by a
way that is shorter still (`relay.lane`).

A log holds a turn from its first event to its last, so a follower may be as slow as it likes and misses nothing. What
bounds it is a cap in bytes: a turn that goes beyond ends with an error that says so, never with events left out. It is
weighed every `WEIGH` events or `WEIGH_BYTES`, not with each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import trio

from kirostream.dialects.dialect import RunReader, Template, Templates, Writer
from kirostream.errors import AnswerTooLarge
from kirostream.net.exchange import Part
from kirostream.relay.fanout import Fanout
from kirostream.relay.spent import Spent
from kirostream.turn.events import BlockDelta, TurnEnded, TurnEvent, TurnFailed

if TYPE_CHECKING:
    from kirostream.filters import Gate
    from kirostream.relay.lane import Lane

WINDOW: Final = 4096
"""Events that the asking client may be behind before the upstream is held back. One event is at most one read."""

CAP: Final = 32 << 20
"""Bytes of one log. The longest answer that any model gives is about a fiftieth of it."""
WEIGH: Final = 1024
"""Events between two weighings."""
WEIGH_BYTES: Final = 1 << 20
"""Bytes by lanes between two weighings."""
_EVENT: Final = 120
_PIECE: Final = 40
"""Bytes that an event and a piece take beside what they say."""


class Cursor(NamedTuple):
    """A place in a rendering: the event, and the wire block within it."""

    event: int = 0
    block: int = 0


START: Final = Cursor()
"""The beginning."""


class Straight(Protocol):
    """A reader's way to do without its task. None of it may wait, or raise."""

    def serve(self) -> bool:
        """Something was appended. False: the task is needed."""

    def lane(self, block: int, reader: RunReader, gate: Gate) -> Lane | None:
        """A lane for the open block, if there can be one. It has everything that was appended."""


class TurnLog:
    """What was said in one turn."""

    def __init__(self, window: int = WINDOW, cap: int = CAP) -> None:
        self._events: list[TurnEvent] = []
        self.finished = False
        self.spent = Spent()
        """Whose time went into it."""
        self._window = window
        self._cap = cap
        self._size = 0
        self._weighed = 0
        self._weigh_at = WEIGH
        self._carried = 0  # bytes by lanes since it was weighed
        self._carried_at = 0.0
        self._read = 0
        self._readers: dict[trio.lowlevel.Task, Straight | None] = {}
        self.lane: Lane | None = None
        """The short way, while it holds."""
        self._pump: trio.lowlevel.ParkingLot | None = None  # made when it first waits

    def __repr__(self) -> str:
        state = "finished" if self.finished else "open"
        return f"<TurnLog {len(self.events)} events, {self._read} read, {state}>"

    @property
    def events(self) -> list[TurnEvent]:
        """What was said, in order."""
        if self.lane is not None:
            self.lane.settle()
        return self._events

    def leave_lane(self) -> None:
        """Nothing goes the short way any more, until there is a new one."""
        lane, self.lane = self.lane, None
        if lane is not None:
            self._carried_at = max(self._carried_at, lane.last)
            lane.end()

    @property
    def carried_at(self) -> float:
        """When a lane took something last, by the monotonic clock; 0 if none did."""
        return self._carried_at if self.lane is None else max(self._carried_at, self.lane.last)

    def append(self, events: Sequence[TurnEvent]) -> None:
        """Add what was said. The last event of a turn finishes the log."""
        if not events or self.finished:  # what arrives after the end of a turn is nobody's answer
            return
        self.leave_lane()
        self.events.extend(events)
        if isinstance(events[-1], TurnEnded | TurnFailed):
            self.finished = True
        elif not self.has_space:
            self._weigh_at = len(self.events) + WEIGH
            self._carried = 0
            if self.size > self._cap:
                self.finished = True
                self.events.append(TurnFailed(AnswerTooLarge(_too_large(self._cap))))
        for task, serve in (*self._readers.items(),):
            if serve is None or not serve.serve():
                self._wake(task)

    @property
    def has_space(self) -> bool:
        """Whether more can be had without weighing the log."""
        return not self.finished and len(self._events) < self._weigh_at and self._carried < WEIGH_BYTES

    def extend(self, event: BlockDelta) -> None:
        """As `append`, for a lane, where there `has_space`: no reader is served, for the one that there is has it."""
        self._events.append(event)
        self._carried += sum(map(len, event.pieces))
        self._read = len(self._events)

    def open_lane(self, reader: RunReader, gate: Gate) -> None:
        """See whether there is one, now that everything was appended."""
        if self.lane is None and len(self._readers) == 1 and self.has_space:
            (straight,) = self._readers.values()
            block = None if straight is None else reader.running
            if straight is not None and block is not None and gate.room(block) > 0:
                self.lane = straight.lane(block, reader, gate)

    @property
    def size(self) -> int:
        """Bytes it takes, about."""
        new = self.events[self._weighed :]
        self._weighed += len(new)
        self._size += _EVENT * len(new) + sum(
            len(piece) + _PIECE for event in new if isinstance(event, BlockDelta) for piece in event.pieces
        )
        return self._size

    def nudge(self) -> None:
        """Wake the watchers although nothing was said, so that they can send a heartbeat."""
        for task in (*self._readers,):
            self._wake(task)

    def mark_read(self, event: int) -> None:
        """The asking client has everything before `event`."""
        self._read = event
        if self._pump and self.has_room:
            self._pump.unpark_all()

    def release(self) -> None:
        """The asking client is gone, and holds nothing back any more."""
        self._window = sys.maxsize
        if self._pump is not None:
            self._pump.unpark_all()

    @property
    def has_room(self) -> bool:
        """Whether the asking client is less than a window behind."""
        return self.lane is not None or len(self._events) - self._read < self._window

    async def room(self) -> None:
        """Wait until the asking client is less than a window behind. A checkpoint only where it waits."""
        while not self.has_room:
            if self._pump is None:
                self._pump = trio.lowlevel.ParkingLot()
            await self._pump.park()

    async def beyond(self, event: int, straight: Straight | None = None) -> bool:
        """Wait for more than the first `event` events. A checkpoint only where it waits.

        Args:
            straight: what can be done without waking the task.

        Returns:
            True when there is more; False when the log is finished, or after a `nudge`.
        """
        if event >= len(self.events) and not self.finished:
            task = trio.lowlevel.current_task()
            readers = self._readers

            def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
                self.leave_lane()
                del readers[task]
                return trio.lowlevel.Abort.SUCCEEDED

            self.leave_lane()
            readers[task] = straight
            await trio.lowlevel.wait_task_rescheduled(leave)
        return event < len(self.events)

    def _wake(self, task: trio.lowlevel.Task) -> None:
        """Let a reader go on in its own task."""
        self.leave_lane()
        if task in self._readers:  # what served another may have woken it
            del self._readers[task]
            trio.lowlevel.reschedule(task)


def _too_large(cap: int) -> str:
    return f"The answer grew beyond {cap:,} bytes, the most that is kept of one (relay.turns.cap)."


def _chunk(part: Part) -> bytes:
    return part.chunk


class Rendering:
    """A log in one dialect.

    Args:
        log: of the turn.
        writer: for it.
        turn: the id of the turn, where each wire event of the rendering shall carry an ``id:`` line (`place`).
        kept: for many readers, and for those that come back. Otherwise it has one, who reads on and on, and what that
            one has read is let go: it is most of what a turn takes.
    """

    def __init__(self, log: TurnLog, writer: Writer, turn: str = "", *, kept: bool = True) -> None:
        self._log = log
        self._writer = writer
        self._turn = turn.encode()
        self._kept = kept
        self._blocks: list[Sequence[bytes]] = []  # of the events from `_first` on
        self._first = 0
        self._said: dict[int, Template] = {}  # what a track has said, and nobody has asked for since
        self._fanout: Fanout[Part] | None = None

    def __repr__(self) -> str:
        return f"<Rendering {self._first + len(self._blocks)} of {len(self._log.events)} events>"

    @property
    def fanout(self) -> Fanout[Part]:
        """Its followers that have everything."""
        if self._fanout is None:
            self._fanout = Fanout(self._log, _chunk)
        return self._fanout

    def heartbeat(self) -> bytes:
        """A block that says nothing."""
        return self._writer.heartbeat()

    def _rendered(self, begin: int = 0) -> list[Sequence[bytes]]:
        """The blocks of all events; what comes before the event `begin` need not be there."""
        events, blocks = self._log.events, self._blocks
        if self._said:
            self._say_again(events, begin)
        known = self._first + len(blocks)
        if known < len(events):
            for index, event in enumerate(events[known:], known):
                written = self._writer.write(event)
                blocks.append(self._identified(index, written) if self._turn else written)
        return blocks

    def follow(self, event: TurnEvent) -> bytes:
        """What `event` adds, which is the last of the log, and the only one that was not rendered."""
        written = self._writer.write(event)
        if self._kept:
            self._blocks.append(written)
        else:
            self._let_go(len(self._log.events))
        return written[0] if len(written) == 1 else b"".join(written)

    def template(self, block: int) -> Template | None:
        """What the language says around the next pieces of a block that is open, if that is always the same."""
        return self._writer.template(block) if isinstance(self._writer, Templates) else None

    def was_said(self, event: BlockDelta) -> None:
        """As `follow`, where the words went to the client already. They are put together again if somebody asks."""
        assert isinstance(self._writer, Templates)
        if self._kept:
            template = self._writer.template(event.index)
            assert template is not None
            self._said[len(self._blocks)] = template
            self._blocks.append(())
        else:
            self._let_go(len(self._log.events))
        self._writer.was_said(event)

    def _say_again(self, events: Sequence[TurnEvent], begin: int) -> None:
        for index in [index for index in self._said if index >= begin]:
            template = self._said.pop(index)
            event = events[index]
            assert isinstance(event, BlockDelta)
            self._blocks[index] = template.say(event.pieces)

    @property
    def can_follow(self) -> bool:
        """Whether `follow` will do: all events so far are rendered, and no block carries its place."""
        return not self._turn and self._first + len(self._blocks) == len(self._log.events)

    def _let_go(self, event: int) -> None:
        """Forget the blocks of the events before `event`."""
        del self._blocks[: event - self._first]
        self._first = event

    def _identified(self, index: int, written: Sequence[bytes]) -> list[bytes]:
        """The wire events of one event, each with its id. A writer may have joined several into one block."""
        said = [event for block in written for event in block.split(b"\n\n") if event]
        return [b"id: %b.%d.%d\n%b\n\n" % (self._turn, index, n, event) for n, event in enumerate(said, 1)]

    def catch_up(self) -> None:
        """Have the writer know everything that was said so far."""
        self._rendered(len(self._log.events))

    def blocks(self) -> list[bytes]:
        """Every wire block of what was said so far."""
        return [block for rendered in self._rendered() for block in rendered]

    def behind(self, count: int) -> Cursor:
        """The place behind the first `count` wire blocks, or behind all where there are fewer so far."""
        blocks = self._rendered()
        for index, rendered in enumerate(blocks):
            if count < len(rendered):
                return Cursor(index, count)
            count -= len(rendered)
        return Cursor(len(blocks), 0)

    def read(self, at: Cursor, at_most: int = 65536) -> tuple[bytes, Cursor]:
        """Everything from `at` on, up to about `at_most` bytes (at least one block, where there is one).

        Returns:
            The bytes, and the place behind them.
        """
        blocks = self._rendered(at.event)
        if not self._kept and at.event > self._first:
            self._let_go(at.event)
        base = self._first
        index, first = at.event - base, at.block
        if index == len(blocks) - 1 and first == 0:  # the common case: one event is new
            rendered = blocks[index]
            if len(rendered) == 1 and len(rendered[0]) <= at_most:
                return rendered[0], Cursor(base + index + 1, 0)
        parts: list[bytes] = []
        size = 0
        while index < len(blocks):
            rendered = blocks[index]
            if not first and (new := sum(map(len, rendered))) <= at_most - size:
                parts += rendered
                size += new
                index += 1
                continue
            while first < len(rendered):
                if parts and size + len(rendered[first]) > at_most:
                    return b"".join(parts), Cursor(base + index, first)
                parts.append(rendered[first])
                size += len(rendered[first])
                first += 1
            index, first = index + 1, 0
        return b"".join(parts), Cursor(base + index, 0)
