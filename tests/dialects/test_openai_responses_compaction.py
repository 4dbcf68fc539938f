"""Compaction: what the model is asked, what the client gets, and what is read again."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from openai.types.responses import CompactedResponse, ResponseCompactionCompactingEvent

from kirostream.dialects.openai_responses.compaction import (
    CUT,
    PROMPT,
    CompactionWriter,
    is_trigger,
    summarising,
    whole_summary,
    write_compacted,
)
from kirostream.dialects.openai_responses.read_items import SUMMARY
from kirostream.dialects.openai_responses.request import read_request
from kirostream.dialects.openai_responses.thoughts import PLAIN, pack, pack_summary, unpack, unpack_summary
from kirostream.errors import StreamCut, UpstreamFault
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.request import Message, Role, Text, Thinking, Thought, ToolCall, ToolResult, TurnRequest
from kirostream.turn.result import TurnResult, unfold
from kirostream.turn.usage import Usage
from vectors.regenerate import HEADING

CALL: Final = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT: Final = {"type": "function_call_output", "call_id": "c", "output": "r"}
TOOL: Final = {"type": "function", "name": "f", "parameters": {"type": "object"}}
ITEM: Final = {"id": "cmp_1", "type": "compaction", "encrypted_content": pack_summary("seven", PLAIN)}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def read(*items: Any, **body: Any) -> TurnRequest:
    return read_request(json.dumps({"model": "m", "input": items, **body}).encode(), ())


def events_of(events: list[TurnEvent]) -> tuple[list[dict[str, Any]], CompactionWriter]:
    writer = CompactionWriter(read(user("hi")), HEADING)
    blocks = [block for event in events for block in writer.write(event)]
    found = [json.loads(block.split(b"\ndata: ")[1]) for block in blocks]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found, writer


def test_the_question() -> None:
    request = read(
        user("hi"), CALL, RESULT, tools=[TOOL], tool_choice="required", reasoning={"effort": "high"}, instructions="I."
    )
    asked = summarising(request)
    assert asked.messages == (*request.messages, Message(Role.USER, (Text(PROMPT),)))
    assert asked.system == (Text("I."),)
    assert (asked.tools, asked.thinking, asked.tool_choice.mode) == ((), Thinking(), "auto")
    assert read(*[user("hi")], tools=[TOOL]).tools  # which were there before


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([user("x"), {"type": "compaction_trigger"}], True),
        ([{"type": "compaction_trigger"}, user("x")], False),
        ([user("compaction_trigger")], False),
        ([{"type": ["compaction_trigger"]}], False),
        ([], False),
    ],
)
def test_the_trigger_is_the_last_item(items: list[Any], expected: bool) -> None:
    assert is_trigger([json.dumps(item).encode() for item in items]) is expected


def test_it_stands_for_what_came_before() -> None:
    late = {"role": "developer", "content": "D."}
    request = read(user("a"), {"role": "assistant", "content": "b"}, CALL, RESULT, late, ITEM, user("c"), CALL, RESULT)
    assert request.messages == (
        Message(Role.USER, (Text("a"),)),
        Message(Role.SYSTEM, (Text("D."),)),
        Message(Role.USER, (Text(SUMMARY.format("seven")),)),
        Message(Role.USER, (Text("c"),)),
        Message(Role.ASSISTANT, (ToolCall("c", "f", b"{}"),)),
        Message(Role.USER, (ToolResult("c", (Text("r"),)),)),
    )


def test_the_last_one_counts_and_tools_stay() -> None:
    newer = ITEM | {"encrypted_content": pack_summary("eight {}", PLAIN)}
    request = read({"type": "additional_tools", "role": "developer", "tools": [TOOL]}, ITEM, user("a"), newer)
    assert [block for message in request.messages for block in message.content] == [
        Text("a"),
        Text(SUMMARY.replace("{}", "eight {}")),
    ]
    assert [tool.name for tool in request.tools] == ["f"]


@pytest.mark.parametrize("sealed", ["", "gAAAA-of-another-server", pack(Thought("t"), PLAIN), None])
def test_what_we_did_not_seal_says_nothing_and_hides_nothing(sealed: str | None) -> None:
    request = read(user("a"), {"role": "assistant", "content": "b"}, ITEM | {"encrypted_content": sealed}, user("c"))
    assert [message.role for message in request.messages] == [Role.USER, Role.ASSISTANT, Role.USER]


def test_a_summary_is_no_thought_and_no_thought_a_summary() -> None:
    assert unpack(pack_summary("x", PLAIN), PLAIN) is None
    assert unpack_summary(pack(Thought("x", "s"), PLAIN), PLAIN) is None
    assert unpack_summary(pack_summary("é 😀", PLAIN), PLAIN) == "é 😀"


def test_the_whole_answer() -> None:
    items = [
        json.dumps(item).encode()
        for item in (user("a"), {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}, CALL, RESULT)
    ]
    result = TurnResult((Thought("hm"), Text("se"), Text("ven ")), Stop.END, Usage(input_tokens=3, output_tokens=4))
    body = json.loads(write_compacted(items, result, HEADING))
    ours = {**body, "output": body["output"][-1:]}  # the SDK's types know no user's message in an output
    assert CompactedResponse.model_validate(ours).usage.total_tokens == 7
    assert [item["type"] for item in body["output"]] == ["message", "message", "compaction"]
    assert [item["content"] for item in body["output"][:2]] == [
        [{"type": "input_text", "text": "a"}],
        [{"type": "input_text", "text": "b"}],
    ]
    assert len({item["id"] for item in body["output"]}) == 3
    assert unpack_summary(body["output"][-1]["encrypted_content"], PLAIN) == "seven"
    window = read(*body["output"], user("c"))
    assert window.messages[2] == Message(Role.USER, (Text(SUMMARY.format("seven")),))


def test_the_streamed_answer() -> None:
    events = list(unfold(TurnResult((Thought("hm"), Text("se"), Text("ven")), Stop.END, Usage(output_tokens=4))))
    found, writer = events_of(events)
    ResponseCompactionCompactingEvent.model_validate(found[3])
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "completed",
    ]
    (item,) = found[-1]["response"]["output"]
    assert item == found[-2]["item"] == json.loads(writer.items[0])
    assert item["id"] == found[2]["item"]["id"] == found[3]["item_id"]
    assert unpack_summary(item["encrypted_content"], PLAIN) == "seven"
    assert found[-1]["response"]["usage"]["output_tokens"] == 4
    assert json.loads(writer.response) == found[-1]["response"]


def test_a_summary_that_is_cut_off_says_so() -> None:
    assert whole_summary(" x ", Stop.END) == "x"
    assert whole_summary("x", Stop.MAX_TOKENS) == "x" + CUT
    for said, stop in ((" \n", Stop.END), ("x", Stop.REFUSED)):
        with pytest.raises(UpstreamFault):
            whole_summary(said, stop)


@pytest.mark.parametrize(
    "end", [TurnEnded(Stop.END, Usage()), TurnEnded(Stop.REFUSED, Usage()), TurnFailed(StreamCut("cut"))]
)
def test_no_summary_is_a_failure(end: TurnEvent) -> None:
    call: list[TurnEvent] = [
        BlockStarted(0, BlockKind.TOOL_CALL, "c", "f"),
        BlockDelta(0, (b"{}",)),
        BlockEnded(0),
    ]
    found, writer = events_of([TurnStarted(), *call, end])
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["output"] == []
    assert writer.items == []
