"""What both ways to an upstream share, `net.transport` and `net.proxied`: settings, places, answers."""

from __future__ import annotations

import abc
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from kirostream.dataclass import dataclass
from kirostream.errors import RemoteProtocolError, SettingsError, UpstreamDown, UpstreamTimeout
from kirostream.net.exchange import Headers

if TYPE_CHECKING:
    from kirostream.net._wire import Track

_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_PORTS: Final = {"http": 80, "https": 443}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(?:%[a-z0-9._-]+)?")
_IN_TARGETS: Final = "!$%&'()*+,/:;=?@[]|~"
"""What stays as it is in a path and a query, besides letters, digits and ``_.-~``."""


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
        default=1.0,
        metadata={"help": "For closing a connection through a proxy that is not needed any more.", "unit": "s"},
    )
    idle_connections: int = field(
        default=16, metadata={"help": "Most connections kept open for the next request.", "unit": "connections"}
    )
    idle_deadline: float = field(
        default=50.0,
        metadata={
            "help": "How long an unused connection is kept open, or less, where the upstream says so.",
            "unit": "s",
        },
    )
    hub: bool = field(
        default=True,
        metadata={"help": "Wait for all streams at once, where the platform can (Linux). Off: each task for its own."},
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


# --- places -------------------------------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Where connections go. Two requests share one only if all of this is the same.

    Attributes:
        host: in ASCII, without brackets.
        name: whom TLS has to prove; empty without TLS.
    """

    host: str
    port: int
    name: str


class Place(NamedTuple):
    """A URL, ready to be asked.

    Attributes:
        label: host, and port where it is not the usual one: as the header ``Host`` and messages say it.
        target: path and query, percent-encoded.
    """

    url: str
    origin: Origin
    label: str
    target: bytes


@lru_cache(maxsize=256)
def place_of(url: str, server_name: str = "") -> Place:
    """What a URL names.

    Args:
        server_name: whom TLS has to prove, where the URL names an address.

    Raises:
        SettingsError: it is not a URL of http or https that can be asked.
    """
    try:
        if _CONTROL.search(url):
            raise ValueError("it holds a control character")
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.netloc:
            raise ValueError("it has to begin with http:// or https:// and a host")
        if "@" in parts.netloc:
            raise ValueError("it holds a user name; that belongs into a header")
        host = _ascii(parts.hostname or "")
        usual = _PORTS[parts.scheme]
        port = usual if parts.port is None else parts.port
    except ValueError as error:  # UnicodeError among them
        raise SettingsError(f"The URL of the upstream, {_shown(url)!r}, cannot be used: {error}.") from error
    literal = f"[{host}]" if ":" in host else host
    target = quote(f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", safe=_IN_TARGETS)
    name = (server_name or host) if parts.scheme == "https" else ""
    label = literal if port == usual else f"{literal}:{port}"
    return Place(url, Origin(host, port, name), label, target.encode("ascii"))


def _shown(url: str) -> str:
    """A URL without what may be a secret: password and query."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])


def _ascii(host: str) -> str:
    if not host.isascii():
        import idna

        host = idna.encode(host, uts46=True).decode("ascii")
    if _HOST.fullmatch(host) is None:
        raise ValueError("its host is none")
    return host


# --- answers ------------------------------------------------------------------------------------------------------


class Taker(Protocol):
    """Takes a body as it comes."""

    def __call__(self, data: bytes) -> bool:
        """Take a piece, without waiting. Returns whether the next one can be taken at once."""

    @property
    def track(self) -> Track | None:
        """Where the next bytes of the body can go as well, as long as that takes them."""


class ClientResponse(abc.ABC):
    """An answer whose body is read as it comes. Belongs to the block that opened it.

    `headers` are in wire order, names in lower case.
    """

    def __init__(self, status: int, headers: Headers, host: str) -> None:
        self.status: Final = status
        self.headers = headers
        self._host: Final = host

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} from {self._host}>"

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, None where it is absent. `name` is in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    @abc.abstractmethod
    async def read_some(self) -> bytes:
        """The next piece of the body, as it came: what was read in one go. Empty at the end, however often.

        Raises:
            StreamCut: the connection ended or broke in the middle of the body.
        """

    async def each(self, take: Taker) -> bool:
        """Hand each piece of the body to `take` as it comes, until that says that it has enough.

        It is called by this task or, while this task sleeps, by the hub (`net.hub`). The headers may be gone from then
        on: such a body comes for long.

        Returns:
            Whether there may be more; False: the body is at its end.

        Raises:
            StreamCut: as `read_some`; and whatever `take` raises.
        """
        while data := await self.read_some():
            if not take(data):
                return True
        return False

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

    @abc.abstractmethod
    async def leave(self, *, early: bool) -> None:
        """Give the connection back, or close it where the body was not read to its end.

        Args:
            early: the block was left by an exception. Nothing is waited for then.
        """


class Way(Protocol):
    """How requests get to upstreams."""

    async def open(self, method: str, place: Place, headers: Headers, content: bytes) -> ClientResponse:
        """Send a request, and give its answer once the head is there. See `net.client.HttpClient.stream`."""

    async def aclose(self) -> None:
        """Close every connection. Streams that are open break."""


# --- what goes wrong ----------------------------------------------------------------------------------------------


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the latest first; of a group the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__


def detail(error: Exception) -> str:
    """What went wrong, in the words of the first that has some: httpx wraps without a word."""
    return next((said for cause in causes(error) if (said := str(cause).strip().rstrip("."))), type(error).__name__)


def cannot_connect(label: str, error: Exception) -> UpstreamDown:
    """There is no connection."""
    return UpstreamDown(f"Cannot connect to {label}: {detail(error)}. {_advice(error)}")


def connect_timeout(label: str, seconds: float) -> UpstreamTimeout:
    """There is no connection, and the time for it is over."""
    return UpstreamTimeout(
        f"No connection to {label} within {seconds:g} s. Check the network and the proxy.", reason="CONNECT_TIMEOUT"
    )


def write_timeout(label: str, seconds: float) -> UpstreamTimeout:
    """A request does not get through."""
    return UpstreamTimeout(f"{label} took nothing of the request for {seconds:g} s.", reason="WRITE_TIMEOUT")


def no_answer(label: str, error: Exception) -> UpstreamDown:
    """The connection ended before there was a head."""
    return UpstreamDown(f"{label} closed the connection before it answered: {detail(error)}.")


def _advice(error: Exception) -> str:
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError):
            return "Its certificate or TLS was not accepted: check the clock, and the CA file if a proxy inspects TLS."
        if isinstance(cause, socket.gaierror):
            return "The name could not be looked up: check the region or URL, and DNS."
    return "Check the network, the proxy and the address."


@lru_cache(maxsize=8)
def tls_context(verify: bool, ca_file: str) -> ssl.SSLContext:
    """Whom TLS trusts: certifi's authorities, and those of a file. Made once, for it takes 20 ms and 2 MB.

    Raises:
        SettingsError: the file is not usable.
    """
    if verify:
        import certifi

        context = ssl.create_default_context(cafile=certifi.where())
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"The CA file {ca_file} cannot be read as PEM: {error}") from None
    return context
