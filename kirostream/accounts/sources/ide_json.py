"""The token file of the Kiro IDE, and the client registration beside it (kiro-protocol.md section 5.5).

A token file of the AWS CLI's SSO cache, which holds its registration itself, is read in the same way.

The IDE watches the file and writes it too. Reading takes three files at most: the token; for OIDC the registration
named by ``clientIdHash``; and, where the token names no profile, the one the person chose in the IDE. Writing touches
the token file alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import trio

from kirostream.accounts.account import AuthMethod, Credential, Secret, read_expiry
from kirostream.accounts.sources.fields import member, merged, parse_object, render_like, text, unknown, words
from kirostream.accounts.sources.record import read_method
from kirostream.accounts.sources.source import StaleCredential, check_refresh_token
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import OS, FileOps, atomic_write, read_file

_CACHE: Final = Path(".aws", "sso", "cache")
_HASH: Final = re.compile(r"[0-9A-Za-z_-]{1,128}")


def token_file(home: Path) -> Path:
    """Where the IDE keeps its token, on every system."""
    return home / _CACHE / "kiro-auth-token.json"


def profile_files(env: Mapping[str, str], home: Path, platform: str = sys.platform) -> list[Path]:
    """Where the IDE keeps the profile the person chose."""
    if platform == "win32":
        data = Path(env.get("APPDATA") or home / "AppData" / "Roaming") / "Kiro"
    elif platform == "darwin":
        data = home / "Library" / "Application Support" / "Kiro"
    else:
        data = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "Kiro"
    storage = data / "User" / "globalStorage"
    return [storage / name / "profile.json" for name in ("kiro.kiro-agent", "kiro.kiroagent")]


class IdeFile:
    """One token file.

    Args:
        path: the token file.
        home: whose ``~/.aws/sso/cache`` is searched for a registration that is not beside the token file.
        profiles: files that may name the profile; give them only where `path` is the IDE's own file, since they belong
            to the person signed in there.
        profile_arn, api_region: an operator's choice; it wins over what the files say.
    """

    kind: ClassVar[str] = "ide"

    def __init__(
        self,
        path: Path,
        *,
        home: Path,
        profiles: Sequence[Path] = (),
        profile_arn: str = "",
        api_region: str = "",
        ops: FileOps = OS,
    ) -> None:
        self.path = path
        self._home = home
        self._profiles = profiles
        self._profile_arn = profile_arn
        self._api_region = api_region
        self._ops = ops

    def __repr__(self) -> str:
        return f"<IdeFile {self.path}>"

    @property
    def place(self) -> str:
        """The file's absolute path."""
        return os.path.abspath(self.path)

    @property
    def login(self) -> str:
        """How to renew it."""
        return f"Sign in again in the Kiro IDE; it writes {self.path}, which is read again by itself."

    def describe(self) -> str:
        """For people."""
        return f"the Kiro IDE token file {self.path}"

    async def load(self) -> Sequence[Credential]:
        """The one credential of the file."""
        return [await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)]

    async def save(self, old: Credential, new: Credential) -> None:
        """Write the tokens of `new` into the file."""
        await trio.to_thread.run_sync(self._save, old, new, abandon_on_cancel=True)

    def _load(self) -> Credential:
        record = parse_object(read_file(self.path), self.describe())
        refresh = Secret(text(record, "refresh_token"))
        access = Secret(text(record, "access_token") or text(record, "api_key"))
        if not refresh and not access:
            raise SettingsError(f"{self.describe()} holds neither a refreshToken nor an accessToken. {self.login}")
        check_refresh_token(refresh, self.describe())
        auth = read_method(record, self.describe(), self.login)
        client_id, client_secret = text(record, "client_id"), Secret(text(record, "client_secret"))
        ends = read_expiry(member(record, "registration_expires_at"))
        if auth is AuthMethod.IDC and refresh and not (client_id and client_secret):
            name = text(record, "client_id_hash") or _hash_of(text(record, "start_url"))
            client_id, client_secret, ends = self._registration(name)
        return Credential(
            auth=auth,
            refresh_token=refresh if auth is not AuthMethod.API_KEY else Secret(""),
            access_token=access,
            expires_at=read_expiry(member(record, "expires_at")) if auth is not AuthMethod.API_KEY else None,
            client_id=client_id,
            client_secret=client_secret,
            registration_expires_at=ends,
            region=text(record, "region") or "us-east-1",
            api_region=self._api_region or text(record, "api_region"),
            profile_arn=self._profile_arn or text(record, "profile_arn") or self._chosen_profile(),
            start_url=text(record, "start_url"),
            provider=text(record, "provider"),
            token_endpoint=text(record, "token_endpoint"),
            scopes=words(record, "scopes"),
            extra=unknown(record),
        )

    def _registration(self, name: str) -> tuple[str, Secret, float | None]:
        """Client id, secret and their end from the registration file, beside the token file or in the usual folder."""
        if not name:
            raise SettingsError(
                f"{self.describe()} is of an IdC sign-in but names no client registration (clientIdHash). {self.login}"
            )
        if not _HASH.fullmatch(name):  # it becomes a file's name
            raise SettingsError(f"{self.describe()} has a clientIdHash that is no hash. {self.login}")
        places = [folder / f"{name}.json" for folder in dict.fromkeys((self.path.parent, self._home / _CACHE))]
        path = next((place for place in places if os.path.exists(place)), None)
        if path is None:
            raise SettingsError(
                f"the client registration that {self.describe()} belongs to is missing: {places[0]} does not exist."
                f" Copy it there from the machine you signed in on, or: {self.login}"
            )
        record = parse_object(read_file(path), f"the client registration {path}")
        client_id, client_secret = text(record, "client_id"), Secret(text(record, "client_secret"))
        if not client_id or not client_secret:
            raise SettingsError(f"the client registration {path} has no clientId or no clientSecret. {self.login}")
        return client_id, client_secret, read_expiry(member(record, "expires_at"))

    def _chosen_profile(self) -> str:
        for path in self._profiles:
            try:
                record = parse_object(read_file(path), str(path))
            except (StoreError, SettingsError):  # a convenience of the IDE, not ours to complain about
                continue
            arn = record.get("arn")
            if isinstance(arn, str) and arn.startswith("arn:"):
                return arn
        return ""

    def _save(self, old: Credential, new: Credential) -> None:
        before = read_file(self.path)
        record = parse_object(before, self.describe())
        if Secret(text(record, "refresh_token")) != old.refresh_token:
            raise StaleCredential(f"{self.describe()} was written by another program meanwhile")
        after = render_like(merged(record, old, new, style="camel"), before.decode())
        atomic_write(self.path, after.encode(), ops=self._ops)


def _hash_of(start_url: str) -> str:
    """The name of the registration for a start URL, where the token does not name one."""
    if not start_url:
        return ""
    said = json.dumps({"startUrl": start_url}, separators=(",", ":")).encode()
    return hashlib.sha1(said, usedforsecurity=False).hexdigest()
