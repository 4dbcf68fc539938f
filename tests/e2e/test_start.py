"""What a start imports: nothing that the first request can do without, or most gateways never need.

Each entry of `HEAVY` is something that was, or would be, in the way: with it a start takes longer and an idle gateway
is larger for good. Import it where it is used. `python -m bench start` measures what it comes to.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from e2e.conftest import clean_env

REFRESH_TOKEN: Final = "aor-start-" + "0" * 120
HEAVY: Final = {
    "_strptime": "it brings a calendar in all languages",
    "asyncio": "Trio is the loop",
    "brotli": "request bodies in br",
    "cryptography": "sealed records, where Python's own OpenSSL cannot be reached",
    "difflib": "what was meant, where a name is wrong",
    "email": "http.client brings it",
    "encodings.idna": "addresses are given as bytes",
    "h11": "what is not HTTP in plain form",
    "http.client": "urllib.request brings it",
    "httpx": "upstreams behind a proxy",
    "hypercorn": "[[listen]] with door = asgi",
    "importlib.metadata": "_version has the version",
    "kirostream.dialects.kiro.capture": "what a refusal keeps of a request",
    "kirostream.dialects.kiro.checks": "what may be wrong with a request that was refused",
    "kirostream.providers.kiro_management": "usage, plans and profiles, where somebody asks",
    "kirostream.providers.kiro_search": "results of a web search, with the first one",
    "multiprocessing": "nothing here forks",
    "opentelemetry": "traces, where they are asked for",
    "prometheus_client": "/metrics, with the first scrape",
    "pydantic": "newer versions of typer bring it",
    "pypdf": "documents, with the first one",
    "rich": "tables of other commands",
    "statistics": "it brings fractions, for one median",
    "structlog": "lines for a person, with the first one",
    "typer": "every command but a usual serve",
    "tomllib": "a settings file, where there is one",
    "trio_websocket": "WebSockets, with the first one",
    "unittest": "some libraries bring it",
    "urllib.request": "pathlib quotes paths too",
    "zstandard": "request bodies in zstd",
}
"""Module to why it is not there, or what it is for."""


@contextmanager
def started(tmp: Path, *arguments: str, **env: str) -> Iterator[tuple[str, set[str]]]:
    """A server that listens; gives its address and, once the block ends, the modules it had imported by then."""
    log = tmp / "imports"
    loaded: set[str] = set()
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "kirostream", *arguments, "--port", "0"],
            env=clean_env(tmp, **env),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = ""
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    url = found[0]
                    break
            assert url, log.read_text()[-2000:]
            yield url, loaded
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    loaded.update(re.findall(r"^import time: .*\| +([\w.]+)$", log.read_text(), re.MULTILINE))


def heavy(loaded: set[str], *allowed: str) -> list[str]:
    return sorted(
        name
        for name in HEAVY.keys() - set(allowed)
        if any(module == name or module.startswith(f"{name}.") for module in loaded)
    )


def test_a_demo_imports_nothing_heavy(tmp_path: Path) -> None:
    with started(tmp_path, "serve", "--demo") as (_, loaded):
        pass
    assert "kirostream.app" in loaded  # else the trace was not understood
    assert heavy(loaded, "kirostream.dialects.kiro.checks") == []  # the simulator is strict


def test_a_gateway_with_an_account_imports_nothing_heavy(tmp_path: Path) -> None:
    simulated, gateway = tmp_path / "simulated", tmp_path / "gateway"
    simulated.mkdir()
    gateway.mkdir()
    with started(simulated, "simulate", KIROSTREAM_SIMULATOR_REFRESH_TOKEN=REFRESH_TOKEN) as (upstream, _):
        env = {
            "REFRESH_TOKEN": REFRESH_TOKEN,
            "KIROSTREAM_KIRO_ENDPOINT": upstream,
            "KIROSTREAM_KEEPER_HOSTS_SOCIAL": upstream,
        }
        with started(gateway, "serve", **env) as (_, loaded):
            pass
    assert "kirostream.app" in loaded
    assert heavy(loaded) == []
    assert "kirostream.simulator.upstream" not in loaded


@pytest.mark.parametrize(
    ("loaded", "found"),
    [
        ({"rich.console", "trio"}, ["rich"]),
        ({"richer", "kirostream.rich"}, []),
        ({"http", "http.client"}, ["http.client"]),
    ],
)
def test_a_heavy_one_is_seen(loaded: set[str], found: list[str]) -> None:
    assert heavy(loaded) == found
