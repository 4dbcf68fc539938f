"""What every door has: what it notes, how it words its own errors, and where it listens.

A door takes connections and turns each request on them into an `Exchange`. `net.http1` is one.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from kirostream.errors import KirostreamError, MethodNotAllowed, SettingsError
from kirostream.net.exchange import Headers, HttpRequest

_log = logging.getLogger(__name__)

Ending: TypeAlias = Literal["whole", "cut", "gone", "stalled", "upgraded"]


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """One exchange that is over: the line of an access log.

    `request` is None where no head could be read. `status` is 0 where no answer was started. `sent` counts bytes of the
    body, without framing. `seconds` run from the end of the request's head. `ending` says how it ended: ``whole``;
    ``cut`` by us (a fault, an abort, a shutdown); ``gone``, the client left; ``stalled``, it did not read;
    ``upgraded``. `error` is what the handler let out, or why the head could not be read.
    """

    request: HttpRequest | None
    status: int
    sent: int
    seconds: float
    ending: Ending
    error: KirostreamError | None = None


@dataclass(frozen=True, slots=True)
class DoorSnapshot:
    """What the door does now, and what it did since it was made.

    `connections` and `active` (exchanges) are now. `served` exchanges ended, whole or not; `evicted` clients did not
    read; `refused` requests were no requests; `faults` are exceptions that handlers let out and that are nobody's
    answer.
    """

    connections: int
    active: int
    served: int
    evicted: int
    refused: int
    faults: int
    stopping: bool

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.active} active, {self.served} served, {self.evicted} evicted, "
            f"{self.refused} refused, {self.faults} faults{', stopping' if self.stopping else ''}"
        )


Refuse: TypeAlias = Callable[[KirostreamError, HttpRequest | None], tuple[int, Headers, bytes]]
OnFault: TypeAlias = Callable[[HttpRequest | None, Exception], None]
OnExchange: TypeAlias = Callable[[ExchangeRecord], None]


def plain_refusal(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
    """Word an error as a line of text, with the headers that its status asks for."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode("ascii")))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    return error.status, headers, error.message.encode() + b"\n"


def log_fault(request: HttpRequest | None, fault: Exception) -> None:
    """Tell the standard log of an exception that a handler let out."""
    what = f"{request.method} {request.path}" if request else "a connection"
    _log.error("fault while serving %s", what, exc_info=fault)


def ignore_exchange(record: ExchangeRecord) -> None:
    """Keep no access log."""


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Bind and listen.

    Args:
        host: a name or an address; ``""`` and ``*`` mean every interface; an IPv6 address with or without brackets.
        port: 0 picks a free one; see ``listener.socket.getsockname()``.

    Raises:
        SettingsError: it cannot be bound. The message names host and port, and says what to do.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    where = f"[{bare}]:{port}" if ":" in bare else f"{host or '*'}:{port}"
    if not 0 <= port <= 65535:
        raise SettingsError(f"Cannot listen on {where}: a port is 0 to 65535.")
    try:
        return await trio.open_tcp_listeners(port, host=None if bare in ("", "*") else bare)
    except (socket.gaierror, UnicodeError):
        raise SettingsError(
            f"Cannot listen on {where}: the host is not known here. "
            "Use an address of this machine, such as 127.0.0.1 (--host)."
        ) from None
    except OSError as error:
        raise SettingsError(f"Cannot listen on {where}: {_bind_advice(error)}") from None


def _bind_advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use. Choose another (--port), or stop the program that has it."
    if error.errno == errno.EACCES:
        return "ports under 1024 need privileges. Choose a higher one (--port)."
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address. Use one it has, such as 127.0.0.1 (--host)."
    return f"{error.strerror or error}. Choose another address (--host, --port)."


def peer_name(stream: trio.abc.Stream) -> str:
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        name = stream.socket.getpeername()
    except OSError:  # gone already
        return ""
    if not isinstance(name, tuple):  # a Unix socket
        return "unix"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
