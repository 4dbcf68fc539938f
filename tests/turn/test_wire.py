"""Canonical JSON of events: exact, both ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.turns import RESULT
from kirostream.errors import AccountThrottled, ContextOverflow, FrameError, MethodNotAllowed, RemoteProtocolError
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Foreign,
    Stop,
    TurnEnded,
    TurnFailed,
    TurnStarted,
    UsageKnown,
    escape,
)
from kirostream.turn.result import TurnResult, unfold
from kirostream.turn.usage import Usage
from kirostream.turn.wire import dump, dump_all, load, load_all


@given(RESULT)
def test_load_undoes_dump(result: TurnResult) -> None:
    events = list(unfold(result))
    assert load_all(dump_all(events)) == events


@given(st.lists(st.text(), min_size=1, max_size=6))
def test_pieces_come_back_byte_for_byte(texts: list[str]) -> None:
    delta = BlockDelta(3, tuple(map(escape, texts)))
    assert load(dump(delta)) == delta


@pytest.mark.parametrize("piece", [rb"\u00e9", rb"\",\"", rb"\ud83d\ude00", rb"\/", b"\\\\", b""])
def test_a_piece_keeps_its_own_escapes(piece: bytes) -> None:
    delta = BlockDelta(0, (piece, b"x", piece))
    line = dump(delta)
    assert json.loads(line)["pieces"][1] == "x"
    assert load(line) == delta


@pytest.mark.parametrize(
    "event",
    [
        TurnStarted(),
        BlockStarted(0, BlockKind.REDACTED, data="b3BhcXVl"),
        UsageKnown(Usage(1, 2, 3, 4, 5, 0.25, 12.5, estimated=True)),
        Foreign("anthropic", b'{"a": 1}'),
        TurnEnded(Stop.STOP_SEQUENCE, Usage(), "\n\n"),
    ],
)
def test_every_event_without_a_text_of_its_own(event: TurnStarted | BlockStarted | UsageKnown | Foreign) -> None:
    assert load(dump(event)) == event


@pytest.mark.parametrize(
    "error",
    [
        AccountThrottled("Slow down.", reason="THROTTLED", retry_after=1.5, upstream_status=429),
        ContextOverflow("Too long.", tokens=5, limit=4),
        MethodNotAllowed("No.", allowed=("GET", "HEAD")),
        FrameError("length", 7, "bad"),
    ],
)
def test_an_error_comes_back_as_its_class_with_its_attributes(error: Exception) -> None:
    line = dump(TurnFailed(error))  # type: ignore[arg-type]
    loaded = load(line)
    assert isinstance(loaded, TurnFailed)
    assert type(loaded.error) is type(error)
    assert vars(loaded.error) == vars(error)
    assert dump(loaded) == line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"type":"nothing"}',
        b'{"type":"block_started","index":0,"kind":"smell"}',
        b'{"type":"block_delta","index":0,"pieces":[1]}',
        b'{"type": "block_delta", "index": 0, "pieces": ["a", "b"]}',
        b'{"type":"turn_failed","error":{"class":"Blame","message":""}}',
        b'{"type":"turn_started","unheard_of":1}',
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        load(line)
