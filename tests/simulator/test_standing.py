"""What the accounts of the simulated service are told, and the log of it."""

from __future__ import annotations

import pytest

from helpers.simulated import FakeExchange, generate
from kirostream.accounts.health import Kind, outcome_of
from kirostream.dialects.dialect import Complaint
from kirostream.dialects.kiro.errors import classify
from kirostream.dialects.kiro.response import read_error
from kirostream.simulator.standing import ERRORS, Standing, Told
from kirostream.simulator.standing import read_error as named
from kirostream.simulator.upstream import Simulator

KINDS = {
    "THROTTLE": Kind.THROTTLED,
    "QUOTA": Kind.SPENT,
    "VALIDATION": Kind.REFUSED,
    "CONTEXT": Kind.REFUSED,
    "ACCESS": Kind.DENIED,
    "INTERNAL": Kind.FAILED,
    "UNAVAILABLE": Kind.NO_CAPACITY,
    "SUSPENDED": Kind.SUSPENDED,
    "SUSPICIOUS": Kind.SUSPICIOUS,
    "DAY": Kind.DAY_SPENT,
    "CAPACITY": Kind.NO_CAPACITY,
    "MODEL": Kind.NO_MODEL,
}
"""What the pool makes of each."""


def kind(exchange: FakeExchange) -> Kind:
    complaint: Complaint = read_error(list(exchange.headers.items()), exchange.answer)
    return outcome_of(classify(complaint, exchange.status)).kind


@pytest.mark.parametrize("name", ERRORS)
async def test_every_error_is_known_for_what_it_is(name: str) -> None:
    simulator = Simulator()
    simulator.afflict("demo", name)
    assert kind(await generate(simulator, "hi")) is KINDS[name]
    assert kind(await generate(simulator, "hi", rpc=True)) is KINDS[name]


async def test_a_script_is_played_once_and_in_order() -> None:
    simulator = Simulator(now=lambda: 7.0)
    simulator.standing.script("demo", ["THROTTLE:20", "", "QUOTA"])
    answers = [await generate(simulator, "hi") for _ in range(4)]
    assert [answer.status for answer in answers] == [429, 200, 402, 200]
    assert answers[0].headers[b"retry-after"] == b"20"
    assert b"retry-after" not in answers[2].headers
    assert list(simulator.standing.log) == [Told(7.0, "demo", error) for error in ("THROTTLE", "", "QUOTA", "")]
    assert simulator.standing.counts == {("demo", "THROTTLE"): 1, ("demo", ""): 2, ("demo", "QUOTA"): 1}


async def test_a_suspended_account_stays_suspended_until_somebody_ends_it() -> None:
    simulator = Simulator()
    simulator.standing.script("demo", ["SUSPENDED", ""])
    assert [(await generate(simulator, "hi")).status for _ in range(3)] == [403] * 3
    simulator.afflict("demo", None)
    assert (await generate(simulator, "hi")).status == 200


def test_names_that_are_none_are_found_at_once() -> None:
    standing = Standing(room=2)
    with pytest.raises(KeyError):
        standing.script("a", ["THROTTEL"])
    with pytest.raises(ValueError, match="soon"):
        standing.afflict("a", "THROTTLE:soon")
    assert named("THROTTLE").retry_after == 0
    for _ in range(5):
        standing.call("a", 0.0)
    assert (len(standing.log), standing.counts.total()) == (2, 5)
