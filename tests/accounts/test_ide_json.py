"""The IDE's files, as the IDE writes them (kiro-protocol.md section 5.5)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.sources.ide_json import IdeFile, profile_files, token_file
from kirostream.accounts.sources.source import StaleCredential
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import FileOps

REFRESH = "aor" + "x" * 229
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"
SOCIAL = {
    "accessToken": "aoaEXAMPLE",
    "refreshToken": REFRESH,
    "profileArn": ARN,
    "expiresAt": "2026-01-02T03:04:05.000Z",
    "authMethod": "social",
    "provider": "Google",
}
START_URL = "https://d-1234567890.awsapps.com/start"
HASH = hashlib.sha1(json.dumps({"startUrl": START_URL}, separators=(",", ":")).encode()).hexdigest()
IDC = {
    "accessToken": "aoaEXAMPLE",
    "refreshToken": REFRESH,
    "expiresAt": "2026-01-02T03:04:05.000Z",
    "clientIdHash": HASH,
    "authMethod": "IdC",
    "provider": "Enterprise",
    "region": "eu-west-1",
}
REGISTRATION = {
    "clientId": "EXAMPLECLIENT",
    "clientSecret": "eyJEXAMPLE",
    "expiresAt": "2026-03-30T00:00:00.000",
    "scopes": ["codewhisperer:completions"],
}


class Home:
    """A person's home folder with the IDE's files in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = token_file(home)
        self.path.parent.mkdir(parents=True)

    def write(self, record: object, *, indent: int | None = None) -> None:
        text = record if isinstance(record, str) else json.dumps(record, indent=indent, separators=(",", ":"))
        self.path.write_text(text)
        self.path.chmod(0o600)

    def write_registration(self, record: object = REGISTRATION, name: str = HASH) -> Path:
        path = self.path.parent / f"{name}.json"
        path.write_text(json.dumps(record))
        return path

    async def load(self, profile_arn: str = "", api_region: str = "") -> Credential:
        (credential,) = await IdeFile(
            self.path,
            home=self.home,
            profiles=profile_files({}, self.home, "linux"),
            profile_arn=profile_arn,
            api_region=api_region,
        ).load()
        return credential

    async def save(self, old: Credential, new: Credential, ops: FileOps | None = None) -> None:
        source = IdeFile(self.path, home=self.home, ops=ops) if ops else IdeFile(self.path, home=self.home)
        await source.save(old, new)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def test_a_social_token(home: Home) -> None:
    home.write(SOCIAL)
    assert await home.load() == Credential(
        auth=AuthMethod.SOCIAL,
        refresh_token=Secret(REFRESH),
        access_token=Secret("aoaEXAMPLE"),
        expires_at=1767323045.0,
        profile_arn=ARN,
        provider="Google",
    )


async def test_an_organisations_token_with_its_registration(home: Home) -> None:
    home.write(IDC)
    home.write_registration()
    credential = await home.load()
    assert credential.auth is AuthMethod.IDC
    assert credential.client_id == "EXAMPLECLIENT"
    assert credential.client_secret == Secret("eyJEXAMPLE")
    assert credential.region == "eu-west-1"
    assert credential.profile_arn == ""
    assert credential.provider == "Enterprise"


async def test_a_token_file_elsewhere_finds_its_registration_beside_it_or_in_the_usual_folder(
    home: Home, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "token.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps(IDC))
    home.write_registration()
    (credential,) = await IdeFile(elsewhere, home=home.home).load()
    assert credential.client_id == "EXAMPLECLIENT"
    (elsewhere.parent / f"{HASH}.json").write_text(json.dumps({**REGISTRATION, "clientId": "NEARER"}))
    (credential,) = await IdeFile(elsewhere, home=home.home).load()
    assert credential.client_id == "NEARER"


async def test_the_registration_of_a_token_that_names_only_its_start_url(home: Home) -> None:
    """Tools that copy the file leave ``clientIdHash`` out; it is a digest of the start URL."""
    home.write({**{name: value for name, value in IDC.items() if name != "clientIdHash"}, "startUrl": START_URL})
    home.write_registration()
    credential = await home.load()
    assert (credential.client_id, credential.client_secret) == ("EXAMPLECLIENT", Secret("eyJEXAMPLE"))
    assert credential.registration_expires_at == 1774828800


async def test_a_token_file_of_the_aws_cli_holds_its_registration_itself(home: Home) -> None:
    home.write(
        {
            "startUrl": START_URL,
            "region": "eu-west-1",
            "accessToken": "aoaEXAMPLE",
            "expiresAt": "2026-01-02T03:04:05UTC",
            "clientId": "CLI",
            "clientSecret": "eyJCLI",
            "registrationExpiresAt": "2026-03-30T00:00:00Z",
            "refreshToken": REFRESH,
        }
    )
    credential = await home.load()
    assert (credential.auth, credential.client_id, credential.region) == (AuthMethod.IDC, "CLI", "eu-west-1")
    assert (credential.start_url, credential.provider) == (START_URL, "")
    assert credential.expires_at == 1767323045
    assert credential.registration_expires_at == 1774828800


async def test_snake_case_unix_times_and_members_nobody_knows(home: Home) -> None:
    home.write(
        {"access_token": "a", "refresh_token": REFRESH, "expires_at": 1767323045000, "auth_method": "SOCIAL", "x": [1]}
    )
    credential = await home.load()
    assert credential.expires_at == 1767323045
    assert credential.extra == {"x": [1]}


@pytest.mark.parametrize(
    ("record", "auth"),
    [
        ({"refreshToken": REFRESH}, AuthMethod.SOCIAL),
        ({"refreshToken": REFRESH, "clientId": "c", "clientSecret": "s"}, AuthMethod.IDC),
        ({"refreshToken": REFRESH, "clientId": "c", "tokenEndpoint": "https://x/t"}, AuthMethod.EXTERNAL_IDP),
        ({"kiroApiKey": "ksk_1"}, AuthMethod.API_KEY),
        ({"accessToken": "ksk_1"}, AuthMethod.API_KEY),
    ],
)
async def test_the_method_is_seen_where_it_is_not_said(home: Home, record: dict[str, object], auth: AuthMethod) -> None:
    home.write(record)
    assert (await home.load()).auth is auth


async def test_the_profile_chosen_in_the_ide_counts_where_the_token_names_none(home: Home) -> None:
    chosen = home.home / ".config/Kiro/User/globalStorage/kiro.kiro-agent/profile.json"
    chosen.parent.mkdir(parents=True)
    chosen.write_text('{"arn":"arn:chosen","name":"x"}')
    home.write(IDC)
    home.write_registration()
    assert (await home.load()).profile_arn == "arn:chosen"
    chosen.write_text("{broken")
    assert (await home.load()).profile_arn == ""
    home.write(SOCIAL)
    assert (await home.load()).profile_arn == ARN
    assert (await home.load(profile_arn="arn:set", api_region="eu-central-1")).profile_arn == "arn:set"


def test_where_the_ide_keeps_its_things() -> None:
    home = Path("/home/me")
    assert token_file(home) == Path("/home/me/.aws/sso/cache/kiro-auth-token.json")
    linux, old = profile_files({}, home, "linux")
    assert linux == Path("/home/me/.config/Kiro/User/globalStorage/kiro.kiro-agent/profile.json")
    assert old.parent.name == "kiro.kiroagent"
    assert profile_files({"XDG_CONFIG_HOME": "/x"}, home, "linux")[0].is_relative_to("/x/Kiro")
    assert profile_files({}, home, "darwin")[0].is_relative_to("/home/me/Library/Application Support/Kiro")
    assert profile_files({"APPDATA": "/a"}, home, "win32")[0].is_relative_to("/a/Kiro")


# -- what is wrong is said, with what to do


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"refreshToken":\n"a",}', "is not valid JSON (line 2, column"),
        ("", "is not valid JSON (line 1"),
        ("[]", "holds a list"),
        ('"x"', "holds no object"),
        ("[" * 100_000, "is not JSON text"),
        ("{}", "neither a refreshToken nor an accessToken. Sign in again in the Kiro IDE"),
        ('{"refreshToken":"aorEXAMPLE..."}', "is shortened"),
        ('{"refreshToken":"aorEXAMPLE\u2026"}', "is shortened"),
        ('{"refreshToken":"a","authMethod":"pigeon"}', "says authMethod 'pigeon'"),
        (json.dumps({**IDC, "clientIdHash": ""}), "names no client registration (clientIdHash)"),
        (json.dumps({**IDC, "clientIdHash": "../../etc/passwd"}), "a clientIdHash that is no hash"),
        (json.dumps(IDC), f"{HASH}.json does not exist"),
    ],
)
async def test_a_token_file_that_cannot_be_used(home: Home, content: str, words: str) -> None:
    home.write(content)
    with pytest.raises(SettingsError) as caught:
        await home.load()
    assert words in caught.value.message
    assert str(home.path) in caught.value.message
    assert REFRESH not in caught.value.message


async def test_a_registration_that_cannot_be_used(home: Home) -> None:
    home.write(IDC)
    path = home.write_registration({"clientId": "x"})
    with pytest.raises(SettingsError, match="has no clientId or no clientSecret"):
        await home.load()
    path.write_text("{")
    with pytest.raises(SettingsError, match=r"the client registration .* is not valid JSON"):
        await home.load()


async def test_files_that_cannot_be_read(home: Home) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        await home.load()
    home.path.mkdir()
    with pytest.raises(StoreError, match="it is a folder"):
        await home.load()
    home.path.rmdir()
    home.path.write_bytes(b'{"refreshToken":"\xff"}')
    with pytest.raises(SettingsError, match="is not JSON text"):
        await home.load()
    home.path.chmod(0)
    if os.access(home.path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(StoreError, match="permission denied: give this user the right to read it"):
        await home.load()


# -- writing back


def renewed(old: Credential) -> Credential:
    return replace(old, access_token=Secret("aoaNEW"), refresh_token=Secret("aorNEW"), expires_at=1767326645.5)


@pytest.mark.parametrize("indent", [None, 2, 4])
async def test_writing_back_changes_the_tokens_and_nothing_else(home: Home, indent: int | None) -> None:
    record = {**SOCIAL, "theirs": {"ä": [1, 2.5, None]}, "refresh_token": REFRESH}
    home.write(record, indent=indent)
    before = home.path.read_text()
    old = await home.load()
    await home.save(old, renewed(old))
    after = home.path.read_text()
    assert json.loads(after) == {
        **record,
        "accessToken": "aoaNEW",
        "refreshToken": "aorNEW",
        "refresh_token": "aorNEW",
        "expiresAt": "2026-01-02T04:04:05.500Z",
    }
    assert list(json.loads(after)) == list(record)
    assert after.count("\n") == before.count("\n")
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o600
    assert (await home.load()) == replace(renewed(old), expires_at=1767326645.5)


async def test_writing_back_ends_in_a_line_break_where_there_was_one(home: Home) -> None:
    home.write(json.dumps(SOCIAL, indent="\t") + "\n")
    old = await home.load()
    await home.save(old, renewed(old))
    assert home.path.read_text().startswith('{\n\t"accessToken": "aoaNEW",')
    assert home.path.read_text().endswith("\n}\n")


async def test_a_profile_that_came_with_the_refresh_is_kept_and_one_that_was_set_is_not(home: Home) -> None:
    home.write({"refreshToken": REFRESH})
    old = await home.load()
    await home.save(old, replace(renewed(old), profile_arn=ARN))
    assert json.loads(home.path.read_text())["profileArn"] == ARN
    home.write({"refreshToken": REFRESH})
    old = await home.load(profile_arn="arn:set")
    await home.save(old, renewed(old))
    assert "profileArn" not in json.loads(home.path.read_text())


async def test_what_another_program_wrote_is_never_overwritten(home: Home) -> None:
    home.write(SOCIAL)
    old = await home.load()
    theirs = {**SOCIAL, "refreshToken": "aorTHEIRS"}
    home.write(theirs)
    with pytest.raises(StaleCredential):
        await home.save(old, renewed(old))
    assert json.loads(home.path.read_text()) == theirs


async def test_a_file_that_is_gone_stays_gone(home: Home) -> None:
    home.write(SOCIAL)
    old = await home.load()
    home.path.unlink()
    with pytest.raises(StoreError, match="does not exist"):
        await home.save(old, renewed(old))
    assert not home.path.exists()


class FullDisk(FileOps):
    def fsync(self, fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_leaves_the_old_file(home: Home) -> None:
    home.write(SOCIAL)
    old = await home.load()
    with pytest.raises(StoreError, match="the disk is full"):
        await home.save(old, renewed(old), FullDisk())
    assert json.loads(home.path.read_text()) == SOCIAL


def test_a_source_says_who_it_is() -> None:
    source = IdeFile(Path("/x/token.json"), home=Path("/home/me"))
    assert repr(source) == "<IdeFile /x/token.json>"
    assert source.describe() == "the Kiro IDE token file /x/token.json"
    assert source.place == "/x/token.json"
    assert "Sign in again in the Kiro IDE" in source.login
