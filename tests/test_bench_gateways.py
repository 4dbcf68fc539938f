"""The bench of gateways: its C programs find what is wrong, its figures are what they say, its page is its results."""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # `bench` is not part of what is installed

from bench import compiled, gateway_figures, gateways, page, peers, scripts  # noqa: E402
from bench.gateway_figures import GOALS, compared, judge, over_direct, ratio  # noqa: E402
from bench.peers import DIRECT, OURS, RELAY, WAYS, Foreign  # noqa: E402
from bench.wire import FrameReader  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def built(name: str) -> Path:
    try:
        return compiled.program(name)
    except compiled.NotCompiled as error:
        pytest.skip(str(error))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[peers.Program]:
    built("upstream")
    program = peers.upstream(scripts.write_routes(tmp_path / "routes"))
    yield program
    program.stop()


def ask(
    tmp_path: Path, port: int, dialect: str, mode: str, tokens: int, *more: str, period: float = 0.0
) -> dict[str, Any]:
    """Run the clients once, and return what they say."""
    request = tmp_path / "request"
    request.write_bytes(scripts.request(scripts.DIALECTS[dialect], "key", scripts.prompt(tokens, period)))
    command = [str(built("load")), mode, f"--port={port}", f"--dialect={dialect}", f"--request={request}"]
    done = subprocess.run(
        [*command, f"--tokens={tokens}", *more], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == ("error" in found)
    return found


# --- the upstream -------------------------------------------------------------------------------------------------


def body_of(port: int, request: bytes) -> bytes:
    """What a chunked answer holds."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(request)
        data = b""
        while not data.endswith(b"\r\n" + LAST):
            more = sock.recv(65536)
            assert more, data
            data += more
    rest, body = data.partition(b"\r\n\r\n")[2], b""
    while size := int(rest.partition(b"\r\n")[0], 16):
        rest = rest.partition(b"\r\n")[2]
        body, rest = body + rest[:size], rest[size + 2 :]
    return body


@pytest.mark.parametrize("period", [0.0, 0.002])
def test_the_upstream_replays_frames_with_a_number_a_time_and_a_checksum(
    upstream: peers.Program, period: float
) -> None:
    for _ in range(2):  # the second answer is the remembered one
        request = scripts.request(scripts.DIALECTS["kiro"], "key", scripts.prompt(30, period))
        frames = FrameReader().frames(body_of(upstream.port, request))
        assert [kind for kind, _ in frames[-2:]] == ["contextUsageEvent", "meteringEvent"]
        texts = [json.loads(payload)["content"] for _, payload in frames[:-2]]
        found = [re.fullmatch(r"@(\d{6}):(\d{12}) ", text) for text in texts]
        assert [int(match[1]) for match in found if match] == list(range(30))
        stamps = [int(match[2]) for match in found if match]
        assert stamps == sorted(stamps)
        assert (stamps[-1] - stamps[0] >= 29 * 1_000_000) == bool(period)  # the first may be late on a busy machine


def test_the_upstream_says_what_it_does_not_know(upstream: peers.Program) -> None:
    with socket.create_connection(("127.0.0.1", upstream.port), 10) as sock:
        for request, status in (
            (b"GET /nothing", 404),
            (b"POST /generateAssistantResponse", 400),
            (b"GET /health", 200),
        ):
            sock.sendall(request + b" HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            assert int(sock.recv(65536).split()[1]) == status


# --- the clients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["crowd", "loop"])
def test_the_clients_count_what_comes(upstream: peers.Program, tmp_path: Path, mode: str) -> None:
    more = ["--last=0"] if mode == "crowd" else ["--count=20", "--warm-up=4"]
    found = ask(tmp_path, upstream.port, "kiro", mode, 50, "--streams=4", *more, f"--watch=upstream={upstream.pid}")
    assert found["tokens"] == (200 if mode == "crowd" else 0)
    assert found["requests"] == (0 if mode == "crowd" else 20)
    assert found["cpu_ns"]["upstream"] > 0
    assert found["own_cpu_ns"] > 0


def test_latency_is_of_each_token_in_the_window(upstream: peers.Program, tmp_path: Path) -> None:
    found = ask(
        tmp_path, upstream.port, "kiro", "crowd", 60, "--streams=3", "--open=50000", "--last=100000", period=0.005
    )
    assert 30 <= found["tokens"] <= 75
    assert found["latency_us"]["count"] == found["tokens"]
    assert 0 < found["latency_us"]["p50"] <= found["latency_us"]["p99"] <= found["latency_us"]["max"] < 1e6


@contextmanager
def answering(answer: bytes, step: int = 0) -> Iterator[int]:
    """A server that gives one answer to one request, in pieces, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.recv(65536)
                for at in range(0, len(answer), step or len(answer)):
                    sock.sendall(answer[at : at + (step or len(answer))])
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def token(number: int) -> str:
    return f"@{number:06}:{number + 1:012} "


def messages(*texts: str, end: str = "message_stop") -> bytes:
    deltas = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} for text in texts]
    said = [{"type": "message_start"}, *deltas, *([{"type": end}] if end else [])]
    return HEAD + b"".join(scripts.chunk(f"data: {json.dumps(each)}\n\n".encode()) for each in said) + LAST


def chat(*texts: str) -> bytes:
    said = [{"choices": [{"delta": {"content": text}}]} for text in ["", *texts]]
    events = [f"data: {json.dumps(each, separators=(',', ':'))}\n\n" for each in said]
    return HEAD + b"".join(scripts.chunk(each.encode()) for each in [*events, "data: [DONE]\n\n"]) + LAST


def responses(*texts: str) -> bytes:
    said: list[dict[str, Any]] = [{"type": "response.output_text.delta", "delta": text} for text in texts]
    said += [{"type": "response.output_text.done", "text": "".join(texts)}, {"type": "response.completed"}]
    body = b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in said)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


WRITERS = {"messages": messages, "chat": chat, "responses": responses}


@pytest.mark.parametrize("dialect", WRITERS)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_tokens_are_found_however_an_answer_is_cut(tmp_path: Path, dialect: str, step: int) -> None:
    answer = WRITERS[dialect](token(0), token(1) + token(2), token(3))  # two of them in one event
    with answering(answer, step) as port:
        found = ask(tmp_path, port, dialect, "crowd", 4, "--last=0")
    assert found.get("tokens") == 4, found


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno", "HTTP/1.1 503 No"),
        (messages(token(0), token(1)), "after 2 of 3 tokens: the answer is over"),
        (messages(token(0), token(1), token(2), token(3)), "one token more than there are"),
        (messages(token(0), token(0), token(1)), "a token is not the next one"),
        (messages(token(0), token(2), token(1)), "a token is not the next one"),
        (messages(token(0), token(1), "@00000x:000000000000 "), "a token is not as it was sent"),
        (messages(token(0), token(1), token(2), end=""), "ends without message_stop"),
        (messages(token(0), token(1), token(2))[: -len(LAST)], "the connection ends before the answer does"),
        (HEAD + b"zz\r\n", "a chunk's size is zz"),
        (chat(token(0), token(1), token(2)), "after 0 of 3 tokens"),
    ],
    ids=["refused", "short", "long", "doubled", "out of order", "changed", "no end", "cut", "framing", "language"],
)
def test_a_wrong_answer_is_found(tmp_path: Path, answer: bytes, words: str) -> None:
    with answering(answer) as port:
        found = ask(tmp_path, port, "messages", "crowd", 3, "--last=0")
    assert words in found["error"]


# --- the relay ----------------------------------------------------------------------------------------------------


def test_the_relay_keeps_what_a_slow_client_does_not_take(upstream: peers.Program, tmp_path: Path) -> None:
    relay = peers.Program([str(built("relay")), str(upstream.port)])
    try:
        with socket.create_connection(("127.0.0.1", relay.port), 10) as slow:
            slow.sendall(scripts.request(scripts.DIALECTS["kiro"], "key", scripts.prompt(50_000)))  # 8 MB, not read yet
            found = ask(tmp_path, relay.port, "kiro", "crowd", 50_000, "--last=0", "--streams=2")
            assert found["tokens"] == 100_000
            size, tail = 0, b""
            while not tail.endswith(LAST):
                data = slow.recv(1 << 20)
                size, tail = size + len(data), (tail + data)[-8:]
            assert size > 8_000_000
    finally:
        relay.stop()


# --- figures ------------------------------------------------------------------------------------------------------


def rounds(*values: float | None, figure: str = "cpu_us") -> list[dict[str, Any] | None]:
    return [None if value is None else {figure: value} for value in values]


def test_ratios_are_of_the_same_round() -> None:
    rows = {OURS: rounds(2, 30, 4), RELAY: rounds(1, 10, 1), "litellm": rounds(None, None, None)}
    assert ratio(rows[OURS], rows[RELAY], "cpu_us") == 3
    found = compared(rows)
    assert found[RELAY]["ours"]["cpu_us"] == 3
    assert found[RELAY]["spread"]["cpu_us"] == [1, 10]
    assert found["litellm"] is None


def test_what_is_added_is_over_direct_in_the_same_round() -> None:
    rows = {DIRECT: rounds(10, 20, figure="p50_us"), OURS: rounds(15, 40, figure="p50_us")}
    assert [found and found["added_p50_us"] for found in over_direct(OURS, rows)] == [5, 20]
    alone = over_direct(OURS, {OURS: rows[OURS]})
    assert [found and found["added_p50_us"] for found in alone] == [None, None]


def test_goals_are_judged_by_ratio_and_a_row_that_was_behind_meets_none() -> None:
    raw = {"paced 128x20": {OURS: rounds(30, 30), RELAY: rounds(20, 20)}}
    goal = str(GOALS[0])
    assert GOALS[0].to == RELAY
    assert judge(raw, gateway_figures.summarize(raw)) == [{"goal": goal, "measured": 1.5, "unit": "x", "met": True}]
    raw["paced 128x20"][OURS] = rounds(50, 50)
    assert [each["met"] for each in judge(raw, gateway_figures.summarize(raw))] == [False]
    raw["paced 128x20"][OURS] = [{"cpu_us": 1.0, "behind": 1}, {"cpu_us": 1.0, "behind": 0}]
    assert [each["met"] for each in judge(raw, gateway_figures.summarize(raw))] == [False]


def test_every_goal_is_of_something_that_is_measured() -> None:
    options = parsed()
    known = [str(workload) for workload in gateways.workloads(options)]
    assert not {goal.workload for goal in GOALS} - set(known)
    assert not {name for goal in GOALS for name in (goal.of, goal.to) if name} - {way.name for way in WAYS}


# --- the suite ----------------------------------------------------------------------------------------------------


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gateways.configure(parser)
    return parser.parse_args(words)


def test_another_gateway_is_named_with_its_address_and_process() -> None:
    found = Foreign.parse("go=http://127.0.0.1:8080,4711,chat,secret")
    assert (found.name, found.port, found.pid, found.dialect, found.key) == ("go", 8080, 4711, "chat", "secret")
    assert [way.name for way in gateways.ways(parsed("--peers", "relay", "--peer", "go=http://localhost:1,2"))] == [
        "relay",
        "go",
    ]
    for wrong in ("go", "go=http://example.org:80,1", "go=http://127.0.0.1:80", "go=http://127.0.0.1:80,1,klingon"):
        with pytest.raises(ValueError):
            Foreign.parse(wrong)


TINY = ["--streams", "2", "--rate", "50", "--seconds", "0.2", "--rounds", "1", "--tokens", "200", "--requests", "3"]
TINY += ["--crowd", "4", "--peers", "direct,relay,kirostream"]


def test_a_run_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built("load")
    path = tmp_path / "figures.json"
    assert gateways.run(parsed(*TINY, "--rows", "paced,unpaced,short,memory", "--json", str(path))) == 0
    kept = json.loads(path.read_text())
    for way in (DIRECT, RELAY, OURS):
        row = kept["results"]["paced 2x50"][way]
        assert row["tokens_per_second"] > 0
        assert row["p99_us"] >= row["p50_us"] > 0
    assert kept["results"]["paced 2x50"][RELAY]["ours"]["cpu_us"] > 0
    assert kept["results"]["unpaced 1"][OURS]["cpu_us"] > 0
    assert kept["results"]["short 16"][OURS]["requests_per_second"] > 0
    assert kept["results"]["memory 4x5"][OURS]["peak_mb"] > kept["results"]["memory 4x5"][OURS]["idle_mb"] > 0
    assert kept["goals"]
    assert "MISSED" in capsys.readouterr().out or all(goal["met"] for goal in kept["goals"])


def test_a_run_with_a_wrong_answer_fails_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built("load")
    wrong = scripts.Dialect("kiro", "/nothing", scripts.DIALECTS["kiro"].body)
    monkeypatch.setattr(scripts, "DIALECTS", {**scripts.DIALECTS, "kiro": wrong})
    path = tmp_path / "figures.json"
    assert gateways.run(parsed(*TINY[:-1], "relay", "--rows", "first", "--json", str(path))) == 1
    assert "HTTP/1.1 404" in capsys.readouterr().err
    assert not path.exists()


def test_the_page_is_made_of_the_committed_results() -> None:
    assert page.differing() == [], "python -m bench docs"
