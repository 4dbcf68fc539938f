"""The simulated web: what the service's MCP endpoint answers (kiro-protocol.md section 6.5). Pure.

JSON-RPC 2.0 with the methods the service has. A search finds the same pages for the same query, always. Words in a
query make it fail, each in one of the ways in which a search fails:

=================  ====================================================================================================
``error:NAME``     this HTTP error; NAME is one of `refusals.INJECTED`
``fail:NAME:KEY``  the same, for the first search with KEY
``rpc:CODE``       a JSON-RPC error with this code
``tool:TEXT``      a result that is an error, and says TEXT
``inner:TEXT``     an error beside an empty list of results
``garbled``        a result that is no JSON
``nothing``        no results
``stall``          no answer at all
=================  ====================================================================================================

A query of more than 200 characters, or of none, is invalid, as the service's own schema has it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kirostream.filters.websearch import MAX_QUERY
from kirostream.simulator.refusals import INJECTED, Refusal

Json: TypeAlias = dict[str, Any]

FIRST_DAY: Final = 1_767_225_600_000
"""Milliseconds: 2026-01-01, when the best page of every search was published. Each further one is a day older."""
DAY: Final = 86_400_000
HOSTS: Final = ("example.com", "docs.example.com", "news.example.org", "blog.example.net", "example.com")

_WORD: Final = re.compile(r"\b(error|fail|rpc|tool|inner):([\w.-]+)(?::(\w+))?")
_SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "maxLength": MAX_QUERY}},
    "required": ["query"],
}


class Stalled(Exception):
    """The search is never answered."""


def pages(query: str) -> list[Json]:
    """What a search for `query` finds, best first."""
    slug = re.sub(r"[^a-z0-9]+", "-", query.lower()).strip("-")[:40] or "page"
    found = []
    for number, host in enumerate(HOSTS, 1):
        mark = hashlib.sha256(f"{query}:{number}".encode("utf-8", "replace")).hexdigest()[:8]
        found.append(
            {
                "title": f"{query}, page {number}",
                "url": f"https://{host}/{slug}/{number}",
                "snippet": f"Page {number} about {query} says {mark}.",
                "publishedDate": FIRST_DAY - (number - 1) * DAY,
                "id": str(number),
                "domain": host,
                "maxVerbatimWordLimit": 30,
                "publicDomain": False,
            }
        )
    return found


def answer(request: Json, count: Callable[[str], int]) -> Json | Refusal:
    """What the endpoint answers to one call.

    Args:
        request: the JSON-RPC call.
        count: how often a key was seen, this time included.

    Raises:
        Stalled: nothing is ever answered.
    """
    call_id = request.get("id")
    if request.get("jsonrpc") != "2.0":
        return _error(call_id, -32600, "Invalid Request")
    params = request.get("params")
    match request.get("method"):
        case "initialize":
            info = {"name": "simulated", "version": "1"}
            can = {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}, "serverInfo": info}
            return _result(call_id, can)
        case "notifications/initialized":
            return {}
        case "tools/list":
            return _result(call_id, {"tools": [{"name": "web_search", "inputSchema": _SCHEMA}]})
        case "tools/call" if isinstance(params, dict) and params.get("name") == "web_search":
            arguments = params.get("arguments")
            query = arguments.get("query") if isinstance(arguments, dict) else None
            if not isinstance(query, str) or not 0 < len(query) <= MAX_QUERY:
                return _error(call_id, -32602, f"query has to be a string of 1 to {MAX_QUERY} characters")
            return _search(call_id, query, count)
        case "tools/call":
            return _error(call_id, -32602, "Unknown tool")
        case _:
            return _error(call_id, -32601, "Method not found")


def _search(call_id: object, query: str, count: Callable[[str], int]) -> Json | Refusal:
    if "stall" in query.split():
        raise Stalled
    if "garbled" in query.split():
        return _said(call_id, "<html>")
    if found := _WORD.search(query):
        kind, name, key = found.groups()
        if kind == "error" and name in INJECTED:
            return INJECTED[name]
        if kind == "fail" and name in INJECTED and key and count(f"search:{key}") == 1:
            return INJECTED[name]
        if kind == "rpc":
            return _error(call_id, int(name) if name.lstrip("-").isdecimal() else -32000, "as the query asks")
        if kind == "tool":
            return _said(call_id, name, is_error=True)
        if kind == "inner":
            return _said(call_id, _dump({"results": [], "totalResults": 0, "query": query, "error": name}))
    results = [] if "nothing" in query.split() else pages(query)
    return _said(call_id, _dump({"results": results, "totalResults": len(results), "query": query, "error": None}))


def _dump(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _said(call_id: object, text: str, *, is_error: bool = False) -> Json:
    return _result(call_id, {"isError": is_error, "content": [{"type": "text", "text": text}]})


def _result(call_id: object, result: Json) -> Json:
    return {"id": call_id, "jsonrpc": "2.0", "result": result}


def _error(call_id: object, code: int, message: str) -> Json:
    return {"id": call_id, "jsonrpc": "2.0", "error": {"code": code, "message": message}}
