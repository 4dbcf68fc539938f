"""A request that is sent again, with its key, through real clients."""

from __future__ import annotations

import http.client
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai

from e2e.conftest import Running


def body(said: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    return {"model": "claude-sonnet-4.5", "max_tokens": 10_000, "messages": messages, **more}


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
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/chat/completions", asked, headers)
    have = connection.getresponse().read(400)
    connection.close()
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
