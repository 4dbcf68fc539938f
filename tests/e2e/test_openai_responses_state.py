"""What the Responses API remembers, with the official SDK against a running gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import openai
import pytest
from openai.types.responses import Response

from e2e.conftest import Running

MODEL: Final = "claude-sonnet-4-5"
TOOLS: Final[Any] = [
    {"type": "function", "name": "now", "description": "Tells.", "parameters": {"type": "object"}, "strict": False}
]


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, prompt: Any, **more: Any) -> Response:
    answer = client.responses.create(model=MODEL, input=prompt, **more)
    assert isinstance(answer, Response)
    return answer


@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_goes_on(client: openai.OpenAI, streamed: bool) -> None:
    def turn(prompt: Any, **more: Any) -> Response:
        if not streamed:
            return ask(client, prompt, tools=TOOLS, **more)
        with client.responses.stream(model=MODEL, input=prompt, tools=TOOLS, **more) as stream:
            return stream.get_final_response()

    first = turn("my number is 7 [[say:Noted. ]]", instructions="The word is swordfish.")
    second = turn(
        "[[tool:now]][[then:{{find:number is 7}} {{find:Noted.}} {{find:swordfish}} {{result}}]]",
        previous_response_id=first.id,
    )
    assert second.previous_response_id == first.id
    (call,) = second.output
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "noon"}]
    third = turn(result, previous_response_id=second.id)
    assert third.output_text == "FOUND FOUND MISSING noon"  # instructions do not carry over


def test_what_is_kept_can_be_read_and_forgotten(client: openai.OpenAI) -> None:
    first = ask(client, "[[say:one]]", metadata={"a": "b"})
    second = ask(client, [{"role": "user", "content": "[[say:two]]"}], previous_response_id=first.id)
    found = client.responses.retrieve(second.id)
    assert (found.id, found.output_text, found.status) == (second.id, "two", "completed")
    assert client.responses.retrieve(first.id).metadata == {"a": "b"}
    (item,) = client.responses.input_items.list(second.id)
    assert item.type == "message"
    assert item.content[0].type == "input_text"
    assert item.content[0].text == "[[say:two]]"
    client.responses.delete(first.id)
    for gone in (lambda: client.responses.retrieve(first.id), lambda: client.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError, match="not found"):
            gone()
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "x", previous_response_id=second.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_is_not_stored_is_not_kept(client: openai.OpenAI) -> None:
    answer = ask(client, "[[say:x]]", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "x", previous_response_id=answer.id)
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_unknown")


def test_an_item_stands_for_itself(client: openai.OpenAI) -> None:
    """As the AI SDK sends it: texts and thoughts by reference, calls in full."""
    prompt = "[[think:hm]][[say:Look-1. ]][[tool:now]][[then:{{find:Look-1.}} {{result}}]]"
    said: list[Any] = [{"role": "user", "content": prompt}]
    first = ask(client, said, tools=TOOLS)
    for item in first.output:
        if item.type == "function_call":
            said.append({"type": "function_call", "call_id": item.call_id, "name": item.name, "arguments": "{}"})
            said.append({"type": "function_call_output", "call_id": item.call_id, "output": "noon"})
        else:
            said.append({"type": "item_reference", "id": item.id})
    assert ask(client, said, tools=TOOLS).output_text == "FOUND noon"
    said.insert(1, {"type": "item_reference", "id": "msg_unknown"})
    with pytest.raises(openai.BadRequestError, match="msg_unknown") as caught:
        ask(client, said, tools=TOOLS)
    assert caught.value.param == "input[1].id"


def test_input_items_come_in_pages(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": f"{n} [[say:x]]"} for n in range(7)]
    answer = ask(client, said)
    listed: list[Any] = list(client.responses.input_items.list(answer.id, limit=3, order="asc"))
    assert [item.content[0].text for item in listed] == [f"{n} [[say:x]]" for n in range(7)]
    page = client.responses.input_items.list(answer.id, limit=3)
    assert page.has_more
    shown: list[Any] = page.data
    assert [item.content[0].text[0] for item in shown] == ["6", "5", "4"]
    after = client.responses.input_items.list(answer.id, after=shown[0].id, limit=1)
    assert [item.id for item in after.data] == [shown[1].id]
    for wrong in ({"after": "msg_unknown"}, {"extra_query": {"order": "up"}}, {"extra_query": {"limit": "few"}}):
        more: Any = wrong
        with pytest.raises(openai.BadRequestError):
            client.responses.input_items.list(answer.id, **more)


def test_tokens_are_counted_without_asking(client: openai.OpenAI) -> None:
    few = client.responses.input_tokens.count(model=MODEL, input="short")
    many = client.responses.input_tokens.count(model=MODEL, input="long " * 4_000, instructions="x")
    assert few.object == "response.input_tokens"
    assert 0 < few.input_tokens < 100
    assert 3_000 < many.input_tokens < 10_000


def test_tokens_of_what_came_before_are_counted(client: openai.OpenAI) -> None:
    first = ask(client, "[[say:x]]" + "long " * 4_000)
    body: Any = {"input": "short", "previous_response_id": first.id}
    assert client.responses.input_tokens.count(**body).input_tokens > 3_000  # the model need not be named
    image: Any = {"type": "input_image", "image_url": "https://example.invalid/never-fetched.png", "detail": "auto"}
    counted = client.responses.input_tokens.count(input=[{"role": "user", "content": [image]}])
    assert counted.input_tokens > 500


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "instructions"),
        ({"background": True, "store": False}, "background", "store"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, None, "file_data"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, None, "image_url"),
    ],
)
def test_what_would_have_to_be_kept_elsewhere_is_refused(
    client: openai.OpenAI, more: dict[str, Any], param: str | None, says: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        client.responses.create(**{"model": MODEL, "input": "x", **more})
    assert (caught.value.param or "").startswith(param or "input[0].content[0]")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "more",
    [{"prompt_cache_options": {"prewarm": True}}, {"extra_body": {"generate": False}}],
    ids=["warm", "said"],
)
def test_what_is_only_prepared_asks_no_model(client: openai.OpenAI, more: dict[str, Any], streamed: bool) -> None:
    said: Any = {"model": MODEL, "input": "my number is 7", "stream": streamed, **more}
    answer: Any = client.responses.create(**said)
    if streamed:
        *_, last = answer
        answer = last.response
    assert (answer.status, answer.output) == ("completed", [])
    assert client.responses.retrieve(answer.id).output == []
    after = ask(client, "[[say:{{find:number is 7}}]]", previous_response_id=answer.id)
    assert after.output_text == "FOUND"


# Compaction

LONG: Final[Any] = [
    {"role": "user", "content": "my number is 7 [[tool:now]][[then:noon]][[then:The number is seven.]]"},
    {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "twelve-o-clock"},
    {"role": "assistant", "content": "It is noon-ish."},
]
AFTER: Final[Any] = {
    "role": "user",
    "content": "[[say:{{find:number is seven}} {{find:my number is 7}} {{find:o-clock}} {{find:noon-ish}} {{images}}]]",
}


def dumped(items: Any) -> list[dict[str, Any]]:
    """Output items as the input of the next request; the SDK's types know no user's message in an output."""
    return [item.model_dump(exclude_none=True, warnings=False) for item in items]


def test_a_conversation_is_compacted_and_goes_on(client: openai.OpenAI) -> None:
    compacted = client.responses.compact(model=MODEL, input=LONG, instructions="Be brief.")
    assert compacted.object == "response.compaction"
    assert compacted.usage.output_tokens > 0
    user, item = compacted.output
    assert user.type == "message"
    assert user.role == "user"  # type: ignore[comparison-overlap]
    assert item.type == "compaction"
    assert "seven" not in item.encrypted_content
    window: Any = dumped(compacted.output)
    window[0]["content"][0]["text"] = "my number is 7"  # its script was played
    assert ask(client, [*window, AFTER], tools=TOOLS).output_text == "FOUND FOUND MISSING MISSING 0"
    again = client.responses.compact(model=MODEL, input=[*window, AFTER])
    assert [part.type for part in again.output] == ["message", "message", "compaction"]


def test_an_answer_that_is_kept_is_compacted(client: openai.OpenAI) -> None:
    first = ask(client, "the word is plum [[say:Noted.]][[then:A summary with a plum-tree.]]")
    compacted = client.responses.compact(model=MODEL, previous_response_id=first.id)
    window: Any = dumped(compacted.output)
    assert window[0]["content"][0]["text"].startswith("the word is plum")
    needles = {"role": "user", "content": "[[say:{{find:plum-tree}} {{find:Noted.}}]]"}
    assert ask(client, [window[1], needles]).output_text == "FOUND MISSING"


@pytest.mark.parametrize("store", [False, True])
def test_a_trigger_at_the_end_compacts(client: openai.OpenAI, store: bool) -> None:
    """As Codex asks for it; the next request sends the item back, or only the answer's id."""
    said: Any = [*LONG, {"type": "compaction_trigger"}]
    events = list(client.responses.create(model=MODEL, input=said, tools=TOOLS, store=store, stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    (whole,) = ask(client, said, tools=TOOLS, store=store).output
    assert whole.type == "compaction"
    (item,) = last.response.output
    assert item.type == "compaction"
    assert ask(client, [item.model_dump(exclude_none=True), AFTER]).output_text == "FOUND MISSING MISSING MISSING 0"
    if store:
        played: Any = [*LONG[1:3], {"role": "assistant", "content": "x"}, {"role": "user", "content": "go"}]
        rest = ask(client, [AFTER, *played], tools=TOOLS, previous_response_id=last.response.id)
        assert rest.output_text == "The number is seven.FOUND FOUND FOUND MISSING 0"
        again = list(client.responses.retrieve(last.response.id, stream=True))
        assert [event.to_json() for event in again] == [event.to_json() for event in events]


def test_a_compaction_that_fails(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.compact(model=MODEL, input="[[error:CONTEXT]]")
    assert caught.value.code == "context_length_exceeded"
    silent: Any = [{"role": "user", "content": "[[think:hm]]"}]
    with pytest.raises(openai.InternalServerError, match="no summary"):
        client.responses.compact(model=MODEL, input=silent)
    *_, last = client.responses.create(model=MODEL, input=[*silent, {"type": "compaction_trigger"}], stream=True)
    assert last.type == "response.failed"
    assert last.response.output == []


# In the background


def until_over(client: openai.OpenAI, name: str) -> Response:
    for _ in range(200):
        found = client.responses.retrieve(name)
        if found.status not in ("queued", "in_progress"):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{name} is not over")


def test_a_background_answer_is_polled(client: openai.OpenAI) -> None:
    queued = ask(client, "[[wait:200]][[slow:5]][[say:later]]", background=True)
    assert (queued.status, queued.output) == ("queued", [])
    assert client.responses.retrieve(queued.id).status in ("queued", "in_progress")
    done = until_over(client, queued.id)
    assert (done.status, done.output_text, done.background) == ("completed", "later", True)
    assert client.responses.cancel(queued.id).status == "completed"
    assert ask(client, "[[say:{{find:later}}]]", previous_response_id=queued.id).output_text == "FOUND"


def test_a_background_answer_is_cancelled(client: openai.OpenAI) -> None:
    queued = ask(client, "[[slow:50]][[tokens:1000]]", background=True)
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.retrieve(queued.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_unknown")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(ask(client, "[[say:x]]").id)


def test_a_background_answer_that_fails(client: openai.OpenAI) -> None:
    queued = ask(client, "[[error:CONTEXT]]", background=True)
    failed = until_over(client, queued.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "context_length_exceeded"  # type: ignore[comparison-overlap]


def test_a_stream_that_was_dropped_goes_on_where_it_was(client: openai.OpenAI) -> None:
    prompt = "[[slow:10]][[tokens:40]]"
    with client.responses.create(model=MODEL, input=prompt, background=True, stream=True) as stream:
        seen = [event for _, event in zip(range(12), stream, strict=False)]
    assert seen[0].type == "response.created"
    name = seen[0].response.id
    rest = list(client.responses.retrieve(name, stream=True, starting_after=seen[-1].sequence_number))
    assert [event.sequence_number for event in [*seen, *rest]] == list(range(len(seen) + len(rest)))
    assert rest[-1].type == "response.completed"
    again = list(client.responses.retrieve(name, stream=True, starting_after=-1))
    assert [event.to_json() for event in again] == [event.to_json() for event in [*seen, *rest]]
    text = "".join(event.delta for event in again if event.type == "response.output_text.delta")
    assert text == " ".join(f"w{n}" for n in range(1, 41)) == rest[-1].response.output_text


def test_a_finished_answer_can_be_heard_again(client: openai.OpenAI) -> None:
    done = ask(client, "[[say:once more]]")
    events = list(client.responses.retrieve(done.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "once more"
