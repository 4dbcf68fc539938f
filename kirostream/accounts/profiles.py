"""Which profile ARN a credential calls for, by kiro-protocol.md section 1.5. Pure; nothing here asks the network.

The one step that needs the network, ListAvailableProfiles where `needs_profile` says so, belongs to whoever can ask;
the answer goes into the credential.
"""

from __future__ import annotations

from typing import Final

from kirostream.accounts.account import BUILDER_ID_START_URL, AuthMethod, Credential

BUILDER_ID_ARN: Final = "arn:aws:codewhisperer:us-east-1:638616132270:profile/AAAACCCCXXXX"
SOCIAL_ARN: Final = "arn:aws:codewhisperer:us-east-1:699475941385:profile/EHGA3GRVQMUK"
FIXED_ARNS: Final = frozenset({BUILDER_ID_ARN, SOCIAL_ARN})
"""Public constants of the official clients. A request refused as *not authorized* with one may be tried without."""


def is_builder_id(credential: Credential) -> bool:
    """Whether an ``idc`` credential is a free personal identity rather than an organisation's."""
    if credential.auth is not AuthMethod.IDC:
        return False
    if credential.provider:
        return credential.provider.lower().replace("-", "").replace("_", "") == "builderid"
    return credential.start_url.rstrip("/") == BUILDER_ID_START_URL


def profile_arn(credential: Credential) -> str:
    """The ARN its requests carry, or an empty string where there is none to send.

    An API key must not send one. A stored ARN wins; else the fixed ones for Builder ID and social. Nothing is invented
    for an organisation or an external identity provider.
    """
    if credential.auth is AuthMethod.API_KEY:
        return ""
    if credential.profile_arn:
        return credential.profile_arn
    if credential.auth is AuthMethod.SOCIAL:
        return SOCIAL_ARN
    return BUILDER_ID_ARN if is_builder_id(credential) else ""


def needs_profile(credential: Credential) -> bool:
    """Whether only the upstream knows the profile: an organisation's account that no source names one for."""
    organisation = credential.auth is AuthMethod.IDC and not is_builder_id(credential)
    return not credential.profile_arn and (organisation or credential.auth is AuthMethod.EXTERNAL_IDP)
