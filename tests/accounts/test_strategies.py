"""Who is next, over many leases; and where conversations stay."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection

import pytest

from helpers.pools import named
from kirostream.accounts.account import AccountId
from kirostream.accounts.board import Board, Claim, Need, Slot
from kirostream.accounts.health import SERVED, HealthSettings, Kind, Outcome
from kirostream.accounts.strategies import STRATEGIES, Bindings
from kirostream.accounts.terms import Terms

NOW = 1_767_225_600.0


class Table:
    """A board, and who was chosen."""

    def __init__(self, strategy: str, terms: dict[str, Terms], *, seed: int = 1, bindings: bool = False) -> None:
        self.board = Board(
            STRATEGIES[strategy],
            HealthSettings(),
            draw=random.Random(seed).random,
            bindings=Bindings(100, 3600) if bindings else None,
            on_change=lambda account, before, now: None,
        )
        for name, said in terms.items():
            self.board.add(Slot(named(name), said, present=True), NOW)
        self.chosen: list[str] = []

    def take(self, now: float = NOW, *, conversation: str = "", exclude: Collection[str] = ()) -> Claim:
        claim = Claim(Need(conversation=conversation, exclude=[AccountId(name) for name in exclude]))
        assert self.board.take(claim, now)
        assert claim.slot is not None
        self.chosen.append(str(claim.slot.account.id))
        return claim

    def use(
        self, outcome: Outcome = SERVED, now: float = NOW, *, conversation: str = "", exclude: Collection[str] = ()
    ) -> str:
        self.board.end(self.take(now, conversation=conversation, exclude=exclude), outcome, now)
        return self.chosen[-1]


def plain(*names: str) -> dict[str, Terms]:
    return {name: Terms() for name in names}


def test_round_robin_is_a_ring() -> None:
    """Over any stretch of leases two accounts differ by one at the most."""
    table = Table("round_robin", plain(*"abcde"))
    for _ in range(203):
        table.use()
    assert table.chosen[:7] == list("abcdeab")
    for start in range(0, 200, 7):
        counts = Counter(table.chosen[start : start + 63])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_round_robin_stays_fair_while_accounts_come_and_go() -> None:
    """One that was away takes no more than its turn when it is back."""
    table = Table("round_robin", plain(*"abcd"))
    for _ in range(4):
        table.use()
    assert table.use(Outcome(Kind.THROTTLED)) == "a"
    for _ in range(40):
        table.use()
    back = len(table.chosen)
    for _ in range(40):
        table.use(now=NOW + 31)
    assert Counter(table.chosen[5:back]) == {"b": 14, "c": 13, "d": 13}
    counts = Counter(table.chosen[back:])
    assert max(counts.values()) - min(counts.values()) <= 1


def test_an_account_that_was_passed_over_keeps_its_turn() -> None:
    table = Table("round_robin", plain(*"abc"))
    assert [table.use() for _ in range(3)] == ["a", "b", "c"]
    assert table.use(exclude="a") == "b"
    assert [table.use() for _ in range(3)] == ["a", "c", "b"]


WEIGHTS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 10.0}
CRITICAL = {2: 13.82, 3: 16.27}
"""Chi-square that chance exceeds once in a thousand, by degrees of freedom."""


def chi_square(chosen: list[str], weights: dict[str, float]) -> float:
    counts, total = Counter(chosen), sum(weights.values())
    expected = {name: len(chosen) * weight / total for name, weight in weights.items()}
    assert counts.keys() <= expected.keys()
    return sum((counts[name] - due) ** 2 / due for name, due in expected.items())


@pytest.mark.parametrize("seed", range(5))
def test_weighted_chooses_by_weight(seed: int) -> None:
    table = Table("weighted", {name: Terms(weight=weight) for name, weight in WEIGHTS.items()}, seed=seed)
    for _ in range(8000):
        table.use()
    assert chi_square(table.chosen, WEIGHTS) < CRITICAL[3]
    # Independent, too: what follows an `a` is chosen by weight as well.
    after_a = [second for first, second in zip(table.chosen, table.chosen[1:], strict=False) if first == "a"]
    assert chi_square(after_a, WEIGHTS) < CRITICAL[3]


def test_weighted_chooses_by_weight_among_those_that_are_left() -> None:
    """Those that are excluded or out leave their shares to the others."""
    table = Table("weighted", {name: Terms(weight=weight) for name, weight in WEIGHTS.items()})
    for number in range(9000):
        table.use(exclude="d" if number % 2 else "")
    left = {name: WEIGHTS[name] for name in "abc"}
    assert chi_square(table.chosen[1::2], left) < CRITICAL[2]
    assert chi_square(table.chosen[::2], WEIGHTS) < CRITICAL[3]


def test_a_weight_of_nothing_is_the_last_resort() -> None:
    for strategy in ("weighted", "least_used"):
        table = Table(strategy, {"a": Terms(weight=0), "b": Terms(), "z": Terms(weight=0)})
        assert {table.use() for _ in range(50)} == {"b"}
        table.use(Outcome(Kind.THROTTLED))
        assert Counter(table.use() for _ in range(50)) == {"a": 25, "z": 25}
        assert {table.use(now=NOW + 31) for _ in range(50)} == {"b"}


def test_weights_count_again_after_the_last_resort_was_used() -> None:
    table = Table("weighted", {"a": Terms(weight=1), "b": Terms(weight=9), "z": Terms(weight=0)})
    table.use(Outcome(Kind.THROTTLED))
    table.use(Outcome(Kind.THROTTLED))
    assert table.use() == "z"
    back = len(table.chosen)
    for _ in range(2000):
        table.use(now=NOW + 31)
    assert chi_square(table.chosen[back:], {"a": 1, "b": 9}) < 10.83


def test_least_used_spreads_what_is_in_flight() -> None:
    table = Table("least_used", plain(*"abc"))
    held = [table.take() for _ in range(6)]
    assert Counter(table.chosen) == {"a": 2, "b": 2, "c": 2}
    for claim in held:
        if claim.slot is not None and claim.slot.account.id == "b":
            table.board.end(claim, SERVED, NOW)
    table.take()
    table.take()
    assert table.chosen[-2:] == ["b", "b"]


def test_least_used_goes_by_weight() -> None:
    table = Table("least_used", {"a": Terms(weight=100), "b": Terms(weight=300)})
    for _ in range(40):
        table.take()
    assert Counter(table.chosen) == {"a": 10, "b": 30}


def test_priority_spills_over_when_the_first_are_full() -> None:
    table = Table(
        "priority",
        {"low": Terms(priority=9), "one": Terms(priority=1, concurrency=2), "two": Terms(priority=1, concurrency=2)},
    )
    held = [table.take() for _ in range(5)]
    assert table.chosen == ["one", "two", "one", "two", "low"]
    table.board.end(held[1], SERVED, NOW)
    table.take()
    assert table.chosen[-1] == "two"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_loses_an_account(strategy: str) -> None:
    """Whatever comes and goes, the heaps stay small, and nobody is lost in them."""
    dice = random.Random(7)
    table = Table(strategy, {f"a{n}": Terms(concurrency=dice.choice((0, 1, 3)), weight=n + 1) for n in range(30)})
    held: list[Claim] = []
    now = NOW
    for _ in range(3000):
        now += dice.random()
        if held and dice.random() < 0.55:
            kind = dice.choice((Kind.SERVED, Kind.SERVED, Kind.THROTTLED, Kind.FAILED, Kind.DENIED))
            table.board.end(held.pop(dice.randrange(len(held))), Outcome(kind), now)
        else:
            claim = Claim(Need(conversation=dice.choice(("", "x", "y")), exclude=[AccountId(f"a{dice.randrange(30)}")]))
            if table.board.take(claim, now):
                held.append(claim)
    for claim in held:
        table.board.end(claim, SERVED, now)
    now += 100_000
    table.use(now=now)  # every pause is over by now
    assert table.board.in_flight == 0
    assert len(table.board._free) <= 2 * 30 + 65
    assert len(table.board._alarms) <= 30
    assert all(slot.ticket for slot in table.board.slots.values())


def test_what_counts_no_more_does_not_pile_up() -> None:
    table = Table("round_robin", plain("a"), bindings=True)
    for _ in range(500):
        table.use(conversation="x")
    assert len(table.board._free) <= 67
    table = Table("priority", {"a": Terms(), "b": Terms(priority=1)})
    held = [table.take() for _ in range(50)]
    for claim in held:
        table.board.end(claim, Outcome(Kind.THROTTLED), NOW)
    assert len(table.board._alarms) == 1


# Conversations


def test_a_conversation_stays_on_its_account() -> None:
    table = Table("round_robin", plain(*"abc"), bindings=True)
    first = {name: table.use(conversation=name) for name in ("x", "y", "z")}
    assert sorted(first.values()) == ["a", "b", "c"]
    for name in ("z", "x", "x", "y", "z", "x"):
        assert table.use(conversation=name) == first[name]
    assert table.use() in "abc"


def test_a_conversation_moves_when_its_account_is_out_and_stays_where_it_went() -> None:
    """The upstream's cache is on the new account by then."""
    table = Table("round_robin", plain(*"abc"), bindings=True)
    assert table.use(Outcome(Kind.THROTTLED), conversation="x") == "a"
    assert table.use(conversation="x") == "b"
    assert [table.use(now=NOW + 31, conversation="x") for _ in range(3)] == ["b", "b", "b"]


def test_a_conversation_comes_back_to_an_account_that_was_only_busy() -> None:
    table = Table("round_robin", {"a": Terms(concurrency=1), "b": Terms()}, bindings=True)
    held = table.take(conversation="x")
    assert table.use(conversation="x") == "b"
    table.board.end(held, SERVED, NOW)
    assert table.use(conversation="x") == "a"


def test_a_conversation_moves_when_its_account_was_tried_in_vain() -> None:
    table = Table("round_robin", plain(*"ab"), bindings=True)
    assert table.use(Outcome(Kind.FAILED), conversation="x") == "a"
    assert table.use(conversation="x", exclude="a") == "b"
    assert table.use(conversation="x") == "b"


def test_bindings_are_bounded_and_forget_the_silent() -> None:
    bindings = Bindings(3, 10.0)
    for number, name in enumerate("wxyz"):
        bindings.bind(name, AccountId("a"), float(number))
    assert [bindings.get(name, 4.0) for name in "wx"] == [None, "a"]
    bindings.bind("x", AccountId("b"), 5.0)  # now `y` was silent longest
    bindings.bind("v", AccountId("a"), 6.0)
    assert [bindings.get(name, 6.0) for name in "yzxv"] == [None, "a", "b", "a"]
    assert bindings.get("z", 13.1) is None
    assert len(bindings) == 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_are_comparable(strategy: str) -> None:
    """However different the accounts, none has a rank that cannot be ordered."""
    rank = STRATEGIES[strategy].rank
    for weight in (0.0, 1e-9, 1.0, 1e9):
        slot = Slot(named("a"), Terms(weight=weight), present=True)
        for draw in (0.0, 0.5, 1 - 2**-53):
            assert not any(math.isnan(part) for part in rank(slot, 1e12, draw))
