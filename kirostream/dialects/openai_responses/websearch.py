"""Web search in the words of the Responses API (client-apis.md sections 3.2 to 3.5).

A tool ``web_search`` or ``web_search_preview``, of any date, asks for it; a search is an item ``web_search_call`` with
the query, and with the addresses that were found where ``include`` asks for them. What stood on the pages is the
server's to remember: the item that is kept here has it, the one that a client sends back has not.

``external_web_access: false`` allows what the service has in store, and nothing new from outside. There is no such
store here, so the search is not offered then.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from kirostream.dialects.citations import Citation
from kirostream.dialects.jsontext import encode, part
from kirostream.errors import MalformedRequest
from kirostream.turn.request import RawJson, Search, SearchCall, SearchHit, SearchOutcome

Json: TypeAlias = dict[str, object]

CALL: Final = "web_search_call"
SOURCES: Final = "web_search_call.action.sources"
"""The member of ``include`` that asks for the addresses that were found."""

_TYPE: Final = re.compile(r"web_search(_preview)?(_\d{4}_\d{2}_\d{2})?")


class WireLocation(msgspec.Struct):
    """``user_location``; chat puts the members one level deeper."""

    city: str | None = None
    region: str | None = None
    country: str | None = None
    timezone: str | None = None
    approximate: WireLocation | None = None

    def words(self) -> str:
        """The place, in one line."""
        if self.approximate is not None:
            return self.approximate.words()
        return ", ".join(filter(None, (self.city, self.region, self.country, self.timezone)))


class WireFilters(msgspec.Struct):
    """``filters``."""

    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


class WireSearch(msgspec.Struct):
    """The tool, or the ``web_search_options`` of chat."""

    filters: WireFilters | None = None
    user_location: WireLocation | None = None
    external_web_access: bool | None = None


class WireSource(msgspec.Struct):
    """One of ``sources``. The last three are ours: an item that was kept here has them."""

    url: str = ""
    title: str = ""
    age: str = ""
    text: str = ""


class WireAction(msgspec.Struct):
    """``action``."""

    query: str | None = None
    queries: list[str] | None = None
    url: str | None = None
    pattern: str | None = None
    sources: list[WireSource] | None = None


class WireCall(msgspec.Struct):
    """``web_search_call``."""

    id: str | None = None
    status: str | None = None
    action: WireAction | None = None


def is_search(kind: str | None) -> bool:
    """Whether a tool's ``type`` is the web search, by any of its names."""
    return kind is not None and _TYPE.fullmatch(kind) is not None


def read_search(tool: Raw, at: str, max_uses: int | None = None) -> Search | None:
    """What such a tool, or chat's options, ask for; None where no search of ours would do."""
    wire = part(tool, WireSearch, at)
    if wire.external_web_access is False or (max_uses is not None and max_uses < 1):
        return None
    filters = wire.filters or WireFilters()
    return Search(
        max_uses=max_uses,
        allowed_domains=tuple(filters.allowed_domains or ()),
        blocked_domains=tuple(filters.blocked_domains or ()),
        location=wire.user_location.words() if wire.user_location else "",
    )


def write_tool(search: Search) -> Json:
    """The tool that asks for `search`."""
    tool: Json = {"type": "web_search"}
    if search.allowed_domains:
        tool["filters"] = {"allowed_domains": search.allowed_domains}
    return tool


def read_call(item: Raw, at: str) -> tuple[SearchCall, SearchOutcome] | None:
    """The search that an item is, and what came of it; None where it says nothing."""
    try:
        wire = part(item, WireCall, at)
    except MalformedRequest:
        return None
    action = wire.action or WireAction()
    words = (action.query, *(action.queries or ()), action.pattern, action.url)
    query = next((word for word in words if word), "")
    if not query:
        return None
    call = SearchCall(wire.id or "ws_" + hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:24], query)
    if wire.status == "failed":
        return call, SearchOutcome(call.id, (), "unavailable")
    if action.sources is None:
        return call, SearchOutcome(call.id, None)
    return call, SearchOutcome(call.id, tuple(SearchHit(s.url, s.title, s.age, s.text) for s in action.sources))


def search_item(item: str, query: str, status: str, sources: list[Json] | None = None) -> RawJson:
    """A ``web_search_call``."""
    action: Json = {"type": "search", "query": query, "queries": [query]}
    if sources is not None:
        action["sources"] = sources
    return encode({"id": item, "type": CALL, "status": status, "action": action})


def sources_of(outcome: SearchOutcome, *, whole: bool) -> list[Json] | None:
    """What was found, as ``sources``: addresses, or, to be kept here, all there is. None where that is not known."""
    if outcome.hits is None or outcome.error:
        return None
    found: list[Json] = []
    for hit in outcome.hits:
        source: Json = {"type": "url", "url": hit.url}
        found.append(source | {"title": hit.title, "age": hit.age, "text": hit.text} if whole else source)
    return found


def annotation(citation: Citation) -> RawJson:
    """A ``url_citation``."""
    return encode({"type": "url_citation", **citation.wire()})
