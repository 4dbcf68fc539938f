from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import h11
import httpx
import pytest
import trio
import trio.testing

from helpers.simulated import FakeExchange, answer, asking, call, events, generate
from helpers.talk import open_door
from kirostream.accounts.account import AuthMethod, Credential
from kirostream.accounts.oidc import AuthHosts, AuthRequest, read_refresh, refresh_request
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.errors import classify
from kirostream.dialects.kiro.request import write_request
from kirostream.dialects.kiro.response import read_error
from kirostream.errors import (
    AccessDenied,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    FormRefused,
    FrameError,
    KirostreamError,
    ModelNotOnAccount,
    QuotaSpent,
    SettingsError,
    StreamCut,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
)
from kirostream.filters.repair import stricter
from kirostream.providers.kiro import KiroProvider
from kirostream.simulator.catalogue import OFFERS
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator, serve
from kirostream.turn.events import BlockDelta, Stop, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import Text, Thinking, Thought, Tool, ToolCall

PLAIN = SimulatorSettings(plain_reply="OK")


def refused(exchange: FakeExchange) -> KirostreamError:
    """The refusal as the gateway understands it."""
    assert exchange.status >= 400
    complaint = read_error(list(exchange.headers.items()), exchange.answer)
    return classify(complaint, exchange.status)


def words(exchange: FakeExchange) -> str:
    (block,) = answer(exchange).content
    assert isinstance(block, Text)
    return block.text


# Answers


async def test_it_says_what_it_is_told() -> None:
    exchange = await generate(Simulator(), "[[say:Hello, 日本語 😀]]")
    assert words(exchange) == "Hello, 日本語 😀"
    assert exchange.headers[b"content-type"] == b"application/vnd.amazon.eventstream"
    assert exchange.headers[b"x-amzn-codewhisperer-conversation-id"] == b"conversation"


async def test_a_strange_conversation_id_does_not_break_the_head() -> None:
    body = write_request(asking("hi"), Stamp(Model("auto"), "a\r\nx: é "))
    exchange = await call(Simulator(), "POST", "/generateAssistantResponse", body)
    assert exchange.headers[b"x-amzn-codewhisperer-conversation-id"] == b"a??x: ?"


async def test_every_answer_has_its_request_id() -> None:
    simulator = Simulator()
    exchanges = [await generate(simulator, "[[say:x]]"), await generate(simulator, "[[error:ACCESS]]")]
    ids = {exchange.headers[b"x-amzn-requestid"] for exchange in exchanges}
    assert len(ids) == 2


async def test_calls_and_thoughts() -> None:
    result = answer(await generate(Simulator(), '[[think:hm 😀]][[say:x]][[tool:a {"p":1}]][[tool:b]]'))
    thought, text, first, second = result.content
    assert isinstance(thought, Thought)
    assert thought.text == "hm 😀"
    assert thought.signature
    assert text == Text("x")
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.name, first.arguments) == ("a", b'{"p":1}')
    assert (second.name, second.arguments) == ("b", b"{}")
    assert first.id != second.id
    assert result.stop is Stop.TOOL_CALL


async def test_call_ids_never_come_twice() -> None:
    simulator = Simulator()
    ids = set()
    for _ in range(3):
        ids |= {
            b.id for b in answer(await generate(simulator, "[[tool:a]][[tool:a]]")).content if isinstance(b, ToolCall)
        }
    assert len(ids) == 6


async def test_the_cost_is_told() -> None:
    usage = answer(await generate(Simulator(), "[[tokens:100]]")).usage
    assert usage.credits
    assert usage.context_percentage
    assert usage.output_tokens > 50


async def test_auto_says_which_model_it_picked() -> None:
    assert answer(await generate(Simulator(), "[[say:{{model}}]]")).model == "claude-sonnet-4.5"
    assert words(await generate(Simulator(), "[[say:{{model}}]]")) == "auto"


@pytest.mark.parametrize("reply", ["OK", "quote"])
async def test_a_plain_message(reply: str) -> None:
    said = words(await generate(Simulator(SimulatorSettings(plain_reply=reply)), "What is\nthe weather?"))
    assert said == "OK" if reply == "OK" else 'You wrote: "What is the weather?"' in said


async def test_plain_replies_hang_on_the_seed() -> None:
    replies = [words(await generate(Simulator(SimulatorSettings(seed=seed)), "hi")) for seed in (1, 1, 2, 3, 4, 5)]
    assert replies[0] == replies[1]
    assert len(set(replies)) > 1


async def test_a_quote_is_what_was_typed() -> None:
    reminder = "<system-reminder>\nlong rules\n</system-reminder>"
    said = words(await generate(Simulator(), f"{reminder}\n\nhello {'x' * 300}\n{reminder}"))
    assert "rules" not in said
    assert '"hello xxx' in said
    assert "x…" in said


async def test_a_plain_reply_thinks_where_it_is_asked_to() -> None:
    asked = asking("hi", model="claude-opus-4.7")
    body = write_request(
        type(asked)(model=asked.model, messages=asked.messages, thinking=Thinking(True)),
        Stamp(next(offer.model for offer in OFFERS if offer.model.id == "claude-opus-4.7")),
    )
    result = answer(await call(Simulator(), "POST", "/generateAssistantResponse", body))
    assert [type(block) for block in result.content] == [Thought, Text]


@pytest.mark.parametrize(
    ("script", "pieces"),
    [
        ("[[say:abcdefghij]]", ["abcd", "efgh", "ij"]),
        ("[[chunk:3]][[say:abcdefg]]", ["abc", "def", "g"]),
        ("[[chunk:3]][[say:ab]][[say:cd]]", ["abc", "d"]),
        ("[[chunk:byte]][[say:é😀]]", ["é", "😀"]),
        ("[[chunk:u16]][[say:é😀a]]", ["é", "😀", "a"]),
    ],
)
async def test_pieces(script: str, pieces: list[str]) -> None:
    said = events(await generate(Simulator(), script))
    assert [piece.decode() for e in said if isinstance(e, BlockDelta) for piece in e.pieces] == pieces


async def test_halves_of_a_pair_come_in_two_events() -> None:
    exchange = await generate(Simulator(), '[[chunk:u16]][[say:😀]][[tool:a {"x":"😀"}]]')
    assert exchange.answer.count(b'{"content":"\\ud83d"') == 1
    assert exchange.answer.count(b'{"content":"\\ude00"') == 1
    assert exchange.answer.count(b'"input":"\\ud83d"') == 1
    _, made = answer(exchange).content
    assert isinstance(made, ToolCall)
    assert json.loads(made.arguments) == {"x": "😀"}


async def test_byte_cuts_every_three_bytes() -> None:
    exchange = await generate(Simulator(), "[[chunk:byte]][[say:日本語 😀]]")
    assert {len(data) for _, data in exchange.sent[:-1]} <= {1, 2, 3}
    assert words(exchange) == "日本語 😀"


# Pace


async def test_slow_and_wait(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    exchange = await generate(Simulator(), "[[wait:1500]][[slow:250]][[chunk:1]][[say:abc]]")
    times = [round(at - start, 6) for at in exchange.times]
    assert times == [1.5, 1.75, 2.0, 2.0]
    assert words(exchange) == "abc"


async def test_the_pace_of_the_settings(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(SimulatorSettings(tokens_per_second=10, first_token_delay=2))
    start = trio.current_time()
    exchange = await generate(simulator, "[[chunk:1]][[say:abcd]]")
    assert [round(at - start, 6) for at in exchange.times] == [2.0, 2.1, 2.2, 2.3, 2.3]


async def test_slow_outranks_the_settings(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(SimulatorSettings(tokens_per_second=10))
    exchange = await generate(simulator, "[[slow:0]][[chunk:1]][[say:abcd]]")
    assert len(exchange.sent) == 2


async def test_late_beats_go_out_together(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(FakeExchange):
        async def send(self, data: bytes) -> None:
            await trio.sleep(0.35)
            await super().send(data)

    simulator = Simulator(SimulatorSettings(tokens_per_second=10))
    fast = await generate(simulator, "[[chunk:1]][[say:0123456789]]")
    slow = Slow(fast.request, fast.given)
    await simulator(slow)
    assert words(slow) == "0123456789"
    assert len(slow.sent) < len(fast.sent) / 2
    assert slow.times[-1] - slow.times[0] < 1.5


# Errors and faults


@pytest.mark.parametrize("rpc", [False, True], ids=["rest", "json 1.0"])
@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("THROTTLE", 429, AccountThrottled),
        ("QUOTA", 402, QuotaSpent),
        ("VALIDATION", 400, FormRefused),
        ("CONTEXT", 400, ContextOverflow),
        ("ACCESS", 403, AccessDenied),
        ("INTERNAL", 500, UpstreamFault),
        ("UNAVAILABLE", 503, UpstreamOverloaded),
    ],
)
async def test_errors(name: str, status: int, kind: type[KirostreamError], rpc: bool) -> None:
    exchange = await generate(Simulator(), f"[[error:{name}]]", rpc=rpc)
    assert exchange.status == (400 if rpc and status < 500 else status)
    assert type(refused(exchange)) is kind


async def test_an_error_waits_too(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    exchange = await generate(Simulator(), "[[wait:700]][[error:THROTTLE]]")
    assert exchange.times == [round(start + 0.7, 6)]


async def test_fail_then_work() -> None:
    simulator = Simulator()
    script = "[[fail:THROTTLE 2 k1]][[say:ok after {{attempt}}]]"
    assert [(await generate(simulator, script)).status for _ in range(2)] == [429, 429]
    assert words(await generate(simulator, script)) == "ok after 3"
    assert (await generate(Simulator(), script)).status == 429


@pytest.mark.parametrize(("count", "pieces"), [(0, 0), (2, 2), (7, 7), (99, 7)])
async def test_cut(count: int, pieces: int) -> None:
    exchange = await generate(Simulator(), f"[[cut:{count}]][[tokens:9]]")
    assert (exchange.status, exchange.ending) == (200, "cut")
    assert exchange.answer.count(b'"content"') == pieces
    assert (await generate(Simulator(), "[[tokens:9]]")).answer.startswith(exchange.answer)
    with pytest.raises(StreamCut):
        answer(exchange)


async def test_cut_for_some_requests() -> None:
    simulator = Simulator()
    endings = [(await generate(simulator, "[[cut:2 1 k]][[tokens:9]]")).ending for _ in range(2)]
    assert endings == ["cut", "whole"]


async def test_reset_breaks_off_inside_a_frame() -> None:
    exchange = await generate(Simulator(), "[[fault:reset 2]][[tokens:9]]")
    assert exchange.ending == "cut"
    exchange.ending = "whole"  # even if it had been closed in good order
    with pytest.raises(StreamCut) as caught:
        answer(exchange)
    assert caught.value.reason == "frame"


async def test_crc_corrupts_one_frame() -> None:
    exchange = await generate(Simulator(), "[[fault:crc 2]][[tokens:9]]")
    assert exchange.ending == "whole"
    with pytest.raises(FrameError) as caught:
        answer(exchange)
    assert caught.value.fault == "message_crc"


async def test_stall_says_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator()
    with trio.move_on_after(3600) as patience:
        await generate(simulator, "[[fault:stall 2]][[tokens:9]]")
    assert patience.cancelled_caught
    assert simulator.snapshot().active == 0
    assert simulator.snapshot().broken == 1


async def test_unstopped_ends_inside_a_call() -> None:
    exchange = await generate(Simulator(), '[[fault:unstopped]][[tool:a {"x":1}]]')
    assert exchange.ending == "whole"
    with pytest.raises(StreamCut) as caught:
        answer(exchange)
    assert caught.value.reason == "tool_call"


async def test_exception_ends_the_stream() -> None:
    exchange = await generate(Simulator(), "[[fault:exception THROTTLE 2]][[tokens:9]]")
    failure = events(exchange)[-1]
    assert isinstance(failure, TurnFailed)
    assert isinstance(failure.error, AccountThrottled)


async def test_exception_before_anything_was_said() -> None:
    (failure,) = events(await generate(Simulator(), "[[fault:exception QUOTA 0]][[tokens:9]]"))
    assert isinstance(failure, TurnFailed)
    assert isinstance(failure.error, QuotaSpent)


async def test_what_is_refused_says_why_in_a_header() -> None:
    exchange = await call(Simulator(), "POST", "/generateAssistantResponse", b"{}")
    assert exchange.status == 400
    assert b"conversationState" in exchange.headers[b"x-simulator-detail"]
    unknown = await generate(Simulator(), asking("hi", model="gpt-2"))
    assert type(refused(unknown)) is ModelNotOnAccount


async def test_an_account_can_be_afflicted() -> None:
    simulator = Simulator()
    good, bad = (simulator.credential(name).access_token.reveal() for name in ("good", "bad"))
    simulator.afflict("bad", "QUOTA")
    assert (await generate(simulator, "hi", token=bad)).status == 402
    assert (await generate(simulator, "hi", token=good)).status == 200
    simulator.afflict("bad", None)
    assert (await generate(simulator, "hi", token=bad)).status == 200


# Who may call


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_a_bad_token_is_refused(token: str) -> None:
    exchange = await generate(Simulator(), "hi", token=token)
    assert exchange.status == 403
    assert exchange.json() == {"message": "The bearer token included in the request is invalid.", "reason": None}
    assert type(refused(exchange)) is CredentialRejected


async def test_tokens_end() -> None:
    now = 1_000_000.0
    simulator = Simulator(SimulatorSettings(token_lifetime=60), now=lambda: now)
    credential = simulator.credential()
    token = credential.access_token.reveal()
    assert credential.expires_at == now + 60
    assert (await generate(simulator, "hi", token=token)).status == 200
    now += 60
    assert (await generate(simulator, "hi", token=token)).status == 403


async def test_tokens_can_be_revoked() -> None:
    simulator = Simulator()
    token = simulator.credential().access_token.reveal()
    simulator.revoke_access_tokens()
    assert (await generate(simulator, "hi", token=token)).status == 403


async def test_a_profile_can_be_required() -> None:
    simulator = Simulator(SimulatorSettings(require_profile_arn=True))
    exchange = await generate(simulator, "hi")
    assert refused(exchange).reason == "PROFILE_ARN_REQUIRED"
    body = write_request(asking("hi"), Stamp(Model("auto"), profile_arn="arn:x"))
    assert (await call(simulator, "POST", "/generateAssistantResponse", body)).status == 200


async def refresh(simulator: Simulator, credential: Credential) -> Any:
    """What the accounts' own code makes of a refresh."""
    hosts = AuthHosts(social="http://simulator", oidc="http://simulator")
    asked = refresh_request(credential, hosts, user_agent="test")
    assert isinstance(asked, AuthRequest)
    path = asked.url.removeprefix("http://simulator")
    exchange = await call(simulator, "POST", path, asked.body, token="")
    return read_refresh(credential, exchange.status, exchange.answer, 0.0)


@pytest.mark.parametrize("auth", ["social", "idc"])
@pytest.mark.parametrize("rotate", [False, True])
async def test_a_refresh(auth: Any, rotate: bool) -> None:
    simulator = Simulator(SimulatorSettings(rotate=rotate, seed=3))
    old = simulator.credential(auth=auth)
    assert old.auth is (AuthMethod.SOCIAL if auth == "social" else AuthMethod.IDC)
    new = await refresh(simulator, old)
    assert isinstance(new, Credential)
    assert new.access_token != old.access_token
    assert (new.refresh_token != old.refresh_token) is rotate
    assert (await generate(simulator, "hi", token=new.access_token.reveal())).status == 200
    again = await refresh(simulator, old)
    assert isinstance(again, Credential) is not rotate
    assert isinstance(await refresh(simulator, new), Credential)


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/refreshToken", {"refreshToken": "nonsense"}, 401, None),
        ("/refreshToken", {}, 401, None),
        ("/token", {"grantType": "refresh_token", "refreshToken": "nonsense"}, 400, "invalid_grant"),
        ("/token", {"grantType": "password"}, 400, "unsupported_grant_type"),
        ("/token", {"grantType": "authorization_code"}, 401, "invalid_client"),
    ],
)
async def test_a_refresh_that_is_refused(path: str, body: dict[str, Any], status: int, error: str | None) -> None:
    exchange = await call(Simulator(), "POST", path, body, token="")
    assert exchange.status == status
    assert exchange.json().get("error") == error


async def test_a_refresh_with_another_registration() -> None:
    simulator = Simulator()
    credential = simulator.credential(auth="idc")
    body = {
        "grantType": "refresh_token",
        "refreshToken": credential.refresh_token.reveal(),
        "clientId": credential.client_id,
        "clientSecret": "other",
    }
    exchange = await call(simulator, "POST", "/token", body, token="")
    assert (exchange.status, exchange.json()["error"]) == (401, "invalid_client")


async def test_a_body_of_no_json_is_refused() -> None:
    assert (await call(Simulator(), "POST", "/refreshToken", b"{", token="")).status == 400
    assert (await call(Simulator(SimulatorSettings(max_body=2)), "POST", "/refreshToken", b"{  }")).status == 400


async def test_the_token_of_the_settings_is_known_from_the_start() -> None:
    exchange = await call(
        Simulator(SimulatorSettings(refresh_token="mine")), "POST", "/refreshToken", {"refreshToken": "mine"}
    )
    assert exchange.status == 200
    assert exchange.json()["profileArn"].startswith("arn:aws:codewhisperer:us-east-1:")


def test_the_token_file() -> None:
    held = Simulator(now=lambda: 0.0).token_file()
    assert held["expiresAt"] == "1970-01-01T01:00:00.000Z"
    assert set(held) == {"accessToken", "refreshToken", "profileArn", "expiresAt", "authMethod", "provider"}


# The other operations


@pytest.mark.parametrize("path", ["/ListAvailableModels", "/List-Available-Models"])
async def test_the_catalogue(path: str) -> None:
    simulator, provider = Simulator(), KiroProvider()
    seen = []
    page = ""
    while True:
        query = f"?origin=AI_EDITOR&maxResults=4{f'&nextToken={page}' if page else ''}"
        exchange = await call(simulator, "GET", path + query)
        models, page = provider.read_models(exchange.answer)
        assert len(models) <= 4
        seen += models
        if not page:
            break
    assert [replace(model, thinking_fields=()) for model in seen] == [offer.model for offer in OFFERS]
    fields = {model.id: model.thinking_fields for model in seen}
    assert fields["claude-haiku-4.5"] == ()
    assert set(fields["claude-opus-4.6"]) == {"thinking.type", "output_config.effort"}
    assert set(fields["claude-opus-4.7"]) == {"thinking.type", "thinking.display", "output_config.effort"}
    assert fields["gpt-5.6-sol"] == ("reasoning.effort",)


async def test_the_catalogue_by_json_1_0() -> None:
    headers = [(b"x-amz-target", b"AmazonCodeWhispererService.ListAvailableModels")]
    exchange = await call(Simulator(), "POST", "/", {"origin": "KIRO_CLI", "maxResults": 2}, headers=headers)
    assert [model["modelId"] for model in exchange.json()["models"]] == ["auto", "claude-sonnet-4"]


async def test_some_models() -> None:
    simulator = Simulator(SimulatorSettings(models="claude-haiku-4.5, house-model"))
    models, _ = KiroProvider().read_models((await call(simulator, "GET", "/ListAvailableModels")).answer)
    assert [model.id for model in models] == ["claude-haiku-4.5", "house-model"]
    assert (await generate(simulator, asking("hi", model="house-model"))).status == 200
    assert (await generate(simulator, "hi")).status == 400


async def test_usage_limits() -> None:
    simulator = Simulator(now=lambda: 1_700_000_000.0)
    await generate(simulator, "[[tokens:1000]]")
    said = (await call(simulator, "GET", "/getUsageLimits?origin=AI_EDITOR")).json()
    assert said["usageBreakdownList"][0]["currentUsageWithPrecision"] > 0
    assert said["daysUntilReset"] == 16
    december = Simulator(now=lambda: 1_703_980_800.0)  # 31 December 2023
    assert (await call(december, "POST", "/getUsageLimits", {})).json()["nextDateReset"] == 1_704_067_200.0


async def test_profiles() -> None:
    simulator = Simulator()
    social, idc = simulator.credential(), simulator.credential("org", "idc")
    exchange = await call(simulator, "POST", "/ListAvailableProfiles", {}, token=social.access_token.reveal())
    assert exchange.status == 403
    exchange = await call(simulator, "POST", "/ListAvailableProfiles", {}, token=idc.access_token.reveal())
    assert [profile["arn"] for profile in exchange.json()["profiles"]] == [idc.profile_arn]


async def test_json_1_0_begins_with_an_initial_response() -> None:
    exchange = await generate(Simulator(), "[[say:x]]", rpc=True)
    assert b"initial-response" in exchange.sent[0][1]
    assert words(exchange) == "x"


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/nope", b""),
        ("GET", "/generateAssistantResponse", b""),
        ("POST", "/", b""),
        ("POST", "/", b"AmazonCodeWhispererService.Nope"),
    ],
)
async def test_an_unknown_operation(method: str, path: str, target: bytes) -> None:
    headers = [(b"x-amz-target", target)] if target else []
    exchange = await call(Simulator(), method, path, headers=headers)
    assert exchange.status == (400 if target else 404)
    assert type(refused(exchange)) is UpstreamDown


async def test_the_counts() -> None:
    simulator = Simulator()
    token = simulator.credential().access_token.reveal()
    for script in ("[[say:x]]", "[[error:THROTTLE]]", "[[cut:1]][[say:x]]"):
        await generate(simulator, script, token=token)
    snapshot = simulator.snapshot()
    assert (snapshot.requests, snapshot.answered, snapshot.refused, snapshot.broken) == (3, 1, 1, 1)
    assert (snapshot.active, snapshot.tokens_issued) == (0, 1)
    assert "requests=3" in repr(simulator)


@pytest.mark.parametrize("bad", [{"chunk": 0}, {"tokens_per_second": -1}, {"first_token_delay": -1}])
def test_settings_that_do_not_fit(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"chunk|negative"):
        SimulatorSettings(**bad)


# Through a door


def http(simulator: Simulator, body: bytes) -> bytes:
    token = simulator.credential().access_token.reveal()
    head = (
        "POST /generateAssistantResponse HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_over_a_connection(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator()
    async with open_door(simulator) as under_test:
        talk = under_test.talk()
        for script, text in (("[[slow:10]][[say:日本語]]", "日本語"), ("[[chunk:byte]][[say:😀]]", "😀")):
            body = write_request(asking(script), Stamp(Model("auto")))
            await talk.send(http(simulator, body))
            said = await talk.answer("POST")
            exchange = FakeExchange(status=said.status, sent=[(0.0, said.body)], ending="whole")
            assert words(exchange) == text
        await talk.send(http(simulator, write_request(asking("[[cut:1]][[say:abcdefgh]]"), Stamp(Model("auto")))))
        with pytest.raises(h11.RemoteProtocolError):
            await talk.answer("POST")
        assert under_test.faults == []


async def test_a_client_that_leaves_ends_its_answer(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator()
    async with open_door(simulator) as under_test:
        talk = under_test.talk()
        body = write_request(asking("[[slow:100]][[tokens:1000]]"), Stamp(Model("auto")))
        await talk.send(http(simulator, body))
        await trio.sleep(1)
        assert simulator.snapshot().active == 1
        await talk.stream.aclose()
        await trio.sleep(1)
        assert simulator.snapshot().active == 0


async def test_serve() -> None:
    async with trio.open_nursery() as nursery:
        simulator, url = await nursery.start(serve, SimulatorSettings(port=0))
        with pytest.raises(SettingsError, match="port"):
            await serve(SimulatorSettings(port=int(url.rpartition(":")[2])))
        token = simulator.credential().access_token.reveal()
        async with httpx.AsyncClient() as client:
            reply = await client.post(
                f"{url}/generateAssistantResponse",
                content=write_request(asking("[[say:hi]]"), Stamp(Model("auto"))),
                headers={"authorization": f"Bearer {token}"},
            )
            assert reply.status_code == 200
            assert b'"hi"' in reply.content
            missing = await client.get(f"{url}/nope")
            assert missing.status_code == 404
        nursery.cancel_scope.cancel()


async def test_the_same_seed_gives_the_same_bytes() -> None:
    scripts = ("hello", "[[think:x]][[say:y]][[tool:a]]", "[[tokens:50]]")
    lives = [
        [(await generate(simulator, script)).answer for script in scripts]
        for simulator in (Simulator(SimulatorSettings(seed=7)), Simulator(SimulatorSettings(seed=7)))
    ]
    assert lives[0] == lives[1]
    assert all(a != b for a, b in pairwise(lives[0]))


# A picky service


DOUBTFUL = Tool("read", "Reads.", b'{"type":"object","properties":{},"additionalProperties":false}')


@pytest.mark.parametrize("directive", [True, False])
async def test_a_picky_service_refuses_what_is_doubted(directive: bool) -> None:
    simulator = Simulator(SimulatorSettings(picky=not directive))
    asked = asking("[[picky]][[say:fine]]" if directive else "[[say:fine]]", tools=(DOUBTFUL,))
    exchange = await generate(simulator, asked)
    assert type(refused(exchange)) is FormRefused
    assert exchange.json() == {"message": "Improperly formed request.", "reason": None}
    variant, _ = stricter(asked, Model("auto"))
    assert words(await generate(simulator, variant)) == "fine"
