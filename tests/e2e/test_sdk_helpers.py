"""What the official Python SDKs build on top of a request: tool runners, shapes of pydantic models, and async clients.

The plain calls are in `test_anthropic_sdk.py` and `test_openai_sdk.py`. The prompts steer the simulator.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any, Final

import anthropic
import openai
import pydantic
import pytest
from anthropic import beta_async_tool, beta_tool

from e2e.conftest import Running
from helpers.images import PNG
from helpers.pdfs import pdf

MODEL: Final = "claude-sonnet-4.5"
PERSON: Final = '[[chunk:2]][[say:{"name":"Ada 😀","age":36}]]'
CALLING: Final = (
    '[[chunk:u16]][[say:Looking. ]][[tool:read_file {"path":"é😀.txt"}]][[tool:read_file {"path":"b"}]]'
    "[[then:It says {{result}}]]"
)
SAID: Final = "It says buy é😀.txt\nbuy b"
IMAGE: Final = base64.b64encode(PNG).decode()
DOCUMENT: Final = base64.b64encode(pdf("the password is swordfish")).decode()
SEEN: Final = f"1,png:{hashlib.sha256(PNG).hexdigest()[:8]} FOUND"
LOOK: Final = "[[say:{{images}} {{find:swordfish}}]]"


class Person(pydantic.BaseModel):
    name: str
    age: int


ADA: Final = Person(name="Ada 😀", age=36)


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


@beta_tool
def read_file(path: str) -> str:
    """Reads a file.

    Args:
        path: where it is.
    """
    return f"buy {path}"


@beta_async_tool(name="read_file")
async def read_file_later(path: str) -> str:
    """Reads a file.

    Args:
        path: where it is.
    """
    await asyncio.sleep(0)
    return f"buy {path}"


def words(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def with_anthropic(gateway: Running) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0)


def with_openai(gateway: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)


def test_anthropics_tool_runner(gateway: Running) -> None:
    """It asks for a conversation that the server keeps, is told that there is none, and sends everything itself."""
    with with_anthropic(gateway) as client:
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=100, tools=[read_file], messages=[user(CALLING)]
        )
        rounds = list(runner)
    assert [message.stop_reason for message in rounds] == ["tool_use", "end_turn"]
    assert words(rounds[-1]) == SAID


def test_anthropics_tool_runner_on_streams(gateway: Running) -> None:
    with with_anthropic(gateway) as client:
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=100, tools=[read_file], messages=[user(CALLING)], stream=True
        )
        rounds = [stream.get_final_message() for stream in runner]
    assert [message.stop_reason for message in rounds] == ["tool_use", "end_turn"]
    assert words(rounds[-1]) == SAID


def test_a_thread_is_refused_in_the_words_that_the_sdk_knows(gateway: Running) -> None:
    with with_anthropic(gateway) as client, pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(
            model=MODEL, max_tokens=9, messages=[user("hi")], extra_body={"thread": {"type": "create"}}
        )
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_anthropics_shapes(gateway: Running) -> None:
    with with_anthropic(gateway) as client:
        whole = client.messages.parse(model=MODEL, max_tokens=100, messages=[user(PERSON)], output_format=Person)
        assert whole.parsed_output == ADA
        with client.messages.stream(
            model=MODEL, max_tokens=100, messages=[user(PERSON)], output_format=Person
        ) as stream:
            streamed = stream.get_final_message()
        assert streamed.parsed_output == ADA


def test_chats_tools_by_stream(gateway: Running) -> None:
    """A tool with a pydantic model: the SDK parses the arguments itself, and only where they are whole."""

    class ReadFile(pydantic.BaseModel):
        path: str

    script = '[[chunk:1]][[tool:ReadFile {"path":"é😀.txt"}]]'
    tools = [openai.pydantic_function_tool(ReadFile)]
    with (
        with_openai(gateway) as client,
        client.chat.completions.stream(model=MODEL, messages=[user(script)], tools=tools) as stream,
    ):
        pieces = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    (call,) = calls
    assert call.function.parsed_arguments == ReadFile(path="é😀.txt")
    assert "".join(piece.arguments_delta for piece in pieces) == call.function.arguments
    assert len(pieces) > 5


def test_shapes_that_are_cut_off_are_not_parsed(gateway: Running) -> None:
    with with_openai(gateway) as client, pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL,
            messages=[user("[[tokens:400]]")],
            max_completion_tokens=10,
            tools=[openai.pydantic_function_tool(Person)],
        )


async def anthropic_scenarios(client: anthropic.AsyncAnthropic) -> None:
    create, stream = client.messages.create, client.messages.stream
    parsed = await client.messages.parse(model=MODEL, max_tokens=99, messages=[user(PERSON)], output_format=Person)
    assert parsed.parsed_output == ADA
    counted = await client.messages.count_tokens(model=MODEL, messages=[user("x" * 10_000)])
    assert 1_900 < counted.input_tokens < 2_100
    counts = await asyncio.gather(
        *(client.messages.count_tokens(model=MODEL, messages=[user("word " * n)]) for n in range(1, 36))
    )
    assert [count.input_tokens for count in counts] == sorted(count.input_tokens for count in counts)
    async with stream(
        model=MODEL, max_tokens=99, messages=[user("[[chunk:1]][[say:one STOP two]]")], stop_sequences=["STOP"]
    ) as answer:
        final = await answer.get_final_message()
    assert (words(final), final.stop_reason, final.stop_sequence) == ("one ", "stop_sequence", "STOP")
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    document = {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}
    seen = await create(
        model=MODEL,
        max_tokens=99,
        messages=[
            user(
                [
                    {"type": "image", "source": source},
                    {"type": "document", "source": document},
                    {"type": "text", "text": LOOK},
                ]
            )
        ],
    )
    assert words(seen) == SEEN
    runner = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=99, tools=[read_file_later], messages=[user(CALLING)]
    )
    assert words([message async for message in runner][-1]) == SAID
    with pytest.raises(anthropic.APIStatusError):
        async with stream(model=MODEL, max_tokens=99, messages=[user("[[cut:2]][[tokens:40]]")]) as answer:
            await answer.get_final_message()


async def chat_scenarios(client: openai.AsyncOpenAI) -> None:
    chat = client.chat.completions
    parsed = await chat.parse(model=MODEL, messages=[user(PERSON)], response_format=Person)
    assert parsed.choices[0].message.parsed == ADA
    async with chat.stream(model=MODEL, messages=[user(PERSON)], response_format=Person) as stream:
        assert (await stream.get_final_completion()).choices[0].message.parsed == ADA
    chunks = await chat.create(
        model=MODEL, messages=[user("[[chunk:1]][[say:one STOP two]]")], stop="STOP", stream=True
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == "one "
    seen = await chat.create(
        model=MODEL,
        messages=[
            user(
                [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
                    {
                        "type": "file",
                        "file": {"file_data": f"data:application/pdf;base64,{DOCUMENT}", "filename": "a.pdf"},
                    },
                    {"type": "text", "text": LOOK},
                ]
            )
        ],
    )
    assert seen.choices[0].message.content == SEEN
    tools: Any = [{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}]
    messages = [user(CALLING)]
    async with chat.stream(model=MODEL, messages=messages, tools=tools) as stream:
        message = (await stream.get_final_completion()).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls or ():
        result = f"buy {json.loads(call.function.arguments)['path']}"
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    again = await chat.create(model=MODEL, messages=messages, tools=tools)
    assert again.choices[0].message.content == SAID
    broken = await chat.create(model=MODEL, messages=[user("[[cut:2]][[tokens:40]]")], stream=True)
    with pytest.raises(openai.APIError):
        await anext(chunk async for chunk in broken if chunk.choices[0].finish_reason)


def test_anthropics_async_client(gateway: Running) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
            await anthropic_scenarios(client)

    asyncio.run(run())


def test_openais_async_client(gateway: Running) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            await chat_scenarios(client)

    asyncio.run(run())


def test_the_sdks_repeat_what_may_pass(gateway: Running) -> None:
    """Where the gateway's own tries are used up, the SDK's come: a 429 is repeated, spent credits are not."""
    again = "[[fail:THROTTLE 1 {}]][[say:after {{{{attempt}}}}]]"
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=1) as client:
        prompt = user(again.format("helpers-anthropic"))
        assert words(client.messages.create(model=MODEL, max_tokens=9, messages=[prompt])) == "after 2"
        with pytest.raises(anthropic.RateLimitError) as spent:
            client.messages.create(model=MODEL, max_tokens=9, messages=[user("[[error:QUOTA]]")])
    assert spent.value.response.headers["x-should-retry"] == "false"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=1) as chat:
        prompt = user(again.format("helpers-openai"))
        answer = chat.chat.completions.create(model=MODEL, messages=[prompt])
        assert answer.choices[0].message.content == "after 2"
        with pytest.raises(openai.RateLimitError) as out:
            chat.chat.completions.create(model=MODEL, messages=[user("[[error:QUOTA]]")])
    assert out.value.response.headers["x-should-retry"] == "false"
