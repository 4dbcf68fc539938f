"""Event-stream frames as answers, read and written (kiro-protocol.md sections 3 and 4.1).

How an answer is read
---------------------
Kiro sends bare pieces: "more text", "a piece of the arguments of call X". The codec hands them over in two forms, and
the reader has one path for each:

- The first frame of a kind comes as a `Frame`. It is parsed in full, and says what its kind means: which block is open
  from now on.
- A *run* of frames that differ from it in nothing but one string comes as a list of raw pieces. It means "more of the
  same" and goes into one `BlockDelta` as it is. No JSON is parsed for it, and nothing is decoded.

So the state is small: which block is open (`TurnBuilder` brackets it), which call, and half a character. That half is
the first surrogate of a pair whose second comes in the next frame, as ``\\ud83d`` and ``\\ude00``: it is held until the
next piece of the same block. A half that finds no partner becomes U+FFFD.

Three things end a turn: the end of the stream on a frame border (there is no final event), an exception frame, and a
fault. Whatever is not provably whole is not passed off as whole (section 3.3, 3.5): a call whose arguments are no JSON
object ends the turn as MAX_TOKENS, a stream that ends inside a call is a `StreamCut`, and so is one that said nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from kirostream.dataclass import replace
from kirostream.dialects.dialect import Complaint, ErrorReply, Headers, Heading, RunReader
from kirostream.dialects.kiro.errors import BY_REASON, classify
from kirostream.dialects.kiro.names import ToolNames
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    FrameError,
    KeyRejected,
    KirostreamError,
    MethodNotAllowed,
    ModelNotOnAccount,
    NoSuchRoute,
    NotAllowed,
    QuotaSpent,
    RemoteProtocolError,
    RequestError,
    StreamCut,
    UnknownModel,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)
from kirostream.evstream import Frame, FrameDecoder, HeaderValue, encode_frame
from kirostream.turn.builder import TurnBuilder
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
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.tokens import BYTES_PER_TOKEN, estimate
from kirostream.turn.usage import Usage, prompt_of_share

LIFT: Final = ("content", "input", "text")
"""Members whose raw strings the codec lifts: text, a call's arguments, a thought."""

CONTENT_TYPE: Final = b"application/vnd.amazon.eventstream"

STOPS: Final[Mapping[str, Stop]] = {
    "END_TURN": Stop.END,
    "TOOL_USE": Stop.TOOL_CALL,
    "MAX_TOKENS": Stop.MAX_TOKENS,
    "STOP_SEQUENCE": Stop.STOP_SEQUENCE,
    "CONTENT_FILTERED": Stop.REFUSED,
    "MODEL_CONTEXT_WINDOW_EXCEEDED": Stop.CONTEXT_FULL,
    "PAUSE_TURN": Stop.PAUSED,
}
"""``metadataEvent.stopReason`` (section 3.5); an unknown word counts as absent."""

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()

Json: TypeAlias = dict[str, Any]
More: TypeAlias = "Callable[[Reader, Sequence[bytes]], list[TurnEvent]]"
"""What takes more pieces of the open block: a function of the class, for a reader that held a method of its own would
hold itself, and its request, until the next collection of cycles."""


_NO_CALLS: Final[frozenset[str]] = frozenset()


class Reader(RunReader):
    """Reads one answer. See the module's docstring, and `dialect.Reader`."""

    def __init__(self, request: TurnRequest, model: Model) -> None:
        self._request = request
        self._model = model
        self._names: ToolNames | None = None  # of the request's tools, once one is called
        self._decoder = FrameDecoder(lift=LIFT)
        self.run_of = self._decoder.run_of
        self.runs = self._decoder.runs
        self._turn = TurnBuilder()
        self._more: More = _ignore  # what a run of pieces means now
        self._half = ""  # a high surrogate that waits for its other half
        self._half_of: More = _ignore  # where it belongs
        self._call = ""  # the id of the open call, empty between calls
        self._arguments: list[bytes] = []  # of the open call
        self._calls = _NO_CALLS  # the ids of all calls so far
        self._broken = False  # a call came whose arguments are no object
        self._said = False  # something of the turn itself came
        # What is known of the end and the cost, by source; see `_why` and `_usage`.
        self._stop: Stop | None = None
        self._input = 0
        self._output_bytes = 0
        self._thought_bytes = 0
        self._credits: float | None = None
        self._percentage: float | None = None
        self._said_by_then = 0  # bytes of output when the percentage came
        self._counted: Usage | None = None
        self._cost: tuple[object, Usage] | None = None  # what was said last, and of what it was made

    def __repr__(self) -> str:
        return f"<Reader of {self._model.id}: {self._turn!r}>"

    def feed(self, data: bytes) -> list[TurnEvent]:
        """See `dialect.Reader.feed`. A well-formed frame without sense fails the turn, behind what came before it."""
        events: list[TurnEvent] = []
        for item in self._decoder.feed_runs(data):
            if self._turn.over:
                break
            if isinstance(item, list):  # behind a frame that was lifted, so no half waits here
                events += self._more(self, item)
                continue
            try:
                events += self._frame(item)
            except RemoteProtocolError as error:
                events += self._turn.fail(error)
        return events

    @property
    def running(self) -> int | None:
        """See `dialect.RunReader.running`."""
        turn = self._turn
        match turn.open_kind:
            case BlockKind.TEXT:
                plain = Reader._more_text
            case BlockKind.THINKING:
                plain = Reader._more_thought
            case BlockKind.TOOL_CALL:
                plain = Reader._more_arguments
            case _:
                return None
        return turn.index if self._more is plain and not self._half and not turn.over else None

    def hear(self, pieces: Sequence[bytes]) -> None:
        """See `dialect.RunReader.hear`."""
        size = sum(map(len, pieces))
        self._output_bytes += size
        if self._call:
            self._arguments += pieces
        elif self._turn.open_kind is BlockKind.THINKING:
            self._thought_bytes += size

    def close(self) -> list[TurnEvent]:
        """See `dialect.Reader.close`."""
        if self._turn.over:
            return []
        try:
            self._decoder.close()
        except FrameError as fault:
            if fault.fault != "truncated":
                raise
            raise StreamCut("The answer broke off inside a message.", reason="frame") from fault
        if self._call:
            raise StreamCut("The answer broke off inside a tool call.", reason="tool_call")
        if not self._said:
            raise StreamCut("The upstream closed the stream without an answer.", reason="empty")
        return [*self._start(), *self._finish()]

    # Frames

    def _frame(self, frame: Frame) -> list[TurnEvent]:
        self._more = _ignore  # until what the frame says is known
        if frame.message_type in ("exception", "error") or frame.exception_type:
            return self._fail(_exception(frame))
        handler = self._handlers.get(frame.event_type)
        if handler is None:
            return []
        said = _load(frame)
        wrapped = said.get(frame.event_type)
        return handler(self, wrapped if isinstance(wrapped, dict) else said, frame.lifted)

    def _text(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        if "toolUseId" in said:  # an old form has the pieces of calls here (section 3.3)
            return self._tool(said, lifted)
        events = self._start(_string(said, "modelId"))
        if lifted is None or self._half or "content" not in said:
            return [*events, *self._say(Reader._more_text, said.get("content"), lifted)]
        self._more = Reader._more_text
        events += self._more_text((lifted,))
        return events

    def _thought(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        events = [*self._start(), *self._say(Reader._more_thought, said.get("text"), lifted)]
        if signature := _string(said, "signature"):
            events += self._sign(signature)
            self._more = partial(Reader._more_signed, signature=signature)
        if redacted := _string(said, "redactedContent"):
            events += [*self._settle(), *self._turn.redacted(redacted)]
        return events

    def _tool(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        call_id = _string(said, "toolUseId") or self._call or f"tooluse_{len(self._calls)}"
        events = self._start()
        if call_id != self._call:
            if call_id in self._calls:  # said again, after its end
                return events
            name = _string(said, "name")
            if not name:
                raise RemoteProtocolError("The upstream calls a tool and does not name it.", reason="tool_name")
            events += self._settle()
            self._call = call_id
            self._calls |= {call_id}
            self._output_bytes += len(name)
            self._names = self._names or ToolNames(tool.name for tool in self._request.tools)
            events += self._turn.tool(call_id, self._names.client(name))
        given = said.get("input")
        if isinstance(given, (dict, list)):  # one value, where the schema has fragments of its text; {} is a beginning
            given = json.dumps(given, ensure_ascii=False) if given else ""
        events += self._say(Reader._more_arguments, given, lifted)
        return [*events, *self._settle()] if said.get("stop") is True else events

    def _metering(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        if (spent := _number(said, "usage")) is not None:
            self._credits = (self._credits or 0.0) + spent
        return self._known()

    def _context(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        self._share(said)
        return self._known()

    def _metadata(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        self._stop = STOPS.get(_string(said, "stopReason"), self._stop)
        counts = said.get("tokenUsage")
        if isinstance(counts, dict):
            self._share(counts)
            read, written = _count(counts, "cacheReadInputTokens"), _count(counts, "cacheWriteInputTokens")
            uncached, output = _count(counts, "uncachedInputTokens"), _count(counts, "outputTokens")
            if not uncached + read + written:
                uncached = max(0, _count(counts, "totalTokens") - output)
            if uncached + read + written:  # no prompt is empty: counts that leave it out are none
                self._counted = Usage(uncached, output, read, written)
        return self._known() if isinstance(counts, dict) or self._stop else []

    def _invalid_state(self, said: Json, lifted: bytes | None) -> list[TurnEvent]:
        return self._fail(Complaint("InvalidStateEvent", _string(said, "reason"), _string(said, "message")))

    # Pieces: what a run means

    def _more_text(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        pieces = _spoken(pieces)
        if not pieces:
            return []
        self._output_bytes += sum(map(len, pieces))
        turn = self._turn
        return turn.text(pieces) if turn.open_kind is BlockKind.TEXT else [*self._settle(), *turn.text(pieces)]

    def _more_thought(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        pieces = _spoken(pieces)
        if not pieces:
            return []
        size = sum(map(len, pieces))
        self._output_bytes += size
        self._thought_bytes += size
        settled = () if self._turn.open_kind is BlockKind.THINKING else self._settle()
        return [*settled, *self._turn.thought(pieces)]

    def _more_signed(self, pieces: Sequence[bytes], signature: str) -> list[TurnEvent]:
        """Thoughts that each came with the same signature: as many thoughts."""
        return [event for piece in pieces for event in (*self._more_thought((piece,)), *self._sign(signature))]

    def _more_arguments(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        pieces = _spoken(pieces)
        if not pieces:
            return []
        self._output_bytes += sum(map(len, pieces))
        self._arguments += pieces
        return self._turn.arguments(pieces)

    def _say(self, more: More, said: object, lifted: bytes | None) -> list[TurnEvent]:
        """The string of one frame: as it was lifted, or else decoded and joined with the half that waits for it."""
        if not isinstance(said, str):
            return []
        self._more = more
        if lifted is not None:
            return [*self._lose_half(), *more(self, (lifted,))]
        events = self._lose_half() if self._half_of is not more else []
        text, self._half = self._half + said, ""
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text.removesuffix(half)
        if text:
            events += more(self, (escape(text),))
        self._half, self._half_of = half, more  # last: opening a block settles the half of the one before
        return events

    def _lose_half(self) -> list[TurnEvent]:
        """The half that waits finds no partner."""
        if not self._half:
            return []
        self._half = ""
        return self._half_of(self, (REPLACEMENT,))

    # Blocks

    def _start(self, model: str = "") -> list[TurnEvent]:
        """The turn's beginning, once. The prompt is estimated here, when it is certain that there is an answer."""
        self._said = True
        if self._turn.started:
            return []
        self._input = round(estimate(self._request) * self._model.correction)
        return self._turn.start(model or self._model.id, self._usage())

    def _sign(self, signature: str) -> list[TurnEvent]:
        events = self._lose_half()
        if self._turn.open_kind is not BlockKind.THINKING:
            events += self._settle()
        return [*events, *self._turn.signature(signature)]

    def _settle(self) -> list[TurnEvent]:
        """Close what is open. A call is whole if its arguments are one JSON object; none at all means ``{}``."""
        events = self._lose_half()
        if self._call:
            if not self._arguments:
                events += self._turn.arguments((b"{}",))
            elif not _is_object(self._arguments):
                self._broken = True
            self._call, self._arguments = "", []
        return [*events, *self._turn.close()]

    def _finish(self, stop: Stop | None = None) -> list[TurnEvent]:
        settled = self._settle()
        return [*settled, *self._turn.end(stop or self._why(), self._usage())]

    def _fail(self, complaint: Complaint) -> list[TurnEvent]:
        error = classify(complaint)
        if isinstance(error, ContextOverflow) and (self._output_bytes or self._calls):
            return self._finish(Stop.MAX_TOKENS)  # the window ran full on the way: what was said stands (section 3.5)
        return self._turn.fail(error)

    def _why(self) -> Stop:
        """Why the turn ended (section 3.5). Whether there are calls is seen, not believed."""
        called = self._turn.called_tools
        if self._broken:
            return Stop.MAX_TOKENS
        if self._stop in (None, Stop.END, Stop.TOOL_CALL):
            if called:
                return Stop.TOOL_CALL
            full = self._stop is None and (self._percentage or 0.0) >= 100
            return Stop.CONTEXT_FULL if full else Stop.END
        return self._stop

    # Cost

    def _known(self) -> list[TurnEvent]:
        """The cost so far; it waits for the end where the turn has not begun."""
        self._said = True
        return [UsageKnown(self._usage())] if self._turn.started else []

    def _usage(self) -> Usage:
        """What is known now. The end says what was said last, mostly."""
        of = (
            self._input,
            self._output_bytes,
            self._thought_bytes,
            self._credits,
            self._percentage,
            self._said_by_then,
            self._counted,
        )
        if self._cost is None or self._cost[0] != of:
            self._cost = of, self._reckoned()
        return self._cost[1]

    def _reckoned(self) -> Usage:
        """The best that is known (section 3.6): the upstream's count, its share of the window, our estimate."""
        if self._counted:
            output = self._counted.output_tokens or _tokens(self._output_bytes)
            return replace(
                self._counted,
                output_tokens=output,
                thinking_tokens=min(output, _tokens(self._thought_bytes)),  # which it does not count apart
                credits=self._credits,
                context_percentage=self._percentage,
                estimated=output != self._counted.output_tokens,
            )
        prompt, share = self._input, self._percentage
        if share is not None:
            prompt = prompt_of_share(prompt, share, self._model.window, _tokens(self._said_by_then))
        output, thoughts = _tokens(self._output_bytes), _tokens(self._thought_bytes)
        return Usage(prompt, output, 0, 0, thoughts, self._credits, share, True)  # made four times a turn

    def _share(self, said: Json) -> None:
        """A share of the window: the last one said counts, and what of the answer it may hold."""
        if (percentage := _number(said, "contextUsagePercentage")) is not None:
            self._percentage, self._said_by_then = percentage, self._output_bytes

    # What is read, by event type (section 3.2): each takes the payload, and the string that the codec lifted from it.
    # Every other event is decoration, and ignored.
    _handlers: ClassVar[Mapping[str, Callable[[Reader, Json, bytes | None], list[TurnEvent]]]] = {
        "assistantResponseEvent": _text,
        "codeEvent": _text,
        "reasoningContentEvent": _thought,
        "toolUseEvent": _tool,
        "meteringEvent": _metering,
        "contextUsageEvent": _context,
        "metadataEvent": _metadata,
        "messageMetadataEvent": _metadata,
        "invalidStateEvent": _invalid_state,
    }


def _ignore(reader: Reader, pieces: Sequence[bytes]) -> list[TurnEvent]:
    return []


def _spoken(pieces: Sequence[bytes]) -> Sequence[bytes]:
    return [piece for piece in pieces if piece] if b"" in pieces else pieces


def _tokens(size: int) -> int:
    return max(1, round(size / BYTES_PER_TOKEN)) if size else 0


def _load(frame: Frame) -> Json:
    """The payload's object; empty where there is none."""
    if not frame.payload:
        return {}
    try:
        try:
            said = msgspec.json.decode(frame.payload)
        except msgspec.DecodeError:  # what `json` takes beside: NaN, half a surrogate pair
            said = json.loads(frame.payload.decode())
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"The payload of a {frame.event_type} is not JSON.", reason="payload") from error
    return said if isinstance(said, dict) else {}


def _is_object(pieces: Sequence[bytes]) -> bool:
    try:
        return isinstance(json.loads(unescape(pieces), parse_constant=_no_constant), dict)
    except (ValueError, RecursionError):
        return False


def _no_constant(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity, which JSON does not have


def _string(said: Json, key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""


def _number(said: Json, key: str, default: float | None = None) -> float | None:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:  # NaN is not either
        return default
    return float(value)


def _count(said: Json, key: str) -> int:
    return max(0, int(_number(said, key) or 0))


def read_result(body: bytes) -> TurnResult:
    """A stream that was kept whole: the service has no other form of a whole answer.

    Raises:
        KirostreamError: the stream is broken, or holds an exception.
    """
    reader = Reader(TurnRequest(model="", messages=()), Model(""))
    events = reader.feed(body)
    return fold([*events, *reader.close()])


# Errors


def read_error(headers: Headers, body: bytes) -> Complaint:
    """The complaint in an error body, in any of the forms of section 4.1, or its text where it is no JSON."""
    kind = next((value.decode("latin-1") for name, value in headers if name == b"x-amzn-errortype"), "")
    return _complaint(kind, body)


def _exception(frame: Frame) -> Complaint:
    headers = frame.headers
    code, message = headers.get(":error-code"), headers.get(":error-message")
    kind = frame.exception_type or (code if isinstance(code, str) else "")
    complaint = _complaint(kind, frame.payload)
    return complaint if complaint.message or not isinstance(message, str) else replace(complaint, message=message)


def _complaint(kind: str, body: bytes) -> Complaint:
    text = body.decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return Complaint(_bare(kind), message=" ".join(text.split())[:300])
    if isinstance(said, dict):
        for key in ("error", "Output"):
            if isinstance(inner := said.get(key), dict):
                said = inner
        kind = kind or _string(said, "__type") or _string(said, "code")
        message = _string(said, "message") or _string(said, "Message") or _string(said, "error_description")
        return Complaint(_bare(kind), _string(said, "reason"), message)
    return Complaint(_bare(kind))


def _bare(kind: str) -> str:
    """``ThrottlingException`` of ``com.amazon#ThrottlingException`` and of ``ThrottlingException:http://...``."""
    return kind.rpartition("#")[2].partition(":")[0].strip()


def complain(error: KirostreamError) -> tuple[int, Complaint]:
    """The HTTP status and the complaint by which Kiro says `error`; `classify` reads the same class from it."""
    status, kind, reason, words = 500, "InternalServerException", "", ""
    for family, answer in _ANSWERS:
        if isinstance(error, family):
            status, kind, reason, words = answer
            break
    return status, Complaint(kind, error.reason if error.reason in BY_REASON else reason, words or error.message)


REJECTED: Final = "The bearer token included in the request is invalid."

_ANSWERS: Final[Sequence[tuple[type[KirostreamError], tuple[int, str, str, str]]]] = (
    (ContextOverflow, (400, "ValidationException", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", "Input is too long.")),
    (ModelNotOnAccount, (400, "ValidationException", "INVALID_MODEL_ID", "")),
    (UnknownModel, (400, "ValidationException", "INVALID_MODEL_ID", "")),
    (QuotaSpent, (402, "ServiceQuotaExceededException", "MONTHLY_REQUEST_COUNT", "")),
    (AccountThrottled, (429, "ThrottlingException", "", "")),
    (CredentialRejected, (403, "AccessDeniedException", "", REJECTED)),
    (KeyRejected, (403, "AccessDeniedException", "", REJECTED)),
    (AccountSuspended, (403, "AccessDeniedException", "TEMPORARILY_SUSPENDED", "")),
    (AccessDenied, (403, "AccessDeniedException", "", "")),
    (NotAllowed, (403, "AccessDeniedException", "", "")),
    (NoSuchRoute, (404, "UnknownOperationException", "", "")),
    (MethodNotAllowed, (404, "UnknownOperationException", "", "")),
    (RequestError, (400, "ValidationException", "", "")),
    (UpstreamRefused, (400, "ValidationException", "", "")),
    (UpstreamOverloaded, (503, "ServiceUnavailableException", "", "")),
    (UpstreamTimeout, (504, "InternalServerException", "", "")),
)
"""By class of error, subclasses first: status, type, reason, and the service's own words where they are what counts."""

_CORAL: Final = "http://internal.amazon.com/coral/com.amazon.coral.service/"
_NAMESPACE: Final = "com.amazon.aws.codewhisperer"


def write_complaint(status: int, complaint: Complaint, request_id: str = "", *, rpc: bool = False) -> ErrorReply:
    """A complaint as the service sends it (section 4.1): in REST form, or in JSON 1.0 form, where 429 becomes 400."""
    body: Json = {"message": complaint.message, "reason": complaint.reason or None}
    headers = [(b"x-amzn-requestid", request_id.encode())] if request_id else []
    if rpc:
        body = {"__type": f"{_NAMESPACE}#{complaint.code}", **body}
        status = 400 if 400 <= status < 500 else status
        headers.append((b"content-type", b"application/x-amz-json-1.0"))
    else:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"x-amzn-errortype", f"{complaint.code}:{_CORAL}".encode()))
    return ErrorReply(status, headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))


def write_error(error: KirostreamError, request_id: str) -> ErrorReply:
    """See `dialect.Dialect.write_error`. REST form."""
    status, complaint = complain(error)
    return write_complaint(status, complaint, request_id)


# Writing


def event_frame(kind: str, payload: bytes) -> bytes:
    """One event, as the service sends it."""
    return encode_frame({":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception_frame(complaint: Complaint) -> bytes:
    """An exception in the middle of a stream; the last frame of it."""
    headers: dict[str, HeaderValue] = {
        ":exception-type": complaint.code,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_frame(headers, _json({"message": complaint.message, "reason": complaint.reason or None}))


class Writer:
    """Writes one answer: the server's face, for the simulator. See `dialect.Writer`.

    A normal session holds text, calls, ``contextUsageEvent`` and ``meteringEvent``, and nothing else (section 3.2). So
    ``metadataEvent`` is sent only where these cannot say what is known: an exact count, or an unusual end.
    """

    def __init__(self, request: TurnRequest, heading: Heading) -> None:
        self._heading = heading
        self._names = ToolNames(tool.name for tool in request.tools)
        self._before: dict[int, bytes] = {}  # by block: its frames' payload up to the piece
        self._after: dict[int, bytes] = {}  # and from there on
        self._kinds: dict[int, str] = {}  # and their event type
        self._model = b""
        self._called = False

    def write(self, event: TurnEvent) -> list[bytes]:
        """See `dialect.Writer.write`. One frame a piece."""
        match event:
            case BlockDelta(index=index) if index not in self._kinds:
                return []
            case BlockDelta(index=index, pieces=pieces):
                kind, before, after = self._kinds[index], self._before[index], self._after[index]
                return [event_frame(kind, before + piece + after) for piece in pieces]
            case TurnStarted(model=model):
                self._model = b'","modelId":' + _json(model) + b"}" if model else b'"}'
                return []
            case BlockStarted():
                return self._open(event)
            case BlockEnded(index=index, signature=signature):
                return self._shut(index, signature)
            case TurnEnded(stop=stop, usage=usage):
                return self._end(stop, usage)
            case TurnFailed(error=error):
                return [exception_frame(complain(error)[1])]
            case _:
                return []

    def heartbeat(self) -> bytes:
        """Text of no length: the wire has nothing that says less."""
        return event_frame("assistantResponseEvent", b'{"content":""}')

    def _open(self, block: BlockStarted) -> list[bytes]:
        match block.kind:
            case BlockKind.TEXT:
                self._frame(block.index, "assistantResponseEvent", b'{"content":"', self._model or b'"}')
            case BlockKind.THINKING:
                self._frame(block.index, "reasoningContentEvent", b'{"text":"', b'"}')
            case BlockKind.REDACTED:
                self._frame(block.index, "reasoningContentEvent", b"", b"")
                return [event_frame("reasoningContentEvent", _json({"redactedContent": block.data}))]
            case BlockKind.TOOL_CALL:
                self._called = True
                call = _json({"toolUseId": block.call_id, "name": self._names.wire(block.name)})
                self._frame(block.index, "toolUseEvent", call[:-1] + b',"input":"', b'"}')
                return [event_frame("toolUseEvent", call)]
            case BlockKind.SEARCH | BlockKind.SEARCH_RESULT:
                pass  # the service searches in a call of its own (section 6.5), and says nothing of it here
        return []

    def _frame(self, index: int, kind: str, before: bytes, after: bytes) -> None:
        self._kinds[index], self._before[index], self._after[index] = kind, before, after

    def _shut(self, index: int, signature: str) -> list[bytes]:
        kind = self._kinds.get(index, "")
        if kind == "toolUseEvent":
            call = self._before[index].removesuffix(b'"input":"')
            return [event_frame(kind, call + b'"stop":true}')]
        return [event_frame(kind, _json({"signature": signature}))] if signature else []

    def _end(self, stop: Stop, usage: Usage) -> list[bytes]:
        frames = []
        metadata: Json = {}
        if stop is not (Stop.TOOL_CALL if self._called else Stop.END):
            metadata["stopReason"] = next((word for word, means in STOPS.items() if means is stop), "UNKNOWN")
        if not usage.estimated and usage.total_tokens:
            metadata["tokenUsage"] = {
                "uncachedInputTokens": usage.input_tokens,
                "cacheReadInputTokens": usage.cache_read_tokens,
                "cacheWriteInputTokens": usage.cache_write_tokens,
                "outputTokens": usage.output_tokens,
                "totalTokens": usage.total_tokens,
            }
        if metadata:
            frames.append(event_frame("metadataEvent", _json(metadata)))
        if usage.context_percentage is not None:
            share = {"contextUsagePercentage": usage.context_percentage}
            frames.append(event_frame("contextUsageEvent", _json(share)))
        if usage.credits is not None:
            spent = {"usage": usage.credits, "unit": "credit", "unitPlural": "credits"}
            frames.append(event_frame("meteringEvent", _json(spent)))
        return frames


def write_result(request: TurnRequest, result: TurnResult, heading: Heading) -> bytes:
    """A whole answer. The service has none, so it is the stream, at once."""
    writer = Writer(request, heading)
    return b"".join(frame for event in unfold(result) for frame in writer.write(event))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
