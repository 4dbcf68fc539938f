"""The table is the definition: every pair that is not in it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given

from helpers.turns import RESULT
from kirostream.errors import LocalProtocolError, StreamCut
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Foreign,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    UsageKnown,
)
from kirostream.turn.grammar import TRANSITIONS, Grammar, Phase
from kirostream.turn.result import TurnResult, unfold
from kirostream.turn.usage import Usage

START = TurnStarted("m")
TEXT = BlockStarted(0, BlockKind.TEXT)
END = TurnEnded(Stop.END, Usage())
FAIL = TurnFailed(StreamCut("cut"))
ONE_OF_EACH: list[TurnEvent] = [
    START,
    TEXT,
    BlockDelta.of(0, "x"),
    BlockEnded(0),
    UsageKnown(Usage()),
    Foreign("anthropic", b"{}"),
    END,
    FAIL,
]


def run(*events: TurnEvent) -> Grammar:
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return grammar


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_what_the_table_does_not_hold_is_refused(phase: Phase, event: TurnEvent) -> None:
    reach: dict[Phase, list[TurnEvent]] = {Phase.WAITING: [], Phase.SPEAKING: [START], Phase.OVER: [START, END]}
    if (phase, type(event)) in TRANSITIONS:
        opened: list[TurnEvent] = [TEXT] if isinstance(event, BlockDelta | BlockEnded) else []
        assert run(*reach[phase], *opened, event).phase is TRANSITIONS[phase, type(event)]
    else:
        with pytest.raises(LocalProtocolError):
            run(*reach[phase], event)


@pytest.mark.parametrize(
    "events",
    [
        [BlockStarted(1, BlockKind.TEXT)],
        [TEXT, BlockStarted(0, BlockKind.TEXT)],
        [BlockDelta.of(0, "x")],
        [TEXT, BlockEnded(0), BlockDelta.of(0, "x")],
        [TEXT, BlockEnded(0), BlockEnded(0)],
        [TEXT, BlockDelta(0, ())],
        [BlockStarted(0, BlockKind.REDACTED, data="eA=="), BlockDelta.of(0, "x")],
        [TEXT, END],
    ],
    ids=["gap", "twice", "unopened", "after its end", "ended twice", "empty", "redacted", "left open"],
)
def test_blocks_are_bracketed(events: list[TurnEvent]) -> None:
    with pytest.raises(LocalProtocolError):
        run(START, *events)


def test_blocks_may_overlap() -> None:
    call = BlockStarted(1, BlockKind.TOOL_CALL, "id", "name")
    done = run(START, TEXT, call, BlockDelta.of(1, "{}"), BlockDelta.of(0, "x"), BlockEnded(1), BlockEnded(0), END)
    assert done.phase is Phase.OVER


def test_a_failure_may_leave_blocks_open() -> None:
    assert run(START, TEXT, FAIL).phase is Phase.OVER


@given(RESULT)
def test_unfold_is_legal(result: TurnResult) -> None:
    assert run(*unfold(result)).phase is Phase.OVER
