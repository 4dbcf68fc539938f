"""Responses answers: the order and shape of events, calls of every kind, and what the official SDK makes of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.dialects.dialect import Headers, Heading
from kirostream.dialects.openai_responses.request import NAME, read_request
from kirostream.dialects.openai_responses.response import (
    REFUSAL,
    Reader,
    Writer,
    read_result,
    write_error,
    write_result,
)
from kirostream.errors import (
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    KirostreamError,
    LocalProtocolError,
    MalformedRequest,
    ModelNotOnAccount,
    NoAccount,
    QuotaSpent,
    RemoteProtocolError,
    ShuttingDown,
    StreamCut,
    UpstreamError,
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
    escape,
)
from kirostream.turn.grammar import Grammar
from kirostream.turn.model import Model
from kirostream.turn.request import RawJson, Text, Thought, ToolCall, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.usage import Usage
from vectors.regenerate import HEADING, REQUEST, turns

TURNS: Final = turns()
WHOLE: Final = [case for case, events in TURNS.items() if isinstance(events[-1], TurnEnded)]
TOOLS: Final = [
    {"type": "function", "name": "read", "parameters": {"type": "object"}},
    {"type": "custom", "name": "exec"},
    {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn"}]},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
]
ASK: Final = read_request(json.dumps({"model": "m", "input": "hi", "stream": True, "tools": TOOLS}).encode(), ())


def said(wire: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each has its name twice."""
    found = []
    for block in wire.split(b"\n\n"):
        if block and not block.startswith(b":"):
            name, data = block.split(b"\n")
            event: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
            assert name == b"event: " + event["type"].encode()
            found.append(event)
    return found


def write(events: Iterable[TurnEvent], request: TurnRequest = ASK) -> list[dict[str, Any]]:
    """The events a client gets; one a block, numbered from 0."""
    writer = Writer(request, HEADING)
    blocks = [block for event in events for block in writer.write(event)]
    found = said(b"".join(blocks))
    assert len(found) == len(blocks)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def turn(*content: Text | Thought | ToolCall, stop: Stop = Stop.END) -> TurnResult:
    return TurnResult(content, stop, Usage(input_tokens=3, output_tokens=4, cache_read_tokens=2))


def asked(**extras: object) -> TurnRequest:
    raw: Mapping[str, RawJson] = {name: json.dumps(value).encode() for name, value in extras.items()}
    return dataclasses.replace(ASK, extras={**ASK.extras, **raw})


# Order


def test_the_events_of_a_text() -> None:
    events: list[TurnEvent] = [
        TurnStarted("k"),
        BlockStarted(0, BlockKind.TEXT),
        BlockDelta(0, (b"a", b"\\n")),
        BlockDelta(0, (b"b",)),
        BlockEnded(0),
        TurnEnded(Stop.END, Usage()),
    ]
    found = write(events)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in found if "delta" in event] == ["a", "\n", "b"]
    item = found[-2]["item"]
    assert item["content"] == [{"type": "output_text", "text": "a\nb", "annotations": [], "logprobs": []}]
    assert {event["item_id"] for event in found if "item_id" in event} == {item["id"]}
    assert found[0]["response"]["status"] == "in_progress"
    assert found[0]["response"]["id"] == "resp_0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("case", WHOLE)
def test_the_last_event_says_what_was_streamed(case: str) -> None:
    found = write(TURNS[case], REQUEST)
    last = found[-1]["response"]
    done = sorted((event for event in found if event["type"].endswith("item.done")), key=lambda e: e["output_index"])
    added = [event for event in found if event["type"].endswith("item.added")]
    assert last["output"] == [event["item"] for event in done]
    assert [event["output_index"] for event in done] == list(range(len(added)))
    assert [event["item"]["id"] for event in added] == [item["id"] for item in last["output"]]
    assert sum(event["type"] in ("response.completed", "response.incomplete") for event in found) == 1
    for item in last["output"]:
        parts = [event for event in found if event.get("item_id") == item["id"]]
        deltas = "".join(event["delta"] for event in parts if "delta" in event)
        match item["type"]:
            case "message":
                (part,) = item["content"]
                assert deltas == part.get("text", part.get("refusal"))
            case "function_call":
                assert deltas == item["arguments"]
            case "reasoning":
                assert deltas == "".join(part["text"] for part in item["summary"])


def test_thoughts_are_sealed_only_where_that_is_asked_for() -> None:
    content = (Thought("hm", "sig"), Thought("", "", "b3BhcXVl"))
    plain = write(unfold(turn(*content)))[-1]["response"]["output"]
    assert [item["summary"] for item in plain] == [[{"type": "summary_text", "text": "hm"}], []]
    assert all("encrypted_content" not in item for item in plain)
    sealing = asked(include=["reasoning.encrypted_content"])
    items = write(unfold(turn(*content)), sealing)[-1]["response"]["output"]
    body = {"model": "m", "input": [{"role": "user", "content": "x"}, *items]}
    assert read_request(json.dumps(body).encode(), ()).messages[1].content == content


def test_a_background_answer_was_queued() -> None:
    found = write(unfold(turn(Text("x"))), asked(background=True))
    statuses = [event["response"]["status"] for event in found if "response" in event]
    assert [event["type"] for event in found[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert statuses == ["queued", "queued", "in_progress", "completed"]


@pytest.mark.parametrize(
    ("stop", "status", "details"),
    [
        (Stop.END, "completed", None),
        (Stop.STOP_SEQUENCE, "completed", None),
        (Stop.PAUSED, "completed", None),
        (Stop.MAX_TOKENS, "incomplete", {"reason": "max_output_tokens"}),
        (Stop.CONTEXT_FULL, "incomplete", {"reason": "max_output_tokens"}),
        (Stop.REFUSED, "completed", None),
    ],
)
def test_how_it_ended(stop: Stop, status: str, details: object) -> None:
    last = write(unfold(turn(Text("x"), stop=stop)))[-1]
    assert last["type"] == f"response.{status}"
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (status, details)
    refusal = [part for item in last["response"]["output"] for part in item["content"] if part["type"] == "refusal"]
    assert refusal == ([{"type": "refusal", "refusal": REFUSAL}] if stop is Stop.REFUSED else [])


def test_usage_and_what_the_client_set_are_repeated() -> None:
    request = asked(
        metadata={"a": "b"},
        instructions="Be %s.",
        store=False,
        tool_choice="none",
        text={"verbosity": "low"},
        service_tier="flex",
    )
    request = dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, temperature=0.5))
    response = write(unfold(turn(Text("100 %d"))), request)[-1]["response"]
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }
    assert (response["metadata"], response["instructions"], response["store"]) == ({"a": "b"}, "Be %s.", False)
    assert (response["temperature"], response["tool_choice"], response["text"]) == (0.5, "none", {"verbosity": "low"})
    assert response["tools"] == TOOLS
    assert response["service_tier"] == "default"  # the one that was used


def test_pretty_json_of_a_client_stays_on_one_line() -> None:
    pretty = json.dumps({"model": "m", "input": "hi", "tools": TOOLS, "metadata": {"a": "b\n"}}, indent=2)
    request = read_request(pretty.encode().replace(b"\n", b"\r\n"), ())
    response = write(unfold(turn(Text("x"))), request)[-1]["response"]
    assert (response["tools"], response["metadata"]) == (TOOLS, {"a": "b\n"})


# Calls of every kind


def test_calls_come_back_as_the_kind_they_are() -> None:
    calls = [
        ToolCall("c0", "read", b'{"p":"a"}'),
        ToolCall("c1", "exec", json.dumps({"input": 'say "é"\n\\ 😀'}).encode()),
        ToolCall("c2", "agents__spawn", b"{}"),
        ToolCall("c3", "local_shell", b'{"command":["ls"]}'),
        ToolCall("c4", "shell", b'{"commands":["ls"],"timeout_ms":5}'),
        ToolCall("c5", "apply_patch", b'{"type":"delete_file","path":"a"}'),
        ToolCall("c6", "tool_search", b'{"query":"x"}'),
        ToolCall("c7", "never_offered", b"{}"),
    ]
    found = write(unfold(turn(*calls, stop=Stop.TOOL_CALL)))
    items = [{k: v for k, v in item.items() if k not in ("id", "status")} for item in found[-1]["response"]["output"]]
    assert items == [
        {"type": "function_call", "call_id": "c0", "name": "read", "arguments": '{"p":"a"}'},
        {"type": "custom_tool_call", "call_id": "c1", "name": "exec", "input": 'say "é"\n\\ 😀'},
        {"type": "function_call", "call_id": "c2", "namespace": "agents", "name": "spawn", "arguments": "{}"},
        {"type": "local_shell_call", "call_id": "c3", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {
            "type": "shell_call",
            "call_id": "c4",
            "action": {"commands": ["ls"], "timeout_ms": 5, "max_output_length": None},
        },
        {"type": "apply_patch_call", "call_id": "c5", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "tool_search_call", "call_id": "c6", "execution": "client", "arguments": {"query": "x"}},
        {"type": "function_call", "call_id": "c7", "name": "never_offered", "arguments": "{}"},
    ]
    body = {"model": "m", "input": [{"role": "user", "content": "x"}, *found[-1]["response"]["output"]], "tools": TOOLS}
    again = read_request(json.dumps(body).encode(), ()).messages[1].content
    assert [(call.id, call.name) for call in again if isinstance(call, ToolCall)] == [(c.id, c.name) for c in calls]


def custom(pieces: Iterable[bytes]) -> tuple[list[str], str]:
    """The deltas and the input of a custom tool's call whose arguments come in these pieces."""
    deltas: list[TurnEvent] = [BlockDelta(0, (piece,)) for piece in pieces]
    start = BlockStarted(0, BlockKind.TOOL_CALL, "c", "exec")
    found = write([TurnStarted(), start, *deltas, BlockEnded(0), TurnEnded(Stop.TOOL_CALL, Usage())])
    (done,) = [event for event in found if event["type"] == "response.custom_tool_call_input.done"]
    streamed = [event["delta"] for event in found if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(streamed) == done["input"] == found[-1]["response"]["output"][0]["input"]
    return streamed, done["input"]


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=40),
    ascii_only=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=6).map(sorted),
    spaces=st.sampled_from(["", " ", "\n  "]),
)
def test_a_custom_input_is_lifted_out_in_any_cut(text: str, ascii_only: bool, cuts: list[int], spaces: str) -> None:
    document = f'{{{spaces}"input"{spaces}:{spaces}{json.dumps(text, ensure_ascii=ascii_only)}{spaces}}}'
    pieces = [escape(document[a:b]) for a, b in zip([0, *cuts], [*cuts, len(document)], strict=True)]
    assert custom(pieces)[1] == text


def test_a_custom_input_streams() -> None:
    deltas, _ = custom([escape('{"input":"*** Begin'), escape(" Patch\\"), escape("n+a\\ud83d"), escape('\\ude00"}')])
    assert deltas == ["*** Begin", " Patch", "\n+a", "😀"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", ""),
        ("{}", "{}"),
        ('{"input":5}', '{"input":5}'),
        ('{"code":"x","input":"y"}', "y"),
        ("just words, far more than any beginning of an object could be: " + "x" * 50, None),
        ('{"input":"tab\there \\d \\ud83d. \\udc00"}', "tab\there \\d \ufffd. \ufffd"),
        ('{"input":"a","more":"b"}', "a"),
    ],
)
def test_a_custom_input_that_is_not_as_asked(arguments: str, expected: str | None) -> None:
    wanted = arguments if expected is None else expected
    assert custom([escape(arguments)])[1] == wanted
    assert custom([escape(char) for char in arguments])[1] == wanted


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read", '{"path":"a'),
        ("read", "{"),
        ("exec", '{"input":"*** Begin Patch'),
        ("exec", '{"input":"cut \\u12'),
        ("exec", '{"inp'),
        ("shell", '{"commands":["rm -r /tmp'),
    ],
)
def test_a_call_that_broke_off_is_never_done(name: str, arguments: str) -> None:
    """Clients run what is done; half a patch or half a command must not be run."""
    begun: list[TurnEvent] = [TurnStarted(), BlockStarted(0, BlockKind.TEXT), BlockDelta(0, (b"a",)), BlockEnded(0)]
    start, half = BlockStarted(1, BlockKind.TOOL_CALL, "c", name), BlockDelta(1, (escape(arguments),))
    call: list[TurnEvent] = [start, half, BlockEnded(1)]
    for stop in (Stop.MAX_TOKENS, Stop.TOOL_CALL):
        found = write([*begun, *call, TurnEnded(stop, Usage())])
        assert [event["output_index"] for event in found if event["type"] == "response.output_item.added"] == [0, 1]
        assert [event["output_index"] for event in found if event["type"].endswith(".done")] == [0, 0, 0]
        assert found[-1]["type"] == "response.incomplete"
        assert found[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        assert [item["type"] for item in found[-1]["response"]["output"]] == ["message"]
    kept = Writer(ASK, HEADING, keeps=True)
    for event in (*begun, *call, TurnEnded(Stop.MAX_TOKENS, Usage())):
        kept.write(event)
    assert len(kept.items) == 1  # no call without a result in the history of the next request


# Failures


@pytest.mark.parametrize(
    ("error", "code", "read_as"),
    [
        (ContextOverflow("M", tokens=9, limit=8), "context_length_exceeded", ContextOverflow),
        (QuotaSpent("M"), "insufficient_quota", QuotaSpent),
        (AccountThrottled("M"), "rate_limit_exceeded", AccountThrottled),
        (UpstreamOverloaded("M"), "server_is_overloaded", UpstreamOverloaded),
        (NoAccount("M"), "server_is_overloaded", UpstreamOverloaded),
        (MalformedRequest("M"), "invalid_prompt", UpstreamRefused),
        (UpstreamRefused("M"), "invalid_prompt", UpstreamRefused),
        (ModelNotOnAccount("M"), "invalid_prompt", UpstreamRefused),
        (CredentialRejected("M"), "server_error", UpstreamFault),
        (ShuttingDown("M"), "server_error", UpstreamFault),
        (StreamCut("M"), "server_error", UpstreamFault),
        (LocalProtocolError("M"), "server_error", UpstreamFault),
    ],
)
def test_a_failure_in_the_stream(error: KirostreamError, code: str, read_as: type[UpstreamError]) -> None:
    done: list[TurnEvent] = [TurnStarted(), BlockStarted(0, BlockKind.TEXT), BlockDelta.of(0, "whole"), BlockEnded(0)]
    half: list[TurnEvent] = [BlockStarted(1, BlockKind.TEXT), BlockDelta.of(1, "half")]
    cases: list[list[TurnEvent]] = [[], [*done, *half]]
    for before in cases:
        writer = Writer(ASK, HEADING)
        wire = b"".join(block for event in [*before, TurnFailed(error)] for block in writer.write(event))
        *first, last = said(wire)
        assert first[0]["type"] == "response.created"
        assert last["type"] == "response.failed"
        assert (last["response"]["status"], last["response"]["error"]["code"]) == ("failed", code)
        assert [item["content"][0]["text"] for item in last["response"]["output"]] == (["whole"] if before else [])
        *_, event = Reader(ASK, Model("m")).feed(wire)
        assert isinstance(event, TurnFailed)
        assert type(event.error) is read_as


def test_codex_finds_how_long_to_wait() -> None:
    (*_, block) = Writer(ASK, HEADING).write(TurnFailed(AccountThrottled("Slow down.", retry_after=1.5)))
    assert said(block)[0]["response"]["error"]["message"] == "Slow down. Please try again in 1.5s."


def test_a_refusal_before_the_first_byte_is_chats() -> None:
    reply = write_error(MalformedRequest("No.", param="$.input[0]", reason="invalid_value"), "req_1")
    assert reply.status == 400
    assert json.loads(reply.body)["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "input[0]",
        "code": "invalid_value",
    }


# Other servers


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def heard(wire: bytes, headers: Headers = ()) -> list[TurnEvent]:
    reader = Reader(ASK, Model("asked"))
    events = reader.feed(wire) + reader.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def test_a_server_that_sends_only_whole_items() -> None:
    output = [
        {"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "gAAA"},
        {"type": "message", "content": [{"type": "output_text", "text": "x"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "read", "arguments": '{"p":1}'},
        {"type": "custom_tool_call", "call_id": "d", "name": "exec", "input": "x"},
        {"type": "shell_call", "call_id": "e", "action": {"commands": []}},
        {"type": "web_search_call", "id": "ws"},
    ]
    done = [{"type": "response.output_item.done", "output_index": i, "item": item} for i, item in enumerate(output)]
    end = {"type": "response.completed", "response": {"model": "gpt", "output": output, "usage": {"input_tokens": 2}}}
    result = fold(heard(stream({"type": "response.created", "response": {"model": "gpt"}}, *done, end)))
    assert result == TurnResult(
        (
            Thought("a\n\nb", "openai:gAAA"),
            Text("x"),
            Text("no"),
            ToolCall("c", "read", b'{"p":1}'),
            ToolCall("d", "exec", b'{"input":"x"}'),
            ToolCall("e", "shell", b'{"commands": []}'),
        ),
        Stop.REFUSED,
        Usage(input_tokens=2),
        "gpt",
    )
    whole = {"status": "completed", **end["response"]}  # type: ignore[dict-item]
    assert read_result(json.dumps(whole).encode()) == result


def test_raw_reasoning_and_several_parts() -> None:
    item = {"type": "reasoning", "summary": []}
    part = {"type": "response.reasoning_summary_part.added", "output_index": 0, "part": {}}
    deltas = [{"type": "response.reasoning_text.delta", "output_index": 0, "delta": text} for text in ("a", "b")]
    wire = stream(
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        part,
        deltas[0],
        part,
        deltas[1],
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
    )
    result = fold(heard(wire))
    assert (result.content, result.stop, result.model) == ((Thought("a\n\nb"),), Stop.MAX_TOKENS, "asked")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "Slow."},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "Slow."}},
        {"error": {"code": "rate_limit_exceeded", "message": "Slow."}},
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "Slow."}}},
    ],
)
def test_errors_in_any_place(event: dict[str, Any]) -> None:
    *_, failed = heard(stream(event, {"type": "response.completed"}))
    assert isinstance(failed, TurnFailed)
    assert (type(failed.error), failed.error.message) == (AccountThrottled, "Slow.")


def test_a_stream_that_makes_no_sense_is_refused() -> None:
    for event in (
        {"type": "response.output_text.delta", "output_index": 3, "delta": "x"},
        {"type": "response.output_item.added", "item": {"type": "function_call"}},
        {"type": 5},
    ):
        with pytest.raises(RemoteProtocolError):
            Reader(ASK, Model("m")).feed(stream(event))
    with pytest.raises(StreamCut):
        heard(stream({"type": "response.created"}))
    with pytest.raises(RemoteProtocolError):
        read_result(b"{}")
    with pytest.raises(AccountThrottled):
        read_result(b'{"output":[],"status":"failed","error":{"code":"rate_limit_exceeded"}}')


# The official SDK


def ask_openai(content: bytes, kind: str = "text/event-stream") -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, content=content)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://gateway.invalid", http_client=transport, max_retries=0)


def check(response: Any, result: TurnResult) -> None:
    content = [block for block in result.content if not (isinstance(block, Thought) and block.redacted)]
    if result.stop is Stop.REFUSED:
        content.append(Text(""))
    items = [item for item in response.output if item.type != "reasoning" or item.summary]
    for item, block in zip(items, content, strict=True):
        match block:
            case Text(text=text):
                assert getattr(item.content[0], "text", "") == text
            case Thought(text=text):
                assert [part.text for part in item.summary] == [text]
            case ToolCall():
                assert (item.call_id, item.name) == (block.id, block.name)
                assert json.loads(item.arguments) == json.loads(block.arguments)
    assert response.id == "resp_0123456789abcdef0123456789abcdef"
    assert response.usage.total_tokens == result.usage.total_tokens
    assert response.output_text == "".join(block.text for block in result.content if isinstance(block, Text))


@pytest.mark.parametrize("case", WHOLE)
def test_the_sdk_reads_every_event_and_the_whole(case: str) -> None:
    result = fold(TURNS[case])
    writer = Writer(REQUEST, HEADING)
    wire = b"".join(writer.heartbeat() + block for event in TURNS[case] for block in writer.write(event))
    events = list(ask_openai(wire).responses.create(model="m", input="hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1]
    assert final.type in ("response.completed", "response.incomplete")
    check(final.response, result)
    whole = ask_openai(write_result(REQUEST, result, HEADING), "application/json")
    check(whole.responses.create(model="m", input="hi"), result)


@pytest.mark.parametrize("case", [case for case in WHOLE if case not in ("max_tokens", "context_full")])
def test_the_sdk_accumulates_the_stream(case: str) -> None:
    writer = Writer(REQUEST, HEADING)
    wire = b"".join(block for event in TURNS[case] for block in writer.write(event))
    with ask_openai(wire).responses.stream(model="m", input="hi") as stream:
        check(stream.get_final_response(), fold(TURNS[case]))


def test_the_sdk_hears_a_failure() -> None:
    writer = Writer(REQUEST, HEADING)
    wire = b"".join(block for event in TURNS["failed"] for block in writer.write(event))
    *_, last = ask_openai(wire).responses.create(model="m", input="hi", stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_is_overloaded"  # type: ignore[comparison-overlap]


def test_a_heading_makes_the_ids() -> None:
    writer = Writer(dataclasses.replace(ASK, spoken_in=NAME), Heading("f" * 32, 7))
    events = said(b"".join(block for event in unfold(turn(Text("x"))) for block in writer.write(event)))
    assert events[0]["response"]["id"] == "resp_" + "f" * 32
    assert events[0]["response"]["created_at"] == 7
    assert events[2]["item"]["id"] == "msg_" + "f" * 32 + "0000"
