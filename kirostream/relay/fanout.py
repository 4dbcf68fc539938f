"""Those who follow a turn and have everything: one of them sends what is new to all.

Theory
======

A watcher that is behind reads the log at its own pace, in its own task. One that has everything waits for the next
event, and so do all the others: to wake a task for each, only so that it makes one system call, costs several times
what the call does. So who has everything takes a seat in a `Fanout`. The first becomes the **leader**: it alone waits
for the log, reads what is new once, and offers the same bytes to each follower (leader/followers: Schmidt, O'Ryan,
Kircher, Pyarali, "Leader/Followers", 2000). An offer never waits. A follower whose client does not take all of it at
once leaves its seat and goes on in its own task, with its own deadline; when it has caught up it comes back. So a slow
client holds back nobody, and how it is cut off stays as it is without a fan-out.

There is no task more than the watchers' own, so there is nothing to start, to end and to own. A leader that leaves
(cancelled, or behind itself) appoints the next one; where it leaves in the middle of a round, those it has not come to
are sent to their own tasks. All that happens between two checkpoints, so nobody gets anything twice or never.

A leader lets other tasks run before each round, so that the client that asked has its token first, and every `SLICE`
offers.

What an offer takes, beside the system call in it, is memory that is not in the cache: each watcher's connection is half
a dozen objects. So a follower may bring its connection's `Outlet` to its seat. Then its messages are not offered, but
written a batch at a time (`net.quick`), and nobody looks at the follower until it falls behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from kirostream.net.quick import Outlet, write_each

if TYPE_CHECKING:
    from kirostream.relay.log import Cursor, TurnLog

SLICE: Final = 32
"""Offers between two checkpoints: some 200 us."""

M = TypeVar("M", bound=Sized)


class Follower(Protocol[M]):
    """Somebody who watches a turn to its end. `M` is what is sent, as all who share a `Fanout` send it."""

    def read(self, at: Cursor) -> tuple[M | None, Cursor]:
        """What was said since the place `at`, None where that has no words; and the place behind it."""

    def offer(self, message: M) -> bool:
        """Send it as far as that goes without waiting. It must not raise.

        Returns:
            Whether it is sent whole. Otherwise the follower sees to the rest itself, when `Fanout.follow` returns.
        """


class _Seat:
    """Where a follower waits, and what it is told when it is woken: its place, or None to lead."""

    __slots__ = ("outlet", "place", "since", "task")

    def __init__(self, outlet: Outlet | None, since: int) -> None:
        self.task = trio.lowlevel.current_task()
        self.place: Cursor | None = None
        self.outlet = outlet
        self.since = since  # bytes that the fan-out had sent when the seat was taken


class Fanout(Generic[M]):
    """The followers of one rendering of a turn that have everything.

    Args:
        log: of the turn.
        wire: what a message is on an outlet.
    """

    def __init__(self, log: TurnLog, wire: Callable[[M], bytes]) -> None:
        self._log = log
        self._wire = wire
        self._at: Cursor | None = None
        self._leader: Follower[M] | None = None
        self._seats: dict[Follower[M], _Seat] = {}
        self._row: tuple[list[Follower[M]], list[Outlet | None]] | None = None  # of the seats, made when it is needed
        self._told = 0
        self._in_round = False
        self._recalled: list[Follower[M]] = []
        self.served_at = 0.0
        """When something was sent to all, in Trio's time."""

    def __repr__(self) -> str:
        return f"<Fanout to {len(self)}>"

    def __len__(self) -> int:
        return len(self._seats) + (self._leader is not None)

    def takes(self, at: Cursor) -> bool:
        """Whether a follower at this place has everything, and may `follow`."""
        if self._leader is not None:
            return at == self._at
        return at.event >= len(self._log.events) and not self._log.finished

    async def follow(self, follower: Follower[M], at: Cursor, outlet: Outlet | None = None) -> Cursor:
        """Be served from the place `at` on, until the follower has to do something itself.

        That is: its last `offer` was not sent whole; it was recalled, or the log nudged; the leader left before it came
        to this follower; or the turn is over. A checkpoint where it waits.

        Args:
            follower: who.
            at: its place.
            outlet: where its messages may be written to in place of an offer. What does not go is `unsent` there.

        Returns:
            The place behind what was offered to it.
        """
        if self._leader is not None:
            place = await self._sit(follower, outlet)
            if place is not None:
                return place
        else:
            self._at = at
        return await self._lead(follower)

    def recall(self, follower: Follower[M]) -> bool:
        """Make `follow` return. False where this one has no seat: it leads, or is in its own task."""
        if follower not in self._seats:
            return False
        if self._in_round:  # it may not have been served yet
            self._recalled.append(follower)
        else:
            self._send_off(follower, self._at)
        return True

    async def _sit(self, follower: Follower[M], outlet: Outlet | None) -> Cursor | None:
        """Wait for a place to go on from; None: for the leader's."""

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._leave(follower)
            return trio.lowlevel.Abort.SUCCEEDED

        seat = self._seats[follower] = _Seat(outlet, self._told)
        self._row = None
        await trio.lowlevel.wait_task_rescheduled(leave)
        return seat.place

    def _send_off(self, follower: Follower[M], place: Cursor | None) -> None:
        seat = self._leave(follower)
        seat.place = place
        trio.lowlevel.reschedule(seat.task)

    def _leave(self, follower: Follower[M]) -> _Seat:
        self._row = None
        seat = self._seats.pop(follower)
        if seat.outlet is not None:
            seat.outlet.fanned += self._told - seat.since
        return seat

    async def _lead(self, leader: Follower[M]) -> Cursor:
        self._leader = leader
        log = self._log
        try:
            assert self._at is not None
            while await log.beyond(self._at.event) and not log.finished:
                if self._seats:
                    await trio.lowlevel.checkpoint()
                message, end = leader.read(self._at)
                before, self._at = self._at, end
                if message is not None and not await self._serve(leader, message, before):
                    break
            return self._at
        finally:
            self._step_down()

    def _step_down(self) -> None:
        self._leader = None
        if self._log.finished:
            for follower in (*self._seats,):
                self._send_off(follower, self._at)
        elif self._seats:
            self._leader = next(iter(self._seats))  # at once, so that nobody else makes itself one
            self._send_off(self._leader, None)

    async def _serve(self, leader: Follower[M], message: M, before: Cursor) -> bool:
        """One round. Returns whether the leader itself has everything."""
        self.served_at = trio.current_time()
        self._told += len(message)
        seats = self._seats
        if self._row is None:
            self._row = [*seats], [seat.outlet for seat in seats.values()]
        row = self._row
        todo, outlets = row
        wire = self._wire(message) if todo else b""
        done = 0
        self._in_round = True
        try:
            is_whole = leader.offer(message)
            while done < len(todo):
                if done:
                    await trio.lowlevel.checkpoint()
                here, through = todo[done : done + SLICE], outlets[done : done + SLICE]
                if self._row is not row:  # somebody left
                    here = [follower for follower in here if follower in seats]
                    through = [seats[follower].outlet for follower in here]
                done += SLICE
                for index, sent in write_each(through, wire):
                    follower, outlet = here[index], through[index]
                    if outlet is not None:
                        outlet.owe(wire[sent:])
                    elif follower.offer(message):
                        continue
                    self._send_off(follower, self._at)
        finally:
            self._in_round = False
            for follower in todo[done:]:
                if follower in seats:
                    seats[follower].since += len(message)
                    self._send_off(follower, before)
            for follower in self._recalled:
                if follower in seats:
                    self._send_off(follower, self._at)
            self._recalled.clear()
        return is_whole
