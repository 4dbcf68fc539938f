"""What every WebSocket of the gateway does, whatever is said on it.

It receives, pings, and ends: when the client leaves or stalls, when it has lasted long enough, and when the gateway
stops (at once where nothing is under way, else behind what is). Each message is served in a task of its own; while
`most` of them are at work, further messages wait in the connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

from kirostream.net.exchange import PeerGone, PeerStalled
from kirostream.net.messages import MessageSocket

Ts = TypeVarTuple("Ts")
GOING_AWAY = 1001
"""RFC 6455 section 7.4.1."""


class SocketSession(ABC):
    """One connection.

    Args:
        socket: the connection.
        life: seconds it may last.
        most: messages that are served at once.
        stopping: set when the gateway stops.
    """

    def __init__(self, socket: MessageSocket, *, life: float, most: int, stopping: trio.Event) -> None:
        self.socket = socket
        self._life = life
        self._stopping = stopping
        self._room = trio.Semaphore(most)
        self._busy = 0
        self._idle = trio.Condition()
        self._nursery: trio.Nursery | None = None

    @abstractmethod
    async def serve(self, message: str | bytes) -> None:
        """Serve one message."""

    @abstractmethod
    async def farewell(self, why: str) -> None:
        """Tell the client that its connection has lasted long enough."""

    async def run(self) -> None:
        """Serve until the connection ends."""
        async with trio.open_nursery() as self._nursery:
            for task in (self._receive, self._stop, self._grow_old, self._keep_alive):
                self._nursery.start_soon(task)

    def start_soon(self, task: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run a task of this connection. It ends with it, and the connection ends where the client is gone."""
        assert self._nursery is not None
        self._busy += 1
        self._nursery.start_soon(self._guarded, task, args)

    def end(self) -> None:
        """End the connection now."""
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _guarded(self, task: Callable[[*Ts], Awaitable[None]], args: tuple[*Ts]) -> None:
        try:
            await task(*args)
        except (PeerGone, PeerStalled):
            self.end()
        finally:
            self._busy -= 1
            with trio.CancelScope(shield=True):
                async with self._idle:
                    self._idle.notify_all()

    async def _receive(self) -> None:
        try:
            while True:
                message = await self.socket.receive()
                await self._room.acquire()
                self.start_soon(self._serve, message)
        except PeerGone:
            self.end()

    async def _serve(self, message: str | bytes) -> None:
        try:
            await self.serve(message)
        finally:
            self._room.release()

    async def _keep_alive(self) -> None:
        try:
            await self.socket.keep_alive()
        except (PeerGone, PeerStalled):
            self.end()

    async def _grow_old(self) -> None:
        await trio.sleep(self._life)
        try:
            await self.farewell(f"A connection lasts {self._life:g} s here. Open another one.")
        except (PeerGone, PeerStalled):
            pass  # it is over either way
        self.end()

    async def _stop(self) -> None:
        await self._stopping.wait()
        async with self._idle:
            while self._busy:
                await self._idle.wait()
        await self.socket.close(GOING_AWAY, "The gateway is being stopped.")
        self.end()
