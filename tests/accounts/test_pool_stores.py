"""One contract for every store of the pool, and what only the embedded database can do."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from helpers.pools import pooled
from kirostream.accounts.account import AccountId
from kirostream.accounts.board import Need
from kirostream.accounts.health import HEALTHY, SERVED, Health, Kind, Outcome, State, cleared, disabled
from kirostream.accounts.pool import PoolSettings
from kirostream.accounts.store import Limits, MemoryPoolStore, PoolStore, Record, amend
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.errors import StoreError
from kirostream.stores.sqlite import Connection, open_database

NOW = 1_767_225_600.0
A, B = AccountId("a"), AccountId("b")
COOLING = Health(
    state=State.COOLING,
    until=NOW + 30.25,
    failures=2,
    pauses=1,
    why="throttled",
    since=NOW,
    resets_at=NOW + 9.5,
    blocked=(("opus", NOW + 3600), ("haiku", NOW + 7.0)),
)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PoolStore]:
    if request.param == "memory":
        yield MemoryPoolStore(shared=True)
        return
    async with open_database(tmp_path / "pool.db") as database:
        yield SqlitePoolStore(database, shared=True)


async def test_what_is_kept_is_read_as_it_was(store: PoolStore) -> None:
    assert list(await store.changes(0)) == []
    version = await store.settle(A, None, COOLING, 0)
    assert version is not None
    assert list(await store.changes(0)) == [Record(A, COOLING, version)]
    assert list(await store.changes(version)) == []


@pytest.mark.parametrize("state", State)
async def test_every_state_can_be_kept(store: PoolStore, state: State) -> None:
    await store.settle(A, None, Health(state=state), 0)
    assert [record.health.state for record in await store.changes(0)] == [state]


async def test_versions_grow_over_all_accounts(store: PoolStore) -> None:
    first = await store.settle(A, None, COOLING, 0)
    second = await store.settle(B, None, COOLING, 0)
    assert first is not None
    assert second is not None
    third = await store.settle(A, None, HEALTHY, first)
    assert third is not None
    assert first < second < third
    assert [(record.account, record.version) for record in await store.changes(0)] == [("b", second), ("a", third)]
    assert [record.account for record in await store.changes(second)] == ["a"]


async def test_who_has_not_seen_the_last_change_changes_nothing(store: PoolStore) -> None:
    version = await store.settle(A, None, COOLING, 0)
    assert version is not None
    for seen in (0, version - 1, version + 1):
        assert await store.settle(A, None, HEALTHY, seen) is None
    assert [record.health for record in await store.changes(0)] == [COOLING]


async def test_leases_are_counted(store: PoolStore) -> None:
    limits = Limits(at_once=2)
    one = await store.try_acquire(A, 0, limits, NOW)
    two = await store.try_acquire(A, 0, limits, NOW)
    assert one is not None
    assert two is not None
    assert one != two
    assert await store.try_acquire(A, 0, limits, NOW) is None
    assert await store.try_acquire(B, 0, limits, NOW) is not None
    await store.settle(A, one)
    await store.settle(A, one)  # ended already
    assert await store.try_acquire(A, 0, limits, NOW) is not None
    assert await store.try_acquire(A, 0, limits, NOW) is None


async def test_a_lease_is_refused_to_who_has_not_seen_the_last_change(store: PoolStore) -> None:
    version = await store.settle(A, None, COOLING, 0)
    assert version is not None
    assert await store.try_acquire(A, 0, Limits(), NOW) is None
    assert await store.try_acquire(A, version, Limits(), NOW) is not None


async def test_a_lease_lapses_unless_it_is_renewed(store: PoolStore) -> None:
    limits = Limits(at_once=1, ttl=60)
    dead = await store.try_acquire(A, 0, limits, NOW)
    living = await store.try_acquire(B, 0, limits, NOW)
    assert dead is not None
    assert living is not None
    assert await store.try_acquire(A, 0, limits, NOW + 59.9) is None
    await store.renew([living], 60, NOW + 50)
    assert await store.try_acquire(A, 0, limits, NOW + 60) is not None
    assert await store.try_acquire(B, 0, limits, NOW + 109.9) is None
    await store.renew([dead, living], 60, NOW + 200)  # too late for both
    assert await store.try_acquire(B, 0, limits, NOW + 200) is not None


async def test_pace(store: PoolStore) -> None:
    limits = Limits(interval=5)
    assert await store.try_acquire(A, 0, limits, NOW) is not None
    assert await store.try_acquire(A, 0, limits, NOW + 4.9) is None
    assert await store.try_acquire(A, 0, limits, NOW + 5) is not None


async def test_settling_ends_a_lease_even_where_nothing_is_kept(store: PoolStore) -> None:
    limits = Limits(at_once=1)
    lease = await store.try_acquire(A, 0, limits, NOW)
    await store.settle(A, None, COOLING, 0)
    assert await store.settle(A, lease, HEALTHY, 0) is None
    (record,) = await store.changes(0)
    assert await store.try_acquire(A, record.version, limits, NOW) is not None


async def test_commands_reach_the_store_whoever_else_writes(store: PoolStore) -> None:
    record = await amend(store, A, lambda health: disabled(health, NOW))
    assert (record.health.state, record.version > 0) == (State.DISABLED, True)
    assert await amend(store, A, lambda health: health) == record
    tries = 0

    def clear(health: Health) -> Health:
        nonlocal tries
        tries += 1
        return cleared(health, NOW + tries)

    class Hasty(MemoryPoolStore):
        async def settle(self, *args, **more):  # type: ignore[no-untyped-def]
            if tries == 1:
                await super().settle(A, None, COOLING, args[3])
            return await super().settle(*args, **more)

    record = await amend(Hasty(), A, clear)
    assert (tries, record.health) == (2, cleared(COOLING, NOW + 2))


async def test_many_pools_on_one_store_keep_the_caps(store: PoolStore) -> None:
    """However they are interleaved, no account has more than its cap, and nothing is left behind."""
    settings = PoolSettings(accounts={"*": {"concurrency": 2}}, wait=30)
    worlds = [pooled("a", "b", "c", store=store, settings=settings) for _ in range(3)]
    held = dict.fromkeys("abc", 0)
    most = dict.fromkeys("abc", 0)

    async def ask(number: int) -> None:
        async with worlds[number % 3].pool.lease(Need(conversation=f"{number % 5}")) as lease:
            name = str(lease.account.id)
            held[name] += 1
            most[name] = max(most[name], held[name])
            await trio.sleep(0.001)
            held[name] -= 1
            lease.settle(SERVED)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
    assert all(1 <= count <= 2 for count in most.values()), most
    for world in worlds:
        world.whole()


# The embedded database


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    async with open_database(tmp_path / "pool.db") as database:
        world = pooled("a", "b", store=SqlitePoolStore(database))
        await world.use(Outcome(Kind.SUSPENDED))
        await world.use(Outcome(Kind.THROTTLED))
        before = world.pool.snapshot()
    async with open_database(tmp_path / "pool.db") as database:
        world = pooled("a", "b", store=SqlitePoolStore(database))
        await world.pool.sync()
        for was, now in zip(before.accounts, world.pool.snapshot().accounts, strict=True):
            assert replace(was, leases=0, outcomes={}) == replace(now, outcomes={})


async def test_a_store_of_one_process_is_asked_for_no_lease(tmp_path: Path) -> None:
    """A lease and an answer cost no transaction."""
    async with open_database(tmp_path / "pool.db") as database:
        world = pooled("a", store=SqlitePoolStore(database))

    assert await world.use(SERVED) == "a"  # and the database is closed by now
    world.whole()


async def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    async with open_database(tmp_path / "pool.db") as database:
        store = SqlitePoolStore(database)
        await store.settle(A, None, COOLING, 0)

        def spoil(connection: Connection) -> None:
            connection.execute("UPDATE pool_accounts SET state = 'WORSE'")

        await database.write(spoil)
        with pytest.raises(StoreError, match="accounts reset"):
            await store.changes(0)


WORKER = """
    import json, sys, time
    from pathlib import Path
    import trio
    from kirostream.accounts.account import Account, AccountId, AuthMethod
    from kirostream.accounts.health import SERVED, Kind, Outcome
    from kirostream.accounts.pool import Pool, PoolSettings
    from kirostream.accounts.store_sqlite import SqlitePoolStore
    from kirostream.stores.sqlite import open_database

    async def main(path, rounds):
        spans = []
        async with open_database(Path(path)) as database, trio.open_nursery() as nursery:
            settings = PoolSettings(accounts={"a": {"concurrency": 1}}, wait=60)
            pool = Pool(settings, SqlitePoolStore(database, shared=True))
            pool.add(Account(id=AccountId("a"), label="a", auth=AuthMethod.SOCIAL))
            await nursery.start(pool.run)
            for number in range(rounds):
                async with pool.lease() as lease:
                    begun = time.monotonic_ns()
                    await trio.sleep(0.002)
                    # every fifth learns that a model is missing: a change that the other has to take over
                    if number % 5:
                        lease.settle(SERVED)
                    else:
                        lease.settle(Outcome(Kind.NO_MODEL, model=f"{sys.argv[3]}{number}"))
                    spans.append((begun, time.monotonic_ns()))
            nursery.cancel_scope.cancel()
        print(json.dumps(spans))

    trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


async def test_two_processes_share_an_account_that_takes_one_request(tmp_path: Path) -> None:
    """Concurrency 1 holds across processes, and what both learn is kept."""
    path, rounds = tmp_path / "pool.db", 15
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(path), str(rounds)]
    outputs: list[list[tuple[int, int]]] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def work(name: str) -> None:
                done = await trio.run_process([*command, name], capture_stdout=True)
                assert done.stdout is not None
                outputs.append(json.loads(done.stdout))

            nursery.start_soon(work, "x")
            nursery.start_soon(work, "y")
    assert [len(output) for output in outputs] == [rounds, rounds]
    spans = sorted(span for output in outputs for span in output)
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert end <= begin
    async with open_database(path) as database:
        (record,) = await SqlitePoolStore(database).changes(0)
        leases = await database.read(lambda c: c.execute("SELECT COUNT(*) FROM pool_leases").fetchone())
    assert {name for name, _ in record.health.blocked} == {f"{who}{n}" for who in "xy" for n in range(0, rounds, 5)}
    assert leases == (0,)
