"""docs/compatibility.md says what the code does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from compatibility import EMULATED, EVENTS, IGNORED, LANGUAGES, PAGE, REFUSED, SMALLEST, SUPPORTED, Row, render
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading, Stamp
from kirostream.errors import MalformedRequest, StreamCut
from kirostream.filters.limits import limits_of
from kirostream.filters.request_rules import apply_rules
from kirostream.turn.events import Stop, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import Attachment, Text, Thought, Tool, ToolCall, TurnRequest
from kirostream.turn.result import TurnResult, unfold

ROWS = [(name, row) for name, (_, rows) in LANGUAGES.items() for row in rows]
MODEL = Model("m", efforts=("low", "medium", "high"))


def read(language: str, sample: dict[str, Any]) -> TurnRequest:
    body = {key: value for key, value in {**SMALLEST, **sample}.items() if value is not None}
    return DIALECTS[language].read_request(json.dumps(body).encode(), ())


def effect(request: TurnRequest) -> list[object]:
    """Everything a request makes happen: what Kiro is asked, and what the gateway does by itself."""
    limits = limits_of(replace(request, tools=request.tools or (Tool("t", "", b"{}"),)), MODEL)
    return [
        DIALECTS["kiro"].write_request(apply_rules(request), Stamp(MODEL)),
        [block for message in request.messages for block in message.content if isinstance(block, Attachment)],
        repr(limits),
        request.tool_choice.parallel,
        (request.output, request.choices, request.stream, request.include_usage, request.session, request.thinking),
    ]


def test_the_page_is_as_the_rows_say() -> None:
    assert PAGE.read_text() == render(), "run: python tests/compatibility.py"


@pytest.mark.parametrize(("language", "row"), ROWS, ids=[f"{name}: {row.field}" for name, row in ROWS])
def test_a_row_is_true(language: str, row: Row) -> None:
    assert row.status in (SUPPORTED, EMULATED, IGNORED, REFUSED)
    if row.status == REFUSED:
        with pytest.raises(MalformedRequest) as caught:
            read(language, row.sample)
        assert caught.value.param
    else:
        same = effect(read(language, row.sample)) == effect(read(language, {}))
        assert same == (row.status == IGNORED)


@pytest.mark.parametrize("language", EVENTS)
def test_the_events_are_these(language: str) -> None:
    dialect = DIALECTS[language]
    request = read(language, {"stream": True})
    result = TurnResult((Thought("a", "s"), Text("b"), ToolCall("c", "d", b"{}")), Stop.TOOL_CALL)
    writer = dialect.writer(request, Heading("0" * 32, 0))
    stream = b"".join(block for event in unfold(result) for block in writer.write(event)) + writer.heartbeat()
    stream += b"".join(dialect.writer(request, Heading("0" * 32, 0)).write(TurnFailed(StreamCut("x"))))
    said = set()
    for line in stream.decode().splitlines():
        if line.startswith("data: "):
            event = {"object": line[6:]} if line == "data: [DONE]" else json.loads(line[6:])
            said.add(event.get("type") or event.get("object") or next(iter(event)))
    assert said == set(EVENTS[language])
