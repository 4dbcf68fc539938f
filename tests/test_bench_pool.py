"""The pool's bench: it runs, keeps what it measured, and fails where accounts are left out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import pool  # noqa: E402
from kirostream.accounts.account import AccountId  # noqa: E402


def test_the_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    pool.configure(parser)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(pool, "SIZES", (1, 10, 20))
    monkeypatch.setattr(pool, "GOAL", 1e9)
    assert pool.run(parser.parse_args(["--quick", "--check", "--json", str(path)])) == 0
    kept = json.loads(path.read_text())
    assert len(kept["results"]) == 3 * len(pool.ROWS)
    assert all(row["cpu_us"] > 0 < row["wall_us"] for row in kept["results"])
    assert {row["ratio"] for row in kept["results"] if row["accounts"] == 10} == {1.0}
    monkeypatch.setattr(pool, "GOAL", 0)
    assert pool.run(parser.parse_args(["--quick", "--check", "--no-save"])) == 1


@pytest.mark.parametrize("row", pool.ROWS, ids=lambda row: row.name)
async def test_a_pool_that_leaves_an_account_out_is_not_measured(row: pool.Row, tmp_path: Path) -> None:
    async with pool.opened(row, 10, tmp_path, 1) as bench:
        await bench.check()
    async with pool.opened(row, 10, tmp_path, 2) as bench:
        await bench.pool.disable(AccountId("bench-9"))
        if row.strategy == "weighted":
            async with bench.pool.lease():
                with pytest.raises(AssertionError):
                    await bench.check()
        else:
            with pytest.raises(AssertionError, match="1 were never leased"):
                await bench.check()
