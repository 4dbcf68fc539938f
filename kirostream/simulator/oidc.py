"""The token service: social refresh and OIDC refresh (kiro-protocol.md sections 5.2, 5.3).

Pure: the caller has the clock. Everything is derived from a seed, so a run can be repeated.
The tokens open nothing but the simulator.
"""

from __future__ import annotations

import hashlib
from dataclasses import field
from typing import Any, Final, Literal, TypeAlias

from kirostream.dataclass import dataclass

Auth: TypeAlias = Literal["social", "idc"]

ACCOUNT: Final = "111122223333"
REGION: Final = "us-east-1"


@dataclass
class Grant:
    """One account that has signed in, and its refresh token."""

    name: str
    auth: Auth
    refresh_token: str
    profile_arn: str
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    free: bool = False
    """Whether it is a Builder ID."""


class Issuer:
    """Signs accounts in, issues access tokens, and knows which are good.

    Args:
        seed: all tokens hang on it.
        lifetime: seconds that an access token lasts.
        rotate: whether a refresh replaces the refresh token and ends the old one.
    """

    def __init__(self, seed: int, lifetime: float, *, rotate: bool) -> None:
        self._seed = seed
        self._lifetime = lifetime
        self._rotate = rotate
        self._issued = 0
        self._logins = 0
        self._grants: dict[str, Grant] = {}  # by refresh token
        self._access: dict[str, tuple[float, Grant]] = {}  # by access token: until when, and whose

    def __repr__(self) -> str:
        return f"<Issuer: {len(self._grants)} accounts, {self._issued} tokens issued>"

    @property
    def issued(self) -> int:
        """How many access tokens were issued."""
        return self._issued

    def sign_in(self, name: str, auth: Auth = "social", refresh_token: str = "") -> Grant:
        """The account `name`, signed in now or before."""
        for grant in self._grants.values():
            if grant.name == name and grant.auth == auth:
                return grant
        grant = Grant(
            name,
            auth,
            refresh_token or self._make("aor", f"{auth}:{name}"),
            self._arn(name),
        )
        if auth == "idc":
            grant.client_id = self._make("client", name)
            grant.client_secret = self._make("secret", name)
        self._grants[grant.refresh_token] = grant
        return grant

    def log_in(
        self, name: str, auth: Auth, *, client_id: str = "", client_secret: str = "", free: bool = False
    ) -> Grant:
        """The account `name`, signed in anew: with a refresh token of its own, beside those that are out."""
        self._logins += 1
        grant = Grant(
            name,
            auth,
            self._make("aor", f"{auth}:{name}:login:{self._logins}"),
            self._arn(name),
            client_id,
            client_secret,
        )
        grant.free = free
        self._grants[grant.refresh_token] = grant
        return grant

    def tokens(self, grant: Grant, now: float) -> dict[str, Any]:
        """An access token and the refresh token, as every answer holds them."""
        access, _ = self.issue(grant, now)
        return {"accessToken": access, "refreshToken": grant.refresh_token, "expiresIn": int(self._lifetime)}

    def name(self, prefix: str, number: int) -> str:
        """A name that nobody guesses: of a client, a code, a secret."""
        return self._make(prefix, str(number))

    def issue(self, grant: Grant, now: float) -> tuple[str, float]:
        """A new access token and when it ends, in the unit of `now`."""
        self._issued += 1
        self._access = {token: held for token, held in self._access.items() if now < held[0]}
        token = self._make("aoa", f"{grant.name}:{self._issued}")
        self._access[token] = (now + self._lifetime, grant)
        return token, now + self._lifetime

    def check(self, token: str, now: float) -> Grant | None:
        """Whose access token this is; None if it is not known or over."""
        until, grant = self._access.get(token, (0.0, None))
        return grant if now < until else None

    def revoke(self) -> None:
        """End every access token that is out."""
        self._access.clear()

    def refresh_social(self, body: dict[str, Any], now: float) -> tuple[int, dict[str, Any]]:
        """Status and body of ``POST /refreshToken``."""
        grant = self._grants.get(str(body.get("refreshToken", "")))
        if grant is None or grant.auth != "social":
            return 401, {"message": "Bad credentials"}
        return 200, {**self._renew(grant, now), "profileArn": grant.profile_arn}

    def refresh_oidc(self, body: dict[str, Any], now: float) -> tuple[int, dict[str, Any]]:
        """Status and body of ``POST /token`` with ``grantType: refresh_token``."""
        if body.get("grantType") != "refresh_token":
            return 400, oauth_error("unsupported_grant_type", "The simulator refreshes tokens, and nothing else.")
        grant = self._grants.get(str(body.get("refreshToken", "")))
        if grant is None or grant.auth != "idc":
            return 400, oauth_error("invalid_grant", "Invalid refresh token provided")
        if (body.get("clientId"), body.get("clientSecret")) != (grant.client_id, grant.client_secret):
            return 401, oauth_error("invalid_client", "Invalid client provided")
        return 200, {**self._renew(grant, now), "tokenType": "Bearer"}

    def _renew(self, grant: Grant, now: float) -> dict[str, Any]:
        if self._rotate:
            del self._grants[grant.refresh_token]
            grant.refresh_token = self._make("aor", f"{grant.auth}:{grant.name}:{self._issued}")
            self._grants[grant.refresh_token] = grant
        return self.tokens(grant, now)

    def _arn(self, name: str) -> str:
        return f"arn:aws:codewhisperer:{REGION}:{ACCOUNT}:profile/{self._hash(name)[:12].upper()}"

    def _make(self, prefix: str, what: str) -> str:
        return f"{prefix}Simulated{self._hash(f'{prefix}:{what}')}"

    def _hash(self, what: str) -> str:
        return hashlib.sha256(f"{self._seed}:{what}".encode()).hexdigest()


def oauth_error(error: str, description: str) -> dict[str, Any]:
    """An error body of RFC 6749."""
    return {"error": error, "error_description": description}
