"""AES-256-GCM (NIST SP 800-38D) with 12 bytes of nonce and 16 of tag, by the OpenSSL that Python has loaded for `ssl`.

The package `cryptography` brings an OpenSSL of its own: 7.7 MiB of an idle gateway and 14 ms of its start, for these
two functions. So they are called where they are already, through `ctypes`, in 0.1 MiB and 2 ms. Where they cannot be
reached (a Python that OpenSSL is linked into, Windows) it is `cryptography` after all. Both give the same bytes.
"""

from __future__ import annotations

import _ssl
import ctypes
import functools
from typing import Any, Final, Protocol

TAG: Final = 16
"""Bytes by which what is sealed is longer."""
_MOST: Final = 2**31 - 1
"""Bytes that one call takes: OpenSSL counts them with an int."""
_GET_TAG, _SET_TAG = 0x10, 0x11
"""``EVP_CTRL_AEAD_GET_TAG`` and ``EVP_CTRL_AEAD_SET_TAG`` of openssl/evp.h."""
_TAG_OF_NOTHING: Final = bytes.fromhex("530f8afbc74536b9a963b4f1c4cb738b")
"""What nothing is sealed to with a key and a nonce of zeros (test case 13 of the authors of GCM)."""


class Forged(Exception):
    """The bytes were not sealed with this key, this nonce and these bound bytes, or were changed."""


class Aead(Protocol):
    """A cipher with its key. Threads may share it. A nonce is for one message only."""

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        """The ciphertext with its tag. `bound` is not in it, but to decrypt it takes the same.

        Raises:
            OverflowError: 2 GiB or more.
        """
        ...

    def decrypt(self, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
        """What was encrypted.

        Raises:
            Forged: it was not, or not so.
            OverflowError: 2 GiB or more.
        """
        ...


def open_aead(key: bytes) -> Aead:
    """A cipher for a key of 32 bytes."""
    if len(key) != 32:
        raise ValueError(f"a key of AES-256 has 32 bytes, this one has {len(key)}")
    library = _loaded()
    return ByPackage(key) if library is None else ByOpenSsl(key, library)


class _Library:
    """The functions of libcrypto, as openssl/evp.h declares them, the same in OpenSSL 1.1.1 and 3.

    Raises:
        AttributeError, OSError: they are not where `ssl` is.
    """

    def __init__(self) -> None:
        # The file is loaded, so this gives its handle, and a look-up in that searches what it was linked with.
        library = ctypes.CDLL(_ssl.__file__)
        pointer, number, octets = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        out = ctypes.POINTER(number)

        def function(name: str, gives: Any, *takes: Any) -> Any:
            found = library[name]
            found.restype, found.argtypes = gives, takes
            return found

        self.aes_256_gcm = function("EVP_aes_256_gcm", pointer)
        self.new = function("EVP_CIPHER_CTX_new", pointer)
        self.free = function("EVP_CIPHER_CTX_free", None, pointer)
        self.control = function("EVP_CIPHER_CTX_ctrl", number, pointer, number, number, octets)
        self.start = function("EVP_CipherInit_ex", number, pointer, pointer, pointer, octets, octets, number)
        self.update = function("EVP_CipherUpdate", number, pointer, octets, out, octets, number)
        self.finish = function("EVP_CipherFinal_ex", number, pointer, octets, out)
        self.forget_errors = function("ERR_clear_error", None)


@functools.cache
def _loaded() -> _Library | None:
    """The library, where it can be reached and does what it should."""
    try:
        library = _Library()
    except (AttributeError, OSError):
        return None
    sealed = ByOpenSsl(bytes(32), library).encrypt(bytes(12), b"", b"")
    return library if sealed == _TAG_OF_NOTHING else None


class ByOpenSsl:
    """By the library that is there."""

    def __init__(self, key: bytes, library: _Library) -> None:
        self._key = key
        self._library = library

    def __repr__(self) -> str:
        return "<ByOpenSsl>"

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        done = self._run(nonce, data, bound, None)
        if done is None:
            raise MemoryError("OpenSSL could not encrypt")
        return done

    def decrypt(self, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
        done = self._run(nonce, sealed[:-TAG], bound, sealed[-TAG:]) if len(sealed) >= TAG else None
        if done is None:
            raise Forged
        return done

    def _run(self, nonce: bytes, data: bytes, bound: bytes, tag: bytes | None) -> bytes | None:
        """Encrypt, and add a tag; where there is one, decrypt and compare. None: OpenSSL says no."""
        if len(nonce) != 12:
            raise ValueError(f"a nonce has 12 bytes, this one has {len(nonce)}")
        if max(len(data), len(bound)) > _MOST - TAG:
            raise OverflowError("AES-GCM takes less than 2 GiB at once")
        call, seals = self._library, tag is None
        into = ctypes.create_string_buffer(tag or b"", TAG)
        out = ctypes.create_string_buffer(len(data))
        count = ctypes.c_int()
        context = call.new()
        if context is None:
            raise MemoryError
        try:
            said = (
                call.start(context, call.aes_256_gcm(), None, self._key, nonce, seals) == 1
                and (not bound or call.update(context, None, count, bound, len(bound)) == 1)
                and (not data or call.update(context, out, count, data, len(data)) == 1)
                and (seals or call.control(context, _SET_TAG, TAG, into) == 1)
                and call.finish(context, None, count) == 1
                and (not seals or call.control(context, _GET_TAG, TAG, into) == 1)
            )
        finally:
            call.free(context)  # which also wipes it
        if not said:
            call.forget_errors()  # of this thread's queue, in which `ssl` looks for its own
            return None
        return out.raw + into.raw if seals else out.raw


class ByPackage:
    """By `cryptography`, which is imported with the first."""

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._forged = InvalidTag

    def __repr__(self) -> str:
        return "<ByPackage>"

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        return self._cipher.encrypt(nonce, data, bound)

    def decrypt(self, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
        try:
            return self._cipher.decrypt(nonce, sealed, bound)
        except self._forged:
            raise Forged from None
