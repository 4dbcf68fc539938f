"""A credential given in memory: the simulator's, and tests'. Nothing outlives the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kirostream.accounts.account import Credential
from kirostream.accounts.sources.source import StaleCredential


class DirectSource:
    """Holds one credential."""

    kind: ClassVar[str] = "direct"

    def __init__(
        self, credential: Credential, *, name: str = "memory", login: str = "Give a new credential and start again."
    ) -> None:
        self.credential = credential
        self._name = name
        self._login = login

    def __repr__(self) -> str:
        return f"<DirectSource {self._name}>"

    @property
    def place(self) -> str:
        """The name given to it."""
        return self._name

    @property
    def login(self) -> str:
        """What the giver said."""
        return self._login

    async def load(self) -> Sequence[Credential]:
        """The one credential."""
        return [self.credential]

    async def save(self, old: Credential, new: Credential) -> None:
        """Keep `new` in memory."""
        if self.credential.refresh_token != old.refresh_token:
            raise StaleCredential(f"{self.describe()} was given another credential meanwhile")
        self.credential = new

    def describe(self) -> str:
        """For people."""
        return f"the credential given directly ({self._name})"
