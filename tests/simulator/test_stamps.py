"""Tokens that say when they were sent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from kirostream.evstream import FrameDecoder
from kirostream.simulator.directives import Break, Play, Say, play
from kirostream.simulator.scene import Scene, stage
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest


def ask(prompt: str) -> TurnRequest:
    return TurnRequest(model="m", messages=(Message(Role.USER, (Text(prompt),)),))


def staged(due: Play, clock: Iterator[int]) -> Scene:
    return stage(
        due,
        ask(""),
        model=Model("m"),
        picked="m",
        chunk=4,
        call_ids=iter(()),
        clock=lambda: next(clock),
    )


def texts(data: bytes) -> list[str]:
    decoder = FrameDecoder()
    found = [json.loads(frame.payload).get("content") for frame in decoder.feed(data)]
    decoder.close()
    return [text for text in found if text is not None]


def test_stamps_take_the_place_of_what_is_said() -> None:
    due = play(ask("[[say:hello]][[stamps:3]][[stamps:9]]"), lambda key: 1)
    assert due is not None
    assert due.stamps == 3
    scene = staged(due, itertools.count(100))
    assert texts(b"".join(scene.beats) + scene.tail) == ["w1@100 ", "w2@101 ", "w3@102 "]
    assert scene.output_tokens == 3


@pytest.mark.parametrize("argument", ["", ":", ":x", ":123456789"])
def test_what_is_no_number_is_ordinary_text(argument: str) -> None:
    assert play(ask(f"[[stamps{argument}]]"), lambda key: 1) is None


def test_a_stamp_is_read_when_the_token_goes_out() -> None:
    clock = itertools.count(1)
    beats = staged(Play(stamps=4), clock).beats
    later = beats[2:]
    assert next(clock) == 1, "nothing was read yet"
    assert texts(b"".join(beats[:1])) == ["w1@2 "]
    assert texts(b"".join(later)) == ["w3@3 ", "w4@4 "]
    assert len(beats) == 4
    assert len(later) == 2


def test_stamps_break_like_everything_else() -> None:
    clock = itertools.count(1)
    scene = staged(Play(stamps=4, breaks=Break("cut", 2)), clock)
    now = next(clock)
    assert scene.breaks is not None
    assert scene.breaks.after == 2
    assert texts(b"".join(scene.beats[: scene.breaks.after])) == [f"w1@{now + 1} ", f"w2@{now + 2} "]


def test_a_script_without_stamps_reads_no_clock() -> None:
    scene = staged(Play((Say("hello"),)), iter(()))
    assert texts(b"".join(scene.beats)) == ["hell", "o"]
