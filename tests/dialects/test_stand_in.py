"""An answer names the model that was asked for, as it was written; unless another one stands in for it."""

from __future__ import annotations

import json

import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.turn import wire
from kirostream.turn.events import Stop, TurnStarted
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold

HEADING = Heading("0" * 32, 0)
CLIENTS = ["anthropic", "openai_chat", "openai_responses"]


def asking(name: str) -> TurnRequest:
    messages = (Message(Role.USER, (Text("hi"),)),)
    return TurnRequest(model="Opus", messages=messages, stream=True, include_usage=True, spoken_in=name)


@pytest.mark.parametrize("stands_in", [False, True])
@pytest.mark.parametrize("name", CLIENTS)
def test_streamed_and_whole(name: str, stands_in: bool) -> None:
    dialect, request = DIALECTS[name], asking(name)
    result = TurnResult((Text("a"),), Stop.END, model="claude-sonnet-4.5", stands_in=stands_in)
    named, other = ("claude-sonnet-4.5", "Opus") if stands_in else ("Opus", "claude-sonnet-4.5")
    writer = dialect.writer(request, HEADING)
    streamed = b"".join(block for event in unfold(result) for block in writer.write(event)).decode()
    assert f'"model":"{named}"' in streamed
    assert other not in streamed
    assert json.loads(dialect.write_result(request, result, HEADING))["model"] == named


def test_it_survives_folding_and_the_wire() -> None:
    result = TurnResult((Text("a"),), Stop.END, model="m", stands_in=True)
    assert fold(unfold(result)) == result
    started = TurnStarted("m", stands_in=True)
    assert wire.load(wire.dump(started)) == started
