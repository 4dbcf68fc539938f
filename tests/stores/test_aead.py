"""AES-256-GCM is the standard's, whichever library does it, and what was touched does not open."""

from __future__ import annotations

import _ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.stores import aead
from kirostream.stores.aead import TAG, Aead, ByOpenSsl, ByPackage, Forged, open_aead

KEY: Final = "feffe9928665731c6d6a8f9467308308" * 2
NONCE: Final = "cafebabefacedbaddecaf888"
PLAIN: Final = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
    "ba637b39"
)
BOUND: Final = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
CIPHER: Final = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
    "bcc9f662"
)
CASES: Final = [
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32,
        "00" * 12,
        "00" * 16,
        "",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (KEY, NONCE, PLAIN, BOUND, CIPHER, "76fc6ece0f4e1768cddf8853bb2d551b"),
]
"""Key, nonce, plain, bound, cipher, tag: test cases 13, 14 and 16 of McGrew and Viega's specification of GCM."""


Make: TypeAlias = Callable[[bytes], Aead]


def by_openssl(key: bytes) -> Aead:
    library = aead._loaded()
    if library is None:
        pytest.skip("the OpenSSL of this Python cannot be reached")
    return ByOpenSsl(key, library)


@pytest.fixture(params=[by_openssl, ByPackage], ids=["openssl", "package"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.mark.parametrize("case", CASES, ids=["nothing", "zeros", "bound"])
def test_the_cases_of_the_standard(make: Make, case: tuple[str, ...]) -> None:
    key, nonce, plain, bound, cipher, tag = (bytes.fromhex(part) for part in case)
    sealed = make(key).encrypt(nonce, plain, bound)
    assert sealed == cipher + tag
    assert make(key).decrypt(nonce, sealed, bound) == plain


@settings(max_examples=100, deadline=None)
@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=12, max_size=12),
    data=st.binary(max_size=70),
    bound=st.binary(max_size=20),
)
def test_both_give_the_same_bytes_and_read_the_other_s(key: bytes, nonce: bytes, data: bytes, bound: bytes) -> None:
    ours, theirs = by_openssl(key), ByPackage(key)
    sealed = ours.encrypt(nonce, data, bound)
    assert sealed == theirs.encrypt(nonce, data, bound)
    assert ours.decrypt(nonce, sealed, bound) == theirs.decrypt(nonce, sealed, bound) == data


def test_every_changed_bit_is_seen(make: Make) -> None:
    key, nonce, bound = b"k" * 32, b"n" * 12, b"name"
    cipher = make(key)
    sealed = cipher.encrypt(nonce, b"data", bound)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Forged):
            cipher.decrypt(nonce, bytes(changed), bound)
    for length in range(len(sealed)):
        with pytest.raises(Forged):
            cipher.decrypt(nonce, sealed[:length], bound)
    others = [(b"K" * 32, nonce, bound), (key, b"N" * 12, bound), (key, nonce, b"Name"), (key, nonce, b"")]
    for key_, nonce_, bound_ in others:
        with pytest.raises(Forged):
            make(key_).decrypt(nonce_, sealed, bound_)
    assert cipher.decrypt(nonce, sealed, bound) == b"data"  # it can still be used
    assert len(sealed) == 4 + TAG


def test_a_key_and_a_nonce_have_one_length() -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            open_aead(bytes(length))
    for length in (0, 11, 13):
        with pytest.raises(ValueError, match="12 bytes"):
            by_openssl(bytes(32)).encrypt(bytes(length), b"", b"")


def test_a_secret_is_not_shown(make: Make) -> None:
    assert "kkkk" not in repr(make(b"k" * 32))


def test_this_python_has_it_where_it_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    aead._loaded.cache_clear()
    assert isinstance(open_aead(bytes(32)), ByOpenSsl | ByPackage)
    aead._loaded.cache_clear()
    monkeypatch.delattr(_ssl, "__file__", raising=False)  # as in a Python that OpenSSL is linked into
    assert isinstance(open_aead(bytes(32)), ByPackage)
    aead._loaded.cache_clear()


def test_a_library_that_answers_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByOpenSsl, "encrypt", lambda self, nonce, data, bound: bytes(TAG))
    aead._loaded.cache_clear()
    assert isinstance(open_aead(bytes(32)), ByPackage)
    aead._loaded.cache_clear()


def test_what_was_refused_leaves_no_error_for_others() -> None:
    """`ssl` looks into the same queue of errors: one that is left there would be taken for a connection's."""
    code = """
import ctypes, _ssl
from kirostream.stores import aead
cipher = aead.open_aead(bytes(32))
if isinstance(cipher, aead.ByOpenSsl):
    try:
        cipher.decrypt(bytes(12), bytes(40), b"")
    except aead.Forged:
        pass
    assert ctypes.CDLL(_ssl.__file__).ERR_peek_error() == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
