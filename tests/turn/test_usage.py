"""Counts, and the percentage that Kiro reports in their place (kiro-protocol.md section 3.6)."""

from __future__ import annotations

from kirostream.turn.request import Image, Message, Role, Text, Tool, ToolCall, ToolResult, TurnRequest
from kirostream.turn.tokens import IMAGE_TOKENS, estimate
from kirostream.turn.usage import Usage, prompt_of_share


def test_prompt_tokens_hold_the_cached_ones() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=100, cache_write_tokens=20)
    assert (usage.prompt_tokens, usage.total_tokens) == (130, 135)


def test_context_percentage_is_prompt_plus_answer() -> None:
    assert prompt_of_share(900, 1.5, 200_000, said=400) == 2_600


def test_context_percentage_never_lowers_the_estimate() -> None:
    assert prompt_of_share(900, 0.01, 200_000, said=400) == 900


def test_an_estimate_weighs_every_part() -> None:
    def request(*content: Text | Image | ToolCall | ToolResult, tools: tuple[Tool, ...] = ()) -> TurnRequest:
        return TurnRequest(model="m", messages=(Message(Role.USER, content),), tools=tools)

    bare = estimate(request(Text("x")))
    assert estimate(request(Text("x"), Image("image/png", "AAAA"))) == bare + IMAGE_TOKENS
    assert estimate(request(Text("x"), ToolResult("id", (Text("y" * 1000),)))) == bare + 195
    assert estimate(request(Text("x"), ToolCall("id", "n", b"z" * 1000))) == bare + 195
    assert estimate(request(Text("x"), tools=(Tool("n", "d" * 1000, b"{}"),))) > bare + 194
