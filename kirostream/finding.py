"""The accounts that a gateway of these settings has: where they are looked for, and how they are addressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kirostream.accounts.account import Account
from kirostream.accounts.discovery import Discovery, Found, discover, from_environment
from kirostream.accounts.terms import terms_of
from kirostream.errors import SettingsError
from kirostream.settings import Settings


async def find_accounts(settings: Settings, env: Mapping[str, str], data_dir: Path) -> Sequence[Found]:
    """The accounts that were chosen, or else those that are found; at least one, the preferred one first.

    Raises:
        SettingsError, StoreError: there is none; the message says where it was looked for and how to get one.
    """
    discovery = await look_for_accounts(settings, env, data_dir)
    if not discovery.found:
        if settings.guests.key or settings.simulator.instead:  # every request may bring its own, or needs none
            return []
        raise SettingsError(f"{discovery.explain()}\nTo try it without an account: kirostream serve --demo")
    first, *others = discovery.found
    return [replace(first, notes=(*first.notes, *discovery.trouble)), *others]


async def look_for_accounts(settings: Settings, env: Mapping[str, str], data_dir: Path) -> Discovery:
    """What there is, and what was looked at.

    Raises:
        SettingsError, StoreError: what was chosen cannot be used.
    """
    return await discover(
        ("the environment", from_environment(env)),
        ("the settings", settings.account),
        env=env,
        home=Path(env.get("HOME") or Path.home()),
        data_dir=data_dir,
    )


def as_set(account: Account, settings: Settings) -> Account:
    """The account as the operator wants it addressed."""
    terms = terms_of(account, settings.pool.accounts)
    return replace(account, api_region=terms.region or account.api_region, endpoint=terms.endpoint)


def described(found: Sequence[Found], settings: Settings) -> str:
    """Which credentials are used."""
    if not found:
        return "the accounts that come with requests" if settings.guests.key else "no account"
    first = found[0].source.describe()
    return first if len(found) == 1 else f"{len(found)} accounts, the first from {first}"
