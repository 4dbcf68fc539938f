"""Writes credentials back again and again, in children that are killed. Run as a program, with a folder; see `main`.

A process that is forked needs no new interpreter, so two hundred children cost seconds. Nothing here may start a thread
before a fork; the children may.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import trio

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.own import OwnAccount
from kirostream.accounts.sources.source import CredentialSource
from kirostream.stores.sealed import SealedStore

PAD = "x" * 20_000
"""Makes a token long, so that a write takes more than one moment."""


def credential(number: int) -> Credential:
    """The number-th of a series; token and registration belong together."""
    return Credential(
        auth=AuthMethod.IDC,
        refresh_token=Secret(f"aor-{number}-{PAD}"),
        access_token=Secret(f"aoa-{number}"),
        expires_at=1_767_225_600.0 + number,
        client_id=f"client-{number}",
        client_secret=Secret(f"secret-{number}"),
    )


def ide(folder: Path) -> CredentialSource:
    """A token file."""
    path = folder / "token.json"
    first = credential(0)
    record = {
        "refreshToken": first.refresh_token.reveal(),
        "accessToken": "aoa-0",
        "theirs": [1, 2],
        "authMethod": "social",
    }
    path.write_text(json.dumps(record))
    return IdeFile(path, home=folder)


def cli(folder: Path) -> CredentialSource:
    """A database."""
    path = folder / "data.sqlite3"
    record = {"refresh_token": credential(0).refresh_token.reveal(), "access_token": "aoa-0", "theirs": [1, 2]}
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
        database.execute("INSERT INTO auth_kv VALUES ('kirocli:social:token', ?)", (json.dumps(record),))
        database.commit()
    return CliDatabase(path)


def own(folder: Path) -> CredentialSource:
    """A sealed record."""
    source = OwnAccount("record", SealedStore(folder / "sealed"), folder / "lock")
    source.write(credential(0))
    return source


def write_for_ever(source: CredentialSource, ready: int) -> None:
    """What a child does: each credential in the place of the one before."""

    async def loop() -> None:
        (held,) = await source.load()
        number = int(held.refresh_token.reveal().split("-")[1])
        while True:
            number += 1
            new = replace(credential(number), auth=held.auth, key=held.key)
            await source.save(held, new)
            if ready:
                os.write(ready, b".")
            held = new

    trio.run(loop)


def kill_one(source: CredentialSource, wait: float) -> int:
    """Start a child, and kill it `wait` seconds after its first write. How many writes it told of."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            write_for_ever(source, writing)
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b".", "the child ended by itself"
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = 1
    while more := os.read(reading, 4096):
        told += len(more)
    os.close(reading)
    return told


def look(source: CredentialSource, folder: Path) -> int:
    """The number of the credential that is there; it is whole, and for this user alone."""
    if isinstance(source, OwnAccount):
        held = source.read()
    else:
        assert isinstance(source, IdeFile | CliDatabase)
        loaded = source._load()  # without a thread: this process forks
        held = loaded[0] if isinstance(loaded, list) else loaded
    number = int(held.refresh_token.reveal().split("-")[1])
    assert held.refresh_token == credential(number).refresh_token
    assert held.access_token == credential(number).access_token
    if isinstance(source, OwnAccount):
        assert held == credential(number)
    else:
        assert held.extra["theirs"] == [1, 2]
    for path in folder.rglob("*"):
        if path.is_file() and not isinstance(source, CliDatabase):  # SQLite gives its files the database's mode
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    return number


def half_done(folder: Path) -> bool:
    """Whether the child was killed in the middle of a write: what it worked on lies there."""
    left = [path for path in folder.rglob("*") if path.name.endswith((".tmp", "-journal")) and path.stat().st_size]
    for path in left:
        if path.name.endswith(".tmp"):  # a database needs its journal, which the next reader plays back
            path.unlink()
    return bool(left)


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill `kills` children in the middle of their writing, and look at what each leaves."""
    rng = random.Random(seed)
    makers: list[Callable[[Path], CredentialSource]] = [ide, cli, own]
    for at, make in enumerate(makers):
        place = folder / make.__name__
        place.mkdir(mode=0o700)
        source = make(place)
        last = halves = 0
        for _ in range(kills // 3 + (at < kills % 3)):
            told = kill_one(source, rng.uniform(0, 0.004))
            halves += half_done(place)
            number = look(source, place)
            assert number - last >= told, "a write that was told of is gone"
            assert number - last <= told + 1, "there is more than was written"
            last = number
        sys.stdout.write(f"{make.__name__} {last} {halves}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
