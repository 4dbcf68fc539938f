"""Our gateway beside others and beside the floor: CPU and latency of a token, requests, memory, start.

The upstream, the floor (a relay) and the clients are C programs of ours (``bench/c``), so that neither end is what is
measured; what they take is shown. Each token carries the time it was sent, all processes share the monotonic clock, and
every token of every answer is checked. Only one way is asked at a time; rounds are interleaved, the ways of a round in
an order shuffled by the seed; a figure is the median of the rounds, and a ratio the median of the rounds' own ratios.
`bench/README.md` says what each figure means.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import compiled, peers, processes, report, scripts
from bench.gateway_figures import judge, summarize, tables
from bench.peers import LITELLM, WAYS, Foreign, NotHere, Peer, Starter, Upstreams, Way
from bench.processes import DidNotStart
from bench.upstream import certificate

KINDS = ("paced", "unpaced", "first", "short", "fresh", "memory", "start")
SIDE = 128
"""Streams at which side ways are measured."""
SETTLE = 0.5
"""Seconds between the last beginning of a crowd and the window."""
BEHIND, LOST = 0.95, 0.6
"""Who delivers less than this share of the pace is marked; less than that, and it is not asked for more."""
TOKENS_OF_A_SHORT = 10
AT_REST = 0.5
"""Seconds after its first answer when a gateway has imported whatever it imports, and is at rest."""


class Wrong(Exception):
    """An answer was not right. It fails the run."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of every way.

    Attributes:
        kind: one of `KINDS`.
        streams: at once.
        rate: tokens a second of each, where they are paced.
    """

    kind: str
    streams: int = 1
    rate: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "paced":
                return f"paced {self.streams}x{self.rate}"
            case "memory":
                return f"memory {self.streams}x{self.rate}"
            case "start":
                return "start"
            case _:
                return f"{self.kind} {self.streams}"


def workloads(options: argparse.Namespace) -> list[Workload]:
    """What the options ask for, the crowds in order of their tokens a second."""
    found = []
    if "paced" in options.rows:
        crowds = [Workload("paced", streams, rate) for streams in options.streams for rate in options.rates]
        found += sorted(crowds, key=lambda crowd: crowd.streams * crowd.rate)
    if "unpaced" in options.rows:
        found += [Workload("unpaced", streams) for streams in (1, 16)]
    if "first" in options.rows:
        found.append(Workload("first"))
    for kind in ("short", "fresh"):
        if kind in options.rows:
            found += [Workload(kind, streams) for streams in (1, 16)]
    if "start" in options.rows:
        found.append(Workload("start"))
    if "memory" in options.rows:
        found.append(Workload("memory", options.crowd, 5))
    return found


def ways(options: argparse.Namespace) -> list[Way]:
    """The ways that ``--peers`` names, in the order of the table, and the foreign ones."""
    known = [*WAYS, *(foreign.way for foreign in options.peer)]
    return [way for way in known if options.peers is None or way.name in options.peers or way not in WAYS]


def takes_part(way: Way, workload: Workload, options: argparse.Namespace) -> bool:
    """Whether a way is asked for a workload: side ways only in crowds of one size; a process is started once a peer."""
    if workload.kind in ("start", "memory"):
        return bool(way.peer) and way.name == way.peer and not way.name.endswith("-tls")
    named = options.peers is not None and way.name in options.peers
    return not way.side or named or workload.kind != "paced" or workload.streams == SIDE


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Everything that runs."""

    home: Path
    upstreams: Mapping[bool, peers.Program]
    peers: dict[str, Peer]
    starter: Starter
    options: argparse.Namespace
    lost: dict[str, int] = field(default_factory=dict)
    """Tokens a second at which a way was hopelessly behind."""

    def load(
        self, way: Way, mode: str, tokens: int, period: float, *, fresh: bool = False, **more: object
    ) -> dict[str, Any]:
        """Run the clients once.

        Args:
            more: options of ``load``.

        Raises:
            Wrong: an answer was not right.
        """
        peer = self.peers[way.peer] if way.peer else None
        upstream = self.upstreams[way.peer.endswith("-tls")]
        dialect = scripts.DIALECTS[way.dialect]
        asked = scripts.request(dialect, peer.key if peer else "", scripts.prompt(tokens, period), close=fresh)
        request = self.home / "request"
        request.write_bytes(asked)
        watched = {"upstream": [upstream.pid], **({"gateway": list(processes.tree(peer.pid))} if peer else {})}
        port = peer.ports[way.door] if peer else upstream.port
        command = [str(compiled.program("load")), mode, f"--port={port}", f"--dialect={dialect.name}"]
        command += [f"--request={request}", f"--tokens={tokens}", *(["--fresh"] if fresh else [])]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        command += [f"--watch={name}={','.join(map(str, pids))}" for name, pids in watched.items()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise Wrong(f"{way.name}: the clients died: {done.stderr[-500:]}") from None
        if "error" in found:
            words = peer.server.last_words() if peer and isinstance(peer.server, processes.Server) else ""
            raise Wrong(f"{way.name}, {mode}: {found['error']}\n{words}")
        return found

    def late(self, way: Way) -> dict[str, float]:
        """How late the upstream was with its tokens since it was asked last."""
        port = self.upstreams[way.peer.endswith("-tls")].port
        scheme = "https" if way.peer.endswith("-tls") else "http"
        if scheme == "https":
            return {}
        with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/bench/late", timeout=10) as answer:
            found: dict[str, float] = json.load(answer)
            return found

    def rest(self, way: Way) -> None:
        """Wait until a gateway that was left in the middle of its work has nothing more to do."""
        pid = self.peers[way.peer].pid if way.peer else None
        until = time.monotonic() + 10
        while pid is not None and time.monotonic() < until:
            before = processes.cpu_ns(pid) or 0
            time.sleep(0.1)
            if (processes.cpu_ns(pid) or 0) - before < 10_000_000:
                return

    def measure(self, way: Way, workload: Workload, seed: int) -> dict[str, Any] | None:
        """One figure row; None where the way cannot, or has shown before that it does not hold the pace.

        Raises:
            Wrong: an answer was not right.
        """
        if workload.streams > way.most:
            return None
        if workload.kind == "paced":
            return self._paced(way, workload, seed)
        if workload.kind == "unpaced":
            return self._unpaced(way, workload)
        if workload.kind in ("start", "memory"):
            return self._anew(way, workload, seed) if self.starter.makes(way.peer) else None
        return self._requests(way, workload)

    def _paced(self, way: Way, crowd: Workload, seed: int) -> dict[str, Any] | None:
        nominal = crowd.streams * crowd.rate
        if nominal > self.lost.get(way.name, sys.maxsize):
            return None
        found = self._crowd(way, crowd, seed)
        if found["tokens_per_second"] < LOST * nominal:
            self.lost[way.name] = min(nominal, self.lost.get(way.name, nominal))
        return found

    def _crowd(self, way: Way, crowd: Workload, seed: int) -> dict[str, Any]:
        nominal = crowd.streams * crowd.rate
        period = 1 / crowd.rate
        spread = max(period, crowd.streams * way.start)
        opens = spread + SETTLE
        tokens = round((opens + self.options.seconds + 0.2) * crowd.rate)
        self.late(way)
        found = self.load(
            way,
            "crowd",
            tokens,
            period,
            streams=crowd.streams,
            spread=round(spread * 1e6),
            open=round(opens * 1e6),
            last=round(self.options.seconds * 1e6),
            grace=round((spread + 3.0) * 1e6),
            deadline=120_000_000,
            seed=seed,
        )
        late = self.late(way)
        if found["cut"]:
            self.rest(way)
        rate = found["tokens"] / found["seconds"]
        latency = found["latency_us"] or {}
        peer = self.peers.get(way.peer)
        memory = processes.memory(peer.pid) if peer else None
        return {
            "cpu_us": per(found["cpu_ns"].get("gateway"), found["tokens"]),
            **{f"{cut}_us": latency.get(cut) for cut in ("p50", "p99", "p999")},
            "tokens_per_second": rate,
            "behind": int(rate < BEHIND * nominal),
            "cut": found["cut"],
            "resident_mb": memory and memory.resident / 1e6,
            "upstream_us": per(found["cpu_ns"]["upstream"], found["tokens"]),
            "clients_us": per(found["own_cpu_ns"], found["tokens"]),
            "busy_cores": found["busy_ns"] / found["seconds"] / 1e9,
            "upstream_late_us": late.get("late_mean_us"),
        }

    def _anew(self, way: Way, workload: Workload, seed: int) -> dict[str, Any]:
        """A process of its own: when it was ready, what it holds at rest and, for `memory`, with many streams."""
        running = self.peers[way.peer]
        peer = self.starter.start(way.peer)
        self.peers[way.peer] = peer
        try:
            time.sleep(AT_REST)
            idle = processes.memory(peer.pid)
            found: dict[str, Any] = {
                "ready_ms": None if peer.ready is None else peer.ready * 1e3,
                "idle_mb": idle and idle.resident / 1e6,
            }
            if workload.kind == "start":
                return found
            crowd = self._crowd(way, workload, seed)
            full = processes.memory(peer.pid)
            return {
                "idle_mb": found["idle_mb"],
                "peak_mb": full and full.peak / 1e6,
                "kib_per_stream": full and idle and (full.peak - idle.resident) / 1024 / workload.streams,
                "tokens_per_second": crowd["tokens_per_second"],
                "behind": crowd["behind"],
            }
        finally:
            self.peers[way.peer] = running
            peer.stop()

    def _unpaced(self, way: Way, crowd: Workload) -> dict[str, Any]:
        tokens = max(1, round(self.options.tokens * min(1.0, way.pace)) // crowd.streams)
        self.load(way, "crowd", tokens, 0, streams=1, last=0, deadline=60_000_000)  # the upstream writes it out once
        found = self.load(way, "crowd", tokens, 0, streams=crowd.streams, last=0, deadline=120_000_000)
        return {
            "cpu_us": per(found["cpu_ns"].get("gateway"), found["tokens"]),
            "tokens_per_second": found["tokens"] / found["seconds"],
            "upstream_us": per(found["cpu_ns"]["upstream"], found["tokens"]),
            "clients_us": per(found["own_cpu_ns"], found["tokens"]),
        }

    def _requests(self, way: Way, workload: Workload) -> dict[str, Any]:
        count = round(self.options.requests * way.pace * (1 if workload.streams == 1 else 4))
        tokens = 1 if workload.kind == "first" else TOKENS_OF_A_SHORT
        fresh = workload.kind == "fresh"
        warm_up = max(5, workload.streams)
        found = self.load(
            way,
            "loop",
            tokens,
            0,
            fresh=fresh,
            streams=workload.streams,
            count=count,
            warm_up=warm_up,
            deadline=120_000_000,
        )
        return {
            "cpu_us": per(found["cpu_ns"].get("gateway"), found["requests"]),
            "first_p50_us": found["first_us"]["p50"],
            "first_p99_us": found["first_us"]["p99"],
            "requests_per_second": found["requests"] / found["seconds"],
            "upstream_us": per(found["cpu_ns"]["upstream"], found["requests"]),
            "clients_us": per(found["own_cpu_ns"], found["requests"]),
        }


def per(total: int | None, count: int) -> float | None:
    """Nanoseconds in all, as microseconds each."""
    return None if total is None or not count else total / count / 1e3


@contextlib.contextmanager
def running(home: Path, options: argparse.Namespace, console: Console) -> Iterator[Bench]:
    """Upstreams and peers, until the block ends. Peers that are not here are named, and left out of `options`."""
    with contextlib.ExitStack() as owned:
        routes = scripts.write_routes(home / "routes")
        file = home / "certificate.pem"
        certificate(file)
        plain = peers.upstream(routes, options.upstream_port)
        owned.callback(plain.stop)
        upstreams = {False: plain}
        asked = ways(options)
        if any(way.peer.endswith("-tls") for way in asked):
            try:
                upstreams[True] = peers.upstream(routes, certificate=file)
                owned.callback(upstreams[True].stop)
            except compiled.NotCompiled as error:
                console.print(f"without TLS: {error}", style="yellow")
        secret = upstreams[True].port if True in upstreams else None
        starter = Starter(home, Upstreams(plain.port, secret, file), options.litellm)
        found: dict[str, Peer] = {}
        for foreign in options.peer:
            found[foreign.name] = Peer(foreign.pid, (foreign.port,), foreign.key)
        for name in dict.fromkeys(way.peer for way in asked if way.peer and way.peer not in found):
            try:
                found[name] = starter.start(name)
                owned.callback(found[name].stop)
            except NotHere as error:
                console.print(f"without {name}: {error}", style="yellow")
        yield Bench(home, upstreams, found, starter, options)


def measure(bench: Bench, console: Console) -> dict[str, Any]:
    """All rounds. Raw figures by workload and way, a list of rounds each; None: not asked for more.

    Raises:
        Wrong: an answer was not right.
    """
    options = bench.options
    dice = random.Random(options.seed)
    here = [way for way in ways(options) if not way.peer or way.peer in bench.peers]
    plan = [
        (round_, workload, way)
        for round_ in range(options.rounds)
        for workload in workloads(options)
        for way in dice.sample(here, len(here))
        if takes_part(way, workload, options)
    ]
    raw: dict[str, Any] = {}
    for way in here:  # whatever is done once is done before it is measured
        bench.load(way, "loop", TOKENS_OF_A_SHORT, 0, streams=1, count=10, warm_up=0, deadline=60_000_000)
    began = time.monotonic()
    for number, (round_, workload, way) in enumerate(plan, 1):
        took = time.monotonic() - began
        console.print(
            f"[{number}/{len(plan)}, {took:.0f} s] round {round_ + 1}, {workload}: {way.name}",
            style="dim",
            markup=False,
        )
        found = bench.measure(way, workload, seed=dice.randrange(1 << 30))
        raw.setdefault(str(workload), {}).setdefault(way.name, []).append(found and _rounded(found))
    return raw


def _rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Nobody reads picoseconds, and files are kept."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


# --- the suite ----------------------------------------------------------------------------------------------------


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    names = [way.name for way in WAYS]
    add("--rows", type=_names(KINDS), default=list(KINDS), help=f"of {','.join(KINDS)} (default: all)")
    add("--peers", type=_names(names), metavar="NAMES", help=f"of {','.join(names)} (default: all that are here)")
    add("--peer", type=Foreign.parse, action="append", default=[], metavar="NAME=URL,PID[,DIALECT[,KEY]]",
        help="another gateway, that runs already, with this bench's upstream behind it (--upstream-port)")  # fmt: skip
    add("--streams", type=_numbers, default=[1, 16, 128, 512, 1000], help="of paced crowds (default 1,16,128,512,1000)")
    add("--rate", dest="rates", type=_numbers, default=[20, 50], help="tokens a second of each (default 20,50)")
    add("--crowd", type=int, default=1000, help="streams of the row `memory` (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="measured of a paced crowd (default %(default)g)")
    add("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    add("--tokens", type=int, default=320_000, help="of an unpaced crowd, all streams together (default %(default)s)")
    add("--requests", type=int, default=200, help="a round, one at a time; else four times that (default %(default)s)")
    add("--seed", type=int, default=1, help="of the order and of the streams' beginnings (default %(default)s)")
    add("--litellm", default="", metavar="PYTHON", help="of an environment with 'litellm[proxy]'")
    add("--upstream-port", type=int, default=0, help="where the plain upstream listens (default: a free one)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file into bench/results")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")


KEPT = ("rows", "peers", "streams", "rates", "seconds", "rounds", "tokens", "requests", "crowd")
"""The options that say what was measured."""
NOT_QUICK = (LITELLM, "haproxy-tls", "nginx-tls")
QUICK = {
    "streams": [128],
    "rates": [20],
    "seconds": 0.5,
    "rounds": 1,
    "tokens": 32_000,
    "requests": 20,
    "crowd": 100,
}


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.quick:
        vars(options).update(QUICK)
        options.rows = [kind for kind in options.rows if kind != "memory"]
        options.peers = options.peers or [way.name for way in WAYS if way.name not in NOT_QUICK]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    where = report.machine()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as home:
        try:
            with running(Path(home), options, console) as bench:
                raw = measure(bench, console)
                versions = {name: peers.version_of(name, options.litellm) for name in bench.peers}
                versions = {name: version for name, version in versions.items() if version}
        except (Wrong, DidNotStart, NotHere, compiled.NotCompiled) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"gateways failed: {error}", style="bold red")
            return 1
    results = summarize(raw)
    for each in tables(results):
        console.print(each)
    goals = judge(raw, results)
    for goal in goals:
        console.print(f"{'met' if goal['met'] else 'MISSED'}: {goal['goal']}, measured {goal['measured']:.2f}")
    took = time.monotonic() - began
    console.print(f"took {took:.0f} s", style="dim")
    if options.json or not options.no_save:
        names = ("kirostream", "trio", "h11", "httpx", "hypercorn")
        result = {
            "machine": where,
            "versions": {**report.versions(names), **versions},
            "seed": options.seed,
            "settings": {name: vars(options)[name] for name in KEPT},
            "took": round(took),
            "ways": {way.name: way.about for way in ways(options)},
            "results": results,
            "goals": goals,
            "rounds": raw,
        }
        path = report.save("gateways", result, path=options.json)
        console.print(f"written: {path}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
