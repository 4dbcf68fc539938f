"""What a refresh sends, and what each answer means (kiro-protocol.md sections 5.2 and 5.3)."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.oidc import AuthHosts, AuthRequest, Refusal, Refused, read_refresh, refresh_request

HOSTS = AuthHosts()
AT = 1_767_225_600.0
SOCIAL = Credential(auth=AuthMethod.SOCIAL, refresh_token=Secret("aorEXAMPLE"), region="eu-west-1")
IDC = replace(SOCIAL, auth=AuthMethod.IDC, client_id="CLIENT", client_secret=Secret("eyJEXAMPLE"))
EXTERNAL = replace(
    IDC, auth=AuthMethod.EXTERNAL_IDP, token_endpoint="https://login.example.com/token", scopes=("a", "b")
)


def sent(credential: Credential, hosts: AuthHosts = HOSTS) -> AuthRequest:
    request = refresh_request(credential, hosts, user_agent="KiroIDE-1-ab")
    assert isinstance(request, AuthRequest)
    return request


def test_social() -> None:
    request = sent(SOCIAL)
    assert request.method == "POST"
    assert request.url == "https://prod.us-east-1.auth.desktop.kiro.dev/refreshToken"
    assert json.loads(request.body) == {"refreshToken": "aorEXAMPLE"}
    headers = dict(request.headers)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"user-agent"] == b"KiroIDE-1-ab"
    assert b"authorization" not in headers


def test_oidc_is_json_in_camel_case_at_the_host_of_the_sign_in() -> None:
    request = sent(IDC)
    assert request.url == "https://oidc.eu-west-1.amazonaws.com/token"
    assert json.loads(request.body) == {
        "clientId": "CLIENT",
        "clientSecret": "eyJEXAMPLE",
        "grantType": "refresh_token",
        "refreshToken": "aorEXAMPLE",
    }


def test_an_external_provider_gets_a_form() -> None:
    request = sent(EXTERNAL)
    assert request.url == "https://login.example.com/token"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["CLIENT"],
        "client_secret": ["eyJEXAMPLE"],
        "refresh_token": ["aorEXAMPLE"],
        "scope": ["a b"],
    }


def test_the_hosts_may_be_elsewhere_and_hold_the_region() -> None:
    hosts = AuthHosts(social="http://127.0.0.1:1/{region}/", oidc="http://127.0.0.1:1")
    assert sent(SOCIAL, hosts).url == "http://127.0.0.1:1/eu-west-1/refreshToken"
    assert sent(IDC, hosts).url == "http://127.0.0.1:1/token"


def test_a_request_does_not_show_what_it_holds() -> None:
    assert "EXAMPLE" not in repr(sent(IDC))


@pytest.mark.parametrize(
    ("credential", "kind", "reason"),
    [
        (replace(SOCIAL, auth=AuthMethod.API_KEY), Refusal.DEAD, "api_key"),
        (replace(SOCIAL, refresh_token=Secret("")), Refusal.DEAD, "no_refresh_token"),
        (replace(IDC, client_id=""), Refusal.REGISTRATION, "no_registration"),
        (replace(IDC, region="evil.example/"), Refusal.DEAD, "bad_region"),
        (replace(IDC, region=""), Refusal.DEAD, "bad_region"),
        (
            replace(EXTERNAL, token_endpoint="http://login.example.com/token"),
            Refusal.REGISTRATION,
            "bad_token_endpoint",
        ),
        (replace(EXTERNAL, token_endpoint=""), Refusal.REGISTRATION, "bad_token_endpoint"),
    ],
)
def test_what_cannot_be_refreshed_is_not_sent(credential: Credential, kind: Refusal, reason: str) -> None:
    refused = refresh_request(credential, HOSTS, user_agent="x")
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.status, refused.reason) == (kind, 0, reason)


@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-2", "us-gov-west-1", "eu-isoe-west-1"])
def test_regions_of_every_partition_are_known(region: str) -> None:
    assert f"oidc.{region}." in sent(replace(IDC, region=region)).url


@pytest.mark.parametrize(
    ("body", "access", "refresh", "life"),
    [
        ({"accessToken": "A", "refreshToken": "R", "expiresIn": 3600}, "A", "R", 3600),
        ({"access_token": "A", "refresh_token": "R", "expires_in": 1800}, "A", "R", 1800),
        ({"accessToken": "A", "expiresIn": "28800"}, "A", "aorEXAMPLE", 28800),
        ({"accessToken": "A", "refreshToken": None}, "A", "aorEXAMPLE", 3600),
        ({"accessToken": "A", "refreshToken": "", "expiresIn": 3.6e3}, "A", "aorEXAMPLE", 3600),
        ({"accessToken": "A", "expiresAt": "2026-01-01T00:10:00Z"}, "A", "aorEXAMPLE", 600),
        ({"accessToken": "A", "expiresIn": -5}, "A", "aorEXAMPLE", 3600),
        ({"data": {"accessToken": "A", "expiresIn": 60}}, "A", "aorEXAMPLE", 60),
    ],
)
def test_a_new_credential(body: object, access: str, refresh: str, life: float) -> None:
    got = read_refresh(SOCIAL, 200, json.dumps(body).encode(), AT)
    assert got == replace(SOCIAL, access_token=Secret(access), refresh_token=Secret(refresh), expires_at=AT + life)


def test_the_profile_of_the_answer_counts_where_none_was_known() -> None:
    body = b'{"accessToken":"A","profileArn":"arn:new"}'
    fresh = read_refresh(SOCIAL, 200, body, AT)
    kept = read_refresh(replace(SOCIAL, profile_arn="arn:old"), 200, body, AT)
    assert isinstance(fresh, Credential)
    assert isinstance(kept, Credential)
    assert (fresh.profile_arn, kept.profile_arn) == ("arn:new", "arn:old")


@pytest.mark.parametrize(
    ("credential", "status", "body", "kind", "reason"),
    [
        (SOCIAL, 401, "", Refusal.DEAD, "http_401"),
        (SOCIAL, 400, '{"message":"bad"}', Refusal.DEAD, "http_400"),
        (SOCIAL, 429, "", Refusal.TRANSIENT, "http_429"),
        (SOCIAL, 500, "", Refusal.TRANSIENT, "http_500"),
        (SOCIAL, 403, "", Refusal.TRANSIENT, "http_403"),
        (SOCIAL, 302, "", Refusal.TRANSIENT, "http_302"),
        (SOCIAL, 200, "", Refusal.TRANSIENT, "no_access_token"),
        (SOCIAL, 200, "[]", Refusal.TRANSIENT, "no_access_token"),
        (IDC, 400, '{"error":"invalid_grant"}', Refusal.DEAD, "invalid_grant"),
        (IDC, 400, '{"__type":"InvalidGrantException"}', Refusal.DEAD, "invalid_grant"),
        (IDC, 400, '{"__type":"com.amazonaws.sso#ExpiredTokenException"}', Refusal.DEAD, "expired_token"),
        (IDC, 401, '{"error":"invalid_client"}', Refusal.REGISTRATION, "invalid_client"),
        (IDC, 400, '{"error":"unauthorized_client"}', Refusal.REGISTRATION, "unauthorized_client"),
        (IDC, 400, '{"error":"invalid_request"}', Refusal.DEAD, "invalid_request"),
        (IDC, 400, '{"error":"slow_down"}', Refusal.TRANSIENT, "slow_down"),
        (IDC, 400, '{"__type":"ThrottlingException"}', Refusal.TRANSIENT, "throttling"),
        (IDC, 500, '{"error":"invalid_grant"}', Refusal.TRANSIENT, "invalid_grant"),
        (IDC, 503, "<html>", Refusal.TRANSIENT, "http_503"),
    ],
)
def test_what_each_refusal_means(credential: Credential, status: int, body: str, kind: Refusal, reason: str) -> None:
    refused = read_refresh(credential, status, body.encode(), AT)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.status, refused.reason) == (kind, status, reason)


@given(st.sampled_from([SOCIAL, IDC, EXTERNAL]), st.integers(100, 599), st.binary(max_size=40))
def test_any_answer_is_read(credential: Credential, status: int, body: bytes) -> None:
    read_refresh(credential, status, body, AT)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.integers(200, 201),
    st.dictionaries(
        st.sampled_from(["accessToken", "refreshToken", "expiresIn", "expiresAt", "profileArn", "data", "error"]), JSON
    ),
)
def test_members_of_any_type_are_read(status: int, record: dict[str, object]) -> None:
    got = read_refresh(SOCIAL, status, json.dumps(record).encode(), AT)
    if isinstance(got, Credential):
        assert got.access_token
        assert got.refresh_token
        assert got.expires_at is not None
