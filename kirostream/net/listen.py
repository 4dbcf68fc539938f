"""Where else to listen, and by which door. Light: nothing here loads a server."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError
from kirostream.net.door import open_listeners

DOORS: Final = ("http1", "asgi")
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AsgiSettings:
    """Every limit and deadline of the ASGI door. The limit of a body comes from its handler (`Exchange.body`)."""

    max_head: int = field(default=64 << 10, metadata={"help": "Largest head of a request.", "unit": "bytes"})
    max_headers: int = field(default=128, metadata={"help": "Most header lines of a request.", "unit": "lines"})
    max_streams: int = field(
        default=256, metadata={"help": "Most requests at once on one HTTP/2 connection.", "unit": "requests"}
    )
    handshake_deadline: float = field(default=15.0, metadata={"help": "For a TLS handshake.", "unit": "s"})
    body_deadline: float = field(default=120.0, metadata={"help": "For the whole body of a request.", "unit": "s"})
    idle_deadline: float = field(
        default=75.0,
        metadata={"help": "How long a connection without a request, or with an unfinished head, stays.", "unit": "s"},
    )
    write_deadline: float = field(
        default=30.0, metadata={"help": "How long a client may take for the next 64 KiB of its answer.", "unit": "s"}
    )
    linger: float = field(
        default=2.0,
        metadata={"help": "How long a body that nobody wants is read on, so that the answer arrives.", "unit": "s"},
    )
    max_ahead: int = field(
        default=64 << 10, metadata={"help": "Most of a body that is kept before it is asked for.", "unit": "bytes"}
    )
    max_message: int = field(
        default=32 << 20, metadata={"help": "Largest message of a WebSocket, as it is assembled.", "unit": "bytes"}
    )
    ping: float = field(default=30.0, metadata={"help": "Between two pings of a WebSocket.", "unit": "s"})


DEFAULTS: Final = AsgiSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files that make a listener speak TLS: PEM. `password` opens the key."""

    certfile: str
    keyfile: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """One address to listen on, besides the first: a TCP port, a Unix socket or an inherited descriptor.

    Raises:
        ValueError: it names none of them, or several, or what its door does not have.
    """

    port: int | None = field(default=None, metadata={"help": "TCP port to listen on; 0 lets the system choose."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address of the port. Beyond loopback a key is needed."})
    path: str = field(default="", metadata={"help": "Unix socket to listen on, in place of a port; mode 0600."})
    fd: int | None = field(
        default=None, metadata={"help": "Listening socket that was inherited, in place of a port (3 under systemd)."}
    )
    door: str = field(default="asgi", metadata={"help": "asgi (TLS, HTTP/2; by hypercorn), or http1 (quicker)."})
    certfile: str = field(default="", metadata={"help": "Certificate and its chain, PEM. With it the door speaks TLS."})
    keyfile: str = field(default="", metadata={"help": "Key of the certificate, PEM."})
    key_password: str = field(default="", repr=False, metadata={"help": "What opens the key.", "secret": True})

    def __post_init__(self) -> None:
        places = [self.port is not None, bool(self.path), self.fd is not None]
        if sum(places) != 1:
            raise ValueError("an address is a port (and its host), a path or an fd: one of them")
        if self.door not in DOORS:
            raise ValueError(f"door is {self.door!r}; it takes: {', '.join(DOORS)}")
        if bool(self.certfile) != bool(self.keyfile):
            raise ValueError("certfile and keyfile come together")
        if self.certfile and self.door != "asgi":
            raise ValueError("TLS is spoken by the door asgi")

    @property
    def tls(self) -> Tls | None:
        """The files of TLS, where it is spoken."""
        if not self.certfile:
            return None
        return Tls(certfile=self.certfile, keyfile=self.keyfile, password=self.key_password)

    def url(self, listeners: list[trio.SocketListener]) -> str:
        """Where it is, for a person."""
        scheme = "https" if self.certfile else "http"
        name = listeners[0].socket.getsockname()
        if not isinstance(name, tuple):
            return f"{scheme}+unix:{self.path or name}"
        host, port = name[:2]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def listening(entry: ListenSettings) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen until the context ends, or until somebody closes the listeners.

    Raises:
        SettingsError: it cannot be done. The message names the address, and says what to do.
    """
    if entry.port is not None:
        listeners = await open_listeners(entry.host, entry.port)
    elif entry.fd is not None:
        listeners = [_inherited(entry.fd)]
    else:
        listeners = [_bound(entry.path)]
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
        if entry.path:
            _unlink(entry.path)


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _inherited(fd: int) -> trio.SocketListener:
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"Cannot listen on the descriptor {fd}: {error}. Pass a listening stream socket, as systemd does."
        ) from None


def _bound(path: str) -> trio.SocketListener:
    """A Unix socket that only its owner may use. One that nobody listens on any more is replaced."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            bound.bind(path)
        finally:
            os.umask(before)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        advice = "it is in use. Stop the program that has it" if error.errno == errno.EADDRINUSE else error.strerror
        raise SettingsError(f"Cannot listen on {path}: {advice}, or choose another path.") from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
