"""Turns that search the web, with a scripted upstream: what is asked, what is told, and what is left running."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from helpers.staged import ASK, END, FIRST, HELLO, MORE, SETTINGS, WRITER, Answer, Stage, ok, outcome, stage
from kirostream.errors import (
    AccountThrottled,
    KirostreamError,
    QuotaSpent,
    RemoteProtocolError,
    StreamCut,
    UpstreamDown,
    UpstreamOverloaded,
    UpstreamRefused,
)
from kirostream.filters.websearch import ERRORS, SearchSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.relay import RelaySettings
from kirostream.telemetry.facts import Searched
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.grammar import Grammar
from kirostream.turn.request import (
    Message,
    OutputFormat,
    Role,
    Sampling,
    Search,
    SearchCall,
    SearchError,
    SearchOutcome,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import TurnResult, fold

SEARCH = replace(ASK, search=Search(), tools=(Tool("Read", "", b"{}"),))
PLAIN = replace(
    ASK, search=Search(), messages=(Message(Role.USER, (Text("Perform a web search for the query: trio"),)),)
)


def calling(name: str = "web_search", query: str = "news", call_id: str = "tooluse_1") -> bytes:
    """A call, as the upstream sends it."""
    events = (
        BlockStarted(9, BlockKind.TOOL_CALL, call_id, name),
        BlockDelta.of(9, f'{{"query":"{query}"}}'),
        BlockEnded(9),
    )
    return b"".join(frame for event in events for frame in WRITER.write(event))


def searching(query: str = "news", call_id: str = "tooluse_1") -> Answer:
    return ok(calling(query=query, call_id=call_id), END)


async def answered(live: LiveTurn) -> TurnResult:
    assert isinstance(await outcome(live), TurnEnded)
    grammar = Grammar()
    for event in live.log.events:
        grammar.check(event)
    return fold(live.log.events)


def told(asked: TurnRequest) -> str:
    """What the model is told last."""
    results = [block for block in asked.messages[-1].content if isinstance(block, ToolResult)]
    return str(results[-1].content)


async def played(staged: Stage, request: TurnRequest = SEARCH) -> TurnResult:
    async with staged.relay.turn(request) as live:
        return await answered(live)


async def test_a_search_is_run_between_two_rounds(autojump_clock: trio.abc.Clock) -> None:
    async with stage(ok(FIRST, MORE, calling(), END), ok(*HELLO)) as staged:
        result = await played(staged)
    assert result.content[0] == Text("hello")
    assert isinstance(result.content[1], SearchCall)
    assert isinstance(result.content[2], SearchOutcome)
    assert result.content[2].hits is not None
    assert [hit.url for hit in result.content[2].hits] == ["https://example.com/news"]
    assert result.content[3] == Text("hello")
    assert (result.stop, result.usage.searches, result.usage.credits) == (Stop.END, 1, 1.0)
    assert staged.client.searched == ["t0 news"]
    first, second = staged.provider.fitted
    assert [tool.name for tool in first.tools] == ["Read", "web_search"]
    assert "https://example.com/news" in told(second)
    (fact,) = [fact for fact in staged.facts if isinstance(fact, Searched)]
    assert (fact.results, fact.error, fact.turn) == (1, "", staged.finished().turn)
    assert "news" not in str(fact)


async def test_a_question_that_is_a_search_takes_one_round(autojump_clock: trio.abc.Clock) -> None:
    async with stage(ok(*HELLO)) as staged:
        result = await played(staged, PLAIN)
    assert [type(block) for block in result.content] == [SearchCall, SearchOutcome, Text]
    assert staged.client.searched == ["t0 trio"]
    assert len(staged.client.asked) == 1


async def test_its_refusal_is_still_told_before_anything_was_said(autojump_clock: trio.abc.Clock) -> None:
    async with stage(Answer(429, ())) as staged, staged.relay.turn(PLAIN) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, AccountThrottled)
        assert live.log.events == [failed]


async def test_text_before_a_search_is_there_before_the_search_is(autojump_clock: trio.abc.Clock) -> None:
    async with stage(ok(FIRST, 5.0, calling(), END), ok(*HELLO)) as staged:
        staged.client.found = [7.0]
        async with staged.relay.turn(SEARCH) as live:
            await trio.sleep(1)
            assert [type(event) for event in live.log.events] == [TurnStarted, BlockStarted, BlockDelta]
            await trio.sleep(5)
            kinds = [event.kind for event in live.log.events if isinstance(event, BlockStarted)]
            assert kinds == [BlockKind.TEXT, BlockKind.SEARCH], "the search is announced while it runs"
            await answered(live)


async def test_the_clients_calls_beside_a_search_end_the_turn(autojump_clock: trio.abc.Clock) -> None:
    async with stage(ok(calling(), calling("Read", "x", "tooluse_2"), END)) as staged:
        result = await played(staged)
    assert [type(block) for block in result.content] == [ToolCall, SearchCall, SearchOutcome]
    assert result.stop is Stop.TOOL_CALL


async def test_searches_end_at_the_limit(autojump_clock: trio.abc.Clock) -> None:
    rounds = [searching(str(n), f"tooluse_{n}") for n in range(3)]
    async with stage(*rounds, ok(*HELLO)) as staged:
        result = await played(staged, replace(SEARCH, search=Search(max_uses=2)))
    assert staged.client.searched == ["t0 0", "t0 1"]
    assert result.stop is Stop.END
    assert ERRORS["max_uses_exceeded"] in told(staged.provider.fitted[-1])


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (UpstreamDown("down"), "unavailable"),
        (RemoteProtocolError("no JSON"), "unavailable"),
        (UpstreamRefused("what?"), "invalid_tool_input"),
        (AccountThrottled("slow down"), "too_many_requests"),
        (QuotaSpent("spent"), "too_many_requests"),
        (UpstreamOverloaded("full"), "too_many_requests"),
        ((429, b""), "too_many_requests"),
        ((500, b""), "unavailable"),
        (60.0, "unavailable"),
    ],
)
async def test_a_search_that_fails_fails_no_turn(
    failure: KirostreamError | tuple[int, bytes] | float, word: SearchError, autojump_clock: trio.abc.Clock
) -> None:
    async with stage(searching(), ok(*HELLO)) as staged:
        staged.client.found = [failure] * 3
        began = trio.current_time()
        result = await played(staged)
        assert trio.current_time() - began <= SearchSettings().deadline + 1
    assert isinstance(result.content[1], SearchOutcome)
    assert result.content[1].error == word
    assert (result.stop, result.usage.searches) == (Stop.END, 0)
    assert ERRORS[word] in told(staged.provider.fitted[-1])
    (fact,) = [fact for fact in staged.facts if isinstance(fact, Searched)]
    assert fact.error


async def test_a_rejected_token_is_refreshed_once(autojump_clock: trio.abc.Clock) -> None:
    async with stage(searching(), ok(*HELLO)) as staged:
        staged.client.found = [(403, b"")]
        result = await played(staged)
    assert staged.client.searched == ["t0 news", "t1 news"]
    assert result.usage.searches == 1
    async with stage(searching(), ok(*HELLO)) as staged:
        staged.client.found = [(403, b"")] * 3
        result = await played(staged)
    assert staged.client.searched == ["t0 news", "t1 news"]
    assert result.usage.searches == 0


async def test_a_failure_on_the_way_is_tried_again(autojump_clock: trio.abc.Clock) -> None:
    async with stage(searching(), ok(*HELLO)) as staged:
        staged.client.found = [UpstreamDown("once")]
        result = await played(staged)
    assert (len(staged.client.searched), result.usage.searches) == (2, 1)


async def test_a_later_round_is_tried_again_while_it_has_said_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with stage(searching(), UpstreamDown("once"), ok(*HELLO)) as staged:
        result = await played(staged)
    assert result.content[-1] == Text("hello")
    assert len(staged.client.searched) == 1


async def test_a_later_round_that_breaks_off_breaks_the_turn(autojump_clock: trio.abc.Clock) -> None:
    async with stage(searching(), ok(FIRST, StreamCut("cut"))) as staged, staged.relay.turn(SEARCH) as live:
        failed = await outcome(live)
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, StreamCut)


async def test_who_leaves_ends_the_search(autojump_clock: trio.abc.Clock) -> None:
    async with stage(searching()) as staged:
        staged.client.found = [29.0]
        began = trio.current_time()
        async with staged.relay.turn(SEARCH):
            await trio.sleep(1)
        assert trio.current_time() - began < 2
        assert staged.relay.snapshot().left == 1


async def test_the_limits_of_the_client_hold_for_the_whole_turn(autojump_clock: trio.abc.Clock) -> None:
    request = replace(SEARCH, sampling=Sampling(max_tokens=5))  # 25 bytes: "hello", the query in JSON, "hell"
    async with stage(ok(FIRST, MORE, calling(), END), ok(*HELLO)) as staged:
        result = await played(staged, request)
    assert result.stop is Stop.MAX_TOKENS
    assert result.content[0] == Text("hello")
    assert result.content[-1] == Text("hell")


@pytest.mark.parametrize("change", ["off", "none"])
async def test_a_search_that_may_not_be_is_not_offered(change: str, autojump_clock: trio.abc.Clock) -> None:
    settings = SETTINGS if change == "none" else replace(SETTINGS, search=SearchSettings(enabled=False))
    request = SEARCH if change == "off" else replace(SEARCH, tool_choice=ToolChoice("none"))
    async with stage(ok(*HELLO), settings=settings) as staged:
        result = await played(staged, request)
    assert result == TurnResult((Text("hello"),), Stop.END, result.usage, result.model)
    assert [tool.name for tool in staged.provider.fitted[0].tools] == ["Read"]


async def test_an_answer_in_a_shape_may_be_searched_for(autojump_clock: trio.abc.Clock) -> None:
    request = replace(ASK, search=Search(), output=OutputFormat(b'{"type":"object"}'))
    async with stage(searching(), ok(calling("final_answer", "yes", "tooluse_2"), END)) as staged:
        result = await played(staged, request)
    assert [type(block) for block in result.content] == [SearchCall, SearchOutcome, Text]
    assert result.content[-1] == Text('{"query":"yes"}')
    first = staged.provider.fitted[0]
    assert [tool.name for tool in first.tools] == ["final_answer", "web_search"]
    assert first.tool_choice.mode == "auto", "an answer that is forced could not be searched for"


def test_the_settings_have_names_of_their_own() -> None:
    assert RelaySettings().search == SearchSettings()
