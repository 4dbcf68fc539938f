"""Requests of real clients, where they are: they belong to those clients, and are not in the repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Dialect, Headers
from kirostream.turn.request import TurnRequest

FOLDER: Final = Path(__file__).parents[2].parent / "shared" / "captures"
ABSENT: Final = f"{FOLDER} is absent: the captured requests belong to their clients, and are not in the repository"
PATHS: Final = {
    "/v1/messages": "anthropic",
    "/v1/messages/count_tokens": "anthropic",
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
}


@dataclass(frozen=True)
class Capture:
    """One request, as it was sent."""

    name: str
    dialect: Dialect
    headers: Headers
    body: dict[str, Any]
    counts: bool
    """Whether it asks for a count, and not for an answer."""

    def read(self) -> TurnRequest:
        """The question it asks."""
        return self.dialect.read_request(json.dumps(self.body).encode(), self.headers)


def captures() -> list[Capture]:
    """Every capture that has a body, and a dialect to read it; none where they are not here."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        sent = json.loads(path.read_bytes())
        where = sent["path"].split("?")[0]
        if where in PATHS and sent["body"]:
            headers = [(name.lower().encode(), value.encode()) for name, value in sent["headers"]]
            counts = where.endswith("/count_tokens")
            found.append(Capture(path.stem, DIALECTS[PATHS[where]], headers, sent["body"], counts))
    return found
