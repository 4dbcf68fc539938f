"""Log files with a clock that a test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kirostream.telemetry.facts import Fact, ServiceChanged
from kirostream.telemetry.log import LogSettings
from kirostream.telemetry.logfiles import LogFile, LogFiles, log_files, open_private

NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z
HOUR = 3600.0


def said(what: str) -> Fact:
    return ServiceChanged(service="gateway", state=what)


@dataclass
class Desk:
    """Log files, their clock, and what was told."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    open_file: Callable[[Path], LogFile] = open_private
    now: float = NOON
    told: list[Fact] = field(default_factory=list)
    made: ClassVar[list[Desk]] = []
    """Those whose files are closed after the test (tests/telemetry/conftest.py)."""

    def __post_init__(self) -> None:
        self.made.append(self)
        self.files = LogFiles(
            self.folder, LogSettings(**self.settings), self.told.append, lambda: self.now, self.open_file
        )

    def say(self, what: str, at: float | None = None) -> None:
        self.now = self.now if at is None else at
        self.files.take(said(what))

    def states(self) -> list[str]:
        return [line["state"] for path in log_files(self.folder) for line in whole_lines(path)]


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # it was deleted meanwhile
        return
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
