"""Where credentials live. What exists is what this table says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.direct import DirectSource
from kirostream.accounts.sources.env import HeldToken
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.own import OwnAccount
from kirostream.accounts.sources.source import CredentialSource

SOURCES: Final[Mapping[str, type[CredentialSource]]] = {
    "ide": IdeFile,
    "cli": CliDatabase,
    "own": OwnAccount,
    "token": HeldToken,
    "direct": DirectSource,
}
"""Kind of source (the first part of an account's id) to its class."""
