"""Real processes: killed in the middle of a write, and two on one credential."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from kirostream.net.client import HttpClient
from kirostream.net.exchange import Exchange
from kirostream.net.http1 import Http1Door
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator

TESTS = Path(__file__).parents[1]
ENV = {**os.environ, "PYTHONPATH": str(TESTS)}


def test_a_process_that_is_killed_in_the_middle_of_a_write_leaves_a_credential_that_works(tmp_path: Path) -> None:
    """Two hundred times, at random points: the token file, the database and the sealed record are whole each time."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork on this system")
    done = subprocess.run(
        [sys.executable, "-m", "helpers.writeback", str(tmp_path), "200", "0"],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    writes = {name: int(count) for name, count, _ in map(str.split, done.stdout.splitlines())}
    halves = {name: int(count) for name, _, count in map(str.split, done.stdout.splitlines())}
    assert set(writes) == {"ide", "cli", "own"}
    assert min(writes.values()) >= 66
    assert min(halves.values()) > 0, "the kills came in the middle of writes"


async def test_two_processes_on_one_credential_refresh_it_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Fifty requests at the moment the token ends, in two processes; the service rotates, and takes a token once."""
    simulator = Simulator(SimulatorSettings(rotate=True))
    asked = 0

    async def slowly(exchange: Exchange) -> None:
        nonlocal asked
        if exchange.request.path == "/refreshToken":
            asked += 1
            await trio.sleep(0.5)  # long enough for the other process to ask too, if it does
        await simulator(exchange)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    await nursery.start(Http1Door(slowly).serve, listeners)
    path = tmp_path / "token.json"
    path.write_text(json.dumps({**simulator.token_file(), "accessToken": "ended", "expiresAt": "2020-01-01T00:00:00Z"}))
    issued = simulator.snapshot().tokens_issued
    command = [sys.executable, "-m", "helpers.refresher", str(path), str(tmp_path / "locks"), url]
    said: list[bytes] = []

    async def process() -> None:
        done = await trio.run_process(command, env=ENV, capture_stdout=True)
        said.append(done.stdout)

    with trio.fail_after(40):
        async with trio.open_nursery() as both:
            both.start_soon(process)
            both.start_soon(process)
    assert asked == 1  # a second one would be refused, and look as if it had never been
    assert simulator.snapshot().tokens_issued == issued + 1
    assert said[0] == said[1] != b""
    held = json.loads(path.read_text())
    assert held["accessToken"].encode() == said[0]
    async with HttpClient() as client:
        body = json.dumps({"refreshToken": held["refreshToken"]}).encode()
        status, _, answer = await client.fetch("POST", f"{url}/refreshToken", (), body)
    assert status == 200, answer  # what is on disk works
