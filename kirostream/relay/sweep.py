"""One look at the deadlines of all tries, in place of a timer for each.

Theory. A deadline of Trio's is an entry in a heap, made, moved and taken out again: with every try three times, and
moved with what is read. But hardly one of them ever comes. So a deadline here is a number in its owner, which the owner
changes at no cost, and one task that sleeps until the earliest of them that it has seen (`Sweep.next`). Mostly that one
has gone or moved on by then; the task looks at all that are left, tells those that are due, and sleeps again. Only who
wants to be looked at earlier than that has to wake it.

A deadline passes when it says, not at the next tick. The task is a system task: it belongs to the run, and ends with
that.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import trio


class Timed(Protocol):
    """Something with a deadline.

    Attributes:
        at: when it passes, in Trio's time; inf for never. Whoever brings it forward says so: `Sweep.sooner`.
    """

    at: float

    def due(self, now: float) -> None:
        """The deadline has passed: do what is to be done, or move it. It must not wait, or raise."""


class Sweep:
    """Looks after the deadlines of one run. See `current_sweep`.

    Attributes:
        next: when it looks next; no deadline is earlier.
    """

    def __init__(self) -> None:
        self.next = math.inf
        self._timed: dict[Timed, None] = {}
        self._sleep = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._run)

    def __repr__(self) -> str:
        return f"<Sweep of {len(self._timed)} deadlines, next {self.next:g}>"

    def add(self, timed: Timed) -> None:
        """Look after `timed`, until `remove`."""
        self._timed[timed] = None
        if timed.at < self.next:
            self.sooner(timed.at)

    def remove(self, timed: Timed) -> None:
        """Forget `timed`."""
        del self._timed[timed]

    def sooner(self, at: float) -> None:
        """Look at `at` at the latest."""
        if at < self.next:
            self.next = self._sleep.deadline = at

    async def _run(self) -> None:
        while True:
            with self._sleep:
                self._sleep.deadline = self.next
                await trio.sleep_forever()
            self._sleep = trio.CancelScope()
            now = trio.current_time()
            self.next = math.inf
            for timed in [timed for timed in self._timed if timed.at <= now]:
                timed.due(now)
            self.next = min((timed.at for timed in self._timed), default=math.inf)


_SWEEP: Final[trio.lowlevel.RunVar[Sweep]] = trio.lowlevel.RunVar("sweep")


def current_sweep() -> Sweep:
    """That of this run, made when it is first asked for."""
    try:
        return _SWEEP.get()
    except LookupError:
        made = Sweep()
        _SWEEP.set(made)
        return made
