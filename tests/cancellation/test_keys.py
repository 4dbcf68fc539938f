"""Leave a turn anywhere: the place of its key is given back, and once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from helpers.cancel import every_checkpoint
from helpers.staged import ASK, HELLO, Answer, Stage, ok, outcome, stage
from kirostream.errors import CallerThrottled, KirostreamError, UpstreamFault
from kirostream.gateway.key_book import KeyBook
from kirostream.gateway.keys import Key, KeyFile
from kirostream.gateway.limits import Limits
from kirostream.turn.events import TurnEnded

ONE = Key(
    id="key-1",
    name="ci",
    digest="0" * 64,
    hint="",
    scopes=frozenset({"api"}),
    limits=Limits(concurrency=1, tokens=1_000_000, credits_per_day=1000.0),
)


@asynccontextmanager
async def keyed(*script: Answer | KirostreamError) -> AsyncIterator[tuple[Stage, KeyBook]]:
    async def spent(name: str, since: float) -> float:
        await trio.lowlevel.checkpoint()
        return 1.0

    book = KeyBook(KeyFile(Path("nowhere"), lambda: 0.0), spent, now=lambda: 1e9)
    book.adopt([ONE])
    async with stage(*script, gate=book) as on:
        yield on, book


async def free(on: Stage, book: KeyBook) -> None:
    """The place is free, and a turn can have it."""
    with trio.fail_after(5):
        while on.relay.snapshot().in_flight:
            await trio.lowlevel.checkpoint()
    assert book.uses()[0].in_flight == 0
    on.client.script = [ok(*HELLO)]
    with trio.fail_after(60):
        async with on.relay.turn(ASK, key="ci") as live:
            assert book.uses()[0].in_flight == 1
            assert isinstance(await outcome(live), TurnEnded)
    assert book.uses()[0].in_flight == 0


async def test_its_client_leaves(autojump_clock: trio.testing.MockClock) -> None:
    for cut in every_checkpoint():
        async with keyed(Answer(500, ()), ok(*HELLO)) as (on, book):

            async def ask(on: Stage = on) -> None:
                async with on.relay.turn(ASK, key="ci") as live:
                    await outcome(live)

            await cut.run(ask)
            await free(on, book)


async def test_its_client_leaves_a_turn_that_lingers(autojump_clock: trio.testing.MockClock) -> None:
    for cut in every_checkpoint():
        async with keyed(ok(*HELLO)) as (on, book):

            async def ask(on: Stage = on) -> None:
                async with on.relay.turn(ASK, key="ci", linger=30.0) as live:
                    await outcome(live)

            await cut.run(ask)
            await free(on, book)


async def test_its_pump_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    for cut in every_checkpoint():
        async with keyed(Answer(500, ()), ok(*HELLO)) as (on, book):
            live = await on.relay.begin(ASK, key="ci")
            cut.watch(lambda task: "_pump" in task.name, live.scope)
            await live.over.wait()
            cut.stop()
            await free(on, book)


async def test_it_ends_in_every_other_way(autojump_clock: trio.testing.MockClock) -> None:
    async with keyed(ok(*HELLO), ok(UpstreamFault("no")), ok(HELLO[0], ValueError("a bug"))) as (on, book):
        for _ in range(3):
            with pytest.raises(CallerThrottled):
                async with on.relay.turn(ASK, key="ci") as live:
                    await on.relay.begin(ASK, key="ci")
            await live.over.wait()
            assert book.uses()[0].in_flight == 0
        await free(on, book)
        on.client.script = [ok(*HELLO)]
        async with on.relay.turn(ASK, key="ci") as live:
            live.cancel()
            await live.over.wait()
        await free(on, book)
        assert book.uses()[0].credits_today == pytest.approx(1.0 + 2 * 0.5)  # what was paid, and nothing twice


async def test_a_turn_that_never_begins(autojump_clock: trio.testing.MockClock) -> None:
    async with keyed() as (on, book):
        with pytest.raises(KirostreamError):
            await on.relay.begin(ASK, scope="", key="gone")
        with pytest.raises(KirostreamError):
            await on.relay.begin(replace(ASK, model=" "), key="ci")
        assert book.uses()[0].in_flight == 0
        await free(on, book)
