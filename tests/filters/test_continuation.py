"""When the rest of an answer is asked for, and how."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kirostream.filters.continuation import GO_ON, Continuation, may_go_on
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnStarted,
)
from kirostream.turn.request import (
    THINKING_OFF,
    Message,
    OutputFormat,
    Role,
    Sampling,
    Text,
    Thinking,
    Thought,
    ToolCall,
    TurnRequest,
)
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage

ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), thinking=Thinking(True, 5_000))


def part(*content: Text | Thought | ToolCall, stop: Stop = Stop.MAX_TOKENS, output_tokens: int = 0) -> list[TurnEvent]:
    return list(unfold(TurnResult(content, stop, Usage(output_tokens=output_tokens))))


def test_the_question_for_the_rest() -> None:
    parts = Continuation(ASK, 2)
    said = parts.take(part(Thought("t"), Text("ab")))
    again = parts.go_on()
    assert again == replace(
        ASK,
        messages=(*ASK.messages, Message(Role.ASSISTANT, (Text("ab"),)), Message(Role.USER, (Text(GO_ON),))),
        thinking=THINKING_OFF,
    )
    assert not parts.begun
    said += parts.take(part(Text("c"), stop=Stop.END))
    assert parts.begun is False  # this part is over too
    assert parts.go_on() is None
    assert fold([*said, *parts.finish()]).content == (Thought("t"), Text("abc"))


@pytest.mark.parametrize(
    "events",
    [
        part(Text("a"), stop=Stop.END),
        part(Text("a"), stop=Stop.CONTEXT_FULL),
        part(Text("a"), stop=Stop.REFUSED),
        part(Text("a"), stop=Stop.STOP_SEQUENCE),
        part(Text("a"), ToolCall("c", "n", b"{}")),
        part(ToolCall("c", "n", b"{}"), Text("a")),
        part(Thought("t")),
        part(Text("a"), Thought("t")),
        part(),
        part(Text("")),
        part(Text("a"))[:-1],
    ],
    ids=["end", "full", "refused", "stop", "call", "call before", "thought", "thought last", "empty", "blank", "open"],
)
def test_what_is_not_continued(events: list[TurnEvent]) -> None:
    parts = Continuation(ASK, 1)
    parts.take(events)
    assert parts.go_on() is None


def test_half_a_call_is_never_put_together() -> None:
    parts = Continuation(ASK, 5)
    half: list[TurnEvent] = [
        TurnStarted(),
        BlockStarted(0, BlockKind.TOOL_CALL, "c", "Write"),
        BlockDelta.of(0, '{"text":"once'),
        TurnEnded(Stop.MAX_TOKENS, Usage()),
    ]
    parts.take(half)
    assert parts.go_on() is None


def test_a_part_without_words_is_the_last() -> None:
    parts = Continuation(ASK, 9)
    parts.take(part(Text("a")))
    assert parts.go_on() is not None
    parts.take(part(Text("")))
    assert parts.go_on() is None


def test_the_clients_own_limit_counts_for_all_parts() -> None:
    parts = Continuation(replace(ASK, sampling=Sampling(max_tokens=10)), 9)
    parts.take(part(Text("a"), output_tokens=6))
    assert parts.go_on() is not None
    parts.take(part(Text("b"), output_tokens=6))
    assert parts.go_on() is None


def test_there_is_a_hard_cap() -> None:
    parts = Continuation(ASK, 2)
    asked = 0
    for _ in range(5):
        parts.take(part(Text("a")))
        asked += parts.go_on() is not None
    assert asked == 2


def test_which_answers_may_be_continued() -> None:
    assert may_go_on(ASK, 1)
    assert not may_go_on(ASK, 0)
    assert not may_go_on(ASK, -1)
    assert not may_go_on(replace(ASK, output=OutputFormat(b"{}")), 1)
