"""Web search through the official SDKs, over the simulated service's own search; and as real clients ask for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest
from anthropic.types import Message

from e2e.conftest import Running
from kirostream.simulator.websearch import pages

MODEL: Final = "claude-sonnet-4.5"
CAPTURES: Final = Path(__file__).parents[3] / "shared" / "captures"
SEARCH: Final[Any] = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
READ: Final[Any] = {"name": "Read", "input_schema": {"type": "object"}}
CLAUDE_CODE: Final[Any] = {
    "model": MODEL,
    "max_tokens": 32_000,
    "system": [{"type": "text", "text": "You are an assistant for performing a web search tool use"}],
    "tools": [SEARCH],
    "metadata": {"user_id": "user_1"},
}
"""What Claude Code asks a search with (client-apis.md section 4.3)."""


@pytest.fixture
def claude(gateway: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as made:
        yield made


@pytest.fixture
def gpt(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def ask(client: anthropic.Anthropic, prompt: str, *, stream: bool = True, **more: Any) -> Message:
    """The answer of the SDK's accumulator, or the whole one."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 32_000,
        "messages": [user(prompt)],
        "tools": [SEARCH],
        **more,
    }
    if not stream:
        answer = client.messages.create(**asked, timeout=30)  # without one the SDK refuses a large `max_tokens`
        assert isinstance(answer, Message)
        return answer
    with client.messages.stream(**asked) as events:
        return events.get_final_message()


def kinds(message: Message) -> list[str]:
    return [block.type for block in message.content]


def urls(message: Message) -> list[list[str]]:
    """Of every search: what it found."""
    return [
        [hit.url for hit in block.content]
        for block in message.content
        if block.type == "web_search_tool_result" and isinstance(block.content, list)
    ]


def said(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


CALLED = '[[tool:web_search {"query":"%s"}]]'


# Anthropic


@pytest.mark.parametrize("stream", [True, False])
def test_claude_codes_search(claude: anthropic.Anthropic, stream: bool) -> None:
    prompt = "Perform a web search for the query: trio [[say:{{result}}]]"
    message = ask(claude, prompt, stream=stream, **CLAUDE_CODE)
    assert kinds(message) == ["server_tool_use", "web_search_tool_result", "text"]
    call, outcome, _ = message.content
    assert call.type == "server_tool_use"
    assert call.input == {"query": "trio [[say:{{result}}]]"}
    assert outcome.type == "web_search_tool_result"
    assert outcome.tool_use_id == call.id
    assert urls(message) == [[page["url"] for page in pages("trio [[say:{{result}}]]")]]
    assert pages("trio [[say:{{result}}]]")[2]["snippet"] in said(message)
    assert message.stop_reason == "end_turn"
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_search_among_other_tools(claude: anthropic.Anthropic, stream: bool) -> None:
    script = f"[[say:Let me look.]]{CALLED % 'trio'}[[next]]{CALLED % 'h11'}[[next]][[say:Done: {{{{result}}}}]]"
    message = ask(claude, script, stream=stream, tools=[SEARCH, READ])
    search = ["server_tool_use", "web_search_tool_result"]
    assert kinds(message) == ["text", *search, *search, "text"]
    assert said(message).startswith("Let me look.Done: 1. h11, page 1")
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 2


def test_what_is_streamed_is_valid_for_who_reads_it_piece_by_piece(claude: anthropic.Anthropic) -> None:
    asked = [user(f"[[say:a]]{CALLED % 'trio'}[[next]][[say:b]]")]
    inputs = []
    with claude.messages.stream(model=MODEL, max_tokens=9_999, tools=[SEARCH, READ], messages=asked) as events:
        for event in events:
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                inputs.append(event.delta.partial_json)
    assert json.loads("".join(inputs)) == {"query": "trio"}


def test_searches_beside_calls_of_the_client_and_the_way_back(claude: anthropic.Anthropic) -> None:
    script = user(
        f"{CALLED % 'trio'}[[tool:Read {{}}]][[next]][[say:{{{{find:Page 3 about trio}}}} {{{{find:file text}}}}]]"
    )
    first = ask(claude, "", messages=[script], tools=[SEARCH, READ])
    assert sorted(kinds(first)) == ["server_tool_use", "tool_use", "web_search_tool_result"]
    assert first.stop_reason == "tool_use"
    call = next(block for block in first.content if block.type == "tool_use")
    history = [
        script,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "file text"}]},
    ]
    second = ask(claude, "", messages=history, tools=[SEARCH, READ])
    assert said(second) == "FOUND FOUND"


def test_a_later_question_knows_what_was_found(claude: anthropic.Anthropic) -> None:
    script = user(f"[[say:a]]{CALLED % 'trio'}[[next]][[say:b]]")
    first = ask(claude, "", messages=[script], tools=[SEARCH, READ])
    answer = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]}
    snippet = pages("trio")[4]["snippet"]
    for tools in ([SEARCH, READ], [READ], []):
        asked = [script, answer, user(f"[[say:{{{{find:{snippet}}}}}]]")]
        assert said(ask(claude, "", messages=asked, tools=tools)) == "FOUND", tools


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("x error:INTERNAL", "unavailable"),
        ("x error:THROTTLE", "too_many_requests"),
        ("x rpc:-32602", "invalid_tool_input"),
        ("x tool:broken", "unavailable"),
        ("garbled", "unavailable"),
        ("y" * 201, "query_too_long"),
    ],
)
def test_a_search_that_fails(claude: anthropic.Anthropic, query: str, code: str) -> None:
    message = ask(claude, f"{CALLED % query}[[next]][[say:Sorry.]]", tools=[SEARCH, READ])
    assert kinds(message) == ["server_tool_use", "web_search_tool_result", "text"]
    outcome = message.content[1]
    assert outcome.type == "web_search_tool_result"
    assert not isinstance(outcome.content, list)
    assert outcome.content.error_code == code
    assert said(message) == "Sorry."
    assert message.usage.server_tool_use is None


def test_a_failure_on_the_way_is_not_seen(claude: anthropic.Anthropic) -> None:
    message = ask(claude, f"{CALLED % 'x fail:INTERNAL:once'}[[next]][[say:ok]]")
    assert len(urls(message)[0]) == 5


def test_nothing_found_is_no_failure(claude: anthropic.Anthropic) -> None:
    message = ask(claude, f"{CALLED % 'nothing at all'}[[next]][[say:{{{{result}}}}]]")
    assert urls(message) == [[]]
    assert said(message) == "Nothing was found."


def test_no_more_searches_than_were_allowed(claude: anthropic.Anthropic) -> None:
    script = "[[next]]".join(CALLED % f"q{n}" for n in range(3)) + "[[next]][[say:enough]]"
    message = ask(claude, script, tools=[{**SEARCH, "max_uses": 2}])
    outcomes = [block.content for block in message.content if block.type == "web_search_tool_result"]
    assert [isinstance(outcome, list) for outcome in outcomes] == [True, True, False]
    assert said(message) == "enough"


def test_domains(claude: anthropic.Anthropic) -> None:
    script = f"{CALLED % 'trio'}[[next]][[say:{{{{result}}}}]]"
    allowed = ask(claude, script, tools=[{**SEARCH, "allowed_domains": ["example.org", "docs.example.com"]}])
    assert urls(allowed) == [["https://docs.example.com/trio/2", "https://news.example.org/trio/3"]]
    assert "example.net" not in said(allowed)
    blocked = ask(claude, script, tools=[{**SEARCH, "blocked_domains": ["example.com"]}])
    assert urls(blocked) == [["https://news.example.org/trio/3", "https://blog.example.net/trio/4"]]


def test_a_function_of_the_clients_own_by_that_name_is_its_own(claude: anthropic.Anthropic) -> None:
    own = {**READ, "name": "web_search"}
    message = ask(claude, CALLED % "trio", tools=[own])
    assert kinds(message) == ["tool_use"]
    assert message.stop_reason == "tool_use"


def captured(name: str, **changes: Any) -> dict[str, Any]:
    try:
        body = json.loads((CAPTURES / name).read_text())["body"]
    except FileNotFoundError:
        pytest.skip("the captured requests of real clients are not here")
    return {**body, **changes}


def test_clines_mixed_list_of_tools(claude: anthropic.Anthropic) -> None:
    script = user(f"[[say:a]]{CALLED % 'trio'}[[next]][[say:b]]")
    body = captured("cline--tools_anthropic--01.json", messages=[script], model=MODEL)
    del body["stream"]
    with claude.messages.stream(**body) as events:
        message = events.get_final_message()
    assert kinds(message) == ["text", "server_tool_use", "web_search_tool_result", "text"]


# OpenAI


def test_responses(gpt: openai.OpenAI) -> None:
    script = f"[[say:Let me look.]]{CALLED % 'trio'}[[next]][[say:See [the page](https://example.com/trio/1)\\\\] now]]"
    script = script.replace("[the page](https://example.com/trio/1)\\\\]", "\\[the page\\](https://example.com/trio/1)")
    tools: Any = [{"type": "web_search"}]
    include: Any = ["web_search_call.action.sources"]
    with gpt.responses.stream(model=MODEL, input=script, tools=tools, include=include) as events:
        seen = [event.type for event in events]
        streamed = events.get_final_response()
    whole = gpt.responses.create(model=MODEL, input=script, tools=tools, include=include)
    for kind in ("in_progress", "searching", "completed"):
        assert f"response.web_search_call.{kind}" in seen
    assert "response.output_text.annotation.added" in seen
    for answer in (streamed, whole):
        assert [item.type for item in answer.output] == ["message", "web_search_call", "message"]
        search = answer.output[1]
        assert search.type == "web_search_call"
        assert search.status == "completed"
        assert search.action.type == "search"
        assert search.action.query == "trio"
        assert [source.url for source in search.action.sources or ()] == [page["url"] for page in pages("trio")]
        last = answer.output[2]
        assert last.type == "message"
        part = last.content[0]
        assert part.type == "output_text"
        (cited,) = part.annotations
        assert cited.type == "url_citation"
        assert part.text[cited.start_index : cited.end_index] == "[the page](https://example.com/trio/1)"
        assert (cited.url, cited.title) == ("https://example.com/trio/1", "trio, page 1")


def test_responses_remember_what_was_found(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "web_search"}]
    first = gpt.responses.create(model=MODEL, input=f"{CALLED % 'trio'}[[next]][[say:b]]", tools=tools)
    snippet = pages("trio")[1]["snippet"]
    question = f"[[say:{{{{find:{snippet}}}}}]]"
    second = gpt.responses.create(model=MODEL, input=question, previous_response_id=first.id)
    assert second.output_text == "FOUND"
    # A client that keeps its own history has the query alone.
    items: Any = [item.model_dump(exclude_none=True) for item in first.output]
    asked: Any = [user("hi"), *items, user(f"[[say:{{{{find:{snippet}}}}} {{{{find:not at hand any more}}}}]]")]
    third = gpt.responses.create(model=MODEL, input=asked, store=False)
    assert third.output_text == "MISSING FOUND"


def test_responses_say_a_search_that_failed(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "web_search_preview"}]
    answer = gpt.responses.create(model=MODEL, input=f"{CALLED % 'x tool:broken'}[[next]][[say:b]]", tools=tools)
    assert answer.status == "completed"
    search = answer.output[0]
    assert search.type == "web_search_call"
    assert search.status == "failed"


def test_clines_mixed_list_in_responses(gpt: openai.OpenAI) -> None:
    script = f"[[say:a]]{CALLED % 'trio'}[[next]][[say:b]]"
    body = captured("cline--tools_responses--01.json", input=script, stream=False)
    answer = gpt.responses.create(**body)
    assert [item.type for item in answer.output] == ["message", "web_search_call", "message"]


@pytest.mark.parametrize("stream", [True, False])
def test_chat(gpt: openai.OpenAI, stream: bool) -> None:
    script = f"[[say:Look: ]]{CALLED % 'trio'}[[next]][[say:😀 https://example.com/trio/1.]]"
    asked: dict[str, Any] = {"model": MODEL, "messages": [user(script)], "web_search_options": {}}
    if stream:
        deltas = [chunk.choices[0].delta for chunk in gpt.chat.completions.create(**asked, stream=True)]
        content = "".join(delta.content or "" for delta in deltas)
        cited = [each for delta in deltas for each in (delta.model_extra or {}).get("annotations", ())]
    else:
        message = gpt.chat.completions.create(**asked).choices[0].message
        content = message.content or ""
        cited = [each.model_dump() for each in message.annotations or ()]
    assert content == "Look: 😀 https://example.com/trio/1."
    (citation,) = [each["url_citation"] for each in cited]
    assert content[citation["start_index"] : citation["end_index"]] == citation["url"] == "https://example.com/trio/1"
