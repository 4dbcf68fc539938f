"""What the parts of a gateway tell, as facts for its recorder; and the recorder's sink that sends traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypedDict

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.health import Health
from kirostream.errors import KirostreamError
from kirostream.net.door import ExchangeRecord
from kirostream.net.exchange import HttpRequest
from kirostream.telemetry.facts import AccountChanged, ExchangeFinished, RefreshFailed, SinkTroubled, TokenRefreshed
from kirostream.telemetry.faults import faulted
from kirostream.telemetry.recorder import Recorder


def faults_to(recorder: Recorder, where: str) -> Callable[[HttpRequest | None, Exception], None]:
    """What a door does with a bug of ours: it becomes a fact, and nothing of it reaches the client."""

    def on_fault(request: HttpRequest | None, error: Exception) -> None:
        at = f"{where}: {request.method} {request.path}" if request else where
        recorder.record(faulted(at, error, request=request.id if request else ""))

    return on_fault


def exchanges_to(recorder: Recorder) -> Callable[[ExchangeRecord], None]:
    """The access log: one fact an exchange."""

    def on_exchange(done: ExchangeRecord) -> None:
        request = done.request or HttpRequest("-", "-", "", ())
        recorder.record(
            ExchangeFinished(
                request=request.id,
                method=request.method,
                path=request.path,
                status=done.status,
                sent=done.sent,
                seconds=round(done.seconds, 6),
                peer=request.peer,
                ending=done.ending,
            )
        )

    return on_exchange


def changes_to(recorder: Recorder) -> Callable[[Account, Health, Health], None]:
    """What the pool tells of its accounts, as facts."""

    def on_change(account: Account, before: Health, now: Health) -> None:
        recorder.record(
            AccountChanged(
                account=account.label,
                before=before.state.value,
                state=now.state.value,
                why=now.why,
                seconds=round(max(now.until - time.time(), 0.0)),
            )
        )

    return on_change


class KeeperTold(TypedDict):
    """What a keeper of tokens is given to tell of them."""

    on_refreshed: Callable[[AccountId, float], None]
    on_failed: Callable[[AccountId, KirostreamError], None]


def tokens_to(recorder: Recorder, label: Callable[[AccountId], str] = str) -> KeeperTold:
    """What a keeper tells of its tokens, as facts. `label`: what people call an account."""

    def on_refreshed(account: AccountId, seconds: float) -> None:
        recorder.record(TokenRefreshed(account=label(account), expires_in=round(seconds)))

    def on_failed(account: AccountId, error: KirostreamError) -> None:
        recorder.record(RefreshFailed(account=label(account), error=type(error).__name__, message=error.message))

    return {"on_refreshed": on_refreshed, "on_failed": on_failed}


@contextmanager
def traced(recorder: Recorder, env: Mapping[str, str]) -> Iterator[None]:
    """Send traces where the standard variables of OpenTelemetry name a place for them, until the context ends."""
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not any(env.get(name) for name in places) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    try:
        from kirostream.telemetry.otel import open_sink

        sink = open_sink()
    except ImportError:
        why = "OTEL_EXPORTER_OTLP_ENDPOINT is set; to send traces: pip install 'kirostream[otel]'"
        recorder.record(SinkTroubled(sink="opentelemetry", message=why))
        yield
        return
    try:
        with recorder.adding(sink):
            yield
    finally:
        sink.close()
