"""A custom tool's input, lifted out of its call's arguments while they arrive (client-apis.md section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kirostream.dialects.openai_responses.tools import custom_input
from kirostream.turn.events import escape, unescape


class Unwrapper:
    """The member ``input`` of a call's arguments, lifted out while they arrive.

    The arguments are JSON inside of JSON strings; unescaped once, what stands between the quotes of the member is again
    the inside of a JSON string, and goes to the client as it is. What would not be valid there (a bare control
    character, an unknown escape, half a surrogate pair) is made so. What does not begin as ``{"input":"`` is held until
    the end.
    """

    _HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
    _HEAD_MOST: Final = 64
    _HEX: Final = "[0-9a-fA-F]"
    _TOKEN: Final = re.compile(
        rf"""(?P<plain>[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}
        |\\u(?![dD][89a-fA-F]){_HEX}{{4}})
        |(?P<half>\\u[dD][c-fC-F]{_HEX}{{2}}|\\u[dD][89abAB]{_HEX}{{2}}(?!\\?\Z|\\u{_HEX}{{0,3}}\Z))
        |(?P<odd>\\[^u"\\/bfnrt]|[\x00-\x1f])""",
        re.VERBOSE,
    )

    def __init__(self) -> None:
        self._held = ""
        self.lifts = False
        """Whether the arguments begin as they should, and the input comes as they do."""
        self.over = False
        """Whether the end of the input was seen, or never will be."""
        self._said: list[bytes] = []

    @property
    def said(self) -> bytes:
        """The input so far, the inside of a JSON string."""
        return b"".join(self._said)

    def feed(self, pieces: Sequence[bytes]) -> bytes:
        """More of the arguments; gives more of the input."""
        if self.over:
            return b""
        self._held += unescape(pieces)
        if not self.lifts:
            head = self._HEAD.match(self._held)
            if head is None:
                self.over = len(self._held) > self._HEAD_MOST
                return b""
            self.lifts = True
            self._held = self._held[head.end() :]
        return self._take()

    def _take(self) -> bytes:
        at = 0
        parts: list[bytes] = []
        while token := self._TOKEN.match(self._held, at):
            at = token.end()
            if token.lastgroup == "plain":
                parts.append(token[0].encode("utf-8", "replace"))
            else:
                parts.append("\ufffd".encode() if token.lastgroup == "half" else escape(token[0]))
        self.over = self._held[at : at + 1] == '"'
        self._held = self._held[at:]
        said = b"".join(parts)
        self._said.append(said)
        return said

    def finish(self, pieces: Sequence[bytes]) -> bytes:
        """The arguments are over and whole; `pieces` are all of them. Gives what is left of the input."""
        arguments = "" if self.lifts else unescape(pieces)
        rest = escape(custom_input(arguments.encode("utf-8", "replace"))) if arguments.strip() else b""
        self._said.append(rest)
        return rest
