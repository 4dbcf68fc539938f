"""The way to an upstream through a proxy, HTTP or SOCKS: httpx's own transport. The one import site of httpx.

httpx is imported when the first client of this kind is made: it costs 100 ms of CPU and 9 MB, and only who has a proxy
needs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import trio

from kirostream.errors import KirostreamError, LocalProtocolError, SettingsError, StreamCut, UpstreamDown
from kirostream.net.exchange import Headers
from kirostream.net.upstream import (
    ClientResponse,
    ClientSettings,
    Place,
    cannot_connect,
    connect_timeout,
    detail,
    no_answer,
    tls_context,
    write_timeout,
)

_BROKEN = (httpx.HTTPError, httpx.StreamError)


class Proxied:
    """Connections by way of `settings.proxy`.

    Raises:
        SettingsError: the proxy or the CA file is not usable.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        context = tls_context(settings.verify, settings.ca_file)
        try:
            self._httpx = httpx.AsyncClient(
                verify=context,
                proxy=settings.proxy or None,
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                timeout=httpx.Timeout(
                    connect=settings.connect_deadline, write=settings.write_deadline, read=None, pool=None
                ),
                limits=httpx.Limits(
                    max_connections=None,
                    max_keepalive_connections=settings.idle_connections,
                    keepalive_expiry=settings.idle_deadline,
                ),
            )
        except (ValueError, httpx.InvalidURL):  # it may quote the URL, and the URL may hold a password
            raise SettingsError("The proxy is not usable: its URL cannot be read.") from None

    async def open(self, method: str, place: Place, headers: Headers, content: bytes) -> ClientResponse:
        """Send a request, and give its answer once the head is there. See `net.client.HttpClient.stream`."""
        name = place.origin.name
        try:
            # Made here and not by the client, which would add its default headers.
            request = httpx.Request(
                method,
                place.url,
                headers=list(headers),
                content=content,
                extensions={
                    "timeout": self._httpx.timeout.as_dict(),
                    **({"sni_hostname": name} if name and name != place.origin.host else {}),
                },
            )
            request.stream = _Content(content)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SettingsError(f"The URL of the upstream cannot be read: {error}.") from error
        try:
            response = await self._httpx.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._translated(error, place.label) from error
        return _Response(response, place.label, self._settings.close_deadline)

    def _translated(self, error: httpx.HTTPError, label: str) -> KirostreamError:
        """An error before there was a head, in our words."""
        if isinstance(error, httpx.ConnectTimeout):
            return connect_timeout(label, self._settings.connect_deadline)
        if isinstance(error, httpx.WriteTimeout):
            return write_timeout(label, self._settings.write_deadline)
        if isinstance(error, httpx.ProxyError):
            said = detail(error)
            return UpstreamDown(f"The proxy did not connect to {label}: {said}. Check the proxy's URL and password.")
        if isinstance(error, httpx.ConnectError):
            return cannot_connect(label, error)
        if isinstance(error, httpx.LocalProtocolError):
            return LocalProtocolError(f"the request to {label} is not HTTP: {detail(error)}")
        return no_answer(label, error)

    async def aclose(self) -> None:
        """Close every connection. Streams that are open break."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._settings.close_deadline):
            await self._httpx.aclose()


class _Response(ClientResponse):
    def __init__(self, response: httpx.Response, label: str, close_deadline: float) -> None:
        headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        super().__init__(response.status_code, headers, label)
        self._response = response
        self._close_deadline = close_deadline
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._ended = False

    async def read_some(self) -> bytes:
        """See `ClientResponse.read_some`: what httpx read in one go."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        try:
            while not (chunk := await anext(self._chunks)):
                pass
            return chunk
        except StopAsyncIteration:
            self._ended = True
            return b""
        except _BROKEN as error:
            self._ended = True
            raise StreamCut(f"The answer of {self._host} was cut: {detail(error)}.") from error

    async def leave(self, *, early: bool) -> None:
        """See `ClientResponse.leave`. A cancelled block closes all the same, in its own short time."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._close_deadline):
            await self._response.aclose()
            # httpx reads by six async generators, one in the other, and none closes the next. Left as they are, each
            # would be finalised by the collector, with a warning. Reading on over the closed connection ends them from
            # the inside.
            while not self._ended:
                try:
                    await anext(self._chunks)
                except (StopAsyncIteration, *_BROKEN):
                    self._ended = True


class _Content(httpx.AsyncByteStream):
    """The body of a request, in one piece. httpx's own is a generator, which a cancelled write leaves suspended."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once(AsyncIterator[bytes]):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __anext__(self) -> bytes:
        if not self._content:
            raise StopAsyncIteration
        content, self._content = self._content, b""
        return content
