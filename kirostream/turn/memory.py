"""Values by the bytes they were read from, for a while: an agent sends its whole conversation again with every turn.

A value has to be a function of its bytes, and frozen. Then it does not matter whether it was found or made, and a
client may change, drop or reorder what it sent as it likes: bytes that differ are not found.

There are two generations. What is found or kept goes into the young one; when that is full, or of age, it becomes the
old one, and what was old is let go. So the memory is bounded in bytes, and what nobody asks for is gone after two ages.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Protocol

WEIGHT: Final = 4
"""Bytes of memory that a byte of a key stands for: the key, the texts of the value, and what is written of them."""
ENTRY: Final = 2_000
"""Bytes of memory of an entry beside that: the objects."""
LARGEST: Final = 1 / 16
"""Of a generation: a larger value (a message of images) would drive out too much else."""


class Key(Hashable, Protocol):
    """What a value is found by: one of its kind, of these bytes. Equal to another of the same."""

    @property
    def kind(self) -> str:
        """What was made of them."""

    @property
    def raw(self) -> bytes:
        """What it was made of."""


class Memory:
    """Bounded by `limit` bytes of memory, about; 0 remembers nothing. Kinds of values do not meet each other."""

    def __init__(self, limit: int) -> None:
        self._limit = limit // 2  # of a generation
        self._size = 0
        self._young: dict[Key, Any] = {}
        self._old: dict[Key, Any] = {}

    def __repr__(self) -> str:
        return f"<Memory of {len(self)}, the young ones {self._size} of {self._limit} bytes>"

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, key: Key) -> Any:
        """The value that was kept for these bytes, None where there is none."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.keep(key, value)
        return value

    def keep(self, key: Key, value: object) -> None:
        """Remember what was made of these bytes. What is too large is not."""
        size = WEIGHT * len(key.raw) + ENTRY
        if size > self._limit * LARGEST:
            return
        if self._size + size > self._limit:
            self.age()
        self._young[key] = value
        self._size += size

    def age(self) -> None:
        """One generation on."""
        self._old, self._young, self._size = self._young, {}, 0


FORGETFUL: Final = Memory(0)
"""Remembers nothing."""
