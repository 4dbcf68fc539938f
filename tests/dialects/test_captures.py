"""Requests of real clients: every one is read, and comes back equal from its own dialect.

Declared losses: `count_tokens` bodies have no ``max_tokens``, which a Messages request must have, so it is put in.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Stamp
from kirostream.turn.model import Model

CAPTURES: Final = Path(__file__).parents[3] / "shared" / "captures"
PATHS: Final = {
    "/v1/messages": "anthropic",
    "/v1/messages/count_tokens": "anthropic",
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
}


def captured() -> list[tuple[str, str, dict[str, Any]]]:
    """Name, dialect and request of every capture that has a body and a dialect to answer it."""
    found = []
    for path in sorted(CAPTURES.glob("*.json")):
        request = json.loads(path.read_bytes())
        if (dialect := PATHS.get(request["path"].split("?")[0])) and request["body"]:
            found.append((path.stem, dialect, request))
    return found


def test_every_captured_request_is_read_and_comes_back() -> None:
    if not CAPTURES.is_dir():
        pytest.skip(
            f"{CAPTURES} is absent: the captured requests belong to their clients and are not in the repository"
        )
    requests = captured()
    assert len(requests) >= 80
    for name, dialect_name, captured_request in requests:
        dialect = DIALECTS[dialect_name]
        headers = [(key.lower().encode(), value.encode()) for key, value in captured_request["headers"]]
        body = captured_request["body"]
        request = dialect.read_request(json.dumps(body).encode(), headers)
        again = dialect.read_request(dialect.write_request(request, Stamp(Model(request.model))), headers)
        if dialect_name == "anthropic" and "max_tokens" not in body:
            again = dataclasses.replace(again, sampling=request.sampling)
        assert again == request, name
        assert len(request.messages) + len(request.system) > 0, name
        offered = [tool for tool in body.get("tools", ()) if "input_schema" in tool or "function" in tool]
        assert len(request.tools) >= len(offered) - 1, name  # a placeholder for deferred tools is not offered
        if name.startswith(("claude_code", "codex", "opencode")):
            assert request.session, name
