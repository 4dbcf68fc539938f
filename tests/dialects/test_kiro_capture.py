"""Captures: nothing that somebody wrote is in them, and everything that a rule could hang on is."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.images import PNG
from helpers.requests import REQUEST, image
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.capture import FIRST, LAST, redacted
from kirostream.dialects.kiro.request import write_request
from kirostream.filters.request_rules import apply_rules
from kirostream.turn.model import Model
from kirostream.turn.request import (
    Image,
    Message,
    Role,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

KEY = b"k" * 16
MODEL = Model("claude-opus-4.7", efforts=("high", "xhigh"))
SECRET = re.compile(r"s3cret|12345|54321|67890")


def planted(what: str) -> Any:
    """A schema with a secret in every place that can hold one."""
    return {
        "type": "object",
        "title": f"s3cret {what}",
        "description": "s3cret",
        "$comment": "s3cret",
        "s3cretKeyword": "s3cret",
        "properties": {
            "s3cret_name": {"type": "string", "default": "s3cret", "enum": ["s3cret"], "pattern": "s3cret"},
            "number": {"const": 12345, "minimum": 54321, "examples": [{"s3cret": ["s3cret", 67890]}]},
            "type": {"anyOf": [{"type": "s3cret"}, {"type": ["string", "s3cret"]}, True]},
        },
        "patternProperties": {"^s3cret": {}},
        "dependentRequired": {"s3cret": ["s3cret"]},
        "required": ["s3cret_name"],
        "additionalProperties": {"format": "s3cret"},
    }


ASKED = TurnRequest(
    model="m",
    system=(Text("s3cret"),),
    messages=(
        Message(Role.USER, (Text("s3cret"), image())),
        Message(
            Role.ASSISTANT,
            (
                Thought("s3cret", "s3cret"),
                Text("s3cret"),
                ToolCall("s3cret_id", "s3cret_tool", b'{"s3cret":{"a":["s3cret",12345,true,null]}}'),
            ),
        ),
        Message(Role.USER, (ToolResult("s3cret_id", (Text("s3cret"), image())), Text("s3cret"))),
    ),
    tools=(Tool("s3cret_tool", "s3cret", json.dumps(planted("x")).encode()),),
    thinking=Thinking(enabled=True),
    session="s3cret",
)
STAMP = Stamp(MODEL, "s3cret-conversation", "s3cret-continuation", "arn:s3cret", "AI_EDITOR")


def capture(request: TurnRequest = ASKED, stamp: Stamp = STAMP, key: bytes = KEY) -> Any:
    return redacted(write_request(request, stamp), key)


def test_no_secret_is_in_a_capture() -> None:
    body = write_request(ASKED, STAMP)
    assert len(SECRET.findall(body.decode())) > 30
    shown = json.dumps(redacted(body, KEY))
    assert SECRET.findall(shown) == []
    assert image().data[:24] not in shown
    assert KEY.decode() not in shown


@given(st.text(), st.sampled_from(["content", "new", "modelId", "profileArn", "origin", "format", "type", "bytes"]))
def test_a_field_and_a_word_that_are_not_known_are_masked(text: str, field: str) -> None:
    secret = f"s3cret{text}"
    for value in (secret, [secret], {secret: secret}, {field: {"inner": secret}}):
        shown = json.dumps(redacted(json.dumps({"conversationState": {field: value}, secret: secret}).encode(), KEY))
        assert "s3cret" not in shown


def test_the_shape_stays() -> None:
    shown = capture()
    state = shown["conversationState"]
    assert [next(iter(entry)) for entry in state["history"]] == [
        "userInputMessage",
        "assistantResponseMessage",
        "userInputMessage",
        "assistantResponseMessage",
    ]
    current = state["currentMessage"]["userInputMessage"]
    assert current["modelId"] == "claude-opus-4.7"
    assert current["origin"] == "AI_EDITOR"
    assert state["chatTriggerType"] == "MANUAL"
    assert current["images"][0]["format"] == "png"
    assert re.fullmatch(r"<bytes [0-9a-f]{8}, \d+ characters, png>", current["images"][0]["source"]["bytes"])
    use = state["history"][3]["assistantResponseMessage"]["toolUses"][0]
    result = current["userInputMessageContext"]["toolResults"][0]
    assert use["toolUseId"] == result["toolUseId"], "that they are equal is what a rule hangs on"
    assert result["status"] == "success"
    spec = current["userInputMessageContext"]["tools"][0]["toolSpecification"]
    assert spec["name"] == use["name"]
    assert re.fullmatch(r"<name [0-9a-f]{8}, 11 characters, legal>", spec["name"])
    (inner,) = use["input"].values()
    (values,) = inner.values()
    assert values[1:] == ["<number>", "<boolean>", None]
    assert shown["additionalModelRequestFields"] == {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high"},
    }


def test_the_keywords_of_schemas_stay() -> None:
    spec = capture()["conversationState"]["currentMessage"]["userInputMessage"]["userInputMessageContext"]["tools"][0]
    schema = spec["toolSpecification"]["inputSchema"]["json"]
    assert schema["type"] == "object"
    (name, first), (_, second), (_, third) = schema["properties"].items()
    assert name == schema["required"][0].replace("<text", "<name").replace(">", ", legal>")
    assert first["type"] == "string"
    assert list(first) == ["type", "default", "enum", "pattern"]
    assert second["const"] == second["minimum"] == "<number>"
    assert third["anyOf"][0]["type"].startswith("<text ")
    assert third["anyOf"][2] is True
    assert any(key.startswith("<field ") for key in schema)


def test_what_is_wrong_with_a_text_is_told() -> None:
    def content(text: str) -> str:
        body = {"conversationState": {"currentMessage": {"userInputMessage": {"content": text}}}}
        shown = redacted(json.dumps(body).encode(), KEY)["conversationState"]["currentMessage"]["userInputMessage"]
        return re.sub(r" [0-9a-f]{8}(?=,)", "", shown["content"])

    assert content("") == ""
    assert content(" \n") == "<text, 2 characters, blank>"
    assert content("日本") == "<text, 2 characters, 6 bytes>"
    assert content("a\x00") == "<text, 2 characters, control characters>"
    assert content("\ud83d") == "<text, 1 characters, 3 bytes, control characters>"


def test_two_captures_cannot_be_compared() -> None:
    assert capture() == capture()
    assert capture() != capture(key=b"x" * 16)


def test_a_long_history_is_shortened_in_the_middle() -> None:
    messages = [Message((Role.USER, Role.ASSISTANT)[n % 2], (Text("x" * n),)) for n in range(1, 1_000)]
    history = capture(TurnRequest(model="m", messages=tuple(messages)))["conversationState"]["history"]
    assert len(history) == FIRST + LAST + 1
    assert history[FIRST] == "<left out>"


def test_what_cannot_be_read() -> None:
    assert redacted(b"{s3cret", KEY) == "<unreadable, 7 bytes>"
    assert redacted(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, KEY) == "<unreadable, 300001 bytes>"
    deep = b'{"conversationState":' * 60 + b"1" + b"}" * 60
    assert b"<deeper>" in json.dumps(redacted(deep, KEY)).encode()


@settings(max_examples=40, deadline=None)
@given(REQUEST)
def test_any_request_can_be_captured(asked: TurnRequest) -> None:
    for request in (asked, apply_rules(asked)):
        shown = json.dumps(capture(request))
        for message in request.messages:
            for block in message.content:
                if isinstance(block, Image) and len(block.data) > 12:
                    assert block.data not in shown


def test_an_image_that_is_none_is_told() -> None:
    odd = Image("image/png", "!" * 20), Image("image/gif", image(PNG).data)
    request = TurnRequest(model="m", messages=(Message(Role.USER, odd),))
    images = capture(request)["conversationState"]["currentMessage"]["userInputMessage"]["images"]
    assert images[0]["source"]["bytes"].endswith("not base64>") or images[0]["source"]["bytes"].endswith("no image>")
    assert images[1]["format"] == "gif"
    assert images[1]["source"]["bytes"].endswith("png>")
