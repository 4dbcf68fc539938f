"""What both cores of `kirostream.evstream` share: the sized integers, the limits, and how a fault is worded.

Nothing here is on the hot path. A core finds a fault and names it with two numbers; `frame_error` makes the sentence,
so both cores word every fault alike.
"""

from __future__ import annotations

import uuid
from typing import ClassVar, Final, TypeAlias

from kirostream.errors import FrameError

MAX_MESSAGE: Final = 16 << 20
"""Default limit of a whole message, in bytes."""

MAX_HEADERS: Final = 128 << 10
"""Default limit of a message's header block, in bytes."""

MAX_MEMBERS: Final = 16
"""A payload with more members than this is not lifted: looking for repeated keys must stay cheap."""


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


def check_lift(lift: object) -> frozenset[bytes]:
    """The keys to lift, as the wire writes them.

    Raises:
        TypeError: `lift` is one string (an easy slip for a sequence of one), or holds something else than strings.
    """
    if isinstance(lift, (str, bytes)):
        raise TypeError("lift is a sequence of keys, not one string")
    return frozenset(key.encode() for key in lift)  # type: ignore[attr-defined]
