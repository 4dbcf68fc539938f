"""Messages requests: what is understood, what is refused, and that nothing is lost on the way back out."""

# ruff: noqa: E501  (a case of a table is one line)

from __future__ import annotations

import json
from typing import Any

import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Headers, Stamp
from kirostream.errors import MalformedRequest
from kirostream.turn.model import Model
from kirostream.turn.request import (
    AUTO,
    THINKING_OFF,
    Attachment,
    ContentBlock,
    Image,
    Message,
    Role,
    Sampling,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

ANTHROPIC = DIALECTS["anthropic"]
HELLO = [{"role": "user", "content": "Hello"}]
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
TOOL = {"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}}


def read(headers: Headers = (), **fields: Any) -> TurnRequest:
    body = {"model": "claude-sonnet-4.5", "max_tokens": 100, "messages": HELLO} | fields
    request = ANTHROPIC.read_request(json.dumps(body).encode(), headers)
    again = ANTHROPIC.read_request(ANTHROPIC.write_request(request, Stamp(Model(request.model))), headers)
    assert again == request
    return request


def blocks(*content: dict[str, Any]) -> tuple[ContentBlock, ...]:
    return read(messages=[{"role": "user", "content": list(content)}]).messages[0].content


def test_a_plain_question() -> None:
    assert read(stream=True) == TurnRequest(
        model="claude-sonnet-4.5",
        messages=(Message(Role.USER, (Text("Hello"),)),),
        sampling=Sampling(max_tokens=100),
        stream=True,
        spoken_in="anthropic",
    )


def test_every_field_that_is_understood() -> None:
    request = read(
        model="claude-opus-4-5[1m]",
        max_tokens=4096.0,
        system="Be brief.",
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "Read", "disable_parallel_tool_use": True},
        temperature=1,
        top_p=0.5,
        stop_sequences=["a", "b"],
    )
    assert request.model == "claude-opus-4-5[1m]"
    assert request.system == (Text("Be brief."),)
    assert request.tools == (Tool("Read", "Reads.", b'{"type": "object"}'),)
    assert request.tool_choice == ToolChoice("tool", "Read", parallel=False)
    assert request.sampling == Sampling(4096, 1.0, 0.5, ("a", "b"))


@pytest.mark.parametrize(
    ("system", "texts"),
    [
        (None, []),
        ("", []),
        ("one", ["one"]),
        ([{"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "two"}], ["one", "two"]),
        ([{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"}, {"type": "text", "text": "two"}], ["two"]),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "x-anthropic-billing-header: x"}], ["one", "x-anthropic-billing-header: x"]),
    ],
)  # fmt: skip
def test_system(system: object, texts: list[str]) -> None:
    assert [part.text for part in read(system=system).system] == texts


def test_system_messages_between_the_turns_keep_their_place() -> None:
    messages = read(
        messages=[
            *HELLO,
            {"role": "system", "content": [{"type": "text", "text": "Mind the step."}]},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Bye."},
        ]
    ).messages
    assert [message.role for message in messages] == [Role.USER, Role.SYSTEM, Role.ASSISTANT, Role.USER]


def test_a_turn_with_thoughts_calls_and_results() -> None:
    said = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "text", "text": "Reading."},
        {"type": "tool_use", "id": "t1", "name": "Read", "input": {"p": 1.0}},
        {"type": "tool_use", "id": "t2", "name": "List", "input": {}},
    ]
    done = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "done"},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [{"type": "text", "text": "no"}, PNG]},
        {"type": "tool_result", "tool_use_id": "t3"},
        {"type": "text", "text": "Go on."},
    ]  # fmt: skip
    messages = read(
        messages=[*HELLO, {"role": "assistant", "content": said}, {"role": "user", "content": done}]
    ).messages
    assert messages[1].content == (
        Thought("Hm.", "c2ln"),
        Thought("", redacted="b3BhcXVl"),
        Text("Reading."),
        ToolCall("t1", "Read", b'{"p": 1.0}'),
        ToolCall("t2", "List", b"{}"),
    )
    assert messages[2].content == (
        ToolResult("t1", (Text("done"),)),
        ToolResult("t2", (Text("no"), Image("image/png", "iVBORw0KGgo=")), is_error=True),
        ToolResult("t3", ()),
        Text("Go on."),
    )


@pytest.mark.parametrize(
    ("block", "read_as"),
    [
        ({"type": "text", "text": ""}, ()),
        ({"type": "text", "text": None}, ()),
        (PNG, (Image("image/png", "iVBORw0KGgo="),)),
        ({"type": "thinking", "thinking": "", "signature": "c2ln"}, (Thought("", "c2ln"),)),
        ({"type": "tool_use", "id": "t", "name": "n", "input": "text"}, (ToolCall("t", "n", b'{"arguments":"\\"text\\""}'),)),
        ({"type": "tool_use", "id": "t", "name": "n"}, (ToolCall("t", "n", b"{}"),)),
        ({"type": "tool_reference", "tool_name": "Fetch"}, (Text("The tool Fetch is available now."),)),
        ({"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}, (Text("T"), Text("D"))),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}, PNG]}}, (Text("a"), Image("image/png", "iVBORw0KGgo="))),
        ({"type": "search_result", "source": "http://x", "title": "X", "content": [{"type": "text", "text": "x"}]}, (Text("X\nhttp://x"), Text("x"))),
        ({"type": "from_the_future", "deep": [1]}, (Text('{"type": "from_the_future", "deep": [1]}'),)),
    ],
)  # fmt: skip
def test_blocks(block: dict[str, Any], read_as: tuple[ContentBlock, ...]) -> None:
    assert blocks(block) == read_as


def test_the_result_of_a_tool_search_is_text() -> None:
    found = {"type": "tool_reference", "tool_name": "WebFetch"}
    assert blocks({"type": "tool_result", "tool_use_id": "t", "content": [found]}) == (
        ToolResult("t", (Text("The tool WebFetch is available now."),)),
    )


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, THINKING_OFF),
        ({"thinking": None}, THINKING_OFF),
        ({"thinking": {"type": "disabled"}}, THINKING_OFF),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999, "display": "omitted"}}, Thinking(True, 31999)),
        ({"thinking": {"type": "adaptive", "display": "updates"}}, Thinking(True)),
        ({"thinking": {"type": "between_tools"}}, Thinking(True)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, Thinking(True, None, "xhigh")),
        ({"output_config": {"effort": "medium", "format": {"type": "json_schema"}}}, Thinking(False, None, "medium")),
        ({"output_config": {"effort": "unheard of"}}, THINKING_OFF),
    ],
)
def test_thinking(fields: dict[str, Any], thinking: Thinking) -> None:
    assert read(**fields).thinking == thinking


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, Thinking(True)),
        ({"output_config": {"effort": "low"}}, Thinking(True, None, "low")),
        ({"thinking": {"type": "disabled"}}, THINKING_OFF),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, Thinking(True, 5)),
    ],
)
def test_a_beta_asks_for_thinking_where_the_body_does_not_say(fields: dict[str, Any], thinking: Thinking) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    beta = (b"anthropic-beta", b"interleaved-thinking-2025-05-14")
    assert ANTHROPIC.read_request(body, (beta,)).thinking == thinking
    claude_code = (b"user-agent", b"claude-cli/2.1.330 (external, cli)")
    assert ANTHROPIC.read_request(body, (beta, claude_code)).thinking == ANTHROPIC.read_request(body, ()).thinking


@pytest.mark.parametrize(
    ("choice", "read_as"),
    [
        (None, AUTO),
        ({"type": "auto"}, AUTO),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice("auto", parallel=False)),
        ({"type": "any"}, ToolChoice("any")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "tool", "name": "Read"}, ToolChoice("tool", "Read")),
    ],
)
def test_tool_choice(choice: object, read_as: ToolChoice) -> None:
    assert read(tools=[TOOL], tool_choice=choice).tool_choice == read_as


def test_tools_that_only_this_api_knows_ride_along() -> None:
    server = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    placeholder = TOOL | {"name": "DeferredToolPlaceholder", "defer_loading": True}
    loaded = TOOL | {"name": "Fetch", "type": "custom", "defer_loading": True}
    bare = {"name": "Bare"}
    request = read(tools=[server, TOOL, placeholder, loaded, bare])
    assert [tool.name for tool in request.tools] == ["Read", "Fetch", "Bare"]
    assert request.tools[2].schema == b'{"type":"object","properties":{}}'
    assert json.loads(request.extras["tools"]) == [server, placeholder]


def test_anthropics_own_client_tools_get_a_schema() -> None:
    bash = {"type": "bash_20250124", "name": "bash"}
    editor = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 100}
    code = {"type": "code_execution_20250825", "name": "code_execution"}
    request = read(tools=[bash, editor, {"type": "memory_20250818", "name": "memory"}, code, TOOL])
    assert [tool.name for tool in request.tools] == ["bash", "str_replace_based_edit_tool", "memory", "Read"]
    assert all(tool.description for tool in request.tools)
    assert "command" in json.loads(request.tools[0].schema)["properties"]
    assert json.loads(request.tools[1].schema)["required"] == ["command", "path"]
    assert json.loads(request.extras["tools"]) == [code]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            {"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {"url": "x"}},
            '[The tool web_fetch was run with {"url": "x"}]',
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "s",
                "content": [
                    {"type": "web_fetch_result", "url": "https://a", "title": "A", "encrypted_content": "x" * 99},
                    5,
                ],
            },
            "[Result of the tool]\n\nA\nhttps://a",
        ),
        (
            {"type": "web_fetch_tool_result", "tool_use_id": "s", "content": {"error_code": "unavailable"}},
            "[Result of the tool]\n\nIt failed: unavailable",
        ),
        (
            {"type": "mcp_tool_result", "tool_use_id": "s", "content": [{"type": "text", "text": "done"}]},
            "[Result of the tool]\n\ndone",
        ),
        ({"type": "compaction", "content": "So far: nothing."}, "So far: nothing."),
    ],
)
def test_what_the_service_ran_is_told(block: dict[str, Any], text: str) -> None:
    request = read(messages=[*HELLO, {"role": "assistant", "content": [block]}])
    assert request.messages[1].content == (Text(text),)


def test_a_choice_without_a_tool_to_choose_is_none() -> None:
    request = read(tools=[{"type": "web_fetch_20250910", "name": "web_fetch"}], tool_choice={"type": "any"})
    assert request.tool_choice == AUTO


def test_fields_that_are_not_understood_come_out_again() -> None:
    unknown: dict[str, Any] = {
        "context_management": {"edits": []},
        "top_k": 5,
        "metadata": {"user_id": "me"},
        "new": [None],
    }
    request = read(
        thinking={"type": "adaptive", "display": "omitted"}, output_config={"effort": "low", "x": 1}, **unknown
    )
    wire = json.loads(ANTHROPIC.write_request(request, Stamp(Model("other"))))
    assert {name: wire[name] for name in unknown} == unknown
    assert wire["thinking"] == {"type": "adaptive", "display": "omitted"}
    assert wire["output_config"] == {"effort": "low", "x": 1}
    assert wire["model"] == "other"


def test_fields_of_another_language_do_not() -> None:
    chat = DIALECTS["openai_chat"].read_request(
        json.dumps({"model": "m", "messages": HELLO, "logit_bias": {"1": 2}}).encode(), ()
    )
    wire = json.loads(ANTHROPIC.write_request(chat, Stamp(Model("m", max_output=77))))
    assert "logit_bias" not in wire
    assert wire["max_tokens"] == 77


def test_the_session_is_the_clients_own() -> None:
    user_id = json.dumps({"device_id": "d", "session_id": "s"})
    assert read(metadata={"user_id": user_id}).session == "s"
    assert read([(b"x-claude-code-session-id", b"h")], metadata={"user_id": user_id}).session == "h"


def test_the_shape_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    request = read(output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}})
    assert request.output is not None
    assert json.loads(request.output.schema) == schema
    assert read(output_config={"format": {"type": "new"}}).output is None


def test_what_has_to_be_fetched_or_read_is_an_attachment() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    pdf = {"type": "document", "source": source, "title": "T", "context": "C"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [url, pdf]}
    request = read(messages=[{"role": "user", "content": [url, pdf, result]}])
    image = Attachment("image/*", url="https://x/y.png", at="$.messages[0].content[0].source.url")
    document = Attachment("application/pdf", "JVBERg==", at="$.messages[0].content[1].source.data")
    assert request.messages[0].content[:4] == (image, Text("T"), Text("C"), document)
    assert request.messages[0].content[3].at == document.at  # type: ignore[union-attr]
    answer = request.messages[0].content[4]
    assert isinstance(answer, ToolResult)
    assert [type(inner) for inner in answer.content] == [Attachment, Text, Text, Attachment]
    wire = json.loads(ANTHROPIC.write_request(request, Stamp(Model("m"))))["messages"][0]["content"]
    assert wire[0] == url
    assert wire[3]["source"] == source


REFUSED = [
    ({"model": None}, "$.model", "invalid_type"),
    ({"model": ""}, "$.model", "invalid_value"),
    ({"messages": None}, "$.messages", "invalid_type"),
    ({"messages": []}, "$.messages", "invalid_value"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "$.messages[0].role", "invalid_type"),
    ({"messages": [{"role": "user", "content": 5}]}, "$.messages[0].content", "invalid_type"),
    ({"messages": [*HELLO, {"role": "user", "content": [{"text": "x"}]}]}, "$.messages[1].content[0].type", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "$.messages[0].content[0].text", "invalid_type"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": 5}]}]}, "$.messages[0].content[0].source", "invalid_type"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, "$.messages[0].content[0].source", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]}]}, "$.messages[0].content[0].source", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "media_type": "application/msword", "data": "x"}}]}]}, "$.messages[0].content[0].source", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]}, "$.messages[0].content[0].source", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "!"}}]}]}, "$.messages[0].content[0].source.data", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"type": "url"}}]}]}]}, "$.messages[0].content[0].content[0].source", "unsupported_value"),
    ({"tools": [{"input_schema": {}}]}, "$.tools[0].name", "missing_required_parameter"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "$.tool_choice.name", "missing_required_parameter"),
    ({"max_tokens": -1}, "$.max_tokens", "invalid_value"),
    ({"max_tokens": "many"}, "$.max_tokens", "invalid_type"),
    ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "$.thinking.budget_tokens", "invalid_type"),
    ({"thread": {"type": "create"}}, "$.thread", "thread_unsupported_request"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "reason"), REFUSED)
def test_what_is_refused_is_named(fields: dict[str, Any], param: str, reason: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read(**fields)
    assert (caught.value.param, caught.value.reason) == (param, reason)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_what_is_missing_is_named(field: str) -> None:
    body = {"model": "m", "messages": HELLO}
    del body[field]
    with pytest.raises(MalformedRequest) as caught:
        ANTHROPIC.read_request(json.dumps(body).encode(), ())
    assert (caught.value.param, caught.value.reason) == (f"$.{field}", "missing_required_parameter")
