"""Log lines on stderr: one JSON object a fact, or, on a terminal, what structlog makes of it for a person.

structlog is imported for the terminal alone: with what it imports itself it takes 7 MB and 90 ms, and a JSON line needs
none of it.

Never a body, a header or a secret: facts hold none by construction, and `accounts.Secret` masks itself.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
import time
from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TextIO, TypeAlias

import msgspec

from kirostream.dataclass import dataclass
from kirostream.errors import Level, SettingsError
from kirostream.telemetry.facts import Fact

HOLD: Final = 0.2
"""Seconds that a quiet line waits for others."""
MOST_HELD: Final = 256
"""Lines that wait."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: str = field(default="info", metadata={"help": "Least level logged: debug, info, warning or error."})
    format: str = field(
        default="auto",
        metadata={
            "help": "On stderr: json, console, or auto, which is console on a terminal and json elsewhere.",
            "live": False,
        },
    )
    files: bool = field(
        default=True,
        metadata={"help": "Also write JSON lines to files in the data directory (`kirostream logs`).", "live": False},
    )
    retention_hours: float = field(default=24.0, metadata={"help": "How long the files are kept.", "unit": "hours"})
    size: int = field(
        default=256 << 20, metadata={"help": "Most that all files may take; the oldest go first.", "unit": "bytes"}
    )
    queue: int = field(
        default=10_000, metadata={"help": "Lines that wait to be written; beyond it they are dropped, and counted."}
    )

    def __post_init__(self) -> None:
        if self.level.lower() not in LEVELS:
            raise SettingsError(f"log.level is {self.level!r}; it takes one of {', '.join(LEVELS)}")
        if self.format not in ("auto", "console", "json"):
            raise SettingsError(f"log.format is {self.format!r}; it takes auto, console or json")
        if self.retention_hours <= 0 or self.size < 1 or self.queue < 1:
            raise SettingsError(
                "log.retention_hours, size and queue have to be more than 0; log.files switches them off"
            )


Line: TypeAlias = Callable[[Level, str, dict[str, object]], None]
"""Writes one: its level, what happened, and what is known of it."""

_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


class _Form(NamedTuple):
    """How facts of one kind are told.

    Attributes:
        event: what happened.
        names: of what is known of it.
        known: gives the values of `names`, and one more, so that it is always a tuple.
        head: of a JSON line, from behind the timestamp to behind what happened.
    """

    event: str
    names: tuple[str, ...]
    known: Callable[[Fact], tuple[Any, ...]]
    head: bytes


_forms: Final[dict[type, _Form]] = {}


def _form(kind: type[Fact]) -> _Form:
    """Made once for each kind."""
    found = _forms.get(kind)
    if found is None:
        event = _words(kind.__name__)
        names = tuple(each.name for each in dataclasses.fields(kind) if each.metadata.get("logged", True))
        head = b'","level":%b,"event":%b' % (_encode(kind.level), _encode(event))
        found = _forms[kind] = _Form(event, names, operator.attrgetter(*names, "level"), head)
    return found


def known_of(fact: Fact) -> dict[str, object]:
    """What a fact tells, without what is empty."""
    form = _form(type(fact))
    return {name: value for name, value in zip(form.names, form.known(fact), strict=False) if value not in ("", None)}


_second: tuple[int, str] = (0, "")  # the last that was worded: lines come many a second


def timestamp(at: float) -> str:
    """A moment as log lines have it: ``2026-11-21T20:30:00.000000Z``. They sort as they were."""
    global _second
    whole, said = _second
    if whole != at // 1:
        whole = int(at // 1)
        said = datetime.fromtimestamp(whole, UTC).isoformat(timespec="seconds")[:19]
        _second = whole, said
    return f"{said}.{min(round((at - whole) * 1e6), 999_999):06d}Z"


_line: tuple[Fact | None, bytes] = (None, b"")  # the last that was made: each of several sinks wants it


def json_line(fact: Fact, at: float) -> bytes:
    """A fact as one JSON object, with the end of the line. What JSON has no form for is shown by its ``repr``.

    Args:
        at: unix seconds. Asked again for the same fact right away, it gives the same line, with the first time.

    Raises:
        ValueError: a text is not Unicode.
    """
    global _line
    last, made = _line
    if last is fact:
        return made
    known = _encode(known_of(fact))
    more = b"," if len(known) > 2 else b""
    made = b'{"timestamp":"%b%b%b%b\n' % (timestamp(at).encode(), _form(type(fact)).head, more, known[1:])
    _line = fact, made
    return made


class LogSink:
    """A sink that writes facts as log lines to `stream` (stderr).

    In a run of Trio, quiet JSON lines are written together: the first of them waits `HOLD` seconds for others, for a
    write costs several times what a line does. What is a warning or worse is written at once, behind those that wait,
    and so is what waits when the run ends.
    """

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        for_a_person = settings.format == "console" or (settings.format == "auto" and self._out.isatty())
        self._line = _console(self._out) if for_a_person else None
        self._least = LEVELS[settings.level.lower()]
        self._held: list[bytes] = []
        self._due = False
        """Whether somebody will write them."""
        self._trouble: OSError | ValueError | None = None

    def __call__(self, fact: Fact) -> None:
        """Write a line, where the fact is loud enough.

        Raises:
            OSError, ValueError: it cannot be written, or lines before it could not.
        """
        loud = LEVELS[fact.level]
        if loud < self._least:
            return
        if self._line is not None:
            self._line(fact.level, _form(type(fact)).event, known_of(fact))
            return
        self._held.append(json_line(fact, time.time()))
        if loud >= LEVELS["warning"] or len(self._held) >= MOST_HELD or not (self._due or self._will_write()):
            self.flush()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble

    def flush(self) -> None:
        """Write the lines that wait.

        Raises:
            OSError, ValueError: they cannot be written, and are gone.
        """
        lines = b"".join(self._held).decode()
        self._held.clear()
        if lines:
            self._out.write(lines)
            self._out.flush()

    def _will_write(self) -> bool:
        """Have somebody write soon; False where there is no run of Trio."""
        import trio  # here: who only reads logs has none

        if trio.lowlevel.in_trio_run():
            trio.lowlevel.spawn_system_task(self._write_soon)  # nobody waits for it, and it ends with the run
            self._due = True
        return self._due

    async def _write_soon(self) -> None:
        import trio

        try:
            await trio.sleep(HOLD)
        finally:
            self._due = False
            try:
                self.flush()
            except (OSError, ValueError) as error:  # a closed stderr: the next line tells it to the recorder
                self._trouble = error

    def adopt(self, settings: LogSettings) -> None:
        """Go by another level from now on. The format stays."""
        self._least = LEVELS[settings.level.lower()]


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
