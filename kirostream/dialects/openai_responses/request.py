"""Responses requests, read and written (client-apis.md sections 3.1 to 3.3).

``input`` is a flat list of items; a conversation is a list of messages. `read_items` says how the first becomes the
second, `write_items` how it comes apart again. Besides:

- ``instructions``, then the system and developer messages in front, become `TurnRequest.system`; later ones stay where
  they are. Where there is nothing but those, the last of them is the question;
- tools may also arrive as items (``additional_tools``, ``tool_search_output``); `tools` says what becomes of them.

All other fields, and those that an answer repeats, ride in `TurnRequest.extras` and are written again. One key there is
ours alone: `MORE_TOOLS`, the tools that came as items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

import msgspec
from msgspec import Raw

from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.hints import session_hint
from kirostream.dialects.jsontext import decode, encode, is_object, part, raw
from kirostream.dialects.openai_responses.read_items import join, read_items
from kirostream.dialects.openai_responses.thoughts import PLAIN, Seal
from kirostream.dialects.openai_responses.tools import MORE_TOOLS, Kind, Offer, flat, offered, read_tools
from kirostream.dialects.openai_responses.websearch import is_search, write_tool
from kirostream.dialects.openai_responses.write_items import message_item, write_message
from kirostream.errors import MalformedRequest
from kirostream.turn.request import (
    AUTO,
    SEARCH_TOOL,
    THINKING_OFF,
    Message,
    OutputFormat,
    RawJson,
    Role,
    Sampling,
    Search,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    TurnRequest,
)

NAME: Final = "openai_responses"

EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""``reasoning.effort`` to a word of `Thinking.effort`; ``none`` is no thinking, a new word is ``medium``."""

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
    max_tool_calls: int | float | None = None
    reasoning: WireReasoning | None = None
    text: WireTextConfig | None = None


SPOKEN: Final = frozenset({"model", "input", "stream", "max_output_tokens", "temperature", "top_p"})
"""Fields that the turn itself says; every other one rides in the extras as well, for answers repeat it."""


class WireUpdate(msgspec.Struct):
    """``configuration_update``."""

    type: str | None = None
    reasoning: Raw = _UNSET
    text: Raw = _UNSET


class WireIdentity(msgspec.Struct):
    """What may tell one conversation from another. Read leniently: it changes nothing that is said."""

    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    user: str | None = None
    safety_identifier: str | None = None


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
    if b'"configuration_update"' in body:
        _update(wire, fields, items)
    more_tools: list[tuple[Raw, str]] = []
    if isinstance(wire.input, str):
        messages = [Message(Role.USER, (Text(wire.input),))] if wire.input else []
    else:
        messages = join(read_items(items, more_tools, seal))
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
    search = _read_search(wire, offer)
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
        search=search,
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


def _update(wire: WireBody, fields: dict[str, Raw], items: Sequence[Raw]) -> None:
    """Put settings in force that items changed for all that follows them; of several changes the last one counts."""
    for i, item in enumerate(items):
        at = f"$.input[{i}]"
        update = part(item, WireUpdate, at)
        if update.type != "configuration_update":
            continue
        if is_object(update.reasoning):
            fields["reasoning"] = _merged(fields.get("reasoning", _UNSET), update.reasoning)
            wire.reasoning = part(fields["reasoning"], WireReasoning, f"{at}.reasoning")
        if is_object(update.text):
            fields["text"] = _merged(fields.get("text", _UNSET), update.text)
            wire.text = part(fields["text"], WireTextConfig, f"{at}.text")


def _merged(one: Raw, other: Raw) -> Raw:
    return Raw(encode(part(one, dict[str, Raw], "$") | part(other, dict[str, Raw], "$") if is_object(one) else other))


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
    messages = read_items(instructions or (), [], PLAIN, "$.instructions")
    return [block for message in messages for block in message.content if isinstance(block, Text)]


def _read_choice(wire: WireBody, offer: Offer) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and whether one has to be."""
    parallel = wire.parallel_tool_calls is not False
    tools = offer.tools
    said = bytes(wire.tool_choice)
    if not tools and offer.search is None:
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
    if offer.search is not None and is_search(choice.type):
        return tools, ToolChoice("tool", SEARCH_TOOL, parallel)
    name = _chosen(choice, offer)
    if not name:  # a tool that the server would run
        return tools, ToolChoice("auto", parallel=parallel)
    return tools, ToolChoice("tool", name, parallel)


def _read_search(wire: WireBody, offer: Offer) -> Search | None:
    """The web search, with ``max_tool_calls``, which counts calls of the tools that the server runs."""
    most = wire.max_tool_calls
    if offer.search is None or (most is not None and most < 1):
        return None
    said = bytes(wire.tool_choice)
    if said.startswith(b"{"):
        choice = part(wire.tool_choice, WireNamed, "$.tool_choice")
        listed = (part(tool, WireNamed, "$.tool_choice.tools") for tool in choice.tools or ())
        if choice.type == "allowed_tools" and not any(is_search(tool.type) for tool in listed):
            return None
    return offer.search if most is None else replace(offer.search, max_uses=int(most))


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
    if reasoning is None or reasoning.effort == "none":
        return THINKING_OFF
    return Thinking(enabled=True, effort=EFFORTS.get(reasoning.effort, "medium") if reasoning.effort else "")


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
        items.append(message_item("developer", system))
    offer = offered(own)
    calls: dict[str, Kind] = {}
    for message in request.messages:
        items.extend(write_message(message, offer, calls, seal))
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


def _spoken(own: Mapping[str, RawJson], name: str) -> bool:
    return own.get(name, b"null") != b"null"


def _instructions(said: RawJson) -> list[Text]:
    return _read_instructions(part(Raw(said), str, "$") if said.startswith(b'"') else part(Raw(said), list[Raw], "$"))


def _spoken_elsewhere(request: TurnRequest) -> dict[str, object]:
    """The fields that a client of this dialect would have said itself. Nothing is kept upstream."""
    fields: dict[str, object] = {"store": False, "include": ["reasoning.encrypted_content"]}
    if request.tools or request.search:
        hosted = [write_tool(request.search)] if request.search else []
        fields["tools"] = [
            *hosted,
            *(
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": Raw(tool.schema),
                    "strict": False,
                }
                for tool in request.tools
            ),
        ]
        if request.tool_choice != AUTO:
            choice = request.tool_choice
            forced = {"type": "function", "name": choice.name}
            if request.search and choice.name == SEARCH_TOOL:
                forced = {"type": SEARCH_TOOL}
            words: Mapping[str, object] = {"any": "required", "tool": forced}
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
