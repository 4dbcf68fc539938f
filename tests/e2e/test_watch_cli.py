"""`kirostream watch` as people and programs use it: processes, a pipe, a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.conftest import KEY, Running, clean_env
from kirostream.commands.watch import Lines, Words, table

RESUMABLE = {"x-kirostream-resumable": "true"}


def begin(url: str, said: str) -> str:
    """Start a turn that goes on by itself, and give its id."""
    body: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 10_000, "stream": True}
    body["messages"] = [{"role": "user", "content": said}]
    body["tools"] = [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}]
    headers = {"authorization": f"Bearer {KEY}", **RESUMABLE}
    with httpx.stream("POST", f"{url}/v1/messages", json=body, headers=headers, timeout=20) as response:
        return response.headers["x-kirostream-turn"]


def watch(tmp: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirostream", "watch", *arguments]
    done = subprocess.run(command, env=clean_env(tmp, **env), capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@contextmanager
def watching(tmp: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "kirostream", "watch", *arguments]
    with subprocess.Popen(command, env=clean_env(tmp, TERM="xterm", COLUMNS="160"), text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_turn_in_a_pipe_is_plain_text(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, '[[slow:10]][[think:Let me see]][[say:Grüße 日本]][[tool:look {"a":1}]]')
    done = watch(tmp_path, name[:12], "--url", gateway.url, "--key", KEY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '[thinking] Let me see\nGrüße 日本\n[call of look] {"a":1}\n'
    last = done.stderr.strip()
    assert last.startswith(f"{name}  anthropic  claude-sonnet-4-5 (claude-sonnet-4.5)  completed  ")
    assert re.search(r"\d+ tokens  \d+/s  \d+\.\d s  ", last)


def test_raw_events_from_a_place_on(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[tokens:20]]")
    to = ("--url", gateway.url, "--key", KEY)
    whole = [json.loads(line) for line in watch(tmp_path, name, "--json", *to).stdout.splitlines()]
    assert (whole[0]["type"], whole[-1]["type"]) == ("turn_started", "turn_ended")
    rest = watch(tmp_path, name, "--json", "--after", f"{name}.5.0", *to).stdout.splitlines()
    assert [json.loads(line) for line in rest] == whole[5:]
    chat = watch(tmp_path, name, "--dialect", "openai_chat", *to).stdout.splitlines()
    text = "".join(choice["delta"].get("content", "") for line in chat for choice in json.loads(line)["choices"])
    assert text.split() == [f"w{n}" for n in range(1, 21)]


def test_a_turn_that_fails_is_exit_1(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[cut:3]]")
    done = watch(tmp_path, name, "--url", gateway.url, "--key", KEY)
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert re.search(r"\n\[\w+\] .+\n$", done.stdout)


def test_what_cannot_be_watched_is_a_sentence_that_helps(gateway: Running, tmp_path: Path) -> None:
    to = ("--url", gateway.url, "--key", KEY)
    cases = [
        (("f" * 32, *to), 1, "no turn"),
        (("--all", "abc", *to), 2, "Say one"),
        (("--after", "x.1.1", *to), 2, "name it"),
        (("--url", gateway.url, "--key", "wrong"), 2, "--key"),
        (("--url", gateway.url), 2, "KIROSTREAM_KEY"),
        (("--url", "http://127.0.0.1:9", "--key", "k"), 1, "kirostream serve"),
        (("--url", "nonsense", "--key", "k"), 2, "http://127.0.0.1:8000"),
    ]
    for arguments, code, words in cases:
        done = watch(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert words in done.stderr
        assert done.stderr.startswith("kirostream: ")
    nobody = watch(tmp_path, "--key", "k", SERVER_PORT="9")  # not 8000: somebody may run a gateway there
    assert (nobody.returncode, "127.0.0.1:9" in nobody.stderr) == (1, True), nobody.stderr
    name = begin(gateway.url, "[[say:x]]")
    refused = watch(tmp_path, name, "--dialect", "klingon", *to)
    assert (refused.returncode, "it takes: anthropic" in refused.stderr) == (1, True)


def test_address_and_key_come_from_settings_and_the_key_file(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[say:found]]")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "key").write_text(f"{KEY}\n")
    done = watch(tmp_path, name, SERVER_PORT=gateway.url.rpartition(":")[2], SERVER_HOST="0.0.0.0")
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_turns_in_a_pipe_until_ctrl_c(gateway: Running, tmp_path: Path) -> None:
    with watching(tmp_path, "--url", gateway.url, "--key", KEY) as process:
        assert process.stdout is not None
        name = begin(gateway.url, "[[slow:20]][[tokens:100]]")
        for line in process.stdout:
            if line.startswith(name):
                break
        assert re.match(rf"{name}  anthropic  \S+ \(\S+\)  running  ~\d+ tokens", line), line
        for line in process.stdout:
            if line == f"{name}  over\n":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")
        assert "\x1b" not in out


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_turns_as_json_and_who_reads_no_more(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[slow:30]][[tokens:200]]")
    with watching(tmp_path, "--all", "--json", "--url", gateway.url, "--key", KEY) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen: list[dict[str, Any]] = []
        for line in process.stdout:
            turn = json.loads(line)
            if turn["id"] == name:
                seen.append(turn)
                if len(seen) == 3:
                    break
        assert seen[0]["tokens"] < seen[-1]["tokens"]
        assert seen[0]["seconds"] < seen[-1]["seconds"]
        assert (seen[0]["dialect"], seen[0]["answered_by"]) == ("anthropic", "claude-sonnet-4.5")
        assert seen[0]["account"]
        process.stdout.close()  # as `| head` does
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.skipif(os.name != "posix", reason="a terminal is a file here")
def test_a_table_in_a_terminal(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[slow:20]][[tokens:200]]")
    ours, theirs = os.openpty()
    with watching(tmp_path, "--url", gateway.url, "--key", KEY, stdout=theirs, stdin=theirs) as process:
        os.close(theirs)
        shown = until_shown(ours, lambda text: name[:8] in text and "/s" in text)
        for word in ("asked in", "anthropic", "running", "tokens", "account"):
            assert word in shown
        process.send_signal(signal.SIGINT)
        rest = until_shown(ours, lambda text: False)
        assert process.wait(10) == 130
        assert "\x1b[?25h" in rest  # the cursor is back
        assert process.stderr is not None
        assert process.stderr.read() == ""
    os.close(ours)


@pytest.mark.skipif(os.name != "posix", reason="a terminal is a file here")
def test_thoughts_are_dim_in_a_terminal(gateway: Running, tmp_path: Path) -> None:
    name = begin(gateway.url, "[[think:hm]][[say:well]]")
    ours, theirs = os.openpty()
    with watching(tmp_path, name, "--url", gateway.url, "--key", KEY, stdout=theirs) as process:
        os.close(theirs)
        shown = until_shown(ours, lambda text: False)
        assert process.wait(10) == 0
    os.close(ours)
    assert "\x1b[2mhm" in shown
    assert "\x1b[2mwell" not in shown
    assert "well" in shown


def until_shown(terminal: int, enough: Any) -> str:
    """What a terminal was sent, until that is enough or its program has ended."""
    shown = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not enough(shown.decode("utf-8", "replace")):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux says so when nobody has the other end
                break
            if not data:
                break
            shown += data
    return shown.decode("utf-8", "replace")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("arguments", [(), ("TURN",)])
def test_a_gateway_that_stops_ends_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0", "--key", KEY]
    env = clean_env(tmp_path, KIROSTREAM_SERVER_GRACE="0.3")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as serving:
        assert serving.stdout is not None
        url = next(found[0] for line in serving.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        name = begin(url, "[[slow:20]][[tokens:5000]]")
        named = [name if each == "TURN" else each for each in arguments]
        with watching(tmp_path, *named, "--url", url, "--key", KEY) as process:
            assert process.stdout is not None
            assert process.stdout.read(5)
            serving.send_signal(signal.SIGTERM)
            drained = threading.Thread(target=serving.stdout.read)
            drained.start()
            out, err = process.communicate(timeout=25)
            assert process.returncode == 1
            assert "Traceback" not in err
            assert "stopped" in out + err
        serving.wait(20)
        drained.join()


# What is shown, by itself


def turn(**more: Any) -> dict[str, Any]:
    return {
        "id": "0" * 32,
        "status": "in_progress",
        "model": "m",
        "answered_by": "m",
        "account": "a***@x",
        "dialect": "anthropic",
        "tokens": 10,
        "seconds": 2.0,
        **more,
    }


def test_what_a_model_says_cannot_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    words = Words(Console(highlight=False, markup=False, soft_wrap=True))
    words.say({"type": "block_started", "index": 0, "kind": "text"})
    words.say({"type": "block_delta", "index": 0, "pieces": ["a\x1b]0;title\x07", "\x9b31m\tb\n[bold]c[/bold]"]})
    words.say({"type": "block_started", "index": 1, "kind": "tool_call", "name": "x\x1b[2J"})
    words.end()
    assert capsys.readouterr().out == "a\ufffd]0;title\ufffd\ufffd31m\tb\n[bold]c[/bold]\n[call of x\ufffd[2J] \n"


def test_blocks_that_overlap_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    words = Words(Console(highlight=False, markup=False, soft_wrap=True))
    for index in (0, 1):
        words.say({"type": "block_started", "index": index, "kind": "tool_call", "name": f"n{index}"})
    for index in (0, 1, 0):
        words.say({"type": "block_delta", "index": index, "pieces": [str(index)]})
    words.say({"type": "block_started", "index": 2, "kind": "search"})
    words.say({"type": "block_delta", "index": 2, "pieces": ['{"query":"q"}']})
    words.say({"type": "block_started", "index": 3, "kind": "search_result", "outcome": {"hits": [{}, {}]}})
    words.say({"type": "block_started", "index": 4, "kind": "search_result", "outcome": {"hits": None}})
    words.say({"type": "block_started", "index": 5, "kind": "redacted", "data": "x"})
    words.say({"type": "turn_failed", "error": {"class": "UpstreamDown", "message": "gone"}})
    words.end()
    assert capsys.readouterr().out.splitlines() == [
        "[call of n0] ",
        "[call of n1] ",
        "0",
        "1",
        "0",
        '[web search] {"query":"q"}',
        "[2 results]",
        "[search failed]",
        "[a thought that the model does not show]",
        "[UpstreamDown] gone",
    ]


def test_the_table_has_pace_cost_and_fate() -> None:
    from rich.console import Console

    shown = table(
        [
            turn(seconds=4.0, tokens=110),
            turn(id="1" * 32, status="completed", credits=0.25, answered_by="n"),
            turn(id="2" * 32, status="failed", error={"type": "TurnCancelled", "message": "-"}, account=""),
        ],
        {"0" * 32: turn()},
    )
    columns = {str(column.header): [str(cell) for cell in column.cells] for column in shown.columns}
    assert columns["rate"] == ["50/s", "5/s", "5/s"]
    assert columns["credits"] == ["", "0.2500", ""]
    assert columns["state"] == ["running", "completed", "failed: TurnCancelled"]
    assert columns["model"] == ["m", "n", "m"]
    assert columns["tokens"] == ["~110", "10", "10"]
    assert columns["turn"] == ["00000000", "11111111", "22222222"]
    narrow = Console(width=80, file=io.StringIO(), legacy_windows=False)
    narrow.print(shown)
    assert isinstance(narrow.file, io.StringIO)
    rows = [line for line in narrow.file.getvalue().splitlines() if line.strip()][2:]
    for row, words in zip(rows, (("00000000", "~110", "50/s"), ("11111111", "0.2500"), ("22222222",)), strict=True):
        assert all(word in row for word in words)
    assert table([], {}).caption == "No turn is in flight."


def test_a_description_is_said_again_only_when_it_changed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(as_json=True)
    for now in (turn(), turn(seconds=3.0), turn(seconds=3.5, tokens=11)):
        lines.show([now])
    assert [json.loads(line)["tokens"] for line in capsys.readouterr().out.splitlines()] == [10, 11]
