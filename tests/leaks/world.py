"""A gateway with an account from every source, a Kiro behind it, and an ear on everything it shows."""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import trio

from kirostream.accounts.discovery import Found, discover, from_environment
from kirostream.accounts.oidc import AuthHosts
from kirostream.app import Gateway, open_gateway
from kirostream.commands.account_admin import open_account_admin
from kirostream.gateway.limits import Limits
from kirostream.net.exchange import Exchange
from kirostream.net.http1 import Http1Door
from kirostream.relay.failover import FailoverSettings
from kirostream.settings import Settings, load
from kirostream.simulator.oidc import Auth
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator
from kirostream.telemetry.captures import CaptureSettings
from kirostream.telemetry.facts import Fact
from kirostream.telemetry.recorder import Recorder

from . import sinks
from .plants import MARK, SAID, SOURCES, Place, imports, mark_what_is_issued, secret, shows

KEY = secret("ks-", "key")
INTERNAL = secret("ki-", "internal")
GIVEN = secret("ks-", "given")
PROXY = f"http://person:{secret('', 'proxy')}@127.0.0.1:9"
MOST_LOOKS = 4
"""At each occasion: one costs a tenth of a second."""


@dataclass
class Ear:
    """What was shown, as soon as it is: a leak is a line of `leaks`."""

    leaks: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    facts: list[Fact] = field(default_factory=list)
    looks: Counter[str] = field(default_factory=Counter)
    looks_at_most: int = MOST_LOOKS

    def hear(self, where: str, shown: str | bytes, *marks: str) -> None:
        """Look for the marks in what was shown."""
        self.seen[where] += 1
        self.leaks += [f"{where}: {found}" for mark in marks or (MARK, SAID) if (found := shows(shown, mark))]

    def look(self, occasion: str) -> None:
        """At every object that lives now. Called by the other side too, so that there is a request under way."""
        if self.looks[occasion] >= self.looks_at_most:
            return
        self.looks[occasion] += 1
        for kind, shown in sinks.objects():
            marks = (MARK,) if kind.startswith(sinks.SPEAKING) else (MARK, SAID)
            self.hear(kind, shown, *marks)

    def listen(self, shown: Iterable[tuple[str, str | bytes]], *marks: str) -> None:
        """Hear everything that a sink gives."""
        for where, what in shown:
            self.hear(where, what, *marks)

    def heard_nothing(self) -> None:
        """There was no leak, and there was enough to hear."""
        assert not self.leaks, "\n".join(dict.fromkeys(self.leaks))
        assert self.seen


class Watching(Simulator):
    """A Kiro that has the gateway looked at while it is asked."""

    ear: Ear
    quotes = 0
    """The status with which it refuses everything, and quotes the token it was sent; 0: it does neither."""

    async def __call__(self, exchange: Exchange) -> None:
        self.ear.look(exchange.request.path)
        if not self.quotes:
            await super().__call__(exchange)
            return
        sent = re.findall(
            rb"ao[ar]\w+|eyJ\w+|ksk_\w+", await exchange.body(1 << 20) + str(exchange.request.headers).encode()
        )
        said = json.dumps(
            {
                "__type": "ValidationException",
                "error": "invalid_grant",
                "error_description": f"Bad {sent}",
                "message": f"The token {sent[-1].decode()} is not valid at http://me:{MARK}@host/.",
            }
        )
        await exchange.reply(self.quotes, ((b"content-type", b"application/json"),), said.encode())


@dataclass
class World:
    """What a test works with."""

    gateway: Gateway
    simulator: Watching
    settings: Settings
    ear: Ear
    data: Path
    found: list[Found]
    client: httpx.AsyncClient
    """A stranger, so that what is broken in ours breaks no test."""

    def brought(self, name: str, auth: Auth) -> list[tuple[bytes, bytes]]:
        """The headers of a request that brings an account of its own."""
        held = self.simulator.credential(name, auth)
        said = {
            "refresh-token": held.refresh_token.reveal(),
            "access-token": held.access_token.reveal(),
            "client-id": held.client_id,
            "client-secret": held.client_secret.reveal(),
            "profile-arn": held.profile_arn,
        }
        return [(f"x-kiro-{each}".encode(), value.encode()) for each, value in said.items() if value]

    async def ask(
        self, method: str, target: str, body: bytes = b"", *headers: tuple[bytes, bytes], key: str = KEY
    ) -> tuple[int, bytes]:
        """One exchange; whatever comes back is heard. The answer itself may say what was asked."""
        every = [(b"content-type", b"application/json"), *headers]
        if key:
            every.append((b"authorization", f"Bearer {key}".encode()))
        try:
            given = await self.client.request(method, self.gateway.url + target, headers=every, content=body)
        except httpx.RemoteProtocolError:  # the answer was cut
            return 0, b""
        head = b"\n".join(name + b": " + value for name, value in given.headers.raw)
        self.ear.hear(f"answer to {method} {target.partition('?')[0]}", head + given.content, MARK)
        return given.status_code, given.content


def at(base: Settings, url: str) -> Settings:
    """The settings with every upstream address replaced by one."""
    return replace(
        base,
        kiro=replace(base.kiro, endpoint=url),
        keeper=replace(base.keeper, hosts=AuthHosts(social=url, oidc=url, portal=url)),
    )


async def lay_out(simulator: Simulator, folder: Path, data: Path, settings: Settings) -> list[Found]:
    """An account from every source, and those that other programs' files hold."""
    found: list[Found] = []
    for name, lay in SOURCES.items():
        place = Place(folder / name.replace(" ", "-"), simulator, name)
        place.home.mkdir(parents=True)
        lay(place)
        env = {"HOME": str(place.home), **place.env, "KIROSTREAM_CONFIG_DIR": str(place.home)}
        discovery = await discover(
            ("the environment", from_environment(env)),
            ("the settings", load(env).account),
            env=env,
            home=place.home,
            data_dir=data,
            platform="linux",
        )
        assert discovery.found, discovery.explain()
        found += discovery.found
    async with open_account_admin(settings, {"HOME": str(folder)}, data) as admin:
        for name, text in imports(simulator).items():
            done = await admin.import_text(text, name)
            assert done.added, done
        return [*(await admin.discover()).found, *found]


@asynccontextmanager
async def world(tmp: Path, monkeypatch: pytest.MonkeyPatch, *, captures: str = "off") -> AsyncIterator[World]:
    """Everything, running. One account has a proxy that nobody answers at. `captures`: which exchanges are kept."""
    mark_what_is_issued(monkeypatch)
    ear = Ear()
    simulator = Watching(SimulatorSettings(rotate=True))
    simulator.ear = ear
    data = tmp / "data"
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        await nursery.start(Http1Door(simulator).serve, listeners)
        base = at(Settings(), url)
        found = await lay_out(simulator, tmp, data, base)
        settings = replace(
            base,
            server=replace(base.server, port=0, key=KEY, key_in_query=True),
            guests=replace(base.guests, key=INTERNAL),
            pool=replace(base.pool, sticky=False, accounts={str(found[-1].account.id): {"proxy": PROXY}}),
            relay=replace(
                base.relay,
                failover=FailoverSettings(attempts=3, backoff=0.001),
                captures=CaptureSettings(mode=captures, keep=2000, size=1 << 30),
            ),
        )
        async with (
            open_gateway(settings, found, data_dir=data, recorder=Recorder(ear.facts.append)) as gateway,
            httpx.AsyncClient(timeout=20) as client,
        ):
            await gateway.book.file.add("given", limits=Limits(requests=4), secret=GIVEN)
            await gateway.book.load()
            gc.collect()
            yield World(gateway, simulator, settings, ear, data, found, client)
        nursery.cancel_scope.cancel()
