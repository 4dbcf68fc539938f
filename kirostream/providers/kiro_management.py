"""Kiro's management calls: credits, plans, the way to pay, profiles (kiro-protocol.md sections 6.1, 6.2 and 6.4).

Pure: a function says what to send, another what came. They go to the host that generates (``q.{region}``), in REST form
and with the persona of `kiro`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from kirostream.accounts.account import Account, Token
from kirostream.dataclass import dataclass
from kirostream.errors import RemoteProtocolError
from kirostream.providers.kiro import ORIGIN, KiroProvider
from kirostream.providers.provider import UpstreamRequest

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where an organisation's profiles may live (section 1.5). A refusal by one of them is not final."""

RESOURCE: Final = "AGENTIC_REQUEST"


# -- what is known afterwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Credits of one kind: of the plan, of a trial, or a bonus. `ends_at` is in unix seconds, None without an end."""

    name: str
    used: float
    limit: float
    active: bool = True
    ends_at: float | None = None

    @property
    def left(self) -> float:
        """What can still be used, never below 0."""
        return max(self.limit - self.used, 0.0) if self.active else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUsage:
    """What an account has used, and may use. Times are unix seconds, None where the service does not say.

    `plan` is what people call it (``KIRO PRO``), `kind` the service's word for it. `allowances` begin with that of the
    plan. `overage` says whether more may be used, for money. `user_id` and `email` say who signed in; they are not
    shown.
    """

    plan: str = ""
    kind: str = ""
    allowances: Sequence[Allowance] = ()
    resets_at: float | None = None
    overage: bool = False
    overage_used: float = 0.0
    overage_charges: float = 0.0
    currency: str = "USD"
    user_id: str = field(default="", repr=False)
    email: str = field(default="", repr=False)

    @property
    def used(self) -> float:
        """Credits used of everything that counts now."""
        return sum(each.used for each in self.allowances if each.active)

    @property
    def limit(self) -> float:
        """Credits of everything that counts now."""
        return sum(each.limit for each in self.allowances if each.active)

    @property
    def left(self) -> float:
        """Credits that can still be used, without those that cost more."""
        return sum(each.left for each in self.allowances)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left. An account of which nothing is known is not exhausted."""
        return bool(self.allowances) and self.limit > 0 and self.left <= 0 and not self.overage


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan that can be had. `kind` is what `checkout` asks for; `amount` is for one `interval`."""

    name: str
    kind: str
    title: str
    amount: float
    currency: str
    interval: str
    features: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page to pay on, for whoever opens it: it is as good as the account. `active`: there is a plan already."""

    url: str = field(repr=False)
    active: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that the account may use."""

    arn: str
    name: str
    active: bool


# -- requests


class KiroManagement:
    """What to send."""

    def __init__(self, provider: KiroProvider) -> None:
        self._provider = provider

    def __repr__(self) -> str:
        return f"<KiroManagement of {self._provider!r}>"

    def usage(self, account: Account, token: Token) -> UpstreamRequest:
        """``getUsageLimits``. The profile is named where there is one."""
        query = {"origin": ORIGIN, "resourceType": RESOURCE, "isEmailRequired": "true"}
        if token.profile_arn:
            query["profileArn"] = token.profile_arn
        return self._request("GET", f"getUsageLimits?{urlencode(query, quote_via=quote)}", account, token)

    def plans(self, account: Account, token: Token) -> UpstreamRequest:
        """``listAvailableSubscriptions``."""
        return self._request("POST", "listAvailableSubscriptions", account, token, _profile(token))

    def checkout(self, account: Account, token: Token, *, kind: str, client_token: str) -> UpstreamRequest:
        """``CreateSubscriptionToken``.

        Args:
            kind: `Plan.kind`; empty: the page lets the person choose, or manage what there is.
            client_token: a UUID; the same one twice makes one page.
        """
        body = {"clientToken": client_token, "provider": "STRIPE", **_profile(token)}
        if kind:
            body["subscriptionType"] = kind
        return self._request("POST", "CreateSubscriptionToken", account, token, body)

    def profiles(self, account: Account, token: Token, region: str, page: str = "") -> UpstreamRequest:
        """``ListAvailableProfiles`` of one region. `page` is what `read_profiles` gave."""
        there = replace(account, api_region=region)
        bare = Token(token.access, token.expires_at, "", token.account)
        body: dict[str, object] = {"maxResults": 10, **({"nextToken": page} if page else {})}
        return self._request("POST", "ListAvailableProfiles", there, bare, body)

    def _request(
        self, method: str, path: str, account: Account, token: Token, body: Mapping[str, object] | None = None
    ) -> UpstreamRequest:
        headers = [
            *self._provider.management_headers(account, token),
            (b"accept", b"application/json"),
            *([(b"content-type", b"application/json")] if body is not None else []),
        ]
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        return UpstreamRequest(method, f"{self._provider.base_url(account, token)}/{path}", headers, data)


def _profile(token: Token) -> dict[str, object]:
    return {"profileArn": token.profile_arn} if token.profile_arn else {}


# -- answers


class _Trial(msgspec.Struct, rename="camel"):
    free_trial_status: str | None = None
    free_trial_expiry: float | None = None
    usage_limit: float | None = None
    usage_limit_with_precision: float | None = None
    current_usage: float | None = None
    current_usage_with_precision: float | None = None


class _Bonus(msgspec.Struct, rename="camel"):
    bonus_code: str | None = None
    display_name: str | None = None
    status: str | None = None
    expires_at: float | None = None
    usage_limit: float | None = None
    usage_limit_with_precision: float | None = None
    current_usage: float | None = None
    current_usage_with_precision: float | None = None


class _Breakdown(msgspec.Struct, rename="camel"):
    resource_type: str | None = None
    display_name: str | None = None
    display_name_plural: str | None = None
    currency: str | None = None
    current_usage: float | None = None
    current_usage_with_precision: float | None = None
    usage_limit: float | None = None
    usage_limit_with_precision: float | None = None
    current_overages: float | None = None
    current_overages_with_precision: float | None = None
    overage_charges: float | None = None
    next_date_reset: float | None = None
    free_trial_info: _Trial | None = None
    bonuses: list[_Bonus] | None = None


class _Limit(msgspec.Struct, rename="camel"):
    type: str | None = None
    current_usage: float | None = None
    total_usage_limit: float | None = None


class _Subscription(msgspec.Struct, rename="camel"):
    subscription_title: str | None = None
    type: str | None = None


class _Overage(msgspec.Struct, rename="camel"):
    overage_status: str | None = None


class _User(msgspec.Struct, rename="camel"):
    email: str | None = None
    user_id: str | None = None


class _Usage(msgspec.Struct, rename="camel"):
    next_date_reset: float | None = None
    user_info: _User | None = None
    subscription_info: _Subscription | None = None
    overage_configuration: _Overage | None = None
    usage_breakdown_list: list[_Breakdown] | None = None
    usage_breakdown: _Breakdown | None = None
    limits: list[_Limit] | None = None


class _Description(msgspec.Struct, rename="camel"):
    title: str | None = None
    billing_interval: str | None = None
    features: list[str] | None = None


class _Pricing(msgspec.Struct, rename="camel"):
    amount: float | None = None
    currency: str | None = None


class _Plan(msgspec.Struct, rename="camel"):
    name: str | None = None
    q_subscription_type: str | None = None
    description: _Description | None = None
    pricing: _Pricing | None = None


class _Plans(msgspec.Struct, rename="camel"):
    subscription_plans: list[_Plan] = []


class _Checkout(msgspec.Struct, rename="camel"):
    encoded_verification_url: str | None = None
    status: str | None = None


class _Profile(msgspec.Struct, rename="camel"):
    arn: str
    profile_name: str | None = None
    status: str | None = None


class _Profiles(msgspec.Struct, rename="camel"):
    profiles: list[_Profile] = []
    next_token: str | None = None


_usage = msgspec.json.Decoder(_Usage, strict=False)  # numbers may come as text
_plans = msgspec.json.Decoder(_Plans, strict=False)
_checkout = msgspec.json.Decoder(_Checkout)
_profiles = msgspec.json.Decoder(_Profiles)

_BAD: Final = (msgspec.DecodeError, msgspec.ValidationError)


def read_usage(body: bytes) -> AccountUsage:
    """What ``getUsageLimits`` says (section 6.4). Dates may be floats in scientific notation; precise numbers win.

    Raises:
        RemoteProtocolError: it cannot be read.
    """
    try:
        said = _usage.decode(body)
    except _BAD as error:
        raise RemoteProtocolError(f"the usage of the account cannot be read: {error}") from error
    breakdowns = said.usage_breakdown_list or ([said.usage_breakdown] if said.usage_breakdown else [])
    allowances = [allowance for each in breakdowns for allowance in _allowances(each)]
    if not allowances:
        allowances = [
            Allowance(name=each.type or "requests", used=each.current_usage or 0.0, limit=each.total_usage_limit)
            for each in said.limits or ()
            if each.total_usage_limit is not None
        ]
    first = breakdowns[0] if breakdowns else _Breakdown()
    resets = [said.next_date_reset, *(each.next_date_reset for each in breakdowns)]
    plan, user = said.subscription_info or _Subscription(), said.user_info or _User()
    return AccountUsage(
        plan=plan.subscription_title or "",
        kind=plan.type or "",
        allowances=tuple(allowances),
        resets_at=next(filter(None, map(_moment, resets)), None),
        overage=said.overage_configuration is not None and said.overage_configuration.overage_status == "ENABLED",
        overage_used=_first(first.current_overages_with_precision, first.current_overages),
        overage_charges=first.overage_charges or 0.0,
        currency=first.currency or "USD",
        user_id=user.user_id or "",
        email=user.email or "",
    )


def _allowances(said: _Breakdown) -> list[Allowance]:
    name = said.display_name_plural or said.display_name or said.resource_type or "credits"
    found = [
        Allowance(
            name=name,
            used=_first(said.current_usage_with_precision, said.current_usage),
            limit=_first(said.usage_limit_with_precision, said.usage_limit),
        )
    ]
    if (trial := said.free_trial_info) is not None:
        found.append(
            Allowance(
                name="free trial",
                used=_first(trial.current_usage_with_precision, trial.current_usage),
                limit=_first(trial.usage_limit_with_precision, trial.usage_limit),
                active=trial.free_trial_status == "ACTIVE",
                ends_at=_moment(trial.free_trial_expiry),
            )
        )
    found += [
        Allowance(
            name=bonus.display_name or bonus.bonus_code or "bonus",
            used=_first(bonus.current_usage_with_precision, bonus.current_usage),
            limit=_first(bonus.usage_limit_with_precision, bonus.usage_limit),
            active=bonus.status == "ACTIVE",
            ends_at=_moment(bonus.expires_at),
        )
        for bonus in said.bonuses or ()
    ]
    return found


def _first(*values: float | None) -> float:
    return next((value for value in values if value is not None and math.isfinite(value)), 0.0)


def _moment(value: float | None) -> float | None:
    """Unix seconds; the service writes seconds, some of its clients have seen milliseconds."""
    if value is None or not 0 < value < 1e15:
        return None
    return value / 1000 if value >= 1e11 else value


def read_plans(body: bytes) -> list[Plan]:
    """What ``listAvailableSubscriptions`` says.

    Raises:
        RemoteProtocolError: it cannot be read.
    """
    try:
        said = _plans.decode(body)
    except _BAD as error:
        raise RemoteProtocolError(f"the list of plans cannot be read: {error}") from error
    found: list[Plan] = []
    for each in said.subscription_plans:
        words, price = each.description or _Description(), each.pricing or _Pricing()
        found.append(
            Plan(
                name=each.name or "",
                kind=each.q_subscription_type or "",
                title=words.title or each.name or "",
                amount=price.amount or 0.0,
                currency=price.currency or "USD",
                interval=words.billing_interval or "",
                features=tuple(words.features or ()),
            )
        )
    return found


def read_checkout(body: bytes) -> Checkout:
    """What ``CreateSubscriptionToken`` says.

    Raises:
        RemoteProtocolError: it names no page of the web.
    """
    try:
        said = _checkout.decode(body)
    except _BAD as error:
        raise RemoteProtocolError(f"the answer about paying cannot be read: {error}") from error
    url = said.encoded_verification_url or ""
    if not url.startswith("https://") or not url.isprintable():
        raise RemoteProtocolError("the service names no page to pay on")
    return Checkout(url, said.status == "ACTIVE")


def read_profiles(body: bytes) -> tuple[list[Profile], str]:
    """What ``ListAvailableProfiles`` says, and the name of the next page (empty: there is none).

    Raises:
        RemoteProtocolError: it cannot be read.
    """
    try:
        said = _profiles.decode(body)
    except _BAD as error:
        raise RemoteProtocolError(f"the list of profiles cannot be read: {error}") from error
    found = [Profile(each.arn, each.profile_name or "", each.status in (None, "ACTIVE")) for each in said.profiles]
    return found, said.next_token or ""


def pick_profile(profiles: Sequence[Profile]) -> str:
    """The ARN of the first profile that is active, an empty string where none is (section 1.5)."""
    return next((profile.arn for profile in profiles if profile.active), "")
