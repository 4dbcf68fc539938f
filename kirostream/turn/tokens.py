"""Estimates of token counts, for what the upstream does not count.

No tokenizer of the upstream's models is public, so this is a fit, not a count. Bytes weigh by kind, and the weights
were fitted to the one tokenizer that Claude's makers have published, over prose in ten scripts, code, JSON, logs,
tables and base64. With one weight for all bytes, just what agents send most would be off by half: a digit is a token
nearly by itself, a letter of an English word a fifth of one, a CJK character one and a bit. `tests/turn/test_tokens.py`
has the texts.

`estimate` errs a little high on purpose: a client that compacts a little early loses nothing, one that compacts too
late loses its turn. What is left of the error is a property of the model, and is measured: `turn/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kirostream.turn.images import pixels
from kirostream.turn.request import (
    Attachment,
    Image,
    Message,
    SearchCall,
    SearchHit,
    SearchOutcome,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

BYTES_PER_TOKEN: Final = 3.6
"""Of an answer, where its text is not looked at: bytes of JSON string."""
IMAGE_TOKENS: Final = 1_600
"""An image at the size the models scale to; kiro-protocol.md section 3.6 has peers at 1,500."""
IMAGE_EDGE: Final = 1_568
"""Pixels of the longer edge, to which a larger image is scaled down."""
PIXELS_PER_TOKEN: Final = 750
MESSAGE_TOKENS: Final = 4
"""Role and separators of one message."""

_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyz "
_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS: Final = b"0123456789"
_SIGNS: Final = bytes(set(range(0x80)) - set(_PLAIN + _UPPER + _DIGITS))
_KINDS: Final[Sequence[tuple[bytes, float]]] = (
    (_PLAIN, 0.195),
    (_SIGNS, 0.52),
    (_UPPER, 1.05),  # dear in base64, and rare in words
    (_DIGITS, 0.85),
    (bytes(range(0x80, 0xC0)), 0.0),  # the rest of a character that counts by its first byte
    (bytes((*range(0xE2, 0xEA), 0xEE, 0xEF)), 1.15),  # Han, kana, typographic signs
    (bytes(range(0xC0, 0xE0)), 0.9),  # Latin with accents, Greek, Cyrillic, Hebrew, Arabic
    (bytes(range(0xEA, 0xEE)), 1.45),  # Hangul
    (bytes((0xE0, 0xE1)), 1.3),  # Indic scripts, Thai
    (bytes(range(0xF0, 0x100)), 3.3),  # emoji, rare Han
)
"""Every byte of UTF-8 once, with its tokens; the usual ones first."""


def estimate_text(text: str | bytes) -> int:
    """Tokens of a text, about 1 ms a megabyte."""
    rest = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    total = 0.0
    for kind, tokens in _KINDS:
        if not rest:
            break
        size = len(rest)
        rest = rest.translate(None, kind)
        total += (size - len(rest)) * tokens
    return round(total)


def estimate(request: TurnRequest) -> int:
    """Tokens of a request's whole prompt: system, tools and messages."""
    return estimate_head(request) + sum(map(estimate_message, request.messages)) or 1


def estimate_head(request: TurnRequest) -> int:
    """Tokens of what stands before the messages: system and tools."""
    total = sum(estimate_text(part.encoded) for part in request.system)
    return total + sum(map(_estimate_tool, request.tools))


def _estimate_tool(tool: Tool) -> int:
    found: int | None = tool.kept.get(_TOKENS)
    if found is None:
        found = estimate_text(tool.name) + estimate_text(tool.description) + estimate_text(tool.schema)
        tool.kept[_TOKENS] = found
    return found


_TOKENS: Final = "tokens"
"""In `kept`: an agent sends the same messages and tools with every turn, and asks for their count in between."""


def estimate_message(message: Message) -> int:
    """Tokens of one message."""
    found: int | None = message.kept.get(_TOKENS)
    if found is None:
        found = message.kept[_TOKENS] = _estimate_message(message)
    return found


def _estimate_message(message: Message) -> int:
    total = MESSAGE_TOKENS
    for block in message.content:
        match block:
            case Text():
                total += estimate_text(block.encoded)
            case Thought(text=text):
                total += estimate_text(text)
            case Image():
                total += estimate_image(block)
            case Attachment():
                total += IMAGE_TOKENS
            case SearchCall(query=query):
                total += estimate_text(query)
            case SearchOutcome(hits=hits):
                total += sum(map(_estimate_hit, hits or ()))
            case ToolCall(name=name, arguments=arguments):
                total += estimate_text(name) + estimate_text(arguments)
            case ToolResult(content=content):
                for part in content:
                    match part:
                        case Text():
                            total += estimate_text(part.encoded)
                        case Image():
                            total += estimate_image(part)
                        case Attachment():
                            total += IMAGE_TOKENS
    return total


def _estimate_hit(hit: SearchHit) -> int:
    return estimate_text(hit.title) + estimate_text(hit.url) + estimate_text(hit.text)


def estimate_image(image: Image) -> int:
    """Tokens of an image by its size in pixels; the most an image can be where that cannot be seen."""
    size = pixels(image.data)
    if size is None:
        return IMAGE_TOKENS
    scale = min(1.0, IMAGE_EDGE / max(size))
    return max(1, min(IMAGE_TOKENS, round(size[0] * size[1] * scale * scale / PIXELS_PER_TOKEN)))
