"""Databases of kiro-cli and amazon-q, as the programs write them (kiro-protocol.md section 5.5)."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.sources.cli_sqlite import CliDatabase, database_files
from kirostream.accounts.sources.source import StaleCredential
from kirostream.errors import SettingsError, StoreError

REFRESH = "aor" + "x" * 229
SOCIAL = {
    "access_token": "aoaSOCIAL",
    "refresh_token": REFRESH,
    "expires_at": "2026-01-02T03:04:05.123456789Z",
    "provider": "google",
    "profile_arn": "arn:social",
}
OIDC = {
    "access_token": "aoaOIDC",
    "refresh_token": REFRESH,
    "expires_at": "2026-01-02T03:04:05.123456789Z",
    "region": "eu-west-1",
    "start_url": "https://d-1234567890.awsapps.com/start",
    "oauth_flow": "DeviceCode",
    "scopes": ["codewhisperer:completions"],
}
REGISTRATION = {
    "client_id": "CLIENT",
    "client_secret": "eyJEXAMPLE",
    "client_secret_expires_at": "2026-03-30T00:00:00Z",
    "region": "eu-west-1",
    "oauth_flow": "DeviceCode",
    "scopes": ["codewhisperer:completions"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "kiro-cli"
    folder.mkdir()
    return folder / "data.sqlite3"


def write(path: Path, rows: Mapping[str, object], state: Mapping[str, object] | None = None) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS auth_kv (key TEXT PRIMARY KEY, value TEXT)")
        for key, value in rows.items():
            text = value if isinstance(value, str) else json.dumps(value)
            db.execute("INSERT OR REPLACE INTO auth_kv VALUES (?, ?)", (key, text))
        if state is not None:
            db.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB)")
            for key, value in state.items():
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
        db.commit()


def read(path: Path, key: str) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as db:
        found: dict[str, object] = json.loads(
            db.execute("SELECT value FROM auth_kv WHERE key = ?", (key,)).fetchone()[0]
        )
        return found


def path_with(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def load(path: Path) -> list[Credential]:
    return list(await CliDatabase(path, busy_timeout=0.05).load())


async def test_a_social_sign_in(path: Path) -> None:
    write(path, {"kirocli:social:token": SOCIAL})
    assert await load(path) == [
        Credential(
            auth=AuthMethod.SOCIAL,
            key="kirocli:social:token",
            refresh_token=Secret(REFRESH),
            access_token=Secret("aoaSOCIAL"),
            expires_at=1767323045.123456,
            profile_arn="arn:social",
            provider="google",
        )
    ]


@pytest.mark.parametrize("prefix", ["kirocli:odic", "kirocli:oidc", "codewhisperer:odic"])
async def test_an_oidc_sign_in_under_every_key(path: Path, prefix: str) -> None:
    write(path, {f"{prefix}:token": OIDC, f"{prefix}:device-registration": REGISTRATION})
    (credential,) = await load(path)
    assert credential.auth is AuthMethod.IDC
    assert credential.key == f"{prefix}:token"
    assert (credential.client_id, credential.client_secret) == ("CLIENT", Secret("eyJEXAMPLE"))
    assert credential.region == "eu-west-1"
    assert credential.provider == "Enterprise"
    assert credential.scopes == ("codewhisperer:completions",)


async def test_two_sign_ins_are_two_credentials_the_social_one_first(path: Path) -> None:
    write(
        path,
        {"kirocli:odic:token": OIDC, "kirocli:odic:device-registration": REGISTRATION, "kirocli:social:token": SOCIAL},
    )
    assert [credential.key for credential in await load(path)] == ["kirocli:social:token", "kirocli:odic:token"]


async def test_a_sign_in_that_cannot_be_used_hides_no_other(path: Path) -> None:
    write(
        path,
        {"kirocli:social:token": "{}", "kirocli:odic:token": OIDC, "kirocli:odic:device-registration": REGISTRATION},
    )
    assert [credential.key for credential in await load(path)] == ["kirocli:odic:token"]


async def test_what_the_token_does_not_say_the_state_table_does(path: Path) -> None:
    token = {"access_token": "a", "refresh_token": REFRESH, "expires_at": 1767323045}
    rows = {"kirocli:odic:token": token, "kirocli:odic:device-registration": {"client_id": "c", "client_secret": "s"}}
    write(
        path,
        rows,
        {
            "api.codewhisperer.profile": b'{"arn":"arn:state","profile_name":"x"}',
            "auth.idc.region": '"ap-southeast-2"',
            "auth.idc.start-url": b'"https://d-1.awsapps.com/start"',
        },
    )
    (credential,) = await load(path)
    assert credential.profile_arn == "arn:state"
    assert credential.region == "ap-southeast-2"
    assert credential.start_url == "https://d-1.awsapps.com/start"
    assert credential.provider == "Enterprise"
    write(path, {}, {"api.codewhisperer.profile": "arn:bare"})
    (credential,) = await load(path)
    assert credential.profile_arn == "arn:bare"


@pytest.mark.parametrize("start_url", [None, "https://view.awsapps.com/start"])
async def test_a_builder_id_is_recognised(path: Path, start_url: str | None) -> None:
    token = {**OIDC, "start_url": start_url, "region": "us-east-1"}
    write(
        path, {"kirocli:odic:token": token, "kirocli:odic:device-registration": {**REGISTRATION, "region": "us-east-1"}}
    )
    assert (await load(path))[0].provider == "BuilderId"


@pytest.mark.parametrize(
    ("registration", "pairs"),
    [
        (REGISTRATION, True),
        ({**REGISTRATION, "oauth_flow": "Pkce"}, False),
        ({**REGISTRATION, "region": "us-east-1"}, False),
        ({**REGISTRATION, "oauth_flow": None}, True),
        ({**REGISTRATION, "oauth_flow": "devicecode"}, True),
        ({**REGISTRATION, "client_secret": ""}, False),
    ],
)
async def test_a_token_is_paired_with_a_registration_of_its_flow_and_region(
    path: Path, registration: dict[str, object], pairs: bool
) -> None:
    write(path, {"kirocli:odic:token": OIDC, "kirocli:odic:device-registration": registration})
    if pairs:
        assert (await load(path))[0].client_id == "CLIENT"
    else:
        with pytest.raises(
            SettingsError, match=r"no client registration of the same flow and region. Run: kiro-cli login"
        ):
            await load(path)


async def test_the_registration_that_fits_is_taken(path: Path) -> None:
    write(
        path,
        {
            "kirocli:odic:token": OIDC,
            "kirocli:odic:device-registration": {**REGISTRATION, "oauth_flow": "Pkce", "client_id": "WRONG"},
            "codewhisperer:odic:device-registration": REGISTRATION,
        },
    )
    assert (await load(path))[0].client_id == "CLIENT"


def test_where_the_databases_are() -> None:
    home = Path("/home/me")
    assert database_files({}, home, "linux") == [
        Path("/home/me/.local/share/kiro-cli/data.sqlite3"),
        Path("/home/me/.local/share/amazon-q/data.sqlite3"),
    ]
    assert database_files({"XDG_DATA_HOME": "/x"}, home, "linux")[0] == Path("/x/kiro-cli/data.sqlite3")
    assert database_files({}, home, "darwin")[0] == Path("/home/me/Library/Application Support/kiro-cli/data.sqlite3")
    assert database_files({"LOCALAPPDATA": "/l"}, home, "win32")[0] == Path("/l/kiro-cli/data.sqlite3")


# -- what is wrong is said, with what to do


async def test_no_database(path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        await load(path)


async def test_not_a_database(path: Path) -> None:
    path_with(path, b"this is a text file, and a long one " * 100)
    with pytest.raises(StoreError, match="it is not an SQLite database: check the path"):
        await load(path)


async def test_another_programs_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE x (y)")
    with pytest.raises(StoreError, match="it has no sign-in table"):
        await load(path)


async def test_nobody_has_signed_in(path: Path) -> None:
    write(path, {"something:else": "1"})
    with pytest.raises(SettingsError, match=r"holds no sign-in. Run: kiro-cli login"):
        await load(path)


async def test_a_row_that_is_no_json(path: Path) -> None:
    write(path, {"kirocli:social:token": "{broken"})
    with pytest.raises(SettingsError, match=r"\(kirocli:social:token\) is not valid JSON"):
        await load(path)


async def test_a_legacy_database_names_its_own_login(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "amazon-q")
    path = tmp_path / "amazon-q" / "data.sqlite3"
    write(path, {})
    with pytest.raises(SettingsError, match=r"the amazon-q database .* Run: q login"):
        await load(path)


async def test_a_locked_database(path: Path) -> None:
    write(path, {"kirocli:social:token": SOCIAL})
    (old,) = await load(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"another program has locked it for 0.05 s"):
            await load(path)
        with pytest.raises(StoreError, match="another program has locked it"):
            await CliDatabase(path, busy_timeout=0.05).save(old, renewed(old))
        other.execute("ROLLBACK")
    assert read(path, old.key) == SOCIAL


async def test_a_database_that_may_not_be_read(path: Path) -> None:
    write(path, {})
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(StoreError, match="permission denied"):
        await load(path)


# -- writing back


def renewed(old: Credential) -> Credential:
    return replace(old, access_token=Secret("aoaNEW"), refresh_token=Secret("aorNEW"), expires_at=1767326645.5)


async def test_writing_back_merges_into_the_row(path: Path) -> None:
    rows = {
        "kirocli:odic:token": {**OIDC, "theirs": [1]},
        "kirocli:odic:device-registration": REGISTRATION,
        "kirocli:social:token": SOCIAL,
    }
    write(path, rows)
    _, old = await load(path)
    await CliDatabase(path).save(old, renewed(old))
    assert read(path, "kirocli:odic:token") == {
        **OIDC,
        "theirs": [1],
        "access_token": "aoaNEW",
        "refresh_token": "aorNEW",
        "expires_at": "2026-01-02T04:04:05.500000000Z",
    }
    assert read(path, "kirocli:social:token") == SOCIAL
    assert read(path, "kirocli:odic:device-registration") == REGISTRATION
    assert (await load(path))[1] == renewed(old)


async def test_what_kiro_cli_wrote_meanwhile_is_never_overwritten(path: Path) -> None:
    write(path, {"kirocli:social:token": SOCIAL})
    (old,) = await load(path)
    theirs = {**SOCIAL, "refresh_token": "aorTHEIRS"}
    write(path, {"kirocli:social:token": theirs})
    with pytest.raises(StaleCredential):
        await CliDatabase(path).save(old, renewed(old))
    assert read(path, old.key) == theirs


async def test_a_row_that_is_gone_stays_gone(path: Path) -> None:
    write(path, {"kirocli:social:token": SOCIAL})
    (old,) = await load(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM auth_kv")
        db.commit()
    with pytest.raises(StaleCredential):
        await CliDatabase(path).save(old, renewed(old))


async def test_a_path_with_characters_that_mean_something_in_a_url(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20é"
    folder.mkdir()
    write(folder / "data.sqlite3", {"kirocli:social:token": SOCIAL})
    (old,) = await load(folder / "data.sqlite3")
    await CliDatabase(folder / "data.sqlite3").save(old, renewed(old))
    assert (await load(folder / "data.sqlite3"))[0].refresh_token == Secret("aorNEW")


def test_a_source_says_who_it_is() -> None:
    source = CliDatabase(Path("/x/kiro-cli/data.sqlite3"))
    assert repr(source) == "<CliDatabase /x/kiro-cli/data.sqlite3>"
    assert source.describe() == "the kiro-cli database /x/kiro-cli/data.sqlite3"
    assert source.place == "/x/kiro-cli/data.sqlite3"
