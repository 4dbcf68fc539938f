"""The ledger as CSV or JSON, a page at a time, however long it is."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from kirostream.telemetry.usage import EVERY, Ledger, Only, Share, Totals, TurnUsage

Form: TypeAlias = Literal["csv", "json"]
CONTENT_TYPES: Final[dict[Form, bytes]] = {"csv": b"text/csv; charset=utf-8", "json": b"application/json"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet would run. A model's name is a client's to choose."""


async def export(
    ledger: Ledger, form: Form, *, since: float = 0.0, until: float | None = None, only: Only = EVERY
) -> AsyncGenerator[bytes, None]:
    """Every turn of a span, oldest first: CSV with a head, or one JSON array. Close it (`aclosing`).

    Times are ISO 8601 in UTC in a CSV, unix seconds in JSON.

    Raises:
        StoreError: the database cannot be read.
    """
    names = TurnUsage.__struct_fields__
    first = True
    if form == "csv":
        yield _csv([names])
    async with aclosing(ledger.every(since=since, until=until, only=only)) as pages:
        async for page in pages:
            if form == "csv":
                rows = ([_moment(value) if name == "at" else value for name, value in _members(turn)] for turn in page)
                yield _csv(rows)
            else:
                yield (b"[\n" if first else b",\n") + b",\n".join(map(msgspec.json.encode, page))
                first = False
    if form == "json":
        yield b"[]\n" if first else b"\n]\n"


def shares_csv(shares: Iterable[Share]) -> bytes:
    """Totals, a line each."""
    head = ("name", "label", *Totals.__struct_fields__)
    return _csv([head, *([each.name, each.label, *(value for _, value in _members(each.totals))] for each in shares)])


def _members(of: msgspec.Struct) -> list[tuple[str, Any]]:
    return [(name, getattr(of, name)) for name in of.__struct_fields__]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    """`value` as a spreadsheet takes it for what it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
