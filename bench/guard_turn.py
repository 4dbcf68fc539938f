"""A short turn through the relay, for the guard: from the request as it was read to the end of its log.

What counts in a short turn is what happens once in it: the account, the request upstream, its answer's head, the end.
So this one has everything between the doors and the upstream, which is the compiled one in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from bench import peers, scripts
from kirostream.accounts.account import Account, AccountId, AuthMethod, Secret, Token
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store import MemoryPoolStore
from kirostream.net.client import HttpClient
from kirostream.net.hub import opened
from kirostream.providers.kiro import KiroProvider, KiroSettings
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.relay import Relay, RelaySettings
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.request import TurnRequest

TURNS = 50
NOW = 1_700_000_000.0
ACCOUNT = Account(id=AccountId("a"), label="a", auth=AuthMethod.SOCIAL, machine_id="0" * 64)
TOKEN = Token(access=Secret(scripts.ACCESS_TOKEN), expires_at=NOW * 2, profile_arn="", account=ACCOUNT.id)


class Keeper(TokenKeeper):
    """Has one token, for ever."""

    def __init__(self) -> None:
        pass

    async def token(self, account: Account) -> Token:
        return TOKEN


def short_turns(ask: Callable[[], TurnRequest], port: int) -> Callable[[], int]:
    """Turns one after the other, on a connection that is kept.

    Args:
        ask: reads the request of one.
        port: of the upstream.
    """

    async def main() -> None:
        recorder = Recorder(lambda fact: None)
        provider = KiroProvider(KiroSettings(endpoint=f"http://127.0.0.1:{port}"))
        pool = Pool(PoolSettings(), MemoryPoolStore(), clock=lambda: NOW)
        pool.add(ACCOUNT)
        keeper = Keeper()
        with opened():
            async with HttpClient() as client, trio.open_nursery() as nursery:
                relay = Relay(
                    nursery,
                    pool=pool,
                    keeper=keeper,
                    provider=provider,
                    client_of=lambda account: client,
                    catalogues=Catalogues(nursery, provider, pool, keeper, lambda account: client, recorder),
                    recorder=recorder,
                    settings=RelaySettings(),
                    clock=lambda: NOW,
                )
                for _ in range(TURNS):
                    async with relay.turn(ask()) as live:
                        await live.over.wait()
                assert relay.snapshot().answered == TURNS
                nursery.cancel_scope.cancel()

    def work() -> int:
        trio.run(main)
        return TURNS

    return work


def upstream() -> peers.Program:
    """The upstream of `short_turns`. Its owner stops it."""
    with tempfile.TemporaryDirectory(prefix="kirostream-guard-") as folder:
        return peers.upstream(scripts.write_routes(Path(folder) / "routes"))
