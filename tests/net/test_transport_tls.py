"""Our own way to an upstream, with TLS."""

from __future__ import annotations

import gc
import ssl
from contextlib import suppress

import pytest
import trio
import trio.testing

from helpers.authority import Authority
from helpers.cancel import every_checkpoint
from helpers.servers import CHUNKED, COUNTED, OK, Peer, always, serving, silent
from kirostream.errors import StreamCut, UpstreamDown, UpstreamTimeout
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.net.transport import Transport
from kirostream.net.upstream import tls_context
from kirostream.net.wire import Wire


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def trusting(authority: Authority) -> ClientSettings:
    return ClientSettings(ca_file=str(authority.file), connect_deadline=5)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_tls_is_spoken_and_resumed(version: ssl.TLSVersion, authority: Authority) -> None:
    context = authority.context("127.0.0.1")
    context.maximum_version = version
    seen: list[tuple[str | None, str | None, bool | None]] = []

    async def talk(peer: Peer) -> None:
        stream = peer.stream
        assert isinstance(stream, trio.SSLStream)
        seen.append((stream.version(), stream.selected_alpn_protocol(), stream.session_reused))
        for _ in range(2):
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.say(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    name = "TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3"
    async with serving(talk, context) as server, HttpClient(trusting(authority)) as client:
        for _ in range(3):
            for size in (10, 300_000):
                assert (await client.fetch("POST", server.url, [], b"x" * size))[2] == b"x" * size
            await server.settled()
    assert seen == [(name, "http/1.1", False), (name, "http/1.1", True), (name, "http/1.1", True)]


async def test_who_is_proven_by_tls(authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.context("files.example")
    context.sni_callback = lambda sock, name, context: asked.append(name)
    async with serving(always(), context) as server, HttpClient(trusting(authority)) as client:
        for _ in range(2):
            async with client.stream("GET", server.url, [], server_name="files.example") as response:
                assert await response.read_all(10) == b"hi"
        with pytest.raises(UpstreamDown, match="certificate or TLS was not accepted"):
            await client.fetch("GET", server.url, [])
        with pytest.raises(UpstreamDown, match="certificate or TLS was not accepted"):
            async with client.stream("GET", server.url, [], server_name="other.example"):
                pass
        assert asked == ["files.example", None, "other.example"]
        assert len(server.peers) == 1
    async with serving(always(), context) as server:
        async with HttpClient(ClientSettings()) as client:
            with pytest.raises(UpstreamDown, match="certificate or TLS was not accepted"):
                async with client.stream("GET", server.url, [], server_name="files.example"):
                    pass
        async with HttpClient(ClientSettings(verify=False)) as client:
            assert (await client.fetch("GET", server.url, []))[2] == b"hi"


async def test_a_body_without_length_is_whole_only_with_a_farewell(authority: Authority) -> None:
    """Whoever cuts a connection cannot forge the alert that ends it (RFC 9112 section 9.8)."""
    context = authority.context("127.0.0.1")
    farewell = True

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + b"\r\nhello")
        assert isinstance(peer.stream, trio.SSLStream)
        under = peer.stream.transport_stream
        if farewell:
            with suppress(trio.BrokenResourceError):
                await peer.stream.unwrap()
        await under.aclose()

    async with serving(talk, context) as server, HttpClient(trusting(authority)) as client:
        assert (await client.fetch("GET", server.url, []))[2] == b"hello"
        farewell = False
        async with client.stream("GET", server.url, []) as response:
            assert await response.read_some() == b"hello"
            with pytest.raises(StreamCut, match="was cut"):
                await response.read_some()


async def test_what_is_no_tls_in_the_middle(authority: Authority) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED + b"2\r\nhi\r\n")
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.stream.transport_stream.send_all(b"in the clear, and long enough for a record")
        await peer.stream.transport_stream.aclose()

    async with (
        serving(talk, authority.context("127.0.0.1")) as server,
        HttpClient(trusting(authority)) as client,
        client.stream("GET", server.url, []) as response,
    ):
        assert await response.read_some() == b"hi"
        with pytest.raises(StreamCut):
            await response.read_some()


async def test_a_handshake_that_does_not_end(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(silent) as server, HttpClient(ClientSettings(connect_deadline=7)) as client:
        with pytest.raises(UpstreamTimeout, match="within 7 s"):
            await client.fetch("GET", server.url.replace("http", "https"), [])
        assert repr(client._way) == "<Transport: 0 busy, 0 idle>"


async def test_a_turn_over_tls_that_nobody_received_is_sent_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wire, "is_alive", lambda wire: True)  # the farewell passes the request on its way

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.stream.transport_stream.aclose()

    async with serving(talk, authority.context("127.0.0.1")) as server, HttpClient(trusting(authority)) as client:
        for _ in range(3):
            assert (await client.fetch("POST", server.url, [], b"turn"))[2] == b"hi"
            await server.settled()
        assert server.requests == [[b"POST"]] * 3


# --- cancelled anywhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [False, True], ids=["plain", "TLS"])
async def test_cancelled_anywhere_nothing_is_left(secret: bool, authority: Authority) -> None:
    """Before, between and after: the connection is closed at once, and the next request is served."""

    async def talk(peer: Peer) -> None:
        while await peer.request():
            for part in (CHUNKED, b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n"):
                await peer.say(part)
                await trio.testing.wait_all_tasks_blocked()

    context = authority.context("127.0.0.1") if secret else None
    async with serving(talk, context) as server, HttpClient(trusting(authority)) as client:

        async def ask() -> None:
            async with client.stream("POST", server.url, [], bytes(100_000)) as response:
                assert await response.read_all(10) == b"abcdef"

        for fresh in (True, False):
            for cut in every_checkpoint():
                if fresh:
                    await client.aclose()
                    client._closed = False
                else:
                    await ask()
                await cut.run(ask)
                gc.collect()
                assert repr(client).startswith("<HttpClient: 0 open")
                assert client._way is None or repr(client._way).startswith("<Transport: 0 busy")
                with trio.fail_after(5):
                    while server.open > ("1 idle" in repr(client._way)):
                        await trio.sleep(0.001)


async def test_a_cancelled_request_of_many_leaves_the_others_alone() -> None:
    async def talk(peer: Peer) -> None:
        while await peer.request():
            await peer.say(CHUNKED + b"2\r\nhi\r\n")
            await trio.sleep(0.01)
            await peer.say(b"0\r\n\r\n")

    async with serving(talk) as server, HttpClient() as client:
        whole = 0

        async def one(number: int) -> None:
            nonlocal whole
            with trio.move_on_after(0.0005 * number if number % 2 else 5):
                assert (await client.fetch("POST", server.url, [], b"x"))[2] == b"hi"
                whole += 1

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(one, number)
        assert whole >= 60
        assert repr(client._way).startswith("<Transport: 0 busy")
        await server.settled(int(repr(client._way).split()[3]))


def test_a_context_is_made_when_it_is_needed() -> None:
    tls_context.cache_clear()
    Transport(ClientSettings())
    assert tls_context.cache_info().currsize == 0
