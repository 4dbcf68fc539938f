"""What happens when something goes wrong between two real sockets, in every language and through every door.

The gateway and the simulator run in the test's own process, so that a test can look at what is left running. The clock
is real: sockets are the point.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import h11
import pytest
import trio

from helpers.certs import certificate
from helpers.languages import LANGUAGES, Language
from helpers.rawhttp import post
from kirostream.app import Gateway, open_gateway
from kirostream.running import drain
from kirostream.settings import Settings, load
from kirostream.telemetry.facts import Fact, Faulted, TurnFinished
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.request import TurnRequest

AUTH = {"x-api-key": "k"}
both = pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
DOORS: dict[str, list[dict[str, object]]] = {
    "http1": [],
    "tls": [{"port": 0, "certfile": certificate()[0], "keyfile": certificate()[1]}],
}
through = "http1"


@pytest.fixture(autouse=True, params=DOORS)
def _through(request: pytest.FixtureRequest) -> Iterator[None]:
    """The door that the gateways of a test are reached by."""
    global through
    through = request.param
    yield
    through = "http1"


@asynccontextmanager
async def running(tmp_path: Path, **changes: object) -> AsyncIterator[tuple[Gateway, list[Fact]]]:
    """A gateway with the simulator behind it. Nothing may be left running, and no bug may have shown."""
    arguments = {
        "server.port": 0,
        "server.key": "k",
        "relay.failover.backoff": 0.01,
        "listen": DOORS[through],
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    settings: Settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments=arguments)
    facts: list[Fact] = []
    with trio.fail_after(30):
        async with open_gateway(settings, None, data_dir=tmp_path, recorder=Recorder(facts.append)) as gateway:
            yield (replace(gateway, url=gateway.more_urls[0]) if gateway.more_urls else gateway), facts
            await until(lambda: gateway.relay.snapshot().in_flight == 0)
    assert [fact for fact in facts if isinstance(fact, Faulted)] == []


async def until(true: Callable[[], bool], within: float = 5.0) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(within):
        while not true():
            await trio.sleep(0.002)


def outcomes(facts: list[Fact]) -> list[str]:
    return [fact.outcome for fact in facts if isinstance(fact, TurnFinished)]


@both
async def test_a_client_that_leaves_cancels_the_upstream(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        assert gateway.simulator is not None
        async with post(gateway.url + language.path, language.ask("[[slow:50]][[tokens:1000]]"), AUTH) as response:
            assert response.status == 200
            await response.read_some()
            assert gateway.simulator.snapshot().active == 1
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        await until(lambda: gateway.simulator is not None and gateway.simulator.snapshot().active == 0)
        assert outcomes(facts) == ["left"]


@both
async def test_a_client_that_leaves_before_the_first_event(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        with trio.move_on_after(0.3):
            async with post(gateway.url + language.path, language.ask("[[wait:20000]][[say:late]]"), AUTH):
                pytest.fail("the head came before the first event")
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        assert outcomes(facts) == ["left"]


@both
async def test_a_client_of_a_whole_answer_that_leaves(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        body = language.ask("[[slow:50]][[tokens:1000]]", stream=False)
        with trio.move_on_after(0.3):
            async with post(gateway.url + language.path, body, AUTH):
                pytest.fail("the answer came before it was whole")
        await until(lambda: gateway.relay.snapshot().in_flight == 0)
        assert outcomes(facts) == ["left"]


@both
async def test_a_slow_client_is_evicted_and_others_go_on(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path, http1__write_deadline=0.5, asgi__write_deadline=0.5) as (gateway, _):
        big = "[[chunk:16]][[tokens:300000]]"  # some 15 MB of events, more than the sockets in between hold
        async with post(gateway.url + language.path, language.ask(big), AUTH, receive_buffer=4096) as slow:
            async with post(gateway.url + language.path, language.ask("[[slow:20]][[tokens:60]]"), AUTH) as other:
                body = await other.read()  # 1.2 s, longer than the slow one is suffered
            assert language.is_whole(body)
            assert language.text(body).split() == [f"w{n}" for n in range(1, 61)]
            await until(lambda: gateway.door.snapshot().evicted == 1)
            with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
                await slow.read()


FAULTS = [
    ("[[fault:reset]]", "reset"),
    ("[[fault:crc]]", "corrupt frame"),
    ("[[fault:exception THROTTLE]]", "exception frame"),
    ("[[fault:exception INTERNAL]]", "exception frame"),
    ("[[cut:5]]", "cut"),
]


@both
@pytest.mark.parametrize(("fault", "name"), FAULTS, ids=[name for _, name in FAULTS])
async def test_a_stream_that_breaks_is_an_error_event(
    language: Language, fault: str, name: str, tmp_path: Path
) -> None:
    async with running(tmp_path) as (gateway, facts):
        prompt = f"[[slow:5]]{fault}[[tokens:40]]"
        async with post(gateway.url + language.path, language.ask(prompt), AUTH) as response:
            assert response.status == 200
            body = await response.read()
        assert not language.is_whole(body), name
        assert language.text(body).startswith("w1")
        assert language.error(body)["message"]
        assert outcomes(facts) == ["failed"]


@both
async def test_a_whole_answer_that_breaks_is_a_5xx(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, _):
        body = language.ask("[[cut:5]][[tokens:40]]", stream=False)
        async with post(gateway.url + language.path, body, AUTH) as response:
            assert response.status == 502
            assert language.error(await response.read())["message"]


@both
async def test_a_call_that_broke_off_is_not_in_a_whole_answer(language: Language, tmp_path: Path) -> None:
    tool = {"name": "put_file", "description": "Writes.", "input_schema": {"type": "object"}}
    if language.name != "anthropic":
        tool = {"name": "put_file", "description": "Writes.", "parameters": {"type": "object"}}
    tools = {"anthropic": [tool], "openai_chat": [{"type": "function", "function": tool}]}
    prompt = '[[chunk:3]][[say:on it ]][[fault:exception CONTEXT 6]][[tool:put_file {"text":"a long one"}]]'
    if language.name not in tools:
        return
    async with running(tmp_path) as (gateway, _):
        ask = language.ask(prompt, stream=False, tools=tools[language.name])
        async with post(gateway.url + language.path, ask, AUTH) as response:
            body = await response.read()
    assert b"a long" not in body
    assert b"put_file" not in body
    assert b'"max_tokens"' in body or b'"length"' in body


@both
async def test_a_stall_is_a_timeout(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path, relay__deadlines__idle=0.3) as (gateway, facts):
        async with post(gateway.url + language.path, language.ask("[[fault:stall]][[tokens:40]]"), AUTH) as response:
            body = await response.read()
        assert not language.is_whole(body)
        assert "0.3 s" in language.error(body)["message"]
        assert outcomes(facts) == ["failed"]


@both
async def test_nothing_within_the_first_deadline_is_a_504(language: Language, tmp_path: Path) -> None:
    ask = language.ask("[[wait:9000]][[say:x]]")
    async with (
        running(tmp_path, relay__deadlines__first_event=0.3) as (gateway, _),
        post(gateway.url + language.path, ask, AUTH) as response,
    ):
        assert response.status == 504
        assert "0.3 s" in language.error(await response.read())["message"]


@both
async def test_an_upstream_that_is_not_there_is_a_502(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        provider = gateway.relay.own.provider
        provider.settings = replace(provider.settings, endpoint="http://127.0.0.1:9")  # type: ignore[attr-defined]
        async with post(gateway.url + language.path, language.ask("[[say:x]]"), AUTH) as response:
            assert response.status == 502
            assert "127.0.0.1:9" in language.error(await response.read())["message"]
        assert outcomes(facts) == ["failed"]


@both
async def test_a_late_failure_after_a_held_head_is_an_error_event(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path, server__stream__hold_head=0.1, server__stream__heartbeat=0.2) as (gateway, _):
        prompt = "[[wait:700]][[error:THROTTLE]]"
        async with post(gateway.url + language.path, language.ask(prompt), AUTH) as response:
            assert response.status == 200
            body = await response.read()
        assert body.startswith(b"event: ping" if language.name == "anthropic" else b":")
        assert not language.is_whole(body)
        assert language.error(body)["message"]


@both
async def test_heartbeats_during_a_silence(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path, server__stream__heartbeat=0.1) as (gateway, _):
        async with post(
            gateway.url + language.path, language.ask("[[slow:500]][[chunk:2]][[say:abcd]]"), AUTH
        ) as response:
            body = await response.read()
        beats = body.count(b"event: ping" if language.name == "anthropic" else b"\n: ")
        assert beats >= 2
        assert language.text(body) == "abcd"
        assert language.is_whole(body)


@both
async def test_an_expired_token_is_refreshed_unseen(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):
        assert gateway.simulator is not None
        gateway.simulator.revoke_access_tokens()
        async with post(gateway.url + language.path, language.ask("[[say:fine]]"), AUTH) as response:
            body = await response.read()
        assert language.text(body) == "fine"
        assert outcomes(facts) == ["end"]


@both
async def test_a_stop_lets_streams_finish(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, _):
        async with post(gateway.url + language.path, language.ask("[[slow:20]][[tokens:20]]"), AUTH) as response:
            await response.read_some()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, gateway, 10.0)
                body = await response.read()
        assert language.is_whole(body)


@both
async def test_a_stop_that_cannot_wait_says_so(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, _):
        async with post(gateway.url + language.path, language.ask("[[slow:50]][[tokens:9000]]"), AUTH) as response:
            await response.read_some()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, gateway, 0.2)
                body = await response.read()
        assert not language.is_whole(body)
        assert "being stopped" in language.error(body)["message"]
        with pytest.raises(OSError, match="refused"):
            async with post(gateway.url + language.path, language.ask("[[say:x]]"), AUTH):
                pass


@both
async def test_two_hundred_at_once(language: Language, tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, facts):

        async def one(number: int) -> None:
            async with post(gateway.url + language.path, language.ask(f"[[say:turn {number}]]"), AUTH) as response:
                assert language.text(await response.read()) == f"turn {number}"

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(one, number)
        assert outcomes(facts) == ["end"] * 200


@both
@pytest.mark.parametrize(
    "prompt",
    ["[[tokens:5]]", "[[think:hm]][[tokens:5]]", "[[error:VALIDATION]]", "[[error:THROTTLE]]", "[[cut:2]][[tokens:9]]"],
)
async def test_a_turn_that_is_over_is_let_go_at_once(language: Language, prompt: str, tmp_path: Path) -> None:
    """And not at the next collection of cycles: its request is as long as the conversation."""

    def kept() -> int:
        return sum(type(each) is TurnRequest for each in gc.get_objects())

    async with running(tmp_path, relay__turns__replay=0, responses__linger=0) as (gateway, facts):
        gc.collect()
        before = kept()
        gc.disable()
        try:
            for _ in range(5):
                async with post(gateway.url + language.path, language.ask(prompt), AUTH) as response:
                    await response.read()
            await until(lambda: len(outcomes(facts)) == 5)
            await until(lambda: kept() <= before + 1)  # whoever served the last one may still have it
        finally:
            gc.enable()
