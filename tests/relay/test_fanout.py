"""Who follows a turn gets everything once, in order, whoever leads, leaves, is slow or is recalled meanwhile."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kirostream.net.quick import Outlet
from kirostream.relay.fanout import SLICE, Fanout
from kirostream.relay.log import START, Cursor, TurnLog
from kirostream.turn.events import BlockDelta, Stop, TurnEnded
from kirostream.turn.usage import Usage

END = TurnEnded(Stop.END, Usage())
WORDLESS = BlockDelta(0, ())


class Watcher:
    """Follows as `gateway.sse.Pump` does. It says what it is told to an offer; what it does not take is `kept`."""

    def __init__(self, log: TurnLog, fanout: Fanout[bytes], takes: bool = True) -> None:
        self.log = log
        self.fanout = fanout
        self.takes = takes
        self.at = START
        self.said = b""
        self.kept = b""
        self.reads = 0
        self.returns = 0
        self.scope = trio.CancelScope()

    def read(self, at: Cursor) -> tuple[bytes | None, Cursor]:
        self.reads += 1
        return text(self.log, at.event) or None, Cursor(len(self.log.events))

    def offer(self, message: bytes) -> bool:
        assert not self.kept, "it was offered more before it had sent the rest"
        if self.takes:
            self.said += message
        else:
            self.kept = message
        return self.takes

    async def run(self) -> None:
        with self.scope:
            while not (self.log.finished and self.at.event >= len(self.log.events)):
                if self.fanout.takes(self.at):
                    self.at = await self.fanout.follow(self, self.at)
                    self.returns += 1
                else:
                    await self.log.beyond(self.at.event)
                await trio.lowlevel.checkpoint()
                self.said, self.kept = self.said + self.kept, b""
                message, self.at = self.read(self.at)
                self.said += message or b""


class Wired(Watcher):
    """One with a socket, which is written to. What was `said` is what comes out of it."""

    def __init__(self, log: TurnLog, fanout: Fanout[bytes]) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.outlet = Outlet(trio.socket.from_stdlib_socket(self.near))
        self.counted = 0
        super().__init__(log, fanout)

    @property
    def takes(self) -> bool:
        return self.outlet.free

    @takes.setter
    def takes(self, takes: bool) -> None:
        self.outlet.free = takes

    def offer(self, message: bytes) -> bool:
        self.counted += len(message)
        return self.outlet.offer(message)

    async def run(self) -> None:
        with self.scope:
            while not (self.log.finished and self.at.event >= len(self.log.events)):
                if self.fanout.takes(self.at):
                    self.at = await self.fanout.follow(self, self.at, self.outlet)
                    self.returns += 1
                else:
                    await self.log.beyond(self.at.event)
                await trio.lowlevel.checkpoint()
                self.near.sendall(self.outlet.unsent)
                self.outlet.unsent, self.outlet.free = b"", True
                message, self.at = self.read(self.at)
                if message:
                    assert self.offer(message)
        self.counted += self.outlet.fanned

    def close(self) -> None:
        self.outlet.shut()
        try:
            while piece := self.far.recv(1 << 16):
                self.said += piece
        except BlockingIOError:
            pass
        self.near.close()
        self.far.close()


def text(log: TurnLog, after: int = 0) -> bytes:
    return b"".join(
        b"<%b>" % piece for event in log.events[after:] if isinstance(event, BlockDelta) for piece in event.pieces
    )


def made(count: int) -> tuple[TurnLog, Fanout[bytes], list[Watcher]]:
    log = TurnLog()
    fanout: Fanout[bytes] = Fanout(log, bytes)
    return log, fanout, [Watcher(log, fanout) for _ in range(count)]


async def test_one_reads_and_nobody_else_runs() -> None:
    log, fanout, watchers = made(100)
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(fanout) == 100
        for number in range(10):
            log.append([BlockDelta(0, (b"%d" % number,))])
            await trio.testing.wait_all_tasks_blocked()
        assert {watcher.said for watcher in watchers} == {text(log)}
        assert sum(watcher.reads for watcher in watchers) == 10
        assert not any(watcher.returns for watcher in watchers)
        log.append([END])
    assert not len(fanout)


async def test_who_does_not_take_it_goes_on_alone_and_comes_back() -> None:
    log, fanout, watchers = made(5)
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        for slow in (watchers[2], watchers[0], watchers[4]):
            slow.takes = False
            log.append([BlockDelta(0, (b"a",))])
            await trio.testing.wait_all_tasks_blocked()
            slow.takes = True
            assert slow.returns == 1
            assert len(fanout) == 5
        log.append([END])
    assert {watcher.said for watcher in watchers} == {b"<a><a><a>"}


async def test_events_without_words_keep_all_in_their_seats() -> None:
    log, fanout, watchers = made(3)
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        log.append([WORDLESS])
        await trio.testing.wait_all_tasks_blocked()
        assert len(fanout) == 3
        log.append([BlockDelta(0, (b"a",)), END])
    assert {watcher.said for watcher in watchers} == {b"<a>"}


async def test_a_leader_that_is_cancelled_within_a_round_leaves_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    log, fanout, watchers = made(3 * SLICE)
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        leader = fanout._leader
        assert isinstance(leader, Watcher)
        served: list[int] = []

        def cancel_at(of: Watcher, message: bytes) -> bool:
            served.append(1)
            if len(served) == SLICE:
                leader.scope.cancel()
            return Watcher.offer(of, message)

        for watcher in watchers:
            monkeypatch.setattr(watcher, "offer", partial(cancel_at, watcher))

        log.append([BlockDelta(0, (b"a",))])
        await trio.testing.wait_all_tasks_blocked()
        assert leader.scope.cancelled_caught
        assert SLICE <= len(served) < len(watchers)
        log.append([BlockDelta(0, (b"b",))])
        await trio.testing.wait_all_tasks_blocked()
        log.append([END])
    assert {watcher.said for watcher in watchers if watcher is not leader} == {b"<a><b>"}


async def test_who_leaves_within_a_round_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket may be closed by then. And the leader leaves too: what it did not come to is not counted twice."""
    log, fanout, _ = made(0)
    watchers = [Wired(log, fanout) for _ in range(3 * SLICE)]
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        leader, victim = fanout._leader, watchers[SLICE + 5]
        assert isinstance(leader, Wired)
        others = [watcher for watcher in watchers if watcher not in (leader, victim)]

        def leave(message: bytes) -> bool:
            victim.scope.cancel()
            return Wired.offer(leader, message)

        monkeypatch.setattr(leader, "offer", leave)
        log.append([BlockDelta(0, (b"a",))])
        await trio.testing.wait_all_tasks_blocked()
        assert not any(watcher.returns for watcher in others)
        monkeypatch.setattr(leader, "offer", lambda message: (leader.scope.cancel(), Wired.offer(leader, message))[1])
        log.append([BlockDelta(0, (b"b",))])
        await trio.testing.wait_all_tasks_blocked()
        assert {watcher.returns for watcher in others} == {0, 1}
        log.append([END])
    for watcher in watchers:
        watcher.close()
    assert victim.said == b""
    assert {watcher.said for watcher in others} == {b"<a><b>"}
    assert {watcher.counted for watcher in others} == {len(b"<a><b>")}


async def test_who_is_recalled_within_a_round_has_what_the_round_says(monkeypatch: pytest.MonkeyPatch) -> None:
    log, fanout, watchers = made(4)
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        leader = fanout._leader
        assert isinstance(leader, Watcher)
        others = [watcher for watcher in watchers if watcher is not leader]

        def recall_all(message: bytes) -> bool:
            assert all(fanout.recall(watcher) for watcher in others)
            assert not fanout.recall(leader)
            return Watcher.offer(leader, message)

        monkeypatch.setattr(leader, "offer", recall_all)
        log.append([BlockDelta(0, (b"a",))])
        await trio.testing.wait_all_tasks_blocked()
        assert [watcher.returns for watcher in others] == [1, 1, 1]
        assert {watcher.said for watcher in watchers} == {b"<a>"}
        monkeypatch.undo()
        assert fanout.recall(others[0])
        await trio.testing.wait_all_tasks_blocked()
        log.append([END])
    assert {watcher.said for watcher in watchers} == {b"<a>"}


async def test_only_who_has_everything_may_follow() -> None:
    log, fanout, (watcher,) = made(1)
    log.append([BlockDelta(0, (b"a",))])
    assert not fanout.takes(START)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert fanout.takes(Cursor(1))
        assert not fanout.takes(START)
        log.append([BlockDelta(0, (b"b",))])  # which the leader has not said yet
        assert fanout.takes(Cursor(1))
        assert not fanout.takes(Cursor(2))
        log.append([END])
    assert not fanout.takes(Cursor(3))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "empty", "slow", "quick", "leave", "recall", "nudge", "come", "run"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


@given(steps=STEPS, many=st.booleans(), wired=st.booleans())
def test_everybody_gets_everything_once(steps: list[tuple[str, int]], many: bool, wired: bool) -> None:
    trio.run(everybody, steps, many, wired)


async def everybody(steps: list[tuple[str, int]], many: bool, wired: bool) -> None:
    log, fanout, watchers = made(8 + many * 2 * SLICE)
    lines: list[Wired] = []
    if wired:
        watchers[1::2] = lines = [Wired(log, fanout) for _ in watchers[1::2]]
    left: set[Watcher] = set()
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for number, (step, which) in enumerate(steps):
            watcher = watchers[which]
            match step:
                case "say":
                    log.append([BlockDelta(0, (b"%d" % number,))])
                case "empty":
                    log.append([WORDLESS])
                case "slow" | "quick":
                    watcher.takes = step == "quick"
                case "leave":
                    watcher.scope.cancel()
                    left.add(watcher)
                case "recall":
                    fanout.recall(watcher)
                case "nudge":
                    log.nudge()
                case "come":
                    watchers.append(Watcher(log, fanout))
                    nursery.start_soon(watchers[-1].run)
                case "run":
                    for _ in range(which):
                        await trio.lowlevel.checkpoint()
        log.append([END])
    for line in lines:
        line.close()
        assert line in left or line.counted == len(line.said)
    for watcher in watchers:
        if watcher in left:
            assert text(log).startswith(watcher.said)
        else:
            assert watcher.said == text(log)
    assert not len(fanout)
