"""The compiled core of `kirostream.net.quick`, and the documentation of both cores."""

from collections.abc import Sequence
from typing import Final, Literal, final

import trio

CORE: Final[Literal["compiled", "python"]]
"""Which core this is."""

@final
class Outlet:
    """Where one connection's bytes go, and what could not go yet.

    It writes to the file descriptor that the socket has at the beginning, so its owner has to `shut` it before the
    socket is closed: the number may be another connection's next.

    Args:
        sock: None where the connection is no plain socket. Then it is never free.
    """

    def __init__(self, sock: trio.socket.SocketType | None) -> None: ...
    @property
    def sock(self) -> trio.socket.SocketType | None:
        """What it was made with."""
    unsent: bytes
    """What is to be sent before anything else, by the owner."""
    free: bool
    """Whether a writer may send at once: nothing is unsent, nobody waits in the middle of something, and it is not
    shut. The owner keeps it right."""
    fanned: int
    """Bytes of messages that went out by `write_each`, for the owner's books."""
    def offer(self, data: bytes) -> bool:
        """Send as far as that goes without waiting, and keep the rest as `unsent`. It does not raise.

        Returns:
            Whether it is sent whole. Otherwise whoever sends what is unsent hears what is wrong, if anything is.
        """
    def owe(self, rest: bytes) -> None:
        """Keep what could not go."""
    def shut(self) -> None:
        """Write no more: the socket is being closed."""

def write_each(outlets: list[Outlet | None], data: bytes) -> Sequence[tuple[int, int]]:
    """Send `data` through each outlet that is free, as far as that goes without waiting. It does not raise.

    Returns:
        Of those to which it did not go whole: the index, and how many bytes went. They are owed nothing yet.
    """
