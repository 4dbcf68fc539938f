"""The conversion bench: both ways are checked before they are timed, and what it measures is kept."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import convert  # noqa: E402


@pytest.fixture(scope="module")
def bodies() -> convert.Bodies:
    return convert.Bodies.of(convert.conversation(seed=3))


def test_the_request_is_what_it_says(bodies: convert.Bodies) -> None:
    cold, warm = bodies.cold(7), bodies.warm(8)
    assert abs(len(cold) - convert.SIZE) < convert.SIZE / 100
    body, before, after = json.loads(cold), json.loads(bodies.before), json.loads(warm)
    assert (len(body["messages"]), len(body["tools"])) == (convert.MESSAGES, convert.TOOLS)
    assert len({tool["name"] for tool in body["tools"]}) == convert.TOOLS
    assert sum(len(tool["name"]) > 64 for tool in body["tools"]) == convert.LONG_NAMES
    assert cold.count(b'"type":"image"') == convert.IMAGES
    assert b'"$ref"' in cold
    assert b'"type":"thinking"' in cold
    assert after["tools"] == before["tools"]
    shared = list(zip(after["messages"][:-2], before["messages"], strict=True))
    differ = [at for at, (again, once) in enumerate(shared) if again != once]
    assert differ == [convert.MESSAGES - 5]  # the marks moved on: of three messages one lost its own
    assert not any(tool in after["tools"] for tool in body["tools"])
    assert bodies.cold(7) == cold != bodies.cold(8)
    assert convert.Bodies.of(convert.conversation(seed=3)) == bodies


def test_both_ways_say_the_same(bodies: convert.Bodies) -> None:
    ways: dict[str, Callable[[bytes], bytes]] = {convert.OURS: convert.Kirostream(), "reference": convert.reference}
    convert.check(bodies.cold(1), ways)
    with pytest.raises(AssertionError, match="differ"):
        convert.check(
            bodies.cold(1), {**ways, "other": lambda body: convert.reference(body).replace(b"/home/dev", b"/home/me")}
        )
    with pytest.raises(AssertionError, match="other: "):
        convert.check(bodies.cold(1), {"other": lambda body: convert.reference(body).replace(b"AI_EDITOR", b"NOBODY")})


def test_the_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    convert.configure(parser)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(convert, "GOAL", 0)
    assert convert.run(parser.parse_args(["--quick", "--check", "--json", str(path)])) == 0
    kept = json.loads(path.read_text())
    assert {(row["row"], row["state"]) for row in kept["results"]} == {
        (row, state) for row in (convert.OURS, convert.REFERENCE) for state in convert.STATES
    }
    assert all(0 < row["best_ms"] <= row["p50_ms"] <= row["p99_ms"] for row in kept["results"])
    assert len(kept["goals"]) == 2
    monkeypatch.setattr(convert, "GOAL", 1e9)
    assert convert.run(parser.parse_args(["--quick", "--no-save", "--check"])) == 1
