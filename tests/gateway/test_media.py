"""Attachments: what is read of documents, what is fetched, and above all what is not."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
import trio
import trio.testing

from helpers.images import PNG
from helpers.pdfs import pdf
from kirostream.errors import KirostreamError, MalformedRequest, RemoteProtocolError, UpstreamDown
from kirostream.gateway.media import MOST_FETCHED, Media, MediaSettings, is_public, look_up
from kirostream.gateway.pdf import PdfSettings, pdf_text
from kirostream.net.client import HttpClient
from kirostream.net.door import open_listeners
from kirostream.net.exchange import Exchange, Headers
from kirostream.net.http1 import Http1Door
from kirostream.turn.request import Attachment, Image, Message, Role, Text, ToolResult, TurnRequest

PUBLIC = "93.184.216.34"
AN_IMAGE = Image("image/png", base64.b64encode(PNG).decode())


@dataclass
class Answer:
    """What a web server says."""

    status: int = 200
    body: bytes = PNG
    delay: float = 0.0

    async def read_all(self, limit: int) -> bytes:
        await trio.sleep(self.delay)
        if len(self.body) > limit:
            raise RemoteProtocolError("over the limit")
        return self.body


@dataclass
class Web:
    """A web of one server, and its names."""

    answer: Answer | KirostreamError = field(default_factory=Answer)
    names: dict[str, Sequence[str]] = field(default_factory=lambda: {"x.example": [PUBLIC]})
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        if host not in self.names:
            raise OSError("no such name")
        return self.names[host]

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, server_name: str = ""
    ) -> AsyncIterator[Answer]:
        self.asked.append((url, dict(headers)[b"host"].decode(), server_name))
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, KirostreamError):
            raise self.answer
        yield self.answer

    def media(self, settings: MediaSettings | None = None) -> Media:
        return Media(cast(HttpClient, self), settings or MediaSettings(), self.resolve)


def ask(*blocks: Attachment | Text, result: Sequence[Attachment | Text] = ()) -> TurnRequest:
    messages = [Message(Role.USER, blocks)]
    if result:
        messages.append(Message(Role.USER, (ToolResult("c", tuple(result)),)))
    return TurnRequest(model="m", messages=tuple(messages))


def image(url: str = "https://x.example/a.png?b=1") -> Attachment:
    return Attachment("image/*", url=url, at="$.messages[0]")


def document(data: bytes, title: str = "") -> Attachment:
    return Attachment("application/pdf", base64.b64encode(data).decode(), title=title, at="$.d")


async def test_a_request_without_attachments_is_left_alone() -> None:
    request = ask(Text("hi"))
    assert await Web().media().settle(request) is request


async def test_messages_without_attachments_stay_the_objects_they_are() -> None:
    texts = (Message(Role.USER, (Text("a"),)), Message(Role.USER, (ToolResult("1", (Text("r"),)),)))
    asked = ask(Attachment("image/*", url="https://x.example/a.png"))
    settled = await Web().media().settle(replace(asked, messages=(*texts, *asked.messages)))
    assert [settled.messages[0] is texts[0], settled.messages[1] is texts[1]] == [True, True]
    assert settled.messages[2].content == (AN_IMAGE,)


async def test_an_image_comes_from_the_address_that_was_checked() -> None:
    web = Web()
    media = web.media()
    settled = await media.settle(ask(Text("see"), image(), result=[image()]))
    assert settled.messages[0].content == (Text("see"), AN_IMAGE)
    assert settled.messages[1].content == (ToolResult("c", (AN_IMAGE,)),)
    assert web.asked == [(f"https://{PUBLIC}:443/a.png?b=1", "x.example", "x.example")]
    await media.settle(ask(image()))
    assert len(web.asked) == 1  # kept for the next turn of the conversation


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
        ),
    ],
)
async def test_an_address_that_is_not_public_is_not_connected_to(address: str) -> None:
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address]):
        web = Web(names={"x.example": addresses})
        with pytest.raises(MalformedRequest, match="open internet") as caught:
            await web.media().settle(ask(image()))
        assert caught.value.param == "$.messages[0]"
        assert not web.asked


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]", "[::ffff:169.254.169.254]", "[fe80::1]"]
)
async def test_an_address_in_any_spelling_is_looked_at_as_the_system_reads_it(host: str) -> None:
    web = Web()
    media = Media(cast(HttpClient, web), MediaSettings(), look_up)
    with pytest.raises(MalformedRequest, match=r"open internet|cannot be looked up"):
        await media.settle(ask(image(f"https://{host}/latest/meta-data")))
    assert not web.asked


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


async def test_private_networks_can_be_allowed() -> None:
    web = Web(names={"x.example": ["::1"]})
    media = web.media(MediaSettings(private_networks=True))
    await media.settle(ask(image("http://x.example:81")))
    assert web.asked == [("http://[::1]:81/", "x.example:81", "x.example")]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://x.example/a.png", "https://"),
        ("ftp://x.example/a.png", "https://"),
        ("file:///etc/passwd", "cannot be read"),
        ("https://", "cannot be read"),
        ("https://[::1/a", "cannot be read"),
        ("https://x.example:99999/a", "cannot be read"),
        ("https://x.example/a b", "cannot be read"),
        ("https://x.example/a\r\nhost: y", "cannot be read"),
        ("https://user:secret@x.example/a", "password"),
        ("https://unknown.example/a", "looked up"),
    ],
)
async def test_urls_that_are_not_asked(url: str, why: str) -> None:
    web = Web()
    with pytest.raises(MalformedRequest, match=why):
        await web.media().settle(ask(image(url)))
    assert not web.asked


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(302), "redirect"),
        (Answer(404), "answered 404"),
        (Answer(body=b"<html>"), "not a gif"),
        (Answer(body=PNG + b"x" * 2000), "RemoteProtocolError"),
        (Answer(delay=11), "10 s"),
        (UpstreamDown("x"), "UpstreamDown"),
    ],
)
async def test_what_is_no_image(
    answer: Answer | KirostreamError, why: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(MalformedRequest, match=why) as caught:
        await Web(answer).media(MediaSettings(image_bytes=1000)).settle(ask(image()))
    assert caught.value.param == "$.messages[0]"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pdf("hello"), Text("a title\n[Page 1 of 1]\nhello")),
        ("\ufeffé = 1\n".encode(), Text("a title\né = 1\n")),
        (PNG, AN_IMAGE),
    ],
)
async def test_a_file_of_any_kind_is_fetched(body: bytes, expected: Text | Image) -> None:
    web = Web(Answer(body=body))
    media = web.media()
    file = Attachment("*/*", url="https://x.example/a", title="a title", at="$.f")
    for _ in range(2):
        settled = await media.settle(ask(file, result=[file]))
        assert settled.messages[0].content == (expected,)
        assert settled.messages[1].content == (ToolResult("c", (expected,)),)
    assert len(web.asked) == 1


@pytest.mark.parametrize("body", [b"PK\x03\x04\0\0zip", b"\xff\xfe\0a", b"a\0b", b"%PDF-1.4 and no more"])
async def test_what_is_no_file_that_a_model_reads(body: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        await Web(Answer(body=body)).media().settle(ask(Attachment("*/*", url="https://x.example/a", at="$.f")))
    assert caught.value.param == "$.f"


async def test_fetching_can_be_switched_off_and_is_limited() -> None:
    web = Web()
    with pytest.raises(MalformedRequest, match="switched off"):
        await web.media(MediaSettings(fetch_images=False)).settle(ask(image()))
    many = [image(f"https://x.example/{i}") for i in range(MOST_FETCHED + 1)]
    with pytest.raises(MalformedRequest, match="at most"):
        await web.media().settle(ask(*many))
    assert not web.asked
    settled = await web.media().settle(ask(*many[1:]))
    assert settled.messages[0].content == (AN_IMAGE,) * MOST_FETCHED


async def test_who_only_counts_fetches_nothing() -> None:
    web = Web()
    settled = await web.media().settle(ask(image(), document(pdf("hello"))), fetch=False)
    assert settled.messages[0].content == (image(), Text("[Page 1 of 1]\nhello"))
    assert not web.asked


async def test_a_document_is_its_text() -> None:
    media = Web().media()
    settled = await media.settle(ask(Text("see"), document(pdf("one", "", "three"))))
    assert settled.messages[0].content == (Text("see"), Text("[Page 1 of 3]\none\n\n[Page 3 of 3]\nthree"))


def read(data: bytes, **settings: float) -> str:
    return pdf_text(base64.b64encode(data).decode(), "$.d", PdfSettings(**settings))  # type: ignore[arg-type]


def test_what_is_left_out_of_a_document_is_said() -> None:
    assert read(pdf("one", "two"), pages=1) == (
        "[Page 1 of 2]\none\n\n[The document has 2 pages; the first 1 are shown.]"
    )
    assert read(pdf("one", "two"), characters=4) == (
        "[Page 1 of 2]\none\n\n[Page 2 of 2]\nt\n\n[The text goes on; 4 characters are shown.]"
    )
    assert "probably scanned" in read(pdf("", ""))


@pytest.mark.parametrize("data", [b"", b"not a pdf", pdf("x")[:60], b"%PDF-1.4\n" + b"\xff" * 500])
def test_what_is_no_document(data: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read(data)
    assert caught.value.param == "$.d"
    with pytest.raises(MalformedRequest, match="not base64"):
        pdf_text("!", "$.d", PdfSettings())


def test_a_document_that_takes_too_long() -> None:
    with pytest.raises(MalformedRequest, match="longer than 0 s"):
        read(pdf("one"), deadline=0)


def test_a_locked_document() -> None:
    import io

    import pypdf

    writer = pypdf.PdfWriter(io.BytesIO(pdf("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(MalformedRequest, match="password"):
        read(out.getvalue())


async def test_over_a_real_connection() -> None:
    asked: list[bytes | None] = []

    async def serve(exchange: Exchange) -> None:
        asked.append(exchange.request.header(b"host"))
        await exchange.reply(200, ((b"content-type", b"image/png"),), PNG)

    door = Http1Door(serve)
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, HttpClient() as client:
        await nursery.start(door.serve, listeners)
        refused = Media(client, MediaSettings())
        with pytest.raises(MalformedRequest, match="open internet"):
            await refused.settle(ask(image(f"https://localhost:{port}/a.png")))
        media = Media(client, MediaSettings(private_networks=True))
        settled = await media.settle(ask(image(f"http://127.0.0.1:{port}/a.png")))
        assert settled.messages[0].content == (AN_IMAGE,)
        nursery.cancel_scope.cancel()
    assert asked == [f"127.0.0.1:{port}".encode()]
