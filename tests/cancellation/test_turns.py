"""Leave a turn anywhere: no lease stays behind, and the next turn is answered."""

from __future__ import annotations

import trio
import trio.testing

from helpers.cancel import every_checkpoint
from helpers.staged import ASK, HELLO, Answer, Stage, ok, outcome, stage
from kirostream.accounts.pool import PoolSettings
from kirostream.turn.events import TurnEnded

ONE_AT_A_TIME = PoolSettings(accounts={"*": {"concurrency": 1}})
"""A lease that leaks keeps the next turn waiting for ever."""


def script() -> tuple[Answer, ...]:
    """An account that is throttled, another that answers; then two answers for who comes next."""
    return Answer(429, ()), ok(*HELLO), ok(*HELLO), ok(*HELLO)


async def free(on: Stage) -> None:
    """Nothing is held, and a turn can be had."""
    with trio.fail_after(5):
        while on.relay.snapshot().in_flight:
            await trio.lowlevel.checkpoint()
    assert on.pool.snapshot().in_flight == on.pool.snapshot().waiting == 0
    on.client.script = [ok(*HELLO)]
    with trio.fail_after(60):
        async with on.relay.turn(ASK) as live:
            assert isinstance(await outcome(live), TurnEnded)


async def test_its_client_leaves(autojump_clock: trio.testing.MockClock) -> None:
    """At every checkpoint of the task that asked."""
    for cut in every_checkpoint():
        async with stage(*script(), accounts=("a", "b"), pool_settings=ONE_AT_A_TIME) as on:

            async def ask(on: Stage = on) -> None:
                async with on.relay.turn(ASK) as live:
                    await outcome(live)

            await cut.run(ask)
            await free(on)


async def test_its_pump_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """At every checkpoint of the task that leases, asks, reads and settles."""
    tries = 0
    for cut in every_checkpoint():
        async with stage(*script(), accounts=("a", "b"), pool_settings=ONE_AT_A_TIME) as on:
            live = await on.relay.begin(ASK)
            cut.watch(lambda task: "_pump" in task.name, live.scope)
            await live.over.wait()
            cut.stop()
            tries += len(on.client.asked)
            await free(on)
    assert tries > 3, "leases were held when it happened"
