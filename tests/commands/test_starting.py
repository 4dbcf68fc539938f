"""What the command line reads without typer is what typer would have read."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kirostream import starting
from kirostream.commands import serve as declared
from kirostream.commands.app import app

USUAL = (
    "serve",
    "serve --demo",
    "serve --demo --port 0",
    "serve --port 8001 --host ::1 --key some-key --log-level debug --config /etc/k.toml",
    "serve --port 1 --port 2 --demo --demo",
    "serve --key 'with spaces and ünïcode'",
)
FOR_TYPER = (
    "",
    "version",
    "simulate --port 0",
    "--help",
    "serve --help",
    "serve --port=8001",
    "serve --port",
    "serve --port eighty",
    "serve --port -1",
    "serve --port ٣",
    "serve --key ''",
    "serve --dem",
    "serve --no-demo",
    "serve -h",
    "serve somewhere",
    "serve -- --demo",
    "serve --key --demo",
)


@pytest.mark.parametrize("words", USUAL)
def test_the_usual_form_is_read_as_typer_reads_it(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[dict[str, Any]] = []
    monkeypatch.setattr(declared, "run_serve", lambda **asked: read.append(asked))
    done = CliRunner().invoke(app, shlex.split(words))
    assert done.exit_code == 0, done.output
    asked = starting.usual(shlex.split(words))
    nothing = {"host": None, "port": None, "key": None, "config": None, "log_level": None, "demo": False}
    assert asked is not None
    assert {**nothing, **asked} == read[0]


@pytest.mark.parametrize("words", FOR_TYPER)
def test_everything_else_is_for_typer(words: str) -> None:
    assert starting.usual(shlex.split(words)) is None


def test_every_option_of_serve_is_known() -> None:
    import typer

    command: Any = typer.main.get_command(app)
    options = {word for each in command.commands["serve"].params for word in each.opts} - {"--help"}
    values = {"--port": "1"}
    for option in options:
        assert starting.usual(["serve", option, *([] if option == "--demo" else [values.get(option, "x")])]), option


def test_a_refusal_is_the_same_either_way(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    said = [
        subprocess.run(
            [sys.executable, "-m", "kirostream", "serve", *config],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        for config in (["--config", missing], [f"--config={missing}"])
    ]
    assert {each.returncode for each in said} == {2}
    assert said[0].stderr == said[1].stderr
    assert missing in said[0].stderr
