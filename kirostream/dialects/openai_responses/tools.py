"""Tools of the Responses API: many kinds, of which upstreams know one (client-apis.md section 3.3).

Every tool that a client runs itself is offered upstream as a function, under a flat name, and its calls come back to
the client as the kind they are:

================  ==============================================  ==========================================
tool              offered as                                      a call of it
================  ==============================================  ==========================================
``function``      itself                                          ``function_call``
``custom``        a function with one string, ``input``           ``custom_tool_call``
``local_shell``   a function ``local_shell``                      ``local_shell_call``
``shell``         a function ``shell``, unless run by the server  ``shell_call``
``apply_patch``   a function ``apply_patch``                      ``apply_patch_call``
``tool_search``   a function, where the client executes it        ``tool_search_call``
in a namespace    ``<namespace>__<name>``                         the same, with ``namespace`` and ``name``
================  ==============================================  ==========================================

A custom tool's grammar cannot be enforced here: it goes into the description. Of the tools that the server would run,
the web search is one (`websearch`); the others (file search, code interpreter, images, MCP, computer use) are left out,
never refused.

Nothing is remembered between a request and its answer: the answer's writer reads the same list of tools again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dataclass import dataclass
from kirostream.dialects.jsontext import encode, is_object, part, raw
from kirostream.dialects.openai_responses.websearch import is_search, read_search
from kirostream.turn.request import RawJson, Search, Tool

INPUT: Final = "input"
"""The one argument of a custom tool."""

MORE_TOOLS: Final = "additional_tools"
"""The key of `TurnRequest.extras` under which tools ride that came as items: a JSON list."""

_UNSET: Final = Raw()
_NO_ARGUMENTS: Final = b'{"type":"object","properties":{}}'


class Kind(enum.Enum):
    """What a client calls a tool; the value is its ``type`` in ``tools``."""

    FUNCTION = "function"
    CUSTOM = "custom"
    LOCAL_SHELL = "local_shell"
    SHELL = "shell"
    APPLY_PATCH = "apply_patch"
    TOOL_SEARCH = "tool_search"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a flat name comes from."""

    kind: Kind
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of a request, the origin of each by its flat name, and the web search."""

    tools: tuple[Tool, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    search: Search | None = None

    def origin(self, name: str) -> Origin:
        """The origin of a flat name; a name that is not offered is a function's."""
        return self.origins.get(name) or Origin(Kind.FUNCTION, name)


def flat(name: str, namespace: str = "") -> str:
    """The name upstream of a tool in a namespace."""
    return f"{namespace}__{name}" if namespace else name


class WireFormat(msgspec.Struct):
    """``format`` of a custom tool."""

    type: str = "text"
    syntax: str = ""
    definition: str = ""


class WireEnvironment(msgspec.Struct):
    """``environment`` of a shell tool."""

    type: str = "local"


class WireTool(msgspec.Struct):
    """One of ``tools``, of any kind."""

    type: str = "function"
    name: str | None = None
    description: str | None = None
    parameters: Raw = _UNSET
    format: WireFormat | None = None
    tools: list[Raw] | None = None
    execution: str | None = None
    environment: WireEnvironment | None = None
    function: Raw = _UNSET


_COMMAND: Final = {"type": "array", "items": {"type": "string"}}
_HOSTLESS: Final[Mapping[Kind, tuple[str, RawJson]]] = {
    Kind.LOCAL_SHELL: (
        "Runs a command on the user's machine and returns its output.",
        encode(
            {
                "type": "object",
                "properties": {
                    "command": {**_COMMAND, "description": "The program and its arguments."},
                    "working_directory": {"type": "string"},
                    "timeout_ms": {"type": "integer"},
                },
                "required": ["command"],
            }
        ),
    ),
    Kind.SHELL: (
        "Runs shell commands on the user's machine and returns the output of each.",
        encode(
            {
                "type": "object",
                "properties": {
                    "commands": {**_COMMAND, "description": "Shell commands, run side by side."},
                    "timeout_ms": {"type": "integer"},
                    "max_output_length": {"type": "integer", "description": "Characters."},
                },
                "required": ["commands"],
            }
        ),
    ),
    Kind.APPLY_PATCH: (
        "Creates, changes or deletes one file. `diff` is in V4A form: `@@` and the context it applies to, then lines "
        "that begin with a space, `-` or `+`; for a new file every line begins with `+`.",
        encode(
            {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                    "path": {"type": "string"},
                    "diff": {"type": "string", "description": "Left out where a file is deleted."},
                },
                "required": ["type", "path"],
            }
        ),
    ),
    Kind.TOOL_SEARCH: (
        "Finds further tools that can be called afterwards.",
        encode({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}),
    ),
}
"""What those tools are to an upstream that has never heard of them: description and schema."""


def read_tools(listed: Iterable[tuple[Raw, str]]) -> Offer:
    """The tools to offer; of two with one flat name, the first.

    Args:
        listed: raw tools, each with its path for errors.

    Raises:
        MalformedRequest: one of them is no tool.
    """
    tools: dict[str, Tool] = {}
    origins: dict[str, Origin] = {}
    search: Search | None = None

    def add(wire: WireTool, at: str, namespace: str = "", preface: str = "") -> bool:
        found = _read_tool(wire, at)
        if found is None:
            return False
        kind, tool = found
        name = flat(tool.name, namespace)
        if name not in tools:
            origins[name] = Origin(kind, tool.name, namespace)
            description = "\n\n".join(text for text in (preface, tool.description) if text)
            tools[name] = Tool(name, description, tool.schema)
        return True

    for value, at in listed:
        wire = part(value, WireTool, at)
        if wire.type != "namespace":
            if not add(wire, at) and is_search(wire.type):
                search = search or read_search(value, at)
            continue
        preface = wire.description or ""  # what the namespace is for is said once, on the first of its tools
        for i, inner in enumerate(wire.tools or ()):
            here = f"{at}.tools[{i}]"
            if add(part(inner, WireTool, here), here, wire.name or "", preface):
                preface = ""
    return Offer(tuple(tools.values()), origins, search)


def offered(extras: Mapping[str, RawJson]) -> Offer:
    """The tools that ride in a request's extras, read again. Empty where there are none."""
    listed: list[tuple[Raw, str]] = []
    for key in ("tools", MORE_TOOLS):
        value = extras.get(key, b"null")
        if value != b"null":
            listed += [(tool, f"$.{key}[{i}]") for i, tool in enumerate(part(Raw(value), list[Raw], f"$.{key}"))]
    return read_tools(listed)


def _read_tool(wire: WireTool, at: str) -> tuple[Kind, Tool] | None:
    if wire.type == "function" and not wire.name and wire.function:
        wire = part(wire.function, WireTool, f"{at}.function")  # the nested form of chat, which some clients send here
    description = wire.description or ""
    match wire.type:
        case "function":
            if not wire.name:
                return None
            schema = raw(wire.parameters, f"{at}.parameters")
            return Kind.FUNCTION, Tool(wire.name, description, schema if is_object(schema) else _NO_ARGUMENTS)
        case "custom":
            return (Kind.CUSTOM, _custom(wire.name, description, wire.format)) if wire.name else None
        case "shell" if wire.environment is not None and wire.environment.type != "local":
            return None
        case "tool_search" if wire.execution != "client":
            return None
        case "local_shell" | "shell" | "apply_patch" | "tool_search":
            kind = Kind(wire.type)
            usual, schema = _HOSTLESS[kind]
            own = raw(wire.parameters, f"{at}.parameters")
            return kind, Tool(wire.type, description or usual, own if is_object(own) else schema)
        case _:
            return None


def _custom(name: str, description: str, form: WireFormat | None) -> Tool:
    if form is not None and form.type == "grammar" and form.definition:
        rule = f"`{INPUT}` has to match this {form.syntax or 'lark'} grammar:\n\n{form.definition}"
        description = f"{description}\n\n{rule}" if description else rule
    said = {"type": "string", "description": "The whole input, as plain text: no JSON and no quoting inside it."}
    schema = {"type": "object", "properties": {INPUT: said}, "required": [INPUT], "additionalProperties": False}
    return Tool(name, description, encode(schema))


# Calls


class _Input(msgspec.Struct):
    input: str


def custom_arguments(text: str) -> RawJson:
    """The arguments upstream of a custom tool's call."""
    return encode({INPUT: text})


def custom_input(arguments: RawJson) -> str:
    """A custom tool's input; where a model did not keep to the one argument, all that it said."""
    try:
        return msgspec.json.decode(arguments, type=_Input).input
    except (msgspec.DecodeError, UnicodeDecodeError):
        return arguments.decode("utf-8", "replace")


_EXEC: Final[dict[str, object]] = {"type": "exec", "command": [], "env": {}}
_COMMANDS: Final[dict[str, object]] = {"commands": [], "timeout_ms": None, "max_output_length": None}


def call_item(origin: Origin, item_id: str, call_id: str, arguments: RawJson) -> dict[str, object]:
    """A whole call: an item of an answer, or, where `item_id` is empty, of a later request.

    An answer's item has every member that its type requires, whatever the model left out.
    """
    item: dict[str, object] = {"id": item_id} if item_id else {}
    item |= {"type": ITEM_TYPES[origin.kind], "status": "completed", "call_id": call_id}
    match origin.kind:
        case Kind.FUNCTION:
            item |= {"name": origin.name, "arguments": arguments.decode()}
        case Kind.CUSTOM:
            item |= {"name": origin.name, "input": custom_input(arguments)}
        case Kind.LOCAL_SHELL:
            item["action"] = (_EXEC if item_id else {}) | _members(arguments)
        case Kind.SHELL:
            item["action"] = (_COMMANDS if item_id else {}) | _members(arguments)
        case Kind.APPLY_PATCH:
            item["operation"] = _members(arguments)
        case Kind.TOOL_SEARCH:
            item |= {"execution": "client", "arguments": _members(arguments)}
    if origin.namespace:
        item["namespace"] = origin.namespace
    return item


def _members(arguments: RawJson) -> dict[str, object]:
    try:
        return msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"arguments": arguments.decode("utf-8", "replace")}


ITEM_TYPES: Final[Mapping[Kind, str]] = {
    Kind.FUNCTION: "function_call",
    Kind.CUSTOM: "custom_tool_call",
    Kind.LOCAL_SHELL: "local_shell_call",
    Kind.SHELL: "shell_call",
    Kind.APPLY_PATCH: "apply_patch_call",
    Kind.TOOL_SEARCH: "tool_search_call",
}
"""The ``type`` of a call's item."""

ITEM_PREFIXES: Final[Mapping[Kind, str]] = {
    Kind.FUNCTION: "fc",
    Kind.CUSTOM: "ctc",
    Kind.LOCAL_SHELL: "lsh",
    Kind.SHELL: "sh",
    Kind.APPLY_PATCH: "apc",
    Kind.TOOL_SEARCH: "tsc",
}
"""How a call's item id begins."""
