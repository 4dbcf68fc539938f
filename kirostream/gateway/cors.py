"""Browsers: who may call from a page, and the answer to their preflight (Fetch standard; client-apis.md section 0.4).

Off by default: then nothing here is in the way of a request. Keys are sent in a header, never as cookies, so
credentials mode is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from kirostream.errors import KirostreamError
from kirostream.net.exchange import Exchange, Handler, Headers, HttpRequest
from kirostream.net.quick import Outlet

Refuse = Callable[[KirostreamError, HttpRequest | None], tuple[int, Headers, bytes]]

EXPOSED: Final = (
    b"access-control-expose-headers",
    b"request-id, x-request-id, retry-after, retry-after-ms, x-should-retry",
)
_METHODS: Final = (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE, OPTIONS")
_MAX_AGE: Final = (b"access-control-max-age", b"86400")


class Cors:
    """The origins that may read answers. `origins` is a list with commas, ``*`` for every one; empty: none."""

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(origin.strip().lower().encode() for origin in origins.split(",") if origin.strip())

    def __repr__(self) -> str:
        return f"<Cors {len(self._origins)} origins>"

    def around(self, handler: Handler) -> Handler:
        """`handler`, with preflights answered and its answers marked as readable."""
        if not self._origins:
            return handler

        async def marked(exchange: Exchange) -> None:
            request = exchange.request
            headers = self.headers(request)
            if headers and request.method == "OPTIONS" and request.header(b"access-control-request-method"):
                await exchange.reply(204, [*headers, *_preflight(request)], b"")
            else:
                await handler(_Marked(exchange, headers) if headers else exchange)

        return marked

    def refusing(self, refuse: Refuse) -> Refuse:
        """`refuse`, with its answers marked as readable."""
        if not self._origins:
            return refuse

        def marked(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
            status, headers, body = refuse(error, request)
            return status, [*headers, *(self.headers(request) if request else ())], body

        return marked

    def headers(self, request: HttpRequest) -> Headers:
        """The fields that let the page of `request` read the answer; none where it may not."""
        origin = request.header(b"origin")
        if origin is None or not (b"*" in self._origins or origin.lower() in self._origins):
            return ()
        return ((b"access-control-allow-origin", origin), (b"vary", b"origin"), EXPOSED)


def _preflight(request: HttpRequest) -> Headers:
    fields = [_METHODS, _MAX_AGE]
    if wanted := request.header(b"access-control-request-headers"):
        fields.append((b"access-control-allow-headers", wanted))
    if request.header(b"access-control-request-private-network") == b"true":
        fields.append((b"access-control-allow-private-network", b"true"))
    return fields


class _Marked:
    """An exchange whose answer says who may read it."""

    def __init__(self, exchange: Exchange, headers: Headers) -> None:
        self._exchange = exchange
        self._headers = headers
        self.request = exchange.request
        self.body = exchange.body
        self.send = exchange.send
        self.offer = exchange.offer
        self.offer_finish = exchange.offer_finish
        self.finish = exchange.finish
        self.abort = exchange.abort

    @property
    def started(self) -> bool:
        return self._exchange.started

    @property
    def outlet(self) -> Outlet | None:
        return self._exchange.outlet

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        await self._exchange.start(status, [*headers, *self._headers], first)

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        return self._exchange.offer_start(status, [*headers, *self._headers], first)

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        await self._exchange.reply(status, [*headers, *self._headers], body)

    async def upgrade(self) -> trio.abc.Stream:
        return await self._exchange.upgrade()
