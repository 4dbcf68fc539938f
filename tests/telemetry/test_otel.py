"""Turns as traces and metrics, as an exporter gets them."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from kirostream.telemetry.facts import AttemptFailed
from kirostream.telemetry.otel import OtelSink
from telemetry.test_usage import TURN


def test_a_turn_is_a_span_over_those_of_its_tries() -> None:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    now = 1000.0
    sink = OtelSink(SimpleSpanProcessor(spans), metrics, lambda: now)
    now = 1002.0
    sink(
        AttemptFailed(
            turn=TURN.turn, account="first", error="Throttled", reason="", blame="account", action="next", message="no"
        )
    )
    now = 1005.0
    sink(replace(TURN, seconds=4.5, attempts=2, provider="kiro"))
    sink(replace(TURN, turn="1", seconds=1.0, attempts=0, outcome="failed", error="NoAccount"))
    failed, answered, turn, other = spans.get_finished_spans()
    assert [each.name for each in (failed, answered, turn)] == ["attempt", "attempt", "chat claude-sonnet-4.5"]
    assert turn.context is not None
    assert {each.parent.span_id for each in (failed, answered) if each.parent} == {turn.context.span_id}
    times = [(each.start_time, each.end_time) for each in (turn, failed, answered)]
    seconds = [(1000.5, 1005.0), (1000.5, 1002.0), (1002.0, 1005.0)]
    assert times == [(int(begin * 1e9), int(end * 1e9)) for begin, end in seconds]
    assert turn.attributes is not None
    assert turn.attributes["gen_ai.provider.name"] == "kiro"
    assert turn.attributes["gen_ai.usage.output_tokens"] == 200
    assert turn.attributes["gen_ai.response.finish_reasons"] == ("end",)
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "Throttled"
    assert (other.status.status_code, turn.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    found = metrics.get_metrics_data()
    assert found is not None
    (scope,) = found.resource_metrics[0].scope_metrics
    assert {metric.name for metric in scope.metrics} == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
    }
    sink.close()
