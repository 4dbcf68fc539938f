"""Brackets for upstreams that send bare deltas.

Kiro says "text" or "a piece of call X"; it never says where a text block begins or ends. `TurnBuilder` opens and closes
blocks as the kind of what is said changes, so that readers need no bookkeeping of their own. Its output obeys
`turn.grammar` whatever is called in whatever order, as long as nothing follows `end` or `fail`.
"""

from __future__ import annotations

from collections.abc import Sequence

from kirostream.errors import KirostreamError, LocalProtocolError
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.usage import Usage


class TurnBuilder:
    """Turns what is said into bracketed events. One block is open at a time."""

    def __init__(self) -> None:
        self.started = False
        self.over = False
        self.called_tools = False
        """Whether any tool call was opened in this turn."""
        self._kind: BlockKind | None = None
        self._index = -1

    def __repr__(self) -> str:
        where = "over" if self.over else self._kind.value if self._kind else "between blocks"
        return f"<TurnBuilder block {self._index}, {where}>"

    @property
    def open_kind(self) -> BlockKind | None:
        """The kind of the open block, None between blocks."""
        return self._kind

    def start(self, model: str, usage: Usage) -> list[TurnEvent]:
        """The turn begins."""
        self.started = True
        return [TurnStarted(model, usage)]

    def text(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        """More text; opens a text block where none is open."""
        return self._more(BlockKind.TEXT, pieces)

    def thought(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        """More of a thought; opens a thinking block where none is open."""
        return self._more(BlockKind.THINKING, pieces)

    @property
    def index(self) -> int:
        """Of the block that was opened last."""
        return self._index

    def signature(self, signature: str) -> list[TurnEvent]:
        """Close the thought that is open, with its signature. A signature without a thought gets an empty one."""
        opened = [] if self._kind is BlockKind.THINKING else self._open(BlockKind.THINKING)
        return [*opened, self._shut(signature)]

    def redacted(self, data: str) -> list[TurnEvent]:
        """A whole thought that is not shown. `data` is base64."""
        return [*self._open(BlockKind.REDACTED, data=data), self._shut()]

    def tool(self, call_id: str, name: str) -> list[TurnEvent]:
        """A tool call begins."""
        self.called_tools = True
        return self._open(BlockKind.TOOL_CALL, call_id=call_id, name=name)

    def arguments(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        """More of the open call's arguments.

        Raises:
            LocalProtocolError: no call is open.
        """
        if self._kind is not BlockKind.TOOL_CALL:
            raise LocalProtocolError("arguments without a tool call")
        return [BlockDelta(self._index, pieces)]

    def close(self) -> list[TurnEvent]:
        """Close the open block, if there is one."""
        return [self._shut()] if self._kind is not None else []

    def end(self, stop: Stop, usage: Usage, stop_sequence: str = "") -> list[TurnEvent]:
        """The turn is whole."""
        closing = self.close()
        self.over = True
        return [*closing, TurnEnded(stop, usage, stop_sequence)]

    def fail(self, error: KirostreamError) -> list[TurnEvent]:
        """The turn is broken. An open block stays open: what it held is not whole."""
        self.over = True
        return [TurnFailed(error)]

    def _more(self, kind: BlockKind, pieces: Sequence[bytes]) -> list[TurnEvent]:
        if self._kind is kind:
            return [BlockDelta(self._index, pieces)]
        return [*self._open(kind), BlockDelta(self._index, pieces)]

    def _open(self, kind: BlockKind, *, call_id: str = "", name: str = "", data: str = "") -> list[TurnEvent]:
        closing = self.close()
        self._index += 1
        self._kind = kind
        return [*closing, BlockStarted(self._index, kind, call_id, name, data)]

    def _shut(self, signature: str = "") -> BlockEnded:
        self._kind = None
        return BlockEnded(self._index, signature)
