"""Responses requests, read and written (client-apis.md sections 3.1 to 3.3).

``input`` is a flat list of items; a conversation is a list of messages. How the two meet:

- neighbouring items that the model made (its messages, reasoning, calls) are one assistant message, neighbouring
  results one user message, and they come apart again when written; calls and results pair by ``call_id``;
- ``instructions``, then the system and developer messages in front, become `TurnRequest.system`; later ones stay where
  they are. Where there is nothing but those, the last of them is the question;
- tools may also arrive as items (``additional_tools``, ``tool_search_output``); `tools` says what becomes of them;
- items of tools that the server runs say nothing to a model that has no such tool and are passed over, as are
  references to items that nobody kept; what is unknown, or holds an output of its own, is kept as its JSON.

All other fields, and those that an answer repeats, ride in `TurnRequest.extras` and are written again. One key there is
ours alone: `MORE_TOOLS`, the tools that came as items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.hints import session_hint
from kirostream.dialects.jsontext import as_object, decode, encode, is_object, part, raw
from kirostream.dialects.openai_chat.request import WireFileData, read_file, read_image
from kirostream.dialects.openai_responses.thoughts import FOREIGN, PLAIN, Seal, pack, unpack
from kirostream.dialects.openai_responses.tools import (
    Kind,
    Offer,
    call_item,
    custom_arguments,
    flat,
    read_tools,
)
from kirostream.errors import MalformedRequest
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
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

NAME: Final = "openai_responses"

MORE_TOOLS: Final = "additional_tools"
"""The key of `TurnRequest.extras` under which tools ride that came as items: a JSON list."""

EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""``reasoning.effort`` to a word of `Thinking.effort`; ``none`` is no thinking, a new word is ``medium``."""

PASSED_OVER: Final = frozenset(
    {
        "additional_tools",  # read with the tools
        "compaction",  # another server's; what we did not seal, nobody here can read
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "file_search_call",
        "image_generation_call",
        "item_reference",  # resolved before, or about something that was never kept
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "web_search_call",
    }
)
"""Items that say nothing to a model here."""

_BUDGETS: Final = ((4_096, "low"), (16_384, "medium"))
_UNSET: Final = Raw()


class WireReasoning(msgspec.Struct):
    """``reasoning``."""

    effort: str | None = None


class WireTextFormat(msgspec.Struct):
    """``text.format``."""

    type: str = "text"
    name: str | None = None
    schema: Raw = _UNSET
    description: str | None = None


class WireTextConfig(msgspec.Struct):
    """``text``."""

    format: WireTextFormat | None = None


class WireBody(msgspec.Struct):
    """What is understood of a body; the rest becomes `TurnRequest.extras`."""

    model: str
    input: str | list[Raw] | None = None
    instructions: str | list[Raw] | None = None
    stream: bool | None = None
    max_output_tokens: int | float | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Raw] | None = None
    tool_choice: Raw = _UNSET
    parallel_tool_calls: bool | None = None
    reasoning: WireReasoning | None = None
    text: WireTextConfig | None = None


SPOKEN: Final = frozenset({"model", "input", "stream", "max_output_tokens", "temperature", "top_p"})
"""Fields that the turn itself says; every other one rides in the extras as well, for answers repeat it."""


class WireIdentity(msgspec.Struct):
    """What may tell one conversation from another. Read leniently: it changes nothing that is said."""

    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    user: str | None = None
    safety_identifier: str | None = None


class WireKind(msgspec.Struct):
    """The first look at an item or a part."""

    type: str | None = None
    role: str | None = None


class WireMessage(msgspec.Struct):
    """A ``message``; also an item without a type."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Raw] | None = None


class WireFunctionCall(msgspec.Struct):
    """``function_call``."""

    call_id: str
    name: str
    arguments: Raw = _UNSET
    namespace: str | None = None


class WireCustomCall(msgspec.Struct):
    """``custom_tool_call``."""

    call_id: str
    name: str
    input: str = ""
    namespace: str | None = None


class WireHostCall(msgspec.Struct):
    """A call of the shells, of the patcher, or of the tool search."""

    call_id: str | None = None
    id: str | None = None
    action: Raw = _UNSET
    operation: Raw = _UNSET
    arguments: Raw = _UNSET
    execution: str | None = None


class WireOutput(msgspec.Struct):
    """The output of a call of any kind. ``local_shell_call_output`` names the call in `id`."""

    call_id: str | None = None
    id: str | None = None
    output: Raw = _UNSET
    status: str | None = None
    tools: list[Raw] | None = None


class WireShellOutcome(msgspec.Struct):
    """How a shell command ended."""

    type: str = "exit"
    exit_code: int | None = None


class WireShellOutput(msgspec.Struct):
    """What one shell command said."""

    stdout: str = ""
    stderr: str = ""
    outcome: WireShellOutcome | None = None


class WireReasoningItem(msgspec.Struct):
    """``reasoning``, as an item."""

    summary: list[Raw] | None = None
    content: list[Raw] | None = None
    encrypted_content: str | None = None


class WireToolList(msgspec.Struct):
    """An item that brings tools."""

    tools: list[Raw] | None = None


class WireText(msgspec.Struct):
    """A part that is text, of any of the names for it."""

    text: str | None = None
    refusal: str | None = None


class WireImage(msgspec.Struct):
    """``input_image``. `image_url` is a string; some clients send chat's object."""

    image_url: Raw = _UNSET
    file_id: str | None = None


class WireUrl(msgspec.Struct):
    """Chat's object round a URL."""

    url: str


class WireNamed(msgspec.Struct):
    """Something that names a tool: an object of ``tool_choice`` or one of its allowed tools."""

    type: str = ""
    name: str | None = None
    namespace: str | None = None
    mode: str = "auto"
    tools: list[Raw] | None = None


# Reading


def read_request(body: bytes, headers: Headers, *, seal: Seal = PLAIN) -> TurnRequest:
    """A question, as a client of the Responses API asks it.

    Raises:
        MalformedRequest: the body cannot be understood; `param` is the path of what is wrong.
    """
    wire = decode(body, WireBody)
    if not wire.model:
        raise MalformedRequest("$.model is empty.", param="$.model", reason="invalid_value")
    fields = decode(body, dict[str, Raw])
    items = wire.input if isinstance(wire.input, list) else []
    more_tools: list[tuple[Raw, str]] = []
    if isinstance(wire.input, str):
        messages = [Message(Role.USER, (Text(wire.input),))] if wire.input else []
    else:
        messages = _join(_read_items(items, more_tools, seal))
    if not messages:
        raise MalformedRequest(
            "$.input is required: a text, or a list of items with at least one message.",
            param="$.input",
            reason="missing_required_parameter" if wire.input is None else "invalid_value",
        )
    lead = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages) - 1)
    system = _read_instructions(wire.instructions)
    system += [block for message in messages[:lead] for block in message.content if isinstance(block, Text)]
    offer = read_tools([*((tool, f"$.tools[{i}]") for i, tool in enumerate(wire.tools or ())), *more_tools])
    tools, choice = _read_choice(wire, offer)
    extras = {name: raw(value, f"$.{name}") for name, value in fields.items() if name not in SPOKEN}
    if more_tools:
        extras[MORE_TOOLS] = b"[" + b",".join(raw(tool, at) for tool, at in more_tools) + b"]"
    identity = _identity(fields)
    return TurnRequest(
        model=wire.model,
        messages=tuple(messages[lead:]),
        system=tuple(system),
        tools=tools,
        tool_choice=choice,
        sampling=Sampling(
            None if wire.max_output_tokens is None else int(wire.max_output_tokens), wire.temperature, wire.top_p
        ),
        thinking=_read_thinking(wire.reasoning),
        output=_read_shape(wire.text),
        stream=bool(wire.stream),
        session=session_hint(
            headers,
            cache_key=identity.prompt_cache_key or "",
            previous=identity.previous_response_id or "",
            user=identity.user or identity.safety_identifier or "",
        ),
        spoken_in=NAME,
        extras=extras,
    )


def _identity(fields: Mapping[str, Raw]) -> WireIdentity:
    found: dict[str, str] = {}
    for name in WireIdentity.__struct_fields__:
        value = msgspec.json.decode(fields.get(name, b"null"))
        if isinstance(value, str):
            found[name] = value
    return WireIdentity(**found)


def _read_instructions(instructions: str | Sequence[Raw] | None) -> list[Text]:
    if isinstance(instructions, str):
        return [Text(instructions)] if instructions else []
    # A list is what a stored answer repeats of a prompt template: items, of which the texts count.
    messages = _read_items(instructions or (), [], PLAIN, "$.instructions")
    return [block for message in messages for block in message.content if isinstance(block, Text)]


def _read_items(
    items: Sequence[Raw], more_tools: list[tuple[Raw, str]], seal: Seal, at: str = "$.input"
) -> Iterable[Message]:
    for i, item in enumerate(items):
        here = f"{at}[{i}]"
        kind = part(item, WireKind, here)
        name = kind.type or "message"
        if name in ("additional_tools", "tool_search_output"):
            tools = part(item, WireToolList, here).tools or ()
            more_tools.extend((tool, f"{here}.tools[{j}]") for j, tool in enumerate(tools))
        if name in PASSED_OVER:
            continue
        reader = _ITEMS.get(name)
        if reader is not None:
            yield from reader(item, here)
        elif name == "reasoning":
            yield from _read_reasoning(item, here, seal)
        else:
            yield Message(Role.ASSISTANT, (Text(raw(item, here).decode()),))


_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}


def _read_message(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireMessage, at)
    content = _read_content(wire.content, f"{at}.content")
    if content or wire.role == "user":
        yield Message(_ROLES[wire.role], content)


def _read_reasoning(item: Raw, at: str, seal: Seal) -> Iterable[Message]:
    wire = part(item, WireReasoningItem, at)
    thought: Thought | None
    if wire.encrypted_content:
        thought = unpack(wire.encrypted_content, seal)
    else:
        parts = [part(value, WireText, at).text for value in wire.content or wire.summary or ()]
        text = "\n\n".join(text for text in parts if text)
        thought = Thought(text) if text else None
    if thought is not None:
        yield Message(Role.ASSISTANT, (thought,))


def _call(call_id: str, name: str, arguments: RawJson) -> Iterable[Message]:
    yield Message(Role.ASSISTANT, (ToolCall(call_id, name, arguments),))


def _read_function_call(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireFunctionCall, at)
    arguments = raw(wire.arguments, f"{at}.arguments")
    if arguments.startswith(b'"'):
        arguments = msgspec.json.decode(arguments, type=str).encode()
    return _call(wire.call_id, flat(wire.name, wire.namespace or ""), as_object(arguments))


def _read_custom_call(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireCustomCall, at)
    return _call(wire.call_id, flat(wire.name, wire.namespace or ""), custom_arguments(wire.input))


ItemReader: TypeAlias = Callable[[Raw, str], Iterable[Message]]


def _host_call(kind: Kind, member: Literal["action", "operation", "arguments"]) -> ItemReader:
    def read(item: Raw, at: str) -> Iterable[Message]:
        wire = part(item, WireHostCall, at)
        if kind is Kind.TOOL_SEARCH and wire.execution != "client":
            return ()  # the server searched; what it found follows as tools
        said = raw(getattr(wire, member), f"{at}.{member}")
        return _call(_call_id(wire.call_id, wire.id, at), kind.value, as_object(said))

    return read


def _call_id(call_id: str | None, item_id: str | None, at: str) -> str:
    found = call_id or item_id
    if not found:
        raise MalformedRequest(f"{at}.call_id is required.", param=f"{at}.call_id", reason="missing_required_parameter")
    return found


def _read_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    call_id = _call_id(wire.call_id, wire.id, at)
    blocks = _read_output_content(wire.output, f"{at}.output")
    failed = wire.status in ("failed", "incomplete") and not blocks
    content = tuple(block for block in blocks if isinstance(block, Text | Image | Attachment))
    yield Message(Role.USER, (ToolResult(call_id, content, failed),))


def _read_output_content(output: Raw, at: str) -> tuple[ContentBlock, ...]:
    said = bytes(output)
    if said.startswith(b'"'):
        text = msgspec.json.decode(said, type=str)
        return (Text(text),) if text else ()
    if said.startswith(b"["):
        return _read_content(part(output, list[Raw], at), at)
    return (Text(raw(output, at).decode()),) if said and said != b"null" else ()


def _read_shell_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    if not bytes(wire.output).startswith(b"["):
        yield from _read_output(item, at)
        return
    texts = []
    for said in part(wire.output, list[WireShellOutput], f"{at}.output"):
        lines = [said.stdout] if said.stdout else []
        if said.stderr:
            lines.append(f"stderr:\n{said.stderr}")
        if said.outcome is not None and said.outcome.type == "timeout":
            lines.append("[timed out]")
        elif said.outcome is not None and said.outcome.exit_code:
            lines.append(f"[exit code {said.outcome.exit_code}]")
        texts.append("\n".join(lines))
    content = tuple(Text(text) for text in texts if text)
    yield Message(Role.USER, (ToolResult(_call_id(wire.call_id, wire.id, at), content),))


def _read_patch_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    blocks = _read_output_content(wire.output, f"{at}.output") or (Text(wire.status or "completed"),)
    content = tuple(block for block in blocks if isinstance(block, Text | Image | Attachment))
    yield Message(Role.USER, (ToolResult(_call_id(wire.call_id, wire.id, at), content, wire.status == "failed"),))


def _read_search_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    if wire.call_id:  # else the server's own
        offer = read_tools((tool, f"{at}.tools[{i}]") for i, tool in enumerate(wire.tools or ()))
        found = ", ".join(tool.name for tool in offer.tools)
        text = f"These tools can be called now: {found}." if found else "No tools were found."
        yield Message(Role.USER, (ToolResult(wire.call_id, (Text(text),)),))


_ITEMS: Final[Mapping[str, ItemReader]] = {
    "message": _read_message,
    "function_call": _read_function_call,
    "custom_tool_call": _read_custom_call,
    "local_shell_call": _host_call(Kind.LOCAL_SHELL, "action"),
    "shell_call": _host_call(Kind.SHELL, "action"),
    "apply_patch_call": _host_call(Kind.APPLY_PATCH, "operation"),
    "tool_search_call": _host_call(Kind.TOOL_SEARCH, "arguments"),
    "function_call_output": _read_output,
    "custom_tool_call_output": _read_output,
    "local_shell_call_output": _read_output,
    "shell_call_output": _read_shell_output,
    "apply_patch_call_output": _read_patch_output,
    "tool_search_output": _read_search_output,
}
"""How each kind of item is read. Reasoning is not here: it needs the seal."""


def _join(messages: Iterable[Message]) -> list[Message]:
    """Neighbours that are one message elsewhere: what the model made, and results."""
    joined: list[Message] = []
    for message in messages:
        if joined and _of_one_piece(joined[-1], message):
            joined[-1] = Message(message.role, joined[-1].content + message.content)
        else:
            joined.append(message)
    return joined


def _of_one_piece(one: Message, other: Message) -> bool:
    if one.role is Role.ASSISTANT:
        return other.role is Role.ASSISTANT
    return _is_results(one) and _is_results(other)


def _is_results(message: Message) -> bool:
    return bool(message.content) and all(isinstance(block, ToolResult) for block in message.content)


def _read_content(content: str | Sequence[Raw] | None, at: str) -> tuple[ContentBlock, ...]:
    """The parts of a message; empty texts are dropped, since they say nothing and upstreams refuse them."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    blocks: list[ContentBlock] = []
    for i, value in enumerate(content or ()):
        block = _read_part(value, f"{at}[{i}]")
        if block != Text(""):
            blocks.append(block)
    return tuple(blocks)


def _read_part(value: Raw, at: str) -> ContentBlock:
    match part(value, WireKind, at).type:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return Text(part(value, WireText, at).text or "")
        case "refusal":
            return Text(part(value, WireText, at).refusal or "")
        case "input_image" | "image_url" | "computer_screenshot":
            return _read_image_part(value, at)
        case "input_file":
            return read_file(part(value, WireFileData, at), at)
        case "input_audio":
            raise MalformedRequest(
                f"{at}: the models here do not hear; send a transcript as text.", param=at, reason="unsupported_value"
            )
        case _:
            return Text(raw(value, at).decode())


def _read_image_part(value: Raw, at: str) -> Image | Attachment:
    wire = part(value, WireImage, at)
    url = bytes(wire.image_url)
    if url in (b"", b"null"):
        raise MalformedRequest(
            f"{at}.image_url is required: files are not kept here, so an image has to come along.",
            param=f"{at}.image_url",
            reason="unsupported_value" if wire.file_id else "missing_required_parameter",
        )
    if url.startswith(b"{"):
        return read_image(part(wire.image_url, WireUrl, f"{at}.image_url").url, f"{at}.image_url.url")
    return read_image(part(wire.image_url, str, f"{at}.image_url"), f"{at}.image_url")


def _read_choice(wire: WireBody, offer: Offer) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and whether one has to be."""
    parallel = wire.parallel_tool_calls is not False
    tools = offer.tools
    said = bytes(wire.tool_choice)
    if not tools:
        return (), AUTO
    if not said.startswith(b"{"):
        word = part(wire.tool_choice, str, "$.tool_choice") if said not in (b"", b"null") else "auto"
        modes: Mapping[str, Literal["any", "none"]] = {"required": "any", "none": "none"}
        return tools, ToolChoice(modes.get(word, "auto"), parallel=parallel)
    choice = part(wire.tool_choice, WireNamed, "$.tool_choice")
    if choice.type == "allowed_tools":
        # The list is kept whole by clients for the sake of caches; what may not be called need not be offered.
        listed = choice.tools or ()
        allowed = {_chosen(part(tool, WireNamed, f"$.tool_choice.tools[{i}]"), offer) for i, tool in enumerate(listed)}
        tools = tuple(tool for tool in tools if tool.name in allowed)
        return tools, ToolChoice("any" if choice.mode == "required" and tools else "auto", parallel=parallel)
    if choice.type in ("function", "custom") and not choice.name:
        at = "$.tool_choice.name"
        raise MalformedRequest(f"{at} is required.", param=at, reason="missing_required_parameter")
    name = _chosen(choice, offer)
    if not name:  # a tool that the server would run
        return tools, ToolChoice("auto", parallel=parallel)
    return tools, ToolChoice("tool", name, parallel)


def _chosen(choice: WireNamed, offer: Offer) -> str:
    """The flat name of what a choice names; empty where it is no tool of the client's."""
    if choice.type in ("function", "custom", ""):
        return flat(choice.name or "", choice.namespace or "")
    return choice.type if choice.type in offer.origins else ""


def _read_shape(text: WireTextConfig | None) -> OutputFormat | None:
    form = (text and text.format) or WireTextFormat()
    match form.type:
        case "text":
            return None
        case "json_object":
            return OutputFormat(b'{"type":"object"}')
        case "json_schema" if is_object(form.schema):
            return OutputFormat(bytes(form.schema), form.description or "")
        case "json_schema":
            at = "$.text.format.schema"
            raise MalformedRequest(f"{at} has to be a JSON Schema.", param=at, reason="missing_required_parameter")
        case kind:
            raise MalformedRequest(
                f"$.text.format.type is {kind!r}; it takes text, json_object or json_schema.",
                param="$.text.format.type",
                reason="unsupported_value",
            )


def _read_thinking(reasoning: WireReasoning | None) -> Thinking:
    effort = reasoning.effort if reasoning else None
    if not effort or effort == "none":
        return THINKING_OFF
    return Thinking(enabled=True, effort=EFFORTS.get(effort, "medium"))


# Writing


def write_request(request: TurnRequest, stamp: Stamp, *, seal: Seal = PLAIN) -> bytes:
    """The body of a Responses request. `stamp.model` is who is asked.

    What the client itself said in this dialect goes out as it said it (tools of all kinds, their choice, the depth of
    reasoning); for a client of another dialect those are made from the turn.
    """
    own = request.extras if request.spoken_in == NAME else {}
    sampling = request.sampling
    body: dict[str, object] = {"model": stamp.model.id}
    system = list(request.system)
    if system and _spoken(own, "instructions"):
        system = system[len(_instructions(own["instructions"])) :]
    items: list[object] = []
    if MORE_TOOLS in own:
        items.append({"type": "additional_tools", "role": "developer", "tools": Raw(own[MORE_TOOLS])})
    if system:
        items.append(_message_item("developer", system))
    offer = offered(own)
    calls: dict[str, Kind] = {}
    for message in request.messages:
        items.extend(_write_message(message, offer, calls, seal))
    body["input"] = items
    if sampling.max_tokens is not None:
        body["max_output_tokens"] = sampling.max_tokens
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if request.spoken_in != NAME:
        body |= _spoken_elsewhere(request)
    body["stream"] = request.stream
    for name, value in own.items():
        if name != MORE_TOOLS:
            body[name] = Raw(value)
    return encode(body)


def offered(extras: Mapping[str, RawJson]) -> Offer:
    """The tools that ride in a request's extras, read again. Empty where there are none."""
    listed: list[tuple[Raw, str]] = []
    for key in ("tools", MORE_TOOLS):
        value = extras.get(key, b"null")
        if value != b"null":
            listed += [(tool, f"$.{key}[{i}]") for i, tool in enumerate(part(Raw(value), list[Raw], f"$.{key}"))]
    return read_tools(listed)


def _spoken(own: Mapping[str, RawJson], name: str) -> bool:
    return own.get(name, b"null") != b"null"


def _instructions(said: RawJson) -> list[Text]:
    return _read_instructions(part(Raw(said), str, "$") if said.startswith(b'"') else part(Raw(said), list[Raw], "$"))


def _spoken_elsewhere(request: TurnRequest) -> dict[str, object]:
    """The fields that a client of this dialect would have said itself. Nothing is kept upstream."""
    fields: dict[str, object] = {"store": False, "include": ["reasoning.encrypted_content"]}
    if request.tools:
        fields["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": Raw(tool.schema),
                "strict": False,
            }
            for tool in request.tools
        ]
        if request.tool_choice != AUTO:
            choice = request.tool_choice
            words: Mapping[str, object] = {"any": "required", "tool": {"type": "function", "name": choice.name}}
            fields["tool_choice"] = words.get(choice.mode, choice.mode)
            fields["parallel_tool_calls"] = choice.parallel
    if request.output is not None:
        form = {"type": "json_schema", "name": "answer", "schema": Raw(request.output.schema), "strict": False}
        fields["text"] = {"format": form | {"description": request.output.description}}
    if request.thinking.enabled:
        fields["reasoning"] = {"effort": _effort(request.thinking), "summary": "auto"}
    return fields


def _effort(thinking: Thinking) -> str:
    if thinking.effort or thinking.budget is None:
        return thinking.effort or "medium"
    return next((effort for most, effort in _BUDGETS if thinking.budget <= most), "high")


def _write_message(message: Message, offer: Offer, calls: dict[str, Kind], seal: Seal) -> list[object]:
    """The items of one message, in order; texts and images beside each other are one item. `calls` is filled."""
    items: list[object] = []
    spoken: list[ContentBlock] = []
    role = {Role.USER: "user", Role.ASSISTANT: "assistant", Role.SYSTEM: "developer"}[message.role]

    def flush() -> None:
        if spoken:
            items.append(_message_item(role, spoken))
            spoken.clear()

    for block in message.content:
        match block:
            case Thought():
                flush()
                items.append(thought_item(block, seal))
            case ToolCall():
                flush()
                origin = offer.origin(block.name)
                calls[block.id] = origin.kind
                items.append(call_item(origin, "", block.id, block.arguments))
            case ToolResult():
                flush()
                items.append(_output_item(block, calls.get(block.call_id, Kind.FUNCTION)))
            case _:
                spoken.append(block)
    flush()
    return items or [_message_item(role, [])]


def _message_item(role: str, blocks: Sequence[ContentBlock]) -> dict[str, object]:
    return {"type": "message", "role": role, "content": _write_content(blocks, role)}


def _write_content(blocks: Sequence[ContentBlock], role: str = "user") -> list[dict[str, object]]:
    parts: list[dict[str, object]] = []
    for block in blocks:
        if isinstance(block, Text):
            parts.append({"type": "output_text" if role == "assistant" else "input_text", "text": block.text})
        elif isinstance(block, Image):
            parts.append({"type": "input_image", "image_url": f"data:{block.media_type};base64,{block.data}"})
        elif isinstance(block, Attachment) and block.url:
            parts.append({"type": "input_image", "image_url": block.url})
        elif isinstance(block, Attachment):
            data = f"data:{block.media_type};base64,{block.data}"
            parts.append({"type": "input_file", "file_data": data, "filename": block.title or "document.pdf"})
    return parts


def thought_item(thought: Thought, seal: Seal) -> dict[str, object]:
    """A thought as an item of a request."""
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    foreign = thought.signature.startswith(FOREIGN)
    sealed = thought.signature.removeprefix(FOREIGN) if foreign else pack(thought, seal)
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _output_item(result: ToolResult, kind: Kind) -> dict[str, object]:
    match result.content:
        case ():
            output: object = ""
        case (Text(text=output),):
            pass
        case _:
            output = _write_content(result.content)
    match kind:
        case Kind.CUSTOM:
            return {"type": "custom_tool_call_output", "call_id": result.call_id, "output": output}
        case Kind.APPLY_PATCH:
            status = "failed" if result.is_error else "completed"
            return {
                "type": "apply_patch_call_output",
                "call_id": result.call_id,
                "status": status,
                "output": output,
            }
        case _:
            return {"type": "function_call_output", "call_id": result.call_id, "output": output}
