"""WebSocket on an upgraded exchange, with trio-websocket's own client at the other end, over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
import trio
import trio.testing
import trio_websocket

from kirostream.errors import KirostreamError, MalformedRequest
from kirostream.net.door import open_listeners
from kirostream.net.exchange import Exchange, Headers, HttpRequest, PeerGone, PeerStalled
from kirostream.net.http1 import Http1Door, Http1Settings
from kirostream.net.messages import MessageSocket, text_frame
from kirostream.net.quick import write_each
from kirostream.net.websocket import (
    StreamedSocket,
    UpgradeRequired,
    WebSocketSettings,
    accept,
    close_frame,
    connect,
    wants_websocket,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS: Headers = (
    (b"host", b"x"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"WebSocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", KEY),
)


class Echo:
    """A handler that says every message again, in capitals; `close` ends the connection."""

    def __init__(self, settings: WebSocketSettings) -> None:
        self.settings = settings
        self.ended: list[str] = []
        self.requests: list[HttpRequest] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        async with accept(exchange, self.settings) as socket:
            try:
                await self.talk(socket)
            except KirostreamError as error:
                self.ended.append(type(error).__name__)

    async def talk(self, socket: MessageSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.keep_alive)
            while (message := await socket.receive()) != "close":
                assert isinstance(message, str)
                await socket.send(message.upper())
            nursery.cancel_scope.cancel()


@dataclass
class Served:
    """A door with an echo behind it."""

    stream: trio.abc.Stream
    echo: Echo


@asynccontextmanager
async def served(settings: WebSocketSettings | None = None) -> AsyncIterator[Served]:
    echo = Echo(settings or WebSocketSettings())
    door = Http1Door(echo, Http1Settings())
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve_stream, theirs)
        yield Served(ours, echo)
        await ours.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(
    settings: WebSocketSettings | None = None, path: str = "/v1/responses?a=b"
) -> AsyncIterator[tuple[trio_websocket.WebSocketConnection, Served]]:
    async with served(settings) as there, trio.open_nursery() as nursery:
        stream = cast(trio.SocketStream, there.stream)
        client = await trio_websocket.wrap_client_stream(nursery, stream, "x", path, subprotocols=["a", "b"])
        yield client, there
        with trio.move_on_after(1):
            await client.aclose()
        nursery.cancel_scope.cancel()


async def test_messages_of_any_size(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (client, there):
        for text in ("hello", "", "é 日本 😀", "x" * 1_000_000):
            await client.send_message(text)
            assert await client.get_message() == text.upper()
        assert there.echo.requests[0].path == "/v1/responses"
        assert client.subprotocol == "a"


async def test_either_end_may_close(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (client, there):
        await client.send_message("close")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
    async with connected() as (client, there):
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert there.echo.ended == []
    assert there.echo.requests


async def test_a_fault_of_ours_is_told_as_one(autojump_clock: trio.testing.MockClock) -> None:
    class Broken(Echo):
        async def talk(self, socket: MessageSocket) -> None:
            await socket.receive()
            raise ZeroDivisionError

    faults: list[Exception] = []
    door = Http1Door(Broken(WebSocketSettings()), Http1Settings(), on_fault=lambda _, fault: faults.append(fault))
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve_stream, theirs)
        client = await trio_websocket.wrap_client_stream(nursery, cast(trio.SocketStream, ours), "x", "/")
        await client.send_message("a")
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1011
        await ours.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(faults) == 1
        nursery.cancel_scope.cancel()


async def test_a_client_that_vanishes(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as there, trio.open_nursery() as nursery:
        stream = cast(trio.SocketStream, there.stream)
        client = await trio_websocket.wrap_client_stream(nursery, stream, "x", "/")
        await client.send_message("a")
        assert await client.get_message() == "A"
        await there.stream.aclose()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_a_message_over_the_limit_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(WebSocketSettings(message=1000)) as (client, _):
        await client.send_message("x" * 1001)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009


async def test_bytes_behind_the_head_are_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    """A client may send its first frame together with its handshake."""
    head = b"GET / HTTP/1.1\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in HEADERS) + b"\r\n"
    frame = b"\x81\x82\x00\x00\x00\x00hi"  # a masked text frame, with a mask that changes nothing
    async with served() as there:
        await there.stream.send_all(head + frame)
        data = b""
        while not data.endswith(b"\x81\x02HI"):
            more = await there.stream.receive_some()
            assert more
            data += more
        assert data.startswith(b"HTTP/1.1 101")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in data  # RFC 6455 section 1.3
        assert b"extensions" not in data.lower()


async def test_who_reads_nothing_is_stalled(autojump_clock: trio.testing.MockClock) -> None:
    """The stream holds one message; a client that does not read lets the next one wait."""
    stalls = _Stuck()
    with pytest.raises(PeerStalled, match="7 s"):
        await StreamedSocket(stalls, stalls, WebSocketSettings(write=7)).send("x")  # type: ignore[arg-type]
    socket = StreamedSocket(stalls, stalls, WebSocketSettings(ping=5, pong=9))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.receive)
        with pytest.raises(PeerStalled, match="no ping for 9 s"):
            await socket.keep_alive()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(7 + 5 + 9)


async def test_who_is_gone_is_gone() -> None:
    gone = StreamedSocket(_Gone(), _Gone(), WebSocketSettings(ping=0.0))  # type: ignore[arg-type]
    for call in (gone.receive, lambda: gone.send("x"), gone.keep_alive):
        with pytest.raises(PeerGone):
            await call()


async def test_no_pong_is_nobodys_fault_while_no_message_is_taken(autojump_clock: trio.testing.MockClock) -> None:
    """The library reads on, and so hears a pong, only when its last message was taken."""
    stalls = _Stuck()
    socket = StreamedSocket(stalls, stalls, WebSocketSettings(ping=5, pong=9))  # type: ignore[arg-type]
    with trio.move_on_after(100) as scope:
        await socket.keep_alive()
    assert scope.cancelled_caught


class _Flood(Echo):
    """A handler that offers frames until one is not taken, twice, and then says the rest another way."""

    def __init__(self) -> None:
        super().__init__(WebSocketSettings(write=0.2))
        self.full = trio.Event()
        self.numbers = 0

    def frame(self) -> bytes:
        self.numbers += 1
        return text_frame(b"%d" % (self.numbers - 1) + b"." * 1000)

    async def talk(self, socket: MessageSocket) -> None:
        while socket.offer(self.frame()):
            pass
        assert not socket.offer(self.frame())
        self.full.set()
        if await socket.receive() == "mixed":
            await socket.send(f"{self.numbers}.")  # the library's own, which must not come between two halves
            self.numbers += 1
        await socket.flush()
        await socket.flush()
        await socket.send_frame(self.frame())
        await socket.send("end")


@pytest.mark.parametrize("how", ["plain", "mixed"])
async def test_what_an_offer_leaves_goes_first(how: str) -> None:
    flood = _Flood()
    async with trio.open_nursery() as nursery:
        (listener,) = await open_listeners("127.0.0.1", 0)
        nursery.start_soon(Http1Door(flood, Http1Settings()).serve, [listener])
        async with connect(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/") as client:
            await flood.full.wait()
            await client.send(how)
            heard = []
            while (message := str(await client.receive())) != "end":
                heard.append(int(message.partition(".")[0]))
        nursery.cancel_scope.cancel()
    assert heard == list(range(flood.numbers))
    assert len(heard) > 10
    assert not flood.ended


class _Last(Echo):
    """A handler that closes, and is written to by others meanwhile and afterwards."""

    went: list[bool]
    said_good_bye: trio.Event

    async def talk(self, socket: MessageSocket) -> None:
        outlet = socket.outlet
        assert outlet is not None
        self.went = [not write_each([outlet], text_frame(b"before"))]
        await socket.send("by itself")
        self.went += [outlet.free, not write_each([outlet], text_frame(b"between"))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.close)
            await self.said_good_bye.wait()
            self.went += [outlet.free, not write_each([outlet], text_frame(b"while it waits for the answer"))]
            nursery.cancel_scope.cancel()
        self.went += [outlet.free, not write_each([outlet], text_frame(b"after"))]


async def test_nothing_follows_the_closing_frame() -> None:
    last = _Last(WebSocketSettings())
    last.said_good_bye = trio.Event()
    async with trio.open_nursery() as nursery:
        (listener,) = await open_listeners("127.0.0.1", 0)
        nursery.start_soon(Http1Door(last, Http1Settings()).serve, [listener])
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
            lines = [b"GET / HTTP/1.1", *(name + b": " + value for name, value in HEADERS)]
            await stream.send_all(b"\r\n".join([*lines, b"", b""]))
            heard = b""
            while close_frame(1000, "") not in heard:
                heard += await stream.receive_some()
            last.said_good_bye.set()
            while data := await stream.receive_some():
                heard += data
        nursery.cancel_scope.cancel()
    frames = heard.partition(b"\r\n\r\n")[2]
    assert frames == b"".join(map(text_frame, [b"before", b"by itself", b"between"])) + close_frame(1000, "")
    assert last.went == [True, True, True, False, False, False, False]


class _Endless(_Flood):
    """One that goes on."""

    async def talk(self, socket: MessageSocket) -> None:
        while True:
            while socket.offer(self.frame()):
                pass
            await socket.flush()


async def test_frames_for_who_reads_nothing_end_in_a_stall() -> None:
    flood = _Endless()
    async with trio.open_nursery() as nursery:
        (listener,) = await open_listeners("127.0.0.1", 0)
        nursery.start_soon(Http1Door(flood, Http1Settings()).serve, [listener])
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
            lines = [b"GET / HTTP/1.1", *(name + b": " + value for name, value in HEADERS)]
            await stream.send_all(b"\r\n".join([*lines, b"", b""]))
            with trio.fail_after(10):
                while not flood.ended:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert flood.ended == ["PeerStalled"]


class _Stuck:
    closed = None

    async def get_message(self) -> str:
        await trio.sleep_forever()
        raise AssertionError

    async def send_message(self, text: str) -> None:
        await trio.sleep_forever()

    async def ping(self) -> None:
        await trio.sleep_forever()


class _Gone:
    closed = None

    async def get_message(self) -> str:
        await trio.lowlevel.checkpoint()
        raise trio_websocket.ConnectionClosed(None)

    async def send_message(self, text: str) -> None:
        await self.get_message()

    async def ping(self) -> None:
        await self.get_message()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({b"upgrade": b"h2c"}, UpgradeRequired),
        ({b"connection": b"keep-alive"}, UpgradeRequired),
        ({b"sec-websocket-version": b"8"}, UpgradeRequired),
        ({b"sec-websocket-key": b"short"}, MalformedRequest),
        ({b"sec-websocket-key": b"*"}, MalformedRequest),
    ],
)
async def test_what_is_no_handshake(change: dict[bytes, bytes], error: type[KirostreamError]) -> None:
    class Only:
        request = HttpRequest("GET", "/", "", tuple({**dict(HEADERS), **change}.items()))

    with pytest.raises(error):
        async with accept(Only(), WebSocketSettings()):  # type: ignore[arg-type]
            pass
    assert wants_websocket(HttpRequest("GET", "/", "", HEADERS))
