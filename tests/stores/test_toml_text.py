"""The text of a TOML document: the line of each value, and changes that touch nothing else."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.stores.toml_text import TomlRefused, TomlText, literal

DOCUMENT = '''\
# The gateway.
[server]  # where it is
port = 8000          # the port
key = "a # no comment"
text = """
[not.a.table]
port = 1
"quoted""\\"""
"""

[relay.models]
aliases = { fast = "haiku", "a.b" = 'x' }  # short names

[relay.models.fallbacks]
opus = [
  "sonnet",  # first ]
  "haiku",
]
when = 1979-05-27 07:32:00  # a date with a space

[[listen]]
port = 9000
tls.cert = "c"
[[listen]]
path = 'p'
[listen.more]
deep = 1
'''

LINES: list[tuple[tuple[str | int, ...], int]] = [
    (("server",), 2),
    (("server", "port"), 3),
    (("server", "key"), 4),
    (("server", "text"), 5),
    (("server", "nothing"), 2),
    (("relay", "models", "aliases"), 12),
    (("relay", "models", "aliases", "a.b"), 12),
    (("relay", "models", "fallbacks", "opus"), 15),
    (("relay", "models", "fallbacks", "when"), 19),
    (("listen",), 21),
    (("listen", 0, "port"), 22),
    (("listen", 0, "tls", "cert"), 23),
    (("listen", 1), 24),
    (("listen", 1, "path"), 25),
    (("listen", 1, "more", "deep"), 27),
    (("nowhere",), 0),
]


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize(("path", "line"), LINES)
def test_every_value_has_its_line(path: tuple[str | int, ...], line: int, eol: str) -> None:
    assert TomlText(DOCUMENT.replace("\n", eol)).line(path) == line


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ("[a]\nb = 1  # why\n", "a.b", 2, "[a]\nb = 2  # why\n"),
        ("[a]\nb = '''x\ny''' # z\nc=3", "a.b", "t", '[a]\nb = "t" # z\nc=3'),
        ("[a]\nb = 1\n\n[c]\n", "a.d", True, "[a]\nb = 1\nd = true\n\n[c]\n"),
        ("[a]  # empty\n", "a.d", 1.5, "[a]  # empty\nd = 1.5\n"),
        ("[a]", "a.d", 1, "[a]\nd = 1\n"),
        ("", "a.b.c", 1, "[a.b]\nc = 1\n"),
        ("# alone", "a.b", 1, "# alone\n\n[a]\nb = 1\n"),
        ("[a]\r\nb = 1\r\n", "a.c", 1, "[a]\r\nb = 1\r\nc = 1\r\n"),
        ("a.b.c = 1  # dotted\n[z]\n", "a.b.d", 2, "a.b.c = 1  # dotted\na.b.d = 2\n[z]\n"),
        ("[a]\nb.c = 1\n", "a.b.d", 2, "[a]\nb.c = 1\nb.d = 2\n"),
        ("[a]\nb = { c = 1 }  # in line\n", "a.b.c", 2, "[a]\nb = { c = 2 }  # in line\n"),
        ("[a]\nb = { c = 1 }\n", "a.b.d", 2, "[a]\nb = { c = 1, d = 2 }\n"),
        ("[a]\nb = {}\n", "a.b.d", 2, "[a]\nb = { d = 2 }\n"),
        ("[z]\n", "top", 1, "top = 1\n[z]\n"),
        ("x = 1\n[z]\n", "top", 1, "x = 1\ntop = 1\n[z]\n"),
        ("[a.b]\nc = 1 # keep\nd = 2\n", "a.b", {"c": 1, "e": 3}, "[a.b]\nc = 1 # keep\ne = 3\n"),
        ("[a]\nb = { c = 1 }\n", "a.b", {"x y": [1, "2"]}, '[a]\nb = { "x y" = [1, "2"] }\n'),
        ("[a]\n", "a.b", {}, "[a]\nb = {}\n"),
    ],
)
def test_a_value_is_put_and_the_rest_stays(before: str, path: str, value: object, after: str) -> None:
    assert TomlText(before).put(tuple(path.split(".")), value) == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("[a]\nb = 1  # why\nc = 2\n", "a.b", "[a]\nc = 2\n"),
        ("[a]\nb = [\n 1,\n] # x\nc = 2\n", "a.b", "[a]\nc = 2\n"),
        ("[a]\nb = { c = 1, d = 2 }\n", "a.b.c", "[a]\nb = { d = 2 }\n"),
        ("[a]\nb = { c = 1, d = 2 }\n", "a.b.d", "[a]\nb = { c = 1 }\n"),
        ("[a]\nb = { c = 1 }\n", "a.b.c", "[a]\nb = { }\n"),
        ("# x\n[a.b] # y\nc = 1\n[z]\n", "a.b", "# x\n[z]\n"),
        ("[a]\nb = 1\n", "a.z", "[a]\nb = 1\n"),
        ("[a]\nb = 1\n", "z.z", "[a]\nb = 1\n"),
    ],
)
def test_a_value_is_dropped_and_the_rest_stays(before: str, path: str, after: str) -> None:
    assert TomlText(before).drop(tuple(path.split("."))) == after


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a = 1\n", "a.b", 1),
        ("[[a]]\nb = 1\n", "a.b", 1),
        ("[a]\n", "a.b", {"c": object()}),
        ("[a]\n", "a.b", "\ud800"),
    ],
)
def test_what_has_no_place_is_refused(text: str, path: str, value: object) -> None:
    with pytest.raises(TomlRefused):
        TomlText(text).put(tuple(path.split(".")), value)


KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TREES = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4)


def written(tree: dict[str, dict[str, Any]], comment: str) -> str:
    """Two levels of tables, with a comment wherever one may stand."""
    lines = [f"# {comment}"]
    for name, table in tree.items():
        lines.append(f"[{literal(name)}] # {comment}")
        lines += [f"\t{literal(key)}={literal(value)}# {comment}" for key, value in table.items()]
    return "\n".join(lines)


@settings(max_examples=60, deadline=None)
@given(TREES, KEYS, KEYS, VALUES)
def test_any_value_can_be_put_anywhere(tree: dict[str, dict[str, Any]], table: str, key: str, value: object) -> None:
    text = written(tree, "=[{'\"")
    after = TomlText(text).put((table, key), value)
    wanted = {name: dict(held) for name, held in tree.items()}
    wanted.setdefault(table, {})[key] = value
    assert {name: held for name, held in tomllib.loads(after).items() if held} == {
        name: held for name, held in wanted.items() if held
    }
    assert after.count("# =[{'\"") == text.count("# =[{'\"")
