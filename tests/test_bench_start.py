"""The bench of the start: it measures what it says, and says whether the goals were met."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import start  # noqa: E402


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    start.configure(parser)
    return parser.parse_args(words)


def test_each_is_started_and_looked_at(tmp_path: Path) -> None:
    found = start.measure(1, 0.1, tmp_path)
    assert [(name, len(rounds)) for name, rounds in found.items()] == [("trio", 1), ("demo", 1), ("account", 1)]
    bare, *gateways = (rounds[0] for rounds in found.values())
    for each in gateways:
        assert each["ready"] > 0
        if sys.platform == "linux":
            assert each["cpu"] > bare["cpu"] > 0
            assert each["used"] >= each["resident"] > bare["resident"] > 1


@pytest.mark.parametrize(
    ("ready", "resident", "status", "said"),
    [(0.2, 40.0, 0, "met"), (0.5, 40.0, 1, "missed: account ready_ms"), (0.2, 46.0, 1, "missed: account resident_mb")],
)
def test_a_missed_goal_is_named(
    ready: float,
    resident: float,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measured(rounds: int, rest: float, home: Path) -> dict[str, list[start.Figures]]:
        good = {"ready": 0.1, "cpu": 0.1, "resident": 20.0, "used": 21.0}
        return {"trio": [good] * 3, "demo": [good] * 3, "account": [{**good, "ready": ready, "resident": resident}] * 3}

    monkeypatch.setattr(start, "measure", measured)
    file = tmp_path / "start.json"
    assert start.run(options("--rounds", "3", "--check", "--json", str(file))) == status
    assert said in " ".join(capsys.readouterr().out.split())
    kept = json.loads(file.read_text())
    assert kept["suite"] == "start"
    assert kept["rows"]["account"]["ready_ms"] == ready * 1e3
    assert kept["rows"]["account"]["ratio"] == pytest.approx(ready / 0.1)
    assert kept["rows"]["trio"]["ratio"] == 1
