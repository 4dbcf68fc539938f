"""Calls written as text: found in any cut, and nothing else is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.turns import ARGUMENTS, RESULT, cut_finer, joined, through
from kirostream.errors import StreamCut
from kirostream.filters import FilterSettings, event_filters
from kirostream.filters.toolcalls import PREFIXES, SMALL, TextCalls, text_calls_of
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
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, Thought, Tool, ToolCall, ToolChoice, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage

SCHEMA = b'{"type":"object","properties":{"path":{"type":"string"},"lines":{"type":"array"},"n":{"type":"integer"}}}'
TOOLS = (Tool("Read", "", SCHEMA), Tool("fs.list", "", b"{}"))
ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), tools=TOOLS)
ONE_CALL = replace(ASK, tool_choice=ToolChoice(parallel=False))
Content = Text | Thought | ToolCall

READ = '[Called Read with args: {"path": "a.txt"}]'
INVOKE = '<invoke name="Read">\n<parameter name="path">a.txt</parameter>\n</invoke>'
PARTS = [READ, INVOKE, f"<function_calls>\n{INVOKE}\n</function_calls>", READ[:17], READ[17:], INVOKE[:9], INVOKE[9:]]
PARTS += ["[", "<", "[Called ", "</function_calls>", "<function_calls>", " ", "\n", "a", "😀"]
PARTS += [f"[Called Read with args: {rest}" for rest in ('{"n":[1,{"a":"]}"}]}]', '{"n":1}', '{"n":}]')]
LIKELY = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)
PREFIXED = re.sub("<(/?)", rf"<\1{PREFIXES[1]}", INVOKE)


@pytest.mark.parametrize("written", ["Read", "read", "Read_8f2a", "READ_8F2A"])
def test_a_tool_is_called_by_either_name_and_answers_to_its_own(written: str) -> None:
    calls = TextCalls(TOOLS, seed="1", names={"Read": "Read_8f2a"})
    text = Text(f'[Called {written} with args: {{"path": "a"}}]')
    (call,) = fold(through(calls, unfold(TurnResult((text,), Stop.END, Usage())))).content
    assert isinstance(call, ToolCall)
    assert call.name == "Read"


def test_a_client_s_name_wins_over_another_tool_s_short_one() -> None:
    calls = TextCalls(TOOLS, seed="1", names={"fs.list": "Read", "Read": "Read_1"})
    text = Text("[Called Read with args: {}]")
    (call,) = fold(through(calls, unfold(TurnResult((text,), Stop.END, Usage())))).content
    assert isinstance(call, ToolCall)
    assert call.name == "Read"


def filtered(*content: Content, stop: Stop = Stop.END) -> TurnResult:
    return fold(through(TextCalls(TOOLS, seed="1"), unfold(TurnResult(content, stop, Usage()))))


def found(text: str) -> list[str | tuple[str, object]]:
    """What a text comes to: texts, and calls without their ids."""
    return [
        (block.name, json.loads(block.arguments)) if isinstance(block, ToolCall) else cast(Text, block).text
        for block in filtered(Text(text)).content
    ]


A_TXT = ("Read", {"path": "a.txt"})


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (READ, [A_TXT]),
        (f"First.\n\n{READ}", ["First.\n\n", A_TXT]),
        (f"First. {READ}\nThen.", ["First. ", A_TXT, "Then."]),
        ('[Called read with args:{"path":"a\nb"}  ]', [("Read", {"path": "a\nb"})]),
        ("[Called fs.list with args: {}]", [("fs.list", {})]),
        (INVOKE, [A_TXT]),
        (f"a <function_calls>\n{INVOKE}\n</function_calls>\n b", ["a ", A_TXT, "b"]),
        (PREFIXED, [A_TXT]),
        ('<invoke name="fs.list"></invoke>', [("fs.list", {})]),
        (
            '<invoke name="Read"><parameter name="lines">[1, 2]</parameter><parameter name="n">x</parameter></invoke>',
            [("Read", {"lines": [1, 2], "n": "x"})],
        ),
        (f"{READ}{READ}", [A_TXT]),
        (f"{READ} and [Called fs.list with args: {{}}]", [A_TXT, "and ", ("fs.list", {})]),
    ],
)
def test_calls_in_text(text: str, blocks: list[object]) -> None:
    assert found(text) == blocks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "a < b and [c]",
        '[Called Write with args: {"path": "a.txt"}]',
        '<invoke name="Write"></invoke>',
        "[Called Read with args: [1]]",
        "[Called Read with args: {'path': 1}]",
        '[Called Read with args: {"n": NaN}]',
        '[Called Read with args: {"path": "a.txt"',
        '[Called Read with args: {"path": "a.txt"}',
        "[Called",
        "<function_calls> none </function_calls>",
        INVOKE[:-1],
        INVOKE.replace("</parameter>", ""),
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert filtered(Text(text)) == TurnResult((Text(text),), Stop.END)


@given(st.data(), LIKELY)
def test_any_cut_gives_the_same_events(data: st.DataObject, text: str) -> None:
    result = TurnResult((Thought("hm"), Text(text), ToolCall("c", "Read", b'{"path":"a.txt"}')), Stop.TOOL_CALL)
    whole = list(unfold(result))
    cut = data.draw(cut_finer(whole))
    expected = joined(through(TextCalls(TOOLS, seed="1"), whole))
    assert joined(through(TextCalls(TOOLS, seed="1"), cut)) == expected
    assert joined(TextCalls(TOOLS, seed="1").take(cut)) == expected


@given(RESULT)
def test_an_answer_without_such_text_stays_what_it_is(result: TurnResult) -> None:
    assert fold(through(TextCalls(TOOLS, seed="1"), unfold(result))) == result


@given(st.data(), ARGUMENTS)
def test_arguments_come_out_whole(data: st.DataObject, arguments: bytes) -> None:
    text = f"so: [Called Read with args: {arguments.decode()}]"
    events = data.draw(cut_finer(unfold(TurnResult((Text(text),), Stop.END))))
    _, call = fold(through(TextCalls(TOOLS, seed="1"), events)).content
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == json.loads(arguments)


def test_a_large_call_in_small_pieces() -> None:
    arguments = {"path": 'x"]}\\' * SMALL}
    text = f"[Called Read with args: {json.dumps(arguments)}] done"
    events: list[TurnEvent] = [TurnStarted(), BlockStarted(0, BlockKind.TEXT)]
    events += [BlockDelta.of(0, text[at : at + 5]) for at in range(0, len(text), 5)]
    said = through(TextCalls(TOOLS, seed="1"), [*events, BlockEnded(0), TurnEnded(Stop.END, Usage())])
    call, rest = fold(said).content
    assert isinstance(call, ToolCall)
    assert (json.loads(call.arguments), rest) == (arguments, Text("done"))


def test_a_call_that_was_found_ends_the_turn_as_one() -> None:
    assert filtered(Text(READ)).stop is Stop.TOOL_CALL
    assert filtered(Text(READ), stop=Stop.MAX_TOKENS).stop is Stop.MAX_TOKENS
    assert filtered(Text("a"), stop=Stop.END).stop is Stop.END


@pytest.mark.parametrize("order", [1, -1], ids=["text first", "call first"])
def test_a_call_that_was_made_for_real_too_is_made_once(order: int) -> None:
    content = (Text(READ), ToolCall("c", "Read", b'{ "path":"a.txt" }'))[::order]
    assert [block.name for block in filtered(*content).content if isinstance(block, ToolCall)] == ["Read"]


def test_real_calls_are_not_compared_with_each_other() -> None:
    call = ToolCall("c", "Read", b'{"path":"b.txt"}')
    content = filtered(Text(READ), call, replace(call, id="d"), stop=Stop.TOOL_CALL).content
    assert [block.id for block in content[1:] if isinstance(block, ToolCall)] == ["c", "d"]


def test_ids_are_of_the_turn() -> None:
    def ids(seed: str) -> list[str]:
        said = through(
            TextCalls(TOOLS, seed=seed),
            unfold(TurnResult((Text(f"{READ} [Called fs.list with args: {{}}]"),), Stop.END)),
        )
        return [event.call_id for event in said if isinstance(event, BlockStarted)]

    assert len({*ids("1"), *ids("2")}) == 4
    assert ids("1") == ids("1")


def test_thoughts_are_not_searched() -> None:
    result = TurnResult((Thought(READ), Text("a")), Stop.END)
    assert fold(through(TextCalls(TOOLS, seed="1"), unfold(result))) == result


def test_what_cannot_be_a_call_passes_as_it_came() -> None:
    calls = TextCalls(TOOLS, seed="1")
    calls.take([TurnStarted(), BlockStarted(0, BlockKind.TEXT)])
    event = BlockDelta(0, (b"one", b"two"))
    assert calls.take([event])[-1] is event
    escaped = BlockDelta.of(0, "[")
    assert calls.take([BlockDelta(0, (b"\\u005b",))]) == []
    assert calls.take([BlockDelta.of(0, "a]")]) == [BlockDelta.of(0, escaped.text + "a]")]


def test_a_turn_that_fails_says_what_was_held() -> None:
    failed = TurnFailed(StreamCut("cut"))
    events: list[TurnEvent] = [
        TurnStarted(),
        BlockStarted(0, BlockKind.TEXT),
        BlockDelta.of(0, READ),
        BlockDelta.of(0, "[Called Re"),
        BlockStarted(1, BlockKind.TOOL_CALL, "c", "Read"),
        BlockDelta.of(1, '{"pa'),
        failed,
    ]
    *said, last = through(TextCalls(TOOLS, seed="1"), events)
    assert last is failed
    assert [event.text for event in said if isinstance(event, BlockDelta)] == ['{"path":"a.txt"}', "[Called Re", '{"pa']


@pytest.mark.parametrize(
    ("request_", "settings", "names"),
    [
        (ASK, FilterSettings(text_calls=True), ["TextCalls"]),
        (ASK, FilterSettings(), []),
        (replace(ASK, tools=()), FilterSettings(text_calls=True), []),
        (replace(ASK, tool_choice=ToolChoice("none")), FilterSettings(text_calls=True), []),
        (
            replace(ASK, tool_choice=ToolChoice(parallel=False)),
            FilterSettings(text_calls=True),
            ["TextCalls", "Limits"],
        ),
    ],
)
def test_who_gets_the_filter(request_: TurnRequest, settings: FilterSettings, names: list[str]) -> None:
    assert [type(each).__name__ for each in event_filters(request_, Model("m"), settings)] == names
    assert text_calls_of(replace(ASK, tools=())) is None
