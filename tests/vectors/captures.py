"""What becomes of every captured request, in facts: read, sent to Kiro, answered, and written back.

``python tests/vectors/captures.py`` writes `captures.txt` again. The captures belong to their clients and are not in
the repository; what is kept of them here are numbers, kinds and names, no sentence. A change of how requests are read,
repaired or written shows as changed lines of the clients it touches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
import trio.testing

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.captures import Capture, captures
from helpers.simulated import call
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import write_request
from kirostream.dialects.kiro.response import Reader
from kirostream.filters.request_rules import apply_rules
from kirostream.simulator.catalogue import offers
from kirostream.simulator.upstream import Simulator
from kirostream.turn.events import TurnEvent
from kirostream.turn.request import (
    Attachment,
    Image,
    Message,
    SearchCall,
    SearchOutcome,
    Text,
    Thought,
    ToolCall,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import fold
from kirostream.turn.tokens import estimate

GOLDEN: Final = Path(__file__).parent / "captures.txt"
MODEL: Final = offers("")["claude-opus-4.7"].model
"""Every capture is sent to one model, whatever its client asked for: it has room, images and native thinking."""
STAMP: Final = Stamp(MODEL, "conversation", "continuation")


@dataclass(frozen=True)
class Played:
    """A capture on its way there and back. `status` is the simulated service's, 200 where it took the request."""

    capture: Capture
    request: TurnRequest
    body: dict[str, Any]
    status: int
    refusal: str
    events: Sequence[TurnEvent]


async def play(capture: Capture) -> Played:
    """Read it, repair it, send it to a strict simulator, and read what comes."""
    request = capture.read()
    fitted = apply_rules(request)
    body = write_request(fitted, STAMP)
    exchange = await call(Simulator(), "POST", "/generateAssistantResponse", body)
    events: list[TurnEvent] = []
    if exchange.status == 200:
        reader = Reader(fitted, MODEL)
        events = [event for _, data in exchange.sent for event in reader.feed(data)]
        events += reader.close()
    refusal = "" if exchange.status == 200 else exchange.answer.decode()
    return Played(capture, request, json.loads(body), exchange.status, refusal, events)


def play_all() -> list[Played]:
    """Every capture, in the order of their names."""

    async def run() -> list[Played]:
        return [await play(capture) for capture in captures()]

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def facts(played: Played) -> Iterator[str]:
    """What is worth knowing, a line each."""
    request = played.request
    thinking = request.thinking
    asked = [
        request.model,
        *(["streamed"] if request.stream else []),
        *([f"max_tokens {request.sampling.max_tokens}"] if request.sampling.max_tokens is not None else []),
        *([f"thinking {thinking.effort or thinking.budget or 'on'}"] if thinking.enabled else []),
        *([f"tool_choice {request.tool_choice.mode}"] if request.tool_choice.mode != "auto" else []),
        *(["one call at most"] if not request.tool_choice.parallel else []),
        *(["a shape"] if request.output else []),
        *(["web search"] if request.search else []),
        *(["session"] if request.session else []),
        *([f"stops {len(request.sampling.stop)}"] if request.sampling.stop else []),
        f"extras {' '.join(sorted(request.extras)) or 'none'}",
    ]
    yield f"{played.capture.name} ({request.spoken_in})"
    yield f"  asked: {', '.join(asked)}"
    yield f"  read: {len(request.system)} system texts, {len(request.tools)} tools, about {estimate(request)} tokens"
    for message in request.messages:
        yield f"    {message.role.value}: {_blocks(message)}"
    state = played.body["conversationState"]
    current = state["currentMessage"]
    tools = current["userInputMessage"].get("userInputMessageContext", {}).get("tools", ())
    fields = json.dumps(played.body.get("additionalModelRequestFields", {}), separators=(",", ":"))
    yield f"  to Kiro: {len(tools)} tools, model fields {fields}"
    for entry in (*state.get("history", ()), current):
        yield f"    {_entry(entry)}"
    yield f"  tools: {' '.join(tool['toolSpecification']['name'] for tool in tools) or 'none'}"
    if played.capture.counts:
        return
    result = fold(played.events)
    said = [_answered(block) for block in result.content]
    yield f"  answered: {result.stop.value}, {', '.join(said) or 'nothing'}"


def _blocks(message: Message) -> str:
    kinds = [_block(block) for block in message.content]
    return ", ".join(kinds) or "nothing"


def _block(block: object) -> str:
    match block:
        case Text(text=text):
            return f"text {len(text)}"
        case Image(media_type=kind):
            return kind
        case Attachment(media_type=kind):
            return f"attached {kind}"
        case Thought(redacted=redacted):
            return "sealed thought" if redacted else "thought"
        case ToolCall(name=name):
            return f"call {name}"
        case ToolResult(content=content, is_error=is_error):
            inner = " ".join(_block(part).replace(" ", ":") for part in content) or "nothing"
            return f"{'error' if is_error else 'result'} ({inner})"
        case SearchCall():
            return "search"
        case SearchOutcome(hits=hits):
            return f"found {len(hits or ())}"
    raise AssertionError(block)


def _answered(block: object) -> str:
    return f"text {len(block.text)}" if isinstance(block, Text) else _block(block)


def _entry(entry: dict[str, Any]) -> str:
    if said := entry.get("assistantResponseMessage"):
        calls = [f"call {use['name']}" for use in said.get("toolUses") or ()]
        return ", ".join(["assistant: text " + str(len(said["content"])), *calls])
    user = entry["userInputMessage"]
    results = [
        f"{result['status']} ({len(result['content'])})"
        for result in user.get("userInputMessageContext", {}).get("toolResults") or ()
    ]
    images = [image["format"] for image in user.get("images") or ()]
    return ", ".join(["user: text " + str(len(user["content"])), *results, *images])


def golden() -> str:
    """All facts of all captures."""
    return "".join(line + "\n" for played in play_all() for line in (*facts(played), ""))


if __name__ == "__main__":
    GOLDEN.write_text(golden())
