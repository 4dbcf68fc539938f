"""Which profile ARN and which API region a credential calls for. Pure; nothing here asks the network.

The order is that of kiro-protocol.md section 1.5 (ARN) and section 1.1 (region). The one step that needs the network,
ListAvailableProfiles for IAM Identity Center, belongs to whoever can ask: it stores its answer in the credential.
"""

from __future__ import annotations

from typing import Final

from kirostream.accounts.account import BUILDER_ID_START_URL, DEFAULT_REGION, Credential

BUILDER_ID_ARN: Final = "arn:aws:codewhisperer:us-east-1:638616132270:profile/AAAACCCCXXXX"
SOCIAL_ARN: Final = "arn:aws:codewhisperer:us-east-1:699475941385:profile/EHGA3GRVQMUK"
FIXED_ARNS: Final = frozenset({BUILDER_ID_ARN, SOCIAL_ARN})
"""Public constants of the official clients. A request refused as *not authorized* with one of them may be tried without."""

API_REGIONS: Final = ("us-east-1", "eu-central-1", "us-gov-east-1", "us-gov-west-1")
"""Regions with a data plane (kiro-protocol.md section 1.1)."""


def is_builder_id(credential: Credential) -> bool:
    """Whether an ``idc`` credential is a free personal identity rather than an organisation's."""
    if credential.method != "idc":
        return False
    if credential.provider:
        return credential.provider.lower().replace("-", "").replace("_", "") == "builderid"
    return credential.start_url.rstrip("/") == BUILDER_ID_START_URL


def profile_arn(credential: Credential) -> str:
    """The ARN its requests carry, or an empty string where there is none to send.

    An API key must not send one. A stored ARN wins; else the fixed ones for Builder ID and social. Nothing is invented
    for an organisation or an external identity provider.
    """
    if credential.method == "api_key":
        return ""
    if credential.profile_arn:
        return credential.profile_arn
    if credential.method == "social":
        return SOCIAL_ARN
    return BUILDER_ID_ARN if is_builder_id(credential) else ""


def arn_region(arn: str) -> str:
    """The region an ARN names (its fourth part), or an empty string."""
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 and parts[0] == "arn" else ""


def api_region(chosen: str, arn: str, sso_region: str) -> str:
    """The region of the API host: the operator's choice, else the ARN's, else the one nearest to the sign-in's.

    The choice is taken as it is; the rest is kept to `API_REGIONS`, because a sign-in region such as ``ap-southeast-1``
    has no data plane and would answer with misleading errors.
    """
    if chosen:
        return chosen
    for region in (arn_region(arn), sso_region):
        if region in API_REGIONS:
            return region
        if region:
            return "eu-central-1" if region.startswith("eu-") else DEFAULT_REGION
    return DEFAULT_REGION
