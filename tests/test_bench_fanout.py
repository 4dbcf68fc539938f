"""The fan-out bench: it runs, keeps what it measured, and fails when a watcher has not everything.

The crowd is also the fan-out's end-to-end test: a gateway in a process of its own, watchers by SSE and by WebSocket
that all have every byte, and some that read nothing and are cut off.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import audience, fanout, fanout_crowd  # noqa: E402
from bench.wire import WrongAnswer  # noqa: E402


def options(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fanout.configure(parser)
    return parser.parse_args(list(more))


def test_the_figures_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    small = ["--sizes", "1,3", "--rounds", "1", "--deliveries", "15", "--crowd", "0"]
    assert fanout.run(options(*small, "--json", str(path))) == 0
    kept = json.loads(path.read_text())
    assert len(kept["results"]) == 2 * len(fanout.FANS)
    assert all(row["cpu_us"] > 0 < row["times"] for row in kept["results"])
    assert {row["times"] for row in kept["results"] if row["row"] == fanout.OURS} == {1.0}


def test_everybody_in_a_crowd_gets_everything_and_who_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    plan = fanout_crowd.Plan(watchers=25, stalled=2, seconds=1.0)
    (found,) = fanout_crowd.measure(plan, tmp_path, rounds=1)
    assert found["evicted"] == {"sse": 2, "websocket": 2}
    assert found["writes"]["sse"] <= 25 * (plan.tokens + 10)


def test_goals_are_judged_of_their_own_sizes() -> None:
    def row(name: str, watchers: int, *cpu: float) -> dict[str, object]:
        return {"way": "sse", "row": name, "watchers": watchers, "times": cpu[0] / 10, "all_cpu_us": cpu}

    rows = [row(fanout.OURS, 100, 10, 10), row(fanout.OURS, 1000, 10, 11), row(fanout.CHANNELS, 100, 29, 29)]
    assert [(goal["measured"], goal["met"]) for goal in fanout.judge(rows)] == [(2.9, False), (1.05, True)]
    assert not fanout.judge(rows[1:2])


def test_too_few_files_are_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "raise_limit", lambda wanted: 100)
    with pytest.raises(SystemExit, match=r"this process may have 100.*ulimit"):
        fanout.run(options("--no-save"))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def crowd(*streams: bytes) -> audience.Crowd:
    watchers = []
    for data in streams:
        watcher = audience.Watcher.__new__(audience.Watcher)
        watcher.data, watcher.under_way = bytearray(data), []
        watchers.append(watcher)
    return audience.Crowd("sse", watchers)


def test_what_is_missing_or_differs_is_found() -> None:
    whole = HEAD + chunk(b"w1@0 w2@0 ") + b"0\r\n\r\n"
    split = HEAD + chunk(b"w1@0 ") + chunk(b"w2@0 ") + b"0\r\n\r\n"
    assert crowd(whole, split).check(2)["writes"] == 3
    for wrong, words in (
        (HEAD + chunk(b"w1@0 ") + b"0\r\n\r\n", "1 tokens in place of 2"),
        (HEAD + chunk(b"w2@0 w1@0 ") + b"0\r\n\r\n", "not in order"),
        (HEAD + chunk(b"w1@0 w2@0.") + b"0\r\n\r\n", "2 different streams"),
        (b"HTTP/1.1 429 Slow down\r\n\r\n", "429"),
    ):
        with pytest.raises(WrongAnswer, match=words):
            crowd(whole, wrong).check(2)


def test_messages_of_a_socket_are_read_whatever_their_length() -> None:
    from kirostream.net.messages import text_frame

    said = [b"x" * size for size in (1, 200, 70_000)]
    frames = [text_frame(b'{"op":"events","data":[%b]}' % data) for data in said]
    stream = b"HTTP/1.1 101 Switching\r\n\r\n" + frames[0] + text_frame(b'{"op":"watching"}') + b"".join(frames[1:])
    assert list(audience.said_in("websocket", stream)) == said
