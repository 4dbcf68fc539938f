"""Refused forms: what is kept, what is tried, and what is told, each once a turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kirostream.errors import FormRefused, LocalProtocolError, UpstreamError
from kirostream.relay.refusals import MOST_REMEMBERED, REMEMBERED, Inquiry, Refusals
from kirostream.telemetry.captures import Captures, CaptureSettings
from kirostream.telemetry.facts import Fact, RequestCaptured, RequestRepaired
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest

ASKED = TurnRequest(model="m", messages=(Message(Role.USER, (Text("s3cret"),)),))
VARIANT = TurnRequest(model="m", messages=(Message(Role.USER, (Text("stricter"),)),))
REFUSED = FormRefused("no", reason="R", upstream_status=400)
MODEL = Model("m")


@dataclass
class FakeForms:
    """Knows one repair, and notes what it is asked."""

    repairs: Sequence[str] = ("made stricter",)
    asked: list[tuple[bytes, Sequence[str], str]] = field(default_factory=list)

    def stricter(self, request: TurnRequest, model: Model, refused: FormRefused) -> tuple[TurnRequest, Sequence[str]]:
        return (VARIANT if self.repairs else request), self.repairs

    def suspects(self, body: bytes) -> Sequence[str]:
        return ["one (2.4)", "two (2.6)"]

    def redacted(self, body: bytes, key: bytes) -> Any:
        assert len(key) == 16
        return {"bytes": len(body)}

    def explain(self, refused: FormRefused, body: bytes, *, repairs: Sequence[str], capture: str) -> UpstreamError:
        self.asked.append((body, repairs, capture))
        return FormRefused("explained")


def desk(tmp_path: Path, forms: FakeForms | None, *, keep: int = 2) -> tuple[Refusals, Inquiry, list[Fact]]:
    facts: list[Fact] = []
    captures = Captures(tmp_path / "captures", CaptureSettings(keep=keep), lambda: 1_000_000_000.0)
    return Refusals(forms, captures, Recorder(facts.append)), Inquiry("0123456789abcdef"), facts


async def test_the_first_refusal_is_kept_without_its_contents(tmp_path: Path) -> None:
    forms = FakeForms()
    refusals, case, facts = desk(tmp_path, forms)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"s3cret body")
    (path,) = (tmp_path / "captures").iterdir()
    assert path.name == "20010909-014640-000-01234567.capture.json"
    assert facts == [RequestCaptured(turn="0123456789abcdef", suspects="one (2.4), two (2.6)", file=str(path))]
    kept = json.loads(path.read_text())
    assert kept["request"] == {"bytes": 11}
    assert kept["suspects"] == ["one (2.4)", "two (2.6)"]
    assert (kept["status"], kept["reason"], kept["bytes"]) == (400, "R", 11)
    assert "s3cret" not in path.read_text()
    refusals.stricter(case)
    await refusals.look(case, REFUSED, VARIANT, MODEL, b"the variant")
    assert len(list((tmp_path / "captures").iterdir())) == 1
    assert refusals.verdict(case, REFUSED).message == "explained"
    assert forms.asked == [(b"the variant", ("made stricter",), "20010909-014640-000-01234567")]
    assert case.body == b"", "a turn that is over holds no body"


async def test_a_variant_is_tried_once(tmp_path: Path) -> None:
    refusals, case, facts = desk(tmp_path, FakeForms(), keep=0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    assert facts == []
    assert refusals.stricter(case) is VARIANT
    assert facts == [RequestRepaired(turn="0123456789abcdef", repairs="made stricter")]
    await refusals.look(case, REFUSED, VARIANT, MODEL, b"y")
    assert case.variant is None
    with pytest.raises(LocalProtocolError):
        refusals.stricter(case)


async def test_a_variant_that_was_not_tried_is_not_told(tmp_path: Path) -> None:
    forms = FakeForms()
    refusals, case, _ = desk(tmp_path, forms, keep=0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    refusals.verdict(case, REFUSED)
    assert forms.asked == [(b"x", (), "")]


async def test_later_requests_of_the_turn_are_repaired_from_the_start(tmp_path: Path) -> None:
    refusals, case, _ = desk(tmp_path, FakeForms(), keep=0)
    assert refusals.as_before(case, ASKED, MODEL) is ASKED
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    assert refusals.as_before(case, ASKED, MODEL) is ASKED
    refusals.stricter(case)
    assert refusals.as_before(case, ASKED, MODEL) is VARIANT


async def test_a_conversation_begins_with_the_stricter_form_for_a_while(tmp_path: Path) -> None:
    refusals, case, facts = desk(tmp_path, FakeForms(), keep=0)
    refusals.remember(case, "talk", 0.0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    refusals.stricter(case)
    refusals.remember(case, "talk", 100.0)
    assert case.body == b""
    facts.clear()

    def begun(conversation: str, now: float) -> TurnRequest:
        later = Inquiry("later")
        refusals.recall(later, conversation, now)
        asked = refusals.as_before(later, ASKED, MODEL)
        refusals.remember(later, conversation, now)  # an answer that needed no repair of its own
        return asked

    assert begun("another talk", 101.0) is ASKED
    assert begun("talk", 100.0 + REMEMBERED - 1) is VARIANT
    assert facts == [RequestRepaired(turn="later", repairs="made stricter")]
    assert begun("talk", 100.0 + REMEMBERED) is ASKED, "the usual form is tried again"


async def test_not_every_conversation_is_remembered(tmp_path: Path) -> None:
    refusals, case, _ = desk(tmp_path, FakeForms(), keep=0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    refusals.stricter(case)
    for number in range(MOST_REMEMBERED + 1):
        case.body = b"x"
        refusals.remember(case, f"talk {number}", 0.0)
    later = Inquiry("later")
    refusals.recall(later, "talk 0", 1.0)
    assert later.refused is None
    refusals.recall(later, "talk 1", 1.0)
    assert later.refused is REFUSED


async def test_a_request_without_a_variant(tmp_path: Path) -> None:
    refusals, case, facts = desk(tmp_path, FakeForms(repairs=()), keep=0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    assert (case.variant, facts) == (None, [])


async def test_captures_can_be_switched_off(tmp_path: Path) -> None:
    refusals, case, facts = desk(tmp_path, FakeForms(), keep=0)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    assert (case.capture, facts) == ("", [])
    assert not (tmp_path / "captures").exists()


async def test_a_capture_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "captures").write_text("in the way")
    refusals, case, facts = desk(tmp_path, FakeForms())
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    (fact,) = facts
    assert isinstance(fact, RequestCaptured)
    assert "cannot write" in fact.error
    assert (fact.file, case.capture) == ("", "")


async def test_a_place_of_which_nothing_is_known(tmp_path: Path) -> None:
    refusals, case, facts = desk(tmp_path, None)
    await refusals.look(case, REFUSED, ASKED, MODEL, b"x")
    assert case == Inquiry(case.turn)
    assert refusals.verdict(case, REFUSED) is REFUSED
    assert facts == []


def test_a_count_below_nothing_is_no_setting() -> None:
    with pytest.raises(ValueError, match="-1"):
        CaptureSettings(keep=-1)
