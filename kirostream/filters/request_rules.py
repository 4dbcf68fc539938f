"""Requests as Kiro takes them: one rule a function, run in the order of `RULES`.

Clients send what their own API allows: roles in any order, results without calls, empty texts, schemas of any shape.
Kiro refuses all of that with one sentence, ``Improperly formed request.`` (kiro-protocol.md sections 2.4 to 2.7). Each
rule takes one cause away and keeps the meaning: what cannot be said in its place is said as text, nothing is dropped
in silence except duplicates and thoughts.

The order matters, and is the one of the table:

1. the cast: searches become calls, thoughts go, system messages become user text, blocks stand in messages of their
   role;
2. the tools offered: `tool_choice`, one tool a name, text in place of tool traffic where no tool is offered;
3. the sequence: neighbours of one role are one message, the first is the user's;
4. the pairs: every call has its result in the next message, and the other way round; every name is declared;
5. the contents: images, arguments, nothing empty, the last message is the user's, and they are not too many;
6. the tools as Kiro takes them: descriptions, schemas.

Rules are pure and idempotent; a rule that finds nothing to do returns the request it was given.

An agent's usual request needs little of this: its thoughts dropped, a text beside a bare call. `apply_rules` does that,
sees in one walk that the rest of the first five has nothing to do, and leaves it out. The walk costs next to nothing
where the messages are objects that it has seen before: what it makes and learns of one stays with it (`Message.kept`).
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec

from kirostream.errors import ContextOverflow
from kirostream.filters.outline import outline
from kirostream.filters.tool_schemas import OBJECT_SCHEMA, repair_schema
from kirostream.filters.websearch import as_calls
from kirostream.turn.request import (
    AUTO,
    ContentBlock,
    Image,
    Message,
    Role,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)

Rule: TypeAlias = Callable[[TurnRequest], TurnRequest]

MAX_DESCRIPTION: Final = 10_000
"""Bytes of a tool's description; section 2.6 has peers between 10,000 and 10,237, in characters or bytes."""
MAX_MESSAGES: Final = 9_999
"""A history of 10,000 and the current message, less the two that stand for the system prompt."""
MAX_IMAGES: Final = 10
MAX_IMAGE_BYTES: Final = 10_000_000

CONTINUE: Final = "Continue"
OPENING: Final = "(The conversation continues.)"
NO_OUTPUT: Final = "(no output)"
SEE_IMAGE: Final = "(See the attached image.)"
NO_RESULT: Final = "The tool was not run: no result was recorded."
STUB: Final = "Was used earlier in this conversation. It is not available now; do not call it."


def _once(change: Callable[[Message], Message]) -> Callable[[Message], Message]:
    """A change of a message, made once: the message keeps what became of it."""
    name = f"rules.{change.__name__}"

    @functools.wraps(change)
    def changed(message: Message) -> Message:
        kept = message.kept
        if name not in kept:
            made = change(message)
            kept[name] = None if made is message else made  # not itself, which would never be let go
        return kept[name] or message

    return changed


# 1. The cast


def searches_as_calls(request: TurnRequest) -> TurnRequest:
    """Kiro runs no search within a turn (section 8.7): one of an earlier turn is a call of a tool, with its result."""
    return as_calls(request)


def drop_thoughts(request: TurnRequest) -> TurnRequest:
    """Thoughts of earlier turns are left out: Kiro refuses most of them, signed or not (section 2.8)."""

    return _each_message(request, _without_thoughts)


@_once
def _without_thoughts(message: Message) -> Message:
    if Thought not in map(type, message.content):
        return message
    return Message(message.role, tuple([block for block in message.content if not isinstance(block, Thought)]))


def label_system_messages(request: TurnRequest) -> TurnRequest:
    """A system message between the turns becomes user text under a label; merging joins it to the turn beside it."""

    def labelled(message: Message) -> Message:
        if message.role is not Role.SYSTEM:
            return message
        content = (
            Text(f"<system-reminder>\n{block.text}\n</system-reminder>") if isinstance(block, Text) else block
            for block in message.content
            if block != Text("")
        )
        return Message(Role.USER, tuple(content))

    return _each_message(request, labelled)


def move_misplaced_blocks(request: TurnRequest) -> TurnRequest:
    """Only the assistant calls tools, and only the user has results and images.

    A result in an assistant's message moves into a user message behind it, where pairing finds it; a call in a user's
    message and an image in an assistant's become text.
    """
    if not any(map(_misplaced, request.messages)):
        return request
    messages: list[Message] = []
    for message in request.messages:
        if message.role is Role.USER:
            calls = any(isinstance(block, ToolCall) for block in message.content)
            content = tuple(Text(_call_as_text(b)) if isinstance(b, ToolCall) else b for b in message.content)
            messages.append(replace(message, content=content) if calls else message)
            continue
        stays = tuple(
            Text("[an image]") if isinstance(block, Image) else block
            for block in message.content
            if not isinstance(block, ToolResult)
        )
        moves = tuple(block for block in message.content if isinstance(block, ToolResult))
        messages.append(message if stays == message.content else replace(message, content=stays))
        if moves:
            messages.append(Message(Role.USER, moves))
    return _with_messages(request, messages)


def _misplaced(message: Message) -> bool:
    wrong = _NOT_THE_USERS if message.role is Role.USER else _NOT_THE_ASSISTANTS
    return not wrong.isdisjoint(map(type, message.content))


_NOT_THE_USERS: Final = frozenset((ToolCall,))
_NOT_THE_ASSISTANTS: Final = frozenset((Image, ToolResult))


# 2. The tools offered


def apply_tool_choice(request: TurnRequest) -> TurnRequest:
    """Kiro has no ``tool_choice`` (section 2.5): fewer tools and a line in the system prompt say it instead."""
    choice = request.tool_choice
    if choice == AUTO:
        return request
    tools = request.tools
    lines = []
    if choice.mode == "none":
        tools = ()
    elif choice.mode == "tool" and any(tool.name == choice.name for tool in tools):
        tools = tuple(tool for tool in tools if tool.name == choice.name)
        lines.append(f"Answer with a call of the tool {choice.name}.")
    elif choice.mode != "auto" and tools:
        lines.append("Answer with at least one tool call.")
    if not choice.parallel and tools:
        lines.append("Call at most one tool at a time.")
    system = (*request.system, *map(Text, lines))
    return replace(request, tools=tools, system=system, tool_choice=AUTO)


def drop_duplicate_tools(request: TurnRequest) -> TurnRequest:
    """Of several tools with one name the first stays (``TOOL_DUPLICATE``)."""
    first: dict[str, Tool] = {}
    for tool in request.tools:
        first.setdefault(tool.name, tool)
    return request if len(first) == len(request.tools) else replace(request, tools=tuple(first.values()))


def flatten_tool_traffic(request: TurnRequest) -> TurnRequest:
    """Calls and results become text where the request offers no tool (``TOOL_CONFIG_MISSING``)."""
    return request if request.tools else flatten_calls(request, lambda _: True)


def flatten_calls(request: TurnRequest, picked: Callable[[str], bool]) -> TurnRequest:
    """The calls whose ids are picked, and the results of these ids, as text."""
    names = {block.id: block.name for block in _blocks(request) if isinstance(block, ToolCall)}

    def flat(block: ContentBlock) -> Iterable[ContentBlock]:
        if isinstance(block, ToolCall) and picked(block.id):
            return (Text(_call_as_text(block)),)
        if isinstance(block, ToolResult) and picked(block.call_id):
            return _result_as_text(block, names)
        return (block,)

    return _each_block(request, flat)


# 3. The sequence


def merge_neighbours(request: TurnRequest) -> TurnRequest:
    """Messages of one role in a row become one (section 2.4): it keeps the meaning and adds no filler."""
    messages: list[Message] = []
    for message in request.messages:
        if messages and messages[-1].role is message.role:
            messages[-1] = Message(message.role, messages[-1].content + message.content)
        else:
            messages.append(message)
    return _with_messages(request, messages)


def start_with_user(request: TurnRequest) -> TurnRequest:
    """A conversation that the assistant opens gets a neutral opening."""
    if request.messages and request.messages[0].role is Role.USER:
        return request
    opening = (Message(Role.USER, (Text(OPENING),)),) if request.messages else ()
    return replace(request, messages=opening + request.messages)


# 4. The pairs


def pair_tools(request: TurnRequest) -> TurnRequest:
    """Every call has exactly one result in the message behind it, in the order of the calls (section 2.5).

    A result that comes later moves forward; one that never came is said to be missing, as an error; a second result of
    one call is dropped; a result without a call before it becomes text. Ids that come again in a later round (some
    clients count from zero each time), or that the models' own API would refuse, are renamed on both sides.

    Needs messages of alternating roles.
    """
    if _paired(request.messages):
        return request
    called: dict[str, list[int]] = {}  # by id: the positions of the messages that call it
    answered: dict[str, list[tuple[int, ToolResult]]] = {}  # by id: its results and the positions they stand at
    for at, message in enumerate(request.messages):
        for block in message.content:
            if isinstance(block, ToolCall) and called.setdefault(block.id, [])[-1:] != [at]:
                called[block.id].append(at)
            elif isinstance(block, ToolResult):
                answered.setdefault(block.call_id, []).append((at, block))

    messages: list[Message] = []
    due: list[ContentBlock] = []  # results that the next user message begins with
    for at, message in enumerate(request.messages):
        content: list[ContentBlock] = []
        here: set[str] = set()
        for block in message.content:
            if isinstance(block, ToolCall):
                if block.id in here:
                    continue
                here.add(block.id)
                nth = called[block.id].index(at)
                until = called[block.id][nth + 1] if nth + 1 < len(called[block.id]) else len(request.messages)
                result = next((r for p, r in answered.get(block.id, ()) if at < p < until), None)
                call_id = _wire_id(block.id, nth)
                content.append(block if call_id == block.id else replace(block, id=call_id))
                if result is None:
                    result = ToolResult(call_id, (Text(NO_RESULT),), is_error=True)
                due.append(result if result.call_id == call_id else replace(result, call_id=call_id))
            elif isinstance(block, ToolResult):
                if block.call_id not in called or at < called[block.call_id][0]:
                    content += _result_as_text(block, {})
            else:
                content.append(block)
        if message.role is Role.USER:
            content, due = due + content, []
        messages.append(Message(message.role, tuple(content)))
    if due:
        messages.append(Message(Role.USER, tuple(due)))
    return _with_messages(request, messages)


def _paired(messages: Iterable[Message]) -> bool:
    """Whether nothing is left to do: each message begins with the results of the calls before it, in their order."""
    due: list[str] = []
    seen: set[str] = set()
    for message in messages:
        calls: list[str] = []
        given = 0
        for at, block in enumerate(message.content):
            if isinstance(block, ToolResult):
                if at != given or given >= len(due) or block.call_id != due[given]:
                    return False
                given += 1
            elif isinstance(block, ToolCall):
                if block.id in seen or not _WIRE_ID.fullmatch(block.id):
                    return False
                seen.add(block.id)
                calls.append(block.id)
        if given != len(due):
            return False
        due = calls
    return not due


def declare_used_tools(request: TurnRequest) -> TurnRequest:
    """A tool that the history uses and the request does not offer is declared by a stub (section 2.5).

    Names are compared ignoring case, as Kiro does.
    """
    known = {tool.name.lower() for tool in request.tools}
    stubs = []
    for block in _blocks(request):
        if isinstance(block, ToolCall) and block.name.lower() not in known:
            known.add(block.name.lower())
            stubs.append(Tool(block.name, STUB, OBJECT_SCHEMA))
    return replace(request, tools=(*request.tools, *stubs)) if stubs else request


# 5. The contents


def repair_arguments(request: TurnRequest) -> TurnRequest:
    """Arguments of a call are an object; anything else is put into one (section 2.2)."""

    if all(block.arguments.startswith(b"{") for block in _blocks(request) if isinstance(block, ToolCall)):
        return request

    def repaired(block: ContentBlock) -> Iterable[ContentBlock]:
        if isinstance(block, ToolCall) and not block.arguments.lstrip().startswith(b"{"):
            arguments = block.arguments.strip()
            empty = arguments in (b"", b"null", b'""')
            return (replace(block, arguments=b"{}" if empty else b'{"value":' + arguments + b"}"),)
        return (block,)

    return _each_block(request, repaired)


def check_images(request: TurnRequest) -> TurnRequest:
    """Images are gif, jpeg, png or webp, say so truthfully, and are at most ten: the newest (section 2.7).

    The bytes decide on the type. What cannot be sent is replaced by a sentence that says why.
    """
    if not any(map(_pictured, request.messages)):
        return request
    room = MAX_IMAGES

    def checked(image: Image) -> Text | Image:
        nonlocal room
        fixed = _readable(image)
        if isinstance(fixed, Image):
            if not room:
                return Text(f"[An earlier image is left out: Kiro takes the {MAX_IMAGES} newest.]")
            room -= 1
        return fixed

    messages = []
    for message in reversed(request.messages):
        if not _pictured(message):
            messages.append(message)
            continue
        content: list[ContentBlock] = []
        for block in reversed(message.content):
            if isinstance(block, Image):
                content.append(checked(block))
            elif isinstance(block, ToolResult):
                inner = [checked(i) if isinstance(i, Image) else i for i in reversed(block.content)]
                content.append(replace(block, content=tuple(reversed(inner))))
            else:
                content.append(block)
        messages.append(replace(message, content=tuple(reversed(content))))
    return _with_messages(request, list(reversed(messages)))


def _pictured(message: Message) -> bool:
    for block in message.content:
        if isinstance(block, Image) or (
            isinstance(block, ToolResult) and any(isinstance(part, Image) for part in block.content)
        ):
            return True
    return False


def fill_empty_contents(request: TurnRequest) -> TurnRequest:
    """No message and no result is empty (section 2.4); a user's text may be, beside results."""

    return _each_message(request, _filled)


@_once
def _filled(message: Message) -> Message:
    users = message.role is Role.USER
    content = message.content
    says = hollow = False
    for block in content:
        if isinstance(block, Text):
            if block.empty:
                hollow = True
            else:
                says = True
        elif isinstance(block, ToolResult):
            hollow = hollow or not _is_full(block)
            says = says or users
    if hollow:
        full = (_filled_result(block) if isinstance(block, ToolResult) else block for block in content)
        content = tuple([block for block in full if not (isinstance(block, Text) and block.empty)])
    elif says:
        return message
    if not says and users:
        content += (_SEE_IMAGE if any(isinstance(block, Image) for block in content) else _CONTINUE,)
    elif not says:
        content = (_BLANK, *content)
    return Message(message.role, content)


_SEE_IMAGE: Final = Text.of(SEE_IMAGE)
_CONTINUE: Final = Text.of(CONTINUE)
_BLANK: Final = Text.of(" ")


def _is_full(result: ToolResult) -> bool:
    """Whether it says something, and no text of it is empty."""
    said = False
    for part in result.content:
        if isinstance(part, Text):
            if part.empty:
                return False
            said = True
    return said


def end_with_user(request: TurnRequest) -> TurnRequest:
    """A conversation that ends with the assistant (a prefill) goes on with ``Continue``."""
    if request.messages and request.messages[-1].role is Role.USER:
        return request
    return replace(request, messages=(*request.messages, Message(Role.USER, (_CONTINUE,))))


def limit_messages(request: TurnRequest) -> TurnRequest:
    """A conversation of more messages than Kiro takes (section 2.4) is refused here, in the words that clients know.

    Raises:
        ContextOverflow: there are too many of them; leaving some out is the client's to decide.
    """
    if len(request.messages) > MAX_MESSAGES:
        raise ContextOverflow(
            f"The conversation has {len(request.messages):,} messages, Kiro takes {MAX_MESSAGES:,}: "
            "shorten it, or compact it and try again.",
            reason="too_many_messages",
        )
    return request


# 6. The tools as Kiro takes them


def fit_descriptions(request: TurnRequest, most: int = MAX_DESCRIPTION) -> TurnRequest:
    """Descriptions are neither empty nor over `most` bytes; a long one moves into the system prompt (section 2.6)."""
    tools: list[Tool] = []
    moved: list[Text] = []
    for tool in request.tools:
        described, more = _described(tool, most)
        tools.append(described)
        moved += more
    if all(new is old for new, old in zip(tools, request.tools, strict=True)):
        return request
    return replace(request, tools=tuple(tools), system=(*request.system, *moved))


def _described(tool: Tool, most: int) -> tuple[Tool, tuple[Text, ...]]:
    """The tool with a description that fits, and what goes into the system prompt instead."""
    description = tool.description
    moved: tuple[Text, ...] = ()
    if not description.strip():
        description = f"Tool: {tool.name}"
    elif len(description) <= most // 4:  # no character has more than four bytes
        return tool, ()
    elif len(_utf8(description)) > most:
        title = f"## Tool: {tool.name}"
        moved = (Text(f"{title}\n\n{description}"),)
        description = f'The description is in the system prompt, under "{title}".'
    # A name can be of any length too, and both sentences hold it.
    description = _utf8(description)[:most].decode("utf-8", "ignore")
    return (tool if description == tool.description else Tool(tool.name, description, tool.schema)), moved


def repair_schemas(request: TurnRequest) -> TurnRequest:
    """Every schema is an object at its root, without nulls, ``$schema``, ``$id`` and local references (section 2.6)."""
    tools = [_schema_repaired(tool) for tool in request.tools]
    if all(new is old for new, old in zip(tools, request.tools, strict=True)):
        return request
    return replace(request, tools=tuple(tools))


def _schema_repaired(tool: Tool) -> Tool:
    schema = repair_schema(tool.schema)
    return tool if schema == tool.schema else Tool(tool.name, tool.description, schema)


CONVERSATION_RULES: Final[tuple[Rule, ...]] = (
    searches_as_calls,
    drop_thoughts,
    label_system_messages,
    move_misplaced_blocks,
    apply_tool_choice,
    drop_duplicate_tools,
    flatten_tool_traffic,
    merge_neighbours,
    start_with_user,
    pair_tools,
    declare_used_tools,
    repair_arguments,
    check_images,
    fill_empty_contents,
    end_with_user,
    limit_messages,
)
TOOL_RULES: Final[tuple[Rule, ...]] = (fit_descriptions, repair_schemas)
RULES: Final = CONVERSATION_RULES + TOOL_RULES


def apply_rules(request: TurnRequest) -> TurnRequest:
    """The request after every rule. Applied twice, it is the same as once."""
    alone = _each_message(request, lambda message: message if _link(message) else _repaired_alone(message))
    if _converses(alone):
        request = alone
    else:
        for rule in CONVERSATION_RULES:
            request = rule(request)
    tools = [fitted for tool in request.tools if (fitted := _fitted(tool)) is not None]
    if len(tools) < len(request.tools):
        for rule in TOOL_RULES:
            request = rule(request)
        return request
    same = all(new is old for new, old in zip(tools, request.tools, strict=True))
    return request if same else replace(request, tools=tuple(tools))


# Requests whose messages hang together as they are


@_once
def _repaired_alone(message: Message) -> Message:
    """What may be done to any message at any time: it has no thoughts, and nothing empty."""
    return _filled(_without_thoughts(message))


class _Link(msgspec.Struct, frozen=True, gc=False):
    """How a message that nothing is wrong with hangs together with the others.

    Attributes:
        given: ids of the results it begins with.
        called: ids of the calls it makes.
        names: what it calls, in lower case.
        images: how many it holds.
    """

    given: tuple[str, ...]
    called: tuple[str, ...]
    names: tuple[str, ...]
    images: int


def _converses(request: TurnRequest) -> bool:
    """Whether no rule of the conversation has anything to do. Where it says no, one may have or not."""
    known = {tool.name.lower() for tool in request.tools}
    if request.tool_choice != AUTO or len({tool.name for tool in request.tools}) < len(request.tools):
        return False
    if len(request.messages) > MAX_MESSAGES:
        return False
    speaker = Role.USER
    due: tuple[str, ...] = ()
    seen: set[str] = set()
    calls = images = 0
    for message in request.messages:
        link = _link(message)
        if link is None or message.role is not speaker or link.given != due or not known.issuperset(link.names):
            return False
        speaker = Role.ASSISTANT if speaker is Role.USER else Role.USER
        due = link.called
        seen.update(due)
        calls += len(due)
        images += link.images
    return speaker is Role.ASSISTANT and len(seen) == calls and images <= MAX_IMAGES


def _link(message: Message) -> _Link | None:
    """None where something may have to be done to the message, whatever stands around it."""
    kept = message.kept
    if _LINK not in kept:
        kept[_LINK] = _linked(message)
    link: _Link | None = kept[_LINK]
    return link


_LINK: Final = "rules.link"


def _linked(message: Message) -> _Link | None:
    if message.role is Role.SYSTEM:
        return None
    seen = outline(message.content, message.role is Role.USER)
    if seen is None:
        return None
    given, calls, images = seen
    for call in calls:
        if not _WIRE_ID.fullmatch(call.id) or not call.arguments.startswith(b"{"):
            return None
    for image in images:
        if _readable(image) is not image:
            return None
    if not calls:
        return _Link(given, (), (), len(images))
    return _Link(given, tuple([call.id for call in calls]), tuple([call.name.lower() for call in calls]), len(images))


def _fitted(tool: Tool) -> Tool | None:
    """The tool after the rules for tools, None where its description moves into the system prompt."""
    if _FITTED not in tool.kept:
        described, moved = _described(tool, MAX_DESCRIPTION)
        if moved:
            return None
        fitted = _schema_repaired(described)
        tool.kept[_FITTED] = None if fitted is tool else fitted
    return tool.kept[_FITTED] or tool


_FITTED: Final = "rules.fitted"


# Images


_MAGIC: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64_DIRT = re.compile(r"[\s=]+")


def image_format(data: bytes) -> str:
    """``gif``, ``jpeg``, ``png`` or ``webp`` by the first 12 bytes; empty for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")


def _readable(image: Image) -> Text | Image:
    """The image under its true type, in clean base64; a sentence where it cannot be sent."""
    data = image.data
    if image.media_type == f"image/{_sound(data)}":
        return image
    try:
        raw = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        data = _BASE64_DIRT.sub("", data).replace("-", "+").replace("_", "/")
        data += "=" * (-len(data) % 4)
        try:
            raw = base64.b64decode(data, validate=True)
        except ValueError:
            return Text("[An image is left out: its data is not base64.]")
    name = image_format(raw)
    if not name:
        kind = image.media_type or "an unknown type"
        return Text(f"[An image is left out: Kiro takes gif, jpeg, png and webp, this is {kind}.]")
    if len(raw) > MAX_IMAGE_BYTES:
        return Text(f"[An image is left out: {len(raw):,} bytes, Kiro takes {MAX_IMAGE_BYTES:,}.]")
    if data == image.data and image.media_type == f"image/{name}":
        return image
    return Image(f"image/{name}", data)


def _sound(data: str) -> str:
    """The format of an image that nothing is wrong with; empty where another look is needed."""
    size = len(data)
    if size % 4 or not 16 <= size <= MAX_IMAGE_BYTES or not data.isascii():
        return ""
    text = data.encode()
    padding = 2 if text.endswith(b"==") else text.endswith(b"=")
    if text[: size - padding].translate(None, _BASE64):
        return ""
    return image_format(binascii.a2b_base64(text[:16]))


# Shared


def _blocks(request: TurnRequest) -> Iterator[ContentBlock]:
    for message in request.messages:
        yield from message.content


def _with_messages(request: TurnRequest, messages: list[Message]) -> TurnRequest:
    same = len(messages) == len(request.messages) and all(map(_same, messages, request.messages))
    return request if same else replace(request, messages=tuple(messages))


def _same(one: Message, other: Message) -> bool:
    return one is other or one == other


def _each_message(request: TurnRequest, change: Callable[[Message], Message]) -> TurnRequest:
    return _with_messages(request, [change(message) for message in request.messages])


def _each_block(request: TurnRequest, change: Callable[[ContentBlock], Iterable[ContentBlock]]) -> TurnRequest:
    def changed(message: Message) -> Message:
        content = tuple(new for block in message.content for new in change(block))
        return replace(message, content=content)

    return _each_message(request, changed)


def _call_as_text(call: ToolCall) -> str:
    return f"[Called the tool {call.name} with {call.arguments.decode('utf-8', 'replace')}]"


def _result_as_text(result: ToolResult, names: Mapping[str, str]) -> list[ContentBlock]:
    """A result in words, and its images as they are."""
    of = names.get(result.call_id) or result.call_id
    title = f"[{'Error' if result.is_error else 'Result'} of the tool {of}]"
    texts = [block.text for block in result.content if isinstance(block, Text)]
    images = [block for block in result.content if isinstance(block, Image)]
    return [Text("\n".join([title, *texts])), *images]


def _filled_result(result: ToolResult) -> ToolResult:
    content = tuple(block for block in result.content if not (isinstance(block, Text) and block.empty))
    if not any(isinstance(block, Text) for block in content):
        content = (Text(SEE_IMAGE if content else NO_OUTPUT), *content)
    return result if content == result.content else replace(result, content=content)


_WIRE_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _wire_id(call_id: str, nth: int) -> str:
    """The id of the `nth` call of this id. The models' own API takes letters, digits, ``_`` and ``-``, 64 at most."""
    if nth == 0 and _WIRE_ID.fullmatch(call_id):
        return call_id
    return f"tooluse_{hashlib.sha256(_utf8(f'{nth}:{call_id}')).hexdigest()[:22]}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
