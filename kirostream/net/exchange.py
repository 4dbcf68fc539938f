"""What a handler sees of one HTTP request and its answer. No server library shows through.

A door (`net.http1`, `net.asgi`) makes an `Exchange` and calls a `Handler` with it. Rules:

- Headers are pairs of bytes in wire order, names in lower case.
- `start` once, then `send` any number of times, then `finish`. A whole answer goes by `reply`.
- The door cancels the handler when the client goes away, and turns an exception the handler lets out into a 500 before
  `start`, or into a cut connection after it. It owns every deadline of the connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import Final, Protocol, TypeAlias

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, LocalProtocolError
from kirostream.net.quick import Outlet

_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


class PeerGone(KirostreamError):
    """The client closed or reset its connection."""

    level = "debug"


class PeerStalled(KirostreamError):
    """The client did not read what was sent within the write deadline; its connection was cut."""

    level = "info"


class Messages(Protocol):
    """A WebSocket whose frames are the server's business: what a door gives that has no raw stream to give."""

    async def accept(self, subprotocol: str | None) -> None:
        """Answer the handshake.

        Raises:
            PeerGone, PeerStalled: as for `Exchange.send`; so for all of these.
        """

    async def receive(self) -> str | bytes:
        """The next message. PeerGone: there will be none."""

    async def send(self, text: str) -> None:
        """Send a message. Tasks may share it."""

    async def close(self, code: int, reason: str) -> None:
        """Send the closing frame, and wait for the peer's."""


class UpgradeUnsupported(LocalProtocolError):
    """This door has no raw stream to give. `messages` is what it gives instead, where the request is a handshake."""

    def __init__(self, message: str, messages: Messages | None) -> None:
        super().__init__(message)
        self.messages = messages


def new_request_id() -> str:
    """An id for one exchange: for its headers, error bodies and log lines."""
    return f"req_{os.urandom(12).hex()}"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The head of a request.

    `path` is the target without its query, still percent-encoded; `query` is without the question mark; `peer` is for
    logs, ``127.0.0.1:51234``. `query` and `headers` may hold keys, so `repr` leaves them out. `secure`: it came over
    TLS, which ended at this door. `id` is what we call it: in the answer's head, in error bodies, in the log.
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Headers = field(repr=False)
    peer: str = ""
    secure: bool = False
    id: str = field(default_factory=new_request_id, compare=False)
    _first: dict[bytes, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first", dict(reversed(self.headers)))  # the first of a name comes last, and stays

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, None where it is absent. `name` is in lower case."""
        return self._first.get(name)

    @property
    def traceparent(self) -> str:
        """The span of the client's that it belongs to (W3C Trace Context); "" where it names none."""
        said = self._first.get(b"traceparent")
        return said.decode("ascii") if said is not None and _TRACEPARENT.fullmatch(said) else ""


class Part:
    """A part of the body that goes to many clients, as each of them may need it: framed once."""

    __slots__ = ("chunk", "data")

    def __init__(self, data: bytes) -> None:
        """`data` must not be empty."""
        self.data = data
        self.chunk = b"%x\r\n%b\r\n" % (len(data), data)
        """One chunk (RFC 9112 section 7.1)."""

    def __len__(self) -> int:
        return len(self.data)


class Exchange(Protocol):
    """One request and its answer."""

    @property
    def request(self) -> HttpRequest:
        """The head of the request."""

    @property
    def started(self) -> bool:
        """Whether the head of the answer was sent."""

    @property
    def outlet(self) -> Outlet | None:
        """Where the chunks of parts may be written to in place of an `offer`, until the next `send` or `finish`.

        None where this answer has no chunks, or its connection is no plain socket.
        """

    async def body(self, limit: int) -> bytes:
        """The whole body, decompressed (gzip, zstd).

        Args:
            limit: bytes, of the decompressed body.

        Raises:
            RequestTooLarge: the body is over the limit.
            MalformedRequest: the coding is unknown or the data is not in it.
            PeerGone: the client left before the body was whole.
        """

    async def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        """Send the head, and the first part of the body in the same write. Without ``content-length`` it is chunked.

        Raises:
            PeerGone, PeerStalled: as for `send`.
        """

    def offer_start(self, status: int, headers: Headers, first: bytes) -> bool:
        """As `start`, as far as that goes without waiting.

        Returns:
            Whether all of it is sent. Otherwise `started` says whether the answer has begun: then what is left goes
            with the next `send` or `finish`, as for `offer`. Where it has not, nothing was done: call `start`.

        Raises:
            LocalProtocolError: HTTP has no such head.
        """

    async def send(self, data: bytes) -> None:
        """Send a part of the body, at once.

        Raises:
            PeerGone: the client is not there any more.
            PeerStalled: the client does not read; the write deadline passed.
        """

    def offer(self, part: Part) -> bool:
        """Send a part of the body as far as that goes without waiting. It does not raise.

        Returns:
            Whether it is sent whole. Otherwise the exchange keeps what is left, or why nothing can be sent any more,
            and the next `send` or `finish` goes on from there: call it soon, with nothing more to say if need be.
        """

    async def finish(self, last: bytes = b"") -> None:
        """The body is whole with its last part, which goes out in the same write as its end."""

    def offer_finish(self, last: bytes) -> bool:
        """As `finish`, as far as that goes without waiting. To be called where there is an `outlet`. It does not raise.

        Returns:
            Whether all of it is sent. Otherwise call `finish`, with nothing more to say.
        """

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer: head, ``content-length``, body, end."""

    def abort(self) -> None:
        """Cut the connection without ending the body: an honest way to say that the answer is not whole.

        A client's HTTP library reports an incomplete body. Nothing can be sent afterwards.
        """

    async def upgrade(self) -> trio.abc.Stream:
        """Leave HTTP and take over the raw stream, with what was already read put back in front.

        Raises:
            UpgradeUnsupported: this door cannot; it may have something else.
            LocalProtocolError: the answer was already started.
        """


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]
