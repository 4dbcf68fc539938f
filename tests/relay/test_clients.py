"""Connections of the accounts."""

from __future__ import annotations

import pytest

from helpers.pools import named
from kirostream.errors import LocalProtocolError, SettingsError
from kirostream.net.client import ClientSettings
from kirostream.relay.clients import Clients

PROXIES = {"a": "http://proxy-a:1", "d": "direct", "x": "gopher://no"}


async def test_each_account_has_its_own_by_its_own_proxy() -> None:
    clients = Clients(
        ClientSettings(proxy="http://everyones:1", connect_deadline=3.0), lambda one: PROXIES.get(one.id, "")
    )
    one, other, direct = (clients.of(named(name)) for name in "abd")
    assert clients.of(named("a")) is one
    assert len({id(one), id(other), id(direct)}) == 3
    assert [client._settings.proxy for client in (one, other, direct)] == ["http://proxy-a:1", "http://everyones:1", ""]
    assert direct._settings.connect_deadline == 3.0
    with pytest.raises(SettingsError):
        clients.of(named("x"))
    await clients.aclose()
    with pytest.raises(LocalProtocolError, match="closed"):
        await one.fetch("GET", "http://127.0.0.1:1/", [])
