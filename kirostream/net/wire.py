"""Wires: connections to an upstream as bytes, with TLS and without. `net.transport` says what they are for.

Where there is a hub (`net.hub`), a wire without TLS stays on it from the first request to its end. So a request takes
no call to register for its answer, and an idle wire knows that the other side has closed it: whatever comes while
nobody waits takes the wire off the hub, and is kept for the next who asks.
"""

from __future__ import annotations

import socket
import ssl
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from kirostream.net.hub import Come, Hub
from kirostream.net.upstream import Origin

if TYPE_CHECKING:
    from kirostream.net._wire import Secret, Track

if sys.platform == "linux":
    import fcntl
    import termios

READ: Final = 64 << 10
"""Bytes of one read."""
RECORD: Final = 16 << 10
"""Bytes of plain text that one TLS record holds at most."""


class Wire:
    """One connection without TLS.

    Args:
        sock: connected, non-blocking.
        patience: seconds in which the other side has to take some of what is sent.

    Attributes:
        ended: the other side has said that it sends nothing more.
        whole: all of the last request has left this machine.
        expires: Trio's time at which the idle wire is given up.
    """

    def __init__(self, sock: socket.socket, origin: Origin, patience: float) -> None:
        self._socket = sock
        self._patience: Final = patience
        self.origin: Final = origin
        self.ended = False
        self.whole = True
        self.expires = 0.0
        self._hub: Hub | None = None  # that it is on
        self._stays = False  # on the hub, between two waits as well
        self._early: bytes | OSError | None = None  # what came while nobody waited

    def __repr__(self) -> str:
        state = "closed" if self._socket.fileno() < 0 else "ended" if self.ended else "open"
        return f"<{type(self).__name__} to {self.origin.host}:{self.origin.port}, {state}>"

    async def receive(self) -> bytes:
        """What has come, waiting for something; empty at the end.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: it was closed here.
        """
        sock = self._socket
        if sock.fileno() < 0:
            raise trio.ClosedResourceError
        while True:
            if self._early is not None:
                return self._came()
            if self._stays and self._hub is not None:
                await self._hub.each(sock, self._take_one)
                continue
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(READ)
            except BlockingIOError:
                continue
            except BrokenPipeError:  # a reset after the end: Linux says it so
                self.ended = True
                raise
            if not data:
                self.ended = True
            return data

    def _take_one(self, raw: bytes | OSError | None) -> bool:
        self._early = raw
        return False

    def _came(self) -> bytes:
        """What came by the hub. Raises as `receive`."""
        came, self._early = self._early, None
        if isinstance(came, OSError):
            if isinstance(came, BrokenPipeError):
                self.ended = True
            raise came
        if not came:
            self.ended = True
        return came or b""

    def stay_on(self, hub: Hub | None) -> None:
        """Be on the hub from now on, if there is one, until something comes that nobody waits for."""
        if hub is not None and self._hub is None and self._early is None:
            self._hub = hub
            self._stays = True
            hub.hold(self._socket, self._stray)

    def _stray(self, raw: bytes | OSError | None) -> bool:
        self._early = raw
        self._hub = None
        self._stays = False
        return False

    def receive_nowait(self) -> bytes | None:
        """What has come, None if nothing has; empty at the end. Raises OSError as `receive`."""
        if self._early is not None:
            return self._came()
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return None
        if not data:
            self.ended = True
        return data

    @property
    def wants_task(self) -> bool:
        """Whether something has to be done before, or instead of, a wait on the hub: `receive` does it."""
        return self._early is not None

    async def watch(self, hub: Hub, come: Come) -> None:
        """Call `come` whenever something has come, until it has enough. See `Hub.each`.

        Raises:
            trio.ClosedResourceError: it was closed here.
        """
        await self._watch(hub, come)

    async def _watch(self, hub: Hub, come: Come, secret: Secret | None = None) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        if self._stays:
            await hub.each(self._socket, come)
            return
        self._hub = hub
        try:
            await hub.each(self._socket, come, secret)
        finally:
            self._hub = None

    def put_on_track(self, track: Track | None) -> None:
        """See `Hub.put_on_track`."""
        if self._hub is not None:
            self._hub.put_on_track(self._socket, track)

    def offer(self, data: bytes) -> bytes:
        """Send what goes at once. What is left; where that is not for want of room, `send` says why."""
        try:
            sent = self._socket.send(data)
        except OSError:
            return data
        return data[sent:]

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. No checkpoint where the kernel takes it at once.

        Raises:
            OSError, trio.ClosedResourceError: as `receive`.
            trio.TooSlowError: nothing was taken in time.
        """
        view = memoryview(data)
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        while True:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                pass
            if not view:
                return
            with trio.fail_after(self._patience):
                await trio.lowlevel.wait_writable(self._socket)

    def is_alive(self) -> bool:
        """Whether an idle connection can be used: nothing has come on it, neither bytes nor an end."""
        if self._stays:
            return True  # else `_stray` was told
        try:
            return self.receive_nowait() is None
        except OSError:
            return False

    def is_unheard(self) -> bool:
        """Whether it is proven that the other side ended before it had the whole of what was sent. See the theory."""
        if not self.whole:
            return True
        if not self.ended or sys.platform != "linux":
            return False
        try:
            waiting = fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return False
        return int.from_bytes(waiting, sys.byteorder) > 0

    def close(self) -> None:
        """Close the connection, whatever state it is in. Whoever waits on it is woken."""
        if self._socket.fileno() >= 0:
            if self._hub is not None:
                self._hub.closing(self._socket)
                self._hub, self._stays = None, False
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class TlsWire(Wire):
    """One connection with TLS: OpenSSL works in memory, the socket stays ours.

    Attributes:
        told: `session` has been asked for.
    """

    def __init__(
        self,
        sock: socket.socket,
        origin: Origin,
        patience: float,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None,
    ) -> None:
        super().__init__(sock, origin, patience)
        self.into = ssl.MemoryBIO()
        self.out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_hostname=origin.name.encode(), session=session)
        self._fault: ssl.SSLError | None = None
        self._kept: bytes | None = None  # text that was read, and not yet handed on; empty at the end
        self.told = False

    def session(self) -> ssl.SSLSession | None:
        """What a later connection to the same origin can begin with, None if nothing. OpenSSL takes 350 us for it."""
        session = self.tls.session
        self.told = True
        return session if session is not None and session.has_ticket else None

    async def handshake(self) -> None:
        """Begin TLS.

        Raises:
            OSError: it did not come about; ssl.SSLError among them.
            trio.TooSlowError: as `send`.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await super().send(self.out.read())
                self._take(await super().receive())
            except ssl.SSLError:
                with suppress(OSError):
                    await super().send(self.out.read())  # the alert that says why
                raise
            else:
                await super().send(self.out.read())
                return

    async def watch(self, hub: Hub, come: Come) -> None:
        """As `Wire.watch`."""
        await self._watch(hub, come, self)

    @property
    def wants_task(self) -> bool:
        """As `Wire.wants_task`: an end or a fault is known, or an answer to a change of keys is due."""
        return self.ended or self._fault is not None or self.out.pending > 0

    async def receive(self) -> bytes:
        """As `Wire.receive`: the text of all whole records that have come."""
        if self.out.pending:
            await super().send(self.out.read())
        if self._fault is not None or self.ended:
            await trio.lowlevel.checkpoint()
            if self._fault is not None:
                raise self._fault
            return b""
        while True:
            self._take(await super().receive())
            data = self._opened()
            if self.out.pending:  # an answer to a change of keys
                await super().send(self.out.read())
            if data is not None:
                return data

    def receive_nowait(self) -> bytes | None:
        """As `Wire.receive_nowait`."""
        raw = super().receive_nowait()
        if raw is not None:
            self._take(raw)
        elif self._kept is None:
            return None
        return self._opened()

    def keep(self, text: bytes) -> None:
        """As `net._wire.Secret` has it. The end says itself once more."""
        self._kept = text

    def stay_on(self, hub: Hub | None) -> None:
        """It does not: what comes may be for TLS alone."""

    def offer(self, data: bytes) -> bytes:
        """Nothing goes at once: `send` does it all."""
        return data

    def _take(self, raw: bytes) -> None:
        if raw:
            self.into.write(raw)
        else:
            self.into.write_eof()

    def _opened(self) -> bytes | None:
        """The text of the records that are whole; None if there are none, empty at a farewell.

        Raises:
            ssl.SSLError: they are no TLS, or the connection ended without a farewell: somebody may have cut it.
        """
        parts = [self._kept] if self._kept else []
        self._kept = None
        try:
            while True:
                part = self.tls.read(RECORD)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
                if not self.into.pending and not self.tls.pending():
                    break
        except ssl.SSLWantReadError:
            if not parts:
                return None
        except ssl.SSLError as error:
            if not parts:
                raise
            self._fault = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes | memoryview) -> None:
        """As `Wire.send`."""
        view = memoryview(data)
        for at in range(0, len(view), READ):
            self.tls.write(view[at : at + READ])
            await super().send(self.out.read())

    def close(self) -> None:
        """As `Wire.close`, with a farewell if the kernel takes it."""
        if self.whole and self._socket.fileno() >= 0:
            with suppress(ssl.SSLError, ValueError):  # it wants the other side's, which nobody waits for
                self.tls.unwrap()
            with suppress(OSError):
                self._socket.send(self.out.read())
        super().close()
