"""A client of ``/v1/stream``, for programs on Trio and for ``kirostream watch``.

::

    async with connect("http://127.0.0.1:8000", key) as client:
        turn = await client.start("anthropic", {"model": "claude-sonnet-4.5", "max_tokens": 100, "messages": [...]})
        async for event in turn:
            print(event)

A turn is iterated once, event by event; each event is the JSON object of its language. Nothing is lost with the
connection: it is opened again, and every turn goes on at the place behind the last event that was handed out or waits
to be. A consumer that is slow holds back nobody else; of each turn at most `CREDIT` messages wait for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from kirostream.errors import KirostreamError, UpstreamDown, UpstreamRefused
from kirostream.net.exchange import PeerGone, PeerStalled
from kirostream.net.messages import MessageSocket
from kirostream.net.websocket import WebSocketSettings
from kirostream.net.websocket import connect as connect_socket

CREDIT: Final = 16
"""Messages of one turn that may wait for its consumer."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to come back."""


class Turn:
    """One turn, as it is said.

    Attributes:
        id: its name at the gateway.
        dialect: the language it is watched in.
        model: who answers.
        place: behind the last event that was received.
        status: ``""`` while it runs, then ``completed``, ``failed`` or ``stopped``.
    """

    def __init__(self, client: Client, turn: str, dialect: str, model: str, place: str) -> None:
        self.id = turn
        self.dialect = dialect
        self.model = model
        self.place = place
        self.status = ""
        self._client = client
        # On top of what credit allows come an end, and a message for which credit was under way as a connection broke.
        self._put, self._got = trio.open_memory_channel[list[Any] | KirostreamError | None](CREDIT + 2)
        self._events: list[Any] = []

    def __repr__(self) -> str:
        return f"<Turn {self.id} in {self.dialect} at {self.place or 'its beginning'}, {self.status or 'running'}>"

    def __aiter__(self) -> Turn:
        """Itself."""
        return self

    async def __anext__(self) -> Any:
        """The next event.

        Raises:
            UpstreamDown: the gateway cannot be reached any more.
            UpstreamRefused: it no longer has the turn.
        """
        if not self._events:
            try:
                match await self._got.receive():
                    case None:
                        raise StopAsyncIteration
                    case KirostreamError() as error:
                        raise error
                    case events:
                        self._events = events[::-1]
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            await self._client.grant(self)
        return self._events.pop()

    async def stop(self) -> None:
        """Watch no more. The turn itself goes on while others watch it, and for its linger."""
        await self._client.say({"op": "stop", "turn": self.id, "dialect": self.dialect})

    async def cancel(self) -> None:
        """End the turn for everybody."""
        await self._client.say({"op": "cancel", "turn": self.id})

    @property
    def room(self) -> int:
        """Messages that may still come."""
        return max(0, CREDIT - self._put.statistics().current_buffer_used)

    # What the client hears of it

    def heard(self, place: str, events: list[Any]) -> None:
        """More was said."""
        self.place = place
        self._put.send_nowait(events)

    def over(self, end: str | KirostreamError) -> None:
        """It ended, or nothing more can be heard of it."""
        if not self.status:
            self.status = end if isinstance(end, str) else "failed"
            self._put.send_nowait(None if isinstance(end, str) else end)
            self._put.close()


class Client:
    """One connection, opened again when it is lost. Make one with `connect`."""

    def __init__(self, url: str, key: str, patience: float, settings: WebSocketSettings) -> None:
        self._url = f"{url.replace('http', 'ws', 1).rstrip('/')}/v1/stream"
        self._headers = [(b"authorization", b"Bearer " + key.encode())]
        self._patience = patience
        self._settings = settings
        self._socket: MessageSocket | None = None
        self._turns: dict[tuple[str, str], Turn] = {}
        self._asked: dict[int, _Question] = {}
        self._refs = 0
        self.trouble: KirostreamError | None = None
        """Why there is no connection any more, and none will be."""

    def __repr__(self) -> str:
        return f"<Client of {self._url}, {len(self._turns)} turns>"

    async def start(self, dialect: str, request: Mapping[str, Any], *, watch_in: str = "") -> Turn:
        """Start a turn and watch it.

        Args:
            dialect: the language of `request`: ``anthropic``, ``openai_chat`` or ``openai_responses``.
            request: the body that a POST would have.
            watch_in: the language to hear it in; empty: the same.

        Raises:
            UpstreamRefused: the gateway refuses the request; the message is its.
            UpstreamDown: the connection was lost before it answered. The turn may have been started.
        """
        message = {"op": "start", "dialect": dialect, "request": request, "into": watch_in, "credit": CREDIT}
        return await self._begin(message, "")

    async def watch(self, turn: str, dialect: str = "", after: str = "") -> Turn:
        """Watch a turn.

        Args:
            turn: its id.
            dialect: the language to hear it in; empty: the one it was asked in.
            after: a place of it; empty: its beginning.

        Raises:
            UpstreamRefused: there is no such turn, or no such place or language.
            UpstreamDown: the connection was lost.
        """
        message = {"op": "watch", "turn": turn, "dialect": dialect, "after": after, "credit": CREDIT}
        return await self._begin(message, after)

    async def turns(self) -> list[dict[str, Any]]:
        """The turns that can be watched, those in flight first, as ``GET /v1/turns`` has them.

        Raises:
            UpstreamDown: the connection is lost; `trouble` says whether it may come back.
        """
        found: list[dict[str, Any]] = []
        await self._ask({"op": "list"}, lambda answer: found.extend(answer["data"]))
        return found

    async def _begin(self, message: Mapping[str, Any], place: str) -> Turn:
        begun: list[Turn] = []

        def hear(answer: Mapping[str, Any]) -> None:
            turn = Turn(self, answer["turn"], answer["dialect"], answer["model"], place)
            self._turns[turn.id, turn.dialect] = turn
            begun.append(turn)

        await self._ask(message, hear)
        return begun[0]

    async def grant(self, turn: Turn) -> None:
        """Be ready for one more message of a turn."""
        if not turn.status:
            await self.say({"op": "credit", "turn": turn.id, "dialect": turn.dialect, "credit": 1})

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message that needs no answer. What is lost with the connection is made good when it is back."""
        if self._socket is not None:
            try:
                await self._socket.send(json.dumps(message))
            except (PeerGone, PeerStalled):
                pass  # `run` finds out, and comes back

    async def close(self) -> None:
        """Close the connection in good order."""
        if self._socket is not None:
            self._patience = 0.0
            await self._socket.close()

    async def _ask(self, message: Mapping[str, Any], hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Send a message and wait for its answer. `hear` gets it before anything behind it is heard."""
        if self._socket is None:
            raise self.trouble or UpstreamDown("The connection to the gateway is lost, and not back yet.")
        self._refs += 1
        ref = self._refs
        question = self._asked[ref] = _Question(hear)
        try:
            await self.say({**message, "ref": ref})
            await question.answered.wait()
        finally:
            del self._asked[ref]
        if question.answer is None:
            raise UpstreamDown("The connection was lost before the gateway answered.")
        if question.answer["op"] == "error":
            raise _refusal(question.answer)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Keep a connection, until cancelled or until the gateway cannot be reached for `patience` seconds."""
        pause, down_since, began = FIRST_PAUSE, math.inf, False
        while True:
            lost: KirostreamError = UpstreamDown("The connection to the gateway was lost.")
            try:
                async with connect_socket(self._url, self._headers, self._settings) as socket:
                    self._socket = socket
                    pause, down_since = FIRST_PAUSE, math.inf
                    if not began:
                        began = True
                        task_status.started()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._keep_alive, socket, nursery.cancel_scope)
                        await self._listen(socket)
                        nursery.cancel_scope.cancel()
            except UpstreamDown as error:
                lost = error
            self._socket = None
            for question in self._asked.values():
                question.answered.set()
            down_since = min(down_since, trio.current_time())
            if not began or trio.current_time() - down_since >= self._patience:
                self.trouble = lost
                for turn in [*self._turns.values()]:
                    self._over(turn, lost)
                if not began:
                    task_status.started()
                return
            await trio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _keep_alive(self, socket: MessageSocket, connection: trio.CancelScope) -> None:
        """End a connection whose other end is gone without having said so."""
        try:
            await socket.keep_alive()
        except (PeerGone, PeerStalled):
            connection.cancel()

    async def _listen(self, socket: MessageSocket) -> None:
        """Go on with every turn where it was, and hear until the connection is lost."""
        try:
            for turn in [*self._turns.values()]:
                await self.say(
                    {
                        "op": "watch",
                        "turn": turn.id,
                        "dialect": turn.dialect,
                        "after": turn.place,
                        "credit": turn.room,
                    }
                )
            while True:
                self._hear(json.loads(await socket.receive()))
        except (PeerGone, PeerStalled):
            return

    def _hear(self, message: Mapping[str, Any]) -> None:
        question = self._asked.get(message.get("ref") or 0)
        if question is not None:
            if message["op"] != "error":
                question.hear(message)
            question.answer = message
            question.answered.set()
            return
        turn = self._turns.get((message.get("turn", ""), message.get("dialect", "")))
        if turn is None:
            return
        match message["op"]:
            case "events":
                turn.heard(message["place"], message["data"])
            case "ended":
                self._over(turn, message["status"])
            case "error":
                self._over(turn, _refusal(message))

    def _over(self, turn: Turn, end: str | KirostreamError) -> None:
        del self._turns[turn.id, turn.dialect]
        turn.over(end)


class _Question:
    """What waits for an answer; `answer` stays None where the connection was lost."""

    def __init__(self, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self.hear = hear
        self.answered = trio.Event()
        self.answer: Mapping[str, Any] | None = None


def _refusal(message: Mapping[str, Any]) -> UpstreamRefused:
    error = message["error"]
    return UpstreamRefused(error["message"], reason=error["type"])


@asynccontextmanager
async def connect(
    url: str, key: str, *, patience: float = 60.0, settings: WebSocketSettings | None = None
) -> AsyncIterator[Client]:
    """A client, until the context ends.

    Args:
        url: of the gateway: ``http://127.0.0.1:8000``.
        key: one of its keys.
        patience: seconds for which it tries to come back when the connection is lost.
        settings: limits and deadlines of the connection.

    Raises:
        UpstreamDown: nobody answers there, or the key is refused.
    """
    client = Client(url, key, patience, settings or WebSocketSettings())
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        if client.trouble is None:
            try:
                yield client
            finally:
                await client.close()
                nursery.cancel_scope.cancel()
            return
    raise client.trouble
