"""An exchange without a connection, and what a client of the simulated service needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import write_request
from kirostream.dialects.kiro.response import Reader
from kirostream.errors import LocalProtocolError, RequestTooLarge, StreamCut
from kirostream.filters.request_rules import apply_rules
from kirostream.net.exchange import Headers, HttpRequest, Part
from kirostream.simulator.upstream import Simulator
from kirostream.turn.events import TurnEvent
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, Tool, TurnRequest
from kirostream.turn.result import TurnResult, fold

MODEL = Model("auto", window=1_000_000)
TOOLS = tuple(Tool(name, name, b"{}") for name in ("a", "b", "Read"))


POST = HttpRequest("POST", "/", "", ())


@dataclass
class FakeExchange:
    """Records what a handler answers, and when (in seconds of the clock)."""

    request: HttpRequest = POST
    given: bytes = b""
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    ending: str = ""

    @property
    def outlet(self) -> None:
        return None

    @property
    def started(self) -> bool:
        return self.status != 0

    @property
    def answer(self) -> bytes:
        return b"".join(data for _, data in self.sent)

    @property
    def times(self) -> list[float]:
        return [round(at, 6) for at, _ in self.sent]

    def json(self) -> Any:
        return json.loads(self.answer)

    async def body(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if len(self.given) > limit:
            raise RequestTooLarge(f"over {limit} bytes")
        return self.given

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        await trio.lowlevel.checkpoint()
        assert not self.started
        self.status, self.headers = status, dict(headers)
        await self.send(first)

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        return False

    def offer_finish(self, last: bytes) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert self.started
        assert not self.ending
        if data:
            self.sent.append((trio.current_time(), data))

    def offer(self, part: Part) -> bool:
        raise AssertionError("nothing here is sent to many")

    async def finish(self, last: bytes = b"") -> None:
        await self.send(last)
        self.ending = "whole"

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.send(body)
        await self.finish()

    def abort(self) -> None:
        self.ending = "cut"

    async def upgrade(self) -> trio.abc.Stream:
        raise LocalProtocolError("nothing to upgrade")


def asking(*said: str, tools: tuple[Tool, ...] = TOOLS, model: str = "auto") -> TurnRequest:
    """A conversation: user, assistant, user ..."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[n % 2], (Text(text),)) for n, text in enumerate(said))
    return apply_rules(TurnRequest(model=model, messages=messages, tools=tools))


async def call(
    simulator: Simulator,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] = b"",
    *,
    token: str | None = None,
    headers: Headers = (),
) -> FakeExchange:
    """One exchange with a simulator. A fresh access token is used where none is given."""
    token = simulator.credential().access_token.reveal() if token is None else token
    path, _, query = path.partition("?")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    every = [(b"authorization", f"Bearer {token}".encode()), *headers]
    exchange = FakeExchange(HttpRequest(method, path, query, every), raw)
    await simulator(exchange)
    return exchange


async def generate(simulator: Simulator, request: TurnRequest | str, *, rpc: bool = False, **more: Any) -> FakeExchange:
    """Ask the simulated model."""
    asked = asking(request) if isinstance(request, str) else request
    body = write_request(asked, Stamp(Model(asked.model), "conversation"))
    if rpc:
        target = (b"x-amz-target", b"AmazonCodeWhispererStreamingService.GenerateAssistantResponse")
        return await call(simulator, "POST", "/", body, headers=[target], **more)
    return await call(simulator, "POST", "/generateAssistantResponse", body, **more)


def events(exchange: FakeExchange, request: TurnRequest | None = None) -> list[TurnEvent]:
    """What the gateway's reader makes of it.

    Raises:
        StreamCut: the connection was cut, or the answer is not whole.
    """
    reader = Reader(request or asking("x"), MODEL)
    said = [event for _, data in exchange.sent for event in reader.feed(data)]
    if exchange.ending != "whole":
        raise StreamCut("the connection was cut")
    return [*said, *reader.close()]


def answer(exchange: FakeExchange) -> TurnResult:
    """The whole answer."""
    assert exchange.status == 200, exchange.answer
    return fold(events(exchange))
