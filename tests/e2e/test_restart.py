"""A gateway that is killed in mid-turn and started again, with turns kept on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.conftest import KEY, clean_env
from e2e.test_faults import running as gateway_here

RESUMABLE = {"x-kirostream-resumable": "true"}


@contextmanager
def running(folder: Path, *, ends_with: int = signal.SIGTERM) -> Iterator[httpx.Client]:
    env = clean_env(folder, PROXY_API_KEY=KEY, KIROSTREAM_RELAY_TURNS_ARCHIVE_ENABLED="true")
    command = [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    try:
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=20) as client:
            yield client
    finally:
        process.send_signal(ends_with)
        process.communicate(timeout=20)


def body(path: str, said: str) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "auto", "stream": True}
    if path == "/v1/responses":
        return asked | {"input": said, "store": False, "include": ["reasoning.encrypted_content"]}
    return asked | {"max_tokens": 10_000, "messages": [{"role": "user", "content": said}]}


def until(folder: Path, condition: str) -> None:
    """Wait until a row of the table of turns fulfils an SQL condition."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with sqlite3.connect(folder / "data" / "kirostream.db", timeout=5) as database:
            if database.execute(f"SELECT 1 FROM turns WHERE {condition}").fetchone():
                return
        time.sleep(0.1)
    raise AssertionError(f"no turn with {condition}")


@pytest.mark.skipif(os.name != "posix", reason="a process is killed by signal 9")
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
def test_what_was_whole_is_replayed_and_what_was_cut_says_so(tmp_path: Path, path: str) -> None:
    with running(tmp_path, ends_with=signal.SIGKILL) as client:
        done = client.post(path, json=body(path, "[[think:a thought]][[say:kept 日本 😀]]"), headers=RESUMABLE)
        turn = done.headers["x-kirostream-turn"]
        until(tmp_path, f"id = '{turn}' AND over = 1")
        asked = body(path, "[[slow:50]][[tokens:2000]]")
        with client.stream("POST", path, json=asked, headers=RESUMABLE) as response:
            cut = response.headers["x-kirostream-turn"]
            until(tmp_path, f"id = '{cut}' AND size > 0")
    with running(tmp_path) as client:
        assert client.get(f"/v1/turns/{turn}/events").content == done.content
        described = client.get(f"/v1/turns/{turn}").json()
        assert (described["status"], described["model"]) == ("completed", "auto")
        rest = client.get(f"/v1/turns/{cut}/events", params={"dialect": "canonical"}).text
        events = [json.loads(line[6:]) for line in rest.splitlines() if line.startswith("data: ")]
        assert events[0]["type"] == "turn_started"
        assert events[-1]["type"] == "turn_failed"
        assert events[-1]["error"]["class"] == "ShuttingDown"
        other = client.get(f"/v1/turns/{cut}/events").text
        assert "was stopped before the answer was whole" in other
        assert client.get(f"/v1/turns/{'f' * 32}/events").status_code == 404


def test_a_stop_in_good_order_keeps_the_turns_too(tmp_path: Path) -> None:
    with running(tmp_path) as client:
        done = client.post("/v1/messages", json=body("/v1/messages", "[[say:kept]]"), headers=RESUMABLE)
    with running(tmp_path) as client:
        turn = done.headers["x-kirostream-turn"]
        assert client.get(f"/v1/turns/{turn}/events").content == done.content


async def test_what_is_only_on_its_way_to_disk_is_found_too(tmp_path: Path) -> None:
    """In memory turns are not kept here, and the archive writes once a second."""
    changes = {"relay__turns__replay": 0, "relay__turns__archive__enabled": True}
    async with gateway_here(tmp_path, **changes) as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
        client.headers["x-api-key"] = "k"
        done = await client.post("/v1/messages", json=body("/v1/messages", "[[say:quick]]"), headers=RESUMABLE)
        turn = done.headers["x-kirostream-turn"]
        assert (await client.get(f"/v1/turns/{turn}/events")).content == done.content
