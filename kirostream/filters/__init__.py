"""Repairs: of a request before it goes upstream, and of the answer on its way back.

Here is what can be set of them, and the order in which the filters of one answer run. A filter is made for a turn that
needs it and for no other: the usual chain is empty, and an answer passes by it untouched.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from typing import Final, Protocol

from kirostream.dataclass import dataclass
from kirostream.filters.limits import Limits, limits_of
from kirostream.filters.prompts import Agentic, advise
from kirostream.filters.thinking import Handling, ThinkingSplitter, ask_for_thoughts, thinks_by_tags
from kirostream.filters.toolcalls import Names, text_calls_of
from kirostream.turn.events import BlockDelta, TurnEvent
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest

_HANDLINGS: Final = {
    **{handling.value: handling for handling in Handling},
    "as_reasoning_content": Handling.AS_REASONING,
    "strip_tags": Handling.STRIP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """What is mended, and what is emulated.

    Raises:
        ValueError: `thinking_handling` or `agentic` is none of its words.
    """

    truncation_recovery: bool = field(
        default=True, metadata={"help": "Tell the model in the next request that its answer was cut off."}
    )
    thinking_tags: bool = field(
        default=False,
        metadata={"help": "Ask models without native thinking to think in tags, where the client wants thinking."},
    )
    thinking_budget: int = field(
        default=4_000,
        metadata={
            "help": "Length of such a thought where the client gives neither budget nor effort.",
            "unit": "tokens",
        },
    )
    thinking_handling: str = field(
        default="as_reasoning",
        metadata={
            "help": "What becomes of it: as_reasoning, remove, pass (stays text), strip (stays text without the tags)."
        },
    )
    auto_continue: int = field(
        default=0,
        metadata={
            "help": "How often the rest of a text is asked for that a limit of the service cut off. 0: never. "
            "Each time costs what a question costs."
        },
    )
    agentic: str = field(
        default="name",
        metadata={
            "help": "Agentic mode, which writes files in small steps: name (for models named with -agentic), "
            "tools (also wherever there are tools), off."
        },
    )
    execution_discipline: bool = field(
        default=False, metadata={"help": "Tell the model to carry a task through without asking back."}
    )
    chunked_writes: bool = field(
        default=False, metadata={"help": "Say in the descriptions of tools that write files how long a call may be."}
    )
    text_calls: bool = field(
        default=False,
        metadata={"help": "Make real calls of tool calls that a model wrote as text. It may have meant an example."},
    )

    def __post_init__(self) -> None:
        if self.thinking_handling not in _HANDLINGS:
            words = ", ".join(handling.value for handling in Handling)
            raise ValueError(f"thinking_handling is {self.thinking_handling!r}; it takes: {words}")
        if self.agentic not in {each.value for each in Agentic}:
            words = ", ".join(each.value for each in Agentic)
            raise ValueError(f"agentic is {self.agentic!r}; it takes: {words}")

    @property
    def handling(self) -> Handling:
        """`thinking_handling`; the longer words of an earlier tool mean the same."""
        return _HANDLINGS[self.thinking_handling]


class EventFilter(Protocol):
    """Mends one answer on its way. Its output obeys `turn.grammar` where its input does, whatever the cut."""

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events to be said in place of `events`. What is held back is said before the turn is over."""


class Gate(Protocol):
    """How a chain of filters lets deltas through as they are."""

    def room(self, block: int) -> int:
        """Bytes that the deltas of an open block may have, in all, and surely pass."""

    def passes(self, event: BlockDelta) -> bool:
        """Whether a delta goes through as it is; then it is counted."""


class _Open:
    """Nothing is in the way."""

    def room(self, block: int) -> int:
        """As `Gate` has it."""
        return sys.maxsize

    def passes(self, event: BlockDelta) -> bool:
        """As `Gate` has it."""
        return True


_OPEN: Final = _Open()


class _Shut:
    """One of the filters has to see every event itself."""

    def room(self, block: int) -> int:
        """As `Gate` has it."""
        return 0

    def passes(self, event: BlockDelta) -> bool:
        """As `Gate` has it."""
        return False


_SHUT: Final = _Shut()


def gate_of(filters: Sequence[EventFilter]) -> Gate:
    """The gate of a chain."""
    match filters:
        case []:
            return _OPEN
        case [Limits() as limits]:
            return limits
        case _:
            return _SHUT


def event_filters(
    request: TurnRequest, model: Model, settings: FilterSettings, names: Names = dict
) -> Sequence[EventFilter]:
    """The filters of one answer to `request`, in the order in which they take it; usually none.

    Thoughts are told from text first, as a call in a thought is none. Limits come last: they count and search what the
    client sees.

    Args:
        names: tells what the upstream calls the tools of `request`, by their own names.
    """
    chain: list[EventFilter] = []
    if settings.thinking_tags and thinks_by_tags(request, model) and settings.handling is not Handling.PASS:
        chain.append(ThinkingSplitter(settings.handling))
    if settings.text_calls and (calls := text_calls_of(request, names)) is not None:
        chain.append(calls)
    if (limits := limits_of(request, model)) is not None:
        chain.append(limits)
    return chain


def emulate(request: TurnRequest, model: Model, settings: FilterSettings, *, agentic: bool = False) -> TurnRequest:
    """`request` with what the model has to be told in words; mostly the same object.

    Args:
        agentic: the model's name asks for agentic mode.
    """
    request = advise(
        request,
        agentic=Agentic(settings.agentic),
        named=agentic,
        discipline=settings.execution_discipline,
        chunked_writes=settings.chunked_writes,
    )
    if settings.thinking_tags and thinks_by_tags(request, model):
        return ask_for_thoughts(request, settings.thinking_budget)
    return request
