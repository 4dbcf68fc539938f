"""A gateway in a process of its own, with the built-in simulator behind it, for real foreign clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY = "ks-test-key"


@dataclass(frozen=True)
class Running:
    """Where the gateway is; `others` are the addresses of its other doors."""

    url: str
    key: str
    others: tuple[str, ...] = ()


def clean_env(tmp: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing of the machine's user is found."""
    env = {
        name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "SYSTEMROOT", "KIROSTREAM_CORE")
    }
    return {
        **env,
        "HOME": str(tmp),
        "KIROSTREAM_DATA_DIR": str(tmp / "data"),
        "KIROSTREAM_CONFIG_DIR": str(tmp / "config"),
        **more,
    }


@contextmanager
def serving(tmp: Path, *arguments: str, **more: str) -> Iterator[Running]:
    """`kirostream serve`, until the block ends; a demo, if there are no other arguments.

    Args:
        more: variables of its environment.
    """
    log = (tmp / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "kirostream", "serve", *(arguments or ["--demo"]), "--port", "0"],
        env=clean_env(tmp, PROXY_API_KEY=KEY, **more),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    urls: list[str] = []
    for line in process.stdout:
        urls += re.findall(r"(?:listens|also) on:? +(https?://127\.0\.0\.1:\d+)", line)
        if line.startswith("  upstream:"):
            break
    assert urls, (tmp / "log").read_text()
    try:
        yield Running(urls[0], KEY, tuple(urls[1:]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        log.close()
    assert process.returncode == 0
    assert "Traceback" not in (tmp / "log").read_text()


@contextmanager
def simulating(tmp: Path, **more: str) -> Iterator[str]:
    """`kirostream simulate`, until the block ends; gives its address."""
    with (tmp / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kirostream", "simulate", "--port", "0"],
            env=clean_env(tmp, **more),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found, (tmp / "log").read_text()
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A demo, until the session ends."""
    with serving(tmp_path_factory.mktemp("gateway"), KIROSTREAM_RELAY_FAILOVER_BACKOFF="0.01") as running:
        yield running
