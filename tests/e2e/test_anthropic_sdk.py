"""The official Anthropic SDK against a running gateway, sync and async. The prompts steer the simulator behind it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from e2e.conftest import Running
from helpers.images import PNG
from helpers.pdfs import pdf

MODEL = "claude-sonnet-4.5"
TOOLS: list[ToolParam] = [
    {
        "name": name,
        "description": f"Does {name}.",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
    for name in ("read_file", "list_files")
]


@pytest.fixture
def client(gateway: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as made:
        yield made


def user(text: str) -> MessageParam:
    return {"role": "user", "content": text}


def said(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_text(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=100, messages=[user("[[say:hello 日本 😀]]")])
    assert said(answer) == "hello 日本 😀"
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", MODEL, "assistant")
    assert answer._request_id


def test_a_demo_prompt_without_directives_is_quoted(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=100, messages=[user("What is a fjord?")])
    assert "What is a fjord?" in said(answer)


def test_streaming(client: anthropic.Anthropic) -> None:
    text = 'A stream, in pieces: é 漢字 👩‍👩‍👧 "quoted" \\ back\n'
    prompt = "[[chunk:u16]][[say:" + text.replace("\\", "\\\\").replace("\n", "\\n") + "]]"
    with client.messages.stream(model=MODEL, max_tokens=100, messages=[user(prompt)]) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == said(final) == text
    assert len(pieces) > 5


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("chunk", ["1", "3", "100", "u16", "byte"])
def test_stop_sequences(client: anthropic.Anthropic, chunk: str, streamed: bool) -> None:
    prompt = f"[[chunk:{chunk}]][[think:STOP]][[say:one, 😀 ST STOP two]]"
    stop = ["never", "STOP"]
    answer: anthropic.types.Message
    if streamed:
        with client.messages.stream(
            model=MODEL, max_tokens=100, messages=[user(prompt)], stop_sequences=stop
        ) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(model=MODEL, max_tokens=100, messages=[user(prompt)], stop_sequences=stop)
    assert said(answer) == "one, 😀 ST "
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "STOP")


@pytest.mark.parametrize("streamed", [False, True])
def test_max_tokens(client: anthropic.Anthropic, streamed: bool) -> None:
    prompt = [user("[[tokens:500]]")]
    answer: anthropic.types.Message
    if streamed:
        with client.messages.stream(model=MODEL, max_tokens=50, messages=prompt) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(model=MODEL, max_tokens=50, messages=prompt)
    assert answer.stop_reason == "max_tokens"
    assert said(answer).startswith("w1 w2 w3")
    assert answer.usage.output_tokens == 50


def test_at_most_one_call(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        tools=TOOLS,
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        messages=[user('[[tool:read_file {"path":"a"}]][[tool:list_files]]')],
    )
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["read_file"]
    assert answer.stop_reason == "tool_use"


def test_raw_event_order(client: anthropic.Anthropic) -> None:
    events = [
        event.type
        for event in client.messages.create(
            model=MODEL, max_tokens=100, messages=[user("[[think:hm]][[say:yes]]")], stream=True
        )
    ]
    shrunk = [kind for i, kind in enumerate(events) if i == 0 or kind != events[i - 1]]
    assert shrunk == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_stop"] * 2,
        "message_delta",
        "message_stop",
    ]


def test_multi_turn_with_a_system_prompt(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        system="The word is swordfish.",
        messages=[
            user("My number is 7"),
            {"role": "assistant", "content": "Noted."},
            user("[[say:{{find:number is 7}} {{find:Noted.}} {{find:swordfish}} {{find:absent}}]]"),
        ],
    )
    assert said(answer) == "FOUND FOUND FOUND MISSING"


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_round_trip_with_parallel_calls(client: anthropic.Anthropic, streamed: bool) -> None:
    script = '[[say:Looking. ]][[tool:read_file {"path":"é😀.txt"}]][[tool:list_files]][[then:It says {{result}}]]'
    messages: list[MessageParam] = [user(script)]

    def ask() -> anthropic.types.Message:
        if streamed:
            with client.messages.stream(model=MODEL, max_tokens=100, messages=messages, tools=TOOLS) as stream:
                return stream.get_final_message()
        return client.messages.create(model=MODEL, max_tokens=100, messages=messages, tools=TOOLS)

    first = ask()
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in calls] == [("read_file", {"path": "é😀.txt"}), ("list_files", {})]
    assert len({call.id for call in calls}) == 2
    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": calls[0].id, "content": "buy milk"},
                {"type": "tool_result", "tool_use_id": calls[1].id, "content": [{"type": "text", "text": "a.txt"}]},
            ],
        },
    ]
    second = ask()
    assert said(second) == "It says buy milk\na.txt"
    assert second.stop_reason == "end_turn"


def test_image(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
                    },
                    {"type": "text", "text": "[[say:{{images}}]]"},
                ],
            }
        ],
    )
    assert said(answer) == f"1,png:{hashlib.sha256(PNG).hexdigest()[:8]}"


@pytest.mark.parametrize("script", ['[[say:{"title":"A"}]]', '[[tool:final_answer {"title":"A"}]]'])
def test_structured_output(client: anthropic.Anthropic, script: str) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
    }
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[user(script)],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert said(answer) == '{"title":"A"}'
    assert answer.stop_reason == "end_turn"


def test_documents(client: anthropic.Anthropic) -> None:
    data = base64.b64encode(pdf("the password is swordfish", "second page")).decode()
    found = "{{find:swordfish}} {{find:second page}} {{find:a plain text}} {{find:Page 3}}"
    answer = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": data},
                        "title": "secrets.pdf",
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "a plain text"},
                    },
                    {"type": "text", "text": f"[[say:{found}]]"},
                ],
            }
        ],
    )
    assert said(answer) == "FOUND FOUND FOUND MISSING"


def test_an_image_that_cannot_be_fetched_is_400(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="open internet"):
        client.messages.create(
            model=MODEL,
            max_tokens=100,
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://127.0.0.1/a.png"}}],
                }
            ],
        )


def test_thinking(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 2000},
        messages=[user("[[think:Let me see.]][[say:42]]")],
    )
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].type == "thinking"
    assert answer.content[0].thinking == "Let me see."
    again = client.messages.create(
        model=MODEL,
        max_tokens=4000,
        messages=[user("[[say:first]]"), {"role": "assistant", "content": answer.content}, user("[[say:on]]")],
    )
    assert said(again) == "on"


def test_usage(client: anthropic.Anthropic) -> None:
    short = client.messages.create(model=MODEL, max_tokens=100, messages=[user("[[tokens:10]]")]).usage
    long = client.messages.create(model=MODEL, max_tokens=100, messages=[user("x" * 40_000 + "[[tokens:400]]")]).usage
    assert 0 < short.input_tokens < long.input_tokens
    assert 0 < short.output_tokens < long.output_tokens
    assert long.input_tokens > 5_000


def test_wrong_key(gateway: Running) -> None:
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong", max_retries=0) as wrong,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        wrong.messages.create(model=MODEL, max_tokens=10, messages=[user("hi")])
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "wrong" not in str(caught.value.body).split("API key")[1]


def test_unknown_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match=r"claude-sonnet-4\.5"):
        client.messages.create(model="no-such-model", max_tokens=10, messages=[user("hi")])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("VALIDATION", anthropic.BadRequestError),
        ("CONTEXT", anthropic.BadRequestError),
        ("THROTTLE", anthropic.RateLimitError),
        ("QUOTA", anthropic.RateLimitError),
        ("ACCESS", anthropic.PermissionDeniedError),
        ("INTERNAL", anthropic.InternalServerError),
        ("UNAVAILABLE", anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_upstream_errors_keep_their_status(
    client: anthropic.Anthropic, name: str, error: type[anthropic.APIStatusError], streamed: bool
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(model=MODEL, max_tokens=10, messages=[user(f"[[error:{name}]]")], stream=streamed)
    assert caught.value.request_id
    if name == "CONTEXT":
        assert "too long" in str(caught.value)


def test_a_failure_that_passes_is_not_seen(client: anthropic.Anthropic) -> None:
    prompt = "[[fail:INTERNAL 2 anthropic-sync]][[say:after {{attempt}}]]"
    assert said(client.messages.create(model=MODEL, max_tokens=10, messages=[user(prompt)])) == "after 3"


def test_a_cut_stream_is_an_error(client: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(
            model=MODEL, max_tokens=10, messages=[user("[[chunk:2]][[cut:3]][[say:this is long enough]]")]
        ) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"model":"m"}',
        b'{"model":1,"messages":[]}',
        b"\xff",
        b'{"model":"m","max_tokens":1,"messages":[]}',
    ],
)
def test_malformed_bodies_are_400(client: anthropic.Anthropic, body: bytes) -> None:
    response = client._client.post("/v1/messages", content=body, headers={"x-api-key": client.api_key or ""})
    assert response.status_code == 400
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_count_tokens(client: anthropic.Anthropic) -> None:
    short = client.messages.count_tokens(model="any-model", messages=[user("foo")])
    tools = client.messages.count_tokens(model=MODEL, messages=[user("x" * 36_000)], tools=TOOLS, system="Be brief.")
    assert 0 < short.input_tokens < 20
    assert 7_000 < tools.input_tokens < 7_200
    beta = client.beta.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "foo"}])
    assert beta.input_tokens == short.input_tokens


@pytest.mark.parametrize("base", ["", "/v1", "/anthropic", "/anthropic/v1", "/openai/v1", "/"])
def test_base_urls(gateway: Running, base: str) -> None:
    with anthropic.Anthropic(base_url=gateway.url + base, api_key=gateway.key, max_retries=0) as made:
        answer = made.messages.create(model=MODEL, max_tokens=100, messages=[user("[[say:hello]]")])
        assert said(answer) == "hello"
        assert made.messages.count_tokens(model=MODEL, messages=[user("foo")]).input_tokens
        assert made.models.retrieve(MODEL).id == MODEL


def test_models(client: anthropic.Anthropic) -> None:
    models = list(client.models.list())
    assert "claude-sonnet-4.5" in [model.id for model in models]
    assert client.models.retrieve("claude-sonnet-4-5").id == "claude-sonnet-4.5"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nothing")


def test_async_client(gateway: Running) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
            answer = await client.messages.create(model=MODEL, max_tokens=9, messages=[user("[[say:whole]]")])
            assert said(answer) == "whole"
            async with client.messages.stream(
                model=MODEL, max_tokens=9, messages=[user("[[think:a]][[say:b]][[tool:read_file]]")], tools=TOOLS
            ) as stream:
                final = await stream.get_final_message()
            assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
            answers = await asyncio.gather(
                *(client.messages.create(model=MODEL, max_tokens=9, messages=[user(f"[[say:{n}]]")]) for n in range(20))
            )
            assert [said(each) for each in answers] == [str(n) for n in range(20)]
            for name, error in (("THROTTLE", anthropic.RateLimitError), ("VALIDATION", anthropic.BadRequestError)):
                with pytest.raises(error):
                    await client.messages.create(model=MODEL, max_tokens=9, messages=[user(f"[[error:{name}]]")])
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="none", max_tokens=9, messages=[user("hi")])
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="bad", max_retries=0) as wrong:
            with pytest.raises(anthropic.AuthenticationError):
                await wrong.messages.create(model=MODEL, max_tokens=9, messages=[user("hi")])

    asyncio.run(run())
