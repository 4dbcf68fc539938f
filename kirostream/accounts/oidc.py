"""Refreshing tokens: what to send, and what the answer means (kiro-protocol.md sections 5.2 and 5.3). PURE.

Three services refresh tokens: Kiro's own for social sign-ins, AWS SSO OIDC for Builder ID and IAM Identity Center, and
an organisation's identity provider. All take one POST. An answer is a new credential, or a `Refused` that says whether
a person has to log in again. The refresh token may come back new, unchanged or not at all; then the old one stays.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final, TypeAlias
from urllib.parse import urlencode, urlsplit

from kirostream.accounts.account import AuthMethod, Credential, Secret, read_expiry
from kirostream.dataclass import dataclass
from kirostream.errors import without_tokens

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

DEFAULT_LIFETIME: Final = 3600.0
"""Seconds, where the answer does not say: the shortest life captures show (kiro-protocol.md section 5.7)."""

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-\d{1,2}")


def is_region(name: str) -> bool:
    """Whether `name` has the shape of an AWS region. It becomes a part of a host's name, so nothing else may pass."""
    return _REGION.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthHosts:
    """Base URLs of the token services. ``{region}`` becomes the region of the sign-in.

    Social refresh is confirmed in us-east-1 alone (kiro-protocol.md section 5.2), so that URL names it.
    """

    social: str = field(
        default="https://prod.us-east-1.auth.desktop.kiro.dev",
        metadata={"help": "Base URL of the service that refreshes social sign-ins.", "unit": "URL"},
    )
    oidc: str = field(
        default="https://oidc.{region}.amazonaws.com",
        metadata={"help": "Base URL of AWS SSO OIDC; {region} is the region of the sign-in.", "unit": "URL"},
    )
    portal: str = field(
        default="https://app.kiro.dev",
        metadata={"help": "Base URL of the page on which a person signs in with Google or GitHub.", "unit": "URL"},
    )


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """One POST to a token service. It holds secrets: never log its body."""

    url: str
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


class Refusal(enum.Enum):
    """What has to happen before a refresh can work."""

    DEAD = "dead"
    """The refresh token is not accepted any more: log in again."""
    REGISTRATION = "registration"
    """The client registration has expired or does not fit the token: log in again."""
    TRANSIENT = "transient"
    """Nothing is known about the token: try again later."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No new token. `status` is the HTTP status, 0 where nothing was sent; `message` has no secrets."""

    kind: Refusal
    status: int
    reason: str
    message: str


def refresh_request(credential: Credential, hosts: AuthHosts, *, user_agent: str) -> AuthRequest | Refused:
    """The POST that refreshes `credential`, or why none can."""
    if credential.auth is AuthMethod.API_KEY:
        return _unable("api_key", "an API key is never refreshed")
    if not credential.refresh_token:
        return _unable("no_refresh_token", "the access token has ended and there is no refresh token")
    if not is_region(credential.region):
        return _unable("bad_region", f"{credential.region!r} is no AWS region")
    refresh = credential.refresh_token.reveal()
    if credential.auth is AuthMethod.SOCIAL:
        url = f"{base_url(hosts.social, credential.region)}/refreshToken"
        return json_request(url, {"refreshToken": refresh}, user_agent)
    if not credential.client_id:
        return _unable("no_registration", "there is no client registration for the refresh token", Refusal.REGISTRATION)
    if credential.auth is AuthMethod.IDC:
        body = {
            "clientId": credential.client_id,
            "clientSecret": credential.client_secret.reveal(),
            "grantType": "refresh_token",
            "refreshToken": refresh,
        }
        url = f"{base_url(hosts.oidc, credential.region)}/token"
        return json_request(url, body, user_agent)
    return _external_request(credential, user_agent)


def _external_request(credential: Credential, user_agent: str) -> AuthRequest | Refused:
    """RFC 6749 section 6, as every identity provider understands it; Kiro's own form of it is not documented."""
    endpoint = credential.token_endpoint
    parts = urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return _unable("bad_token_endpoint", f"the token endpoint {endpoint!r} is no https URL", Refusal.REGISTRATION)
    form = {
        "grant_type": "refresh_token",
        "client_id": credential.client_id,
        "refresh_token": credential.refresh_token.reveal(),
    }
    if credential.client_secret:
        form["client_secret"] = credential.client_secret.reveal()
    if credential.scopes:
        form["scope"] = " ".join(credential.scopes)
    return AuthRequest(
        endpoint, _headers(user_agent, "application/x-www-form-urlencoded"), urlencode(form).encode("ascii")
    )


def read_refresh(credential: Credential, status: int, body: bytes, sent_at: float) -> Credential | Refused:
    """What the answer to `refresh_request` means.

    Args:
        credential: the one that was refreshed.
        sent_at: unix seconds when the request was sent; the lifetime counts from there, to be on the safe side.
    """
    record = read_object(body)
    if not 200 <= status < 300:
        return read_refusal(credential.auth, status, body)
    inner = record.get("data")
    if isinstance(inner, Mapping):
        record = inner
    access = read_text(record, "accessToken", "access_token")
    if not access:
        return Refused(
            Refusal.TRANSIENT, status, "no_access_token", "the token service answered without an access token"
        )
    return replace(
        credential,
        access_token=Secret(access),
        refresh_token=Secret(read_text(record, "refreshToken", "refresh_token")) or credential.refresh_token,
        expires_at=_end(record, sent_at),
        profile_arn=credential.profile_arn or read_text(record, "profileArn", "profile_arn"),
    )


def _end(record: Mapping[str, object], sent_at: float) -> float:
    for name in ("expiresIn", "expires_in"):
        value = record.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10:
            return sent_at + value
    for name in ("expiresAt", "expires_at"):
        at = read_expiry(record.get(name))
        if at is not None:
            return at
    return sent_at + DEFAULT_LIFETIME


_DEAD: Final = frozenset({"invalid_grant", "expired_token", "access_denied"})
_STALE: Final = frozenset({"invalid_client", "unauthorized_client"})
_WAIT: Final = frozenset({"slow_down", "authorization_pending", "throttling", "too_many_requests", "internal_server"})


def read_refusal(auth: AuthMethod, status: int, body: bytes) -> Refused:
    """Sort a refusal: by the OAuth error or the AWS exception's name where there is one, else by status.

    OIDC says ``{"error": "invalid_grant"}`` or ``InvalidGrantException``; of the social service the status is known.
    Any other 400 or 401 means a dead token: so the official CLI takes it, which deletes its token.
    """
    record = read_object(body)
    name = without_tokens(read_text(record, "error", "__type", "code")).rsplit("#", 1)[-1].removesuffix("Exception")
    reason = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    said = without_tokens(read_text(record, "error_description", "message", "Message", "errorMessage"))
    message = f"HTTP {status}" + (f", {name}" if name else "") + (f": {said[:200]}" if said else "")
    if reason in _WAIT or status == 429 or status >= 500:
        kind = Refusal.TRANSIENT
    elif reason in _STALE and auth is not AuthMethod.SOCIAL:
        kind = Refusal.REGISTRATION
    elif reason in _DEAD or status in (400, 401):
        kind = Refusal.DEAD
    else:
        kind = Refusal.TRANSIENT
    return Refused(kind, status, reason or f"http_{status}", message)


def _unable(reason: str, message: str, kind: Refusal = Refusal.DEAD) -> Refused:
    return Refused(kind, 0, reason, message)


def base_url(template: str, region: str) -> str:
    """A URL of `AuthHosts` for a region, without a slash at its end."""
    return template.replace("{region}", region).rstrip("/")


def _headers(user_agent: str, content_type: str) -> Headers:
    return [
        (b"content-type", content_type.encode()),
        (b"accept", b"application/json, text/plain, */*"),
        (b"user-agent", user_agent.encode()),
    ]


def json_request(url: str, body: Mapping[str, object], user_agent: str) -> AuthRequest:
    """A POST of a JSON object."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return AuthRequest(url, _headers(user_agent, "application/json"), data)


def read_object(body: bytes) -> Mapping[str, object]:
    """The JSON object in an answer, an empty one where there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_text(record: Mapping[str, object], *names: str) -> str:
    """The first of the members `names` that is a text and not empty; else an empty string."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value:
            return value
    return ""
