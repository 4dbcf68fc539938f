"""What every door does, whatever server it is made of: one suite, over real sockets, through each of them."""

from __future__ import annotations

import gzip
import http.client
import socket
import zlib
from collections.abc import Awaitable, Callable

import brotli  # type: ignore[import-untyped]
import h11
import pytest
import trio
import trio.lowlevel
import zstandard

from helpers.certs import trusting
from helpers.doors import KINDS, OpenDoor, open_kind
from helpers.talk import Talk
from kirostream.errors import KirostreamError, LocalProtocolError, UnknownModel
from kirostream.net.exchange import Exchange, Headers, HttpRequest, PeerGone, PeerStalled

pytestmark = pytest.mark.parametrize("kind", KINDS)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT = 1 << 20
Step = Callable[[Exchange], Awaitable[object]]


def post(body: bytes, *headers: bytes, length: bool = True) -> bytes:
    lines = [b"POST / HTTP/1.1", b"host: x", *headers, *([b"content-length: %d" % len(body)] if length else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def echo(exchange: Exchange) -> None:
    await exchange.reply(200, [], exchange.request.method.encode() + b" " + await exchange.body(LIMIT))


async def three_parts(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-type", b"text/event-stream")], b"zero")
    for part in (b"one", b"", b"two"):
        await exchange.send(part)
    await exchange.finish(b"three")


async def started(exchange: Exchange) -> None:
    await exchange.start(200, [])
    await exchange.send(b"part")


class Waiting:
    """A handler that waits for ever, and says what came of it."""

    def __init__(self, before: Step | None = None) -> None:
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


# Answers.


async def test_every_framing_leaves_the_connection_usable(kind: str) -> None:
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

    async def large(exchange: Exchange) -> None:
        await exchange.reply(200, [], bytes(300_000))

    handlers = {
        "/echo": (echo, 200, b"GET "),
        "/parts": (three_parts, 200, b"zeroonetwothree"),
        "/counted": (counted, 200, b"abcdef"),
        "/204": (no_content, 204, b""),
        "/304": (not_modified, 304, b""),
        "/large": (large, 200, bytes(300_000)),
    }

    async def by_path(exchange: Exchange) -> None:
        await handlers[exchange.request.path][0](exchange)

    async with open_kind(kind, by_path) as door:
        talk = await door.talk()
        for method in ("GET", "HEAD", "GET"):
            for path, (_, status, body) in handlers.items():
                await talk.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                answer = await talk.answer(method)
                assert (answer.status, answer.body) == (status, b"" if method == "HEAD" else body)
                assert answer.headers[b"date"].endswith(b" GMT")
        await door.ended(18)
        snapshot = door.door.snapshot()
        assert (snapshot.connections, snapshot.served, snapshot.faults) == (1, 18, 0)
    assert {record.ending for record in door.records} == {"whole"}
    assert [record.sent for record in door.records[:6]] == [4, 15, 6, 0, 0, 300_000]
    assert {record.sent for record in door.records[6:12]} == {0}
    assert door.records[0].request is not None
    assert door.records[0].request.peer.startswith("127.0.0.1:")


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(kind: str) -> None:
    async with open_kind(kind, three_parts) as door:
        talk = await door.talk()
        await talk.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await talk.closed()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body == b"zeroonetwothree"


async def test_a_stream_is_sent_as_it_is_said(kind: str) -> None:
    go = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await started(exchange)
        await go.wait()
        await exchange.finish(b"rest")

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(GET)
        received = b""
        while b"part" not in received:
            received += await talk.stream.receive_some(1000)
        go.set()
        while not received.endswith(b"0\r\n\r\n"):
            received += await talk.stream.receive_some(1000)
        assert received.count(b"rest") == 1


@pytest.mark.parametrize("parts", [[b"abcd", b"efg"], [b"ab"]], ids=["too much", "too little"])
async def test_a_body_of_another_length_than_declared_is_cut(kind: str, parts: list[bytes]) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-length", b"6")])
        for part in parts:
            await exchange.send(part)
        await exchange.finish()

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(GET)
        with pytest.raises(h11.RemoteProtocolError):
            await talk.answer()
        await door.ended()
    assert isinstance(door.faults[0], LocalProtocolError)
    assert door.records[0].ending == "cut"


# Requests.


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("*", "*", ""),
        ("http://host:80/a?b", "/a", "b"),
        ("/a%2Fb%20c", "/a%2Fb%20c", ""),
        ("//x/y", "//x/y", ""),
    ],
)
async def test_what_a_handler_sees_of_a_request(kind: str, target: str, path: str, query: str) -> None:
    seen: list[HttpRequest] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.request)
        await exchange.reply(200, [], b"")

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nX-Key: secret\r\n\r\n".encode())
        assert (await talk.answer()).status == 200
    assert (seen[0].method, seen[0].path, seen[0].query) == ("OPTIONS", path, query)
    assert seen[0].headers == ((b"host", b"x"), (b"x-key", b"secret"))
    assert "secret" not in repr(seen[0])


def in_words(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
    return error.status, [(b"x-worded", b"yes")], error.message.encode()


HEADS = {
    "a long target": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 413),
    "a long header": (b"GET / HTTP/1.1\r\nhost: x\r\ny: " + b"a" * 5000 + b"\r\n\r\n", 413),
    "many headers": (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 10 + b"\r\n", 413),
    "both framings": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_is_refused_is_worded_and_closes(kind: str, name: str) -> None:
    wire, status = HEADS[name]
    async with open_kind(kind, echo, max_head=4000, max_headers=10, refuse=in_words) as door:
        talk = await door.talk()
        await talk.send(wire)
        answer = await talk.answer()
        assert (answer.status, answer.headers[b"x-worded"], answer.headers[b"connection"]) == (status, b"yes", b"close")
        assert await talk.closed() == b""
        assert door.door.snapshot().refused == 1
    assert not door.faults
    assert door.records[0].request is None


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_request_gets_an_error_and_a_close(kind: str, wire: bytes) -> None:
    async with open_kind(kind, echo) as door:
        talk = await door.talk()
        await talk.send(wire)
        answer = await talk.answer()
        assert answer.status in (400, 501)
        assert answer.headers[b"connection"] == b"close"
        assert await talk.closed() == b""
    assert not door.faults


# Bodies.

CODED = {
    "plain": post(b"hello world"),
    "chunked": post(
        b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\ntrailer: x\r\n\r\n", b"transfer-encoding: chunked", length=False
    ),
    "gzip": post(gzip.compress(b"hello world"), b"content-encoding: gzip"),
    "deflate": post(zlib.compress(b"hello world"), b"content-encoding: deflate"),
    "br": post(brotli.compress(b"hello world"), b"content-encoding: br"),
    "zstd of gzip": post(zstandard.compress(gzip.compress(b"hello world")), b"content-encoding: gzip, zstd"),
}


@pytest.mark.parametrize("name", CODED)
async def test_a_body_comes_whole_however_it_is_cut(kind: str, name: str) -> None:
    wire = CODED[name]
    async with open_kind(kind, echo) as door:
        talk = await door.talk()
        for size in (1, 7, 10_000):
            for at in range(0, len(wire), size):
                await talk.send(wire[at : at + size])
            assert (await talk.answer()).body == b"POST hello world"


REFUSED_BODIES = {
    "declared": (post(b"x" * (LIMIT + 1)), 413),
    "chunked": (
        post(b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1), b"transfer-encoding: chunked", length=False),
        413,
    ),
    "a gzip bomb": (post(gzip.compress(bytes(LIMIT + 1)), b"content-encoding: gzip"), 413),
    "a zstd bomb": (post(zstandard.compress(bytes(50 * LIMIT)), b"content-encoding: zstd"), 413),
    "not gzip": (post(b"not gzip", b"content-encoding: gzip"), 400),
    "an unknown coding": (post(b"x", b"content-encoding: lzma"), 400),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
async def test_a_body_that_cannot_be_had(kind: str, name: str) -> None:
    wire, status = REFUSED_BODIES[name]
    async with open_kind(kind, echo) as door:
        talk = await door.talk()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_what_goes, talk, wire)
            assert (await talk.answer()).status == status
            nursery.cancel_scope.cancel()
    assert not door.faults


async def send_what_goes(talk: Talk, wire: bytes) -> None:
    try:
        await talk.send(wire)
    except trio.BrokenResourceError:
        pass


async def test_a_body_is_read_once(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.body(LIMIT)
        with pytest.raises(LocalProtocolError, match="twice"):
            await exchange.body(LIMIT)
        await exchange.reply(200, [], b"")

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(post(b"x"))
        assert (await talk.answer()).status == 200


async def does_not_read(exchange: Exchange) -> None:
    await exchange.reply(401, [], b"no")


async def test_a_small_body_nobody_read_leaves_the_connection(kind: str) -> None:
    async with open_kind(kind, does_not_read) as door:
        talk = await door.talk()
        for _ in range(3):
            await talk.send(post(b"x" * 100))
            answer = await talk.answer()
            assert (answer.status, b"connection" in answer.headers) == (401, False)
        assert door.door.snapshot().connections == 1


async def test_an_answer_to_a_client_that_still_sends_arrives(kind: str) -> None:
    """A close with unread bytes would reset the connection, and take the answer along."""
    async with open_kind(kind, echo, linger=0.5) as door:
        talk = await door.talk()

        async def upload() -> None:
            try:
                await talk.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 400000000\r\n\r\n")
                while True:
                    await talk.send(bytes(1 << 16))
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            assert (await talk.answer()).status == 413
            await door.ended()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            while door.door.snapshot().connections:
                await trio.sleep(0.005)
    assert not door.faults


async def test_a_body_that_comes_too_slowly(kind: str) -> None:
    async with open_kind(kind, echo, body_deadline=0.1, linger=0.1) as door:
        talk = await door.talk()
        await talk.send(post(b"hello")[:-1])
        assert (await talk.answer()).status == 408


async def test_a_body_that_nobody_asks_for_is_not_kept(kind: str) -> None:
    go = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        assert len(await exchange.body(50 << 20)) == 40 << 20
        await exchange.reply(200, [], b"")

    async with open_kind(kind, handler, max_ahead=1000) as door:
        talk = await door.talk()
        sent = 0

        async def upload() -> None:
            nonlocal sent
            await talk.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (40 << 20))
            for _ in range(640):
                await talk.send(bytes(1 << 16))
                sent += 1 << 16

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            before = -1
            while before != sent:  # until the sockets in between are full
                before = sent
                await trio.sleep(0.05)
            assert sent < 30 << 20
            go.set()
            assert (await talk.answer()).status == 200


async def test_pipelined_requests_are_answered_one_after_the_other(kind: str) -> None:
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
    async with open_kind(kind, handler) as door:
        for cut in (len(wire), 50, 11):
            talk = await door.talk()
            for at in range(0, len(wire), cut):
                await talk.send(wire[at : at + cut])
            assert [(await talk.answer()).body for _ in range(5)] == [b"/%dbody" % n for n in range(5)]
            await talk.stream.aclose()


async def test_an_idle_connection_is_closed_without_a_word(kind: str) -> None:
    async with open_kind(kind, echo, idle_deadline=0.1) as door:
        for before in (b"", GET):
            talk = await door.talk()
            await talk.send(before)
            if before:
                await talk.answer()
            assert await talk.closed() == b""
            await talk.stream.aclose()
        assert door.door.snapshot().refused == 0


# The client leaves, or does not read.


@pytest.mark.parametrize("before", [None, started], ids=["before the head", "after the head"])
@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
@pytest.mark.parametrize("wire", [GET, post(b"x")], ids=["GET", "POST"])
async def test_a_client_that_leaves_cancels_its_handler(
    kind: str, before: Step | None, leave: str, wire: bytes
) -> None:
    handler = Waiting(before)
    async with open_kind(kind, handler) as door:
        stream = await door.stream()
        await stream.send_all(wire)
        await handler.begun.wait()
        assert door.door.snapshot().active == 1
        tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        assert isinstance(tcp, trio.SocketStream)
        since = trio.current_time()
        if leave == "half-close":
            await tcp.send_eof()
        else:
            if leave == "reset":
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await tcp.aclose()
        await handler.cancelled.wait()
        assert trio.current_time() - since < 1
        await door.ended()
    assert door.records[0].ending == "gone"
    assert not door.faults


async def test_a_client_that_leaves_behind_a_body_nobody_read(kind: str) -> None:
    handler = Waiting()
    async with open_kind(kind, handler, max_ahead=1000) as door:
        talk = await door.talk()
        await talk.send(post(bytes(900)))
        await handler.begun.wait()
        await talk.stream.aclose()
        await handler.cancelled.wait()
    if kind == "http1":  # it reads no further than that; the other has the whole body in one piece, whatever its size
        return
    handler = Waiting()
    async with open_kind(kind, handler, max_ahead=1000) as door:
        talk = await door.talk()
        await talk.send(post(bytes(2000)))
        await handler.begun.wait()
        await talk.stream.aclose()
        await handler.cancelled.wait()


async def test_a_client_that_leaves_within_its_body(kind: str) -> None:
    raised: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        begun.set()
        try:
            await exchange.body(LIMIT)
        except PeerGone as error:
            raised.append(error)
            raise

    begun = trio.Event()
    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(post(b"hello")[:-1])
        await begun.wait()
        await talk.stream.aclose()
        await door.ended()
    assert len(raised) == 1
    assert door.records[0].ending == "gone"


async def test_a_client_that_leaves_after_its_answer_cancels_nothing(kind: str) -> None:
    rest = trio.Event()
    settled = False

    async def handler(exchange: Exchange) -> None:
        nonlocal settled
        await exchange.reply(200, [], b"all of it")
        await rest.wait()
        settled = True

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(GET)
        await talk.answer()
        await talk.stream.aclose()
        await trio.sleep(0.02)
        rest.set()
        await door.ended()
    assert settled
    assert door.records[0].ending == "whole"


async def test_a_send_to_a_client_that_is_gone(kind: str) -> None:
    """The handler learns it from the send, where it is shielded from the cancellation."""
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

    async with open_kind(kind, handler) as door:
        stream = await door.stream()
        await stream.send_all(GET)
        await stream.receive_some(100)
        await trio.aclose_forcefully(stream)
        await door.ended()
    assert len(raised) == 1
    assert door.records[0].ending == "gone"


async def flood(exchange: Exchange) -> None:
    await exchange.start(200, [])
    while exchange.request.path == "/flood":
        await exchange.send(bytes(1 << 16))
    await exchange.finish()


@pytest.mark.parametrize("keeps_it", [False, True])
async def test_a_stalled_client_is_cut_and_others_do_not_notice(kind: str, keeps_it: bool) -> None:
    raised: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        try:
            await flood(exchange)
        except PeerStalled as error:
            raised.append(error)
            with pytest.raises(PeerStalled):
                await exchange.send(b"more")
            if not keeps_it:
                raise

    async with open_kind(kind, handler, write_deadline=0.3) as door:
        stalled = await door.talk(receive_buffer=4096)
        await stalled.send(GET.replace(b"/", b"/flood", 1))
        other = await door.talk()
        answered = 0
        while not door.door.snapshot().evicted:
            await other.send(GET)
            assert (await other.answer()).status == 200
            answered += 1
        assert answered > 1
        with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)):
            await stalled.answer()
        await trio.aclose_forcefully(stalled.stream)
    assert len(raised) == 1
    assert {record.ending for record in door.records} == {"whole", "stalled"}
    assert not door.faults


# What a handler does wrong.


class Broken(Exception):
    """Not of our family: a bug."""


def raising(*errors: Exception, after: Step | None = None) -> Callable[[Exchange], Awaitable[None]]:
    async def handler(exchange: Exchange) -> None:
        if after:
            await after(exchange)
        if len(errors) == 1:
            raise errors[0]
        raise ExceptionGroup("of a nursery", errors)

    return handler


@pytest.mark.parametrize(
    ("errors", "status", "told"),
    [
        ([UnknownModel("No such model.")], 404, False),
        ([Broken("secret")], 500, True),
        ([LocalProtocolError("secret")], 500, True),
        ([PeerGone("b"), UnknownModel("a")], 404, False),
        ([UnknownModel("a"), ExceptionGroup("inner", [PeerGone("b"), Broken("secret")])], 500, True),
    ],
)
async def test_an_error_before_the_answer_is_the_answer(
    kind: str, errors: list[Exception], status: int, told: bool
) -> None:
    async with open_kind(kind, raising(*errors)) as door:
        talk = await door.talk()
        for _ in range(2):  # the connection lives on
            await talk.send(GET)
            answer = await talk.answer()
            assert answer.status == status
            assert b"secret" not in answer.body
    assert len(door.faults) == 2 * told
    assert (door.records[0].ending, door.records[0].status) == ("whole", status)
    assert door.records[0].error is not None


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_error_after_the_head_cuts_the_answer(kind: str, version: bytes) -> None:
    async with open_kind(kind, raising(UnknownModel("late"), after=started)) as door:
        stream = await door.stream()
        await stream.send_all(GET.replace(b"1.1", version))
        received = b""
        ended = True
        try:
            while data := await stream.receive_some(1000):
                received += data
        except trio.BrokenResourceError:
            ended = False
        assert ended == (version == b"1.1")  # a clean end would say that an HTTP/1.0 body is whole
        assert not received.endswith(b"0\r\n\r\n")
    assert door.records[0].ending == "cut"


MISUSES: dict[str, Step] = {
    "nothing at all": lambda exchange: exchange.body(LIMIT),
    "send first": lambda exchange: exchange.send(b"x"),
    "finish first": lambda exchange: exchange.finish(),
    "a status of no answer": lambda exchange: exchange.reply(100, [], b""),
    "no header name": lambda exchange: exchange.reply(200, [(b"a b", b"")], b""),
    "no header value": lambda exchange: exchange.reply(200, [(b"a", b"b\r\nc: d")], b""),
    "framing": lambda exchange: exchange.start(200, [(b"transfer-encoding", b"chunked")]),
}


@pytest.mark.parametrize("misuse", MISUSES)
async def test_misuse_before_the_answer_is_a_fault_and_a_500(kind: str, misuse: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await MISUSES[misuse](exchange)

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(post(b"x"))
        assert (await talk.answer()).status == 500
    assert isinstance(door.faults[0], LocalProtocolError)


async def test_misuse_after_the_answer(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, [], b"")
        for misuse in (exchange.send(b"x"), exchange.finish(), exchange.start(200, []), exchange.upgrade()):
            with pytest.raises(LocalProtocolError):
                await misuse

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(GET)
        assert (await talk.answer()).status == 200
        await door.ended()
    assert not door.faults


async def test_two_tasks_that_send_at_once(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [])
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                while True:
                    await exchange.send(bytes(1 << 16))

            nursery.start_soon(fill)
            await trio.sleep(0.3)
            with pytest.raises(LocalProtocolError, match="two tasks"):
                await exchange.send(b"two")
            nursery.cancel_scope.cancel()
        done.set()

    done = trio.Event()
    async with open_kind(kind, handler) as door:
        talk = await door.talk(receive_buffer=4096)
        await talk.send(GET)
        await done.wait()


@pytest.mark.parametrize("head_first", [False, True])
async def test_abort_cuts_at_once_and_lets_the_handler_go_on(kind: str, head_first: bool) -> None:
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

    async with open_kind(kind, handler) as door:
        talk = await door.talk()
        await talk.send(GET)
        received = await talk.closed()
        assert received.endswith(b"4\r\npart\r\n") == head_first
        closed.set()
        await door.ended()
    assert went_on
    assert door.records[0].ending == "cut"


# Stop.


async def test_stop_closes_idle_connections_and_lets_others_finish(kind: str) -> None:
    go = trio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.method == "POST":
            begun.set()
            await go.wait()
        await exchange.reply(200, [], b"done")

    begun = trio.Event()
    async with open_kind(kind, handler, stops=True) as door:
        used, busy = await door.talk(), await door.talk()
        await used.send(GET)
        assert (await used.answer()).status == 200
        await busy.send(post(b""))
        await begun.wait()
        door.door.stop(grace=10)
        assert door.door.snapshot().stopping
        assert await used.closed() == b""
        with pytest.raises(OSError, match="refused"):
            await door.stream()
        go.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers[b"connection"]) == (b"done", b"close")
        assert await busy.closed() == b""


@pytest.mark.parametrize("then_shorter", [False, True])
async def test_what_outlasts_the_grace_is_cut(kind: str, then_shorter: bool) -> None:
    handler = Waiting(started)
    async with open_kind(kind, handler, stops=True) as door:
        talk = await door.talk()
        await talk.send(GET)
        await handler.begun.wait()
        door.door.stop(grace=20 if then_shorter else 0.1)
        if then_shorter:
            door.door.stop(grace=0.1)
            door.door.stop(grace=100)  # does not lengthen it
        with pytest.raises(h11.RemoteProtocolError):
            await talk.answer()
        await handler.cancelled.wait()


async def test_a_stalled_client_does_not_outlast_the_grace(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        begun.set()
        await flood(exchange)

    begun = trio.Event()
    async with open_kind(kind, handler, stops=True, write_deadline=25) as door:
        talk = await door.talk(receive_buffer=4096)
        await talk.send(GET.replace(b"/", b"/flood", 1))
        await begun.wait()
        await trio.sleep(0.2)
        since = trio.current_time()
        door.door.stop(grace=0.1)
        await door.ended()
        assert trio.current_time() - since < 5


async def test_a_client_that_says_nothing_does_not_hold_up_the_stop(kind: str) -> None:
    async with open_kind(kind, echo, stops=True) as door:
        silent = await trio.open_tcp_stream("127.0.0.1", door.port)
        while not door.door.snapshot().connections:
            await trio.sleep(0.002)
        since = trio.current_time()
        door.door.stop(grace=25)
        assert await Talk(silent).closed() == b""
        assert trio.current_time() - since < 5
        await silent.aclose()


# Against another client.


async def test_against_the_standard_librarys_client(kind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await (three_parts if exchange.request.path == "/stream" else echo)(exchange)

    def foreign(door: OpenDoor) -> None:
        if kind == "tls":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", door.port, timeout=30, context=trusting()
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
        local = None
        for _ in range(2):
            for method, path, body, encode, expected in [
                ("GET", "/", None, False, b"GET "),
                ("POST", "/", b"x" * 300_000, False, b"POST " + b"x" * 300_000),
                ("POST", "/", iter([b"chunked ", b"upload"]), True, b"POST chunked upload"),
                ("HEAD", "/stream", None, False, b""),
                ("GET", "/stream", None, False, b"zeroonetwothree"),
                ("PUT", "/", gzip.compress(b"small"), False, b"PUT small"),
            ]:
                headers = {"content-encoding": "gzip"} if method == "PUT" else {}
                connection.request(method, path, body=body, headers=headers, encode_chunked=encode)
                local = local or connection.sock.getsockname()
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, expected)
        assert connection.sock.getsockname() == local, "the connection was not kept"
        connection.close()

    async with open_kind(kind, handler) as door:
        await trio.to_thread.run_sync(foreign, door)
    assert not door.faults
