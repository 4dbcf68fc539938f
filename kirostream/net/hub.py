"""The hub: one wait for all sockets whose bytes need no task.

Theory
======

A token of a paced stream comes alone. By Trio's own way it costs a lap of the scheduler and the switch to a task for
each who handles it, several times what the handling takes (and the handling is no more than a read, a pass over some
bytes, and a write that does not wait). So a task that has nothing to do but to hand on what comes does not wait for its
socket itself. It gives the hub a function, *take*, and sleeps until that function says that the task is needed: at the
beginning, the end, a fault, a client that is behind.

Where the time comes from: **Trio tells its instruments before it waits** (`trio.abc.Instrument.before_io_wait`), with
the time that it is ready to wait. Nothing can be run at that moment, or Trio would not wait. So the hub waits in its
stead, for the sockets it was given *and for everything that Trio would wait for*: Trio's epoll descriptor is one more
descriptor in the hub's. What comes on the hub's sockets is taken there and then; once Trio has something to do (a
socket of its own, a deadline, a thread, a signal, a task that a *take* has woken) the hub returns, and Trio's own wait
finds it at once. A stream of tokens costs no lap at all as long as nobody needs a task. ::

    Trio: run what can be run --> before_io_wait --> wait --> run ...
                                        |
                                        +-- hub: wait for both; take, take, take; until Trio has something

What stays as it is: there is one thread, so nothing needs a lock; a task owns its stream, and cancelling the task takes
the stream off the hub; deadlines are Trio's, for the hub waits no longer than Trio would. A *take* must not wait, and
what it does is what a task does between two checkpoints.

The time that Trio is ready to wait was computed before the hub took it. So where the hub has used it up, or a *take*
has woken a task, it wakes Trio's wait (`force_wakeup`). A deadline that a *take* brings forward is seen after the one
that stood, not before: those that are moved here are moved back (`relay.attempt`).

Some of this is Trio's own business: its epoll, what can be run, `force_wakeup`. It is looked for when the hub is
opened; where something is not found, or there is no epoll (macOS, Windows), there is no hub, and each task waits for
its socket by itself. That is the plain way: the same functions, called by the same tasks. `tests/net/test_each.py` runs
both.
"""

from __future__ import annotations

import math
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

import outcome
import trio

Take: TypeAlias = Callable[[], bool]
"""Handles what has come on a socket, without waiting. Returns whether it wants to be called again."""

BATCH: Final = 64
"""Sockets that one call to the kernel reports."""


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Its descriptor."""


class Watch:
    """One socket on the hub, and the task that sleeps meanwhile."""

    __slots__ = ("_fd", "_hub", "_task", "take")

    def __init__(self, hub: Hub, fd: int, take: Take) -> None:
        self._hub = hub
        self._fd = fd
        self._task = trio.lowlevel.current_task()
        self.take = take

    def end(self, how: outcome.Outcome[None]) -> None:
        """Take the socket off the hub, and wake the task."""
        self._hub.drop(self._fd)
        trio.lowlevel.reschedule(self._task, how)


class Hub(trio.abc.Instrument):
    """Waits in Trio's stead. Made by `opened`, in the thread of its run."""

    def __init__(self, runner: Any, trio_epoll: select.epoll) -> None:
        self._runner = runner
        self._trio = trio_epoll.fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._trio, select.EPOLLIN)
        self._watches: dict[int, Watch] = {}

    def __repr__(self) -> str:
        return f"<Hub of {len(self._watches)} sockets>"

    def close(self) -> None:
        """Give up the descriptor. Nothing may be on the hub any more."""
        self._epoll.close()

    async def each(self, sock: HasFileno, take: Take) -> None:
        """Call `take` whenever something has come on `sock`, until it says that it has enough.

        What `take` raises comes out here. Cancelled, the socket is off the hub at once.

        Raises:
            trio.ClosedResourceError: `closing` was called for it.
        """
        fd = sock.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._watches[fd] = Watch(self, fd, take)

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self.drop(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def closing(self, sock: HasFileno) -> None:
        """The socket is about to be closed: whoever waits for it is woken."""
        watch = self._watches.get(sock.fileno())
        if watch is not None:
            watch.end(outcome.Error(trio.ClosedResourceError("another task closed this socket")))

    def drop(self, fd: int) -> None:
        """Take a socket off."""
        del self._watches[fd]
        self._epoll.unregister(fd)

    def before_io_wait(self, timeout: float) -> None:
        """Trio is about to wait, for `timeout` seconds at most. It must not raise, for Trio would drop the hub."""
        watches = self._watches
        if not watches:
            return
        runner, poll, trio_fd = self._runner, self._epoll.poll, self._trio
        # A test that waits until nothing happens, or whose clock jumps then: what is nothing, Trio has to see itself.
        watched = runner.waiting_for_idle or runner.clock_autojump_threshold != math.inf
        patience = 0.0 if watched else timeout
        end = time.monotonic() + patience
        while True:
            for fd, _ in poll(patience, BATCH):
                watch = watches.get(fd)
                if watch is not None:
                    try:
                        goes_on = watch.take()
                    except BaseException as error:  # noqa: BLE001  raised in the task that it belongs to
                        watch.end(outcome.Error(error))
                    else:
                        if not goes_on:
                            watch.end(outcome.Value(None))
                elif fd == trio_fd:
                    timeout = 0.0  # Trio's own wait finds it at once
            if runner.runq or not timeout or watched:
                break
            patience = end - time.monotonic()
            if patience <= 0 or not watches:
                break
        if timeout and (runner.runq or not watched):
            runner.io_manager.force_wakeup()


_HUB: Final[trio.lowlevel.RunVar[Hub | None]] = trio.lowlevel.RunVar("hub", None)


def current_hub() -> Hub | None:
    """The hub of this run, None where each task waits by itself."""
    return _HUB.get()


@contextmanager
def opened(*, wanted: bool = True) -> Iterator[Hub | None]:
    """Have a hub in this run of Trio, where there can be one and it is `wanted`; `None` where not."""
    hub = _make() if wanted else None
    if hub is None:
        yield None
        return
    trio.lowlevel.add_instrument(hub)
    before = _HUB.get()
    _HUB.set(hub)
    try:
        yield hub
    finally:
        _HUB.set(before)
        trio.lowlevel.remove_instrument(hub)
        hub.close()


def _make() -> Hub | None:
    if sys.platform != "linux":
        return None
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        runner: Any = GLOBAL_RUN_CONTEXT.runner
        epoll = runner.io_manager._epoll  # noqa: SLF001  see the theory
        known = (runner.runq, runner.waiting_for_idle, runner.clock_autojump_threshold, runner.io_manager.force_wakeup)
    except (ImportError, AttributeError):
        return None
    return Hub(runner, epoll) if isinstance(epoll, select.epoll) and len(known) == 4 else None
