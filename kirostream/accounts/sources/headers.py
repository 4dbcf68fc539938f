"""A credential that comes with a request, in ``X-Kiro-*`` headers: an account for that request (kiro-protocol.md 5.6).

A front that keeps the accounts itself sends what one of them needs; the names are those of the fronts in use. Who may
do so is the gateway's business: a credential is only as trustworthy as the key beside it.

The front goes on sending the refresh token it knows while ours rotates, so the newest form is kept on the shelf, under
the digest of the token that was sent (`shelf`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from kirostream.accounts.account import (
    Account,
    AuthMethod,
    Credential,
    Secret,
    account_id,
    read_auth_method,
    read_expiry,
)
from kirostream.accounts.devices import Devices
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.oidc import is_region
from kirostream.accounts.sources.env import HeldToken
from kirostream.accounts.sources.shelf import Shelved
from kirostream.errors import MalformedRequest, SettingsError
from kirostream.stores.sealed import SealedStore

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

PREFIX: Final = b"x-kiro-"

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
    """Whether a request brings an account: a token among its headers."""
    return any(_NAMES.get(name) in _TOKENS and value.strip() for name, value in headers)


def read_headers(headers: Headers) -> Credential:
    """The credential in a request's headers. Headers that are not known are passed over.

    Raises:
        MalformedRequest: it is incomplete, or a value cannot be one. The message quotes no value.
    """
    said: dict[str, str] = {}
    for name, value in headers:
        if name in _NAMES and value.strip():
            try:
                said[_NAMES[name]] = value.strip().decode("ascii")
            except UnicodeDecodeError:
                raise MalformedRequest(f"The header {name.decode('ascii')} is not ASCII.") from None
    refresh, access, key = (Secret(said.get(name, "")) for name in _TOKENS)
    if not (refresh or access or key):
        raise MalformedRequest("The request brings no account: send X-Kiro-Refresh-Token, or X-Kiro-Access-Token.")
    auth = _method(said)
    if auth is AuthMethod.IDC and refresh and not (said.get("client_id") and said.get("client_secret")):
        raise MalformedRequest("An IdC account takes X-Kiro-Client-Id and X-Kiro-Client-Secret beside its token.")
    region = said.get("region", "us-east-1")
    if not is_region(region) or not is_region(said.get("api_region", region)):
        raise MalformedRequest("X-Kiro-Region and X-Kiro-Api-Region name AWS regions, such as us-east-1.")
    arn = said.get("profile_arn", "")
    if arn and not arn.startswith("arn:"):
        raise MalformedRequest("X-Kiro-Profile-Arn is no ARN.")
    if auth is AuthMethod.API_KEY:
        refresh, access = Secret(""), key or access
    machine = said.get("machine_id", "")
    return Credential(
        auth=auth,
        refresh_token=refresh,
        access_token=access,
        expires_at=None if auth is AuthMethod.API_KEY else read_expiry(said.get("expires_at", "")),
        client_id=said.get("client_id", ""),
        client_secret=Secret(said.get("client_secret", "")),
        region=region,
        api_region=said.get("api_region", ""),
        profile_arn=arn,
        start_url=said.get("start_url", ""),
        provider=said.get("provider", ""),
        extra={"machineId": machine} if machine else {},
    )


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


class Guests:
    """The accounts that came with requests. Those that nobody has sent for the longest time are forgotten.

    Args:
        keeper: keeps their tokens while they are here.
        vault: keeps rotated tokens, also after an account was forgotten.
        most: how many are remembered.
    """

    def __init__(self, keeper: TokenKeeper, devices: Devices, vault: SealedStore, *, most: int = 256) -> None:
        self._keeper = keeper
        self._devices = devices
        self._vault = vault
        self._most = most
        self._here: OrderedDict[str, tuple[Account, Secret]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Guests: {len(self._here)} of {self._most}>"

    async def account(self, headers: Headers) -> Account:
        """The account of a request; its token is the keeper's from now on.

        Raises:
            MalformedRequest: the headers hold no usable account.
            StoreError: its device identity cannot be kept.
        """
        credential = read_headers(headers)
        given = credential.refresh_token or credential.access_token
        known = self._here.get(given.digest())
        # A front that has refreshed by itself sends a new access token beside the old refresh token: start afresh.
        if known is not None and known[1] == credential.access_token:
            self._here.move_to_end(given.digest())
            return known[0]
        try:
            held = HeldToken(credential, origin="the X-Kiro headers of the request")
        except SettingsError as error:
            raise MalformedRequest(error.message) from error
        name = account_id("guest", held.place)
        machine = credential.extra.get("machineId")
        account = Account(
            id=name,
            label=f"guest {name[-6:]}",
            auth=credential.auth,
            region=credential.region,
            api_region=credential.api_region,
            provider=credential.provider,
            machine_id=await self._devices.machine_id(name, machine if isinstance(machine, str) else ""),
            source=held.describe(),
        )
        self._keeper.add(account, Shelved(held, self._vault) if credential.refresh_token else held, credential)
        self._here[given.digest()] = (account, credential.access_token)
        self._here.move_to_end(given.digest())
        while len(self._here) > self._most:
            _, (forgotten, _) = self._here.popitem(last=False)
            self._keeper.remove(forgotten.id)
        return account
