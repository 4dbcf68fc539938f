"""Other programs' files of accounts, as a command reads and rewrites them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kirostream.accounts.formats import FORMATS, detect
from kirostream.accounts.formats.portable import Format, Portable, Written
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError
from kirostream.stores.files import read_if_there


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to a peer's file: names of accounts, and what it cannot hold."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    left_out: tuple[str, ...]
    text: str

    @property
    def changes(self) -> bool:
        """Whether the file is to be written."""
        return bool(self.added or self.updated or self.removed)

    def __repr__(self) -> str:
        return f"<Change: {len(self.added)} added, {len(self.updated)} updated, {len(self.removed)} removed>"


def named_format(name: str) -> Format:
    """A format by its name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in FORMATS:
        raise SettingsError(f"There is no format {name!r}; known are {', '.join(FORMATS)}.")
    return FORMATS[name]


def form_of(target: Path, before: str) -> Format:
    """The format of a file, by its name or by what is in it.

    Raises:
        SettingsError: it is in none that is known.
    """
    return FORMATS["env"] if target.name == ".env" else detect(before)


def write_as(form: Format, accounts: Sequence[Portable], before: str, now: float) -> Written:
    """The accounts in a format.

    Raises:
        SettingsError: it is only read; or `before` is in another one.
    """
    if form.write is None:
        able = ", ".join(each.name for each in FORMATS.values() if each.write is not None)
        raise SettingsError(f"The format {form.name} is only read; written are {able}.")
    return form.write(accounts, before, now)


def text_of(path: Path, may_be_missing: bool = False) -> str:
    """The text of a file, empty where it may be missing and is.

    Raises:
        SettingsError, StoreError: it cannot be read.
    """
    data = read_if_there(path)
    if data is None:
        if may_be_missing:
            return ""
        raise SettingsError(f"cannot read {path}: it does not exist: check the path")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read {path}: it is not UTF-8 text") from None


def change_of(
    form: Format, before: str, written: Written, accounts: Sequence[Portable], trouble: Sequence[str]
) -> Change:
    """What a file becomes; `accounts` are those that were to be written, `trouble` is why others were not."""

    def name(account: Portable) -> str:  # what we call it: the file may not say
        return next((each.name for each in accounts if _is_same(each, account)), account.name)

    old = form.read(before).accounts if before.strip() else ()
    new = form.read(written.text).accounts
    fresh = [account for account in new if account not in old]
    updated = [name(account) for account in fresh if any(_is_same(account, each) for each in old)]
    added = [name(account) for account in fresh if not any(_is_same(account, each) for each in old)]
    removed = [account.name for account in old if not any(_is_same(account, each) for each in new)]
    return Change(
        tuple(added),
        tuple(updated),
        tuple(removed),
        len(new) - len(fresh),
        (*written.left_out, *trouble),
        written.text,
    )


def _is_same(one: Portable, other: Portable) -> bool:
    """Whether two entries are one account: the same place, token or person."""
    if one.credential is None or other.credential is None:
        return one.place == other.place
    tokens = [each.refresh_token or each.access_token for each in (one.credential, other.credential)]
    people = [(each.user_id or each.email).lower() for each in (one, other)]
    return tokens[0] == tokens[1] or (bool(people[0]) and people[0] == people[1])
