"""Where a chat answer says what the model thought."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading, Stamp
from kirostream.dialects.openai_chat.thoughts import FORM, Tagging, ThoughtForm, form_of, in_form, with_form
from kirostream.turn.events import BlockDelta, BlockEnded, BlockKind, BlockStarted, Stop, TurnEnded, TurnStarted
from kirostream.turn.model import Model
from kirostream.turn.request import Search, SearchHit, SearchOutcome, Text, Thought, ToolCall, TurnRequest
from kirostream.turn.result import AnswerBlock, TurnResult, unfold
from kirostream.turn.usage import Usage

HEADING = Heading("0" * 32, 0)
CHAT = DIALECTS["openai_chat"]
FORMS = list(ThoughtForm)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def asking(form: ThoughtForm, **more: Any) -> TurnRequest:
    return with_form(CHAT, form).read_request(json.dumps(BODY | more).encode(), ())


def streamed(request: TurnRequest, result: TurnResult) -> dict[str, Any]:
    """The message that a client puts together of the deltas."""
    writer = CHAT.writer(request, HEADING)
    message: dict[str, Any] = {}
    for event in unfold(result):
        for block in writer.write(event):
            data = block.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                continue
            for choice in json.loads(data)["choices"]:
                for name, value in choice["delta"].items():
                    if name != "tool_calls":
                        message[name] = message[name] + value if name in message else value
    return message


def whole(request: TurnRequest, result: TurnResult) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(CHAT.write_result(request, result, HEADING))["choices"][0]["message"]
    return message


ANSWER = TurnResult((Thought("I see.", "sig"), Text("Yes."), Thought("", redacted="eA=="), Thought("")), Stop.END)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (ThoughtForm.REASONING_CONTENT, {"reasoning_content": "I see.", "content": "Yes."}),
        (ThoughtForm.THINKING, {"thinking": "I see.", "content": "Yes."}),
        (ThoughtForm.THINK, {"content": "<think>I see.</think>\n\nYes."}),
    ],
)
@pytest.mark.parametrize("put", [streamed, whole])
def test_every_form(form: ThoughtForm, said: dict[str, str], put: Any) -> None:
    message = put(asking(form), ANSWER)
    assert {name: message[name] for name in ("reasoning_content", "thinking", "content") if message.get(name)} == said


@given(
    st.lists(
        st.one_of(st.builds(Text, st.text()), st.builds(Thought, st.text()), st.just(ToolCall("c", "n", b"{}"))),
        max_size=5,
    ),
    st.sampled_from(FORMS),
)
def test_streamed_and_whole_are_the_same(content: list[AnswerBlock], form: ThoughtForm) -> None:
    request, result = asking(form), TurnResult(tuple(content), Stop.END)
    ours, theirs = streamed(request, result), whole(request, result)
    for name in ("content", "reasoning_content", "thinking"):
        assert (ours.get(name) or "") == (theirs.get(name) or "")


def test_a_thought_is_said_as_it_comes() -> None:
    writer = CHAT.writer(asking(ThoughtForm.THINK), HEADING)
    writer.write(TurnStarted("m"))
    assert writer.write(BlockStarted(0, BlockKind.THINKING)) == []
    first = b"".join(writer.write(BlockDelta.of(0, "a")))
    assert b"<think>" in first
    assert b'"content":"a"' in first
    assert b'"content":"b"' in b"".join(writer.write(BlockDelta.of(0, "b")))
    assert b"</think>" in b"".join(writer.write(BlockEnded(0)))
    assert b"keep-alive" in writer.heartbeat()


def test_a_thought_without_words_is_no_text() -> None:
    tagging = Tagging()
    events = list(unfold(TurnResult((Thought("", "sig"), Text("a")), Stop.END)))
    assert [out for event in events for out in tagging.take(event)] == [events[0], *events[3:]]


def test_several_choices() -> None:
    request = asking(ThoughtForm.THINK, n=2, stream=True)
    assert CHAT.choices_writer is not None
    assert CHAT.write_results is not None
    writer = CHAT.choices_writer(request, HEADING)
    said = b"".join(block for choice in (0, 1) for event in unfold(ANSWER) for block in writer.write(choice, event))
    assert said.count(b"<think>") == 2
    assert said.endswith(b"data: [DONE]\n\n")
    results = json.loads(CHAT.write_results(request, [ANSWER, ANSWER], HEADING))
    assert [choice["message"]["content"][:7] for choice in results["choices"]] == ["<think>"] * 2


@pytest.mark.parametrize("put", [streamed, whole])
def test_pages_are_cited_at_their_place_behind_the_thought(put: Any) -> None:
    hit = SearchHit("https://x.example/a", "A page")
    found = SearchOutcome("s", (hit,))
    result = TurnResult((Thought("Hm."), found, Text("See [A page](https://x.example/a).")), Stop.END)
    request = asking(ThoughtForm.THINK, web_search_options={})
    assert request.search == Search()
    message = put(request, result)
    (cited,) = message["annotations"]
    start = cited["url_citation"]["start_index"]
    assert message["content"][start:].startswith("[A page]")


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        ("<think>a</think>\n\nb", (Thought("a"), Text("b"))),
        (" <think>\na\n</think>b", (Thought("\na\n"), Text("b"))),
        ("<think>a</think>", (Thought("a"),)),
        ("b <think>a</think>", (Text("b <think>a</think>"),)),
        ("<think>a", (Text("<think>a"),)),
    ],
)
def test_what_comes_back_is_a_thought_again(content: str, blocks: tuple[AnswerBlock, ...]) -> None:
    history = [*BODY["messages"], {"role": "assistant", "content": content}, *BODY["messages"]]
    assert asking(ThoughtForm.THINK, messages=history).messages[1].content == blocks
    for form in (ThoughtForm.REASONING_CONTENT, ThoughtForm.THINKING):
        assert asking(form, messages=history).messages[1].content == (Text(content),)


def test_a_user_may_write_about_tags() -> None:
    message = {"role": "user", "content": "<think>a</think>b"}
    assert asking(ThoughtForm.THINK, messages=[message]).messages[0].content == (Text("<think>a</think>b"),)


def test_no_upstream_hears_of_the_form() -> None:
    for form in FORMS:
        body = CHAT.write_request(asking(form), Stamp(Model("m")))
        assert FORM.encode() not in body


def test_the_usual_form_changes_nothing() -> None:
    assert with_form(CHAT, ThoughtForm.REASONING_CONTENT) is CHAT
    request = asking(ThoughtForm.REASONING_CONTENT)
    assert in_form(request, ThoughtForm.REASONING_CONTENT) is request
    assert form_of(request) is ThoughtForm.REASONING_CONTENT


def test_the_end_stays_the_end() -> None:
    writer = CHAT.writer(asking(ThoughtForm.THINK, stream=True, stream_options={"include_usage": True}), HEADING)
    writer.write(TurnStarted("m"))
    last = writer.write(TurnEnded(Stop.END, Usage(output_tokens=3)))
    assert b'"completion_tokens":3' in b"".join(last)
