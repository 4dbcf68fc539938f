"""Foreign check: the official SDKs decode what the writers write, and say the same turn.

The SDKs get their bytes from a transport in memory; nothing listens anywhere.
"""

from __future__ import annotations

import json
from typing import Any, Final

import anthropic
import httpx2
import openai
import pytest

from kirostream.dialects import DIALECTS
from kirostream.dialects.hints import LONG_WAIT
from kirostream.errors import (
    AccountThrottled,
    ContextOverflow,
    KeyRejected,
    KirostreamError,
    MalformedRequest,
    QuotaSpent,
    UpstreamOverloaded,
)
from kirostream.turn.events import TurnEnded, TurnEvent
from kirostream.turn.request import Text, Thought, ToolCall
from kirostream.turn.result import TurnResult, fold
from vectors.regenerate import HEADING, REQUEST, turns

TURNS: Final = turns()
WHOLE: Final = [case for case, events in TURNS.items() if isinstance(events[-1], TurnEnded)]
CUT_SHORT: Final = ("max_tokens", "context_full", "refusal")
"""OpenAI's helper raises on their finish reasons, which is what a client asked for by using it."""

BASE: Final = "http://gateway.invalid"


def streamed(name: str, events: list[TurnEvent]) -> httpx2.Response:
    writer = DIALECTS[name].writer(REQUEST, HEADING)
    wire = b"".join(writer.heartbeat() + block for event in events for block in writer.write(event))
    return httpx2.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=wire)


def whole(name: str, result: TurnResult) -> httpx2.Response:
    body = DIALECTS[name].write_result(REQUEST, result, HEADING)
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)


def refused(name: str, error: KirostreamError) -> httpx2.Response:
    reply = DIALECTS[name].write_error(error, "req_1")
    headers = [(key.decode(), value.decode()) for key, value in reply.headers]
    return httpx2.Response(reply.status, headers=headers, content=reply.body)


class Answering:
    """A transport that answers every request alike, and counts them."""

    def __init__(self, response: httpx2.Response) -> None:
        self.requests: list[httpx2.Request] = []
        self._response = response

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self._response

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))


def ask_anthropic(response: httpx2.Response) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="key", base_url=BASE, http_client=Answering(response).client(), max_retries=0)


def ask_openai(response: httpx2.Response) -> openai.OpenAI:
    return openai.OpenAI(api_key="key", base_url=BASE, http_client=Answering(response).client(), max_retries=0)


QUESTION: Final[list[Any]] = [{"role": "user", "content": "Say it."}]


def message_content(message: anthropic.types.Message) -> list[Any]:
    return [block.model_dump(exclude_none=True) for block in message.content]


def expected_content(result: TurnResult) -> list[Any]:
    content: list[Any] = []
    for block in result.content:
        match block:
            case Text(text=text):
                content.append({"type": "text", "text": text})
            case Thought(redacted=data) if data:
                content.append({"type": "redacted_thinking", "data": data})
            case Thought(text=text, signature=signature):
                content.append({"type": "thinking", "thinking": text, "signature": signature})
            case ToolCall(id=call_id, name=name, arguments=arguments):
                content.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)})
    return content


@pytest.mark.parametrize("case", WHOLE)
def test_anthropic_accumulates_the_stream(case: str) -> None:
    result = fold(TURNS[case])
    client = ask_anthropic(streamed("anthropic", TURNS[case]))
    with client.messages.stream(model=REQUEST.model, max_tokens=100, messages=QUESTION) as stream:
        message = stream.get_final_message()
    assert message_content(message) == expected_content(result)
    assert (message.id, message.model, message.role) == ("msg_0123456789abcdef01234567", REQUEST.model, "assistant")
    assert message.stop_sequence == (result.stop_sequence or None)
    assert message.usage.input_tokens == result.usage.input_tokens
    assert message.usage.output_tokens == result.usage.output_tokens
    assert message.usage.cache_read_input_tokens == result.usage.cache_read_tokens
    assert (message.stop_reason == "tool_use") == any(isinstance(block, ToolCall) for block in result.content)


@pytest.mark.parametrize("case", WHOLE)
def test_anthropic_reads_the_whole_answer(case: str) -> None:
    result = fold(TURNS[case])
    client = ask_anthropic(whole("anthropic", result))
    message = client.messages.create(model=REQUEST.model, max_tokens=100, messages=QUESTION)
    assert message_content(message) == expected_content(result)


@pytest.mark.parametrize("case", [case for case in WHOLE if case not in CUT_SHORT])
def test_openai_accumulates_the_stream(case: str) -> None:
    result = fold(TURNS[case])
    client = ask_openai(streamed("openai_chat", TURNS[case]))
    with client.chat.completions.stream(model=REQUEST.model, messages=QUESTION) as stream:
        completion = stream.get_final_completion()
    check_completion(completion, result)


@pytest.mark.parametrize("case", CUT_SHORT)
def test_openai_raises_for_an_answer_cut_short(case: str) -> None:
    client = ask_openai(streamed("openai_chat", TURNS[case]))
    with (
        client.chat.completions.stream(model=REQUEST.model, messages=QUESTION) as stream,
        pytest.raises((openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError)),
    ):
        stream.get_final_completion()


@pytest.mark.parametrize("case", WHOLE)
def test_openai_reads_the_chunks(case: str) -> None:
    result = fold(TURNS[case])
    client = ask_openai(streamed("openai_chat", TURNS[case]))
    chunks = list(client.chat.completions.create(model=REQUEST.model, messages=QUESTION, stream=True))
    assert {chunk.id for chunk in chunks} == {"chatcmpl-0123456789abcdef0123456789abcdef"}
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert "".join(delta.content or "" for delta in deltas) == text_of(result)
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == thought_of(result)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == result.usage.prompt_tokens
    assert not any(chunk.usage for chunk in chunks[:-1])


@pytest.mark.parametrize("case", WHOLE)
def test_openai_reads_the_whole_answer(case: str) -> None:
    result = fold(TURNS[case])
    client = ask_openai(whole("openai_chat", result))
    check_completion(client.chat.completions.create(model=REQUEST.model, messages=QUESTION), result)


def text_of(result: TurnResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, Text))


def thought_of(result: TurnResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, Thought))


def check_completion(completion: Any, result: TurnResult) -> None:
    (choice,) = completion.choices
    assert (choice.message.content or "") == text_of(result)
    assert (getattr(choice.message, "reasoning_content", None) or "") == thought_of(result)
    calls = [block for block in result.content if isinstance(block, ToolCall)]
    said = [
        (call.id, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()
    ]
    assert said == [(call.id, call.name, json.loads(call.arguments)) for call in calls]
    assert (choice.finish_reason == "tool_calls") == bool(calls)
    assert completion.usage.total_tokens == result.usage.total_tokens


def test_anthropic_raises_what_fails_in_the_stream() -> None:
    client = ask_anthropic(streamed("anthropic", TURNS["failed"]))
    with (
        client.messages.stream(model=REQUEST.model, max_tokens=100, messages=QUESTION) as stream,
        pytest.raises(anthropic.APIStatusError, match="no capacity"),
    ):
        stream.get_final_message()


def test_openai_raises_what_fails_in_the_stream() -> None:
    client = ask_openai(streamed("openai_chat", TURNS["failed"]))
    chunks = client.chat.completions.create(model=REQUEST.model, messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="no capacity"):
        list(chunks)


@pytest.mark.parametrize(
    ("error", "raised", "chat_raised"),
    [
        (MalformedRequest("M"), anthropic.BadRequestError, openai.BadRequestError),
        (ContextOverflow("M"), anthropic.BadRequestError, openai.BadRequestError),
        (KeyRejected("M"), anthropic.AuthenticationError, openai.AuthenticationError),
        (AccountThrottled("M"), anthropic.RateLimitError, openai.RateLimitError),
    ],
)
def test_the_sdks_raise_the_class_that_is_meant(
    error: KirostreamError,
    raised: type[anthropic.APIStatusError],
    chat_raised: type[openai.APIStatusError],
) -> None:
    client = ask_anthropic(refused("anthropic", error))
    with pytest.raises(raised) as caught:
        client.messages.create(model=REQUEST.model, max_tokens=100, messages=QUESTION)
    assert caught.value.request_id == "req_1"
    chat = ask_openai(refused("openai_chat", error))
    with pytest.raises(chat_raised) as chat_caught:
        chat.chat.completions.create(model=REQUEST.model, messages=QUESTION)
    assert chat_caught.value.request_id == "req_1"


def test_a_refused_key_is_not_tried_again() -> None:
    answering = Answering(refused("anthropic", KeyRejected("No.")))
    client = anthropic.Anthropic(api_key="key", base_url=BASE, http_client=answering.client(), max_retries=2)
    with pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model=REQUEST.model, max_tokens=100, messages=QUESTION)
    assert len(answering.requests) == 1


class AnsweringInTurn(Answering):
    """A transport that refuses once, then answers."""

    def __init__(self, first: httpx2.Response, then: httpx2.Response) -> None:
        super().__init__(then)
        self._first = first

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().__call__(request)
        return self._first if len(self.requests) == 1 else answer


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (AccountThrottled("Wait.", retry_after=0.01), 2),
        (UpstreamOverloaded("Full.", retry_after=0.01), 2),
        (AccountThrottled("Wait for long.", retry_after=LONG_WAIT + 1), 1),
        (QuotaSpent("Spent.", retry_after=0.01), 1),
        (ContextOverflow("Too long."), 1),
        (KeyRejected("No."), 1),
    ],
    ids=lambda value: getattr(value, "message", None),
)
def test_the_sdks_wait_as_they_are_told_or_not_at_all(error: KirostreamError, tries: int) -> None:
    result = fold(TURNS["text"])
    for name in ("anthropic", "openai_chat"):
        answering = AnsweringInTurn(refused(name, error), whole(name, result))
        try:
            if name == "anthropic":
                sdk = anthropic.Anthropic(api_key="key", base_url=BASE, http_client=answering.client(), max_retries=1)
                sdk.messages.create(model=REQUEST.model, max_tokens=100, messages=QUESTION)
            else:
                chat = openai.OpenAI(api_key="key", base_url=BASE, http_client=answering.client(), max_retries=1)
                chat.chat.completions.create(model=REQUEST.model, messages=QUESTION)
        except (anthropic.APIStatusError, openai.APIStatusError):
            assert tries == 1
        assert len(answering.requests) == tries, name
