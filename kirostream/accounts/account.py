"""Accounts, their credentials and the tokens made of them. Pure.

Three things are kept apart, because they live for different times:

- an `Account` is who may call: its id, label and device never change while it exists;
- a `Credential` is what the account's source holds: it is replaced as one unit (registration, secret, refresh token,
  access token), because an OIDC refresh token only works with the registration it was issued to;
- a `Token` is what one request carries: an access token and when it ends.

Times are unix seconds. Anything secret is a `Secret`, never a bare `str`.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NewType, NoReturn

from kirostream.dataclass import dataclass

AccountId = NewType("AccountId", str)
"""Names an account for as long as it is configured; see `account_id`."""


class AuthMethod(enum.StrEnum):
    """How the account signed in (kiro-protocol.md section 5.1)."""

    SOCIAL = "social"
    """Google or GitHub, brokered by Kiro's own service."""
    IDC = "idc"
    """AWS SSO OIDC: an organisation's IAM Identity Center, or a Builder ID (`profiles.is_builder_id`)."""
    EXTERNAL_IDP = "external_idp"
    """An organisation's own identity provider; the bearer is that provider's token."""
    API_KEY = "api_key"
    """A long-lived key, used as the bearer; never refreshed."""


BUILDER_ID_START_URL: Final = "https://view.awsapps.com/start"
DEFAULT_REGION: Final = "us-east-1"
EMPTY: Final[Mapping[str, object]] = MappingProxyType({})
NEVER: Final = math.inf
"""The end of what has none: an API key."""


class Secret:
    """A string that does not show itself.

    ``repr``, ``str`` and ``format`` are masked, it cannot be pickled, and ``==`` takes the same time wherever two
    secrets differ. An empty secret is false. `reveal` is the one way to the text, and easy to search for.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def digest(self) -> str:
        """SHA-256 in hex: names the secret in a file or a table without telling it."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(****)" if self._text else "Secret()"

    def __str__(self) -> str:
        return "****" if self._text else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: reveal() it where it has to leave the process")


NO_SECRET: Final = Secret("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a source holds of one account: replaced as a whole, never field by field.

    `key` says where in its source it lives and stays while tokens rotate. `expires_at` is None where the source does
    not say. `region` is that of the sign-in (SSO), which is not the region of the API; `api_region` is an operator's
    choice. `registration_expires_at` is when the client id ends, None where the source does not say; the refresh token
    ends with it. `profile_arn` is what is known, never a guess (`profiles.profile_arn` resolves it). `token_endpoint`
    and `scopes` matter to an external identity provider alone. `extra` is what else the source said.
    """

    auth: AuthMethod
    key: str = ""
    refresh_token: Secret = NO_SECRET
    access_token: Secret = NO_SECRET
    expires_at: float | None = None
    client_id: str = ""
    client_secret: Secret = NO_SECRET
    registration_expires_at: float | None = None
    region: str = DEFAULT_REGION
    api_region: str = ""
    profile_arn: str = ""
    start_url: str = ""
    provider: str = ""
    token_endpoint: str = ""
    scopes: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=lambda: EMPTY, repr=False, compare=False)

    def valid_until(self) -> float:
        """When the access token ends: 0 without one. One of unknown end counts as over where it can be refreshed."""
        if not self.access_token:
            return 0.0
        if self.expires_at is not None:
            return self.expires_at
        return 0.0 if self.refresh_token else NEVER


@dataclass(frozen=True, slots=True)
class Token:
    """What one request carries. `profile_arn` is resolved: what the request shall say, or an empty string."""

    access: Secret
    expires_at: float
    profile_arn: str
    account: AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who may call. `label` is for people and holds no whole address.

    `machine_id` is 64 hex digits, of this account alone (kiro-protocol.md section 1.4).
    `region` is that of the sign-in; `api_region` is the operator's choice, empty where the profile ARN decides.
    `endpoint` names the provider's endpoint that the operator prefers for it, empty for any.
    """

    id: AccountId
    label: str
    auth: AuthMethod
    region: str = DEFAULT_REGION
    api_region: str = ""
    endpoint: str = ""
    provider: str = ""
    machine_id: str = ""
    source: str = ""


def account_id(kind: str, place: str, key: str = "") -> AccountId:
    """The id of the account at `key` of the source `place`: ``ide-3f9a0c51d2e7``.

    It hangs on where the credential lives, not on the tokens, so it outlives every rotation.
    """
    digest = hashlib.sha256(f"{kind}\0{place}\0{key}".encode()).hexdigest()
    return AccountId(f"{kind}-{digest[:12]}")


def account_label(credential: Credential) -> str:
    """What a person recognises, without giving an address away: ``a***@example.com (Google)``, ``BuilderId``."""
    who = credential.provider or _NAMES.get(credential.auth, "")
    email = credential.extra.get("email")
    if isinstance(email, str) and "@" in email:
        name, _, domain = email.partition("@")
        masked = f"{name[:1]}***@{domain}"
        return f"{masked} ({who})" if who else masked
    return who or credential.auth.value


_NAMES: Final = {AuthMethod.IDC: "IAM Identity Center", AuthMethod.API_KEY: "API key"}

_METHODS: Final[Mapping[str, AuthMethod]] = {
    "social": AuthMethod.SOCIAL,
    "google": AuthMethod.SOCIAL,
    "github": AuthMethod.SOCIAL,
    "idc": AuthMethod.IDC,
    "iam": AuthMethod.IDC,
    "sso": AuthMethod.IDC,
    "builderid": AuthMethod.IDC,
    "enterprise": AuthMethod.IDC,
    "internal": AuthMethod.IDC,
    "externalidp": AuthMethod.EXTERNAL_IDP,
    "apikey": AuthMethod.API_KEY,
}


def read_auth_method(word: str) -> AuthMethod | None:
    """The method a file names, in any of the spellings in use; None for a word nobody uses."""
    return _METHODS.get(re.sub(r"[^a-z]", "", word.lower()))


_MILLISECONDS_FROM: Final = 1e11  # as seconds that is the year 5138, as milliseconds 1973
_LATEST: Final = 253402300799.0  # the end of the year 9999, which datetime can still say


def read_expiry(value: object) -> float | None:
    """Unix seconds from what sources write: RFC 3339 with up to 9 fractional digits, unix seconds or milliseconds.

    A time without an offset is UTC (the registration files of the AWS SSO cache have none). Numbers may be strings.
    None for anything else: an end nobody can read is an unknown end (kiro-protocol.md section 5.5).
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            return _read_rfc3339(text)
    if not isinstance(value, int | float) or not 0 <= value <= _LATEST * 1000:
        return None
    return float(value) / 1000 if value >= _MILLISECONDS_FROM else float(value)


def _read_rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.removesuffix("UTC"))  # as older AWS tools write it
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return max(moment.timestamp(), 0.0)
    except (OverflowError, ValueError):
        return None


def write_expiry(at: float, like: object = "") -> str | int | float:
    """`at` (unix seconds) in the style of `like`: a number keeps its unit, text the width of its fraction."""
    if isinstance(like, int | float) and not isinstance(like, bool):
        return round(at * 1000) if like >= _MILLISECONDS_FROM else round(at)
    digits = 3
    if isinstance(like, str):
        fraction = re.search(r":\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:?\d\d)?$", like)
        if fraction is not None:
            digits = len(fraction[1] or "")
    whole, part = divmod(round(at * 1_000_000), 1_000_000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{f'{part:06}000'[:digits]}Z" if digits else f"{text}Z"
