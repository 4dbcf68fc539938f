"""``kirostream doctor``: each thing that can be wrong is found, and said with what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
import trio

from kirostream.app import open_gateway
from kirostream.commands import checks
from kirostream.commands.checks import Finding, Scene, check
from kirostream.settings import DATABASE, Settings, Sources
from kirostream.simulated import open_simulator
from kirostream.stores.sqlite import open_database
from kirostream.telemetry.recorder import Recorder

TOKEN = "a-refresh-token-" + "x" * 120


async def found(folder: Path, env: Mapping[str, str] = {}, *, offline: bool = False) -> list[Finding]:
    """What the doctor says of this environment, and nobody's home."""
    home = {"HOME": str(folder / "home"), "KIROSTREAM_CONFIG_DIR": str(folder / "config")}
    said: list[Finding] = []
    await check(Scene(Sources({**home, **env}), {**home, **env}, folder / "data", offline), said.append)
    return said


def of(said: list[Finding], subject: str) -> list[tuple[str, str]]:
    return [(each.verdict, each.said) for each in said if each.subject == subject]


def data(folder: Path) -> Path:
    (folder / "data").mkdir(mode=0o700)
    return folder / "data"


async def test_of_a_new_machine_it_misses_an_account_and_nothing_else(tmp_path: Path) -> None:
    said = await found(tmp_path, {"KIROSTREAM_SERVER_PORT": "0"})
    assert [each.subject for each in said if each.verdict == "trouble"] == ["accounts"]
    assert "kirostream login" in of(said, "accounts")[0][1]
    assert {"version", "core", "settings", "streams", "data", "key", "database", "files", "address"} <= {
        each.subject for each in said
    }
    assert not (tmp_path / "data").exists(), "looking made something"


async def test_settings_that_do_not_fit_are_all_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    said = await found(
        tmp_path, {"KIROSTREAM_SERVER_PORT": "many", "KIROSTREAM_RELAY_TURNS_CAP": "x", "KIROSTREAM_SERVER_PROT": "1"}
    )
    settings = of(said, "settings")
    assert [verdict for verdict, _ in settings] == ["note", "trouble", "trouble"]
    assert "KIROSTREAM_SERVER_PORT" in settings[0][1]
    assert of(said, "data")
    assert not of(said, "accounts")


@pytest.mark.parametrize(("mode", "verdict"), [(0o755, "trouble"), (0o700, "ok")])
async def test_a_data_directory_that_others_can_read(tmp_path: Path, mode: int, verdict: str) -> None:
    data(tmp_path).chmod(mode)
    (tmp_path / "data" / "key").write_text("ks-key")
    (tmp_path / "data" / "key").chmod(mode & 0o666)
    said = await found(tmp_path)
    assert of(said, "data")[-1][0] == verdict
    assert of(said, "key")[-1][0] == verdict


async def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path)
    monkeypatch.setattr(checks, "LEAST_ROOM", 1 << 62)
    assert "free some space" in of(await found(tmp_path), "data")[0][1]


async def test_a_database_is_looked_through(tmp_path: Path) -> None:
    path = data(tmp_path) / DATABASE
    async with open_database(path):
        pass
    assert of(await found(tmp_path), "database")[0][0] == "ok"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    ((verdict, text),) = of(await found(tmp_path), "database")
    assert (verdict, "damaged" in text, "move it away" in text) == ("trouble", True, True)
    path.write_bytes(b"no database at all" * 300)
    assert of(await found(tmp_path), "database")[0][0] == "trouble"


async def test_the_address_is_free_or_taken_by_a_gateway_or_by_another(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]

        async def hang_up(stream: trio.SocketStream) -> None:
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        ((verdict, text),) = of(await found(tmp_path, {"KIROSTREAM_SERVER_PORT": str(port)}), "address")
        assert (verdict, "another program" in text) == ("trouble", True)
        nursery.cancel_scope.cancel()
    assert of(await found(tmp_path, {"KIROSTREAM_SERVER_PORT": str(port)}), "address")[0][1].endswith("is free")
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, port=0))
    async with open_gateway(settings, None, data_dir=tmp_path / "other", recorder=Recorder()) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        ((verdict, text),) = of(await found(tmp_path, {"KIROSTREAM_SERVER_PORT": str(port)}), "address")
        assert (verdict, "a gateway listens" in text) == ("ok", True)


async def test_an_account_and_its_service(tmp_path: Path) -> None:
    async with open_simulator(Settings(), Recorder()) as (_, url):
        env = {"REFRESH_TOKEN": TOKEN, "KIROSTREAM_KIRO_ENDPOINT": url, "KIROSTREAM_SERVER_PORT": "0"}
        said = await found(tmp_path, env)
        assert not [each for each in said if each.verdict == "trouble"]
        assert "renewed with the next turn" in of(said, "account")[0][1]
        assert "answers in" in of(said, "service")[0][1]
        assert not of(said, "clock")
        offline = await found(tmp_path, env, offline=True)
        assert of(offline, "service") == [("note", f"{url}: not asked (--offline)")]
    ((verdict, text),) = of(await found(tmp_path, env), "service")
    assert (verdict, "Cannot connect" in text) == ("trouble", True)
    assert TOKEN not in repr(said)


@pytest.mark.parametrize("away", [-3600.0, 3600.0])
async def test_a_clock_that_is_wrong(tmp_path: Path, away: float) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        date = formatdate(time.time() - away, usegmt=True)
        await stream.send_all(f"HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        said = await found(tmp_path, {"REFRESH_TOKEN": TOKEN, "KIROSTREAM_KIRO_ENDPOINT": url})
        nursery.cancel_scope.cancel()
    ((verdict, text),) = of(said, "clock")
    assert verdict == "trouble"
    assert ("ahead of" if away > 0 else "behind") in text


async def test_why_there_is_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "upstream.hub = false" in of(await found(tmp_path, {"KIROSTREAM_UPSTREAM_HUB": "false"}), "streams")[0][1]
    monkeypatch.setenv("KIROSTREAM_CORE", "python")
    ((verdict, text),) = of(await found(tmp_path), "streams")
    assert (verdict, "KIROSTREAM_CORE" in text) == ("note", True)
