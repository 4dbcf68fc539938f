"""The doors of a gateway, as one: the first on `server.host` and `server.port`, and one for each ``[[listen]]``.

All of them have the same handler, so a turn that was begun through one can be watched through another.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from kirostream.errors import SettingsError
from kirostream.net.door import Door, DoorSnapshot, OnExchange, OnFault, Refuse, open_listeners
from kirostream.net.exchange import Handler
from kirostream.net.http1 import Http1Door
from kirostream.net.listen import ListenSettings, Tls, listening
from kirostream.settings import Settings

if TYPE_CHECKING:
    from kirostream.net.asgi import AsgiDoor

D = TypeVar("D", "Http1Door", "AsgiDoor")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host == "localhost" or host.startswith("127.") or host.strip("[]") == "::1"


def check_exposure(settings: Settings) -> None:
    """See that nobody else can reach a gateway whose key nobody chose.

    Raises:
        SettingsError: somebody can.
    """
    hosts = [settings.server.host, *(entry.host for entry in settings.listen if entry.port is not None)]
    open_to_others = [host for host in hosts if not is_loopback(host)]
    if open_to_others and not settings.server.key:
        raise SettingsError(
            f"Refusing to listen on {open_to_others[0]}, which others can reach, with a key nobody chose. "
            "Set one with --key or PROXY_API_KEY, or listen on 127.0.0.1."
        )


class Places:
    """Where a gateway listens: the sockets, before there is anything behind them."""

    def __init__(self) -> None:
        self.url = ""
        self.urls: list[str] = []
        self.open: Final[list[tuple[ListenSettings | None, list[trio.SocketListener]]]] = []

    async def bind(self, settings: Settings, owners: AsyncExitStack) -> None:
        """Listen on every address, until `owners` ends.

        Raises:
            SettingsError: on one of them it cannot.
        """
        first = await open_listeners(settings.server.host, settings.server.port)
        self.open.append((None, first))
        for listener in first:
            owners.callback(listener.socket.close)
        for entry in settings.listen:
            self.open.append((entry, await owners.enter_async_context(listening(entry))))
        self.url = listening_url(settings.server.host, first)
        self.urls = [entry.url(listeners) for entry, listeners in self.open if entry is not None]


def listening_url(host: str, listeners: list[trio.SocketListener]) -> str:
    """The address to give to a client on this machine."""
    port = listeners[0].socket.getsockname()[1]
    name = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{port}"


class Doors:
    """Every door of a gateway. It can be stopped and looked at like one.

    Args:
        handler: behind all of them.
        settings: limits and deadlines of each kind.
        refuse, on_fault, on_exchange: see `DoorBook`.
    """

    def __init__(
        self, handler: Handler, settings: Settings, *, refuse: Refuse, on_fault: OnFault, on_exchange: OnExchange
    ) -> None:
        self._handler = handler
        self._settings = settings
        self._refuse = refuse
        self._on_fault = on_fault
        self._on_exchange = on_exchange
        self._doors: list[Http1Door | AsgiDoor] = []

    def __repr__(self) -> str:
        return f"<Doors: {self.snapshot()}>"

    def adopt(self, settings: Settings) -> None:
        """Go by other settings, from the next connection on. Only the HTTP/1.1 door can do that."""
        self._settings = settings
        for door in self._doors:
            door.book.timing = settings.server.timing
            if isinstance(door, Http1Door):
                door.settings = settings.http1

    def application(self, tls: Tls | None = None) -> AsgiDoor:
        """One more door: an ASGI application, to be served by itself or by any server on Trio."""
        from kirostream.net.asgi import AsgiDoor

        door = AsgiDoor(
            self._handler,
            self._settings.asgi,
            tls=tls,
            refuse=self._refuse,
            on_fault=self._on_fault,
            on_exchange=self._on_exchange,
        )
        return self._opened(door)

    def _http1(self) -> Http1Door:
        door = Http1Door(
            self._handler,
            self._settings.http1,
            refuse=self._refuse,
            on_fault=self._on_fault,
            on_exchange=self._on_exchange,
        )
        return self._opened(door)

    def _opened(self, door: D) -> D:
        door.book.timing = self._settings.server.timing
        self._doors.append(door)
        return door

    async def serve(self, places: Places, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`, and until what was in flight then is over.

        Raises:
            SettingsError: a certificate cannot be used.
        """
        async with trio.open_nursery() as nursery:
            for entry, listeners in places.open:
                by_http1 = entry is None or entry.door == "http1"
                door: Door = self._http1() if by_http1 else self.application(entry.tls if entry else None)
                await nursery.start(door.serve, listeners)
            task_status.started()

    def stop(self, grace: float) -> None:
        """Stop accepting. Exchanges in flight have `grace` seconds, then they are cut."""
        for door in self._doors:
            door.stop(grace)

    def snapshot(self) -> DoorSnapshot:
        """The counts of all of them."""
        each = [door.snapshot() for door in self._doors]
        counts = {
            field.name: sum(getattr(one, field.name) for one in each)
            for field in fields(DoorSnapshot)
            if field.name != "stopping"
        }
        return DoorSnapshot(**counts, stopping=any(one.stopping for one in each))
