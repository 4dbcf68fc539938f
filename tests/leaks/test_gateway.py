"""A secret planted in every source, and a prompt, are looked for in everything that a running gateway shows."""

from __future__ import annotations

import base64
import contextlib
import gc
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket

from kirostream.dialects import DIALECTS
from kirostream.net.router import Router
from kirostream.simulator.oidc import Auth
from kirostream.telemetry.facts import AttemptFailed, ExchangeFinished, TokenRefreshed, TurnFinished

from . import sinks
from .plants import MARK, SAID, SOURCES, secret, shows
from .world import GIVEN, INTERNAL, KEY, World, world

PROMPT = f"{SAID * 4} and more"
PATHS = {name: dialect.path for name, dialect in DIALECTS.items() if dialect.path}
ASKED: dict[str, Callable[[str], dict[str, object]]] = {
    "anthropic": lambda said: {"messages": [{"role": "user", "content": said}], "max_tokens": 99},
    "openai_chat": lambda said: {"messages": [{"role": "user", "content": said}]},
    "openai_responses": lambda said: {"input": said},
}
"""A request in each language."""
FATES = ("", "[[error:VALIDATION]]", "[[error:CONTEXT]]", "[[cut:1]]", "[[fault:crc]]", "[[picky]]", "[[error:ACCESS]]")
"""What the upstream makes of it."""


def body(dialect: str, said: str, stream: bool) -> bytes:
    return json.dumps({"model": "claude-sonnet-4.5", "stream": stream, **ASKED[dialect](said)}).encode()


def test_every_language_is_asked() -> None:
    assert set(ASKED) == set(PATHS)


def test_a_mark_is_found_in_all_its_forms() -> None:
    token = secret("aor", "x")
    forms = [token, token.upper(), token[30:55], token.encode().hex(), repr({"a": [token]}), f"Bearer {token}"]
    forms += [base64.b64encode(b"x" * at + token.encode()).decode() for at in range(3)]
    assert [form for form in forms if not shows(form)] == []
    assert not shows("nothing")


async def ask_everything(there: World) -> None:
    """Each language, whole and streamed, well and badly; every route; keys and accounts wherever they may stand."""
    for dialect, path in PATHS.items():
        for fate in FATES:
            for stream in (False, True):
                await there.ask("POST", path, body(dialect, f"{fate} {PROMPT}", stream))
        auths: tuple[Auth, ...] = ("social", "idc")
        for auth, fate in itertools.product(auths, ("", "[[error:ACCESS]]")):
            brought = there.brought(f"guest of {dialect}", auth)
            status, _ = await there.ask("POST", path, body(dialect, f"{fate} {PROMPT}", False), *brought, key=INTERNAL)
            assert (status == 200) is (not fate)
        for name in (each for each, _ in brought if each != b"x-kiro-client-id"):  # which is public
            spoilt = [(each, secret("bad").encode() if each == name else value) for each, value in brought]
            await there.ask("POST", path, body(dialect, PROMPT, False), *spoilt, key=INTERNAL)
        status, _ = await there.ask("POST", path, body(dialect, PROMPT, False), *brought)
        assert status == 403
        for bad in (f'{{"{PROMPT}', f'["{PROMPT}"]', f'{{"model": ["{MARK}"], "input": 1, "messages": "{SAID}"}}'):
            await there.ask("POST", path, bad.replace(MARK, SAID).encode())
        status, _ = await there.ask("POST", path, body(dialect, PROMPT, False), key=secret("wrong"))
        assert status == 401
        given = [(await there.ask("POST", path, body(dialect, PROMPT, False), key=GIVEN))[0] for _ in range(5)]
        assert given[-1] == 429
        status, _ = await there.ask("POST", f"{path}?key={KEY}", body(dialect, PROMPT, False), key="")
        assert status == 200
    for key in ("x-api-key", "api-key"):
        await there.ask("GET", "/v1/models", b"", (key.encode(), KEY.encode()), key="")
    routers = [each for each in gc.get_objects() if isinstance(each, Router)]
    routes = {route for router in routers for route in router.routes()}
    assert ("GET", "/v1/models") in routes
    for pattern in sorted(pattern for method, pattern in routes if method == "GET"):
        for key in (KEY, secret("wrong")):
            await there.ask("GET", f"{pattern.replace('{id}', 'none')}?key={key}", key="")
    await there.ask("GET", f"/nothing/here?key={KEY}")


async def operate(there: World) -> None:
    """The admin API: every route, of an account and a turn that are there and of none, with secrets in what is sent."""
    _, document = await there.ask("GET", "/admin/api/openapi.json")
    _, turns = await there.ask("GET", "/admin/api/turns")
    _, accounts = await there.ask("GET", "/admin/api/accounts")
    real = {"turns": json.loads(turns)["turns"][0]["id"], "accounts": json.loads(accounts)["accounts"][0]["id"]}
    given = [
        {},
        {"password": KEY},
        {"password": secret("wrong")},
        {"kind": "api_key", "value": secret("ksk_", "added")},
    ]
    given += [{"text": f"REFRESH_TOKEN={secret('aor', 'imported')}"}, {"text": secret("what"), "kind": MARK}]
    for path, methods in json.loads(document)["paths"].items():
        for method in sorted(methods, key=("get", "post", "put", "patch", "delete").index):
            if method == "get":
                for name in ("none", real.get(path.split("/")[3] if path.count("/") > 2 else "", "none")):
                    with trio.move_on_after(1 if path.endswith("/live") else 10):
                        await there.ask("GET", f"{path.replace('{id}', name)}?key={secret('asked')}")
                        await there.ask("GET", path.replace("{id}", name))
                continue
            for body in given:
                await there.ask(method.upper(), path.replace("{id}", "none"), json.dumps(body).encode())
    for verb in ("test", "refresh", "clear", "disable", "enable"):
        status, _ = await there.ask("POST", f"/admin/api/accounts/{real['accounts']}/{verb}")
        assert status in (200, 409, 502), verb
    await there.ask("GET", "/admin/api/status", key=secret("wrong"))
    await there.ask("GET", "/admin/api/status", b"", (b"cookie", f"kirostream={MARK}".encode()), key="")


async def speak(there: World, path: str) -> None:
    """Over a WebSocket: nonsense and a question. What closes it says why, and nothing else."""
    url = there.gateway.url.replace("http", "ws") + path
    offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with trio_websocket.open_websocket_url(url, subprotocols=offered) as socket:
        there.ear.hear(f"subprotocol of {path}", socket.subprotocol or "", MARK)
        asked = json.loads(body("openai_responses", PROMPT, True))
        for message in (f'{{"{PROMPT}', {"type": "response.create", **asked}, {"op": "start", "request": asked}):
            await socket.send_message(message if isinstance(message, str) else json.dumps(message))
        with trio.move_on_after(1):
            while True:
                there.ear.hear(f"message on {path}", await socket.get_message(), MARK)
    assert socket.closed is not None
    there.ear.hear(f"close of {path}", socket.closed.reason or "")
    upgrade = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
    for wrong in (secret("wrong"), "none"):
        offer = (b"sec-websocket-protocol", f"realtime, openai-insecure-api-key.{wrong}".encode())
        status, _ = await there.ask("GET", path, b"", *upgrade, offer, key="")
        assert status == 401


SPOILT = (
    f"GET / HTTP/1.1\r\nauthorization {MARK}\r\n\r\n",
    f"GET / HTTP/1.1\r\nauthorization: Bearer {MARK}\x01\r\n\r\n",
    f"{MARK} /?key={MARK} HTTP/1.1\r\ncontent-length: {MARK}\r\n\r\n",
    f"GET /?key={MARK} {MARK} HTTP/1.1\r\n\r\n",
    f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {MARK}\r\n\r\n{SAID}",
    f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-encoding: {MARK}\r\ncontent-length: 10\r\n\r\n{SAID}",
    f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{SAID}",
    f"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {MARK * 9000}\r\n\r\n",
)
"""What is no HTTP, or hardly."""


async def spoil(there: World) -> None:
    """Requests that are none are answered without being quoted."""
    parts = urlsplit(there.gateway.url)
    for said in SPOILT:
        async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 0) as stream:
            with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(1):
                await stream.send_all(said.encode())
                await stream.send_eof()
                answer = b"".join([part async for part in stream])
                there.ear.hear(f"answer to {said[:20]!r}", answer)
                assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer


def hear_files(there: World) -> None:
    """What is on disk holds no secret, and conversations only where they are meant to be."""
    kept = (*(f"table {name}" for name in sinks.KEPT_AS_SAID), "file kirostream.db")
    heard = set()
    for where, held in sinks.files(there.data):
        there.ear.hear(where, held, *((MARK,) if where.startswith(kept) else (MARK, SAID)))
        heard |= {where} | ({"a conversation"} if shows(held, SAID) else set())
    assert {
        "a conversation",
        "table responses",
        "table pool_accounts",
        "table usage",
        "table usage_days",
        "file keys.json",
    } <= heard
    assert any(where.startswith("file sealed/") for where in heard)
    assert any(where.startswith("file logs/") for where in heard)


@pytest.mark.timeout(200)
async def test_nothing_that_is_planted_is_ever_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with trio.fail_after(180):
        async with world(tmp_path, monkeypatch) as there:
            assert len(there.found) >= len(SOURCES) + 5
            await ask_everything(there)
            await spoil(there)
            for path in ("/v1/stream", "/v1/responses"):
                await speak(there, path)
            there.ear.listen(sinks.captures(there.data / "captures"))  # which the operator deletes
            assert there.ear.seen["capture: form"] > 5
            await operate(there)
            there.ear.look("the end")
            snapshots = (there.gateway.relay, there.gateway.pool, there.gateway.door)
            there.ear.listen((f"snapshot of {each!r}", repr(each.snapshot())) for each in snapshots)
            hear_files(there)
    hear_files(there)
    there.ear.listen(sinks.log_lines(there.ear.facts))
    there.ear.listen(sinks.traces(there.ear.facts))
    assert there.ear.seen["span attempt"] > 10
    there.ear.hear("the standard log", caplog.text)
    there.ear.heard_nothing()
    # The plants were there to be found: tokens were refreshed and sent, and what was asked went through.
    said = {type(fact) for fact in there.ear.facts}
    assert {TokenRefreshed, TurnFinished, AttemptFailed, ExchangeFinished} <= said
    refreshed = {fact.account for fact in there.ear.facts if isinstance(fact, TokenRefreshed)}
    assert len(refreshed) >= 5
    rooms = {where.split(".")[1] for where in there.ear.seen if where.startswith("kirostream.")}
    assert {"accounts", "providers", "relay", "gateway", "admin", "net", "stores", "telemetry", "settings"} <= rooms
    kinds = {where.rpartition(".")[2] for where in there.ear.seen if where.startswith("kirostream.")}
    holders = {
        "Secret",
        "Credential",
        "Token",
        "HttpRequest",
        "UpstreamRequest",
        "AuthRequest",
        "LiveTurn",
        "Terms",
        "_Guest",
    }
    assert holders <= kinds, holders - kinds


SAID_IN = ("capture: exchange", "captures, exported")
"""Debug captures of exchanges hold what was said: that is what they are for."""


@pytest.mark.timeout(200)
async def test_debug_captures_hold_what_was_said_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(180):
        async with world(tmp_path, monkeypatch, captures="all") as there:
            there.ear.looks_at_most = 2
            await ask_everything(there)
            await speak(there, "/v1/stream")
            there.ear.look("the end")
            there.ear.looks_at_most = 0  # what is said now holds secrets, and objects that are what was said show it
            for dialect, path in PATHS.items():
                for said in (f"my password: {secret('')}", f"I have {secret('aor')} and {KEY}", f"{GIVEN} {INTERNAL}"):
                    sent = body(dialect, f"[[say:{said}]]", True)
                    await there.client.post(there.gateway.url + path, content=sent, headers={"x-api-key": KEY})
        for where, held in sinks.captures(there.data / "captures"):
            there.ear.hear(where, held, *((MARK,) if where in SAID_IN else (MARK, SAID)))
    there.ear.heard_nothing()
    assert there.ear.seen["capture: exchange"] > 50
    assert there.ear.seen["capture: form"] > 5


@pytest.mark.timeout(200)
@pytest.mark.parametrize("captures", ["off", "all"])
@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_an_upstream_that_quotes_the_token_it_was_sent(
    status: int, captures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(180):
        async with world(tmp_path, monkeypatch, captures=captures) as there:
            there.ear.looks_at_most = 2
            there.simulator.quotes = status
            for dialect, path in PATHS.items():
                answered, answer = await there.ask("POST", path, body(dialect, "hi", False))
                assert answered >= 400
            there.ear.look("the end")
    there.ear.listen(sinks.log_lines(there.ear.facts))
    there.ear.listen(sinks.captures(there.data / "captures"), MARK)
    there.ear.heard_nothing()
    assert "****" in repr(there.ear.facts) + answer.decode(), "it was quoted"
