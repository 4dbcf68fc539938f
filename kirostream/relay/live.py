"""One turn in flight, and who watches it.

The connection that asked is a watcher like any other. Somebody watches as long as one of them is inside `watching`;
when the last has left, the turn goes on for its `linger` and then ends (`Relay` sees to that), and with it the
upstream call. A watcher that comes back in time finds it as if nothing had been.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import TypeAlias

import trio

from kirostream.dataclass import replace
from kirostream.dialects.dialect import Heading, Writer
from kirostream.errors import KirostreamError, TurnCancelled
from kirostream.relay.fleet import Fleet
from kirostream.relay.log import CAP, WINDOW, Rendering, TurnLog
from kirostream.relay.refusals import Inquiry
from kirostream.telemetry.captures import Capture
from kirostream.telemetry.facts import Tried
from kirostream.turn.events import BlockDelta, TurnEnded, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest
from kirostream.turn.tokens import BYTES_PER_TOKEN

Settle: TypeAlias = Callable[[int, float], None]
"""Told, once a turn is over, how many tokens it took, prompt and answer, and how many credits."""


class LiveTurn:
    """One turn in flight, or one that is over and can still be replayed.

    Args:
        request: the question.
        heading: its ids and times.
        model: who answers.
        attended: somebody reads a streamed answer as it comes, and may hold it back.
        caller: who asked; nobody else sees it.
        key: the name of the key it was asked with.
        linger: seconds that it goes on after the last watcher has left; 0: it ends with that watcher.
        cap: bytes of its log.
    """

    def __init__(
        self,
        request: TurnRequest,
        heading: Heading,
        model: Model,
        *,
        attended: bool = True,
        caller: str = "",
        key: str = "",
        linger: float = 0.0,
        cap: int = CAP,
    ) -> None:
        self.request = request
        self.heading = heading
        self.model = model
        """The model that is asked: the one the client means, until another one stands in for it."""
        self.spares: list[Model] = []
        """The models that may be asked in its place, in their order."""
        self.stands_in = False
        """Whether another model is asked than the one the client means."""
        self.agentic = False
        """Whether the model's name asks for agentic mode."""
        self.fleet: Fleet | None = None
        """The accounts it is asked on, where they are not those of the house."""
        self.inquiry = Inquiry(heading.turn, heading.request_id)
        """What is known of a refusal of its form."""
        self.capture: Capture | None = None
        """What is kept of it, to be looked at."""
        self.caller = caller
        self.key = key
        self.linger = linger
        # A whole answer is folded at its end, and one that nobody waits for has no reader that could hold it back.
        self.log = TurnLog(WINDOW if request.stream and attended else sys.maxsize, cap)
        self.settle: Settle | None = None
        """Told what the turn took, where its key has limits."""
        self.traceparent = ""
        """Of the client, where it has sent one."""
        self.tries: list[Tried] = []
        """Those that are over."""
        self.attempts = 0
        self.account = ""
        """The label of the account that was asked last."""
        self.account_id = ""
        """Its id."""
        self.first_event: float | None = None
        """Seconds from the start to the first event, None before it."""
        self.began: float | None = None
        self.ended: float | None = None
        """When the pump began and ended, by trio's clock. None: not yet, or in another process."""
        self._heard = 0
        self._bytes = 0
        self.over = trio.Event()
        """Set when the pump has ended, whatever the reason."""
        self.scope = trio.CancelScope()
        """Holds the pump. Cancelling it closes the upstream connection."""
        self.watchers = 0
        self.left = trio.lowlevel.ParkingLot()
        """Woken when a watcher came or left."""
        self._renderings: dict[tuple[str, bool], Rendering] = {}

    def __repr__(self) -> str:
        return f"<LiveTurn {self.heading.turn} {self.model.id}, attempt {self.attempts}, {self.log!r}>"

    @property
    def tokens(self) -> int:
        """Tokens of the answer so far: an estimate, until the end says what they were."""
        events = self.log.events
        if events and isinstance(last := events[-1], TurnEnded):
            return last.usage.output_tokens or 0
        for event in islice(events, self._heard, None):
            if isinstance(event, BlockDelta):
                self._bytes += sum(map(len, event.pieces))
        self._heard = len(events)
        return round(self._bytes / BYTES_PER_TOKEN)

    @property
    def seconds(self) -> float | None:
        """How long it took, so far or to its end; None where that was in another process."""
        if self.began is None:
            return None
        return (trio.current_time() if self.ended is None else self.ended) - self.began

    def tried(self, asked_at: float, error: KirostreamError | None, *, cancelled: bool = False) -> None:
        """A try is over, which began then, by trio's clock, on the account that was asked last."""
        now = trio.current_time()
        status = 200 if error is None and not cancelled else getattr(error, "upstream_status", 0)
        kind = "cancelled" if cancelled else type(error).__name__ if error is not None else ""
        at = round(asked_at - (self.began or asked_at), 6)
        self.tries.append(Tried(at, round(now - asked_at, 6), self.account, status, kind))

    def fail(self, error: KirostreamError) -> None:
        """End the turn now, with an error that its watchers see."""
        self.scope.cancel()
        self.log.append([TurnFailed(error)])

    def watching(self) -> AbstractContextManager[None]:
        """Be one of its watchers."""
        return _Watching(self)

    def enter(self) -> None:
        """One more watches it, until `leave`."""
        self.watchers += 1
        if self.left:
            self.left.unpark_all()

    def leave(self) -> None:
        """One of its watchers goes."""
        self.watchers -= 1
        if not self.watchers and not self.linger and not self.over.is_set():
            self.scope.cancel()
        self.slim()
        if self.left:
            self.left.unpark_all()

    def slim(self) -> None:
        """Give up the conversation and what was rendered, once the turn is over and nobody is with it.

        What writers need stays: who comes back has the turn rendered anew, to the same bytes.
        """
        if not self.watchers and self.over.is_set():
            self.request = replace(self.request, messages=(), system=())
            self._renderings.clear()

    def cancel(self) -> None:
        """End the turn now, because a client wants it so; its watchers are told. One that is over stays as it is."""
        if not self.log.finished:
            self.fail(TurnCancelled("The turn was cancelled by a client."))

    def rendering(self, name: str, make: Callable[[], Writer], *, ids: bool = False) -> Rendering:
        """The turn in one language: made once, however many read it at one time.

        Args:
            name: of the language.
            make: a writer for it.
            ids: whether each wire event carries its place, so that a client can come back to it.
        """
        made = self._renderings.get((name, ids))
        if made is None:
            made = self._renderings[name, ids] = Rendering(self.log, make(), self.heading.turn if ids else "")
        return made


class _Watching(AbstractContextManager[None]):
    """The block of `LiveTurn.watching`. A class, for a generator costs more."""

    __slots__ = ("_live",)

    def __init__(self, live: LiveTurn) -> None:
        self._live = live

    def __enter__(self) -> None:
        self._live.enter()

    def __exit__(self, *_: object) -> None:
        self._live.leave()
