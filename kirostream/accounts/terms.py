"""What the operator says of one account: how much it is used, for what, and by which way. Pure."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping
from dataclasses import field

from kirostream.accounts.account import Account
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError

EVERYONE = "*"
"""Stands for every account in the settings; what is said of one by name goes before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for one account. Empty texts and zeros leave a thing as it is for all."""

    enabled: bool = field(default=True, metadata={"help": "Whether it is used at all."})
    weight: float = field(
        default=100.0, metadata={"help": "Its share of the requests, beside the weights of the others."}
    )
    priority: int = field(default=0, metadata={"help": "The lowest number is used first (strategy priority)."})
    concurrency: int = field(
        default=0, metadata={"help": "Most requests at the same time; 0: no limit.", "unit": "requests"}
    )
    interval: float = field(
        default=0.0, metadata={"help": "Least time between the beginnings of two requests.", "unit": "s"}
    )
    models: tuple[str, ...] = field(
        default=(), metadata={"help": "The models it is used for, * as in claude-haiku-*. Empty: all it has."}
    )
    proxy: str = field(default="", metadata={"help": "Its own proxy, as upstream.proxy; direct: none."}, repr=False)
    region: str = field(default="", metadata={"help": "Its API region, as account.api_region."})
    endpoint: str = field(default="", metadata={"help": "The endpoint it prefers, as kiro.endpoints names them."})

    def allows(self, model: str) -> bool:
        """Whether the account is used for `model`. An empty name is allowed."""
        return not self.models or not model or any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)


ORDINARY = Terms()

_FIELDS = {each.name: each for each in dataclasses.fields(Terms)}


def terms_of(account: Account, sections: Mapping[str, object]) -> Terms:
    """What the settings say of `account`: for everyone, then under its label, then under its id.

    Args:
        sections: ``pool.accounts`` of the settings, as `check` has seen it.
    """
    said: dict[str, object] = {}
    for name in (EVERYONE, account.label, str(account.id)):
        section = sections.get(name)
        if section is not None:
            said.update(read_section(name, section))
    return Terms(**said) if said else ORDINARY  # type: ignore[arg-type]  # `read_section` has checked every value


def read_section(name: str, section: object) -> dict[str, object]:
    """One section of ``pool.accounts``, its values of the right types.

    Raises:
        SettingsError: it cannot be used; the message names the setting.
    """
    where = f"pool.accounts.{name}"
    if not isinstance(section, Mapping):
        raise SettingsError(f'{where} is a section: write [pool.accounts."{name}"] and its settings below it.')
    return {key: _read(f"{where}.{key}", key, value) for key, value in section.items()}


def _read(where: str, key: str, value: object) -> object:
    if key not in _FIELDS:
        import difflib

        near = difflib.get_close_matches(key, _FIELDS, n=1)
        raise SettingsError(
            f"Unknown setting {where!r}. "
            + (f"Did you mean {near[0]!r}?" if near else f"It takes: {', '.join(_FIELDS)}.")
        )
    default = _FIELDS[key].default
    if isinstance(default, tuple):
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise SettingsError(f"{where!r} takes a list of names, and says {value!r}.")
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise SettingsError(f"{where!r} takes true or false, and says {value!r}.")
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise SettingsError(f"{where!r} takes text, and says {value!r}.")
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise SettingsError(f"{where!r} takes a {'whole ' if whole else ''}number, and says {value!r}.")
    if key != "priority" and value < 0:
        raise SettingsError(f"{where!r} takes 0 or more, and says {value!r}.")
    return value if whole else float(value)
