"""Watching turns: ``/v1/turns`` and what is below it (docs/architecture.md, "One turn, many watchers").

A turn belongs to the relay, so anybody who may see it can watch it: from the beginning or from a place on, in the
language it was asked in, in another one, or as canonical JSON, while it runs and for a while afterwards. Each wire
event of such a stream has an ``id:`` line, ``TURN.EVENT.BLOCK``, which names the place behind it; a client that lost
its connection sends the last one it has as ``Last-Event-ID`` and gets, byte for byte, what it would have got.

A POST becomes resumable by ``x-kirostream-resumable: true``. Its stream then has those lines, its head
``x-kirostream-turn``, and its turn goes on for a while when its client is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

from kirostream.dialects.dialect import Dialect, Writer
from kirostream.dialects.jsontext import encode
from kirostream.errors import MalformedRequest
from kirostream.gateway.callers import Callers
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.gateway.turns import JSON, STREAM_HEADERS, TURN_HEADER, id_headers
from kirostream.net.exchange import Exchange, HttpRequest
from kirostream.net.router import Router
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import START, Cursor
from kirostream.relay.relay import Relay
from kirostream.turn.events import TurnEnded, TurnEvent, TurnFailed
from kirostream.turn.request import RawJson
from kirostream.turn.wire import dump

PATH: Final = "/v1/turns"
WATCH: Final = ("api", "watch")
"""Scopes of which one is enough to watch."""
LONGEST_PLACE: Final = 20
"""Characters of a place behind the turn's id: no log has that many events, and a longer number need not be read."""
CANONICAL: Final = "canonical"
"""The dialect of clients that want the turn in no API's words."""


class CanonicalWriter:
    """Events as `turn.wire` has them, one SSE event each."""

    def write(self, event: TurnEvent) -> list[bytes]:
        """The wire block of `event`."""
        return [b"data: %b\n\n" % dump(event)]

    def heartbeat(self) -> bytes:
        """A comment."""
        return b": \n\n"


class Languages:
    """The languages that turns can be asked and watched in, as this gateway speaks them.

    Args:
        dialects: those of the public paths, with what the settings make of them.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._dialects = {dialect.name: dialect for dialect in dialects if dialect.path}

    def __repr__(self) -> str:
        return f"<Languages {', '.join(self._dialects)}>"

    def spoken(self, name: str) -> Dialect:
        """The language of this name that turns can be asked in.

        Raises:
            MalformedRequest: there is no such language.
        """
        if name not in self._dialects:
            raise MalformedRequest(
                f"dialect is {name!r}; a turn can be started in: {', '.join(self._dialects)}.",
                param="$.dialect",
                reason="unsupported_value",
            )
        return self._dialects[name]

    def check(self, name: str) -> None:
        """See that a turn can be watched in the language of this name.

        Raises:
            MalformedRequest: there is no such language.
        """
        if name not in (known := [*self._dialects, CANONICAL]):
            raise MalformedRequest(
                f"dialect is {name!r}; it takes: {', '.join(known)}.", param="$.dialect", reason="unsupported_value"
            )

    def writer(self, live: LiveTurn, name: str) -> Writer:
        """A writer of a turn in the language of this name.

        Raises:
            MalformedRequest: there is no such language.
        """
        self.check(name)
        return CanonicalWriter() if name == CANONICAL else self._dialects[name].writer(live.request, live.heading)


def place_behind(live: LiveTurn, last: str) -> Cursor:
    """The place that an ``id:`` line, or a ``place``, names; empty: the beginning.

    Raises:
        MalformedRequest: it is none of this turn's.
    """
    if not last:
        return START
    turn, _, place = last.partition(".")
    event, _, block = place.partition(".")
    known = len(live.log.events)
    is_place = turn == live.heading.turn and event.isdecimal() and block.isdecimal() and len(place) <= LONGEST_PLACE
    if not is_place or (int(event), int(block)) > (known, 0):
        raise MalformedRequest(
            f"{last!r} is no event id of the turn {live.heading.turn}. Send the last id of its stream, or none.",
            param="$.last-event-id",
            reason="invalid_value",
        )
    return Cursor(int(event), int(block))


class Watch:
    """Serves ``/v1/turns``."""

    def __init__(self, relay: Relay, callers: Callers, heartbeats: Heartbeats, languages: Languages) -> None:
        self._relay = relay
        self._languages = languages
        self._callers = callers
        self._heartbeats = heartbeats

    def __repr__(self) -> str:
        return f"<Watch {self._relay.directory!r}>"

    def add_to(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", PATH, self.turns)
        router.add("GET", f"{PATH}/{{id}}", self.turn)
        router.add("GET", f"{PATH}/{{id}}/events", self.events)
        router.add("POST", f"{PATH}/{{id}}/cancel", self.cancel)

    async def turns(self, exchange: Exchange) -> None:
        """``GET /v1/turns``: the turns that the caller sees, those in flight first."""
        caller = self._callers.check(exchange.request, *WATCH)
        listed = b",".join(describe(live) for live in self._relay.directory.of(caller.sees))
        await _reply(exchange, b'{"object":"list","data":[%b]}' % listed)

    async def turn(self, exchange: Exchange, id: str) -> None:  # noqa: A002  the name of the path's segment
        """``GET /v1/turns/{id}``."""
        await _reply(exchange, describe(await self._found(exchange.request, id)))

    async def cancel(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``POST /v1/turns/{id}/cancel``. One that is over stays as it is."""
        caller = self._callers.check(exchange.request, "api", "admin")
        live = await self._relay.directory.find(id, caller.rules)
        live.cancel()
        await _reply(exchange, describe(live))

    async def events(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``GET /v1/turns/{id}/events``: the turn as SSE, from ``Last-Event-ID`` (or ``?after=``) on."""
        live = await self._found(exchange.request, id)
        query = parse_qs(exchange.request.query)
        dialect = query.get("dialect", [""])[-1] or live.request.spoken_in
        rendering = live.rendering(dialect, lambda: self._languages.writer(live, dialect), ids=True)
        last = (exchange.request.header(b"last-event-id") or b"").decode("latin-1")
        at = place_behind(live, last or query.get("after", [""])[-1])
        headers = (
            (b"content-type", b"text/event-stream; charset=utf-8"),
            *STREAM_HEADERS,
            (TURN_HEADER, id.encode()),
            *id_headers(exchange.request.id),
        )
        with live.watching():
            await Pump(exchange, live.log, rendering, at=at, follows=True).run(headers, self._heartbeats)

    async def _found(self, request: HttpRequest, turn: str) -> LiveTurn:
        return await self._relay.directory.find(turn, self._callers.check(request, *WATCH).sees)


def describe(live: LiveTurn) -> RawJson:
    """A turn as JSON: what it is, how far it is, and what it cost. The account is said by its label."""
    log = live.log
    last = log.events[-1] if log.events else None
    status = "in_progress"
    if isinstance(last, TurnEnded):
        status = "completed"
    elif isinstance(last, TurnFailed):
        status = "failed"
    said: dict[str, object] = {
        "object": "turn",
        "id": live.heading.turn,
        "status": status,
        "model": live.request.model,
        "answered_by": live.model.id,
        "account": live.account,
        "dialect": live.request.spoken_in,
        "created": live.heading.created,
        "events": len(log.events),
        "tokens": live.tokens,
        "watchers": live.watchers,
        "attempts": live.attempts,
    }
    if (seconds := live.seconds) is not None:
        said["seconds"] = round(seconds, 3)
    if isinstance(last, TurnEnded):
        said["stop"] = last.stop.value
        said["usage"] = {"input_tokens": last.usage.prompt_tokens, "output_tokens": last.usage.output_tokens}
        if last.usage.credits is not None:
            said["credits"] = last.usage.credits
    elif isinstance(last, TurnFailed):
        said["error"] = {"type": type(last.error).__name__, "message": last.error.message}
    return encode(said)


async def _reply(exchange: Exchange, body: RawJson) -> None:
    await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), body)
