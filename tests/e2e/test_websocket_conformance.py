"""RFC 6455 on our two WebSocket paths: foreign clients, and frames that no client library would send.

Against a gateway in this process, so that a test can see what is left of a connection that is over.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from e2e.test_faults import running, until
from helpers.rawsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Heard, RawSocket, close, dialled, frame
from kirostream.app import Gateway
from kirostream.running import drain

STREAM, RESPONSES = "/v1/stream", "/v1/responses"
KEY = "k"
both = pytest.mark.parametrize("path", [STREAM, RESPONSES])


def ask(path: str, said: str) -> dict[str, Any]:
    """A message that starts an answer."""
    if path == RESPONSES:
        content = [{"type": "message", "role": "user", "content": said}]
        return {"type": "response.create", "model": "auto", "input": content, "store": False}
    request = {"model": "auto", "max_tokens": 100_000, "messages": [{"role": "user", "content": said}]}
    return {"op": "start", "ref": 1, "dialect": "anthropic", "request": request}


def is_last(message: dict[str, Any]) -> bool:
    return message.get("op") == "ended" or message.get("type") == "response.completed"


def is_error(message: dict[str, Any]) -> bool:
    return "error" in (message.get("op"), message.get("type"))


def text_of(messages: list[dict[str, Any]]) -> str:
    deltas = [message["delta"] for message in messages if message.get("type") == "response.output_text.delta"]
    for message in messages:
        for event in message.get("data", []):
            deltas += [event["delta"]["text"]] if event["type"] == "content_block_delta" else []
    return "".join(deltas)


async def heard(socket: RawSocket) -> list[dict[str, Any]]:
    """The messages of one answer."""
    messages = [await socket.message()]
    while not is_last(messages[-1]):
        messages.append(await socket.message())
    return messages


def open_sockets() -> int:
    """Those of this process, where the platform tells. A log file may be opened meanwhile."""
    folder = Path("/proc/self/fd")
    links = [folder / name for name in os.listdir(folder)] if folder.is_dir() else []
    return sum(link.is_symlink() and os.readlink(link).startswith("socket:") for link in links)


def tasks() -> int:
    def count(task: trio.lowlevel.Task) -> int:
        return 1 + sum(count(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return count(root)


@asynccontextmanager
async def nothing_left(tmp_path: Path, **changes: object) -> AsyncIterator[Gateway]:
    """A gateway on which, in the end, no turn, no task and no socket is left."""
    async with running(tmp_path, **changes) as (gateway, _):
        async with dialled(gateway.url, STREAM, KEY) as first:  # what is made once is made now
            await first.say(ask(STREAM, "[[say:hi]]"))
            await heard(first)
            await first.send(close(1000))
            await first.until_closed()
        await until(lambda: gateway.door.snapshot().connections == 0)
        before = tasks(), open_sockets()
        yield gateway
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        await until(lambda: gateway.door.snapshot().connections == 0)
        await until(lambda: (tasks(), open_sockets()) <= before)


HELLO = "日本 😀".encode()
BROKEN = [
    ("a reserved opcode", frame(3, b"x"), 1002),
    ("a reserved control opcode", frame(11), 1002),
    ("reserved bit 1, which was not agreed on", frame(TEXT, b"{}", rsv=4), 1002),
    ("reserved bit 2", frame(TEXT, b"{}", rsv=2), 1002),
    ("reserved bit 3", frame(PING, b"", rsv=1), 1002),
    ("no mask", frame(TEXT, b"{}", masked=False), 1002),
    ("a ping without a mask", frame(PING, b"x", masked=False), 1002),
    ("a fragmented ping", frame(PING, b"x", fin=False), 1002),
    ("a ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("a continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("a new message within a message", frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    ("a length in more bytes than needed", b"\x81\xfe\x00\x05\x00\x00\x00\x00hello", 1002),
    ("a length in far more bytes than needed", b"\x81\xff" + b"\x00" * 7 + b"\x05\x00\x00\x00\x00hello", 1002),
    ("a length below zero", b"\x81\xff\xff" + b"\x00" * 7 + b"\x00\x00\x00\x00", 1002),
    ("text that is no UTF-8", frame(TEXT, b"\xff\xfe"), 1007),
    ("half a character at the end of a text", frame(TEXT, HELLO[:-1]), 1007),
    ("a surrogate in UTF-8", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("an overlong slash", frame(TEXT, b"\xc0\xaf"), 1007),
    ("no UTF-8 in the second fragment", frame(TEXT, b"{", fin=False) + frame(CONTINUATION, b"\xff"), 1007),
    ("a reason that is no UTF-8", close(1000, b"\xff"), 1007),
    ("half a close code", frame(CLOSE, b"\x03"), 1002),
    *((f"close code {code}", close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
    ("a close of 126 bytes", close(1000, b"x" * 124), 1002),
]


@both
async def test_who_breaks_the_protocol_is_told_how(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway:
        for name, sent, code in BROKEN:
            for behind in (b"", frame(TEXT, b"{}") * 3, frame(PING) * 3):
                async with dialled(gateway.url, path, KEY) as socket:
                    await socket.send(sent + behind)
                    assert await socket.until_closed() == code, name


@both
async def test_a_violation_during_an_answer_ends_it(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path, relay__turns__linger=0.05) as gateway:
        for sent, code in ((frame(TEXT, b"\xff"), 1007), (frame(3), 1002), (close(1000), 1000)):
            async with dialled(gateway.url, path, KEY) as socket:
                await socket.say(ask(path, "[[slow:5]][[tokens:5000]]"))
                while not text_of([await socket.message()]):
                    pass
                await socket.send(sent)
                assert await socket.until_closed() == code
            await until(lambda: gateway.relay.snapshot().in_flight == 0)


@both
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4999])
async def test_a_close_is_answered_with_its_code(path: str, code: int, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway, dialled(gateway.url, path, KEY) as socket:
        await socket.send(close(code, "wegen Übermüdung".encode()))
        assert await socket.until_closed() == code


@both
async def test_a_close_without_a_code_and_what_comes_behind_a_close(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway:
        for sent in (frame(CLOSE), frame(CLOSE) + frame(TEXT, b"{}") + frame(PING) + frame(3)):
            async with dialled(gateway.url, path, KEY) as socket:
                await socket.send(sent)
                assert await socket.until_closed() == 1005


@both
async def test_fragments_and_pings_between_them(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway, dialled(gateway.url, path, KEY) as socket:
        message = json.dumps(ask(path, f"[[say:{HELLO.decode()}]]"), ensure_ascii=False).encode()
        await socket.send(frame(TEXT, b"", fin=False))
        for at, byte in enumerate(message):  # also within a character
            await socket.send(frame(CONTINUATION, bytes((byte,)), fin=False))
            if at % 40 == 0:
                await socket.send(frame(PING, b"%d" % at) + frame(PONG, b"nobody asked"))
                assert (await socket.hear()).payload == b"%d" % at
        await socket.send(frame(CONTINUATION, b""))
        assert text_of(await heard(socket)) == HELLO.decode()


@both
async def test_frames_byte_by_byte_and_all_at_once(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway:
        message = frame(PING, b"x" * 125) + frame(TEXT, json.dumps(ask(path, "[[say:slow]]")).encode())
        async with dialled(gateway.url, path, KEY) as socket:
            for byte in message:
                await socket.send(bytes((byte,)))
            assert await socket.hear() == Heard(PONG, b"x" * 125)
            assert text_of(await heard(socket)) == "slow"
            await socket.send(message + frame(PING) + close(1000))
            assert await socket.until_closed() == 1000


@both
async def test_a_message_in_bytes_is_read_as_text_is(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway, dialled(gateway.url, path, KEY) as socket:
        await socket.send(frame(BINARY, json.dumps(ask(path, "[[say:bytes]]")).encode()))
        assert text_of(await heard(socket)) == "bytes"
        for nonsense in (b"\xff\xfe\x00", b"", b"\x00" * 70_000):
            await socket.send(frame(BINARY, nonsense))
            assert is_error(await socket.message())


@both
async def test_a_message_over_the_limit(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path, websocket__connection__message=5000) as gateway:
        large = frame(TEXT, b"x" * 3000, fin=False)
        for sent in (
            frame(TEXT, b"x" * 5001),
            large + frame(CONTINUATION, b"x" * 2001),
            large * 1 + frame(CONTINUATION, b"x" * 2001, fin=False) + frame(PING) + frame(TEXT, b"x" * 5001),
            frame(TEXT, b"x" * 3_000_000),
            frame(BINARY, b"x" * 5001) + frame(PING, b"still there?") * 100,
        ):
            async with dialled(gateway.url, path, KEY) as socket:
                await socket.send(sent)
                assert await socket.until_closed() == 1009
        async with dialled(gateway.url, path, KEY) as socket:
            await socket.send(frame(TEXT, b" " * 4999 + b"x"))
            assert is_error(await socket.message())


@both
async def test_a_flood_of_pings_is_answered_or_held_back(path: str, tmp_path: Path) -> None:
    async with (
        nothing_left(tmp_path) as gateway,
        dialled(gateway.url, path, KEY) as socket,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(socket.send, frame(PING, b"flood") * 3_000)
        pongs = 0
        while pongs < 3_000:
            answer = await socket.hear()
            if answer.opcode == PONG:
                assert answer.payload == b"flood"
                pongs += 1


@both
async def test_a_flood_of_pings_from_who_reads_no_pong_ends_by_the_deadline(path: str, tmp_path: Path) -> None:
    changes = {"websocket__connection__ping": 0.1, "websocket__connection__pong": 0.3}
    async with (
        nothing_left(tmp_path, websocket__connection__close=0.2, **changes) as gateway,
        dialled(gateway.url, path, KEY, receive_buffer=4096) as socket,
    ):
        pings = frame(PING, b"x" * 125) * 1000
        with suppress(trio.BrokenResourceError):
            while True:
                await socket.send(pings)


@both
async def test_who_answers_no_ping_is_gone_by_the_deadline(path: str, tmp_path: Path) -> None:
    changes = {"websocket__connection__ping": 0.1, "websocket__connection__pong": 0.2}
    async with (
        nothing_left(tmp_path, relay__turns__linger=0.05, **changes) as gateway,
        dialled(gateway.url, path, KEY) as socket,
    ):
        await socket.say(ask(path, "[[slow:100]][[tokens:5000]]"))
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        await until(lambda: gateway.relay.snapshot().started == 2)


@both
async def test_who_reads_nothing_is_cut_by_the_deadline(path: str, tmp_path: Path) -> None:
    changes = {"websocket__connection__write": 0.3, "websocket__connection__close": 0.2}
    async with (
        nothing_left(tmp_path, relay__turns__linger=0.05, **changes) as gateway,
        dialled(gateway.url, path, KEY, receive_buffer=4096) as socket,
    ):
        await socket.say(ask(path, "[[chunk:16]][[tokens:120000]]"))
        await until(lambda: gateway.relay.snapshot().started == 2)
        await until(lambda: gateway.relay.snapshot().in_flight == 0, within=15)
        await until(lambda: gateway.door.snapshot().connections == 0)


@both
async def test_many_that_come_and_go_leave_nothing(path: str, tmp_path: Path) -> None:
    changes = {"websocket__connection__close": 0.3}
    async with nothing_left(tmp_path, relay__turns__linger=0.05, **changes) as gateway:

        async def come_and_go(number: int) -> None:
            async with dialled(gateway.url, path, KEY) as socket:
                if number % 5:
                    await socket.say(ask(path, "[[slow:20]][[tokens:1000]]"))
                if number % 5 > 1:
                    await socket.message()
                if number % 5 > 2:
                    await socket.send(close(1000))
                if number % 5 > 3:
                    await socket.until_closed()

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(25):
                    nursery.start_soon(come_and_go, number)
        for _ in range(20):  # the handshake's answer finds nobody
            raw = await trio.open_tcp_stream("127.0.0.1", int(gateway.url.rpartition(":")[2]))
            head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            head += f"sec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\nauthorization: Bearer k\r\n\r\n"
            await raw.send_all(head.encode() + frame(TEXT, b"{}"))
            await trio.aclose_forcefully(raw)
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        gc.collect()


@both
async def test_a_stop_says_so_also_to_who_pings_meanwhile(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway, dialled(gateway.url, path, KEY) as socket:
        await socket.send(frame(PING, b"1"))
        await socket.hear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, gateway, 5.0)
            assert (await socket.hear()).code == 1001
            began = trio.current_time()
            await socket.send(frame(PING, b"2") + frame(TEXT, b"{}") + close(1001))
            assert await socket.stream.receive_some() == b""
            assert trio.current_time() - began < 2
            await socket.stream.aclose()


# Foreign clients


def websockets_client(gateway: Gateway, path: str, **more: Any) -> ClientConnection:
    url = gateway.url.replace("http", "ws", 1) + path
    client: ClientConnection = connect(url, additional_headers={"authorization": f"Bearer {KEY}"}, **more)
    return client


@both
async def test_the_client_of_websockets(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway:

        def talk() -> None:
            with websockets_client(gateway, path) as client:
                assert client.response is not None
                assert "sec-websocket-extensions" not in client.response.headers  # it offers permessage-deflate
                assert client.protocol.extensions == []
                for sent in (ask(path, "[[say:hello]]"), ask(path, f"[[say:{HELLO.decode()}]]{' x' * 100_000}")):
                    client.send(json.dumps(sent))
                    messages = [json.loads(client.recv(10))]
                    while not is_last(messages[-1]):
                        messages.append(json.loads(client.recv(10)))
                    assert text_of(messages) in ("hello", HELLO.decode())
                client.send(['{"op":', '"dance"', "}"])  # in fragments
                assert is_error(json.loads(client.recv(10)))
                assert client.ping().wait(10)
            assert (client.close_code, client.protocol.close_rcvd_then_sent) == (1000, False)

        await trio.to_thread.run_sync(talk)


@both
async def test_the_client_of_websockets_is_told_why(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path, websocket__connection__message=1000) as gateway:

        def talk(message: str | bytes, code: int) -> None:
            with websockets_client(gateway, path) as client:
                client.send(message, text=True)
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(10)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == code

        await trio.to_thread.run_sync(talk, "x" * 500_000, 1009)
        await trio.to_thread.run_sync(talk, b"\xff", 1007)


@both
async def test_the_client_of_trio_websocket(path: str, tmp_path: Path) -> None:
    async with nothing_left(tmp_path) as gateway:
        url = gateway.url.replace("http", "ws", 1) + path
        headers = [(b"authorization", b"Bearer k")]
        async with trio_websocket.open_websocket_url(url, extra_headers=headers) as client:
            await client.send_message(json.dumps(ask(path, "[[say:hello]]")))
            messages = [json.loads(await client.get_message())]
            while not is_last(messages[-1]):
                messages.append(json.loads(await client.get_message()))
            assert text_of(messages) == "hello"
            await client.ping(b"x")
            await client.pong(b"unasked")
            await client.aclose(4000, "enough")
        assert client.closed is not None
        assert client.closed.code == 4000
