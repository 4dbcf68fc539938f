"""Deadlines that nobody has a timer for."""

from __future__ import annotations

import math

import trio
import trio.testing

from kirostream.relay.sweep import current_sweep


class Entry:
    """Notes when it was told, and moves its deadline as it was told to."""

    def __init__(self, at: float, *moves: float) -> None:
        self.at = at
        self.told: list[float] = []
        self._moves = list(moves)

    def due(self, now: float) -> None:
        self.told.append(now)
        self.at = self._moves.pop(0) if self._moves else math.inf


async def test_each_deadline_passes_when_it_says(autojump_clock: trio.testing.MockClock) -> None:
    sweep, start = current_sweep(), trio.current_time()
    late, soon, moved = Entry(start + 100), Entry(start + 7), Entry(start + 50, start + 60, start + 300)
    for entry in (late, soon, moved):
        sweep.add(entry)
    await trio.sleep(1000)
    assert [late.told, soon.told] == [[start + 100], [start + 7]]
    assert moved.told == [start + 50, start + 60, start + 300]
    for entry in (late, soon, moved):
        sweep.remove(entry)
    assert current_sweep() is sweep


async def test_a_deadline_that_moves_on_is_seen_late_and_one_brought_forward_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sweep, start = current_sweep(), trio.current_time()
    entry = Entry(start + 100)
    sweep.add(entry)
    entry.at = start + 200
    await trio.sleep(150)
    assert not entry.told
    entry.at = start + 160
    sweep.sooner(entry.at)
    await trio.sleep(20)
    assert entry.told == [start + 160]
    sweep.remove(entry)


async def test_who_is_gone_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    sweep = current_sweep()
    gone, next_one = Entry(trio.current_time() + 5), Entry(trio.current_time() + 8)
    sweep.add(gone)
    sweep.remove(gone)
    await trio.sleep(6)
    sweep.add(next_one)
    await trio.sleep(6)
    assert not gone.told
    assert len(next_one.told) == 1
    sweep.remove(next_one)
