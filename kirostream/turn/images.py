"""The size of an image in pixels, from its first bytes: PNG, GIF, WebP, JPEG. Nothing is decompressed."""

from __future__ import annotations

import base64
import binascii
from typing import Final, TypeAlias

Size: TypeAlias = tuple[int, int]
"""Width and height."""

HEAD: Final = 64
"""Characters of base64 in which all but JPEG say their size."""
JPEG_HEAD: Final = 256 * 1024
"""Characters of base64 that are searched in a JPEG: thumbnails and colour profiles may stand before its size."""

_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of a JPEG behind which its size stands (ITU-T T.81, table B.1)."""
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length."""


def pixels(data: str) -> Size | None:
    """The size of an image that is given as base64; None where it cannot be seen."""
    head = _decoded(data[:HEAD])
    size = _jpeg(_decoded(data[:JPEG_HEAD])) if head.startswith(b"\xff\xd8") else _size(head)
    return size if size and all(size) else None


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _size(head: bytes) -> Size | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        match head[12:16]:
            case b"VP8X":
                return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
            case b"VP8L":
                both = int.from_bytes(head[21:25], "little")
                return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
            case b"VP8 ":
                return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _jpeg(data: bytes) -> Size | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF:  # a filler
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
