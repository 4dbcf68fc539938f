"""The legal order of events, as a table.

Every reader's output runs through `Grammar` in tests. A pair that is not in `TRANSITIONS` is an error; the table is
the definition, the code below only adds what a table over event types cannot say: which blocks are open.
"""

from __future__ import annotations

import enum
from typing import Final

from kirostream.errors import LocalProtocolError
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Foreign,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    UsageKnown,
)


class Phase(enum.Enum):
    """Where a turn stands."""

    WAITING = "waiting"  #: nothing was said yet
    SPEAKING = "speaking"  #: started, not over
    OVER = "over"  #: ended or failed; nothing may follow


TRANSITIONS: Final[dict[tuple[Phase, type[TurnEvent]], Phase]] = {
    (Phase.WAITING, TurnStarted): Phase.SPEAKING,
    (Phase.WAITING, TurnFailed): Phase.OVER,
    (Phase.SPEAKING, BlockStarted): Phase.SPEAKING,
    (Phase.SPEAKING, BlockDelta): Phase.SPEAKING,
    (Phase.SPEAKING, BlockEnded): Phase.SPEAKING,
    (Phase.SPEAKING, UsageKnown): Phase.SPEAKING,
    (Phase.SPEAKING, Foreign): Phase.SPEAKING,
    (Phase.SPEAKING, TurnEnded): Phase.OVER,
    (Phase.SPEAKING, TurnFailed): Phase.OVER,
}


class Grammar:
    """Checks one turn, event by event."""

    def __init__(self) -> None:
        self.phase = Phase.WAITING
        self._open: dict[int, BlockKind] = {}
        self._next_index = 0

    def __repr__(self) -> str:
        return f"<Grammar {self.phase.value}, open blocks {sorted(self._open)}>"

    def check(self, event: TurnEvent) -> None:
        """Take the next event of the turn.

        Raises:
            LocalProtocolError: the event may not stand here.
        """
        after = TRANSITIONS.get((self.phase, type(event)))
        if after is None:
            raise LocalProtocolError(f"{type(event).__name__} while the turn is {self.phase.value}")
        match event:
            case BlockStarted(index=index, kind=kind):
                if index != self._next_index:
                    raise LocalProtocolError(f"block {index} started, {self._next_index} was due")
                self._next_index += 1
                self._open[index] = kind
            case BlockDelta(index=index, pieces=pieces):
                if self._open.get(index) in (None, BlockKind.REDACTED, BlockKind.SEARCH_RESULT):
                    raise LocalProtocolError(f"a delta for block {index}, which takes none")
                if not pieces:
                    raise LocalProtocolError(f"an empty delta for block {index}")
            case BlockEnded(index=index):
                if self._open.pop(index, None) is None:
                    raise LocalProtocolError(f"block {index} ended, but is not open")
            case TurnEnded():
                if self._open:
                    raise LocalProtocolError(f"the turn ended with blocks {sorted(self._open)} open")
            case _:
                pass
        self.phase = after
