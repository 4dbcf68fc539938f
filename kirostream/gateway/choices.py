"""Several answers to one question (chat's ``n``): as many turns side by side, in one response.

Each answer is a turn of its own, with its own tries; Kiro has no other way. In a stream they interleave as they come,
each event under the number of its choice. One that fails on its way fails the response: a client that asked for three
answers and finds two cannot know which.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio

from kirostream.dialects.dialect import ChoicesWriter
from kirostream.net.exchange import Exchange, PeerGone, PeerStalled
from kirostream.relay.live import LiveTurn
from kirostream.relay.relay import Relay
from kirostream.turn.events import TurnFailed
from kirostream.turn.request import TurnRequest


async def ask_several(
    owners: AsyncExitStack, relay: Relay, request: TurnRequest, *, request_id: str, scope: str, key: str = ""
) -> list[LiveTurn]:
    """`request.choices` turns, which end with `owners`.

    Raises:
        UnknownModel: no model of this name.
    """
    return [
        await owners.enter_async_context(relay.turn(request, request_id=request_id, scope=scope, key=key))
        for _ in range(request.choices)
    ]


async def until_all_speak(lives: Sequence[LiveTurn]) -> None:
    """Wait until each turn has said something. Raises the error of one that failed at once."""
    for live in lives:
        await live.log.beyond(0)
    raise_early_failure(lives)


def raise_early_failure(lives: Sequence[LiveTurn]) -> None:
    """Raise the error of a turn that failed before it said anything."""
    for live in lives:
        if live.log.events and isinstance(live.log.events[0], TurnFailed):
            raise live.log.events[0].error.anew()


async def pump_several(exchange: Exchange, lives: Sequence[LiveTurn], writer: ChoicesWriter, heartbeat: float) -> None:
    """Send all turns until every one is over, or one of them failed. The head has to be sent already.

    What is written is sent before anything else is written, so the end of the stream is its last part.

    Args:
        heartbeat: seconds of silence after which a sign of life is sent.

    Raises:
        PeerGone, PeerStalled: the client is not there, or does not read.
    """
    turn_to_send = trio.Lock()
    last_sent = trio.current_time()
    left: list[PeerGone | PeerStalled] = []

    async def say(data: bytes) -> None:
        nonlocal last_sent
        if data:
            try:
                await exchange.send(data)
            except (PeerGone, PeerStalled) as error:
                left.append(error)  # raised below, on its own and not in a group
                beating.cancel_scope.cancel()
            last_sent = trio.current_time()

    async def pump(choice: int, live: LiveTurn) -> None:
        at = 0
        while await live.log.beyond(at) or not live.log.finished:
            async with turn_to_send:
                events = live.log.events[at:]
                at += len(events)
                await say(b"".join(block for event in events for block in writer.write(choice, event)))
                live.log.mark_read(at)
            if events and isinstance(events[-1], TurnFailed):
                nursery.cancel_scope.cancel()

    async def keep_alive() -> None:
        while True:
            await trio.sleep_until(last_sent + heartbeat)
            async with turn_to_send:
                if trio.current_time() >= last_sent + heartbeat:
                    await say(writer.heartbeat())

    async with trio.open_nursery() as beating:
        beating.start_soon(keep_alive)
        async with trio.open_nursery() as nursery:
            for choice, live in enumerate(lives):
                nursery.start_soon(pump, choice, live)
        beating.cancel_scope.cancel()
    if left:
        raise left[0]
