"""Keys that were given out: the list on disk, and the book of a gateway that runs."""

from __future__ import annotations

import hmac
import json
import math
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kirostream.errors import BudgetSpent, CallerThrottled, KeyRejected, SettingsError, StoreError
from kirostream.gateway.callers import Callers
from kirostream.gateway.key_book import KeyBook
from kirostream.gateway.keys import FILE, KeyFile, amended_limits, digest_of
from kirostream.gateway.limits import NONE, Limits
from kirostream.net.exchange import HttpRequest
from kirostream.telemetry.facts import Fact, KeyRefused, KeysTroubled
from kirostream.turn.request import Message, Role, Text, TurnRequest

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("word " * 100),)),))


class Clock:
    """Both clocks, by hand."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 0.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> KeyFile:
    return KeyFile(tmp_path / "data", lambda: clock.wall)


def book_of(
    file: KeyFile,
    clock: Clock,
    spent: Callable[[str, float], Awaitable[float]] | None = None,
    tell: Callable[[Fact], None] = lambda fact: None,
) -> KeyBook:
    return KeyBook(file, spent, tell, now=lambda: clock.wall, clock=lambda: clock.steady)


def request(secret: str) -> HttpRequest:
    return HttpRequest("POST", "/v1/messages", "", ((b"x-api-key", secret.encode()),))


# The list


async def test_a_secret_is_shown_once_and_kept_as_its_digest(file: KeyFile, tmp_path: Path) -> None:
    key, secret = await file.add("ci", scopes=["api", "watch"], limits=Limits(requests=60, credits_per_day=1.5))
    assert len(secret) > 40
    assert await file.keys() == (key,)
    path = tmp_path / "data" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text() + repr(key) + repr(file)
    assert digest_of(secret.encode()) in path.read_text()
    assert secret.endswith(key.hint[-4:])
    assert key.digest not in repr(key)


async def test_what_a_key_may_do_is_changed_and_the_rest_stays(file: KeyFile) -> None:
    key, _ = await file.add("ci", limits=Limits(requests=60, tokens=5))
    changed = await file.change("ci", scopes=["admin"], limits={"tokens": 0, "concurrency": 3}, enabled=False)
    assert changed == replace(
        key, scopes=frozenset({"admin"}), limits=Limits(requests=60, concurrency=3), enabled=False
    )
    assert await file.change(key.id, expires_at=NOON) == replace(changed, expires_at=NOON)
    assert (await file.keys())[0].expires_at == NOON
    assert (await file.remove("ci")).id == key.id
    assert await file.keys() == ()


@pytest.mark.parametrize("name", ["", "default", "internal", "a b", "-x", "x" * 65, "a\n", "ä"])
async def test_names_that_are_none(file: KeyFile, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be called"):
        await file.add(name)


async def test_what_cannot_be(file: KeyFile) -> None:
    await file.add("ci", secret="a-secret-that-somebody-had-before")
    attempts: list[tuple[Callable[[], Awaitable[object]], str]] = [
        (lambda: file.add("ci"), "a key 'ci' already"),
        (lambda: file.add("cd", secret="a-secret-that-somebody-had-before"), "Another key has this secret"),
        (lambda: file.add("cd", secret="short"), "20 or more"),
        (lambda: file.add("cd", scopes=["root"]), "and not root"),
        (lambda: file.add("cd", scopes=[]), "and not none"),
        (lambda: file.change("cd"), "no key 'cd'. Known: ci"),
        (lambda: file.rotate("cd"), "no key 'cd'"),
        (lambda: file.remove("cd"), "no key 'cd'"),
        (lambda: file.change("ci", limits={"turns": 1}), "no limit 'turns'"),
        (lambda: file.change("ci", limits={"tokens": -1}), "tokens takes a number of 0 or more"),
        (lambda: file.change("ci", limits={"tokens": math.inf}), "cannot convert float infinity"),
        (lambda: file.change("ci", limits={"credits_per_day": math.nan}), "credits_per_day takes a number"),
    ]
    for attempt, said in attempts:
        with pytest.raises(SettingsError, match=said):
            await attempt()
    (key,) = await file.keys()
    assert key.limits == NONE
    assert amended_limits(key.limits, {"credits_per_day": 0.5}).credits_per_day == 0.5


async def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(KeyFile(tmp_path, lambda: NOON).add, f"key{number}")
    assert len(await KeyFile(tmp_path, lambda: NOON).keys()) == 8


async def test_what_others_wrote_beside_it_stays(file: KeyFile, tmp_path: Path) -> None:
    await file.add("ci")
    path = tmp_path / "data" / FILE
    said = json.loads(path.read_text())
    said["keys"][0]["team"] = "blue"
    path.write_text(json.dumps(said))
    await file.change("ci", enabled=False)
    assert json.loads(path.read_text())["keys"][0]["team"] == "blue"


@pytest.mark.parametrize("text", ["{", "[]", '{"keys": [{}]}', '{"keys": [{"id": "a", "name": "b", "sha256": "c"}]}'])
async def test_a_damaged_list_is_told_of_and_what_was_known_stays(
    file: KeyFile, tmp_path: Path, clock: Clock, text: str
) -> None:
    _, secret = await file.add("ci")
    facts: list[Fact] = []
    book = book_of(file, clock, tell=facts.append)
    await book.load()
    (tmp_path / "data" / FILE).write_text(text)
    for _ in range(3):
        await book.look()
    (told,) = facts  # once
    assert isinstance(told, KeysTroubled)
    assert "damaged" in told.message
    assert book.find([secret.encode()]) is not None
    with pytest.raises(StoreError, match="damaged"):
        await file.add("cd")


# The book


async def test_a_gateway_that_runs_takes_the_list_in(file: KeyFile, clock: Clock) -> None:
    book = book_of(file, clock)
    callers = Callers(["ks-own"], book=book)
    with pytest.raises(KeyRejected, match="Incorrect"):
        callers.check(request("ks-nobodys"))
    key, secret = await file.add("ci", scopes=["api", "watch"])
    await book.look()
    caller = callers.check(request(secret))
    assert (caller.name, caller.key_id, caller.owner, caller.scopes) == ("ci", key.id, key.id, key.scopes)
    await file.change("ci", enabled=False)
    await book.look()
    with pytest.raises(KeyRejected, match="'ci' is disabled"):
        callers.check(request(secret))
    await file.remove("ci")
    await book.look()
    with pytest.raises(KeyRejected, match="Incorrect"):
        callers.check(request(secret))
    with pytest.raises(KeyRejected, match="taken back"):
        await book.admit("ci", ASK)


async def test_a_key_expires_on_the_second(file: KeyFile, clock: Clock) -> None:
    _, secret = await file.add("ci", expires_at=NOON + 10)
    book = book_of(file, clock)
    await book.load()
    clock.pass_(9.9)
    assert book.find([secret.encode()]) is not None
    clock.pass_(0.1)
    with pytest.raises(KeyRejected, match=r"has expired \(2026-01-01 12:00 UTC\)") as caught:
        book.find([secret.encode()])
    assert caught.value.reason == "key_expired"
    with pytest.raises(KeyRejected, match="expired"):
        await book.admit("ci", ASK)


async def test_a_rotated_key_keeps_its_owner_and_its_old_secret_for_a_while(file: KeyFile, clock: Clock) -> None:
    key, old = await file.add("ci")
    rotated, new = await file.rotate("ci", keep=60)
    assert rotated.id == key.id
    book = book_of(file, clock)
    await book.load()
    assert book.find([new.encode()]) == book.find([old.encode()])
    clock.pass_(60)
    assert book.find([new.encode()]) is not None
    with pytest.raises(KeyRejected, match="was replaced"):
        book.find([old.encode()])
    await file.rotate("ci")
    await book.load()
    assert book.find([old.encode()]) is None
    assert book.find([new.encode()]) is None


@pytest.mark.parametrize("which", [0, 1, 2, None])
async def test_each_digest_is_compared_in_constant_time_and_to_its_end(
    file: KeyFile, clock: Clock, monkeypatch: pytest.MonkeyPatch, which: int | None
) -> None:
    secrets = [(await file.add(f"key{number}"))[1] for number in range(3)]
    book = book_of(file, clock)
    await book.load()
    compared: list[tuple[bytes, bytes]] = []

    def constant(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", constant)
    offered = [b"wrong", secrets[which].encode() if which is not None else b"x"]
    found = book.find(offered)
    assert (found.name if found else None) == (f"key{which}" if which is not None else None)
    digests = [digest_of(each).encode() for each in offered]
    assert sorted(compared) == sorted((digest_of(one.encode()).encode(), each) for one in secrets for each in digests)


async def test_requests_a_minute_and_when_to_come_back(file: KeyFile, clock: Clock) -> None:
    await file.add("ci", limits=Limits(requests=2))
    facts: list[Fact] = []
    book = book_of(file, clock, tell=facts.append)
    await book.load()
    for _ in range(2):
        settle = await book.admit("ci", ASK)
        assert settle is not None
        settle(10, 0.1)
    with pytest.raises(CallerThrottled, match=r"'ci' may make 2 requests a minute\. Try again in 30 s") as caught:
        await book.admit("ci", ASK)
    assert (caught.value.retry_after, caught.value.reason, caught.value.blame.value) == (30.0, "requests", "client")
    assert facts == [KeyRefused(key="ci", limit="requests", seconds=30.0)]
    clock.pass_(30)
    assert await book.admit("ci", ASK) is not None


async def test_turns_at_once_and_tokens(file: KeyFile, clock: Clock) -> None:
    await file.add("ci", limits=Limits(concurrency=1, tokens=1000))
    book = book_of(file, clock)
    await book.load()
    settle = await book.admit("ci", ASK)
    assert settle is not None
    with pytest.raises(CallerThrottled, match="1 turns at the same time") as caught:
        await book.admit("ci", ASK)
    assert (caught.value.reason, caught.value.retry_after) == ("concurrency", 1.0)
    settle(3000, 0.0)
    settle(3000, 0.0)  # once is enough
    assert book.uses()[0].in_flight == 0
    with pytest.raises(CallerThrottled, match="1000 tokens a minute") as caught:
        await book.admit("ci", ASK)
    assert caught.value.retry_after == pytest.approx(2001 * 60 / 1000)
    assert caught.value.retry_after is not None
    clock.pass_(caught.value.retry_after)
    assert await book.admit("ci", ASK) is not None


async def test_a_budget_is_read_from_the_ledger_and_ends_with_the_day(file: KeyFile, clock: Clock) -> None:
    await file.add("ci", limits=Limits(credits_per_day=5, credits_per_month=100))
    asked: list[tuple[str, float]] = []

    async def spent(name: str, since: float) -> float:
        asked.append((name, since))
        return 4.5

    clock.wall = NOON + 86_400
    book = book_of(file, clock, spent)
    await book.load()
    settle = await book.admit("ci", ASK)
    assert settle is not None
    assert asked == [("ci", NOON), ("ci", NOON + 43_200)]  # not before the key was made
    settle(0, 0.75)
    use = book.uses()[0]
    assert (use.credits_today, use.credits_this_month) == (5.25, 5.25)
    with pytest.raises(BudgetSpent, match=r"5 credits of the day\. They come back at 2026-01-03 00:00 UTC") as caught:
        await book.admit("ci", ASK)
    assert (caught.value.retry_after, caught.value.reason) == (43_200.0, "credits_per_day")
    clock.pass_(43_200)
    assert await book.admit("ci", ASK) is not None
    assert len(asked) == 2


async def test_a_ledger_that_cannot_be_read_refuses_nobody(file: KeyFile, clock: Clock) -> None:
    await file.add("ci", limits=Limits(credits_per_month=5))
    facts: list[Fact] = []
    broken = True

    async def spent(name: str, since: float) -> float:
        if broken:
            raise StoreError("the disk is full")
        return 5.0

    book = book_of(file, clock, spent, facts.append)
    await book.load()
    for _ in range(2):
        assert await book.admit("ci", ASK) is not None
    assert facts == [KeysTroubled(message="the disk is full")]
    broken = False
    with pytest.raises(BudgetSpent, match=r"of the month\. They come back at 2026-02-01"):
        await book.admit("ci", ASK)


async def test_other_limits_act_at_once(file: KeyFile, clock: Clock) -> None:
    await file.add("ci", limits=Limits(requests=1))
    book = book_of(file, clock)
    await book.load()
    await book.admit("ci", ASK)
    with pytest.raises(CallerThrottled):
        await book.admit("ci", ASK)
    await file.change("ci", limits={"requests": 3})
    await book.load()
    assert await book.admit("ci", ASK) is not None
    await file.change("ci", limits={"requests": 0})
    await book.load()
    assert await book.admit("ci", ASK) is None


async def test_the_gateways_own_keys_have_no_limits(file: KeyFile, clock: Clock) -> None:
    book = book_of(file, clock)
    for name in ("", "default", "internal"):
        assert await book.admit(name, ASK) is None
    assert book.uses() == []
