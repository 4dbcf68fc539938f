"""A refresh token (or an API key) given by name: in the environment, on the command line or in the settings.

What was given cannot be written back. A rotated token is therefore kept in our own sealed store, under the SHA-256 of
the token that was given, and a restart goes on with the newest one. Giving another token starts afresh.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import trio

from kirostream.accounts.account import Credential, Secret, read_expiry
from kirostream.accounts.sources.fields import member, parse_object, text
from kirostream.accounts.sources.source import StaleCredential, check_refresh_token
from kirostream.errors import SettingsError
from kirostream.stores.sealed import SealedStore


class HeldToken:
    """One token somebody gave.

    Args:
        given: the credential as it was given.
        vault: where rotated tokens are kept; None: in this process alone.
        origin: where it was given, for people: ``REFRESH_TOKEN in the environment``.
    """

    kind: ClassVar[str] = "token"

    def __init__(self, given: Credential, vault: SealedStore | None, *, origin: str) -> None:
        check_refresh_token(given.refresh_token, origin)
        self._given = given
        self._vault = vault
        self._origin = origin
        self._newest = given

    def __repr__(self) -> str:
        return f"<HeldToken from {self._origin}>"

    @property
    def place(self) -> str:
        """A digest of the token as it was given: it stays while the token rotates, and changes with the account."""
        return (self._given.refresh_token or self._given.access_token).digest()

    @property
    def login(self) -> str:
        """How to renew it."""
        return f"Log in again and put the new token into {self._origin}, then restart."

    def describe(self) -> str:
        """For people."""
        return f"the token from {self._origin}"

    async def load(self) -> Sequence[Credential]:
        """The newest form of the token."""
        if self._vault is not None and self._given.refresh_token:
            self._newest = await trio.to_thread.run_sync(self._read, self._vault, abandon_on_cancel=True)
        return [self._newest]

    async def save(self, old: Credential, new: Credential) -> None:
        """Seal the new tokens."""
        if self._vault is not None:
            await trio.to_thread.run_sync(self._write, self._vault, old, new, abandon_on_cancel=True)
        self._newest = new

    @property
    def _record(self) -> str:
        return f"refresh-token/{self.place}"

    def _read(self, vault: SealedStore) -> Credential:
        sealed = vault.get(self._record)
        if sealed is None:
            return self._given
        record = parse_object(sealed, f"the sealed record of {self.describe()}")
        refresh = Secret(text(record, "refresh_token"))
        if not refresh:
            raise SettingsError(f"the sealed record of {self.describe()} holds no token. {self.login}")
        return replace(
            self._given,
            refresh_token=refresh,
            access_token=Secret(text(record, "access_token")),
            expires_at=read_expiry(member(record, "expires_at")),
            profile_arn=self._given.profile_arn or text(record, "profile_arn"),
        )

    def _write(self, vault: SealedStore, old: Credential, new: Credential) -> None:
        if self._read(vault).refresh_token != old.refresh_token:
            raise StaleCredential(f"{self.describe()} was renewed by another process meanwhile")
        record = {
            "access_token": new.access_token.reveal(),
            "refresh_token": new.refresh_token.reveal(),
            "expires_at": new.expires_at,
            "profile_arn": new.profile_arn,
        }
        vault.put(self._record, json.dumps(record).encode())
