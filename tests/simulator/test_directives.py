"""The directive language: a row for each directive, placeholder and escape, and for the turn that is due."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.images import PNG
from helpers.requests import JPEG, image
from kirostream.simulator.directives import (
    Break,
    Call,
    Play,
    Say,
    Think,
    directives,
    play,
    without_directives,
)
from kirostream.turn.request import Image, Message, Role, Text, Tool, ToolCall, ToolResult, TurnRequest

OFFERED = tuple(Tool(name, "", b"{}") for name in ("a", "b", "c", "Read"))


def user(*content: Any) -> Message:
    return Message(Role.USER, tuple(Text(c) if isinstance(c, str) else c for c in content))


def said(text: str) -> Message:
    return Message(Role.ASSISTANT, (Text(text),))


def called(*ids: str) -> Message:
    return Message(Role.ASSISTANT, tuple(ToolCall(call_id, "a", b"{}") for call_id in ids))


def results(*texts: str) -> Message:
    return user(*(ToolResult(f"r{n}", (Text(text),)) for n, text in enumerate(texts)))


def conversation(*messages: Message | str, tools: tuple[Tool, ...] = OFFERED, system: str = "") -> TurnRequest:
    return TurnRequest(
        model="claude-sonnet-4.5",
        messages=tuple(user(m) if isinstance(m, str) else m for m in messages),
        tools=tools,
        system=(Text(system),) if system else (),
    )


def counting() -> Callable[[str], int]:
    counter: Counter[str] = Counter()

    def count(key: str) -> int:
        counter[key] += 1
        return counter[key]

    return count


def played(*messages: Message | str, tools: tuple[Tool, ...] = OFFERED, system: str = "") -> Play:
    found = play(conversation(*messages, tools=tools, system=system), counting())
    assert found is not None
    return found


def steps(*messages: Message | str, tools: tuple[Tool, ...] = OFFERED) -> tuple[Any, ...]:
    return played(*messages, tools=tools).steps


def spoken(*messages: Message | str, system: str = "") -> str:
    (step,) = played(*messages, system=system).steps
    assert isinstance(step, Say)
    return step.text


# What is a directive


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[[unknown:x]]",
        "[[Say:x]]",
        "[[say]]",
        "[[next:x]]",
        "[[say:x",
        "[[say:x]",
        "[[say:x\\]]",
        "[ [say:x]]",
        "[[ say:x]]",
        "[[tool:]]",
        "[[tool:a {]]",
        "[[tool:a [1]]]",
        "[[tool:a 1]]",
        '[[tool:a {"x":NaN}]]',
        "[[tool:a {} x]]",
        "[[tokens:]]",
        "[[tokens:x]]",
        "[[tokens:-1]]",
        "[[tokens:1.5]]",
        "[[tokens:123456789]]",
        "[[chunk:0]]",
        "[[chunk:u8]]",
        "[[slow:]]",
        "[[wait:1s]]",
        "[[error:]]",
        "[[error:NOPE]]",
        "[[error:throttle]]",
        "[[fail:THROTTLE]]",
        "[[fail:THROTTLE 2]]",
        "[[fail:NOPE 2 k]]",
        "[[cut:]]",
        "[[cut:1 2]]",
        "[[fault:explode]]",
        "[[fault:exception]]",
        "[[fault:exception NOPE]]",
        '{"a":[["say:x"]]}',
    ],
)
def test_what_is_not_a_directive(text: str) -> None:
    assert list(directives(text)) == []
    assert play(conversation(text), counting()) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a [[say:x]] b", "a  b"),
        ("[[next]]", ""),
        ("[[[say:x]]]", "[]"),
        ("[[unknown:[[say:x]]]]", "[[unknown:]]"),
        ('[[tool:a {"k":"]] [[say:no]]"}]]!', "!"),
        ("[[tool:a]] [[tool:b  { } ]]", " "),
        ("[[say:line\nbreak]]x", "x"),
        ("[[say:]][[think:t]][[then:u]][[tokens: 3 ]][[chunk:u16]][[slow:1]][[wait:0]]", ""),
        (
            "[[error:THROTTLE]][[fail: QUOTA 2 k ]][[cut:3]][[cut:3 1 k]][[fault:stall 2]][[fault:exception ACCESS 1]]",
            "",
        ),
    ],
)
def test_what_is_a_directive(text: str, left: str) -> None:
    assert without_directives(text) == left


@given(st.lists(st.sampled_from(["[[", "]]", "say:", "x", "\\", "]", "[", "tool:a ", "{}", "next", "\n", "{{", "}}"])))
def test_any_text_can_be_read(parts: list[str]) -> None:
    text = "".join(parts)
    found = list(directives(text))
    assert [text[d.start : d.start + 2] for d in found] == ["[["] * len(found)
    assert [text[d.end - 2 : d.end] for d in found] == ["]]"] * len(found)
    assert len(without_directives(text)) == len(text) - sum(d.end - d.start for d in found)


def test_long_texts_are_read_in_one_pass() -> None:
    assert len(spoken("[[say:" + "x" * 3_000_000 + "]]")) == 3_000_000
    assert list(directives("[[say:" + "\\]" * 1_000_000)) == []


# What is said


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("[[say:hello]]", (Say("hello"),)),
        ("Say it: [[say:a]] and [[say:b]].", (Say("ab"),)),
        ("[[say:]]", (Say(""),)),
        ("[[tokens:3]]", (Say("w1 w2 w3"),)),
        ("[[tokens:0]]", (Say(""),)),
        ("[[say:a]][[tokens:2]][[say:b]]", (Say("aw1 w2b"),)),
        ("[[say:a]][[think:t]][[think:u]]", (Think("tu"), Say("a"))),
        ("[[think:t]]", (Think("t"),)),
        ("[[tool:a]]", (Call("a"),)),
        ('[[tool:a {"x": "]]"}]]', (Call("a", '{"x": "]]"}'),)),
        ("[[tool:a {}]][[tool:b {}]]", (Call("a"), Call("b"))),
        ("[[say:x]][[tool:a {}]][[say:y]]", (Say("x"), Call("a"), Say("y"))),
        ("[[say:a]][[next]][[say:b]]", (Say("a"),)),
        ("[[say:a]][[then:b]]", (Say("a"),)),
        ("[[tool:Nope {}]]", (Say("(no tool Nope)"),)),
        ("[[tool:read {}]]", (Say("(no tool read)"),)),
        ("[[tool:x {}]][[tool:y {}]]", (Say("(no tool x)(no tool y)"),)),
        ("[[think:t]][[tool:x {}]]", (Think("t"), Say("(no tool x)"))),
        ("[[say:a]][[tool:x {}]]", (Say("a"),)),
        ("[[tool:a {}]][[tool:x {}]]", (Call("a"),)),
        ("[[slow:5]]", (Say("OK"),)),
        ("[[next]][[say:b]]", ()),
    ],
)
def test_what_is_said(script: str, expected: tuple[Any, ...]) -> None:
    assert steps(script) == expected


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"a\nb", "a\nb"),
        (r"a\tb", "a\tb"),
        (r"[x\]\]", "[x]]"),
        (r"]\]", "]]"),
        (r"\[\[say:x\]\]", "[[say:x]]"),
        (r"a\\", "a\\"),
        (r"a\\nb", r"a\nb"),
        (r"a\qb", r"a\qb"),
        ("a]b", "a]b"),
        ("日本語 😀", "日本語 😀"),
    ],
)
def test_escapes(written: str, text: str) -> None:
    assert spoken(f"[[say:{written}]]") == text


def test_text_ends_at_the_first_brackets() -> None:
    assert spoken("[[say:x[0]]]") == "x[0"


# The source


def test_the_source_is_the_last_message_with_a_directive() -> None:
    assert spoken("[[say:one]]", said("one"), "[[say:two]]") == "two"


def test_later_messages_without_directives_do_not_count() -> None:
    assert spoken("[[say:one]][[then:two]]", said("one"), "go on") == "two"


def test_without_a_source_there_is_no_play() -> None:
    assert play(conversation("hello"), counting()) is None
    assert play(conversation(), counting()) is None


@pytest.mark.parametrize(
    "message", [said("[[say:x]]"), results("[[say:x]]"), Message(Role.SYSTEM, (Text("[[say:x]]"),))]
)
def test_only_what_the_user_wrote_is_a_source(message: Message) -> None:
    assert play(conversation("hello", message), counting()) is None


def test_results_beside_the_source_are_before_it() -> None:
    assert steps(user(ToolResult("r", (Text("x"),)), "[[tool:a {}]][[then:done]]")) == (Call("a"),)


# Which turn is due

TWO_ROUNDS = "[[tool:a {}]][[tool:b {}]][[next]][[tool:c {}]][[then:done]]"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], (Call("a"), Call("b"))),
        ([called("1", "2"), results("x")], (Call("a"), Call("b"))),
        ([called("1", "2"), results("x", "y")], (Call("c"),)),
        ([called("1"), results("x"), called("2"), results("y")], (Call("c"),)),
        ([called("1"), called("2"), results("x"), results("y")], (Call("c"),)),
        ([called("1", "2"), results("x", "y"), called("3"), results("z")], (Say("done"),)),
        ([called("1", "2"), results("x", "y"), called("3"), results("z"), said("done")], (Say("(end of script)"),)),
        (
            [called("1", "2"), results("x", "y"), called("3"), results("z"), said("done"), user("?")],
            (Say("(end of script)"),),
        ),
    ],
)
def test_the_turn_that_is_due(history: list[Message], expected: tuple[Any, ...]) -> None:
    assert steps(TWO_ROUNDS, *history) == expected


@pytest.mark.parametrize(
    ("history", "text"),
    [
        ([], "1"),
        ([said("1")], "2"),
        ([said("1"), said("more")], "2"),
        ([said("1"), user("next")], "2"),
        ([said("1"), user("next"), said("2")], "3"),
        ([said("1"), user("next"), said("2"), user("next"), said("3")], "(end of script)"),
    ],
)
def test_turns_of_text(history: list[Message], text: str) -> None:
    assert spoken("[[say:1]][[then:2]][[then:3]]", *history) == text


def test_an_assistant_message_with_a_call_is_no_answer() -> None:
    both = Message(Role.ASSISTANT, (Text("let me look"), ToolCall("1", "a", b"{}")))
    assert spoken("[[say:let me look]][[tool:a {}]][[then:done]]", both, results("x")) == "done"


def test_adjacent_assistant_messages_are_one() -> None:
    for together in ((said("x"), called("1")), (called("1"), said("x"))):
        assert spoken("[[say:x]][[tool:a {}]][[then:done]]", *together, results("r")) == "done"


def test_calls_that_are_not_offered_are_not_waited_for() -> None:
    script = "[[tool:gone {}]][[then:done]]"
    assert steps(script) == (Say("(no tool gone)"),)
    assert steps(script, said("(no tool gone)")) == (Say("done"),)
    assert steps("[[tool:a {}]][[tool:gone {}]][[then:done]]", called("1"), results("x")) == (Say("done"),)


# Placeholders


def test_result() -> None:
    script = "[[tool:a {}]][[tool:b {}]][[then:{{result}}]]"
    assert spoken(script, called("1", "2"), results("one", "two")) == "one\ntwo"
    assert spoken("[[say:<{{result}}>]]") == "<>"
    assert spoken(results("old"), said("x"), "[[say:{{result}}]]") == "old"
    assert spoken(user(ToolResult("r", (Text("a"), image(), Text("b")))), "[[say:{{result}}]]") == "a\nb"


@pytest.mark.parametrize(
    ("needle", "found"),
    [
        ("in the system", True),
        ("number is 7", True),
        ("Noted", True),
        ("from the tool", True),
        ("nowhere", False),
        ("only in a directive", False),
        ("number is 7 gone", False),
    ],
)
def test_find(needle: str, found: bool) -> None:
    text = spoken(
        "my number is 7 [[say:only in a directive]]",
        said("Noted."),
        called("1"),
        results("from the tool"),
        f"[[say:{{{{find:{needle}}}}}]]",
        system="words in the system prompt",
    )
    assert text == ("FOUND" if found else "MISSING")


def test_find_takes_escapes_and_ends_at_the_first_braces() -> None:
    assert spoken("a]b {x}", said("y"), r"[[say:{{find:a\]b {x}}}]]") == "FOUND}"


def test_images() -> None:
    def named(data: bytes, kind: str) -> str:
        return f"{kind}:{hashlib.sha256(data).hexdigest()[:8]}"

    assert spoken("[[say:{{images}}]]") == "0"
    text = spoken(
        user("x", image()),
        said("y"),
        called("1"),
        user(ToolResult("1", (image(JPEG, "image/jpeg"),))),
        user("[[say:{{images}}]]", image()),
    )
    assert text == f"3,{named(PNG, 'png')},{named(JPEG, 'jpeg')},{named(PNG, 'png')}"
    assert image() == Image("image/png", image().data)


def test_tools_and_model() -> None:
    assert spoken("[[say:{{tools}}]]") == "4:a,b,c,Read"
    assert steps("[[say:{{tools}}]]", tools=()) == (Say("0:"),)
    assert spoken("[[say:{{model}}]]") == "claude-sonnet-4.5"


def test_unknown_placeholders_stay() -> None:
    assert spoken("[[say:{{other}} {{find}} {{}}]]") == "{{other}} {{find}} {{}}"


def test_what_a_placeholder_says_is_not_read_again() -> None:
    assert spoken(results("{{model}} [[say:x]]"), "[[say:{{result}}]]") == "{{model}} [[say:x]]"


def test_placeholders_in_thoughts_and_not_in_arguments() -> None:
    assert steps('[[think:{{model}}]][[tool:a {"x":"{{model}}"}]]') == (
        Think("claude-sonnet-4.5"),
        Call("a", '{"x":"{{model}}"}'),
    )


# Delivery and failures


@pytest.mark.parametrize(
    ("script", "chunk", "slow", "wait"),
    [
        ("[[say:x]]", None, None, 0.0),
        ("[[chunk:7]]", 7, None, 0.0),
        ("[[chunk:u16]]", "u16", None, 0.0),
        ("[[chunk:byte]]", "byte", None, 0.0),
        ("[[chunk:u16]][[chunk:2]]", 2, None, 0.0),
        ("[[slow:25]]", None, 0.025, 0.0),
        ("[[slow:0]]", None, 0.0, 0.0),
        ("[[wait:1500]]", None, None, 1.5),
    ],
)
def test_delivery(script: str, chunk: object, slow: object, wait: float) -> None:
    found = played(script)
    assert (found.chunk, found.slow, found.wait) == (chunk, slow, wait)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("[[cut:3]]", Break("cut", 3)),
        ("[[cut:0]]", Break("cut", 0)),
        ("[[cut:3 1 k]]", Break("cut", 3)),
        ("[[cut:3 0 k]]", None),
        ("[[fault:reset]]", Break("reset")),
        ("[[fault:stall 2]]", Break("stall", 2)),
        ("[[fault:crc]]", Break("crc")),
        ("[[fault:unstopped]]", Break("unstopped")),
        ("[[fault:exception THROTTLE]]", Break("exception", None, "THROTTLE")),
        ("[[fault:exception THROTTLE 4]]", Break("exception", 4, "THROTTLE")),
        ("[[cut:1]][[fault:crc]]", Break("cut", 1)),
        ("[[say:x]]", None),
    ],
)
def test_breaks(script: str, expected: Break | None) -> None:
    assert played(script).breaks == expected


@pytest.mark.parametrize("name", ["THROTTLE", "QUOTA", "VALIDATION", "CONTEXT", "ACCESS", "INTERNAL", "UNAVAILABLE"])
def test_errors(name: str) -> None:
    assert played(f"[[error:{name}]]").error == name


def test_fail_counts_the_requests_with_its_key() -> None:
    count = counting()
    script = conversation("[[fail:THROTTLE 2 k1]][[say:ok after {{attempt}}]]")
    other = conversation("[[fail:QUOTA 1 k2]][[say:{{attempt}}]]")
    assert [getattr(play(script, count), "error", "") for _ in range(2)] == ["THROTTLE", "THROTTLE"]
    assert getattr(play(other, count), "error", "") == "QUOTA"
    third = play(script, count)
    assert third is not None
    assert third.error == ""
    assert third.steps == (Say("ok after 3"),)


def test_fail_and_cut_of_one_key_count_once() -> None:
    count = counting()
    script = conversation("[[fail:INTERNAL 1 k]][[cut:1 2 k]][[say:{{attempt}}]]")
    found = [play(script, count) for _ in range(3)]
    assert [p and p.error for p in found] == ["INTERNAL", "", ""]
    assert [p and p.breaks for p in found] == [Break("cut", 1), Break("cut", 1), None]
    assert [p and p.steps for p in found] == [(Say("1"),), (Say("2"),), (Say("3"),)]


def test_attempt_without_a_key_is_one() -> None:
    assert spoken("[[cut:3]][[say:{{attempt}}]]") == "1"
