"""Anthropic's own tools, as an upstream that has never heard of them sees them (client-apis.md section 4.3).

Tools that a client runs itself come by type alone (``bash_20250124``); models of the API know them by heart. Others get
a description and a schema here, so that the calls come back in the form the client expects. Tools that the service
would run have no place here: they are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects.jsontext import encode, part
from kirostream.errors import MalformedRequest
from kirostream.turn.request import RawJson, Tool

_PATH: Final = {"type": "string", "description": "An absolute path."}
_RANGE: Final = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "First and last line, from 1; -1: the end.",
}
_PLACE: Final = {"type": "array", "items": {"type": "integer"}, "description": "x and y in pixels, from the top left."}


def _schema(required: list[str], **properties: object) -> RawJson:
    return encode({"type": "object", "properties": properties, "required": required})


def _one_of(*words: str) -> dict[str, object]:
    return {"type": "string", "enum": list(words)}


_TEXT: Final = {"type": "string"}
_FAMILIES: Final[Mapping[str, tuple[str, RawJson]]] = {
    "bash": (
        "Runs a command in a bash session that stays open between calls. `restart` starts the session anew.",
        _schema([], command=_TEXT, restart={"type": "boolean"}),
    ),
    "text_editor": (
        "Views, creates and edits text files. `view` takes path and view_range; `create` path and file_text; "
        "`str_replace` path, old_str (which has to occur exactly once) and new_str; `insert` path, insert_line "
        "(0: in front of all lines) and insert_text.",
        _schema(
            ["command", "path"],
            command=_one_of("view", "create", "str_replace", "insert"),
            path=_PATH,
            view_range=_RANGE,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line={"type": "integer"},
            insert_text=_TEXT,
        ),
    ),
    "memory": (
        "Keeps notes in files under /memories between conversations. `view`, `create`, `str_replace`, `insert` and "
        "`delete` take path; `rename` takes old_path and new_path.",
        _schema(
            ["command"],
            command=_one_of("view", "create", "str_replace", "insert", "delete", "rename"),
            path=_PATH,
            view_range=_RANGE,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line={"type": "integer"},
            insert_text=_TEXT,
            old_path=_PATH,
            new_path=_PATH,
        ),
    ),
    "computer": (
        "Uses the screen, the mouse and the keyboard of a computer. Take a screenshot before and after what you do.",
        _schema(
            ["action"],
            action=_one_of(
                *("key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click"),
                *("double_click", "triple_click", "left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait"),
                *("screenshot", "cursor_position", "zoom"),
            ),
            coordinate=_PLACE,
            start_coordinate=_PLACE,
            text=_TEXT,
            duration={"type": "number"},
            scroll_direction=_one_of("up", "down", "left", "right"),
            scroll_amount={"type": "integer"},
            region={"type": "array", "items": {"type": "integer"}},
        ),
    ),
}
"""By the type without its date: what the tool does, and its arguments."""


def client_tool(kind: str, name: str, description: str) -> Tool | None:
    """A tool of Anthropic's that the client runs, None for any other type.

    Args:
        kind: its ``type``, with a date at its end.
        name: what the client calls it.
        description: the client's own, mostly empty.
    """
    family, _, date = kind.rpartition("_")
    known = _FAMILIES.get(family) if date.isdecimal() else None
    return Tool(name or family, description or known[0], known[1]) if known else None


# Blocks of tools that the service ran, in the history of a conversation: in words.


class WireRun(msgspec.Struct):
    """``server_tool_use`` and ``mcp_tool_use``."""

    name: str = "a tool"
    input: Raw = Raw(b"{}")


class WireOutcome(msgspec.Struct):
    """``web_search_tool_result`` and its like. `content` is a list of results, or an object."""

    content: Raw = Raw(b"null")


class WireFound(msgspec.Struct):
    """One result, or the error in place of all."""

    type: str = ""
    title: str | None = None
    url: str | None = None
    text: str | None = None
    error_code: str | None = None


def run_as_text(block: Raw, at: str) -> str:
    """A call that the service ran."""
    run = part(block, WireRun, at)
    return f"[The tool {run.name} was run with {bytes(run.input).decode()}]"


def outcome_as_text(block: Raw, at: str) -> str:
    """What came of such a call: titles, places and texts. What is encrypted tells no other model anything."""
    content = part(block, WireOutcome, at).content
    lines: list[str] = []
    for value in part(content, list[Raw], at) if bytes(content).startswith(b"[") else [content]:
        try:
            found = part(value, WireFound, at)
        except MalformedRequest:
            continue
        line = "\n".join(text for text in (found.title, found.url, found.text) if text)
        line = line or (f"It failed: {found.error_code}" if found.error_code else "")
        lines += [line] if line else []
    return "\n\n".join(["[Result of the tool]", *lines])
