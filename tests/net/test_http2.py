"""Door 2 over HTTP/2: many exchanges on one connection, none of which may cost another.

The clients are httpx, curl where it is installed, and the h2 library where a client has to be rude.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio

from helpers.certs import certificate, trusting
from helpers.doors import OpenDoor, open_kind
from kirostream.errors import UnknownModel
from kirostream.net.exchange import Exchange
from kirostream.net.websocket import WebSocketSettings, accept

LIMIT = 1 << 20


class Rude:
    """One connection, frame by frame. It opens its windows only when told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.heard: dict[int, list[Any]] = {}

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def ask(self, path: str, *, method: str = "GET", ends: bool = True, more: list[tuple[str, str]] = []) -> int:  # noqa: B006
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "x"), (":path", path), *more]
        self.h2.send_headers(number, head, end_stream=ends)
        self.heard[number] = []
        await self.flush()
        return number

    async def hear(self) -> None:
        """Take what comes next."""
        for event in self.h2.receive_data(bytes(await self.stream.receive_some(65536))):
            self.heard.setdefault(getattr(event, "stream_id", None) or 0, []).append(event)
        await self.flush()

    async def until(self, number: int, *kinds: type) -> Any:
        """The first event of one of these kinds on a stream."""
        while True:
            for event in self.heard[number]:
                if isinstance(event, kinds):
                    return event
            await self.hear()

    def data(self, number: int) -> bytes:
        return b"".join(event.data for event in self.heard[number] if isinstance(event, h2.events.DataReceived))

    async def whole(self, number: int) -> bytes:
        await self.until(number, h2.events.StreamEnded)
        return self.data(number)


@asynccontextmanager
async def rude(door: OpenDoor) -> AsyncIterator[Rude]:
    tcp = await trio.open_tcp_stream("127.0.0.1", door.port)
    stream = trio.SSLStream(tcp, trusting("h2"), server_hostname="127.0.0.1", https_compatible=True)
    async with tcp:
        client = Rude(stream)
        await client.flush()
        yield client


async def by_path(exchange: Exchange) -> None:
    match exchange.request.path:
        case "/stream":
            await exchange.start(200, [(b"connection", b"keep-alive")], b"zero")
            for part in (b"one", b"two"):
                await exchange.send(part)
            await exchange.finish(b"three")
        case "/abort":
            await exchange.start(200, [], b"part")
            exchange.abort()
        case "/late":
            await exchange.start(200, [], b"part")
            raise UnknownModel("late")
        case "/wait":
            await exchange.start(200, [], b"part")
            await trio.sleep_forever()
        case "/flood":
            await exchange.start(200, [])
            while True:
                await exchange.send(bytes(1 << 14))
        case "/refused":
            await exchange.reply(426, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")], b"no")
        case "/early":
            await exchange.reply(401, [], b"no")
        case _:
            await exchange.reply(200, [], exchange.request.method.encode() + b" " + await exchange.body(LIMIT))


async def test_many_at_once_on_one_connection_with_httpx() -> None:
    async with (
        open_kind("tls", by_path) as door,
        httpx.AsyncClient(http2=True, verify=trusting("h2"), base_url=door.url, timeout=20) as client,
    ):
        answers: list[httpx.Response] = []

        async def one(number: int) -> None:
            content = b"x" * (number * 1000)
            response = await client.post("/", content=content)
            assert (response.http_version, response.content) == ("HTTP/2", b"POST " + content)
            answers.append(response)

        await client.get("/")
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(one, number)
        assert len(answers) == 60
        assert (await client.get("/stream")).content == b"zeroonetwothree"
        head = await client.head("/")
        assert (head.headers["content-length"], head.content) == ("5", b"")
        assert (await client.get("/refused")).status_code == 426
        assert door.door.snapshot().connections == 1
    assert {record.ending for record in door.records} == {"whole"}


async def test_the_same_in_the_clear_by_prior_knowledge() -> None:
    async with (
        open_kind("asgi", by_path) as door,
        httpx.AsyncClient(http1=False, http2=True, base_url=door.url, timeout=20) as client,
    ):
        response = await client.post("/", content=b"x" * 200_000)
        assert (response.http_version, len(response.content)) == ("HTTP/2", 200_005)


@pytest.mark.parametrize("args", [["--http2"], ["--http1.1"], ["--http1.0"]])
async def test_with_curl(args: list[str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    async with open_kind("tls", by_path) as door:
        command = ["curl", "-sS", "--max-time", "20", "--cacert", certificate()[0], *args]
        done = await trio.run_process([*command, f"{door.url}/stream"], capture_stdout=True)
        assert done.stdout == b"zeroonetwothree"
        done = await trio.run_process([*command, "-d", "hello", door.url], capture_stdout=True)
        assert done.stdout == b"POST hello"
        done = await trio.run_process([*command, f"{door.url}/late"], capture_stdout=True, check=False)
        assert done.returncode in (18, 56, 92)  # the body is not whole


@pytest.mark.parametrize("path", ["/abort", "/late"])
async def test_a_cut_answer_is_a_reset_stream_and_the_others_go_on(path: str) -> None:
    async with open_kind("tls", by_path) as door, rude(door) as client:
        other = await client.ask("/wait")
        await client.until(other, h2.events.DataReceived)
        cut = await client.ask(path)
        await client.until(cut, h2.events.StreamReset)
        assert not any(isinstance(event, h2.events.StreamEnded) for event in client.heard[cut])
        third = await client.ask("/stream")
        assert await client.whole(third) == b"zeroonetwothree"
        assert door.door.snapshot().active == 1
    assert door.records[0].ending == "cut"
    assert not door.faults


async def test_a_stream_that_the_client_resets_cancels_its_handler_alone() -> None:
    async with open_kind("tls", by_path) as door, rude(door) as client:
        gone, stays = await client.ask("/wait"), await client.ask("/wait")
        for number in (gone, stays):
            await client.until(number, h2.events.DataReceived)
        client.h2.reset_stream(gone)
        await client.flush()
        await door.ended()
        assert (door.records[0].ending, door.door.snapshot().active) == ("gone", 1)
        assert await client.whole(await client.ask("/stream")) == b"zeroonetwothree"


async def test_a_client_that_opens_no_window_loses_that_stream_alone() -> None:
    async with open_kind("tls", by_path, write_deadline=0.2) as door, rude(door) as client:
        client.h2.increment_flow_control_window(1 << 20)  # of the connection; a stream has 64 KiB
        stalled = await client.ask("/flood")
        await client.until(stalled, h2.events.StreamReset)
        assert len(client.data(stalled)) == 65535
        assert await client.whole(await client.ask("/stream")) == b"zeroonetwothree"
        assert door.door.snapshot().evicted == 1
    assert door.records[0].ending == "stalled"
    assert not door.faults


async def test_a_connection_that_breaks_within_a_send_does_not_keep_its_handler() -> None:
    async with open_kind("tls", by_path, write_deadline=25) as door:
        async with rude(door) as client:
            stalled = await client.ask("/flood")
            while len(client.data(stalled)) < 65535:
                await client.hear()
        with trio.fail_after(5):
            await door.ended()
    assert door.records[0].ending == "gone"


async def test_data_behind_an_early_answer_costs_nobody_the_connection() -> None:
    async with open_kind("tls", by_path, linger=0.1) as door, rude(door) as client:
        upload = await client.ask("/early", method="POST", ends=False)
        client.h2.send_data(upload, bytes(1000))
        await client.flush()
        assert await client.whole(upload) == b"no"
        await client.until(upload, h2.events.StreamReset)
        raw = bytes([0, 0, 5, 0, 0]) + upload.to_bytes(4, "big") + b"hello"  # what was under way
        await client.stream.send_all(raw)
        assert await client.whole(await client.ask("/stream")) == b"zeroonetwothree"
    assert not door.faults


async def test_a_broken_connection_takes_no_other_with_it() -> None:
    async with open_kind("tls", by_path) as door, rude(door) as client:
        for garbage in (
            bytes([0, 0, 5, 1, 5, 0, 0, 0, 1]) + b"\xff" * 5,
            bytes([0, 0, 5, 0, 0, 0, 0, 0, 99]) + b"hello",
        ):
            async with rude(door) as broken:
                await broken.stream.send_all(garbage)
                try:
                    while await broken.stream.receive_some(1000):
                        pass
                except trio.BrokenResourceError:
                    pass
        assert await client.whole(await client.ask("/")) == b"GET "


async def test_a_websocket_over_http_2() -> None:
    """RFC 8441, with frames by hand."""
    ended = trio.Event()

    async def handler(exchange: Exchange) -> None:
        async with accept(exchange, WebSocketSettings()) as socket:
            message = await socket.receive()
            assert isinstance(message, str)
            await socket.send(message.upper())
        ended.set()

    async with open_kind("tls", handler) as door, rude(door) as client:
        while client.h2.remote_settings.enable_connect_protocol != 1:
            await client.hear()
        more = [(":protocol", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "a")]
        number = await client.ask("/ws?x=y", method="CONNECT", ends=False, more=more)
        head = await client.until(number, h2.events.ResponseReceived)
        assert (":status", "200") in head.headers
        assert ("sec-websocket-protocol", "a") in head.headers
        client.h2.send_data(number, b"\x81\x82\x00\x00\x00\x00hi")
        await client.flush()
        while b"\x81\x02HI" not in client.data(number):
            await client.hear()
        client.h2.send_data(number, b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        await client.flush()
        await ended.wait()
    assert door.records[0].ending == "upgraded"
    assert not door.faults
