"""What goes over the wires of the end-to-end bench: requests out, answers in, and whether an answer is right.

Plain Python, and nothing of kirostream: what checks the gateway does not share its code. `FrameReader` is also the
reference gateway's decoder, for it is what one writes: struct, zlib, json.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MODEL = "claude-sonnet-4.5"
PIECE = 4
"""Characters a piece: the simulator's own default, and about what a model's token has."""


class WrongAnswer(Exception):
    """An answer that is not what was asked for: refused, cut, short, or with another text. It fails the run."""


# --- requests -----------------------------------------------------------------------------------------------------


def http_post(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole HTTP/1.1 request for a connection that is kept alive."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def anthropic_body(prompt: str) -> bytes:
    """A streaming request of a Messages client; a Chat client's has the same members."""
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": MODEL, "max_tokens": 1_000_000, "stream": True, "messages": messages}).encode()


def kiro_body(prompt: str) -> bytes:
    """The smallest request that Kiro takes (kiro-protocol.md section 2.2)."""
    message = {"content": prompt, "modelId": MODEL, "origin": "AI_EDITOR"}
    state = {
        "chatTriggerType": "MANUAL",
        "conversationId": "00000000-0000-4000-8000-000000000000",
        "currentMessage": {"userInputMessage": message},
    }
    return json.dumps({"conversationState": state}).encode()


@dataclass(frozen=True, slots=True)
class Script:
    """What the simulator is told to say, and what has to arrive.

    Args:
        words: so many, ``w1 w2 ...``.
        pause: milliseconds between two tokens; 0: as fast as it goes.
        stamped: a token is a word and the simulator's monotonic clock when it was sent, ``w17@123456789 ``; otherwise
            the text is cut into pieces of `PIECE` characters, and a piece is a token.
    """

    words: int
    pause: int = 0
    stamped: bool = False

    @property
    def prompt(self) -> str:
        """The directives."""
        kind = "stamps" if self.stamped else "tokens"
        return f"[[{kind}:{self.words}]][[chunk:{PIECE}]][[slow:{self.pause}]]"

    @property
    def pieces(self) -> list[str]:
        """The tokens, where they are known beforehand."""
        text = " ".join(f"w{n}" for n in range(1, self.words + 1))
        return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]

    @property
    def tokens(self) -> int:
        """How many tokens an answer has."""
        return self.words if self.stamped else len(self.pieces)

    def check(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Whether the tokens that arrived are the ones that were asked for.

        Returns:
            For each token the nanoseconds it was under way, where they are stamped; else nothing.

        Raises:
            WrongAnswer: one is missing, doubled, changed or out of order, or came before it was sent.
        """
        if len(arrivals) != self.tokens:
            raise WrongAnswer(f"{len(arrivals)} tokens in place of {self.tokens}")
        if not self.stamped:
            for number, (arrival, piece) in enumerate(zip(arrivals, self.pieces, strict=True), 1):
                if arrival.text != piece:
                    raise WrongAnswer(f"token {number} is {arrival.text!r} in place of {piece!r}")
            return []
        under_way = []
        for number, arrival in enumerate(arrivals, 1):
            found = _STAMPED.fullmatch(arrival.text)
            if found is None or int(found[1]) != number:
                raise WrongAnswer(f"token {number} is {arrival.text!r} in place of w{number} and a time")
            took = arrival.at - int(found[2])
            if took <= 0:
                raise WrongAnswer(f"token {number} arrived {-took} ns before it was sent: the clocks differ")
            under_way.append(took)
        return under_way


_STAMPED = re.compile(r"w(\d+)@(\d+) ")


# --- answers ------------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """What one recv gave, and when (nanoseconds of the monotonic clock). No data: the connection ended."""

    at: int
    data: bytes


class Arrival(NamedTuple):
    """One token of text, and when its last byte was read."""

    at: int
    text: str


def is_whole(answer: bytes) -> bool:
    """Whether an answer that is sent in chunks has its last one."""
    at = answer.find(b"\r\n\r\n") + 4
    while at > 3:
        end = answer.find(b"\r\n", at)
        if end < 0:
            return False
        size = int(answer[at:end], 16)
        at = end + 2 + size + 2
        if size == 0:
            return at <= len(answer)
    return False


def read_answer(reads: Sequence[Read], dialect: str) -> list[Arrival]:
    """The tokens of an answer.

    Args:
        dialect: ``kiro``, ``anthropic`` or ``openai``.

    Raises:
        WrongAnswer: it is not a 200, says an error, or is not whole: no last chunk, or no last event.
    """
    body = _Body()
    events = _READERS[dialect]()
    arrivals = []
    for at, data in reads:
        arrivals += [Arrival(at, text) for text in events.feed(body.feed(data))]
    if not body.ended:
        raise WrongAnswer(f"the answer breaks off after {len(arrivals)} tokens")
    events.close()
    return arrivals


class _Body:
    """A chunked answer's body, as it comes."""

    def __init__(self) -> None:
        self.ended = False
        self._buffer = b""
        self._head = True

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if self._head:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return b""
            if head.split(b" ")[1:2] != [b"200"]:
                raise WrongAnswer(f"{head.splitlines()[0].decode()}: {rest[:500].decode(errors='replace')}")
            if b"transfer-encoding: chunked" not in head.lower():
                raise WrongAnswer("the answer is not streamed in chunks")
            self._head, self._buffer = False, rest
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        at = 0
        while not self.ended and (end := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(self._buffer[at:end], 16)
            if len(self._buffer) < end + 4 + size:
                break
            yield self._buffer[end + 2 : end + 2 + size]
            at = end + 4 + size
            self.ended = size == 0
        self._buffer = self._buffer[at:]


class FrameReader:
    """An AWS event stream (kiro-protocol.md section 3.1): event type and payload of each frame."""

    def __init__(self) -> None:
        self._buffer = b""

    def frames(self, data: bytes) -> list[tuple[str, bytes]]:
        """The frames that are whole now. Raises WrongAnswer for a wrong checksum."""
        self._buffer += data
        found = []
        at = 0
        while len(self._buffer) >= at + 12:
            total, header_size, prelude_crc = struct.unpack_from(">III", self._buffer, at)
            if zlib.crc32(self._buffer[at : at + 8]) != prelude_crc:
                raise WrongAnswer("a frame's prelude has a wrong checksum")
            if len(self._buffer) < at + total:
                break
            frame = self._buffer[at : at + total]
            (crc,) = struct.unpack_from(">I", frame, total - 4)
            if zlib.crc32(frame[:-4]) != crc:
                raise WrongAnswer("a frame has a wrong checksum")
            headers = dict(_headers(frame[12 : 12 + header_size]))
            kind = headers.get(":event-type") or headers.get(":exception-type", "")
            found.append((kind, frame[12 + header_size : -4]))
            at += total
        self._buffer = self._buffer[at:]
        return found

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of text."""
        for kind, payload in self.frames(data):
            if kind == "assistantResponseEvent":
                yield json.loads(payload)["content"]
            elif kind.endswith("Exception"):
                raise WrongAnswer(f"the stream ends with {kind}: {payload.decode()}")

    def close(self) -> None:
        """The stream is over. Raises WrongAnswer inside a frame; a stream of this kind has no last event."""
        if self._buffer:
            raise WrongAnswer("the stream ends inside a frame")


def _headers(block: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        if block[name_end] != 7:
            raise WrongAnswer(f"a header of type {block[name_end]}, and not a string")
        (size,) = struct.unpack_from(">H", block, name_end + 1)
        yield block[at + 1 : name_end].decode(), block[name_end + 3 : name_end + 3 + size].decode()
        at = name_end + 3 + size


class _SseReader(ABC):
    """Server-sent events whose data is JSON."""

    def __init__(self) -> None:
        self._buffer = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator[str]:
        *events, self._buffer = (self._buffer + data).split(b"\n\n")
        for event in events:
            said = event.partition(b"data: ")[2]
            if said == b"[DONE]":
                self._ended = True
            elif said:
                yield from self.text(json.loads(said))

    @abstractmethod
    def text(self, said: dict[str, Any]) -> Iterator[str]:
        """The text of one event."""

    def close(self) -> None:
        if self._buffer or not self._ended:
            raise WrongAnswer("the answer ends without its last event")


class _AnthropicReader(_SseReader):
    def text(self, said: dict[str, Any]) -> Iterator[str]:
        match said["type"]:
            case "content_block_delta":
                yield said["delta"]["text"]
            case "error":
                raise WrongAnswer(f"the stream says {said['error']}")
            case "message_stop":
                self._ended = True


class _OpenAIReader(_SseReader):
    def text(self, said: dict[str, Any]) -> Iterator[str]:
        if "error" in said:
            raise WrongAnswer(f"the stream says {said['error']}")
        for choice in said["choices"]:
            if content := choice["delta"].get("content"):
                yield content


_READERS: Mapping[str, Callable[[], FrameReader | _SseReader]] = {
    "kiro": FrameReader,
    "anthropic": _AnthropicReader,
    "openai": _OpenAIReader,
}
