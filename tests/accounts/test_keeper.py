"""Tokens are good when they are handed out, are refreshed once, and are never lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from helpers.tokens import NOW, TokenService, account, keep, social
from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.sources.source import StaleCredential
from kirostream.errors import (
    CredentialRejected,
    KirostreamError,
    LocalProtocolError,
    SettingsError,
    StoreError,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamTimeout,
)

DOWN = (500, b"{}")
DEAD = (401, b'{"message":"Bad credentials"}')


class FailingSource(DirectSource):
    """Cannot be read, or written, as long as it is told so."""

    def __init__(self, credential: Credential) -> None:
        super().__init__(credential)
        self.load_error: KirostreamError | None = None
        self.save_error: KirostreamError | None = None
        self.save_delay = 0.0
        self.saves = 0

    async def load(self) -> Sequence[Credential]:
        if self.load_error is not None:
            raise self.load_error
        return await super().load()

    async def save(self, old: Credential, new: Credential) -> None:
        self.saves += 1
        await trio.sleep(self.save_delay)
        if self.save_error is not None:
            raise self.save_error
        await super().save(old, new)


# -- windows


async def test_a_fresh_token_is_handed_out_as_it_is(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=601), TokenService())
    token = await kept.keeper.token(kept.account)
    assert token.access == Secret("aoa-0")
    assert token.expires_at == NOW + 601
    assert token.account == kept.account.id
    assert not kept.keeper.snapshot().tokens[0].refreshing
    assert kept.service.asked == []


async def test_in_the_advisory_window_the_old_token_is_served_while_a_new_one_is_fetched(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=599), TokenService(delay=2))
    before = trio.current_time()
    assert await kept.access() == "aoa-0"
    assert await kept.access() == "aoa-0"
    assert trio.current_time() == before
    await kept.settle()
    assert await kept.access() == "aoa-1"
    assert kept.service.asked == ["aor-0"]
    assert kept.refreshed == [(kept.account.id, 3600)]


async def test_in_the_advisory_window_a_failure_is_noted_and_the_old_token_served(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    service = TokenService()
    service.failures = [DOWN]
    kept = await keep(nursery, social(left=500), service)
    assert await kept.access() == "aoa-0"
    await kept.settle()
    assert await kept.access() == "aoa-0"
    (state,) = kept.keeper.snapshot().tokens
    assert (state.failures, state.refreshing) == (1, False)
    assert "HTTP 500" in state.error
    assert [type(error) for _, error in kept.failed] == [UpstreamFault]
    await trio.sleep(5)
    await kept.access()
    await kept.settle()
    assert await kept.access() == "aoa-1"
    assert kept.keeper.snapshot().tokens[0].error == ""


@pytest.mark.parametrize("left", [119, 0, -3600])
async def test_in_the_mandatory_window_all_wait_for_one_refresh(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, left: float
) -> None:
    kept = await keep(nursery, social(left=left), TokenService(delay=2))
    got: list[str] = []

    async def ask() -> None:
        got.append(await kept.access())

    async with trio.open_nursery() as callers:
        for _ in range(50):
            callers.start_soon(ask)
    assert got == ["aoa-1"] * 50
    assert kept.service.asked == ["aor-0"]
    assert isinstance(kept.source, DirectSource)
    assert kept.source.credential.refresh_token == Secret("aor-1")


async def test_a_token_that_still_lasts_outlives_a_transient_failure(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    service = TokenService()
    service.failures = [UpstreamDown("no route")] * 10
    kept = await keep(nursery, social(left=60), service)
    assert await kept.access() == "aoa-0"
    await trio.sleep(61)
    with pytest.raises(UpstreamDown, match="no route"):
        await kept.access()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (DOWN, UpstreamFault),
        ((429, b""), UpstreamOverloaded),
        ((503, b"<html>"), UpstreamOverloaded),
        ((200, b"<html>captive portal"), UpstreamFault),
        ((403, b"{}"), UpstreamFault),
        (UpstreamDown("refused"), UpstreamDown),
    ],
)
async def test_without_a_token_a_transient_failure_is_raised_and_the_next_try_waits(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    answer: tuple[int, bytes] | Exception,
    error: type[KirostreamError],
) -> None:
    service = TokenService()
    service.failures = [answer]
    kept = await keep(nursery, social(left=-1), service)
    for _ in range(3):
        with pytest.raises(error) as caught:
            await kept.access()
    assert len(service.asked) == 1
    assert caught.value.retry_after == 5
    await trio.sleep(5)
    assert await kept.access() == "aoa-1"


async def test_pauses_grow_to_a_minute(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    service = TokenService()
    service.failures = [DOWN] * 7
    kept = await keep(nursery, social(left=-1), service)
    pauses = []
    for _ in range(7):
        with pytest.raises(UpstreamFault) as caught:
            await kept.access()
        assert caught.value.retry_after is not None
        pauses.append(caught.value.retry_after)
        await trio.sleep(caught.value.retry_after)
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


async def test_an_answer_that_does_not_come_is_a_timeout(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=-1), TokenService(delay=1000))
    with pytest.raises(UpstreamTimeout, match="30 s"):
        await kept.access()


async def test_tokens_with_short_lives_are_not_refreshed_all_the_time(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A life of 300 s is shorter than the advisory window: the windows shrink to its half and quarter."""
    kept = await keep(nursery, social(left=-1), TokenService(lifetime=300))
    assert await kept.access() == "aoa-1"
    await trio.sleep(149)
    assert await kept.access() == "aoa-1"
    await kept.settle()
    assert len(kept.service.asked) == 1
    await trio.sleep(2)
    await kept.access()
    await kept.settle()
    assert await kept.access() == "aoa-2"


async def test_a_service_that_hands_out_ended_tokens_is_at_fault(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=-1), TokenService(lifetime=0))
    with pytest.raises(UpstreamFault, match="ended already"):
        await kept.access()


async def test_a_token_that_cannot_be_refreshed_is_used_to_its_end(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = replace(social(left=100), refresh_token=Secret(""))
    kept = await keep(nursery, credential, TokenService())
    await trio.sleep(99)
    assert await kept.access() == "aoa-0"
    await kept.settle()
    assert kept.failed == []
    await trio.sleep(1)
    with pytest.raises(CredentialRejected, match="there is no refresh token"):
        await kept.access()


# -- rejection


async def test_a_rejected_token_is_never_handed_out_again(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=3000), TokenService())
    token = await kept.keeper.token(kept.account)
    for _ in range(50):  # as many turns as used it
        kept.keeper.reject(token)
    assert kept.keeper.snapshot().tokens[0].rejected
    assert await kept.access() == "aoa-1"
    kept.keeper.reject(token)  # a late one: there is a newer token already
    assert await kept.access() == "aoa-1"
    assert kept.service.asked == ["aor-0"]


async def test_a_late_rejection_of_an_older_token_does_not_clear_that_of_the_newer(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=3000), TokenService())
    first = await kept.keeper.token(kept.account)
    kept.keeper.reject(first)
    kept.keeper.reject(await kept.keeper.token(kept.account))
    kept.keeper.reject(first)
    assert await kept.access() == "aoa-2"


async def test_a_token_the_service_stands_by_is_handed_out_again(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """It was rejected, refreshed, and came back the same: the upstream is asked once more, whoever is right."""
    service = TokenService()
    service.failures = [(200, b'{"accessToken":"aoa-0","expiresIn":3600}')]
    kept = await keep(nursery, social(left=3000), service)
    kept.keeper.reject(await kept.keeper.token(kept.account))
    assert await kept.access() == "aoa-0"
    assert kept.service.asked == ["aor-0"]


async def test_a_rejected_token_does_not_outlive_a_failure(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    service = TokenService()
    service.failures = [DOWN]
    kept = await keep(nursery, social(left=3000), service)
    kept.keeper.reject(await kept.keeper.token(kept.account))
    with pytest.raises(UpstreamFault):
        await kept.access()


async def test_a_rejected_api_key_needs_a_person(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    key = Credential(auth=AuthMethod.API_KEY, access_token=Secret("ksk_1"))
    kept = await keep(nursery, key, TokenService(), source=DirectSource(key, login="Make a new key."))
    token = await kept.keeper.token(kept.account)
    assert (token.access, token.profile_arn) == (Secret("ksk_1"), "")
    kept.keeper.reject(token)
    with pytest.raises(CredentialRejected, match="Make a new key"):
        await kept.access()
    assert kept.service.asked == []


# -- dead refresh tokens and other writers


async def test_a_dead_refresh_token_says_how_to_log_in_and_is_sent_once(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = social(left=-1)
    source = DirectSource(credential, login="Run: kiro-cli login.")
    service = TokenService()
    service.failures = [DEAD]
    kept = await keep(nursery, credential, service, source=source)
    for _ in range(3):
        with pytest.raises(CredentialRejected) as caught:
            await kept.access()
        assert caught.value.message == (
            "Google: the sign-in is not accepted any more (HTTP 401: Bad credentials). Run: kiro-cli login."
        )
        assert caught.value.status == 401
        assert caught.value.upstream_status == 401
        await trio.sleep(10)
    assert len(service.asked) == 1
    assert len(kept.failed) == 1
    service.live = "aor-9"
    source.credential = replace(credential, refresh_token=Secret("aor-9"))  # somebody logged in
    assert await kept.access() == "aoa-1"
    assert service.asked == ["aor-0", "aor-9"]


async def test_an_expired_registration_is_told_apart(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    service = TokenService()
    service.failures = [(401, b'{"error":"invalid_client"}')]
    credential = replace(social(left=-1), auth=AuthMethod.IDC, client_id="c", client_secret=Secret("s"))
    kept = await keep(nursery, credential, service)
    with pytest.raises(CredentialRejected, match="registration has expired"):
        await kept.access()
    assert service.urls == ["https://oidc.us-east-1.amazonaws.com/token"]


async def test_what_another_program_refreshed_is_used_without_a_request(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = social(left=-1)
    source = DirectSource(social(left=3600, refresh="aor-0", access="aoa-ide"))
    kept = await keep(nursery, credential, TokenService(), source=source)
    assert await kept.access() == "aoa-ide"
    assert kept.service.asked == []


class Overtaken(DirectSource):
    """Another program refreshes while our request is under way."""

    def __init__(self, credential: Credential, theirs: Credential) -> None:
        super().__init__(credential)
        self.theirs = theirs
        self.loads = 0

    async def load(self) -> Sequence[Credential]:
        self.loads += 1
        if self.loads > 1:
            self.credential = self.theirs
        return await super().load()


async def test_a_token_that_died_because_another_program_used_it_is_replaced_by_theirs(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = social(left=-1)
    service = TokenService()
    service.live = "aor-theirs"
    kept = await keep(
        nursery, credential, service, source=Overtaken(credential, social(refresh="aor-theirs", access="aoa-theirs"))
    )
    assert await kept.access() == "aoa-theirs"
    assert service.asked == ["aor-0"]


async def test_their_token_is_refreshed_when_it_has_ended_too(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = social(left=-1)
    service = TokenService()
    service.live = "aor-theirs"
    kept = await keep(
        nursery,
        credential,
        service,
        source=Overtaken(credential, social(refresh="aor-theirs", access="aoa-theirs", left=-5)),
    )
    assert await kept.access() == "aoa-1"
    assert service.asked == ["aor-0", "aor-theirs"]


async def test_a_conflict_at_the_save_leaves_theirs_alone(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    credential = social(left=-1)
    theirs = social(refresh="aor-theirs", access="aoa-theirs")
    source = DirectSource(credential)
    service = TokenService(delay=2)
    kept = await keep(nursery, credential, service, source=source)
    async with trio.open_nursery() as callers:
        got: list[str] = []

        async def ask() -> None:
            got.append(await kept.access())

        callers.start_soon(ask)
        await trio.sleep(1)
        source.credential = theirs
    assert got == ["aoa-theirs"]
    assert source.credential == theirs
    assert kept.refreshed == []


async def test_programs_that_never_stop_replacing_it_end_the_refresh(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    class Restless(DirectSource):
        async def load(self) -> Sequence[Credential]:
            self.credential = social(left=-1, refresh=f"aor-x{trio.current_time()}")
            return [self.credential]

    service = TokenService(delay=1)
    kept = await keep(nursery, social(left=-1), service, source=Restless(social(left=-1)))
    with pytest.raises(UpstreamFault, match="faster than it is refreshed"):
        await kept.access()
    assert len(service.asked) == 3


# -- saving


async def test_the_new_token_is_saved_before_it_is_handed_out(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = FailingSource(social(left=-1))
    source.save_delay = 3
    kept = await keep(nursery, source.credential, TokenService(), source=source)
    before = trio.current_time()
    assert await kept.access() == "aoa-1"
    assert trio.current_time() == before + 3
    assert source.credential.refresh_token == Secret("aor-1")


@pytest.mark.parametrize("how", ["error", "stuck"])
async def test_a_token_that_cannot_be_saved_is_used_told_and_saved_later(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, how: str
) -> None:
    source = FailingSource(social(left=-1))
    if how == "error":
        source.save_error = StoreError("cannot write x: the disk is full")
    else:
        source.save_delay = 1000
    kept = await keep(nursery, source.credential, TokenService(), source=source)
    assert await kept.access() == "aoa-1"
    (state,) = kept.keeper.snapshot().tokens
    assert state.unsaved
    assert "could not be written back" in state.error
    assert [type(error) for _, error in kept.failed] == [StoreError]
    assert source.credential.refresh_token == Secret("aor-0")
    source.save_error, source.save_delay = None, 0.0
    await trio.sleep(5)
    assert await kept.access() == "aoa-1"
    await kept.settle()
    assert source.credential.refresh_token == Secret("aor-1")
    (state,) = kept.keeper.snapshot().tokens
    assert not state.unsaved
    assert state.error == ""
    assert kept.service.asked == ["aor-0"]


async def test_an_unsaved_token_gives_way_to_a_new_login(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = FailingSource(social(left=-1))
    source.save_error = StoreError("cannot write x: the disk is full")
    kept = await keep(nursery, source.credential, TokenService(), source=source)
    assert await kept.access() == "aoa-1"
    source.save_error = None
    source.credential = social(refresh="aor-login", access="aoa-login")
    await trio.sleep(5)
    await kept.access()
    await kept.settle()
    assert await kept.access() == "aoa-login"
    assert source.credential.refresh_token == Secret("aor-login")


async def test_a_source_that_cannot_be_read_does_not_stop_a_refresh(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = FailingSource(social(left=-1))
    source.load_error = StoreError("cannot read x: permission denied")
    kept = await keep(nursery, source.credential, TokenService(), source=source)
    assert await kept.access() == "aoa-1"


async def test_a_stale_save_without_news_keeps_the_new_token(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The row is gone: the person logged out. What we hold still works in this process."""
    source = FailingSource(social(left=-1))
    source.save_error = StaleCredential("gone")
    kept = await keep(nursery, source.credential, TokenService(), source=source)
    assert await kept.access() == "aoa-1"


# -- processes


async def test_processes_that_share_a_folder_refresh_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Two keepers stand for two processes; the second finds what the first has saved."""
    source = DirectSource(social(left=-1))
    service = TokenService(delay=0.02)
    got: list[str] = []

    async def process() -> None:
        keeper = TokenKeeper(service.post, lock_folder=tmp_path / "locks", time_source=lambda: NOW)
        keeper.add(account(), source, social(left=-1))
        async with trio.open_nursery() as inner:
            await inner.start(keeper.run)
            got.append((await keeper.token(account())).access.reveal())
            inner.cancel_scope.cancel()

    async with trio.open_nursery() as both:
        both.start_soon(process)
        both.start_soon(process)
    assert got == ["aoa-1", "aoa-1"]
    assert service.asked == ["aor-0"]


# -- misuse and bugs


async def test_misuse_is_said_plainly(autojump_clock: trio.testing.MockClock) -> None:
    keeper = TokenKeeper(TokenService().post, time_source=lambda: NOW)
    with pytest.raises(LocalProtocolError, match="no credential was given"):
        await keeper.token(account())
    keeper.add(account(), DirectSource(social(left=-1)), social(left=-1))
    with pytest.raises(LocalProtocolError, match="not running"):
        await keeper.token(account())
    keeper.remove(account().id)
    with pytest.raises(LocalProtocolError, match="no credential was given"):
        await keeper.token(account())


async def test_a_bug_in_a_source_reaches_who_asked_and_nobody_else(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    class Buggy(DirectSource):
        async def load(self) -> Sequence[Credential]:
            raise ZeroDivisionError("oops")

    kept = await keep(nursery, social(left=-1), TokenService(), source=Buggy(social(left=-1)))
    with pytest.raises(LocalProtocolError, match="ZeroDivisionError"):
        await kept.access()
    other = account("test-2")
    kept.keeper.add(other, DirectSource(social()), social())
    assert (await kept.keeper.token(other)).access == Secret("aoa-0")


async def test_every_waiter_gets_an_exception_of_its_own(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    service = TokenService(delay=1)
    service.failures = [DOWN]
    kept = await keep(nursery, social(left=-1), service)
    errors: list[KirostreamError] = []

    async def ask() -> None:
        with pytest.raises(UpstreamFault) as caught:
            await kept.access()
        errors.append(caught.value)

    async with trio.open_nursery() as callers:
        for _ in range(5):
            callers.start_soon(ask)
    assert len({id(error) for error in errors}) == 5
    assert {error.message for error in errors} == {"Google: the token service failed (HTTP 500)"}
    assert {error.reason for error in errors} == {"http_500"}


async def test_repr_and_snapshot_are_truthful_and_hold_no_secret(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    kept = await keep(nursery, social(left=-1), TokenService(delay=1))
    async with trio.open_nursery() as callers:
        callers.start_soon(kept.access)
        await trio.sleep(0.1)
        assert repr(kept.keeper) == "<TokenKeeper running, 1 accounts, 1 refreshing>"
        assert kept.keeper.snapshot().tokens[0].refreshing
    (state,) = kept.keeper.snapshot().tokens
    assert (state.refreshed, state.failures, state.refreshing) == (1, 0, False)
    assert state.expires_in == pytest.approx(3599, abs=1)
    for shown in (repr(kept.keeper), repr(kept.keeper.snapshot()), repr(await kept.keeper.token(kept.account))):
        assert "aoa" not in shown
        assert "aor" not in shown


@pytest.mark.parametrize(
    "wrong", [{"advisory": 10.0, "mandatory": 20.0}, {"mandatory": -1.0}, {"pause": 0.0}, {"refresh_deadline": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"keeper\."):
        KeeperSettings(**wrong)  # type: ignore[arg-type]


async def test_the_hosts_can_be_elsewhere(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    settings = KeeperSettings(hosts=AuthHosts(social="http://127.0.0.1:1/", oidc="http://127.0.0.1:1"))
    kept = await keep(nursery, social(left=-1), TokenService(), settings=settings)
    assert await kept.access() == "aoa-1"
    assert kept.service.urls == ["http://127.0.0.1:1/refreshToken"]
