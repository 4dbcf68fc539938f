"""Who watches a turn, how long it lives, and how long it can be found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import trio
import trio.testing

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading, Writer
from kirostream.errors import AnswerTooLarge, NoSuchTurn, TurnCancelled
from kirostream.relay.directory import HELD, Directory, TurnsSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import WEIGH, TurnLog
from kirostream.turn.events import BlockDelta, BlockKind, BlockStarted, Stop, TurnEnded, TurnFailed, TurnStarted
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.usage import Usage

ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True, spoken_in="anthropic")
END = TurnEnded(Stop.END, Usage())


def a_turn(number: int = 0, caller: str = "me", linger: float = 0.0) -> LiveTurn:
    return LiveTurn(ASK, Heading(f"{number:032x}", 0), Model("m"), caller=caller, linger=linger)


def over(live: LiveTurn, *said: BlockDelta) -> LiveTurn:
    live.log.append([TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), *said, END])
    live.over.set()
    return live


async def test_the_last_watcher_to_leave_ends_the_turn() -> None:
    live = a_turn()
    with live.watching():
        with live.watching():
            pass
        assert not live.scope.cancel_called
    assert live.scope.cancel_called


@pytest.mark.parametrize("linger", [5.0, math.inf])
async def test_a_turn_that_lingers_is_not_ended_by_its_watchers(linger: float) -> None:
    live = a_turn(linger=linger)
    with live.watching():
        pass
    assert not live.scope.cancel_called


def test_one_rendering_serves_every_watcher_of_a_language() -> None:
    live = a_turn()
    made: list[str] = []

    def make(name: str) -> Writer:
        made.append(name)
        return DIALECTS[name].writer(live.request, live.heading)

    renderings = {
        id(live.rendering(name, lambda name=name: make(name), ids=ids))  # type: ignore[misc]
        for _ in range(3)
        for name in ("anthropic", "openai_chat")
        for ids in (False, True)
    }
    assert len(renderings) == len(made) == 4


async def test_the_conversation_and_what_was_rendered_go_when_nobody_needs_them() -> None:
    live = a_turn(linger=1.0)

    def make() -> Writer:
        return DIALECTS["anthropic"].writer(live.request, live.heading)

    with live.watching():
        over(live)
        live.slim()
        assert live.request.messages
        rendering = live.rendering("anthropic", make, ids=True)
        said = rendering.blocks()
        assert live.rendering("anthropic", make, ids=True) is rendering
    assert live.request == replace(ASK, messages=())
    with live.watching():  # who comes back has it anew, and the same
        again = live.rendering("anthropic", make, ids=True)
        assert again is not rendering
        assert again.blocks() == said


async def test_cancelling_tells_the_watchers_and_leaves_a_finished_turn_alone() -> None:
    live, done = a_turn(), over(a_turn())
    live.cancel()
    done.cancel()
    last = live.log.events[-1]
    assert isinstance(last, TurnFailed)
    assert isinstance(last.error, TurnCancelled)
    assert live.scope.cancel_called
    assert done.log.events[-1] is END


def test_an_answer_that_grows_beyond_the_cap_ends_with_an_error() -> None:
    log = TurnLog(cap=10_000)
    log.append([TurnStarted("m"), BlockStarted(0, BlockKind.TEXT)])
    said = 0
    while not log.finished:
        log.append([BlockDelta.of(0, "x" * 20)])
        said += 1
        assert said <= WEIGH
    last = log.events[-1]
    assert isinstance(last, TurnFailed)
    assert isinstance(last.error, AnswerTooLarge)
    assert log.size > 10_000


async def test_a_client_that_is_gone_holds_nothing_back(autojump_clock: trio.testing.MockClock) -> None:
    log = TurnLog(window=2)
    log.append([TurnStarted("m"), BlockStarted(0, BlockKind.TEXT)])
    assert not log.has_room
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.room)
        await trio.testing.wait_all_tasks_blocked()
        log.release()
    assert log.has_room


async def test_a_turn_is_found_by_its_caller_alone() -> None:
    directory = Directory(TurnsSettings())
    live = a_turn()
    directory.add(live)
    assert await directory.find(live.heading.turn, "me".__eq__) is live
    for turn, caller in ((live.heading.turn, "you"), ("f" * 32, "me")):
        with pytest.raises(NoSuchTurn):
            await directory.find(turn, caller.__eq__)
    assert directory.of("you".__eq__) == []


async def test_a_turn_can_be_replayed_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    directory = Directory(TurnsSettings(replay=10.0))
    live = over(a_turn())
    directory.add(live)
    directory.close(live)
    assert await directory.find(live.heading.turn, "me".__eq__) is live
    assert directory.of("me".__eq__) == [live]
    assert len(directory) == 0
    with trio.move_on_after(9.5):
        await directory.run()
    assert directory.snapshot().over == 1
    with trio.move_on_after(2):
        await directory.run()
    assert directory.snapshot().over == directory.snapshot().size == 0
    with pytest.raises(NoSuchTurn):
        await directory.find(live.heading.turn, "me".__eq__)


async def test_a_turn_that_was_broken_off_cannot_be_replayed() -> None:
    directory = Directory(TurnsSettings())
    live = a_turn()
    live.log.append([TurnStarted("m")])
    directory.add(live)
    directory.close(live)
    assert directory.snapshot().over == 0


async def test_the_oldest_goes_first_where_there_is_too_much() -> None:
    total = 3 * HELD  # of short answers, most is not their log
    directory = Directory(TurnsSettings(total=total))
    lives = [over(a_turn(number), BlockDelta.of(0, "x" * 500)) for number in range(5)]
    for live in lives:
        directory.add(live)
        directory.close(live)
    snapshot = directory.snapshot()
    assert 2 * HELD < snapshot.size <= total
    assert snapshot.over == 2
    assert snapshot.over + snapshot.dropped == 5
    assert directory.of("me".__eq__) == lives[-snapshot.over :]
