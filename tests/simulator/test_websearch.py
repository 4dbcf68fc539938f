"""The simulated web: what it finds, and how it fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from helpers.simulated import FakeExchange, call
from kirostream.errors import KirostreamError
from kirostream.providers.kiro_search import read_results
from kirostream.simulator.upstream import Simulator
from kirostream.simulator.websearch import pages


async def ask(simulator: Simulator, query: object = "trio", **more: Any) -> FakeExchange:
    params = {"name": "web_search", "arguments": {"query": query}}
    body = {"id": "1", "jsonrpc": "2.0", "method": "tools/call", "params": params, **more}
    return await call(simulator, "POST", "/mcp", body)


async def test_the_same_query_finds_the_same() -> None:
    found = read_results((await ask(Simulator())).answer)
    assert found == read_results((await ask(Simulator())).answer)
    assert [hit.url for hit in found] == [page["url"] for page in pages("trio")]
    assert found[0].age == "2026-01-01"
    assert {hit.text for hit in found}.isdisjoint(
        hit.text for hit in read_results((await ask(Simulator(), "h11")).answer)
    )


@pytest.mark.parametrize("query", ["", "x" * 201, 5, None])
async def test_a_query_is_a_string_of_up_to_200_characters(query: object) -> None:
    exchange = await ask(Simulator(), query)
    assert (exchange.status, exchange.json()["error"]["code"]) == (200, -32602)


async def test_200_characters_are_a_query() -> None:
    assert len(read_results((await ask(Simulator(), "é" * 200)).answer)) == 5


async def test_who_has_no_token_finds_nothing() -> None:
    exchange = await call(Simulator(), "POST", "/mcp", {}, token="wrong")
    assert exchange.status == 403


async def test_an_afflicted_account_finds_nothing() -> None:
    simulator = Simulator()
    simulator.afflict("demo", "QUOTA")
    assert (await ask(simulator)).status == 402


@pytest.mark.parametrize(
    ("method", "code"), [("initialize", None), ("tools/list", None), ("tools/forget", -32601), (None, -32601)]
)
async def test_other_methods(method: str | None, code: int | None) -> None:
    answer = (await ask(Simulator(), method=method)).json()
    assert answer.get("error", {}).get("code") == code
    assert ("result" in answer) is (code is None)


@pytest.mark.parametrize("more", [{"jsonrpc": "1.0"}, {"params": {"name": "other"}}, {"params": None}])
async def test_what_is_no_call_of_the_search(more: dict[str, Any]) -> None:
    assert "error" in (await ask(Simulator(), **more)).json()


@pytest.mark.parametrize("query", ["x rpc:-32000", "x tool:broken", "x inner:full", "garbled x"])
async def test_failures_with_status_200(query: str) -> None:
    exchange = await ask(Simulator(), query)
    assert exchange.status == 200
    with pytest.raises(KirostreamError):
        read_results(exchange.answer)


async def test_failures_of_http() -> None:
    simulator = Simulator()
    assert (await ask(simulator, "x error:THROTTLE")).status == 429
    assert (await ask(simulator, "x fail:INTERNAL:k")).status == 500
    assert (await ask(simulator, "x fail:INTERNAL:k")).status == 200


async def test_nothing_and_never(autojump_clock: trio.abc.Clock) -> None:
    assert json.loads((await ask(Simulator(), "nothing here")).json()["result"]["content"][0]["text"])["results"] == []
    with trio.move_on_after(1000) as patience:
        await ask(Simulator(), "stall now")
    assert patience.cancelled_caught
