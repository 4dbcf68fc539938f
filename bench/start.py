"""How soon a gateway answers after its process began, and how large it is while nobody asks it anything.

- **trio**: Python, ``import trio`` and nothing else, the floor of everything that runs on Trio.
- **demo**: ``kirostream serve --demo``, until ``/health`` is answered with 200.
- **account**: ``kirostream serve`` with an account, behind a simulator in another process. It renews and seals a token.

The first round is not counted: it leaves compiled bytecode and a database, and each other one begins with them, as a
second start does. Memory is what the system says of the process after a rest, in which the gateway has learned its
models and settled, and once more after a turn in each of two languages; MB are 10**6 bytes. Rounds are interleaved; a
ratio is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import report
from bench.endtoend import KEY, gateway, simulator
from bench.processes import ROOT, Command, Server, clean_env, cpu_ns, memory

READY_GOAL: Final = 0.4
"""Seconds to the first healthy answer."""
RESIDENT_GOAL: Final = 45.0
"""MB, at rest and before the first turn."""
TURNS: Final = ("/v1/messages", "/v1/chat/completions")
"""Where the first turns are asked for."""
FLOOR: Final = "trio"
Figures = dict[str, float]
"""Of one start: `ready` and `cpu` in seconds, `resident` and, after the first turns, `used` in MB."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=int, default=7, help="starts of each (%(default)s)")
    parser.add_argument("--rest", type=float, default=2.5, help="seconds before memory is read (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that everything works")
    parser.add_argument("--check", action="store_true", help="a missed goal is an exit status of 1")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    parser.add_argument("--no-save", action="store_true", help="do not write a file into bench/results")


def floor(home: Path) -> Figures:
    """Start Python, and import Trio."""
    code = "import trio; print(flush=True); input()"
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_env(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        figures = _figures(time.monotonic() - began, cpu_ns(process.pid), process.pid)
        process.communicate("\n")
    return figures


def started(command: Command, home: Path, rest: float) -> Figures:
    """Start a gateway, look at it once it answered, once it rests and once it was used, stop it."""
    with Server(command, home) as server:
        cpu = cpu_ns(server.pid)
        time.sleep(rest)
        figures = _figures(server.ready, cpu, server.pid)
        for path in TURNS:
            _take_a_turn(f"http://127.0.0.1:{server.port}{path}")
        return {**figures, "used": _resident(server.pid)}


def _take_a_turn(url: str) -> None:
    """Stream a short answer."""
    said = [{"role": "user", "content": "Say hello."}]
    asked = {"model": "claude-sonnet-4.5", "max_tokens": 50, "stream": True, "messages": said}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(asked).encode(), headers), timeout=20) as answer:
        answer.read()


def _figures(ready: float, cpu: int | None, pid: int) -> Figures:
    return {"ready": ready, "cpu": (cpu or 0) / 1e9, "resident": _resident(pid)}


def _resident(pid: int) -> float:
    """MB that a process holds; 0 where the platform does not tell."""
    held = memory(pid)
    return held.resident / 1e6 if held else 0.0


def measure(rounds: int, rest: float, home: Path) -> dict[str, list[Figures]]:
    """The figures of each, a list of rounds."""
    demo = Command("demo", ["-m", "kirostream", "serve", "--demo", "--port", "{port}", "--key", KEY], {})
    homes = {name: home / name for name in ("simulator", "demo", "account")}
    for each in homes.values():
        each.mkdir()
    found: dict[str, list[Figures]] = {FLOOR: [], "demo": [], "account": []}
    with Server(simulator(), homes["simulator"]) as upstream:
        account = gateway("account", f"http://127.0.0.1:{upstream.port}", "")
        for number in range(rounds + 1):
            of = {
                FLOOR: floor(home),
                "demo": started(demo, homes["demo"], rest if number else 0),
                "account": started(account, homes["account"], rest),
            }
            if number:
                for name, figures in of.items():
                    found[name].append(figures)
    return found


def run(options: argparse.Namespace) -> int:
    """Start, show, keep. 1: a goal was missed, and that was asked."""
    rounds, rest = (2, 1.5) if options.quick else (options.rounds, options.rest)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(rounds, rest, Path(folder))
    rows: dict[str, dict[str, Any]] = {}
    table = Table(title=f"From a process's beginning to its first answer, and at rest; medians of {rounds}")
    for head in ("", "ready ms", "x trio", "CPU ms", "resident MB", "after turns"):
        table.add_column(head, justify="right" if head else "left")
    for name, each in found.items():
        middle = {what: statistics.median(figures[what] for figures in each) for what in each[0]}
        ratio = statistics.median(mine["ready"] / bare["ready"] for mine, bare in zip(each, found[FLOOR], strict=True))
        rows[name] = {
            "ready_ms": round(middle["ready"] * 1e3, 1),
            "ready_ms_each": [round(figures["ready"] * 1e3, 1) for figures in each],
            "cpu_ms": round(middle["cpu"] * 1e3, 1),
            "resident_mb": round(middle["resident"], 1),
            "used_mb": round(middle["used"], 1) if "used" in middle else None,
            "ratio": round(ratio, 2),
        }
        spread = f"({min(rows[name]['ready_ms_each']):.0f}..{max(rows[name]['ready_ms_each']):.0f})"
        table.add_row(
            name,
            f"{middle['ready'] * 1e3:.0f} {spread}",
            f"{ratio:.2f}",
            f"{middle['cpu'] * 1e3:.0f}",
            f"{middle['resident']:.1f}",
            f"{middle['used']:.1f}" if "used" in middle else "",
        )
    console = Console()
    console.print(table)
    missed = [
        f"{name} {what}"
        for name in ("demo", "account")
        for what, goal in (("ready_ms", READY_GOAL * 1e3), ("resident_mb", RESIDENT_GOAL))
        if rows[name][what] > goal
    ]
    console.print(
        f"Goals: ready in {READY_GOAL * 1e3:g} ms, {RESIDENT_GOAL:g} MB at rest: "
        + (f"missed: {', '.join(missed)}" if missed else "met")
    )
    if not options.no_save:
        result = {
            "machine": report.machine(),
            "rounds": rounds,
            "goals": {"ready_ms": READY_GOAL * 1e3, "resident_mb": RESIDENT_GOAL},
            "rows": rows,
        }
        console.print(f"written to {report.save('start', result, options.json)}")
    return 1 if missed and options.check else 0
