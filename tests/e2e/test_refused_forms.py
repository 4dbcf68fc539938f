"""A form that the service refuses, between two real sockets, in all languages: what is tried, kept and told."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from e2e.test_faults import AUTH, both, running
from helpers.languages import Language
from helpers.rawhttp import post
from kirostream.telemetry.facts import AttemptFailed, Fact, RequestCaptured, RequestRepaired, TurnFinished

SECRET = "correct-horse-battery-staple"
SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string", "minLength": 1, "default": SECRET}},
    "additionalProperties": False,
}


def tools(language: Language) -> list[Any]:
    """A tool with a schema that a picky service refuses."""
    match language.name:
        case "anthropic":
            return [{"name": "read", "description": SECRET, "input_schema": SCHEMA}]
        case "openai_chat":
            return [{"type": "function", "function": {"name": "read", "description": SECRET, "parameters": SCHEMA}}]
        case _:
            return [{"type": "function", "name": "read", "description": SECRET, "parameters": SCHEMA}]


def of(kind: type[Fact], facts: list[Fact]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


async def ask(
    gateway: Any, language: Language, prompt: str, *, stream: bool = True, wordy: bool = True
) -> tuple[int, bytes]:
    body = language.ask(f"{SECRET} {prompt}", stream=stream, **({"tools": tools(language)} if wordy else {}))
    async with post(gateway.url + language.path, body, AUTH) as response:
        return response.status, await response.read()


def captures(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "captures").glob("*")) if (tmp_path / "captures").exists() else []


@both
@pytest.mark.parametrize("directive", ["[[picky]]", "[[fail:VALIDATION 1 once]]"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_stricter_form_is_answered(language: Language, directive: str, stream: bool, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        prompt = f'{directive}[[say:fine]][[tool:read {{"path":"a"}}]]'
        status, body = await ask(gateway, language, prompt, stream=stream)
        assert status == 200
        assert (language.text(body) if stream else language.whole_text(body)) == "fine"
        assert language.is_whole(body) or not stream
        assert b"read" in body
        (failed,) = of(AttemptFailed, facts)
        assert (failed.error, failed.action) == ("FormRefused", "ask in a stricter form")
        (repaired,) = of(RequestRepaired, facts)
        assert repaired.repairs == "schemas reduced"
        (captured,) = of(RequestCaptured, facts)
        assert captured.suspects == "schema keywords (2.6)"
        assert [Path(captured.file)] == captures(tmp_path)
        (turn,) = of(TurnFinished, facts)
        assert (turn.attempts, turn.error) == (2, "")


@both
async def test_the_next_turn_of_the_conversation_is_not_refused_first(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        for _ in range(3):
            status, body = await ask(gateway, language, "[[picky]][[say:fine]]")
            assert (status, language.text(body)) == (200, "fine")
        assert [turn.attempts for turn in of(TurnFinished, facts)] == [2, 1, 1]
        assert len(of(RequestRepaired, facts)) == 3
        assert len(captures(tmp_path)) == 1


@both
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_form_that_is_refused_twice_is_a_clear_400(language: Language, stream: bool, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        status, body = await ask(gateway, language, "[[error:VALIDATION]]", stream=stream)
        assert status == 400
        error = language.error(body)
        assert error["type"] == "invalid_request_error"
        message = error["message"]
        assert "Improperly formed request." in message
        assert "It breaks no rule that is known." in message
        assert "refused as well (schemas reduced)" in message
        (path,) = captures(tmp_path)
        assert f"as capture {path.name.partition('.')[0]}:" in message
        assert str(tmp_path) not in message, "where files are is the operator's to know"
        assert SECRET not in message
        assert len(of(RequestRepaired, facts)) == len(of(RequestCaptured, facts)) == 1
        assert [fact.action for fact in of(AttemptFailed, facts)] == ["ask in a stricter form", "give up"]
        (turn,) = of(TurnFinished, facts)
        assert (turn.attempts, turn.outcome) == (2, "failed")


@both
async def test_a_form_without_a_variant_is_asked_once(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        status, body = await ask(gateway, language, "[[error:VALIDATION]]", wordy=False)
        assert status == 400
        assert "refused as well" not in language.error(body)["message"]
        assert (of(RequestRepaired, facts), of(TurnFinished, facts)[0].attempts) == ([], 1)


@both
async def test_one_try_is_one_try(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path, relay__failover__attempts=1) as (gateway, facts):
        status, body = await ask(gateway, language, "[[picky]][[say:x]]")
        assert status == 400
        assert (
            "What may be the cause: schema keywords: the schema of 'read' holds \"additionalProperties\""
            in (language.error(body)["message"])
        )
        assert of(RequestRepaired, facts) == []


async def test_a_capture_holds_nothing_that_was_said(tmp_path: Path) -> None:
    language = Language("anthropic", "/v1/messages")
    async with running(tmp_path) as (gateway, _):
        await ask(gateway, language, "[[error:VALIDATION]]")
    (path,) = captures(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert SECRET not in text
    assert "VALIDATION" not in text
    kept = json.loads(text)
    assert kept["suspects"] == ["schema keywords (2.6)"]
    current = kept["request"]["conversationState"]["currentMessage"]["userInputMessage"]
    (tool,) = current["userInputMessageContext"]["tools"]
    assert tool["toolSpecification"]["inputSchema"]["json"]["additionalProperties"] is False


async def test_captures_are_few_and_can_be_switched_off(tmp_path: Path) -> None:
    language = Language("anthropic", "/v1/messages")
    for keep in (2, 0):
        folder = tmp_path / str(keep)
        folder.mkdir()
        async with running(folder, relay__captures__keep=keep) as (gateway, facts):
            for _ in range(4):
                status, body = await ask(gateway, language, "[[error:VALIDATION]]")
                assert status == 400
                assert ("capture" in language.error(body)["message"]) == bool(keep)
        assert len(captures(folder)) == keep
        assert len(of(RequestCaptured, facts)) == (4 if keep else 0)


@both
async def test_a_very_long_request_is_told_as_an_overflow(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, _):
        long = "word " * 50_000
        turns = [{"role": role, "content": long} for role in ("user", "assistant", "user", "assistant")]
        asked = [*turns, {"role": "user", "content": "[[error:VALIDATION]]"}]
        body = {**language.ask(""), "input" if language.name == "openai_responses" else "messages": asked}
        body["model"] = "claude-opus-4.7"
        async with post(gateway.url + language.path, body, AUTH) as response:
            said = await response.read()
        assert response.status == 400
        assert "prompt is too long" in language.error(said)["message"].lower()
