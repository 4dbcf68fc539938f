"""The quick reader of messages says what the other says, and a memory changes nothing of what comes out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from helpers.images import PNG
from kirostream.dialects.anthropic import request as anthropic
from kirostream.dialects.anthropic.usual import read_usual
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.jsontext import MAX_DEPTH
from kirostream.dialects.kiro import request as kiro
from kirostream.errors import MalformedRequest
from kirostream.filters.request_rules import apply_rules
from kirostream.turn.memory import Memory
from kirostream.turn.model import Model
from kirostream.turn.request import Message

PNG_BASE64 = base64.b64encode(PNG).decode()
STAMP = Stamp(Model("claude-sonnet-4.5"), "conversation", "continuation", "arn:x", "AI_EDITOR")
WORDS = st.sampled_from(["", "a", "b\n", "é", "\U0001f600", None])
IDS = st.sampled_from(["c1", "c2", "c3", "odd id"])
NAMES = st.sampled_from(["Read", "read", "fs.read"])
MARK = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}, {"unknown": None}])
SOURCE = st.sampled_from(
    [
        {"type": "base64", "media_type": "image/png", "data": PNG_BASE64},
        {"media_type": "image/png", "data": PNG_BASE64},
        {"type": "base64", "media_type": "text/plain", "data": "YQ=="},
        {"type": "base64", "media_type": "image/png", "data": ""},
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "file", "file_id": "f"},
    ]
)
INPUT = st.sampled_from(
    [{}, {"a": [1, None, {"b": "\u2028"}]}, None, [], "text", {"deep": json.loads("[" * 99 + "]" * 99)}]
)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    members = st.fixed_dictionaries({"type": st.just(kind)}, optional=fields)
    return st.builds(lambda block, mark: {**block, **mark}, members, MARK)


PART = st.one_of(block("text", text=WORDS), block("image", source=SOURCE), block("tool_reference", tool_name=NAMES))
RESULT = block(
    "tool_result",
    tool_use_id=IDS,
    content=st.one_of(WORDS, st.lists(PART, max_size=2)),
    is_error=st.sampled_from([True, False, None]),
)
BLOCK = st.one_of(
    PART,
    RESULT,
    block("thinking", thinking=WORDS, signature=WORDS),
    block("redacted_thinking", data=WORDS),
    block("tool_use", id=IDS, name=NAMES, input=INPUT),
    block("unknown", text=WORDS),
    block("document", source=SOURCE),
)
ROLE = st.sampled_from(["user", "assistant", "user", "assistant", "system", "tool"])
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": st.one_of(WORDS, st.lists(BLOCK, max_size=3))})


def in_full(raw: bytes) -> Message | None:
    try:
        return anthropic._read_message(Raw(raw), "$.messages[0]")
    except MalformedRequest:
        return None


@settings(max_examples=300)
@given(MESSAGE)
def test_what_is_read_at_once_is_what_is_read_in_full(message: dict[str, Any]) -> None:
    raw = json.dumps(message, ensure_ascii=False).encode()
    usual = read_usual(raw)
    assert usual is None or usual == in_full(raw)


@pytest.mark.parametrize(
    "content",
    [
        "text",
        "",
        [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": ""}],
        [{"type": "thinking", "thinking": "a", "signature": "b"}, {"type": "redacted_thinking", "data": "c"}],
        [{"type": "tool_use", "id": "1", "name": "n", "input": {"a": []}}],
        [{"type": "tool_result", "tool_use_id": "1", "content": "r", "is_error": True}],
        [
            {
                "type": "tool_result",
                "tool_use_id": "1",
                "content": [
                    {"type": "text", "text": "r"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_BASE64}},
                ],
            }
        ],
    ],
)
def test_the_usual_is_read_at_once(content: Any) -> None:
    raw = json.dumps({"role": "user", "content": content}).encode()
    assert read_usual(raw) is not None
    assert read_usual(raw) == in_full(raw)


def test_what_is_nested_too_deeply_is_not_usual() -> None:
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    call = {"type": "tool_use", "id": "1", "name": "n", "input": {"a": deep}}
    assert read_usual(json.dumps({"role": "assistant", "content": [call]}).encode()) is None


# Sessions

SAID = st.text("ab", min_size=1, max_size=2)
USUAL = st.one_of(
    st.builds(lambda said: {"role": "user", "content": [{"type": "text", "text": said}]}, SAID),
    st.builds(
        lambda said, call_id: {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": said, "signature": "s"},
                {"type": "tool_use", "id": call_id, "name": "Read", "input": {"said": said}},
            ],
        },
        SAID,
        IDS,
    ),
    st.builds(
        lambda said, call_id: {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call_id, "content": said}],
        },
        SAID,
        IDS,
    ),
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {
            "name": NAMES,
            "input_schema": st.sampled_from(
                [{"type": "object", "properties": {}}, {"$schema": "x", "type": "object"}, {"$ref": "#"}, None]
            ),
        },
        optional={"description": st.sampled_from(["d", "", "long " * 3_000]), "type": st.just("custom")},
    ),
    max_size=3,
)


@st.composite
def sessions(draw: st.DrawFn) -> list[bytes]:
    """Requests of one session: each has the history of the one before, with something changed, and more behind it."""
    history: list[dict[str, Any]] = []
    tools = draw(TOOLS)
    bodies = []
    for _ in range(draw(st.integers(2, 5))):
        history = [*history, *draw(st.lists(USUAL, min_size=1, max_size=4))]
        match draw(st.sampled_from(["goes on", "goes on", "edit", "drop", "reorder", "compact", "tools"])):
            case "edit":
                at = draw(st.integers(0, len(history) - 1))
                history[at] = draw(st.one_of(USUAL, MESSAGE))
            case "drop":
                del history[draw(st.integers(0, len(history) - 1))]
            case "reorder":
                history = draw(st.permutations(history))
            case "compact":
                history = history[len(history) // 2 :]
            case "tools":
                tools = draw(TOOLS)
            case _:
                pass
        body = {"model": "m", "max_tokens": 9, "messages": history, "tools": tools}
        bodies.append(json.dumps(body, ensure_ascii=draw(st.booleans())).encode())
    return bodies


def converted(body: bytes, *memory: Memory) -> bytes | str:
    try:
        return kiro.write_request(apply_rules(anthropic.read_request(body, (), *memory)), STAMP)
    except MalformedRequest as error:
        return f"{error.param}: {error.message}"


@settings(max_examples=150, deadline=None)
@given(sessions(), st.sampled_from([30_000, 1 << 20]), st.integers(0, 3))
def test_a_memory_changes_nothing(bodies: list[bytes], limit: int, age: int) -> None:
    memory = Memory(limit)
    for number, body in enumerate(bodies):
        assert converted(body, memory) == converted(body)
        if number == age:
            memory.age()
    for body in bodies:
        assert converted(body, memory) == converted(body)


def test_what_was_sent_before_is_not_read_again() -> None:
    memory = Memory(1 << 20)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tools = [{"name": "Read", "input_schema": {"type": "object"}}]
    body = {"model": "m", "messages": messages, "tools": tools}
    first = anthropic.read_request(json.dumps(body).encode(), (), memory)
    longer = {**body, "messages": [*messages, {"role": "user", "content": "c"}]}
    second = anthropic.read_request(json.dumps(longer).encode(), (), memory)
    assert all(again is once for again, once in zip(second.messages, first.messages, strict=False))
    assert second.tools[0] is first.tools[0]


def test_messages_that_know_where_they_stand_are_not_remembered() -> None:
    memory = Memory(1 << 20)
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "YQ=="}}
    message = {"role": "user", "content": [document]}
    for count in (1, 2):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}, message][-count:]}).encode()
        attachment: Any = anthropic.read_request(body, (), memory).messages[-1].content[0]
        assert attachment.at == f"$.messages[{count - 1}].content[0].source.data"
