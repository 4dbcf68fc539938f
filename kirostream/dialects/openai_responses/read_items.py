"""The items of an ``input``, read (client-apis.md section 3.2).

- Neighbouring items that the model made (its messages, reasoning, calls) are one assistant message, neighbouring
  results one user message; calls and results pair by ``call_id``.
- Items of tools that the server runs say nothing to a model that has no such tool and are passed over, as are
  references to items that nobody kept; what is unknown, or holds an output of its own, is kept as its JSON.
- A compaction stands for what came before it, save for what the user and the developer said: that stays, in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

from kirostream.dialects.jsontext import as_object, part, raw
from kirostream.dialects.openai_chat.request import WireFileData, read_file, read_image
from kirostream.dialects.openai_responses.thoughts import Seal, unpack, unpack_summary
from kirostream.dialects.openai_responses.tools import Kind, custom_arguments, flat, read_tools
from kirostream.dialects.openai_responses.websearch import read_call
from kirostream.errors import MalformedRequest
from kirostream.turn.request import (
    Attachment,
    ContentBlock,
    Image,
    Message,
    RawJson,
    Role,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)

PASSED_OVER: Final = frozenset(
    {
        "additional_tools",  # read with the tools
        "compaction",  # put in place by `_last_summary`; what another server sealed, nobody here can read
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",  # read with the settings
        "file_search_call",
        "image_generation_call",
        "item_reference",  # resolved before, or about something that was never kept
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
    }
)
"""Items that say nothing to a model here."""

SUMMARY: Final = "[This conversation was compacted. Its summary:]\n\n{}"

_UNSET: Final = Raw()


class WireKind(msgspec.Struct):
    """The first look at an item or a part."""

    type: str | None = None
    role: str | None = None


class WireMessage(msgspec.Struct):
    """A ``message``; also an item without a type."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Raw] | None = None
    phase: str | None = None


class WireFunctionCall(msgspec.Struct):
    """``function_call``."""

    call_id: str
    name: str
    arguments: Raw = _UNSET
    namespace: str | None = None


class WireCustomCall(msgspec.Struct):
    """``custom_tool_call``."""

    call_id: str
    name: str
    input: str = ""
    namespace: str | None = None


class WireHostCall(msgspec.Struct):
    """A call of the shells, of the patcher, or of the tool search."""

    call_id: str | None = None
    id: str | None = None
    action: Raw = _UNSET
    operation: Raw = _UNSET
    arguments: Raw = _UNSET
    execution: str | None = None


class WireOutput(msgspec.Struct):
    """The output of a call of any kind. ``local_shell_call_output`` names the call in `id`."""

    call_id: str | None = None
    id: str | None = None
    output: Raw = _UNSET
    status: str | None = None
    tools: list[Raw] | None = None


class WireShellOutcome(msgspec.Struct):
    """How a shell command ended."""

    type: str = "exit"
    exit_code: int | None = None


class WireShellOutput(msgspec.Struct):
    """What one shell command said."""

    stdout: str = ""
    stderr: str = ""
    outcome: WireShellOutcome | None = None


class WireReasoningItem(msgspec.Struct):
    """``reasoning``, as an item."""

    summary: list[Raw] | None = None
    content: list[Raw] | None = None
    encrypted_content: str | None = None


class WireCompaction(msgspec.Struct):
    """``compaction``."""

    encrypted_content: str | None = None


class WireToolList(msgspec.Struct):
    """An item that brings tools."""

    tools: list[Raw] | None = None


class WireText(msgspec.Struct):
    """A part that is text, of any of the names for it."""

    text: str | None = None
    refusal: str | None = None


class WireImage(msgspec.Struct):
    """``input_image``. `image_url` is a string; some clients send chat's object."""

    image_url: Raw = _UNSET
    file_id: str | None = None


class WireInputFile(msgspec.Struct):
    """``input_file``."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


class WireUrl(msgspec.Struct):
    """Chat's object round a URL."""

    url: str


def read_items(
    items: Sequence[Raw], more_tools: list[tuple[Raw, str]], seal: Seal, at: str = "$.input"
) -> Iterable[Message]:
    kinds = [part(item, WireKind, f"{at}[{i}]") for i, item in enumerate(items)]
    compacted, summary = _last_summary(items, kinds, seal, at)
    for i, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        here = f"{at}[{i}]"
        name = kind.type or "message"
        if name in ("additional_tools", "tool_search_output"):
            tools = part(item, WireToolList, here).tools or ()
            more_tools.extend((tool, f"{here}.tools[{j}]") for j, tool in enumerate(tools))
        if i == compacted:
            yield Message(Role.USER, (Text(summary),))
        if name in PASSED_OVER or (i < compacted and (name != "message" or kind.role == "assistant")):
            continue
        reader = _ITEMS.get(name)
        if reader is not None:
            yield from reader(item, here)
        elif name == "reasoning":
            yield from _read_reasoning(item, here, seal)
        else:
            yield Message(Role.ASSISTANT, (Text(raw(item, here).decode()),))


def _last_summary(items: Sequence[Raw], kinds: Sequence[WireKind], seal: Seal, at: str) -> tuple[int, str]:
    """Where the last compaction that we sealed stands, and what it says; -1 where there is none."""
    for i in range(len(items) - 1, -1, -1):
        if kinds[i].type == "compaction":
            wire = part(items[i], WireCompaction, f"{at}[{i}]")
            summary = unpack_summary(wire.encrypted_content or "", seal)
            if summary is not None:
                return i, SUMMARY.format(summary)
    return -1, ""


_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}


def _read_message(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireMessage, at)
    content = _read_content(wire.content, f"{at}.content")
    if wire.phase and wire.role == "assistant":
        content = tuple(replace(block, phase=wire.phase) if isinstance(block, Text) else block for block in content)
    if content or wire.role == "user":
        yield Message(_ROLES[wire.role], content)


def _read_reasoning(item: Raw, at: str, seal: Seal) -> Iterable[Message]:
    wire = part(item, WireReasoningItem, at)
    thought: Thought | None
    if wire.encrypted_content:
        thought = unpack(wire.encrypted_content, seal)
    else:
        parts = [part(value, WireText, at).text for value in wire.content or wire.summary or ()]
        text = "\n\n".join(text for text in parts if text)
        thought = Thought(text) if text else None
    if thought is not None:
        yield Message(Role.ASSISTANT, (thought,))


def _call(call_id: str, name: str, arguments: RawJson) -> Iterable[Message]:
    yield Message(Role.ASSISTANT, (ToolCall(call_id, name, arguments),))


def _read_function_call(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireFunctionCall, at)
    arguments = raw(wire.arguments, f"{at}.arguments")
    if arguments.startswith(b'"'):
        arguments = msgspec.json.decode(arguments, type=str).encode()
    return _call(wire.call_id, flat(wire.name, wire.namespace or ""), as_object(arguments))


def _read_custom_call(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireCustomCall, at)
    return _call(wire.call_id, flat(wire.name, wire.namespace or ""), custom_arguments(wire.input))


ItemReader: TypeAlias = Callable[[Raw, str], Iterable[Message]]


def _host_call(kind: Kind, member: Literal["action", "operation", "arguments"]) -> ItemReader:
    def read(item: Raw, at: str) -> Iterable[Message]:
        wire = part(item, WireHostCall, at)
        if kind is Kind.TOOL_SEARCH and wire.execution != "client":
            return ()  # the server searched; what it found follows as tools
        said = raw(getattr(wire, member), f"{at}.{member}")
        return _call(_call_id(wire.call_id, wire.id, at), kind.value, as_object(said))

    return read


def _call_id(call_id: str | None, item_id: str | None, at: str) -> str:
    found = call_id or item_id
    if not found:
        raise MalformedRequest(f"{at}.call_id is required.", param=f"{at}.call_id", reason="missing_required_parameter")
    return found


def _read_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    call_id = _call_id(wire.call_id, wire.id, at)
    blocks = _read_output_content(wire.output, f"{at}.output")
    failed = wire.status in ("failed", "incomplete") and not blocks
    content = tuple(block for block in blocks if isinstance(block, Text | Image | Attachment))
    yield Message(Role.USER, (ToolResult(call_id, content, failed),))


def _read_output_content(output: Raw, at: str) -> tuple[ContentBlock, ...]:
    said = bytes(output)
    if said.startswith(b'"'):
        text = msgspec.json.decode(said, type=str)
        return (Text(text),) if text else ()
    if said.startswith(b"["):
        return _read_content(part(output, list[Raw], at), at)
    return (Text(raw(output, at).decode()),) if said and said != b"null" else ()


def _read_shell_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    if not bytes(wire.output).startswith(b"["):
        yield from _read_output(item, at)
        return
    texts = []
    for said in part(wire.output, list[WireShellOutput], f"{at}.output"):
        lines = [said.stdout] if said.stdout else []
        if said.stderr:
            lines.append(f"stderr:\n{said.stderr}")
        if said.outcome is not None and said.outcome.type == "timeout":
            lines.append("[timed out]")
        elif said.outcome is not None and said.outcome.exit_code:
            lines.append(f"[exit code {said.outcome.exit_code}]")
        texts.append("\n".join(lines))
    content = tuple(Text(text) for text in texts if text)
    yield Message(Role.USER, (ToolResult(_call_id(wire.call_id, wire.id, at), content),))


def _read_patch_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    blocks = _read_output_content(wire.output, f"{at}.output") or (Text(wire.status or "completed"),)
    content = tuple(block for block in blocks if isinstance(block, Text | Image | Attachment))
    yield Message(Role.USER, (ToolResult(_call_id(wire.call_id, wire.id, at), content, wire.status == "failed"),))


def _read_search_output(item: Raw, at: str) -> Iterable[Message]:
    wire = part(item, WireOutput, at)
    if wire.call_id:  # else the server's own
        offer = read_tools((tool, f"{at}.tools[{i}]") for i, tool in enumerate(wire.tools or ()))
        found = ", ".join(tool.name for tool in offer.tools)
        text = f"These tools can be called now: {found}." if found else "No tools were found."
        yield Message(Role.USER, (ToolResult(wire.call_id, (Text(text),)),))


def _read_web_search(item: Raw, at: str) -> Iterable[Message]:
    if search := read_call(item, at):
        yield Message(Role.ASSISTANT, search)


_ITEMS: Final[Mapping[str, ItemReader]] = {
    "message": _read_message,
    "function_call": _read_function_call,
    "custom_tool_call": _read_custom_call,
    "local_shell_call": _host_call(Kind.LOCAL_SHELL, "action"),
    "shell_call": _host_call(Kind.SHELL, "action"),
    "apply_patch_call": _host_call(Kind.APPLY_PATCH, "operation"),
    "tool_search_call": _host_call(Kind.TOOL_SEARCH, "arguments"),
    "function_call_output": _read_output,
    "custom_tool_call_output": _read_output,
    "local_shell_call_output": _read_output,
    "shell_call_output": _read_shell_output,
    "apply_patch_call_output": _read_patch_output,
    "tool_search_output": _read_search_output,
    "web_search_call": _read_web_search,
}
"""How each kind of item is read. Reasoning is not here: it needs the seal."""


def join(messages: Iterable[Message]) -> list[Message]:
    """Neighbours that are one message elsewhere: what the model made, and results."""
    joined: list[Message] = []
    for message in messages:
        if joined and _of_one_piece(joined[-1], message):
            joined[-1] = Message(message.role, joined[-1].content + message.content)
        else:
            joined.append(message)
    return joined


def _of_one_piece(one: Message, other: Message) -> bool:
    if one.role is Role.ASSISTANT:
        return other.role is Role.ASSISTANT
    return _is_results(one) and _is_results(other)


def _is_results(message: Message) -> bool:
    return bool(message.content) and all(isinstance(block, ToolResult) for block in message.content)


def _read_content(content: str | Sequence[Raw] | None, at: str) -> tuple[ContentBlock, ...]:
    """The parts of a message; empty texts are dropped, since they say nothing and upstreams refuse them."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    blocks: list[ContentBlock] = []
    for i, value in enumerate(content or ()):
        block = _read_part(value, f"{at}[{i}]")
        if block != Text(""):
            blocks.append(block)
    return tuple(blocks)


def _read_part(value: Raw, at: str) -> ContentBlock:
    match part(value, WireKind, at).type:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return Text(part(value, WireText, at).text or "")
        case "refusal":
            return Text(part(value, WireText, at).refusal or "")
        case "input_image" | "image_url" | "computer_screenshot":
            return _read_image_part(value, at)
        case "input_file":
            return _read_file_part(value, at)
        case "input_audio":
            raise MalformedRequest(
                f"{at}: the models here do not hear; send a transcript as text.", param=at, reason="unsupported_value"
            )
        case _:
            return Text(raw(value, at).decode())


def _read_file_part(value: Raw, at: str) -> ContentBlock:
    wire = part(value, WireInputFile, at)
    if wire.file_data:
        return read_file(WireFileData(wire.file_data, wire.filename), at)
    if not wire.file_url:
        field = "file_id" if wire.file_id else "file_data"
        raise MalformedRequest(
            f"{at}.{field}: files are not kept here, so a file has to come along: in file_data as a data: URL, or in "
            "file_url as its https address.",
            param=f"{at}.{field}",
            reason="unsupported_value" if wire.file_id else "missing_required_parameter",
        )
    if wire.file_url.startswith("data:"):
        return read_file(WireFileData(wire.file_url, wire.filename), at)
    return Attachment("*/*", url=wire.file_url, title=wire.filename or "", at=f"{at}.file_url")


def _read_image_part(value: Raw, at: str) -> Image | Attachment:
    wire = part(value, WireImage, at)
    url = bytes(wire.image_url)
    if url in (b"", b"null"):
        field = "file_id" if wire.file_id else "image_url"
        raise MalformedRequest(
            f"{at}.{field}: files are not kept here, so an image has to come along: in image_url, as a data: URL or "
            "by its https address.",
            param=f"{at}.{field}",
            reason="unsupported_value" if wire.file_id else "missing_required_parameter",
        )
    if url.startswith(b"{"):
        return read_image(part(wire.image_url, WireUrl, f"{at}.image_url").url, f"{at}.image_url.url")
    return read_image(part(wire.image_url, str, f"{at}.image_url"), f"{at}.image_url")
