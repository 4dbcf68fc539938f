"""Connections without sockets: a client whose requests go straight to a simulator, on trio's clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import trio

from helpers.simulated import FakeExchange
from kirostream.net.exchange import Headers, HttpRequest
from kirostream.net.upstream import ClientResponse, Taker
from kirostream.simulator.upstream import Simulator

URL = "http://simulated"


@dataclass
class DirectAnswer:
    """A whole answer, read in pieces of 4 KiB."""

    status: int
    headers: Headers
    body: bytes

    async def read_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self.body = self.body[:4096], self.body[4096:]
        return piece

    async def each(self, take: Taker) -> bool:
        return await ClientResponse.each(cast(ClientResponse, self), take)

    async def read_all(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.body


@dataclass
class DirectClient:
    """As `net.client.HttpClient`. The answer comes once the simulator has said all of it."""

    simulator: Simulator

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Headers, content: bytes = b""
    ) -> AsyncGenerator[DirectAnswer, None]:
        parts = urlsplit(url)
        exchange = FakeExchange(HttpRequest(method, parts.path or "/", parts.query, headers), content)
        await self.simulator(exchange)
        yield DirectAnswer(exchange.status, list(exchange.headers.items()), exchange.answer)

    async def fetch(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, limit: int = 0
    ) -> tuple[int, Headers, bytes]:
        async with self.stream(method, url, headers, content) as answer:
            return answer.status, answer.headers, answer.body
