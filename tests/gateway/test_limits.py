"""What a key may use, with numbers for both clocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.gateway.limits import NEXT_SLOT, Bucket, Calendar, Limits, Meter, Refusal

TODAY = Calendar(day=86_400.0, day_left=3600.0, month=0.0, month_left=7200.0)
TOMORROW = Calendar(day=172_800.0, day_left=86_400.0, month=0.0, month_left=3600.0)
NEXT_MONTH = Calendar(day=259_200.0, day_left=86_400.0, month=259_200.0, month_left=1e6)


def test_a_bucket_is_full_at_first_and_fills_evenly() -> None:
    bucket = Bucket(60, now=0.0)
    for _ in range(60):
        assert bucket.wait(0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait(0.0) == 1.0
    assert bucket.wait(0.25) == 0.75
    assert bucket.wait(1.0) == 0
    bucket.take(1, 1.0)
    assert bucket.wait(1.0) == 1.0
    assert bucket.wait(1000.0) == 0
    bucket.take(60, 1000.0)  # it never holds more than a minute's worth
    assert bucket.wait(1000.0) == 1.0


def test_a_bucket_may_be_in_debt() -> None:
    bucket = Bucket(600, now=0.0)
    bucket.take(1200, 0.0)
    assert bucket.wait(0.0) == pytest.approx(60.1)
    bucket.take(-600, 0.0)  # it was less after all
    assert bucket.wait(0.0) == pytest.approx(0.1)
    bucket.take(-1e9, 0.0)
    assert bucket.wait(0.0) == 0


def test_another_size_keeps_what_was_taken() -> None:
    bucket = Bucket(60, now=0.0)
    bucket.take(60, 0.0)
    bucket.resize(120, 0.0)
    assert bucket.wait(0.0) == 0  # 60 of 120 are left
    bucket.resize(30, 0.0)
    assert bucket.wait(0.0) == pytest.approx(31 * 2)  # 30 too many were taken


@settings(max_examples=60, deadline=None)
@given(
    a_minute=st.integers(1, 600),
    arrivals=st.lists(st.floats(0, 90, allow_nan=False), min_size=1, max_size=80).map(sorted),
)
def test_no_minute_has_more_than_two_minutes_worth_and_the_wait_is_true(a_minute: int, arrivals: list[float]) -> None:
    meter = Meter(Limits(requests=a_minute), now=0.0)
    let_in: list[float] = []
    for now in arrivals:
        refusal = meter.refusal(now, TODAY)
        if refusal is None:
            meter.begin(0, now)
            meter.end(0, 0, 0.0, now, TODAY)
            let_in.append(now)
            continue
        assert meter.refusal(now + refusal.seconds * 0.98, TODAY) is not None
        probe = Meter(Limits(requests=a_minute), now=0.0)
        for at in let_in:
            probe.begin(0, at)
        assert probe.refusal(now + refusal.seconds + 1e-6, TODAY) is None
    for start in let_in:
        assert sum(start <= at < start + 60 for at in let_in) <= 2 * a_minute


def test_turns_at_once() -> None:
    meter = Meter(Limits(concurrency=2), now=0.0)
    meter.begin(0, 0.0)
    assert meter.refusal(0.0, TODAY) is None
    meter.begin(0, 0.0)
    assert meter.refusal(0.0, TODAY) == Refusal("concurrency", 2, NEXT_SLOT)
    meter.end(0, 0, 0.0, 0.0, TODAY)
    assert meter.refusal(0.0, TODAY) is None


def tokens(missing: int) -> Refusal:
    """Of 1000 a minute so many are missing."""
    return Refusal("tokens", 1000, missing * 60 / 1000)


def test_tokens_are_taken_as_expected_and_settled_at_the_end() -> None:
    meter = Meter(Limits(tokens=1000), now=0.0)
    meter.begin(900, 0.0)
    assert meter.refusal(0.0, TODAY) is None  # 100 are left
    meter.begin(900, 0.0)
    assert meter.refusal(0.0, TODAY) == tokens(801)
    meter.end(900, 100, 0.0, 0.0, TODAY)  # it took less
    assert meter.refusal(0.0, TODAY) == tokens(1)
    meter.end(900, 2000, 0.0, 0.0, TODAY)  # it took more
    assert meter.refusal(0.0, TODAY) == tokens(1101)


def test_credits_go_by_the_calendar() -> None:
    meter = Meter(Limits(credits_per_day=1.0, credits_per_month=3.0), now=0.0)
    meter.recall(TODAY, day=0.5, month=1.5)
    assert meter.refusal(0.0, TODAY) is None
    meter.begin(0, 0.0)
    meter.end(0, 0, 0.75, 0.0, TODAY)
    assert meter.refusal(0.0, TODAY) == Refusal("credits_per_day", 1.0, 3600.0)
    assert meter.refusal(0.0, TOMORROW) is None
    assert meter.spent(TOMORROW) == (0.0, 2.25)
    meter.begin(0, 0.0)
    meter.end(0, 0, 0.75, 0.0, TOMORROW)
    assert meter.refusal(0.0, TOMORROW) == Refusal("credits_per_month", 3.0, 3600.0)
    assert meter.refusal(0.0, NEXT_MONTH) is None


def test_of_several_reasons_the_longest_is_told() -> None:
    meter = Meter(Limits(concurrency=1, requests=1, credits_per_day=1.0), now=0.0)
    meter.begin(0, 0.0)
    assert meter.refusal(0.0, TODAY) == Refusal("requests", 1, 60.0)
    meter.end(0, 0, 1.0, 0.0, TODAY)
    assert meter.refusal(0.0, TODAY) == Refusal("credits_per_day", 1.0, 3600.0)


def test_other_limits_for_a_key_that_is_used() -> None:
    meter = Meter(Limits(requests=1), now=0.0)
    meter.begin(0, 0.0)
    meter.adopt(Limits(concurrency=1), 0.0)
    assert meter.refusal(0.0, TODAY) == Refusal("concurrency", 1, NEXT_SLOT)
    meter.end(0, 0, 0.0, 0.0, TODAY)
    meter.adopt(Limits(tokens=10), 0.0)
    assert meter.refusal(0.0, TODAY) is None
    meter.adopt(Limits(), 0.0)
    assert meter.refusal(0.0, TODAY) is None


@pytest.mark.parametrize("wrong", [-1, math.inf, math.nan])
def test_a_figure_that_is_none(wrong: float) -> None:
    with pytest.raises(ValueError, match="credits_per_day"):
        Limits(credits_per_day=wrong)
    assert not Limits()
    assert Limits(requests=1)
