"""The tables of the usage ledger: how a turn is written, and how a span of time is added up.

A turn is written three times in one transaction: as a row of its own, and into the sums of its hour and of its day, by
key, model and account. A span is then three kinds of rows, of which each turn is in exactly one:

- the days that lie whole in it, from their sums;
- of the first and the last day, the hours that lie whole in it, from theirs;
- of the first and the last hour, the turns.

So what a query reads grows with days, not with turns, and is exact to the turn all the same. A day is a date of the
gateway's own time zone, kept with each turn as it was written, so that sums stay right when the zone changes; an hour
that belongs to two dates (in a zone that is off by half an hour) has two rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from kirostream.stores.sqlite import Connection

HOUR: Final = 3600
Dimension: TypeAlias = Literal["day", "model", "key", "account"]
"""What sums can be told apart by."""
DIMENSIONS: Final[tuple[Dimension, ...]] = ("day", "model", "key", "account")

Row: TypeAlias = tuple[Any, ...]
"""Of `usage`, in the order of `COLUMNS`."""
COLUMNS: Final = (
    "at",
    "day",
    "turn",
    "key",
    "dialect",
    "model_asked",
    "model",
    "account",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "credits",
    "first_token",
    "seconds",
    "attempts",
    "outcome",
    "error",
)

# Every sum, and what one turn adds to it.
_ADDED: Final = {
    "turns": "1",
    "failed": "outcome = 'failed'",
    "abandoned": "outcome = 'left'",
    "attempts": "attempts",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "credits": "IFNULL(credits, 0)",
    "seconds": "seconds",
    "begun": "first_token IS NOT NULL",
    "first_token": "IFNULL(first_token, 0)",
    "streamed": "IFNULL(seconds - first_token, 0)",
}
SUMS: Final = tuple(_ADDED)
_OF_TURNS: Final = ", ".join(f"TOTAL({what})" for what in _ADDED.values())
_OF_SUMS: Final = ", ".join(f"TOTAL({name})" for name in _ADDED)

# Only names from this module are put into statements; what comes from outside is always a parameter.
_INSERT: Final = f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_MORE: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)


def _roll_up(table: str, place: str) -> str:
    return (
        f"INSERT INTO {table} ({place}, key, model, account, {', '.join(SUMS)})"  # noqa: S608
        f" SELECT {', '.join(_PLACES[each] for each in place.split(', '))}, key, model, account,"
        f" {', '.join(_ADDED.values())} FROM usage WHERE id > ? ORDER BY id"
        f" ON CONFLICT ({place}, key, model, account) DO UPDATE SET {_MORE}"
    )


_PLACES: Final = {"day": "day", "hour": f"CAST(at / {HOUR} AS INTEGER)"}
_HOURS: Final = _roll_up("usage_hours", "day, hour")
_DAYS: Final = _roll_up("usage_days", "day")


def write(connection: Connection, rows: Iterable[Row], labels: Mapping[str, str]) -> None:
    """Write turns, and what the accounts are called that they were asked on."""
    (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) FROM usage").fetchone()
    connection.executemany(_INSERT, rows)
    connection.execute(_HOURS, (last,))
    connection.execute(_DAYS, (last,))
    connection.executemany(
        "INSERT INTO usage_accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET label = excluded.label"
        " WHERE label <> excluded.label",
        labels.items(),
    )


class Span(NamedTuple):
    """From `since` until before `until`, in unix seconds; `first` and `last` are the dates of both."""

    since: float
    until: float
    first: int
    last: int


class Piece(NamedTuple):
    """A part of a span in one table."""

    table: str
    where: str
    values: tuple[float, ...]


def pieces(span: Span) -> list[Piece]:
    """A span in its parts; see above. None of them overlap, and nothing is left out."""
    since, until, first, last = span
    begins, ends = int(since // HOUR), int(until // HOUR)
    return [
        Piece("usage_days", "day > ? AND day < ?", (first, last)),
        *(
            Piece("usage_hours", "day = ? AND hour > ? AND hour < ?", (day, begins, ends))
            for day in dict.fromkeys((first, last))
        ),
        *(
            Piece(
                "usage",
                "at >= ? AND at < ? AND day IN (?, ?)",
                (max(since, hour * HOUR), min(until, (hour + 1) * HOUR), first, last),
            )
            for hour in dict.fromkeys((begins, ends))
        ),
    ]


def add_up(
    connection: Connection, span: Span, only: Mapping[str, str], by: Dimension | None = None
) -> dict[str | int, list[float]]:
    """The sums of a span, in the order of `SUMS`, for each value of `by` that there is.

    Args:
        only: values of key, model and account that are asked for; all others are left out.
        by: None: one entry, for ``""``, where there is anything.
    """
    found: dict[str | int, list[float]] = {}
    for table, where, values in pieces(span):
        sums = _OF_TURNS if table == "usage" else _OF_SUMS
        _collect(connection, table, sums, where, values, only, by or "''", found)
    return found


def buckets(connection: Connection, span: Span, step: int, only: Mapping[str, str]) -> dict[str | int, list[float]]:
    """The sums of each `step` seconds of a span, by the number of the step since 1970.

    An hour is read from sums, and then the span has to begin and to end with one; what is shorter, from turns.
    """
    found: dict[str | int, list[float]] = {}
    if step == HOUR:
        where, values = "hour >= ? AND hour < ? AND day >= ? AND day <= ?", (span.since // HOUR, span.until // HOUR)
        _collect(connection, "usage_hours", _OF_SUMS, where, (*values, span.first, span.last), only, "hour", found)
    else:
        name = f"CAST(at / {step:d} AS INTEGER)"
        _collect(connection, "usage", _OF_TURNS, "at >= ? AND at < ?", (span.since, span.until), only, name, found)
    return found


def _collect(
    connection: Connection,
    table: str,
    sums: str,
    where: str,
    values: Sequence[float],
    only: Mapping[str, str],
    name: str,
    found: dict[str | int, list[float]],
) -> None:
    where = " AND ".join((where, *(f"{column} = ?" for column in only)))
    statement = f"SELECT {name}, {sums} FROM {table} WHERE {where} GROUP BY 1"  # noqa: S608
    for value, *numbers in connection.execute(statement, (*values, *only.values())):
        before = found.get(value)
        found[value] = numbers if before is None else [a + b for a, b in zip(before, numbers, strict=True)]


def turns(
    connection: Connection, where: Sequence[str], values: Sequence[object], *, newest_first: bool, most: int
) -> list[Row]:
    """Single turns: id, `COLUMNS`, and the account's label. `where` are conditions on the columns of `usage`."""
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    order = "DESC" if newest_first else "ASC"
    # Along the ids, which grow with time, so that a page costs a page.
    statement = (
        f"SELECT id, {', '.join(COLUMNS)},"  # noqa: S608
        " IFNULL((SELECT label FROM usage_accounts WHERE usage_accounts.account = usage.account), '')"
        f" FROM usage NOT INDEXED {condition} ORDER BY id {order} LIMIT ?"
    )
    return connection.execute(statement, (*values, most)).fetchall()


def labels(connection: Connection) -> dict[str, str]:
    """What each account was called last."""
    return dict(connection.execute("SELECT account, label FROM usage_accounts"))


def forget(connection: Connection, before: float, day: int, total_day: int, most: int, at_once: int) -> bool:
    """Delete turns that are too old or too many, at most `at_once` of them, and sums that are too old.

    Args:
        before: turns of before go, in unix seconds.
        day: the date of `before`: hours of before go.
        total_day: sums of days before go.
        most: turns that may stay.

    Returns:
        Whether there is more to delete.
    """
    (newest,) = connection.execute("SELECT IFNULL(MAX(id), 0) FROM usage").fetchone()
    gone = connection.execute(
        "DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE id <= ? OR at < ? ORDER BY id LIMIT ?)",
        (newest - most, before, at_once),
    ).rowcount
    connection.execute("DELETE FROM usage_hours WHERE day < ?", (day,))
    connection.execute("DELETE FROM usage_days WHERE day < ?", (total_day,))
    connection.execute("DELETE FROM usage_accounts WHERE account NOT IN (SELECT account FROM usage_days)")
    return gone == at_once
