"""Log lines: the newest, by level, time and words; as they are written; and as a file."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Final, Literal

import msgspec
import trio
from msgspec import Meta

from kirostream.admin.desk import Desk
from kirostream.admin.errors import Unavailable
from kirostream.admin.pages.turns import EVENTS, HEARTBEAT
from kirostream.admin.pages.usage import Moment
from kirostream.admin.route import ANSWERED, Call, Route
from kirostream.telemetry.logs import LogFilter, LogLine, LogReader

AT_ONCE: Final = 500
"""Lines of a file that are read, and sent, at once."""


class LogsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which lines: of this level at least, in this span, holding these words in any case of letters."""

    level: Literal["debug", "info", "warning", "error"] = "debug"
    since: Moment = 0.0
    until: Moment | None = None
    search: Annotated[str, Meta(max_length=200)] = ""

    def filter(self) -> LogFilter:
        """The same, as the reader takes it."""
        return LogFilter(level=self.level, since=self.since, until=self.until, grep=self.search)


class NewestAsked(LogsAsked, forbid_unknown_fields=True):
    """And how many."""

    most: Annotated[int, Meta(ge=1, le=2000)] = 200


class Line(msgspec.Struct):
    """One line. `timestamp` is ISO 8601 in UTC; `known` is what is known of the event."""

    timestamp: str
    level: str
    event: str
    known: dict[str, Any]


class Lines(msgspec.Struct):
    """Lines, newest first."""

    lines: list[Line]


class LogsPage:
    """``/logs``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "logs"
        newest = "The newest log lines."
        return [
            Route(
                method="GET",
                path=path,
                endpoint=self.newest,
                summary=newest,
                tag="seeds" if path.startswith("//") else tag,
                query=NewestAsked,
                gives=Lines,
                refuses=(404,),
            )
            for path in ("/logs", "//admin/logs")
        ] + [
            Route(
                method="GET",
                path="/logs/live",
                endpoint=self.live,
                summary="Lines as they are written, from now on: one a message. It goes on until the client leaves.",
                tag=tag,
                query=LogsAsked,
                media=("text/event-stream",),
                refuses=(404,),
            ),
            Route(
                method="GET",
                path="/logs/export",
                endpoint=self.file,
                summary="Lines as a file, oldest first, one JSON object a line.",
                tag=tag,
                query=LogsAsked,
                media=("application/x-ndjson",),
                refuses=(404,),
            ),
        ]

    def _reader(self) -> LogReader:
        if self._desk.logs is None:
            raise Unavailable("No log files are written: log.files is off.")
        return self._desk.logs

    async def newest(self, call: Call) -> Lines:
        """``GET /logs``."""
        asked: NewestAsked = call.query
        reader = self._reader()
        found = await trio.to_thread.run_sync(lambda: reader.newest(asked.filter(), most=asked.most))
        return Lines([_line(each) for each in found])

    async def live(self, call: Call) -> object:
        """``GET /logs/live``."""
        asked: LogsAsked = call.query
        tail, exchange = self._reader().follow(asked.filter()), call.exchange
        await exchange.start(200, EVENTS, b": \n\n")
        while True:
            lines: list[LogLine] = []
            with trio.move_on_after(HEARTBEAT):
                lines = await tail.more()
            said = b"".join(b"data: %b\n\n" % msgspec.json.encode(_line(each)) for each in lines)
            await exchange.send(said or b": \n\n")

    async def file(self, call: Call) -> object:
        """``GET /logs/export``."""
        asked: LogsAsked = call.query
        lines, exchange = self._reader().read(asked.filter()), call.exchange

        def part() -> bytes:
            taken = itertools.islice(lines, AT_ONCE)
            return b"".join(msgspec.json.encode(each.as_dict()) + b"\n" for each in taken)

        data = await trio.to_thread.run_sync(part)
        headers = (
            (b"content-type", b"application/x-ndjson"),
            (b"content-disposition", b'attachment; filename="kirostream-logs.jsonl"'),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        )
        await exchange.start(200, headers, data)
        while data:
            data = await trio.to_thread.run_sync(part)
            if data:
                await exchange.send(data)
        await exchange.finish()
        return ANSWERED


def _line(line: LogLine) -> Line:
    return Line(line.timestamp, line.level, line.event, dict(line.known))
