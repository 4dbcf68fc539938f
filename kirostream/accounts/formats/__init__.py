"""Account files of other programs. What exists is what this table says; the first that fits a text is the one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kirostream.accounts.formats import account_manager, dotenv, kiro_gateway, kiro_go, kiro_rs
from kirostream.accounts.formats.portable import Format
from kirostream.errors import SettingsError

FORMATS: Final[Mapping[str, Format]] = {
    each.name: each
    for each in (
        Format(
            name="account-manager",
            about="export of Kiro Account Manager (JSON)",
            fits=account_manager.fits,
            read=account_manager.read,
            write=account_manager.write,
        ),
        Format(
            name="kiro-go", about="config.json of Kiro-Go", fits=kiro_go.fits, read=kiro_go.read, write=kiro_go.write
        ),
        Format(
            name="kiro-gateway",
            about="credentials.json of kiro-gateway",
            fits=kiro_gateway.fits,
            read=kiro_gateway.read,
            write=kiro_gateway.write,
        ),
        Format(
            name="kiro-rs",
            about="credentials.json of kiro.rs; also KIRO_AUTH_TOKEN of kiro2api, and token files",
            fits=kiro_rs.fits,
            read=kiro_rs.read,
            write=kiro_rs.write,
        ),
        Format(
            name="cards",
            about="lines of email----password----refreshToken----...",
            fits=account_manager.fits_cards,
            read=account_manager.read_cards,
            write=None,
        ),
        Format(
            name="csv",
            about="a table with a column of tokens",
            fits=account_manager.fits_csv,
            read=account_manager.read_csv,
            write=None,
        ),
        Format(name="env", about=".env with refresh tokens", fits=dotenv.fits, read=dotenv.read, write=dotenv.write),
    )
}


def detect(text: str) -> Format:
    """The format of a text.

    Raises:
        SettingsError: it is of none that is known.
    """
    for each in FORMATS.values():
        if each.fits(text):
            return each
    raise SettingsError(f"the file is in no format that is known; known are {', '.join(FORMATS)}")
