"""Accounts that come with a request."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from helpers.tokens import NOW, TokenService
from kirostream.accounts.account import AuthMethod, Secret
from kirostream.accounts.devices import Devices
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.sources.headers import Guests, names_account, read_headers
from kirostream.errors import KirostreamError, MalformedRequest
from kirostream.stores.sealed import SealedStore

SOCIAL = [(b"x-kiro-refresh-token", b"aor-0"), (b"x-kiro-region", b"us-east-1")]
FRONT = [
    (b"x-kiro-refresh-token", b"aorSECRET"),
    (b"x-kiro-region", b"eu-west-1"),
    (b"x-kiro-auth-method", b"idc"),
    (b"x-kiro-client-id", b"CLIENT"),
    (b"x-kiro-client-secret", b"eyJSECRET"),
    (b"authorization", b"Bearer k"),
]


def test_what_a_front_sends() -> None:
    credential = read_headers(FRONT)
    assert (credential.auth, credential.region, credential.client_id) == (AuthMethod.IDC, "eu-west-1", "CLIENT")
    assert credential.refresh_token == Secret("aorSECRET")
    assert "SECRET" not in repr(credential)
    assert read_headers(SOCIAL).auth is AuthMethod.SOCIAL
    assert read_headers([(b"x-kiro-api-key", b"ksk_1")]).access_token == Secret("ksk_1")
    assert read_headers([(b"x-kiro-access-token", b"ksk_1")]).auth is AuthMethod.API_KEY


def test_a_request_without_a_token_brings_no_account() -> None:
    assert names_account(SOCIAL)
    assert not names_account([(b"x-kiro-region", b"us-east-1"), (b"x-kiro-refresh-token", b" ")])
    assert not names_account([(b"x-kiro-trace", b"1")])


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "brings no account"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"magic")], "social, idc or api_key"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"external_idp")], "social, idc or api_key"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"idc")], "X-Kiro-Client-Id"),
        ([(b"x-kiro-refresh-token", b"t"), (b"x-kiro-region", b"evil.example.com/")], "AWS regions"),
        ([*SOCIAL, (b"x-kiro-api-region", b"x")], "AWS regions"),
        ([*SOCIAL, (b"x-kiro-profile-arn", b"x")], "no ARN"),
        ([(b"x-kiro-refresh-token", b"\xff\xfe")], "not ASCII"),
    ],
)
def test_what_cannot_be_used_is_the_clients_fault(headers: list[tuple[bytes, bytes]], words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        read_headers(headers)


NAMES = st.sampled_from([name for name, _ in FRONT[:5]] + [b"x-kiro-access-token", b"x-kiro-expires-at", b"x-other"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=8))))
def test_any_headers_are_read_or_refused(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        read_headers(headers)
    except MalformedRequest:
        pass


class House:
    """A keeper, and the guests it keeps tokens for."""

    def __init__(self, folder: Path, service: TokenService, most: int = 256) -> None:
        self.errors: list[KirostreamError] = []
        self.keeper = TokenKeeper(
            service.post, time_source=lambda: NOW, on_failed=lambda who, error: self.errors.append(error)
        )
        self.guests = Guests(self.keeper, Devices(folder), SealedStore(folder / "sealed"), most=most)

    async def access(self, headers: list[tuple[bytes, bytes]]) -> str:
        return (await self.keeper.token(await self.guests.account(headers))).access.reveal()


async def test_one_account_for_one_token_and_rotation_outlives_a_restart(tmp_path: Path, nursery: trio.Nursery) -> None:
    """The front knows nothing of our refresh, and sends the old token for ever."""
    service = TokenService()
    house = House(tmp_path, service)
    await nursery.start(house.keeper.run)
    first = await house.guests.account(SOCIAL)
    assert await house.access(SOCIAL) == await house.access(SOCIAL) == "aoa-1"
    assert await house.guests.account(SOCIAL) is first
    again = House(tmp_path, service)
    await nursery.start(again.keeper.run)
    assert await again.access(SOCIAL) == "aoa-1"
    assert service.asked == ["aor-0"]
    assert (await again.guests.account(SOCIAL)).machine_id == first.machine_id
    assert house.errors == []
    assert "aor-0" not in repr(house.guests) + repr(first) + written(tmp_path)


def written(folder: Path) -> str:
    """Everything in the files of a folder."""
    return "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())


async def test_a_front_that_refreshes_by_itself_is_believed(tmp_path: Path, nursery: trio.Nursery) -> None:
    house = House(tmp_path, TokenService())
    await nursery.start(house.keeper.run)
    later = str(NOW + 3600).encode()
    for token in (b"aoa-1", b"aoa-2"):
        headers = [*SOCIAL, (b"x-kiro-access-token", token), (b"x-kiro-expires-at", later)]
        assert await house.access(headers) == token.decode()


async def test_guests_are_forgotten_in_the_order_they_were_last_seen(tmp_path: Path, nursery: trio.Nursery) -> None:
    house = House(tmp_path, TokenService(), most=2)
    await nursery.start(house.keeper.run)

    def guest(number: int) -> list[tuple[bytes, bytes]]:
        return [(b"x-kiro-api-key", b"ksk_%d" % number)]

    one, two = await house.guests.account(guest(1)), await house.guests.account(guest(2))
    await house.guests.account(guest(1))
    three = await house.guests.account(guest(3))
    kept = {token.account for token in house.keeper.snapshot().tokens}
    assert kept == {one.id, three.id}
    assert two.id not in kept
    assert await house.access(guest(2)) == "ksk_2"


async def test_a_shortened_token_is_the_clients_fault(tmp_path: Path) -> None:
    house = House(tmp_path, TokenService())
    with pytest.raises(MalformedRequest, match="shortened"):
        await house.guests.account([(b"x-kiro-refresh-token", b"aorEXAMPLE...")])
