"""What a dialect's writer says, its reader hears: every canonical turn, in three cuts, under the grammar.

What a dialect cannot say is in `LOSSES`; `heard` takes the same out of the original before the two are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuts import bytewise, cuts
from helpers.turns import RESULT
from kirostream.dialects import DIALECTS
from kirostream.dialects.openai_responses.response import REFUSAL
from kirostream.errors import ContextOverflow, StreamCut, UpstreamOverloaded
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
)
from kirostream.turn.grammar import Grammar
from kirostream.turn.model import Model
from kirostream.turn.request import SearchCall, SearchOutcome, Text, Thought, ToolCall
from kirostream.turn.result import AnswerBlock, TurnResult, fold, unfold
from kirostream.turn.usage import Usage
from vectors.regenerate import CLIENT_DIALECTS, HEADING, REQUEST, turns

LOSSES: Final[Mapping[str, frozenset[str]]] = {
    # No dialect of a client knows credits, shares of a window, or that a count is an estimate.
    "anthropic": frozenset({"metering"}),
    # Chat says text, thoughts and calls, in no order; it does not say who signed, what was hidden, or which stop.
    "openai_chat": frozenset({"metering", "signature", "redacted", "order", "stop", "calls_win", "searches"}),
    # Responses says everything in order, and has fewer words for the end; a refusal gets a text of its own. A search
    # is one item, by an id of its own, and says what it found only where that is asked for.
    "openai_responses": frozenset({"metering", "stop", "refusal", "pages"}),
}
CHAT_STOPS: Final = {Stop.STOP_SEQUENCE: Stop.END, Stop.PAUSED: Stop.END, Stop.CONTEXT_FULL: Stop.MAX_TOKENS}
ENDS: Final = {
    "anthropic": b"event: message_delta",
    "openai_chat": b'"delta":{}',
    "openai_responses": b"event: response.",
}
"""Where the stop reason begins, the last of its kind in the stream."""
MODEL: Final = Model(REQUEST.model)
TURNS: Final = turns()
WHOLE: Final = [case for case, events in TURNS.items() if isinstance(events[-1], TurnEnded)]

in_each_dialect = pytest.mark.parametrize("name", CLIENT_DIALECTS)


def write(name: str, events: Iterable[TurnEvent]) -> bytes:
    writer = DIALECTS[name].writer(REQUEST, HEADING)
    return b"".join(block for event in events for block in writer.write(event))


def read(name: str, pieces: Iterable[bytes]) -> list[TurnEvent]:
    reader = DIALECTS[name].reader(REQUEST, MODEL)
    events = [event for piece in pieces for event in reader.feed(piece)]
    events += reader.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def heard(name: str, result: TurnResult) -> TurnResult:
    """`result` as far as the dialect can say it. Stops that do not fit the content are put right, as writers do."""
    losses = LOSSES[name]
    called = any(isinstance(block, ToolCall) for block in result.content)
    stop, stop_sequence = result.stop, result.stop_sequence
    if "stop" in losses:
        stop, stop_sequence = CHAT_STOPS.get(stop, stop), ""
    if "calls_win" in losses and called:
        stop = Stop.TOOL_CALL
    if stop in (Stop.END, Stop.TOOL_CALL):
        stop = Stop.TOOL_CALL if called else Stop.END
    content = result.content
    if "searches" in losses:
        content = tuple(block for block in content if not isinstance(block, SearchCall | SearchOutcome))
    if "pages" in losses:
        content = tuple(map(_without_pages, content))
    if "redacted" in losses:
        content = tuple(block for block in content if not (isinstance(block, Thought) and block.redacted))
    if "order" in losses:
        content = in_order(content)
    if "refusal" in losses and stop is Stop.REFUSED:
        content = (*content, Text(REFUSAL))
    usage = dataclasses.replace(result.usage, credits=None, context_percentage=None, estimated=False)
    if name != "anthropic":
        usage = dataclasses.replace(usage, searches=0)
    return TurnResult(content, stop, usage, REQUEST.model, stop_sequence)


def _without_pages(block: AnswerBlock) -> AnswerBlock:
    match block:
        case SearchCall():
            return dataclasses.replace(block, id="")
        case SearchOutcome(error=error) if error:
            return SearchOutcome("", (), "unavailable")
        case SearchOutcome():
            return SearchOutcome("", None)
        case _:
            return block


def in_order(content: Sequence[AnswerBlock]) -> tuple[AnswerBlock, ...]:
    """One thought, one text, the calls: what is left where blocks have no order and thoughts no signature."""
    thought = "".join(block.text for block in content if isinstance(block, Thought))
    text = "".join(block.text for block in content if isinstance(block, Text))
    calls = [block for block in content if isinstance(block, ToolCall)]
    return (*([Thought(thought)] if thought else []), *([Text(text)] if text else []), *calls)


def understood(name: str, result: TurnResult) -> TurnResult:
    """What was read, in the form that `heard` gives."""
    if "order" in LOSSES[name]:
        return dataclasses.replace(result, content=in_order(result.content))
    if "pages" in LOSSES[name]:
        return dataclasses.replace(result, content=tuple(map(_without_pages, result.content)))
    return result


@in_each_dialect
@pytest.mark.parametrize("case", WHOLE)
def test_a_turn_comes_back_whole_and_byte_by_byte(name: str, case: str) -> None:
    wire = write(name, TURNS[case])
    expected = heard(name, fold(TURNS[case]))
    assert understood(name, fold(read(name, [wire]))) == expected
    assert understood(name, fold(read(name, bytewise(wire)))) == expected


@in_each_dialect
@given(data=st.data())
def test_a_turn_comes_back_in_any_cut(name: str, data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(WHOLE))
    wire = write(name, TURNS[case])
    assert read(name, data.draw(cuts(wire))) == read(name, [wire])


@in_each_dialect
@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_answer_is_the_streamed_one(name: str, case: str) -> None:
    dialect = DIALECTS[name]
    whole = dialect.read_result(dialect.write_result(REQUEST, fold(TURNS[case]), HEADING))
    streamed = fold(read(name, [write(name, TURNS[case])]))
    assert understood(name, whole) == understood(name, streamed)


@in_each_dialect
@given(result=RESULT)
def test_any_turn_comes_back(name: str, result: TurnResult) -> None:
    dialect = DIALECTS[name]
    expected = heard(name, result)
    assert understood(name, fold(read(name, [write(name, unfold(result))]))) == expected
    assert understood(name, dialect.read_result(dialect.write_result(REQUEST, result, HEADING))) == expected


@in_each_dialect
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=()), min_size=1), min_size=1, max_size=4),
    kind=st.sampled_from([BlockKind.TEXT, BlockKind.THINKING]),
)
def test_any_text_comes_back(name: str, texts: list[str], kind: BlockKind) -> None:
    """Also control characters, CJK, emoji, line separators; half a surrogate pair comes back as U+FFFD."""
    delta = BlockDelta(0, tuple(piece for text in texts for piece in BlockDelta.of(0, text).pieces))
    events: list[TurnEvent] = [TurnStarted(), BlockStarted(0, kind), delta, BlockEnded(0), TurnEnded(Stop.END, Usage())]
    (block,) = fold(read(name, [write(name, events)])).content
    assert isinstance(block, Text | Thought)
    assert block.text == "".join(
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts
    )


@in_each_dialect
def test_a_failed_turn_fails_again(name: str) -> None:
    *said, last = read(name, [write(name, TURNS["failed"])])
    assert isinstance(last, TurnFailed)
    assert isinstance(last.error, UpstreamOverloaded)
    assert [event.text for event in said if isinstance(event, BlockDelta)] == ["So far", "so good"]


@in_each_dialect
def test_an_overflow_keeps_its_counts(name: str) -> None:
    *_, event = read(name, [write(name, TURNS["failed_at_once"])])
    assert isinstance(event, TurnFailed)
    assert isinstance(event.error, ContextOverflow)
    assert (event.error.tokens, event.error.limit) == (250_000, 200_000)


@in_each_dialect
@pytest.mark.parametrize("case", WHOLE)
def test_a_stream_that_is_cut_before_its_stop_is_not_whole(name: str, case: str) -> None:
    """Behind the stop reason a turn counts as whole, as it does for the clients; before it, never."""
    wire = write(name, TURNS[case])
    stop = wire.rindex(ENDS[name])
    for end in {0, 1, stop // 3, stop // 2, stop - 1, stop}:
        reader = DIALECTS[name].reader(REQUEST, MODEL)
        reader.feed(wire[:end])
        with pytest.raises(StreamCut):
            reader.close()


@in_each_dialect
@pytest.mark.parametrize("case", WHOLE)
def test_a_heartbeat_between_any_two_blocks_says_nothing(name: str, case: str) -> None:
    writer = DIALECTS[name].writer(REQUEST, HEADING)
    wire = writer.heartbeat()
    for event in TURNS[case]:
        for block in writer.write(event):
            wire += block + writer.heartbeat()
    assert read(name, [wire]) == read(name, [write(name, TURNS[case])])


@in_each_dialect
@pytest.mark.parametrize("case", TURNS)
def test_a_writer_is_deterministic(name: str, case: str) -> None:
    assert write(name, TURNS[case]) == write(name, TURNS[case])


@in_each_dialect
@given(steps=st.lists(st.tuples(st.sampled_from(["start", "more", "end"]), st.integers(0, 9)), max_size=20))
def test_overlapping_calls_lose_nothing(name: str, steps: list[tuple[str, int]]) -> None:
    """Calls that overlap in any way are written as the calls they are."""
    events: list[TurnEvent] = [TurnStarted()]
    said: list[str] = []
    open_calls: list[int] = []
    for step, pick in steps:
        if step == "start":
            index = len(said)
            said.append("")
            open_calls.append(index)
            events.append(BlockStarted(index, BlockKind.TOOL_CALL, f"id{index}", "tool"))
        elif open_calls:
            index = open_calls[pick % len(open_calls)]
            if step == "more":
                said[index] += f"{index} "
                events.append(BlockDelta.of(index, f"{index} "))
            else:
                open_calls.remove(index)
                events.append(BlockEnded(index))
    events += [*map(BlockEnded, open_calls), TurnEnded(Stop.TOOL_CALL, Usage())]
    calls = fold(read(name, [write(name, events)])).content
    assert calls == tuple(ToolCall(f"id{i}", "tool", text.encode() or b"{}") for i, text in enumerate(said))


@in_each_dialect
def test_a_call_whose_deltas_say_nothing_has_no_arguments(name: str) -> None:
    empty = BlockDelta(0, (b"", b""))
    call: list[TurnEvent] = [BlockStarted(0, BlockKind.TOOL_CALL, "id", "tool"), empty, BlockEnded(0)]
    wire = write(name, [TurnStarted(), *call, TurnEnded(Stop.TOOL_CALL, Usage())])
    assert fold(read(name, [wire])).content == (ToolCall("id", "tool", b"{}"),)
    # In chat the fragments themselves have to be JSON when joined; our reader would forgive what a client does not.
    assert name != "openai_chat" or wire.count(b'{"arguments":"{}"}') == 1


@pytest.mark.parametrize("case", TURNS)
def test_chat_says_no_usage_that_was_not_asked_for(case: str) -> None:
    writer = DIALECTS["openai_chat"].writer(dataclasses.replace(REQUEST, include_usage=False), HEADING)
    assert b"usage" not in b"".join(block for event in TURNS[case] for block in writer.write(event))


@in_each_dialect
def test_a_thousand_calls_held_back_are_written_at_once(name: str) -> None:
    count = 2_000
    started: list[TurnEvent] = [BlockStarted(i, BlockKind.TOOL_CALL, f"id{i}", "tool") for i in range(count)]
    ended: list[TurnEvent] = [BlockEnded(i) for i in reversed(range(count))]
    wire = write(name, [TurnStarted(), *started, *ended, TurnEnded(Stop.TOOL_CALL, Usage())])
    assert len(fold(read(name, [wire])).content) == count
