"""Processes that are measured: started, waited for, and asked what they use. The figures are Linux's; else None."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0
"""Seconds a server may take until it answers."""


class DidNotStart(Exception):
    """A server ended, or did not answer in time. The message holds the end of its log."""


class Memory(NamedTuple):
    """Bytes of resident memory: now, and at most so far."""

    resident: int
    peak: int


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(children).split():
            yield from tree(int(child))


def cpu_ns(pid: int) -> int | None:
    """Nanoseconds of CPU that a process tree has used, all threads; None where the platform does not tell."""
    total, found = 0, False
    for member in tree(pid):
        for file in Path(f"/proc/{member}/task").glob("*/schedstat"):
            if said := _text(file):
                total += int(said.split()[0])
                found = True
    return total if found else None


def memory(pid: int) -> Memory | None:
    """What a process tree holds; None where the platform does not tell."""
    resident = peak = 0
    for member in tree(pid):
        for line in _text(Path(f"/proc/{member}/status")).splitlines():
            name, _, value = line.partition(":")
            if name == "VmRSS":
                resident += int(value.split()[0]) << 10
            elif name == "VmHWM":
                peak += int(value.split()[0]) << 10
    return Memory(resident, peak) if resident else None


def busy_ns() -> int | None:
    """Nanoseconds that all cores together were busy since boot, in steps of a tick; None where nobody tells."""
    fields = _text(Path("/proc/stat")).partition("\n")[0].split()[1:]
    if not fields:
        return None
    user, nice, system, _, _, irq, soft, *_ = map(int, fields)
    return (user + nice + system + irq + soft) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another platform, or a thread that has ended since
        return ""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_env(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which no setting and no credential of this machine's user is found."""
    kept = ("PATH", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH", "KIROSTREAM_CORE")
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "HOME": str(home),
        "KIROSTREAM_DATA_DIR": str(home / "data"),
        "KIROSTREAM_CONFIG_DIR": str(home / "config"),
        **(more or {}),
    }


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server. ``{port}`` in an argument becomes its port. Asked for `health`, it says `status`.

    Attributes:
        program: what is started; empty: this Python.
        patience: seconds it may take until it answers.
        port: where it listens; 0: one that is free.
    """

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    health: str = "/health"
    status: int = 200
    program: str = ""
    patience: float = PATIENCE
    port: int = 0


class Server:
    """A server in a process of its own, from `start` until the block ends.

    Attributes:
        ready: seconds from the start of the process to its first answer.
    """

    def __init__(self, command: Command, home: Path, cores: Sequence[int] = ()) -> None:
        self.command = command
        self.port = command.port or free_port()
        self._log = home / f"{command.name.replace(' ', '-')}-{self.port}.log"
        arguments = [argument.format(port=self.port) for argument in command.arguments]
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [command.program or sys.executable, *arguments],
                cwd=ROOT,
                env=clean_env(home, command.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        try:
            pin(self.pid, cores)
            while not self._answers():
                if self._process.poll() is not None:
                    raise DidNotStart(f"{command.name} ended with {self._process.returncode}:\n{self.last_words()}")
                if time.monotonic() > began + command.patience:
                    raise DidNotStart(
                        f"{command.name} does not answer after {command.patience:g} s:\n{self.last_words()}"
                    )
                time.sleep(0.001)
        except BaseException:
            self.stop()
            raise
        self.ready = time.monotonic() - began

    def __repr__(self) -> str:
        return f"<Server {self.command.name} on port {self.port}, process {self.pid}>"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
            ask = f"GET {self.command.health} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            probe.sendall(ask.encode())
            return probe.recv(4096).startswith(b"HTTP/1.1 %d" % self.command.status)
        return False

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Ask it to end, and end it where it does not."""
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def pin(pid: int, cores: Sequence[int]) -> None:
    """Keep a process on these cores; none given: leave it alone."""
    if cores:
        os.sched_setaffinity(pid, cores)
