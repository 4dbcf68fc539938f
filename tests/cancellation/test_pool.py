"""Cancel a lease anywhere: nothing is held afterwards, and what was learned is kept."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from helpers.cancel import every_checkpoint
from helpers.pools import Pooled, pooled
from kirostream.accounts.health import SERVED, Kind, Outcome, State
from kirostream.accounts.pool import PoolSettings
from kirostream.accounts.store import MemoryPoolStore, PoolStore
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.stores.sqlite import open_database

CAPPED = PoolSettings(accounts={"*": {"concurrency": 1}})


async def works(world: Pooled) -> None:
    """Both accounts can be had, at once, and at once."""
    world.whole()
    with trio.fail_after(5):
        async with world.pool.lease() as one, world.pool.lease() as two:
            assert {one.account.id, two.account.id} == {"a", "b"}


async def learned(store: PoolStore) -> list[State]:
    return [record.health.state for record in await store.changes(0)]


async def test_a_lease_in_memory(autojump_clock: trio.testing.MockClock) -> None:
    settled = 0
    for cut in every_checkpoint():
        world = pooled("a", "b", settings=CAPPED)

        async def use(world: Pooled = world) -> None:
            nonlocal settled
            async with world.pool.lease() as lease:
                await trio.sleep(1)
                lease.settle(Outcome(Kind.DENIED))
                settled += 1
                await trio.sleep(1)

        before = settled
        await cut.run(use)
        world.whole()
        # What was settled was kept, also by one who was cancelled: the exit is shielded.
        assert len(await world.store.changes(0)) == settled - before
        await works(world)
    assert settled > 1


async def test_a_lease_in_a_shared_store(autojump_clock: trio.testing.MockClock) -> None:
    settled = 0
    for cut in every_checkpoint():
        store = MemoryPoolStore(shared=True)
        world = pooled("a", "b", settings=CAPPED, store=store)

        async def use(world: Pooled = world) -> None:
            nonlocal settled
            async with world.pool.lease() as lease:
                await trio.sleep(1)
                lease.settle(Outcome(Kind.DENIED))
                settled += 1

        before = settled
        await cut.run(use)
        assert len(await store.changes(0)) == settled - before
        await works(world)
        assert repr(store).endswith("0 leases>")
    assert settled > 1


async def test_a_lease_in_the_database(tmp_path: Path) -> None:
    for cut in every_checkpoint():
        async with open_database(tmp_path / f"{cut.k}.db") as database:
            store = SqlitePoolStore(database, shared=True)
            world = pooled("a", "b", settings=CAPPED, store=store)
            begun = False

            async def use(world: Pooled = world) -> None:
                nonlocal begun
                async with world.pool.lease() as lease:
                    lease.settle(Outcome(Kind.SPENT))
                    begun = True

            await cut.run(use)
            assert await learned(store) == ([State.EXHAUSTED] if begun else [])
            held = await database.read(lambda c: c.execute("SELECT COUNT(*) FROM pool_leases").fetchone())
            assert held == (0,)
            world.whole()


async def test_one_in_line(autojump_clock: trio.testing.MockClock) -> None:
    """Also in the moment in which it is given an account: that goes to the next."""
    for cut in every_checkpoint():
        world = pooled("a", "b", settings=CAPPED)
        got: list[str] = []

        async def hold(world: Pooled = world) -> None:
            await world.use(SERVED, hold=1)

        async def follow(world: Pooled = world, got: list[str] = got) -> None:
            got.append(await world.use(SERVED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(follow)
            await cut.run(lambda world=world: world.use(SERVED, hold=1))  # type: ignore[misc]
        assert len(got) == 1
        await works(world)


async def test_given_an_account_and_cancelled_in_one_breath(autojump_clock: trio.testing.MockClock) -> None:
    world = pooled("a", settings=CAPPED)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery, world.pool.lease():
            nursery.start_soon(world.use, SERVED, None, 1.0)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()  # it is delivered with the next checkpoint, and the account is given before
    assert scope.cancelled_caught
    world.whole()
    assert world.of("a").outcomes == {"abandoned": 1}
