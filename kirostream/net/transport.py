"""The way to an upstream without a proxy: HTTP/1.1 on bare sockets that Trio watches.

Theory
======

A turn is one request with a large body, and an answer of many small chunks. So what counts is what one received buffer
costs. Here it is one wait for the socket, one system call, one pass over the buffer (`net.framing`), and one object
that goes to the decoder: less than half of what httpx takes for a token, and a sixth for a request
(`python -m bench upstream`).

1. A *wire* (`net.wire`) is a connection: a non-blocking socket, with TLS in memory before it or not. It reads whatever
   has come, up to `READ` bytes, and first waits until something has: mostly nothing has yet, and a call in vain is not
   free. Where there is a hub, it waits there, and stays there while it is idle.
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
from collections import OrderedDict, deque
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import Final

import trio

from kirostream.errors import LocalProtocolError, RemoteProtocolError, StreamCut, UpstreamDown
from kirostream.net.exchange import Headers
from kirostream.net.fields import FRAMING, PLAIN, Fields
from kirostream.net.framing import Body, Head, framing, read_head
from kirostream.net.hub import current_hub
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
from kirostream.net.wire import TlsWire, Wire

TOGETHER: Final = 64 << 10
"""A body up to this size is sent in one call with its head."""
INTERIM: Final = 16
"""Heads that may come before that of the answer (1xx)."""
SESSIONS: Final = 64
"""Origins whose TLS session is remembered."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")


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
        wire.stay_on(current_hub())
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
        label = place.label
        first, then = (head + content, b"") if len(content) <= TOGETHER else (head, content)
        try:
            wire.whole = False
            left = wire.offer(first)
            if left or then:
                await self._send(wire, label, left, then)
            else:
                wire.whole = True
            data = b""
            at = interim = 0
            while True:
                try:
                    more = await wire.receive()
                except (OSError, trio.ClosedResourceError) as error:
                    raise _broken(wire, label, error, begun=bool(data)) from error
                if not more:
                    end = EOFError("within the head of its answer" if data else "without a word")
                    raise _broken(wire, label, end, begun=bool(data))
                data = data + more if data else more
                try:
                    while (found := read_head(data, at)) is not None:
                        answer, at = found
                        if answer.status >= 200:
                            return self._response(wire, label, answer, method, data[at:])
                        interim += 1
                        if interim > INTERIM:
                            raise RemoteProtocolError(f"more than {INTERIM} heads came, and no answer")
                except RemoteProtocolError as error:
                    raise UpstreamDown(f"The answer of {label} cannot be read: {error}.") from error
        except BaseException:
            self.close(wire)
            raise

    async def _send(self, wire: Wire, label: str, *parts: bytes) -> None:
        """Send what is left of a request. A connection that breaks is no error yet: an answer may have come before."""
        try:
            for part in parts:
                await wire.send(part)
        except trio.TooSlowError:
            raise write_timeout(label, self._settings.write_deadline) from None
        except (OSError, trio.ClosedResourceError):
            return
        wire.whole = True

    def _response(self, wire: Wire, label: str, head: Head, method: str, ready: bytes) -> _Response:
        """The answer of this head; `ready` came with it.

        Raises:
            RemoteProtocolError: it cannot be told what its body is.
        """
        body, kept_for = framing(head, method)
        if body.done:
            body.surplus = bool(ready)
            ready = b""
        elif ready:
            ready = body.feed(ready)
        response = _Response(self, wire, label, head, body, ready, kept_for if wire.whole else 0)
        if body.done:
            response.settle()
        return response

    # Wires come and go.

    def _idle_one(self, origin: Origin) -> Wire | None:
        """The youngest idle wire that is alive, busy from now on."""
        now = trio.current_time()
        self._drop_old(now)
        idle = self._idle.get(origin)
        while idle:
            wire = idle.pop()
            del self._ages[wire]
            if not idle:
                del self._idle[origin]
            if wire.expires > now and wire.is_alive():
                self._busy.add(wire)
                return wire
            wire.close()
        return None

    def _drop_old(self, now: float) -> None:
        """Close what was idle for too long, and what is too many."""
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
        wire.stay_on(current_hub())
        now = trio.current_time()
        wire.expires = now + seconds
        self._idle.setdefault(wire.origin, deque()).append(wire)
        self._ages[wire] = None
        if isinstance(wire, TlsWire) and not wire.told and (session := wire.session()) is not None:
            self._sessions[wire.origin] = session
            self._sessions.move_to_end(wire.origin)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        self._drop_old(now)

    def close(self, wire: Wire) -> None:
        """Close a wire that was busy."""
        self._busy.discard(wire)
        wire.close()


def _broken(wire: Wire, label: str, error: Exception, *, begun: bool) -> Exception:
    """What it means that a connection broke before the head was whole."""
    return no_answer(label, error) if begun else _NoAnswer(error, unheard=wire.is_unheard())


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
    if isinstance(headers, Fields):
        counted = b"Content-Length: %d\r\n" % length if length or method in _WITH_BODY else b""
        return b"%bHost: %b\r\n%b%b\r\n" % (line, place.label.encode("ascii"), headers.raw, counted)
    fields = b"".join([b"%s: %s\r\n" % each for each in headers])
    if PLAIN.fullmatch(fields) is None or fields.count(b"\n") != len(headers):
        bad = next((name for name, value in headers if PLAIN.fullmatch(b"%s: %s\r\n" % (name, value)) is None), b"")
        raise LocalProtocolError(f"the header {bad!r} of the request to {place.label} is not HTTP")
    host = b"Host: %s\r\n" % place.label.encode("ascii")
    counted = b"Content-Length: %d\r\n" % length if length or method in _WITH_BODY else b""
    for name, value in headers:
        lower = name.lower()
        if lower not in FRAMING:
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
            if self._ready:
                ready, self._ready = self._ready, b""
                goes_on = take(ready)
                continue
            if wire is None and body.done:
                return False
            if wire is None or body.fault is not None or wire.wants_task:
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
