"""Model names: from what a client writes to a model of the catalogue (kiro-protocol.md section 7.2). Pure.

The steps, first hit wins: an alias of the operator's; an id of the catalogue; the name as `RULES` leave it, against the
catalogue and the aliases again; `ALIASES`, the names of an earlier tool, where their model is in the catalogue. Case
never matters. An alias of the operator's comes before the catalogue, as it can have been written for one purpose only.

A name that leads nowhere is no error: catalogues differ by plan, region and client, and some ids are served that none
lists. It goes to the upstream as the rules leave it, and the upstream judges. No model is put in place of another one.
What is said of a model that the upstream refuses, lists what there is (`no_such_model`).

A name may also hold a wish: ``-thinking``, ``-agentic``, or an effort. What looks like one, and is a part of a model's
own name, is none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Final, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import UnknownModel
from kirostream.turn.model import Model

Wish: TypeAlias = str
"""What a name asks for beside a model: ``thinking``, ``agentic``, or a word of the effort scale."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One step from a client's spelling to Kiro's.

    Attributes:
        name: what it takes away or puts right, for people.
        pattern: where it applies; in any case.
        put: what is put there, as `re.sub` has it.
        wish: what the client asks for by it; ``\\N`` stands for a group of the pattern.
        again: it may apply behind a later one, so it is tried until nothing changes.
    """

    name: str
    pattern: str
    put: str | Callable[[re.Match[str]], str] = ""
    wish: Wish = ""
    again: bool = True


RULES: Final[Sequence[Rule]] = (
    Rule("vendor prefix", r"^(?:anthropic|openai|kiro|kirostream|amazon|bedrock|openrouter)/"),
    Rule("region of Bedrock", r"^(?:us|eu|apac|jp|au|global)\."),
    Rule("vendor of Bedrock", r"^(?:anthropic|amazon)\."),
    Rule("name in Claude Code's list", r"^claude-kiro-"),
    Rule("window", r"\[\d+[km]\]$"),
    Rule("thinking", r"-thinking$", wish="thinking"),
    Rule("agentic mode", r"-agentic$", wish="agentic"),
    Rule("latest", r"[-:@]latest$"),
    Rule("revision of Bedrock", r"-v\d+:\d+$"),
    Rule("date", r"[-@]20\d\d(?:\d{4}|-\d\d-\d\d)$"),
    Rule(
        "old id",
        r"^CLAUDE_([A-Z]+)_(\d+)(?:_(\d{1,2}))?_20\d{6}_V\d+_\d+$",
        lambda found: f"claude-{found[1]}-{found[2]}" + (f".{found[3]}" if found[3] else ""),
        again=False,
    ),
    Rule("old id, third generation", r"^CLAUDE_3_(\d)_([A-Z]+)_20\d{6}_V\d+_\d+$", r"claude-3.\1-\2", again=False),
    Rule("case", r"^claude-.*$", lambda found: found[0].lower(), again=False),
    Rule("version with a dash", r"^(claude-[a-z]+)-(\d{1,2})-(\d{1,2})(?=$|-)", r"\1-\2.\3", again=False),
    Rule(
        "version before the family",
        r"^claude-([4-9]|\d\d)(?:[.-](\d{1,2}))?-([a-z]+)(?:-(minimal|low|medium|high|xhigh|max))?$",
        lambda found: f"claude-{found[3]}-{found[1]}" + (f".{found[2]}" if found[2] else ""),
        wish=r"\4",
        again=False,
    ),
    Rule("third generation with a dash", r"^claude-3-(\d)-([a-z]+)$", r"claude-3.\1-\2", again=False),
    Rule("third generation, family first", r"^claude-([a-z]+)-3\.(\d)$", r"claude-3.\2-\1", again=False),
)
"""In the order of section 7.2: decoration first, in whatever order it was put on; then the spelling of the version."""

ALIASES: Final[Mapping[str, str]] = {
    "claude-3.5-sonnet": "claude-sonnet-4.5",
    "claude-3-opus": "claude-sonnet-4.5",
    "gpt-4": "claude-sonnet-4.5",
    "gpt-4o": "claude-sonnet-4.5",
    "default": "claude-sonnet-4.5",
    "auto-kiro": "auto",
}
"""Names that an earlier tool took for models of Kiro's, as `RULES` leave them."""

MOST_NAMES: Final = 512
"""Names whose meaning is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How model names are read.

    Raises:
        ValueError: a name stands for something that is no name.
    """

    aliases: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Other names for models, e.g. aliases = { gpt-5 = 'claude-sonnet-4.5' }."},
    )
    usual_aliases: bool = field(
        default=True,
        metadata={"help": "Take gpt-4, gpt-4o, claude-3-5-sonnet, claude-3-opus and default for claude-sonnet-4.5."},
    )
    fallbacks: Mapping[str, Sequence[str]] = field(
        default_factory=dict,
        metadata={
            "help": "Models to ask when one has no capacity or is not on the account, e.g. "
            "fallbacks = { 'claude-opus-4.5' = ['claude-sonnet-4.5'] }. The answer names the one that gave it."
        },
    )

    def __post_init__(self) -> None:
        aliases: Mapping[str, object] = self.aliases  # a file may hold anything
        for name, meant in aliases.items():
            if not _is_name(meant):
                raise ValueError(f"the alias {name!r} is {meant!r}; it takes the name of a model")
        fallbacks: Mapping[str, object] = self.fallbacks
        for name, others in fallbacks.items():
            if not isinstance(others, list | tuple) or not all(map(_is_name, others)):
                raise ValueError(f"the fallbacks of {name!r} are {others!r}; they are a list of names of models")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name comes to.

    Attributes:
        model: of the catalogue, or the bare name.
        listed: the catalogue has it.
        wishes: what the name asks for beside the model.
    """

    model: Model
    listed: bool
    wishes: frozenset[Wish] = frozenset()

    @property
    def effort(self) -> str:
        """The word of the effort scale in the name, empty where there is none."""
        return next(iter(self.wishes - {"thinking", "agentic"}), "")


def undecorated(name: str) -> tuple[str, frozenset[Wish]]:
    """The name as `RULES` leave it, and the wishes they found in it."""
    wishes: set[Wish] = set()
    before = ""
    plain = name.strip()
    while plain != before:
        before = plain
        plain = _apply(plain, wishes, again=True)
    return _apply(plain, wishes, again=False), frozenset(wishes)


@functools.cache
def _compiled() -> Sequence[tuple[Rule, re.Pattern[str]]]:
    """The rules with their patterns, which take 3 ms: not at the start, but for the first name."""
    return [(rule, re.compile(rule.pattern, re.IGNORECASE)) for rule in RULES]


def _apply(name: str, wishes: set[Wish], *, again: bool) -> str:
    for rule, pattern in _compiled():
        if rule.again is again and (found := pattern.search(name)):
            shorter = pattern.sub(rule.put, name)
            if not shorter:
                continue  # all of it would be decoration: then it is the name
            if wish := found.expand(rule.wish).lower():
                wishes.add(wish)
            name = shorter
    return name


def normalise(name: str) -> str:
    """The name without decoration: ``anthropic/claude-sonnet-4-5-20250929`` is ``claude-sonnet-4.5``."""
    return undecorated(name)[0]


def resolve(name: str, models: Sequence[Model], settings: ModelSettings | None = None) -> Resolved:
    """The model a client means. A name that is not in the catalogue comes back as the rules leave it.

    Args:
        name: as the client wrote it.
        models: the catalogue, or what stands in for it.
        settings: the operator's other names.

    Raises:
        UnknownModel: there is no name at all.
    """
    if not name.strip():
        raise UnknownModel(no_such_model(name, models))
    settings = settings or ModelSettings()
    known = {model.id.lower(): model for model in models}
    aliases = {alias.strip().lower(): meant.strip() for alias, meant in settings.aliases.items()}
    asked = name.strip().lower()
    wanted = aliases.get(asked, name.strip())
    if wanted.lower() in known:
        return Resolved(known[wanted.lower()], listed=True, wishes=_named(asked, known[wanted.lower()]))
    plain, wishes = undecorated(wanted)
    if asked not in aliases and plain.lower() in aliases:
        plain, more = undecorated(aliases[plain.lower()])
        wishes |= more
    if settings.usual_aliases and plain.lower() not in known and ALIASES.get(plain.lower()) in known:
        plain = ALIASES[plain.lower()]
    model = known.get(plain.lower())
    found = model or Model(plain)
    return Resolved(found, listed=model is not None, wishes=wishes | _named(asked, found))


class Names:
    """`resolve`, for a catalogue that seldom changes and names that come again and again.

    Args:
        settings: the operator's other names.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._models: Sequence[Model] = ()
        self._known: dict[str, Resolved] = {}

    def __repr__(self) -> str:
        return f"<Names, {len(self._known)} known>"

    def resolve(self, name: str, models: Sequence[Model]) -> Resolved:
        """The model a client means, as `resolve` has it; `models` is the same object while it holds the same."""
        if models is not self._models or len(self._known) >= MOST_NAMES:
            self._models, self._known = models, {}
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = resolve(name, models, self._settings)
        return found


def _named(asked: str, model: Model) -> frozenset[Wish]:
    """The wish that counts wherever it stands in a name, unless it is a part of the model's own."""
    return frozenset(("agentic",)) if "agentic" in asked and "agentic" not in model.id.lower() else frozenset()


def fallbacks_of(model: Model, models: Sequence[Model], settings: ModelSettings) -> list[Model]:
    """The models to ask in place of `model`, in their order; mostly none."""
    if not settings.fallbacks:
        return []
    meant = {resolve(name, models, settings).model.id: others for name, others in settings.fallbacks.items()}
    found = [resolve(other, models, settings).model for other in meant.get(model.id, ())]
    return [other for other in found if other.id != model.id]


def no_such_model(name: str, models: Sequence[Model]) -> str:
    """What is said of a model that is not to be had: the nearest that is, and all that are."""
    import difflib  # here: few requests name a model that there is not

    known = {model.id.lower(): model.id for model in models}
    near = difflib.get_close_matches(normalise(name).lower(), known, n=1)
    hint = f" Did you mean {known[near[0]]!r}?" if near else ""
    return (
        f"The model {name!r} does not exist or this account does not have it.{hint} "
        f"Models: {', '.join(sorted(known.values())) or 'none'}. "
        "Another name for one of them can be set under [relay.models] aliases."
    )
