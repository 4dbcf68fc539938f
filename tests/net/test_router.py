"""Routing: exact paths, named segments, and what is said about what is not there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from kirostream.errors import LocalProtocolError, MalformedRequest, MethodNotAllowed, NoSuchRoute
from kirostream.net.exchange import Exchange, Headers, HttpRequest
from kirostream.net.router import Endpoint, Router


class FakeExchange:
    """Only what a router touches."""

    started = False

    def __init__(self, method: str, path: str) -> None:
        self.request = HttpRequest(method, path, "", ())
        self.answer: tuple[int, Headers, bytes] | None = None

    async def body(self, limit: int) -> bytes:
        raise AssertionError("a router reads no body")

    async def start(self, status: int, headers: Headers) -> None:
        raise AssertionError("a router streams nothing")

    send = finish = start

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        self.answer = (status, tuple(headers), body)

    def abort(self) -> None:
        raise AssertionError("a router cuts nothing")

    async def upgrade(self) -> trio.abc.Stream:
        raise AssertionError("a router takes nothing over")


def says(name: str) -> Endpoint:
    async def endpoint(exchange: Exchange, **names: str) -> None:
        await exchange.reply(200, [], f"{name} {names}".encode())

    return endpoint


async def ask(router: Router, method: str, path: str) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
    exchange = FakeExchange(method, path)
    await router(exchange)  # type: ignore[arg-type]
    assert exchange.answer is not None
    return exchange.answer


def a_router(*routes: str) -> Router:
    router = Router()
    for route in routes:
        method, pattern = route.split(" ")
        router.add(method, pattern, says(pattern))
    return router


ROUTES = (
    "GET /",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "POST /v1/messages",
    "GET /{area}/models/new",
    "GET /a/{b}/{c}",
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/ {}"),
        ("/v1/models", "/v1/models {}"),
        ("/v1/models/gpt-4", "/v1/models/{id} {'id': 'gpt-4'}"),
        ("/v1/models/a%2Fb%20c", "/v1/models/{id} {'id': 'a/b c'}"),
        ("/v1/models/%C3%A9", "/v1/models/{id} {'id': 'é'}"),
        ("/v1/models/%7Bid%7D", "/v1/models/{id} {'id': '{id}'}"),
        ("/v1/models/new", "/v1/models/{id} {'id': 'new'}"),  # the longer literal beginning wins
        ("/v2/models/new", "/{area}/models/new {'area': 'v2'}"),
        ("/%76%31/models", "/v1/models {}"),
        ("/a/x/y", "/a/{b}/{c} {'b': 'x', 'c': 'y'}"),
    ],
)
async def test_found(path: str, expected: str) -> None:
    assert (await ask(a_router(*ROUTES), "GET", path))[2].decode() == expected


@pytest.mark.parametrize(
    "path", ["", "*", "/v1", "/v1/", "/v1/models/", "/V1/models", "//", "/a/x/y/z", "/a//y", "v1/models"]
)
async def test_not_found(path: str) -> None:
    with pytest.raises(NoSuchRoute, match="Nothing is served at"):
        await ask(a_router(*ROUTES), "GET", path)


async def test_a_dead_end_among_literals_leads_back_to_names() -> None:
    router = a_router("GET /v1/x/literal", "GET /{any}/x/other")
    assert (await ask(router, "GET", "/v1/x/other"))[2] == b"/{any}/x/other {'any': 'v1'}"


async def test_head_is_served_by_get_unless_it_has_its_own() -> None:
    router = a_router("GET /get", "GET /both", "HEAD /both")
    assert (await ask(router, "HEAD", "/get"))[2] == b"/get {}"
    with pytest.raises(MethodNotAllowed):
        await ask(a_router("POST /post"), "HEAD", "/post")


async def test_the_wrong_method_is_told_the_right_ones() -> None:
    router = a_router("GET /x", "POST /x", "POST /{y}/z")
    with pytest.raises(MethodNotAllowed, match=r"/x does not take PUT. It takes GET, HEAD, OPTIONS, POST.") as caught:
        await ask(router, "PUT", "/x")
    assert caught.value.allowed == ("GET", "HEAD", "OPTIONS", "POST")
    with pytest.raises(MethodNotAllowed) as caught:
        await ask(router, "GET", "/y/z")
    assert caught.value.allowed == ("OPTIONS", "POST")


async def test_options_lists_the_methods_unless_it_has_its_own() -> None:
    assert await ask(a_router("GET /x", "DELETE /x"), "OPTIONS", "/x") == (
        204,
        ((b"allow", b"DELETE, GET, HEAD, OPTIONS"),),
        b"",
    )
    assert (await ask(a_router("OPTIONS /x"), "OPTIONS", "/x"))[2] == b"/x {}"


async def test_a_path_that_is_not_utf8() -> None:
    with pytest.raises(MalformedRequest, match="not UTF-8"):
        await ask(a_router(*ROUTES), "GET", "/v1/models/%FF")


async def no_names(exchange: Exchange) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("pattern", "endpoint"),
    [
        ("v1", says("")),
        ("/{}", says("")),
        ("/{a-b}", says("")),
        ("/{a}/{a}", says("")),
        ("/x{a}", says("")),
        ("/taken", says("")),
        ("/by/{other}", says("")),
        ("/{name}/x", no_names),
    ],
)
def test_routes_that_cannot_be(pattern: str, endpoint: Endpoint) -> None:
    router = a_router("GET /taken", "POST /by/{name}")
    with pytest.raises(LocalProtocolError):
        router.add("GET", pattern, endpoint)


def test_what_there_is() -> None:
    router = a_router("POST /b", "GET /b", "GET /a/{x}")
    assert router.routes() == [("GET", "/a/{x}"), ("GET", "/b"), ("POST", "/b")]
    assert repr(router) == "<Router: 3 routes>"


async def test_a_path_that_leads_nowhere_is_tried_at_its_canonical_place() -> None:
    mended: list[tuple[str, str]] = []
    router = Router(lambda path: f"/v1{path}", lambda request, path: mended.append((request.path, path)))
    for pattern in ("/v1/a", "/v1/m/{id}", "/a"):
        router.add("GET", pattern, says(pattern))
    assert (await ask(router, "GET", "/m/x"))[2] == b"/v1/m/{id} {'id': 'x'}"
    assert (await ask(router, "GET", "/a"))[2] == b"/a {}"
    assert (await ask(router, "HEAD", "/m/x"))[0] == 200
    with pytest.raises(NoSuchRoute, match="served at /b"):
        await ask(router, "GET", "/b")
    with pytest.raises(MethodNotAllowed):
        await ask(router, "POST", "/m/x")
    assert mended == [("/m/x", "/v1/m/x")] * 3


async def test_a_mounted_prefix_has_everything_below_it() -> None:
    async def mounted(exchange: Exchange) -> None:
        await exchange.reply(200, (), f"mounted {exchange.request.path}".encode())

    async def known(exchange: Exchange) -> None:
        await exchange.reply(200, (), b"known")

    router = Router()
    router.add("GET", "/admin/known", known)
    router.mount("/admin", mounted)
    for path in ("/admin", "/admin/", "/admin/x/y", "/admin/%FF"):
        assert (await ask(router, "DELETE", path))[2] == f"mounted {path}".encode()
    assert (await ask(router, "GET", "/admin/known"))[2] == b"known"
    for path in ("/administration", "/"):
        with pytest.raises(NoSuchRoute):
            await ask(router, "GET", path)
