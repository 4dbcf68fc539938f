"""A client one can hold by the throat: h11 on a bare stream. It reads only when told to, and leaves when it likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11
import trio

from helpers.certs import trusting


class RawResponse:
    """One answer, read piece by piece."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection) -> None:
        self.stream = stream
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}

    async def _next(self) -> h11.Event:
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(bytes(await self.stream.receive_some(65536)))
                continue
            assert not isinstance(event, type), event
            return event

    async def head(self) -> None:
        """Read the head."""
        event = await self._next()
        assert isinstance(event, h11.Response)
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}

    async def read_some(self) -> bytes:
        """The next part of the body; empty at its end.

        Raises:
            h11.RemoteProtocolError: the body was cut.
        """
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        return b""

    async def read(self) -> bytes:
        """The rest of the body."""
        body = b""
        while part := await self.read_some():
            body += part
        return body


@asynccontextmanager
async def post(
    url: str, body: Mapping[str, object] | bytes, headers: Mapping[str, str], *, receive_buffer: int = 0
) -> AsyncIterator[RawResponse]:
    """POST, and hand over the answer as soon as its head is there. Leaving closes the connection, whatever it does.

    Args:
        receive_buffer: size of the socket's receive buffer in bytes; 0: the system's.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    raw = trio.socket.socket()
    if receive_buffer:
        raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    try:
        await raw.connect((parts.hostname, parts.port))
    except BaseException:
        raw.close()
        raise
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = h11.Connection(h11.CLIENT)
    tcp = trio.SocketStream(raw)
    secure = parts.scheme == "https"
    stream: trio.abc.Stream = (
        trio.SSLStream(tcp, trusting(), server_hostname=parts.hostname, https_compatible=True) if secure else tcp
    )
    async with stream:
        request = h11.Request(
            method="POST",
            target=parts.path,
            headers=[
                ("host", parts.netloc),
                ("content-type", "application/json"),
                ("content-length", str(len(data))),
                *headers.items(),
            ],
        )
        out = (connection.send(request) or b"") + (connection.send(h11.Data(data=data)) or b"")
        out += connection.send(h11.EndOfMessage()) or b""
        await stream.send_all(out)
        response = RawResponse(stream, connection)
        await response.head()
        yield response
