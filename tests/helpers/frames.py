"""An event-stream encoder that shares nothing with the ones under test, and will also write what is wrong.

Format: `kiro-protocol.md section 3.1`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

TEXT = 7

Header = tuple[bytes, int, bytes]
"""A header: name, type code, and the value as the wire has it (without the length of types 6 and 7)."""


def block(headers: Iterable[Header]) -> bytes:
    """A header block."""
    out = bytearray()
    for name, code, value in headers:
        out += struct.pack(">B", len(name)) + name + struct.pack(">B", code)
        if code in (6, 7):
            out += struct.pack(">H", len(value))
        out += value
    return bytes(out)


def message(
    headers: Iterable[Header] | bytes = (),
    payload: bytes = b"",
    *,
    total: int | None = None,
    headers_length: int | None = None,
    prelude_crc: int | None = None,
    message_crc: int | None = None,
) -> bytes:
    """One message; the arguments by name say other things than the truth, with the CRCs made to fit."""
    raw = headers if isinstance(headers, bytes) else block(headers)
    lengths = struct.pack(
        ">II",
        16 + len(raw) + len(payload) if total is None else total,
        len(raw) if headers_length is None else headers_length,
    )
    prelude = lengths + struct.pack(">I", zlib.crc32(lengths) if prelude_crc is None else prelude_crc)
    body = prelude + raw + payload
    return body + struct.pack(">I", zlib.crc32(body) if message_crc is None else message_crc)


def event(kind: str, payload: bytes) -> bytes:
    """A message as Kiro sends it: three headers and a JSON payload."""
    return message(
        [
            (b":event-type", TEXT, kind.encode()),
            (b":content-type", TEXT, b"application/json"),
            (b":message-type", TEXT, b"event"),
        ],
        payload,
    )
