"""What was learned outlives the process, and nothing that goes wrong with it matters to anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kirostream.relay.calibration_store import open_calibration
from kirostream.stores.sqlite import open_database
from kirostream.telemetry.facts import Fact, Faulted
from kirostream.turn.calibration import Calibration


def teach(calibration: Calibration, model: str, ratio: float, times: int = 3) -> None:
    for _ in range(times):
        assert calibration.learn(model, 10_000, 10_000 * ratio)


async def test_what_was_learned_is_there_the_next_time(tmp_path: Path) -> None:
    facts: list[Fact] = []
    async with open_database(tmp_path / "db") as database:
        async with open_calibration(database, facts.append) as first:
            assert first.ratios == {}
            teach(first, "claude-opus-4.7", 1.2)
        async with open_calibration(database, facts.append) as second:
            assert second.correction("claude-opus-4.7") == pytest.approx(1.2)
            teach(second, "gpt-5.6-mini", 0.9)
    async with open_database(tmp_path / "db") as database, open_calibration(database, facts.append) as third:
        assert third.correction("claude-opus-4.7") == pytest.approx(1.2)
        assert third.correction("gpt-5.6") == pytest.approx(0.9)
    assert facts == []


async def test_it_is_saved_when_the_process_is_being_stopped(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db") as database:
        with trio.CancelScope() as scope:
            async with open_calibration(database, list[Fact]().append) as calibration:
                teach(calibration, "auto", 1.5)
                scope.cancel()
                await trio.sleep_forever()
        async with open_calibration(database, list[Fact]().append) as again:
            assert again.correction("auto") == pytest.approx(1.5)


async def test_what_is_no_list_of_ratios_is_left_out(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db") as database:
        rows = [("a", "nonsense"), ("b", '["x"]'), ("c", "[1.25,1.25,1e99,1.25]")]
        await database.write(lambda connection: connection.executemany("INSERT INTO calibration VALUES (?, ?)", rows))
        async with open_calibration(database, list[Fact]().append) as calibration:
            assert calibration.ratios == {"c": (1.25, 1.25, 1.25)}


async def test_what_cannot_be_saved_is_told(tmp_path: Path) -> None:
    facts: list[Fact] = []
    async with open_database(tmp_path / "db") as database, open_calibration(database, facts.append) as calibration:
        teach(calibration, "auto", 1.5)
        await database.write(lambda connection: connection.execute("DROP TABLE calibration"))
    (fact,) = facts
    assert isinstance(fact, Faulted)
    assert fact.where == "calibration"
