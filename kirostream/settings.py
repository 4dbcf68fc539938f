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
import difflib
import functools
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

import platformdirs

from kirostream.accounts.discovery import VARIABLES, AccountSettings
from kirostream.accounts.keeper import KeeperSettings
from kirostream.accounts.login import LoginSettings
from kirostream.accounts.pool import PoolSettings
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    server: GatewaySettings = field(default_factory=GatewaySettings)
    media: MediaSettings = field(default_factory=MediaSettings)
    responses: ResponsesSettings = field(default_factory=ResponsesSettings)
    websocket: SocketSettings = field(default_factory=SocketSettings)
    listen: tuple[ListenSettings, ...] = field(
        default=(), metadata={"help": "More addresses to listen on, one [[listen]] each (README)."}
    )
    http1: Http1Settings = field(default_factory=Http1Settings)
    asgi: AsgiSettings = field(default_factory=AsgiSettings)
    account: AccountSettings = field(default_factory=AccountSettings)
    keeper: KeeperSettings = field(default_factory=KeeperSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    guests: GuestSettings = field(default_factory=GuestSettings)
    login: LoginSettings = field(default_factory=LoginSettings)
    kiro: KiroSettings = field(default_factory=KiroSettings)
    upstream: ClientSettings = field(default_factory=ClientSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    simulator: SimulatorSettings = field(default_factory=SimulatorSettings)
    log: LogSettings = field(default_factory=LogSettings)
    usage: UsageSettings = field(default_factory=UsageSettings)


LEGACY: Final[Mapping[str, str]] = {
    "PROXY_API_KEY": "server.key",
    "SERVER_HOST": "server.host",
    "SERVER_PORT": "server.port",
    **{variable: f"account.{name}" for variable, name in VARIABLES.items()},
    "INTERNAL_API_KEY": "guests.key",
    "VPN_PROXY_URL": "upstream.proxy",
    "FIRST_TOKEN_TIMEOUT": "relay.deadlines.first_event",
    "STREAMING_READ_TIMEOUT": "relay.deadlines.idle",
    "FAKE_REASONING_ENABLED": "relay.filters.thinking_tags",
    "FAKE_REASONING_MAX_TOKENS": "relay.filters.thinking_budget",
    "FAKE_REASONING_HANDLING": "relay.filters.thinking_handling",
    "TRUNCATION_RECOVERY": "relay.filters.truncation_recovery",
    "LOG_LEVEL": "log.level",
}
"""Variables of the tools kirostream follows, and the settings they mean."""

MEANT_FOR_US: Final = ("KIROSTREAM_", "FAKE_REASONING_")
"""What the variables begin with that nobody else reads."""
NO_SETTINGS: Final = frozenset(
    f"KIROSTREAM_{name}" for name in ("DATA_DIR", "CONFIG_DIR", "CORE", "KEY", "REQUIRE_EXT", "CFLAGS")
)
"""Ours, and no settings: folders, the build, and the key as the README hands it to clients."""


def unread(env: Mapping[str, str]) -> list[str]:
    """A line for each variable that is meant for us and that nothing reads: a typing error, or a switch we lack."""
    known = [*LEGACY, *map(_variable, _leaves(Settings, ""))]
    lines = []
    for name in sorted(env):
        if name.startswith(MEANT_FOR_US) and name not in NO_SETTINGS and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            lines.append(f"{name} is set, and no setting reads it.{f' Did you mean {near[0]}?' if near else ''}")
    return lines


def _variable(name: str) -> str:
    """The variable of a setting."""
    return "KIROSTREAM_" + name.upper().replace(".", "_")


def data_dir(env: Mapping[str, str]) -> Path:
    """Where keys, device ids and rotated tokens live. ``KIROSTREAM_DATA_DIR`` overrides the platform's place."""
    return Path(env.get("KIROSTREAM_DATA_DIR") or platformdirs.user_data_dir("kirostream", appauthor=False))


def config_file(env: Mapping[str, str]) -> Path:
    """Where the settings file is looked for. ``KIROSTREAM_CONFIG_DIR`` overrides the platform's place."""
    folder = env.get("KIROSTREAM_CONFIG_DIR") or platformdirs.user_config_dir("kirostream", appauthor=False)
    return Path(folder) / CONFIG_FILE


def load(
    env: Mapping[str, str], *, path: Path | None = None, arguments: Mapping[str, object] | None = None
) -> Settings:
    """Compose the settings.

    Args:
        env: the environment.
        path: a settings file that has to exist; None: the default one, if it is there.
        arguments: dotted setting to value, from the command line; None values are ignored.

    Raises:
        SettingsError: anything that cannot be used, with its place.
    """
    layers: dict[str, tuple[object, str]] = {}
    layers.update(_from_file(path or config_file(env), required=path is not None))
    layers.update(_from_env(env))
    for name, value in (arguments or {}).items():
        if value is not None:
            layers[name] = (value, "the command line")
    settings: Settings = _build(Settings, layers)
    return settings


def _from_file(path: Path, *, required: bool) -> dict[str, tuple[object, str]]:
    try:
        with path.open("rb") as file:
            tree = tomllib.load(file)
    except FileNotFoundError:
        if not required:
            return {}
        raise SettingsError(f"The settings file {path} does not exist. Check the path given to --config.") from None
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}. Check its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"The settings file {path} is not UTF-8 text. Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}. Mend that line.") from error
    found: dict[str, tuple[object, str]] = {}
    _flatten(tree, Settings, "", str(path), found)
    return found


def _flatten(
    tree: Mapping[str, object], cls: type, prefix: str, origin: str, found: dict[str, tuple[object, str]]
) -> None:
    """Lay a TOML tree out as dotted names, along the dataclasses; a table that is a value stays one."""
    known = _fields(cls)
    for key, value in tree.items():
        name = prefix + key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {prefix + near[0]!r}?" if near else f" It takes: {', '.join(known)}."
            raise SettingsError(f"Unknown setting {name!r} in {origin}.{hint}")
        kind = known[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise SettingsError(f"{name!r} in {origin} is a section: write [{name}] and its settings below it.")
            _flatten(value, typing.cast(type, kind), f"{name}.", origin, found)
        else:
            found[name] = (value, origin)


def _from_env(env: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {
        name: (env[variable], variable) for variable, name in LEGACY.items() if env.get(variable)
    }
    for name in _leaves(Settings, ""):
        variable = _variable(name)
        if env.get(variable):
            found[name] = (env[variable], variable)
    return found


def _leaves(cls: type, prefix: str) -> list[str]:
    names: list[str] = []
    for key, kind in _fields(cls).items():
        if dataclasses.is_dataclass(kind):
            names += _leaves(typing.cast(type, kind), f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


@functools.cache
def _fields(cls: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls) if each.init}


def _build(cls: type[Any], layers: Mapping[str, tuple[object, str]], prefix: str = "") -> Any:
    values: dict[str, object] = {}
    secret = {each.name for each in dataclasses.fields(cls) if each.metadata.get("secret")}
    for key, kind in _fields(typing.cast(type, cls)).items():
        name = prefix + key
        if dataclasses.is_dataclass(kind):
            values[key] = _build(typing.cast(type, kind), layers, f"{name}.")
        elif name in layers:
            values[key] = _convert(name, kind, *layers[name], secret=key in secret)
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"The settings in section {prefix.rstrip('.') or 'top'!r} do not fit: {error}") from error


_WORDS: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
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


def _convert(name: str, kind: Any, value: object, origin: str, *, secret: bool) -> object:
    """A value of the setting's type. Text from the environment is read; a file's value has to fit as it is.

    Raises:
        SettingsError: it does not fit. The message quotes it, unless it is secret.
    """
    wanted = kind
    if typing.get_origin(kind) is tuple:
        return _tables(name, typing.get_args(kind)[0], value, origin)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        wanted = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    wanted = typing.get_origin(wanted) or wanted
    if wanted is bool and isinstance(value, str) and value.lower() in _TRUTHS:
        return _TRUTHS[value.lower()]
    if wanted in (int, float) and isinstance(value, str):
        try:
            return wanted(value)
        except ValueError:
            pass
    elif wanted is Mapping and isinstance(value, str):
        try:
            return tomllib.loads(f"value = {{{value.strip().removeprefix('{').removesuffix('}')}}}")["value"]
        except tomllib.TOMLDecodeError:
            pass
    elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    words = _WORDS.get(wanted, "a table")
    said = "something else" if secret else repr(value)
    raise SettingsError(f"{name!r} takes {words}, but {origin} says {said}.")


def _tables(name: str, cls: type[Any], value: object, origin: str) -> tuple[Any, ...]:
    """The entries of an array of tables, ``[[name]]``; a variable has it as an inline array."""
    if isinstance(value, str):
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            pass
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise SettingsError(
            f"{name!r} in {origin} is a list of tables: write [[{name}]] and the settings of each below."
        )
    entries = []
    for number, table in enumerate(value, 1):
        place = f"{name}[{number}]."
        found: dict[str, tuple[object, str]] = {}
        _flatten(table, cls, place, origin, found)
        entries.append(_build(cls, found, place))
    return tuple(entries)
