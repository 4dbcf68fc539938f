"""What the compiled upstream replays, and what the compiled clients ask: bytes, prepared once.

An answer is a beginning, one token that is repeated, and an end, each already in the chunks of HTTP. The upstream
writes a number, the clock and, in a frame, its checksum into each token (`bench/c/upstream.c`). Plain Python, and
nothing of kirostream: what measures the gateway does not share its code.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "claude-sonnet-4.5"
ACCESS_TOKEN = "aoa-bench-" + "0" * 200  # of nobody
REFRESH_TOKEN = "aor-bench-" + "0" * 120  # longer than a shortened one, which the gateway would not take
NUMBER_DIGITS, STAMP_DIGITS = 6, 12
TOKEN = "@" + "0" * NUMBER_DIGITS + ":" + "0" * STAMP_DIGITS + " "
"""The text of a token (``bench/c/common.h``): its number, and the clock when it was sent."""
MOST_TOKENS = 10**NUMBER_DIGITS - 1


def prompt(tokens: int, period: float = 0.0) -> str:
    """What the upstream reads in a request.

    Args:
        tokens: so many, at most `MOST_TOKENS`.
        period: seconds between two; 0: as fast as it goes.
    """
    return f"[[bench:{tokens},{round(period * 1e6)}]]"


# --- the upstream's side ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """An answer to ``METHOD /path``. `token` empty: `begin` is all of it. `summed`: where a frame's message begins in
    `token`, which then ends with its checksum and the end of the chunk; -1: it has none."""

    what: str
    begin: bytes
    token: bytes = b""
    end: bytes = b""
    summed: int = -1

    def packed(self) -> bytes:
        """As ``upstream.c`` reads it."""
        number_at = self.token.find(TOKEN.encode()) + 1
        sum_at = len(self.token) - 6 if self.summed >= 0 else 0  # CRC, CRLF
        numbers = struct.pack("<4I", bool(self.token), number_at, max(self.summed, 0), sum_at)
        texts = (self.what.encode(), self.begin, self.token, self.end)
        return numbers + b"".join(struct.pack("<I", len(text)) + text for text in texts)


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(kind: str, payload: Mapping[str, Any]) -> bytes:
    """One message of an AWS event stream (kiro-protocol.md section 3.1)."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    body = compact(payload)
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def compact(said: Any) -> bytes:
    """JSON without spaces, as the services write it."""
    return json.dumps(said, separators=(",", ":")).encode()


def whole(what: str, said: Any) -> Route:
    """A JSON answer."""
    body = compact(said)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return Route(what, head.encode() + body)


def kiro_stream() -> Route:
    """A turn of text: frames of a token each, then what the turn cost."""
    head = (
        b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 19:00:00 GMT\r\ncontent-type: application/vnd.amazon.eventstream"
        b"\r\nx-amzn-requestid: 00000000-0000-4000-8000-000000000000\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    token = chunk(frame("assistantResponseEvent", {"content": TOKEN, "modelId": MODEL}))
    end = frame("contextUsageEvent", {"contextUsagePercentage": 0.0075})
    end += frame("meteringEvent", {"usage": 0.00039, "unit": "credit", "unitPlural": "credits"})
    return Route("POST /generateAssistantResponse", head, token, chunk(end) + b"0\r\n\r\n", token.index(b"\r\n") + 2)


def chat_stream(path: str) -> Route:
    """The same as an OpenAI upstream says it, for gateways that know no other."""

    def event(delta: Mapping[str, str], finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        said = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        return b"data: " + compact({**said, "choices": choices, **more}) + b"\n\n"

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    begin = head + chunk(event({"role": "assistant", "content": ""}))
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    end = chunk(event({}, "stop", usage=usage)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return Route(f"POST {path}", begin, chunk(event({"content": TOKEN})), end)


def routes() -> list[Route]:
    """All that gateways ask of an upstream while they are measured."""
    tokens = {
        "accessToken": ACCESS_TOKEN,
        "refreshToken": REFRESH_TOKEN,
        "expiresIn": 86400,
        "profileArn": "arn:aws:codewhisperer:us-east-1:111122223333:profile/BENCHBENCH00",
    }
    model = {
        "modelId": MODEL,
        "modelName": "Claude Sonnet 4.5",
        "supportedInputTypes": ["TEXT", "IMAGE"],
        "tokenLimits": {"maxInputTokens": 200000, "maxOutputTokens": 64000},
    }
    usage = {
        "subscriptionInfo": {"subscriptionTitle": "KIRO PRO", "type": "Q_DEVELOPER_STANDALONE_PRO"},
        "usageBreakdownList": [{"resourceType": "CREDIT", "currentUsage": 0, "usageLimit": 1000}],
    }
    return [
        kiro_stream(),
        chat_stream("/v1/chat/completions"),
        whole("POST /refreshToken", tokens),
        whole("GET /ListAvailableModels", {"defaultModel": {"modelId": MODEL}, "models": [model]}),
        whole("GET /getUsageLimits", usage),
        whole("GET /v1/models", {"object": "list", "data": [{"id": MODEL, "object": "model"}]}),
        whole("GET /health", {"status": "ok"}),
    ]


def write_routes(path: Path) -> Path:
    """The file that ``upstream`` reads."""
    known = routes()
    path.write_bytes(struct.pack("<I", len(known)) + b"".join(route.packed() for route in known))
    return path


# --- the clients' side --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client asks. `name` is what ``load`` calls the answers' form."""

    name: str
    path: str
    body: Callable[[str], Any]


def _messages(text: str) -> Any:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 1_000_000, "stream": True, "messages": messages}


def _chat(text: str) -> Any:
    return {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}


def _responses(text: str) -> Any:
    return {"model": MODEL, "stream": True, "input": text}


def _kiro(text: str) -> Any:
    message = {"content": text, "modelId": MODEL, "origin": "AI_EDITOR"}
    state = {
        "chatTriggerType": "MANUAL",
        "conversationId": "00000000-0000-4000-8000-000000000000",
        "currentMessage": {"userInputMessage": message},
    }
    return {"conversationState": state}


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("kiro", "/generateAssistantResponse", _kiro),
        Dialect("messages", "/v1/messages", _messages),
        Dialect("chat", "/v1/chat/completions", _chat),
        Dialect("responses", "/v1/responses", _responses),
    )
}


def request(dialect: Dialect, key: str, text: str, *, close: bool = False) -> bytes:
    """A whole HTTP request.

    Args:
        close: the connection is for this one alone.
    """
    body = json.dumps(dialect.body(text)).encode()
    lines = [
        f"POST {dialect.path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"authorization: Bearer {key}",
        *(["connection: close"] if close else []),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
