"""``GET /v1/stream``: one WebSocket, many turns (docs/websocket.md).

A client starts turns in any language, lists its own, watches them from any place on, in any language, and cancels
them. Every message is one JSON object with an ``op``. What a turn says comes as ``events``: the ones that piled up
since the last message, with the ``place`` behind them, so a client that lost its connection watches on from the last
place it has.

A watcher may give **credit**: how many messages of a turn it is ready for. At none it waits, which takes no memory,
since everybody reads the one log. Who gives no credit is held back by the connection alone, and cut where it reads
nothing for too long.

A turn that was started here lingers when the connection is lost, as a resumable POST does (`gateway.watch`).

What is sent of a turn does not depend on who watches it: watchers that are at one place share the message's bytes.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Final, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec
import trio
from msgspec import Raw

from kirostream.dialects.dialect import Writer
from kirostream.dialects.jsontext import decode, encode
from kirostream.errors import KirostreamError, MalformedRequest, RequestTooLarge
from kirostream.gateway.callers import Caller, Callers
from kirostream.gateway.media import Media
from kirostream.gateway.responses_ws import SocketSettings
from kirostream.gateway.sockets import SocketSession
from kirostream.gateway.turns import JSON, GatewaySettings
from kirostream.gateway.watch import WATCH, Languages, describe, place_behind
from kirostream.net.exchange import Exchange, HttpRequest, new_request_id
from kirostream.net.messages import MessageSocket, text_frame
from kirostream.net.websocket import UpgradeRequired, accept
from kirostream.relay.fanout import Fanout
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import Cursor, Rendering
from kirostream.relay.relay import Relay
from kirostream.turn.events import TurnEvent, TurnFailed

PATH: Final = "/v1/stream"
MOST_AT_ONCE: Final = 8
"""Messages of one connection that are served at once."""
MOST_WATCHED: Final = 64
"""Turns that one connection watches at once."""
CHUNK: Final = 64 << 10
"""Bytes of events in one message, about."""


_NONE: Final = Raw()


class WireOp(msgspec.Struct):
    """A message from a client. `ref` comes back in what answers it; `into` is the language to watch a new turn in."""

    op: Literal["start", "watch", "credit", "stop", "cancel", "list"]
    ref: str | int | None = None
    dialect: str = ""
    request: Raw = _NONE
    turn: str = ""
    after: str = ""
    into: str = ""
    credit: int | None = None
    watch: bool = True


class WireRef(msgspec.Struct):
    """What a message is called, read first so that a complaint about the rest can name it."""

    ref: str | int | None = None


class JsonWriter:
    """The data of each wire event of another writer, a comma behind each. An end mark that is no JSON is left out."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, event: TurnEvent) -> list[bytes]:
        """The JSON texts that say `event`."""
        blocks = (block for written in self._writer.write(event) for block in written.split(b"\n\n") if block)
        texts = (block[block.index(b"data: ") + 6 :] for block in blocks)
        return [text + b"," for text in texts if text[:1] == b"{"]

    def heartbeat(self) -> bytes:
        """Nothing: a socket has pings."""
        return b""


class Shared:
    """The messages of one turn in one language. Watchers at one place get the same bytes."""

    def __init__(self, live: LiveTurn, dialect: str, writer: Writer) -> None:
        self._log = live.log
        self._rendering = Rendering(live.log, JsonWriter(writer))
        self._head = b'{"op":"events","turn":"%b","dialect":%b,"place":"%b.' % (
            live.heading.turn.encode(),
            encode(dialect),
            live.heading.turn.encode(),
        )
        self._last: tuple[Cursor, int, bytes | None, Cursor] | None = None
        self.fanout: Fanout[bytes] = Fanout(live.log, bytes)
        """Its watchers that have everything."""

    def read(self, at: Cursor) -> tuple[bytes | None, Cursor]:
        """The message with what was said since `at`, as a WebSocket frame, and the place behind it.

        It is None where nothing was said that this language has words for.
        """
        known = len(self._log.events)
        if self._last is not None and self._last[:2] == (at, known):
            return self._last[2:]
        data, end = self._rendering.read(at, CHUNK)
        message = None
        if data:
            message = text_frame(self._head + b'%d.%d","data":[%b]}' % (end.event, end.block, data[:-1]))
        self._last = at, known, message, end
        return message, end


class Watched:
    """One turn that a connection watches."""

    def __init__(
        self, live: LiveTurn, dialect: str, at: Cursor, credit: int | None, shared: Shared, socket: MessageSocket
    ) -> None:
        self.live = live
        self.dialect = dialect
        self.shared = shared
        self.read = shared.read
        self.offer = socket.offer
        self.outlet = socket.outlet
        self.at = at
        self.credit = credit
        self.stopped = False
        self._woken = trio.Event()

    def __repr__(self) -> str:
        return f"<Watched {self.live.heading.turn} in {self.dialect} at {self.at}>"

    def grant(self, messages: int) -> None:
        """Be ready for that many more."""
        if self.credit is None:
            self._recall()
        self.credit = (self.credit or 0) + messages
        self._woken.set()

    def stop(self) -> None:
        """Watch no more. A message that is being sent is sent to its end: half a frame would spoil the connection."""
        self.stopped = True
        self._woken.set()
        self._recall()

    def _recall(self) -> None:
        if not self.shared.fanout.recall(self):
            self.live.log.nudge()

    @property
    def may_be_led(self) -> bool:
        """Whether it needs nothing of its own for the next message."""
        return self.credit is None and not self.stopped and self.shared.fanout.takes(self.at)

    async def ready(self) -> bool:
        """Wait for credit, and use it. False: it was stopped meanwhile."""
        if self.credit is not None:
            while not self.credit and not self.stopped:
                self._woken = trio.Event()
                await self._woken.wait()
            self.credit -= 1
        return not self.stopped


class StreamSocket:
    """Serves ``GET /v1/stream``."""

    def __init__(
        self,
        relay: Relay,
        callers: Callers,
        media: Media,
        languages: Languages,
        stopping: trio.Event,
        settings: SocketSettings,
        gateway: GatewaySettings,
    ) -> None:
        self.relay = relay
        self.media = media
        self.languages = languages
        self.stopping = stopping
        self.settings = settings
        self.gateway = gateway
        self.callers = callers
        self._shared: WeakKeyDictionary[LiveTurn, WeakValueDictionary[str, Shared]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return "<StreamSocket>"

    def adopt(self, gateway: GatewaySettings, settings: SocketSettings) -> None:
        """Go by other settings, from the next connection on."""
        self.gateway, self.settings = gateway, settings

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one connection."""
        self.callers.check(exchange.request, *WATCH)
        try:
            if not self.settings.enabled:
                raise UpgradeRequired("WebSocket connections are switched off here. Use POST, and GET /v1/turns.")
            async with accept(exchange, self.settings.connection) as socket:
                await _Session(self, socket, exchange.request).run()
        except UpgradeRequired as error:
            upgrade = (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")
            body = encode({"error": {"type": "UpgradeRequired", "message": error.message}})
            await exchange.reply(error.status, (JSON, *upgrade), body)

    def shared(self, live: LiveTurn, dialect: str) -> Shared:
        """The messages of a turn in a language, made once for all who watch it at one time."""
        of_turn = self._shared.setdefault(live, WeakValueDictionary())
        made = of_turn.get(dialect)
        if made is None:
            made = of_turn[dialect] = Shared(live, dialect, self.languages.writer(live, dialect))
        return made


class _Session(SocketSession):
    """One connection."""

    def __init__(self, server: StreamSocket, socket: MessageSocket, request: HttpRequest) -> None:
        super().__init__(socket, life=server.settings.life, most=MOST_AT_ONCE, stopping=server.stopping)
        self._server = server
        self._request = request
        self._watched: dict[tuple[str, str], Watched] = {}

    async def farewell(self, why: str) -> None:
        await self._refuse(MalformedRequest(why, reason="connection_limit_reached"), None)

    async def serve(self, message: str | bytes) -> None:
        ref: str | int | None = None
        op: WireOp | None = None
        try:
            body = message.encode("utf-8", "replace") if isinstance(message, str) else message
            if len(body) > self._server.gateway.body_limit:
                raise RequestTooLarge(f"A message is limited to {self._server.gateway.body_limit} bytes.")
            ref = decode(body, WireRef).ref
            op = decode(body, WireOp)
            match op.op:
                case "start":
                    await self._start(op)
                case "watch":
                    live = await self._find(op.turn)
                    await self._watch(live, op, op.dialect or live.request.spoken_in)
                case "credit":
                    (await self._of(op)).grant(_positive(op.credit))
                case "stop":
                    (await self._of(op)).stop()
                case "cancel":
                    caller = self._server.callers.check(self._request, "api", "admin")
                    live = await self._server.relay.directory.find(op.turn, caller.rules)
                    live.cancel()
                    await self._say({"op": "cancelled", "ref": ref, "turn": op.turn})
                case "list":
                    turns = [Raw(describe(each)) for each in self._server.relay.directory.of(self._watcher().sees)]
                    await self._say({"op": "turns", "ref": ref, "data": turns})
        except KirostreamError as error:
            await self._refuse(error, ref, op)

    # Operations

    async def _start(self, op: WireOp) -> None:
        dialect = self._server.languages.spoken(op.dialect)
        if not bytes(op.request):
            raise MalformedRequest("A turn needs a request: the body that a POST would have.", param="$.request")
        into = op.into or op.dialect
        self._server.languages.check(into)
        self._check_room(op.credit)
        request = dialect.read_request(bytes(op.request), self._request.headers)
        if request.choices > 1:
            raise MalformedRequest("A turn is one answer. Start as many turns as you want answers.", param="$.n")
        request = replace(await self._server.media.settle(request), stream=True, include_usage=True)
        relay = self._server.relay
        linger = relay.directory.settings.linger
        request_id = new_request_id()
        caller = self._server.callers.check(self._request)  # its key or its account may have been let go meanwhile
        live = await relay.begin(request, request_id=request_id, scope=caller.owner, key=caller.name, linger=linger)
        with live.watching():  # until its watcher is there
            if op.watch:
                await self._watch(live, op, into)
            else:
                await self._say({"op": "started", "ref": op.ref, "turn": live.heading.turn, "model": live.model.id})

    async def _watch(self, live: LiveTurn, op: WireOp, dialect: str) -> None:
        key = live.heading.turn, dialect
        if key in self._watched:
            raise MalformedRequest("This connection watches that turn in that language already.", param="$.turn")
        self._check_room(op.credit)
        shared = self._server.shared(live, dialect)
        watched = self._watched[key] = Watched(
            live, dialect, place_behind(live, op.after), op.credit, shared, self.socket
        )
        with ExitStack() as watching:
            watching.enter_context(live.watching())  # from now on, and not from when its task first runs
            name = "started" if op.op == "start" else "watching"
            await self._say({"op": name, "ref": op.ref, "turn": key[0], "dialect": dialect, "model": live.model.id})
            self.start_soon(self._follow, watched, watching.pop_all())

    def _check_room(self, credit: int | None) -> None:
        """See that one more turn can be watched, with that credit. Before it is asked: it costs."""
        if len(self._watched) >= MOST_WATCHED:
            raise MalformedRequest(f"One connection watches at most {MOST_WATCHED} turns. Open another one.")
        if credit is not None:
            _positive(credit, least=0)

    async def _follow(self, watched: Watched, watching: ExitStack) -> None:
        """Send a turn until it is over, or the client wants no more of it."""
        live, log, shared = watched.live, watched.live.log, watched.shared
        try:
            with watching:
                while not watched.stopped:
                    if watched.may_be_led:
                        watched.at = await shared.fanout.follow(watched, watched.at, watched.outlet)
                        await self.socket.flush()
                    elif not await log.beyond(watched.at.event) and log.finished:
                        break
                    else:
                        message, at = shared.read(watched.at)
                        if message and await watched.ready():
                            await self.socket.send_frame(message)
                        if not watched.stopped:
                            watched.at = at
        finally:
            del self._watched[live.heading.turn, watched.dialect]
        status = "failed" if isinstance(log.events[-1], TurnFailed) else "completed"
        said: dict[str, object] = {"op": "ended", "turn": live.heading.turn, "dialect": watched.dialect}
        await self._say(said | {"status": "stopped" if watched.stopped else status})

    # Words

    async def _find(self, turn: str) -> LiveTurn:
        return await self._server.relay.directory.find(turn, self._watcher().sees)

    def _watcher(self) -> Caller:
        """Who is at the other end, whose key is still good."""
        return self._server.callers.check(self._request, *WATCH)

    async def _of(self, op: WireOp) -> Watched:
        dialect = op.dialect or (await self._find(op.turn)).request.spoken_in
        watched = self._watched.get((op.turn, dialect))
        if watched is None:
            raise MalformedRequest(f"This connection does not watch the turn {op.turn!r} in {dialect}.", param="$.turn")
        return watched

    async def _refuse(self, error: KirostreamError, ref: str | int | None, op: WireOp | None = None) -> None:
        said: dict[str, object] = {"type": type(error).__name__, "message": error.message, "status": error.status}
        if error.reason:
            said["reason"] = error.reason
        if error.retry_after is not None:
            said["retry_after"] = error.retry_after
        if isinstance(error, MalformedRequest) and error.param:
            said["param"] = error.param
        about = {"turn": op.turn, "dialect": op.dialect} if op is not None and op.turn else {}
        await self._say({"op": "error", "ref": ref, **about, "error": said})

    async def _say(self, said: dict[str, object]) -> None:
        await self.socket.send(encode({name: value for name, value in said.items() if value is not None}).decode())


def _positive(credit: int | None, *, least: int = 1) -> int:
    if credit is None or credit < least:
        raise MalformedRequest(f"credit is a number of messages, at least {least}.", param="$.credit")
    return credit
