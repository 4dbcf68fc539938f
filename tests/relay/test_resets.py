"""An exhausted account is waited for until its quota is reset, and no longer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from helpers.tokens import account
from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.health import HEALTHY, Health, State
from kirostream.app import open_gateway
from kirostream.errors import KirostreamError, UpstreamDown
from kirostream.net.client import HttpClient
from kirostream.providers.kiro_management import AccountUsage
from kirostream.relay.resets import Resets
from kirostream.settings import Settings
from kirostream.telemetry.recorder import Recorder

NOW = 1_767_225_600.0
SPENT = Health(state=State.EXHAUSTED, until=NOW + 3600, why="spent")


class World:
    """An upstream that knows when, and a book."""

    def __init__(self, *answers: AccountUsage | KirostreamError) -> None:
        self.answers = list(answers)
        self.asked: list[AccountId] = []
        self.at_once = self.most = 0
        self.noted: list[tuple[AccountId, float]] = []
        self.failed: list[KirostreamError] = []

    async def usage(self, who: Account) -> AccountUsage:
        self.asked.append(who.id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await trio.sleep(1)
        self.at_once -= 1
        answer = self.answers.pop(0)
        if isinstance(answer, KirostreamError):
            raise answer
        return answer

    async def note_reset(self, name: AccountId, resets_at: float) -> None:
        self.noted.append((name, resets_at))

    def watch(self, nursery: trio.Nursery) -> Resets:
        return Resets(nursery, self.usage, self, lambda who, error: self.failed.append(error), lambda: NOW)


async def test_it_is_asked_once_when_the_credits_are_gone(autojump_clock: trio.testing.MockClock) -> None:
    world = World(AccountUsage(resets_at=NOW + 9000))
    async with trio.open_nursery() as nursery:
        resets = world.watch(nursery)
        for _ in range(5):
            resets.noticed(account(), HEALTHY, SPENT)
        assert repr(resets) == "<Resets: asking for 1>"
    assert world.asked == [account().id]
    assert world.noted == [(account().id, NOW + 9000)]
    assert repr(resets) == "<Resets: asking for 0>"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (HEALTHY, HEALTHY),
        (HEALTHY, replace(SPENT, state=State.COOLING)),
        (SPENT, SPENT),
        (HEALTHY, replace(SPENT, resets_at=NOW + 1)),
    ],
)
async def test_nothing_is_asked_that_is_known_or_not_the_point(
    autojump_clock: trio.testing.MockClock, before: Health, now: Health
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        world.watch(nursery).noticed(account(), before, now)
    assert world.asked == []


@pytest.mark.parametrize("answer", [AccountUsage(), UpstreamDown("no route")])
async def test_no_answer_leaves_the_pause_as_it_is(
    autojump_clock: trio.testing.MockClock, answer: AccountUsage | KirostreamError
) -> None:
    world = World(answer)
    async with trio.open_nursery() as nursery:
        world.watch(nursery).noticed(account(), HEALTHY, SPENT)
    assert world.noted == []
    assert world.failed == ([answer] if isinstance(answer, KirostreamError) else [])


async def test_many_at_once_are_asked_a_few_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    world = World(*[AccountUsage(resets_at=NOW + 1)] * 20)
    async with trio.open_nursery() as nursery:
        resets = world.watch(nursery)
        for number in range(20):
            resets.noticed(account(f"test-{number}"), HEALTHY, SPENT)
    assert len(world.noted) == 20
    assert world.most == 4


def first_of_next_month() -> float:
    """When the simulated quota is reset."""
    today = datetime.now(UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


async def test_a_gateway_knows_when_its_account_can_be_used_again(tmp_path: Path) -> None:
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, port=0))
    async with open_gateway(settings, None, data_dir=tmp_path, recorder=Recorder(lambda fact: None)) as gateway:
        assert gateway.simulator is not None
        gateway.simulator.afflict("demo", "QUOTA")
        async with HttpClient() as client:
            headers = [(b"x-api-key", gateway.key.encode()), (b"content-type", b"application/json")]
            body = b'{"model":"auto","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
            status, _, answer = await client.fetch("POST", f"{gateway.url}/v1/messages", headers, body)
        assert status == 429, answer
        with trio.fail_after(10):
            while True:
                (state,) = gateway.pool.snapshot().accounts
                if state.state is State.EXHAUSTED and state.until == first_of_next_month():
                    break
                await trio.sleep(0.01)
