"""Reading and merging the JSON objects that programs keep their tokens in. Pure.

The same member is spelt in camel case by the IDE and in snake case by kiro-cli, and tools that copy between them mix
both. A member is looked up by all its spellings, and written back under the one it was found with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kirostream.accounts.account import Credential, write_expiry
from kirostream.errors import SettingsError

SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "access_token": ("accessToken", "access_token"),
    "refresh_token": ("refreshToken", "refresh_token"),
    "expires_at": ("expiresAt", "expires_at", "expiry", "expires"),
    "profile_arn": ("profileArn", "profile_arn"),
    "auth_method": ("authMethod", "auth_method", "auth"),
    "provider": ("provider", "idp"),
    "region": ("region", "ssoRegion", "sso_region", "authRegion", "auth_region"),
    "api_region": ("apiRegion", "api_region"),
    "client_id": ("clientId", "client_id"),
    "client_secret": ("clientSecret", "client_secret"),
    "registration_expires_at": ("clientSecretExpiresAt", "client_secret_expires_at", "registrationExpiresAt"),
    "client_id_hash": ("clientIdHash", "client_id_hash"),
    "start_url": ("startUrl", "start_url"),
    "oauth_flow": ("oauth_flow", "oauthFlow"),
    "token_endpoint": ("tokenEndpoint", "token_endpoint"),
    "scopes": ("scopes", "scope"),
    "api_key": ("kiroApiKey", "apiKey", "api_key"),
}
"""Our name of a member to the names files give it (kiro-protocol.md sections 5.5 and 5.6), the usual one first."""

_KNOWN: Final = frozenset(name for names in SPELLINGS.values() for name in names)


def parse_object(text: str | bytes, where: str) -> dict[str, object]:
    """The JSON object in `text`.

    Raises:
        SettingsError: it is none; the message names `where` and the line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{where} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg});"
            " restore it, or delete it and log in again"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{where} is not JSON text; restore it, or delete it and log in again") from error
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "no object"
        raise SettingsError(f"{where} holds {kind}; it has to be one JSON object with a refreshToken")
    return value


def member(record: Mapping[str, object], name: str) -> object:
    """The member `name` (a key of `SPELLINGS`) under any of its spellings, None where it is absent or null."""
    for spelling in SPELLINGS[name]:
        value = record.get(spelling)
        if value is not None:
            return value
    return None


def text(record: Mapping[str, object], name: str) -> str:
    """The same where it is a string, without surrounding blanks; else an empty string."""
    value = member(record, name)
    return value.strip() if isinstance(value, str) else ""


def words(record: Mapping[str, object], name: str) -> tuple[str, ...]:
    """The same where it is a list of strings, or one string of words."""
    value = member(record, name)
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, str))
    return ()


def unknown(record: Mapping[str, object]) -> dict[str, object]:
    """The members that no spelling names."""
    return {key: value for key, value in record.items() if key not in _KNOWN}


def merged(record: Mapping[str, object], old: Credential, new: Credential, *, style: str) -> dict[str, object]:
    """`record` with the tokens of `new`; every other member, and the order, stay.

    The profile ARN is written only where it came with `new`: an operator's choice is not the file's business.

    Args:
        style: ``camel`` or ``snake``, for members that are not there yet.
    """
    out = dict(record)

    def put(name: str, value: object) -> None:
        found = [spelling for spelling in SPELLINGS[name] if spelling in out]
        if not found:
            camel, snake, *_ = SPELLINGS[name]
            found = [camel if style == "camel" else snake]
        for spelling in found:
            out[spelling] = value

    put("access_token", new.access_token.reveal())
    put("refresh_token", new.refresh_token.reveal())
    if new.expires_at is not None:
        put("expires_at", write_expiry(new.expires_at, member(record, "expires_at")))
    if new.profile_arn and new.profile_arn != old.profile_arn:
        put("profile_arn", new.profile_arn)
    return out


def render_like(record: Mapping[str, object], before: str) -> str:
    """`record` as JSON laid out as `before` was: its indentation, its separators, its last line break."""
    indent = re.match(r"\s*\{\s*?\n([ \t]+)", before)
    compact = indent is None and not re.search(r'":\s', before)
    body = json.dumps(
        record,
        ensure_ascii=False,
        indent=indent[1] if indent else None,
        separators=(",", ":") if compact else None,
    )
    return body + ("\n" if before.endswith("\n") else "")


def expand(path: str, home: Path) -> Path:
    """A path as people write it: ``~`` is `home`, a relative path is relative to the working folder."""
    if path == "~" or path.startswith(("~/", "~\\")):
        return home / path[2:]
    return Path(path)
