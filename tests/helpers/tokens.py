"""A token service that rotates: the moment a refresh token is used, it is dead and another one lives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import trio

from kirostream.accounts.account import Account, AccountId, AuthMethod, Credential, Secret
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.sources.source import CredentialSource

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z: when every test begins."""


def unix_clock() -> Callable[[], float]:
    """Unix seconds that go with trio's clock, jumping or not."""
    start = trio.current_time()
    return lambda: NOW + trio.current_time() - start


class TokenService:
    """Answers refreshes in memory. `failures` come first, in order: a (status, body), or an exception to raise."""

    def __init__(self, *, lifetime: float = 3600, delay: float = 0.0, rotates: bool = True) -> None:
        self.live = "aor-0"
        self.access: set[str] = {"aoa-0"}
        self.lifetime = lifetime
        self.delay = delay
        self.rotates = rotates
        self.failures: list[tuple[int, bytes] | Exception] = []
        self.asked: list[str] = []
        """The refresh tokens that came in."""
        self.urls: list[str] = []

    def issue(self) -> dict[str, object]:
        """What a refresh, or a login in another program, gives."""
        n = len(self.access)
        self.access.add(f"aoa-{n}")
        if self.rotates:
            self.live = f"aor-{n}"
        return {"accessToken": f"aoa-{n}", "refreshToken": self.live, "expiresIn": self.lifetime}

    async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        """As `kirostream.accounts.keeper.Post`."""
        assert method == "POST"
        token = json.loads(body)["refreshToken"]
        self.asked.append(token)
        self.urls.append(url)
        await trio.sleep(self.delay / 2)  # a checkpoint before the token rotates, and one after
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if token != self.live:
            return 400, b'{"error":"invalid_grant","error_description":"Invalid refresh token provided"}'
        answer = json.dumps(self.issue()).encode()
        await trio.sleep(self.delay / 2)
        return 200, answer


def social(*, left: float = 3600, refresh: str = "aor-0", access: str = "aoa-0") -> Credential:
    """A social credential whose access token lasts another `left` seconds."""
    return Credential(
        auth=AuthMethod.SOCIAL, refresh_token=Secret(refresh), access_token=Secret(access), expires_at=NOW + left
    )


def account(name: str = "test-1") -> Account:
    """An account with a device."""
    return Account(id=AccountId(name), label="Google", auth=AuthMethod.SOCIAL, machine_id="ab" * 32)


@dataclass
class Kept:
    """A keeper that runs, and what is round it."""

    keeper: TokenKeeper
    service: TokenService
    source: CredentialSource
    account: Account
    refreshed: list[tuple[AccountId, float]]
    failed: list[tuple[AccountId, Exception]]

    async def access(self) -> str:
        """The access token handed out now, in the clear."""
        return (await self.keeper.token(self.account)).access.reveal()

    async def settle(self) -> None:
        """Until no refresh is under way."""
        while any(token.refreshing for token in self.keeper.snapshot().tokens):
            await trio.sleep(0.001)


async def keep(
    nursery: trio.Nursery,
    credential: Credential,
    service: TokenService,
    *,
    source: CredentialSource | None = None,
    settings: KeeperSettings | None = None,
) -> Kept:
    """A running keeper of one account; it ends with `nursery`."""
    refreshed: list[tuple[AccountId, float]] = []
    failed: list[tuple[AccountId, Exception]] = []
    keeper = TokenKeeper(
        service.post,
        settings,
        time_source=unix_clock(),
        on_refreshed=lambda who, life: refreshed.append((who, life)),
        on_failed=lambda who, error: failed.append((who, error)),
    )
    held = source or DirectSource(credential)
    one = account()
    keeper.add(one, held, credential)
    await nursery.start(keeper.run)
    return Kept(keeper, service, held, one, refreshed, failed)
