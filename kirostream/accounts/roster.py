"""The accounts that kirostream was given: by signing in here, by an import, or as a place of another program.

Two things are kept. ``accounts.json`` of the data folder is the list, without secrets. What is secret is sealed, one
record an account (`sources.own`). A record is written before the list names it and deleted after the list has forgotten
it, so at every moment the list names only what is there.

Processes may share the folder; every change happens under one lock. Members of the list that are not ours stay.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import trio

from kirostream.accounts.account import BUILDER_ID_START_URL, AccountId, Credential, Secret, account_id, account_label
from kirostream.accounts.profiles import is_builder_id
from kirostream.accounts.sources.own import OwnAccount
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import FileLock, atomic_write, private_folder, read_if_there
from kirostream.stores.sealed import SealedStore

Kind: TypeAlias = Literal["own", "ide", "cli"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the list.

    `kind` and `place` say where the credential is: a record of ours, or a file of another program. `label` is for
    people and holds no whole address. `persons` are digests of what is known of who signed in; two entries that share
    one are the same person at the same service. `added_at` is in unix seconds. `more` is what others wrote beside it.
    """

    id: AccountId
    kind: Kind
    place: str
    label: str
    enabled: bool = True
    persons: tuple[str, ...] = ()
    added_at: float = 0.0
    more: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a credential.

    `replaced`: there was a sign-in of the same person already. `older`: that one was the newer, and was left alone.
    """

    entry: Entry
    replaced: bool
    older: bool = False


class Roster:
    """The list. Its work on files runs in threads.

    Args:
        folder: the data folder; made on the first write.
        vault: where the secrets are sealed.
    """

    def __init__(self, folder: Path, vault: SealedStore) -> None:
        self._folder = folder
        self._path = folder / "accounts.json"
        self._lock = folder / "accounts.lock"
        self._vault = vault

    def __repr__(self) -> str:
        return f"<Roster {self._path}>"

    async def entries(self) -> tuple[Entry, ...]:
        """Every entry, in the order they were added.

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

    async def find(self, name: str) -> Entry:
        """The entry that a person means by `name`; see `pick`."""
        return pick(name, [(entry.id, entry.label, entry) for entry in await self.entries()])

    def source(self, entry: Entry, *, profile_arn: str = "", api_region: str = "") -> OwnAccount:
        """The credential source of an entry of kind ``own``."""
        return OwnAccount(
            entry.place,
            self._vault,
            self._lock,
            label=entry.label,
            profile_arn=profile_arn,
            api_region=api_region,
        )

    async def strangers(self, credential: Credential) -> tuple[Entry, ...]:
        """The sign-ins at the service of `credential` of which nobody knows who they are of.

        Raises:
            StoreError: the list cannot be read.
        """

        def work() -> tuple[Entry, ...]:
            unknown = [entry for entry in self._read() if entry.kind == "own" and not entry.persons]
            return tuple(
                entry
                for entry in unknown
                if (held := self._held(entry)) is not None and _service(held) == _service(credential)
            )

        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    async def keep(
        self,
        credential: Credential,
        *,
        persons: Sequence[str] = (),
        label: str = "",
        replaces: AccountId | None = None,
        only_newer: bool = False,
        now: float,
    ) -> Kept:
        """Keep a credential. A sign-in of the same person at the same service is replaced, and keeps its id.

        Tokens and registration are replaced as one unit. What the new credential does not say beside them, and what
        the same token was known to come with, stays.

        Args:
            only_newer: leave a sign-in of the same person alone unless this one is known to be younger.
            persons: what is known of who signed in (user id, e-mail address): any of it tells two apart. Without it,
                only the same refresh token is the same person.
            label: what people shall call it; empty: what it was called, or what the credential says.
            replaces: the account that it is of, where a person has said so.
            now: unix seconds.

        Raises:
            SettingsError: its token cannot be sent: a header would not hold it.
            StoreError: it cannot be kept; what was there is still there.
        """
        for token in (credential.access_token.reveal(), credential.refresh_token.reveal()):
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise SettingsError("The token has spaces, or characters that no token has. Paste it again, as it is.")
        digests = tuple(dict.fromkeys(_person(credential, who) for who in persons if who))

        def change(entries: list[Entry]) -> Kept:
            same = next((entry for entry in entries if entry.id == replaces), None)
            if same is None:
                same = next((entry for entry in entries if self._is_same(entry, credential, digests)), None)
            if same is not None:
                held = self._held(same)
                if only_newer and held is not None and not _is_newer(credential, held):
                    return Kept(same, True, older=True)
                self.source(same).write(credential if held is None else _completed(credential, held))
                entry = replace(
                    same,
                    label=label or same.label,
                    persons=tuple(dict.fromkeys((*digests, *same.persons))),
                )
                entries[entries.index(same)] = entry
                return Kept(entry, True)
            record = (digests[0] if digests else credential.refresh_token.digest())[:16]
            if not digests and not credential.refresh_token:
                record = credential.access_token.digest()[:16]
            entry = Entry(
                id=account_id("own", record),
                kind="own",
                place=record,
                label=self._free_label(label or account_label(credential), entries),
                persons=digests,
                added_at=now,
            )
            self.source(entry).write(credential)
            entries.append(entry)
            return Kept(entry, False)

        return await self._change(change)

    async def refer(self, kind: Literal["ide", "cli"], path: Path, *, label: str = "", now: float) -> Kept:
        """Add a place of another program. Its credentials stay there; a place is added once.

        Raises:
            StoreError: the list cannot be written.
        """

        def change(entries: list[Entry]) -> Kept:
            place = os.path.abspath(path)
            same = next((entry for entry in entries if (entry.kind, entry.place) == (kind, place)), None)
            if same is not None:
                return Kept(same, True)
            name = label or ("Kiro IDE" if kind == "ide" else "kiro-cli")
            entry = Entry(
                id=account_id(kind, place), kind=kind, place=place, label=self._free_label(name, entries), added_at=now
            )
            entries.append(entry)
            return Kept(entry, False)

        return await self._change(change)

    async def enable(self, account: AccountId, enabled: bool) -> Entry:
        """Use an account, or leave it out.

        Raises:
            SettingsError: it is gone.
            StoreError: the list cannot be written.
        """
        return await self._amend(account, lambda entry: replace(entry, enabled=enabled))

    async def remove(self, account: AccountId) -> Entry:
        """Forget an account, and its sealed record. A place of another program is left as it is.

        Raises:
            SettingsError: it is gone.
            StoreError: the list cannot be written.
        """

        def change(entries: list[Entry]) -> Entry:
            entry = _with_id(entries, account)
            entries.remove(entry)
            return entry

        entry = await self._change(change)
        if entry.kind == "own":
            await trio.to_thread.run_sync(self.source(entry).forget)
        return entry

    # -- below: in a thread, and those that change under the lock

    async def _amend(self, account: AccountId, change: Callable[[Entry], Entry]) -> Entry:
        def amend(entries: list[Entry]) -> Entry:
            old = _with_id(entries, account)
            entries[entries.index(old)] = new = change(old)
            return new

        return await self._change(amend)

    async def _change(self, change: Callable[[list[Entry]], T]) -> T:
        def work() -> T:
            entries = self._read()
            result = change(entries)
            self._write(entries)  # also where only a secret has changed: a gateway that runs looks when this is written
            return result

        await trio.to_thread.run_sync(private_folder, self._folder)
        async with FileLock(self._lock):
            return await trio.to_thread.run_sync(work)

    def _is_same(self, entry: Entry, credential: Credential, persons: Sequence[str]) -> bool:
        if entry.kind != "own":
            return False
        if not set(persons).isdisjoint(entry.persons):
            return True
        if persons and entry.persons:
            return False
        held = self._held(entry)
        return held is not None and held.auth is credential.auth and _token(held) == _token(credential)

    def _held(self, entry: Entry) -> Credential | None:
        try:
            return self.source(entry).read()
        except (SettingsError, StoreError):  # a record that cannot be read is nobody's, and may be replaced
            return None

    @staticmethod
    def _free_label(wanted: str, entries: Iterable[Entry]) -> str:
        taken = {entry.label for entry in entries}
        label, number = wanted, 2
        while label in taken:
            label, number = f"{wanted} {number}", number + 1
        return label

    def _read(self) -> list[Entry]:
        data = read_if_there(self._path)
        if data is None:
            return []
        try:
            return [_read_entry(item) for item in json.loads(data)["accounts"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self._path} is damaged: restore it from a backup, or delete it and sign in again"
            ) from error

    def _write(self, entries: Sequence[Entry]) -> None:
        accounts = [
            {
                **entry.more,
                "id": entry.id,
                "kind": entry.kind,
                "place": entry.place,
                "label": entry.label,
                "enabled": entry.enabled,
                "persons": list(entry.persons),
                "addedAt": entry.added_at,
            }
            for entry in entries
        ]
        atomic_write(self._path, json.dumps({"accounts": accounts}, indent=2, ensure_ascii=False).encode() + b"\n")


def pick(name: str, named: Sequence[tuple[AccountId, str, T]]) -> T:
    """The account that a person means by `name`: an id, a label, or the beginning of either that fits one alone.

    Args:
        named: id and label of each, and what it stands for.

    Raises:
        SettingsError: none fits, or several do; the message lists them.
    """
    for fits in (
        [each for each in named if name in each[:2]],
        [each for each in named if each[0].startswith(name) or each[1].lower().startswith(name.lower())],
    ):
        if len(fits) == 1:
            return fits[0][2]
        if fits:
            which = ", ".join(f"{account} ({label})" for account, label, _ in fits)
            raise SettingsError(f"{name!r} means several accounts: {which}. Name one by its id.")
    known = ", ".join(f"{account} ({label})" for account, label, _ in named) or "there are none yet"
    raise SettingsError(f"No account is called {name!r}. Known: {known}.")


_MEMBERS: Final = frozenset({"id", "kind", "place", "label", "enabled", "persons", "addedAt"})


def _read_entry(item: Mapping[str, object]) -> Entry:
    kind = next(kind for kind in (*KINDS, None) if kind == item["kind"] or kind is None)
    place, label, persons, added_at = item["place"], item.get("label"), item.get("persons"), item.get("addedAt")
    if kind is None or not isinstance(place, str):
        raise ValueError("no account")
    return Entry(
        id=account_id(kind, place),
        kind=kind,
        place=place,
        label=label if isinstance(label, str) and label else kind,
        enabled=item.get("enabled") is not False,
        persons=tuple(str(who) for who in persons) if isinstance(persons, list) else (),
        added_at=float(added_at) if isinstance(added_at, int | float) else 0.0,
        more={name: value for name, value in item.items() if name not in _MEMBERS},
    )


def _with_id(entries: Iterable[Entry], account: AccountId) -> Entry:
    for entry in entries:
        if entry.id == account:
            return entry
    raise SettingsError(f"The account {account} is not there any more.")


def _token(credential: Credential) -> Secret:
    return credential.refresh_token or credential.access_token


def _is_newer(one: Credential, other: Credential) -> bool:
    """Whether `one` is the younger sign-in. The same token is no older than itself."""
    return _token(one) == _token(other) or (one.expires_at or 0.0) > (other.expires_at or 0.0)


def _completed(credential: Credential, held: Credential) -> Credential:
    """`credential`, with what is known of the same account and does not end with a token."""
    whole = replace(
        credential,
        profile_arn=credential.profile_arn or held.profile_arn,
        api_region=credential.api_region or held.api_region,
        provider=credential.provider or held.provider,
        extra={**held.extra, **credential.extra},
    )
    if _token(credential) != _token(held):
        return whole
    fresh = credential if credential.valid_until() >= held.valid_until() else held
    registered = credential if credential.client_id else held
    return replace(
        whole,
        access_token=fresh.access_token,
        expires_at=fresh.expires_at,
        client_id=registered.client_id,
        client_secret=registered.client_secret,
        registration_expires_at=registered.registration_expires_at,
        start_url=credential.start_url or held.start_url,
    )


def _person(credential: Credential, who: str) -> str:
    """A digest that tells nothing, of a person at the service that the credential is for."""
    return hashlib.sha256("\0".join((*_service(credential), who.lower())).encode()).hexdigest()


def _service(credential: Credential) -> tuple[str, str, str]:
    """Where its person signs in."""
    start_url = BUILDER_ID_START_URL if is_builder_id(credential) else credential.start_url.rstrip("/")
    return credential.auth.value, credential.provider.lower() if not start_url else "", start_url
