"""The ledger as CSV and JSON: every turn, page after page, and nothing that a spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from kirostream.stores.sqlite import open_database
from kirostream.telemetry import usage_export
from kirostream.telemetry.usage import Ledger, Only, TurnUsage, UsageSettings
from kirostream.telemetry.usage_export import Form, export, shares_csv
from telemetry.test_usage import NOON, TURN, Desk, desk


async def exported(at: Desk, form: Form, **chosen: object) -> tuple[list[bytes], str]:
    parts = [part async for part in export(at.ledger, form, **chosen)]  # type: ignore[arg-type]
    return parts, b"".join(parts).decode()


@pytest.mark.parametrize("turns", [0, 1, 2500])
async def test_every_turn_is_there_a_page_at_a_time(turns: int, tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        for number in range(turns):
            at.take(NOON + number, turn=f"{number:032x}")
        parts, text = await exported(at, "json")
        listed = json.loads(text)
        assert [turn["turn"] for turn in listed] == [f"{number:032x}" for number in range(turns)]
        assert max(len(part) for part in parts) < 1_000_000
        parts, text = await exported(at, "csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["turn"] for row in rows] == [turn["turn"] for turn in listed]
        assert len(parts) == 1 + (turns + 999) // 1000
    assert text.splitlines()[0].split(",") == list(TurnUsage.__struct_fields__)
    if rows:
        assert (rows[0]["at"], rows[0]["credits"], rows[0]["input_tokens"]) == (
            "2026-11-21T12:00:00.000Z",
            "0.25",
            "1000",
        )
        assert listed[0]["at"] == NOON


async def test_a_part_of_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        for number in range(10):
            at.take(NOON + number, key="laptop" if number % 2 else "phone")
        _, text = await exported(at, "json", since=NOON + 2, until=NOON + 8, only=Only(key="laptop"))
    assert [turn["at"] - NOON for turn in json.loads(text)] == [3, 5, 7]


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
async def test_a_name_is_no_formula(name: str, tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.take(model_asked=name, model_used=name, credits=-0.5)
        _, text = await exported(at, "csv")
        (row,) = csv.DictReader(io.StringIO(text, newline=""))
        assert row["model_asked"] == f"'{name}"
        assert row["credits"] == "-0.5"
        shown = shares_csv(await at.ledger.query("model")).decode()
        assert f"'{name}" in shown
        _, text = await exported(at, "json")
        assert json.loads(text)[0]["model_asked"] == name


async def test_what_comes_while_it_is_exported_does_not_shift_it(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db") as database:
        ledger = Ledger(database, UsageSettings(most=2000), lambda fact: None, lambda: NOON)
        for number in range(2000):
            ledger.take(replace(TURN, turn=f"{number:032x}"))
        seen: list[str] = []
        async for part in usage_export.export(ledger, "json"):
            if not seen:
                for number in range(500):
                    ledger.take(replace(TURN, turn=f"new{number:029x}"))
                await ledger.forget()
            seen.append(part.decode())
        turns = [turn["turn"] for turn in json.loads("".join(seen))]
    assert turns[:2000] == [f"{number:032x}" for number in range(2000)]
    assert len(set(turns)) == len(turns)
