"""The settings as a person sees and changes them: what each is, where it comes from, and whether a change acts at once.

A setting is `live` where its field, or the section it stands in, says so: a running gateway hands the room new settings
(`kirostream.live`), and what begins afterwards goes by them. All others act after a restart.

A change is written only where everything fits: the value, the section it stands in, and the file as it was found on the
disk, whose comments stay (`stores.toml_text`). What cannot be used changes nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final, Literal

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError
from kirostream.settings import (
    DEFAULT,
    Given,
    Layer,
    Leaf,
    Origin,
    Settings,
    Sources,
    compose,
    from_text,
    judged,
    leaves,
    parsed,
    plain,
    read_text,
    value_of,
    with_values,
)
from kirostream.stores.files import FileLock, atomic_write, private_folder
from kirostream.stores.toml_text import TomlRefused, TomlText

MASK: Final = "****"
"""Stands for a secret that is set."""
CHANGE: Final = Origin("argument", "the change")
_KINDS: Final = {int: "integer", float: "number", bool: "boolean", str: "string", tuple: "list"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, for people. Secrets are masked.

    `value` is what a start would use now, `acts` what this process goes by; they differ after a change that waits for a
    restart. `kind` is ``string``, ``integer``, ``number``, ``boolean``, ``table`` or ``list``. `origin` says where
    `value` comes from, `variable` which variable sets it.
    """

    name: str
    value: object
    acts: object
    default: object
    kind: str
    unit: str
    help: str
    origin: str
    variable: str
    secret: bool
    live: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a setting that was written: it acts ``now``, after a ``restart``, or ``never``.

    Never, because `by` wins, which is a variable or the command line.
    """

    name: str
    acts: Literal["now", "restart", "never"]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reading of the settings brought: the names of those that act from now on, and of those that wait."""

    now: tuple[str, ...]
    waiting: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """The settings as they were read, and what set them; a later layer wins."""

    text: str = field(repr=False)  # secrets may be in it, and in the layers
    settings: Settings
    given: Layer = field(repr=False)


class SettingsEditor:
    """Shows and changes settings.

    Args:
        sources: where the settings are read.
        acting: what this process goes by; None: what is read now.
        heed: takes the settings that act from now on; only live ones differ from those before.

    Raises:
        SettingsError: what is set cannot be used, and `acting` is None.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        acting: Settings | None = None,
        heed: Callable[[Settings], None] = lambda settings: None,
    ) -> None:
        self._sources = sources
        self.path: Final = sources.file
        self._above = sources.above()
        self._heed = heed
        self._leaves: Final = {leaf.name: leaf for leaf in leaves()}
        try:
            self._read = self._composed(sources.text())
        except SettingsError:
            if acting is None:
                raise
            self._read = _Read("", acting, self._above)  # `reload` and `set` tell of it
        self.acting = acting or self._read.settings
        """What this process goes by."""

    def __repr__(self) -> str:
        return f"<SettingsEditor {self.path}>"

    # What there is

    def show(self) -> list[Setting]:
        """Every setting, in the order of the sections."""
        return [self._shown(leaf) for leaf in self._leaves.values()]

    def one(self, name: str) -> Setting:
        """The setting called `name`.

        Raises:
            SettingsError: there is none; the message has the nearest.
        """
        return self._shown(self._leaf(name))

    def _shown(self, leaf: Leaf) -> Setting:
        given = self._read.given.get(leaf.name)
        value, acts = value_of(self._read.settings, leaf.name), value_of(self.acting, leaf.name)

        def said(value: Any) -> object:
            return MASK if leaf.secret and value else _plain(value)

        return Setting(
            name=leaf.name,
            value=said(value),
            acts=said(acts),
            default=said(leaf.default),
            kind=_KINDS.get(plain(leaf.kind), "table"),
            unit=leaf.unit,
            help=leaf.help,
            origin=str(given.origin if given else DEFAULT),
            variable=leaf.variable,
            secret=leaf.secret,
            live=leaf.live,
        )

    def _leaf(self, name: str) -> Leaf:
        found = self._leaves.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._leaves, n=1)
            last = name.rpartition(".")[2]
            near = near or [each for each in self._leaves if each.rpartition(".")[2] == last][:1]
            hint = f" Did you mean {near[0]!r}?" if near else " `kirostream settings show` lists all."
            raise SettingsError(f"There is no setting {name!r}.{hint}")
        return found

    # Changing it

    def check(self, changes: Mapping[str, object]) -> None:
        """See that settings could be set so; None: back to the default.

        Raises:
            SettingsError: one is not known, or does not fit, by itself or together with the others.
        """
        text = self._read.text
        for name, value in changes.items():
            text = self._changed(text, name, value)
        self._composed(text)

    async def set(self, name: str, value: object) -> Change:
        """Write one setting to the file, and heed it where it is live.

        Args:
            name: dotted.
            value: of its type, or text that says it; None: back to the default.

        Raises:
            SettingsError: it does not fit, or what is in the file does not; nothing was written.
            StoreError: the file cannot be written.
        """
        leaf = self._leaf(name)

        def work() -> _Read:
            text = self._changed(read_text(self.path, required=False), name, value)
            read = self._composed(text)
            mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600
            atomic_write(self.path, text.encode(), mode=mode)
            return read

        await trio.to_thread.run_sync(private_folder, self.path.parent)
        async with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            read = await trio.to_thread.run_sync(work)
        self._take(read)
        by = self._above.get(name)
        if by is not None:
            return Change(name, "never", str(by.origin))
        acts = value_of(self.acting, name) == value_of(read.settings, name)
        return Change(name, "now" if leaf.live and acts else "restart")

    async def reload(self) -> Reload:
        """Read the file again, and heed what is live.

        Raises:
            SettingsError: something in it cannot be used; nothing has changed.
        """

        def work() -> _Read:
            return self._composed(self._sources.text())

        return self._take(await trio.to_thread.run_sync(work))

    def _take(self, read: _Read) -> Reload:
        now = self.acting
        changed = [
            each for each in self._leaves.values() if value_of(read.settings, each.name) != value_of(now, each.name)
        ]
        self._read = read
        live = {leaf.name: value_of(read.settings, leaf.name) for leaf in changed if leaf.live}
        try:
            acting = with_values(self.acting, live)
        except (ValueError, TypeError, SettingsError):  # they fit only with others that wait
            return Reload((), tuple(leaf.name for leaf in changed))
        if live:
            self.acting = acting
            self._heed(acting)
        return Reload(tuple(live), tuple(leaf.name for leaf in changed if not leaf.live))

    def _changed(self, text: str, name: str, value: object) -> str:
        """The file's text with one setting changed.

        Raises:
            SettingsError: it does not fit there.
        """
        leaf = self._leaf(name)
        parsed(text, self.path)
        document, path = TomlText(text), tuple(name.split("."))
        try:
            if value is None:
                return document.drop(path)
            if plain(leaf.kind) is tuple:
                raise TomlRefused("it is a list of tables")
            trouble: list[SettingsError] = []
            fits = judged(compose([{name: Given(value, CHANGE)}], trouble), trouble)
            return document.put(path, value_of(fits, name))
        except TomlRefused as error:
            raise SettingsError(f"{name!r} cannot be written for you: {error}. Edit {self.path} by hand.") from error

    def _composed(self, text: str) -> _Read:
        trouble: list[SettingsError] = []
        file = from_text(text, self.path, trouble)
        settings = judged(compose([file, self._above], trouble), trouble)
        return _Read(text, settings, file | self._above)


def problems(sources: Sources) -> list[str]:
    """Everything that is wrong with what is set, a line each."""
    trouble: list[SettingsError] = []
    try:
        text = sources.text()
    except SettingsError as error:
        return [error.message]
    compose([from_text(text, sources.file, trouble), sources.above()], trouble)
    return [error.message for error in trouble]


DOUBTFUL: Final = (
    ("relay.deadlines.first_event", "relay.deadlines.total", "a turn ends before its first event is late"),
    ("relay.deadlines.idle", "relay.deadlines.total", "a turn ends before its silence is too long"),
    ("relay.failover.backoff", "relay.failover.backoff_max", "no failed try is repeated"),
    ("relay.turns.cap", "relay.turns.total", "a long turn is not replayed"),
    ("keeper.mandatory", "keeper.advisory", "no token is refreshed before somebody has to wait for it"),
    ("pool.health.cooldown", "pool.health.cooldown_max", "a pause never grows"),
    ("pool.health.throttle", "pool.health.throttle_max", "a pause never grows"),
    ("catalogue.retry", "catalogue.refresh", "a list that failed is asked for later than one that did not"),
)
"""Two settings of which the first takes the second's effect, or its own, where it is the larger one; and how."""


def doubtful(settings: Settings) -> list[str]:
    """What can be set so, and can hardly be meant, a line each."""
    lines = []
    for small, large, so in DOUBTFUL:
        low, high = value_of(settings, small), value_of(settings, large)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            lines.append(f"{small} is {low:g}, and {large} is {high:g}: {so}.")
    return lines


def _plain(value: Any) -> object:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return [str(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return value
