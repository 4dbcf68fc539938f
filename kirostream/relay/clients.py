"""The connections of the accounts: each has its own, by its own proxy.

One client for all would let the service see one connection for several accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from kirostream.accounts.account import Account, AccountId
from kirostream.accounts.keeper import Post
from kirostream.accounts.oidc import Headers
from kirostream.net.client import ClientSettings, HttpClient

ClientOf: TypeAlias = Callable[[Account], HttpClient]
"""The connections of an account."""

DIRECT: Final = "direct"
"""In place of a proxy: none, whatever the others have."""


class Clients:
    """Makes the client of an account when it is first asked for, and keeps it.

    Args:
        settings: those of all accounts.
        proxy_of: an account's own proxy; empty: that of the settings.
    """

    def __init__(self, settings: ClientSettings, proxy_of: Callable[[Account], str] = lambda account: "") -> None:
        self._settings = settings
        self._proxy_of = proxy_of
        self._clients: dict[AccountId, HttpClient] = {}

    def __repr__(self) -> str:
        return f"<Clients of {len(self._clients)} accounts>"

    def of(self, account: Account) -> HttpClient:
        """The client of `account`.

        Raises:
            SettingsError: its proxy cannot be used.
        """
        client = self._clients.get(account.id)
        if client is None:
            proxy = self._proxy_of(account)
            settings = replace(self._settings, proxy="" if proxy == DIRECT else proxy) if proxy else self._settings
            client = self._clients[account.id] = HttpClient(settings)
        return client

    def post_of(self, account: Account) -> Post:
        """The way of `account` to the token service.

        Raises:
            SettingsError: as for `of`.
        """
        client = self.of(account)

        async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
            status, _, answer = await client.fetch(method, url, headers, body)
            return status, answer

        return post

    async def close(self, account: AccountId) -> None:
        """Close the connections of an account. When it is asked for again, it gets others."""
        client = self._clients.pop(account, None)
        if client is not None:
            await client.aclose()

    async def aclose(self) -> None:
        """Close every connection. Streams that are open break."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()
