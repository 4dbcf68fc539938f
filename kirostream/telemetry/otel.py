"""Turns as OpenTelemetry traces and metrics, for ``kirostream[otel]``. The one place that knows opentelemetry.

A sink: when a turn is over, its span and those of its tries are made with the times that they had, and handed to the
SDK, whose own threads send them; what finds its queue full it drops. So an exporter that hangs holds up nobody. Where
to, and how, is said by the standard ``OTEL_*`` variables. Names are those of the semantic conventions for generative
AI; nothing that was said is in them.

The span of a turn is below the client's, where that sent a ``traceparent`` (W3C Trace Context), and is sampled as that
was. Nothing of a trace is sent to the upstream: whose it is, is nobody's business there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kirostream._version import __version__
from kirostream.telemetry.facts import Fact, Tried, TurnFinished

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OtelSink:
    """A sink. Call it with facts; `close` when there are no more.

    Args:
        spans, metrics: where they go.
        clock: unix seconds.
    """

    def __init__(self, spans: SpanProcessor, metrics: MetricReader, clock: Callable[[], float] = time.time) -> None:
        resource = Resource.create({SERVICE_NAME: "kirostream", SERVICE_VERSION: __version__})
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._traces.add_span_processor(spans)
        self._meters = MeterProvider(metric_readers=[metrics], resource=resource, shutdown_on_exit=False)
        self._tracer = self._traces.get_tracer("kirostream", __version__)
        meter = self._meters.get_meter("kirostream", __version__)
        self._seconds = meter.create_histogram("gen_ai.client.operation.duration", "s", "How long turns took.")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of turns.")
        self._clock = clock

    def __repr__(self) -> str:
        return "<OtelSink>"

    def __call__(self, fact: Fact) -> None:
        """Take a fact in."""
        if isinstance(fact, TurnFinished):
            self._turn(fact)

    def close(self, patience: float = 2.0) -> None:
        """Send what is not sent, and end the SDK's threads. It blocks for `patience` seconds at most."""
        ending = threading.Thread(target=self._shutdown, daemon=True)
        ending.start()
        ending.join(patience)

    def _shutdown(self) -> None:
        self._traces.shutdown()
        self._meters.shutdown()

    def _turn(self, turn: TurnFinished) -> None:
        end = self._clock()
        begin = end - turn.seconds
        common: dict[str, str | int | float | bool] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": turn.provider,
            "gen_ai.request.model": turn.model_asked[:200],
            "gen_ai.response.model": turn.model_used[:200],
        }
        # An empty context, for there is nothing above it in this process.
        above = _PROPAGATOR.extract({"traceparent": turn.traceparent} if turn.traceparent else {}, Context())
        span = self._tracer.start_span(
            f"chat {turn.model_used[:200]}", above, kind=SpanKind.SERVER, start_time=_ns(begin), attributes=common
        )
        span.set_attribute("gen_ai.response.finish_reasons", [turn.outcome])
        span.set_attribute("gen_ai.response.id", turn.turn)
        span.set_attribute("gen_ai.usage.input_tokens", turn.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", turn.output_tokens)
        of_ours = {
            "kirostream.dialect": turn.dialect,
            "kirostream.key": turn.key,
            "kirostream.account": turn.account,
            "kirostream.request": turn.request,
            "kirostream.credits": turn.credits,
            "kirostream.first_token": turn.first_event,
            "kirostream.own_first": turn.own_first,
        }
        for name, value in of_ours.items():
            if value is not None and value != "":
                span.set_attribute(name, value)
        span.set_attribute("http.response.status_code", turn.status)
        parent = set_span_in_context(span)
        for tried in turn.tries:
            self._try(tried, parent, begin, common)
        if turn.error:
            span.set_attribute("error.type", turn.error)
            span.set_status(Status(StatusCode.ERROR, turn.error))
        span.end(_ns(end))
        error = {"error.type": turn.error} if turn.error else {}
        self._seconds.record(turn.seconds, {**common, **error})
        for kind, count in (("input", turn.input_tokens), ("output", turn.output_tokens)):
            self._tokens.record(count, {**common, "gen_ai.token.type": kind})

    def _try(self, tried: Tried, parent: Context, begin: float, common: Mapping[str, str | int | float | bool]) -> None:
        """A span for a try, below that of its turn."""
        span = self._tracer.start_span(
            "attempt", parent, kind=SpanKind.CLIENT, start_time=_ns(begin + tried.at), attributes=common
        )
        span.set_attribute("kirostream.account", tried.account)
        if tried.status:
            span.set_attribute("http.response.status_code", tried.status)
        if tried.error:
            span.set_attribute("error.type", tried.error)
            span.set_status(Status(StatusCode.ERROR, tried.error))
        span.end(_ns(begin + tried.at + tried.seconds))


def open_sink() -> OtelSink:
    """A sink whose exporter is set by the ``OTEL_*`` variables."""
    return OtelSink(BatchSpanProcessor(OTLPSpanExporter()), PeriodicExportingMetricReader(OTLPMetricExporter()))


def _ns(at: float) -> int:
    return int(at * 1e9)
