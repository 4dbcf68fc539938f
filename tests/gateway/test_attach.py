"""Idempotency keys: which request follows which turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from kirostream.dialects.dialect import Heading
from kirostream.errors import KeyReused, MalformedRequest, UpstreamDown
from kirostream.gateway.attach import Attachments
from kirostream.net.exchange import HttpRequest
from kirostream.relay.live import LiveTurn
from kirostream.turn.events import Stop, TurnEnded, TurnFailed, TurnStarted
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.usage import Usage

ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),))
END = TurnEnded(Stop.END, Usage())


def a_turn() -> LiveTurn:
    live = LiveTurn(ASK, Heading("0" * 32, 0), Model("m"), linger=60.0)
    live.log.append([TurnStarted("m")])
    return live


def keyed(key: str = "k") -> HttpRequest:
    return HttpRequest("POST", "/v1/messages", "", [(b"idempotency-key", key.encode())] if key else [])


def attachments(*, coalesce: bool = False) -> Attachments[LiveTurn]:
    return Attachments(lambda live: live, coalesce=coalesce)


async def begin(
    known: Attachments[LiveTurn], key: str = "k", body: bytes = b"1", caller: str = "me"
) -> LiveTurn | None:
    """The turn that a request follows; None where it is the first, and has one of its own then."""
    async with known.claim(caller, keyed(key), body) as claim:
        if claim is None:
            return None
        if claim.found is not None:
            return claim.found
        KEPT.append(a_turn())
        claim.settle(KEPT[-1])
        return None


KEPT: list[LiveTurn] = []


@pytest.fixture(autouse=True)
def _kept() -> None:
    KEPT.clear()


async def test_the_same_key_is_the_same_request() -> None:
    known = attachments()
    assert await begin(known) is None
    assert await begin(known) is KEPT[0]
    KEPT[0].log.append([END])
    assert await begin(known) is KEPT[0]
    assert await begin(known, caller="you") is None
    assert await begin(known, "other") is None


async def test_no_key_is_no_claim() -> None:
    known = attachments()
    assert await begin(known, "") is None
    assert KEPT == []


async def test_the_same_key_with_another_body_is_refused() -> None:
    known = attachments()
    await begin(known)
    with pytest.raises(KeyReused):
        await begin(known, body=b"2")


def fails(live: LiveTurn) -> None:
    live.log.append([TurnFailed(UpstreamDown("gone"))])


def is_left(live: LiveTurn) -> None:
    live.over.set()


def is_cancelled(live: LiveTurn) -> None:
    live.scope.cancel()


@pytest.mark.parametrize("ends", [fails, is_left, is_cancelled])
async def test_a_turn_that_came_to_nothing_is_not_followed(ends: Callable[[LiveTurn], None]) -> None:
    known = attachments()
    await begin(known)
    ends(KEPT[0])
    assert await begin(known, body=b"another body") is None
    assert len(KEPT) == 2


async def test_a_turn_that_is_forgotten_is_not_followed() -> None:
    known = attachments()
    await begin(known)
    KEPT.clear()
    assert await begin(known) is None
    assert len(KEPT) == 1


async def test_the_second_waits_until_the_first_has_a_turn(autojump_clock: trio.testing.MockClock) -> None:
    known = attachments()
    live = a_turn()
    followed: list[LiveTurn | None] = []

    async def first() -> None:
        async with known.claim("me", keyed(), b"1") as claim:
            assert claim is not None
            await trio.sleep(1)
            claim.settle(live)
            await trio.sleep(10)

    async def second() -> None:
        await trio.sleep(0.5)
        followed.append(await begin(known))
        assert trio.current_time() - started < 5

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(second)
    assert followed == [live]


async def test_where_the_first_fails_one_of_the_others_is_the_next(autojump_clock: trio.testing.MockClock) -> None:
    known = attachments()
    followed: list[LiveTurn | None] = []

    async def first() -> None:
        async with known.claim("me", keyed(), b"1"):
            await trio.sleep(1)

    async def other() -> None:
        await trio.sleep(0.5)
        followed.append(await begin(known))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(other)
        nursery.start_soon(other)
    assert sorted(followed, key=bool) == [None, KEPT[0]]


async def test_a_key_has_a_length() -> None:
    with pytest.raises(MalformedRequest):
        await begin(attachments(), "x" * 256)


async def test_identical_requests_share_a_turn_only_where_that_is_on_and_while_it_runs() -> None:
    known = attachments(coalesce=True)
    assert await begin(known, "") is None
    assert await begin(known, "") is KEPT[0]
    assert await begin(known, "", body=b"2") is None
    KEPT[0].log.append([END])
    assert await begin(known, "") is None


async def test_keys_that_stand_for_nothing_are_forgotten() -> None:
    known = attachments()
    for number in range(1000):
        await begin(known, str(number))
        KEPT.clear()
    assert int(repr(known).split()[1]) < 10
