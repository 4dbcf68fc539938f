"""How the gateway is: the light, the counts, the last hour."""

from __future__ import annotations

import os
from collections import Counter
from typing import Literal

import msgspec

from kirostream._version import __version__
from kirostream.accounts.health import State
from kirostream.admin.desk import Desk
from kirostream.admin.route import Call, Route
from kirostream.evstream import CORE
from kirostream.telemetry.recent import Minute as Counted

Light = Literal["healthy", "degraded", "unhealthy"]


class Reason(msgspec.Struct):
    """Why the light is not green. `code` is for programs, `message` for people."""

    code: str
    message: str


class Status(msgspec.Struct):
    """How the gateway is, now."""

    status: Light
    reasons: list[Reason]
    version: str
    core: str
    demo: bool
    simulated: bool
    """Whether turns that begin now are asked of the simulator: in a demo, or because it was switched on."""
    upstream: str
    urls: list[str]
    data_dir: str
    notes: list[str]
    started_at: float
    uptime: float
    memory: int | None
    """Bytes that the process has resident; null where the system does not say."""
    connections: int
    in_flight: int
    """Turns that are being answered."""
    waiting: int
    """Requests that wait for an account."""
    accounts: dict[str, int]
    """How many accounts are in each state."""
    dropped_facts: int


class Minute(msgspec.Struct):
    """One minute of the last hour. `at` is unix seconds; `first_token` is their mean, null where there was none."""

    at: int
    turns: int
    failed: int
    input_tokens: int
    output_tokens: int
    credits: float
    first_token: float | None


class Totals(msgspec.Struct):
    """Since the start."""

    turns: int
    answered: int
    failed: int
    left: int
    """Turns whose client went away."""
    input_tokens: int
    output_tokens: int
    credits: float
    first_token: float | None
    overhead: float | None
    """Seconds of the gateway's own in the time to the first token, on average."""
    exchanges: int
    faults: int


class Stats(msgspec.Struct):
    """What was done: since the start, and in the last hour, minute by minute."""

    since: float
    turns_per_minute: float
    """Over the last five whole minutes."""
    totals: Totals
    minutes: list[Minute]


class ManagementUsage(msgspec.Struct):
    """What health checks of desktop programs ask for: it answers, and how it is."""

    status: Light
    total_requests: int
    success_count: int
    failure_count: int
    total_tokens: int


class StatusPage:
    """``/status`` and ``/stats``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "status"
        return [
            Route(
                method="GET", path="/status", endpoint=self.status, summary="How the gateway is.", tag=tag, gives=Status
            ),
            Route(method="GET", path="/stats", endpoint=self.stats, summary="What was done.", tag=tag, gives=Stats),
            Route(
                method="GET", path="//admin/stats", endpoint=self.stats, summary="As /stats.", tag="seeds", gives=Stats
            ),
            Route(
                method="GET",
                path="//v0/management/usage",
                endpoint=self.management_usage,
                summary="For health checks of desktop programs.",
                tag="seeds",
                gives=ManagementUsage,
            ),
        ]

    async def status(self, call: Call) -> Status:
        """``GET /status``."""
        desk, pool = self._desk, self._desk.pool.snapshot()
        door = desk.door()
        states = Counter(account.state.value for account in pool.accounts)
        light, reasons = self._light()
        switched = desk.switch is not None and desk.switch.on
        return Status(
            status=light,
            reasons=reasons,
            version=__version__,
            core=CORE,
            demo=desk.about.demo,
            simulated=desk.about.demo or switched,
            upstream="the built-in simulator" if switched else desk.about.using,
            urls=list(desk.about.urls),
            data_dir=str(desk.about.data_dir),
            notes=list(desk.about.notes),
            started_at=desk.about.started_at,
            uptime=round(max(desk.clock() - desk.about.started_at, 0.0), 3),
            memory=_resident(),
            connections=door.connections,
            in_flight=len(desk.relay.directory),
            waiting=pool.waiting,
            accounts=dict(states),
            dropped_facts=desk.recorder.dropped,
        )

    async def stats(self, call: Call) -> Stats:
        """``GET /stats``."""
        desk = self._desk
        minutes = desk.recent.minutes()
        relay, door, total = desk.relay.snapshot(), desk.door(), desk.recent.total
        whole = minutes[-6:-1]
        return Stats(
            since=desk.about.started_at,
            turns_per_minute=round(sum(minute.turns for minute in whole) / len(whole), 3),
            totals=Totals(
                turns=total.turns,
                answered=relay.answered,
                failed=relay.failed,
                left=relay.left,
                input_tokens=total.input_tokens,
                output_tokens=total.output_tokens,
                credits=round(total.credits, 6),
                first_token=_mean(total),
                overhead=round(total.own / total.owned, 9) if total.owned else None,
                exchanges=door.served,
                faults=door.faults,
            ),
            minutes=[
                Minute(
                    minute.at,
                    minute.turns,
                    minute.failed,
                    minute.input_tokens,
                    minute.output_tokens,
                    round(minute.credits, 6),
                    _mean(minute),
                )
                for minute in minutes
            ],
        )

    async def management_usage(self, call: Call) -> ManagementUsage:
        """``GET /v0/management/usage``."""
        relay, total = self._desk.relay.snapshot(), self._desk.recent.total
        return ManagementUsage(
            status=self._light()[0],
            total_requests=relay.started,
            success_count=relay.answered,
            failure_count=relay.failed,
            total_tokens=total.input_tokens + total.output_tokens,
        )

    def _light(self) -> tuple[Light, list[Reason]]:
        """Red where no turn can be answered, yellow where less can be than there is for it, green otherwise.

        What counts are the accounts that turns are asked on now: the simulator's while it is switched on. Where
        accounts come with requests, there are turns that need none of the house.
        """
        reasons = []
        pool = self._desk.relay.asked.house.pool
        states = Counter(account.state.value for account in pool.snapshot().accounts)
        usable = states[State.READY.value]
        guests = self._desk.about.guests
        if not usable and (states or not guests):
            error = pool.outlook()
            if error is not None:
                reasons.append(Reason("no_account", error.message))
            elif not states:
                reasons.append(Reason("no_account", "No account is in use. Add one, enable one, or sign in."))
        out = sum(states.values()) - usable - states[State.DISABLED.value]
        if out:
            reasons.append(Reason("accounts_out", f"{out} of {sum(states.values())} accounts cannot be used just now."))
        if self._desk.about.unkept:
            reasons.append(Reason("unwritable", self._desk.about.unkept))
        unsaved = sum(token.unsaved for token in self._desk.keeper.snapshot().tokens)
        if unsaved:
            reasons.append(
                Reason(
                    "tokens_unsaved",
                    f"Renewed tokens of {unsaved} accounts could not be written, and are lost with this process: "
                    "those accounts may have to sign in again then.",
                )
            )
        ledger = self._desk.ledger
        if ledger is not None and (trouble := ledger.snapshot().trouble):
            reasons.append(Reason("usage_unwritten", trouble))
        if self._desk.recorder.dropped:
            reasons.append(
                Reason(
                    "facts_dropped", f"{self._desk.recorder.dropped} log lines could not be written. Is the disk full?"
                )
            )
        if not guests and any(reason.code == "no_account" for reason in reasons):
            return "unhealthy", reasons
        return "degraded" if reasons else "healthy", reasons


def _mean(minute: Counted) -> float | None:
    return round(minute.first_events / minute.heard, 6) if minute.heard else None


def _resident() -> int | None:
    """Bytes of this process that are in memory, as Linux says it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
