"""What a sign-in sends, and what each answer means (kiro-protocol.md sections 5.3 and 5.4)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts import login_messages as messages
from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.login_messages import DeviceCode, Proof, Registration
from kirostream.accounts.oidc import AuthHosts, Refusal, Refused

HOSTS = AuthHosts()
START = "https://d-1234567890.awsapps.com/start"
CLIENT = Registration("CLIENT", Secret("eyJSECRET"), None)
PROOF = Proof(Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "state-1")
GOOGLE = Credential(auth=AuthMethod.SOCIAL, provider="Google")


def test_a_registration_as_the_ide_makes_it() -> None:
    request = messages.register_request(
        HOSTS, "eu-west-1", start_url=START, name="kirostream", by_code=False, user_agent="x"
    )
    assert request.url == "https://oidc.eu-west-1.amazonaws.com/client/register"
    body = json.loads(request.body)
    assert body.pop("scopes")[0] == "codewhisperer:completions"
    assert body == {
        "clientName": "kirostream",
        "clientType": "public",
        "grantTypes": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        "issuerUrl": START,
    }


def test_the_challenge_is_that_of_the_standard() -> None:
    """RFC 7636 appendix B."""
    assert PROOF.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_nothing_secret_is_shown() -> None:
    device = DeviceCode(
        device_code=Secret("s3cret"), user_code="ABCD-EFGH", url="u", whole_url="u", interval=1, expires_in=1
    )
    request = messages.poll_request(HOSTS, "us-east-1", CLIENT, device, user_agent="x")
    shown = repr((device, CLIENT, PROOF, request))
    assert "s3cret" not in shown
    assert "eyJSECRET" not in shown
    assert "dBjft" not in shown


@pytest.mark.parametrize(
    ("body", "interval", "expires_in"),
    [
        ({"interval": 5, "expiresIn": 300}, 5, 300),
        ({"intervalInMilliseconds": 2500, "expiresInMilliseconds": 60000}, 2.5, 60),
        ({}, 5, 600),
        ({"interval": 0, "expiresIn": -1}, 5, 600),
        ({"interval": 1e9, "expiresIn": 1e12}, 60, 86400),
        ({"interval": True, "expiresIn": "600"}, 5, 600),
    ],
)
def test_a_device_code_in_seconds_and_in_milliseconds(
    body: dict[str, object], interval: float, expires_in: float
) -> None:
    answer = {"deviceCode": "d", "userCode": "ABCD-EFGH", "verificationUri": "https://device.example.com", **body}
    for wrapped in (answer, {"data": answer}):
        device = messages.read_device_code(200, json.dumps(wrapped).encode())
        assert isinstance(device, DeviceCode)
        assert (device.interval, device.expires_in) == (interval, expires_in)
        assert device.whole_url == device.url == "https://device.example.com"


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "http://evil.example.com", "https://a\nb"]
)
def test_a_page_that_is_none_is_never_shown(url: str) -> None:
    answer = json.dumps({"deviceCode": "d", "userCode": "u", "verificationUri": url}).encode()
    assert isinstance(messages.read_device_code(200, answer), Refused)


@pytest.mark.parametrize(
    ("status", "body", "reason", "kind"),
    [
        (400, {"error": "authorization_pending"}, "authorization_pending", Refusal.TRANSIENT),
        (400, {"__type": "com.amazonaws.ssooidc#SlowDownException"}, "slow_down", Refusal.TRANSIENT),
        (200, {"status": "authorization_pending"}, "authorization_pending", Refusal.TRANSIENT),
        (200, {"data": {"status": "SLOW_DOWN"}}, "slow_down", Refusal.TRANSIENT),
        (200, {"status": "expired_token"}, "expired_token", Refusal.DEAD),
        (200, {"status": "access_denied"}, "access_denied", Refusal.DEAD),
        (400, {"error": "expired_token"}, "expired_token", Refusal.DEAD),
        (400, {"error": "access_denied"}, "access_denied", Refusal.DEAD),
        (503, {}, "http_503", Refusal.TRANSIENT),
        (200, {"accessToken": "a"}, "unreadable", Refusal.TRANSIENT),
        (200, {}, "no_access_token", Refusal.TRANSIENT),
    ],
)
def test_answers_that_are_no_token(status: int, body: dict[str, object], reason: str, kind: Refusal) -> None:
    answer = messages.read_token(GOOGLE, status, json.dumps(body).encode(), 0.0)
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.kind, answer.status) == (reason, kind, status)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_token_in_any_case_and_wrapping(wrap: bool) -> None:
    camel = {"accessToken": "aoa", "refreshToken": "aor", "expiresIn": 60, "profileArn": "arn:x"}
    snake = {"access_token": "aoa", "refresh_token": "aor", "expires_in": 60, "profile_arn": "arn:x"}
    for body in (camel, snake):
        answer = messages.read_token(GOOGLE, 200, json.dumps({"data": body} if wrap else body).encode(), 100.0)
        assert isinstance(answer, Credential)
        assert (answer.access_token, answer.refresh_token) == (Secret("aoa"), Secret("aor"))
        assert (answer.expires_at, answer.profile_arn, answer.provider) == (160, "arn:x", "Google")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://127.0.0.1:1/?code=c&state=state-1", ""),
        ("  code=c&state=state-1\n", ""),
        ("?state=state-1&code=c&login_option=google", ""),
        ("http://127.0.0.1:1/?code=c&state=other", "state_mismatch"),
        ("http://127.0.0.1:1/?code=c", "state_mismatch"),
        ("c", "state_mismatch"),
        ("", "state_mismatch"),
        ("?state=state-1", "no_code"),
        ("?error=access_denied&state=state-1", "access_denied"),
    ],
)
def test_what_the_browser_brings(text: str, reason: str) -> None:
    answer = messages.read_callback(text, PROOF)
    if reason:
        assert isinstance(answer, Refused)
        assert answer.reason == reason
    else:
        assert answer == Secret("c")


@given(st.text())
def test_any_text_may_be_pasted(text: str) -> None:
    assert isinstance(messages.read_callback(text, PROOF), Refused)


@given(st.binary(), st.sampled_from([200, 400, 500]))
def test_any_answer_may_come(body: bytes, status: int) -> None:
    for answer in (
        messages.read_registration(status, body),
        messages.read_device_code(status, body),
        messages.read_token(GOOGLE, status, body, 0.0),
    ):
        assert isinstance(answer, Refused)
