"""One device identity an account: 64 hex digits, made once, kept, never shared (kiro-protocol.md section 1.4).

It is random. One derived from the refresh token would change when the token rotates; one derived from the machine would
tie the accounts of a machine together.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import trio

from kirostream.accounts.account import AccountId
from kirostream.errors import StoreError
from kirostream.stores.files import UNWRITABLE, FileLock, atomic_write, private_folder, read_if_there

_HEX64 = re.compile(r"[0-9a-f]{64}")


def random_machine_id() -> str:
    """A new identity, of the shape the IDE has."""
    return secrets.token_hex(32)


def read_machine_id(text: str) -> str | None:
    """An imported identity: 64 hex digits as they are; a UUID, as some tools keep it, doubled; None for all else."""
    bare = text.strip().lower().replace("-", "")
    if re.fullmatch(r"[0-9a-f]{32}", bare):
        bare *= 2
    return bare if _HEX64.fullmatch(bare) else None


class Devices:
    """The identities of all accounts, in ``devices.json`` of the data folder. Processes may share it.

    Args:
        folder: made on the first write.
        make: where new identities come from.
    """

    def __init__(self, folder: Path, *, make: Callable[[], str] = random_machine_id) -> None:
        self._folder = folder
        self._path = folder / "devices.json"
        self._make = make

    def __repr__(self) -> str:
        return f"<Devices {self._path}>"

    async def machine_id(self, account: AccountId, imported: str = "") -> str:
        """The identity of `account`, made (or taken from `imported`) on the first call.

        Where nothing can be written, it is the imported one, or made of the account's id: the same at every start,
        until one can be kept.

        Raises:
            StoreError: the file cannot be read, or is damaged.
        """
        known = (await trio.to_thread.run_sync(self._read)).get(account)
        if known is not None:
            return known
        sent = read_machine_id(imported)
        try:
            await trio.to_thread.run_sync(private_folder, self._folder)
            async with FileLock(self._folder / "devices.lock"):
                return await trio.to_thread.run_sync(self._add, account, sent)
        except StoreError as error:
            if error.reason not in UNWRITABLE:
                raise
            return sent or hashlib.sha256(f"device of {account}".encode()).hexdigest()

    def _add(self, account: AccountId, imported: str | None) -> str:
        known = self._read()
        if account not in known:
            fresh = imported if imported is not None and imported not in known.values() else self._make()
            known[account] = fresh
            atomic_write(self._path, json.dumps({"machines": known}, indent=2).encode() + b"\n")
        return known[account]

    def _read(self) -> dict[str, str]:
        data = read_if_there(self._path)
        if data is None:
            return {}
        try:
            machines = json.loads(data)["machines"]
            return {str(account): _checked(machine) for account, machine in machines.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self._path} is damaged: restore it from a backup, or delete it to give every account a new device"
            ) from error


def _checked(machine: object) -> str:
    if not isinstance(machine, str) or not _HEX64.fullmatch(machine):
        raise ValueError("no machine id")
    return machine
