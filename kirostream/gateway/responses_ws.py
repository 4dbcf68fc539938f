"""Responses over a WebSocket, as Codex speaks it (client-apis.md section 3.7).

A client sends ``response.create`` frames and gets the events of each answer, one a frame. What the connection has said
stays at hand for as long as it lives, also with ``store: false``: a client sends only what is new, with
``previous_response_id``. A first frame with ``generate: false`` leaves the long beginning (instructions, tools) here
and asks no model.

One answer at a time is given in each lane (``stream_id``; none is a lane too). What is wrong with a frame is an
``error`` event, nested as this API nests it, and so is a model that is not to be had; what else goes wrong with an
answer is its last event, ``response.failed``, since clients take an error with status 429 as final.

At a stop an idle connection is closed at once, a busy one after its answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import field
from typing import Final

import msgspec
import trio
from msgspec import Raw

from kirostream.dataclass import dataclass
from kirostream.dialects.jsontext import decode, encode
from kirostream.dialects.openai_responses.response import write_error
from kirostream.errors import KirostreamError, MalformedRequest, ModelNotOnAccount, RequestTooLarge
from kirostream.gateway.callers import Caller
from kirostream.gateway.responses import Responses
from kirostream.gateway.responses_store import Stored
from kirostream.gateway.sockets import SocketSession
from kirostream.gateway.turns import JSON, GatewaySettings
from kirostream.net.exchange import Exchange, HttpRequest, PeerGone, PeerStalled, new_request_id
from kirostream.net.messages import MessageSocket
from kirostream.net.websocket import UpgradeRequired, WebSocketSettings, accept
from kirostream.relay.log import START
from kirostream.turn.events import TurnFailed

MOST_AT_ONCE: Final = 8
"""Answers in flight on one connection; further frames wait."""
MOST_KEPT: Final = 64 << 20
"""Bytes of earlier answers a connection keeps. What leans on one that is gone has to be sent in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """Responses over a WebSocket."""

    enabled: bool = field(default=True, metadata={"help": "Serve them; otherwise clients are told to use POST."})
    life: float = field(default=3600.0, metadata={"help": "How long one connection may last.", "unit": "s"})
    connection: WebSocketSettings = field(default_factory=WebSocketSettings)


class WireFrame(msgspec.Struct):
    """What a frame is about."""

    type: str = ""
    stream_id: str | None = None
    previous_response_id: str | None = None
    input: Raw = Raw(b"[]")


class ResponsesSocket:
    """Serves ``GET /v1/responses``."""

    def __init__(self, responses: Responses, settings: SocketSettings) -> None:
        self._responses = responses
        self._settings = settings

    def __repr__(self) -> str:
        return "<ResponsesSocket>"

    def adopt(self, gateway: GatewaySettings, settings: SocketSettings) -> None:
        """Go by other settings, from the next connection on."""
        self._settings = settings

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one connection. Where sockets are off, 426 sends Codex to POST at once (section 3.7)."""
        caller = self._responses.callers.check(exchange.request)
        try:
            if not self._settings.enabled:
                raise UpgradeRequired("WebSocket connections are switched off here. Use POST.")
            async with accept(exchange, self._settings.connection) as socket:
                await _Session(self._responses, self._settings, socket, exchange.request, caller).run()
        except UpgradeRequired as error:
            reply = write_error(error, exchange.request.id)
            upgrade = (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")
            await exchange.reply(reply.status, (JSON, *upgrade), reply.body)


class _Session(SocketSession):
    """One connection."""

    def __init__(
        self,
        responses: Responses,
        settings: SocketSettings,
        socket: MessageSocket,
        request: HttpRequest,
        caller: Caller,
    ) -> None:
        super().__init__(socket, life=settings.life, most=MOST_AT_ONCE, stopping=responses.stopping)
        self._responses = responses
        self._request = request
        self._caller = caller
        self._said: OrderedDict[str, Stored] = OrderedDict()
        self._size = 0
        self._lanes: dict[str, trio.Lock] = {}

    async def farewell(self, why: str) -> None:
        await self._refuse(MalformedRequest(why, reason="websocket_connection_limit_reached"), "")

    # One frame

    async def serve(self, message: str | bytes) -> None:
        lane = ""
        try:
            body = message.encode("utf-8", "replace") if isinstance(message, str) else message
            if len(body) > self._responses.gateway.body_limit:
                raise RequestTooLarge(f"A frame is limited to {self._responses.gateway.body_limit} bytes.")
            frame = decode(body, WireFrame)
            lane = frame.stream_id or ""
            match frame.type:
                case "response.create":
                    lock = self._lanes.setdefault(lane, trio.Lock())
                    try:
                        async with lock:
                            await self._create(body, lane)
                    finally:
                        if not lock.locked() and self._lanes.get(lane) is lock:
                            del self._lanes[lane]  # nobody waits in it: a released lock goes to who waits
                case "response.steer":
                    await self._send(_not_steered(frame), lane)
                case "response.processed":
                    pass  # Codex, between versions: that it has read an answer
                case kind:
                    raise MalformedRequest(
                        f"$.type is {kind!r}; it takes response.create.", param="$.type", reason="invalid_value"
                    )
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            await self._refuse(error, lane)

    async def _create(self, body: bytes, lane: str) -> None:
        fields = decode(body, dict[str, Raw])
        for name in ("type", "stream_id", "background"):
            fields.pop(name, None)
        fields["stream"] = Raw(b"true")
        asked = await self._responses.inputs.read(encode(fields), self._request.headers, self._caller.owner, self._said)
        request_id = new_request_id()
        if not asked.generates:
            prepared, stored = await self._responses.prepare(asked, self._caller.owner, request_id)
            self._remember(stored)
            for block in prepared:
                await self._send(block.partition(b"\ndata: ")[2].rstrip(), lane)
            return
        relay = self._responses.relay
        caller = self._responses.callers.check(self._request)  # its key or its account may have been let go meanwhile
        async with relay.turn(asked.request, request_id=request_id, scope=caller.owner, key=caller.name) as live:
            while not live.log.events:
                await live.log.beyond(0)
            first = live.log.events[0]
            if isinstance(first, TurnFailed) and isinstance(first.error, ModelNotOnAccount):
                raise first.error.anew()
            kept = self._responses.keep(asked, live, caller.owner, seals=True)
            try:
                at = START
                while True:
                    if await live.log.beyond(at.event):
                        blocks, at = kept.rendering.read(at)
                        live.log.mark_read(at.event)
                        if live.log.finished:
                            self._remember(kept.stored())  # the client may lean on it once it has the last event
                        for block in blocks.split(b"\n\n"):
                            if block:
                                await self._send(block.partition(b"\ndata: ")[2], lane)
                    elif live.log.finished:
                        break
            finally:
                await self._responses.settle(kept)

    def _remember(self, stored: Stored) -> None:
        if stored.id in self._said:
            return
        self._said[stored.id] = stored
        self._size += stored.size
        while self._size > MOST_KEPT and len(self._said) > 1:
            self._size -= self._said.popitem(last=False)[1].size

    async def _refuse(self, error: KirostreamError, lane: str) -> None:
        reply = write_error(error, "")
        said = msgspec.json.decode(reply.body, type=dict[str, Raw])
        await self._send(encode({"type": "error", "status": reply.status, "error": said["error"]}), lane)

    async def _send(self, event: bytes, lane: str) -> None:
        if lane:
            event = event[:-1] + b',"stream_id":' + encode(lane) + b"}"
        await self.socket.send(event.decode())


def _not_steered(frame: WireFrame) -> bytes:
    """The refusal of a steering, which gives back what it would have said."""
    return encode(
        {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "error": {
                "type": "invalid_request_error",
                "code": "steering_not_supported",
                "message": "An answer cannot be steered here: wait for its end, and send the input with the next one.",
            },
            "steer": {"previous_response_id": frame.previous_response_id or "", "input": frame.input},
        }
    )
