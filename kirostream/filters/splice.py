"""Several rounds with the upstream, one turn.

Some answers take more than one question: a tool that the gateway runs itself, a text that a limit of the service cut
off. The client sees one turn all the same: one `TurnStarted`, blocks counted through, one `TurnEnded` with the cost of
all rounds. `Splice` takes the events of round after round, and keeps the end of each to itself. Whoever runs the rounds
looks at `ended`, and either feeds the next one or says `finish`.

With `join_text`, a round that begins with text goes on in the text block that the round before ended in. For that, the
end of a text block is held back until the next event says that it was not the last.

The prompt counts once: the client asked one question, and what it reads off the figure is how full the window is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kirostream.filters.renumber import Renumber
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    UsageKnown,
)
from kirostream.turn.usage import Usage


class Splice:
    """Makes one turn of several rounds. Its output obeys `turn.grammar` where each round does.

    Args:
        join_text: text at the beginning of a round goes on in the text block at the end of the round before.
    """

    def __init__(self, *, join_text: bool = False) -> None:
        self.ended: TurnEnded | None = None
        """How the last whole round ended, None before the first end. Its usage is that of the round alone."""
        self._join_text = join_text
        self._blocks = Renumber()
        self._texts: set[int] = set()
        """Open text blocks, by the indexes they came with."""
        self._shut: BlockEnded | None = None
        """The end of a text block, as it goes out, until the next event decides."""
        self._started = False
        self._between = False
        """The last round is over, and the next has not said anything."""
        self._spent: Usage | None = None

    def __repr__(self) -> str:
        return f"<Splice {self._blocks!r}, ended {self.ended and self.ended.stop.value}>"

    @property
    def usage(self) -> Usage:
        """The cost of all whole rounds."""
        return self._spent or Usage()

    @property
    def begun(self) -> bool:
        """Whether the round that runs has said anything but that it started."""
        return self._started and not self._between

    def fresh(self) -> int:
        """The index of a block that whoever runs the rounds says itself, between two of them."""
        return self._blocks.fresh()

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events to be said in place of `events`. A failure is said as it is."""
        said: list[TurnEvent] = []
        for event in events:
            match event:
                case BlockDelta():
                    said += self.close()
                    said.append(self._blocks.delta(event))
                case BlockStarted():
                    said += self._start(event)
                case BlockEnded(index=index):
                    said += self.close()
                    end = self._blocks.end(event)
                    if self._join_text and index in self._texts:
                        self._shut = end
                    else:
                        said.append(end)
                    self._texts.discard(index)
                case UsageKnown(usage=usage):
                    said.append(UsageKnown(self._with(usage)))
                case TurnStarted():
                    if not self._started:
                        said.append(event)
                        self._started = True
                case TurnEnded(usage=usage):
                    self.ended, self._spent = event, self._with(usage)
                    self._between = True
                case _:
                    said.append(event)
        return said

    def close(self) -> list[TurnEvent]:
        """End the text block that waits for the next round; nothing where none does."""
        shut, self._shut = self._shut, None
        return [] if shut is None else [shut]

    def finish(self) -> list[TurnEvent]:
        """End the turn as the last whole round ended. Nothing before there is one."""
        if self.ended is None:
            return []
        return [*self.close(), replace(self.ended, usage=self.usage)]

    def _start(self, event: BlockStarted) -> list[TurnEvent]:
        if event.kind is BlockKind.TEXT:
            self._texts.add(event.index)
        resumes, self._between = self._between and event.kind is BlockKind.TEXT, False
        if resumes and self._shut is not None:
            self._blocks.resume(event.index, self._shut.index)
            self._shut = None
            return []
        return [*self.close(), self._blocks.start(event)]

    def _with(self, usage: Usage) -> Usage:
        """`usage` of this round beside the rounds before. The share of the window is the latest one."""
        if self._spent is None:
            return usage
        percentage = self._spent.context_percentage if usage.context_percentage is None else usage.context_percentage
        return replace(self._spent.beside(usage), context_percentage=percentage)
