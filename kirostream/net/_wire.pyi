"""The compiled part of `net.framing` and of `net.hub`. `_wire.pyx` has the theory."""

import ssl
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, final

import trio

from kirostream.net.quick import Outlet

HAS_EPOLL: bool
"""Whether a `Poller` can wait on this platform."""

def whole_chunks(data: bytes, at: int) -> tuple[bytes, int]:
    """The bodies of the chunks that lie whole in `data` from `at` on, joined, and where they end.

    It stops before the last chunk, before one that is not whole, and before one whose size is not said plainly.
    """

@final
class Track:
    """The way of the tokens of one block, from body to client. Its owner is `relay.lane.Lane`.

    Args:
        runs: of the decoder (`kirostream/_runs.h`).
        outlet: where the chunks of the answer go.
        template: what stands before the first piece, between two, and behind the last.
        room: bytes of pieces that may go this way.
        on_behind: called once, when the client does not take everything. It must not raise.
        number: of the next event, where they are numbered. Then each piece is an event of its own, and the template is
            what stands before its number, between that and the piece, and behind the piece.

    Attributes:
        count: pieces that were carried.
        sent: bytes of body that were offered to the client.
        last: when the last piece came, by the monotonic clock.
    """

    count: int
    sent: int
    last: float
    def __init__(
        self,
        runs: object,
        outlet: Outlet,
        template: Sequence[bytes],
        room: int,
        on_behind: Callable[[], None],
        number: int | None = None,
    ) -> None: ...
    @property
    def is_open(self) -> bool:
        """Whether it takes anything more."""
    def close(self) -> None:
        """Take nothing more."""
    def push(self, data: bytes) -> bool:
        """Carry body. False: it was not taken."""
    def take(self) -> list[bytes]:
        """The pieces that were carried since the last call."""

class Secret(Protocol):
    """TLS in memory: what comes is written to `into` and read from `tls`; what is in `out` has to be sent."""

    into: ssl.MemoryBIO
    out: ssl.MemoryBIO
    tls: ssl.SSLObject
    def keep(self, text: bytes) -> None:
        """This was read already. It is the first of what its reader reads next."""

@final
class Watch:
    """One socket on the hub.

    Args:
        fd: its descriptor.
        come: called with what has come: bytes (empty at the end), or the error; None where it has to look by itself.
            Returns whether it wants to be called again.
        task: that sleeps meanwhile, None where none does.
        secret: TLS before the socket.

    Attributes:
        track: where what has come goes first, if it is whole chunks.
    """

    fd: int
    task: trio.lowlevel.Task | None
    come: Callable[[bytes | OSError | None], bool]
    track: Track | None
    def __init__(
        self,
        fd: int,
        come: Callable[[bytes | OSError | None], bool],
        task: trio.lowlevel.Task | None,
        secret: Secret | None = None,
    ) -> None: ...

@final
class Poller:
    """Waits for the sockets on the hub and for Trio's epoll.

    Args:
        epoll, trio: their descriptors.
        ended: called with a watch that wants no more, and with what it raised. It removes it.
        bounds: of `times`, in seconds.

    Attributes:
        called: whether the last `wait` saw, or may have missed, that Trio's epoll has something.
        times: how many of the reads that were carried took no longer than each bound, and how many took longer than
            all, from the lap's beginning to when the client's socket had them; and their sum. Of one lap in 64 of those
            that carry something.
    """

    called: bool
    times: tuple[list[int], float]

    def __init__(
        self,
        epoll: int,
        trio: int,
        ended: Callable[[Watch, BaseException | None], None],
        bounds: Sequence[float] = (),
    ) -> None: ...
    def add(self, watch: Watch) -> None:
        """Serve what comes on its socket. It has to live until it is removed."""
    def remove(self, watch: Watch) -> None:
        """Serve it no more."""
    def wait(self, timeout: float, watched: bool, runq: Collection[object]) -> bool:
        """Wait, and serve what comes, until Trio has something to do.

        Args:
            timeout: seconds that Trio is ready to wait.
            watched: do not wait.
            runq: what Trio can run.

        Returns:
            Whether Trio must be kept from waiting on.
        """
