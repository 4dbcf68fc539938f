"""WebSockets through every door, with trio-websocket and `websockets` as foreign clients."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio_websocket
import websockets.exceptions
import websockets.sync.client

from helpers.certs import trusting
from helpers.doors import KINDS, OpenDoor, open_kind
from kirostream.errors import KeyRejected, KirostreamError
from kirostream.net.exchange import Exchange, HttpRequest, PeerGone
from kirostream.net.messages import text_frame, text_in
from kirostream.net.websocket import UpgradeRequired, WebSocketSettings, accept

each_door = pytest.mark.parametrize("kind", KINDS)


class Echo:
    """Says every message again, in capitals, and in turn as text and as a frame.

    ``close`` ends the connection, ``fail`` is a bug.
    """

    def __init__(self, settings: WebSocketSettings | None = None) -> None:
        self.settings = settings or WebSocketSettings(close=0.2)
        self.ended: list[str] = []
        self.requests: list[HttpRequest] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        if exchange.request.header(b"x-key") == b"wrong":
            raise KeyRejected("That is not the key.")
        try:
            async with accept(exchange, self.settings) as socket:
                try:
                    while (message := await socket.receive()) != "close":
                        assert isinstance(message, str)
                        if message == "fail":
                            raise RuntimeError
                        if len(message) % 2:
                            await socket.send(message.upper())
                        else:
                            await socket.send_frame(text_frame(message.upper().encode()))
                    await socket.close(4001, "as you say")
                except KirostreamError as error:
                    self.ended.append(type(error).__name__)
        except UpgradeRequired as error:
            await exchange.reply(error.status, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")], b"")


@asynccontextmanager
async def connected(door: OpenDoor, path: str = "/v1?a=b") -> AsyncIterator[trio_websocket.WebSocketConnection]:
    async with trio.open_nursery() as nursery:
        stream = cast(trio.SocketStream, await door.stream())
        yield await trio_websocket.wrap_client_stream(nursery, stream, "x", path, subprotocols=["a", "b"])
        nursery.cancel_scope.cancel()


@each_door
async def test_messages_of_any_size(kind: str) -> None:
    echo = Echo()
    async with open_kind(kind, echo) as door, connected(door) as client:
        for text in ("hello", "", "é 日本 😀", "x" * 125, "x" * 126, "x" * 65_536, "x" * 1_000_001):
            await client.send_message(text)
            assert await client.get_message() == text.upper()
        assert client.subprotocol == "a"
        assert door.door.snapshot().active == 1
        await client.aclose()
        await door.ended()
    assert (echo.requests[0].path, echo.requests[0].query) == ("/v1", "a=b")
    assert echo.ended == ["PeerGone"]
    assert door.records[0].ending == "upgraded"
    assert not door.faults


@each_door
async def test_the_server_closes_with_its_code(kind: str) -> None:
    async with open_kind(kind, Echo()) as door, connected(door) as client:
        await client.send_message("close")
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert (caught.value.reason.code, caught.value.reason.reason) == (4001, "as you say")
        await door.ended()
    assert not door.faults


@each_door
async def test_a_bug_closes_with_1011_and_is_told(kind: str) -> None:
    async with open_kind(kind, Echo()) as door, connected(door) as client:
        await client.send_message("fail")
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1011
        await door.ended()
    assert len(door.faults) == 1


@each_door
async def test_a_client_that_vanishes(kind: str) -> None:
    echo = Echo()
    async with open_kind(kind, echo) as door, connected(door) as client:
        await client.send_message("a")
        assert await client.get_message() == "A"
        door.hang_up()
        await door.ended()
    assert echo.ended == ["PeerGone"]


@each_door
async def test_a_message_over_the_limit_ends_the_connection(kind: str) -> None:
    async with open_kind(kind, Echo(WebSocketSettings(message=1000, close=0.2))) as door, connected(door) as client:
        await client.send_message("x" * 1000)
        assert len(await client.get_message()) == 1000
        await client.send_message("x" * 1001)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009
        await door.ended()


@each_door
async def test_a_client_that_reads_nothing_is_cut(kind: str) -> None:
    settings = WebSocketSettings(write=0.3, close=0.2)
    raised: list[str] = []

    async def handler(exchange: Exchange) -> None:
        async with accept(exchange, settings) as socket:
            try:
                while True:
                    await socket.send("x" * 100_000)
            except KirostreamError as error:
                raised.append(type(error).__name__)

    deadline: dict[str, Any] = {} if kind == "http1" else {"write_deadline": 0.3}
    async with open_kind(kind, handler, **deadline) as door:
        stream = await door.stream(receive_buffer=4096)
        await stream.send_all(
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await door.ended()
    assert raised == ["PeerStalled"]


@each_door
async def test_a_refusal_of_the_handshake_has_its_status(kind: str) -> None:
    async with open_kind(kind, Echo()) as door:
        stream = await door.stream()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-key: wrong\r\n\r\n"
        )
        received = b""
        while not received.endswith(b"That is not the key.\n"):
            received += await stream.receive_some(1000)
        assert received.startswith(b"HTTP/1.1 401")
        await door.ended()
    assert (door.records[0].status, door.records[0].ending) == (401, "whole")


@each_door
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_asks_for_no_websocket_gets_426(kind: str, method: str) -> None:
    async with open_kind(kind, Echo()) as door:
        talk = await door.talk()
        upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n" if method == "POST" and kind != "http1" else ""
        head = f"{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n{upgrade}\r\n"
        await talk.send(head.encode())
        assert (await talk.answer()).status == 426


@each_door
async def test_a_foreign_client_of_another_library(kind: str) -> None:
    """`websockets` offers compression, which door 2 agrees on and door 1 does not."""

    def foreign(port: int) -> None:
        context = trusting() if kind == "tls" else None
        url = f"ws{'s' if kind == 'tls' else ''}://127.0.0.1:{port}/v1"
        with websockets.sync.client.connect(url, ssl=context, max_size=None) as client:
            for text in ("hello", "é 日本 😀", "x" * 300_000):
                client.send(text)
                assert client.recv(timeout=20) == text.upper()
            client.send(["in ", "many ", "fragments"])
            assert client.recv(timeout=20) == "IN MANY FRAGMENTS"
            client.ping().wait(20)
            client.send("close")
            with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
                client.recv(timeout=20)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4001
        since = time.monotonic()
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            websockets.sync.client.connect(url, ssl=context, additional_headers={"x-key": "wrong"})
        assert refused.value.response.status_code == 401
        assert time.monotonic() - since < 20

    async with open_kind(kind, Echo()) as door:
        await trio.to_thread.run_sync(foreign, door.port)
    assert not door.faults


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_is_read_back(size: int) -> None:
    assert text_in(text_frame(b"x" * size)) == "x" * size


@pytest.mark.parametrize("kind", ["asgi", "tls"])
async def test_the_server_pings_and_hears_of_the_end(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        async with accept(exchange, WebSocketSettings()) as socket, trio.open_nursery() as nursery:
            nursery.start_soon(socket.keep_alive)
            with pytest.raises(PeerGone):
                await socket.receive()
            nursery.cancel_scope.cancel()

    async with open_kind(kind, handler, ping=0.05) as door:
        stream = await door.stream()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        received = b""
        while received.count(b"\x89\x00") < 3:
            received += await stream.receive_some(1000)
        door.hang_up()
        await door.ended()
        with trio.fail_after(5):
            while door.door.snapshot().connections:
                await trio.sleep(0.002)
