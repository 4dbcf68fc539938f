"""The right credential is found, and where none is, the message says where it was looked for and what to do."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.discovery import AccountSettings, Discovery, discover, from_environment
from kirostream.accounts.roster import Roster
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sealed import SealedStore

REFRESH = "aor" + "x" * 229
NOW = 1_767_225_600.0


class Machine:
    """A person's machine: a home folder with whatever programs are installed."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.data = folder / "data"

    def ide(self, **members: object) -> Path:
        path = self.home / ".aws/sso/cache/kiro-auth-token.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"refreshToken": REFRESH, "authMethod": "social", "provider": "Google", **members}))
        return path

    def cli(self, program: str = "kiro-cli", **members: object) -> Path:
        path = self.home / ".local/share" / program / "data.sqlite3"
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
            token = {"refresh_token": REFRESH, "provider": program, **members}
            db.execute("INSERT INTO auth_kv VALUES ('kirocli:social:token', ?)", (json.dumps(token),))
            db.commit()
        return path

    async def look(self, *chosen: tuple[str, AccountSettings], usual_places: bool = True) -> Discovery:
        return await discover(
            *chosen,
            env={},
            home=self.home,
            data_dir=self.data,
            platform="linux",
            usual_places=usual_places,
            time_source=lambda: NOW,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_the_programs_are_asked_in_order(machine: Machine) -> None:
    machine.cli("amazon-q")
    assert (await machine.look()).require().credential.provider == "amazon-q"
    machine.cli("kiro-cli")
    assert (await machine.look()).require().credential.provider == "kiro-cli"
    machine.ide()
    discovery = await machine.look(("the settings", AccountSettings(every_sign_in=True)))
    assert [found.credential.provider for found in discovery.found] == ["Google", "kiro-cli", "amazon-q"]
    assert len({found.account.machine_id for found in discovery.found}) == 3


async def test_what_is_chosen_comes_first_and_the_strongest_choice_before_all(machine: Machine, tmp_path: Path) -> None:
    machine.ide()
    path = machine.cli()
    weaker = ("the settings", AccountSettings(refresh_token="r" * 200))
    stronger = ("the environment", from_environment({"KIRO_CLI_DB_FILE": f" {path} ", "REFRESH_TOKEN": ""}))
    strongest = ("the command line", AccountSettings(creds_file="~/.aws/sso/cache/kiro-auth-token.json"))
    assert (await machine.look(weaker)).require().credential.refresh_token == Secret("r" * 200)
    assert (await machine.look(stronger, weaker)).require().credential.provider == "kiro-cli"
    assert (await machine.look(strongest, stronger, weaker)).require().credential.provider == "Google"
    nothing = ("the command line", AccountSettings())
    assert (await machine.look(nothing, weaker)).require().credential.refresh_token == Secret("r" * 200)


async def test_an_account_is_the_same_after_a_restart_and_a_rotation(machine: Machine) -> None:
    machine.ide()
    first = (await machine.look()).require().account
    machine.ide(refreshToken=REFRESH + "2")
    assert (await machine.look()).require().account == first
    assert first.id.startswith("ide-")
    assert first.label == "Google"
    assert len(first.machine_id) == 64


async def test_a_token_in_the_environment(machine: Machine) -> None:
    env = {
        "REFRESH_TOKEN": REFRESH,
        "PROFILE_ARN": "arn:set",
        "KIRO_REGION": "eu-west-1",
        "KIRO_API_REGION": "eu-central-1",
    }
    found = (await machine.look(("the environment", from_environment(env)))).require()
    assert found.credential.auth is AuthMethod.SOCIAL
    assert found.credential.profile_arn == "arn:set"
    assert (found.account.region, found.account.api_region) == ("eu-west-1", "eu-central-1")
    assert REFRESH not in repr(found)
    assert found.notes == ()


async def test_an_api_key(machine: Machine) -> None:
    found = (await machine.look(("the environment", from_environment({"KIRO_API_KEY": "ksk_1"})))).require()
    assert found.account.auth is AuthMethod.API_KEY
    assert found.credential.access_token == Secret("ksk_1")
    assert "ksk" not in repr(found)


async def test_a_machine_id_that_came_with_the_credential_is_kept(machine: Machine) -> None:
    machine.ide(machineId="AB" * 32)
    assert (await machine.look()).require().account.machine_id == "ab" * 32


async def test_a_profile_and_a_region_that_are_set_count_for_what_is_found(machine: Machine) -> None:
    machine.ide()
    settings = AccountSettings(profile_arn="arn:set", api_region="eu-central-1")
    found = (await machine.look(("the settings", settings))).require()
    assert found.credential.profile_arn == "arn:set"
    assert found.account.api_region == "eu-central-1"


async def test_a_short_token_is_worth_a_remark(machine: Machine) -> None:
    machine.ide(refreshToken="aor-short")
    (note,) = (await machine.look()).require().notes
    assert "unusually short (9 characters)" in note


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (AccountSettings(creds_file="/no/such.json"), StoreError, "cannot read /no/such.json: it does not exist"),
        (AccountSettings(cli_db_file="~/no.db"), StoreError, "no.db: it does not exist"),
        (AccountSettings(refresh_token="aorEXAMPLE..."), SettingsError, "is shortened"),
    ],
)
async def test_a_choice_that_does_not_work_is_told_and_not_passed_over(
    machine: Machine, settings: AccountSettings, error: type[Exception], words: str
) -> None:
    machine.ide()
    with pytest.raises(error, match=words):
        await machine.look(("the settings", settings))


async def test_a_usual_place_that_does_not_work_is_noted_and_passed_over(machine: Machine) -> None:
    path = machine.ide()
    path.write_text("{broken")
    machine.cli()
    discovery = await machine.look()
    assert discovery.require().credential.provider == "kiro-cli"
    assert any("is not valid JSON (line 1, column 2" in line for line in discovery.looked)


async def test_an_ended_token_that_cannot_be_renewed_is_no_credential(machine: Machine) -> None:
    machine.ide(refreshToken="", accessToken="aoaEXAMPLE", expiresAt="2025-12-31T23:59:59Z")
    with pytest.raises(SettingsError, match="an expired access token and no refresh token"):
        (await machine.look()).require()
    machine.ide(refreshToken="", accessToken="aoaEXAMPLE", expiresAt="2026-01-01T01:00:00Z")
    assert (await machine.look()).require().credential.access_token == Secret("aoaEXAMPLE")


async def test_nothing_says_where_it_was_looked_for_and_how_to_get_one(machine: Machine) -> None:
    discovery = await machine.look(("the environment", AccountSettings()))
    with pytest.raises(SettingsError) as caught:
        discovery.require()
    assert caught.value.message == "\n".join(
        [
            "No usable Kiro credential was found. Looked at:",
            "  - the environment: names no credential",
            "  - the accounts of kirostream: there are none yet",
            f"  - the Kiro IDE token file {machine.home}/.aws/sso/cache/kiro-auth-token.json: not there",
            f"  - the kiro-cli database {machine.home}/.local/share/kiro-cli/data.sqlite3: not there",
            f"  - the amazon-q database {machine.home}/.local/share/amazon-q/data.sqlite3: not there",
            "Get one in any of these ways, then start again:",
            "  - run: kirostream login",
            "  - or sign in with the Kiro IDE (https://kiro.dev) on this machine;",
            "  - or install kiro-cli and run: kiro-cli login",
            "  - or set KIRO_CREDS_FILE, KIRO_CLI_DB_FILE or REFRESH_TOKEN to a credential you have.",
        ]
    )
    assert not machine.data.exists()


async def test_other_programs_files_are_left_alone_where_that_is_wanted(machine: Machine) -> None:
    machine.ide()
    discovery = await machine.look(("the settings", AccountSettings()), usual_places=False)
    assert discovery.found == ()
    assert discovery.looked == (
        "the settings: names no credential",
        "the accounts of kirostream: there are none yet",
    )


async def test_the_sign_ins_of_other_programs_are_not_pooled_unasked(machine: Machine) -> None:
    machine.ide()
    machine.cli()
    discovery = await machine.look()
    assert [found.source.kind for found in discovery.found] == ["ide"]
    (said,) = discovery.trouble
    assert "not used (account.every_sign_in" in said
    asked = await machine.look(("the settings", AccountSettings(every_sign_in=True)))
    assert [found.source.kind for found in asked.found] == ["ide", "cli"]
    assert asked.trouble == ()


async def test_refresh_tokens_in_a_list_and_by_number(machine: Machine) -> None:
    env = {
        "REFRESH_TOKEN": f"{REFRESH}a, {REFRESH}b,",
        "REFRESH_TOKEN10": f"{REFRESH}e",
        "REFRESH_TOKEN2": f"{REFRESH}d",
        "REFRESH_TOKEN_1": f'"{REFRESH}c"',
        "REFRESH_TOKENS": "another program's",
        "KIRO_REFRESH_TOKENS": f"{REFRESH}a,{REFRESH}f",
        "KIRO_REGION": "eu-west-1",
    }
    settings = from_environment(env)
    assert REFRESH not in repr(settings)
    discovery = await machine.look(("the environment", settings))
    assert [found.credential.refresh_token.reveal()[-1] for found in discovery.found] == list("abcdef")
    assert len({found.account.id for found in discovery.found}) == 6
    assert len({found.account.machine_id for found in discovery.found}) == 6
    assert {found.account.region for found in discovery.found} == {"eu-west-1"}
    assert "the environment (number 2)" in discovery.found[1].source.describe()
    assert REFRESH not in repr(discovery)


async def test_api_keys_in_a_list(machine: Machine) -> None:
    discovery = await machine.look(("the environment", from_environment({"KIRO_API_KEY": "ksk_1, ksk_2"})))
    assert [found.credential.access_token for found in discovery.found] == [Secret("ksk_1"), Secret("ksk_2")]


async def test_accounts_of_our_own_come_before_the_usual_places(machine: Machine) -> None:
    machine.ide()
    roster = Roster(machine.data, SealedStore(machine.data / "sealed"))
    google = Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret(REFRESH + "1"), provider="Google")
    first = (await roster.keep(google, label="ann", now=NOW)).entry
    second = (await roster.refer("cli", machine.cli(), label="the terminal", now=NOW)).entry
    discovery = await machine.look(("the settings", AccountSettings(profile_arn="arn:of:another")))
    assert [(found.account.label, found.source.kind) for found in discovery.found] == [
        ("ann", "own"),
        ("the terminal", "cli"),
    ]
    assert discovery.found[0].account.id == first.id
    assert {found.credential.profile_arn for found in discovery.found} == {""}
    await roster.enable(first.id, False)
    discovery = await machine.look()
    assert [found.account.label for found in discovery.found] == ["the terminal"]
    assert f"ann ({first.id}): disabled" in discovery.looked
    await roster.enable(second.id, False)
    assert (await machine.look()).found == ()  # not the IDE's: nobody asked for it


async def test_an_account_of_ours_that_does_not_work_hides_no_other(machine: Machine) -> None:
    roster = Roster(machine.data, SealedStore(machine.data / "sealed"))
    await roster.refer("ide", machine.home / "gone.json", now=NOW)
    google = Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret(REFRESH), provider="Google")
    await roster.keep(google, label="ann", now=NOW)
    discovery = await machine.look()
    assert [found.account.label for found in discovery.found] == ["ann"]
    assert "gone.json: it does not exist" in discovery.trouble[0]


@pytest.mark.parametrize(("days", "said"), [(3, "ends in 3 days"), (-1, "has ended"), (30, "")])
async def test_a_registration_that_ends_soon_is_worth_a_remark(machine: Machine, days: int, said: str) -> None:
    roster = Roster(machine.data, SealedStore(machine.data / "sealed"))
    credential = Credential(
        auth=AuthMethod.IDC,
        refresh_token=Secret(REFRESH),
        client_id="c",
        client_secret=Secret("s"),
        registration_expires_at=NOW + days * 86400,
        provider="BuilderId",
    )
    await roster.keep(credential, now=NOW)
    notes = " ".join((await machine.look()).require().notes)
    assert said in notes
    assert ("kirostream login --builder-id" in notes) == bool(said)
