"""Models that are not to be had: what the client is told, and which other one is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import trio.testing

from helpers.staged import ASK, FIRST, HELLO, Answer, ok, outcome, saying, stage
from kirostream.dialects import DIALECTS
from kirostream.errors import ModelNotOnAccount, StreamCut, UnknownModel, UpstreamOverloaded
from kirostream.filters import FilterSettings
from kirostream.relay.failover import FailoverSettings
from kirostream.relay.relay import RelaySettings
from kirostream.relay.resolver import ModelSettings
from kirostream.telemetry.facts import AttemptFailed
from kirostream.turn.events import TurnEnded, TurnFailed, TurnStarted
from kirostream.turn.request import OutputFormat, Text
from kirostream.turn.result import fold

NONE, BUSY = Answer(404, []), Answer(529, [])
BACKED = RelaySettings(
    failover=FailoverSettings(attempts=2, backoff=1.0), models=ModelSettings(fallbacks={"m": ["other", "third"]})
)


async def test_an_unlisted_model_is_asked_once(autojump_clock: trio.testing.MockClock) -> None:
    ask = replace(ASK, model="openai/gpt-9")
    async with stage(ok(*HELLO)) as on, on.relay.turn(ask) as live:
        assert isinstance(await outcome(live), TurnEnded)
    assert on.provider.models == ["gpt-9"]


@pytest.mark.parametrize("dialect", ["anthropic", "openai_chat", "openai_responses"])
async def test_a_model_that_is_refused_is_not_found(dialect: str, autojump_clock: trio.testing.MockClock) -> None:
    async with stage(NONE) as on, on.relay.turn(replace(ASK, model="nn", spoken_in=dialect)) as live:
        failed = await outcome(live)
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, ModelNotOnAccount)
    assert on.provider.models == ["nn"]  # one try
    reply = DIALECTS[dialect].write_error(failed.error, "req_1")
    error = json.loads(reply.body)["error"]
    assert reply.status == 404
    assert "'nn'" in error["message"]
    assert "Models: m." in error["message"]
    if dialect == "anthropic":
        assert error["type"] == "not_found_error"
    else:
        assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")


async def test_another_model_answers_under_its_own_name(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(NONE, BUSY, BUSY, ok(*HELLO), settings=BACKED) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
        started = live.log.events[0]
        assert isinstance(started, TurnStarted)
        assert (started.model, started.stands_in) == ("third", True)
        result = fold(live.log.events)
    assert result.content == (Text("hello"),)
    assert on.provider.models == ["m", "other", "other", "third"]
    done = on.finished()
    assert (done.model_asked, done.model_used, done.attempts) == ("m", "third", 4)
    actions = [fact.action for fact in on.facts if isinstance(fact, AttemptFailed)]
    assert actions == ["ask another model", "try again", "ask another model"]


async def test_where_none_is_to_be_had_the_first_refusal_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(BUSY, BUSY, NONE, NONE, settings=BACKED) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, UpstreamOverloaded)


async def test_nothing_is_asked_in_place_of_another_by_default(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(BUSY, BUSY, BUSY) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnFailed)
    assert on.provider.models == ["m"] * 3


async def test_no_other_model_goes_on_with_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    for broken in (ok(FIRST, UpstreamOverloaded("busy")), ok(FIRST, StreamCut("cut"))):
        async with stage(broken, ok(*HELLO), settings=BACKED) as on, on.relay.turn(ASK) as live:
            assert isinstance(await outcome(live), TurnFailed)
        assert on.provider.models == ["m"]


async def test_an_answer_in_a_given_form_names_its_model_too(autojump_clock: trio.testing.MockClock) -> None:
    ask = replace(ASK, output=OutputFormat(b'{"type":"object"}'))
    async with stage(NONE, saying("{}"), settings=BACKED) as on, on.relay.turn(ask) as live:
        await outcome(live)
        result = fold(live.log.events)
    assert (result.model, result.stands_in, result.content) == ("other", True, (Text("{}"),))
    assert on.provider.models == ["m", "other"]


async def test_the_other_model_is_asked_as_it_takes_it(autojump_clock: trio.testing.MockClock) -> None:
    settings = replace(BACKED, filters=FilterSettings(thinking_tags=True))
    ask = replace(ASK, model="m-thinking")
    async with stage(NONE, saying("<think>a</think>b"), settings=settings) as on, on.relay.turn(ask) as live:
        await outcome(live)
        assert [type(block).__name__ for block in fold(live.log.events).content] == ["Thought", "Text"]
    assert [bool(request.system) for request in on.provider.fitted] == [True, True]


@pytest.mark.parametrize(
    ("name", "effort", "enabled"), [("claude-4.5-opus-high", "high", False), ("m-thinking", "", True), ("m", "", False)]
)
async def test_a_name_asks_for_thinking_and_effort(
    name: str, effort: str, enabled: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with stage(ok(*HELLO)) as on, on.relay.turn(replace(ASK, model=name)) as live:
        await outcome(live)
    (asked,) = on.provider.fitted
    assert (asked.thinking.effort, asked.thinking.enabled) == (effort, enabled)


async def test_a_name_asks_for_agentic_mode(autojump_clock: trio.testing.MockClock) -> None:
    for name, wanted in (("m-agentic", True), ("m", False)):
        async with stage(ok(*HELLO)) as on, on.relay.turn(replace(ASK, model=name)) as live:
            await outcome(live)
        (asked,) = on.provider.fitted
        assert any("agentic_mode" in part.text for part in asked.system) == wanted
        assert on.provider.models == ["m"]


async def test_what_is_offered_and_found(autojump_clock: trio.testing.MockClock) -> None:
    settings = RelaySettings(models=ModelSettings(aliases={"mine": "m", "M": "m", "lost": "nothing"}))
    async with stage(settings=settings) as on:
        assert [model.id for model in await on.relay.offered()] == ["m", "mine"]
        assert (await on.relay.find("anthropic/MINE-thinking")).id == "m"
        with pytest.raises(UnknownModel, match="Models: m"):
            await on.relay.find("lost")
