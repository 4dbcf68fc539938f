"""What it costs to record a turn: log lines, log files, the usage ledger and the counts of `/metrics`.

- `recording`: the sinks alone, in this process: CPU of everything that becomes of one turn's facts, the writing in its
  thread included, with so many turns in a batch, in microseconds a turn.
- `turns`: a gateway with its defaults beside one that records nothing but counts, before the same simulator: CPU of the
  gateway's process for a streamed turn of 64 tokens, as fast as one client asks, in interleaved rounds.

The share is `recording` (in batches of 10, as of 10 turns a second) of the CPU of a turn that is not recorded.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

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
TOKENS: Final = 64
BATCHES: Final = (1, 10, 100)
SILENT: Final = {"KIROSTREAM_LOG_LEVEL": "error", "KIROSTREAM_LOG_FILES": "false", "KIROSTREAM_USAGE_ENABLED": "false"}
"""A gateway that records nothing of a turn but its counts."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--turns", type=int, default=25, help="in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each gateway (%(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="where the numbers go")


async def recording(folder: Path, batch: int, turns: int = 1000) -> float:
    """Microseconds of CPU for the facts of one turn."""
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
            began = time.process_time()
            for at in range(0, turns, batch):
                for turn in every[at : at + batch]:
                    recorder.record(turn)
                    recorder.record(done)
                await ledger.flush()
                await files.flush()
            took = time.process_time() - began
            assert ledger.snapshot().written == files.snapshot().written == turns
            files.close()
    return took * 1e6 / turns


def ask(port: int, turns: int) -> None:
    """So many streamed turns, one after the other, each checked for its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    messages = [{"role": "user", "content": f"[[tokens:{TOKENS}]][[slow:2]]"}]
    body = json.dumps({"model": "claude-sonnet-4.5", "max_tokens": 999, "stream": True, "messages": messages})
    for _ in range(turns):
        connection.request("POST", "/v1/messages", body, {"x-api-key": KEY, "content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or b'"message_stop"' not in said:
            raise AssertionError(f"{answer.status}: {said[-300:]!r}")
    connection.close()


def served(home: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Microseconds of the gateway's CPU for a turn, of each round."""
    upstream = Server(simulator(), home)
    kinds: dict[str, Command] = {}
    try:
        url = f"http://127.0.0.1:{upstream.port}"
        plain = gateway(OURS, url, access_token(upstream.port))
        kinds = {"recorded": plain, "silent": replace(plain, env={**plain.env, **SILENT})}
        took: dict[str, list[float]] = {name: [] for name in kinds}
        servers: dict[str, Server] = {}
        try:
            for name, command in kinds.items():
                (home / name).mkdir()
                servers[name] = Server(command, home / name)
                ask(servers[name].port, 10)
            for number in range(options.rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    before = cpu_ns(servers[name].pid) or 0
                    ask(servers[name].port, options.turns)
                    took[name].append(((cpu_ns(servers[name].pid) or 0) - before) / 1e3 / options.turns)
        finally:
            for server in servers.values():
                server.stop()
    finally:
        upstream.stop()
    return took


def run(options: argparse.Namespace) -> int:
    """Measure, and show. 1: recording takes more than its share."""
    with tempfile.TemporaryDirectory() as folder:
        alone = {batch: trio.run(recording, Path(folder), batch) for batch in BATCHES}
        took = served(Path(folder), options)
    turn = {name: statistics.median(rounds) for name, rounds in took.items()}
    share = alone[10] / turn["silent"]
    console = Console()
    for batch, us in alone.items():
        console.print(f"recording, {batch:3} turns a batch: {us:6.1f} us of CPU a turn")
    for name, us in turn.items():
        console.print(f"a turn of {TOKENS} tokens, {name}: {us:8.0f} us of the gateway's CPU")
    console.print(f"recording is {share:.2%} of a turn; the goal is {GOAL:.0%}")
    result: dict[str, Any] = {
        "machine": report.machine(),
        "recording_us": {str(batch): round(us, 2) for batch, us in alone.items()},
        "turn_us": {name: [round(us, 1) for us in rounds] for name, rounds in took.items()},
        "share": round(share, 5),
        "goal": GOAL,
    }
    console.print(f"written to {report.save('recorder', result, options.json)}")
    return 0 if share <= GOAL else 1
