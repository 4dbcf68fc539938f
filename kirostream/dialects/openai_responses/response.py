"""Responses answers and errors, read and written (client-apis.md sections 3.4, 3.5).

Every block of a turn is one item of the answer's ``output``: a text a message with one part, a thought a reasoning item
with one summary part, a call the item of its tool's kind (`tools`). Items may overlap; ``output_index`` tells them
apart. A model's refusal is a message of its own at the end, and the answer is complete: an answer that says
``content_filter`` is asked for again by its client, five times.

The same writer says streamed and whole answers: the whole one is the ``response`` of the last event. So what a client
builds from the stream and what it reads at the end are equal. Ids are made of the heading's turn: ``resp_<turn>``, and
an item's prefix, the turn, and four hex digits of its index.

**The hot path** is the first branch of `Writer.write`. Every event has its own ``sequence_number``, so a prefix cannot
be said again as it is; instead the pieces of one read become one event, which costs one `%` whatever their number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects import sse
from kirostream.dialects.dialect import Complaint, ErrorReply, Headers, Heading
from kirostream.dialects.hints import overflow
from kirostream.dialects.jsontext import decode_answer, encode
from kirostream.dialects.openai_chat import response as chat
from kirostream.dialects.openai_responses.request import offered
from kirostream.dialects.openai_responses.thoughts import FOREIGN, PLAIN, Seal, pack, unpack
from kirostream.dialects.openai_responses.tools import (
    ITEM_PREFIXES,
    ITEM_TYPES,
    Kind,
    Offer,
    Origin,
    call_item,
    custom_arguments,
    custom_input,
    flat,
)
from kirostream.errors import (
    AccountThrottled,
    ContextOverflow,
    KirostreamError,
    NoAccount,
    QuotaSpent,
    RemoteProtocolError,
    RequestError,
    StreamCut,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
)
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
    unescape,
)
from kirostream.turn.model import Model
from kirostream.turn.request import RawJson, Thought, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage

REFUSAL: Final = "The model declined to answer."
"""What is said for a model that stopped without saying so itself."""

ENCRYPTED: Final = "reasoning.encrypted_content"
"""The member of ``include`` that asks for thoughts to take along."""

_KEEP_ALIVE: Final = sse.comment(b"keep-alive")


# Writing


def response_id(turn: str) -> str:
    """The id of a turn's answer."""
    return f"resp_{turn}"


def item_id(prefix: str, turn: str, index: int) -> str:
    """The id of an item of a turn's answer."""
    return f"{prefix}_{turn}{index:04x}"


class _Item:
    """One item that is being said. `delta` is a template of number and text, empty where deltas are held back."""

    __slots__ = ("added", "call_id", "delta", "id", "index", "kind", "origin", "pieces", "redacted", "unwrapper")

    def __init__(self, index: int, kind: BlockKind, prefix: str, turn: str) -> None:
        self.index = index
        self.kind = kind
        self.id = item_id(prefix, turn, index)
        self.delta = b""
        self.pieces: list[bytes] = []
        self.call_id = ""
        self.redacted = ""
        self.origin = Origin(Kind.FUNCTION, "")
        self.unwrapper: _Unwrapper | None = None

    @property
    def place(self) -> bytes:
        """The members that say where an event belongs."""
        return b'"item_id":"%b","output_index":%d' % (self.id.encode(), self.index)

    @property
    def text(self) -> bytes:
        """All that was said, the inside of a JSON string."""
        return b"".join(self.pieces)


class Writer:
    """Writes one streamed answer (section 3.5), one event a block.

    Args:
        keeps: the answer is kept for later requests that refer to it, so its thoughts are sealed for `items` even where
            the client does not take them along.
    """

    def __init__(self, request: TurnRequest, heading: Heading, *, seal: Seal = PLAIN, keeps: bool = False) -> None:
        self._request = request
        self._turn = heading.turn
        self._seal = seal
        self._seals = _included(request.extras, ENCRYPTED)
        self._frame = _Frame(request, heading)
        self._number = 0
        self._begun = False
        self._count = 0
        self._open: dict[int, _Item] = {}
        self._done: dict[int, bytes] = {}
        self._keeps = keeps
        self._kept: dict[int, bytes] = {}
        self.response = b""
        """The whole answer, once the turn is over."""

    def __repr__(self) -> str:
        return f"<openai_responses.Writer event {self._number}, {len(self._done)} items, open {sorted(self._open)}>"

    def write(self, event: TurnEvent) -> list[bytes]:
        """The events that say `event`."""
        if type(event) is BlockDelta:
            item = self._open[event.index]
            pieces = event.pieces
            item.pieces += pieces
            if item.delta:
                number = self._number
                self._number = number + 1
                return [item.delta % (number, pieces[0] if len(pieces) == 1 else b"".join(pieces))]
            return self._unwrap(item, pieces)
        match event:
            case TurnStarted():
                return self._begin()
            case BlockStarted():
                return self._start(event)
            case BlockEnded():
                return self._stop(event)
            case TurnEnded():
                return self._close(event)
            case TurnFailed():
                return self._fail(event.error)
            case _:
                return []  # UsageKnown is said again by the end; Foreign is made by no reader of this dialect

    def heartbeat(self) -> bytes:
        """A comment."""
        return _KEEP_ALIVE

    @property
    def items(self) -> list[RawJson]:
        """The items that are whole, for the history of a conversation."""
        return [self._kept.get(index, item) for index, item in sorted(self._done.items())]

    def _event(self, name: bytes, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (name, name, number, members)

    def _template(self, name: bytes, members: bytes, after: bytes = b"") -> bytes:
        front, back = members.replace(b"%", b"%%"), after.replace(b"%", b"%%")
        return b'event: %b\ndata: {"type":"%b","sequence_number":%%d,%b,"delta":"%%b"%b}\n\n' % (
            name,
            name,
            front,
            back,
        )

    def _begin(self) -> list[bytes]:
        self._begun = True
        if not self._frame.background:
            response = b'"response":' + self._frame.response(b"in_progress")
            return [self._event(b"response.created", response), self._event(b"response.in_progress", response)]
        queued = b'"response":' + self._frame.response(b"queued")
        return [
            self._event(b"response.created", queued),
            self._event(b"response.queued", queued),
            self._event(b"response.in_progress", b'"response":' + self._frame.response(b"in_progress")),
        ]

    def _start(self, event: BlockStarted) -> list[bytes]:
        index = self._count
        self._count += 1
        match event.kind:
            case BlockKind.TEXT:
                item = _Item(index, event.kind, "msg", self._turn)
                place = item.place + b',"content_index":0'
                item.delta = self._template(b"response.output_text.delta", place, b',"logprobs":[]')
                blocks = [
                    self._added(item, _message(item.id, b"", b"in_progress")),
                    self._event(b"response.content_part.added", place + b',"part":' + _text_part(b"")),
                ]
            case BlockKind.THINKING:
                item = _Item(index, event.kind, "rs", self._turn)
                place = item.place + b',"summary_index":0'
                item.delta = self._template(b"response.reasoning_summary_text.delta", place)
                part = b',"part":{"type":"summary_text","text":""}'
                blocks = [
                    self._added(item, _reasoning(item.id, b"", "")),
                    self._event(b"response.reasoning_summary_part.added", place + part),
                ]
            case BlockKind.REDACTED:
                item = _Item(index, event.kind, "rs", self._turn)
                item.redacted = event.data
                blocks = [self._added(item, self._thought(item, Thought("", "", event.data)))]
            case BlockKind.TOOL_CALL:
                item, block = self._start_call(index, event)
                blocks = [block]
        self._open[event.index] = item
        return blocks

    def _start_call(self, index: int, event: BlockStarted) -> tuple[_Item, bytes]:
        origin = self._offer.origin(event.name)
        item = _Item(index, event.kind, ITEM_PREFIXES[origin.kind], self._turn)
        item.origin, item.call_id = origin, event.call_id
        begun = call_item(origin, item.id, event.call_id, b"{}") | {"status": "in_progress"}
        if origin.kind is Kind.FUNCTION:
            item.delta = self._template(b"response.function_call_arguments.delta", item.place)
            begun["arguments"] = ""
        elif origin.kind is Kind.CUSTOM:
            item.unwrapper = _Unwrapper()
            begun["input"] = ""
        return item, self._added(item, encode(begun))

    @functools.cached_property
    def _offer(self) -> Offer:
        return offered(self._request.extras)

    def _added(self, item: _Item, begun: bytes) -> bytes:
        return self._event(b"response.output_item.added", b'"output_index":%d,"item":%b' % (item.index, begun))

    def _unwrap(self, item: _Item, pieces: Sequence[bytes]) -> list[bytes]:
        """A part of a custom tool's input, as far as it can be told; other calls are said at their end."""
        if item.unwrapper is None:
            return []
        return self._input_delta(item, item.unwrapper.feed(pieces))

    def _input_delta(self, item: _Item, said: bytes) -> list[bytes]:
        if not said:
            return []
        return [self._event(b"response.custom_tool_call_input.delta", b'%b,"delta":"%b"' % (item.place, said))]

    def _stop(self, event: BlockEnded) -> list[bytes]:
        item = self._open.pop(event.index)
        match item.kind:
            case BlockKind.TEXT:
                place = item.place + b',"content_index":0'
                done = b'%b,"text":"%b","logprobs":[]' % (place, item.text)
                blocks = [
                    self._event(b"response.output_text.done", done),
                    self._event(b"response.content_part.done", place + b',"part":' + _text_part(item.text)),
                ]
                whole = _message(item.id, item.text, b"completed")
            case BlockKind.THINKING:
                place = item.place + b',"summary_index":0'
                part = b',"part":{"type":"summary_text","text":"%b"}' % item.text
                blocks = [
                    self._event(b"response.reasoning_summary_text.done", b'%b,"text":"%b"' % (place, item.text)),
                    self._event(b"response.reasoning_summary_part.done", place + part),
                ]
                whole = self._thought(item, Thought(unescape(item.pieces), event.signature))
            case BlockKind.REDACTED:
                blocks = []
                whole = self._thought(item, Thought("", "", item.redacted))
            case BlockKind.TOOL_CALL:
                blocks, whole = self._stop_call(item)
        self._done[item.index] = whole
        blocks.append(self._event(b"response.output_item.done", b'"output_index":%d,"item":%b' % (item.index, whole)))
        return blocks

    def _stop_call(self, item: _Item) -> tuple[list[bytes], bytes]:
        if item.unwrapper is not None:
            blocks = self._input_delta(item, item.unwrapper.finish(item.pieces))
            said = item.unwrapper.said
            done = b'%b,"input":"%b"' % (item.place, said)
            blocks.append(self._event(b"response.custom_tool_call_input.done", done))
            whole = call_item(item.origin, item.id, item.call_id, b"{}") | {"input": Raw(b'"%b"' % said)}
            return blocks, encode(whole)
        if item.origin.kind is not Kind.FUNCTION:
            arguments = unescape(item.pieces).encode() or b"{}"
            return [], encode(call_item(item.origin, item.id, item.call_id, arguments))
        blocks = []
        if not item.text:  # fragments joined have to be JSON, also those of a call without arguments
            blocks = self._delta(item, b"{}")
        name = encode(item.origin.name)
        done = b'%b,"name":%b,"arguments":"%b"' % (item.place, name, item.text)
        blocks.append(self._event(b"response.function_call_arguments.done", done))
        whole = call_item(item.origin, item.id, item.call_id, b"") | {"arguments": Raw(b'"%b"' % item.text)}
        return blocks, encode(whole)

    def _delta(self, item: _Item, said: bytes) -> list[bytes]:
        """One delta of an item that streams."""
        item.pieces.append(said)
        number = self._number
        self._number = number + 1
        return [item.delta % (number, said)]

    def _thought(self, item: _Item, thought: Thought) -> bytes:
        if not (self._seals or self._keeps):
            return _reasoning(item.id, item.text, "")
        whole = _reasoning(item.id, item.text, pack(thought, self._seal))
        if self._seals:
            return whole
        self._kept[item.index] = whole
        return _reasoning(item.id, item.text, "")

    def _close(self, event: TurnEnded) -> list[bytes]:
        blocks = self._refuse() if event.stop is Stop.REFUSED else []
        reason = INCOMPLETE.get(event.stop)
        status = b"incomplete" if reason else b"completed"
        self.response = self._frame.response(
            status,
            output=self._output(),
            usage=encode(_usage(event.usage)),
            incomplete=encode({"reason": reason}) if reason else b"null",
        )
        return [*blocks, self._event(b"response." + status, b'"response":' + self.response)]

    def _refuse(self) -> list[bytes]:
        item = _Item(self._count, BlockKind.TEXT, "msg", self._turn)
        self._count += 1
        place = item.place + b',"content_index":0'
        begun = _message(item.id, b"", b"in_progress")
        said = encode(REFUSAL)
        part = b'{"type":"refusal","refusal":%b}'
        whole = b'{"id":"%b","type":"message","role":"assistant","status":"completed","content":[%b]}'
        whole %= (item.id.encode(), part % said)
        self._done[item.index] = whole
        return [
            self._added(item, begun),
            self._event(b"response.content_part.added", b'%b,"part":%b' % (place, part % b'""')),
            self._event(b"response.refusal.delta", b'%b,"delta":%b' % (place, said)),
            self._event(b"response.refusal.done", b'%b,"refusal":%b' % (place, said)),
            self._event(b"response.content_part.done", b'%b,"part":%b' % (place, part % said)),
            self._event(b"response.output_item.done", b'"output_index":%d,"item":%b' % (item.index, whole)),
        ]

    def _fail(self, error: KirostreamError) -> list[bytes]:
        """The end of a turn that broke: the items that are whole, and why there are no more."""
        blocks = [] if self._begun else self._begin()
        self.response = self._frame.response(b"failed", output=self._output(), error=encode(_failure_of(error)))
        return [*blocks, self._event(b"response.failed", b'"response":' + self.response)]

    def _output(self) -> bytes:
        return b",".join(self._done[index] for index in sorted(self._done))


INCOMPLETE: Final[Mapping[Stop, str]] = {
    Stop.MAX_TOKENS: "max_output_tokens",
    Stop.CONTEXT_FULL: "max_output_tokens",
}
"""Why an answer is incomplete; every other stop completes it."""


class _Unwrapper:
    """The member ``input`` of a call's arguments, lifted out while they arrive.

    The arguments are JSON inside of JSON strings; unescaped once, what stands between the quotes of the member is again
    the inside of a JSON string, and goes to the client as it is. What would not be valid there (a bare control
    character, an unknown escape, half a surrogate pair) is made so. What does not begin as ``{"input":"`` is held until
    the end.
    """

    _HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
    _HEAD_MOST: Final = 64
    _HEX: Final = "[0-9a-fA-F]"
    _TOKEN: Final = re.compile(
        rf"""(?P<plain>[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}
        |\\u(?![dD][89a-fA-F]){_HEX}{{4}})
        |(?P<half>\\u[dD][c-fC-F]{_HEX}{{2}}|\\u[dD][89abAB]{_HEX}{{2}}(?!\\?\Z|\\u{_HEX}{{0,3}}\Z))
        |(?P<odd>\\[^u"\\/bfnrt]|[\x00-\x1f])""",
        re.VERBOSE,
    )

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._over = False
        self._said: list[bytes] = []

    @property
    def said(self) -> bytes:
        """The input so far, the inside of a JSON string."""
        return b"".join(self._said)

    def feed(self, pieces: Sequence[bytes]) -> bytes:
        """More of the arguments; gives more of the input."""
        if self._over:
            return b""
        self._held += unescape(pieces)
        if not self._inside:
            head = self._HEAD.match(self._held)
            if head is None:
                self._over = len(self._held) > self._HEAD_MOST
                return b""
            self._inside = True
            self._held = self._held[head.end() :]
        return self._take()

    def _take(self) -> bytes:
        at = 0
        parts: list[bytes] = []
        while token := self._TOKEN.match(self._held, at):
            at = token.end()
            if token.lastgroup == "plain":
                parts.append(token[0].encode("utf-8", "replace"))
            else:
                parts.append("\ufffd".encode() if token.lastgroup == "half" else escape(token[0]))
        self._over = self._held[at : at + 1] == '"'
        self._held = self._held[at:]
        said = b"".join(parts)
        self._said.append(said)
        return said

    def finish(self, pieces: Sequence[bytes]) -> bytes:
        """The arguments are over; `pieces` are all of them. Gives what is left of the input."""
        rest = b""
        if not self._inside:
            arguments = unescape(pieces)
            rest = escape(custom_input(arguments.encode("utf-8", "replace"))) if arguments.strip() else b""
        elif not self._over:
            rest = escape(self._held)  # cut off inside the string: as much as there is
        self._said.append(rest)
        return rest


class _Frame:
    """The response object round its output (section 3.4). What a client set is repeated as it set it."""

    def __init__(self, request: TurnRequest, heading: Heading) -> None:
        extras = request.extras
        sampling = request.sampling
        self.background = extras.get("background") == b"true"
        self._head = b'{"id":"%b","object":"response","created_at":%d,"completed_at":null,"status":"' % (
            response_id(heading.turn).encode(),
            heading.created,
        )
        said = {
            name: _one_line(extras[name]) if extras.get(name, b"null") != b"null" else usual for name, usual in ECHOED
        }
        said["model"] = encode(request.model)
        said["temperature"] = encode(sampling.temperature)
        said["top_p"] = encode(sampling.top_p)
        said["max_output_tokens"] = encode(sampling.max_tokens)
        self._tail = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in said.items()) + b"}"

    def response(
        self,
        status: bytes,
        *,
        output: bytes = b"",
        usage: bytes = b"null",
        error: bytes = b"null",
        incomplete: bytes = b"null",
    ) -> bytes:
        """The object. All arguments but `status` are JSON; `output` is the inside of its list."""
        middle = b'","error":%b,"incomplete_details":%b,"output":[%b],"usage":%b' % (error, incomplete, output, usage)
        return self._head + status + middle + self._tail


ECHOED: Final[Sequence[tuple[str, RawJson]]] = (
    ("background", b"false"),
    ("instructions", b"null"),
    ("max_tool_calls", b"null"),
    ("metadata", b"{}"),
    ("parallel_tool_calls", b"true"),
    ("previous_response_id", b"null"),
    ("prompt_cache_key", b"null"),
    ("reasoning", b'{"effort":null,"summary":null}'),
    ("safety_identifier", b"null"),
    ("service_tier", b'"default"'),
    ("store", b"true"),
    ("text", b'{"format":{"type":"text"}}'),
    ("tool_choice", b'"auto"'),
    ("tools", b"[]"),
    ("truncation", b'"disabled"'),
    ("user", b"null"),
)
"""Members of the response that repeat the request's, and what they are where it has none."""


def _one_line(said: RawJson) -> RawJson:
    """A client's JSON on one line: a line break would end the event's data."""
    return msgspec.json.format(said, indent=-1) if b"\n" in said or b"\r" in said else said


def _included(extras: Mapping[str, RawJson], name: str) -> bool:
    try:
        return name in msgspec.json.decode(extras.get("include", b"null"), type=list[str])
    except msgspec.DecodeError:
        return False


def _text_part(text: bytes) -> bytes:
    return b'{"type":"output_text","text":"%b","annotations":[],"logprobs":[]}' % text


def _message(item: str, text: bytes, status: bytes) -> bytes:
    content = b"" if status == b"in_progress" else _text_part(text)
    return b'{"id":"%b","type":"message","role":"assistant","status":"%b","content":[%b]}' % (
        item.encode(),
        status,
        content,
    )


def _reasoning(item: str, text: bytes, sealed: str) -> bytes:
    summary = b'{"type":"summary_text","text":"%b"}' % text if text else b""
    more = b',"encrypted_content":"%b"' % sealed.encode() if sealed else b""
    return b'{"id":"%b","type":"reasoning","summary":[%b]%b}' % (item.encode(), summary, more)


def write_status(request: TurnRequest, heading: Heading, status: str) -> bytes:
    """A response that has no output yet, or never will: ``queued``, ``in_progress``, ``cancelled``."""
    return _Frame(request, heading).response(status.encode())


def write_result(request: TurnRequest, result: TurnResult, heading: Heading, *, seal: Seal = PLAIN) -> bytes:
    """A whole response (section 3.4)."""
    writer = Writer(request, heading, seal=seal)
    for event in unfold(result):
        writer.write(event)
    return writer.response


def _usage(usage: Usage) -> dict[str, object]:
    """Counts; ``input_tokens`` includes what came from and went into the cache, as in chat."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.total_tokens,
    }


# Reading. What an upstream may leave out, or send as null, is optional here.


class WireInputDetails(msgspec.Struct):
    """``usage.input_tokens_details``."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class WireOutputDetails(msgspec.Struct):
    """``usage.output_tokens_details``."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: WireInputDetails | None = None
    output_tokens_details: WireOutputDetails | None = None


class WirePart(msgspec.Struct):
    """A part of a message, or of a reasoning item's summary or content."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class WireItem(msgspec.Struct):
    """One of ``output``, of any kind."""

    type: str = ""
    id: str | None = None
    content: list[WirePart] | None = None
    summary: list[WirePart] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = Raw()
    input: str | None = None
    action: Raw = Raw()
    operation: Raw = Raw()


class WireError(msgspec.Struct):
    """``error`` of a failed response."""

    code: str | None = None
    message: str | None = None


class WireIncomplete(msgspec.Struct):
    """``incomplete_details``."""

    reason: str | None = None


class WireResponse(msgspec.Struct):
    """The response object."""

    model: str | None = None
    status: str | None = None
    output: list[WireItem] | None = None
    usage: WireUsage | None = None
    error: WireError | None = None
    incomplete_details: WireIncomplete | None = None


class WireEvent(msgspec.Struct):
    """One event. `code`, `message` and `error` are those of an ``error`` event, which is flat here, nested there."""

    type: str = ""
    response: WireResponse | None = None
    output_index: int = 0
    item: WireItem | None = None
    part: WirePart | None = None
    delta: str | None = None
    code: str | None = None
    message: str | None = None
    error: WireError | None = None


class _Heard:
    """One item of the stream that is not whole yet."""

    def __init__(self, item: WireItem) -> None:
        self.item = item
        self.block: int | None = None
        self.parts = 0
        self.said = False


_CALLS: Final = {wire_type: kind for kind, wire_type in ITEM_TYPES.items()}


class Reader:
    """Reads one streamed answer. Deltas may be left out: an item that is done is whole."""

    def __init__(self, request: TurnRequest, model: Model, *, seal: Seal = PLAIN) -> None:
        self._model = model.id
        self._seal = seal
        self._events = sse.EventReader()
        self._started = False
        self._over = False
        self._called = False
        self._refused = False
        self._count = 0
        self._items: dict[int, _Heard] = {}

    def __repr__(self) -> str:
        return f"<openai_responses.Reader {self._count} blocks, {len(self._items)} open{', over' * self._over}>"

    def feed(self, data: bytes) -> list[TurnEvent]:
        """Take the next bytes, in any cut. What follows the end of the turn is ignored.

        Raises:
            RemoteProtocolError: the bytes are not a Responses stream.
        """
        said: list[TurnEvent] = []
        for event in self._events.feed(data):
            if self._over or event.data.startswith(b"[DONE]"):
                break
            said.extend(self._take(decode_answer(event.data, WireEvent)))
        return said

    def close(self) -> list[TurnEvent]:
        """The upstream has closed the stream.

        Raises:
            StreamCut: the turn was not whole.
        """
        if not self._over:
            raise StreamCut("The upstream closed the stream before the answer was whole.")
        return []

    def _take(self, event: WireEvent) -> list[TurnEvent]:
        if event.type == "error" or (event.type == "" and event.error is not None):
            self._over = True
            return [TurnFailed(_failure(event.error or WireError(event.code, event.message)))]
        response = event.response or WireResponse()
        said: list[TurnEvent] = []
        if not self._started and event.type.startswith("response."):
            self._started = True
            said.append(TurnStarted(response.model or self._model))
        match event.type:
            case "response.output_item.added" if event.item is not None:
                self._items[event.output_index] = _Heard(event.item)
                said += self._open_call(event.output_index)
            case "response.content_part.added":
                said += self._part(event.output_index, BlockKind.TEXT)
            case "response.reasoning_summary_part.added":
                said += self._part(event.output_index, BlockKind.THINKING)
            case "response.output_text.delta":
                said += self._say(event.output_index, BlockKind.TEXT, event.delta)
            case "response.refusal.delta":
                self._refused = True
                said += self._say(event.output_index, BlockKind.TEXT, event.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                said += self._say(event.output_index, BlockKind.THINKING, event.delta)
            case "response.function_call_arguments.delta":
                said += self._say(event.output_index, BlockKind.TOOL_CALL, event.delta)
            case "response.content_part.done":
                said += self._part_done(event.output_index)
            case "response.output_item.done" if event.item is not None:
                said += self._item_done(event.output_index, event.item)
            case "response.completed" | "response.incomplete" | "response.failed":
                said += self._end(event.type, response)
            case _:
                pass  # what says again what deltas have said, and events that are new
        return said

    # An item's life

    def _heard(self, index: int) -> _Heard:
        if index not in self._items:
            raise RemoteProtocolError(f"The upstream sent a part of output item {index}, which has not begun.")
        return self._items[index]

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _open_call(self, index: int) -> list[TurnEvent]:
        heard = self._items[index]
        if heard.item.type not in _CALLS:
            return []
        self._called = True
        heard.block = self._next()
        return [_call_started(heard.block, heard.item)]

    def _part(self, index: int, kind: BlockKind) -> list[TurnEvent]:
        heard = self._heard(index)
        if kind is BlockKind.THINKING and heard.block is not None:
            return [BlockDelta.of(heard.block, "\n\n")]  # a thought's parts are paragraphs of one thought
        if heard.block is not None:
            return []
        heard.block = self._next()
        return [BlockStarted(heard.block, kind)]

    def _say(self, index: int, kind: BlockKind, text: str | None) -> list[TurnEvent]:
        heard = self._heard(index)
        said = [] if heard.block is not None else self._part(index, kind)
        if not text or heard.block is None:
            return said
        heard.said = True
        return [*said, BlockDelta.of(heard.block, text)]

    def _part_done(self, index: int) -> list[TurnEvent]:
        heard = self._heard(index)
        heard.parts += 1
        block, heard.block = heard.block, None
        return [] if block is None else [BlockEnded(block)]

    def _item_done(self, index: int, item: WireItem) -> list[TurnEvent]:
        heard = self._items.pop(index, None) or _Heard(item)
        if item.type in _CALLS:
            return self._call_done(heard, item)
        if item.type == "reasoning":
            return self._thought_done(heard, item)
        if item.type != "message":
            return []
        said: list[TurnEvent] = []
        if heard.block is not None:
            heard.parts += 1
            said.append(BlockEnded(heard.block))
        for part in (item.content or ())[heard.parts :]:
            self._refused = self._refused or part.refusal is not None
            block = self._next()
            said += [BlockStarted(block, BlockKind.TEXT), *_more(block, part.text or part.refusal), BlockEnded(block)]
        return said

    def _call_done(self, heard: _Heard, item: WireItem) -> list[TurnEvent]:
        said: list[TurnEvent] = []
        block = heard.block
        if block is None:
            self._called = True
            block = self._next()
            said.append(_call_started(block, item))
        if not heard.said:
            said += _more(block, call_arguments(item).decode())
        return [*said, BlockEnded(block)]

    def _thought_done(self, heard: _Heard, item: WireItem) -> list[TurnEvent]:
        thought = _thought(item, self._seal)
        if heard.block is not None:
            rest = [] if heard.said else _more(heard.block, thought.text)
            return [*rest, BlockEnded(heard.block, thought.signature)]
        block = self._next()
        if thought.redacted:
            return [BlockStarted(block, BlockKind.REDACTED, data=thought.redacted), BlockEnded(block)]
        started = BlockStarted(block, BlockKind.THINKING)
        return [started, *_more(block, thought.text), BlockEnded(block, thought.signature)]

    def replay(self, response: WireResponse) -> list[TurnEvent]:
        """The events of a whole answer."""
        said: list[TurnEvent] = [TurnStarted(response.model or self._model)]
        for index, item in enumerate(response.output or ()):
            said += self._item_done(index, item)
        return [*said, *self._end(f"response.{response.status or 'completed'}", response)]

    def _end(self, kind: str, response: WireResponse) -> list[TurnEvent]:
        self._over = True
        if kind == "response.failed":
            return [TurnFailed(_failure(response.error or WireError()))]
        said: list[TurnEvent] = []
        for index in sorted(self._items):  # an upstream that never said `done`
            said += self._item_done(index, self._items[index].item)
        stop = _stop(response, called=self._called, refused=self._refused)
        return [*said, TurnEnded(stop, _read_usage(response.usage))]


def _more(block: int, text: str | None) -> list[TurnEvent]:
    return [BlockDelta.of(block, text)] if text else []


def _call_started(block: int, item: WireItem) -> BlockStarted:
    kind = _CALLS[item.type]
    name = flat(item.name or "", item.namespace or "") if kind in (Kind.FUNCTION, Kind.CUSTOM) else kind.value
    if not name:
        raise RemoteProtocolError("The upstream called a tool without a name.")
    return BlockStarted(block, BlockKind.TOOL_CALL, item.call_id or item.id or f"call_{block}", name)


def call_arguments(item: WireItem) -> RawJson:
    """The arguments of a call's item, of any kind."""
    match _CALLS[item.type]:
        case Kind.CUSTOM:
            return custom_arguments(item.input or "")
        case Kind.LOCAL_SHELL | Kind.SHELL:
            return bytes(item.action) or b"{}"
        case Kind.APPLY_PATCH:
            return bytes(item.operation) or b"{}"
        case Kind.FUNCTION | Kind.TOOL_SEARCH:
            said = bytes(item.arguments)
            if said.startswith(b'"'):
                said = decode_answer(said, str).encode()
            return said if said not in (b"", b"null") else b"{}"


def _thought(item: WireItem, seal: Seal) -> Thought:
    shown = "\n\n".join(part.text for part in item.summary or item.content or () if part.text)
    sealed = item.encrypted_content
    if not sealed:
        return Thought(shown)
    return unpack(sealed, seal) or Thought(shown, FOREIGN + sealed)


def _stop(response: WireResponse, *, called: bool, refused: bool) -> Stop:
    reason = response.incomplete_details.reason if response.incomplete_details else None
    if refused or reason == "content_filter":
        return Stop.REFUSED
    if reason == "max_output_tokens":
        return Stop.MAX_TOKENS
    return Stop.TOOL_CALL if called else Stop.END


def read_result(body: bytes, *, seal: Seal = PLAIN) -> TurnResult:
    """A whole response.

    Raises:
        RemoteProtocolError: it is none.
        UpstreamError: it says that it failed.
    """
    response = decode_answer(body, WireResponse)
    if response.output is None:
        raise RemoteProtocolError("The upstream's response has no output.")
    reader = Reader(TurnRequest(model="", messages=()), Model(response.model or ""), seal=seal)
    return fold(reader.replay(response))


def _read_usage(wire: WireUsage | None) -> Usage:
    if wire is None:
        return Usage()
    details = wire.input_tokens_details or WireInputDetails()
    cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    output = wire.output_tokens_details or WireOutputDetails()
    return Usage(
        max((wire.input_tokens or 0) - cached - written, 0),
        wire.output_tokens or 0,
        cached,
        written,
        output.reasoning_tokens or 0,
    )


# Errors. Before the first byte they are chat's, word for word (section 2.5); afterwards a failed response (3.5).

_CODES: Final[Sequence[tuple[type[KirostreamError], str]]] = (
    (ContextOverflow, "context_length_exceeded"),
    (QuotaSpent, "insufficient_quota"),
    (AccountThrottled, "rate_limit_exceeded"),
    (UpstreamOverloaded, "server_is_overloaded"),
    (NoAccount, "server_is_overloaded"),
    (RequestError, "invalid_prompt"),
    (UpstreamRefused, "invalid_prompt"),
)
"""Codes of a failed response; Codex repeats what says ``server_error``, and knows the others (section 0.6)."""

_CLASSES: Final[Mapping[str, type[UpstreamError]]] = {
    "context_length_exceeded": ContextOverflow,
    "insufficient_quota": QuotaSpent,
    "rate_limit_exceeded": AccountThrottled,
    "server_is_overloaded": UpstreamOverloaded,
    "invalid_prompt": UpstreamRefused,
}


class _Said(msgspec.Struct):
    error: WireError


def error_words(error: KirostreamError) -> str:
    """The message for a client; where it makes sense to wait, with the words from which Codex takes how long."""
    message = msgspec.json.decode(chat.write_error(error, "").body, type=_Said).error.message or error.message
    if isinstance(error, AccountThrottled) and error.retry_after is not None:
        message += f" Please try again in {max(error.retry_after, 0.0):.3g}s."
    return message


def _failure_of(error: KirostreamError) -> dict[str, object]:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "server_error")
    return {"code": code, "message": error_words(error)}


def _failure(said: WireError) -> UpstreamError:
    """The error that a failed response stands for."""
    message = said.message or "The upstream broke off with an error."
    code = said.code or ""
    kind = _CLASSES.get(code, UpstreamFault)
    if issubclass(kind, UpstreamRefused) and (too_long := overflow(message, reason=code)):
        return too_long
    return kind(message, reason=code)


def write_error(error: KirostreamError, request_id: str) -> ErrorReply:
    """An error as a whole HTTP answer."""
    return chat.write_error(error, request_id)


def read_error(headers: Headers, body: bytes) -> Complaint:
    """An error body: `code` is the type, `reason` the code."""
    return chat.read_error(headers, body)
