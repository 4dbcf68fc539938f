"""The usage ledger: what is written of a turn, what it adds up to, what happens where it cannot be written."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pytest
import trio
from trio.testing import MockClock

from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sqlite import Connection, Database, open_database
from kirostream.telemetry import usage, usage_tables
from kirostream.telemetry.facts import Fact, ServiceChanged, SinkRecovered, SinkTroubled, TurnFinished
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger, Only, Step, Totals, UsageSettings, open_ledger

T = TypeVar("T")

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0

TURN = TurnFinished(
    turn="0" * 32,
    key="default",
    dialect="anthropic",
    model_asked="sonnet",
    model_used="claude-sonnet-4.5",
    account="a***@example.com",
    account_id="kiro-1",
    outcome="end",
    attempts=1,
    seconds=4.5,
    first_event=0.5,
    input_tokens=1000,
    output_tokens=200,
    cache_read_tokens=600,
    cache_write_tokens=100,
    credits=0.25,
)


@dataclass
class Desk:
    """A ledger, its clock, and what it told."""

    ledger: Ledger
    database: Database
    told: list[Fact]
    now: float = NOON

    def take(self, at: float | None = None, **said: Any) -> None:
        self.now = self.now if at is None else at
        self.ledger.take(replace(TURN, **said))


@asynccontextmanager
async def desk(folder: Path, zone: tzinfo = UTC, **settings: Any) -> AsyncIterator[Desk]:
    told: list[Fact] = []
    async with open_database(folder / "a.db") as database:
        made: Desk
        ledger = Ledger(database, UsageSettings(**settings), told.append, lambda: made.now, zone)
        made = Desk(ledger, database, told)
        yield made


async def until(true: Callable[[], bool]) -> None:
    """Wait for what a thread does, for which a clock that jumps does not wait."""
    while not true():
        await trio.sleep(0.01)


async def count(database: Database, table: str) -> int:
    (found,) = await database.read(lambda c: c.execute(f"SELECT COUNT(*) FROM {table}").fetchone())
    return int(found)


# -- one turn


async def test_a_turn_is_a_row(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.take()
        (turn,) = await at.ledger.turns()
    assert turn == usage.TurnUsage(
        number=1,
        at=NOON,
        turn="0" * 32,
        key="default",
        dialect="anthropic",
        model_asked="sonnet",
        model="claude-sonnet-4.5",
        account="kiro-1",
        account_label="a***@example.com",
        input_tokens=1000,
        output_tokens=200,
        cache_read_tokens=600,
        cache_write_tokens=100,
        credits=0.25,
        first_token=0.5,
        seconds=4.5,
        tokens_per_second=50.0,
        attempts=1,
        outcome="end",
        error="",
    )


async def test_a_turn_that_nothing_came_of(tmp_path: Path) -> None:
    failed: dict[str, Any] = {
        "outcome": "failed",
        "error": "NoAccount",
        "first_event": None,
        "credits": None,
        "output_tokens": 0,
    }
    async with desk(tmp_path) as at:
        at.take(None, account="", account_id="", **failed)
        at.take(outcome="left", first_event=None)
        (left, turn) = await at.ledger.turns()
        totals = await at.ledger.totals()
    assert (turn.error, turn.first_token, turn.credits, turn.tokens_per_second) == ("NoAccount", None, None, None)
    assert (turn.account, turn.account_label) == ("", "")
    assert left.outcome == "left"
    assert (totals.turns, totals.failed, totals.abandoned) == (2, 1, 1)
    assert (totals.first_token, totals.tokens_per_second) == (None, None)


async def test_only_turns_are_written_down(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.ledger.take(ServiceChanged(service="gateway", state="listening"))
        assert await at.ledger.turns() == []


async def test_a_name_that_a_client_made_up_is_cut(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.take(model_asked="m" * 100_000, model_used="m" * 100_000)
        (turn,) = await at.ledger.turns()
    assert len(turn.model_asked) == len(turn.model) == usage.LONGEST_NAME


async def test_an_account_is_called_as_it_was_called_last(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.take(account="before")
        at.take(account="after")
        assert [turn.account_label for turn in await at.ledger.turns()] == ["after", "after"]
        (share,) = await at.ledger.query("account")
    assert (share.name, share.label, share.totals.turns) == ("kiro-1", "after", 2)


# -- sums


def plain(turns: list[usage.TurnUsage]) -> Totals:
    """The totals of turns, added up the simple way."""
    begun = [turn for turn in turns if turn.first_token is not None]
    streamed = sum(turn.seconds - (turn.first_token or 0) for turn in begun)
    output = sum(turn.output_tokens for turn in turns)
    return Totals(
        turns=len(turns),
        failed=sum(turn.outcome == "failed" for turn in turns),
        abandoned=sum(turn.outcome == "left" for turn in turns),
        attempts=sum(turn.attempts for turn in turns),
        input_tokens=sum(turn.input_tokens for turn in turns),
        output_tokens=output,
        cache_read_tokens=sum(turn.cache_read_tokens for turn in turns),
        cache_write_tokens=sum(turn.cache_write_tokens for turn in turns),
        credits=round(sum(turn.credits or 0 for turn in turns), 6),
        seconds=round(sum(turn.seconds for turn in turns), 3),
        first_token=round(sum(turn.first_token or 0 for turn in begun) / len(begun), 4) if begun else None,
        tokens_per_second=round(output / streamed, 2) if streamed else None,
    )


def close(one: Totals, other: Totals) -> bool:
    """Equal, but for the last digit of a sum of fractions."""
    return all(
        getattr(one, name) == getattr(other, name) or abs(getattr(one, name) - getattr(other, name)) < 0.02
        for name in Totals.__struct_fields__
    )


def some_turn(chance: random.Random) -> dict[str, Any]:
    return {
        "key": chance.choice(("default", "laptop")),
        "model_used": chance.choice(("claude-sonnet-4.5", "claude-haiku-4.5", "auto")),
        "account_id": chance.choice(("kiro-1", "kiro-2", "")),
        "outcome": chance.choice(("end", "end", "tool_use", "failed", "left")),
        "attempts": chance.randint(1, 3),
        "output_tokens": chance.randint(0, 5000),
        "credits": chance.choice((None, 0.5, 1.25)),
        "first_event": chance.choice((None, 0.25, 2.0)),
    }


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "Europe/Berlin", "Asia/Shanghai"])
async def test_sums_are_those_of_the_turns(zone: str, tmp_path: Path) -> None:
    """Whatever a span begins and ends with: days, hours and turns are put together without gap or overlap."""
    chance = random.Random(zone)
    there = ZoneInfo(zone)
    start = datetime(2026, 10, 23, 9, 17, tzinfo=UTC).timestamp()  # clocks go back in Berlin two days later
    async with desk(tmp_path, there) as at:
        moments = sorted(start + chance.random() * 5 * DAY for _ in range(600))
        for moment in moments:
            at.take(moment, **some_turn(chance))
        at.now = moments[-1]
        every = await at.ledger.turns(most=1000)
        assert len(every) == 600
        assert close(await at.ledger.totals(), plain(every))
        edges = [
            start,
            moments[300],
            start + DAY,
            start // HOUR * HOUR,
            *(start + chance.random() * 5 * DAY for _ in "1234567"),
        ]
        for since in edges:
            for until in (*(edge for edge in edges if edge > since), None):
                chosen = [turn for turn in every if since <= turn.at and (until is None or turn.at < until)]
                assert close(await at.ledger.totals(since=since, until=until), plain(chosen)), (since, until)
                only = Only(key="laptop", account="kiro-2")
                few = [turn for turn in chosen if (turn.key, turn.account) == ("laptop", "kiro-2")]
                assert close(await at.ledger.totals(since=since, until=until, only=only), plain(few))
            for by, name in (("model", "model"), ("key", "key"), ("account", "account")):
                shares = await at.ledger.query(by, since)  # type: ignore[arg-type]
                late = [turn for turn in every if turn.at >= since]
                assert {share.name for share in shares} == {getattr(turn, name) for turn in late}
                for share in shares:
                    assert close(share.totals, plain([t for t in late if getattr(t, name) == share.name]))
                assert [s.totals.credits for s in shares] == sorted((s.totals.credits for s in shares), reverse=True)
            days = await at.ledger.query("day", since)
            dates = {str(datetime.fromtimestamp(turn.at, there).date()) for turn in late}
            assert [day.name for day in days] == sorted(dates)


@pytest.mark.parametrize("step", list(usage.STEPS))
async def test_a_series_has_a_bucket_for_every_stretch(step: Step, tmp_path: Path) -> None:
    chance = random.Random(step)
    width = usage.STEPS[step]
    since, until = NOON - 5.5 * width, NOON + 0.25 * width
    async with desk(tmp_path, ZoneInfo("Asia/Kolkata")) as at:
        for moment in sorted(since + chance.random() * (until - since) for _ in range(200)):
            at.take(moment, **some_turn(chance))
        every = await at.ledger.turns(most=1000)
        found = await at.ledger.series(step, since, until)
        laptop = await at.ledger.series(step, since, until, only=Only(key="laptop"))
    starts = [bucket.at for bucket in found]
    assert starts[0] <= since < starts[0] + width
    assert starts[-1] <= until < starts[-1] + width
    assert [b - a for a, b in pairwise(starts)] == [width] * (len(starts) - 1)
    for bucket in found:
        assert close(bucket.totals, plain([t for t in every if bucket.at <= t.at < bucket.at + width]))
    assert sum(bucket.totals.turns for bucket in laptop) == sum(turn.key == "laptop" for turn in every)


async def test_a_day_that_has_25_hours(tmp_path: Path) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    since = datetime(2026, 10, 24, tzinfo=berlin).timestamp()
    async with desk(tmp_path, berlin) as at:
        found = await at.ledger.series("day", since, since + 4 * DAY)
    assert [b.at - a.at for a, b in pairwise(found)] == [24 * HOUR, 25 * HOUR, 24 * HOUR]


async def test_a_series_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        with pytest.raises(SettingsError, match="longer step"):
            await at.ledger.series("minute", NOON - 30 * DAY)


async def test_the_totals_of_a_key_since_a_moment(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.take(NOON - 3 * DAY, key="laptop")
        at.take(NOON - 60, key="laptop")
        at.take(NOON - 60, key="phone")
        at.now = NOON
        assert (await at.ledger.totals("laptop", NOON - DAY)).credits == 0.25
        assert (await at.ledger.totals("laptop", 0.0)).credits == 0.5
        assert (await at.ledger.totals("nobody", 0.0)) == Totals()


# -- single turns


async def test_turns_come_by_the_page(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        for number in range(25):
            at.take(NOON + number, outcome="failed" if number % 5 == 0 else "end")
        pages = [await at.ledger.turns(most=10)]
        while len(pages[-1]) == 10:
            pages.append(await at.ledger.turns(most=10, before=pages[-1][-1].number))
        assert [turn.at - NOON for page in pages for turn in page] == list(range(24, -1, -1))
        assert len(await at.ledger.turns(outcome="failed")) == 5
        assert len(await at.ledger.turns(outcome="ok")) == 20
        assert [turn.at - NOON for turn in await at.ledger.turns(since=NOON + 3, until=NOON + 5)] == [4, 3]
        assert [turn.at - NOON for turn in await at.ledger.turns(after=pages[0][-1].number, most=2)] == [16, 17]
        assert await at.ledger.turns(only=Only(model="none")) == []


async def test_no_query_reads_more_single_turns_than_it_has_to(tmp_path: Path) -> None:
    """By the plans of its statements: single turns are found by time or along the ids, sums by their days."""
    seen: list[str] = []

    class Looking:
        """Explains each statement before it runs."""

        def __init__(self, connection: Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, values: Any = ()) -> Any:
            plan = self._connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            seen.extend(row[3] for row in plan)
            return self._connection.execute(statement, values)

    async with desk(tmp_path) as at:
        plainly = at.database.read

        async def read(work: Callable[[Connection], T]) -> T:
            return await plainly(lambda c: work(Looking(c)))  # type: ignore[arg-type]

        at.database.read = read  # type: ignore[method-assign]
        at.take()
        for by in usage_tables.DIMENSIONS:
            await at.ledger.query(by, NOON - 40 * DAY, only=Only(key="default"))
        await at.ledger.totals("default", NOON - 40 * DAY)
        await at.ledger.series("minute", NOON - HOUR)
        await at.ledger.series("hour", NOON - DAY)
        await at.ledger.turns(before=7)
    tables = {line.split()[1] for line in seen if line.split()[0] in ("SEARCH", "SCAN")}
    assert {"usage", "usage_days", "usage_hours", "usage_accounts"} <= tables
    assert [line for line in seen if line.startswith("SCAN") and "usage_accounts" not in line] == []
    assert any("usage_by_time" in line for line in seen)


# -- writing


async def test_what_is_taken_is_written_after_the_interval(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path, interval=1.0) as at, trio.open_nursery() as nursery:
        nursery.start_soon(at.ledger.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            at.take()
        await trio.sleep(0.9)
        assert at.ledger.snapshot().queued == 3
        await until(lambda: not at.ledger.snapshot().queued)
        assert await count(at.database, "usage") == 3
        nursery.cancel_scope.cancel()


async def test_what_is_left_at_the_end_is_written(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db") as database:
        recorder = Recorder()
        async with open_ledger(database, UsageSettings(), recorder.record) as ledger:
            assert ledger is not None
            with recorder.adding(ledger.take):
                recorder.record(TURN)
            recorder.record(TURN)  # nobody listens any more
        assert await count(database, "usage") == 1
        async with open_ledger(database, UsageSettings(enabled=False), recorder.record) as ledger:
            assert ledger is None


@dataclass
class Shut:
    """A database that cannot be written while it is `shut`."""

    database: Database
    shut: bool = True
    tries: list[float] = field(default_factory=list)

    async def write(self, work: Callable[[Connection], T]) -> T:
        await trio.lowlevel.checkpoint()
        self.tries.append(trio.current_time())
        if self.shut:
            raise StoreError("cannot use the database: database or disk is full", reason="SQLITE_FULL")
        return await self.database.write(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self.database.read(work)


async def test_a_full_disk_is_told_once_and_nothing_is_lost_that_fits_in_the_queue(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path, queue=5) as at, trio.open_nursery() as nursery:
        shut = Shut(at.database)
        at.ledger._database = shut  # type: ignore[assignment]
        nursery.start_soon(at.ledger.run)
        for _ in range(7):
            at.take()
        await trio.sleep(35)
        assert len(shut.tries) == 4  # after a second, and every ten
        assert at.told == [
            SinkTroubled(sink="usage ledger", message="cannot use the database: database or disk is full")
        ]
        snapshot = at.ledger.snapshot()
        assert (snapshot.queued, snapshot.written, snapshot.dropped) == (5, 0, 2)
        assert "full" in snapshot.trouble
        assert (await at.ledger.totals()).turns == 0  # a query still answers
        shut.shut = False
        await until(lambda: not at.ledger.snapshot().queued)
        snapshot = at.ledger.snapshot()
        assert (snapshot.queued, snapshot.written, snapshot.dropped, snapshot.trouble) == (0, 5, 2, "")
        assert at.told[1:] == [SinkRecovered(sink="usage ledger", lost=2)]
        assert (await at.ledger.totals()).turns == 5
        nursery.cancel_scope.cancel()


async def test_two_queries_at_once_write_a_turn_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        for _ in range(3000):
            at.take()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(at.ledger.flush)
        assert (await at.ledger.totals()).turns == await count(at.database, "usage") == 3000


# -- retention


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with desk(tmp_path, days=10, total_days=100) as at:
        for days in (150, 50, 11, 9, 0):
            at.take(NOON - days * DAY, account_id=f"kiro-{days}")
        await at.ledger.flush()
        await at.ledger.forget()
        assert [(NOON - turn.at) / DAY for turn in await at.ledger.turns()] == [0, 9]
        assert await count(at.database, "usage_hours") == 2
        assert [day.name for day in await at.ledger.query("day")] == [
            "2026-10-02",
            "2026-11-10",
            "2026-11-12",
            "2026-11-21",
        ]
        assert await count(at.database, "usage_accounts") == 4


async def test_what_is_too_much_goes_oldest_first(tmp_path: Path) -> None:
    async with desk(tmp_path, most=1500) as at:
        for number in range(4000):
            at.take(NOON + number)
        await at.ledger.flush()
        await at.ledger.forget()
        assert await count(at.database, "usage") == 1500
        assert (await at.ledger.turns(most=1))[0].at == NOON + 3999
        assert (await at.ledger.query("day"))[0].totals.turns == 4000  # sums are not single turns


async def test_it_is_forgotten_once_an_hour(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path, days=1) as at, trio.open_nursery() as nursery:
        nursery.start_soon(at.ledger.run)
        forgotten: list[float] = []
        forget = at.ledger.forget

        async def counting() -> None:
            now = at.now
            await forget()
            forgotten.append(now - NOON)

        at.ledger.forget = counting  # type: ignore[method-assign]
        for number, later in enumerate((0.0, 60.0, HOUR - 1, HOUR, HOUR + 60, 3 * DAY), 1):
            at.take(NOON + later)
            await until(lambda number=number: at.ledger.snapshot().written == number)  # type: ignore[misc]
        await until(lambda: forgotten[-1] == 3 * DAY)
        assert forgotten == [0.0, HOUR, 3 * DAY]
        assert [turn.at for turn in await at.ledger.turns()] == [NOON + 3 * DAY]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [{"interval": 0.0}, {"days": -1.0}, {"queue": 0}, {"most": 0}, {"total_days": 0.0}])
def test_figures_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        UsageSettings(**wrong)
