"""The database of kiro-cli, and of amazon-q before it (kiro-protocol.md section 5.5).

``auth_kv`` holds a token and its client registration as JSON under keys that changed over the years; ``state`` holds
what the person chose. A token is paired only with a registration of the same flow and region: with another one the
service refuses it. kiro-cli may be running, so everything is one short transaction with a busy timeout.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, Final

import trio

from kirostream.accounts.account import (
    BUILDER_ID_START_URL,
    DEFAULT_REGION,
    AuthMethod,
    Credential,
    Secret,
    read_expiry,
)
from kirostream.accounts.sources.fields import member, merged, parse_object, text, unknown, words
from kirostream.accounts.sources.source import StaleCredential, check_refresh_token
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import file_trouble

_BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for kiro-cli to finish its own write."""

_SOCIAL_KEY: Final = "kirocli:social:token"
_TOKEN_KEYS: Final = (_SOCIAL_KEY, "kirocli:odic:token", "kirocli:oidc:token", "codewhisperer:odic:token")
"""First match wins. ``odic`` is how the program spells it."""

_REGISTRATION_SUFFIX: Final = ":device-registration"


def database_files(env: Mapping[str, str], home: Path, platform: str = sys.platform) -> list[Path]:
    """Where kiro-cli, then amazon-q keep their database on this system."""
    share = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    if platform == "win32":
        folders = [Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local")]
    elif platform == "darwin":
        folders = [home / "Library" / "Application Support", share]  # the second: what some tools write there
    else:
        folders = [share]
    return [folder / name / "data.sqlite3" for name in ("kiro-cli", "amazon-q") for folder in folders]


class CliDatabase:
    """One database. It may hold a social and an OIDC sign-in at once: two credentials, told apart by their `key`.

    Args:
        profile_arn, api_region: an operator's choice; it wins over what the database says.
        busy_timeout: seconds.
    """

    kind: ClassVar[str] = "cli"

    def __init__(
        self, path: Path, *, profile_arn: str = "", api_region: str = "", busy_timeout: float = _BUSY_TIMEOUT
    ) -> None:
        self.path = path
        self._profile_arn = profile_arn
        self._api_region = api_region
        self._busy_timeout = busy_timeout

    def __repr__(self) -> str:
        return f"<CliDatabase {self.path}>"

    @property
    def _program(self) -> str:
        return "amazon-q" if self.path.parent.name == "amazon-q" else "kiro-cli"

    @property
    def place(self) -> str:
        """The database's absolute path."""
        return os.path.abspath(self.path)

    @property
    def login(self) -> str:
        """How to renew it."""
        command = "q login" if self._program == "amazon-q" else "kiro-cli login"
        return f"Run: {command} (it writes {self.path}, which is read again by itself)."

    def describe(self) -> str:
        """For people."""
        return f"the {self._program} database {self.path}"

    async def load(self) -> Sequence[Credential]:
        """Every sign-in in the database."""
        return await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)

    async def save(self, old: Credential, new: Credential) -> None:
        """Write the tokens of `new` into the row they came from."""
        await trio.to_thread.run_sync(self._save, old, new, abandon_on_cancel=True)

    # -- below: in a thread

    def _load(self) -> list[Credential]:
        rows, state = self._tables()
        found: list[Credential] = []
        trouble: SettingsError | None = None
        for key in _TOKEN_KEYS:
            if key not in rows:
                continue
            try:
                found.append(self._credential(key, rows, state))
            except SettingsError as error:  # a sign-in that cannot be used hides no other
                trouble = trouble or error
        if found:
            return found
        raise trouble or SettingsError(f"{self.describe()} holds no sign-in. {self.login}")

    def _tables(self) -> tuple[dict[str, str], dict[str, str]]:
        """``auth_kv`` and ``state``. Where a writer was killed, only one who may write can undo what it had begun."""
        try:
            with self._open("ro") as db:
                return _table(db, "auth_kv"), _table(db, "state")
        except StoreError as error:
            if not error.reason.startswith("SQLITE_READONLY"):
                raise
        with self._open("rw") as db:
            return _table(db, "auth_kv"), _table(db, "state")

    def _credential(self, key: str, rows: Mapping[str, str], state: Mapping[str, str]) -> Credential:
        where = f"{self.describe()} ({key})"
        record = parse_object(rows[key], where)
        refresh, access = Secret(text(record, "refresh_token")), Secret(text(record, "access_token"))
        if not refresh and not access:
            raise SettingsError(f"{where} holds neither a refresh token nor an access token. {self.login}")
        check_refresh_token(refresh, where)
        auth = AuthMethod.SOCIAL if key == _SOCIAL_KEY else AuthMethod.IDC
        region, start_url, provider = text(record, "region"), text(record, "start_url"), text(record, "provider")
        client_id, client_secret, ends = "", Secret(""), None
        arn = text(record, "profile_arn")
        if auth is AuthMethod.IDC:
            region = region or _json_text(state.get("auth.idc.region"))
            start_url = start_url or _json_text(state.get("auth.idc.start-url"))
            # The program leaves the URL out for a Builder ID.
            is_free = not start_url or start_url.rstrip("/") == BUILDER_ID_START_URL
            provider = provider or ("BuilderId" if is_free else "Enterprise")
            if refresh:
                client_id, client_secret, ends = self._registration(record, rows, where)
        if not arn and (auth is AuthMethod.IDC or not any(other in rows for other in _TOKEN_KEYS if other != key)):
            arn = _json_text(state.get("api.codewhisperer.profile"), "arn")
        return Credential(
            auth=auth,
            key=key,
            refresh_token=refresh,
            access_token=access,
            expires_at=read_expiry(member(record, "expires_at")),
            client_id=client_id,
            client_secret=client_secret,
            registration_expires_at=ends,
            region=region or DEFAULT_REGION,
            api_region=self._api_region or text(record, "api_region"),
            profile_arn=self._profile_arn or arn,
            start_url=start_url,
            provider=provider,
            scopes=words(record, "scopes"),
            extra=unknown(record),
        )

    def _registration(
        self, token: Mapping[str, object], rows: Mapping[str, str], where: str
    ) -> tuple[str, Secret, float | None]:
        """The registration of the same flow and region. What a side does not say, it does not contradict."""
        for key in _TOKEN_KEYS[1:]:
            value = rows.get(key.removesuffix(":token") + _REGISTRATION_SUFFIX)
            if value is None:
                continue
            record = parse_object(value, f"{self.describe()} ({key.removesuffix(':token')}{_REGISTRATION_SUFFIX})")
            said = [(text(token, name).lower(), text(record, name).lower()) for name in ("oauth_flow", "region")]
            if any(ours and theirs and ours != theirs for ours, theirs in said):
                continue
            client_id, client_secret = text(record, "client_id"), Secret(text(record, "client_secret"))
            if client_id and client_secret:
                return client_id, client_secret, read_expiry(member(record, "registration_expires_at"))
        raise SettingsError(f"{where} has no client registration of the same flow and region. {self.login}")

    def _save(self, old: Credential, new: Credential) -> None:
        with self._open("rw") as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                row = db.execute("SELECT value FROM auth_kv WHERE key = ?", (old.key,)).fetchone()
                record = parse_object(row[0], f"{self.describe()} ({old.key})") if row else {}
                if Secret(text(record, "refresh_token")) != old.refresh_token:
                    raise StaleCredential(f"{self.describe()} was written by another program meanwhile")
                value = json.dumps(merged(record, old, new, style="snake"), ensure_ascii=False, separators=(",", ":"))
                db.execute("UPDATE auth_kv SET value = ? WHERE key = ?", (value, old.key))
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A connection, with SQLite's errors worded for a person."""
        try:
            with open(self.path, "rb"):  # SQLite has one message for all that can go wrong with a file
                pass
        except OSError as error:
            raise file_trouble(self.path, "read", error) from error
        uri = f"{Path(os.path.abspath(self.path)).as_uri()}?mode={mode}"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=self._busy_timeout, isolation_level=None)) as db:
                yield db
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: sqlite3.Error) -> StoreError:
        said = str(error)
        if "locked" in said or "busy" in said:
            why = f"another program has locked it for {self._busy_timeout:g} s: try again when it has ended"
        elif "no such table" in said:
            why = f"it has no sign-in table: it is of another program, or nobody has signed in. {self.login}"
        elif "not a database" in said:
            why = f"it is not an SQLite database: check the path. {self.login}"
        elif "malformed" in said:
            why = f"it is damaged: restore it, or delete it. {self.login}"
        elif "readonly" in said or "unable to open" in said:
            why = "permission denied: give this user the right to read and write it and its folder"
        else:
            why = f"SQLite says: {said}"
        return StoreError(f"cannot use {self.describe()}: {why}", reason=getattr(error, "sqlite_errorname", ""))


def _table(db: sqlite3.Connection, name: str) -> dict[str, str]:
    """The two columns of a table as text; ``state`` may be missing in old databases, and its values may be blobs."""
    try:
        rows = db.execute(f"SELECT key, value FROM {name}").fetchall()  # noqa: S608 - one of two constants
    except sqlite3.OperationalError as error:
        if name == "state" and "no such table" in str(error):
            return {}
        raise
    return {
        str(key): value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for key, value in rows
        if value is not None
    }


def _json_text(value: str | None, name: str = "") -> str:
    """A JSON string, a bare one, or the member `name` of an object; else an empty string."""
    if value is None:
        return ""
    try:
        said = json.loads(value)
    except json.JSONDecodeError:
        said = value
    if isinstance(said, dict):
        said = said.get(name)
    return said.strip() if isinstance(said, str) else ""
