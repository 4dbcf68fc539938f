"""The accounts, and who uses which: ``async with pool.lease(need) as lease``.

Theory. What can be decided at once is decided by the `Board`, which never waits. The pool waits before and after: for
an account that is busy, and for the store.

Health lives in a `PoolStore`, so that it outlives the process and several processes can go by it; the board has a copy.
Changes of others are read from time to time (`run`). What is written is compared first: an outcome that comes second is
applied again, to what came first. In a shared store a lease is taken too, so that caps and pace hold for all processes
together, and it is refused there while the copy is out of date. A probe is one in each process. Only in a shared store
does a lease cost a transaction, and wait for it. Else only a change of health is written, and that by `run`: the next
try of a turn does not wait for a disk.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from types import TracebackType
from typing import Final

import trio

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.board import AccountSnapshot, Board, Claim, Need, Slot
from kirostream.accounts.health import (
    ABANDONED,
    PERMANENT,
    Health,
    HealthSettings,
    Outcome,
    cleared,
    disabled,
    resetting,
)
from kirostream.accounts.store import LeaseId, Limits, PoolStore, Record, amend
from kirostream.accounts.strategies import STRATEGIES, Bindings
from kirostream.accounts.terms import Terms, read_section, terms_of
from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, LocalProtocolError, NoAccount, SettingsError, StoreError

KEEPING: Final = 10.0
"""Seconds that writing an outcome down may take."""
ELSEWHERE: Final = 0.05
"""Seconds until an account that another process has taken is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How accounts are shared out."""

    strategy: str = field(
        default="round_robin", metadata={"help": f"Who is next: {', '.join(STRATEGIES)}.", "live": False}
    )
    sticky: bool = field(
        default=True,
        metadata={
            "help": "Keep a conversation on its account while that can be used, for the upstream's cache.",
            "live": False,
        },
    )
    sticky_idle: float = field(
        default=3600.0,
        metadata={"help": "A conversation that is silent for so long may go anywhere.", "unit": "s", "live": False},
    )
    sticky_room: int = field(
        default=10_000,
        metadata={"help": "Most conversations that are kept on an account.", "unit": "conversations", "live": False},
    )
    switch_when_spent: bool = field(
        default=True,
        metadata={
            "help": "Go on with another account when the credits of one are spent. Off: a conversation stays (sticky)."
        },
    )
    selected: str = field(
        default="", metadata={"help": "The accounts to use, ids or labels with commas between them. Empty: all."}
    )
    wait: float = field(default=30.0, metadata={"help": "How long a request waits for a busy account.", "unit": "s"})
    waiting: int = field(default=1000, metadata={"help": "Most requests that wait.", "unit": "requests"})
    lease: float = field(
        default=60.0,
        metadata={"help": "How long the leases of a process that died are respected.", "unit": "s", "live": False},
    )
    sync: float = field(
        default=2.0, metadata={"help": "How often changes by other processes are read.", "unit": "s", "live": False}
    )
    health: HealthSettings = field(default_factory=HealthSettings)
    accounts: Mapping[str, object] = field(
        default_factory=dict,
        metadata={
            "help": 'What holds for one account, by its id or label, or for every one ("*"): '
            "enabled, weight, priority, concurrency, interval, models, proxy, region, endpoint. A change of the last "
            "three acts after a restart.",
            "secret": True,
        },
        repr=False,  # a proxy may hold a password
    )

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SettingsError(f"pool.strategy is {self.strategy!r}; it takes one of: {', '.join(STRATEGIES)}")
        for name in ("sticky_idle", "lease", "sync"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"pool.{name} is {getattr(self, name):g}; it takes seconds above 0")
        if not self.wait >= 0:
            raise SettingsError(f"pool.wait is {self.wait:g}; it takes 0 seconds or more")
        for name in ("sticky_room", "waiting"):
            if getattr(self, name) < 1:
                raise SettingsError(f"pool.{name} is {getattr(self, name)}; it takes 1 or more")
        for name, section in self.accounts.items():
            read_section(name, section)

    def selects(self, account: Account) -> bool:
        """Whether the account is among those to use."""
        chosen = [name.strip() for name in self.selected.split(",") if name.strip()]
        return not chosen or account.id in chosen or account.label in chosen


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """All accounts, in the order they were added; how many leases are held, and how many requests wait for one."""

    accounts: tuple[AccountSnapshot, ...]
    in_flight: int
    waiting: int


ANY: Final = Need()


class Lease:
    """The use of one account, for one request. A context; it is entered once.

    `settle` says what came of the request, once; a lease that ends without it was ABANDONED.
    """

    __slots__ = ("_claim", "_entered", "_id", "_outcome", "_pool")

    def __init__(self, pool: Pool, need: Need) -> None:
        self._pool = pool
        self._claim = Claim(need)
        self._entered = False
        self._id: LeaseId | None = None  # in a shared store
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<Lease of {self._claim.slot!r}>"

    @property
    def account(self) -> Account:
        """The account.

        Raises:
            LocalProtocolError: the lease is not held.
        """
        return self._slot.account

    @property
    def terms(self) -> Terms:
        """What the operator says of the account.

        Raises:
            LocalProtocolError: the lease is not held.
        """
        return self._slot.terms

    @property
    def _slot(self) -> Slot:
        if self._claim.slot is None:
            raise LocalProtocolError("a lease has an account only while it is held")
        return self._claim.slot

    def settle(self, outcome: Outcome) -> None:
        """Say what came of the request.

        Raises:
            LocalProtocolError: it was said already, or the lease is not held.
        """
        if self._outcome is not None or self._claim.slot is None:
            raise LocalProtocolError("a lease is settled once, while it is held")
        self._outcome = outcome

    async def __aenter__(self) -> Lease:
        if self._entered:
            raise LocalProtocolError("a lease is entered once")
        self._entered = True
        self._id = await self._pool._acquire(self._claim)  # noqa: SLF001 - two halves of one thing
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool._release(self._claim, self._id, self._outcome or ABANDONED)  # noqa: SLF001


class Pool:
    """The accounts. Leases may be taken once `sync` or `run` has read the store.

    Args:
        clock: unix seconds.
        draw: random numbers of [0, 1), for the strategies that want them.
        on_change: told of every change of an account's health, with how it was before.
        on_trouble: told when the store cannot be used. The pool goes on with what it knows.
    """

    def __init__(
        self,
        settings: PoolSettings,
        store: PoolStore,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        on_change: Callable[[Account, Health, Health], None] = lambda account, before, now: None,
        on_trouble: Callable[[StoreError], None] = lambda error: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._on_trouble = on_trouble
        self._board = Board(
            STRATEGIES[settings.strategy],
            settings.health,
            draw=draw,
            bindings=Bindings(settings.sticky_room, settings.sticky_idle) if settings.sticky else None,
            on_change=on_change,
            moves_on=settings.switch_when_spent,
        )
        self._held: set[LeaseId] = set()  # in a shared store
        self._seen = 0  # the version up to which the store was read
        self._running = False
        self._news = trio.Event()
        self._changed: dict[
            Slot, tuple[Outcome, float]
        ] = {}  # what `run` has to write: the last outcome, and its begin

    def __repr__(self) -> str:
        board = self._board
        return f"<Pool of {len(board.slots)} accounts, {board.in_flight} in flight, {board.waiting} waiting>"

    # Who is in it

    def add(self, account: Account) -> None:
        """Use `account` from now on, as the settings have it. One that is in the pool already keeps its state."""
        terms = terms_of(account, self._settings.accounts)
        if account.id not in self._board.slots:
            self._seen = 0  # the store may know it
        self._board.add(Slot(account, terms, present=terms.enabled and self._settings.selects(account)), self._clock())

    def adopt(self, settings: PoolSettings) -> None:
        """Go by other settings, from the next lease on. The strategy, and who is sticky, stay."""
        self._settings = settings
        self._board.adopt(settings.health, moves_on=settings.switch_when_spent)
        for slot in list(self._board.slots.values()):
            terms = terms_of(slot.account, settings.accounts)
            if (terms, terms.enabled and settings.selects(slot.account)) != (slot.terms, slot.present):
                self.add(slot.account)

    def remove(self, account: AccountId) -> None:
        """Lease the account no more. Leases that are held go on."""
        self._board.remove(account, self._clock())

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Everyone in it, in the order they were added."""
        return tuple(slot.account for slot in self._board.slots.values())

    def label(self, account: AccountId) -> str:
        """What people call an account; its id, where it is not here any more."""
        slot = self._board.slots.get(account)
        return slot.account.label if slot is not None else account

    @property
    def moves_on(self) -> bool:
        """Whether a turn goes on with another account when the credits of one are spent."""
        return self._settings.switch_when_spent

    @property
    def size(self) -> int:
        """How many accounts the settings have used."""
        return self._board.present

    def usable(self) -> tuple[Account, ...]:
        """Those that no person has to see to first, in the order they were added. They may be busy or cooling."""
        return tuple(slot.account for slot in self._board.slots.values() if slot.state not in PERMANENT)

    def snapshot(self) -> PoolSnapshot:
        """The state of everything now. It holds no secrets."""
        now = self._clock()
        accounts = tuple(slot.snapshot(now) for slot in self._board.slots.values())
        return PoolSnapshot(accounts, self._board.in_flight, self._board.waiting)

    # What people and programs do to it

    async def disable(self, account: AccountId, why: str = "disabled") -> None:
        """Lease the account no more until it is cleared, in every process.

        Raises:
            StoreError: it could not be written down.
        """
        await self._amend(account, lambda health: disabled(health, self._clock(), why))

    async def clear(self, account: AccountId) -> None:
        """Make the account ready, whatever it was, in every process.

        Raises:
            StoreError: it could not be written down.
        """
        await self._amend(account, lambda health: cleared(health, self._clock()))

    async def note_reset(self, account: AccountId, resets_at: float) -> None:
        """The quota of the account comes back at `resets_at`, unix seconds.

        Raises:
            StoreError: it could not be written down.
        """
        await self._amend(account, lambda health: resetting(health, resets_at, self._clock(), self._settings.health))

    async def _amend(self, account: AccountId, change: Callable[[Health], Health]) -> None:
        self._adopt(await amend(self._store, account, change))

    # Leasing

    def lease(self, need: Need = ANY) -> Lease:
        """The use of an account; ``async with`` waits for it.

        Entering raises:
            AccountThrottled: all that fit are throttled; `retry_after` is when the first comes back.
            QuotaSpent: their credits are spent, as above.
            ModelNotOnAccount: no account has the model, or is to be used for it.
            NoAccount: there is none, or none was free in time; the message says why.
            StoreError: a shared store cannot be used.
        """
        return Lease(self, need)

    def outlook(self, need: Need = ANY) -> KirostreamError | None:
        """What a lease for `need` would be refused with now; None where it would be given, at once or after a while."""
        return self._board.outlook(need, self._clock())

    async def _acquire(self, claim: Claim) -> LeaseId | None:
        """Until the claim has an account; the lease in a shared store, if it is one."""
        # Not a whole checkpoint: who leases goes on to a token and a connection, and yields there.
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline: float | None = None
        while True:
            if not self._board.take(claim, self._clock()):
                if deadline is None:
                    wait = self._settings.wait if claim.need.wait is None else claim.need.wait
                    deadline = trio.current_time() + wait
                await self._wait(claim, deadline)
            if not self._store.shared:
                return None
            lease = await self._acquire_elsewhere(claim)
            if lease is not None:
                return lease

    async def _wait(self, claim: Claim, deadline: float) -> None:
        """Until the claim in line has an account, or is refused."""
        board = self._board
        if board.waiting >= self._settings.waiting:
            raise NoAccount(
                f"All accounts are busy, and {board.waiting} requests wait for them already (pool.waiting).",
                retry_after=1.0,
            )
        told = trio.Event()
        claim.tell = told.set
        board.queue(claim, self._clock())
        try:
            while not told.is_set():
                if trio.current_time() >= deadline:
                    raise NoAccount(
                        "All accounts are busy, and none was free in time (pool.wait). Try again, or let them take more"
                        " requests at once (pool.accounts).",
                        retry_after=1.0,
                    )
                pause = max(board.next_alarm - self._clock(), 0.0)
                with trio.move_on_at(min(deadline, trio.current_time() + pause)):
                    await told.wait()
                board.wake(self._clock())
            if claim.refusal is not None:
                raise claim.refusal
        except BaseException:
            board.leave(claim)
            if claim.slot is not None:
                board.undo(claim, self._clock())
            raise

    async def _acquire_elsewhere(self, claim: Claim) -> LeaseId | None:
        """A lease of the account in the shared store, too; None: others have it, and the claim has nothing any more."""
        slot = claim.slot
        assert slot is not None
        limits = Limits(slot.terms.concurrency, slot.terms.interval, self._settings.lease)
        lease = None
        try:
            lease = await self._store.try_acquire(slot.account.id, slot.version, limits, self._clock())
            if lease is None:
                self._board.hold_back(slot, self._clock() + ELSEWHERE, self._clock())
                await self.sync()
        finally:
            if lease is None:
                self._board.undo(claim, self._clock())
            else:
                self._held.add(lease)
        return lease

    async def _release(self, claim: Claim, lease: LeaseId | None, outcome: Outcome) -> None:
        slot, began, now = claim.slot, claim.began, self._clock()
        assert slot is not None
        changed = self._board.end(claim, outcome, now)
        if lease is None and not changed:
            return
        if lease is None and self._running:
            self._changed[slot] = (outcome, began)
            self._news.set()
            return
        kept = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KEEPING):
            try:
                await self._keep(slot, lease, outcome, began, changed=changed)
                kept = True
            except StoreError as error:
                self._on_trouble(error)
        if changed and not kept:
            slot.unsaved = True  # `run` tries again

    async def _keep(self, slot: Slot, lease: LeaseId | None, outcome: Outcome, began: float, *, changed: bool) -> None:
        """Write down how a lease ended."""
        account, now = slot.account.id, self._clock()
        if lease is not None:
            self._held.discard(lease)
        version = await self._store.settle(account, lease, slot.health if changed else None, slot.version)
        while changed and version is None:  # somebody was faster: what he wrote comes first, and ours on top
            self._seen = min(self._seen, slot.version)
            await self.sync()
            changed = self._board.again(slot, outcome, began, now)
            if changed:
                version = await self._store.settle(account, None, slot.health, slot.version)
        slot.version = max(slot.version, version or 0)

    # The store

    async def sync(self) -> None:
        """Read what other processes have changed.

        Raises:
            StoreError: the store cannot be read.
        """
        for record in await self._store.changes(self._seen):
            self._seen = max(self._seen, record.version)
            self._adopt(record)

    def _adopt(self, record: Record) -> None:
        slot = self._board.slots.get(record.account)
        if slot is not None and record.version > slot.version:
            slot.version = record.version
            self._board.become(slot, record.health, self._clock())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay in touch with the store until cancelled: read changes, renew leases, write what could not be written.

        Raises:
            StoreError: the store cannot be read in the beginning.
        """
        await self.sync()
        self._running = True
        task_status.started()
        try:
            await self._run()
        finally:
            self._running = False
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KEEPING):
                await self._write()
                try:
                    await self._save_the_unsaved()
                except StoreError as error:
                    self._on_trouble(error)

    async def _run(self) -> None:
        look_at = renewed_at = trio.current_time()
        troubled = False
        while True:
            self._news = trio.Event()
            await self._write()
            with trio.move_on_at(look_at):
                await self._news.wait()
                continue
            look_at = trio.current_time() + self._settings.sync
            try:
                if trio.current_time() - renewed_at >= self._settings.lease / 3:
                    renewed_at = trio.current_time()
                    if self._held:
                        await self._store.renew(tuple(self._held), self._settings.lease, self._clock())
                await self.sync()
                await self._save_the_unsaved()
                troubled = False
            except StoreError as error:
                if not troubled:
                    self._on_trouble(error)
                troubled = True

    async def _write(self) -> None:
        """Write what has changed."""
        while self._changed:
            slot = next(iter(self._changed))
            outcome, began = self._changed.pop(slot)
            slot.unsaved = True
            try:
                await self._keep(slot, None, outcome, began, changed=True)
                slot.unsaved = False
            except StoreError as error:
                self._on_trouble(error)

    async def _save_the_unsaved(self) -> None:
        """Write what could not be written before. Where others have written meanwhile, theirs holds."""
        for slot in [slot for slot in self._board.slots.values() if slot.unsaved]:
            version = await self._store.settle(slot.account.id, None, slot.health, slot.version)
            slot.version = max(slot.version, version or 0)
            slot.unsaved = False
