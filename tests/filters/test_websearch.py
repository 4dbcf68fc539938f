"""The rounds of a turn that searches: one turn whatever their number, and what is asked in each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.turns import RESULT, cut_finer, through
from kirostream.filters.limits import Limits
from kirostream.filters.request_rules import apply_rules
from kirostream.filters.websearch import (
    ERRORS,
    GONE,
    MAX_QUERY,
    NOTHING,
    SPENT,
    SearchSettings,
    WebSearch,
    as_calls,
    as_text,
    select,
)
from kirostream.turn.events import BlockKind, BlockStarted, Stop, TurnEnded, TurnEvent, TurnStarted, UsageKnown
from kirostream.turn.grammar import Grammar
from kirostream.turn.request import (
    AUTO,
    Message,
    Role,
    Search,
    SearchCall,
    SearchError,
    SearchHit,
    SearchOutcome,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import AnswerBlock, TurnResult, fold, unfold
from kirostream.turn.usage import Usage

READ = Tool("Read", "", b"{}")
HITS = (SearchHit("https://a.example/1", "A", "2026-01-01", "alpha"), SearchHit("https://b.example/2", "B", "", "beta"))
SEED = "5eed" * 8


def user(*blocks: Any) -> Message:
    return Message(Role.USER, tuple(Text(b) if isinstance(b, str) else b for b in blocks))


def assistant(*blocks: Any) -> Message:
    return Message(Role.ASSISTANT, tuple(Text(b) if isinstance(b, str) else b for b in blocks))


def asking(text: str = "What is new?", *tools: Tool, **more: Any) -> TurnRequest:
    return TurnRequest(model="m", messages=(user(text),), tools=tools, **{"search": Search(), **more})


def call(query: str = "news", call_id: str = "tooluse_1", name: str = "web_search") -> ToolCall:
    return ToolCall(call_id, name, json.dumps({"query": query}).encode())


def a_round(*content: AnswerBlock | str, stop: Stop = Stop.END, **usage: Any) -> list[TurnEvent]:
    blocks = tuple(Text(block) if isinstance(block, str) else block for block in content)
    called = any(isinstance(block, ToolCall) for block in blocks)
    stop = Stop.TOOL_CALL if called and stop is Stop.END else stop
    return list(unfold(TurnResult(blocks, stop, Usage(**{"input_tokens": 10, "output_tokens": 1, **usage}), "m")))


class Turn:
    """A turn that is played against scripted rounds."""

    def __init__(self, request: TurnRequest, settings: SearchSettings | None = None) -> None:
        self.search = WebSearch(request, settings or SearchSettings(), SEED)
        self.asked: list[TurnRequest] = []
        self.ran: list[str] = []
        self.said: list[TurnEvent] = []
        self._grammar = Grammar()

    def say(self, events: Iterable[TurnEvent]) -> None:
        for event in events:
            self._grammar.check(event)
            self.said.append(event)

    def run_searches(self, hits: Sequence[SearchHit] = HITS, error: SearchError = "") -> None:
        for wanted in self.search.wanted:
            self.say(self.search.searching(wanted.call))
            if not wanted.error:
                self.ran.append(wanted.call.query)
            self.say(self.search.found(wanted.call, () if wanted.error else hits, wanted.error or error))
        if self.search.wanted:
            self.say(self.search.go_on())

    def play(self, *rounds: Sequence[TurnEvent], hits: Sequence[SearchHit] = HITS, error: SearchError = "") -> Turn:
        self.run_searches(hits, error)
        for events in rounds:
            assert not self.over, "a round too many"
            self.asked.append(self.search.request)
            self.search.begin()
            for event in events:
                self.say(self.search.take([event]))
            self.run_searches(hits, error)
        return self

    @property
    def over(self) -> bool:
        return bool(self.said) and isinstance(self.said[-1], TurnEnded)

    @property
    def result(self) -> TurnResult:
        return fold(self.said)


# One turn of several rounds


def test_a_search_is_run_and_the_model_goes_on() -> None:
    turn = Turn(asking()).play(a_round("Let me look.", call("news")), a_round("Here it is."))
    assert turn.ran == ["news"]
    assert turn.result.content == (
        Text("Let me look."),
        SearchCall("srvtoolu_1", "news"),
        SearchOutcome("srvtoolu_1", HITS),
        Text("Here it is."),
    )
    assert turn.result.stop is Stop.END
    assert sum(isinstance(event, TurnStarted) for event in turn.said) == 1
    again = turn.asked[1]
    assert again.search is None
    assert again.messages == (
        user("What is new?"),
        assistant("Let me look.", ToolCall("srvtoolu_1", "web_search", b'{"query":"news"}')),
        user(ToolResult("srvtoolu_1", (Text(as_text(SearchOutcome("", HITS))),))),
    )


def test_text_goes_out_as_it_comes_and_a_search_when_its_round_is_over() -> None:
    search = Turn(asking()).search
    events = a_round("Let me look.", call())
    said = [[type(out).__name__ for out in search.take([event])] for event in events]
    assert said == [["TurnStarted"], ["BlockStarted"], ["BlockDelta"], ["BlockEnded"], [], [], [], []]
    assert [wanted.call.query for wanted in search.wanted] == ["news"]


def test_the_cost_is_that_of_all_rounds_on_the_last_prompt() -> None:
    turn = Turn(asking()).play(
        a_round(call("a"), input_tokens=10, output_tokens=5, credits=0.1),
        a_round(call("b"), input_tokens=20, output_tokens=6),
        a_round("x", input_tokens=30, output_tokens=7, credits=0.2),
    )
    usage = turn.result.usage
    assert (usage.input_tokens, usage.output_tokens, usage.searches) == (30, 18, 2)
    assert usage.credits == pytest.approx(0.3)
    known = [event.usage.searches for event in turn.said if isinstance(event, UsageKnown)]
    assert known == [1, 2], "a turn that ends early knows its searches"


def test_searches_and_calls_of_the_client_in_one_round_end_the_turn_as_calls() -> None:
    read = ToolCall("tooluse_2", "Read", b"{}")
    turn = Turn(asking("x", READ)).play(a_round("ok", call(), read))
    assert turn.over
    assert turn.result.stop is Stop.TOOL_CALL
    assert turn.result.content == (
        Text("ok"),
        read,
        SearchCall("srvtoolu_1", "news"),
        SearchOutcome("srvtoolu_1", HITS),
    )
    history = (user("x"), Message(Role.ASSISTANT, turn.result.content), user(ToolResult("tooluse_2", (Text("r"),))))
    ruled = apply_rules(TurnRequest(model="m", messages=history, tools=(READ,)))
    assert [block.id for block in ruled.messages[1].content if isinstance(block, ToolCall)] == [
        "tooluse_2",
        "srvtoolu_1",
    ]
    results = [block for block in ruled.messages[2].content if isinstance(block, ToolResult)]
    assert [result.call_id for result in results] == ["tooluse_2", "srvtoolu_1"]
    assert "alpha" in str(results[1].content)


def test_a_client_that_only_calls_its_own_tools_is_not_held_up() -> None:
    events = a_round("ok", ToolCall("tooluse_2", "Read", b"{}"))
    assert Turn(asking("x", READ)).play(events).said == events


@given(st.data(), st.lists(RESULT, min_size=1, max_size=3), st.booleans())
def test_any_rounds_make_one_turn(data: st.DataObject, results: list[TurnResult], prefetched: bool) -> None:
    question = "Perform a web search for the query: x" if prefetched else "x"
    turn = Turn(asking(question, *(() if prefetched else (READ,))))
    rounds: list[list[TurnEvent]] = []
    for n, result in enumerate(results):
        own = tuple(block for block in result.content if isinstance(block, Text))
        calls = () if n == len(results) - 1 else (call(f"q{n}", f"tooluse_{n}"),)
        stop = Stop.TOOL_CALL if calls else Stop.END
        rounds.append(data.draw(cut_finer(unfold(replace(result, content=own + calls, stop=stop)))))
    turn.play(*rounds)
    assert turn.over
    wanted = [f"q{n}" for n in range(len(results) - 1)]
    assert turn.ran == (["x", *wanted] if prefetched else wanted)
    texts = [block.text for block in turn.result.content if isinstance(block, Text)]
    assert texts == [block.text for result in results for block in result.content if isinstance(block, Text)]
    assert turn.result.usage.searches == len(turn.ran)


# How often


def test_a_search_beyond_the_limit_is_refused_once_and_then_the_turn_pauses() -> None:
    rounds = [a_round(call(str(n), f"tooluse_{n}")) for n in range(4)]
    turn = Turn(asking(search=Search(max_uses=2))).play(*rounds)
    assert turn.ran == ["0", "1"]
    assert turn.result.stop is Stop.PAUSED
    errors = [block.error for block in turn.result.content if isinstance(block, SearchOutcome)]
    assert errors == ["", "", "max_uses_exceeded", "max_uses_exceeded"]
    assert [SPENT in str(asked.messages[-1]) for asked in turn.asked] == [False, False, True, True]
    assert turn.result.usage.searches == 2


@pytest.mark.parametrize(("max_uses", "runs"), [(None, 3), (1, 1), (50, 3)])
def test_the_operator_has_the_last_word(max_uses: int | None, runs: int) -> None:
    rounds = [a_round(call(str(n), f"tooluse_{n}")) for n in range(runs + 2)]
    turn = Turn(asking(search=Search(max_uses=max_uses)), SearchSettings(most_uses=3)).play(*rounds)
    assert len(turn.ran) == runs


def test_a_try_that_said_nothing_uses_up_nothing() -> None:
    turn = Turn(asking(search=Search(max_uses=1)))
    turn.search.begin()
    assert turn.search.take(a_round(call())[1:-1]) == []
    turn.play(a_round(call("again")), a_round("x"))
    assert turn.ran == ["again"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (b"{}", "invalid_tool_input"),
        (b'{"query":" "}', "invalid_tool_input"),
        (b'{"query":5}', "invalid_tool_input"),
        (b'["x"]', "invalid_tool_input"),
        (b'{"query":"x', "invalid_tool_input"),
        (json.dumps({"query": "x" * (MAX_QUERY + 1)}).encode(), "query_too_long"),
        (json.dumps({"query": "é" * MAX_QUERY}).encode(), ""),
        (b'{"query":"half \\ud83d a pair"}', ""),
    ],
)
def test_a_query_that_is_none_is_not_run_and_the_model_is_told(arguments: bytes, error: SearchError) -> None:
    turn = Turn(asking()).play(a_round(ToolCall("tooluse_1", "web_search", arguments)), a_round("x"))
    assert bool(turn.ran) is not bool(error)
    for query in turn.ran:
        query.encode()  # what is sent is UTF-8
    (outcome,) = [block for block in turn.result.content if isinstance(block, SearchOutcome)]
    assert outcome.error == error
    told = turn.asked[1].messages[-1].content[0]
    assert isinstance(told, ToolResult)
    assert told.is_error is bool(error)
    if error:
        assert told.content == (Text(ERRORS[error]),)


def test_a_search_that_fails_is_told_and_costs_nothing() -> None:
    turn = Turn(asking()).play(a_round(call()), a_round("Sorry."), error="unavailable")
    assert SearchOutcome("srvtoolu_1", (), "unavailable") in turn.result.content
    assert turn.result.stop is Stop.END
    assert turn.result.usage.searches == 0


def test_what_broke_off_has_no_searches() -> None:
    turn = Turn(asking()).play(a_round("half", call(), stop=Stop.MAX_TOKENS))
    assert turn.result.content == (Text("half"),)
    assert turn.result.stop is Stop.MAX_TOKENS


# What is asked


def test_the_function_has_a_name_that_no_tool_of_the_client_has() -> None:
    own = Tool("Web_Search", "mine", b"{}")
    request = asking("x", own, tool_choice=ToolChoice("tool", "Web_Search"))
    turn = Turn(request)
    assert [tool.name for tool in turn.search.request.tools] == ["Web_Search", "web_search_"]
    assert turn.search.request.tool_choice.name == "Web_Search"
    mine = ToolCall("tooluse_1", "Web_Search", b"{}")
    assert turn.play(a_round(mine)).result.content == (mine,)


def test_a_forced_search_is_forced_once() -> None:
    request = asking("x", READ, tool_choice=ToolChoice("tool", "web_search", parallel=False))
    turn = Turn(request).play(a_round(call()), a_round("x"))
    assert turn.asked[0].tool_choice == ToolChoice("tool", "web_search", parallel=False)
    assert turn.asked[1].tool_choice == replace(AUTO, parallel=False)


def test_where_the_user_is_is_said() -> None:
    assert (
        "The user is in Berlin." in Turn(asking(search=Search(location="Berlin"))).search.request.tools[-1].description
    )


PLAIN = "Perform a web search for the query: trio 1.0"


def test_a_question_that_is_a_search_is_searched_at_once() -> None:
    turn = Turn(asking(PLAIN))
    turn.run_searches()
    assert turn.said == [], "nothing is committed before the upstream answers"
    turn.play(a_round("Here."))
    assert turn.ran == ["trio 1.0"]
    call_id = f"srvtoolu_{SEED[:24]}"
    assert turn.result.content == (SearchCall(call_id, "trio 1.0"), SearchOutcome(call_id, HITS), Text("Here."))
    assert turn.asked[0].messages[1:] == (
        assistant(ToolCall(call_id, "web_search", b'{"query":"trio 1.0"}')),
        user(ToolResult(call_id, (Text(as_text(SearchOutcome("", HITS))),))),
    )
    assert turn.asked[0].tool_choice == AUTO


def test_the_model_may_search_further_behind_it() -> None:
    turn = Turn(asking(PLAIN, search=Search(max_uses=2))).play(a_round(call("more")), a_round("x"))
    assert turn.ran == ["trio 1.0", "more"]
    assert SPENT in str(turn.asked[1].messages[-1])


@pytest.mark.parametrize(
    "request_",
    [
        asking("Perform a web search for the query: " + "x" * (MAX_QUERY + 1)),
        asking("Perform a web search for the query: a\nb"),
        asking(PLAIN + " [and tell me]\nmore"),
        asking("Search for trio"),
        asking(PLAIN, READ),
        asking(PLAIN, tool_choice=ToolChoice("none")),
        replace(asking(), messages=(user(PLAIN), assistant("x"))),
        replace(asking(), messages=(user(PLAIN, "and more"),)),
    ],
)
def test_any_other_question_is_the_models_to_understand(request_: TurnRequest) -> None:
    assert Turn(request_).search.wanted == []


# Results


@pytest.mark.parametrize(
    ("url", "domain", "inside"),
    [
        ("https://example.com/x", "example.com", True),
        ("https://docs.example.com/x", "example.com", True),
        ("https://example.com/x", "docs.example.com", False),
        ("https://badexample.com/", "example.com", False),
        ("https://example.com.evil.org/", "example.com", False),
        ("https://evil.org/example.com", "example.com", False),
        ("https://evil.org?u=https://example.com/", "example.com", False),
        ("https://example.com@evil.org/", "example.com", False),
        ("https://user@example.com:8443/x", "EXAMPLE.com", True),
        ("https://example.com./", "example.com", True),
        ("https://example.com/blog/1", "example.com/blog", True),
        ("https://example.com/blogger", "example.com/blog", False),
        ("https://example.com/en/blog/1", "example.com/*/blog", True),
        ("https://example.com/blog", "example.com/*/blog", False),
        ("https://example.com/x", "https://example.com/", True),
        ("https://docs.example.com/", "*.example.com", True),
        ("https://example.com/", "", False),
    ],
)
def test_domains(url: str, domain: str, inside: bool) -> None:
    hits = (SearchHit(url, "x"),)
    assert bool(select(hits, Search(allowed_domains=(domain,)), SearchSettings())) is inside
    assert bool(select(hits, Search(blocked_domains=(domain,)), SearchSettings())) is not inside


def test_results_are_as_many_and_as_long_as_the_operator_allows() -> None:
    hits = [SearchHit(f"https://a/{n}", "t", text="x" * 100) for n in range(9)]
    kept = select(hits, Search(), SearchSettings(results=2, extract=10))
    assert [(hit.url, len(hit.text)) for hit in kept] == [("https://a/0", 10), ("https://a/1", 10)]


def test_what_the_model_reads() -> None:
    assert as_text(SearchOutcome("", HITS)) == (
        "1. A\nhttps://a.example/1\nPublished: 2026-01-01\n\nalpha\n\n2. B\nhttps://b.example/2\n\nbeta"
    )
    assert as_text(SearchOutcome("", ())) == NOTHING
    assert as_text(SearchOutcome("", None)) == GONE
    assert as_text(SearchOutcome("", (), "unavailable")) == ERRORS["unavailable"]


# History


def test_history_comes_apart_behind_each_result() -> None:
    first, second = SearchCall("s1", "a"), SearchCall("s2", "b")
    said = assistant("t1", first, SearchOutcome("s1", HITS), "t2", second, SearchOutcome("s2", None), "t3")
    flat = as_calls(TurnRequest(model="m", messages=(user("go"), said, user("thanks"))))
    assert flat.messages == (
        user("go"),
        assistant("t1", ToolCall("s1", "web_search", b'{"query":"a"}')),
        user(ToolResult("s1", (Text(as_text(SearchOutcome("", HITS))),))),
        assistant("t2", ToolCall("s2", "web_search", b'{"query":"b"}')),
        user(ToolResult("s2", (Text(GONE),))),
        assistant("t3"),
        user("thanks"),
    )
    assert as_calls(flat) is flat


def test_an_answer_that_was_paused_goes_on_where_it_stands() -> None:
    history = (user("go"), assistant(SearchCall("s1", "a"), SearchOutcome("s1", HITS)))
    ruled = apply_rules(TurnRequest(model="m", messages=history, tools=(READ,)))
    assert ruled.messages[-1].role is Role.USER
    assert [type(block) for block in ruled.messages[-1].content] == [ToolResult]


def test_a_limit_cuts_no_query_in_half() -> None:
    call = SearchCall("s", "a long query")
    result = TurnResult((Text("a"), call, SearchOutcome("s", HITS), Text("b")), Stop.END)
    limited = fold(through(Limits(max_tokens=1), unfold(result)))
    assert limited.content == (Text("a"), call)
    assert limited.stop is Stop.MAX_TOKENS


def test_a_block_that_opens_for_the_client_is_never_the_search() -> None:
    turn = Turn(asking("x", READ)).play(a_round(call()), a_round("x"))
    kinds = [event.kind for event in turn.said if isinstance(event, BlockStarted)]
    assert kinds == [BlockKind.SEARCH, BlockKind.SEARCH_RESULT, BlockKind.TEXT]
