"""What is not in plain form: h11 reads it, and answers it. See `net/cycle.py`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import h11

from kirostream.errors import LocalProtocolError, MalformedRequest, RequestTooLarge, without_literals
from kirostream.net.cycle import STATUS_LINES, Cycle
from kirostream.net.door import split_target
from kirostream.net.exchange import Headers, HttpRequest


def judge(fields: Headers) -> None:
    """Whether h11 takes what is not in plain form.

    Raises:
        LocalProtocolError: it does not.
    """
    try:
        h11.Response(status_code=200, headers=list(fields))
    except h11.LocalProtocolError as error:
        raise _not_http(error) from None


class Judged(Cycle):
    """One that h11 reads and answers.

    Args:
        max_head: bytes.
        peer: for `HttpRequest`.
    """

    def __init__(self, max_head: int, peer: str) -> None:
        self._h11: Final = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head)
        self._max_head: Final = max_head
        self._peer: Final = peer
        self.whole = False

    def feed(self, data: bytes) -> None:
        """See `Cycle`."""
        self._h11.receive_data(data)

    def read_head(self) -> bytes:
        """Read the head: `request` is set, and its version given, such as ``1.1``; empty while it has not come.

        Raises:
            MalformedRequest, RequestTooLarge: it is none.
        """
        event = self._next()
        if event is h11.NEED_DATA:
            return b""
        if not isinstance(event, h11.Request):
            raise LocalProtocolError(f"h11 gave {type(event).__name__} where a request begins")
        path, query = split_target(event.target.decode("ascii"))
        headers = tuple(event.headers)
        self.request = HttpRequest(event.method.decode("ascii"), path, query, headers, self._peer)
        if not any(
            name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0) for name, value in headers
        ):
            self._h11.next_event()  # EndOfMessage: h11 needs no more bytes for it
            self.whole = True
        version: bytes = event.http_version
        return bytes(version)

    def _next(self) -> Any:
        """h11's next event, its complaints in our words."""
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise RequestTooLarge(f"The request's head is over the limit of {self._max_head} bytes.") from None
            raise MalformedRequest(f"This is not HTTP/1.1: {without_literals(str(error))}.") from None

    def pull(self) -> bytes | bytearray:
        """See `Cycle`."""
        if not self.whole:
            event = self._next()
            if isinstance(event, h11.EndOfMessage):
                self.whole = True
            elif event is not h11.NEED_DATA:
                data: bytearray = event.data
                return data
        return b""

    @property
    def rest(self) -> bytes:
        """See `Cycle`."""
        return self._h11.trailing_data[0]

    @property
    def awaits_consent(self) -> bool:
        """See `Cycle`."""
        return self._h11.they_are_waiting_for_100_continue

    def consent(self) -> bytes:
        """See `Cycle`."""
        reason = HTTPStatus.CONTINUE.phrase.encode("ascii")
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=reason))

    def head(self, status: int, fields: Headers) -> bytes:
        """See `Cycle`."""
        line = STATUS_LINES.get(status, b"")
        try:
            return self._h11.send(
                h11.Response(status_code=status, headers=list(fields), reason=line[len("HTTP/1.1 200 ") : -2])
            )
        except h11.LocalProtocolError as error:
            raise _not_http(error) from None

    @property
    def knows_chunks(self) -> bool:
        """See `Cycle`."""
        return self._h11.their_http_version != b"1.0"

    def count(self, data: bytes) -> bytes:
        """See `Cycle`."""
        return self._send(h11.Data(data=data))

    def end(self) -> bytes:
        """See `Cycle`."""
        return self._send(h11.EndOfMessage())

    def _send(self, event: h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._h11.send(event)
        except h11.LocalProtocolError as error:
            raise _not_http(error) from None

    @property
    def renewable(self) -> bool:
        """See `Cycle`."""
        return self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


def _not_http(error: h11.LocalProtocolError) -> LocalProtocolError:
    return LocalProtocolError(f"a handler's answer is not HTTP: {without_literals(str(error))}")
