"""The embedded database: SQLite, one thread that writes and one that reads.

SQLite takes one writer at a time, and its calls block. So all writing goes through one connection that is used by one
thread at a time, in the order it was asked for, a transaction each; reading has a connection of its own and, with a
write-ahead log, waits for no writer. A caller that is cancelled while its work runs is cancelled after it: what was
begun is committed.

Tables come from the numbered files in `migrations`; ``PRAGMA user_version`` says how many of them a database has seen.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import trio

from kirostream.errors import StoreError
from kirostream.stores.files import UNWRITABLE, file_trouble, private_folder

T = TypeVar("T")

Connection: TypeAlias = sqlite3.Connection

MIGRATIONS: Final = Path(__file__).parent / "migrations"
COPIED: Final = 256 << 20
"""Bytes of the largest file that is copied into memory where it cannot be written; in place of a larger one there is an
empty one."""
_UNWRITABLE: Final = ("SQLITE_READONLY", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_IOERR")
BUSY: Final = 10.0
"""Seconds to wait for another process that writes."""


def migrations() -> Sequence[str]:
    """The SQL of every migration, in order."""
    return [path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))]


class Database:
    """An open database. Make one with `open_database`."""

    def __init__(self, path: Path, reader: Connection, writer: Connection) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self._writing = trio.CapacityLimiter(1)
        self._reading = self._writing if reader is writer else trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<Database {self._path}>"

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` finds. It runs in a thread, and must not write.

        Raises:
            StoreError: the database cannot be read.
        """
        return await trio.to_thread.run_sync(self._guarded, work, self._reader, limiter=self._reading)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` gives; all that it writes is one transaction. It runs in a thread.

        Raises:
            StoreError: nothing was written.
        """
        return await trio.to_thread.run_sync(self._transaction, work, limiter=self._writing)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        def inside(connection: Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return result

        return self._guarded(inside, self._writer)

    def _guarded(self, work: Callable[[Connection], T], connection: Connection) -> T:
        try:
            return work(connection)
        except sqlite3.Error as error:
            raise _trouble(self._path, error) from error

    def close(self) -> None:
        """Close both connections. The last writer folds the log into the file."""
        self._reader.close()
        self._writer.close()


@asynccontextmanager
async def open_database(path: Path, steps: Sequence[str] | None = None) -> AsyncIterator[Database]:
    """The database at `path`, made or brought up to date, until the context ends.

    Args:
        path: its file, 0600; the folder is made too.
        steps: migrations; None: those of the package.

    Raises:
        StoreError: it cannot be opened, is broken, or was made by a later version.
    """
    database = await trio.to_thread.run_sync(_open, path, migrations() if steps is None else steps)
    try:
        yield database
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(database.close)


@asynccontextmanager
async def open_or_copy(path: Path) -> AsyncIterator[tuple[Database, StoreError | None]]:
    """The database at `path`; where nothing can be written there, one in memory with what the file holds.

    Beside it, why it is a copy: what is written to one is lost with the process.

    Raises:
        StoreError: as for `open_database`; not for want of a place to write to.
    """
    trouble: StoreError | None = None
    try:
        database = await trio.to_thread.run_sync(_open, path, migrations())
    except StoreError as error:
        if error.reason not in UNWRITABLE and not error.reason.startswith(_UNWRITABLE):
            raise
        trouble = error
        database = await trio.to_thread.run_sync(_copy, path, migrations())
    try:
        yield database, trouble
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(database.close)


def examine(path: Path) -> str:
    """What is damaged in the database at `path`, which may be in use; empty: nothing. It blocks, and changes nothing.

    Raises:
        StoreError: it cannot be read, or is none.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY)
        try:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _trouble(path, error) from error
    return "" if said == "ok" else str(said)


def _open(path: Path, steps: Sequence[str]) -> Database:
    private_folder(path.parent)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it as the umask says
        if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise file_trouble(path, "write", error) from error
    connections: list[Connection] = []
    try:
        writer = _connect(path)
        connections.append(writer)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(
            "PRAGMA synchronous = NORMAL"
        )  # with a write-ahead log a crash loses no more than the last answers
        _migrate(path, writer, steps)
        connections.append(_connect(path))
        connections[1].execute("PRAGMA query_only = ON")
    except BaseException as error:
        for connection in connections:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise _trouble(path, error) from error
        raise
    return Database(path, connections[1], writer)


def _copy(path: Path, steps: Sequence[str]) -> Database:
    """A database in memory, with what the one at `path` holds as far as it can be read without writing."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        # Read-only, SQLite needs the log's index, and may not make it; `immutable` reads the file alone.
        for how in ("mode=ro", "mode=ro&immutable=1"):
            if not path.exists() or path.stat().st_size > COPIED:
                break
            try:
                held = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY)
                try:
                    held.backup(memory)
                finally:
                    held.close()
            except sqlite3.OperationalError:
                continue
            break
        _migrate(path, memory, steps)
    except BaseException as error:
        memory.close()
        if isinstance(error, sqlite3.Error):
            raise _trouble(path, error) from error
        raise
    return Database(path, memory, memory)


def _connect(path: Path) -> Connection:
    # Transactions are begun by hand; a limiter, not sqlite3, sees to it that one thread uses a connection at a time.
    return sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)


def _migrate(path: Path, connection: Connection, steps: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")  # two processes that start together take turns
    try:
        (seen,) = connection.execute("PRAGMA user_version").fetchone()
        if seen > len(steps):
            raise StoreError(
                f"cannot use {path}: a later version of kirostream made it; run that version, or move the file away"
            )
        for number, step in enumerate(steps[seen:], seen + 1):
            for statement in _statements(step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _statements(script: str) -> list[str]:
    """A script's statements: `executescript` would commit what is open."""
    found: list[str] = []
    held = ""
    for line in script.splitlines(keepends=True):
        held += line
        if sqlite3.complete_statement(held):
            found.append(held)
            held = ""
    return [*found, held] if held.strip() else found


def _trouble(path: Path, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorname", "") or ""
    remedy = "see that the disk has room and the folder can be written"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        remedy = "it is damaged; move it away, a new one will be made"
    elif code.startswith("SQLITE_BUSY"):
        remedy = "another process holds it; end that process"
    return StoreError(f"cannot use the database {path}: {error}; {remedy}", reason=code)
