"""Facts as log lines, and a recorder that never stands in the way."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import SettingsError
from kirostream.telemetry.facts import ExchangeFinished, Fact, Faulted, ServiceChanged, SettingsRefused, TokenRefreshed
from kirostream.telemetry.log import HOLD, MOST_HELD, LogSettings, LogSink, json_line, timestamp
from kirostream.telemetry.recorder import Recorder

DEBUG = ExchangeFinished(method="GET", path="/", status=200, sent=1, seconds=0.1, peer="", ending="whole")
INFO = ServiceChanged(service="gateway", state="listening")
ERROR = Faulted(where="door", error="ValueError()", trace="Traceback ...")


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("INFO", 2), ("warning", 1), ("error", 1)])
def test_a_line_a_fact_from_its_level_on(level: str, lines: int) -> None:
    out = io.StringIO()
    sink = LogSink(LogSettings(level=level, format="json"), out)
    for fact in (DEBUG, INFO, ERROR):
        sink(fact)
    written = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(written) == lines
    assert written[-1]["event"] == "faulted"
    assert written[-1]["level"] == "error"


def test_a_line_holds_what_is_known_and_nothing_else() -> None:
    out = io.StringIO()
    LogSink(LogSettings(format="json"), out)(TokenRefreshed(account="a***@example.com", expires_in=3600))
    line = json.loads(out.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "token refreshed", "level": "info", "account": "a***@example.com", "expires_in": 3600}


def test_several_sinks_share_a_line_and_two_facts_do_not() -> None:
    twice = [json_line(INFO, 1_700_000_000.25), json_line(INFO, 1_700_000_000.75)]
    assert twice[0] is twice[1]
    assert json.loads(twice[0])["timestamp"] == "2023-11-14T22:13:20.250000Z"
    assert json.loads(json_line(ERROR, 1_700_000_000.75))["timestamp"] == "2023-11-14T22:13:20.750000Z"
    assert json.loads(json_line(SettingsRefused(message=""), 0.0)) == {
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "level": "error",
        "event": "settings refused",
    }


@given(st.floats(0, 4e9))
def test_timestamps_are_moments_and_sort_as_they_do(at: float) -> None:
    assert datetime.fromisoformat(timestamp(at)).timestamp() == pytest.approx(at, abs=2e-6)
    assert timestamp(at) <= timestamp(at + 1e-3)


def test_a_sink_gets_the_kinds_that_it_wants() -> None:
    some: list[Fact] = []
    every: list[Fact] = []
    recorder = Recorder(every.append)
    with recorder.adding(some.append, ServiceChanged, Faulted):
        for fact in (DEBUG, INFO, ERROR):
            recorder.record(fact)
    recorder.record(INFO)
    assert some == [INFO, ERROR]
    assert every == [DEBUG, INFO, ERROR, INFO]


async def test_quiet_lines_are_written_together_and_a_loud_one_at_once(autojump_clock: trio.testing.MockClock) -> None:
    out = io.StringIO()
    sink = LogSink(LogSettings(format="json"), out)
    for _ in range(2):
        sink(INFO)
        sink(INFO)
        assert not out.getvalue()
        await trio.sleep(2 * HOLD)
        assert len(out.getvalue().splitlines()) == 2
        out.truncate(out.seek(0))
    sink(INFO)
    sink(ERROR)
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == ["info", "error"]
    out.truncate(out.seek(0))
    for _ in range(MOST_HELD):
        sink(INFO)
    assert len(out.getvalue().splitlines()) == MOST_HELD


def test_the_last_lines_of_a_run_are_written() -> None:
    out = io.StringIO()
    sink = LogSink(LogSettings(format="json"), out)

    async def run() -> None:
        sink(INFO)

    for lines in (1, 2):
        trio.run(run)
        assert len(out.getvalue().splitlines()) == lines


async def test_lines_that_could_not_be_written_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError("no space left on device")

    recorder = Recorder(LogSink(LogSettings(format="json"), Full()))
    recorder.record(INFO)
    await trio.sleep(1)
    assert recorder.dropped == 0
    recorder.record(INFO)
    assert recorder.dropped == 1


def test_lines_for_a_person() -> None:
    out = io.StringIO()
    LogSink(LogSettings(format="console"), out)(INFO)
    assert "service changed" in out.getvalue()
    assert not out.getvalue().startswith("{")


@pytest.mark.parametrize("settings", [{"level": "loud"}, {"format": "xml"}, {"retention_hours": 0.0}, {"size": 0}])
def test_what_does_not_exist_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        LogSettings(**settings)


def test_a_sink_that_fails_is_counted_and_others_go_on() -> None:
    seen: list[Fact] = []

    def full(fact: Fact) -> None:
        raise OSError("no space left on device")

    recorder = Recorder(full)
    recorder.add(seen.append)
    recorder.record(INFO)
    assert (seen, recorder.recorded, recorder.dropped) == ([INFO], 1, 1)
