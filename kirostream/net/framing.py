"""Answers in HTTP/1.1, cut out of bytes: heads and bodies. No I/O, no clock.

A head in plain form is read here, by one pass of a strict grammar: 8 us against 90 by h11. Whatever is not in plain
form (a bare line feed, a folded line) is h11's to judge, so that nothing is taken that h11 would refuse. A body is
never h11's: it takes 12 us for each part, and most parts hold one token.

What a body is, is said by RFC 9112 section 6.3; where that leaves a choice, this takes the strict one, for two who read
one answer differently can be played off against each other: two lengths that differ, a length beside a transfer coding,
a coding beside ``chunked``, or any coding in HTTP/1.0 are refused.

A body's `feed` never raises. What came before a fault is given; the fault is in `fault` from then on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias

from kirostream.errors import RemoteProtocolError, without_literals

whole_chunks: Callable[[bytes, int], tuple[bytes, int]] | None = None
"""The compiled part of `Chunked`, which has the same in Python."""
if os.environ.get("KIROSTREAM_CORE") != "python":
    try:
        from kirostream.net._wire import whole_chunks
    except ModuleNotFoundError as missing:
        if missing.name != "kirostream.net._wire":
            raise

HEAD_LIMIT: Final = 64 << 10
"""Bytes of a head. Real ones are under two kilobytes."""
FIELD_LIMIT: Final = 256
"""Header fields of a head."""
LINE_LIMIT: Final = 1 << 10
"""Bytes of the line before a chunk: its size and its extensions."""
EXTENSION_LIMIT: Final = 16 << 10
"""Bytes of extensions in a whole body, so far as the body does not outweigh them."""
TRAILER_LIMIT: Final = 16 << 10
"""Bytes of the fields after the last chunk."""

_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_FIELD: Final = _TOKEN + rb"++:" + _TEXT + rb"*+\r\n"
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _TEXT + rb"*+)?+\r\n((?:" + _FIELD + rb")*+)\r\n", re.DOTALL
)
_TRAILER: Final = re.compile(_FIELD, re.DOTALL)
_END: Final = re.compile(rb"\n\r?\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TEXT + rb"*)?[ \t]*", re.DOTALL)
_USUAL: Final[dict[bytes, int]] = {}
"""Sizes of chunks that came so far and are said in up to three digits, which bounds their number."""
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_KEPT_FOR: Final = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,9})(?![0-9])", re.IGNORECASE)


class Head(NamedTuple):
    """The head of an answer.

    `headers` are in wire order, names in lower case. `version` is the minor one: 1 for HTTP/1.1.
    """

    version: int
    status: int
    headers: Sequence[tuple[bytes, bytes]]


def read_head(data: bytes, begin: int = 0) -> tuple[Head, int] | None:
    """The head that begins at `begin`, and where it ends; None where the end has not come.

    Raises:
        RemoteProtocolError: it is none, or over a limit.
    """
    plain = _HEAD.match(data, begin, begin + HEAD_LIMIT)
    end = plain or _END.search(data, begin)
    if end is None or end.end() - begin > HEAD_LIMIT:
        if len(data) - begin > HEAD_LIMIT:
            raise RemoteProtocolError(f"the head of its answer is over {HEAD_LIMIT} bytes")
        return None
    if plain is None:
        head = _by_h11(data[begin : end.end()])
    else:
        version, status, lines = plain.groups()
        fields = [line.partition(b":") for line in lines.split(b"\r\n")]
        fields.pop()
        head = Head(int(version), int(status), [(name.lower(), value.strip(b" \t")) for name, _, value in fields])
    if len(head.headers) > FIELD_LIMIT:
        raise RemoteProtocolError(f"its answer has more than {FIELD_LIMIT} headers")
    if head.status == 101:
        raise RemoteProtocolError("it switches protocols, and nobody asked it to")
    return head, end.end()


def _by_h11(raw: bytes) -> Head:
    """What h11 takes a head for that is not in plain form."""
    import h11

    judge = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    judge.send(h11.Request(method="GET", target="/", headers=[("host", "any")]))
    judge.receive_data(raw)
    try:
        event = judge.next_event()
    except h11.RemoteProtocolError as error:
        raise RemoteProtocolError(f"it does not answer in HTTP/1.1: {without_literals(str(error))}") from error
    if isinstance(event, (h11.Response, h11.InformationalResponse)) and event.http_version in (b"1.0", b"1.1"):
        return Head(int(event.http_version == b"1.1"), event.status_code, list(event.headers))
    raise RemoteProtocolError("it does not answer in HTTP/1.1")


# --- bodies -------------------------------------------------------------------------------------------------------


class Counted:
    """A body whose length the head says.

    Attributes:
        done: its end has come.
        surplus: bytes came after it; the connection cannot be trusted any more.
        fault: what is wrong with it, None so far.
    """

    __slots__ = ("_left", "done", "fault", "surplus")
    between_chunks: ClassVar = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.surplus = False
        self.fault: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """What of `data` belongs to the body; may be empty."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self._left = 0
        self.done = True
        if left < 0:
            self.surplus = True
            return data[:left]
        return data

    def end(self) -> None:
        """The connection ended. A body that is not whole has a fault then."""
        if not self.done:
            self.fault = RemoteProtocolError(f"the connection ended {self._left} bytes before the end of the body")


class UntilClose:
    """A body that ends with the connection. Attributes as those of `Counted`."""

    __slots__ = ("done", "fault", "surplus")
    between_chunks: ClassVar = False

    def __init__(self) -> None:
        self.done = False
        self.surplus = False
        self.fault: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """All of it belongs to the body."""
        return data

    def end(self) -> None:
        """The connection ended, and the body with it."""
        self.done = True


class Chunked:
    """A body in chunks (RFC 9112 section 7.1). Attributes as those of `Counted`.

    What one `feed` holds of chunks comes out as one piece. Extensions and trailers are skipped, within limits.
    """

    __slots__ = ("_after", "_excess", "_held", "_left", "_trailing", "done", "fault", "surplus")

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk that are still to come
        self._after = False  # the line end after a chunk is still to come
        self._trailing = -1  # bytes of trailers so far; -1 before the last chunk
        self._excess = 0
        self._held = b""  # the beginning of a line
        self.done = False
        self.surplus = False
        self.fault: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """What `data` holds of the body, without the framing; may be empty."""
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        at = 0
        parts: list[bytes] = []
        while not self.done and self.fault is None:
            if not self._after and not self._left and self._trailing < 0 and whole_chunks is not None:
                part, at = whole_chunks(data, at)
                if part:
                    parts.append(part)
                    if at == size:
                        break
            elif not self._after and not self._left and self._trailing < 0:
                # Whole chunks of usual sizes: 0.7 us each, against 1.6 below.
                while True:
                    begin = data.find(b"\r\n", at, at + 5) + 2
                    end = begin + _USUAL.get(data[at : begin - 2], size)
                    if begin < 2 or data[end : end + 2] != b"\r\n":
                        break
                    parts.append(data[begin:end])
                    at = end + 2
            if self._left:
                end = at + self._left
                if end >= size:
                    self._left = end - size
                    self._after = True
                    if at < size:
                        parts.append(data[at:])
                    break
                parts.append(data[at:end])
                at = end
                self._left = 0
                self._after = True
            if self._after:
                if size - at < 2:
                    if at < size and data[at] != 13:
                        self.fault = RemoteProtocolError("a chunk is longer than its size says")
                    self._held = data[at:]
                    break
                if data[at] != 13 or data[at + 1] != 10:
                    self.fault = RemoteProtocolError("a chunk is longer than its size says")
                    break
                at += 2
                self._after = False
                continue  # whole chunks may follow
            end = data.find(b"\r\n", at, at + LINE_LIMIT)
            if end < 0:
                if size - at >= LINE_LIMIT:
                    self.fault = RemoteProtocolError(f"a line between chunks is over {LINE_LIMIT} bytes")
                self._held = data[at:]
                break
            if self._trailing < 0:
                self._take_size(data[at:end])
            else:
                self._take_trailer(data[at : end + 2])
            at = end + 2
        if self.done and at < size:
            self.surplus = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            self.fault = RemoteProtocolError(f"a chunk of the size {line[:40]!r}")
            return
        self._left = left = int(found[1], 16)
        if len(line) > 16:  # an extension, or a padding: a body of chunks of one byte could hide any amount of them
            self._excess = max(0, self._excess + len(line) - 16 - left)
            if self._excess > EXTENSION_LIMIT:
                self.fault = RemoteProtocolError(f"extensions of chunks of over {EXTENSION_LIMIT} bytes")
        if not left:
            self._trailing = 0
        elif len(line) <= 3:
            _USUAL[line] = left

    def _take_trailer(self, line: bytes) -> None:
        self._trailing += len(line)
        if line == b"\r\n":
            self.done = True
        elif _TRAILER.fullmatch(line) is None:
            self.fault = RemoteProtocolError(f"after the last chunk comes {line[:40]!r}")
        elif self._trailing > TRAILER_LIMIT:
            self.fault = RemoteProtocolError(f"trailers of over {TRAILER_LIMIT} bytes")

    @property
    def between_chunks(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not (self._left or self._after or self._held or self.done) and self._trailing < 0 and self.fault is None

    def end(self) -> None:
        """The connection ended. A body that is not whole has a fault then."""
        if not self.done and self.fault is None:
            self.fault = RemoteProtocolError("the connection ended before the last chunk")


Body: TypeAlias = Counted | UntilClose | Chunked


class Framing(NamedTuple):
    """What follows a head.

    Attributes:
        body: takes the bytes.
        kept_for: seconds that the connection may be kept for a further request; 0: not at all, None: as long as one
            likes.
    """

    body: Body
    kept_for: float | None


def framing(head: Head, method: str) -> Framing:
    """What follows the head of the answer to a request of `method` (RFC 9112 sections 6.3 and 9.3).

    Raises:
        RemoteProtocolError: it cannot be told without a doubt.
    """
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    kept_for: float | None = None if head.version == 1 else 0
    for name, value in head.headers:
        if name == b"content-length":
            lengths.update(each.strip(b" \t") for each in value.split(b","))
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            if b"close" in (each.strip(b" \t") for each in value.lower().split(b",")):
                kept_for = 0
        elif name == b"keep-alive" and kept_for is None and (said := _KEPT_FOR.search(value)):
            # A second less: what is sent in the last moment arrives after it.
            kept_for = max(0, int(said[1]) - 1)
    if method == "HEAD" or head.status in (204, 304):
        return Framing(Counted(0), kept_for)
    if codings:
        if codings != [b"chunked"] or head.version == 0:
            raise RemoteProtocolError(f"a body in the transfer coding {b', '.join(codings)[:40]!r}")
        if lengths:
            raise RemoteProtocolError("a body with a length and with chunks")
        return Framing(Chunked(), kept_for)
    if not lengths:
        return Framing(UntilClose(), 0)
    length = lengths.pop()
    if lengths or _DIGITS.fullmatch(length) is None:
        raise RemoteProtocolError(f"a body of the length {length[:40]!r}")
    return Framing(Counted(int(length)), kept_for)
