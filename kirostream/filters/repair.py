"""The one stricter variant of a request whose form Kiro has refused (kiro-protocol.md section 4.3).

`request_rules` takes away what is known to be refused. What is left are doubts: things that one source sends and
another was refused for. Taking them all away beforehand would cost every request some of its meaning for the sake of
few. So they stay, and go only once a request has been refused: one doubt a function, run in the order of `REPAIRS`.

A repair costs meaning and says so where the model can read it. Each works on a request that went through the rules,
keeps it one that they accept, and returns the request it was given where it finds nothing to do: so a request without
doubts has no variant, and is not asked twice.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypeVar

from kirostream.filters.request_rules import (
    CONTINUE,
    NO_OUTPUT,
    STUB,
    fit_descriptions,
    flatten_calls,
)
from kirostream.filters.tool_schemas import OBJECT_SCHEMA
from kirostream.turn.model import Model
from kirostream.turn.request import (
    THINKING_OFF,
    ContentBlock,
    Image,
    Message,
    RawJson,
    Role,
    Text,
    ToolCall,
    ToolResult,
    TurnRequest,
)

Repair: TypeAlias = Callable[[TurnRequest, Model], TurnRequest]
Part = TypeVar("Part", bound=ContentBlock)

STRICT_KEYWORDS: Final = frozenset(("type", "properties", "required", "items", "enum", "description"))
"""What every source of section 2.6 leaves in a schema."""
STRICT_DEPTH: Final = 8
"""Schemas inside schemas; one peer keeps 3 (section 2.6), and no other number is known."""
SHORT_DESCRIPTION: Final = 1_024
"""Bytes. Peers are between 200 and 10,237 (section 2.6); this is what the API of OpenAI's own models takes."""
LONG_TEXT: Final = 400_000
"""Bytes of one message or one result: where the official client stops (section 2.7)."""

NO_TEXT: Final = "(no text)"
OLD_IMAGE: Final = "[An earlier image is left out.]"

_TYPES: Final = frozenset(("object", "array", "string", "number", "integer", "boolean"))
_PARAMETER: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Names of parameters that nobody was refused for; one peer shortens those over 64 characters (section 2.6)."""


# Tools


def reduce_schemas(request: TurnRequest, model: Model) -> TurnRequest:
    """Schemas hold the keywords that nobody drops, and nothing else (section 2.6)."""
    tools = tuple(t if (s := strict_schema(t.schema)) == t.schema else replace(t, schema=s) for t in request.tools)
    return request if tools == request.tools else replace(request, tools=tools)


def shorten_descriptions(request: TurnRequest, model: Model) -> TurnRequest:
    """Descriptions of some length move into the system prompt (section 2.6)."""
    return fit_descriptions(request, SHORT_DESCRIPTION)


def flatten_past_calls(request: TurnRequest, model: Model) -> TurnRequest:
    """Calls of tools that are offered no more become text, as one peer has them (section 2.5)."""
    past = {tool.name.lower() for tool in request.tools if tool.description == STUB}
    if not past:
        return request
    blocks = (block for message in request.messages for block in message.content)
    calls = {block.id for block in blocks if isinstance(block, ToolCall) and block.name.lower() in past}
    offered = tuple(tool for tool in request.tools if tool.description != STUB)
    request = flatten_calls(replace(request, tools=offered), calls.__contains__)
    return _with_messages(request, list(map(_results_first, request.messages)))


def _results_first(message: Message) -> Message:
    content = sorted(message.content, key=lambda block: not isinstance(block, ToolResult))
    return message if message.role is Role.ASSISTANT else replace(message, content=tuple(content))


# Contents


def drop_old_images(request: TurnRequest, model: Model) -> TurnRequest:
    """Only the last message holds images: whether the history may is not known (section 2.7)."""

    def without(message: Message) -> Message:
        content = tuple(_without_images(block) for block in message.content)
        return message if content == message.content else replace(message, content=content)

    return _with_messages(request, [*map(without, request.messages[:-1]), *request.messages[-1:]])


def _without_images(block: ContentBlock) -> ContentBlock:
    if isinstance(block, Image):
        return Text(OLD_IMAGE)
    if isinstance(block, ToolResult) and any(isinstance(part, Image) for part in block.content):
        parts = (Text(OLD_IMAGE) if isinstance(part, Image) else part for part in block.content)
        return replace(block, content=tuple(parts))
    return block


def fill_blanks(request: TurnRequest, model: Model) -> TurnRequest:
    """No message and no result is white space alone, which the models' own API refuses (section 2.4)."""
    request = replace(request, system=()) if _blank(request.system) else request
    return _with_messages(request, list(map(_filled, request.messages)))


def _filled(message: Message) -> Message:
    content = tuple(_filled_result(b) if isinstance(b, ToolResult) else b for b in message.content)
    if _blank(content):
        content = tuple(block for block in content if not isinstance(block, Text))
        if message.role is Role.ASSISTANT:
            content = (Text(NO_TEXT), *content)
        elif not any(isinstance(block, ToolResult) for block in content):
            content = (*content, Text(CONTINUE))
    return message if content == message.content else replace(message, content=content)


def _filled_result(result: ToolResult) -> ToolResult:
    content = tuple(part for part in result.content if not _blank((part,)))
    if len(content) < len(result.content) and not any(isinstance(part, Text) for part in content):
        content = (Text(NO_OUTPUT), *content)
    return result if content == result.content else replace(result, content=content)


def _blank(parts: Sequence[ContentBlock]) -> bool:
    """Whether there is text in it, and all of it is white space."""
    return "".join(part.text for part in parts if isinstance(part, Text)).isspace()


def cut_long_texts(request: TurnRequest, model: Model) -> TurnRequest:
    """The middle of what is over the official client's own limit is left out, and a note says so (section 2.7)."""
    system = _cut(request.system)
    request = request if system is request.system else replace(request, system=system)
    return _with_messages(request, list(map(_cut_message, request.messages)))


def _cut_message(message: Message) -> Message:
    content = _cut(tuple(_cut_result(b) if isinstance(b, ToolResult) else b for b in message.content))
    return message if content == message.content else replace(message, content=content)


def _cut_result(result: ToolResult) -> ToolResult:
    content = _cut(result.content)
    return result if content is result.content else replace(result, content=content)


def _cut(parts: tuple[Part, ...]) -> tuple[Part | Text, ...]:
    """The same parts where their texts are short enough; else one text behind everything else."""
    whole = "\n\n".join(part.text for part in parts if isinstance(part, Text) and part.text)
    if len(whole) * 4 <= LONG_TEXT or len(data := whole.encode("utf-8", "replace")) <= LONG_TEXT:
        return parts
    half = LONG_TEXT // 2 - 50  # so that the note has room
    note = f"\n[{len(data) - 2 * half:,} bytes are left out here.]\n"
    text = data[:half].decode("utf-8", "ignore") + note + data[-half:].decode("utf-8", "ignore")
    return (*(part for part in parts if not isinstance(part, Text)), Text(text))


# Thinking


def drop_thinking_fields(request: TurnRequest, model: Model) -> TurnRequest:
    """The model's own fields are not sent; their schema is closed and differs from model to model (section 2.8)."""
    return replace(request, thinking=THINKING_OFF) if request.thinking.enabled and model.thinks else request


REPAIRS: Final[Mapping[str, Repair]] = {
    "schemas reduced": reduce_schemas,
    "descriptions shortened": shorten_descriptions,
    "calls of past tools as text": flatten_past_calls,
    "earlier images left out": drop_old_images,
    "blank texts filled": fill_blanks,
    "long texts cut": cut_long_texts,
    "thinking fields left out": drop_thinking_fields,
}
"""Every repair under the words that a person reads of it, in the order they run."""

BY_REASON: Final[Mapping[str, Sequence[str]]] = {
    "TOOL_SCHEMA_INVALID": ("schemas reduced",),
    "IMAGE_COUNT_EXCEEDED": ("earlier images left out",),
    "IMAGE_DIMENSION_EXCEEDED": ("earlier images left out",),
    "IMAGE_SIZE_EXCEEDED": ("earlier images left out",),
}
"""The repairs that make sense for a reason of section 4.2. For every other, and for none, all of them do."""


def stricter(request: TurnRequest, model: Model, reason: str = "") -> tuple[TurnRequest, tuple[str, ...]]:
    """The stricter variant of `request`, and what was repaired; the same request and nothing where there is none.

    Args:
        request: as it was refused, after `request_rules.apply_rules`.
        model: the one that is asked.
        reason: the word the service gave, empty for the bare refusal.
    """
    done = []
    for name in BY_REASON.get(reason, tuple(REPAIRS)):
        repaired = REPAIRS[name](request, model)
        if repaired is not request:
            done.append(name)
            request = repaired
    return request, tuple(done)


# Schemas


@functools.lru_cache(maxsize=512)
def strict_schema(raw: RawJson) -> RawJson:
    """A schema in `STRICT_KEYWORDS`; the same bytes where it holds no others. `raw` went through the rules."""
    try:
        schema = json.loads(raw)
        if not beyond_strict(schema):
            return raw
        reduced = {"properties": {}, **_reduced(schema, STRICT_DEPTH), "type": "object"}
    except RecursionError:  # combinations inside combinations, as no person writes them
        return OBJECT_SCHEMA
    return json.dumps(reduced, ensure_ascii=True, separators=(",", ":")).encode()


def beyond_strict(schema: Any, depth: int = STRICT_DEPTH) -> str:
    """The first thing of a schema that is beyond the strict subset, quoted; empty where there is none."""
    if not isinstance(schema, dict):
        return json.dumps(schema)[:64]
    odd = next((key for key in schema if key not in STRICT_KEYWORDS), None)
    if odd is not None:
        return json.dumps(odd)[:80]
    if not depth:
        return f"more than {STRICT_DEPTH} levels"
    for key, fits in _FITS.items():
        if key in schema and not fits(schema[key]):
            return f'"{key}": {json.dumps(schema[key])[:64]}'
    properties = schema.get("properties", {})
    odd = next((name for name in properties if not _PARAMETER.fullmatch(name)), None)
    if odd is not None:
        return f"the parameter name {json.dumps(odd)[:80]}"
    inner = [*properties.values(), *([schema["items"]] if "items" in schema else [])]
    return next(filter(None, (beyond_strict(each, depth - 1) for each in inner)), "")


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "type": lambda value: isinstance(value, str) and value in _TYPES,
    "properties": lambda value: isinstance(value, dict),
    "required": lambda value: bool(value) and _strings(value) == value,
    "enum": lambda value: bool(value) and _choices({"enum": value}) == value,
    "description": lambda value: isinstance(value, str) and value != "",
}
"""What the strict keywords hold; ``items`` is a schema."""


def _reduced(schema: Any, depth: int) -> dict[str, Any]:
    """A subschema in the strict keywords, `depth` levels of it."""
    if not isinstance(schema, dict) or not depth:
        return {}
    schema = _flat(schema)
    reduced: dict[str, Any] = {}
    if kind := _kind(schema):
        reduced["type"] = kind
    description = schema.get("description")
    description = description if isinstance(description, str) else ""
    if isinstance(schema.get("properties"), dict):
        properties = {name: _reduced(each, depth - 1) for name, each in schema["properties"].items()}
        kept = {name: each for name, each in properties.items() if _PARAMETER.fullmatch(name)}
        if unsaid := [name for name in properties if name not in kept]:
            description = f"{description}\nMay also have the members {json.dumps(unsaid)}.".strip()
        if depth > 1:
            reduced["properties"] = kept
            required = schema.get("required")
            if named := [n for n in dict.fromkeys(_strings(required)) if n in kept]:
                reduced["required"] = named
    if kind == "array" and depth > 1:
        reduced["items"] = _reduced(schema.get("items"), depth - 1)
    if choices := _choices(schema):
        reduced["enum"] = choices
    if description:
        reduced["description"] = description
    return reduced


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its combinations laid into it: all of ``allOf``, one of the others, and of enums every value."""
    flat = {key: value for key, value in schema.items() if key not in ("allOf", "anyOf", "oneOf")}
    parts = [_flat(part) for part in _dicts(schema.get("allOf"))]
    for key in ("anyOf", "oneOf"):
        choices = [_flat(part) for part in _dicts(schema.get(key)) if part.get("type") != "null"]
        if choices and all(map(_choices, choices)):
            first = {name: value for name, value in choices[0].items() if name != "const"}
            parts.append({**first, "enum": [value for each in choices for value in _choices(each)]})
        else:
            parts += choices[:1]
    for part in parts:
        properties = {**_dict(part.get("properties")), **_dict(flat.get("properties"))}
        required = [*_strings(flat.get("required")), *_strings(part.get("required"))]
        flat = {**part, **flat, "properties": properties, "required": required}
    if parts and not flat["properties"]:
        del flat["properties"]
    return flat


def _kind(schema: dict[str, Any]) -> str:
    """Its one type: the first that is not null, else what its keywords or values say; empty where nothing does."""
    kinds = schema.get("type")
    named = [k for k in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(k, str) and k in _TYPES]
    if named:
        return named[0]
    if "properties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    values = _choices(schema)
    return "string" if values and all(isinstance(value, str) for value in values) else ""


def _choices(schema: dict[str, Any]) -> list[Any]:
    """The values it allows, without null; empty where it allows others."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    values = values if isinstance(values, list) else []
    if not all(value is None or isinstance(value, (str, int, float)) for value in values):
        return []
    return [value for at, value in enumerate(values) if value is not None and value not in values[:at]]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


# Shared


def _with_messages(request: TurnRequest, messages: list[Message]) -> TurnRequest:
    same = all(new is old for new, old in zip(messages, request.messages, strict=True))
    return request if same else replace(request, messages=tuple(messages))
