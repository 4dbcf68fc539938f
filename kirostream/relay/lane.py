"""The lane: the shortest way of a token, while nothing but tokens come.

Most of an answer is more of one block: the reader finds a run of pieces (`dialects.kiro.response`), the log gets a
delta, its one rendering a wire block, its one client that block. Each of these steps decides something, and while a run
lasts they all decide the same. A lane is that decision, taken once: this block of this log, in this rendering, to this
client. `carry` does what the steps would have done, and leaves everything as they would have left it: the delta in the
log, the block in the rendering, the same bytes at the client. So whoever joins, asks or folds later finds nothing
missing.

It holds for as long as nobody else has to do with the log. Whatever wakes a reader, brings one more, or appends by the
other way, ends it (`TurnLog.lane`); and it carries nothing that it does not understand: then the same pieces go the
other way, which is the one truth of what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kirostream.filters import Gate
from kirostream.net.exchange import Part
from kirostream.turn.events import BlockDelta

if TYPE_CHECKING:
    from kirostream.relay.log import Rendering, TurnLog


class Lane:
    """Carries the pieces of one block.

    Args:
        log: of the turn.
        rendering: of it, which has everything.
        block: the index of the block that is open.
        offer: sends to the client what goes without waiting, as `Exchange.offer`.
        behind: called once where that did not take all.
        gate: of the filters of the answer.
    """

    __slots__ = ("_behind", "_block", "_gate", "_log", "_offer", "_rendering", "carried")

    def __init__(
        self,
        log: TurnLog,
        rendering: Rendering,
        block: int,
        offer: Callable[[Part], bool],
        behind: Callable[[], None],
        gate: Gate,
    ) -> None:
        self._log = log
        self._rendering = rendering
        self._block = block
        self._offer = offer
        self._behind = behind
        self._gate = gate
        self.carried = len(log.events)
        """Events of the log that the client has, or that `behind` was told of."""

    def carry(self, pieces: Sequence[bytes]) -> bool:
        """Take the pieces of a run to the client. False: nothing was done, and the lane is over."""
        log = self._log
        if log.lane is not self:
            return False
        event = BlockDelta(self._block, pieces)
        if b"" in pieces or not log.has_space or not self._gate(event):
            log.lane = None
            return False
        log.extend(event)
        self.carried += 1
        block = self._rendering.follow(event)
        if block and not self._offer(Part(block)):
            log.lane = None
            self._behind()
        return True
