"""Chat requests: what is understood, what is refused, and that nothing is lost on the way back out."""

# ruff: noqa: E501  (a case of a table is one line)

from __future__ import annotations

import json
from typing import Any

import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.openai_chat.tools import custom_names
from kirostream.errors import MalformedRequest
from kirostream.turn.model import Model
from kirostream.turn.request import (
    AUTO,
    THINKING_OFF,
    Attachment,
    Image,
    Message,
    OutputFormat,
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

CHAT = DIALECTS["openai_chat"]
HELLO = [{"role": "user", "content": "Hello"}]
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
TOOL = {"type": "function", "function": {"name": "Read", "description": "Reads.", "parameters": {"type": "object"}}}


def read(headers: Headers = (), **fields: Any) -> TurnRequest:
    body = {"model": "claude-sonnet-4.5", "messages": HELLO} | fields
    request = CHAT.read_request(json.dumps(body).encode(), headers)
    again = CHAT.read_request(CHAT.write_request(request, Stamp(Model(request.model))), headers)
    assert again == request
    return request


def call(call_id: str, arguments: object) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "Read", "arguments": arguments}}


def test_a_plain_question() -> None:
    assert read() == TurnRequest(
        model="claude-sonnet-4.5", messages=(Message(Role.USER, (Text("Hello"),)),), spoken_in="openai_chat"
    )


def test_every_field_that_is_understood() -> None:
    request = read(
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0,
        top_p=0.5,
        stop="end",
        n=1,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "Read"}},
        parallel_tool_calls=False,
        reasoning_effort="high",
    )
    assert (request.stream, request.include_usage) == (True, True)
    assert request.sampling == Sampling(7, 0.0, 0.5, ("end",))
    assert request.tools == (Tool("Read", "Reads.", b'{"type": "object"}'),)
    assert request.tool_choice == ToolChoice("tool", "Read", parallel=False)
    assert request.thinking == Thinking(True, effort="high")


def test_system_and_developer_messages_in_front_are_the_system() -> None:
    request = read(
        messages=[
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
            *HELLO,
            {"role": "developer", "content": "later"},
            {"role": "user", "content": "Go."},
        ]
    )
    assert request.system == (Text("one"), Text("two"), Text("three"))
    assert [message.role for message in request.messages] == [Role.USER, Role.SYSTEM, Role.USER]


def test_of_nothing_but_system_messages_the_last_is_the_question() -> None:
    request = read(messages=[{"role": "system", "content": "one"}, {"role": "system", "content": "two"}])
    assert request.system == (Text("one"),)
    assert request.messages == (Message(Role.SYSTEM, (Text("two"),)),)


def test_a_turn_with_thoughts_calls_and_results() -> None:
    messages = read(
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [call("t1", '{"p": 1}'), call("t2", ""), call("t3", {"p": 3}), call("t4", '{"p"')],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "done"},
            {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "Go on.", "cache_control": {"type": "ephemeral"}},
        ]
    ).messages  # fmt: skip
    assert messages[1].content == (
        Thought("Hm."),
        ToolCall("t1", "Read", b'{"p": 1}'),
        ToolCall("t2", "Read", b"{}"),
        ToolCall("t3", "Read", b'{"p": 3}'),
        ToolCall("t4", "Read", b'{"arguments":"{\\"p\\""}'),
    )
    assert messages[2] == Message(
        Role.USER, (ToolResult("t1", (Text("done"),)), ToolResult("t2", (Text("a"), Text("b"))))
    )
    assert messages[3] == Message(Role.USER, (Text("Go on."),))


def test_images_in_a_question() -> None:
    (message,) = read(messages=[{"role": "user", "content": [PNG, {"type": "text", "text": "What?"}]}]).messages
    assert message.content == (Image("image/png", "iVBORw0KGgo="), Text("What?"))


def test_images_in_a_result_are_read_there_and_written_behind_it() -> None:
    body = json.dumps({"model": "m", "messages": [*HELLO, {"role": "tool", "tool_call_id": "t", "content": [PNG]}]})
    request = CHAT.read_request(body.encode(), ())
    image = Image("image/png", "iVBORw0KGgo=")
    assert request.messages[1].content == (ToolResult("t", (image,)),)
    again = CHAT.read_request(CHAT.write_request(request, Stamp(Model("m"))), ())
    assert again.messages[1:] == (Message(Role.USER, (ToolResult("t", ()),)), Message(Role.USER, (image,)))


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "text", "text": "x"}, "x"),
        ({"type": "refusal", "refusal": "no"}, "no"),
        ({"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}}, "a.txt\nhi"),
        ({"type": "from_the_future", "x": 1}, '{"type": "from_the_future", "x": 1}'),
    ],
)
def test_parts_that_become_text(part: dict[str, Any], text: str) -> None:
    assert read(messages=[{"role": "user", "content": [part]}]).messages[0].content == (Text(text),)


def test_empty_texts_say_nothing() -> None:
    (message,) = read(messages=[{"role": "user", "content": [{"type": "text", "text": ""}, PNG]}]).messages
    assert message.content == (Image("image/png", "iVBORw0KGgo="),)
    assert read(messages=[{"role": "user", "content": ""}]).messages[0].content == ()


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        (None, THINKING_OFF),
        ("none", THINKING_OFF),
        ("minimal", Thinking(True, effort="low")),
        ("low", Thinking(True, effort="low")),
        ("xhigh", Thinking(True, effort="xhigh")),
        ("max", Thinking(True, effort="max")),
        ("unheard of", Thinking(True, effort="medium")),
    ],
)
def test_reasoning_effort(effort: str | None, thinking: Thinking) -> None:
    assert read(reasoning_effort=effort).thinking == thinking


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (4096, "low"), (4097, "medium"), (31999, "high"), (None, "medium")]
)
def test_a_budget_is_said_as_an_effort(budget: int | None, effort: str) -> None:
    request = TurnRequest(model="m", messages=(), thinking=Thinking(True, budget))
    assert json.loads(CHAT.write_request(request, Stamp(Model("m"))))["reasoning_effort"] == effort


@pytest.mark.parametrize(
    ("choice", "read_as"),
    [
        (None, AUTO),
        ("auto", AUTO),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ({"type": "function", "function": {"name": "Read"}}, ToolChoice("tool", "Read")),
        ({"type": "custom", "custom": {"name": "Read"}}, ToolChoice("tool", "Read")),
    ],
)
def test_tool_choice(choice: object, read_as: ToolChoice) -> None:
    assert read(tools=[TOOL], tool_choice=choice).tool_choice == read_as


@pytest.mark.parametrize(("mode", "read_as"), [("auto", AUTO), ("required", ToolChoice("any"))])
def test_allowed_tools_are_the_tools_there_are(mode: str, read_as: ToolChoice) -> None:
    other = {"type": "function", "function": {"name": "Write"}}
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "Write"}}]}
    request = read(tools=[TOOL, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert request.tools == (Tool("Write", "", b'{"type":"object","properties":{}}'),)
    assert request.tool_choice == read_as


CUSTOM = {
    "type": "custom",
    "custom": {
        "name": "patch",
        "description": "Patches.",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /.+/"}},
    },
}


def test_tools_of_other_kinds_are_passed_over() -> None:
    request = read(tools=[{"type": "web_search"}, CUSTOM, TOOL])
    assert [tool.name for tool in request.tools] == ["patch", "Read"]


def test_a_custom_tool_is_a_function_of_one_string() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": 'say "hi"'}}
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "k"},
    ]
    request = read(tools=[CUSTOM], messages=messages, tool_choice={"type": "custom", "custom": {"name": "patch"}})
    (tool,) = request.tools
    assert "start: /.+/" in tool.description
    assert json.loads(tool.schema)["required"] == ["input"]
    assert request.tool_choice == ToolChoice("tool", "patch")
    assert request.messages[1].content == (ToolCall("c", "patch", b'{"input":"say \\"hi\\""}'),)
    wire = json.loads(CHAT.write_request(request, Stamp(Model("m"))))
    assert wire["tools"] == [CUSTOM]
    assert wire["messages"][1]["tool_calls"] == [call]


FUNCTION = {"name": "Read", "description": "Reads.", "parameters": {"type": "object"}}


def test_functions_from_before_tools() -> None:
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "Read", "arguments": '{"a":1}'}},
        {"role": "function", "name": "Read", "content": "text"},
        {"role": "function", "name": "Other", "content": "lost"},
    ]
    request = read(messages=messages, functions=[FUNCTION], function_call={"name": "Read"})
    assert [tool.name for tool in request.tools] == ["Read"]
    assert request.tool_choice == ToolChoice("tool", "Read", parallel=False)
    assert [message.content for message in request.messages[1:]] == [
        (ToolCall("call_1", "Read", b'{"a":1}'),),
        (ToolResult("call_1", (Text("text"),)),),
        (Text("lost"),),
    ]
    assert read(functions=[FUNCTION], function_call="none").tool_choice.mode == "none"
    assert "functions" not in read(functions=[FUNCTION], tools=[TOOL]).extras


def test_fields_that_are_not_understood_come_out_again() -> None:
    unknown: dict[str, Any] = {
        "response_format": {"type": "json_object"},
        "logit_bias": {"1": -100},
        "user": "me",
        "new": [None],
    }
    wire = json.loads(CHAT.write_request(read(**unknown), Stamp(Model("other"))))
    assert {name: wire[name] for name in unknown} == unknown
    assert wire["model"] == "other"


def test_the_session_is_the_clients_own() -> None:
    assert read(prompt_cache_key="k", user="u").session == "k"
    assert read(safety_identifier="s").session == "s"
    assert read([(b"x-session-affinity", b"h")], prompt_cache_key="k").session == "h"
    assert read(user={"id": 5}, prompt_cache_key=7).session == ""


def test_the_shape_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    wire = {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": schema, "strict": True}}
    assert read(response_format=wire).output == OutputFormat(json.dumps(schema).encode(), "d")
    assert read(response_format={"type": "json_object"}).output == OutputFormat(b'{"type":"object"}')
    assert read(response_format={"type": "text"}).output is None


def test_what_has_to_be_fetched_or_read_is_an_attachment() -> None:
    url = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    data = "data:application/pdf;base64,JVBERg=="
    files: list[dict[str, Any]] = [
        {"file_data": data, "filename": "a.pdf"},
        {"file_data": "JVBERg==", "filename": "b.PDF"},
        {"file_data": "aGk=", "filename": "c.txt"},
    ]
    request = read(messages=[{"role": "user", "content": [url, *({"type": "file", "file": f} for f in files)]}])
    at = "$.messages[0].content[{}]"
    assert request.messages[0].content == (
        Attachment("image/*", url="https://x/y.png", at=at.format(0) + ".image_url.url"),
        Attachment("application/pdf", "JVBERg==", title="a.pdf", at=at.format(1) + ".file.file_data"),
        Attachment("application/pdf", "JVBERg==", title="b.PDF", at=at.format(2) + ".file.file_data"),
        Text("c.txt\nhi"),
    )
    wire = json.loads(CHAT.write_request(request, Stamp(Model("m"))))["messages"][0]["content"]
    assert wire[:2] == [url, {"type": "file", "file": files[0]}]


REFUSED = [
    ({"model": None}, "$.model", "invalid_type"),
    ({"model": ""}, "$.model", "invalid_value"),
    ({"messages": []}, "$.messages", "invalid_value"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "$.messages[0].role", "invalid_type"),
    ({"messages": [*HELLO, {"role": "tool", "content": "x"}]}, "$.messages[1].tool_call_id", "missing_required_parameter"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "x"}}]}]}, "$.messages[0].tool_calls[0].id", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "$.messages[0].content[0].type", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x/y.png"}}]}]}, "$.messages[0].content[0].image_url.url", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:text/html;base64,eA=="}}]}]}, "$.messages[0].content[0].image_url.url", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "$.messages[0].content[0]", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "$.messages[0].content[0].file", "unsupported_value"),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,!"}}]}]}, "$.messages[0].content[0].file.file_data", "invalid_value"),
    ({"n": 0}, "$.n", "invalid_value"),
    ({"n": 1.5}, "$.n", "invalid_value"),
    ({"modalities": ["text", "audio"]}, "$.modalities", "unsupported_value"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "$.tool_choice.function.name", "missing_required_parameter"),
    ({"tools": [{"type": "function", "function": {}}]}, "$.tools[0].function.name", "missing_required_parameter"),
    ({"response_format": {"type": "xml"}}, "$.response_format.type", "unsupported_value"),
    ({"response_format": {"type": "json_schema"}}, "$.response_format.json_schema.schema", "missing_required_parameter"),
    ({"max_tokens": 0}, "$.max_tokens", "invalid_value"),
    ({"max_completion_tokens": -1}, "$.max_completion_tokens", "invalid_value"),
    ({"temperature": "hot"}, "$.temperature", "invalid_type"),
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
        CHAT.read_request(json.dumps(body).encode(), ())
    assert (caught.value.param, caught.value.reason) == (f"$.{field}", "missing_required_parameter")


def test_a_responses_body_is_a_question_too() -> None:
    body = {
        "model": "m",
        "input": [
            {"role": "user", "content": "hi"},
            {"type": "function_call", "call_id": "c", "name": "Read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "text"},
        ],
        "tools": [
            {"type": "function", "name": "Read", "parameters": {"type": "object"}},
            {"type": "custom", "name": "patch"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = CHAT.read_request(json.dumps(body).encode(), ())
    assert (request.spoken_in, request.stream, request.include_usage) == ("openai_chat", True, True)
    assert [tool.name for tool in request.tools] == ["Read", "patch"]
    assert request.messages[1].content == (ToolCall("c", "Read", b"{}"),)
    assert custom_names(request.extras) == {"patch"}


@pytest.mark.parametrize("body", [{"model": "m"}, {"model": "m", "messages": [], "input": "x"}])
def test_a_body_of_neither_shape_misses_its_messages(body: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest) as caught:
        CHAT.read_request(json.dumps(body).encode(), ())
    assert caught.value.param == "$.messages"
