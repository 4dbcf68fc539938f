"""A bug in a source costs no token."""

from __future__ import annotations

from pathlib import Path

import trio

from helpers.tokens import TokenService, keep, social
from kirostream.accounts.account import Credential
from kirostream.accounts.sources.own import OwnAccount
from kirostream.stores.sealed import SealedStore


class Buggy(OwnAccount):
    """A source whose first save fails by something that nobody expected."""

    failures = 1

    async def save(self, old: Credential, new: Credential) -> None:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError(new.refresh_token.reveal())
        await super().save(old, new)


async def test_a_token_that_a_bug_kept_from_being_saved_is_used_and_saved_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service = TokenService()
    source = Buggy("record", SealedStore(tmp_path / "sealed"), tmp_path / "lock")
    source.write(social(left=-1))
    async with trio.open_nursery() as nursery:
        kept = await keep(nursery, social(left=-1), service, source=source)
        assert await kept.access() == "aoa-1"
        (state,) = kept.keeper.snapshot().tokens
        assert state.unsaved
        assert "a bug (ZeroDivisionError)" in state.error
        assert service.live not in state.error
        await trio.sleep(10)
        assert await kept.access() == "aoa-1"
        await kept.settle()
        (held,) = await source.load()
        assert held.refresh_token.reveal() == service.live
        nursery.cancel_scope.cancel()
    assert len(service.asked) == 1
