from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cuts import bytewise, cuts
from helpers.frames import TEXT, event, message
from helpers.turns import RESULT
from kirostream.dialects.dialect import Heading
from kirostream.dialects.kiro.response import Reader, Writer, read_result, write_result
from kirostream.errors import (
    AccountThrottled,
    ContextOverflow,
    FrameError,
    KirostreamError,
    QuotaSpent,
    RemoteProtocolError,
    StreamCut,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
)
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
from kirostream.turn.grammar import Grammar, Phase
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, SearchCall, SearchOutcome, Text, Thought, Tool, ToolCall, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.tokens import estimate
from kirostream.turn.usage import Usage

LONG = "mcp__server__" + "t" * 70
REQUEST = TurnRequest(
    model="m",
    messages=(Message(Role.USER, (Text("hello there"),)),),
    tools=(Tool("read", "", b"{}"), Tool(LONG, "", b"{}")),
)
MODEL = Model("claude-sonnet-4.5", window=200_000)
HEADING = Heading("0" * 32, 0)


def said(kind: str, **payload: Any) -> bytes:
    """One event; lone surrogates are written as escapes."""
    return event(kind, json.dumps(payload, separators=(",", ":")).encode())


def text(content: str, **more: Any) -> bytes:
    return said("assistantResponseEvent", content=content, **more)


def thought(**payload: Any) -> bytes:
    return said("reasoningContentEvent", **payload)


def tool(call_id: str = "1", name: str = "read", **more: Any) -> bytes:
    return said("toolUseEvent", toolUseId=call_id, name=name, **more)


def exception(kind: str, payload: bytes = b"") -> bytes:
    return message([(b":message-type", TEXT, b"exception"), (b":exception-type", TEXT, kind.encode())], payload)


def read(data: bytes | Iterable[bytes], *, model: Model = MODEL) -> list[TurnEvent]:
    """Every event of a stream that is closed in good order, in legal order."""
    reader = Reader(REQUEST, model)
    events: list[TurnEvent] = []
    for piece in [data] if isinstance(data, bytes) else data:
        events += reader.feed(piece)
    events += reader.close()
    grammar = Grammar()
    for each in events:
        grammar.check(each)
    assert grammar.phase is Phase.OVER
    return events


def answer(*frames: bytes, model: Model = MODEL) -> TurnResult:
    """What a stream says, which has to be the same in every cut."""
    data = b"".join(frames)
    whole = fold(read(data, model=model))
    assert fold(read(bytewise(data), model=model)) == whole
    assert fold(read(frames, model=model)) == whole
    return whole


def spoken(*frames: bytes) -> tuple[Any, ...]:
    return answer(*frames).content


CUT = Stop.MAX_TOKENS
FULL = said("contextUsageEvent", contextUsagePercentage=100.0)
END = said("contextUsageEvent", contextUsagePercentage=0.5) + said("meteringEvent", usage=0.25, unit="credit")

VECTORS: list[tuple[str, list[bytes], tuple[Any, ...], Stop]] = [
    ("text", [text("Hel"), text("lo"), END], (Text("Hello"),), Stop.END),
    ("text alone", [text("Hello")], (Text("Hello"),), Stop.END),
    ("equal pieces", [text("ha"), text("ha"), text("ha")], (Text("hahaha"),), Stop.END),
    ("escapes", [text('"\\\n\t\u0001é😀'), text("\u2028")], (Text('"\\\n\t\u0001é😀\u2028'),), Stop.END),
    ("html stays", [text("&lt;b&gt;")], (Text("&lt;b&gt;"),), Stop.END),
    ("empty pieces", [text(""), text("a"), text(""), text("b")], (Text("ab"),), Stop.END),
    ("nothing but costs", [END], (), Stop.END),
    ("empty text", [text("")], (), Stop.END),
    ("spaces", [event("assistantResponseEvent", b'{ "content" : "a" }')] * 3, (Text("aaa"),), Stop.END),
    ("code", [said("codeEvent", content="x = 1")], (Text("x = 1"),), Stop.END),
    ("wrapped", [said("assistantResponseEvent", assistantResponseEvent={"content": "a"})], (Text("a"),), Stop.END),
    (
        "unknown events",
        [said("citationEvent", x=1), text("a"), event("strange", b"\xff"), text("b")],
        (Text("ab"),),
        Stop.END,
    ),
    ("initial response", [said("initial-response", conversationId="c"), text("a")], (Text("a"),), Stop.END),
    (
        "empty payloads",
        [event("assistantResponseEvent", b""), text("a"), event("meteringEvent", b"")],
        (Text("a"),),
        Stop.END,
    ),
    ("payloads of other shapes", [event("assistantResponseEvent", b"[1]"), text("a")], (Text("a"),), Stop.END),
    (
        "members of other types",
        [event("assistantResponseEvent", b'{"content":null}'), text("a")],
        (Text("a"),),
        Stop.END,
    ),
    ("thought", [thought(text="hm"), thought(text="m"), text("a")], (Thought("hmm"), Text("a")), Stop.END),
    (
        "signed thought",
        [thought(text="hm"), thought(text="m"), thought(signature="s"), text("a")],
        (Thought("hmm", "s"), Text("a")),
        Stop.END,
    ),
    (
        "thoughts with their signatures",
        [thought(text="a", signature="s"), thought(text="b", signature="s"), thought(text="c", signature="s")],
        (Thought("a", "s"), Thought("b", "s"), Thought("c", "s")),
        Stop.END,
    ),
    ("signature alone", [thought(signature="s"), text("a")], (Thought("", "s"), Text("a")), Stop.END),
    (
        "redacted thought",
        [thought(text="hm"), thought(redactedContent="b64"), text("a")],
        (Thought("hm"), Thought("", "", "b64"), Text("a")),
        Stop.END,
    ),
    (
        "call",
        [text("a"), tool(), tool(input='{"p'), tool(input='":1}'), tool(stop=True), END],
        (Text("a"), ToolCall("1", "read", b'{"p":1}')),
        Stop.TOOL_CALL,
    ),
    ("call in one frame", [tool(input='{"p":1}', stop=True)], (ToolCall("1", "read", b'{"p":1}'),), Stop.TOOL_CALL),
    ("call without a start", [tool(input="{}"), tool(stop=True)], (ToolCall("1", "read", b"{}"),), Stop.TOOL_CALL),
    ("call without arguments", [tool(), tool(stop=True)], (ToolCall("1", "read", b"{}"),), Stop.TOOL_CALL),
    ("call of nothing else", [tool(stop=True)], (ToolCall("1", "read", b"{}"),), Stop.TOOL_CALL),
    (
        "call with an object",
        [tool(input={}), tool(input={"p": [1, "é"]}), tool(stop=True)],
        (ToolCall("1", "read", '{"p": [1, "é"]}'.encode()),),
        Stop.TOOL_CALL,
    ),
    (
        "call with empty fragments",
        [tool(input=""), tool(input="{"), tool(input=""), tool(input="}"), tool(input="", stop=True)],
        (ToolCall("1", "read", b"{}"),),
        Stop.TOOL_CALL,
    ),
    (
        "parallel calls",
        [tool(), tool(input="{}"), tool(stop=True), tool("2"), tool("2", input='{"a":2}'), tool("2", stop=True)],
        (ToolCall("1", "read", b"{}"), ToolCall("2", "read", b'{"a":2}')),
        Stop.TOOL_CALL,
    ),
    (
        "a call that ends by the next",
        [tool(), tool(input="{}"), tool("2"), tool("2", stop=True)],
        (ToolCall("1", "read", b"{}"), ToolCall("2", "read", b"{}")),
        Stop.TOOL_CALL,
    ),
    (
        "a call that ends by text",
        [tool(), tool(input="{}"), text("a")],
        (ToolCall("1", "read", b"{}"), Text("a")),
        Stop.TOOL_CALL,
    ),
    (
        "a call said again",
        [tool(input='{"a":1}', stop=True), tool(input='{"a":2}'), tool(input='{"a":3}'), tool(stop=True), text("x")],
        (ToolCall("1", "read", b'{"a":1}'), Text("x")),
        Stop.TOOL_CALL,
    ),
    (
        "a call in text events",
        [said("assistantResponseEvent", toolUseId="1", name="read", input="{}"), tool(stop=True)],
        (ToolCall("1", "read", b"{}"),),
        Stop.TOOL_CALL,
    ),
    (
        "a call without an id",
        [said("toolUseEvent", name="read", input="{}"), said("toolUseEvent", name="read", stop=True)],
        (ToolCall("tooluse_0", "read", b"{}"),),
        Stop.TOOL_CALL,
    ),
    (
        "a call whose name is not repeated",
        [tool(), said("toolUseEvent", toolUseId="1", input="{}"), said("toolUseEvent", toolUseId="1", stop=True)],
        (ToolCall("1", "read", b"{}"),),
        Stop.TOOL_CALL,
    ),
    ("a name in another case", [tool(name="READ", stop=True)], (ToolCall("1", "read", b"{}"),), Stop.TOOL_CALL),
    ("an unknown name", [tool(name="other", stop=True)], (ToolCall("1", "other", b"{}"),), Stop.TOOL_CALL),
    (
        "arguments that break off",
        [tool(), tool(input='{"p":'), tool(stop=True)],
        (ToolCall("1", "read", b'{"p":'),),
        Stop.MAX_TOKENS,
    ),
    ("arguments of no object", [tool(input="[1]", stop=True)], (ToolCall("1", "read", b"[1]"),), CUT),
    (
        "arguments of no JSON",
        [tool(input='{"a":NaN}', stop=True)],
        (ToolCall("1", "read", b'{"a":NaN}'),),
        Stop.MAX_TOKENS,
    ),
    (
        "broken arguments outrank a stop reason",
        [tool(input="{", stop=True), said("metadataEvent", stopReason="TOOL_USE")],
        (ToolCall("1", "read", b"{"),),
        Stop.MAX_TOKENS,
    ),
    (
        "full window",
        [text("a"), said("contextUsageEvent", contextUsagePercentage=100.0)],
        (Text("a"),),
        Stop.CONTEXT_FULL,
    ),
    (
        "full window after a call",
        [tool(stop=True), FULL],
        (ToolCall("1", "read", b"{}"),),
        Stop.TOOL_CALL,
    ),
    (
        "window that runs full on the way",
        [text("a"), exception("ContentLengthExceededException", b'{"message":"m"}')],
        (Text("a"),),
        Stop.MAX_TOKENS,
    ),
    (
        "window that runs full in a call",
        [tool(), tool(input="{"), exception("ValidationException", b'{"reason":"CONTENT_LENGTH_EXCEEDS_THRESHOLD"}')],
        (ToolCall("1", "read", b"{"),),
        Stop.MAX_TOKENS,
    ),
    # Surrogate pairs in two halves
    ("halves", [text("a\ud83d"), text("\ude00b")], (Text("a😀b"),), Stop.END),
    ("halves at the beginning", [text("\ud83d"), text("\ude00")], (Text("😀"),), Stop.END),
    ("halves around costs", [text("\ud83d"), END, text("\ude00")], (Text("😀"),), Stop.END),
    ("halves in a row", [text("\ud83d"), text("\ude00\ud83d"), text("\ude01")], (Text("😀😁"),), Stop.END),
    (
        "a half in the piece that opens a block",
        [thought(text="t"), text("a\ud83d"), text("\ude00b")],
        (Thought("t"), Text("a😀b")),
        Stop.END,
    ),
    (
        "a half alone that opens a block",
        [thought(text="t"), text("\ud83d"), text("\ude00")],
        (Thought("t"), Text("😀")),
        Stop.END,
    ),
    ("first half alone", [text("a\ud83d"), text("b")], (Text("a\ufffdb"),), Stop.END),
    ("first half at the end", [text("a\ud83d")], (Text("a\ufffd"),), Stop.END),
    ("nothing but a half", [text("\ud83d")], (Text("\ufffd"),), Stop.END),
    ("second half alone", [text("\ude00a")], (Text("\ufffda"),), Stop.END),
    ("two first halves", [text("\ud83d"), text("\ud83d"), text("\ude00")], (Text("\ufffd😀"),), Stop.END),
    (
        "halves in two blocks",
        [text("a\ud83d"), thought(text="\ude00b")],
        (Text("a\ufffd"), Thought("\ufffdb")),
        Stop.END,
    ),
    (
        "halves of a thought",
        [thought(text="\ud83d"), thought(text="\ude00"), thought(signature="s")],
        (Thought("😀", "s"),),
        Stop.END,
    ),
    (
        "half of a signed thought",
        [thought(text="a\ud83d"), thought(signature="s")],
        (Thought("a\ufffd", "s"),),
        Stop.END,
    ),
    (
        "halves of arguments",
        [tool(), tool(input='{"a":"\ud83d'), tool(input='\ude00"}'), tool(stop=True)],
        (ToolCall("1", "read", '{"a":"😀"}'.encode()),),
        Stop.TOOL_CALL,
    ),
    (
        "half of arguments before the next call",
        [tool(), tool(input="\ud83d"), tool("2", stop=True)],
        (ToolCall("1", "read", "\ufffd".encode()), ToolCall("2", "read", b"{}")),
        Stop.MAX_TOKENS,
    ),
]


@pytest.mark.parametrize(("frames", "content", "stop"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_vectors(frames: list[bytes], content: tuple[Any, ...], stop: Stop) -> None:
    result = answer(*frames)
    assert result.content == content
    assert result.stop is stop


@pytest.mark.parametrize("frames", [v[1] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_every_piece_is_valid_by_itself(frames: list[bytes]) -> None:
    for each in read(b"".join(frames)):
        if isinstance(each, BlockDelta):
            for piece in each.pieces:
                assert piece
                unescape((piece,)).encode()  # no half of a pair


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(VECTORS).flatmap(lambda v: st.tuples(st.just(v), cuts(b"".join(v[1])))))
def test_vectors_in_any_cut(case: tuple[tuple[str, list[bytes], tuple[Any, ...], Stop], list[bytes]]) -> None:
    (_, _, content, stop), pieces = case
    result = fold(read(pieces))
    assert (result.content, result.stop) == (content, stop)


@pytest.mark.parametrize(
    ("word", "content", "stop"),
    [
        ("END_TURN", text("a"), Stop.END),
        ("END_TURN", tool(stop=True), Stop.TOOL_CALL),
        ("TOOL_USE", tool(stop=True), Stop.TOOL_CALL),
        ("TOOL_USE", text("a"), Stop.END),
        ("MAX_TOKENS", text("a"), Stop.MAX_TOKENS),
        ("MAX_TOKENS", tool(stop=True), Stop.MAX_TOKENS),
        ("STOP_SEQUENCE", text("a"), Stop.STOP_SEQUENCE),
        ("CONTENT_FILTERED", text("a"), Stop.REFUSED),
        ("MODEL_CONTEXT_WINDOW_EXCEEDED", text("a"), Stop.CONTEXT_FULL),
        ("PAUSE_TURN", text("a"), Stop.PAUSED),
        ("UNKNOWN", text("a"), Stop.END),
        ("SOMETHING_NEW", tool(stop=True), Stop.TOOL_CALL),
    ],
)
def test_the_stop_reason(word: str, content: bytes, stop: Stop) -> None:
    assert answer(content, said("metadataEvent", stopReason=word)).stop is stop


# How a run is said


def test_a_run_is_one_delta() -> None:
    reader = Reader(REQUEST, MODEL)
    assert reader.feed(text("a")) == [
        TurnStarted("claude-sonnet-4.5", Usage(input_tokens=estimate(REQUEST), estimated=True)),
        BlockStarted(0, BlockKind.TEXT),
        BlockDelta(0, (b"a",)),
    ]
    assert reader.feed(text("b") + text("c") + text('"')) == [BlockDelta(0, [b"b", b"c", b'\\"'])]
    assert reader.close()[0] == BlockEnded(0)


def test_pieces_come_as_the_wire_has_them() -> None:
    deltas = [
        e for e in read(event("assistantResponseEvent", b'{"content":"\\u00e9\\/"}')) if isinstance(e, BlockDelta)
    ]
    assert deltas == [BlockDelta(0, (b"\\u00e9\\/",))]


def test_a_call_without_arguments_says_so() -> None:
    events = read(tool() + tool(stop=True))
    assert events[1:3] == [BlockStarted(0, BlockKind.TOOL_CALL, "1", "read"), BlockDelta(0, (b"{}",))]


def test_a_half_waits_while_other_things_are_said() -> None:
    odd = said("odd", content="x")
    assert spoken(text("\ud83d"), odd, odd, odd, text("\ude00")) == (Text("😀"),)


@pytest.mark.parametrize("member", ["content", "input", "text"])
def test_a_run_of_a_string_that_means_nothing_here_says_nothing(member: str) -> None:
    kinds = ("assistantResponseEvent", "reasoningContentEvent", "meteringEvent")
    odd = [said(kind, **{member: "x"}) for kind in kinds for _ in range(3)]
    told = "".join(block.text for block in spoken(text("a"), *odd, text("b")) if isinstance(block, Text))
    assert told == ("axxxb" if member == "content" else "ab")


def test_a_run_of_an_event_that_is_ignored_says_nothing() -> None:
    assert spoken(text("a"), said("odd", content="x"), said("odd", content="y"), text("b")) == (Text("ab"),)


def test_the_model_that_auto_picked_is_named() -> None:
    assert read(text("a", modelId="claude-opus-4.5"))[0] == TurnStarted(
        "claude-opus-4.5", Usage(input_tokens=estimate(REQUEST), estimated=True)
    )
    assert answer(tool(stop=True)).model == "claude-sonnet-4.5"


def test_a_long_name_comes_back() -> None:
    writer = Writer(REQUEST, HEADING)
    (start,) = writer.write(BlockStarted(0, BlockKind.TOOL_CALL, "1", LONG))
    assert LONG.encode() not in start
    (stop,) = writer.write(BlockEnded(0))
    assert spoken(start, stop) == (ToolCall("1", LONG, b"{}"),)


# Cost


def test_the_estimate() -> None:
    usage = answer(text("x" * 36)).usage
    assert usage == Usage(input_tokens=estimate(REQUEST), output_tokens=10, estimated=True)


def test_thinking_is_counted_in_the_output() -> None:
    usage = answer(thought(text="x" * 36), text("x" * 36)).usage
    assert (usage.output_tokens, usage.thinking_tokens) == (20, 10)


def test_arguments_are_counted() -> None:
    assert answer(tool(input='{"a":"' + "x" * 20 + '"}', stop=True)).usage.output_tokens == 10


def test_a_call_without_arguments_is_not_nothing() -> None:
    assert answer(tool(stop=True)).usage.output_tokens == 1


def test_the_share_of_the_window() -> None:
    usage = answer(text("x" * 36), said("contextUsageEvent", contextUsagePercentage=1.0)).usage
    assert usage == Usage(input_tokens=1_990, output_tokens=10, context_percentage=1.0, estimated=True)


def test_a_share_below_the_estimate_does_not_lower_it() -> None:
    usage = answer(text("x"), said("contextUsageEvent", contextUsagePercentage=0.0001)).usage
    assert usage.input_tokens == estimate(REQUEST)


def test_credits_add_up() -> None:
    assert answer(text("a"), said("meteringEvent", usage=0.25), said("meteringEvent", usage=0.5)).usage.credits == 0.75


COUNTS = {
    "uncachedInputTokens": 10,
    "cacheReadInputTokens": 20,
    "cacheWriteInputTokens": 30,
    "outputTokens": 40,
    "totalTokens": 100,
    "contextUsagePercentage": 2.5,
}


@pytest.mark.parametrize("kind", ["metadataEvent", "messageMetadataEvent"])
def test_a_count_outranks_everything_after_it(kind: str) -> None:
    late = said("contextUsageEvent", contextUsagePercentage=50.0)
    usage = answer(text("x" * 360), said(kind, tokenUsage=COUNTS), said("meteringEvent", usage=1), late).usage
    assert usage == Usage(10, 40, 20, 30, credits=1.0, context_percentage=50.0)


@pytest.mark.parametrize("bad", [None, "1", -1, True, float("inf"), [], 10**400])
def test_counts_that_are_none(bad: object) -> None:
    payload = json.dumps({"tokenUsage": {"outputTokens": bad}, "usage": bad, "contextUsagePercentage": bad}).encode()
    frames = [event(kind, payload) for kind in ("metadataEvent", "meteringEvent", "contextUsageEvent")]
    usage = answer(text("a"), *frames).usage
    assert usage.estimated
    assert (usage.input_tokens, usage.output_tokens) == (estimate(REQUEST), 1)
    assert usage.cache_read_tokens == usage.cache_write_tokens == 0


def test_counts_without_a_prompt_are_made_up_for() -> None:
    """Where nothing says how large the prompt is, our estimate stands: with 0, no client would ever compact."""
    share = said("contextUsageEvent", contextUsagePercentage=1.0)
    nothing = answer(text("x" * 36), share, said("metadataEvent", tokenUsage={"outputTokens": 7})).usage
    assert (nothing.input_tokens, nothing.output_tokens, nothing.estimated) == (1_990, 10, True)
    total = answer(text("x"), said("metadataEvent", tokenUsage={"outputTokens": 7, "totalTokens": 1_007})).usage
    assert (total.input_tokens, total.output_tokens, total.estimated) == (1_000, 7, False)
    prompt = answer(text("x" * 36), said("metadataEvent", tokenUsage={"uncachedInputTokens": 900})).usage
    assert (prompt.input_tokens, prompt.output_tokens, prompt.estimated) == (900, 10, True)


def test_thinking_is_a_share_of_what_was_counted() -> None:
    usage = answer(thought(text="y" * 180), text("x"), said("metadataEvent", tokenUsage=COUNTS)).usage
    assert (usage.output_tokens, usage.thinking_tokens) == (40, 40)


def test_a_share_holds_only_what_was_said_before_it() -> None:
    share = said("contextUsageEvent", contextUsagePercentage=1.0)
    assert answer(share, text("x" * 36)).usage.input_tokens == 2_000
    assert answer(text("x" * 18), share, text("x" * 18)).usage.input_tokens == 1_995


def test_the_estimate_is_corrected_by_what_was_learned_of_the_model() -> None:
    reader = Reader(REQUEST, Model("m", correction=1.5))
    (started, *_) = reader.feed(text("a"))
    assert isinstance(started, TurnStarted)
    assert started.usage.input_tokens == round(estimate(REQUEST) * 1.5)


def test_the_cost_is_told_as_it_becomes_known() -> None:
    events = read(said("meteringEvent", usage=0.25) + text("a") + said("meteringEvent", usage=0.25))
    assert [e.usage.credits for e in events if isinstance(e, (TurnStarted, UsageKnown, TurnEnded))] == [0.25, 0.5, 0.5]


# Faults


@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        (exception("ThrottlingException", b'{"message":"slow down"}'), AccountThrottled, "slow down"),
        (exception("ServiceQuotaExceededException"), QuotaSpent, "month"),
        (exception("InternalServerException", b"not json"), UpstreamFault, "not json"),
        (exception("InternalServerException", b'{"reason":"MODEL_TEMPORARILY_UNAVAILABLE"}'), UpstreamOverloaded, ""),
        (exception("ValidationException", b'{"message":"Input is too long."}'), ContextOverflow, "too long"),
        (exception("NewException", b'{"message":"m"}'), UpstreamFault, "NewException"),
        (
            message(
                [
                    (b":message-type", TEXT, b"error"),
                    (b":error-code", TEXT, b"ServiceUnavailableException"),
                    (b":error-message", TEXT, b"come back"),
                ]
            ),
            UpstreamOverloaded,
            "come back",
        ),
        (said("invalidStateEvent", reason="INVALID_TASK_ASSIST_PLAN", message="no plan"), UpstreamRefused, "no plan"),
        (event("assistantResponseEvent", b"{"), RemoteProtocolError, "not JSON"),
        (event("toolUseEvent", b'{"toolUseId":"9"}'), RemoteProtocolError, "does not name"),
        (event("assistantResponseEvent", b"[" * 100_000), RemoteProtocolError, "not JSON"),
        (event("assistantResponseEvent", b'{"content":"\xff"}'), RemoteProtocolError, "not JSON"),
    ],
)
@pytest.mark.parametrize(
    "before", [b"", text("a"), text("a") + tool() + tool(input="{")], ids=["first", "text", "call"]
)
def test_a_failure(frame: bytes, kind: type[KirostreamError], words: str, before: bytes) -> None:
    if kind is ContextOverflow and before:
        return  # see the vectors: what was said stands
    events = read(before + frame + text("never said"))
    failure = events[-1]
    assert isinstance(failure, TurnFailed)
    assert type(failure.error) is kind
    assert words in failure.error.message
    if not before:
        assert [e for e in events if not isinstance(e, (TurnStarted, TurnFailed))] == []
    if not before and kind is not RemoteProtocolError:
        assert events == [failure]


def test_a_window_that_was_full_before_anything_was_said_is_a_failure() -> None:
    *_, failure = read(text("") + exception("ContentLengthExceededException"))
    assert isinstance(failure, TurnFailed)
    assert isinstance(failure.error, ContextOverflow)


def test_nothing_follows_a_failure() -> None:
    reader = Reader(REQUEST, MODEL)
    assert len(reader.feed(exception("ThrottlingException"))) == 1
    assert reader.feed(text("a")) == []
    assert reader.close() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (said("initial-response"), "empty"),
        (said("citationEvent", x=1), "empty"),
        (said("messageMetadataEvent", conversationId="c"), "empty"),
        (text("a")[:-1], "frame"),
        (text("a") + text("b")[:3], "frame"),
        (text("a") + tool(), "tool_call"),
        (tool() + tool(input="{}"), "tool_call"),
        (tool(input="{}", stop=True) + tool("2", input="{}"), "tool_call"),
    ],
)
def test_a_stream_that_is_not_whole(data: bytes, reason: str) -> None:
    with pytest.raises(StreamCut) as caught:
        read(data)
    assert caught.value.reason == reason


def test_a_corrupt_frame_is_raised_after_what_came_before() -> None:
    bad = bytearray(text("b"))
    bad[-1] ^= 1
    reader = Reader(REQUEST, MODEL)
    assert BlockDelta(0, (b"a",)) in reader.feed(text("a") + bytes(bad))
    with pytest.raises(FrameError) as caught:
        reader.close()
    assert caught.value.fault == "message_crc"


# Two ends wired together


def told(result: TurnResult) -> tuple[Any, ...]:
    """What the wire can say of a result: it has no brackets, so neighbours of one kind are one, and no searches."""
    content: list[Any] = []
    for block in result.content:
        if isinstance(block, SearchCall | SearchOutcome):
            continue
        last = content[-1] if content else None
        if isinstance(block, Text) and isinstance(last, Text):
            content[-1] = Text(last.text + block.text)
        elif isinstance(block, Thought) and not block.redacted and isinstance(last, Thought):
            open_ended = not last.redacted and not last.signature
            content[-1:] = [Thought(last.text + block.text, block.signature)] if open_ended else [last, block]
        else:
            content.append(block)
    return tuple(content)


def unlike(result: TurnResult) -> TurnResult:
    """The same with ids that are never the same twice."""
    content = [
        ToolCall(f"{b.id}_{n}", b.name, b.arguments) if isinstance(b, ToolCall) else b
        for n, b in enumerate(result.content)
    ]
    return TurnResult(tuple(content), result.stop, result.usage, result.model)


@settings(max_examples=60, deadline=None)
@given(RESULT.map(unlike), st.data())
def test_what_is_written_is_read(result: TurnResult, data: st.DataObject) -> None:
    wire = write_result(REQUEST, result, HEADING)
    if not wire:
        return
    again = fold(read(data.draw(cuts(wire))))
    assert again.content == told(result)
    called = any(isinstance(block, ToolCall) for block in result.content)
    if result.stop in (Stop.END, Stop.TOOL_CALL):
        assert again.stop is (Stop.TOOL_CALL if called else Stop.END)
    else:
        assert again.stop is result.stop
    usage = result.usage
    if not usage.estimated and usage.prompt_tokens and usage.output_tokens:  # counts without these are no counts
        assert dataclasses.replace(again.usage, thinking_tokens=usage.thinking_tokens) == usage
    assert read_result(wire).content == again.content


def test_the_writer_says_what_the_service_says() -> None:
    usage = Usage(1, 2, credits=0.5, context_percentage=1.5, estimated=True)
    events: list[TurnEvent] = [
        TurnStarted("claude-sonnet-4.5"),
        BlockStarted(0, BlockKind.TEXT),
        BlockDelta(0, (b"a", b"\\n")),
        BlockEnded(0),
        BlockStarted(1, BlockKind.TOOL_CALL, "t1", "read"),
        BlockDelta(1, (b'{\\"a\\":', b"1}")),
        BlockEnded(1),
        UsageKnown(usage),
        TurnEnded(Stop.TOOL_CALL, usage),
    ]
    writer = Writer(REQUEST, HEADING)
    call = b'{"toolUseId":"t1","name":"read"'
    assert [frame for each in events for frame in writer.write(each)] == [
        event("assistantResponseEvent", b'{"content":"a","modelId":"claude-sonnet-4.5"}'),
        event("assistantResponseEvent", b'{"content":"\\n","modelId":"claude-sonnet-4.5"}'),
        event("toolUseEvent", call + b"}"),
        event("toolUseEvent", call + b',"input":"{\\"a\\":"}'),
        event("toolUseEvent", call + b',"input":"1}"}'),
        event("toolUseEvent", call + b',"stop":true}'),
        event("contextUsageEvent", b'{"contextUsagePercentage":1.5}'),
        event("meteringEvent", b'{"usage":0.5,"unit":"credit","unitPlural":"credits"}'),
    ]


def test_a_heartbeat_says_nothing() -> None:
    assert spoken(Writer(REQUEST, HEADING).heartbeat(), text("a")) == (Text("a"),)


@pytest.mark.parametrize("error", [AccountThrottled("m"), UpstreamFault("m"), ContextOverflow("m"), QuotaSpent("m")])
def test_a_failure_that_is_written_is_read(error: KirostreamError) -> None:
    (frame,) = Writer(REQUEST, HEADING).write(TurnFailed(error))
    (failure,) = read(frame)
    assert isinstance(failure, TurnFailed)
    assert type(failure.error) is type(error)


def test_a_whole_answer_that_failed_is_raised() -> None:
    with pytest.raises(AccountThrottled):
        read_result(exception("ThrottlingException"))
    with pytest.raises(StreamCut):
        read_result(b"")


def test_unfold_is_what_was_written() -> None:
    result = TurnResult((Text("a"),), Stop.END, model="m")
    writer = Writer(REQUEST, HEADING)
    assert b"".join(f for e in unfold(result) for f in writer.write(e)) == write_result(REQUEST, result, HEADING)
