"""A secret planted in every source, whole and damaged, is looked for in everything that is said of it."""

from __future__ import annotations

import json
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from helpers.tokens import NOW
from kirostream.accounts.account import Account, AccountId, AuthMethod, Credential, Secret
from kirostream.accounts.devices import Devices
from kirostream.accounts.discovery import accounts_of, from_environment
from kirostream.accounts.formats import FORMATS
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.oidc import Headers
from kirostream.accounts.roster import Roster
from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.env import HeldToken
from kirostream.accounts.sources.headers import read_headers
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.shelf import Shelved
from kirostream.accounts.sources.source import CredentialSource
from kirostream.errors import KirostreamError
from kirostream.stores.sealed import SealedStore

PLANT = "PLANTED"
REFRESH, ACCESS, SECRET = (f"{prefix}{PLANT}{'s' * 150}" for prefix in ("aor", "aoa", "eyJ"))
MEMBERS = {
    "refreshToken": REFRESH,
    "accessToken": ACCESS,
    "clientId": "client",
    "clientSecret": SECRET,
    "authMethod": "IdC",
    "email": f"{PLANT}@example.com",
}
DAMAGES: dict[str, Callable[[str], str]] = {
    "whole": lambda text: text,
    "cut": lambda text: text[: len(text) // 2],
    "broken": lambda text: text.replace('": "', '" oops "', 1),
    "list": lambda text: f"[{text}]",
    "shortened": lambda text: text.replace(REFRESH, REFRESH + "..."),
    "no method": lambda text: text.replace("IdC", "magic"),
    "no secret": lambda text: text.replace("clientSecret", "clientSecrets"),
    "nested": lambda text: text.replace(f'"{REFRESH}"', f'{{"{REFRESH}": 1}}'),
}


def ide(folder: Path, text: str) -> CredentialSource:
    (folder / "token.json").write_text(text)
    return IdeFile(folder / "token.json", home=folder)


def cli(folder: Path, text: str) -> CredentialSource:
    with closing(sqlite3.connect(folder / "data.sqlite3")) as db:
        db.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
        for key in ("kirocli:odic:token", "kirocli:odic:device-registration"):
            db.execute("INSERT INTO auth_kv VALUES (?, ?)", (key, text))
        db.commit()
    return CliDatabase(folder / "data.sqlite3")


def own(folder: Path, text: str) -> CredentialSource:
    vault = SealedStore(folder / "data" / "sealed")
    vault.put("account/record", text.encode())
    entry = {"kind": "own", "place": "record", "label": "mine"}
    (folder / "data" / "accounts.json").write_text(json.dumps({"accounts": [entry]}))
    roster = Roster(folder / "data", vault)
    return roster.source(roster._read()[0])


def held(folder: Path, text: str) -> CredentialSource:
    chosen = from_environment({"REFRESH_TOKEN": f"{REFRESH}..." if "..." in text else REFRESH})
    given = Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret(chosen.refresh_token))
    return Shelved(HeldToken(given, origin="the environment"), SealedStore(folder / "sealed"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("make", [ide, cli, own, held])
async def test_a_planted_secret_is_never_said(
    make: Callable[[Path, str], CredentialSource], damage: str, tmp_path: Path
) -> None:
    said: list[str] = []
    try:
        source = make(tmp_path, DAMAGES[damage](json.dumps(MEMBERS, indent=1)))
        said += [repr(source), source.describe(), source.login, source.place]
        for found in await accounts_of(source, Devices(tmp_path), NOW):
            said += [repr(found), repr(found.credential), repr(found.account), found.account.label, *found.notes]
            said.append(f"{found.credential.refresh_token} {found.credential.access_token!r}")
    except KirostreamError as error:
        said += [error.message, repr(error), "".join(traceback.format_exception(error))]
    assert said
    everything = "\n".join(said)
    assert PLANT not in everything.replace(f"{PLANT[:1]}***@example.com", ""), everything


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_planted_secret_is_never_said_of_a_file(name: str, damage: str) -> None:
    text = DAMAGES[damage](json.dumps(MEMBERS))
    said = ""
    shortened, card = f"REFRESH_TOKEN={REFRESH}...", f"a@b.c----{PLANT}----{REFRESH}----client----{SECRET}----{REFRESH}"
    for whole in (text, f"[{text}]", f'{{"accounts": [{text}]}}', shortened, card):
        try:
            read = FORMATS[name].read(whole)
            said += repr(read) + "".join(account.name for account in read.accounts) + "".join(read.trouble)
        except KirostreamError as error:
            said += "".join(traceback.format_exception(error))
    assert PLANT not in said, said


@pytest.mark.parametrize("name", ["refresh-token", "region", "auth-method", "profile-arn"])
def test_a_planted_secret_is_never_said_of_a_header(name: str) -> None:
    headers = [(b"x-kiro-refresh-token", REFRESH.encode()), (f"x-kiro-{name}".encode(), f"{PLANT}...".encode())]
    try:
        said = repr(read_headers(headers))
    except KirostreamError as error:
        said = "".join(traceback.format_exception(error))
    assert PLANT not in said


@pytest.mark.parametrize(
    "answer",
    [
        (400, json.dumps({"error": "invalid_grant"}).encode()),
        (500, b"<html>"),
        (200, json.dumps({"accessToken": ACCESS, "refreshToken": REFRESH + "2"}).encode()),
        (200, json.dumps({"refreshToken": REFRESH + "2"}).encode()),
    ],
)
async def test_a_planted_secret_is_never_said_of_a_refresh(answer: tuple[int, bytes], tmp_path: Path) -> None:
    source = ide(tmp_path, json.dumps(MEMBERS))
    (credential,) = await source.load()
    who = Account(id=AccountId("a"), label="someone", auth=credential.auth, machine_id="ab" * 32)
    said: list[str] = []

    async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        await trio.lowlevel.checkpoint()
        return answer

    keeper = TokenKeeper(post, time_source=lambda: NOW, on_failed=lambda name, error: said.append(repr(error)))
    keeper.add(who, source, credential)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        try:
            said.append(repr(await keeper.token(who)))
        except KirostreamError as error:
            said.append("".join(traceback.format_exception(error)))
        said += [repr(keeper), repr(keeper.snapshot())]
        nursery.cancel_scope.cancel()
    assert PLANT not in "\n".join(said)
