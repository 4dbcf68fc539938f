"""A streamed POST, byte for byte, as it was before turns could be come back to: no line and no header more.

The files in `golden/` hold heads and bodies, with ids and times replaced by words. They change only when what a plain
client gets is meant to change.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from e2e.test_faults import running

GOLDEN: Final = Path(__file__).parent / "golden"
SAID: Final = "[[think:Well.]][[say:Grüße 日本 😀]]"
MESSAGES: Final = [{"role": "user", "content": SAID}]
BODIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "anthropic": ("/v1/messages", {"max_tokens": 100, "messages": MESSAGES}),
    "openai_chat": ("/v1/chat/completions", {"messages": MESSAGES, "stream_options": {"include_usage": True}}),
    "openai_responses": ("/v1/responses", {"input": SAID}),
}
CHANGES: Final = (
    (rb"(req|msg|resp|rs|chatcmpl)_?-?[0-9a-f]{24,36}", rb"\1_ID"),
    (rb'("(?:created|created_at|completed_at)":)\d+', rb"\1TIME"),
    (rb"(?m)^date: .*$", b"date: DATE"),
    (rb"(?m)(dur=)\d+\.\d+", rb"\1MS"),
)


async def streamed(tmp_path: Path, name: str, **headers: str) -> tuple[bytes, bytes]:
    """Head and body of an answer, with words for ids and times."""
    path, body = BODIES[name]
    said = {"model": "auto", "stream": True, **body}
    async with running(tmp_path) as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post(path, json=said, headers={"authorization": "Bearer k", **headers})
        assert answer.status_code == 200
        head = b"".join(field.lower() + b": " + value + b"\n" for field, value in answer.headers.raw)
    whole = head + b"\n" + answer.content
    for pattern, word in CHANGES:
        whole = re.sub(pattern, word, whole)
    head, _, said_back = whole.partition(b"\n\n")
    return head, said_back


def golden(name: str) -> tuple[bytes, bytes]:
    head, _, body = (GOLDEN / f"{name}.txt").read_bytes().partition(b"\n\n")
    return head, body


@pytest.mark.parametrize("name", BODIES)
async def test_a_plain_stream_is_the_original_apis(name: str, tmp_path: Path) -> None:
    assert await streamed(tmp_path, name) == golden(name)


@pytest.mark.parametrize("name", BODIES)
async def test_a_key_changes_nothing_of_the_stream(name: str, tmp_path: Path) -> None:
    assert await streamed(tmp_path, name, **{"idempotency-key": "a"}) == golden(name)


@pytest.mark.parametrize("name", BODIES)
async def test_a_resumable_stream_is_the_same_with_ids_and_one_header(name: str, tmp_path: Path) -> None:
    head, body = await streamed(tmp_path, name, **{"x-kirostream-resumable": "true"})
    wanted_head, wanted = golden(name)
    events = body.split(b"\n\n")
    assert all(re.match(rb"id: [0-9a-f]{32}\.\d+\.\d+\n", event) for event in events if event)
    without = b"\n\n".join(event.partition(b"\n")[2] for event in events)
    if name == "openai_responses":  # it says nothing that a replay after a restart would say otherwise
        wanted = wanted.replace(b'"completed_at":TIME', b'"completed_at":null')
    assert without == wanted
    turn = [line for line in head.split(b"\n") if line not in wanted_head.split(b"\n")]
    assert len(turn) == 1
    assert re.fullmatch(rb"x-kirostream-turn: [0-9a-f]{32}", turn[0])
