"""Turns on several accounts: who is tried next, who is spared, and what a client is told when nobody is left."""

from __future__ import annotations

from dataclasses import replace

import trio
import trio.testing

from helpers.staged import ASK, FIRST, HELLO, SETTINGS, WRITER, Answer, Stage, ok, outcome, stage
from kirostream.accounts.account import AccountId
from kirostream.accounts.board import Need
from kirostream.accounts.health import State
from kirostream.accounts.pool import PoolSettings
from kirostream.accounts.profiles import BUILDER_ID_ARN
from kirostream.errors import (
    AccessDenied,
    AccountThrottled,
    CredentialRejected,
    KirostreamError,
    ModelNotOnAccount,
    NoAccount,
    QuotaSpent,
    StreamCut,
    UpstreamDown,
    UpstreamFault,
)
from kirostream.relay.failover import FailoverSettings
from kirostream.relay.relay import RelaySettings
from kirostream.telemetry.facts import AttemptFailed
from kirostream.turn.events import Stop, TurnEnded, TurnFailed

THREE = ("a", "b", "c")


def refused(status: int) -> Answer:
    """A refusal; see `FakeProvider.classify`."""
    return Answer(status, ())


async def error_of(on: Stage) -> KirostreamError:
    async with on.relay.turn(ASK) as live:
        failed = await outcome(live)
    assert isinstance(failed, TurnFailed)
    return failed.error


async def answered(on: Stage) -> None:
    async with on.relay.turn(ASK) as live:
        ended = await outcome(live)
    assert isinstance(ended, TurnEnded)
    assert ended.stop is Stop.END


async def test_a_throttled_account_is_left_for_another(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(429), refused(429), ok(*HELLO), accounts=THREE) as on:
        await answered(on)
        assert on.client.asked == ["t0", "b-t0", "c-t0"]
        assert trio.current_time() == 0
        assert [on.state(name).state for name in THREE] == [State.COOLING, State.COOLING, State.READY]
        assert on.finished().account == "someone c"
        assert on.finished().attempts == 3
        failures = [fact for fact in on.facts if isinstance(fact, AttemptFailed)]
        assert [(fact.account, fact.action) for fact in failures] == [
            ("someone", "try another account"),
            ("someone b", "try another account"),
        ]


async def test_a_conversation_stays_where_it_was_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(429), ok(*HELLO), ok(*HELLO), ok(*HELLO), accounts=THREE) as on:
        for _ in range(3):
            await answered(on)
        assert on.client.asked == ["t0", "b-t0", "b-t0", "b-t0"]


async def test_when_all_are_throttled_the_client_learns_when_the_first_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(*[refused(429)] * 3, ok(*HELLO), accounts=THREE) as on:
        error = await error_of(on)
        assert isinstance(error, AccountThrottled)
        assert (error.status, error.retry_after) == (429, 30)
        await trio.sleep(10)
        error = await error_of(on)
        assert isinstance(error, AccountThrottled)
        assert error.retry_after == 20
        assert len(on.client.asked) == 3  # nobody was called while cooling
        await trio.sleep(20.1)
        await answered(on)


async def test_an_only_account_says_what_the_upstream_said(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(429), ok(*HELLO)) as on:
        error = await error_of(on)
        assert isinstance(error, AccountThrottled)
        assert error.message == "status 429"
        await answered(on)


async def test_not_more_accounts_than_the_settings_say(autojump_clock: trio.testing.MockClock) -> None:
    settings = RelaySettings(failover=FailoverSettings(accounts=2))
    async with stage(*[refused(429)] * 2, accounts=THREE, settings=settings) as on:
        error = await error_of(on)
        assert isinstance(error, AccountThrottled)
        assert on.client.asked == ["t0", "b-t0"]


async def test_a_refused_token_is_refreshed_on_its_own_account_first(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(403), refused(403), ok(*HELLO), accounts=THREE) as on:
        await answered(on)
        assert on.client.asked == ["t0", "t1", "b-t1"]
        assert dict(on.state("a").outcomes) == {"expired": 1, "denied": 1}
        assert on.state("a").state is State.READY  # three in a row make it cool


async def test_an_account_that_needs_a_login_is_left_for_another(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(*HELLO), accounts=THREE) as on:
        on.keeper.lost["a"] = CredentialRejected("log in again")
        await answered(on)
        assert on.client.asked == ["b-t0"]
        assert on.state("a").state is State.NEEDS_LOGIN


async def test_a_token_service_that_fails_is_no_reason_to_leave_the_account_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(ok(*HELLO), accounts=THREE) as on:
        on.keeper.lost["a"] = UpstreamDown("no token service")
        await answered(on)
        assert on.client.asked == ["b-t0"]
        assert on.state("a").state is State.READY


async def test_when_nobody_can_sign_in_the_client_learns_it(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(accounts=THREE) as on:
        for name in THREE:
            on.keeper.lost[name] = CredentialRejected("log in again")
        error = await error_of(on)
        assert isinstance(error, NoAccount)
        assert "3 in need of a login" in error.message
    async with stage() as on:
        on.keeper.lost["a"] = CredentialRejected("log in again")
        assert (await error_of(on)).message == "log in again"


async def test_the_upstreams_fault_is_tried_on_the_account_and_then_on_one_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(*[refused(500)] * 6, accounts=THREE) as on:
        assert isinstance(await error_of(on), UpstreamFault)
        assert on.client.asked == ["t0"] * 3 + ["b-t0"] * 3
        assert all(on.state(name).state is State.READY for name in THREE)


async def test_want_of_capacity_is_nobodys_fault(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(*[refused(529)] * 3, accounts=THREE) as on:
        await error_of(on)
        assert on.client.asked == ["t0"] * 3
        assert dict(on.state("a").outcomes) == {"no capacity": 3}
        assert on.state("a").state is State.READY


async def test_another_endpoint_is_tried_where_one_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(*[UpstreamDown("no route")] * 3, ok(*HELLO)) as on:
        on.provider.places = 2
        await answered(on)
        assert on.client.places == ["http://up"] * 3 + ["http://other"]
    async with stage(*[refused(429)]) as on:
        on.provider.places = 2
        await error_of(on)
        assert on.client.places == ["http://up"]


async def test_a_model_that_is_listed_is_looked_for_on_every_account(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(*[refused(404)] * 3, accounts=THREE) as on:
        assert isinstance(await error_of(on), ModelNotOnAccount)
        assert len(on.client.asked) == 3
        assert [on.state(name).blocked for name in THREE] == [("m",)] * 3
        assert isinstance(await error_of(on), ModelNotOnAccount)  # and is not asked for again
        assert len(on.client.asked) == 3


async def test_suspicion_is_not_answered_by_another_account(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(AccountThrottled("watched", reason="SUSPICIOUS_ACTIVITY"), accounts=THREE) as on:
        error = await error_of(on)
        assert isinstance(error, AccountThrottled)
        assert on.client.asked == ["t0"]


async def test_an_answer_that_broke_off_is_not_asked_elsewhere(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(FIRST, StreamCut("cut")), accounts=THREE) as on:
        assert isinstance(await error_of(on), StreamCut)
        assert len(on.client.asked) == 1


async def test_an_error_in_the_middle_of_an_answer_counts_for_the_account(
    autojump_clock: trio.testing.MockClock,
) -> None:
    throttled = b"".join(WRITER.write(TurnFailed(AccountThrottled("slow down", reason="ThrottlingException"))))
    async with stage(ok(FIRST, throttled), accounts=THREE) as on:
        assert isinstance(await error_of(on), AccountThrottled)
        assert on.state("a").state is State.COOLING


async def test_a_client_that_leaves_gives_its_account_back(autojump_clock: trio.testing.MockClock) -> None:
    settings = PoolSettings(accounts={"a": {"concurrency": 1}})
    async with stage(ok(FIRST, 1000.0), ok(*HELLO), pool_settings=settings) as on:
        async with on.relay.turn(ASK) as live:
            assert await live.log.beyond(0)
            assert on.state("a").in_flight == 1
        assert on.state("a").in_flight == 0
        assert dict(on.state("a").outcomes) == {"abandoned": 1}
        await answered(on)


async def test_a_turn_waits_for_a_busy_account(autojump_clock: trio.testing.MockClock) -> None:
    settings = PoolSettings(accounts={"a": {"concurrency": 1}})
    async with stage(ok(FIRST, 5.0, *HELLO[1:]), ok(*HELLO), pool_settings=settings) as on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answered, on)
            await trio.testing.wait_all_tasks_blocked()
            await answered(on)
        assert trio.current_time() == 5


async def test_no_try_begins_once_the_time_is_used_up(autojump_clock: trio.testing.MockClock) -> None:
    failover = FailoverSettings(attempts=100, backoff=4.0, backoff_max=4.0, budget=10.0)
    settings = RelaySettings(deadlines=SETTINGS.deadlines, failover=failover)
    async with stage(*[UpstreamDown("no route")] * 10, settings=settings) as on:
        await error_of(on)
        assert len(on.client.asked) == 3
        assert trio.current_time() == 8


async def test_an_account_taken_meanwhile_is_left_to_the_other(autojump_clock: trio.testing.MockClock) -> None:
    """A try that should go to the same account again goes to another, and begins to count there."""
    settings = PoolSettings(accounts={"a": {"concurrency": 1}})
    async with stage(*[refused(500)] * 4, accounts=("a", "b"), pool_settings=settings) as on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(error_of, on)
            await trio.sleep(0.5)  # the turn waits to try again on `a`
            async with on.pool.lease(Need(prefer=AccountId("a"))) as taken:
                assert taken.account.id == AccountId("a")
                await trio.sleep(20)
        assert on.client.asked == ["t0", "b-t0", "b-t0", "b-t0"]


async def test_a_model_that_nobody_has_is_asked_for_once(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(404), accounts=THREE) as on, on.relay.turn(replace(ASK, model="nobodys")) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, ModelNotOnAccount)
        assert len(on.client.asked) == 1


async def test_an_account_that_may_not_with_the_shared_profile_is_asked_without(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(refused(401), ok(*HELLO), ok(*HELLO), accounts=("a", "b")) as on:
        on.keeper.profile = BUILDER_ID_ARN
        await answered(on)
        await answered(on)  # and that is remembered
        assert on.provider.profiles == [BUILDER_ID_ARN, "", ""]
        assert on.client.asked == ["t0", "t0", "t0"]


async def test_a_profile_of_its_own_is_never_left_out(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(refused(401)) as on:
        on.keeper.profile = "arn:aws:codewhisperer:us-east-1:1:profile/OWN"
        assert isinstance(await error_of(on), AccessDenied)
        assert len(on.client.asked) == 1


async def test_a_spent_account_is_left_for_another_unless_that_is_switched_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stage(refused(402), ok(*HELLO), accounts=("a", "b")) as on:
        await answered(on)
        assert on.client.asked == ["t0", "b-t0"]
    stays = PoolSettings(switch_when_spent=False)
    async with stage(ok(*HELLO), refused(402), accounts=("a", "b"), pool_settings=stays) as on:
        await answered(on)
        assert isinstance(await error_of(on), QuotaSpent)
        assert isinstance(await error_of(on), QuotaSpent)  # and nobody is asked for nothing
        assert on.client.asked == ["t0", "t0"]
