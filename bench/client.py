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
from typing import Any, NamedTuple

from bench import processes, wire
from bench.wire import Read, Script, WrongAnswer

READ = 256 << 10
LAST_CHUNK = b"0\r\n\r\n"

clock = time.monotonic_ns


@dataclass
class Stream:
    """One connection with one request."""

    sock: socket.socket
    reads: list[Read] = field(default_factory=list)
    tail: bytes = b""

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
    window: tuple[float, float] | None,
    deadline: float,
    watched: Mapping[str, int],
) -> dict[str, Any]:
    """Many streams at once.

    Args:
        starts: for each stream, the seconds after which it asks.
        window: what is measured: after how many seconds it begins, and how many it lasts; None: everything, from the
            first request to the last byte.
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
    unfinished = len(streams)
    marks: list[Sample] = [] if window else [sample(watched)]
    begin = clock()
    limit = begin + round(deadline * 1e9)
    opens, lasts = window or (deadline, deadline)
    marks_at = [begin + round((opens + lasts) * 1e9), begin + round(opens * 1e9)]
    gc.collect()
    gc.disable()
    try:
        while unfinished:
            now = clock()
            if now > limit:
                raise WrongAnswer(f"{unfinished} of {len(streams)} streams are not whole after {deadline:g} s")
            while waiting and begin + waiting[-1][0] * 1e9 <= now:
                streams[waiting.pop()[1]].sock.sendall(request)
            if marks_at and now >= marks_at[-1]:
                marks.append(sample(watched))
                marks_at.pop()
            next_at = min([limit, *marks_at[-1:], *(begin + round(at * 1e9) for at, _ in waiting[-1:])])
            for key, _ in selector.select(max(0.0, (next_at - now) / 1e9)):
                ready: Stream = key.data
                if ready.take():
                    selector.unregister(ready.sock)
                    unfinished -= 1
    finally:
        gc.enable()
        for stream in streams:
            stream.sock.close()
        selector.close()
    if not window:
        marks.append(sample(watched))
    answers = checked(streams, dialect, script)
    if len(marks) < 2:
        raise WrongAnswer("the streams ended before the window was over")
    return figures(answers, *marks)


class Answer(NamedTuple):
    """A right answer: its tokens, and the nanoseconds each was under way, where they are stamped."""

    arrivals: Sequence[wire.Arrival]
    under_way: Sequence[int]


def checked(streams: Sequence[Stream], dialect: str, script: Script) -> list[Answer]:
    """Every answer, whole.

    Raises:
        WrongAnswer: with the number of the stream.
    """
    answers = []
    for number, stream in enumerate(streams, 1):
        try:
            arrivals = wire.read_answer(stream.reads, dialect)
            answers.append(Answer(arrivals, script.check(arrivals)))
        except WrongAnswer as error:
            raise WrongAnswer(f"stream {number} of {len(streams)}: {error}") from None
    return answers


def figures(answers: Sequence[Answer], first: Sample, last: Sample) -> dict[str, Any]:
    """What arrived between two samples, and what it took."""
    within = [arrival.at for answer in answers for arrival in answer.arrivals if first.at < arrival.at <= last.at]
    late = [
        took
        for answer in answers
        for arrival, took in zip(answer.arrivals, answer.under_way, strict=False)
        if first.at < arrival.at <= last.at
    ]
    if not within:
        raise WrongAnswer("nothing arrived while it was measured")
    ended = max(arrival.at for answer in answers for arrival in answer.arrivals)
    return {
        "seconds": (min(last.at, ended) - first.at) / 1e9,
        "tokens": len(within),
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
