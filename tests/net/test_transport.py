"""Our own way to an upstream: connections kept, dead, taken again; what a server may do to us."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
import trio.testing

from helpers.servers import CHUNKED, COUNTED, OK, Peer, always, serving, silent
from kirostream.errors import LocalProtocolError, SettingsError, StreamCut, UpstreamDown, UpstreamTimeout
from kirostream.net import wire
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.net.upstream import place_of
from kirostream.net.wire import Wire

# --- connections that are kept ------------------------------------------------------------------------------------


async def test_one_connection_serves_one_after_the_other() -> None:
    async with serving(always()) as server, HttpClient() as client:
        for _ in range(5):
            assert (await client.fetch("POST", server.url, [], b"x"))[2] == b"hi"
        assert server.requests == [[b"POST"] * 5]
        assert repr(client._way) == "<Transport: 0 busy, 1 idle>"
    assert client._way is None


async def test_as_many_connections_as_requests_and_the_youngest_is_used_again() -> None:
    settings = ClientSettings(idle_connections=3)
    async with serving(always()) as server, HttpClient(settings) as client:

        async def one() -> None:
            async with client.stream("GET", server.url, []) as response:
                started.append(None)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert await response.read_all(10) == b"hi"

        started: list[None] = []
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
        assert len(started) == len(server.peers) == 8
        assert repr(client._way) == "<Transport: 0 busy, 3 idle>"
        await server.settled(3)
        for _ in range(5):
            await client.fetch("GET", server.url, [])
        assert sorted(map(len, server.requests)) == [1] * 7 + [6]


async def test_idle_connections_are_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """After the deadline, or a second before the server gives them up."""
    async with serving(always()) as server, HttpClient(ClientSettings(idle_deadline=50)) as client:
        for pause, connections in ((49, 1), (49, 1), (51, 1), (0, 2)):
            await client.fetch("GET", server.url, [])
            assert len(server.peers) == connections
            await trio.sleep(pause)
    said = OK + b"keep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n"
    async with serving(always(said)) as server, HttpClient() as client:
        for pause, connections in ((3, 1), (5, 1), (0, 2)):
            await client.fetch("GET", server.url, [])
            assert len(server.peers) == connections
            await trio.sleep(pause)


async def test_connections_of_one_origin_do_not_serve_another() -> None:
    async with serving(always()) as one, serving(always()) as other, HttpClient() as client:
        for _ in range(2):
            for server in (one, other):
                await client.fetch("GET", server.url, [])
                await client.fetch("GET", f"http://localhost:{server.port}/", [])
        assert (len(one.peers), len(other.peers)) == (2, 2)
        assert repr(client._way) == "<Transport: 0 busy, 4 idle>"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
        (COUNTED + b"HTTP/1.1 200 OK\r\n", b"hi"),
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + COUNTED, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\nhi", b""),
    ],
    ids=["close", "HTTP/1.0", "more than its length", "a second answer", "a body where none is"],
)
async def test_connections_that_are_not_kept(answer: bytes, body: bytes) -> None:
    async with serving(always(answer)) as server, HttpClient() as client:
        for _ in range(2):
            assert (await client.fetch("GET", server.url, []))[2] == body
        assert server.requests == [[b"GET"], [b"GET"]]
        await server.settled()


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next() -> None:
    more = trio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        await more.wait()
        await peer.say(OK + b"content-length: 4\r\n\r\nevil")
        said.set()
        await peer.gone()

    said = trio.Event()
    async with serving(talk) as server, HttpClient() as client:
        await client.fetch("GET", server.url, [])
        more.set()
        await said.wait()
        assert (await client.fetch("GET", server.url, []))[2] == b"hi"
        assert server.requests == [[b"GET"], [b"GET"]]


async def test_what_comes_while_nobody_waits_is_read_by_who_waits_next() -> None:
    second, third = trio.Event(), trio.Event()

    async def talk(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.say(CHUNKED + b"1\r\na\r\n")
            await second.wait()
            await peer.say(b"1\r\nb\r\n")
            await third.wait()
            await peer.say(b"1\r\nc\r\n0\r\n\r\n")
        await peer.gone()

    async with serving(talk) as server, HttpClient() as client:
        for _ in range(2):
            async with client.stream("GET", server.url, []) as response:
                assert await response.read_some() == b"a"
                second.set()
                await trio.testing.wait_all_tasks_blocked(0.01)
                third.set()
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert await response.read_all(10) == b"bc"
            assert repr(client._way) == "<Transport: 0 busy, 1 idle>"
        assert len(server.peers) == 1


async def test_a_connection_is_kept_when_the_last_chunk_is_there_though_nobody_read_it() -> None:
    async def talk(peer: Peer) -> None:
        while await peer.request():
            await peer.say(CHUNKED + b"2\r\nhi\r\n")
            await read.acquire()
            await peer.say(b"0\r\n\r\n")
            said.release()

    read, said = trio.Semaphore(0), trio.Semaphore(0)
    async with serving(talk) as server, HttpClient() as client:
        for _ in range(2):
            async with client.stream("POST", server.url, []) as response:
                assert await response.read_some() == b"hi"
                read.release()
                await said.acquire()
        assert server.requests == [[b"POST"] * 2]
        with suppress(KeyError):  # left by an exception, nothing is read any more
            async with client.stream("POST", server.url, []) as response:
                read.release()
                await said.acquire()
                raise KeyError
        await server.settled()


async def test_the_client_is_closed_under_a_stream() -> None:
    async with serving(always(CHUNKED + b"2\r\nhi\r\n")) as server:
        client = HttpClient()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                async with client.stream("GET", server.url, []) as response:
                    assert await response.read_some() == b"hi"
                    with pytest.raises(StreamCut):
                        await response.read_some()
                    assert await response.read_some() == b""

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.aclose()
        await server.settled()


async def test_the_client_is_closed_while_an_answer_is_read_to_its_end() -> None:
    async with serving(always(CHUNKED + b"2\r\nhi\r\n0\r\n\r\n")) as server:
        client = HttpClient()
        async with client.stream("GET", server.url, []) as response:
            await client.aclose()
            assert await response.read_all(10) == b"hi"
        await server.settled()


async def test_the_client_is_closed_while_a_request_waits() -> None:
    """Before there is a connection, while it is sent, while the answer is waited for: no connection comes after."""
    size = {"sending": 64 << 20, "waiting": 10}
    for when in ("connecting", "sending", "waiting"):
        async with serving(silent) as server:
            client = HttpClient()
            async with trio.open_nursery() as nursery:

                async def ask(client: HttpClient = client, url: str = server.url, when: str = when) -> None:
                    with pytest.raises((UpstreamDown, LocalProtocolError)):
                        await client.fetch("POST", url, [], bytes(size.get(when, 10)))

                nursery.start_soon(ask)
                if when == "connecting":
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                await client.aclose()
            assert len(server.peers) <= 1
            assert repr(client) == "<HttpClient: 0 open, 0 requests, closed>"


# --- connections that have died -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_connection_that_died_while_idle_is_not_used(how: str) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        if how == "reset":
            await peer.reset()

    async with serving(talk) as server, HttpClient() as client:
        for _ in range(3):
            assert (await client.fetch("POST", server.url, [], b"turn"))[0] == 200
            await server.settled()
        assert server.requests == [[b"POST"]] * 3


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The farewell of a server passes the next request on its way: it was not seen before."""
    monkeypatch.setattr(Wire, "is_alive", lambda wire: True)


async def test_a_turn_that_nobody_received_is_sent_again(blind: None) -> None:
    """The server closed before the request came: its machine never acknowledged it."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)

    async with serving(talk) as server, HttpClient() as client:
        for _ in range(5):
            assert (await client.fetch("POST", server.url, [], b"turn"))[2] == b"hi"
            await server.settled()
        assert server.requests == [[b"POST"]] * 5


async def test_where_one_connection_has_died_the_older_ones_are_not_tried(blind: None) -> None:
    both = trio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            both.set()
        await both.wait()
        await peer.say(COUNTED)

    async with serving(talk) as server, HttpClient() as client:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.fetch, "POST", server.url, [], b"turn")
        await server.settled()
        assert repr(client._way) == "<Transport: 0 busy, 2 idle>"
        await client.fetch("POST", server.url, [], b"turn")
        assert server.requests == [[b"POST"]] * 3
        assert repr(client._way) == "<Transport: 0 busy, 1 idle>"


async def test_a_large_turn_that_did_not_get_out_whole_is_sent_again(blind: None) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        if not peer.number:
            await peer.reset()

    async with serving(talk) as server, HttpClient() as client:
        for _ in range(2):
            assert (await client.fetch("POST", server.url, [], bytes(4 << 20)))[2] == b"hi"
        assert server.requests == [[b"POST"]] * 2


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_turn_that_may_have_been_received_is_not_sent_again(how: str) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        await peer.request()
        if how == "reset":
            await peer.reset()

    async with serving(talk) as server, HttpClient() as client:
        await client.fetch("POST", server.url, [], b"turn")
        with pytest.raises(UpstreamDown, match="before it answered"):
            await client.fetch("POST", server.url, [], b"turn")
        assert server.requests == [[b"POST"] * 2]
        await server.settled()
        assert repr(client._way) == "<Transport: 0 busy, 0 idle>"


async def test_a_turn_is_not_sent_again_without_proof(blind: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset says nothing, and other systems than Linux do not tell what was acknowledged."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(COUNTED)
        if peer.number == 1:
            await peer.reset()

    async with serving(talk) as server, HttpClient() as client:
        monkeypatch.setattr(wire.sys, "platform", "darwin")  # type: ignore[attr-defined]
        await client.fetch("POST", server.url, [], b"turn")
        await server.settled()
        with pytest.raises(UpstreamDown):
            await client.fetch("POST", server.url, [], b"turn")
        monkeypatch.undo()
        assert server.requests == [[b"POST"]]
        await client.fetch("POST", server.url, [], b"turn")


async def test_what_may_be_repeated_is_once(blind: None) -> None:
    """GET may be sent again, on a new connection, and only once."""
    dead = False

    async def talk(peer: Peer) -> None:
        await peer.request()
        if dead:
            return
        await peer.say(COUNTED)
        await peer.request()

    async with serving(talk) as server, HttpClient() as client:
        await client.fetch("GET", server.url, [])
        assert (await client.fetch("GET", server.url, []))[2] == b"hi"
        assert server.requests == [[b"GET"] * 2, [b"GET"]]
        dead = True
        with pytest.raises(UpstreamDown):
            await client.fetch("GET", server.url, [])
        assert server.requests == [[b"GET"] * 2, [b"GET"] * 2, [b"GET"]]


@pytest.mark.parametrize("how", ["half", "whole"])
async def test_a_refusal_that_comes_before_all_was_sent(how: str) -> None:
    """The server says 413 and closes, one side or both, and the rest of the request has nowhere to go."""

    async def talk(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        if how == "half":
            assert isinstance(peer.stream, trio.SocketStream)
            await peer.stream.send_eof()
            await peer.gone()

    async with serving(talk) as server, HttpClient() as client:
        for _ in range(2):
            assert (await client.fetch("POST", server.url, [], bytes(4 << 20)))[::2] == (413, b"no")
        assert len(server.peers) == 2
        await client.aclose()
        await server.settled()


async def test_a_server_that_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(silent) as server, HttpClient(ClientSettings(write_deadline=7)) as client:
        with pytest.raises(UpstreamTimeout, match="took nothing of the request for 7 s"):
            await client.fetch("POST", server.url, [], bytes(64 << 20))


# --- heads and bodies on a socket ---------------------------------------------------------------------------------


async def test_one_read_is_one_piece() -> None:
    body = b"".join(b"96\r\n" + b"x" * 150 + b"\r\n" for _ in range(100))
    pieces = []
    async with (
        serving(always(CHUNKED + body + b"0\r\n\r\n")) as server,
        HttpClient() as client,
        client.stream("GET", server.url, []) as response,
    ):
        while piece := await response.read_some():
            pieces.append(piece)
    assert b"".join(pieces) == b"x" * 15000
    assert len(pieces) <= 2


async def test_heads_before_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
    async with serving(always(b"HTTP/1.1 100 Continue\r\n\r\n" + early + COUNTED)) as server, HttpClient() as client:
        assert (await client.fetch("GET", server.url, []))[::2] == (200, b"hi")
    async with serving(always(early * 17 + COUNTED)) as server, HttpClient() as client:
        with pytest.raises(UpstreamDown, match="more than 16 heads"):
            await client.fetch("GET", server.url, [])
        await server.settled()


@pytest.mark.parametrize(
    "head",
    [
        OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        OK + b"x: " + b"y" * 70000,
    ],
)
async def test_an_answer_that_cannot_be_read(head: bytes) -> None:
    async with serving(always(head)) as server, HttpClient() as client:
        for _ in range(2):
            with pytest.raises(UpstreamDown, match=f"answer of 127.0.0.1:{server.port} cannot be read"):
                await client.fetch("GET", server.url, [])
        await server.settled()
        assert len(server.peers) == 2


async def test_a_server_that_drips(autojump_clock: trio.testing.MockClock) -> None:
    """A byte a second is never an answer; the caller's deadline ends it."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        with suppress(trio.BrokenResourceError):
            while True:
                await peer.stream.send_all(b"H")
                await trio.sleep(1)

    async with serving(talk) as server, HttpClient() as client:
        with trio.move_on_after(30.5) as scope:
            await client.fetch("GET", server.url, [])
        assert scope.cancelled_caught
        await server.settled()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PUT"])
async def test_whose_body_is_counted(method: str) -> None:
    answer = OK + b"content-length: 2\r\n\r\n" + (b"" if method == "HEAD" else b"hi")
    async with serving(always(answer)) as server, HttpClient() as client:
        for content in (b"", b"abc", bytes(100_000)):
            await client.fetch(method, server.url, [(b"x", b"y")], content)
        sent = server.peers[0].requests
        counted = [b"content-length" in each.lower() for each in sent]
        assert counted == [method in ("POST", "PUT"), True, True]
        assert sent[1].endswith(b"\r\nx: y\r\nContent-Length: 3\r\n\r\nabc")
        assert len(server.peers) == 1


async def test_headers_of_the_caller_win() -> None:
    headers = [(b"HOST", b"files.example"), (b"content-length", b"3")]
    async with serving(always()) as server, HttpClient() as client:
        await client.fetch("POST", server.url + "a%20b/ä?q=ü&r=[1]#part", headers, b"abc")
        assert server.peers[0].requests == [
            b"POST /a%20b/%C3%A4?q=%C3%BC&r=[1] HTTP/1.1\r\nHOST: files.example\r\ncontent-length: 3\r\n\r\nabc"
        ]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", [(b"a", b"b\n")]),
        ("GET", [(b"a", b"b\r\nc: d")]),
        ("GET", [(b"a", b"b\x00")]),
        ("GET", [(b"", b"b")]),
        ("GET", [(b"a:", b"b")]),
        ("GET", [(b"a", b"b"), (b"c\r\nd", b"e")]),
        ("GET", [(b"a", b"b\r\nc: d\r\n\r\nGET / HTTP/1.1")]),
        ("POST", [(b"content-length", b"4")]),
        ("POST", [(b"transfer-encoding", b"chunked")]),
        ("GET", [(b"upgrade", b"websocket")]),
        ("CONNECT", []),
        ("G ET", []),
        ("", []),
        ("GET\r\n", []),
    ],
)
async def test_a_request_that_cannot_be_sent(method: str, headers: list[tuple[bytes, bytes]]) -> None:
    async with serving(always()) as server, HttpClient() as client:
        with pytest.raises(LocalProtocolError):
            await client.fetch(method, server.url, headers, b"abc" if method == "POST" else b"")
        assert server.peers == []


@pytest.mark.parametrize(
    ("url", "label", "target"),
    [
        ("http://h", "h", b"/"),
        ("HTTP://H:80/", "h", b"/"),
        ("https://h:443/a?b", "h", b"/a?b"),
        ("http://h:443?b#c", "h:443", b"/?b"),
        ("http://[::1]:8080/", "[::1]:8080", b"/"),
        ("http://bücher.example/", "xn--bcher-kva.example", b"/"),
        ("http://h/a b%2Fc%zz", "h", b"/a%20b%2Fc%zz"),
    ],
)
def test_places(url: str, label: str, target: bytes) -> None:
    place = place_of(url)
    assert (place.label, place.target) == (label, target)


@pytest.mark.parametrize(
    "url",
    [
        "h/",
        "ftp://h/",
        "http:///",
        "http://h:x/",
        "http://h:99999/",
        "http://[::1/",
        "http://u:secret@h/",
        "http://h\r\nx/",
        "http://h/\r\nx: y",
        "http://a b/",
        "http://a%0d%0a/",
        "http://ab..\N{ZERO WIDTH SPACE}.c/",
    ],
)
def test_places_that_are_none(url: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        place_of(url)
    assert "secret" not in str(caught.value)


# --- foreign servers ----------------------------------------------------------------------------------------------


class Standard(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (body, self.path.encode()):
            self.wfile.write(b"%X\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("content-length", "1000")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def standard_library() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Standard) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/path"
        finally:
            server.shutdown()
            thread.join()


async def test_the_standard_library_for_a_server() -> None:
    with standard_library() as url:
        async with HttpClient() as client:
            for size in (1, 1000, 1_000_000):
                assert (await client.fetch("POST", url, [], b"x" * size))[2] == b"x" * size + b"/path"
                assert (await client.fetch("HEAD", url, []))[::2] == (404, b"")
            assert repr(client._way) == "<Transport: 0 busy, 1 idle>"


async def test_hypercorn_for_a_server() -> None:
    import hypercorn.config
    import hypercorn.trio

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        assert scope["type"] == "http"
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(0, len(body), 1000):
            await send({"type": "http.response.body", "body": body[at : at + 1000], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "CRITICAL"
    async with trio.open_nursery() as nursery, HttpClient() as client:
        bound = await nursery.start(
            lambda task_status: hypercorn.trio.serve(
                app, config, shutdown_trigger=trio.sleep_forever, task_status=task_status, mode="asgi"
            )
        )
        for size in (0, 3500, 300_000):
            assert (await client.fetch("POST", bound[0], [], b"x" * size))[2] == b"x" * size
        assert repr(client._way) == "<Transport: 0 busy, 1 idle>"
        nursery.cancel_scope.cancel()
