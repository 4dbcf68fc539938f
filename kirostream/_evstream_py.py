"""The event-stream codec in Python: the oracle for the compiled core, and the fallback that says so.

What the four names do is documented in `_evstream.pyi`; the theory (how bytes are held, when a fault is raised, what a
run is) opens `_evstream.pyx`. This file follows the same steps and prefers clear to fast.

Format: `kiro-protocol.md section 3.1`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Final, Literal, final
from uuid import UUID

from kirostream._evstream_shared import (
    BUSY,
    MAX_HEADERS,
    MAX_MEMBERS,
    MAX_MESSAGE,
    HeaderValue,
    Int8,
    Int16,
    Int32,
    Int64,
    SizedInt,
    Timestamp,
    check_settings,
    contiguous,
    encode_header,
    frame_error,
    message_size,
)
from kirostream.errors import FrameError, LocalProtocolError

CORE: Final[Literal["compiled", "python"]] = "python"

_PRELUDE = struct.Struct(">III")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")

_SIZED: dict[int, type[SizedInt]] = {kind.code: kind for kind in (Int8, Int16, Int32, Int64, Timestamp)}
_FIXED = {0: 0, 1: 0, **{code: kind.width for code, kind in _SIZED.items()}, 9: 16}

# JSON strings in bytes (RFC 8259 section 7), UTF-8 as RFC 3629 has it: no overlong form, no surrogate. Possessive
# throughout: a match never backtracks, so a payload costs one pass.
_PLAIN = rb"""
    [ !\#-\[\]-\x7f]++
    | [\xc2-\xdf][\x80-\xbf]
    | \xe0[\xa0-\xbf][\x80-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf]{2} | \xed[\x80-\x9f][\x80-\xbf]
    | \xf0[\x90-\xbf][\x80-\xbf]{2} | [\xf1-\xf3][\x80-\xbf]{3} | \xf4[\x80-\x8f][\x80-\xbf]{2}
"""
_ESCAPE = rb"""
    \\ ["\\/bfnrt]
    | \\u (?: [0-9a-ce-fA-CE-F][0-9a-fA-F]{3} | [dD][0-7][0-9a-fA-F]{2} )
    | \\u [dD][89abAB][0-9a-fA-F]{2} \\u [dD][c-fC-F][0-9a-fA-F]{2}
"""
_VALUE = b"(?:" + _PLAIN + b"|" + _ESCAPE + b")*+"
_MEMBER = re.compile(b'"((?:' + _PLAIN + b')*+)":"(' + _VALUE + b')"', re.VERBOSE)
_PIECE = re.compile(_VALUE, re.VERBOSE)


@final
class Frame:
    """One message. See `_evstream.pyi`."""

    __slots__ = ("_headers", "_lifted", "_payload")

    def __init__(self, headers: dict[str, HeaderValue], payload: bytes, lifted: bytes | None = None) -> None:
        self._headers = headers
        self._payload = payload
        self._lifted = lifted

    @property
    def headers(self) -> dict[str, HeaderValue]:
        return self._headers

    @property
    def payload(self) -> bytes:
        return self._payload

    @property
    def lifted(self) -> bytes | None:
        return self._lifted

    def _text(self, name: str) -> str:
        value = self._headers.get(name)
        return value if isinstance(value, str) else ""

    @property
    def message_type(self) -> str:
        return self._text(":message-type")

    @property
    def event_type(self) -> str:
        return self._text(":event-type")

    @property
    def exception_type(self) -> str:
        return self._text(":exception-type")

    def __repr__(self) -> str:
        kind = self.event_type or self.exception_type or self.message_type or "untyped"
        return f"<Frame {kind}, {len(self._headers)} headers, {len(self._payload)} bytes>"


@final
class FrameDecoder:
    """Decodes a stream that is fed in any cuts. See `_evstream.pyi`."""

    __slots__ = (
        "_fault",
        "_held",
        "_last_block",
        "_last_headers",
        "_last_payload",
        "_last_span",
        "_lift",
        "_max_headers",
        "_max_message",
        "_offset",
        "_state",
        "_total",
    )

    def __init__(
        self, *, max_message: int = MAX_MESSAGE, max_headers: int = MAX_HEADERS, lift: Sequence[str] = ()
    ) -> None:
        self._max_message, self._max_headers, self._lift = check_settings(max_message, max_headers, lift)
        self._state: Literal["ready", "feeding", "faulty"] = "ready"
        self._fault: FrameError | None = None  # found, not yet raised
        self._offset = 0  # of the message that is read now, or of the faulty one
        self._held = bytearray()  # the first bytes of a message that is not whole yet
        self._total = 0  # its total length, 0 until its prelude is whole and good
        # The last frame that was delivered: its header block and headers; its payload and the lifted span, if any.
        self._last_block: bytes | None = None
        self._last_headers: dict[str, HeaderValue] = {}
        self._last_payload: bytes | None = None
        self._last_span = (0, 0)

    @property
    def buffered(self) -> int:
        return len(self._held)

    @property
    def offset(self) -> int:
        return self._offset

    def __repr__(self) -> str:
        if self._state == "faulty":
            return f"<FrameDecoder ({CORE}): faulty at byte {self._offset}>"
        return f"<FrameDecoder ({CORE}): message at byte {self._offset}, {len(self._held)} bytes held>"

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self._held.__sizeof__()

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Frame]:
        frames: list[Frame] = []
        self._feed(data, lambda message: frames.append(self._frame(message)), frames)
        return frames

    def run_of(self, data: bytes, room: int, /) -> list[bytes] | None:
        return None

    @property
    def runs(self) -> None:
        return None

    def feed_runs(self, data: bytes | bytearray | memoryview, /) -> list[Frame | list[bytes]]:
        out: list[Frame | list[bytes]] = []

        def deliver(message: bytes) -> None:
            piece = self._piece(message)
            if piece is None:
                out.append(self._frame(message))
            elif out and isinstance(out[-1], list):
                out[-1].append(piece)
            else:
                out.append([piece])

        self._feed(data, deliver, out)
        return out

    def close(self) -> None:
        if self._state != "ready":
            raise self._not_ready()
        if self._held:
            raise self._refuse(frame_error("truncated", self._offset, len(self._held)))

    def _not_ready(self) -> Exception:
        """Why the decoder takes nothing now: a fault that waits to be raised, one that was raised, or a call inside."""
        if self._state == "feeding":
            return LocalProtocolError(BUSY)
        fault, self._fault = self._fault, None
        return fault or frame_error("refused", self._offset)

    def _refuse(self, fault: FrameError) -> FrameError:
        self._state = "faulty"
        self._held = bytearray()
        self._last_block = self._last_payload = None
        return fault

    def _feed(self, data: bytes | bytearray | memoryview, deliver: Callable[[bytes], None], out: Sized) -> None:
        """Hand every whole message to `deliver`; keep what is left. A fault waits if `out` holds something."""
        if self._state != "ready":
            raise self._not_ready()
        data = contiguous(data)
        self._state = "feeding"
        try:
            with memoryview(data) as view:
                self._split(view, deliver)
        except FrameError as fault:
            self._refuse(fault)
            if not out:
                raise
            self._fault = fault.with_traceback(None)  # its frames would keep the caller's data alive until it is raised
        else:
            self._state = "ready"

    def _split(self, view: memoryview, deliver: Callable[[bytes], None]) -> None:
        at = 0
        while self._held and at < len(view):  # top up the message that straddles
            need = self._total or _PRELUDE.size
            take = min(need - len(self._held), len(view) - at)
            self._held += view[at : at + take]
            at += take
            if len(self._held) < need:
                return
            if not self._total:
                self._total = self._check_prelude(bytes(self._held))
            else:
                message, self._held, self._total = bytes(self._held), bytearray(), 0
                self._deliver(message, deliver)
        while len(view) - at >= _PRELUDE.size:  # messages that lie whole in the view
            total = self._check_prelude(bytes(view[at : at + _PRELUDE.size]))
            if len(view) - at < total:
                self._total = total
                break
            self._deliver(bytes(view[at : at + total]), deliver)
            at += total
        self._held += view[at:]

    def _check_prelude(self, prelude: bytes) -> int:
        """The total length, once the prelude is known to be good."""
        total, headers, said = _PRELUDE.unpack(prelude)
        counted = zlib.crc32(prelude[:8])
        if counted != said:
            raise frame_error("prelude_crc", self._offset, said, counted)
        if total < 16:
            raise frame_error("length", self._offset, total, 16)
        if headers > total - 16:
            raise frame_error("headers_length", self._offset, headers, total)
        if total > self._max_message:
            raise frame_error("too_large", self._offset, total, self._max_message)
        if headers > self._max_headers:
            raise frame_error("too_large", self._offset, headers, self._max_headers)
        assert isinstance(total, int)
        return total

    def _deliver(self, message: bytes, deliver: Callable[[bytes], None]) -> None:
        said = _U32.unpack_from(message, len(message) - 4)[0]
        counted = zlib.crc32(message[:-4])
        if counted != said:
            raise frame_error("message_crc", self._offset, said, counted)
        deliver(message)
        self._offset += len(message)

    def _frame(self, message: bytes) -> Frame:
        """The message as a Frame, which from now on is the last one."""
        end = 12 + _U32.unpack_from(message, 4)[0]
        block, payload = message[12:end], message[end:-4]
        if block != self._last_block:
            headers = self._headers(block)
            self._last_block, self._last_headers = block, headers
        span = self._find_lift(payload) if self._lift else None
        if span is None:
            self._last_payload = None
            return Frame(self._last_headers.copy(), payload)
        self._last_payload, self._last_span = payload, span
        return Frame(self._last_headers.copy(), payload, payload[span[0] : span[1]])

    def _headers(self, block: bytes) -> dict[str, HeaderValue]:
        headers: dict[str, HeaderValue] = {}
        size = len(block)
        at = 0
        while at < size:
            start = at
            name_end = at + 1 + block[at]
            if name_end >= size:
                raise frame_error("header_overrun", self._offset, start, size)
            name = _utf8(block[at + 1 : name_end])
            if not name:
                raise frame_error("header_name", self._offset, block[at], start)
            code = block[name_end]
            at = name_end + 1
            if code in _FIXED:
                length = _FIXED[code]
            elif code in (6, 7):
                if size - at < 2:
                    raise frame_error("header_overrun", self._offset, start, size)
                length = _U16.unpack_from(block, at)[0]
                at += 2
            else:
                raise frame_error("header_type", self._offset, code, start)
            raw = block[at : at + length]
            if len(raw) < length:
                raise frame_error("header_overrun", self._offset, start, size)
            at += length
            value: HeaderValue | None
            if code in _SIZED:
                value = _SIZED[code](int.from_bytes(raw, "big", signed=True))
            elif code == 7:
                value = _utf8(raw)
                if value is None:
                    raise frame_error("header_value", self._offset, length, start)
            elif code == 6:
                value = raw
            elif code == 9:
                value = UUID(bytes=raw)
            else:
                value = code == 0
            if name in headers:
                raise frame_error("duplicate_header", self._offset, at - start, start)
            headers[name] = value
        return headers

    def _find_lift(self, payload: bytes) -> tuple[int, int] | None:
        """Where the one member to lift stands in a flat object of strings; None if it is not exactly that."""
        if payload[:1] != b"{":
            return None
        at = 1
        keys: set[bytes] = set()
        span: tuple[int, int] | None = None
        while len(keys) < MAX_MEMBERS:
            member = _MEMBER.match(payload, at)
            if member is None or member[1] in keys:
                return None
            keys.add(member[1])
            if member[1] in self._lift:
                if span is not None:
                    return None
                span = member.span(2)
            at = member.end() + 1
            if payload[at - 1 : at] == b"}":
                return span if at == len(payload) else None
            if payload[at - 1 : at] != b",":
                return None
        return None

    def _piece(self, message: bytes) -> bytes | None:
        """The lifted piece, if the message differs from the last frame's in nothing else."""
        if self._last_payload is None:
            return None
        end = 12 + _U32.unpack_from(message, 4)[0]
        block, payload = message[12:end], message[end:-4]
        start, stop = self._last_span
        before, after = self._last_payload[:start], self._last_payload[stop:]
        if (
            block != self._last_block
            or len(payload) < len(before) + len(after)
            or not payload.startswith(before)
            or not payload.endswith(after)
        ):
            return None
        piece = payload[start : len(payload) - len(after)]
        return piece if _PIECE.fullmatch(piece) else None


def _utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def encode_frame(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One message, as bytes. See `_evstream.pyi`."""
    block = b"".join(encode_header(name, value) for name, value in headers.items())
    lengths = struct.pack(">II", message_size(block, payload), len(block))
    message = b"".join((lengths, _U32.pack(zlib.crc32(lengths)), block, payload))
    return message + _U32.pack(zlib.crc32(message))
