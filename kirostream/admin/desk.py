"""What the admin room works with: the parts of a running gateway, as far as they are shown and steered here.

Rooms above this one are used as they are. What lies beside or below (the door, the settings, the commands' account
verbs) comes as a port, and is put in by the composition root.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import trio

from kirostream.accounts.account import Credential, Token
from kirostream.accounts.discovery import Found
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.login import Screen
from kirostream.accounts.pool import Pool
from kirostream.accounts.roster import Entry, Kept, Roster
from kirostream.admin.guard import Keys
from kirostream.admin.pages.keys import KeyRing
from kirostream.admin.pages.settings import Editor
from kirostream.admin.settings import AdminSettings
from kirostream.dataclass import dataclass
from kirostream.net.door import DoorSnapshot
from kirostream.providers.kiro_management import AccountUsage, Checkout, Plan
from kirostream.relay.house import House
from kirostream.relay.relay import Relay
from kirostream.relay.switch import Switch
from kirostream.telemetry.captures import Captures
from kirostream.telemetry.logs import LogReader
from kirostream.telemetry.recent import Recent
from kirostream.telemetry.recorder import Recorder
from kirostream.telemetry.usage import Ledger


class SignedIn(Protocol):
    """Who has signed in."""

    @property
    def kept(self) -> Kept:
        """What became of the credential."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be found out."""


class TakenOver(Protocol):
    """What an import came to."""

    @property
    def format(self) -> str:
        """The format that was read."""

    @property
    def added(self) -> tuple[Entry, ...]:
        """New accounts."""

    @property
    def replaced(self) -> tuple[Entry, ...]:
        """Accounts that were known, with what is newer."""

    @property
    def older(self) -> tuple[Entry, ...]:
        """Accounts whose kept sign-in is the newer one."""

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why some were left out."""


class AccountVerbs(Protocol):
    """What `kirostream accounts` and `kirostream login` do, on the accounts of the running gateway.

    Everything raises of the `KirostreamError` family.
    """

    roster: Roster

    async def log_in(self, template: Credential, screen: Screen, *, browser: bool, label: str = "") -> SignedIn:
        """Sign a person in, and keep what comes of it."""

    async def add_place(self, kind: str, path: str, label: str = "") -> Kept:
        """Use what another program keeps."""

    async def add_secret(self, secret: str, *, api_key: bool, region: str, label: str = "") -> Kept:
        """Keep a refresh token or an API key."""

    async def import_text(self, text: str, format_name: str = "") -> TakenOver:
        """Keep every account of another program's file."""

    async def usage(self, found: Found) -> AccountUsage:
        """What an account has used."""

    async def plans(self, found: Found) -> Sequence[Plan]:
        """The plans it may have."""

    async def checkout(self, found: Found, kind: str) -> Checkout:
        """A page to pay for one on."""

    async def refresh(self, found: Found) -> Token:
        """A fresh token."""

    async def models(self, found: Found) -> list[str]:
        """The models it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What does not change while a gateway runs. `started_at` is in unix seconds; `data_dir` is where it keeps things.

    `demo`: it was started with the simulator behind it, and has no other upstream. `guests`: accounts may come with
    requests. `unkept`: why nothing that it writes down outlives it; empty: it does.
    """

    urls: tuple[str, ...]
    using: str
    notes: tuple[str, ...]
    started_at: float
    data_dir: Path
    demo: bool
    guests: bool
    unkept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts. `clock` is unix seconds; `nursery` owns what goes on when a request is over.

    `switch` is None in a demo. `editor` raises SettingsError where this gateway's settings are nobody's to change.
    """

    settings: AdminSettings
    about: About
    relay: Relay
    pool: Pool
    keeper: TokenKeeper
    house: House
    verbs: AccountVerbs
    recent: Recent
    recorder: Recorder
    ledger: Ledger | None
    logs: LogReader | None
    captures: Captures
    editor: Callable[[], Editor]
    door: Callable[[], DoorSnapshot]
    switch: Switch | None
    keys: Keys
    key_ring: KeyRing
    nursery: trio.Nursery
    clock: Callable[[], float]
