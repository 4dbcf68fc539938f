"""Who is next: the ways to choose among accounts. Pure; chance is an argument.

Theory. A strategy does not look at all accounts: that would cost a lease more with every account. It gives each one a
**rank**, and the pool keeps the free accounts in a heap, lowest rank first. A rank is made anew when an account is
leased, when it becomes free again, and when it was passed over, so it may depend on whatever changes at those moments.

- ``round_robin``: the one that was leased longest ago. While all are free this is an exact ring.
- ``weighted``: at random, each as often as its weight says. Every account is a clock that rings at random, `weight`
  times a unit of time on average; the next to ring is chosen. The first of several exponential clocks is clock i with
  probability ``weight i / sum``, whatever rang before, so the choices are independent, as if drawn from a hat each
  time, and the heap finds them in logarithmic time. That the clocks have no memory is why a rank may be drawn anew.
- ``least_used``: the one with the fewest requests in flight, then in all, both in proportion to its weight.
- ``priority``: the lowest number; among equals, round robin.

Keeping a conversation on its account (`Bindings`) is no strategy of its own: it goes before any of them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

from kirostream.accounts.account import AccountId
from kirostream.dataclass import dataclass

Rank: TypeAlias = tuple[float, ...]


class Candidate(Protocol):
    """What a strategy may know of an account.

    `weight` is 0 or more, `priority` any number. `turn` is the number of the lease it got last, 0 before the first.
    """

    weight: float
    priority: int
    in_flight: int
    leases: int
    turn: int


@dataclass(frozen=True, slots=True)
class Strategy:
    """How ranks are made.

    `rank` takes the candidate, the first part of the rank that was chosen last, and a random number of [0, 1).
    `by_load` says whether a rank falls when a lease ends.
    """

    rank: Callable[[Candidate, float, float], Rank]
    by_load: bool = False


def round_robin(candidate: Candidate, clock: float, draw: float) -> Rank:
    """The one that was leased longest ago."""
    return (candidate.turn,)


def weighted(candidate: Candidate, clock: float, draw: float) -> Rank:
    """At random, in proportion to the weights. A weight of 0 is chosen when there is nothing else."""
    if candidate.weight <= 0:
        return (math.inf, candidate.turn)
    return (clock - math.log1p(-draw) / candidate.weight, 0.0)


def least_used(candidate: Candidate, clock: float, draw: float) -> Rank:
    """The one with the fewest requests in flight, then the fewest in all."""
    if candidate.weight <= 0:
        return (math.inf, candidate.in_flight, candidate.leases)
    return (candidate.in_flight / candidate.weight, candidate.leases / candidate.weight)


def priority(candidate: Candidate, clock: float, draw: float) -> Rank:
    """The lowest number first; among equals, the one that was leased longest ago."""
    return (candidate.priority, candidate.turn)


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "round_robin": Strategy(round_robin),
    "weighted": Strategy(weighted),
    "least_used": Strategy(least_used, by_load=True),
    "priority": Strategy(priority),
}


class Bindings:
    """Which account a conversation was last on, so that it stays there and the upstream's cache is used again.

    Args:
        room: conversations that are remembered; the one that was silent longest goes first.
        idle: seconds after which a silent conversation is forgotten.
    """

    def __init__(self, room: int, idle: float) -> None:
        self._room = room
        self._idle = idle
        self._held: OrderedDict[str, tuple[AccountId, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<Bindings of {len(self._held)} conversations>"

    def get(self, conversation: str, now: float) -> AccountId | None:
        """The account, None for a conversation that is not known any more. `now` is in seconds."""
        held = self._held.get(conversation)
        if held is None:
            return None
        if now - held[1] > self._idle:
            del self._held[conversation]
            return None
        return held[0]

    def bind(self, conversation: str, account: AccountId, now: float) -> None:
        """From now on the conversation is on `account`."""
        self._held[conversation] = (account, now)
        self._held.move_to_end(conversation)
        if len(self._held) > self._room:
            self._held.popitem(last=False)
