"""Model names (kiro-protocol.md section 7.2, client-apis.md section 1.4)."""

from __future__ import annotations

import pytest

from kirostream.errors import UnknownModel
from kirostream.relay.resolver import asks_for_thinking, normalise, resolve
from kirostream.turn.model import Model

CATALOGUE = [Model(name) for name in ("auto", "claude-sonnet-4.5", "claude-sonnet-4", "claude-haiku-4.5", "GLM-5")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5-thinking", "claude-sonnet-4.5"),
        ("claude-haiku-4-5-latest", "claude-haiku-4.5"),
        ("claude-4.5-haiku", "claude-haiku-4.5"),
        (" Claude-Sonnet-4.5 ", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4.5"),
        ("glm-5", "GLM-5"),
        ("auto", "auto"),
    ],
)
def test_a_name_finds_its_model(written: str, meant: str) -> None:
    assert resolve(written, CATALOGUE, aliases={}, complete=True).id == meant


@pytest.mark.parametrize("written", ["gpt-5", "claude-sonnet-4-6", "claude-opus-4-5", "", "claude"])
def test_no_model_is_put_in_place_of_another(written: str) -> None:
    with pytest.raises(UnknownModel, match=r"claude-sonnet-4\.5"):
        resolve(written, CATALOGUE, aliases={}, complete=True)


def test_an_alias_of_the_operator_comes_first() -> None:
    aliases = {"gpt-5": "claude-sonnet-4-5", "auto": "claude-haiku-4.5"}
    assert resolve("GPT-5", CATALOGUE, aliases=aliases, complete=True).id == "claude-sonnet-4.5"
    assert resolve("auto", CATALOGUE, aliases=aliases, complete=True).id == "claude-haiku-4.5"


def test_an_incomplete_catalogue_is_no_whitelist() -> None:
    assert resolve("claude-opus-4-7", CATALOGUE, aliases={}, complete=False).id == "claude-opus-4.7"
    with pytest.raises(UnknownModel):
        resolve(" ", CATALOGUE, aliases={}, complete=False)


def test_normalising_twice_changes_nothing() -> None:
    for name in ("anthropic/claude-3-7-sonnet-latest", "us.anthropic.claude-opus-4-1-20250805-v1:0", "gpt-5.6-sol"):
        assert normalise(normalise(name)) == normalise(name)


@pytest.mark.parametrize(
    ("written", "asks"),
    [
        ("claude-sonnet-4.5", False),
        ("claude-sonnet-4-5-thinking", True),
        ("Claude-Sonnet-4.5-Thinking", True),
        ("claude-sonnet-4-5-thinking[1m]", True),
        ("claude-sonnet-4-5-20250929-thinking-agentic", True),
        ("deep", True),
        ("thinking-claude", False),
    ],
)
def test_a_suffix_asks_for_thinking(written: str, asks: bool) -> None:
    aliases = {"deep": "claude-sonnet-4.5-thinking"}
    assert asks_for_thinking(written, Model("claude-sonnet-4.5"), aliases=aliases) == asks


def test_a_suffix_that_is_part_of_the_models_own_name_asks_for_nothing() -> None:
    assert not asks_for_thinking("Kimi-K2-Thinking", Model("kimi-k2-thinking"), aliases={})
