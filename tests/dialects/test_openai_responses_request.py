"""Responses requests: every kind of item, of tool and of choice, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.images import PNG
from kirostream.dialects.dialect import Headers, Stamp
from kirostream.dialects.openai_responses.read_items import PASSED_OVER
from kirostream.dialects.openai_responses.request import NAME, read_request, write_request
from kirostream.dialects.openai_responses.thoughts import FOREIGN, PLAIN, pack
from kirostream.errors import MalformedRequest
from kirostream.turn.model import Model
from kirostream.turn.request import (
    Attachment,
    Image,
    Message,
    OutputFormat,
    Role,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

PICTURE: Final = base64.b64encode(PNG).decode()
URL: Final = f"data:image/png;base64,{PICTURE}"
READ: Final = {"type": "function", "name": "read", "description": "Reads.", "parameters": {"type": "object"}}
ASK: Final = {"role": "user", "content": "hi"}


def dump(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def read(headers: Headers = (), **body: Any) -> TurnRequest:
    """Read a body, and hold it to what it writes."""
    request = read_request(dump({"model": "m", "input": "hi", **body}), headers)
    again = read_request(write_request(request, Stamp(Model("m"))), headers)
    assert again == request
    return request


def items(*said: Any, **body: Any) -> tuple[Message, ...]:
    """The messages of an input after a first question."""
    request = read(input=[ASK, *said], **body)
    assert request.messages[0] == Message(Role.USER, (Text("hi"),))
    return request.messages[1:]


def refusal(**body: Any) -> MalformedRequest:
    with pytest.raises(MalformedRequest) as caught:
        read_request(dump({"model": "m", "input": "hi", **body}), ())
    return caught.value


# What is said


def test_a_text_is_a_question() -> None:
    request = read(instructions="Be brief.", max_output_tokens=9, temperature=0.5, top_p=0.9, stream=True)
    assert request.messages == (Message(Role.USER, (Text("hi"),)),)
    assert request.system == (Text("Be brief."),)
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.top_p) == (9, 0.5, 0.9)
    assert request.stream
    assert request.spoken_in == NAME


def test_messages_of_every_role_with_and_without_a_type() -> None:
    request = read(
        instructions="One.",
        input=[
            {"role": "system", "content": "Two."},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Three."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": ""}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}], "phase": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "developer", "content": "late"},
            {"role": "user", "content": "c"},
        ],
    )
    assert request.system == (Text("One."), Text("Two."), Text("Three."))
    assert request.messages == (
        Message(Role.USER, (Text("a"),)),
        Message(Role.ASSISTANT, (Text("b", "x"), Text("no"))),
        Message(Role.SYSTEM, (Text("late"),)),
        Message(Role.USER, (Text("c"),)),
    )


def test_phases_of_an_answer_stay_apart() -> None:
    said = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], "phase": phase}
        for text, phase in (("a", "commentary"), ("b", "commentary"), ("c", "final_answer"))
    ]
    request = read(input=[ASK, *said, ASK])
    assert request.messages[1].content == (
        Text("a", "commentary"),
        Text("b", "commentary"),
        Text("c", "final_answer"),
    )
    written = json.loads(write_request(request, Stamp(Model("m"))))["input"]
    assert [item.get("phase") for item in written] == [None, "commentary", "final_answer", None]


def test_where_there_are_only_instructions_the_last_is_the_question() -> None:
    request = read(input=[{"role": "developer", "content": "one"}, {"role": "developer", "content": "two"}])
    assert request.system == (Text("one"),)
    assert request.messages == (Message(Role.SYSTEM, (Text("two"),)),)


def test_images_and_text_files() -> None:
    text = base64.b64encode("é".encode()).decode()
    content = [
        {"type": "input_image", "image_url": URL, "detail": "high"},
        {"type": "input_image", "image_url": {"url": URL}},
        {"type": "input_file", "filename": "a.txt", "file_data": f"data:text/plain;base64,{text}"},
        {"type": "input_file", "file_data": URL},
    ]
    (message,) = read(input=[{"role": "user", "content": content}]).messages
    image = Image("image/png", PICTURE)
    assert message.content == (image, image, Text("a.txt\né"), image)


def test_what_has_to_be_fetched_or_read_first() -> None:
    content = [
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="},
        {"type": "input_file", "filename": "b", "file_url": "https://example.org/b.pdf"},
        {"type": "input_file", "file_url": URL},
    ]
    picture, document, file, inline = read(input=[{"role": "user", "content": content}]).messages[0].content
    at = "$.input[0].content"
    assert picture == Attachment("image/*", url="https://example.org/a.png", at=f"{at}[0].image_url")
    assert document == Attachment("application/pdf", "aGk=", title="a.pdf", at=f"{at}[1].file_data")
    assert file == Attachment("*/*", url="https://example.org/b.pdf", title="b", at=f"{at}[2].file_url")
    assert inline == Image("image/png", PICTURE)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_image", "image_url": "ftp://example.org/a.png"}, "image_url"),
        ({"type": "input_image", "file_id": "file-1"}, "file_id"),
        ({"type": "input_image"}, "image_url"),
        ({"type": "input_image", "image_url": "data:text/plain;base64,aGk="}, "image_url"),
        ({"type": "input_file", "file_id": "file-1"}, "file_id"),
        ({"type": "input_file"}, "file_data"),
        ({"type": "input_file", "file_data": "data:application/zip;base64,aGk="}, ""),
        ({"type": "input_file", "file_data": "data:text/plain;base64,*"}, "file_data"),
        ({"type": "input_audio", "data": ""}, ""),
        ({"type": "input_text", "text": 1}, "text"),
    ],
)
def test_a_part_that_cannot_be_passed_on_is_named(part: dict[str, Any], param: str) -> None:
    error = refusal(input=[ASK, {"role": "user", "content": [{"type": "input_text", "text": "x"}, part]}])
    at = "$.input[1].content[1]"
    assert error.param == (f"{at}.{param}" if param else at)


# Calls and results


def test_calls_and_results_are_one_message_each() -> None:
    messages = items(
        {"type": "message", "role": "assistant", "content": "Looking."},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "read", "arguments": '{"p":1}'},
        {"type": "function_call", "call_id": "c2", "name": "read", "arguments": ""},
        {"type": "function_call", "call_id": "c3", "name": "read", "arguments": {"p": 2}},
        {"type": "function_call", "call_id": "c4", "name": "read", "arguments": "not json"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_image", "image_url": URL}]},
        {"type": "function_call_output", "call_id": "c3", "output": ""},
        {"type": "function_call_output", "call_id": "c4", "output": {"any": "thing"}},
    )
    assert messages == (
        Message(
            Role.ASSISTANT,
            (
                Text("Looking."),
                ToolCall("c1", "read", b'{"p":1}'),
                ToolCall("c2", "read", b"{}"),
                ToolCall("c3", "read", b'{"p":2}'),
                ToolCall("c4", "read", b'{"arguments":"not json"}'),
            ),
        ),
        Message(
            Role.USER,
            (
                ToolResult("c1", (Text("one"),)),
                ToolResult("c2", (Image("image/png", PICTURE),)),
                ToolResult("c3", ()),
                ToolResult("c4", (Text('{"any":"thing"}'),)),
            ),
        ),
    )


def test_a_custom_tool_is_a_function_of_one_text() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    custom = {"type": "custom", "name": "exec", "description": "Runs.", "format": grammar}
    request = read(
        input=[
            ASK,
            {"type": "custom_tool_call", "call_id": "c1", "name": "exec", "input": 'say "é"\n'},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        ],
        tools=[custom, {"type": "custom", "name": "free"}],
        tool_choice={"type": "custom", "name": "exec"},
    )
    (call,) = request.messages[1].content
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"input": 'say "é"\n'}
    assert request.messages[2].content == (ToolResult("c1", (Text("done"),)),)
    tool, free = request.tools
    assert tool.description.startswith("Runs.")
    assert 'lark grammar:\n\nstart: "x"' in tool.description
    assert json.loads(tool.schema)["required"] == json.loads(free.schema)["required"] == ["input"]
    assert request.tool_choice == ToolChoice("tool", "exec")


def test_namespaces_are_flat_upstream() -> None:
    namespace = {
        "type": "namespace",
        "name": "agents",
        "description": "Sub-agents.",
        "tools": [{**READ, "name": "spawn"}, {"type": "custom", "name": "wait"}, {"type": "web_search"}],
    }
    request = read(
        input=[
            ASK,
            {"type": "function_call", "call_id": "c", "namespace": "agents", "name": "spawn", "arguments": "{}"},
        ],
        tools=[namespace, READ],
        tool_choice={"type": "function", "namespace": "agents", "name": "spawn"},
    )
    assert [tool.name for tool in request.tools] == ["agents__spawn", "agents__wait", "read"]
    assert request.tools[0].description == "Sub-agents.\n\nReads."
    assert request.messages[1].content == (ToolCall("c", "agents__spawn", b"{}"),)
    assert request.tool_choice.name == "agents__spawn"


def test_tools_that_come_as_items() -> None:
    request = read(
        input=[
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "exec"}]},
            {"role": "developer", "content": "Be brief."},
            ASK,
            {"type": "tool_search_call", "call_id": "s1", "execution": "client", "arguments": {"query": "files"}},
            {"type": "tool_search_output", "call_id": "s1", "execution": "client", "tools": [READ]},
        ],
        tools=[{"type": "tool_search", "execution": "client", "parameters": {"type": "object", "properties": {}}}],
    )
    assert [tool.name for tool in request.tools] == ["tool_search", "exec", "read"]
    assert request.system == (Text("Be brief."),)
    assert request.messages[1].content == (ToolCall("s1", "tool_search", b'{"query":"files"}'),)
    assert request.messages[2].content == (ToolResult("s1", (Text("These tools can be called now: read."),)),)


def test_the_shells_and_the_patcher() -> None:
    operation = {"type": "update_file", "path": "a", "diff": "@@\n-x\n+y"}
    request = read(
        input=[
            ASK,
            {"type": "local_shell_call", "id": "l", "call_id": "c1", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "shell_call", "call_id": "c2", "action": {"commands": ["a", "b"]}, "status": "completed"},
            {"type": "apply_patch_call", "call_id": "c3", "operation": operation, "status": "completed"},
            {"type": "local_shell_call_output", "id": "c1", "output": "x"},
            {
                "type": "shell_call_output",
                "call_id": "c2",
                "output": [
                    {"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
                    {"stdout": "", "stderr": "bad", "outcome": {"type": "exit", "exit_code": 2}},
                    {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
                ],
            },
            {"type": "apply_patch_call_output", "call_id": "c3", "status": "failed", "output": "no such file"},
        ],
        tools=[{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}],
        tool_choice={"type": "shell"},
    )
    assert [tool.name for tool in request.tools] == ["local_shell", "shell", "apply_patch"]
    calls = [block for block in request.messages[1].content if isinstance(block, ToolCall)]
    assert [(call.id, call.name) for call in calls] == [("c1", "local_shell"), ("c2", "shell"), ("c3", "apply_patch")]
    assert json.loads(calls[2].arguments) == operation
    assert request.messages[2].content == (
        ToolResult("c1", (Text("x"),)),
        ToolResult("c2", (Text("out"), Text("stderr:\nbad\n[exit code 2]"), Text("[timed out]"))),
        ToolResult("c3", (Text("no such file"),), is_error=True),
    )
    assert request.tool_choice == ToolChoice("tool", "shell")


def test_a_call_without_an_id_is_refused() -> None:
    assert refusal(input=[ASK, {"type": "function_call", "name": "x"}]).param == "$.input[1].call_id"
    assert refusal(input=[ASK, {"type": "function_call_output", "output": "x"}]).param == "$.input[1].call_id"


@pytest.mark.parametrize("kind", sorted(PASSED_OVER))
def test_items_that_say_nothing_are_passed_over(kind: str) -> None:
    assert items({"type": kind, "id": "x", "call_id": "y", "role": "developer", "encrypted_content": "z"}) == ()


@pytest.mark.parametrize("kind", ["mcp_call", "code_interpreter_call", "program_output", "brand_new"])
def test_items_that_hold_something_are_kept_as_they_are(kind: str) -> None:
    item = {"type": kind, "output": "42"}
    ((message),) = items(item)
    (text,) = message.content
    assert isinstance(text, Text)
    assert json.loads(text.text) == item


# Thoughts


def test_a_thought_of_ours_comes_back() -> None:
    thought, hidden = Thought("Hm, é.", "sig"), Thought("", "", "b3BhcXVl")
    said: list[Any] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": pack(each, PLAIN)}
        for each in (thought, hidden)
    ]
    assert items(*said) == (Message(Role.ASSISTANT, (thought, hidden)),)


def test_a_thought_of_another_server_says_nothing() -> None:
    for sealed in ("c3R1Yg==", "ks0.", "ks0.*", "ks0.e30="):
        assert items({"type": "reasoning", "summary": [], "encrypted_content": sealed}) == ()


def test_a_thought_in_the_open_is_its_text() -> None:
    parts = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    assert items({"type": "reasoning", "summary": parts}) == (Message(Role.ASSISTANT, (Thought("a\n\nb"),)),)
    assert items({"type": "reasoning", "summary": []}) == ()


def test_a_thought_that_another_server_sealed_goes_back_as_it_was() -> None:
    thought = Thought("Hm.", FOREIGN + "gAAAA==")
    request = TurnRequest(model="m", messages=(Message(Role.ASSISTANT, (thought,)),))
    (item,) = json.loads(write_request(request, Stamp(Model("m"))))["input"]
    assert item["encrypted_content"] == "gAAAA=="


# Tools and choices


HOSTED: Final = [
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "x"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "tool_search"},
    {"type": "shell", "environment": {"type": "container_auto"}},
    {"type": "brand_new", "name": "x"},
    {"type": "function"},
]


def test_tools_that_the_server_would_run_are_left_out() -> None:
    assert [tool.name for tool in read(tools=[*HOSTED, READ, {**READ, "description": "Again."}]).tools] == ["read"]
    request = read(tools=HOSTED, tool_choice="required")
    assert request.tools == ()
    assert request.tool_choice == ToolChoice()


def test_a_tool_without_usable_parameters_takes_none() -> None:
    bad: list[object] = [None, [], "x"]
    for parameters in bad:
        (tool,) = read(tools=[{**READ, "parameters": parameters}]).tools
        assert json.loads(tool.schema) == {"type": "object", "properties": {}}
    (tool,) = read(tools=[{"type": "function", "function": {"name": "nested", "parameters": {"type": "object"}}}]).tools
    assert tool == Tool("nested", "", b'{"type":"object"}')


def allowed(mode: str, name: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": name}]}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ("brand_new", ToolChoice()),
        ({"type": "function", "name": "read"}, ToolChoice("tool", "read")),
        ({"type": "web_search_preview"}, ToolChoice()),
        ({"type": "mcp", "server_label": "x"}, ToolChoice()),
        ({"type": "apply_patch"}, ToolChoice()),
        (allowed("required", "read"), ToolChoice("any")),
        (allowed("auto", "other"), ToolChoice()),
    ],
)  # fmt: skip
def test_choices(choice: object, expected: ToolChoice) -> None:
    request = read(tools=[READ, {**READ, "name": "write"}], tool_choice=choice)
    assert request.tool_choice == expected
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        assert [tool.name for tool in request.tools] == [
            tool["name"] for tool in choice["tools"] if tool["name"] == "read"
        ]


def test_one_call_at_a_time() -> None:
    assert read(tools=[READ], parallel_tool_calls=False).tool_choice == ToolChoice("auto", parallel=False)


def test_a_choice_of_nothing_is_refused() -> None:
    assert refusal(tools=[READ], tool_choice={"type": "function"}).param == "$.tool_choice.name"


# The rest


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (None, Thinking()),
        ({}, Thinking(enabled=True)),
        ({"effort": None, "summary": "auto"}, Thinking(enabled=True)),
        ({"effort": "none"}, Thinking()),
        ({"effort": "minimal"}, Thinking(enabled=True, effort="low")),
        ({"effort": "xhigh", "summary": "detailed"}, Thinking(enabled=True, effort="xhigh")),
        ({"effort": "brand_new"}, Thinking(enabled=True, effort="medium")),
    ],
)
def test_effort(reasoning: object, thinking: Thinking) -> None:
    assert read(reasoning=reasoning).thinking == thinking


def test_settings_that_an_item_changes() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "a", "schema": schema}
    said = [
        ASK,
        {"id": "u1", "type": "configuration_update", "reasoning": {"effort": "high"}, "text": {"format": form}},
        {"type": "message", "role": "user", "content": 'about "configuration_update"'},
        {"id": "u2", "type": "configuration_update", "reasoning": {"effort": "low"}, "text": None},
        ASK,
    ]
    request = read(input=said, reasoning={"summary": "auto"}, text={"verbosity": "low"})
    assert request.thinking == Thinking(enabled=True, effort="low")
    assert request.output == OutputFormat(b'{"type":"object"}')
    assert json.loads(request.extras["reasoning"]) == {"summary": "auto", "effort": "low"}
    assert json.loads(request.extras["text"]) == {"verbosity": "low", "format": form}
    assert len(request.messages) == 3
    none = {"type": "configuration_update", "reasoning": {"effort": "none"}}
    assert read(input=[ASK, none], reasoning={"effort": "high"}).thinking == Thinking()
    wrong = {"type": "configuration_update", "reasoning": {"effort": 5}}
    assert refusal(input=[ASK, wrong]).param == "$.input[1].reasoning.effort"


def test_the_shape_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True, "description": "An a."}
    assert read(text={"format": form, "verbosity": "low"}).output == OutputFormat(dump(schema), "An a.")
    assert read(text={"format": {"type": "json_object"}}).output == OutputFormat(b'{"type":"object"}')
    for plain in (None, {}, {"format": None}, {"format": {"type": "text"}}):
        assert read(text=plain).output is None
    assert refusal(text={"format": {"type": "json_schema", "name": "x"}}).param == "$.text.format.schema"
    assert refusal(text={"format": {"type": "grammar"}}).param == "$.text.format.type"


@pytest.mark.parametrize("body", [{"input": None}, {"input": []}, {"input": ""}, {"model": ""}, {"model": None}])
def test_a_body_without_a_question_is_refused(body: dict[str, Any]) -> None:
    assert refusal(**body).param in ("$.input", "$.model")


def test_unknown_fields_ride_along() -> None:
    request = read(brand_new={"a": [1]}, client_metadata={"x": "y"}, generate=False, prompt_cache_key="p")
    assert json.loads(request.extras["brand_new"]) == {"a": [1]}
    assert request.session == "p"
    assert read(((b"session-id", b"s"),), prompt_cache_key="p").session == "s"
    assert read(previous_response_id="resp_1").session == "resp_1"


def test_what_another_dialect_asks_is_asked_without_being_kept() -> None:
    request = TurnRequest(
        model="x",
        messages=(Message(Role.USER, (Text("hi"),)), Message(Role.SYSTEM, (Text("late"),))),
        system=(Text("sys"),),
        tools=(Tool("read", "Reads.", b'{"type":"object"}'),),
        tool_choice=ToolChoice("tool", "read", parallel=False),
        thinking=Thinking(enabled=True, budget=5_000),
        output=OutputFormat(b'{"type":"array"}'),
        spoken_in="anthropic",
        extras={"metadata": b'{"user_id":"x"}'},
    )
    body = json.loads(write_request(request, Stamp(Model("m"))))
    assert body["model"] == "m"
    assert body["store"] is False
    assert "metadata" not in body
    assert body["tool_choice"] == {"type": "function", "name": "read"}
    assert body["reasoning"] == {"effort": "medium", "summary": "auto"}
    again = read_request(dump(body), ())
    assert (again.messages, again.system, again.tools) == (request.messages, request.system, request.tools)
    assert (again.tool_choice, again.output) == (request.tool_choice, request.output)


WORDS: Final = st.sampled_from(
    [
        "message",
        "user",
        "assistant",
        "reasoning",
        "function_call",
        "custom_tool_call",
        "input_text",
        "shell_call_output",
    ]
)
FIELDS: Final = st.sampled_from(
    ["type", "role", "content", "call_id", "id", "name", "arguments", "output", "tools", "summary", "action", "input"]
)
NESTED: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)


@given(said=st.lists(st.dictionaries(FIELDS, NESTED, max_size=6), max_size=4), tools=NESTED, choice=NESTED)
def test_any_input_is_read_or_refused(said: list[dict[str, Any]], tools: object, choice: object) -> None:
    body = {"model": "m", "input": [ASK, *said], "tools": tools, "tool_choice": choice}
    with contextlib.suppress(MalformedRequest):
        request = read_request(dump(body), ())
        assert request.messages
        assert read_request(write_request(request, Stamp(Model("m"))), ()).messages[0] == request.messages[0]
