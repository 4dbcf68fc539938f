"""Finding a credential: what was chosen first, then where the Kiro programs keep theirs.

A place somebody chose (argument, environment, settings) has to work: what is wrong with it is raised, never passed over
for another account. Then come the accounts that kirostream was given (`roster`), and where there are none, the usual
places. One of these that does not work is noted, and the next one is tried; when none is left, the notes are the
answer. Of the usual places only the first that works is used, where the person did not ask for all of them
(`every_sign_in`): what another program signed in to is not pooled unasked.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from kirostream.accounts.account import (
    DEFAULT_REGION,
    Account,
    AuthMethod,
    Credential,
    Secret,
    account_id,
    account_label,
)
from kirostream.accounts.devices import Devices
from kirostream.accounts.roster import Entry, Roster
from kirostream.accounts.sources.cli_sqlite import CliDatabase, database_files
from kirostream.accounts.sources.env import HeldToken
from kirostream.accounts.sources.fields import expand
from kirostream.accounts.sources.ide_json import IdeFile, profile_files, token_file
from kirostream.accounts.sources.shelf import Shelved
from kirostream.accounts.sources.source import SHORTEST_REFRESH_TOKEN, CredentialSource
from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sealed import SealedStore


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """Which credential is used. Empty: the accounts of kirostream, else those of the Kiro IDE, kiro-cli, amazon-q."""

    cli_db_file: str = field(default="", metadata={"help": "Database of kiro-cli.", "unit": "path"})
    creds_file: str = field(default="", metadata={"help": "Token file of the Kiro IDE.", "unit": "path"})
    refresh_token: str = field(
        default="",
        repr=False,
        metadata={"help": "Refresh token of a social sign-in; several with commas between them.", "secret": True},
    )
    api_key: str = field(
        default="",
        repr=False,
        metadata={"help": "API key (ksk_...); several with commas between them.", "secret": True},
    )
    every_sign_in: bool = field(
        default=False,
        metadata={"help": "Where no account was chosen or added: use every sign-in found here, not the first alone."},
    )
    profile_arn: str = field(default="", metadata={"help": "Profile ARN. Empty: what the credential says."})
    region: str = field(default="", metadata={"help": "Region of the sign-in, for a refresh token given here."})
    api_region: str = field(default="", metadata={"help": "Region of the API. Empty: what the credential says."})


VARIABLES: Mapping[str, str] = {
    "KIRO_CLI_DB_FILE": "cli_db_file",
    "KIRO_CREDS_FILE": "creds_file",
    "REFRESH_TOKEN": "refresh_token",
    "KIRO_API_KEY": "api_key",
    "PROFILE_ARN": "profile_arn",
    "KIRO_REGION": "region",
    "KIRO_API_REGION": "api_region",
}
"""Environment variables of the tools kirostream follows, and the fields of `AccountSettings` they mean."""


_NUMBERED: Final = re.compile(r"REFRESH_TOKEN_?(\d{1,4})")


def from_environment(env: Mapping[str, str]) -> AccountSettings:
    """What the environment chooses. Blank values choose nothing.

    Refresh tokens come from REFRESH_TOKEN, from REFRESH_TOKEN1, REFRESH_TOKEN2 and so on (gaps do not matter), and from
    KIRO_REFRESH_TOKENS; all of them together, in this order.
    """
    numbered = sorted((int(found[1]), name) for name in env if (found := _NUMBERED.fullmatch(name)))
    lists = [env.get(name, "") for name in ("REFRESH_TOKEN", *(name for _, name in numbered), "KIRO_REFRESH_TOKENS")]
    chosen: dict[str, Any] = {name: env.get(variable, "").strip() for variable, name in VARIABLES.items()}
    return AccountSettings(**{**chosen, "refresh_token": ",".join(_listed(",".join(lists)))})


def _listed(text: str) -> list[str]:
    """The parts between commas, each once."""
    return list(dict.fromkeys(part for each in text.split(",") if (part := each.strip().strip("\"'"))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An account, and where its credential lives. `notes` are remarks for a person, without secrets."""

    account: Account
    source: CredentialSource
    credential: Credential
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found, the preferred one first, and what every place that was looked at said.

    `trouble` is what the places said that are there and cannot be used, or are not: an account somebody may miss.
    """

    found: tuple[Found, ...]
    looked: tuple[str, ...]
    trouble: tuple[str, ...] = ()

    def require(self) -> Found:
        """The preferred account.

        Raises:
            SettingsError: there is none; the message says where it was looked for and how to get one.
        """
        if self.found:
            return self.found[0]
        raise SettingsError(self.explain(), reason="no_credential")

    def explain(self) -> str:
        """Where it was looked, and how to get a credential; several lines."""
        return "\n".join(
            [
                "No usable Kiro credential was found. Looked at:",
                *(f"  - {line}" for line in self.looked),
                "Get one in any of these ways, then start again:",
                "  - run: kirostream login",
                "  - or sign in with the Kiro IDE (https://kiro.dev) on this machine;",
                "  - or install kiro-cli and run: kiro-cli login",
                "  - or set KIRO_CREDS_FILE, KIRO_CLI_DB_FILE or REFRESH_TOKEN to a credential you have.",
            ]
        )


async def discover(
    *chosen: tuple[str, AccountSettings],
    env: Mapping[str, str],
    home: Path,
    data_dir: Path,
    platform: str = sys.platform,
    usual_places: bool = True,
    time_source: Callable[[], float] = time.time,
) -> Discovery:
    """Find credentials.

    Args:
        chosen: what people chose and where (``"the command line"``), the strongest first. The first that names a
            credential decides; profile and regions may come from any of them.
        env: the environment; used to find folders, nothing is chosen by it (see `from_environment`).
        home: the user's home folder.
        data_dir: our own: rotated tokens and device identities are kept there.
        platform: as `sys.platform`.
        usual_places: whether to look where the Kiro programs keep theirs if nothing was chosen.
        time_source: unix seconds.

    Raises:
        SettingsError, StoreError: what was chosen cannot be used; the message says why and what to do.
    """
    choices = [settings for _, settings in chosen]
    places = _Places(
        home=home,
        vault=SealedStore(data_dir / "sealed"),
        profile_arn=_first(choice.profile_arn for choice in choices),
        region=_first(choice.region for choice in choices) or DEFAULT_REGION,
        api_region=_first(choice.api_region for choice in choices),
    )
    devices = Devices(data_dir)
    looked = []
    for origin, settings in chosen:
        sources = places.chosen(origin, settings)
        if sources:
            found = [one for source in sources for one in await accounts_of(source, devices, time_source())]
            return Discovery(found=tuple(found), looked=tuple(f"{source.describe()}: usable" for source in sources))
        looked.append(f"{origin}: names no credential")
    every = any(choice.every_sign_in for choice in choices)
    everything: list[Found] = []
    trouble: list[str] = []
    candidates: list[tuple[Path | None, CredentialSource, str]]
    roster = Roster(data_dir, places.vault)
    entries = await roster.entries()
    if entries:  # they are what the person wants used: no other program is asked, whatever becomes of them
        looked += [f"{entry.label} ({entry.id}): disabled" for entry in entries if not entry.enabled]
        candidates = [(None, places.listed(roster, entry), entry.label) for entry in entries if entry.enabled]
    else:
        looked.append("the accounts of kirostream: there are none yet")
        candidates = [(path, source, "") for path, source in places.usual(env, platform)] if usual_places else []
    for path, source, label in candidates:
        try:
            if path is not None and not path.exists():
                looked.append(f"{source.describe()}: not there")
                continue
            if path is not None and everything and not every:
                looked.append(f"{source.describe()}: not used (account.every_sign_in, or: kirostream accounts add)")
                trouble.append(looked[-1])
                continue
            everything.extend(await accounts_of(source, devices, time_source(), label))
            looked.append(f"{source.describe()}: usable")
        except OSError as error:
            trouble.append(f"{source.describe()}: {error.strerror}")
            looked.append(trouble[-1])
        except (SettingsError, StoreError) as error:
            trouble.append(error.message)
            looked.append(trouble[-1])
    return Discovery(found=tuple(everything), looked=tuple(looked), trouble=tuple(trouble))


def _first(values: Iterable[str]) -> str:
    return next(filter(None, values), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Makes the sources, each with our sealed store beside it, out of what is common to them."""

    home: Path
    vault: SealedStore
    profile_arn: str
    region: str
    api_region: str

    def chosen(self, origin: str, settings: AccountSettings) -> list[CredentialSource]:
        """The sources that `settings` names: the database before the file before tokens before keys, as the older tools
        have it."""
        if settings.cli_db_file:
            return [self.database(expand(settings.cli_db_file, self.home))]
        if settings.creds_file:
            return [self.file(expand(settings.creds_file, self.home), ())]
        tokens, keys = _listed(settings.refresh_token), _listed(settings.api_key)
        if tokens:
            return [
                Shelved(HeldToken(self._given(token), origin=_one_of(origin, number, tokens)), self.vault)
                for number, token in enumerate(tokens, 1)
            ]
        return [
            HeldToken(
                Credential(
                    auth=AuthMethod.API_KEY,
                    access_token=Secret(key),
                    region=self.region,
                    api_region=self.api_region,
                ),
                origin=_one_of(origin, number, keys),
            )
            for number, key in enumerate(keys, 1)
        ]

    def _given(self, token: str) -> Credential:
        return Credential(
            auth=AuthMethod.SOCIAL,
            refresh_token=Secret(token),
            region=self.region,
            api_region=self.api_region,
            profile_arn=self.profile_arn,
        )

    def listed(self, roster: Roster, entry: Entry) -> CredentialSource:
        """The source of an account that kirostream was given. A profile that was set is not that of all of them."""
        if entry.kind == "ide":
            return replace(self, profile_arn="").file(Path(entry.place), ())
        if entry.kind == "cli":
            return replace(self, profile_arn="").database(Path(entry.place))
        return roster.source(entry, api_region=self.api_region)

    def usual(self, env: Mapping[str, str], platform: str) -> Iterator[tuple[Path, CredentialSource]]:
        """Where the Kiro programs keep theirs, in the order they are asked."""
        path = token_file(self.home)
        yield path, self.file(path, profile_files(env, self.home, platform))
        for path in database_files(env, self.home, platform):
            yield path, self.database(path)

    def file(self, path: Path, profiles: Sequence[Path]) -> CredentialSource:
        """A token file of the IDE."""
        source = IdeFile(
            path, home=self.home, profiles=profiles, profile_arn=self.profile_arn, api_region=self.api_region
        )
        return Shelved(source, self.vault)

    def database(self, path: Path) -> CredentialSource:
        """A database of kiro-cli."""
        return Shelved(CliDatabase(path, profile_arn=self.profile_arn, api_region=self.api_region), self.vault)


def _one_of(origin: str, number: int, all_of_them: Sequence[str]) -> str:
    return origin if len(all_of_them) == 1 else f"{origin} (number {number})"


async def accounts_of(source: CredentialSource, devices: Devices, now: float, label: str = "") -> tuple[Found, ...]:
    """Every account of a source whose token is good or can be refreshed, the preferred one first; at least one.

    Args:
        devices: where their device identities are kept.
        now: unix seconds.
        label: what people call it; empty: what the credential says.

    Raises:
        SettingsError, StoreError: there is none; the message says why and what to do.
    """
    found: list[Found] = []
    for credential in await source.load():
        if not credential.refresh_token and credential.valid_until() <= now:
            continue
        name = account_id(source.kind, source.place, credential.key)
        imported = credential.extra.get("machineId")
        account = Account(
            id=name,
            label=label or account_label(credential),
            auth=credential.auth,
            region=credential.region,
            api_region=credential.api_region,
            provider=credential.provider,
            machine_id=await devices.machine_id(name, imported if isinstance(imported, str) else ""),
            source=source.describe(),
        )
        found.append(
            Found(account=account, source=source, credential=credential, notes=_notes(source, credential, now))
        )
    if not found:
        raise SettingsError(
            f"{source.describe()} holds an expired access token and no refresh token, so it cannot be renewed."
            f" {source.login}"
        )
    return tuple(found)


def _notes(source: CredentialSource, credential: Credential, now: float) -> tuple[str, ...]:
    notes: list[str] = []
    length = len(credential.refresh_token.reveal())
    if 0 < length < SHORTEST_REFRESH_TOKEN:
        notes.append(f"the refresh token of {source.describe()} is unusually short ({length} characters); is it whole?")
    ends = credential.registration_expires_at
    if ends is not None and ends < now + _SOON:
        when = "has ended" if ends <= now else f"ends in {(ends - now) / 86400:.0f} days"
        notes.append(f"the client registration of {source.describe()} {when}. {source.login}")
    return tuple(notes)


_SOON: Final = 7 * 86400.0
"""Seconds before the end of a registration from which it is worth a remark."""
