"""Responses answers, read (client-apis.md sections 3.4, 3.5)."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from kirostream.dialects import sse
from kirostream.dialects.jsontext import decode_answer, encode
from kirostream.dialects.openai_responses.errors import failure
from kirostream.dialects.openai_responses.thoughts import FOREIGN, PLAIN, Seal, unpack
from kirostream.dialects.openai_responses.tools import ITEM_TYPES, Kind, custom_arguments, flat
from kirostream.dialects.openai_responses.websearch import CALL, read_call
from kirostream.dialects.openai_responses.wire import (
    WireError,
    WireEvent,
    WireInputDetails,
    WireItem,
    WireOutputDetails,
    WireResponse,
    WireUsage,
)
from kirostream.errors import RemoteProtocolError, StreamCut
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
from kirostream.turn.model import Model
from kirostream.turn.request import RawJson, Thought, TurnRequest
from kirostream.turn.result import TurnResult, fold, found, searching
from kirostream.turn.usage import Usage


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
            return [TurnFailed(failure(event.error or WireError(event.code, event.message)))]
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
        if item.type == CALL:
            return self._search_done(item)
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

    def _search_done(self, item: WireItem) -> list[TurnEvent]:
        search = read_call(Raw(encode({"id": item.id, "status": item.status, "action": item.action or None})), "item")
        if search is None:
            return []
        call, outcome = search
        return [*searching(self._next(), call), *found(self._next(), outcome)]

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
            return [TurnFailed(failure(response.error or WireError()))]
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
