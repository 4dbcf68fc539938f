"""Turns over HTTP: read the request, ask the relay, stream or reply.

The head is held until the first event of the answer, so that an upstream's refusal keeps its HTTP status. After
`hold_head` seconds the client gets its 200 and heartbeats; what fails then, fails as an event of the dialect. A failure
after the head is never a short answer: the writer says it, and where it cannot, the connection is cut.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import field
from time import perf_counter
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Dialect
from kirostream.dialects.openai_chat.thoughts import ThoughtForm
from kirostream.errors import KirostreamError, LocalProtocolError, MalformedRequest
from kirostream.gateway.attach import Attachments, Claim
from kirostream.gateway.callers import Caller, Callers
from kirostream.gateway.choices import ask_several, pump_several, raise_early_failure, until_all_speak
from kirostream.gateway.media import Media
from kirostream.gateway.sse import Heartbeats, Pump, StreamSettings
from kirostream.net.exchange import Exchange, Headers, HttpRequest, PeerGone, PeerStalled
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import Rendering
from kirostream.relay.relay import Relay
from kirostream.turn.request import TurnRequest
from kirostream.turn.result import fold, whole_calls

JSON: Final = (b"content-type", b"application/json")
STREAM_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""A proxy in between must neither keep nor hold back a stream (client-apis.md section 0.5)."""


TURN_HEADER: Final = b"x-kirostream-turn"
"""In the head of a stream that can be come back to: the id of its turn (`gateway.watch`)."""
RESUMABLE: Final = b"x-kirostream-resumable"
"""Asks for such a stream."""


def wants_resumable(request: HttpRequest) -> bool:
    """Whether a client asks for a stream that it can come back to."""
    return (request.header(RESUMABLE) or b"").strip().lower() in (b"true", b"1", b"yes")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The public API.

    Raises:
        ValueError: `chat_thoughts` is none of its words.
    """

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on. Beyond loopback a key is needed."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 lets the system choose.", "most": 65535})
    key: str = field(
        default="",
        repr=False,
        metadata={"help": "The key clients send. Empty: one is made on the first run.", "secret": True},
    )
    body_limit: int = field(
        default=32 << 20, metadata={"help": "Largest request body, after decompression.", "unit": "bytes", "live": True}
    )
    memory: int = field(
        default=32 << 20,
        metadata={
            "help": "Memory for what agents send again with every turn, some eight sessions of 1 MB; 0: none. "
            "What is not sent for ten minutes is let go.",
            "unit": "bytes",
        },
    )
    grace: float = field(
        default=30.0,
        metadata={"help": "How long streams in flight may go on after a stop signal.", "unit": "s", "live": True},
    )
    most_choices: int = field(
        default=8,
        metadata={
            "help": "Most answers that one chat request may ask for (n). Each is a turn of its own.",
            "live": True,
        },
    )
    coalesce: bool = field(
        default=False,
        metadata={"help": "Requests that are byte for byte the same share one turn while it runs.", "live": True},
    )
    key_in_query: bool = field(
        default=False,
        metadata={"help": "Also take the key from ?key=. Logs of proxies may then hold it.", "live": True},
    )
    cors_origins: str = field(
        default="",
        metadata={"help": "Origins whose pages may call from a browser, with commas; * for all. Empty: none."},
    )
    chat_thoughts: str = field(
        default="reasoning_content",
        metadata={
            "help": "Where a chat answer says what the model thought: reasoning_content, thinking (another name for "
            "it), think (in the text, between <think> tags)."
        },
    )
    timing: bool = field(
        default=True,
        metadata={
            "help": "Say in the head of an answer how long the gateway took of the time (Server-Timing).",
            "live": True,
        },
    )
    stream: StreamSettings = field(default_factory=StreamSettings, metadata={"live": True})

    def __post_init__(self) -> None:
        words = [form.value for form in ThoughtForm]
        if self.chat_thoughts not in words:
            raise ValueError(f"chat_thoughts is {self.chat_thoughts!r}; it takes: {', '.join(words)}")


def id_headers(request_id: str) -> Headers:
    """Both spellings: SDKs of either side expose theirs, and note its absence."""
    value = request_id.encode()
    return ((b"request-id", value), (b"x-request-id", value))


def timing_headers(live: LiveTurn, settings: GatewaySettings) -> Headers:
    """Where the time went until now, in milliseconds: our own part, and the upstream's (W3C Server-Timing)."""
    if not settings.timing:
        return ()
    own, upstream = live.log.spent.so_far()
    return ((b"server-timing", b"gateway;dur=%.2f, upstream;dur=%.1f" % (own * 1e3, upstream * 1e3)),)


class TurnsHandler:
    """Serves one dialect's path."""

    def __init__(
        self,
        dialect: Dialect,
        relay: Relay,
        callers: Callers,
        heartbeats: Heartbeats,
        media: Media,
        settings: GatewaySettings,
    ) -> None:
        self._dialect = dialect
        self._kind: Final = (b"content-type", dialect.content_type)
        self._relay = relay
        self._media = media
        self._callers = callers
        self._heartbeats = heartbeats
        self._settings = settings
        self._attachments = Attachments[LiveTurn](lambda live: live, coalesce=settings.coalesce)

    def __repr__(self) -> str:
        return f"<TurnsHandler {self._dialect.name}>"

    def adopt(self, settings: GatewaySettings) -> None:
        """Go by other settings, from the next request on."""
        self._settings = settings
        self._attachments.coalesce = settings.coalesce

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request."""
        try:
            caller = self._callers.check(exchange.request)
            body = await exchange.body(self._settings.body_limit)
            arrived = perf_counter()
            if not self._attachments.wanted(exchange.request):
                request = self._dialect.read_request(body, exchange.request.headers)
                del body  # up to 32 MiB, not needed while the turn runs
                await self._begin(exchange, request, caller, None, arrived)
                return
            async with self._attachments.claim(caller.owner, exchange.request, body) as claim:
                if claim is not None and claim.found is not None:
                    await self._follow(exchange, claim.found)
                    return
                request = self._dialect.read_request(body, exchange.request.headers)
                del body
                await self._begin(exchange, request, caller, claim, arrived)
        except KirostreamError as error:
            await self._refuse(exchange, error)

    async def _begin(
        self,
        exchange: Exchange,
        request: TurnRequest,
        caller: Caller,
        claim: Claim[LiveTurn] | None,
        arrived: float,
    ) -> None:
        request = await self._media.settle(request)
        if request.choices > 1:  # several turns, which nobody can come back to
            await self._several(exchange, request, caller)
            return
        lingers = (claim is not None and claim.named) or wants_resumable(exchange.request)
        linger = self._relay.directory.settings.linger if lingers else 0.0
        async with self._relay.turn(
            request, request_id=exchange.request.id, scope=caller.owner, key=caller.name, linger=linger
        ) as live:
            live.log.spent.arrived = arrived
            live.traceparent = exchange.request.traceparent
            if claim is not None:
                claim.settle(live)
            try:
                await (self._stream if request.stream else self._reply)(exchange, live)
            except KirostreamError as error:
                await self._refuse(exchange, error, timing_headers(live, self._settings))

    async def _refuse(self, exchange: Exchange, error: KirostreamError, timing: Headers = ()) -> None:
        """Answer with an error, where nothing was answered yet and somebody is there; else it is the door's."""
        if exchange.started or isinstance(error, PeerGone | PeerStalled):
            raise error
        reply = self._dialect.write_error(error, exchange.request.id)
        await exchange.reply(reply.status, (*reply.headers, *timing), reply.body)

    async def _follow(self, exchange: Exchange, live: LiveTurn) -> None:
        """Answer a request that came before with the turn it has."""
        with live.watching():
            if live.request.stream:
                await self._stream(exchange, live, follows=True)
            else:
                await self._reply(exchange, live, follows=True)

    async def _several(self, exchange: Exchange, request: TurnRequest, caller: Caller) -> None:
        dialect, settings = self._dialect, self._settings
        if dialect.choices_writer is None or dialect.write_results is None:
            raise LocalProtocolError(f"{dialect.name} reads requests for several answers, and cannot write them")
        if request.choices > settings.most_choices:
            raise MalformedRequest(
                f"n is {request.choices}; at most {settings.most_choices} answers are given (server.most_choices).",
                param="$.n",
                reason="unsupported_value",
            )
        async with AsyncExitStack() as owners:
            lives = await ask_several(
                owners, self._relay, request, request_id=exchange.request.id, scope=caller.owner, key=caller.name
            )
            for live in lives:
                live.traceparent = exchange.request.traceparent
            heading = lives[0].heading
            if not request.stream:
                for live in lives:
                    await live.over.wait()
                body = dialect.write_results(request, [whole_calls(fold(live.log.events)) for live in lives], heading)
                await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), body)
                return
            with trio.move_on_after(settings.stream.hold_head):
                await until_all_speak(lives)
            raise_early_failure(lives)
            headers = (self._kind, *STREAM_HEADERS, *id_headers(exchange.request.id))
            await exchange.start(200, headers)
            await pump_several(exchange, lives, dialect.choices_writer(request, heading), settings.stream.heartbeat)
            await exchange.finish()

    async def _reply(self, exchange: Exchange, live: LiveTurn, *, follows: bool = False) -> None:
        await live.over.wait()
        result = whole_calls(fold(live.log.events))
        body = self._dialect.write_result(live.request, result, live.heading)
        timing = () if follows else timing_headers(live, self._settings)
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id), *timing), body)

    async def _stream(self, exchange: Exchange, live: LiveTurn, *, follows: bool = False) -> None:
        log, dialect, resumable = live.log, self._dialect, wants_resumable(exchange.request)

        def head() -> Headers:
            headers: Headers = (self._kind, *STREAM_HEADERS, *id_headers(exchange.request.id))
            if not follows:
                headers = (*headers, *timing_headers(live, self._settings))
            return (*headers, (TURN_HEADER, live.heading.turn.encode())) if resumable else headers

        if follows or resumable:
            rendering = live.rendering(dialect.name, lambda: dialect.writer(live.request, live.heading), ids=resumable)
        else:
            rendering = Rendering(log, dialect.writer(live.request, live.heading), kept=False)
        await Pump(exchange, log, rendering, follows=follows).answer(head, self._heartbeats)
