"""Responses over a WebSocket, as Codex speaks it, against a running gateway; the client is trio-websocket's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio_websocket
from openai.types.responses import ResponseSteerFailedEvent

from e2e.conftest import Running
from e2e.test_faults import outcomes, running, until
from kirostream.app import Gateway
from kirostream.running import drain

MODEL: Final = "claude-sonnet-4-5"
CAPTURES: Final = Path(__file__).parents[3] / "shared" / "captures"
TOOLS: Final[Any] = [{"type": "function", "name": "now", "parameters": {"type": "object"}}]


class Client:
    """One connection."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection

    async def send(self, frame: dict[str, Any]) -> None:
        await self.connection.send_message(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        with trio.fail_after(20):
            event: dict[str, Any] = json.loads(await self.connection.get_message())
        return event

    async def create(self, said: Any, **more: Any) -> list[dict[str, Any]]:
        """Ask, and hear the events of the answer."""
        if isinstance(said, str):
            said = [{"type": "message", "role": "user", "content": said}]
        await self.send({"type": "response.create", "model": MODEL, "input": said, "store": False, **more})
        return await self.answer()

    async def answer(self) -> list[dict[str, Any]]:
        events = [await self.receive()]
        while events[-1]["type"] not in LAST:
            events.append(await self.receive())
        return events


async def rejected_with(dialling: AbstractAsyncContextManager[Client]) -> int:
    """The status of the refusal; it may come in a nursery's group."""
    try:
        async with dialling:
            pass
    except trio_websocket.ConnectionRejected as error:
        return int(error.status_code)
    except ExceptionGroup as group:
        (inner,) = group.exceptions
        assert isinstance(inner, trio_websocket.ConnectionRejected)
        return int(inner.status_code)
    raise AssertionError("the handshake was not refused")


LAST: Final = ("response.completed", "response.incomplete", "response.failed", "error", "response.steer.failed")


@asynccontextmanager
async def dialled(
    base: str, headers: list[tuple[bytes, bytes]], protocols: list[str] | None = None
) -> AsyncIterator[Client]:
    """A connection whose stream is closed whatever happens; the library's own opener leaves some open."""
    host, _, port = base.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", "/v1/responses", subprotocols=protocols, extra_headers=headers
        )
        yield Client(connection)
        with trio.move_on_after(2):
            await connection.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(gateway: Running) -> AsyncIterator[Client]:
    async with dialled(gateway.url, [(b"authorization", b"Bearer " + gateway.key.encode())]) as client:
        yield client


def text_of(events: list[dict[str, Any]]) -> str:
    assert events[-1]["type"] == "response.completed", events[-1]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    parts = [part for item in events[-1]["response"]["output"] for part in item.get("content", ())]
    assert said == "".join(part["text"] for part in parts)
    return said


async def test_a_conversation_of_new_items_only(gateway: Running) -> None:
    async with connected(gateway) as client:
        prepared = await client.create(
            [{"role": "developer", "content": "The word is swordfish."}], generate=False, tools=TOOLS, stream=True
        )
        assert [event["type"] for event in prepared] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        assert prepared[-1]["response"]["output"] == []
        script = "[[think:hm]][[say:Look-1. ]][[tool:now]][[then:{{result}} {{find:swordfish}} {{find:Look-1.}}]]"
        first = await client.create(script, tools=TOOLS, previous_response_id=prepared[-1]["response"]["id"])
        call = first[-1]["response"]["output"][-1]
        assert (call["type"], call["name"]) == ("function_call", "now")
        result = [{"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}]
        second = await client.create(result, tools=TOOLS, previous_response_id=first[-1]["response"]["id"])
        assert text_of(second) == "noon FOUND FOUND"
    async with connected(gateway) as another:
        (error,) = await another.create("x", previous_response_id=second[-1]["response"]["id"])
        assert (error["type"], error["status"]) == ("error", 400)
        assert error["error"]["code"] == "previous_response_not_found"


async def test_what_is_stored_is_there_for_others(gateway: Running) -> None:
    async with connected(gateway) as client:
        first = await client.create("seven [[say:x]]", store=True)
    async with connected(gateway) as another:
        name = first[-1]["response"]["id"]
        assert text_of(await another.create("[[say:{{find:seven}}]]", previous_response_id=name)) == "FOUND"


async def test_lanes(gateway: Running) -> None:
    async with connected(gateway) as client:
        for lane, prompt in (("a", "[[slow:20]][[tokens:20]]"), ("b", "[[say:quick]]"), ("a", "[[say:after]]")):
            said = [{"role": "user", "content": prompt}]
            await client.send(
                {"type": "response.create", "model": MODEL, "input": said, "store": False, "stream_id": lane}
            )
        ends: list[tuple[str, str]] = []
        while len(ends) < 3:
            event = await client.receive()
            if event["type"] == "response.completed":
                ends.append((event["stream_id"], event["response"]["output"][0]["content"][0]["text"][-5:]))
        assert ends == [("b", "quick"), ("a", "9 w20"), ("a", "after")]


async def test_errors_leave_the_connection_usable(gateway: Running) -> None:
    async with connected(gateway) as client:
        for frame, param in (
            ("{", None),
            ('{"type":"response.create"}', "model"),
            ('{"type":"response.create","model":"claude-sonnet-4-5"}', "input"),
            ('{"type":"brand.new","stream_id":"s"}', "type"),
        ):
            await client.connection.send_message(frame)
            error = await client.receive()
            assert (error["type"], error["status"], error["error"]["type"]) == ("error", 400, "invalid_request_error")
            assert error["error"]["param"] == param
            assert error.get("stream_id") == ("s" if "stream_id" in frame else None)
        (unknown,) = await client.create("x", model="none")
        assert (unknown["status"], unknown["error"]["code"]) == (404, "model_not_found")
        throttled = await client.create("[[error:THROTTLE]]")
        assert throttled[-1]["type"] == "response.failed"  # an error event with status 429 would end Codex
        assert throttled[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
        said = [{"type": "message", "role": "user", "content": "faster"}]
        await client.send({"type": "response.steer", "previous_response_id": "x", "input": said})
        (steer,) = await client.answer()
        failed = ResponseSteerFailedEvent.model_validate(steer)
        assert failed.error.code == "steering_not_supported"
        assert steer["steer"] == {"previous_response_id": "x", "input": said}
        await client.send({"type": "response.processed", "response_id": "x"})  # is no question
        assert text_of(await client.create("[[say:fine]]")) == "fine"


async def test_a_conversation_is_compacted(gateway: Running) -> None:
    async with connected(gateway) as client:
        first = await client.create("[[say:Noted.]][[then:There was a plum-tree.]]")
        trigger = [{"type": "compaction_trigger"}]
        compacted = await client.create(trigger, previous_response_id=first[-1]["response"]["id"])
        assert compacted[-1]["type"] == "response.completed"
        (item,) = (event["item"] for event in compacted if event["type"] == "response.output_item.done")
        assert item["type"] == "compaction"
        needles = {"role": "user", "content": "[[say:{{find:plum-tree}} {{find:Noted.}}]]"}
        assert text_of(await client.create([item, needles])) == "FOUND MISSING"


async def test_codex_as_it_was_captured(gateway: Running) -> None:
    files = sorted(CAPTURES.glob("codex--websocket_plain--*.json"))
    if not files:
        pytest.skip(f"{CAPTURES} is absent: captured requests belong to their clients and are not in the repository")
    head, prewarm, turn = (json.loads(path.read_bytes()) for path in files)
    headers = [
        (name.lower().encode(), value.encode())
        for name, value in head["headers"]
        if not name.lower().startswith(("sec-websocket", "host", "connection", "upgrade", "authorization"))
    ]
    headers.append((b"authorization", b"Bearer " + gateway.key.encode()))
    async with dialled(gateway.url, headers) as client:
        await client.send(prewarm["body"])
        prepared = await client.answer()
        await client.send({**turn["body"], "previous_response_id": prepared[-1]["response"]["id"]})
        assert text_of(await client.answer()).startswith("ws 日本語")


async def test_a_key_as_a_subprotocol(gateway: Running) -> None:
    """A browser can set no other header."""
    async with dialled(gateway.url, [], ["responses", f"openai-insecure-api-key.{gateway.key}"]) as client:
        assert client.connection.subprotocol == "responses"
        assert text_of(await client.create("[[say:in]]")) == "in"


async def test_a_wrong_key_and_no_socket_at_all(gateway: Running) -> None:
    assert await rejected_with(dialled(gateway.url, [(b"authorization", b"Bearer wrong")])) == 401
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        key = gateway.key.encode()
        await stream.send_all(b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + key + b"\r\n\r\n")
        answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 426")
    assert b"upgrade: websocket" in answer.lower()


# A gateway in this process, for what a stop, a limit and a leaving client do


@asynccontextmanager
async def inside(gateway: Gateway) -> AsyncIterator[Client]:
    async with dialled(gateway.url, [(b"authorization", b"Bearer k")]) as client:
        yield client


async def closed_with(client: Client) -> int:
    with pytest.raises(trio_websocket.ConnectionClosed) as caught:
        await client.receive()
    assert caught.value.reason is not None
    return int(caught.value.reason.code)


async def test_sockets_that_are_switched_off_are_426(tmp_path: Path) -> None:
    async with running(tmp_path, websocket__enabled=False) as (gateway, _):
        assert await rejected_with(inside(gateway)) == 426


async def test_a_connection_has_a_life(tmp_path: Path) -> None:
    async with running(tmp_path, websocket__life=0.2) as (gateway, _), inside(gateway) as client:
        assert text_of(await client.create("[[say:young]]")) == "young"
        event = await client.receive()
        assert event["error"]["code"] == "websocket_connection_limit_reached"
        assert await closed_with(client) == 1000


async def test_who_leaves_cancels_the_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        async with inside(gateway) as client:
            said = [{"role": "user", "content": "[[slow:50]][[tokens:1000]]"}]
            await client.send({"type": "response.create", "model": MODEL, "input": said})
            assert (await client.receive())["type"] == "response.created"
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        assert outcomes(facts) == ["left"]


async def test_a_stop_waits_for_answers_and_not_for_the_idle(tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, _), inside(gateway) as idle, inside(gateway) as busy:
        said = [{"role": "user", "content": "[[slow:20]][[tokens:20]]"}]
        await busy.send({"type": "response.create", "model": MODEL, "input": said})
        first = await busy.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, gateway, 20.0)
            assert await closed_with(idle) == 1001
            assert text_of([first, *await busy.answer()]).endswith("w20")
            assert await closed_with(busy) == 1001
