from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.requests import REQUEST, image
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import ACKNOWLEDGED, decode, effort, read_request, write_request
from kirostream.errors import MalformedRequest
from kirostream.filters.request_rules import apply_rules
from kirostream.simulator.catalogue import offers
from kirostream.simulator.strict import check
from kirostream.turn.model import Model
from kirostream.turn.request import (
    Image,
    Message,
    Role,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

OBJECT = b'{"type":"object","properties":{}}'
MODEL = Model("claude-sonnet-4.5")
STAMP = Stamp(MODEL, "conversation", "continuation", "arn:x", "AI_EDITOR")
CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"


def user(*content: Any) -> Message:
    return Message(Role.USER, content)


def assistant(*content: Any) -> Message:
    return Message(Role.ASSISTANT, content)


def written(request: TurnRequest, stamp: Stamp = STAMP) -> Any:
    return json.loads(write_request(request, stamp))


def test_the_whole_body() -> None:
    request = TurnRequest(
        model="anything",
        system=(Text("You are terse."), Text("Be kind.")),
        messages=(
            user(Text("What is in notes.txt?")),
            assistant(Text(" "), ToolCall("tooluse_a1", "read_file", b'{"path": "notes.txt"}')),
            user(ToolResult("tooluse_a1", (Text("buy milk"), image())), Text("and?"), image()),
        ),
        tools=(Tool("read_file", "Read one file.", OBJECT),),
    )
    png = {"format": "png", "source": {"bytes": image().data}}
    assert written(request) == {
        "conversationState": {
            "conversationId": "conversation",
            "agentContinuationId": "continuation",
            "agentTaskType": "vibe",
            "chatTriggerType": "MANUAL",
            "history": [
                {"userInputMessage": {"content": "You are terse.\n\nBe kind.", "origin": "AI_EDITOR"}},
                {"assistantResponseMessage": {"content": ACKNOWLEDGED}},
                {"userInputMessage": {"content": "What is in notes.txt?", "origin": "AI_EDITOR"}},
                {
                    "assistantResponseMessage": {
                        "content": " ",
                        "toolUses": [{"toolUseId": "tooluse_a1", "name": "read_file", "input": {"path": "notes.txt"}}],
                    }
                },
            ],
            "currentMessage": {
                "userInputMessage": {
                    "content": "and?",
                    "modelId": "claude-sonnet-4.5",
                    "origin": "AI_EDITOR",
                    "images": [png, png],
                    "userInputMessageContext": {
                        "toolResults": [
                            {"toolUseId": "tooluse_a1", "status": "success", "content": [{"text": "buy milk"}]}
                        ],
                        "tools": [
                            {
                                "toolSpecification": {
                                    "name": "read_file",
                                    "description": "Read one file.",
                                    "inputSchema": {"json": {"type": "object", "properties": {}}},
                                }
                            }
                        ],
                    },
                }
            },
        },
        "profileArn": "arn:x",
    }


def test_what_is_absent_is_not_sent() -> None:
    assert written(TurnRequest(model="m", messages=(user(Text("hi")),)), Stamp(MODEL)) == {
        "conversationState": {
            "agentTaskType": "vibe",
            "chatTriggerType": "MANUAL",
            "currentMessage": {
                "userInputMessage": {"content": "hi", "modelId": "claude-sonnet-4.5", "origin": "AI_EDITOR"}
            },
        }
    }


def test_sampling_is_not_sent() -> None:
    request = TurnRequest(model="m", messages=(user(Text("hi")),), sampling=Sampling(9, 0.5, 0.5, ("x",)))
    assert write_request(request, STAMP) == write_request(TurnRequest(model="m", messages=(user(Text("hi")),)), STAMP)


def test_arguments_and_schemas_keep_their_bytes() -> None:
    arguments, schema = b'{ "b" : 1.0, "a" : "\\u00e9" }', b'{ "type" : "object" }'
    request = TurnRequest(
        model="m",
        messages=(user(Text("a")), assistant(ToolCall("1", "t", arguments)), user(ToolResult("1", (Text("r"),)))),
        tools=(Tool("t", "d", schema),),
    )
    body = write_request(request, STAMP)
    assert arguments in body
    assert schema in body


def test_an_error_result_says_so() -> None:
    request = TurnRequest(model="m", messages=(user(ToolResult("1", (Text("no"),), is_error=True)),))
    body = written(request)
    context = body["conversationState"]["currentMessage"]["userInputMessage"]["userInputMessageContext"]
    assert context["toolResults"][0]["status"] == "error"


def test_names_are_shortened_everywhere() -> None:
    long = "mcp__server__" + "t" * 70
    request = TurnRequest(
        model="m",
        messages=(user(Text("a")), assistant(ToolCall("1", long, b"{}")), user(ToolResult("1", (Text("r"),)))),
        tools=(Tool(long, "d", OBJECT),),
    )
    again = read_request(write_request(request, STAMP))
    (call,) = again.messages[1].content
    assert isinstance(call, ToolCall)
    assert call.name == again.tools[0].name
    assert len(call.name) == 64


def test_lone_surrogates_are_replaced() -> None:
    tool = Tool("t", "\udc00", OBJECT)
    request = TurnRequest(
        model="m",
        system=(Text("\ud800s"),),
        messages=(user(Text("a\ud83d\ude00b\ude00"), ToolResult("1", (Text("\ud83d"),))),),
        tools=(tool,),
    )
    body = write_request(request, STAMP).decode()
    assert "a😀b\ufffd" in body
    assert body.count("\ufffd") == 4


@pytest.mark.parametrize("messages", [(), (assistant(Text("a")),), (Message(Role.SYSTEM, (Text("s"),)),)])
def test_a_request_that_was_not_ruled_is_written_all_the_same(messages: tuple[Message, ...]) -> None:
    assert written(TurnRequest(model="m", messages=messages))["conversationState"]["currentMessage"]


# Thinking


@pytest.mark.parametrize(
    ("thinking", "efforts", "word"),
    [
        (Thinking(True), ("low", "medium", "high"), "high"),
        (Thinking(True), ("low", "medium"), "medium"),
        (Thinking(True, effort="low"), ("low", "high"), "low"),
        (Thinking(True, effort="max"), ("low", "high"), "high"),
        (Thinking(True, effort="minimal"), ("low", "high"), "low"),
        (Thinking(True, effort="medium"), ("low", "high"), "low"),
        (Thinking(True, effort="strange"), ("low", "high"), "high"),
        (Thinking(True, effort="strange"), ("odd", "strange"), "strange"),
        (Thinking(True), ("odd", "words"), "words"),
        (Thinking(True, budget=4_000), ("low", "medium", "high", "xhigh"), "low"),
        (Thinking(True, budget=16_000), ("low", "medium", "high", "xhigh"), "medium"),
        (Thinking(True, budget=31_999), ("low", "medium", "high", "xhigh"), "high"),
        (Thinking(True, budget=64_001), ("low", "medium", "high", "xhigh"), "xhigh"),
        (Thinking(True, budget=64_001), ("low", "medium", "high"), "high"),
        (Thinking(True, budget=1, effort="high"), ("low", "high"), "high"),
    ],
)
def test_the_effort_fits_the_scale(thinking: Thinking, efforts: tuple[str, ...], word: str) -> None:
    assert effort(thinking, efforts) == word


@pytest.mark.parametrize(
    ("model", "thinking", "fields"),
    [
        (Model("claude-x", efforts=("low", "high")), Thinking(), None),
        (Model("claude-x"), Thinking(True), None),
        (
            Model("claude-x", efforts=("low", "high")),
            Thinking(True),
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            Model("claude-x", efforts=("low", "xhigh")),
            Thinking(True, effort="low"),
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (Model("gpt-x", efforts=("low",)), Thinking(True), {"reasoning": {"effort": "low"}}),
        (
            Model("claude-x", efforts=("low", "xhigh"), thinking_fields=("reasoning.effort",)),
            Thinking(True),
            {"reasoning": {"effort": "low"}},
        ),
        (
            Model("gpt-x", efforts=("high",), thinking_fields=("thinking.type", "thinking.display")),
            Thinking(True),
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        (Model("claude-x", thinking_fields=("thinking.type",)), Thinking(True), {"thinking": {"type": "adaptive"}}),
        (Model("claude-x", thinking_fields=("other.member",)), Thinking(True), None),
    ],
)
def test_native_thinking(model: Model, thinking: Thinking, fields: object) -> None:
    request = TurnRequest(model="m", messages=(user(Text("hi")),), thinking=thinking)
    body = written(request, Stamp(model))
    assert body.get("additionalModelRequestFields") == fields
    assert read_request(write_request(request, Stamp(model))).thinking.enabled is (fields is not None)


@pytest.mark.parametrize("offer", offers("").values(), ids=lambda offer: offer.model.id)
@pytest.mark.parametrize("word", ["", "low", "xhigh", "max"])
def test_thinking_fits_every_model(offer: Any, word: str) -> None:
    request = TurnRequest(model="m", messages=(user(Text("hi")),), thinking=Thinking(True, effort=word))
    assert check(decode(write_request(request, Stamp(offer.model))), offers("")) is None


# Reading


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"conversationState":1}', b"\xff", b"[" * 100_000, b'{"conversationState":{}}']
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_request(body)


def test_unknown_fields_and_nulls_are_tolerated() -> None:
    body = {
        "conversationState": {
            "chatTriggerType": "MANUAL",
            "new": 1,
            "history": None,
            "currentMessage": {
                "userInputMessage": {"content": "x", "images": None, "userInputMessageContext": None, "new": {}},
                "assistantResponseMessage": None,
            },
        },
        "inferenceConfig": {"maxTokens": 1},
    }
    assert read_request(json.dumps(body).encode()).messages == (user(Text("x")),)


def test_json_results_are_read_as_text() -> None:
    result = {"toolUseId": "1", "content": [{"json": {"a": 1}}, {"text": "b"}]}
    message = {"content": "", "userInputMessageContext": {"toolResults": [result]}}
    body = {"conversationState": {"chatTriggerType": "MANUAL", "currentMessage": {"userInputMessage": message}}}
    (read,) = read_request(json.dumps(body).encode()).messages[0].content
    assert read == ToolResult("1", (Text('{"a": 1}'), Text("b")))


def lifted(request: TurnRequest) -> list[tuple[str, str, list[Any]]]:
    """What a request says, with the images of results at their message, and its texts as one."""
    said = []
    for message in request.messages:
        text = "\n\n".join(b.text for b in message.content if isinstance(b, Text) and b.text)
        images = [b for b in message.content if isinstance(b, Image)]
        others: list[Any] = [b for b in message.content if isinstance(b, ToolCall)]
        for block in message.content:
            if isinstance(block, ToolResult):
                images += [part for part in block.content if isinstance(part, Image)]
                others.append((block.call_id, [p for p in block.content if isinstance(p, Text)], block.is_error))
        said.append((message.role.value, text, [images, others]))
    return said


def speakable(request: TurnRequest) -> bool:
    try:
        repr(request).encode()
    except UnicodeEncodeError:
        return False
    return "\\ud" not in repr(request)


def unseen(request: TurnRequest) -> TurnRequest:
    """The same request of objects with which nothing is kept."""
    return replace(request, messages=tuple(map(replace, request.messages)), tools=tuple(map(replace, request.tools)))


@settings(max_examples=60, deadline=None)
@given(REQUEST, REQUEST, st.sampled_from(["", "OTHER"]))
def test_what_is_kept_is_what_would_be_written(one: TurnRequest, other: TurnRequest, origin: str) -> None:
    stamp = replace(STAMP, origin=origin)
    mixed = replace(one, tools=other.tools, messages=(*other.messages, *one.messages))
    for request, stamped in ((one, STAMP), (mixed, STAMP), (mixed, stamp), (one, STAMP)):
        assert write_request(request, stamped) == write_request(unseen(request), stamped)


def test_names_on_the_wire_are_those_of_the_request() -> None:
    call, result = assistant(Text("a"), ToolCall("1", "Read", b"{}")), user(ToolResult("1", ()))
    lower, upper = Tool("read", "", OBJECT), Tool("Read", "", OBJECT)
    for tools in ((upper,), (lower, upper), (upper,)):
        request = TurnRequest(model="m", messages=(user(Text("q")), call, result), tools=tools)
        sent = written(request)["conversationState"]
        context = sent["currentMessage"]["userInputMessage"]["userInputMessageContext"]
        called = sent["history"][1]["assistantResponseMessage"]["toolUses"][0]["name"]
        assert called == context["tools"][-1]["toolSpecification"]["name"]


@settings(max_examples=60, deadline=None)
@given(REQUEST.map(apply_rules).filter(speakable))
def test_what_is_written_is_read(request: TurnRequest) -> None:
    again = read_request(write_request(request, STAMP))
    names = {tool.name: other.name for tool, other in zip(request.tools, again.tools, strict=True)}

    def renamed(said: list[tuple[str, str, list[Any]]]) -> list[Any]:
        return [
            (role, text, images, [(o.id, o.arguments) if isinstance(o, ToolCall) else o for o in others])
            for role, text, (images, others) in said
        ]

    assert renamed(lifted(again)) == renamed(lifted(request))
    assert len(set(names.values())) == len(names)
    assert [tool.schema for tool in again.tools] == [tool.schema for tool in request.tools]
    assert "\n\n".join(p.text for p in again.system) == "\n\n".join(p.text for p in request.system if p.text)


# Real clients


PATHS = {
    "/v1/messages": "anthropic",
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
}


def captures() -> list[Any]:
    """Every captured question in a dialect that is spoken here: the dialect's name, and the request."""
    found = []
    for path in sorted(CAPTURES.glob("*.json")):
        sent = json.loads(path.read_text())
        dialect = PATHS.get(sent["path"].partition("?")[0])
        if dialect and sent["method"] == "POST":
            found.append(pytest.param(dialect, sent, id=path.stem))
    return found or [pytest.param("", {}, id="none")]


@pytest.mark.parametrize(("dialect", "sent"), captures())
def test_what_real_clients_send_passes_the_strict_check(dialect: str, sent: dict[str, Any]) -> None:
    if not sent:
        pytest.skip("the captures of real clients are not here")
    pairs = sent["headers"].items() if isinstance(sent["headers"], dict) else sent["headers"]
    headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
    raw = json.dumps(sent["body"]).encode()
    request = apply_rules(DIALECTS[dialect].read_request(raw, headers))
    for model in (MODEL, offers("")["claude-opus-4.7"].model):
        body = write_request(request, Stamp(model, "c"))
        assert check(decode(body), offers("")) is None
        assert len(body) < len(raw) * 1.2 + 2_000
