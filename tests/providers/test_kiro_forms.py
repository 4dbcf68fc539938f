"""What the client is told of a refused form, and what the log is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import write_request
from kirostream.errors import ContextOverflow, FormRefused
from kirostream.filters.request_rules import apply_rules
from kirostream.providers.kiro import KiroProvider
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, Thinking, Tool, ToolCall, TurnRequest

MODEL = Model("claude-opus-4.7", efforts=("high", "xhigh"))
FORMS = KiroProvider().forms
BARE = FormRefused('Kiro rejects the form of the request. Kiro says: "Improperly formed request."', upstream_status=400)
WORDY = Tool("read", "Reads.", b'{"type":"object","properties":{"s3cret":{"type":"string","minLength":1}}}')


def asking(*texts: str, **more: Any) -> TurnRequest:
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[n % 2], (Text(text),)) for n, text in enumerate(texts))
    return apply_rules(TurnRequest(model="m", messages=messages, **more))


def body(request: TurnRequest) -> bytes:
    return write_request(request, Stamp(MODEL, "c"))


def explained(raw: bytes, refused: FormRefused = BARE, *repairs: str, capture: str = "") -> str:
    error = FORMS.explain(refused, raw, repairs=repairs, capture=capture)
    assert type(error) is FormRefused
    assert (error.reason, error.upstream_status) == (refused.reason, refused.upstream_status)
    return error.message


def test_a_request_that_breaks_no_rule() -> None:
    assert FORMS.suspects(body(asking("hi"))) == []
    said = explained(body(asking("hi")))
    assert said.startswith(BARE.message)
    assert "It breaks no rule that is known." in said
    assert "may pass" in said
    assert "capture" not in said


def test_what_is_doubted_is_named() -> None:
    raw = body(asking("a", " ", "b", tools=(WORDY,), thinking=Thinking(enabled=True)))
    assert FORMS.suspects(raw) == ["schema keywords (2.6)", "blank texts (2.4)", "thinking fields (2.8)"]
    said = explained(raw)
    assert "What may be the cause: schema keywords: the schema of 'read' holds \"minLength\"; blank texts: " in said


def test_what_is_certain_comes_first() -> None:
    odd = TurnRequest(
        model="m",
        messages=(
            Message(Role.USER, (Text("a"),)),
            Message(Role.ASSISTANT, (Text(" "), ToolCall("1", "read", b"{}"))),
            Message(Role.USER, (Text("b"),)),
        ),
        tools=(WORDY,),
    )
    assert FORMS.suspects(body(odd))[0] == "pairs of tool calls and results (2.5)"
    said = explained(body(odd))
    assert "It breaks a rule: pairs of tool calls and results: results for [], due are ['1']." in said
    assert "What may be" not in said


def test_what_was_done_about_it_is_told() -> None:
    said = explained(body(asking("hi")), BARE, "schemas reduced", "blank texts filled", capture="20260101-000000-abc")
    assert "A stricter form of it was refused as well (schemas reduced, blank texts filled)." in said
    assert "as capture 20260101-000000-abc: put it into a bug report" in said


@pytest.mark.parametrize("reason", ["", "ValidationException"])
def test_a_bare_refusal_of_a_very_long_request_is_an_overflow(reason: str) -> None:
    raw = body(asking("x" * 300_000, "y" * 290_000, "z" * 20_000))
    refused = FormRefused("m", reason=reason, upstream_status=400)
    error = FORMS.explain(refused, raw, repairs=(), capture="")
    assert type(error) is ContextOverflow
    assert "size: 610," in error.message
    assert FORMS.suspects(raw) == ["size (2.7)"]


def test_a_refusal_with_a_reason_is_none() -> None:
    raw = body(asking("x" * 300_000, "y" * 290_000, "z" * 20_000))
    assert "size" in explained(raw, FormRefused("m", reason="TOOL_SCHEMA_INVALID", upstream_status=400))


def test_a_body_that_cannot_be_read() -> None:
    assert FORMS.suspects(b"{") == ["JSON (2.2)"]
    assert "It breaks a rule: JSON: The request is not JSON" in explained(b"{")


def test_a_long_history_is_not_searched_to_its_end() -> None:
    raw = body(asking(*["a", " "] * 2_000, "b"))
    assert FORMS.suspects(raw) == ["blank texts (2.4)"]
    assert len(explained(raw)) < 500


def test_the_suspects_say_nothing_of_the_contents() -> None:
    assert "s3cret" not in json.dumps(FORMS.suspects(body(asking("s3cret", tools=(WORDY,)))))


def test_a_variant_is_made_for_the_reason() -> None:
    request = asking("a", " ", "b", tools=(WORDY,))
    assert FORMS.stricter(request, MODEL, BARE)[1] == ("schemas reduced", "blank texts filled")
    schema = FormRefused("m", reason="TOOL_SCHEMA_INVALID")
    assert FORMS.stricter(request, MODEL, schema)[1] == ("schemas reduced",)
