"""The server of door 2: hypercorn's Trio worker on streams that are ours.

Hypercorn's `TCPServer` serves one connection (HTTP/1.1, HTTP/2, WebSocket) over any stream that looks like a socket's.
Its own loop would do the rest, but there one connection that fails takes all of them down, and nothing can be cut: it
shields every write, so that a client that does not read outlives each deadline. Here a connection is a task of its own
on a `_Guarded` stream, which has the write deadline and can be closed from outside; and a write is shielded only where
others share the connection, over HTTP/2 (where a handler waits for flow control, and not for the socket).

What is used of hypercorn beyond its documented names stands in `_Hypercorn` and `_Connection` alone: `TCPServer`, and
the streams of an HTTP/2 connection, so that one of them can be reset.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from h2.exceptions import ProtocolError
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import LifespanState

from kirostream.errors import SettingsError
from kirostream.net.asgi import TRANSPORT, AsgiDoor, Scope
from kirostream.net.listen import AsgiSettings, Tls

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

_WRITE: Final = 64 << 10  # bytes, one piece of a write that waits
_QUICK_WRITES: Final = sys.platform != "win32"  # a socket is a file descriptor
_MOST_BUFFERED: Final = 64 << 10
"""Bytes of one answer that wait for HTTP/2's flow control. Hypercorn has a bound, which does not hold where the window
is closed: it would take the whole answer."""
_NO_ERROR: Final = 0
_INTERNAL_ERROR: Final = 2
"""Why an HTTP/2 stream is reset (RFC 9113 section 7)."""


def configuration(settings: AsgiSettings, tls: Tls | None) -> Config:
    """Hypercorn's configuration."""
    config = Config()
    config.accesslog = None  # the door tells of exchanges, and of faults
    config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = 2 * settings.max_head  # the door refuses in the client's language; this, with none
    config.h2_max_header_list_size = 2 * settings.max_head
    config.h2_max_concurrent_streams = settings.max_streams
    config.keep_alive_timeout = settings.idle_deadline
    config.keep_alive_max_requests = sys.maxsize
    config.websocket_max_message_size = settings.max_message
    config.websocket_ping_interval = settings.ping
    if tls is not None:
        config.certfile, config.keyfile = tls.certfile, tls.keyfile
        config.keyfile_password = tls.password or None
    return config


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS context of a listener; None: in the clear.

    Raises:
        SettingsError: the files cannot be used.
    """
    try:
        return config.create_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SettingsError(
            f"The certificate {config.certfile} with the key {config.keyfile} cannot be used: {reason}. "
            "Both are files in PEM; the certificate comes first in its chain."
        ) from error


async def serve(
    door: AsgiDoor, listeners: Sequence[trio.SocketListener], *, task_status: trio.TaskStatus[None]
) -> None:
    """See `AsgiDoor.serve`."""
    server = _Server(door)
    for listener in listeners:
        _notice_the_vanished(listener.socket, door.settings.write_deadline)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.end_in_time)
        async with trio.open_nursery() as connections:
            server.in_flight = connections.cancel_scope
            with door.accepting:
                task_status.started()  # the kernel queues clients since the listeners were opened
                await trio.serve_listeners(server.accepted, list(listeners), handler_nursery=connections)
            await server.wind_down()
        nursery.cancel_scope.cancel()


def _notice_the_vanished(listening: trio.socket.SocketType, seconds: float) -> None:
    """Let the kernel end a connection whose peer acknowledges nothing for so long. Linux; accepted sockets inherit it.

    The write deadline alone would not: a few events a second fill the send buffer for hours.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and listening.family in (socket.AF_INET, socket.AF_INET6):
        listening.setsockopt(socket.IPPROTO_TCP, option, round(seconds * 1000))


class _Server:
    """What the connections of a door share."""

    def __init__(self, door: AsgiDoor) -> None:
        self.door: Final = door
        self.config: Final = configuration(door.settings, door.tls)
        self.tls: Final = tls_context(self.config)
        self.context: Final = WorkerContext(None)
        self.app: Final = ASGIWrapper(cast("ASGIFramework", door))
        self.connections: Final[set[_Connection]] = set()
        self.in_flight: trio.CancelScope | None = None

    async def accepted(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. No `Exception` comes out."""
        connection = _Connection(self, stream)
        self.connections.add(connection)
        self.door.connections += 1
        try:
            await connection.run()
        except Exception as fault:  # noqa: BLE001  one connection must not take the door with it; told to on_fault
            self.door.book.note_fault(None, fault)
        finally:
            self.door.connections -= 1
            self.connections.discard(connection)

    async def wind_down(self) -> None:
        """Nothing is accepted any more: idle connections end now, busy ones after their exchanges."""
        await self.context.terminated.set()
        for connection in tuple(self.connections):
            connection.wind_down()

    async def end_in_time(self, task_status: trio.TaskStatus[None]) -> None:
        """Cut what is in flight once the grace is over, or where the door is cancelled: hypercorn would send on."""
        try:
            with self.door.grace:
                task_status.started()
                await trio.sleep_forever()
        finally:
            for connection in tuple(self.connections):
                connection.end()
        if self.in_flight is not None:
            self.in_flight.cancel()


class _Hypercorn(TCPServer):
    """Hypercorn's side of one connection."""

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData) or isinstance(self.protocol.protocol, H2Protocol):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await self.stream.send_all(event.data)  # given up half way, it ends the connection, which is its own
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())


class _Connection:
    """One client. It is the `Transport` of its exchanges."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = _Guarded(stream, server.door.settings.write_deadline)
        self._hypercorn: _Hypercorn | None = None
        self._nursery: trio.Nursery | None = None
        self._streams: dict[int, int] = {}  # of each exchange, by the identity of its scope; 0 where there is but one

    def __repr__(self) -> str:
        return f"<connection of {len(self._streams)} exchanges>"

    async def run(self) -> None:
        """Serve until the client or the door has enough."""
        try:
            async with trio.open_nursery() as self._nursery:
                stream: Any = self._stream
                if self._server.tls is not None:
                    stream = trio.SSLStream(stream, self._server.tls, server_side=True, https_compatible=True)
                    try:
                        with trio.fail_after(self._server.door.settings.handshake_deadline):
                            await stream.do_handshake()
                    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                        return
                self._hypercorn = _Hypercorn(
                    self._server.app,
                    self._server.config,
                    self._server.context,
                    cast("LifespanState", {TRANSPORT: self}),
                    stream,
                )
                self._stream.on_over = self._on_over
                await self._hypercorn.run()
                self._nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(self._stream)

    def wind_down(self) -> None:
        """The door stops: a client that has not even shaken hands is waited for no longer."""
        if self._hypercorn is None:
            self.end()

    def end(self) -> None:
        """Close the socket now, whatever waits for it."""
        self._stream.cut()

    def _on_over(self) -> None:
        # Hypercorn would keep it until it has been idle for long enough, and the pings of a WebSocket sleep on.
        if not self._streams and self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # As the `Transport` of its exchanges.

    @property
    def stalled(self) -> bool:
        return self._stream.stalled

    def enter(self, scope: Scope) -> None:
        h2 = self._http2()
        streams = h2.streams.items() if h2 is not None else ()
        self._streams[id(scope)] = next((number for number, stream in streams if stream.scope is scope), 0)

    def leave(self, scope: Scope) -> None:
        del self._streams[id(scope)]
        if self._stream.over:
            self._on_over()

    async def room(self, scope: Scope) -> None:
        h2 = self._http2()
        buffer = h2.stream_buffers.get(self._streams[id(scope)]) if h2 is not None else None
        if buffer is not None and len(buffer.buffer) >= _MOST_BUFFERED:
            await buffer.drain()

    def cut(self, scope: Scope, *, whole: bool, reset: bool) -> None:
        h2, number = self._http2(), self._streams[id(scope)]
        if h2 is not None and number and self._nursery is not None and not self._stream.over:
            self._nursery.start_soon(self._reset, h2, number, _NO_ERROR if whole else _INTERNAL_ERROR)
        else:
            self._stream.cut(reset=reset)

    def _http2(self) -> H2Protocol | None:
        protocol = self._hypercorn.protocol.protocol if self._hypercorn is not None else None
        return protocol if isinstance(protocol, H2Protocol) else None

    async def _reset(self, protocol: H2Protocol, number: int, code: int) -> None:
        """Reset one HTTP/2 stream; the others go on."""
        assert self._hypercorn is not None
        try:
            protocol.connection.reset_stream(number, code)
            await self._hypercorn.protocol_send(RawData(protocol.connection.data_to_send()))
            if number in protocol.stream_buffers:
                protocol.priority.unblock(number)  # the sending task finds it closed, and drops what is left
                await protocol.has_data.set()
        except ProtocolError:
            pass  # the client has ended it, or the whole connection


class _Guarded(trio.abc.HalfCloseableStream):
    """A socket's stream that has a deadline for each piece of a write, and can be closed from outside.

    `socket` is what hypercorn looks at. `over` says that either end has closed it; then `on_over` is called. A client
    that did not read within the deadline is cut off with a reset, which frees what the kernel still holds for it; then
    `stalled` is set.
    """

    def __init__(self, stream: trio.SocketStream, write_deadline: float) -> None:
        self._stream = stream
        self._write_deadline = write_deadline
        self.socket: Final = stream.socket
        self.stalled = False
        self.over = False
        self.on_over: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        if _QUICK_WRITES and len(rest):
            await trio.lowlevel.checkpoint()
            try:
                rest = rest[os.write(self.socket.fileno(), rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
        for at in range(0, len(rest), _WRITE):
            with trio.move_on_after(self._write_deadline) as patience:
                await self._stream.send_all(rest[at : at + _WRITE])
            if patience.cancelled_caught:
                self.stalled = True
                self.cut(reset=True)
                raise trio.BrokenResourceError("the client did not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._note_over()
            raise
        if not data:
            self._note_over()
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._note_over()

    def cut(self, *, reset: bool = False) -> None:
        """Close the socket now. `reset`: by RST, which also drops what the kernel has not delivered yet."""
        if reset and self.socket.fileno() != -1:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self._note_over()

    def _note_over(self) -> None:
        if not self.over:
            self.over = True
            if self.on_over is not None:
                self.on_over()
