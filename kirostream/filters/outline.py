"""What stands in a message in which everything is in its place: the first look of the rules at it.

`outline` has a compiled sibling of the same name in `kirostream.scan`, which is used where it is built.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from kirostream import scan
from kirostream.turn.request import ContentBlock, Image, Text, ToolCall, ToolResult

WIRE_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""An id of a call that the models' own API takes."""

Outline: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[Image, ...]]
"""The ids of the results that a message begins with; the ids of the calls it makes, and the names of what it calls, in
lower case; the images it holds, also in results."""


def outline_in_python(content: tuple[ContentBlock, ...], users: bool) -> Outline | None:
    """The outline of a message of the user's, or of the assistant's.

    None where something is out of place: a user's message has results first, then texts and images; an assistant's has
    texts and calls, whose ids are legal and whose arguments are objects. Nothing in it is empty, and it says something
    besides calls and images.
    """
    leads, says_something = True, False
    given: list[str] = []
    called: list[str] = []
    names: list[str] = []
    images: list[Image] = []
    for block in content:
        if isinstance(block, ToolResult):
            if not users or not leads:
                return None
            full = False
            for part in block.content:
                if isinstance(part, Text):
                    if part.empty:
                        return None
                    full = True
                elif isinstance(part, Image):
                    images.append(part)
            if not full:
                return None
            given.append(block.call_id)
            says_something = True
            continue
        leads = False
        if isinstance(block, Text):
            if block.empty:
                return None
            says_something = True
        elif isinstance(block, ToolCall) and not users:
            if not WIRE_ID.fullmatch(block.id) or not block.arguments.startswith(b"{"):
                return None
            called.append(block.id)
            names.append(block.name.lower())
        elif isinstance(block, Image) and users:
            images.append(block)
        else:
            return None
    return (tuple(given), tuple(called), tuple(names), tuple(images)) if says_something else None


outline: Final = scan.outline if scan.BUILT else outline_in_python
