"""The scanner says what its twins in Python say, or nothing; and a body comes out the same with it and without."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from helpers.bodies import BODIES
from helpers.captures import ABSENT, FOLDER, captures
from helpers.requests import JSON_VALUE
from kirostream import scan
from kirostream.dialects.anthropic import request as anthropic
from kirostream.dialects.anthropic.usual import decode_usual
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.jsontext import MAX_DEPTH, decode
from kirostream.dialects.kiro import request as kiro
from kirostream.errors import MalformedRequest
from kirostream.filters import request_rules, tool_schemas
from kirostream.filters.outline import outline_in_python
from kirostream.filters.request_rules import apply_rules
from kirostream.turn.memory import FORGETFUL
from kirostream.turn.model import Model
from kirostream.turn.request import (
    ContentBlock,
    Image,
    Message,
    Role,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.tokens import estimate

STAMP = Stamp(Model("claude-sonnet-4.5"), "conversation", "continuation", "arn:x", "AI_EDITOR")


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    if not scan.BUILT:
        pytest.skip("the scanner is not built, or not wanted (KIROSTREAM_CORE)")


class Blind:
    """The `Fitter` of a machine without a compiler."""

    def __call__(self, _: bytes) -> None:
        return None

    def properties(self, _: bytes) -> dict[str, int]:
        return {}


@contextmanager
def unscanned() -> Iterator[None]:
    """Without the scanner, as on a machine that has no compiler."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("split", "read_message", "write_user", "write_assistant", "write_tool"):
            patch.setattr(scan, name, lambda *_: None)
        patch.setattr(request_rules, "outline", outline_in_python)
        patch.setattr(tool_schemas, "_seen_to_fit", Blind())
        yield


def converted(body: bytes) -> bytes | str:
    try:
        return kiro.write_request(apply_rules(anthropic.read_request(body, ())), STAMP)
    except MalformedRequest as error:
        return f"{error.param} {error.reason}: {error.message}"


def dumped(value: object, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """JSON as one client or another writes it."""
    ascii_only, separators = draw(st.booleans()), draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")]))
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with a few bytes changed, left out, put in or said twice."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        more = draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"[", b",", b":", b"0", b"e9", b"\x80", b"\n", b"\0"])
        )
        until = at + draw(st.sampled_from([0, 0, 1, 2, 9]))
        body[at:until] = more if draw(st.booleans()) else body[at:until] * 2
    return bytes(body)


# A body


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    names = st.sampled_from(["messages", "tools", "model", "messages ", "TOOLS", "é"])
    values = st.one_of(JSON_VALUE, st.lists(JSON_VALUE, max_size=3))
    return dumped(draw(st.dictionaries(names, values, max_size=4)), draw)


@settings(max_examples=400, deadline=None)
@given(mutated(st.one_of(objects(), BODIES["anthropic"])))
@example(b'{"messages":[],"messages":[1]}')
@example(b'{"tools":null,"tools":[1]}')
@example(b'{"mess\\u0061ges":[1],"messages":[2]}')
@example(b'\xef\xbb\xbf{"messages":[1]}')
@example(b'{"messages":["\\ud800"]}')
@example(b'{"messages":["\xed\xa0\x80"]}')
@example(b'{"messages":["\xf4\x90\x80\x80"]}')
@example(b'{"messages":["\xc0\x80"]}')
@example(b'{"messages":[1,]}')
@example(b'{"messages":[01,-,1.,.5,+1,1e]}')
@example(b' {"messages":[1]} ')
@example(b'{"messages":[ 1 , {"a" : [ ] } ] } \n')
@example(b"")
@example(b"{")
@example(b"[]")
@example(b"{}x")
def test_a_body_is_split_as_the_decoder_splits_it(body: bytes) -> None:
    found = scan.split(body)
    if found is None:
        return
    rest, lists = found.rest, found.lists
    assert body.isascii() or body.decode()
    members = decode(body, dict[str, Raw])
    left = decode(rest, dict[str, Raw])
    assert list(left) == list(members)
    for name, value in members.items():
        taken = lists.get(name.encode())
        if taken is None:
            assert bytes(left[name]) == bytes(value)
        else:
            assert msgspec.json.decode(left[name]) == []
            assert taken == [bytes(item) for item in msgspec.json.decode(value, type=list[Raw])]


PARTS = [b"abc", b"n", b"t", b"x" * 9, b"\\n", b"\\t", b"\\r", b'\\"', b"\\\\", b"\\\\\\\\", b"\\/", b"\\b", b"\\u001b"]
PARTS += [b"\\u001B", b"\\u00e9", b"\xc3\xa9", "\u4e2d\u6587".encode(), b"\\", b'"', b"\x1f"]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=90), st.integers(0, 40))
@example([b"\\"] * 31 + [b'"'] + [b"a"] * 40, 40)
@example([b"\\"] * 33 + [b"n"] + [b"a"] * 40, 40)
@example([b"a"] * 31 + [b"\\", b"x"] + [b"a"] * 40, 40)
def test_a_string_ends_where_the_decoder_says(parts: list[bytes], behind: int) -> None:
    """Whatever stands where in the steps that it is gone over in."""
    string = b'"%b"' % b"".join(parts)
    try:
        said = msgspec.json.decode(string, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = None
    raw = b'{"role":"user","content":%b}' % string + b" " * behind
    found = scan.split(b'{"messages":[%b]}' % raw)
    assert (found is None) == (said is None)
    if found is not None and said is not None:
        message = found.message(0)
        assert message == Message(Role.USER, (Text(said),) if said else ())
        literals = [block.literal for block in message.content if isinstance(block, Text)]
        assert literals in ([], [None], [string])
        assert [None] not in [literals] or msgspec.json.encode(said) != string


@pytest.mark.parametrize("body", [b'{"messages":[1,2],"tools":[]}', b' { "tools" : [ ] , "messages" : [ 1 , 2 ] } '])
def test_usual_bodies_are_split(body: bytes) -> None:
    if body.startswith(b" "):
        body = body[1:]
    found = scan.split(body)
    assert found is not None
    assert found.lists == {b"messages": [b"1", b"2"], b"tools": []}
    assert json.loads(found.rest) == {"messages": [], "tools": []}


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_what_is_nested_too_deeply_is_not_split(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    assert (scan.split(b'{"messages":[%b]}' % deep) is None) == (depth > MAX_DEPTH)
    assert (scan.split(b'{"a":%b}' % deep) is None) == (depth > MAX_DEPTH)


@settings(max_examples=300, deadline=None)
@given(mutated(BODIES["anthropic"]))
def test_a_body_comes_out_the_same_without_the_scanner(body: bytes) -> None:
    with unscanned():
        expected = converted(body)
    assert converted(body) == expected


def test_captured_bodies_come_out_the_same() -> None:
    if not FOLDER.is_dir():
        pytest.skip(ABSENT)
    bodies = [capture.body for capture in captures() if capture.dialect.name == "anthropic"]
    assert len(bodies) > 20
    for body in bodies:
        for raw in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()):
            with unscanned():
                expected, asked = converted(raw), anthropic.read_request(raw, ())
            assert converted(raw) == expected
            assert scan.split(raw) is not None
            again = anthropic.read_request(raw, ())
            assert estimate(again) == estimate(asked)
            assert again == asked


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_captured_bodies_with_faults_come_out_the_same(data: st.DataObject) -> None:
    if not FOLDER.is_dir():
        pytest.skip(ABSENT)
    sent = [
        capture.body for capture in captures() if capture.name.startswith(("claude_code--tool", "cline--tools_anth"))
    ]
    body = data.draw(mutated(st.sampled_from([json.dumps(each, ensure_ascii=False).encode() for each in sent])))
    with unscanned():
        expected = converted(body)
    assert converted(body) == expected


# A message and a tool


def in_full(raw: bytes) -> Message | None:
    try:
        decode(raw, Raw)
        return anthropic._read_message(Raw(raw), "$")
    except MalformedRequest:
        return None


@st.composite
def pieces(draw: st.DrawFn, of: str) -> bytes:
    """Messages or tools of a body, one of them."""
    items = json.loads(draw(BODIES["anthropic"])).get(of) or [{}]
    return dumped(draw(st.sampled_from(items)), draw)


@settings(max_examples=400, deadline=None)
@given(mutated(pieces("messages")))
@example(b'{"role":"user","content":"\\u00e9\\/"}')
@example(b'{"role":"user","content":"\\u001b\\u001B\\u0008\\b\\u007f"}')
@example(b'{"role":"user","role":"assistant","content":"a"}')
@example(b'{"content":[{"text":"a","type":"text"}],"role":"system"}')
@example(b'{"role":"user","content":[{"type":"text","text":""},{"type":"text","text":null}]}')
@example(b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"","is_error":null}]}')
@example(b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":true}]}')
@example(b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[],"is_error":1}]}')
@example(b'{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"b","input": { } }]} ')
@example(b'{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"b","input":[]}]}')
@example(b'{"role":"assistant","content":[{"type":"thinking","thinking":"a","signature":null}]}')
@example(b'{"role":"user","content":[{"type":"image","source":{"media_type":"image/","data":"YQ=="}}]}')
@example(b'{"role":"user","content":[{"type":"image","source":{"type":"url","media_type":"image/png","data":"YQ=="}}]}')
@example(b'{"role":"user","content":[{}]}')
@example(b'{"role":"user","content":[]}')
@example(b"{}")
def test_a_message_is_read_as_in_full(raw: bytes) -> None:
    read = scan.read_message(raw)
    assert read is None or read == in_full(raw)
    if read is not None:
        assert read == decode_usual(raw)
        assert hash(read.content) == hash(decode_usual(raw).content)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": "a\n\x1b\u2028é"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "YQ=="}},
        {"type": "thinking", "thinking": "a", "signature": "b"},
        {"type": "redacted_thinking", "data": "a"},
        {"type": "tool_use", "id": "a", "name": "b", "input": {"c": [1e5, None]}},
        {"type": "tool_result", "tool_use_id": "a", "content": "b", "is_error": True},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "b"}]},
    ],
)
@pytest.mark.parametrize("role", list(Role))
def test_usual_messages_are_read(role: Role, block: dict[str, Any]) -> None:
    for content in ([block], [{**block, "cache_control": {"type": "ephemeral"}}] * 2, "said"):
        raw = json.dumps({"role": role.value, "content": content}, ensure_ascii=False).encode()
        assert scan.read_message(raw) == in_full(raw) is not None


@settings(max_examples=300, deadline=None)
@given(mutated(pieces("tools")))
@example(b'{"name":"a","input_schema":{},"type":null,"description":null}')
@example(b'{"name":"","input_schema":{}}')
@example(b'{"name":"a","input_schema":[]}')
@example(b'{"name":"a","input_schema":{},"type":7}')
@example(b'{"name":"DeferredToolPlaceholder","defer_loading":true,"input_schema":{}}')
@example(b'{"name":"a","name":"b","input_schema":{}}')
@example(b'{"name":"a","input_schema":{},"description":"\\u00e9"}')
def test_a_tool_is_read_as_in_full(raw: bytes) -> None:
    parts = scan.split(b'{"tools":[%b]}' % raw)
    if parts is None or len(parts.lists[b"tools"]) != 1 or (read := parts.tool(0)) is None:
        return
    decode(raw, Raw)
    assert anthropic._read_tools([raw], FORGETFUL, None)[0] == (read,)


def test_usual_tools_are_read() -> None:
    raw = b'{"name":"a","description":"b\\n","input_schema":{"type": "object"},"cache_control":{"type":"ephemeral"}}'
    parts = scan.split(b'{"tools":[%b]}' % raw)
    assert parts is not None
    read = parts.tool(0)
    assert read is not None
    assert read.literal == b'"b\\n"'
    assert read.with_schema(b"{}") == Tool("a", "b\n", b"{}")
    for tool in (read, copy.copy(read), replace(read), pickle.loads(pickle.dumps(read)), read.with_schema(read.schema)):
        assert tool == Tool("a", "b\n", b'{"type": "object"}')
        assert repr(tool) == repr(Tool("a", "b\n", b'{"type": "object"}'))
    with pytest.raises(AttributeError, match="'Tool' object has no attribute 'text'"):
        read.text  # type: ignore[attr-defined]  # noqa: B018


# A schema

KEYWORDS = st.sampled_from([*tool_schemas.Fit.__struct_fields__, "$schema", "$ref", "nullable", "x"])
HELD = st.one_of(JSON_VALUE, st.sampled_from(["object", "string", 7, 1.5, 1e300, 10**30, True, ["a"], [7], {}, [{}]]))
FITTING: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [{}, True, {"type": "string"}, {"type": ["string", "null"], "description": "é\n"}, {"minimum": -1}]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda some: {"anyOf": some, "default": None}, st.lists(inner, max_size=2)),
        st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["a"]}, inner, inner),
        st.dictionaries(KEYWORDS, st.one_of(HELD, inner), max_size=3),
    ),
    max_leaves=5,
)


@st.composite
def schemas(draw: st.DrawFn) -> bytes:
    more = draw(st.dictionaries(KEYWORDS, HELD, max_size=2))
    dialect: dict[str, Any] = draw(
        st.sampled_from([{}, {"$schema": "http://json-schema.org/draft-07/schema#"}, {"$schema": None}])
    )
    properties = draw(st.dictionaries(st.sampled_from(["a", "é", "a b"]), FITTING, max_size=3))
    return dumped({**dialect, "type": "object", **more, "properties": properties}, draw)


def glanced(raw: bytes) -> bytes | None:
    with unscanned():
        return tool_schemas._fitting(raw)


@settings(max_examples=400, deadline=None)
@given(mutated(schemas()))
@example(b'{"type":"object","properties":{},"type":"object"}')
@example(b'{"type":"object","properties":{},"$schema":1,"$schema":2}')
@example(b'{ "$schema" : "x" , "type" : "object" , "properties" : { "a" : { } } } ')
@example(b'{"type":"object","properties":{"a":{"default":1e999}}}')
@example(b'{"type":"object","properties":{"a":{"minimum":1e999}}}')
@example(b'{"type":"object","properties":{"a":{"description":null}}}')
@example(b'{"type":"object","properties":{"a":{"enum":null,"default":{"$ref":"#"}}}}')
@example(b'{"type":"object","properties":{"a":{"uniqueItems":1}}}')
@example(b'{"type":"object","properties":null}')
@example(b'{"type":["object"],"properties":{}}')
@example(b'{"properties":{}}')
def test_a_schema_fits_where_the_twin_says_so(raw: bytes) -> None:
    fitted = tool_schemas._seen_to_fit(raw)
    assert fitted is None or (fitted or None) == glanced(raw)


@settings(max_examples=300, deadline=None)
@given(mutated(schemas()))
@example(b'{"type":"object","properties":{"a":{},"a":{"$ref":"#"}}}')
@example(b'{"type":"object","properties":{"a":{"$ref":"#"},"a":{}}}')
@example(b'{"type":"object","properties":{"a":{}},"properties":{"a":{"$id":"x"}}}')
@example(b'{"properties":{"a\\u0062":{},"b":{"$ref":"#/properties/c"},"c":{"$id":"x"}, "d" : { } }}')
def test_a_property_that_fits_needs_no_walk(raw: bytes) -> None:
    fitting = tool_schemas._seen_to_fit.properties(raw)
    try:
        schema = msgspec.json.decode(raw)
    except ValueError:
        return
    for name, most in fitting.items():
        walk = tool_schemas._Repair(schema)
        assert walk._subschema(schema["properties"][name], ()) == schema["properties"][name]
        assert walk.nodes <= most
    assert tool_schemas._repaired(schema, fitting) == tool_schemas._Repair(schema).root()


def test_properties_that_fit_are_seen() -> None:
    raw = json.dumps({"properties": {"a": {"type": "string"}, "b": {"$ref": "#/x"}, "c": {"items": {}}, "d": True}})
    assert tool_schemas._seen_to_fit.properties(raw.encode()) == {"a": 7, "c": 5, "d": 2}


def test_where_there_is_too_much_to_walk_everything_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_schemas, "MAX_SCHEMA_NODES", 8)
    raw = json.dumps({"properties": {**{name: {"title": "x" * 20} for name in "abc"}, "d": {"$ref": "#"}}}).encode()
    schema, fitting = json.loads(raw), tool_schemas._seen_to_fit.properties(raw)
    assert set(fitting) == set("abc")
    assert tool_schemas._repaired(schema, fitting) == tool_schemas._Repair(schema).root()


def test_usual_schemas_fit() -> None:
    """Every keyword with what it usually holds: a schema that is not seen to fit costs ten times as much."""
    subschema = {name: EXAMPLES[kind] for name, kind in tool_schemas.Fit.__annotations__.items()}
    schema: dict[str, Any] = {
        "$schema": "x",
        "type": "object",
        "properties": {"a": subschema},
        "additionalProperties": False,
    }
    everywhere: dict[str, Any] = {**schema, **subschema, "type": "object"}
    for said in (schema, everywhere):
        raw = json.dumps(said).encode()
        assert tool_schemas._seen_to_fit(raw) == glanced(raw) is not None


EXAMPLES: dict[str, Any] = {
    "str": "a",
    "list[str]": ["a", "b"],
    "str | list[str]": ["string", "null"],
    "Any": {"a": [None, 1, -2.5, True, "x"]},
    "float": 1.5,
    "bool": True,
    "Fit | bool": {"type": "string"},
    "list[Fit | bool]": [{"type": "string"}, True],
    "dict[str, Fit | bool]": {"é": {"items": {}}, "b": False},
}


def test_a_keyword_of_a_type_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        scan.Fitter({"a": "dict[str, int]"})


# Texts that are not decoded yet


@given(st.text(min_size=1))
def test_a_text_of_json_is_the_text(said: str) -> None:
    said = said.encode("utf-8", "replace").decode()
    literal = msgspec.json.encode(said)
    text = Text.of_literal(literal)
    assert not text.empty
    assert text == Text(said)
    assert text.text == said
    for again in (Text.of_literal(literal), copy.copy(text), pickle.loads(pickle.dumps(text)), replace(text)):
        assert again == text
        assert hash(again) == hash(text)
        assert repr(again) == repr(text)
    assert Text("") != text
    assert Text("").empty


def test_a_text_has_no_other_fields() -> None:
    with pytest.raises(AttributeError, match="'Text' object has no attribute 'texts'"):
        Text.of_literal(b'"a"').texts  # type: ignore[attr-defined]  # noqa: B018
    assert Text.of_literal(b'"a"') != Text("a", "commentary")


@given(st.lists(st.one_of(st.just(""), st.text(min_size=1)), min_size=1, max_size=4), st.randoms())
def test_texts_of_json_are_written_as_any_other(said: list[str], dice: Any) -> None:
    """Also where half a character stands in another text, so that all are cleaned."""

    def text(word: str) -> Text:
        try:
            return Text.of_literal(msgspec.json.encode(word)) if word and dice.random() < 0.7 else Text(word)
        except UnicodeEncodeError:
            return Text(word)

    def asked(texts: list[Text]) -> bytes:
        result = ToolResult("c", tuple(texts))
        request = TurnRequest(model="m", messages=(Message(Role.USER, (result, *texts)),), system=tuple(texts))
        return kiro.write_request(request, STAMP)

    assert asked([text(word) for word in said]) == asked([Text(word) for word in said])


# What stands in a message, and its entry for Kiro

BLOCK = st.recursive(
    st.one_of(
        st.sampled_from(["", "a", "b\n\u2028\x1b", "é"]).map(Text),
        st.sampled_from([b'"a"', b'"b\\n\xc3\xa9"']).map(Text.of_literal),
        st.builds(Image, st.sampled_from(["image/png", "image/é", "png"]), st.sampled_from(["YQ==", "", 'a"'])),
        st.builds(Thought, st.just("t")),
        st.builds(
            ToolCall,
            st.sampled_from(["c1", "é", '"', "", "a_-9Z" + "b" * 59, "b" * 65, "a b"]),
            st.sampled_from(["n", "M"]),
            st.sampled_from([b"{}", b"", b"[]"]),
        ),
    ),
    lambda inner: st.builds(
        ToolResult,
        st.sampled_from(["c1", "c2\n"]),
        st.lists(inner.filter(lambda block: isinstance(block, Text | Image)), max_size=2).map(tuple),
        st.booleans(),
    ),
    max_leaves=3,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(BLOCK, max_size=4).map(tuple), st.booleans())
def test_the_outline_is_the_one_of_its_twin(content: tuple[ContentBlock, ...], users: bool) -> None:
    assert scan.outline(content, users) == outline_in_python(content, users)


@settings(max_examples=400, deadline=None)
@given(st.lists(BLOCK, max_size=4).map(tuple), st.sampled_from([Role.USER, Role.ASSISTANT, Role.SYSTEM]))
def test_an_entry_is_written_as_by_the_writer(content: tuple[ContentBlock, ...], role: Role) -> None:
    messages = (Message(role, content), Message(Role.USER, (Text("end"),)))
    request = TurnRequest(model="m", messages=messages, tools=(Tool("n", "", b"{}"), Tool("m" * 70, "", b"{}")))
    written = kiro.write_request(request, STAMP)
    with unscanned():
        assert kiro.write_request(afresh(request), STAMP) == written


def afresh(request: TurnRequest) -> TurnRequest:
    """The same request, of which nothing is kept."""
    messages, tools = map(replace, request.messages), map(replace, request.tools)
    return replace(request, messages=tuple(messages), tools=tuple(tools))


@given(st.text(), st.sampled_from([b"{}", b'{ "a": "\\u0000" }']))
@example('"\\/\b\x7f\u2028', b"{}")
def test_a_tool_is_written_as_by_the_writer(description: str, schema: bytes) -> None:
    request = TurnRequest(model="m", messages=(), tools=(Tool("n", description, schema), Tool("m.", "d", schema)))
    written = kiro.write_request(request, STAMP)
    with unscanned():
        assert kiro.write_request(afresh(request), STAMP) == written


def test_half_a_character_is_cleaned_wherever_it_stands() -> None:
    """Also where the scanner meets it: in the name of a tool, or an id."""
    for half in ("\ud83d", "a\ude00"):
        call, result = ToolCall(half, half, b"{}"), ToolResult(half, (Text.of_literal(b'"a"'),))
        said = (Message(Role.ASSISTANT, (Text.of_literal(b'"a"'), call)), Message(Role.USER, (result,)))
        request = TurnRequest(model="m", messages=(*said, *said), tools=(Tool(half, half, b"{}"),))
        written = kiro.write_request(request, STAMP)
        assert json.loads(written)
        with unscanned():
            assert kiro.write_request(afresh(request), STAMP) == written


def test_usual_entries_are_written() -> None:
    """Else the tests above would say nothing."""
    text, result = Text.of_literal(b'"a"'), ToolResult("c", (Text.of_literal(b'"b"'),), is_error=True)
    used: list[tuple[str, str]] = []
    call = ToolCall("c", "n", b'{"x":1}')
    assert scan.write_assistant((text, call), {"n": "N"}, used) == (
        b'{"assistantResponseMessage":{"content":"a","toolUses":[{"toolUseId":"c","name":"N","input":{"x":1}}]}}'
    )
    assert used == [("n", "N")]
    assert scan.write_tool(Tool("m", "d", b"{}"), "n") == (
        b'{"toolSpecification":{"name":"n","inputSchema":{"json":{}},"description":"d"}}'
    )
    assert scan.outline((text, call), users=False) == ((), ("c",), ("n",), ())
    assert scan.write_user((result, text, text), "O") == (
        b'{"userInputMessage":{"content":"a\\n\\na","origin":"O","userInputMessageContext":{"toolResults":'
        b'[{"toolUseId":"c","content":[{"text":"b"}],"status":"error"}]}}}'
    )
