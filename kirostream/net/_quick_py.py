"""`net.quick` in Python: what runs where the compiled core is not built. Documentation: `_quick.pyi`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal

import trio

CORE: Final[Literal["compiled", "python"]] = "python"


class Outlet:
    """As `_quick.pyi` has it."""

    __slots__ = ("_fd", "fanned", "free", "sock", "unsent")

    def __init__(self, sock: trio.socket.SocketType | None) -> None:
        self.sock = sock
        self._fd = sock.fileno() if sock is not None else -1
        self.free = self._fd >= 0
        self.unsent = b""
        self.fanned = 0

    def __repr__(self) -> str:
        return f"<Outlet {'free' if self.free else 'not free'}, {len(self.unsent)} bytes unsent>"

    def write(self, data: bytes) -> int:
        """How many bytes go without waiting."""
        if not self.free:
            return 0
        try:
            return os.write(self._fd, data)
        except OSError:  # no room, or nobody there
            return 0

    def offer(self, data: bytes) -> bool:
        """As `_quick.pyi` has it."""
        sent = self.write(data)
        if sent == len(data):
            return True
        self.owe(data[sent:])
        return False

    def owe(self, rest: bytes) -> None:
        """As `_quick.pyi` has it."""
        self.unsent += rest
        self.free = False

    def shut(self) -> None:
        """As `_quick.pyi` has it."""
        self.free = False
        self._fd = -1


def write_each(outlets: list[Outlet | None], data: bytes) -> Sequence[tuple[int, int]]:
    """As `_quick.pyi` has it."""
    sent = [outlet.write(data) if outlet is not None else 0 for outlet in outlets]
    return [(index, size) for index, size in enumerate(sent) if size < len(data)]
