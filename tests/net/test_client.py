"""The upstream client, against the door and against servers that misbehave: what holds for both ways to an upstream."""

from __future__ import annotations

import dataclasses
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from helpers.cancel import every_checkpoint
from helpers.talk import open_door
from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    RemoteProtocolError,
    SettingsError,
    StreamCut,
    UpstreamDown,
    UpstreamTimeout,
)
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.net.exchange import Exchange
from kirostream.net.proxied import Proxied
from kirostream.net.transport import Transport
from kirostream.net.upstream import tls_context

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True, params=[Transport, Proxied])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Transport | Proxied]:
    """Everything goes this way. Without a proxy in its settings httpx connects by itself."""
    chosen: type[Transport | Proxied] = request.param
    make_way = HttpClient._make_way

    def make(client: HttpClient) -> object:
        return make_way(client) if client._settings.proxy else chosen(client._settings)

    monkeypatch.setattr(HttpClient, "_make_way", make)
    return chosen


class RawServer:
    """Answers each connection by a script. `heard` is what came on each."""

    def __init__(self, script: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
        self._script = script
        self.heard: list[bytes] = []
        self.ended = 0
        self.url = ""
        self.port = 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        me = len(self.heard)
        self.heard.append(b"")
        while b"\r\n\r\n" not in self.heard[me]:
            self.heard[me] += await stream.receive_some(65536) or b"\r\n\r\n"
        await self._script(stream)
        try:
            while data := await stream.receive_some(65536):
                self.heard[me] += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.ended += 1


@asynccontextmanager
async def serving(script: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[RawServer]:
    server = RawServer(script)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        server.url = f"http://127.0.0.1:{server.port}/path?query"
        nursery.start_soon(trio.serve_listeners, server, listeners)
        yield server
        nursery.cancel_scope.cancel()


def says(*parts: bytes, then: str = "wait") -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def script(stream: trio.SocketStream) -> None:
        for part in parts:
            await stream.send_all(part)
        if then == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if then != "wait":
            await stream.aclose()

    return script


async def all_closed(server: RawServer, count: int = 1) -> None:
    with trio.fail_after(5):
        while server.ended < count:
            await trio.sleep(0.001)


# What is sent, and what comes back.


async def test_only_what_was_given_is_sent() -> None:
    async with serving(says(OK + b"content-length: 2\r\n\r\nhi")) as server, HttpClient() as client:
        headers = [(b"X-Amz-Target", b"a"), (b"authorization", b"Bearer t"), (b"x-amz-target", b"b")]
        assert (await client.fetch("POST", server.url, headers, b"body"))[2] == b"hi"
        await client.aclose()
        await all_closed(server)
    lines = server.heard[0].split(b"\r\n")
    assert lines[0] == b"POST /path?query HTTP/1.1"
    assert sorted(lines[1:-2]) == sorted(
        [
            b"Host: 127.0.0.1:%d" % server.port,
            b"X-Amz-Target: a",
            b"authorization: Bearer t",
            b"x-amz-target: b",
            b"Content-Length: 4",
        ]
    )
    assert lines[-1] == b"body"


async def test_an_answer_as_it_came() -> None:
    wire = b"HTTP/1.1 429 Slow\r\nX-A: 1\r\ncontent-encoding: gzip\r\nX-a: 2\r\ncontent-length: 8\r\n\r\nnot gzip"
    headers = ((b"x-a", b"1"), (b"content-encoding", b"gzip"), (b"x-a", b"2"), (b"content-length", b"8"))
    async with serving(says(wire)) as server, HttpClient() as client, client.stream("GET", server.url, []) as response:
        assert response.status == 429
        assert response.headers == headers
        assert (response.header(b"x-a"), response.header(b"x-b")) == (b"1", None)
        assert await response.read_some() == b"not gzip"
        for _ in range(3):
            assert await response.read_some() == b""


async def test_each_piece_comes_as_it_is_sent() -> None:
    """Each is read before the next is sent: nothing waits to pile up."""
    read = trio.Semaphore(0)

    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(CHUNKED)
        for n in range(5):
            await stream.send_all(b"3\r\n%03d\r\n" % n)
            await read.acquire()
        await stream.send_all(b"0\r\n\r\n")

    async with serving(script) as server, HttpClient() as client, client.stream("GET", server.url, []) as response:
        for n in range(5):
            assert await response.read_some() == b"%03d" % n
            read.release()
        assert await response.read_some() == b""


async def test_connections_are_kept_and_used_again() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [], await exchange.body(1000))

    async with open_door(handler) as under_test, HttpClient() as client:
        url = f"http://127.0.0.1:{await under_test.listen()}/"
        for n in range(3):
            assert (await client.fetch("POST", url, [], b"%d" % n))[2] == b"%d" % n
            assert under_test.door.snapshot().connections == 1
        assert repr(client) == "<HttpClient: 0 open, 3 requests>"
    assert repr(client) == "<HttpClient: 0 open, 3 requests, closed>"


async def test_no_redirect_no_cookie_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    wire = (
        b"HTTP/1.1 302 Found\r\nlocation: /other\r\nset-cookie: a=b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    async with serving(says(wire)) as server, HttpClient() as client:
        for _ in range(2):
            assert (await client.fetch("GET", server.url, []))[0] == 302
        await all_closed(server, 2)
    assert len(server.heard) == 2
    assert not any(b"ookie" in heard for heard in server.heard)


async def test_an_answer_over_the_limit() -> None:
    wire = OK + b"content-length: 1000\r\nconnection: close\r\n\r\n" + bytes(1000)
    async with serving(says(wire)) as server, HttpClient() as client:
        assert len((await client.fetch("GET", server.url, [], limit=1000))[2]) == 1000
        with pytest.raises(RemoteProtocolError, match="over the limit of 999 bytes"):
            await client.fetch("GET", server.url, [], limit=999)


# Leaving early.


async def test_leaving_early_closes_the_connection_and_leaves_nothing_behind() -> None:
    """A generator that httpx leaves suspended would be told of by a warning, which is an error here."""
    async with serving(says(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n")) as server, HttpClient() as client:
        async with client.stream("GET", server.url, []) as response:
            assert (await response.read_some()).startswith(b"abc")
            assert repr(client) == "<HttpClient: 1 open, 1 requests>"
        await all_closed(server)
        del response
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(KeyError):
            async with client.stream("GET", server.url, []):
                raise KeyError
        await all_closed(server, 2)
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()


async def test_cancelling_a_read_closes_the_connection() -> None:
    async with serving(says(CHUNKED + b"3\r\nabc\r\n")) as server, HttpClient() as client:
        with trio.CancelScope() as scope:
            async with client.stream("GET", server.url, []) as response:
                assert await response.read_some() == b"abc"
                scope.cancel()
                await response.read_some()
        assert scope.cancelled_caught
        await all_closed(server)
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_deadline_of_the_caller_while_the_server_says_nothing() -> None:
    async with serving(says()) as server, HttpClient() as client:
        with trio.move_on_after(0.05) as scope:
            await client.fetch("GET", server.url, [])
        assert scope.cancelled_caught
        await all_closed(server)


async def test_cancelled_at_any_checkpoint_nothing_is_left() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        for _ in range(3):
            await exchange.send(b"part")
            await trio.lowlevel.checkpoint()
        await exchange.finish()

    async with open_door(handler) as under_test:
        url = f"http://127.0.0.1:{await under_test.listen()}/"
        for cut in every_checkpoint():
            client = HttpClient()

            async def read_it_all(client: HttpClient = client) -> None:
                async with client.stream("POST", url, [], b"body") as response:
                    assert await response.read_all(1000) == b"part" * 3

            await cut.run(read_it_all)
            assert repr(client).startswith("<HttpClient: 0 open")
            if cut.reached:  # then no connection is in use, and a further request is served
                await read_it_all()
            await client.aclose()
            gc.collect()
            await trio.testing.wait_all_tasks_blocked(0.001)
            assert under_test.door.snapshot().connections == 0


async def test_a_closed_client() -> None:
    client = HttpClient()
    await client.aclose()
    await client.aclose()
    with pytest.raises(LocalProtocolError, match="closed"):
        await client.fetch("GET", "http://127.0.0.1/", [])


# Servers that misbehave.

PART = CHUNKED + b"3\r\nabc\r\n"
MISBEHAVING: dict[str, tuple[Callable[[trio.SocketStream], Awaitable[None]], type[KirostreamError]]] = {
    "closes before the head": (says(then="close"), UpstreamDown),
    "resets before the head": (says(then="reset"), UpstreamDown),
    "closes within the head": (says(OK, then="close"), UpstreamDown),
    "speaks something else": (says(b"220 mail.example ESMTP\r\n\r\n", then="close"), UpstreamDown),
    "closes within the body": (says(PART, then="close"), StreamCut),
    "resets within the body": (says(PART, then="reset"), StreamCut),
    "closes within a chunk": (says(CHUNKED + b"5\r\nabc", then="close"), StreamCut),
    "sends a chunk of no size": (says(PART + b"zz\r\n"), StreamCut),
    "sends less than it declared": (says(OK + b"content-length: 5\r\n\r\nabc", then="close"), StreamCut),
}


@pytest.mark.parametrize(("script", "expected"), MISBEHAVING.values(), ids=MISBEHAVING)
async def test_a_server_that_misbehaves(
    script: Callable[[trio.SocketStream], Awaitable[None]], expected: type[KirostreamError]
) -> None:
    async with serving(script) as server, HttpClient() as client:
        with pytest.raises(expected, match=f"127.0.0.1:{server.port}") as caught:
            await client.fetch("GET", server.url, [])
        assert type(caught.value) is expected
        await all_closed(server)
        assert len(server.heard) == 1, "it was tried again"
    gc.collect()


async def test_what_came_before_a_cut_is_given() -> None:
    script = says(PART, then="close")
    async with serving(script) as server, HttpClient() as client, client.stream("GET", server.url, []) as response:
        assert await response.read_some() == b"abc"
        with pytest.raises(StreamCut):
            await response.read_some()
        assert await response.read_some() == b""


# No connection.


async def test_nobody_listens() -> None:
    async with serving(says()) as server:
        pass
    async with HttpClient() as client:
        with pytest.raises(UpstreamDown, match=f"Cannot connect to 127.0.0.1:{server.port}: .*Check the network"):
            await client.fetch("GET", server.url, [])


class Resolver(trio.abc.HostnameResolver):
    """Knows no name, at once or never."""

    def __init__(self, *, ever: bool) -> None:
        self._ever = ever

    async def getaddrinfo(self, *_: object, **__: object) -> list[object]:  # type: ignore[override]
        if not self._ever:
            await trio.sleep_forever()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise AssertionError


async def test_a_name_nobody_knows() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(ever=True))
    async with HttpClient() as client:
        with pytest.raises(UpstreamDown, match=r"q\.us-nowhere-1\.amazonaws\.com: .*check the region"):
            await client.fetch("GET", "https://q.us-nowhere-1.amazonaws.com/", [])


async def test_the_connect_deadline(autojump_clock: trio.abc.Clock) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(ever=False))
    async with HttpClient(ClientSettings(connect_deadline=7)) as client:
        with pytest.raises(UpstreamTimeout, match=r"No connection to example\.com within 7 s"):
            await client.fetch("GET", "http://example.com/", [])
        assert trio.current_time() == pytest.approx(7)


async def test_tls_where_there_is_none() -> None:
    async def nobody(exchange: Exchange) -> None:
        raise AssertionError("a TLS greeting is no request")

    async with open_door(nobody) as under_test, HttpClient() as client:
        with pytest.raises(UpstreamDown, match="certificate or TLS"):
            await client.fetch("GET", f"https://127.0.0.1:{await under_test.listen()}/", [])
        assert under_test.door.snapshot().refused == 1


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("ftp://host/", [], SettingsError),
        ("/no/host", [], SettingsError),
        ("http://[::1/", [], SettingsError),
        ("http://host:port/", [], SettingsError),
        ("http://127.0.0.1:1/", [(b"a b", b"c")], LocalProtocolError),
        ("http://127.0.0.1:1/", [(b"a", b"b\r\nc: d")], LocalProtocolError),
    ],
)
async def test_requests_that_cannot_be(
    url: str, headers: list[tuple[bytes, bytes]], expected: type[KirostreamError]
) -> None:
    async with serving(says()) as server, HttpClient() as client:
        with pytest.raises(expected):
            await client.fetch("GET", url.replace("127.0.0.1:1", f"127.0.0.1:{server.port}"), headers)
        gc.collect()


# Proxies, TLS, settings.


async def test_an_http_proxy_is_asked() -> None:
    async with serving(says(OK + b"content-length: 2\r\n\r\nhi")) as server:
        settings = ClientSettings(proxy=f"http://user:secret@127.0.0.1:{server.port}")
        async with HttpClient(settings) as client:
            assert (await client.fetch("GET", "http://upstream.example/x", []))[2] == b"hi"
    assert server.heard[0].startswith(b"GET http://upstream.example/x HTTP/1.1\r\n")
    assert b"roxy-" in server.heard[0]
    assert "secret" not in repr(settings) + repr(client)


async def test_a_proxy_that_refuses() -> None:
    wire = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with serving(says(wire)) as server:
        client = HttpClient(ClientSettings(proxy=f"http://127.0.0.1:{server.port}"))
        async with client:
            with pytest.raises(UpstreamDown, match=r"proxy did not connect to upstream\.example"):
                await client.fetch("GET", "https://upstream.example/", [])


async def test_a_socks_proxy_is_asked() -> None:
    asked: list[bytes] = []

    async def socks(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"\x05\x00")  # version 5, no authentication
        asked.append(await stream.receive_some(100))
        await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")  # connected
        await stream.receive_some(1000)
        await stream.send_all(OK + b"content-length: 2\r\n\r\nhi")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, socks, listeners)
        proxy = f"socks5://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with HttpClient(ClientSettings(proxy=proxy)) as client:
            assert (await client.fetch("GET", "http://upstream.example/", []))[2] == b"hi"
        nursery.cancel_scope.cancel()
    assert asked == [b"\x05\x01\x00\x03\x10upstream.example\x00\x50"]


@pytest.mark.parametrize(
    "proxy", ["user:secret@host", "ftp://user:secret@host", "http://", "http://user:secret@host:port", "http://[::1"]
)
def test_a_proxy_that_is_none(proxy: str) -> None:
    with pytest.raises(SettingsError, match=r"proxy .* is not usable") as caught:
        ClientSettings(proxy=proxy)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"not a certificate"])
async def test_a_ca_file_that_is_none(content: bytes | None, tmp_path: trio.Path) -> None:
    path = trio.Path(tmp_path / "ca.pem")
    if content is not None:
        await path.write_bytes(content)
    async with HttpClient(ClientSettings(ca_file=str(path))) as client:
        with pytest.raises(SettingsError, match=r"ca\.pem"):
            await client.fetch("GET", "https://host/", [])


def test_certificates_are_checked_unless_told_otherwise() -> None:
    assert tls_context(True, "").verify_mode is ssl.CERT_REQUIRED
    assert tls_context(True, "").check_hostname
    assert tls_context(True, "") is tls_context(True, "")
    assert tls_context(False, "").verify_mode is ssl.CERT_NONE


def test_every_setting_says_what_it_is_and_in_which_unit() -> None:
    for setting in dataclasses.fields(ClientSettings):
        assert setting.metadata["help"].endswith(".")
        if setting.type in ("int", "float"):
            assert setting.metadata["unit"] in ("s", "connections")
