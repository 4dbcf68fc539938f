"""Cancel a token refresh anywhere: what the file holds afterwards works against a service that rotates."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from helpers.cancel import every_checkpoint
from helpers.tokens import NOW, TokenService, account, keep, social, unix_clock
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.own import OwnAccount
from kirostream.stores.sealed import SealedStore


def written(path: Path, left: float) -> IdeFile:
    path.write_text(json.dumps({"accessToken": "aoa-0", "refreshToken": "aor-0", "expiresAt": NOW + left, "mine": 1}))
    return IdeFile(path, home=path.parent)


def members(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


async def works(path: Path, service: TokenService) -> None:
    """A new process that knows the file alone gets a token."""
    (credential,) = await IdeFile(path, home=path.parent).load()
    assert credential.refresh_token.reveal() == service.live
    async with trio.open_nursery() as nursery:
        keeper = TokenKeeper(service.post, time_source=unix_clock())
        keeper.add(account(), IdeFile(path, home=path.parent), credential)
        await nursery.start(keeper.run)
        assert (await keeper.token(account())).access.reveal() in service.access
        nursery.cancel_scope.cancel()
    assert members(path)["mine"] == 1


async def test_a_caller_may_leave_at_any_checkpoint(tmp_path: Path) -> None:
    """Who leaves cancels nothing: the refresh goes on, and its token is saved."""
    for cut in every_checkpoint():
        path = tmp_path / f"{cut.k}.json"
        service = TokenService()
        source = written(path, left=-1)
        async with trio.open_nursery() as nursery:
            kept = await keep(nursery, (await source.load())[0], service, source=source)
            await cut.run(kept.access)
            await kept.settle()
            assert len(service.asked) <= 1
            if service.asked:
                assert await kept.access() == "aoa-1"
                assert len(service.asked) == 1
            nursery.cancel_scope.cancel()
        await works(path, service)


async def test_the_keeper_may_be_stopped_at_any_checkpoint_of_a_refresh(tmp_path: Path) -> None:
    """Shutting down in the middle of a refresh loses no token."""
    sent = 0
    for cut in every_checkpoint():
        path = tmp_path / f"{cut.k}.json"
        service = TokenService()
        source = written(path, left=300)
        async with trio.open_nursery() as nursery:
            kept = await keep(nursery, (await source.load())[0], service, source=source)
            assert await kept.access() == "aoa-0"  # within the advisory window: the refresh runs beside us
            cut.watch(lambda task: task.name.startswith("refresh "), nursery.cancel_scope)
            await kept.settle()
            nursery.cancel_scope.cancel()
        cut.stop()
        sent += len(service.asked)
        await works(path, service)
    assert sent > 1


async def test_what_was_not_sent_is_not_sent_once_the_keeper_stops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = TokenService(delay=20)
    async with trio.open_nursery() as nursery:
        kept = await keep(nursery, social(left=300), service)
        assert await kept.access() == "aoa-0"
        nursery.cancel_scope.cancel()
    assert service.asked == []


async def test_waiters_are_released_when_the_keeper_stops(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits for a flight that will not land."""
    service = TokenService(delay=1)
    outcomes: list[str] = []
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        kept = await keep(nursery, social(left=-1), service)

        async def ask() -> None:
            outcomes.append(await kept.access())

        for _ in range(3):
            callers.start_soon(ask)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert outcomes == ["aoa-1"] * 3  # it was sent already, so it was finished first


async def test_the_keeper_may_be_stopped_at_any_checkpoint_with_a_record_of_ours(tmp_path: Path) -> None:
    """The sealed record is replaced under a lock that processes share: neither is left half done."""
    sent = 0
    for cut in every_checkpoint():
        folder = tmp_path / str(cut.k)
        folder.mkdir()
        service = TokenService()
        source = OwnAccount("record", SealedStore(folder / "sealed"), folder / "lock")
        source.write(social(left=300))
        async with trio.open_nursery() as nursery:
            kept = await keep(nursery, social(left=300), service, source=source)
            assert await kept.access() == "aoa-0"
            cut.watch(lambda task: task.name.startswith("refresh "), nursery.cancel_scope)
            await kept.settle()
            nursery.cancel_scope.cancel()
        cut.stop()
        sent += len(service.asked)
        (held,) = await source.load()
        assert held.refresh_token.reveal() == service.live
        with trio.fail_after(1):
            await source.save(held, held)  # the lock is free
    assert sent > 1
