"""Models that are not to be had, answers in parts, and wishes in names and headers, between two real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.test_faults import AUTH, both, running
from helpers.languages import LANGUAGES, Language
from helpers.rawhttp import post
from kirostream.app import Gateway
from kirostream.telemetry.facts import TurnFinished

CHAT = LANGUAGES[1]


async def ask(
    gateway: Gateway, language: Language, prompt: str, *, stream: bool = True, headers: Any = (), **more: Any
) -> tuple[int, bytes]:
    body = language.ask(prompt, stream=stream, **more)
    async with post(gateway.url + language.path, body, {**AUTH, **dict(headers)}) as response:
        return response.status, await response.read()


@both
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_model_that_does_not_exist(language: Language, stream: bool, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        status, body = await ask(gateway, language, "[[say:no]]", stream=stream, model="claude-sonnet-4-7")
        error = json.loads(body)["error"]
        assert status == 404
        assert error["type" if language.name == "anthropic" else "code"] in ("not_found_error", "model_not_found")
        assert "Did you mean 'claude-sonnet-4" in error["message"]
        assert "claude-haiku-4.5" in error["message"]
    (turn,) = [fact for fact in facts if isinstance(fact, TurnFinished)]
    assert (turn.attempts, turn.model_used) == (1, "claude-sonnet-4.7")


@both
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_another_model_answers_under_its_own_name(language: Language, stream: bool, tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_text(
        "[relay.models.fallbacks]\n'claude-sonnet-4.7' = ['claude-nothing-9', 'claude-haiku-4.5']\n"
    )
    async with running(tmp_path) as (gateway, facts):
        status, body = await ask(gateway, language, "[[say:fine]]", stream=stream, model="claude-sonnet-4-7")
        assert status == 200
        assert b'"model":"claude-haiku-4.5"' in body
        assert b"claude-sonnet-4" not in body
        assert (language.text(body) if stream else language.whole_text(body)) == "fine"
        _, body = await ask(gateway, language, "[[say:fine]]", stream=stream, model="claude-sonnet-4-5")
        assert b'"model":"claude-sonnet-4-5"' in body
    first, _ = [fact for fact in facts if isinstance(fact, TurnFinished)]
    assert (first.attempts, first.model_asked, first.model_used) == (3, "claude-sonnet-4-7", "claude-haiku-4.5")


@both
async def test_a_text_that_was_cut_off_goes_on(language: Language, tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_text("[relay.filters]\nauto_continue = 1\n")
    async with running(tmp_path) as (gateway, facts):
        prompt = "[[say:one two lost]][[then:three]][[fault:exception CONTEXT 2]]"  # each part is cut after two pieces
        status, body = await ask(gateway, language, prompt)
        assert status == 200
        assert language.text(body) == "one two three"
    (turn,) = [fact for fact in facts if isinstance(fact, TurnFinished)]
    assert (turn.outcome, turn.attempts) == ("max_tokens", 2)


@pytest.mark.parametrize(
    ("form", "member", "content"),
    [
        ("reasoning_content", "reasoning_content", "Yes."),
        ("thinking", "thinking", "Yes."),
        ("think", "", "<think>Hm.</think>\n\nYes."),
    ],
)
async def test_where_chat_says_thoughts(form: str, member: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_text(f"[server]\nchat_thoughts = '{form}'\n")
    thoughtful: dict[str, Any] = {"model": "claude-opus-4.7", "reasoning_effort": "low"}
    async with running(tmp_path) as (gateway, _):
        _, body = await ask(gateway, CHAT, "[[think:Hm.]][[say:Yes.]]", **thoughtful)
        deltas = [event["choices"][0]["delta"] for event in CHAT.events(body) if event["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == content
        assert not member or "".join(delta.get(member, "") for delta in deltas) == "Hm."
        _, body = await ask(gateway, CHAT, "[[think:Hm.]][[say:Yes.]]", stream=False, **thoughtful)
        message = json.loads(body)["choices"][0]["message"]
        assert message["content"] == content
        assert not member or message[member] == "Hm."
