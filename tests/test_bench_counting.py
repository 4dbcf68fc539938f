"""The bench of counts: it runs, it keeps what it measured, and it fails when a count is not right."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import counting  # noqa: E402


def options(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    counting.configure(parser)
    return parser.parse_args(["--quick", *more])


def test_the_figures_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert counting.run(options("--json", str(path))) == 0
    kept = json.loads(path.read_text())
    alone, beside = kept["results"][counting.ALONE], kept["results"][counting.COUNTING]
    assert 0 < alone["p50_ms"] <= alone["p99_ms"] <= alone["max_ms"]
    assert beside["times_p99"] > 0
    assert beside["counts_per_second"] > 0
    assert alone["counts_per_second"] is None
    assert kept["settings"]["crowd"] == "2x50"
    assert len(kept["goals"]) == 1


def test_counts_that_are_not_right_are_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counting, "conversation", lambda seed: {"model": "m", "messages": []})
    assert counting.run(options("--no-save")) == 1
    assert "400" in capsys.readouterr().err


def test_a_missed_goal() -> None:
    results = {counting.COUNTING: {"p99_ms": counting.GOAL_MS + 1}}
    assert [goal["met"] for goal in counting.judge(results)] == [False]
