"""Where facts go. Recording never blocks and never fails: a sink that raises is counted, and the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from kirostream.telemetry.facts import Fact

Sink: TypeAlias = Callable[[Fact], None]
"""Takes a fact, synchronously and fast. It must not wait."""


class Recorder:
    """Hands each fact to every sink."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)
        self.recorded = 0
        self.dropped = 0
        """Facts that a sink could not take."""

    def __repr__(self) -> str:
        return f"<Recorder {len(self._sinks)} sinks, {self.recorded} recorded, {self.dropped} dropped>"

    def add(self, sink: Sink) -> None:
        """Hand every later fact to `sink` too."""
        self._sinks.append(sink)

    @contextmanager
    def adding(self, sink: Sink) -> Iterator[None]:
        """Hand every fact to `sink` too, until the context ends."""
        self._sinks.append(sink)
        try:
            yield
        finally:
            self._sinks.remove(sink)

    def record(self, fact: Fact) -> None:
        """State a fact."""
        self.recorded += 1
        for sink in self._sinks:
            try:
                sink(fact)
            except (OSError, ValueError):  # a full disk, a closed stderr: telemetry may fail, the turn may not
                self.dropped += 1
