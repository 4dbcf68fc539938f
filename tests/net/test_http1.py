"""Door 1 from the client's side: raw bytes in, answers by h11's client half out.

Memory streams and the jumping clock, except where a socket is the point; then port 0 on the loopback.
"""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import socket
from collections.abc import Awaitable, Callable

import h11
import pytest
import trio
import trio.testing
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cancel import every_checkpoint
from helpers.talk import Answer, DoorUnderTest, Talk, open_door
from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    MalformedRequest,
    MethodNotAllowed,
    RequestTooSlow,
    SettingsError,
    UnknownModel,
    UpstreamOverloaded,
)
from kirostream.net.door import DoorSnapshot, open_listeners, plain_refusal
from kirostream.net.exchange import Exchange, Headers, HttpRequest, Part, PeerGone, PeerStalled
from kirostream.net.http1 import Http1Door, Http1Settings
from kirostream.net.quick import write_each

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT = 1 << 20


def post(body: bytes, *headers: bytes, length: bool = True) -> bytes:
    lines = [b"POST / HTTP/1.1", b"host: x", *headers, *([b"content-length: %d" % len(body)] if length else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def echo(exchange: Exchange) -> None:
    await exchange.reply(200, [], exchange.request.method.encode() + b" " + await exchange.body(LIMIT))


async def three_parts(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-type", b"text/event-stream")])
    for part in (b"one", b"", b"two", b"three"):
        await exchange.send(part)
    await exchange.finish()


def undated(wire: bytes) -> bytes:
    """Without the one line that differs from run to run."""
    return b"\r\n".join(line for line in wire.split(b"\r\n") if not line.startswith(b"date: "))


# Framing.


async def test_a_reply_on_the_wire() -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        wire = await talk.closed()
    assert undated(wire) == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nConnection: close\r\n\r\nGET "
    assert b"\r\ndate: " in wire


async def test_a_chunked_answer_on_the_wire() -> None:
    async with open_door(three_parts) as under_test:
        talk = under_test.talk()
        await talk.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        wire = await talk.closed()
    head, _, body = wire.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


async def test_every_framing_leaves_the_connection_usable() -> None:
    async def counted(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-length", b"6")])
        await exchange.send(b"abc")
        await exchange.send(b"def")
        await exchange.finish()

    async def no_content(exchange: Exchange) -> None:
        await exchange.reply(204, [], b"")

    async def not_modified(exchange: Exchange) -> None:
        await exchange.start(304, [(b"etag", b'"1"')])
        await exchange.send(b"left out")
        await exchange.finish()

    handlers = {"/echo": echo, "/parts": three_parts, "/counted": counted, "/204": no_content, "/304": not_modified}

    async def by_path(exchange: Exchange) -> None:
        await handlers[exchange.request.path](exchange)

    async with open_door(by_path) as under_test:
        talk = under_test.talk()
        for method in ("GET", "HEAD", "GET"):
            for path, status, body in [
                ("/echo", 200, b"GET "),
                ("/parts", 200, b"onetwothree"),
                ("/counted", 200, b"abcdef"),
                ("/204", 204, b""),
                ("/304", 304, b""),
            ]:
                await talk.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                answer = await talk.answer(method)
                assert (answer.status, answer.body) == (status, b"" if method == "HEAD" else body)
        assert b"content-length" not in answer.headers  # the 304
        await trio.testing.wait_all_tasks_blocked()
        assert under_test.door.snapshot() == DoorSnapshot(1, 0, 15, 0, 0, 0, stopping=False)
    assert {record.ending for record in under_test.records} == {"whole"}


async def test_a_head_request_keeps_the_length_and_has_no_body() -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        wire = await talk.closed()
    assert b"content-length: 5\r\n" in wire
    assert wire.endswith(b"\r\n\r\n")
    assert under_test.records[0].sent == 0


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection() -> None:
    async with open_door(three_parts) as under_test:
        talk = under_test.talk()
        await talk.send(b"GET / HTTP/1.0\r\n\r\n")
        wire = await talk.closed()
    head, _, body = wire.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == b"onetwothree"


@pytest.mark.parametrize("parts", [[b"abcd", b"efg"], [b"ab"]], ids=["too much", "too little"])
async def test_a_body_of_another_length_than_declared_is_cut(parts: list[bytes]) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-length", b"6")])
        for part in parts:
            await exchange.send(part)
        await exchange.finish()

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        with pytest.raises(h11.RemoteProtocolError):
            await talk.answer()
    assert isinstance(under_test.faults[0], LocalProtocolError)
    assert under_test.records[0].ending == "cut"


async def test_the_handlers_date_wins() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [(b"date", b"long ago")], b"")

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await talk.closed()).count(b"date: ") == 1


# Requests.


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("/", "/", ""),
        ("*", "*", ""),
        ("http://host:80/a?b", "/a", "b"),
        ("HTTPS://host", "/", ""),
        ("/a%2Fb%20c", "/a%2Fb%20c", ""),
        ("//x/y", "//x/y", ""),
    ],
)
async def test_what_a_handler_sees_of_a_request(target: str, path: str, query: str) -> None:
    seen: list[HttpRequest] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.request)
        await exchange.reply(200, [], b"")

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nX-Key: secret\r\n\r\n".encode())
        await talk.answer()
    assert seen[0] == HttpRequest("OPTIONS", path, query, ((b"host", b"x"), (b"x-key", b"secret")), "memory")
    assert seen[0].header(b"x-key") == b"secret"
    assert seen[0].header(b"x-other") is None
    assert "secret" not in repr(seen[0])


BROKEN = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n folded\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nhost: x\r\n\r\n",
    "both framings": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, the other way round": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"
    ),
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a list of lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3, 4\r\n\r\nabcd",
    "a length with a sign": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc",
    "a length below zero": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\nabc",
    "a length of a hundred digits": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 100 + b"\r\n\r\n",
    "another transfer coding": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_request_gets_400_and_a_close(wire: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(wire)
        answer = await talk.answer()
        assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
        assert await talk.closed() == b""
        assert trio.current_time() == pytest.approx(0), "the client had to wait for the end"
        assert under_test.door.snapshot().refused == 1
    assert not under_test.faults
    assert under_test.records[0].request is None
    assert isinstance(under_test.records[0].error, MalformedRequest)


@pytest.mark.parametrize("ending", [b"", b"\r\n\r\n"], ids=["without end", "whole"])
@pytest.mark.parametrize("padding", [b"GET /" + b"a" * 5000, b"GET / HTTP/1.1\r\nhost: x\r\ny: " + b"a" * 5000])
async def test_a_head_over_the_limit(padding: bytes, ending: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo, Http1Settings(max_head=4000)) as under_test:
        talk = under_test.talk()
        await talk.send(padding + (b" HTTP/1.1\r\nhost: x" if b"HTTP" not in padding else b"") + ending)
        assert (await talk.answer()).status == 413
        assert await talk.closed() == b""


async def test_too_many_headers() -> None:
    async with open_door(echo, Http1Settings(max_headers=10)) as under_test:
        talk = under_test.talk()
        await talk.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 9 + b"\r\n")
        assert (await talk.answer()).status == 200
        await talk.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 10 + b"\r\n")
        assert (await talk.answer()).status == 413


async def test_blank_lines_before_a_request_are_skipped() -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        for part in (b"\r", b"\n", b"\r\n\r\n" + GET):
            await talk.send(part)
            await trio.testing.wait_all_tasks_blocked()
        assert (await talk.answer()).status == 200


# Bodies.


@pytest.mark.parametrize(
    "wire",
    [
        post(b"hello world"),
        post(
            b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\ntrailer: x\r\n\r\n", b"transfer-encoding: chunked", length=False
        ),
        post(gzip.compress(b"hello world"), b"content-encoding: gzip"),
        post(zstandard.compress(gzip.compress(b"hello world")), b"content-encoding: gzip, zstd"),
        post(b"hello world", b"content-encoding: identity"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_body_comes_whole_however_it_is_cut(wire: bytes, size: int) -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        for _ in range(2):
            for at in range(0, len(wire), size):
                await talk.send(wire[at : at + size])
                await trio.testing.wait_all_tasks_blocked()
            assert (await talk.answer()).body == b"POST hello world"


async def test_an_encoded_body_of_nothing_is_nothing() -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(post(b"", b"content-encoding: gzip"))
        assert (await talk.answer()).body == b"POST "


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (post(b"x" * (LIMIT + 1)), 413),
        (post(b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1), b"transfer-encoding: chunked", length=False), 413),
        (post(gzip.compress(bytes(LIMIT + 1)), b"content-encoding: gzip"), 413),
        (post(zstandard.compress(bytes(50 * LIMIT)), b"content-encoding: zstd"), 413),
        (post(b"not gzip", b"content-encoding: gzip"), 400),
        (post(b"x", b"content-encoding: lzma"), 400),
        (post(b"zz\r\n", b"transfer-encoding: chunked", length=False), 400),
        (post(b"3\r\nabcX", b"transfer-encoding: chunked", length=False), 400),
    ],
    ids=[
        "declared",
        "chunked",
        "gzip bomb",
        "zstd bomb",
        "not gzip",
        "unknown coding",
        "no chunk size",
        "no chunk end",
    ],
)
async def test_a_body_that_cannot_be_had(wire: bytes, status: int, autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(wire)
        assert (await talk.answer()).status == status
    assert not under_test.faults


async def test_a_body_is_read_once() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.body(LIMIT)
        with pytest.raises(LocalProtocolError, match="twice"):
            await exchange.body(LIMIT)
        await exchange.reply(200, [], b"")

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(post(b"x"))
        assert (await talk.answer()).status == 200


async def does_not_read(exchange: Exchange) -> None:
    await exchange.reply(401, [], b"no")


@pytest.mark.parametrize("late", [False, True])
async def test_a_small_body_nobody_read_is_skipped(late: bool) -> None:
    async with open_door(does_not_read) as under_test:
        talk = under_test.talk()
        for _ in range(2):
            wire = post(b"x" * 100)
            await talk.send(wire[:-50] if late else wire)
            answer = await talk.answer()
            assert (answer.status, b"connection" in answer.headers) == (401, False)
            await talk.send(wire[-50:] if late else b"")
        assert under_test.door.snapshot().connections == 1


@pytest.mark.parametrize(
    "wire",
    [
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 101\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
    ],
    ids=["large", "of unknown size", "not sent yet"],
)
async def test_another_body_nobody_read_ends_the_connection(wire: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with open_door(does_not_read, Http1Settings(max_unread=100)) as under_test:
        talk = under_test.talk()
        await talk.send(wire)
        answer = await talk.answer()
        assert (answer.status, answer.headers[b"connection"], answer.interim) == (401, b"close", [])
        assert await talk.closed() == b""
        assert trio.current_time() == pytest.approx(0), "the client had to wait for the end"


async def test_an_answer_to_a_client_that_still_sends_arrives() -> None:
    """Over a real socket: a close with unread bytes would reset it, and take the answer along."""
    async with open_door(echo) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        async with stream, trio.open_nursery() as nursery:
            talk = Talk(stream)

            async def upload() -> None:
                await talk.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 40000000\r\n\r\n")
                try:
                    while True:
                        await talk.send(bytes(1 << 16))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(upload)
            assert (await talk.answer()).status == 413
            nursery.cancel_scope.cancel()


# 100-continue.


async def test_100_continue_is_sent_when_the_body_is_asked_for() -> None:
    ask = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await ask.wait()
        await echo(exchange)

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        wire = post(b"hello", b"expect: 100-continue")
        await talk.send(wire[:-5])
        with trio.move_on_after(0.02) as nothing_came:
            await talk.stream.receive_some(1)
        assert nothing_came.cancelled_caught
        ask.set()
        interim = await talk.stream.receive_some(1000)
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        await talk.send(wire[-5:])
        assert (await talk.answer()).body == b"POST hello"


async def test_100_continue_is_left_out_where_the_body_is_here() -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(post(b"hello", b"expect: 100-continue"))
        answer = await talk.answer()
        assert (answer.body, answer.interim) == (b"POST hello", [])


async def test_100_continue_is_not_for_a_body_over_the_limit(autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo) as under_test:
        talk = under_test.talk()
        await talk.send(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2000000\r\n\r\n")
        answer = await talk.answer()
        assert (answer.status, answer.interim, answer.headers[b"connection"]) == (413, [], b"close")


# Pipelining.


async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    running = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1
        body = await exchange.body(LIMIT)
        await trio.lowlevel.checkpoint()
        running -= 1
        await exchange.reply(200, [], exchange.request.path.encode() + body)

    wire = b"".join(post(b"body").replace(b"POST /", b"POST /%d" % n) for n in range(5))
    async with open_door(handler) as under_test:
        for cut in (len(wire), 50, 11):
            talk = under_test.talk()
            for at in range(0, len(wire), cut):
                await talk.send(wire[at : at + cut])
            assert [(await talk.answer()).body for _ in range(5)] == [b"/%dbody" % n for n in range(5)]


async def test_a_client_that_sends_ahead_is_stopped() -> None:
    go = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        await echo(exchange)

    async with open_door(handler, Http1Settings(max_ahead=1000)) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        taken = 0

        async def send_ahead(task_status: trio.TaskStatus[None]) -> None:
            nonlocal taken
            task_status.started()
            for _ in range(100):
                await talk.send(GET)
                taken += len(GET)

        async with trio.open_nursery() as nursery:
            await nursery.start(send_ahead)
            await trio.testing.wait_all_tasks_blocked()
            assert 1000 <= taken < 1000 + 2 * len(GET)
            go.set()
            for _ in range(100):
                assert (await talk.answer()).status == 200


# The client leaves.


class Waiting:
    """A handler that waits for ever, and says what came of it."""

    def __init__(self, before: Callable[[Exchange], Awaitable[object]] | None = None) -> None:
        self.begun = trio.Event()
        self.cancelled = trio.Event()
        self.before = before

    async def __call__(self, exchange: Exchange) -> None:
        if self.before:
            await self.before(exchange)
        self.begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise


async def started(exchange: Exchange) -> None:
    await exchange.start(200, [])
    await exchange.send(b"part")


@pytest.mark.parametrize("wire", [GET, post(b"x"), b"GET / HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize("before", [None, started])
@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_a_client_that_leaves_cancels_its_handler(
    wire: bytes, before: Callable[[Exchange], Awaitable[object]] | None, leave: str
) -> None:
    handler = Waiting(before)
    async with open_door(handler) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        async with stream:
            await stream.send_all(wire)
            await handler.begun.wait()
            assert under_test.door.snapshot().active == 1
            if leave == "half-close":
                await stream.send_eof()
            else:
                if leave == "reset":
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await stream.aclose()
            await handler.cancelled.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert under_test.door.snapshot() == DoorSnapshot(0, 0, 1, 0, 0, 0, stopping=False)
    assert under_test.records[0].ending == "gone"
    assert not under_test.faults


async def test_a_client_that_left_before_its_turn_is_not_worked_for() -> None:
    class AtOnce(trio.abc.Stream):
        """Gives a request and the end in one go, as a socket may."""

        def __init__(self) -> None:
            self._parts = [GET, b""]

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return self._parts.pop(0)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            raise AssertionError

        wait_send_all_might_not_block = trio.sleep_forever

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    handler = Waiting()
    async with open_door(handler) as under_test:
        await under_test.door.serve_stream(AtOnce())
    assert handler.cancelled.is_set()


async def test_a_client_that_sends_its_body_and_leaves_is_not_worked_for() -> None:
    handler = Waiting(lambda exchange: exchange.body(LIMIT))
    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(post(b"hello")[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await talk.send(b"o")
        await talk.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert under_test.door.snapshot().connections == 0
    assert under_test.records[0].ending == "gone"


async def test_a_client_that_leaves_within_its_body() -> None:
    raised: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.body(LIMIT)
        except PeerGone as error:
            raised.append(error)
            raise

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(post(b"hello")[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await talk.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(raised) == 1
        assert under_test.door.snapshot().connections == 0
    assert under_test.records[0].ending == "gone"


async def test_a_client_that_leaves_after_its_answer_cancels_nothing() -> None:
    rest = trio.Event()
    settled = False

    async def handler(exchange: Exchange) -> None:
        nonlocal settled
        await exchange.reply(200, [], b"all of it")
        await rest.wait()
        settled = True

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        await talk.answer()
        await talk.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        rest.set()
        await trio.testing.wait_all_tasks_blocked()
    assert settled
    assert under_test.records[0].ending == "whole"


async def test_a_send_to_a_client_that_is_gone() -> None:
    """The handler learns it from the send, where that is first; here its scope is shielded from the cancellation."""
    raised: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        with trio.CancelScope(shield=True):
            try:
                while True:
                    await exchange.send(bytes(1000))
            except PeerGone as error:
                raised.append(error)
                raise

    async with open_door(handler) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        await stream.send_all(GET)
        await stream.receive_some(100)
        await stream.aclose()
        while under_test.door.snapshot().connections:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert len(raised) == 1
    assert under_test.records[0].ending == "gone"


# Deadlines.


async def test_a_head_that_comes_too_slowly(autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo, Http1Settings(head_deadline=15)) as under_test:
        talk = under_test.talk()
        await trio.sleep(20)  # before its first byte there is more time
        since = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                for byte in GET:
                    await talk.send(bytes([byte]))
                    await trio.sleep(1)

            nursery.start_soon(trickle)
            assert (await talk.answer()).status == 408
            assert trio.current_time() - since == pytest.approx(15)
            nursery.cancel_scope.cancel()
    assert isinstance(under_test.records[0].error, RequestTooSlow)


@pytest.mark.parametrize("before", [b"", GET, b"\r\n"])
async def test_an_idle_connection_is_closed_without_a_word(before: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo, Http1Settings(idle_deadline=75)) as under_test:
        talk = under_test.talk()
        await talk.send(before)
        if before == GET:
            await talk.answer()
        since = trio.current_time()
        assert await talk.closed() == b""
        assert trio.current_time() - since == pytest.approx(75)
        assert under_test.door.snapshot().refused == 0


async def test_a_body_that_comes_too_slowly(autojump_clock: trio.abc.Clock) -> None:
    async with open_door(echo, Http1Settings(body_deadline=120)) as under_test:
        talk = under_test.talk()
        since = trio.current_time()
        await talk.send(post(b"hello")[:-1])
        answer = await talk.answer()
        assert (answer.status, answer.headers[b"connection"]) == (408, b"close")
        assert trio.current_time() - since == pytest.approx(120)


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: trio.abc.Clock) -> None:
    raised: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        try:
            await exchange.send(b"part")
        except PeerStalled as error:
            raised.append(error)
            with pytest.raises(PeerStalled):
                await exchange.send(b"another")
            await trio.sleep(1)  # what a handler settles then is not cancelled
            settled.set()
            raise

    settled = trio.Event()
    async with open_door(handler, Http1Settings(write_deadline=30)) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        await talk.send(GET)
        since = trio.current_time()
        await talk.stream.receive_some(1000)  # the head, then nothing any more
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(29)
        assert not raised
        await settled.wait()
        assert trio.current_time() - since == pytest.approx(31)
        await trio.testing.wait_all_tasks_blocked()
        assert len(raised) == 1
        assert under_test.door.snapshot().evicted == 1
        assert under_test.door.snapshot().connections == 0
    assert under_test.records[0].ending == "stalled"


async def test_a_handler_may_keep_to_itself_that_its_client_is_lost(autojump_clock: trio.abc.Clock) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        try:
            await exchange.send(b"part")
        except PeerStalled:
            return

    async with open_door(handler) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        await talk.send(GET)
        await talk.stream.receive_some(1000)
        await trio.sleep(100)
    assert not under_test.faults
    assert under_test.records[0].ending == "stalled"


async def test_a_client_that_reads_slowly_is_not_cut_off(autojump_clock: trio.abc.Clock) -> None:
    """The deadline is for a piece, not for the whole of a large answer."""

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [], bytes(1 << 20))

    async with open_door(handler, Http1Settings(write_deadline=30)) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        await talk.send(GET)
        while not under_test.records:
            await trio.sleep(20)
            await talk.stream.receive_some(1 << 16)
        assert trio.current_time() > 300
    assert under_test.records[0].ending == "whole"


async def test_a_stalled_socket_is_cut_and_others_do_not_notice() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        while exchange.request.path == "/flood":
            await exchange.send(bytes(1 << 16))
        await exchange.finish()

    async with open_door(handler, Http1Settings(write_deadline=0.2)) as under_test:
        port = await under_test.listen()
        stalled = trio.socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stalled.connect(("127.0.0.1", port))
        await stalled.send(GET.replace(b"/", b"/flood", 1))
        async with await trio.open_tcp_stream("127.0.0.1", port) as other:
            talk = Talk(other)
            answered = 0
            while not under_test.door.snapshot().evicted:
                await talk.send(GET)
                assert (await talk.answer()).status == 200
                answered += 1
            assert answered > 1
        with pytest.raises(trio.BrokenResourceError):
            await Talk(trio.SocketStream(stalled)).all_of_it()
        stalled.close()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_what_an_offer_leaves_goes_first(version: bytes) -> None:
    """A client that does not read for a while gets every byte in order, in whatever framing."""
    left = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        number = 0
        while exchange.offer(Part(b"%06d " % number * 100)):
            number += 1
        assert not exchange.offer(Part(b"%06d " % (number + 1) * 100))
        left.set()
        await exchange.send(b"%06d " % (number + 2) * 100)
        while not exchange.offer(Part(b"%06d " % (number + 3) * 100)):
            await exchange.send(b"")
            number += 1
        await exchange.finish(b"end")

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            talk = Talk(stream)
            await talk.send(GET.replace(b"1.1", version))
            await left.wait()
            body = (await talk.answer()).body
    assert body.endswith(b" end")
    numbers = body.split()[:-1]
    assert numbers == [b"%06d" % (at // 100) for at in range(len(numbers))]
    assert under_test.records[0].ending == "whole"


async def test_an_offer_to_a_client_that_is_gone_or_stalled_is_told_by_the_next_send() -> None:
    told: dict[str, Exception] = {}

    async def handler(exchange: Exchange) -> None:
        assert not exchange.offer(Part(b"early"))
        await exchange.start(200, [])
        while exchange.offer(Part(bytes(1 << 16))):
            await trio.lowlevel.checkpoint()
        try:
            await exchange.send(b"")
        except (PeerGone, PeerStalled) as error:
            told[exchange.request.path] = error
            assert not exchange.offer(Part(b"late"))
            raise

    async with open_door(handler, Http1Settings(write_deadline=0.2)) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stalled:
            await stalled.send_all(GET.replace(b"/", b"/stalled", 1))
            while not under_test.records:
                await trio.sleep(0.01)
    assert isinstance(told["/stalled"], PeerStalled)
    assert under_test.door.snapshot().evicted == 1


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_the_outlet_of_an_answer_takes_its_chunks(version: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.outlet is None  # before the head nothing may go
        await exchange.start(200, [], b"a")
        outlet = exchange.outlet
        if version == b"1.0":  # its body has no chunks
            assert outlet is None
            await exchange.finish(b"bcd")
            return
        assert outlet is not None
        assert write_each([outlet], Part(b"b").chunk) == []
        outlet.fanned += 1  # as the fan-out counts it
        outlet.owe(Part(b"c").chunk)
        assert write_each([outlet], Part(b"not now").chunk) == [(0, 0)]
        await exchange.send(b"")
        assert outlet.free
        await exchange.finish(b"d")
        assert exchange.outlet is None

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            talk = Talk(stream)
            await talk.send(GET.replace(b"1.1", version))
            assert (await talk.answer()).body == b"abcd"
            if version == b"1.1":  # the next answer counts for itself
                await talk.send(GET)
                assert (await talk.answer()).body == b"abcd"
    assert {record.sent for record in under_test.records} == {4 if version == b"1.0" else 3}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_head_and_end_that_are_offered_need_no_wait(version: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.offer_start(201, [(b"x", b"y")], b"a")
        assert exchange.started
        assert not exchange.offer_start(202, [], b"twice")
        if version == b"1.1":
            assert exchange.offer_finish(b"b")
            assert not exchange.offer(Part(b"late"))
        else:  # its end is that of the connection
            assert not exchange.offer_finish(b"never")
            await exchange.finish(b"b")

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            talk = Talk(stream)
            for _ in range(2 if version == b"1.1" else 1):  # and the connection goes on
                await talk.send(GET.replace(b"1.1", version))
                answer = await talk.answer()
                assert (answer.status, answer.headers[b"x"], answer.body) == (201, b"y", b"ab")
    assert {(record.ending, record.status, record.sent) for record in under_test.records} == {("whole", 201, 2)}


async def test_a_head_that_is_none_is_not_begun() -> None:
    async def handler(exchange: Exchange) -> None:
        with pytest.raises(LocalProtocolError):
            exchange.offer_start(200, [(b"x", b"\n")], b"")
        assert not exchange.started
        await exchange.reply(204, [], b"")

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            talk = Talk(stream)
            await talk.send(GET)
            assert (await talk.answer()).status == 204


@pytest.mark.parametrize("what", ["start", "finish"])
async def test_what_the_offer_of_a_head_or_an_end_leaves_is_sent_by_the_task(what: str) -> None:
    large = bytes(32 << 20)
    left = trio.Event()

    async def handler(exchange: Exchange) -> None:
        if what == "start":
            assert not exchange.offer_start(200, [], large)
            assert exchange.started
            assert exchange.outlet is not None
            assert not exchange.outlet.free
            left.set()
            await exchange.finish(b"end")
        else:
            assert exchange.offer_start(200, [], b"")
            assert not exchange.offer_finish(large + b"end")
            left.set()
            await exchange.finish()

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            talk = Talk(stream)
            await talk.send(GET)
            await left.wait()
            assert (await talk.answer()).body == large + b"end"
            await talk.send(GET)
            assert (await talk.answer()).body == large + b"end"
    assert {record.ending for record in under_test.records} == {"whole"}


async def test_an_end_that_is_offered_to_a_client_that_does_not_read_is_a_stall() -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.offer_start(200, [], b"")
        assert not exchange.offer_finish(bytes(32 << 20))
        await exchange.finish()

    async with open_door(handler, Http1Settings(write_deadline=0.2)) as under_test:
        port = await under_test.listen()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stalled:
            await stalled.send_all(GET)
            while not under_test.records:
                await trio.sleep(0.01)
    assert under_test.records[0].ending == "stalled"


async def test_a_head_is_not_offered_over_a_stream_that_is_no_socket() -> None:
    async def handler(exchange: Exchange) -> None:
        assert not exchange.offer_start(200, [], b"a")
        assert not exchange.started
        await exchange.reply(200, [], b"b")

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        assert (await talk.answer()).body == b"b"


async def test_offers_over_a_stream_that_is_no_socket_are_sent_by_the_next_send() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        assert not exchange.offer(Part(b"a"))
        assert not exchange.offer(Part(b"b"))
        await exchange.send(b"c")
        assert not exchange.offer(Part(b"d"))
        await exchange.finish()

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        assert (await talk.answer()).body == b"abcd"


async def test_a_handler_that_only_sends_lets_others_run() -> None:
    """Over a socket: the quick way never waits, as long as the client reads."""
    laps = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal laps
        await exchange.start(200, [])

        async def count() -> None:
            nonlocal laps
            while True:
                await trio.lowlevel.checkpoint()
                laps += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(80):
                await exchange.send(b"x")
            nursery.cancel_scope.cancel()
        await exchange.finish()

    async with open_door(handler) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        async with stream:
            await stream.send_all(GET)
            assert (await Talk(stream).answer()).body == b"x" * 80
    assert laps >= 5


# What a handler does wrong.


class Broken(Exception):
    """Not of our family: a bug."""


def raising(
    *errors: Exception, after: Callable[[Exchange], Awaitable[object]] | None = None
) -> Callable[[Exchange], Awaitable[None]]:
    async def handler(exchange: Exchange) -> None:
        if after:
            await after(exchange)
        if len(errors) == 1:
            raise errors[0]
        raise ExceptionGroup("of a nursery", errors)

    return handler


async def one_answer(under_test: DoorUnderTest, wire: bytes = GET) -> Answer:
    talk = under_test.talk()
    await talk.send(wire)
    return await talk.answer()


@pytest.mark.parametrize(
    ("errors", "status", "told"),
    [
        ([UnknownModel("No such model.")], 404, False),
        ([Broken("secret")], 500, True),
        ([LocalProtocolError("secret")], 500, True),
        ([UnknownModel("a"), PeerGone("b")], 404, False),
        ([PeerGone("b"), UnknownModel("a")], 404, False),
        ([UnknownModel("a"), Broken("secret")], 500, True),
        ([UnknownModel("a"), ExceptionGroup("inner", [PeerGone("b"), Broken("secret")])], 500, True),
    ],
)
async def test_an_error_before_the_answer_is_the_answer(errors: list[Exception], status: int, told: bool) -> None:
    async with open_door(raising(*errors)) as under_test:
        answer = await one_answer(under_test)
    assert answer.status == status
    assert b"secret" not in answer.body
    assert b"Broken" not in answer.body
    assert len(under_test.faults) == told
    assert (under_test.records[0].ending, under_test.records[0].status) == ("whole", status)
    assert under_test.records[0].error is not None


async def test_the_connection_lives_on_after_an_error() -> None:
    async with open_door(raising(Broken())) as under_test:
        talk = under_test.talk()
        for _ in range(3):
            await talk.send(GET)
            assert (await talk.answer()).status == 500
        assert under_test.door.snapshot().faults == 3


@pytest.mark.parametrize("error", [UnknownModel("late"), Broken("late")])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_error_after_the_head_cuts_the_answer(error: Exception, version: bytes) -> None:
    async with open_door(raising(error, after=started)) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        async with stream:
            await stream.send_all(GET.replace(b"1.1", version))
            received = b""
            try:
                while data := await stream.receive_some(1000):
                    received += data
                ended = True
            except trio.BrokenResourceError:
                ended = False
    assert ended == (version == b"1.1")  # a clean end would say that an HTTP/1.0 body is whole
    assert not received.endswith(b"0\r\n\r\n")
    assert under_test.records[0].ending == "cut"
    assert isinstance(under_test.records[0].error, KirostreamError)


@pytest.mark.parametrize("error", [PeerGone("x"), PeerStalled("x")])
async def test_an_error_about_the_peer_is_no_answer(error: KirostreamError) -> None:
    async with open_door(raising(error)) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        assert await talk.closed() == b""
    assert not under_test.faults


async def test_a_handler_that_does_not_answer() -> None:
    async def handler(exchange: Exchange) -> None:
        await trio.lowlevel.checkpoint()

    async with open_door(handler) as under_test:
        assert (await one_answer(under_test)).status == 500
    assert "did not answer" in str(under_test.faults[0])


async def test_a_handler_that_does_not_finish() -> None:
    async with open_door(started) as under_test:
        with pytest.raises(h11.RemoteProtocolError):
            await one_answer(under_test)
    assert "did not finish" in str(under_test.faults[0])


async def test_a_bug_beside_the_cancellation_is_told() -> None:
    """The client leaves; the handler's nursery is cancelled, and one of its tasks fails while it cleans up."""

    async def handler(exchange: Exchange) -> None:
        async def fails() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Broken

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep_forever()

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await talk.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert under_test.door.snapshot().connections == 0
    assert [request.path for request in under_test.faulty if request] == ["/"]


MISUSES: dict[str, Callable[[Exchange], Awaitable[object]]] = {
    "send first": lambda exchange: exchange.send(b"x"),
    "finish first": lambda exchange: exchange.finish(),
    "a status of no answer": lambda exchange: exchange.reply(100, [], b""),
    "no header name": lambda exchange: exchange.reply(200, [(b"a b", b"")], b""),
    "no header value": lambda exchange: exchange.reply(200, [(b"a", b"b\r\nc: d")], b""),
    "framing": lambda exchange: exchange.start(200, [(b"transfer-encoding", b"chunked")]),
    "upgrade within the body": lambda exchange: exchange.upgrade(),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
async def test_misuse_before_the_answer_is_a_fault_and_a_500(misuse: Callable[[Exchange], Awaitable[object]]) -> None:
    async def handler(exchange: Exchange) -> None:
        await misuse(exchange)

    async with open_door(handler) as under_test:
        assert (await one_answer(under_test, post(b"x"))).status == 500
    assert isinstance(under_test.faults[0], LocalProtocolError)


async def test_misuse_after_the_answer() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [], b"")
        for misuse in (exchange.send(b"x"), exchange.finish(), exchange.start(200, []), exchange.upgrade()):
            with pytest.raises(LocalProtocolError):
                await misuse

    async with open_door(handler) as under_test:
        assert (await one_answer(under_test)).status == 200
    assert not under_test.faults


async def test_two_tasks_that_send_at_once() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.send, b"one")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError, match="two tasks"):
                await exchange.send(b"two")
            nursery.cancel_scope.cancel()
        done.set()

    done = trio.Event()
    async with open_door(handler) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        await talk.send(GET)
        await talk.stream.receive_some(1000)
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert "did not finish" in str(under_test.faults[0])


async def test_nothing_follows_a_send_that_was_cancelled_half_way(autojump_clock: trio.abc.Clock) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        with trio.move_on_after(1):
            await exchange.send(b"one")
        await exchange.send(b"two")

    async with open_door(handler) as under_test:
        talk = under_test.talk_over(*trio.testing.lockstep_stream_pair())
        await talk.send(GET)
        await talk.stream.receive_some(1000)
        await trio.sleep(2)
        assert b"two" not in await talk.closed()
    assert not under_test.faults


@pytest.mark.parametrize("refuse", ["raises", "no status", "no header"])
async def test_a_refuse_that_is_broken_costs_nobody_the_answer(refuse: str) -> None:
    def broken(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
        if refuse == "raises":
            raise Broken
        return (0, [], b"") if refuse == "no status" else (400, [(b"\n", b"")], b"")

    async with open_door(raising(UnknownModel("No such model.")), refuse=broken) as under_test:
        answer = await one_answer(under_test)
        assert (answer.status, answer.body) == (404, b"No such model.\n")
        assert (await one_answer(under_test, b"rubbish\r\n\r\n")).status == 400
    assert len(under_test.faults) == 2


def test_the_plain_refusal() -> None:
    assert plain_refusal(UpstreamOverloaded("Busy.", retry_after=1.2), None) == (
        503,
        [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"2")],
        b"Busy.\n",
    )
    headers = plain_refusal(MethodNotAllowed("No.", allowed=("GET", "HEAD")), None)[1]
    assert (b"allow", b"GET, HEAD") in headers


# Abort and upgrade.


@pytest.mark.parametrize("head_first", [False, True])
async def test_abort_cuts_at_once_and_lets_the_handler_go_on(head_first: bool) -> None:
    closed = trio.Event()
    went_on = False

    async def handler(exchange: Exchange) -> None:
        nonlocal went_on
        if head_first:
            await started(exchange)
        exchange.abort()
        exchange.abort()
        await closed.wait()
        with pytest.raises(PeerGone):
            await exchange.send(b"more")
        went_on = True

    async with open_door(handler) as under_test:
        for memory in (True, False):
            if memory:
                talk = under_test.talk()
            else:
                talk = Talk(await trio.open_tcp_stream("127.0.0.1", await under_test.listen()))
            await talk.send(GET)
            received = await talk.closed()
            assert received.endswith(b"4\r\npart\r\n") == head_first
            closed.set()
            await trio.testing.wait_all_tasks_blocked()
            assert went_on
            went_on = False
            await talk.stream.aclose()
    assert {record.ending for record in under_test.records} == {"cut"}


@pytest.mark.parametrize("wire", [b"CONNECT host:443 HTTP/1.1\r\nhost: host\r\n\r\n", GET])
async def test_upgrade_hands_over_the_stream_and_what_was_read_of_it(wire: bytes) -> None:
    got: list[bytes] = []

    async def handler(exchange: Exchange) -> None:
        stream = await exchange.upgrade()
        got.append(bytes(await stream.receive_some(3)))
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"raw")
        while data := await stream.receive_some(4):
            got.append(bytes(data))
        await stream.send_all(b"end")

    async with open_door(handler) as under_test:
        talk = under_test.talk()
        await talk.send(wire + b"ahead")
        assert await talk.stream.receive_some(10) == b"raw"
        await talk.send(b"more")
        assert isinstance(talk.stream, trio.StapledStream)
        await talk.stream.send_eof()  # does not cancel: the handler has the stream now
        assert await talk.closed() == b"end"
    assert got == [b"ahe", b"ad", b"more"]
    assert (under_test.records[0].ending, under_test.records[0].status) == ("upgraded", 0)


async def test_connect_is_not_accepted_by_start() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [], b"")

    async with open_door(handler) as under_test:
        assert (await one_answer(under_test, b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n")).status == 500


# Stop.


async def test_stop_closes_idle_connections_and_lets_others_finish(autojump_clock: trio.abc.Clock) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.request.method == "POST":
            await trio.sleep(5)
        await exchange.reply(200, [], b"done")

    async with open_door(handler) as under_test:
        idle, used, begun, busy = (under_test.talk() for _ in range(4))
        await used.send(GET)
        assert (await used.answer()).status == 200
        await begun.send(GET[:5])
        await busy.send(post(b""))
        await trio.testing.wait_all_tasks_blocked()
        under_test.door.stop(grace=10)
        assert under_test.door.snapshot().stopping
        assert await idle.closed() == b""
        assert await used.closed() == b""
        await begun.send(GET[5:])
        for talk in (begun, busy):
            answer = await talk.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"done", b"close")
            assert await talk.closed() == b""
        assert trio.current_time() == pytest.approx(5)


@pytest.mark.parametrize("then_shorter", [False, True])
async def test_what_outlasts_the_grace_is_cancelled(then_shorter: bool, autojump_clock: trio.abc.Clock) -> None:
    handler = Waiting(started)
    door = Http1Door(handler)
    ours, theirs = trio.testing.memory_stream_pair()

    class OneClient(trio.abc.Listener[trio.abc.Stream]):
        accepted = closed = False

        async def accept(self) -> trio.abc.Stream:
            if self.accepted:
                await trio.sleep_forever()
            self.accepted = True
            return theirs

        async def aclose(self) -> None:
            self.closed = True

    listener = OneClient()
    async with trio.open_nursery() as nursery:
        await nursery.start(door.serve, [listener])
        await ours.send_all(GET)
        await handler.begun.wait()
        door.stop(grace=10)
        await trio.sleep(3)
        assert listener.closed
        assert door.snapshot().active == 1
        if then_shorter:
            door.stop(grace=2)
            door.stop(grace=100)  # does not lengthen it
    assert trio.current_time() == pytest.approx(5 if then_shorter else 10)
    assert handler.cancelled.is_set()
    assert door.snapshot() == DoorSnapshot(0, 0, 1, 0, 0, 0, stopping=True)


async def test_an_http_1_0_answer_that_the_stop_cut_is_reset() -> None:
    """Its end is the end of the connection, so a clean one would say that it is whole."""
    handler = Waiting(started)
    async with open_door(handler) as under_test:
        stream = await trio.open_tcp_stream("127.0.0.1", await under_test.listen())
        async with stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            await handler.begun.wait()
            under_test.door.stop(grace=0)
            with pytest.raises(trio.BrokenResourceError):
                await Talk(stream).all_of_it()


async def test_stop_before_serve() -> None:
    door = Http1Door(echo)
    door.stop(grace=1)
    listeners = await open_listeners("127.0.0.1", 0)
    await door.serve(listeners)
    assert listeners[0].socket.fileno() == -1


# Against others, and against anything.


async def test_against_the_standard_librarys_client() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == "/stream":
            await three_parts(exchange)
        else:
            await echo(exchange)

    def foreign(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        local = None
        for _ in range(2):
            for method, path, body, encode, expected in [
                ("GET", "/", None, False, b"GET "),
                ("POST", "/", b"x" * 300_000, False, b"POST " + b"x" * 300_000),
                ("POST", "/", iter([b"chunked ", b"upload"]), True, b"POST chunked upload"),
                ("HEAD", "/", None, False, b""),
                ("HEAD", "/stream", None, False, b""),
                ("GET", "/stream", None, False, b"onetwothree"),
                ("PUT", "/", gzip.compress(b"small"), False, b"PUT small"),
            ]:
                headers = {"content-encoding": "gzip"} if method == "PUT" else {}
                connection.request(method, path, body=body, headers=headers, encode_chunked=encode)
                local = local or connection.sock.getsockname()
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, expected)
                assert response.getheader("date", "").endswith(" GMT")
        assert connection.sock.getsockname() == local, "the connection was not kept"
        connection.close()

    async with open_door(handler) as under_test:
        port = await under_test.listen()
        await trio.to_thread.run_sync(foreign, port)
    assert not under_test.faults
    assert under_test.records[0].request is not None
    assert under_test.records[0].request.peer.startswith("127.0.0.1:")
    assert under_test.records[1].sent == 300_005


async def test_cancelled_at_any_checkpoint_nothing_is_left() -> None:
    """The whole of an exchange, with a body, a stream and a second request, cancelled at its k-th step."""

    async def handler(exchange: Exchange) -> None:
        await exchange.body(LIMIT)
        await three_parts(exchange)

    for cut in every_checkpoint():
        before = trio.lowlevel.current_statistics().tasks_living
        door = Http1Door(handler)
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(post(gzip.compress(b"x"), b"content-encoding: gzip", b"expect: 100-continue") + GET)
        await ours.send_eof()  # the last exchange is cancelled by this end, in the run that is whole
        await cut.run(lambda door=door, theirs=theirs: door.serve_stream(theirs))  # type: ignore[misc]
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert (door.snapshot().connections, door.snapshot().active) == (0, 0)
        with pytest.raises(trio.ClosedResourceError):
            await theirs.send_all(b"x")


FRAGMENTS = [
    GET,
    post(b"hello"),
    post(b"5\r\nhello\r\n0\r\n\r\n", b"transfer-encoding: chunked", length=False),
    post(b"", b"expect: 100-continue"),
    b"HEAD /x?y HTTP/1.0\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"\r\n",
    b": ",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"HTTP/1.1\r\n",
    *BROKEN.values(),
]


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=20), max_size=6).map(b"".join),
    st.integers(1, 200),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
async def test_any_bytes_give_a_reply_or_a_close_never_a_traceback(wire: bytes, size: int, reads: bool) -> None:
    async def handler(exchange: Exchange) -> None:
        if reads:
            await exchange.body(100)
        await exchange.reply(405 if exchange.request.method == "CONNECT" else 200, [], b"")

    async with open_door(handler) as under_test:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(under_test.door.serve_stream, theirs)
            for at in range(0, len(wire), size):
                await ours.send_all(wire[at : at + size])
            await trio.testing.wait_all_tasks_blocked()
            await ours.send_eof()
            with trio.fail_after(10):
                received = await Talk(ours).closed()
    assert not under_test.faults
    assert received == b"" or received.startswith(b"HTTP/1.1 ")


# Listeners, settings, and what is told.


async def test_a_port_that_is_taken() -> None:
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port}: the port is in use. Choose another \(--port\)"):
        await open_listeners("127.0.0.1", port)
    await listeners[0].aclose()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "a port is 0 to 65535"),
        ("192.0.2.1", 8000, r"192\.0\.2\.1:8000: no interface of this machine"),
        ("[2001:db8::1]", 8000, r"\[2001:db8::1\]:8000: "),
        ("a..b", 8000, "the host is not known here"),
    ],
)
async def test_an_address_that_cannot_be_had(host: str, port: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        await open_listeners(host, port)
    assert "--host" in str(caught.value) or "--port" in str(caught.value) or "65535" in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "", "*"])
async def test_addresses_that_can_be_had(host: str) -> None:
    for listener in await open_listeners(host, 0):
        assert listener.socket.getsockname()[1] > 0
        await listener.aclose()


def test_every_setting_says_what_it_is_and_in_which_unit() -> None:
    for setting in dataclasses.fields(Http1Settings):
        assert setting.metadata["help"].endswith(".")
        assert setting.metadata["unit"] in ("s", "bytes", "lines")


async def test_the_door_and_its_exchanges_say_what_they_are() -> None:
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(repr(exchange))
        await started(exchange)
        seen.append(repr(exchange))
        seen.append(repr(under_test.door))
        await exchange.finish()

    async with open_door(handler) as under_test:
        await one_answer(under_test)
    assert seen == [
        "<exchange GET / from memory: UNSTARTED>",
        "<exchange GET / from memory: CHUNKED>",
        "<Http1Door: 1 connections, 1 active, 0 served, 0 evicted, 0 refused, 0 faults>",
    ]
