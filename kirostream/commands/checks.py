"""What ``kirostream doctor`` looks at, a function each. They read; what none of them does is repair.

Each tells of one finding at least, so that a person sees what was looked at. What needs settings is left out where they
cannot be read.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import trio

from kirostream._version import __version__
from kirostream.accounts.account import NO_SECRET, Account, Token
from kirostream.accounts.profiles import profile_arn
from kirostream.accounts.terms import terms_of
from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, SettingsError, StoreError
from kirostream.finding import as_set, look_for_accounts
from kirostream.gateway.callers import KEY_FILE
from kirostream.net.client import ClientSettings, HttpClient
from kirostream.net.hub import obstacle
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.clients import Clients
from kirostream.settings import DATABASE, Settings, Sources, unread
from kirostream.settings_file import SettingsEditor, doubtful, problems
from kirostream.stores.sqlite import examine

Verdict: TypeAlias = Literal["ok", "note", "trouble"]
"""``note``: it works, and somebody may want to know; ``trouble``: something does not work."""

REACH: Final = 5.0
"""Seconds that an upstream host has to answer."""
LEAST_ROOM: Final = 256 << 20
"""Bytes of free disk below which the data directory is in trouble soon."""
DESCRIPTORS: Final = 4096
"""Open files that some 2,000 streams at once take: each has a client's socket and an upstream's."""
CLOCK: Final = 60.0
"""Seconds that the clock may differ from the service's: tokens are refreshed ten minutes before they end."""


class Finding(NamedTuple):
    """What one look found. `said` has what to do in it, where something is to be done."""

    subject: str
    verdict: Verdict
    said: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What is looked at. `offline`: nothing outside this machine is asked."""

    sources: Sources
    env: Mapping[str, str]
    folder: Path
    offline: bool = False


async def check(scene: Scene, tell: Callable[[Finding], None]) -> None:
    """Tell every finding, in an order in which a person would look."""
    about = f"kirostream {__version__}, Python {platform.python_version()}, {platform.platform()}"
    tell(Finding("version", "ok", about))
    tell(_core())
    settings = _settings(scene, tell)
    if settings is not None:
        tell(_streams(settings))
    for finding in _folder(scene.folder):
        tell(finding)
    tell(_key(scene, settings))
    tell(await trio.to_thread.run_sync(_database, scene.folder))
    tell(_files())
    if settings is not None:
        tell(await _address(settings))
        await _accounts(scene, settings, tell)


def _core() -> Finding:
    from kirostream.evstream import CORE

    if CORE == "compiled":
        return Finding("core", "ok", "compiled")
    if os.environ.get("KIROSTREAM_CORE") == "python":
        return Finding("core", "note", "Python, as KIROSTREAM_CORE says; the compiled one is many times faster")
    return Finding(
        "core", "note", "Python, which is slow: no C compiler was found at installation. Install one, then reinstall"
    )


def _streams(settings: Settings) -> Finding:

    if not settings.upstream.hub:
        return Finding("streams", "note", "a task for each, as upstream.hub = false says; a hub for all costs less")
    why = obstacle()
    if why:
        return Finding("streams", "note", f"a task for each: {why}. It works the same, and costs more for each token")
    return Finding("streams", "ok", "a hub for all (epoll)")


def _settings(scene: Scene, tell: Callable[[Finding], None]) -> Settings | None:
    """What is set; None where it cannot be used."""
    for line in unread(scene.env):
        tell(Finding("settings", "note", line))
    troubles = problems(scene.sources)
    try:
        editor = SettingsEditor(scene.sources)
    except SettingsError as error:
        for line in troubles or [error.message]:
            tell(Finding("settings", "trouble", line))
        return None
    for line in doubtful(editor.acting):
        tell(Finding("settings", "note", line))
    changed = sum(each.value != each.default for each in editor.show())
    file = f"{editor.path}{'' if editor.path.exists() else ' (not there, and need not be)'}"
    tell(Finding("settings", "ok", f"{file}; {changed or 'none'} set"))
    return editor.acting


def _folder(folder: Path) -> Iterator[Finding]:
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        yield Finding("data", "ok", f"{folder} is not there yet; the first start makes it")
        return
    except OSError as error:
        yield Finding("data", "trouble", f"{folder} cannot be looked at: {error.strerror}. Check its permissions")
        return
    if not stat.S_ISDIR(mode):
        yield Finding("data", "trouble", f"{folder} is no folder. Move it away, or set KIROSTREAM_DATA_DIR")
        return
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("data", "trouble", f"{folder} cannot be written: give this user the right to, or set another")
    elif free < LEAST_ROOM:
        yield Finding("data", "trouble", f"{folder} has {_size(free)} of disk left: free some space")
    else:
        yield Finding("data", "ok", f"{folder}, {_size(free)} free")
    if sys.platform != "win32" and mode & 0o077:
        yield Finding("data", "trouble", f"{folder} can be read by others (mode {mode & 0o777:o}): chmod 700 it")


def _key(scene: Scene, settings: Settings | None) -> Finding:

    if settings is not None and settings.server.key:
        return Finding("key", "ok", "set by server.key")
    path = scene.folder / KEY_FILE
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Finding("key", "ok", "the first start makes one, and shows it")
    except OSError as error:
        return Finding("key", "trouble", f"{path} cannot be read: {error.strerror}. Check its permissions")
    if sys.platform != "win32" and mode & 0o077:
        return Finding("key", "trouble", f"{path} can be read by others (mode {mode & 0o777:o}): chmod 600 it")
    return Finding("key", "ok", f"in {path}")


def _database(folder: Path) -> Finding:

    path = folder / DATABASE
    if not path.exists():
        return Finding("database", "ok", "not there yet; the first start makes it")
    try:
        trouble = examine(path)
    except StoreError as error:
        return Finding("database", "trouble", error.message)
    if trouble:
        return Finding("database", "trouble", f"{path} is damaged ({trouble}): move it away, a new one will be made")
    return Finding("database", "ok", f"{path}, {_size(path.stat().st_size)}, sound")


def _files() -> Finding:
    if sys.platform == "win32":
        return Finding("files", "ok", "this system sets no limit on open files")
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= DESCRIPTORS:
        return Finding("files", "ok", "as many open files as it takes")
    return Finding("files", "note", f"{most} open files are some {most // 2} streams at once; ulimit -n sets more")


async def _address(settings: Settings) -> Finding:
    """Whether the address is free, or a gateway listens there."""

    host, port = settings.server.host, settings.server.port
    name = f"{host}:{port}"
    if port == 0:
        return Finding("address", "ok", f"{host}, on a port that the system chooses")
    reachable = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"http://[{reachable}]:{port}/health" if ":" in reachable else f"http://{reachable}:{port}/health"
    with socket.socket(socket.AF_INET6 if ":" in reachable else socket.AF_INET) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((reachable, port))
            return Finding("address", "ok", f"{name} is free")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Finding("address", "trouble", f"{name} cannot be listened on: {error.strerror}")
    try:
        with trio.fail_after(REACH):
            async with HttpClient(ClientSettings()) as client:
                _, _, body = await client.fetch("GET", url, (), limit=64 << 10)
    except (KirostreamError, trio.TooSlowError):
        body = b""
    if b'"service":"kirostream"' not in body:
        return Finding("address", "trouble", f"another program listens on {name}: end it, or choose another port")
    same = f'"{__version__}"'.encode() in body
    return Finding(
        "address",
        "ok" if same else "note",
        f"a gateway listens on {name}{'' if same else ', of another version: restart it'}",
    )


async def _accounts(scene: Scene, settings: Settings, tell: Callable[[Finding], None]) -> None:
    """The accounts, and whether their services can be reached. No credential is sent anywhere."""
    try:
        discovery = await look_for_accounts(settings, scene.env, scene.folder)
    except KirostreamError as error:
        tell(Finding("accounts", "trouble", error.message))
        return
    for line in discovery.trouble:
        tell(Finding("accounts", "note", line))
    if not discovery.found:
        if settings.guests.key:
            tell(Finding("accounts", "ok", "none of its own; each request brings one"))
        else:
            tell(Finding("accounts", "trouble", "there is none: kirostream login; to try without: serve --demo"))
        return

    def proxy_of(account: Account) -> str:
        return terms_of(account, settings.pool.accounts).proxy

    provider = KiroProvider(settings.kiro)
    asked: dict[tuple[str, str], Account] = {}
    for each in discovery.found:
        account, credential = as_set(each.account, settings), each.credential
        lasts = credential.valid_until() > time.time()
        said = f"{account.label}, from {each.source.describe()}"
        if not lasts and not credential.refresh_token:
            tell(Finding("account", "trouble", f"{said}: its token has ended, and nothing renews it: log in again"))
        else:
            tell(Finding("account", "ok", f"{said}: its token {'lasts' if lasts else 'is renewed with the next turn'}"))
        token = Token(NO_SECRET, 0.0, profile_arn(credential), account.id)
        for url in provider.endpoints(account, token):
            asked.setdefault((url, proxy_of(account)), account)
    async with aclosing(Clients(settings.upstream, proxy_of)) as clients:
        for (url, _), account in asked.items():
            if scene.offline:
                tell(Finding("service", "note", f"{url}: not asked (--offline)"))
            else:
                await _service(clients, account, url, tell)


async def _service(clients: Clients, account: Account, url: str, tell: Callable[[Finding], None]) -> None:
    """Whether anything answers there, and what time it has. Whatever it answers will do: nobody is logged in."""
    began = trio.current_time()
    try:
        with trio.fail_after(REACH):
            async with clients.of(account).stream("GET", f"{url}/", ()) as answer:
                headers = answer.headers
    except trio.TooSlowError:
        tell(Finding("service", "trouble", f"{url}: no answer within {REACH:g} s. Check the network and the proxy"))
        return
    except KirostreamError as error:
        tell(Finding("service", "trouble", error.message))
        return
    took = trio.current_time() - began
    tell(Finding("service", "ok", f"{url}: answers in {took * 1000:.0f} ms"))
    date = next((value for name, value in headers if name.lower() == b"date"), b"")
    try:
        away = time.time() - parsedate_to_datetime(date.decode("latin-1")).timestamp()
    except ValueError:
        return
    if abs(away) > CLOCK:
        way = "ahead of" if away > 0 else "behind"
        tell(Finding("clock", "trouble", f"this machine's is {abs(away):.0f} s {way} the service's: set it"))


def _size(number: int) -> str:
    for unit in ("bytes", "KB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number //= 1000
    return f"{number} GB"
