"""Thoughts between tags: the same blocks wherever the answer was cut into pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.turns import RESULT, cut_finer, joined, through
from kirostream.errors import StreamCut
from kirostream.filters import FilterSettings, emulate, event_filters
from kirostream.filters.thinking import MOST, TAGS, Handling, ThinkingSplitter, ask_for_thoughts, budget
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
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Sampling, Text, Thinking, Thought, ToolCall, TurnRequest
from kirostream.turn.result import AnswerBlock, TurnResult, fold, unfold
from kirostream.turn.usage import Usage

PLAIN, NATIVE = Model("m"), Model("n", efforts=("low", "high"))
ASK = TurnRequest(
    model="m",
    messages=(Message(Role.USER, (Text("hi"),)),),
    system=(Text("Be kind."),),
    thinking=Thinking(enabled=True),
)
ON = FilterSettings(thinking_tags=True)
CALL = ToolCall("c", "Read", b'{"path":"<thinking>"}')
LIKELY = st.lists(
    st.sampled_from([*TAGS, *(f"</{tag[1:]}" for tag in TAGS), "<", "</", "<thin", "king>", " ", "\n", "a", "😀", "é"]),
    max_size=10,
).map("".join)


def answer(*content: Text | Thought | ToolCall) -> TurnResult:
    return TurnResult(content, Stop.END, Usage(output_tokens=100))


def split(text: str, handling: Handling = Handling.AS_REASONING) -> tuple[AnswerBlock, ...]:
    return fold(through(ThinkingSplitter(handling), unfold(answer(Text(text))))).content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("<thinking>Hm.</thinking>\n\nYes.", (Thought("Hm."), Text("Yes."))),
        ("\n <think>Hm.</think>Yes.", (Thought("Hm."), Text("Yes."))),
        ("<reasoning>Hm.</reasoning>", (Thought("Hm."),)),
        ("<thought>a </thinking> b</thought> c", (Thought("a </thinking> b"), Text("c"))),
        ("<thinking>cut o", (Thought("cut o"),)),
        ("<thinking>cut </think", (Thought("cut </think"),)),
        ("<thinking></thinking>a", (Thought(""), Text("a"))),
        ("<thinking>a</thinking><thinking>b</thinking>", (Thought("a"), Text("<thinking>b</thinking>"))),
        ("Yes. <thinking>Hm.</thinking>", (Text("Yes. <thinking>Hm.</thinking>"),)),
        ("<thinkin", (Text("<thinkin"),)),
        ("<thinker>no</thinker>", (Text("<thinker>no</thinker>"),)),
        ("  \n", (Text("  \n"),)),
        ("  yes", (Text("  yes"),)),
        ("", (Text(""),)),
    ],
)
def test_a_thought_at_the_start(text: str, content: tuple[Text | Thought, ...]) -> None:
    assert split(text) == content


@pytest.mark.parametrize(
    ("handling", "content"),
    [
        (Handling.AS_REASONING, (Thought("Hm. <b>"), Text("Yes."))),
        (Handling.REMOVE, (Text("Yes."),)),
        (Handling.STRIP, (Text("Hm. <b>\n\nYes."),)),
    ],
)
def test_handlings(handling: Handling, content: tuple[Text | Thought, ...]) -> None:
    assert split("<think>Hm. <b></think>\n\nYes.", handling) == content


def test_an_answer_that_is_all_thought_may_be_removed() -> None:
    assert split("<think>Hm.</think>\n", Handling.REMOVE) == ()


@pytest.mark.parametrize("handling", [h for h in Handling if h is not Handling.PASS])
def test_a_thought_without_words_and_an_answer_in_the_next_piece(handling: Handling) -> None:
    deltas = [BlockDelta.of(0, "<think></think>"), BlockDelta.of(0, "<think>")]
    events: list[TurnEvent] = [TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), *deltas, BlockEnded(0)]
    said = through(ThinkingSplitter(handling), [*events, TurnEnded(Stop.END, Usage())])
    assert [event.text for event in said if isinstance(event, BlockDelta)] == ["<think>"]


@given(st.data(), LIKELY, st.sampled_from([h for h in Handling if h is not Handling.PASS]))
def test_any_cut_gives_the_same_events(data: st.DataObject, text: str, handling: Handling) -> None:
    whole = list(unfold(answer(Text(text), CALL, Text(text))))
    cut = data.draw(cut_finer(whole))
    expected = joined(through(ThinkingSplitter(handling), whole))
    assert joined(through(ThinkingSplitter(handling), cut)) == expected
    assert joined(ThinkingSplitter(handling).take(cut)) == expected


@given(st.data(), LIKELY)
def test_nothing_is_lost(data: st.DataObject, text: str) -> None:
    """Against the definition, without any streaming."""
    words = text.lstrip()
    tag = next((tag for tag in TAGS if words.startswith(tag)), "")
    thought, _, rest = words.removeprefix(tag).partition(f"</{tag[1:]}") if tag else ("", "", text)
    said = fold(through(ThinkingSplitter(), data.draw(cut_finer(unfold(answer(Text(text))))))).content
    thoughts = "".join(block.text for block in said if isinstance(block, Thought))
    texts = "".join(block.text for block in said if isinstance(block, Text))
    assert (thoughts, texts) == (thought, rest.lstrip() if tag else text)


@given(RESULT)
def test_an_answer_without_tags_stays_what_it_is(result: TurnResult) -> None:
    assert fold(through(ThinkingSplitter(), unfold(result))) == result


def test_native_thinking_comes_first_and_stays() -> None:
    result = answer(Thought("native", "sig"), Text("<thinking>mine</thinking>"))
    assert fold(through(ThinkingSplitter(), unfold(result))) == result


def test_blocks_that_overlap_keep_their_texts() -> None:
    said = through(
        ThinkingSplitter(),
        [
            TurnStarted(),
            BlockStarted(0, BlockKind.TEXT),
            BlockDelta.of(0, "<thi"),
            BlockStarted(1, BlockKind.TOOL_CALL, "c", "Read"),
            BlockDelta.of(0, "nk>Hm.</think>Yes."),
            BlockDelta.of(1, "{}"),
            BlockEnded(0),
            BlockEnded(1),
            TurnEnded(Stop.TOOL_CALL, Usage()),
        ],
    )
    assert fold(said).content == (ToolCall("c", "Read", b"{}"), Thought("Hm."), Text("Yes."))


def test_what_cannot_be_a_tag_passes_as_it_came() -> None:
    splitter = ThinkingSplitter()
    splitter.take([TurnStarted(), BlockStarted(0, BlockKind.TEXT), BlockDelta.of(0, "<think>Hm")])
    pieces = (b"one", b" t\\u0077o")
    assert splitter.take([BlockDelta(0, (b"one", b"two"))]) == [BlockDelta(0, (b"one", b"two"))]
    splitter.take([BlockDelta.of(0, "</think>Yes")])
    assert splitter.take([BlockDelta(0, pieces)]) == [BlockDelta(1, pieces)]


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (["<thin"], [BlockStarted(0, BlockKind.TEXT), BlockDelta.of(0, "<thin")]),
        (["<think>a</th"], [BlockStarted(0, BlockKind.THINKING), BlockDelta.of(0, "a"), BlockDelta.of(0, "</th")]),
    ],
)
def test_a_turn_that_fails_says_what_was_held(pieces: list[str], said: list[TurnEvent]) -> None:
    failed = TurnFailed(StreamCut("cut"))
    events: list[TurnEvent] = [TurnStarted(), BlockStarted(0, BlockKind.TEXT)]
    events += [*(BlockDelta.of(0, piece) for piece in pieces), failed]
    assert through(ThinkingSplitter(), events) == [TurnStarted(), *said, failed]


def test_the_thought_is_counted() -> None:
    text = f"<think>{'x' * 360}</think>yes"
    events = [*unfold(answer(Text(text)))]
    events.insert(-1, UsageKnown(Usage(output_tokens=100)))
    said = through(ThinkingSplitter(), events)
    assert [e.usage.thinking_tokens for e in said if isinstance(e, UsageKnown | TurnEnded)] == [100, 100]
    removed = fold(through(ThinkingSplitter(Handling.REMOVE), unfold(answer(Text(text)))))
    assert removed.usage.thinking_tokens == 0


@pytest.mark.parametrize(
    ("thinking", "max_tokens", "tokens"),
    [
        (Thinking(enabled=True), None, 4000),
        (Thinking(enabled=True, budget=1024), None, 1024),
        (Thinking(enabled=True, budget=200_000), None, MOST),
        (Thinking(enabled=True, effort="low"), 10_000, 2000),
        (Thinking(enabled=True, effort="high"), None, 3277),
        (Thinking(enabled=True, effort="max"), 128_000, MOST),
        (Thinking(enabled=True, effort="strange"), 10_000, 4000),
        (Thinking(enabled=True, effort="minimal"), 1, 1),
    ],
)
def test_the_length_that_is_asked_for(thinking: Thinking, max_tokens: int | None, tokens: int) -> None:
    request = replace(ASK, thinking=thinking, sampling=Sampling(max_tokens=max_tokens))
    assert budget(request, 4000) == tokens
    assert f"<max_thinking_length>{tokens}</max_thinking_length>" in ask_for_thoughts(request, 4000).system[-1].text


def test_tags_are_for_who_asks_and_cannot_have_better() -> None:
    asked = emulate(ASK, PLAIN, ON)
    assert asked.system[0] == Text("Be kind.")
    assert "<thinking_mode>" in asked.system[1].text
    (splitter,) = event_filters(ASK, PLAIN, ON)
    assert isinstance(splitter, ThinkingSplitter)
    silent = replace(ASK, thinking=Thinking())
    for request, model, settings in ((ASK, NATIVE, ON), (silent, PLAIN, ON), (ASK, PLAIN, FilterSettings())):
        assert emulate(request, model, settings) is request
        assert event_filters(request, model, settings) == []


def test_passing_needs_no_filter() -> None:
    settings = FilterSettings(thinking_tags=True, thinking_handling="pass")
    assert event_filters(ASK, PLAIN, settings) == []
    assert emulate(ASK, PLAIN, settings) is not ASK


def test_thoughts_are_split_before_limits_count() -> None:
    chain = event_filters(replace(ASK, sampling=Sampling(stop=("STOP",))), PLAIN, ON)
    assert [type(each).__name__ for each in chain] == ["ThinkingSplitter", "Limits"]
