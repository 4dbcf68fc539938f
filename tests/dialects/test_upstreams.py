"""What upstreams really send: forms our writers do not use, and forms nobody should."""

# ruff: noqa: E501  (a case of a table is one line)

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirostream.dialects import DIALECTS
from kirostream.errors import MalformedRequest, RemoteProtocolError, StreamCut
from kirostream.turn.events import BlockKind, BlockStarted, Stop, TurnEvent, TurnFailed
from kirostream.turn.grammar import Grammar
from kirostream.turn.model import Model
from kirostream.turn.request import Text, Thought, ToolCall
from kirostream.turn.result import TurnResult, fold
from kirostream.turn.usage import Usage
from vectors.regenerate import CLIENT_DIALECTS, REQUEST

START = {"type": "message_start", "message": {"id": "m", "model": "opus", "usage": {"input_tokens": 3}}}
STOP = {"type": "message_stop"}


def read(name: str, wire: bytes) -> list[TurnEvent]:
    reader = DIALECTS[name].reader(REQUEST, Model("asked-for"))
    events = [*reader.feed(wire), *reader.close()]
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def messages(*events: dict[str, Any]) -> TurnResult:
    """A Messages stream; events without an index get the one of the block before."""
    return fold(read("anthropic", b"".join(b"event: x\ndata: %b\n\n" % json.dumps(event).encode() for event in events)))


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def chunks(*parts: dict[str, Any], done: bytes = b"data: [DONE]\n\n") -> TurnResult:
    return fold(read("openai_chat", b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in parts) + done))


def choice(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"model": "gpt", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


# Messages


def test_text_and_arguments_that_stand_in_the_start() -> None:
    result = messages(
        START,
        start(0, type="text", text="Hel"),
        delta(0, type="text_delta", text="lo"),
        stop(0),
        start(1, type="tool_use", id="t", name="n", input={"p": 1}),
        stop(1),
        end("tool_use"),
        STOP,
    )
    assert result.content == (Text("Hello"), ToolCall("t", "n", b'{"p": 1}'))


def test_blocks_and_deltas_that_are_not_known_are_passed_over() -> None:
    result = messages(
        START,
        start(0, type="server_tool_use", id="s", name="web_fetch"),
        delta(0, type="input_json_delta", partial_json="{}"),
        stop(0),
        start(1, type="web_fetch_tool_result", content=[]),
        stop(1),
        {"type": "from_the_future"},
        start(2, type="text", text=""),
        delta(2, type="citations_delta", citation={}),
        delta(2, type="text_delta", text="Hi"),
        stop(2),
        end(),
        STOP,
    )
    assert result.content == (Text("Hi"),)


def test_counts_said_late_replace_those_said_early() -> None:
    result = messages(START, end(output_tokens=2, cache_read_input_tokens=9), end(input_tokens=5), STOP)
    assert result.usage == Usage(5, 2, 9)
    assert result.model == "opus"


def test_a_stop_reason_that_is_not_known_is_an_end() -> None:
    assert messages(START, end("from_the_future"), STOP).stop is Stop.END


def test_a_turn_without_its_last_event_is_whole() -> None:
    assert messages(START, end("max_tokens")).stop is Stop.MAX_TOKENS


@pytest.mark.parametrize(
    "events",
    [
        [start(0, type="text", text="")],
        [START, delta(0, type="text_delta", text="x")],
        [START, stop(0)],
        [START, start(0, type="text"), start(0, type="text")],
        [START, start(0, type="text"), end(), STOP],
        [START, START],
    ],
)
def test_a_messages_stream_out_of_order_is_refused(events: list[dict[str, Any]]) -> None:
    with pytest.raises(RemoteProtocolError):
        messages(*events)


def test_a_block_without_its_stop_is_not_whole() -> None:
    with pytest.raises(StreamCut):
        messages(START, start(0, type="text"), end())


# Chat


def test_a_server_that_never_says_done() -> None:
    result = chunks(choice(content="Hi"), choice("stop"), done=b"")
    assert (result.content, result.stop, result.model) == ((Text("Hi"),), Stop.END, "gpt")


def test_a_server_that_gives_no_reason() -> None:
    assert chunks(choice(content="Hi")).stop is Stop.END


def test_reasoning_by_either_name() -> None:
    result = chunks(choice(reasoning="Let "), choice(reasoning_content="me see."), choice(content="42"), choice("stop"))
    assert result.content == (Thought("Let me see."), Text("42"))


def test_calls_without_index_or_id() -> None:
    call = {"function": {"name": "n", "arguments": "{}"}}
    result = chunks(choice("tool_calls", tool_calls=[call, {"id": "given", **call}]))
    assert result.content == (ToolCall("call_0", "n", b"{}"), ToolCall("given", "n", b"{}"))
    assert result.stop is Stop.TOOL_CALL


def test_calls_that_interleave_stay_apart() -> None:
    def part(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return choice(tool_calls=[{"index": index, "function": {"arguments": arguments, **more}}])

    result = chunks(
        part(0, "", name="a"), part(1, "", name="b"), part(1, "[1"), part(0, "[0"), part(1, "]"), part(0, "]")
    )
    assert [call.arguments for call in result.content if isinstance(call, ToolCall)] == [b"[0]", b"[1]"]


def test_a_refusal_is_text_and_a_reason() -> None:
    result = chunks(choice(refusal="No."), choice("stop"))
    assert (result.content, result.stop) == ((Text("No."),), Stop.REFUSED)


def test_usage_in_a_chunk_of_its_own() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    result = chunks(choice(content="Hi"), choice("stop"), {"choices": [], "usage": usage})
    assert result.usage == Usage(6, 2, 4)


@pytest.mark.parametrize("error", ["just words", {"message": "Broken.", "code": 500}, {}, None])
def test_an_error_in_the_stream(error: object) -> None:
    events = [choice(content="Hi"), {"error": error, "choices": []}, choice("stop")]
    wire = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    failed = isinstance(read("openai_chat", wire)[-1], TurnFailed)
    assert failed is bool(error)


@pytest.mark.parametrize(
    "parts", [[choice(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])], [{"choices": [{"delta": 5}]}], []]
)
def test_a_chat_stream_that_makes_no_sense_is_refused(parts: list[dict[str, Any]]) -> None:
    with pytest.raises(RemoteProtocolError):
        chunks(*parts)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b"<html>"])
def test_a_chat_completion_without_a_message_is_none(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        DIALECTS["openai_chat"].read_result(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"{}", b'{"error":{"message":"M"}}'])
def test_a_message_without_content_is_none(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        DIALECTS["anthropic"].read_result(body)


# Anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
# fmt: off
FIELDS = st.sampled_from([
    "type", "index", "message", "content_block", "delta", "usage", "error", "model", "choices", "role", "content", "id",
    "tool_calls", "function", "name", "arguments", "text", "thinking", "finish_reason", "stop_reason", "messages", "url",
    "system", "tools", "tool_choice", "input_schema", "input", "source", "image_url", "tool_use_id", "tool_call_id",
    "output_config", "metadata", "stop",
])
WORDS = st.sampled_from([
    "text", "image", "thinking", "tool_use", "tool_result", "document", "message_start", "content_block_start", "system",
    "content_block_delta", "content_block_stop", "message_delta", "message_stop", "user", "assistant", "tool", "error",
    "stop", "function", "image_url",
])
# fmt: on
FEW = settings(max_examples=40)
"""Large examples, slow to make; the default count would cost seconds."""

NESTED = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner | WORDS, max_size=5),
    max_leaves=15,
)


@pytest.mark.parametrize("name", CLIENT_DIALECTS)
@FEW
@given(bodies=st.lists(st.dictionaries(FIELDS, NESTED, max_size=4), max_size=4))
def test_any_stream_is_read_or_refused(name: str, bodies: list[dict[str, Any]]) -> None:
    wire = b"".join(b"event: x\ndata: %b\n\n" % json.dumps(body).encode() for body in [START, *bodies])
    try:
        events = read(name, wire)
    except (RemoteProtocolError, StreamCut):
        return
    assert isinstance(events[0], TurnFailed) or not isinstance(events[0], BlockStarted)


@pytest.mark.parametrize("name", CLIENT_DIALECTS)
@FEW
@given(body=st.dictionaries(FIELDS, NESTED, max_size=4), content=NESTED, junk=st.binary(max_size=20))
def test_any_request_is_read_or_refused(name: str, body: dict[str, Any], content: object, junk: bytes) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": [content]}]}
    for text in (json.dumps(asked | body).encode(), json.dumps(asked).encode(), junk):
        with contextlib.suppress(MalformedRequest):
            assert DIALECTS[name].read_request(text, ()).messages


@pytest.mark.parametrize("name", CLIENT_DIALECTS)
@FEW
@given(body=st.dictionaries(FIELDS, NESTED, max_size=4), junk=st.binary(max_size=20))
def test_any_error_body_is_a_complaint(name: str, body: dict[str, Any], junk: bytes) -> None:
    for text in (json.dumps(body).encode(), junk):
        DIALECTS[name].read_error((), text)
        with contextlib.suppress(RemoteProtocolError):
            DIALECTS[name].read_result(text)


def test_a_thought_is_a_block_of_its_own_kind() -> None:
    kinds = [event.kind for event in read("openai_chat", b'data: {"choices":[{"delta":{"reasoning":"a","content":"b"},"finish_reason":"stop"}]}\n\n') if isinstance(event, BlockStarted)]  # fmt: skip
    assert kinds == [BlockKind.THINKING, BlockKind.TEXT]
