"""Answers of the Responses API that clients come back to, kept in the embedded database (client-apis.md section 3.6).

A response is kept with the items that its own request brought and the items of its answer; what came before is found
along `previous`. So a long conversation is kept once, not once a turn. What is too old, or too much, goes oldest first;
a conversation whose beginning is gone is gone, and its client is told to send it all.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dataclass import dataclass
from kirostream.stores.sqlite import Connection, Database
from kirostream.turn.request import RawJson

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How much is kept of answers."""

    days: float = field(default=30.0, metadata={"help": "How long stored responses are kept.", "unit": "days"})
    size: int = field(
        default=512 << 20, metadata={"help": "Stored responses beyond this go, oldest first.", "unit": "bytes"}
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """One response: `input` is what its own request brought, `output` the answer; `created` is unix seconds."""

    id: str
    caller: str
    created: int
    previous: str
    response: RawJson = field(repr=False)
    input: tuple[RawJson, ...] = field(repr=False)
    output: tuple[RawJson, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes, uncompressed."""
        return len(self.response) + sum(map(len, self.input)) + sum(map(len, self.output))


class ResponseStore:
    """Keeps responses. All methods raise StoreError where the database cannot be used."""

    def __init__(self, database: Database, settings: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    def __repr__(self) -> str:
        return f"<ResponseStore {self._database!r}>"

    async def save(self, stored: Stored) -> None:
        """Keep a response, and forget what is too old or too much."""
        oldest = self._clock() - self._settings.days * _DAY

        def work(connection: Connection) -> None:
            blobs = [_pack(stored.response), _pack(_list(stored.input)), _pack(_list(stored.output))]
            connection.execute(
                "INSERT OR REPLACE INTO responses (id, caller, created, previous, size, response, input, output)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (stored.id, stored.caller, stored.created, stored.previous, sum(map(len, blobs)), *blobs),
            )
            connection.execute("DELETE FROM responses WHERE created < ?", (oldest,))
            self._make_room(connection)

        await self._database.write(work)

    def _make_room(self, connection: Connection) -> None:
        (total,) = connection.execute("SELECT COALESCE(SUM(size), 0) FROM responses").fetchone()
        while total > self._settings.size:
            found = connection.execute("SELECT id, size FROM responses ORDER BY created, id LIMIT 20").fetchall()
            for name, size in found:
                if total > self._settings.size:
                    connection.execute("DELETE FROM responses WHERE id = ?", (name,))
                    total -= size

    def adopt(self, settings: StoreSettings) -> None:
        """Keep as much, and as long, as these say."""
        self._settings = settings

    async def get(self, name: str, caller: str) -> Stored | None:
        """A caller's response, None where there is none."""

        def work(connection: Connection) -> Stored | None:
            return _read(connection, name, caller)

        return await self._database.read(work)

    async def delete(self, name: str, caller: str) -> bool:
        """Forget a response. Whether there was one."""

        def work(connection: Connection) -> bool:
            done = connection.execute("DELETE FROM responses WHERE id = ? AND caller = ?", (name, caller))
            return done.rowcount > 0

        return await self._database.write(work)

    async def chain(self, name: str, caller: str) -> list[Stored] | None:
        """A response and all before it, oldest first; None where one of them is not there."""

        def work(connection: Connection) -> list[Stored] | None:
            found: list[Stored] = []
            at = name
            while at:
                stored = _read(connection, at, caller)
                if stored is None or len(found) > _LONGEST:
                    return None
                found.append(stored)
                at = stored.previous
            return found[::-1]

        return await self._database.read(work)

    async def outputs(self, names: Iterable[str], caller: str) -> dict[str, tuple[RawJson, ...]]:
        """The answers' items of those of a caller's responses that are there."""
        wanted = list(names)

        def work(connection: Connection) -> dict[str, tuple[RawJson, ...]]:
            found: dict[str, tuple[RawJson, ...]] = {}
            for name in wanted:
                row = connection.execute(
                    "SELECT output FROM responses WHERE id = ? AND caller = ?", (name, caller)
                ).fetchone()
                if row:
                    found[name] = _items(row[0])
            return found

        return await self._database.read(work)


_LONGEST: Final = 10_000
"""Responses in a row. No conversation is that long; a circle is."""


def _read(connection: Connection, name: str, caller: str) -> Stored | None:
    row = connection.execute(
        "SELECT created, previous, response, input, output FROM responses WHERE id = ? AND caller = ?", (name, caller)
    ).fetchone()
    if row is None:
        return None
    created, previous, response, brought, output = row
    return Stored(name, caller, created, previous, zlib.decompress(response), _items(brought), _items(output))


def _pack(data: bytes) -> bytes:
    return zlib.compress(data, 1)  # JSON shrinks to a fifth; a higher level takes longer and saves little


def _list(items: Sequence[RawJson]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _items(blob: bytes) -> tuple[RawJson, ...]:
    return tuple(bytes(item) for item in msgspec.json.decode(zlib.decompress(blob), type=list[Raw]))
