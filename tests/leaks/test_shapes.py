"""What may hold a secret or what people say does not show it by itself: a rule for every class of ours.

The other tests see what lives; this one sees classes that no test makes.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator

import kirostream
from kirostream.accounts.account import Secret

from .sinks import SIMULATED, SPEAKING

TELLING = re.compile(
    r"(^|_)(token|tokens|secret|secrets|key|keys|password|proxy|verifier|bearer|authorization|api_key"
    r"|body|content|query|headers|payload|input|output|items|request|prompt)$"
)
"""Names of what may hold something that is not to be shown."""
PLAIN = (int, float, bool, Secret, type(None))
"""Kinds that cannot show anything, whatever they are called."""
HARMLESS = {
    "kirostream.accounts.account.Credential.key": "where in its source it lives",
    "kirostream.accounts.keeper.KeeperSnapshot.tokens": "their states",
    "kirostream.telemetry.facts.TurnFinished.key": "its name",
    "kirostream.telemetry.facts.TurnFinished.request": "its id",
    "kirostream.telemetry.usage.Only.key": "its name",
}


def classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(kirostream.__path__, "kirostream."):
        if module.name.endswith("__main__") or module.name.startswith((SIMULATED, *SPEAKING)):
            continue
        for each in vars(importlib.import_module(module.name)).values():
            if isinstance(each, type) and each.__module__ == module.name and dataclasses.is_dataclass(each):
                yield each


def is_plain(hint: object) -> bool:
    """Whether a value of this kind shows nothing, or answers for itself."""
    return hint in PLAIN or dataclasses.is_dataclass(hint)


def shown_by(kind: type) -> list[str]:
    """The telling fields that the `repr` of a dataclass shows."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not hasattr(kind.__repr__, "__wrapped__") or f"{name}.*" in HARMLESS:  # it has a repr of its own
        return []
    hints = typing.get_type_hints(kind)
    return [
        f"{name}.{each.name}"
        for each in dataclasses.fields(kind)
        if each.repr
        and TELLING.search(each.name)
        and not all(map(is_plain, typing.get_args(hints[each.name]) or (hints[each.name],)))
        and f"{name}.{each.name}" not in HARMLESS
    ]


def test_no_class_shows_a_telling_field() -> None:
    kinds = list(classes())
    assert len(kinds) > 50
    assert [shown for kind in kinds for shown in shown_by(kind)] == [], "mark them repr=False"


def test_the_rule_sees_a_leak() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Leaky:
        proxy: str
        tokens: int = 0
        body: bytes = dataclasses.field(default=b"", repr=False)

    assert [name.rpartition(".")[2] for name in shown_by(Leaky)] == ["proxy"]
