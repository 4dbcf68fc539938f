"""What is read of a large request at the speed of its bytes. Pure; no function raises for what is in its text.

Each says what its twin in Python would say, or None where that has to look.
"""

from collections.abc import Mapping

from kirostream.turn.request import Message, RawJson, Tool

def split(body: bytes, names: tuple[bytes, ...]) -> tuple[bytes, dict[bytes, list[RawJson]]] | None:
    """A body without its long lists: the same JSON, in which the arrays of these members of the root are empty.

    It is JSON in UTF-8, without a byte order mark and half surrogate pairs, and no value of the root, nor an item of
    the lists, is nested deeper than `dialects.jsontext.MAX_DEPTH`.

    Returns:
        the body, and of each array its items as they stand in the body; None where one of this does not hold.
    """

def read_message(raw: bytes) -> Message | None:
    """A message of the Messages API, of the usual form: `dialects.anthropic.usual` knows which that is."""

def read_tool(raw: bytes) -> Tool | None:
    """A tool of the Messages API that a client runs itself, with a schema of its own."""

class Fitter:
    """Tells schemas with nothing to repair, as `filters.tool_schemas.Fit` does.

    Args:
        keywords: those that are known, with the type of what they hold, as it is written there.
    """

    def __init__(self, keywords: Mapping[str, str]) -> None: ...
    def __call__(self, raw: RawJson) -> RawJson | None:
        """The schema without its ``$schema``; the same bytes where it has none."""
