"""``/v1/stream``: one socket, many turns; through our client, and through trio-websocket's as a foreign one."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from e2e.conftest import Running
from e2e.test_faults import running
from kirostream.client import Client, Turn, connect
from kirostream.errors import UpstreamDown, UpstreamRefused
from kirostream.net.websocket import WebSocketSettings


def body(said: str) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 10_000,
        "messages": [{"role": "user", "content": said}],
    }


@asynccontextmanager
async def connected(gateway: Running) -> AsyncIterator[Client]:
    with trio.fail_after(30):
        async with connect(gateway.url, gateway.key) as client:
            yield client


async def heard(turn: Turn) -> list[Any]:
    return [event async for event in turn]


def text_of(events: list[Any]) -> str:
    deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
    return "".join(delta.get("text", "") for delta in deltas)


def chat_text(events: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


async def test_many_turns_on_one_socket_in_two_languages(gateway: Running) -> None:
    async with connected(gateway) as client:
        said: dict[int, str] = {}

        async def one(number: int) -> None:
            dialect = ("anthropic", "openai_chat")[number % 2]
            turn = await client.start(dialect, body(f"[[slow:1]][[say:turn {number} 日本 😀]]"))
            events = await heard(turn)
            said[number] = text_of(events) if number % 2 == 0 else chat_text(events)
            assert turn.status == "completed"
            assert turn.model == "claude-sonnet-4.5"

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)
    assert said == {number: f"turn {number} 日本 😀" for number in range(8)}


async def test_a_turn_is_followed_by_others_and_from_any_place(gateway: Running) -> None:
    async with connected(gateway) as client, connected(gateway) as other:
        turn = await client.start("anthropic", body("[[slow:3]][[tokens:60]]"))
        first = [await anext(turn) for _ in range(20)]
        place = turn.place
        watching = await other.watch(turn.id)
        chat = await other.watch(turn.id, "openai_chat")
        canonical = await other.watch(turn.id, "canonical")
        rest = await heard(turn)
        whole = first + rest
        assert await heard(watching) == whole
        text = " ".join(f"w{n}" for n in range(1, 61))
        assert text_of(whole) == chat_text(await heard(chat)) == text
        assert (await heard(canonical))[-1]["type"] == "turn_ended"
        after = await heard(await other.watch(turn.id, "anthropic", after=place))
        assert whole[-len(after) :] == after


async def test_a_stopped_watcher_hears_no_more_and_a_cancelled_turn_ends_for_all(gateway: Running) -> None:
    async with connected(gateway) as client:
        turn = await client.start("anthropic", body("[[slow:20]][[tokens:2000]]"))
        other = await client.watch(turn.id, "canonical")
        await anext(turn)
        await turn.stop()
        await heard(turn)
        assert turn.status == "stopped"
        await anext(other)
        await other.cancel()
        events = await heard(other)
        assert events[-1]["type"] == "turn_failed"
        assert events[-1]["error"]["class"] == "TurnCancelled"
        assert other.status == "failed"


async def test_turns_are_listed_with_how_far_they_are(gateway: Running) -> None:
    async with connected(gateway) as client:
        turn = await client.start("anthropic", body("[[slow:10]][[tokens:100]]"))
        await anext(turn)
        before = next(each for each in await client.turns() if each["id"] == turn.id)
        assert (before["status"], before["dialect"], before["watchers"]) == ("in_progress", "anthropic", 1)
        await heard(turn)
        after = next(each for each in await client.turns() if each["id"] == turn.id)
        assert after["status"] == "completed"
        assert before["tokens"] < after["tokens"] == after["usage"]["output_tokens"]
        assert before["seconds"] < after["seconds"]
        assert after["account"]


async def test_a_slow_consumer_holds_back_nobody(gateway: Running) -> None:
    async with connected(gateway) as client:
        slow = await client.start("anthropic", body("[[slow:1]][[tokens:400]]"))
        await anext(slow)
        quick = await client.start("anthropic", body("[[say:quick]]"))
        assert text_of(await heard(quick)) == "quick"
        rest = await heard(slow)
        assert text_of(rest).endswith("w400")


async def test_what_cannot_be_done_is_refused_with_the_reason(gateway: Running) -> None:
    async with connected(gateway) as client:
        with pytest.raises(UpstreamRefused, match="dialect is 'kiro'"):
            await client.start("kiro", body("hi"))
        with pytest.raises(UpstreamRefused, match=r"\$\.messages"):
            await client.start("anthropic", {"model": "m", "max_tokens": 1})
        with pytest.raises(UpstreamRefused, match="no turn"):
            await client.watch("f" * 32)
        turn = await client.start("anthropic", body("[[slow:20]][[tokens:30]]"))  # not over before the next message
        with pytest.raises(UpstreamRefused, match="watches that turn"):
            await client.watch(turn.id)
        await heard(turn)
        with pytest.raises(UpstreamRefused, match="no event id"):
            await client.watch(turn.id, after=f"{turn.id}.99999.0")
    with pytest.raises(UpstreamDown, match="401"):
        async with connect(gateway.url, "wrong"):
            pass


async def test_a_turn_that_could_not_be_watched_is_not_begun(tmp_path: Path) -> None:
    async with running(tmp_path) as (served, _), foreign(Running(served.url, "k")) as client:
        request = {"op": "start", "dialect": "anthropic", "request": body("[[slow:20]][[tokens:2000]]")}
        for wrong in ({"credit": -1}, {"credit": "many"}, {"into": "klingon"}, {"watch": 1}):
            await client.say({**request, **wrong})
            assert (await client.hear())["op"] == "error"
        assert served.relay.snapshot().started == 0
        for _ in range(64):
            await client.say({**request, "credit": 0})
        assert {(await client.hear())["op"] for _ in range(64)} == {"started"}
        await client.say({**request, "credit": 0})
        answer = await client.hear()
        assert "at most 64" in answer["error"]["message"]
        assert served.relay.snapshot().started == 64
        for turn in served.relay.directory:
            turn.cancel()


async def test_an_upstream_error_is_an_event_of_the_language(gateway: Running) -> None:
    async with connected(gateway) as client:
        events = await heard(turn := await client.start("anthropic", body("[[error:VALIDATION]]")))
        assert events[-1]["type"] == "error"
        assert turn.status == "failed"


class Foreign:
    """trio-websocket's own client."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection

    async def say(self, message: object) -> None:
        await self.connection.send_message(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> Any:
        with trio.fail_after(20):
            return json.loads(await self.connection.get_message())


@asynccontextmanager
async def foreign(gateway: Running) -> AsyncIterator[Foreign]:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    headers = [(b"authorization", b"Bearer " + gateway.key.encode())]
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", "/v1/stream", extra_headers=headers
        )
        yield Foreign(connection)
        with trio.move_on_after(2):
            await connection.aclose()
        nursery.cancel_scope.cancel()


async def test_credit_is_a_count_of_messages(gateway: Running) -> None:
    async with foreign(gateway) as client:
        request = body("[[slow:30]][[say:hello, how are you?]]")
        await client.say({"op": "start", "ref": "a", "dialect": "anthropic", "request": request, "credit": 1})
        started = await client.hear()
        assert (started["op"], started["ref"], started["dialect"]) == ("started", "a", "anthropic")
        first = await client.hear()
        assert (first["op"], first["turn"]) == ("events", started["turn"])
        with trio.move_on_after(0.3) as silence:
            await client.hear()
        assert silence.cancelled_caught
        events = first["data"]
        while True:
            await client.say({"op": "credit", "turn": started["turn"], "credit": 1})
            message = await client.hear()
            if message["op"] != "events":
                break
            events += message["data"]
        while message["op"] == "error":  # credit for a turn that had ended meanwhile
            message = await client.hear()
        assert message == {
            "op": "ended",
            "turn": started["turn"],
            "dialect": "anthropic",
            "status": "completed",
        }
        assert text_of(events) == "hello, how are you?"


@pytest.mark.parametrize(
    "message",
    ["", "nonsense", "[]", "{}", '{"op":"dance","ref":7}', '{"op":"credit","ref":7,"turn":"x","credit":1}', b"\x00"],
)
async def test_a_message_that_makes_no_sense_is_answered_and_the_socket_stays(gateway: Running, message: Any) -> None:
    async with foreign(gateway) as client:
        await client.connection.send_message(message)
        answer = await client.hear()
        assert answer["op"] == "error"
        assert answer.get("ref") == (7 if "7" in str(message) else None)
        await client.say({"op": "start", "dialect": "anthropic", "request": body("[[say:ok]]"), "watch": False})
        assert (await client.hear())["op"] == "started"


async def test_a_turn_lingers_when_its_socket_is_lost(gateway: Running) -> None:
    async with foreign(gateway) as client:
        await client.say({"op": "start", "dialect": "anthropic", "request": body("[[slow:5]][[tokens:100]]")})
        turn = (await client.hear())["turn"]
        await client.hear()
    async with connected(gateway) as again:
        assert text_of(await heard(await again.watch(turn))).endswith("w100")


def test_a_post_that_is_resumable_goes_on_where_it_was_cut(gateway: Running) -> None:
    auth = {"authorization": f"Bearer {gateway.key}"}
    asked = json.dumps({**body("[[slow:4]][[tokens:80]]"), "stream": True})
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/messages", asked, {**auth, "x-kirostream-resumable": "true"})
    response = connection.getresponse()
    turn = response.headers["x-kirostream-turn"]
    have = response.read(1500)
    connection.close()
    have = have[: have.rindex(b"\n\n") + 2]
    last = have[have.rindex(b"id: ") + 4 :].split(b"\n")[0].decode()
    with httpx.Client(base_url=gateway.url, headers=auth, timeout=20) as client:
        rest = client.get(f"/v1/turns/{turn}/events", headers={"last-event-id": last})
        again = client.get(f"/v1/turns/{turn}/events")
        assert have + rest.content == again.content
        assert len(rest.content) > 1500
        assert rest.content.endswith(b'data: {"type":"message_stop"}\n\n')
        listed = client.get("/v1/turns").json()["data"]
        assert [found["status"] for found in listed if found["id"] == turn] == ["completed"]


async def test_a_plain_post_says_nothing_of_turns(gateway: Running) -> None:
    auth = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=auth, timeout=20) as client:
        answer = await client.post("/v1/messages", json={**body("[[say:hi]]"), "stream": True})
        assert "x-kirostream-turn" not in answer.headers
        assert b"id: " not in answer.content


async def test_the_client_comes_back_and_loses_nothing(tmp_path: Path, gateway: Running) -> None:
    """A relay in between cuts the connection again and again; the turn is heard whole."""
    cuts = 0

    async def cut(stream: trio.SocketStream) -> None:
        nonlocal cuts
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        async with stream, await trio.open_tcp_stream(host, int(port)) as there, trio.open_nursery() as nursery:

            async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, room: int) -> None:
                nonlocal cuts
                while room > 0 and (data := await source.receive_some(200)):
                    room -= len(data)
                    await sink.send_all(data)
                cuts += room <= 0
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, stream, there, 1 << 30)
            # What piles up meanwhile comes as one message, so each connection has to take more than the last one.
            nursery.start_soon(copy, there, stream, 1500 * (cuts + 1))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, cut, listeners)
            port = listeners[0].socket.getsockname()[1]
            async with connect(f"http://127.0.0.1:{port}", gateway.key) as client:
                turn = await client.start("anthropic", body("[[slow:2]][[tokens:100]]"))
                events = await heard(turn)
            nursery.cancel_scope.cancel()
    assert cuts >= 3
    assert text_of(events) == " ".join(f"w{n}" for n in range(1, 101))
    assert [event["type"] for event in events].count("content_block_start") == 1


async def test_the_client_finds_out_that_nobody_is_there(gateway: Running) -> None:
    """The first connection goes silent behind its first message, as behind a router that forgot it."""
    connections = 0

    async def silent(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        mute = connections == 1
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        async with stream, await trio.open_tcp_stream(host, int(port)) as there, trio.open_nursery() as nursery:

            async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, room: float) -> None:
                while data := await source.receive_some(4096):
                    if room > 0:
                        await sink.send_all(data)
                    room -= len(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, stream, there, float("inf"))
            nursery.start_soon(copy, there, stream, 400 if mute else float("inf"))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, silent, listeners)
            url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            settings = WebSocketSettings(ping=0.2, pong=0.3, close=0.1)
            async with connect(url, gateway.key, settings=settings) as client:
                turn = await client.start("anthropic", body("[[slow:5]][[tokens:50]]"))
                assert text_of(await heard(turn)).endswith("w50")
            nursery.cancel_scope.cancel()
    assert connections == 2
