"""The keys that the operator has given out, beside the gateway's own: who they are for, what they may do and use.

They stand in ``keys.json`` of the data folder (0600), each as the SHA-256 digest of its secret: a secret is random, 256
bits of it, so that a digest cannot be tried backwards, and is shown once, when it is made. Processes may share the
folder; every change happens under one lock, and a gateway that runs takes it in. Members of the list that are not ours
stay.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError, StoreError
from kirostream.gateway.callers import INTERNAL, OWN, SCOPES
from kirostream.gateway.limits import NONE, Limits
from kirostream.stores.files import FileLock, atomic_write, private_folder, read_if_there

FILE: Final = "keys.json"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST: Final = 20
"""Characters of a secret that somebody brings along."""
FIGURES: Final = ("concurrency", "requests", "tokens", "credits_per_day", "credits_per_month")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. `hint` is enough of its secret for its owner to tell it by. Times are unix seconds, 0: none.

    `older` is the digest of the secret before the last rotation, which is good until `older_until`.
    """

    id: str
    name: str
    digest: str = field(repr=False)
    hint: str
    scopes: frozenset[str]
    limits: Limits = NONE
    enabled: bool = True
    expires_at: float = 0.0
    created_at: float = 0.0
    older: str = field(default="", repr=False)
    older_until: float = 0.0
    more: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)


def digest_of(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


def new_secret() -> str:
    """A secret that nobody has."""
    return f"ks-{secrets.token_urlsafe(32)}"


def checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """What a key may do.

    Raises:
        SettingsError: there is no such scope, or none was named.
    """
    found = frozenset(scopes)
    if not found or not found <= SCOPES:
        wrong = ", ".join(sorted(found - SCOPES)) or "none"
        raise SettingsError(f"A key has one or more of the scopes {', '.join(sorted(SCOPES))}, and not {wrong}.")
    return found


def _hint(secret: str) -> str:
    return f"{secret[:3]}...{secret[-4:]}"


class KeyFile:
    """The list on disk. Its work on files runs in threads.

    Args:
        folder: the data folder; made on the first write.
        now: unix seconds.
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._now = now

    def __repr__(self) -> str:
        return f"<KeyFile {self._path}>"

    async def keys(self) -> tuple[Key, ...]:
        """Every key, in the order they were added.

        Raises:
            StoreError: the list cannot be read, or is damaged.
        """
        return tuple(await trio.to_thread.run_sync(self._read, abandon_on_cancel=True))

    async def version(self) -> object:
        """Another value after every write, by whomever; None where there is no list yet.

        Raises:
            StoreError: it cannot be asked for.
        """
        try:
            said = await trio.Path(self._path).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot look at {self._path}: {error.strerror}: check its permissions") from error
        return said.st_ino, said.st_mtime_ns, said.st_size

    async def add(
        self,
        name: str,
        *,
        scopes: Iterable[str] = ("api",),
        limits: Limits = NONE,
        expires_at: float = 0.0,
        secret: str = "",
    ) -> tuple[Key, str]:
        """Give out a key.

        Args:
            name: what it is called; no other key may be called so.
            secret: one that somebody has already; empty: a new one is made.

        Returns:
            The key, and its secret, which is kept nowhere.

        Raises:
            SettingsError: it cannot be called so, or may not do that, or the secret is no good.
            StoreError: the list cannot be written.
        """
        if not NAME.fullmatch(name) or name in (OWN, INTERNAL):
            raise SettingsError(
                f"A key cannot be called {name!r}: take up to 64 letters, digits and . _ @ -, not {OWN} or {INTERNAL}."
            )
        if secret and (len(secret) < SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret):
            raise SettingsError(f"A secret is {SHORTEST} or more printable characters without spaces.")
        given = secret or new_secret()
        key = Key(
            id=f"key-{secrets.token_hex(6)}",
            name=name,
            digest=digest_of(given.encode()),
            hint=_hint(given),
            scopes=checked_scopes(scopes),
            limits=limits,
            expires_at=expires_at,
            created_at=self._now(),
        )

        def work(keys: list[Key]) -> Key:
            if any(each.name == name for each in keys):
                raise SettingsError(f"There is a key {name!r} already. Call it otherwise, or rotate that one.")
            if any(key.digest in (each.digest, each.older) for each in keys):
                raise SettingsError("Another key has this secret already.")
            keys.append(key)
            return key

        return await self._change(work), given

    async def change(
        self,
        name: str,
        *,
        scopes: Iterable[str] | None = None,
        limits: Mapping[str, float] | None = None,
        enabled: bool | None = None,
        expires_at: float | None = None,
    ) -> Key:
        """Have a key do or use something else; what is None stays as it is, and so do limits that are not named.

        Raises:
            SettingsError: there is no such key, or it cannot be so.
            StoreError: the list cannot be written.
        """

        def amended(key: Key) -> Key:
            return replace(
                key,
                scopes=key.scopes if scopes is None else checked_scopes(scopes),
                limits=key.limits if limits is None else amended_limits(key.limits, limits),
                enabled=key.enabled if enabled is None else enabled,
                expires_at=key.expires_at if expires_at is None else expires_at,
            )

        return await self._amend(name, amended)

    async def rotate(self, name: str, *, keep: float = 0.0) -> tuple[Key, str]:
        """Give a key another secret. The one before is good for `keep` seconds more.

        Returns:
            The key, and its secret, which is kept nowhere.

        Raises:
            SettingsError: there is no such key.
            StoreError: the list cannot be written.
        """
        secret = new_secret()

        def rotated(key: Key) -> Key:
            older, until = (key.digest, self._now() + keep) if keep > 0 else ("", 0.0)
            return replace(key, digest=digest_of(secret.encode()), hint=_hint(secret), older=older, older_until=until)

        return await self._amend(name, rotated), secret

    async def remove(self, name: str) -> Key:
        """Take a key back.

        Raises:
            SettingsError: there is no such key.
            StoreError: the list cannot be written.
        """

        def work(keys: list[Key]) -> Key:
            key = _named(keys, name)
            keys.remove(key)
            return key

        return await self._change(work)

    async def _amend(self, name: str, amended: Callable[[Key], Key]) -> Key:
        def work(keys: list[Key]) -> Key:
            old = _named(keys, name)
            keys[keys.index(old)] = new = amended(old)
            return new

        return await self._change(work)

    async def _change(self, change: Callable[[list[Key]], T]) -> T:
        def work() -> T:
            keys = self._read()
            result = change(keys)
            data = {"keys": [_written(key) for key in keys]}
            atomic_write(self._path, json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n")
            return result

        await trio.to_thread.run_sync(private_folder, self._folder)
        async with FileLock(self._folder / "keys.lock"):
            return await trio.to_thread.run_sync(work)

    def _read(self) -> list[Key]:
        data = read_if_there(self._path)
        if data is None:
            return []
        try:
            return [_key(item) for item in json.loads(data)["keys"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(f"{self._path} is damaged: restore it from a backup, or delete it") from error


def amended_limits(limits: Limits, changes: Mapping[str, float]) -> Limits:
    """`limits` with other figures.

    Raises:
        SettingsError: there is no such limit, or a figure is none.
    """
    unknown = set(changes) - set(FIGURES)
    if unknown:
        raise SettingsError(f"There is no limit {min(unknown)!r}. There are: {', '.join(FIGURES)}.")
    try:
        whole = {name: value if "credits" in name else int(value) for name, value in changes.items()}
        return replace(limits, **whole)  # type: ignore[arg-type]  # the figures of `Limits`, by name
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"The limits do not fit: {error}") from error


def _named(keys: Iterable[Key], name: str) -> Key:
    found = next((key for key in keys if name in (key.name, key.id)), None)
    if found is None:
        known = ", ".join(key.name for key in keys) or "there are none"
        raise SettingsError(f"There is no key {name!r}. Known: {known}.")
    return found


_MEMBERS: Final = frozenset(
    {"id", "name", "sha256", "hint", "scopes", "limits", "enabled", "expires_at", "created_at", "older", "older_until"}
)


def _written(key: Key) -> dict[str, object]:
    limits = {name: value for name in FIGURES if (value := getattr(key.limits, name))}
    return {
        **key.more,
        "id": key.id,
        "name": key.name,
        "sha256": key.digest,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "limits": limits,
        "enabled": key.enabled,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
        "older": key.older,
        "older_until": key.older_until,
    }


def _key(item: Mapping[str, Any]) -> Key:
    digest, older = item["sha256"], item.get("older", "")
    if not isinstance(digest, str) or len(digest) != 64 or not isinstance(older, str):
        raise ValueError("no digest")
    times = [float(item.get(name) or 0.0) for name in ("expires_at", "created_at", "older_until")]
    if not all(map(math.isfinite, times)):
        raise ValueError("no time")
    return Key(
        id=str(item["id"]),
        name=str(item["name"]),
        digest=digest,
        hint=str(item.get("hint", "")),
        scopes=frozenset(map(str, item["scopes"])) & SCOPES,
        limits=Limits(**{name: item["limits"][name] for name in FIGURES if name in item.get("limits", {})}),
        enabled=item.get("enabled") is not False,
        expires_at=times[0],
        created_at=times[1],
        older=older,
        older_until=times[2],
        more={name: value for name, value in item.items() if name not in _MEMBERS},
    )
