"""What becomes of an account by what its requests met."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.accounts.health import (
    EFFECTS,
    HEALTHY,
    PAUSES,
    PERMANENT,
    SERVED,
    Health,
    HealthSettings,
    Kind,
    Outcome,
    State,
    after,
    cleared,
    disabled,
    opens_at,
    outcome_of,
    resetting,
)
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    KirostreamError,
    LocalProtocolError,
    ModelNotOnAccount,
    QuotaSpent,
    SettingsError,
    StreamCut,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)

NOW = 1_767_225_600.0 + 3600
"""One in the morning of the first of January 2026, UTC."""
MIDNIGHT = 1_767_225_600.0 + 86_400
COOLING = Health(state=State.COOLING, until=NOW + 100, pauses=1, why="throttled", since=NOW - 10)
PROBED = Health(state=State.COOLING, until=NOW - 1, pauses=1, why="throttled", since=NOW - 31)
"""An account whose pause is over: what begins now is a probe."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AccountThrottled("x"), Kind.THROTTLED),
        (AccountThrottled("x", reason="SUSPICIOUS_ACTIVITY"), Kind.SUSPICIOUS),
        (AccountThrottled("x", reason="DAILY_REQUEST_COUNT"), Kind.DAY_SPENT),
        (QuotaSpent("x", reason="MONTHLY_REQUEST_COUNT"), Kind.SPENT),
        (CredentialRejected("x"), Kind.DENIED),
        (AccessDenied("x"), Kind.DENIED),
        (AccountSuspended("x"), Kind.SUSPENDED),
        (ModelNotOnAccount("x"), Kind.NO_MODEL),
        (UpstreamOverloaded("x", reason="INSUFFICIENT_MODEL_CAPACITY"), Kind.NO_CAPACITY),
        (UpstreamOverloaded("x", reason="DAILY_REQUEST_COUNT"), Kind.NO_CAPACITY),
        (UpstreamFault("x"), Kind.FAILED),
        (UpstreamDown("x"), Kind.FAILED),
        (UpstreamTimeout("x"), Kind.FAILED),
        (StreamCut("x"), Kind.FAILED),
        (LocalProtocolError("x"), Kind.FAILED),
        (UpstreamRefused("x"), Kind.REFUSED),
        (ContextOverflow("x"), Kind.REFUSED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, KirostreamError) else None,
)
def test_what_an_error_says_of_the_account(error: KirostreamError, kind: Kind) -> None:
    assert outcome_of(error, "m") == Outcome(kind, None, "m")


def test_the_pause_that_the_upstream_asks_for_is_passed_on() -> None:
    assert outcome_of(AccountThrottled("x", retry_after=7.0)).retry_after == 7.0


@pytest.mark.parametrize(
    ("health", "outcome", "state", "pause"),
    [
        (HEALTHY, Outcome(Kind.THROTTLED), State.COOLING, 30),
        (HEALTHY, Outcome(Kind.THROTTLED, 12.0), State.COOLING, 12),
        (HEALTHY, Outcome(Kind.THROTTLED, 0.0), State.COOLING, 30),
        (HEALTHY, Outcome(Kind.THROTTLED, 18 * 86_400.0), State.COOLING, 3600),
        (HEALTHY, Outcome(Kind.SUSPICIOUS, 600.0), State.COOLING, 600),
        (HEALTHY, Outcome(Kind.SUSPICIOUS, 1.0), State.COOLING, 600),
        (HEALTHY, Outcome(Kind.DAY_SPENT), State.COOLING, MIDNIGHT - NOW),
        (HEALTHY, Outcome(Kind.SPENT), State.EXHAUSTED, 3600),
        (HEALTHY, Outcome(Kind.SPENT, 90_000.0), State.EXHAUSTED, 90_000),
        (Health(resets_at=NOW + 500_000), Outcome(Kind.SPENT), State.EXHAUSTED, 500_000),
        (Health(resets_at=NOW + 500_000), Outcome(Kind.SPENT, 90.0), State.EXHAUSTED, 500_000),
        (Health(resets_at=NOW - 5), Outcome(Kind.SPENT), State.EXHAUSTED, 3600),
        (Health(resets_at=NOW + 1e9), Outcome(Kind.SPENT), State.EXHAUSTED, 32 * 86_400),
        (HEALTHY, Outcome(Kind.LOGIN_LOST), State.NEEDS_LOGIN, 5),
        (HEALTHY, Outcome(Kind.SUSPENDED), State.SUSPENDED, None),
        (HEALTHY, Outcome(Kind.DENIED), State.READY, None),
        (Health(failures=1), Outcome(Kind.DENIED), State.READY, None),
        (Health(failures=2), Outcome(Kind.DENIED), State.COOLING, 300),
        # a probe that fails cools longer, and one refusal is enough
        (PROBED, Outcome(Kind.THROTTLED), State.COOLING, 60),
        (replace(PROBED, pauses=9), Outcome(Kind.THROTTLED), State.COOLING, 600),
        (PROBED, Outcome(Kind.DENIED), State.COOLING, 1800),
        (replace(PROBED, pauses=2), Outcome(Kind.DENIED), State.COOLING, 7200),
        (replace(PROBED, pauses=30), Outcome(Kind.DENIED), State.COOLING, 7200),
        (PROBED, Outcome(Kind.SUSPICIOUS), State.COOLING, 1200),
        (PROBED, Outcome(Kind.SPENT), State.EXHAUSTED, 3600),
        (PROBED, SERVED, State.READY, None),
        # old news: the request began before the pause
        (COOLING, SERVED, State.COOLING, 100),
        (COOLING, Outcome(Kind.THROTTLED), State.COOLING, 100),
        (COOLING, Outcome(Kind.THROTTLED, 40.0), State.COOLING, 100),
        (COOLING, Outcome(Kind.THROTTLED, 400.0), State.COOLING, 400),
        (COOLING, Outcome(Kind.DENIED, 400.0), State.COOLING, 100),
        (replace(COOLING, state=State.NEEDS_LOGIN), Outcome(Kind.LOGIN_LOST, 400.0), State.NEEDS_LOGIN, 100),
        (COOLING, Outcome(Kind.SPENT), State.EXHAUSTED, 3600),
        (COOLING, Outcome(Kind.SUSPENDED), State.SUSPENDED, None),
        (replace(COOLING, state=State.EXHAUSTED), Outcome(Kind.THROTTLED, 4000.0), State.EXHAUSTED, 100),
        # a person's word holds
        (Health(state=State.DISABLED), SERVED, State.DISABLED, None),
        (Health(state=State.DISABLED), Outcome(Kind.SUSPENDED), State.DISABLED, None),
        (Health(state=State.SUSPENDED), SERVED, State.SUSPENDED, None),
    ],
)
def test_the_table(health: Health, outcome: Outcome, state: State, pause: float | None) -> None:
    found = after(health, outcome, NOW, began=NOW - 5 if health.until > NOW else None)
    assert found.state is state
    assert found.until == (NOW + pause if pause is not None else 0.0)
    assert opens_at(found) == (math.inf if state in PERMANENT else found.until)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in EFFECTS and kind is not Kind.NO_MODEL])
def test_what_the_account_is_not_to_blame_for_changes_nothing(kind: Kind) -> None:
    for health in (HEALTHY, COOLING, PROBED, Health(failures=2)):
        assert after(health, Outcome(kind, 60.0, "m"), NOW) is health


def test_the_default_ladder_is_five_minutes_half_an_hour_two_hours() -> None:
    """Seeds: 5 min, 30 min, 2 h."""
    health, now, pauses = Health(failures=2), NOW, []
    for _ in range(5):
        health = after(health, Outcome(Kind.DENIED), now)
        pauses.append(health.until - now)
        now = health.until
    assert pauses == [300, 1800, 7200, 7200, 7200]


def test_ten_throttled_together_are_one_reason_to_cool() -> None:
    health = HEALTHY
    for second in range(10):
        health = after(health, Outcome(Kind.THROTTLED), NOW + second, began=NOW - 1)
    assert (health.until, health.pauses) == (NOW + 30, 1)


def test_an_answer_makes_an_account_as_good_as_new() -> None:
    health = after(after(HEALTHY, Outcome(Kind.NO_MODEL, model="m"), NOW), Outcome(Kind.THROTTLED), NOW)
    health = after(replace(health, resets_at=NOW + 9000), SERVED, NOW + 31)
    assert (health.state, health.until, health.pauses, health.failures) == (State.READY, 0.0, 0, 0)
    assert (health.resets_at, health.blocks("m", NOW + 31)) == (NOW + 9000, True)
    assert after(health, SERVED, NOW + 32) is health


def test_refusals_count_only_in_a_row() -> None:
    health = HEALTHY
    for outcome in (Outcome(Kind.DENIED), Outcome(Kind.DENIED), SERVED, Outcome(Kind.DENIED), Outcome(Kind.DENIED)):
        health = after(health, outcome, NOW)
    assert (health.state, health.failures) == (State.READY, 2)


def test_a_model_that_is_not_there_is_blocked_for_a_while_and_nothing_else() -> None:
    health = after(HEALTHY, Outcome(Kind.NO_MODEL, model="opus"), NOW)
    assert (health.state, opens_at(health)) == (State.READY, 0.0)
    assert [health.blocks("opus", NOW + 3599), health.blocks("opus", NOW + 3600), health.blocks("haiku", NOW)] == [
        True,
        False,
        False,
    ]
    assert after(HEALTHY, Outcome(Kind.NO_MODEL), NOW) is HEALTHY
    for number in range(200):
        health = after(health, Outcome(Kind.NO_MODEL, model=f"m{number}"), NOW + number)
    assert len(health.blocked) == 64
    assert health.blocks("m199", NOW + 200)


def test_people_switch_accounts_off_and_on() -> None:
    off = disabled(COOLING, NOW, "by hand")
    assert (off.state, off.why, opens_at(off)) == (State.DISABLED, "by hand", math.inf)
    for health in (off, COOLING, Health(state=State.SUSPENDED), Health(failures=2, resets_at=5.0)):
        on = cleared(health, NOW)
        assert (on.state, opens_at(on), on.failures, on.resets_at) == (State.READY, 0.0, 0, health.resets_at)


def test_a_spent_account_waits_for_its_reset_once_that_is_known() -> None:
    spent = after(HEALTHY, Outcome(Kind.SPENT), NOW)
    assert resetting(spent, NOW + 99_999, NOW).until == NOW + 99_999
    assert resetting(spent, NOW + 60, NOW).until == NOW + 60
    assert resetting(spent, NOW - 60, NOW).until == spent.until
    assert resetting(COOLING, NOW + 99_999, NOW).until == COOLING.until
    known = resetting(spent, NOW + 60, NOW)
    assert resetting(known, NOW + 60, NOW) is known


PAUSE = st.none() | st.floats(min_value=0, max_value=1e12)
OUTCOMES = st.builds(Outcome, st.sampled_from(Kind), PAUSE, st.sampled_from(["", "a", "b"]))
STEPS = st.lists(st.tuples(OUTCOMES, st.floats(0, 10_000), st.floats(0, 10_000)), max_size=30)


@given(STEPS, st.sampled_from([0.0, NOW + 50_000, NOW + 1e10]))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_pause_is_short_enough_and_ends(
    steps: list[tuple[Outcome, float, float]], resets_at: float
) -> None:
    """No pause is longer than its cap; after it, a probe that is served heals; what a person has to end stays."""
    health, now = Health(resets_at=resets_at), NOW
    for outcome, waited, lasted in steps:
        before = health
        now += waited
        health = after(before, outcome, now, began=now - lasted)
        if before.state in PERMANENT:
            assert (health.state, health.until) == (before.state, before.until)
        if health.state is State.READY or health.state in PERMANENT:
            assert health.until == 0.0
        elif health.until != before.until:
            cap = {State.COOLING: 86_400.0, State.EXHAUSTED: 32 * 86_400.0, State.NEEDS_LOGIN: 5.0}[health.state]
            if outcome.kind is not Kind.DAY_SPENT and health.state is State.COOLING:
                cap = 7200.0
            assert 0 < health.until - now <= cap
        if now - lasted < before.until and health.state is before.state:
            assert health.until >= before.until  # old news makes no pause shorter
            assert health.pauses == before.pauses
    if health.state not in PERMANENT:
        healed = after(health, SERVED, max(now, health.until))
        assert (healed.state, healed.failures, healed.pauses) == (State.READY, 0, 0)


@pytest.mark.parametrize("name", PAUSES)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name):
        HealthSettings(**{name: value})  # type: ignore[arg-type]


def test_settings_that_make_no_sense_are_refused_for_counts_too() -> None:
    with pytest.raises(SettingsError, match="max_errors"):
        HealthSettings(max_errors=0)
    with pytest.raises(SettingsError, match="cooldown_growth"):
        HealthSettings(cooldown_growth=math.nan)
