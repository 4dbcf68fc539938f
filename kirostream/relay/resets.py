"""When the credits of an exhausted account come back: asked once, when it is told that they are gone.

The refusal itself does not say when the quota is reset (kiro-protocol.md section 4.3). Until the answer is here the
pool waits as long as its settings say.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.health import Health, State
from kirostream.errors import KirostreamError

if TYPE_CHECKING:
    from kirostream.providers.kiro_management import AccountUsage

AskUsage: TypeAlias = "Callable[[Account], Awaitable[AccountUsage]]"

_AT_ONCE: Final = 4
"""Questions under way: a month's end may exhaust many accounts in one minute."""


class ResetBook(Protocol):
    """What is needed of `accounts.pool.Pool`."""

    async def note_reset(self, account: AccountId, resets_at: float) -> None:
        """See `accounts.pool.Pool.note_reset`."""


class Resets:
    """Watches for accounts that are exhausted.

    Args:
        nursery: owns the questions.
        usage: asks what an account has used.
        book: is told when its quota is reset.
        on_failed: told of a question without an answer.
        now: unix seconds.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        usage: AskUsage,
        book: ResetBook,
        on_failed: Callable[[Account, KirostreamError], None] = lambda account, error: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._nursery = nursery
        self._usage = usage
        self._book = book
        self._on_failed = on_failed
        self._now = now
        self._asking: set[AccountId] = set()
        self._limit = trio.CapacityLimiter(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Resets: asking for {len(self._asking)}>"

    def noticed(self, account: Account, before: Health, now: Health) -> None:
        """An account's health has changed; as `accounts.pool.Pool` tells it."""
        if now.state is not State.EXHAUSTED or before.state is State.EXHAUSTED or now.resets_at > self._now():
            return
        if account.id not in self._asking:
            self._asking.add(account.id)
            self._nursery.start_soon(self._ask, account, name=f"reset of {account.id}")

    async def _ask(self, account: Account) -> None:
        try:
            async with self._limit:
                usage = await self._usage(account)
                if usage.resets_at is not None:
                    await self._book.note_reset(account.id, usage.resets_at)
        except KirostreamError as error:
            self._on_failed(account, error)
        finally:
            self._asking.discard(account.id)
