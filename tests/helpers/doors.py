"""Every kind of door, on a real port, with the same handler behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from helpers.certs import certificate, trusting
from helpers.talk import Talk
from kirostream.net import hub
from kirostream.net.asgi import AsgiDoor
from kirostream.net.door import ExchangeRecord, open_listeners
from kirostream.net.exchange import Handler, HttpRequest
from kirostream.net.http1 import Http1Door, Http1Settings
from kirostream.net.listen import AsgiSettings, Tls

KINDS = ("http1", "asgi", "tls")


@dataclass
class OpenDoor:
    """A door that serves, and what it told."""

    kind: str
    door: Http1Door | AsgiDoor
    port: int
    faults: list[Exception] = field(default_factory=list)
    records: list[ExchangeRecord] = field(default_factory=list)
    _sockets: list[trio.socket.SocketType] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http{'s' if self.kind == 'tls' else ''}://127.0.0.1:{self.port}"

    async def stream(self, *, receive_buffer: int = 0) -> trio.abc.Stream:
        """A new connection."""
        raw = trio.socket.socket()
        self._sockets.append(raw)
        if receive_buffer:
            raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await raw.connect(("127.0.0.1", self.port))
        tcp = trio.SocketStream(raw)
        if self.kind != "tls":
            return tcp
        return trio.SSLStream(tcp, trusting(), server_hostname="127.0.0.1", https_compatible=True)

    async def talk(self, **options: int) -> Talk:
        return Talk(await self.stream(**options))

    def hang_up(self) -> None:
        """Close every connection."""
        for raw in self._sockets:
            raw.close()

    async def ended(self, count: int = 1) -> None:
        """Wait until that many exchanges are over."""
        with trio.fail_after(10):
            while len(self.records) < count:
                await trio.sleep(0.002)


@asynccontextmanager
async def open_kind(kind: str, handler: Handler, *, stops: bool = False, **settings: Any) -> AsyncIterator[OpenDoor]:
    """A door of a kind, until the block ends; then it is cancelled, or it has stopped by itself (`stops`).

    Args:
        settings: those that every door has; and `refuse`.
    """
    faults: list[Exception] = []
    records: list[ExchangeRecord] = []

    def on_fault(request: HttpRequest | None, fault: Exception) -> None:
        faults.append(fault)

    callbacks: dict[str, Any] = {"on_fault": on_fault, "on_exchange": records.append}
    if "refuse" in settings:
        callbacks["refuse"] = settings.pop("refuse")
    certfile, keyfile = certificate()
    door: Http1Door | AsgiDoor
    if kind == "http1":
        door = Http1Door(handler, Http1Settings(**settings), **callbacks)
    else:
        tls = Tls(certfile=certfile, keyfile=keyfile) if kind == "tls" else None
        door = AsgiDoor(handler, AsgiSettings(**settings), tls=tls, **callbacks)
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    with hub.opened(), trio.fail_after(30):  # as in a gateway
        async with trio.open_nursery() as nursery:
            await nursery.start(door.serve, listeners)
            opened = OpenDoor(kind, door, port, faults, records)
            try:
                yield opened
            finally:
                opened.hang_up()
            if not stops:
                nursery.cancel_scope.cancel()
    assert door.snapshot().connections == 0
    assert door.snapshot().active == 0
