"""Settings: what each is, where it comes from, and changing it. What may act at once does; the rest waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from kirostream.admin.errors import NotThere, Unavailable
from kirostream.admin.route import Call, Route
from kirostream.errors import SettingsError


class Shown(Protocol):
    """One setting, as the editor shows it."""

    @property
    def name(self) -> str:
        """Dotted."""

    @property
    def value(self) -> object:
        """What a start would use; a secret is masked."""

    @property
    def acts(self) -> object:
        """What the gateway goes by now."""

    @property
    def default(self) -> object:
        """What it is where nobody sets it."""

    @property
    def kind(self) -> str:
        """``string``, ``integer``, ``number``, ``boolean``, ``table`` or ``list``."""

    @property
    def unit(self) -> str:
        """Of a number; empty: none."""

    @property
    def help(self) -> str:
        """What it is for."""

    @property
    def origin(self) -> str:
        """Where the value comes from."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""

    @property
    def secret(self) -> bool:
        """Whether it is never shown."""

    @property
    def live(self) -> bool:
        """Whether a change acts at once."""


class Written(Protocol):
    """What became of a change."""

    @property
    def acts(self) -> Literal["now", "restart", "never"]:
        """When it acts."""

    @property
    def by(self) -> str:
        """What wins over it, where it never does."""


class Reread(Protocol):
    """What a reading of the file brought."""

    @property
    def now(self) -> tuple[str, ...]:
        """What acts from now on."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """What waits for a start."""


class Editor(Protocol):
    """Shows and changes settings. Everything but `show` raises SettingsError for what does not fit."""

    @property
    def path(self) -> object:
        """The file."""

    def show(self) -> Sequence[Shown]:
        """Every setting."""

    def one(self, name: str) -> Shown:
        """The setting of this name."""

    def check(self, changes: Mapping[str, object]) -> None:
        """See that settings could be set so; None: back to the default."""

    async def set(self, name: str, value: object) -> Written:
        """Write one to the file, and heed it where it may act at once."""

    async def reload(self) -> Reread:
        """Read the file again."""


class Setting(msgspec.Struct):
    """One setting. `value` is what a start would use, `acts` what the gateway goes by now; secrets are masked."""

    name: str
    section: str
    value: Any
    acts: Any
    default: Any
    kind: str
    unit: str
    help: str
    origin: str
    variable: str
    secret: bool
    live: bool
    """Whether a change acts at once."""
    waiting: bool
    """Whether a change waits for a start."""


class Settings(msgspec.Struct):
    """Every setting, in the order of the sections, and the file they are written to."""

    file: str
    settings: list[Setting]


class Put(msgspec.Struct, forbid_unknown_fields=True):
    """A value, of the setting's type or text that says it; null: back to the default."""

    value: Any


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """Values by the names of their settings."""

    changes: dict[str, Any]


class Changed(msgspec.Struct):
    """What became of a change: it acts now, after a restart, or never, because `by` wins."""

    setting: Setting
    acts: Literal["now", "restart", "never"]
    by: str


class Checked(msgspec.Struct):
    """Whether settings could be set so; `error` says why not."""

    ok: bool
    error: str


class Reloaded(msgspec.Struct):
    """What the file says that is new: what acts from now on, and what waits for a start."""

    now: list[str]
    waiting: list[str]


class SettingsPage:
    """``/settings``."""

    def __init__(self, editor: Callable[[], Editor]) -> None:
        self._editor = editor

    def routes(self) -> list[Route]:
        """Its routes."""
        tag, one = "settings", "/settings/{name}"
        return [
            Route(
                method="GET",
                path="/settings",
                endpoint=self.everything,
                summary="What is set, and where it comes from.",
                tag=tag,
                gives=Settings,
                refuses=(404,),
            ),
            Route(
                method="POST",
                path="/settings/check",
                endpoint=self.check,
                summary="Whether settings could be set so. Nothing is changed.",
                tag=tag,
                takes=Changes,
                gives=Checked,
                refuses=(404,),
            ),
            Route(
                method="POST",
                path="/settings/reload",
                endpoint=self.reload,
                summary="Read the file again.",
                tag=tag,
                gives=Reloaded,
                refuses=(404,),
            ),
            Route(method="GET", path=one, endpoint=self.show, summary="One.", tag=tag, gives=Setting, refuses=(404,)),
            Route(
                method="PUT",
                path=one,
                endpoint=self.put,
                summary="Write one to the file. What may act at once does.",
                tag=tag,
                takes=Put,
                gives=Changed,
                refuses=(404,),
            ),
        ]

    def _there(self) -> Editor:
        try:
            return self._editor()
        except SettingsError as error:
            raise Unavailable(error.message) from None

    async def everything(self, call: Call) -> Settings:
        """``GET /settings``."""
        editor = self._there()
        return Settings(str(editor.path), [_said(each) for each in editor.show()])

    async def show(self, call: Call) -> Setting:
        """``GET /settings/{name}``."""
        return _said(self._one(self._there(), call.path["name"]))

    async def put(self, call: Call) -> Changed:
        """``PUT /settings/{name}``."""
        editor, name = self._there(), call.path["name"]
        self._one(editor, name)
        done = await editor.set(name, call.body.value)
        return Changed(_said(editor.one(name)), done.acts, done.by)

    @staticmethod
    def _one(editor: Editor, name: str) -> Shown:
        try:
            return editor.one(name)
        except SettingsError as error:
            raise NotThere(error.message) from None

    async def check(self, call: Call) -> Checked:
        """``POST /settings/check``."""
        try:
            self._there().check(call.body.changes)
        except SettingsError as error:
            return Checked(False, error.message)
        return Checked(True, "")

    async def reload(self, call: Call) -> Reloaded:
        """``POST /settings/reload``."""
        done = await self._there().reload()
        return Reloaded(list(done.now), list(done.waiting))


def _said(setting: Shown) -> Setting:
    return Setting(
        name=setting.name,
        section=setting.name.rpartition(".")[0],
        value=setting.value,
        acts=setting.acts,
        default=setting.default,
        kind=setting.kind,
        unit=setting.unit,
        help=setting.help,
        origin=setting.origin,
        variable=setting.variable,
        secret=setting.secret,
        live=setting.live,
        waiting=setting.value != setting.acts,
    )
