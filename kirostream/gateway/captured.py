"""Debug captures of exchanges: what a client sent, and what it got, put aside as it goes by.

Only requests to models are captured: what is said to the admin API may hold passwords. A captured exchange has no
outlet, so that its tokens go a way on which they are seen.
"""

from __future__ import annotations

from collections.abc import Collection

import trio

from kirostream.gateway.base_urls import canonical
from kirostream.net.exchange import Exchange, Handler, Headers, HttpRequest, Part, PeerGone
from kirostream.net.quick import Outlet
from kirostream.telemetry.captures import Capture, Captures


class Capturing:
    """A `Handler` round another one.

    Args:
        handler: the other one.
        captures: where captures go.
        paths: of the routes that are captured. They are asked with POST.
    """

    def __init__(self, handler: Handler, captures: Captures, paths: Collection[str]) -> None:
        self._handler = handler
        self._captures = captures
        self._paths = paths

    def __repr__(self) -> str:
        return f"<Capturing {self._captures!r}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one exchange."""
        request = exchange.request
        captured = self._captures.on and request.method == "POST" and canonical(request.path) in self._paths
        capture = self._captures.begin(request.id) if captured else None
        if capture is None:
            await self._handler(exchange)
            return
        capture.head = request
        try:
            await self._handler(CapturedExchange(exchange, capture))
        except PeerGone:
            raise  # it is not ours that failed
        except Exception as error:
            capture.fail(error)
            raise
        finally:
            capture.release()


class CapturedExchange(Exchange):
    """An exchange of which everything is put aside."""

    def __init__(self, inner: Exchange, capture: Capture) -> None:
        self._inner = inner
        self._capture = capture

    def __repr__(self) -> str:
        return f"<captured {self._inner!r}>"

    @property
    def request(self) -> HttpRequest:
        return self._inner.request

    @property
    def started(self) -> bool:
        return self._inner.started

    @property
    def outlet(self) -> Outlet | None:
        return None

    async def body(self, limit: int) -> bytes:
        data = await self._inner.body(limit)
        self._capture.asked.kind = self.request.header(b"content-type") or b""
        self._capture.asked.add(data)
        return data

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        self._capture.answered(status, headers)
        self._put(first)
        await self._inner.start(status, headers, first)

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        whole = self._inner.offer_start(status, headers, first)
        if self._inner.started:
            self._capture.answered(status, headers)
            self._put(first)
        return whole

    async def send(self, data: bytes) -> None:
        self._put(data)
        await self._inner.send(data)

    def offer(self, part: Part) -> bool:
        self._put(part.data)
        return self._inner.offer(part)

    def offer_finish(self, last: bytes) -> bool:
        self._put(last)
        return self._inner.offer_finish(last)

    async def finish(self, last: bytes = b"") -> None:
        self._put(last)
        await self._inner.finish(last)

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        self._capture.answered(status, headers)
        self._put(body)
        await self._inner.reply(status, headers, body)

    def abort(self) -> None:
        self._capture.failed = True
        self._capture.errors.append("the answer was cut")
        self._inner.abort()

    async def upgrade(self) -> trio.abc.Stream:
        return await self._inner.upgrade()

    def _put(self, data: bytes) -> None:
        if data:
            self._capture.answer.add(data)
