"""An exchange without a connection."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from kirostream.net.exchange import Headers, HttpRequest, Part
from kirostream.net.quick import Outlet


class FakeExchange:
    """One request, and what was answered."""

    outlet: Outlet | None = None

    def __init__(
        self, method: str, path: str, *, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"", query: str = ""
    ) -> None:
        self.request = HttpRequest(method, path, query, headers)
        self.started = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.sent = b""
        self._body = body

    async def body(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._body

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        await trio.lowlevel.checkpoint()
        assert not self.started
        self.started, self.status, self.headers = True, status, dict(headers)
        self.sent += first

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        return False

    def offer_finish(self, last: bytes) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert self.started
        self.sent += data

    def offer(self, part: Part) -> bool:
        assert self.started
        self.sent += part.data
        return True

    async def finish(self, last: bytes = b"") -> None:
        await trio.lowlevel.checkpoint()
        self.sent += last

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.send(body)

    def abort(self) -> None:
        raise AssertionError("nothing here cuts a connection")

    async def upgrade(self) -> trio.abc.Stream:
        raise AssertionError("nothing here takes a connection over")
