"""The public routes: one POST route a dialect, the list of models, and signs of life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kirostream._version import __version__
from kirostream.dialects import DIALECTS, remembering
from kirostream.dialects.openai_chat.thoughts import ThoughtForm, with_form
from kirostream.errors import KirostreamError, NoSuchRoute
from kirostream.gateway.accounts import PATH as ACCOUNTS
from kirostream.gateway.accounts import AccountsHandler
from kirostream.gateway.base_urls import BaseUrlHints, canonical
from kirostream.gateway.callers import Callers
from kirostream.gateway.counting import CountHandler
from kirostream.gateway.media import Media
from kirostream.gateway.models import ModelsHandler, speaks_anthropic
from kirostream.gateway.responses import PATH as RESPONSES
from kirostream.gateway.responses import Responses
from kirostream.gateway.responses_ws import ResponsesSocket, SocketSettings
from kirostream.gateway.sse import Heartbeats
from kirostream.gateway.stream_ws import PATH as STREAM
from kirostream.gateway.stream_ws import StreamSocket
from kirostream.gateway.turns import JSON, GatewaySettings, TurnsHandler
from kirostream.gateway.watch import Languages, Watch
from kirostream.net.exchange import Exchange, Headers, HttpRequest, new_request_id
from kirostream.net.router import Router
from kirostream.relay.relay import Relay
from kirostream.telemetry.facts import BaseUrlMended
from kirostream.turn.memory import Memory

HEALTHY: Final = f'{{"status":"ok","service":"kirostream","version":"{__version__}"}}'.encode()


async def _healthy(exchange: Exchange) -> None:
    """The process answers. Says nothing of accounts: this route needs no key."""
    await exchange.reply(200, (JSON,), HEALTHY)


async def _no_completions(exchange: Exchange) -> None:
    raise NoSuchRoute("Text completions are not served here. Use /v1/chat/completions, with the prompt as a message.")


async def _no_embeddings(exchange: Exchange) -> None:
    raise NoSuchRoute("Kiro has no model for embeddings. Point the embeddings of this client at another provider.")


class PublicRouter(Router):
    """The public routes, and who of them goes by settings that may change."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.by_request: list[Callable[[GatewaySettings], None]] = []
        self.by_connection: list[Callable[[GatewaySettings, SocketSettings], None]] = []

    def adopt(self, settings: GatewaySettings, sockets: SocketSettings) -> None:
        """Go by other settings, from the next request and the next connection on."""
        for each in self.by_request:
            each(settings)
        for one in self.by_connection:
            one(settings, sockets)


def make_router(
    relay: Relay,
    callers: Callers,
    heartbeats: Heartbeats,
    media: Media,
    responses: Responses,
    sockets: SocketSettings,
    settings: GatewaySettings,
    memory: Memory,
    tell: Callable[[BaseUrlMended], None],
) -> PublicRouter:
    """Everything the gateway serves. `tell` hears of clients whose base URL is not right."""
    router = PublicRouter(canonical, BaseUrlHints(tell).mended)
    router.add("GET", "/", _healthy)
    router.add("GET", "/health", _healthy)
    router.add("GET", "/api/hello", _healthy)  # Claude Code asks for it before its first call
    models = ModelsHandler(relay, callers)
    router.add("GET", "/v1/models", models.list)
    router.add("GET", "/v1/models/{id}", models.one)
    router.add("GET", ACCOUNTS, AccountsHandler(relay, callers))
    responses.add_to(router)  # a dialect with a memory
    chat = with_form(DIALECTS["openai_chat"], ThoughtForm(settings.chat_thoughts))
    messages = remembering(memory)
    dialects = {each.name: each for each in (*DIALECTS.values(), chat, messages, responses.dialect)}
    languages = Languages(dialects.values())
    Watch(relay, callers, heartbeats, languages).add_to(router)
    stream = StreamSocket(relay, callers, media, languages, responses.stopping, sockets, settings)
    router.add("GET", STREAM, stream)
    answers = ResponsesSocket(responses, sockets)
    router.add("GET", RESPONSES, answers)
    router.by_connection += [stream.adopt, answers.adopt]
    for dialect in dialects.values():
        if dialect.path and (("POST", dialect.path) not in router.routes()):
            turns = TurnsHandler(dialect, relay, callers, heartbeats, media, settings)
            router.add("POST", dialect.path, turns)
            router.by_request.append(turns.adopt)
    counts = CountHandler(messages, relay.corrected, callers, media, settings)
    router.add("POST", "/v1/messages/count_tokens", counts)
    router.by_request.append(counts.adopt)
    router.add("POST", "/v1/completions", _no_completions)
    router.add("POST", "/v1/embeddings", _no_embeddings)
    return router


def refuse(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
    """How the door words an error that no handler answered, in the language the client most likely speaks."""
    anthropic = request is not None and ("/messages" in request.path or speaks_anthropic(request))
    request_id = request.id if request is not None else new_request_id()
    reply = DIALECTS["anthropic" if anthropic else "openai_chat"].write_error(error, request_id)
    return reply.status, reply.headers, reply.body
