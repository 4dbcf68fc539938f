"""A rotated token whose own place cannot take it is kept sealed, and forgotten when somebody logs in again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from helpers.tokens import NOW, TokenService, keep, social
from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.sources import SOURCES
from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.sources.env import HeldToken
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.own import OwnAccount
from kirostream.accounts.sources.shelf import Shelved
from kirostream.accounts.sources.source import CredentialSource, StaleCredential
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import FileOps
from kirostream.stores.sealed import SealedStore


class ReadOnly(FileOps):
    """A file system mounted read-only, as long as it is told so."""

    def __init__(self) -> None:
        self.read_only = True

    def replace(self, old: str, new: str) -> None:
        if self.read_only:
            raise OSError(30, "Read-only file system")
        super().replace(old, new)


@pytest.fixture
def vault(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "data" / "sealed")


def given_token(text: str = "aor-0", origin: str = "REFRESH_TOKEN in the environment") -> HeldToken:
    return HeldToken(
        Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret(text), profile_arn="arn:set"), origin=origin
    )


async def newest(source: CredentialSource) -> Credential:
    (credential,) = await source.load()
    return credential


async def test_a_given_token_goes_on_with_its_newest_form_after_a_restart(vault: SealedStore) -> None:
    source = Shelved(given_token(), vault)
    old = await newest(source)
    await source.save(old, replace(old, refresh_token=Secret("aor-1"), access_token=Secret("aoa-1"), expires_at=5.0))
    restarted = Shelved(given_token(), vault)
    new = await newest(restarted)
    assert (new.refresh_token, new.access_token, new.expires_at) == (Secret("aor-1"), Secret("aoa-1"), 5.0)
    assert new.profile_arn == "arn:set"
    await restarted.save(new, replace(new, refresh_token=Secret("aor-2")))
    assert (await newest(Shelved(given_token(), vault))).refresh_token == Secret("aor-2")
    assert restarted.place == source.place
    with pytest.raises(StaleCredential):
        await source.save(old, replace(old, refresh_token=Secret("aor-late")))
    assert (await newest(Shelved(given_token("aor-other"), vault))).refresh_token == Secret("aor-other")


async def test_a_file_that_cannot_be_written_has_its_tokens_on_the_shelf_until_it_can(
    tmp_path: Path, vault: SealedStore
) -> None:
    path, ops = tmp_path / "token.json", ReadOnly()

    def write(refresh: str, access: str, left: float) -> None:
        path.write_text(json.dumps({"refreshToken": refresh, "accessToken": access, "expiresAt": NOW + left}))

    def stored() -> object:
        return json.loads(path.read_text())["refreshToken"]

    write("aor-0", "aoa-0", 10)
    source = Shelved(IdeFile(path, home=tmp_path, ops=ops), vault)
    first = await newest(source)
    second = replace(first, refresh_token=Secret("aor-1"), access_token=Secret("aoa-1"), expires_at=NOW + 20)
    await source.save(first, second)
    assert stored() == "aor-0"
    assert await newest(source) == second
    ops.read_only = False
    third = replace(second, refresh_token=Secret("aor-2"))
    await source.save(second, third)
    assert stored() == "aor-2"
    assert await newest(source) == third
    write("aor-0", "aoa-0", 10)  # an old backup: nothing is left on the shelf for it
    assert (await newest(source)).refresh_token == Secret("aor-0")


async def test_a_new_login_passes_over_what_is_on_the_shelf(tmp_path: Path, vault: SealedStore) -> None:
    origin = DirectSource(social())
    failing = Shelved(given_token(), vault)
    old = await newest(failing)
    await failing.save(old, replace(old, refresh_token=Secret("aor-1")))
    origin.credential = social(refresh="aor-login")
    assert (await newest(Shelved(origin, vault))).refresh_token == Secret("aor-login")


async def test_an_access_token_that_another_program_renewed_is_taken_if_it_lasts_longer(vault: SealedStore) -> None:
    """The refresh token did not rotate: the place and the shelf hold the same one."""
    origin = given_token()
    old = await newest(origin)
    await Shelved(origin, vault).save(old, replace(old, access_token=Secret("aoa-shelf"), expires_at=NOW + 50))
    sooner = DirectSource(replace(old, access_token=Secret("aoa-ide"), expires_at=NOW + 40))
    later = DirectSource(replace(old, access_token=Secret("aoa-ide"), expires_at=NOW + 60))
    assert (await newest(Shelved(sooner, vault))).access_token == Secret("aoa-shelf")
    assert (await newest(Shelved(later, vault))).access_token == Secret("aoa-ide")


async def test_a_shelf_that_cannot_be_read_is_told() -> None:
    source = Shelved(given_token(), SealedStore(Path(__file__, "sealed")))
    old = social(refresh="aor-0")
    with pytest.raises(StoreError, match="not a folder"):
        await source.save(old, old)


class FullVault(SealedStore):
    def put(self, name: str, data: bytes) -> None:
        raise StoreError("cannot write /data: the disk is full", reason="ENOSPC")


async def test_a_full_shelf_says_both_reasons(tmp_path: Path) -> None:
    source = Shelved(given_token(), FullVault(tmp_path))
    old = await newest(source)
    with pytest.raises(StoreError, match="cannot be written back; and cannot write /data: the disk is full"):
        await source.save(old, old)


def tamper(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


async def test_a_record_that_was_tampered_with_is_told(vault: SealedStore) -> None:
    source = Shelved(given_token(), vault)
    old = await newest(source)
    await source.save(old, old)
    tamper(vault.path_of(f"refresh-token/{old.refresh_token.digest()}"))
    with pytest.raises(StoreError, match="cannot unseal"):
        await source.load()
    vault.put(f"refresh-token/{old.refresh_token.digest()}", b"{}")
    with pytest.raises(SettingsError, match="holds no token"):
        await source.load()


async def test_a_sign_in_that_is_gone_is_stale(vault: SealedStore) -> None:
    with pytest.raises(StaleCredential):
        await Shelved(DirectSource(social()), vault).save(replace(social(), key="other"), social())


async def test_the_keeper_uses_it_like_any_source(vault: SealedStore, nursery: trio.Nursery) -> None:
    service = TokenService()
    source = Shelved(given_token(), vault)
    kept = await keep(nursery, await newest(source), service, source=source)
    assert await kept.access() == "aoa-1"
    assert not kept.keeper.snapshot().tokens[0].unsaved
    assert (await newest(Shelved(given_token(), vault))).refresh_token == Secret("aor-1")


def test_shortened_tokens_are_refused() -> None:
    with pytest.raises(SettingsError, match="the refresh token in the environment is shortened"):
        given_token("aorEXAMPLE...", "the environment")


# -- every source in the table


def make(kind: str, folder: Path) -> CredentialSource:
    """A source of each kind that holds the same sign-in."""
    held = Credential(
        auth=AuthMethod.SOCIAL, refresh_token=Secret("aor-0"), access_token=Secret("aoa-0"), expires_at=NOW
    )
    members = {"refresh_token": "aor-0", "access_token": "aoa-0", "expires_at": NOW}
    if kind == "ide":
        (folder / "token.json").write_text(json.dumps(members))
        return IdeFile(folder / "token.json", home=folder)
    if kind == "cli":
        with closing(sqlite3.connect(folder / "data.sqlite3")) as db:
            db.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
            db.execute("INSERT INTO auth_kv VALUES ('kirocli:social:token', ?)", (json.dumps(members),))
            db.commit()
        return CliDatabase(folder / "data.sqlite3")
    if kind == "token":
        return HeldToken(held, origin="the environment")
    if kind == "own":
        own = OwnAccount("record", SealedStore(folder / "own"), folder / "accounts.lock")
        own.write(held)
        return own
    assert kind == "direct"
    return DirectSource(held)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("beside", [False, True], ids=["bare", "shelved"])
async def test_every_source_keeps_the_contract(kind: str, beside: bool, tmp_path: Path, vault: SealedStore) -> None:
    """Load gives the credential; save swaps it once, refuses the second of two, and hides every secret."""
    source = make(kind, tmp_path)
    assert type(source) is SOURCES[kind]
    assert source.kind == kind
    if beside:
        source = Shelved(source, vault)
    elif kind == "token":
        with pytest.raises(StoreError, match="cannot be written back"):
            await source.save(await newest(source), await newest(source))
        return
    old = await newest(source)
    assert (old.refresh_token, old.access_token, old.expires_at) == (Secret("aor-0"), Secret("aoa-0"), NOW)
    place = source.place
    new = replace(old, refresh_token=Secret("aor-1"), access_token=Secret("aoa-1"), expires_at=NOW + 3600)
    await source.save(old, new)
    assert await newest(source) == new
    with pytest.raises(StaleCredential):
        await source.save(old, replace(old, refresh_token=Secret("aor-2")))
    assert await newest(source) == new
    assert source.place == place
    for shown in (repr(source), source.describe(), source.place, source.login, source.kind):
        assert "aor-" not in shown
    assert source.login.endswith(".")
