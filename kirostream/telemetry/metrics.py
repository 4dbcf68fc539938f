"""Metrics in Prometheus' words, made when they are asked for. The one place that knows prometheus_client.

Nothing is counted here: a collector words what `Counts` and the rooms' snapshots say at that moment. The registry is
our own, so that nothing of another program in the process gets in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kirostream._version import __version__
from kirostream.dataclass import dataclass
from kirostream.telemetry.counts import Counts, Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One figure of now. A `counter` only grows. `labels` are names and values."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = field(default=())
    counter: bool = False


class Metrics:
    """The text of all metrics.

    Args:
        counts: since the start.
        now: figures of the rooms, asked for with each text.
        carried: how long tokens took that compiled code carried; gives None where none did.
    """

    def __init__(
        self,
        counts: Counts,
        now: Callable[[], Iterable[Sample]],
        carried: Callable[[], Histogram | None] = lambda: None,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(counts, now, carried))
        ProcessCollector(registry=self._registry)

    def __repr__(self) -> str:
        return "<Metrics>"

    def text(self) -> bytes:
        """All of them, as Prometheus reads them (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)


class _Collector(Collector):
    def __init__(
        self, counts: Counts, now: Callable[[], Iterable[Sample]], carried: Callable[[], Histogram | None]
    ) -> None:
        self._counts = counts
        self._now = now
        self._carried = carried

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known by what is collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        counts = self._counts
        yield InfoMetricFamily("kirostream", "What runs.", value={"version": __version__})
        yield _counter(
            "kirostream_turns", "Turns that are over.", ("dialect", "model", "key", "outcome"), counts.turns.items()
        )
        yield _counter("kirostream_tokens", "Tokens of turns.", ("model", "kind"), counts.tokens.items())
        yield _counter("kirostream_credits", "Credits, where Kiro said.", ("model", "account"), counts.credits.items())
        yield _counter(
            "kirostream_attempts_failed",
            "Tries on one account that failed, by the error and what was done next.",
            ("error", "action"),
            counts.attempts.items(),
        )
        yield _counter(
            "kirostream_exchanges", "HTTP requests that are over.", ("status", "ending"), counts.exchanges.items()
        )
        yield _counter("kirostream_refreshes_failed", "Tokens not renewed.", (), [((), counts.refreshes_failed)])
        yield _counter("kirostream_faults", "Bugs of the gateway.", (), [((), counts.faults)])
        yield _histogram("kirostream_turn_seconds", "How long turns took.", counts.turn)
        yield _histogram(
            "kirostream_first_token_seconds", "From asking to the first event, the upstream's time.", counts.first_token
        )
        yield _histogram(
            "kirostream_overhead_first_token_seconds",
            "The gateway's own part of the time to the first event at the client.",
            counts.own_first,
        )
        yield _histogram(
            "kirostream_overhead_token_seconds",
            "The gateway's own part of a read of the upstream, until its bytes are at the client; each turn's mean, "
            "of reads that compiled code did not carry.",
            counts.own_token,
        )
        carried = self._carried()
        if carried is not None:
            yield _histogram(
                "kirostream_overhead_carried_token_seconds",
                "The same of each read that compiled code carried, from the hub's waking on; of one lap of the hub in "
                "64.",
                carried,
            )
        yield _histogram("kirostream_loop_lag_seconds", "How late the event loop was.", counts.lag)
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._now():
            family = families.get(sample.name)
            if family is None:
                kind = CounterMetricFamily if sample.counter else GaugeMetricFamily
                family = families[sample.name] = kind(
                    sample.name, sample.help, labels=[name for name, _ in sample.labels]
                )
            family.add_metric([value for _, value in sample.labels], sample.value)
        yield from families.values()


def _counter(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.total)
