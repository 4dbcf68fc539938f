"""What is sealed cannot be read, changed or swapped without the key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.errors import StoreError
from kirostream.stores.sealed import SealedStore

SECRET = b"aorEXAMPLE, a refresh token"


@pytest.fixture
def store(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "sealed")


def test_what_is_put_is_what_is_got(store: SealedStore) -> None:
    assert store.get("a") is None
    store.put("a", SECRET)
    store.put("b", b"")
    store.put("a", SECRET + b"2")
    assert store.get("a") == SECRET + b"2"
    assert store.get("b") == b""
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_another_process_with_the_same_folder_reads_it(store: SealedStore, tmp_path: Path) -> None:
    store.put("a", SECRET)
    assert SealedStore(tmp_path / "sealed").get("a") == SECRET


def test_nothing_on_the_disk_shows_the_record_or_its_name(store: SealedStore, tmp_path: Path) -> None:
    store.put("refresh-token/x", SECRET)
    files = list((tmp_path / "sealed").iterdir())
    assert len(files) == 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert SECRET not in file.read_bytes()
        assert "refresh" not in file.name
    assert stat.S_IMODE((tmp_path / "sealed").stat().st_mode) == 0o700


def test_the_same_record_is_never_sealed_to_the_same_bytes(store: SealedStore) -> None:
    store.put("a", SECRET)
    before = store.path_of("a").read_bytes()
    store.put("a", SECRET)
    assert store.path_of("a").read_bytes() != before


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 4 + 12 + len(SECRET) + 16 - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_seen(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    store = SealedStore(tmp_path_factory.mktemp("sealed"))
    store.put("a", SECRET)
    data = bytearray(store.path_of("a").read_bytes())
    data[at] ^= flip
    store.path_of("a").write_bytes(data)
    with pytest.raises(StoreError, match=r"cannot unseal .* log in again"):
        store.get("a")


@pytest.mark.parametrize("length", [0, 3, 16, 31])
def test_a_cut_record_is_seen(store: SealedStore, length: int) -> None:
    store.put("a", SECRET)
    store.path_of("a").write_bytes(store.path_of("a").read_bytes()[:length])
    with pytest.raises(StoreError, match="cannot unseal"):
        store.get("a")


def test_a_record_under_another_name_is_seen(store: SealedStore) -> None:
    store.put("a", SECRET)
    store.put("b", b"other")
    store.path_of("b").write_bytes(store.path_of("a").read_bytes())
    with pytest.raises(StoreError, match="cannot unseal"):
        store.get("b")


def test_another_key_is_seen(store: SealedStore, tmp_path: Path) -> None:
    store.put("a", SECRET)
    (tmp_path / "sealed" / "key").write_bytes(b"k" * 32)
    with pytest.raises(StoreError, match="the key beside it is another one"):
        SealedStore(tmp_path / "sealed").get("a")


def test_a_key_that_is_none_or_that_others_can_read_is_refused(store: SealedStore, tmp_path: Path) -> None:
    store.put("a", SECRET)
    key = tmp_path / "sealed" / "key"
    key.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        SealedStore(tmp_path / "sealed").get("a")
    key.write_bytes(b"short")
    with pytest.raises(StoreError, match="has 32 bytes, this file has 5"):
        SealedStore(tmp_path / "sealed").get("a")


def test_an_envelope_opens_what_it_sealed(store: SealedStore, tmp_path: Path) -> None:
    envelope = store.envelope("thoughts")
    sealed = envelope.seal(SECRET)
    assert envelope.unseal(sealed) == SECRET
    assert SealedStore(tmp_path / "sealed").envelope("thoughts").unseal(sealed) == SECRET
    assert sealed == envelope.seal(SECRET) != envelope.seal(SECRET + b".")
    assert sealed.isascii()
    assert envelope.unseal(envelope.seal(b"")) == b""


def test_an_envelope_opens_nothing_else(store: SealedStore, tmp_path: Path) -> None:
    envelope = store.envelope("thoughts")
    sealed = envelope.seal(SECRET)
    others = [store.envelope("other"), SealedStore(tmp_path / "another").envelope("thoughts")]
    assert [other.unseal(sealed) for other in others] == [None, None]
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for text in ("", "kse1.", "kse1.AAAA", "kse1.*", "c3R1Yg==", sealed[:-4], changed):
        assert envelope.unseal(text) is None
