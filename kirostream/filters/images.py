"""Images as Kiro takes them: gif, jpeg, png or webp, called what they are, in clean base64.

The bytes decide on the type (kiro-protocol.md section 2.7).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from kirostream.turn.request import Image, Text

MAX_IMAGE_BYTES: Final = 10_000_000

_MAGIC: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64_DIRT = re.compile(r"[\s=]+")


def image_format(data: bytes) -> str:
    """``gif``, ``jpeg``, ``png`` or ``webp`` by the first 12 bytes; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")


def readable(image: Image) -> Text | Image:
    """The image under its true type, in clean base64; a sentence where it cannot be sent."""
    data = image.data
    if image.media_type == f"image/{_sound(data)}":
        return image
    try:
        raw = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        data = _BASE64_DIRT.sub("", data).replace("-", "+").replace("_", "/")
        data += "=" * (-len(data) % 4)
        try:
            raw = base64.b64decode(data, validate=True)
        except ValueError:
            return Text("[An image is left out: its data is not base64.]")
    name = image_format(raw)
    if not name:
        kind = image.media_type or "an unknown type"
        return Text(f"[An image is left out: Kiro takes gif, jpeg, png and webp, this is {kind}.]")
    if len(raw) > MAX_IMAGE_BYTES:
        return Text(f"[An image is left out: {len(raw):,} bytes, Kiro takes {MAX_IMAGE_BYTES:,}.]")
    if data == image.data and image.media_type == f"image/{name}":
        return image
    return Image(f"image/{name}", data)


def _sound(data: str) -> str:
    """The format of an image that nothing is wrong with; empty where another look is needed."""
    size = len(data)
    if size % 4 or not 16 <= size <= MAX_IMAGE_BYTES or not data.isascii():
        return ""
    text = data.encode()
    padding = 2 if text.endswith(b"==") else text.endswith(b"=")
    if text[: size - padding].translate(None, _BASE64):
        return ""
    return image_format(binascii.a2b_base64(text[:16]))
