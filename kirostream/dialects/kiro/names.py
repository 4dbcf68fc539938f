"""Tool names as Kiro takes them, and back (kiro-protocol.md section 2.6).

Kiro wants ``[a-zA-Z][a-zA-Z0-9_-]*`` of at most 64 characters and compares names ignoring case. Clients have longer
names (``mcp__server__tool`` of a long server) and others (``fs.read``). The map is a function of the tools in the
request alone: nothing is remembered between writing a request and reading its answer, or between two requests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 64
LEGAL: Final = re.compile(rf"[a-zA-Z][a-zA-Z0-9_-]{{0,{LONGEST - 1}}}")

_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
_HASH_DIGITS: Final = 12


class ToolNames:
    """The names of one request's tools, both ways.

    A legal name stays as it is. Any other, and one that differs from an earlier name by case only, becomes a readable
    stem with a hash behind it. Names are given out in order, legal ones first, so that a tool added at the end changes
    no name before it.

    Attributes:
        known: the names for Kiro, by the client's.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.known: dict[str, str] = {}
        self._any_case: dict[str, str] = {}  # the wire name by the client's in lower case
        self._client: dict[str, str] = {}  # the client's name by the wire's in lower case
        rest = []
        for name in dict.fromkeys(names):
            lower = name.lower()
            if lower not in self._client and LEGAL.fullmatch(name):
                self.known[name] = self._any_case[lower] = name
                self._client[lower] = name
            else:
                rest.append(name)
        for name in rest:
            salt = 0
            while (wire := _shorten(name, salt)).lower() in self._client:
                salt += 1
            self.known[name] = wire
            self._any_case.setdefault(name.lower(), wire)
            self._client[wire.lower()] = name

    def __repr__(self) -> str:
        changed = sum(name != wire for name, wire in self.known.items())
        return f"<ToolNames {len(self.known)}, {changed} of them changed>"

    def wire(self, name: str) -> str:
        """The name for Kiro. A name of no tool in the request is made legal all the same."""
        if name in self.known:
            return self.known[name]
        if name.lower() in self._any_case:
            return self._any_case[name.lower()]
        return name if LEGAL.fullmatch(name) else _shorten(name, 0)

    def client(self, wire: str) -> str:
        """The client's own name for what Kiro calls `wire`, in any case. An unknown name comes back as it is."""
        return self._client.get(wire.lower(), wire)


def _shorten(name: str, salt: int) -> str:
    digest = hashlib.sha256(f"{salt}:{name}".encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    stem = _STRANGE.sub("_", name)
    if not stem[:1].isalpha():
        stem = f"t_{stem}"
    return f"{stem[: LONGEST - 1 - _HASH_DIGITS]}_{digest}"
