"""Conversation states: a question in Kiro's words, written and read (kiro-protocol.md section 2).

The persona is the IDE's (section 1.2). Three things a question may hold have no place on this wire:

- *A system prompt.* It becomes the first two entries of the history: the user says it, the assistant agrees (section
  2.4, "recommended"). The pair stays the same from turn to turn, so the upstream's prompt cache can use it.
- *Sampling.* ``inferenceConfig`` stands in no official model of the service and in no capture of an official client
  (section 2.2); two peers send it without visible effect. It is not sent: a field that no real client sends can only
  do harm. `Sampling` is the gateway's to enforce where it can.
- *Images in tool results.* They are lifted to the message that holds the result (section 2.5).

`write_request` converts and repairs nothing: what Kiro would refuse is repaired before, by `filters.request_rules`.
It never fails on a well-typed request all the same.

Messages and tools are written one by one, and what was written stays with each (`Message.kept`): a turn of an agent
costs its new messages, the rest is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from kirostream import scan
from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.kiro.names import ToolNames
from kirostream.errors import MalformedRequest
from kirostream.turn.events import escape, unescape
from kirostream.turn.model import Model
from kirostream.turn.request import (
    ASSISTANT,
    USER,
    Image,
    Message,
    RawJson,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

NAME: Final = "kiro"
ORIGIN: Final = "AI_EDITOR"
ACKNOWLEDGED: Final = "I will follow these instructions."
"""What the assistant says to the system prompt; real clients say the same words (section 2.4)."""

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Words of the effort scales, weakest first (section 2.8)."""
DEFAULT_EFFORT: Final = "high"
_BUDGETS: Final = ((4_000, "low"), (16_000, "medium"), (64_000, "high"))
"""Tokens of thinking up to which an effort stands for a budget (section 2.8)."""


ABSENT: Final = msgspec.Raw()
"""A raw field that is not there; a null reads the same by `given`."""


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Fields as section 2.2 lists them. Unknown ones are allowed; absent and null are the same."""


class ImageSource(Wire):
    bytes: str


class ImageBlock(Wire):
    format: str
    source: ImageSource


class ToolUse(Wire):
    tool_use_id: str
    name: str
    input: msgspec.Raw


class ResultContent(Wire):
    text: str | None = None
    json: msgspec.Raw = ABSENT


class ToolUseResult(Wire):
    tool_use_id: str
    content: list[ResultContent]
    status: str | None = None


class InputSchema(Wire):
    json: msgspec.Raw


class ToolSpecification(Wire):
    name: str
    input_schema: InputSchema
    description: str | None = None


class CachePoint(Wire):
    type: str


class ToolEntry(Wire):
    tool_specification: ToolSpecification | None = None
    cache_point: CachePoint | None = None


class UserContext(Wire):
    tool_results: list[ToolUseResult] | None = None
    tools: list[ToolEntry] | None = None


class UserInputMessage(Wire):
    content: str
    model_id: str | None = None
    origin: str | None = None
    user_intent: str | None = None
    images: list[ImageBlock] | None = None
    user_input_message_context: UserContext | None = None


class AssistantResponseMessage(Wire):
    content: str
    message_id: str | None = None
    tool_uses: list[ToolUse] | None = None


class Entry(Wire):
    """One message: exactly one of the two is set."""

    user_input_message: UserInputMessage | None = None
    assistant_response_message: AssistantResponseMessage | None = None


class ConversationState(Wire):
    current_message: Entry
    chat_trigger_type: str
    conversation_id: str | None = None
    agent_continuation_id: str | None = None
    agent_task_type: str | None = None
    history: list[Entry] | None = None


class ThinkingField(Wire):
    type: str
    display: str | None = None


class EffortField(Wire):
    effort: str


class ModelFields(msgspec.Struct, omit_defaults=True):
    """``additionalModelRequestFields`` as section 2.8 knows them."""

    thinking: ThinkingField | None = None
    output_config: EffortField | None = None
    reasoning: EffortField | None = None


class Generate(Wire):
    """The whole body of ``generateAssistantResponse``. `model_fields` stays raw: each model has its own schema."""

    conversation_state: ConversationState
    profile_arn: str | None = None
    model_fields: msgspec.Raw = msgspec.field(default=ABSENT, name="additionalModelRequestFields")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Generate).decode


def write_request(request: TurnRequest, stamp: Stamp) -> bytes:
    """The body that asks `request`. Texts are cleaned of lone surrogates, which UTF-8 cannot hold."""
    try:
        return _Body(request, stamp, clean=False).write()
    except UnicodeEncodeError:
        return _Body(request, stamp, clean=True).write()


def read_request(body: bytes, headers: Headers = ()) -> TurnRequest:
    """The question in `body`: the server's face, for the simulator. Names stay as the wire has them.

    Raises:
        MalformedRequest: not JSON, or a field of the wrong type.
    """
    return to_turn(decode(body))


def decode(body: bytes) -> Generate:
    """The body, checked for types only.

    Raises:
        MalformedRequest: not JSON, or a field of the wrong type.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise MalformedRequest(
            f"The request does not fit the schema: {error}", reason="REQUEST_BODY_INVALID"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The request is not JSON: {error}", reason="REQUEST_BODY_INVALID_JSON") from error


def given(raw: msgspec.Raw) -> bytes:
    """The JSON of a raw field; empty where it is absent or null."""
    value = bytes(raw)
    return b"" if value == b"null" else value


# Writing


class _Body:
    """Writes one body."""

    def __init__(self, request: TurnRequest, stamp: Stamp, *, clean: bool) -> None:
        self._request = request
        self._stamp = stamp
        self._names = ToolNames(tool.name for tool in request.tools)
        self._origin = stamp.origin or ORIGIN
        self._clean = clean
        self._lists: list[Sequence[RawJson]] = []
        """What stands where the encoder was given `_HERE`, in the order of the body."""

    def write(self) -> bytes:
        stamp, request = self._stamp, self._request
        history: list[RawJson] = []
        if system := self._join(request.system):
            history.append(_encode(Entry(user_input_message=UserInputMessage(system, origin=self._origin))))
            history.append(_AGREED)
        messages = request.messages
        current = UserInputMessage("")
        if messages and messages[-1].role is not ASSISTANT:
            messages, current = messages[:-1], self._user(messages[-1])
        history += map(self._entry, messages)
        current.model_id = stamp.model.id
        if request.tools:
            current.user_input_message_context = current.user_input_message_context or UserContext()
            current.user_input_message_context.tools = self._listed(list(map(self._tool, request.tools)))
        body = Generate(
            ConversationState(
                current_message=Entry(user_input_message=current),
                chat_trigger_type="MANUAL",
                conversation_id=stamp.conversation_id or None,
                agent_continuation_id=stamp.continuation_id or None,
                agent_task_type="vibe",
                history=self._listed(history) if history else None,
            ),
            profile_arn=stamp.profile_arn or None,
            model_fields=_model_fields(request.thinking, stamp.model),
        )
        head, *others = _encode(body).split(bytes(_HERE))
        parts = [head]
        for listed, other in zip(self._lists, others, strict=True):
            parts += b"[", b",".join(listed), b"]", other
        return b"".join(parts)

    def _listed(self, parts: Sequence[RawJson]) -> Any:
        """A list of what is JSON already. It is long: it is put in when all is written, and copied once."""
        self._lists.append(parts)
        return _HERE

    def _text(self, text: str) -> str:
        return unescape((escape(text),)) if self._clean else text

    def _join(self, texts: Sequence[Text]) -> Any:
        """Paragraphs: a str, or JSON where all were read as JSON. They go out as they came in."""
        literals: list[RawJson] = []
        for text in texts:
            if text.literal is None or self._clean:
                return self._text("\n\n".join([text.text for text in texts if not text.empty]))
            literals.append(text.literal)
        if len(literals) == 1:
            return _literal(literals[0])
        return _literal(b'"%b"' % b"\\n\\n".join([literal[1:-1] for literal in literals])) if literals else ""

    def _entry(self, message: Message) -> RawJson:
        if self._clean:
            return self._entry_in_python(message, [])
        kept: tuple[str, Sequence[tuple[str, str]], RawJson] | None = message.kept.get(_WRITTEN)
        if kept is not None:
            origin, used, written = kept
            if origin == self._origin and self._still(used):
                return written
        names: list[tuple[str, str]] = []
        if message.role is ASSISTANT:
            known = scan.write_assistant(message.content, self._names.known, names)
        else:
            known = scan.write_user(message.content, self._origin)
        written = self._entry_in_python(message, names) if known is None else known
        message.kept[_WRITTEN] = self._origin, names, written
        return written

    def _still(self, names: Sequence[tuple[str, str]]) -> bool:
        """Whether names on the wire are what they were."""
        known = self._names.known
        for name, wire in names:  # noqa: SIM110 - asked of every message, which has few
            if known.get(name) != wire and self._names.wire(name) != wire:
                return False
        return True

    def _entry_in_python(self, message: Message, names: list[tuple[str, str]]) -> RawJson:
        if message.role is ASSISTANT:
            return _encode(Entry(None, self._assistant(message, names)))
        return _encode(Entry(self._user(message)))

    def _user(self, message: Message) -> UserInputMessage:
        texts: list[Text] = []
        images: list[Image] = []
        lifted: list[Image] = []
        results: list[ToolUseResult] = []
        for block in message.content:
            if isinstance(block, ToolResult):
                said: list[ResultContent] = []
                for part in block.content:
                    if isinstance(part, Text):
                        said.append(ResultContent(self._join((part,))))
                    elif isinstance(part, Image):
                        lifted.append(part)
                status = "error" if block.is_error else "success"
                results.append(ToolUseResult(self._text(block.call_id), said, status))
            elif isinstance(block, Text):
                texts.append(block)
            elif isinstance(block, Image):
                images.append(block)
            # The rules leave nothing else in a user's message.
        images += lifted
        return UserInputMessage(
            self._join(texts),
            None,
            self._origin,
            None,
            [_image(image) for image in images] if images else None,
            UserContext(results) if results else None,
        )

    def _assistant(self, message: Message, names: list[tuple[str, str]]) -> AssistantResponseMessage:
        """What an assistant said; `names` takes the names of the tools it called, and those on the wire."""
        names.clear()
        texts: list[Text] = []
        calls: list[ToolUse] = []
        for block in message.content:
            if isinstance(block, Text):
                texts.append(block)
            elif isinstance(block, ToolCall):
                name = self._names.wire(block.name)
                names.append((block.name, name))
                arguments = msgspec.Raw(block.arguments or b"{}")
                calls.append(ToolUse(self._text(block.id), self._text(name), arguments))
        return AssistantResponseMessage(self._join(texts), None, calls or None)

    def _tool(self, tool: Tool) -> RawJson:
        name = self._names.wire(tool.name)
        if self._clean:
            return self._tool_in_python(tool, name)
        kept: tuple[str, RawJson] | None = tool.kept.get(_WRITTEN)
        if kept is not None and kept[0] == name:
            return kept[1]
        written = scan.write_tool(tool, name) or self._tool_in_python(tool, name)
        tool.kept[_WRITTEN] = name, written
        return written

    def _tool_in_python(self, tool: Tool, name: str) -> RawJson:
        schema = InputSchema(msgspec.Raw(tool.schema))
        return _encode(ToolEntry(ToolSpecification(name, schema, self._text(tool.description))))


_WRITTEN: Final = "kiro.written"
"""In `kept`: a message or a tool as JSON, behind what it depends on besides: the origin, the names on the wire."""


def _literal(text: RawJson) -> Any:
    """A string that is JSON already, where the types of the wire have a text."""
    return msgspec.Raw(text)


_HERE: Final[Any] = msgspec.Raw(b"\0")
"""Where a list goes: a byte that is nowhere in JSON."""
_AGREED: Final = _encode(Entry(assistant_response_message=AssistantResponseMessage(ACKNOWLEDGED)))


def _image(image: Image) -> ImageBlock:
    return ImageBlock(image.media_type.removeprefix("image/"), ImageSource(image.data))


def effort(thinking: Thinking, efforts: Sequence[str]) -> str:
    """The word of `efforts` that comes nearest to what was asked, and is not above it where there is one below."""
    asked = thinking.effort
    if not asked and thinking.budget is not None:
        asked = next((word for most, word in _BUDGETS if thinking.budget <= most), "xhigh")
    asked = asked or DEFAULT_EFFORT
    if asked in efforts:
        return asked
    rank = EFFORTS.index(asked) if asked in EFFORTS else EFFORTS.index(DEFAULT_EFFORT)
    known = sorted((EFFORTS.index(word), word) for word in efforts if word in EFFORTS)
    below = [word for at, word in known if at <= rank]
    return below[-1] if below else known[0][1] if known else efforts[-1]


def _model_fields(thinking: Thinking, model: Model) -> msgspec.Raw:
    """Native thinking (section 2.8), where it is asked for and the catalogue advertises it.

    Every model's schema is closed, so what it does not list is not sent.
    """
    if not thinking.enabled or not model.thinks:
        return ABSENT
    known = model.thinking_fields or _usual_fields(model)
    word = EffortField(effort(thinking, model.efforts)) if model.efforts else None
    display = "summarized" if "thinking.display" in known else None
    fields = ModelFields(
        thinking=ThinkingField("adaptive", display) if "thinking.type" in known else None,
        output_config=word if "output_config.effort" in known else None,
        reasoning=word if "reasoning.effort" in known else None,
    )
    return ABSENT if fields == ModelFields() else msgspec.Raw(_encode(fields))


def _usual_fields(model: Model) -> Sequence[str]:
    """What a model of this family takes, where only its efforts are known.

    Claude takes ``thinking`` and ``output_config``, the others ``reasoning``; models too old to know ``xhigh`` do not
    know ``display`` either, and show their thoughts unasked.
    """
    if not model.id.startswith(("claude", "auto")):
        return ("reasoning.effort",)
    display = ("thinking.display",) if "xhigh" in model.efforts else ()
    return ("thinking.type", *display, "output_config.effort")


# Reading


def to_turn(body: Generate) -> TurnRequest:
    """A checked body as a question. A system pair at its head is the system prompt again."""
    state = body.conversation_state
    history = state.history or []
    system: tuple[Text, ...] = ()
    if len(history) > 1 and (prompt := _system_pair(history[0], history[1])) is not None:
        system, history = (Text(prompt),), history[2:]
    current = state.current_message.user_input_message
    context = (current and current.user_input_message_context) or UserContext()
    messages = [message for entry in (*history, state.current_message) for message in _messages(entry)]
    return TurnRequest(
        model=(current and current.model_id) or "",
        system=system,
        messages=tuple(messages),
        tools=tuple(_read_tool(e.tool_specification) for e in context.tools or () if e.tool_specification),
        thinking=_thinking(body.model_fields),
        stream=True,
        session=state.conversation_id or "",
        spoken_in=NAME,
    )


def _system_pair(first: Entry, second: Entry) -> str | None:
    user, assistant = first.user_input_message, second.assistant_response_message
    if user is None or assistant is None or assistant.content != ACKNOWLEDGED or assistant.tool_uses:
        return None
    return None if user.images or user.user_input_message_context else user.content


def _messages(entry: Entry) -> Iterable[Message]:
    if user := entry.user_input_message:
        results = (user.user_input_message_context or UserContext()).tool_results or ()
        images = (Image(f"image/{image.format}", image.source.bytes) for image in user.images or ())
        text = (Text(user.content),) if user.content else ()
        yield Message(USER, (*map(_read_result, results), *images, *text))
    if assistant := entry.assistant_response_message:
        calls = (ToolCall(use.tool_use_id, use.name, bytes(use.input)) for use in assistant.tool_uses or ())
        text = (Text(assistant.content),) if assistant.content else ()
        yield Message(ASSISTANT, (*text, *calls))


def _read_result(result: ToolUseResult) -> ToolResult:
    parts = (Text(part.text if part.text is not None else given(part.json).decode()) for part in result.content)
    return ToolResult(result.tool_use_id, tuple(parts), result.status == "error")


def _read_tool(spec: ToolSpecification) -> Tool:
    return Tool(spec.name, spec.description or "", bytes(spec.input_schema.json))


def _thinking(fields: msgspec.Raw) -> Thinking:
    try:
        asked = msgspec.json.decode(given(fields) or b"{}", type=ModelFields)
    except msgspec.ValidationError:
        return Thinking()
    config = asked.output_config or asked.reasoning
    enabled = asked.thinking.type != "disabled" if asked.thinking else config is not None
    return Thinking(enabled, effort=config.effort if config else "")
