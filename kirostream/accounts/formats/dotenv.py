"""An ``.env`` file with refresh tokens: KIRO_REFRESH_TOKENS, REFRESH_TOKEN, REFRESH_TOKEN1 and so on. Pure.

Reading takes what `discovery.from_environment` takes. Writing sets KIRO_REFRESH_TOKENS; every other line stays, byte
for byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.discovery import from_environment
from kirostream.accounts.formats.portable import Portable, ReadAccounts, Written
from kirostream.accounts.sources.source import check_refresh_token
from kirostream.errors import SettingsError

VARIABLE: Final = "KIRO_REFRESH_TOKENS"
_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/+=~-]+")
_TOKENS: Final = re.compile(r"REFRESH_TOKEN(_?\d{1,4})?|KIRO_REFRESH_TOKENS|KIRO_API_KEY")


def fits(text: str) -> bool:
    """Whether a line sets one of the variables."""
    return any(_TOKENS.fullmatch(name) for name in _variables(text))


def read(text: str) -> ReadAccounts:
    """The accounts that the variables name."""
    chosen = from_environment(_variables(text))
    region = chosen.region or "us-east-1"
    accounts: list[Portable] = []
    trouble: list[str] = []
    for number, token in enumerate(filter(None, chosen.refresh_token.split(",")), 1):
        try:
            check_refresh_token(Secret(token), f"variable {number}")
        except SettingsError as error:
            trouble.append(error.message)
            continue
        accounts.append(
            Portable(credential=Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret(token), region=region))
        )
    accounts += [
        Portable(credential=Credential(auth=AuthMethod.API_KEY, access_token=Secret(key.strip()), region=region))
        for key in filter(None, chosen.api_key.split(","))
    ]
    return ReadAccounts(accounts, trouble)


def write(accounts: Sequence[Portable], before: str, now: float) -> Written:
    """The file with the tokens of these accounts, and of no others."""
    tokens: list[str] = []
    left_out: list[str] = []
    for account in accounts:
        credential = account.credential
        if credential is None or credential.auth is not AuthMethod.SOCIAL or not credential.refresh_token:
            left_out.append(f"{account.name}: an .env file holds refresh tokens of social sign-ins alone")
        elif not _PLAIN.fullmatch(credential.refresh_token.reveal()):
            left_out.append(f"{account.name}: its refresh token holds what an .env file would take for something else")
        else:
            tokens.append(credential.refresh_token.reveal())
    line = f"{VARIABLE}={','.join(tokens)}"
    out: list[str] = []
    done = False
    for old in before.splitlines(keepends=True):
        found = _LINE.match(old)
        if found is None or found[1] != VARIABLE:
            out.append(old)
        elif not done:
            end = old[len(old.rstrip("\r\n")) :]
            prefix = "export " if old.lstrip().startswith("export ") else ""
            out.append(f"{prefix}{line}{end}")
            done = True
    if not done:
        if out and not out[-1].endswith(("\n", "\r")):
            out[-1] += "\n"
        out.append(f"{line}\n")
    return Written("".join(out), left_out)


def _variables(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.lstrip().startswith("#") and (match := _LINE.match(line)):
            value = match[2].strip()
            if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
                value = value[1:-1]
            found[match[1]] = value
    return found
