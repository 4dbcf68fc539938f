"""Every refusal of the service, and that a good request passes. Each case breaks one thing of the good request."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from helpers.images import PNG
from helpers.requests import JPEG, image
from kirostream.dialects.kiro.checks import doubted, oversized
from kirostream.dialects.kiro.request import decode
from kirostream.filters.request_rules import STUB
from kirostream.simulator.catalogue import Offer, offers
from kirostream.simulator.strict import check
from kirostream.turn.model import Model

CATALOGUE = {**offers(""), "tiny": Offer(Model("tiny", window=50), "X")}
SPEC = {"name": "read", "description": "Reads.", "inputSchema": {"json": {"type": "object", "properties": {}}}}
GOOD: dict[str, Any] = {
    "conversationState": {
        "conversationId": "c",
        "chatTriggerType": "MANUAL",
        "history": [
            {"userInputMessage": {"content": "read it", "origin": "AI_EDITOR"}},
            {
                "assistantResponseMessage": {
                    "content": " ",
                    "toolUses": [{"toolUseId": "1", "name": "read", "input": {}}],
                }
            },
        ],
        "currentMessage": {
            "userInputMessage": {
                "content": "",
                "modelId": "claude-opus-4.7",
                "origin": "AI_EDITOR",
                "images": [{"format": "png", "source": {"bytes": image().data}}],
                "userInputMessageContext": {
                    "toolResults": [{"toolUseId": "1", "status": "success", "content": [{"text": "x"}]}],
                    "tools": [{"toolSpecification": SPEC}, {"cachePoint": {"type": "default"}}],
                },
            }
        },
    },
    "additionalModelRequestFields": {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "xhigh"},
    },
}


def state(body: Any) -> Any:
    return body["conversationState"]


def current(body: Any) -> Any:
    return state(body)["currentMessage"]["userInputMessage"]


def context(body: Any) -> Any:
    return current(body)["userInputMessageContext"]


def entry(body: Any, at: int) -> Any:
    return next(iter(state(body)["history"][at].values()))


def spec(body: Any) -> Any:
    return context(body)["tools"][0]["toolSpecification"]


def use(body: Any) -> Any:
    return entry(body, 1)["toolUses"][0]


def put(holder: Callable[[Any], Any], key: Any, value: Any) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        holder(body)[key] = value

    return change


def drop(holder: Callable[[Any], Any], key: Any) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        del holder(body)[key]

    return change


def schema(value: Any) -> Callable[[Any], None]:
    return put(spec, "inputSchema", {"json": value})


def of(kind: str, data: bytes) -> list[dict[str, Any]]:
    return [{"format": kind, "source": {"bytes": image(data).data}}]


def results(*content: dict[str, Any], **more: Any) -> Callable[[Any], None]:
    """One result, of the call 1 where nothing else is said."""
    return put(context, "toolResults", [{"toolUseId": "1", "content": list(content), **more}])


def twice(body: Any) -> None:
    """The same use and the same result, two times."""
    entry(body, 1)["toolUses"] *= 2
    context(body)["toolResults"] *= 2


def plain(body: Any) -> None:
    """A body of one sentence."""
    state(body)["history"] = []
    message = current(body)
    for key in ("images", "userInputMessageContext"):
        message.pop(key)
    message["content"] = "hi"
    message["modelId"] = "claude-haiku-4.5"
    del body["additionalModelRequestFields"]


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        for each in changes:
            each(body)

    return change


USER = {"userInputMessage": {"content": "x"}}
ASSISTANT = {"assistantResponseMessage": {"content": "x"}}
FIELDS = "additionalModelRequestFields"

FINE: list[tuple[str, Callable[[Any], None]]] = [
    ("as it is", lambda _: None),
    ("plain", plain),
    ("KIRO_CLI", put(current, "origin", "KIRO_CLI")),
    ("no conversation id", drop(state, "conversationId")),
    (
        "null tool uses",
        both(plain, put(state, "history", [USER, {"assistantResponseMessage": {"content": "x", "toolUses": None}}])),
    ),
    ("a name in another case", put(use, "name", "READ")),
    ("JSON results", results({"json": {"a": 1}})),
    (
        "extra words in a schema",
        schema({"type": "object", "properties": {}, "required": [], "additionalProperties": True}),
    ),
    ("a schema of true", schema({"type": "object", "properties": {"x": True}})),
    ("unknown fields", put(lambda body: body, "inferenceConfig", {"maxTokens": 1})),
    ("thinking disabled", put(lambda body: body, FIELDS, {"thinking": {"type": "disabled"}})),
    ("null fields", put(lambda body: body, FIELDS, None)),
]

REFUSED: list[tuple[str, str, Callable[[Any], None]]] = [
    ("empty conversation id", "INVALID_CONVERSATION_ID", put(state, "conversationId", "")),
    ("trigger", "", put(state, "chatTriggerType", "AUTO")),
    ("origin", "", put(current, "origin", "SOMEWHERE")),
    ("origin in the history", "", put(lambda b: entry(b, 0), "origin", "SOMEWHERE")),
    ("unknown model", "INVALID_MODEL_ID", put(current, "modelId", "gpt-2")),
    ("no model", "INVALID_MODEL_ID", drop(current, "modelId")),
    ("starts with the assistant", "", both(plain, put(state, "history", [ASSISTANT, USER, ASSISTANT]))),
    ("user twice", "", both(plain, put(state, "history", [USER, USER]))),
    ("user before the user", "", both(plain, put(state, "history", [USER]))),
    ("assistant at the end", "INVALID_MODEL_ID", put(state, "currentMessage", ASSISTANT)),
    ("nobody", "", both(plain, put(state, "history", [{}, ASSISTANT]))),
    ("both at once", "", both(plain, put(state, "history", [{**USER, **ASSISTANT}, ASSISTANT]))),
    ("too many messages", "", both(plain, put(state, "history", [USER, ASSISTANT] * 5_001))),
    ("empty user", "", both(plain, put(current, "content", ""))),
    ("empty assistant", "", put(lambda b: entry(b, 1), "content", "")),
    ("long text", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", both(plain, put(current, "content", "x" * 600_001))),
    ("long result", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", results({"text": "x" * 800_001})),
    (
        "full window",
        "CONTENT_LENGTH_EXCEEDS_THRESHOLD",
        both(plain, put(current, "modelId", "tiny"), put(current, "content", "x" * 400)),
    ),
    ("missing result", "TOOL_USE_RESULT_MISMATCH", both(put(context, "toolResults", []), put(current, "content", "x"))),
    ("other result", "TOOL_USE_RESULT_MISMATCH", results({"text": "x"}, toolUseId="2")),
    (
        "result twice",
        "TOOL_USE_RESULT_MISMATCH",
        lambda body: context(body)["toolResults"].extend(context(GOOD)["toolResults"]),
    ),
    ("use twice", "TOOL_USE_RESULT_MISMATCH", twice),
    ("input of no object", "REQUEST_BODY_INVALID", put(use, "input", "{}")),
    ("result in the first message", "TOOL_USE_RESULT_MISMATCH", put(state, "history", [])),
    ("status", "", results({"text": "x"}, status="ok")),
    ("result of nothing", "", results()),
    ("result of empty text", "", results({"text": ""})),
    ("image in a result", "", results({"image": {}})),
    ("no tools", "TOOL_CONFIG_MISSING", drop(context, "tools")),
    ("only a cache point", "TOOL_CONFIG_MISSING", put(context, "tools", [{"cachePoint": {"type": "default"}}])),
    ("undeclared tool", "TOOL_CONFIG_MISSING", put(use, "name", "write")),
    (
        "tool twice",
        "TOOL_DUPLICATE",
        put(context, "tools", [{"toolSpecification": SPEC}, {"toolSpecification": {**SPEC, "name": "READ"}}]),
    ),
    ("tool of nothing", "", put(context, "tools", [{"toolSpecification": SPEC}, {}])),
    ("tool name", "REQUEST_BODY_INVALID", both(put(spec, "name", "9x"), put(use, "name", "9x"))),
    ("tool name length", "REQUEST_BODY_INVALID", both(put(spec, "name", "x" * 65), put(use, "name", "x" * 65))),
    ("no description", "", drop(spec, "description")),
    ("empty description", "", put(spec, "description", " ")),
    ("long description", "", put(spec, "description", "x" * 10_001)),
    ("schema root", "TOOL_SCHEMA_INVALID", schema({"type": "string"})),
    ("schema without a type", "TOOL_SCHEMA_INVALID", schema({"properties": {}})),
    ("schema of true", "TOOL_SCHEMA_INVALID", schema(True)),
    ("null properties", "TOOL_SCHEMA_INVALID", schema({"type": "object", "properties": None})),
    ("null required", "TOOL_SCHEMA_INVALID", schema({"type": "object", "required": None})),
    (
        "inner null",
        "TOOL_SCHEMA_INVALID",
        schema({"type": "object", "properties": {"x": {"type": "object", "required": None}}}),
    ),
    (
        "null in items",
        "TOOL_SCHEMA_INVALID",
        schema({"type": "object", "properties": {"x": {"items": {"properties": None}}}}),
    ),
    ("properties of no map", "TOOL_SCHEMA_INVALID", schema({"type": "object", "properties": [1]})),
    ("many images", "IMAGE_COUNT_EXCEEDED", put(current, "images", of("png", PNG) * 11)),
    ("bmp", "IMAGE_FORMAT_UNSUPPORTED", put(current, "images", of("bmp", b"BM"))),
    ("mismatch", "IMAGE_MIME_MISMATCH", put(current, "images", of("png", JPEG))),
    ("large image", "IMAGE_SIZE_EXCEEDED", put(current, "images", of("png", PNG + b"\0" * 10_000_000))),
    ("no base64", "REQUEST_BODY_INVALID", put(current, "images", [{"format": "png", "source": {"bytes": "!"}}])),
    ("budget", "REQUEST_BODY_INVALID", put(lambda b: b[FIELDS]["thinking"], "budget_tokens", 1)),
    ("unknown field", "REQUEST_BODY_INVALID", put(lambda b: b[FIELDS], "effort", "high")),
    ("unknown effort", "REQUEST_BODY_INVALID", put(lambda b: b[FIELDS]["output_config"], "effort", "minimal")),
    ("no object", "REQUEST_BODY_INVALID", put(lambda b: b[FIELDS], "thinking", "adaptive")),
    ("older model", "REQUEST_BODY_INVALID", put(current, "modelId", "claude-opus-4.6")),
    ("model without thinking", "REQUEST_BODY_INVALID", put(current, "modelId", "claude-haiku-4.5")),
    ("other family", "REQUEST_BODY_INVALID", put(current, "modelId", "gpt-5.6-sol")),
]


def checked(change: Callable[[Any], None]) -> Any:
    body = copy.deepcopy(GOOD)
    change(body)
    return check(decode(json.dumps(body).encode()), CATALOGUE)


@pytest.mark.parametrize("change", [case[1] for case in FINE], ids=[case[0] for case in FINE])
def test_what_passes(change: Callable[[Any], None]) -> None:
    assert checked(change) is None


@pytest.mark.parametrize(("reason", "change"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused(reason: str, change: Callable[[Any], None]) -> None:
    refusal = checked(change)
    assert refusal is not None
    assert refusal.status == 400
    assert refusal.complaint.code == "ValidationException"
    assert refusal.complaint.reason == reason
    if not reason:
        assert refusal.complaint.message == "Improperly formed request."
        assert refusal.detail


WORDY = {"type": "object", "properties": {"x": {"type": "string", "minLength": 1}}}
BLANK = [{"userInputMessage": {"content": "x"}}, {"assistantResponseMessage": {"content": " "}}]
DOUBTED: list[tuple[str, str, Callable[[Any], None]]] = [
    ("schema keywords", "minLength", schema(WORDY)),
    ("long descriptions", "long", put(spec, "description", "x" * 2_000)),
    ("tools of the past", "history", put(spec, "description", STUB)),
    ("images in the history", "1 images", lambda body: entry(body, 0).update(images=current(body).pop("images"))),
    ("blank texts", "white space", both(plain, put(state, "history", BLANK))),
    ("blank texts", "result", results({"text": "\n"})),
    ("thinking fields", "additionalModelRequestFields", lambda _: None),
    ("long texts", "message", put(current, "content", "日" * 140_000)),
    ("long texts", "result", results({"text": "x" * 400_001})),
]


@pytest.mark.parametrize(("rule", "detail", "change"), DOUBTED, ids=[case[0] for case in DOUBTED])
def test_what_only_a_picky_service_refuses(rule: str, detail: str, change: Callable[[Any], None]) -> None:
    body = copy.deepcopy(GOOD)
    entry(body, 1)["content"] = "x"
    if rule != "thinking fields":
        del body[FIELDS]
        assert check(decode(json.dumps(body).encode()), CATALOGUE, picky=True) is None
        body[FIELDS] = None
    change(body)
    checked_body = decode(json.dumps(body).encode())
    assert check(checked_body, CATALOGUE) is None
    refusal = check(checked_body, CATALOGUE, picky=True)
    assert refusal is not None
    assert (refusal.complaint.reason, refusal.complaint.message) == ("", "Improperly formed request.")
    assert detail in refusal.detail
    (finding,) = doubted(checked_body)
    assert finding.rule == rule


def test_a_body_that_is_suspiciously_large() -> None:
    body = copy.deepcopy(GOOD)
    put(current, "images", of("png", PNG + b"\0" * 600_000))(body)
    raw = json.dumps(body).encode()
    assert len(raw) > 600_000
    assert list(oversized(decode(raw), len(raw))) == [], "images count for themselves"
    put(current, "content", "x" * 600_000)(body)
    raw = json.dumps(body).encode()
    assert [finding.rule for finding in oversized(decode(raw), len(raw))] == ["size"]
