"""Files that are whole at every moment, and locks that two processes share.

Theory of `atomic_write`: the new content goes to a file of its own in the same folder, is flushed to the disk, and then
takes the old file's name in one step; the folder is flushed last, so that the name survives a power cut too. A reader,
and a crash between any two steps, sees the old file or the new one. What a crash can leave behind is a stray
``.<name>.*.tmp`` with mode 0600; the next write of that file clears it away once it is old enough to be nobody's.

Locks are advisory (flock, or msvcrt on Windows), held on a file of their own that is never deleted: deleting it would
let two processes lock two files of the same name. The kernel drops a lock when its process dies.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Final

import trio

from kirostream.errors import StoreError


class FileOps:
    """The calls of the operating system that can fail half-way. Tests put a failing one in its place."""

    def write(self, fd: int, data: memoryview) -> int:
        """As `os.write`: it may write less than it was given."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Until the file's content is on the disk."""
        os.fsync(fd)

    def replace(self, old: str, new: str) -> None:
        """Take over the name `new`, in one step."""
        os.replace(old, new)

    def fsync_folder(self, folder: str) -> None:
        """Until the folder's names are on the disk. Windows has no such call and needs none."""
        if sys.platform != "win32":
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


OS: Final = FileOps()

UNWRITABLE: Final = frozenset({"EROFS", "ENOSPC", "EDQUOT", "EACCES", "EPERM"})
"""Reasons of a `StoreError` for which a file cannot be written now, and may be at another time."""

_STRAY: Final = 60.0
"""Seconds after which a file that was never given its name is nobody's: a write takes milliseconds."""


def file_trouble(path: Path, doing: str, error: OSError) -> StoreError:
    """What happened to `path`, and what to do, in one sentence. `doing` is ``read``, ``write`` or ``lock``."""
    remedies = {
        errno.ENOENT: "it does not exist: check the path",
        errno.EACCES: f"permission denied: give this user the right to {doing} it",
        errno.EPERM: f"permission denied: give this user the right to {doing} it",
        errno.EROFS: "the file system is read-only: mount it writable",
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EISDIR: "it is a folder: name the file in it",
        errno.ENOTDIR: "a part of its path is not a folder: check the path",
        errno.EBUSY: "it is a mount point and cannot be replaced: mount its folder instead of the file",
    }
    why = remedies.get(error.errno or 0, error.strerror or type(error).__name__)
    return StoreError(f"cannot {doing} {path}: {why}", reason=errno.errorcode.get(error.errno or 0, ""))


def read_file(path: Path, *, limit: int = 4 << 20) -> bytes:
    """The content of a small file.

    Args:
        limit: bytes; a file over it is refused, because it is not what it is taken for.

    Raises:
        StoreError: it is missing, may not be read, or is over the limit.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise file_trouble(path, "read", error) from error
    if len(data) > limit:
        raise StoreError(f"cannot read {path}: it is over {limit} bytes, so it is not the file it is taken for")
    return data


def read_if_there(path: Path) -> bytes | None:
    """The same, None where there is no such file."""
    try:
        return read_file(path)
    except StoreError as error:
        if error.reason == "ENOENT":
            return None
        raise


def private_folder(folder: Path) -> Path:
    """Make `folder` and its parents, for this user alone (0700). It may exist.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise file_trouble(folder, "write", error) from error
    return folder


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, ops: FileOps = OS) -> None:
    """Put `data` in the place of the file `path`, all or nothing. A link is followed; an existing file keeps its owner.

    Args:
        mode: permission bits of the new file, whatever the umask.

    Raises:
        StoreError: the old file is untouched, except where the folder itself could not be flushed.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    try:
        temporary = _write_temporary(folder, name, target, data, mode, ops)
        try:
            ops.replace(temporary, target)
        except OSError:
            _discard(temporary)
            raise
        ops.fsync_folder(folder)
    except OSError as error:
        raise file_trouble(path, "write", error) from error
    _clear_strays(folder, name)


def _clear_strays(folder: str, name: str) -> None:
    """What writers of this file left behind that were killed: it may hold a token that still works."""
    try:
        with os.scandir(folder) as entries:
            strays = [each for each in entries if each.name.startswith(f".{name}.") and each.name.endswith(".tmp")]
        for stray in strays:
            if time.time() - stray.stat(follow_symlinks=False).st_mtime > _STRAY:
                _discard(stray.path)
    except OSError:  # the file itself is written; another write will see to it
        pass


def create_exclusive(path: Path, data: bytes, *, mode: int = 0o600, ops: FileOps = OS) -> bool:
    """Make the file `path` with `data` in it, unless there is one. Of two processes exactly one gets True.

    The file appears whole or not at all: it is written under another name and then linked.

    Raises:
        StoreError: it cannot be made.
    """
    folder, name = os.path.split(os.path.realpath(path))
    target = os.path.join(folder, name)
    try:
        temporary = _write_temporary(folder, name, target, data, mode, ops)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            _discard(temporary)
        ops.fsync_folder(folder)
    except OSError as error:
        raise file_trouble(path, "write", error) from error
    return True


def _write_temporary(folder: str, name: str, target: str, data: bytes, mode: int, ops: FileOps) -> str:
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[ops.write(fd, rest) :]
            if sys.platform != "win32":
                os.fchmod(fd, mode)
                _keep_owner(fd, target)
            ops.fsync(fd)
        finally:
            os.close(fd)
    except OSError:
        _discard(temporary)
        raise
    return temporary


def _keep_owner(fd: int, target: str) -> None:
    """Root may write a user's file; the user must still be able to read it afterwards."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    try:
        owner = os.stat(target)
    except FileNotFoundError:
        return
    os.fchown(fd, owner.st_uid, owner.st_gid)


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # the error that brought us here is the one to tell
        pass


class FileLock:
    """A lock on a file of its own, held by one task of one process at a time. Use it with ``async with``.

    Waiting asks without blocking and sleeps in between, so it needs no thread and can be cancelled: the deadline is the
    caller's.

    Args:
        path: made if it is not there; never deleted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __repr__(self) -> str:
        return f"<FileLock {self._path}, {'free' if self._fd < 0 else 'held'}>"

    async def acquire(self) -> None:
        """Wait for it.

        Raises:
            StoreError: the file cannot be opened or locked.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise file_trouble(self._path, "lock", error) from error
        try:
            pause = 0.01
            while not _try_lock(fd, self._path):
                await trio.sleep(pause)
                pause = min(pause * 2, 0.25)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Let the next one in."""
        fd, self._fd = self._fd, -1
        _unlock(fd)
        os.close(fd)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int, path: Path) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise file_trouble(path, "lock", error) from error
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int, path: Path) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise file_trouble(path, "lock", error) from error
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
