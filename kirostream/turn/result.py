"""A whole answer, and the way between it and its events.

``fold(unfold(result)) == result`` for every result; ``unfold(fold(events))`` says the same as `events` in the fewest
events. A streamed and a whole answer of one turn are the same by construction: both come from the same events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import LocalProtocolError
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
    UsageKnown,
    escape,
    unescape,
)
from kirostream.turn.request import SearchCall, SearchOutcome, Text, Thought, ToolCall
from kirostream.turn.usage import Usage

AnswerBlock: TypeAlias = Text | Thought | ToolCall | SearchCall | SearchOutcome


@dataclass(frozen=True, slots=True)
class TurnResult:
    """What the model answered. `model` is the upstream's name for it; `stands_in` as in `TurnStarted`."""

    content: tuple[AnswerBlock, ...]
    stop: Stop
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    stop_sequence: str = ""
    stands_in: bool = False

    def model_for(self, asked: str) -> str:
        """The name of the model for a client that asked for `asked`, which clients want to read again."""
        return self.model if self.stands_in else asked


def fold(events: Iterable[TurnEvent]) -> TurnResult:
    """The whole answer.

    Raises:
        KirostreamError: the turn failed; the error it failed with.
        LocalProtocolError: the events stop before the turn ends.
    """
    started_as = TurnStarted()
    usage = Usage()
    started: dict[int, BlockStarted] = {}
    pieces: dict[int, list[bytes]] = {}
    signatures: dict[int, str] = {}
    for event in events:
        match event:
            case BlockDelta(index=index, pieces=more):
                pieces[index].extend(more)
            case BlockStarted(index=index):
                started[index] = event
                pieces[index] = []
            case BlockEnded(index=index, signature=signature):
                signatures[index] = signature
            case TurnStarted():
                started_as, usage = event, event.usage
            case UsageKnown():
                usage = event.usage
            case TurnEnded(stop=stop, usage=usage, stop_sequence=stop_sequence):
                blocks = (block_of(start, pieces[i], signatures.get(i, "")) for i, start in sorted(started.items()))
                content = tuple(blocks)
                return TurnResult(content, stop, usage, started_as.model, stop_sequence, started_as.stands_in)
            case TurnFailed(error=error):
                raise error
            case _:
                pass  # Foreign has no place in a whole answer yet
    raise LocalProtocolError("the events stop before the turn ends")


def block_of(start: BlockStarted, pieces: Sequence[bytes], signature: str = "") -> AnswerBlock:
    """The whole of a block, of its beginning and its deltas. A search without a query has an empty one."""
    match start.kind:
        case BlockKind.TEXT:
            return Text(unescape(pieces))
        case BlockKind.THINKING:
            return Thought(unescape(pieces), signature)
        case BlockKind.REDACTED:
            return Thought("", signature, start.data)
        case BlockKind.TOOL_CALL:
            return ToolCall(start.call_id, start.name, unescape(pieces).encode() or b"{}")
        case BlockKind.SEARCH:
            return SearchCall(start.call_id, _query(pieces))
        case BlockKind.SEARCH_RESULT:
            return start.outcome or SearchOutcome(start.call_id, None)


def _query(pieces: Sequence[bytes]) -> str:
    try:
        return str(json.loads(unescape(pieces))["query"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def whole_calls(result: TurnResult) -> TurnResult:
    """The answer without calls whose arguments broke off: half of them would be taken for all.

    Such a turn ended MAX_TOKENS (kiro-protocol.md section 3.3), which is what is left to say of them.
    """
    content = tuple(b for b in result.content if not isinstance(b, ToolCall) or _is_object(b.arguments))
    return result if len(content) == len(result.content) else replace(result, content=content)


def _is_object(arguments: bytes) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def unfold(result: TurnResult) -> Iterator[TurnEvent]:
    """The events that say `result`, one delta a block."""
    yield TurnStarted(result.model, result.usage, result.stands_in)
    for index, block in enumerate(result.content):
        match block:
            case Text(text=text):
                yield from _bracket(BlockStarted(index, BlockKind.TEXT), text)
            case Thought(redacted=data) if data:
                yield from _bracket(BlockStarted(index, BlockKind.REDACTED, data=data), "", block.signature)
            case Thought(text=text, signature=signature):
                yield from _bracket(BlockStarted(index, BlockKind.THINKING), text, signature)
            case ToolCall(id=call_id, name=name, arguments=arguments):
                yield from _bracket(BlockStarted(index, BlockKind.TOOL_CALL, call_id, name), arguments.decode())
            case SearchCall():
                yield from searching(index, block)
            case SearchOutcome():
                yield from found(index, block)
    yield TurnEnded(result.stop, result.usage, result.stop_sequence)


def searching(index: int, call: SearchCall) -> Iterator[TurnEvent]:
    """The block that says a search."""
    query = json.dumps({"query": call.query}, ensure_ascii=False, separators=(",", ":"))
    return _bracket(BlockStarted(index, BlockKind.SEARCH, call.id), query)


def found(index: int, outcome: SearchOutcome) -> Iterator[TurnEvent]:
    """The block that says what came of it."""
    return _bracket(BlockStarted(index, BlockKind.SEARCH_RESULT, outcome.call_id, outcome=outcome), "")


def _bracket(start: BlockStarted, text: str, signature: str = "") -> Iterator[TurnEvent]:
    yield start
    if text:
        yield BlockDelta(start.index, (escape(text),))
    yield BlockEnded(start.index, signature)
