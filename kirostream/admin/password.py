"""The panel's own password, kept as what scrypt makes of it in a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from kirostream.errors import SettingsError, StoreError
from kirostream.stores.files import atomic_write, private_folder, read_if_there

FILE: Final = "admin-password"
SHORTEST: Final = 8
"""Characters. Longer is better; a shorter one is guessed within days even at the rate that the login allows."""
LONGEST: Final = 1024
_N, _R, _P = 2**15, 8, 3
"""scrypt's cost (RFC 7914 section 2): 32 MiB and some 200 ms a try."""
_MEMORY: Final = 64 << 20


def hashed(password: str) -> str:
    """``scrypt$N$r$p$salt$hash``, both in hex.

    Raises:
        SettingsError: the password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise SettingsError(f"A password has {SHORTEST} to {LONGEST} characters. Choose another one.")
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${salt.hex()}${_derive(password, salt, _N, _R, _P).hex()}"


def verified(password: str, stored: str) -> bool:
    """Whether `password` is the one that `stored` was made of. How long it takes says nothing of how near it was.

    Raises:
        StoreError: `stored` is not what `hashed` gives.
    """
    try:
        name, n, r, p, salt, digest = stored.split("$")
        if name != "scrypt":
            raise ValueError(name)
        derived = _derive(password[:LONGEST], bytes.fromhex(salt), int(n), int(r), int(p))
        return hmac.compare_digest(derived, bytes.fromhex(digest))
    except ValueError as error:
        raise StoreError(
            f"The file {FILE} of the data directory is damaged. Set the password anew: kirostream admin password"
        ) from error


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


class PasswordFile:
    """The file. What another process changes of it holds from the next look on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    def __repr__(self) -> str:
        return f"<PasswordFile {self._path}>"

    def read(self) -> str:
        """What is kept; empty: no password was set.

        Raises:
            StoreError: the file cannot be read.
        """
        data = read_if_there(self._path)
        return (data or b"").decode("ascii", "replace").strip()

    def version(self) -> tuple[int, ...]:
        """Another value after every change; one `stat`, so it can be asked with every request."""
        try:
            said = os.stat(self._path)
        except OSError:
            return ()
        return said.st_ino, said.st_mtime_ns, said.st_size

    def write(self, stored: str) -> None:
        """Keep what `hashed` gave.

        Raises:
            StoreError: the file cannot be written.
        """
        private_folder(self._folder)
        atomic_write(self._path, stored.encode("ascii") + b"\n")

    def remove(self) -> bool:
        """Forget the password; False: there was none.

        Raises:
            StoreError: the file cannot be removed.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot remove {self._path}: {error.strerror}; check who owns it") from error
        return True
