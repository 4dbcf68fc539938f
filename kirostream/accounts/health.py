"""What becomes of an account by what its requests met. Pure.

Theory. An account's `Health` is changed by the `Outcome` of a request (`after`) and by people (`disabled`, `cleared`),
and by nothing else. There are six states:

============  =========================================  ============================================================
state         leased?                                    left by
============  =========================================  ============================================================
READY         yes                                        an outcome of `EFFECTS`
COOLING       from `until` on one request at a time,     a probe that is served: READY; one that fails: COOLING again,
              the **probe**                              for longer
EXHAUSTED     from the reset of its quota on, as above   as above
NEEDS_LOGIN   now and then, as above: somebody may have  as above
              logged in
SUSPENDED     no                                         a person, who clears it
DISABLED      no                                         a person, who clears it
============  =========================================  ============================================================

Rules that hold together:

- Every pause has a cap in the settings, also one that the upstream asks for. A quota is waited for until its reset, and
  no longer.
- What the client, the upstream or the network is to blame for changes nothing (kiro-protocol.md section 4.3). So a
  failing upstream cools nobody, and a model without capacity is no reason to leave an account.
- A model that an account does not have is blocked on that account, for a while. The account stays as it is.
- **Old news** changes little. An account that cools may still have requests in flight that began before: ten of them
  that are throttled together are one reason to cool, not ten, and one that is answered is no proof that the pause is
  over. Only what began after `until` counts as a probe. A graver state is taken over all the same.

Times are unix seconds: they mean the same in every process, and after a restart.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    Blame,
    CredentialRejected,
    KirostreamError,
    ModelNotOnAccount,
    QuotaSpent,
    SettingsError,
    UpstreamOverloaded,
)

_DAY: Final = 86_400.0
_TALLEST: Final = 30
"""Rungs of a ladder that are counted; every cap is reached long before."""
_SHORTEST: Final = 1.0
"""Seconds of the shortest pause that an upstream may ask for; what asks for none gets our own."""
_BLOCKS: Final = 64
"""Models blocked on one account at the most."""


class State(enum.Enum):
    """Whether an account can be used. See the table above."""

    __hash__ = object.__hash__  # members are single; Enum's own is written in Python, and every lease asks it often

    READY = "ready"
    COOLING = "cooling"
    EXHAUSTED = "exhausted"
    NEEDS_LOGIN = "needs login"
    SUSPENDED = "suspended"
    DISABLED = "disabled"


class Kind(enum.Enum):
    """What a request on an account met."""

    __hash__ = object.__hash__  # as for `State`

    SERVED = "served"
    """An answer, whole or ended by us."""
    THROTTLED = "throttled"
    """Too many requests."""
    DAY_SPENT = "day spent"
    """The requests of the day are used up; they come back at midnight UTC."""
    SUSPICIOUS = "suspicious"
    """"Suspicious activity": the upstream watches the account, or the address it comes from."""
    SPENT = "spent"
    """The credits of the period are used up."""
    DENIED = "denied"
    """The account may not do this, or its fresh token is not accepted."""
    EXPIRED = "expired"
    """The token was not accepted, and is being refreshed."""
    LOGIN_LOST = "login lost"
    """There is no token, and only a person can get one."""
    SUSPENDED = "suspended"
    """The upstream has locked the account."""
    NO_MODEL = "no model"
    """The account does not have the model."""
    NO_CAPACITY = "no capacity"
    """The model has no capacity, whoever asks."""
    FAILED = "failed"
    """The upstream or the network failed."""
    REFUSED = "refused"
    """The request is to blame."""
    ABANDONED = "abandoned"
    """Whoever asked went away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    `retry_after` is the pause that the upstream asks for, in seconds, None where it did not say. `model` is what was
    asked for.
    """

    kind: Kind
    retry_after: float | None = None
    model: str = ""


SERVED: Final = Outcome(Kind.SERVED)
EXPIRED: Final = Outcome(Kind.EXPIRED)
ABANDONED: Final = Outcome(Kind.ABANDONED)
LOGIN_LOST: Final = Outcome(Kind.LOGIN_LOST)

_REASONS: Final[Mapping[str, Kind]] = {
    "SUSPICIOUS_ACTIVITY": Kind.SUSPICIOUS,
    "DAILY_REQUEST_COUNT": Kind.DAY_SPENT,
}
"""Reasons that say more than their class (kiro-protocol.md section 4.3)."""

_CLASSES: Final[tuple[tuple[type[KirostreamError], Kind], ...]] = (
    (AccountThrottled, Kind.THROTTLED),
    (QuotaSpent, Kind.SPENT),
    (CredentialRejected, Kind.DENIED),
    (AccessDenied, Kind.DENIED),
    (AccountSuspended, Kind.SUSPENDED),
    (ModelNotOnAccount, Kind.NO_MODEL),
    (UpstreamOverloaded, Kind.NO_CAPACITY),
)


def outcome_of(error: KirostreamError, model: str = "") -> Outcome:
    """What an error says of the account that met it."""
    kind = _REASONS.get(error.reason)
    if kind is None or not isinstance(error, AccountThrottled):
        kind = next((kind for cls, kind in _CLASSES if isinstance(error, cls)), None)
    if kind is None:
        kind = Kind.REFUSED if error.blame is Blame.CLIENT else Kind.FAILED
    return Outcome(kind, error.retry_after, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """How long accounts are left alone. The first pause, what it is multiplied by each time, and its cap."""

    max_errors: int = field(
        default=3, metadata={"help": "Refusals in a row (403) before an account cools (maxErrorCount)."}
    )
    cooldown: float = field(
        default=300.0, metadata={"help": "First pause after that many refusals (cooldownMs).", "unit": "s"}
    )
    cooldown_growth: float = field(
        default=6.0, metadata={"help": "How much longer each further pause is: 5 min, 30 min, 2 h."}
    )
    cooldown_max: float = field(default=7200.0, metadata={"help": "The longest of these pauses.", "unit": "s"})
    throttle: float = field(
        default=30.0, metadata={"help": "First pause after a 429 that names none; doubles each time.", "unit": "s"}
    )
    throttle_max: float = field(default=600.0, metadata={"help": "The longest of these pauses.", "unit": "s"})
    retry_after_max: float = field(
        default=3600.0, metadata={"help": "The longest pause an upstream may ask for.", "unit": "s"}
    )
    suspicion: float = field(
        default=600.0,
        metadata={
            "help": 'First pause after "suspicious activity"; doubles each time, up to cooldown_max.',
            "unit": "s",
        },
    )
    quota_reset: float = field(
        default=3600.0,
        metadata={"help": "Pause of a spent account whose reset is not known (quotaResetMs).", "unit": "s"},
    )
    quota_max: float = field(
        default=32 * _DAY, metadata={"help": "The farthest reset of a quota that is believed.", "unit": "s"}
    )
    login_check: float = field(
        default=5.0,
        metadata={"help": "How often an account that needs a login is looked at, when requests come.", "unit": "s"},
    )
    model_block: float = field(
        default=3600.0, metadata={"help": "How long an account is not asked for a model it does not have.", "unit": "s"}
    )

    def __post_init__(self) -> None:
        if self.max_errors < 1:
            raise SettingsError(f"pool.health.max_errors is {self.max_errors}; it takes 1 or more")
        if not self.cooldown_growth >= 1:
            raise SettingsError(f"pool.health.cooldown_growth is {self.cooldown_growth:g}; it takes 1 or more")
        for name in PAUSES:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SettingsError(f"pool.health.{name} is {value:g}; it takes seconds above 0")


PAUSES: Final = (
    "cooldown",
    "cooldown_max",
    "throttle",
    "throttle_max",
    "retry_after_max",
    "suspicion",
    "quota_reset",
    "quota_max",
    "login_check",
    "model_block",
)
"""The settings that are seconds."""

DEFAULTS: Final = HealthSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How an account is.

    `until` is when a pause ends, 0 in a state without one. `failures` are refusals in a row, `pauses` counts pauses
    since the last answer. `why` is the kind of outcome that led to the state, or a person's words. `since` is when the
    state began. `resets_at` is when the quota comes back, 0 where that is not known. `blocked` are models the account
    does not have, and until when that is believed.
    """

    state: State = State.READY
    until: float = 0.0
    failures: int = 0
    pauses: int = 0
    why: str = ""
    since: float = 0.0
    resets_at: float = 0.0
    blocked: tuple[tuple[str, float], ...] = ()

    def blocks(self, model: str, now: float) -> bool:
        """Whether the account is known not to have `model`."""
        return any(name == model and now < until for name, until in self.blocked)


HEALTHY: Final = Health()

PERMANENT: Final = frozenset({State.SUSPENDED, State.DISABLED})
"""States that only a person ends."""

GRAVITY: Final[Mapping[State, int]] = {state: at for at, state in enumerate(State)}
"""Of two states that old news and new news lead to, the graver one holds."""

EFFECTS: Final[Mapping[Kind, State]] = {
    Kind.SERVED: State.READY,
    Kind.THROTTLED: State.COOLING,
    Kind.DAY_SPENT: State.COOLING,
    Kind.SUSPICIOUS: State.COOLING,
    Kind.DENIED: State.COOLING,  # once there were `max_errors` of them
    Kind.SPENT: State.EXHAUSTED,
    Kind.LOGIN_LOST: State.NEEDS_LOGIN,
    Kind.SUSPENDED: State.SUSPENDED,
}
"""Where an outcome leads. Kinds that are not listed change no state."""

LIMITS: Final = frozenset({Kind.THROTTLED.value, Kind.DAY_SPENT.value, Kind.SUSPICIOUS.value, Kind.SPENT.value})
"""`Health.why` of an account that was used too much: a client is answered with 429 where nothing else is left."""


def opens_at(health: Health) -> float:
    """When the account can be leased, in unix seconds: 0 for now, infinity for never."""
    if health.state in PERMANENT:
        return math.inf
    return health.until


def after(
    health: Health,
    outcome: Outcome,
    now: float,
    settings: HealthSettings = DEFAULTS,
    *,
    began: float | None = None,
) -> Health:
    """How the account is after `outcome`. The same object where nothing changes.

    Args:
        health: how it was.
        outcome: what a request met.
        now: unix seconds.
        settings: the operator's limits.
        began: when the request began, unix seconds; None: now.
    """
    if outcome.kind is Kind.SERVED and health.state is State.READY and not health.failures:
        return health  # as a rule
    if outcome.kind is Kind.NO_MODEL:
        return _without(health, outcome.model, now, settings)
    state = EFFECTS.get(outcome.kind)
    if state is None or health.state in PERMANENT:
        return health
    if (now if began is None else began) < health.until:
        return _old_news(health, state, outcome, now, settings)
    if state is State.READY:
        return Health(since=now, resets_at=health.resets_at, blocked=health.blocked)
    if outcome.kind is Kind.DENIED and health.state is State.READY and health.failures + 1 < settings.max_errors:
        return replace(health, failures=health.failures + 1)
    return replace(
        health,
        state=state,
        until=_until(health, outcome, now, settings),
        failures=health.failures + (outcome.kind is Kind.DENIED),
        pauses=min(health.pauses + 1, _TALLEST),
        why=outcome.kind.value,
        since=now,
    )


def _old_news(health: Health, state: State, outcome: Outcome, now: float, settings: HealthSettings) -> Health:
    """What a request makes of a pause that began after it."""
    if GRAVITY[state] > GRAVITY[health.state]:
        until = _until(health, outcome, now, settings)
        return replace(health, state=state, until=until, why=outcome.kind.value, since=now)
    if state is health.state and outcome.kind in (Kind.THROTTLED, Kind.SUSPICIOUS):
        asked = _asked(outcome, settings.retry_after_max)
        if asked and now + asked > health.until:
            return replace(health, until=now + asked)
    return health


def _until(health: Health, outcome: Outcome, now: float, settings: HealthSettings) -> float:
    """When the pause that begins now ends."""
    rung = health.pauses
    asked = _asked(outcome, settings.retry_after_max)
    match outcome.kind:
        case Kind.THROTTLED:
            return now + (asked or _rung(settings.throttle, 2.0, rung, settings.throttle_max))
        case Kind.SUSPICIOUS:
            return now + max(asked, _rung(settings.suspicion, 2.0, rung, settings.cooldown_max))
        case Kind.DAY_SPENT:
            return (now // _DAY + 1) * _DAY
        case Kind.SPENT if now < health.resets_at:
            return min(health.resets_at, now + settings.quota_max)
        case Kind.SPENT:
            return now + (_asked(outcome, settings.quota_max) or settings.quota_reset)
        case Kind.LOGIN_LOST:
            return now + settings.login_check
        case Kind.SUSPENDED:
            return 0.0
        case _:
            return now + _rung(settings.cooldown, settings.cooldown_growth, rung, settings.cooldown_max)


def _asked(outcome: Outcome, cap: float) -> float:
    """The pause that the upstream asks for, as far as it is heard; 0 where it asks for none."""
    return min(max(outcome.retry_after, _SHORTEST), cap) if outcome.retry_after else 0.0


def _rung(first: float, growth: float, rung: int, cap: float) -> float:
    """The pause at a rung of a ladder, the lowest one being 0."""
    pause = first
    for _ in range(rung):
        if pause >= cap:
            break
        pause *= growth
    return min(pause, cap)


def _without(health: Health, model: str, now: float, settings: HealthSettings) -> Health:
    if not model:
        return health
    others = [(name, until) for name, until in health.blocked if name != model and until > now]
    return replace(health, blocked=(*others[-_BLOCKS + 1 :], (model, now + settings.model_block)))


def disabled(health: Health, now: float, why: str = "disabled") -> Health:
    """Switched off by a person, whatever it was."""
    return Health(state=State.DISABLED, why=why, since=now, resets_at=health.resets_at, blocked=health.blocked)


def cleared(health: Health, now: float) -> Health:
    """Made ready by a person, whatever it was. The reset of its quota stays known."""
    return Health(since=now, resets_at=health.resets_at)


def resetting(health: Health, resets_at: float, now: float, settings: HealthSettings = DEFAULTS) -> Health:
    """The quota is now known to come back at `resets_at` (unix seconds): an exhausted account waits for that moment."""
    if resets_at == health.resets_at:
        return health
    until = health.until
    if health.state is State.EXHAUSTED and resets_at > now:
        until = min(resets_at, now + settings.quota_max)
    return replace(health, resets_at=resets_at, until=until)
