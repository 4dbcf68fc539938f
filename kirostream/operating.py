"""The composition root of the admin room: the parts of a running gateway, as what the panel works with.

Loaded with the first request to ``/admin``, and never before: a gateway that nobody looks at does not pay for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import UNSET

from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.admin.api import Admin, open_admin
from kirostream.admin.desk import About, Desk
from kirostream.admin.pages.keys import ChangeKey, ClientKey, GiveKey, KeyLimits
from kirostream.admin.pages.settings import Editor
from kirostream.commands.account_admin import AccountAdmin
from kirostream.errors import RequestError
from kirostream.gateway.callers import Callers
from kirostream.gateway.key_book import KeyBook, KeyUse
from kirostream.gateway.keys import FIGURES, amended_limits
from kirostream.gateway.limits import NONE
from kirostream.net.door import DoorSnapshot
from kirostream.net.exchange import HttpRequest
from kirostream.relay.clients import Clients
from kirostream.relay.house import House
from kirostream.relay.relay import Relay
from kirostream.relay.switch import Switch
from kirostream.settings import Settings
from kirostream.telemetry.captures import Captures
from kirostream.telemetry.logs import LogReader
from kirostream.telemetry.recent import Recent
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger

SCOPE: Final = "admin"


class AdminKeys:
    """The keys of scope `admin`, as the gateway's own door judges them."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def __repr__(self) -> str:
        return f"<AdminKeys of {self._callers!r}>"

    def admin(self, key: str) -> str:
        """As `admin.guard.Keys` has it."""
        header = (b"authorization", b"Bearer " + key.encode("utf-8", "surrogatepass"))
        try:
            return self._callers.check(HttpRequest("GET", "/admin", "", (header,)), SCOPE).name
        except RequestError:
            return ""


class GivenKeys:
    """The key book, as `admin.pages.keys.KeyRing` has it."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book

    def __repr__(self) -> str:
        return f"<GivenKeys of {self._book!r}>"

    def uses(self) -> list[ClientKey]:
        """As `KeyRing` has it."""
        return [_said(use) for use in self._book.uses()]

    async def add(self, said: GiveKey) -> tuple[str, str]:
        """As `KeyRing` has it."""
        limits = amended_limits(NONE, msgspec.structs.asdict(said.limits))
        change = self._book.file.add(said.name, scopes=said.scopes, limits=limits, expires_at=said.expires_at)
        key, secret = await self._book.changed(change)
        return key.id, secret

    async def change(self, name: str, said: ChangeKey) -> None:
        """As `KeyRing` has it."""
        await self._book.changed(
            self._book.file.change(
                name,
                scopes=said.scopes or None,
                limits=msgspec.structs.asdict(said.limits) if said.limits is not UNSET else None,
                enabled=said.enabled if said.enabled is not UNSET else None,
                expires_at=said.expires_at if said.expires_at is not UNSET else None,
            )
        )

    async def rotate(self, name: str, keep: float) -> str:
        """As `KeyRing` has it."""
        return (await self._book.changed(self._book.file.rotate(name, keep=keep)))[1]

    async def remove(self, name: str) -> None:
        """As `KeyRing` has it."""
        await self._book.changed(self._book.file.remove(name))


def _said(use: KeyUse) -> ClientKey:
    key = use.key
    return ClientKey(
        id=key.id,
        name=key.name,
        hint=key.hint,
        scopes=[scope for scope in ("api", "watch", "admin") if scope in key.scopes],
        limits=KeyLimits(**{name: getattr(key.limits, name) for name in FIGURES}),
        enabled=key.enabled,
        expires_at=key.expires_at,
        created_at=key.created_at,
        older_until=key.older_until,
        in_flight=use.in_flight,
        credits_today=round(use.credits_today, 6),
        credits_this_month=round(use.credits_this_month, 6),
    )


def open_operating(
    settings: Settings,
    about: About,
    *,
    accounts_dir: Path,
    relay: Relay,
    pool: Pool,
    keeper: TokenKeeper,
    house: House,
    clients: Clients,
    callers: Callers,
    book: KeyBook,
    recent: Recent,
    recorder: Recorder,
    ledger: Ledger | None,
    logs: Path | None,
    captures: Captures,
    editor: Callable[[], Editor],
    door: Callable[[], DoorSnapshot],
    switch: Switch | None,
    adopters: list[Callable[[Settings], None]],
    nursery: trio.Nursery,
) -> Admin:
    """The admin room over a running gateway.

    Args:
        accounts_dir: where the list of its own accounts is kept; in a demo, not the person's own.
        logs: the folder of the log files; None: none are written.
        switch: to the simulator and back; None: in a demo, there is nothing to switch.
        adopters: told of other settings.
        nursery: owns what goes on when a request is over, such as a sign-in that waits for a person.
    """
    verbs = AccountAdmin(settings, os.environ, accounts_dir, clients, keeper, keeps=True)
    admin = open_admin(
        Desk(
            settings=settings.admin,
            about=about,
            relay=relay,
            pool=pool,
            keeper=keeper,
            house=house,
            verbs=verbs,
            recent=recent,
            recorder=recorder,
            ledger=ledger,
            logs=LogReader(logs) if logs is not None else None,
            captures=captures,
            editor=editor,
            door=door,
            switch=switch,
            keys=AdminKeys(callers),
            key_ring=GivenKeys(book),
            nursery=nursery,
            clock=time.time,
        )
    )

    def adopt(new: Settings) -> None:
        admin.adopt(new.admin)
        verbs.adopt(new)

    adopters.append(adopt)
    return admin
