"""A gateway that runs goes by other settings: which of them act, on what, and what a bad file does."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from e2e.test_cli import start, stop
from kirostream.app import Gateway, open_gateway
from kirostream.errors import SettingsError
from kirostream.gateway.attach import Attachments
from kirostream.gateway.sse import Heartbeats
from kirostream.net.http1 import DEFAULTS
from kirostream.settings import Leaf, Settings, Sources, leaves, load, value_of
from kirostream.settings_file import Change, SettingsEditor
from kirostream.steering import Steering
from kirostream.telemetry.facts import Fact, Faulted, SettingsRefused, SettingsReloaded
from kirostream.telemetry.log import LogSettings, LogSink
from kirostream.telemetry.recorder import Recorder

WORDS = {
    "admin.password": "correct horse battery",
    "relay.captures.mode": "errors",
    "log.level": "warning",
    "relay.filters.thinking_handling": "remove",
    "relay.filters.agentic": "off",
    "pool.selected": "",
}


def other(leaf: Leaf) -> object:
    """A value that is not the default."""
    match leaf.default:
        case bool():
            return not leaf.default
        case int() | float():
            return type(leaf.default)(leaf.default + 1)
        case str():
            return WORDS[leaf.name]
    return {"*": {"weight": 5.0}} if leaf.name == "pool.accounts" else {"a": ["b"] if "fallb" in leaf.name else "b"}


class Place:
    """A gateway with the simulator behind it, and its settings file."""

    gateway: Gateway
    client: httpx.AsyncClient

    def __init__(self, folder: Path) -> None:
        self.env = {"KIROSTREAM_CONFIG_DIR": str(folder)}
        self.file = folder / "kirostream.toml"
        self.facts: list[Fact] = []

    async def reload(self, text: str) -> None:
        self.file.write_text(text)
        await self.gateway.steering.reload()

    async def ask(self, said: str, **more: object) -> httpx.Response:
        body = {"model": "auto", "messages": [{"role": "user", "content": said}], **more}
        return await self.client.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def place(folder: Path, **arguments: object) -> AsyncIterator[Place]:
    on = Place(folder)
    given = {"server.port": 0, "server.key": "k", **arguments}
    settings, recorder = load(on.env, arguments=given), Recorder(lambda fact: on.facts.append(fact))
    sources = Sources(on.env, None, given)
    with trio.fail_after(30):
        async with (
            open_gateway(settings, None, data_dir=folder / "data", recorder=recorder, sources=sources) as on.gateway,
            httpx.AsyncClient(base_url=on.gateway.url, headers={"x-api-key": "k"}, timeout=20) as on.client,
        ):
            yield on
    assert [fact for fact in on.facts if isinstance(fact, Faulted)] == []


async def test_a_change_acts_on_the_next_request(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        assert (await on.ask("hi", n=2)).status_code == 200
        await on.reload("[server]\nmost_choices = 1\nport = 77\n[relay.models.aliases]\nfast = 'claude-haiku-4.5'\n")
        assert on.facts[-1] == SettingsReloaded(now="server.most_choices, relay.models.aliases", waiting="")
        refused = await on.ask("hi", n=2)
        assert (refused.status_code, "server.most_choices" in refused.text) == (400, True)
        models = (await on.client.get("/v1/models")).json()["data"]
        assert "fast" in [model["id"] for model in models]
        await on.reload("[server]\nbody_limit = 10\n")
        assert (await on.ask("hi")).status_code == 413
        await on.reload("")
        assert (await on.ask("hi")).status_code == 200


async def test_what_waits_for_a_restart_is_named(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.reload("[server]\nmemory = 1\nhost = '127.0.0.9'\ngrace = 1\n")
        assert on.facts[-1] == SettingsReloaded(now="server.grace", waiting="server.host, server.memory")
        now = on.gateway.steering.now.server
        assert (now.host, now.memory, now.grace) == ("127.0.0.1", 32 << 20, 1.0)
        await on.reload("[server]\nmemory = 1\n")
        assert on.facts[-1] == SettingsReloaded(now="server.grace", waiting="server.memory")


async def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.reload("[server]\nmost_choices = 1\n")
        before = on.gateway.steering.now
        for text, said in [
            ("[server]\nmost_choices = 'x'\n", "line 2 says 'x'"),
            ("[server]\nmost_choises = 3\nbody_limit = 1\n", "line 2. Did you mean 'server.most_choices'?"),
            ("[server\n", "not valid TOML"),
        ]:
            await on.reload(text)
            told = on.facts[-1]
            assert isinstance(told, SettingsRefused)
            assert said in told.message
            assert on.gateway.steering.now is before
        on.file.unlink()
        await on.gateway.steering.reload()
        assert on.facts[-1] == SettingsReloaded(now="server.most_choices", waiting="")


async def test_a_file_that_is_broken_before_anybody_looks(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        on.file.write_text("[server\n")
        editor = on.gateway.steering.editor
        assert editor.one("server.grace").value == 30.0
        with pytest.raises(SettingsError, match="not valid TOML"):
            await editor.set("server.grace", 1)
        with pytest.raises(SettingsError, match="not valid TOML"):
            await editor.reload()


async def test_a_change_from_the_panel_acts_and_is_kept(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        editor = on.gateway.steering.editor
        assert await editor.set("server.most_choices", "1") == Change("server.most_choices", "now")
        assert (await on.ask("hi", n=2)).status_code == 400
        assert load(on.env).server.most_choices == 1
        assert await editor.set("server.port", 8001) == Change("server.port", "never", "the command line")
        assert await editor.set("server.host", "127.0.0.1") == Change("server.host", "restart")
        assert stat.S_IMODE(on.file.stat().st_mode) == 0o600


async def test_the_simulator_stays_behind_a_demo(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.reload("[keeper]\nsweep = 7\n[pool.accounts.'*']\nconcurrency = 3\n")
        assert on.gateway.steering.now.kiro.endpoint.startswith("http://127.0.0.1:")
        assert (await on.ask("hi")).status_code == 200
        (account,) = on.gateway.pool.snapshot().accounts
        assert account.terms.concurrency == 3


def rooms(after: set[int]) -> Iterator[tuple[str, str, Any]]:
    """Every attribute of ours, of objects that were made since, that holds settings."""
    for each in gc.get_objects():
        kind = type(each)
        if id(each) in after or not str(kind.__module__).startswith("kirostream.") or dataclasses.is_dataclass(each):
            continue
        if isinstance(each, Steering | SettingsEditor):
            continue
        for name, value in getattr(each, "__dict__", {}).items():
            if dataclasses.is_dataclass(value) and type(value).__name__.endswith(("Settings", "Deadlines")):
                yield from ((kind.__qualname__, name, inner) for inner in with_sections(value))


def with_sections(value: Any) -> Iterator[Any]:
    yield value
    for each in dataclasses.fields(value):
        if dataclasses.is_dataclass(inner := getattr(value, each.name)):
            yield from with_sections(inner)


def sections() -> dict[type, list[tuple[str, str]]]:
    """The live settings of each section: names of fields, and dotted ones."""
    found: dict[type, list[tuple[str, str]]] = {}
    for leaf in leaves():
        if leaf.live:
            section, _, name = leaf.name.rpartition(".")
            found.setdefault(type(value_of(Settings(), section)), []).append((name, leaf.name))
    return found


async def test_no_room_keeps_a_live_setting_that_has_changed(tmp_path: Path) -> None:
    """All of them are changed at once; then nothing of the gateway may hold an old one."""
    live = [leaf for leaf in leaves() if leaf.live]
    assert len(live) > 90
    gc.collect()
    before = {id(each) for each in gc.get_objects()}
    guests = {"guests.key": "ks-front"}
    async with place(tmp_path, **guests) as on:
        assert (await on.ask("hi")).status_code == 200
        assert (await on.client.get("/admin/api/status", headers={"x-api-key": on.gateway.key})).status_code == 200
        editor = on.gateway.steering.editor
        for leaf in live:
            if (value := other(leaf)) != leaf.default:
                assert (await editor.set(leaf.name, value)).acts == "now", leaf.name
        assert (await on.ask("hi")).status_code in (200, 502, 503, 504)
        await on.client.aclose()
        known = sections()
        held: set[str] = set()
        for where, name, value in rooms(before):
            if where == "_Connection" or value is DEFAULTS:  # it goes by what it began with; the simulator's door
                continue
            for field, leaf_name in known.get(type(value), ()):
                held.add(leaf_name)
                if (where, field, getattr(value, field)) == ("TokenKeeper", "sweep", 0.0):  # that of guests
                    continue
                assert getattr(value, field) == value_of(on.gateway.steering.now, leaf_name), (where, name, leaf_name)
        beats = [each.interval for each in gc.get_objects() if isinstance(each, Heartbeats) and id(each) not in before]
        joins = [each.coalesce for each in gc.get_objects() if isinstance(each, Attachments) and id(each) not in before]
        assert (beats, set(joins)) == ([11.0], {True})
    assert {leaf.name for leaf in live} - held <= {"log.level"}


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGHUP")
def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "config" / "kirostream.toml"
    file.parent.mkdir()
    process, url, _ = start(tmp_path, "serve", "--demo", "--port", "0", "--key", "k")
    asked = {"model": "auto", "n": 2, "messages": [{"role": "user", "content": "hi"}]}

    def ask() -> int:
        return httpx.post(f"{url}/v1/chat/completions", headers={"x-api-key": "k"}, json=asked, timeout=20).status_code

    try:
        assert ask() == 200
        file.write_text("[server]\nmost_choices = 1\n")
        process.send_signal(signal.SIGHUP)
        assert any(ask() == 400 for _ in range(100))
        file.write_text("[server]\nmost_choices = 2\nprot = 1\n")
        process.send_signal(signal.SIGHUP)
        assert [ask() for _ in range(3)] == [400, 400, 400]
    finally:
        assert stop(process) == 0


def test_the_level_of_the_log() -> None:
    out = io.StringIO()
    log = LogSink(LogSettings(level="error", format="json"), out)
    log(SettingsReloaded(now="", waiting=""))
    assert out.getvalue() == ""
    log.adopt(LogSettings(level="info", format="json"))
    log(SettingsReloaded(now="log.level", waiting=""))
    assert '"now":"log.level"' in out.getvalue()
