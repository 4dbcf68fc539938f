"""Where facts go. Recording never blocks and never fails: a sink that raises is counted, and the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from kirostream.telemetry.facts import Fact

Sink: TypeAlias = Callable[[Fact], None]
"""Takes a fact, synchronously and fast. It must not wait."""


class Recorder:
    """Hands each fact to the sinks that want facts of its kind."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks: list[tuple[Sink, tuple[type[Fact], ...]]] = [(sink, ()) for sink in sinks]
        self._by_kind: dict[type[Fact], tuple[Sink, ...]] = {}
        self.recorded = 0
        self.dropped = 0
        """Facts that a sink could not take."""

    def __repr__(self) -> str:
        return f"<Recorder {len(self._sinks)} sinks, {self.recorded} recorded, {self.dropped} dropped>"

    def add(self, sink: Sink, *kinds: type[Fact]) -> None:
        """Hand every later fact to `sink` too: those of these kinds, or all where none is named."""
        self._sinks.append((sink, kinds))
        self._by_kind.clear()

    @contextmanager
    def adding(self, sink: Sink, *kinds: type[Fact]) -> Iterator[None]:
        """Hand facts to `sink` too, as `add` does, until the context ends."""
        self.add(sink, *kinds)
        try:
            yield
        finally:
            self._sinks.remove((sink, kinds))
            self._by_kind.clear()

    def record(self, fact: Fact) -> None:
        """State a fact."""
        self.recorded += 1
        sinks = self._by_kind.get(type(fact))
        for sink in self._wanting(type(fact)) if sinks is None else sinks:
            try:
                sink(fact)
            except (OSError, ValueError):  # a full disk, a closed stderr: telemetry may fail, the turn may not
                self.dropped += 1

    def _wanting(self, kind: type[Fact]) -> tuple[Sink, ...]:
        """Who wants facts of a kind."""
        found = self._by_kind[kind] = tuple(sink for sink, kinds in self._sinks if not kinds or kind in kinds)
        return found
