"""The compiled core of `kirostream.evstream`, and the documentation of both cores.

Everything here is pure: bytes in, frames out; no I/O, no clock. Format: `kiro-protocol.md section 3.1`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, final

from kirostream._evstream_shared import HeaderValue

CORE: Final[Literal["compiled", "python"]]
"""Which core this is."""

CRC: Final[Literal["pclmulqdq", "slicing"]]
"""How this core computes CRC-32: decided at import, by what the processor has. Compiled core only."""

@final
class Frame:
    """One message of the stream. Read-only; both its CRCs were right.

    Args:
        headers: in wire order. Every frame has a `dict` of its own.
        payload: the bytes between the headers and the message CRC.
        lifted: see `FrameDecoder`.
    """

    def __init__(self, headers: dict[str, HeaderValue], payload: bytes, lifted: bytes | None = None) -> None: ...
    @property
    def headers(self) -> dict[str, HeaderValue]: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def lifted(self) -> bytes | None: ...
    @property
    def message_type(self) -> str:
        """`:message-type`: ``event``, ``exception`` or ``error``; empty if it is absent or no string."""
    @property
    def event_type(self) -> str:
        """`:event-type`, empty if it is absent or no string."""
    @property
    def exception_type(self) -> str:
        """`:exception-type`, empty if it is absent or no string."""

@final
class FrameDecoder:
    """Decodes one stream, fed in any cuts.

    Frames come in order, as soon as their last byte is there. Faults: a good frame is always delivered before a fault
    that stands behind it. So a call that found both returns the frames, and the next call (`feed`, `feed_runs` or
    `close`; ``feed(b"")`` will do) raises the fault; a call that found only the fault raises it itself. After that
    every call raises `FrameError` with the fault ``refused``: framing is lost, and nothing is guessed.

    Lift: where a payload is one flat JSON object of strings, written without blanks, with at most 16 members, no key
    twice and no escape in a key, and exactly one of its keys is in `lift`, `Frame.lifted` is the inside of that
    member's string, as it stands in the payload. It is always valid inside a JSON string literal: UTF-8, whole
    escapes, no control characters, and a surrogate escape only as half of a pair. In every other case it is None, and
    the payload is there to be parsed.

    Args:
        max_message: the longest message, in bytes, with its prelude and CRCs (at least 16).
        max_headers: the longest header block, in bytes. Both limits are checked when the prelude is whole, before
            anything of the message is kept.
        lift: the keys to lift.

    Raises:
        ValueError: a limit is too small.
        TypeError: `lift` is a string.
    """

    def __init__(
        self, *, max_message: int = 16 << 20, max_headers: int = 128 << 10, lift: Sequence[str] = ()
    ) -> None: ...
    @property
    def buffered(self) -> int:
        """Bytes held of a message that is not whole yet."""
    @property
    def offset(self) -> int:
        """Bytes from the start of the stream to the message that is being read, or to the faulty one."""
    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Frame]:
        """The frames that are whole now. Any object with the buffer protocol will do; it may be reused afterwards.

        Raises:
            FrameError: see the class.
            LocalProtocolError: called from within itself.
        """
    def feed_runs(self, data: bytes | bytearray | memoryview, /) -> list[Frame | list[bytes]]:
        """Like `feed`, but "more of the same" comes as pieces, not as frames.

        A message that has the same header block as the last frame that was delivered, and the same payload but for the
        lifted string, is part of a run: its lifted piece is appended to the list that follows that frame. The list is
        the first item where the frame came in an earlier call. ``[frame, [piece, piece], frame, ...]``: never two
        lists in a row, never an empty list.

        Raises:
            FrameError: see the class.
            LocalProtocolError: called from within itself.
        """
    def run_of(self, data: bytes, room: int, /) -> list[bytes] | None:
        """The pieces of `data`, if all messages that it completes are one run, and no piece is empty.

        They are at most `room` bytes in all.

        What is left after the last of them is kept, as by `feed_runs`; so the list may be empty. None: `data` was not
        taken, and is for `feed_runs`. The twin takes nothing this way. It raises nothing.
        """
    @property
    def runs(self) -> object | None:
        """`run_of` for compiled code that has no need of objects: a capsule (`_runs.h`). The twin has None."""
    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            FrameError: ``truncated`` if it ended inside a message; or the fault that has not been raised yet; or
                ``refused``.
        """

def encode_frame(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One message with these headers, in this order.

    `bool`, `bytes`, `str` and `uuid.UUID` have a header type each. An integer that was decoded is written in the type
    it came in; a plain `int` is written as type 4 (int32), or type 5 (int64) where it does not fit.

    Raises:
        LocalProtocolError: a name that is not 1 to 255 bytes long, a value over 65535 bytes, an integer out of range, a
            lone surrogate, or a message whose length needs more than 32 bits.
        TypeError: a value of another type.
    """
