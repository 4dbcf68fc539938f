"""A long day of a coding agent, in every language: two hundred rounds of tools in one conversation.

The agent is written here, as agents are: it sends the whole history with every request, runs what it is told to run,
sends results back in its language's own form, and makes room half way by putting a summary in place of what was said.
What is left behind then is what a service hates: results whose calls are gone, a call whose result never came, a tool
in the history that is offered no more. The simulator is as strict as the service (`kirostream.simulator.strict`); it
may not refuse one request.

Tools with names that the service would not take are called by it under the names it was given, which the agent asks
for first (``{{tools}}``); what comes back has to be the agent's own name again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from e2e.test_faults import AUTH, running
from helpers.images import png
from helpers.rawhttp import post
from kirostream.telemetry.facts import TurnFinished

ROUNDS: Final = 200
KEPT_IMAGES: Final = 10
"""The newest that the service takes (kiro-protocol.md section 2.7)."""
LONG: Final = "mcp__enterprise-knowledge-base-and-ticket-archive__search_in_everything_"

SCHEMAS: Final[Sequence[Any]] = (
    {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.com/edit.json",
        "type": "object",
        "properties": {"edits": {"type": "array", "items": {"$ref": "#/$defs/edit"}}, "dry": {"$ref": "#/$defs/flag"}},
        "$defs": {
            "edit": {"type": "object", "properties": {"old": {"type": "string"}, "next": {"$ref": "#/$defs/edit"}}},
            "flag": {"type": ["boolean", "null"], "default": None},
        },
        "additionalProperties": False,
    },
    {"type": "object", "properties": None, "required": None},
    {"properties": {"depth": {"type": "integer", "minimum": None}}, "required": None},
    {"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": True}}]},
)

FIRST_TOOLS: Final = (
    "Read",
    "read",  # the service compares names ignoring case
    "fs.read",
    "fs/read",  # both become fs_read
    f"{LONG}by_title",
    f"{LONG}by_text",  # both begin with the same 64 characters
    "7zip",
    "screenshot",
    "forgotten",  # offered until the compaction
)
LATER_TOOLS: Final = ("mcp__browser__click", f"{LONG}by_author", "fs:read")


# What happens to a call


@dataclass(frozen=True)
class Call:
    """A call as the client sees it."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What came of a call. `text` may be empty where there is an image."""

    call: Call
    text: str
    image: bytes = b""
    is_error: bool = False


@dataclass
class Answer:
    """What the model said. `blocks` is what the client puts into its history; `stop` is in the language's words."""

    text: str
    calls: list[Call]
    blocks: Any
    stop: str


# The languages, as their clients speak them


class Talk(Protocol):
    """One language: the forms of requests and answers. What makes history gives messages to put behind it."""

    path: str

    def body(self, system: str, history: Sequence[Any], tools: Sequence[tuple[str, Any]], stream: bool) -> Any: ...
    def user(self, text: str) -> list[Any]: ...
    def answered(self, answer: Answer) -> list[Any]: ...
    def calling(self, call: Call) -> list[Any]: ...
    def results(self, results: Sequence[Result]) -> list[Any]: ...
    def whole(self, body: Any) -> Answer: ...
    def streamed(self, events: Iterator[Any]) -> Answer: ...


class Messages:
    """Anthropic Messages."""

    path = "/v1/messages"

    def body(self, system: str, history: Sequence[Any], tools: Sequence[tuple[str, Any]], stream: bool) -> Any:
        return {
            "model": "claude-opus-4.7",
            "max_tokens": 32_000,
            "stream": stream,
            "thinking": {"type": "adaptive"},
            "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
            "messages": history,
            "tools": [{"name": name, "description": f"Runs {name}.", "input_schema": schema} for name, schema in tools],
        }

    def user(self, text: str) -> list[Any]:
        return [{"role": "user", "content": text}]

    def answered(self, answer: Answer) -> list[Any]:
        return [{"role": "assistant", "content": answer.blocks}]

    def calling(self, call: Call) -> list[Any]:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        return [{"role": "assistant", "content": [block]}]

    def results(self, results: Sequence[Result]) -> list[Any]:
        reminder = {"type": "text", "text": "<system-reminder>The todo list is empty.</system-reminder>"}
        return [{"role": "user", "content": [*map(self._result, results), reminder]}]

    def _result(self, result: Result) -> Any:
        parts: list[Any] = [{"type": "text", "text": result.text}] if result.text else []
        if result.image:
            data = base64.b64encode(result.image).decode()
            parts.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call.id}
        block["content"] = parts if result.image else result.text
        return block | {"is_error": True} if result.is_error else block

    def whole(self, body: Any) -> Answer:
        blocks = body["content"]
        calls = [Call(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        return Answer(text, calls, blocks, body["stop_reason"])

    def streamed(self, events: Iterator[Any]) -> Answer:
        message: dict[str, Any] = {"content": []}
        arguments = ""
        for event in events:
            match event["type"]:
                case "content_block_start":
                    assert event["index"] == len(message["content"])
                    message["content"].append(event["content_block"])
                    arguments = ""
                case "content_block_delta":
                    block, delta = message["content"][-1], event["delta"]
                    match delta["type"]:
                        case "text_delta":
                            block["text"] += delta["text"]
                        case "thinking_delta":
                            block["thinking"] += delta["thinking"]
                        case "signature_delta":
                            block["signature"] = delta["signature"]
                        case "input_json_delta":
                            arguments += delta["partial_json"]
                case "content_block_stop":
                    if message["content"][-1]["type"] == "tool_use":
                        message["content"][-1]["input"] = json.loads(arguments or "{}")
                case "message_delta":
                    message |= event["delta"]
        assert event["type"] == "message_stop"
        return self.whole(message)


class Chat:
    """OpenAI Chat Completions."""

    path = "/v1/chat/completions"

    def body(self, system: str, history: Sequence[Any], tools: Sequence[tuple[str, Any]], stream: bool) -> Any:
        return {
            "model": "claude-opus-4.7",
            "stream": stream,
            "reasoning_effort": "low",
            "messages": [{"role": "system", "content": system}, *history],
            "tools": [
                {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
                for name, schema in tools
            ],
        }

    def user(self, text: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "text", "text": text}]}]

    def answered(self, answer: Answer) -> list[Any]:
        return [answer.blocks]

    def calling(self, call: Call) -> list[Any]:
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        return [{"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]}]

    def results(self, results: Sequence[Result]) -> list[Any]:
        return [
            {"role": "tool", "tool_call_id": result.call.id, "content": self._content(result)} for result in results
        ]

    def _content(self, result: Result) -> Any:
        if not result.image:
            return result.text
        url = f"data:image/png;base64,{base64.b64encode(result.image).decode()}"
        parts: list[Any] = [{"type": "text", "text": result.text}] if result.text else []
        return [*parts, {"type": "image_url", "image_url": {"url": url}}]

    def whole(self, body: Any) -> Answer:
        (choice,) = body["choices"]
        message = choice["message"]
        calls = [
            Call(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        ]
        return Answer(message["content"] or "", calls, message, choice["finish_reason"])

    def streamed(self, events: Iterator[Any]) -> Answer:
        text, calls, reason = "", list[Any](), ""
        for event in events:
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
                for piece in choice["delta"].get("tool_calls", ()):
                    if piece["index"] == len(calls):
                        calls.append(piece)
                    else:
                        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in calls]
        return self.whole({"choices": [{"message": message, "finish_reason": reason}]})


class Responses:
    """OpenAI Responses, with the whole history in every request, as Codex sends it."""

    path = "/v1/responses"

    def body(self, system: str, history: Sequence[Any], tools: Sequence[tuple[str, Any]], stream: bool) -> Any:
        return {
            "model": "claude-opus-4.7",
            "stream": stream,
            "store": False,
            "instructions": system,
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "input": history,
            "tools": [
                {"type": "function", "name": name, "description": "", "parameters": schema, "strict": False}
                for name, schema in tools
            ],
        }

    def user(self, text: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "input_text", "text": text}]}]

    def answered(self, answer: Answer) -> list[Any]:
        items: list[Any] = answer.blocks
        return items

    def calling(self, call: Call) -> list[Any]:
        arguments = json.dumps(call.arguments)
        return [{"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}]

    def results(self, results: Sequence[Result]) -> list[Any]:
        return [
            {"type": "function_call_output", "call_id": result.call.id, "output": self._output(result)}
            for result in results
        ]

    def _output(self, result: Result) -> Any:
        if not result.image:
            return result.text
        parts: list[Any] = [{"type": "input_text", "text": result.text}] if result.text else []
        url = f"data:image/png;base64,{base64.b64encode(result.image).decode()}"
        return [*parts, {"type": "input_image", "image_url": url, "detail": "auto"}]

    def whole(self, body: Any) -> Answer:
        assert body["status"] == "completed"
        items = body["output"]
        calls = [
            Call(item["call_id"], item["name"], json.loads(item["arguments"]))
            for item in items
            if item["type"] == "function_call"
        ]
        text = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
        return Answer(text, calls, items, "tool_calls" if calls else "stop")

    def streamed(self, events: Iterator[Any]) -> Answer:
        done = []
        for event in events:
            if event["type"] == "response.output_item.done":
                done.append(event["item"])
        assert event["type"] == "response.completed"
        assert done == event["response"]["output"]
        return self.whole(event["response"])


# The agent


@dataclass
class Agent:
    """A client with a history, and the tools that it runs."""

    url: str
    talk: Talk
    dice: random.Random
    tools: list[tuple[str, Any]]
    history: list[Any] = field(default_factory=list)
    requests: int = 0
    rounds: int = 0
    call_ids: set[str] = field(default_factory=set)

    async def ask(self) -> Answer:
        """Send the conversation as it is; streamed and whole in turn. The answer joins the history."""
        stream = self.requests % 2 == 0
        self.requests += 1
        body = self.talk.body("You are the agent of kumquat street.", self.history, self.tools, stream)
        async with post(self.url + self.talk.path, body, AUTH) as response:
            data = await response.read()
        assert response.status == 200, data
        if stream:
            lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
            answer = self.talk.streamed(json.loads(line) for line in lines if line != b"[DONE]")
        else:
            answer = self.talk.whole(json.loads(data))
        self.history += self.talk.answered(answer)
        return answer

    async def say(self, text: str) -> Answer:
        """A user's message and its answer."""
        self.history += self.talk.user(text)
        return await self.ask()

    async def wire_names(self) -> dict[str, str]:
        """What upstream calls each tool. Nothing of this stays in the history."""
        answer = await self.say("[[say:{{tools}}]]")
        self.history.clear()
        names = answer.text.partition(":")[2].split(",")
        return dict(zip((name for name, _ in self.tools), names, strict=True))

    def run(self, call: Call) -> Result:
        """Do what the model asked for, or fail at it. Every result says something that is said nowhere else."""
        proof = f"proof-{self.dice.getrandbits(64):016x}"
        match call.arguments.get("outcome"):
            case "error":
                return Result(call, f"ENOENT: no such file, {proof}", is_error=True)
            case "image":
                return Result(call, proof, self.picture())
            case "image only":
                return Result(call, "", self.picture())
            case "nothing":
                return Result(call, "")
            case _:
                return Result(call, f"{proof} 日本語 😀 \\ud83d \u2028\n" + "x = 1\n" * self.dice.randint(1, 60))

    def picture(self) -> bytes:
        """A picture that no other is equal to."""
        return png(rgb=self.dice.randbytes(3))


@dataclass
class Round:
    """One turn with calls: what the model is told to call, and the results once they are there."""

    calls: list[tuple[str, dict[str, Any]]]
    says: str = ""
    thinks: str = ""

    def directives(self, wire: dict[str, str]) -> str:
        think = f"[[think:{self.thinks}]]" if self.thinks else ""
        say = f"[[say:{self.says}]]" if self.says else ""
        return think + say + "".join(f"[[tool:{wire[name]} {json.dumps(arguments)}]]" for name, arguments in self.calls)


OUTCOMES: Final = ("text", "text", "text", "error", "image", "nothing", "text", "image only")


def plan(count: int, dice: random.Random, tools: Sequence[str], more: Sequence[str], more_from: int) -> list[Round]:
    """`count` rounds of one to four calls; tools of `more` are called from the round `more_from` on."""
    rounds = []
    for number in range(count):
        offered = [*tools, *more] if number >= more_from else list(tools)
        calls = []
        for nth in range(dice.choice((1, 1, 2, 4))):
            arguments = {"outcome": dice.choice(OUTCOMES), "at": [number, nth], "odd": '[[x]] "😀" \\ {}'}
            calls.append((dice.choice(offered), arguments if dice.random() < 0.9 else {}))
        says = "The last: {{result}}" if number % 10 == 9 else f"Step {number}." if number % 3 else ""
        rounds.append(Round(calls, says, thinks="Let me see." if number % 4 == 0 else ""))
    return rounds


async def work(
    agent: Agent, rounds: Sequence[Round], wire: dict[str, str], delivery: str, more: Sequence[tuple[str, Any]], at: int
) -> list[Result]:
    """Play `rounds`; offer the tools `more` too before the round `at`. All results, in order."""
    script = "[[next]]".join(each.directives(wire) for each in rounds)
    answer = await agent.say(f"Please work. {delivery}{script}[[then:That was all.]]")
    everything: list[Result] = []
    latest: list[Result] = []
    for number, each in enumerate(rounds):
        assert [(call.name, call.arguments) for call in answer.calls] == each.calls
        assert answer.stop in ("tool_use", "tool_calls")
        if "{{result}}" in each.says:
            assert answer.text == "The last: " + "\n".join(seen(result) for result in latest)
        else:
            assert answer.text == each.says
        fresh = {call.id for call in answer.calls}
        assert len(fresh) == len(answer.calls)
        assert not fresh & agent.call_ids
        agent.call_ids |= fresh
        latest = [agent.run(call) for call in answer.calls]
        everything += latest
        # Tools that run side by side do not end in the order in which they were called.
        agent.history += agent.talk.results(agent.dice.sample(latest, len(latest)))
        agent.rounds += 1
        if number + 1 == at:
            agent.tools += more
        answer = await agent.ask()
    assert (answer.text, answer.calls) == ("That was all.", [])
    assert answer.stop in ("end_turn", "stop")
    return everything


def seen(result: Result) -> str:
    """The text of a result as the model has it: never empty, since the service refuses that."""
    return result.text or ("(See the attached image.)" if result.image else "(no output)")


async def prove(agent: Agent, results: Sequence[Result], images: Sequence[bytes], *others: str) -> None:
    """All results are in front of the model, the `others` too, and the newest of the `images` in their order."""
    proofs = [word for result in results for word in result.text.split() if word.startswith("proof-")]
    assert len(proofs) > len(results) / 2
    wanted = [*proofs, *others, "kumquat street"]
    found = "".join(f"{{{{find:{each}}}}} " for each in wanted)
    answer = await agent.say(f"[[say:{found}{{{{find:said by nobody}}}} {{{{images}}}}]]")
    *verdicts, nobody, listed = answer.text.split(" ")
    assert [each for each, verdict in zip(wanted, verdicts, strict=True) if verdict != "FOUND"] == []
    assert nobody == "MISSING"
    newest = [f"png:{hashlib.sha256(image).hexdigest()[:8]}" for image in images[-KEPT_IMAGES:]]
    count, *shown = listed.split(",")
    assert int(count) == len(newest)
    assert sorted(shown) == sorted(newest)


def images_of(results: Sequence[Result]) -> list[bytes]:
    return [result.image for result in results if result.image]


# The day


@pytest.mark.parametrize("talk", [Messages(), Chat(), Responses()], ids=lambda talk: talk.path)
async def test_two_hundred_rounds_of_tools(talk: Talk, tmp_path: Path) -> None:
    dice = random.Random(200)
    schemas = [(name, SCHEMAS[at % len(SCHEMAS)]) for at, name in enumerate((*FIRST_TOOLS, *LATER_TOOLS))]
    first, later = schemas[: len(FIRST_TOOLS)], schemas[len(FIRST_TOOLS) :]
    async with running(tmp_path) as (gateway, facts):
        agent = Agent(gateway.url, talk, dice, [*schemas])
        wire = await agent.wire_names()
        assert len({name.lower() for name in wire.values()}) == len(schemas)
        assert max(map(len, wire.values())) <= 64

        # The morning, with the first tools only, and text cut into halves of characters.
        agent.tools = [*first]
        morning = plan(ROUNDS // 2, dice, FIRST_TOOLS, (), 0)
        results = await work(agent, morning, wire, "[[chunk:u16]]", (), 0)
        await prove(agent, results, images_of(results))

        # Compaction: a summary, a result whose call is gone, a call whose result was lost, and a tool less.
        lost = Call("call_lost", "forgotten", {"outcome": "text"})
        left = Result(Call("call_gone", "screenshot", {}), "proof-orphan", agent.picture())
        agent.history = [
            *talk.user("Summary of the conversation so far: the kingfisher is done."),
            *talk.results([left]),
            *talk.calling(lost),
        ]
        agent.tools = [(name, schema) for name, schema in first if name != "forgotten"]
        del wire["forgotten"]

        # The afternoon, with more tools in the middle of it.
        names = [name for name, _ in agent.tools]
        afternoon = plan(ROUNDS - agent.rounds, dice, names, LATER_TOOLS, more_from=50)
        second = await work(agent, afternoon, wire, "[[chunk:7]]", later, at=50)
        await prove(agent, second, [left.image, *images_of(second)], "kingfisher", "proof-orphan", "no result was")

        assert agent.rounds == ROUNDS
        assert any(len(each.calls) == 4 for each in morning + afternoon)
        assert gateway.simulator is not None
        snapshot = gateway.simulator.snapshot()
        assert (snapshot.refused, snapshot.broken, snapshot.answered) == (0, 0, agent.requests)
        turns = [fact for fact in facts if isinstance(fact, TurnFinished)]
        assert len(turns) == agent.requests
        assert {(fact.attempts, fact.error) for fact in turns} == {(1, "")}
