"""The lane: the shortest way of a token, while nothing but tokens come.

Most of an answer is more of one block: the reader finds a run of pieces (`dialects.kiro.response`), the log gets a
delta, its one rendering a wire block, its one client that block. Each of these steps decides something, and while a run
lasts they all decide the same. A lane is that decision, taken once: this block of this log, in this rendering, to this
client.

Where the language has a template for the block, and the client a plain socket, the pieces go by a *track*, in compiled
code: from the upstream's bytes to the client's without the interpreter (`net/_wire.pyx`). What they leave behind is
made later, for whoever needs it: `settle` puts one delta of all of them into the log, and tells the reader and the
filters. The log calls it before it shows its events to anybody, so nobody can see that there was a track; and a delta
of many pieces takes less room than many of one.

A lane holds for as long as nobody else has to do with the log. Whatever wakes a reader, brings one more, or appends by
the other way, ends it (`TurnLog.leave_lane`); and it carries nothing that it does not understand. Then the same bytes
go the other way, which is the one truth of what they mean. `tests/relay/test_lane.py` holds both beside each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kirostream.dialects.dialect import RunReader
from kirostream.filters import Gate
from kirostream.net.exchange import Exchange, Part
from kirostream.turn.events import BlockDelta

if TYPE_CHECKING:
    from kirostream.net._wire import Track
    from kirostream.relay.log import Rendering, TurnLog

ROOM: Final = 1 << 20
"""Bytes of pieces between two looks at the log's size."""


class Lane:
    """Carries the pieces of one block.

    Args:
        log: of the turn.
        rendering: of it, which has everything.
        block: the index of the block that is open.
        reader: where the pieces come from.
        gate: of the filters between.
        exchange: the client's.
        behind: called once where it does not take all.

    Attributes:
        track: where bytes of the upstream's body can go, if that is compiled.
        reached: events of the log that the client has, or that `behind` was told of.
    """

    def __init__(
        self,
        log: TurnLog,
        rendering: Rendering,
        block: int,
        reader: RunReader,
        gate: Gate,
        exchange: Exchange,
        behind: Callable[[], None],
    ) -> None:
        self._log = log
        self._rendering = rendering
        self._block = block
        self._reader = reader
        self._gate = gate
        self._exchange = exchange
        self._behind = behind
        self.reached = len(log.events)
        self._count = 0
        self._last = 0.0
        self.track = self._track()

    def _track(self) -> Track | None:
        template = self._rendering.template(self._block)
        outlet, runs = self._exchange.outlet, self._reader.runs
        if template is None or outlet is None or runs is None:
            return None
        try:
            from kirostream.net._wire import Track
        except ModuleNotFoundError:
            return None
        room = min(ROOM, self._gate.room(self._block))
        *words, number = template
        return Track(runs, outlet, words, room, self._fall_behind, number)

    @property
    def count(self) -> int:
        """Pieces that were carried."""
        return self._count if self.track is None else self.track.count

    @property
    def last(self) -> float:
        """When the last piece came, by the monotonic clock."""
        return self._last if self.track is None else self.track.last

    def push(self, data: bytes) -> bool:
        """Take bytes of the upstream's body to the client. False: nothing was done, and the lane is over."""
        log = self._log
        if self.track is not None:
            if self.track.push(data):
                return True
        elif log.has_space:
            pieces = self._reader.run_of(data, self._gate.room(self._block))
            if pieces is not None:
                self._carry(pieces)
                return True
        log.leave_lane()
        return False

    def _carry(self, pieces: list[bytes]) -> None:
        if pieces:
            self._count += len(pieces)
            self._last = time.monotonic()
            event = self._say(pieces)
            block = self._rendering.follow(event)
            if block and not self._exchange.offer(Part(block)):
                self._fall_behind()

    def _say(self, pieces: list[bytes]) -> BlockDelta:
        event = BlockDelta(self._block, pieces)
        self._log.extend(event)
        self.reached += 1
        self._gate.passes(event)
        self._reader.hear(pieces)
        return event

    def settle(self) -> None:
        """Put what the track carried into the log."""
        if self.track is not None and (pieces := self.track.take()):
            self._rendering.was_said(self._say(pieces))

    def end(self) -> None:
        """It is over. What was sent is told to the exchange, which counts."""
        self.settle()
        track = self.track
        if track is not None:
            track.close()
            if (outlet := self._exchange.outlet) is not None:
                outlet.fanned += track.sent
        self._behind = _nobody  # it has a way to this lane

    def _fall_behind(self) -> None:
        behind = self._behind
        self._log.leave_lane()
        behind()


def _nobody() -> None:
    pass
