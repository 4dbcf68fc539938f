"""Token counts: always an answer, never the upstream's, and never in the way of a stream."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from helpers.exchange import FakeExchange
from kirostream.dialects import DIALECTS
from kirostream.dialects.anthropic.request import read_in_steps
from kirostream.dialects.dialect import Dialect, Headers, Steps
from kirostream.gateway.callers import Callers
from kirostream.gateway.counting import AT_ONCE, SLICE, CountHandler
from kirostream.gateway.media import Media, MediaSettings
from kirostream.gateway.turns import GatewaySettings
from kirostream.net.client import HttpClient
from kirostream.turn.request import TurnRequest

KEY = [(b"x-api-key", b"k")]
MEDIA = Media(HttpClient(), MediaSettings())


def handler_of(
    dialect: Dialect, corrected: Callable[[str, int, str], int] = lambda model, tokens, caller: tokens
) -> CountHandler:
    return CountHandler(dialect, corrected, Callers(["k"]), MEDIA, GatewaySettings())


HANDLER = handler_of(DIALECTS["anthropic"])


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
    assert json.loads(answer.sent) == {"input_tokens": 706}
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


async def test_what_was_learned_of_the_model_counts() -> None:
    handler = handler_of(DIALECTS["anthropic"], lambda name, tokens, caller: tokens * 2 if name == "m" else 0)
    assert json.loads((await count(handler, messages=hello("x" * 3600))).sent) == {"input_tokens": 1412}


def conversation(messages: int = 200, size: int = 4_000) -> list[dict[str, Any]]:
    """Some 200,000 tokens, as an agent has them."""
    roles = ("user", "assistant")
    return [
        {"role": roles[n % 2], "content": [{"type": "text", "text": "const x = 1; " * (size // 13)}]}
        for n in range(messages)
    ]


async def test_a_count_is_done_in_slices() -> None:
    """Between two rounds of the event loop, no more than a slice of a conversation and one message is read."""
    body = json.dumps({"model": "m", "messages": conversation()}).encode()
    counting = True
    rounds = 0
    read: list[int] = []  # bytes between two rounds

    def watched(body: bytes, headers: Headers) -> Steps:
        steps = read_in_steps(body, headers)
        while True:
            try:
                size = next(steps)
            except StopIteration as done:
                request: TurnRequest = done.value
                return request
            read[-1] += size if size < len(body) else 0  # the first look at the whole is a step of its own
            yield size

    async def stream() -> None:
        nonlocal rounds
        while counting:
            rounds += 1
            read.append(0)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        exchange = FakeExchange("POST", "/v1/messages/count_tokens", headers=KEY, body=body)
        await handler_of(dataclasses.replace(DIALECTS["anthropic"], read_in_steps=watched))(exchange)
        counting = False
    assert json.loads(exchange.sent)["input_tokens"] > 150_000
    assert sum(read) > 0.9 * len(body)
    assert max(read) < 3 * SLICE  # two slices where the loop takes the counter last, and first in the next round
    assert rounds > len(body) / SLICE / 2


async def test_only_some_bodies_arrive_at_once() -> None:
    """In every round of the event loop a piece of each may be taken: 35 of them would be a long round."""
    arriving = most = 0

    class Slow(FakeExchange):
        async def body(self, limit: int) -> bytes:
            nonlocal arriving, most
            arriving += 1
            most = max(most, arriving)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            arriving -= 1
            return await super().body(limit)

    body = json.dumps({"model": "m", "messages": hello()}).encode()
    asked = [Slow("POST", "/v1/messages/count_tokens", headers=KEY, body=body) for _ in range(35)]
    async with trio.open_nursery() as nursery:
        for each in asked:
            nursery.start_soon(HANDLER, each)
    assert [each.status for each in asked] == [200] * 35
    assert most == AT_ONCE


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
