"""The lane carries what the long way would have said: the same log, the same bytes, whatever the cut and the client."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exchange import FakeExchange
from helpers.staged import ASK, MODEL, FakeClient, FakeProvider, ok
from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.errors import UpstreamFault
from kirostream.filters import FilterSettings, event_filters
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.net.client import HttpClient
from kirostream.net.exchange import Part
from kirostream.providers.provider import Call
from kirostream.relay.attempt import Deadlines, attempt
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
    open_lane, carry = TurnLog.open_lane, Lane.carry

    def counted(lane: Lane, pieces: Sequence[bytes]) -> bool:
        done = carry(lane, pieces)
        carried.extend([len(pieces)] * done)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TurnLog, "open_lane", open_lane if wanted else lambda *_: None)
        patch.setattr(Lane, "carry", counted)
        yield carried


def frames(events: Sequence[TurnEvent]) -> bytes:
    writer = DIALECTS["kiro"].writer(ASK, HEADING)
    return b"".join(block for event in events for block in writer.write(event))


def cut(data: bytes, seed: int, most: int) -> list[bytes]:
    dice, at, parts = random.Random(seed), 0, []
    while at < len(data):
        size = dice.randint(1, most)
        parts.append(data[at : at + size])
        at += size
    return parts


def stream(
    steps: Sequence[bytes], dialect: str, moods: Sequence[bool], max_tokens: int | None = None
) -> tuple[bytes, list[TurnEvent]]:
    """What a client of `dialect` gets, and what is in the log in the end."""
    request: TurnRequest = replace(ASK, spoken_in=dialect, sampling=Sampling(max_tokens=max_tokens))
    log = TurnLog(window=64)
    rendering = Rendering(log, DIALECTS[dialect].writer(request, HEADING))
    exchange = Moody(moods)

    async def main() -> None:
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

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return exchange.sent, log.events


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
def test_a_plain_answer_goes_by_the_lane(dialect: str) -> None:
    steps = [step for step in (frames(PLAIN[: n + 1])[len(frames(PLAIN[:n])) :] for n in range(len(PLAIN))) if step]
    with lanes(wanted=True) as carried:
        said = stream(steps, dialect, [])
    assert sum(carried) > 50
    with lanes(wanted=False) as none:
        assert stream(steps, dialect, []) == said
    assert not none


def test_a_limit_is_kept_to_the_byte() -> None:
    steps = [step for step in (frames(PLAIN[: n + 1])[len(frames(PLAIN[:n])) :] for n in range(len(PLAIN))) if step]
    for most in (1, 10, 25, 50, 200):
        with lanes(wanted=True) as carried:
            said = stream(steps, "anthropic", [], most)
        assert carried or most == 1
        with lanes(wanted=False):
            assert stream(steps, "anthropic", [], most) == said


blocks = st.lists(
    st.tuples(
        st.sampled_from([BlockKind.TEXT, BlockKind.THINKING, BlockKind.TOOL_CALL]),
        st.lists(st.sampled_from(["a", "word ", "", '\n"', "é", "😀", "x" * 300]), max_size=8),
    ),
    max_size=5,
)


@settings(max_examples=80, deadline=None)
@given(
    blocks,
    st.integers(0, 99),
    st.sampled_from([1, 50, 160, 400, 5000]),
    st.lists(st.booleans(), max_size=30),
    st.sampled_from(["anthropic", "openai_chat", "openai_responses"]),
    st.sampled_from([None, None, 20]),
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
        sent, log = stream(steps, dialect, moods, max_tokens)
    with lanes(wanted=False):
        other, plain = stream(steps, dialect, moods, max_tokens)
    assert sent == other
    assert repr(merged(log)) == repr(merged(plain))
