"""``kirostream logs``: what a gateway wrote into its log files, or writes, read from the data directory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from kirostream.errors import SettingsError

if TYPE_CHECKING:
    from kirostream.telemetry.logs import LogFilter, LogLine, LogReader

Level = Annotated[str, typer.Option(help="The least: debug, info, warning or error.")]
Since = Annotated[str, typer.Option(help="How long ago (15m, 24h), or a time (2026-11-21T09:30).")]
Grep = Annotated[str, typer.Option(help="Only lines that hold this, in any case of letters: a turn, an account ...")]


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    level: Level = "debug",
    since: Since = "",
    until: Annotated[str, typer.Option(help="The same; empty: now.")] = "",
    grep: Grep = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="The newest so many, where no --since is given.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Lines as they stand in the files.")] = False,
) -> None:
    """What happened, from the log files of the last hours (log.retention_hours)."""
    from kirostream.settings import data_dir
    from kirostream.telemetry.logfiles import FOLDER
    from kirostream.telemetry.logs import LogFilter, LogReader
    from kirostream.telemetry.times import moment

    folder = data_dir(os.environ) / FOLDER
    if not folder.exists() and not follow:
        raise SettingsError(f"There are no logs in {folder}: no gateway has run there yet, or log.files is off.")
    now = time.time()
    wanted = LogFilter(
        level=level,
        since=moment(since, now) if since else 0.0,
        until=moment(until, now) if until else None,
        grep=grep,
    )
    reader = LogReader(folder)
    try:
        if follow:
            import trio

            trio.run(_follow, reader, wanted, 0 if since else lines, bool(since), as_json)
        else:
            _print(reader.read(wanted) if since else reversed(reader.newest(wanted, most=lines)), as_json)
        sys.stdout.flush()
    except* BrokenPipeError:  # whoever read has enough; what is in the buffer is nobody's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _follow(reader: LogReader, wanted: LogFilter, first: int, everything: bool, as_json: bool) -> None:
    tail = reader.follow(wanted, from_now=not everything)
    if first and not everything:
        _print(reversed(reader.newest(wanted, most=first)), as_json)
    while True:
        sys.stdout.flush()
        _print(await tail.more(), as_json)


def _print(found: Iterable[LogLine], as_json: bool) -> None:
    import json

    for line in found:
        sys.stdout.write(f"{json.dumps(line.as_dict(), ensure_ascii=False)}\n" if as_json else f"{_shown(line)}\n")


_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red"}


def _shown(line: LogLine) -> str:
    """A line for a person: local time, level, event, and what is known."""
    from datetime import datetime

    at = datetime.fromisoformat(line.timestamp).astimezone().strftime("%m-%d %H:%M:%S.%f")[:-3]
    known = dict(line.known)
    trace = str(known.pop("trace", ""))
    said = " ".join(f"{name}={_value(value)}" for name, value in known.items())
    level = f"{line.level:<7}"
    if sys.stdout.isatty():
        level = typer.style(level, fg=_COLOURS.get(line.level))
    shown = f"{at} {level} {_clean(line.event):<18} {said}"
    return f"{shown}\n{_indented(trace)}" if trace else shown


def _value(value: object) -> str:
    text = _clean(str(value))
    return f'"{text}"' if " " in text or not text else text


def _indented(trace: str) -> str:
    return "\n".join(f"    {_clean(line)}" for line in trace.splitlines())


def _clean(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
