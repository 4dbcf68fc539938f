"""``POST /v1/messages/count_tokens``: counts by our own estimate, never asks the upstream (client-apis.md section 4.8).

Claude Code's ``/context`` sends some 35 of them at once. A count is work for the processor alone, some 10 ms a
megabyte, and would stall every running stream meanwhile. So counts stand in line, from the arrival of their bodies on,
and each is done in slices, between which the event loop runs once round. A thread would not do better: it holds the
interpreter for as long as it is let, and every read and write of a stream would have to win it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from kirostream.dialects.dialect import Dialect, Headers
from kirostream.errors import KirostreamError
from kirostream.gateway.callers import Callers
from kirostream.gateway.media import Media
from kirostream.gateway.turns import JSON, GatewaySettings, id_headers
from kirostream.net.exchange import Exchange, PeerGone, PeerStalled
from kirostream.turn.request import TurnRequest
from kirostream.turn.tokens import estimate_head, estimate_message, estimate_text

SLICE: Final = 32 * 1024
"""Bytes of a request that are read in one go, which takes about a third of a millisecond."""
AT_ONCE: Final = 4
"""Requests whose bodies arrive, or are in memory: in each round of the event loop a piece of each may come."""


class Pace:
    """Lets others run once in every slice of work."""

    def __init__(self) -> None:
        self._left = SLICE

    def __repr__(self) -> str:
        return f"<Pace, {self._left} bytes left of a slice>"

    async def spent(self, size: int) -> None:
        """So much was done. A checkpoint only where a slice is full."""
        self._left -= size
        if self._left <= 0:
            self._left = SLICE
            await trio.lowlevel.checkpoint()


class CountHandler:
    """Counts the tokens of one dialect's requests.

    Args:
        dialect: it has to have `read_in_steps`, or a request is read in one go.
        corrected: an estimate, corrected for the model of this name, among those of a caller.
        callers, media, settings: as for turns.
    """

    def __init__(
        self,
        dialect: Dialect,
        corrected: Callable[[str, int, str], int],
        callers: Callers,
        media: Media,
        settings: GatewaySettings,
    ) -> None:
        self._dialect = dialect
        self._corrected = corrected
        self._callers = callers
        self._media = media
        self._settings = settings
        self._few = trio.Semaphore(AT_ONCE)
        self._line = trio.Lock()

    def __repr__(self) -> str:
        return f"<CountHandler {self._dialect.name}>"

    def adopt(self, settings: GatewaySettings) -> None:
        """Go by other settings, from the next request on."""
        self._settings = settings

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request. It is read as a question is, so what a question may hold, this may hold."""
        request_id = exchange.request.id
        try:
            caller = self._callers.check(exchange.request)
            async with self._few:
                body = await exchange.body(self._settings.body_limit)
                async with self._line:
                    request = await self._read(body, exchange.request.headers)
                del body
                request = await self._media.settle(request, fetch=False)
                async with self._line:
                    tokens = self._corrected(request.model, await count(request), caller.owner)
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            reply = self._dialect.write_error(error, request_id)
            await exchange.reply(reply.status, reply.headers, reply.body)
        else:
            await exchange.reply(200, (JSON, *id_headers(request_id)), b'{"input_tokens":%d}' % tokens)

    async def _read(self, body: bytes, headers: Headers) -> TurnRequest:
        if self._dialect.read_in_steps is None:
            return self._dialect.read_request(body, headers)
        pace = Pace()
        steps = self._dialect.read_in_steps(body, headers)
        while True:
            try:
                size = next(steps)
            except StopIteration as done:
                request: TurnRequest = done.value
                return request
            await pace.spent(size)


async def count(request: TurnRequest) -> int:
    """As `turn.tokens.estimate`, tools that only other upstreams have included; in slices."""
    tokens = estimate_head(request) + estimate_text(request.extras.get("tools", b""))
    pace = Pace()
    for message in request.messages:
        found = estimate_message(message)
        tokens += found
        await pace.spent(found)  # tokens, not bytes: looking at a text takes a fraction of reading it
    return max(1, tokens)
