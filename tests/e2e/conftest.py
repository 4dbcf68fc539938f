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
    """Where the gateway is."""

    url: str
    key: str


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
def serving(tmp: Path, **more: str) -> Iterator[Running]:
    """`kirostream serve --demo`, until the block ends. `more` are variables of its environment."""
    log = (tmp / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0"],
        env=clean_env(tmp, PROXY_API_KEY=KEY, **more),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    assert url, (tmp / "log").read_text()
    try:
        yield Running(url, KEY)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        log.close()
    assert process.returncode == 0
    assert "Traceback" not in (tmp / "log").read_text()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A demo, until the session ends."""
    with serving(tmp_path_factory.mktemp("gateway"), KIROSTREAM_RELAY_FAILOVER_BACKOFF="0.01") as running:
        yield running
