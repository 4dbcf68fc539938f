"""How long the panel waits for the usage ledger, with many turns in it.

The ledger is filled with turns of several keys, models and accounts, once spread over as many days as single turns are
kept, and once within a single day, which is the harder case: what a query reads grows with days. Then each query of the
panel is asked several times; a figure is the wall time of the slowest, in milliseconds, with the thread hop and without
anybody else in the process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.table import Table

from bench import report
from kirostream.stores.sqlite import open_database
from kirostream.telemetry import usage_tables
from kirostream.telemetry.facts import Fact, TurnFinished
from kirostream.telemetry.usage import Ledger, Only, UsageSettings

GOAL_MS: Final = 100.0
DAY: Final = 86_400.0
KEYS, MODELS, ACCOUNTS = 5, 8, 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--turns", type=int, default=100_000, help="in the ledger (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="each query is asked so often (%(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a short run that only shows that everything works")
    parser.add_argument("--json", type=Path, default=None, help="where the numbers go")
    parser.add_argument("--no-save", action="store_true", help="do not write a file into bench/results")


def facts(count: int, chance: random.Random) -> Iterator[TurnFinished]:
    """Turns as a busy gateway has them."""
    for number in range(count):
        seconds = chance.uniform(1, 30)
        account = chance.randrange(ACCOUNTS)
        yield TurnFinished(
            turn=f"{number:032x}",
            key=f"key {chance.randrange(KEYS)}",
            dialect="anthropic",
            model_asked="claude-sonnet-4-5",
            model_used=f"claude-{chance.randrange(MODELS)}",
            account=f"a***{account}@example.com",
            account_id=f"social-{account:016x}",
            outcome=chance.choices(("end", "tool_use", "failed", "left"), (50, 40, 5, 5))[0],
            attempts=1,
            seconds=seconds,
            first_event=seconds / 10,
            input_tokens=chance.randrange(100_000),
            output_tokens=chance.randrange(2000),
            cache_read_tokens=chance.randrange(50_000),
            credits=chance.random(),
        )


Query = Callable[[Ledger, float], Awaitable[Any]]
QUERIES: Final[dict[str, Query]] = {
    "all there is": lambda ledger, now: ledger.totals(),
    "the last 24 hours": lambda ledger, now: ledger.totals(since=now - DAY),
    "a key, this month": lambda ledger, now: ledger.totals("key 1", now - 30 * DAY),
    "by day": lambda ledger, now: ledger.query("day"),
    "by model": lambda ledger, now: ledger.query("model"),
    "by key": lambda ledger, now: ledger.query("key"),
    "by account": lambda ledger, now: ledger.query("account"),
    "by account, of a key, 30 days": lambda ledger, now: ledger.query(
        "account", now - 30 * DAY, only=Only(key="key 1")
    ),
    "chart, an hour by minutes": lambda ledger, now: ledger.series("minute", now - 3600),
    "chart, a week by hours": lambda ledger, now: ledger.series("hour", now - 7 * DAY),
    "chart, 90 days": lambda ledger, now: ledger.series("day", now - 90 * DAY),
    "the newest 100 turns": lambda ledger, now: ledger.turns(),
    "the newest 100 failures of a key": lambda ledger, now: ledger.turns(outcome="failed", only=Only(key="key 1")),
    "turns of an account that has none": lambda ledger, now: ledger.turns(only=Only(account="none")),
}


async def measure(folder: Path, options: argparse.Namespace, days: float) -> dict[str, list[float]]:
    """Milliseconds of each query, of each round. `filling` is in microseconds a turn."""
    chance = random.Random(options.seed)
    now = time.time()
    begin = now - days * DAY
    took: dict[str, list[float]] = {name: [] for name in QUERIES}

    def ignore(fact: Fact) -> None:
        pass

    async with open_database(folder / f"{days}.db") as database:
        moments = iter(sorted(begin + chance.random() * days * DAY for _ in range(options.turns)))
        ledger = Ledger(database, UsageSettings(queue=options.turns), ignore, lambda: next(moments, now))
        for fact in facts(options.turns, chance):
            ledger.take(fact)
        began = time.perf_counter()
        await ledger.flush()
        took["filling"] = [(time.perf_counter() - began) * 1e6 / options.turns]
        reader = Ledger(database, UsageSettings(), ignore)
        for _ in range(options.rounds):
            for name, query in QUERIES.items():
                began = time.perf_counter()
                await query(reader, now)
                took[name].append((time.perf_counter() - began) * 1e3)
        rows = {
            table: await database.read(lambda c, table=table: c.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # type: ignore[misc]
            for table in ("usage", "usage_hours", "usage_days")
        }
        assert rows["usage"] == options.turns, rows
        assert (await reader.totals()).turns == options.turns
    return took


def run(options: argparse.Namespace) -> int:
    """Fill, ask, and show. 1: a query took longer than the goal."""
    if options.quick:
        vars(options).update(turns=5_000, rounds=2)
    spans = {"over 90 days": 90.0, "within a day": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: trio.run(measure, Path(folder), options, days) for name, days in spans.items()}
    table = Table(title=f"{options.turns:,} turns in the ledger: ms of a query, median / slowest of {options.rounds}")
    table.add_column("query")
    for name in spans:
        table.add_column(name, justify="right")
    for query in QUERIES:
        cells = (f"{statistics.median(found[name][query]):.1f} / {max(found[name][query]):.1f}" for name in spans)
        table.add_row(query, *cells)
    console = Console()
    console.print(table)
    slowest = max(max(found[name][query]) for name in spans for query in QUERIES)
    filling = ", ".join(f"{found[name]['filling'][0]:.0f} us {name}" for name in spans)
    console.print(f"The slowest took {slowest:.1f} ms; the goal is {GOAL_MS:g} ms. Writing takes a turn {filling}.")
    result = {
        "machine": report.machine(),
        "turns": options.turns,
        "goal_ms": GOAL_MS,
        "slowest_ms": round(slowest, 2),
        "ms": {
            name: {query: [round(ms, 2) for ms in took] for query, took in of.items()} for name, of in found.items()
        },
        "dimensions": {"keys": KEYS, "models": MODELS, "accounts": ACCOUNTS, "by": list(usage_tables.DIMENSIONS)},
    }
    if not options.no_save:
        console.print(f"written to {report.save('ledger', result, options.json)}")
    return 0 if slowest <= GOAL_MS else 1
