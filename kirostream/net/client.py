"""The upstream client: httpx behind a face of ours. The one import site of httpx.

What it does not do is the point: no retry, no redirect, no cookie, no environment variable, no decompression, no header
that the caller did not give (``host`` and the body's framing excepted). It has the deadline of connecting and that of
writing, because only it knows when those happen; first event, idle and total belong to the caller.

httpx is imported at first use, not with this module: it costs 100 ms of CPU, half of what all of Trio costs
(`python -X importtime`), and most commands of the program never speak to an upstream.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    RemoteProtocolError,
    SettingsError,
    StreamCut,
    UpstreamDown,
    UpstreamTimeout,
)
from kirostream.net.exchange import Headers

if TYPE_CHECKING:
    import httpx

_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How upstreams are reached."""

    proxy: str = field(
        default="",
        metadata={
            "help": "Proxy for every upstream: http://, https:// or socks5://, with user:password@ if it needs one.",
            "secret": True,
        },
        repr=False,  # it may hold a password
    )
    connect_deadline: float = field(
        default=15.0,
        metadata={"help": "To look a host up and connect; the TLS handshake has as long again.", "unit": "s"},
    )
    write_deadline: float = field(
        default=60.0, metadata={"help": "How long an upstream may take nothing of a request.", "unit": "s"}
    )
    close_deadline: float = field(
        default=1.0, metadata={"help": "For closing a connection that is not needed any more.", "unit": "s"}
    )
    idle_connections: int = field(
        default=16, metadata={"help": "Most connections kept open for the next request.", "unit": "connections"}
    )
    idle_deadline: float = field(
        default=50.0, metadata={"help": "How long an unused connection is kept open.", "unit": "s"}
    )
    verify: bool = field(default=True, metadata={"help": "Check upstreams' certificates. Leave it on."})
    ca_file: str = field(
        default="", metadata={"help": "PEM file of further certificate authorities, such as a company's proxy has."}
    )

    def __post_init__(self) -> None:
        if self.proxy and not _is_proxy(self.proxy):
            raise SettingsError(
                "The proxy (upstream.proxy, VPN_PROXY_URL) is not usable: it has to be a URL with a host, and begin "
                f"with {', '.join(scheme + '://' for scheme in _PROXY_SCHEMES)}."
            )


def _is_proxy(url: str) -> bool:
    """Whether a URL can name a proxy. It may hold a password: nothing of it is shown."""
    try:
        parts = urlsplit(url)
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


DEFAULTS: Final = ClientSettings()


class HttpClient:
    """A pool of connections. One for each account, so that a busy one does not slow the others.

    Raises:
        SettingsError: the CA file is not usable. The first request raises it, not the constructor.
    """

    def __init__(self, settings: ClientSettings = DEFAULTS) -> None:
        self._settings = settings
        self._httpx: httpx.AsyncClient | None = None
        self._closed = False
        self._open = 0
        self._requests = 0

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<HttpClient: {self._open} open, {self._requests} requests{state}>"

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, server_name: str = ""
    ) -> AsyncGenerator[ClientResponse, None]:
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
        import httpx

        client = self._client()
        try:
            # Made here and not by the client, which would add its default headers.
            request = httpx.Request(
                method,
                url,
                headers=list(headers),
                content=content,
                extensions={
                    "timeout": client.timeout.as_dict(),
                    **({"sni_hostname": server_name} if server_name else {}),
                },
            )
            request.stream = _content_class()(content)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SettingsError(f"The URL of the upstream cannot be read: {error}.") from error
        host = request.url.netloc.decode("ascii")
        try:
            response = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._translated(error, host) from error
        self._requests += 1
        self._open += 1
        answer = ClientResponse(response, host)
        try:
            yield answer
        finally:
            self._open -= 1
            # A cancelled block closes all the same, in its own short time.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._settings.close_deadline):
                await answer.aclose()

    def _translated(self, error: httpx.HTTPError, host: str) -> KirostreamError:
        """An error before there was a head, in our words."""
        import httpx

        detail = _detail(error)
        if isinstance(error, httpx.ConnectTimeout):
            return UpstreamTimeout(
                f"No connection to {host} within {self._settings.connect_deadline:g} s. "
                "Check the network and the proxy.",
                reason="CONNECT_TIMEOUT",
            )
        if isinstance(error, httpx.WriteTimeout):
            return UpstreamTimeout(
                f"{host} took nothing of the request for {self._settings.write_deadline:g} s.", reason="WRITE_TIMEOUT"
            )
        if isinstance(error, httpx.ProxyError):
            return UpstreamDown(f"The proxy did not connect to {host}: {detail}. Check the proxy's URL and password.")
        if isinstance(error, httpx.ConnectError):
            return UpstreamDown(f"Cannot connect to {host}: {detail}. {_connect_advice(error)}")
        if isinstance(error, httpx.UnsupportedProtocol):
            return SettingsError(f"The URL of the upstream {error.request.url} has to begin with http:// or https://.")
        if isinstance(error, httpx.LocalProtocolError):
            return LocalProtocolError(f"the request to {host} is not HTTP: {detail}")
        return UpstreamDown(f"{host} closed the connection before it answered: {detail}.")

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
        client, self._httpx = self._httpx, None
        if client is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._settings.close_deadline):
                await client.aclose()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise LocalProtocolError("the HTTP client is closed")
        if self._httpx is None:
            self._httpx = _make(self._settings)
        return self._httpx


def _make(settings: ClientSettings) -> httpx.AsyncClient:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpx

    context = _tls_context(settings.verify, settings.ca_file)
    try:
        return httpx.AsyncClient(
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


@lru_cache(maxsize=8)
def _tls_context(verify: bool, ca_file: str) -> ssl.SSLContext:
    # Loading the authorities takes 20 ms and 2 MB: shared by all clients.
    import httpx

    context = httpx.create_ssl_context(verify=verify, trust_env=False)
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"The CA file {ca_file} cannot be read as PEM: {error}") from None
    return context


class ClientResponse:
    """An answer whose body is read as it comes. Belongs to the block that opened it.

    `headers` are in wire order, names in lower case.
    """

    def __init__(self, response: httpx.Response, host: str) -> None:
        import httpx

        self.status: Final[int] = response.status_code
        self.headers: Final[Headers] = tuple((name.lower(), value) for name, value in response.headers.raw)
        self._response = response
        self._host = host
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._broken = (httpx.HTTPError, httpx.StreamError)
        self._ended = False

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} from {self._host}{', read' if self._ended else ''}>"

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, None where it is absent. `name` is in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def read_some(self) -> bytes:
        """The next piece of the body, as it came: what httpx read in one go. Empty at the end, however often.

        Raises:
            StreamCut: the connection ended or broke in the middle of the body.
        """
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
        except self._broken as error:
            self._ended = True
            raise StreamCut(f"The answer of {self._host} was cut: {_detail(error)}.") from error

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body.

        Args:
            limit: bytes.

        Raises:
            StreamCut: as `read_some`.
            RemoteProtocolError: it is over the limit.
        """
        whole = bytearray()
        while chunk := await self.read_some():
            whole += chunk
            if len(whole) > limit:
                raise RemoteProtocolError(f"The answer of {self._host} is over the limit of {limit} bytes.")
        return bytes(whole)

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        await self._response.aclose()
        # httpx reads by six async generators, one in the other, and none closes the next. Left as they are, each would
        # be finalised by the collector, with a warning. Reading on over the closed connection ends them from the
        # inside.
        while not self._ended:
            try:
                await anext(self._chunks)
            except (StopAsyncIteration, *self._broken):
                self._ended = True


@cache
def _content_class() -> Callable[[bytes], httpx.AsyncByteStream]:
    import httpx

    class Content(httpx.AsyncByteStream):
        """The body of a request, in one piece. httpx's own is a generator, which a cancelled write leaves suspended."""

        def __init__(self, content: bytes) -> None:
            self._content = content

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(self._content)

    return Content


class _Once(AsyncIterator[bytes]):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __anext__(self) -> bytes:
        if not self._content:
            raise StopAsyncIteration
        content, self._content = self._content, b""
        return content


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _detail(error: Exception) -> str:
    """What went wrong, in the words of the first that has some: httpx wraps without a word."""
    return next((said for cause in _causes(error) if (said := str(cause).strip().rstrip("."))), type(error).__name__)


def _connect_advice(error: Exception) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return "Its certificate or TLS was not accepted: check the clock, and the CA file if a proxy inspects TLS."
        if isinstance(cause, socket.gaierror):
            return "The name could not be looked up: check the region or URL, and DNS."
    return "Check the network, the proxy and the address."
