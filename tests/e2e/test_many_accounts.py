"""Twenty accounts with every trouble there is, and two thousand turns: real relay, pool, keeper and provider, the
simulator behind them, and trio's clock, which jumps."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import cast

import pytest
import trio
import trio.testing

from helpers.direct import URL, DirectClient
from helpers.tokens import unix_clock
from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.health import Health, Kind, State, opens_at
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.store import MemoryPoolStore
from kirostream.errors import (
    AccountThrottled,
    KirostreamError,
    QuotaSpent,
)
from kirostream.net.client import HttpClient
from kirostream.providers.kiro import KiroProvider, KiroSettings
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.relay import Relay, RelaySettings
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.standing import Standing
from kirostream.simulator.upstream import Simulator
from kirostream.telemetry.facts import AttemptFailed, Fact, Faulted
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.events import TurnEnded, TurnFailed
from kirostream.turn.request import Message, Role, Text, TurnRequest

ACCOUNTS, AT_ONCE = 20, 64
NAMES = [f"account-{number:02}" for number in range(ACCOUNTS)]
TROUBLES = {
    "THROTTLE": 8,
    "THROTTLE:3": 8,
    "THROTTLE:40": 4,
    "ACCESS": 8,
    "INTERNAL": 8,
    "UNAVAILABLE": 4,
    "CAPACITY": 4,
    "QUOTA": 1,
    "DAY": 0.3,
}
"""What an account may be told, and how often in proportion."""
KINDS = {
    "": Kind.SERVED,
    "THROTTLE": Kind.THROTTLED,
    "ACCESS": Kind.DENIED,
    "QUOTA": Kind.SPENT,
    "DAY": Kind.DAY_SPENT,
    "INTERNAL": Kind.FAILED,
    "UNAVAILABLE": Kind.NO_CAPACITY,
    "CAPACITY": Kind.NO_CAPACITY,
    "SUSPENDED": Kind.SUSPENDED,
}
RIGHT = {
    "AccountThrottled": 429,
    "QuotaSpent": 429,
    "AccessDenied": 403,
    "AccountSuspended": 403,
    "UpstreamFault": 502,
    "UpstreamOverloaded": 503,
    "NoAccount": 503,
}
"""What a turn may fail with, and the status of it."""


class World:
    """The gateway's inside, and what was seen of it."""

    def __init__(self, nursery: trio.Nursery, settings: PoolSettings, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = unix_clock()
        self.simulator = Simulator(SimulatorSettings(first_token_delay=0.8), now=self.clock)
        self.simulator.standing = Standing(room=100_000)
        self.facts: list[Fact] = []
        self.health: dict[str, list[tuple[float, Health]]] = defaultdict(list)
        recorder = Recorder(self.facts.append)
        client = DirectClient(self.simulator)

        async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
            status, _, answer = await client.fetch(method, url, headers, body)
            return status, answer

        def changed(account: Account, before: Health, now: Health) -> None:
            self.health[account.label].append((self.clock(), now))

        self.pool = Pool(settings, MemoryPoolStore(), clock=self.clock, draw=self.dice.random, on_change=changed)
        self.keeper = TokenKeeper(post, time_source=self.clock)
        for name in NAMES:
            credential = self.simulator.credential(name)
            account = Account(id=AccountId(name), label=name, auth=credential.auth, machine_id="ab" * 32)
            self.pool.add(account)
            self.keeper.add(account, DirectSource(credential, name=name), credential)
        provider = KiroProvider(KiroSettings(endpoint=URL))

        def client_of(account: Account) -> HttpClient:
            return cast(HttpClient, client)

        self.relay = Relay(
            nursery,
            pool=self.pool,
            keeper=self.keeper,
            provider=provider,
            client_of=client_of,
            catalogues=Catalogues(nursery, provider, self.pool, self.keeper, client_of, recorder),
            recorder=recorder,
            settings=RelaySettings(),
            clock=self.clock,
        )

    def give_trouble(self) -> None:
        """A script of some hundred calls for each account, a tenth of them trouble; two are suspended on the way."""
        for number, name in enumerate(NAMES):
            troubles = self.dice.choices(list(TROUBLES), list(TROUBLES.values()), k=400)
            script = [trouble if self.dice.random() < 0.1 else "" for trouble in troubles]
            if number in (3, 11):
                script[self.dice.randrange(5, 30)] = "SUSPENDED"
            self.simulator.standing.script(name, script)

    async def turn(self, number: int) -> KirostreamError | None:
        """One turn of one of many conversations; what it failed with."""
        said = (Message(Role.USER, (Text(f"[[say:answer {number}]]"),)),)
        asked = TurnRequest(
            model="claude-sonnet-4.5",
            messages=said,
            stream=self.dice.random() < 0.5,
            session=f"session {self.dice.randrange(300)}",
            spoken_in="anthropic",
        )
        async with self.relay.turn(asked) as live:
            await live.over.wait()
            last = live.log.events[-1]
        if isinstance(last, TurnFailed):
            return last.error
        assert isinstance(last, TurnEnded)
        return None


async def play(world: World, turns: int) -> list[KirostreamError | None]:
    """So many turns, `AT_ONCE` of them in flight; clients wait as long as they are told, and a little longer."""
    outcomes: list[KirostreamError | None] = []
    numbers = iter(range(turns))

    async def client() -> None:
        for number in numbers:
            outcome = await world.turn(number)
            outcomes.append(outcome)
            if outcome is not None:
                await trio.sleep((outcome.retry_after or 1.0) * (1 + world.dice.random()))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(client)
    return outcomes


def calls_while_out(world: World) -> list[tuple[str, float]]:
    """Calls that came to an account while it was out: begun after the pool had learned it, and before the end."""
    wrong = []
    for told in world.simulator.standing.log:
        changes = world.health[told.account]
        at = bisect_left(changes, told.at, key=lambda change: change[0])
        health = changes[at - 1][1] if at else Health()
        if told.at < opens_at(health):
            wrong.append((told.account, told.at))
    return wrong


@pytest.mark.parametrize(
    ("settings", "turns"),
    [
        (PoolSettings(), 2000),
        (PoolSettings(strategy="weighted", sticky=False, accounts={"*": {"concurrency": 4}}), 500),
        (PoolSettings(strategy="least_used", accounts={"*": {"concurrency": 3, "interval": 0.05}}), 500),
    ],
    ids=["round robin, sticky", "weighted, capped", "least used, capped and paced"],
)
async def test_twenty_accounts_with_every_trouble(
    autojump_clock: trio.testing.MockClock, settings: PoolSettings, turns: int
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, settings, seed=turns)
        await nursery.start(world.keeper.run)
        await nursery.start(world.pool.run)
        await world.relay.models()
        world.give_trouble()
        outcomes = await play(world, turns)
        await trio.sleep(10)  # the lists of models are read behind the turns' backs
        nursery.cancel_scope.cancel()

    # Every request was answered, or refused with the right type.
    assert len(outcomes) == turns
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert {type(error).__name__: error.status for error in refused}.items() <= RIGHT.items()
    assert len(refused) < turns / 2
    for error in refused:
        if isinstance(error, AccountThrottled | QuotaSpent):
            assert error.retry_after is None or error.retry_after > 0
    assert [fact for fact in world.facts if isinstance(fact, Faulted)] == []

    # No account was called while it was out.
    assert calls_while_out(world) == []
    assert any(health.state is State.COOLING for changes in world.health.values() for _, health in changes)

    # What the pool has counted is what the service has told.
    told = Counter[tuple[str, Kind]]()
    for (account, error_name), count in world.simulator.standing.counts.items():
        told[account, KINDS[error_name]] += count
    counted = {
        (account.label, Kind(kind)): count
        for account in world.pool.snapshot().accounts
        for kind, count in account.outcomes.items()
    }
    assert counted == told
    assert len(outcomes) - len(refused) == sum(count for (_, kind), count in told.items() if kind is Kind.SERVED)
    failures = [fact for fact in world.facts if isinstance(fact, AttemptFailed)]
    assert len(failures) == sum(count for (_, kind), count in told.items() if kind is not Kind.SERVED)

    # Nothing is held, and the suspended stay out.
    now = world.pool.snapshot()
    assert (now.in_flight, now.waiting) == (0, 0)
    suspended = {account.label for account in now.accounts if account.state is State.SUSPENDED}
    assert suspended == {NAMES[3], NAMES[11]}
