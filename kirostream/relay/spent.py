"""What of a turn's time is the gateway's own.

A turn waits for the upstream, and in between the gateway works: it reads the request, asks, and takes each part of the
answer from the upstream's bytes to the client's. `Spent` adds up the waiting, with two looks at the clock for each read
of the upstream, however many tokens are in it; what is left of the time is our own.

Taking a part ends when the client's socket has it, where it is sent in the same step, as it nearly always is; what a
slow client, or a door that frames elsewhere, does with it later is not in it. Nor is what a track carries in compiled
code (`relay.lane`): a look at the clock for each would cost too much. The hub clocks one of 64 laps (`Hub.times`).
"""

from __future__ import annotations

from time import perf_counter


class Spent:
    """The times of one turn, in seconds by `time.perf_counter`."""

    __slots__ = ("_asked", "_left", "arrived", "came", "first", "own", "takes", "waited")

    def __init__(self) -> None:
        self.arrived = self._left = perf_counter()
        """When the request was there, whole."""
        self._asked = False
        self.came = 0.0
        """When the part came that is taken now."""
        self.waited = 0.0
        """For the upstream, in all tries."""
        self.first: float | None = None
        """Our own, from the request to the first event's bytes at the client; None before it."""
        self.own = 0.0
        """Our own of all parts of the answer together."""
        self.takes = 0
        """Those parts: reads of the upstream that no track carried."""

    def asking(self) -> None:
        """From now on it is waited for the upstream; and it was, since it was last heard in a try that failed."""
        now = perf_counter()
        if self._asked:
            self.waited += now - self._left
        self._left, self._asked = now, True

    def took(self, came: float, *, heard: bool) -> None:
        """A part that `came` then was taken just now; `heard`: the answer has begun."""
        self.waited += came - self._left
        self._left = left = perf_counter()
        self.own += left - came
        self.takes += 1
        if heard and self.first is None:
            self.first = left - self.arrived - self.waited

    def so_far(self) -> tuple[float, float]:
        """Our own part of the time since the request was there, and the upstream's."""
        waited = self.waited + max(self.came - self._left, 0.0)  # the head of an answer may go out with its first part
        return max(perf_counter() - self.arrived - waited, 0.0), waited

    @property
    def token(self) -> float | None:
        """Our own part of a part of the answer, on average; None where there was none."""
        return self.own / self.takes if self.takes else None
