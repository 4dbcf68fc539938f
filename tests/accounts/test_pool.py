"""Leases: who gets one, who waits, who is refused, and what is known afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from helpers.pools import Pooled, named, pooled
from helpers.tokens import NOW, unix_clock
from kirostream.accounts.account import AccountId
from kirostream.accounts.board import Need
from kirostream.accounts.health import SERVED, Kind, Outcome, State
from kirostream.accounts.pool import PoolSettings
from kirostream.accounts.store import MemoryPoolStore
from kirostream.accounts.terms import Terms, terms_of
from kirostream.errors import (
    AccountThrottled,
    KirostreamError,
    LocalProtocolError,
    ModelNotOnAccount,
    NoAccount,
    QuotaSpent,
    SettingsError,
    StoreError,
)

THROTTLED = Outcome(Kind.THROTTLED)
CAPPED = PoolSettings(accounts={"*": {"concurrency": 1}})


async def test_a_lease_is_held_settled_and_given_back(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a")
    lease = world.pool.lease(Need("m"))
    with pytest.raises(LocalProtocolError):
        _ = lease.account
    async with lease as held:
        assert held is lease
        assert held.account == named("a")
        assert held.terms == Terms()
        assert (world.of("a").in_flight, world.pool.snapshot().in_flight) == (1, 1)
        held.settle(SERVED)
        with pytest.raises(LocalProtocolError):
            held.settle(SERVED)
    world.whole()
    assert world.of("a").outcomes == {"served": 1}
    with pytest.raises(LocalProtocolError):
        held.settle(SERVED)
    with pytest.raises(LocalProtocolError):
        async with lease:
            pass


async def test_a_lease_that_nobody_settles_was_abandoned(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a")
    with pytest.raises(ValueError, match="boom"):
        async with world.pool.lease():
            raise ValueError("boom")
    assert world.of("a").outcomes == {"abandoned": 1}
    assert world.of("a").state is State.READY
    world.whole()


async def test_an_account_that_cools_is_not_leased_and_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b")
    assert await world.use(THROTTLED) == "a"
    assert [await world.use(SERVED) for _ in range(3)] == ["b"] * 3
    assert (world.of("a").state, world.of("a").until, world.of("a").why) == (State.COOLING, NOW + 30, "throttled")
    await trio.sleep(29.9)
    assert await world.use(SERVED) == "b"
    await trio.sleep(0.2)
    assert await world.use(SERVED) == "a"
    assert world.of("a").state is State.READY
    assert world.changes == [("a", State.COOLING), ("a", State.READY)]


async def test_one_probe_at_a_time_when_a_pause_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """Half open: a success heals, a failure cools longer."""
    world = pooled("a", "z")
    await world.pool.disable(AccountId("z"))
    await world.use(THROTTLED)
    await trio.sleep(30)
    used: list[float] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            async with world.pool.lease() as lease:
                used.append(trio.current_time())
                await trio.sleep(5)
                lease.settle(SERVED)

        for _ in range(3):
            nursery.start_soon(ask)
    assert used == [30, 35, 35]
    await world.use(THROTTLED)
    await trio.sleep(30)
    await world.use(THROTTLED)
    assert world.of("a").until == NOW + trio.current_time() + 60


async def test_an_old_stream_holds_no_probe_back(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "z")
    await world.pool.disable(AccountId("z"))
    async with world.pool.lease() as old:
        await world.use(THROTTLED)
        await trio.sleep(31)
        async with world.pool.lease() as probe:
            assert world.of("a").probing
            old.settle(SERVED)
            probe.settle(SERVED)
    assert world.of("a").state is State.READY


async def test_an_old_stream_is_no_probe(autojump_clock: trio.testing.MockClock) -> None:
    """Its answer heals nothing, and its end makes no room for a second probe."""
    world = pooled("a", "z")
    await world.pool.disable(AccountId("z"))
    async with world.pool.lease() as old:
        await world.use(THROTTLED)
        old.settle(SERVED)
    assert world.of("a").state is State.COOLING
    world = pooled("b", "z")
    await world.pool.disable(AccountId("z"))
    async with trio.open_nursery() as nursery:
        async with world.pool.lease() as old:
            await world.use(THROTTLED)
            await trio.sleep(31)
            nursery.start_soon(world.use, SERVED, None, 5.0)
            await trio.testing.wait_all_tasks_blocked()
            old.settle(SERVED)
        assert (world.of("b").probing, world.of("b").state) == (True, State.COOLING)
        await world.use(SERVED)
        assert trio.current_time() == 31 + 5


# Busy: wait


async def test_who_finds_all_at_their_cap_waits_in_line(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b", settings=CAPPED)
    order: list[tuple[int, str, float]] = []
    async with trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            async with world.pool.lease() as lease:
                order.append((number, str(lease.account.id), trio.current_time()))
                await trio.sleep(2 + (lease.account.id == "b"))
                lease.settle(SERVED)

        for number in range(5):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (world.pool.snapshot().in_flight, world.pool.snapshot().waiting) == (2, 3)
    assert order == [(0, "a", 0), (1, "b", 0), (2, "a", 2), (3, "b", 3), (4, "a", 4)]
    world.whole()


async def test_nobody_new_goes_before_who_waits(autojump_clock: trio.testing.MockClock) -> None:
    settings = PoolSettings(accounts={"*": {"interval": 10}})
    world = pooled("a", settings=settings)
    await world.use(SERVED)
    order: list[str] = []
    async with trio.open_nursery() as nursery:

        async def ask(name: str) -> None:
            await world.use(SERVED)
            order.append(f"{name} at {trio.current_time():g}")

        nursery.start_soon(ask, "first")
        await trio.sleep(10)  # the account is free from now on, and the one in line has not run yet
        nursery.start_soon(ask, "second")
    assert order == ["first at 10", "second at 20"]


async def test_waiting_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=replace(CAPPED, wait=7))
    async with world.pool.lease():
        with pytest.raises(NoAccount, match=r"pool\.wait") as caught:
            await world.use()
        assert trio.current_time() == 7
        with pytest.raises(NoAccount):
            await world.use(need=Need(wait=2))
        assert trio.current_time() == 9
        with pytest.raises(NoAccount):
            await world.use(need=Need(wait=0))
        assert trio.current_time() == 9
    assert caught.value.retry_after == 1
    world.whole()


async def test_the_line_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=replace(CAPPED, waiting=2))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(world.use, SERVED, None, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NoAccount, match=r"pool\.waiting"):
            await world.use()
    assert world.of("a").outcomes == {"served": 3}
    world.whole()


async def test_who_leaves_the_line_lets_the_next_one_up(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=CAPPED)
    got: list[str] = []
    async with trio.open_nursery() as nursery:
        async with world.pool.lease():
            with trio.move_on_after(1):
                await world.use()
            nursery.start_soon(world.use, SERVED)
            await trio.testing.wait_all_tasks_blocked()
            assert world.pool.snapshot().waiting == 1
        got.append(await world.use(SERVED))
    assert got == ["a"]
    world.whole()


async def test_pace(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=PoolSettings(accounts={"a": {"interval": 3}}))
    begun: list[float] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            async with world.pool.lease() as lease:
                begun.append(trio.current_time())
                lease.settle(SERVED)

        for _ in range(4):
            nursery.start_soon(ask)
    assert begun == [0, 3, 6, 9]


# Out: refuse


@pytest.mark.parametrize(
    ("outcomes", "error", "retry_after", "words"),
    [
        ((THROTTLED, Outcome(Kind.THROTTLED, 12.0)), AccountThrottled, 12.0, "2 cooling"),
        ((Outcome(Kind.SPENT, 50.0), Outcome(Kind.SPENT, 70.0)), QuotaSpent, 50.0, "2 out of credits"),
        ((Outcome(Kind.SPENT, 50.0), Outcome(Kind.THROTTLED, 70.0)), AccountThrottled, 50.0, "1 out of credits"),
        ((Outcome(Kind.SUSPENDED), Outcome(Kind.SPENT, 70.0)), QuotaSpent, 70.0, "1 suspended"),
        ((Outcome(Kind.SUSPENDED), Outcome(Kind.SUSPENDED)), NoAccount, None, "2 suspended"),
        ((Outcome(Kind.SUSPENDED), Outcome(Kind.LOGIN_LOST)), NoAccount, 5.0, "login"),
        ((THROTTLED, Outcome(Kind.LOGIN_LOST)), AccountThrottled, 5.0, "login"),
        ((Outcome(Kind.NO_MODEL, model="m"), Outcome(Kind.NO_MODEL, model="m")), ModelNotOnAccount, None, "'m'"),
    ],
)
async def test_when_all_are_out_nobody_waits(
    autojump_clock: trio.testing.MockClock,
    outcomes: tuple[Outcome, ...],
    error: type[KirostreamError],
    retry_after: float | None,
    words: str,
) -> None:
    world = pooled("a", "b")
    for outcome in outcomes:
        await world.use(outcome, Need("m"))
    with pytest.raises(error, match=words) as caught:
        await world.use(need=Need("m"))
    assert type(caught.value) is error
    assert caught.value.retry_after == retry_after
    assert trio.current_time() == 0
    world.whole()


async def test_what_was_tried_in_this_turn_counts_too(autojump_clock: trio.testing.MockClock) -> None:
    """The moment of coming back is that of all accounts, also of those that the turn has used up."""
    world = pooled("a", "b")
    await world.use(THROTTLED)
    with pytest.raises(AccountThrottled) as caught:
        await world.use(need=Need(exclude={AccountId("a"), AccountId("b")}))
    assert caught.value.retry_after == 30
    with pytest.raises(NoAccount, match="tried"):
        await pooled("c").use(need=Need(exclude={AccountId("c")}))


async def test_who_waits_is_refused_once_waiting_is_no_use(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "z", settings=CAPPED)
    await world.pool.disable(AccountId("z"))
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(AccountThrottled) as caught:
                await world.use()
            assert caught.value.retry_after == 30

        async with world.pool.lease() as lease:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            lease.settle(THROTTLED)
    assert trio.current_time() == 0
    world.whole()


async def test_a_busy_account_is_waited_for_though_others_are_out(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b", settings=CAPPED)
    await world.use(THROTTLED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.use, SERVED, None, 4.0)
        await trio.testing.wait_all_tasks_blocked()
        assert await world.use(SERVED) == "b"
    assert trio.current_time() == 4


async def test_there_is_no_account() -> None:
    with pytest.raises(NoAccount, match="kirostream login"):
        await pooled().use()


# An only account


async def test_an_only_account_is_leased_though_it_cools(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody could go on without it, and the upstream says best when it is ready again."""
    world = pooled("a", "off", settings=PoolSettings(accounts={"off": {"enabled": False}}))
    for outcome in (THROTTLED, Outcome(Kind.SPENT), Outcome(Kind.LOGIN_LOST), *[Outcome(Kind.DENIED)] * 4):
        assert await world.use(outcome) == "a"
    async with world.pool.lease(), world.pool.lease():  # and no probe is waited for
        assert world.of("a").state is State.COOLING
    assert await world.use(SERVED) == "a"
    assert world.of("a").state is State.READY


@pytest.mark.parametrize("kind", [Kind.SUSPICIOUS, Kind.SUSPENDED])
async def test_an_only_account_is_silent_when_it_has_to_be(autojump_clock: trio.testing.MockClock, kind: Kind) -> None:
    world = pooled("a")
    await world.use(Outcome(kind))
    with pytest.raises(KirostreamError):
        await world.use()


async def test_an_account_is_the_only_one_as_long_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a")
    await world.use(THROTTLED)
    assert await world.use() == "a"
    world.pool.add(named("b"))
    assert [await world.use() for _ in range(3)] == ["b", "b", "b"]
    world.pool.remove(AccountId("b"))
    assert await world.use(SERVED) == "a"
    await world.use(THROTTLED)
    world.pool.add(named("a"))
    assert await world.use() == "a"


async def test_the_preferred_account_is_taken_if_it_can_be(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b")
    preferring = Need(prefer=AccountId("b"))
    assert [await world.use(SERVED, preferring) for _ in range(3)] == ["b", "b", "b"]
    await world.use(THROTTLED, preferring)
    assert await world.use(SERVED, preferring) == "a"
    assert await world.use(SERVED, Need(prefer=AccountId("nobody"))) == "a"


async def test_the_outlook_is_what_a_lease_would_meet(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b", settings=CAPPED)
    async with world.pool.lease(), world.pool.lease():
        assert world.pool.outlook() is None  # busy is not out
    await world.use(THROTTLED)
    assert world.pool.outlook() is None
    await trio.sleep(2)
    await world.use(THROTTLED)
    found = world.pool.outlook()
    assert isinstance(found, AccountThrottled)
    assert found.retry_after == 28


# What the operator says


async def test_models_and_selection(autojump_clock: trio.testing.MockClock) -> None:
    settings = PoolSettings(
        selected="a, label of b, c",
        accounts={"a": {"models": ["claude-haiku-*", "auto"]}, "c": {"enabled": False}},
    )
    world = pooled("a", "b", "c", "d", settings=settings)
    for name, state in {"a": State.READY, "b": State.READY, "c": State.DISABLED, "d": State.DISABLED}.items():
        assert world.of(name).state is state
    assert [await world.use(need=Need("claude-opus-4.5")) for _ in range(3)] == ["b"] * 3
    assert {await world.use(need=Need("claude-haiku-4.5")) for _ in range(4)} == {"a", "b"}
    await world.use(Outcome(Kind.NO_MODEL, model="x"), Need("x"))
    with pytest.raises(ModelNotOnAccount):
        await world.use(need=Need("x"))
    assert world.of("b").blocked == ("x",)
    with pytest.raises(NoAccount, match=r"pool\.selected"):
        await pooled("a", settings=PoolSettings(selected="b")).use()


def test_what_is_said_of_one_account_goes_before_what_is_said_of_all() -> None:
    sections = {
        "*": {"weight": 5, "interval": 1, "models": "a, b"},
        "label of x": {"weight": 6, "region": "eu-central-1"},
        "x": {"concurrency": 2, "models": ["c"]},
    }
    assert terms_of(named("x"), sections) == Terms(
        weight=6, interval=1, concurrency=2, models=("c",), region="eu-central-1"
    )
    assert terms_of(named("y"), sections) == Terms(weight=5, interval=1, models=("a", "b"))
    assert Terms(models=("gpt-*",)).allows("")
    assert "secret" not in repr(Terms(proxy="http://u:secret@p:1"))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (3, "is a section"),
        ({"wieght": 3}, "mean 'weight'"),
        ({"zzz": 3}, "It takes: enabled"),
        ({"weight": "3"}, "number"),
        ({"weight": -1}, "0 or more"),
        ({"weight": float("nan")}, "number"),
        ({"concurrency": 1.5}, "whole number"),
        ({"concurrency": True}, "whole number"),
        ({"enabled": 1}, "true or false"),
        ({"models": [1]}, "list of names"),
        ({"proxy": 1}, "text"),
    ],
)
def test_what_makes_no_sense_is_refused(section: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PoolSettings(accounts={"a": section})


@pytest.mark.parametrize(
    "change", [{"strategy": "best"}, {"sticky_idle": 0}, {"wait": -1}, {"waiting": 0}, {"sticky_room": 0}, {"sync": 0}]
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        PoolSettings(**change)  # type: ignore[arg-type]


async def test_a_conversation_stays_and_may_be_let_go(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "b")
    talk = Need(conversation="x")
    assert [await world.use(SERVED, talk) for _ in range(3)] == ["a", "a", "a"]
    await trio.sleep(3601)
    assert await world.use(SERVED) == "b"
    assert await world.use(SERVED, talk) == "a"
    loose = pooled("a", "b", settings=PoolSettings(sticky=False))
    assert [await loose.use(SERVED, talk) for _ in range(3)] == ["a", "b", "a"]


async def test_accounts_come_and_go(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=CAPPED)
    async with world.pool.lease() as lease:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await world.use(SERVED) == "b"

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            world.pool.add(named("b"))
        world.pool.remove(AccountId("a"))
        world.pool.remove(AccountId("a"))
        lease.settle(THROTTLED)
    assert world.pool.accounts == (named("b"),)
    assert await world.use(SERVED) == "b"
    await world.use(THROTTLED)
    world.pool.add(named("b"))  # with what is new in the settings, and as it was
    assert world.of("b").state is State.COOLING


async def test_who_waits_for_an_account_that_is_removed_is_told(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=CAPPED)
    async with world.pool.lease(), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NoAccount):
                await world.use()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        world.pool.remove(AccountId("a"))
    assert trio.current_time() == 0


async def test_people_disable_and_clear(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", "z")
    await world.pool.disable(AccountId("z"))
    await world.pool.disable(AccountId("a"), "by hand")
    with pytest.raises(NoAccount, match="2 disabled") as caught:
        await world.use()
    assert caught.value.retry_after is None
    await world.pool.clear(AccountId("a"))
    assert await world.use(Outcome(Kind.SPENT)) == "a"
    await world.pool.note_reset(AccountId("a"), NOW + 9000)
    with pytest.raises(QuotaSpent) as spent:
        await world.use()
    assert spent.value.retry_after == 9000
    await world.pool.clear(AccountId("a"))
    assert await world.use(SERVED) == "a"


async def test_a_snapshot_tells_no_secret_and_changes_no_more(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=PoolSettings(accounts={"a": {"proxy": "http://u:hunter2@p:1"}}))
    before = world.pool.snapshot()
    await world.use(SERVED)
    assert before.accounts[0].leases == 0
    assert "hunter2" not in repr(world.pool.snapshot())
    assert repr(world.pool) == "<Pool of 1 accounts, 0 in flight, 0 waiting>"


# What is kept


async def test_state_outlives_the_pool(autojump_clock: trio.testing.MockClock) -> None:
    store, clock = MemoryPoolStore(), unix_clock()
    first = pooled("a", "b", store=store, clock=clock)
    await first.use(Outcome(Kind.SUSPENDED))
    await first.use(THROTTLED)
    second = pooled("a", "b", store=store, clock=clock)
    await second.pool.sync()
    assert (second.of("a").state, second.of("b").state) == (State.SUSPENDED, State.COOLING)
    third = pooled(store=store, clock=clock)
    await third.pool.sync()
    third.pool.add(named("a"))  # after the store was read
    await third.pool.sync()
    assert third.of("a").state is State.SUSPENDED


class BrokenStore(MemoryPoolStore):
    """A store that fails while it is told to."""

    broken = False

    async def changes(self, since: int):  # type: ignore[no-untyped-def]
        if self.broken:
            raise StoreError("the disk is full")
        return await super().changes(since)

    async def settle(self, *args, **more):  # type: ignore[no-untyped-def]
        if self.broken:
            raise StoreError("the disk is full")
        return await super().settle(*args, **more)


async def test_a_store_that_fails_is_no_reason_to_fail_a_request(autojump_clock: trio.testing.MockClock) -> None:
    """What was learned holds here, and is written once the store works again."""
    store = BrokenStore()
    world = pooled("a", "b", store=store)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.pool.run)
        store.broken = True
        assert await world.use(THROTTLED) == "a"
        assert await world.use(SERVED) == "b"
        assert world.of("a").state is State.COOLING
        await trio.sleep(7)
        assert len(world.troubles) == 2  # the outcome, and the first of many tries to read
        store.broken = False
        await trio.sleep(3)
        (record,) = await store.changes(0)
        assert (record.account, record.health.state) == ("a", State.COOLING)
        nursery.cancel_scope.cancel()


async def test_what_was_learned_last_is_written_before_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """A pool that runs lets nobody wait for its store, and loses nothing when it is stopped."""

    class SlowStore(MemoryPoolStore):
        async def settle(self, *args, **more):  # type: ignore[no-untyped-def]
            await trio.sleep(1)
            return await super().settle(*args, **more)

    store = SlowStore()
    world = pooled("a", "b", "c", store=store)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.pool.run)
        for _ in range(3):
            await world.use(THROTTLED)
        assert trio.current_time() == 0
        await trio.sleep(0.5)  # the first is being written
        nursery.cancel_scope.cancel()
    assert {record.health.state for record in await store.changes(0)} == {State.COOLING}
    assert len(await store.changes(0)) == 3


async def test_changes_by_others_arrive(autojump_clock: trio.testing.MockClock) -> None:
    store, clock = MemoryPoolStore(), unix_clock()
    here, there = (pooled("a", "b", store=store, clock=clock) for _ in range(2))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.pool.run)
        await there.pool.disable(AccountId("a"))
        await trio.sleep(2.1)
        assert here.of("a").state is State.DISABLED
        nursery.cancel_scope.cancel()


async def test_of_two_outcomes_in_two_pools_none_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """Compare and swap: what comes second is applied to what came first."""
    store, clock = MemoryPoolStore(), unix_clock()
    worlds = [pooled("a", store=store, clock=clock) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for world in worlds:
            nursery.start_soon(world.use, Outcome(Kind.DENIED))
    (record,) = await store.changes(0)
    assert record.health.failures == 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worlds[0].use, Outcome(Kind.NO_MODEL, model="x"))
        nursery.start_soon(worlds[1].use, Outcome(Kind.SUSPENDED))
    (record,) = await store.changes(0)
    assert record.health.state is State.SUSPENDED
    assert record.health.blocks("x", NOW)


def shared(*names: str, store: MemoryPoolStore, settings: PoolSettings) -> tuple[Pooled, Pooled]:
    clock = unix_clock()
    here, there = (pooled(*names, store=store, clock=clock, settings=settings) for _ in range(2))
    return here, there


async def test_a_cap_holds_for_all_pools_of_a_shared_store(autojump_clock: trio.testing.MockClock) -> None:
    here, there = shared("a", "b", store=MemoryPoolStore(shared=True), settings=CAPPED)
    async with here.pool.lease() as one:
        assert one.account.id == "a"
        async with there.pool.lease() as two:
            assert two.account.id == "b"  # its own turn would have been `a`
            with trio.move_on_after(3) as scope:
                await there.use()
            assert scope.cancelled_caught
        assert await there.use(SERVED) == "b"
    here.whole()
    there.whole()
    assert trio.current_time() == 3


async def test_who_waits_for_another_pool_gets_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    here, there = shared("a", store=MemoryPoolStore(shared=True), settings=CAPPED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.use, SERVED, None, 5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert await there.use(SERVED) == "a"
    assert 5 <= trio.current_time() < 5.2


async def test_no_lease_on_what_another_pool_has_learned(autojump_clock: trio.testing.MockClock) -> None:
    here, there = shared("a", "b", store=MemoryPoolStore(shared=True), settings=PoolSettings())
    assert await here.use(THROTTLED) == "a"
    assert there.of("a").state is State.READY  # it does not know yet
    assert [await there.use(SERVED) for _ in range(2)] == ["b", "b"]
    assert there.of("a").state is State.COOLING


async def test_leases_of_the_living_are_renewed_and_those_of_the_dead_lapse(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryPoolStore(shared=True)
    here, there = shared("a", store=store, settings=replace(CAPPED, lease=30, wait=1000))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.pool.run)
        async with here.pool.lease():
            with trio.move_on_after(200):
                await there.use()
            assert trio.current_time() == 200
            nursery.cancel_scope.cancel()  # `here` dies with its lease held: nobody renews it
            with trio.CancelScope(shield=True):
                assert await there.use(SERVED) == "a"
                assert 215 <= trio.current_time() <= 235
