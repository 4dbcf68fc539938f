"""Files of Kiro Account Manager (kiro-protocol.md section 5.6): the export, its flat variant, a list, cards, CSV. Pure.

Passwords and CSRF tokens that they may hold are read over.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kirostream.accounts.account import AuthMethod, Credential
from kirostream.accounts.formats.portable import (
    Portable,
    ReadAccounts,
    Written,
    dump,
    load,
    looks_like,
    merge_entries,
    read_each,
    read_flat,
    word,
)
from kirostream.errors import SettingsError

VERSION: Final = "1.8.3"
"""The version whose form is written."""

_DASHES: Final = re.compile(r"(-{4,})")
_FIELDS: Final = ("email", "password", "refreshToken", "clientId", "clientSecret", "idp")


def fits(text: str) -> bool:
    """Whether it is an export: accounts with their credentials in an object of their own."""
    value = looks_like(text)
    if not isinstance(value, dict) or not isinstance(value.get("accounts"), list):
        return False
    return "exportedAt" in value or any(isinstance(each, dict) and "credentials" in each for each in value["accounts"])


def read(text: str) -> ReadAccounts:
    """The accounts of an export.

    Raises:
        SettingsError: it is none.
    """
    value = load(text)
    if not isinstance(value, dict) or not isinstance(value.get("accounts"), list):
        raise SettingsError("the file holds no accounts")
    return read_each(value["accounts"], _read_entry)


def _read_entry(entry: Mapping[str, Any], where: str) -> Portable:
    inner = entry.get("credentials")
    inner = inner if isinstance(inner, dict) else {}
    outer = {name: entry[name] for name in ("email", "nickname", "userId", "machineId", "idp") if name in entry}
    if not inner:
        return read_flat(entry, where)
    profile = word(inner, "profileArn") or word(entry, "profileArn")
    return read_flat({**outer, **inner, "profileArn": profile}, where)


def write(accounts: Sequence[Portable], before: str, now: float) -> Written:
    """An export with these accounts in it."""
    value = load(before) if before.strip() else {}
    if not isinstance(value, dict):
        raise SettingsError("the file is no export of Kiro Account Manager")
    held = value.get("accounts")
    left_out = [
        f"{account.name}: Kiro Account Manager takes no {_unfit(account)}" for account in accounts if _unfit(account)
    ]
    entries = merge_entries(
        held if isinstance(held, list) else [],
        [account for account in accounts if not _unfit(account)],
        lambda account, old: _entry(account, old, now),
        lambda entry: inner if isinstance(inner := entry.get("credentials"), dict) else entry,
    )
    start = {"version": VERSION, "exportedAt": round(now * 1000), "groups": [], "tags": []}
    return Written(dump({**start, **value, "exportedAt": round(now * 1000), "accounts": entries}), left_out)


def _unfit(account: Portable) -> str:
    if account.credential is None:
        return "file of another program"
    return "API key" if account.credential.auth is AuthMethod.API_KEY else ""


def _entry(account: Portable, old: Mapping[str, Any], now: float) -> dict[str, Any]:
    credential = account.credential
    assert credential is not None
    made: dict[str, Any] = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"kirostream:{credential.refresh_token.digest()}")),
        "groupId": None,
        "tags": [],
        "status": "active",
        "createdAt": round(now * 1000),
        "lastUsedAt": 0,
    }
    inner = old.get("credentials")
    said = {
        "email": account.email,
        "nickname": account.label,
        "idp": credential.provider,
        "userId": account.user_id,
        "machineId": account.machine_id,
        "profileArn": credential.profile_arn,
    }
    keep = {name: value for name, value in said.items() if value or name not in old}
    tokens = {"csrfToken": "", **(inner if isinstance(inner, dict) else {}), **_tokens(credential)}
    return {**(old or made), **keep, "credentials": tokens}


def _tokens(credential: Credential) -> dict[str, Any]:
    return {
        "accessToken": credential.access_token.reveal(),
        "refreshToken": credential.refresh_token.reveal(),
        "clientId": credential.client_id,
        "clientSecret": credential.client_secret.reveal(),
        "region": credential.region,
        "startUrl": credential.start_url,
        "expiresAt": round((credential.expires_at or 0.0) * 1000),
        "authMethod": "IdC" if credential.auth is AuthMethod.IDC else credential.auth.value,
        "provider": credential.provider,
        "profileArn": credential.profile_arn,
    }


# -- lists of lines


def fits_cards(text: str) -> bool:
    """Whether its lines are cards: fields with four dashes or more between them."""
    lines = _lines(text)
    return bool(lines) and all(len(_DASHES.findall(line)) >= 2 for line in lines)


def read_cards(text: str) -> ReadAccounts:
    """Cards: ``email----password----refreshToken----clientId----clientSecret----idp``, the last one left out at will.

    Surplus dashes belong to the field before them.
    """
    return read_each([_card(line) for line in _lines(text)], read_flat)


def _card(line: str) -> dict[str, str]:
    fields: list[str] = [""]
    for part in _DASHES.split(line):
        if _DASHES.fullmatch(part):
            fields[-1] += part[4:]
            fields.append("")
        else:
            fields[-1] += part
    found = {name: value.strip() for name, value in zip(_FIELDS, fields, strict=False) if name != "password"}
    return {name: value for name, value in found.items() if value}


def fits_csv(text: str) -> bool:
    """Whether it is a table that names its columns, a token among them."""
    head = text.removeprefix("\ufeff").partition("\n")[0].lower()
    return "," in head and ("token" in head) and "{" not in head and "=" not in head


def read_csv(text: str) -> ReadAccounts:
    """A table: ``email,token,nickname,idp``, or the names of JSON."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=None))
    names = {"token": "refreshToken", "refreshtoken": "refreshToken", "clientid": "clientId"}
    names |= {"clientsecret": "clientSecret", "accesstoken": "accessToken"}
    entries = [
        {
            names.get(str(name).strip().lower(), str(name).strip()): value.strip()
            for name, value in row.items()
            if isinstance(value, str) and value.strip() and str(name).strip().lower() != "password"
        }
        for row in rows
    ]
    return read_each([entry for entry in entries if entry], read_flat)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
