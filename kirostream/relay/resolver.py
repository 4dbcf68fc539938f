"""Model names: from what a client writes to a model of the catalogue (kiro-protocol.md section 7.2). Pure.

The steps, first hit wins: an alias of the operator; the exact id; the name without vendor prefix, window suffix, date
and ``-latest``, with its version written with a dot; the same with the version before the family. Case never matters.
No model is ever put in place of another one: a name that leads nowhere is an error that lists what there is. Only
while the catalogue could not be read (`complete` is False) does an unknown name pass, for the upstream to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kirostream.errors import UnknownModel
from kirostream.turn.model import Model

_PREFIX: Final = re.compile(r"^(?:(?:anthropic|openai|kiro|kirostream|amazon|bedrock)/|(?:us|eu|apac|global)\.)+")
_VENDOR_DOT: Final = re.compile(r"^anthropic\.")
_SUFFIX: Final = re.compile(r"(?:\[\d+[km]\]|-thinking|-agentic|-latest|-v\d+:\d+|@\d{8}|-20\d{6})$")
_DASHED: Final = re.compile(r"^(claude-[a-z]+)-(\d{1,2})-(\d{1,2})(?=$|-)")
_INVERTED: Final = re.compile(r"^claude-(\d{1,2})[.-](\d{1,2})-([a-z]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How model names are read."""

    aliases: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Other names for models, e.g. aliases = { gpt-5 = 'claude-sonnet-4.5' }."},
    )


def normalise(name: str) -> str:
    """The name without decoration: ``anthropic/claude-sonnet-4-5-20250929`` is ``claude-sonnet-4.5``."""
    plain = _VENDOR_DOT.sub("", _PREFIX.sub("", name.strip().lower()))
    while (shorter := _SUFFIX.sub("", plain)) != plain:
        plain = shorter
    plain = _DASHED.sub(r"\1-\2.\3", plain)
    return _INVERTED.sub(r"claude-\3-\1.\2", plain)


def asks_for_thinking(name: str, model: Model, *, aliases: Mapping[str, str]) -> bool:
    """Whether a name that was resolved to `model` has ``-thinking`` in its decoration."""
    plain = aliases.get(name.strip().lower(), name).strip().lower()
    if plain == model.id.lower():
        return False  # what looks like decoration is a part of the model's own name
    while suffix := _SUFFIX.search(plain):
        if suffix[0] == "-thinking":
            return True
        plain = plain[: suffix.start()]
    return False


def resolve(name: str, models: Sequence[Model], *, aliases: Mapping[str, str], complete: bool) -> Model:
    """The model a client means.

    Args:
        name: as the client wrote it.
        models: the catalogue.
        aliases: the operator's other names, by lower-case name.
        complete: whether `models` is the upstream's own list, and not the fallback.

    Raises:
        UnknownModel: no model of this name; the message lists the ones there are.
    """
    wanted = aliases.get(name.strip().lower(), name)
    known = {model.id.lower(): model for model in models}
    for candidate in (wanted.strip().lower(), normalise(wanted)):
        if candidate in known:
            return known[candidate]
    if not complete and wanted.strip():
        return Model(normalise(wanted))
    listed = ", ".join(sorted(known)) or "none"
    raise UnknownModel(
        f"The model {name!r} does not exist or this account does not have it. Models: {listed}. "
        "Another name for one of them can be set under [models] aliases."
    )
