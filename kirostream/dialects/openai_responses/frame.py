"""The response object and its items, as bytes (client-apis.md section 3.4).

What a client set is repeated as it set it. Ids are made of the heading's turn: ``resp_<turn>``, and an item's prefix,
the turn, and four hex digits of its index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kirostream.dialects.dialect import Heading
from kirostream.dialects.jsontext import encode
from kirostream.turn.events import Stop
from kirostream.turn.request import RawJson, TurnRequest
from kirostream.turn.usage import Usage


def response_id(turn: str) -> str:
    """The id of a turn's answer."""
    return f"resp_{turn}"


def item_id(prefix: str, turn: str, index: int) -> str:
    """The id of an item of a turn's answer."""
    return f"{prefix}_{turn}{index:04x}"


class ResponseFrame:
    """The response object round its output (section 3.4). What a client set is repeated as it set it."""

    def __init__(self, request: TurnRequest, heading: Heading) -> None:
        extras = request.extras
        sampling = request.sampling
        self.background = extras.get("background") == b"true"
        self._head = b'{"id":"%b","object":"response","created_at":%d,"completed_at":' % (
            response_id(heading.turn).encode(),
            heading.created,
        )
        said = {
            name: _one_line(extras[name]) if extras.get(name, b"null") != b"null" else usual for name, usual in ECHOED
        }
        said["service_tier"] = b'"default"'  # the one that was used, whatever was asked for
        said["model"] = encode(request.model)
        said["temperature"] = encode(sampling.temperature)
        said["top_p"] = encode(sampling.top_p)
        said["max_output_tokens"] = encode(sampling.max_tokens)
        self._said = said
        self._tail = self._write_tail()

    def _write_tail(self) -> bytes:
        return b"".join(b',"%b":%b' % (name.encode(), value) for name, value in self._said.items()) + b"}"

    def stand_in(self, model: str) -> None:
        """Another model answers than the one that was asked for."""
        self._said["model"] = encode(model)
        self._tail = self._write_tail()

    def response(
        self,
        status: bytes,
        *,
        output: bytes = b"",
        usage: bytes = b"null",
        error: bytes = b"null",
        incomplete: bytes = b"null",
        completed_at: bytes = b"null",
    ) -> bytes:
        """The object. All arguments but `status` are JSON; `output` is the inside of its list."""
        middle = b'%b,"status":"%b","error":%b,"incomplete_details":%b,"output":[%b],"usage":%b'
        return self._head + middle % (completed_at, status, error, incomplete, output, usage) + self._tail


ECHOED: Final[Sequence[tuple[str, RawJson]]] = (
    ("background", b"false"),
    ("instructions", b"null"),
    ("max_tool_calls", b"null"),
    ("metadata", b"{}"),
    ("parallel_tool_calls", b"true"),
    ("previous_response_id", b"null"),
    ("prompt_cache_key", b"null"),
    ("reasoning", b'{"effort":null,"summary":null}'),
    ("safety_identifier", b"null"),
    ("service_tier", b'"default"'),
    ("store", b"true"),
    ("text", b'{"format":{"type":"text"}}'),
    ("tool_choice", b'"auto"'),
    ("tools", b"[]"),
    ("truncation", b'"disabled"'),
    ("user", b"null"),
)
"""Members of the response that repeat the request's, and what they are where it has none."""


def _one_line(said: RawJson) -> RawJson:
    """A client's JSON on one line: a line break would end the event's data."""
    return msgspec.json.format(said, indent=-1) if b"\n" in said or b"\r" in said else said


INCOMPLETE: Final[Mapping[Stop, str]] = {
    Stop.MAX_TOKENS: "max_output_tokens",
    Stop.CONTEXT_FULL: "max_output_tokens",
}
"""Why an answer is incomplete; every other stop completes it."""


def text_part(text: bytes, annotations: bytes = b"") -> bytes:
    return b'{"type":"output_text","text":"%b","annotations":[%b],"logprobs":[]}' % (text, annotations)


def message_item(item: str, text: bytes, status: bytes, annotations: bytes = b"") -> bytes:
    content = b"" if status == b"in_progress" else text_part(text, annotations)
    return b'{"id":"%b","type":"message","role":"assistant","status":"%b","content":[%b]}' % (
        item.encode(),
        status,
        content,
    )


def reasoning_item(item: str, text: bytes, sealed: str) -> bytes:
    summary = b'{"type":"summary_text","text":"%b"}' % text if text else b""
    more = b',"encrypted_content":"%b"' % sealed.encode() if sealed else b""
    return b'{"id":"%b","type":"reasoning","summary":[%b]%b}' % (item.encode(), summary, more)


def write_usage(usage: Usage) -> dict[str, object]:
    """Counts; ``input_tokens`` includes what came from and went into the cache, as in chat."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.total_tokens,
    }
