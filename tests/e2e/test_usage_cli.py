"""`kirostream usage` beside a gateway that runs, as a person and a program use it."""

from __future__ import annotations

import csv
import io
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


def usage(tmp: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "kirostream", "usage", *arguments],
        env=clean_env(tmp, COLUMNS="160"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a gateway that has answered three times, once badly."""
    tmp = tmp_path_factory.mktemp("usage")
    with (
        (tmp / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0"],
            env=clean_env(tmp, PROXY_API_KEY=KEY, KIROSTREAM_RELAY_FAILOVER_ATTEMPTS="1"),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        try:
            for said in ("[[say:one two three]]", "[[say:four]]", "[[error:CONTEXT]]"):
                body = {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": [{"role": "user", "content": said}]}
                httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=20)
            yield tmp
        finally:
            process.kill()


def all_turns(tmp: Path) -> list[dict[str, object]]:
    """They are there within the interval."""
    for _ in range(100):
        turns: list[dict[str, object]] = json.loads(usage(tmp, "--turns", "--json").stdout)
        if len(turns) == 3:
            return turns
        time.sleep(0.1)
    raise AssertionError(turns)


def test_what_turns_cost(used: Path) -> None:
    turns = all_turns(used)
    assert [turn["outcome"] for turn in turns] == ["end", "end", "failed"]
    assert turns[2]["error"] == "ContextOverflow"
    first = turns[0]
    assert (first["key"], first["dialect"], first["model_asked"]) == ("default", "anthropic", "claude-sonnet-4-5")
    assert first["account"] != ""
    assert first["account_label"] != ""
    for by, name in (("key", "default"), ("model", "claude-sonnet-4.5"), ("account", first["account"])):
        (share,) = json.loads(usage(used, "--by", by, "--json").stdout)
        assert share["name"] == name
        assert (share["totals"]["turns"], share["totals"]["failed"]) == (3, 1)
    shown = usage(used, "--by", "account").stdout
    assert str(first["account_label"]) in shown
    assert "tokens/s" in shown
    (row,) = csv.DictReader(io.StringIO(usage(used, "--csv").stdout))
    assert row["turns"] == "3"
    assert len(list(csv.DictReader(io.StringIO(usage(used, "--turns", "--csv").stdout)))) == 3
    assert "ContextOverflow" in usage(used, "--turns").stdout
    assert len(json.loads(usage(used, "--turns", "--json", "--only", "key=default").stdout)) == 3
    assert usage(used, "--since", "2999-01-01").stdout == "No turns.\n"
    assert json.loads(usage(used, "--turns", "--json", "--only", "model=none").stdout) == []


def test_what_cannot_be_shown(used: Path, tmp_path: Path) -> None:
    nothing = usage(tmp_path)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "no gateway has run" in nothing.stderr
    assert not (tmp_path / "data").exists()
    both = usage(used, "--json", "--csv")
    assert both.returncode == 2
    assert "Say one" in both.stderr
    wrong = usage(used, "--only", "laptop")
    assert wrong.returncode == 2
    assert "key=NAME" in wrong.stderr
    never = usage(used, "--since", "soon")
    assert never.returncode == 2
    assert "no time" in never.stderr
