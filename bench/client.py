"""The clients of the end-to-end bench: one process, raw sockets, one selector. ``python -m bench.client``

It takes jobs as lines of JSON on stdin and answers each with a line on stdout. While streams run it does nothing but
recv, look at the clock and keep what came; answers are parsed and checked afterwards, every one, whole. The collector
of cyclic garbage rests meanwhile: this process is the instrument, and not what is measured.
"""

from __future__ import annotations

import gc
import json
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import processes, wire
from bench.wire import Read, Script, WrongAnswer

READ = 256 << 10
SETTLE = 0.25
"""Seconds between the first token of the last stream and the opening of the window."""
LAST_CHUNK = b"0\r\n\r\n"

clock = time.monotonic_ns


@dataclass
class Stream:
    """One connection with one request."""

    sock: socket.socket
    reads: list[Read] = field(default_factory=list)
    tail: bytes = b""
    spoke: bool = False

    def take(self) -> bool:
        """Read what there is. True when there is no more to come: a whole answer, an error, or a cut."""
        data = self.sock.recv(READ)
        self.reads.append(Read(clock(), data))
        self.tail = (self.tail + data[-5:])[-5:]
        if self.tail.endswith(LAST_CHUNK):
            return wire.is_whole(b"".join(read.data for read in self.reads))
        # What is no 200 need not be in chunks: its beginning is enough to fail.
        return not data or (len(self.reads) == 1 and not data.startswith(b"HTTP/1.1 200"))


@dataclass(frozen=True, slots=True)
class Sample:
    """What the watched processes had used at one time, by name; and all cores together."""

    at: int
    cpu: Mapping[str, int | None]
    memory: Mapping[str, processes.Memory | None]
    busy: int | None


def sample(watched: Mapping[str, int]) -> Sample:
    """Ask the platform."""
    cpu = {name: processes.cpu_ns(pid) for name, pid in watched.items()}
    at = clock()
    memory = {name: processes.memory(pid) for name, pid in watched.items()}
    return Sample(at, cpu, memory, processes.busy_ns())


def crowd(
    address: tuple[str, int],
    request: bytes,
    dialect: str,
    script: Script,
    *,
    starts: Sequence[float],
    window: float,
    deadline: float,
    watched: Mapping[str, int],
) -> dict[str, Any]:
    """Many streams at once.

    Args:
        starts: for each stream, the seconds after which it asks.
        window: seconds that are measured, from when all streams speak; 0: everything, from the first request to the
            last byte.
        deadline: seconds until all answers have to be there.
        watched: processes by name.

    Raises:
        WrongAnswer: one of the answers is not right.
    """
    streams = [Stream(socket.create_connection(address)) for _ in starts]
    selector = selectors.DefaultSelector()
    for stream in streams:
        stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sock.setblocking(False)
        selector.register(stream.sock, selectors.EVENT_READ, stream)
    waiting = sorted(zip(starts, range(len(starts)), strict=True), reverse=True)
    silent = unfinished = len(streams)
    marks: list[Sample] = [] if window else [sample(watched)]
    begin = clock()
    limit = begin + round(deadline * 1e9)
    mark_at = limit
    gc.collect()
    gc.disable()
    try:
        while unfinished:
            now = clock()
            if now > limit:
                raise WrongAnswer(f"{unfinished} of {len(streams)} streams are not whole after {deadline:g} s")
            while waiting and begin + waiting[-1][0] * 1e9 <= now:
                streams[waiting.pop()[1]].sock.sendall(request)
            if now >= mark_at:
                marks.append(sample(watched))
                mark_at = limit if len(marks) > 1 else marks[0].at + round(window * 1e9)
            next_at = min(mark_at, limit)
            if waiting:
                next_at = min(next_at, begin + round(waiting[-1][0] * 1e9))
            for key, _ in selector.select(max(0.0, (next_at - now) / 1e9)):
                ready: Stream = key.data
                if ready.take():
                    selector.unregister(ready.sock)
                    unfinished -= 1
                if window and not ready.spoke and b"w1" in b"".join(read.data for read in ready.reads):
                    ready.spoke = True
                    silent -= 1
                    if not silent:
                        mark_at = clock() + round(SETTLE * 1e9)
    finally:
        gc.enable()
        for stream in streams:
            stream.sock.close()
        selector.close()
    if not window:
        marks.append(sample(watched))
    elif len(marks) < 2:
        raise WrongAnswer("the streams ended before the window was over: their rate or number is more than fits")
    return figures(streams, dialect, script, marks)


def figures(streams: Sequence[Stream], dialect: str, script: Script, marks: Sequence[Sample]) -> dict[str, Any]:
    """Check every answer, and count what arrived between the two marks.

    Raises:
        WrongAnswer: with the number of the stream.
    """
    first, last = marks
    end = min(last.at, max(stream.reads[-1].at for stream in streams))
    tokens = 0
    late: list[int] = []
    for number, stream in enumerate(streams, 1):
        try:
            arrivals = wire.read_answer(stream.reads, dialect)
            under_way = script.check(arrivals)
        except WrongAnswer as error:
            raise WrongAnswer(f"stream {number} of {len(streams)}: {error}") from None
        within = [first.at < arrival.at <= last.at for arrival in arrivals]
        tokens += sum(within)
        late += [took for took, inside in zip(under_way, within, strict=False) if inside]
    return {
        "seconds": (end - first.at) / 1e9,
        "tokens": tokens,
        "latency_us": quantiles(late),
        "cpu_ns": {name: _less(last.cpu[name], first.cpu[name]) for name in last.cpu},
        "busy_ns": _less(last.busy, first.busy),
        "resident": {name: found and found.resident for name, found in last.memory.items()},
        "peak": {name: found and found.peak for name, found in last.memory.items()},
    }


def quantiles(nanoseconds: Sequence[int]) -> dict[str, float] | None:
    """Median, 99th percentile and maximum in microseconds; None of nothing."""
    if len(nanoseconds) < 2:
        return None
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return {"p50": cuts[49] / 1e3, "p99": cuts[98] / 1e3, "max": max(nanoseconds) / 1e3}


def _less(last: int | None, first: int | None) -> int | None:
    return None if last is None or first is None else last - first


def one_by_one(
    address: tuple[str, int],
    request: bytes,
    dialect: str,
    script: Script,
    *,
    count: int,
    warm_up: int,
    deadline: float,
    watched: Mapping[str, int],
) -> dict[str, Any]:
    """Requests on one connection, one after the other.

    Args:
        warm_up: so many more come first, and are checked, but not measured.

    Raises:
        WrongAnswer: one of the answers is not right.
    """
    first_ns, whole_ns = [], []
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(deadline)
        before = sample(watched)
        for number in range(-warm_up, count):
            if number == 0:
                before = sample(watched)
            stream = Stream(sock)
            sent = clock()
            sock.sendall(request)
            try:
                while not stream.take():
                    pass
                arrivals = wire.read_answer(stream.reads, dialect)
                script.check(arrivals)
            except (WrongAnswer, TimeoutError) as error:
                raise WrongAnswer(f"request {number + warm_up + 1} of {warm_up + count}: {error}") from None
            if number >= 0:
                first_ns.append(arrivals[0].at - sent)
                whole_ns.append(stream.reads[-1].at - sent)
        after = sample(watched)
    return {
        "requests": count,
        "first_token_us": quantiles(first_ns),
        "whole_us": quantiles(whole_ns),
        "cpu_ns": {name: _less(after.cpu[name], before.cpu[name]) for name in after.cpu},
    }


KINDS: Mapping[str, Callable[..., dict[str, Any]]] = {"crowd": crowd, "one_by_one": one_by_one}


def main() -> None:
    """Serve jobs until stdin ends."""
    for line in sys.stdin:
        job = json.loads(line)
        kind = KINDS[job.pop("kind")]
        host, port = job.pop("address")
        request = job.pop("request").encode()
        script = Script(**job.pop("script"))
        try:
            answer = kind((host, port), request, job.pop("dialect"), script, **job)
        except (WrongAnswer, OSError) as error:
            answer = {"error": f"{error}" if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
