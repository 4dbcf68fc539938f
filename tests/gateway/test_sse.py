"""The pump and its heartbeats, on a jumping clock."""

from __future__ import annotations

import socket
from typing import cast

import pytest
import trio
import trio.testing

from helpers.exchange import FakeExchange
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.errors import UpstreamOverloaded
from kirostream.gateway.sse import AT_ONCE, Heartbeats, Pump
from kirostream.net.exchange import Exchange, Headers, Part, PeerGone
from kirostream.net.quick import Outlet
from kirostream.relay.log import Rendering, TurnLog
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.usage import Usage

ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True)
START: list[TurnEvent] = [TurnStarted("m"), BlockStarted(0, BlockKind.TEXT)]
END: list[TurnEvent] = [BlockEnded(0), TurnEnded(Stop.END, Usage())]


def pumped(exchange: FakeExchange, log: TurnLog) -> Pump:
    writer = DIALECTS["anthropic"].writer(ASK, Heading("0" * 32, 0))
    return Pump(cast(Exchange, exchange), log, Rendering(log, writer))


class CountingExchange(FakeExchange):
    """Counts the writes."""

    writes = 0

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        self.writes += 1
        await super().start(status, headers, first)

    async def send(self, data: bytes) -> None:
        self.writes += 1
        await super().send(data)

    async def finish(self, last: bytes = b"") -> None:
        self.writes += 1
        await super().finish(last)


async def test_what_piled_up_goes_out_in_one_write(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = CountingExchange("POST", "/v1/messages"), TurnLog()
    log.append([*START, *(BlockDelta.of(0, word) for word in ("a", "b", "c")), *END])
    await pumped(exchange, log).run((), Heartbeats(10.0))
    assert exchange.writes == 2  # the head with everything, and the end
    assert exchange.sent.count(b"text_delta") == 3
    assert exchange.sent.endswith(b'"message_stop"}\n\n')


async def test_the_last_part_goes_out_with_the_end(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = CountingExchange("POST", "/v1/messages"), TurnLog()
    log.append(START)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pumped(exchange, log).run, (), Heartbeats(10.0))
        await trio.testing.wait_all_tasks_blocked()
        log.append([BlockDelta.of(0, "a"), *END])
    assert exchange.writes == 2
    assert exchange.sent.endswith(b'"message_stop"}\n\n')


async def test_every_event_goes_out_as_it_comes(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = FakeExchange("POST", "/v1/messages"), TurnLog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pumped(exchange, log).run, (), Heartbeats(10.0))
        log.append(START)
        for word in ("one", "two"):
            log.append([BlockDelta.of(0, word)])
            await trio.testing.wait_all_tasks_blocked()
            assert word.encode() in exchange.sent
        log.append(END)
    assert log.finished


async def test_a_silent_stream_gets_a_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = FakeExchange("POST", "/v1/messages"), TurnLog()
    heartbeats = Heartbeats(10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        pump = pumped(exchange, log)
        async with trio.open_nursery() as inner:
            inner.start_soon(pump.run, (), heartbeats)
            await trio.sleep(35)
            assert 2 <= exchange.sent.count(b"event: ping") <= 3
            log.append([*START, *END])
        before = exchange.sent
        await trio.sleep(35)
        assert exchange.sent == before
        nursery.cancel_scope.cancel()


async def test_a_busy_stream_gets_none(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = FakeExchange("POST", "/v1/messages"), TurnLog()
    heartbeats = Heartbeats(10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        pump = pumped(exchange, log)
        async with trio.open_nursery() as inner:
            inner.start_soon(pump.run, (), heartbeats)
            log.append(START)
            for _ in range(20):
                log.append([BlockDelta.of(0, "x")])
                await trio.sleep(5)
            log.append(END)
        nursery.cancel_scope.cancel()
    assert b"event: ping" not in exchange.sent


async def test_a_sweep_over_many_pauses_and_wakes_each_once(autojump_clock: trio.testing.MockClock) -> None:
    """Tokens of all streams wait while it looks. Who has left in a pause is left alone."""
    heartbeats = Heartbeats(10.0)
    nudged: list[int] = []
    start = trio.current_time()
    at_pauses: set[int] = set()
    begun = trio.Event()

    class Silent:
        last_sent = trio.current_time()

        def __init__(self, number: int) -> None:
            self._number = number

        def nudge(self) -> None:
            nudged.append(self._number)
            self.last_sent = trio.current_time()
            begun.set()

    pumps = [cast(Pump, Silent(number)) for number in range(4 * AT_ONCE)]
    for pump in pumps:
        heartbeats.add(pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        await begun.wait()
        gone = next(number for number in range(len(pumps)) if number not in nudged)
        heartbeats.discard(pumps[gone])
        for _ in range(20):
            at_pauses.add(len(nudged))
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start == 10
    assert sorted([*nudged, gone]) == [*range(len(pumps))]
    assert AT_ONCE <= min(at_pauses) <= len(pumps) // 2  # others ran in between


@pytest.mark.parametrize("method", ["start", "finish"])
async def test_a_client_that_is_gone_ends_the_pump(method: str, autojump_clock: trio.testing.MockClock) -> None:
    class Gone(FakeExchange):
        async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
            await super().start(status, headers, first)
            if method == "start":
                raise PeerGone("left")

        async def finish(self, last: bytes = b"") -> None:
            raise PeerGone("left")

    exchange, log = Gone("POST", "/v1/messages"), TurnLog()
    log.append([*START, *END])
    with pytest.raises(PeerGone):
        await pumped(exchange, log).run((), Heartbeats(10.0))


class Slow(FakeExchange):
    """Takes an offer at once, or, being slow, only with the next send."""

    slow = False
    kept = b""
    sends = 0

    def offer(self, part: Part) -> bool:
        if self.slow:
            self.kept += part.data
            return False
        return super().offer(part)

    async def send(self, data: bytes) -> None:
        self.sends += 1
        self.sent, self.kept = self.sent + self.kept, b""
        await super().send(data)


async def test_many_who_follow_are_served_together_and_the_slow_one_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log, exchanges = TurnLog(), [Slow("GET", "/v1/turns/x/events") for _ in range(5)]
    rendering = Rendering(log, DIALECTS["anthropic"].writer(ASK, Heading("0" * 32, 0)))
    heartbeats = Heartbeats(10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        async with trio.open_nursery() as inner:
            for exchange in exchanges:
                inner.start_soon(Pump(cast(Exchange, exchange), log, rendering, follows=True).run, (), heartbeats)
            await trio.testing.wait_all_tasks_blocked()
            log.append(START)
            for number in range(20):
                exchanges[3].slow = number % 3 == 0
                log.append([BlockDelta.of(0, f"w{number} ")])
                await trio.sleep(5)  # within twice of which each would else get a heartbeat
            assert len(rendering.fanout) == 5
            assert [exchange.sends for exchange in exchanges] == [0, 0, 0, 7, 0]
            await trio.sleep(13)
            assert [exchange.sent.count(b"event: ping") for exchange in exchanges] == [1] * 5
            assert len(rendering.fanout) == 5
            log.append(END)
        nursery.cancel_scope.cancel()
    said = b"".join(rendering.blocks())
    ping = rendering.heartbeat()
    assert {exchange.sent.replace(ping, b"") for exchange in exchanges} == {said}


async def test_what_an_outlet_owes_is_sent_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    near, far = socket.socketpair()
    exchanges = [Slow("GET", "/v1/turns/x/events") for _ in range(3)]
    outlet = exchanges[1].outlet = Outlet(trio.socket.from_stdlib_socket(near))
    log = TurnLog()
    rendering = Rendering(log, DIALECTS["anthropic"].writer(ASK, Heading("0" * 32, 0)))
    with near, far:
        async with trio.open_nursery() as nursery:
            for exchange in exchanges:
                pump = Pump(cast(Exchange, exchange), log, rendering, follows=True)
                nursery.start_soon(pump.run, (), Heartbeats(10.0))
                await trio.testing.wait_all_tasks_blocked()
            log.append(START)
            await trio.testing.wait_all_tasks_blocked()
            begun = exchanges[0].sent
            assert far.recv(1 << 16) == Part(begun).chunk
            outlet.free = False
            log.append([BlockDelta.of(0, "a")])
            await trio.testing.wait_all_tasks_blocked()
            assert outlet.unsent == Part(exchanges[0].sent.removeprefix(begun)).chunk
            assert [exchange.sends for exchange in exchanges] == [0, 1, 0]
            assert exchanges[1].sent == b""  # no heartbeat behind it
            outlet.unsent, outlet.free = b"", True
            log.append(END)


async def test_who_only_follows_begins_anywhere_and_marks_nothing(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = FakeExchange("POST", "/v1/messages"), TurnLog(window=2)
    log.append([*START, BlockDelta.of(0, "a"), BlockDelta.of(0, "b"), *END])
    writer = DIALECTS["anthropic"].writer(ASK, Heading("0" * 32, 0))
    rendering = Rendering(log, writer)
    whole = rendering.blocks()
    at = rendering.behind(len(whole) - 3)
    await Pump(cast(Exchange, exchange), log, rendering, at=at, follows=True).run((), Heartbeats(10.0))
    assert exchange.sent == b"".join(whole[-3:])
    with trio.move_on_after(1) as patience:
        await log.room()
    assert patience.cancelled_caught  # the client that asked has read nothing


@pytest.mark.parametrize("after", [0.0, 3.0, 19.9])
async def test_a_head_is_held_until_the_first_event(after: float, autojump_clock: trio.testing.MockClock) -> None:
    log, heartbeats = TurnLog(), Heartbeats(10.0, hold=20.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)

        async def say() -> None:
            await trio.sleep(after)
            log.append(START)

        nursery.start_soon(say)
        since = trio.current_time()
        await heartbeats.hold(log)
        assert trio.current_time() - since == pytest.approx(after)
        nursery.cancel_scope.cancel()


async def test_no_head_is_held_for_longer_than_is_set(autojump_clock: trio.testing.MockClock) -> None:
    """Each on time, in whatever order they began, also where a heartbeat is due in between."""
    heartbeats = Heartbeats(10.0, hold=20.0)
    took: list[float] = []

    async def held(begin: float) -> None:
        await trio.sleep(begin)
        log = TurnLog()
        since = trio.current_time()
        await heartbeats.hold(log)
        assert not log.events
        took.append(trio.current_time() - since)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        async with trio.open_nursery() as clients:
            for begin in (0.0, 1.0, 1.0, 7.3, 33.3):
                clients.start_soon(held, begin)
        nursery.cancel_scope.cancel()
    assert took == [pytest.approx(20.0)] * 5


async def test_a_head_that_nobody_waits_for_any_more_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    heartbeats = Heartbeats(10.0, hold=20.0)
    with trio.move_on_after(1.0):
        await heartbeats.hold(TurnLog())
    assert not heartbeats._held


class Ready(CountingExchange):
    """Takes head, parts and end at once; `behind`: what it keeps of one of them, for the task to send."""

    def __init__(self, behind: str = "") -> None:
        super().__init__("POST", "/v1/messages")
        self.behind = behind
        self.finished = False
        self.offers = 0

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        self.offers += 1
        assert not self.started
        self.started, self.status, self.headers = True, status, dict(headers)
        self.sent += first
        self.outlet = Outlet(None)
        self.outlet.free = True
        return self.behind != "start"

    def offer_finish(self, last: bytes) -> bool:
        self.offers += 1
        self.sent += last
        self.finished = self.behind != "finish"
        return self.finished

    async def finish(self, last: bytes = b"") -> None:
        assert not self.finished
        self.finished = True
        await super().finish(last)


@pytest.mark.parametrize(("behind", "writes"), [("", 0), ("start", 1), ("finish", 1)])
async def test_head_and_end_go_out_without_the_task(
    behind: str, writes: int, autojump_clock: trio.testing.MockClock
) -> None:
    exchange, log = Ready(behind), TurnLog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pumped(exchange, log).answer, lambda: [(b"x", b"y")], Heartbeats(10.0))
        await trio.testing.wait_all_tasks_blocked()
        log.append(START)
        assert (exchange.started, exchange.headers) == (True, {b"x": b"y"})
        assert b"content_block_start" in exchange.sent
        await trio.testing.wait_all_tasks_blocked()
        log.append([BlockDelta.of(0, "a")])
        assert b"text_delta" in exchange.sent
        log.append(END)
        assert exchange.sent.endswith(b'"message_stop"}\n\n')
    assert exchange.finished
    assert (exchange.offers, exchange.writes) == (2, writes)
    assert exchange.sent.count(b"event: ") == 6


async def test_an_exchange_that_has_to_wait_is_served_by_the_task(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = CountingExchange("POST", "/v1/messages"), TurnLog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pumped(exchange, log).answer, lambda: [(b"x", b"y")], Heartbeats(10.0))
        await trio.testing.wait_all_tasks_blocked()
        log.append(START)
        assert not exchange.started
        await trio.testing.wait_all_tasks_blocked()
        log.append([BlockDelta.of(0, "a"), *END])
    assert (exchange.writes, exchange.headers) == (2, {b"x": b"y"})
    assert exchange.sent.count(b"event: ") == 6


async def test_a_head_that_went_out_by_itself_is_followed_by_heartbeats(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = Ready(), TurnLog()
    heartbeats = Heartbeats(10.0, hold=12.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        async with trio.open_nursery() as inner:
            inner.start_soon(pumped(exchange, log).answer, tuple, heartbeats)
            await trio.sleep(1)
            log.append(START)
            await trio.sleep(13)  # longer than a head is held, and than a client waits for a sign of life
            assert exchange.sent.count(b"event: ping") == 1
            await trio.sleep(12)
            assert exchange.sent.count(b"event: ping") == 2
            log.append(END)
        nursery.cancel_scope.cancel()


async def test_a_turn_that_fails_at_once_keeps_its_error(autojump_clock: trio.testing.MockClock) -> None:
    exchange, log = Ready(), TurnLog()

    async def answer() -> None:
        with pytest.raises(UpstreamOverloaded):
            await pumped(exchange, log).answer(tuple, Heartbeats(10.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await trio.testing.wait_all_tasks_blocked()
        log.append([TurnFailed(UpstreamOverloaded("busy"))])
    assert not exchange.started
