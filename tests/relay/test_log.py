"""The log: one writer, any number of watchers, each at their own pace."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import StreamCut
from kirostream.relay.log import Cursor, Rendering, TurnLog
from kirostream.turn.events import BlockDelta, Stop, TurnEnded, TurnEvent, TurnFailed, TurnStarted
from kirostream.turn.usage import Usage

END = TurnEnded(Stop.END, Usage())


class CountingWriter:
    """Says every event as `<n:text>`, in as many blocks as the delta has pieces."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, event: TurnEvent) -> list[bytes]:
        self.written += 1
        if isinstance(event, BlockDelta):
            return [b"<" + piece + b">" for piece in event.pieces]
        return [] if isinstance(event, TurnStarted) else [b"<end>"]

    def heartbeat(self) -> bytes:
        return b":"


def delta(*pieces: bytes) -> BlockDelta:
    return BlockDelta(0, pieces)


async def test_a_watcher_waits_for_more() -> None:
    log = TurnLog()
    seen: list[int] = []

    async def watch() -> None:
        at = 0
        while await log.beyond(at):
            at = len(log.events)
            seen.append(at)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        log.append([TurnStarted("m"), delta(b"a")])
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [2]
        log.append([delta(b"b"), END])
    assert seen == [2, 4]
    assert log.finished


async def test_a_nudge_wakes_without_news() -> None:
    log = TurnLog()
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            assert not await log.beyond(0)
            assert not log.finished

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        log.nudge()


async def test_the_pump_waits_for_a_watcher_that_is_a_window_behind() -> None:
    log = TurnLog(window=4)
    passed = trio.Event()

    async def pump() -> None:
        for _ in range(4):
            await log.room()
            log.append([delta(b"x")])
        await log.room()
        passed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump)
        await trio.testing.wait_all_tasks_blocked()
        assert len(log.events) == 4
        assert not passed.is_set()
        log.mark_read(1)
        await trio.testing.wait_all_tasks_blocked()
        assert passed.is_set()


def test_nothing_follows_the_end() -> None:
    log = TurnLog()
    log.append([TurnFailed(StreamCut("cut"))])
    log.append([delta(b"late")])
    assert len(log.events) == 1


@given(st.lists(st.lists(st.binary(min_size=1, max_size=6), max_size=4), max_size=8), st.integers(1, 40), st.data())
def test_any_reading_gives_the_same_bytes(deltas: list[list[bytes]], at_most: int, data: st.DataObject) -> None:
    """Whatever is read in whatever pieces, while the log grows: the bytes in order, each once."""
    log, writer = TurnLog(), CountingWriter()
    rendering = Rendering(log, writer)
    got, at = b"", Cursor()
    for pieces in deltas:
        log.append([BlockDelta(0, pieces)])
        for _ in range(data.draw(st.integers(0, 3))):
            more, at = rendering.read(at, at_most)
            got += more
    log.append([END])
    while (step := rendering.read(at, at_most))[1] != at:
        got, at = got + step[0], step[1]
    assert got == b"".join(b"<" + piece + b">" for pieces in deltas for piece in pieces) + b"<end>"
    assert writer.written == len(log.events)


@given(st.lists(st.lists(st.binary(min_size=1, max_size=6), max_size=4), max_size=8), st.integers(1, 40), st.data())
def test_one_who_reads_on_needs_nothing_kept(deltas: list[list[bytes]], at_most: int, data: st.DataObject) -> None:
    log, writer = TurnLog(), CountingWriter()
    rendering = Rendering(log, writer, kept=False)
    got, at = b"", Cursor()
    for pieces in (*deltas, None):
        event: TurnEvent = END if pieces is None else BlockDelta(0, pieces)
        log.append([event])
        if at.event == len(log.events) - 1 and not at.block and data.draw(st.booleans()):  # as a lane goes
            got, at = got + rendering.follow(event), Cursor(len(log.events))
        for _ in range(data.draw(st.integers(0, 3))):
            before = at.event
            more, at = rendering.read(at, at_most)
            got += more
            assert len(rendering._blocks) <= len(log.events) - before
    while (step := rendering.read(at, at_most))[1] != at:
        got, at = got + step[0], step[1]
    assert got == b"".join(b"<" + piece + b">" for pieces in deltas for piece in pieces) + b"<end>"
    assert writer.written == len(log.events)
    assert repr(rendering) == f"<Rendering {len(log.events)} of {len(log.events)} events>"


def test_two_watchers_cost_one_encoding() -> None:
    log, writer = TurnLog(), CountingWriter()
    rendering = Rendering(log, writer)
    log.append([TurnStarted("m"), delta(b"a", b"b"), END])
    first, _ = rendering.read(Cursor())
    again, _ = rendering.read(Cursor())
    assert first == again == b"<a><b><end>"
    assert writer.written == 3


def test_a_read_is_bounded() -> None:
    log = TurnLog()
    rendering = Rendering(log, CountingWriter())
    log.append([delta(b"aaaa", b"bbbb", b"cccc")])
    assert rendering.read(Cursor(), at_most=12) == (b"<aaaa><bbbb>", Cursor(0, 2))
    assert rendering.read(Cursor(0, 2), at_most=1) == (b"<cccc>", Cursor(1, 0))


def test_all_blocks_and_the_place_behind_some_of_them() -> None:
    log = TurnLog()
    rendering = Rendering(log, CountingWriter())
    assert rendering.blocks() == []
    assert rendering.behind(3) == Cursor(0, 0)
    log.append([TurnStarted("m"), delta(b"a", b"b"), delta(b"c"), END])
    whole = [b"<a>", b"<b>", b"<c>", b"<end>"]
    assert rendering.blocks() == whole
    for count in range(6):
        assert rendering.read(rendering.behind(count))[0] == b"".join(whole[count:])
