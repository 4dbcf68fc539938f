"""The hub: one wait for all sockets whose bytes need no task.

Theory
======

A token of a paced stream comes alone. By Trio's own way it costs a lap of the scheduler and the switch to a task for
each who handles it, several times what the handling takes (and the handling is no more than a read, a pass over some
bytes, and a write that does not wait). So a task that has nothing to do but to hand on what comes does not wait for its
socket itself. It gives the hub a function, *come*, and sleeps until that function says that the task is needed: at the
beginning, the end, a fault, a client that is behind.

Where the time comes from: **the hub stands where Trio's epoll stood**. Trio calls `poll` when it has run what can be
run, with the time that it is ready to wait. The hub waits, for the sockets it was given *and for everything that Trio
would wait for*: Trio's own epoll descriptor is one more descriptor in the hub's. What comes on the hub's sockets is
taken there and then; once Trio has something to do (a socket of its own, a deadline, a thread, a signal, a task that a
*come* has woken) the hub returns. A stream of tokens costs no lap at all as long as nobody needs a task. ::

    Trio: run what can be run --> poll --> run ...
                                   |
                                   +-- hub: wait for both; come, come, come; until Trio has something

What stays as it is: there is one thread, so nothing needs a lock; a task owns its stream, and cancelling the task takes
the stream off the hub; deadlines are Trio's, for the hub waits no longer than Trio would. A *come* must not wait, and
what it does is what a task does between two checkpoints.

A deadline that a *come* brings forward is seen after the one that stood, not before: those that are moved here are
moved back (`relay.attempt`).

A socket that is waited for again and again can stay on the hub between two waits (`Hub.hold`): then a wait takes no
system call, and what comes meanwhile is told to somebody as well.

While nothing but tokens of one block come, not even *come* is called: a *track* takes them to the client in compiled
code (`_wire.pyx`, `relay.lane`).

Some of this is Trio's own business: its epoll, and what can be run. It is looked for when the hub is opened; where
something is not found, or there is no epoll (macOS, Windows) or no compiled core, there is no hub, and each task waits
for its socket by itself. That is the plain way: the same functions, called by the same tasks.
`tests/net/test_each.py` runs both.
"""

from __future__ import annotations

import math
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import outcome
import trio

if TYPE_CHECKING:
    from kirostream.net._wire import Poller, Secret, Track, Watch

Come: TypeAlias = "Callable[[bytes | OSError | None], bool]"
"""Handles what has come on a socket, without waiting. Returns whether it wants to be called again."""


BOUNDS: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1)
"""Of `Hub.times`, in seconds."""


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Its descriptor."""


class Hub:
    """Waits in the place of Trio's epoll, which does everything else. Made by `opened`, in the thread of its run."""

    def __init__(self, runner: Any, trio_epoll: select.epoll) -> None:
        from kirostream.net._wire import Poller, Watch

        self._watch = Watch
        self._runner = runner
        self._trio = trio_epoll
        # What else Trio asks of its epoll.
        self.register, self.modify, self.unregister = trio_epoll.register, trio_epoll.modify, trio_epoll.unregister
        self._epoll = select.epoll()
        self._epoll.register(trio_epoll.fileno(), select.EPOLLIN)
        self._watches: dict[int, Watch] = {}
        self._resting: dict[int, Watch] = {}  # of the sockets that stay here between two waits
        self._poller: Poller = Poller(self._epoll.fileno(), trio_epoll.fileno(), self._ended, BOUNDS)
        runner.io_manager._epoll = self  # noqa: SLF001  see the theory

    def __repr__(self) -> str:
        return f"<Hub of {len(self._watches)} sockets>"

    @property
    def times(self) -> tuple[list[int], float]:
        """How long tokens took that no interpreter saw: counts by `BOUNDS`, and seconds in all.

        One lap in 64 of those that carry any is clocked, from the moment at which the hub woke to the one at which the
        client's socket had them: what came before them in the same lap is in it.
        """
        return self._poller.times

    def close(self) -> None:
        """Give Trio its epoll back. Nothing may be on the hub any more."""
        self._runner.io_manager._epoll = self._trio  # noqa: SLF001
        self._epoll.close()

    async def each(self, sock: HasFileno, come: Come, secret: Secret | None = None) -> None:
        """Call `come` whenever something has come on `sock`, until it says that it has enough.

        Args:
            come: gets what was received, empty at the end, or the error; what it raises comes out here.
            secret: TLS before the socket. `come` gets the text of a record that comes alone; None: it reads by itself.

        Raises:
            trio.ClosedResourceError: `closing` was called for it.
        """
        fd = sock.fileno()
        resting = self._resting.get(fd)
        if resting is None:
            self._epoll.register(fd, select.EPOLLIN)
        else:
            self._poller.remove(resting)
        self._watches[fd] = watch = self._watch(fd, come, trio.lowlevel.current_task(), secret)
        self._poller.add(watch)

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._drop(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def hold(self, sock: HasFileno, rest: Come) -> None:
        """Have a socket stay here: to wait for it costs no system call then. `closing` ends that.

        Args:
            rest: gets what comes while nobody waits. False: the socket stays no longer. It must not raise.
        """
        fd = sock.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._watches[fd] = self._resting[fd] = watch = self._watch(fd, rest, None)
        self._poller.add(watch)

    def put_on_track(self, sock: HasFileno, track: Track | None) -> None:
        """What comes on a socket goes to `track` first, and to its `come` where that does not take it."""
        watch = self._watches.get(sock.fileno())
        if watch is not None:
            watch.track = track

    def closing(self, sock: HasFileno) -> None:
        """The socket is about to be closed: whoever waits for it is woken."""
        fd = sock.fileno()
        self._resting.pop(fd, None)
        watch = self._watches.get(fd)
        if watch is not None:
            self._ended(watch, trio.ClosedResourceError("another task closed this socket"))

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Wait until there is something for Trio, `timeout` seconds at most. Gives what is up with its descriptors."""
        if self._watches:
            runner = self._runner
            # A test that waits until nothing happens, or whose clock jumps then: what is nothing, Trio sees itself.
            watched = runner.waiting_for_idle or runner.clock_autojump_threshold != math.inf
            if self._poller.wait(timeout, bool(watched), runner.runq):
                timeout = 0.0
            if not timeout and not self._poller.called:
                return []  # its epoll was looked at with ours
        return self._trio.poll(timeout, most)

    def _ended(self, watch: Watch, error: BaseException | None) -> None:
        """A wait is over: wake its task."""
        self._drop(watch.fd)
        if watch.task is not None:
            trio.lowlevel.reschedule(watch.task, outcome.Value(None) if error is None else outcome.Error(error))

    def _drop(self, fd: int) -> None:
        """Take a socket off the hub, unless somebody has waited for it who wants it to stay."""
        watch, resting = self._watches.pop(fd), self._resting.get(fd)
        self._poller.remove(watch)
        if resting is not None and watch is not resting:
            self._watches[fd] = resting
            self._poller.add(resting)
            return
        self._resting.pop(fd, None)
        self._epoll.unregister(fd)


_HUB: Final[trio.lowlevel.RunVar[Hub | None]] = trio.lowlevel.RunVar("hub", None)


def current_hub() -> Hub | None:
    """The hub of this run, None where each task waits by itself."""
    return _HUB.get()


@contextmanager
def opened(*, wanted: bool = True) -> Iterator[Hub | None]:
    """Have a hub in this run of Trio, where there can be one and it is `wanted`; `None` where not."""
    before = _HUB.get()
    hub = _make() if wanted and before is None else None
    if hub is None:
        yield before
        return
    _HUB.set(hub)
    try:
        yield hub
    finally:
        _HUB.set(None)
        hub.close()


def obstacle() -> str:
    """Why there can be no hub in this run of Trio, for a person; empty: there can."""
    if os.environ.get("KIROSTREAM_CORE") == "python":
        return "KIROSTREAM_CORE asks for the core in Python"
    try:
        from kirostream.net import _wire
    except ImportError:
        return "the compiled core is not built"
    if not _wire.HAS_EPOLL:
        return "this system has no epoll"
    return "" if _trios() else "this version of Trio is not the one that the hub knows"


def _make() -> Hub | None:
    known = None if obstacle() else _trios()
    return None if known is None else Hub(*known)


def _trios() -> tuple[Any, select.epoll] | None:
    """What of Trio's run the hub works with; None where something of it is not as it is known."""
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        runner: Any = GLOBAL_RUN_CONTEXT.runner
        epoll = runner.io_manager._epoll  # noqa: SLF001  see the theory
        known = (runner.runq, runner.waiting_for_idle, runner.clock_autojump_threshold)
    except (ImportError, AttributeError):
        return None
    return (runner, epoll) if isinstance(epoll, select.epoll) and len(known) == 3 else None
