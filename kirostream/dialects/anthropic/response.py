"""Messages answers, read and written (client-apis.md sections 4.4 to 4.8).

**The wire's brackets.** Blocks are numbered from 0 and never interleave, while a turn's blocks may overlap. So the
writer has one block on the wire at a time; what belongs to a later one is held until the earlier is closed, in order
of index. A turn whose blocks do not overlap (Kiro's never do) is held nowhere.

**The hot path** is the first branch of `Writer.write`: a delta of the block that is on the wire is
``prefix + sep.join(pieces) + suffix``, one wire event a piece. The pieces are insides of JSON strings already
(`turn.events`); the prefix was built when the block began.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects import sse
from kirostream.dialects.anthropic.errors import WireError, error_body, failure
from kirostream.dialects.anthropic.websearch import (
    RESULT,
    read_content,
    read_query,
    write_call,
    write_outcome,
)
from kirostream.dialects.dialect import Heading, Template, Templates
from kirostream.dialects.jsontext import as_object, decode_answer, encode
from kirostream.errors import MalformedRequest, RemoteProtocolError, StreamCut
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
    escape,
)
from kirostream.turn.model import Model
from kirostream.turn.request import (
    SEARCH_TOOL,
    SearchCall,
    SearchOutcome,
    Text,
    Thought,
    ToolCall,
    TurnRequest,
)
from kirostream.turn.result import AnswerBlock, TurnResult
from kirostream.turn.usage import Usage

STOP_REASONS: Final[Mapping[Stop, str]] = {
    Stop.END: "end_turn",
    Stop.MAX_TOKENS: "max_tokens",
    Stop.TOOL_CALL: "tool_use",
    Stop.STOP_SEQUENCE: "stop_sequence",
    Stop.REFUSED: "refusal",
    Stop.CONTEXT_FULL: "model_context_window_exceeded",
    Stop.PAUSED: "pause_turn",
}
"""Section 4.6."""

STOPS: Final = {word: stop for stop, word in STOP_REASONS.items()}

_COUNTS: Final = b'{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,"output_tokens":%d}'
_PING: Final = sse.event(b"ping", b'{"type":"ping"}')
_OPEN: Final = sse.event(
    b"message_start",
    b'{"type":"message_start","message":{"id":%b,"type":"message","role":"assistant","model":%b,"content":[],'
    b'"stop_reason":null,"stop_sequence":null,"usage":%b}}',
)
_START: Final = sse.event(b"content_block_start", b'{"type":"content_block_start","index":%d,"content_block":%b}')
_TEXT: Final = b'{"type":"text","text":""}'
_STOP: Final = sse.event(b"content_block_stop", b'{"type":"content_block_stop","index":%d}')
_END: Final = sse.event(b"message_delta", b'{"type":"message_delta","delta":%b,"usage":%b}')
_LAST: Final = sse.event(b"message_stop", b'{"type":"message_stop"}')
_PREFIX: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":"'
)
_SUFFIX: Final = b'"}}\n\n'
_DELTAS: Final[Mapping[BlockKind, tuple[bytes, bytes]]] = {
    BlockKind.TEXT: (b"text_delta", b"text"),
    BlockKind.THINKING: (b"thinking_delta", b"thinking"),
    BlockKind.TOOL_CALL: (b"input_json_delta", b"partial_json"),
    BlockKind.SEARCH: (b"input_json_delta", b"partial_json"),
}


# Writing


class Writer(Templates):
    """Writes one streamed answer (section 4.5)."""

    def __init__(self, request: TurnRequest, heading: Heading) -> None:
        self._model = request.model
        self._id = f"msg_{heading.turn[:24]}"
        self._called_tools = False
        self._current = -1
        """The block that is on the wire; if it has not started yet, the next that will be."""
        self._on_wire = False
        self._prefix = b""
        self._sep = b""
        self._held: dict[int, list[BlockStarted | BlockDelta | BlockEnded]] = {}

    def __repr__(self) -> str:
        return f"<anthropic.Writer {self._id}, block {self._current}, {len(self._held)} held>"

    def write(self, event: TurnEvent) -> list[bytes]:
        """The wire events that say `event`; empty where Messages has nothing to say, or not yet."""
        if type(event) is BlockDelta:
            if event.index == self._current:
                return [self._prefix + self._sep.join(event.pieces) + _SUFFIX]
            self._held[event.index].append(event)
            return []
        match event:
            case BlockStarted():
                self._called_tools = self._called_tools or event.kind is BlockKind.TOOL_CALL
                if self._on_wire:
                    self._held[event.index] = [event]
                    return []
                return [self._start(event)]
            case BlockEnded():
                if event.index != self._current:
                    self._held[event.index].append(event)
                    return []
                return [*self._stop(event), *self._release()]
            case TurnStarted():
                return [self._open(event)]
            case TurnEnded():
                return self._close(event)
            case TurnFailed():
                return [sse.event(b"error", encode(error_body(event.error)))]
            case _:
                return []  # UsageKnown is said again by the end; Foreign is made by no reader of this dialect

    def template(self, index: int) -> Template | None:
        """See `dialect.Templates`."""
        return Template(self._prefix, self._sep, _SUFFIX) if index == self._current and self._on_wire else None

    def was_said(self, event: BlockDelta) -> None:
        """See `dialect.Templates`. Nothing depends on it."""

    def heartbeat(self) -> bytes:
        """A ping; it may stand anywhere, also before ``message_start``."""
        return _PING

    def _open(self, event: TurnStarted) -> bytes:
        model = event.model if event.stands_in else self._model
        return _OPEN % (encode(self._id), encode(model), _counts(event.usage))

    def _start(self, event: BlockStarted) -> bytes:
        self._current = event.index
        self._on_wire = True
        if event.kind in _DELTAS:
            kind, member = _DELTAS[event.kind]
            self._prefix = _PREFIX % (event.index, kind, member)
            self._sep = _SUFFIX + self._prefix
        block: dict[str, object]
        match event.kind:
            case BlockKind.TEXT:
                return _START % (event.index, _TEXT)
            case BlockKind.THINKING:
                block = {"type": "thinking", "thinking": "", "signature": ""}
            case BlockKind.REDACTED:
                block = {"type": "redacted_thinking", "data": event.data}
            case BlockKind.TOOL_CALL:
                block = {"type": "tool_use", "id": event.call_id, "name": event.name, "input": {}}
            case BlockKind.SEARCH:
                block = {"type": "server_tool_use", "id": event.call_id, "name": SEARCH_TOOL, "input": {}}
            case BlockKind.SEARCH_RESULT:
                block = write_outcome(event.outcome or SearchOutcome(event.call_id))
        return _START % (event.index, encode(block))

    def _stop(self, event: BlockEnded) -> list[bytes]:
        self._current += 1
        self._on_wire = False
        stop = _STOP % event.index
        if not event.signature:
            return [stop]  # a thought that the upstream did not sign stays unsigned
        delta = {"type": "signature_delta", "signature": event.signature}
        signed = encode({"type": "content_block_delta", "index": event.index, "delta": delta})
        return [sse.event(b"content_block_delta", signed), stop]

    def _release(self) -> list[bytes]:
        """Say what was held for the blocks that are due now."""
        blocks: list[bytes] = []
        while not self._on_wire and self._current in self._held:
            for event in self._held.pop(self._current):
                match event:
                    case BlockStarted():
                        blocks.append(self._start(event))
                    case BlockEnded():
                        blocks.extend(self._stop(event))
                    case BlockDelta():
                        blocks.append(self._prefix + self._sep.join(event.pieces) + _SUFFIX)
        return blocks

    def _close(self, event: TurnEnded) -> list[bytes]:
        reason, details = _stop_reason(event.stop, called_tools=self._called_tools)
        delta: dict[str, object] = {"stop_reason": reason, "stop_sequence": event.stop_sequence or None}
        if details:
            delta["stop_details"] = details
        return [_END % (encode(delta), _counts(event.usage)), _LAST]


def write_result(request: TurnRequest, result: TurnResult, heading: Heading) -> bytes:
    """A whole message (section 4.4)."""
    called_tools = any(isinstance(block, ToolCall) for block in result.content)
    reason, details = _stop_reason(result.stop, called_tools=called_tools)
    return encode(
        {
            "id": f"msg_{heading.turn[:24]}",
            "type": "message",
            "role": "assistant",
            "model": result.model_for(request.model),
            "content": [_block(block) for block in result.content],
            "stop_reason": reason,
            "stop_sequence": result.stop_sequence or None,
            "stop_details": details,
            "container": None,
            "diagnostics": None,
            "usage": _usage(result.usage),
        }
    )


def _block(block: AnswerBlock) -> dict[str, object]:
    match block:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Thought(redacted=data) if data:
            return {"type": "redacted_thinking", "data": data}
        case Thought(text=text, signature=signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": Raw(as_object(arguments))}
        case SearchCall():
            return write_call(block)
        case SearchOutcome():
            return write_outcome(block)


def _stop_reason(stop: Stop, *, called_tools: bool) -> tuple[str, dict[str, object] | None]:
    """``stop_reason`` and ``stop_details``. Clients run tools on ``tool_use``, so it says whether there are any."""
    if stop in (Stop.END, Stop.TOOL_CALL):
        stop = Stop.TOOL_CALL if called_tools else Stop.END
    details: dict[str, object] | None = None
    if stop is Stop.REFUSED:
        details = {"type": "refusal", "category": None, "explanation": None}
    return STOP_REASONS[stop], details


def _counts(usage: Usage) -> bytes:
    """`_usage` as JSON; what most of them say needs no objects."""
    if usage.thinking_tokens or usage.searches:
        return encode(_usage(usage))
    return _COUNTS % (usage.input_tokens, usage.cache_write_tokens, usage.cache_read_tokens, usage.output_tokens)


def _usage(usage: Usage) -> dict[str, object]:
    """Counts so far; ``input_tokens`` excludes the cache (section 4.7)."""
    counts: dict[str, object] = {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.thinking_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.thinking_tokens}
    if usage.searches:
        counts["server_tool_use"] = {"web_search_requests": usage.searches, "web_fetch_requests": 0}
    return counts


# Reading. What an upstream may leave out, or send as null, is optional here.


class WireThinkingTokens(msgspec.Struct):
    """``usage.output_tokens_details``."""

    thinking_tokens: int | None = None


class WireServerTools(msgspec.Struct):
    """``usage.server_tool_use``."""

    web_search_requests: int | None = None


class WireUsage(msgspec.Struct):
    """``usage``; a count that is absent does not change what was said before."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: WireThinkingTokens | None = None
    server_tool_use: WireServerTools | None = None


class WireBlock(msgspec.Struct):
    """A content block, at its start or whole."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")
    tool_use_id: str | None = None
    content: Raw = Raw(b"[]")

    @property
    def kind(self) -> BlockKind | None:
        """What it is in a turn; None for blocks of tools that only the service knows, which are passed over."""
        if self.type == "server_tool_use" and self.name == SEARCH_TOOL:
            return BlockKind.SEARCH
        return _KINDS.get(self.type)

    def outcome(self) -> SearchOutcome:
        """What came of a search.

        Raises:
            RemoteProtocolError: its content is no list and no object.
        """
        try:
            return SearchOutcome(self.tool_use_id or "", *read_content(self.content, "content"))
        except MalformedRequest as error:
            raise RemoteProtocolError(f"The upstream's search result cannot be read: {error.message}") from error


class WireDelta(msgspec.Struct):
    """The ``delta`` of a block or of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class WireMessage(msgspec.Struct):
    """A whole message, or its head in ``message_start``."""

    model: str = ""
    content: list[WireBlock] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: WireUsage | None = None


class WireEvent(msgspec.Struct):
    """Any event of a stream."""

    type: str
    index: int = 0
    message: WireMessage | None = None
    content_block: WireBlock | None = None
    delta: WireDelta | None = None
    usage: WireUsage | None = None
    error: WireError | None = None


_KINDS: Final = {
    "text": BlockKind.TEXT,
    "thinking": BlockKind.THINKING,
    "redacted_thinking": BlockKind.REDACTED,
    "tool_use": BlockKind.TOOL_CALL,
    RESULT: BlockKind.SEARCH_RESULT,
}


class Reader:
    """Reads one streamed answer."""

    def __init__(self, request: TurnRequest, model: Model) -> None:
        self._model = model.id
        self._events = sse.EventReader()
        self._started = False
        self._over = False
        self._usage = Usage()
        self._stop: Stop | None = None
        self._stop_sequence = ""
        self._count = 0
        self._open: dict[int, _OpenBlock] = {}
        self._passed_over: set[int] = set()

    def __repr__(self) -> str:
        return f"<anthropic.Reader {self._count} blocks, open {sorted(self._open)}{', over' if self._over else ''}>"

    def feed(self, data: bytes) -> list[TurnEvent]:
        """Take the next bytes, in any cut. What follows the end of the turn is ignored.

        Raises:
            RemoteProtocolError: the bytes are not a Messages stream.
        """
        said: list[TurnEvent] = []
        for event in self._events.feed(data):
            if self._over:
                break
            said.extend(self._take(decode_answer(event.data, WireEvent)))
        return said

    def close(self) -> list[TurnEvent]:
        """The upstream has closed the stream. After ``message_delta`` a turn is whole, as it is for the clients.

        Raises:
            StreamCut: it was not.
        """
        if self._over:
            return []
        if self._stop is None or self._open:
            raise StreamCut("The upstream closed the stream before the answer was whole.")
        return self._end()

    def _take(self, event: WireEvent) -> list[TurnEvent]:
        if event.type == "error":
            self._over = True
            error = event.error or WireError()
            return [TurnFailed(failure(error.type, error.message))]
        if event.type == "message_start":
            if self._started:
                raise RemoteProtocolError("The upstream sent message_start twice.")
            message = event.message or WireMessage()
            self._usage = _read_usage(message.usage, self._usage)
            self._started = True
            return [TurnStarted(message.model or self._model, self._usage)]
        if event.type == "ping":
            return []
        if not self._started:
            raise RemoteProtocolError(f"The upstream sent {event.type} before message_start.")
        match event.type:
            case "content_block_start":
                return self._start(event)
            case "content_block_delta":
                return self._more(event)
            case "content_block_stop":
                return self._end_block(event)
            case "message_delta":
                self._usage = _read_usage(event.usage, self._usage)
                if event.delta and event.delta.stop_reason:
                    self._stop = STOPS.get(event.delta.stop_reason, Stop.END)
                    self._stop_sequence = event.delta.stop_sequence or ""
                return []
            case "message_stop":
                if self._open:
                    raise RemoteProtocolError(f"The upstream ended with blocks {sorted(self._open)} open.")
                return self._end()
            case _:
                return []  # new events appear without notice

    def _start(self, event: WireEvent) -> list[TurnEvent]:
        block = event.content_block
        kind = block.kind if block else None
        if block is None or kind is None:
            self._passed_over.add(event.index)
            return []
        if event.index in self._open:
            raise RemoteProtocolError(f"The upstream started block {event.index} twice.")
        index = self._count
        self._count += 1
        if kind is BlockKind.SEARCH_RESULT:
            outcome = block.outcome()
            self._open[event.index] = _OpenBlock(index, kind, block)
            return [BlockStarted(index, kind, outcome.call_id, outcome=outcome)]
        opened = self._open[event.index] = _OpenBlock(index, kind, block)
        name = (block.name or "") if kind is BlockKind.TOOL_CALL else ""
        said: list[TurnEvent] = [BlockStarted(index, kind, block.id or "", name, block.data or "")]
        first = block.text if kind is BlockKind.TEXT else block.thinking if kind is BlockKind.THINKING else None
        if first:
            said.append(opened.more(first))
        return said

    def _more(self, event: WireEvent) -> list[TurnEvent]:
        if event.index in self._passed_over or event.delta is None:
            return []
        block = self._block(event)
        delta = event.delta
        if delta.signature is not None:
            block.signature = delta.signature
            return []
        match block.kind:
            case BlockKind.TEXT:
                text = delta.text
            case BlockKind.THINKING:
                text = delta.thinking
            case BlockKind.TOOL_CALL | BlockKind.SEARCH:
                text = delta.partial_json
            case BlockKind.REDACTED | BlockKind.SEARCH_RESULT:
                text = None
        return [block.more(text)] if text else []

    def _end_block(self, event: WireEvent) -> list[TurnEvent]:
        if event.index in self._passed_over:
            return []
        block = self._block(event)
        del self._open[event.index]
        said: list[TurnEvent] = []
        if block.kind in (BlockKind.TOOL_CALL, BlockKind.SEARCH) and not block.has_deltas and block.input != b"{}":
            said.append(block.more(block.input.decode()))
        return [*said, BlockEnded(block.index, block.signature)]

    def _block(self, event: WireEvent) -> _OpenBlock:
        block = self._open.get(event.index)
        if block is None:
            raise RemoteProtocolError(f"The upstream sent {event.type} for block {event.index}, which is not open.")
        return block

    def _end(self) -> list[TurnEvent]:
        self._over = True
        return [TurnEnded(self._stop or Stop.END, self._usage, self._stop_sequence)]


class _OpenBlock:
    """A block whose stop has not come yet."""

    __slots__ = ("has_deltas", "index", "input", "kind", "signature")

    def __init__(self, index: int, kind: BlockKind, block: WireBlock) -> None:
        self.index = index
        self.kind = kind
        self.signature = block.signature or ""
        self.input = bytes(block.input)
        self.has_deltas = False

    def more(self, text: str) -> BlockDelta:
        self.has_deltas = True
        return BlockDelta(self.index, (escape(text),))


def read_result(body: bytes) -> TurnResult:
    """A whole message.

    Raises:
        RemoteProtocolError: it is none.
    """
    message = decode_answer(body, WireMessage)
    if message.content is None:
        raise RemoteProtocolError("The upstream's answer is no message: it has no content.")
    content: list[AnswerBlock] = []
    for block in message.content:
        match block.kind:
            case BlockKind.TEXT:
                content.append(Text(block.text or ""))
            case BlockKind.THINKING:
                content.append(Thought(block.thinking or "", block.signature or ""))
            case BlockKind.REDACTED:
                content.append(Thought("", redacted=block.data or ""))
            case BlockKind.TOOL_CALL:
                content.append(ToolCall(block.id or "", block.name or "", bytes(block.input)))
            case BlockKind.SEARCH:
                content.append(SearchCall(block.id or "", read_query(block.input, "input")))
            case BlockKind.SEARCH_RESULT:
                content.append(block.outcome())
            case None:
                pass
    return TurnResult(
        tuple(content),
        STOPS.get(message.stop_reason or "", Stop.END),
        _read_usage(message.usage, Usage()),
        message.model,
        message.stop_sequence or "",
    )


def _read_usage(wire: WireUsage | None, before: Usage) -> Usage:
    """Counts are cumulative; one that is absent stays as it was."""
    if wire is None:
        return before
    details, tools = wire.output_tokens_details, wire.server_tool_use
    return Usage(
        before.input_tokens if wire.input_tokens is None else wire.input_tokens,
        before.output_tokens if wire.output_tokens is None else wire.output_tokens,
        before.cache_read_tokens if wire.cache_read_input_tokens is None else wire.cache_read_input_tokens,
        before.cache_write_tokens if wire.cache_creation_input_tokens is None else wire.cache_creation_input_tokens,
        before.thinking_tokens if details is None else details.thinking_tokens or 0,
        searches=before.searches if tools is None else tools.web_search_requests or 0,
    )
