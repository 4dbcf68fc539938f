"""Secrets stay secret, ids stay the same, and times are read in every form that files have."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts.account import (
    NEVER,
    AccountId,
    AuthMethod,
    Credential,
    Secret,
    Token,
    account_id,
    account_label,
    read_auth_method,
    read_expiry,
    write_expiry,
)

TEXT = "aorVERYSECRET"


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(TEXT)
    credential = Credential(
        auth=AuthMethod.IDC,
        refresh_token=secret,
        access_token=secret,
        client_secret=secret,
        extra={"csrfToken": TEXT},
    )
    token = Token(secret, 1.0, "", AccountId("a"))
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        f"{secret:>20}",
        "%s %r" % (secret, secret),  # noqa: UP031 - the old way too
        repr([secret]),
        repr(credential),
        str(credential),
        repr(token),
        repr(dataclasses.asdict(token)),
        repr(secret.__reduce__.__doc__),
        structlog.processors.JSONRenderer()(None, "info", {"token": secret, "of": token, "all": [credential]}),
        structlog.processors.KeyValueRenderer()(None, "info", {"token": secret, "of": token}),
        structlog.dev.ConsoleRenderer(colors=False)(None, "info", {"event": "x", "token": secret, "of": credential}),
    ]
    for text in shown:
        assert TEXT not in str(text)
    assert secret.reveal() == TEXT


def test_a_secret_does_not_leave_the_process_by_itself() -> None:
    for value in (Secret(TEXT), Token(Secret(TEXT), 1.0, "", AccountId("a"))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(value, protocol)
    with pytest.raises(TypeError):
        json.dumps({"token": Secret(TEXT)})
    with pytest.raises(TypeError):
        vars(Secret(TEXT))


def test_secrets_compare_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("ä") != Secret("a")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a")
    assert not Secret("")
    assert copy.deepcopy(Secret("a")) == Secret("a")
    assert Secret("a").digest() == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_an_account_id_hangs_on_its_place() -> None:
    one = account_id("ide", "/home/me/token.json")
    assert one == account_id("ide", "/home/me/token.json")
    assert one.startswith("ide-")
    others = [("cli", "/home/me/token.json", ""), ("ide", "/x", ""), ("ide", "/home/me/token.json", "k")]
    assert len({one, *(account_id(*other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("credential", "label"),
    [
        (Credential(auth=AuthMethod.SOCIAL, provider="Google"), "Google"),
        (Credential(auth=AuthMethod.SOCIAL), "social"),
        (Credential(auth=AuthMethod.IDC), "IAM Identity Center"),
        (Credential(auth=AuthMethod.API_KEY), "API key"),
        (
            Credential(auth=AuthMethod.SOCIAL, provider="Google", extra={"email": "jane@example.com"}),
            "j***@example.com (Google)",
        ),
    ],
)
def test_labels_are_for_people_and_masked(credential: Credential, label: str) -> None:
    assert account_label(credential) == label


@pytest.mark.parametrize(
    ("word", "method"),
    [
        ("social", AuthMethod.SOCIAL),
        ("Social", AuthMethod.SOCIAL),
        ("Google", AuthMethod.SOCIAL),
        ("IdC", AuthMethod.IDC),
        ("IDC", AuthMethod.IDC),
        ("builder-id", AuthMethod.IDC),
        ("BuilderId", AuthMethod.IDC),
        ("iam", AuthMethod.IDC),
        ("external_idp", AuthMethod.EXTERNAL_IDP),
        ("ExternalIdp", AuthMethod.EXTERNAL_IDP),
        ("api_key", AuthMethod.API_KEY),
        ("carrier pigeon", None),
    ],
)
def test_methods_are_read_in_any_spelling(word: str, method: AuthMethod | None) -> None:
    assert read_auth_method(word) is method


# -- times

T = 1_767_323_045.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-01-02T03:04:05Z", T),
        ("2026-01-02T03:04:05.000Z", T),
        ("2026-01-02T03:04:05.123456789Z", T + 0.123456),
        ("2026-01-02T03:04:05.1Z", T + 0.1),
        ("2026-01-02T05:04:05+02:00", T),
        ("2026-01-02T03:04:05.000", T),
        ("2026-01-02 03:04:05 ", T),
        ("2026-01-02T03:04:05UTC", T),
        (1767323045, T),
        (1767323045.5, T + 0.5),
        (1767323045000, T),
        ("1767323045", T),
        ("1767323045000", T),
        (1.767323045e9, T),
        ("soon", None),
        ("", None),
        (None, None),
        (True, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        ("nan", None),
        (10**400, None),
        ([T], None),
        ({}, None),
    ],
)
def test_expiry_is_read_in_every_form(value: object, seconds: float | None) -> None:
    assert read_expiry(value) == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_any_expiry_is_a_time_or_none(value: object) -> None:
    at = read_expiry(value)
    assert at is None or 0 <= at <= 253402300799.0


MOMENTS = st.datetimes(min_value=datetime(1974, 1, 1), max_value=datetime(4000, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, st.integers(0, 9), st.integers(-14 * 60, 14 * 60))
def test_rfc3339_is_read_with_any_fraction_and_offset(moment: datetime, digits: int, minutes: int) -> None:
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    fraction = f".{f'{local.microsecond:06}000'[:digits]}" if digits else ""
    offset = local.strftime("%z")
    text = f"{local:%Y-%m-%dT%H:%M:%S}{fraction}{offset[:3]}:{offset[3:]}"
    assert read_expiry(text) == pytest.approx(moment.timestamp(), abs=10.0**-digits + 1e-5)


@given(
    st.floats(2e8, 5e10),
    st.sampled_from(
        [
            "2026-01-02T03:04:05.000Z",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.123456789Z",
            "?",
            17,
            1767323045000,
            None,
        ]
    ),
)
def test_what_is_written_in_a_style_is_read_back(at: float, like: object) -> None:
    written = write_expiry(at, like)
    back = read_expiry(written)
    assert back is not None
    assert abs(back - at) <= 1
    if isinstance(like, str) and len(like) > 1:
        assert len(str(written)) == len(like)
    elif isinstance(like, int):
        assert isinstance(written, int)


def test_when_a_credential_counts_as_over() -> None:
    base = Credential(auth=AuthMethod.SOCIAL)
    assert base.valid_until() == 0
    assert dataclasses.replace(base, access_token=Secret("a")).valid_until() == NEVER
    assert dataclasses.replace(base, access_token=Secret("a"), refresh_token=Secret("r")).valid_until() == 0
    assert dataclasses.replace(base, access_token=Secret("a"), expires_at=5.0).valid_until() == 5
