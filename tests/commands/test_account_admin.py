"""Accounts from the first sign-in to another program's file, against a simulator on a port."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from helpers.signin import Person, get
from kirostream.accounts.account import AccountId, AuthMethod, Credential, Secret
from kirostream.accounts.health import State
from kirostream.accounts.login import Task, builder_id, identity_center, social
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.commands.account_admin import AccountAdmin, open_account_admin
from kirostream.errors import SettingsError, StoreError, UpstreamDown
from kirostream.relay.management import Management
from kirostream.settings import DATABASE, Settings
from kirostream.simulator import upstream as simulator_upstream
from kirostream.simulator.upstream import Simulator
from kirostream.stores.sqlite import open_database


class Visitor(Person):
    """Opens the link of a device code as soon as it is shown."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who

    def show(self, task: Task) -> None:
        trio.lowlevel.spawn_system_task(get, f"{task.url}&as={self.who}")


@dataclass
class Place:
    """What the commands work with, the simulator behind it, and the folder it works in."""

    admin: AccountAdmin
    simulator: Simulator
    folder: Path

    async def given(self, who: str, label: str = "") -> str:
        """An account that was signed in to before."""
        kept = await self.admin.roster.keep(self.simulator.credential(who), persons=[who], label=label, now=0.0)
        return kept.entry.id

    async def log_in(self, who: str, template: Credential | None = None, label: str = "") -> str:
        done = await self.admin.log_in(template or social("google"), Visitor(who), browser=False, label=label)
        assert done.notes == ()
        return done.kept.entry.id


@asynccontextmanager
async def place(folder: Path, accounts: Mapping[str, object] | None = None) -> AsyncIterator[Place]:
    async with trio.open_nursery() as nursery:
        simulator, url = await nursery.start(simulator_upstream.serve)
        simulator.sign_ins.interval = 0.05
        base = Settings()
        settings = replace(
            base,
            kiro=replace(base.kiro, endpoint=url),
            pool=replace(base.pool, accounts=accounts or {}),
            keeper=replace(base.keeper, hosts=AuthHosts(social=url, oidc=url, portal=url)),
        )
        async with open_account_admin(settings, {"HOME": str(folder)}, folder / "data") as admin:
            yield Place(admin, simulator, folder)
        nursery.cancel_scope.cancel()


async def test_who_signs_in_again_is_the_same_account_with_the_same_device(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        ann = await at.log_in("ann")
        (before,) = await at.admin.find()
        bob = await at.log_in("bob")
        assert await at.log_in("ann") == ann != bob
        found = await at.admin.find()
        assert [each.account.id for each in found] == [ann, bob]
        assert found[0].account == before.account
        assert found[0].credential.refresh_token != before.credential.refresh_token
        assert found[0].account.machine_id != found[1].account.machine_id
        assert found[0].account.label == "a***@example.com (Google)"
        assert [model for model in await at.admin.models(found[0]) if model == "auto"]


async def test_an_organisations_profile_is_looked_up(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        await at.log_in("ann", identity_center("https://d-1.awsapps.com/start", "ap-southeast-1"))
        (found,) = await at.admin.find()
        assert found.credential.profile_arn.startswith("arn:aws:codewhisperer:us-east-1:111122223333:profile/")
        assert found.account.region == "ap-southeast-1"
        assert (await at.admin.usage(found)).plan == "KIRO PRO"


async def test_a_builder_id_of_whom_nothing_is_known_replaces_nobody_but_whom_it_is_called(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        first = await at.log_in("ann", builder_id())
        second = await at.admin.log_in(builder_id(), Visitor("bob"), browser=False)
        assert not second.kept.replaced
        (note,) = second.notes
        assert "kept beside BuilderId." in note
        assert [entry.label for entry in await at.admin.roster.entries()] == ["BuilderId", "BuilderId 2"]
        before = (await at.admin.find(first))[0].credential
        assert await at.log_in("ann", builder_id(), label="BuilderId") == first
        assert (await at.admin.find(first))[0].credential.refresh_token != before.refresh_token
        third = await at.admin.log_in(builder_id(), Visitor("cid"), browser=False, label="third")
        assert third.kept.entry.label == "third"
        assert await at.log_in("ann", label="BuilderId") not in (first, second.kept.entry.id)  # of another service
        assert len(await at.admin.roster.entries()) == 4
        assert (await at.admin.usage((await at.admin.find(first))[0])).allowances == ()


async def test_what_cannot_be_looked_up_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*arguments: object) -> str:
        raise UpstreamDown("no route")

    monkeypatch.setattr(Management, "profile", down)
    monkeypatch.setattr(Management, "usage", down)
    async with place(tmp_path) as at:
        template = identity_center("https://d-1.awsapps.com/start", "us-east-1")
        done = await at.admin.log_in(template, Visitor("ann"), browser=False)
        assert [note.partition(":")[0] for note in done.notes] == [
            "the profile could not be looked up",
            "who signed in could not be looked up",
        ]
        assert len(await at.admin.roster.entries()) == 1


async def test_a_refresh_writes_back_what_rotated(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        await at.given("ann")
        (found,) = await at.admin.find()
        token = await at.admin.refresh(found)
        assert token.access != found.credential.access_token
        assert (await at.admin.find())[0].credential.access_token == token.access


async def test_states_are_those_of_the_gateways_and_can_be_reset(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        ann = await at.given("ann")
        (found,) = await at.admin.find()
        assert await at.admin.states([found.account]) == {}, "no gateway has run yet"
        assert not (tmp_path / "data" / DATABASE).exists()
        async with open_database(tmp_path / "data" / DATABASE) as database:
            pool = Pool(PoolSettings(), SqlitePoolStore(database))
            pool.add(found.account)
            await pool.sync()
            await pool.disable(found.account.id, "suspended")
            assert (await at.admin.states([found.account]))[AccountId(ann)].state is State.DISABLED
            await at.admin.reset(found.account)
            await pool.sync()
            assert pool.snapshot().accounts[0].state is State.READY


async def test_an_account_is_asked_about_as_the_operator_has_it_addressed(tmp_path: Path) -> None:
    """Its region, and its own way out: a proxy that is not there is noticed."""
    accounts = {"Ann": {"region": "eu-central-1", "proxy": "http://127.0.0.1:9"}}
    async with place(tmp_path, accounts) as at:
        await at.given("ann", label="Ann")
        await at.given("bob", label="Bob")
        ann, bob = await at.admin.find()
        assert (ann.account.api_region, bob.account.api_region) == ("eu-central-1", "")
        assert (await at.admin.usage(bob)).plan == "KIRO PRO"
        with pytest.raises(UpstreamDown):
            await at.admin.usage(ann)


async def test_names_and_beginnings(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        ann, bob = await at.given("ann", label="Ann"), await at.given("bob", label="Bob")
        assert [(await at.admin.find(name))[0].account.id for name in ("Ann", "bo", ann[:9], bob)] == [
            ann,
            bob,
            ann,
            bob,
        ]
        with pytest.raises(SettingsError, match="several accounts"):
            await at.admin.find("own-")
        with pytest.raises(SettingsError, match=r"called 'carl'. Known: .*Ann"):
            await at.admin.find("carl")


async def test_nothing_to_use_says_where_it_was_looked_for(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        with pytest.raises(SettingsError, match="kirostream login"):
            await at.admin.find()


async def test_an_import_is_whole_and_done_once(tmp_path: Path) -> None:
    theirs = json.dumps(
        {
            "accounts": [
                {"refreshToken": "aor" + "1" * 200, "authMethod": "social", "provider": "Google", "email": "a@b.c"},
                {"refreshToken": "aor" + "2" * 200, "authMethod": "idc", "provider": "BuilderId"},
                {"refreshToken": "aor" + "3" * 200, "authMethod": "social", "nickname": "off", "enabled": False},
            ]
        }
    )
    async with place(tmp_path) as at:
        done = await at.admin.import_text(theirs)
        assert (done.format, len(done.added), len(done.replaced)) == ("kiro-go", 2, 0)
        assert "entry 2" in done.trouble[0]
        assert [entry.enabled for entry in await at.admin.roster.entries()] == [True, False]
        again = await at.admin.import_text(theirs)
        assert (len(again.added), len(again.replaced)) == (0, 2)
        with pytest.raises(SettingsError, match="no format 'magic'"):
            await at.admin.import_text(theirs, "magic")


async def test_places_of_other_programs_are_taken_over_as_places(tmp_path: Path) -> None:
    token = tmp_path / "token.json"
    token.write_text(json.dumps({"refreshToken": "aor" + "1" * 200, "authMethod": "social"}))
    listed = json.dumps([{"type": "json", "path": str(token)}, {"type": "json", "path": "/no/such"}])
    async with place(tmp_path) as at:
        done = await at.admin.import_text(listed)
        assert [entry.place for entry in done.added] == [str(token)]
        assert "/no/such" in done.trouble[0]
        (found,) = await at.admin.find()
        assert found.source.kind == "ide"
        with pytest.raises(StoreError, match="does not exist"):
            await at.admin.add_place("cli", "~/none.sqlite3")


async def test_a_secret_that_is_given(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        kept = await at.admin.add_secret(" ksk_1\n", api_key=True, region="eu-central-1", label="key")
        (found,) = await at.admin.find(kept.entry.id)
        assert found.credential == Credential(
            auth=AuthMethod.API_KEY, access_token=Secret("ksk_1"), region="eu-central-1"
        )
        for secret in ("", " \n"):
            with pytest.raises(SettingsError, match="Nothing was given"):
                await at.admin.add_secret(secret, api_key=True, region="us-east-1")
        with pytest.raises(SettingsError, match="shortened"):
            await at.admin.add_secret("aorEXAMPLE...", api_key=False, region="us-east-1")


async def test_a_sync_says_what_it_does_and_does_it_once(tmp_path: Path) -> None:
    """As the seeds' script: enabled accounts of ours go into another program's file; the rest of it stays."""
    target = tmp_path / ".env"
    target.write_text("PROXY_API_KEY=mine\nKIRO_REFRESH_TOKENS=aorGONE\n")
    async with place(tmp_path) as at:
        await at.given("ann", label="Ann")
        off = await at.given("bob", label="Bob")
        await at.admin.roster.enable((await at.admin.roster.find(off)).id, False)
        await at.admin.add_secret("ksk_1", api_key=True, region="us-east-1", label="Carl")
        change = await at.admin.plan_sync("", target)
        assert (change.added, len(change.removed), change.unchanged) == (("Ann",), 1, 0)
        assert change.left_out[0].startswith("Carl: ")
        assert "aor" not in repr(change)
        assert target.read_text().endswith("aorGONE\n"), "a plan changes nothing"
        await at.admin.write(target, change.text)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        (found,) = await at.admin.find("Ann")
        token = found.credential.refresh_token.reveal()
        assert target.read_text() == f"PROXY_API_KEY=mine\nKIRO_REFRESH_TOKENS={token}\n"
        assert not (await at.admin.plan_sync("env", target)).changes


async def test_a_sync_into_accounts_of_another_program(tmp_path: Path) -> None:
    target = tmp_path / "config.json"
    async with place(tmp_path) as at:
        await at.given("ann", label="Ann")
        with pytest.raises(SettingsError, match="say with --format"):
            await at.admin.plan_sync("", target)
        change = await at.admin.plan_sync("kiro-go", target)
        await at.admin.write(target, change.text)
        value = json.loads(target.read_text())
        value["password"] = "admin"
        value["accounts"][0]["weight"] = 7
        target.write_text(json.dumps(value))
        assert not (await at.admin.plan_sync("", target)).changes
        await at.admin.refresh((await at.admin.find("Ann"))[0])
        change = await at.admin.plan_sync("", target)
        assert (change.updated, change.added, change.removed) == (("Ann",), (), ())
        written = json.loads(change.text)
        assert (written["password"], written["accounts"][0]["weight"]) == ("admin", 7)


async def test_a_sync_from_one_program_into_another(tmp_path: Path) -> None:
    source, target = tmp_path / "config.json", tmp_path / ".env"
    accounts = [
        {"refreshToken": "aor" + number * 200, "authMethod": "social", "enabled": number != "2"} for number in "123"
    ]
    source.write_text(json.dumps({"password": "x", "accounts": accounts}))
    async with place(tmp_path) as at:
        change = await at.admin.plan_sync("", target, source)
        assert change.text == f"KIRO_REFRESH_TOKENS=aor{'1' * 200},aor{'3' * 200}\n"
        with pytest.raises(SettingsError, match="does not exist"):
            await at.admin.plan_sync("", target, tmp_path / "none")
        target.write_bytes(b"\xff\xfe")
        with pytest.raises(SettingsError, match="not UTF-8"):
            await at.admin.plan_sync("", target, source)


@pytest.mark.parametrize("token", ["ksk_with a space", "ksk_\u00fcber", "ksk_two\nlines", "ksk_\x00"])
async def test_what_no_header_can_hold_is_no_token(tmp_path: Path, token: str) -> None:
    async with place(tmp_path) as at:
        with pytest.raises(SettingsError, match="Paste it again"):
            await at.admin.add_secret(token, api_key=True, region="us-east-1")
        assert await at.admin.roster.entries() == ()
