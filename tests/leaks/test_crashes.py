"""A bug in any room, that quotes what it was working on: neither the log nor a client sees the quotation."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket

from kirostream import cli
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.own import OwnAccount
from kirostream.dialects.anthropic.response import Writer as AnthropicWriter
from kirostream.dialects.kiro.response import Reader
from kirostream.gateway import responses, responses_ws, stream_ws
from kirostream.gateway.callers import Callers
from kirostream.gateway.media import Media
from kirostream.gateway.responses_input import Inputs
from kirostream.gateway.responses_store import ResponseStore
from kirostream.net.client import HttpClient
from kirostream.net.router import Router
from kirostream.net.wire import Wire
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.relay import Relay
from kirostream.stores.sealed import Envelope
from kirostream.telemetry.facts import Faulted

from . import sinks
from .plants import MARK, SAID, shows
from .test_gateway import PATHS, PROMPT, body
from .world import KEY, World, world

QUOTING = f"{MARK * 3} {SAID * 3}"
BUGS: dict[str, Callable[[], Exception]] = {
    "a key": lambda: KeyError(QUOTING),
    "a whole text": lambda: UnicodeDecodeError("utf-8", QUOTING.encode(), 0, 1, "invalid start byte"),
    "a library's": lambda: TypeError(f"expected a URL, got {QUOTING!r}"),
    "a group": lambda: ExceptionGroup(QUOTING, [RuntimeError(QUOTING)]),
}
ROOMS: list[tuple[type, str]] = [
    (AnthropicWriter, "write"),
    (Reader, "feed"),
    (KiroProvider, "prepare"),
    (KiroProvider, "classify"),
    (Pool, "lease"),
    (TokenKeeper, "token"),
    (Relay, "begin"),
    (Relay, "find"),
    (Callers, "check"),
    (Media, "settle"),
    (Inputs, "read"),
    (ResponseStore, "save"),
    (HttpClient, "stream"),
    (Wire, "receive"),
    (Router, "__call__"),
    (Envelope, "seal"),
]
"""A way of each room that a turn takes."""
SAVES: list[tuple[type, str]] = [(OwnAccount, "save"), (IdeFile, "save"), (CliDatabase, "save")]
"""Broken together and first: afterwards all tokens are fresh."""
SOCKETS: list[tuple[type, str]] = [(stream_ws._Session, "serve"), (responses_ws._Session, "serve")]
"""What serves a message of a WebSocket."""


async def walk(there: World) -> None:
    """A turn in each language, whole, streamed and failing; it may fail, it may not tell."""
    await there.ask("GET", "/v1/models/auto")
    for dialect, path in PATHS.items():
        for said in (f"[[think:hm]]{PROMPT}", f"[[error:CONTEXT]]{PROMPT}"):
            for stream in (False, True):
                await there.ask("POST", path, body(dialect, said, stream))


async def talk(there: World, path: str) -> None:
    """A message that a bug ends the connection at."""
    parts = urlsplit(there.gateway.url)
    keys = [(b"authorization", f"Bearer {KEY}".encode())]
    async with (
        await trio.open_tcp_stream(str(parts.hostname), parts.port or 0) as stream,
        trio.open_nursery() as nursery,
    ):
        socket = await trio_websocket.wrap_client_stream(nursery, stream, "here", path, extra_headers=keys)
        await socket.send_message("{}")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            there.ear.hear(f"message on {path}", await socket.get_message())
        nursery.cancel_scope.cancel()
    there.ear.hear(f"close of {path}", repr(closed.value))


def breaking(place: str, bug: Callable[[], Exception], hit: Counter[str]) -> Callable[..., NoReturn]:
    def broken(*args: Any, **kwargs: Any) -> NoReturn:
        hit[place] += 1
        raise bug()

    return broken


@pytest.mark.timeout(200)
async def test_a_bug_in_any_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hit: Counter[str] = Counter()
    with trio.fail_after(180):
        async with world(tmp_path, monkeypatch) as there:
            there.ear.looks_at_most = 1
            bugs = itertools.cycle(BUGS.values())
            for places in (SAVES, *([place] for place in ROOMS)):
                with monkeypatch.context() as patch:
                    for kind, name in places:
                        patch.setattr(kind, name, breaking(f"{kind.__name__}.{name}", next(bugs), hit))
                    await walk(there)
            with monkeypatch.context() as patch:
                for kind, name in SOCKETS:
                    patch.setattr(kind, name, breaking(f"{kind.__module__}.{name}", next(bugs), hit))
                for path in (stream_ws.PATH, responses.PATH):
                    await talk(there, path)
            status, said = await there.ask("POST", PATHS["anthropic"], body("anthropic", "[[say:fine]]", False))
            assert status == 200, said  # the gateway has outlived them
    assert {f"{kind.__module__}.{name}" for kind, name in SOCKETS} <= set(hit)
    assert {f"{kind.__name__}.{name}" for kind, name in (*SAVES, *ROOMS)} - set(hit) == set()
    there.ear.listen(sinks.log_lines(there.ear.facts))
    there.ear.heard_nothing()
    faults = {fact.where.partition(":")[0] for fact in there.ear.facts if isinstance(fact, Faulted)}
    assert {"door", "relay"} <= faults
    assert {"KeyError", "UnicodeDecodeError"} <= {fact.error for fact in there.ear.facts if isinstance(fact, Faulted)}


@pytest.mark.parametrize("bug", BUGS)
def test_a_command_that_crashes(bug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*args: Any, **kwargs: Any) -> NoReturn:
        raise BUGS[bug]()

    monkeypatch.setattr("kirostream.settings.load", broken)
    monkeypatch.setattr(sys, "argv", ["kirostream", "accounts", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == cli.BUG
    assert "This is a bug" in said
    assert "test_crashes.py" in said
    assert not shows(said, MARK)
    assert not shows(said, SAID)
