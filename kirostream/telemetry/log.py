"""Log lines on stderr: one JSON object a fact, or, on a terminal, what structlog makes of it for a person.

structlog is imported for the terminal alone: with what it imports itself it takes 7 MB and 90 ms, and a JSON line needs
none of it.

Never a body, a header or a secret: facts hold none by construction, and `accounts.Secret` masks itself.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import Level, SettingsError
from kirostream.telemetry.facts import Fact

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: str = field(
        default="info", metadata={"help": "Least level logged: debug, info, warning or error.", "live": True}
    )
    format: str = field(
        default="auto",
        metadata={"help": "json, console, or auto: console on a terminal, json elsewhere."},
    )

    def __post_init__(self) -> None:
        if self.level.lower() not in LEVELS:
            raise SettingsError(f"log.level is {self.level!r}; it takes one of {', '.join(LEVELS)}")
        if self.format not in ("auto", "console", "json"):
            raise SettingsError(f"log.format is {self.format!r}; it takes auto, console or json")


Line: TypeAlias = Callable[[Level, str, dict[str, object]], None]
"""Writes one: its level, what happened, and what is known of it."""


class LogSink:
    """A sink that writes facts as log lines to `stream` (stderr)."""

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        out = stream or sys.stderr
        for_a_person = settings.format == "console" or (settings.format == "auto" and out.isatty())
        self._line = _console(out) if for_a_person else _json(out)
        self._least = LEVELS[settings.level.lower()]
        self._forms: dict[str, tuple[str, Sequence[str]]] = {}  # of each kind: its words, and what it has

    def __call__(self, fact: Fact) -> None:
        """Write a line, where the fact is loud enough."""
        if LEVELS[fact.level] >= self._least:
            kind = type(fact)
            form = self._forms.get(kind.__name__)
            if form is None:
                names = [field.name for field in dataclasses.fields(kind)]
                form = self._forms[kind.__name__] = _words(kind.__name__), names
            known: dict[str, object] = {}
            for name in form[1]:
                value = getattr(fact, name)
                if value is not None and value != "":
                    known[name] = value
            self._line(fact.level, form[0], known)

    def adopt(self, settings: LogSettings) -> None:
        """Go by another level from now on. The format stays."""
        self._least = LEVELS[settings.level.lower()]


def _json(out: TextIO) -> Line:
    """Lines for programs. What JSON has no form for is shown by its ``repr``."""

    encode = json.JSONEncoder(default=repr).encode

    def write(level: Level, event: str, known: dict[str, object]) -> None:
        at = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
        text = encode({**known, "event": event, "level": level, "timestamp": f"{at}Z"})
        out.write(f"{text}\n")
        out.flush()

    return write


def _console(out: TextIO) -> Line:
    """Lines for a person."""
    logger: Any = None

    def write(level: Level, event: str, known: dict[str, object]) -> None:
        nonlocal logger
        if logger is None:
            import structlog

            logger = structlog.wrap_logger(
                structlog.PrintLogger(out),
                processors=[
                    structlog.processors.add_log_level,
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.dev.ConsoleRenderer(),
                ],
                wrapper_class=structlog.make_filtering_bound_logger(LEVELS["debug"]),
            )
        getattr(logger, level)(event, **known)

    return write


def _words(name: str) -> str:
    """``TurnFinished`` as ``turn finished``."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
