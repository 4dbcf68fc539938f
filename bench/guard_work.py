"""What the guard counts: the codec, a canned turn in each language, and a request. ``python -m bench.guard_work``

But for the short turn (`bench.guard_turn`) nothing here has an upstream, a clock or a task: bytes go in, and bytes come
out, the way they go through a gateway. Each piece of work is done a few times, so that whatever is made once is made
and the interpreter has settled, and is then counted once. The collector of cyclic garbage rests meanwhile: when it runs
depends on what was allocated before.
"""

from __future__ import annotations

import ctypes
import gc
import json
import random
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import trio

from bench import compiled, scripts
from bench.guard_turn import short_turns, upstream
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading, Stamp
from kirostream.dialects.kiro.response import Reader
from kirostream.evstream import FrameDecoder, encode_frame
from kirostream.filters.request_rules import apply_rules
from kirostream.net.quick import Outlet
from kirostream.relay.log import START, Rendering, TurnLog
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest

TOKENS = 1000
REQUESTS = 5
READ = 16 << 10
WARM_UP = 12
"""Times before a piece of work is counted: an interpreter that specializes does so within ten calls."""
HEADERS = {":event-type": "assistantResponseEvent", ":content-type": "application/json", ":message-type": "event"}
HEADING = Heading("0" * 32, 1_700_000_000)
MODEL = Model(scripts.MODEL)
Work = Callable[[], int]
"""Does a piece of work and says how many units it was."""


def answer() -> list[bytes]:
    """A turn of `TOKENS` tokens, a frame each, and what comes after them."""
    dice = random.Random(1)
    texts = ["".join(dice.choices("etaoinshrdlu ", k=4)) for _ in range(TOKENS)]
    frames = [scripts.frame("assistantResponseEvent", {"content": text, "modelId": scripts.MODEL}) for text in texts]
    after = scripts.frame("contextUsageEvent", {"contextUsagePercentage": 0.0075})
    after += scripts.frame("meteringEvent", {"usage": 0.00039, "unit": "credit", "unitPlural": "credits"})
    return [*frames, after]


def question() -> bytes:
    """A client's request: a system prompt, tools, and a conversation of some turns."""
    dice = random.Random(1)
    words = ["account", "buffer", "cache", "client", "cursor", "decode", "frame", "header", "index", "limit", "token"]

    def prose(count: int) -> str:
        return " ".join(dice.choices(words, k=count))

    properties = {word: {"type": "string", "description": prose(8)} for word in words[:4]}
    tools = [
        {"name": f"tool_{n}", "description": prose(40), "input_schema": {"type": "object", "properties": properties}}
        for n in range(8)
    ]
    messages = [{"role": ("user", "assistant")[n % 2], "content": prose(120)} for n in range(11)]
    said = {"model": scripts.MODEL, "max_tokens": 4096, "stream": True, "system": prose(200)}
    return json.dumps({**said, "tools": tools, "messages": messages}).encode()


def reads_of(data: bytes) -> list[bytes]:
    """As a busy connection delivers it."""
    return [data[at : at + READ] for at in range(0, len(data), READ)]


def decode(reads: Sequence[bytes]) -> Work:
    """Fresh headers and a fresh payload for each frame."""

    def work() -> int:
        feed = FrameDecoder().feed
        return sum(len(feed(read)) for read in reads)

    return work


def decode_runs(reads: Sequence[bytes]) -> Work:
    """Pieces of text only."""

    def work() -> int:
        feed = FrameDecoder(lift=("content",)).feed_runs
        return sum(len(item) if isinstance(item, list) else 1 for read in reads for item in feed(read))

    return work


def encode() -> int:
    for _ in range(TOKENS):
        encode_frame(HEADERS, b'{"content":"abcd","modelId":"claude-sonnet-4.5"}')
    return TOKENS


def turn(reads: Sequence[bytes], language: str, asked: TurnRequest) -> Work:
    """From the upstream's bytes to those of the client's stream, through the log, as a pump takes it."""

    def work() -> int:
        reader = DIALECTS["kiro"].reader(asked, MODEL)
        log = TurnLog()
        rendering = Rendering(log, DIALECTS[language].writer(asked, HEADING))
        at, size = START, 0
        for data in [*reads, b""]:
            log.append(reader.feed(data) if data else reader.close())
            said, at = rendering.read(at)
            log.mark_read(at.event)
            size += len(said)
        assert log.finished
        assert size > 50 * TOKENS
        return TOKENS

    return work


def track(frames: Sequence[bytes], asked: TurnRequest) -> Work:
    """From the upstream's bytes to those of the client's stream as `relay.lane` has it: compiled, a frame a read. The
    client is the other end of a pair of sockets, which is emptied now and then."""
    from kirostream.net._wire import Track

    def work() -> int:
        near, far = socket.socketpair()
        with near, far:
            carry(near, far)
        return TOKENS

    def carry(near: socket.socket, far: socket.socket) -> None:
        reader = Reader(asked, MODEL)
        log = TurnLog()
        rendering = Rendering(log, DIALECTS["anthropic"].writer(asked, HEADING))
        log.append(reader.feed(frames[0]))
        rendering.read(START)
        block = reader.running
        assert block is not None
        template = rendering.template(block)
        assert template is not None
        outlet = Outlet(trio.socket.from_stdlib_socket(near))
        outlet.free = True
        *words, number = template
        way = Track(reader.runs, outlet, words, 1 << 20, lambda: None, number)
        for number, data in enumerate(frames[1:TOKENS], 1):
            assert way.push(data)
            if number % 100 == 0:
                far.recv(1 << 20)
        assert far.recv(1 << 20)
        assert len(way.take()) == TOKENS - 1
        way.close()
        outlet.shut()

    return work


def request(body: bytes) -> Work:
    """A Messages body to Kiro's."""

    def work() -> int:
        for _ in range(REQUESTS):
            asked = apply_rules(DIALECTS["anthropic"].read_request(body, ()))
            DIALECTS["kiro"].write_request(asked, Stamp(MODEL, "conversation"))
        return REQUESTS

    return work


def reference() -> int:
    """Nothing of ours: what an interpreter takes for calls, arithmetic, and objects of the usual kinds."""
    found: dict[str, list[int]] = {}
    for number in range(20 * TOKENS):
        found.setdefault(f"{number % 64:x}", []).append(number * 7 // 3)
    joined = b"".join(b"%d," % sum(numbers) for numbers in found.values())
    return len(joined) and TOKENS


REFERENCE = "reference"
_IS_COMPILED = find_spec("kirostream.net._wire") is not None


def works(port: int) -> dict[str, Work]:
    """Everything that is counted, by name. At `port` is the upstream."""

    def short() -> TurnRequest:
        body = json.dumps(scripts.DIALECTS["messages"].body(scripts.prompt(10, 0))).encode()
        return DIALECTS["anthropic"].read_request(body, ())

    frames = answer()
    reads = reads_of(b"".join(frames))
    asked = DIALECTS["anthropic"].read_request(
        json.dumps(scripts.DIALECTS["messages"].body("Say something.")).encode(), ()
    )
    return {
        REFERENCE: reference,
        "decode, 16 KiB a read": decode(reads),
        "decode, a frame a read": decode(frames),
        "decode runs, 16 KiB a read": decode_runs(reads),
        "encode": encode,
        "turn to Messages, a frame a read": turn(frames, "anthropic", asked),
        "turn to Messages, 16 KiB a read": turn(reads, "anthropic", asked),
        "turn to Chat, a frame a read": turn(frames, "openai_chat", asked),
        "turn to Responses, a frame a read": turn(frames, "openai_responses", asked),
        **({"track to Messages, a frame a read": track(frames, asked)} if _IS_COMPILED else {}),
        "request of Messages": request(question()),
        "short turn through the relay": short_turns(short, port),
    }


def main() -> None:
    """Do all of it, and have callgrind dump a file for each. Names and units go to stdout."""
    counting = ctypes.CDLL(str(compiled.library("counting")))
    assert counting.counted(), "this is for `python -m bench guard`, which runs it under valgrind"
    asked = upstream()
    try:
        for name, work in works(asked.port).items():
            for _ in range(WARM_UP):
                units = work()
            gc.collect()
            gc.disable()
            counting.begin()
            work()
            counting.end(name.encode())
            gc.enable()
            sys.stdout.write(json.dumps([name, units]) + "\n")
    finally:
        asked.stop()


if __name__ == "__main__":
    main()
