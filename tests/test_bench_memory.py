"""The memory bench runs, checks what arrives, and judges what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import memory  # noqa: E402
from bench.__main__ import main  # noqa: E402
from bench.memory import Client, asking, judge  # noqa: E402
from bench.wire import WrongAnswer  # noqa: E402

MIB = 1 << 20


def test_a_quick_run_has_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if sys.platform != "linux":
        pytest.skip("memory of another process is read from /proc")
    assert main(["memory", "--quick", "--json", str(tmp_path / "kept.json")]) == 0
    kept = json.loads((tmp_path / "kept.json").read_text())
    found = kept["results"]
    assert 0 < found["rest"] <= found["warm"] <= found["idle"]
    (live,) = found["live"]
    assert len(live["resident"]) == len(live["after"]) == 2
    assert [goal["goal"].partition(":")[0] for goal in kept["goals"]] == ["20 streams", "memory is given back"]
    assert "live streams (2)" in capsys.readouterr().out


def test_the_first_size_is_judged() -> None:
    found = {
        "rest": 40 * MIB,
        "live": [{"size": 0, "resident": [80 * MIB, 88 * MIB]}, {"size": 1, "resident": [200 * MIB]}],
    }
    stream, growth = judge(found, 1024)
    assert stream["measured"] == 40
    assert stream["met"]
    assert growth["met"]
    found["live"][0]["resident"] = [81 * MIB, 90 * MIB]  # type: ignore[index]
    assert [goal["met"] for goal in judge(found, 1024)] == [False, False]


def test_a_stream_that_is_not_whole_fails_the_run() -> None:
    client = object.__new__(Client)
    tokens = b"".join(b'data: {"text":"w%d@5 "}\n\n' % number for number in (1, 2, 3))
    client.data = bytearray(b"HTTP/1.1 200 OK\r\n\r\n" + tokens + memory.LAST)
    assert client.begun
    assert client.whole
    client.check(3)
    for wrong in (2, 4):
        with pytest.raises(WrongAnswer):
            client.check(wrong)


def test_a_conversation_has_the_size_that_is_asked_for() -> None:
    short, long = asking(3, 0, 0), asking(3, 0, 1 << 16)
    assert 1 << 16 < len(long) - len(short) < (1 << 16) + 200
