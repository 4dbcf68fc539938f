"""Account files of other programs: what we read of theirs, and what comes back of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.formats import FORMATS, detect
from kirostream.accounts.formats.portable import Portable
from kirostream.errors import SettingsError

NOW = 1_767_225_600.0
REFRESH = "aor" + "x" * 200
MACHINE = "ab" * 32
WRITABLE = [name for name, each in FORMATS.items() if each.write is not None]

EXPORT = {
    "version": "1.8.3",
    "exportedAt": 1767225600000,
    "groups": [{"id": "g"}],
    "tags": [],
    "accounts": [
        {
            "id": "acc-1",
            "email": "ann@example.com",
            "nickname": "one",
            "idp": "Google",
            "userId": "u-1",
            "machineId": MACHINE,
            "profileArn": "arn:aws:codewhisperer:us-east-1:1:profile/X",
            "credentials": {
                "accessToken": "aoaEXAMPLE",
                "csrfToken": "csrf-s3cret",
                "refreshToken": REFRESH,
                "clientId": "",
                "clientSecret": "",
                "region": "us-east-1",
                "startUrl": "",
                "expiresAt": 1767229200000,
                "authMethod": "social",
                "provider": "Google",
            },
            "subscription": {"type": "Free", "title": "KIRO FREE"},
            "groupId": "g",
            "tags": [],
            "status": "active",
        }
    ],
}
GO = {
    "password": "admin",
    "port": 8080,
    "requireApiKey": True,
    "accounts": [
        {
            "id": "1",
            "email": "bob@example.com",
            "userId": "u-2",
            "nickname": "two",
            "accessToken": "aoaEXAMPLE",
            "refreshToken": REFRESH,
            "clientId": "CLIENT",
            "clientSecret": "eyJEXAMPLE",
            "authMethod": "idc",
            "provider": "BuilderId",
            "region": "us-east-1",
            "startUrl": "https://view.awsapps.com/start",
            "expiresAt": 1767229200,
            "machineId": "0123456789abcdef0123456789abcdef",
            "enabled": False,
            "weight": 3,
            "usageCurrent": 1.5,
        }
    ],
    "thinkingSuffix": "-thinking",
}
RS = [
    {"refreshToken": REFRESH, "authMethod": "social", "priority": 1, "expiresAt": "2026-01-01T01:00:00Z"},
    {
        "refreshToken": REFRESH + "2",
        "authMethod": "builder-id",
        "clientId": "C",
        "clientSecret": "S",
        "authRegion": "eu-west-1",
        "apiRegion": "eu-central-1",
        "disabled": True,
        "proxyUrl": "direct",
    },
    {"kiroApiKey": "ksk_1", "authMethod": "api_key", "machineId": MACHINE, "endpoint": "ide"},
]
GATEWAY = [
    {"type": "json", "path": "~/a.json", "enabled": True},
    {"type": "sqlite", "path": "/x/data.sqlite3", "enabled": False},
    {"type": "refresh_token", "refresh_token": REFRESH, "profile_arn": "arn:x", "region": "eu-west-1"},
]
ENV = f"""# mine
PROXY_API_KEY="k"
REFRESH_TOKEN={REFRESH}
export REFRESH_TOKEN2='{REFRESH}2'
KIRO_REGION=eu-west-1
"""


def one(text: str) -> Portable:
    (account,) = detect(text).read(text).accounts
    return account


def credential(account: Portable) -> Credential:
    assert account.credential is not None
    return account.credential


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (EXPORT, "account-manager"),
        (GO, "kiro-go"),
        (RS, "kiro-rs"),
        (RS[0], "kiro-rs"),
        (GATEWAY, "kiro-gateway"),
        ([{"auth": "Social", "refreshToken": REFRESH, "description": "d"}], "kiro-rs"),
        ([{"email": "a@b.c", "refreshToken": REFRESH, "password": "hunter2"}], "kiro-rs"),
    ],
)
def test_a_file_says_by_itself_what_it_is(value: object, name: str) -> None:
    for text in (json.dumps(value), "\ufeff" + json.dumps(value, indent=4)):
        assert detect(text).name == name
        assert detect(text).read(text).accounts
        assert not detect(text).read(text).trouble


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "hello", "[1]", "null", '"x"', "a,b\n1,2"])
def test_what_is_in_no_format_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no format that is known"):
        detect(text)


def test_an_export_of_the_account_manager() -> None:
    account = one(json.dumps(EXPORT))
    assert (account.label, account.email, account.user_id) == ("one", "ann@example.com", "u-1")
    assert account.machine_id == MACHINE
    held = credential(account)
    assert (held.auth, held.provider, held.expires_at) == (AuthMethod.SOCIAL, "Google", 1767229200)
    assert held.profile_arn.endswith("profile/X")
    assert "csrf" not in str(held.extra)


def test_a_flat_export_of_the_account_manager() -> None:
    entry = {**EXPORT["accounts"][0], **EXPORT["accounts"][0]["credentials"]}  # type: ignore[index]
    del entry["credentials"]
    account = one(json.dumps({"exportedAt": 1, "accounts": [entry]}))
    assert (account.label, credential(account).refresh_token) == ("one", Secret(REFRESH))


def test_a_config_of_kiro_go() -> None:
    account = one(json.dumps(GO))
    held = credential(account)
    assert (held.auth, held.client_id, held.provider) == (AuthMethod.IDC, "CLIENT", "BuilderId")
    assert not account.enabled
    assert account.machine_id == "0123456789abcdef" * 4  # a UUID, doubled, as its shape asks


def test_credentials_of_kiro_rs() -> None:
    text = json.dumps(RS)
    first, second, third = detect(text).read(text).accounts
    assert credential(first).expires_at == NOW + 3600
    assert (credential(second).region, credential(second).api_region) == ("eu-west-1", "eu-central-1")
    assert not second.enabled
    assert credential(third).auth is AuthMethod.API_KEY
    assert credential(third).access_token == Secret("ksk_1")


def test_credentials_of_kiro_gateway() -> None:
    text = json.dumps(GATEWAY)
    first, second, third = detect(text).read(text).accounts
    assert (first.place, second.place, second.enabled) == (("ide", "~/a.json"), ("cli", "/x/data.sqlite3"), False)
    assert credential(third).profile_arn == "arn:x"


def test_an_env_file() -> None:
    read = FORMATS["env"].read(ENV)
    assert detect(ENV).name == "env"
    assert [credential(account).refresh_token.reveal() for account in read.accounts] == [REFRESH, REFRESH + "2"]
    assert {credential(account).region for account in read.accounts} == {"eu-west-1"}


@pytest.mark.parametrize(
    ("line", "email", "token", "client"),
    [
        (f"a@b.c----pw----{REFRESH}----CLIENT----SECRET----BuilderId", "a@b.c", REFRESH, "CLIENT"),
        (f"a@b.c----pw----{REFRESH}", "a@b.c", REFRESH, ""),
        (f"a@b.c----pw-------{REFRESH}----C----S", "a@b.c", REFRESH, "C"),
    ],
)
def test_cards(line: str, email: str, token: str, client: str) -> None:
    account = one(f"{line}\n\n")
    held = credential(account)
    assert (account.email, held.refresh_token, held.client_id) == (email, Secret(token), client)
    assert "pw" not in repr(account) + str(held.extra)


def test_a_table() -> None:
    text = f"\ufeffemail,token,nickname,idp,password\na@b.c,{REFRESH},one,Github,hunter2\n"
    account = one(text)
    assert (account.email, account.label, credential(account).provider) == ("a@b.c", "one", "Github")
    assert "hunter2" not in str(credential(account).extra)


def test_what_is_wrong_with_one_entry_hides_no_other_and_shows_no_secret() -> None:
    entries = [
        {"refreshToken": REFRESH, "authMethod": "social"},
        {"refreshToken": "aorSECRET...", "authMethod": "social"},
        {"refreshToken": "aorSECRET" * 20, "authMethod": "idc"},
        {"authMethod": "social"},
        {"refreshToken": "aorSECRET" * 20, "authMethod": "magic"},
        7,
    ]
    read = FORMATS["kiro-rs"].read(json.dumps(entries))
    assert len(read.accounts) == 1
    assert [line.split(" ")[:2] for line in read.trouble[-1:]] == [["entry", "6"]]
    assert len(read.trouble) == 5
    assert "SECRET" not in str(read)


def test_broken_json_is_not_quoted() -> None:
    with pytest.raises(SettingsError, match="line 1, column") as caught:
        FORMATS["kiro-rs"].read('[{"refreshToken":"aorSECRET", oops')
    assert "SECRET" not in str(caught.value)


# -- there and back

words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
tokens = words.map(lambda word: f"aor{word}{'y' * 100}")
social = st.builds(
    lambda refresh, access, provider, arn, at: Credential(
        auth=AuthMethod.SOCIAL,
        refresh_token=Secret(refresh),
        access_token=Secret(access),
        expires_at=at,
        provider=provider,
        profile_arn=f"arn:{arn}",
        region="eu-west-1",
    ),
    tokens,
    words,
    st.sampled_from(["Google", "Github"]),
    words,
    st.integers(1_700_000_000, 1_900_000_000).map(float),
)
idc = st.builds(
    lambda base, client, secret, builder: replace(
        base,
        auth=AuthMethod.IDC,
        provider="BuilderId" if builder else "Enterprise",
        start_url="https://view.awsapps.com/start" if builder else "https://d-1.awsapps.com/start",
        client_id=client,
        client_secret=Secret(secret),
    ),
    social,
    words,
    words,
    st.booleans(),
)
key = words.map(
    lambda word: Credential(auth=AuthMethod.API_KEY, access_token=Secret(f"ksk_{word}"), region="eu-west-1")
)
portables = st.builds(
    Portable,
    credential=social | idc | key,
    label=words,
    email=words.map(lambda word: f"{word}@example.com"),
    user_id=words,
    machine_id=st.binary(min_size=32, max_size=32).map(bytes.hex),
    enabled=st.booleans(),
)
accounts = st.lists(
    portables,
    max_size=4,
    unique_by=(
        lambda account: credential(account).access_token,
        lambda account: account.email.lower(),
        lambda account: account.user_id,
        lambda account: credential(account).refresh_token.reveal() or account.label,
    ),
)


def of_account_manager(account: Portable) -> Portable:
    return replace(account, enabled=True)


def of_kiro_go(account: Portable) -> Portable:
    return replace(account, credential=replace(credential(account), profile_arn=""))


def of_kiro_rs(account: Portable) -> Portable:
    return replace(account, label="", user_id="")


def of_kiro_gateway(account: Portable) -> Portable:
    held = credential(account)
    bare = Credential(
        auth=held.auth, refresh_token=held.refresh_token, region=held.region, profile_arn=held.profile_arn
    )
    return Portable(credential=bare, enabled=account.enabled)


def of_env(account: Portable) -> Portable:
    held = credential(account)
    return Portable(credential=Credential(auth=held.auth, refresh_token=held.refresh_token))


CAN: dict[str, tuple[frozenset[AuthMethod], Callable[[Portable], Portable]]] = {
    "account-manager": (frozenset({AuthMethod.SOCIAL, AuthMethod.IDC}), of_account_manager),
    "kiro-go": (frozenset({AuthMethod.SOCIAL, AuthMethod.IDC}), of_kiro_go),
    "kiro-rs": (frozenset({AuthMethod.SOCIAL, AuthMethod.IDC, AuthMethod.API_KEY}), of_kiro_rs),
    "kiro-gateway": (frozenset({AuthMethod.SOCIAL}), of_kiro_gateway),
    "env": (frozenset({AuthMethod.SOCIAL}), of_env),
}
"""What a format can hold, and what it loses of that."""


def test_every_format_that_is_written_says_what_it_can_hold() -> None:
    assert set(CAN) == set(WRITABLE)


@pytest.mark.parametrize("name", WRITABLE)
@settings(max_examples=50)
@given(given_accounts=accounts)
def test_what_is_written_comes_back(name: str, given_accounts: list[Portable]) -> None:
    each = FORMATS[name]
    assert each.write is not None
    methods, loses = CAN[name]
    held = [account for account in given_accounts if credential(account).auth in methods]
    written = each.write(given_accounts, "", NOW)
    assert len(written.left_out) == len(given_accounts) - len(held)
    assert list(each.read(written.text).accounts) == [loses(account) for account in held]
    again = each.write(given_accounts, written.text, NOW)
    assert again.text == written.text  # the second time changes nothing
    for account in given_accounts:
        for secret in (credential(account).refresh_token, credential(account).access_token):
            text = secret.reveal()
            if len(text) > 12:
                assert text not in repr(written) + "".join(written.left_out)


@pytest.mark.parametrize(
    ("name", "value"), [("account-manager", EXPORT), ("kiro-go", GO), ("kiro-rs", RS), ("kiro-gateway", GATEWAY)]
)
def test_what_is_not_ours_stays(name: str, value: object) -> None:
    """A rotated token takes the old one's place, by person; members and entries that are not ours are left alone."""
    each = FORMATS[name]
    assert each.write is not None
    before = json.dumps(value)
    read = list(each.read(before).accounts)
    assert json.loads(each.write([], before, NOW).text) == value or name == "account-manager"
    known = [account for account in read if account.credential is not None]
    rotated = replace(known[0], credential=replace(credential(known[0]), access_token=Secret("aoaNEW")))
    after = each.write([rotated], before, NOW).text
    old, new = strip(json.loads(before)), strip(json.loads(after))
    assert old == new
    if name != "kiro-gateway":
        assert after.count("aoaNEW") == 1


def strip(value: object) -> object:
    """Without the members that an account's credential fills."""
    ours = {"accessToken", "exportedAt", "startUrl", "region", "authRegion", "machineId", "enabled", "profileArn"}
    ours |= {"expiresAt", "api_region"}
    if isinstance(value, dict):
        return {name: strip(member) for name, member in value.items() if name not in ours and member != ""}
    return [strip(member) for member in value] if isinstance(value, list) else value


def test_a_person_who_signed_in_again_is_the_same_entry() -> None:
    each = FORMATS["kiro-go"]
    assert each.write is not None
    (account,) = each.read(json.dumps(GO)).accounts
    again = replace(account, credential=replace(credential(account), refresh_token=Secret("aorNEW" + "z" * 100)))
    value = json.loads(each.write([again], json.dumps(GO), NOW).text)
    (entry,) = value["accounts"]
    assert (entry["id"], entry["weight"]) == ("1", 3)
    assert entry["refreshToken"].startswith("aorNEW")
    assert value["password"] == "admin"


def test_an_env_file_keeps_its_lines() -> None:
    each = FORMATS["env"]
    assert each.write is not None
    ann = Portable(credential=Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret("aorANN")))
    bob = Portable(credential=Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret("aorBOB")))
    odd = Portable(credential=Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret("aor\nPROXY_API_KEY=evil")))
    before = "A=1\r\n# KIRO_REFRESH_TOKENS=no\r\nexport KIRO_REFRESH_TOKENS=old\r\nB=2"
    written = each.write([ann, bob, odd], before, NOW)
    assert written.text == ("A=1\r\n# KIRO_REFRESH_TOKENS=no\r\nexport KIRO_REFRESH_TOKENS=aorANN,aorBOB\r\nB=2")
    assert len(written.left_out) == 1
    assert each.write([ann], "A=1", NOW).text == "A=1\nKIRO_REFRESH_TOKENS=aorANN\n"


names = st.sampled_from(["accounts", "credentials", "refreshToken", "type", "x"])
values = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=8
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40)
@given(text=st.text() | values.map(json.dumps))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    each = FORMATS[name]
    each.fits(text)
    try:
        each.read(text)
        if each.write is not None:
            each.write([], text, NOW)
    except SettingsError:
        pass
