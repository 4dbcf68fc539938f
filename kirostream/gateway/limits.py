"""What a key may use, and what it has used: turns at once, requests and tokens a minute, credits a day and a month.

Theory. A figure a minute is a bucket: it holds as much as a minute's worth, is full at the beginning, and fills at an
even rate. A request is let in while there is something in it, so a burst may take a whole minute's worth, and a steady
client gets exactly its rate. How long it takes until there is something again is known to the millisecond: that is the
``retry-after``. How many tokens a turn takes is known at its end: when it begins, its prompt is taken as estimated, and
at its end the difference; so a bucket may be in debt, and the wait is until it is out of it.

Credits are counted by the calendar. A turn that has begun ends, so the last one of a period may go over its budget.

Pure: whoever asks passes the time; `now` is of a clock that never jumps, and a `Calendar` is of the wall.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field
from typing import Final, Literal, NamedTuple

from kirostream.dataclass import dataclass

MINUTE: Final = 60.0
NEXT_SLOT: Final = 1.0
"""Seconds after which it makes sense to ask for a place again: one is free as soon as any turn of the key ends."""

Limit = Literal["concurrency", "requests", "tokens", "credits_per_day", "credits_per_month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one key may use; 0: as much as it likes.

    Raises:
        ValueError: a figure is none.
    """

    concurrency: int = field(default=0, metadata={"help": "Most turns at the same time.", "unit": "turns"})
    requests: int = field(default=0, metadata={"help": "Most requests a minute.", "unit": "requests"})
    tokens: int = field(default=0, metadata={"help": "Most tokens a minute, prompt and answer.", "unit": "tokens"})
    credits_per_day: float = field(default=0.0, metadata={"help": "Most credits a day (UTC).", "unit": "credits"})
    credits_per_month: float = field(default=0.0, metadata={"help": "Most credits a month (UTC).", "unit": "credits"})

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests", "tokens", "credits_per_day", "credits_per_month"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} takes a number of 0 or more")

    def __bool__(self) -> bool:
        return self != NONE

    @property
    def budgets(self) -> bool:
        """Whether there is a budget of credits."""
        return bool(self.credits_per_day or self.credits_per_month)


NONE: Final = Limits()


class Calendar(NamedTuple):
    """The periods that a moment lies in: where each begins, and how many seconds of it are left."""

    day: float
    day_left: float
    month: float
    month_left: float


class Refusal(NamedTuple):
    """Why a request is not let in, and after how many seconds it would be."""

    limit: Limit
    most: float
    seconds: float


class Bucket:
    """So much a minute."""

    def __init__(self, a_minute: float, now: float) -> None:
        self._size = self._level = a_minute
        self._at = now

    def __repr__(self) -> str:
        return f"<Bucket {self._level:.1f} of {self._size:g}>"

    def resize(self, a_minute: float, now: float) -> None:
        """Hold another minute's worth from now on; what was taken stays taken."""
        self._fill(now)
        self._level += a_minute - self._size
        self._size = a_minute

    def wait(self, now: float) -> float:
        """Seconds until there is one in it."""
        self._fill(now)
        missing = min(1.0, self._size) - self._level
        return max(0.0, missing * MINUTE / self._size)

    def take(self, amount: float, now: float) -> None:
        """Take so much, though it were not there; less than nothing is given back."""
        self._fill(now)
        self._level = min(self._size, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._size, self._level + (now - self._at) * self._size / MINUTE)
        self._at = now


class Meter:
    """What one key has used."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.in_flight = 0
        self._requests = Bucket(limits.requests, now) if limits.requests else None
        self._tokens = Bucket(limits.tokens, now) if limits.tokens else None
        self._day = self._month = -math.inf  # when the periods began that are counted
        self._spent_day = self._spent_month = 0.0
        self.recalled = False
        """Whether it is known what was spent before."""

    def __repr__(self) -> str:
        return f"<Meter {self.in_flight} in flight, {self._requests}, {self._tokens}, {self._spent_day:g} credits>"

    def adopt(self, limits: Limits, now: float) -> None:
        """Go by other limits from now on. What was used stays used."""
        self._requests = _adopted(self._requests, limits.requests, now)
        self._tokens = _adopted(self._tokens, limits.tokens, now)
        self.limits = limits

    def recall(self, calendar: Calendar, day: float, month: float) -> None:
        """Count from these credits on, which were spent in the periods so far."""
        self._day, self._month = calendar.day, calendar.month
        self._spent_day, self._spent_month = day, month
        self.recalled = True

    def spent(self, calendar: Calendar) -> tuple[float, float]:
        """Credits of the day and of the month."""
        if calendar.day > self._day:
            self._day, self._spent_day = calendar.day, 0.0
        if calendar.month > self._month:
            self._month, self._spent_month = calendar.month, 0.0
        return self._spent_day, self._spent_month

    def refusal(self, now: float, calendar: Calendar) -> Refusal | None:
        """Why a request is not let in, None where it is. Of several reasons the one that lasts longest."""
        return max(self._refusals(now, calendar), key=lambda each: each.seconds, default=None)

    def _refusals(self, now: float, calendar: Calendar) -> Iterator[Refusal]:
        limits = self.limits
        if limits.concurrency and self.in_flight >= limits.concurrency:
            yield Refusal("concurrency", limits.concurrency, NEXT_SLOT)
        if self._requests is not None and (wait := self._requests.wait(now)):
            yield Refusal("requests", limits.requests, wait)
        if self._tokens is not None and (wait := self._tokens.wait(now)):
            yield Refusal("tokens", limits.tokens, wait)
        day, month = self.spent(calendar)
        if limits.credits_per_day and day >= limits.credits_per_day:
            yield Refusal("credits_per_day", limits.credits_per_day, calendar.day_left)
        if limits.credits_per_month and month >= limits.credits_per_month:
            yield Refusal("credits_per_month", limits.credits_per_month, calendar.month_left)

    def begin(self, tokens: int, now: float) -> None:
        """A turn begins, and will take about so many tokens."""
        self.in_flight += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def end(self, expected: int, tokens: int, credits: float, now: float, calendar: Calendar) -> None:  # noqa: A002
        """A turn is over: it took so much, of which `expected` tokens were taken when it began."""
        self.in_flight -= 1
        if self._tokens is not None:
            self._tokens.take(tokens - expected, now)
        self.spent(calendar)  # of the periods that are over, nothing counts any more
        self._spent_day += credits
        self._spent_month += credits


def _adopted(bucket: Bucket | None, a_minute: int, now: float) -> Bucket | None:
    if not a_minute:
        return None
    if bucket is None:
        return Bucket(a_minute, now)
    bucket.resize(a_minute, now)
    return bucket
