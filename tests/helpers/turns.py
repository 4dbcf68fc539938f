"""Hypothesis strategies for turns: whole results, and events in legal order."""

from __future__ import annotations

from hypothesis import strategies as st

from kirostream.turn.events import Stop
from kirostream.turn.request import Text, Thought, ToolCall
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
RESULT = st.builds(
    TurnResult,
    content=st.lists(BLOCK, max_size=5).map(tuple),
    stop=st.sampled_from([Stop.END, Stop.MAX_TOKENS, Stop.TOOL_CALL, Stop.REFUSED]),
    usage=USAGE,
    model=st.sampled_from(["", "claude-sonnet-4.5"]),
)
