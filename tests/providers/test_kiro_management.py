"""Management calls: what is sent, and what the answers mean (kiro-protocol.md sections 6.2 and 6.4)."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.errors import RemoteProtocolError
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.kiro_management import (
    AccountUsage,
    Allowance,
    KiroManagement,
    Plan,
    Profile,
    pick_profile,
    read_checkout,
    read_plans,
    read_profiles,
    read_usage,
)

ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"
CALLS = KiroManagement(KiroProvider())
ACCOUNT = Account(id=AccountId("a"), label="someone", auth=AuthMethod.IDC, machine_id="ab" * 32)

WHOLE = """
{"nextDateReset":1.780272E9,"daysUntilReset":12,"userInfo":{"email":"a@example.com","userId":"d-0000000000.1111"},
 "subscriptionInfo":{"subscriptionTitle":"KIRO PRO","type":"Q_DEVELOPER_STANDALONE_PRO"},
 "overageConfiguration":{"overageStatus":"DISABLED"},
 "usageBreakdownList":[{"resourceType":"CREDIT","displayName":"Credit","displayNamePlural":"Credits","currency":"USD",
  "currentUsage":128,"currentUsageWithPrecision":128.59,"usageLimit":1000,"usageLimitWithPrecision":1000.0,
  "currentOverages":0,"overageRate":0.04,"overageCap":10000,"overageCharges":0.0,"nextDateReset":1780272000,
  "freeTrialInfo":{"freeTrialStatus":"ACTIVE","freeTrialExpiry":1.769904E9,"usageLimit":500,"currentUsage":20},
  "bonuses":[{"bonusCode":"X","displayName":"Welcome","status":"ACTIVE","expiresAt":1769904000,"usageLimit":100,
   "currentUsage":0},{"bonusCode":"OLD","status":"EXPIRED","usageLimit":9999,"currentUsage":0}]}]}
"""


def token(arn: str = ARN) -> Token:
    return Token(Secret("aoaSECRET"), NEVER, arn, AccountId("a"))


def test_usage_is_asked_where_the_profile_lives() -> None:
    request = CALLS.usage(ACCOUNT, token())
    url = urlsplit(request.url)
    assert (request.method, url.netloc, url.path) == ("GET", "q.eu-central-1.amazonaws.com", "/getUsageLimits")
    assert parse_qs(url.query) == {
        "origin": ["AI_EDITOR"],
        "resourceType": ["AGENTIC_REQUEST"],
        "isEmailRequired": ["true"],
        "profileArn": [ARN],
    }
    headers = dict(request.headers)
    assert headers[b"authorization"] == b"Bearer aoaSECRET"
    assert b"KiroIDE" in headers[b"user-agent"]
    assert "aoaSECRET" not in repr(request)
    assert "profileArn" not in CALLS.usage(ACCOUNT, token("")).url


def test_plans_and_the_way_to_pay() -> None:
    request = CALLS.plans(ACCOUNT, token())
    assert request.url == "https://q.eu-central-1.amazonaws.com/listAvailableSubscriptions"
    assert json.loads(request.body) == {"profileArn": ARN}
    request = CALLS.checkout(ACCOUNT, token(), kind="Q_DEVELOPER_STANDALONE_PRO", client_token="u-u-i-d")
    assert request.url.endswith("/CreateSubscriptionToken")
    assert json.loads(request.body) == {
        "clientToken": "u-u-i-d",
        "provider": "STRIPE",
        "profileArn": ARN,
        "subscriptionType": "Q_DEVELOPER_STANDALONE_PRO",
    }
    assert "subscriptionType" not in json.loads(CALLS.checkout(ACCOUNT, token(), kind="", client_token="x").body)


def test_profiles_are_asked_region_by_region_and_page_by_page() -> None:
    for region in ("us-east-1", "eu-central-1"):
        request = CALLS.profiles(ACCOUNT, token(), region)
        assert request.url == f"https://q.{region}.amazonaws.com/ListAvailableProfiles"
        assert json.loads(request.body) == {"maxResults": 10}
    assert json.loads(CALLS.profiles(ACCOUNT, token(), "us-east-1", "p2").body)["nextToken"] == "p2"


def test_the_usage_of_the_sheet() -> None:
    usage = read_usage(WHOLE.encode())
    assert (usage.plan, usage.kind) == ("KIRO PRO", "Q_DEVELOPER_STANDALONE_PRO")
    assert usage.resets_at == 1780272000
    assert usage.allowances == (
        Allowance(name="Credits", used=128.59, limit=1000),
        Allowance(name="free trial", used=20, limit=500, ends_at=1769904000),
        Allowance(name="Welcome", used=0, limit=100, ends_at=1769904000),
        Allowance(name="OLD", used=0, limit=9999, active=False),
    )
    assert usage.used == pytest.approx(148.59)
    assert usage.limit == 1600
    assert usage.left == pytest.approx(1600 - 148.59)
    assert not usage.exhausted
    assert (usage.user_id, usage.email) == ("d-0000000000.1111", "a@example.com")
    assert "example.com" not in repr(usage)


@pytest.mark.parametrize(
    ("said", "exhausted"),
    [
        ({"usageBreakdownList": [{"currentUsage": 50, "usageLimit": 50}]}, True),
        ({"usageBreakdown": {"currentUsageWithPrecision": 50.4, "usageLimit": 50}}, True),
        ({"limits": [{"type": "AGENTIC_REQUEST", "currentUsage": 50, "totalUsageLimit": 50}]}, True),
        ({"usageBreakdownList": [{"currentUsage": 49.5, "usageLimit": 50}]}, False),
        (
            {
                "usageBreakdownList": [
                    {
                        "currentUsage": 50,
                        "usageLimit": 50,
                        "bonuses": [{"status": "ACTIVE", "usageLimit": 10, "currentUsage": 1}],
                    }
                ]
            },
            False,
        ),
        (
            {
                "usageBreakdownList": [{"currentUsage": 50, "usageLimit": 50}],
                "overageConfiguration": {"overageStatus": "ENABLED"},
            },
            False,
        ),
        ({}, False),
        ({"usageBreakdownList": []}, False),
        ({"usageBreakdownList": [{"currentUsage": 0, "usageLimit": 0}]}, False),
    ],
)
def test_exhausted_is_said_only_where_it_is_known(said: dict[str, object], exhausted: bool) -> None:
    assert read_usage(json.dumps(said).encode()).exhausted is exhausted


def test_what_is_spent_twice_over_does_not_eat_the_rest() -> None:
    spent = Allowance(name="Credits", used=1500, limit=1000)
    bonus = Allowance(name="bonus", used=0, limit=10)
    assert AccountUsage(allowances=(spent, bonus)).left == 10


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1.780272E9", 1780272000.0), ("1780272000000", 1780272000.0), ("null", None), ("0", None), ("-1", None)],
)
def test_dates_in_every_form(written: str, seconds: float | None) -> None:
    assert read_usage(f'{{"nextDateReset":{written}}}'.encode()).resets_at == seconds


def test_plans() -> None:
    body = """{"disclaimer":["x"],"subscriptionPlans":[{"name":"KIRO_PRO","qSubscriptionType":"Q_PRO","description":
      {"title":"Kiro Pro","billingInterval":"MONTH","featureHeader":"h","features":["a","b"]},
      "pricing":{"amount":20.0,"currency":"USD"}},{}]}"""
    first, second = read_plans(body.encode())
    assert first == Plan(
        name="KIRO_PRO",
        kind="Q_PRO",
        title="Kiro Pro",
        amount=20,
        currency="USD",
        interval="MONTH",
        features=("a", "b"),
    )
    assert second.amount == 0


def test_a_page_to_pay_on_is_a_page_of_the_web_and_is_not_shown_by_accident() -> None:
    page = read_checkout(b'{"encodedVerificationUrl":"https://pay.example.com/x?y","status":"INACTIVE","token":"t"}')
    assert (page.url, page.active) == ("https://pay.example.com/x?y", False)
    assert "pay.example.com" not in repr(page)
    for url in ("", "javascript:alert(1)", "http://pay.example.com", "https://a\\nb"):
        with pytest.raises(RemoteProtocolError, match="no page"):
            read_checkout(b'{"encodedVerificationUrl":"%s"}' % url.encode())


def test_profiles_and_the_first_that_is_active() -> None:
    body = b'{"profiles":[{"arn":"a:1","status":"DELETED"},{"arn":"a:2","profileName":"n","status":"ACTIVE"}]}'
    profiles, page = read_profiles(body)
    assert page == ""
    assert profiles == [Profile("a:1", "", False), Profile("a:2", "n", True)]
    assert pick_profile(profiles) == "a:2"
    assert pick_profile([]) == ""


@given(
    st.binary(max_size=60) | st.sampled_from([b"[]", b"null", b'{"usageBreakdownList":[null]}', b'{"profiles":[{}]}'])
)
def test_nonsense_is_the_upstreams_fault(body: bytes) -> None:
    for read in (read_usage, read_plans, read_checkout, read_profiles):
        try:
            read(body)
        except RemoteProtocolError:
            pass
