"""HTTP servers of a test's own making: each connection is played by a function."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

OK = b"HTTP/1.1 200 OK\r\n"
COUNTED = OK + b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

Talk = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.requests: list[bytes] = []
        self._buffer = b""

    async def request(self) -> bytes:
        """The next request, whole; empty at the end."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return b""
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(rest) < length:
            if not await self._more():
                return b""
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        self._buffer = rest[length:]
        self.requests.append(head + b"\r\n\r\n" + rest[:length])
        return self.requests[-1]

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._buffer += bytes(data)
        return bool(data)

    async def say(self, data: bytes) -> None:
        """Send something; nobody may be there to read it."""
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def reset(self) -> None:
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await self.stream.aclose()

    async def gone(self) -> None:
        """Until the client's end is closed."""
        while await self._more():
            pass


class Server:
    """Plays `talk` on every connection."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.peers: list[Peer] = []
        self.open = 0
        self.port = 0
        self.url = ""

    async def __call__(self, stream: trio.abc.Stream) -> None:
        peer = Peer(stream, len(self.peers))
        self.peers.append(peer)
        self.open += 1
        try:
            await self._talk(peer)
        finally:
            self.open -= 1

    @property
    def requests(self) -> list[list[bytes]]:
        """Methods, by connection."""
        return [[each.partition(b" ")[0] for each in peer.requests] for peer in self.peers]

    async def settled(self, connections: int = 0) -> None:
        """Until so many connections are open."""
        with trio.fail_after(5):
            while self.open != connections:
                await trio.sleep(0.001)


@asynccontextmanager
async def serving(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(talk)

    async def handle(stream: trio.SocketStream) -> None:
        if context is None:
            await server(stream)
            return
        secret = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secret.do_handshake()
        except trio.BrokenResourceError:
            return
        await server(secret)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        server.url = f"http{'s' if context else ''}://127.0.0.1:{server.port}/"
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


def always(answer: bytes = COUNTED) -> Talk:
    async def talk(peer: Peer) -> None:
        while await peer.request():
            await peer.say(answer)

    return talk


async def silent(peer: Peer) -> None:
    """Reads nothing, says nothing."""
    await trio.sleep_forever()
