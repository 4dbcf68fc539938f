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

from e2e.test_metrics import DOORS, KEY, ask, metrics
from e2e.test_metrics import running as running_with
from kirostream.telemetry import logfiles, usage
from kirostream.telemetry.facts import Fact, SinkRecovered, SinkTroubled
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
