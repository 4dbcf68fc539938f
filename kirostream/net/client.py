"""The upstream client: one face, and two ways behind it.

Without a proxy it is our own transport (`net.transport`), with one it is httpx's (`net.proxied`). What neither does is
the point: no redirect, no cookie, no environment variable, no decompression, no header that the caller did not give
(``host`` and the body's framing excepted), and no second try of a request that an upstream may have received; only one
that it cannot have received whole is sent again, on a new connection (`net.transport` says when). It has the deadline
of connecting and that of writing, because only it knows when those happen; first event, idle and total belong to the
caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Final

from kirostream.errors import LocalProtocolError
from kirostream.net.exchange import Headers
from kirostream.net.transport import Transport
from kirostream.net.upstream import ClientResponse, ClientSettings, Way, place_of

__all__ = ["ClientResponse", "ClientSettings", "HttpClient"]

DEFAULTS: Final = ClientSettings()


class HttpClient:
    """A pool of connections. One for each account, so that the service does not see one connection for several.

    Raises:
        SettingsError: the proxy or the CA file is not usable. The first request raises it, not the constructor.
    """

    def __init__(self, settings: ClientSettings = DEFAULTS) -> None:
        self._settings = settings
        self._way: Way | None = None
        self._closed = False
        self._open = 0
        self._requests = 0

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<HttpClient: {self._open} open, {self._requests} requests{state}>"

    def stream(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, server_name: str = ""
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """Send a request, and give its answer once the head is there. Leaving the block closes it.

        Args:
            headers: sent as they are. Without ``accept-encoding`` the answer comes as it is.
            server_name: whom TLS has to prove, where the URL names an address.

        Raises:
            UpstreamDown: no connection, or it ended before there was a head.
            UpstreamTimeout: the connect or write deadline passed.
            SettingsError: the URL, the proxy or the CA file is not usable.
            LocalProtocolError: a header or the method is not HTTP, or the client is closed.
        """
        return _Asked(partial(self._ask, method, url, headers, content, server_name), self._leave)

    async def fetch(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, limit: int = 8 << 20
    ) -> tuple[int, Headers, bytes]:
        """A whole answer: status, headers, body.

        Raises:
            As `stream`, `ClientResponse.read_all`.
        """
        async with self.stream(method, url, headers, content) as response:
            return response.status, response.headers, await response.read_all(limit)

    async def aclose(self) -> None:
        """Close every connection. Streams that are open break."""
        self._closed = True
        way, self._way = self._way, None
        if way is not None:
            await way.aclose()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _make_way(self) -> Way:
        if self._settings.proxy:
            from kirostream.net.proxied import Proxied

            return Proxied(self._settings)
        return Transport(self._settings)

    async def _ask(self, method: str, url: str, headers: Headers, content: bytes, server_name: str) -> ClientResponse:
        if self._closed:
            raise LocalProtocolError("the HTTP client is closed")
        if self._way is None:
            self._way = self._make_way()
        answer = await self._way.open(method, place_of(url, server_name), headers, content)
        self._requests += 1
        self._open += 1
        return answer

    async def _leave(self, answer: ClientResponse, early: bool) -> None:
        self._open -= 1
        await answer.leave(early=early)


class _Asked(AbstractAsyncContextManager[ClientResponse]):
    """The block of `HttpClient.stream`. A class, for a generator costs more and would be one that crosses nurseries."""

    __slots__ = ("_answer", "_ask", "_leave")

    def __init__(
        self,
        ask: Callable[[], Awaitable[ClientResponse]],
        leave: Callable[[ClientResponse, bool], Awaitable[None]],
    ) -> None:
        self._ask: Callable[[], Awaitable[ClientResponse]] | None = ask
        self._leave = leave
        self._answer: ClientResponse | None = None

    async def __aenter__(self) -> ClientResponse:
        assert self._ask is not None
        ask, self._ask = self._ask, None  # with the body of the request, which goes when it is sent
        self._answer = await ask()
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._answer is not None
        await self._leave(self._answer, kind is not None)
