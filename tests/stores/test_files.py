"""A file is the old one or the new one, whatever fails; a lock has one holder."""

from __future__ import annotations

import errno
import os
import stat
import sys
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

from kirostream.errors import StoreError
from kirostream.stores.files import (
    FileLock,
    FileOps,
    atomic_write,
    create_exclusive,
    file_trouble,
    private_folder,
    read_file,
    read_if_there,
)

posix = sys.platform != "win32"


class PowerCut(BaseException):
    """The machine is off: nothing after it runs, not even the clean-up."""


class FailingOps(FileOps):
    """Fails at one step: with an error of the system, or as a power cut would, half-way through a write."""

    STEPS = ("write", "fsync", "replace", "fsync_folder")

    def __init__(self, step: str, error: BaseException, *, trickle: bool = False) -> None:
        self.step = step
        self.error = error
        self.trickle = trickle

    def write(self, fd: int, data: memoryview) -> int:
        if self.step == "write":
            super().write(fd, data[: len(data) // 2])
            raise self.error
        return super().write(fd, data[:1] if self.trickle else data)

    def fsync(self, fd: int) -> None:
        if self.step == "fsync":
            raise self.error
        super().fsync(fd)

    def replace(self, old: str, new: str) -> None:
        if self.step == "replace":
            raise self.error
        super().replace(old, new)

    def fsync_folder(self, folder: str) -> None:
        if self.step == "fsync_folder":
            raise self.error
        super().fsync_folder(folder)


@pytest.mark.parametrize("error", [PowerCut(), OSError(errno.ENOSPC, "No space left on device")], ids=["cut", "full"])
@pytest.mark.parametrize("step", FailingOps.STEPS)
def test_a_failure_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, step: str, error: BaseException
) -> None:
    path = tmp_path / "f"
    atomic_write(path, b"old content")
    with pytest.raises((PowerCut, StoreError)) as caught:
        atomic_write(path, b"new content, longer", ops=FailingOps(step, error))
    assert path.read_bytes() == (b"new content, longer" if step == "fsync_folder" else b"old content")
    left = [entry for entry in tmp_path.iterdir() if entry != path]
    if isinstance(caught.value, StoreError):
        assert caught.value.message == f"cannot write {path}: the disk is full: free some space"
        assert left == []
    for stray in left:
        assert stat.S_IMODE(stray.stat().st_mode) == 0o600
    atomic_write(path, b"works again")
    assert path.read_bytes() == b"works again"


def test_short_writes_are_continued(tmp_path: Path) -> None:
    atomic_write(tmp_path / "f", b"byte by byte", ops=FailingOps("", PowerCut(), trickle=True))
    assert (tmp_path / "f").read_bytes() == b"byte by byte"


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_the_mode_does_not_hang_on_the_umask_or_the_old_file(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    path.chmod(0o644)
    before = os.umask(umask)
    try:
        atomic_write(path, b"x")
        atomic_write(tmp_path / "shared", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to(real / "f")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (real / "f").read_bytes() == b"new"


def test_root_leaves_a_file_to_its_owner(tmp_path: Path) -> None:
    if not posix or os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = tmp_path / "f"
    path.write_bytes(b"old")
    os.chown(path, 12345, 12346)
    atomic_write(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_of_two_creators_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert create_exclusive(path, b"first")
    assert not create_exclusive(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_created_half_way_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        create_exclusive(tmp_path / "key", b"first", ops=FailingOps("write", PowerCut()))
    assert not (tmp_path / "key").exists()


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert read_file(tmp_path / "f", limit=3) == b"abc"
    with pytest.raises(StoreError, match="over 2 bytes"):
        read_file(tmp_path / "f", limit=2)
    with pytest.raises(StoreError, match="does not exist: check the path"):
        read_file(tmp_path / "none")
    with pytest.raises(StoreError, match="it is a folder"):
        read_file(tmp_path)
    with pytest.raises(StoreError, match="a part of its path is not a folder"):
        read_file(tmp_path / "f" / "g")
    assert read_if_there(tmp_path / "none") is None
    with pytest.raises(StoreError):
        read_if_there(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "give this user the right to write it"),
        (errno.EROFS, "mount it writable"),
        (errno.EBUSY, "mount its folder instead"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_every_trouble_says_what_to_do(number: int, words: str) -> None:
    error = file_trouble(Path("/x/y"), "write", OSError(number, os.strerror(number)))
    assert error.message.startswith("cannot write /x/y: ")
    assert words in error.message
    assert error.reason == errno.errorcode[number]


def test_a_private_folder_is_private(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert private_folder(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StoreError):
        private_folder(tmp_path / "f")


async def test_a_lock_has_one_holder(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    inside = 0
    most = 0

    async def work() -> None:
        nonlocal inside, most
        async with FileLock(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            await trio.sleep(1)
            inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(work)
    assert most == 1
    assert trio.current_time() < 10


async def test_waiting_for_a_lock_can_be_given_up(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held, other = FileLock(path), FileLock(path)
    await held.acquire()
    assert repr(held).endswith("held>")
    with trio.move_on_after(3) as scope:
        await other.acquire()
    assert scope.cancelled_caught
    assert repr(other).endswith("free>")
    held.release()
    with trio.fail_after(0.1):
        await other.acquire()
    other.release()


async def test_a_lock_is_shared_with_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        f"import fcntl, sys; f = open({str(path)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        " sys.stdout.write('held'); sys.stdout.flush(); sys.stdin.read()"
    )
    if not posix:
        pytest.skip("the other process uses fcntl")
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [sys.executable, "-c", code], stdin=PIPE, stdout=PIPE)
        process: trio.Process = await nursery.start(run)
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"held"
        with trio.move_on_after(0.1) as scope:
            await FileLock(path).acquire()
        assert scope.cancelled_caught
        await process.stdin.aclose()  # it ends, and the kernel drops its lock
        with trio.fail_after(10):
            async with FileLock(path):
                pass


async def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot lock .*does not exist"):
        await FileLock(tmp_path / "no" / "lock").acquire()


def test_what_a_killed_writer_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    old, young, other = (tmp_path / f".{name}.tmp" for name in ("token.json.old", "token.json.new", "another.json.old"))
    for stray in (old, young, other):
        stray.write_bytes(b"secret")
    for stray in (old, other):
        os.utime(stray, (1, 1))
    atomic_write(path, b"x")
    assert {entry.name for entry in tmp_path.iterdir()} == {young.name, other.name, path.name}
