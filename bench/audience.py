"""The watchers of the fan-out bench: one process, raw sockets, one selector. ``python -m bench.audience``

It takes jobs as lines of JSON on stdin and answers each with a line on stdout. All the while it reads whatever comes,
and keeps it; what came is checked when a crowd is asked for its `result`: every watcher, every byte.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bench.processes import ROOT, clean_env
from bench.wire import WrongAnswer

READ: Final = 256 << 10
TOKEN: Final = re.compile(rb"w(\d+)@(\d+)")
"""A token and, in nanoseconds of the monotonic clock, when it was said (0: not told)."""
SAMPLE: Final = 20
"""Each so many-th watcher looks at the clock."""
NEVER: Final = 1 << 62
"""Nanoseconds, later than any clock."""
PATIENCE: Final = 60.0
"""Seconds for a job."""


def raise_limit(wanted: int) -> int:
    """Let this process have `wanted` files open, as far as it may. Returns how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(wanted, soft)
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def get(path: str, key: str = "") -> bytes:
    """A request for a stream of events."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n".encode()


def socket_request(path: str, key: str = "") -> bytes:
    """A WebSocket handshake (RFC 6455 section 4.1)."""
    lines = [f"GET {path} HTTP/1.1", "host: localhost", f"x-api-key: {key}", "connection: Upgrade"]
    lines += ["upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: " + "A" * 22 + "=="]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(text: bytes) -> bytes:
    """A client's text message. The mask is zeros, which leaves the text as it is."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


@dataclass(eq=False)
class Watcher:
    """One connection."""

    sock: socket.socket
    sampled: bool
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False
    under_way: list[int] = field(default_factory=list)

    def take(self, last: bytes, since: int = 0) -> None:
        """Read what there is, and see how long tokens that were said after `since` took.

        It `ended` when the stream is whole, as its `last` bytes say, or broke off.
        """
        try:
            data = self.sock.recv(READ)
        except ConnectionError:
            data, self.reset = b"", True
        if self.sampled and data:
            now = time.monotonic_ns()
            self.under_way += [now - int(stamp) for _, stamp in TOKEN.findall(data) if int(stamp) > since]
        self.data += data
        self.ended = not data or last in self.data[-200:]


@dataclass
class Crowd:
    """Watchers of one kind, ``sse`` or ``websocket``, of one turn. Stalled ones read nothing."""

    kind: str
    watchers: list[Watcher]
    stalled: bool = False

    @property
    def last(self) -> bytes:
        """What the end of a stream looks like."""
        return b"0\r\n\r\n" if self.kind == "sse" else b'"op":"ended"'

    def check(self, tokens: int) -> dict[str, Any]:
        """Whether everybody got everything.

        Raises:
            WrongAnswer: somebody did not.
        """
        digests = set()
        took: list[int] = []
        size = writes = 0
        for number, watcher in enumerate(self.watchers):
            said = list(said_in(self.kind, bytes(watcher.data)))
            body = (b"" if self.kind == "sse" else b",").join(said)
            found = [int(each) for each, _ in TOKEN.findall(body)]
            if found != list(range(1, tokens + 1)):
                raise WrongAnswer(
                    f"{self.kind}, watcher {number + 1} of {len(self.watchers)}: {len(found)} tokens in place of "
                    f"{tokens}, or not in order; the end: {bytes(watcher.data[-300:])!r}"
                )
            digests.add(hashlib.sha256(body).hexdigest())
            size += len(watcher.data)
            writes += len(said)
            took += watcher.under_way
        if len(digests) != 1:
            raise WrongAnswer(f"{self.kind}: {len(digests)} different streams of one turn")
        return {"bytes": size, "writes": writes, "latency_us": quantiles(took)}


def said_in(kind: str, data: bytes) -> Iterator[bytes]:
    """The parts of a body, or the data of the messages of one connection."""
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
        raise WrongAnswer(f"{kind}: {data[:300]!r}")
    at = 0
    while at < len(rest):
        if kind == "sse":
            end = rest.index(b"\r\n", at)
            size, at = int(rest[at:end], 16), end + 2
            if size:
                yield rest[at : at + size]
            at += size + 2
            continue
        opcode, size = rest[at], rest[at + 1]
        at += 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(rest[at : at + width], "big"), at + width
        message = rest[at : at + size]
        at += size
        data_at = message.find(b'"data":[')
        if opcode == 0x81 and data_at >= 0:
            yield message[data_at + 8 : -2]


def quantiles(nanoseconds: list[int]) -> dict[str, float] | None:
    """Median, 99 of 100, and most, in microseconds."""
    if len(nanoseconds) < 2:
        return None
    cuts = statistics.quantiles(nanoseconds, n=100)
    return {"p50": cuts[49] / 1e3, "p99": cuts[98] / 1e3, "max": max(nanoseconds) / 1e3}


class Audience:
    """All crowds. Each public method is a job; jobs read on while they wait."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._crowds: dict[str, Crowd] = {}
        self._since = NEVER

    def open(self, crowd: str, kind: str, port: int, count: int, request: str, stalled: bool = False) -> dict[str, Any]:
        """Connect `count` watchers and ask; done once each has something. Stalled ones then read no more."""
        watchers = []
        for number in range(count):
            sock = socket.socket()
            if stalled:  # before connecting, so that the window is small from the beginning
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(request.encode("latin-1"))
            watchers.append(Watcher(sock, sampled=number % SAMPLE == 0))
            if stalled:
                sock.settimeout(PATIENCE)
                sock.recv(1, socket.MSG_PEEK)
            else:
                self._selector.register(sock, selectors.EVENT_READ, (watchers[-1], kind))
                self.serve(0)
        made = self._crowds[crowd] = Crowd(kind, watchers, stalled)
        if not stalled:
            self._until(lambda: all(b"\r\n\r\n" in watcher.data for watcher in made.watchers), "to be let in")
        return {"open": count}

    def wait(self, seconds: float) -> dict[str, Any]:
        """Go on for so long. Of what is said meanwhile, it is seen how long it takes."""
        self._since = time.monotonic_ns()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.serve(left)
        self._since = NEVER
        return {}

    def result(self, crowd: str, tokens: int, together: bool = False) -> dict[str, Any]:
        """What a crowd got, once all of it ended; its connections are closed."""
        of = self._crowds.pop(crowd)
        try:
            # Of all crowds of this turn, because nobody reads while one is checked.
            reading = [of, *self._crowds.values()] if together else [of]
            watchers = [watcher for each in reading for watcher in each.watchers if not each.stalled]
            self._until(lambda: all(watcher.ended for watcher in watchers), "for the end")
            return of.check(tokens)
        finally:
            self._close(of)

    def evicted(self, crowd: str) -> dict[str, Any]:
        """How many of a stalled crowd find their connection cut."""
        of = self._crowds.pop(crowd)
        cut = 0
        for watcher in of.watchers:
            watcher.sock.settimeout(5.0)
            watcher.data.clear()
            with contextlib.suppress(TimeoutError):
                while not watcher.ended:
                    watcher.take(of.last)
                cut += of.last not in watcher.data[-200:]
        self._close(of)
        return {"evicted": cut}

    def _close(self, crowd: Crowd) -> None:
        for watcher in crowd.watchers:
            with contextlib.suppress(KeyError):
                self._selector.unregister(watcher.sock)
            watcher.sock.close()

    def _until(self, done: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise WrongAnswer(f"a watcher waited {PATIENCE:g} s {what}")
            self.serve(0.05)

    def serve(self, patience: float) -> bool:
        """Read what came. Returns whether there is a job."""
        jobs = False
        for key, _ in self._selector.select(patience):
            if key.data is None:
                jobs = True
                continue
            watcher, kind = key.data
            watcher.take(b"0\r\n\r\n" if kind == "sse" else b'"op":"ended"', self._since)
            if watcher.ended:
                self._selector.unregister(watcher.sock)
        return jobs

    def run(self) -> None:
        """Do jobs until stdin ends."""
        jobs = open(0, "rb", buffering=0)  # noqa: SIM115  unbuffered, so that the selector sees each line
        self._selector.register(jobs, selectors.EVENT_READ, None)
        waiting = b""
        while True:
            if not self.serve(1.0):
                continue
            said = jobs.read(65536)
            if not said:
                return
            waiting += said
            while b"\n" in waiting:
                line, _, waiting = waiting.partition(b"\n")
                job = json.loads(line)
                try:
                    answer = getattr(self, job.pop("do"))(**job)
                except (WrongAnswer, OSError) as error:
                    answer = {"error": f"{error}"}
                print(json.dumps(answer), flush=True)


class Hall:
    """The audience's process, until the block ends."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.audience"],
            cwd=ROOT,
            env=clean_env(home, {"PYTHONPATH": str(ROOT)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def do(self, job: str, **arguments: Any) -> dict[str, Any]:
        """One job of `Audience`. It blocks until the job is done.

        Raises:
            WrongAnswer: something that arrived was not right, or the process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": job, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the watchers' process died"}
        if "error" in answer:
            raise WrongAnswer(answer["error"])
        return answer

    def __enter__(self) -> Hall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


if __name__ == "__main__":
    raise_limit(1 << 16)
    gc.disable()
    Audience().run()
