"""What facts add up to since the start: a sink of plain numbers, which `metrics` words when somebody asks.

Names that clients make up (models) and those that operators do (keys) are labels of at most `MOST` values each; later
ones count as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Final

import trio

from kirostream.telemetry.facts import AttemptFailed, ExchangeFinished, Fact, Faulted, RefreshFailed, TurnFinished

MOST: Final = 64
"""Values of a label that is not ours."""
OTHER: Final = "other"
LAG_EVERY: Final = 1.0
"""Seconds between two looks at how late the event loop is."""

SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds of what the upstream takes."""
OWN: Final = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
"""Bounds of what we take."""


class Histogram:
    """Counts of what fell below bounds, and its sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: how many are at most so much, each bound with all below it."""
        found, below = [], 0
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Counts:
    """A sink. Call it with facts of its `KINDS`."""

    KINDS: Final = (TurnFinished, ExchangeFinished, AttemptFailed, RefreshFailed, Faulted)

    def __init__(self) -> None:
        self.turns: Counter[tuple[str, str, str, str]] = Counter()
        """By dialect, model, key and outcome."""
        self.tokens: Counter[tuple[str, str]] = Counter()
        """By model and kind."""
        self.credits: defaultdict[tuple[str, str], float] = defaultdict(float)
        """By model and account."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """Failed ones, by the class of the error and what was done next."""
        self.exchanges: Counter[tuple[str, str]] = Counter()
        """By the hundred of the status, and how they ended."""
        self.refreshes_failed = 0
        self.faults = 0
        self.first_token = Histogram(SECONDS)
        self.turn = Histogram(SECONDS)
        self.own_first = Histogram(OWN)
        self.own_token = Histogram(OWN)
        self.lag = Histogram(OWN)
        self._names: defaultdict[str, set[str]] = defaultdict(set)

    def __repr__(self) -> str:
        return f"<Counts of {self.turns.total()} turns>"

    def __call__(self, fact: Fact) -> None:
        """Take a fact in."""
        kind = type(fact)
        if kind is TurnFinished:
            self._turn(fact)  # type: ignore[arg-type]
        elif isinstance(fact, ExchangeFinished):
            self.exchanges[f"{fact.status // 100}xx" if fact.status else "none", fact.ending] += 1
        elif isinstance(fact, AttemptFailed):
            self.attempts[fact.error, fact.action] += 1
        elif isinstance(fact, RefreshFailed):
            self.refreshes_failed += 1
        elif isinstance(fact, Faulted):
            self.faults += 1

    def _turn(self, turn: TurnFinished) -> None:
        model = self._name("model", turn.model_used)
        self.turns[turn.dialect, model, self._name("key", turn.key), turn.outcome] += 1
        tokens = self.tokens
        tokens[model, "input"] += turn.input_tokens
        tokens[model, "output"] += turn.output_tokens
        if turn.cache_read_tokens or turn.cache_write_tokens:
            tokens[model, "cache_read"] += turn.cache_read_tokens
            tokens[model, "cache_write"] += turn.cache_write_tokens
        if turn.credits:
            self.credits[model, self._name("account", turn.account)] += turn.credits
        self.turn.observe(turn.seconds)
        if turn.first_event is not None:
            self.first_token.observe(turn.first_event)
        if turn.own_first is not None:
            self.own_first.observe(turn.own_first)
        if turn.own_token is not None:
            self.own_token.observe(turn.own_token)

    def _name(self, label: str, value: str) -> str:
        """A value of a label, of which there are not too many."""
        known = self._names[label]
        if value in known:
            return value
        if len(known) >= MOST or len(value) > 100:
            return OTHER
        known.add(value)
        return value

    async def watch_lag(self) -> None:
        """See how late the event loop is, until cancelled."""
        while True:
            due = trio.current_time() + LAG_EVERY
            await trio.sleep_until(due)
            self.lag.observe(trio.current_time() - due)
