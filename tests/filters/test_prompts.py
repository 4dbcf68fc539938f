"""Notes that the operator, or a model's name, asks for."""

from __future__ import annotations

import json
import re

import pytest

from kirostream.filters import FilterSettings, emulate
from kirostream.filters.prompts import AGENTIC, CHUNKED_WRITE, DISCIPLINE, Agentic, advise, writes_files
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, Thinking, Tool, TurnRequest

OWN = Text("Be brief.")
WRITE, READ = Tool("Write", "Writes.", b"{}"), Tool("Read", "Reads.", b"{}")
BARE = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), system=(OWN,))
WITH_TOOLS = TurnRequest(model="m", messages=BARE.messages, system=(OWN,), tools=(WRITE, READ))


def test_nothing_is_said_that_nobody_asked_for() -> None:
    for request in (BARE, WITH_TOOLS):
        assert advise(request) is request
        assert emulate(request, Model("m"), FilterSettings()) is request


@pytest.mark.parametrize(
    ("agentic", "named", "request_", "on"),
    [
        (Agentic.OFF, True, WITH_TOOLS, False),
        (Agentic.NAME, False, WITH_TOOLS, False),
        (Agentic.NAME, True, BARE, True),
        (Agentic.NAME, True, WITH_TOOLS, True),
        (Agentic.TOOLS, False, BARE, False),
        (Agentic.TOOLS, False, WITH_TOOLS, True),
        (Agentic.TOOLS, True, BARE, True),
    ],
)
def test_when_agentic_mode_is_on(agentic: Agentic, named: bool, request_: TurnRequest, on: bool) -> None:
    told = advise(request_, agentic=agentic, named=named)
    assert told.system == ((OWN, Text(AGENTIC)) if on else (OWN,))
    assert told.tools == request_.tools


def test_notes_stand_behind_the_clients_own_words_in_one_order() -> None:
    settings = FilterSettings(agentic="tools", execution_discipline=True, chunked_writes=True, thinking_tags=True)
    asked = TurnRequest(model="m", messages=BARE.messages, system=(OWN,), tools=(WRITE,), thinking=Thinking(True))
    told = emulate(asked, Model("m"), settings)
    assert told.system[:3] == (OWN, Text(AGENTIC), Text(DISCIPLINE))
    assert "thinking_mode" in told.system[3].text
    assert told.tools == (Tool("Write", f"Writes.\n\n{CHUNKED_WRITE}", b"{}"),)
    assert told == emulate(asked, Model("m"), settings)


def test_the_line_for_tools_that_write() -> None:
    told = advise(WITH_TOOLS, chunked_writes=True)
    assert told.tools == (Tool("Write", f"Writes.\n\n{CHUNKED_WRITE}", b"{}"), READ)
    assert told.system == (OWN,)
    (bare,) = advise(TurnRequest(model="m", messages=(), tools=(Tool("edit", "", b"{}"),)), chunked_writes=True).tools
    assert bare.description == CHUNKED_WRITE
    readers = TurnRequest(model="m", messages=(), tools=(READ,))
    assert advise(readers, chunked_writes=True) is readers


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        *((name, True) for name in ("Write", "Edit", "MultiEdit", "NotebookEdit", "write_file", "write_to_file")),
        *((name, True) for name in ("replace_in_file", "apply_patch", "fsWrite", "str_replace_based_edit_tool")),
        *((name, True) for name in ("mcp__filesystem__write_file", "create-file", "search_replace")),
        *((name, False) for name in ("Read", "Bash", "TodoWrite", "overwrite_everything", "mcp__write__status", "")),
    ],
)
def test_which_tools_write(name: str, writes: bool) -> None:
    assert writes_files(Tool(name, "", b"{}")) is writes


def test_the_notes_are_the_same_every_day() -> None:
    for note in (AGENTIC, DISCIPLINE, CHUNKED_WRITE):
        assert not re.search(r"20\d\d|\d\d:\d\d|\{|\}", note)
        json.dumps(note)
    for name in ("Goal Lock", "Action Priority", "Plan Execution", "No Confirmation Questions"):
        assert name in DISCIPLINE
    assert "350" in AGENTIC
    assert "350" in CHUNKED_WRITE


def test_a_word_that_is_none() -> None:
    with pytest.raises(ValueError, match="agentic is 'always'; it takes: off, name, tools"):
        FilterSettings(agentic="always")
