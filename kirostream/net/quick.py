"""Writes that do not wait: the system call alone, on a stream that is a socket and nothing else.

A write on a stream of Trio's goes round the scheduler twice, and a deadline around it costs as much again. Most writes
need neither, because the kernel has room. So a writer tries this first, and waits only with what is left.

An `Outlet` is a connection as its writers see it, and `write_each` sends the same bytes to many of them. Both are
compiled where that is built, and otherwise, or with ``KIROSTREAM_CORE=python``, in Python: `CORE` says which. The calls
are the same; what goes away is a microsecond of Python around each, and two where a thousand connections take turns and
nothing of theirs is in the cache. Documentation: `_quick.pyi`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import trio

from kirostream.net.inbox import TakenOver


def plain_socket(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket that a stream's bytes go to as they are; None where it has another layer, or no file descriptor."""
    if isinstance(stream, TakenOver):
        stream = stream.stream
    if sys.platform == "win32" or not isinstance(stream, trio.SocketStream):  # there, a socket is no file
        return None
    return stream.socket


def write_now(sock: trio.socket.SocketType, data: bytes) -> int:
    """Send what the kernel takes.

    Returns:
        How many bytes it took; 0 where it has no room.

    Raises:
        OSError: the peer is gone, or the socket closed.
    """
    try:
        return os.write(sock.fileno(), data)
    except BlockingIOError:
        return 0


if TYPE_CHECKING:
    from kirostream.net._quick import CORE, Outlet, write_each
else:
    try:
        if os.environ.get("KIROSTREAM_CORE", "") == "python":
            from kirostream.net._quick_py import CORE, Outlet, write_each
        else:
            from kirostream.net._quick import CORE, Outlet, write_each
    except ModuleNotFoundError as missing:
        if missing.name != "kirostream.net._quick":
            raise
        from kirostream.net._quick_py import CORE, Outlet, write_each

__all__ = ["CORE", "Outlet", "plain_socket", "write_each", "write_now"]
