"""Bytes that came and are not parsed yet: before a protocol takes them, and after it hands its stream on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from kirostream.net.hub import Hub, current_hub

READ: Final = 64 << 10
"""Bytes, the most one read takes."""


class Inbox:
    """What the client sent and nobody has parsed yet. One task fills, one takes.

    Where there is a hub (`net.hub`) and `sock`, the hub fills, and the task of `fill` sleeps until the
    end: 10 us for what comes, in place of 50.

    Args:
        bound: bytes; from there on the filler waits.
        on_end: called when the client ended its side or the connection broke; not when we closed it.
        sock: what the stream is, where it is a socket and nothing else (`quick.plain_socket`).
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        bound: int,
        on_end: Callable[[], None],
        sock: trio.socket.SocketType | None = None,
    ) -> None:
        self._stream = stream
        self._bound = bound
        self._on_end = on_end
        # An idle connection is little more than this, so what few ever need is made when it is.
        self._scope: trio.CancelScope | None = None  # of the task that fills, where it reads by itself
        self._leaves = False
        self._filled = False  # the task of `fill` is over
        self._left: trio.Event | None = None  # that somebody waits for that
        self._waiting = b""
        self._taker = trio.lowlevel.ParkingLot()
        self._filler: trio.lowlevel.ParkingLot | None = None
        self._hub: Hub | None = None
        self._sock = sock
        self.ended = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def fill(self) -> None:
        """Read until the end, or until `leave`."""
        ended_by_client = True
        hub, sock = current_hub(), self._sock
        try:
            if hub is not None and sock is not None:
                await self._fill_by(hub, sock)
            else:
                with trio.CancelScope() as self._scope:
                    while data := await self._stream.receive_some(READ):
                        self._put(data)
                        await self._room()
        except trio.ClosedResourceError:
            ended_by_client = False
        except trio.BrokenResourceError:
            pass
        if not self._leaves:
            self.ended = True
            self._taker.unpark_all()  # first: who waits for a body learns of the end by PeerGone, not by a cancellation
            if ended_by_client:
                self._on_end()
        self._filled = True
        if self._left is not None:
            self._left.set()

    async def _room(self) -> None:
        while len(self._waiting) >= self._bound and not self._leaves:
            if self._filler is None:
                self._filler = trio.lowlevel.ParkingLot()
            await self._filler.park()

    async def _fill_by(self, hub: Hub, sock: trio.socket.SocketType) -> None:
        """Have the hub read until the end.

        Raises:
            trio.ClosedResourceError: the socket was closed here, before or meanwhile.
        """
        ended = False

        def come(raw: bytes | OSError | None) -> bool:
            nonlocal ended
            data = raw if isinstance(raw, bytes) else b""
            ended = not data
            self._put(data)
            return not ended and len(self._waiting) < self._bound

        while not ended and not self._leaves:
            if sock.fileno() < 0:
                raise trio.ClosedResourceError
            self._hub = hub
            try:
                await hub.each(sock, come)
            finally:
                self._hub = None
            await self._room()

    def _put(self, data: bytes | bytearray) -> None:
        self._waiting += data
        self._taker.unpark_all()

    def closing(self) -> None:
        """The stream is about to be closed by us, and not by Trio's ways alone."""
        if self._hub is not None and self._sock is not None:
            self._hub.closing(self._sock)

    async def take(self) -> bytes:
        """All there is; waits for something. Empty at the end, however often."""
        while not self._waiting:
            if self.ended:
                return b""
            await self._taker.park()
        data, self._waiting = self._waiting, b""
        if self._filler is not None:
            self._filler.unpark_all()
        return data

    async def leave(self) -> bytes:
        """Stop the filler, so that somebody else may read the stream. Gives what was left over."""
        self._leaves = True
        if self._scope is not None:
            self._scope.cancel()
        self.closing()
        if self._filler is not None:
            self._filler.unpark_all()
        if not self._filled:
            self._left = trio.Event()
            await self._left.wait()
        data, self._waiting = self._waiting, b""
        return data


class TakenOver(trio.abc.HalfCloseableStream):
    """A stream with what was already read of it put back in front."""

    def __init__(self, stream: trio.abc.Stream, front: bytes) -> None:
        self.stream = stream
        self._front = front

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._front:
            return await self.stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        data = self._front[:max_bytes]
        self._front = self._front[len(data) :]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, where the stream below can say it."""
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self.stream.aclose()
