"""What a dialect is: the faces every language has.

The server's face reads requests and writes answers; the client's face writes requests and reads answers. A dialect is
never given an account or a URL (that is a provider), a clock or randomness (ids and times come in a `Heading`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import field
from typing import NamedTuple, Protocol, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError
from kirostream.turn.events import BlockDelta, TurnEvent
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest
from kirostream.turn.result import TurnResult

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""HTTP header fields in wire order, names in lower case. The same type as `net.exchange.Headers`."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a writer may not make up itself: ids and times.

    `turn` is 32 hex digits, the stem of every id in the answer; `created` is unix seconds; `request_id` is the id of
    the HTTP request (``req_...``), which error bodies repeat.
    """

    turn: str
    created: int
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the place adds to a request that the question itself does not hold.

    `model` is the upstream's id of the model. `profile_arn` and the rest are empty where the place has none.
    """

    model: Model
    conversation_id: str = ""
    continuation_id: str = ""
    profile_arn: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """An upstream's error body, as its wire words it. Empty strings where it says nothing.

    An upstream may quote what it was sent, a token too; so what it says is not shown.
    """

    code: str = ""
    reason: str = ""
    message: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error in a dialect's words: a whole HTTP answer."""

    status: int
    headers: Headers
    body: bytes


Steps: TypeAlias = Generator[int, None, TurnRequest]
"""A request being read in steps: yields the bytes that each step took, and returns the request."""


def all_at_once(steps: Steps) -> TurnRequest:
    """The request, with every step taken now."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            request: TurnRequest = done.value
            return request


class Reader(Protocol):
    """Reads one streamed answer. Its events obey `turn.grammar`."""

    def feed(self, data: bytes) -> list[TurnEvent]:
        """Take the next bytes, in any cut.

        Raises:
            RemoteProtocolError: the bytes are not what the dialect allows.
        """

    def close(self) -> list[TurnEvent]:
        """The upstream has closed the stream in good order.

        Raises:
            StreamCut: the turn was not whole.
        """


class RunReader(abc.ABC):
    """A reader that can say of the next bytes that they are nothing but more of the open block.

    Then they can go a shorter way than through `feed`; who takes them owes the reader a `hear`, before it is asked for
    anything else.
    """

    run_of: Callable[[bytes, int], list[bytes] | None]
    """The pieces of some bytes if they are nothing but more of the running block, and at most so many bytes; None: they
    were not taken."""
    runs: object | None
    """The same for compiled code, in a capsule as `kirostream/_runs.h` has it; None where nothing is compiled."""

    @property
    @abc.abstractmethod
    def running(self) -> int | None:
        """The index of the open block, if a run means more of it; else None."""

    @abc.abstractmethod
    def hear(self, pieces: Sequence[bytes]) -> None:
        """These were taken for more of the running block."""


class Writer(Protocol):
    """Writes one streamed answer. The same events always give the same bytes."""

    def write(self, event: TurnEvent) -> list[bytes]:
        """The wire blocks that say `event`; empty where the dialect has nothing to say."""

    def heartbeat(self) -> bytes:
        """A block that says nothing and keeps the connection alive."""


class Template(NamedTuple):
    """The words around the pieces of one block.

    `before` stands before the first piece, `between` between two, `after` behind the last. Where the events of a
    language are numbered, `number` is that of the next, and each piece is an event of its own: `before`, the number,
    `between`, the piece, `after`.
    """

    before: bytes
    between: bytes
    after: bytes
    number: int | None = None

    def say(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The wire blocks that say some pieces, at least one."""
        first = self.number
        if first is None:
            return [self.before + self.between.join(pieces) + self.after]
        form = self.form
        return [form % numbered for numbered in enumerate(pieces, first)]

    @property
    def form(self) -> bytes:
        """What `%` makes a numbered event of, with number and piece. To join the parts takes three times that."""
        return b"%b%%d%b%%b%b" % tuple(words.replace(b"%", b"%%") for words in self[:3])


class Templates(abc.ABC):
    """A writer whose deltas say their pieces, and nothing else that changes but numbers."""

    @abc.abstractmethod
    def template(self, index: int) -> Template | None:
        """The words around the next pieces of an open block; None where it has to see each delta.

        They stay the same until something else is written, but for the number.
        """

    @abc.abstractmethod
    def was_said(self, event: BlockDelta) -> None:
        """A delta of a block that has a template went out without `write`."""


class ChoicesWriter(Protocol):
    """Writes several streamed answers to one question into one stream."""

    def write(self, choice: int, event: TurnEvent) -> list[bytes]:
        """The wire blocks that say `event` of the answer `choice`, counted from 0."""

    def heartbeat(self) -> bytes:
        """A block that says nothing and keeps the connection alive."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One language.

    Attributes:
        name: its name in settings, logs and `TurnRequest.spoken_in`.
        path: its public route, None where it is spoken upstream only.
        content_type: of a streamed answer.
        read_request: a client's body and headers to a question. Raises MalformedRequest.
        write_request: a question to an upstream's body.
        writer: for one streamed answer.
        reader: for one streamed answer of an upstream.
        write_result: a whole answer.
        read_result: an upstream's whole answer. Raises RemoteProtocolError.
        write_error: an error as a whole HTTP answer; the second argument is the request id.
        read_error: an upstream's error body; the first argument holds the response headers.
        read_in_steps: the same as `read_request`, for who has to let others run in between; None where it is one step.
        choices_writer: for `TurnRequest.choices` answers in one stream; None where the language has one answer alone.
        write_results: as many whole answers.
    """

    name: str
    path: str | None
    content_type: bytes
    read_request: Callable[[bytes, Headers], TurnRequest]
    write_request: Callable[[TurnRequest, Stamp], bytes]
    writer: Callable[[TurnRequest, Heading], Writer]
    reader: Callable[[TurnRequest, Model], Reader]
    write_result: Callable[[TurnRequest, TurnResult, Heading], bytes]
    read_result: Callable[[bytes], TurnResult]
    write_error: Callable[[KirostreamError, str], ErrorReply]
    read_error: Callable[[Headers, bytes], Complaint]
    read_in_steps: Callable[[bytes, Headers], Steps] | None = None
    choices_writer: Callable[[TurnRequest, Heading], ChoicesWriter] | None = None
    write_results: Callable[[TurnRequest, Sequence[TurnResult], Heading], bytes] | None = None


Registry: TypeAlias = Mapping[str, Dialect]
