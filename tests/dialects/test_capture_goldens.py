"""Every captured request of a real client, there and back.

There: read, repaired, taken by a strict simulator, and the same in all facts as `tests/vectors/captures.txt` has them.
Back: what the simulator answers goes through the writer of the client's own language, and the official SDK's own
accumulator has to make the same of it.
"""

from __future__ import annotations

import difflib
import functools
import json
from typing import Any, Final

import anthropic
import httpx2
import openai
import pytest
from openai.lib.streaming.responses import ResponseStreamManager

from helpers.captures import ABSENT, FOLDER
from kirostream.dialects.dialect import Heading
from kirostream.turn.request import Text, Thought, ToolCall
from kirostream.turn.result import TurnResult, fold
from vectors.captures import GOLDEN, Played, facts, play_all

HEADING: Final = Heading(
    turn="0123456789abcdef0123456789abcdef", created=1_795_000_000, request_id="req_0123456789abcdef"
)
NAMES: Final = [line.split(" ")[0] for line in GOLDEN.read_text().splitlines() if line and not line.startswith(" ")]


@functools.cache
def played() -> dict[str, Played]:
    """Every capture by its name, played once."""
    return {each.capture.name: each for each in play_all()}


def of(name: str) -> Played:
    if not FOLDER.is_dir():
        pytest.skip(ABSENT)
    return played()[name]


def test_every_capture_has_its_facts() -> None:
    if not FOLDER.is_dir():
        pytest.skip(ABSENT)
    assert sorted(played()) == NAMES
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", NAMES)
def test_the_service_takes_it(name: str) -> None:
    assert of(name).refusal == ""


@pytest.mark.parametrize("name", NAMES)
def test_its_facts(name: str) -> None:
    paragraphs = GOLDEN.read_text().split("\n\n")
    expected = paragraphs[NAMES.index(name)].strip("\n").splitlines()
    found = list(facts(of(name)))
    changed = "\n".join(difflib.unified_diff(expected, found, "captures.txt", "now", lineterm=""))
    assert found == expected, f"write them again with tests/vectors/captures.py, if this is meant:\n{changed}"


def answering(body: bytes, kind: str) -> httpx2.Client:
    """A client that gets one answer, whatever it asks."""
    response = httpx2.Response(200, headers={"content-type": kind}, content=body)
    return httpx2.Client(transport=httpx2.MockTransport(lambda request: response))


QUESTION: Final[list[Any]] = [{"role": "user", "content": "Say it."}]
BASE: Final = "http://gateway.invalid"


def said(result: TurnResult) -> tuple[str, str, list[tuple[str, Any]]]:
    """Text, thoughts and calls."""
    return (
        "".join(block.text for block in result.content if isinstance(block, Text)),
        "".join(block.text for block in result.content if isinstance(block, Thought)),
        [(block.name, json.loads(block.arguments)) for block in result.content if isinstance(block, ToolCall)],
    )


def by_anthropic(client: httpx2.Client, *, streamed: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    sdk = anthropic.Anthropic(api_key="key", base_url=BASE, http_client=client, max_retries=0)
    if streamed:
        with sdk.messages.stream(model="m", max_tokens=9, messages=QUESTION) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = sdk.messages.create(model="m", max_tokens=9, messages=QUESTION)
    return (
        "".join(block.text for block in message.content if block.type == "text"),
        "".join(block.thinking for block in message.content if block.type == "thinking"),
        [(block.name, block.input) for block in message.content if block.type == "tool_use"],
    )


def by_chat(client: httpx2.Client, *, streamed: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    sdk = openai.OpenAI(api_key="key", base_url=BASE, http_client=client, max_retries=0)
    message: Any
    if streamed:
        with sdk.chat.completions.stream(model="m", messages=QUESTION) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = sdk.chat.completions.create(model="m", messages=QUESTION).choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return message.content or "", getattr(message, "reasoning_content", None) or "", calls


def by_responses(client: httpx2.Client, *, streamed: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    sdk = openai.OpenAI(api_key="key", base_url=BASE, http_client=client, max_retries=0)
    response: Any
    if streamed:
        manager: ResponseStreamManager[None] = sdk.responses.stream(model="m", input="Say it.")
        with manager as stream:
            response = stream.get_final_response()
    else:
        response = sdk.responses.create(model="m", input="Say it.")
    thoughts = [
        part.text for item in response.output if item.type == "reasoning" for part in item.content or item.summary
    ]
    calls = []
    for item in response.output:
        if item.type == "function_call":
            name = f"{item.namespace}__{item.name}" if getattr(item, "namespace", None) else item.name
            calls.append((name, json.loads(item.arguments)))
        elif item.type == "custom_tool_call":
            calls.append((item.name, {"input": item.input}))
    return response.output_text, "".join(thoughts), calls


READERS: Final = {"anthropic": by_anthropic, "openai_chat": by_chat, "openai_responses": by_responses}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", NAMES)
def test_its_answer_is_understood(name: str, streamed: bool) -> None:
    it = of(name)
    if it.capture.counts:
        return
    dialect, result = it.capture.dialect, fold(it.events)
    if streamed:
        writer = dialect.writer(it.request, HEADING)
        wire = b"".join(writer.heartbeat() + block for event in it.events for block in writer.write(event))
        client = answering(wire, "text/event-stream; charset=utf-8")
    else:
        client = answering(dialect.write_result(it.request, result, HEADING), "application/json")
    text, thoughts, calls = said(result)
    assert text or calls
    assert READERS[dialect.name](client, streamed=streamed) == (text, thoughts, calls)
