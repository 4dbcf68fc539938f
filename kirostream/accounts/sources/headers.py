"""A credential that comes with a request, in ``X-Kiro-*`` headers: an account for that request (kiro-protocol.md 5.6).

A front that keeps the accounts itself sends what one of them needs; the names are those of the fronts in use. Who may
do so is the gateway's business: a credential is only as trustworthy as the key beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from kirostream.accounts.account import (
    DEFAULT_REGION,
    Account,
    AccountId,
    AuthMethod,
    Credential,
    Secret,
    account_id,
    read_auth_method,
    read_expiry,
)
from kirostream.accounts.devices import read_machine_id
from kirostream.accounts.oidc import is_region
from kirostream.accounts.sources.source import check_refresh_token
from kirostream.errors import MalformedRequest, SettingsError

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

KIND: Final = "guest"
"""What the ids of these accounts begin with."""

_NAMES: Final[Mapping[bytes, str]] = {
    b"x-kiro-refresh-token": "refresh_token",
    b"x-kiro-access-token": "access_token",
    b"x-kiro-api-key": "api_key",
    b"x-kiro-auth-method": "auth_method",
    b"x-kiro-client-id": "client_id",
    b"x-kiro-client-secret": "client_secret",
    b"x-kiro-region": "region",
    b"x-kiro-api-region": "api_region",
    b"x-kiro-profile-arn": "profile_arn",
    b"x-kiro-provider": "provider",
    b"x-kiro-start-url": "start_url",
    b"x-kiro-expires-at": "expires_at",
    b"x-kiro-machine-id": "machine_id",
}
_TOKENS: Final = ("refresh_token", "access_token", "api_key")


def names_account(headers: Headers) -> bool:
    """Whether a request speaks of an account, whole or not: who means one must not get another one instead."""
    return any(name in _NAMES for name, _ in headers)


def is_guest(name: str) -> bool:
    """Whether an id is that of an account which came with a request."""
    return name.startswith(f"{KIND}-")


def read_headers(headers: Headers) -> Credential:
    """The credential in a request's headers. Headers that are not known are passed over.

    Raises:
        MalformedRequest: it is incomplete, or a value cannot be one. The message names the header, and quotes no value.
    """
    said: dict[str, str] = {}
    for name, value in headers:
        if name in _NAMES and value.strip():
            if _NAMES[name] in said:
                raise MalformedRequest(f"{_shown(name)} came twice.")
            if not value.isascii():
                raise MalformedRequest(f"{_shown(name)} is not ASCII.")
            said[_NAMES[name]] = value.strip().decode("ascii")
    refresh, access, key = (Secret(said.get(name, "")) for name in _TOKENS)
    if not (refresh or access or key):
        raise MalformedRequest("The request brings no account: send X-Kiro-Refresh-Token, or X-Kiro-Access-Token.")
    try:
        check_refresh_token(refresh, "X-Kiro-Refresh-Token")
    except SettingsError as error:
        raise MalformedRequest(error.message) from error
    auth = _method(said)
    if auth is AuthMethod.IDC and refresh and not (said.get("client_id") and said.get("client_secret")):
        raise MalformedRequest("An IdC account takes X-Kiro-Client-Id and X-Kiro-Client-Secret beside its token.")
    region = said.get("region", DEFAULT_REGION)
    for header, named in (("X-Kiro-Region", region), ("X-Kiro-Api-Region", said.get("api_region", region))):
        if not is_region(named):
            raise MalformedRequest(f"{header} names an AWS region, such as us-east-1.")
    arn = said.get("profile_arn", "")
    if arn and not arn.startswith("arn:"):
        raise MalformedRequest("X-Kiro-Profile-Arn is no ARN.")
    expires_at = read_expiry(said.get("expires_at", ""))
    if "expires_at" in said and expires_at is None:
        raise MalformedRequest("X-Kiro-Expires-At is a time: RFC 3339, or unix seconds.")
    machine = read_machine_id(said.get("machine_id", ""))
    if "machine_id" in said and machine is None:
        raise MalformedRequest("X-Kiro-Machine-Id is 64 hex digits, or a UUID.")
    if auth is AuthMethod.API_KEY:
        refresh, access = Secret(""), key or access
        if not access:
            raise MalformedRequest("An account of the method api_key takes X-Kiro-Api-Key.")
    return Credential(
        auth=auth,
        refresh_token=refresh,
        access_token=access,
        expires_at=None if auth is AuthMethod.API_KEY else expires_at,
        client_id=said.get("client_id", ""),
        client_secret=Secret(said.get("client_secret", "")),
        region=region,
        api_region=said.get("api_region", ""),
        profile_arn=arn,
        start_url=said.get("start_url", ""),
        provider=said.get("provider", ""),
        extra={"machineId": machine} if machine else {},
    )


def _shown(name: bytes) -> str:
    return name.decode("ascii").title()


def _method(said: Mapping[str, str]) -> AuthMethod:
    word = said.get("auth_method", "")
    if word:
        auth = read_auth_method(word)
        if auth is None or auth is AuthMethod.EXTERNAL_IDP:
            raise MalformedRequest("X-Kiro-Auth-Method is social, idc or api_key.")
        return auth
    if said.get("api_key") or said.get("access_token", "").startswith("ksk_"):
        return AuthMethod.API_KEY
    return AuthMethod.IDC if said.get("client_id") else AuthMethod.SOCIAL


def account_of(credential: Credential) -> Account:
    """The account of a credential that came with a request.

    Its id, and its device identity where none was sent, hang on the token as it was sent: a front that goes on sending
    that token means the same account, and nothing has to be written down.
    """
    sent = (credential.refresh_token or credential.access_token).digest()
    name: AccountId = account_id(KIND, sent)
    machine = credential.extra.get("machineId")
    return Account(
        id=name,
        label=f"{KIND} {name[-6:]}",
        auth=credential.auth,
        region=credential.region,
        api_region=credential.api_region,
        provider=credential.provider,
        machine_id=machine if isinstance(machine, str) else hashlib.sha256(f"device of {sent}".encode()).hexdigest(),
        source="the X-Kiro headers of a request",
    )
