"""The stricter variant: each repair, and that all of them leave nothing to doubt."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from helpers.images import PNG
from helpers.requests import RAW_SCHEMA, REQUEST, image
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import decode, write_request
from kirostream.filters import repair
from kirostream.filters.repair import BY_REASON, REPAIRS, beyond_strict, strict_schema, stricter
from kirostream.filters.request_rules import RULES, apply_rules
from kirostream.filters.tool_schemas import repair_schema
from kirostream.simulator.catalogue import offers
from kirostream.simulator.strict import check
from kirostream.turn.request import (
    ContentBlock,
    Image,
    Message,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

CATALOGUE = offers("")
MODEL = CATALOGUE["claude-opus-4.7"].model
OBJECT = b'{"type":"object","properties":{}}'
READ = Tool("read", "Reads.", OBJECT)


def user(*content: ContentBlock | str) -> Message:
    return Message(Role.USER, tuple(Text(c) if isinstance(c, str) else c for c in content))


def assistant(*content: ContentBlock | str) -> Message:
    return Message(Role.ASSISTANT, tuple(Text(c) if isinstance(c, str) else c for c in content))


def fitted(*messages: Message, **more: Any) -> TurnRequest:
    return apply_rules(TurnRequest(model=MODEL.id, messages=messages, **more))


def repaired(*messages: Message, **more: Any) -> tuple[list[Message], tuple[str, ...]]:
    request, done = stricter(fitted(*messages, **more), MODEL)
    return list(request.messages), done


# All of them


@settings(max_examples=60, deadline=None)
@given(REQUEST)
def test_the_variant_is_beyond_doubt(asked: TurnRequest) -> None:
    refused = apply_rules(replace(asked, model=MODEL.id))
    variant, done = stricter(refused, MODEL)
    assert (variant is refused) == (not done)
    assert stricter(variant, MODEL) == (variant, ()), "there is one variant, and no stricter one"
    for rule in RULES:
        assert rule(variant) is variant, f"{rule.__name__} would change it again"
    before, after = (
        check(decode(write_request(each, Stamp(MODEL))), CATALOGUE, picky=True) for each in (refused, variant)
    )
    assert after is None, after
    assert (before is not None) == bool(done), (before, done)


def test_a_request_without_doubts_has_no_variant() -> None:
    request = fitted(user("look", image()), tools=(READ,))
    assert stricter(request, MODEL) == (request, ())


def test_a_reason_picks_its_repairs() -> None:
    wordy = Tool("read", "Reads.", b'{"type":"object","properties":{},"title":"x"}')
    request = fitted(user("a", image()), assistant("b"), user("c"), tools=(wordy,))
    assert stricter(request, MODEL)[1] == ("schemas reduced", "earlier images left out")
    assert stricter(request, MODEL, "REQUEST_BODY_INVALID")[1] == ("schemas reduced", "earlier images left out")
    assert stricter(request, MODEL, "TOOL_SCHEMA_INVALID")[1] == ("schemas reduced",)
    assert stricter(request, MODEL, "IMAGE_COUNT_EXCEEDED")[1] == ("earlier images left out",)
    assert {name for names in BY_REASON.values() for name in names} <= set(REPAIRS)


# Each of them


def test_long_descriptions_move() -> None:
    request = fitted(user("a"), tools=(Tool("read", "x" * 2_000, OBJECT),))
    variant, done = stricter(request, MODEL)
    assert done == ("descriptions shortened",)
    assert variant.tools[0].description == 'The description is in the system prompt, under "## Tool: read".'
    assert variant.system == (Text("## Tool: read\n\n" + "x" * 2_000),)


def test_calls_of_past_tools_become_text() -> None:
    past, now = ToolCall("1", "gone", b'{"a":1}'), ToolCall("2", "read", b"{}")
    results = ToolResult("1", (Text("one"), image())), ToolResult("2", (Text("two"),))
    request = fitted(user("a"), assistant(past, now), user(*results, "more"), user("now"), tools=(READ,))
    assert [tool.name for tool in request.tools] == ["read", "gone"]
    variant, done = stricter(request, MODEL)
    assert done == ("calls of past tools as text",)
    assert variant.tools == (READ,)
    assert variant.messages[1] == assistant(" ", '[Called the tool gone with {"a":1}]', now)
    assert variant.messages[2] == user(results[1], "[Result of the tool gone]\none", image(), "more", "now")


def test_only_the_last_message_has_images() -> None:
    messages, done = repaired(
        user("a", image()),
        assistant(ToolCall("1", "read", b"{}")),
        user(ToolResult("1", (image(), Text("t")))),
        assistant("b"),
        user("c", image()),
        tools=(READ,),
    )
    assert done == ("earlier images left out", "blank texts filled")
    assert messages[0] == user("a", repair.OLD_IMAGE)
    assert messages[2] == user(ToolResult("1", (Text(repair.OLD_IMAGE), Text("t"))))
    assert messages[4] == user("c", image())


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (user(" \n"), user("Continue")),
        (user("a", " "), user("a", " ")),
        (assistant(" "), assistant("(no text)")),
        (assistant(ToolCall("1", "read", b"{}")), assistant("(no text)", ToolCall("1", "read", b"{}"))),
        (assistant(" ", "a"), assistant(" ", "a")),
        (user(ToolResult("1", (Text(" "),)), "\t"), user(ToolResult("1", (Text("(no output)"),)))),
        (user(ToolResult("1", (Text(" "), Text("a")))), user(ToolResult("1", (Text("a"),)))),
    ],
)
def test_blank_texts_are_filled(given: Message, sent: Message) -> None:
    before = (
        assistant("b", ToolCall("1", "read", b"{}")) if isinstance(given.content[0], ToolResult) else assistant("b")
    )
    around = [user("a"), given, user("c")] if given.role is Role.ASSISTANT else [user("a"), before, given]
    messages, done = repaired(*around, tools=(READ,))
    assert messages[around.index(given)] == sent
    assert bool(done) == (given != sent)


def test_a_blank_system_prompt_is_left_out() -> None:
    variant, done = stricter(fitted(user("a"), system=(Text(" "),)), MODEL)
    assert (variant.system, done) == ((), ("blank texts filled",))


@pytest.mark.parametrize("letter", ["x", "é", "日"])
def test_the_middle_of_a_long_text_is_left_out(letter: str) -> None:
    long = f"begin {letter * 410_000} end"
    call = ToolCall("1", "read", b"{}")
    request = fitted(
        user(long, "also"), assistant("b", call), user(ToolResult("1", (Text(long), image())), "c"), tools=(READ,)
    )
    variant, done = stricter(request, MODEL)
    assert done == ("long texts cut",)
    (first,), (result, text) = variant.messages[0].content, variant.messages[2].content
    assert isinstance(first, Text)
    assert first.text.startswith("begin ")
    assert first.text.endswith(" end\n\nalso")
    assert "bytes are left out here" in first.text
    assert 399_000 < len(first.text.encode()) <= 400_000
    assert isinstance(result, ToolResult)
    assert result.content[0] == image()
    assert isinstance(result.content[1], Text)
    assert result.content[1].text.endswith(" end")
    assert text == Text("c")


def test_thinking_fields_are_left_out_where_there_are_any() -> None:
    request = fitted(user("a"), thinking=Thinking(enabled=True))
    variant, done = stricter(request, MODEL)
    assert (variant.thinking, done) == (Thinking(), ("thinking fields left out",))
    assert stricter(request, CATALOGUE["claude-haiku-4.5"].model) == (request, ())


# Schemas


SCHEMAS: list[tuple[str, Any, Any]] = [
    (
        "keywords",
        {
            "type": "object",
            "title": "T",
            "description": "What it is.",
            "properties": {"a": {"type": "string", "minLength": 1, "format": "uri", "description": "d"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "description": "What it is.",
            "properties": {"a": {"type": "string", "description": "d"}},
            "required": ["a"],
        },
    ),
    ("empty required", {"type": "object", "properties": {}, "required": []}, {"type": "object", "properties": {}}),
    (
        "required of nothing",
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b", "a", "a"], "minProperties": 1},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    ("names are not keywords", {"type": "object", "properties": {"title": {}, "oneOf": {}}}, None),
    (
        "several types",
        {"type": "object", "properties": {"a": {"type": ["null", "integer"]}, "b": {"type": "null"}}},
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}},
    ),
    (
        "const",
        {"type": "object", "properties": {"a": {"const": "x"}, "b": {"enum": [1, None, 2, 1]}, "c": {"enum": [{}]}}},
        {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}, "b": {"enum": [1, 2]}, "c": {}}},
    ),
    (
        "a choice of values",
        {"type": "object", "properties": {"a": {"anyOf": [{"const": "x"}, {"enum": ["y"]}, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"type": "string", "enum": ["x", "y"]}}},
    ),
    (
        "a choice of forms",
        {
            "type": "object",
            "properties": {"a": {"description": "d", "oneOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
        },
        {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}},
    ),
    (
        "all of",
        {
            "type": "object",
            "properties": {"a": {}},
            "required": ["a"],
            "allOf": [{"properties": {"b": {"type": "string"}}, "required": ["b"]}],
        },
        {"type": "object", "properties": {"b": {"type": "string"}, "a": {}}, "required": ["a", "b"]},
    ),
    (
        "a tuple",
        {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}, "b": True}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {}}, "b": {}}},
    ),
    (
        "odd names",
        {"type": "object", "properties": {"größe": {"type": "string"}, "ok": {}}, "required": ["größe"]},
        {
            "type": "object",
            "description": 'May also have the members ["gr\\u00f6\\u00dfe"].',
            "properties": {"ok": {}},
        },
    ),
]


@pytest.mark.parametrize(("given", "sent"), [case[1:] for case in SCHEMAS], ids=[case[0] for case in SCHEMAS])
def test_schemas_are_reduced(given: Any, sent: Any) -> None:
    raw = json.dumps(given).encode()
    assert repair_schema(raw) == raw, "the rules leave it as it is"
    assert json.loads(strict_schema(raw)) == (given if sent is None else sent)
    assert bool(beyond_strict(given)) == (sent is not None)


def test_a_deep_schema_becomes_shallow() -> None:
    schema: Any = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    reduced = json.loads(strict_schema(json.dumps(schema).encode()))
    depth = 0
    while "properties" in reduced:
        reduced = reduced["properties"]["a"]
        depth += 1
    assert depth == repair.STRICT_DEPTH - 1


def test_combinations_without_end() -> None:
    raw = b'{"type":"object","properties":{},"anyOf":[' * 700 + b"{}" + b"]}" * 700
    assert json.loads(strict_schema(raw))["type"] == "object"


@given(RAW_SCHEMA)
def test_a_reduced_schema_needs_no_repair_and_no_reduction(raw: bytes) -> None:
    reduced = strict_schema(repair_schema(raw))
    assert strict_schema(reduced) == reduced
    assert repair_schema(reduced) == reduced
    assert not beyond_strict(json.loads(reduced))


def test_an_image_in_the_last_message_stays_whatever_else_is_repaired() -> None:
    messages, _ = repaired(user(" "), assistant(" "), user(Image("image/png", image(PNG).data), " "))
    assert messages[-1] == user(image(), "Continue")
