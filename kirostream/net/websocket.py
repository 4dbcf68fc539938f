"""WebSocket, whatever door it comes through: `accept` gives a `MessageSocket`.

A door without a raw stream gives `Messages`, and the rest is its server's business (`net.messages`). On an upgraded
exchange trio-websocket does the work; no other module knows that library. It wants to read the handshake itself, and by
then the door has read it: so it gets a stream that says the request's head again and then goes on as the connection
does. Messages are text; compression is declined.

Every send has a deadline, and a ping now and then finds out who is gone without having said so.

Three things the library leaves to us (RFC 6455 section 7.1.7). Where a peer breaks the protocol, it closes the stream
and says nothing: so it does not get to close the stream, and the closing frame with the code is sent here (`accept`).
What a peer has still under way would reset the connection and destroy that frame: so it is read, and thrown away. And
its reader fails where it would answer a ping behind its own closing frame: so that is an end like any other.

The library is imported with the first connection: it costs 40 ms and a megabyte, and most clients never open one.
"""

from __future__ import annotations

import base64
import binascii
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar, Final, cast
from urllib.parse import urlsplit

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import MalformedRequest, RequestError, UpstreamDown
from kirostream.net.exchange import Exchange, Headers, HttpRequest, PeerGone, PeerStalled, UpgradeUnsupported
from kirostream.net.messages import GOOD_BYE, MessageSocket, ServedSocket
from kirostream.net.quick import Outlet, plain_socket

if TYPE_CHECKING:
    import trio_websocket

VERSION: Final = b"13"
"""RFC 6455. There is no other."""
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""How a subprotocol begins that is a key, and is not agreed on."""
VIOLATIONS: Final = (1002, 1007)
"""Close codes that the library finds, and does not send: broken protocol, text that is no UTF-8."""
INTERNAL_ERROR: Final = 1011
CLOSE: Final = 0x88
"""How a closing frame begins."""
_YIELD_EVERY: Final = 8
"""Frames that are sent at once, as the door has it; see `net.http1`, rule 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """WebSocket connections."""

    message: int = field(default=32 << 20, metadata={"help": "Largest message from a client.", "unit": "bytes"})
    write: float = field(
        default=30.0, metadata={"help": "How long a client may read nothing while a message is sent.", "unit": "s"}
    )
    ping: float = field(default=30.0, metadata={"help": "Between two pings.", "unit": "s"})
    pong: float = field(default=60.0, metadata={"help": "How long the answer to a ping may take.", "unit": "s"})
    close: float = field(default=5.0, metadata={"help": "How long the closing handshake may take.", "unit": "s"})


class UpgradeRequired(RequestError):
    """The path takes WebSocket connections only."""

    status: ClassVar[int] = 426


def wants_websocket(request: HttpRequest) -> bool:
    """Whether a request asks to become a WebSocket, over HTTP/1.1 or over HTTP/2 (RFC 8441)."""
    if request.header(b":protocol") == b"websocket":
        return True
    return "websocket" in _tokens(request, b"upgrade") and "upgrade" in _tokens(request, b"connection")


def close_frame(code: int, reason: str) -> bytes:
    """A server's closing frame; a reason that is too long is cut (RFC 6455 section 5.5)."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123].decode("utf-8", "ignore").encode()
    return b"%c%c%b" % (CLOSE, len(payload), payload)


def _tokens(request: HttpRequest, name: bytes) -> set[str]:
    values = [value.decode("latin-1") for key, value in request.headers if key == name]
    return {token.strip().lower() for value in values for token in value.split(",")}


class StreamedSocket(MessageSocket):
    """A connection over a raw stream, by trio-websocket."""

    def __init__(
        self, connection: trio_websocket.WebSocketConnection, stream: _Shared, settings: WebSocketSettings
    ) -> None:
        from trio_websocket import ConnectionClosed

        self._connection = connection
        self._stream = stream
        self._settings = settings
        self._gone: Final = ConnectionClosed
        self._frames = 0
        self._receiving = False
        self._closing: trio.CancelScope | None = None
        self._unheard = False
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<StreamedSocket {'closed' if self._connection.closed else 'open'}>"

    async def receive(self) -> str | bytes:
        self._receiving = True
        try:
            return await self._connection.get_message()
        except self._gone as error:
            raise PeerGone(f"The WebSocket is closed: {error.reason}.") from None
        finally:
            self._receiving = False

    async def send(self, text: str) -> None:
        with trio.move_on_after(self._settings.write) as patience:
            try:
                await self._connection.send_message(text)
            except self._gone as error:
                raise PeerGone(f"The WebSocket is closed: {error.reason}.") from None
        if patience.cancelled_caught:
            raise PeerStalled(f"The client read nothing for {self._settings.write:g} s.")

    async def send_frame(self, frame: bytes) -> None:
        self._frames += 1
        if self._frames % _YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if not self.offer(frame):
            await self.flush()

    def offer(self, frame: bytes) -> bool:
        return not self._connection.closed and self._stream.offer(frame)

    @property
    def outlet(self) -> Outlet | None:
        outlet = self._stream.outlet
        return outlet if outlet.sock is not None else None

    async def flush(self) -> None:
        if self._connection.closed:
            raise PeerGone("The WebSocket is closed.")
        with trio.move_on_after(self._settings.write) as patience:
            try:
                await self._stream.send_all(b"")
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise PeerGone("The WebSocket is closed.") from error
        if patience.cancelled_caught:
            raise PeerStalled(f"The client read nothing for {self._settings.write:g} s.")

    async def keep_alive(self) -> None:
        """Ping until cancelled. Pongs wait behind messages: no answer counts only while somebody receives those.

        Raises:
            PeerGone, PeerStalled: nobody answers.
        """
        while True:
            await trio.sleep(self._settings.ping)
            with trio.move_on_after(self._settings.pong) as patience:
                try:
                    await self._connection.ping()
                except self._gone as error:
                    raise PeerGone(f"The WebSocket is closed: {error.reason}.") from None
            if patience.cancelled_caught and self._receiving:
                raise PeerStalled(f"The client answered no ping for {self._settings.pong:g} s.")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.move_on_after(GOOD_BYE if cancelled else self._settings.close, shield=True) as scope:
            if self._closing is not None:  # by another task, which needs the reading task until the peer has answered
                await self._closed.wait()
                return
            self._closing = scope
            if self._unheard:
                scope.deadline = min(scope.deadline, trio.current_time() + GOOD_BYE)
            try:
                await self._connection.aclose(code, reason or None)
            finally:
                self._closed.set()

    def unheard(self) -> None:
        """Nobody reads the connection any more, so no answer to a closing frame will be heard."""
        self._unheard = True
        if self._closing is not None:
            self._closing.cancel()


class _Reading:
    """Where the library starts its reader: in `nursery`, and watched over."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.socket: StreamedSocket | None = None

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[None]]) -> None:
        from wsproto.utilities import LocalProtocolError

        try:
            await reader()
        except LocalProtocolError:
            pass  # it would have answered a ping, and has said good-bye already
        finally:
            if self.socket is not None:
                self.socket.unheard()


@asynccontextmanager
async def accept(exchange: Exchange, settings: WebSocketSettings) -> AsyncIterator[MessageSocket]:
    """Make an exchange a WebSocket, until the context ends; then it is closed.

    Raises:
        UpgradeRequired: the request asks for something else, or for another version.
        MalformedRequest: its key is none.
        PeerGone: the client is not there any more.
    """
    request = exchange.request
    if not wants_websocket(request) or request.header(b"sec-websocket-version") != VERSION:
        raise UpgradeRequired("This path takes WebSocket connections, version 13, only.")
    if request.header(b":protocol") is None:
        _check_key(request)
    subprotocol = _agreed(request)
    try:
        stream = await exchange.upgrade()
    except UpgradeUnsupported as other:
        if other.messages is None:
            raise UpgradeRequired("This path takes WebSocket connections, asked for by GET, only.") from None
        messages = other.messages
    else:
        async with _streamed(_Replayed(stream, _head(request)), subprotocol, settings) as socket:
            yield socket
        return
    await messages.accept(subprotocol)
    served, code = ServedSocket(messages, most=settings.message, patience=settings.close), 1000
    try:
        yield served
    except Exception:
        code = INTERNAL_ERROR
        raise
    finally:
        await served.close(code)


def _check_key(request: HttpRequest) -> None:
    """HTTP/2 has no key."""
    try:
        key = base64.b64decode(request.header(b"sec-websocket-key") or b"", validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 16:
        raise MalformedRequest("sec-websocket-key has to be 16 bytes in base64.", param="$.sec-websocket-key")


def _agreed(request: HttpRequest) -> str | None:
    """The first subprotocol on offer that is no key."""
    values = [value.decode("latin-1") for name, value in request.headers if name == b"sec-websocket-protocol"]
    offered = [each.strip() for value in values for each in value.split(",")]
    return next((each for each in offered if each and not each.startswith(KEY_PROTOCOL)), None)


@asynccontextmanager
async def _streamed(
    stream: _Replayed, subprotocol: str | None, settings: WebSocketSettings
) -> AsyncIterator[MessageSocket]:
    import trio_websocket

    connection: trio_websocket.WebSocketConnection | None = None
    try:
        async with trio.open_nursery() as nursery:
            reading = _Reading(nursery)
            proposal = await trio_websocket.wrap_server_stream(
                cast(trio.Nursery, reading), stream, message_queue_size=1, max_message_size=settings.message
            )
            with suppress(trio_websocket.ConnectionClosed):
                connection = await proposal.accept(subprotocol=subprotocol)
            if connection is None:
                nursery.cancel_scope.cancel()
            else:
                stream.go_on()
                socket = reading.socket = StreamedSocket(connection, stream, settings)
                code = 1000
                try:
                    yield socket
                except Exception:
                    code = INTERNAL_ERROR
                    raise
                finally:
                    await socket.close(code)
                    nursery.cancel_scope.cancel()
    finally:
        await stream.end(connection.closed if connection else None, settings.close)
    if connection is None:
        raise PeerGone("The client did not wait for the handshake.")


@asynccontextmanager
async def connect(
    url: str, headers: Headers = (), settings: WebSocketSettings | None = None
) -> AsyncIterator[MessageSocket]:
    """A connection to a server, until the context ends; then it is closed.

    Args:
        url: ``ws://`` or ``wss://``, with a path.
        headers: for the handshake.
        settings: limits and deadlines.

    Raises:
        UpstreamDown: nobody answers there, or it does not take WebSocket connections; the message says which.
    """
    import trio_websocket

    settings = settings or WebSocketSettings()
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    try:
        tcp = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise UpstreamDown(f"Cannot connect to {host}:{port}: {error}.") from error
    stream = _Shared(trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host) if secure else tcp)
    refused: Exception | None = None
    try:
        async with stream, trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                cast("trio.SocketStream", stream),
                parts.netloc,
                target,
                extra_headers=list(headers),
                message_queue_size=1,
                max_message_size=settings.message,
            )
            socket = StreamedSocket(connection, stream, settings)
            try:
                yield socket
            finally:
                await socket.close()
                nursery.cancel_scope.cancel()
    except* (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as group:
        refused = group.exceptions[0]
    if refused is not None:
        status = getattr(refused, "status_code", "")
        raise UpstreamDown(
            f"{url} does not take the WebSocket{f': status {status}' if status else ''}.", reason=str(status)
        )


def _head(request: HttpRequest) -> bytes:
    """The request's head, as it may have been on the wire. Extensions are left out, so none is agreed on."""
    target = f"{request.path}?{request.query}" if request.query else request.path
    lines = [f"{request.method} {target} HTTP/1.1".encode()]
    lines += [name + b": " + value for name, value in request.headers if name != b"sec-websocket-extensions"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Shared(trio.abc.Stream):
    """A stream that several tasks send on: frames never mix, and go in the order in which they were given."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._closed = False
        self._said = 0
        """The first byte of the last frame, which is its opcode."""
        self.outlet: Final = Outlet(plain_socket(stream))
        self._sending = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    def offer(self, frame: bytes) -> bool:
        """Send a frame as far as that goes without waiting. Returns whether it is sent whole."""
        return not self._closed and self.outlet.offer(frame)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what offers left over, and then a frame.

        Not by `trio.Lock`, which goes round the scheduler even where it is free.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._sending:
            await self._waiting.park()  # who was sending hands on
        self._sending = True
        outlet = self.outlet
        outlet.free = False
        if self._said == CLOSE:
            outlet.unsent = b""  # nothing may follow the closing frame
        if data:
            self._said = data[0]
        try:
            if outlet.unsent:
                data, outlet.unsent = outlet.unsent + bytes(data), b""
            await self._stream.send_all(data)
        finally:
            self._sending = bool(self._waiting)
            is_over = self._said == CLOSE or self._closed
            outlet.free = not (self._sending or is_over or outlet.unsent or outlet.sock is None)
            self._waiting.unpark()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self.outlet.shut()
        await self._stream.aclose()


class _Replayed(_Shared):
    """The stream of an upgraded exchange: it says the request's head first, and then waits before it goes on.

    What came behind the head must not reach wsproto before the handshake is answered: it would lose it. Who closes it
    is not heard any more; the stream below is closed by the door, behind `end`.
    """

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        super().__init__(stream)
        self._first = first
        self._may_go_on = trio.Event()

    def go_on(self) -> None:
        """The handshake is answered."""
        self._may_go_on.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._closed:
            raise trio.ClosedResourceError
        if not self._first:
            await self._may_go_on.wait()
            return await super().receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        data = self._first[:max_bytes]
        self._first = self._first[len(data) :]
        return data

    async def aclose(self) -> None:
        self._closed = True
        self.outlet.shut()
        await trio.lowlevel.checkpoint()

    async def end(self, why: trio_websocket.CloseReason | None, patience: float) -> None:
        """Say why, if that was not said; then read what is under way, until the peer hangs up.

        Args:
            why: what the library closed the connection for.
            patience: seconds for it; who was cancelled has less.
        """
        self.outlet.shut()
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.move_on_after(GOOD_BYE if cancelled else patience, shield=True):
            try:
                if why is not None and why.code in VIOLATIONS and self._said != CLOSE:
                    await self._stream.send_all(close_frame(why.code, why.reason or ""))
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                while await self._stream.receive_some():
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has hung up
