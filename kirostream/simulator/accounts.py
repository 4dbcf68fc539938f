"""What the simulated service says of an account: its credits, the plans, a page to pay on (kiro-protocol.md section 6).

Pure: the caller has the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from kirostream.simulator.oidc import Grant

Answer: TypeAlias = tuple[int, dict[str, Any]]

DAY: Final = 86400.0
PLANS: Final = (
    ("KIRO_FREE", "Q_DEVELOPER_STANDALONE_FREE", "Kiro Free", 0.0),
    ("KIRO_PRO", "Q_DEVELOPER_STANDALONE_PRO", "Kiro Pro", 20.0),
    ("KIRO_PRO_PLUS", "Q_DEVELOPER_STANDALONE_PRO_PLUS", "Kiro Pro+", 40.0),
    ("KIRO_POWER", "Q_DEVELOPER_STANDALONE_POWER", "Kiro Power", 200.0),
)


def usage_limits(name: str, credits_used: float, now: float) -> dict[str, Any]:
    """The body of ``getUsageLimits``: a plan, a bonus that counts, a trial that is over."""
    month = datetime.fromtimestamp(now, UTC)
    following = (month.year + 1, 1) if month.month == 12 else (month.year, month.month + 1)
    reset_at = datetime(*following, 1, tzinfo=UTC).timestamp()
    return {
        "nextDateReset": reset_at,
        "daysUntilReset": int((reset_at - now) // DAY),
        "userInfo": {"email": f"{name}@example.com", "userId": f"d-simulated.{name}"},
        "subscriptionInfo": {
            "subscriptionTitle": "KIRO PRO",
            "type": "Q_DEVELOPER_STANDALONE_PRO",
            "upgradeCapability": "UPGRADE_CAPABLE",
            "overageCapability": "OVERAGE_CAPABLE",
            "subscriptionManagementTarget": "MANAGE",
        },
        "overageConfiguration": {"overageStatus": "DISABLED"},
        "usageBreakdownList": [
            {
                "resourceType": "CREDIT",
                "displayName": "Credit",
                "displayNamePlural": "Credits",
                "unit": "INVOCATIONS",
                "currency": "USD",
                "currentUsage": int(credits_used),
                "currentUsageWithPrecision": round(credits_used, 6),
                "usageLimit": 1000,
                "usageLimitWithPrecision": 1000.0,
                "currentOverages": 0,
                "overageRate": 0.04,
                "overageCap": 10000,
                "overageCharges": 0.0,
                "nextDateReset": reset_at,
                "freeTrialInfo": {
                    "freeTrialStatus": "EXPIRED",
                    "freeTrialExpiry": now - 30 * DAY,
                    "usageLimit": 500,
                    "currentUsage": 20,
                },
                "bonuses": [
                    {
                        "bonusCode": "WELCOME",
                        "displayName": "Welcome",
                        "status": "ACTIVE",
                        "expiresAt": now + 30 * DAY,
                        "usageLimit": 100,
                        "currentUsage": 0,
                    }
                ],
            }
        ],
    }


def list_subscriptions(grant: Grant, given: Mapping[str, Any]) -> Answer:
    """``listAvailableSubscriptions``."""
    plans = [
        {
            "name": name,
            "qSubscriptionType": kind,
            "description": {
                "title": title,
                "billingInterval": "MONTH",
                "featureHeader": "Includes",
                "features": ["All models"],
            },
            "pricing": {"amount": amount, "currency": "USD"},
        }
        for name, kind, title, amount in PLANS
    ]
    return 200, {"disclaimer": ["Prices are invented."], "subscriptionPlans": plans}


def create_subscription_token(grant: Grant, given: Mapping[str, Any]) -> Answer:
    """``CreateSubscriptionToken``: a page on a host that does not exist."""
    kinds = {kind for _, kind, _, _ in PLANS}
    token, kind = given.get("clientToken"), given.get("subscriptionType", "")
    if not token or given.get("provider") != "STRIPE" or (kind and kind not in kinds):
        return 400, {"__type": "ValidationException", "message": "Invalid subscription request."}
    return 200, {
        "encodedVerificationUrl": f"https://checkout.simulated.invalid/pay/{token}?plan={kind}",
        "status": "INACTIVE",
        "token": f"{token}",
    }
