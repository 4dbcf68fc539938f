"""One turn, many watchers: CPU per delivery at 1, 10, 100, 1,000 watchers, beside a channel per watcher.

Ways: `alone` has no sockets (the log, the rendering and the wake-ups), `sse` goes through the door's own code over real
sockets, `websocket` through that and the WebSocket on it. Rows:

- **kirostream**: the log, its rendering, and who follows it, as the gateway has them;
- **channel each, our sends**: a bounded channel per watcher, the encoded block handed to each, sent as we send;
- **channel each**: the same, sent as one usually does: `SocketStream.send_all` with a deadline around it, or
  trio-websocket's `send_message`;
- **system calls alone**: a loop over the sockets. What the kernel takes for a delivery, and nobody can save.

A delivery is one token for one watcher. The next token is said when everybody has the last one, so nothing is ever sent
together. The watchers are another process (`audience.py`), which keeps every byte and checks it. Rounds are
interleaved, in an order shuffled by the seed; a ratio is the median of the rounds' own ratios.

Then the **crowd** (`fanout_crowd.py`): `kirostream serve` as a process of its own, one turn of 100 tokens a second,
1,000 watchers by SSE, as many by WebSocket, and some that read nothing.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import trio
import trio.testing
from rich.console import Console
from rich.table import Table

from bench import fanout_crowd, report
from bench.audience import Hall, get, masked, raise_limit, socket_request
from bench.processes import DidNotStart
from bench.wire import WrongAnswer
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.gateway.callers import Callers
from kirostream.gateway.media import Media
from kirostream.gateway.responses_ws import SocketSettings
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.gateway.stream_ws import StreamSocket
from kirostream.gateway.turns import GatewaySettings
from kirostream.gateway.watch import Languages
from kirostream.net.door import open_listeners
from kirostream.net.exchange import Exchange, HttpRequest, Part
from kirostream.net.http1 import Http1Door
from kirostream.net.messages import MessageSocket, text_frame
from kirostream.net.quick import Outlet, plain_socket, write_each
from kirostream.net.websocket import WebSocketSettings, accept
from kirostream.relay.directory import Directory, TurnsSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.relay import Relay
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnStarted,
)
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.usage import Usage

SIZES: Final = (1, 10, 100, 1000)
ALONE, SSE, WEBSOCKET = "alone", "sse", "websocket"
OURS, SAME_SENDS, CHANNELS, CALLS = "kirostream", "channel each, our sends", "channel each", "system calls alone"
GOAL: Final = 3.0
"""So many times less CPU a delivery than a channel each takes, at 100 watchers."""
GROWTH: Final = 1.1
"""A delivery to 1,000 costs at most so many times one to 100: equal figures differ by as much on a busy machine."""
WINDOW: Final = 4096
"""Blocks that a channel holds."""
KEY: Final = "ks-bench"
TURN: Final = "0123456789abcdef" * 2
HEAD: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
ASK: Final = TurnRequest(
    model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True, include_usage=True, spoken_in="anthropic"
)
FOREVER: Final = SocketSettings(life=1e6, connection=WebSocketSettings(ping=1e6))


class Fan(ABC):
    """One turn and all who watch it. `handle` serves one of them until the turn is over."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self.heartbeats = heartbeats
        self.caller = CALLERS.check(HttpRequest("GET", "/", "", ((b"x-api-key", KEY.encode()),))).owner
        self.said = 0
        """Tokens so far."""

    @abstractmethod
    def say(self, event: TurnEvent) -> None:
        """What the model says, for everybody."""

    @abstractmethod
    async def handle(self, exchange: Exchange) -> None:
        """Serve one watcher."""

    def begin(self) -> None:
        """Everybody is here."""
        self.say(TurnStarted("m"))
        self.say(BlockStarted(0, BlockKind.TEXT))

    def token(self) -> None:
        """Say the next token."""
        self.said += 1
        self.say(BlockDelta.of(0, f"w{self.said}@0 "))

    def end(self) -> None:
        """The turn is over."""
        self.say(BlockEnded(0))
        self.say(TurnEnded(Stop.END, Usage()))


CALLERS: Final = Callers([KEY])


class OurFan(Fan):
    """As the gateway has it: ``/v1/turns/{id}/events``, and ``/v1/stream``."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        super().__init__(heartbeats)
        self.live = LiveTurn(ASK, Heading(TURN, 0), Model("m"), caller=self.caller, linger=1e6)

    def say(self, event: TurnEvent) -> None:
        self.live.log.append([event])

    async def handle(self, exchange: Exchange) -> None:
        live = self.live
        rendering = live.rendering("anthropic", lambda: DIALECTS["anthropic"].writer(ASK, live.heading), ids=True)
        with live.watching():
            await Pump(exchange, live.log, rendering, follows=True).run(HEAD, self.heartbeats)


class OurSockets(OurFan):
    """The same over ``/v1/stream``."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        super().__init__(heartbeats)
        directory = Directory(TurnsSettings())
        directory.add(self.live)
        languages = Languages(DIALECTS.values())
        relay, media = cast(Relay, SimpleNamespace(directory=directory)), cast(Media, None)
        self._serve = StreamSocket(relay, CALLERS, media, languages, trio.Event(), FOREVER, GatewaySettings())

    async def handle(self, exchange: Exchange) -> None:
        await self._serve(exchange)


class ChannelFan(Fan):
    """A bounded channel per watcher. The block is encoded once, and handed to each."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        super().__init__(heartbeats)
        self._writer = DIALECTS["anthropic"].writer(ASK, Heading(TURN, 0))
        self._channels: list[trio.MemorySendChannel[bytes]] = []
        self._events = 0

    def encoded(self, event: TurnEvent) -> bytes:
        blocks = self._writer.write(event)
        self._events += 1
        places = (b"id: %b.%d.%d\n%b" % (TURN.encode(), self._events, n, block) for n, block in enumerate(blocks, 1))
        return b"".join(places)

    def say(self, event: TurnEvent) -> None:
        if block := self.encoded(event):
            for channel in self._channels:
                channel.send_nowait(block)

    def end(self) -> None:
        super().end()
        for channel in self._channels:
            channel.close()

    def subscribe(self) -> trio.MemoryReceiveChannel[bytes]:
        send, receive = trio.open_memory_channel[bytes](WINDOW)
        self._channels.append(send)
        return receive

    async def handle(self, exchange: Exchange) -> None:
        await exchange.start(200, HEAD)
        async for block in self.subscribe():
            await exchange.send(block)
        await exchange.finish()


class ChannelStreams(ChannelFan):
    """Sent by `SocketStream.send_all`, each chunk framed by itself, with a deadline."""

    async def handle(self, exchange: Exchange) -> None:
        stream = await exchange.upgrade()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        async for block in self.subscribe():
            with trio.move_on_after(30) as patience:
                await stream.send_all(b"%x\r\n%b\r\n" % (len(block), block))
            if patience.cancelled_caught:
                return
        await stream.send_all(b"0\r\n\r\n")


class BareCalls(ChannelFan):
    """A loop over the sockets: one system call each, and nothing else. What the kernel takes, whoever asks it."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        super().__init__(heartbeats)
        self._outlets: list[Outlet | None] = []
        self._over = trio.Event()

    def say(self, event: TurnEvent) -> None:
        if block := self.encoded(event):
            chunk = b"%x\r\n%b\r\n" % (len(block), block)
            if write_each(self._outlets, chunk):
                raise WrongAnswer("a watcher did not keep up")

    def end(self) -> None:
        super().end()
        self._over.set()

    async def handle(self, exchange: Exchange) -> None:
        stream = await exchange.upgrade()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        self._outlets.append(Outlet(plain_socket(stream)))
        await self._over.wait()
        await stream.send_all(b"0\r\n\r\n")


class ChannelFrames(ChannelFan):
    """The same over a WebSocket, with the frame made once and sent as we send."""

    def encoded(self, event: TurnEvent) -> bytes:
        self._events += 1
        texts = [block[block.index(b"data: ") + 6 : -2] for block in self._writer.write(event)]
        head = b'{"op":"events","turn":"%b","dialect":"anthropic","place":"%b.%d.0","data":[%b]}'
        return self.framed(head % (TURN.encode(), TURN.encode(), self._events, b",".join(texts))) if texts else b""

    def framed(self, message: bytes) -> bytes:
        return text_frame(message)

    async def handle(self, exchange: Exchange) -> None:
        async with accept(exchange, FOREVER.connection) as socket:
            async for message in self.subscribe():
                await self.send(socket, message)
            await socket.send('{"op":"ended"}')

    async def send(self, socket: MessageSocket, message: bytes) -> None:
        await socket.send_frame(message)


class ChannelSockets(ChannelFrames):
    """The same, sent by trio-websocket."""

    def framed(self, message: bytes) -> bytes:
        return message

    async def send(self, socket: MessageSocket, message: bytes) -> None:
        await socket.send(message.decode())


FANS: Final[Mapping[tuple[str, str], type[Fan]]] = {
    (ALONE, OURS): OurFan,
    (ALONE, CHANNELS): ChannelFan,
    (SSE, OURS): OurFan,
    (SSE, SAME_SENDS): ChannelFan,
    (SSE, CHANNELS): ChannelStreams,
    (SSE, CALLS): BareCalls,
    (WEBSOCKET, OURS): OurSockets,
    (WEBSOCKET, SAME_SENDS): ChannelFrames,
    (WEBSOCKET, CHANNELS): ChannelSockets,
}


class Nowhere:
    """An exchange whose client takes everything at once. It keeps the tokens' count."""

    outlet = None

    def __init__(self) -> None:
        self.request = HttpRequest("GET", "/", "", ())
        self.started = False
        self.tokens = 0

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]], first: bytes = b"") -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.started = True
        self.tokens += first.count(b"@0 ")

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.tokens += data.count(b"@0 ")

    def offer(self, part: Part) -> bool:
        self.tokens += part.data.count(b"@0 ")
        return True

    async def finish(self, last: bytes = b"") -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.tokens += last.count(b"@0 ")


@dataclass
class Bench:
    """One row, one way, one number of watchers, ready to be measured."""

    way: str
    row: str
    size: int
    fan: Fan
    cpu: list[float] = field(default_factory=list)
    """Microseconds a delivery, of each round."""

    async def round(self, tokens: int) -> None:
        """Say so many tokens, each once everybody has the one before."""
        before = time.process_time_ns()
        for _ in range(tokens):
            self.fan.token()
            await trio.testing.wait_all_tasks_blocked()
        self.cpu.append((time.process_time_ns() - before) / 1e3 / tokens / self.size)


@asynccontextmanager
async def opened(way: str, row: str, size: int, hall: Hall) -> AsyncIterator[Bench]:
    """`size` watchers of one turn. When the block ends the turn does, and everybody has to have everything.

    Raises:
        WrongAnswer: somebody has not.
    """
    fan = FANS[way, row](Heartbeats(1e6))
    crowd = f"{way} {row} {size}"
    async with trio.open_nursery() as nursery:
        if way == ALONE:
            nowhere = [Nowhere() for _ in range(size)]
            for each in nowhere:
                nursery.start_soon(fan.handle, cast(Exchange, each))
        else:
            door = Http1Door(fan.handle)
            listeners = await open_listeners("127.0.0.1", 0)
            port = listeners[0].socket.getsockname()[1]
            await nursery.start(door.serve, listeners)
            request = get("/", KEY)
            if way == WEBSOCKET:
                request = socket_request("/", KEY) + masked(b'{"op":"watch","turn":"%b"}' % TURN.encode())
            await asked(hall, "open", crowd=crowd, kind=way, port=port, count=size, request=request.decode("latin-1"))
        await trio.testing.wait_all_tasks_blocked()
        fan.begin()
        await trio.testing.wait_all_tasks_blocked()
        yield Bench(way, row, size, fan)
        fan.end()
        if way == ALONE:
            await trio.testing.wait_all_tasks_blocked()
            if {each.tokens for each in nowhere} != {fan.said}:
                raise WrongAnswer(f"{crowd}: not everybody has all {fan.said} tokens")
        else:
            await asked(hall, "result", crowd=crowd, tokens=fan.said)
            door.stop(0)


async def asked(hall: Hall, job: str, **arguments: Any) -> dict[str, Any]:
    """A job of the audience, while the watchers are served here."""
    return await trio.to_thread.run_sync(lambda: hall.do(job, **arguments))


def tokens_of(size: int, deliveries: int) -> int:
    """Tokens of a round: so many deliveries, but neither a handful nor thousands of tokens."""
    return max(5, min(deliveries // size, deliveries // 20))


async def measure(home: Path, sizes: Sequence[int], rounds: int, deliveries: int, seed: int) -> list[Bench]:
    """Every row, way and size, `rounds` times.

    Raises:
        WrongAnswer: somebody did not get something.
    """
    order = random.Random(seed)
    benches: list[Bench] = []
    with Hall(home) as hall:
        async with AsyncExitStack() as stack:
            for size in sizes:
                for way, row in FANS:
                    benches.append(await stack.enter_async_context(opened(way, row, size, hall)))
            gc.collect()
            gc.freeze()  # as `kirostream serve` does it, so that what stands by is not looked at again and again
            try:
                for _ in range(rounds):
                    for bench in order.sample(benches, len(benches)):
                        await bench.round(tokens_of(bench.size, deliveries))
            finally:
                gc.unfreeze()
    return benches


def summarize(benches: Sequence[Bench]) -> list[dict[str, Any]]:
    """A dictionary a way, row and size; `times` is its CPU over kirostream's in the same round."""
    ours = {(bench.way, bench.size): bench.cpu for bench in benches if bench.row == OURS}
    return [
        {
            "way": bench.way,
            "row": bench.row,
            "watchers": bench.size,
            "cpu_us": statistics.median(bench.cpu),
            "best_us": min(bench.cpu),
            "times": ratio(bench.cpu, ours[bench.way, bench.size]),
            "all_cpu_us": [round(each, 3) for each in bench.cpu],
        }
        for bench in benches
    ]


def ratio(here: Sequence[float], there: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(one / other for one, other in zip(here, there, strict=True))


def judge(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The goals that the sizes allow to judge."""
    found = {(row["way"], row["row"], row["watchers"]): row for row in rows}
    goals = []
    for way in (ALONE, SSE, WEBSOCKET):
        if beside := found.get((way, CHANNELS, 100)):
            what = f"{way}, 100 watchers: at least {GOAL:g} times less than a channel each"
            goals.append({"goal": what, "measured": beside["times"], "met": beside["times"] >= GOAL})
        few, many = found.get((way, OURS, 100)), found.get((way, OURS, 1000))
        if few and many:
            growth = ratio(many["all_cpu_us"], few["all_cpu_us"])
            what = f"{way}: a delivery to 1,000 costs what one to 100 costs (at most {GROWTH:g} times)"
            goals.append({"goal": what, "measured": growth, "met": growth <= GROWTH})
    return goals


def table(rows: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> Table:
    out = Table(title="us of CPU a delivery, by number of watchers (times kirostream's)", title_justify="left")
    out.add_column("way")
    out.add_column("row", no_wrap=True)
    for size in sizes:
        out.add_column(f"{size:,}", justify="right", no_wrap=True)
    for way, name in FANS:
        here = {row["watchers"]: row for row in rows if (row["way"], row["row"]) == (way, name)}
        out.add_row(way, name, *(f"{here[size]['cpu_us']:.2f} ({here[size]['times']:.1f})" for size in sizes))
    return out


def crowd_table(rounds: Sequence[Mapping[str, Any]], plan: fanout_crowd.Plan) -> Table:
    out = Table(
        title=f"one turn of {fanout_crowd.RATE} tokens/s; {plan.watchers:,} watchers of each kind, "
        f"and {plan.stalled} of each that read nothing",
        title_justify="left",
    )
    headings = ("turn", "deliveries/s", "CPU us", "cores", "asker p50 ms", "sse p50", "websocket p50", "evicted")
    for heading in (*headings, "RSS MB before", "peak", "after"):
        out.add_column(heading, justify="right")
    for number, each in enumerate(rounds, 1):
        latency = [each["latency_us"][name] for name in ("asker", *fanout_crowd.KINDS)]
        cells = [each["deliveries_per_second"], each["cpu_us"], each["cores"]]
        cells += [found and found["p50"] / 1e3 for found in latency]
        memory = [each[f"{when}_mb"] for when in ("before", "peak", "after")]
        out.add_row(
            str(number),
            *(
                "-" if cell is None else f"{cell:,.{digits}f}"
                for cell, digits in zip(cells, (0, 1, 2, 1, 1, 1), strict=True)
            ),
            str(sum(each["evicted"].values())),
            *("-" if cell is None else f"{cell:.1f}" for cell in memory),
        )
    return out


def judge_crowd(rounds: Sequence[Mapping[str, Any]], plan: fanout_crowd.Plan) -> list[dict[str, Any]]:
    """That everybody got everything is no goal: otherwise there are no figures."""
    goals = []
    pace = 0.95 * fanout_crowd.RATE * len(fanout_crowd.KINDS) * plan.watchers
    slowest = min(each["deliveries_per_second"] for each in rounds)
    what = f"{plan.watchers:,} watchers of each kind keep up with {fanout_crowd.RATE} tokens/s"
    goals.append({"goal": f"{what}: deliveries/s, at least {pace:,.0f}", "measured": slowest, "met": slowest >= pace})
    peaks = [each["peak_mb"] for each in rounds]
    if len(peaks) > 1 and None not in peaks:
        growth = peaks[-1] / peaks[0]
        what = "memory is given back: the last turn's peak over the first one's, at most 1.1"
        goals.append({"goal": what, "measured": growth, "met": growth <= 1.1})
    return goals


def numbers(text: str) -> tuple[int, ...]:
    """``1,10,100``. Raises ValueError for anything else."""
    return tuple(int(part) for part in text.split(","))


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--sizes", type=numbers, default=SIZES, help="numbers of watchers (default 1,10,100,1000)")
    add("--rounds", type=int, default=5, help="measurements a row and size (default %(default)s)")
    add("--deliveries", type=int, default=2000, help="deliveries a measurement, about (default %(default)s)")
    add("--crowd", type=int, default=1000, help="watchers of each kind in the crowd; 0: none (default %(default)s)")
    add("--stalled", type=int, default=10, help="of each kind that read nothing (default %(default)s)")
    add("--crowd-seconds", type=float, default=5.0, help="that the crowd is measured (default %(default)g)")
    add("--crowd-turns", type=int, default=2, help="one after the other (default %(default)s)")
    add("--seed", type=int, default=1, help="of the order (default %(default)s)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file into bench/results")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")


QUICK = {
    "sizes": (1, 5),
    "rounds": 2,
    "deliveries": 50,
    "crowd": 10,
    "stalled": 2,
    "crowd_seconds": 1.0,
    "crowd_turns": 1,
}


def files(options: argparse.Namespace) -> int:
    """Files that a process has open at the most."""
    connected: int = sum(options.sizes) * sum(way != ALONE for way, _ in FANS)
    crowd: int = options.crowd + options.stalled
    return max(connected, 2 * crowd) + 200


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 150)
    if options.quick:
        vars(options).update(QUICK)
    wanted = files(options)
    allowed = raise_limit(wanted)
    if allowed < wanted:
        raise SystemExit(
            f"{wanted} connections need as many open files, and this process may have {allowed}: raise the hard limit "
            f"(`ulimit -Hn {wanted}` as root, or LimitNOFILE), or choose smaller --sizes and --crowd."
        )
    where = report.machine()
    plan = fanout_crowd.Plan(options.crowd, options.stalled, options.crowd_seconds)
    crowd: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as folder:
        home = Path(folder)
        try:
            rows = summarize(trio.run(measure, home, options.sizes, options.rounds, options.deliveries, options.seed))
            if options.crowd:
                crowd = fanout_crowd.measure(plan, home, options.crowd_turns)
        except (WrongAnswer, DidNotStart) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"fanout failed: {error}", style="bold red")
            return 1
    console.print(table(rows, options.sizes))
    goals = judge(rows)
    if crowd:
        console.print(crowd_table(crowd, plan))
        goals += judge_crowd(crowd, plan)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:,.2f}", soft_wrap=True)
    if options.json or not options.no_save:
        kept = {
            "machine": where,
            "versions": report.versions(["kirostream", "trio", "trio-websocket", "h11"]),
            "seed": options.seed,
            "settings": {name: value for name, value in vars(options).items() if name not in ("json", "suite")},
            "results": rows,
            "crowd": crowd,
            "goals": goals,
        }
        console.print(f"written: {report.save('fanout', kept, options.json)}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0
