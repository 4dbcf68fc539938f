"""Model names (kiro-protocol.md section 7.2, client-apis.md section 1.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import UnknownModel
from kirostream.relay.resolver import (
    ALIASES,
    MOST_NAMES,
    RULES,
    ModelSettings,
    Names,
    fallbacks_of,
    no_such_model,
    normalise,
    resolve,
    undecorated,
)
from kirostream.turn.model import Model

NAMES = ("auto", "claude-sonnet-4.5", "claude-sonnet-4", "claude-haiku-4.5", "GLM-5", "claude-3.7-sonnet")
CATALOGUE = [Model(name) for name in NAMES]
ALIASED = {"deep": "claude-sonnet-4.5-thinking", "agentic-one": "claude-haiku-4.5"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("openrouter/anthropic/claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5[200K]", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5-thinking", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5-agentic[1m]-thinking", "claude-sonnet-4.5"),
        ("claude-haiku-4-5-latest", "claude-haiku-4.5"),
        ("claude-4.5-haiku", "claude-haiku-4.5"),
        ("claude-4-sonnet", "claude-sonnet-4"),
        ("claude-4.5-sonnet-high", "claude-sonnet-4.5"),
        ("claude-3-7-sonnet-20250219", "claude-3.7-sonnet"),
        ("claude-sonnet-3-7", "claude-3.7-sonnet"),
        ("CLAUDE_SONNET_4_5_20250929_V1_0", "claude-sonnet-4.5"),
        ("CLAUDE_SONNET_4_20250514_V1_0", "claude-sonnet-4"),
        ("CLAUDE_3_7_SONNET_20250219_V1_0", "claude-3.7-sonnet"),
        (" Claude-Sonnet-4.5 ", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4.5"),
        ("glm-5", "GLM-5"),
        ("claude-kiro-glm-5", "GLM-5"),
        ("auto", "auto"),
        ("auto-kiro", "auto"),
        ("gpt-4", "claude-sonnet-4.5"),
        ("GPT-4o-2024-08-06", "claude-sonnet-4.5"),
        ("claude-3-5-sonnet-20241022", "claude-sonnet-4.5"),
        ("claude-3-opus-latest", "claude-sonnet-4.5"),
        ("default", "claude-sonnet-4.5"),
    ],
)
def test_a_name_finds_its_model(written: str, meant: str) -> None:
    found = resolve(written, CATALOGUE)
    assert (found.model.id, found.listed) == (meant, True)


@pytest.mark.parametrize(
    ("written", "passed"),
    [
        ("gpt-5", "gpt-5"),
        ("gpt-4.1", "gpt-4.1"),
        ("claude-sonnet-4-6", "claude-sonnet-4.6"),
        ("anthropic/Claude-Opus-4-5-20251101", "claude-opus-4.5"),
        ("claude-sonnet-4.5-1m", "claude-sonnet-4.5-1m"),
        ("claude", "claude"),
        ("deepseek-v3", "deepseek-v3"),
        ("Qwen3-Coder-Next", "Qwen3-Coder-Next"),
        ("simple-task", "simple-task"),
        ("-thinking", "-thinking"),
        ("gpt 5 (new)", "gpt 5 (new)"),
    ],
)
def test_an_unknown_name_is_passed_on_as_the_rules_leave_it(written: str, passed: str) -> None:
    found = resolve(written, CATALOGUE)
    assert (found.model.id, found.listed) == (passed, False)


@pytest.mark.parametrize("name", ["", " \n"])
def test_no_name_is_no_model(name: str) -> None:
    with pytest.raises(UnknownModel, match=r"Models: GLM-5, auto, .*claude-sonnet-4\.5"):
        resolve(name, CATALOGUE)


def test_an_alias_of_the_operator_comes_first() -> None:
    aliases = {"GPT-5": "claude-sonnet-4-5", "auto": "claude-haiku-4.5", "gpt-4": "glm-5", "mine": "not-listed-7"}
    settings = ModelSettings(aliases=aliases)
    for name, meant in (
        ("gpt-5", "claude-sonnet-4.5"),
        ("openai/gpt-5-thinking", "claude-sonnet-4.5"),
        ("auto", "claude-haiku-4.5"),
        ("gpt-4", "GLM-5"),
        ("mine", "not-listed-7"),
    ):
        assert resolve(name, CATALOGUE, settings).model.id == meant
    assert resolve("openai/gpt-5-thinking", CATALOGUE, settings).wishes == {"thinking"}


def test_aliases_do_not_go_round() -> None:
    settings = ModelSettings(aliases={"a": "b", "b": "a"})
    assert resolve("a", CATALOGUE, settings).model.id == "b"


def test_the_usual_aliases_give_way() -> None:
    assert not resolve("gpt-4o", CATALOGUE, ModelSettings(usual_aliases=False)).listed
    assert resolve("gpt-4o", [*CATALOGUE, Model("gpt-4o")]).model.id == "gpt-4o"
    assert resolve("gpt-4o", [Model("auto")]) == resolve("gpt-4o", [])  # what it stands for is not to be had


def test_aliases_are_written_as_the_rules_leave_them() -> None:
    for name, meant in ALIASES.items():
        assert (normalise(name), normalise(meant)) == (name, meant)


def test_every_rule_has_a_name_of_its_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"(claude|gpt)-[a-z0-9.@:\[\]/-]{0,30}", fullmatch=True)))
def test_normalising_twice_changes_nothing(name: str) -> None:
    once = normalise(name)
    assert normalise(once) == once
    assert bool(once) == bool(name.strip())


@pytest.mark.parametrize(
    ("written", "wishes"),
    [
        ("claude-sonnet-4.5", set()),
        ("claude-sonnet-4-5-thinking", {"thinking"}),
        ("Claude-Sonnet-4.5-Thinking", {"thinking"}),
        ("claude-sonnet-4-5-thinking[1m]", {"thinking"}),
        ("claude-sonnet-4-5-20250929-thinking-agentic", {"thinking", "agentic"}),
        ("deep", {"thinking"}),
        ("thinking-claude", set()),
        ("agentic-one", {"agentic"}),
        ("some-agentic-model", set()),
        ("claude-4.5-opus-high", {"high"}),
        ("claude-4.5-opus-max-thinking", {"max", "thinking"}),
        ("Kimi-K2-Thinking", set()),
        ("agentic-coder", set()),
    ],
)
def test_a_name_holds_wishes(written: str, wishes: set[str]) -> None:
    catalogue = [*CATALOGUE, Model("kimi-k2-thinking"), Model("agentic-coder")]
    found = resolve(written, catalogue, ModelSettings(aliases=ALIASED))
    assert found.wishes == wishes
    assert found.effort == next(iter(wishes - {"thinking", "agentic"}), "")


def test_a_wish_is_found_with_the_name() -> None:
    assert undecorated("anthropic/claude-opus-4-5-thinking") == ("claude-opus-4.5", frozenset({"thinking"}))


def test_fallbacks() -> None:
    settings = ModelSettings(
        aliases={"small": "claude-haiku-4.5"},
        fallbacks={"claude-sonnet-4-5": ["claude-sonnet-4.5", "small", "new-model"], "gpt-5": ("auto",)},
    )
    found = fallbacks_of(Model("claude-sonnet-4.5"), CATALOGUE, settings)
    assert [model.id for model in found] == ["claude-haiku-4.5", "new-model"]
    assert [model.id for model in fallbacks_of(Model("gpt-5"), CATALOGUE, settings)] == ["auto"]
    assert fallbacks_of(Model("auto"), CATALOGUE, settings) == []
    assert fallbacks_of(Model("claude-sonnet-4.5"), CATALOGUE, ModelSettings()) == []


@pytest.mark.parametrize(
    ("aliases", "fallbacks"),
    [({"a": 1}, {}), ({"a": " "}, {}), ({}, {"a": "b"}), ({}, {"a": [1]}), ({}, {"a": 5}), ({}, {"a": [""]})],
)
def test_settings_that_are_no_names(aliases: dict[str, str], fallbacks: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="'a'"):
        ModelSettings(aliases=aliases, fallbacks=fallbacks)


def test_what_is_said_of_a_model_that_is_not_to_be_had() -> None:
    said = no_such_model("anthropic/claude-sonet-4-5", CATALOGUE)
    assert "'anthropic/claude-sonet-4-5'" in said
    assert "Did you mean 'claude-sonnet-4.5'?" in said
    assert "Models: GLM-5, auto, claude-3.7-sonnet, claude-haiku-4.5, claude-sonnet-4, claude-sonnet-4.5." in said
    assert "Did you mean" not in no_such_model("xyz", CATALOGUE)
    assert "Did you mean 'GLM-5'?" in no_such_model("glm5", CATALOGUE)
    assert "Models: none." in no_such_model("xyz", [])


def test_names_are_remembered_for_one_catalogue() -> None:
    names = Names(ModelSettings())
    first = names.resolve("claude-sonnet-4-5", CATALOGUE)
    assert first == resolve("claude-sonnet-4-5", CATALOGUE)
    assert names.resolve("claude-sonnet-4-5", CATALOGUE) is first
    other = [Model("claude-sonnet-4.5", "another")]
    assert names.resolve("claude-sonnet-4-5", other).model is other[0]
    with pytest.raises(UnknownModel):
        names.resolve(" ", other)


def test_not_every_name_that_clients_invent_is_remembered() -> None:
    names = Names(ModelSettings())
    for number in range(3 * MOST_NAMES):
        names.resolve(f"invented-{number}", CATALOGUE)
        assert len(names._known) <= MOST_NAMES
