"""``POST /v1/messages/count_tokens``: counts by our own estimate, never asks the upstream (client-apis.md section 4.8).

Claude Code's ``/context`` sends some 26 of them at once. A count is work for the processor alone, and many in a row
would stall every running stream; so they stand in line, and the event loop runs once round between any two.
"""

from __future__ import annotations

import trio

from kirostream.dialects.dialect import Dialect
from kirostream.errors import KirostreamError
from kirostream.gateway.callers import Callers
from kirostream.gateway.media import Media
from kirostream.gateway.turns import JSON, GatewaySettings, id_headers, new_request_id
from kirostream.net.exchange import Exchange, PeerGone, PeerStalled
from kirostream.turn.tokens import estimate, estimate_text


class CountHandler:
    """Counts the tokens of one dialect's requests."""

    def __init__(self, dialect: Dialect, callers: Callers, media: Media, settings: GatewaySettings) -> None:
        self._dialect = dialect
        self._callers = callers
        self._media = media
        self._settings = settings
        self._line = trio.Lock()

    def __repr__(self) -> str:
        return f"<CountHandler {self._dialect.name}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request. It is read as a question is, so what a question may hold, this may hold."""
        request_id = new_request_id()
        try:
            self._callers.check(exchange.request)
            body = await exchange.body(self._settings.body_limit)
            async with self._line:
                request = self._dialect.read_request(body, exchange.request.headers)
            request = await self._media.settle(request, fetch=False)
            async with self._line:
                tokens = estimate(request) + estimate_text(request.extras.get("tools", b""))
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            reply = self._dialect.write_error(error, request_id)
            await exchange.reply(reply.status, reply.headers, reply.body)
        else:
            await exchange.reply(200, (JSON, *id_headers(request_id)), b'{"input_tokens":%d}' % tokens)
