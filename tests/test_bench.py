"""The end-to-end bench: it runs, it writes what it measured, and it fails when an answer is not right."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import frames

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import client, endtoend  # noqa: E402
from bench.wire import Arrival, Read, Script, WrongAnswer, is_whole, read_answer  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: x\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
STAMPED = Script(3, pause=1, stamped=True)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def anthropic(*texts: str, end: str = "message_stop") -> bytes:
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts]
    events: list[dict[str, object]] = [{"type": "message_start"}, *deltas]
    events += [{"type": end, "error": "because"}] if end else []
    return b"".join(chunk(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode()) for e in events)


def openai(*texts: str, end: str = "data: [DONE]\n\n") -> bytes:
    chunks: list[dict[str, object]] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"delta": {"content": text}}]} for text in texts]
    said = [f"data: {json.dumps(each)}\n\n" for each in [*chunks, {"choices": []}]]
    return b"".join(chunk(each.encode()) for each in [*said, *([end] if end else [])])


def kiro(*texts: str) -> bytes:
    said = [frames.event("assistantResponseEvent", json.dumps({"content": text}).encode()) for text in texts]
    return b"".join(chunk(frame) for frame in [*said, frames.event("meteringEvent", b'{"usage":1}')])


WRITERS: dict[str, Callable[..., bytes]] = {"anthropic": anthropic, "openai": openai, "kiro": kiro}


def texts(answer: bytes, dialect: str, step: int = 0) -> list[str]:
    step = step or len(answer)
    reads = [Read(at, answer[at : at + step]) for at in range(0, len(answer), step)]
    return [arrival.text for arrival in read_answer(reads, dialect)]


@pytest.mark.parametrize("dialect", WRITERS)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_answers_are_read_however_they_are_cut(dialect: str, step: int) -> None:
    answer = HEAD + WRITERS[dialect]("a", "b\n", "ü") + LAST
    assert texts(answer, dialect, step) == ["a", "b\n", "ü"]
    assert is_whole(answer)


@pytest.mark.parametrize("dialect", WRITERS)
def test_an_answer_that_breaks_off_is_wrong(dialect: str) -> None:
    answer = HEAD + WRITERS[dialect]("a", "b") + LAST
    for size in range(1, len(answer)):
        assert not is_whole(answer[:size])
        with pytest.raises(WrongAnswer, match="breaks off"):
            texts(answer[:size], dialect)


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        ("anthropic", b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno"),
        ("anthropic", HEAD.replace(b"transfer-encoding: chunked", b"content-length: 10000")),
        ("anthropic", HEAD + anthropic("a", end="") + LAST),
        ("anthropic", HEAD + anthropic("a", end="error") + LAST),
        ("openai", HEAD + openai("a", end="") + LAST),
        ("openai", HEAD + openai("a", end='data: {"error": "because"}\n\n') + LAST),
        ("kiro", HEAD + chunk(frames.event("assistantResponseEvent", b'{"content":"a"}')[:-1]) + LAST),
        ("kiro", HEAD + chunk(frames.event("assistantResponseEvent", b'{"content":"a"}')[:-1] + b"\0") + LAST),
    ],
)
def test_what_is_refused_or_has_no_end_is_wrong(dialect: str, answer: bytes) -> None:
    with pytest.raises(WrongAnswer):
        texts(answer, dialect)


def arrivals(*said: str, at: int = 1000) -> list[Arrival]:
    return [Arrival(at, text) for text in said]


def test_the_time_under_way_is_taken_from_the_stamp() -> None:
    assert STAMPED.check(arrivals("w1@900 ", "w2@950 ", "w3@999 ")) == [100, 50, 1]


@pytest.mark.parametrize(
    "said",
    [
        ("w1@900 ", "w2@950 "),
        ("w1@900 ", "w2@950 ", "w3@999 ", "w4@999 "),
        ("w1@900 ", "w1@900 ", "w3@999 "),
        ("w1@900 ", "w3@999 ", "w2@950 "),
        ("w1@900 ", "w2@950 w3@999 ", "w3@999 "),
        ("w1@900 ", "w2@950", "w3@999 "),
        ("w1@900 ", "w2@950 ", "w3@1001 "),
    ],
    ids=["short", "long", "doubled", "out of order", "merged", "cut", "from the future"],
)
def test_a_wrong_token_is_found(said: tuple[str, ...]) -> None:
    with pytest.raises(WrongAnswer):
        STAMPED.check(arrivals(*said))


def test_text_is_checked_piece_by_piece() -> None:
    script = Script(12)
    assert script.tokens == len(script.pieces)
    assert "".join(script.pieces) == "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12"
    assert script.check(arrivals(*script.pieces)) == []
    for at in range(script.tokens):
        wrong = [*script.pieces]
        wrong[at] += "!"
        with pytest.raises(WrongAnswer, match=f"token {at + 1} "):
            script.check(arrivals(*wrong))
    with pytest.raises(WrongAnswer, match="in place of"):
        script.check(arrivals(*script.pieces[:-1]))


@contextmanager
def server(answer: Callable[[int], bytes], connections: int) -> Iterator[tuple[str, int]]:
    """A server that answers each connection's request at once, the n-th with `answer(n)`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        accepted = [listener.accept()[0] for _ in range(connections)]
        for number, sock in enumerate(accepted):
            sock.recv(65536)
            sock.sendall(answer(number))
        for sock in accepted:
            sock.recv(1)
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        thread.join(10)
        listener.close()


def crowd(answer: Callable[[int], bytes], script: Script) -> dict[str, object]:
    with server(answer, 3) as address:
        return client.crowd(
            address, b"GET", "anthropic", script, starts=[0.0] * 3, window=None, deadline=10.0, watched={}
        )


def stamped(count: int) -> bytes:
    said = (f"w{number}@{time.monotonic_ns()} " for number in range(1, count + 1))
    return HEAD + anthropic(*said) + LAST


def test_a_crowd_is_counted() -> None:
    found = crowd(lambda number: stamped(5), Script(5, stamped=True))
    assert found["tokens"] == 15


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: stamped(4), "stream 2 of 3: 4 tokens in place of 5"),
        (lambda: stamped(5)[:-5], "not whole"),
        (lambda: b"HTTP/1.1 429 Slow down\r\n\r\n", "stream 2 of 3: HTTP/1.1 429 Slow down"),
    ],
)
def test_one_wrong_stream_fails_the_crowd(wrong: Callable[[], bytes], words: str) -> None:
    with (
        server(lambda number: wrong() if number == 1 else stamped(5), 3) as address,
        pytest.raises(WrongAnswer, match=words),
    ):
        client.crowd(
            address,
            b"GET",
            "anthropic",
            Script(5, stamped=True),
            starts=[0.0] * 3,
            window=None,
            deadline=1.0 if words == "not whole" else 30.0,
            watched={},
        )


TINY = ["--paced", "2x100", "--unpaced", "2", "--seconds", "0.2", "--rounds", "1", "--words", "20", "--requests", "3"]
TINY += ["--starts", "1", "--cancels", "1", "--settle", "0.1"]


def test_a_run_writes_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "endtoend", *TINY, "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    figures = json.loads(path.read_text())
    assert figures["settings"]["paced"] == "2x100"
    assert figures["versions"]["hypercorn"]
    for row in endtoend.ROWS:
        found = figures["results"]["paced"]["2x100"][row.name]
        assert found["tokens_per_second"] > 0
        assert found["p99_us"] >= found["p50_us"] > 0
        assert figures["results"]["unpaced"]["2"][row.name]["tokens_per_second"] > 0
        assert figures["results"]["short"][row.name]["first_token_ms"] > 0
        assert row.name in done.stdout
    for name in endtoend.GATEWAYS:
        assert figures["results"]["start"][name]["ready_ms"] > 0
        for when in ("streaming", "silent"):
            assert figures["results"]["cancel"][name][when]["max_ms"] > 0


def test_a_run_with_a_wrong_answer_fails_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endtoend, "ROWS", (endtoend.ROWS[0], replace(endtoend.ROWS[1], path="/v1/nothing")))
    parser = argparse.ArgumentParser()
    endtoend.configure(parser)
    path = tmp_path / "figures.json"
    assert endtoend.run(parser.parse_args([*TINY, "--json", str(path)])) == 1
    assert "kirostream, messages, one_by_one" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("crowds", ["8", "x50", "8x0", "0x5", "8x50x2", "8x50,"])
def test_a_paced_crowd_needs_streams_and_a_pace(crowds: str) -> None:
    with pytest.raises(ValueError):
        endtoend.Crowd.paced(crowds)


def test_crowds_are_named_as_they_are_given() -> None:
    assert ",".join(map(str, endtoend.Crowd.paced("1x50,128x20"))) == "1x50,128x20"
    assert ",".join(map(str, endtoend.Crowd.unpaced("1,128"))) == "1,128"
    with pytest.raises(ValueError):
        endtoend.Crowd.unpaced("8x50")


def test_a_figure_that_is_missing_meets_no_goal() -> None:
    cancels = {"streaming": {"max_ms": 5.0}, "silent": {"max_ms": None}}
    assert [goal["met"] for goal in endtoend.judge({"cancel": {"kirostream": cancels}})] == [True, False]


def test_medians_and_ratios_are_of_the_same_round() -> None:
    def rounds(*cpu: float | None) -> list[dict[str, float | None]]:
        return [{"cpu_us": each} for each in cpu]

    rows = {endtoend.DIRECT: rounds(None, None, None), endtoend.OURS: rounds(1, 10, 2)}
    rows[endtoend.REFERENCE] = rounds(10, 20, 12)
    found = endtoend.compared(rows)
    assert found[endtoend.OURS] == {"cpu_us": 2, "times_reference": 6}
    assert found[endtoend.DIRECT] == {"cpu_us": None, "times_reference": None}
