"""Pages of a request's items."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kirostream.errors import MalformedRequest
from kirostream.gateway.responses_items import page

RESPONSE = f"resp_{'a' * 32}"
ITEMS = [json.dumps({"role": "user", "content": str(n)}).encode() for n in range(5)]


def listed(items: list[bytes], **query: str) -> dict[str, Any]:
    return page(items, RESPONSE, {name: [value] for name, value in query.items()})


def numbers(found: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in found["data"]]


def test_the_newest_come_first() -> None:
    found = listed(ITEMS)
    assert numbers(found) == ["4", "3", "2", "1", "0"]
    assert (found["first_id"], found["last_id"]) == (found["data"][0]["id"], found["data"][-1]["id"])
    assert found["has_more"] is False
    assert numbers(listed(ITEMS, order="asc")) == ["0", "1", "2", "3", "4"]


def test_page_by_page() -> None:
    seen: list[str] = []
    after = ""
    while True:
        found = listed(ITEMS, limit="2", after=after)
        seen += numbers(found)
        after = found["last_id"]
        if not found["has_more"]:
            break
    assert seen == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(("limit", "shown"), [("0", 1), ("-3", 1), ("1000", 100)])
def test_a_limit_has_limits(limit: str, shown: int) -> None:
    assert len(listed(ITEMS * 40, limit=limit)["data"]) == shown


def test_nothing() -> None:
    assert listed([]) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_items_as_they_are_shown() -> None:
    items: list[dict[str, Any]] = [
        {"role": "assistant", "content": "x"},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "y"},
    ]
    found = listed([json.dumps(item).encode() for item in items], order="asc")["data"]
    assert found[0]["content"] == [{"type": "output_text", "text": "x"}]
    assert [item["type"] for item in found] == ["message", "function_call", "function_call_output"]
    assert found[1]["id"] == "fc_1"
    assert len({item["id"] for item in found}) == 3


@pytest.mark.parametrize("query", [{"after": "msg_unknown"}, {"order": "up"}, {"limit": "few"}])
def test_what_is_no_page(query: dict[str, str]) -> None:
    with pytest.raises(MalformedRequest) as caught:
        listed(ITEMS, **query)
    assert caught.value.param == f"$.{next(iter(query))}"
