"""The official OpenAI SDK against a running gateway, Responses API, sync and async; and Codex's requests, replayed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import openai
import pydantic
import pytest
from openai.types.responses import Response

from e2e.conftest import Running
from helpers.images import PNG

MODEL: Final = "claude-sonnet-4-5"
CAPTURES: Final = Path(__file__).parents[3] / "shared" / "captures"
IMAGE: Final[Any] = {
    "type": "input_image",
    "detail": "auto",
    "image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
}
SEEN: Final = f"1,png:{hashlib.sha256(PNG).hexdigest()[:8]}"
TOOLS: Final[Any] = [
    {
        "type": "function",
        "name": name,
        "description": f"Does {name}.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        "strict": False,
    }
    for name in ("read_file", "list_files")
]


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, prompt: Any, **more: Any) -> Response:
    answer = client.responses.create(model=MODEL, input=prompt, **more)
    assert isinstance(answer, Response)
    return answer


def test_text(client: openai.OpenAI) -> None:
    answer = ask(client, "[[say:hello 日本 😀]]", store=False)
    assert answer.output_text == "hello 日本 😀"
    assert (answer.status, answer.model, answer.object) == ("completed", MODEL, "response")
    assert answer.completed_at is not None
    assert answer.created_at <= answer.completed_at <= answer.created_at + 60
    assert answer._request_id


def test_streaming(client: openai.OpenAI) -> None:
    text = 'A stream, in pieces: é 漢字 👩‍👩‍👧 "quoted" \\ back\n'
    prompt = "[[chunk:u16]][[say:" + text.replace("\\", "\\\\").replace("\n", "\\n") + "]]"
    with client.responses.stream(model=MODEL, input=prompt, store=False) as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


def test_multi_turn_with_instructions(client: openai.OpenAI) -> None:
    needles = ("number is 7", "Noted.", "swordfish", "Late advice", "absent")
    prompt: Any = [
        {"role": "user", "content": "My number is 7"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Noted."}]},
        {"role": "developer", "content": "Late advice."},
        {"role": "user", "content": "[[say:" + " ".join(f"{{{{find:{needle}}}}}" for needle in needles) + "]]"},
    ]
    answer = ask(client, prompt, instructions="The word is swordfish.", store=False)
    assert answer.output_text == "FOUND FOUND FOUND FOUND MISSING"
    assert answer.instructions == "The word is swordfish."


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_round_trip_with_parallel_calls(client: openai.OpenAI, streamed: bool) -> None:
    script = '[[say:Looking. ]][[tool:read_file {"path":"é😀.txt"}]][[tool:list_files]][[then:It says {{result}}]]'
    said: list[Any] = [{"role": "user", "content": script}]

    def turn() -> Any:
        if streamed:
            with client.responses.stream(model=MODEL, input=said, tools=TOOLS, store=False) as stream:
                return stream.get_final_response()
        return ask(client, said, tools=TOOLS, store=False)

    first = turn()
    assert first.output_text == "Looking. "
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("read_file", {"path": "é😀.txt"}),
        ("list_files", {}),
    ]
    said += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
    said += [
        {"type": "function_call_output", "call_id": calls[0].call_id, "output": "buy milk"},
        {
            "type": "function_call_output",
            "call_id": calls[1].call_id,
            "output": [{"type": "input_text", "text": "a.txt"}],
        },
    ]
    assert turn().output_text == "It says buy milk\na.txt"


def test_custom_tools_and_namespaces(client: openai.OpenAI) -> None:
    patch = '*** Begin Patch\n+é😀 "q" \\ \n*** End Patch'
    script = (
        f'[[tool:apply_patch {json.dumps({"input": patch})}]][[tool:agents__spawn {{"n":1}}]][[then:{{{{result}}}}]]'
    )
    tools: Any = [
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [{**TOOLS[0], "name": "spawn"}]},
        {"type": "web_search", "external_web_access": False},
    ]
    said: list[Any] = [{"role": "user", "content": script}]
    first = ask(client, said, tools=tools, store=False)
    custom, spawned = first.output
    assert custom.type == "custom_tool_call"
    assert (custom.name, custom.input) == ("apply_patch", patch)
    assert spawned.type == "function_call"
    assert (spawned.name, spawned.namespace, spawned.arguments) == ("spawn", "agents", '{"n":1}')
    said += [item.model_dump(exclude_none=True) for item in first.output]
    said += [
        {"type": "custom_tool_call_output", "call_id": custom.call_id, "output": "patched"},
        {"type": "function_call_output", "call_id": spawned.call_id, "output": "spawned"},
    ]
    assert ask(client, said, tools=tools, store=False).output_text == "patched\nspawned"


def test_images_also_in_results(client: openai.OpenAI) -> None:
    content = [{"type": "input_text", "text": "[[say:{{images}}]]"}, IMAGE]
    assert ask(client, [{"role": "user", "content": content}], store=False).output_text == SEEN
    said: list[Any] = [
        {"role": "user", "content": "[[tool:read_file]][[then:{{images}}]]"},
        {"type": "function_call", "call_id": "c1", "name": "read_file", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [IMAGE]},
    ]
    assert ask(client, said, tools=TOOLS, store=False).output_text == SEEN


def test_reasoning_goes_out_and_comes_back(client: openai.OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": "[[think:Let me see.]][[say:42]]"}]
    more: Any = {"store": False, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "high"}}
    answer = ask(client, said, **more)
    thought, message = answer.output
    assert thought.type == "reasoning"
    assert [part.text for part in thought.summary] == ["Let me see."]
    assert thought.encrypted_content
    assert message.type == "message"
    said += [thought.model_dump(exclude_none=True), message.model_dump(exclude_none=True)]
    said.append({"role": "user", "content": "[[say:{{find:42}}]]"})
    assert ask(client, said, **more).output_text == "FOUND"
    with client.responses.stream(model=MODEL, input=said[0]["content"], store=False) as stream:
        deltas = [event.delta for event in stream if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == "Let me see."


def test_an_answer_in_a_shape(client: openai.OpenAI) -> None:
    class City(pydantic.BaseModel):
        name: str
        people: int

    prompt = '[[tool:final_answer {"name":"東京","people":14}]]'
    answer = client.responses.parse(model=MODEL, input=prompt, text_format=City, store=False)
    assert answer.output_parsed == City(name="東京", people=14)
    with client.responses.stream(model=MODEL, input=prompt, text_format=City, store=False) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed


@pytest.mark.parametrize("streamed", [False, True])
def test_a_limit_makes_an_answer_incomplete(client: openai.OpenAI, streamed: bool) -> None:
    more: Any = {"model": MODEL, "input": "[[tokens:500]]", "max_output_tokens": 40, "store": False}
    if streamed:
        last: Any = list(client.responses.create(**more, stream=True))[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    else:
        answer = client.responses.create(**more)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text.startswith("w1 w2")
    assert "w400" not in answer.output_text
    assert answer.completed_at is None


def test_one_call_where_parallel_ones_are_off(client: openai.OpenAI) -> None:
    script = "[[tool:read_file]][[tool:list_files]]"
    both = ask(client, script, tools=TOOLS, store=False)
    one = ask(client, script, tools=TOOLS, parallel_tool_calls=False, store=False)
    assert [len(answer.output) for answer in (both, one)] == [2, 1]
    assert [item.type for item in ask(client, script, tools=TOOLS, tool_choice="none", store=False).output] == [
        "message"
    ]


def test_a_call_that_breaks_off_is_not_run(client: openai.OpenAI) -> None:
    script = f"[[say:Writing. ]][[tool:apply_patch {json.dumps({'input': 'x' * 400})}]][[fault:unstopped]]"
    tools: Any = [{"type": "custom", "name": "apply_patch"}]
    *events, last = client.responses.create(model=MODEL, input=script, tools=tools, stream=True, store=False)
    assert last.type == "response.failed"
    assert [item.type for item in last.response.output] == ["message"]
    assert [event.item.type for event in events if event.type == "response.output_item.done"] == ["message"]
    assert [event.item.type for event in events if event.type == "response.output_item.added"][1:] == [
        "custom_tool_call"
    ]
    with pytest.raises(openai.InternalServerError):
        ask(client, script, tools=tools, store=False)


def test_usage(client: openai.OpenAI) -> None:
    usage = ask(client, "x" * 40_000 + "[[tokens:100]]", store=False).usage
    assert usage is not None
    assert usage.input_tokens > 5_000
    assert usage.output_tokens > 50
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_wrong_key_and_unknown_model(gateway: Running, client: openai.OpenAI) -> None:
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"),
    ):
        ask(wrong, "hi")
    with pytest.raises(openai.NotFoundError, match=r"claude-sonnet-4\.5") as caught:
        client.responses.create(model="no-such-model", input="hi")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("VALIDATION", openai.BadRequestError, None),
        ("CONTEXT", openai.BadRequestError, "context_length_exceeded"),
        ("THROTTLE", openai.RateLimitError, "rate_limit_exceeded"),
        ("QUOTA", openai.RateLimitError, "insufficient_quota"),
        ("INTERNAL", openai.InternalServerError, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_upstream_errors_keep_their_status(
    client: openai.OpenAI, name: str, error: type[openai.APIStatusError], code: str | None, streamed: bool
) -> None:
    with pytest.raises(error) as caught:
        client.responses.create(model=MODEL, input=f"[[error:{name}]]", stream=streamed, store=False)
    assert caught.value.request_id
    if code:
        assert caught.value.code == code


def test_a_cut_stream_is_a_failed_response(client: openai.OpenAI) -> None:
    prompt = "[[chunk:2]][[cut:3]][[say:this is long enough]]"
    *_, last = client.responses.create(model=MODEL, input=prompt, stream=True, store=False)
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    with pytest.raises(openai.InternalServerError):
        ask(client, prompt, store=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [(b"{", None), (b"[]", "$"), (b'{"model":"m"}', "input"), (b'{"input":"x"}', "model"), (b"\xff", None)],
)
def test_malformed_bodies_are_400(client: openai.OpenAI, body: bytes, param: str | None) -> None:
    response = client._client.post("/responses", content=body, headers={"authorization": f"Bearer {client.api_key}"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_async_client(gateway: Running) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:

            async def say(text: str) -> str:
                answer = await client.responses.create(model=MODEL, input=f"[[say:{text}]]", store=False)
                return answer.output_text

            assert await asyncio.gather(*(say(str(n)) for n in range(20))) == [str(n) for n in range(20)]
            async with client.responses.stream(model=MODEL, input="[[think:a]][[say:b]]", store=False) as stream:
                assert (await stream.get_final_response()).output_text == "b"
            with pytest.raises(openai.RateLimitError):
                await client.responses.create(model=MODEL, input="[[error:THROTTLE]]", store=False)

    asyncio.run(run())


def test_async_client_comes_back(gateway: Running) -> None:
    class Word(pydantic.BaseModel):
        word: str

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            prompt = "[[slow:5]][[tokens:40]][[then:The plum is seven.]]"
            stream = await client.responses.create(model=MODEL, input=prompt, background=True, stream=True)
            seen = [await anext(stream) for _ in range(10)]
            await stream.close()
            assert seen[0].type == "response.created"
            name = seen[0].response.id
            resumed = await client.responses.retrieve(name, stream=True, starting_after=seen[-1].sequence_number)
            rest = [event async for event in resumed]
            numbers = [event.sequence_number for event in [*seen, *rest]]
            assert numbers == list(range(len(numbers)))
            queued = await client.responses.create(model=MODEL, input="[[wait:50]][[say:later]]", background=True)
            while (found := await client.responses.retrieve(queued.id)).status != "completed":
                await asyncio.sleep(0.02)
            assert found.output_text == "later"
            listed = [item async for item in client.responses.input_items.list(queued.id)]
            assert len(listed) == 1
            await client.responses.delete(queued.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.cancel(queued.id)
            parsed = await client.responses.parse(
                model=MODEL, input='[[tool:final_answer {"word":"plum"}]]', text_format=Word, store=False
            )
            assert parsed.output_parsed == Word(word="plum")
            assert (await client.responses.input_tokens.count(model=MODEL, input="some words")).input_tokens > 0
            compacted = await client.responses.compact(model=MODEL, previous_response_id=name)
            assert compacted.output[-1].type == "compaction"

    asyncio.run(run())


# Over its own WebSocket


def needs_websockets() -> None:
    pytest.importorskip("websockets", reason="the SDK speaks WebSocket through this package, which is not installed")


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # of how the SDK opens it
def test_over_the_sdks_own_websocket(gateway: Running, client: openai.OpenAI) -> None:
    needs_websockets()
    more: Any = {"model": MODEL, "store": False}
    with client.responses.connect() as connection:
        heard: Any = iter(connection)

        def turn(prompt: str, **previous: Any) -> Response:
            connection.response.create(input=prompt, **more, **previous)
            while (event := next(heard)).type != "response.completed":
                assert event.type.startswith("response.")
            answer: Response = event.response
            return answer

        first = turn("my number is 7 [[say:hello]]")
        second = turn("[[say:{{find:number is 7}} {{find:hello}}]]", previous_response_id=first.id)
        assert (first.output_text, second.output_text) == ("hello", "FOUND FOUND")
        connection.response.create(input="x", model="no-such-model")
        error = next(heard)
        assert (error.type, error.status, error.error.code) == ("error", 404, "model_not_found")
        assert turn("[[say:still here]]").output_text == "still here"


def test_over_the_async_sdks_own_websocket(gateway: Running) -> None:
    needs_websockets()

    async def run() -> None:
        async with (
            openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client,
            client.responses.connect() as connection,
        ):
            await connection.response.create(model=MODEL, input="[[tokens:50]]", store=False)
            events: list[Any] = []
            async for event in connection:
                events.append(event)
                if event.type == "response.completed":
                    break
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert events[-1].response.output_text.endswith("w49 w50")

    asyncio.run(run())


# Codex


EXPECTED: Final = {
    "codex--plain--01": "text",
    "codex--image--01": "text",
    "codex--reasoning--01": "text",
    "codex--tool_exec--01": "exec_command",
    "codex--tool_exec--02": "exec_command",
    "codex--tool_exec--03": "text",
    "codex--reasoning--02": "exec_command",
    "codex--reasoning--03": "text",
    "cline--tools_responses--01": "read_files",
    "cline--tools_responses--02": "apply_patch",
    "cline--tools_responses--03": "text",
}
"""What the answer to a captured request ends with: text, or the first tool that it calls."""


@pytest.mark.parametrize("name", EXPECTED)
def test_captured_requests_are_answered(gateway: Running, client: openai.OpenAI, name: str) -> None:
    path = CAPTURES / f"{name}.json"
    if not path.exists():
        pytest.skip(
            f"{CAPTURES} is absent: the captured requests belong to their clients and are not in the repository"
        )
    captured = json.loads(path.read_bytes())
    headers = {key: value for key, value in captured["headers"] if key.lower() not in ("host", "content-length")}
    headers["authorization"] = f"Bearer {gateway.key}"
    response = client._client.post("/responses", content=json.dumps(captured["body"]), headers=headers)
    assert response.status_code == 200, response.text
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "response.completed"
    output = events[-1]["response"]["output"]
    assert output == [event["item"] for event in events if event["type"] == "response.output_item.done"]
    calls = [item["name"] for item in output if item["type"] == "function_call"]
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    if EXPECTED[name] == "text":
        assert calls == []
        assert texts[-1]
        assert texts[-1] not in ("OK", "(end of script)")
    else:
        assert calls[0] == EXPECTED[name]
