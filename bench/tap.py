"""A TCP relay between a gateway and its upstream that notes when the gateway lets go of a connection.

The simulator knows that a client of its own left only when it next looks; the tap sees the end of the connection as it
comes, the same way for every gateway, and takes no part in any other measurement.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType

READ = 64 << 10


class Tap:
    """Relays in a thread of its own, until the block ends.

    Args:
        upstream: port on loopback.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._of_gateway: set[socket.socket] = set()
        self._speaking: socket.socket | None = None  # the gateway's end where the upstream spoke last
        self._left: tuple[socket.socket, int] | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Tap on port {self.port}, {len(self._of_gateway)} connections>"

    def speaking(self) -> socket.socket | None:
        """The gateway's connection on which the upstream spoke last: that of the answer now under way."""
        return self._speaking

    def wait_until_left(self, connection: socket.socket, patience: float) -> int | None:
        """When the gateway let go of a connection, in nanoseconds of the monotonic clock; None if it does not."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._left is not None and self._left[0] is connection, patience)
            return self._left[1] if found and self._left else None

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            pass  # wakes the thread
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._other:
                    self._relay(key.fileobj)
        for end in list(self._other):
            end.close()
        self._listener.close()
        self._selector.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self._stopping:
            near.close()
            return
        far = socket.create_connection(("127.0.0.1", self._upstream))
        for end, other in ((near, far), (far, near)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._other[end] = other
            self._selector.register(end, selectors.EVENT_READ)
        self._of_gateway.add(near)

    def _relay(self, end: socket.socket) -> None:
        other = self._other[end]
        try:
            data = end.recv(READ)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(end, time.monotonic_ns())
        elif other in self._of_gateway:
            self._speaking = other

    def _close(self, end: socket.socket, at: int) -> None:
        other = self._other[end]
        if end in self._of_gateway:
            with self._changed:
                self._left = (end, at)
                self._changed.notify_all()
        for each in (end, other):
            self._selector.unregister(each)
            del self._other[each]
            self._of_gateway.discard(each)
            each.close()
