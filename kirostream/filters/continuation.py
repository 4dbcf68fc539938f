"""Asks for the rest of a text that the service cut off, and makes one answer of the parts. Opt-in.

A model has a longest answer, and a client asked for a longer one. Where such an answer ends in the middle of its text,
the relay asks again with the part at the end of the conversation, and what comes goes on in the same turn and the same
text block (`Splice`). `Continuation` is what is pure of that: it is the first filter of the answer, it says whether
there is a rest to be asked for, and with which question.

What is not continued:

- an answer that called a tool, whole or not: its client has something to do first, and the halves of a call that was
  cut off are never put together by guessing;
- what the client's own ``max_tokens`` ended, and what its stop sequence did;
- an answer whose last part said nothing: there would be no end of it;
- more than `most` times.

Each part is asked for without native thinking: the thought belongs before the answer, and not into the middle of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kirostream.filters.splice import Splice
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEvent,
    unescape,
)
from kirostream.turn.request import THINKING_OFF, Message, Role, Text, TurnRequest

GO_ON: Final = (
    "[Note: your answer above was cut off by a limit of the service; the reader has all of it and sees none of this "
    "note. Write the rest, beginning with the very next character, in the middle of a word or a line if need be. "
    "Repeat nothing, and say nothing about the interruption.]"
)


def may_go_on(request: TurnRequest, most: int) -> bool:
    """Whether an answer to `request` is continued at all.

    An answer in a given form is judged whole instead, and one that may search the web is asked for in rounds already.
    """
    return most > 0 and request.output is None and request.search is None


class Continuation:
    """The first filter of one answer. `most`: how often the rest is asked for."""

    def __init__(self, request: TurnRequest, most: int) -> None:
        self._request = request
        self._left = most
        self._splice = Splice(join_text=True)
        self._pieces: list[bytes] = []
        """The text of all parts, as it came."""
        self._length = 0
        """Of them, those of the parts before the one that runs."""
        self._texts: set[int] = set()
        self._last: BlockKind | None = None
        self._called = False

    def __repr__(self) -> str:
        return f"<Continuation {self._left} left, {self._splice!r}>"

    @property
    def begun(self) -> bool:
        """Whether the part that runs has said anything."""
        return self._splice.begun

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events to be said in place of `events`: all but the end of the turn."""
        for event in events:
            match event:
                case BlockDelta(index=index, pieces=pieces):
                    if index in self._texts:
                        self._pieces += pieces
                case BlockStarted(index=index, kind=kind):
                    self._last = kind
                    self._called = self._called or kind is BlockKind.TOOL_CALL
                    if kind is BlockKind.TEXT:
                        self._texts.add(index)
                    else:
                        self._texts.discard(index)
                case _:
                    pass
        return self._splice.take(events)

    def go_on(self) -> TurnRequest | None:
        """The question for the rest; None where the answer is whole, or stays as it is. Asked once behind each part."""
        ended = self._splice.ended
        said_nothing = len(self._pieces) == self._length
        self._length = len(self._pieces)
        if not self._left or ended is None or ended.stop is not Stop.MAX_TOKENS:
            return None
        if self._called or said_nothing or self._last is not BlockKind.TEXT or self._own_limit():
            return None
        self._left -= 1
        self._texts.clear()
        part = Message(Role.ASSISTANT, (Text(unescape(self._pieces)),))
        messages = (*self._request.messages, part, Message(Role.USER, (Text(GO_ON),)))
        return replace(self._request, messages=messages, thinking=THINKING_OFF)

    def finish(self) -> list[TurnEvent]:
        """The end of the turn: that of the last part that has one, with the cost of all."""
        return self._splice.finish()

    def _own_limit(self) -> bool:
        limit = self._request.sampling.max_tokens
        return limit is not None and self._splice.usage.output_tokens >= limit
