"""What `/context` does to running streams: many long token counts at once, beside streams that come at a pace.

Three processes: the simulator, the gateway with its default settings, and the clients of the streams. Counts are asked
by this process: so many at once, of one conversation of a million bytes (`bench/convert.py`'s, some 200,000 tokens),
and again as soon as all of them are answered, until the streams are over. A client asks once.

- `alone`: the streams by themselves.
- `counting`: the same, while it is counted.

A token's latency is from the simulator's stamp in it to the client's recv. Every token of every stream is checked, and
so is every count. Rounds are interleaved, in an order shuffled by the seed; figures are medians of the rounds, and the
ratio is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import report
from bench.convert import conversation, encode
from bench.endtoend import KEY, OURS, ROWS, Clients, Crowd, Setting, access_token, gateway, medians, simulator
from bench.processes import DidNotStart, Server
from bench.wire import Script, WrongAnswer

ALONE, COUNTING = "alone", "counting"
AT_ONCE = 35
"""As Claude Code's ``/context`` was seen to ask."""
GOAL_MS = 20.0
"""Milliseconds of latency that 99 of 100 tokens stay below while it is counted: the pause between two of theirs."""
ROW = next(row for row in ROWS if row.name == OURS)


class Counters:
    """Asks for counts, `at_once` at a time, until it is told to stop."""

    def __init__(self, port: int, body: bytes, at_once: int) -> None:
        self._port = port
        self._body = body
        self._stop = threading.Event()
        self._together = threading.Barrier(at_once)
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(at_once)]
        self.took: list[float] = []
        """Seconds of each count, from asking to the answer."""
        self.found: set[int] = set()
        self.trouble: list[str] = []

    def __enter__(self) -> Counters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            while not self._stop.is_set():
                self._together.wait(60)
                began = time.monotonic()
                connection.request("POST", "/v1/messages/count_tokens", self._body, {"x-api-key": KEY})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise WrongAnswer(f"a count was answered with {answer.status}: {body[:200]!r}")
                self.took.append(time.monotonic() - began)
                self.found.add(json.loads(body)["input_tokens"])
        except threading.BrokenBarrierError:
            pass  # another one has stopped
        except (WrongAnswer, OSError) as error:
            self.trouble.append(str(error))
        finally:
            self._together.abort()
            connection.close()


def measure(setting: Setting, options: argparse.Namespace, body: bytes, dice: random.Random) -> dict[str, Any]:
    """Every figure of every round, by row.

    Raises:
        WrongAnswer: no figure is worth anything.
    """
    raw: dict[str, list[dict[str, Any]]] = {ALONE: [], COUNTING: []}
    setting.ask(ROW, Script(1), kind="one_by_one", count=2, warm_up=0)
    for _ in range(options.rounds):
        for row in dice.sample((ALONE, COUNTING), 2):
            raw[row].append(streams(setting, options, body if row == COUNTING else b""))
    return raw


def streams(setting: Setting, options: argparse.Namespace, body: bytes) -> dict[str, Any]:
    """A crowd at a pace; beside counts of `body`, where there is one."""
    crowd: Crowd = options.crowd
    pause = round(1000 / crowd.rate)
    words = round((options.settle * 2 + options.seconds) * 1000 / pause)
    ask: dict[str, Any] = {
        "kind": "crowd",
        "starts": [pause / 1000 * n / crowd.streams for n in range(crowd.streams)],
        "window": (options.settle, options.seconds),
    }
    script = Script(words, pause, stamped=True)
    if not body:
        return figures(setting.ask(ROW, script, **ask), [], 0.0)
    with Counters(setting.servers["kirostream"].port, body, options.at_once) as counters:
        began = time.monotonic()
        got = setting.ask(ROW, script, **ask)
        lasted = time.monotonic() - began
    if counters.trouble or len(counters.found) != 1 or min(counters.found) < 100_000:
        raise WrongAnswer(f"the counts are not right: {counters.trouble or counters.found}")
    return figures(got, counters.took, lasted)


def figures(got: Mapping[str, Any], took: Sequence[float], lasted: float) -> dict[str, Any]:
    """Of one crowd."""
    return {
        "p50_ms": got["latency_us"]["p50"] / 1e3,
        "p99_ms": got["latency_us"]["p99"] / 1e3,
        "max_ms": got["latency_us"]["max"] / 1e3,
        "tokens_per_second": got["tokens"] / got["seconds"],
        "counts_per_second": len(took) / lasted if lasted else None,
        "count_p50_ms": statistics.median(took) * 1e3 if took else None,
    }


def summarize(raw: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians of rounds, and how many times slower tokens are beside counts, round by round."""
    results: dict[str, Any] = {row: medians(rounds) for row, rounds in raw.items()}
    for figure in ("p50", "p99"):
        pairs = zip(raw[COUNTING], raw[ALONE], strict=True)
        ratios = [beside[f"{figure}_ms"] / alone[f"{figure}_ms"] for beside, alone in pairs]
        results[COUNTING][f"times_{figure}"] = statistics.median(ratios)
    return results


def judge(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    measured = results[COUNTING]["p99_ms"]
    goal = f"beside {AT_ONCE} counts at once, latency of 99 of 100 tokens: at most {GOAL_MS:g} ms"
    return [{"goal": goal, "measured": measured, "met": measured <= GOAL_MS}]


def table(results: Mapping[str, Any], options: argparse.Namespace, size: int) -> Table:
    title = (
        f"{options.crowd.streams} x {options.crowd.rate} tokens/s; {options.at_once} counts of {size:,} bytes at once"
    )
    out = Table(title=title, title_justify="left")
    out.add_column("")
    columns = {
        "latency p50 ms": ("p50_ms", 2),
        "times": ("times_p50", 1),
        "p99 ms": ("p99_ms", 2),
        "times ": ("times_p99", 1),
        "max ms": ("max_ms", 1),
        "tokens/s": ("tokens_per_second", 0),
        "counts/s": ("counts_per_second", 0),
        "count p50 ms": ("count_p50_ms", 0),
    }
    for heading in columns:
        out.add_column(heading, justify="right")
    for name in (ALONE, COUNTING):
        values = [(results[name].get(figure), digits) for figure, digits in columns.values()]
        out.add_row(name, *("-" if value is None else f"{value:,.{digits}f}" for value, digits in values))
    return out


def one_crowd(text: str) -> Crowd:
    """``16x50``. Raises ValueError for anything else."""
    (crowd,) = Crowd.paced(text)
    return crowd


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--crowd", default="16x50", type=one_crowd, help="streams x tokens a second of each (default %(default)s)")
    add("--at-once", type=int, default=AT_ONCE, help="counts at once (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="measured of a crowd (default %(default)g)")
    add("--settle", type=float, default=0.4, help="before it is, and after (default %(default)g)")
    add("--rounds", type=int, default=5, help="rounds (default %(default)s)")
    add("--seed", type=int, default=1, help="of the conversation and of the order (default %(default)s)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file into bench/results")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")


QUICK = {"crowd": Crowd(2, 50), "at_once": 3, "seconds": 0.5, "rounds": 1}


def run(options: argparse.Namespace) -> int:
    console = Console()
    if options.quick:
        vars(options).update(QUICK)
    where = report.machine()
    body = encode(conversation(options.seed))
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as folder:
        home = Path(folder)
        try:
            with Server(simulator(), home) as upstream:
                token = access_token(upstream.port)
                command = gateway("kirostream", f"http://127.0.0.1:{upstream.port}", token)
                with Server(command, home) as ours, Clients(home) as clients:
                    setting = Setting({"simulator": upstream, "kirostream": ours}, clients, token)
                    raw = measure(setting, options, body, random.Random(options.seed))
        except (WrongAnswer, DidNotStart) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"counting failed: {error}", style="bold red")
            return 1
    results = summarize(raw)
    console.print(table(results, options, len(body)))
    goals = judge(results)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:.1f}", soft_wrap=True)
    if options.json or not options.no_save:
        said = {name: value for name, value in vars(options).items() if name not in ("json", "suite")}
        kept = {
            "machine": where,
            "versions": report.versions(["kirostream", "trio", "msgspec"]),
            "seed": options.seed,
            "settings": {**said, "crowd": str(options.crowd)},
            "results": results,
            "rounds": raw,
            "goals": goals,
        }
        console.print(f"written: {report.save('counting', kept, options.json)}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
