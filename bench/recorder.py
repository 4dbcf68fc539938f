"""What it costs to record a turn: log lines, log files, the usage ledger and the counts of `/metrics`.

The question is what share of a token's CPU goes into recording, where a gateway does what gateways do: several clients
stream at a time, paced as models are, and turns begin and end all the while.

- *the load*: `--streams` clients, each asking for `--turns` turns of `--tokens` tokens, one every `--pace`
  milliseconds, their beginnings spread over one turn. With the defaults that is 1,600 tokens and six turns a second. A
  turn of an agent is a few hundred tokens.
- `token`: CPU of the gateway's process by the kernel's count, all its threads, for a token of that load: of a gateway
  with its defaults, and of one that records nothing but counts, in interleaved rounds before the same simulator.
- `threads`: the part of that which is not the thread of the event loop. Lines and turns are written in threads, and
  nothing else under this load is done there.
- `recording`: the sinks alone, in this process: CPU of everything that becomes of one turn's facts, the writing in its
  thread included, with so many turns in a batch, in microseconds a turn; and that of the event loop's thread alone.

The share is what the threads take more where turns are recorded, seen in the gateway under its load, and what the
sinks take of the event loop's thread, by themselves, of a token that is not recorded. It is not the difference of the
two gateways: two processes of the same gateway differ by some 10 %, which is several times what is looked for. That
difference is shown beside it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
from rich.console import Console

from bench import report
from bench.endtoend import KEY, OURS, access_token, gateway, simulator
from bench.ledger import facts
from bench.processes import Command, Server, cpu_ns
from kirostream.stores.sqlite import open_database
from kirostream.telemetry.counts import Counts
from kirostream.telemetry.facts import ExchangeFinished
from kirostream.telemetry.log import LogSettings, LogSink
from kirostream.telemetry.logfiles import LogFiles
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger, UsageSettings

GOAL: Final = 0.03
BATCHES: Final = (1, 10, 100)
SILENT: Final = {"KIROSTREAM_LOG_LEVEL": "error", "KIROSTREAM_LOG_FILES": "false", "KIROSTREAM_USAGE_ENABLED": "false"}
"""A gateway that records nothing of a turn but its counts."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--streams", type=int, default=16, help="at a time (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each stream, in a round (%(default)s)")
    parser.add_argument("--tokens", type=int, default=256, help="of a turn (%(default)s)")
    parser.add_argument("--pace", type=int, default=10, help="milliseconds between two tokens (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each gateway (%(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="where the numbers go")


async def recording(folder: Path, batch: int, turns: int = 1000) -> tuple[float, float]:
    """Microseconds of CPU for the facts of one turn: of all threads, and of the event loop's."""
    import random

    done = ExchangeFinished(
        method="POST", path="/v1/messages", status=200, sent=9000, seconds=1.5, peer="127.0.0.1:5", ending="whole"
    )
    every = list(facts(turns, random.Random(1)))
    with (folder / "stderr").open("w") as stderr:
        async with open_database(folder / f"{batch}.db") as database:
            ledger = Ledger(database, UsageSettings(), lambda fact: None)
            files = LogFiles(folder / f"logs{batch}", LogSettings(), lambda fact: None)
            recorder = Recorder(LogSink(LogSettings(format="json"), stderr), files.take, ledger.take, Counts())
            await ledger.flush()
            began, began_here = time.process_time(), time.thread_time()
            for at in range(0, turns, batch):
                for turn in every[at : at + batch]:
                    recorder.record(turn)
                    recorder.record(done)
                await ledger.flush()
                await files.flush()
            took, here = time.process_time() - began, time.thread_time() - began_here
            assert ledger.snapshot().written == files.snapshot().written == turns
            files.close()
    return took * 1e6 / turns, here * 1e6 / turns


def ask(port: int, options: argparse.Namespace, turns: int, wait: float = 0.0) -> None:
    """So many streamed turns, one after the other, each checked for its end."""
    time.sleep(wait)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    messages = [{"role": "user", "content": f"[[tokens:{options.tokens}]][[slow:{options.pace}]]"}]
    body = json.dumps({"model": "claude-sonnet-4.5", "max_tokens": 9999, "stream": True, "messages": messages})
    for _ in range(turns):
        connection.request("POST", "/v1/messages", body, {"x-api-key": KEY, "content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or b'"message_stop"' not in said:
            raise AssertionError(f"{answer.status}: {said[-300:]!r}")
    connection.close()


def load(port: int, options: argparse.Namespace) -> None:
    """One round of the load."""
    turn = options.tokens * options.pace / 1e3
    with ThreadPoolExecutor(options.streams) as pool:
        waits = [turn * number / options.streams for number in range(options.streams)]
        for done in [pool.submit(ask, port, options, options.turns, wait) for wait in waits]:
            done.result()


def threads_ns(pid: int) -> int:
    """Nanoseconds of CPU of all threads of a process but its first."""
    others = (each for each in Path(f"/proc/{pid}/task").iterdir() if each.name != str(pid))
    return sum(int((each / "schedstat").read_text().split()[0]) for each in others)


class Took(NamedTuple):
    """Microseconds of a gateway's CPU for a token, of each round: of all its threads, and of those that write."""

    token: list[float]
    threads: list[float]


def served(home: Path, options: argparse.Namespace) -> dict[str, Took]:
    """What each gateway took of the load."""
    upstream = Server(simulator(), home)
    kinds: dict[str, Command] = {}
    tokens = options.streams * options.turns * options.tokens
    try:
        url = f"http://127.0.0.1:{upstream.port}"
        plain = gateway(OURS, url, access_token(upstream.port))
        kinds = {"recorded": plain, "silent": replace(plain, env={**plain.env, **SILENT})}
        took = {name: Took([], []) for name in kinds}
        servers: dict[str, Server] = {}
        try:
            for name, command in kinds.items():
                (home / name).mkdir()
                servers[name] = Server(command, home / name)
                ask(servers[name].port, options, 2)
            for number in range(options.rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    pid = servers[name].pid
                    before, threads = cpu_ns(pid) or 0, threads_ns(pid)
                    load(servers[name].port, options)
                    took[name].token.append(((cpu_ns(pid) or 0) - before) / 1e3 / tokens)
                    took[name].threads.append((threads_ns(pid) - threads) / 1e3 / tokens)
        finally:
            for server in servers.values():
                server.stop()
    finally:
        upstream.stop()
    return took


def run(options: argparse.Namespace) -> int:
    """Measure, and show. 1: recording takes more than its share."""
    batch = max(1, round(options.streams * 1e3 / (options.tokens * options.pace)))
    with tempfile.TemporaryDirectory() as folder:
        alone = {size: trio.run(recording, Path(folder), size) for size in sorted({*BATCHES, batch})}
        took = served(Path(folder), options)
    token = {name: statistics.median(each.token) for name, each in took.items()}
    threads = {name: statistics.median(each.threads) for name, each in took.items()}
    loop = alone[batch][1] / options.tokens
    share = (threads["recorded"] - threads["silent"] + loop) / token["silent"]
    differ = [one / other - 1 for one, other in zip(took["recorded"].token, took["silent"].token, strict=True)]
    console = Console()
    for size, (us, here) in alone.items():
        console.print(f"recording, {size:3} turns a batch: {us:6.1f} us of CPU a turn, {here:5.1f} in the event loop")
    for name, us in token.items():
        console.print(f"a token, {name}: {us:6.2f} us of the gateway's CPU, {threads[name]:5.3f} in threads that write")
    console.print(f"the two gateways differ by {', '.join(f'{each:+.1%}' for each in differ)}")
    console.print(f"recording is {share:.2%} of a token; the goal is {GOAL:.0%}")
    result: dict[str, Any] = {
        "machine": report.machine(),
        "load": {name: getattr(options, name) for name in ("streams", "turns", "tokens", "pace", "rounds")},
        "recording_us": {str(size): [round(us, 2), round(here, 2)] for size, (us, here) in alone.items()},
        "batch": batch,
        "token_us": {name: [round(us, 3) for us in each.token] for name, each in took.items()},
        "threads_us": {name: [round(us, 4) for us in each.threads] for name, each in took.items()},
        "differ": [round(each, 4) for each in differ],
        "share": round(share, 5),
        "goal": GOAL,
    }
    console.print(f"written to {report.save('recorder', result, options.json)}")
    return 0 if share <= GOAL else 1
