"""The hub: what comes on its sockets is taken while Trio sleeps, and Trio misses nothing by it."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from kirostream.net import hub
from kirostream.net.hub import Come, Hub, current_hub, opened


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, non-blocking."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def the_hub() -> Iterator[Callable[[], Hub]]:
    """Skips where there can be none; gives a function that says which one is open."""

    def found() -> Hub:
        open_now = current_hub()
        if open_now is None:
            pytest.skip("this platform has no epoll, so each task waits by itself")
        return open_now

    yield found  # noqa: PT022  the tests open it themselves, in their own run


def collector(into: list[bytes], until: bytes) -> Come:
    """Takes what the hub has read, until something."""

    def take(raw: bytes | OSError | None) -> bool:
        assert isinstance(raw, bytes)
        into.append(raw)
        return raw != until

    return take


def forever(raw: bytes | OSError | None) -> bool:
    return True


async def test_what_comes_is_taken_while_the_task_sleeps(the_hub: Callable[[], Hub]) -> None:
    laps = 0

    class Laps(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            nonlocal laps
            laps += 1

    with opened(), pair() as (ours, theirs):
        found: list[bytes] = []

        def take(raw: bytes | OSError | None) -> bool:
            assert isinstance(raw, bytes)
            found.append(raw)
            if len(found) < 50:
                theirs.send(b"%d" % len(found))
            return len(found) < 50

        counter = Laps()
        trio.lowlevel.add_instrument(counter)
        theirs.send(b"0")
        await the_hub().each(ours, take)
        trio.lowlevel.remove_instrument(counter)
        assert found == [b"%d" % n for n in range(50)]
        assert laps < 5  # fifty tokens, and hardly a lap of the scheduler


async def test_trio_goes_on_beside_it(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, theirs), pair() as (plain, other):
        order: list[str] = []
        found: list[bytes] = []

        async def sleeper() -> None:
            await trio.sleep(0.02)
            order.append("slept")
            other.send(b"x")

        async def reader() -> None:
            await trio.lowlevel.wait_readable(plain)
            order.append("read")
            await trio.to_thread.run_sync(order.append, "thread")
            theirs.send(b"end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            nursery.start_soon(reader)
            await the_hub().each(ours, collector(found, b"end"))
        assert order == ["slept", "read", "thread"]
        assert found == [b"end"]


async def test_a_deadline_is_kept_while_sockets_are_never_silent(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, theirs):

        def take(raw: bytes | OSError | None) -> bool:
            assert isinstance(raw, bytes)
            ours.send(raw)
            return True

        theirs.send(b"x")
        ours.send(b"y")

        def echo(raw: bytes | OSError | None) -> bool:
            assert isinstance(raw, bytes)
            theirs.send(raw)
            return True

        with trio.move_on_after(0.05) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(the_hub().each, ours, take)
                nursery.start_soon(the_hub().each, theirs, echo)
        assert scope.cancelled_caught
        assert repr(the_hub()) == "<Hub of 0 sockets>"


async def test_a_task_that_a_take_wakes_goes_on_at_once(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, theirs):
        event = trio.Event()

        def take(raw: bytes | OSError | None) -> bool:
            event.set()
            return True

        async def wakes() -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wakes)
                nursery.start_soon(the_hub().each, ours, take)
                await trio.testing.wait_all_tasks_blocked()
                theirs.send(b"x")


async def test_what_take_raises_comes_out_in_its_task_and_nowhere_else(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, theirs), pair() as (more, others):
        found: list[bytes] = []
        theirs.send(b"x")
        with pytest.raises(ZeroDivisionError):
            await the_hub().each(ours, lambda raw: 1 // 0 > 0)
        others.send(b"end")
        await the_hub().each(more, collector(found, b"end"))
        assert found == [b"end"]


async def test_cancelled_the_socket_is_off_at_once_and_can_be_watched_again(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, theirs):
        with trio.move_on_after(0.01):
            await the_hub().each(ours, forever)
        found: list[bytes] = []
        theirs.send(b"end")
        await the_hub().each(ours, collector(found, b"end"))
        assert found == [b"end"]


async def test_whoever_waits_for_a_socket_that_is_closed_is_woken(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, _):
        async with trio.open_nursery() as nursery:

            async def waits() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await the_hub().each(ours, forever)

            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            the_hub().closing(ours)
        the_hub().closing(ours)  # nobody waits: nothing happens


async def test_the_idle_are_found_idle_and_the_clock_jumps(
    the_hub: Callable[[], Hub], autojump_clock: trio.testing.MockClock
) -> None:
    with opened(), pair() as (ours, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(the_hub().each, ours, forever)
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            await trio.sleep(3600)
            assert trio.current_time() == before + 3600
            nursery.cancel_scope.cancel()


async def test_a_signal_is_heard_while_the_hub_waits(the_hub: Callable[[], Hub]) -> None:
    with opened(), pair() as (ours, _), trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(the_hub().each, ours, forever)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGUSR1)
            async for number in signals:
                assert number == signal.SIGUSR1
                break
            nursery.cancel_scope.cancel()


async def test_without_what_it_needs_of_trio_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_make", lambda: None)
    with opened() as none:
        assert none is None
        assert current_hub() is None


async def test_this_trio_has_what_it_needs(the_hub: Callable[[], Hub]) -> None:
    assert current_hub() is None
    with opened() as one:
        the_hub()
        assert one is current_hub()
    assert current_hub() is None


async def test_the_end_and_a_reset_are_told(the_hub: Callable[[], Hub]) -> None:
    told: list[bytes | OSError | None] = []

    def come(raw: bytes | OSError | None) -> bool:
        told.append(raw)
        return False

    with opened(), pair() as (ours, theirs):
        theirs.close()
        await the_hub().each(ours, come)
    listener = socket.create_server(("127.0.0.1", 0))
    with opened(), listener, socket.create_connection(listener.getsockname()) as ours:
        theirs = listener.accept()[0]
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        await the_hub().each(ours, come)
    end, reset = told
    assert end == b""
    assert isinstance(reset, ConnectionResetError)


async def test_a_socket_that_stays_is_waited_for_without_a_call(
    the_hub: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(), pair() as (ours, theirs):
        stray = trio.Event()

        def rest(raw: bytes | OSError | None) -> bool:
            assert raw == b"early"
            stray.set()
            return True

        here = the_hub()
        here.hold(ours, rest)
        with monkeypatch.context() as frozen:
            frozen.setattr(here, "_epoll", None)  # whoever wants to register something fails
            for n in range(3):
                found: list[bytes] = []
                theirs.send(b"%d" % n)
                await here.each(ours, collector(found, b"%d" % n))
                assert found == [b"%d" % n]
            with trio.move_on_after(0) as given_up:
                await here.each(ours, forever)
            assert given_up.cancelled_caught
            theirs.send(b"early")
            await stray.wait()
        assert repr(here) == "<Hub of 1 sockets>"
        here.closing(ours)
        assert repr(here) == "<Hub of 0 sockets>"


async def test_a_socket_that_stays_may_leave_and_its_waiter_is_woken_when_it_is_closed(
    the_hub: Callable[[], Hub],
) -> None:
    with opened(), pair() as (ours, theirs):
        left = trio.Event()

        def leave(raw: bytes | OSError | None) -> bool:
            assert raw == b""
            left.set()
            return False

        here = the_hub()
        here.hold(ours, leave)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await here.each(ours, forever)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            here.closing(ours)
        assert repr(here) == "<Hub of 0 sockets>"
        here.hold(ours, leave)
        theirs.close()
        await left.wait()
        assert repr(here) == "<Hub of 0 sockets>"
