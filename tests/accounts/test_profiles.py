"""The resolver of kiro-protocol.md section 1.5, without its network step."""

from __future__ import annotations

import pytest

from kirostream.accounts.account import AuthMethod, Credential
from kirostream.accounts.profiles import BUILDER_ID_ARN, FIXED_ARNS, SOCIAL_ARN, is_builder_id, profile_arn

OWN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"


@pytest.mark.parametrize(
    ("credential", "arn"),
    [
        (Credential(auth=AuthMethod.SOCIAL), SOCIAL_ARN),
        (Credential(auth=AuthMethod.SOCIAL, profile_arn=OWN), OWN),
        (Credential(auth=AuthMethod.IDC, provider="BuilderId"), BUILDER_ID_ARN),
        (Credential(auth=AuthMethod.IDC, provider="builder-id"), BUILDER_ID_ARN),
        (Credential(auth=AuthMethod.IDC, start_url="https://view.awsapps.com/start/"), BUILDER_ID_ARN),
        (Credential(auth=AuthMethod.IDC, provider="BuilderId", profile_arn=OWN), OWN),
        (Credential(auth=AuthMethod.IDC, provider="Enterprise"), ""),
        (Credential(auth=AuthMethod.IDC, start_url="https://d-1234567890.awsapps.com/start"), ""),
        (Credential(auth=AuthMethod.IDC), ""),
        (Credential(auth=AuthMethod.EXTERNAL_IDP), ""),
        (Credential(auth=AuthMethod.EXTERNAL_IDP, profile_arn=OWN), OWN),
        (Credential(auth=AuthMethod.API_KEY, profile_arn=OWN), ""),
    ],
)
def test_which_arn_a_request_carries(credential: Credential, arn: str) -> None:
    assert profile_arn(credential) == arn


def test_the_fixed_ones_are_told_apart() -> None:
    assert {BUILDER_ID_ARN, SOCIAL_ARN} == FIXED_ARNS
    assert not is_builder_id(Credential(auth=AuthMethod.SOCIAL, provider="BuilderId"))
