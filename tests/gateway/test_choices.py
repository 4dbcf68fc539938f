"""Several answers in one stream: nothing behind the end, signs of life, and a client that leaves."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from helpers.exchange import FakeExchange
from kirostream.dialects.dialect import Heading
from kirostream.dialects.openai_chat.writers import ChoicesWriter
from kirostream.errors import StreamCut
from kirostream.gateway.choices import pump_several
from kirostream.net.exchange import PeerGone
from kirostream.relay.live import LiveTurn
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.usage import Usage

ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True, choices=2, include_usage=True)
HEADING = Heading("0" * 32, 0)


def two() -> list[LiveTurn]:
    return [LiveTurn(ASK, HEADING, Model("m")) for _ in range(2)]


async def started() -> FakeExchange:
    exchange = FakeExchange("POST", "/v1/chat/completions")
    await exchange.start(200, ())
    return exchange


def begin(live: LiveTurn) -> None:
    live.log.append([TurnStarted("m"), BlockStarted(0, BlockKind.TEXT)])


def end(live: LiveTurn, text: str) -> None:
    events: list[TurnEvent] = [BlockDelta.of(0, text), BlockEnded(0), TurnEnded(Stop.END, Usage(10, 5))]
    live.log.append(events)


async def test_the_end_is_the_last_thing_said(autojump_clock: trio.testing.MockClock) -> None:
    exchange, lives = await started(), two()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump_several, exchange, lives, ChoicesWriter(ASK, HEADING), 10.0)
        for live in lives:
            begin(live)
        await trio.sleep(25)
        assert exchange.sent.count(b": keep-alive") == 2
        end(lives[1], "one")
        await trio.sleep(1)
        end(lives[0], "zero")
    assert exchange.sent.endswith(b"data: [DONE]\n\n")
    assert exchange.sent.count(b"[DONE]") == 1
    chunks = [json.loads(line[6:]) for line in exchange.sent.splitlines() if line.startswith(b"data: {")]
    said = [(one["index"], one["delta"].get("content")) for chunk in chunks for one in chunk["choices"]]
    assert [each for each in said if each[1]] == [(1, "one"), (0, "zero")]
    assert chunks[-1]["usage"]["prompt_tokens"] == 10
    assert chunks[-1]["usage"]["completion_tokens"] == 10


async def test_a_failure_ends_the_stream_without_its_mark() -> None:
    exchange, lives = await started(), two()
    begin(lives[0])
    lives[1].log.append([TurnFailed(StreamCut("gone"))])
    with trio.fail_after(1):
        await pump_several(exchange, lives, ChoicesWriter(ASK, HEADING), 10.0)
    assert b'"error"' in exchange.sent
    assert b"[DONE]" not in exchange.sent


async def test_a_client_that_leaves() -> None:
    class Gone(FakeExchange):
        async def send(self, data: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise PeerGone("gone")

    exchange, lives = Gone("POST", "/"), two()
    for live in lives:
        begin(live)
    with trio.fail_after(1), pytest.raises(PeerGone):
        await pump_several(exchange, lives, ChoicesWriter(ASK, HEADING), 10.0)
