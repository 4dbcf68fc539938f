"""The models of the accounts: read from the upstream, kept for an hour; a short list stands in where that fails.

What an account may use hangs on its plan, so a `Catalogue` is of one account, and `Catalogues` has what all of them
have together. A turn waits for the first account's list alone; those of the others are read behind its back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Final

import trio

from kirostream.accounts.account import Account, AccountId, Token
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError
from kirostream.net.client import HttpClient
from kirostream.providers.provider import Provider
from kirostream.telemetry.facts import CatalogueLoaded
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.model import Model

PAGES = 20
"""Pages read at the most; the service has two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueSettings:
    """How long the list of models holds."""

    refresh: float = field(default=3600.0, metadata={"help": "Seconds a list of models is used.", "unit": "s"})
    retry: float = field(default=60.0, metadata={"help": "Pause after a list that could not be read.", "unit": "s"})
    deadline: float = field(default=10.0, metadata={"help": "For reading the list.", "unit": "s"})


@dataclass(frozen=True, slots=True)
class Models:
    """A list of models. `complete`: it is the upstream's own."""

    models: Sequence[Model]
    complete: bool


class Catalogue:
    """The models of one account. A turn waits for the list once; afterwards it is renewed behind the turns' backs.

    Args:
        nursery: owns the reading, so that a turn that leaves does not end it for others.
        clock: seconds, for the age of the list.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        provider: Provider,
        client: HttpClient,
        recorder: Recorder,
        settings: CatalogueSettings | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._nursery = nursery
        self._provider = provider
        self._client = client
        self._recorder = recorder
        self._settings = settings or CatalogueSettings()
        self._clock = clock
        self._known = Models(provider.fallback_models, complete=False)
        self._stale_at = float("-inf")
        self._reading = False
        self._tried = trio.Event()

    def __repr__(self) -> str:
        kind = "complete" if self._known.complete else "fallback"
        return f"<Catalogue {len(self._known.models)} models, {kind}{', reading' if self._reading else ''}>"

    @property
    def due(self) -> bool:
        """Whether the list is to be read, and nobody reads it."""
        return not self._reading and self._clock() >= self._stale_at

    @property
    def settled(self) -> bool:
        """Whether nobody has to read the list, nor to wait for it."""
        return self._tried.is_set() and not self.due

    @property
    def known(self) -> Models:
        """The list as it is known, without waiting for anything."""
        return self._known

    async def models(self, account: Account, token: Token) -> Models:
        """The list as it is known. Only before the first try does anybody wait for it."""
        if self.due:
            self._reading = True
            self._nursery.start_soon(self._renew, account, token)
        await self._tried.wait()
        return self._known

    def adopt(self, settings: CatalogueSettings) -> None:
        """Go by other settings from the next reading on."""
        self._settings = settings

    def put_off(self) -> None:
        """Try again later: there is not even a token to read the list with, of which the keeper has told."""
        self._stale_at = self._clock() + self._settings.retry

    async def _renew(self, account: Account, token: Token) -> None:
        """Read the list anew. A failure keeps the old one, and is tried again after a pause."""
        error, pause = "", self._settings.retry
        try:
            with trio.fail_after(self._settings.deadline):
                self._known = Models(await self._read(account, token), complete=True)
            pause = self._settings.refresh
        except trio.TooSlowError:
            error = f"no answer within {self._settings.deadline:g} s"
        except KirostreamError as refused:
            error = f"{type(refused).__name__}: {refused.message}"
        finally:
            self._stale_at = self._clock() + pause
            self._reading = False
            self._tried.set()
        self._recorder.record(
            CatalogueLoaded(provider=self._provider.name, models=len(self._known.models), error=error)
        )

    async def _read(self, account: Account, token: Token) -> list[Model]:
        found: list[Model] = []
        page = ""
        for _ in range(PAGES):
            ask = self._provider.list_models(account, token, page)
            status, headers, body = await self._client.fetch(ask.method, ask.url, ask.headers, ask.body)
            if status != 200:
                raise self._provider.classify(status, headers, self._provider.dialect.read_error(headers, body))
            models, page = self._provider.read_models(body)
            found += models
            if not page:
                break
        return found


LOOK: Final = 1.0
"""Seconds between two looks at what is due of all accounts: with a thousand of them that is no work for every turn."""
AT_ONCE: Final = 2
"""Lists that are read at the same time, beside the first."""


class Catalogues:
    """The models of all accounts.

    Args:
        nursery: owns the reading, so that a turn that leaves does not end it for others.
        client_of: the connections of an account.
        clock: seconds, for the age of the lists.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        provider: Provider,
        pool: Pool,
        keeper: TokenKeeper,
        client_of: Callable[[Account], HttpClient],
        recorder: Recorder,
        settings: CatalogueSettings | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._nursery = nursery
        self._provider = provider
        self._pool = pool
        self._keeper = keeper
        self._client_of = client_of
        self._recorder = recorder
        self._settings = settings
        self._clock = clock
        self._fallback = Models(provider.fallback_models, complete=False)
        self._catalogues: dict[AccountId, Catalogue] = {}
        self._usable: Sequence[Account] = ()
        self._look_at = float("-inf")
        self._waiting: set[AccountId] = set()
        self._readers = trio.CapacityLimiter(AT_ONCE)
        self._union = self._fallback
        self._of: Sequence[Models] = ()

    def __repr__(self) -> str:
        return f"<Catalogues of {len(self._catalogues)} accounts, {len(self.known.models)} models>"

    @property
    def known(self) -> Models:
        """What all accounts have together, as far as it is known; those of the first account come first."""
        lists = [held.known for held in self._catalogues.values() if held.known.complete]
        if len(lists) < 2:
            return lists[0] if lists else self._fallback
        if len(lists) != len(self._of) or any(new is not old for new, old in zip(lists, self._of, strict=True)):
            together = {model.id: model for held in reversed(lists) for model in reversed(held.models)}
            self._union, self._of = Models(tuple(reversed(together.values())), complete=True), lists
        return self._union

    def adopt(self, settings: CatalogueSettings) -> None:
        """Go by other settings, from the next reading of each list on."""
        self._settings = settings
        for each in self._catalogues.values():
            each.adopt(settings)

    def forget(self, account: AccountId) -> None:
        """Offer no more what only this account has."""
        self._catalogues.pop(account, None)
        self._usable = tuple(each for each in self._usable if each.id != account)

    def lists(self, model: str) -> bool:
        """Whether some account is known to have the model of this id."""
        return any(each.id == model for each in self.known.models)

    async def models(self) -> Models:
        """The list as it is known. Only before the first list is there does anybody wait for it.

        Never fails for want of the upstream: then a short list stands in.
        """
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK
            self._usable = self._pool.usable()
            self._read_the_others()
        for account in self._usable:
            held = self._catalogues.get(account.id)
            if held is not None and held.settled:
                break
            try:
                token = await self._keeper.token(account)
            except KirostreamError:
                continue
            await self._catalogue(account).models(account, token)
            break
        return self.known

    def _read_the_others(self) -> None:
        for account in self._usable[1:]:
            if account.id not in self._waiting and self._catalogue(account).due:
                self._waiting.add(account.id)
                self._nursery.start_soon(self._read, account)

    async def _read(self, account: Account) -> None:
        """Read the list of one account, when its turn has come."""
        try:
            async with self._readers:
                token = await self._keeper.token(account)
                await self._catalogue(account).models(account, token)
        except KirostreamError:
            self._catalogue(account).put_off()
        finally:
            self._waiting.discard(account.id)

    def _catalogue(self, account: Account) -> Catalogue:
        held = self._catalogues.get(account.id)
        if held is None:
            held = self._catalogues[account.id] = Catalogue(
                self._nursery,
                self._provider,
                self._client_of(account),
                self._recorder,
                self._settings,
                self._clock,
            )
        return held
