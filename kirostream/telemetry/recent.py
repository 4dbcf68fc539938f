"""The last hour, minute by minute, and what last went wrong on each account: what a panel shows at a glance.

A sink like the others. It holds sixty small records, so it needs no database and costs a turn nothing to speak of.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.telemetry.facts import AttemptFailed, Fact, RefreshFailed, TurnFinished

MINUTES: Final = 60
TROUBLES: Final = 256
"""Accounts whose last error is kept."""


@dataclass(slots=True)
class Minute:
    """What ended in one minute. `at` is its beginning, unix seconds; `first_events` are seconds, summed up."""

    at: int
    turns: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    credits: float = 0.0
    first_events: float = 0.0
    heard: int = 0
    """Turns that had a first event."""
    own: float = 0.0
    """Seconds of the gateway's own in the times to the first event, summed up."""
    owned: int = 0
    """Turns of which that is known."""

    def add(self, turn: TurnFinished) -> None:
        """Count a turn in."""
        self.turns += 1
        self.failed += turn.outcome == "failed"
        self.input_tokens += turn.input_tokens
        self.output_tokens += turn.output_tokens
        self.credits += turn.credits or 0.0
        if turn.first_event is not None:
            self.first_events += turn.first_event
            self.heard += 1
        if turn.own_first is not None:
            self.own += turn.own_first
            self.owned += 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last error of an account. `at` is in unix seconds."""

    at: float
    message: str


class Recent:
    """A sink. Call it with facts of its `KINDS`.

    Args:
        clock: unix seconds.
    """

    KINDS: Final = (TurnFinished, AttemptFailed, RefreshFailed)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._troubles: OrderedDict[str, Trouble] = OrderedDict()
        self.total = Minute(int(clock()))
        """Everything since the start."""

    def __repr__(self) -> str:
        return f"<Recent {self.total.turns} turns>"

    def __call__(self, fact: Fact) -> None:
        """Take a fact in."""
        if isinstance(fact, TurnFinished):
            at = int(self._clock()) // 60 * 60
            if not self._minutes or self._minutes[-1].at < at:
                self._minutes.append(Minute(at))
            self._minutes[-1].add(fact)
            self.total.add(fact)
        elif isinstance(fact, RefreshFailed) or (isinstance(fact, AttemptFailed) and fact.blame != "client"):
            self._troubles[fact.account] = Trouble(self._clock(), fact.message)
            self._troubles.move_to_end(fact.account)
            if len(self._troubles) > TROUBLES:
                self._troubles.popitem(last=False)

    def minutes(self) -> list[Minute]:
        """The last hour, oldest first, the minutes in which nothing ended too. The last one is still going on."""
        now = int(self._clock()) // 60 * 60
        known = {minute.at: minute for minute in self._minutes}
        return [known.get(at) or Minute(at) for at in range(now - 60 * (MINUTES - 1), now + 1, 60)]

    def trouble(self, account: str) -> Trouble | None:
        """What last went wrong on the account of this label."""
        return self._troubles.get(account)
