"""What to do after a failed try. Pure.

Blame decides (kiro-protocol.md section 4.3):

==================================  ===================================================================================
the client is to blame              back to the client
the token is not accepted           refresh it, once an account; then another account
the account may not                 once without its profile, where that is a well-known one; then another account
the account is to blame             another account; but "suspicious activity" is not answered by another one: the
                                    upstream may watch the address, and would see it go on
the model is not on the account     another account, if any lists it; else another model
the model has no capacity           again after a pause: it is nobody's fault; then another model
the upstream or the network failed  again after a pause; then another endpoint, then one other account
nothing was said in time            again, so often as the settings say
the form is refused                 once in a stricter form
==================================  ===================================================================================

"Another model" is one that the operator has named to stand in. Nothing is tried again once the client may have seen a
part of the answer, nor once the time for one turn is used up.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.errors import (
    AccessDenied,
    Blame,
    CredentialRejected,
    FormRefused,
    KirostreamError,
    ModelNotOnAccount,
    StreamCut,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamTimeout,
)


class Action(enum.Enum):
    """What the relay does next."""

    GIVE_UP = "give up"
    REFRESH = "refresh the token and try again"
    RETRY = "try again"
    WITHOUT_PROFILE = "ask without the well-known profile"
    NEXT_ENDPOINT = "try another endpoint"
    NEXT_ACCOUNT = "try another account"
    FALL_BACK = "ask another model"
    REPAIR = "ask in a stricter form"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and how many seconds to wait first."""

    action: Action
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What was done so far.

    `attempts` are the tries at this endpoint of this account, the failed one included, and `refreshed` says whether its
    token was refreshed between them. `accounts` counts accounts, this one included. `seconds` are those since the first
    try.
    """

    attempts: int = 1
    refreshed: bool = False
    accounts: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What could still be tried: another endpoint, another account, another model, a stricter form.

    `token` is False where there was no token to try with. `profile` says that the account was asked with a profile that
    all accounts of its kind share, and may be asked without (kiro-protocol.md section 1.5).
    """

    endpoint: bool = False
    account: bool = False
    model: bool = False
    form: bool = False
    profile: bool = False
    token: bool = True


NOTHING: Final = Left()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverSettings:
    """How often and how fast a failed try is repeated."""

    attempts: int = field(default=3, metadata={"help": "Tries at one endpoint of one account, the first one included."})
    silent: int = field(
        default=2, metadata={"help": "The same where the upstream says nothing in time (relay.deadlines.first_event)."}
    )
    accounts: int = field(default=5, metadata={"help": "Accounts that are tried for one turn.", "unit": "accounts"})
    backoff: float = field(
        default=0.5, metadata={"help": "Pause before the second try; doubles each time.", "unit": "s"}
    )
    backoff_max: float = field(default=8.0, metadata={"help": "Longest pause between two tries.", "unit": "s"})
    budget: float = field(
        default=300.0, metadata={"help": "No try begins later than this after the first one.", "unit": "s"}
    )

    def __post_init__(self) -> None:
        if min(self.attempts, self.silent, self.accounts) < 1:
            raise ValueError("attempts, silent and accounts are 1 or more: the first try counts")


SUSPICIOUS: Final = "SUSPICIOUS_ACTIVITY"
"""The reason of a throttle that other accounts are kept out of (`dialects.kiro.errors`)."""
_MIDWAY: Final = ("idle", "total")
"""Deadlines that pass in the middle of an answer."""


def decide(
    error: KirostreamError, tried: Tried, *, committed: bool, settings: FailoverSettings, left: Left = NOTHING
) -> Decision:
    """What to do after `error`.

    Args:
        error: what the last try failed with.
        tried: the tries so far, the failed one included.
        committed: whether the client may have seen a part of the answer.
        settings: the operator's limits.
        left: what could still be tried.
    """
    if committed:
        return Decision(Action.GIVE_UP)
    decision = _next(error, tried, settings, left)
    if decision.action is not Action.GIVE_UP and tried.seconds + decision.delay > settings.budget:
        return Decision(Action.GIVE_UP)
    return decision


def _next(error: KirostreamError, tried: Tried, settings: FailoverSettings, left: Left) -> Decision:
    account = left.account and tried.accounts < settings.accounts
    elsewhere = Decision(Action.NEXT_ACCOUNT if account else Action.GIVE_UP)
    if not left.token:
        return elsewhere
    match error:
        case FormRefused():
            stricter = left.form and tried.attempts < settings.attempts
            return Decision(Action.REPAIR if stricter else Action.GIVE_UP)
        case CredentialRejected() if not tried.refreshed:
            return Decision(Action.REFRESH)
        case AccessDenied() if left.profile:
            return Decision(Action.WITHOUT_PROFILE)
        case ModelNotOnAccount() if not account:
            return Decision(Action.FALL_BACK if left.model else Action.GIVE_UP)
        case UpstreamTimeout() if error.reason in _MIDWAY:
            return Decision(Action.GIVE_UP)
        case UpstreamTimeout(reason="first_event"):
            return Decision(Action.RETRY if tried.attempts < settings.silent else Action.GIVE_UP)
        case UpstreamOverloaded():
            again = _after_a_pause(error, tried, settings)
            return again or Decision(Action.FALL_BACK if left.model else Action.GIVE_UP)
        case UpstreamDown() | UpstreamFault() | UpstreamTimeout() | StreamCut():
            again = _after_a_pause(error, tried, settings)
            if again is None and left.endpoint:
                again = Decision(Action.NEXT_ENDPOINT)
            return again or (elsewhere if tried.accounts == 1 else Decision(Action.GIVE_UP))
        case _ if error.blame is Blame.ACCOUNT and error.reason != SUSPICIOUS:
            return elsewhere
        case _:
            return Decision(Action.GIVE_UP)


def _after_a_pause(error: KirostreamError, tried: Tried, settings: FailoverSettings) -> Decision | None:
    """Another try of the same, None where there is none left or the pause would be too long."""
    if tried.attempts >= settings.attempts:
        return None
    pause = error.retry_after or min(settings.backoff_max, settings.backoff * 2 ** (tried.attempts - 1))
    return Decision(Action.RETRY, pause) if pause <= settings.backoff_max else None
