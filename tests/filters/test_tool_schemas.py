"""The quick look at a schema says what the walk says, wherever it says anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kirostream.filters import tool_schemas
from kirostream.filters.tool_schemas import repair_schema

DIALECT = "http://json-schema.org/draft-07/schema#"
NUMBER = st.one_of(st.none(), st.booleans(), st.integers(), st.just(1e400), st.just("1"))
WORD = st.sampled_from(["x", None, 7, "\ud83d"])
VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just("v"), st.just({"$ref": "#", "a": None}), st.just([None])
)
SUBSCHEMA: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.just({}), st.just({"type": "string", "description": "d"}), st.none(), st.just("x")),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "string", ["object", "null"], None, 7]),
            "description": WORD,
            "pattern": WORD,
            "properties": st.one_of(st.dictionaries(st.sampled_from("xy"), inner, max_size=2), st.none(), st.just([])),
            "required": st.sampled_from([["x"], [], [7], None, "x"]),
            "items": st.one_of(inner, st.lists(inner, max_size=2)),
            "additionalProperties": inner,
            "anyOf": st.one_of(st.lists(inner, max_size=2), st.just({})),
            "default": VALUE,
            "enum": VALUE,
            "minimum": NUMBER,
            "uniqueItems": NUMBER,
            "nullable": st.booleans(),
            "$schema": st.just(DIALECT),
            "$ref": st.just("#"),
        },
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from("abc"), SUBSCHEMA, max_size=3), st.sampled_from([{}, {"$schema": DIALECT}]))
@example({"a": {"$schema": DIALECT}}, {})
@example({}, {"$schema": ""})
@example({}, {"$schema": None})
def test_what_fits_at_a_glance_is_what_the_walk_leaves(properties: dict[str, Any], more: dict[str, Any]) -> None:
    raw = json.dumps({**more, "type": "object", "properties": properties}).encode()
    glanced, walked = tool_schemas._fitting(raw), tool_schemas._repair(raw)
    assert glanced is None or json.loads(glanced) == json.loads(walked)
    assert json.loads(repair_schema(raw)) == json.loads(walked)


@pytest.mark.parametrize(
    "subschema",
    [
        {"type": "string", "enum": ["a", None], "description": "d", "default": None, "minLength": 1},
        {"type": ["array", "null"], "items": {"type": "object", "properties": {"x": True}, "required": ["x"]}},
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "additionalProperties": False},
    ],
)
def test_usual_schemas_fit_at_a_glance(subschema: Any) -> None:
    schema = {"type": "object", "properties": {"a": subschema}, "required": ["a"]}
    raw = json.dumps(schema).encode()
    assert tool_schemas._fitting(raw) is raw
    assert json.loads(tool_schemas._fitting(json.dumps({"$schema": DIALECT, **schema}).encode()) or b"") == schema


def test_more_subschemas_than_may_be_do_not_fit_at_a_glance() -> None:
    many: dict[str, Any] = {f"{n:x}": {} for n in range(tool_schemas.MAX_SCHEMA_NODES)}
    raw = json.dumps({"type": "object", "properties": {**many, "z": {"properties": {"a": {"title": "t"}}}}}).encode()
    assert json.loads(repair_schema(raw))["properties"]["z"] == {}
