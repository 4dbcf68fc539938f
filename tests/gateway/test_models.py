"""The list of models, in either shape."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helpers.exchange import FakeExchange
from kirostream.errors import KeyRejected, MalformedRequest, UnknownModel
from kirostream.gateway.callers import Callers
from kirostream.gateway.models import OTHERS, ModelsHandler, anthropic_model, anthropic_page
from kirostream.gateway.routes import refuse
from kirostream.net.exchange import HttpRequest
from kirostream.relay.relay import Relay
from kirostream.relay.resolver import no_such_model, resolve
from kirostream.turn.model import Model

KEY = (b"authorization", b"Bearer k")
ANTHROPIC = (b"anthropic-version", b"2023-06-01")
MODELS = [Model("auto"), Model("claude-sonnet-4.5", "Sonnet", window=5, efforts=("low",)), Model("glm-5", images=False)]


async def offered(scope: str) -> list[Model]:
    return MODELS


async def find(name: str, scope: str) -> Model:
    found = resolve(name, MODELS)
    if not found.listed:
        raise UnknownModel(no_such_model(name, MODELS))
    return found.model


HANDLER = ModelsHandler(cast(Relay, SimpleNamespace(offered=offered, find=find)), Callers(["k"]))


async def listed(*headers: tuple[bytes, bytes], query: str = "") -> dict[str, Any]:
    exchange = FakeExchange("GET", "/v1/models", headers=(KEY, *headers), query=query)
    await HANDLER.list(exchange)
    assert exchange.status == 200
    body: dict[str, Any] = json.loads(exchange.sent)
    return body


async def test_openai_s_list() -> None:
    body = await listed()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["auto", "claude-sonnet-4.5", "glm-5"]
    assert {"object", "created", "owned_by", "context_length", "max_output_tokens"} <= set(body["data"][1])
    assert body["data"][1]["context_length"] == 5


async def test_anthropic_s_list() -> None:
    body = await listed(ANTHROPIC)
    assert [model["id"] for model in body["data"]] == ["auto", "claude-sonnet-4.5", "glm-5"]
    assert (body["has_more"], body["first_id"], body["last_id"]) == (False, "auto", "glm-5")
    model = body["data"][1]
    assert (model["type"], model["display_name"], model["max_input_tokens"]) == ("model", "Sonnet", 5)
    assert model["capabilities"]["thinking"]["supported"] is True
    assert body["data"][2]["capabilities"]["image_input"] == {"supported": False}
    assert body["data"][2]["capabilities"]["thinking"]["supported"] is False


async def test_claude_code_s_menu() -> None:
    body = await listed(ANTHROPIC, (b"user-agent", b"claude-code/2.1.330"), query="limit=1000")
    ids = [model["id"] for model in body["data"]]
    assert ids == ["claude-kiro-auto", "claude-sonnet-4.5", "claude-kiro-glm-5"]
    assert [resolve(name, MODELS).model.id for name in ids] == [model.id for model in MODELS]
    assert OTHERS == "claude-kiro-"


MANY = [Model(name) for name in "abcdef"]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("", "abcdef", False),
        ("limit=2", "ab", True),
        ("limit=6", "abcdef", False),
        ("limit=2&after_id=b", "cd", True),
        ("limit=2&after_id=d", "ef", False),
        ("after_id=f", "", False),
        ("after_id=zz", "", False),
        ("limit=2&before_id=e", "cd", True),
        ("limit=2&before_id=c", "ab", False),
        ("before_id=a", "", False),
        ("before_id=zz", "", False),
        ("after_id=a&before_id=e&limit=2", "bc", True),
        ("lifecycle[]=active", "abcdef", False),
    ],
)
def test_pages(query: str, ids: str, more: bool) -> None:
    page = anthropic_page(MANY, query)
    assert "".join(model["id"] for model in page["data"]) == ids
    assert page["has_more"] is more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


def test_pages_come_to_the_whole() -> None:
    found: list[str] = []
    query = "limit=4"
    while True:
        page = anthropic_page(MANY, query)
        found += [model["id"] for model in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=4&after_id={page['last_id']}"
    assert found == list("abcdef")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "two", "99999999999999", "1.5", "٣"])
def test_a_limit_that_is_none(limit: str) -> None:
    with pytest.raises(MalformedRequest, match="1 to 1000"):
        anthropic_page(MANY, f"limit={limit}")


@pytest.mark.parametrize("name", ["claude-sonnet-4.5", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"])
async def test_one_model_by_any_name(name: str) -> None:
    for headers, key in (((KEY,), "object"), ((KEY, ANTHROPIC), "type")):
        exchange = FakeExchange("GET", f"/v1/models/{name}", headers=headers)
        await HANDLER.one(exchange, name)
        body = json.loads(exchange.sent)
        assert (body["id"], body[key]) == ("claude-sonnet-4.5", "model")


@pytest.mark.parametrize(
    ("headers", "kind"), [((KEY,), "invalid_request_error"), ((KEY, ANTHROPIC), "not_found_error")]
)
async def test_no_such_model(headers: tuple[tuple[bytes, bytes], ...], kind: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        await HANDLER.one(FakeExchange("GET", "/v1/models/claude-sonet-4.5", headers=headers), "claude-sonet-4.5")
    status, _, body = refuse(caught.value, HttpRequest("GET", "/v1/models/claude-sonet-4.5", "", headers))
    error = json.loads(body)["error"]
    assert (status, error["type"]) == (404, kind)
    assert "Did you mean 'claude-sonnet-4.5'?" in error["message"]


async def test_a_key_is_needed() -> None:
    with pytest.raises(KeyRejected):
        await HANDLER.list(FakeExchange("GET", "/v1/models"))


def test_every_capability_is_said() -> None:
    capabilities = anthropic_model(Model("m"))["capabilities"]
    assert all(isinstance(each, dict) and "supported" in each for each in capabilities.values())
