"""The models of an account: read from the upstream, kept for an hour; a short list stands in where that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from kirostream.accounts.account import Account, Token
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
    def known(self) -> Models:
        """The list as it is known, without waiting for anything."""
        return self._known

    async def models(self, account: Account, token: Token) -> Models:
        """The list as it is known. Only before the first try does anybody wait for it."""
        if not self._reading and self._clock() >= self._stale_at:
            self._reading = True
            self._nursery.start_soon(self._renew, account, token)
        await self._tried.wait()
        return self._known

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
