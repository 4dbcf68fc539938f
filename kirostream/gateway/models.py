"""The list of models, in the shape the asking client knows (client-apis.md section 1)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kirostream.errors import UnknownModel
from kirostream.gateway.callers import Callers
from kirostream.gateway.turns import JSON, id_headers, new_request_id
from kirostream.net.exchange import Exchange, HttpRequest
from kirostream.relay.relay import Relay
from kirostream.relay.resolver import normalise
from kirostream.turn.model import Model

CREATED: Final = 1_767_225_600
"""Unix seconds, 2026-01-01. The catalogue has no dates, and the field is required."""
CREATED_TEXT: Final = "2026-01-01T00:00:00Z"

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


class ModelsHandler:
    """Serves ``GET /v1/models`` and ``GET /v1/models/{id}``."""

    def __init__(self, relay: Relay, callers: Callers) -> None:
        self._relay = relay
        self._callers = callers

    def __repr__(self) -> str:
        return "<ModelsHandler>"

    async def list(self, exchange: Exchange) -> None:
        """All models, in one page."""
        self._callers.check(exchange.request)
        models = (await self._relay.models()).models
        if speaks_anthropic(exchange.request):
            data = [anthropic_model(model) for model in models]
            first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
            body = {"data": data, "has_more": False, "first_id": first, "last_id": last}
        else:
            body = {"object": "list", "data": [openai_model(model) for model in models]}
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), _encode(body))

    async def one(self, exchange: Exchange, id: str) -> None:  # noqa: A002  the name of the path's segment
        """One model, by any of its names that need no guessing."""
        self._callers.check(exchange.request)
        models = (await self._relay.models()).models
        wanted = {id.lower(), normalise(id)}
        found = next((model for model in models if model.id.lower() in wanted), None)
        if found is None:
            listed = ", ".join(sorted(model.id for model in models))
            raise UnknownModel(f"The model {id!r} does not exist. Models: {listed}.")
        shape = anthropic_model if speaks_anthropic(exchange.request) else openai_model
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), _encode(shape(found)))
