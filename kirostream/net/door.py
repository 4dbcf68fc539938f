"""What every door has: what it notes, how it words its own errors, and where it listens.

A door takes connections and turns each request on them into an `Exchange`. `net.http1` is one.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import socket
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final, Literal, Protocol, TypeAlias

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, LocalProtocolError, MethodNotAllowed, SettingsError
from kirostream.net.codings import decode
from kirostream.net.exchange import Exchange, Handler, Headers, HttpRequest, PeerGone, PeerStalled
from kirostream.net.quick import Outlet

_log = logging.getLogger(__name__)
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_VALUE: Final = re.compile(rb"[^\x00\n-\r]*")

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
    """Tell the standard log where an exception was let out, and of what kind: its message may quote anything."""
    what = f"{request.method} {request.path}" if request else "a connection"
    frames = "".join(traceback.format_tb(fault.__traceback__))
    _log.error("fault while serving %s: %s\n%s", what, type(fault).__qualname__, frames)


def ignore_exchange(record: ExchangeRecord) -> None:
    """Keep no access log."""


def check_head(status: int, headers: Headers) -> None:
    """See that an answer can have this head. Framing is the door's.

    Raises:
        LocalProtocolError: it cannot.
    """
    if not 200 <= status <= 599:
        raise LocalProtocolError(f"a handler's answer is not HTTP: its status is {status}")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise LocalProtocolError(f"a handler's answer is not HTTP: its header {name!r} is none")
        if name == b"transfer-encoding":
            raise LocalProtocolError("a handler set transfer-encoding; the door frames bodies")


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request's target.

    A proxy's form, ``http://host/path``, loses its host; every server must take it (RFC 9112 section 3.2.2). ``*`` and
    CONNECT's ``host:port`` stay as they are.
    """
    if not target.startswith("/"):
        scheme, mark, rest = target.partition("://")
        if mark and scheme.lower() in ("http", "https"):
            _, slash, path = rest.partition("/")
            target = slash + path or "/"
    path, _, query = target.partition("?")
    return path, query


async def undo_codings(codings: Sequence[str], raw: bytes | bytearray, limit: int) -> bytes:
    """A body, decoded; others run between its pieces.

    Args:
        codings: what `parse_codings` gave.
        limit: bytes, after each step.

    Raises:
        MalformedRequest, RequestTooLarge: see `codings.decode`.
    """
    if raw:
        for coding in codings:
            decoded = bytearray()
            for piece in decode(coding, raw, limit):
                decoded += piece
                await trio.lowlevel.checkpoint()
            raw = decoded
    return bytes(raw)


class Door(Protocol):
    """What the composition root sees of a door."""

    async def serve(
        self, listeners: Sequence[trio.SocketListener], *, task_status: trio.TaskStatus[None] = ...
    ) -> None:
        """Serve until `stop`, and until what was in flight then is over. Closes the listeners. To be called once."""

    def stop(self, grace: float) -> None:
        """Take no more connections. Exchanges in flight have `grace` seconds, then they are cut."""

    def snapshot(self) -> DoorSnapshot:
        """What it does now, and what it did."""


class DoorBook:
    """The counts of a door, and whom it tells.

    Args:
        refuse: words the errors that the door answers itself, and those that the handler lets out.
        on_fault: told of each exception that is a bug: anything but a `KirostreamError`, and `LocalProtocolError`. It
            must not raise.
        on_exchange: told of each exchange that is over. It must not raise or block.
    """

    def __init__(self, refuse: Refuse, on_fault: OnFault, on_exchange: OnExchange) -> None:
        self._refuse = refuse
        self._on_fault = on_fault
        self._on_exchange = on_exchange
        self._active = 0
        self._served = 0
        self._evicted = 0
        self._refused = 0
        self._faults = 0
        self.timing = False
        """Whether the head of an answer says how long it took, where its handler does not say more (`Served.timed`)."""

    def snapshot(self, connections: int, *, stopping: bool) -> DoorSnapshot:
        """The counts, now."""
        return DoorSnapshot(
            connections=connections,
            active=self._active,
            served=self._served,
            evicted=self._evicted,
            refused=self._refused,
            faults=self._faults,
            stopping=stopping,
        )

    def word(self, error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
        """Word an error; a bug in `refuse` must not cost the client its answer."""
        try:
            status, headers, body = self._refuse(error, request)
            check_head(status, headers)
            return status, headers, body
        except Exception as fault:  # noqa: BLE001  told to on_fault
            self.note_fault(request, fault)
            return plain_refusal(error, request)

    def note_fault(self, request: HttpRequest | None, fault: Exception) -> None:
        """Count and tell a bug."""
        self._faults += 1
        self._on_fault(request, fault)

    def note_refusal(self, request: HttpRequest | None, status: int, sent: int, error: KirostreamError) -> None:
        """Count and tell of what was no request."""
        self._refused += 1
        self._on_exchange(ExchangeRecord(request, status, sent, 0.0, "whole", error))

    def begin(self) -> float:
        """Count an exchange that begins now. Gives the time, for `end`."""
        self._active += 1
        return trio.current_time()

    def end(self, exchange: Served, since: float) -> None:
        """Tell of an exchange that is over."""
        self._active -= 1
        self._served += 1
        self._evicted += exchange.ending == "stalled"
        seconds = trio.current_time() - since
        self._on_exchange(
            ExchangeRecord(exchange.request, exchange.status, exchange.sent, seconds, exchange.ending, exchange.error)
        )


class Served(Exchange, ABC):
    """An exchange as its door runs it: the handler is called, and the client gets an answer or a cut.

    `status`, `sent` (bytes of the body), `ending` and `error` are for the record of it.

    Args:
        scope: what `run` is called in, and nothing that outlives a client which leaves.
    """

    def __init__(self, request: HttpRequest, book: DoorBook, scope: trio.CancelScope) -> None:
        self._request = request
        self._book = book
        self._scope: Final = scope
        self._begun = perf_counter()
        self._dropped = False
        self.status = 0
        self.sent = 0
        self.ending: Ending = "cut"  # until something better is known
        self.error: KirostreamError | None = None

    @property
    def request(self) -> HttpRequest:
        return self._request

    @property
    def outlet(self) -> Outlet | None:
        return None

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        return False

    def offer_finish(self, last: bytes) -> bool:
        return False

    def timed(self, headers: Headers) -> Headers:
        """`headers`, with the milliseconds from the request's head to this answer's (W3C Server-Timing)."""
        if not self._book.timing or any(name == b"server-timing" for name, _ in headers):
            return headers
        return (*headers, (b"server-timing", b"total;dur=%.2f" % ((perf_counter() - self._begun) * 1e3)))

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether nothing more can be said: the answer has ended, or it was cut."""

    @property
    @abstractmethod
    def lost(self) -> PeerGone | PeerStalled | None:
        """Why the client cannot be reached any more, where that was its own doing."""

    @property
    @abstractmethod
    def cut_off(self) -> bool:
        """Whether its connection was closed in the middle of something."""

    @abstractmethod
    def _cut(self) -> None:
        """Cut the answer."""

    async def run(self, handler: Handler, *, gone: bool) -> None:
        """Run the handler, inside of the scope. `gone`: the client has left already."""
        ran = False
        try:
            if gone:
                self.on_peer_end()
            try:
                await handler(self)
            except Exception as raised:  # noqa: BLE001  each becomes an answer, and a bug is told
                await self._answer_error(self._sort_out(raised))
            else:
                if self.ending == "cut" and self.lost is not None:
                    self.error = self.lost  # which the handler knows
                elif not self.over:
                    did_not = "finish its answer" if self.started else "answer"
                    await self._answer_error(self._sort_out(LocalProtocolError(f"the handler did not {did_not}")))
            ran = True
        except (PeerGone, PeerStalled) as error:  # while it was answered
            self.error = error
            ran = True
        except BaseExceptionGroup as group:  # a cancellation, and what went wrong beside it
            cancelled, rest = group.split(trio.Cancelled)
            if cancelled is None or not isinstance(rest, Exception):
                raise
            self.error = self._sort_out(rest)
            raise cancelled from None
        finally:  # also where the door is cancelled
            if not ran and self._dropped:
                self.ending = "gone"
            if self.started and not self.over and not self.cut_off:
                self._cut()
            if isinstance(self.error, (PeerGone, PeerStalled)):
                self.ending = "gone" if isinstance(self.error, PeerGone) else "stalled"

    def on_peer_end(self) -> None:
        """The client ended its side. It is gone: what it waits for is not worth the work."""
        if not self.over:  # what the handler of an answer that is over still does is its own
            self._dropped = True
            self._scope.cancel()

    def _sort_out(self, raised: Exception) -> KirostreamError:
        """What a handler let out, as one error. A bug is told, and worded without its inside.

        A group (of a nursery inside the handler) is a bug if one of its leaves is. Otherwise the first leaf that is not
        about the connection speaks for it: that the client left is often only what the others did to it.
        """
        known: list[KirostreamError] = []
        for leaf in _leaves(raised):
            if not isinstance(leaf, KirostreamError) or isinstance(leaf, LocalProtocolError):
                self._book.note_fault(self._request, raised)
                return LocalProtocolError("The gateway failed while serving this request. Its log has the reason.")
            known.append(leaf)
        return min(known, key=lambda error: isinstance(error, (PeerGone, PeerStalled)))

    async def _answer_error(self, error: KirostreamError) -> None:
        self.error = error
        if self.started or self.cut_off or isinstance(error, (PeerGone, PeerStalled)):
            return
        status, headers, body = self._book.word(error, self._request)
        await self.reply(status, headers, body)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


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
        plain = bare.encode() if bare.isascii() else bare  # for a str, Python imports the tables of IDNA first
        return await trio.open_tcp_listeners(port, host=plain if bare not in ("", "*") else None)
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
