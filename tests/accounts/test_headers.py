"""Accounts that come with a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts.account import AuthMethod, Secret
from kirostream.accounts.sources.headers import account_of, is_guest, names_account, read_headers
from kirostream.errors import MalformedRequest

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
    assert not names_account([(b"x-kiro-trace", b"1")])


def test_who_speaks_of_an_account_does_not_get_another_one() -> None:
    blank = [(b"x-kiro-region", b"us-east-1"), (b"x-kiro-refresh-token", b" ")]
    assert names_account(blank)
    with pytest.raises(MalformedRequest, match="brings no account"):
        read_headers(blank)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "brings no account"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"magic")], "social, idc or api_key"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"external_idp")], "social, idc or api_key"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"idc")], "X-Kiro-Client-Id"),
        (
            [(b"x-kiro-refresh-token", b"t"), (b"x-kiro-region", b"evil.example.com/")],
            "X-Kiro-Region names an AWS region",
        ),
        ([*SOCIAL, (b"x-kiro-api-region", b"x")], "X-Kiro-Api-Region names an AWS region"),
        ([*SOCIAL, (b"x-kiro-expires-at", b"soon")], "X-Kiro-Expires-At"),
        ([*SOCIAL, (b"x-kiro-machine-id", b"mine")], "X-Kiro-Machine-Id"),
        ([*SOCIAL, SOCIAL[0]], "X-Kiro-Refresh-Token came twice"),
        ([(b"x-kiro-refresh-token", b"aorEXAMPLE...")], "shortened"),
        ([*SOCIAL, (b"x-kiro-auth-method", b"api_key")], "X-Kiro-Api-Key"),
        ([*SOCIAL, (b"x-kiro-profile-arn", b"x")], "no ARN"),
        ([(b"x-kiro-refresh-token", b"\xff\xfe")], "X-Kiro-Refresh-Token is not ASCII"),
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


def test_an_account_hangs_on_the_token_as_it_was_sent() -> None:
    account = account_of(read_headers(SOCIAL))
    assert is_guest(account.id)
    assert not is_guest("own-0123456789ab")
    assert account == account_of(read_headers([*SOCIAL, (b"x-kiro-access-token", b"aoa-1")]))
    other = account_of(read_headers([(b"x-kiro-refresh-token", b"aor-1")]))
    assert (other.id, other.machine_id) != (account.id, account.machine_id)
    assert other.machine_id != account.machine_id
    sent = account_of(read_headers([*SOCIAL, (b"x-kiro-machine-id", b"01234567-89ab-cdef-0123-456789abcdef")]))
    assert sent.machine_id == "0123456789abcdef" * 4
    assert "aor-0" not in repr(account)
