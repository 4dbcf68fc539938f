"""A connection that carries messages: the port, and its form where the frames are a server's business.

`net.websocket` has the other form, on a raw stream, and picks one of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Final

import trio

from kirostream.net.exchange import Messages, PeerGone, PeerStalled
from kirostream.net.quick import Outlet

GOOD_BYE: Final = 0.2
"""Seconds for the closing frame where who reads is cancelled too, so that no answer would be heard."""
TOO_BIG: Final = 1009
"""RFC 6455 section 7.4.1."""
MOST_REASON: Final = 123
"""Bytes of a reason (RFC 6455 section 5.5)."""


class MessageSocket(ABC):
    """One connection. Tasks may share it; make one with `websocket.accept`."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            PeerGone: there will be none.
        """

    @abstractmethod
    async def send(self, text: str) -> None:
        """Send a message.

        Raises:
            PeerGone: the client is not there.
            PeerStalled: it does not read.
        """

    @abstractmethod
    async def send_frame(self, frame: bytes) -> None:
        """Send a message that is a frame already (`text_frame`), which many connections may share.

        Raises:
            PeerGone: the client is not there.
            PeerStalled: it does not read.
        """

    @abstractmethod
    def offer(self, frame: bytes) -> bool:
        """Send a frame as far as that goes without waiting. It does not raise.

        Returns:
            Whether it is sent whole. Otherwise `flush` sends the rest, or says why that cannot be.
        """

    @property
    @abstractmethod
    def outlet(self) -> Outlet | None:
        """Where frames may be written to in place of an `offer`; `flush` goes on from what is unsent there.

        None where the connection is no plain socket.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Send what offers left over.

        Raises:
            PeerGone: the client is not there.
            PeerStalled: it does not read.
        """

    @abstractmethod
    async def keep_alive(self) -> None:
        """Ping until cancelled.

        Raises:
            PeerGone, PeerStalled: nobody answers.
        """

    @abstractmethod
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in good order, as far as the peer plays along. Who was cancelled waits for no answer."""


class ServedSocket(MessageSocket):
    """A connection whose frames, pings and compression are the server's.

    Args:
        messages: what the door gives.
        most: bytes of a message, or characters where it is text.
        patience: seconds for the closing handshake.
    """

    def __init__(self, messages: Messages, *, most: int, patience: float) -> None:
        self._messages = messages
        self._most = most
        self._patience = patience
        self._owed: list[bytes] = []
        self._closing = False
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<ServedSocket {'closed' if self._closing else 'open'}>"

    async def receive(self) -> str | bytes:
        message = await self._messages.receive()
        if len(message) > self._most:
            await self.close(TOO_BIG, f"A message is limited to {self._most} bytes.")
            raise PeerGone("The WebSocket is closed: its message was over the limit.")
        return message

    async def send(self, text: str) -> None:
        await self.flush()
        if self._closing:
            raise PeerGone("The WebSocket is closed.")
        await self._messages.send(text)

    async def send_frame(self, frame: bytes) -> None:
        await self.send(text_in(frame))

    def offer(self, frame: bytes) -> bool:
        """Keep it: a server takes nothing without waiting."""
        self._owed.append(frame)
        return False

    @property
    def outlet(self) -> None:
        return None

    async def flush(self) -> None:
        while self._owed:
            if self._closing:
                raise PeerGone("The WebSocket is closed.")
            await self._messages.send(text_in(self._owed.pop(0)))

    async def keep_alive(self) -> None:
        """Wait: the server pings, and tells of who is gone."""
        await trio.sleep_forever()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.move_on_after(GOOD_BYE if cancelled else self._patience, shield=True):
            if self._closing:
                await self._closed.wait()
                return
            self._closing = True
            try:
                await self._messages.close(code, reason.encode()[:MOST_REASON].decode("utf-8", "ignore"))
            except (PeerGone, PeerStalled):
                pass  # it is closed either way
            finally:
                self._closed.set()


def text_frame(text: bytes) -> bytes:
    """One text message as a server frames it: whole and unmasked (RFC 6455 section 5.2). `text` is UTF-8."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def text_in(frame: bytes) -> str:
    """The text of what `text_frame` made."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :].decode()
