"""docs/compatibility.md says what the code does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
import trio

from compatibility import (
    EMULATED,
    EVENTS,
    IGNORED,
    LANGUAGES,
    PAGE,
    REFUSED,
    RESPONSES_SMALLEST,
    SMALLEST,
    SUPPORTED,
    Row,
    render,
)
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading, Stamp
from kirostream.dialects.openai_responses.thoughts import PLAIN
from kirostream.errors import MalformedRequest, StreamCut
from kirostream.filters.limits import limits_of
from kirostream.filters.request_rules import apply_rules
from kirostream.gateway.media import Media
from kirostream.gateway.responses_input import Asked, Inputs
from kirostream.gateway.responses_store import ResponseStore, Stored
from kirostream.turn.events import Stop, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import (
    Attachment,
    SearchCall,
    SearchHit,
    SearchOutcome,
    Text,
    Thought,
    Tool,
    ToolCall,
    TurnRequest,
)
from kirostream.turn.result import TurnResult, unfold

ROWS = [(name, row) for name, (_, rows) in LANGUAGES.items() for row in rows]
MODEL = Model("m", efforts=("low", "medium", "high"))
HEADING = Heading("0" * 32, 0)
SEARCH = (SearchCall("s", "q"), SearchOutcome("s", (SearchHit("https://x/", "X"),)))
RESULT = TurnResult((Thought("a", "s"), *SEARCH, Text("b https://x/"), ToolCall("c", "d", b"{}")), Stop.TOOL_CALL)
SAMPLES: dict[str, tuple[dict[str, Any], ...]] = {
    "openai_responses": ({"background": True}, {"tools": [{"type": "custom", "name": "d"}]}),
}
"""Requests whose answers hold every event of a language, where the smallest request's does not."""


class Store:
    """Keeps one answer, whatever its name."""

    item = b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"kept"}],"id":"msg_%b"}'

    def stored(self, name: str, caller: str) -> Stored:
        return Stored(name, caller, 0, "", b"{}", (), (self.item % (b"0" * 36),))


class NoMedia:
    """Leaves attachments where they are."""

    async def settle(self, request: TurnRequest, *, fetch: bool) -> TurnRequest:
        await trio.lowlevel.checkpoint()
        return request


async def ask_responses(body: bytes) -> Asked:
    store = Store()
    inputs = Inputs(cast(ResponseStore, store), cast(Media, NoMedia()), PLAIN, store.stored)
    return await inputs.read(body, (), "caller")


def read(language: str, sample: dict[str, Any]) -> TurnRequest:
    return asked(language, sample)[0]


def asked(language: str, sample: dict[str, Any]) -> tuple[TurnRequest, list[object]]:
    """The request, and what the gateway takes from the body besides."""
    smallest = RESPONSES_SMALLEST if language == "openai_responses" else SMALLEST
    body = json.dumps({key: value for key, value in {**smallest, **sample}.items() if value is not None}).encode()
    if language != "openai_responses":
        return DIALECTS[language].read_request(body, ()), []
    found = trio.run(ask_responses, body)
    answer = json.loads(DIALECTS[language].write_result(found.request, RESULT, HEADING))
    memory = (found.store, found.background, found.previous, found.compacts, found.generates)
    return found.request, [memory, answer["output"], answer["metadata"]]


def effect(request: TurnRequest, more: list[object]) -> list[object]:
    """Everything a request makes happen: what Kiro is asked, and what the gateway does by itself."""
    limits = limits_of(replace(request, tools=request.tools or (Tool("t", "", b"{}"),)), MODEL)
    return [
        DIALECTS["kiro"].write_request(apply_rules(request), Stamp(MODEL)),
        [block for message in request.messages for block in message.content if isinstance(block, Attachment)],
        repr(limits),
        request.tool_choice.parallel,
        (request.output, request.choices, request.stream, request.include_usage, request.session, request.thinking),
        request.search,
        *more,
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
        same = effect(*asked(language, row.sample)) == effect(*asked(language, {}))
        assert same == (row.status == IGNORED)


@pytest.mark.parametrize("language", EVENTS)
def test_the_events_are_these(language: str) -> None:
    dialect = DIALECTS[language]
    stream = b""
    for sample in SAMPLES.get(language, ({},)):
        request = read(language, {"stream": True, **sample})
        for stop in Stop:
            writer = dialect.writer(request, HEADING)
            said = unfold(replace(RESULT, stop=stop))
            stream += b"".join(block for event in said for block in writer.write(event)) + writer.heartbeat()
        stream += b"".join(dialect.writer(request, HEADING).write(TurnFailed(StreamCut("x"))))
    found = set()
    for line in stream.decode().splitlines():
        if line.startswith("data: "):
            event = {"object": line[6:]} if line == "data: [DONE]" else json.loads(line[6:])
            found.add(event.get("type") or event.get("object") or next(iter(event)))
    assert found == set(EVENTS[language])
