"""Log lines in files: a JSON object a line, a file an hour, kept for a day.

Theory. A file holds the lines of one hour at most, and says in its name when it began. So what is too old is found by
names alone, and deleted by the file: a line is kept for `log.retention_hours`, and one hour more at most. Together they
take no more than `log.size`.

The sink puts lines into a bounded queue and never waits. Its task writes what is there every `INTERVAL` seconds, in a
thread: a process that is killed loses what it said in that time. The lines are made where the facts are stated, for
some 5 us each: a thread that made a thousand of them would hold the interpreter's lock, and with it every turn in
flight. Where nothing can be written (a full disk, a read-only directory), lines stay in the queue and are tried again
every `RETRY` seconds, in a file opened anew; what finds the queue full is dropped and counted. A line that was cut
half-way is written again, whole; readers skip the stump.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import StoreError
from kirostream.stores.files import file_trouble, private_folder
from kirostream.telemetry.facts import Fact, SinkRecovered, SinkTroubled
from kirostream.telemetry.log import LEVELS, LogSettings, json_line
from kirostream.telemetry.writing import writing

FOLDER: Final = "logs"
"""In the data directory."""
SUFFIX: Final = ".jsonl"
INTERVAL: Final = 0.5
"""Seconds between two writes."""
RETRY: Final = 10.0
"""Seconds between two tries where nothing can be written."""
SPAN: Final = 3600.0
"""Seconds of lines in one file, at most."""
PRUNE: Final = 600.0
"""Seconds between two looks at what is too old."""
LARGEST: Final = 16 << 20
"""Bytes of one file; then the next is begun."""
AT_ONCE: Final = 1000
"""Lines in one write."""


class LogFile(Protocol):
    """What lines are written to: unbuffered, at its end."""

    def write(self, data: bytes, /) -> int | None:
        """As `io.RawIOBase.write`: it may write less than it was given."""

    def close(self) -> None:
        """Let go of it."""


def open_private(path: Path) -> LogFile:
    """A file of this user's alone, to be added to."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def began(path: Path) -> float | None:
    """When a log file began, in unix seconds, by its name; None: it is none."""
    stamp = path.name[:16]
    if not (stamp[:8] + stamp[9:15]).isdecimal() or stamp[8:9] + stamp[15:] != "TZ":  # ISO 8601 has many more forms
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()  # strptime brings a calendar in all languages
    except ValueError:
        return None


def log_files(folder: Path) -> list[Path]:
    """The log files, oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX) and began(path) is not None)
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class LogFilesSnapshot:
    """Counts of lines: waiting, written, dropped; and bytes written. `trouble` says why writing fails, "" if not."""

    queued: int
    written: int
    dropped: int
    bytes: int
    trouble: str


class LogFiles:
    """Writes facts to files. Make one with `open_log_files`.

    Args:
        folder: of its own; made with the first line.
        settings: from which level on, and how much is kept.
        tell: hears when writing begins to fail, and when it works again.
        clock: unix seconds.
        open_file: opens a file at its end, and makes it.
    """

    def __init__(
        self,
        folder: Path,
        settings: LogSettings,
        tell: Callable[[Fact], None],
        clock: Callable[[], float] = time.time,
        open_file: Callable[[Path], LogFile] = open_private,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._open_file = open_file
        self._least = LEVELS[settings.level.lower()]
        self._queue: deque[tuple[float, bytes]] = deque()
        self._some = trio.lowlevel.ParkingLot()
        self._writing = trio.Lock()
        self._file: LogFile | None = None
        self._size = 0
        self._cut = False
        """Whether the last line that was written may not be whole."""
        self._until = 0.0
        """When the next file begins."""
        self._written = self._dropped = self._bytes = 0
        self._trouble = ""
        self._prune_at = 0.0

    def __repr__(self) -> str:
        return f"<LogFiles {self._folder}, {self.snapshot()}>"

    def snapshot(self) -> LogFilesSnapshot:
        """How it goes."""
        return LogFilesSnapshot(len(self._queue), self._written, self._dropped, self._bytes, self._trouble)

    def adopt(self, settings: LogSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self._least = LEVELS[settings.level.lower()]

    def take(self, fact: Fact) -> None:
        """The sink: a line that is written soon."""
        if LEVELS[fact.level] < self._least:
            return
        if len(self._queue) >= self._settings.queue:
            self._dropped += 1
            return
        at = self._clock()
        self._queue.append((at, json_line(fact, at)))
        if self._some:
            self._some.unpark_all()

    async def run(self) -> None:
        """Write, and delete what is too old, until cancelled."""
        while True:
            if not self._queue:
                with trio.move_on_after(PRUNE):
                    await self._some.park()
            await trio.sleep(RETRY if self._trouble else INTERVAL)
            await self.flush()
            if self._clock() >= self._prune_at:
                self._prune_at = self._clock() + PRUNE
                await trio.to_thread.run_sync(self.prune)

    async def flush(self) -> None:
        """Write what is not written. What cannot be is told, stays, and is tried again."""
        async with self._writing:
            while self._queue:
                batch = list(islice(self._queue, AT_ONCE))
                written, error = await trio.to_thread.run_sync(self._write, batch)
                for _ in range(written):
                    self._queue.popleft()
                self._written += written
                if error is not None:
                    if not self._trouble:
                        self._trouble = error.message
                        self._tell(SinkTroubled(sink="log files", message=error.message))
                    return
                if self._trouble:
                    self._trouble = ""
                    self._tell(SinkRecovered(sink="log files", lost=self._dropped))

    def _write(self, batch: list[tuple[float, bytes]]) -> tuple[int, StoreError | None]:
        """How many lines of a batch were written whole, and why not all. It runs in a thread."""
        written = 0
        at = 0
        while at < len(batch):
            begin = batch[at][0]
            fits = self._file is not None and begin < self._until and self._size < LARGEST
            if not fits and (error := self._begin(begin)) is not None:
                return written, error
            lines: list[bytes] = []
            while at < len(batch) and batch[at][0] < self._until:
                lines.append(batch[at][1])
                at += 1
            whole, error = self._put(lines)
            written += whole
            if error is not None:
                return written, error
        return written, None

    def _begin(self, at: float) -> StoreError | None:
        """Begin a file."""
        self.close()
        path = self._folder / f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}{SUFFIX}"
        try:
            private_folder(self._folder)
            self._file = self._open_file(path)
        except OSError as error:
            return file_trouble(path, "write", error)
        except StoreError as error:
            return error
        self._size, self._until = 0, at // 1 + SPAN
        return None

    def _put(self, lines: list[bytes]) -> tuple[int, StoreError | None]:
        """Write lines to the file. How many are whole in it, and why not all."""
        assert self._file is not None
        data = memoryview(b"".join(lines))
        done = 0
        trouble: StoreError | None = None
        try:
            if self._cut:
                self._cut = not self._file.write(b"\n")
            while done < len(data):
                done += self._file.write(bytes(data[done:])) or 0
        except OSError as error:
            trouble = file_trouble(self._folder, "write", error)
            self._cut = True
            self.close()
        self._size += done
        self._bytes += done
        whole = 0
        for line in lines:
            done -= len(line)
            if done < 0:
                break
            whole += 1
        return whole, trouble

    def close(self) -> None:
        """Let go of the file. The next line begins another."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:  # what was written is known, and this is all that closing could still tell
                pass

    def prune(self) -> None:
        """Delete files that are too old, and the oldest that are too much. It blocks."""
        before = self._clock() - self._settings.retention_hours * 3600
        size = 0
        try:
            for path in reversed(log_files(self._folder)):
                try:
                    size += path.stat().st_size
                    if (began(path) or 0.0) + SPAN <= before or size > self._settings.size:
                        path.unlink()
                except FileNotFoundError:  # another process prunes too
                    continue
        except OSError:  # a read-only directory: writing tells of it
            return


@asynccontextmanager
async def open_log_files(
    folder: Path, settings: LogSettings, tell: Callable[[Fact], None], clock: Callable[[], float] = time.time
) -> AsyncIterator[LogFiles | None]:
    """Log files that are written until the context ends, and then once more; None where they are off."""
    if not settings.files:
        yield None
        return
    files = LogFiles(folder, settings, tell, clock)
    with closing(files):
        async with writing(files.run, files.flush):
            yield files
