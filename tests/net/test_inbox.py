"""The inbox: filled by the hub or by a task, taken from, and left in any state, with nothing lost."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from kirostream.net.hub import current_hub, opened
from kirostream.net.inbox import Inbox

BOUND = 100


@asynccontextmanager
async def inbox(hub: bool) -> AsyncIterator[tuple[Inbox, trio.SocketStream, list[str]]]:
    """An inbox that is being filled, who sends to it, and whether it told of the end."""
    ends: list[str] = []
    with opened(wanted=hub):
        if hub and current_hub() is None:
            pytest.skip("this platform has no epoll, so each task waits by itself")
        near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
        async with near, far, trio.open_nursery() as nursery:
            box = Inbox(near, BOUND, lambda: ends.append("told"), near.socket)
            nursery.start_soon(box.fill)
            yield box, far, ends
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hub", [True, False])
async def test_what_comes_is_taken_until_the_end(hub: bool) -> None:
    async with inbox(hub) as (box, far, ends):
        await far.send_all(b"one")
        assert await box.take() == b"one"
        for _ in range(5):  # more than the bound, so that the filler waits, and goes on
            await far.send_all(b"x" * BOUND)
        got = b""
        while len(got) < 5 * BOUND:
            got += await box.take()
        assert got == b"x" * 5 * BOUND
        assert not ends
        await far.send_eof()
        assert await box.take() == b""
        assert await box.take() == b""
        assert box.ended
        assert ends == ["told"]


@pytest.mark.parametrize("state", ["waits", "has some", "is full"])
@pytest.mark.parametrize("hub", [True, False])
async def test_who_leaves_gets_what_is_there_and_the_stream(hub: bool, state: str) -> None:
    async with inbox(hub) as (box, far, ends):
        await trio.testing.wait_all_tasks_blocked()
        sent = {"waits": b"", "has some": b"a" * 10, "is full": b"b" * 3 * BOUND}[state]
        if sent:
            await far.send_all(sent)
            while not len(box):
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
        assert await box.leave() == sent
        assert not box.ended
        assert not ends
        await far.send_all(b"for whoever reads now")
        assert await box._stream.receive_some() == b"for whoever reads now"
        await far.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert not ends


@pytest.mark.parametrize("hub", [True, False])
async def test_who_leaves_after_the_end_waits_for_nobody(hub: bool) -> None:
    async with inbox(hub) as (box, far, ends):
        await far.send_all(b"last")
        await far.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        while not ends:
            await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            assert await box.leave() == b"last"
