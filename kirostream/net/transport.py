"""The way to an upstream without a proxy: HTTP/1.1 on bare sockets that Trio watches.

Theory
======

A turn is one request with a large body, and an answer of many small chunks. So what counts is what one received buffer
costs. Here it is one wait for the socket, one system call, one pass over the buffer (`net.framing`), and one object
that goes to the decoder: less than half of what httpx takes for a token, and a sixth for a request
(`python -m bench upstream`).

1. A *wire* is a connection: a non-blocking socket, with TLS in memory before it or not. It reads whatever has come, up
   to `READ` bytes, and first waits until something has: mostly nothing has yet, and a call in vain is not free.
2. A `Transport` keeps wires that are idle, by origin, the youngest on top: taking one and giving one back are O(1).
   It has no task, so nothing wakes up for a wire that is too old; whoever comes next closes it.
3. Closing is one system call and needs no waiting, so a cancelled request closes its wire where it stands, and there is
   nothing to shield.
4. The body is read to its end where that costs nothing: a block that is left after the last event of a turn still finds
   the last chunk in the kernel, and the wire is kept.

A connection that has died unnoticed
------------------------------------

A server closes a connection when it was idle for long. What it sent to say so is seen before the wire is used again
(`Wire.is_alive`), and idle wires are given up before servers usually do it, or before this one said it would. What
remains is the moment in which our request and its farewell pass each other. Then there is no answer, and the question
is whether the request may be sent again. It is, once, on a new connection, where

- the method is idempotent (RFC 9110 section 9.2.2); or
- the request did not leave this machine whole: half a request is not acted upon (RFC 9112 section 6.3); or
- the server's farewell came, and does not acknowledge the whole request. TCP acknowledges with whatever it sends, so
  when the server ended its side, its machine did not have the request whole; and having ended its side it cannot
  answer any more. The kernel knows what was acknowledged (Linux; elsewhere this proof is not to be had).

A turn that a server may have received whole is never sent again here: it costs credits. It is `UpstreamDown`, and
`relay.failover` decides. A reset without a farewell is no proof, for a server that has read a request may reset before
its machine has acknowledged it.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
from collections import OrderedDict, deque
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import trio

from kirostream.errors import LocalProtocolError, RemoteProtocolError, StreamCut, UpstreamDown
from kirostream.net.exchange import Headers
from kirostream.net.framing import Body, Head, framing, read_head
from kirostream.net.hub import Come, Hub, current_hub
from kirostream.net.upstream import (
    ClientResponse,
    ClientSettings,
    Origin,
    Place,
    Taker,
    cannot_connect,
    connect_timeout,
    detail,
    no_answer,
    tls_context,
    write_timeout,
)

if TYPE_CHECKING:
    from kirostream.net._wire import Secret, Track

if sys.platform == "linux":
    import fcntl
    import termios

READ: Final = 64 << 10
"""Bytes of one read."""
RECORD: Final = 16 << 10
"""Bytes of plain text that one TLS record holds at most."""
TOGETHER: Final = 64 << 10
"""A body up to this size is sent in one call with its head."""
INTERIM: Final = 16
"""Heads that may come before that of the answer (1xx)."""
SESSIONS: Final = 64
"""Origins whose TLS session is remembered."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_FIELDS: Final = re.compile(
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: (?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?\r\n)*+",
    re.DOTALL,
)
_OURS: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade"})


class Wire:
    """One connection without TLS.

    Args:
        sock: connected, non-blocking.
        patience: seconds in which the other side has to take some of what is sent.

    Attributes:
        ended: the other side has said that it sends nothing more.
        whole: all of the last request has left this machine.
        expires: Trio's time at which the idle wire is given up.
    """

    def __init__(self, sock: socket.socket, origin: Origin, patience: float) -> None:
        self._socket = sock
        self._patience: Final = patience
        self.origin: Final = origin
        self.ended = False
        self.whole = True
        self.expires = 0.0
        self._hub: Hub | None = None

    def __repr__(self) -> str:
        state = "closed" if self._socket.fileno() < 0 else "ended" if self.ended else "open"
        return f"<{type(self).__name__} to {self.origin.host}:{self.origin.port}, {state}>"

    async def receive(self) -> bytes:
        """What has come, waiting for something; empty at the end.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: it was closed here.
        """
        sock = self._socket
        if sock.fileno() < 0:
            raise trio.ClosedResourceError
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(READ)
            except BlockingIOError:
                continue
            except BrokenPipeError:  # a reset after the end: Linux says it so
                self.ended = True
                raise
            if not data:
                self.ended = True
            return data

    def receive_nowait(self) -> bytes | None:
        """What has come, None if nothing has; empty at the end. Raises OSError as `receive`."""
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return None
        if not data:
            self.ended = True
        return data

    @property
    def wants_task(self) -> bool:
        """Whether something has to be done before, or instead of, the next `receive_nowait`: `receive` does it."""
        return False

    async def watch(self, hub: Hub, come: Come) -> None:
        """Call `come` whenever something has come, until it has enough. See `Hub.each`.

        Raises:
            trio.ClosedResourceError: it was closed here.
        """
        await self._watch(hub, come)

    async def _watch(self, hub: Hub, come: Come, secret: Secret | None = None) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        self._hub = hub
        try:
            await hub.each(self._socket, come, secret)
        finally:
            self._hub = None

    def put_on_track(self, track: Track | None) -> None:
        """See `Hub.put_on_track`."""
        if self._hub is not None:
            self._hub.put_on_track(self._socket, track)

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. No checkpoint where the kernel takes it at once.

        Raises:
            OSError, trio.ClosedResourceError: as `receive`.
            trio.TooSlowError: nothing was taken in time.
        """
        view = memoryview(data)
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        while True:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                pass
            if not view:
                return
            with trio.fail_after(self._patience):
                await trio.lowlevel.wait_writable(self._socket)

    def is_alive(self) -> bool:
        """Whether an idle connection can be used: nothing has come on it, neither bytes nor an end."""
        try:
            return self.receive_nowait() is None
        except OSError:
            return False

    def is_unheard(self) -> bool:
        """Whether it is proven that the other side ended before it had the whole of what was sent. See the theory."""
        if not self.whole:
            return True
        if not self.ended or sys.platform != "linux":
            return False
        try:
            waiting = fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return False
        return int.from_bytes(waiting, sys.byteorder) > 0

    def close(self) -> None:
        """Close the connection, whatever state it is in. Whoever waits on it is woken."""
        if self._socket.fileno() >= 0:
            if self._hub is not None:
                self._hub.closing(self._socket)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class TlsWire(Wire):
    """One connection with TLS: OpenSSL works in memory, the socket stays ours.

    Attributes:
        told: `session` has been asked for.
    """

    def __init__(
        self,
        sock: socket.socket,
        origin: Origin,
        patience: float,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None,
    ) -> None:
        super().__init__(sock, origin, patience)
        self.into = ssl.MemoryBIO()
        self.out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_hostname=origin.name.encode(), session=session)
        self._fault: ssl.SSLError | None = None
        self._kept: bytes | None = None  # text that was read, and not yet handed on; empty at the end
        self.told = False

    def session(self) -> ssl.SSLSession | None:
        """What a later connection to the same origin can begin with, None if nothing. OpenSSL takes 350 us for it."""
        session = self.tls.session
        self.told = True
        return session if session is not None and session.has_ticket else None

    async def handshake(self) -> None:
        """Begin TLS.

        Raises:
            OSError: it did not come about; ssl.SSLError among them.
            trio.TooSlowError: as `send`.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await super().send(self.out.read())
                self._take(await super().receive())
            except ssl.SSLError:
                with suppress(OSError):
                    await super().send(self.out.read())  # the alert that says why
                raise
            else:
                await super().send(self.out.read())
                return

    async def watch(self, hub: Hub, come: Come) -> None:
        """As `Wire.watch`."""
        await self._watch(hub, come, self)

    @property
    def wants_task(self) -> bool:
        """As `Wire.wants_task`: an end or a fault is known, or an answer to a change of keys is due."""
        return self.ended or self._fault is not None or self.out.pending > 0

    async def receive(self) -> bytes:
        """As `Wire.receive`: the text of all whole records that have come."""
        if self.out.pending:
            await super().send(self.out.read())
        if self._fault is not None or self.ended:
            await trio.lowlevel.checkpoint()
            if self._fault is not None:
                raise self._fault
            return b""
        while True:
            self._take(await super().receive())
            data = self._opened()
            if self.out.pending:  # an answer to a change of keys
                await super().send(self.out.read())
            if data is not None:
                return data

    def receive_nowait(self) -> bytes | None:
        """As `Wire.receive_nowait`."""
        raw = super().receive_nowait()
        if raw is not None:
            self._take(raw)
        elif self._kept is None:
            return None
        return self._opened()

    def keep(self, text: bytes) -> None:
        """As `net._wire.Secret` has it. The end says itself once more."""
        self._kept = text

    def _take(self, raw: bytes) -> None:
        if raw:
            self.into.write(raw)
        else:
            self.into.write_eof()

    def _opened(self) -> bytes | None:
        """The text of the records that are whole; None if there are none, empty at a farewell.

        Raises:
            ssl.SSLError: they are no TLS, or the connection ended without a farewell: somebody may have cut it.
        """
        parts = [self._kept] if self._kept else []
        self._kept = None
        try:
            while True:
                part = self.tls.read(RECORD)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
                if not self.into.pending and not self.tls.pending():
                    break
        except ssl.SSLWantReadError:
            if not parts:
                return None
        except ssl.SSLError as error:
            if not parts:
                raise
            self._fault = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes | memoryview) -> None:
        """As `Wire.send`."""
        view = memoryview(data)
        for at in range(0, len(view), READ):
            self.tls.write(view[at : at + READ])
            await super().send(self.out.read())

    def close(self) -> None:
        """As `Wire.close`, with a farewell if the kernel takes it."""
        if self.whole and self._socket.fileno() >= 0:
            with suppress(ssl.SSLError, ValueError):  # it wants the other side's, which nobody waits for
                self.tls.unwrap()
            with suppress(OSError):
                self._socket.send(self.out.read())
        super().close()


# --- the pool -----------------------------------------------------------------------------------------------------


class Transport:
    """Connections to upstreams, and those that are idle. Made at once; TLS is set up when it is first needed."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._idle: dict[Origin, deque[Wire]] = {}
        self._ages: OrderedDict[Wire, None] = OrderedDict()  # the idle ones, the oldest first
        self._busy: set[Wire] = set()
        self._closed = False
        self._context: ssl.SSLContext | None = None
        self._sessions: OrderedDict[Origin, ssl.SSLSession] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Transport: {len(self._busy)} busy, {len(self._ages)} idle>"

    async def open(self, method: str, place: Place, headers: Headers, content: bytes) -> ClientResponse:
        """Send a request, and give its answer once the head is there. See `net.client.HttpClient.stream`."""
        head = _request_head(method, place, headers, len(content))
        wire = self._idle_one(place.origin)
        if wire is not None:
            try:
                return await self._ask(wire, method, place, head, content)
            except _NoAnswer as error:
                if not (error.unheard or method in _IDEMPOTENT):
                    raise no_answer(place.label, error.why) from error.why
                self._forget(place.origin)  # the others are older
        wire = await self._connect(place)
        try:
            return await self._ask(wire, method, place, head, content)
        except _NoAnswer as error:
            raise no_answer(place.label, error.why) from error.why

    async def aclose(self) -> None:
        """Close every connection. Streams that are open break."""
        self._closed = True
        for wire in (*self._ages, *self._busy):
            wire.close()
        self._ages.clear()
        self._idle.clear()
        self._busy.clear()
        self._sessions.clear()

    async def _connect(self, place: Place) -> Wire:
        """A new connection, busy from the start.

        Raises:
            UpstreamDown, UpstreamTimeout: there is none.
            LocalProtocolError: the client was closed, before or meanwhile.
        """
        origin, label = place.origin, place.label
        settings = self._settings
        if origin.name and self._context is None:
            self._context = tls_context(settings.verify, settings.ca_file)
        try:
            with trio.fail_after(settings.connect_deadline):
                stream = await trio.open_tcp_stream(origin.host.encode(), origin.port)  # as `door.open_listeners`
        except trio.TooSlowError:
            raise connect_timeout(label, settings.connect_deadline) from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is too long
            raise cannot_connect(label, _first(error)) from error
        # The stream has set TCP_NODELAY. From here on the socket is used without Trio's wrapper.
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        wire = await self._greeted(sock, place) if origin.name else Wire(sock, origin, settings.write_deadline)
        if self._closed:
            wire.close()
            raise LocalProtocolError("the HTTP client is closed")
        self._busy.add(wire)
        return wire

    async def _greeted(self, sock: socket.socket, place: Place) -> TlsWire:
        """A new connection with TLS. Raises as `_connect`, and closes the socket then."""
        origin, settings = place.origin, self._settings
        assert self._context is not None
        try:
            with ExitStack() as undo:
                undo.callback(sock.close)
                session = self._sessions.get(origin)
                wire = TlsWire(sock, origin, settings.write_deadline, self._context, session)
                with trio.fail_after(settings.connect_deadline):
                    await wire.handshake()
                undo.pop_all()
        except trio.TooSlowError:
            raise connect_timeout(place.label, settings.connect_deadline) from None
        except (OSError, ValueError) as error:  # ValueError: no certificate can have this name
            self._sessions.pop(origin, None)
            raise cannot_connect(place.label, error) from error
        return wire

    async def _ask(self, wire: Wire, method: str, place: Place, head: bytes, content: bytes) -> ClientResponse:
        """Send a request on a wire, and read the head of the answer.

        Raises:
            _NoAnswer: the connection broke before anything of an answer came.
            UpstreamDown, UpstreamTimeout: as `open`.
        """
        try:
            await self._send(wire, place.label, head, content)
            answer, ready, body, kept_for = await self._read_head(wire, method, place.label)
        except BaseException:
            self.close(wire)
            raise
        response = _Response(self, wire, place.label, answer, body, ready, kept_for if wire.whole else 0)
        if body.done:
            response.settle()
        return response

    async def _send(self, wire: Wire, label: str, head: bytes, content: bytes) -> None:
        """Send a request. A connection that breaks is no error yet: an answer may have come before."""
        wire.whole = False
        try:
            if len(content) <= TOGETHER:
                await wire.send(head + content)
            else:
                await wire.send(head)
                await wire.send(content)
        except trio.TooSlowError:
            raise write_timeout(label, self._settings.write_deadline) from None
        except (OSError, trio.ClosedResourceError):
            return
        wire.whole = True

    async def _read_head(self, wire: Wire, method: str, label: str) -> tuple[Head, bytes, Body, float | None]:
        """The head of the answer, what of the body came with it, the body, and for how long the wire may be kept."""
        data = b""
        at = interim = 0
        while True:
            try:
                more = await wire.receive()
            except (OSError, trio.ClosedResourceError) as error:
                if data:
                    raise no_answer(label, error) from error
                raise _NoAnswer(error, unheard=wire.is_unheard()) from error
            if not more:
                if data:
                    raise no_answer(label, EOFError("within the head of its answer"))
                raise _NoAnswer(EOFError("without a word"), unheard=wire.is_unheard())
            data = data + more if data else more
            try:
                while (found := read_head(data, at)) is not None:
                    head, at = found
                    if head.status >= 200:
                        body, kept_for = framing(head, method)
                        ready = data[at:]
                        if body.done:
                            body.surplus = bool(ready)
                            ready = b""
                        elif ready:
                            ready = body.feed(ready)
                        return head, ready, body, kept_for
                    interim += 1
                    if interim > INTERIM:
                        raise RemoteProtocolError(f"more than {INTERIM} heads came, and no answer")
            except RemoteProtocolError as error:
                raise UpstreamDown(f"The answer of {label} cannot be read: {error}.") from error

    # Wires come and go.

    def _idle_one(self, origin: Origin) -> Wire | None:
        """The youngest idle wire that is alive, busy from now on."""
        self._drop_old()
        idle = self._idle.get(origin)
        while idle:
            wire = idle.pop()
            del self._ages[wire]
            if not idle:
                del self._idle[origin]
            if wire.expires > trio.current_time() and wire.is_alive():
                self._busy.add(wire)
                return wire
            wire.close()
        return None

    def _drop_old(self) -> None:
        """Close what was idle for too long, and what is too many."""
        now = trio.current_time()
        most = self._settings.idle_connections
        while self._ages:
            wire = next(iter(self._ages))
            if wire.expires > now and len(self._ages) <= most:
                break
            del self._ages[wire]
            idle = self._idle[wire.origin]
            idle.popleft()  # the oldest of all is the oldest of its origin
            if not idle:
                del self._idle[wire.origin]
            wire.close()

    def _forget(self, origin: Origin) -> None:
        """Close the idle wires of an origin."""
        for wire in self._idle.pop(origin, ()):
            del self._ages[wire]
            wire.close()

    def keep(self, wire: Wire, kept_for: float | None) -> None:
        """A wire is not needed any more, and its answer was read to the end.

        Args:
            kept_for: seconds that the other side keeps it; None: it did not say.
        """
        seconds = self._settings.idle_deadline
        if kept_for is not None:
            seconds = min(seconds, kept_for)
        if seconds <= 0:
            self.close(wire)
            return
        self._busy.discard(wire)
        wire.expires = trio.current_time() + seconds
        self._idle.setdefault(wire.origin, deque()).append(wire)
        self._ages[wire] = None
        if isinstance(wire, TlsWire) and not wire.told and (session := wire.session()) is not None:
            self._sessions[wire.origin] = session
            self._sessions.move_to_end(wire.origin)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        self._drop_old()

    def close(self, wire: Wire) -> None:
        """Close a wire that was busy."""
        self._busy.discard(wire)
        wire.close()


class _NoAnswer(Exception):
    """A connection broke before anything of an answer came. `unheard`: the server did not have the whole request."""

    def __init__(self, why: Exception, *, unheard: bool) -> None:
        super().__init__(str(why))
        self.why = why
        self.unheard = unheard


def _first(error: Exception) -> Exception:
    """The error of the first address that was tried."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, Exception) else error


# --- requests and answers -----------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _request_line(method: str, target: bytes) -> bytes:
    if method == "CONNECT" or _METHOD.fullmatch(method) is None:
        raise LocalProtocolError(f"{method[:32]!r} is no method that can be sent")
    return b"%s %s HTTP/1.1\r\n" % (method.encode("ascii"), target)


def _request_head(method: str, place: Place, headers: Headers, length: int) -> bytes:
    """The head of a request: the caller's headers, and before them ``Host``, after them ``Content-Length``.

    Raises:
        LocalProtocolError: a header is not HTTP, or contradicts the body.
    """
    line = _request_line(method, place.target)
    fields = b"".join([b"%s: %s\r\n" % each for each in headers])
    if _FIELDS.fullmatch(fields) is None or fields.count(b"\n") != len(headers):
        bad = next((name for name, value in headers if _FIELDS.fullmatch(b"%s: %s\r\n" % (name, value)) is None), b"")
        raise LocalProtocolError(f"the header {bad!r} of the request to {place.label} is not HTTP")
    host = b"Host: %s\r\n" % place.label.encode("ascii")
    counted = b"Content-Length: %d\r\n" % length if length or method in _WITH_BODY else b""
    for name, value in headers:
        lower = name.lower()
        if lower not in _OURS:
            continue
        if lower == b"host":
            host = b""
        elif lower == b"content-length":
            if value != b"%d" % length:
                raise LocalProtocolError(f"the body of the request to {place.label} has {length} bytes")
            counted = b""
        else:
            raise LocalProtocolError(f"the header {name!r} of the request to {place.label} cannot be kept")
    return b"".join((line, host, fields, counted, b"\r\n"))


class _Response(ClientResponse):
    """An answer that is read from a wire.

    The wire is given back as soon as the end of the body is known, which may be before the last piece was read.
    """

    def __init__(
        self,
        transport: Transport,
        wire: Wire,
        label: str,
        head: Head,
        body: Body,
        ready: bytes,
        kept_for: float | None,
    ) -> None:
        super().__init__(head.status, tuple(head.headers), label)
        self._transport = transport
        self._wire: Wire | None = wire
        self._body = body
        self._ready = ready
        self._kept_for = kept_for

    async def read_some(self) -> bytes:
        """See `ClientResponse.read_some`. Only the first call may find something ready, and return without a stop."""
        if self._ready:
            await trio.lowlevel.checkpoint_if_cancelled()
            ready, self._ready = self._ready, b""
            return ready
        body = self._body
        wire = self._wire
        while wire is not None:
            fault: Exception | None = body.fault
            if fault is None:
                try:
                    data = await wire.receive()
                except (OSError, trio.ClosedResourceError) as error:
                    fault = error
                else:
                    if data:
                        data = body.feed(data)
                        if body.done:
                            self.settle()
                        if data:
                            return data
                    else:
                        body.end()
                        fault = body.fault
                        if body.done:
                            self.settle()
            if fault is not None:
                raise self._cut(fault) from fault
            wire = self._wire
        await trio.lowlevel.checkpoint()
        return b""

    async def each(self, take: Taker) -> bool:
        """See `ClientResponse.each`."""
        self.headers = ()
        hub = current_hub()
        if hub is None:
            return await super().each(take)
        body = self._body
        goes_on = True
        fault: OSError | None = None

        def come(wire: Wire, raw: bytes | OSError | None) -> bool:
            """Hand on what has come. False: there is something for this task."""
            nonlocal goes_on, fault
            if raw is None:
                try:
                    raw = wire.receive_nowait()
                except OSError as error:
                    raw = error
                if raw is None:
                    return True
            if isinstance(raw, OSError):
                fault = raw
                return False
            if not raw:
                wire.ended = True
                body.end()
            elif data := body.feed(raw):
                goes_on = take(data)
            if not goes_on or body.done or body.fault is not None or wire.wants_task:
                return False
            wire.put_on_track(take.track if body.between_chunks else None)
            return True

        while goes_on:
            wire = self._wire
            if wire is None or self._ready or body.fault is not None or wire.wants_task:
                data = await self.read_some()
                if not data:
                    return False
                goes_on = take(data)
                continue
            try:
                await wire.watch(hub, partial(come, wire))
            except trio.ClosedResourceError as error:
                raise self._cut(error) from error
            if body.done:
                self.settle()
            if fault is not None:
                raise self._cut(fault) from fault
        return True

    def settle(self) -> None:
        """The end of the body has come: give the wire back, or close it where it cannot be used again."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._transport.keep(wire, 0 if self._body.surplus or wire.ended else self._kept_for)

    def _cut(self, fault: Exception) -> StreamCut:
        """The answer broke off: the wire is no good any more."""
        self._close()
        return StreamCut(f"The answer of {self._host} was cut: {detail(fault)}.")

    def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._transport.close(wire)

    async def leave(self, *, early: bool) -> None:
        """See `ClientResponse.leave`. It never waits."""
        wire = self._wire
        if wire is None:
            return
        if not early and self._body.fault is None:
            try:
                data = wire.receive_nowait()
            except OSError:
                data = None
            if data:
                self._body.feed(data)
                if self._body.done:
                    self.settle()
        self._close()
