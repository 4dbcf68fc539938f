"""A WebSocket client that says what it is told, right or wrong: frames of RFC 6455 on a bare stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame. `rsv` is the three reserved bits as a number."""
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    size, mark = len(payload), masked << 7
    if size < 126:
        head += bytes((mark | size,))
    elif size < 1 << 16:
        head += bytes((mark | 126,)) + size.to_bytes(2, "big")
    else:
        head += bytes((mark | 127,)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = b"\x11\x22\x33\x44"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    """A closing frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


@dataclass(frozen=True)
class Heard:
    """One frame of the server's."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a closing frame; 1005: it had none."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class RawSocket:
    """One connection, behind its handshake."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.head = b""
        self._read = b""

    async def shake_hands(self, path: str, headers: Sequence[tuple[str, str]] = (), behind: bytes = b"") -> None:
        """Ask for the connection, with `behind` in the same write; `head` is the answer's."""
        lines = [
            f"GET {path} HTTP/1.1",
            "host: x",
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {KEY}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        await self.stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + behind)
        while b"\r\n\r\n" not in self._read:
            await self._more()
        self.head, _, self._read = self._read.partition(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, message: object) -> None:
        """A text message."""
        await self.send(frame(TEXT, json.dumps(message).encode()))

    async def hear(self) -> Heard:
        """The next frame, which has to be a good one: whole, unmasked, no reserved bit.

        Raises:
            EOFError: the server hung up.
        """
        first, second = await self._take(2)
        assert first & 0xF0 == 0x80, hex(first)
        assert second < 128, "a server masks nothing"
        size = second
        if second == 126:
            size = int.from_bytes(await self._take(2), "big")
        elif second == 127:
            size = int.from_bytes(await self._take(8), "big")
        return Heard(first & 15, await self._take(size))

    async def message(self) -> Any:
        """The next text message, as JSON."""
        heard = await self.hear()
        assert heard.opcode == TEXT, heard
        return json.loads(heard.payload)

    async def until_closed(self) -> int:
        """The code that the server closes with, whatever it says before; then it has to hang up."""
        while (heard := await self.hear()).opcode != CLOSE:
            pass
        behind = self._read
        while data := await self.stream.receive_some():
            behind += data
        assert not behind, "a closing frame is the last one"
        return heard.code

    async def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            await self._more()
        data, self._read = self._read[:size], self._read[size:]
        return data

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError
        self._read += data


@asynccontextmanager
async def dialled(
    url: str, path: str, key: str, *, receive_buffer: int = 0, headers: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[RawSocket]:
    """A connection to a server. Leaving cuts it, whatever it does."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    raw = trio.socket.socket()
    if receive_buffer:
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await raw.connect((parts.hostname, parts.port))
    async with trio.SocketStream(raw) as stream:
        socket = RawSocket(stream)
        await socket.shake_hands(path, [("authorization", f"Bearer {key}"), *headers])
        assert socket.head.startswith(b"HTTP/1.1 101"), socket.head
        yield socket
