"""How long an account that came with a request stays: its connections, its token, and who has to go."""

from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing

from helpers.staged import FakeProvider
from helpers.tokens import NOW, TokenService, unix_clock
from kirostream.accounts.account import Account
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.sources.headers import account_of, read_headers
from kirostream.errors import MalformedRequest, NoAccount
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.clients import Clients
from kirostream.relay.guests import Guests, GuestSettings
from kirostream.telemetry.recorder import Recorder


class Wire:
    """The connections of a guest, which lead to a token service."""

    def __init__(self, service: TokenService) -> None:
        self._service = service
        self.closed = False

    async def fetch(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        assert not self.closed
        status, answer = await self._service.post(method, url, headers, body)
        return status, (), answer

    async def aclose(self) -> None:
        self.closed = True


class Wires(Clients):
    """Counts what is open."""

    def __init__(self, service: TokenService) -> None:
        super().__init__(ClientSettings())
        self._service = service
        self.made: list[Wire] = []

    def of(self, account: Account) -> HttpClient:
        if account.id not in self._clients:
            self.made.append(Wire(self._service))
            self._clients[account.id] = cast(HttpClient, self.made[-1])
        return self._clients[account.id]


class Hotel:
    """Guests, and what they stand on."""

    def __init__(self, nursery: trio.Nursery, **settings: float) -> None:
        self.service = TokenService(lifetime=100)
        self.wires = Wires(self.service)
        self.keeper = TokenKeeper(no_post, KeeperSettings(sweep=0.0), time_source=unix_clock())
        recorder = Recorder(lambda fact: None)

        def catalogues(pool: Pool, keeper: TokenKeeper) -> Catalogues:
            return Catalogues(nursery, FakeProvider(), pool, keeper, self.wires.of, recorder)

        self.guests = Guests(
            self.keeper,
            self.wires,
            catalogues,
            PoolSettings(selected="mine"),
            GuestSettings(key="k", **settings),  # type: ignore[arg-type]
        )

    async def token(self, *headers: tuple[bytes, bytes]) -> str:
        fleet = self.guests.fleet(self.guests.admit(headers))
        async with fleet.pool.lease() as lease:
            return (await fleet.keeper.token(lease.account)).access.reveal()


async def no_post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
    raise AssertionError("a guest goes its own way")


SOCIAL = (b"x-kiro-refresh-token", b"aor-0")


def key(number: int) -> tuple[bytes, bytes]:
    return (b"x-kiro-api-key", b"ksk_%d" % number)


async def test_a_token_outlives_the_connections(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """The front knows nothing of our refresh, and sends the old token for ever."""
    hotel = Hotel(nursery)
    await nursery.start(hotel.keeper.run)
    nursery.start_soon(hotel.guests.run, set)
    assert await hotel.token(SOCIAL) == "aoa-1"
    assert await hotel.token(SOCIAL) == "aoa-1"
    (first,) = hotel.wires.made
    await trio.sleep(300 - 1)
    assert not first.closed
    await trio.sleep(300)
    assert first.closed
    assert hotel.service.asked == ["aor-0"]  # nobody has asked meanwhile
    assert await hotel.token(SOCIAL) == "aoa-2"
    assert hotel.service.asked == ["aor-0", "aor-1"]
    assert len(hotel.wires.made) == 2
    assert "aor-0" not in repr(hotel.guests)
    nursery.cancel_scope.cancel()


async def test_who_is_busy_keeps_its_connections(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    hotel = Hotel(nursery)
    await nursery.start(hotel.keeper.run)
    busy = {hotel.guests.admit([SOCIAL])}
    nursery.start_soon(hotel.guests.run, lambda: busy)
    await hotel.token(SOCIAL)
    await trio.sleep(3000)
    assert not hotel.wires.made[0].closed
    busy.clear()
    await trio.sleep(400)
    assert hotel.wires.made[0].closed
    nursery.cancel_scope.cancel()


async def test_those_not_seen_for_longest_go_first(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    hotel = Hotel(nursery, most=2, idle=60)
    await nursery.start(hotel.keeper.run)
    one, two = hotel.guests.admit([key(1)]), hotel.guests.admit([key(2)])
    with pytest.raises(NoAccount, match=r"guests\.most"):  # either may be about to ask
        hotel.guests.admit([key(3)])
    hotel.guests.fleet(one)
    await trio.sleep(61)
    hotel.guests.admit([key(1)])
    three = hotel.guests.admit([key(3)])
    assert {token.account for token in hotel.keeper.snapshot().tokens} == {one, three}
    with pytest.raises(NoAccount, match="again"):
        hotel.guests.fleet(two)


async def test_a_front_that_refreshes_by_itself_is_believed(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    hotel = Hotel(nursery)
    await nursery.start(hotel.keeper.run)
    later = (b"x-kiro-expires-at", str(NOW + 3600).encode())
    for token in (b"aoa-1", b"aoa-2"):
        assert await hotel.token(SOCIAL, (b"x-kiro-access-token", token), later) == token.decode()
    assert hotel.service.asked == []
    hotel.wires.of(account_of(read_headers([SOCIAL])))
    hotel.guests.admit([SOCIAL])  # and asks nothing: its connections are closed all the same
    await trio.sleep(301)
    await hotel.guests.tidy(())
    assert [wire.closed for wire in hotel.wires.made] == [True]


async def test_what_cannot_be_an_account_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    hotel = Hotel(nursery)
    with pytest.raises(MalformedRequest):
        hotel.guests.admit([SOCIAL, (b"x-kiro-region", b"?")])
    assert hotel.keeper.snapshot().tokens == ()


def test_the_key_is_not_shown() -> None:
    assert "SECRET" not in repr(GuestSettings(key="SECRET"))
    with pytest.raises(ValueError, match="60"):
        GuestSettings(idle=1)
    with pytest.raises(ValueError, match="most"):
        GuestSettings(most=0)
