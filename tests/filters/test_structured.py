"""Answers in a shape: how it is asked for, what counts as one, and what a model that got it wrong is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.filters.request_rules import apply_rules
from kirostream.filters.schema import mismatch
from kirostream.filters.structured import TOOL, Mismatch, Structured
from kirostream.turn.events import Stop
from kirostream.turn.request import (
    Message,
    OutputFormat,
    Role,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import TurnResult

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = OutputFormat(json.dumps(PERSON).encode())
ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("who?"),)),), output=FORMAT)
READ = Tool("read", "Reads.", b'{"type":"object"}')
GOOD = b'{"name":"Ada","age":36}'


def answer(*content: Text | Thought | ToolCall, stop: Stop = Stop.TOOL_CALL) -> TurnResult:
    return TurnResult(content, stop)


def final(arguments: bytes) -> ToolCall:
    return ToolCall("c1", TOOL, arguments)


def judged(result: TurnResult, request: TurnRequest = ASK) -> TurnResult | Mismatch:
    assert request.output is not None
    return Structured(request, request.output).judge(result)


def test_the_shape_is_a_tool_that_has_to_be_called() -> None:
    asked = Structured(ASK, FORMAT).request
    assert [tool.name for tool in asked.tools] == [TOOL]
    assert json.loads(asked.tools[0].schema) == PERSON
    assert asked.tool_choice == ToolChoice("tool", TOOL)
    assert asked.output is None
    assert [tool.name for tool in apply_rules(asked).tools] == [TOOL]


def test_other_tools_stay() -> None:
    asked = Structured(replace(ASK, tools=(READ, Tool(TOOL, "", b"{}"))), FORMAT).request
    assert [tool.name for tool in asked.tools] == ["read", TOOL, f"{TOOL}_"]
    assert asked.tool_choice.mode == "auto"
    call = ToolCall("c", "read", b"{}")
    request = replace(ASK, tools=(READ,))
    assert judged(answer(Text("Let me see."), call), request) == answer(Text("Let me see."), call)
    assert judged(answer(call, final(GOOD)), request) == answer(call)


@pytest.mark.parametrize(
    "content",
    [
        [final(GOOD)],
        [Text("Here it is."), final(GOOD)],
        [Text(GOOD.decode())],
        [Text(f"```json\n{GOOD.decode()}\n```")],
        [Text(f"Here it is: {GOOD.decode()} Anything else?")],
    ],
)
def test_what_counts_as_an_answer(content: list[Text | ToolCall]) -> None:
    thought = Thought("hm", "sig")
    assert judged(answer(thought, *content)) == TurnResult((thought, Text(GOOD.decode())), Stop.END)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (final(b'{"name":"Ada"}'), "$.age is missing"),
        (final(b'{"name":"Ada","age":"36"}'), "$.age has to be of type integer"),
        (Text("I do not know."), "it is not JSON"),
        (Text("[]"), "$ has to be of type object"),
        (final(b'{"name":"Ada","age":NaN}'), "it is not JSON"),
    ],
)
def test_what_is_wrong_is_told_to_the_model(content: Text | ToolCall, problem: str) -> None:
    verdict = judged(answer(content))
    assert isinstance(verdict, Mismatch)
    assert verdict.problem == problem
    said, told = verdict.again.messages[-2:]
    assert said.content == (content,)
    (block,) = told.content
    text = block.content[0] if isinstance(block, ToolResult) else block
    assert isinstance(text, Text)
    assert problem in text.text
    assert verdict.again.tools[-1].name == TOOL


@pytest.mark.parametrize("stop", [Stop.MAX_TOKENS, Stop.REFUSED])
def test_an_answer_that_was_not_finished_is_not_asked_for_again(stop: Stop) -> None:
    assert judged(answer(Text('{"name":"A'), stop=stop)) == answer(Text('{"name":"A'), stop=stop)


def test_a_shape_that_is_no_object_is_wrapped() -> None:
    request = replace(ASK, output=OutputFormat(b'{"type":"array","items":{"type":"integer"}}'))
    assert request.output is not None
    schema = json.loads(Structured(request, request.output).request.tools[0].schema)
    assert schema["properties"]["value"] == {"type": "array", "items": {"type": "integer"}}
    assert judged(answer(final(b'{"value":[1,2]}')), request) == answer(Text("[1,2]"), stop=Stop.END)
    assert judged(answer(Text("[1,2]"), stop=Stop.END), request) == answer(Text("[1,2]"), stop=Stop.END)
    assert isinstance(judged(answer(final(b'{"value":["x"]}')), request), Mismatch)


NO_FORM = "$ matches none of the forms it may have: $ has to be of type string"
TWO_FORMS = "$ matches more than one of the forms of which it may have one"
NODE = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (1, {"type": "integer"}, ""),
        (1.0, {"type": "integer"}, ""),
        (True, {"type": "integer"}, "$ has to be of type integer"),
        (None, {"type": ["string", "null"]}, ""),
        ("x", {"const": "y"}, '$ has to be "y"'),
        (1, {"enum": [True, 2]}, "$ has to be one of [true, 2]"),
        ([1, "x"], {"items": {"type": "integer"}}, "$[1] has to be of type integer"),
        ([1, "x"], {"prefixItems": [{}, {"type": "string"}], "items": False}, ""),
        ([1, "x", 2], {"prefixItems": [{}, {"type": "string"}], "items": False}, "$[2] may not be there"),
        ([1, 1], {"uniqueItems": True}, "$ holds an item twice"),
        ([], {"minItems": 1}, "$ needs at least 1 items"),
        ({"a": 1}, {"additionalProperties": False}, "$.a may not be there"),
        ({"a": 1}, {"patternProperties": {"^a": {"type": "string"}}}, "$.a has to be of type string"),
        ({"a": 1}, {"maxProperties": 0}, "$ may have at most 0 members"),
        ("abc", {"maxLength": 2}, "$ may have at most 2 characters"),
        ("abc", {"pattern": "^b"}, "$ does not match the pattern ^b"),
        ("abc", {"pattern": "("}, ""),
        (5, {"minimum": 6}, "$ has to be at least 6"),
        (5, {"exclusiveMaximum": 5}, "$ has to be less than 5"),
        (5, {"multipleOf": 2}, "$ has to be a multiple of 2"),
        (5, {"anyOf": [{"type": "string"}, {"type": "null"}]}, NO_FORM),
        (5, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        (5, {"oneOf": [{"minimum": 1}, {"minimum": 2}]}, TWO_FORMS),
        (5, {"allOf": [{"minimum": 1}, {"minimum": 6}]}, "$ has to be at least 6"),
        (5, {"not": {"type": "integer"}}, "$ has a form that it may not have"),
        ({"next": {"next": {}}}, NODE, ""),
        ({"next": {"next": 5}}, NODE, "$.next.next has to be of type object"),
        (5, {"$ref": "#/nowhere"}, ""),
        (5, {"$ref": "https://elsewhere"}, ""),
        (5, {"$ref": "#"}, ""),
        (5, "no schema", ""),
        (5, {"type": 5, "required": 5, "enum": 5, "minimum": "x"}, ""),
    ],
)  # fmt: skip
def test_a_value_and_its_schema(value: Any, schema: Any, wrong: str) -> None:
    assert mismatch(value, schema) == wrong


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        *("type", "properties", "required", "items", "enum", "anyOf", "oneOf", "allOf", "not", "$ref", "minimum"),
        *("pattern", "minItems", "prefixItems", "additionalProperties", "patternProperties", "multipleOf", "const"),
    ]
)


@given(JSON, st.dictionaries(KEYS, JSON | st.just("#"), max_size=4))
def test_no_schema_breaks_the_check(value: Any, schema: Any) -> None:
    assert isinstance(mismatch(value, schema), str)
    assert mismatch(value, {"const": value}) == ""
