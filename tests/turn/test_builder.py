"""Whatever is said in whatever order, the builder's events are legal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import LocalProtocolError, StreamCut
from kirostream.turn.builder import TurnBuilder
from kirostream.turn.events import Stop, TurnEvent
from kirostream.turn.grammar import Grammar, Phase
from kirostream.turn.request import Text, Thought, ToolCall
from kirostream.turn.result import fold
from kirostream.turn.usage import Usage

Step = Callable[[TurnBuilder], list[TurnEvent]]
STEPS: list[Step] = [
    lambda b: b.text([b"t"]),
    lambda b: b.thought([b"h"]),
    lambda b: b.signature("sig"),
    lambda b: b.redacted("eA=="),
    lambda b: [*b.tool("id", "name"), *b.arguments([b"{}"])],
    lambda b: b.tool("id2", "name"),
    lambda b: b.close(),
]
ENDS: list[Step] = [lambda b: b.end(Stop.END, Usage()), lambda b: b.fail(StreamCut("cut"))]


@given(st.lists(st.sampled_from(STEPS), max_size=12), st.sampled_from(ENDS))
def test_any_order_is_legal(steps: list[Step], end: Step) -> None:
    builder, grammar = TurnBuilder(), Grammar()
    for event in builder.start("m", Usage()):
        grammar.check(event)
    for step in [*steps, end]:
        for event in step(builder):
            grammar.check(event)
    assert grammar.phase is Phase.OVER
    assert builder.over


def test_a_change_of_kind_closes_the_block() -> None:
    b = TurnBuilder()
    events = [
        *b.start("m", Usage()),
        *b.thought([b"why"]),
        *b.signature("s"),
        *b.text([b"a"]),
        *b.text([b"b"]),
        *b.tool("id", "n"),
        *b.arguments([rb"{\"x\":", b"1}"]),
        *b.end(Stop.TOOL_CALL, Usage()),
    ]
    assert fold(events).content == (Thought("why", "s"), Text("ab"), ToolCall("id", "n", b'{"x":1}'))


def test_arguments_need_a_call() -> None:
    with pytest.raises(LocalProtocolError):
        TurnBuilder().arguments([b"{}"])
