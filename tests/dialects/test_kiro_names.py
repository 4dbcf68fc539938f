from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.dialects.kiro.names import LEGAL, ToolNames

NAMES = st.lists(st.one_of(st.sampled_from(["read", "Read", "READ", "a" * 64, "a" * 65, "a.b", "a_b"]), st.text()))


@pytest.mark.parametrize("name", ["read", "a", "A9_-", "mcp__server__tool", "x" * 64])
def test_a_legal_name_stays(name: str) -> None:
    names = ToolNames([name])
    assert names.wire(name) == name
    assert names.client(name) == name


@pytest.mark.parametrize("name", ["", "9lives", "_x", "fs.read", "x" * 65, "größe", "a b", "-a"])
def test_any_other_name_becomes_legal_and_comes_back(name: str) -> None:
    names = ToolNames(["other", name])
    wire = names.wire(name)
    assert LEGAL.fullmatch(wire)
    assert len(wire) <= 64
    assert names.client(wire) == name


def test_a_shortened_name_is_readable() -> None:
    assert ToolNames([]).wire("mcp__server__" + "t" * 60).startswith("mcp__server__ttt")
    assert ToolNames([]).wire("9.lives").startswith("t_9_lives_")


def test_names_are_the_same_in_every_process() -> None:
    assert ToolNames([]).wire("fs.read") == "fs_read_5bf65df68015"


def test_names_that_differ_by_case_are_told_apart() -> None:
    names = ToolNames(["read", "Read"])
    assert names.wire("read") == "read"
    assert names.wire("Read") != "read"
    assert names.wire("Read").lower() != "read"
    assert names.client(names.wire("Read")) == "Read"


def test_the_models_case_does_not_matter() -> None:
    assert ToolNames(["ReadFile"]).client("READFILE") == "ReadFile"


def test_a_history_in_another_case_means_the_same_tool() -> None:
    names = ToolNames(["ReadFile", "fs.Read"])
    assert names.wire("readfile") == "ReadFile"
    assert names.wire("FS.READ") == names.wire("fs.Read")


def test_an_unknown_name_comes_back_as_it_is() -> None:
    assert ToolNames(["a"]).client("b") == "b"
    assert ToolNames(["a"]).wire("b") == "b"


@given(NAMES)
def test_any_names_go_there_and_back(given_names: list[str]) -> None:
    names = ToolNames(given_names)
    wire = {name: names.wire(name) for name in given_names}
    assert all(LEGAL.fullmatch(each) for each in wire.values())
    assert len({each.lower() for each in wire.values()}) == len(wire)
    assert {name: names.client(each) for name, each in wire.items()} == {name: name for name in wire}


@given(NAMES, NAMES)
def test_a_tool_added_at_the_end_changes_no_name_before_it(first: list[str], more: list[str]) -> None:
    legal_first = [name for name in first if LEGAL.fullmatch(name)]
    before, after = ToolNames(legal_first), ToolNames([*legal_first, *more])
    assert [before.wire(name) for name in legal_first] == [after.wire(name) for name in legal_first]
