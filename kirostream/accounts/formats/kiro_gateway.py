"""``credentials.json`` of kiro-gateway (kiro-protocol.md section 5.6): tokens, and places of other programs. Pure.

It keeps social refresh tokens in the list, and everything that needs a client registration in a file that the list
names. So what is written is what it can use: tokens of social sign-ins, and the places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from kirostream.accounts.account import AuthMethod
from kirostream.accounts.formats.portable import (
    Portable,
    ReadAccounts,
    Written,
    dump,
    load,
    looks_like,
    read_each,
    read_flat,
    without_blanks,
    word,
)
from kirostream.errors import SettingsError

_PLACES: Final[Mapping[str, Literal["ide", "cli"]]] = {"json": "ide", "sqlite": "cli"}


def fits(text: str) -> bool:
    """Whether it is a list whose entries say their type."""
    value = looks_like(text)
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "type" in each for each in value)


def read(text: str) -> ReadAccounts:
    """Its accounts.

    Raises:
        SettingsError: it is no list.
    """
    value = load(text)
    if not isinstance(value, list):
        raise SettingsError("the file is no list of credentials")
    return read_each(value, _read_entry)


def _read_entry(entry: Mapping[str, Any], where: str) -> Portable:
    kind = word(entry, "type")
    if kind in _PLACES:
        path = word(entry, "path")
        if not path:
            raise SettingsError(f"{where} is of type {kind} and names no path")
        return Portable(place=(_PLACES[kind], path), enabled=entry.get("enabled") is not False)
    if kind not in ("refresh_token", "pkce"):
        raise SettingsError(f"{where} is of type {kind!r}; known are json, sqlite, refresh_token and pkce")
    return read_flat({name: value for name, value in entry.items() if name != "type"}, where)


def write(accounts: Sequence[Portable], before: str, now: float) -> Written:
    """The list with these accounts in it."""
    value = load(before) if before.strip() else []
    if not isinstance(value, list):
        raise SettingsError("the file is no credentials.json of kiro-gateway")
    entries, left_out = list(value), []
    for account in accounts:
        said = _entry(account)
        if said is None:
            left_out.append(f"{account.name}: kiro-gateway takes it from a file of the IDE or of kiro-cli alone")
            continue
        key = "path" if "path" in said else "refresh_token"
        at = next((at for at, old in enumerate(entries) if isinstance(old, dict) and old.get(key) == said[key]), None)
        if at is None:
            entries.append(said)
        else:
            entries[at] = {**entries[at], **said}
    return Written(dump(entries), left_out)


def _entry(account: Portable) -> dict[str, Any] | None:
    if account.place is not None:
        kind = next(kind for kind, ours in _PLACES.items() if ours == account.place[0])
        return {"type": kind, "path": account.place[1], "enabled": account.enabled}
    credential = account.credential
    if credential is None or credential.auth is not AuthMethod.SOCIAL or not credential.refresh_token:
        return None
    return without_blanks(
        {
            "type": "refresh_token",
            "refresh_token": credential.refresh_token.reveal(),
            "profile_arn": credential.profile_arn,
            "region": credential.region,
            "api_region": credential.api_region,
            "enabled": account.enabled,
        }
    )
