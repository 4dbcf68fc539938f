"""The accounts kirostream was given are kept whole, once each, and show no secret."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from helpers.cancel import every_checkpoint
from kirostream.accounts.account import AuthMethod, Credential, Secret, account_id
from kirostream.accounts.roster import Kept, Roster
from kirostream.accounts.sources.record import read_credential, write_credential
from kirostream.accounts.sources.source import StaleCredential
from kirostream.errors import SettingsError, StoreError
from kirostream.stores.sealed import SealedStore

NOW = 1_767_225_600.0
SECRETS = ("aorSECRET", "aoaSECRET", "eyJSECRET")
BUILDER = Credential(
    auth=AuthMethod.IDC,
    refresh_token=Secret("aorSECRET"),
    access_token=Secret("aoaSECRET"),
    expires_at=NOW + 3600,
    client_id="CLIENT",
    client_secret=Secret("eyJSECRET"),
    registration_expires_at=NOW + 90 * 86400,
    start_url="https://view.awsapps.com/start",
    provider="BuilderId",
    profile_arn="arn:aws:codewhisperer:us-east-1:1:profile/X",
    extra={"email": "ann@example.com", "kept": {"as": "it is"}},
)
OTHER = replace(BUILDER, refresh_token=Secret("other"))
GOOGLE = Credential(
    auth=AuthMethod.SOCIAL, refresh_token=Secret("aorGOOGLE"), access_token=Secret("aoaG"), provider="Google"
)


def roster(folder: Path) -> Roster:
    return Roster(folder / "data", SealedStore(folder / "data" / "sealed"))


async def test_what_is_kept_comes_back_as_one_unit(tmp_path: Path) -> None:
    kept = await roster(tmp_path).keep(BUILDER, persons=["user-1"], now=NOW)
    assert not kept.replaced
    (entry,) = await roster(tmp_path).entries()
    assert entry == kept.entry
    assert entry.label == "a***@example.com (BuilderId)"
    source = roster(tmp_path).source(entry)
    assert account_id(source.kind, source.place) == entry.id
    (credential,) = await source.load()
    assert credential == BUILDER
    assert credential.extra == BUILDER.extra
    assert source.login == "Run: kirostream login --builder-id (as the same person; it replaces the old sign-in)."


async def test_nothing_secret_is_readable(tmp_path: Path) -> None:
    held = roster(tmp_path)
    kept = await held.keep(BUILDER, persons=["user-1", "ann@example.com"], now=NOW)
    source = held.source(kept.entry)
    shown = repr((held, kept, source, await source.load())) + source.describe() + source.login
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            shown += path.read_bytes().decode("latin-1")
    for secret in (*SECRETS, "user-1", "ann@example.com"):
        assert secret not in shown


async def test_the_same_person_is_replaced_and_keeps_id_and_label(tmp_path: Path) -> None:
    held = roster(tmp_path)
    first = await held.keep(BUILDER, persons=["user-1", "ann@example.com"], label="work", now=NOW)
    again = replace(BUILDER, refresh_token=Secret("aorNEW"), client_id="CLIENT-2")
    second = await held.keep(again, persons=["", "Ann@Example.com"], now=NOW + 9)
    assert second.replaced
    assert (second.entry.id, second.entry.label) == (first.entry.id, "work")
    assert len(await held.entries()) == 1
    assert await held.source(second.entry).load() == [again]


async def test_a_poorer_copy_of_the_same_token_takes_nothing_away(tmp_path: Path) -> None:
    """A list of refresh tokens says nothing else; what was known of the account stays."""
    held = roster(tmp_path)
    entry = (await held.keep(BUILDER, persons=["user-1"], now=NOW)).entry
    bare = Credential(auth=AuthMethod.IDC, refresh_token=BUILDER.refresh_token, provider="BuilderId")
    assert (await held.keep(bare, only_newer=True, now=NOW)) == Kept(entry, True)
    assert await held.source(entry).load() == [BUILDER]
    assert (await held.source(entry).load())[0].extra == BUILDER.extra


async def test_an_older_sign_in_does_not_replace_a_newer_one_by_an_import(tmp_path: Path) -> None:
    held = roster(tmp_path)
    entry = (await held.keep(BUILDER, persons=["user-1"], now=NOW)).entry
    for at in (NOW + 3599, None):
        older = replace(OTHER, expires_at=at)
        assert (await held.keep(older, persons=["user-1"], only_newer=True, now=NOW)) == Kept(entry, True, older=True)
    assert await held.source(entry).load() == [BUILDER]
    newer = replace(OTHER, expires_at=NOW + 3601, profile_arn="", client_id="CLIENT-2")
    assert not (await held.keep(newer, persons=["user-1"], only_newer=True, now=NOW)).older
    (now_held,) = await held.source(entry).load()
    assert (now_held.refresh_token, now_held.client_id) == (OTHER.refresh_token, "CLIENT-2")
    assert now_held.profile_arn == BUILDER.profile_arn


@pytest.mark.parametrize(
    ("credential", "persons"),
    [
        (OTHER, ["user-2"]),
        (
            replace(BUILDER, refresh_token=Secret("other"), provider="", start_url="https://d-1.awsapps.com/start"),
            ["user-1"],
        ),
        (replace(GOOGLE, provider="Github"), ["user-1"]),
        (GOOGLE, ["user-1"]),
        (OTHER, []),
    ],
)
async def test_another_person_or_service_is_another_account(
    tmp_path: Path, credential: Credential, persons: list[str]
) -> None:
    held = roster(tmp_path)
    await held.keep(BUILDER, persons=["user-1"], now=NOW)
    assert not (await held.keep(credential, persons=persons, now=NOW)).replaced
    assert len({entry.id for entry in await held.entries()}) == 2
    assert len({entry.label for entry in await held.entries()}) == 2


async def test_a_token_that_is_known_is_the_same_account(tmp_path: Path) -> None:
    """An import says nothing of who it was: the token does."""
    held = roster(tmp_path)
    await held.keep(GOOGLE, now=NOW)
    assert (await held.keep(GOOGLE, now=NOW)).replaced
    assert (await held.keep(GOOGLE, persons=["ann"], now=NOW)).replaced
    assert (await held.keep(replace(GOOGLE, refresh_token=Secret("next")), persons=["ann"], now=NOW)).replaced
    key = Credential(auth=AuthMethod.API_KEY, access_token=Secret("ksk_1"))
    assert not (await held.keep(key, now=NOW)).replaced
    assert (await held.keep(key, now=NOW)).replaced
    assert len(await held.entries()) == 2


async def test_a_save_compares_before_it_swaps(tmp_path: Path) -> None:
    held = roster(tmp_path)
    source = held.source((await held.keep(GOOGLE, now=NOW)).entry)
    rotated = replace(GOOGLE, refresh_token=Secret("aor-1"))
    await source.save(GOOGLE, rotated)
    assert await source.load() == [rotated]
    with pytest.raises(StaleCredential):
        await source.save(GOOGLE, replace(GOOGLE, refresh_token=Secret("aor-2")))
    assert await source.load() == [rotated]


async def test_enable_remove_and_find(tmp_path: Path) -> None:
    held = roster(tmp_path)
    ann = (await held.keep(BUILDER, persons=["1"], label="ann", now=NOW)).entry
    bob = (await held.keep(GOOGLE, label="bob", now=NOW)).entry
    assert await held.find("ann") == ann
    assert await held.find("BO") == bob
    assert await held.find(bob.id[:10]) == bob
    with pytest.raises(SettingsError, match=r"several accounts: .*ann.*bob"):
        await held.find("own-")
    with pytest.raises(SettingsError, match=r"No account is called 'carl'. Known: .*\(ann\)"):
        await held.find("carl")
    assert not (await held.enable(ann.id, False)).enabled
    assert not (await held.find("ann")).enabled
    await held.remove(ann.id)
    assert await held.entries() == (bob,)
    with pytest.raises(SettingsError, match="holds no sign-in any more"):
        await held.source(ann).load()
    with pytest.raises(SettingsError, match="not there any more"):
        await held.remove(ann.id)


async def test_a_place_of_another_program_is_named_once(tmp_path: Path) -> None:
    held = roster(tmp_path)
    first = await held.refer("ide", tmp_path / "token.json", now=NOW)
    assert (await held.refer("ide", tmp_path / "token.json", now=NOW)).replaced
    assert first.entry.id == account_id("ide", str(tmp_path / "token.json"))
    second = await held.refer("ide", tmp_path / "other.json", now=NOW)
    assert (first.entry.label, second.entry.label) == ("Kiro IDE", "Kiro IDE 2")


async def test_what_others_wrote_into_the_list_stays(tmp_path: Path) -> None:
    held = roster(tmp_path)
    entry = (await held.keep(GOOGLE, now=NOW)).entry
    path = tmp_path / "data" / "accounts.json"
    said = json.loads(path.read_text())
    said["accounts"][0]["theirs"] = 1
    path.write_text(json.dumps(said))
    await held.enable(entry.id, False)
    assert json.loads(path.read_text())["accounts"][0]["theirs"] == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"accounts":[1]}', '{"accounts":[{"kind":"x","place":"y"}]}'])
async def test_a_damaged_list_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accounts.json").write_text(content)
    with pytest.raises(StoreError, match="restore it from a backup, or delete it"):
        await roster(tmp_path).entries()
    with pytest.raises(StoreError, match="restore it"):
        await roster(tmp_path).keep(GOOGLE, now=NOW)
    assert (tmp_path / "data" / "accounts.json").read_text() == content


async def test_keeping_may_be_cancelled_anywhere(tmp_path: Path) -> None:
    """The old sign-in or the new one, whole: never neither."""
    for cut in every_checkpoint():
        held = roster(tmp_path / str(cut.k))
        await held.keep(GOOGLE, persons=["ann"], now=NOW)
        new = replace(GOOGLE, refresh_token=Secret("aor-new"))

        async def keep() -> None:
            await held.keep(new, persons=["ann"], now=NOW)  # noqa: B023

        await cut.run(keep)
        (entry,) = await held.entries()
        assert await held.source(entry).load() in ([GOOGLE], [new])


async def test_many_at_once_lose_none(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(12):
            credential = replace(GOOGLE, refresh_token=Secret(f"aor-{number}"))
            nursery.start_soon(lambda one: roster(tmp_path).keep(one, now=NOW), credential)
    assert len(await roster(tmp_path).entries()) == 12


texts = st.text(st.characters(codec="utf-8"), max_size=20).map(str.strip)


@given(
    st.sampled_from([method for method in AuthMethod if method is not AuthMethod.API_KEY]),
    st.lists(texts.filter(bool), min_size=8, max_size=8),
    st.none() | st.floats(0, 4e9),
    st.dictionaries(st.sampled_from(["email", "userId", "machineId", "x y"]), texts),
)
def test_a_credential_survives_its_record(
    auth: AuthMethod, said: list[str], expires_at: float | None, extra: dict[str, object]
) -> None:
    refresh, access, client, secret, region, arn, url, provider = said
    credential = Credential(
        auth=auth,
        refresh_token=Secret(refresh.rstrip(".…") + "x"),
        access_token=Secret(access),
        expires_at=expires_at,
        client_id=client,
        client_secret=Secret(secret),
        region=region,
        profile_arn=arn,
        start_url=url,
        provider=provider,
        scopes=("a", "b"),
        extra=extra,
    )
    back = read_credential(json.loads(json.dumps(write_credential(credential))), "here")
    assert back == credential
    assert back.extra == extra
