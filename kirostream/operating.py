"""The composition root of the admin room: the parts of a running gateway, as what the panel works with.

Loaded with the first request to ``/admin``, and never before: a gateway that nobody looks at does not pay for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.admin.api import Admin, open_admin
from kirostream.admin.desk import About, Desk
from kirostream.admin.pages.settings import Editor
from kirostream.commands.account_admin import AccountAdmin
from kirostream.errors import RequestError
from kirostream.gateway.callers import Callers
from kirostream.net.door import DoorSnapshot
from kirostream.net.exchange import HttpRequest
from kirostream.relay.clients import Clients
from kirostream.relay.house import House
from kirostream.relay.relay import Relay
from kirostream.settings import Settings
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
    recent: Recent,
    recorder: Recorder,
    ledger: Ledger | None,
    logs: Path | None,
    editor: Callable[[], Editor],
    door: Callable[[], DoorSnapshot],
    nursery: trio.Nursery,
) -> Admin:
    """The admin room over a running gateway.

    Args:
        accounts_dir: where the list of its own accounts is kept; in a demo, not the person's own.
        logs: the folder of the log files; None: none are written.
        nursery: owns what goes on when a request is over, such as a sign-in that waits for a person.
    """
    return open_admin(
        Desk(
            settings=settings.admin,
            about=about,
            relay=relay,
            pool=pool,
            keeper=keeper,
            house=house,
            verbs=AccountAdmin(settings, os.environ, accounts_dir, clients, keeper, keeps=True),
            recent=recent,
            recorder=recorder,
            ledger=ledger,
            logs=LogReader(logs) if logs is not None else None,
            editor=editor,
            door=door,
            keys=AdminKeys(callers),
            nursery=nursery,
            clock=time.time,
        )
    )
