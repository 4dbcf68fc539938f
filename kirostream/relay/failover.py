"""What to do after a failed try. Pure.

Blame decides (kiro-protocol.md section 4.3): the client's fault goes back to the client; a rejected token is refreshed
once; the upstream's fault is tried again after a pause; the account's fault goes back to the client, as there is one
account. Where the operator named other models, one of them is asked in place of a model that stays without capacity, or
that the account does not have. A request whose form is refused is asked once more in a stricter form. Nothing is tried
again once the client may have seen a part of the answer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kirostream.errors import (
    CredentialRejected,
    FormRefused,
    KirostreamError,
    ModelNotOnAccount,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
)


class Action(enum.Enum):
    """What the relay does next."""

    GIVE_UP = "give up"
    REFRESH = "refresh the token and try again"
    RETRY = "try again"
    FALL_BACK = "ask another model"
    REPAIR = "ask in a stricter form"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and how many seconds to wait first."""

    action: Action
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Tried:
    """What was done for this turn so far."""

    attempts: int = 0
    refreshed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverSettings:
    """How often and how fast a failed try is repeated."""

    attempts: int = field(default=3, metadata={"help": "Tries for one turn, the first one included."})
    backoff: float = field(
        default=0.5, metadata={"help": "Pause before the second try; doubles each time.", "unit": "s"}
    )
    backoff_max: float = field(default=8.0, metadata={"help": "Longest pause between two tries.", "unit": "s"})


def decide(
    error: KirostreamError,
    tried: Tried,
    *,
    committed: bool,
    settings: FailoverSettings,
    spare: bool = False,
    stricter: bool = False,
) -> Decision:
    """What to do after `error`.

    Args:
        error: what the last try failed with.
        tried: the tries so far, the failed one included.
        committed: whether the client may have seen a part of the answer.
        settings: the operator's limits.
        spare: whether there is another model that may be asked in place of this one.
        stricter: whether there is a stricter variant of the request, not tried yet.
    """
    if committed:
        return Decision(Action.GIVE_UP)
    if stricter and isinstance(error, FormRefused) and tried.attempts < settings.attempts:
        return Decision(Action.REPAIR)
    decision = _same_model(error, tried, settings)
    if spare and decision.action is Action.GIVE_UP and isinstance(error, UpstreamOverloaded | ModelNotOnAccount):
        return Decision(Action.FALL_BACK)
    return decision


def _same_model(error: KirostreamError, tried: Tried, settings: FailoverSettings) -> Decision:
    if tried.attempts >= settings.attempts:
        return Decision(Action.GIVE_UP)
    match error:
        case CredentialRejected() if not tried.refreshed:
            return Decision(Action.REFRESH)
        case UpstreamDown() | UpstreamFault() | UpstreamOverloaded():
            pause = error.retry_after or min(settings.backoff_max, settings.backoff * 2 ** (tried.attempts - 1))
            return Decision(Action.RETRY, pause) if pause <= settings.backoff_max else Decision(Action.GIVE_UP)
        case _:
            return Decision(Action.GIVE_UP)
