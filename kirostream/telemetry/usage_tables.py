"""The tables of the usage ledger: how a turn is written, and how a span of time is added up.

A turn is written several times in one transaction: as a row of its own; into the sums of its hour and of its day, by
key, model and account together; and into those of its day by each of them alone, which are far fewer rows and answer
what is asked about all turns. A span is then three kinds of rows, of which each turn is in exactly one:

- the days that lie whole in it, from their sums;
- of the first and the last day, the hours that lie whole in it, from theirs;
- of the first and the last hour, the turns.

So what a query reads grows with days, not with turns, and is exact to the turn all the same. A day is a date of the
gateway's own time zone, kept with each turn as it was written, so that sums stay right when the zone changes; an hour
that belongs to two dates (in a zone that is off by half an hour) has two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
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
_PLACES: Final = f"({', '.join('?' * len(COLUMNS))})"
_INSERTS: Final = {
    rows: f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES {', '.join([_PLACES] * rows)}"  # noqa: S608
    for rows in (48, 8, 1)
}
"""By the number of rows. Each statement lets go of the interpreter's lock, and waits for it when it is through: a
statement a row would do so hundreds of times in a batch. SQLite takes 999 parameters in every version."""
_MORE: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)


def _roll_up(table: str, key: Mapping[str, str]) -> str:
    """Adds the turns behind an id to the sums of a table; `key` says what each column of its key is for a turn."""
    return (
        f"INSERT INTO {table} ({', '.join(key)}, {', '.join(SUMS)})"  # noqa: S608
        f" SELECT {', '.join(key.values())}, {', '.join(f'SUM({what})' for what in _ADDED.values())}"
        f" FROM usage WHERE id > ? GROUP BY {', '.join(map(str, range(1, len(key) + 1)))}"
        f" ON CONFLICT DO UPDATE SET {_MORE}"
    )


NAMED: Final = ("key", "model", "account")
_ALL: Final = {name: name for name in NAMED}
_ROLL_UPS: Final = (
    _roll_up("usage_hours", {"day": "day", "hour": f"CAST(at / {HOUR} AS INTEGER)", **_ALL}),
    _roll_up("usage_days", {"day": "day", **_ALL}),
    *(_roll_up("usage_days_by", {"dimension": f"'{name}'", "name": name, "day": "day"}) for name in NAMED),
)


def write(connection: Connection, rows: Sequence[Row], labels: Mapping[str, str]) -> None:
    """Write turns, and what the accounts are called that they were asked on."""
    (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) FROM usage").fetchone()
    at = 0
    for size, statement in _INSERTS.items():
        while len(rows) - at >= size:
            connection.execute(statement, tuple(chain.from_iterable(rows[at : at + size])))
            at += size
    for statement in _ROLL_UPS:
        connection.execute(statement, (last,))
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
    """A part of a span in one table. `column` says what a dimension is called there."""

    table: str
    where: str
    values: tuple[float | str, ...]
    column: Callable[[str], str] = str


def pieces(span: Span, named: Collection[str] = NAMED) -> list[Piece]:
    """A span in its parts; see above. None of them overlap, and nothing is left out.

    Args:
        named: what is told apart or chosen by, of key, model and account.
    """
    since, until, first, last = span
    begins, ends = int(since // HOUR), int(until // HOUR)
    days = Piece("usage_days", "day > ? AND day < ?", (first, last))
    if len(named) <= 1:  # where nothing is named, any of the three adds up to all
        dimension = next(iter(named), "key")
        where = "dimension = ? AND day > ? AND day < ?"
        days = Piece(
            "usage_days_by", where, (dimension, first, last), lambda column: "name" if column in NAMED else column
        )
    return [
        days,
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
    for piece in pieces(span, {name for name in NAMED if name in only or name == by}):
        _collect(connection, piece, by or "''", only, found)
    return found


def buckets(connection: Connection, span: Span, step: int, only: Mapping[str, str]) -> dict[str | int, list[float]]:
    """The sums of each `step` seconds of a span, by the number of the step since 1970.

    An hour is read from sums, and then the span has to begin and to end with one; what is shorter, from turns.
    """
    found: dict[str | int, list[float]] = {}
    if step == HOUR:
        where, hours = "hour >= ? AND hour < ? AND day >= ? AND day <= ?", (span.since // HOUR, span.until // HOUR)
        _collect(connection, Piece("usage_hours", where, (*hours, span.first, span.last)), "hour", only, found)
    else:
        piece = Piece("usage", "at >= ? AND at < ?", (span.since, span.until))
        _collect(connection, piece, f"CAST(at / {step:d} AS INTEGER)", only, found)
    return found


def _collect(
    connection: Connection, piece: Piece, by: str, only: Mapping[str, str], found: dict[str | int, list[float]]
) -> None:
    """Add the sums of a piece to those `found`, for each value of `by`, a dimension or an expression."""
    where = " AND ".join((piece.where, *(f"{piece.column(name)} = ?" for name in only)))
    sums = _OF_TURNS if piece.table == "usage" else _OF_SUMS
    statement = f"SELECT {piece.column(by)}, {sums} FROM {piece.table} WHERE {where} GROUP BY 1"  # noqa: S608
    for value, *numbers in connection.execute(statement, (*piece.values, *only.values())):
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
    connection.execute("DELETE FROM usage_days_by WHERE day < ?", (total_day,))
    connection.execute("DELETE FROM usage_accounts WHERE account NOT IN (SELECT account FROM usage_days)")
    return gone == at_once
