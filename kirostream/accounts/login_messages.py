"""Signing in: what to send, and what the answers mean (kiro-protocol.md sections 5.3 and 5.4). PURE.

Two services sign people in: AWS SSO OIDC (Builder ID, IAM Identity Center) and Kiro's own (Google, GitHub). Both do it
in two ways: by a *device code*, which a person confirms on any device while we ask again and again; and by a *code with
proof* (PKCE, RFC 7636), which the browser brings back to an address of this machine.

A token that comes is read by `oidc.read_refresh`: the answers are those of a refresh.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from kirostream.accounts.account import AuthMethod, Credential, Secret, read_expiry
from kirostream.accounts.oidc import (
    AuthHosts,
    AuthRequest,
    Refusal,
    Refused,
    base_url,
    json_request,
    read_object,
    read_refresh,
    read_refusal,
    read_text,
)
from kirostream.dataclass import dataclass

SocialProvider: TypeAlias = Literal["Google", "Github"]

SCOPES: Final = tuple(
    f"codewhisperer:{name}" for name in ("completions", "analysis", "conversations", "transformations", "taskassist")
)
"""The five of the IDE, so that the sign-in can be used there too."""

SOCIAL_CLIENT: Final = "kiro-cli"
"""The only client the device flow of the social service is known to take."""

CALLBACK_PATH: Final = "/oauth/callback"
REGISTERED_CALLBACK: Final = f"http://127.0.0.1{CALLBACK_PATH}"
"""Registered without a port: then any port fits (RFC 8252 section 7.3)."""

_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class Registration:
    """A client that AWS SSO OIDC knows. `expires_at` is in unix seconds of the service's clock, None if unknown."""

    client_id: str
    client_secret: Secret
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What a person has to confirm, and what we ask with meanwhile.

    `url` is where `user_code` is typed in; `whole_url` holds the code already. `interval` is the pause between two
    questions, `expires_in` how long the code lasts, both in seconds.
    """

    device_code: Secret
    user_code: str
    url: str
    whole_url: str
    interval: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What ties the code that the browser brings back to us: nobody else has `verifier`, and `state` was ours."""

    verifier: Secret
    state: str

    @property
    def challenge(self) -> str:
        """The verifier's digest, which may be seen (S256)."""
        digest = hashlib.sha256(self.verifier.reveal().encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


# -- AWS SSO OIDC


def register_request(
    hosts: AuthHosts, region: str, *, start_url: str, name: str, by_code: bool, user_agent: str
) -> AuthRequest:
    """Register a client, for about 90 days.

    Args:
        name: shown to the person who confirms.
        by_code: for the flow with a code and a proof, in place of the one with a device code.
    """
    grant = "authorization_code" if by_code else _DEVICE_GRANT
    body: dict[str, object] = {
        "clientName": name,
        "clientType": "public",
        "scopes": SCOPES,
        "grantTypes": [grant, "refresh_token"],
        "issuerUrl": start_url,
    }
    if by_code:
        body["redirectUris"] = [REGISTERED_CALLBACK]
    return json_request(f"{base_url(hosts.oidc, region)}/client/register", body, user_agent)


def read_registration(status: int, body: bytes) -> Registration | Refused:
    """The client that was registered."""
    if not 200 <= status < 300:
        return read_refusal(AuthMethod.IDC, status, body)
    record = read_object(body)
    client_id, secret = read_text(record, "clientId"), read_text(record, "clientSecret")
    if not client_id or not secret:
        return _unreadable(status, "a client id and secret")
    ends = read_expiry(record.get("clientSecretExpiresAt"))
    return Registration(client_id, Secret(secret), ends or None)  # 0 is RFC 7591's word for "never"


def device_request(
    hosts: AuthHosts, region: str, registration: Registration, *, start_url: str, user_agent: str
) -> AuthRequest:
    """Ask for a device code."""
    body = {
        "clientId": registration.client_id,
        "clientSecret": registration.client_secret.reveal(),
        "startUrl": start_url,
    }
    return json_request(f"{base_url(hosts.oidc, region)}/device_authorization", body, user_agent)


def poll_request(
    hosts: AuthHosts, region: str, registration: Registration, device: DeviceCode, *, user_agent: str
) -> AuthRequest:
    """Ask whether the person has confirmed."""
    body = {
        "clientId": registration.client_id,
        "clientSecret": registration.client_secret.reveal(),
        "grantType": _DEVICE_GRANT,
        "deviceCode": device.device_code.reveal(),
    }
    return json_request(f"{base_url(hosts.oidc, region)}/token", body, user_agent)


def authorize_url(hosts: AuthHosts, region: str, registration: Registration, proof: Proof, callback: str) -> str:
    """The page on which a person confirms; afterwards the browser goes to `callback`."""
    query = {
        "response_type": "code",
        "client_id": registration.client_id,
        "redirect_uri": callback,
        "scopes": " ".join(SCOPES),
        "state": proof.state,
        "code_challenge": proof.challenge,
        "code_challenge_method": "S256",
    }
    return f"{base_url(hosts.oidc, region)}/authorize?{urlencode(query, quote_via=quote)}"


def exchange_request(
    hosts: AuthHosts,
    region: str,
    registration: Registration,
    proof: Proof,
    *,
    code: Secret,
    callback: str,
    user_agent: str,
) -> AuthRequest:
    """Change the code for tokens."""
    body = {
        "clientId": registration.client_id,
        "clientSecret": registration.client_secret.reveal(),
        "grantType": "authorization_code",
        "redirectUri": callback,
        "code": code.reveal(),
        "codeVerifier": proof.verifier.reveal(),
    }
    return json_request(f"{base_url(hosts.oidc, region)}/token", body, user_agent)


# -- Kiro's own service


def social_device_request(hosts: AuthHosts, region: str, provider: SocialProvider, *, user_agent: str) -> AuthRequest:
    """Ask for a device code."""
    body = {"clientId": SOCIAL_CLIENT, "loginProvider": provider}
    return json_request(f"{base_url(hosts.social, region)}/oauth/device/authorization", body, user_agent)


def social_poll_request(hosts: AuthHosts, region: str, device: DeviceCode, *, user_agent: str) -> AuthRequest:
    """Ask whether the person has confirmed."""
    body = {"clientId": SOCIAL_CLIENT, "deviceCode": device.device_code.reveal()}
    return json_request(f"{base_url(hosts.social, region)}/oauth/device/poll", body, user_agent)


def portal_url(hosts: AuthHosts, region: str, proof: Proof, callback: str) -> str:
    """The page on which a person picks Google or GitHub and signs in; afterwards the browser goes to `callback`."""
    query = {
        "state": proof.state,
        "code_challenge": proof.challenge,
        "code_challenge_method": "S256",
        "redirect_uri": callback,
        "redirect_from": "KiroIDE",
    }
    return f"{base_url(hosts.portal, region)}/signin?{urlencode(query, quote_via=quote)}"


def social_exchange_request(
    hosts: AuthHosts, region: str, proof: Proof, *, code: Secret, callback: str, user_agent: str
) -> AuthRequest:
    """Change the code for tokens."""
    body = {"code": code.reveal(), "code_verifier": proof.verifier.reveal(), "redirect_uri": callback}
    return json_request(f"{base_url(hosts.social, region)}/oauth/token", body, user_agent)


# -- answers of both


def read_device_code(status: int, body: bytes) -> DeviceCode | Refused:
    """The device code. Lengths of time come in seconds, or in milliseconds under names that say so."""
    if not 200 <= status < 300:
        return read_refusal(AuthMethod.IDC, status, body)
    record = _inner(read_object(body))
    device_code, user_code = read_text(record, "deviceCode"), read_text(record, "userCode")
    url = read_text(record, "verificationUri", "verificationUriComplete")
    if not device_code or not user_code or not _is_page(url):
        return _unreadable(status, "a device code and a page to confirm it on")
    whole = read_text(record, "verificationUriComplete")
    return DeviceCode(
        device_code=Secret(device_code),
        user_code=user_code,
        url=url,
        whole_url=whole if _is_page(whole) else url,
        interval=min(max(_seconds(record, "interval", "intervalInMilliseconds", 5.0), 0.05), 60.0),
        expires_in=min(_seconds(record, "expiresIn", "expiresInMilliseconds", 600.0), 86400.0),
    )


def read_token(credential: Credential, status: int, body: bytes, sent_at: float) -> Credential | Refused:
    """Tokens for `credential`, or why there are none.

    Two refusals are none: a `reason` of ``authorization_pending`` or ``slow_down`` asks for patience. The social
    service says so with status 200.

    Args:
        credential: all that is known of the sign-in without the tokens.
        sent_at: unix seconds when the request was sent.
    """
    record = _inner(read_object(body))
    said = read_text(record, "status").lower()
    if 200 <= status < 300 and said and not read_text(record, "accessToken", "access_token"):
        return replace(read_refusal(AuthMethod.SOCIAL, 400, b'{"error":"%s"}' % _word(said)), status=status)
    answer = read_refresh(credential, status, body, sent_at)
    if isinstance(answer, Refused):
        return answer
    if not answer.refresh_token:
        return _unreadable(status, "a refresh token")
    who = read_text(record, "identityProvider", "identity_provider")
    return replace(answer, provider=answer.provider or who)


def read_callback(redirected: str, proof: Proof) -> Secret | Refused:
    """The code that the browser brought.

    Args:
        redirected: the address it was sent to, or its query alone.
    """
    text = redirected.strip()
    query = urlsplit(text).query if "?" in text else text
    found = {name: values[-1] for name, values in parse_qs(query).items()}
    state, code = found.get("state", ""), found.get("code", "")
    if not hmac.compare_digest(state.encode(), proof.state.encode()):
        return Refused(Refusal.TRANSIENT, 0, "state_mismatch", "this address is not from the sign-in that waits here")
    if "error" in found:
        said = found.get("error_description", found["error"])
        return Refused(Refusal.DEAD, 0, found["error"], said[:200])
    if not code:
        return Refused(Refusal.TRANSIENT, 0, "no_code", "this address holds no code")
    return Secret(code)


def _inner(record: Mapping[str, object]) -> Mapping[str, object]:
    data = record.get("data")
    return data if isinstance(data, Mapping) else record


def _seconds(record: Mapping[str, object], seconds: str, milliseconds: str, default: float) -> float:
    for member, unit in ((seconds, 1.0), (milliseconds, 1000.0)):
        value = record.get(member)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            return value / unit
    return default


def _is_page(url: str) -> bool:
    """It is shown to a person and opened in a browser: nothing but a web page may pass."""
    return url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")) and url.isprintable()


def _word(text: str) -> bytes:
    return "".join(char for char in text if char.isalnum() or char == "_")[:64].encode("ascii", "ignore")


def _unreadable(status: int, what: str) -> Refused:
    return Refused(Refusal.TRANSIENT, status, "unreadable", f"the service answered without {what}")
