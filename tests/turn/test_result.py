"""A streamed and a whole answer are two forms of one thing."""

from __future__ import annotations

import pytest
from hypothesis import given

from helpers.turns import RESULT
from kirostream.errors import LocalProtocolError, StreamCut
from kirostream.turn.events import BlockKind, BlockStarted, Stop, TurnFailed, TurnStarted
from kirostream.turn.request import ToolCall
from kirostream.turn.result import TurnResult, fold, unfold, whole_calls


@given(RESULT)
def test_fold_undoes_unfold(result: TurnResult) -> None:
    assert fold(unfold(result)) == result


def test_fold_raises_what_the_turn_failed_with() -> None:
    with pytest.raises(StreamCut, match="gone"):
        fold([TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), TurnFailed(StreamCut("gone"))])


def test_fold_refuses_a_turn_without_an_end() -> None:
    with pytest.raises(LocalProtocolError):
        fold([TurnStarted("m")])


@pytest.mark.parametrize("arguments", [b'{"path": "a', b"[1]", b'"text"', b"{}{}", b""])
def test_a_call_that_broke_off_is_no_call(arguments: bytes) -> None:
    whole, broken = ToolCall("a", "t", b"{}"), ToolCall("b", "t", arguments)
    result = TurnResult((whole, broken), Stop.MAX_TOKENS)
    assert whole_calls(result).content == (whole,)
    assert whole_calls(whole_calls(result)) == whole_calls(result)
