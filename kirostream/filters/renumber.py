"""Block indexes for filters that make one block of several, or several of one."""

from __future__ import annotations

from dataclasses import replace

from kirostream.turn.events import BlockDelta, BlockEnded, BlockStarted


class Renumber:
    """Gives blocks that go out their indexes, in order of appearance, and knows them by the ones they came with."""

    def __init__(self) -> None:
        self._out: dict[int, int] = {}
        self._next = 0

    def __repr__(self) -> str:
        return f"<Renumber {self._out}, next {self._next}>"

    def __contains__(self, index: int) -> bool:
        """Whether a block that came as `index` is open."""
        return index in self._out

    def fresh(self) -> int:
        """The index of a block that is our own."""
        self._next += 1
        return self._next - 1

    def start(self, event: BlockStarted) -> BlockStarted:
        """The beginning of a block, as it goes out."""
        index = self._out[event.index] = self.fresh()
        return event if index == event.index else replace(event, index=index)

    def resume(self, index: int, out: int) -> None:
        """A block that comes as `index` goes on in the one that went out as `out`."""
        self._out[index] = out

    def delta(self, event: BlockDelta) -> BlockDelta:
        """More of an open block, as it goes out."""
        index = self._out[event.index]
        return event if index == event.index else BlockDelta(index, event.pieces)

    def end(self, event: BlockEnded) -> BlockEnded:
        """The end of an open block, as it goes out."""
        return BlockEnded(self._out.pop(event.index), event.signature)
