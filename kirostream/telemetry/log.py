"""Log lines: one JSON object a fact, on stderr, through structlog.

Never a body, a header or a secret: facts hold none by construction, and `accounts.Secret` masks itself.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from kirostream.errors import SettingsError
from kirostream.telemetry.facts import Fact
from kirostream.telemetry.recorder import Sink

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: str = field(default="info", metadata={"help": "Least level logged: debug, info, warning or error."})
    format: str = field(
        default="auto",
        metadata={"help": "json, console, or auto: console on a terminal, json elsewhere."},
    )

    def __post_init__(self) -> None:
        if self.level.lower() not in LEVELS:
            raise SettingsError(f"log.level is {self.level!r}; it takes one of {', '.join(LEVELS)}")
        if self.format not in ("auto", "console", "json"):
            raise SettingsError(f"log.format is {self.format!r}; it takes auto, console or json")


def log_sink(settings: LogSettings, stream: TextIO | None = None) -> Sink:
    """A sink that writes facts as log lines to `stream` (stderr)."""
    out = stream or sys.stderr
    least = LEVELS[settings.level.lower()]
    logger: Any = None

    def write(fact: Fact) -> None:
        nonlocal logger
        if LEVELS[fact.level] < least:
            return
        # Made with the first line: importing structlog costs more than the rest of the start together.
        logger = logger or _logger(settings, out)
        facts = {key: value for key, value in dataclasses.asdict(fact).items() if value not in ("", None)}
        getattr(logger, fact.level)(_words(type(fact).__name__), **facts)

    return write


def _logger(settings: LogSettings, out: TextIO) -> Any:
    import structlog

    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    return structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level.lower()]),
    )


def _words(name: str) -> str:
    """``TurnFinished`` as ``turn finished``."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
