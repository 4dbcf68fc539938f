"""What is kept of answers, for how long, and for whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kirostream.gateway.responses_store import ResponseStore, Stored, StoreSettings
from kirostream.stores.sqlite import open_database

NOW = 1_800_000_000


def answer(name: str, previous: str = "", *, caller: str = "me", created: int = NOW, size: int = 10) -> Stored:
    item = json.dumps({"id": f"msg_{name}", "text": "é" * size}, ensure_ascii=False).encode()
    return Stored(name, caller, created, previous, b'{"id":"%b"}' % name.encode(), (b'{"a": 1}', b"{}"), (item,))


@asynccontextmanager
async def opened(path: Path, *, days: float = 30, size: int = 1 << 20) -> AsyncIterator[ResponseStore]:
    async with open_database(path / "a.db") as database:
        yield ResponseStore(database, StoreSettings(days=days, size=size), lambda: NOW)


async def test_what_is_saved_is_found_also_by_another_process(tmp_path: Path) -> None:
    one = answer("r1")
    async with opened(tmp_path) as store:
        await store.save(one)
        assert await store.get("r1", "me") == one
    async with opened(tmp_path) as store:
        assert await store.get("r1", "me") == one
        assert one.size == len(one.response) + 10 + len(one.output[0])


async def test_a_caller_finds_only_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.save(answer("r1"))
        assert await store.get("r1", "you") is None
        assert await store.chain("r1", "you") is None
        assert await store.outputs(["r1"], "you") == {}
        assert not await store.delete("r1", "you")
        assert await store.delete("r1", "me")
        assert not await store.delete("r1", "me")


async def test_a_conversation_is_found_from_its_end(tmp_path: Path) -> None:
    first, second, third = answer("r1"), answer("r2", "r1"), answer("r3", "r2")
    async with opened(tmp_path) as store:
        for each in (first, second, third):
            await store.save(each)
        assert await store.chain("r3", "me") == [first, second, third]
        assert await store.outputs(["r1", "r3", "r9"], "me") == {"r1": first.output, "r3": third.output}
        await store.delete("r1", "me")
        assert await store.chain("r3", "me") is None


async def test_a_circle_has_an_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.save(answer("r1", "r1"))
        assert await store.chain("r1", "me") is None


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with opened(tmp_path, days=1) as store:
        await store.save(answer("old", created=NOW - 86_401))
        await store.save(answer("new", created=NOW - 86_399))
        assert await store.get("old", "me") is None
        assert await store.get("new", "me") is not None


async def test_what_is_too_much_goes_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path, size=400) as store:
        for n in range(50):
            await store.save(answer(f"r{n:02}", created=NOW + n))
        kept = [n for n in range(50) if await store.get(f"r{n:02}", "me") is not None]
        assert 1 < len(kept) < 8
        assert kept == list(range(50 - len(kept), 50))


async def test_no_days_keep_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, days=0) as store:
        await store.save(answer("r1", created=NOW - 1))
        assert await store.get("r1", "me") is None
