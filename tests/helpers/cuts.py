"""Every vector runs in three cuts: whole, byte by byte, and in pieces drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st


def bytewise(data: bytes) -> Iterator[bytes]:
    """One byte at a time."""
    for i in range(len(data)):
        yield data[i : i + 1]


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    """`size` bytes at a time; the last piece may be shorter."""
    for i in range(0, len(data), size):
        yield data[i : i + size]


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Any way to cut `data`, empty pieces included."""

    def at(points: list[int]) -> list[bytes]:
        ends = [*sorted(points), len(data)]
        starts = [0, *ends[:-1]]
        return [data[a:b] for a, b in zip(starts, ends, strict=True)]

    return st.lists(st.integers(0, len(data)), max_size=12).map(at)
