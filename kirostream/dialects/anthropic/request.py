"""Messages requests, read and written (client-apis.md sections 4.2 and 4.3).

Reading is tolerant: what is not known is kept, not refused. Unknown top-level fields ride in `TurnRequest.extras` and
are written again; an unknown content block becomes text; a tool without a schema of its own (a server tool) is not
offered to other upstreams, but rides along as well. Marks on single blocks and tools (``cache_control`` and the like)
are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Raw

from kirostream import scan
from kirostream.dialects.anthropic.tools import client_tool, outcome_as_text, run_as_text
from kirostream.dialects.anthropic.usual import read_usual
from kirostream.dialects.anthropic.websearch import (
    is_search,
    read_call,
    read_outcome,
    read_tool,
    write_call,
    write_outcome,
    write_tool,
)
from kirostream.dialects.dialect import Headers, Stamp, Steps, all_at_once
from kirostream.dialects.hints import betas_ask_for_thinking, session_hint
from kirostream.dialects.jsontext import as_object, base64_text, decode, encode, is_object, part, raw
from kirostream.errors import MalformedRequest
from kirostream.turn.memory import FORGETFUL, Memory
from kirostream.turn.request import (
    AUTO,
    THINKING_OFF,
    Attachment,
    ContentBlock,
    Image,
    Message,
    OutputFormat,
    RawJson,
    Role,
    Sampling,
    Search,
    SearchCall,
    SearchOutcome,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

T = TypeVar("T")

NAME: Final = "anthropic"
PDF: Final = "application/pdf"

EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})

_NO_ARGUMENTS: Final = b'{"type":"object","properties":{}}'
_BILLING: Final = "x-anthropic-billing-header:"
_PLACEHOLDER: Final = "DeferredToolPlaceholder"
_CLIENT_TOOLS: Final = (None, "", "custom")
_UNSET: Final = Raw()

_MESSAGES: Final = "anthropic.message"
_TOOLS: Final = "anthropic.tool"
"""Kinds of what is kept in a `Memory`."""


# What a body looks like. Unknown fields are allowed everywhere; null stands for absent wherever a client may send it.


class WireMessage(msgspec.Struct):
    """One message. The items of `content` are decoded by `_BLOCKS`."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Raw] | None = None


class WireTool(msgspec.Struct):
    """A tool; server tools have a `type` and no `input_schema`."""

    name: str = ""
    description: str | None = None
    input_schema: Raw = _UNSET
    type: str | None = None
    defer_loading: bool | None = None


class WireChoice(msgspec.Struct):
    """``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class WireMetadata(msgspec.Struct):
    """``metadata``."""

    user_id: str | None = None


class WireBody(msgspec.Struct):
    """What is understood of a body; the rest becomes `TurnRequest.extras`."""

    model: str
    messages: list[Raw]
    max_tokens: int | float | None = None
    system: str | list[Raw] | None = None
    tools: list[Raw] | None = None
    tool_choice: WireChoice | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    thinking: Raw = _UNSET
    output_config: Raw = _UNSET
    metadata: Raw = _UNSET
    thread: Raw = _UNSET


class UsualBody(WireBody, forbid_unknown_fields=True):
    """A body without fields beside those and these, which the usual clients send: its extras need no second look."""

    context_management: Raw = _UNSET
    service_tier: Raw = _UNSET
    top_k: Raw = _UNSET


_REMAINING: Final = frozenset({"thinking", "output_config", "metadata"})
"""Fields that are understood in part only; they, or what is left of them, stay in `extras` too."""

_KNOWN: Final = frozenset(WireBody.__struct_fields__) - _REMAINING
_EXTRAS: Final = tuple(name for name in UsualBody.__struct_fields__ if name not in _KNOWN)


class WireThinking(msgspec.Struct):
    """``thinking``. Types besides the four known ones are taken for some way of thinking."""

    type: str
    budget_tokens: int | float | None = None


class WireOutput(msgspec.Struct):
    """``output_config``."""

    effort: str | None = None


class WireFormat(msgspec.Struct):
    """``output_config.format``."""

    type: str = ""
    schema: Raw = _UNSET


class WireShape(msgspec.Struct):
    """``output_config``, for its `format`."""

    format: WireFormat | None = None


class WireKind(msgspec.Struct):
    """The first look at a block."""

    type: str


class WireText(msgspec.Struct):
    """``text``."""

    text: str | None = None


class WireSource(msgspec.Struct):
    """The source of an image or a document."""

    type: str = "base64"
    media_type: str = ""
    data: str = ""
    url: str = ""
    content: str | list[Raw] | None = None


class WireSourced(msgspec.Struct):
    """``image`` and ``document``."""

    source: WireSource
    title: str | None = None
    context: str | None = None


class WireSearchResult(msgspec.Struct):
    """``search_result``."""

    source: str = ""
    title: str = ""
    content: list[Raw] = []


class WireThought(msgspec.Struct):
    """``thinking`` as a block."""

    thinking: str | None = None
    signature: str | None = None


class WireRedacted(msgspec.Struct):
    """``redacted_thinking``."""

    data: str


class WireToolUse(msgspec.Struct):
    """``tool_use``."""

    id: str
    name: str
    input: Raw = _UNSET


class WireToolResult(msgspec.Struct):
    """``tool_result``."""

    tool_use_id: str
    content: str | list[Raw] | None = None
    is_error: bool | None = None


class WireCompaction(msgspec.Struct):
    """``compaction``: what the client had summed up; the conversation goes on from there."""

    content: str | list[Raw] | None = None


class WireToolReference(msgspec.Struct):
    """``tool_reference``: a deferred tool that was found and is loaded from now on."""

    tool_name: str


# Reading


def read_request(body: bytes, headers: Headers, memory: Memory = FORGETFUL) -> TurnRequest:
    """A question, as a client of the Messages API asks it. A body of ``count_tokens`` is read as well.

    Args:
        body, headers: of the request.
        memory: of messages and tools that were read before. It changes what reading costs, not what is read.

    Raises:
        MalformedRequest: the body cannot be understood; `param` is the path of what is wrong.
    """
    return all_at_once(read_in_steps(body, headers, memory))


def read_in_steps(body: bytes, headers: Headers, memory: Memory = FORGETFUL) -> Steps:
    """The same, a message a step. The first two go over the whole body, and look into nothing."""
    parts = scan.split(body)
    wire, extras, messages, tools = _read_body(body, parts)
    yield len(body)
    if wire.thread and bytes(wire.thread) != b"null":
        raise MalformedRequest(
            "Conversations are not kept here; send all messages with every request, without thread.",
            param="$.thread",
            reason="thread_unsupported_request",
        )
    if not wire.model:
        raise MalformedRequest("$.model is empty.", param="$.model", reason="invalid_value")
    if not messages:
        raise MalformedRequest(
            "$.messages is empty; at least one message is needed.", param="$.messages", reason="invalid_value"
        )
    if wire.max_tokens is not None and wire.max_tokens < 0:
        raise MalformedRequest("$.max_tokens is negative.", param="$.max_tokens", reason="invalid_value")
    output = _read_output(extras.get("output_config", _UNSET))
    silent = "thinking" not in extras
    thinking = _read_thinking(extras)
    if silent and betas_ask_for_thinking(headers):
        thinking = Thinking(enabled=True, effort=thinking.effort)
    known, others, search = _read_tools(tools, memory, parts)
    if others:
        extras["tools"] = Raw(encode(others))
    user_id = _read_user(wire.metadata)
    yield len(body)
    said: list[Message] = []
    for i, text in enumerate(messages):
        key = scan.Key(_MESSAGES, text)
        read: Message | None = memory.find(key)
        if read is None:
            read = read_usual(text) if parts is None else parts.message(i)
            if read is not None:  # every other depends on where it stands, if only for its errors
                memory.keep(key, read)
        said.append(read or _read_message(Raw(text), f"$.messages[{i}]"))
        yield len(text)
    return TurnRequest(
        model=wire.model,
        messages=tuple(said),
        system=_read_system(wire.system),
        tools=known,
        tool_choice=_read_choice(wire.tool_choice) if known or search else AUTO,
        sampling=Sampling(
            None if wire.max_tokens is None else int(wire.max_tokens),
            wire.temperature,
            wire.top_p,
            tuple(wire.stop_sequences or ()),
        ),
        thinking=thinking,
        output=output,
        search=search,
        stream=bool(wire.stream),
        session=session_hint(headers, user_id=user_id),
        spoken_in=NAME,
        extras={name: raw(value, f"$.{name}") for name, value in extras.items()},
    )


def _read_body(
    body: bytes, parts: scan.Split | None
) -> tuple[WireBody, dict[str, Raw], Sequence[RawJson], Sequence[RawJson]]:
    """The body, the fields that stay in `extras`, the messages and the tools."""
    if parts is not None:  # the two long lists are taken out already, and empty in what is left
        wire, extras = _read_fields(parts.rest)
        return wire, extras, parts.lists.get(b"messages", ()), parts.lists.get(b"tools", ())
    wire, extras = _read_fields(body)
    return wire, extras, [bytes(message) for message in wire.messages], [bytes(tool) for tool in wire.tools or ()]


def _read_fields(body: bytes) -> tuple[WireBody, dict[str, Raw]]:
    try:
        usual = decode(body, UsualBody)
    except MalformedRequest:
        wire = decode(body, WireBody)
        return wire, {name: value for name, value in decode(body, dict[str, Raw]).items() if name not in _KNOWN}
    fields = {name: getattr(usual, name) for name in _EXTRAS}
    return usual, {name: value for name, value in fields.items() if value}


def _read_user(metadata: Raw) -> str:
    if not metadata or bytes(metadata) == b"null":
        return ""
    return part(metadata, WireMetadata, "$.metadata").user_id or ""


def _read_message(message: Raw, at: str) -> Message:
    wire = part(message, WireMessage, at)
    return Message(Role(wire.role), _read_content(wire.content, f"{at}.content"))


def _read_system(system: str | list[Raw] | None) -> tuple[Text, ...]:
    blocks = _read_content(system, "$.system")
    texts = [block for block in blocks if isinstance(block, Text)]
    if not isinstance(system, str) and texts and texts[0].text.startswith(_BILLING):
        del texts[0]  # an accounting line that changes with every request and tells the model nothing
    return tuple(texts)


def _read_content(content: str | Sequence[Raw] | None, at: str) -> tuple[ContentBlock, ...]:
    """The blocks of a message; empty texts are dropped, since they say nothing and upstreams refuse them."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    blocks: list[ContentBlock] = []
    for i, block in enumerate(content or ()):
        here = f"{at}[{i}]"
        read = _BLOCKS.get(part(block, WireKind, here).type, _read_unknown)
        blocks.extend(read(block, here))
    return tuple(blocks)


def _read_text(block: Raw, at: str) -> Iterable[ContentBlock]:
    text = part(block, WireText, at).text
    return (Text(text),) if text else ()


def _read_image(block: Raw, at: str) -> Iterable[ContentBlock]:
    source = part(block, WireSourced, at).source
    if source.type == "url" and source.url:
        return (Attachment("image/*", url=source.url, at=f"{at}.source.url"),)
    if source.type != "base64":
        raise _cannot_be_had(source.type, at)
    if not source.media_type.startswith("image/") or not source.data:
        raise MalformedRequest(
            f"{at}.source needs media_type (image/...) and data.", param=f"{at}.source", reason="invalid_value"
        )
    return (Image(source.media_type, source.data),)


def _read_document(block: Raw, at: str) -> Iterable[ContentBlock]:
    document = part(block, WireSourced, at)
    source = document.source
    told = tuple(Text(line) for line in (document.title, document.context) if line)
    match source.type:
        case "text":
            return (*told, Text(source.data))
        case "content":
            return (*told, *_read_content(source.content, f"{at}.source.content"))
        case "base64" if source.media_type.startswith("text/"):
            return (*told, Text(base64_text(source.data, f"{at}.source.data")))
        case "base64" if source.media_type == PDF and source.data:
            return (*told, Attachment(PDF, source.data, at=f"{at}.source.data"))
        case "url" if source.url:
            return (*told, Attachment("*/*", url=source.url, at=f"{at}.source.url"))
        case "base64":
            raise MalformedRequest(
                f"{at}.source: a document has to be {PDF} or text/plain, with data.",
                param=f"{at}.source",
                reason="unsupported_value",
            )
        case kind:
            raise _cannot_be_had(kind, at)


def _cannot_be_had(kind: str, at: str) -> MalformedRequest:
    """A source that is not in the request, and cannot be fetched: another service's file."""
    return MalformedRequest(
        f"{at}.source: what is at a {kind!r} source cannot be had from here; send it as base64 data.",
        param=f"{at}.source",
        reason="unsupported_value",
    )


def _read_search_result(block: Raw, at: str) -> Iterable[ContentBlock]:
    result = part(block, WireSearchResult, at)
    return (Text(f"{result.title}\n{result.source}"), *_read_content(result.content, f"{at}.content"))


def _read_thought(block: Raw, at: str) -> Iterable[ContentBlock]:
    thought = part(block, WireThought, at)
    return (Thought(thought.thinking or "", thought.signature or ""),)


def _read_redacted(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (Thought("", redacted=part(block, WireRedacted, at).data),)


def _read_tool_use(block: Raw, at: str) -> Iterable[ContentBlock]:
    call = part(block, WireToolUse, at)
    return (ToolCall(call.id, call.name, as_object(raw(call.input, f"{at}.input"))),)


def _read_tool_result(block: Raw, at: str) -> Iterable[ContentBlock]:
    result = part(block, WireToolResult, at)
    content = _read_content(result.content, f"{at}.content")
    return (
        ToolResult(
            result.tool_use_id,
            tuple(inner for inner in content if isinstance(inner, Text | Image | Attachment)),
            bool(result.is_error),
        ),
    )


def _read_tool_reference(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (Text(f"The tool {part(block, WireToolReference, at).tool_name} is available now."),)


def _read_run(block: Raw, at: str) -> Iterable[ContentBlock]:
    search = read_call(block, at)
    return (search,) if search else _read_other_run(block, at)


def _read_other_run(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (Text(run_as_text(block, at)),)


def _read_search_outcome(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (read_outcome(block, at),)


def _read_outcome(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (Text(outcome_as_text(block, at)),)


def _read_compaction(block: Raw, at: str) -> Iterable[ContentBlock]:
    return _read_content(part(block, WireCompaction, at).content, f"{at}.content")


def _read_unknown(block: Raw, at: str) -> Iterable[ContentBlock]:
    return (Text(raw(block, at).decode()),)


_BLOCKS: Final[Mapping[str, Callable[[Raw, str], Iterable[ContentBlock]]]] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_search_result,
    "thinking": _read_thought,
    "redacted_thinking": _read_redacted,
    "tool_use": _read_tool_use,
    "tool_result": _read_tool_result,
    "tool_reference": _read_tool_reference,
    "server_tool_use": _read_run,
    "mcp_tool_use": _read_other_run,
    "web_search_tool_result": _read_search_outcome,
    "web_fetch_tool_result": _read_outcome,
    "tool_search_tool_result": _read_outcome,
    "mcp_tool_result": _read_outcome,
    "compaction": _read_compaction,
}


def _read_tools(
    tools: Sequence[RawJson], memory: Memory, parts: scan.Split | None
) -> tuple[tuple[Tool, ...], list[Raw], Search | None]:
    """The tools that any model can call, the ones that only this API's own upstream knows, and the web search.

    The search is among the second too: an upstream of this API runs it itself.
    """
    known: list[Tool] = []
    others: list[Raw] = []
    search: Search | None = None
    for i, text in enumerate(tools):
        key = scan.Key(_TOOLS, text)
        found: Tool | None = memory.find(key)
        if found is None and parts is not None and (found := parts.tool(i)) is not None:
            memory.keep(key, found)
        if found is not None:
            known.append(found)
            continue
        at, tool = f"$.tools[{i}]", Raw(text)
        wire = part(tool, WireTool, at)
        schema = raw(wire.input_schema, f"{at}.input_schema")
        if not schema and wire.type and (own := client_tool(wire.type, wire.name, wire.description or "")):
            known.append(own)
            continue
        if not schema and is_search(wire.type):
            search = search or read_tool(tool, at)
        if (not schema and wire.type not in _CLIENT_TOOLS) or (wire.defer_loading and wire.name == _PLACEHOLDER):
            others.append(tool)
            continue
        if not wire.name:
            raise MalformedRequest(f"{at}.name is required.", param=f"{at}.name", reason="missing_required_parameter")
        known.append(Tool(wire.name, wire.description or "", schema if schema.startswith(b"{") else _NO_ARGUMENTS))
        memory.keep(key, known[-1])
    return tuple(known), others, search


def _read_choice(choice: WireChoice | None) -> ToolChoice:
    if choice is None:
        return AUTO
    if choice.type == "tool" and not choice.name:
        raise MalformedRequest(
            "$.tool_choice.name is required.", param="$.tool_choice.name", reason="missing_required_parameter"
        )
    name = choice.name if choice.type == "tool" else ""
    return ToolChoice(choice.type, name, parallel=not choice.disable_parallel_tool_use)


def _read_output(config: Raw) -> OutputFormat | None:
    """``output_config.format``, which stays in `extras` too. Without a schema it asks for nothing."""
    if not config or bytes(config) == b"null":
        return None
    wanted = part(config, WireShape, "$.output_config").format
    if wanted is None or wanted.type != "json_schema" or not is_object(wanted.schema):
        return None
    return OutputFormat(bytes(wanted.schema))


def _read_thinking(extras: dict[str, Raw]) -> Thinking:
    """Take what is understood of ``thinking`` and ``output_config`` out of `extras`; the rest of both stays there."""
    asked = _take(extras, "thinking", WireThinking, ("type", "budget_tokens"))
    output = _take(extras, "output_config", WireOutput, ("effort",))
    effort = (output and output.effort) or ""
    if effort not in EFFORTS:
        effort = ""
    if asked is None or asked.type == "disabled":
        return Thinking(effort=effort) if effort else THINKING_OFF
    budget = asked.budget_tokens if asked.type == "enabled" else None
    return Thinking(enabled=True, budget=None if budget is None else int(budget), effort=effort)


def _take(extras: dict[str, Raw], name: str, kind: type[T], fields: tuple[str, ...]) -> T | None:
    value = extras.pop(name, _UNSET)
    if not value or bytes(value) == b"null":
        return None
    taken = part(value, kind, f"$.{name}")
    rest = {key: member for key, member in part(value, dict[str, Raw], f"$.{name}").items() if key not in fields}
    if rest:
        extras[name] = Raw(encode(rest))
    return taken


# Writing


def write_request(request: TurnRequest, stamp: Stamp) -> bytes:
    """The body of a Messages request. `stamp.model` is who is asked, and how much it may say where nothing was said."""
    extras = dict(request.extras) if request.spoken_in == NAME else {}
    sampling = request.sampling
    max_tokens = stamp.model.max_output if sampling.max_tokens is None else sampling.max_tokens
    body: dict[str, object] = {"model": stamp.model.id, "max_tokens": max_tokens}
    if request.system:
        body["system"] = [_text(part.text) for part in request.system]
    body["messages"] = [_write_message(message) for message in request.messages]
    others = msgspec.json.decode(extras.pop("tools", b"[]"), type=list[Raw])
    if request.search is not None and request.spoken_in != NAME:
        others.append(Raw(encode(write_tool(request.search))))
    if request.tools or others:
        body["tools"] = [_write_tool(tool) for tool in request.tools] + others
    if request.tool_choice != AUTO:
        body["tool_choice"] = _write_choice(request.tool_choice)
    _write_thinking(request.thinking, extras, body)
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop_sequences"] = sampling.stop
    body["stream"] = request.stream
    for name, value in extras.items():
        body[name] = Raw(value)
    return encode(body)


def _write_message(message: Message) -> dict[str, object]:
    return {"role": message.role.value, "content": [_write_block(block) for block in message.content]}


def _write_block(block: ContentBlock) -> dict[str, object]:
    match block:
        case Text(text=text):
            return _text(text)
        case Image(media_type=media_type, data=data):
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case Attachment(media_type=media_type, url=url) if url:
            return {"type": "image" if media_type == "image/*" else "document", "source": {"type": "url", "url": url}}
        case Attachment(media_type=media_type, data=data):
            return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case Thought(redacted=data) if data:
            return {"type": "redacted_thinking", "data": data}
        case Thought(text=text, signature=signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": Raw(arguments)}
        case ToolResult(call_id=call_id, content=content, is_error=is_error):
            result: dict[str, object] = {
                "type": "tool_result",
                "tool_use_id": call_id,
                "content": [_write_block(inner) for inner in content],
            }
            return result | {"is_error": True} if is_error else result
        case SearchCall():
            return write_call(block)
        case SearchOutcome():
            return write_outcome(block)


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _write_tool(tool: Tool) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "input_schema": Raw(tool.schema)}


def _write_choice(choice: ToolChoice) -> dict[str, object]:
    wire: dict[str, object] = {"type": choice.mode}
    if choice.mode == "tool":
        wire["name"] = choice.name
    if not choice.parallel:
        wire["disable_parallel_tool_use"] = True
    return wire


def _write_thinking(thinking: Thinking, extras: dict[str, RawJson], body: dict[str, object]) -> None:
    """Put ``thinking`` and ``output_config`` together again; what `_read_thinking` left in `extras` goes in too."""
    more = msgspec.json.decode(extras.pop("thinking", b"{}"), type=dict[str, Raw])
    if thinking.enabled and thinking.budget is not None:
        body["thinking"] = {"type": "enabled", "budget_tokens": thinking.budget, **more}
    elif thinking.enabled:
        body["thinking"] = {"type": "adaptive", **more}
    output: dict[str, object] = dict(msgspec.json.decode(extras.pop("output_config", b"{}"), type=dict[str, Raw]))
    if thinking.effort:
        output["effort"] = thinking.effort
    if output:
        body["output_config"] = output
