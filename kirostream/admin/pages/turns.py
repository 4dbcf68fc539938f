"""Turns as they happen: everybody's, with what the model says, in no API's words.

The operator only looks: whoever watches here holds no turn back, keeps none alive, and does not count as a watcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import trio

from kirostream.admin.desk import Desk
from kirostream.admin.route import ANSWERED, Call, Route, there
from kirostream.net.exchange import Exchange
from kirostream.relay.live import LiveTurn
from kirostream.turn.events import TurnEnded, TurnEvent, TurnFailed
from kirostream.turn.wire import dump

HEARTBEAT: Final = 10.0
"""Seconds of silence after which a stream gets a sign of life."""
MOST: Final = 512
"""Events in one write."""
EVENTS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)


class Turn(msgspec.Struct):
    """One turn. Times are seconds, `created` unix seconds; `tokens` is an estimate until the end is known."""

    id: str
    status: Literal["in_progress", "completed", "failed"]
    key: str
    """Who asked, by the name of the key."""
    model: str
    """The model that was asked for."""
    answered_by: str
    account: str
    dialect: str
    created: float
    seconds: float | None
    first_event: float | None
    tokens: int
    attempts: int
    watchers: int
    events: int
    stop: str
    input_tokens: int | None
    output_tokens: int | None
    credits: float | None
    error: str


class Turns(msgspec.Struct):
    """Those in flight, newest first; then those that are over and can still be looked at, the newest first."""

    turns: list[Turn]
    in_flight: int


class TurnsPage:
    """``/turns``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        tag, one = "turns", "/turns/{id}"
        return [
            Route(method="GET", path="/turns", endpoint=self.list, summary="Everybody's turns.", tag=tag, gives=Turns),
            Route(method="GET", path=one, endpoint=self.show, summary="One.", tag=tag, gives=Turn, refuses=(404,)),
            Route(
                method="GET",
                path=f"{one}/events",
                endpoint=self.events,
                summary="What is said, as it is said: one canonical event a message, from the beginning on.",
                tag=tag,
                media=("text/event-stream",),
                refuses=(404,),
            ),
            Route(
                method="POST",
                path=f"{one}/cancel",
                endpoint=self.cancel,
                summary="End a turn. One that is over stays as it is.",
                tag=tag,
                gives=Turn,
                refuses=(404,),
            ),
        ]

    async def list(self, call: Call) -> Turns:
        """``GET /turns``."""
        directory = self._desk.relay.directory
        turns = [describe(live) for live in directory.everybodys()]
        return Turns(turns, len(directory))

    async def show(self, call: Call) -> Turn:
        """``GET /turns/{id}``."""
        return describe(self._found(call))

    async def cancel(self, call: Call) -> Turn:
        """``POST /turns/{id}/cancel``."""
        live = self._found(call)
        live.cancel()
        return describe(live)

    async def events(self, call: Call) -> object:
        """``GET /turns/{id}/events``."""
        await follow(call.exchange, self._found(call))
        return ANSWERED

    def _found(self, call: Call) -> LiveTurn:
        name = call.path["id"]
        return there(self._desk.relay.directory.known(name), f"turn {name!r}; turns that are over are kept for a while")


async def follow(exchange: Exchange, live: LiveTurn) -> None:
    """Send a turn as SSE, to its end.

    Raises:
        PeerGone, PeerStalled: the client is not there, or does not read.
    """
    log, at = live.log, 0
    await exchange.start(200, EVENTS)
    while True:
        if at < len(log.events):
            part = log.events[at : at + MOST]
            at += len(part)
            await exchange.send(blocks(part))
        elif log.finished:
            await exchange.finish()
            return
        else:
            with trio.move_on_after(HEARTBEAT) as patience:
                await log.beyond(at)
            if patience.cancelled_caught:
                await exchange.send(b": \n\n")


def blocks(events: Sequence[TurnEvent]) -> bytes:
    """Events as messages of SSE."""
    return b"".join(b"data: %b\n\n" % dump(event) for event in events)


def describe(live: LiveTurn) -> Turn:
    """A turn, now."""
    events = live.log.events
    last = events[-1] if events else None
    ended = last if isinstance(last, TurnEnded) else None
    failed = last if isinstance(last, TurnFailed) else None
    seconds = live.seconds
    return Turn(
        id=live.heading.turn,
        status="completed" if ended else "failed" if failed else "in_progress",
        key=live.key,
        model=live.request.model,
        answered_by=live.model.id,
        account=live.account,
        dialect=live.request.spoken_in,
        created=live.heading.created,
        seconds=None if seconds is None else round(seconds, 3),
        first_event=None if live.first_event is None else round(live.first_event, 4),
        tokens=live.tokens,
        attempts=live.attempts,
        watchers=live.watchers,
        events=len(events),
        stop=ended.stop.value if ended else "",
        input_tokens=ended.usage.prompt_tokens if ended else None,
        output_tokens=ended.usage.output_tokens if ended else None,
        credits=ended.usage.credits if ended else None,
        error=failed.error.message if failed else "",
    )
