"""Accounts for a pool, and a pool of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from helpers.tokens import unix_clock
from kirostream.accounts.account import Account, AccountId, AuthMethod
from kirostream.accounts.board import AccountSnapshot, Need
from kirostream.accounts.health import Health, Outcome, State
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store import MemoryPoolStore, PoolStore
from kirostream.errors import StoreError


def named(name: str) -> Account:
    """An account."""
    return Account(id=AccountId(name), label=f"label of {name}", auth=AuthMethod.SOCIAL, machine_id="ab" * 32)


@dataclass
class Pooled:
    """A pool, and what it said. Its clock is unix seconds that go with trio's."""

    pool: Pool
    store: PoolStore
    changes: list[tuple[str, State]] = field(default_factory=list)
    troubles: list[StoreError] = field(default_factory=list)

    def of(self, name: str) -> AccountSnapshot:
        """One account, now."""
        return next(each for each in self.pool.snapshot().accounts if each.id == name)

    async def use(self, outcome: Outcome | None = None, need: Need | None = None, hold: float = 0.0) -> str:
        """One lease from beginning to end; the account it had."""
        async with self.pool.lease(need or Need()) as lease:
            if hold:
                await trio.sleep(hold)
            if outcome is not None:
                lease.settle(outcome)
            return str(lease.account.id)

    def whole(self) -> None:
        """Nothing is held and nobody waits."""
        now = self.pool.snapshot()
        assert (now.in_flight, now.waiting) == (0, 0), now
        assert [each.in_flight for each in now.accounts] == [0] * len(now.accounts)
        assert not any(each.probing for each in now.accounts)


def pooled(
    *names: str,
    settings: PoolSettings | None = None,
    store: PoolStore | None = None,
    clock: Callable[[], float] | None = None,
    draw: Callable[[], float] = lambda: 0.5,
) -> Pooled:
    """A pool of accounts of these names."""
    kept = store or MemoryPoolStore()
    changes: list[tuple[str, State]] = []
    troubles: list[StoreError] = []

    def changed(account: Account, before: Health, now: Health) -> None:
        changes.append((str(account.id), now.state))

    pool = Pool(
        settings or PoolSettings(),
        kept,
        clock=clock or unix_clock(),
        draw=draw,
        on_change=changed,
        on_trouble=troubles.append,
    )
    for name in names:
        pool.add(named(name))
    return Pooled(pool, kept, changes, troubles)
