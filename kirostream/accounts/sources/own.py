"""What people signed in to here, or imported: one sealed record an account.

A record is replaced as a whole, under a lock that all processes share, so that registration, secret and tokens always
belong together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import trio

from kirostream.accounts.account import AuthMethod, Credential
from kirostream.accounts.profiles import is_builder_id
from kirostream.accounts.sources.fields import parse_object
from kirostream.accounts.sources.record import read_credential, write_credential
from kirostream.accounts.sources.source import StaleCredential
from kirostream.errors import SettingsError
from kirostream.stores.files import FileLock
from kirostream.stores.sealed import SealedStore


class OwnAccount:
    """One account of the roster.

    Args:
        record: names it in the vault.
        label: for people.
        vault: our sealed store.
        lock: the file that processes lock to change it. Its folder exists.
        profile_arn, api_region: an operator's choice; it wins over the record.
    """

    kind: ClassVar[str] = "own"

    def __init__(
        self,
        record: str,
        vault: SealedStore,
        lock: Path,
        *,
        label: str = "",
        profile_arn: str = "",
        api_region: str = "",
    ) -> None:
        self.record = record
        self._vault = vault
        self._lock = lock
        self._label = label or record
        self._profile_arn = profile_arn
        self._api_region = api_region
        self._command = "kirostream login"

    def __repr__(self) -> str:
        return f"<OwnAccount {self.record}>"

    @property
    def place(self) -> str:
        """The record's name."""
        return self.record

    @property
    def login(self) -> str:
        """How to renew it."""
        return f"Run: {self._command} (as the same person; it replaces the old sign-in)."

    def describe(self) -> str:
        """For people."""
        return f"the account {self._label} of kirostream"

    async def load(self) -> Sequence[Credential]:
        """The one credential of the record."""
        return [await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)]

    async def save(self, old: Credential, new: Credential) -> None:
        """Replace the record."""
        async with FileLock(self._lock):
            await trio.to_thread.run_sync(self._save, old, new)

    def _load(self) -> Credential:
        credential = self.read()
        self._command = login_command(credential)
        return replace(
            credential,
            profile_arn=self._profile_arn or credential.profile_arn,
            api_region=self._api_region or credential.api_region,
        )

    def _save(self, old: Credential, new: Credential) -> None:
        held = self.read()
        if held.refresh_token != old.refresh_token:
            raise StaleCredential(f"{self.describe()} was written by another process meanwhile")
        self.write(new)

    # Without a lock, in a thread: for who holds it

    def read(self) -> Credential:
        """What the record holds.

        Raises:
            SettingsError: there is none.
            StoreError: it cannot be read.
        """
        sealed = self._vault.get(self._name)
        if sealed is None:
            raise SettingsError(f"{self.describe()} holds no sign-in any more. {self.login}")
        return read_credential(parse_object(sealed, self.describe()), self.describe())

    def write(self, credential: Credential) -> None:
        """Replace the record.

        Raises:
            StoreError: it holds what it held.
        """
        self._vault.put(self._name, json.dumps(write_credential(credential), ensure_ascii=False).encode())

    def forget(self) -> None:
        """Delete the record. It may be gone."""
        self._vault.delete(self._name)

    @property
    def _name(self) -> str:
        return f"account/{self.record}"


def login_command(credential: Credential) -> str:
    """The command that signs in again in the same way."""
    if credential.auth is AuthMethod.API_KEY:
        return "kirostream accounts add --api-key"
    if credential.auth is AuthMethod.SOCIAL:
        provider = credential.provider.lower()
        return f"kirostream login --social {provider if provider in ('google', 'github') else 'google'}"
    if is_builder_id(credential):
        return "kirostream login --builder-id"
    if credential.auth is AuthMethod.IDC and credential.start_url:
        return f"kirostream login --start-url {credential.start_url} --region {credential.region}"
    return "kirostream login"
