"""What the keeper does by itself: tokens are renewed before anybody needs them, and profiles are looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from helpers.tokens import NOW, TokenService, account, social, unix_clock
from kirostream.accounts.account import Account, AuthMethod, Credential, Secret, Token
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.roster import Roster
from kirostream.accounts.sources.direct import DirectSource
from kirostream.errors import KirostreamError, SettingsError, UpstreamDown
from kirostream.stores.sealed import SealedStore

ARN = "arn:aws:codewhisperer:eu-central-1:1:profile/X"


class Many:
    """A keeper of many accounts, each with a token service of its own."""

    def __init__(self, count: int, left: float, settings: KeeperSettings | None = None) -> None:
        self.services = {f"aor-{number}": TokenService() for number in range(count)}
        self.asked_at: list[float] = []
        self.start = trio.current_time()
        self.errors: list[KirostreamError] = []
        self.keeper = TokenKeeper(
            self.post, settings, time_source=unix_clock(), on_failed=lambda who, error: self.errors.append(error)
        )
        for number, (token, service) in enumerate(self.services.items()):
            service.live, service.rotates = token, False
            credential = social(left=left, refresh=token)
            self.keeper.add(account(f"test-{number}"), DirectSource(credential), credential)

    async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        self.asked_at.append(trio.current_time() - self.start)
        service = next(service for token, service in self.services.items() if f'"{token}"'.encode() in body)
        return await service.post(method, url, headers, body)

    def states(self) -> list[float]:
        return [token.expires_in for token in self.keeper.snapshot().tokens]


async def test_tokens_are_renewed_although_nobody_asks_each_at_its_own_time(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """All end in an hour; they are renewed over the time between the windows, and never too late."""
    many = Many(40, left=3600)
    await nursery.start(many.keeper.run)
    await trio.sleep(3600 - 600 - 31)
    assert many.asked_at == []
    await trio.sleep(600 - 120 + 62)
    assert len(many.asked_at) == 40
    assert min(many.states()) > 120
    assert max(many.asked_at) - min(many.asked_at) > 240
    assert max(many.asked_at.count(at) for at in many.asked_at) <= 4


async def test_tokens_that_were_made_together_are_not_renewed_together(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    many = Many(40, 3600, KeeperSettings(sweep=10, sweep_at_once=40))
    await nursery.start(many.keeper.run)
    await trio.sleep(3600)
    assert len(set(many.asked_at)) > 20


async def test_a_start_with_many_ended_tokens_is_no_storm(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    many = Many(20, left=-1)
    await nursery.start(many.keeper.run)
    await trio.sleep(100)
    assert [many.asked_at.count(at) for at in sorted(set(many.asked_at))] == [4, 4, 4]


async def test_accounts_that_wait_for_a_person_keep_nobody_from_being_renewed(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    many = Many(10, left=100)
    services = list(many.services.values())
    for service in services[:8]:
        service.live = "another"
    await nursery.start(many.keeper.run)
    await trio.sleep(600)
    assert [len(service.asked) for service in services] == [1] * 10  # a dead token is sent once
    assert sum(left > 0 for left in many.states()) == 2


async def test_it_can_be_turned_off(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    many = Many(2, -1, KeeperSettings(sweep=0))
    await nursery.start(many.keeper.run)
    await trio.sleep(10_000)
    assert many.asked_at == []


@pytest.mark.parametrize("wrong", [{"sweep": -1.0}, {"sweep_at_once": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"keeper\.sweep"):
        KeeperSettings(**wrong)  # type: ignore[arg-type]


# -- profiles

COMPANY = Credential(
    auth=AuthMethod.IDC,
    refresh_token=Secret("aor-0"),
    access_token=Secret("aoa-0"),
    expires_at=NOW + 3600,
    client_id="c",
    client_secret=Secret("s"),
    start_url="https://d-1.awsapps.com/start",
    provider="Enterprise",
)


class Upstream:
    """Knows the profile; `failures` come first."""

    def __init__(self, *failures: KirostreamError, arn: str = ARN, delay: float = 0.0) -> None:
        self.failures = list(failures)
        self.arn = arn
        self.delay = delay
        self.asked = 0

    async def profile(self, who: Account, token: Token) -> str:
        assert token.access
        self.asked += 1
        await trio.sleep(self.delay)
        if self.failures:
            raise self.failures.pop(0)
        return self.arn


def keeper_of(
    source: DirectSource, upstream: Upstream, on_failed: Callable[[object, KirostreamError], None] = lambda *_: None
) -> TokenKeeper:
    keeper = TokenKeeper(TokenService().post, time_source=unix_clock(), look_up=upstream.profile, on_failed=on_failed)
    keeper.add(account(), source, source.credential)
    return keeper


async def test_a_profile_is_looked_up_once_and_waited_for(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    upstream = Upstream(delay=1)
    source = DirectSource(COMPANY)
    keeper = keeper_of(source, upstream)
    await nursery.start(keeper.run)
    got: list[str] = []

    async def ask() -> None:
        got.append((await keeper.token(account())).profile_arn)

    async with trio.open_nursery() as callers:
        for _ in range(20):
            callers.start_soon(ask)
    assert got == [ARN] * 20
    assert upstream.asked == 1
    assert source.credential.profile_arn == "", "another program's file is left as it is"


@pytest.mark.parametrize(
    "credential",
    [
        replace(COMPANY, profile_arn="arn:known"),
        replace(COMPANY, provider="BuilderId"),
        social(),
        Credential(auth=AuthMethod.API_KEY, access_token=Secret("ksk_1")),
    ],
)
async def test_who_needs_no_profile_is_not_asked_about(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, credential: Credential
) -> None:
    upstream = Upstream()
    keeper = keeper_of(DirectSource(credential), upstream)
    await nursery.start(keeper.run)
    await keeper.token(account())
    assert upstream.asked == 0


@pytest.mark.parametrize("upstream", [Upstream(UpstreamDown("no route")), Upstream(delay=1000), Upstream(arn="")])
async def test_a_profile_that_is_not_found_stops_nobody_and_is_asked_for_again_later(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, upstream: Upstream
) -> None:
    keeper = keeper_of(DirectSource(COMPANY), upstream)
    await nursery.start(keeper.run)
    assert (await keeper.token(account())).profile_arn == ""
    assert (await keeper.token(account())).profile_arn == ""
    assert upstream.asked == 1
    upstream.arn, upstream.delay = ARN, 0
    await trio.sleep(61)
    assert (await keeper.token(account())).profile_arn == ARN


async def test_a_record_of_ours_keeps_the_profile(tmp_path: Path, nursery: trio.Nursery) -> None:
    roster = Roster(tmp_path, SealedStore(tmp_path / "sealed"))
    source = roster.source((await roster.keep(COMPANY, now=NOW)).entry)
    upstream = Upstream()
    keeper = TokenKeeper(TokenService().post, time_source=lambda: NOW, look_up=upstream.profile)
    keeper.add(account(), source, COMPANY)
    await nursery.start(keeper.run)
    assert (await keeper.token(account())).profile_arn == ARN
    assert (await source.load())[0].profile_arn == ARN
