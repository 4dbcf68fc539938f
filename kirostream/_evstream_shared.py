"""What both cores of `kirostream.evstream` share: the sized integers, the limits, the wording of faults, odd headers.

Nothing here is on the hot path. A core finds a fault and names it with two numbers; `frame_error` makes the sentence,
so both cores word every fault alike. The compiled encoder writes plain string headers itself and leaves every other
value to `encode_header`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import ClassVar, Final, TypeAlias

from kirostream.errors import FrameError, LocalProtocolError

MAX_MESSAGE: Final = 16 << 20
"""Default limit of a whole message, in bytes."""

MAX_HEADERS: Final = 128 << 10
"""Default limit of a message's header block, in bytes."""

MAX_MEMBERS: Final = 16
"""A payload with more members than this is not lifted: looking for repeated keys must stay cheap."""


BUSY: Final = "a FrameDecoder was called while it decodes, or after an exception (memory, interrupt) left it half way"


class SizedInt(int):
    """An integer that remembers the header type it came in, so that it is written as it was read.

    It is an `int` in every other way. The range is checked when it is written.
    """

    __slots__ = ()
    code: ClassVar[int]
    width: ClassVar[int]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    __str__ = int.__repr__


class Int8(SizedInt):
    """Type 2: one byte, signed."""

    __slots__ = ()
    code = 2
    width = 1


class Int16(SizedInt):
    """Type 3: two bytes, signed."""

    __slots__ = ()
    code = 3
    width = 2


class Int32(SizedInt):
    """Type 4: four bytes, signed. A plain `int` that fits is written as this type."""

    __slots__ = ()
    code = 4
    width = 4


class Int64(SizedInt):
    """Type 5: eight bytes, signed. A plain `int` that does not fit type 4 is written as this type."""

    __slots__ = ()
    code = 5
    width = 8


class Timestamp(SizedInt):
    """Type 8: milliseconds since 1970-01-01 UTC, eight bytes, signed."""

    __slots__ = ()
    code = 8
    width = 8


HeaderValue: TypeAlias = bool | int | bytes | str | uuid.UUID
"""What a header holds; integers that were read are one of the `SizedInt` classes."""


_DETAILS: Final = {
    "prelude_crc": "the prelude says {0:#010x}, its bytes give {1:#010x}",
    "message_crc": "the message says {0:#010x}, its bytes give {1:#010x}",
    "length": "a total length of {0} bytes, the least is {1}",
    "headers_length": "{0} bytes of headers in a message of {1}",
    "header_type": "no type {0}, at byte {1} of the headers",
    "header_overrun": "the header at byte {0} runs over the end of its block of {1}",
    "truncated": "the stream ended {0} bytes into a message",
    "too_large": "{0} bytes, the limit is {1}",
    "header_name": "the name of {0} bytes at byte {1} of the headers is empty or not UTF-8",
    "header_value": "the string of {0} bytes at byte {1} of the headers is not UTF-8",
    "duplicate_header": "the header of {0} bytes at byte {1} of the headers has a name that came before",
    "refused": "a fault was reported before",
}


def frame_error(fault: str, offset: int, first: int = 0, second: int = 0) -> FrameError:
    """The error for `fault` (a word of `FrameError.FAULTS`) in the message at `offset`; two numbers say more."""
    return FrameError(fault, offset, _DETAILS[fault].format(first, second))


def check_settings(max_message: int, max_headers: int, lift: Sequence[str]) -> tuple[int, int, tuple[bytes, ...]]:
    """The arguments of a decoder, checked: the limits, and the keys to lift as the wire writes them.

    Raises:
        ValueError: a limit is too small.
        TypeError: `lift` is one string: an easy slip for a sequence of one.
    """
    if max_message < 16 or max_headers < 0:
        raise ValueError("max_message is at least 16, max_headers at least 0")
    if isinstance(lift, str):
        raise TypeError("lift is a sequence of keys, not one string")
    return max_message, max_headers, tuple(key.encode() for key in lift)


def contiguous(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """`data` as one row of bytes, which a buffer need not be; copied only if it is none.

    Raises:
        TypeError: `data` has no buffer.
    """
    with memoryview(data) as view:
        return data if view.c_contiguous and view.itemsize == 1 and view.ndim == 1 else view.tobytes()


def encode_header(name: str, value: HeaderValue) -> bytes:
    """One header, as bytes. Errors as `encode_frame` has them."""
    if not isinstance(name, str):
        raise TypeError(f"event-stream header {name!r}: a name is a str, not {type(name).__name__}")
    raw_name = _utf8(name, name)
    if not 0 < len(raw_name) < 256:
        raise LocalProtocolError(f"event-stream header {name!r}: a name has 1 to 255 bytes")
    return bytes((len(raw_name),)) + raw_name + _encode_value(name, value)


def _encode_value(name: str, value: HeaderValue) -> bytes:
    if isinstance(value, bool):
        return b"\0" if value else b"\1"
    if isinstance(value, int):
        if isinstance(value, SizedInt):
            code, width = value.code, value.width
        else:
            code, width = (4, 4) if -(1 << 31) <= value < 1 << 31 else (5, 8)
        try:
            return bytes((code,)) + value.to_bytes(width, "big", signed=True)
        except OverflowError:
            raise LocalProtocolError(f"event-stream header {name!r}: {value} needs over {width} bytes") from None
    if isinstance(value, uuid.UUID):
        return b"\x09" + value.bytes
    if isinstance(value, (bytes, str)):
        code, raw = (6, value) if isinstance(value, bytes) else (7, _utf8(name, value))
        if len(raw) > 0xFFFF:
            raise LocalProtocolError(f"event-stream header {name!r}: {len(raw)} bytes, a value has at most 65535")
        return struct.pack(">BH", code, len(raw)) + raw
    raise TypeError(f"event-stream header {name!r}: no header type for {type(value).__name__}")


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError(f"event-stream header {name!r}: a lone surrogate is not UTF-8") from None


def message_size(block: bytes, payload: bytes) -> int:
    """The total length of a message with this header block and payload, in bytes."""
    if not isinstance(payload, bytes):
        raise TypeError(f"an event-stream payload is bytes, not {type(payload).__name__}")
    total = len(block) + len(payload) + 16
    if total > 0xFFFFFFFF:
        raise LocalProtocolError(f"an event-stream message of {total} bytes: its length has 32 bits")
    return total
