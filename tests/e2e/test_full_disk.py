"""A data directory that nothing can be written to, while a gateway runs: it serves, says so, and recovers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from e2e.test_faults import until
from e2e.test_house import Place, place
from e2e.test_metrics import DOORS, KEY, ask, metrics
from e2e.test_metrics import running as running_with
from kirostream.errors import StoreError
from kirostream.gateway.callers import load_or_make_key
from kirostream.simulator.upstream import Simulator
from kirostream.telemetry import logfiles, usage
from kirostream.telemetry.facts import Fact, RefreshFailed, SinkRecovered, SinkTroubled
from kirostream.telemetry.logfiles import log_files


@contextmanager
def immutable(folder: Path) -> Iterator[None]:
    """Nothing below the folder can be written, not even by root or through an open file.

    The shared memory of SQLite is left alone: it is mapped, and to write to it then is a bus error, as on no full disk.
    """
    chattr = shutil.which("chattr")
    if sys.platform == "win32" or os.geteuid() or not chattr:
        pytest.skip("only root can make a folder immutable, with chattr")
    paths = [str(path) for path in (*folder.rglob("*"), folder) if not path.name.endswith("-shm")]

    def change(how: str) -> bool:
        return subprocess.run([chattr, how, *paths], capture_output=True, check=False).returncode == 0

    try:
        if not change("+i"):
            pytest.skip("the file system here has no immutable files")
        yield
    finally:
        change("-i")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nothing below the folder can be written, whoever runs the tests."""
    if not os.geteuid():
        with immutable(folder):
            yield
        return
    held = [(path, path.stat().st_mode) for path in (folder, *folder.rglob("*"))]
    try:
        for path, mode in held:
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in held:
            path.chmod(mode)


def signed_in(simulator: Simulator) -> None:
    """The simulator of another life knows the account of the first."""
    simulator.credential("ann")


async def say(on: Place, said: str = "[[say:x]]") -> int:
    return (await on.ask(said)).status_code


async def test_a_gateway_starts_where_nothing_can_be_written(tmp_path: Path) -> None:
    async with place(tmp_path, "ann", server__key="") as on:
        on.client.headers["x-api-key"] = on.gateway.key
        key = on.gateway.key
        assert await say(on) == 200
        await until(lambda: on.gateway.ledger is not None and on.gateway.ledger.snapshot().written == 1)

    with unwritable(tmp_path):
        async with place(tmp_path, before=signed_in, server__key="") as on:
            assert (on.gateway.key, on.gateway.new_key) == (key, False)
            on.client.headers["x-api-key"] = key
            assert [await say(on) for _ in range(3)] == [200] * 3
            note, *_ = on.gateway.notes
            assert "Nothing that changes from now on outlives this process" in note
            assert str(tmp_path) in note
            told = {fact.sink: fact.message for fact in on.facts if isinstance(fact, SinkTroubled)}
            assert told["data directory"] == note
            said = (await on.client.get("/admin/api/status")).json()
            assert said["status"] == "degraded"
            assert [(each["code"], each["message"]) for each in said["reasons"]] == [("unwritable", note)]
            ledger = on.gateway.ledger
            assert ledger is not None
            await until(lambda: ledger.snapshot().written == 3)
            assert (await ledger.totals()).turns == 4  # with the one from before, which budgets count
            # A renewed token lives on here, and somebody is told.
            (account,) = (await on.client.get("/admin/api/accounts")).json()["accounts"]
            (await on.client.post(f"/admin/api/accounts/{account['id']}/refresh")).raise_for_status()
            assert await say(on) == 200
            said = (await on.client.get("/admin/api/status")).json()
            assert "tokens_unsaved" in [each["code"] for each in said["reasons"]]
            assert any("would be lost" in fact.message for fact in on.facts if isinstance(fact, RefreshFailed))
            refused = await on.client.post("/admin/api/keys", json={"name": "tool", "scopes": ["api"]})
            assert refused.status_code == 500
            assert refused.json()["error"]["type"] == "operator"
    async with place(tmp_path, before=signed_in, server__key="") as on:
        on.client.headers["x-api-key"] = key
        said = (await on.client.get("/admin/api/status")).json()
        assert (said["status"], said["reasons"]) == ("healthy", [])
        assert "outlives" not in " ".join(on.gateway.notes)


def test_a_gateway_without_a_key_does_not_start_where_none_can_be_kept(tmp_path: Path) -> None:
    with unwritable(tmp_path), pytest.raises(StoreError, match=r"one that cannot be kept is none.*--key"):
        load_or_make_key(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_gateway_serves_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (logfiles, usage):
        monkeypatch.setattr(module, "RETRY", 0.2)
    facts: list[Fact] = []
    data = tmp_path / "data"
    async with (
        running_with(tmp_path, folder=data, facts=facts) as (gateway, urls),
        httpx.AsyncClient(timeout=20) as client,
    ):
        ledger = gateway.ledger
        assert ledger is not None

        async def turns(count: int) -> None:
            for number in range(count):
                url = urls[DOORS[number % 2]]
                answer = await client.post(
                    f"{url}/v1/messages", json=ask("/v1/messages", "[[say:one]]", stream=bool(number % 3)), headers=KEY
                )
                assert answer.status_code == 200
                assert "one" in answer.text

        with trio.fail_after(30):
            await turns(2)
            await trio.sleep(1.5)
            with immutable(data):
                await turns(6)
                while {fact.sink for fact in facts if isinstance(fact, SinkTroubled)} != {"usage ledger", "log files"}:
                    await trio.sleep(0.05)
                found = await metrics(client, urls["http1"])
                assert set(found["kirostream_sink_failing"].values()) == {1.0}
                assert (await client.get(f"{urls['asgi']}/health")).status_code == 200
            while sum(isinstance(fact, SinkRecovered) for fact in facts) < 2:
                await trio.sleep(0.05)
            assert (await ledger.totals()).turns == 8
            found = await metrics(client, urls["http1"])
            assert set(found["kirostream_sink_failing"].values()) == {0.0}
            assert set(found["kirostream_sink_dropped_total"].values()) == {0.0}
            await trio.sleep(0.7)
            said = "".join(path.read_text() for path in log_files(data / "logs"))
            assert said.count('"turn finished"') == 8
            assert "cannot write" in said
