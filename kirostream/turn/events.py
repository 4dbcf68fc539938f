"""What a model answers, in no dialect's words.

::

    turn    = TurnStarted (block | UsageKnown | Foreign)* (TurnEnded | TurnFailed)
    block   = BlockStarted BlockDelta* BlockEnded

`turn.grammar` holds the same as a table and checks it. Blocks may overlap (their `index` tells them apart); indexes
count from 0 in order of appearance.

A delta's text is kept as the upstream wrote it: **pieces**, each the inside of a JSON string literal, UTF-8, already
escaped, without the quotes. Both ends of the gateway speak JSON, so a piece is lifted out of one document and spliced
into the next without being decoded. Rules for whoever makes a piece:

- it is valid inside a JSON string: no control characters, no bare quote, no broken escape, valid UTF-8;
- a surrogate pair written as two escapes is never split over two pieces.

Several pieces in one delta came in one read; a writer may send them in one write, one wire event each.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import field
from typing import TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError
from kirostream.turn.request import RawJson, SearchOutcome
from kirostream.turn.usage import Usage


class BlockKind(enum.Enum):
    """What a block holds.

    REDACTED is a thought that the model does not show; its data comes whole. SEARCH is a web search that is run within
    the turn: its deltas say ``{"query": ...}``. What came of it is a SEARCH_RESULT behind it, which comes whole too.
    """

    TEXT = "text"
    THINKING = "thinking"
    REDACTED = "redacted"
    TOOL_CALL = "tool_call"
    SEARCH = "search"
    SEARCH_RESULT = "search_result"


class Stop(enum.Enum):
    """Why a turn ended."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    TOOL_CALL = "tool_call"
    STOP_SEQUENCE = "stop_sequence"
    REFUSED = "refused"
    CONTEXT_FULL = "context_full"
    PAUSED = "paused"


def escape(text: str) -> bytes:
    """One piece that says `text`. A lone surrogate becomes U+FFFD: UTF-8 cannot hold it."""
    quoted = json.dumps(text, ensure_ascii=False)
    try:
        return quoted[1:-1].encode()
    except UnicodeEncodeError:
        # Two halves that stand side by side in the str are joined here, as a decoder of JSON escapes would.
        return quoted[1:-1].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def unescape(pieces: Sequence[bytes]) -> str:
    """The text that `pieces` say together."""
    text: str = json.loads(b'"' + b"".join(pieces) + b'"')
    return text


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The upstream began to answer. `model` is its own name for the model; `usage` may be an estimate.

    `stands_in`: it is not the model that was asked for, so the client is told its name, and not the one it wrote.
    """

    model: str = ""
    usage: Usage = field(default_factory=Usage)
    stands_in: bool = False


@dataclass(frozen=True, slots=True)
class BlockStarted:
    """A block opens.

    `call_id` and `name` are set for TOOL_CALL, `data` (base64) for REDACTED, `call_id` for SEARCH, and `call_id` and
    `outcome` for SEARCH_RESULT.
    """

    index: int
    kind: BlockKind
    call_id: str = ""
    name: str = ""
    data: str = ""
    outcome: SearchOutcome | None = None


@dataclass(frozen=True, slots=True)
class BlockDelta:
    """More of a block: text, thought, or a part of the call's arguments (see the module's note on pieces)."""

    index: int
    pieces: Sequence[bytes]

    @classmethod
    def of(cls, index: int, text: str) -> BlockDelta:
        """A delta that says `text`, in one piece."""
        return cls(index, (escape(text),))

    @property
    def text(self) -> str:
        """The delta's text, decoded."""
        return unescape(self.pieces)


@dataclass(frozen=True, slots=True)
class BlockEnded:
    """A block closes. `signature` vouches for a THINKING block, where the upstream signs."""

    index: int
    signature: str = ""


@dataclass(frozen=True, slots=True)
class UsageKnown:
    """The cost so far; replaces what was said before."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something only one dialect knows; written out only by a writer of the same dialect."""

    dialect: str
    data: RawJson


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The answer is whole. `stop_sequence` is set for STOP_SEQUENCE only."""

    stop: Stop
    usage: Usage
    stop_sequence: str = ""


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The answer is not whole and will not be."""

    error: KirostreamError


TurnEvent: TypeAlias = (
    TurnStarted | BlockStarted | BlockDelta | BlockEnded | UsageKnown | Foreign | TurnEnded | TurnFailed
)
