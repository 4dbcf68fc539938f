"""JSON in, and how what is wrong with it is said."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.dialects.jsontext import (
    MAX_DEPTH,
    as_object,
    check_utf8,
    decode,
    decode_answer,
    encode,
    is_object,
    mend,
    part,
    raw,
)
from kirostream.errors import MalformedRequest, RemoteProtocolError


class Inner(msgspec.Struct):
    count: int


class Body(msgspec.Struct):
    name: str
    items: list[Inner] = []
    rest: msgspec.Raw = msgspec.Raw()


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("body", "story"),
    [
        (b"", "ends too early"),
        (b'{"name":', "ends too early"),
        (b'{"name":"x",}', "trailing comma"),
        (b'{"name":"x"} {}', "trailing characters"),
        (b'{"name":"\xff"}', "byte 9 is not UTF-8"),
        (b'{"name":"x","unknown":"\xff"}', "not UTF-8"),
        (b'{"name":"x","rest":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"name":"x","unknown":' + b"[" * 100_000, "too deeply"),
        (b'{"name":"x","rest":' + nested(100_000) + b"}", "too deeply"),
    ],
)
def test_what_is_not_json_is_refused_as_such(body: bytes, story: str) -> None:
    with pytest.raises(MalformedRequest, match=story) as caught:
        decode(body, Body)
    assert caught.value.reason == "invalid_json"
    with pytest.raises(RemoteProtocolError):
        decode_answer(body, Body)


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        (b"[]", "$", "invalid_type"),
        (b"{}", "$.name", "missing_required_parameter"),
        (b'{"name":null}', "$.name", "invalid_type"),
        (b'{"name":"x","items":[{"count":1},{"count":"2"}]}', "$.items[1].count", "invalid_type"),
        (b'{"name":"x","items":[{}]}', "$.items[0].count", "missing_required_parameter"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(body: bytes, param: str, reason: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(body, Body)
    assert (caught.value.param, caught.value.reason) == (param, reason)
    assert param in caught.value.message


def test_a_part_is_named_from_the_root() -> None:
    with pytest.raises(MalformedRequest) as caught:
        part(msgspec.Raw(b'{"count":[]}'), Inner, "$.messages[3].content[0]")
    assert caught.value.param == "$.messages[3].content[0].count"


def test_a_byte_order_mark_is_dropped() -> None:
    assert decode(b'\xef\xbb\xbf{"name":"x"}', Body).name == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\uDE00 a"', "\ufffd a"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (rb'"\ud83d\n"', "\ufffd\n"),
        (rb'"\ud83dA"', "\ufffdA"),
        (rb'"\\ud83d \ude00"', "\\ud83d \ufffd"),
    ],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(text: bytes, said: str) -> None:
    assert decode(b'{"name":' + text + b',"rest":' + text + b"}", Body).name == said
    assert json.loads(mend(text)) == said


@given(st.text(st.characters(exclude_categories=())))
def test_mended_text_always_decodes(text: str) -> None:
    mended = mend(json.dumps(text).encode())
    said = msgspec.json.decode(mended, type=str)
    # Halves that happen to stand side by side are a pair to JSON.
    assert said == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize("text", [nested(MAX_DEPTH), b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b"[{}]" + b" " * 500])
def test_raw_json_passes_up_to_the_limit(text: bytes) -> None:
    assert raw(msgspec.Raw(text), "$.x") == text


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    text = encode({"a": "[[[{{{" * 100, "b": [[] for _ in range(300)], 'c"]': '\\"[' * 200})
    assert raw(msgspec.Raw(text), "$.x") == text


def test_raw_json_over_the_limit_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="100 levels") as caught:
        raw(msgspec.Raw(nested(MAX_DEPTH + 1)), "$.tools[0].input_schema")
    assert caught.value.param == "$.tools[0].input_schema"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b"", b"{}"),
        (b" ", b"{}"),
        (b"null", b"{}"),
        (b'""', b"{}"),
        (b"[1]", b'{"arguments":"[1]"}'),
        (b'{"a": 1', b'{"arguments":"{\\"a\\": 1"}'),
        (rb'{"a":"\ud800"}', rb'{"a":"\ufffd"}'),
        (b"not json \xff", '{"arguments":"not json \ufffd"}'.encode()),
    ],
)
def test_arguments_become_an_object(text: bytes, arguments: bytes) -> None:
    assert as_object(text) == arguments


@given(st.binary(max_size=50) | st.text().map(str.encode))
def test_arguments_are_always_an_object(text: bytes) -> None:
    assert is_object(as_object(text))
    assert isinstance(json.loads(as_object(text)), dict)


def test_arguments_nested_too_deeply_are_kept_as_text() -> None:
    assert list(json.loads(as_object(nested(100_000)))) == ["arguments"]


SNIPPETS = st.sampled_from(
    [b"a" * 4_090, b"a" * 7, "é".encode(), "€".encode(), "😀".encode() * 3, b"\xe2\x82", b"\xff"]
)


def fault(check: Callable[[bytes], object], body: bytes) -> tuple[int, int, str] | None:
    try:
        check(body)
    except UnicodeDecodeError as error:
        return error.start, error.end, error.reason
    return None


@given(st.lists(SNIPPETS, max_size=8).map(b"".join))
def test_utf8_is_checked_piece_by_piece_as_if_whole(body: bytes) -> None:
    assert fault(check_utf8, body) == fault(bytes.decode, body)
