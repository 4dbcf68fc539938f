"""Web search in the three public languages: what asks for it, how it is said, and how it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.citations import citations
from kirostream.dialects.dialect import Heading, Stamp, Templates
from kirostream.dialects.openai_responses.response import Writer
from kirostream.turn.events import BlockDelta, Stop, TurnEvent
from kirostream.turn.model import Model
from kirostream.turn.request import (
    SEARCH_TOOL,
    Message,
    Role,
    Search,
    SearchCall,
    SearchHit,
    SearchOutcome,
    Text,
    Thought,
    ToolCall,
    ToolChoice,
    TurnRequest,
)
from kirostream.turn.result import TurnResult, unfold
from kirostream.turn.usage import Usage

HEADING: Final = Heading("a" * 32, 1_767_225_600)
HITS: Final = (
    SearchHit("https://example.com/1", "One", "2026-01-01", "the first page, ü"),
    SearchHit("https://example.com/2", "Two"),
)
CALL: Final = SearchCall("srvtoolu_1", "trio 😀")
FOUND: Final = SearchOutcome("srvtoolu_1", HITS)
FAILED: Final = SearchOutcome("srvtoolu_1", (), "unavailable")
NAMED: Final = "😀 See [One](https://example.com/1), https://example.com/2 and https://example.com/11."
ASKED: Final = {"type": "web_search_20250305", "name": "web_search"}
READ: Final = {"name": "Read", "input_schema": {"type": "object"}}
FUNCTION: Final = {"type": "function", "name": "Read", "parameters": {"type": "object"}}


def read(name: str, **more: Any) -> TurnRequest:
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    if name == "openai_responses":
        question = {"input": "hi"}
    return DIALECTS[name].read_request(json.dumps({"model": "m", **question, **more}).encode(), ())


def result(*content: Any, stop: Stop = Stop.END, searches: int = 1) -> TurnResult:
    return TurnResult(tuple(content), stop, Usage(input_tokens=3, output_tokens=4, searches=searches), "m")


# What asks for it


@pytest.mark.parametrize(
    ("name", "body", "search"),
    [
        ("anthropic", {"tools": [ASKED]}, Search()),
        ("anthropic", {"tools": [{**ASKED, "type": "web_search_20260318", "max_uses": 8}]}, Search(max_uses=8)),
        ("anthropic", {"tools": [{**ASKED, "max_uses": 0}]}, None),
        ("anthropic", {"tools": [{**ASKED, "allowed_domains": ["a"]}]}, Search(allowed_domains=("a",))),
        ("anthropic", {"tools": [{**ASKED, "blocked_domains": ["a"]}]}, Search(blocked_domains=("a",))),
        (
            "anthropic",
            {"tools": [{**ASKED, "user_location": {"type": "approximate", "city": "Berlin", "country": "DE"}}]},
            Search(location="Berlin, DE"),
        ),
        ("anthropic", {"tools": [{**READ, "name": "web_search"}]}, None),
        ("anthropic", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, None),
        ("openai_responses", {"tools": [{"type": "web_search"}]}, Search()),
        ("openai_responses", {"tools": [{"type": "web_search_preview_2025_03_11"}]}, Search()),
        ("openai_responses", {"tools": [{"type": "web_search", "external_web_access": True}]}, Search()),
        ("openai_responses", {"tools": [{"type": "web_search", "external_web_access": False}]}, None),
        ("openai_responses", {"tools": [{"type": "web_search"}], "max_tool_calls": 3}, Search(max_uses=3)),
        ("openai_responses", {"tools": [{"type": "web_search"}], "max_tool_calls": 0}, None),
        (
            "openai_responses",
            {"tools": [{"type": "web_search", "filters": {"allowed_domains": ["a"]}}]},
            Search(allowed_domains=("a",)),
        ),
        (
            "openai_responses",
            {"tools": [{"type": "web_search", "user_location": {"type": "approximate", "city": "Rome"}}]},
            Search(location="Rome"),
        ),
        (
            "openai_responses",
            {
                "tools": [{"type": "web_search"}, FUNCTION],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]},
            },
            None,
        ),
        ("openai_responses", {"tools": [{**FUNCTION, "name": "web_search"}]}, None),
        ("openai_chat", {"web_search_options": {}}, Search()),
        (
            "openai_chat",
            {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Oslo"}}}},
            Search(location="Oslo"),
        ),
        ("openai_chat", {"web_search_options": None}, None),
        ("openai_chat", {"tools": [{"type": "function", "function": {"name": "web_search"}}]}, None),
    ],
)
def test_what_asks_for_it(name: str, body: dict[str, Any], search: Search | None) -> None:
    request = read(name, **body)
    assert request.search == search
    again = DIALECTS[name].read_request(DIALECTS[name].write_request(request, Stamp(Model("m"))), ())
    assert again.search == search


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("anthropic", {"tools": [ASKED], "tool_choice": {"type": "tool", "name": "web_search"}}),
        ("openai_responses", {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search_preview"}}),
    ],
)
def test_it_can_be_forced(name: str, body: dict[str, Any]) -> None:
    assert read(name, **body).tool_choice == ToolChoice("tool", SEARCH_TOOL)


def test_a_choice_of_no_tool_is_one_of_no_search() -> None:
    assert read("openai_chat", web_search_options={}, tool_choice="none").search is None
    assert read("anthropic", tools=[ASKED], tool_choice={"type": "none"}).tool_choice.mode == "none"
    assert read("openai_responses", tools=[{"type": "web_search"}], tool_choice="none").tool_choice.mode == "none"


@pytest.mark.parametrize("name", ["anthropic", "openai_responses", "openai_chat"])
def test_it_is_asked_for_in_any_language(name: str) -> None:
    request = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), search=Search(), spoken_in="other")
    assert DIALECTS[name].read_request(DIALECTS[name].write_request(request, Stamp(Model("m"))), ()).search == Search()


# How it is said


def streamed(name: str, events: Iterable[TurnEvent], **asked: Any) -> list[dict[str, Any]]:
    writer = DIALECTS[name].writer(read(name, **asked), HEADING)
    wire = b"".join(block for event in events for block in writer.write(event))
    lines = [line[6:] for line in wire.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def test_messages_says_the_call_and_then_its_outcome() -> None:
    events = streamed("anthropic", unfold(result(Text("a"), CALL, FOUND, Text("b"))))
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [start["type"] for start in starts] == ["text", "server_tool_use", "web_search_tool_result", "text"]
    assert starts[1] == {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    said = [event["delta"] for event in events if event["type"] == "content_block_delta" and event["index"] == 1]
    assert "".join(delta["partial_json"] for delta in said) == '{"query":"trio 😀"}'
    assert {delta["type"] for delta in said} == {"input_json_delta"}
    assert starts[2]["tool_use_id"] == "srvtoolu_1"
    first, second = starts[2]["content"]
    assert (first["type"], first["url"], first["title"]) == ("web_search_result", "https://example.com/1", "One")
    assert (first["page_age"], second["page_age"]) == ("2026-01-01", None)
    assert isinstance(second["encrypted_content"], str)
    assert events[-2]["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}
    whole = json.loads(DIALECTS["anthropic"].write_result(read("anthropic"), result(CALL, FOUND), HEADING))
    assert whole["content"] == [{**starts[1], "input": {"query": "trio 😀"}}, starts[2]]


def test_messages_says_a_failure_in_place_of_results() -> None:
    events = streamed("anthropic", unfold(result(CALL, FAILED, searches=0)))
    failed = next(e["content_block"] for e in events if e.get("content_block", {}).get("tool_use_id"))
    assert failed["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    assert "server_tool_use" not in events[-2]["usage"]


def test_responses_says_a_search_as_one_item() -> None:
    events = streamed("openai_responses", unfold(result(CALL, FOUND, Text(NAMED))), tools=[{"type": "web_search"}])
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:9] == [
        "created",
        "in_progress",
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    assert kinds[-7:] == [
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    item = events[6]["item"]
    assert (item["type"], item["status"]) == ("web_search_call", "completed")
    assert item["action"] == {"type": "search", "query": "trio 😀", "queries": ["trio 😀"]}
    assert {event["item_id"] for event in events[3:6]} == {item["id"]}
    assert {event["output_index"] for event in events[2:7]} == {0}
    added = [event["annotation"] for event in events if event["type"].endswith("annotation.added")]
    assert [NAMED[a["start_index"] : a["end_index"]] for a in added] == [
        "[One](https://example.com/1)",
        "https://example.com/2",
    ]
    assert (added[0]["type"], added[0]["title"], added[0]["url"]) == ("url_citation", "One", "https://example.com/1")
    message = events[-1]["response"]["output"][1]
    assert message["content"][0]["annotations"] == added
    assert events[-3]["part"]["annotations"] == added


def test_responses_shows_its_sources_where_it_is_asked_to() -> None:
    asked = {"include": ["web_search_call.action.sources"]}
    events = streamed("openai_responses", unfold(result(CALL, FOUND)), **asked)
    item = events[-1]["response"]["output"][0]
    assert item["action"]["sources"] == [{"type": "url", "url": hit.url} for hit in HITS]


def test_responses_says_a_search_that_failed_or_was_left() -> None:
    events = streamed("openai_responses", unfold(result(CALL, FAILED, Text("x"))))
    assert events[-1]["response"]["output"][0]["status"] == "failed"
    assert not any(event["type"].endswith("web_search_call.completed") for event in events)
    left = streamed("openai_responses", unfold(result(CALL, stop=Stop.MAX_TOKENS)))
    assert left[-1]["response"]["output"][0]["status"] == "incomplete"
    assert left[-2]["type"] == "response.output_item.done"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("anthropic", {"tools": [ASKED]}),
        ("openai_chat", {"web_search_options": {}}),
        ("openai_chat", {}),
        ("openai_responses", {"tools": [{"type": "web_search"}]}),
    ],
)
def test_what_is_said_by_a_template_is_cited_and_repeated_as_what_is_written(name: str, more: dict[str, Any]) -> None:
    """A track says the pieces of a block itself, and tells the writer afterwards (`relay.lane`)."""
    said = result(Thought("Hm."), Text("Let me look. "), CALL, FOUND, Text(NAMED), ToolCall("c", "Read", b'{"a":1}'))
    request = read(name, **more)
    told, writer = (DIALECTS[name].writer(request, HEADING) for _ in range(2))
    assert isinstance(told, Templates)
    by_template = 0
    for event in unfold(said):
        if isinstance(event, BlockDelta):
            event = BlockDelta(event.index, (*event.pieces, b" ", b" "))
        template = told.template(event.index) if isinstance(event, BlockDelta) else None
        if template is None or not isinstance(event, BlockDelta):
            assert told.write(event) == writer.write(event)
        else:
            by_template += 1
            assert template.say(event.pieces) == writer.write(event)
            told.was_said(event)
    assert by_template >= 3


def test_chat_cites_the_pages_that_its_text_names() -> None:
    said = result(Text("Let me look. "), CALL, FOUND, Text(NAMED))
    events = streamed("openai_chat", unfold(said), web_search_options={})
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    content = "".join(delta.get("content", "") for delta in deltas)
    cited = [each for delta in deltas for each in delta.get("annotations", ())]
    assert [content[c["url_citation"]["start_index"] : c["url_citation"]["end_index"]] for c in cited] == [
        "[One](https://example.com/1)",
        "https://example.com/2",
    ]
    whole = json.loads(DIALECTS["openai_chat"].write_result(read("openai_chat"), said, HEADING))
    assert whole["choices"][0]["message"]["annotations"] == cited
    assert whole["choices"][0]["message"]["content"] == content


def test_chat_says_nothing_of_a_search_that_nobody_asked_for() -> None:
    events = streamed("openai_chat", unfold(result(CALL, FOUND, Text("x"))))
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "x"},
        {},
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("https://example.com/1", ["https://example.com/1"]),
        ("(https://example.com/1)", ["https://example.com/1"]),
        ("<https://example.com/1>.", ["https://example.com/1"]),
        ("https://example.com/1/", ["https://example.com/1/"]),
        ("**https://example.com/1**", ["https://example.com/1"]),
        ("https://example.com/12", []),
        ("https://example.com/1?x=y", []),
        ("https://example.com/1-more", []),
        ("One, says example.com/1", []),
        (
            '[a [b] c](https://example.com/1 "title")',
            ["https://example.com/1"],
        ),
        ("[One]( https://example.com/1)", ["https://example.com/1"]),
        (
            "[One](https://example.com/1 'x') [1](https://example.com/1)",
            ["[One](https://example.com/1 'x')", "[1](https://example.com/1)"],
        ),
        ("[" + "x" * 600 + "](https://example.com/1)", ["https://example.com/1"]),
        ("](https://example.com/1)", ["https://example.com/1"]),
        ("[](https://example.com/1)", ["[](https://example.com/1)"]),
        ("https://example.com/2 https://example.com/1", ["https://example.com/2", "https://example.com/1"]),
        ("", []),
    ],
)
def test_only_what_stands_there_is_cited(text: str, named: list[str]) -> None:
    assert [text[found.start : found.end] for found in citations(text, HITS)] == named


# How it comes back


def test_messages_come_back_with_the_pages_that_were_found() -> None:
    answer = json.loads(
        DIALECTS["anthropic"].write_result(read("anthropic"), result(Text("a"), CALL, FOUND, Text("b")), HEADING)
    )
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer["content"]}]
    request = read("anthropic", messages=messages)
    assert request.messages[1].content == (Text("a"), CALL, FOUND, Text("b"))


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        ([], SearchOutcome("s")),
        ([5, {"type": "web_search_result", "url": "u"}], SearchOutcome("s", (SearchHit("u", ""),))),
        (
            [{"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "Eo8D" * 9}],
            SearchOutcome("s", (SearchHit("u", "t"),)),
        ),
        (
            [{"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "ks0.%%"}],
            SearchOutcome("s", (SearchHit("u", "t"),)),
        ),
        ({"error_code": "max_uses_exceeded"}, SearchOutcome("s", (), "max_uses_exceeded")),
        ({"error_code": "from_the_future"}, SearchOutcome("s", (), "unavailable")),
        ("what?", SearchOutcome("s", (), "unavailable")),
    ],
)
def test_results_of_others_are_read_as_far_as_they_say_anything(content: object, outcome: SearchOutcome) -> None:
    block = {"type": "web_search_tool_result", "tool_use_id": "s", "content": content}
    request = read("anthropic", messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": [block]}])
    assert request.messages[1].content == (outcome,)


def test_responses_come_back_as_the_client_has_them_and_whole_where_they_are_kept() -> None:
    asked = read("openai_responses")
    writer = Writer(asked, HEADING, keeps=True)
    blocks = [json.loads(b.split(b"data: ")[1]) for e in unfold(result(CALL, FOUND)) for b in writer.write(e)]
    shown = blocks[-1]["response"]["output"]
    for items, hits in ((shown, None), ([json.loads(item) for item in writer.items], HITS)):
        request = read("openai_responses", input=[{"role": "user", "content": "hi"}, *items])
        call, outcome = request.messages[1].content
        assert isinstance(call, SearchCall)
        assert (call.id, call.query) == (shown[0]["id"], "trio 😀")
        assert outcome == SearchOutcome(call.id, hits)
    assert "sources" not in shown[0]["action"]


@pytest.mark.parametrize(
    ("item", "content"),
    [
        ({"action": {"type": "search", "query": "q"}, "id": "w"}, (SearchCall("w", "q"), SearchOutcome("w", None))),
        ({"action": {"type": "open_page", "url": "u"}, "id": "w"}, (SearchCall("w", "u"), SearchOutcome("w", None))),
        (
            {"action": {"queries": ["q"]}, "id": "w", "status": "failed"},
            (SearchCall("w", "q"), SearchOutcome("w", (), "unavailable")),
        ),
        ({"id": "w"}, None),
        ({"id": "w", "action": 5}, None),
    ],
)
def test_items_of_others(item: dict[str, Any], content: object) -> None:
    items = [{"role": "user", "content": "hi"}, {"type": "web_search_call", **item}, {"role": "user", "content": "on"}]
    messages = read("openai_responses", input=items).messages
    assert (messages[1].content if content else len(messages)) == (content or 2)
