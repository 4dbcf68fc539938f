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
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from kirostream.relay.log import Cursor, TurnLog

SLICE: Final = 32
"""Offers between two checkpoints: some 200 us."""

M = TypeVar("M")


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

    __slots__ = ("place", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.place: Cursor | None = None


class Fanout(Generic[M]):
    """The followers of one rendering of a turn that have everything."""

    def __init__(self, log: TurnLog) -> None:
        self._log = log
        self._at: Cursor | None = None
        self._leader: Follower[M] | None = None
        self._seats: dict[Follower[M], _Seat] = {}
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

    async def follow(self, follower: Follower[M], at: Cursor) -> Cursor:
        """Be served from the place `at` on, until the follower has to do something itself.

        That is: its last `offer` was not sent whole; it was recalled, or the log nudged; the leader left before it came
        to this follower; or the turn is over. A checkpoint where it waits.

        Returns:
            The place behind what was offered to it.
        """
        if self._leader is not None:
            place = await self._sit(follower)
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

    async def _sit(self, follower: Follower[M]) -> Cursor | None:
        """Wait for a place to go on from; None: for the leader's."""

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self._seats[follower]
            return trio.lowlevel.Abort.SUCCEEDED

        seat = self._seats[follower] = _Seat()
        await trio.lowlevel.wait_task_rescheduled(leave)
        return seat.place

    def _send_off(self, follower: Follower[M], place: Cursor | None) -> None:
        seat = self._seats.pop(follower)
        seat.place = place
        trio.lowlevel.reschedule(seat.task)

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
        seats, todo = self._seats, (*self._seats,)
        done = 0
        self._in_round = True
        try:
            is_whole = leader.offer(message)
            for follower in todo:
                if not (done + 1) % SLICE:
                    await trio.lowlevel.checkpoint()
                done += 1
                if follower in seats and not follower.offer(message):
                    self._send_off(follower, self._at)
        finally:
            self._in_round = False
            for follower in todo[done:]:
                if follower in seats:
                    self._send_off(follower, before)
            for follower in self._recalled:
                if follower in seats:
                    self._send_off(follower, self._at)
            self._recalled.clear()
        return is_whole
