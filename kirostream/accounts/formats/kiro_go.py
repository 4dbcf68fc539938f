"""``config.json`` of Kiro-Go (kiro-protocol.md section 5.6): its accounts among its settings. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kirostream.accounts.account import AuthMethod
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
)
from kirostream.errors import SettingsError


def fits(text: str) -> bool:
    """Whether it is such a file: accounts whose members lie side by side."""
    value = looks_like(text)
    return isinstance(value, dict) and isinstance(value.get("accounts"), list)


def read(text: str) -> ReadAccounts:
    """Its accounts.

    Raises:
        SettingsError: it holds none.
    """
    value = load(text)
    if not isinstance(value, dict) or not isinstance(value.get("accounts"), list):
        raise SettingsError("the file holds no accounts")
    return read_each(value["accounts"], read_flat)


def write(accounts: Sequence[Portable], before: str, now: float) -> Written:
    """The file with these accounts in it; its settings stay. A new file has no password: Kiro-Go asks for one."""
    value = load(before) if before.strip() else {}
    if not isinstance(value, dict):
        raise SettingsError("the file is no config.json of Kiro-Go")
    held = value.get("accounts")
    fit = [each for each in accounts if each.credential and each.credential.auth in (AuthMethod.SOCIAL, AuthMethod.IDC)]
    left_out = [f"{each.name}: Kiro-Go takes social and IdC sign-ins alone" for each in accounts if each not in fit]
    entries = merge_entries(held if isinstance(held, list) else [], fit, _entry)
    return Written(dump({**value, "accounts": entries}), left_out)


def _entry(account: Portable, old: Mapping[str, Any]) -> dict[str, Any]:
    credential = account.credential
    assert credential is not None
    said = {
        "email": account.email,
        "userId": account.user_id,
        "nickname": account.label,
        "accessToken": credential.access_token.reveal(),
        "refreshToken": credential.refresh_token.reveal(),
        "clientId": credential.client_id,
        "clientSecret": credential.client_secret.reveal(),
        "authMethod": credential.auth.value,
        "provider": credential.provider,
        "region": credential.region,
        "startUrl": credential.start_url,
        "expiresAt": round(credential.expires_at or 0.0),
        "machineId": account.machine_id,
    }
    keep = {name: value for name, value in said.items() if value or name not in old}
    fresh = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"kirostream:{credential.refresh_token.digest()}")),
        "enabled": account.enabled,
    }
    return {**fresh, **old, **keep, "enabled": account.enabled}
