"""What turns cost: the ledger, by day, model, key and account, as series for charts, turn by turn, and as files."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from kirostream.admin.desk import Desk
from kirostream.admin.errors import Unavailable
from kirostream.admin.route import ANSWERED, Call, Route
from kirostream.telemetry.usage import Bucket, Ledger, Only, Share, Step, Totals, TurnUsage
from kirostream.telemetry.usage_export import CONTENT_TYPES, export, shares_csv
from kirostream.telemetry.usage_tables import Dimension

Moment: TypeAlias = Annotated[float, Meta(ge=0, le=4_102_444_800, description="Unix seconds.")]
Name: TypeAlias = Annotated[str, Meta(max_length=200)]


class Span(msgspec.Struct, forbid_unknown_fields=True):
    """Which turns are asked about; an empty name: all."""

    since: Moment = 0.0
    until: Moment | None = None
    key: Name = ""
    model: Name = ""
    account: Name = ""

    def only(self) -> Only:
        """The names."""
        return Only(key=self.key, model=self.model, account=self.account)


class SharesAsked(Span, forbid_unknown_fields=True):
    """And what is told apart."""

    by: Dimension = "day"


class SeriesAsked(Span, forbid_unknown_fields=True):
    """And the width of a bucket."""

    step: Step = "hour"


class TurnsAsked(Span, forbid_unknown_fields=True):
    """And how many, of which outcome, before which one. `outcome` is ``ok``, ``failed``, ``left`` or a stop reason."""

    outcome: Name = ""
    before: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    most: Annotated[int, Meta(ge=1, le=1000)] = 100


class FileAsked(SharesAsked, forbid_unknown_fields=True):
    """And what goes into the file: every turn, or the shares of `by`."""

    form: Literal["csv", "json"] = "csv"
    what: Literal["turns", "shares"] = "turns"


class Usage(msgspec.Struct):
    """The totals of a span, and of each day, model, key or account in it."""

    by: Dimension
    since: float
    until: float | None
    totals: Totals
    shares: list[Share]


class Series(msgspec.Struct):
    """The totals of every stretch of a span, empty ones too."""

    step: Step
    buckets: list[Bucket]


class UsageTurns(msgspec.Struct):
    """Single turns, the newest first. `before` of the next page is the `number` of the last one."""

    turns: list[TurnUsage]


class UsagePage:
    """``/usage``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "usage"
        return [
            Route(
                method="GET",
                path="/usage",
                endpoint=self.shares,
                summary="What turns cost, by day, model, key or account.",
                tag=tag,
                query=SharesAsked,
                gives=Usage,
                refuses=(404,),
            ),
            Route(
                method="GET",
                path="/usage/series",
                endpoint=self.series,
                summary="What they cost, stretch by stretch: what a chart shows.",
                tag=tag,
                query=SeriesAsked,
                gives=Series,
                refuses=(404,),
            ),
            Route(
                method="GET",
                path="/usage/turns",
                endpoint=self.turns,
                summary="Single turns.",
                tag=tag,
                query=TurnsAsked,
                gives=UsageTurns,
                refuses=(404,),
            ),
            Route(
                method="GET",
                path="/usage/export",
                endpoint=self.file,
                summary="The same as a file.",
                tag=tag,
                query=FileAsked,
                media=("text/csv", "application/json"),
                refuses=(404,),
            ),
        ]

    def _ledger(self) -> Ledger:
        if self._desk.ledger is None:
            raise Unavailable("No ledger is kept: usage.enabled is off.")
        return self._desk.ledger

    async def shares(self, call: Call) -> Usage:
        """``GET /usage``."""
        asked: SharesAsked = call.query
        ledger, only = self._ledger(), asked.only()
        return Usage(
            asked.by,
            asked.since,
            asked.until,
            await ledger.totals("", asked.since, asked.until, only=only),
            await ledger.query(asked.by, asked.since, asked.until, only=only),
        )

    async def series(self, call: Call) -> Series:
        """``GET /usage/series``."""
        asked: SeriesAsked = call.query
        return Series(asked.step, await self._ledger().series(asked.step, asked.since, asked.until, only=asked.only()))

    async def turns(self, call: Call) -> UsageTurns:
        """``GET /usage/turns``."""
        asked: TurnsAsked = call.query
        return UsageTurns(
            await self._ledger().turns(
                since=asked.since,
                until=asked.until,
                only=asked.only(),
                outcome=asked.outcome,
                before=asked.before,
                most=asked.most,
            )
        )

    async def file(self, call: Call) -> object:
        """``GET /usage/export``. It is sent a page at a time, so it may be long."""
        asked: FileAsked = call.query
        ledger, exchange = self._ledger(), call.exchange
        headers = (
            (b"content-type", CONTENT_TYPES[asked.form]),
            (b"content-disposition", f'attachment; filename="kirostream-{asked.what}.{asked.form}"'.encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        )
        if asked.what == "shares":
            shares = await ledger.query(asked.by, asked.since, asked.until, only=asked.only())
            await exchange.reply(
                200, headers, shares_csv(shares) if asked.form == "csv" else msgspec.json.encode(shares)
            )
            return ANSWERED
        parts = export(ledger, asked.form, since=asked.since, until=asked.until, only=asked.only())
        first = await anext(parts, b"")  # so that a database that cannot be read is told with a status of its own
        await exchange.start(200, headers, first)
        async for part in parts:
            await exchange.send(part)
        await exchange.finish()
        return ANSWERED
