"""A gateway with the simulator behind it, its admin room, and an operator who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import trio

from helpers.certs import certificate, trusting
from kirostream.admin.settings import AdminSettings
from kirostream.app import Gateway, open_gateway
from kirostream.net.listen import ListenSettings
from kirostream.settings import Settings, Sources
from kirostream.simulator.settings import SimulatorSettings
from kirostream.telemetry.facts import Fact
from kirostream.telemetry.recorder import Recorder

KEY = "ks-operators-key"


@dataclass
class Place:
    """The gateway, and clients of it."""

    gateway: Gateway
    client: httpx.AsyncClient
    facts: list[Fact]
    data: Path

    async def ask(self, method: str, path: str, json: Any = None, *, key: str = KEY, **more: Any) -> httpx.Response:
        """One request with a key."""
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})} if key else more.pop("headers", {})
        return await self.client.request(method, path, json=json, headers=headers, **more)

    async def get(self, path: str) -> Any:
        """What a GET gives."""
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def say(self, text: str, *, stream: bool = False) -> httpx.Response:
        """A turn."""
        body = {"model": "claude-sonnet-4.5", "messages": [{"role": "user", "content": text}], "stream": stream}
        return await self.ask("POST", "/v1/chat/completions", body)


@asynccontextmanager
async def place(
    tmp: Path, *, tls: bool = False, admin: AdminSettings | None = None, **demo: Any
) -> AsyncIterator[Place]:
    """A demo that serves until the block ends.

    Args:
        tls: ask through the second door, behind TLS.
        demo: settings of the simulator.
    """
    base = Settings()
    listen: tuple[ListenSettings, ...] = ()
    if tls:
        certfile, keyfile = certificate()
        listen = (ListenSettings(port=0, certfile=certfile, keyfile=keyfile),)
    settings = replace(
        base,
        server=replace(base.server, port=0, key=KEY),
        admin=admin or AdminSettings(),
        simulator=SimulatorSettings(**demo),
        listen=listen,
    )
    facts: list[Fact] = []
    data = tmp / "data"
    with trio.fail_after(50):
        sources = Sources({"KIROSTREAM_CONFIG_DIR": str(tmp / "config")}, None, {})
        async with open_gateway(
            settings, None, data_dir=data, recorder=Recorder(facts.append), sources=sources
        ) as gateway:
            if gateway.simulator is not None:
                gateway.simulator.sign_ins.interval = 0.05
            url = gateway.more_urls[0] if tls else gateway.url
            async with httpx.AsyncClient(base_url=url, verify=trusting(), timeout=30) as client:
                yield Place(gateway, client, facts, data)
