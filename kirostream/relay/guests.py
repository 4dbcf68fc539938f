"""Accounts that come with requests: each is a fleet of its own, which nobody else is asked on (`sources.headers`).

A guest's id is the scope of its requests, so that conversations, stored answers, turns and idempotency keys of two
guests, or of a guest and the house, have nothing to do with each other.

Theory. A guest has two ages. Its *fleet* (the pool of one, the list of its models, its connections) is there while
requests come, and goes when none has come for `idle` seconds and no turn of it runs. Its *token* stays longer, in
memory alone: the front goes on sending the refresh token it knows while ours rotates, and the newest form is all there
is. It is let go when `most` guests are known and another one comes; those who were not seen for the longest time go
first. Nothing is refreshed unless somebody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import field, replace
from typing import Final

import trio

from kirostream.accounts.account import Account, AccountId, Credential
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.sources.headers import account_of, read_headers
from kirostream.accounts.store import MemoryPoolStore
from kirostream.dataclass import dataclass
from kirostream.errors import NoAccount
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.clients import Clients
from kirostream.relay.fleet import Fleet

SHORTEST: Final = 60.0
"""Seconds: what a request does with its account before its turn begins takes less."""
LOGIN: Final = "Send a token that is good, in the X-Kiro headers."


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSettings:
    """Accounts that come with requests, in X-Kiro-* headers."""

    key: str = field(
        default="",
        repr=False,
        metadata={
            "help": "The key of a front that sends an account with each request. Empty: none may.",
            "secret": True,
            "live": False,
        },
    )
    idle: float = field(
        default=300.0,
        metadata={"help": "How long the connections of such an account are kept after its last request.", "unit": "s"},
    )
    most: int = field(default=256, metadata={"help": "Most such accounts that are known at once.", "unit": "accounts"})

    def __post_init__(self) -> None:
        if not self.idle >= SHORTEST:
            raise ValueError(f"idle is {self.idle:g}; it takes {SHORTEST:g} seconds or more")
        if self.most < 1:
            raise ValueError(f"most is {self.most}; it takes 1 or more")


@dataclass(slots=True)
class _Guest:
    """One account, the credential as it was sent, and trio's time of its last request."""

    account: Account
    sent: Credential
    seen: float
    fleet: Fleet | None = None


class Guests:
    """The accounts that came with requests.

    Args:
        keeper: of their tokens, and of no others; it runs without a sweep.
        clients: their connections.
        catalogues: makes the lists of models of a pool.
        pool: what the operator says of every account (``*``) holds for them, too.
    """

    def __init__(
        self,
        keeper: TokenKeeper,
        clients: Clients,
        catalogues: Callable[[Pool, TokenKeeper], Catalogues],
        pool: PoolSettings,
        settings: GuestSettings,
    ) -> None:
        self._keeper = keeper
        self._clients = clients
        self._catalogues = catalogues
        self._pool = replace(pool, selected="", sticky=False)
        self._settings = settings
        self._known: OrderedDict[str, _Guest] = OrderedDict()

    def __repr__(self) -> str:
        here = sum(guest.fleet is not None for guest in self._known.values())
        return f"<Guests: {here} here, {len(self._known)} of {self._settings.most} known>"

    def adopt(self, settings: GuestSettings, pool: PoolSettings, keeper: KeeperSettings) -> None:
        """Go by other settings. Those of the pools hold for guests that come from now on."""
        self._settings = settings
        self._keeper.adopt(replace(keeper, sweep=0.0))
        self._pool = replace(pool, selected="", sticky=False)

    def admit(self, headers: Headers) -> AccountId:
        """The id of the account that a request brings; its token is kept from now on.

        Raises:
            MalformedRequest: the headers hold no usable account.
            NoAccount: too many are here.
        """
        sent = read_headers(headers)
        account = account_of(sent)
        guest = self._known.get(account.id)
        if guest is None:
            self._make_room()
            guest = self._known[account.id] = _Guest(account, sent, trio.current_time())
            self._keep(guest)
        elif guest.sent != sent:  # the front has refreshed it by itself, or was told better: start afresh
            guest.account, guest.sent = account, sent
            guest.fleet = self._fleet_of(account) if guest.fleet is not None else None
            self._keep(guest)
        guest.seen = trio.current_time()
        self._known.move_to_end(account.id)
        return account.id

    def fleet(self, guest: str) -> Fleet:
        """What the turns of a guest are asked on.

        Raises:
            NoAccount: it was let go meanwhile.
        """
        known = self._known.get(guest)
        if known is None:
            raise NoAccount("The account of this request was let go meanwhile. Send the request again.")
        known.seen = trio.current_time()
        if known.fleet is None:
            known.fleet = self._fleet_of(known.account)
        return known.fleet

    def _fleet_of(self, account: Account) -> Fleet:
        pool = Pool(self._pool, MemoryPoolStore())
        pool.add(account)
        return Fleet(pool, self._keeper, self._catalogues(pool, self._keeper))

    async def run(self, busy: Callable[[], Collection[str]]) -> None:
        """Close what is idle, until cancelled.

        Args:
            busy: the scopes of all turns in flight.
        """
        while True:
            await trio.sleep(self._settings.idle / 4)
            await self.tidy(busy())

    async def tidy(self, busy: Collection[str]) -> None:
        """Close the connections of guests that nobody has sent for a while, and that are not `busy`."""
        now = trio.current_time()
        for name, guest in list(self._known.items()):
            if name in busy:
                guest.seen = now
            elif guest.fleet is not None and now - guest.seen >= self._settings.idle:
                guest.fleet = None
                await self._clients.close(guest.account.id)

    def _make_room(self) -> None:
        over = trio.current_time() - SHORTEST
        while len(self._known) >= self._settings.most:
            away = next((name for name, each in self._known.items() if each.fleet is None and each.seen <= over), None)
            if away is None:
                raise NoAccount(
                    f"{len(self._known)} accounts came with requests lately, and no more are taken (guests.most).",
                    retry_after=self._settings.idle,
                )
            self._keeper.remove(self._known.pop(away).account.id)

    def _keep(self, guest: _Guest) -> None:
        account = guest.account

        async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
            status, _, answer = await self._clients.of(account).fetch(method, url, headers, body)
            return status, answer

        source = DirectSource(guest.sent, name=account.source, login=LOGIN)
        self._keeper.add(account, source, guest.sent, post)
