"""Reading log files: as they were written, newest first, or as they grow. A `LogReader` blocks: use a thread."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from kirostream.errors import SettingsError
from kirostream.stores.files import file_trouble
from kirostream.telemetry.log import LEVELS, timestamp
from kirostream.telemetry.logfiles import SPAN, began, log_files

POLL: Final = 0.25
"""Seconds between two looks at files that may have grown."""
BLOCK: Final = 1 << 16
"""Bytes read at once."""


class LogLine(NamedTuple):
    """One line: its time (ISO 8601 in UTC, which sorts), level, event, and what is known of it."""

    timestamp: str
    level: str
    event: str
    known: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As it stands in its file."""
        return {"timestamp": self.timestamp, "level": self.level, "event": self.event, **self.known}


class LogFilter:
    """Which lines are asked for.

    Args:
        level: the least.
        since, until: unix seconds.
        grep: what the line has to hold, in any case of letters.
        event: what happened, ``turn finished``; "": anything.

    Raises:
        SettingsError: there is no such level.
    """

    def __init__(
        self, *, level: str = "debug", since: float = 0.0, until: float | None = None, grep: str = "", event: str = ""
    ) -> None:
        if level.lower() not in LEVELS:
            raise SettingsError(f"There is no level {level[:40]!r}: it is one of {', '.join(LEVELS)}.")
        self._levels = {name for name, rank in LEVELS.items() if rank >= LEVELS[level.lower()]}
        self.since = since
        self._since = timestamp(since)
        self._until = timestamp(until) if until is not None else ""
        self._grep = grep.lower()
        self._event = event

    def read(self, line: bytes) -> LogLine | None:
        """The line, if it is asked for and whole."""
        text = line.decode("utf-8", "replace")
        if self._grep and self._grep not in text.lower():
            return None
        try:
            known = json.loads(text)
            found = LogLine(known.pop("timestamp"), known.pop("level"), known.pop("event"), known)
        except (ValueError, KeyError, AttributeError, TypeError):  # it was cut when the disk was full
            return None
        if found.level not in self._levels or found.timestamp < self._since:
            return None
        if (self._until and found.timestamp >= self._until) or (self._event and found.event != self._event):
            return None
        return found


EVERYTHING: Final = LogFilter()


class LogReader:
    """Reads the log files of a folder, whoever writes them. It may not exist.

    All methods raise StoreError where they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<LogReader {self._folder}>"

    def size(self) -> int:
        """Bytes of all files."""
        total = 0
        for path in self._files(0.0):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total

    def read(self, wanted: LogFilter = EVERYTHING) -> Iterator[LogLine]:
        """Oldest first; of several processes, in order of time."""
        return heapq.merge(*(self._lines(path, wanted) for path in self._files(wanted.since)), key=lambda line: line[0])

    def newest(self, wanted: LogFilter = EVERYTHING, *, most: int = 200) -> list[LogLine]:
        """The newest `most` lines, newest first. It reads backwards, no further than it has to."""
        found: list[LogLine] = []
        enough = ""
        for path in reversed(self._files(wanted.since)):
            # What two processes wrote in the same hour is interleaved: a file that ended before is not looked at.
            if enough and timestamp((began(path) or 0.0) + SPAN) < enough:
                break
            here = 0
            for raw in self._backwards(path):
                line = wanted.read(raw)
                if line is None:
                    continue
                if here >= most:
                    break
                found.append(line)
                here += 1
            found.sort(key=lambda line: line[0], reverse=True)
            del found[most:]
            enough = found[-1].timestamp if len(found) == most else ""
        return found

    def follow(self, wanted: LogFilter = EVERYTHING, *, from_now: bool = True) -> LogTail:
        """Lines as they are written; `from_now` leaves out what is there already."""
        return LogTail(self._files, wanted, from_now=from_now)

    def _files(self, since: float = 0.0) -> list[Path]:
        """Those that may hold lines since then, oldest first."""
        try:
            return [path for path in log_files(self._folder) if (began(path) or 0.0) + SPAN + 1 >= since]
        except OSError as error:
            raise file_trouble(self._folder, "read", error) from error

    def _lines(self, path: Path, wanted: LogFilter) -> Iterator[LogLine]:
        try:
            with path.open("rb") as file:
                for raw in file:
                    if (line := wanted.read(raw)) is not None:
                        yield line
        except FileNotFoundError:  # it was deleted meanwhile
            return
        except OSError as error:
            raise file_trouble(path, "read", error) from error

    def _backwards(self, path: Path) -> Iterator[bytes]:
        """The lines of a file, last first."""
        try:
            with path.open("rb") as file:
                at = file.seek(0, 2)
                rest = b""
                while at > 0:
                    size = min(BLOCK, at)
                    at -= size
                    file.seek(at)
                    first, *lines = (file.read(size) + rest).split(b"\n")
                    yield from (line for line in reversed(lines) if line)
                    rest = first
                if rest:
                    yield rest
        except FileNotFoundError:
            return
        except OSError as error:
            raise file_trouble(path, "read", error) from error


class LogTail:
    """Gives lines as they are written, whichever file they are in. Make one with `LogReader.follow`."""

    def __init__(self, files: Callable[[], list[Path]], wanted: LogFilter, *, from_now: bool) -> None:
        self._files = files
        self._wanted = wanted
        self._at: dict[Path, int] = {}
        """How far each file was read."""
        self._skips = from_now

    async def more(self, poll: float = POLL) -> list[LogLine]:
        """The lines that came since the last time, at least one; it waits for it. Cancelling it loses none.

        Args:
            poll: seconds between two looks.

        Raises:
            StoreError: they cannot be read.
        """
        while True:
            lines = await trio.to_thread.run_sync(self._read)
            if lines:
                return lines
            self._skips = False
            await trio.sleep(poll)

    def _read(self) -> list[LogLine]:
        found: list[bytes] = []
        at: dict[Path, int] = {}
        for path in self._files():
            begin = at[path] = self._at.get(path, 0)
            try:
                if path.stat().st_size <= begin:
                    continue
                with path.open("rb") as file:
                    file.seek(begin)
                    data = file.read()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise file_trouble(path, "read", error) from error
            whole = data.rfind(b"\n") + 1  # what is being written is read the next time
            found += data[:whole].splitlines()
            at[path] = begin + whole
        self._at = at
        if self._skips:
            return []
        lines = [line for raw in found if (line := self._wanted.read(raw))]
        return sorted(lines, key=lambda line: line.timestamp)
