"""What is read of a large request at the speed of its bytes. Pure; no function raises for what is in its text.

Each says what its twin in Python would say, or None where that has to look.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from kirostream.turn.request import ContentBlock, Image, Message, RawJson, Tool

def split(body: bytes) -> Split | None:
    """A body of the Messages API in its parts.

    None where it is not JSON in UTF-8, or has a byte order mark or half a surrogate pair; where a value of the root,
    or an item of the lists, is nested deeper than `dialects.jsontext.MAX_DEPTH`; where its members are unusual.
    """

class Split:
    """A body without its long lists.

    Attributes:
        rest: the same JSON, in which the arrays ``messages`` and ``tools`` are empty.
        lists: by name, the items of these arrays as they stand in the body. One that is no array, or not there, is not.
    """

    rest: Final[bytes]
    lists: Final[Mapping[bytes, Sequence[RawJson]]]

    def message(self, index: int) -> Message | None:
        """The same as `read_message` of this item."""

    def tool(self, index: int) -> Tool | None:
        """A tool that a client runs itself, with a schema of its own; None for any other."""

class Key:
    """What a `turn.memory.Memory` finds a value by: `turn.memory.Key`, which hashes long texts faster."""

    kind: Final[str]
    raw: Final[bytes]
    def __init__(self, kind: str, raw: bytes) -> None: ...

def read_message(raw: bytes) -> Message | None:
    """A message of the Messages API, of the usual form: `dialects.anthropic.usual` knows which that is."""

class Fitter:
    """Tells schemas with nothing to repair, as `filters.tool_schemas.Fit` does.

    Args:
        keywords: those that are known, with the type of what they hold, as it is written there.
    """

    def __init__(self, keywords: Mapping[str, str]) -> None: ...
    def __call__(self, raw: RawJson) -> RawJson | Literal[False] | None:
        """The schema without its ``$schema``; the same bytes where it has none. False where it surely does not fit."""

    def properties(self, raw: RawJson) -> dict[str, int]:
        """Those properties of a schema with nothing to repair in them, with more subschemas than each can have."""

def outline(
    content: tuple[ContentBlock, ...], users: bool
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[Image, ...]] | None:
    """The same as `filters.outline.outline_in_python`."""

def write_user(content: tuple[ContentBlock, ...], origin: str) -> RawJson | None:
    """An entry of Kiro's history, as `dialects.kiro.request` writes it; None where a text is not at hand as JSON.

    Raises:
        UnicodeEncodeError: half a surrogate pair.
    """

def write_assistant(
    content: tuple[ContentBlock, ...], names: dict[str, str], used: list[tuple[str, str]]
) -> RawJson | None:
    """The same for the assistant's; also None where a call is of a tool that is not in `names`.

    Args:
        names: on the wire, by the client's.
        used: takes those of them that are in the entry.
    """

def write_tool(tool: Tool, name: str) -> RawJson | None:
    """An entry of the list of tools, under its name on the wire.

    Raises:
        UnicodeEncodeError: half a surrogate pair.
    """
