"""Turns on disk, so that they can be replayed after a restart. Off until it is switched on.

A task writes what was said since the last time, every `INTERVAL` seconds and once more at the end: a process that is
killed loses at most that much of a turn, and the turn was cut anyway. What is written of a turn is its events, in
canonical JSON (`turn.wire`), and of its question only what writers need: its conversation stays with the client.

A turn that its process did not see to the end is given out with an error as its last event, so that whoever comes back
learns what happened and does not wait. It is only cut where that process is gone: another gateway on the same data
directory may be writing it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Final

import msgspec
import trio

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Heading
from kirostream.errors import RemoteProtocolError, ShuttingDown, StoreError, TurnCancelled
from kirostream.relay.live import LiveTurn
from kirostream.stores.sqlite import Connection, Database
from kirostream.telemetry.facts import Faulted
from kirostream.telemetry.faults import faulted
from kirostream.telemetry.writing import writing
from kirostream.turn.events import TurnEvent, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import RawJson, Sampling, TurnRequest
from kirostream.turn.wire import dump_all, load_all

INTERVAL: Final = 1.0
"""Seconds between two writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """Turns that outlive a restart."""

    enabled: bool = field(
        default=False, metadata={"help": "Keep turns on disk, to be replayed after a restart.", "live": False}
    )
    age: float = field(default=86_400.0, metadata={"help": "How long they are kept.", "unit": "s"})
    size: int = field(
        default=256 << 20, metadata={"help": "Most that all may take; the oldest go first.", "unit": "bytes"}
    )


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What writers need of a question, and what `describe` says of a turn."""

    model: str
    answered_by: str
    spoken_in: str
    request_id: str = ""
    stream: bool = True
    include_usage: bool = False
    sampling: Sampling = Sampling()
    extras: Mapping[str, RawJson] = {}


class Archive:
    """Writes turns, and finds them again. Make one with `open_archive`."""

    def __init__(
        self,
        database: Database,
        settings: ArchiveSettings,
        tell: Callable[[Faulted], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._open: dict[str, tuple[LiveTurn, int]] = {}
        """Turns that are not whole on disk, and how many of their events are."""

    def __repr__(self) -> str:
        return f"<Archive {len(self._open)} turns to write>"

    def add(self, live: LiveTurn) -> None:
        """Keep a turn from now on."""
        self._open[live.heading.turn] = live, 0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            await self.write()

    async def write(self) -> None:
        """Write what is not written. What cannot be written is told, and tried again."""
        batch: list[tuple[LiveTurn, int, list[TurnEvent], bool]] = []
        for live, written in self._open.values():
            # Whether it is over is read first: what is said between the two is written the next time.
            over = live.over.is_set()
            batch.append((live, written, live.log.events[written:], over))
        oldest = self._clock() - self._settings.age

        def work(connection: Connection) -> None:
            for live, written, events, over in batch:
                _save(connection, live, written, events, over=over)
            connection.execute(
                "DELETE FROM turn_events WHERE turn IN (SELECT id FROM turns WHERE created < ?)", (oldest,)
            )
            connection.execute("DELETE FROM turns WHERE created < ?", (oldest,))
            self._make_room(connection)

        if not batch:
            return
        try:
            await self._database.write(work)
        except StoreError as error:
            self._tell(faulted("archive of turns", error))
            return
        for live, written, events, over in batch:
            if over:
                del self._open[live.heading.turn]
            else:
                self._open[live.heading.turn] = live, written + len(events)

    def _make_room(self, connection: Connection) -> None:
        (total,) = connection.execute("SELECT COALESCE(SUM(size), 0) FROM turns").fetchone()
        while total > self._settings.size:
            found = connection.execute(
                "SELECT id, size FROM turns WHERE over = 1 ORDER BY created, id LIMIT 20"
            ).fetchall()
            if not found:
                return
            for turn, size in found:
                if total > self._settings.size:
                    connection.execute("DELETE FROM turn_events WHERE turn = ?", (turn,))
                    connection.execute("DELETE FROM turns WHERE id = ?", (turn,))
                    total -= size

    def adopt(self, settings: ArchiveSettings) -> None:
        """Keep as much, and as long, as these say."""
        self._settings = settings

    async def find(self, turn: str, sees: Callable[[str], bool]) -> LiveTurn | None:
        """A turn as it was left, over and done; None where there is none to be seen, or another process is at it.

        Raises:
            StoreError: the database cannot be read.
        """

        def work(connection: Connection) -> tuple[int, int, int, str, str, list[bytes]] | None:
            row = connection.execute(
                "SELECT created, process, over, caller, about FROM turns WHERE id = ?", (turn,)
            ).fetchone()
            if row is None or not sees(row[3]):
                return None
            blobs = connection.execute("SELECT lines FROM turn_events WHERE turn = ? ORDER BY number", (turn,))
            return (*row, [lines for (lines,) in blobs])

        if turn in self._open:  # it is not whole on disk
            live, _ = self._open[turn]
            return live if sees(live.caller) and live.log.finished else None
        found = await self._database.read(work)
        if found is None:
            return None
        created, process, over, caller, about, blobs = found
        if not over and process != os.getpid() and _runs(process):
            return None
        try:
            return _load(turn, caller, created, about, blobs)
        except (ValueError, RemoteProtocolError, zlib.error) as error:
            raise StoreError(f"the turn {turn} on disk cannot be read: {error}; ask again") from error


@asynccontextmanager
async def open_archive(
    database: Database, settings: ArchiveSettings, tell: Callable[[Faulted], None]
) -> AsyncIterator[Archive | None]:
    """An archive that writes until the context ends, and then once more; None where it is off."""
    if not settings.enabled:
        yield None
        return
    archive = Archive(database, settings, tell)
    async with writing(archive.run, archive.write):
        yield archive


def _save(connection: Connection, live: LiveTurn, written: int, events: list[TurnEvent], *, over: bool) -> None:
    turn, request, heading = live.heading.turn, live.request, live.heading
    if not written:
        about = About(
            model=request.model,
            answered_by=live.model.id,
            spoken_in=request.spoken_in,
            request_id=heading.request_id,
            stream=request.stream,
            include_usage=request.include_usage,
            sampling=request.sampling,
            extras=dict(request.extras),
        )
        connection.execute(
            "INSERT OR IGNORE INTO turns (id, caller, created, process, over, size, about)"
            " VALUES (?, ?, ?, ?, 0, 0, ?)",
            (turn, live.caller, heading.created, os.getpid(), msgspec.json.encode(about).decode()),
        )
    if over and not live.log.finished:  # its client left, and nobody else was there
        events = [*events, TurnFailed(TurnCancelled("Its client left before the answer was whole."))]
    if events:
        lines = zlib.compress(dump_all(events), 1)
        connection.execute("INSERT OR REPLACE INTO turn_events VALUES (?, ?, ?)", (turn, written, lines))
        connection.execute("UPDATE turns SET size = size + ? WHERE id = ?", (len(lines), turn))
    if over:
        connection.execute("UPDATE turns SET over = 1 WHERE id = ?", (turn,))


def _load(turn: str, caller: str, created: int, about: str, blobs: list[bytes]) -> LiveTurn:
    of = msgspec.json.decode(about, type=About)
    request = TurnRequest(
        model=of.model,
        messages=(),
        spoken_in=of.spoken_in,
        stream=of.stream,
        include_usage=of.include_usage,
        sampling=of.sampling,
        extras=of.extras,
    )
    live = LiveTurn(request, Heading(turn, created, of.request_id), Model(of.answered_by), caller=caller)
    events = [event for blob in blobs for event in load_all(zlib.decompress(blob))]
    live.log.append(events)
    if not live.log.finished:
        live.log.append([TurnFailed(ShuttingDown("The gateway was stopped before the answer was whole. Ask again."))])
    live.over.set()
    return live


def _runs(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
