"""Web search in Anthropic's words (client-apis.md sections 4.3 to 4.5).

A tool ``web_search_<date>`` asks for it; a search is a ``server_tool_use`` block, its outcome a
``web_search_tool_result`` behind it. A result's ``encrypted_content`` is what the service wants to see again in the
next request, and is its own affair: ours holds the extract of the page, in base64 behind a mark. What another service
wrote there says nothing to anybody here, and is passed over.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final, TypeAlias, get_args

import msgspec
from msgspec import Raw

from kirostream.dialects.jsontext import part
from kirostream.errors import MalformedRequest
from kirostream.turn.request import SEARCH_TOOL, Search, SearchCall, SearchError, SearchHit, SearchOutcome

Json: TypeAlias = dict[str, object]

RESULT: Final = "web_search_tool_result"
NATIVE: Final = "web_search_20250305"
"""The type that a question from another dialect is asked with."""

_TYPE: Final = re.compile(r"web_search_\d{8}")
_MARK: Final = "ks0."


class WireLocation(msgspec.Struct):
    """``user_location``."""

    city: str | None = None
    region: str | None = None
    country: str | None = None
    timezone: str | None = None

    def words(self) -> str:
        """The place, in one line."""
        return ", ".join(filter(None, (self.city, self.region, self.country, self.timezone)))


class WireSearchTool(msgspec.Struct):
    """``web_search_<date>``."""

    max_uses: int | float | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    user_location: WireLocation | None = None


class WireHit(msgspec.Struct):
    """``web_search_result``."""

    url: str = ""
    title: str | None = None
    page_age: str | None = None
    encrypted_content: str | None = None


class WireFailure(msgspec.Struct):
    """``web_search_tool_result_error``."""

    error_code: str = ""


class WireRun(msgspec.Struct):
    """``server_tool_use``, as far as a search has it."""

    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class WireOutcome(msgspec.Struct):
    """``web_search_tool_result``."""

    tool_use_id: str = ""
    content: Raw = Raw(b"[]")


class WireQuery(msgspec.Struct):
    """The input of a search."""

    query: str = ""


def is_search(kind: str | None) -> bool:
    """Whether a tool's ``type`` is the web search of any date."""
    return kind is not None and _TYPE.fullmatch(kind) is not None


def read_tool(tool: Raw, at: str) -> Search | None:
    """What a tool of the type asks for; None where it allows no search at all."""
    wire = part(tool, WireSearchTool, at)
    if wire.max_uses is not None and wire.max_uses < 1:
        return None
    return Search(
        max_uses=None if wire.max_uses is None else int(wire.max_uses),
        allowed_domains=tuple(wire.allowed_domains or ()),
        blocked_domains=tuple(wire.blocked_domains or ()),
        location=wire.user_location.words() if wire.user_location else "",
    )


def write_tool(search: Search) -> Json:
    """The tool that asks for `search`."""
    tool: Json = {"type": NATIVE, "name": SEARCH_TOOL}
    if search.max_uses is not None:
        tool["max_uses"] = search.max_uses
    if search.allowed_domains:
        tool["allowed_domains"] = search.allowed_domains
    if search.blocked_domains:
        tool["blocked_domains"] = search.blocked_domains
    return tool


def read_call(block: Raw, at: str) -> SearchCall | None:
    """The search that a ``server_tool_use`` is; None where it is another tool's."""
    run = part(block, WireRun, at)
    if run.name != SEARCH_TOOL:
        return None
    return SearchCall(run.id, read_query(run.input, f"{at}.input"))


def read_query(value: Raw, at: str) -> str:
    """The query of a search's input; empty where it has none."""
    try:
        return part(value, WireQuery, at).query
    except MalformedRequest:
        return ""


def read_outcome(block: Raw, at: str) -> SearchOutcome:
    """What a ``web_search_tool_result`` says. Results that cannot be read are passed over."""
    outcome = part(block, WireOutcome, at)
    return SearchOutcome(outcome.tool_use_id, *read_content(outcome.content, f"{at}.content"))


def read_content(content: Raw, at: str) -> tuple[tuple[SearchHit, ...], SearchError]:
    """The hits, or the error, of the ``content`` of a ``web_search_tool_result``."""
    if not bytes(content).startswith(b"["):
        try:
            code = part(content, WireFailure, at).error_code
        except MalformedRequest:
            code = ""
        return (), next((word for word in get_args(SearchError) if word and word == code), "unavailable")
    hits: list[SearchHit] = []
    for value in part(content, list[Raw], at):
        try:
            hit = part(value, WireHit, at)
        except MalformedRequest:
            continue
        hits.append(SearchHit(hit.url, hit.title or "", hit.page_age or "", _unpack(hit.encrypted_content or "")))
    return tuple(hits), ""


def write_call(call: SearchCall) -> Json:
    """A whole ``server_tool_use``."""
    return {"type": "server_tool_use", "id": call.id, "name": SEARCH_TOOL, "input": {"query": call.query}}


def write_outcome(outcome: SearchOutcome) -> Json:
    """A whole ``web_search_tool_result``."""
    content: Json | Sequence[Json]
    if outcome.error:
        content = {"type": "web_search_tool_result_error", "error_code": outcome.error}
    else:
        content = [_write_hit(hit) for hit in outcome.hits or ()]
    return {"type": RESULT, "tool_use_id": outcome.call_id, "content": content}


def _write_hit(hit: SearchHit) -> Json:
    return {
        "type": "web_search_result",
        "url": hit.url,
        "title": hit.title,
        "encrypted_content": _MARK + base64.b64encode(hit.text.encode("utf-8", "replace")).decode(),
        "page_age": hit.age or None,
    }


def _unpack(sealed: str) -> str:
    if not sealed.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(sealed[len(_MARK) :], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
