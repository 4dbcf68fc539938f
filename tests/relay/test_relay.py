"""The relay with a scripted upstream: what is tried, what is told, and what is left running."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest
import trio
import trio.testing

from helpers.staged import (
    ASK,
    END,
    FIRST,
    HELLO,
    MORE,
    WRITER,
    Answer,
    FakeClient,
    FakeKeeper,
    Stage,
    Step,
    ok,
    outcome,
    saying,
    stage,
)
from kirostream.accounts.keeper import TokenKeeper
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.errors import (
    AccountThrottled,
    CredentialRejected,
    KirostreamError,
    LocalProtocolError,
    ShuttingDown,
    StreamCut,
    UnknownModel,
    UpstreamDown,
    UpstreamFault,
    UpstreamTimeout,
)
from kirostream.filters import FilterSettings
from kirostream.net.client import HttpClient
from kirostream.relay.asking import new_uuid
from kirostream.relay.log import WINDOW
from kirostream.relay.relay import RelaySettings, conversation_ids
from kirostream.telemetry.facts import AttemptFailed, Faulted
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.request import (
    Message,
    OutputFormat,
    Role,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import fold
from kirostream.turn.tokens import estimate
from kirostream.turn.usage import Usage


async def test_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(*HELLO)) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
        assert fold(live.log.events).content == (Text("hello"),)
    done = on.finished()
    assert (done.outcome, done.attempts, done.credits, done.account) == ("end", 1, 0.5, "someone")
    assert done.first_event is not None


@pytest.mark.parametrize("failure", [UpstreamDown("x"), Answer(500, []), Answer(503, [])], ids=["down", "500", "503"])
async def test_the_upstreams_fault_is_tried_again(
    failure: Answer | KirostreamError, autojump_clock: trio.testing.MockClock
) -> None:
    async with stage(failure, failure, ok(*HELLO)) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
        assert live.attempts == 3
    assert trio.current_time() >= 3.0  # 1 s, then 2 s
    assert [fact.action for fact in on.facts if isinstance(fact, AttemptFailed)] == ["try again"] * 2


async def test_tries_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(*[Answer(500, [])] * 3) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, UpstreamFault)
    assert on.finished().outcome == "failed"


async def test_a_rejected_token_is_replaced_once(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(Answer(403, []), ok(*HELLO)) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
    assert on.client.asked == ["t0", "t1"]
    async with stage(Answer(403, []), Answer(403, [])) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, CredentialRejected)


async def test_a_throttle_goes_to_the_client(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(Answer(429, [])) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, AccountThrottled)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([FIRST, StreamCut("cut")], StreamCut),
        ([FIRST, MORE[:7]], StreamCut),
        ([FIRST, b"\xff" * 40], KirostreamError),
        ([FIRST, 30.0], UpstreamTimeout),
        ([FIRST, *[19.0, MORE] * 6], UpstreamTimeout),
        ([FIRST, RuntimeError("a bug")], LocalProtocolError),
    ],
    ids=["cut", "inside a frame", "garbage", "idle", "total", "bug"],
)
async def test_nothing_is_repeated_once_something_was_said(
    steps: Sequence[Step], error: type[KirostreamError], autojump_clock: trio.testing.MockClock
) -> None:
    async with stage(ok(*steps), ok(*HELLO)) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, error)
        assert len(on.client.asked) == 1
    assert any(isinstance(fact, Faulted) for fact in on.facts) == (error is LocalProtocolError)


async def test_silence_before_the_first_event(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(11.0, *HELLO), ok(11.0, *HELLO)) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, UpstreamTimeout)
        assert failed.error.reason == "first_event"
        assert trio.current_time() == 20


async def test_silence_before_the_first_event_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(11.0, *HELLO), ok(*HELLO)) as on, on.relay.turn(ASK) as live:
        assert isinstance(await outcome(live), TurnEnded)
        assert trio.current_time() == 10


async def test_a_refusal_in_the_first_frame_is_no_event(autojump_clock: trio.testing.MockClock) -> None:
    refusal = b"".join(WRITER.write(TurnFailed(AccountThrottled("slow down"))))
    async with stage(ok(refusal)) as on, on.relay.turn(ASK) as live:
        failed = await outcome(live)
        assert live.log.events == [failed]
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, AccountThrottled)


async def test_leaving_cancels_the_upstream(autojump_clock: trio.testing.MockClock) -> None:
    answer = ok(FIRST, 1000.0)
    async with stage(answer) as on:
        async with on.relay.turn(ASK) as live:
            assert await live.log.beyond(0)
            assert not answer.closed
        assert answer.closed
        assert on.relay.snapshot().in_flight == 0
    assert on.finished().outcome == "left"


async def test_a_limit_ends_the_turn_and_the_upstream_call(autojump_clock: trio.testing.MockClock) -> None:
    answer = ok(FIRST, MORE, 1000.0, END)
    ask = replace(ASK, sampling=Sampling(stop=("lo",)))
    async with stage(answer) as on, on.relay.turn(ask) as live:
        ended = await outcome(live)
        assert isinstance(ended, TurnEnded)
        assert (ended.stop, ended.stop_sequence) == (Stop.STOP_SEQUENCE, "lo")
        assert fold(live.log.events).content == (Text("hel"),)
        assert answer.closed
    assert trio.current_time() < 10


SHAPED = replace(ASK, output=OutputFormat(b'{"type":"object","required":["a"]}'))


async def test_an_answer_out_of_shape_is_asked_for_once_more(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(saying('{"b":1}'), saying('Sorry: {"a":1}')) as on, on.relay.turn(SHAPED) as live:
        ended = await outcome(live)
        assert isinstance(ended, TurnEnded)
        assert ended.usage.credits == 1.0
        assert fold(live.log.events).content == (Text('{"a":1}'),)
    assert len(on.client.asked) == 2


async def test_an_answer_that_stays_out_of_shape_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(saying('{"b":1}'), saying("no")) as on, on.relay.turn(SHAPED) as live:
        failed = await outcome(live)
        assert live.log.events == [failed]
        assert isinstance(failed, TurnFailed)
        assert failed.error.reason == "output_format"


async def test_a_failure_behind_a_shape_is_the_failure(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(Answer(429, [])) as on, on.relay.turn(SHAPED) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, AccountThrottled)
    async with stage(ok(FIRST, StreamCut("cut"))) as on, on.relay.turn(SHAPED) as live:
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, StreamCut)


async def test_the_end_of_the_process_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(FIRST, 1000.0, MORE)) as on, on.relay.turn(ASK) as live:
        await live.log.beyond(0)
        on.relay.fail_all(ShuttingDown("bye"))
        failed = await outcome(live)
        assert isinstance(failed, TurnFailed)
        assert isinstance(failed.error, ShuttingDown)


async def test_a_stalled_client_holds_the_upstream_back(autojump_clock: trio.testing.MockClock) -> None:
    answer = ok(FIRST, *[MORE] * (WINDOW + 50))
    async with stage(answer) as on, on.relay.turn(ASK) as live:
        await trio.testing.wait_all_tasks_blocked()
        assert len(live.log.events) == WINDOW
        assert len(answer.steps) > 40
        live.log.mark_read(WINDOW)
        assert isinstance(await outcome(live), TurnEnded)


async def test_a_whole_answer_is_not_held_back(autojump_clock: trio.testing.MockClock) -> None:
    ask = TurnRequest(model="m", messages=ASK.messages, stream=False)
    async with stage(ok(FIRST, *[MORE] * (WINDOW + 50))) as on, on.relay.turn(ask) as live:
        assert isinstance(await outcome(live), TurnEnded)


async def test_a_turn_that_nobody_attends_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(FIRST, *[MORE] * (WINDOW + 50), END)) as on:
        live = await on.relay.begin(ASK)
        await live.over.wait()
        assert isinstance(live.log.events[-1], TurnEnded)
        assert on.finished().outcome == "end"


async def test_a_turn_that_nobody_attends_can_be_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(ok(FIRST, 1000.0)) as on:
        live = await on.relay.begin(ASK)
        await live.log.beyond(0)
        live.fail(ShuttingDown("Enough."))
        await live.over.wait()
        assert on.relay.snapshot().in_flight == 0
        assert on.finished().outcome == "failed"


async def test_estimates_are_corrected_by_what_the_upstream_counts(autojump_clock: trio.testing.MockClock) -> None:
    """Three long prompts of which the upstream says that they were a fifth longer than we took them for."""
    long = replace(ASK, messages=(Message(Role.USER, (Text("word " * 8_000),)),))
    guess = estimate(long)
    counted = Usage(input_tokens=round(guess * 1.2), output_tokens=3)
    answers = [ok(FIRST, b"".join(WRITER.write(TurnEnded(Stop.END, counted)))) for _ in range(4)]
    async with stage(*answers) as on:
        told = []
        for _ in range(4):
            async with on.relay.turn(long) as live:
                await outcome(live)
                started = live.log.events[0]
                assert isinstance(started, TurnStarted)
                told.append(started.usage.input_tokens)
        assert told == [guess, guess, guess, round(guess * 1.2)]
        assert on.relay.corrected("M", 1_000) == 1_200
        assert on.relay.corrected("other", 1_000) == 1_000


async def test_an_unknown_model_is_not_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with stage() as on:
        with pytest.raises(UnknownModel):
            async with on.relay.turn(TurnRequest(model=" ", messages=ASK.messages)):
                pytest.fail("a turn began")


async def test_cancelled_at_any_checkpoint_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """Cancel the asking task at its k-th checkpoint, for every k, until it gets through."""
    for k in range(200):
        answer = ok(FIRST, 1.0, MORE, END)
        async with stage(UpstreamDown("x"), answer) as on:
            through = await _cancel_at(k, on)
            assert on.relay.snapshot().in_flight == 0
            assert answer.closed or len(on.client.asked) < 2
        if through:
            assert k > 2
            return
    pytest.fail("it never got through")


async def _cancel_at(k: int, on: Stage) -> bool:
    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + k * 0.25
        async with on.relay.turn(ASK) as live:
            await outcome(live)
            return True
    return False


@pytest.mark.parametrize(
    ("change", "same_conversation", "same_continuation"),
    [
        (lambda m: (*m, Message(Role.ASSISTANT, (ToolCall("c", "n", b"{}"),))), True, True),
        (lambda m: (*m, Message(Role.USER, (ToolResult("c", (Text("r"),)),))), True, True),
        (lambda m: (*m, Message(Role.USER, (Text("more"),))), True, False),
        (lambda m: (Message(Role.USER, (Text("other"),)),), False, False),
    ],
    ids=["call", "result", "utterance", "other"],
)
def test_ids_of_a_conversation(
    change: Callable[[tuple[Message, ...]], tuple[Message, ...]], same_conversation: bool, same_continuation: bool
) -> None:
    before = conversation_ids(ASK, "k")
    after = conversation_ids(TurnRequest(model="m", messages=change(ASK.messages)), "k")
    assert (before[0] == after[0], before[1] == after[1]) == (same_conversation, same_continuation)


def test_conversations_of_two_callers_are_two() -> None:
    assert conversation_ids(ASK, "one") != conversation_ids(ASK, "two")


def test_ids_are_uuids_of_their_kinds() -> None:
    space = uuid.UUID("8f1a1f2e-53f0-5c0e-9f0b-6b69726f7374")
    said = [Message(Role.USER, (Text(text),)) for text in ("", "first \N{SNOWMAN}", "last")]
    said.insert(1, Message(Role.ASSISTANT, (Text("not a person"),)))
    conversation = uuid.uuid5(space, "scope\nfirst \N{SNOWMAN}")
    found = conversation_ids(TurnRequest(model="m", messages=tuple(said)), "scope")
    assert found == (str(conversation), str(uuid.uuid5(conversation, "last")))
    for _ in range(64):
        made = uuid.UUID(text := new_uuid())
        assert (made.version, made.variant, str(made)) == (4, uuid.RFC_4122, text)


def test_the_fakes_keep_up_with_what_they_stand_for() -> None:
    for real, fake, names in (
        (HttpClient, FakeClient, ("stream", "fetch")),
        (TokenKeeper, FakeKeeper, ("token", "reject")),
    ):
        for name in names:
            there, here = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (real, fake))
            assert there[: len(here)] == here


async def test_what_was_cut_off_is_told_in_the_next_request(autojump_clock: trio.testing.MockClock) -> None:
    writer = DIALECTS["kiro"].writer(ASK, Heading("0" * 32, 0))
    half = (TurnStarted("m"), BlockStarted(0, BlockKind.TOOL_CALL, "c1", "Write"), BlockDelta.of(0, '{"text":"once'))
    call = b"".join(b"".join(writer.write(event)) for event in half)
    with_result = replace(
        ASK,
        messages=(
            *ASK.messages,
            Message(Role.ASSISTANT, (ToolCall("c1", "Write", b"{}"),)),
            Message(Role.USER, (ToolResult("c1", (Text("bad arguments"),)),)),
        ),
    )
    async with stage(ok(call), ok(*HELLO), ok(*HELLO), ok(*HELLO)) as on:
        async with on.relay.turn(ASK, scope="me") as live:
            failed = await outcome(live)
            assert isinstance(failed, TurnFailed)
            assert isinstance(failed.error, StreamCut)
        for scope in ("me", "you"):
            async with on.relay.turn(with_result, scope=scope) as live:
                assert isinstance(await outcome(live), TurnEnded)
                assert live.request == with_result  # what the client asked stays what it is
    first, mine, yours = on.provider.fitted
    assert first == ASK
    (result,) = mine.messages[-1].content
    assert isinstance(result, ToolResult)
    assert result.is_error
    assert "cut off" in cast(Text, result.content[-1]).text
    assert yours == with_result


async def test_recovery_can_be_switched_off(autojump_clock: trio.testing.MockClock) -> None:
    off = RelaySettings(filters=FilterSettings(truncation_recovery=False))
    writer = DIALECTS["kiro"].writer(ASK, Heading("0" * 32, 0))
    half = (TurnStarted("m"), BlockStarted(0, BlockKind.TOOL_CALL, "c1", "Write"), BlockDelta.of(0, '{"text":"once'))
    call = b"".join(b"".join(writer.write(event)) for event in half)
    async with stage(ok(call), ok(*HELLO), settings=off) as on:
        for _ in range(2):
            async with on.relay.turn(ASK) as live:
                await outcome(live)
    assert on.provider.fitted == [ASK, ASK]


@pytest.mark.parametrize(
    ("asked", "enabled"), [("m", False), ("m-thinking", True), ("m-thinking[1m]", True), ("m-20250929", False)]
)
async def test_thinking_by_name_and_by_tags(asked: str, enabled: bool, autojump_clock: trio.testing.MockClock) -> None:
    tags = RelaySettings(filters=FilterSettings(thinking_tags=True))
    asking = replace(ASK, model=asked)
    async with stage(saying("<think>Hm.</think>Yes."), settings=tags) as on, on.relay.turn(asking) as live:
        await outcome(live)
        said = fold(live.log.events).content
        assert live.request.model == asked
    (fitted,) = on.provider.fitted
    assert fitted.thinking.enabled == enabled
    assert bool(fitted.system) == enabled
    assert said == ((Thought("Hm."), Text("Yes.")) if enabled else (Text("<think>Hm.</think>Yes."),))


async def test_a_call_in_text_is_made_where_the_operator_wants_it(autojump_clock: trio.testing.MockClock) -> None:
    asking = replace(ASK, tools=(Tool("Read", "", b"{}"),))
    text = '[Called Read_x with args: {"path":"a"}]'  # as the upstream calls it
    for wanted in (True, False):
        settings = RelaySettings(filters=FilterSettings(text_calls=wanted))
        async with stage(saying(text), settings=settings) as on, on.relay.turn(asking) as live:
            ended = await outcome(live)
            (block,) = fold(live.log.events).content
        assert isinstance(ended, TurnEnded)
        assert ended.stop is (Stop.TOOL_CALL if wanted else Stop.END)
        assert isinstance(block, ToolCall if wanted else Text)
        assert not isinstance(block, ToolCall) or block.name == "Read"
