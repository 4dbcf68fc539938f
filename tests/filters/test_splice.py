"""Several rounds, one turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import StreamCut
from kirostream.filters.splice import Splice
from kirostream.turn.builder import TurnBuilder
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
)
from kirostream.turn.grammar import Grammar, Phase
from kirostream.turn.request import Text, Thought, ToolCall
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage

CALL = ToolCall("c", "n", b"{}")


def round_of(*content: Text | Thought | ToolCall, stop: Stop = Stop.END, **usage: float) -> list[TurnEvent]:
    return list(unfold(TurnResult(content, stop, Usage(**usage), "m")))  # type: ignore[arg-type]


def spliced(*rounds: list[TurnEvent], join_text: bool = False) -> list[TurnEvent]:
    splice = Splice(join_text=join_text)
    said = [event for each in rounds for event in splice.take(each)]
    said += splice.finish()
    grammar = Grammar()
    for event in said:
        grammar.check(event)
    assert grammar.phase is Phase.OVER
    return said


def test_rounds_are_one_turn() -> None:
    first = round_of(Text("a"), CALL, stop=Stop.TOOL_CALL, input_tokens=10, output_tokens=2, credits=0.5)
    second = round_of(Thought("b"), Text("c"), input_tokens=30, output_tokens=3, credits=0.25, context_percentage=7.0)
    result = fold(spliced(first, second))
    assert result.content == (Text("a"), CALL, Thought("b"), Text("c"))
    assert (result.stop, result.model) == (Stop.END, "m")
    assert result.usage == Usage(input_tokens=10, output_tokens=5, credits=0.75, context_percentage=7.0)


def test_one_round_is_said_as_it_is() -> None:
    for join_text in (True, False):
        events = round_of(Text("a"), Text("b"), CALL, Text("c"), output_tokens=2)
        assert spliced(events, join_text=join_text) == events


@pytest.mark.parametrize(
    ("rounds", "content"),
    [
        (((Text("a"),), (Text("b"),), (Text("c"),)), (Text("abc"),)),
        (((Thought("t"), Text("a")), (Text("b"), Text("c"))), (Thought("t"), Text("ab"), Text("c"))),
        (((Text("a"),), (Text("b"), CALL)), (Text("ab"), CALL)),
        (((Text("a"),), (Thought("t"), Text("b"))), (Text("a"), Thought("t"), Text("b"))),
        (((Text("a"), CALL), (Text("b"),)), (Text("a"), CALL, Text("b"))),
        (((Text("a"),), ()), (Text("a"),)),
        (((), (Text("a"),)), (Text("a"),)),
    ],
)
def test_text_goes_on_in_its_block(
    rounds: tuple[tuple[Text | Thought | ToolCall, ...], ...], content: tuple[Text | Thought | ToolCall, ...]
) -> None:
    assert fold(spliced(*(round_of(*each) for each in rounds), join_text=True)).content == content


def test_the_end_of_a_text_waits_for_one_event_only() -> None:
    splice = Splice(join_text=True)
    events = round_of(Text("a"), CALL)
    assert splice.take(events[:4]) == events[:3]
    assert splice.take(events[4:5]) == events[3:5]


def test_a_block_of_ones_own_between_rounds() -> None:
    splice = Splice()
    said = splice.take(round_of(Text("a")))
    index = splice.fresh()
    said += [BlockStarted(index, BlockKind.TEXT), BlockDelta.of(index, "own"), BlockEnded(index)]
    said += splice.take(round_of(Text("b")))
    said += splice.finish()
    assert fold(said).content == (Text("a"), Text("own"), Text("b"))


def test_a_round_that_breaks() -> None:
    splice = Splice(join_text=True)
    splice.take(round_of(Text("a"), output_tokens=1))
    failed = TurnFailed(StreamCut("cut"))
    assert splice.take([TurnStarted("m"), failed]) == [failed]
    assert splice.finish() == [BlockEnded(0), TurnEnded(Stop.END, Usage(output_tokens=1))]


def test_before_the_first_end_there_is_nothing_to_finish() -> None:
    assert Splice().finish() == []


def test_the_cost_so_far_is_that_of_all_rounds() -> None:
    splice = Splice()
    splice.take(round_of(Text("a"), input_tokens=9, output_tokens=1))
    (known,) = splice.take([TurnStarted("m"), UsageKnown(Usage(input_tokens=99, output_tokens=2))])
    assert known == UsageKnown(Usage(input_tokens=9, output_tokens=3))


_BLOCKS = st.lists(st.one_of(st.builds(Text, st.text()), st.builds(Thought, st.text()), st.just(CALL)), max_size=4)


@given(st.lists(_BLOCKS, min_size=1, max_size=4), st.booleans())
def test_nothing_is_lost(rounds: list[list[Text | Thought | ToolCall]], join_text: bool) -> None:
    said = spliced(*(round_of(*each) for each in rounds), join_text=join_text)
    content = fold(said).content
    for kind in (Text, Thought):
        asked = "".join(b.text for each in rounds for b in each if isinstance(b, kind))
        assert "".join(b.text for b in content if isinstance(b, kind)) == asked
    assert content.count(CALL) == sum(each.count(CALL) for each in rounds)


def test_blocks_that_overlap() -> None:
    events: list[TurnEvent] = [
        TurnStarted("m"),
        BlockStarted(0, BlockKind.TEXT),
        BlockStarted(1, BlockKind.TOOL_CALL, "c", "n"),
        BlockDelta.of(0, "a"),
        BlockEnded(0),
        BlockDelta.of(1, "{}"),
        BlockEnded(1),
        TurnEnded(Stop.MAX_TOKENS, Usage()),
    ]
    assert fold(spliced(events, round_of(Text("b")), join_text=True)).content == (Text("a"), CALL, Text("b"))


def test_a_builder_feeds_it() -> None:
    builder = TurnBuilder()
    events = [*builder.start("m", Usage()), *builder.text([b"a"]), *builder.end(Stop.END, Usage())]
    assert fold(spliced(events)).content == (Text("a"),)
