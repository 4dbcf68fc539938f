"""An account on its way between programs, and what the formats have in common. Pure.

A format reads text into `Portable`s and writes them into text that may be there already: what it does not know stays.
Nothing here names a secret in a message: entries are named by their number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, Literal, TypeAlias

from kirostream.accounts.account import AuthMethod, Credential, account_label
from kirostream.accounts.devices import read_machine_id
from kirostream.accounts.profiles import is_builder_id
from kirostream.accounts.sources.record import read_credential
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Portable:
    """One account. Either a credential, or the place of another program that holds it.

    `email` and `user_id` say who signed in, as far as the file does; `machine_id` is 64 hex digits or empty.
    """

    credential: Credential | None = None
    place: tuple[Literal["ide", "cli"], str] | None = None
    label: str = ""
    email: str = field(default="", repr=False)
    user_id: str = field(default="", repr=False)
    machine_id: str = ""
    enabled: bool = True

    @property
    def name(self) -> str:
        """For people: holds no whole address."""
        if self.label:
            return self.label
        if self.credential is None:
            return self.place[1] if self.place else "an account"
        return account_label(replace(self.credential, extra={**self.credential.extra, "email": self.email}))


@dataclass(frozen=True, slots=True)
class ReadAccounts:
    """What a text holds. `trouble` says of entries that cannot be used why; it names no secret."""

    accounts: Sequence[Portable]
    trouble: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The new text. `left_out` says of accounts that the format cannot hold why."""

    text: str = field(repr=False)
    left_out: Sequence[str] = ()


Read: TypeAlias = Callable[[str], ReadAccounts]
Write: TypeAlias = Callable[[Sequence[Portable], str, float], Written]
"""``write(accounts, before, now)``: `before` is what the file holds, empty where there is none; `now` unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A form of file. `write` is None where nobody reads it but us."""

    name: str
    about: str
    fits: Callable[[str], bool]
    read: Read
    write: Write | None


DROPPED: Final = frozenset({"password", "csrfToken", "accessTokenExpiresAt"})
"""Members of account files that are never kept: a gateway has no use for a password."""


def load(text: str) -> Any:
    """The JSON in `text`.

    Raises:
        SettingsError: it is none. The message names the place and quotes nothing.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise SettingsError(f"the file is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise SettingsError("the file is not valid JSON: it is nested too deep") from None


def dump(value: object) -> str:
    """JSON as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def looks_like(text: str) -> Any:
    """The JSON in `text`, None where it is none."""
    try:
        return load(text)
    except SettingsError:
        return None


def word(record: Mapping[str, Any], *names: str) -> str:
    """The first of the members that is a text."""
    return next((value.strip() for name in names if isinstance(value := record.get(name), str) and value.strip()), "")


_LONGEST_WORD: Final = 32
_LONGEST_LABEL: Final = 64
"""Characters. What is longer is no name: a column that slipped may hold a token, and names are shown."""


def read_flat(record: Mapping[str, Any], where: str) -> Portable:
    """An account whose members lie side by side, in any of the spellings in use.

    Raises:
        SettingsError: it holds no token, or not all that its token needs.
    """
    credential = read_credential(record, where)
    email = word(record, "email")
    label = word(record, "nickname", "label", "description", "name")
    extra = {
        name: value
        for name, value in credential.extra.items()
        if name not in DROPPED and name not in _OF_PORTABLE and isinstance(value, str | int | float | bool) and value
    }
    provider = credential.provider if len(credential.provider) <= _LONGEST_WORD else ""
    if not provider and is_builder_id(credential):
        provider = "BuilderId"
    return Portable(
        credential=replace(credential, provider=provider, extra=extra),
        label=label if len(label) <= _LONGEST_LABEL else "",
        email=email,
        user_id=word(record, "userId", "user_id"),
        machine_id=read_machine_id(word(record, "machineId", "machine_id")) or "",
        enabled=record.get("enabled") is not False and record.get("disabled") is not True,
    )


_OF_PORTABLE: Final = frozenset(
    {
        *("id", "email", "userId", "user_id", "machineId", "machine_id", "enabled", "disabled"),
        *("nickname", "label", "description", "name"),
    }
)


def read_each(entries: Iterable[Any], read: Callable[[Mapping[str, Any], str], Portable]) -> ReadAccounts:
    """Every entry that can be used; what is wrong with one hides no other."""
    accounts: list[Portable] = []
    trouble: list[str] = []
    for number, entry in enumerate(entries, 1):
        where = f"entry {number}"
        if not isinstance(entry, dict):
            trouble.append(f"{where} is no object")
            continue
        try:
            accounts.append(read(entry, where))
        except SettingsError as error:
            trouble.append(error.message)
    return ReadAccounts(accounts, trouble)


def merge_entries(
    entries: Sequence[Any],
    accounts: Sequence[Portable],
    make: Callable[[Portable, Mapping[str, Any]], dict[str, Any]],
    tokens_of: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda entry: entry,
) -> list[Any]:
    """`entries` with each account in its place, or behind them. Entries that are of no account stay as they are.

    Args:
        make: the new entry of an account, made of the old one (empty where there is none).
        tokens_of: the part of an entry that holds its refresh token.
    """
    out = list(entries)
    for account in accounts:
        at = next((at for at, entry in enumerate(out) if _is_of(entry, account, tokens_of)), None)
        if at is None:
            out.append(make(account, {}))
        else:
            out[at] = make(account, out[at])
    return out


def _is_of(entry: Any, account: Portable, tokens_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> bool:
    """Whether an entry is of this account: the same token, or the same person with the same provider."""
    if not isinstance(entry, dict) or account.credential is None:
        return False
    tokens, credential = tokens_of(entry), account.credential
    key = credential.auth is AuthMethod.API_KEY
    held = word(tokens, "kiroApiKey" if key else "refreshToken", "refresh_token")
    ours = (credential.access_token if key else credential.refresh_token).reveal()
    if held and held == ours:
        return True
    provider = word(tokens, "provider") or word(entry, "provider", "idp")
    if provider.lower() != credential.provider.lower():
        return False
    user_id, email = word(entry, "userId"), word(entry, "email")
    return bool((user_id and user_id == account.user_id) or (email and email.lower() == account.email.lower()))


def without_blanks(record: Mapping[str, Any]) -> dict[str, Any]:
    """The members that say something."""
    return {name: value for name, value in record.items() if value not in ("", None)}
