"""A folder of files of which the newest stay: for what is looked at once, if ever."""

from __future__ import annotations

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
    """

    def __init__(self, folder: Path, *, suffix: str, most: int, most_bytes: int) -> None:
        self._folder = folder
        self._suffix = suffix
        self._most = most
        self._most_bytes = most_bytes

    def __repr__(self) -> str:
        return f"<FileRing {self._folder}, at most {self._most} files of {self._most_bytes} bytes>"

    def keep(self, stem: str, data: bytes) -> Path:
        """Write a file, then delete the oldest ones that are too many. An existing file of this name is replaced.

        Raises:
            StoreError: it cannot be written, or is too large to be kept.
        """
        if len(data) > self._most_bytes:
            raise StoreError(f"{len(data)} bytes do not fit into {self._folder}, which takes {self._most_bytes}")
        path = private_folder(self._folder) / f"{stem}{self._suffix}"
        atomic_write(path, data)
        self._prune()
        return path

    def _prune(self) -> None:
        count = size = 0
        try:
            for path in sorted(self._folder.glob(f"*{self._suffix}"), reverse=True):
                try:
                    size += path.stat().st_size
                except FileNotFoundError:  # somebody else prunes too
                    continue
                count += 1
                if count > self._most or size > self._most_bytes:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise file_trouble(self._folder, "write", error) from error
