"""Token counts: always an answer, never the upstream's, and one at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from helpers.exchange import FakeExchange
from kirostream.dialects import DIALECTS
from kirostream.gateway.callers import Callers
from kirostream.gateway.counting import CountHandler
from kirostream.gateway.media import Media, MediaSettings
from kirostream.gateway.turns import GatewaySettings
from kirostream.net.client import HttpClient

KEY = [(b"x-api-key", b"k")]
MEDIA = Media(HttpClient(), MediaSettings())
HANDLER = CountHandler(DIALECTS["anthropic"], Callers(["k"]), MEDIA, GatewaySettings())


async def count(handler: CountHandler = HANDLER, **body: Any) -> FakeExchange:
    exchange = FakeExchange(
        "POST", "/v1/messages/count_tokens", headers=KEY, body=json.dumps({"model": "m", **body}).encode()
    )
    await handler(exchange)
    return exchange


def hello(text: str = "foo") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def test_a_count_needs_no_max_tokens_and_no_known_model() -> None:
    answer = await count(messages=hello("x" * 3600))
    assert answer.status == 200
    assert json.loads(answer.sent) == {"input_tokens": 1004}
    assert answer.headers[b"request-id"]


async def test_everything_that_is_sent_counts() -> None:
    sizes = [
        json.loads((await count(**body)).sent)["input_tokens"]
        for body in (
            {"messages": hello()},
            {"messages": hello(), "system": "Be brief. " * 20},
            {"messages": hello(), "tools": [{"name": "t", "description": "d" * 400, "input_schema": {}}]},
            {"messages": hello(), "tools": [{"type": "web_search_20250305", "name": "web_search", "x": "y" * 400}]},
        )
    ]
    assert all(size > sizes[0] + 40 for size in sizes[1:])


@pytest.mark.parametrize("body", [b"{", b'{"model":"m"}', b'{"model":"m","messages":[]}'])
async def test_a_body_that_cannot_be_read(body: bytes) -> None:
    exchange = FakeExchange("POST", "/v1/messages/count_tokens", headers=KEY, body=body)
    await HANDLER(exchange)
    assert exchange.status == 400
    assert json.loads(exchange.sent)["error"]["type"] == "invalid_request_error"


async def test_a_wrong_key_is_told_not_to_try_again() -> None:
    exchange = FakeExchange("POST", "/v1/messages/count_tokens", headers=[(b"x-api-key", b"w")])
    await HANDLER(exchange)
    assert exchange.status == 401
    assert exchange.headers[b"x-should-retry"] == b"false"


async def test_others_run_between_any_two_counts() -> None:
    """What `/context` does to a stream: 35 counts that come at once."""
    done = rounds = 0
    most = 0  # counts between two rounds of somebody else

    async def one() -> None:
        nonlocal done
        assert (await count(messages=hello())).status == 200
        done += 1

    async def stream() -> None:
        nonlocal rounds, most
        before = 0
        while done < 35:
            await trio.lowlevel.checkpoint()
            rounds += 1
            most, before = max(most, done - before), done

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        for _ in range(35):
            nursery.start_soon(one)
    assert rounds > 35
    assert most <= 2
