"""Browsers: preflights, who may read an answer, and nothing at all while it is off."""

from __future__ import annotations

import pytest

from helpers.exchange import FakeExchange
from kirostream.errors import NoSuchRoute
from kirostream.gateway.cors import Cors
from kirostream.gateway.routes import refuse
from kirostream.net.exchange import Exchange

PAGE = (b"origin", b"https://page.example")
PREFLIGHT = [
    PAGE,
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"x-api-key,content-type"),
    (b"access-control-request-private-network", b"true"),
]


async def hello(exchange: Exchange) -> None:
    await exchange.reply(200, ((b"content-type", b"text/plain"),), b"hello")


async def test_off_is_not_there() -> None:
    assert Cors("").around(hello) is hello
    assert Cors(" , ").refusing(refuse) is refuse


@pytest.mark.parametrize("origins", ["*", "https://other.example, https://PAGE.example"])
async def test_a_page_may_ask_and_read(origins: str) -> None:
    handler = Cors(origins).around(hello)
    preflight = FakeExchange("OPTIONS", "/v1/messages", headers=PREFLIGHT)
    await handler(preflight)
    assert preflight.status == 204
    assert preflight.headers[b"access-control-allow-origin"] == b"https://page.example"
    assert preflight.headers[b"access-control-allow-headers"] == b"x-api-key,content-type"
    assert b"POST" in preflight.headers[b"access-control-allow-methods"]
    assert preflight.headers[b"access-control-allow-private-network"] == b"true"
    call = FakeExchange("POST", "/v1/messages", headers=[PAGE])
    await handler(call)
    assert (call.status, call.sent) == (200, b"hello")
    assert call.headers[b"access-control-allow-origin"] == b"https://page.example"
    assert b"request-id" in call.headers[b"access-control-expose-headers"]
    assert call.headers[b"vary"] == b"origin"


@pytest.mark.parametrize("headers", [[], [(b"origin", b"https://evil.example")]])
async def test_others_get_no_mark(headers: list[tuple[bytes, bytes]]) -> None:
    handler = Cors("https://page.example").around(hello)
    call = FakeExchange("POST", "/v1/messages", headers=headers)
    await handler(call)
    assert call.status == 200
    assert b"access-control-allow-origin" not in call.headers


async def test_options_without_a_preflight_is_the_handlers() -> None:
    call = FakeExchange("OPTIONS", "/v1/messages", headers=[PAGE])
    await Cors("*").around(hello)(call)
    assert call.sent == b"hello"


def test_a_page_may_read_refusals_too() -> None:
    call = FakeExchange("POST", "/nothing", headers=[PAGE])
    status, headers, _ = Cors("*").refusing(refuse)(NoSuchRoute("no"), call.request)
    assert status == 404
    assert dict(headers)[b"access-control-allow-origin"] == b"https://page.example"
    assert Cors("*").refusing(refuse)(NoSuchRoute("no"), None)[0] == 404
