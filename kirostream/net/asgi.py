"""Door 2: the same handlers as an ASGI 3 application, for TLS and HTTP/2.

Theory
======

A server speaks the protocols; this module makes an `Exchange` of what it says. The server is hypercorn's Trio worker,
run by `net.asgi_server` for `AsgiDoor.serve`, or by anybody who loads `kirostream.asgi:app`. An exchange is two tasks:

- The *listener* awaits ``receive``, always, as the filler of door 1 reads always: so the end of a connection is seen
  while a handler works (and cancels it), and the server's reader is never held up by a body that nobody asked for. It
  keeps at most `max_ahead` bytes; then it waits, and the server's flow control stops the client.
- The *handler* runs in the task that the server made.

The rules:

1. A body goes out in pieces of 64 KiB, each with a deadline. Hypercorn shields its writes to the socket from it, and
   from every other cancellation: our server undoes that (`net.asgi_server`); under somebody else's the kernel has to
   give up (``TCP_USER_TIMEOUT`` on the listening socket).
2. A send to somebody who has left does not fail under hypercorn. What the listener heard makes it fail here.
3. An answer ends only when its request has: until then what comes is read and dropped, for `linger` seconds at most. An
   early end would close an HTTP/1.1 connection with unread bytes, and the reset would overtake the answer; and
   hypercorn loses the whole connection over HTTP/2 data for a stream that it has forgotten.
4. ASGI has no word for cutting an answer. A server of ours has one (`Transport`, in the scope's state). Elsewhere the
   application returns without ending its answer: hypercorn then closes an HTTP/1.1 connection at once, and one of
   HTTP/2 when it has been idle.
5. Heads are checked here (`check_head`): hypercorn drops an HTTP/2 head that is none without a word.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import quote

import trio

from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    MalformedRequest,
    RequestTooLarge,
    RequestTooSlow,
)
from kirostream.net.codings import parse_codings
from kirostream.net.door import (
    DoorBook,
    DoorSnapshot,
    OnExchange,
    OnFault,
    Refuse,
    Served,
    check_head,
    ignore_exchange,
    log_fault,
    plain_refusal,
    split_target,
    undo_codings,
)
from kirostream.net.exchange import Handler, Headers, HttpRequest, Part, PeerGone, PeerStalled, UpgradeUnsupported
from kirostream.net.listen import DEFAULTS, AsgiSettings, Tls

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

TRANSPORT: Final = "kirostream.transport"
"""Where a server of ours puts its `Transport` into the scope's state."""
_PIECE: Final = 64 << 10  # bytes, the most that one message of an answer holds
_LAST_SEND: Final = 1.0  # seconds for the end of an answer, once the server has said that the exchange is over
_OF_CONNECTIONS: Final[AbstractSet[bytes]] = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te")
)  # HTTP/2 has none of these (RFC 9113 section 8.2.2)


class Transport(Protocol):
    """What a server of ours can do to a connection, and ASGI cannot say."""

    @property
    def stalled(self) -> bool:
        """Whether it was cut because the client did not read."""

    def enter(self, scope: Scope) -> None:
        """An exchange begins."""

    def leave(self, scope: Scope) -> None:
        """An exchange is over, with all that was to be said."""

    async def room(self, scope: Scope) -> None:
        """Wait until the client has taken most of what it was sent."""

    def cut(self, scope: Scope, *, whole: bool, reset: bool) -> None:
        """End one exchange's stream now. `whole`: its answer was.

        HTTP/1.1 has one a connection, which is closed; `reset`: by RST, which drops what the kernel still holds.
        """


class AsgiDoor:
    """Serves a handler as an ASGI 3 application on Trio.

    Args:
        handler: called once a request, in the task that the server made.
        settings: limits and deadlines.
        tls: for `serve`; None: in the clear.
        refuse, on_fault, on_exchange: see `DoorBook`.
    """

    def __init__(
        self,
        handler: Handler,
        settings: AsgiSettings = DEFAULTS,
        *,
        tls: Tls | None = None,
        refuse: Refuse = plain_refusal,
        on_fault: OnFault = log_fault,
        on_exchange: OnExchange = ignore_exchange,
    ) -> None:
        self.handler: Final = handler
        self.settings: Final = settings
        self.tls: Final = tls
        self.book: Final = DoorBook(refuse, on_fault, on_exchange)
        self.connections = 0  # counted by the server, where it is ours
        self.accepting: Final = trio.CancelScope()
        self.grace: Final = trio.CancelScope()  # its end is the end of what is in flight

    def __repr__(self) -> str:
        return f"<AsgiDoor: {self.snapshot()}>"

    def snapshot(self) -> DoorSnapshot:
        """The counts, now."""
        return self.book.snapshot(self.connections, stopping=self.stopping)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self.grace.deadline != math.inf

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`, and until what was in flight then is over. Closes the listeners. To be called once.

        Raises:
            SettingsError: the certificate or its key cannot be used.
        """
        # hypercorn: 4 MB and a tenth of a second, which only such a listener needs; other doors serve meanwhile.
        await trio.to_thread.run_sync(import_module, "kirostream.net.asgi_server")
        from kirostream.net import asgi_server

        await asgi_server.serve(self, listeners, task_status=task_status)

    def stop(self, grace: float) -> None:
        """Stop accepting and close idle connections. Exchanges in flight have `grace` seconds, then they are cut.

        A second call may shorten the grace.
        """
        self.grace.deadline = min(self.grace.deadline, trio.current_time() + grace)
        self.accepting.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. The application of ASGI 3."""
        if scope["type"] == "lifespan":  # whoever made this door has begun, and will end it
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        exchange = _AsgiExchange(self, scope, receive, send)
        transport = exchange.transport
        if transport is not None:
            transport.enter(scope)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.listen)
                await exchange.serve()
                nursery.cancel_scope.cancel()
        finally:
            if transport is not None:
                transport.leave(scope)


class _Answer(enum.Enum):
    """Where an answer is."""

    UNSTARTED = enum.auto()
    EMPTY = enum.auto()  # begun, and none of its body goes out: HEAD, 204, 304
    BEGUN = enum.auto()
    OVER = enum.auto()


class _AsgiExchange(Served):
    """The `Exchange` of this door. It is `Messages`, too, once a handler has found that out."""

    def __init__(self, door: AsgiDoor, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(_request_of(scope), door.book, trio.CancelScope())
        self._door = door
        self._asgi = scope
        self._receive = receive
        self._send = send
        self._is_socket = scope["type"] == "websocket"
        self._says = "websocket.http.response" if self._is_socket else "http.response"
        self.transport: Transport | None = (scope.get("state") or {}).get(TRANSPORT)
        self._answer = _Answer.UNSTARTED
        self._unsent = b""  # what was offered
        self._declared: int | None = None  # content-length of the answer
        self._left: PeerGone | PeerStalled | None = None
        self._was_cut = False
        self._severed = False
        self._writes = False
        self._sends: set[trio.CancelScope] = set()
        # What the listener heard.
        self._came = bytearray()
        self._message: str | bytes | None = None
        self._whole = self._is_socket  # the request
        length = self._request.header(b"content-length") or b""
        self._to_come = (
            int(length) if length.isdigit() else math.inf
        )  # bytes; then there is nothing but the end to hear
        self._ended = False
        self._drops = False
        self._body_asked = False
        self._news = trio.Event()
        self._room = trio.Event()

    def __repr__(self) -> str:
        request = self._request
        return f"<exchange {request.method} {request.path} from {request.peer or '?'}: {self._answer.name}>"

    @property
    def started(self) -> bool:
        return self._answer is not _Answer.UNSTARTED

    @property
    def over(self) -> bool:
        return self._answer is _Answer.OVER

    @property
    def lost(self) -> PeerGone | PeerStalled | None:
        return self._left

    @property
    def cut_off(self) -> bool:
        return self._was_cut

    # The door's side.

    async def serve(self) -> None:
        """Run the handler, or refuse what is no request."""
        refused = self._fault_of_head()
        if refused is None:
            since = self._book.begin()
            try:
                with self._scope:
                    await self.run(self._door.handler, gone=False)
            finally:
                self._book.end(self, since)
        else:
            status, headers, body = self._book.word(refused, None)
            self._book.note_refusal(None, status, len(body), refused)
            try:
                await self.reply(status, [*headers, (b"connection", b"close")], body)
            except (PeerGone, PeerStalled):
                return
        if self._was_cut:
            self._sever()
        elif not self._whole:
            self._sever(whole=True)  # it sends on, and nobody will listen

    def _fault_of_head(self) -> KirostreamError | None:
        """What servers let through and we do not."""
        head, settings = self._request, self._door.settings
        size = len(head.method) + len(head.path) + len(head.query)
        size += sum(len(name) + len(value) for name, value in head.headers)
        if size > settings.max_head:
            return RequestTooLarge(f"The request's head is over the limit of {settings.max_head} bytes.")
        if len(head.headers) > settings.max_headers:
            return RequestTooLarge(f"The request has more than {settings.max_headers} headers.")
        if head.header(b"transfer-encoding") is not None and head.header(b"content-length") is not None:
            # Two framings of one body are how requests are smuggled past a proxy (RFC 9112 section 6.3).
            return MalformedRequest("A request may have content-length or transfer-encoding, not both.")
        return None

    async def listen(self) -> None:
        """Take what the server says, until the client has left."""
        while True:
            message = await self._receive()
            kind = message["type"]
            if kind == "http.request":
                part = message.get("body", b"")
                self._to_come -= len(part)
                if not self._drops:
                    self._came += part
                self._whole = not message.get("more_body", False)
                self._tell()
                while len(self._came) >= self._door.settings.max_ahead and self._to_come > 0 and not self._drops:
                    await self._taken()
            elif kind == "websocket.receive":
                text = message.get("text")
                self._message = message.get("bytes") or b"" if text is None else text
                self._tell()
                while self._message is not None:
                    await self._taken()
            elif kind in ("http.disconnect", "websocket.disconnect"):
                self._ended = True
                self._tell()  # first: who waits for a body learns of the end by PeerGone, not by being cancelled
                self._on_left()
                return

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _taken(self) -> None:
        self._room = trio.Event()
        await self._room.wait()

    def _on_left(self) -> None:
        if self.over and not self._is_socket:
            # Servers also say so once they have the end of an answer. Whoever left before that lets the send wait.
            for send in self._sends:
                send.deadline = min(send.deadline, trio.current_time() + _LAST_SEND)
            return
        self._lose()
        for send in self._sends:  # the handler learns it from its send, which may wait for ever
            send.cancel()
        if isinstance(self._left, PeerStalled):
            if self._sends:
                return
            self.error = self._left
        self.on_peer_end()

    def _lose(self) -> None:
        """Note why the client cannot be reached."""
        if self._left is None:
            seconds = self._door.settings.write_deadline
            if self._ended and not (self.transport is not None and self.transport.stalled):
                self._left = PeerGone("The client closed the connection.")
            else:
                self._left = PeerStalled(f"The client did not read for {seconds:g} s; its connection was cut.")

    def _cut(self) -> None:
        self._answer = _Answer.OVER
        self._was_cut = True
        self._sever()

    def _sever(self, *, whole: bool = False) -> None:
        if self.transport is not None and not self._severed:
            self._severed = True
            # What ends with its connection (HTTP/1.0) would look whole after a clean end.
            reset = isinstance(self._left, PeerStalled) or self._asgi.get("http_version") == "1.0"
            self.transport.cut(self._asgi, whole=whole, reset=reset and not whole)

    async def _put(self, message: Message) -> None:
        """Hand a message to the server, which takes it as fast as the client reads."""
        if self._left is not None:
            raise self._left
        if self._was_cut:
            raise PeerGone("The connection was cut.")
        taken = False
        with trio.move_on_after(self._door.settings.write_deadline) as patience:
            self._sends.add(patience)
            try:
                if self.transport is not None:
                    await self.transport.room(self._asgi)
                await self._send(message)
                taken = True
            finally:
                self._sends.discard(patience)
                if not taken:
                    self._was_cut = True  # who knows how far it came
        if not taken or (self.transport is not None and self.transport.stalled):
            self._lose()
            self._sever()
        if self._left is not None:
            raise self._left

    async def _write(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body, and its end unless there is `more`."""
        if self._writes:
            raise LocalProtocolError("two tasks send on one exchange at the same time")
        kind = f"{self._says}.body"
        self._writes = True
        try:
            at = 0
            while len(data) - at > _PIECE:
                await self._put({"type": kind, "body": data[at : at + _PIECE], "more_body": True})
                at += _PIECE
            await self._put({"type": kind, "body": data[at:] if at else data, "more_body": more})
        finally:
            self._writes = False

    # The handler's side: see `Exchange`.

    async def body(self, limit: int) -> bytes:
        if self._body_asked:
            raise LocalProtocolError("the body was read twice")
        self._body_asked = True
        codings = parse_codings([value for name, value in self._request.headers if name == b"content-encoding"])
        declared = self._request.header(b"content-length") or b""
        if declared.isdigit() and int(declared) > limit:
            raise RequestTooLarge(f"The body of {int(declared)} bytes is over the limit of {limit}.")
        raw = bytearray()
        seconds = self._door.settings.body_deadline
        with trio.CancelScope(deadline=trio.current_time() + seconds) if not self._whole else nullcontext() as scope:
            while True:
                raw += self._came
                self._came.clear()
                self._room.set()
                if len(raw) > limit:
                    raise RequestTooLarge(f"The body is over the limit of {limit} bytes.")
                if self._whole:
                    break
                if self._ended:
                    raise PeerGone("The client left before its request was whole.")
                await self._news.wait()
        if scope is not None and scope.cancelled_caught:
            raise RequestTooSlow(f"The body did not arrive within {seconds:g} s.")
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have sent all, and left
        return await undo_codings(codings, raw, limit)

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        await self._begin(status, headers)
        if first and self._answer is _Answer.BEGUN:
            self._count(first)
            await self._write(first, more=True)

    async def _begin(self, status: int, headers: Headers) -> None:
        if self._answer is not _Answer.UNSTARTED:
            raise self._misused("start")
        check_head(status, headers)
        fields = list(self.timed(headers))
        if self._request.method == "CONNECT" and status < 300:
            raise LocalProtocolError("a CONNECT is not accepted here")
        if self._asgi.get("http_version") in ("2", "3"):
            fields = [pair for pair in fields if pair[0] not in _OF_CONNECTIONS]
        elif self._door.stopping and not any(name == b"connection" for name, _ in fields):
            fields.append((b"connection", b"close"))
        declared = [value for name, value in fields if name == b"content-length"]
        if declared:
            if not declared[0].isdigit():
                raise LocalProtocolError(f"a handler's answer is not HTTP: its length is {declared[0]!r}")
            self._declared = int(declared[0])
        head = self._request.method == "HEAD" or status in (204, 304)
        self._answer = _Answer.EMPTY if head else _Answer.BEGUN
        self.status = status
        if self._is_socket and self._says not in self._asgi.get("extensions", ()):
            raise LocalProtocolError("this server can only close a WebSocket, and not answer it")
        await self._put({"type": f"{self._says}.start", "status": status, "headers": fields})

    def _count(self, data: bytes) -> None:
        self.sent += len(data)
        if self._declared is not None and self.sent > self._declared:
            raise LocalProtocolError("a handler's answer is not HTTP: its body is longer than its content-length")

    async def send(self, data: bytes) -> None:
        if self._answer in (_Answer.UNSTARTED, _Answer.OVER):
            raise self._misused("send")
        data = self._owed(data)
        if data and self._answer is _Answer.BEGUN:
            self._count(data)
            await self._write(data, more=True)
        else:
            await trio.lowlevel.checkpoint()

    def offer(self, part: Part) -> bool:
        self._unsent += part.data  # a server takes nothing without waiting
        return False

    def _owed(self, data: bytes) -> bytes:
        """What offers left over, and this."""
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        return data

    async def finish(self, last: bytes = b"") -> None:
        if self._answer in (_Answer.UNSTARTED, _Answer.OVER):
            raise self._misused("finish")
        last = self._owed(last)
        if self._answer is _Answer.EMPTY:
            last = b""
        else:
            self._count(last)
            if self._declared is not None and self.sent < self._declared:
                raise LocalProtocolError("a handler's answer is not HTTP: its body is shorter than its content-length")
        if not self._whole:
            if last:
                await self._write(last, more=True)
                last = b""
            self._answer = _Answer.OVER
            await self._linger()
        self._answer = _Answer.OVER  # first: a client that closes as soon as it has all of it is not gone
        try:
            await self._write(last, more=False)
        except BaseException:
            self._was_cut = True
            raise
        self.ending = "whole"

    async def _linger(self) -> None:
        """Read over what is left of the request."""
        self._drops = True
        self._came.clear()
        self._room.set()
        with trio.move_on_after(self._door.settings.linger):
            while not self._whole and not self._ended:
                await self._news.wait()

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        fields = [pair for pair in headers if pair[0] != b"content-length"]
        if status not in (204, 304):
            fields.append((b"content-length", b"%d" % len(body)))
        await self._begin(status, fields)
        await self.finish(body)

    def abort(self) -> None:
        if self._answer is not _Answer.OVER:
            self._cut()

    async def upgrade(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self._answer is not _Answer.UNSTARTED:
            raise LocalProtocolError("an answer was started; the connection cannot be taken over any more")
        raise UpgradeUnsupported(
            "this door has no raw stream to give", _AsgiMessages(self) if self._is_socket else None
        )

    def _misused(self, what: str) -> KirostreamError:
        if self._was_cut:
            return self._left or PeerGone("The connection was cut.")
        if what == "start":
            return LocalProtocolError("an answer was started twice")
        return LocalProtocolError(
            f"{what} before start" if self._answer is _Answer.UNSTARTED else f"{what} after the end of the answer"
        )

    # As a WebSocket: see `Messages`.

    async def accept_socket(self, subprotocol: str | None) -> None:
        self._answer = _Answer.OVER
        self.ending = "upgraded"
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})

    async def receive_message(self) -> str | bytes:
        while self._message is None:
            if self._ended:
                raise PeerGone("The WebSocket is closed.")
            await self._news.wait()
        message, self._message = self._message, None
        self._room.set()
        return message

    async def send_message(self, text: str) -> None:
        await self._put({"type": "websocket.send", "text": text})

    async def close_socket(self, code: int, reason: str) -> None:
        await self._put({"type": "websocket.close", "code": code, "reason": reason or None})
        while not self._ended:  # what it still says is dropped
            self._message = None
            self._room.set()
            await self._news.wait()


class _AsgiMessages:
    """The `Messages` of this door."""

    def __init__(self, exchange: _AsgiExchange) -> None:
        self.accept = exchange.accept_socket
        self.receive = exchange.receive_message
        self.send = exchange.send_message
        self.close = exchange.close_socket


def _request_of(scope: Scope) -> HttpRequest:
    target = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    path, _ = split_target(target.decode("latin-1"))
    headers = tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"])
    if scope["type"] == "websocket" and scope.get("http_version") in ("2", "3"):
        headers += ((b":protocol", b"websocket"),)  # which the client sent (RFC 8441), and the server took away
    host, port = scope.get("client") or ("unix", None)
    peer = host if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    query, secure = scope["query_string"].decode("latin-1"), scope.get("scheme") in ("https", "wss")
    return HttpRequest(scope.get("method", "GET"), path, query, headers, peer, secure)
