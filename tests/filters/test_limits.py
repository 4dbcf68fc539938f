"""What ends a turn early: the same end wherever the answer was cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.turns import RESULT
from kirostream.errors import StreamCut
from kirostream.filters.limits import ROOM, Limits, limits_of
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    UsageKnown,
    escape,
)
from kirostream.turn.grammar import Grammar
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Sampling, Text, Thought, Tool, ToolCall, ToolChoice, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage

MODEL = Model("m", max_output=64_000)
ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),))
LETTERS = st.text("ab\n😀", max_size=12)


def through(limits: Limits, events: Iterable[TurnEvent]) -> list[TurnEvent]:
    """What is said, each event taken alone. Checks the grammar."""
    grammar = Grammar()
    said: list[TurnEvent] = []
    for event in events:
        for out in limits.take([event]):
            grammar.check(out)
            said.append(out)
    return said


def texts(*pieces: str) -> list[TurnEvent]:
    """A turn of one text block, one delta a piece."""
    return [
        TurnStarted("m", Usage(input_tokens=7)),
        BlockStarted(0, BlockKind.TEXT),
        *(BlockDelta.of(0, piece) for piece in pieces if piece),
        BlockEnded(0),
        TurnEnded(Stop.END, Usage(7, 9)),
    ]


def answer(limits: Limits, *pieces: str) -> tuple[str, Stop, str]:
    result = fold(through(limits, texts(*pieces)))
    text = "".join(block.text for block in result.content if isinstance(block, Text))
    return text, result.stop, result.stop_sequence


def expected(text: str, stop: Sequence[str]) -> tuple[str, Stop, str]:
    """The definition, without any streaming: the shortest beginning of `text` that ends with a sequence."""
    for end in range(len(text) + 1):
        found = [sequence for sequence in stop if text[:end].endswith(sequence)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], Stop.STOP_SEQUENCE, longest
    return text, Stop.END, ""


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "sequence"),
    [
        (["one STOP two"], ["STOP"], "one ", "STOP"),
        (["one ST", "OP two"], ["STOP"], "one ", "STOP"),
        (["one S", "T", "O", "P"], ["STOP"], "one ", "STOP"),
        (["STOP"], ["STOP"], "", "STOP"),
        (["one STO"], ["STOP"], "one STO", ""),
        (["SST", "OP"], ["STOP"], "S", "STOP"),
        (["aab", "b"], ["ab"], "a", "ab"),
        (["abcd"], ["abcd", "bc"], "a", "bc"),
        (["xabc"], ["bc", "abc"], "x", "abc"),
        (["日本", "語。"], ["語"], "日本", "語"),
        (["a\n", "\nb"], ["\n\n"], "a", "\n\n"),
    ],
)
def test_stop_sequences(pieces: list[str], stop: list[str], text: str, sequence: str) -> None:
    said, why, found = answer(Limits(stop=stop), *pieces)
    assert (said, found) == (text, sequence)
    assert why is (Stop.STOP_SEQUENCE if sequence else Stop.END)


@given(st.lists(LETTERS, max_size=6), st.lists(st.text("ab\n😀", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_sequence_ends_the_turn_in_any_cut(pieces: list[str], stop: list[str]) -> None:
    assert answer(Limits(stop=stop), *pieces) == expected("".join(pieces), stop)


@given(st.lists(LETTERS, max_size=6), st.integers(0, 12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_max_tokens_end_the_turn_in_any_cut(pieces: list[str], max_tokens: int, stop: list[str]) -> None:
    text, why, sequence = expected("".join(pieces), stop)
    room = int(max_tokens * ROOM)
    if max_tokens == 0:
        text, why, sequence = "", Stop.MAX_TOKENS, ""
    elif len(text.encode()) > room:
        text, why, sequence = text.encode()[:room].decode("utf-8", "ignore"), Stop.MAX_TOKENS, ""
    assert answer(Limits(stop=stop, max_tokens=max_tokens), *pieces) == (text, why, sequence)


def test_several_pieces_in_one_delta_are_one_text() -> None:
    event = BlockDelta(0, (escape("one S"), b"\\u0054", escape("OP two")))
    said = through(Limits(stop=["STOP"]), [TurnStarted(), BlockStarted(0, BlockKind.TEXT), event])
    assert said[2:] == [BlockDelta.of(0, "one "), BlockEnded(0), TurnEnded(Stop.STOP_SEQUENCE, said[-1].usage, "STOP")]  # type: ignore[union-attr]


def test_what_cannot_be_a_beginning_passes_as_it_came() -> None:
    event = BlockDelta(0, (b"one", b" \\u0041"))
    said = through(Limits(stop=["STOP"], max_tokens=100), [TurnStarted(), BlockStarted(0, BlockKind.TEXT), event])
    assert said[-1] is event


def test_thoughts_and_arguments_are_not_searched() -> None:
    result = TurnResult((Thought("STOP"), ToolCall("c", "t", b'{"a":"STOP"}'), Text("on")), Stop.TOOL_CALL)
    assert fold(through(Limits(stop=["STOP"]), unfold(result))) == result


def test_a_sequence_does_not_reach_over_blocks() -> None:
    result = TurnResult((Text("ST"), ToolCall("c", "t", b"{}"), Text("OP")), Stop.TOOL_CALL)
    assert fold(through(Limits(stop=["STOP"]), unfold(result))) == result


def test_a_call_is_whole_or_not_there() -> None:
    call = ToolCall("c", "t", b'{"text":"' + b"x" * 100 + b'"}')
    result = TurnResult((Text("a"), call, Text("more"), call), Stop.TOOL_CALL)
    said = fold(through(Limits(max_tokens=3), unfold(result)))
    assert (said.content, said.stop) == ((Text("a"), call), Stop.MAX_TOKENS)


def test_an_open_call_goes_on_to_its_end_when_another_block_ends_the_turn() -> None:
    events: list[TurnEvent] = [
        TurnStarted(),
        BlockStarted(0, BlockKind.TOOL_CALL, "c", "t"),
        BlockDelta.of(0, '{"a":'),
        BlockStarted(1, BlockKind.TEXT),
        BlockDelta.of(1, "one STOP"),
        BlockDelta.of(1, "two"),
        BlockStarted(2, BlockKind.TEXT),
        BlockDelta.of(2, "three"),
        BlockDelta.of(0, "1}"),
        BlockEnded(0),
        BlockEnded(1),
    ]
    said = fold(through(Limits(stop=["STOP"]), events))
    assert said.content == (ToolCall("c", "t", b'{"a":1}'), Text("one "))
    assert said.stop_sequence == "STOP"


def test_at_most_one_call() -> None:
    call = ToolCall("c", "t", b"{}")
    result = TurnResult((Text("a"), call, Text("b"), replace(call, id="d"), Text("c")), Stop.TOOL_CALL)
    said = fold(through(Limits(max_calls=1), unfold(result)))
    assert (said.content, said.stop) == ((Text("a"), call, Text("b")), Stop.TOOL_CALL)


def test_what_was_said_is_what_is_counted() -> None:
    thought = BlockDelta.of(0, "x" * 36)
    events: list[TurnEvent] = [
        TurnStarted("m", Usage(input_tokens=7)),
        BlockStarted(0, BlockKind.THINKING),
        thought,
        UsageKnown(Usage(8, 300, credits=0.5)),
        BlockEnded(0),
        BlockStarted(1, BlockKind.TEXT),
        BlockDelta.of(1, '"' * 100),
    ]
    ended = through(Limits(max_tokens=20), events)[-1]
    assert ended == TurnEnded(Stop.MAX_TOKENS, Usage(8, 20, thinking_tokens=10, credits=0.5, estimated=True))


def test_a_failure_does_not_lose_what_was_held() -> None:
    events = [*texts("one STO")[:3], TurnFailed(StreamCut("gone"))]
    assert through(Limits(stop=["STOP"]), events)[2:-1] == [BlockDelta.of(0, "one "), BlockDelta.of(0, "STO")]


@given(RESULT, st.lists(st.text(min_size=1, max_size=3), max_size=3), st.integers(0, 60), st.sampled_from([None, 1]))
def test_any_turn_stays_a_turn(result: TurnResult, stop: list[str], max_tokens: int, max_calls: int | None) -> None:
    said = fold(through(Limits(stop=stop, max_tokens=max_tokens, max_calls=max_calls), unfold(result)))
    assert [type(block) for block in said.content] == [type(block) for block in result.content][: len(said.content)]
    calls = [block for block in said.content if isinstance(block, ToolCall)]
    assert all(call in result.content for call in calls)
    assert max_calls is None or len(calls) <= max_calls
    if said.stop is Stop.MAX_TOKENS and result.stop is not Stop.MAX_TOKENS and not calls:
        assert said.usage.output_tokens <= max_tokens


@pytest.mark.parametrize(
    ("request_", "limited"),
    [
        (ASK, False),
        (replace(ASK, sampling=Sampling(max_tokens=64_000)), False),
        (replace(ASK, sampling=Sampling(stop=("",))), False),
        (replace(ASK, tool_choice=ToolChoice(parallel=False)), False),
        (replace(ASK, sampling=Sampling(max_tokens=63_999)), True),
        (replace(ASK, sampling=Sampling(stop=("x",))), True),
        (replace(ASK, tools=(Tool("t", "", b"{}"),), tool_choice=ToolChoice(parallel=False)), True),
    ],
)
def test_only_a_turn_that_can_end_early_has_a_filter(request_: TurnRequest, limited: bool) -> None:
    assert (limits_of(request_, MODEL) is not None) is limited
