"""An agent's request of 1 MB turned into Kiro's: CPU time, beside the same done with pydantic models and json.

The request is what a coding agent sends deep in its work, from Messages bytes to Kiro's body bytes: 201 messages with
tool calls, results, thoughts and two images, 60 tools with schemas as real servers write them. The same way as in the
gateway: `read_request` with the gateway's memory, `apply_rules`, `write_request`. The reference is
`bench/convert_reference.py`.

- **cold**: nothing of the request was ever seen: the memory is empty, every schema and every text of a tool is new.
- **warm**: the next turn of a conversation. The request before it has just been converted; this one has the same tools,
  the same messages but for the client's cache marks, and an answer and a message more.

Before anything is timed, both outputs are taken by the simulator's strict check, and are equal as JSON. Rounds are
interleaved, in an order shuffled by the seed. Time is the process's CPU time, of one conversion. A ratio is the median
of the rounds' own ratios. The collector of cyclic garbage stays on, and does not go over what was imported, as in
production.
"""

from __future__ import annotations

import argparse
import base64
import gc
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import convert_reference, report
from kirostream.dialects.anthropic.request import read_request
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro import request as kiro
from kirostream.filters.request_rules import apply_rules
from kirostream.gateway.turns import GatewaySettings
from kirostream.simulator import strict
from kirostream.simulator.catalogue import offers
from kirostream.turn.memory import Memory

MODEL = "claude-opus-4.7"
"""A model with a window of a million tokens, in which the request has room."""
SIZE = 1_000_000
"""Bytes."""
MESSAGES, TOOLS, LONG_NAMES, IMAGES = 201, 60, 6, 2
"""Of messages an odd number: the user says the first and the last."""
IMAGE_BYTES = 24_000
TURNS = (MESSAGES - 3) // 2
"""Turns with tool calls: an answer, and the message with the results."""
OURS, REFERENCE = "kirostream", "pydantic + json"
STATES = ("cold", "warm")
STAGES = ("read", "rules", "write")
GOAL = 5.0
"""Times less CPU than the reference, in both states."""
NONCE = "@nonce@"
"""What differs from one conversion to the next; replaced in the bytes, so that making a body costs little."""

CATALOGUE = offers("")
STAMP = Stamp(
    model=CATALOGUE[MODEL].model,
    conversation_id="6b1f0f6e-8a43-4c0e-9d5a-0b8f6f0f3c11",
    continuation_id="c1a7d1d5-5b53-4d0b-8f67-6f0f1f7a2b90",
    profile_arn="arn:aws:codewhisperer:us-east-1:000000000000:profile/BENCH",
    origin=kiro.ORIGIN,
)


# --- the request --------------------------------------------------------------------------------------------------

# fmt: off
WORDS = [
    "account", "buffer", "cache", "chunk", "client", "config", "cursor", "decode", "deadline", "encode", "entry",
    "error", "event", "fetch", "field", "frame", "handle", "header", "index", "limit", "message", "method", "model",
    "option", "parse", "path", "queue", "read", "record", "request", "response", "result", "retry", "schema",
    "server", "session", "socket", "state", "stream", "token", "turn", "update", "value", "window", "write",
]
# fmt: on


class Writer:
    """Makes text, code and schemas that look like an agent's."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def sentence(self, words: int) -> str:
        return " ".join(self.dice.choices(WORDS, k=words)).capitalize() + self.dice.choice((".", ".", " \u2014 ok."))

    def prose(self, size: int) -> str:
        text = ""
        while len(text) < size:
            text += self.sentence(self.dice.randint(6, 18)) + self.dice.choice((" ", " ", "\n\n"))
        return text[:size]

    def code(self, size: int) -> str:
        lines, total = list[str](), 0
        while total < size:
            one, two, three = self.dice.choices(WORDS, k=3)
            number = len(lines) + 1
            line = f'{number:6}\t    if self.{one}["{two}"] != {three}_{number}:  # {two} \\n\t"{three}"\n'
            lines.append(line)
            total += len(line)
        return "".join(lines)[:size]

    def schema(self, number: int) -> dict[str, Any]:
        """A tool's schema: eight to fourteen properties, some nested.

        Every one names its ``$schema``, as those of most clients do; every tenth has references, as generated from
        classes; some have nulls. Captured requests of coding agents have neither of the last two.
        """
        properties: dict[str, Any] = {}
        for at in range(self.dice.randint(8, 14)):
            properties[f"{self.dice.choice(WORDS)}_{at}"] = self._property(at)
        schema: dict[str, Any] = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": properties,
            "required": list(properties)[:3],
            "additionalProperties": False,
        }
        if number % 10 == 0:
            properties["location"] = {"$ref": "#/$defs/Location"}
            properties["others"] = {"type": "array", "items": {"$ref": "#/$defs/Location"}}
            position = {"type": "object", "properties": {"line": {"type": "integer"}, "column": {"type": "integer"}}}
            location = {"path": {"type": "string"}, "start": {"$ref": "#/$defs/Position"}}
            schema["$defs"] = {"Location": {"type": "object", "properties": location}, "Position": position}
        if number % 15 == 0:
            properties["flag"] = {"type": "boolean", "description": None, "default": None}
        return schema

    def _property(self, at: int) -> dict[str, Any]:
        said = {"description": f"{self.prose(self.dice.randint(60, 240))} {NONCE}"}
        match at % 5:
            case 0:
                return {"type": "string", "enum": self.dice.sample(WORDS, 6), **said}
            case 1:
                return {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, **said}
            case 2:
                inner = {
                    word: {"type": "string", "description": self.sentence(8)} for word in self.dice.sample(WORDS, 4)
                }
                return {"type": "object", "properties": inner, "required": list(inner)[:1], **said}
            case 3:
                return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None, **said}
            case _:
                return {"type": "string", **said}

    def tool(self, number: int) -> dict[str, Any]:
        server = "enterprise-knowledge-and-ticket-archive-of-the-whole-house" if number < LONG_NAMES else "tracker"
        return {
            "name": f"mcp__{server}__{self.dice.choice(WORDS)}_{number}" if number < TOOLS // 2 else f"Tool{number}",
            "description": f"{self.prose(self.dice.randint(300, 1200))} {NONCE}",
            "input_schema": self.schema(number),
        }

    def image(self) -> dict[str, Any]:
        """Bytes that begin like a PNG: nobody on the way looks further."""
        data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + self.dice.randbytes(IMAGE_BYTES)).decode()
        return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}

    def turn(self, number: int, tools: Sequence[str], sizes: Iterator[int], *, image: bool) -> list[dict[str, Any]]:
        """An answer that calls one to three tools, and the message with their results."""
        said: list[dict[str, Any]] = []
        if number % 4 == 0:
            signature = base64.b64encode(self.dice.randbytes(240)).decode()
            said.append({"type": "thinking", "thinking": self.prose(700), "signature": signature})
        if number % 3:
            said.append({"type": "text", "text": self.prose(240)})
        results: list[dict[str, Any]] = []
        for nth in range(1 + number % 3):
            call_id = f"toolu_{number:04}{nth}{self.dice.getrandbits(64):016x}"
            path = f"/home/dev/project/{self.dice.choice(WORDS)}/{self.dice.choice(WORDS)}.py"
            arguments: dict[str, Any] = {"file_path": path, "limit": 200, "options": {"deep": [1, 2, {"x": None}]}}
            if nth == 1:
                arguments["content"] = self.code(900)
            said.append({"type": "tool_use", "id": call_id, "name": self.dice.choice(tools), "input": arguments})
            text = self.code(next(sizes))
            content: Any = [self.image(), {"type": "text", "text": text}] if image and nth == 0 else text
            results.append({"type": "tool_result", "tool_use_id": call_id, "content": content})
        if number % 9 == 0:
            results[-1]["is_error"] = True
        if number % 5 == 0:
            results.append({"type": "text", "text": f"<system-reminder>\n{self.prose(300)}\n</system-reminder>"})
        return [{"role": "assistant", "content": said}, {"role": "user", "content": results}]


def conversation(seed: int, size: int = SIZE) -> dict[str, Any]:
    """A request of `size` bytes, to within a per cent: the results of tools are as long as it takes."""
    result_size = 1000.0
    for _ in range(3):
        body = _conversation(seed, result_size)
        results = sum(1 + number % 3 for number in range(TURNS))
        result_size += (size - len(encode(body))) / results / 1.16  # quotes and tabs are escaped
    return body


def _conversation(seed: int, result_size: float) -> dict[str, Any]:
    writer, spread = Writer(seed), random.Random(seed)
    tools = [writer.tool(number) for number in range(TOOLS)]
    names = [tool["name"] for tool in tools]
    pictured = {TURNS * (nth + 1) // (IMAGES + 1) for nth in range(IMAGES)}
    sizes = (round(result_size * spread.uniform(0.2, 1.8)) for _ in itertools.count())
    messages: list[dict[str, Any]] = [{"role": "user", "content": writer.prose(600)}]
    for number in range(TURNS):
        messages += writer.turn(number, names, sizes, image=number in pictured)
    # The last turn differs from one conversion to the next; without it, the request is the one before.
    messages.append({"role": "assistant", "content": [{"type": "text", "text": f"Done so far. {NONCE}"}]})
    messages.append({"role": "user", "content": [{"type": "text", "text": f"Go on. {NONCE}"}]})
    return {
        "model": MODEL,
        "max_tokens": 32_000,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "system": [{"type": "text", "text": writer.prose(10_000), "cache_control": {"type": "ephemeral"}}] * 2,
        "messages": messages,
        "tools": tools,
    }


def marked(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the client's cache marks, which move on with every turn: they are on the last two of the user.

    So of the messages that were sent before, the last ones differ from what they were.
    """
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    out = list(messages)
    for at in users[-2:]:
        *blocks, last = out[at]["content"]
        out[at] = {**out[at], "content": [*blocks, {**last, "cache_control": {"type": "ephemeral"}}]}
    return out


def encode(body: dict[str, Any]) -> bytes:
    """As JavaScript writes JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bytes of one conversation. `before` is its last turn but one, whose tools `warm` has too."""

    template: bytes
    before: bytes
    after: bytes

    @classmethod
    def of(cls, body: dict[str, Any]) -> Bodies:
        tools = json.loads(json.dumps(body["tools"]).replace(NONCE, "warm"))
        messages = body["messages"]
        return cls(
            encode({**body, "messages": marked(messages)}),
            encode({**body, "tools": tools, "messages": marked(messages[:-2])}),
            encode({**body, "tools": tools, "messages": marked(messages)}),
        )

    def cold(self, number: int) -> bytes:
        """The request with tools that were never seen."""
        return self.template.replace(NONCE.encode(), b"%07d" % number)

    def warm(self, number: int) -> bytes:
        """The request with the tools and the messages of `before`, and a turn more."""
        return self.after.replace(NONCE.encode(), b"%07d" % number)


# --- the two ways -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Kirostream:
    """The gateway's own way. `stages` holds what each step of the last conversion took, in nanoseconds of CPU."""

    memory: Memory = field(default_factory=lambda: Memory(GatewaySettings().memory))
    stages: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, body: bytes) -> bytes:
        clock = time.process_time_ns
        begin = clock()
        request = read_request(body, (), self.memory)
        read = clock()
        request = apply_rules(request)
        ruled = clock()
        out = kiro.write_request(request, STAMP)
        self.stages = (read - begin, ruled - read, clock() - ruled)
        return out


def reference(body: bytes) -> bytes:
    return convert_reference.convert(
        body,
        conversation_id=STAMP.conversation_id,
        continuation_id=STAMP.continuation_id,
        profile_arn=STAMP.profile_arn,
    )


def check(body: bytes, ways: dict[str, Callable[[bytes], bytes]]) -> None:
    """Does each way do the work? Raises AssertionError where it does not: its time would mean nothing."""
    outputs = {name: way(body) for name, way in ways.items()}
    for name, output in outputs.items():
        refusal = strict.check(kiro.decode(output), CATALOGUE)
        assert refusal is None, f"{name}: {refusal}"
    first, *others = [json.loads(output) for output in outputs.values()]
    assert all(other == first for other in others), "the outputs differ"


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Times:
    """CPU milliseconds of every round: by row and state, and of our own stages by state."""

    rows: dict[tuple[str, str], list[float]]
    stages: dict[str, list[tuple[float, ...]]]


def measure(bodies: Bodies, rounds: int, dice: random.Random) -> Times:
    ours = Kirostream()
    ways: dict[str, Callable[[bytes], bytes]] = {OURS: ours, REFERENCE: reference}
    check(bodies.cold(0), ways)
    check(bodies.before, ways)
    check(bodies.warm(0), ways)  # with the memory of the request before, as it is timed
    cells = [(row, state) for row in ways for state in STATES]
    times = Times({cell: [] for cell in cells}, {state: [] for state in STATES})
    gc.collect()
    gc.freeze()
    for number in range(1, rounds + 1):
        for row, state in dice.sample(cells, len(cells)):
            way = ways[row]
            ours.memory = Kirostream().memory
            if state == "warm":
                way(bodies.before)
            body = bodies.cold(number) if state == "cold" else bodies.warm(number)
            begin = time.process_time_ns()
            way(body)
            times.rows[row, state].append((time.process_time_ns() - begin) / 1e6)
            if row == OURS:
                times.stages[state].append(tuple(stage / 1e6 for stage in ours.stages))
    return times


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of all are not above; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summarize(times: Times) -> list[dict[str, Any]]:
    out = []
    for (row, state), took in times.rows.items():
        ratios = [theirs / ours for theirs, ours in zip(times.rows[REFERENCE, state], took, strict=True)]
        figures: dict[str, Any] = {
            "row": row,
            "state": state,
            "p50_ms": round(statistics.median(took), 3),
            "p99_ms": round(percentile(took, 0.99), 3),
            "best_ms": round(min(took), 3),
            "ratio": round(statistics.median(ratios), 2),
        }
        if row == OURS:
            stages = zip(STAGES, zip(*times.stages[state], strict=True), strict=True)
            figures["stages_ms"] = {name: round(statistics.median(values), 3) for name, values in stages}
        out.append({**figures, "all_ms": [round(each, 3) for each in took]})
    return out


# --- the suite ----------------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=200, help="conversions a row and state (default %(default)s)")
    add("--seed", type=int, default=1, help="of the request and of the order (default %(default)s)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file")


def run(options: argparse.Namespace) -> int:
    console = Console()
    where = report.machine()
    rounds = 5 if options.quick else options.rounds
    bodies = Bodies.of(conversation(options.seed))
    rows = summarize(measure(bodies, rounds, random.Random(options.seed)))
    console.print(table(rows, len(bodies.cold(0))))
    goals = judge(rows)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:.1f}", soft_wrap=True)
    if not options.no_save:
        result = {
            "machine": where,
            "versions": report.versions(["kirostream", "msgspec", "pydantic", "pydantic-core"]),
            "seed": options.seed,
            "rounds": rounds,
            "request": {
                "bytes": len(bodies.cold(0)),
                "messages": MESSAGES,
                "tools": TOOLS,
                "images": IMAGES,
            },
            "results": rows,
            "goals": goals,
        }
        path = report.save("convert", result, options.json)
        console.print(f"written: {path}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0


def table(rows: Sequence[dict[str, Any]], size: int) -> Table:
    out = Table(title=f"{size:,} bytes of Messages to Kiro: CPU a conversion", title_justify="left")
    out.add_column("way")
    out.add_column("state")
    for heading in ("p50 ms", "p99 ms", f"times {REFERENCE}", "read + rules + write"):
        out.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: (row["state"], row["p50_ms"])):
        stages = " + ".join(f"{took:.2f}" for took in row.get("stages_ms", {}).values())
        out.add_row(
            row["row"], row["state"], f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['ratio']:.1f}", stages
        )
    return out


def judge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "goal": f"{row['row']}, {row['state']}: at least {GOAL:g} times less CPU than {REFERENCE}",
            "measured": row["ratio"],
            "met": row["ratio"] >= GOAL,
        }
        for row in rows
        if row["row"] == OURS
    ]
