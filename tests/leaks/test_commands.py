"""Every command, run on accounts and settings that bear marks: what it prints has none, nor have its arguments."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import typer.main

from e2e.conftest import clean_env
from kirostream import cli
from kirostream.commands.app import app
from kirostream.errors import SettingsError
from kirostream.settings import Settings, load
from kirostream.simulator import upstream as simulator_upstream
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator

from . import sinks
from .plants import MARK, SAID, Place, imports, mark_what_is_issued, secret, shows
from .test_gateway import PROMPT, body

COMMANDS: dict[str, list[list[str]]] = {
    "version": [[]],
    "accounts list": [[], ["--json"]],
    "accounts show": [["{id}"], ["{id}", "--json"], ["none"]],
    "accounts usage": [[], ["--json"], ["{id}"]],
    "accounts refresh": [[], ["{id}"]],
    "accounts test": [[], ["{id}"]],
    "accounts subscribe": [["{id}"], ["{id}", "--plan", "kiro_pro"]],
    "accounts disable": [["{id}"]],
    "accounts enable": [["{id}"]],
    "accounts reset": [["{id}"]],
    "accounts add": [
        ["--creds-file", "{home}/theirs.json"],
        ["--creds-file", "{home}/broken.json"],
        ["--cli-db", "{home}/broken.json"],
        ["--refresh-token"],
        ["--api-key"],
    ],
    "accounts import": [[f"{{home}}/{name}"] for name in (*sorted(imports(Simulator())), "broken.json")]
    + [["{home}/broken.json", "--format", "kiro-rs"], ["{home}/kiro-rs", "--json"]],
    "accounts export": [["{home}/out.json", "--format", "kiro-rs"], ["{home}/out.json", "--format", "env"]],
    "accounts sync": [["{home}/.env", "--format", "env"], ["{home}/out.json"], ["{home}/kiro-go", "--dry-run"]],
    "accounts remove": [["{id}"]],
    "captures list": [[], ["--json"]],
    "captures show": [["none"]],
    "captures export": [["-"], ["{home}/captures.json"], ["-", "--forms"]],
    "captures clear": [[]],
    "doctor": [[], ["--json"], ["--offline"]],
    "admin password": [[], ["--remove"]],
    "login": [[], ["--social", "facebook"]],
    "serve": [["--port", "nonsense"]],
    "logs": [[], ["--json"], ["--since", "1h", "--level", "debug"], ["--grep", "token"], ["--level", "loud"]],
    "keys add": [["ci", "--requests", "60"], ["ci"], ["default"]],
    "keys list": [[], ["--json"]],
    "keys set": [["ci", "--disable"], ["ci", "--json"], ["nobody"]],
    "keys rotate": [["ci", "--keep", "1h", "--json"]],
    "keys remove": [["ci"], ["ci"]],
    "settings show": [[], ["server.key"], ["--json"]],
    "settings explain": [["server.key"], ["server.keys"]],
    "settings check": [[]],
    "settings docs": [[]],
    "settings set": [["server.grace", "5"], ["guests.key"], ["server.grace", "long"]],
    "report": [["-"], ["{home}/report.json"]],
    "simulate": [["--port", "nonsense"]],
    "usage": [[], ["--by", "account"], ["--turns"], ["--turns", "--json"], ["--json"], ["--csv"], ["--only", "key=x"]],
    "watch": [["--url", "http://127.0.0.1:9"], ["0123", "--json", "--url", "http://127.0.0.1:9"]],
}
"""How each command is called. Signing in is in `test_logins`, serving below."""


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The commands that do something, by their whole name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for each, sub in command.commands.items():
        yield from leaves(sub, f"{name} {each}".strip())


COMMAND: Any = typer.main.get_command(app)


def test_every_command_is_here() -> None:
    assert {name for name, _ in leaves(COMMAND)} == set(COMMANDS)


def test_no_option_takes_a_secret_but_the_key() -> None:
    """What stands on a command line, every user of the machine sees."""
    named = re.compile("token|secret|password|key|code|proxy")
    found = [
        f"{name} {option.name}"
        for name, command in leaves(COMMAND)
        for option in command.params
        if named.search(option.name) and repr(option.type) == "STRING"
    ]
    assert found == ["serve key", "watch key"]
    for command in ("serve", "watch"):
        (key,) = [each for each in COMMAND.commands[command].params if each.name == "key"]
        assert "PROXY_API_KEY" in key.help


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Simulator, dict[str, str]]]:
    """A simulator in a thread, all of whose tokens bear the mark, and the variables that lead to it."""
    mark_what_is_issued(monkeypatch)
    here: list[Any] = []
    ready = threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            here.extend(await nursery.start(simulator_upstream.serve, SimulatorSettings(rotate=True)))
            here.extend([trio.lowlevel.current_trio_token(), nursery.cancel_scope])
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10)
    simulator, url, token, scope = here
    names = ("KIRO_ENDPOINT", "KEEPER_HOSTS_SOCIAL", "KEEPER_HOSTS_OIDC", "KEEPER_HOSTS_PORTAL")
    yield simulator, {f"KIROSTREAM_{name}": url for name in names}
    trio.from_thread.run_sync(scope.cancel, trio_token=token)
    thread.join(10)


def run(arguments: list[str], given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command here, and give all that it says."""
    reading, writing = os.pipe()
    os.write(writing, given.encode())
    os.close(writing)
    monkeypatch.setattr(sys, "argv", ["kirostream", *arguments])
    with os.fdopen(reading) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit):
            cli.main()
    return "".join(capsys.readouterr())


@pytest.mark.timeout(200)
def test_no_command_shows_a_secret(
    tmp_path: Path,
    upstream: tuple[Simulator, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulator, where = upstream
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name not in clean_env(tmp_path):
            monkeypatch.delenv(name)
    for name, value in clean_env(home, **where, PROXY_API_KEY=secret("ks-")).items():
        monkeypatch.setenv(name, value)
    at = Place(home, simulator, "theirs")
    at.write("theirs.json", at.social())
    (home / "broken.json").write_text(f'[{{"refreshToken":"{secret("aor")}" oops')
    for name, text in imports(simulator).items():
        (home / name).write_text(text)
    said: dict[str, str] = {}
    for name in imports(simulator):
        said[f"import {name}"] = run(
            ["accounts", "import", str(home / name), "--format", name], "", monkeypatch, capsys
        )
    account = json.loads((home / "data/accounts.json").read_text())["accounts"][0]["id"]
    for settings in ({}, {"VPN_PROXY_URL": f"http://person:{secret('pw')}@127.0.0.1:9"}):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for command, ways in COMMANDS.items():
            for way in (["--help"], *ways):
                if settings and command not in ("accounts usage", "accounts refresh", "accounts test", "accounts list"):
                    continue
                arguments = [part.format(id=account, home=home) for part in way]
                given = secret("ksk_" if "--api-key" in way else "aor", "typed")
                said[f"{command} {way} {[*settings]}"] = run([*command.split(), *arguments], given, monkeypatch, capsys)
    leaks = [f"{which}: {found}" for which, text in said.items() if (found := shows(text))]
    assert not leaks, "\n".join(leaks)
    assert "works: " in said["accounts test [] []"]
    assert "Known already" in said["accounts add ['--refresh-token'] []"] + "Known already"
    assert (home / "out.json").read_text().count(MARK) > 100, "there was something to show"
    list(sinks.files(home / "data"))
    leaks = [f"{which}: {found}" for which, held in sinks.files(home / "data") if (found := shows(held))]
    assert not leaks, "\n".join(leaks)


def test_a_gateway_says_nothing_at_debug_level(tmp_path: Path, upstream: tuple[Simulator, dict[str, str]]) -> None:
    """A real process: its output, its log with everything in it, and what `ps` shows of it."""
    simulator, where = upstream
    at = Place(tmp_path, simulator, "served")
    key = secret("ks-", "served")
    env = clean_env(
        tmp_path,
        **where,
        PROXY_API_KEY=key,
        REFRESH_TOKEN=at.credential().refresh_token.reveal(),
        LOG_LEVEL="debug",
        KIROSTREAM_SERVER_KEY_IN_QUERY="true",
    )
    command = [sys.executable, "-m", "kirostream", "serve", "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        try:
            url = ""
            for _ in range(500):
                if found := re.search(r"listens on (http://\S+)", log.read_text()):
                    url = found[1]
                    break
                time.sleep(0.02)
            assert url, log.read_text()
            for said in (PROMPT, f"[[error:CONTEXT]]{PROMPT}", f"[[cut:1]]{PROMPT}"):
                asked = urllib.request.Request(
                    f"{url}/v1/messages?key={key}", body("anthropic", said, True), {"content-type": "application/json"}
                )
                with contextlib.nullcontext() if said == PROMPT else contextlib.suppress(OSError):
                    urllib.request.urlopen(asked).read()
            shown = subprocess.run(["ps", "-o", "args=", "-p", str(process.pid)], capture_output=True, check=False)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    written = log.read_text()
    assert '"event":"exchange finished"' in written, "the log has everything in it"
    assert '"event":"token refreshed"' in written
    for mark in (MARK, SAID):
        assert not shows(written, mark)
        assert not shows(shown.stdout, mark)


def settings_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every setting that says it is secret."""
    for each in fields(kind):
        if is_dataclass(each.default_factory):
            yield from settings_of(each.default_factory, f"{prefix}{each.name}.")
        elif each.metadata.get("secret"):
            assert not each.repr, f"{prefix}{each.name} is shown"
            yield f"{prefix}{each.name}"


def test_a_secret_setting_is_not_quoted(tmp_path: Path) -> None:
    """Of the wrong type, in the file or in the environment, or with a key that is none."""
    names = list(settings_of(Settings))
    assert {"server.key", "account.refresh_token", "account.api_key", "upstream.proxy", "pool.accounts"} <= set(names)
    path = tmp_path / "kirostream.toml"
    for name in names:
        section, _, key = name.rpartition(".")
        for value in (f'["{secret("")}"]', f'"{secret("")}', f'{{ a = {{ proxy = ["{secret("http://a:")}@b"] }} }}'):
            path.write_text(f"[{section}]\n{key} = {value}\n")
            with pytest.raises(SettingsError) as raised:
                load({}, path=path)
            assert not shows(repr(raised.value)), name
        try:
            load({f"KIROSTREAM_{name.upper().replace('.', '_')}": f"nonsense = [{secret('')}"})
        except SettingsError as error:
            assert not shows(repr(error)), name  # noqa: PT017
