"""What is done after a failed try, as a table."""

from __future__ import annotations

import pytest

from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    FormRefused,
    KirostreamError,
    LocalProtocolError,
    ModelNotOnAccount,
    QuotaSpent,
    StreamCut,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)
from kirostream.relay.failover import Action, Decision, FailoverSettings, Left, Tried, decide

SETTINGS = FailoverSettings(attempts=4, backoff=0.5, backoff_max=8.0)


@pytest.mark.parametrize(
    ("error", "tried", "expected"),
    [
        (UpstreamDown("x"), Tried(attempts=1), Decision(Action.RETRY, 0.5)),
        (UpstreamFault("x"), Tried(attempts=2), Decision(Action.RETRY, 1.0)),
        (UpstreamOverloaded("x"), Tried(attempts=3), Decision(Action.RETRY, 2.0)),
        (UpstreamOverloaded("x", retry_after=3.0), Tried(attempts=1), Decision(Action.RETRY, 3.0)),
        (UpstreamOverloaded("x", retry_after=60.0), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (UpstreamFault("x"), Tried(attempts=4), Decision(Action.GIVE_UP)),
        (CredentialRejected("x"), Tried(attempts=1), Decision(Action.REFRESH)),
        (CredentialRejected("x"), Tried(attempts=2, refreshed=True), Decision(Action.GIVE_UP)),
        (AccountThrottled("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (QuotaSpent("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (AccountSuspended("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (ContextOverflow("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (UpstreamRefused("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (UpstreamTimeout("x"), Tried(attempts=1), Decision(Action.RETRY, 0.5)),
        (UpstreamTimeout("x", reason="CONNECT_TIMEOUT"), Tried(attempts=2), Decision(Action.RETRY, 1.0)),
        (UpstreamTimeout("x", reason="first_event"), Tried(attempts=1), Decision(Action.RETRY)),
        (UpstreamTimeout("x", reason="first_event"), Tried(attempts=2), Decision(Action.GIVE_UP)),
        (UpstreamTimeout("x", reason="idle"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (UpstreamTimeout("x", reason="total"), Tried(attempts=1), Decision(Action.GIVE_UP)),
        (StreamCut("x"), Tried(attempts=1), Decision(Action.RETRY, 0.5)),
        (LocalProtocolError("x"), Tried(attempts=1), Decision(Action.GIVE_UP)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, KirostreamError) else None,
)
def test_blame_decides(error: KirostreamError, tried: Tried, expected: Decision) -> None:
    assert decide(error, tried, committed=False, settings=SETTINGS) == expected


@pytest.mark.parametrize(
    ("error", "tried", "action"),
    [
        (ModelNotOnAccount("x"), Tried(attempts=1), Action.FALL_BACK),
        (UpstreamOverloaded("x"), Tried(attempts=1), Action.RETRY),
        (UpstreamOverloaded("x"), Tried(attempts=4), Action.FALL_BACK),
        (UpstreamOverloaded("x", retry_after=60.0), Tried(attempts=1), Action.FALL_BACK),
        (UpstreamFault("x"), Tried(attempts=4), Action.GIVE_UP),
        (UpstreamTimeout("x"), Tried(attempts=4), Action.GIVE_UP),
        (AccountThrottled("x"), Tried(attempts=1), Action.GIVE_UP),
        (QuotaSpent("x"), Tried(attempts=1), Action.GIVE_UP),
        (ContextOverflow("x"), Tried(attempts=1), Action.GIVE_UP),
        (CredentialRejected("x"), Tried(attempts=1), Action.REFRESH),
    ],
)
def test_another_model_is_asked_for_want_of_this_one_only(error: KirostreamError, tried: Tried, action: Action) -> None:
    assert decide(error, tried, committed=False, settings=SETTINGS, left=Left(model=True)).action is action
    without = decide(error, tried, committed=False, settings=SETTINGS)
    assert without.action is (Action.GIVE_UP if action is Action.FALL_BACK else action)
    assert decide(error, tried, committed=True, settings=SETTINGS, left=Left(model=True)).action is Action.GIVE_UP


@pytest.mark.parametrize(
    ("error", "attempts", "stricter", "committed", "action"),
    [
        (FormRefused("x"), 1, True, False, Action.REPAIR),
        (FormRefused("x"), 1, False, False, Action.GIVE_UP),
        (FormRefused("x"), 1, True, True, Action.GIVE_UP),
        (FormRefused("x"), SETTINGS.attempts, True, False, Action.GIVE_UP),
        (UpstreamRefused("x"), 1, True, False, Action.GIVE_UP),
        (ContextOverflow("x"), 1, True, False, Action.GIVE_UP),
    ],
)
def test_a_refused_form_is_asked_once_more_in_a_stricter_form(
    error: KirostreamError, attempts: int, stricter: bool, committed: bool, action: Action
) -> None:
    decision = decide(error, Tried(attempts=attempts), committed=committed, settings=SETTINGS, left=Left(form=stricter))
    assert decision == Decision(action)


@pytest.mark.parametrize("error", [UpstreamDown("x"), CredentialRejected("x"), UpstreamFault("x")])
def test_nothing_is_repeated_after_the_first_event(error: KirostreamError) -> None:
    assert decide(error, Tried(attempts=1), committed=True, settings=SETTINGS).action is Action.GIVE_UP


@pytest.mark.parametrize(
    ("error", "tried", "left", "action"),
    [
        (AccountThrottled("x"), Tried(), Left(account=True), Action.NEXT_ACCOUNT),
        (AccountThrottled("x"), Tried(accounts=5), Left(account=True), Action.GIVE_UP),
        (AccountThrottled("x", reason="SUSPICIOUS_ACTIVITY"), Tried(), Left(account=True), Action.GIVE_UP),
        (AccountThrottled("x"), Tried(), Left(endpoint=True, model=True), Action.GIVE_UP),
        (QuotaSpent("x"), Tried(attempts=9), Left(account=True), Action.NEXT_ACCOUNT),
        (AccountSuspended("x"), Tried(), Left(account=True), Action.NEXT_ACCOUNT),
        (AccessDenied("x"), Tried(), Left(account=True, profile=True), Action.WITHOUT_PROFILE),
        (AccessDenied("x"), Tried(), Left(account=True), Action.NEXT_ACCOUNT),
        (ModelNotOnAccount("x"), Tried(), Left(account=True, model=True), Action.NEXT_ACCOUNT),
        (ModelNotOnAccount("x"), Tried(accounts=5), Left(account=True, model=True), Action.FALL_BACK),
        (CredentialRejected("x"), Tried(), Left(account=True), Action.REFRESH),
        (CredentialRejected("x"), Tried(refreshed=True), Left(account=True), Action.NEXT_ACCOUNT),
        (CredentialRejected("x"), Tried(), Left(account=True, token=False), Action.NEXT_ACCOUNT),
        (UpstreamDown("x"), Tried(), Left(account=True, token=False), Action.NEXT_ACCOUNT),
        (UpstreamDown("x"), Tried(), Left(token=False), Action.GIVE_UP),
        (UpstreamDown("x"), Tried(attempts=4), Left(endpoint=True, account=True), Action.NEXT_ENDPOINT),
        (UpstreamDown("x"), Tried(attempts=4), Left(account=True), Action.NEXT_ACCOUNT),
        (UpstreamFault("x"), Tried(attempts=4, accounts=2), Left(account=True), Action.GIVE_UP),
        (UpstreamOverloaded("x"), Tried(attempts=4), Left(account=True, endpoint=True), Action.GIVE_UP),
        (UpstreamRefused("x"), Tried(), Left(account=True, endpoint=True, model=True), Action.GIVE_UP),
        (UpstreamFault("x"), Tried(seconds=299.6), Left(account=True), Action.GIVE_UP),
        (AccountThrottled("x"), Tried(seconds=300.1), Left(account=True), Action.GIVE_UP),
    ],
)
def test_where_there_is_more_to_try(error: KirostreamError, tried: Tried, left: Left, action: Action) -> None:
    assert decide(error, tried, committed=False, settings=SETTINGS, left=left).action is action
    assert decide(error, tried, committed=True, settings=SETTINGS, left=left).action is Action.GIVE_UP


@pytest.mark.parametrize("name", ["attempts", "silent", "accounts"])
def test_the_first_try_counts(name: str) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        FailoverSettings(**{name: 0})
