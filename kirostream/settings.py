"""Settings: every room declares its own, this module composes them.

A room's settings are a frozen dataclass whose fields carry help (and unit). `Settings` names one section for each; the
same names serve everywhere: ``[relay.deadlines] idle = 300`` in the file, ``KIROSTREAM_RELAY_DEADLINES_IDLE=300`` in
the environment, where a table stands on one line, as TOML writes it inline. Priority: arguments > environment > file >
defaults. Nothing is guessed: an unknown key, a wrong type or an unreadable file is a `SettingsError` that names the
place and the nearest match.

The environment variables of earlier tools (`LEGACY`) are read too; where both are set, ours wins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

from kirostream.accounts.discovery import VARIABLES, AccountSettings
from kirostream.accounts.keeper import KeeperSettings
from kirostream.accounts.login_settings import LoginSettings
from kirostream.accounts.pool import PoolSettings
from kirostream.admin.settings import AdminSettings
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError
from kirostream.gateway.media import MediaSettings
from kirostream.gateway.responses import ResponsesSettings
from kirostream.gateway.responses_ws import SocketSettings
from kirostream.gateway.turns import GatewaySettings
from kirostream.net.client import ClientSettings
from kirostream.net.http1 import Http1Settings
from kirostream.net.listen import AsgiSettings, ListenSettings
from kirostream.providers.kiro import KiroSettings
from kirostream.relay.catalogue import CatalogueSettings
from kirostream.relay.guests import GuestSettings
from kirostream.relay.relay import RelaySettings
from kirostream.simulator.settings import SimulatorSettings
from kirostream.telemetry.log import LogSettings
from kirostream.telemetry.usage import UsageSettings

CONFIG_FILE: Final = "kirostream.toml"

DATABASE: Final = "kirostream.db"
"""The file in the data directory that holds what clients may come back to, and what was used."""

LIVE: Final = {"live": True}
"""A section, or a setting, that acts at once when it is changed; see `steering`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    server: GatewaySettings = field(default_factory=GatewaySettings)
    media: MediaSettings = field(default_factory=MediaSettings, metadata=LIVE)
    responses: ResponsesSettings = field(default_factory=ResponsesSettings, metadata=LIVE)
    websocket: SocketSettings = field(default_factory=SocketSettings, metadata=LIVE)
    listen: tuple[ListenSettings, ...] = field(
        default=(), metadata={"help": "More addresses to listen on, one [[listen]] each (README)."}
    )
    http1: Http1Settings = field(default_factory=Http1Settings, metadata=LIVE)
    asgi: AsgiSettings = field(default_factory=AsgiSettings)
    account: AccountSettings = field(default_factory=AccountSettings)
    keeper: KeeperSettings = field(default_factory=KeeperSettings, metadata=LIVE)
    pool: PoolSettings = field(default_factory=PoolSettings, metadata=LIVE)
    guests: GuestSettings = field(default_factory=GuestSettings, metadata=LIVE)
    login: LoginSettings = field(default_factory=LoginSettings)
    kiro: KiroSettings = field(default_factory=KiroSettings)
    upstream: ClientSettings = field(default_factory=ClientSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings, metadata=LIVE)
    simulator: SimulatorSettings = field(default_factory=SimulatorSettings)
    log: LogSettings = field(default_factory=LogSettings, metadata=LIVE)
    usage: UsageSettings = field(default_factory=UsageSettings, metadata=LIVE)
    admin: AdminSettings = field(default_factory=AdminSettings, metadata=LIVE)


LEGACY: Final[Mapping[str, str]] = {
    "PROXY_API_KEY": "server.key",
    "SERVER_HOST": "server.host",
    "SERVER_PORT": "server.port",
    **{variable: f"account.{name}" for variable, name in VARIABLES.items()},
    "INTERNAL_API_KEY": "guests.key",
    "ADMIN_PASSWORD": "admin.password",
    "VPN_PROXY_URL": "upstream.proxy",
    "FIRST_TOKEN_TIMEOUT": "relay.deadlines.first_event",
    "STREAMING_READ_TIMEOUT": "relay.deadlines.idle",
    "FAKE_REASONING_ENABLED": "relay.filters.thinking_tags",
    "FAKE_REASONING_MAX_TOKENS": "relay.filters.thinking_budget",
    "FAKE_REASONING_HANDLING": "relay.filters.thinking_handling",
    "TRUNCATION_RECOVERY": "relay.filters.truncation_recovery",
    "LOG_LEVEL": "log.level",
    "LOG_RETENTION_HOURS": "log.retention_hours",
}
"""Variables of the tools kirostream follows, and the settings they mean."""

MEANT_FOR_US: Final = ("KIROSTREAM_", "FAKE_REASONING_")
"""What the variables begin with that nobody else reads."""
NO_SETTINGS: Final = frozenset(
    f"KIROSTREAM_{name}" for name in ("DATA_DIR", "CONFIG_DIR", "CORE", "KEY", "REQUIRE_EXT", "CFLAGS")
)
"""Ours, and no settings: folders, the build, and the key as the README hands it to clients."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. As text it is the place that a person has to look at.

    `kind` is ``default``, ``file``, ``variable`` or ``argument``; `where` the file's path, the variable's name, or who
    argues.
    """

    kind: Literal["default", "file", "variable", "argument"] = "default"
    where: str = ""
    text: TextLines | None = field(default=None, repr=False, compare=False)
    path: tuple[str | int, ...] = ()

    @property
    def line(self) -> int:
        """The line of the file, from 1; 0 where it is in none."""
        return self.text(self.path) if self.text is not None else 0

    def __str__(self) -> str:
        line = self.line
        return f"{self.where}, line {line}" if line else self.where or "the defaults"


TextLines: TypeAlias = Callable[[tuple[str | int, ...]], int]
"""Finds the line of a path in a settings file (`stores.toml_text`)."""
DEFAULT: Final = Origin()


class Given(NamedTuple):
    """A value that was set, and where."""

    value: object
    origin: Origin


Layer: TypeAlias = dict[str, Given]
"""What one source sets: from the dotted name of a setting."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: its dotted name, its type, its default, and what its field says of it."""

    name: str
    kind: Any
    default: object
    help: str
    unit: str
    secret: bool
    live: bool

    @property
    def variable(self) -> str:
        """The variable that sets it."""
        return _variable(self.name)


def leaves() -> list[Leaf]:
    """Every setting, in the order of the sections."""
    return _leaves_of(Settings, "", live=False)


def _leaves_of(cls: type, prefix: str, *, live: bool) -> list[Leaf]:
    found: list[Leaf] = []
    kinds = _fields(cls)
    for each in dataclasses.fields(cls):
        if each.name not in kinds:
            continue
        kind, says = kinds[each.name], each.metadata
        acts = bool(says.get("live", live))
        if dataclasses.is_dataclass(kind):
            found += _leaves_of(cast(type, kind), f"{prefix}{each.name}.", live=acts)
            continue
        default = each.default if each.default is not dataclasses.MISSING else None
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        words = str(says.get("help", "")), str(says.get("unit", ""))
        found.append(Leaf(prefix + each.name, kind, default, *words, bool(says.get("secret")), acts))
    return found


def value_of(settings: Any, name: str) -> object:
    """The value of the setting `name` in `settings`."""
    for part in name.split("."):
        settings = getattr(settings, part)
    found: object = settings
    return found


def with_values(settings: T, values: Mapping[str, object]) -> T:
    """`settings` with other values, from dotted names.

    Raises:
        ValueError, TypeError, SettingsError: a section does not take them together.
    """
    own: dict[str, object] = {}
    below: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        section, _, rest = name.partition(".")
        if rest:
            below.setdefault(section, {})[rest] = value
        else:
            own[section] = value
    sections = {name: with_values(getattr(settings, name), inner) for name, inner in below.items()}
    return replace(cast(Any, settings), **own, **sections)  # type: ignore[no-any-return]


def unread(env: Mapping[str, str]) -> list[str]:
    """A line for each variable that is meant for us and that nothing reads: a typing error, or a switch we lack."""
    known = [*LEGACY, *map(_variable, _leaves(Settings, ""))]
    lines = []
    for name in sorted(env):
        if name.startswith(MEANT_FOR_US) and name not in NO_SETTINGS and name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            lines.append(f"{name} is set, and no setting reads it.{f' Did you mean {near[0]}?' if near else ''}")
    return lines


def _variable(name: str) -> str:
    """The variable of a setting."""
    return "KIROSTREAM_" + name.upper().replace(".", "_")


def data_dir(env: Mapping[str, str]) -> Path:
    """Where keys, device ids and rotated tokens live. ``KIROSTREAM_DATA_DIR`` overrides the platform's place."""
    if folder := env.get("KIROSTREAM_DATA_DIR"):
        return Path(folder)
    import platformdirs

    return platformdirs.user_data_path("kirostream", appauthor=False)


def config_file(env: Mapping[str, str]) -> Path:
    """Where the settings file is looked for. ``KIROSTREAM_CONFIG_DIR`` overrides the platform's place."""
    if folder := env.get("KIROSTREAM_CONFIG_DIR"):
        return Path(folder) / CONFIG_FILE
    import platformdirs

    return platformdirs.user_config_path("kirostream", appauthor=False) / CONFIG_FILE


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings are read.

    Args:
        env: the environment.
        path: a settings file that has to exist; None: the default one, if it is there.
        arguments: dotted setting to value, from the command line; None values are ignored.
    """

    env: Mapping[str, str] = field(repr=False)
    path: Path | None = None
    arguments: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """The settings file, there or not."""
        return self.path or config_file(self.env)

    def text(self) -> str:
        """What is in the file; empty where there is none, and none has to be.

        Raises:
            SettingsError: it cannot be read.
        """
        return read_text(self.file, required=self.path is not None)

    def above(self) -> Layer:
        """What wins over the file."""
        return from_env(self.env) | from_arguments(self.arguments)


def load(
    env: Mapping[str, str], *, path: Path | None = None, arguments: Mapping[str, object] | None = None
) -> Settings:
    """Compose the settings of `Sources`.

    Raises:
        SettingsError: anything that cannot be used, with its place. Where there is more of it, the message says so.
    """
    trouble: list[SettingsError] = []
    sources = Sources(env, path, arguments or {})
    return judged(compose([from_text(sources.text(), sources.file, trouble), sources.above()], trouble), trouble)


def judged(settings: Settings, trouble: Sequence[SettingsError]) -> Settings:
    """`settings`, unless there was trouble with them.

    Raises:
        SettingsError: there was.
    """
    if len(trouble) > 1:
        raise SettingsError(
            f"{trouble[0].message} (There is more to mend: `kirostream settings check` lists all {len(trouble)}.)"
        )
    if trouble:
        raise trouble[0]
    return settings


def read_text(path: Path, *, required: bool) -> str:
    """The settings file; empty where there is none.

    Raises:
        SettingsError: it cannot be read, or has to be there and is not.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        if not required:
            return ""
        raise SettingsError(f"The settings file {path} does not exist. Check the path given to --config.") from None
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}. Check its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"The settings file {path} is not UTF-8 text. Save it as UTF-8.") from error


def parsed(text: str, path: Path) -> dict[str, Any]:
    """A settings file's text as a tree.

    Raises:
        SettingsError: it is no TOML; the message has the line.
    """
    if not text:
        return {}
    import tomllib  # as everything that a usual start can do without

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}. Mend that line.") from error


def from_text(text: str, path: Path, trouble: list[SettingsError]) -> Layer:
    """What a settings file says; what cannot be used of it goes to `trouble`."""
    try:
        tree = parsed(text, path)
    except SettingsError as error:
        trouble.append(error)
        return {}

    def line(of: tuple[str | int, ...]) -> int:
        from kirostream.stores.toml_text import TomlText  # only where a line is asked for: the start asks for none

        return TomlText(text).line(of)

    found: Layer = {}
    _flatten(tree, Settings, "", Origin("file", str(path), line), found, trouble)
    return found


def from_env(env: Mapping[str, str]) -> Layer:
    """What the environment says. Variables that are set to nothing say nothing."""
    found = {
        name: Given(env[variable], Origin("variable", variable))
        for variable, name in LEGACY.items()
        if env.get(variable)
    }
    for name in _leaves(Settings, ""):
        variable = _variable(name)
        if env.get(variable):
            found[name] = Given(env[variable], Origin("variable", variable))
    return found


def from_arguments(arguments: Mapping[str, object]) -> Layer:
    """What the command line says."""
    origin = Origin("argument", "the command line")
    return {name: Given(value, origin) for name, value in arguments.items() if value is not None}


def compose(layers: Iterable[Layer], trouble: list[SettingsError]) -> Settings:
    """The settings of `layers`, of which the last wins. What does not fit goes to `trouble`, and its default holds."""
    merged: Layer = {}
    for layer in layers:
        merged |= layer
    settings: Settings = _build(Settings, merged, "", trouble)
    return settings


def _flatten(
    tree: Mapping[str, object], cls: type, prefix: str, origin: Origin, found: Layer, trouble: list[SettingsError]
) -> None:
    """Lay a TOML tree out as dotted names, along the dataclasses; a table that is a value stays one."""
    known = _fields(cls)
    for key, value in tree.items():
        name = prefix + key
        at = replace(origin, path=(*origin.path, key))
        kind = known.get(key)
        if kind is None:
            import difflib

            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {prefix + near[0]!r}?" if near else f" It takes: {', '.join(known)}."
            trouble.append(SettingsError(f"Unknown setting {name!r} in {at}.{hint}"))
        elif not dataclasses.is_dataclass(kind):
            found[name] = Given(value, at)
        elif isinstance(value, dict):
            _flatten(value, cast(type, kind), f"{name}.", at, found, trouble)
        else:
            trouble.append(SettingsError(f"{name!r} in {at} is a section: write [{name}] and its settings below it."))


def _leaves(cls: type, prefix: str) -> list[str]:
    names: list[str] = []
    for key, kind in _fields(cls).items():
        if dataclasses.is_dataclass(kind):
            names += _leaves(cast(type, kind), f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


@functools.cache
def _fields(cls: type) -> Mapping[str, Any]:
    own = [each for each in dataclasses.fields(cls) if each.init]
    if all(each.type in _PLAIN for each in own):  # most: to evaluate these took 2 ms of a start
        return {each.name: _PLAIN[each.type] for each in own}
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in own}


def _build(cls: type[Any], layer: Layer, prefix: str, trouble: list[SettingsError]) -> Any:
    values: dict[str, object] = {}
    of_field = {each.name: each.metadata for each in dataclasses.fields(cls)}
    for key, kind in _fields(cast(type, cls)).items():
        name = prefix + key
        if dataclasses.is_dataclass(kind):
            values[key] = _build(cast(type, kind), layer, f"{name}.", trouble)
        elif name in layer:
            try:
                values[key] = _convert(name, kind, *layer[name], of_field[key])
            except SettingsError as error:
                trouble.append(error)
    try:
        return cls(**values)
    except (ValueError, TypeError, SettingsError) as error:
        # The section says what is wrong; the value that makes it say so by itself stands where it has to be mended.
        given = [key for key in values if prefix + key in layer]
        guilty = [key for key in given if not _fits(cls, {key: values[key]})] or given[:1]
        at = f" ({layer[prefix + guilty[0]].origin})" if guilty else ""
        said = error.message if isinstance(error, SettingsError) else str(error)
        trouble.append(SettingsError(f"The settings in section {prefix.rstrip('.') or 'top'!r} do not fit: {said}{at}"))
        return cls(**{key: value for key, value in values.items() if key not in given}) if _fits(cls, {}) else None


def _fits(cls: type[Any], values: Mapping[str, object]) -> bool:
    try:
        cls(**values)
    except (ValueError, TypeError, SettingsError):
        return False
    return True


_WORDS: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_PLAIN: Final[Mapping[object, type]] = {kind.__name__: kind for kind in _WORDS}
"""An annotation, as it is written, to what it means."""
_TRUTHS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _convert(name: str, kind: Any, value: object, origin: Origin, says: Mapping[str, Any]) -> object:
    """A value of the setting's type. Text is read; what is none has to fit as it is.

    A number is 0 or more, and at most what its field names as ``most``.

    Raises:
        SettingsError: it does not fit. The message quotes it, unless it is secret.
    """
    if typing.get_origin(kind) is tuple:
        return _tables(name, typing.get_args(kind)[0], value, origin)
    found = _read(kind, value)
    said = "something else" if says.get("secret") else repr(value)
    if found is None:
        words = _WORDS.get(plain(kind), "a table")
        raise SettingsError(f"{name!r} takes {words}, but {origin} says {said}.")
    most = says.get("most", math.inf)
    if isinstance(found, int | float) and not 0 <= found <= most:
        upper = f" to {most}" if most < math.inf else " or more"
        raise SettingsError(f"{name!r} takes 0{upper}, but {origin} says {said}.")
    return found


def plain(kind: Any) -> Any:
    """The class that values of a type have: without ``| None``, and without what is between brackets."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    return typing.get_origin(kind) or kind


def _read(kind: Any, value: object) -> object:
    """`value` as `kind`; None where it is none."""
    wanted = plain(kind)
    if wanted is bool and isinstance(value, str) and value.lower() in _TRUTHS:
        return _TRUTHS[value.lower()]
    if wanted in (int, float) and isinstance(value, str):
        try:
            return wanted(value)
        except ValueError:
            pass
    elif wanted is Mapping and isinstance(value, str):
        return _toml_value(f"{{{value.strip().removeprefix('{').removesuffix('}')}}}")
    elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    return None


def _toml_value(text: str) -> object:
    """What is written in a variable as it would be in the file; None: nothing that TOML knows."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None


def _tables(name: str, cls: type[Any], value: object, origin: Origin) -> tuple[Any, ...]:
    """The entries of an array of tables, ``[[name]]``; a variable has it as an inline array."""
    if isinstance(value, str):
        value = _toml_value(value)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise SettingsError(
            f"{name!r} in {origin} is a list of tables: write [[{name}]] and the settings of each below."
        )
    entries = []
    for number, table in enumerate(value):
        place = f"{name}[{number + 1}]."
        found: Layer = {}
        trouble: list[SettingsError] = []
        _flatten(table, cls, place, replace(origin, path=(*origin.path, number)), found, trouble)
        entries.append(_build(cls, found, place, trouble))
        if trouble:
            raise trouble[0]
    return tuple(entries)
