"""The list of models: read once, renewed in passing, and never in the way of a turn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio
import trio.testing

from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store import MemoryPoolStore
from kirostream.dialects.dialect import Headers
from kirostream.errors import CredentialRejected, KirostreamError, UpstreamDown
from kirostream.net.client import HttpClient
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.catalogue import Catalogue, Catalogues, CatalogueSettings, Models
from kirostream.telemetry.facts import CatalogueLoaded, Fact
from kirostream.telemetry.recorder import Recorder

ACCOUNT = Account(id=AccountId("a"), label="someone", auth=AuthMethod.SOCIAL)
TOKEN = Token(Secret("t"), NEVER, "", AccountId("a"))
SETTINGS = CatalogueSettings(refresh=100, retry=10, deadline=5)
Page = tuple[Sequence[str], str]


@dataclass
class FakeClient:
    """Gives scripted pages; a number is seconds of silence before the next."""

    script: list[Page | float | int | KirostreamError]
    asked: list[str] = field(default_factory=list)

    async def fetch(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, limit: int = 0
    ) -> tuple[int, Headers, bytes]:
        self.asked.append(url)
        step = self.script.pop(0)
        if isinstance(step, float):
            await trio.sleep(step)
            step = self.script.pop(0)
        await trio.lowlevel.checkpoint()
        if isinstance(step, KirostreamError):
            raise step
        if isinstance(step, int | float):
            return int(step), (), b'{"message":"no"}'
        models, following = step
        body = {"models": [{"modelId": name} for name in models], "nextToken": following or None}
        return 200, (), json.dumps(body).encode()


@asynccontextmanager
async def catalogue(
    *script: Page | float | int | KirostreamError,
) -> AsyncIterator[tuple[Catalogue, FakeClient, list[Fact]]]:
    facts: list[Fact] = []
    client = FakeClient(list(script))
    async with trio.open_nursery() as nursery:
        yield (
            Catalogue(nursery, KiroProvider(), cast(HttpClient, client), Recorder(facts.append), SETTINGS),
            client,
            facts,
        )


async def ids(of: Catalogue) -> list[str]:
    return [model.id for model in (await of.models(ACCOUNT, TOKEN)).models]


async def test_pages_are_read_to_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogue((["a", "b"], "two"), (["c"], "")) as (models, client, _):
        assert await ids(models) == ["a", "b", "c"]
        assert "nextToken=two" in client.asked[1]


async def test_many_ask_and_it_is_read_once(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogue(1.0, (["a"], "")) as (models, client, _):
        async with trio.open_nursery() as nursery:
            for _number in range(20):
                nursery.start_soon(ids, models)
        assert len(client.asked) == 1


async def test_an_old_list_is_renewed_behind_the_turns(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogue((["old"], ""), 2.0, (["new"], "")) as (models, _, _facts):
        assert await ids(models) == ["old"]
        await trio.sleep(101)
        began = trio.current_time()
        assert await ids(models) == ["old"]
        assert trio.current_time() == began
        await trio.sleep(3)
        assert await ids(models) == ["new"]


@pytest.mark.parametrize("trouble", [UpstreamDown("x"), 500, 403, 60.0], ids=["down", "500", "403", "silent"])
async def test_an_outage_keeps_what_is_known(
    trouble: float | int | KirostreamError, autojump_clock: trio.testing.MockClock
) -> None:
    async with catalogue((["known"], ""), trouble, (["back"], "")) as (models, client, facts):
        assert await ids(models) == ["known"]
        await trio.sleep(101)
        await ids(models)
        await trio.sleep(8)
        assert (await models.models(ACCOUNT, TOKEN)).complete
        assert await ids(models) == ["known"]
        if isinstance(trouble, float):
            return
        await trio.sleep(11)
        await ids(models)
        await trio.sleep(1)
        assert await ids(models) == ["back"]
        assert [bool(fact.error) for fact in facts if isinstance(fact, CatalogueLoaded)] == [False, True, False]
        assert len(client.asked) == 3


async def test_without_any_list_the_fallback_is_shown(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogue(UpstreamDown("x")) as (models, _, _facts):
        known = await models.models(ACCOUNT, TOKEN)
        assert not known.complete
        assert "auto" in [model.id for model in known.models]


async def test_who_leaves_ends_it_for_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogue(2.0, (["a"], "")) as (models, client, _):
        with trio.move_on_after(1):
            await ids(models)
        assert await ids(models) == ["a"]
        assert len(client.asked) == 1


def names(models: Models) -> list[str]:
    return [model.id for model in models.models]


@asynccontextmanager
async def catalogues(**scripts: Sequence[Page | float | int | KirostreamError]) -> AsyncIterator[Catalogues]:
    """The lists of several accounts, in the order of their names here."""
    pool = Pool(PoolSettings(), MemoryPoolStore(), clock=lambda: 0.0)
    clients = {name: cast(HttpClient, FakeClient(list(script))) for name, script in scripts.items()}
    for name in scripts:
        pool.add(Account(id=AccountId(name), label=name, auth=AuthMethod.SOCIAL))

    class Keeper:
        async def token(self, account: Account) -> Token:
            await trio.lowlevel.checkpoint()
            if account.id == "lost":
                raise CredentialRejected("log in again")
            return TOKEN

    async with trio.open_nursery() as nursery:
        provider = KiroProvider()
        yield Catalogues(
            nursery,
            provider,
            pool,
            cast(TokenKeeper, Keeper()),
            lambda account: clients[account.id],
            Recorder(lambda fact: None),
            SETTINGS,
        )
        nursery.cancel_scope.cancel()


async def test_all_accounts_together(autojump_clock: trio.testing.MockClock) -> None:
    """The first list is waited for; the others come by themselves, and add what the first does not have."""
    async with catalogues(
        lost=[], a=[(["haiku"], "")], b=[4.0, (["haiku", "opus"], "")], c=[UpstreamDown("no route")]
    ) as lists:
        first = await lists.models()
        assert (names(first), first.complete, trio.current_time()) == (["haiku"], True, 0.0)
        assert (lists.lists("haiku"), lists.lists("opus")) == (True, False)
        await trio.sleep(6)
        assert names(await lists.models()) == ["haiku", "opus"]
        assert lists.known is lists.known
        assert lists.lists("opus")


async def test_without_a_list_a_short_one_stands_in(autojump_clock: trio.testing.MockClock) -> None:
    async with catalogues(lost=[]) as lists:
        known = await lists.models()
        assert (known.models, known.complete) == (KiroProvider().fallback_models, False)
    async with catalogues(a=[UpstreamDown("no route"), (["haiku"], "")]) as lists:
        assert not (await lists.models()).complete
        await trio.sleep(11)
        await lists.models()
        await trio.sleep(1)
        assert names(await lists.models()) == ["haiku"]
