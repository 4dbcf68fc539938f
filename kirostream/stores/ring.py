"""A folder of files of which the newest stay: for what is looked at once, if ever."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kirostream.errors import StoreError
from kirostream.stores.files import atomic_write, file_trouble, private_folder


class FileRing:
    """Keeps the newest files of one kind, for this user alone. It blocks: call it in a thread.

    Names decide on the age: they have to sort as they were made, so let them begin with the time. Files of other kinds
    in the folder are not touched.

    Args:
        folder: made with the first file.
        suffix: of the names, with its dot.
        most: files at most.
        most_bytes: of all of them together; a single file over it is refused.
        oldest: seconds after which a file goes, once somebody prunes.
        clock: unix seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        suffix: str,
        most: int,
        most_bytes: int,
        oldest: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._most = most
        self._most_bytes = most_bytes
        self._oldest = oldest
        self._clock = clock

    def __repr__(self) -> str:
        return f"<FileRing {self._folder}, at most {self._most} files of {self._most_bytes} bytes>"

    def files(self) -> list[Path]:
        """Those that there are, the newest first.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            return sorted(self._folder.glob(f"*{self._suffix}"), reverse=True)
        except OSError as error:
            raise file_trouble(self._folder, "read", error) from error

    def keep(self, stem: str, data: bytes) -> Path:
        """Write a file, then delete the oldest ones that are too many. An existing file of this name is replaced.

        Raises:
            StoreError: it cannot be written, or is too large to be kept.
        """
        if len(data) > self._most_bytes:
            raise StoreError(f"{len(data)} bytes do not fit into {self._folder}, which takes {self._most_bytes}")
        path = private_folder(self._folder) / f"{stem}{self._suffix}"
        atomic_write(path, data)
        self.prune()
        return path

    def prune(self) -> None:
        """Delete what is too old, too many or too much.

        Raises:
            StoreError: it cannot be deleted.
        """
        self._delete(self._too_many())

    def clear(self) -> int:
        """Delete all of them. How many they were.

        Raises:
            StoreError: one cannot be deleted.
        """
        return self._delete(iter(self.files()))

    def _too_many(self) -> Iterator[Path]:
        count = size = 0
        before = self._clock() - self._oldest
        for path in self.files():
            try:
                found = path.stat()
            except FileNotFoundError:  # somebody else prunes too
                continue
            size += found.st_size
            count += 1
            if count > self._most or size > self._most_bytes or found.st_mtime < before:
                yield path

    def _delete(self, paths: Iterator[Path]) -> int:
        count = 0
        try:
            for path in paths:
                path.unlink(missing_ok=True)
                count += 1
        except OSError as error:
            raise file_trouble(self._folder, "write", error) from error
        return count
