"""Hypothesis strategies for questions: anything the types allow, sensible or not."""

from __future__ import annotations

import base64
import json

from hypothesis import strategies as st

from helpers.images import PNG
from kirostream.turn.request import (
    ContentBlock,
    Image,
    Message,
    Role,
    Sampling,
    SearchCall,
    SearchHit,
    SearchOutcome,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 12
GIF = b"GIF89a" + b"\0" * 12
WEBP = b"RIFF\0\0\0\0WEBP" + b"\0" * 12


def image(data: bytes = PNG, media_type: str = "image/png") -> Image:
    """An image with this data."""
    return Image(media_type, base64.b64encode(data).decode())


TEXT = st.one_of(
    st.sampled_from(["", " ", "hello", "日本語 😀", "Continue", "\ud83d", "a\ude00b"]), st.text(max_size=8)
)
CALL_ID = st.sampled_from(["call_1", "call_2", "call_3", "", "a.b:c", "x" * 80])
TOOL_NAME = st.sampled_from(
    [
        "read",
        "Read",
        "fs.read",
        "fs.READ",
        "_x",
        "9",
        "",
        "mcp__a_long_server__" + "t" * 60,
        "mcp__a_long_server__" + "t" * 61,
    ]
)

JSON_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
REFERENCE = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/x", "#/nowhere", "other.json", "#/anyOf/0"])
SCHEMA = st.recursive(
    st.one_of(JSON_VALUE, st.builds(lambda ref: {"$ref": ref}, REFERENCE)),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["object", "string", "array", None, ["object", "null"], 7]),
                "properties": st.one_of(
                    st.none(), st.dictionaries(st.sampled_from(["x", "y", "required", "$ref"]), inner, max_size=3)
                ),
                "required": st.one_of(st.none(), st.just(["x"]), st.just(True)),
                "items": st.one_of(inner, st.lists(inner, max_size=2)),
                "anyOf": st.lists(inner, max_size=2),
                "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
                "$schema": st.just("http://json-schema.org/draft-07/schema#"),
                "$id": st.just("x"),
                "default": JSON_VALUE,
                "enum": st.lists(JSON_VALUE, max_size=2),
                "additionalProperties": st.one_of(st.booleans(), inner),
            },
        ),
        st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)
RAW_SCHEMA = SCHEMA.map(lambda value: json.dumps(value).encode())
ARGUMENTS = st.one_of(
    st.dictionaries(st.text(max_size=3), JSON_VALUE, max_size=3).map(json.dumps), JSON_VALUE.map(json.dumps)
).map(str.encode)

IMAGE = st.one_of(
    st.sampled_from([image(), image(JPEG), image(GIF, "image/gif"), image(WEBP, ""), image(b"BM", "image/bmp")]),
    st.sampled_from(
        [Image("image/png", "not base64!"), Image("image/png", base64.urlsafe_b64encode(PNG).decode()[:-2])]
    ),
)
BLOCK: st.SearchStrategy[ContentBlock] = st.one_of(
    st.builds(Text, TEXT),
    IMAGE,
    st.builds(Thought, TEXT, st.sampled_from(["", "sig"]), st.sampled_from(["", "b64"])),
    st.builds(ToolCall, CALL_ID, TOOL_NAME, ARGUMENTS),
    st.builds(
        ToolResult, CALL_ID, st.lists(st.one_of(st.builds(Text, TEXT), IMAGE), max_size=2).map(tuple), st.booleans()
    ),
    st.builds(SearchCall, CALL_ID, TEXT),
    st.builds(
        SearchOutcome,
        CALL_ID,
        st.sampled_from([None, (), (SearchHit("https://a.example/", "A", "2025-04-30", "x"),)]),
        st.sampled_from(["", "unavailable"]),
    ),
)
MESSAGE = st.builds(Message, st.sampled_from(Role), st.lists(BLOCK, max_size=4).map(tuple))
DESCRIPTION = st.one_of(TEXT, st.sampled_from(["x" * 10_000, "x" * 10_001, "é" * 6_000]))
TOOL = st.builds(Tool, TOOL_NAME, DESCRIPTION, RAW_SCHEMA)
CHOICE = st.builds(ToolChoice, st.sampled_from(["auto", "any", "none", "tool"]), TOOL_NAME, st.booleans())

REQUEST = st.builds(
    TurnRequest,
    model=st.just("claude-sonnet-4.5"),
    messages=st.lists(MESSAGE, max_size=8).map(tuple),
    system=st.lists(st.builds(Text, TEXT), max_size=2).map(tuple),
    tools=st.lists(TOOL, max_size=4).map(tuple),
    tool_choice=CHOICE,
    sampling=st.just(Sampling(max_tokens=100)),
    thinking=st.builds(
        Thinking, st.booleans(), st.sampled_from([None, 1, 5_000, 99_999]), st.sampled_from(["", "max"])
    ),
)
