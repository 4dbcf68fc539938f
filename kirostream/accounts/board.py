"""Who is free, who is out, and who waits: the part of the pool that never waits itself. Pure.

Theory. Every method changes the board from one whole state to another and returns. The pool calls them between its
waits; so at every checkpoint the board is whole, and whoever is cancelled there leaves nothing behind.

*Finding one.* Accounts that can be leased now stand in a heap by their rank (see `strategies`). The others are in no
order: those that wait for a moment (the end of a pause, their pace) have an **alarm** in a second heap; those that wait
for an event (a lease that ends, a person) have nothing. An entry of the first heap counts only while its account holds
its ticket, one of the second while the account has that alarm; what does not count is thrown away when it comes up. So
a lease costs the logarithm of the number of accounts, whatever has happened to the others. The exception is a need
that few accounts fit: those that do not are passed over one by one.

*Waiting.* Where every account that fits is busy (at its cap, before its pace, under a probe), a claim waits in line.
What becomes free is given to the first in line that it fits, before anybody new is looked at. Where none is busy and
all are out, waiting is no use, and the claim is refused, with the moment the first comes back.

*An only account* is leased though it cools: nobody could go on without it, and the upstream says best when it is ready
again. What is left to a person stays so, and "suspicious activity" is a reason to be silent for everybody.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import Final

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.health import (
    HEALTHY,
    LIMITS,
    PERMANENT,
    Health,
    HealthSettings,
    Kind,
    Outcome,
    State,
    after,
    opens_at,
)
from kirostream.accounts.strategies import Bindings, Rank, Strategy
from kirostream.accounts.terms import Terms
from kirostream.dataclass import dataclass
from kirostream.errors import AccountThrottled, KirostreamError, ModelNotOnAccount, NoAccount, QuotaSpent

REASON: Final = "ACCOUNTS_OUT"
"""The reason of a refusal where all accounts are out."""


@dataclass(frozen=True, slots=True)
class Need:
    """What an account is wanted for.

    `conversation` names what shall stay on one account, empty for nothing. `prefer` is the account that is taken if it
    can be. `exclude` are accounts that are out of the question, as a rule because they were tried. `wait` is in
    seconds, None for that of the settings.
    """

    model: str = ""
    conversation: str = ""
    prefer: AccountId | None = None
    exclude: Collection[AccountId] = ()
    wait: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSnapshot:
    """One account, now. Times are unix seconds.

    `state`, `until`, `failures`, `why` and `blocked` are those of its `Health`; an account that the settings leave out
    is DISABLED. `probing`: a request is finding out whether a pause is over. `outcomes` counts them by kind, since the
    start of the process.
    """

    id: AccountId
    label: str
    state: State
    until: float
    why: str
    failures: int
    blocked: tuple[str, ...]
    probing: bool
    in_flight: int
    leases: int
    outcomes: Mapping[str, int]
    terms: Terms


class Slot:
    """What is known of one account. It is the `Candidate` of the strategies.

    `present` says whether the settings have it used. `version` is that of the record that `health` was last read from
    or written to; `unsaved`: it was not written yet. `ticket` is that of its entry among the free ones, 0 while it is
    not among them; `alarm` is when it is to be looked at, 0 while nothing is due.
    """

    __slots__ = (
        "account",
        "alarm",
        "counts",
        "health",
        "in_flight",
        "leases",
        "paced_until",
        "present",
        "priority",
        "probing",
        "terms",
        "ticket",
        "turn",
        "unsaved",
        "version",
        "weight",
    )

    def __init__(self, account: Account, terms: Terms, *, present: bool) -> None:
        self.account = account
        self.terms = terms
        self.weight = terms.weight
        self.priority = terms.priority
        self.present = present
        self.health = HEALTHY
        self.version = 0
        self.unsaved = False
        self.in_flight = self.leases = self.turn = 0
        self.probing = False
        self.paced_until = 0.0
        self.ticket = 0
        self.alarm = 0.0
        self.counts: Counter[Kind] = Counter()

    def __repr__(self) -> str:
        return f"<Slot {self.account.id} {self.state.value}, {self.in_flight} in flight>"

    @property
    def state(self) -> State:
        """That of its health, or DISABLED by the settings."""
        return self.health.state if self.present else State.DISABLED

    def opens_at(self) -> float:
        """When it can be leased, unix seconds; infinity for never."""
        return opens_at(self.health) if self.present else math.inf

    def fits(self, need: Need, now: float) -> bool:
        """Whether it is fit for the need, free or not."""
        if need.exclude and self.account.id in need.exclude:
            return False
        if self.terms.models and not self.terms.allows(need.model):
            return False
        return not (self.health.blocked and self.health.blocks(need.model, now))

    def snapshot(self, now: float) -> AccountSnapshot:
        """How it is now. It holds no secrets."""
        return AccountSnapshot(
            id=self.account.id,
            label=self.account.label,
            state=self.state,
            until=self.health.until,
            why=self.health.why if self.present else "settings",
            failures=self.health.failures,
            blocked=tuple(model for model, until in self.health.blocked if until > now),
            probing=self.probing,
            in_flight=self.in_flight,
            leases=self.leases,
            outcomes=MappingProxyType({kind.value: count for kind, count in self.counts.items()}),
            terms=self.terms,
        )


class Claim:
    """One wish for an account: from when it is made until the account is given back.

    `slot` is the account while it is held, `began` when it was given (unix seconds). `refusal` is set where waiting
    turned out to be no use. `tell` is called when a claim in line was given an account or refused.
    """

    __slots__ = ("began", "need", "probe", "refusal", "slot", "tell")

    def __init__(self, need: Need) -> None:
        self.need = need
        self.slot: Slot | None = None
        self.began = 0.0
        self.probe = False
        self.refusal: KirostreamError | None = None
        self.tell: Callable[[], None] = lambda: None


class Board:
    """Every account and every claim. `now` is unix seconds throughout.

    Args:
        draw: random numbers of [0, 1), for the strategies that want them.
        bindings: which account a conversation is on; None where conversations are not kept on accounts.
        moves_on: whether a conversation goes to another account when the credits of its own are spent.
        on_change: told of every change of an account's health, with how it was before.
    """

    def __init__(
        self,
        strategy: Strategy,
        settings: HealthSettings,
        *,
        draw: Callable[[], float],
        bindings: Bindings | None,
        on_change: Callable[[Account, Health, Health], None],
        moves_on: bool = True,
    ) -> None:
        self._strategy = strategy
        self._settings = settings
        self._draw = draw
        self._bindings = bindings
        self._moves_on = moves_on
        self._on_change = on_change
        self.slots: dict[AccountId, Slot] = {}
        self.in_flight = 0
        self._free: list[tuple[Rank, int, Slot]] = []
        self._alarms: list[tuple[float, int, Slot]] = []
        self._line: dict[Claim, None] = {}
        self.present = 0  # how many the settings have used
        self._only: Slot | None = None
        self._tickets = self._turns = 0
        self._clock = 0.0  # of the strategy

    def __repr__(self) -> str:
        return f"<Board of {len(self.slots)} accounts, {self.in_flight} in flight, {len(self._line)} waiting>"

    @property
    def waiting(self) -> int:
        """How many claims are in line."""
        return len(self._line)

    @property
    def next_alarm(self) -> float:
        """When `wake` has something to do, infinity for never."""
        return self._alarms[0][0] if self._alarms else math.inf

    # Accounts

    def adopt(self, settings: HealthSettings, *, moves_on: bool) -> None:
        """Go by these from the next outcome on. Pauses that are begun end when it was said they would."""
        self._settings, self._moves_on = settings, moves_on

    def add(self, slot: Slot, now: float) -> None:
        """Put an account on the board. It takes the place, and the state, of one with the same id."""
        old = self.slots.get(slot.account.id)
        if old is not None:
            self._hide(old)
            slot.health, slot.version, slot.unsaved, slot.turn = old.health, old.version, old.unsaved, old.turn
        self.slots[slot.account.id] = slot
        self.present += slot.present
        self._find_only(now)
        self._place(slot, now)
        self._serve(now)

    def remove(self, account: AccountId, now: float) -> None:
        """Take an account off the board. Claims that hold it go on."""
        slot = self.slots.pop(account, None)
        if slot is not None:
            self._hide(slot)
            self._find_only(now)
            self._serve(now)
            self._refuse_the_hopeless(now)

    def become(self, slot: Slot, health: Health, now: float) -> None:
        """Change the health of an account, and all that hangs on it."""
        before = slot.health
        if health == before:
            return
        slot.health = health
        self._place(slot, now)
        if health.state is not before.state or health.until != before.until:
            self._on_change(slot.account, before, health)
        self._serve(now)
        self._refuse_the_hopeless(now)

    def hold_back(self, slot: Slot, until: float, now: float) -> None:
        """Lease the account no more before `until`."""
        slot.paced_until = max(slot.paced_until, until)
        self._place(slot, now)

    def _hide(self, slot: Slot) -> None:
        self.present -= slot.present
        slot.present = False
        slot.ticket, slot.alarm = 0, 0.0

    def _find_only(self, now: float) -> None:
        """Know the only account again, if there is one: other rules hold for it."""
        before = self._only
        self._only = next(slot for slot in self.slots.values() if slot.present) if self.present == 1 else None
        for slot in (before, self._only):
            if slot is not None and before is not self._only:
                self._place(slot, now)

    def _opens_at(self, slot: Slot) -> float:
        if slot is self._only and slot.health.state not in PERMANENT and slot.health.why != Kind.SUSPICIOUS.value:
            return 0.0
        return slot.opens_at()

    # Claims

    def take(self, claim: Claim, now: float) -> bool:
        """Give the claim an account, if one is free that nobody waits for.

        Raises:
            QuotaSpent: the credits of its conversation's own are spent, and it is not to move on.
        """
        self.wake(now)
        self._raise_if_spent(claim.need, now)
        slot = self._pick(claim.need, now)
        if slot is None:
            return False
        self._lend(claim, slot, now)
        return True

    def queue(self, claim: Claim, now: float) -> None:
        """Put the claim in line.

        Raises:
            KirostreamError: waiting is no use; see `Pool.lease`.
        """
        self._raise_if_hopeless(claim.need, now)
        self._line[claim] = None

    def leave(self, claim: Claim) -> None:
        """Take the claim out of the line, if it is in it."""
        self._line.pop(claim, None)

    def end(self, claim: Claim, outcome: Outcome, now: float) -> bool:
        """Give the account back, with what came of it; True if its health has changed."""
        slot = self._give_back(claim)
        slot.counts[outcome.kind] += 1
        before = slot.health
        self.become(slot, after(before, outcome, now, self._settings, began=claim.began), now)
        if not slot.ticket or self._strategy.by_load:
            self._place(slot, now)
        if self._line:
            self._serve(now)
        return slot.health is not before

    def again(self, slot: Slot, outcome: Outcome, began: float, now: float) -> bool:
        """Apply an outcome to a health that was replaced meanwhile; True if it has changed."""
        before = slot.health
        self.become(slot, after(before, outcome, now, self._settings, began=began), now)
        return slot.health is not before

    def undo(self, claim: Claim, now: float) -> None:
        """Give an account back that was not used."""
        slot = self._give_back(claim)
        slot.leases -= 1
        self._place(slot, now)
        self._serve(now)

    def wake(self, now: float) -> None:
        """Look at the accounts whose alarm is due, and at the line."""
        rung = False
        while self._alarms and self._alarms[0][0] <= now:
            when, _, slot = heappop(self._alarms)
            if slot.alarm == when:
                slot.alarm = 0.0
                self._place(slot, now)
                rung = True
        if rung:
            self._serve(now)

    def outlook(self, need: Need, now: float) -> KirostreamError | None:
        """Why no account can be had for `need`, now or by waiting in line; None where one can."""
        try:
            self._raise_if_hopeless(need, now)
        except KirostreamError as error:
            return error
        return None

    # What they are made of

    def _pick(self, need: Need, now: float) -> Slot | None:
        """A free account for `need`, out of the heap: the preferred one, the conversation's, the next that fits."""
        slot = self.slots.get(need.prefer) if need.prefer is not None else None
        if slot is None or not (slot.ticket and slot.fits(need, now)):
            slot = self._bound(need.conversation, now)
        if slot is not None and slot.ticket and slot.fits(need, now):
            slot.ticket = 0
            return slot
        passed: list[Slot] = []
        found = None
        while self._free:
            rank, ticket, slot = heappop(self._free)
            if slot.ticket != ticket:
                continue
            slot.ticket = 0
            if rank[0] < math.inf:
                self._clock = rank[0]
            if slot.fits(need, now):
                found = slot
                break
            passed.append(slot)
        for slot in passed:
            self._enter(slot)
        return found

    def _bound(self, conversation: str, now: float) -> Slot | None:
        """The account of a conversation, if it has one."""
        if not conversation or self._bindings is None:
            return None
        account = self._bindings.get(conversation, now)
        return self.slots.get(account) if account is not None else None

    def _lend(self, claim: Claim, slot: Slot, now: float) -> None:
        self._turns += 1
        self.in_flight += 1
        slot.in_flight += 1
        slot.leases += 1
        slot.turn = self._turns
        claim.slot = slot
        claim.began = max(now, slot.health.until)  # that of an only account may come before the end of its pause
        claim.probe = slot.health.state is not State.READY
        if claim.probe:
            slot.probing = True
        if slot.terms.interval:
            slot.paced_until = now + slot.terms.interval
        if claim.need.conversation and self._bindings is not None:
            bound = self._bound(claim.need.conversation, now)
            # One that is only busy stays the conversation's own.
            if bound is None or bound is slot or self._opens_at(bound) > now or not bound.fits(claim.need, now):
                self._bindings.bind(claim.need.conversation, slot.account.id, now)
        self._place(slot, now)

    def _give_back(self, claim: Claim) -> Slot:
        slot = claim.slot
        assert slot is not None
        claim.slot = None
        self.in_flight -= 1
        slot.in_flight -= 1
        if claim.probe:
            slot.probing = False
        return slot

    def _place(self, slot: Slot, now: float) -> None:
        """Put an account where it belongs: among the free ones, behind an alarm, or nowhere."""
        slot.ticket = 0
        when = max(self._opens_at(slot), slot.paced_until)
        if when > now:
            if when < math.inf and when != slot.alarm:
                slot.alarm = when
                self._tickets += 1
                heappush(self._alarms, (when, self._tickets, slot))
        elif (slot is self._only or not slot.probing) and not 0 < slot.terms.concurrency <= slot.in_flight:
            self._enter(slot)

    def _enter(self, slot: Slot) -> None:
        self._tickets += 1
        slot.ticket = self._tickets
        heappush(self._free, (self._strategy.rank(slot, self._clock, self._draw()), slot.ticket, slot))
        if len(self._free) > 2 * len(self.slots) + 64:  # most of it does not count any more
            self._free = [entry for entry in self._free if entry[2].ticket == entry[1]]
            heapify(self._free)

    def _serve(self, now: float) -> None:
        """Give what is free to those in line: first come, first served."""
        for claim in tuple(self._line):
            if not self._free:
                return
            slot = self._pick(claim.need, now)
            if slot is not None:
                del self._line[claim]
                self._lend(claim, slot, now)
                claim.tell()

    # Refusing

    def _refuse_the_hopeless(self, now: float) -> None:
        for claim in tuple(self._line):
            try:
                self._raise_if_hopeless(claim.need, now)
            except KirostreamError as error:
                del self._line[claim]
                claim.refusal = copy.copy(error)
                claim.tell()

    def _raise_if_hopeless(self, need: Need, now: float) -> None:
        """Nothing, where an account that fits is only busy. It looks at every account."""
        self._raise_if_spent(need, now)
        if not self.slots:
            raise NoAccount("There is no account. Sign in with: kirostream login")
        present = [slot for slot in self.slots.values() if slot.present]
        if not present:
            raise NoAccount("The settings leave all accounts out (pool.selected, pool.accounts).")
        tried = [slot for slot in present if slot.account.id in need.exclude]
        out = []
        for slot in present:
            if slot.fits(need, now):
                if self._opens_at(slot) <= now:
                    return
                out.append(slot)
        out += [slot for slot in tried if slot.opens_at() > now]
        if out:
            raise refusal(out, now)
        if tried:
            raise NoAccount("Every account was tried for this request.")
        raise ModelNotOnAccount(f"No account has the model {need.model!r}, or is to be used for it.")

    def _raise_if_spent(self, need: Need, now: float) -> None:
        if self._moves_on:
            return
        own = self._bound(need.conversation, now)
        if own is not None and own.state is State.EXHAUSTED and own.opens_at() > now:
            raise refusal([own], now)


_STATES: Final[Mapping[State, str]] = {
    State.COOLING: "cooling",
    State.EXHAUSTED: "out of credits",
    State.NEEDS_LOGIN: "in need of a login (kirostream login)",
    State.SUSPENDED: "suspended by the upstream",
    State.DISABLED: "disabled",
}


def refusal(slots: Collection[Slot], now: float) -> KirostreamError:
    """What is said where all of `slots` are out: 429 where some come back by themselves, else 503."""
    states = Counter(slot.state for slot in slots)
    coming = [slot for slot in slots if slot.opens_at() < math.inf]
    message = f"No account can be used now: {', '.join(_words(states))}."
    if not coming:
        return NoAccount(message, reason=REASON)
    retry_after = max(min(slot.opens_at() for slot in coming) - now, 0.0)
    if all(slot.state is State.EXHAUSTED for slot in coming):
        return QuotaSpent(message, reason=REASON, retry_after=retry_after)
    if any(slot.health.why in LIMITS for slot in coming):
        return AccountThrottled(message, reason=REASON, retry_after=retry_after)
    return NoAccount(message, reason=REASON, retry_after=retry_after)


def _words(states: Mapping[State, int]) -> Iterator[str]:
    return (f"{states[state]} {words}" for state, words in _STATES.items() if state in states)
