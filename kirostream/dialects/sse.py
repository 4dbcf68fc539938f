"""Server-sent events: text/event-stream, both ways.

The reader follows the HTML standard, section 9.2.6: lines end in LF, CR or CRLF; a blank line ends an event; several
``data`` lines are joined by LF; lines that begin with a colon are comments; an event without data is none; what stands
behind the last blank line when the stream ends is dropped. Cuts may fall anywhere, also inside a CRLF or a character.
Work is linear in the bytes: an unfinished line is a list of pieces that is joined once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kirostream.errors import RemoteProtocolError

MAX_EVENT: Final = 16 << 20
"""Bytes of one event. The event-stream decoder has the same limit for one message."""

_BOM: Final = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event. `name` is empty where the stream gave none; `data` is not checked for UTF-8."""

    name: bytes
    data: bytes


class EventReader:
    """Takes bytes in any cut, gives whole events. `max_event` is bytes."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._limit = max_event
        self._name = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._line: list[bytes] = []
        self._line_size = 0
        self._after_cr = False
        self._at_start = True

    def __repr__(self) -> str:
        return f"<EventReader {self._data_size + self._line_size} bytes held>"

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Take the next bytes.

        Raises:
            RemoteProtocolError: an event is larger than the limit.
        """
        if not data:
            return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        lines = data.splitlines()  # of bytes: LF, CR and CRLF, nothing else
        unfinished = lines.pop() if lines and data[-1:] not in b"\r\n" else b""
        events: list[ServerEvent] = []
        for line in lines:
            if self._line:
                self._line.append(line)
                line = b"".join(self._line)
                self._line.clear()
                self._line_size = 0
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(ServerEvent(self._name, b"\n".join(self._data)))
                    self._data.clear()
                    self._data_size = 0
                self._name = b""
        if unfinished:
            self._line.append(unfinished)
            self._line_size += len(unfinished)
            self._check()
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._data_size += len(value) + 1
            self._check()
        elif name == b"event":
            self._name = value.removeprefix(b" ")
        # `id` and `retry` are for a client that reconnects, which a gateway's upstream has no use for.

    def _check(self) -> None:
        if self._data_size + self._line_size > self._limit:
            raise RemoteProtocolError(f"The upstream sent an event of more than {self._limit} bytes.")


def event(name: bytes, data: bytes) -> bytes:
    """One event with a name. `data` is one line."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def message(data: bytes) -> bytes:
    """One event without a name. `data` is one line."""
    return b"data: " + data + b"\n\n"


def comment(text: bytes) -> bytes:
    """A block that every reader skips. `text` is one line."""
    return b": " + text + b"\n\n"
