"""Turns as traces and metrics, as an exporter gets them."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from kirostream.telemetry.facts import Tried
from kirostream.telemetry.log import json_line, known_of
from kirostream.telemetry.otel import OtelSink
from telemetry.test_usage import TURN


def test_a_turn_is_a_span_over_those_of_its_tries() -> None:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    sink = OtelSink(SimpleSpanProcessor(spans), metrics, lambda: 1005.0)
    tries = (Tried(0.25, 1.25, "first", 429, "Throttled"), Tried(2.0, 2.5, "second", 200, ""))
    sink(replace(TURN, seconds=4.5, attempts=2, provider="kiro", tries=tries))
    sink(replace(TURN, turn="1", seconds=1.0, attempts=0, outcome="failed", error="NoAccount", status=503))
    failed, answered, turn, other = spans.get_finished_spans()
    assert [each.name for each in (failed, answered, turn)] == ["attempt", "attempt", "chat claude-sonnet-4.5"]
    assert turn.context is not None
    assert {each.parent.span_id for each in (failed, answered) if each.parent} == {turn.context.span_id}
    times = [(each.start_time, each.end_time) for each in (turn, failed, answered)]
    seconds = [(1000.5, 1005.0), (1000.75, 1002.0), (1002.5, 1005.0)]
    assert times == [(int(begin * 1e9), int(end * 1e9)) for begin, end in seconds]
    assert turn.attributes is not None
    assert turn.attributes["gen_ai.provider.name"] == "kiro"
    assert turn.attributes["gen_ai.usage.output_tokens"] == 200
    assert turn.attributes["gen_ai.response.finish_reasons"] == ("end",)
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "Throttled"
    assert failed.status.status_code is StatusCode.ERROR
    assert answered.attributes is not None
    assert "error.type" not in answered.attributes
    statuses = [each.attributes["http.response.status_code"] for each in (failed, answered) if each.attributes]
    assert statuses == [429, 200]
    assert [each.attributes["kirostream.account"] for each in (failed, answered) if each.attributes] == [
        "first",
        "second",
    ]
    assert turn.parent is None
    assert (other.status.status_code, turn.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    found = metrics.get_metrics_data()
    assert found is not None
    (scope,) = found.resource_metrics[0].scope_metrics
    assert {metric.name for metric in scope.metrics} == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
    }
    sink.close()


@pytest.mark.parametrize("sampled", [True, False])
def test_a_turn_is_below_the_span_of_its_client_and_sampled_as_that_is(sampled: bool) -> None:
    spans = InMemorySpanExporter()
    sink = OtelSink(SimpleSpanProcessor(spans), InMemoryMetricReader(), lambda: 1005.0)
    parent = f"00-{'a' * 32}-{'b' * 16}-0{int(sampled)}"
    sink(replace(TURN, traceparent=parent, tries=(Tried(0.0, 1.0, "first", 200, ""),)))
    found = spans.get_finished_spans()
    assert len(found) == (2 if sampled else 0)
    for each in found:
        assert each.context is not None
        assert format(each.context.trace_id, "x") == "a" * 32
    if sampled:
        turn = found[1]
        assert turn.parent is not None
        assert format(turn.parent.span_id, "x") == "b" * 16
        assert turn.parent.is_remote
    sink.close()


def test_a_trace_is_no_line_of_the_log() -> None:
    fact = replace(TURN, tries=(Tried(0.0, 1.0, "first", 200, ""),))
    assert "tries" not in known_of(fact)
    assert json_line(fact, 0.0) == json_line(TURN, 0.0)
