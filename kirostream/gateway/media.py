"""Attachments: the text of documents, and files from the web, before a turn is asked (client-apis.md 2.1, 3.2 and 4.2).

Clients send the whole conversation with every turn, so the same attachments come again and again: what was read is
kept for a while.

**Files are fetched on behalf of whoever wrote the conversation**, who may not be who runs the gateway. So an address
is checked before it is connected to, and it is the checked address that is connected to, not the name, which may mean
another one the next time. Where any address of a name is not public, the name is refused. Redirects are not followed.
The upstream's proxy is not used: it would look the name up again.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field, replace
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, MalformedRequest
from kirostream.filters.images import image_format
from kirostream.gateway.pdf import PdfSettings, pdf_text, too_slow
from kirostream.net.client import HttpClient
from kirostream.turn.request import Attachment, ContentBlock, Image, Message, Text, ToolResult, TurnRequest

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to its addresses, as text. Raises OSError."""

MOST_FETCHED: Final = 20
"""Files that are fetched for one request."""
MOST_AT_ONCE: Final = 4
KEPT: Final = 64 << 20
"""Characters of texts and images that are kept for the next turn of a conversation."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """What is read and fetched for clients."""

    fetch_images: bool = field(
        default=True, metadata={"help": "Fetch images and files that clients name by an https URL."}
    )
    private_networks: bool = field(
        default=False,
        metadata={"help": "Also fetch from this machine and private networks, and over http. Mind who may call."},
    )
    image_bytes: int = field(
        default=20 << 20, metadata={"help": "Largest image or file that is fetched.", "unit": "bytes"}
    )
    image_deadline: float = field(default=10.0, metadata={"help": "For fetching one image or file.", "unit": "s"})
    pdf: PdfSettings = field(default_factory=PdfSettings)


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, from the system's resolver."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_public(address: str) -> bool:
    """Whether an address belongs to the open internet; one that wraps an IPv4 address is as public as that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class Media:
    """Settles the attachments of requests."""

    def __init__(self, client: HttpClient, settings: MediaSettings, resolve: Resolve = look_up) -> None:
        self._client = client
        self._settings = settings
        self._resolve = resolve
        self._fetching = trio.CapacityLimiter(MOST_AT_ONCE)
        self._reading = trio.CapacityLimiter(2)
        self._kept: OrderedDict[bytes, Text | Image] = OrderedDict()
        self._size = 0

    def adopt(self, settings: MediaSettings) -> None:
        """Go by other settings, from the next request on."""
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Media {len(self._kept)} kept, {self._size} characters>"

    async def settle(self, request: TurnRequest, *, fetch: bool = True) -> TurnRequest:
        """The request with texts and images in the place of attachments; itself where it has none.

        Args:
            request: as a client asked it.
            fetch: False leaves files where they are, for who only counts.

        Raises:
            MalformedRequest: an attachment cannot be had; `param` is its path.
        """
        found = [a for a in _attachments(request) if fetch or not a.url]
        if not found:
            return request
        if sum(bool(each.url) for each in found) > MOST_FETCHED:
            raise _cannot(found[0], f"at most {MOST_FETCHED} files are fetched for one request")
        settled: dict[Attachment, Text | Image] = {}
        failed: list[KirostreamError] = []

        async def one(attachment: Attachment) -> None:
            try:
                settled[attachment] = await self._settle(attachment)
            except KirostreamError as error:
                failed.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for each in dict.fromkeys(found):
                nursery.start_soon(one, each)
        if failed:
            raise failed[0]
        return _replaced(request, settled)

    async def _settle(self, attachment: Attachment) -> Text | Image:
        parts = (attachment.media_type, attachment.title, attachment.url, attachment.data)
        key = hashlib.sha256("\n".join(parts).encode()).digest()
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        got = await self._fetch(attachment) if attachment.url else await self._read(attachment)
        self._keep(key, got)
        return got

    def _keep(self, key: bytes, got: Text | Image) -> None:
        if key not in self._kept:
            self._size += _length(got)
            self._kept[key] = got
        while self._size > KEPT:
            self._size -= _length(self._kept.popitem(last=False)[1])

    async def _read(self, attachment: Attachment) -> Text:
        settings = self._settings.pdf
        with trio.move_on_after(settings.deadline + 1):  # between pages the thread sees its own deadline
            text = await trio.to_thread.run_sync(
                pdf_text, attachment.data, attachment.at, settings, abandon_on_cancel=True, limiter=self._reading
            )
            return Text(_titled(attachment, text))
        raise too_slow(attachment.at, settings)

    async def _fetch(self, attachment: Attachment) -> Text | Image:
        settings = self._settings
        if not settings.fetch_images:
            raise _cannot(attachment, "fetching files is switched off (media.fetch_images); send it as base64 data")
        url = _checked(attachment, private=settings.private_networks)
        data = None
        async with self._fetching:
            with trio.move_on_after(settings.image_deadline):
                data = await self._get(attachment, url)
        if data is None:
            raise _cannot(attachment, f"it did not come within {settings.image_deadline:g} s")
        if name := image_format(data[:12]):
            return Image(f"image/{name}", base64.b64encode(data).decode("ascii"))
        if attachment.media_type == "image/*":
            raise _cannot(attachment, "it is not a gif, jpeg, png or webp image")
        if b"%PDF-" in data[:1024]:
            return await self._read(replace(attachment, data=base64.b64encode(data).decode("ascii")))
        return Text(_titled(attachment, _text(attachment, data)))

    async def _get(self, attachment: Attachment, url: SplitResult) -> bytes:
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await self._address(attachment, host, port)
        literal = f"[{address}]" if ":" in address else address
        place = f"{url.scheme}://{literal}:{port}{url.path or '/'}{'?' + url.query if url.query else ''}"
        headers = [
            (b"host", url.netloc.encode("ascii")),
            (b"accept", attachment.media_type.encode("ascii")),
            (b"user-agent", b"kirostream"),
        ]
        try:
            async with self._client.stream("GET", place, headers, server_name=host) as response:
                if 300 <= response.status < 400:
                    raise _cannot(attachment, "it is a redirect, and redirects are not followed")
                if response.status != 200:
                    raise _cannot(attachment, f"its server answered {response.status}")
                return await response.read_all(self._settings.image_bytes)
        except MalformedRequest:
            raise
        except KirostreamError as error:
            raise _cannot(attachment, f"it cannot be had ({type(error).__name__})") from error

    async def _address(self, attachment: Attachment, host: str, port: int) -> str:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise _cannot(attachment, "the name of its server cannot be looked up") from error
        if not addresses:
            raise _cannot(attachment, "the name of its server has no address")
        if not self._settings.private_networks and not all(map(is_public, addresses)):
            raise _cannot(attachment, "its server is not on the open internet (media.private_networks)")
        return addresses[0]


def _checked(attachment: Attachment, *, private: bool) -> SplitResult:
    try:
        url = urlsplit(attachment.url)
        usable = bool(url.hostname) and url.port != 0 and attachment.url.isascii() and attachment.url.isprintable()
    except ValueError as error:  # a port that is no number, half an IPv6 address
        raise _cannot(attachment, "its URL cannot be read") from error
    if not usable or " " in attachment.url:
        raise _cannot(attachment, "its URL cannot be read")
    if url.scheme != "https" and not (private and url.scheme == "http"):
        raise _cannot(attachment, "its URL has to begin with https://")
    if url.username is not None:
        raise _cannot(attachment, "its URL holds a name or a password")
    return url


def _cannot(attachment: Attachment, why: str) -> MalformedRequest:
    what = "the image" if attachment.media_type == "image/*" else "the document"
    return MalformedRequest(
        f"{attachment.at}: {what} was not read: {why}.", param=attachment.at, reason="invalid_value"
    )


def _text(attachment: Attachment, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _cannot(attachment, "it is neither a PDF, nor a text in UTF-8, nor an image")
    return text


def _titled(attachment: Attachment, text: str) -> str:
    return f"{attachment.title}\n{text}" if attachment.title else text


def _length(got: Text | Image) -> int:
    return len(got.text if isinstance(got, Text) else got.data)


def _attachments(request: TurnRequest) -> list[Attachment]:
    found: list[Attachment] = []
    for message in request.messages:
        for block in message.content:
            if isinstance(block, Attachment):
                found.append(block)
            elif isinstance(block, ToolResult):
                found += [part for part in block.content if isinstance(part, Attachment)]
    return found


def _replaced(request: TurnRequest, settled: dict[Attachment, Text | Image]) -> TurnRequest:
    def result(block: ToolResult) -> ToolResult:
        if not any(isinstance(part, Attachment) for part in block.content):
            return block
        inner = (settled.get(part, part) if isinstance(part, Attachment) else part for part in block.content)
        return replace(block, content=tuple(inner))

    def replaced(message: Message) -> Message:
        content: list[ContentBlock] = []
        for block in message.content:
            if isinstance(block, Attachment):
                content.append(settled.get(block, block))
            else:
                content.append(result(block) if isinstance(block, ToolResult) else block)
        same = all(new is old for new, old in zip(content, message.content, strict=True))
        return message if same else replace(message, content=tuple(content))

    return replace(request, messages=tuple(map(replaced, request.messages)))
