"""Write the goldens again from the canonical turns: ``python tests/vectors/regenerate.py``. Review what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Heading
from kirostream.turn.events import TurnEvent, TurnFailed
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.result import fold
from kirostream.turn.wire import load_all

HERE = Path(__file__).parent
CLIENT_DIALECTS = ("anthropic", "openai_chat", "openai_responses")

REQUEST = TurnRequest(
    model="claude-sonnet-4.5",
    messages=(Message(Role.USER, (Text("Say it."),)),),
    stream=True,
    include_usage=True,
    extras={"include": b'["reasoning.encrypted_content"]'},
)
HEADING = Heading(turn="0123456789abcdef0123456789abcdef", created=1_795_000_000, request_id="req_0123456789abcdef")


def turns() -> dict[str, list[TurnEvent]]:
    """Every canonical turn by its name."""
    paths = sorted((HERE / "turns").glob("*.turn.jsonl"))
    return {path.name.removesuffix(".turn.jsonl"): load_all(path.read_bytes()) for path in paths}


def goldens() -> Iterator[tuple[str, bytes]]:
    """Paths below ``wire/``, and what has to be in them."""
    for case, events in turns().items():
        for name in CLIENT_DIALECTS:
            dialect = DIALECTS[name]
            writer = dialect.writer(REQUEST, HEADING)
            streamed = b"".join(block for event in events for block in writer.write(event))
            yield f"{name}/{case}.turn-{name}.stream.sse", streamed
            if not isinstance(events[-1], TurnFailed):
                whole = dialect.write_result(REQUEST, fold(events), HEADING)
                yield f"{name}/{case}.turn-{name}.whole.json", whole + b"\n"


if __name__ == "__main__":
    for path, content in goldens():
        (HERE / "wire" / path).parent.mkdir(parents=True, exist_ok=True)
        (HERE / "wire" / path).write_bytes(content)
