"""The list of models, in the shape the asking client knows (client-apis.md section 1).

Anthropic's list has pages, for clients that ask for them (``limit``, ``after_id``, ``before_id``); one that names no
limit gets all. Claude Code's menu takes only ids that have "claude" or "anthropic" in them, so it sees the others under
`OTHERS`, which the resolver takes away again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from kirostream.errors import MalformedRequest
from kirostream.gateway.callers import Callers
from kirostream.gateway.turns import JSON, id_headers
from kirostream.net.exchange import Exchange, HttpRequest
from kirostream.relay.relay import Relay
from kirostream.turn.model import Model

CREATED: Final = 1_767_225_600
"""Unix seconds, 2026-01-01. The catalogue has no dates, and the field is required."""
CREATED_TEXT: Final = "2026-01-01T00:00:00Z"

OTHERS: Final = "claude-kiro-"
"""Before the ids of models of other houses, in Claude Code's menu (section 1.3)."""
MOST: Final = 1_000
"""Models of one page, as Anthropic has it."""

_encode = msgspec.json.Encoder().encode


def speaks_anthropic(request: HttpRequest) -> bool:
    """Whether a client of a shared path expects Anthropic's shapes (client-apis.md section 0.3)."""
    agent = request.header(b"user-agent") or b""
    marks = (b"anthropic-version", b"anthropic-beta", b"x-api-key")
    return agent.startswith(b"claude-") or any(request.header(mark) is not None for mark in marks)


def openai_model(model: Model) -> dict[str, Any]:
    """One model as OpenAI lists it, and the two sizes some tools read."""
    return {
        "id": model.id,
        "object": "model",
        "created": CREATED,
        "owned_by": "kiro",
        "context_length": model.window,
        "max_output_tokens": model.max_output,
    }


def anthropic_model(model: Model) -> dict[str, Any]:
    """One model as Anthropic lists it."""
    yes, no = {"supported": True}, {"supported": False}
    efforts = {name: {"supported": name in model.efforts} for name in ("low", "medium", "high", "xhigh", "max")}
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name or model.id,
        "description": model.description,
        "created_at": CREATED_TEXT,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": next((line for line in ("haiku", "sonnet", "opus", "fable", "mythos") if line in model.id), None),
        "max_input_tokens": model.window,
        "max_tokens": model.max_output,
        "capabilities": {
            "batch": no,
            "citations": no,
            "code_execution": no,
            "context_management": no,
            "effort": {**efforts, "supported": bool(model.efforts)},
            "image_input": yes if model.images else no,
            "pdf_input": yes,  # their text, read by the gateway
            "server_tools": no,
            "structured_outputs": yes,  # by a forced tool
            "thinking": {"supported": model.thinks, "types": {"adaptive": {"supported": model.thinks}}},
        },
    }


def for_claude_code(model: Model) -> Model:
    """The model under an id that Claude Code's menu takes."""
    name = model.id.lower()
    return model if "claude" in name or "anthropic" in name else replace(model, id=OTHERS + model.id)


def anthropic_page(models: Sequence[Model], query: str) -> dict[str, Any]:
    """One page of Anthropic's list (section 1.2).

    Args:
        models: all of them.
        query: of the request: ``limit`` from 1 to 1000, and ``after_id`` or ``before_id``, the id a page ends at.

    Raises:
        MalformedRequest: `limit` is none. An id that is not in the list is at no end of it: the page is empty.
    """
    asked = dict(parse_qsl(query))
    size = _limit(asked)
    ids = [model.id for model in models]
    first, last = 0, len(ids)
    if "after_id" in asked:
        first = ids.index(asked["after_id"]) + 1 if asked["after_id"] in ids else last
    if "before_id" in asked:
        last = ids.index(asked["before_id"]) if asked["before_id"] in ids else 0
    if "before_id" in asked and "after_id" not in asked:
        start = max(first, last - size)
        more = start > first
    else:
        start, last, more = first, min(last, first + size), first + size < last
    page = [anthropic_model(model) for model in models[start:last]]
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": more, "first_id": ends[0], "last_id": ends[1]}


def _limit(asked: Mapping[str, str]) -> int:
    if "limit" not in asked:
        return MOST
    limit = asked["limit"]
    if limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MOST:
        return int(limit)
    raise MalformedRequest(f"limit is {limit!r}; it takes 1 to {MOST}.", param="limit", reason="invalid_value")


class ModelsHandler:
    """Serves ``GET /v1/models`` and ``GET /v1/models/{id}``."""

    def __init__(self, relay: Relay, callers: Callers) -> None:
        self._relay = relay
        self._callers = callers

    def __repr__(self) -> str:
        return "<ModelsHandler>"

    async def list(self, exchange: Exchange) -> None:
        """All models, or a page of them."""
        request = exchange.request
        models = await self._relay.offered(self._callers.check(request).owner)
        if speaks_anthropic(request):
            if (request.header(b"user-agent") or b"").startswith(b"claude-code/"):
                models = [for_claude_code(model) for model in models]
            body = anthropic_page(models, request.query)
        else:
            body = {"object": "list", "data": [openai_model(model) for model in models]}
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), _encode(body))

    async def one(self, exchange: Exchange, id: str) -> None:  # noqa: A002  the name of the path's segment
        """One model, by any of the names that a request may have for it."""
        found = await self._relay.find(id, self._callers.check(exchange.request).owner)
        shape = anthropic_model if speaks_anthropic(exchange.request) else openai_model
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), _encode(shape(found)))
