"""``credentials.json`` of kiro.rs (kiro-protocol.md section 5.6): a list of flat objects, or one. Pure.

The list is what is written: the program writes rotated tokens back into a list alone. The same reader takes the list
that kiro2api has in KIRO_AUTH_TOKEN, the simple list of Kiro Account Manager, and one token file of the IDE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kirostream.accounts.account import AuthMethod, write_expiry
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
    without_blanks,
)
from kirostream.errors import SettingsError


def fits(text: str) -> bool:
    """Whether it is a list of objects, or one object, with tokens in them."""
    value = looks_like(text)
    entries = value if isinstance(value, list) else [value]
    names = ("refreshToken", "refresh_token", "accessToken", "access_token", "kiroApiKey")
    return bool(entries) and all(
        isinstance(entry, dict) and "type" not in entry and any(name in entry for name in names) for entry in entries
    )


def read(text: str) -> ReadAccounts:
    """Its accounts.

    Raises:
        SettingsError: it is no JSON.
    """
    value = load(text)
    return read_each(value if isinstance(value, list) else [value], read_flat)


def write(accounts: Sequence[Portable], before: str, now: float) -> Written:
    """The list with these accounts in it."""
    value = load(before) if before.strip() else []
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError("the file is no credentials.json of kiro.rs")
    fit = [each for each in accounts if each.credential and each.credential.auth is not AuthMethod.EXTERNAL_IDP]
    left_out = [f"{each.name}: kiro.rs takes tokens and API keys alone" for each in accounts if each not in fit]
    return Written(dump(merge_entries(entries, fit, _entry)), left_out)


def _entry(account: Portable, old: Mapping[str, Any]) -> dict[str, Any]:
    credential = account.credential
    assert credential is not None
    key = credential.auth is AuthMethod.API_KEY
    said = {
        "kiroApiKey" if key else "accessToken": credential.access_token.reveal(),
        "refreshToken": credential.refresh_token.reveal(),
        "profileArn": credential.profile_arn,
        "expiresAt": None if key or credential.expires_at is None else write_expiry(credential.expires_at),
        "authMethod": credential.auth.value,
        "provider": credential.provider,
        "startUrl": credential.start_url,
        "clientId": credential.client_id,
        "clientSecret": credential.client_secret.reveal(),
        "authRegion": credential.region,
        "apiRegion": credential.api_region,
        "machineId": account.machine_id,
        "email": account.email,
    }
    merged = {**old, **without_blanks(said)}
    if "region" in merged and merged["region"] == credential.region:
        del merged["authRegion"]  # the older member says it already
    if not account.enabled or "disabled" in old:
        merged["disabled"] = not account.enabled
    return merged
