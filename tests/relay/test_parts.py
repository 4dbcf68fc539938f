"""A text that the service cut off, and the rest of it, in one turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio.testing

from helpers.staged import ASK, FIRST, SETTINGS, WRITER, Answer, Step, ok, outcome, saying, stage
from kirostream.errors import AccountThrottled, StreamCut, UpstreamDown
from kirostream.filters import FilterSettings
from kirostream.filters.continuation import GO_ON
from kirostream.turn.events import Stop, TurnEnded, TurnFailed, TurnStarted
from kirostream.turn.grammar import Grammar
from kirostream.turn.request import Message, OutputFormat, Role, Sampling, Text, Thought
from kirostream.turn.result import fold

TWICE = replace(SETTINGS, filters=FilterSettings(auto_continue=2))


def cut(text: str) -> Answer:
    return saying(text, Stop.MAX_TOKENS)


async def test_the_rest_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(cut("one tw"), cut("o thr"), saying("ee"), settings=TWICE) as on, on.relay.turn(ASK) as live:
        ended = await outcome(live)
        grammar = Grammar()
        for event in live.log.events:
            grammar.check(event)
        assert fold(live.log.events).content == (Text("one two three"),)
    assert isinstance(ended, TurnEnded)
    assert (ended.stop, ended.usage.credits) == (Stop.END, 1.5)
    first, second, third = on.provider.fitted
    assert first == ASK
    for asked, said in ((second, "one tw"), (third, "one two thr")):
        assert asked.messages == (
            *ASK.messages,
            Message(Role.ASSISTANT, (Text(said),)),
            Message(Role.USER, (Text(GO_ON),)),
        )
    assert on.finished().attempts == 3


async def test_no_more_often_than_allowed(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(cut("a"), cut("b"), cut("c"), cut("d"), settings=TWICE) as on, on.relay.turn(ASK) as live:
        ended = await outcome(live)
        assert fold(live.log.events).content == (Text("abc"),)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.MAX_TOKENS


async def test_off_by_default(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(cut("a"), saying("b")) as on, on.relay.turn(ASK) as live:
        ended = await outcome(live)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.MAX_TOKENS
    assert len(on.provider.fitted) == 1


async def test_a_whole_answer_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(saying("a"), settings=TWICE) as on, on.relay.turn(ASK) as live:
        ended = await outcome(live)
        assert fold(live.log.events).content == (Text("a"),)
        assert isinstance(live.log.events[0], TurnStarted)
    assert isinstance(ended, TurnEnded)
    assert len(on.provider.fitted) == 1


async def test_a_form_is_not_put_together(autojump_clock: trio.testing.MockClock) -> None:
    ask = replace(ASK, output=OutputFormat(b'{"type":"object"}'))
    async with stage(cut('{"a":'), settings=TWICE) as on, on.relay.turn(ask) as live:
        ended = await outcome(live)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.MAX_TOKENS
    assert len(on.provider.models) == 1


THROTTLED = b"".join(WRITER.write(TurnFailed(AccountThrottled("slow down"))))


@pytest.mark.parametrize(
    "rest",
    [[Answer(429, [])], [UpstreamDown("x")] * 3, [Answer(500, [])] * 3, [ok(THROTTLED)]],
    ids=["429", "down", "500", "first frame"],
)
async def test_a_rest_that_is_not_to_be_had(
    rest: list[Answer | UpstreamDown], autojump_clock: trio.testing.MockClock
) -> None:
    """The answer is what it was: cut off, and said to be."""
    async with stage(cut("a"), *rest, settings=TWICE) as on, on.relay.turn(ASK) as live:
        ended = await outcome(live)
        assert fold(live.log.events).content == (Text("a"),)
    assert isinstance(ended, TurnEnded)
    assert (ended.stop, ended.usage.credits) == (Stop.MAX_TOKENS, 0.5)


async def test_a_rest_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    script = (cut("a"), UpstreamDown("x"), Answer(500, []), saying("b"))
    async with stage(*script, settings=TWICE) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
        assert fold(live.log.events).content == (Text("ab"),)


@pytest.mark.parametrize("steps", [[FIRST, StreamCut("cut")], [FIRST, 50.0]], ids=["cut", "silent"])
async def test_a_rest_that_breaks_breaks_the_turn(steps: list[Step], autojump_clock: trio.testing.MockClock) -> None:
    async with stage(cut("a"), ok(*steps), saying("b"), settings=TWICE) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnFailed)
    assert len(on.provider.models) == 2


async def test_the_clients_limits_hold_for_the_whole(autojump_clock: trio.testing.MockClock) -> None:
    """A stop sequence that lies over the seam, and a length that the parts have together."""
    ask = replace(ASK, sampling=Sampling(stop=("STOP",)))
    async with stage(cut("one ST"), saying("OP two"), settings=TWICE) as on, on.relay.turn(ask) as live:
        ended = await outcome(live)
        assert fold(live.log.events).content == (Text("one "),)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.STOP_SEQUENCE
    ask = replace(ASK, sampling=Sampling(max_tokens=3))
    async with stage(cut("12345678"), cut("12345678"), settings=TWICE) as on, on.relay.turn(ask) as live:
        ended = await outcome(live)
        assert fold(live.log.events).content == (Text("123456781234567"),)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.MAX_TOKENS


async def test_a_thought_stands_before_the_whole(autojump_clock: trio.testing.MockClock) -> None:
    settings = replace(SETTINGS, filters=FilterSettings(auto_continue=1, thinking_tags=True))
    ask = replace(ASK, model="m-thinking")
    async with (
        stage(cut("<think>Hm.</think>a"), saying("<think>b"), settings=settings) as on,
        on.relay.turn(ask) as live,
    ):
        await outcome(live)
        assert fold(live.log.events).content == (Thought("Hm."), Text("a<think>b"))
    assert [request.thinking.enabled for request in on.provider.fitted] == [True, False]


async def test_leaving_between_the_parts(autojump_clock: trio.testing.MockClock) -> None:
    rest = ok(1000.0)
    async with stage(cut("a"), rest, settings=TWICE) as on:
        async with on.relay.turn(ASK) as live:
            while len(on.provider.models) < 2:
                await trio.testing.wait_all_tasks_blocked()
            assert not live.log.finished
        assert rest.closed
