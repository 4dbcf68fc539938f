"""Ends a turn early, where the client asked for it: stop sequences, ``max_tokens``, one call a turn.

Kiro knows none of the three, so they are kept here, on the events of the answer. `limits_of` gives a filter only to
the turns that need one. Once a filter has said `TurnEnded` its turn is over, and the relay closes the upstream call.

**What is searched.** Stop sequences are looked for in text blocks alone, each block by itself: not in thoughts, not in
arguments, as in the models' own API. The sequence that is complete first wins, the longer one where two are complete
at once; so the result does not depend on where the answer was cut into pieces. The end of a text that may be the
beginning of a sequence is held back until the next piece decides.

**What is counted.** Bytes of what was said, thoughts and arguments too, `ROOM` of them a token. An answer that was
ended here never reports more tokens than were asked for. The escaped length of a piece is an upper bound of its length;
nothing is decoded before the sum of these bounds reaches the limit. A huge limit costs an addition a delta.

**A call is never cut.** Half of its arguments would look whole to some client. A call that is open goes on to its end,
and the turn ends behind it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    UsageKnown,
    unescape,
)
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest
from kirostream.turn.tokens import BYTES_PER_TOKEN
from kirostream.turn.usage import Usage

ROOM: Final = 5.0
"""Bytes of an answer that one token of ``max_tokens`` allows. Plain English comes to 4.5 bytes a token, code and JSON
to less. The count is an estimate, so it errs on the side of the answer: to cut off what the model's own count would
have let through is to lose it."""


CALLS: Final = frozenset((BlockKind.TOOL_CALL, BlockKind.SEARCH))
"""Blocks whose text is JSON, which says nothing before its end."""


def limits_of(request: TurnRequest, model: Model) -> Limits | None:
    """The filter for one answer to `request`; None where nothing can end it early.

    The model ends an answer by itself at `Model.max_output`, so a larger ``max_tokens`` is no limit of ours.
    """
    sampling = request.sampling
    stop = tuple(sequence for sequence in sampling.stop if sequence)
    max_tokens = sampling.max_tokens
    if max_tokens is not None and max_tokens >= model.max_output:
        max_tokens = None
    max_calls = 1 if request.tools and not request.tool_choice.parallel else None
    if not stop and max_tokens is None and max_calls is None:
        return None
    return Limits(stop=stop, max_tokens=max_tokens, max_calls=max_calls)


class Limits:
    """The filter of one answer. Its output obeys `turn.grammar` where its input does.

    Args:
        stop: sequences that end the turn, none of them empty. The one that is found is not said.
        max_tokens: of the whole answer, by estimate.
        max_calls: tool calls; the turn ends before one more.
    """

    def __init__(
        self, *, stop: Sequence[str] = (), max_tokens: int | None = None, max_calls: int | None = None
    ) -> None:
        self._stop = tuple(stop)
        # A piece without an escape and without the first byte of a sequence cannot be the beginning of one.
        first = b"".join(sorted({sequence.encode("utf-8", "replace")[:1] for sequence in stop}))
        self._may_begin = re.compile(b"[\\\\" + re.escape(first) + b"]").search
        self._max_tokens = sys.maxsize if max_tokens is None else max_tokens
        self._budget = None if max_tokens is None else int(max_tokens * ROOM)
        self._ceiling = sys.maxsize if self._budget is None else self._budget
        self._max_calls = max_calls
        self._calls = 0
        self._open: dict[int, BlockKind] = {}
        self._counted = -1
        """The block whose deltas are only counted, while there is room: the last one opened, if it is not searched."""
        self._held: dict[int, str] = {}
        """Of each open text block: its end, where that may be the beginning of a stop sequence."""
        self._size = 0
        """Bytes said: exact for what was weighed, an upper bound for the rest."""
        self._weighed = 0
        self._unweighed: list[Sequence[bytes]] = []
        self._thoughts = 0
        self._usage = Usage()
        self._ending: TurnEnded | None = None
        """How the turn ends as soon as no call is open."""
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "ending" if self._ending else "open"
        return f"<Limits {len(self._stop)} sequences, {self._size} of {self._budget} bytes, {state}>"

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events that may be said, of the next ones. After `TurnEnded` there are none."""
        said: list[TurnEvent] = []
        for event in events:
            if self._over:
                break
            if type(event) is not BlockDelta:
                said += self._other(event)
                continue
            if self.passes(event):
                said.append(event)
            else:
                said += self._delta(event)
        return said

    def room(self, block: int) -> int:
        """As `Gate` has it."""
        return self._ceiling - self._size if block == self._counted and not self._over else 0

    def passes(self, event: BlockDelta) -> bool:
        """As `Gate` has it."""
        if event.index != self._counted or self._over:
            return False
        size = self._size + sum(map(len, event.pieces))
        if size > self._ceiling:
            return False
        self._size = size
        self._unweighed.append(event.pieces)
        return True

    def _other(self, event: TurnEvent) -> list[TurnEvent]:
        match event:
            case BlockStarted():
                return self._started(event)
            case BlockEnded():
                return self._ended(event)
            case TurnStarted(usage=usage) | UsageKnown(usage=usage):
                self._usage = usage
            case TurnEnded():
                self._over = True
                return [self._ending or event]
            case TurnFailed():
                self._over = True
                held = [BlockDelta.of(index, text) for index, text in self._held.items()]
                return [*held, event]
            case _:
                pass
        return [event]

    def _started(self, event: BlockStarted) -> list[TurnEvent]:
        if self._ending:
            return []
        if self._budget is not None and self._weigh() >= self._budget:
            return self._end(Stop.MAX_TOKENS)
        if event.kind is BlockKind.TOOL_CALL:
            if self._calls == self._max_calls:
                return self._end(Stop.TOOL_CALL)
            self._calls += 1
        self._open[event.index] = event.kind
        searched = event.kind is BlockKind.TEXT and self._stop
        self._counted = -1 if searched or event.kind is BlockKind.THINKING else event.index
        return [event]

    def _ended(self, event: BlockEnded) -> list[TurnEvent]:
        said: list[TurnEvent] = []
        if held := self._held.pop(event.index, ""):
            said = self._spend(BlockDelta.of(event.index, held), BlockKind.TEXT)
        if event.index in self._open:
            del self._open[event.index]
            said.append(event)
        self._counted = -1
        return said + self._finish()

    def _delta(self, event: BlockDelta) -> list[TurnEvent]:
        kind = self._open.get(event.index)
        if kind is None:
            return []
        if kind is BlockKind.TEXT and self._stop:
            return self._search(event)
        return self._spend(event, kind)

    # Stop sequences

    def _search(self, event: BlockDelta) -> list[TurnEvent]:
        held = self._held.pop(event.index, "")
        if not held and not any(map(self._may_begin, event.pieces)):
            return self._spend(event, BlockKind.TEXT)
        text = held + event.text
        found = _first(text, self._stop)
        if found is not None:
            at, sequence = found
            said = self._spend(BlockDelta.of(event.index, text[:at]), BlockKind.TEXT) if at else []
            return said if self._ending else said + self._end(Stop.STOP_SEQUENCE, sequence)
        keep = _beginning(text, self._stop)
        if not held and not keep:
            return self._spend(event, BlockKind.TEXT)
        if keep:
            self._held[event.index] = text[-keep:]
            text = text[:-keep]
        return self._spend(BlockDelta.of(event.index, text), BlockKind.TEXT) if text else []

    # Tokens

    def _spend(self, event: BlockDelta, kind: BlockKind) -> list[TurnEvent]:
        size = sum(map(len, event.pieces))
        if kind is BlockKind.THINKING:
            self._thoughts += size
        self._size += size
        self._unweighed.append(event.pieces)
        if self._budget is None or self._size <= self._budget or kind in CALLS:
            return [event]
        if self._weigh() <= self._budget:
            return [event]
        text = event.text.encode("utf-8", "replace")
        before = self._size - len(text)
        rest = text[: max(0, self._budget - before)].decode("utf-8", "ignore")
        self._size = self._weighed = before + len(rest.encode())
        cut: list[TurnEvent] = [BlockDelta.of(event.index, rest)] if rest else []
        return cut + self._end(Stop.MAX_TOKENS)

    def _weigh(self) -> int:
        """Bytes said, exactly."""
        self._weighed += sum(len(unescape(pieces).encode("utf-8", "replace")) for pieces in self._unweighed)
        self._unweighed.clear()
        self._size = self._weighed
        return self._size

    # The end

    def _end(self, stop: Stop, sequence: str = "") -> list[TurnEvent]:
        """Say no more: texts and thoughts end here, calls where they end."""
        output = min(round(self._weigh() / BYTES_PER_TOKEN), self._max_tokens)
        thinking = min(output, round(self._thoughts / BYTES_PER_TOKEN))
        usage = replace(self._usage, output_tokens=output, thinking_tokens=thinking, estimated=True)
        self._ending = TurnEnded(stop, usage, sequence)
        self._counted = -1
        self._held.clear()
        shut = [index for index, kind in self._open.items() if kind not in CALLS]
        for index in shut:
            del self._open[index]
        return [*map(BlockEnded, shut), *self._finish()]

    def _finish(self) -> list[TurnEvent]:
        if self._ending is None or self._open or self._over:
            return []
        self._over = True
        return [self._ending]


def _first(text: str, sequences: Sequence[str]) -> tuple[int, str] | None:
    """Where the sequence that is complete first begins, and which it is; of two that end together, the longer."""
    best: tuple[int, int, str] | None = None
    for sequence in sequences:
        at = text.find(sequence)
        if at >= 0 and (best is None or (at + len(sequence), at) < best[:2]):
            best = (at + len(sequence), at, sequence)
    return None if best is None else best[1:]


def _beginning(text: str, sequences: Sequence[str]) -> int:
    """Characters at the end of `text` that a sequence may begin with; the most that any of them does."""
    most = 0
    for sequence in sequences:
        at = text.find(sequence[0], max(0, len(text) - len(sequence) + 1))
        while 0 <= at < len(text) - most:
            if sequence.startswith(text[at:]):
                most = len(text) - at
                break
            at = text.find(sequence[0], at + 1)
    return most
