"""The embedded database: migrations, transactions, two threads, and what is said when it cannot be used."""

from __future__ import annotations

import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
import trio

from kirostream.errors import StoreError
from kirostream.stores.sqlite import Connection, Database, migrations, open_database

STEPS = ["CREATE TABLE notes (text TEXT); -- a comment; with a semicolon\nINSERT INTO notes VALUES ('first');"]


def texts(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


async def write(database: Database, *said: str) -> int:
    def work(connection: Connection) -> int:
        for text in said:
            connection.execute("INSERT INTO notes VALUES (?)", (text,))
        return len(said)

    return await database.write(work)


async def test_what_is_written_is_read_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.db"
    async with open_database(path, STEPS) as database:
        assert await write(database, "second") == 1
        assert await database.read(texts) == ["first", "second"]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with open_database(path, STEPS) as database:
        assert await database.read(texts) == ["first", "second"]


async def test_the_packages_own_migrations(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db") as database:
        tables = await database.read(lambda c: c.execute("SELECT name FROM sqlite_master").fetchall())
        (version,) = await database.read(lambda c: c.execute("PRAGMA user_version").fetchone())
    assert ("responses",) in tables
    assert version == len(migrations()) > 0


async def test_only_new_migrations_run(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(path, STEPS):
        pass
    async with open_database(path, [*STEPS, "ALTER TABLE notes ADD COLUMN more TEXT;"]) as database:
        assert await database.read(texts) == ["first"]
        await database.read(lambda c: c.execute("SELECT more FROM notes").fetchall())
    with pytest.raises(StoreError, match="later version"):
        async with open_database(path, STEPS):
            pass


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(path, STEPS):
        pass
    with pytest.raises(StoreError):
        async with open_database(path, [*STEPS, "CREATE TABLE other (x);\nSELECT nonsense;"]):
            pass
    async with open_database(path, [*STEPS, "CREATE TABLE other (y);"]) as database:
        await database.read(lambda c: c.execute("SELECT y FROM other").fetchall())


async def test_a_transaction_is_whole_or_not_at_all(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db", STEPS) as database:

        def half(connection: Connection) -> None:
            connection.execute("INSERT INTO notes VALUES ('half')")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(half)
        with pytest.raises(StoreError, match="no such table"):
            await database.write(lambda c: c.execute("INSERT INTO nowhere VALUES (1)"))
        assert await database.read(texts) == ["first"]
        await write(database, "after")
        assert await database.read(texts) == ["first", "after"]


async def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db", STEPS) as database:
        with pytest.raises(StoreError, match="readonly"):
            await database.read(lambda c: c.execute("DELETE FROM notes"))


async def test_reading_waits_for_no_writer(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db", STEPS) as database, trio.open_nursery() as nursery:
        begun, go_on = trio.Event(), threading.Event()

        def slow(connection: Connection) -> None:
            connection.execute("INSERT INTO notes VALUES ('slow')")
            trio.from_thread.run_sync(begun.set)
            assert go_on.wait(10)

        nursery.start_soon(database.write, slow)
        await begun.wait()
        assert await database.read(texts) == ["first"]
        go_on.set()


async def test_many_writers_take_turns(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db", STEPS) as database:
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(write, database, str(n), str(n))
        found = (await database.read(texts))[1:]
        assert found[::2] == found[1::2]
        assert sorted(map(int, found)) == sorted(2 * list(range(20)))


async def test_what_was_begun_is_committed(tmp_path: Path) -> None:
    async with open_database(tmp_path / "a.db", STEPS) as database:
        with trio.CancelScope() as scope:

            def work(connection: Connection) -> None:
                trio.from_thread.run_sync(scope.cancel)
                connection.execute("INSERT INTO notes VALUES ('kept')")

            await database.write(work)
        assert await database.read(texts) == ["first", "kept"]


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"a\.db.*move it away"):
        async with open_database(path, STEPS):
            pass
    assert path.read_bytes().startswith(b"not a database")


async def test_a_database_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr("kirostream.stores.sqlite.BUSY", 0.01)
    async with open_database(path, STEPS) as database:
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another process"):
                await write(database, "x")
        finally:
            other.close()
        await write(database, "y")
        assert await database.read(texts) == ["first", "y"]
