"""Messages of the usual form, read in one decode: what an agent's conversation consists of.

Texts, base64 images, thoughts, calls, and results that hold texts and images. `read_usual` says what the reader of any
message (`request.py`) would say, or nothing: that reader knows every other form, and words every refusal.

It has a compiled sibling (`kirostream.scan.read_message`), which leaves texts as they are in the JSON.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from kirostream import scan
from kirostream.dialects.jsontext import shallow
from kirostream.turn.request import ContentBlock, Image, Message, Role, Text, Thought, ToolCall, ToolResult


class Block(msgspec.Struct, tag_field="type", gc=False):
    """A block is told by its type. Fields that are not known are let through."""


class TextBlock(Block, tag="text"):
    text: str


class Source(msgspec.Struct, gc=False):
    media_type: str
    data: str
    type: str = "base64"


class ImageBlock(Block, tag="image"):
    source: Source


class ThinkingBlock(Block, tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedBlock(Block, tag="redacted_thinking"):
    data: str


class ToolUseBlock(Block, tag="tool_use"):
    id: str
    name: str
    input: Raw


class ToolResultBlock(Block, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock]
    is_error: bool | None = None


UsualBlock: TypeAlias = TextBlock | ImageBlock | ThinkingBlock | RedactedBlock | ToolUseBlock | ToolResultBlock


class UsualMessage(msgspec.Struct, gc=False):
    role: Role
    content: str | list[UsualBlock]


_decode: Final = msgspec.json.Decoder(UsualMessage).decode


def read_usual(raw: bytes) -> Message | None:
    """The message in `raw`, JSON that was found to be well-formed; None where another reader has to look."""
    return scan.read_message(raw) or decode_usual(raw)


def decode_usual(raw: bytes) -> Message | None:
    """The same, with every text decoded."""
    try:
        wire = _decode(raw)
    except ValueError:
        return None
    if isinstance(wire.content, str):
        return Message(wire.role, (Text(wire.content),) if wire.content else ())
    blocks: list[ContentBlock] = []
    for block in wire.content:
        kind = type(block)
        if kind is TextBlock or kind is ImageBlock:
            read = _part(block)  # type: ignore[arg-type]
            if read is None:
                return None
            blocks += read
        elif isinstance(block, ToolUseBlock):
            arguments = bytes(block.input)
            if not arguments.startswith(b"{") or not shallow(arguments):
                return None
            blocks.append(ToolCall(block.id, block.name, arguments))
        elif isinstance(block, ToolResultBlock):
            result = _result(block)
            if result is None:
                return None
            blocks.append(result)
        elif isinstance(block, ThinkingBlock):
            blocks.append(Thought(block.thinking, block.signature))
        elif isinstance(block, RedactedBlock):
            blocks.append(Thought("", redacted=block.data))
    return Message(wire.role, tuple(blocks))


def _result(block: ToolResultBlock) -> ToolResult | None:
    content: list[Text | Image] = []
    if isinstance(block.content, str):
        if block.content:
            content.append(Text(block.content))
    else:
        for part in block.content:
            read = _part(part)
            if read is None:
                return None
            content += read
    return ToolResult(block.tool_use_id, tuple(content), bool(block.is_error))


def _part(block: TextBlock | ImageBlock) -> tuple[Text | Image, ...] | None:
    """An empty text says nothing; of images, only those that are in the request are usual."""
    if isinstance(block, TextBlock):
        return (Text(block.text),) if block.text else ()
    source = block.source
    if source.type != "base64" or not source.media_type.startswith("image/") or not source.data:
        return None
    return (Image(source.media_type, source.data),)
