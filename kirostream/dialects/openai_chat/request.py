"""Chat requests, read and written (client-apis.md section 2.1).

How the two shapes of a conversation meet:

- system and developer messages in front become `TurnRequest.system`; later ones stay where they are. Where there is
  nothing but system messages, the last of them is the question;
- adjacent ``tool`` messages become one user message of tool results, and come apart again when written;
- ``reasoning_content`` of an assistant message is a thought in front of it. Chat has no word for its signature;
- chat has no word for a web search that was run within a turn either: it is written as text.

Unknown top-level fields ride in `TurnRequest.extras` and are written again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw

from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.hints import session_hint
from kirostream.dialects.jsontext import as_object, base64_text, decode, encode, is_object, part, raw
from kirostream.dialects.openai_chat.thoughts import FORM
from kirostream.dialects.openai_chat.tools import WireCustom, custom_tool, custom_tools, speaks_legacy, write_call
from kirostream.dialects.openai_responses.tools import custom_arguments
from kirostream.dialects.openai_responses.websearch import read_search
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

NAME: Final = "openai_chat"
PDF: Final = "application/pdf"

EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""``reasoning_effort`` to a word of `Thinking.effort`; ``none`` is no thinking, a new word is ``medium``."""

_BUDGETS: Final = ((4_096, "low"), (16_384, "medium"))
"""Where a question with a budget of thinking tokens is asked in chat: up to so many tokens is that effort."""

_NO_ARGUMENTS: Final = b'{"type":"object","properties":{}}'
_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.IGNORECASE)
_TEXTS: Final = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".yaml", ".yml", ".toml", ".py", ".js", ".ts")
_UNSET: Final = Raw()


class WireFunction(msgspec.Struct):
    """The ``function`` of a call. `arguments` is a string of JSON; some clients send the object itself."""

    name: str
    arguments: Raw = _UNSET


class WireCustomCall(msgspec.Struct):
    """The ``custom`` of a call."""

    name: str
    input: str | None = None


class WireCall(msgspec.Struct):
    """One of ``tool_calls``."""

    function: WireFunction | None = None
    custom: WireCustomCall | None = None
    id: str | None = None


class WireMessage(msgspec.Struct):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Raw] | None = None
    tool_calls: list[WireCall] | None = None
    function_call: WireFunction | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: Raw = _UNSET
    refusal: str | None = None


class WireToolFunction(msgspec.Struct):
    """The ``function`` of a tool."""

    name: str
    description: str | None = None
    parameters: Raw = _UNSET


class WireTool(msgspec.Struct):
    """One of ``tools``; those that are neither a `function` nor `custom` cannot be offered and are passed over."""

    type: str = "function"
    function: WireToolFunction | None = None
    custom: WireCustom | None = None


class WireNamed(msgspec.Struct):
    """What a tool choice names."""

    name: str = ""


class WireAllowedTool(msgspec.Struct):
    """One of the allowed tools."""

    function: WireNamed | None = None
    custom: WireNamed | None = None


class WireAllowed(msgspec.Struct):
    """``allowed_tools``."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[WireAllowedTool] = []


class WireChoice(msgspec.Struct):
    """``tool_choice`` as an object."""

    type: Literal["function", "custom", "allowed_tools"]
    function: WireNamed | None = None
    custom: WireNamed | None = None
    allowed_tools: WireAllowed | None = None


class WireStreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None


class WireSchema(msgspec.Struct):
    """``response_format.json_schema``."""

    schema: Raw = _UNSET
    description: str | None = None


class WireFormat(msgspec.Struct):
    """``response_format``."""

    type: str
    json_schema: WireSchema | None = None


class WireBody(msgspec.Struct):
    """What is understood of a body; the rest becomes `TurnRequest.extras`."""

    model: str
    messages: list[WireMessage]
    stream: bool | None = None
    stream_options: WireStreamOptions | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    n: int | float | None = None
    tools: list[Raw] | None = None
    functions: list[WireToolFunction] | None = None
    function_call: Literal["auto", "none"] | WireNamed | None = None
    tool_choice: Literal["auto", "none", "required"] | WireChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    audio: Raw = _UNSET


class WireIdentity(msgspec.Struct):
    """What may tell one conversation from another. Read leniently: it changes nothing that is said."""

    prompt_cache_key: str | None = None
    user: str | None = None
    safety_identifier: str | None = None


_KNOWN: Final = frozenset(WireBody.__struct_fields__) - {"functions", "function_call"}


class WireKind(msgspec.Struct):
    """The first look at a content part."""

    type: str


class WireText(msgspec.Struct):
    """``text``."""

    text: str | None = None


class WireRefusal(msgspec.Struct):
    """``refusal``."""

    refusal: str | None = None


class WireUrl(msgspec.Struct):
    """``image_url``."""

    url: str


class WireImage(msgspec.Struct):
    """``image_url`` as a part."""

    image_url: WireUrl


class WireFileData(msgspec.Struct):
    """``file``."""

    file_data: str | None = None
    filename: str | None = None


class WireFile(msgspec.Struct):
    """``file`` as a part."""

    file: WireFileData


# Reading


def read_request(body: bytes, headers: Headers) -> TurnRequest:
    """A question, as a client of the chat API asks it.

    Raises:
        MalformedRequest: the body cannot be understood; `param` is the path of what is wrong.
    """
    wire = decode(body, WireBody)
    _check(wire)
    fields = decode(body, dict[str, Raw])
    called: dict[str, str] = {}
    messages = [_read_message(message, called, i) for i, message in enumerate(wire.messages)]
    lead = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages) - 1)
    system = [block for message in messages[:lead] for block in message.content if isinstance(block, Text)]
    tools, custom, choice = _read_tools(wire)
    search = _read_search(fields.get("web_search_options", _UNSET))
    max_tokens = wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens
    identity = _identity(fields)
    extras = {name: raw(value, f"$.{name}") for name, value in fields.items() if name not in _KNOWN}
    if custom:
        extras["tools"] = encode(custom)
    if wire.tools or not wire.functions:  # functions that are not offered would turn the answer into legacy form
        extras.pop("functions", None)
        extras.pop("function_call", None)
    return TurnRequest(
        model=wire.model,
        messages=tuple(_join_results(messages[lead:])),
        system=tuple(system),
        tools=tools,
        tool_choice=choice,
        sampling=Sampling(
            None if max_tokens is None else int(max_tokens),
            wire.temperature,
            wire.top_p,
            (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ()),
        ),
        thinking=_read_thinking(wire.reasoning_effort),
        choices=int(wire.n or 1),
        output=_read_output(fields.get("response_format", _UNSET)),
        search=None if wire.tool_choice == "none" else search,
        stream=bool(wire.stream),
        include_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        session=session_hint(
            headers,
            cache_key=identity.prompt_cache_key or "",
            user=identity.user or identity.safety_identifier or "",
        ),
        spoken_in=NAME,
        extras=extras,
    )


def _check(wire: WireBody) -> None:
    if not wire.model:
        raise MalformedRequest("$.model is empty.", param="$.model", reason="invalid_value")
    if not wire.messages:
        raise MalformedRequest(
            "$.messages is empty; at least one message is needed.", param="$.messages", reason="invalid_value"
        )
    if wire.n is not None and (wire.n < 1 or wire.n != int(wire.n)):
        raise MalformedRequest(f"n is {wire.n}; it has to be 1 or more.", param="$.n", reason="invalid_value")
    for name, limit in (("max_tokens", wire.max_tokens), ("max_completion_tokens", wire.max_completion_tokens)):
        if limit is not None and limit < 1:
            raise MalformedRequest(f"$.{name} has to be 1 or more.", param=f"$.{name}", reason="invalid_value")
    if "audio" in (wire.modalities or ()):
        raise MalformedRequest(
            "The models here do not speak: leave audio out of modalities.",
            param="$.modalities",
            reason="unsupported_value",
        )


def _identity(fields: Mapping[str, Raw]) -> WireIdentity:
    found: dict[str, str] = {}
    for name in WireIdentity.__struct_fields__:
        if name in fields and isinstance(value := msgspec.json.decode(fields[name]), str):
            found[name] = value
    return WireIdentity(**found)


def _read_message(message: WireMessage, called: dict[str, str], number: int) -> Message:
    """A message. `called` holds the id of the last legacy call of each function: their results have a name alone."""
    at = f"$.messages[{number}]"
    content = _read_content(message.content, f"{at}.content")
    match message.role:
        case "system" | "developer":
            return Message(Role.SYSTEM, content)
        case "tool":
            if not message.tool_call_id:
                raise MalformedRequest(
                    f"{at}.tool_call_id is required.", param=f"{at}.tool_call_id", reason="missing_required_parameter"
                )
            result = tuple(block for block in content if isinstance(block, Text | Image | Attachment))
            return Message(Role.USER, (ToolResult(message.tool_call_id, result),))
        case "assistant":
            blocks = _read_assistant(message, content, at)
            if message.function_call is not None:
                name = message.function_call.name
                called[name] = f"call_{number}"
                arguments = _read_arguments(message.function_call, f"{at}.function_call")
                blocks = (*blocks, ToolCall(called[name], name, arguments))
            return Message(Role.ASSISTANT, blocks)
        case "function" if message.name in called:
            result = tuple(block for block in content if isinstance(block, Text | Image | Attachment))
            return Message(Role.USER, (ToolResult(called[message.name], result),))
        case _:  # user, and a function's result whose call is not there
            return Message(Role.USER, content)


def _read_assistant(message: WireMessage, content: tuple[ContentBlock, ...], at: str) -> tuple[ContentBlock, ...]:
    blocks: list[ContentBlock] = []
    thought = message.reasoning_content or _string(message.reasoning)
    if thought:
        blocks.append(Thought(thought))
    blocks.extend(content)
    if message.refusal:
        blocks.append(Text(message.refusal))
    for i, call in enumerate(message.tool_calls or ()):
        here = f"{at}.tool_calls[{i}]"
        if call.function is None and call.custom is None:
            continue  # a call of a kind that is not known, nor can it be told what of
        if not call.id:
            raise MalformedRequest(f"{here}.id is required.", param=f"{here}.id", reason="missing_required_parameter")
        if call.function is not None:
            arguments = _read_arguments(call.function, f"{here}.function")
            blocks.append(ToolCall(call.id, call.function.name, arguments))
        elif call.custom is not None:
            blocks.append(ToolCall(call.id, call.custom.name, custom_arguments(call.custom.input or "")))
    return tuple(blocks)


def _read_arguments(function: WireFunction, at: str) -> RawJson:
    arguments = raw(function.arguments, f"{at}.arguments")
    if arguments.startswith(b'"'):
        arguments = _string(function.arguments).encode()
    return as_object(arguments)


def _string(value: Raw) -> str:
    """A JSON string's text; empty where it is something else."""
    text = bytes(value)
    return str(msgspec.json.decode(text)) if text.startswith(b'"') else ""


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
        case "text":
            return Text(part(value, WireText, at).text or "")
        case "refusal":
            return Text(part(value, WireRefusal, at).refusal or "")
        case "image_url":
            return read_image(part(value, WireImage, at).image_url.url, f"{at}.image_url.url")
        case "file":
            return read_file(part(value, WireFile, at).file, f"{at}.file")
        case "input_audio":
            raise MalformedRequest(
                f"{at}: the models here do not hear; send a transcript as text.", param=at, reason="unsupported_value"
            )
        case _:
            return Text(raw(value, at).decode())


def read_image(url: str, at: str) -> Image | Attachment:
    prefix = _DATA_URL.match(url)
    if prefix is None and url[:8].lower().startswith(("https://", "http://")):
        return Attachment("image/*", url=url, at=at)
    if prefix is None:
        raise MalformedRequest(
            f"{at}: an image has to come as a data: URL in base64, or from an https URL.",
            param=at,
            reason="unsupported_value",
        )
    media_type, data = prefix[1].lower(), url[prefix.end() :]
    if not media_type.startswith("image/") or not data:
        raise MalformedRequest(
            f"{at} has to be data:image/...;base64, followed by data.", param=at, reason="invalid_value"
        )
    return Image(media_type, data)


def read_file(file: WireFileData, at: str) -> ContentBlock:
    """A file's text, or what it can be had from. Data without a ``data:`` prefix is typed by its name."""
    name, whole = file.filename or "", file.file_data or ""
    here = f"{at}.file_data"
    prefix = _DATA_URL.match(whole)
    data = whole[prefix.end() :] if prefix else whole
    guessed = PDF if name.lower().endswith(".pdf") else "text/plain" if name.lower().endswith(_TEXTS) else ""
    match prefix[1].lower() if prefix else guessed:
        case kind if kind.startswith("image/") and data:
            return read_image(whole, here)
        case kind if (kind.startswith("text/") or kind == "application/json") and data:
            text = base64_text(data, here)
            return Text(f"{name}\n{text}" if name else text)
        case "application/pdf" if data:
            return Attachment(PDF, data, title=name, at=here)
        case _:
            raise MalformedRequest(
                f"{at}: a file has to come along, in file_data, as a data: URL of a PDF, a text or an image. "
                "Files that were uploaded elsewhere (file_id) cannot be had from here.",
                param=at,
                reason="unsupported_value",
            )


def _join_results(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if joined and _is_results(message) and _is_results(joined[-1]):
            joined[-1] = Message(Role.USER, joined[-1].content + message.content)
        else:
            joined.append(message)
    return joined


def _is_results(message: Message) -> bool:
    return bool(message.content) and all(isinstance(block, ToolResult) for block in message.content)


def _read_tools(wire: WireBody) -> tuple[tuple[Tool, ...], list[Raw], ToolChoice]:
    """The tools to offer, the raw custom ones among them, and the choice."""
    if not wire.tools and wire.functions:
        return _read_functions(wire.functions, wire.function_call)
    tools: list[Tool] = []
    custom: list[Raw] = []
    for i, value in enumerate(wire.tools or ()):
        at = f"$.tools[{i}]"
        tool = part(value, WireTool, at)
        if tool.function is not None:
            tools.append(_read_function(tool.function, f"{at}.function"))
        elif tool.custom is not None and tool.custom.name:
            tools.append(custom_tool(tool.custom, at))
            custom.append(value)
    choice = wire.tool_choice
    if isinstance(choice, WireChoice) and choice.allowed_tools is not None:
        # The list is kept whole by clients for the sake of caches; what may not be called need not be offered.
        named = [tool.function or tool.custom for tool in choice.allowed_tools.tools]
        allowed = {each.name for each in named if each}
        tools = [tool for tool in tools if tool.name in allowed]
    read = _read_choice(choice, parallel=wire.parallel_tool_calls is not False) if tools else AUTO
    return tuple(tools), custom, read


def _read_functions(
    functions: Sequence[WireToolFunction], call: str | WireNamed | None
) -> tuple[tuple[Tool, ...], list[Raw], ToolChoice]:
    """Functions as they were before there were tools. An answer has room for one call."""
    tools = tuple(_read_function(function, f"$.functions[{i}]") for i, function in enumerate(functions))
    if isinstance(call, WireNamed):
        return tools, [], ToolChoice("tool", call.name, parallel=False)
    return tools, [], ToolChoice("none" if call == "none" else "auto", parallel=False)


def _read_function(function: WireToolFunction, at: str) -> Tool:
    schema = raw(function.parameters, f"{at}.parameters")
    return Tool(function.name, function.description or "", schema if is_object(schema) else _NO_ARGUMENTS)


def _read_choice(choice: str | WireChoice | None, *, parallel: bool) -> ToolChoice:
    if isinstance(choice, WireChoice):
        if choice.type == "allowed_tools":
            required = choice.allowed_tools is not None and choice.allowed_tools.mode == "required"
            return ToolChoice("any" if required else "auto", parallel=parallel)
        name = (choice.function or choice.custom or WireNamed()).name
        if not name:
            at = f"$.tool_choice.{choice.type}.name"
            raise MalformedRequest(f"{at} is required.", param=at, reason="missing_required_parameter")
        return ToolChoice("tool", name, parallel)
    match choice:
        case "none":
            return ToolChoice("none", parallel=parallel)
        case "required":
            return ToolChoice("any", parallel=parallel)
        case _:
            return ToolChoice("auto", parallel=parallel)


def _read_output(value: Raw) -> OutputFormat | None:
    """``response_format``, which stays in `extras` too."""
    if not value or bytes(value) == b"null":
        return None
    at = "$.response_format"
    wire = part(value, WireFormat, at)
    match wire.type:
        case "text":
            return None
        case "json_object":
            return OutputFormat(b'{"type":"object"}')
        case "json_schema" if wire.json_schema and is_object(wire.json_schema.schema):
            return OutputFormat(bytes(wire.json_schema.schema), wire.json_schema.description or "")
        case "json_schema":
            at = f"{at}.json_schema.schema"
            raise MalformedRequest(f"{at} has to be a JSON Schema.", param=at, reason="missing_required_parameter")
        case kind:
            raise MalformedRequest(
                f"{at}.type is {kind!r}; it takes text, json_object or json_schema.",
                param=f"{at}.type",
                reason="unsupported_value",
            )


def _read_search(value: Raw) -> Search | None:
    """``web_search_options``, which stays in `extras` too."""
    if not value or bytes(value) == b"null":
        return None
    return read_search(value, "$.web_search_options")


def _read_thinking(effort: str | None) -> Thinking:
    if not effort or effort == "none":
        return THINKING_OFF
    return Thinking(enabled=True, effort=EFFORTS.get(effort, "medium"))


# Writing


def write_request(request: TurnRequest, stamp: Stamp) -> bytes:
    """The body of a chat request. `stamp.model` is who is asked."""
    sampling = request.sampling
    messages: list[dict[str, object]] = []
    extras = dict(request.extras) if request.spoken_in == NAME else {}
    customs = custom_tools(extras)
    custom = frozenset(customs)
    if request.system:
        messages.append({"role": "system", "content": _write_content(request.system)})
    for message in request.messages:
        messages.extend(_write_message(message, custom))
    body: dict[str, object] = {"model": stamp.model.id, "messages": messages}
    extras.pop("tools", None)
    extras.pop(FORM, None)
    if request.tools and not speaks_legacy(extras):
        body["tools"] = [customs.get(tool.name) or _write_tool(tool) for tool in request.tools]
        if request.tool_choice != AUTO:
            body["tool_choice"] = _write_choice(request.tool_choice)
            body["parallel_tool_calls"] = request.tool_choice.parallel
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = sampling.stop
    if request.thinking.enabled:
        body["reasoning_effort"] = _write_effort(request.thinking)
    body["stream"] = request.stream
    if request.choices != 1:
        body["n"] = request.choices
    if request.search is not None and request.spoken_in != NAME:
        body["web_search_options"] = {}
    if request.include_usage:
        body["stream_options"] = {"include_usage": True}
    for name, value in extras.items():
        body[name] = Raw(value)
    return encode(body)


def _write_message(message: Message, custom: frozenset[str]) -> list[dict[str, object]]:
    results = [block for block in message.content if isinstance(block, ToolResult)]
    rest = [block for block in message.content if not isinstance(block, ToolResult)]
    messages: list[dict[str, object]] = []
    for result in results:
        texts = [block for block in result.content if isinstance(block, Text)]
        messages.append({"role": "tool", "tool_call_id": result.call_id, "content": _write_content(texts)})
        # A tool message holds text only; the images follow in the user's name.
        rest.extend(block for block in result.content if not isinstance(block, Text))
    if message.role is Role.ASSISTANT:
        messages.append(_write_assistant(rest, custom))
    elif rest or not results:
        messages.append({"role": message.role.value, "content": _write_content(rest)})
    return messages


def _write_assistant(content: Sequence[ContentBlock], custom: frozenset[str]) -> dict[str, object]:
    texts = [block for block in content if isinstance(block, Text | SearchCall | SearchOutcome)]
    thoughts = [block.text for block in content if isinstance(block, Thought) and block.text]
    calls = [write_call(block, custom) for block in content if isinstance(block, ToolCall)]
    message: dict[str, object] = {"role": "assistant", "content": _write_content(texts) if texts else None}
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _write_content(blocks: Sequence[ContentBlock]) -> str | list[dict[str, object]]:
    """A string where one text is all there is: every server reads that."""
    match blocks:
        case []:
            return ""
        case [Text(text=text)]:
            return text
    parts: list[dict[str, object]] = []
    for block in blocks:
        if isinstance(block, Text):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, SearchCall):
            parts.append({"type": "text", "text": f"[Searched the web for: {block.query}]"})
        elif isinstance(block, SearchOutcome):
            found = "\n\n".join("\n".join(filter(None, (h.title, h.url, h.text))) for h in block.hits or ())
            parts.append({"type": "text", "text": f"[Results of the search]\n\n{found or block.error}"})
        elif isinstance(block, Image):
            url = f"data:{block.media_type};base64,{block.data}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif isinstance(block, Attachment) and block.url:
            parts.append({"type": "image_url", "image_url": {"url": block.url}})
        elif isinstance(block, Attachment):
            data = f"data:{block.media_type};base64,{block.data}"
            parts.append({"type": "file", "file": {"file_data": data, "filename": block.title or "document.pdf"}})
    return parts


def _write_tool(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": Raw(tool.schema)}
    return {"type": "function", "function": function}


def _write_choice(choice: ToolChoice) -> object:
    match choice.mode:
        case "tool":
            return {"type": "function", "function": {"name": choice.name}}
        case "any":
            return "required"
        case mode:
            return mode


def _write_effort(thinking: Thinking) -> str:
    if thinking.effort or thinking.budget is None:
        return thinking.effort or "medium"
    return next((effort for most, effort in _BUDGETS if thinking.budget <= most), "high")
