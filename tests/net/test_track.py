"""The track: tokens go from socket to socket without the interpreter, and whatever else comes finds it again."""

from __future__ import annotations

import ctypes
import json
import select
import socket
from collections.abc import Iterator

import pytest
import trio

from helpers.frames import event
from kirostream.evstream import FrameDecoder
from kirostream.net.framing import Chunked
from kirostream.net.hub import opened
from kirostream.net.quick import CORE, Outlet

if CORE == "python":
    pytest.skip("a track is compiled", allow_module_level=True)

from kirostream.net._wire import Track

TEMPLATE = b"<", b"|", b">"


def token(text: str) -> bytes:
    return event("assistantResponseEvent", json.dumps({"content": text}, separators=(",", ":")).encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def client() -> Iterator[tuple[Outlet, socket.socket]]:
    """Where a track writes to, and who reads there."""
    near, far = socket.socketpair()
    with near, far:
        yield Outlet(trio.socket.from_stdlib_socket(near)), far


def running(first: str = "zero") -> FrameDecoder:
    """A decoder in the middle of a run."""
    decoder = FrameDecoder(lift=("content",))
    decoder.feed_runs(token(first))
    return decoder


def said(far: socket.socket) -> bytes:
    body = Chunked()
    text = body.feed(far.recv(1 << 20))
    assert body.between_chunks
    return text


def never() -> None:
    raise AssertionError


def test_pieces_are_said_between_the_words_of_the_template(client: tuple[Outlet, socket.socket]) -> None:
    outlet, far = client
    track = Track(running().runs, outlet, TEMPLATE, 100, never)
    assert track.push(token("one") + token("two"))
    assert track.push(token("three"))
    assert said(far) == b"<one|two><three>"
    assert (track.count, track.sent) == (3, 16)
    assert track.take() == [b"one", b"two", b"three"]
    assert track.take() == []


@pytest.mark.parametrize("number", [0, 8, 99_999])
def test_numbered_each_piece_is_an_event_of_its_own(client: tuple[Outlet, socket.socket], number: int) -> None:
    outlet, far = client
    track = Track(running().runs, outlet, (b"<", b":", b">"), 100, never, number)
    assert track.push(token("one") + token("two"))
    assert track.push(token("three"))
    assert said(far) == b"<%d:one><%d:two><%d:three>" % (number, number + 1, number + 2)
    assert track.take() == [b"one", b"two", b"three"]


def test_a_piece_that_straddles_reads(client: tuple[Outlet, socket.socket]) -> None:
    outlet, far = client
    whole = b"".join(token(f"word {n} ") for n in range(30))
    for cut in (1, 5, 12, 40, 100, 250):
        decoder = running()
        track = Track(decoder.runs, outlet, (b"", b"", b""), 1 << 10, never)
        for at in range(0, len(whole), cut):
            assert track.push(whole[at : at + cut])
        assert decoder.buffered == 0
        assert said(far) == b"".join(f"word {n} ".encode() for n in range(30))


def test_what_is_no_run_or_too_much_is_not_taken(client: tuple[Outlet, socket.socket]) -> None:
    outlet, _ = client
    decoder = running()
    track = Track(decoder.runs, outlet, TEMPLATE, 10, never)
    assert not track.push(token("one") + event("meteringEvent", b"{}"))
    assert not track.push(token("eleven more"))
    assert not track.push(token("one")[:-1] + b"?")
    assert track.push(token("one"))
    assert track.is_open
    track.close()
    assert not track.push(token("two"))
    assert [frame.lifted for frame in decoder.feed(token("two"))] == [b"two"]


def test_who_is_behind_is_told_once_and_is_owed_the_rest(client: tuple[Outlet, socket.socket]) -> None:
    outlet, far = client
    assert outlet.sock is not None
    outlet.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    told: list[int] = []

    def behind() -> None:
        told.append(track.count)
        track.close()

    track = Track(running().runs, outlet, TEMPLATE, 1 << 20, behind)
    pushed = 0
    while track.push(token("x" * 900)):
        pushed += 1
        if told:
            break
    assert told == [pushed]
    assert not outlet.free
    body = Chunked()
    assert body.feed(far.recv(1 << 20) + outlet.unsent) == b"<%b>" % (b"x" * 900) * pushed
    assert body.between_chunks


async def test_tokens_are_carried_while_another_thread_has_the_interpreter(
    client: tuple[Outlet, socket.socket],
) -> None:
    outlet, far = client
    libc = ctypes.PyDLL(None)  # its calls keep the interpreter's lock

    class Poll(ctypes.Structure):
        _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))

    near, upstream = socket.socketpair()
    near.setblocking(False)
    sent = chunk(token("one")) + chunk(token("two"))
    watched = Poll(far.fileno(), select.POLLIN, 0)

    def other_thread() -> int:
        assert libc.send(upstream.fileno(), sent, len(sent), 0) == len(sent)
        found: int = libc.poll(ctypes.byref(watched), 1, 5000)
        return found

    with opened() as hub, near, upstream:
        if hub is None:
            pytest.skip("this platform has no epoll, so each task waits by itself")
        track = Track(running().runs, outlet, TEMPLATE, 100, never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.each, near, lambda raw: True)
            await trio.testing.wait_all_tasks_blocked()
            hub.put_on_track(near, track)
            assert await trio.to_thread.run_sync(other_thread) == 1
            assert said(far) == b"<one|two>"
            nursery.cancel_scope.cancel()


async def test_the_rest_of_a_read_goes_to_the_task(client: tuple[Outlet, socket.socket]) -> None:
    """What is no whole chunk, no run, or the end, finds its way; many sockets, ready at the same time."""
    outlet, far = client
    found: list[bytes | OSError | None] = []

    def come(raw: bytes | OSError | None) -> bool:
        found.append(raw)
        return raw != b""

    with opened() as hub:
        if hub is None:
            pytest.skip("this platform has no epoll, so each task waits by itself")
        pairs = [socket.socketpair() for _ in range(80)]  # more than one wait finds
        async with trio.open_nursery() as nursery:
            for near, _ in pairs:
                near.setblocking(False)
                nursery.start_soon(hub.each, near, come)
            await trio.testing.wait_all_tasks_blocked()
            for index, (near, upstream) in enumerate(pairs):
                if index % 2:
                    hub.put_on_track(near, Track(running().runs, outlet, TEMPLATE, 100, never))
                upstream.send(chunk(token("one"))[: 99 if index % 4 == 3 else None])
                upstream.close()
        for near, _ in pairs:
            near.close()
    carried = len(pairs) // 4
    assert said(far) == b"<one>" * carried
    assert found.count(b"") == len(pairs)
    assert found.count(chunk(token("one"))) == len(pairs) // 2
    assert found.count(chunk(token("one"))[:99]) == len(pairs) - len(pairs) // 2 - carried
