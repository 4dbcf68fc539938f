"""A client that knows both ends: raw bytes out, answers parsed by h11 in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
import trio.testing

from kirostream.net import hub
from kirostream.net.door import ExchangeRecord
from kirostream.net.exchange import Handler, HttpRequest
from kirostream.net.http1 import DEFAULTS, Http1Door, Http1Settings


@dataclass
class Answer:
    """One answer, whole. `interim` holds the statuses that came before it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    interim: list[int] = field(default_factory=list)


class Talk:
    """One connection from the client's side."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer. `method` is what the request was: a HEAD has no body.

        Raises:
            h11.RemoteProtocolError: it is not whole, or there is none.
        """
        if self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._h11.start_next_cycle()
        if self._h11.our_state is h11.IDLE:  # h11 wants to have sent what the test sent by hand
            self._h11.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            self._h11.send(h11.EndOfMessage())
        head: h11.Response | None = None
        interim: list[int] = []
        body = b""
        while True:
            event: Any = self._h11.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._h11.receive_data(bytes(await self.stream.receive_some(65536)))
                except trio.BrokenResourceError:
                    self._h11.receive_data(b"")
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Answer(head.status_code, dict(head.headers), body, interim)
            else:
                raise h11.RemoteProtocolError(f"{event!r} instead of an answer")

    async def closed(self) -> bytes:
        """Everything until the door closes or resets."""
        rest = self._h11.trailing_data[0]
        try:
            while data := await self.stream.receive_some(65536):
                rest += data
        except trio.BrokenResourceError:
            pass
        return rest

    async def all_of_it(self) -> None:
        """Read over everything, until the door closes.

        Raises:
            trio.BrokenResourceError: it was a reset.
        """
        while await self.stream.receive_some(65536):
            pass


class DoorUnderTest:
    """A door, and what it told."""

    def __init__(self, handler: Handler, settings: Http1Settings, nursery: trio.Nursery, **callbacks: Any) -> None:
        self.faults: list[Exception] = []
        self.faulty: list[HttpRequest | None] = []
        self.records: list[ExchangeRecord] = []
        callbacks = {"on_fault": self._on_fault, "on_exchange": self.records.append} | callbacks
        self.door = Http1Door(handler, settings, **callbacks)
        self._nursery = nursery

    def _on_fault(self, request: HttpRequest | None, fault: Exception) -> None:
        self.faults.append(fault)
        self.faulty.append(request)

    def talk(self) -> Talk:
        """A new connection, over memory."""
        return self.talk_over(*trio.testing.memory_stream_pair())

    def talk_over(self, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> Talk:
        self._nursery.start_soon(self.door.serve_stream, theirs, "memory")
        return Talk(ours)

    async def listen(self) -> int:
        """Serve on a real port, and say which."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await self._nursery.start(self.door.serve, listeners)
        return int(listeners[0].socket.getsockname()[1])


@asynccontextmanager
async def open_door(
    handler: Handler, settings: Http1Settings = DEFAULTS, **callbacks: Any
) -> AsyncIterator[DoorUnderTest]:
    """A door that serves until the block ends."""
    with hub.opened():  # as in a gateway
        async with trio.open_nursery() as nursery:
            under_test = DoorUnderTest(handler, settings, nursery, **callbacks)
            yield under_test
            nursery.cancel_scope.cancel()
    assert under_test.door.snapshot().connections == 0
    assert under_test.door.snapshot().active == 0
