"""What of a turn's time is our own, by a clock that the test moves."""

from __future__ import annotations

import pytest

from kirostream.relay import spent
from kirostream.relay.spent import Spent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(spent, "perf_counter", made)
    return made


def take(of: Spent, clock: Clock, *, heard: bool = True) -> None:
    came = clock()
    clock.passes(0.25)
    of.took(came, heard=heard)


def test_what_is_waited_for_is_not_ours(clock: Clock) -> None:
    of = Spent()
    clock.passes(1)  # reading the request
    of.asking()
    assert (of.first, of.token) == (None, None)
    clock.passes(8)
    take(of, clock, heard=False)  # a head, and nothing of the answer yet
    assert of.first is None
    clock.passes(8)
    take(of, clock)
    assert of.first == 1.5
    assert of.so_far() == (1.5, 16.0)
    clock.passes(16)
    take(of, clock)
    assert of.first == 1.5
    assert (of.takes, of.token) == (3, 0.25)
    clock.passes(2)  # writing the answer
    assert of.so_far() == (3.75, 32.0)


def test_a_try_that_failed_was_waited_for(clock: Clock) -> None:
    of = Spent()
    clock.passes(1)
    of.asking()
    clock.passes(30)
    of.asking()
    clock.passes(4)
    take(of, clock)
    assert of.so_far() == (1.25, 34.0)
