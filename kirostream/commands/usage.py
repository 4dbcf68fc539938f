"""``kirostream usage``: what turns cost, from the ledger of the data directory, whether or not a gateway runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from kirostream.errors import SettingsError

if TYPE_CHECKING:
    from kirostream.telemetry.usage import Ledger, Only, Share, TurnUsage
    from kirostream.telemetry.usage_export import Form

T = TypeVar("T")

SHOWN: Final = 50
"""Single turns in a table."""


class By(StrEnum):
    """What is told apart."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    ACCOUNT = "account"


def usage(
    by: Annotated[By, typer.Option("--by", help="What is told apart.")] = By.DAY,
    since: Annotated[str, typer.Option(help="How long ago (24h, 7d), or a date (2026-11-21).")] = "30d",
    until: Annotated[str, typer.Option(help="The same; empty: now.")] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only turns of these: key=NAME, model=NAME or account=ID. Several narrow it."),
    ] = None,
    turns: Annotated[
        bool, typer.Option("--turns", help="Single turns: the newest in a table, all with --json or --csv.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")] = None,
) -> None:
    """What turns cost: tokens, credits and times, by day, model, key or account."""
    from kirostream.telemetry.times import moment

    if as_json and as_csv:
        raise SettingsError("Both --json and --csv were given. Say one of them.")
    now = time.time()
    begin, end = moment(since, now), moment(until, now) if until else None
    chosen = _only(only or [])
    form: Form | None = "json" if as_json else "csv" if as_csv else None
    try:
        if not turns:
            shares = _with_ledger(config, lambda ledger: ledger.query(by.value, begin, end, only=chosen))
            _show(shares, by, form)
        elif form is None:
            rows = _with_ledger(config, lambda ledger: ledger.turns(since=begin, until=end, only=chosen, most=SHOWN))
            _show_turns(rows)
        else:
            whole = form
            _with_ledger(config, lambda ledger: _write(ledger, whole, begin, end, chosen))
        sys.stdout.flush()
    except* BrokenPipeError:  # whoever read has enough; what is in the buffer is nobody's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _only(said: list[str]) -> Only:
    """Which turns are meant by ``key=laptop`` and the like."""
    from kirostream.telemetry.usage import Only

    chosen = {}
    for each in said:
        name, equals, value = each.partition("=")
        if name not in ("key", "model", "account") or not equals or not value:
            raise SettingsError(f"--only takes key=NAME, model=NAME or account=ID, not {each[:40]!r}.")
        chosen[name] = value
    return Only(**chosen)


def _with_ledger(config: Path | None, work: Callable[[Ledger], Awaitable[T]]) -> T:
    import trio

    from kirostream.settings import DATABASE, data_dir, load
    from kirostream.stores.sqlite import open_database
    from kirostream.telemetry.usage import Ledger

    settings = load(os.environ, path=config).usage
    path = data_dir(os.environ) / DATABASE
    if not path.exists():
        raise SettingsError(f"There is no ledger in {path.parent}: no gateway has run with this data directory yet.")

    async def main() -> T:
        async with open_database(path) as database:
            return await work(Ledger(database, settings, lambda fact: None))

    return trio.run(main)


async def _write(ledger: Ledger, form: Form, since: float, until: float | None, only: Only) -> None:
    from kirostream.telemetry.usage_export import export

    async for part in export(ledger, form, since=since, until=until, only=only):
        sys.stdout.buffer.write(part)


def _show(shares: list[Share], by: By, form: Form | None) -> None:
    import msgspec

    from kirostream.telemetry.usage_export import shares_csv

    if form == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(shares), indent=2))
    elif form == "csv":
        sys.stdout.buffer.write(shares_csv(shares))
    elif not shares:
        typer.echo("No turns.")
    else:
        named = by is not By.ACCOUNT
        rows = [[each.name if named else f"{each.label}  {each.name}".strip(), *_cells(each)] for each in shares]
        _table([by.value, *_COLUMNS], rows)


_COLUMNS: Final = ("turns", "failed", "input", "output", "from cache", "credits", "first token", "tokens/s")


def _cells(share: Share) -> list[str]:
    of = share.totals
    return [
        f"{of.turns:,}",
        f"{of.failed:,}",
        f"{of.input_tokens:,}",
        f"{of.output_tokens:,}",
        f"{of.cache_read_tokens:,}",
        f"{of.credits:,.2f}",
        "" if of.first_token is None else f"{of.first_token:.2f} s",
        "" if of.tokens_per_second is None else f"{of.tokens_per_second:.0f}",
    ]


def _show_turns(rows: list[TurnUsage]) -> None:
    from datetime import datetime

    if not rows:
        typer.echo("No turns.")
        return
    head = ["ended", "key", "model", "account", "input", "output", "credits", "first token", "took", "outcome"]
    _table(
        head,
        [
            [
                datetime.fromtimestamp(row.at).astimezone().strftime("%m-%d %H:%M:%S"),
                row.key,
                row.model,
                row.account_label,
                f"{row.input_tokens:,}",
                f"{row.output_tokens:,}",
                "" if row.credits is None else f"{row.credits:.3f}",
                "" if row.first_token is None else f"{row.first_token:.2f} s",
                f"{row.seconds:.1f} s",
                row.error or row.outcome,
            ]
            for row in rows
        ],
        words=4,
    )


def _table(columns: list[str], rows: list[list[str]], words: int = 1) -> None:
    """A table whose first columns are words, and the others figures."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right", no_wrap=number >= words)
    for row in rows:
        table.add_row(*(Text(_clean(cell)) for cell in row))
    Console(highlight=False, markup=False).print(table)


def _clean(text: str) -> str:
    """The text without control characters, which a terminal would obey: a model's name is a client's to choose."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
