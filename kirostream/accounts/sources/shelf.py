"""Where a rotated token goes when its own place cannot take it: our sealed store.

A token in the environment cannot be written back; a token file may be mounted read-only, or be on a full disk. Losing
a rotated token may lose the account, so it is kept sealed, in a record named by the SHA-256 of the refresh token that
its own place still holds. When somebody logs in again, that place holds another token and the record no longer has its
name: what is on the shelf is passed over by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import trio

from kirostream.accounts.account import Credential, Secret, read_expiry
from kirostream.accounts.sources.fields import member, parse_object, text
from kirostream.accounts.sources.source import CredentialSource, StaleCredential
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sealed import SealedStore


class Shelved:
    """A source, with our sealed store beside it for what it cannot take.

    Args:
        origin: the place itself; it is always tried first.
        vault: our sealed store.
    """

    def __init__(self, origin: CredentialSource, vault: SealedStore) -> None:
        self._origin = origin
        self._vault = vault

    def __repr__(self) -> str:
        return f"<Shelved {self._origin!r}>"

    @property
    def kind(self) -> str:
        """The origin's."""
        return self._origin.kind

    @property
    def place(self) -> str:
        """The origin's."""
        return self._origin.place

    @property
    def login(self) -> str:
        """The origin's."""
        return self._origin.login

    def describe(self) -> str:
        """The origin, for people."""
        return self._origin.describe()

    async def load(self) -> Sequence[Credential]:
        """The newest form of what the origin holds."""
        held = await self._origin.load()
        return [await trio.to_thread.run_sync(self._newest, one, abandon_on_cancel=True) for one in held]

    async def save(self, old: Credential, new: Credential) -> None:
        """Into the origin; onto the shelf where that fails."""
        held = next((one for one in await self._origin.load() if one.key == old.key), None)
        if held is None:
            raise StaleCredential(f"{self.describe()} no longer holds the sign-in")
        newest = await trio.to_thread.run_sync(self._newest, held, abandon_on_cancel=True)
        if newest.refresh_token != old.refresh_token:
            raise StaleCredential(f"{self.describe()} was renewed by another program meanwhile")
        try:
            await self._origin.save(held, new)
        except StaleCredential:
            raise
        except StoreError as refused:
            try:
                await trio.to_thread.run_sync(self._put, held, new, abandon_on_cancel=True)
            except StoreError as error:
                raise StoreError(f"{refused.message}; and {error.message}", reason=error.reason) from error
        else:
            await trio.to_thread.run_sync(self._vault.delete, _record(held), abandon_on_cancel=True)

    # -- below: in a thread

    def _newest(self, held: Credential) -> Credential:
        if not held.refresh_token:
            return held
        sealed = self._vault.get(_record(held))
        if sealed is None:
            return held
        record = parse_object(sealed, f"the sealed record of {self.describe()}")
        shelved = replace(
            held,
            refresh_token=Secret(text(record, "refresh_token")),
            access_token=Secret(text(record, "access_token")),
            expires_at=read_expiry(member(record, "expires_at")),
            profile_arn=held.profile_arn or text(record, "profile_arn"),
        )
        if not shelved.refresh_token:
            raise SettingsError(f"the sealed record of {self.describe()} holds no token. {self.login}")
        if shelved.refresh_token == held.refresh_token and shelved.valid_until() <= held.valid_until():
            return held
        return shelved

    def _put(self, held: Credential, new: Credential) -> None:
        record = {
            "access_token": new.access_token.reveal(),
            "refresh_token": new.refresh_token.reveal(),
            "expires_at": new.expires_at,
            "profile_arn": new.profile_arn,
        }
        self._vault.put(_record(held), json.dumps(record).encode())


def _record(held: Credential) -> str:
    return f"refresh-token/{held.refresh_token.digest()}"
