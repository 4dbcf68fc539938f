"""`kirostream logs` beside a gateway that runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.conftest import KEY, clean_env


def logs(tmp: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "kirostream", "logs", *arguments],
        env=clean_env(tmp),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    tmp = tmp_path_factory.mktemp("logs")
    with (
        (tmp / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0", "--log-level", "debug"],
            env=clean_env(tmp, PROXY_API_KEY=KEY, KIROSTREAM_RELAY_FAILOVER_ATTEMPTS="1"),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        try:
            yield tmp, url
        finally:
            process.kill()


def ask(url: str, said: str) -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": [{"role": "user", "content": said}]}
    httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=20)


def test_what_happened_is_read(running: tuple[Path, str]) -> None:
    tmp, url = running
    ask(url, "[[say:one]] a secret plan")
    ask(url, "[[error:CONTEXT]]")
    for _ in range(100):
        lines = [json.loads(line) for line in logs(tmp, "--json", "--since", "1h").stdout.splitlines()]
        if sum(line["event"] == "turn finished" for line in lines) == 2:
            break
        time.sleep(0.1)
    turns = [line for line in lines if line["event"] == "turn finished"]
    assert [turn["outcome"] for turn in turns] == ["end", "failed"]
    assert turns[0]["request"].startswith("req_")
    assert {"turn", "account", "model_asked", "model_used", "seconds", "first_event", "status", "key"} <= set(turns[0])
    assert any(line["event"] == "exchange finished" and line["path"] == "/v1/messages" for line in lines)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    everything = logs(tmp, "--since", "1h").stdout
    assert "a secret plan" not in everything
    assert KEY not in everything
    shown = logs(tmp, "--grep", turns[1]["turn"], "--level", "info").stdout
    assert "turn finished" in shown
    assert "error=ContextOverflow" in shown
    assert len(logs(tmp, "-n", "2").stdout.splitlines()) == 2
    assert logs(tmp, "--grep", "no such thing").stdout == ""


def test_lines_are_followed(running: tuple[Path, str]) -> None:
    tmp, url = running
    with subprocess.Popen(
        [sys.executable, "-m", "kirostream", "logs", "--follow", "--grep", "turn finished", "--json", "-n", "0"],
        env=clean_env(tmp),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            time.sleep(1.5)
            ask(url, "[[say:followed]]")
            assert json.loads(process.stdout.readline())["event"] == "turn finished"
        finally:
            process.kill()


def test_what_cannot_be_read(running: tuple[Path, str], tmp_path: Path) -> None:
    nothing = logs(tmp_path)
    assert nothing.returncode == 2
    assert "no logs" in nothing.stderr
    assert logs(running[0], "--level", "loud").returncode == 2
    assert logs(running[0], "--since", "soon").returncode == 2


def test_a_report_has_what_a_bug_needs_and_nothing_that_was_said(running: tuple[Path, str]) -> None:
    tmp, url = running
    ask(url, "[[error:VALIDATION]] a secret plan")
    time.sleep(1.2)
    file = tmp / "report.json"
    command = [sys.executable, "-m", "kirostream", "report"]
    env = clean_env(tmp, PROXY_API_KEY=KEY, KIROSTREAM_LOG_LEVEL="debug")
    done = subprocess.run([*command, str(file)], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    said = json.loads(text)
    assert {"kirostream", "core", "python", "system", "settings", "log", "captures"} <= set(said)
    assert said["settings"]["log.level"] == {"value": "debug", "from": "KIROSTREAM_LOG_LEVEL"}
    assert any(line["event"] == "attempt failed" for line in said["log"])
    assert len(said["captures"]["forms"]) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert KEY not in text
    assert "a secret plan" not in text
    shown = subprocess.run([*command, "-"], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(shown.stdout)["kirostream"] == said["kirostream"]
