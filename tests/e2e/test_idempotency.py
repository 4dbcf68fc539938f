"""A request that is sent again, with its key, through real clients."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from e2e.conftest import Running
from e2e.test_faults import outcomes, running, until
from helpers.rawhttp import post


def body(said: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    return {"model": "claude-sonnet-4.5", "max_tokens": 10_000, "messages": messages, **more}


def responses_body(said: str, **more: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-4.5", "input": said, **more}


def lost_after(gateway: Running, path: str, asked: str, headers: dict[str, str], size: int) -> tuple[bytes, str]:
    """What a client has of a stream when its connection is lost, and the id of the turn."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    connection.request("POST", path, asked, headers)
    response = connection.getresponse()
    have = response.read(size)
    connection.close()
    return have, response.headers.get("x-kirostream-turn", "")


def new_key() -> dict[str, str]:
    return {"idempotency-key": uuid.uuid4().hex}


def test_fifty_at_once_are_one_turn(gateway: Running) -> None:
    client = anthropic.Anthropic(base_url=gateway.url, auth_token=gateway.key, api_key=None, max_retries=0)
    key = new_key()

    def ask(_: int) -> anthropic.types.Message:
        answer: anthropic.types.Message = client.messages.create(
            **body("[[slow:20]][[say:once]]", model="auto"), extra_headers=key
        )
        return answer

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    client.close()
    assert {answer.id for answer in answers} == {answers[0].id}
    assert {answer.content[0].text for answer in answers if answer.content[0].type == "text"} == {"once"}


def test_a_lost_stream_is_joined_by_its_retry(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", **new_key()}
    asked = json.dumps(body("[[slow:5]][[tokens:60]]", stream=True))
    have, _ = lost_after(gateway, "/v1/chat/completions", asked, headers, 400)
    whole = httpx.post(f"{gateway.url}/v1/chat/completions", content=asked, headers=headers, timeout=20).content
    assert whole.startswith(have)
    assert whole.endswith(b"data: [DONE]\n\n")
    assert httpx.post(f"{gateway.url}/v1/chat/completions", content=asked, headers=headers, timeout=20).content == whole


def test_a_failure_is_not_replayed(gateway: Running) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)
    key = new_key()
    # More than the gateway tries by itself, so that the client sees the failure, and its retry the answer.
    said = f"[[fail:INTERNAL 3 {uuid.uuid4().hex}]][[say:after {{{{attempt}}}}]]"
    try:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": said}], extra_headers=key)
    except openai.InternalServerError:
        pass
    else:
        raise AssertionError("the first one did not fail")
    messages: Any = [{"role": "user", "content": said}]
    answer = client.chat.completions.create(model="auto", messages=messages, extra_headers=key)
    client.close()
    assert answer.choices[0].message.content == "after 4"


def test_another_body_under_the_same_key_is_refused_in_the_clients_words(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", **new_key()}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client:
        client.post("/v1/messages", json=body("[[say:a]]"))
        refused = client.post("/v1/messages", json=body("[[say:b]]"))
        assert refused.status_code == 422
        assert refused.json()["error"]["type"] == "invalid_request_error"
        client.post("/v1/chat/completions", json=body("[[say:a]]"))
        refused = client.post("/v1/chat/completions", json=body("[[say:b]]"))
        assert refused.status_code == 422
        assert "another body" in refused.json()["error"]["message"]


def test_fifty_responses_at_once_are_one_turn(gateway: Running) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)
    key = new_key()

    def ask(number: int) -> Any:
        asked: Any = responses_body("[[slow:20]][[say:once]]", store=False)
        return client.responses.create(**asked, extra_headers=key)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {answer.id for answer in answers} == {answers[0].id}
    assert {answer.output_text for answer in answers} == {"once"}
    try:  # it was not to be stored, and is at hand for this key alone
        client.responses.retrieve(answers[0].id)
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("it was stored")
    client.close()


@pytest.mark.parametrize("store", [True, False])
def test_a_lost_stream_of_responses_is_joined_by_its_retry(gateway: Running, store: bool) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", **new_key()}
    asked = json.dumps(responses_body("[[slow:5]][[tokens:60]]", stream=True, store=store))
    have, turn = lost_after(gateway, "/v1/responses", asked, headers, 3000)
    assert turn == ""
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client:
        whole = client.post("/v1/responses", content=asked).content
        assert whole.startswith(have)
        assert b"event: response.completed" in whole
        assert client.post("/v1/responses", content=asked).content == whole
        name = json.loads(whole.split(b"\ndata: ", 1)[1].split(b"\n", 1)[0])["response"]["id"]
        found = client.get(f"/v1/responses/{name}")
        assert found.status_code == (200 if store else 404)
        if store:
            assert found.json()["status"] == "completed"
            last = client.get(f"/v1/responses/{name}?stream=true&starting_after=40").content
            assert whole.endswith(last)
            assert b'"sequence_number":41,' in last.split(b"\n\n")[0]
        refused = client.post("/v1/responses", json=responses_body("[[say:another]]"))
        assert refused.status_code == 422
        assert "another body" in refused.json()["error"]["message"]


def test_a_resumable_stream_of_responses_goes_on_where_it_was_cut(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", "x-kirostream-resumable": "true"}
    asked = json.dumps(responses_body("[[slow:5]][[think:well]][[tokens:60]]", stream=True, store=False))
    have, turn = lost_after(gateway, "/v1/responses", asked, headers, 3000)
    have = have[: have.rindex(b"\n\n") + 2]
    last = have[have.rindex(b"id: ") + 4 :].split(b"\n")[0].decode()
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client:
        rest = client.get(f"/v1/turns/{turn}/events", headers={"last-event-id": last}).content
        assert rest.startswith(b"id: ")
        assert have + rest == client.get(f"/v1/turns/{turn}/events").content
        assert b"event: response.completed" in rest


def test_a_resumable_answer_is_stored_though_its_client_is_lost(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", "x-kirostream-resumable": "true"}
    asked = json.dumps(responses_body("[[slow:5]][[tokens:60]]", stream=True))
    have, _ = lost_after(gateway, "/v1/responses", asked, headers, 3000)
    name = json.loads(have.split(b"\ndata: ", 1)[1].split(b"\n", 1)[0])["response"]["id"]
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client:
        deadline = time.monotonic() + 15
        while (found := client.get(f"/v1/responses/{name}").json())["status"] == "in_progress":
            assert time.monotonic() < deadline
        assert found["status"] == "completed"
        more = client.post("/v1/responses", json=responses_body("[[say:more]]", previous_response_id=name))
        assert more.status_code == 200


def test_a_background_response_is_begun_once(gateway: Running) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)
    key = new_key()
    asked: Any = responses_body("[[slow:20]][[tokens:500]]", background=True)
    first = client.responses.create(**asked, extra_headers=key)
    again = client.responses.create(**asked, extra_headers=key)
    assert (first.id, first.status) == (again.id, "queued")
    assert again.status in ("queued", "in_progress")
    cancelled = client.responses.cancel(first.id)
    assert cancelled.status == "cancelled"
    new = client.responses.create(**asked, extra_headers=key)  # it failed, so who asks again wants another one
    assert new.id != first.id
    client.responses.cancel(new.id)
    client.close()


def test_a_response_that_failed_is_not_replayed(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", **new_key()}
    said = f"[[fail:INTERNAL 3 {uuid.uuid4().hex}]][[say:after {{{{attempt}}}}]]"
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client:
        assert client.post("/v1/responses", json=responses_body(said)).status_code == 502
        answer = client.post("/v1/responses", json=responses_body(said)).json()
        assert answer["output"][-1]["content"][0]["text"] == "after 4"


async def test_a_keyed_response_that_nobody_comes_back_to_ends_and_is_forgotten(tmp_path: Path) -> None:
    headers = {"authorization": "Bearer k", "idempotency-key": "one"}
    asked = responses_body("[[slow:20]][[tokens:5000]]", stream=True)
    async with running(tmp_path, relay__turns__linger=0.05) as (gateway, facts):
        for count in (1, 2):
            async with post(f"{gateway.url}/v1/responses", asked, headers) as response:
                assert response.status == 200
                await response.read_some()
            await until(lambda: gateway.relay.snapshot().in_flight == 0)
            assert gateway.relay.snapshot().started == count
            await until(lambda: repr(gateway.responses) == "<Responses 0 in memory>")
        assert outcomes(facts) == ["left", "left"]
