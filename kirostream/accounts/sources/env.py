"""A refresh token (or an API key) given by name: in the environment, on the command line or in the settings.

What was given cannot be written back; `shelf.Shelved` keeps what it becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

from kirostream.accounts.account import Credential
from kirostream.accounts.sources.source import check_refresh_token
from kirostream.errors import StoreError


class HeldToken:
    """One token somebody gave.

    Args:
        given: the credential as it was given.
        origin: where, for people: ``REFRESH_TOKEN in the environment``.

    Raises:
        SettingsError: the token is shortened.
    """

    kind: ClassVar[str] = "token"

    def __init__(self, given: Credential, *, origin: str) -> None:
        check_refresh_token(given.refresh_token, origin)
        self._given = given
        self._origin = origin

    def __repr__(self) -> str:
        return f"<HeldToken from {self._origin}>"

    @property
    def place(self) -> str:
        """A digest of the token as it was given: the same while it rotates, another when another one is given."""
        return (self._given.refresh_token or self._given.access_token).digest()

    @property
    def login(self) -> str:
        """How to renew it."""
        return f"Log in again and put the new token into {self._origin}, then restart."

    async def load(self) -> Sequence[Credential]:
        """The token as it was given."""
        return [self._given]

    async def save(self, old: Credential, new: Credential) -> NoReturn:
        """Refused: nobody can change what was given."""
        raise StoreError(f"{self.describe()} cannot be written back", reason="given")

    def describe(self) -> str:
        """For people."""
        return f"the token from {self._origin}"
