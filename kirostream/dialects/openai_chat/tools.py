"""Chat's other two forms of tools: custom tools, and the functions that were there before tools (client-apis.md 2.1).

Both are offered upstream as tools like any other, and answered in the form they were asked in. Nothing is remembered
between a request and its answer: what makes the difference rides in `TurnRequest.extras`, and the answer's writer looks
there. Custom tools are in its ``tools``, as they came; legacy functions in its ``functions``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from kirostream.dialects.jsontext import encode
from kirostream.dialects.openai_responses.tools import custom_input, read_tools
from kirostream.turn.request import RawJson, Tool, ToolCall


class WireGrammar(msgspec.Struct):
    """``format.grammar`` of a custom tool."""

    syntax: str = ""
    definition: str = ""


class WireFormat(msgspec.Struct):
    """``format`` of a custom tool."""

    type: str = "text"
    grammar: WireGrammar | None = None


class WireCustom(msgspec.Struct):
    """``custom``, of a tool."""

    name: str
    description: str | None = None
    format: WireFormat | None = None


class _Named(msgspec.Struct):
    custom: WireCustom


def custom_tool(custom: WireCustom, at: str) -> Tool:
    """A custom tool as a function of one string, its grammar in the description."""
    grammar = (custom.format and custom.format.grammar) or WireGrammar()
    flat = {
        "type": "custom",
        "name": custom.name,
        "description": custom.description,
        "format": {
            "type": custom.format.type if custom.format else "text",
            "syntax": grammar.syntax,
            "definition": grammar.definition,
        },
    }
    (tool,) = read_tools([(Raw(encode(flat)), at)]).tools
    return tool


def custom_tools(extras: Mapping[str, RawJson]) -> dict[str, Raw]:
    """The custom tools of a request that was read from chat: as they came, by name."""
    listed = msgspec.json.decode(extras.get("tools", b"[]"), type=list[Raw])
    return {msgspec.json.decode(each, type=_Named).custom.name: each for each in listed}


def custom_names(extras: Mapping[str, RawJson]) -> frozenset[str]:
    """The names of the custom tools of a request that was read from chat."""
    return frozenset(custom_tools(extras)) if "tools" in extras else frozenset()


def speaks_legacy(extras: Mapping[str, RawJson]) -> bool:
    """Whether a request that was read from chat offers functions in place of tools."""
    return "functions" in extras


def write_call(call: ToolCall, custom: frozenset[str]) -> dict[str, object]:
    """One of ``tool_calls``. `custom` holds the names of custom tools."""
    if call.name in custom:
        said = {"name": call.name, "input": custom_input(call.arguments)}
        return {"id": call.id, "type": "custom", "custom": said}
    function = {"name": call.name, "arguments": call.arguments.decode() or "{}"}
    return {"id": call.id, "type": "function", "function": function}
