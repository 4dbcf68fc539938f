"""What was cut off is remembered, and said where the model reads it: in no other conversation, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kirostream.errors import StreamCut
from kirostream.filters.truncation import CUT_TEXT, CUTS, TTL, TruncationWatch, cut_call, cut_calls
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
from kirostream.turn.request import Message, Role, Sampling, Text, ToolCall, ToolResult, TurnRequest
from kirostream.turn.result import TurnResult, unfold
from kirostream.turn.usage import Usage

USER, ASSISTANT = Role.USER, Role.ASSISTANT
HALF = ToolCall("c1", "Write", b'{"path":"a.txt","text":"once upon')
WHOLE = ToolCall("c2", "Read", b'{"path":"a.txt"}')
ASK = TurnRequest(model="m", messages=(Message(USER, (Text("write a book"),)),))
SAID = Text("I will write it.")


def conversation(*messages: Message) -> TurnRequest:
    return replace(ASK, messages=(*ASK.messages, *messages))


def answered(*content: Text | ToolCall, stop: Stop = Stop.MAX_TOKENS) -> list[TurnEvent]:
    return list(unfold(TurnResult(content, stop, Usage(output_tokens=50))))


def broken(*content: Text | ToolCall) -> Iterator[TurnEvent]:
    """The same turn, broken off inside its last block."""
    *events, _, _ = answered(*content)
    return iter([*events, TurnFailed(StreamCut("cut"))])


def watch(events: list[TurnEvent], request: TurnRequest = ASK) -> TruncationWatch:
    truncations = TruncationWatch()
    truncations.learn("here", request, events, 0.0)
    return truncations


def after_result(call: ToolCall = HALF, *more: Text) -> TurnRequest:
    return conversation(
        Message(ASSISTANT, (SAID, call)), Message(USER, (ToolResult(call.id, (Text("bad arguments"),)), *more))
    )


@pytest.mark.parametrize("events", [answered(SAID, HALF), list(broken(SAID, HALF))], ids=["ended", "failed"])
def test_a_cut_call_is_told_in_its_result(events: list[TurnEvent]) -> None:
    asked = watch(events).remind("here", after_result(), 1.0)
    note = Text(cut_call("Write"))
    assert asked.messages[-1] == Message(USER, (ToolResult("c1", (Text("bad arguments"), note), is_error=True),))
    assert asked.messages[:-1] == after_result().messages[:-1]


def test_a_cut_call_that_the_client_left_out_is_told_to_the_user() -> None:
    asked = watch(answered(SAID, HALF)).remind(
        "here", conversation(Message(ASSISTANT, (SAID,)), Message(USER, (Text("go on"),))), 1.0
    )
    assert asked.messages[-1].content == (Text(cut_calls(["Write"])), Text("go on"))


def test_a_whole_call_beside_a_cut_one_keeps_its_result() -> None:
    events = answered(WHOLE, HALF)
    result = ToolResult("c2", (Text("once"),))
    asked = watch(events).remind("here", conversation(Message(ASSISTANT, (WHOLE,)), Message(USER, (result,))), 1.0)
    assert asked.messages[-1].content == (result,)


def test_messages_without_a_note_stay_the_objects_they_are() -> None:
    request = after_result()
    asked = watch(answered(SAID, HALF)).remind("here", request, 1.0)
    assert [new is old for new, old in zip(asked.messages, request.messages, strict=True)] == [True, True, False]


def test_the_same_question_again_after_a_cut_call() -> None:
    asked = watch(list(broken(HALF))).remind("here", ASK, 1.0)
    assert asked.messages == (Message(USER, (Text("write a book"), Text(cut_calls(["Write"])))),)


def test_the_same_question_again_after_a_cut_text_is_just_asked_again() -> None:
    truncations = watch(list(broken(SAID)))
    assert truncations.remind("here", ASK, 1.0) is ASK


@pytest.mark.parametrize("echo", ["I will write it.", "  I will\nwrite it. "])
def test_a_cut_text_is_told_behind_it(echo: str) -> None:
    going_on = Message(USER, (Text("go on"),))
    asked = watch(answered(SAID)).remind("here", conversation(Message(ASSISTANT, (Text(echo),)), going_on), 1.0)
    assert asked.messages[-1].content == (Text(CUT_TEXT), Text("go on"))


def test_a_text_in_several_blocks_and_messages_is_one_answer() -> None:
    parts = [Message(ASSISTANT, (Text("I will"), Text(" write"))), Message(ASSISTANT, (Text(" it."),))]
    asked = watch(answered(SAID)).remind("here", conversation(*parts, Message(USER, (Text("go on"),))), 1.0)
    assert asked.messages[-1].content[0] == Text(CUT_TEXT)


def test_the_same_history_gets_the_same_notes() -> None:
    truncations = watch(answered(SAID, HALF))
    first = truncations.remind("here", after_result(), 1.0)
    longer = replace(after_result(), messages=(*after_result().messages, Message(ASSISTANT, (Text("ok"),))))
    assert truncations.remind("here", longer, 2.0).messages[: len(first.messages)] == first.messages


@pytest.mark.parametrize(
    "events",
    [
        answered(SAID, WHOLE, stop=Stop.TOOL_CALL),
        answered(SAID, stop=Stop.END),
        answered(SAID, stop=Stop.STOP_SEQUENCE),
        [TurnFailed(StreamCut("cut"))],
        [TurnStarted()],
        [TurnStarted(), TurnEnded(Stop.MAX_TOKENS, Usage())],
        [],
    ],
)
def test_nothing_is_remembered_of_whole_and_of_empty_answers(events: list[TurnEvent]) -> None:
    truncations = watch(events)
    assert repr(truncations) == "<TruncationWatch of 0 conversations>"
    request = after_result()
    assert truncations.remind("here", request, 1.0) is request


def test_the_clients_own_limit_is_no_news() -> None:
    limited = replace(ASK, sampling=Sampling(max_tokens=50))
    going_on = conversation(Message(ASSISTANT, (SAID,)), Message(USER, (Text("go on"),)))
    assert watch(answered(SAID), limited).remind("here", going_on, 1.0) is going_on
    wide = replace(ASK, sampling=Sampling(max_tokens=51))
    assert watch(answered(SAID), wide).remind("here", going_on, 1.0) is not going_on


def test_a_call_that_was_begun_and_has_no_arguments() -> None:
    events: list[TurnEvent] = [
        TurnStarted(),
        BlockStarted(0, BlockKind.THINKING),
        BlockDelta.of(0, "hm"),
        BlockStarted(1, BlockKind.TOOL_CALL, "c1", "Write"),
        TurnFailed(StreamCut("cut")),
    ]
    assert watch(events).remind("here", after_result(), 1.0) is not after_result()
    assert "Write" in repr(watch(events).remind("here", ASK, 1.0))


def test_another_conversation_hears_nothing() -> None:
    request = after_result()
    assert watch(answered(SAID, HALF)).remind("there", request, 1.0) is request


def test_a_cut_is_forgotten_in_time() -> None:
    truncations = watch(answered(SAID, HALF))
    request = after_result()
    assert truncations.remind("here", request, TTL - 1) is not request
    assert truncations.remind("here", request, TTL) is request
    assert repr(truncations) == "<TruncationWatch of 0 conversations>"


def test_the_memory_is_bounded() -> None:
    truncations = TruncationWatch(conversations=2)
    for name in ("a", "b", "a", "c"):
        truncations.learn(name, ASK, answered(SAID, HALF), 0.0)
    request = after_result()
    assert [truncations.remind(name, request, 1.0) is request for name in "abc"] == [False, True, False]
    for at in range(CUTS + 1):
        truncations.learn("a", ASK, answered(replace(HALF, id=f"d{at}")), 0.0)
    forgotten, kept = (after_result(replace(HALF, id=call_id)) for call_id in ("d0", "d1"))
    assert truncations.remind("a", forgotten, 1.0) is forgotten
    assert truncations.remind("a", kept, 1.0) is not kept


def test_an_answer_that_says_the_same_and_calls_a_tool_is_another_one() -> None:
    request = after_result(WHOLE)
    assert watch(answered(SAID)).remind("here", request, 1.0) is request
