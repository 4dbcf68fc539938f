"""Facts: what happened, in the past tense, without bodies, headers or secrets.

A fact is a frozen dataclass. Times are seconds, sizes are bytes. `turn` and `request` are the ids of a turn and of the
HTTP exchange that asked for it, wherever there is one. `level` says how loud a log shall be about it.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceChanged:
    """A part of the process started or stopped."""

    level: ClassVar[Level] = "info"
    service: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFinished:
    """One HTTP request is over. `status` is 0 where no answer began; `ending` is ``whole``, ``cut``, ``gone`` ...

    `request` is its id, which its answer's head and the facts of its turn have.
    """

    level: ClassVar[Level] = "debug"
    request: str = ""
    method: str
    path: str
    status: int
    sent: int
    seconds: float
    peer: str
    ending: str


class Tried(NamedTuple):
    """One try of a turn, on one account.

    `at` is when it began, in seconds from the turn's beginning; `status` is the upstream's HTTP status, 0 where it gave
    none; `error` is the class of what it failed with, "" where it did not.
    """

    at: float
    seconds: float
    account: str
    status: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """One turn is over.

    `outcome` is the stop reason, ``failed`` or ``left`` (the client went away). `first_event` is in seconds, None where
    nothing came. `account` is a label, `account_id` names the account for good; both are empty where none was asked.
    `key` is the name of the key it was asked with. `input_tokens` are those of the whole prompt, cached ones included.
    `status` is the HTTP status that says what came of it, whether or not the client still got it as one. `own_first` is
    the gateway's own part of the time to the first event at the client, `own_token` its own part of a part of the
    answer, on average (`relay.spent`); None where there was none. `traceparent` is that of the client. `tries` are for
    traces; those that failed have facts of their own.
    """

    level: ClassVar[Level] = "info"
    turn: str
    key: str = ""
    dialect: str
    model_asked: str
    model_used: str
    account: str
    outcome: str
    attempts: int
    seconds: float
    first_event: float | None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    credits: float | None = None
    error: str = ""
    request: str = ""
    account_id: str = ""
    provider: str = ""
    status: int = 200
    own_first: float | None = None
    own_token: float | None = None
    traceparent: str = ""
    tries: tuple[Tried, ...] = field(default=(), metadata={"logged": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """One try on one account failed. `action` is what the relay does next."""

    level: ClassVar[Level] = "warning"
    turn: str
    request: str = ""
    account: str
    error: str
    reason: str
    blame: str
    action: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCaptured:
    """A request whose form the upstream refused was kept without its contents in `file`, or could not be (`error`).

    `suspects` are the rules it may have broken, with commas between them.
    """

    level: ClassVar[Level] = "warning"
    turn: str
    request: str = ""
    suspects: str
    file: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRepaired:
    """A stricter variant of a refused request is tried. `repairs` say what differs, with commas between them."""

    level: ClassVar[Level] = "warning"
    turn: str
    request: str = ""
    repairs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The web was searched for a turn, or could not be (`error` says why). What was asked is nobody's business."""

    level: ClassVar[Level] = "info"
    turn: str
    request: str = ""
    account: str
    results: int
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChanged:
    """An account is in another state, or a pause of it ends at another time. `seconds` are left of that pause."""

    level: ClassVar[Level] = "info"
    account: str
    before: str
    state: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountJoined:
    """An account is used from now on, which was not there when the gateway started."""

    level: ClassVar[Level] = "info"
    account: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLeft:
    """An account was removed or disabled: it gets no more turns."""

    level: ClassVar[Level] = "info"
    account: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTroubled:
    """The accounts, or their state, could not be read or written. The pool goes on with what it knows."""

    level: ClassVar[Level] = "error"
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefreshed:
    """An account has a new access token. `expires_in` is in seconds."""

    level: ClassVar[Level] = "info"
    account: str
    expires_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFailed:
    """A token could not be refreshed, or not written back."""

    level: ClassVar[Level] = "warning"
    account: str
    error: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueLoaded:
    """The upstream's list of models was read, or could not be (`error` says why)."""

    level: ClassVar[Level] = "info"
    provider: str
    models: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUrlMended:
    """A client asked at `path` and was served at `served`. With `base_url` as its base URL it asks there by itself."""

    level: ClassVar[Level] = "warning"
    client: str
    path: str
    served: str
    base_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTroubled:
    """Something that is written down cannot be, and is tried again. Turns go on."""

    level: ClassVar[Level] = "error"
    sink: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkRecovered:
    """It can be written again. `lost` is what was dropped since the start."""

    level: ClassVar[Level] = "warning"
    sink: str
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRefused:
    """A key was over one of its limits: a turn of it may begin after `seconds`."""

    level: ClassVar[Level] = "info"
    key: str
    limit: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysTroubled:
    """The list of keys, or what they have spent, cannot be read. What was known goes on acting."""

    level: ClassVar[Level] = "error"
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsReloaded:
    """The settings were read again: those in `now` act from now on, those in `waiting` after a restart."""

    level: ClassVar[Level] = "info"
    now: str
    waiting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsRefused:
    """The settings were read again, and cannot be used: those that there were go on acting."""

    level: ClassVar[Level] = "error"
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """A bug of ours. `trace` is the traceback, for the log alone."""

    level: ClassVar[Level] = "error"
    where: str
    error: str
    trace: str
    turn: str = ""
    request: str = ""


Fact: TypeAlias = (
    ServiceChanged
    | ExchangeFinished
    | TurnFinished
    | AttemptFailed
    | Searched
    | RequestCaptured
    | RequestRepaired
    | AccountChanged
    | AccountJoined
    | AccountLeft
    | PoolTroubled
    | TokenRefreshed
    | RefreshFailed
    | CatalogueLoaded
    | BaseUrlMended
    | SinkTroubled
    | SinkRecovered
    | KeyRefused
    | KeysTroubled
    | SettingsReloaded
    | SettingsRefused
    | Faulted
)
