"""docs/benchmarks.md and its charts, written from the newest results of each suite in ``bench/results``.

Nothing is measured here. A test sees that the committed page is what this makes of the results that it names.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import charts, report
from bench.charts import Bar, number
from bench.gateway_figures import COLUMNS, HEADINGS, REQUESTS
from bench.peers import DIRECT, OURS, WAYS
from bench.processes import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
CHARTS = PAGE.parent / "benchmarks"
SUITES = {
    "gateways": "Beside other gateways",
    "codec": "Event-stream decoders",
    "convert": "A request of 1 MB",
    "upstream": "The connection to the upstream",
    "fanout": "One turn, many watchers",
    "counting": "Long token counts",
    "pool": "Leases of accounts",
    "ledger": "The usage ledger",
    "recorder": "What recording a turn takes",
    "start": "Start and memory at rest",
    "memory": "Memory of connections and streams",
    "endtoend": "Letting go of an upstream",
}
"""What has a place on the page, and its heading."""


def newest(results: Path, among: Collection[str] | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """The newest result of each suite that has a place: the file's name and what it holds.

    Args:
        among: files that count, by name; None: all.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json")):  # a name ends with its time
        if among is not None and path.name not in among:
            continue
        said = json.loads(path.read_text())
        if said["suite"] in SUITES:
            found[said["suite"]] = (path.name, said)
    return {suite: found[suite] for suite in SUITES if suite in found}


def files(results: Path, among: Collection[str] | None = None) -> dict[Path, str]:
    """The page and its charts, by path. Arguments as `newest` has them."""
    known = newest(results, among)
    drawn: dict[str, str] = {}
    text = "\n".join(_page(known, drawn))
    return {PAGE: text + "\n", **{CHARTS / f"{name}.svg": chart for name, chart in drawn.items()}}


def _page(known: Mapping[str, tuple[str, dict[str, Any]]], drawn: dict[str, str]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "<!-- Written by `python -m bench docs` from bench/results. Do not edit. -->"
    yield ""
    yield INTRODUCTION
    yield ""
    yield "## Goals"
    yield ""
    yield from _goals(known)
    if "gateways" in known:
        name, said = known["gateways"]
        yield ""
        yield f"## {SUITES['gateways']}"
        yield ""
        yield from _gateways(name, said, drawn)
    if "codec" in known:
        name, said = known["codec"]
        yield ""
        yield f"## {SUITES['codec']}"
        yield ""
        yield from _codec(name, said, drawn)
    others = [suite for suite in known if suite not in ("gateways", "codec")]
    if others:
        yield ""
        yield "## The other suites"
        yield ""
        yield "Their goals are in the table above; what they measure is in [bench/README.md](../bench/README.md)."
        yield ""
        yield "| suite | what | figures |"
        yield "| --- | --- | --- |"
        for suite in others:
            yield f"| `{suite}` | {SUITES[suite]} | {_link(known[suite][0])} |"
    yield ""
    yield NOT_MEASURED


def _goals(known: Mapping[str, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    goals = [(suite, goal) for suite, (_, said) in known.items() for goal in said.get("goals", ())]
    met = sum(bool(goal["met"]) for _, goal in goals)
    yield f"{met} of {len(goals)} are met. What is missed stays here until it is not."
    yield ""
    yield "| suite | goal | measured | |"
    yield "| --- | --- | ---: | --- |"
    for suite, goal in goals:
        value = goal["measured"]
        shown = "nothing" if value is None else f"{number(value)} {goal.get('unit', '')}".strip()
        yield f"| `{suite}` | {goal['goal']} | {shown} | {'met' if goal['met'] else '**missed**'} |"


def _machine(name: str, said: Mapping[str, Any]) -> str:
    where = said["machine"]
    cores = f"{where['cores']} cores"
    versions = ", ".join(f"{each} {version}" for each, version in said.get("versions", {}).items())
    return (
        f"{said['at']}, {where['processor']}, {cores}, load {where['load']} before it began, {where['system']}, "
        f"{where['python']}; {versions}. All figures of all rounds: {_link(name)}."
    )


def _link(name: str) -> str:
    return f"[{name}](../bench/results/{name})"


def _gateways(name: str, said: Mapping[str, Any], drawn: dict[str, str]) -> Iterator[str]:
    results = said["results"]
    yield _machine(name, said)
    yield ""
    yield "| way | what |"
    yield "| --- | --- |"
    for way, about in said["ways"].items():
        yield f"| `{way}` | {about} |"
    yield ""
    yield GATEWAYS
    for chart, title, unit, workload, figure in BARS:
        rows = _bars(results.get(workload, {}), figure)
        if rows:
            drawn[chart] = charts.bars(title, unit, rows)
            yield ""
            yield f"![{title}](benchmarks/{chart}.svg)"
    for rate in said["settings"]["rates"]:
        for chart, title, unit, figure in LINES:
            series = _series(results, rate, figure)
            if any(len(points) > 1 for points in series.values()):
                heading = f"{title}, {rate} tokens/s a stream"
                drawn[f"{chart}-{rate}"] = charts.lines(heading, unit, "streams at once", series)
                yield ""
                yield f"![{heading}](benchmarks/{chart}-{rate}.svg)"
    for workload, rows in results.items():
        yield ""
        yield from _table(workload, rows)


BARS = (
    ("cpu-128x20", "CPU of the gateway a token, 128 streams x 20 tokens/s", "us", "paced 128x20", "cpu_us"),
    ("cpu-128x50", "CPU of the gateway a token, 128 streams x 50 tokens/s", "us", "paced 128x50", "cpu_us"),
    (
        "added-128x20",
        "Latency added to a token, median, 128 streams x 20 tokens/s",
        "us",
        "paced 128x20",
        "added_p50_us",
    ),
    ("unpaced", "One stream as fast as it goes", "tokens/s", "unpaced 1", "tokens_per_second"),
    ("first", "First token over direct, one request at a time, median", "us", "first 1", "added_first_p50_us"),
    ("short", "CPU of the gateway for a request of ten tokens", "us", "short 1", "cpu_us"),
)
"""Charts of bars: file, title, unit, workload, figure."""
LINES = (
    ("cpu-by-streams", "CPU of the gateway a token", "us", "cpu_us"),
    ("added-by-streams", "Latency added to a token, median", "us", "added_p50_us"),
)


SIDE = {way.name for way in WAYS if way.side}


def _bars(rows: Mapping[str, Any], figure: str) -> list[Bar]:
    found = []
    for way, row in in_order(rows):
        if row is None or row.get(figure) is None or (way == DIRECT and figure.startswith("added")):
            continue
        low, high = row["spread"][figure]
        label = f"{way} *" if row["behind"] else way
        found.append(Bar(label, row[figure], low, high, ours=way.startswith(OURS)))
    return found


def _series(results: Mapping[str, Any], rate: int, figure: str) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {OURS: []}  # ours has the first colour
    for workload, rows in results.items():
        kind, _, crowd = workload.partition(" ")
        streams, _, pace = crowd.partition("x")
        if kind != "paced" or int(pace) != rate:
            continue
        for way, row in in_order(rows):
            if row and row.get(figure) and not row["behind"] and way not in SIDE:
                series.setdefault(way, []).append((int(streams), row[figure]))
    return {way: sorted(points) for way, points in series.items() if len(points) > 1}


def in_order(rows: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Rows as `WAYS` has them, foreign ones last."""
    order = {way.name: place for place, way in enumerate(WAYS)}
    return sorted(rows.items(), key=lambda each: order.get(each[0], len(order)))


def _table(workload: str, rows: Mapping[str, Any]) -> Iterator[str]:
    kind = workload.partition(" ")[0]
    columns = COLUMNS.get(kind, REQUESTS)
    yield f"### {HEADINGS[kind].format(crowd=workload.partition(' ')[2].replace('x', ' x '))}"
    yield ""
    compared = kind not in ("start", "memory")
    heads = ["", *(heading.strip() for heading, _, _ in columns), *(["kirostream takes"] if compared else [])]
    yield f"| {' | '.join(heads)} |"
    yield f"| --- | {' | '.join(['---:'] * (len(heads) - 1))} |"
    for way, row in in_order(rows):
        if row is None:
            yield f"| `{way}` | not asked {'| ' * (len(heads) - 2)}|"
            continue
        cells = ["-" if row.get(figure) is None else f"{row[figure]:,.{digits}f}" for _, figure, digits in columns]
        times = row["ours"].get("cpu_us")
        share = [("-" if times is None else f"{number(times)} x")] if compared else []
        yield f"| `{way}`{' *' if row['behind'] else ''} | {' | '.join([*cells, *share])} |"


def _codec(name: str, said: Mapping[str, Any], drawn: dict[str, str]) -> Iterator[str]:
    yield _machine(name, said)
    for at, result in enumerate(said["results"]):
        rows = sorted(result["rows"], key=lambda row: float(row["median_ns"]))
        title = f"CPU a frame, {result['workload']}"
        drawn[f"codec-{at}"] = charts.bars(
            title,
            "ns (median; line: from the best round)",
            [
                Bar(row["row"], row["median_ns"], row["best_ns"], row["median_ns"], row["row"].startswith("kirostream"))
                for row in rows
            ],
        )
        yield ""
        yield f"![{title}](benchmarks/codec-{at}.svg)"


INTRODUCTION = """\
`make bench`, or `python -m bench all`, measures everything that is here, and `python -m bench docs` writes this page.
[bench/README.md](../bench/README.md) says how each figure is taken, how to run one suite, and how to put another
gateway beside ours.

**Read ratios, not absolute figures.** Machines are shared and noisy: all rows of a suite come from one run, rounds are
interleaved, figures are medians of rounds, and a ratio is the median of the rounds' own ratios. What disturbs the
machine disturbs both of its sides. Every token of every answer is checked; a wrong one fails the run."""

GATEWAYS = """\
The upstream, the clients and the `relay` are C programs of the bench, which cost less than what is measured; their own
CPU stands beside each row. *kirostream takes* says how many times the row's CPU kirostream takes for the same work:
below 1 it takes less. `direct`, `relay`, `haproxy` and `nginx` move bytes and look at none: they are what a process in
between costs at all. All `kirostream` rows decode frames, check both checksums, and write another language; so does
`reference`. `litellm` translates nothing: it speaks the same language on both sides.

*Added* latency is that of the row less that of `direct` in the same round; where rounds are disturbed it can be below
zero. `*` marks what delivered less than 95 % of the pace in some round: its queue grew, it wrote many tokens at once,
and takes less for each. *Not asked*: it was far behind at a smaller crowd. Side ways (languages, doors, TLS) are
measured at 128 streams."""

NOT_MEASURED = """\
## What is not measured

- Machines apart: everything is on one, over loopback, where a network costs nothing and the upstream and the clients
  take cores from the gateway.
- More than one process: kirostream is one process on one core, and so are the others here, which can use more.
- TLS at the client's side, HTTP/2, proxies, many accounts at once.
- Tool calls, thinking, images, stop sequences: text is what most tokens are.
- Features: the reference, HAProxy, nginx and the relay have no accounts, token refresh, retries, rules for requests,
  logs of each turn or watchers, all of which kirostream has while it is measured.
- What models take. A token takes a model some 20 ms; nothing here is a thousandth of that for a person who reads."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of results")


def run(options: argparse.Namespace) -> int:
    made: Mapping[Path, str] = files(options.results)
    CHARTS.mkdir(exist_ok=True)
    for old in CHARTS.glob("*.svg"):
        if old not in made:
            old.unlink()
    for path, text in made.items():
        path.write_text(text)
    print(f"written: {PAGE} and {len(made) - 1} charts")
    return 0


def differing(results: Path = report.RESULTS) -> Sequence[Path]:
    """Files of the page that are not what the results make of them that it names."""
    named = re.findall(r"\(\.\./bench/results/([^)]+)\)", PAGE.read_text())
    made = files(results, named)
    here = {PAGE, *CHARTS.glob("*.svg")}
    return sorted(path for path in here | set(made) if not path.exists() or made.get(path) != path.read_text())
