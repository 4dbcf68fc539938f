"""What is learned of a tokenizer, and what is not believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import StreamCut
from kirostream.turn.calibration import ENOUGH, KEPT, LEAST, MOST, SMALLEST, Calibration, family
from kirostream.turn.events import Stop, TurnEnded, TurnEvent, TurnFailed, TurnStarted
from kirostream.turn.model import Model
from kirostream.turn.usage import Usage

NAME = "claude-sonnet-4.5"
MODEL = Model(NAME, window=200_000)


def taught(*ratios: float, model: str = NAME) -> Calibration:
    calibration = Calibration()
    for ratio in ratios:
        calibration.learn(model, 10_000, 10_000 * ratio)
    return calibration


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("Claude-Sonnet-4.5-1m", "claude-sonnet-4.5"),
        ("claude-opus-5", "claude-opus-5"),
        ("gpt-5.6-mini", "gpt-5.6"),
        ("qwen3-coder-next", "qwen3"),
        ("auto", "auto"),
        ("", ""),
    ],
)
def test_families(model: str, name: str) -> None:
    assert family(model) == name


def test_a_few_prompts_are_needed() -> None:
    assert taught(*[1.3] * (ENOUGH - 1)).correction(NAME) == 1.0
    assert taught(*[1.3] * ENOUGH).correction(NAME) == pytest.approx(1.3)


def test_families_are_apart() -> None:
    calibration = taught(1.3, 1.3, 1.3)
    assert calibration.correction("claude-sonnet-4.5-thinking") == pytest.approx(1.3)
    assert calibration.correction("claude-opus-4.7") == 1.0


def test_what_is_learned_is_forgotten_in_time() -> None:
    assert taught(*[0.8] * KEPT, *[1.4] * KEPT).correction(NAME) == pytest.approx(1.4)


@given(st.lists(st.floats(LEAST, MOST), max_size=KEPT // 2))
def test_wrong_turns_do_not_move_it_beyond_right_ones(wrong: list[float]) -> None:
    right = [1.2] * (KEPT // 2 + 1)
    assert taught(*right, *wrong).correction(NAME) == pytest.approx(1.2)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_whatever_is_seen_the_correction_is_in_bounds(observed: list[float]) -> None:
    calibration = Calibration()
    for each in observed:
        calibration.learn(NAME, 10_000, each)
    assert LEAST <= calibration.correction(NAME) <= MOST


def test_small_prompts_say_nothing() -> None:
    assert not Calibration().learn(NAME, SMALLEST - 1, SMALLEST)
    assert Calibration().learn(NAME, SMALLEST, SMALLEST)


def test_it_lives_on() -> None:
    once = taught(1.1, 1.2, 1.3)
    again = Calibration(once.ratios)
    assert again.ratios == once.ratios
    assert again.correction(NAME) == pytest.approx(1.2)
    assert Calibration({NAME: [99.0, -1.0, float("nan")] * 3}).correction(NAME) == 1.0
    assert "x1.20" in repr(again)


GUESS = TurnStarted("m", Usage(input_tokens=10_000, estimated=True))


def ended(**usage: float | bool) -> TurnEnded:
    return TurnEnded(Stop.END, Usage(**usage))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "last", "ratio"),
    [
        (GUESS, ended(input_tokens=2_000, cache_read_tokens=9_000, output_tokens=5), 1.1),
        (GUESS, ended(input_tokens=10_000, output_tokens=1_000, context_percentage=7.0, estimated=True), 1.3),
        (GUESS, ended(input_tokens=10_000, output_tokens=1_000, context_percentage=5.0, estimated=True), 0.9),
    ],
)
def test_an_answer_is_learned_from(first: TurnEvent, last: TurnEvent, ratio: float) -> None:
    calibration = Calibration()
    assert calibration.watch(MODEL, [first, last])
    assert calibration.ratios[NAME] == pytest.approx([ratio])


def test_the_ratio_is_to_the_estimate_as_it_was_without_correction() -> None:
    calibration = Calibration()
    assert calibration.watch(Model(NAME, correction=1.25), [GUESS, ended(input_tokens=9_600)])
    assert calibration.ratios[NAME] == pytest.approx([1.2])


@pytest.mark.parametrize(
    "events",
    [
        [],
        [GUESS],
        [GUESS, ended(input_tokens=10_000, estimated=True)],
        [GUESS, ended(context_percentage=100.0, estimated=True)],
        [GUESS, TurnFailed(StreamCut("gone"))],
        [TurnStarted("m", Usage(input_tokens=10_000)), ended(input_tokens=11_000)],
        [TurnStarted("m", Usage(input_tokens=10_000, context_percentage=5, estimated=True)), ended(input_tokens=9_000)],
    ],
)
def test_what_cannot_be_learned_from(events: list[TurnEvent]) -> None:
    calibration = Calibration()
    assert not calibration.watch(MODEL, events)
    assert calibration.ratios == {}
