"""The size of an image, from its first bytes."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.images import png
from kirostream.turn.images import pixels


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpeg(*before: bytes, frame: int = 0xC0) -> bytes:
    size = segment(frame, struct.pack(">BHHB", 8, 480, 640, 3) + b"\1\x11\0" * 3)
    return b"\xff\xd8" + b"".join(before) + size + segment(0xDA, b"\0" * 10) + b"scan"


def webp(kind: bytes, data: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


WIDE = (640, 480)
IMAGES = {
    "png": png(640, 480),
    "gif": b"GIF89a" + struct.pack("<HH", 640, 480) + b"\0\0\0",
    "webp, lossy": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640 | 1 << 14, 480)),
    "webp, lossless": webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)),
    "webp, extended": webp(b"VP8X", b"\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
    "jpeg": jpeg(segment(0xE0, b"JFIF\0")),
    "jpeg, progressive": jpeg(frame=0xC2),
    "jpeg, behind a thumbnail": jpeg(segment(0xE1, jpeg() * 500), segment(0xC4, b"\0" * 30)),
    "jpeg, with fillers": jpeg(b"\xff\xff\xff", b"\xff\x01"),
}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_the_size_of_an_image(data: bytes) -> None:
    assert pixels(base64.b64encode(data).decode()) == WIDE


@pytest.mark.parametrize(
    "data", [b"", b"BM", b"\xff\xd8", b"\xff\xd8" + b"\0" * 90, jpeg()[:9], b"GIF89a" + b"\0" * 8, webp(b"ICCP", b"x")]
)
def test_no_size_to_be_seen(data: bytes) -> None:
    assert pixels(base64.b64encode(data).decode()) is None


@given(st.text() | st.binary().map(lambda data: base64.b64encode(b"\xff\xd8\xff" + data).decode()))
def test_nothing_is_too_broken_to_be_looked_at(data: str) -> None:
    size = pixels(data)
    assert size is None or min(size) > 0
