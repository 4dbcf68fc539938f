"""The lane carries what the long way would have said: the same log, the same bytes, whatever the cut and the client."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exchange import FakeExchange
from helpers.staged import ASK, MODEL, FakeClient, FakeProvider, Step, ok
from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.errors import UpstreamFault
from kirostream.filters import FilterSettings, event_filters
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.net.client import HttpClient
from kirostream.net.exchange import Headers, Part
from kirostream.net.framing import Chunked
from kirostream.net.quick import Outlet
from kirostream.providers.provider import Call
from kirostream.relay.attempt import Deadlines, _Patience, attempt
from kirostream.relay.lane import Lane
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
    UsageKnown,
    escape,
)
from kirostream.turn.request import Sampling, TurnRequest
from kirostream.turn.usage import Usage

HEADING = Heading("0" * 32, 0)
ACCOUNT = Account(id=AccountId("a"), label="a", auth=AuthMethod.SOCIAL)
TOKEN = Token(Secret("t"), NEVER, "", AccountId("a"))


class Moody(FakeExchange):
    """A client that does not always take everything at once."""

    def __init__(self, moods: Sequence[bool]) -> None:
        super().__init__("POST", "/")
        self._moods = iter(moods)
        self._unsent = b""

    def offer(self, part: Part) -> bool:
        if self._unsent or not next(self._moods, True):
            self._unsent += part.data
            return False
        return super().offer(part)

    async def send(self, data: bytes) -> None:
        data, self._unsent = self._unsent + data, b""
        await super().send(data)

    async def finish(self, last: bytes = b"") -> None:
        last, self._unsent = self._unsent + last, b""
        await super().finish(last)


@contextmanager
def lanes(*, wanted: bool) -> Iterator[list[int]]:
    """Counts the runs that were carried; `wanted` False: there is no lane."""
    carried: list[int] = []
    open_lane, say = TurnLog.open_lane, Lane._say

    def counted(lane: Lane, pieces: list[bytes]) -> BlockDelta:
        carried.append(len(pieces))
        return say(lane, pieces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TurnLog, "open_lane", open_lane if wanted else lambda *_: None)
        patch.setattr(Lane, "_say", counted)
        yield carried


class Wired(FakeExchange):
    """A client on a real socket, which reads late, so that the kernel does not always take everything."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__("POST", "/")
        self._sock = sock
        self.outlet = Outlet(sock)

    def offer(self, part: Part) -> bool:
        return self.outlet is not None and self.outlet.offer(part.chunk)

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        await super().start(status, headers)
        await self.send(first)

    async def send(self, data: bytes) -> None:
        assert self.outlet is not None
        wire, self.outlet.unsent = self.outlet.unsent + (Part(data).chunk if data else b""), b""
        while wire:
            wire = wire[await self._sock.send(wire) :]
        self.outlet.free = not self.outlet.unsent
        await trio.lowlevel.checkpoint()

    def offer_finish(self, last: bytes) -> bool:
        assert self.outlet is not None
        whole = not last or self.outlet.offer(Part(last).chunk)
        if whole:
            self._sock.close()
        return whole

    async def finish(self, last: bytes = b"") -> None:
        await self.send(last)
        self._sock.close()


async def collect(sock: trio.socket.SocketType, moods: Sequence[bool], into: bytearray) -> None:
    body = Chunked()
    eager = iter(moods)
    while data := await sock.recv(1500):
        into += body.feed(data)
        if not next(eager, True):
            await trio.sleep(1)
    assert body.fault is None
    assert body.between_chunks


def frames(events: Sequence[TurnEvent]) -> bytes:
    writer = DIALECTS["kiro"].writer(ASK, HEADING)
    return b"".join(block for event in events for block in writer.write(event))


def one_by_one(events: Sequence[TurnEvent]) -> list[Step]:
    """Each event's frames in a read of its own, and a while between them."""
    parts = (frames(events[: n + 1])[len(frames(events[:n])) :] for n in range(len(events)))
    return [step for part in parts if part for step in (0.001, part)]


def cut(data: bytes, seed: int, most: int) -> list[bytes]:
    dice, at, parts = random.Random(seed), 0, []
    while at < len(data):
        size = dice.randint(1, most)
        parts.append(data[at : at + size])
        at += size
    return parts


def stream(
    steps: Sequence[Step],
    dialect: str,
    moods: Sequence[bool],
    max_tokens: int | None = None,
    *,
    wired: bool = False,
    kept: bool = False,
) -> tuple[bytes, list[TurnEvent]]:
    """What a client of `dialect` gets, and what is in the log in the end.

    Args:
        wired: the client is on a socket.
        kept: the rendering is, for others.
    """
    request: TurnRequest = replace(ASK, spoken_in=dialect, sampling=Sampling(max_tokens=max_tokens))
    log = TurnLog(window=64)
    rendering = Rendering(log, DIALECTS[dialect].writer(request, HEADING), kept=kept)
    got = bytearray()
    exchange: Moody | Wired = Moody(moods)

    async def main() -> None:
        nonlocal exchange
        if wired:
            ours, theirs = trio.socket.socketpair()
            if moods:
                ours.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 1)
            exchange = Wired(ours)

        async def answer() -> None:
            try:
                await attempt(
                    request,
                    Call(MODEL, "c", "m", "i"),
                    account=ACCOUNT,
                    token=TOKEN,
                    provider=FakeProvider(),
                    client=cast(HttpClient, FakeClient([ok(*steps)])),
                    log=log,
                    deadlines=Deadlines(),
                    on_first_event=lambda: None,
                    filters=event_filters(request, MODEL, FilterSettings()),
                )
            except UpstreamFault as error:
                log.append([TurnFailed(error)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            nursery.start_soon(Pump(exchange, log, rendering).run, [], Heartbeats(1.0))
            if wired:
                nursery.start_soon(collect, theirs, moods, got)
        if wired:
            theirs.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    if kept:  # who comes back gets the same bytes
        assert b"".join(rendering.blocks()) == (got if wired else exchange.sent)
    return bytes(got) if wired else exchange.sent, log.events


def merged(events: Sequence[TurnEvent]) -> list[TurnEvent]:
    """The events with deltas of one block joined: how many there are depends on the reads."""
    found: list[TurnEvent] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, BlockDelta) and isinstance(last, BlockDelta) and last.index == event.index:
            found[-1] = BlockDelta(event.index, (*last.pieces, *event.pieces))
        else:
            found.append(event)
    return found


TEXT: list[TurnEvent] = [
    TurnStarted("m"),
    BlockStarted(0, BlockKind.TEXT),
    *(BlockDelta.of(0, f"word {n} ") for n in range(60)),
    BlockEnded(0),
]
PLAIN: list[TurnEvent] = [*TEXT, BlockEnded(0), TurnEnded(Stop.END, Usage(credits=0.5, context_percentage=1.0))]


@pytest.mark.parametrize("dialect", ["anthropic", "openai_chat", "openai_responses"])
@pytest.mark.parametrize("wired", [False, True], ids=["by Python", "on the track"])
@pytest.mark.parametrize("kept", [False, True], ids=["read once", "kept"])
def test_a_plain_answer_goes_by_the_lane(dialect: str, kept: bool, wired: bool) -> None:
    steps = one_by_one(PLAIN)
    with lanes(wanted=True) as carried:
        said, log = stream(steps, dialect, [], wired=wired, kept=kept)
    assert sum(carried) > 50
    assert len(carried) < 5 or not wired  # a track's pieces are told together
    with lanes(wanted=False) as none:
        other, plain = stream(steps, dialect, [])
    assert not none
    assert said == other
    assert merged(log) == merged(plain)


def test_a_limit_is_kept_to_the_byte() -> None:
    steps = one_by_one(PLAIN)
    for most in (1, 10, 25, 60, 100, 200):
        with lanes(wanted=False):
            other, plain = stream(steps, "anthropic", [], most)
        for wired in (False, True):
            with lanes(wanted=True) as carried:
                said, log = stream(steps, "anthropic", [], most, wired=wired)
            assert carried or most < 60
            assert said == other
            assert merged(log) == merged(plain)


blocks = st.lists(
    st.tuples(
        st.sampled_from([BlockKind.TEXT, BlockKind.THINKING, BlockKind.TOOL_CALL]),
        st.lists(st.sampled_from(["a", "word ", "", '\n"', "é", "😀", "x" * 300]), max_size=8),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(
    blocks,
    st.integers(0, 99),
    st.sampled_from([1, 50, 160, 400, 5000]),
    st.lists(st.booleans(), max_size=30),
    st.sampled_from(["anthropic", "openai_chat", "openai_responses"]),
    st.sampled_from([None, None, 20]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_same_is_said(
    shape: list[tuple[BlockKind, list[str]]],
    seed: int,
    most: int,
    moods: list[bool],
    dialect: str,
    max_tokens: int | None,
    fails: bool,
    wired: bool,
    kept: bool,
) -> None:
    events: list[TurnEvent] = [TurnStarted("m")]
    for index, (kind, words) in enumerate(shape):
        events.append(BlockStarted(index, kind, *((f"c{index}", "tool") if kind is BlockKind.TOOL_CALL else ())))
        if kind is BlockKind.TOOL_CALL:
            words = ['{"a": "', *(word.replace('"', "'").replace("\n", " ") for word in words), '"}']
        events += [BlockDelta(index, (escape(word),)) for word in words]
        events += [UsageKnown(Usage(credits=0.1)), BlockEnded(index)]
    events.append(TurnFailed(UpstreamFault("broke")) if fails else TurnEnded(Stop.END, Usage(credits=0.5)))
    steps = cut(frames(events), seed, most)
    with lanes(wanted=True):
        sent, log = stream(steps, dialect, moods, max_tokens, wired=wired, kept=kept)
    with lanes(wanted=False):
        other, plain = stream(steps, dialect, moods, max_tokens, kept=True)
    assert sent == other
    assert repr(merged(log)) == repr(merged(plain))


async def test_what_a_lane_took_counts_as_a_sign_of_life_though_it_is_over() -> None:
    """A heartbeat ends a lane; the silence is as old as its last token, and not as the last read by the long way."""
    log = TurnLog()
    patience = _Patience(Deadlines(idle=300.0), log)
    assert not patience.was_carried()
    lane = cast(Lane, SimpleNamespace(last=time.monotonic() - 100, settle=lambda: None, end=lambda: None))
    log.lane = lane
    log.leave_lane()
    assert patience.was_carried()
    assert 199 < patience.at - trio.current_time() <= 200
    assert not patience.was_carried()  # nothing came since
    log.lane = cast(Lane, SimpleNamespace(last=time.monotonic(), settle=lambda: None))
    assert patience.was_carried()
