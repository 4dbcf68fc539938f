"""Hypothesis strategies for turns, and what tests of filters need."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import strategies as st

from kirostream.filters import EventFilter
from kirostream.turn.events import BlockDelta, Stop, TurnEvent, escape
from kirostream.turn.grammar import Grammar
from kirostream.turn.request import SearchCall, SearchError, SearchHit, SearchOutcome, Text, Thought, ToolCall
from kirostream.turn.result import TurnResult
from kirostream.turn.usage import Usage

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
COUNT = st.integers(0, 10**7)
USAGE = st.builds(
    Usage,
    input_tokens=COUNT,
    output_tokens=COUNT,
    cache_read_tokens=COUNT,
    cache_write_tokens=COUNT,
    estimated=st.booleans(),
)
CALL_ID = st.from_regex(r"tooluse_[A-Za-z0-9]{6,12}", fullmatch=True)
NAME = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,20}", fullmatch=True)
ARGUMENTS = st.sampled_from([b"{}", b'{"path":"a.txt"}', '{"text":"é😀 \\"q\\"\\n","n":[1,2.5,null,true]}'.encode()])
THOUGHT = st.one_of(
    st.builds(Thought, text=TEXT, signature=st.sampled_from(["", "sig=="])),
    st.builds(Thought, text=st.just(""), redacted=st.just("b3BhcXVl")),
)
BLOCK = st.one_of(st.builds(Text, TEXT), THOUGHT, st.builds(ToolCall, CALL_ID, NAME, ARGUMENTS))
HIT = st.builds(
    SearchHit,
    url=st.sampled_from(["https://a.example/", "https://a.example/x?y=é"]),
    title=TEXT,
    age=st.sampled_from(["", "2025-04-30"]),
    text=st.one_of(st.just(""), TEXT),
)


@st.composite
def searches(draw: st.DrawFn) -> list[SearchCall | SearchOutcome]:
    """A web search and its outcome."""
    call = SearchCall(draw(st.from_regex(r"srvtoolu_[A-Za-z0-9]{6,12}", fullmatch=True)), draw(TEXT))
    error: SearchError = draw(st.sampled_from(("", "unavailable", "max_uses_exceeded")))
    hits = () if error else tuple(draw(st.lists(HIT, max_size=2)))
    return [call, SearchOutcome(call.id, hits, error)]


CONTENT = st.lists(st.one_of(st.lists(BLOCK, min_size=1, max_size=1), searches()), max_size=5).map(
    lambda parts: tuple(block for part in parts for block in part)
)
RESULT = st.builds(
    TurnResult,
    content=CONTENT,
    stop=st.sampled_from([Stop.END, Stop.MAX_TOKENS, Stop.TOOL_CALL, Stop.REFUSED]),
    usage=USAGE,
    model=st.sampled_from(["", "claude-sonnet-4.5"]),
)


def through(chain: EventFilter, events: Iterable[TurnEvent]) -> list[TurnEvent]:
    """What a filter says when it is given each event alone. Checks the grammar."""
    grammar = Grammar()
    said: list[TurnEvent] = []
    for event in events:
        for out in chain.take([event]):
            grammar.check(out)
            said.append(out)
    return said


def joined(events: Iterable[TurnEvent]) -> list[TurnEvent]:
    """The events with neighbouring deltas of one block made one: what does not depend on where a text was cut."""
    said: list[TurnEvent] = []
    for event in events:
        before = said[-1] if said else None
        if isinstance(event, BlockDelta) and isinstance(before, BlockDelta) and before.index == event.index:
            said[-1] = BlockDelta.of(event.index, before.text + event.text)
        else:
            said.append(BlockDelta.of(event.index, event.text) if isinstance(event, BlockDelta) else event)
    return said


@st.composite
def cut_finer(draw: st.DrawFn, events: Iterable[TurnEvent]) -> list[TurnEvent]:
    """The same turn with its deltas cut somewhere else. Several pieces of a delta stay, or become several deltas."""
    said: list[TurnEvent] = []
    for event in joined(events):
        if not isinstance(event, BlockDelta):
            said.append(event)
            continue
        text = event.text
        points = sorted(draw(st.lists(st.integers(1, max(1, len(text) - 1)), max_size=8, unique=True)))
        pieces = [text[a:b] for a, b in pairwise([0, *points, len(text)]) if a < b]
        if draw(st.booleans()):
            said.append(BlockDelta(event.index, tuple(map(escape, pieces))))
        else:
            said += [BlockDelta.of(event.index, piece) for piece in pieces]
    return said
