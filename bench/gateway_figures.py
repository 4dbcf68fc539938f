"""What the figures of ``python -m bench gateways`` come to: medians, ratios of one run, goals, tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.peers import CHAT, DIRECT, HAPROXY, NGINX, OURS, REFERENCE, RELAY, WAYS

Rounds = Sequence[Mapping[str, Any] | None]
"""The figures of one way in one workload, round by round; None where it was not asked."""

ADDED = {
    "p50_us": "added_p50_us",
    "p99_us": "added_p99_us",
    "p999_us": "added_p999_us",
    "first_p50_us": "added_first_p50_us",
    "first_p99_us": "added_first_p99_us",
}


def summarize(raw: Mapping[str, Any]) -> dict[str, Any]:
    """By workload and way: the median of each figure, its `spread`, what it adds to `direct`, and `ours`."""
    return {workload: compared({name: over_direct(name, rows) for name in rows}) for workload, rows in raw.items()}


def over_direct(name: str, rows: Mapping[str, Rounds]) -> list[dict[str, Any] | None]:
    """The rounds of a way, with what they add to those of `direct`."""
    out: list[dict[str, Any] | None] = []
    for number, found in enumerate(rows[name]):
        if found is None:
            out.append(None)
            continue
        plain = rows.get(DIRECT, ())
        direct = (plain[number] if number < len(plain) else None) or {}
        more = {}
        for figure, added in ADDED.items():
            if figure in found:
                known = found[figure] is not None and direct.get(figure) is not None
                more[added] = found[figure] - direct[figure] if known else None
        out.append({**found, **more})
    return out


def compared(rows: Mapping[str, Rounds]) -> dict[str, Any]:
    """One workload. `ours`: how many times kirostream's figure is the row's. A way that was never asked is None."""
    out: dict[str, Any] = {}
    for name, rounds in rows.items():
        known = [found for found in rounds if found is not None]
        if not known:
            out[name] = None
            continue
        row: dict[str, Any] = {"spread": {}}
        for figure in known[0]:
            values = [found[figure] for found in known if found[figure] is not None]
            row[figure] = statistics.median(values) if values else None
            row["spread"][figure] = [min(values), max(values)] if values else None
        row["behind"] = sum(found.get("behind", 0) for found in known)
        row["rounds"] = len(known)
        ours = {figure: ratio(rows.get(OURS, ()), rounds, figure) for figure in COMPARED}
        row["ours"] = {figure: found for figure, found in ours.items() if found is not None}
        out[name] = row
    return out


COMPARED = ("cpu_us", "added_p50_us", "added_p99_us", "tokens_per_second", "requests_per_second")


def ratio(one: Rounds, other: Rounds, figure: str) -> float | None:
    """The median of the rounds' own ratios; None where there are none. What is not above nothing has no ratio."""
    ratios = [
        float(this[figure] / that[figure])
        for this, that in zip(one, other, strict=False)
        if this and that and this.get(figure) is not None and that.get(figure) is not None and that[figure] > 0
    ]
    return statistics.median(ratios) if ratios else None


# --- goals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to be, at the most or (`least`) at the least.

    Attributes:
        to: another way, to whose figure it is a ratio; empty: the figure itself.
        of: whose figure; kirostream's where nothing is said.
    """

    what: str
    workload: str
    figure: str
    bound: float
    unit: str
    to: str = ""
    of: str = OURS
    least: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {'at least' if self.least else 'at most'} {self.bound:g} {self.unit}"


GOALS = (
    Goal("CPU a token at 128 x 20/s, of the C relay's", "paced 128x20", "cpu_us", 2.0, "x", RELAY),
    Goal("CPU a token at 128 x 20/s, of HAProxy's", "paced 128x20", "cpu_us", 1.4, "x", HAPROXY),
    Goal("CPU a token at 128 x 20/s, of the usual stack's", "paced 128x20", "cpu_us", 0.17, "x", REFERENCE),
    Goal(
        "CPU a token at 128 x 20/s, TLS upstream, of the plain",
        "paced 128x20",
        "cpu_us",
        1.6,
        "x",
        OURS,
        "kirostream-tls",
    ),
    Goal("CPU a token at 128 x 50/s, of nginx's", "paced 128x50", "cpu_us", 1.1, "x", NGINX),
    Goal("added latency at 128 x 50/s, p50, of nginx's", "paced 128x50", "added_p50_us", 1.2, "x", NGINX),
    Goal("added latency at 128 x 20/s, p50, of HAProxy's", "paced 128x20", "added_p50_us", 1.5, "x", HAPROXY),
    Goal("added latency at 128 x 20/s, p99, of HAProxy's", "paced 128x20", "added_p99_us", 3.0, "x", HAPROXY),
    Goal("unpaced, CPU a token", "unpaced 1", "cpu_us", 1.0, "us"),
    Goal("unpaced, tokens a second", "unpaced 1", "tokens_per_second", 250_000, "/s", least=True),
    Goal("unpaced, CPU a token, of the usual stack's", "unpaced 1", "cpu_us", 0.01, "x", REFERENCE),
    Goal("first token over direct, p50", "first 1", "added_first_p50_us", 600, "us"),
    Goal("short request, Messages, CPU", "short 1", "cpu_us", 800, "us"),
    Goal("short request, Chat, CPU", "short 1", "cpu_us", 800, "us", of=CHAT),
    Goal(
        "short requests a second, of the usual stack's",
        "short 1",
        "requests_per_second",
        5.0,
        "x",
        REFERENCE,
        least=True,
    ),
    Goal("memory of 1,000 streams over idle, each", "memory 1000x5", "kib_per_stream", 40, "KiB"),
    Goal("memory at rest", "start", "idle_mb", 45, "MB"),
    Goal("ready after", "start", "ready_ms", 400, "ms"),
)


def judge(raw: Mapping[str, Any], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The goals of what was measured, and whether they were met. A row that was behind meets none: it takes less
    because it waits."""
    out = []
    for goal in GOALS:
        row = results.get(goal.workload, {}).get(goal.of)
        if row is None:
            continue
        value = row.get(goal.figure)
        if goal.to:
            rows = raw[goal.workload]
            if goal.to not in rows:
                continue
            value = ratio(over_direct(goal.of, rows), over_direct(goal.to, rows), goal.figure)
        if value is None:
            continue
        met = value >= goal.bound if goal.least else value <= goal.bound
        out.append({"goal": str(goal), "measured": value, "unit": goal.unit, "met": met and not row["behind"]})
    return out


# --- tables -------------------------------------------------------------------------------------------------------

Columns = Sequence[tuple[str, str, int]]
PACED: Columns = (
    ("CPU us/token", "cpu_us", 1),
    ("added p50 us", "added_p50_us", 0),
    ("p99", "added_p99_us", 0),
    ("p99.9", "added_p999_us", 0),
    ("tokens/s", "tokens_per_second", 0),
    ("RSS MB", "resident_mb", 1),
    ("upstream us", "upstream_us", 1),
    ("clients us", "clients_us", 1),
    ("busy cores", "busy_cores", 2),
)
UNPACED: Columns = (
    ("tokens/s", "tokens_per_second", 0),
    ("CPU us/token", "cpu_us", 2),
    ("upstream us", "upstream_us", 2),
    ("clients us", "clients_us", 2),
)
START: Columns = (("ready ms", "ready_ms", 0), ("idle RSS MB", "idle_mb", 1))
MEMORY: Columns = (
    ("idle RSS MB", "idle_mb", 1),
    ("peak RSS MB", "peak_mb", 1),
    ("KiB a stream over idle", "kib_per_stream", 1),
    ("tokens/s", "tokens_per_second", 0),
)
REQUESTS: Columns = (
    ("requests/s", "requests_per_second", 0),
    ("CPU us/request", "cpu_us", 0),
    ("first token p50 us", "first_p50_us", 0),
    ("over direct", "added_first_p50_us", 0),
    ("p99 over direct", "added_first_p99_us", 0),
    ("upstream us", "upstream_us", 0),
    ("clients us", "clients_us", 0),
)


COLUMNS: Mapping[str, Columns] = {"paced": PACED, "unpaced": UNPACED, "start": START, "memory": MEMORY}


HEADINGS: Mapping[str, str] = {
    "paced": "{crowd} tokens/s",
    "unpaced": "Streams at once, as fast as they go: {crowd}",
    "first": "Requests of one token, at once: {crowd}",
    "short": "Requests of ten tokens on kept connections, at once: {crowd}",
    "fresh": "Requests of ten tokens, a new connection each, at once: {crowd}",
    "start": "Start",
    "memory": "Memory, {crowd} tokens/s",
}


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """A table a workload. The last columns say how many times kirostream's figure is the row's."""
    for name, rows in results.items():
        kind = name.partition(" ")[0]
        columns = COLUMNS.get(kind, REQUESTS)
        out = Table(title=name, title_justify="left")
        out.add_column("", no_wrap=True)
        for heading, _, _ in columns:
            out.add_column(heading, justify="right")
        out.add_column("kirostream takes, CPU", justify="right")
        order = {way.name: place for place, way in enumerate(WAYS)}
        for way, row in sorted(rows.items(), key=lambda each: order.get(each[0], len(order))):
            if row is None:
                out.add_row(way, "not asked")
                continue
            cells = ["-" if row.get(figure) is None else f"{row[figure]:,.{digits}f}" for _, figure, digits in columns]
            ratio = row["ours"].get("cpu_us")
            out.add_row(f"{way} *" if row["behind"] else way, *cells, "-" if ratio is None else f"{ratio:.2f} x")
        if any(row and row["behind"] for row in rows.values()):
            out.caption = "* behind the pace in some round: it wrote many tokens at once, and takes less for each"
        yield out
