"""The transport's bench: it runs, keeps what it measured, and fails where an answer is not right."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import upstream  # noqa: E402


def test_the_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    upstream.configure(parser)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(upstream, "GOALS", dict.fromkeys(upstream.GOALS, 0))
    assert upstream.run(parser.parse_args(["--quick", "--check", "--json", str(path)])) == 0
    kept = json.loads(path.read_text())
    assert len(kept["results"]) == 2 * len(upstream.WAYS) * len(upstream.GOALS)
    assert all(row["cpu_us"] > 0 for row in kept["results"])
    assert {row["ratio"] for row in kept["results"] if row["transport"] == upstream.THEIRS} == {1.0}
    monkeypatch.setattr(upstream, "TOKEN", b"x" * 151)
    with pytest.raises(BaseException) as caught:
        upstream.run(parser.parse_args(["--quick", "--no-save"]))
    assert "of 1500 bytes" in str(caught.value) or caught.group_contains(AssertionError, match="of 1500 bytes")
