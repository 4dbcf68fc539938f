"""A text that stays JSON until it is asked for."""

from __future__ import annotations

import msgspec
import pytest

from kirostream.turn.request import Text


@pytest.mark.parametrize("said", ["plain", "é 😀 日本", 'a "quote" and a \\ and\na line', "\x00"])
def test_in_utf8_it_is_the_same_decoded_or_not(said: str) -> None:
    assert Text(said).encoded == said.encode()
    assert Text.of_literal(msgspec.json.encode(said)).encoded == said.encode()


def test_half_a_surrogate_pair_has_no_utf8() -> None:
    assert Text("half \ud83d").encoded == b"half ?"


@pytest.mark.parametrize("literal", [b'"plain"', b'"with an \\n escape"'])
def test_asking_for_utf8_leaves_a_literal_as_it_is(literal: bytes) -> None:
    text = Text.of_literal(literal)
    text.encoded  # noqa: B018
    with pytest.raises(AttributeError):
        object.__getattribute__(text, "text")
