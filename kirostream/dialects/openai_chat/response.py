"""Chat answers and errors, read and written (client-apis.md sections 2.2 to 2.5).

Chat has no brackets: a chunk says "more content", "more reasoning" or "more of call i". The writer needs no bookkeeping
beyond the number of each call; the reader puts the brackets in. Calls may interleave, and nothing says that one is
whole before the finish does, so the reader leaves every call open until then.

**The hot path** is the first branch of `Writer.write`: ``prefix + sep.join(pieces) + suffix``, one chunk a piece, the
prefix built when the block began (see `turn.events` on pieces).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects import sse
from kirostream.dialects.citations import citations
from kirostream.dialects.dialect import Complaint, ErrorReply, Headers, Heading, Template, Templates
from kirostream.dialects.hints import overflow, retry_headers
from kirostream.dialects.jsontext import decode_answer, encode, is_object
from kirostream.dialects.openai_chat.thoughts import ThoughtForm, form_of, tagged
from kirostream.dialects.openai_chat.tools import custom_names, speaks_legacy, write_call
from kirostream.dialects.openai_responses.tools import custom_input
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    AnswerTooLarge,
    BudgetSpent,
    CallerThrottled,
    ContextOverflow,
    CredentialRejected,
    KeyRejected,
    KirostreamError,
    MalformedRequest,
    MethodNotAllowed,
    ModelNotOnAccount,
    NoAccount,
    NoSuchRoute,
    NotAllowed,
    QuotaSpent,
    RemoteProtocolError,
    RequestError,
    RequestTooLarge,
    RequestTooSlow,
    ShuttingDown,
    StreamCut,
    TurnCancelled,
    UnknownModel,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
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
from kirostream.turn.request import SearchHit, SearchOutcome, Text, Thought, ToolCall, TurnRequest
from kirostream.turn.result import TurnResult
from kirostream.turn.usage import Usage

FINISH_REASONS: Final[Mapping[Stop, str]] = {
    Stop.END: "stop",
    Stop.MAX_TOKENS: "length",
    Stop.TOOL_CALL: "tool_calls",
    Stop.STOP_SEQUENCE: "stop",
    Stop.REFUSED: "content_filter",
    Stop.CONTEXT_FULL: "length",
    Stop.PAUSED: "stop",
}

STOPS: Final[Mapping[str, Stop]] = {
    "stop": Stop.END,
    "length": Stop.MAX_TOKENS,
    "tool_calls": Stop.TOOL_CALL,
    "function_call": Stop.TOOL_CALL,
    "content_filter": Stop.REFUSED,
}

NAME: Final = "openai_chat"

_DONE: Final = sse.message(b"[DONE]")
KEEP_ALIVE: Final = sse.comment(b"keep-alive")


# Writing


class Writer(Templates):
    """Writes one streamed answer (section 2.3). `choice` is its number, where it is one of several."""

    def __init__(self, request: TurnRequest, heading: Heading, choice: int = 0) -> None:
        self._choice = choice
        self._thought = b'{"%b":"' % form_of(request).value.encode()
        self._usage_wanted = request.include_usage
        self._heading = heading
        self._head = self._write_head(request.model)
        self._tail = b',"usage":null}\n\n' if request.include_usage else b"}\n\n"
        self._templates: dict[int, Template] = {}
        """Of each open block."""
        self._calls = 0
        self._custom = custom_names(request.extras) if request.spoken_in == NAME else frozenset()
        self._inputs: dict[int, tuple[int, list[bytes]]] = {}
        """Open calls of custom tools: their number, and their arguments, whose one string is known at their end."""
        self._legacy = request.spoken_in == NAME and speaks_legacy(request.extras)
        self._bare: set[int] = set()
        """Open calls whose arguments have not begun."""
        self._arguments: dict[int, list[bytes]] = {}
        """Of each call so far, to see at the end whether one broke off."""

    def __repr__(self) -> str:
        return f"<openai_chat.Writer blocks {sorted(self._templates)}, {self._calls} calls>"

    def write(self, event: TurnEvent) -> list[bytes]:
        """The chunks that say `event`; empty where chat has nothing to say."""
        if type(event) is BlockDelta:
            if self._inputs and event.index in self._inputs:
                self._inputs[event.index][1].extend(event.pieces)
                return []
            try:
                prefix, sep, suffix, _ = self._templates[event.index]
            except KeyError:
                return []  # a web search, for which chat has no word
            if self._arguments and event.index in self._arguments:
                self._arguments[event.index].extend(event.pieces)
                if self._bare and any(event.pieces):
                    self._bare.discard(event.index)
            return [prefix + sep.join(event.pieces) + suffix]
        match event:
            case TurnStarted():
                if event.stands_in:
                    self._head = self._write_head(event.model)
                return [self._chunk(b'{"role":"assistant","content":""}')]
            case BlockStarted():
                return self._start(event)
            case BlockEnded():
                return self._stop(event)
            case TurnEnded():
                return self._close(event)
            case TurnFailed():
                return [sse.message(encode(_error_body(event.error)))]
            case _:
                return []  # UsageKnown is said again by the end; Foreign is made by no reader of this dialect

    def template(self, index: int) -> Template | None:
        """See `dialect.Templates`. The arguments of a call are looked at in the end."""
        return None if index in self._arguments or index in self._inputs else self._templates.get(index)

    def was_said(self, event: BlockDelta) -> None:
        """See `dialect.Templates`. Nothing depends on it."""

    def heartbeat(self) -> bytes:
        """A comment."""
        return KEEP_ALIVE

    def _write_head(self, model: str) -> bytes:
        head = {
            "id": f"chatcmpl-{self._heading.turn}",
            "object": "chat.completion.chunk",
            "created": self._heading.created,
            "model": model,
            "system_fingerprint": None,
        }
        return b"data: " + encode(head)[:-1]

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        head = b',"choices":[{"index":%d,"delta":' % self._choice
        choice = b'%b%b,"logprobs":null,"finish_reason":%b}]' % (head, delta, finish)
        return self._head + choice + self._tail

    def _start(self, event: BlockStarted) -> list[bytes]:
        match event.kind:
            case BlockKind.TEXT:
                self._template(event.index, b'{"content":"', b'"}')
            case BlockKind.THINKING:
                self._template(event.index, self._thought, b'"}')
            case BlockKind.TOOL_CALL if self._legacy:
                self._calls += 1
                self._bare.add(event.index)
                self._arguments[event.index] = []
                self._template(event.index, b'{"function_call":{"arguments":"', b'"}}')
                return [self._chunk(encode({"function_call": {"name": event.name, "arguments": ""}}))]
            case BlockKind.TOOL_CALL if event.name in self._custom:
                self._inputs[event.index] = (self._calls, [])
                custom = {"name": event.name, "input": ""}
                call = {"index": self._calls, "id": event.call_id, "type": "custom", "custom": custom}
                self._calls += 1
                return [self._chunk(encode({"tool_calls": [call]}))]
            case BlockKind.TOOL_CALL:
                number = self._calls
                self._calls += 1
                self._bare.add(event.index)
                self._arguments[event.index] = []
                self._template(event.index, b'{"tool_calls":[{"index":%d,"function":{"arguments":"' % number, b'"}}]}')
                function = {"name": event.name, "arguments": ""}
                call = {"index": number, "id": event.call_id, "type": "function", "function": function}
                return [self._chunk(encode({"tool_calls": [call]}))]
            case BlockKind.REDACTED | BlockKind.SEARCH | BlockKind.SEARCH_RESULT:
                pass  # chat has no word for a thought that is not shown, nor for a web search
        return []

    def _template(self, index: int, before: bytes, after: bytes) -> None:
        prefix, suffix = self._chunk(before + b"\0" + after).split(b"\0")
        self._templates[index] = Template(prefix, suffix + prefix, suffix)

    def _stop(self, event: BlockEnded) -> list[bytes]:
        if event.index in self._inputs:
            number, pieces = self._inputs.pop(event.index)
            said = custom_input(unescape(pieces).encode("utf-8", "replace") or b"{}")
            return [self._chunk(encode({"tool_calls": [{"index": number, "custom": {"input": said}}]}))]
        prefix, _, suffix, _ = self._templates.pop(event.index, Template(b"", b"", b""))
        if event.index not in self._bare:
            return []
        self._bare.discard(event.index)
        return [prefix + b"{}" + suffix]  # fragments joined have to be JSON, also those of a call without arguments

    def _close(self, event: TurnEnded) -> list[bytes]:
        return [self.finish(event), *self.end(event.usage)]

    def finish(self, event: TurnEnded) -> bytes:
        """The last chunk of the answer."""
        called = self._calls > 0 and not (event.stop is Stop.MAX_TOKENS and self._broke_off())
        reason = _finish_reason(event.stop, called_tools=called, legacy=self._legacy)
        return self._chunk(b"{}", b'"%b"' % reason.encode())

    def _broke_off(self) -> bool:
        """Whether the arguments of a call are half: a client must not be told to run it (kiro-protocol.md 3.3)."""
        said = (unescape(pieces).encode("utf-8", "replace") or b"{}" for pieces in self._arguments.values())
        return not all(map(is_object, said))

    def end(self, usage: Usage) -> list[bytes]:
        """What stands behind all answers."""
        if not self._usage_wanted:
            return [_DONE]
        return [self._head + b',"choices":[],"usage":%b}\n\n' % encode(_usage(usage)), _DONE]


def write_result(request: TurnRequest, result: TurnResult, heading: Heading) -> bytes:
    """A whole completion (section 2.2)."""
    return write_results(request, (result,), heading)


def write_results(request: TurnRequest, results: Sequence[TurnResult], heading: Heading) -> bytes:
    """A whole completion of one choice a result. The prompt counts once, what was said counts together."""
    return encode(
        {
            "id": f"chatcmpl-{heading.turn}",
            "object": "chat.completion",
            "created": heading.created,
            "model": results[0].model_for(request.model) if results else request.model,
            "choices": [_choice(request, index, result) for index, result in enumerate(results)],
            "usage": _usage(together([result.usage for result in results])),
            "system_fingerprint": None,
            "service_tier": "default",
        }
    )


def together(usages: Sequence[Usage]) -> Usage:
    """The cost of several answers to one question."""
    return functools.reduce(Usage.beside, usages)


def _choice(request: TurnRequest, index: int, result: TurnResult) -> dict[str, object]:
    form = form_of(request)
    if form is ThoughtForm.THINK:
        result = tagged(result)
    texts = [block.text for block in result.content if isinstance(block, Text)]
    thoughts = [block.text for block in result.content if isinstance(block, Thought) and block.text]
    ours = request.spoken_in == NAME
    legacy = ours and speaks_legacy(request.extras)
    custom = custom_names(request.extras) if ours else frozenset()
    calls = [write_call(block, custom) for block in result.content if isinstance(block, ToolCall)]
    hits = [hit for block in result.content if isinstance(block, SearchOutcome) for hit in block.hits or ()]
    message: dict[str, object] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not calls else None,
        "refusal": None,
        "annotations": url_annotations("".join(texts), hits),
    }
    if thoughts:
        message[form.value] = "".join(thoughts)
    if calls and legacy:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(result.stop, called_tools=bool(calls), legacy=legacy),
    }


def url_annotations(text: str, hits: Sequence[SearchHit], at: int = 0) -> list[dict[str, object]]:
    """``annotations`` of a message: which of `hits` its `text`, which begins at `at`, names."""
    cited = [citation._replace(start=citation.start + at, end=citation.end + at) for citation in citations(text, hits)]
    return [{"type": "url_citation", "url_citation": citation.wire()} for citation in cited]


def _finish_reason(stop: Stop, *, called_tools: bool, legacy: bool) -> str:
    """``tool_calls`` wherever there are any, whatever the upstream said (section 2.3)."""
    if called_tools:
        return "function_call" if legacy else "tool_calls"
    return FINISH_REASONS[Stop.END if stop is Stop.TOOL_CALL else stop]


def _usage(usage: Usage) -> dict[str, object]:
    """Counts; ``prompt_tokens`` includes what came from and went into the cache (section 2.4)."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
    }


# Reading. What an upstream may leave out, or send as null, is optional here.


class WirePromptDetails(msgspec.Struct):
    """``usage.prompt_tokens_details``."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class WireCompletionDetails(msgspec.Struct):
    """``usage.completion_tokens_details``."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: WirePromptDetails | None = None
    completion_tokens_details: WireCompletionDetails | None = None


class WireFunction(msgspec.Struct):
    """The ``function`` of a call, or a part of it."""

    name: str | None = None
    arguments: str | None = None


class WireCall(msgspec.Struct):
    """One of ``tool_calls``, or a part of it."""

    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(msgspec.Struct):
    """A ``message``, or the ``delta`` of one. Servers call thoughts `reasoning_content` or `reasoning`."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[WireCall] | None = None


class WireChoice(msgspec.Struct):
    """One of ``choices``; only the first is read."""

    index: int = 0
    delta: WireMessage | None = None
    message: WireMessage | None = None
    finish_reason: str | None = None


class WireAnswer(msgspec.Struct):
    """A chunk or a whole completion."""

    model: str | None = None
    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    error: Raw = Raw()


class WireError(msgspec.Struct):
    """``error``. `code` is a string, a number or null, depending on the server."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class Reader:
    """Reads one streamed answer and puts the brackets in."""

    def __init__(self, request: TurnRequest, model: Model) -> None:
        self._model = model.id
        self._events = sse.EventReader()
        self._started = False
        self._over = False
        self._usage = Usage()
        self._stop: Stop | None = None
        self._refused = False
        self._count = 0
        self._kind: BlockKind | None = None
        """The open text or thinking block's kind; its index is `_index`."""
        self._index = -1
        self._calls: dict[int, int] = {}
        """Open calls: the wire's index to the block's."""

    def __repr__(self) -> str:
        return f"<openai_chat.Reader {self._count} blocks, {len(self._calls)} calls{', over' if self._over else ''}>"

    def feed(self, data: bytes) -> list[TurnEvent]:
        """Take the next bytes, in any cut. What follows the end of the turn is ignored.

        Raises:
            RemoteProtocolError: the bytes are not a chat stream.
        """
        said: list[TurnEvent] = []
        for event in self._events.feed(data):
            if self._over:
                break
            if event.data.startswith(b"[DONE]"):
                said.extend(self._end(self._stop or Stop.END))
            else:
                said.extend(self._take(decode_answer(event.data, WireAnswer)))
        return said

    def close(self) -> list[TurnEvent]:
        """The upstream has closed the stream. After a finish reason the turn is whole; some servers never say [DONE].

        Raises:
            StreamCut: it was not.
        """
        if self._over:
            return []
        if self._stop is None:
            raise StreamCut("The upstream closed the stream before the answer was whole.")
        return self._end(self._stop)

    def _take(self, chunk: WireAnswer) -> list[TurnEvent]:
        if chunk.error and bytes(chunk.error) not in (b"null", b"{}", b'""'):
            self._over = True
            return [TurnFailed(_failure(chunk.error))]
        said: list[TurnEvent] = []
        if chunk.usage is not None:
            self._usage = _read_usage(chunk.usage)
        if not self._started:
            self._started = True
            said.append(TurnStarted(chunk.model or self._model, self._usage))
        for choice in (chunk.choices or ())[:1]:
            if choice.delta is not None:
                said.extend(self._more(choice.delta))
            if choice.finish_reason:
                self._stop = STOPS.get(choice.finish_reason, Stop.END)
                said.extend(self._shut())
        return said

    def _more(self, delta: WireMessage) -> list[TurnEvent]:
        said: list[TurnEvent] = []
        if thought := delta.reasoning_content or delta.reasoning:
            said.extend(self._say(BlockKind.THINKING, thought))
        if delta.content:
            said.extend(self._say(BlockKind.TEXT, delta.content))
        if delta.refusal:
            self._refused = True
            said.extend(self._say(BlockKind.TEXT, delta.refusal))
        for position, call in enumerate(delta.tool_calls or ()):
            said.extend(self._call(call, position))
        return said

    def _say(self, kind: BlockKind, text: str) -> list[TurnEvent]:
        said: list[TurnEvent] = []
        if self._kind is not kind:
            said.extend(self._shut_text())
            self._kind = kind
            self._index = self._next()
            said.append(BlockStarted(self._index, kind))
        said.append(BlockDelta(self._index, (escape(text),)))
        return said

    def _call(self, call: WireCall, position: int) -> list[TurnEvent]:
        said: list[TurnEvent] = []
        number = position if call.index is None else call.index
        function = call.function or WireFunction()
        if number not in self._calls:
            if not function.name:
                raise RemoteProtocolError(f"The upstream sent a part of tool call {number}, which has no name yet.")
            said.extend(self._shut_text())
            index = self._calls[number] = self._next()
            said.append(BlockStarted(index, BlockKind.TOOL_CALL, call.id or f"call_{number}", function.name))
        if function.arguments:
            said.append(BlockDelta(self._calls[number], (escape(function.arguments),)))
        return said

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _shut_text(self) -> list[TurnEvent]:
        if self._kind is None:
            return []
        self._kind = None
        return [BlockEnded(self._index)]

    def _shut(self) -> list[TurnEvent]:
        said = [*self._shut_text(), *(BlockEnded(index) for index in self._calls.values())]
        self._calls.clear()
        return said

    def _end(self, stop: Stop) -> list[TurnEvent]:
        if not self._started:
            raise RemoteProtocolError("The upstream said [DONE] without having said anything.")
        self._over = True
        return [*self._shut(), TurnEnded(Stop.REFUSED if self._refused else stop, self._usage)]


def read_result(body: bytes) -> TurnResult:
    """A whole completion; of several choices, the first.

    Raises:
        RemoteProtocolError: it is none.
    """
    answer = decode_answer(body, WireAnswer)
    if not answer.choices or answer.choices[0].message is None:
        raise RemoteProtocolError("The upstream's completion has no choice with a message.")
    choice = answer.choices[0]
    message = choice.message or WireMessage()
    content: list[Text | Thought | ToolCall] = []
    if thought := message.reasoning_content or message.reasoning:
        content.append(Thought(thought))
    if message.content:
        content.append(Text(message.content))
    if message.refusal:
        content.append(Text(message.refusal))
    for position, call in enumerate(message.tool_calls or ()):
        function = call.function or WireFunction()
        arguments = (function.arguments or "{}").encode()
        content.append(ToolCall(call.id or f"call_{position}", function.name or "", arguments))
    stop = STOPS.get(choice.finish_reason or "", Stop.END)
    return TurnResult(
        tuple(content),
        Stop.REFUSED if message.refusal else stop,
        Usage() if answer.usage is None else _read_usage(answer.usage),
        answer.model or "",
    )


def _read_usage(wire: WireUsage) -> Usage:
    prompt = wire.prompt_tokens_details or WirePromptDetails()
    cached, written = prompt.cached_tokens or 0, prompt.cache_write_tokens or 0
    completion = wire.completion_tokens_details or WireCompletionDetails()
    return Usage(
        max((wire.prompt_tokens or 0) - cached - written, 0),
        wire.completion_tokens or 0,
        cached,
        written,
        completion.reasoning_tokens or 0,
    )


# Errors (section 2.5)

_WORDS: Final[Mapping[type[KirostreamError], tuple[str, str | None]]] = {
    KeyRejected: ("invalid_request_error", "invalid_api_key"),
    NotAllowed: ("permission_error", None),
    NoSuchRoute: ("invalid_request_error", "unknown_url"),
    UnknownModel: ("invalid_request_error", "model_not_found"),
    MethodNotAllowed: ("invalid_request_error", "method_not_allowed"),
    RequestTooSlow: ("invalid_request_error", "request_timeout"),
    RequestTooLarge: ("invalid_request_error", "request_too_large"),
    CallerThrottled: ("rate_limit_error", "rate_limit_exceeded"),
    BudgetSpent: ("rate_limit_error", "insufficient_quota"),
    RequestError: ("invalid_request_error", None),
    UpstreamOverloaded: ("server_error", "server_is_overloaded"),
    UpstreamTimeout: ("server_error", "timeout"),
    AccountThrottled: ("rate_limit_error", "rate_limit_exceeded"),
    QuotaSpent: ("rate_limit_error", "insufficient_quota"),
    CredentialRejected: ("authentication_error", None),
    AccountSuspended: ("permission_error", None),
    AccessDenied: ("permission_error", None),
    ModelNotOnAccount: ("invalid_request_error", "model_not_found"),
    ContextOverflow: ("invalid_request_error", "context_length_exceeded"),
    UpstreamRefused: ("invalid_request_error", None),
    UpstreamError: ("server_error", "upstream_error"),
    RemoteProtocolError: ("server_error", "upstream_error"),
    NoAccount: ("server_error", "server_is_overloaded"),
    ShuttingDown: ("server_error", "server_is_overloaded"),
    TurnCancelled: ("invalid_request_error", "turn_cancelled"),
    AnswerTooLarge: ("server_error", "answer_too_large"),
    KirostreamError: ("server_error", "internal_error"),
}
"""Type and code of each class; a class that is not here is worded as its base is. No code: the error's own reason."""

_CLASSES: Final[Mapping[str, type[UpstreamError]]] = {
    "context_length_exceeded": ContextOverflow,
    "rate_limit_exceeded": AccountThrottled,
    "rate_limit_error": AccountThrottled,
    "insufficient_quota": QuotaSpent,
    "server_is_overloaded": UpstreamOverloaded,
    "overloaded_error": UpstreamOverloaded,
    "timeout": UpstreamTimeout,
    "model_not_found": ModelNotOnAccount,
    "invalid_api_key": CredentialRejected,
    "authentication_error": CredentialRejected,
    "permission_error": AccessDenied,
    "invalid_request_error": UpstreamRefused,
}
"""A code or a type to a class; a code that is known here wins over the type."""


def write_error(error: KirostreamError, request_id: str) -> ErrorReply:
    """An error as a whole HTTP answer, with ``x-request-id`` and the headers that govern repeats."""
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    return ErrorReply(error.status, [*headers, *retry_headers(error)], encode(_error_body(error)))


def _error_body(error: KirostreamError) -> dict[str, object]:
    kind, code = next(_WORDS[base] for base in type(error).__mro__ if base in _WORDS)
    param = error.param.removeprefix("$.") or None if isinstance(error, MalformedRequest) else None
    return {"error": {"message": _message(error), "type": kind, "param": param, "code": code or error.reason or None}}


def _message(error: KirostreamError) -> str:
    """The words by which LiteLLM and Claude Code know two errors (client-surprises.md, 11)."""
    if isinstance(error, KeyRejected):
        return f"Incorrect API key provided. {error.message}"
    if isinstance(error, ContextOverflow):
        if error.tokens and error.limit:
            return (
                f"This model's maximum context length is {error.limit} tokens. "
                f"prompt is too long: {error.tokens} tokens > {error.limit} maximum"
            )
        return "Input is too long. The prompt is too long for this model's context window; shorten the conversation."
    return error.message


def read_error(headers: Headers, body: bytes) -> Complaint:
    """An error body: `code` is the type, `reason` the code. What is no such body is all message."""
    try:
        error = decode_answer(body, WireAnswer).error
    except RemoteProtocolError:
        error = Raw()
    if not error:
        return Complaint(message=body[:500].decode("utf-8", "replace").strip())
    return _complaint(error)


def _complaint(error: Raw) -> Complaint:
    """What an ``error`` member says; some servers put a bare string there."""
    try:
        wire = decode_answer(bytes(error), WireError)
    except RemoteProtocolError:
        return Complaint(message=bytes(error).decode("utf-8", "replace").strip('"'))
    return Complaint(wire.type or "", "" if wire.code is None else str(wire.code), wire.message or "")


def _failure(error: Raw) -> UpstreamError:
    """The error that an ``error`` chunk in a stream stands for."""
    said = _complaint(error)
    message = said.message or "The upstream broke off with an error."
    kind = _CLASSES.get(said.reason) or _CLASSES.get(said.code, UpstreamFault)
    if issubclass(kind, UpstreamRefused) and (too_long := overflow(message, reason=said.reason)):
        return too_long
    return kind(message, reason=said.reason or said.code)
