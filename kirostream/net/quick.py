"""Writes that do not wait: the system call alone, on a stream that is a socket and nothing else.

A write on a stream of Trio's goes round the scheduler twice, and a deadline around it costs as much again. Most writes
need neither, because the kernel has room. So a writer tries this first, and waits only with what is left.
"""

from __future__ import annotations

import os
import sys

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
