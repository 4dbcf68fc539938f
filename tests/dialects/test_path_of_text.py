"""Text from the upstream's frames to a client's text, whole path, both languages: byte for byte the same.

The frames are made by an encoder of this test's own (json and `encode_frame`), cut where no sane upstream would cut:
inside surrogate pairs, inside frames. The clients' side is decoded by `json`.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuts import cuts
from helpers.languages import LANGUAGES, Language
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.evstream import encode_frame
from kirostream.turn.events import TurnEvent
from kirostream.turn.grammar import Grammar
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, Tool, TurnRequest

ASK = TurnRequest(
    model="m",
    messages=(Message(Role.USER, (Text("hi"),)),),
    tools=(Tool("write", "Writes.", b'{"type":"object"}'),),
    stream=True,
)
SAMPLES = [
    "😀",
    "👩‍👩‍👧‍👦 family",
    "日本語の文章、漢字とかな。",
    'quotes " and \\ and / and \b\f\n\r\t and \u0000\u001f\u007f',
    "\u2028\u2029\ufeff\uffff",
    "é vs e\u0301",
    "data: x\n\nevent: y\n\n",
    "𝒜𝒷 mixed 日 😀 e",
]


def units(text: str) -> list[str]:
    """The text in UTF-16 code units, as JavaScript cuts it."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return [raw[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(raw), 2)]


def frame(kind: str, **payload: object) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode_frame(headers, json.dumps(payload).encode())


def through(language: Language, wire: list[bytes]) -> bytes:
    """What a client gets, when these pieces come from the upstream."""
    reader = DIALECTS["kiro"].reader(ASK, Model("m"))
    writer = DIALECTS[language.name].writer(ASK, Heading("ab" * 16, 0))
    grammar = Grammar()
    events: list[TurnEvent] = []
    for piece in wire:
        events += reader.feed(piece)
    events += reader.close()
    for event in events:
        grammar.check(event)
    return b"".join(block for event in events for block in writer.write(event))


def arguments(language: Language, body: bytes) -> str:
    """The text of the tool call's arguments."""
    if language.name == "anthropic":
        return "".join(event.get("delta", {}).get("partial_json", "") for event in language.events(body))
    if language.name == "openai_responses":
        kind = "response.function_call_arguments.delta"
        return "".join(event["delta"] for event in language.events(body) if event["type"] == kind)
    calls = [
        call
        for event in language.events(body)
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    return "".join(call["function"].get("arguments", "") for call in calls)


both = pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)


@both
@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_samples_in_code_units(language: Language, text: str, size: int) -> None:
    cut = units(text)
    pieces = ["".join(cut[i : i + size]) for i in range(0, len(cut), size)]
    wire = b"".join(frame("assistantResponseEvent", content=piece) for piece in pieces)
    body = through(language, [wire[i : i + 3] for i in range(0, len(wire), 3)])
    assert language.text(body) == text
    assert language.is_whole(body)


@both
@given(text=st.text(st.characters(codec="utf-8"), min_size=1), data=st.data())
def test_any_text_in_any_cut(language: Language, text: str, data: st.DataObject) -> None:
    points = data.draw(st.lists(st.integers(0, len(units(text))), max_size=8).map(sorted))
    cut = units(text)
    pieces = ["".join(cut[a:b]) for a, b in zip([0, *points], [*points, len(cut)], strict=True)]
    wire = b"".join(frame("assistantResponseEvent", content=piece, modelId="m") for piece in pieces)
    body = through(language, data.draw(cuts(wire)))
    assert language.text(body) == text


@both
@given(text=st.text(st.characters(codec="utf-8"), min_size=1), data=st.data())
def test_any_arguments_in_any_cut(language: Language, text: str, data: st.DataObject) -> None:
    """A call's arguments are JSON in JSON: escaped twice on the wire, once at the client."""
    said = json.dumps({"content": text}, ensure_ascii=data.draw(st.booleans()))
    points = data.draw(st.lists(st.integers(0, len(units(said))), max_size=8).map(sorted))
    cut = units(said)
    pieces = ["".join(cut[a:b]) for a, b in zip([0, *points], [*points, len(cut)], strict=True)]
    wire = frame("toolUseEvent", toolUseId="t1", name="write")
    wire += b"".join(frame("toolUseEvent", toolUseId="t1", name="write", input=piece) for piece in pieces)
    wire += frame("toolUseEvent", toolUseId="t1", name="write", stop=True)
    body = through(language, data.draw(cuts(wire)))
    assert json.loads(arguments(language, body)) == {"content": text}


@both
def test_half_a_pair_that_finds_no_other_half(language: Language) -> None:
    wire = b"".join(frame("assistantResponseEvent", content=piece) for piece in ("a\ud83d", "b", "\ude00c"))
    assert language.text(through(language, [wire])) == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(("cut", "ended"), [('{"content": "ha', "cut"), ('{"content": "all"}', "whole")])
def test_a_call_that_broke_off_is_not_to_be_run(cut: str, ended: str) -> None:
    """Chat's clients run what ends with ``tool_calls``; one whose arguments are half ends with ``length``."""
    chat = next(language for language in LANGUAGES if language.name == "openai_chat")
    wire = frame("toolUseEvent", toolUseId="t1", name="write", input=cut)
    wire += frame("toolUseEvent", toolUseId="t1", name="write", stop=True)
    body = through(chat, [wire])
    reasons = [choice["finish_reason"] for event in chat.events(body) for choice in event["choices"]]
    assert reasons[-1] == {"cut": "length", "whole": "tool_calls"}[ended]
