"""The whole way, simulator to gateway to clients: every answer parsed whole, and how soon an upstream is let go.

What a gateway costs is measured by `gateways`, whose ends are quicker. Here both ends are strict: the simulator checks
each request as the real service does, and the clients parse each answer as JSON, event by event. Each is a process of
its own, beside a gateway written the usual way.

Rows:

- `direct`: the clients read the simulator's event stream themselves. What it takes is what the machine, the simulator
  and the client take; "added" is what a row takes more than this one in the same round.
- `kirostream, messages` and `kirostream, chat`: through the gateway, in Anthropic's and in OpenAI's language.
- `reference`: through `bench/reference.py`, which is hypercorn, httpx, struct, zlib and json.

Every token of every stream is checked, and one wrong answer fails the whole run. Rounds are interleaved, the rows of a
round in an order shuffled by the seed; figures are medians of the rounds, and ratios medians of the rounds' own ratios.
`bench/README.md` says what each figure means, and what is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import report
from bench.processes import ROOT, Command, DidNotStart, Server, clean_env, memory, pin
from bench.tap import Tap
from bench.wire import Script, WrongAnswer, anthropic_body, http_post, kiro_body

KEY = "ks-bench"
REFRESH_TOKEN = "aor-bench-" + "0" * 120
"""Longer than a shortened one, which the gateway would not take."""
DIRECT, REFERENCE, OURS = "direct", "reference", "kirostream, messages"
SPREAD = 0.008
"""Seconds between two requests of a crowd on average: twice what a usual gateway needs for one."""
DEADLINE = 90.0
PACED, UNPACED = "16x50", "16"
WARM_UP = 5
AT_REST = 0.3
"""Seconds after its first answer when a gateway has imported whatever it imports, and is at rest."""
MOST_UNPACED = 32_000
"""Words of all streams together in an unpaced crowd; the reference takes seconds for them."""
CANCEL_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way from the simulator to a client. `gateway` is the name of the process in between, empty without."""

    name: str
    gateway: str
    dialect: str
    path: str
    body: Callable[[str], bytes]


ROWS = (
    Row(DIRECT, "", "kiro", "/generateAssistantResponse", kiro_body),
    Row(OURS, "kirostream", "anthropic", "/v1/messages", anthropic_body),
    Row("kirostream, chat", "kirostream", "openai", "/v1/chat/completions", anthropic_body),
    Row(REFERENCE, "reference", "anthropic", "/v1/messages", anthropic_body),
)
GATEWAYS = ("kirostream", "reference")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of kirostream's should be at the most, and where it stands in the results."""

    what: str
    unit: str
    most: float
    figure: Sequence[str]


GOALS = (
    Goal("cancel while text streams, slowest", "ms", 100, ("cancel", "kirostream", "streaming", "max_ms")),
    Goal("cancel while the model is silent, slowest", "ms", 100, ("cancel", "kirostream", "silent", "max_ms")),
)


# --- what runs ----------------------------------------------------------------------------------------------------


def simulator() -> Command:
    """The upstream."""
    return Command(
        "simulator",
        ["-m", "kirostream", "simulate", "--port", "{port}"],
        {"KIROSTREAM_SIMULATOR_REFRESH_TOKEN": REFRESH_TOKEN, "KIROSTREAM_SIMULATOR_TOKEN_LIFETIME": "86400"},
        health="/ListAvailableModels",
        status=403,  # whoever asks without a token
    )


def gateway(name: str, upstream: str, token: str) -> Command:
    """A gateway before `upstream`, with its own defaults in everything else."""
    if name == "reference":
        arguments = ["-m", "bench.reference", "--port", "{port}", "--upstream", upstream, "--token", token]
        return Command(name, arguments, {"PYTHONPATH": str(ROOT)})
    env = {
        "REFRESH_TOKEN": REFRESH_TOKEN,
        "KIROSTREAM_KIRO_ENDPOINT": upstream,
        "KIROSTREAM_KEEPER_HOSTS_SOCIAL": upstream,
    }
    return Command(name, ["-m", "kirostream", "serve", "--port", "{port}", "--key", KEY], env)


class Clients:
    """The clients' process (`bench/client.py`), until the block ends."""

    def __init__(self, home: Path, cores: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.client"],
            cwd=ROOT,
            env=clean_env(home, {"PYTHONPATH": str(ROOT)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        pin(self.pid, cores)

    def do(self, **job: Any) -> dict[str, Any]:
        """One job; see the functions of `bench/client.py`.

        Raises:
            WrongAnswer: an answer was not right, or the process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the clients' process died"}
        if "error" in answer:
            raise WrongAnswer(answer["error"])
        return answer

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that is needed to measure: the servers by name, the clients, and what the simulator takes."""

    servers: Mapping[str, Server]
    clients: Clients
    token: str

    def ask(self, row: Row, script: Script, **job: Any) -> dict[str, Any]:
        """One measurement of a row.

        Raises:
            WrongAnswer: naming the row.
        """
        server = self.servers[row.gateway or "simulator"]
        watched = {"simulator": self.servers["simulator"].pid, "clients": self.clients.pid}
        if row.gateway:
            watched["gateway"] = server.pid
        try:
            return self.clients.do(
                address=("127.0.0.1", server.port),
                request=self.request(row, script).decode(),
                dialect=row.dialect,
                script=asdict(script),
                watched=watched,
                deadline=DEADLINE,
                **job,
            )
        except WrongAnswer as error:
            raise WrongAnswer(f"{row.name}, {job['kind']}: {error}\n{server.last_words()}") from None

    def request(self, row: Row, script: Script) -> bytes:
        """The bytes of a request."""
        key = KEY if row.gateway else self.token
        return http_post(row.path, {"authorization": f"Bearer {key}"}, row.body(script.prompt))


def access_token(port: int) -> str:
    """An access token of the simulator's."""
    body = json.dumps({"refreshToken": REFRESH_TOKEN}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/refreshToken", body, timeout=10) as answer:
        token: str = json.load(answer)["accessToken"]
        return token


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many streams at once, each of so many tokens a second; 0: as fast as they go."""

    streams: int
    rate: int = 0

    @classmethod
    def paced(cls, text: str) -> list[Crowd]:
        """``1x50,128x20``. Raises ValueError for anything else."""
        return [cls(_whole(streams), _whole(rate)) for streams, rate in (part.split("x") for part in text.split(","))]

    @classmethod
    def unpaced(cls, text: str) -> list[Crowd]:
        """``1,128``. Raises ValueError for anything else."""
        return [cls(_whole(part)) for part in text.split(",")]

    def __str__(self) -> str:
        return f"{self.streams}x{self.rate}" if self.rate else f"{self.streams}"


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def paced(setting: Setting, row: Row, crowd: Crowd, options: argparse.Namespace, dice: random.Random) -> dict[str, Any]:
    """A crowd whose tokens come at a pace: CPU a token, latency a token, memory."""
    pause = max(1, round(1000 / crowd.rate))
    spread = max(pause / 1000, crowd.streams * SPREAD)
    words = round((spread + options.settle + options.seconds + options.settle) * 1000 / pause)
    starts = [0.0, *(dice.uniform(0, spread) for _ in range(crowd.streams - 1))]
    script = Script(words, pause, stamped=True)
    got = setting.ask(row, script, kind="crowd", starts=starts, window=(spread + options.settle, options.seconds))
    nominal = crowd.streams * 1000 / pause
    rate = got["tokens"] / got["seconds"]
    cpu = got["cpu_ns"].get("gateway")
    return {
        "cpu_us": per(cpu, got["tokens"]),
        "core": cpu and cpu / got["seconds"] / 1e9,
        "p50_us": got["latency_us"]["p50"],
        "p99_us": got["latency_us"]["p99"],
        "tokens_per_second": rate,
        "behind": int(rate < 0.95 * nominal),
        "resident_mb": megabytes(got["resident"].get("gateway")),
        "peak_mb": megabytes(got["peak"].get("gateway")),
        "simulator_cpu_us": per(got["cpu_ns"]["simulator"], got["tokens"]),
        "clients_cpu_us": per(got["cpu_ns"]["clients"], got["tokens"]),
        "busy_cores": got["busy_ns"] and got["busy_ns"] / got["seconds"] / 1e9,
    }


def unpaced(
    setting: Setting, row: Row, crowd: Crowd, options: argparse.Namespace, dice: random.Random
) -> dict[str, Any]:
    """A crowd whose answers come as fast as they go: tokens a second, CPU a token."""
    script = Script(unpaced_words(crowd, options))
    got = setting.ask(row, script, kind="crowd", starts=[0.0] * crowd.streams, window=None)
    return {
        "tokens_per_second": got["tokens"] / got["seconds"],
        "cpu_us": per(got["cpu_ns"].get("gateway"), got["tokens"]),
        "peak_mb": megabytes(got["peak"].get("gateway")),
    }


def unpaced_words(crowd: Crowd, options: argparse.Namespace) -> int:
    """Words of one stream of an unpaced crowd."""
    return max(1, min(int(options.words), MOST_UNPACED // crowd.streams))


def short(setting: Setting, row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Requests of one token, one after the other: time to the first token, CPU a request."""
    got = setting.ask(row, Script(1), kind="one_by_one", count=options.requests, warm_up=WARM_UP)
    return {
        "first_token_ms": got["first_token_us"]["p50"] / 1e3,
        "first_token_p99_ms": got["first_token_us"]["p99"] / 1e3,
        "whole_ms": got["whole_us"]["p50"] / 1e3,
        "cpu_us": per(got["cpu_ns"].get("gateway"), got["requests"]),
    }


def cancel(setting: Setting, tap: Tap, row: Row, script: Script, after: int) -> float | None:
    """Leave in the middle of an answer.

    Returns:
        Milliseconds until the gateway let go of its upstream; None if it did not in `CANCEL_PATIENCE`.
    """
    with socket.create_connection(("127.0.0.1", setting.servers[row.gateway].port), DEADLINE) as sock:
        sock.sendall(setting.request(row, script))
        came = b""
        while f"w{after}@".encode() not in came:
            data = sock.recv(65536)
            if not data:
                raise WrongAnswer(f"{row.name}, cancel: the answer ended too early: {came[-500:]!r}")
            came += data
        connection = tap.speaking()
        assert connection is not None
        left = time.monotonic_ns()
    gone = tap.wait_until_left(connection, CANCEL_PATIENCE)
    return None if gone is None else (gone - left) / 1e6


def per(total: int | None, count: int) -> float | None:
    """Nanoseconds in all, as microseconds each."""
    return None if total is None else total / count / 1e3


def megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6


# --- the run ------------------------------------------------------------------------------------------------------


class Run:
    """One run of the suite. `raw` holds every figure of every round."""

    def __init__(self, options: argparse.Namespace, console: Console, home: Path) -> None:
        self._options = options
        self._console = console
        self._home = home
        self._dice = random.Random(options.seed)
        cores = sorted(os.sched_getaffinity(0)) if options.pin else []
        self._gateway_cores, self._other_cores = cores[-1:], cores[:-1]
        self.raw: dict[str, Any] = {
            "start": {name: [] for name in GATEWAYS},
            "short": {row.name: [] for row in ROWS},
            "paced": {str(crowd): {row.name: [] for row in ROWS} for crowd in options.paced},
            "unpaced": {str(crowd): {row.name: [] for row in ROWS} for crowd in options.unpaced},
            "cancel": {name: {"streaming": [], "silent": []} for name in GATEWAYS},
        }

    def measure(self) -> None:
        """Everything, in order.

        Raises:
            WrongAnswer, DidNotStart: no figure of this run is worth anything.
        """
        with self._server(simulator(), self._other_cores) as upstream:
            token = access_token(upstream.port)
            address = f"http://127.0.0.1:{upstream.port}"
            self._starts(address, token)
            with (
                self._server(gateway("kirostream", address, token)) as ours,
                self._server(gateway("reference", address, token)) as theirs,
                Clients(self._home, self._other_cores) as clients,
            ):
                setting = Setting({"simulator": upstream, "kirostream": ours, "reference": theirs}, clients, token)
                self._rounds(setting)
                self._cancels(setting)

    def _server(self, command: Command, cores: Sequence[int] | None = None) -> Server:
        return Server(command, self._home, self._gateway_cores if cores is None else cores)

    def _say(self, what: str) -> None:
        self._console.print(what, style="dim")

    def _shuffled(self, rows: Sequence[Any]) -> list[Any]:
        return self._dice.sample(rows, len(rows))

    def _starts(self, address: str, token: str) -> None:
        self._say(f"{self._options.starts} starts of each gateway")
        for _ in range(self._options.starts):
            for name in self._shuffled(GATEWAYS):
                with self._server(gateway(name, address, token)) as server:
                    time.sleep(AT_REST)
                    idle = memory(server.pid)
                    found = {"ready_ms": server.ready * 1e3, "idle_mb": megabytes(idle and idle.resident)}
                self.raw["start"][name].append(found)

    def _rounds(self, setting: Setting) -> None:
        for row in ROWS:  # the first token is refreshed, the first list of models read, the frames of texts cached
            setting.ask(row, Script(1), kind="one_by_one", count=2, warm_up=0)
            for crowd in self._options.unpaced:
                script = Script(unpaced_words(crowd, self._options))
                setting.ask(row, script, kind="crowd", starts=[0.0], window=None)
        for number in range(1, self._options.rounds + 1):
            self._say(f"round {number} of {self._options.rounds}")
            for row in self._shuffled(ROWS):
                self.raw["short"][row.name].append(short(setting, row, self._options))
            for name, workload in (("paced", paced), ("unpaced", unpaced)):
                for crowd in getattr(self._options, name):
                    for row in self._shuffled(ROWS):
                        found = workload(setting, row, crowd, self._options, self._dice)
                        self.raw[name][str(crowd)][row.name].append(found)

    def _cancels(self, setting: Setting) -> None:
        self._say(f"{self._options.cancels} streams left by their clients, twice, for each gateway")
        for row in (row for row in ROWS if row.name in (OURS, REFERENCE)):
            with (
                Tap(setting.servers["simulator"].port) as tap,
                self._server(gateway(row.gateway, f"http://127.0.0.1:{tap.port}", setting.token)) as server,
            ):
                tapped = Setting({**setting.servers, row.gateway: server}, setting.clients, setting.token)
                tapped.ask(row, Script(1), kind="one_by_one", count=2, warm_up=0)
                for when, script, after in (
                    ("streaming", Script(10_000, 20, stamped=True), 3),
                    ("silent", Script(2, 10_000, stamped=True), 1),
                ):
                    for _ in range(self._options.cancels):
                        took = cancel(tapped, tap, row, script, after)
                        self.raw["cancel"][row.gateway][when].append(took)
                        if took is None:
                            break  # it will not let go the next time either, and a second each is long


# --- figures ------------------------------------------------------------------------------------------------------


def summarize(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Medians of rounds; what is added to direct, and the reference's share, round by round."""
    return {
        "start": {name: medians(rounds) for name, rounds in raw["start"].items()},
        "short": compared(raw["short"], added={"first_token_ms": "first_token_added_ms"}),
        "paced": {
            crowd: compared(rows, added={"p50_us": "added_p50_us", "p99_us": "added_p99_us"})
            for crowd, rows in raw["paced"].items()
        },
        "unpaced": {crowd: compared(rows) for crowd, rows in raw["unpaced"].items()},
        "cancel": {
            name: {when: longest(times) for when, times in cases.items()} for name, cases in raw["cancel"].items()
        },
    }


def compared(rows: Mapping[str, Sequence[Mapping[str, Any]]], added: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The medians of each row; what it adds to `direct`; and `times_reference`, the reference's CPU over the row's."""
    out = {}
    for name, rounds in rows.items():
        out[name] = medians(rounds)
        for figure, called in (added or {}).items():
            pairs = zip(rounds, rows[DIRECT], strict=True)
            out[name][called] = statistics.median(ours[figure] - direct[figure] for ours, direct in pairs)
        ratios = [
            theirs["cpu_us"] / ours["cpu_us"]
            for ours, theirs in zip(rounds, rows[REFERENCE], strict=True)
            if ours["cpu_us"] and theirs["cpu_us"]
        ]
        out[name]["times_reference"] = statistics.median(ratios) if ratios else None
    return out


def medians(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each figure, None where the platform did not tell; and in how many rounds the row was behind."""
    out: dict[str, Any] = {}
    for figure in rounds[0]:
        values = [each[figure] for each in rounds if each[figure] is not None]
        out[figure] = statistics.median(values) if values else None
    if "behind" in out:
        out["behind"] = sum(each["behind"] for each in rounds)
    return out


def longest(times: Sequence[float | None]) -> dict[str, Any]:
    """Median and maximum; None where one of them never ended."""
    known = [each for each in times if each is not None]
    ended = bool(known) and len(known) == len(times)
    return {
        "median_ms": statistics.median(known) if ended else None,
        "max_ms": max(known) if ended else None,
        "tries": len(times),
    }


def judge(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The goals, and whether they were met. No figure meets nothing."""
    out = []
    for goal in GOALS:
        value: Any = results
        for name in goal.figure:
            value = value[name]
        met = value is not None and value <= goal.most
        out.append({"goal": f"{goal.what}: at most {goal.most:g} {goal.unit}", "measured": value, "met": met})
    return out


# --- tables -------------------------------------------------------------------------------------------------------


def tables(results: Mapping[str, Any], options: argparse.Namespace) -> Iterator[Table]:
    times = "reference"
    yield table(
        f"Short requests, one at a time ({options.requests} a round)",
        results["short"],
        {
            "first token ms": ("first_token_ms", 2),
            "p99 ms": ("first_token_p99_ms", 2),
            "over direct ms": ("first_token_added_ms", 2),
            "CPU us/request": ("cpu_us", 0),
            times: ("times_reference", 1),
        },
    )
    for crowd in options.paced:
        yield table(
            f"{crowd.streams} x {crowd.rate} tokens/s, for {options.seconds:g} s",
            results["paced"][str(crowd)],
            {
                "CPU us/token": ("cpu_us", 1),
                times: ("times_reference", 1),
                "latency p50 us": ("p50_us", 0),
                "p99": ("p99_us", 0),
                "added p50 us": ("added_p50_us", 0),
                "p99 ": ("added_p99_us", 0),
                "tokens/s": ("tokens_per_second", 0),
                "RSS MB": ("resident_mb", 1),
                "busy cores": ("busy_cores", 2),
            },
        )
    for crowd in options.unpaced:
        tokens = Script(unpaced_words(crowd, options)).tokens
        yield table(
            f"{crowd.streams} x {tokens:,} tokens, as fast as they go",
            results["unpaced"][str(crowd)],
            {"tokens/s": ("tokens_per_second", 0), "CPU us/token": ("cpu_us", 2), times: ("times_reference", 1)},
        )
    lives = {
        name: {
            **results["start"][name],
            "peak_mb": max(
                (
                    rows[row.name]["peak_mb"] or 0.0
                    for workload in ("paced", "unpaced")
                    for rows in results[workload].values()
                    for row in ROWS
                    if row.gateway == name
                ),
                default=None,
            ),
            "streaming_median_ms": results["cancel"][name]["streaming"]["median_ms"],
            "streaming_max_ms": results["cancel"][name]["streaming"]["max_ms"],
            "silent_median_ms": results["cancel"][name]["silent"]["median_ms"],
            "silent_max_ms": results["cancel"][name]["silent"]["max_ms"],
        }
        for name in GATEWAYS
    }
    yield table(
        f"The process ({options.starts} starts; {options.cancels} cancels while text streams, and while none comes)",
        lives,
        {
            "ready ms": ("ready_ms", 0),
            "idle RSS MB": ("idle_mb", 1),
            "peak RSS MB": ("peak_mb", 1),
            "cancel ms": ("streaming_median_ms", 1),
            "slowest": ("streaming_max_ms", 1),
            "silent: cancel ms": ("silent_median_ms", 1),
            "slowest ": ("silent_max_ms", 1),
        },
    )


def table(title: str, rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, int]]) -> Table:
    out = Table(title=title, title_justify="left")
    out.add_column("", no_wrap=True)
    for heading in columns:
        out.add_column(heading, justify="right")
    for name, row in rows.items():
        cells = []
        for figure, digits in columns.values():
            value = row.get(figure)
            shown = "-" if value is None else f"{value:,.{digits}f}"
            cells.append(f"{shown} x" if figure == "times_reference" and value is not None else shown)
        out.add_row(f"{name} *" if row.get("behind") else name, *cells)
    behind = [f"{name} in {row['behind']}" for name, row in rows.items() if row.get("behind")]
    out.caption = f"* behind the pace (rounds): {', '.join(behind)}" if behind else None
    return out


# --- the suite ----------------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--paced", default=PACED, help="streams x tokens a second of each (default %(default)s)", type=Crowd.paced)
    add("--unpaced", default=UNPACED, help="streams at once (default %(default)s)", type=Crowd.unpaced)
    add("--seconds", type=float, default=1.5, help="measured of a paced crowd (default %(default)g)")
    add("--settle", type=float, default=0.4, help="before it is, and after (default %(default)g)")
    add("--rounds", type=int, default=2, help="rounds (default %(default)s)")
    add("--words", type=int, default=2000, help="most words of an unpaced stream (default %(default)s)")
    add("--requests", type=int, default=50, help="short requests a round (default %(default)s)")
    add("--starts", type=int, default=1, help="starts of each gateway (default %(default)s)")
    add("--cancels", type=int, default=20, help="cancelled streams of each kind (default %(default)s)")
    add("--seed", type=int, default=1, help="of the order and of the streams' beginnings (default %(default)s)")
    add("--pin", action="store_true", help="keep the gateways on the last core, and all else off it (Linux)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file into bench/results")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")


QUICK = {
    "paced": [Crowd(8, 50)],
    "unpaced": [Crowd(1), Crowd(8)],
    "seconds": 0.5,
    "rounds": 1,
    "words": 300,
    "requests": 5,
    "starts": 1,
    "cancels": 2,
}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON."""
    said = {name: value for name, value in vars(options).items() if name not in ("json", "suite")}
    return {**said, "paced": ",".join(map(str, options.paced)), "unpaced": ",".join(map(str, options.unpaced))}


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.pin and not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--pin needs sched_setaffinity, which this platform does not have")
    if options.quick:
        vars(options).update(QUICK)
    where = report.machine()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as home:
        whole = Run(options, console, Path(home))
        try:
            whole.measure()
        except (WrongAnswer, DidNotStart) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"endtoend failed: {error}", style="bold red")
            return 1
    results = summarize(whole.raw)
    for each in tables(results, options):
        console.print(each)
    goals = judge(results)
    for goal in goals:
        measured = "nothing" if goal["measured"] is None else f"{goal['measured']:.1f}"
        console.print(f"{'met' if goal['met'] else 'MISSED'}: {goal['goal']}, measured {measured}")
    console.print(f"took {time.monotonic() - began:.0f} s", style="dim")
    if options.json or not options.no_save:
        path = report.save(
            "endtoend",
            {
                "machine": where,
                "versions": report.versions(["kirostream", "trio", "h11", "httpx", "hypercorn"]),
                "seed": options.seed,
                "settings": settings(options),
                "results": results,
                "rounds": whole.raw,
                "goals": goals,
            },
            path=options.json,
        )
        console.print(f"written: {path}", style="dim")
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
