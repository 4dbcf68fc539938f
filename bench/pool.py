"""Lease an account, settle, give it back: time and CPU at 1, 10, 100 and 1,000 accounts, in memory and in SQLite.

One lease after another by one task, for 4,096 conversations in turn, each kept on its account. The rows:

- **memory**: nothing is kept;
- **sqlite**: as `kirostream serve` has it. Health is kept, and an answer changes none, so no lease costs a transaction;
- **sqlite, shared**: every account has a cap, and many processes lease: two transactions a lease;
- **half out**: memory; before the measurement every other account was throttled, so its pause is in the way;
- **changing**: memory; every lease is throttled for a second, and every account comes back in time: the worst case.

Before anything is timed, the leases of each row are checked: each account has its share. Rounds are interleaved, in an
order shuffled by the seed. A ratio is the median of the rounds' own ratios of CPU time, so that it compares what ran at
the same time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.table import Table

from bench import report
from kirostream.accounts.account import Account, AccountId, AuthMethod
from kirostream.accounts.board import Need
from kirostream.accounts.health import SERVED, HealthSettings, Kind, Outcome
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store import MemoryPoolStore, PoolStore
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.accounts.strategies import STRATEGIES
from kirostream.stores.sqlite import open_database

SIZES: Final = (1, 10, 100, 1000)
GOAL: Final = 2.0
"""A lease with 1,000 accounts costs less than so many times that with 10."""
NOW: Final = 1_767_225_600.0
CONVERSATIONS: Final = tuple(Need("claude-sonnet-4.5", f"conversation {n}") for n in range(4096))


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured: a store, and what becomes of the leases."""

    name: str
    strategy: str = "round_robin"
    sqlite: bool = False
    shared: bool = False
    half_out: bool = False
    changing: bool = False
    share: int = 1
    """The part of the leases of a round that this row makes: 10 for a tenth."""


ROWS: Final = (
    *(Row(f"memory, {name}", name) for name in STRATEGIES),
    Row("memory, half out", half_out=True),
    Row("memory, changing", changing=True),
    Row("sqlite", sqlite=True),
    Row("sqlite, shared", sqlite=True, shared=True, share=20),
)


@dataclass
class Clock:
    """Unix seconds that go on when they are told to."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A pool that is ready to be measured."""

    row: Row
    size: int
    pool: Pool
    clock: Clock
    at: int = 0
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    async def lease(self, count: int) -> None:
        """So many leases, one after another."""
        pool, needs, at = self.pool, CONVERSATIONS, self.at
        if self.row.changing:
            throttled, step = Outcome(Kind.THROTTLED, 1.0), 1.5 / self.size
            for number in range(at, at + count):
                self.clock.now += step
                async with pool.lease(needs[number % 4096]) as lease:
                    lease.settle(throttled)
        else:
            for number in range(at, at + count):
                async with pool.lease(needs[number % 4096]) as lease:
                    lease.settle(SERVED)
        self.at += count

    async def round(self, count: int) -> None:
        """Measure so many leases."""
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        await self.lease(count)
        self.cpu.append((time.process_time_ns() - cpu) / 1e3 / count)
        self.wall.append((time.perf_counter_ns() - wall) / 1e3 / count)

    async def check(self) -> None:
        """Everybody who can be leased was leased, and nothing is held."""
        await self.lease(min(4 * self.size, 4096))
        now = self.pool.snapshot()
        ready = [account for account in now.accounts if account.leases > 1 or account.why != "day spent"]
        idle = [account.id for account in ready if not account.leases]
        if now.in_flight or now.waiting or (idle and self.row.strategy != "weighted"):
            raise AssertionError(f"{self.row.name} with {self.size} accounts: {len(idle)} were never leased")


@asynccontextmanager
async def opened(row: Row, size: int, folder: Path, seed: int) -> AsyncIterator[Bench]:
    """A pool of `size` accounts, as `row` has it."""
    clock = Clock()
    accounts: dict[str, object] = {"*": {"concurrency": 4}} if row.shared else {}
    settings = PoolSettings(strategy=row.strategy, accounts=accounts, health=HealthSettings(throttle=1.0))

    def make(store: PoolStore, now: Callable[[], float]) -> Pool:
        pool = Pool(settings, store, clock=now, draw=random.Random(seed).random)
        for number in range(size):
            pool.add(Account(id=AccountId(f"bench-{number}"), label="bench", auth=AuthMethod.SOCIAL))
        return pool

    if row.sqlite:
        async with open_database(folder / f"{row.name}-{size}.db") as database:
            pool = make(SqlitePoolStore(database, shared=row.shared), clock)
            await pool.sync()
            yield Bench(row, size, pool, clock)
        return
    pool = make(MemoryPoolStore(), clock)
    if row.half_out:
        for _ in range(size // 2):
            async with pool.lease() as lease:
                lease.settle(Outcome(Kind.DAY_SPENT))
    yield Bench(row, size, pool, clock)


async def measure(rows: Sequence[Row], rounds: int, leases: int, seed: int) -> list[Bench]:
    """Every row at every size, `rounds` times."""
    benches: list[Bench] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            for row in rows:
                for size in SIZES:
                    bench = await stack.enter_async_context(opened(row, size, Path(folder), seed))
                    await bench.check()
                    benches.append(bench)
            order = random.Random(seed)
            for _ in range(rounds):
                for bench in order.sample(benches, len(benches)):
                    await bench.round(max(leases // bench.row.share, 1))
    return benches


def summarize(benches: Sequence[Bench]) -> list[dict[str, Any]]:
    """A dictionary a row and size; `ratio` is CPU over that of ten accounts in the same round."""
    ten = {bench.row.name: bench.cpu for bench in benches if bench.size == 10}
    return [
        {
            "row": bench.row.name,
            "accounts": bench.size,
            "cpu_us": round(statistics.median(bench.cpu), 3),
            "wall_us": round(statistics.median(bench.wall), 3),
            "best_us": round(min(bench.cpu), 3),
            "ratio": round(
                statistics.median(here / there for here, there in zip(bench.cpu, ten[bench.row.name], strict=True)), 3
            ),
            "all_cpu_us": [round(each, 3) for each in bench.cpu],
        }
        for bench in benches
    ]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    out = Table(title="lease and settle, us of CPU (of wall clock), by number of accounts", title_justify="left")
    out.add_column("row", no_wrap=True)
    for size in SIZES:
        out.add_column(f"{size:,}", justify="right", no_wrap=True)
    out.add_column("1,000 / 10", justify="right")
    by_row: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_row.setdefault(row["row"], []).append(row)
    for name, sizes in by_row.items():
        cells = [f"{row['cpu_us']:.1f} ({row['wall_us']:.1f})" for row in sizes]
        out.add_row(name, *cells, f"{sizes[-1]['ratio']:.2f}")
    return out


def judge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "goal": f"{row['row']}: 1,000 accounts cost less than {GOAL:g} times 10",
            "measured": row["ratio"],
            "met": row["ratio"] < GOAL,
        }
        for row in rows
        if row["accounts"] == SIZES[-1]
    ]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=21, help="measurements a row and size (default %(default)s)")
    add("--leases", type=int, default=2000, help="leases a measurement (default %(default)s)")
    add("--seed", type=int, default=1, help="of chance and of the order (default %(default)s)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file")


def run(options: argparse.Namespace) -> int:
    console = Console()
    where = report.machine()
    rounds, leases = (3, 200) if options.quick else (options.rounds, options.leases)
    rows = summarize(trio.run(measure, ROWS, rounds, leases, options.seed))
    console.print(table(rows))
    goals = judge(rows)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:.2f}", soft_wrap=True)
    if not options.no_save:
        result = {
            "machine": where,
            "versions": report.versions(["kirostream", "trio"]),
            "seed": options.seed,
            "rounds": rounds,
            "leases": leases,
            "results": rows,
            "goals": goals,
        }
        path = report.save("pool", result, options.json)
        console.print(f"written: {path}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
