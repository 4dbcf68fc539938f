"""Estimates of token counts, for what the upstream does not count.

No tokenizer of the upstream's models is public, so this is a fit, not a count: Latin text runs at about 4 bytes a
token, JSON and code at about 3.3, CJK at about one character a token. `estimate` errs high on purpose: a client that
compacts a little early loses nothing, one that compacts too late loses its turn.
"""

from __future__ import annotations

from typing import Final

from kirostream.turn.request import Attachment, Image, Message, Text, Thought, ToolCall, ToolResult, TurnRequest

BYTES_PER_TOKEN: Final = 3.6
IMAGE_TOKENS: Final = 1_600
"""An image at the size the models scale to; kiro-protocol.md section 3.6 has peers at 1,500."""
MESSAGE_TOKENS: Final = 4
"""Role and separators of one message."""


def estimate_text(text: str | bytes) -> int:
    """Tokens of a text. Bytes of UTF-8 weigh CJK about right: three bytes a character, one token each."""
    length = len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode("utf-8", "replace"))
    return round(length / BYTES_PER_TOKEN)


def estimate(request: TurnRequest) -> int:
    """Tokens of a request's whole prompt: system, tools and messages."""
    total = sum(estimate_text(part.text) for part in request.system)
    for tool in request.tools:
        total += estimate_text(tool.name) + estimate_text(tool.description) + estimate_text(tool.schema)
    return total + sum(map(_message, request.messages)) or 1


def _message(message: Message) -> int:
    total = MESSAGE_TOKENS
    for block in message.content:
        match block:
            case Text(text=text) | Thought(text=text):
                total += estimate_text(text)
            case Image() | Attachment():
                total += IMAGE_TOKENS
            case ToolCall(name=name, arguments=arguments):
                total += estimate_text(name) + estimate_text(arguments)
            case ToolResult(content=content):
                total += sum(estimate_text(c.text) if isinstance(c, Text) else IMAGE_TOKENS for c in content)
    return total
