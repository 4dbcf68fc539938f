"""Responses answers, streamed and whole (client-apis.md sections 3.4, 3.5).

Every block of a turn is one item of the answer's ``output``: a text a message with one part, a thought a reasoning item
with one summary part, a call the item of its tool's kind (`tools`), a web search and its outcome one item together.
Items may overlap; ``output_index`` tells them apart. A model's refusal is a message of its own at the end, and the
answer is complete: an answer that says ``content_filter`` is asked for again by its client, five times.

A call whose arguments broke off has begun and is never done: clients run what is done, whatever its status, and half a
patch would be applied. It is not in the ``output`` either, and the answer is incomplete.

The same writer says streamed and whole answers: the whole one is the ``response`` of the last event. So what a client
builds from the stream and what it reads at the end are equal.

**The hot path** is the first branch of `Writer.write`, and where a track carries the pieces, not even that. Every event
has its own ``sequence_number``, and every piece is an event, so the numbers do not depend on what came in one read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects import sse
from kirostream.dialects.citations import citations
from kirostream.dialects.dialect import Heading, Template, Templates
from kirostream.dialects.jsontext import decode_answer, encode, is_object
from kirostream.dialects.openai_responses.errors import write_failure
from kirostream.dialects.openai_responses.frame import (
    INCOMPLETE,
    ResponseFrame,
    item_id,
    message_item,
    reasoning_item,
    text_part,
    write_usage,
)
from kirostream.dialects.openai_responses.thoughts import PLAIN, Seal, pack
from kirostream.dialects.openai_responses.tools import ITEM_PREFIXES, Kind, Offer, Origin, call_item, offered
from kirostream.dialects.openai_responses.unwrapper import Unwrapper
from kirostream.dialects.openai_responses.websearch import SOURCES, WireAction, annotation, search_item, sources_of
from kirostream.errors import KirostreamError
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
    unescape,
)
from kirostream.turn.request import RawJson, SearchHit, SearchOutcome, Thought, TurnRequest
from kirostream.turn.result import TurnResult, unfold

REFUSAL: Final = "The model declined to answer."
"""What is said for a model that stopped without saying so itself."""

ENCRYPTED: Final = "reasoning.encrypted_content"
"""The member of ``include`` that asks for thoughts to take along."""

_KEEP_ALIVE: Final = sse.comment(b"keep-alive")


class _Item:
    """One item that is being said. `delta` is the template of what it says, None where that is held back, and `form` is
    made of it."""

    __slots__ = (
        *("added", "call_id", "delta", "form", "id", "index", "kind", "origin", "pieces", "query", "redacted"),
        "unwrapper",
    )

    def __init__(self, index: int, kind: BlockKind, prefix: str, turn: str) -> None:
        self.index = index
        self.kind = kind
        self.id = item_id(prefix, turn, index)
        self.delta: Template | None = None
        self.form = b""
        self.pieces: list[bytes] = []
        self.call_id = ""
        self.redacted = ""
        self.query = ""
        self.origin = Origin(Kind.FUNCTION, "")
        self.unwrapper: Unwrapper | None = None

    def make_form(self) -> bytes:
        """`form`, where it is first needed: a track needs none."""
        assert self.delta is not None
        self.form = self.delta.form
        return self.form

    @property
    def place(self) -> bytes:
        """The members that say where an event belongs."""
        return b'"item_id":"%b","output_index":%d' % (self.id.encode(), self.index)

    @property
    def text(self) -> bytes:
        """All that was said, the inside of a JSON string."""
        return b"".join(self.pieces)

    @property
    def broke_off(self) -> bool:
        """Whether the arguments of a call are half (kiro-protocol.md section 3.3)."""
        if self.unwrapper is not None and self.unwrapper.lifts:
            return not self.unwrapper.over
        arguments = unescape(self.pieces).strip()
        if not arguments or (self.unwrapper is not None and not arguments.startswith("{")):
            return False  # a custom tool may be called in plain text
        return not is_object(arguments.encode("utf-8", "replace"))


class Writer(Templates):
    """Writes one streamed answer (section 3.5), one event a block.

    Args:
        keeps: the answer is kept for later requests that refer to it, so its thoughts are sealed for `items` even where
            the client does not take them along.
        clock: unix seconds, for ``completed_at``; None leaves that null.
    """

    def __init__(
        self,
        request: TurnRequest,
        heading: Heading,
        *,
        seal: Seal = PLAIN,
        keeps: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._request = request
        self._turn = heading.turn
        self._seal = seal
        self._seals = _included(request.extras, ENCRYPTED)
        self._frame = ResponseFrame(request, heading)
        self._number = 0
        self._begun = False
        self._count = 0
        self._open: dict[int, _Item] = {}
        self._done: dict[int, bytes] = {}
        self._broke_off = False
        """Whether a call did: it has begun, and is not among what is done."""
        self._keeps = keeps
        self._kept: dict[int, bytes] = {}
        self._searches: dict[str, _Item] = {}
        """Searches that are being run, by the id of the call."""
        self._hits: list[SearchHit] = []
        """What they found so far: pages that a text may name."""
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
            if item.delta is None:
                return self._unwrap(item, pieces)
            form = item.form or item.make_form()
            number = self._number
            if len(pieces) == 1:
                self._number = number + 1
                return [form % (number, pieces[0])]
            self._number = number + len(pieces)
            return [form % numbered for numbered in enumerate(pieces, number)]
        match event:
            case TurnStarted():
                if event.stands_in:
                    self._frame.stand_in(event.model)
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

    def template(self, index: int) -> Template | None:
        """See `dialect.Templates`."""
        item = self._open.get(index)
        return None if item is None or item.delta is None else item.delta._replace(number=self._number)

    def was_said(self, event: BlockDelta) -> None:
        """See `dialect.Templates`."""
        self._open[event.index].pieces += event.pieces
        self._number += len(event.pieces)

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

    def _template(self, name: bytes, members: bytes, after: bytes = b"") -> Template:
        before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        return Template(before, b',%b,"delta":"' % members, b'"%b}\n\n' % after)

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
        if event.kind is BlockKind.SEARCH_RESULT:
            return self._found(event)
        index = self._count
        self._count += 1
        match event.kind:
            case BlockKind.TEXT:
                item = _Item(index, event.kind, "msg", self._turn)
                place = item.place + b',"content_index":0'
                item.delta = self._template(b"response.output_text.delta", place, b',"logprobs":[]')
                blocks = [
                    self._added(item, message_item(item.id, b"", b"in_progress")),
                    self._event(b"response.content_part.added", place + b',"part":' + text_part(b"")),
                ]
            case BlockKind.THINKING:
                item = _Item(index, event.kind, "rs", self._turn)
                place = item.place + b',"summary_index":0'
                item.delta = self._template(b"response.reasoning_summary_text.delta", place)
                part = b',"part":{"type":"summary_text","text":""}'
                blocks = [
                    self._added(item, reasoning_item(item.id, b"", "")),
                    self._event(b"response.reasoning_summary_part.added", place + part),
                ]
            case BlockKind.REDACTED:
                item = _Item(index, event.kind, "rs", self._turn)
                item.redacted = event.data
                blocks = [self._added(item, self._thought(item, Thought("", "", event.data)))]
            case BlockKind.TOOL_CALL:
                item, block = self._start_call(index, event)
                blocks = [block]
            case BlockKind.SEARCH:
                item = self._searches[event.call_id] = _Item(index, event.kind, "ws", self._turn)
                blocks = []  # begun when its query is known
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
            item.unwrapper = Unwrapper()
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
        if event.index not in self._open:
            return []  # what a search found was said when it came
        item = self._open.pop(event.index)
        if item.kind is BlockKind.SEARCH:
            return self._searching(item)
        if item.kind is BlockKind.TOOL_CALL and item.broke_off:
            self._broke_off = True
            return []
        match item.kind:
            case BlockKind.TEXT:
                place = item.place + b',"content_index":0'
                done = b'%b,"text":"%b","logprobs":[]' % (place, item.text)
                cited = self._cited(item)
                part = text_part(item.text, b",".join(cited))
                blocks = [
                    *self._annotations(place, cited),
                    self._event(b"response.output_text.done", done),
                    self._event(b"response.content_part.done", place + b',"part":' + part),
                ]
                whole = message_item(item.id, item.text, b"completed", b",".join(cited))
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
            case _:
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

    # Web search

    def _searching(self, item: _Item) -> list[bytes]:
        """A search whose query is known begins to run."""
        item.query = _query(item)
        return [
            self._added(item, search_item(item.id, item.query, "in_progress")),
            self._event(b"response.web_search_call.in_progress", item.place),
            self._event(b"response.web_search_call.searching", item.place),
        ]

    def _found(self, event: BlockStarted) -> list[bytes]:
        """What a search found completes its item. Nothing of it is said without the item."""
        outcome = event.outcome
        item = self._searches.pop(event.call_id, None)
        if outcome is None or item is None:
            return []
        self._hits += outcome.hits or ()
        done = [] if outcome.error else [self._event(b"response.web_search_call.completed", item.place)]
        return [*done, *self._searched(item, "failed" if outcome.error else "completed", outcome)]

    def _searched(self, item: _Item, status: str, outcome: SearchOutcome) -> list[bytes]:
        whole = search_item(
            item.id, item.query, status, sources_of(outcome, whole=False) if self._shows_sources else None
        )
        self._done[item.index] = whole
        if self._keeps:
            self._kept[item.index] = search_item(item.id, item.query, status, sources_of(outcome, whole=True))
        return [self._event(b"response.output_item.done", b'"output_index":%d,"item":%b' % (item.index, whole))]

    def _unfinished(self) -> list[bytes]:
        """The turn is over while searches were run."""
        searches = [item for item in self._searches.values() if item.query]
        self._searches.clear()
        gone = SearchOutcome("", None)
        return [block for item in searches for block in self._searched(item, "incomplete", gone)]

    @functools.cached_property
    def _shows_sources(self) -> bool:
        return _included(self._request.extras, SOURCES)

    def _cited(self, item: _Item) -> list[bytes]:
        if not self._hits:
            return []
        return [annotation(cited) for cited in citations(unescape(item.pieces), self._hits)]

    def _annotations(self, place: bytes, cited: Sequence[bytes]) -> list[bytes]:
        name = b"response.output_text.annotation.added"
        return [
            self._event(name, b'%b,"annotation_index":%d,"annotation":%b' % (place, number, each))
            for number, each in enumerate(cited)
        ]

    def _delta(self, item: _Item, said: bytes) -> list[bytes]:
        """One delta of an item that streams."""
        assert item.delta is not None
        words = item.delta._replace(number=self._number)
        item.pieces.append(said)
        self._number += 1
        return words.say([said])

    def _thought(self, item: _Item, thought: Thought) -> bytes:
        if not (self._seals or self._keeps):
            return reasoning_item(item.id, item.text, "")
        whole = reasoning_item(item.id, item.text, pack(thought, self._seal))
        if self._seals:
            return whole
        self._kept[item.index] = whole
        return reasoning_item(item.id, item.text, "")

    def _close(self, event: TurnEnded) -> list[bytes]:
        blocks = self._unfinished()
        blocks += self._refuse() if event.stop is Stop.REFUSED else []
        reason = INCOMPLETE.get(event.stop) or ("max_output_tokens" if self._broke_off else None)
        status = b"incomplete" if reason else b"completed"
        self.response = self._frame.response(
            status,
            output=self._output(),
            usage=encode(write_usage(event.usage)),
            incomplete=encode({"reason": reason}) if reason else b"null",
            completed_at=encode(None if reason or self._clock is None else int(self._clock())),
        )
        return [*blocks, self._event(b"response." + status, b'"response":' + self.response)]

    def _refuse(self) -> list[bytes]:
        item = _Item(self._count, BlockKind.TEXT, "msg", self._turn)
        self._count += 1
        place = item.place + b',"content_index":0'
        begun = message_item(item.id, b"", b"in_progress")
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
        self.response = self._frame.response(b"failed", output=self._output(), error=encode(write_failure(error)))
        return [*blocks, self._event(b"response.failed", b'"response":' + self.response)]

    def _output(self) -> bytes:
        return b",".join(self._done[index] for index in sorted(self._done))


def _query(item: _Item) -> str:
    return str(decode_answer(unescape(item.pieces).encode("utf-8", "replace"), WireAction).query or "")


def _included(extras: Mapping[str, RawJson], name: str) -> bool:
    try:
        return name in msgspec.json.decode(extras.get("include", b"null"), type=list[str])
    except msgspec.DecodeError:
        return False


def write_status(request: TurnRequest, heading: Heading, status: str) -> bytes:
    """A response that has no output yet, or never will: ``queued``, ``in_progress``, ``cancelled``."""
    return ResponseFrame(request, heading).response(status.encode())


def write_result(request: TurnRequest, result: TurnResult, heading: Heading, *, seal: Seal = PLAIN) -> bytes:
    """A whole response (section 3.4)."""
    writer = Writer(request, heading, seal=seal)
    for event in unfold(result):
        writer.write(event)
    return writer.response
