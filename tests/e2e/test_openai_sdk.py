"""The official OpenAI SDK against a running gateway, sync and async. The prompts steer the simulator behind it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator

import openai
import pydantic
import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
    completion_create_params,
)

from e2e.conftest import Running
from helpers.images import PNG
from helpers.pdfs import pdf

MODEL = "claude-sonnet-4-5"
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
    for name in ("read_file", "list_files")
]


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def said(answer: ChatCompletion) -> str | None:
    return answer.choices[0].message.content


def test_text(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[user("[[say:hello 日本 😀]]")])
    assert said(answer) == "hello 日本 😀"
    assert (answer.choices[0].finish_reason, answer.model, answer.object) == ("stop", MODEL, "chat.completion")
    assert answer._request_id


def test_several_choices(client: openai.OpenAI) -> None:
    messages = [user("[[tokens:20]]")]
    one = client.chat.completions.create(model=MODEL, messages=messages)
    three = client.chat.completions.create(model=MODEL, messages=messages, n=3)
    text = said(one)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert [choice.message.content for choice in three.choices] == [text] * 3
    assert one.usage is not None
    assert three.usage is not None
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert three.usage.prompt_tokens < 2 * one.usage.prompt_tokens


def test_several_choices_in_one_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[user("[[slow:2]][[think:hm]][[tokens:20]][[tool:read_file]]")],
            tools=TOOLS,
            n=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = ["", "", ""]
    order = []
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        said[choice.index] += choice.delta.content or ""
        order.append(choice.index)
    assert said == [" ".join(f"w{i}" for i in range(1, 21))] * 3
    assert order != sorted(order)
    finished = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason]
    assert finished == ["tool_calls"] * 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_choices_that_fail(client: openai.OpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="most_choices"):
        create(model=MODEL, messages=[user("hi")], n=1000)
    for streamed in (False, True):
        with pytest.raises(openai.RateLimitError):
            create(model=MODEL, messages=[user("[[error:THROTTLE]]")], n=2, stream=streamed)
    with pytest.raises(openai.APIError):
        list(create(model=MODEL, messages=[user("[[slow:1]][[cut:5]][[tokens:90]]")], n=2, stream=True))


def test_legacy_functions(client: openai.OpenAI) -> None:
    script = 'Look. [[tool:read_file {"path":"a"}]][[tool:read_file {"path":"b"}]][[then:It says {{result}}]]'
    functions: list[completion_create_params.Function] = [
        {"name": "read_file", "description": "Reads.", "parameters": {"type": "object"}}
    ]
    messages: list[ChatCompletionMessageParam] = [user(script)]
    first = client.chat.completions.create(model=MODEL, messages=messages, functions=functions)
    call = first.choices[0].message.function_call
    assert first.choices[0].finish_reason == "function_call"
    assert first.choices[0].message.tool_calls is None
    assert call is not None
    assert (call.name, json.loads(call.arguments)) == ("read_file", {"path": "a"})
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, functions=functions, stream=True))
    deltas = [chunk.choices[0].delta.function_call for chunk in chunks]
    assert "".join((delta.arguments or "") for delta in deltas if delta) == call.arguments
    assert chunks[-1].choices[0].finish_reason == "function_call"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_custom_tool(client: openai.OpenAI, streamed: bool) -> None:
    body = {
        "model": MODEL,
        "messages": [user('[[tool:patch {"input":"say \\"é😀\\""}]]')],
        "tools": [{"type": "custom", "custom": {"name": "patch", "description": "Patches."}}],
        "stream": streamed,
    }
    headers = {"authorization": f"Bearer {client.api_key}"}
    response = client._client.post("/chat/completions", json=body, headers=headers)
    if not streamed:
        (call,) = response.json()["choices"][0]["message"]["tool_calls"]
        assert call["type"] == "custom"
        assert call["custom"] == {"name": "patch", "input": 'say "é😀"'}
        return
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    parts = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert "".join(part["custom"]["input"] for part in parts) == 'say "é😀"'
    assert parts[0]["custom"]["name"] == "patch"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_responses_body_on_the_path_of_chat(client: openai.OpenAI) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    body = {"model": MODEL, "input": [{"role": "user", "content": "[[say:hello]]"}]}
    answer = client._client.post("/chat/completions", json=body, headers=headers).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "hello"


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize(
    "script", ['[[say:{"name":"Ada","age":36}]]', '[[say:Sure.]][[tool:final_answer {"name":"Ada","age":36}]]']
)
def test_structured_output(client: openai.OpenAI, script: str) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=[user(script)], response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)
    assert answer.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(model=MODEL, messages=[user(script)], response_format=Person) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == Person(name="Ada", age=36)


def test_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[user('[[say:Here it is: {"a": 1}]]')], response_format={"type": "json_object"}
    )
    assert json.loads(said(answer) or "") == {"a": 1}


def test_an_answer_that_stays_out_of_shape_is_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="age is missing"):
        client.chat.completions.parse(
            model=MODEL, messages=[user('[[say:{"name":"Ada"}]][[next]][[say:{"name":"Ada"}]]')], response_format=Person
        )


def test_a_document(client: openai.OpenAI) -> None:
    data = "data:application/pdf;base64," + base64.b64encode(pdf("the password is swordfish")).decode()
    message: ChatCompletionMessageParam = {
        "role": "user",
        "content": [
            {"type": "file", "file": {"file_data": data, "filename": "a.pdf"}},
            {"type": "text", "text": "[[say:{{find:swordfish}}]]"},
        ],
    }
    assert said(client.chat.completions.create(model=MODEL, messages=[message])) == "FOUND"


def test_an_image_that_cannot_be_fetched_names_its_place(client: openai.OpenAI) -> None:
    message: ChatCompletionMessageParam = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "https://169.254.169.254/latest"}}],
    }
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[message])
    assert caught.value.param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize("chunk", ["1", "100", "byte"])
def test_stop(client: openai.OpenAI, chunk: str) -> None:
    prompt = [user(f"[[chunk:{chunk}]][[say:one, 😀 ST STOP two]]")]
    whole = client.chat.completions.create(model=MODEL, messages=prompt, stop="STOP")
    assert (said(whole), whole.choices[0].finish_reason) == ("one, 😀 ST ", "stop")
    chunks = list(client.chat.completions.create(model=MODEL, messages=prompt, stop=["x", "STOP"], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one, 😀 ST "
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_max_completion_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[user("[[tokens:500]]")], max_tokens=5000, max_completion_tokens=20
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20


def test_streaming(client: openai.OpenAI) -> None:
    text = 'A stream, in pieces: é 漢字 👩‍👩‍👧 "quoted" \\ back\n'
    prompt = "[[chunk:u16]][[say:" + text.replace("\\", "\\\\").replace("\n", "\\n") + "]]"
    chunks = list(client.chat.completions.create(model=MODEL, messages=[user(prompt)], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_multi_turn_with_a_system_prompt(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "The word is swordfish."},
            user("My number is 7"),
            {"role": "assistant", "content": "Noted."},
            {"role": "developer", "content": "Late advice."},
            user(
                "[[say:{{find:number is 7}} {{find:Noted.}} {{find:swordfish}} {{find:Late advice}} {{find:absent}}]]"
            ),
        ],
    )
    assert said(answer) == "FOUND FOUND FOUND FOUND MISSING"


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_round_trip_with_parallel_calls(client: openai.OpenAI, streamed: bool) -> None:
    script = '[[say:Looking. ]][[tool:read_file {"path":"é😀.txt"}]][[tool:list_files]][[then:It says {{result}}]]'
    messages: list[ChatCompletionMessageParam] = [user(script)]

    def ask() -> ChatCompletion:
        if streamed:
            with client.chat.completions.stream(model=MODEL, messages=messages, tools=TOOLS) as stream:
                return stream.get_final_completion()
        return client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)

    first = ask()
    calls = first.choices[0].message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls"
    functions = [call.function for call in calls if call.type == "function"]
    assert [(each.name, json.loads(each.arguments)) for each in functions] == [
        ("read_file", {"path": "é😀.txt"}),
        ("list_files", {}),
    ]
    messages += [
        {
            "role": "assistant",
            "content": said(first),
            "tool_calls": [
                {"id": call.id, "type": "function", "function": {"name": f.name, "arguments": f.arguments}}
                for call, f in zip(calls, functions, strict=True)
            ],
        },
        {"role": "tool", "tool_call_id": calls[0].id, "content": "buy milk"},
        {"role": "tool", "tool_call_id": calls[1].id, "content": [{"type": "text", "text": "a.txt"}]},
    ]
    second = ask()
    assert said(second) == "It says buy milk\na.txt"
    assert second.choices[0].finish_reason == "stop"


def test_only_tools_is_no_content(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[user("[[tool:list_files]]")], tools=TOOLS)
    assert said(answer) is None


def test_image(client: openai.OpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "[[say:{{images}}]]"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            }
        ],
    )
    assert said(answer) == f"1,png:{hashlib.sha256(PNG).hexdigest()[:8]}"


def test_thinking(client: openai.OpenAI) -> None:
    prompt = "[[think:Let me see.]][[say:42]]"
    answer = client.chat.completions.create(model=MODEL, messages=[user(prompt)], reasoning_effort="high")
    assert said(answer) == "42"
    assert (answer.choices[0].message.model_extra or {})["reasoning_content"] == "Let me see."
    chunks = client.chat.completions.create(model=MODEL, messages=[user(prompt)], stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join((each.model_extra or {}).get("reasoning_content") or "" for each in deltas) == "Let me see."
    assert "".join(each.content or "" for each in deltas) == "42"


def test_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[user("x" * 40_000 + "[[tokens:100]]")])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5_000
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[user("[[tokens:100]]")], stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 50
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_wrong_key(gateway: Running) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided") as caught:
            wrong.chat.completions.create(model=MODEL, messages=[user("hi")])
        assert caught.value.code == "invalid_api_key"


def test_unknown_model(client: openai.OpenAI) -> None:
    for _ in range(2):  # the first time the upstream says it, the second time it is known
        with pytest.raises(openai.NotFoundError, match=r"claude-sonnet-4\.5") as caught:
            client.chat.completions.create(model="no-such-model", messages=[user("hi")])
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("VALIDATION", openai.BadRequestError, None),
        ("CONTEXT", openai.BadRequestError, "context_length_exceeded"),
        ("THROTTLE", openai.RateLimitError, "rate_limit_exceeded"),
        ("QUOTA", openai.RateLimitError, "insufficient_quota"),
        ("ACCESS", openai.PermissionDeniedError, None),
        ("INTERNAL", openai.InternalServerError, None),
        ("UNAVAILABLE", openai.InternalServerError, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_upstream_errors_keep_their_status(
    client: openai.OpenAI, name: str, error: type[openai.APIStatusError], code: str | None, streamed: bool
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model=MODEL, messages=[user(f"[[error:{name}]]")], stream=streamed)
    assert caught.value.request_id
    if code:
        assert caught.value.code == code


def test_a_failure_that_passes_is_not_seen(client: openai.OpenAI) -> None:
    prompt = "[[fail:INTERNAL 2 openai-sync]][[say:after {{attempt}}]]"
    assert said(client.chat.completions.create(model=MODEL, messages=[user(prompt)])) == "after 3"


def test_a_cut_stream_is_an_error(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model=MODEL, messages=[user("[[chunk:2]][[cut:3]][[say:this is long enough]]")], stream=True
    )
    with pytest.raises(openai.APIError):
        list(chunks)


def test_a_cut_whole_answer_is_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=[user("[[chunk:2]][[cut:3]][[say:this is long enough]]")])


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"model":"m"}', b'{"model":1,"messages":[]}', b"\xff", b'{"model":"m","messages":[]}']
)
def test_malformed_bodies_are_400(client: openai.OpenAI, body: bytes) -> None:
    response = client._client.post(
        "/chat/completions", content=body, headers={"authorization": f"Bearer {client.api_key}"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("base", ["", "/v1", "/v1/", "/v1/v1", "/openai/v1", "/openai", "/anthropic/v1"])
def test_base_urls(gateway: Running, base: str) -> None:
    with openai.OpenAI(base_url=gateway.url + base, api_key=gateway.key, max_retries=0) as made:
        assert said(made.chat.completions.create(model=MODEL, messages=[user("[[say:hello]]")])) == "hello"
        assert made.models.retrieve("claude-sonnet-4.5").id == "claude-sonnet-4.5"


def test_what_kiro_does_not_have_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="chat/completions"):
        client.completions.create(model=MODEL, prompt="Once")
    with pytest.raises(openai.NotFoundError, match="embeddings"):
        client.embeddings.create(model=MODEL, input="x")


def test_models(client: openai.OpenAI) -> None:
    assert "claude-sonnet-4.5" in [model.id for model in client.models.list()]
    assert client.models.retrieve("claude-sonnet-4.5").id == "claude-sonnet-4.5"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_async_client(gateway: Running) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            create = client.chat.completions.create
            assert said(await create(model=MODEL, messages=[user("[[say:whole]]")])) == "whole"
            stream = await create(model=MODEL, messages=[user("[[think:a]][[say:b]]")], stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "b"
            answers = await asyncio.gather(*(create(model=MODEL, messages=[user(f"[[say:{n}]]")]) for n in range(20)))
            assert [said(each) for each in answers] == [str(n) for n in range(20)]
            for name, error in (("THROTTLE", openai.RateLimitError), ("VALIDATION", openai.BadRequestError)):
                with pytest.raises(error):
                    await create(model=MODEL, messages=[user(f"[[error:{name}]]")])
            with pytest.raises(openai.NotFoundError):
                await create(model="none", messages=[user("hi")])
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="bad", max_retries=0) as wrong:
            with pytest.raises(openai.AuthenticationError):
                await wrong.chat.completions.create(model=MODEL, messages=[user("hi")])

    asyncio.run(run())
