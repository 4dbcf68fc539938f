"""What is planted, how it is found again, and every place a credential comes from.

A plant repeats its mark, so that a part of it, as somebody may show one, is found too. `MARKED` stands in everything
that opens something, `SAID` in what people say to a model. A new source is covered as soon as it stands in `SOURCES`.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kirostream.accounts.account import Credential
from kirostream.simulator.oidc import Auth, Grant, Issuer
from kirostream.simulator.upstream import Simulator

MARK = "qPLANTEDz"
SAID = "qPROMPTEDz"
ENDED = "2020-01-01T00:00:00.000Z"


def secret(prefix: str, name: str = "") -> str:
    """A secret as long as a real refresh token."""
    return f"{prefix}{MARK * 18}{name}{MARK * 4}"


def _forms(mark: str) -> list[bytes]:
    """A mark as it is, in hex, and in base64 at each place it can begin."""
    raw = mark.encode()
    row = raw * 6
    return [raw, raw.hex().encode(), *(base64.b64encode(row[at:])[4:16] for at in range(3))]


_FORMS = {mark: re.compile(b"|".join(map(re.escape, _forms(mark))), re.IGNORECASE) for mark in (MARK, SAID)}


def shows(data: str | bytes, mark: str = MARK) -> str:
    """The neighbourhood of a mark in `data`; empty where it has none."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    found = _FORMS[mark].search(raw)
    return repr(raw[max(found.start() - 200, 0) : found.end() + 80]) if found else ""


def mark_what_is_issued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a simulator makes that opens something, tokens, codes and client secrets, bears the mark from now on."""
    plain = Issuer._make

    def marked(self: Issuer, prefix: str, what: str) -> str:
        made = plain(self, prefix, what)
        return made if prefix == "client" else secret(prefix, made[-12:])

    monkeypatch.setattr(Issuer, "_make", marked)


@dataclass
class Place:
    """Where a source is laid out.

    `env` is what its environment holds, `home` the person's folder; `tokens` are those of an account of `simulator`
    whose access token has ended, so that the first request refreshes it.
    """

    home: Path
    simulator: Simulator
    name: str
    env: dict[str, str] = field(default_factory=dict)

    def credential(self, auth: Auth = "social", name: str = "") -> Credential:
        return self.simulator.credential(name or self.name, auth)

    def social(self, name: str = "") -> dict[str, object]:
        held = self.credential("social", name)
        return {
            "accessToken": held.access_token.reveal(),
            "refreshToken": held.refresh_token.reveal(),
            "expiresAt": ENDED,
            "authMethod": "social",
            "provider": "Google",
        }

    def idc(self) -> tuple[dict[str, object], dict[str, object]]:
        """A token and its registration, as the IDE writes them."""
        held = self.credential("idc")
        token: dict[str, object] = {
            "accessToken": held.access_token.reveal(),
            "refreshToken": held.refresh_token.reveal(),
            "expiresAt": ENDED,
            "clientIdHash": "0f3c9e0c6a4d2b1188aa77665544332211ffeedd",
            "authMethod": "IdC",
            "provider": "Enterprise",
            "region": "us-east-1",
        }
        registration: dict[str, object] = {
            "clientId": held.client_id,
            "clientSecret": held.client_secret.reveal(),
            "expiresAt": "2030-03-30T00:00:00.000",
        }
        return token, registration

    def write(self, path: str, record: object) -> None:
        place = self.home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(record))

    def database(self, path: str, rows: Mapping[str, object]) -> None:
        place = self.home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place)) as db:
            db.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
            db.executemany("INSERT INTO auth_kv VALUES (?, ?)", [(key, json.dumps(row)) for key, row in rows.items()])
            db.commit()


CACHE = ".aws/sso/cache"


def _ide_social(at: Place) -> None:
    at.write(f"{CACHE}/kiro-auth-token.json", at.social())


def _ide_with_its_registration(at: Place) -> None:
    token, registration = at.idc()
    at.write(f"{CACHE}/kiro-auth-token.json", token)
    at.write(f"{CACHE}/{token['clientIdHash']}.json", registration)


def _aws_sso_cache(at: Place) -> None:
    token, registration = at.idc()
    del token["clientIdHash"], token["authMethod"]
    at.write(f"{CACHE}/aws.json", {**token, **registration, "expiresAt": ENDED, "startUrl": "https://d-1.example"})
    at.env["KIRO_CREDS_FILE"] = str(at.home / f"{CACHE}/aws.json")


def _kiro_cli_social(at: Place) -> None:
    held = at.credential()
    row = {"access_token": held.access_token.reveal(), "refresh_token": held.refresh_token.reveal()}
    at.database(
        ".local/share/kiro-cli/data.sqlite3",
        {"kirocli:social:token": {**row, "expires_at": ENDED, "provider": "google"}},
    )


def _cli_oidc(at: Place, folder: str, prefix: str) -> None:
    held = at.credential("idc")
    token = {"access_token": held.access_token.reveal(), "refresh_token": held.refresh_token.reveal()}
    more = {"region": "us-east-1", "oauth_flow": "DeviceCode", "scopes": ["codewhisperer:completions"]}
    client = {"client_id": held.client_id, "client_secret": held.client_secret.reveal()}
    at.database(
        f".local/share/{folder}/data.sqlite3",
        {
            f"{prefix}:token": {**token, **more, "expires_at": ENDED},
            f"{prefix}:device-registration": {**client, **more, "client_secret_expires_at": "2030-01-01T00:00:00Z"},
        },
    )


def _kiro_cli_oidc(at: Place) -> None:
    _cli_oidc(at, "kiro-cli", "kirocli:odic")


def _amazon_q(at: Place) -> None:
    _cli_oidc(at, "amazon-q", "codewhisperer:odic")


def _variables(at: Place) -> None:
    for variable in ("REFRESH_TOKEN", "REFRESH_TOKEN1", "REFRESH_TOKEN_2"):
        at.env[variable] = at.credential(name=variable).refresh_token.reveal()
    many = [at.credential(name=f"many{number}").refresh_token.reveal() for number in range(2)]
    at.env["KIRO_REFRESH_TOKENS"] = ",".join(many)


def _api_key(at: Place) -> None:
    key = secret("ksk_", at.name)
    grant = Grant(at.name, "social", secret("aor", at.name), "arn:aws:codewhisperer:us-east-1:111122223333:profile/X")
    at.simulator._issuer._access[key] = (math.inf, grant)
    at.env["KIRO_API_KEY"] = key


def _settings_file(at: Place) -> None:
    at.env["KIROSTREAM_ACCOUNT_REFRESH_TOKEN"] = at.credential().refresh_token.reveal()


SOURCES: dict[str, Callable[[Place], None]] = {
    "ide social": _ide_social,
    "ide idc": _ide_with_its_registration,
    "aws sso cache": _aws_sso_cache,
    "kiro-cli social": _kiro_cli_social,
    "kiro-cli oidc": _kiro_cli_oidc,
    "amazon-q": _amazon_q,
    "variables": _variables,
    "api key": _api_key,
    "settings": _settings_file,
}
"""Every place where `discover` finds a credential, by what lays it out. Our own records come by imports (`imports`)."""


def imports(simulator: Simulator) -> dict[str, str]:
    """A file of each program whose accounts can be taken over, as text, by the name of its format."""
    at = Place(Path(), simulator, "import")
    token = {**at.social("manager"), "expiresAt": 1_577_836_800_000}
    manager = {
        "version": "1.8.3",
        "accounts": [{"id": "1", "email": "a@example.com", "idp": "Google", "credentials": token}],
    }
    go = {
        "password": secret("", "password"),
        "apiKey": secret("sk-", "go"),
        "accounts": [{"id": "2", "email": "b@example.com", **at.social("go"), "expiresAt": 1_577_836_800}],
    }
    rs = [{**at.social("rs"), "proxyUrl": "http://127.0.0.1:9", "proxyPassword": secret("", "proxy")}]
    gateway = [{"type": "refresh_token", "refresh_token": at.credential(name="gw").refresh_token.reveal()}]
    return {
        "account-manager": json.dumps(manager),
        "kiro-go": json.dumps(go),
        "kiro-rs": json.dumps(rs),
        "kiro-gateway": json.dumps(gateway),
        "env": f"REFRESH_TOKEN={at.credential(name='dotenv').refresh_token.reveal()}\nPROXY_API_KEY={secret('k-')}\n",
    }
