"""The items of a request, in pages: ``GET /v1/responses/{id}/input_items`` (client-apis.md section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kirostream.errors import MalformedRequest
from kirostream.turn.request import RawJson

PAGE: Final = 20
MOST: Final = 100
"""Items of one page: where the client does not say, and at most."""


def page(items: Sequence[RawJson], response: str, query: Mapping[str, list[str]]) -> dict[str, object]:
    """One page.

    Args:
        items: all of them, in the order of the request.
        response: the id of the response, of which ids are made for items without one.
        query: ``order`` (``desc`` is usual), ``limit``, and ``after``, the last item of the page before.

    Raises:
        MalformedRequest: there is no such item, or no such order.
    """
    listed = [_listed(item, response, i) for i, item in enumerate(items)]
    match query.get("order", ["desc"])[-1]:
        case "desc":
            listed.reverse()
        case "asc":
            pass
        case order:
            raise MalformedRequest(
                f"order is {order!r}; it takes asc or desc.", param="$.order", reason="invalid_value"
            )
    if after := query.get("after", [""])[-1]:
        names = [item["id"] for item in listed]
        if after not in names:
            raise MalformedRequest(
                f"Item with id {after!r} not found in the input of {response}.", param="$.after", reason="invalid_value"
            )
        listed = listed[names.index(after) + 1 :]
    limit = min(max(number(query, "limit", PAGE), 1), MOST)
    shown = listed[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(listed) > limit,
    }


def number(query: Mapping[str, list[str]], name: str, usual: int) -> int:
    """A whole number of the query.

    Raises:
        MalformedRequest: it is none.
    """
    said = query.get(name, [""])[-1]
    if not said:
        return usual
    try:
        return int(said)
    except ValueError:
        raise MalformedRequest(f"{name} has to be a whole number.", param=f"$.{name}", reason="invalid_value") from None


_PREFIXES: Final = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def _listed(item: RawJson, response: str, index: int) -> dict[str, object]:
    """An item as a list shows it: with a type and an id."""
    members = msgspec.json.decode(item, type=dict[str, object])
    kind = str(members.get("type") or "message")
    turn = response.removeprefix("resp_")
    given = members.get("id") or f"{_PREFIXES.get(kind, 'item')}_{turn}i{index:04x}"
    content = members.get("content")
    if kind == "message" and isinstance(content, str):
        part_kind = "output_text" if members.get("role") == "assistant" else "input_text"
        members["content"] = [{"type": part_kind, "text": content}]
    return {**members, "type": kind, "id": given}
