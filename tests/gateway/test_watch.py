"""Watching turns: whoever comes and goes, in whatever language, gets the very bytes of an undisturbed run."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exchange import FakeExchange
from helpers.turns import RESULT, cut_finer
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.errors import KeyRejected, MalformedRequest, NoSuchTurn, UpstreamDown
from kirostream.gateway.callers import Callers
from kirostream.gateway.sse import Heartbeats
from kirostream.gateway.watch import CANONICAL, Languages, Watch
from kirostream.net.exchange import Exchange, PeerGone
from kirostream.net.router import Router
from kirostream.relay.directory import Directory, TurnsSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.relay import Relay
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.result import unfold
from kirostream.turn.usage import Usage
from kirostream.turn.wire import dump

KEY = "k"
AUTH = (b"authorization", b"Bearer k")
TURN = "0123456789abcdef" * 2
ASK = TurnRequest(
    model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True, include_usage=True, spoken_in="anthropic"
)
LANGUAGES = ["anthropic", "openai_chat", "openai_responses", CANONICAL]


class Gone(FakeExchange):
    """A connection that breaks once `room` bytes were sent."""

    room = 1 << 30

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.take(data)

    async def start(self, status: int, headers: Any, first: bytes = b"") -> None:
        await super().start(status, headers)
        self.take(first)

    async def finish(self, last: bytes = b"") -> None:
        await trio.lowlevel.checkpoint()
        self.take(last)

    def take(self, data: bytes) -> None:
        self.sent += data[: self.room - len(self.sent)]
        if len(self.sent) >= self.room:
            raise PeerGone("cut by the test")


class Stage:
    """A turn, and the routes to it."""

    def __init__(self) -> None:
        self.directory = Directory(TurnsSettings())
        self.live = LiveTurn(ASK, Heading(TURN, 1_000_000), Model("m"), caller="default", linger=60.0)
        self.directory.add(self.live)
        self.router = Router()
        relay = cast(Relay, SimpleNamespace(directory=self.directory))
        Watch(relay, Callers([KEY]), Heartbeats(10.0), Languages(DIALECTS.values())).add_to(self.router)

    async def call(
        self,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        last: str = "",
        room: int = 1 << 30,
    ) -> Gone:
        headers = [AUTH, *([(b"last-event-id", last.encode())] if last else [])]
        exchange = Gone(method, path, headers=headers, query=query)
        exchange.room = room
        await self.router(cast(Exchange, exchange))
        return exchange

    async def follow(self, dialect: str, cuts: list[int]) -> bytes:
        """Everything a client has that loses its connection after each of `cuts` bytes, and comes back."""
        have, last = b"", ""
        for room in [*cuts, 1 << 30]:
            headers = [AUTH, *([(b"last-event-id", last.encode())] if last else [])]
            exchange = Gone("GET", f"/v1/turns/{TURN}/events", headers=headers, query=f"dialect={dialect}")
            exchange.room = room
            try:
                await self.router(cast(Exchange, exchange))
            except PeerGone:
                whole = exchange.sent[: exchange.sent.rfind(b"\n\n") + 2] if b"\n\n" in exchange.sent else b""
                have += whole
                ids = [line for line in whole.split(b"\n") if line.startswith(b"id: ")]
                last = ids[-1][4:].decode() if ids else last
            else:
                return have + exchange.sent
        raise AssertionError("never whole")


def undisturbed(dialect: str, events: list[TurnEvent]) -> bytes:
    """The stream without ids, as a plain POST has it."""
    if dialect == CANONICAL:
        return b"".join(b"data: %b\n\n" % dump(event) for event in events)
    writer = DIALECTS[dialect].writer(ASK, Heading(TURN, 1_000_000))
    return b"".join(block for event in events for block in writer.write(event))


def without_ids(stream: bytes) -> bytes:
    return b"\n".join(line for line in stream.split(b"\n") if not line.startswith(b"id: "))


@st.composite
def turns(draw: st.DrawFn) -> list[TurnEvent]:
    events = draw(cut_finer(list(unfold(draw(RESULT)))))
    if draw(st.booleans()):
        return events
    return [*events[: draw(st.integers(1, len(events)))][:-1], TurnFailed(UpstreamDown("it fell over"))]


CUTS = st.lists(st.integers(1, 700), max_size=12)


@settings(max_examples=60, deadline=None)
@given(turns(), st.lists(st.tuples(st.sampled_from(LANGUAGES), CUTS), min_size=1, max_size=5), st.data())
def test_who_comes_back_gets_the_very_bytes_of_an_undisturbed_run(
    events: list[TurnEvent], clients: list[tuple[str, list[int]]], data: st.DataObject
) -> None:
    points = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6)))
    got: dict[int, bytes] = {}

    async def run() -> None:
        stage = Stage()

        async def client(number: int, dialect: str, cuts: list[int]) -> None:
            got[number] = await stage.follow(dialect, cuts)

        async with trio.open_nursery() as nursery:
            for number, (dialect, cuts) in enumerate(clients):
                nursery.start_soon(client, number, dialect, cuts)
            at = 0
            for point in [*points, len(events)]:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                stage.live.log.append(events[at:point])
                at = point

    trio.run(run)
    for number, (dialect, _) in enumerate(clients):
        stream = got[number]
        assert without_ids(stream) == undisturbed(dialect, events)
        said = [event for event in stream.split(b"\n\n") if event]
        assert all(event.startswith(b"id: ") for event in said)
        assert len({event.split(b"\n")[0] for event in said}) == len(said)


SAID: list[TurnEvent] = [TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), BlockDelta(0, (b"a", b"b", b"c"))]


async def test_a_run_of_pieces_can_be_cut_between_any_two() -> None:
    stage = Stage()
    stage.live.log.append([*SAID, TurnFailed(UpstreamDown("gone"))])
    whole = (await stage.call(f"/v1/turns/{TURN}/events", query="dialect=openai_chat")).sent
    ids = [line[4:].decode() for line in whole.split(b"\n") if line.startswith(b"id: ")]
    for last in ids[:-1]:
        rest = (await stage.call(f"/v1/turns/{TURN}/events", query="dialect=openai_chat", last=last)).sent
        assert whole.endswith(rest)
        assert whole[: -len(rest)].rsplit(b"id: ", 1)[1].startswith(last.encode())
    assert len(ids) == 5


async def test_a_turn_is_described_while_it_runs_and_when_it_is_over() -> None:
    stage = Stage()
    stage.live.log.append(SAID)
    running = json.loads((await stage.call(f"/v1/turns/{TURN}")).sent)
    assert (running["status"], running["events"], running["model"]) == ("in_progress", 3, "m")
    assert (running["tokens"], running["answered_by"], running["account"]) == (1, "m", "")
    assert "seconds" not in running  # its pump has not begun
    stage.live.log.append([BlockDelta(0, (b"x" * 33,))])
    stage.live.account, stage.live.began, stage.live.ended = "a***@x", 5.0, 7.25
    running = json.loads((await stage.call(f"/v1/turns/{TURN}")).sent)
    assert (running["tokens"], running["seconds"], running["account"]) == (10, 2.25, "a***@x")
    stage.live.log.append([TurnEnded(Stop.END, Usage(input_tokens=3, output_tokens=2, credits=0.5))])
    done = json.loads((await stage.call("/v1/turns")).sent)["data"]
    assert [turn["status"] for turn in done] == ["completed"]
    assert done[0]["usage"] == {"input_tokens": 3, "output_tokens": 2}
    assert (done[0]["credits"], done[0]["tokens"]) == (0.5, 2)


async def test_a_turn_can_be_cancelled_and_its_watchers_are_told() -> None:
    stage = Stage()
    stage.live.log.append(SAID)
    async with trio.open_nursery() as nursery:
        watched: list[Gone] = []

        async def watch() -> None:
            watched.append(await stage.call(f"/v1/turns/{TURN}/events"))

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        said = json.loads((await stage.call(f"/v1/turns/{TURN}/cancel", method="POST")).sent)
    assert (said["status"], said["error"]["type"]) == ("failed", "TurnCancelled")
    assert watched[0].sent.count(b"event: error") == 1


@pytest.mark.parametrize(
    ("query", "last"),
    [
        ("dialect=kiro", ""),
        ("dialect=klingon", ""),
        ("", "nonsense"),
        ("", f"{TURN}.9.1"),
        ("", f"{'f' * 32}.0.1"),
        ("", f"{TURN}.{'9' * 5000}.0"),
        ("", f"{TURN}.0.{'9' * 5000}"),
    ],
)
async def test_what_cannot_be_watched_is_refused(query: str, last: str) -> None:
    stage = Stage()
    stage.live.log.append(SAID)
    with pytest.raises(MalformedRequest):
        await stage.call(f"/v1/turns/{TURN}/events", query=query, last=last)


async def test_a_turn_of_somebody_else_is_not_there_and_no_key_opens_nothing() -> None:
    stage = Stage()
    with pytest.raises(NoSuchTurn):
        await stage.call(f"/v1/turns/{'f' * 32}")
    stage.live.caller = "guest-of-somebody"  # the gateway's own key sees those of every key, and of no guest
    with pytest.raises(NoSuchTurn):
        await stage.call(f"/v1/turns/{TURN}/events")
    assert json.loads((await stage.call("/v1/turns")).sent)["data"] == []
    for path in ("/v1/turns", f"/v1/turns/{TURN}", f"/v1/turns/{TURN}/events"):
        with pytest.raises(KeyRejected):
            await stage.router(cast(Exchange, FakeExchange("GET", path)))
