"""One credential as a JSON object: our own form, and what every tool's form comes down to. Pure.

Members are looked up in all their spellings (`fields.SPELLINGS`) and written in the IDE's (kiro-protocol.md section
5.5), so that what we write can be pasted where the others read.
"""

from __future__ import annotations

from collections.abc import Mapping

from kirostream.accounts.account import AuthMethod, Credential, Secret, read_auth_method, read_expiry
from kirostream.accounts.sources.fields import member, text, unknown, words
from kirostream.accounts.sources.source import check_refresh_token
from kirostream.errors import SettingsError


def read_method(record: Mapping[str, object], where: str, remedy: str = "") -> AuthMethod:
    """How the account signed in: what the object says, else what it holds.

    Raises:
        SettingsError: it says a word that nobody uses.
    """
    said = text(record, "auth_method")
    if said:
        auth = read_auth_method(said)
        if auth is None:
            known = "known are social, IdC, external_idp and api_key"
            raise SettingsError(f"{where} says authMethod {said!r}; {known}. {remedy}".rstrip())
        return auth
    if text(record, "api_key") or text(record, "access_token").startswith("ksk_"):
        return AuthMethod.API_KEY
    if text(record, "token_endpoint"):
        return AuthMethod.EXTERNAL_IDP
    return AuthMethod.IDC if text(record, "client_id_hash") or text(record, "client_id") else AuthMethod.SOCIAL


def read_credential(record: Mapping[str, object], where: str) -> Credential:
    """The credential in `record`. Members without a meaning here ride along in `extra`.

    Raises:
        SettingsError: there is no token, it is shortened, or the registration that it needs is missing.
    """
    auth = read_method(record, where)
    refresh, access = Secret(text(record, "refresh_token")), Secret(text(record, "access_token"))
    if auth is AuthMethod.API_KEY:
        refresh, access = Secret(""), Secret(text(record, "api_key")) or access
    if not refresh and not access:
        raise SettingsError(f"{where} holds neither a refreshToken nor an accessToken.")
    check_refresh_token(refresh, where)
    client_id, client_secret = text(record, "client_id"), Secret(text(record, "client_secret"))
    if auth is AuthMethod.IDC and refresh and not (client_id and client_secret):
        raise SettingsError(f"{where} is of an IdC sign-in and holds no clientId and clientSecret to refresh it with.")
    return Credential(
        auth=auth,
        refresh_token=refresh,
        access_token=access,
        expires_at=None if auth is AuthMethod.API_KEY else read_expiry(member(record, "expires_at")),
        client_id=client_id,
        client_secret=client_secret,
        registration_expires_at=read_expiry(member(record, "registration_expires_at")),
        region=text(record, "region") or "us-east-1",
        api_region=text(record, "api_region"),
        profile_arn=text(record, "profile_arn"),
        start_url=text(record, "start_url"),
        provider=text(record, "provider"),
        token_endpoint=text(record, "token_endpoint"),
        scopes=words(record, "scopes"),
        extra=unknown(record),
    )


_WORDS = {AuthMethod.IDC: "IdC"}


def write_credential(credential: Credential) -> dict[str, object]:
    """The object that `read_credential` reads. What is not known is left out. It holds secrets."""
    key = credential.auth is AuthMethod.API_KEY
    members: dict[str, object] = {
        "authMethod": _WORDS.get(credential.auth, credential.auth.value),
        "provider": credential.provider,
        "kiroApiKey" if key else "accessToken": credential.access_token.reveal(),
        "refreshToken": credential.refresh_token.reveal(),
        "expiresAt": credential.expires_at,
        "clientId": credential.client_id,
        "clientSecret": credential.client_secret.reveal(),
        "clientSecretExpiresAt": credential.registration_expires_at,
        "region": credential.region,
        "apiRegion": credential.api_region,
        "startUrl": credential.start_url,
        "profileArn": credential.profile_arn,
        "tokenEndpoint": credential.token_endpoint,
        "scopes": list(credential.scopes),
    }
    return {**credential.extra, **{name: value for name, value in members.items() if value or value == 0.0}}
