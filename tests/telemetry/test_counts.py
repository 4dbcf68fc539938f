"""What facts add up to, and how Prometheus reads it."""

from __future__ import annotations

from dataclasses import replace

import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from kirostream.telemetry.counts import MOST, OTHER, Counts, Histogram
from kirostream.telemetry.facts import AttemptFailed, ExchangeFinished, Faulted, RefreshFailed, ServiceChanged
from kirostream.telemetry.metrics import Metrics, Sample
from telemetry.test_usage import TURN


def test_a_histogram_counts_what_is_at_most_its_bounds() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 4.0), ("+Inf", 5.0)]
    assert histogram.total == 8.65


def test_facts_are_added_up() -> None:
    counts = Counts()
    for fact in (
        TURN,
        replace(TURN, outcome="failed", credits=None, first_event=None, cache_read_tokens=0, cache_write_tokens=0),
        replace(TURN, own_first=0.004, own_token=0.00003),
        AttemptFailed(turn="", account="a", error="Throttled", reason="", blame="account", action="next", message=""),
        ExchangeFinished(method="GET", path="/", status=404, sent=0, seconds=0, peer="", ending="whole"),
        ExchangeFinished(method="GET", path="/", status=0, sent=0, seconds=0, peer="", ending="gone"),
        RefreshFailed(account="a", error="e", message=""),
        Faulted(where="door", error="E", trace=""),
        ServiceChanged(service="gateway", state="listening"),
    ):
        counts(fact)
    assert counts.turns == {
        ("anthropic", "claude-sonnet-4.5", "default", "end"): 2,
        ("anthropic", "claude-sonnet-4.5", "default", "failed"): 1,
    }
    assert counts.tokens["claude-sonnet-4.5", "cache_read"] == 1200
    assert counts.credits == {("claude-sonnet-4.5", "a***@example.com"): 0.5}
    assert counts.attempts == {("Throttled", "next"): 1}
    assert counts.exchanges == {("4xx", "whole"): 1, ("none", "gone"): 1}
    assert (counts.refreshes_failed, counts.faults) == (1, 1)
    assert (sum(counts.first_token.counts), sum(counts.own_first.counts), sum(counts.own_token.counts)) == (2, 1, 1)


def test_names_that_clients_make_up_are_counted_together() -> None:
    counts = Counts()
    for number in range(3 * MOST):
        counts(replace(TURN, model_used=f"model {number}"))
    counts(replace(TURN, model_used="m" * 10_000))
    models = {model for _, model, _, _ in counts.turns}
    assert len(models) == MOST + 1
    assert counts.turns["anthropic", OTHER, "default", "end"] == 2 * MOST + 1
    assert counts.turns["anthropic", "model 0", "default", "end"] == 1


def test_the_text_is_what_prometheus_reads() -> None:
    counts = Counts()
    counts(replace(TURN, model_used='m"\n\\', own_token=0.0001))
    samples = [
        Sample(name="kirostream_x", help="X.", value=1, labels=(("state", "a"),)),
        Sample(name="kirostream_x", help="X.", value=2, labels=(("state", "b"),)),
        Sample(name="kirostream_y", help="Y.", value=3, counter=True),
    ]
    text = Metrics(counts, lambda: samples).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {sample.labels["state"]: sample.value for sample in families["kirostream_x"].samples} == {"a": 1.0, "b": 2.0}
    assert families["kirostream_y"].type == "counter"
    (turn,) = (sample for sample in families["kirostream_turns"].samples if sample.name.endswith("_total"))
    assert turn.labels["model"] == 'm"\n\\'
    own = families["kirostream_overhead_token_seconds"]
    assert own.type == "histogram"
    assert [sample.value for sample in own.samples if sample.labels.get("le") == "+Inf"] == [1.0]


async def test_a_loop_that_is_late_is_seen(autojump_clock: MockClock) -> None:
    counts = Counts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counts.watch_lag)
        await trio.sleep(2.5)
        autojump_clock.jump(3.0)  # somebody held it up
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert sum(counts.lag.counts) == 3
    assert counts.lag.counts[-1] == 1
    assert 2.4 < counts.lag.total < 2.6
