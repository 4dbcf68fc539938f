"""Base URLs as people type them (client-apis.md section 0.2).

Some clients append ``/v1/messages`` to their base URL, others ``/messages``; some bases carry the ``/openai`` or
``/anthropic`` of another gateway. So a path that leads nowhere is read again without what a base URL may have added to
it or left out, and the operator is told once what the base should be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kirostream.net.exchange import HttpRequest
from kirostream.telemetry.facts import BaseUrlMended

_PREFIXES: Final = frozenset({"v1", "anthropic", "openai"})
_RESOURCES: Final = frozenset({"messages", "chat", "responses", "models", "completions", "embeddings"})
_MOST_HINTS: Final = 100


def canonical(path: str) -> str:
    """The path that was meant: one ``/v1`` in front of a resource of the APIs, no doubled slash and none at the end."""
    segments = [segment for segment in path.split("/") if segment]
    lead = 0
    while lead < len(segments) and segments[lead] in _PREFIXES:
        lead += 1
    if lead < len(segments) and segments[lead] in _RESOURCES:
        segments[:lead] = ["v1"]
    return "/" + "/".join(segments)


def right_base(path: str, served: str) -> str:
    """The path of the base URL with which a client that asked for `path` asks for `served`.

    What both end with is what the client appends by itself; whole segments only.
    """
    asked, found = path.rstrip("/").split("/"), served.split("/")
    same = 0
    while same < min(len(asked), len(found)) - 1 and asked[-1 - same] == found[-1 - same]:
        same += 1
    return "/".join(found[: len(found) - same])


class BaseUrlHints:
    """Tells of clients with a wrong base URL, once each."""

    def __init__(self, tell: Callable[[BaseUrlMended], None]) -> None:
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<BaseUrlHints: {len(self._told)} told>"

    def mended(self, request: HttpRequest, served: str) -> None:
        """`request` was served at `served`."""
        agent = (request.header(b"user-agent") or b"").decode("latin-1")
        client = agent.split(" ", 1)[0] or "a client"
        base = right_base(request.path, served)
        if (client, base) in self._told or len(self._told) >= _MOST_HINTS:
            return
        self._told.add((client, base))
        host = (request.header(b"host") or b"HOST").decode("latin-1")
        self._tell(BaseUrlMended(client=client, path=request.path, served=served, base_url=f"http://{host}{base}"))
