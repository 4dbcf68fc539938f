"""A body that is handed on piece by piece: through the hub, and by a task of its own. The same comes out of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from helpers.authority import Authority
from helpers.servers import CHUNKED, OK, Peer, Talk, serving
from helpers.taking import Taking
from kirostream.errors import StreamCut
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.net.hub import current_hub, opened
from kirostream.net.upstream import ClientResponse

PIECES = [b"%d," % n for n in range(100)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@dataclass
class Way:
    """A way to an upstream: through the hub or not, with TLS or not."""

    hub: bool
    authority: Authority | None

    @asynccontextmanager
    async def asked(self, talk: Talk) -> AsyncIterator[ClientResponse]:
        """An answer of a server that says what `talk` says."""
        context = self.authority.context("127.0.0.1") if self.authority else None
        settings = ClientSettings(ca_file=str(self.authority.file) if self.authority else "")
        with ExitStack() as stack:
            if self.hub:
                stack.enter_context(opened())
                if current_hub() is None:
                    pytest.skip("this platform has no epoll, so each task waits by itself")
            async with (
                serving(talk, context) as server,
                HttpClient(settings) as client,
                client.stream("POST", server.url, [], b"x") as response,
            ):
                yield response


@pytest.fixture(params=["hub", "hub and tls", "plain", "plain and tls"])
def way(request: pytest.FixtureRequest, authority: Authority) -> Way:
    return Way("hub" in request.param, authority if "tls" in request.param else None)


def saying(*parts: bytes, head: bytes = CHUNKED) -> Talk:
    """A server that says one part after the other, and lets the client read in between."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(head)
        for part in parts:
            await trio.testing.wait_all_tasks_blocked()
            await peer.say(part)

    return talk


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def into(found: list[bytes], until: bytes = b"") -> Taking:
    """Takes everything; has enough at `until`."""

    def take(data: bytes) -> bool:
        found.append(data)
        return data != until

    return Taking(take)


async def test_piece_by_piece_to_the_end(way: Way) -> None:
    found: list[bytes] = []
    async with way.asked(saying(*map(chunk, PIECES), chunk(b""))) as response:
        assert await response.each(into(found)) is False
        assert b"".join(found) == b"".join(PIECES)
        assert await response.each(into(found)) is False
        assert await response.read_some() == b""


async def test_any_cut(way: Way) -> None:
    whole = b"".join(map(chunk, PIECES[:20])) + chunk(b"")
    found: list[bytes] = []
    async with way.asked(saying(*(whole[i : i + 1] for i in range(len(whole))))) as response:
        assert await response.each(into(found)) is False
    assert b"".join(found) == b"".join(PIECES[:20])


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        (OK + b"content-length: 290\r\n\r\n", PIECES),
        (OK + b"\r\n", PIECES),
        (OK + b"\r\n", []),
        (OK + b"content-length: 0\r\n\r\n", []),
    ],
    ids=["counted", "until the close", "empty until the close", "empty"],
)
async def test_other_framings(way: Way, head: bytes, parts: list[bytes]) -> None:
    if way.authority and b"content-length" not in head:
        pytest.skip("the server's TLS stream says no farewell, and an end without one is a cut")
    found: list[bytes] = []

    async def talk(peer: Peer) -> None:
        await saying(*parts, head=head)(peer)
        await peer.stream.aclose()

    async with way.asked(talk) as response:
        assert await response.each(into(found)) is False
    assert b"".join(found) == b"".join(parts)


async def test_who_has_enough_can_go_on_later(way: Way) -> None:
    found: list[bytes] = []
    async with way.asked(saying(*map(chunk, (b"a", b"b", b"c", b"d")), chunk(b""))) as response:
        assert await response.each(into(found, b"b")) is True
        assert found == [b"a", b"b"]
        assert await response.read_some() == b"c"
        assert await response.each(into(found)) is False
        assert found == [b"a", b"b", b"d"]


async def test_enough_with_the_last_piece(way: Way) -> None:
    found: list[bytes] = []
    async with way.asked(saying(chunk(b"a"), chunk(b"b") + chunk(b""))) as response:
        assert await response.each(into(found, b"b")) is True
        assert await response.each(into(found)) is False
    assert found == [b"a", b"b"]


@pytest.mark.parametrize("last", [b"5\r\nxx", b"nonsense\r\n", b""], ids=["in a chunk", "no chunk", "before the last"])
async def test_a_cut_is_told_after_what_came_before_it(way: Way, last: bytes) -> None:
    found: list[bytes] = []

    async def talk(peer: Peer) -> None:
        await saying(chunk(b"a"), chunk(b"b") + last)(peer)
        await peer.stream.aclose()

    async with way.asked(talk) as response:
        with pytest.raises(StreamCut):
            await response.each(into(found))
        assert b"".join(found).startswith(b"ab")


async def test_a_reset(way: Way) -> None:
    if way.authority:
        pytest.skip("a TLS stream does not show its socket")

    async def talk(peer: Peer) -> None:
        await saying(chunk(b"a"))(peer)
        await trio.testing.wait_all_tasks_blocked()
        await peer.reset()

    found: list[bytes] = []
    async with way.asked(talk) as response:
        with pytest.raises(StreamCut, match="reset"):
            await response.each(into(found))
    assert found == [b"a"]


async def test_what_take_raises_comes_out(way: Way) -> None:
    def take(data: bytes) -> bool:
        raise ZeroDivisionError

    async with way.asked(saying(chunk(b"a"), chunk(b"b"))) as response:
        with pytest.raises(ZeroDivisionError):
            await response.each(Taking(take))


async def test_cancelled_in_silence(way: Way, autojump_clock: trio.testing.MockClock) -> None:
    async def talk(peer: Peer) -> None:
        await saying(chunk(b"a"))(peer)
        await trio.sleep_forever()

    found: list[bytes] = []
    async with way.asked(talk) as response:
        with trio.move_on_after(300) as scope:
            await response.each(into(found))
        assert scope.cancelled_caught
    assert found == [b"a"]


async def test_the_client_is_closed_meanwhile(way: Way) -> None:
    async def talk(peer: Peer) -> None:
        await saying(chunk(b"a"))(peer)
        await trio.sleep_forever()

    context = way.authority.context("127.0.0.1") if way.authority else None
    settings = ClientSettings(ca_file=str(way.authority.file) if way.authority else "")
    with ExitStack() as stack:
        if way.hub:
            stack.enter_context(opened())
        async with serving(talk, context) as server, HttpClient(settings) as client, trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(StreamCut):
                    async with client.stream("GET", server.url, []) as response:
                        await response.each(into([]))
                done.set()

            done = trio.Event()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await client.aclose()
            with trio.fail_after(5):
                await done.wait()


async def test_a_farewell_is_heard_though_the_connection_stays(authority: Authority) -> None:
    """A server that ends TLS and not TCP has said all it will say."""

    async def talk(peer: Peer) -> None:
        await saying(chunk(b"a"))(peer)
        await trio.testing.wait_all_tasks_blocked()
        stream = peer.stream
        assert isinstance(stream, trio.SSLStream)
        with trio.move_on_after(0.2):
            await stream.unwrap()
        await trio.sleep_forever()

    found: list[bytes] = []
    with trio.fail_after(5):
        async with Way(True, authority).asked(talk) as response:
            with pytest.raises(StreamCut):
                await response.each(into(found))
    assert found == [b"a"]
