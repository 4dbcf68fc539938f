"""The log of a turn: what the model said, kept until the turn is forgotten, read by anybody at their own pace.

One writer (the turn's pump) appends; watchers read with a cursor and wait at the end. Nobody is handed anything: a
watcher that is slow holds back nobody but, if it is the one that asked, the pump itself, once it is a whole window
behind (`room`). A `Rendering` is the log in one dialect: the writer runs once an event, however many watchers read it.

Appending and reading are synchronous; only `room` and `beyond` wait. Both wait on a parking lot, so a wake-up costs no
allocation and no timer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from kirostream.dialects.dialect import Writer
from kirostream.turn.events import TurnEnded, TurnEvent, TurnFailed

WINDOW: Final = 4096
"""Events that the asking client may be behind before the upstream is held back. One event is at most one read."""


class Cursor(NamedTuple):
    """A place in a rendering: the event, and the wire block within it."""

    event: int = 0
    block: int = 0


START: Final = Cursor()
"""The beginning."""


class TurnLog:
    """What was said in one turn."""

    def __init__(self, window: int = WINDOW) -> None:
        self.events: list[TurnEvent] = []
        self.finished = False
        self._window = window
        self._read = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._pump = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "finished" if self.finished else "open"
        return f"<TurnLog {len(self.events)} events, {self._read} read, {state}>"

    def append(self, events: Sequence[TurnEvent]) -> None:
        """Add what was said. The last event of a turn finishes the log."""
        if not events or self.finished:  # what arrives after the end of a turn is nobody's answer
            return
        self.events.extend(events)
        if isinstance(events[-1], TurnEnded | TurnFailed):
            self.finished = True
        self._readers.unpark_all()

    def nudge(self) -> None:
        """Wake the watchers although nothing was said, so that they can send a heartbeat."""
        self._readers.unpark_all()

    def mark_read(self, event: int) -> None:
        """The asking client has everything before `event`."""
        self._read = event
        if self._pump and self.has_room:
            self._pump.unpark_all()

    @property
    def has_room(self) -> bool:
        """Whether the asking client is less than a window behind."""
        return len(self.events) - self._read < self._window

    async def room(self) -> None:
        """Wait until the asking client is less than a window behind. A checkpoint only where it waits."""
        while not self.has_room:
            await self._pump.park()

    async def beyond(self, event: int) -> bool:
        """Wait for more than the first `event` events.

        Returns:
            True when there is more; False when the log is finished, or after a `nudge`.
        """
        if event >= len(self.events) and not self.finished:
            await self._readers.park()
        return event < len(self.events)


class Rendering:
    """A log in one dialect."""

    def __init__(self, log: TurnLog, writer: Writer) -> None:
        self._log = log
        self._writer = writer
        self._blocks: list[list[bytes]] = []

    def __repr__(self) -> str:
        return f"<Rendering {len(self._blocks)} of {len(self._log.events)} events>"

    def heartbeat(self) -> bytes:
        """A block that says nothing."""
        return self._writer.heartbeat()

    def _rendered(self) -> list[list[bytes]]:
        events, blocks = self._log.events, self._blocks
        for event in events[len(blocks) :]:
            blocks.append(self._writer.write(event))
        return blocks

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
        blocks = self._rendered()
        index, first = at
        if index == len(blocks) - 1 and first == 0:  # the common case: one event is new
            rendered = blocks[index]
            if len(rendered) == 1 and len(rendered[0]) <= at_most:
                return rendered[0], Cursor(index + 1, 0)
        parts: list[bytes] = []
        size = 0
        while index < len(blocks):
            rendered = blocks[index]
            while first < len(rendered):
                if parts and size + len(rendered[first]) > at_most:
                    return b"".join(parts), Cursor(index, first)
                parts.append(rendered[first])
                size += len(rendered[first])
                first += 1
            index, first = index + 1, 0
        return b"".join(parts), Cursor(index, 0)
