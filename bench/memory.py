"""What a connection and a stream take of the gateway's memory: a thousand idle, a thousand live, and afterwards.

The gateway (`kirostream serve` with its defaults), the simulator behind it and the clients are processes of their own.
Resident memory is read as the system tells it:

- **rest**: the gateway has started, and nobody has asked it anything;
- **warm**: some answers are over, so that everything that is imported with the first request is there;
- **idle**: so many connections stand open, each with an answer behind it;
- **live**: so many streams are under way, slowly paced, each a connection here and one to the upstream; and once more,
  with a longer conversation in each request;
- **after**: they are over, the connections closed, and the turns forgotten.

The streams are counted from *rest*, so what all of them share is in the figure. Every answer is checked to its end. The
allocator keeps what it was given; that the second round's memory is no larger than the first one's shows what is freed.
A turn that is over is forgotten after `REPLAY` here, and not after minutes: what is kept of those has a limit of its
own (`relay.turns.total`).
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import report
from bench.audience import raise_limit
from bench.endtoend import KEY, access_token, gateway, simulator
from bench.processes import DidNotStart, Server, memory
from bench.wire import Script, WrongAnswer, anthropic_body, http_post

STREAM_GOAL: Final = 40.0
"""KiB a stream."""
GROWTH_GOAL: Final = 1.1
"""The second crowd's memory over the first one's."""
REPLAY: Final = 1.0
"""Seconds that a turn which is over is kept."""
WARM: Final = 16
"""Answers that a gateway has given when it is warm."""
AT_ONCE: Final = 32
"""Requests that wait for the beginning of their answer."""
PATIENCE: Final = 120.0
"""Seconds for a crowd to begin."""
TEXT: Final = re.compile(rb'"text":"w(\d+)@\d+ "')
HEAD: Final = b"\r\n\r\n"
LAST: Final = b"0\r\n\r\n"


class Client:
    """One connection, and what came on it."""

    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10.0)
        self.sock.sendall(request)
        self.sock.setblocking(False)
        self.data = bytearray()

    @property
    def begun(self) -> bool:
        return HEAD in self.data

    @property
    def whole(self) -> bool:
        return self.data.endswith(LAST)

    def check(self, tokens: int) -> None:
        """Whether a stream has everything.

        Raises:
            WrongAnswer: it has not.
        """
        said = [int(number) for number in TEXT.findall(self.data)]
        if not self.data.startswith(b"HTTP/1.1 200") or said != list(range(1, tokens + 1)):
            raise WrongAnswer(f"{len(said)} tokens in place of {tokens}: {bytes(self.data[:300])!r}")


class Crowd:
    """Clients that are read together, until the block ends."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.clients: list[Client] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.sock.close()
        self._selector.close()

    def come(self, port: int, request: bytes, count: int, done: Callable[[Client], bool]) -> None:
        """So many clients ask, `AT_ONCE` at a time; each is there when it is `done`.

        Raises:
            WrongAnswer: that takes too long.
        """
        waiting: list[Client] = []
        deadline = time.monotonic() + PATIENCE
        while waiting or len(self.clients) < count:
            while len(waiting) < AT_ONCE and len(self.clients) < count:
                client = Client(port, request)
                self._selector.register(client.sock, selectors.EVENT_READ, client)
                self.clients.append(client)
                waiting.append(client)
            self.read(0.1)
            waiting = [client for client in waiting if not done(client)]
            if time.monotonic() > deadline:
                raise WrongAnswer(f"{len(waiting)} of {len(self.clients)} clients have waited for too long")

    def read(self, seconds: float) -> None:
        """Read what comes within this time, at least what is there."""
        for key, _ in self._selector.select(seconds):
            client: Client = key.data
            if data := client.sock.recv(1 << 16):
                client.data += data
            else:
                self._selector.unregister(client.sock)

    def rest(self, seconds: float) -> None:
        """Read for this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)


def asking(tokens: int, pause: int, size: int) -> bytes:
    """A request for a stream, whose conversation has `size` bytes more than the simulator has to know."""
    body = json.loads(anthropic_body(Script(tokens, pause, stamped=True).prompt))
    if size:
        words = ("All work and no play makes Jack a dull boy. " * (size // 44 + 1))[:size]
        body["messages"] = [
            {"role": "user", "content": words},
            {"role": "assistant", "content": "I see."},
            *body["messages"],
        ]
    return http_post("/v1/messages", {"x-api-key": KEY}, json.dumps(body).encode())


def resident(pid: int) -> int:
    """Bytes."""
    held = memory(pid)
    if held is None:
        raise DidNotStart("this system does not tell how much memory a process has")
    return held.resident


def live(server: Server, count: int, life: float, pause: int, size: int) -> int:
    """Resident memory with so many streams under way. They are read to their end, and checked.

    Raises:
        WrongAnswer: a stream broke off, or the first ones were over before the last had begun.
    """
    tokens = round(life * 1000 / pause)
    with Crowd() as crowd:
        crowd.come(server.port, asking(tokens, pause, size), count, lambda client: client.begun)
        crowd.rest(2 * pause / 1000)
        found = resident(server.pid)
        if any(client.whole for client in crowd.clients):
            raise WrongAnswer(f"a stream was over before {count} had begun: give them more --life than {life:g} s")
        end = time.monotonic() + life + PATIENCE
        while not all(client.whole for client in crowd.clients):
            crowd.read(1.0)
            if time.monotonic() > end:
                raise WrongAnswer("a stream does not end")
        for client in crowd.clients:
            client.check(tokens)
    return found


def measure(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """All figures, in bytes."""
    count, pause = options.count, options.pause
    quick = asking(3, 0, 0)
    with Server(simulator(), home) as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        usual = gateway("kirostream", url, access_token(upstream.port))
        command = replace(usual, env={**usual.env, "KIROSTREAM_RELAY_TURNS_REPLAY": f"{REPLAY}"})
        with Server(command, home) as server:
            time.sleep(options.rest)
            found: dict[str, Any] = {"rest": resident(server.pid)}
            for _ in range(WARM):
                with Crowd() as crowd:
                    crowd.come(server.port, quick, 1, lambda client: client.whole)
            time.sleep(options.rest)
            found["warm"] = resident(server.pid)
            began = time.monotonic()
            with Crowd() as crowd:
                crowd.come(server.port, quick, count, lambda client: client.whole)
                life = options.life or 3 * (time.monotonic() - began) + 10
                crowd.rest(options.rest)
                found["idle"] = resident(server.pid)
            time.sleep(options.rest)
            found["idle_after"] = resident(server.pid)
            found["live"] = []
            for size in options.sizes:
                rounds, after = [], []
                for _ in range(options.rounds):
                    rounds.append(live(server, count, life, pause, size << 10))
                    time.sleep(options.rest)
                    after.append(resident(server.pid))
                found["live"].append({"size": size << 10, "resident": rounds, "after": after})
    return found


def numbers(text: str) -> tuple[int, ...]:
    """``0,64``. Raises ValueError for anything else."""
    return tuple(int(part) for part in text.split(","))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--count", type=int, default=1000, help="connections, and streams (default %(default)s)")
    add("--pause", type=int, default=1000, help="milliseconds between two tokens (default %(default)s)")
    add("--life", type=float, default=0.0, help="seconds of a stream; all have to begin within (default: as it takes)")
    add("--sizes", type=numbers, default=(0, 64), help="KiB more in each conversation (default 0,64)")
    add("--rounds", type=int, default=2, help="crowds of each size (default %(default)s)")
    add("--rest", type=float, default=3.0, help="seconds before memory is read (default %(default)g)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file into bench/results")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")


QUICK = {"count": 20, "pause": 200, "life": 2.0, "rest": 0.5, "sizes": (0,)}


def judge(found: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The goals."""
    first = found["live"][0]
    stream = (first["resident"][0] - found["rest"]) / count / 1024
    growth = first["resident"][-1] / first["resident"][0]
    return [
        {
            "goal": f"{count:,} streams: KiB a stream over rest, at most {STREAM_GOAL:g}",
            "measured": stream,
            "met": stream <= STREAM_GOAL,
        },
        {
            "goal": f"memory is given back: the last crowd's over the first one's, at most {GROWTH_GOAL:g}",
            "measured": growth,
            "met": growth <= GROWTH_GOAL,
        },
    ]


def table(found: dict[str, Any], count: int) -> Table:
    out = Table(title=f"resident memory of the gateway, {count:,} connections or streams", title_justify="left")
    out.add_column("state", no_wrap=True)
    for heading in ("MiB", "KiB each over rest", "over warm", "MiB after"):
        out.add_column(heading, justify="right")

    def row(name: str, size: int, after: int | None = None) -> None:
        each = [f"{(size - found[base]) / count / 1024:.1f}" for base in ("rest", "warm")]
        last = "" if after is None else f"{after / (1 << 20):.1f}"
        out.add_row(name, f"{size / (1 << 20):.1f}", *(each if after is not None else ("", "")), last)

    row("rest", found["rest"])
    row("warm", found["warm"])
    row("idle connections", found["idle"], found["idle_after"])
    for of in found["live"]:
        for number, (size, after) in enumerate(zip(of["resident"], of["after"], strict=True), 1):
            more = f", {of['size'] >> 10} KiB conversations" if of["size"] else ""
            row(f"live streams{more} ({number})", size, after)
    return out


def run(options: argparse.Namespace) -> int:
    """Measure, show, keep."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    if options.quick:
        vars(options).update(QUICK)
    wanted = 2 * options.count + 200
    if (allowed := raise_limit(wanted)) < wanted:
        raise SystemExit(
            f"{wanted} open files are needed, and this process may have {allowed}: choose a smaller --count."
        )
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as folder:
        try:
            found = measure(options, Path(folder))
        except (WrongAnswer, DidNotStart) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"memory failed: {error}", style="bold red")
            return 1
    console.print(table(found, options.count))
    goals = judge(found, options.count)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:,.2f}", soft_wrap=True)
    if options.json or not options.no_save:
        kept = {
            "machine": report.machine(),
            "versions": report.versions(["kirostream", "trio"]),
            "settings": {name: value for name, value in vars(options).items() if name not in ("json", "suite")},
            "results": found,
            "goals": goals,
        }
        console.print(f"written: {report.save('memory', kept, options.json)}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
