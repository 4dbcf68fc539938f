"""The guard: what it counts runs, and more instructions than the baseline fail."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import compiled, guard, guard_turn, guard_work  # noqa: E402

BASELINE = json.loads(guard.BASELINE.read_text())


@pytest.mark.parametrize("name", guard_work.works(0))
def test_all_that_is_counted_works(name: str) -> None:
    try:
        upstream = guard_turn.upstream()
    except compiled.NotCompiled as error:
        pytest.skip(str(error))
    try:
        units = guard_work.works(upstream.port)[name]()
    finally:
        upstream.stop()
    frames = guard_work.TOKENS + 2  # what comes after the text are two
    expected = {
        "request of Messages": guard_work.REQUESTS,
        "short turn through the relay": guard_turn.TURNS,
        "decode": frames,
    }
    assert units == expected.get(name, expected["decode"] if name.startswith("decode") else guard_work.TOKENS)
    assert name in BASELINE["instructions"]


def counted(monkeypatch: pytest.MonkeyPatch, **factors: float) -> None:
    """Have the guard count the baseline times a factor."""
    monkeypatch.setattr(guard, "versions", lambda: BASELINE["versions"])
    found = {name: value * factors.get(name, 1.0) for name, value in BASELINE["instructions"].items()}
    monkeypatch.setattr(guard, "count", lambda options: found)


def guarded(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    guard.configure(parser)
    return guard.run(parser.parse_args(arguments))


def test_a_twentieth_more_is_the_most(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counted(monkeypatch, encode=1.049)
    assert guarded() == 0
    counted(monkeypatch, encode=1.051)
    assert guarded() == 1
    assert "encode" in capsys.readouterr().out.rpartition("by over 5%")[2]


def test_less_is_well_and_worth_keeping(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counted(monkeypatch, encode=0.9)
    assert guarded() == 0
    assert "--update" in capsys.readouterr().out


def test_with_other_versions_the_reference_is_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = dict.fromkeys(BASELINE["instructions"], 3.0)
    counted(monkeypatch, **everything)
    monkeypatch.setattr(guard, "versions", lambda: {**BASELINE["versions"], "python": "another"})
    assert guarded() == 0
    counted(monkeypatch, **{**everything, "encode": 3.9})
    monkeypatch.setattr(guard, "versions", lambda: {**BASELINE["versions"], "python": "another"})
    assert guarded() == 1


def test_what_is_not_counted_any_more_is_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted(monkeypatch)
    more = {**BASELINE, "instructions": {**BASELINE["instructions"], "another": 1.0}}
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(more))
    assert guarded("--baseline", str(path)) == 1


def test_an_update_is_the_new_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted(monkeypatch, encode=2.0)
    path = tmp_path / "baseline.json"
    assert guarded("--update", "--baseline", str(path)) == 0
    assert guarded("--baseline", str(path)) == 0
    assert guarded() == 1


def test_without_valgrind_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert guarded() == 0
    assert "valgrind is not installed" in capsys.readouterr().out


def test_work_that_fails_is_no_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> dict[str, float]:
        raise guard.Failed("the work failed")

    monkeypatch.setattr(guard, "count", fail)
    assert guarded() == 1
    assert "the work failed" in capsys.readouterr().err
