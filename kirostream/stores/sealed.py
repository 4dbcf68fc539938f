"""Secrets at rest: one sealed file a record, AES-256-GCM, under a key that only this user can read.

A record is ``KSS1``, 12 bytes of nonce, and the ciphertext with its tag. The record's name is part of what the tag
covers, so that records cannot be swapped. The key is 32 random bytes in ``key`` beside the records, 0600, made once. It
keeps secrets out of greps and copies of single files; it does not protect from who can read the whole folder.

Everything here blocks (small files): call it in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from kirostream.errors import StoreError
from kirostream.stores.aead import Aead, Forged, open_aead
from kirostream.stores.files import (
    OS,
    UNWRITABLE,
    FileOps,
    atomic_write,
    create_exclusive,
    private_folder,
    read_file,
    read_if_there,
)

_MAGIC: Final = b"KSS1"
_NONCE: Final = 12
_KEY: Final = 32


class SealedStore:
    """Named records of bytes in a folder. Tasks and processes may share it; a record is replaced as a whole.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder: Path, *, ops: FileOps = OS) -> None:
        self._folder = folder
        self._ops = ops
        self._cipher: Aead | None = None

    def __repr__(self) -> str:
        return f"<SealedStore {self._folder}>"

    def get(self, name: str) -> bytes | None:
        """The record, None where there is none.

        Raises:
            StoreError: it cannot be read, or was not sealed under this name with this key.
        """
        path = self.path_of(name)
        sealed = read_if_there(path)
        if sealed is None:
            return None
        if not sealed.startswith(_MAGIC) or len(sealed) < len(_MAGIC) + _NONCE + 16:
            raise self._broken(path)
        nonce = sealed[len(_MAGIC) : len(_MAGIC) + _NONCE]
        try:
            return self._aead().decrypt(nonce, sealed[len(_MAGIC) + _NONCE :], self._bound_to(name))
        except Forged:
            raise self._broken(path) from None

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` as the record.

        Raises:
            StoreError: it cannot be written; the old record is still there.
        """
        private_folder(self._folder)
        nonce = secrets.token_bytes(_NONCE)  # random: 2**32 records under one key are far away
        sealed = _MAGIC + nonce + self._aead().encrypt(nonce, data, self._bound_to(name))
        atomic_write(self.path_of(name), sealed, ops=self._ops)

    def delete(self, name: str) -> None:
        """Forget the record. It may be gone already."""
        self.path_of(name).unlink(missing_ok=True)

    def envelope(self, name: str) -> Envelope:
        """A seal for texts that others keep, under a key of its own that is made of this store's.

        Where no key is there and none can be written, one for the life of the process does: clients send back nothing
        that was sealed before.

        Raises:
            StoreError: the key cannot be read or made.
        """
        try:
            key = self._key()
        except StoreError as error:
            if error.reason not in UNWRITABLE or os.path.exists(self._folder / "key"):
                raise
            key = secrets.token_bytes(_KEY)
        return Envelope(hmac.digest(key, b"kirostream/envelope/1\0" + name.encode(), "sha256"))

    def path_of(self, name: str) -> Path:
        """The record's file. Its name is a digest: a record's name may hold what a file's name may not."""
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.sealed"

    @staticmethod
    def _bound_to(name: str) -> bytes:
        return b"kirostream/sealed/1\0" + name.encode()

    @staticmethod
    def _broken(path: Path) -> StoreError:
        return StoreError(
            f"cannot unseal {path}: it was changed, or the key beside it is another one; restore both from one backup,"
            " or delete the file and log in again",
            reason="unsealable",
        )

    def _aead(self) -> Aead:
        if self._cipher is None:
            self._cipher = open_aead(self._key())
        return self._cipher

    def _key(self) -> bytes:
        path = self._folder / "key"
        if not os.path.exists(path):
            private_folder(self._folder)
            create_exclusive(path, secrets.token_bytes(_KEY), ops=self._ops)  # False: another process was faster
        key = read_file(path, limit=4096)
        if len(key) != _KEY:
            raise StoreError(
                f"cannot use {path}: a key has {_KEY} bytes, this file has {len(key)}; restore it from a backup"
            )
        if sys.platform != "win32" and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            raise StoreError(f"cannot use {path}: others may read it; run: chmod 600 {path}", reason="permissions")
        return key


class Envelope:
    """Seals bytes into text that a client keeps and sends back. Nothing of it stays here.

    The nonce is made of the bytes themselves, so the same bytes always give the same text: what is said twice can be
    compared, and who has two texts learns only whether they say the same. Make one with `SealedStore.envelope`.
    """

    _MARK: Final = "kse1."

    def __init__(self, key: bytes) -> None:
        self._mac_key = hmac.digest(key, b"nonce", "sha256")
        self._key = hmac.digest(key, b"cipher", "sha256")
        self._cipher: Aead | None = None

    def __repr__(self) -> str:
        return "<Envelope>"

    def seal(self, data: bytes) -> str:
        """The sealed form: ASCII, a third longer."""
        nonce = hmac.digest(self._mac_key, data, "sha256")[:_NONCE]
        return self._MARK + base64.b64encode(nonce + self._aead().encrypt(nonce, data, b"")).decode()

    def unseal(self, sealed: str) -> bytes | None:
        """What was sealed; None where it was not sealed with this key, or was changed."""
        if not sealed.startswith(self._MARK):
            return None
        try:
            data = base64.b64decode(sealed[len(self._MARK) :], validate=True)
        except ValueError:
            return None
        if len(data) < _NONCE + 16:
            return None
        try:
            return self._aead().decrypt(data[:_NONCE], data[_NONCE:], b"")
        except Forged:
            return None

    def _aead(self) -> Aead:
        if self._cipher is None:
            self._cipher = open_aead(self._key)
        return self._cipher
