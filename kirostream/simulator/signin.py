"""Signing in: AWS SSO OIDC and Kiro's own service, by device code and by browser (kiro-protocol.md sections 5.3, 5.4).

Pure: the caller has the clock. Opening a page confirms, in place of a person: the link of a device code, or the page
that a browser is sent to. ``as=NAME`` in its query says who signs in, ``deny=1`` refuses.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from kirostream.dataclass import dataclass
from kirostream.simulator.oidc import Auth, Issuer, oauth_error

Answer: TypeAlias = tuple[int, dict[str, Any]]
Fault: TypeAlias = Literal["slow_down", "expired_token", "access_denied", "internal"]

REGISTRATION_LIFETIME: Final = 90 * 86400.0
CODE_LIFETIME: Final = 600.0
INTERVAL: Final = 1.0
BUILDER_ID: Final = "https://view.awsapps.com/start"
UNENTITLED: Final = "https://unentitled.awsapps.com/start"
"""The start URL of an organisation without a subscription."""

_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass
class Client:
    """A client that was registered."""

    client_id: str
    secret: str
    until: float
    grants: frozenset[str]
    redirects: tuple[str, ...]


@dataclass
class Code:
    """A device code, or the code that a browser brings back. `who` has confirmed it; empty: nobody yet."""

    auth: Auth
    until: float
    user_code: str = ""
    client: Client | None = None
    free: bool = False
    provider: str = "Google"
    challenge: str = ""
    redirect: str = ""
    who: str = ""
    denied: bool = False
    interval: float = INTERVAL
    asked_at: float = float("-inf")


class SignIns:
    """Everything between a registration and the first tokens.

    Args:
        issuer: makes the tokens.

    `faults` are answered to the next polls, the first first. `interval` is the pause, in seconds, that device codes
    made from now on ask for.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._count = itertools.count(1)
        self._clients: dict[str, Client] = {}
        self._codes: dict[str, Code] = {}
        self.faults: deque[Fault] = deque()
        self.interval = INTERVAL

    def __repr__(self) -> str:
        return f"<SignIns: {len(self._clients)} clients, {len(self._codes)} codes>"

    # What a person does

    def open(self, user_code: str, who: str = "demo", *, deny: bool = False) -> bool:
        """Confirm, or refuse, a device code. False: there is none."""
        for code in self._codes.values():
            if code.user_code and code.user_code == user_code:
                code.who, code.denied = who, deny
                return True
        return False

    def authorize(self, query: Mapping[str, str], now: float) -> str | None:
        """The address the browser is sent to from ``/authorize`` or ``/signin``; None: the request is not in order."""
        redirect, challenge = query.get("redirect_uri", ""), query.get("code_challenge", "")
        if urlsplit(redirect).hostname != "127.0.0.1" or query.get("code_challenge_method") != "S256" or not challenge:
            return None
        client = None
        if "client_id" in query:
            client = self._clients.get(query["client_id"])
            if client is None or now >= client.until or _portless(redirect) not in client.redirects:
                return None
        if query.get("deny"):
            said = {"error": "access_denied", "error_description": "The person said no."}
        else:
            name = self._issuer.name("code", next(self._count))
            self._codes[name] = Code(
                "social" if client is None else "idc",
                now + CODE_LIFETIME,
                client=client,
                provider=query.get("idp", "Google"),
                challenge=challenge,
                redirect=redirect,
                who=query.get("as", "demo"),
            )
            said = {"code": name}
        return f"{redirect}?{urlencode({**said, 'state': query.get('state', '')}, quote_via=quote)}"

    # What a client asks

    def register(self, body: Mapping[str, Any], now: float) -> Answer:
        """``POST /client/register``."""
        grants = frozenset(body.get("grantTypes") or ())
        if body.get("clientType") != "public" or not body.get("clientName") or "refresh_token" not in grants:
            return 400, oauth_error("invalid_request", "clientName, clientType or grantTypes")
        if body.get("issuerUrl") == UNENTITLED:
            return 400, {"__type": "com.amazonaws.ssooidc#UnauthorizedException", "message": "Not allowed."}
        number = next(self._count)
        client = Client(
            self._issuer.name("client", number),
            self._issuer.name("eyJsecret", number),
            now + REGISTRATION_LIFETIME,
            grants,
            tuple(body.get("redirectUris") or ()),
        )
        self._clients[client.client_id] = client
        return 200, {
            "clientId": client.client_id,
            "clientSecret": client.secret,
            "clientIdIssuedAt": int(now),
            "clientSecretExpiresAt": int(client.until),
        }

    def device_authorization(self, body: Mapping[str, Any], now: float, base: str) -> Answer:
        """``POST /device_authorization``. `base` is our own URL."""
        client = self._client(body, now)
        if client is None or _DEVICE not in client.grants:
            return 401, oauth_error("invalid_client", "Invalid client provided")
        name, code = self._device_code(Code("idc", now + CODE_LIFETIME, client=client))
        code.free = str(body.get("startUrl", "")).rstrip("/") == BUILDER_ID
        return 200, {
            "deviceCode": name,
            "userCode": code.user_code,
            "verificationUri": f"{base}/device",
            "verificationUriComplete": f"{base}/device?user_code={code.user_code}",
            "interval": int(code.interval) or code.interval,
            "expiresIn": int(CODE_LIFETIME),
        }

    def social_device(self, body: Mapping[str, Any], now: float, base: str) -> Answer:
        """``POST /oauth/device/authorization``."""
        provider = body.get("loginProvider")
        if body.get("clientId") != "kiro-cli" or provider not in ("Google", "Github"):
            return 400, {"message": "Invalid request"}
        name, code = self._device_code(Code("social", now + CODE_LIFETIME, provider=provider))
        return 200, {
            "deviceCode": name,
            "userCode": code.user_code,
            "verificationUri": f"{base}/device",
            "verificationUriComplete": f"{base}/device?user_code={code.user_code}",
            "intervalInMilliseconds": int(code.interval * 1000),
            "expiresInMilliseconds": int(CODE_LIFETIME * 1000),
        }

    def token(self, body: Mapping[str, Any], now: float) -> Answer:
        """``POST /token``: a poll, an exchange or a refresh."""
        grant = body.get("grantType")
        if grant not in (_DEVICE, "authorization_code"):
            return self._issuer.refresh_oidc(dict(body), now)
        client = self._client(body, now)
        if client is None or grant not in client.grants:
            return 401, oauth_error("invalid_client", "Invalid client provided")
        if grant == _DEVICE:
            return self._poll(str(body.get("deviceCode", "")), client, now)
        return self._exchange(body.get("code"), body.get("redirectUri"), body.get("codeVerifier"), client, now)

    def social_poll(self, body: Mapping[str, Any], now: float) -> Answer:
        """``POST /oauth/device/poll``. It says what is wrong in a `status`, with 200."""
        status, said = self._poll(str(body.get("deviceCode", "")), None, now)
        return (200, {"status": said["error"]}) if status == 400 else (status, said)

    def social_token(self, body: Mapping[str, Any], now: float) -> Answer:
        """``POST /oauth/token``."""
        return self._exchange(body.get("code"), body.get("redirect_uri"), body.get("code_verifier"), None, now)

    def _client(self, body: Mapping[str, Any], now: float) -> Client | None:
        client = self._clients.get(str(body.get("clientId", "")))
        fits = client is not None and body.get("clientSecret") == client.secret and now < client.until
        return client if fits else None

    def _device_code(self, code: Code) -> tuple[str, Code]:
        number = next(self._count)
        name = self._issuer.name("device", number)
        digest = hashlib.sha256(name.encode()).digest()
        letters = "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:8])
        code.interval = self.interval
        code.user_code = f"{letters[:4]}-{letters[4:]}"
        self._codes[name] = code
        return name, code

    def _poll(self, name: str, client: Client | None, now: float) -> Answer:
        code = self._codes.get(name)
        if code is None or code.client is not client or not code.user_code:
            return 400, oauth_error("invalid_grant", "Invalid device code provided")
        too_soon = now - code.asked_at < code.interval - 0.01
        code.asked_at = now
        fault = self.faults.popleft() if self.faults else ""
        if fault == "internal":
            return 500, oauth_error("server_error", "Internal error")
        if fault == "slow_down" or (too_soon and not fault):
            code.interval += 5
            return 400, oauth_error("slow_down", "Polling too fast")
        if now >= code.until or fault == "expired_token":
            del self._codes[name]
            return 400, oauth_error("expired_token", "The device code has expired")
        if code.denied or fault == "access_denied":
            del self._codes[name]
            return 400, oauth_error("access_denied", "The person said no")
        if not code.who:
            return 400, oauth_error("authorization_pending", "Nobody has confirmed yet")
        del self._codes[name]
        return self._tokens(code, now)

    def _exchange(self, name: Any, redirect: Any, verifier: Any, client: Client | None, now: float) -> Answer:
        code = self._codes.pop(str(name), None)  # used once, whatever comes of it
        proof = base64.urlsafe_b64encode(hashlib.sha256(str(verifier).encode()).digest()).rstrip(b"=").decode()
        fits = code is not None and code.client is client and proof == code.challenge and redirect == code.redirect
        if code is None or not fits or now >= code.until:
            return 400, oauth_error("invalid_grant", "Invalid code provided")
        return self._tokens(code, now)

    def _tokens(self, code: Code, now: float) -> Answer:
        client = code.client
        grant = self._issuer.log_in(
            code.who,
            code.auth,
            client_id=client.client_id if client else "",
            client_secret=client.secret if client else "",
            free=code.free,
        )
        said = self._issuer.tokens(grant, now)
        if client is not None:
            return 200, {**said, "tokenType": "Bearer"}
        return 200, {**said, "profileArn": grant.profile_arn, "identityProvider": code.provider}


def _portless(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
