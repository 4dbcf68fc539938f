"""Where the state of accounts is kept, and who may lease one: the port, and a store in memory.

A store knows nothing of strategies. It keeps one `Record` an account, each with a version that grows with every change
in the store, and compares before it swaps: who changes a record names the version he has seen. The leases it counts
end by themselves when nobody renews them, so a worker that dies takes nothing with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NewType, Protocol

import trio

from kirostream.accounts.account import AccountId
from kirostream.accounts.health import HEALTHY, Health
from kirostream.dataclass import dataclass

LeaseId = NewType("LeaseId", int)


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of an account. `version` is that of its last change; there is none before the first."""

    account: AccountId
    health: Health
    version: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a lease is bound to.

    `at_once` is how many leases an account may have, 0 for no limit. `interval` is the time between the beginnings of
    two, and `ttl` how long one lives without being renewed, both in seconds.
    """

    at_once: int = 0
    interval: float = 0.0
    ttl: float = 60.0


class PoolStore(Protocol):
    """The port. Times are unix seconds. All methods raise StoreError where the store cannot be used."""

    @property
    def shared(self) -> bool:
        """Whether other processes lease from it. If not, nobody but the pool needs to count leases."""

    async def changes(self, since: int) -> Sequence[Record]:
        """Every record with a version above `since`, in order of their versions."""

    async def try_acquire(self, account: AccountId, seen: int, limits: Limits, now: float) -> LeaseId | None:
        """A lease; None where a limit forbids it, or the record changed since version `seen` (0: there was none)."""

    async def renew(self, leases: Sequence[LeaseId], ttl: float, now: float) -> None:
        """Let leases live another `ttl` seconds. Those that ended are left alone."""

    async def settle(
        self, account: AccountId, lease: LeaseId | None, health: Health | None = None, seen: int = 0
    ) -> int | None:
        """End a lease, if there is one, and keep `health`, if it is given and the record is at version `seen`.

        Returns:
            The new version; None where nothing was kept. The lease has ended in any case.
        """


class MemoryPoolStore:
    """A store as long as the process lives: for tests, and for those who want nothing kept.

    Args:
        shared: whether several pools use it.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._records: dict[AccountId, Record] = {}
        self._leases: dict[AccountId, dict[LeaseId, float]] = {}  # until when
        self._next_at: dict[AccountId, float] = {}
        self._version = self._lease = 0

    def __repr__(self) -> str:
        return f"<MemoryPoolStore: {len(self._records)} records, {sum(map(len, self._leases.values()))} leases>"

    @property
    def shared(self) -> bool:
        """See `PoolStore.shared`."""
        return self._shared

    async def changes(self, since: int) -> Sequence[Record]:
        """See `PoolStore.changes`."""
        await trio.lowlevel.checkpoint()
        return sorted(
            (record for record in self._records.values() if record.version > since), key=lambda record: record.version
        )

    async def try_acquire(self, account: AccountId, seen: int, limits: Limits, now: float) -> LeaseId | None:
        """See `PoolStore.try_acquire`."""
        await trio.lowlevel.checkpoint()
        record = self._records.get(account)
        if (record.version if record else 0) != seen or self._next_at.get(account, 0.0) > now:
            return None
        held = {lease: until for lease, until in self._leases.get(account, {}).items() if until > now}
        self._leases[account] = held
        if limits.at_once and len(held) >= limits.at_once:
            return None
        if limits.interval:
            self._next_at[account] = now + limits.interval
        self._lease += 1
        lease = LeaseId(self._lease)
        held[lease] = now + limits.ttl
        return lease

    async def renew(self, leases: Sequence[LeaseId], ttl: float, now: float) -> None:
        """See `PoolStore.renew`."""
        await trio.lowlevel.checkpoint()
        for held in self._leases.values():
            for lease in held.keys() & set(leases):
                if held[lease] > now:
                    held[lease] = now + ttl

    async def settle(
        self, account: AccountId, lease: LeaseId | None, health: Health | None = None, seen: int = 0
    ) -> int | None:
        """See `PoolStore.settle`."""
        await trio.lowlevel.checkpoint()
        if lease is not None:
            self._leases.get(account, {}).pop(lease, None)
        record = self._records.get(account)
        if health is None or (record.version if record else 0) != seen:
            return None
        self._version += 1
        self._records[account] = Record(account, health, self._version)
        return self._version


async def amend(store: PoolStore, account: AccountId, change: Callable[[Health], Health]) -> Record:
    """Change what is kept of an account, whoever else does so at the same time: how a command reaches every process.

    Args:
        change: gives the new health for the one that is kept. It is called again where somebody was faster.

    Raises:
        StoreError: the store cannot be used.
    """
    while True:
        found = next((each for each in await store.changes(0) if each.account == account), None)
        known = found or Record(account, HEALTHY, 0)
        health = change(known.health)
        if health == known.health:
            return known
        version = await store.settle(account, None, health, known.version)
        if version is not None:
            return Record(account, health, version)
