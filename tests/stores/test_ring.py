from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from kirostream.errors import StoreError
from kirostream.stores.ring import FileRing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_stay(tmp_path: Path) -> None:
    ring = FileRing(tmp_path / "a" / "b", suffix=".json", most=3, most_bytes=100)
    for n in range(5):
        assert ring.keep(f"0{n}", b"x").read_bytes() == b"x"
    assert names(tmp_path / "a" / "b") == ["02.json", "03.json", "04.json"]


def test_all_of_them_have_a_size(tmp_path: Path) -> None:
    ring = FileRing(tmp_path, suffix=".json", most=10, most_bytes=100)
    for n, size in enumerate((30, 30, 30, 50)):
        ring.keep(str(n), b"x" * size)
    assert names(tmp_path) == ["2.json", "3.json"]
    ring.keep("4", b"x" * 100)
    assert names(tmp_path) == ["4.json"]
    with pytest.raises(StoreError, match="101 bytes do not fit"):
        ring.keep("5", b"x" * 101)
    assert names(tmp_path) == ["4.json"]


def test_others_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text("mine")
    ring = FileRing(tmp_path, suffix=".json", most=1, most_bytes=100)
    ring.keep("1", b"x")
    ring.keep("2", b"x")
    assert names(tmp_path) == ["0.txt", "2.json"]


def test_a_name_that_comes_again_is_replaced(tmp_path: Path) -> None:
    ring = FileRing(tmp_path, suffix=".json", most=2, most_bytes=100)
    ring.keep("1", b"x")
    assert ring.keep("1", b"y").read_bytes() == b"y"
    assert names(tmp_path) == ["1.json"]


def test_nobody_else_reads_them(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("permission bits are POSIX")
    path = FileRing(tmp_path / "new", suffix=".json", most=2, most_bytes=100).keep("1", b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        FileRing(tmp_path / "file", suffix=".json", most=2, most_bytes=100).keep("1", b"x")
