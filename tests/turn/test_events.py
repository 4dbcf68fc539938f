"""Pieces: the inside of a JSON string, escaped once and never decoded on the way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.turn.events import BlockDelta, escape, unescape

ANY_TEXT = st.text(st.characters(codec="utf-8"))


@given(ANY_TEXT)
def test_escape_then_unescape_is_the_text(text: str) -> None:
    assert unescape([escape(text)]) == text


@given(st.lists(ANY_TEXT, min_size=1))
def test_pieces_of_a_delta_say_their_texts_in_order(texts: list[str]) -> None:
    assert BlockDelta(0, [escape(text) for text in texts]).text == "".join(texts)


@given(st.text())
def test_a_piece_is_always_valid_utf8_inside_a_json_string(text: str) -> None:
    piece = escape(text)
    decoded = json.loads(b'"' + piece + b'"')
    assert not any("\ud800" <= char <= "\udfff" for char in decoded)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ud83d", "\ufffd"),
        ("a\ude00b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ('quote " and \\ and \n', 'quote " and \\ and \n'),
    ],
)
def test_surrogates_are_joined_or_replaced(text: str, said: str) -> None:
    assert unescape([escape(text)]) == said
