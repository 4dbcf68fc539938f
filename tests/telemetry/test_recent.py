"""The last hour, minute by minute, and what last went wrong on each account."""

from __future__ import annotations

from typing import Any

from kirostream.telemetry.facts import AttemptFailed, RefreshFailed, ServiceChanged, TurnFinished
from kirostream.telemetry.recent import MINUTES, TROUBLES, Recent


class Clock:
    now = 6_000_030.0

    def __call__(self) -> float:
        return self.now


def turn(**more: Any) -> TurnFinished:
    said: dict[str, Any] = {
        "turn": "t",
        "dialect": "anthropic",
        "model_asked": "m",
        "model_used": "m",
        "account": "ann",
        "outcome": "end",
        "attempts": 1,
        "seconds": 2.0,
        "first_event": 0.5,
        "input_tokens": 3,
        "output_tokens": 5,
        "credits": 0.25,
    }
    return TurnFinished(**{**said, **more})


def failed(account: str, message: str, blame: str = "account") -> AttemptFailed:
    return AttemptFailed(
        turn="t", account=account, error="E", reason="", blame=blame, action="give up", message=message
    )


def test_turns_are_counted_by_the_minute_they_ended_in() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent(turn())
    clock.now += 20
    recent(turn(outcome="failed", first_event=None, credits=None))
    clock.now += 20
    recent(turn(first_event=1.5))
    recent(ServiceChanged(service="gateway", state="listening"))
    minutes = recent.minutes()
    assert len(minutes) == MINUTES
    assert [each.at for each in minutes] == list(range(6_000_060 - 59 * 60, 6_000_061, 60))
    before, now = minutes[-2:]
    assert (before.turns, before.failed, before.first_events, before.heard) == (2, 1, 0.5, 1)
    assert (now.turns, now.output_tokens, now.credits) == (1, 5, 0.25)
    assert sum(each.turns for each in minutes[:-2]) == 0
    assert (recent.total.turns, recent.total.input_tokens, recent.total.credits) == (3, 9, 0.5)


def test_what_is_older_than_an_hour_counts_in_the_total_alone() -> None:
    clock = Clock()
    recent = Recent(clock)
    for _ in range(200):
        recent(turn())
        clock.now += 60
    minutes = recent.minutes()
    assert sum(each.turns for each in minutes) == 59, "the last minute is not over"
    assert recent.total.turns == 200
    clock.now += 7200
    assert sum(each.turns for each in recent.minutes()) == 0


def test_the_last_error_of_an_account_is_kept_unless_the_client_is_to_blame() -> None:
    clock = Clock()
    recent = Recent(clock)
    assert recent.trouble("ann") is None
    recent(failed("ann", "throttled"))
    recent(failed("ann", "bad form", blame="client"))
    recent(RefreshFailed(account="bob", error="E", message="no token"))
    for who, said in (("ann", "throttled"), ("bob", "no token")):
        trouble = recent.trouble(who)
        assert trouble is not None
        assert (trouble.message, trouble.at) == (said, clock.now)
    for n in range(TROUBLES):
        recent(failed(f"account {n}", "x"))
    assert recent.trouble("ann") is None
