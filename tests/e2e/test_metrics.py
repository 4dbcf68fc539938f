"""``GET /metrics`` and Server-Timing, of a gateway that runs, through both doors."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from kirostream.app import Gateway, open_gateway
from kirostream.settings import load
from kirostream.telemetry.facts import AttemptFailed, ExchangeFinished, Fact, TurnFinished
from kirostream.telemetry.recorder import Recorder

KEY = {"x-api-key": "k"}
DOORS = ("http1", "asgi")
PATHS = ("/v1/messages", "/v1/chat/completions", "/v1/responses")


@asynccontextmanager
async def running(
    tmp: Path, *, folder: Path | None = None, facts: list[Fact] | None = None, **arguments: Any
) -> AsyncIterator[tuple[Gateway, dict[str, str]]]:
    """A gateway with a simulator behind it, and the address of each door; `folder` is its data directory."""
    given = {"server.port": 0, "server.key": "k", "listen": [{"port": 0, "door": "asgi"}], **arguments}
    settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp)}, arguments=given)
    recorder = Recorder(*([] if facts is None else [facts.append]))
    async with open_gateway(settings, None, data_dir=folder or tmp, recorder=recorder) as gateway:
        yield gateway, dict(zip(DOORS, (gateway.url, *gateway.more_urls), strict=True))


def ask(path: str, said: str, *, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "claude-sonnet-4-5", "stream": stream}
    if path == "/v1/responses":
        return {**body, "input": said}
    return {**body, "max_tokens": 99, "messages": [{"role": "user", "content": said}]}


async def metrics(client: httpx.AsyncClient, url: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample, by its name and labels."""
    answer = await client.get(f"{url}/metrics", headers=KEY)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation or family.name == "kirostream"
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.mark.parametrize("door", DOORS)
async def test_what_happened_is_counted(door: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            url = urls[door]
            for path in PATHS:
                for stream in (False, True):
                    answer = await client.post(
                        url + path, json=ask(path, "[[say:one two]]", stream=stream), headers=KEY
                    )
                    assert answer.status_code == 200
            await client.post(
                f"{url}/v1/messages", json=ask("/v1/messages", "[[error:CONTEXT]]", stream=False), headers=KEY
            )
            found = await metrics(client, url)
            turns = found["kirostream_turns_total"]
            assert sum(turns.values()) == 7
            assert {dict(labels)["dialect"] for labels in turns} == {"anthropic", "openai_chat", "openai_responses"}
            assert sum(count for labels, count in turns.items() if dict(labels)["outcome"] == "failed") == 1
            assert {dict(labels)["key"] for labels in turns} == {"default"}
            assert sum(found["kirostream_attempts_failed_total"].values()) == 1
            tokens = {dict(labels)["kind"]: count for labels, count in found["kirostream_tokens_total"].items()}
            assert tokens["output"] > 0
            assert sum(found["kirostream_credits_total"].values()) > 0
            assert found["kirostream_turns_in_flight"][()] == 0
            assert found["kirostream_overhead_first_token_seconds_count"][()] == 6
            assert found["kirostream_overhead_token_seconds_count"][()] == 6
            assert 0 < found["kirostream_overhead_first_token_seconds_sum"][()] < 6
            assert found["kirostream_first_token_seconds_count"][()] >= 6
            assert found["kirostream_accounts"][("state", "ready"),] == 1
            assert set(found["kirostream_sink_queue"]) == {(("sink", "logs"),), (("sink", "usage"),)}
            assert set(found["kirostream_sink_failing"].values()) == {0.0}
            assert "kirostream_loop_lag_seconds_count" in found
            again = await metrics(client, url)
            assert sum(again["kirostream_exchanges_total"].values()) > sum(found["kirostream_exchanges_total"].values())


async def test_tokens_that_compiled_code_carries_are_clocked(tmp_path: Path) -> None:
    name = "kirostream_overhead_carried_token_seconds"
    with trio.fail_after(30):
        async with running(tmp_path) as (gateway, urls), httpx.AsyncClient(timeout=20) as client:
            before = await metrics(client, urls["http1"])
            said = ask("/v1/messages", "[[tokens:400]][[slow:1]]", stream=True)
            await client.post(f"{urls['http1']}/v1/messages", json=said, headers=KEY)
            after = await metrics(client, urls["http1"])
    if not gateway.hub:
        assert f"{name}_count" not in after
        return
    count = after[f"{name}_count"][()] - before[f"{name}_count"][()]
    assert 1 <= count <= 40, "one lap in 64"
    assert 0 < after[f"{name}_sum"][()] < count
    assert after[f"{name}_bucket"][("le", "+Inf"),] == after[f"{name}_count"][()]


async def test_a_turn_under_way_is_seen(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            body = ask("/v1/messages", "[[tokens:50]][[slow:200]]", stream=True)
            async with client.stream("POST", f"{urls['http1']}/v1/messages", json=body, headers=KEY):
                found = await metrics(client, urls["asgi"])
            assert found["kirostream_turns_in_flight"][()] == 1
            assert found["kirostream_turn_log_bytes"][("state", "in_flight"),] > 0


@pytest.mark.parametrize("door", DOORS)
async def test_metrics_take_a_key(door: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            for headers in ({}, {"x-api-key": "wrong"}):
                answer = await client.get(f"{urls[door]}/metrics", headers=headers)
                assert answer.status_code == 401
                assert "kirostream_" not in answer.text


def test_nothing_is_loaded_before_somebody_asks() -> None:
    import subprocess

    code = "import sys, kirostream.app; sys.exit(any(name.startswith('prometheus_client') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_where_the_time_went(door: str, path: str, stream: bool, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            await client.get(f"{urls[door]}/v1/models", headers=KEY)
            body = ask(path, "[[wait:400]][[say:one]]", stream=stream)
            answer = await client.post(urls[door] + path, json=body, headers=KEY)
            said = re.fullmatch(r"gateway;dur=(\d+\.\d\d), upstream;dur=(\d+\.\d)", answer.headers["server-timing"])
            assert said
            assert float(said[2]) >= 399
            assert float(said[1]) < float(said[2])


@pytest.mark.parametrize("door", DOORS)
async def test_every_other_answer_says_how_long_it_took(door: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            counted = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
            answers = [
                await client.get(f"{urls[door]}/v1/models", headers=KEY),
                await client.post(f"{urls[door]}/v1/messages/count_tokens", json=counted, headers=KEY),
                await client.get(f"{urls[door]}/v1/responses/none", headers=KEY),
                await client.get(f"{urls[door]}/v1/models"),
                await client.get(f"{urls[door]}/nothing/here"),
                await client.post(f"{urls[door]}/v1/messages", content=b"{", headers=KEY),
                await client.get(f"{urls[door]}/admin/api/status", headers=KEY),
            ]
            assert [each.status_code for each in answers] == [200, 200, 404, 401, 404, 400, 200]
            for answer in answers:
                assert re.fullmatch(r"total;dur=\d+\.\d\d", answer.headers["server-timing"]), answer


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", PATHS[:2])
async def test_an_error_of_a_turn_says_where_the_time_went(door: str, path: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            for stream in (False, True):
                body = ask(path, "[[error:CONTEXT]]", stream=stream)
                answer = await client.post(urls[door] + path, json=body, headers=KEY)
                assert answer.status_code == 400
                assert re.fullmatch(r"gateway;dur=\d+\.\d\d, upstream;dur=\d+\.\d", answer.headers["server-timing"])


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", PATHS)
async def test_one_id_goes_through_all_that_is_told_of_a_turn(door: str, path: str, tmp_path: Path) -> None:
    facts: list[Fact] = []
    with trio.fail_after(30):
        async with running(tmp_path, facts=facts) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            for fate in ("[[say:one]]", "[[error:VALIDATION]]"):
                facts.clear()
                answer = await client.post(urls[door] + path, json=ask(path, fate, stream=False), headers=KEY)
                request = answer.headers["x-request-id"] if path != "/v1/messages" else answer.headers["request-id"]
                ended = next(fact for fact in facts if isinstance(fact, TurnFinished))
                while not any(isinstance(fact, ExchangeFinished) and fact.path == path for fact in facts):
                    await trio.sleep(0.001)
                told = [fact for fact in facts if hasattr(fact, "request") and getattr(fact, "path", path) == path]
                assert {fact.request for fact in told} == {request}
                assert {fact.turn for fact in told if hasattr(fact, "turn")} == {ended.turn}
                kinds = {type(fact) for fact in told}
                assert kinds >= {TurnFinished, ExchangeFinished, *((AttemptFailed,) if "error" in fate else ())}
                if answer.status_code >= 400 and path == "/v1/messages":
                    assert answer.json()["request_id"] == request


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_turn_knows_its_tries_and_the_span_of_its_client(door: str, path: str, tmp_path: Path) -> None:
    facts: list[Fact] = []
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    with trio.fail_after(30):
        fast: dict[str, Any] = {"relay.failover.backoff": 0.001}
        async with running(tmp_path, facts=facts, **fast) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            for said, sent, statuses in (
                ("[[say:one]]", parent, [200]),
                ("[[fail:INTERNAL 1 a]][[say:one]]", parent, [500, 200]),
                ("[[error:CONTEXT]]", "00-nonsense", [400]),
            ):
                facts.clear()
                headers = {**KEY, "traceparent": sent}
                await client.post(urls[door] + path, json=ask(path, said, stream=True), headers=headers)
                turn = next(fact for fact in facts if isinstance(fact, TurnFinished))
                assert turn.traceparent == (sent if sent == parent else "")
                assert [each.status for each in turn.tries] == statuses
                assert [bool(each.error) for each in turn.tries] == [status != 200 for status in statuses]
                assert len(turn.tries) == turn.attempts
                ends = [each.at + each.seconds for each in turn.tries]
                assert all(end <= each.at for end, each in zip(ends, turn.tries[1:], strict=False))
                assert turn.tries[0].at >= 0
                assert ends[-1] <= turn.seconds + 0.001


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    with trio.fail_after(30):
        off: dict[str, Any] = {"server.timing": False}
        async with running(tmp_path, **off) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            answer = await client.post(
                f"{urls['http1']}/v1/messages", json=ask("/v1/messages", "hi", stream=False), headers=KEY
            )
            assert answer.status_code == 200
            assert "server-timing" not in answer.headers
            for url in urls.values():
                assert "server-timing" not in (await client.get(f"{url}/v1/models", headers=KEY)).headers
