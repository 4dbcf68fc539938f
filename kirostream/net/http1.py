"""Door 1: HTTP/1.1 on any Trio stream.

Theory
======

`net.cycle` reads and writes heads and delimits bodies, by h11 or by its rules; it does no I/O and knows no time. This
module is the rest of a server. A connection is two tasks:

- The *filler* reads the stream, always, into a bounded `Inbox`, or has the hub do it. Nobody else reads. So the end of
  the stream is seen while a handler works (and cancels it: an end is read as "gone", also a half-close), and bytes that
  a client sends ahead (pipelining) wait their turn. A full inbox stops the filler, and TCP stops the client.
- The *server* takes from the inbox, feeds the request's cycle, and runs one exchange after the other.

The rules:

1. The cycle sees every byte of its request, and every head we send. It is fed only when it has nothing more to give,
   so what it holds is bounded by one read and its own limit.
2. Body parts of a chunked answer are framed here, data and frame in one write: 0.2 us against 6 us through h11. The
   cycle stays right about the connection, because a chunked body needs no count: it needs to hear of the head and of
   the end. So keep-alive, ``Connection: close`` and pipelining stay its decision. Where a ``content-length`` was
   declared, it does count, so those parts go through it.
3. A write is tried at once on the bare file descriptor. Only what the kernel does not take goes the slow way, with a
   deadline, in pieces; the deadline starts anew with each piece. A client that does not read for that long is cut off
   with a reset, which frees what the kernel still holds for it. (Measured, one 150 B part: 58 us by ``move_on_after``
   and ``send_all``, 46 by ``send_all``, 12 by this way.) The price: the quick way must yield by hand, see
   `_Connection.write`.
4. Once an answer has started, an error can only be told by cutting it: a chunked or counted body that ends early is
   visibly not whole. A body that ends with the connection (HTTP/1.0) is reset, for a clean end would say it is whole.
5. A connection is closed after any request that was not understood, or not read to its end. The client may still be
   sending, and a close with unread bytes makes the kernel send a reset that can overtake our answer; so the door shuts
   down its side, and reads on for a moment (`_Connection._linger`).
6. Everything belongs to the connection's nursery. Cancelled passes through everywhere; nothing is shielded.
7. One scope a connection holds all requests, for entering one costs 20 us. While a request is waited for, it has a
   deadline; while one is served, cancelling it is how the handler of a client that left is ended. Either way the
   connection ends.

The life of an answer is `_Answer`: UNSTARTED, then one of four framings, then OVER.
"""

from __future__ import annotations

import enum
import math
import socket
import struct
import time
from collections.abc import Awaitable, Sequence
from dataclasses import field
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    MalformedRequest,
    RequestError,
    RequestTooLarge,
    RequestTooSlow,
)
from kirostream.net.codings import parse_codings
from kirostream.net.cycle import Cycle, read_plain, write_head
from kirostream.net.door import (
    DoorBook,
    DoorSnapshot,
    OnExchange,
    OnFault,
    Refuse,
    Served,
    ignore_exchange,
    log_fault,
    peer_name,
    plain_refusal,
    undo_codings,
)
from kirostream.net.exchange import Handler, Headers, HttpRequest, Part, PeerGone, PeerStalled
from kirostream.net.inbox import Inbox, TakenOver
from kirostream.net.quick import Outlet, plain_socket, write_now

_WRITE: Final = 64 << 10  # bytes, one piece of a write that waits
_YIELD_EVERY: Final = 8  # quick writes; must be a power of two
_REST_EVERY: Final = 64  # parts of a body; must be a power of two

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Settings:
    """Every limit and deadline of the door. The limit of a body comes from its handler (`Exchange.body`)."""

    max_head: int = field(
        default=64 << 10, metadata={"help": "Largest request line and headers, together.", "unit": "bytes"}
    )
    max_headers: int = field(default=128, metadata={"help": "Most header lines of a request.", "unit": "lines"})
    head_deadline: float = field(
        default=15.0, metadata={"help": "From the first byte of a request to the end of its head.", "unit": "s"}
    )
    body_deadline: float = field(default=120.0, metadata={"help": "For the whole body of a request.", "unit": "s"})
    idle_deadline: float = field(
        default=75.0, metadata={"help": "How long a connection without a request stays open.", "unit": "s"}
    )
    write_deadline: float = field(
        default=30.0, metadata={"help": "How long a client may take for the next 64 KiB of its answer.", "unit": "s"}
    )
    linger: float = field(
        default=2.0,
        metadata={"help": "How long a connection is read on after an error, so that the answer arrives.", "unit": "s"},
    )
    max_unread: int = field(
        default=64 << 10,
        metadata={"help": "Most of a body that is skipped for a handler that did not read it.", "unit": "bytes"},
    )
    max_ahead: int = field(
        default=64 << 10, metadata={"help": "Most that a client may send ahead of its turn.", "unit": "bytes"}
    )


DEFAULTS: Final = Http1Settings()


class Http1Door:
    """Serves a handler over HTTP/1.1.

    Args:
        handler: called once a request, in the connection's task.
        settings: limits and deadlines.
        refuse: words the errors that the door answers itself, and those that the handler lets out.
        on_fault: told of each exception that is a bug: anything but a `KirostreamError`, and `LocalProtocolError`. It
            must not raise.
        on_exchange: told of each exchange that is over. It must not raise or block.
    """

    def __init__(
        self,
        handler: Handler,
        settings: Http1Settings = DEFAULTS,
        *,
        refuse: Refuse = plain_refusal,
        on_fault: OnFault = log_fault,
        on_exchange: OnExchange = ignore_exchange,
    ) -> None:
        self.handler: Final = handler
        self.settings = settings  # a connection goes by those it began with
        self.book: Final = DoorBook(refuse, on_fault, on_exchange)
        self._connections: set[_Connection] = set()
        self._accepting = trio.CancelScope()
        self._in_flight: trio.CancelScope | None = None  # once nothing is accepted any more
        self._end_at = math.inf  # trio time: in-flight exchanges are cancelled; inf while nobody called stop
        self._date = (0, b"")

    def __repr__(self) -> str:
        return f"<Http1Door: {self.snapshot()}>"

    def snapshot(self) -> DoorSnapshot:
        """The counts, now."""
        return self.book.snapshot(len(self._connections), stopping=self.stopping)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._end_at != math.inf

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`, and until what was in flight then is over. Closes the listeners. To be called once."""
        async with trio.open_nursery() as connections:
            with self._accepting:
                task_status.started()  # the kernel queues clients since the listeners were opened
                await trio.serve_listeners(self._accepted, list(listeners), handler_nursery=connections)
            self._in_flight = connections.cancel_scope
            self._in_flight.deadline = self._end_at

    def _accepted(self, stream: trio.abc.Stream) -> Awaitable[None]:
        return self.serve_stream(stream, peer_name(stream))

    async def serve_stream(self, stream: trio.abc.Stream, peer: str = "") -> None:
        """Serve one connection to its end, and close its stream.

        Args:
            stream: just accepted; TLS, if any, already on it.
            peer: for logs.
        """
        connection = _Connection(self, stream, peer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def stop(self, grace: float) -> None:
        """Stop accepting and close idle connections. Exchanges in flight have `grace` seconds, then they are cancelled.

        A second call may shorten the grace.
        """
        self._end_at = min(self._end_at, trio.current_time() + grace)
        self._accepting.cancel()
        if self._in_flight is not None:
            self._in_flight.deadline = self._end_at
        for connection in self._connections:
            connection.wind_down()

    # What a connection asks of its door.

    def date(self) -> bytes:
        """The ``date`` header's value, made once a second."""
        now = int(time.time())
        if now != self._date[0]:
            self._date = (now, _http_date(now))
        return self._date[1]


def _http_date(at: int) -> bytes:
    """RFC 9110 section 5.6.7. By hand: `strftime` speaks the locale, and `email.utils` takes 15 ms to import."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(at)
    name, month_name = _DAYS[weekday], _MONTHS[month - 1]
    return b"%b, %02d %b %d %02d:%02d:%02d GMT" % (name, day, month_name, year, hour, minute, second)


class _Answer(enum.Enum):
    """Where an answer is. The four in the middle say how its body is delimited (RFC 9112 section 6.3)."""

    UNSTARTED = enum.auto()
    EMPTY = enum.auto()  # none: HEAD, 204, 304
    COUNTED = enum.auto()  # by content-length
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()  # by the end of the connection: HTTP/1.0
    OVER = enum.auto()


class _Connection:
    """One client. `run` is its server task; the door and the exchanges call the rest."""

    def __init__(self, door: Http1Door, stream: trio.abc.Stream, peer: str) -> None:
        self.door: Final = door
        self.settings: Final = door.settings
        self.peer: Final = peer
        sock = plain_socket(stream)
        self.outlet: Final = Outlet(sock)
        self.inbox: Final = Inbox(stream, door.settings.max_ahead, self._on_end, sock)
        self.stream: Final = stream
        self._nursery: trio.Nursery | None = None
        self.scope: Final = trio.CancelScope()
        self._idle = False  # no byte of a request is here
        self._waits = False  # for a request, or for the rest of its head
        self._ahead = b""  # what came behind the last request
        self._exchange: _Http1Exchange | None = None
        self._writes = 0
        self._write_waits = False
        self.cut_off = False
        self.lost: PeerGone | PeerStalled | None = None  # to the client's doing

    async def run(self) -> None:
        """Serve until the client or the door has enough. No `Exception` comes out."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.inbox.fill)
                await self._serve()
                nursery.cancel_scope.cancel()
        except Exception as fault:  # noqa: BLE001  one connection must not take the door with it; told to on_fault
            self.door.book.note_fault(None, fault)
        finally:
            self.outlet.shut()
            await trio.aclose_forcefully(self.stream)

    async def _serve(self) -> None:
        try:
            with self.scope:
                while (cycle := await self._next_cycle()) is not None:
                    if not await self._one_exchange(cycle):
                        break
            if self.scope.cancelled_caught and self._waits and not self._idle:
                raise RequestTooSlow(f"The request's head did not arrive within {self.settings.head_deadline:g} s.")
        except RequestError as error:
            if self._waits:
                await self._refuse(error)

    def wind_down(self) -> None:
        """The door stops: an idle connection ends now, a busy one after its exchange."""
        if self._idle:
            self.scope.cancel()

    # Reading.

    async def _next_cycle(self) -> Cycle | None:
        """The next request, or None: the client left, or the door stops.

        Raises:
            MalformedRequest, RequestTooLarge: what came is no request.
        """
        data, self._ahead = self._ahead, b""
        self._waits = True
        if not data:
            if self.door.stopping:
                return None
            self._idle = True
            self.scope.deadline = trio.current_time() + self.settings.idle_deadline
            while not (data := data.lstrip(b"\r\n")):  # RFC 9112 section 2.2
                data = await self.inbox.take()
                if not data:
                    return None
            self._idle = False
            self.scope.deadline = math.inf
        plain = read_plain(data, self.peer)
        if plain is not None and (
            len(data) > self.settings.max_head or len(plain.request.headers) > self.settings.max_headers
        ):
            self._check_size(plain.request)
        cycle = plain or await self._judged(data)
        self._waits = cycle is None
        return cycle

    async def _judged(self, data: bytes) -> Cycle | None:
        """A request that is not in plain form. Otherwise as `_next_cycle`."""
        from kirostream.net.judged import Judged

        cycle = Judged(self.settings.max_head, self.peer)
        cycle.feed(data)
        self.scope.deadline = trio.current_time() + self.settings.head_deadline
        while not (head := cycle.read_head()):
            data = await self.inbox.take()
            if not data:
                return None
            cycle.feed(data)
        self.scope.deadline = math.inf
        self._check_size(cycle.request)
        _check_framing(cycle.request, head)
        return cycle

    def _check_size(self, head: HttpRequest) -> None:
        size = len(head.method) + len(head.path) + len(head.query)
        size += sum(len(name) + len(value) for name, value in head.headers)
        if size > self.settings.max_head:
            raise RequestTooLarge(f"The request's head is over the limit of {self.settings.max_head} bytes.")
        if len(head.headers) > self.settings.max_headers:
            raise RequestTooLarge(f"The request has more than {self.settings.max_headers} headers.")

    def _on_end(self) -> None:
        if self._exchange is not None:
            self._exchange.on_peer_end()

    # Writing.

    async def write(self, data: bytes) -> None:
        """Send all of it. A checkpoint, like every send of Trio.

        The quick way does not wait, so it would never let another task run: every eighth call it yields (7 us), and
        each time it looks for a cancellation (0.5 us).

        Raises:
            PeerGone, PeerStalled: see `Exchange.send`.
        """
        if self._write_waits:
            raise LocalProtocolError("two tasks send on one exchange at the same time")
        if self.cut_off:
            raise self.lost or PeerGone("The connection was cut.")
        outlet = self.outlet
        if outlet.unsent:
            data, outlet.unsent = outlet.unsent + data, b""
            outlet.free = outlet.sock is not None
        rest: bytes | memoryview = data
        if outlet.sock is not None:
            self._writes += 1
            if self._writes % _YIELD_EVERY:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
            try:
                sent = write_now(outlet.sock, data)
            except OSError:
                raise self._lose(PeerGone("The client closed the connection.")) from None
            if sent == len(data):
                return
            rest = memoryview(data)[sent:]
        await self._write_and_wait(rest)

    def offer(self, data: bytes) -> bool:
        """Send what goes at once. What is left is `outlet.unsent`, and goes with the next `write`.

        Returns whether all of it was sent. The next `write` also says what is wrong, if anything is.
        """
        return not self.cut_off and self.outlet.offer(data)

    @property
    def is_behind(self) -> bool:
        """Whether an offer left something for `write` to do or to say."""
        return self.cut_off or bool(self.outlet.unsent)

    async def _write_and_wait(self, data: bytes | memoryview) -> None:
        seconds = self.settings.write_deadline
        self._write_waits = True
        self.outlet.free = False
        whole = False
        try:
            with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
                for at in range(0, len(data), _WRITE):
                    await self.stream.send_all(data[at : at + _WRITE])
                    scope.deadline = trio.current_time() + seconds
                whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lose(PeerGone("The client closed the connection.")) from None
        finally:
            self._write_waits = False
            self.cut_off = self.cut_off or not whole  # a part was sent: nothing that follows would be understood
            self.outlet.free = not (self.cut_off or self.outlet.unsent or self.outlet.sock is None)
        if not whole:
            self.cut(reset=True)
            raise self._lose(PeerStalled(f"The client did not read for {seconds:g} s; its connection was cut."))

    def _lose(self, why: PeerGone | PeerStalled) -> PeerGone | PeerStalled:
        self.cut_off = True
        self.outlet.free = False
        self.lost = why
        return why

    def cut(self, *, reset: bool = False) -> None:
        """Close the stream now, in the middle of whatever it was doing.

        Args:
            reset: by RST, which also drops what the kernel has not delivered yet.
        """
        self.cut_off = True
        self.outlet.shut()
        self.inbox.closing()
        if isinstance(self.stream, trio.SocketStream):
            if reset and self.stream.socket.fileno() != -1:
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.stream.socket.close()
        elif self._nursery is not None:
            self._nursery.start_soon(trio.aclose_forcefully, self.stream)

    # Exchanges.

    async def _one_exchange(self, cycle: Cycle) -> bool:
        """Serve one request. Returns whether the connection can take another."""
        exchange = self._exchange = _Http1Exchange(self, cycle)
        book = self.door.book
        since = book.begin()
        try:
            await exchange.run(self.door.handler, gone=self.inbox.ended)
        finally:
            self._exchange = None
            exchange.sent += self.outlet.fanned
            self.outlet.fanned = 0
            book.end(exchange, since)
        if self.cut_off or exchange.ending != "whole":
            return False
        if not cycle.whole and (exchange.closes or not await self._skip_body(cycle)):
            await self._linger()
            return False
        self._ahead = cycle.rest
        if not cycle.renewable:
            if self._ahead or len(self.inbox):
                await self._linger()
            return False
        return True

    async def _skip_body(self, cycle: Cycle) -> bool:
        """Read over a body that the handler left: a small one, by its length. Returns whether it came in time."""
        with trio.move_on_after(self.settings.linger):
            while True:
                if cycle.pull():
                    continue
                if cycle.whole:
                    return True
                if not await self.feed(cycle):
                    return False
        return False

    async def feed(self, cycle: Cycle) -> bool:
        """Give a cycle what came, once something did. Returns False at the end of the stream."""
        data = await self.inbox.take()
        if data:
            cycle.feed(data)
        return bool(data)

    async def _refuse(self, error: KirostreamError) -> None:
        """Answer what is no request, and close."""
        if self.cut_off:
            return
        status, headers, body = self.door.book.word(error, None)
        self.door.book.note_refusal(None, status, len(body), error)
        wire = write_head(status, self.fields(headers, close=True, length=len(body))) + body
        try:
            await self.write(wire)
        except (PeerGone, PeerStalled):
            return
        await self._linger()

    def fields(self, headers: Headers, *, close: bool, length: int | None = None) -> Headers:
        """A handler's headers and ours.

        Args:
            close: add ``connection: close``.
            length: add ``content-length``.

        Raises:
            LocalProtocolError: the handler gave framing, which is ours.
        """
        fields = list(headers)
        names = {name for name, _ in fields}
        if b"transfer-encoding" in names:
            raise LocalProtocolError("a handler set transfer-encoding; the door frames bodies")
        if length is not None:
            if b"content-length" in names:
                fields = [pair for pair in fields if pair[0] != b"content-length"]
            fields.append((b"content-length", b"%d" % length))
        if b"date" not in names:
            fields.append((b"date", self.door.date()))
        if close and b"connection" not in names:
            fields.append((b"connection", b"close"))
        return fields

    async def _linger(self) -> None:
        """Shut down our side, and read on for a moment, so that the answer is not lost to a reset."""
        with trio.move_on_after(self.settings.linger):
            try:
                if isinstance(self.stream, trio.abc.HalfCloseableStream):
                    await self.stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            while await self.inbox.take():
                pass


class _Http1Exchange(Served):
    """The `Exchange` of this door."""

    def __init__(self, connection: _Connection, cycle: Cycle) -> None:
        super().__init__(cycle.request, connection.door.book, connection.scope)
        self._connection = connection
        self._cycle = cycle
        self._answer = _Answer.UNSTARTED
        self._body_asked = False
        self._owes_end = False  # the end was offered, and not all of it went
        self.closes = False

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
        return self._connection.lost

    @property
    def cut_off(self) -> bool:
        return self._connection.cut_off

    # The door's side.

    def _cut(self) -> None:
        # A body that ends with the connection would look whole.
        self._connection.cut(reset=self._answer is _Answer.UNTIL_CLOSE)
        self._answer = _Answer.OVER

    # The handler's side: see `Exchange`.

    async def body(self, limit: int) -> bytes:
        if self._body_asked:
            raise LocalProtocolError("the body was read twice")
        self._body_asked = True
        codings = parse_codings([value for name, value in self._request.headers if name == b"content-encoding"])
        declared = self._request.header(b"content-length")
        if declared is not None and int(declared) > limit:
            raise RequestTooLarge(f"The body of {int(declared)} bytes is over the limit of {limit}.")
        return await undo_codings(codings, await self._read_body(limit), limit)

    async def _read_body(self, limit: int) -> bytes | bytearray:
        cycle = self._cycle
        first = cycle.pull()
        if len(first) > limit:
            raise _too_large(limit)
        if cycle.whole:
            await trio.lowlevel.checkpoint_if_cancelled()  # it may have sent all, and left
            return first
        raw = bytearray(first)
        await self._pull_body(raw, limit)
        if not cycle.whole:  # a deadline costs 12 us: only where there is something to wait for
            seconds = self._connection.settings.body_deadline
            with trio.move_on_after(seconds):
                while not cycle.whole:
                    if cycle.awaits_consent:
                        await self._connection.write(cycle.consent())
                    if not await self._connection.feed(cycle):
                        raise PeerGone("The client left before its request was whole.")
                    await self._pull_body(raw, limit)
            if not cycle.whole:
                raise RequestTooSlow(f"The body did not arrive within {seconds:g} s.")
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have sent all, and left
        return raw

    async def _pull_body(self, raw: bytearray, limit: int) -> None:
        """Take what the cycle has of the body."""
        parts = 0
        while part := self._cycle.pull():
            raw += part
            if len(raw) > limit:
                raise _too_large(limit)
            parts += 1
            if not parts % _REST_EVERY:  # a body of very small chunks is work
                await trio.lowlevel.checkpoint()

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        wire = self._begin(status, headers, None)
        await self._connection.write(wire + self._frame(first))

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        connection = self._connection
        if self._answer is not _Answer.UNSTARTED or connection.cut_off or not connection.outlet.free:
            return False
        wire = self._begin(status, headers, None)
        return connection.offer(wire + self._frame(first))

    def _begin(self, status: int, headers: Headers, length: int | None) -> bytes:
        if self._answer is not _Answer.UNSTARTED:
            raise LocalProtocolError("an answer was started twice")
        method = self._request.method
        if method == "CONNECT" and 200 <= status < 300:
            raise LocalProtocolError("a CONNECT is accepted by upgrade, not by start")
        if status in (204, 304):
            length = None
        self.closes = self._connection.door.stopping or not (self._cycle.whole or self._body_is_small())
        wire = self._cycle.head(status, self._connection.fields(self.timed(headers), close=self.closes, length=length))
        self.status = status
        if method == "HEAD" or status in (204, 304):
            self._answer = _Answer.EMPTY
        elif length is not None or any(name == b"content-length" for name, _ in headers):
            self._answer = _Answer.COUNTED
        else:
            self._answer = _Answer.CHUNKED if self._cycle.knows_chunks else _Answer.UNTIL_CLOSE
        return wire

    def _body_is_small(self) -> bool:
        """Whether a body that nobody asked for can be skipped, so that the connection lives on."""
        declared = self._request.header(b"content-length")
        small = declared is not None and int(declared) <= self._connection.settings.max_unread
        return small and not self._body_asked and not self._cycle.awaits_consent

    async def send(self, data: bytes) -> None:
        if self._answer in (_Answer.UNSTARTED, _Answer.OVER):
            raise self._misused("send")
        wire = self._frame(data)
        if wire or self._connection.is_behind:
            await self._connection.write(wire)
        else:
            await trio.lowlevel.checkpoint()

    def offer(self, part: Part) -> bool:
        if self._answer is _Answer.CHUNKED:
            self.sent += len(part.data)
            return self._connection.offer(part.chunk)
        if self._answer in (_Answer.UNSTARTED, _Answer.OVER):
            return False  # the next send says why
        return self._connection.offer(self._frame(part.data))

    @property
    def outlet(self) -> Outlet | None:
        outlet = self._connection.outlet
        return outlet if self._answer is _Answer.CHUNKED and outlet.sock is not None else None

    def _frame(self, data: bytes) -> bytes:
        """A part of the body as it goes over the wire; nothing for an empty part, whose chunk would be the last."""
        answer = self._answer
        if not data or answer is _Answer.EMPTY:
            return b""
        self.sent += len(data)
        if answer is _Answer.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return self._cycle.count(data) if answer is _Answer.COUNTED else data

    def offer_finish(self, last: bytes) -> bool:
        if self._answer is not _Answer.CHUNKED:
            return False  # finish says why, or does it
        whole = self._connection.offer(self._frame(last) + self._end())
        self._owes_end = not whole
        if whole:
            self.ending = "whole"
        return whole

    async def finish(self, last: bytes = b"") -> None:
        if self._owes_end:
            await self._connection.write(b"")
            self._owes_end = False
            self.ending = "whole"
            return
        if self._answer in (_Answer.UNSTARTED, _Answer.OVER):
            raise self._misused("finish")
        wire = self._frame(last) + self._end()
        if wire or self._connection.is_behind:
            await self._connection.write(wire)
        self.ending = "whole"

    def _end(self) -> bytes:
        wire = self._cycle.end()
        self._answer = _Answer.OVER
        return wire

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        wire = self._begin(status, headers, len(body))
        if self._answer is _Answer.COUNTED:
            self.sent += len(body)
            wire += self._cycle.count(body)
        wire += self._end()
        await self._connection.write(wire)
        self.ending = "whole"

    def abort(self) -> None:
        if self._answer is not _Answer.OVER:
            self._cut()

    async def upgrade(self) -> trio.abc.Stream:
        if self._answer is not _Answer.UNSTARTED:
            raise LocalProtocolError("an answer was started; the connection cannot be taken over any more")
        if not self._cycle.whole:
            raise LocalProtocolError("the request has a body that was not read; read it before the upgrade")
        self._answer = _Answer.OVER
        self.ending = "upgraded"
        rest = await self._connection.inbox.leave()
        return TakenOver(self._connection.stream, self._cycle.rest + rest)

    def _misused(self, what: str) -> KirostreamError:
        if self._connection.cut_off:
            return PeerGone("The connection was cut.")
        return LocalProtocolError(
            f"{what} before start" if self._answer is _Answer.UNSTARTED else f"{what} after the end of the answer"
        )


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is over the limit of {limit} bytes.")


def _check_framing(head: HttpRequest, version: bytes) -> None:
    """What h11 lets through and we do not."""
    if version not in (b"1.0", b"1.1"):
        raise MalformedRequest(f"HTTP/{version.decode('ascii')} is not spoken here. Use HTTP/1.1.")
    if head.header(b"transfer-encoding") is not None:
        # Two framings of one body, or a framing the version does not know, are how requests are smuggled past a
        # proxy (RFC 9112 sections 6.1 and 6.3).
        if head.header(b"content-length") is not None:
            raise MalformedRequest("A request may have content-length or transfer-encoding, not both.")
        if version == b"1.0":
            raise MalformedRequest("An HTTP/1.0 request cannot have transfer-encoding.")
