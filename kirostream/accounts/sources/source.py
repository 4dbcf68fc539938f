"""What a credential source is: a place that holds credentials, and takes rotated ones back.

Two programs may write the same place (the IDE or kiro-cli, and us). So `save` compares before it swaps: it writes only
where the stored refresh token is still the one that was used, and raises `StaleCredential` otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from kirostream.accounts.account import Credential, Secret
from kirostream.errors import SettingsError, StoreError


class StaleCredential(StoreError):
    """Somebody else replaced the credential since it was read: read it again, do not overwrite it."""


class CredentialSource(Protocol):
    """A place that holds the credentials of one or more accounts. Its work on files runs in threads."""

    @property
    def kind(self) -> str:
        """A word for the account's id: ``ide``, ``cli``."""

    @property
    def place(self) -> str:
        """What tells two sources of a kind apart; it stays the same over restarts. Never a secret."""

    @property
    def login(self) -> str:
        """How a person gets a new credential into this place: whole sentences, for error messages."""

    async def load(self) -> Sequence[Credential]:
        """What the place holds now, the preferred credential first; never empty.

        Raises:
            StoreError: it cannot be read.
            SettingsError: it can be read, and holds nothing usable. The message says what is wrong and what to do.
        """

    async def save(self, old: Credential, new: Credential) -> None:
        """Put `new` in the place of `old`, whole or not at all, and keep what else is there.

        Raises:
            StaleCredential: the place no longer holds `old`.
            StoreError: it cannot be written; it still holds what it held.
        """

    def describe(self) -> str:
        """For people: ``the Kiro IDE token file /home/me/.aws/sso/cache/kiro-auth-token.json``."""


SHORTEST_REFRESH_TOKEN: Final = 100
"""Characters. Real ones have about 232; a shorter one is worth a remark, no refusal (kiro-protocol.md section 5.1)."""


def check_refresh_token(token: Secret, where: str) -> None:
    """Refuse the shortened form that the IDE shows on screen.

    Raises:
        SettingsError: the token ends in an ellipsis.
    """
    if token.reveal().endswith(("...", "\N{HORIZONTAL ELLIPSIS}")):
        raise SettingsError(
            f"the refresh token in {where} is shortened (it ends with '...'): take the whole one, about 230 characters"
        )
