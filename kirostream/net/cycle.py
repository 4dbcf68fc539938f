"""One request and its answer as HTTP/1.1 says them: heads read and written, bodies delimited. No I/O, no clock.

A `Cycle` is one of two. What comes in *plain form* is read here by one pass of a strict grammar, and answered here: a
sixth of what h11 takes for the same (`tests/net/test_cycle.py` holds both to one outcome). Plain is a head that is
there whole with the first bytes of its request, of HTTP/1.1 and with CRLF throughout, one ``host``, and a body whose
length is said once, or none. Everything else is h11's to judge, whole: a head in pieces, a body in chunks,
``expect``, ``upgrade``, HTTP/1.0, and whatever is no request at all. So nothing is taken, and nothing refused, that
h11 would not take or refuse. It is imported for the first that needs it (`net/judged.py`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import Final

from kirostream.errors import LocalProtocolError
from kirostream.net.door import split_target
from kirostream.net.exchange import Headers, HttpRequest

_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]"
_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"
_HEAD: Final = re.compile(
    rb"(" + _TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.1\r\n((?:" + _TOKEN + rb"++:" + _TEXT + rb"*+\r\n)++)\r\n",
    re.DOTALL,
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_FIELDS: Final = re.compile(
    rb"(?:" + _TOKEN + rb"++: (?:[^\x00-\x20\x7f](?:" + _TEXT + rb"*[^\x00-\x20\x7f])?)?\r\n)*+", re.DOTALL
)
_NOT_PLAIN: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_ONCE: Final = (b"host", b"content-length", b"connection")
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Cycle(ABC):
    """One request and its answer.

    Attributes:
        request: its head.
        whole: all of its body was given by `pull`.
    """

    request: HttpRequest
    whole: bool

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take what came from the client. `data` must not be empty."""

    @abstractmethod
    def pull(self) -> bytes | bytearray:
        """The next part of the body. Empty where no more has come, and at the end.

        Raises:
            MalformedRequest, RequestTooLarge: it is not in HTTP.
        """

    @property
    @abstractmethod
    def rest(self) -> bytes:
        """What came behind the request, or of its body and was not pulled."""

    @property
    @abstractmethod
    def awaits_consent(self) -> bool:
        """Whether the client waits for 100 before it sends its body."""

    @abstractmethod
    def consent(self) -> bytes:
        """The head that says 100."""

    @abstractmethod
    def head(self, status: int, fields: Headers) -> bytes:
        """The head of the answer. Where neither ``content-length`` nor `status` delimits its body, that is chunked.

        Raises:
            LocalProtocolError: HTTP has no such head.
        """

    @property
    @abstractmethod
    def knows_chunks(self) -> bool:
        """Whether a body in chunks is understood; else it ends with the connection."""

    @abstractmethod
    def count(self, data: bytes) -> bytes:
        """A part of a body that has a declared length.

        Raises:
            LocalProtocolError: it is longer than that.
        """

    @abstractmethod
    def end(self) -> bytes:
        """What ends the answer.

        Raises:
            LocalProtocolError: its body is shorter than was declared.
        """

    @property
    @abstractmethod
    def renewable(self) -> bool:
        """Whether request and answer are over, and the connection may have another."""


class Plain(Cycle):
    """One in plain form."""

    __slots__ = ("_answers", "_data", "_keeps", "_left", "_open", "request", "whole")

    def __init__(self, request: HttpRequest, data: bytes, length: int, *, keeps: bool) -> None:
        """`data` is what came behind the head, `length` that of the body; `keeps`: the client asks for no close."""
        self.request = request
        self.whole = not length
        self._data = data
        self._left = length
        self._keeps = keeps
        self._open = True
        self._answers: int | None = None  # bytes of the answer's body that are to come, where they were declared

    def feed(self, data: bytes) -> None:
        """See `Cycle`."""
        self._data += data

    def pull(self) -> bytes:
        """See `Cycle`."""
        data, left = self._data, self._left
        if not left:
            return b""
        if len(data) < left:
            self._left -= len(data)
            self._data = b""
            return data
        self._left = 0
        self.whole = True
        self._data = data[left:]
        return data[:left]

    @property
    def rest(self) -> bytes:
        """See `Cycle`."""
        return self._data

    @property
    def awaits_consent(self) -> bool:
        """See `Cycle`: one that does is not in plain form."""
        return False

    def consent(self) -> bytes:
        """See `Cycle`."""
        return write_head(100, ())

    def head(self, status: int, fields: Headers) -> bytes:
        """See `Cycle`."""
        if status < 200:
            raise LocalProtocolError(f"a handler's answer is not HTTP: its status is {status}")
        declared: bytes | None = None
        wishes: set[bytes] = set()
        for name, value in fields:
            if name == b"content-length":
                if _LENGTH.fullmatch(value) is None or declared is not None:
                    raise LocalProtocolError(f"a handler's answer is not HTTP: content-length {value!r}")
                declared = value
            elif name == b"connection":
                wishes.update(wish.strip() for wish in value.lower().split(b","))
        bare = status in (204, 304)
        if declared is None and not bare:
            fields = (*fields, (b"Transfer-Encoding", b"chunked"))
        if not self._keeps:
            kept = [pair for pair in fields if pair[0] != b"connection"]
            fields = [*kept, *((b"Connection", wish) for wish in sorted(wishes - {b"", b"keep-alive"} | {b"close"}))]
        elif b"close" in wishes:
            self._keeps = False
        wire = write_head(status, fields)
        if bare or self.request.method == "HEAD":
            self._answers = 0
        elif declared is not None:
            self._answers = int(declared)
        return wire

    @property
    def knows_chunks(self) -> bool:
        """See `Cycle`."""
        return True

    def count(self, data: bytes) -> bytes:
        """See `Cycle`."""
        assert self._answers is not None
        self._answers -= len(data)
        if self._answers < 0:
            raise LocalProtocolError("a handler's answer is not HTTP: it is longer than its content-length")
        return data

    def end(self) -> bytes:
        """See `Cycle`."""
        if self._answers:
            raise LocalProtocolError("a handler's answer is not HTTP: it is shorter than its content-length")
        self._open = False
        return _LAST_CHUNK if self._answers is None else b""

    @property
    def renewable(self) -> bool:
        """See `Cycle`."""
        return self._keeps and self.whole and not self._open


def read_plain(data: bytes, peer: str) -> Plain | None:
    """The request that begins with `data`; None where it is not in plain form, or its head is not whole.

    Args:
        peer: for `HttpRequest`.
    """
    found = _HEAD.match(data)
    if found is None:
        return None
    method, target, block = found.groups()
    lines = [line.partition(b":") for line in block.split(b"\r\n")]
    lines.pop()  # behind the last line end
    headers = tuple([(name.lower(), value.strip(b" \t")) for name, _, value in lines])
    last = dict(headers)
    if b"host" not in last or not _NOT_PLAIN.isdisjoint(last) or method == b"CONNECT":
        return None
    if len(last) != len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in _ONCE):
            return None
    length, keeps = 0, True
    if (said := last.get(b"content-length")) is not None:
        if _LENGTH.fullmatch(said) is None:
            return None
        length = int(said)
    if (said := last.get(b"connection")) is not None:
        said = said.lower()
        if said == b"close":
            keeps = False
        elif said != b"keep-alive":
            return None
    path, query = split_target(target.decode("ascii"))
    request = HttpRequest(method.decode("ascii"), path, query, headers, peer)
    return Plain(request, data[found.end() :], length, keeps=keeps)


def write_head(status: int, fields: Headers) -> bytes:
    """A response head.

    Raises:
        LocalProtocolError: a field is not HTTP.
    """
    block = b"".join([b"%b: %b\r\n" % pair for pair in fields])
    if _FIELDS.fullmatch(block) is None or block.count(b"\n") != len(fields):
        from kirostream.net.judged import judge

        judge(fields)
    return b"%b%b\r\n" % (STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, block)
