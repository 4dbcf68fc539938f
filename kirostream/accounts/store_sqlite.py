"""The state of accounts in the embedded database: it outlives the process, and processes of one machine share it.

Every step is one transaction on rows that an index finds, however many accounts there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kirostream.accounts.account import AccountId
from kirostream.accounts.health import Health, State
from kirostream.accounts.store import LeaseId, Limits, Record
from kirostream.errors import StoreError
from kirostream.stores.sqlite import Connection, Database

_blocks = msgspec.json.Decoder(tuple[tuple[str, float], ...]).decode


class SqlitePoolStore:
    """See `PoolStore`. All methods raise StoreError where the database cannot be used.

    Args:
        shared: whether other processes lease from the same database. If not, health alone is kept in it.
    """

    def __init__(self, database: Database, *, shared: bool = False) -> None:
        self._database = database
        self._shared = shared

    def __repr__(self) -> str:
        return f"<SqlitePoolStore {self._database!r}{', shared' if self._shared else ''}>"

    @property
    def shared(self) -> bool:
        """See `PoolStore.shared`."""
        return self._shared

    async def changes(self, since: int) -> Sequence[Record]:
        """See `PoolStore.changes`."""

        def work(connection: Connection) -> list[Record]:
            return [
                _record(row)
                for row in connection.execute(
                    "SELECT account, version, state, until, failures, pauses, why, since, resets_at, blocked"
                    " FROM pool_accounts WHERE version > ? ORDER BY version",
                    (since,),
                )
            ]

        return await self._database.read(work)

    async def try_acquire(self, account: AccountId, seen: int, limits: Limits, now: float) -> LeaseId | None:
        """See `PoolStore.try_acquire`."""

        def work(connection: Connection) -> LeaseId | None:
            if _version(connection, account) != seen:
                return None
            (next_at,) = connection.execute(
                "SELECT COALESCE((SELECT next_at FROM pool_pace WHERE account = ?), 0)", (account,)
            ).fetchone()
            if next_at > now:
                return None
            connection.execute("DELETE FROM pool_leases WHERE account = ? AND until <= ?", (account, now))
            if limits.at_once:
                (held,) = connection.execute(
                    "SELECT COUNT(*) FROM pool_leases WHERE account = ?", (account,)
                ).fetchone()
                if held >= limits.at_once:
                    return None
            if limits.interval:
                connection.execute("INSERT OR REPLACE INTO pool_pace VALUES (?, ?)", (account, now + limits.interval))
            cursor = connection.execute(
                "INSERT INTO pool_leases (account, until) VALUES (?, ?)", (account, now + limits.ttl)
            )
            return LeaseId(cursor.lastrowid or 0)

        return await self._database.write(work)

    async def renew(self, leases: Sequence[LeaseId], ttl: float, now: float) -> None:
        """See `PoolStore.renew`."""

        def work(connection: Connection) -> None:
            connection.executemany(
                "UPDATE pool_leases SET until = ? WHERE id = ? AND until > ?",
                [(now + ttl, lease, now) for lease in leases],
            )

        await self._database.write(work)

    async def settle(
        self, account: AccountId, lease: LeaseId | None, health: Health | None = None, seen: int = 0
    ) -> int | None:
        """See `PoolStore.settle`."""

        def work(connection: Connection) -> int | None:
            if lease is not None:
                connection.execute("DELETE FROM pool_leases WHERE id = ?", (lease,))
            if health is None or _version(connection, account) != seen:
                return None
            (version,) = connection.execute("SELECT COALESCE(MAX(version), 0) + 1 FROM pool_accounts").fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO pool_accounts"
                " (account, version, state, until, failures, pauses, why, since, resets_at, blocked)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    account,
                    version,
                    health.state.name,
                    health.until,
                    health.failures,
                    health.pauses,
                    health.why,
                    health.since,
                    health.resets_at,
                    msgspec.json.encode(health.blocked).decode(),
                ),
            )
            return int(version)

        return await self._database.write(work)


def _version(connection: Connection, account: AccountId) -> int:
    row = connection.execute("SELECT version FROM pool_accounts WHERE account = ?", (account,)).fetchone()
    return int(row[0]) if row else 0


def _record(row: Any) -> Record:
    account, version, state, until, failures, pauses, why, since, resets_at, blocked = row
    try:
        health = Health(
            state=State[state],
            until=until,
            failures=failures,
            pauses=pauses,
            why=why,
            since=since,
            resets_at=resets_at,
            blocked=_blocks(blocked),
        )
    except (KeyError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreError(
            f"the state of account {account} in the database cannot be read; clear it: kirostream accounts reset"
        ) from error
    return Record(account, health, version)
