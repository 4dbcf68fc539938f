"""The worked transcript of docs/websocket.md is what a gateway and a client really say.

After a change of the protocol: ``PYTHONPATH=tests python tests/e2e/test_websocket_transcript.py`` writes it anew.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

from e2e.test_faults import running
from helpers.rawsocket import TEXT, RawSocket, close, dialled, frame

PAGE: Final = Path(__file__).parents[2] / "docs" / "websocket.md"
BLOCK: Final = re.compile(r"(?<=<!-- transcript -->\n```text\n)(?:[<>] [^\n]*\n)*")


class Scribe:
    """Speaks on a socket, and writes down what is said. Events that came in several messages are written as one."""

    def __init__(self, socket: RawSocket) -> None:
        self._socket = socket
        self.said: list[tuple[str, dict[str, Any]]] = []

    async def say(self, **message: Any) -> None:
        self.said.append((">", message))
        await self._socket.send(frame(TEXT, _text(message).encode()))

    async def hear(self, op: str) -> dict[str, Any]:
        """The messages up to the first of this kind."""
        while True:
            message: dict[str, Any] = await self._socket.message()
            before = self.said[-1]
            if before[0] == "<" and before[1]["op"] == message["op"] == "events":
                before[1]["data"] += message["data"]
                before[1]["place"] = message["place"]
            else:
                self.said.append(("<", message))
            if message["op"] == op:
                return message


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


async def transcript(tmp_path: Path) -> str:
    """The conversation, with short names for turns and fixed ids and times."""
    request = {"model": "claude-sonnet-4.5", "max_tokens": 100}

    def ask(said: str) -> dict[str, Any]:
        return {**request, "messages": [{"role": "user", "content": said}]}

    async with running(tmp_path) as (gateway, _), dialled(gateway.url, "/v1/stream", "k") as socket:
        scribe = Scribe(socket)
        await scribe.say(op="start", ref=1, dialect="anthropic", request=ask("[[chunk:20]][[say:Hello, world]]"))
        turn = (await scribe.hear("started"))["turn"]
        await scribe.hear("ended")
        await scribe.say(op="watch", ref=2, turn=turn, dialect="openai_chat", after=f"{turn}.2.0")
        await scribe.hear("ended")
        await scribe.say(
            op="start", ref=3, dialect="anthropic", into="canonical", credit=0, request=ask("[[wait:9000]]")
        )
        other = (await scribe.hear("started"))["turn"]
        await scribe.say(op="cancel", ref=4, turn=other)
        await scribe.hear("cancelled")
        await scribe.say(op="credit", turn=other, dialect="canonical", credit=2)
        await scribe.hear("ended")
        await scribe.say(op="watch", ref=5, turn="f" * 32)
        await scribe.hear("error")
        await socket.send(close(1000))
        assert await socket.until_closed() == 1000
    lines = "\n".join(f"{who} {_text(message)}" for who, message in scribe.said)
    lines = lines.replace(turn, "7d0c…1").replace(other, "7d0c…2").replace("f" * 32, "ffff…f")
    lines = re.sub(r"(msg_|chatcmpl-)[0-9a-f]{24,32}", r"\1ID", lines)
    return re.sub(r'"created":\d+', '"created":1700000000', lines) + "\n"


async def test_the_transcript_is_what_is_said(tmp_path: Path) -> None:
    found = BLOCK.search(PAGE.read_text())
    assert found is not None
    assert found[0] == await transcript(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        said = trio.run(transcript, Path(folder))
    PAGE.write_text(BLOCK.sub(lambda _: said, PAGE.read_text(), count=1))
