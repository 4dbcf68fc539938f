"""The items of an ``input``, written (client-apis.md section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from kirostream.dialects.openai_responses.thoughts import FOREIGN, Seal, pack
from kirostream.dialects.openai_responses.tools import Kind, Offer, call_item
from kirostream.dialects.openai_responses.websearch import search_item, sources_of
from kirostream.turn.request import (
    Attachment,
    ContentBlock,
    Image,
    Message,
    Role,
    SearchCall,
    SearchOutcome,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)


def write_message(message: Message, offer: Offer, calls: dict[str, Kind], seal: Seal) -> list[object]:
    """The items of one message, in order; texts and images beside each other are one item. `calls` is filled."""
    items: list[object] = []
    spoken: list[ContentBlock] = []
    role = {Role.USER: "user", Role.ASSISTANT: "assistant", Role.SYSTEM: "developer"}[message.role]

    def flush() -> None:
        if spoken:
            items.append(message_item(role, spoken))
            spoken.clear()

    for block in message.content:
        match block:
            case Thought():
                flush()
                items.append(thought_item(block, seal))
            case ToolCall():
                flush()
                origin = offer.origin(block.name)
                calls[block.id] = origin.kind
                items.append(call_item(origin, "", block.id, block.arguments))
            case ToolResult():
                flush()
                items.append(_output_item(block, calls.get(block.call_id, Kind.FUNCTION)))
            case SearchCall():
                flush()
                items.append(_search_item(block, message))
            case SearchOutcome():
                pass  # a part of its call's item
            case _:
                if spoken and _phase(spoken[-1]) != _phase(block):
                    flush()
                spoken.append(block)
    flush()
    return items or [message_item(role, [])]


def _search_item(call: SearchCall, message: Message) -> Raw:
    outcomes = (block for block in message.content if isinstance(block, SearchOutcome) and block.call_id == call.id)
    outcome = next(outcomes, SearchOutcome(call.id, None))
    return Raw(
        search_item(call.id, call.query, "failed" if outcome.error else "completed", sources_of(outcome, whole=False))
    )


def message_item(role: str, blocks: Sequence[ContentBlock]) -> dict[str, object]:
    item: dict[str, object] = {"type": "message", "role": role, "content": _write_content(blocks, role)}
    phase = _phase(blocks[0]) if blocks else ""
    return item | {"phase": phase} if phase else item


def _phase(block: ContentBlock) -> str:
    return block.phase if isinstance(block, Text) else ""


def _write_content(blocks: Sequence[ContentBlock], role: str = "user") -> list[dict[str, object]]:
    parts: list[dict[str, object]] = []
    for block in blocks:
        if isinstance(block, Text):
            parts.append({"type": "output_text" if role == "assistant" else "input_text", "text": block.text})
        elif isinstance(block, Image):
            parts.append({"type": "input_image", "image_url": f"data:{block.media_type};base64,{block.data}"})
        elif isinstance(block, Attachment) and block.media_type == "*/*":
            parts.append({"type": "input_file", "file_url": block.url, "filename": block.title})
        elif isinstance(block, Attachment) and block.url:
            parts.append({"type": "input_image", "image_url": block.url})
        elif isinstance(block, Attachment):
            data = f"data:{block.media_type};base64,{block.data}"
            parts.append({"type": "input_file", "file_data": data, "filename": block.title or "document.pdf"})
    return parts


def thought_item(thought: Thought, seal: Seal) -> dict[str, object]:
    """A thought as an item of a request."""
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    foreign = thought.signature.startswith(FOREIGN)
    sealed = thought.signature.removeprefix(FOREIGN) if foreign else pack(thought, seal)
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _output_item(result: ToolResult, kind: Kind) -> dict[str, object]:
    match result.content:
        case ():
            output: object = ""
        case (Text(text=output),):
            pass
        case _:
            output = _write_content(result.content)
    match kind:
        case Kind.CUSTOM:
            return {"type": "custom_tool_call_output", "call_id": result.call_id, "output": output}
        case Kind.APPLY_PATCH:
            status = "failed" if result.is_error else "completed"
            return {
                "type": "apply_patch_call_output",
                "call_id": result.call_id,
                "status": status,
                "output": output,
            }
        case _:
            return {"type": "function_call_output", "call_id": result.call_id, "output": output}
