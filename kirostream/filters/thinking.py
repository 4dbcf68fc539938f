"""Thinking by prompt tags, for models that have no native thinking (kiro-protocol.md section 8.1).

Only where the operator allows it and the client asks for thinking: it changes answers and costs credits. The request
gets a line at the end of the system prompt, the same in every turn, so that the upstream's prompt cache holds
(`ask_for_thoughts`). The answer then begins with a thought between tags, and `ThinkingSplitter` takes it apart.

**What counts as a thought.** One pair of tags (``<thinking>``, ``<think>``, ``<reasoning>``, ``<thought>``) at the very
start of the answer, behind nothing but white space. Tags further on are the model's own words: it may well be writing
about XML. The thought ends at the first end tag of its own name; an answer that breaks off before is all thought.

**Cuts.** Text that may be the beginning of a tag is held until the next piece decides. So the blocks and their texts
do not depend on where the answer was cut into pieces. What cannot be a tag passes as the raw pieces it is.

A thought found this way has no signature, and none is made up.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kirostream.filters.renumber import Renumber
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    UsageKnown,
)
from kirostream.turn.model import Model
from kirostream.turn.request import Text, TurnRequest
from kirostream.turn.tokens import BYTES_PER_TOKEN
from kirostream.turn.usage import Usage

TAGS: Final = ("<thinking>", "<think>", "<reasoning>", "<thought>")
SHARES: Final = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
"""Of ``max_tokens``, by effort (section 8.1)."""
USUAL_MAX_TOKENS: Final = 4_096
"""Of which a share is taken where the client gives none (section 8.1)."""
MOST: Final = 24_576
"""Tokens of thinking that are asked for at the most (section 8.1)."""


class Handling(enum.Enum):
    """What becomes of a thought between tags."""

    AS_REASONING = "as_reasoning"  #: a thinking block, in the client's own dialect
    REMOVE = "remove"  #: left out
    PASS = "pass"  #: stays text, with its tags  # noqa: S105  no password
    STRIP = "strip"  #: stays text, without its tags


def budget(request: TurnRequest, usual: int) -> int:
    """Tokens of thinking to ask for: the client's count, else the share its effort stands for, else `usual`."""
    thinking = request.thinking
    wanted = usual
    if thinking.budget is not None:
        wanted = thinking.budget
    elif thinking.effort in SHARES:
        wanted = round((request.sampling.max_tokens or USUAL_MAX_TOKENS) * SHARES[thinking.effort])
    return max(1, min(wanted, MOST))


def thinks_by_tags(request: TurnRequest, model: Model) -> bool:
    """Whether thinking is asked for, and tags are the only way to get it."""
    return request.thinking.enabled and not model.thinks


def ask_for_thoughts(request: TurnRequest, usual: int) -> TurnRequest:
    """`request` with the wish to think between tags at the end of its system prompt.

    Args:
        request: a question that asks for thinking.
        usual: tokens of thinking where the client gives neither a count nor an effort.
    """
    line = (
        "<thinking_mode>enabled</thinking_mode>\n"
        f"<max_thinking_length>{budget(request, usual)}</max_thinking_length>\n"
        "Think before you answer: begin each answer with your reasoning between <thinking> and </thinking>, within the "
        "length above. Behind the end tag follows the answer itself, or the tool calls, which stand on their own: the "
        "reader of the answer does not see the reasoning."
    )
    return replace(request, system=(*request.system, Text(line)))


class _Phase(enum.Enum):
    START = "before the answer's first words"
    INSIDE = "inside the thought"
    BEHIND = "behind the thought, before the answer"
    PASSING = "in the answer"


class ThinkingSplitter:
    """The filter of one answer. Its output obeys `turn.grammar` where its input does.

    Args:
        handling: what becomes of the thought. PASS needs no filter.
    """

    def __init__(self, handling: Handling = Handling.AS_REASONING) -> None:
        self._handling = handling
        self._phase = _Phase.START
        self._block: int | None = None
        """The index of the answer's first block, where that is text; the only one that is looked into."""
        self._end = ""
        """The end tag that closes the thought."""
        self._held = ""
        self._blocks = Renumber()
        self._thought: int | None = None
        """The index of the open thinking block, as it goes out."""
        self._size = 0
        """Bytes of the thought."""

    def __repr__(self) -> str:
        return f"<ThinkingSplitter {self._phase.value}, {len(self._held)} characters held>"

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events to be said in place of `events`."""
        said: list[TurnEvent] = []
        for event in events:
            match event:
                case BlockDelta(index=index):
                    # Behind a thought without words the phase is PASSING, and the block is not open yet.
                    if index == self._block and (self._phase is not _Phase.PASSING or index not in self._blocks):
                        said += self._look(event)
                    else:
                        said.append(self._blocks.delta(event))
                case BlockStarted():
                    said += self._started(event)
                case BlockEnded(index=index):
                    if index == self._block:
                        said += self._settle()
                        self._block = None
                    if index in self._blocks:
                        said.append(self._blocks.end(event))
                case UsageKnown(usage=usage):
                    said.append(UsageKnown(self._counted(usage)))
                case TurnEnded(usage=usage):
                    said.append(replace(event, usage=self._counted(usage)))
                case TurnFailed():
                    if self._block is not None:
                        said += self._release()
                    said.append(event)
                case _:
                    said.append(event)
        return said

    # Blocks

    def _started(self, event: BlockStarted) -> list[TurnEvent]:
        if self._phase is _Phase.START and self._block is None:
            if event.kind is BlockKind.TEXT:
                self._block = event.index
                return []
            self._phase = _Phase.PASSING  # the answer begins with something else
        return [self._blocks.start(event)]

    def _settle(self) -> list[TurnEvent]:
        """The first block ends: what is held is said, and an open thought is closed."""
        said = self._release()
        if self._thought is not None:
            said.append(BlockEnded(self._thought))
            self._thought = None
        return said

    def _release(self) -> list[TurnEvent]:
        """Say what is held. It is no tag."""
        held, self._held = self._held, ""
        match self._phase:
            case _Phase.START:
                self._phase = _Phase.PASSING
                return self._text(held)
            case _Phase.INSIDE:
                return self._think(held)
            case _:
                return []

    # Text

    def _look(self, event: BlockDelta) -> list[TurnEvent]:
        if self._phase is _Phase.INSIDE and not self._held and not any(b"<" in p or b"\\u" in p for p in event.pieces):
            return self._think_pieces(event.pieces)
        text = self._held + event.text
        self._held = ""
        said: list[TurnEvent] = []
        if self._phase is _Phase.START:
            words = text.lstrip()
            tag = next((tag for tag in TAGS if words.startswith(tag)), None)
            if tag is None:
                self._held = text
                return [] if any(tag.startswith(words) for tag in TAGS) else self._release()
            self._phase, self._end, text = _Phase.INSIDE, f"</{tag[1:]}", words.removeprefix(tag)
            if self._handling is Handling.AS_REASONING:
                self._thought = self._blocks.fresh()
                said.append(BlockStarted(self._thought, BlockKind.THINKING))
        if self._phase is _Phase.INSIDE:
            thought, end, text = text.partition(self._end)
            if not end:
                keep = _beginning(thought, self._end)
                self._held = thought[len(thought) - keep :]
                return said + self._think(thought[: len(thought) - keep])
            said += self._think(thought)
            self._phase = _Phase.PASSING if self._handling is Handling.STRIP else _Phase.BEHIND
            if self._thought is not None:
                said.append(BlockEnded(self._thought))
                self._thought = None
        if self._phase is _Phase.BEHIND:
            text = text.lstrip()
            if text:
                self._phase = _Phase.PASSING
        return said + self._text(text) if text else said

    def _text(self, text: str) -> list[TurnEvent]:
        """Text of the first block, which is opened where it is not open yet."""
        said: list[TurnEvent] = []
        index = self._block if self._block is not None else 0
        if index not in self._blocks:
            said.append(self._blocks.start(BlockStarted(index, BlockKind.TEXT)))
        if text:
            said.append(self._blocks.delta(BlockDelta.of(index, text)))
        return said

    def _think(self, text: str) -> list[TurnEvent]:
        if not text:
            return []
        if self._handling is Handling.STRIP:
            return self._text(text)
        return self._think_pieces(BlockDelta.of(0, text).pieces)

    def _think_pieces(self, pieces: Sequence[bytes]) -> list[TurnEvent]:
        if self._handling is Handling.STRIP:
            index = self._block if self._block is not None else 0
            return [*self._text(""), self._blocks.delta(BlockDelta(index, pieces))]
        if self._thought is None:
            return []
        self._size += sum(map(len, pieces))
        return [BlockDelta(self._thought, pieces)]

    def _counted(self, usage: Usage) -> Usage:
        """The cost with the thought in it: the upstream took it for text."""
        if not self._size or usage.thinking_tokens:
            return usage
        return replace(usage, thinking_tokens=min(usage.output_tokens, max(1, round(self._size / BYTES_PER_TOKEN))))


def _beginning(text: str, tag: str) -> int:
    """Characters at the end of `text` that `tag` begins with."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:size])), 0)
