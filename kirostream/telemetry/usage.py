"""The usage ledger: what each turn cost, kept in the embedded database and added up for whoever asks.

Theory. The ledger is a sink: a turn that is over is put into a bounded queue, which never waits, and its task writes
what is in the queue every `usage.interval` seconds, in one transaction, in the database's own thread. A process that is
killed loses the turns of the last interval (1 s), and nothing that was written before; a power cut may take the last
few transactions too. Where the database cannot be written (a full disk), turns stay in the queue and are tried again,
every `RETRY` seconds; what finds the queue full is dropped and counted. Both are told once, and so is the end of it.

Queries write first what is in the queue, so they miss nothing. How they are answered: `usage_tables`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import field
from datetime import date, datetime, tzinfo
from itertools import islice
from typing import Final, Literal

import msgspec
import trio

from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sqlite import Connection, Database
from kirostream.telemetry import usage_tables
from kirostream.telemetry.facts import Fact, SinkRecovered, SinkTroubled, TurnFinished
from kirostream.telemetry.usage_tables import HOUR, SUMS, Dimension, Row, Span
from kirostream.telemetry.writing import writing

RETRY: Final = 10.0
"""Seconds between two tries where the database cannot be written."""
AT_ONCE: Final = 1000
"""Turns in one transaction, or on one page of an export. Others write meanwhile."""
LONGEST_NAME: Final = 200
"""Characters kept of a model's name, which is a client's to choose."""
MOST_BUCKETS: Final = 3000
_DAY: Final = 86_400.0

Step = Literal["minute", "five minutes", "hour", "day"]
STEPS: Final[Mapping[Step, int]] = {"minute": 60, "five minutes": 300, "hour": HOUR, "day": 86_400}
"""Widths of buckets, in seconds. A day is a date of the gateway's time zone, and may have 23 hours or 25."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSettings:
    """The usage ledger.

    Raises:
        SettingsError: a figure is out of its range.
    """

    enabled: bool = field(
        default=True, metadata={"help": "Write down what each turn cost (`kirostream usage`).", "live": False}
    )
    interval: float = field(
        default=1.0, metadata={"help": "Between two writes. A crash loses the turns since the last.", "unit": "s"}
    )
    days: float = field(default=90.0, metadata={"help": "How long single turns are kept.", "unit": "days"})
    most: int = field(
        default=1_000_000, metadata={"help": "Single turns kept; the oldest go first. One takes some 300 bytes."}
    )
    total_days: float = field(
        default=1100.0, metadata={"help": "How long the sums of each day are kept.", "unit": "days"}
    )
    queue: int = field(
        default=10_000, metadata={"help": "Turns that wait to be written; beyond it they are dropped, and counted."}
    )

    def __post_init__(self) -> None:
        if self.interval <= 0 or min(self.days, self.total_days) <= 0 or min(self.most, self.queue) < 1:
            raise SettingsError("usage.interval, days, total_days, most and queue have to be more than 0.")


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of turns add up to.

    `failed` turns ended with an error, `abandoned` ones because their client left. `input_tokens` are those of the
    whole prompts, what came from a cache or went into it included. `seconds` are the turns' own, however many ran at
    once. `first_token` is the mean in seconds, None where no turn got that far; `tokens_per_second` is that of the
    answers from their first token on.
    """

    turns: int = 0
    failed: int = 0
    abandoned: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    credits: float = 0.0
    seconds: float = 0.0
    first_token: float | None = None
    tokens_per_second: float | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a day, model, key or account. `name` is its date (ISO 8601), name or id; `label` is for people."""

    name: str
    label: str
    totals: Totals


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a stretch of time from `at` on, in unix seconds."""

    at: float
    totals: Totals


class TurnUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. `at` is when it was over, in unix seconds; `number` grows from turn to turn. Others as in `Totals`."""

    number: int
    at: float
    turn: str
    key: str
    dialect: str
    model_asked: str
    model: str
    account: str
    account_label: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    credits: float | None
    first_token: float | None
    seconds: float
    tokens_per_second: float | None
    attempts: int
    outcome: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Which turns are asked about; an empty name: all."""

    key: str = ""
    model: str = ""
    account: str = ""

    def columns(self) -> dict[str, str]:
        """What has to be equal."""
        named = {"key": self.key, "model": self.model, "account": self.account}
        return {name: value for name, value in named.items() if value}


EVERY: Final = Only()


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """Counts of turns: waiting, written, dropped. `trouble` says why writing fails, "" where it does not."""

    queued: int
    written: int
    dropped: int
    trouble: str


class Ledger:
    """Writes down turns, and adds them up. Make one with `open_ledger`.

    Args:
        database: where.
        settings: how much, and for how long.
        tell: hears when writing begins to fail, and when it works again.
        clock: unix seconds.
        zone: whose dates days are; None: the system's.
    """

    def __init__(
        self,
        database: Database,
        settings: UsageSettings,
        tell: Callable[[Fact], None],
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._zone = zone
        self._queue: deque[tuple[float, TurnFinished]] = deque()
        self._some = trio.lowlevel.ParkingLot()
        self._writing = trio.Lock()
        self._written = self._dropped = 0
        self._trouble = ""
        self._forget_at = 0.0
        self._minute = (-1.0, 0)  # the last whose date was looked up, and the date

    def __repr__(self) -> str:
        return f"<Ledger {self.snapshot()}>"

    def snapshot(self) -> LedgerSnapshot:
        """How it goes."""
        return LedgerSnapshot(len(self._queue), self._written, self._dropped, self._trouble)

    def take(self, fact: Fact) -> None:
        """The sink: a turn that is over is written with the next batch."""
        if type(fact) is not TurnFinished:
            return
        if len(self._queue) >= self._settings.queue:
            self._dropped += 1
            return
        self._queue.append((self._clock(), fact))
        if self._some:
            self._some.unpark_all()

    async def run(self) -> None:
        """Write until cancelled. It sleeps while there are no turns."""
        while True:
            if not self._queue:
                await self._some.park()
            await trio.sleep(RETRY if self._trouble else self._settings.interval)
            await self.flush()
            if self._clock() >= self._forget_at and not self._trouble:
                await self.forget()

    async def flush(self) -> None:
        """Write what is not written. What cannot be is told, stays, and is tried again."""
        async with self._writing:
            while self._queue:
                batch = list(islice(self._queue, AT_ONCE))

                def work(connection: Connection, batch: list[tuple[float, TurnFinished]] = batch) -> None:
                    labels = {fact.account_id: fact.account for _, fact in batch if fact.account_id}
                    usage_tables.write(connection, [self._row(at, fact) for at, fact in batch], labels)

                try:
                    await self._database.write(work)
                except StoreError as error:
                    if not self._trouble:
                        self._tell(SinkTroubled(sink="usage ledger", message=error.message))
                    self._trouble = error.message
                    return
                for _ in batch:
                    self._queue.popleft()
                self._written += len(batch)
                if self._trouble:
                    self._trouble = ""
                    self._tell(SinkRecovered(sink="usage ledger", lost=self._dropped))

    async def forget(self) -> None:
        """Delete what is kept no longer. It is due once an hour."""
        now, settings = self._clock(), self._settings
        before = now - settings.days * _DAY
        day, total_day = self._day(before), self._day(now - settings.total_days * _DAY)
        self._forget_at = now + HOUR
        try:
            while await self._database.write(
                lambda c: usage_tables.forget(c, before, day, total_day, settings.most, AT_ONCE)
            ):
                pass
        except StoreError as error:
            self._tell(SinkTroubled(sink="usage ledger", message=error.message))

    def adopt(self, settings: UsageSettings) -> None:
        """Go by other settings, from the next write on."""
        self._settings = settings

    async def totals(
        self, key: str = "", since: float = 0.0, until: float | None = None, *, only: Only = EVERY
    ) -> Totals:
        """What the turns of a key add up to since a moment; "": of all keys.

        Raises:
            StoreError: the database cannot be read.
        """
        columns = {**only.columns(), **({"key": key} if key else {})}
        span = self._span(since, until)
        await self.flush()
        found = await self._database.read(lambda c: usage_tables.add_up(c, span, columns))
        return _totals(found.get(""))

    async def query(
        self, by: Dimension, since: float = 0.0, until: float | None = None, *, only: Only = EVERY
    ) -> list[Share]:
        """The totals of each day (oldest first), or of each model, key or account (the most expensive first).

        Args:
            by: what is told apart.
            since, until: unix seconds; None: now. Turns older than `usage.days` count by whole days.
            only: which turns.

        Raises:
            StoreError: the database cannot be read.
        """
        span = self._span(since, until)
        await self.flush()

        def work(connection: Connection) -> tuple[dict[str | int, list[float]], dict[str, str]]:
            labels = usage_tables.labels(connection) if by == "account" else {}
            return usage_tables.add_up(connection, span, only.columns(), by), labels

        found, labels = await self._database.read(work)
        if by == "day":
            dates = {day: date.fromordinal(int(day)).isoformat() for day in sorted(found)}
            return [Share(name=name, label=name, totals=_totals(found[day])) for day, name in dates.items()]
        shares = [
            Share(name=str(name), label=labels.get(str(name), str(name)), totals=_totals(sums))
            for name, sums in found.items()
        ]
        return sorted(
            shares, key=lambda each: (-each.totals.credits, -each.totals.output_tokens, -each.totals.turns, each.name)
        )

    async def series(self, step: Step, since: float, until: float | None = None, *, only: Only = EVERY) -> list[Bucket]:
        """The totals of every stretch of a span, empty ones too: what a chart shows.

        The first bucket holds `since`, and begins where a minute, hour or day does. Minutes are counted turn by turn,
        so ask for the last hours only; a day of hours, or a year of days, costs little.

        Raises:
            SettingsError: these are more than `MOST_BUCKETS`.
            StoreError: the database cannot be read.
        """
        width = STEPS[step]
        until = self._clock() if until is None else until
        if (until - since) / width > MOST_BUCKETS:
            raise SettingsError(f"{step} by {step} since then is more than {MOST_BUCKETS} figures; take a longer step.")
        if step == "day":
            days = {
                share.name: share.totals for share in await self.query("day", self._midnight(since), until, only=only)
            }
            ordinals = range(self._day(since), self._day(until) + 1)
            dates = [date.fromordinal(each) for each in ordinals]
            return [Bucket(at=self._begin(each), totals=days.get(each.isoformat(), Totals())) for each in dates]
        first, last = int(since // width), int(until // width)
        span = self._span(first * width, (last + 1) * width)
        await self.flush()
        found = await self._database.read(lambda c: usage_tables.buckets(c, span, width, only.columns()))
        return [Bucket(at=n * width, totals=_totals(found.get(n))) for n in range(first, last + 1)]

    async def turns(
        self,
        *,
        since: float = 0.0,
        until: float | None = None,
        only: Only = EVERY,
        outcome: str = "",
        before: int | None = None,
        after: int | None = None,
        most: int = 100,
    ) -> list[TurnUsage]:
        """Single turns, the newest first; with `after`, the oldest first.

        Args:
            since, until, only: which ones.
            outcome: those that ended so; ``ok``: neither failed nor left.
            before: those whose `number` is less: the next page.
            after: those whose `number` is greater.
            most: of them.

        Raises:
            StoreError: the database cannot be read.
        """
        where = [f"{column} = ?" for column in only.columns()]
        values: list[object] = list(only.columns().values())
        for condition, value in (("at >= ?", since or None), ("at < ?", until), ("id < ?", before), ("id > ?", after)):
            if value is not None:
                where.append(condition)
                values.append(value)
        if outcome == "ok":
            where.append("outcome NOT IN ('failed', 'left')")
        elif outcome:
            where.append("outcome = ?")
            values.append(outcome)
        await self.flush()
        rows = await self._database.read(
            lambda c: usage_tables.turns(c, where, values, newest_first=after is None, most=most)
        )
        return [_turn(row) for row in rows]

    async def every(
        self, *, since: float = 0.0, until: float | None = None, only: Only = EVERY
    ) -> AsyncGenerator[list[TurnUsage], None]:
        """All turns of a span, oldest first, a page at a time: for what is too much to hold. Close it (`aclosing`).

        Raises:
            StoreError: the database cannot be read.
        """
        after = 0
        while page := await self.turns(since=since, until=until, only=only, after=after, most=AT_ONCE):
            yield page
            after = page[-1].number

    def _row(self, at: float, fact: TurnFinished) -> Row:
        return (
            at,
            self._day(at),
            fact.turn,
            fact.key[:LONGEST_NAME],
            fact.dialect,
            fact.model_asked[:LONGEST_NAME],
            fact.model_used[:LONGEST_NAME],
            fact.account_id,
            fact.input_tokens,
            fact.output_tokens,
            fact.cache_read_tokens,
            fact.cache_write_tokens,
            fact.credits,
            fact.first_event,
            fact.seconds,
            fact.attempts,
            fact.outcome,
            fact.error,
        )

    def _span(self, since: float, until: float | None) -> Span:
        # A turn that ended at this very moment counts.
        until = self._clock() + 1.0 if until is None else until
        return Span(since, until, self._day(since), self._day(until))

    def _day(self, at: float) -> int:
        minute, day = self._minute
        if minute != at // 60:  # no clock is changed within one
            minute, day = self._minute = at // 60, datetime.fromtimestamp(at, self._zone).toordinal()
        return day

    def _midnight(self, at: float) -> float:
        return self._begin(datetime.fromtimestamp(at, self._zone).date())

    def _begin(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp()


@asynccontextmanager
async def open_ledger(
    database: Database,
    settings: UsageSettings,
    tell: Callable[[Fact], None],
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Ledger | None]:
    """A ledger that writes until the context ends, and then once more; None where it is off."""
    if not settings.enabled:
        yield None
        return
    ledger = Ledger(database, settings, tell, clock)
    async with writing(ledger.run, ledger.flush):
        yield ledger


def _totals(sums: list[float] | None) -> Totals:
    if sums is None:
        return Totals()
    of = dict(zip(SUMS, sums, strict=True))
    begun, streamed = of.pop("begun"), of.pop("streamed")
    first_token, credits_, seconds = of.pop("first_token"), of.pop("credits"), of.pop("seconds")
    return Totals(
        **{name: int(value) for name, value in of.items()},
        credits=round(credits_, 6),
        seconds=round(seconds, 3),
        first_token=round(first_token / begun, 4) if begun else None,
        tokens_per_second=round(of["output_tokens"] / streamed, 2) if streamed else None,
    )


def _turn(row: Row) -> TurnUsage:
    number, *columns, label = row
    of = dict(zip(usage_tables.COLUMNS, columns, strict=True))
    del of["day"]
    streamed = of["seconds"] - of["first_token"] if of["first_token"] is not None else 0.0
    pace = round(of["output_tokens"] / streamed, 2) if streamed > 0 else None
    return TurnUsage(number=number, account_label=label, tokens_per_second=pace, **of)
