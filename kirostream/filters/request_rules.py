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

import functools
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from kirostream.errors import ContextOverflow
from kirostream.filters.images import readable
from kirostream.filters.outline import WIRE_ID, Outline, outline
from kirostream.filters.tool_schemas import OBJECT_SCHEMA, repair_schema
from kirostream.filters.websearch import as_calls
from kirostream.turn.request import (
    ASSISTANT,
    AUTO,
    SYSTEM,
    USER,
    ContentBlock,
    Image,
    Message,
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

    return _each_message(request, _once_thoughtless)


def _thoughtless(message: Message) -> Message:
    if Thought not in map(type, message.content):
        return message
    return Message(message.role, tuple([block for block in message.content if not isinstance(block, Thought)]))


_once_thoughtless: Final = _once(_thoughtless)


def label_system_messages(request: TurnRequest) -> TurnRequest:
    """A system message between the turns becomes user text under a label; merging joins it to the turn beside it."""

    def labelled(message: Message) -> Message:
        if message.role is not SYSTEM:
            return message
        content = (
            Text(f"<system-reminder>\n{block.text}\n</system-reminder>") if isinstance(block, Text) else block
            for block in message.content
            if block != Text("")
        )
        return Message(USER, tuple(content))

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
        if message.role is USER:
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
            messages.append(Message(USER, moves))
    return _with_messages(request, messages)


def _misplaced(message: Message) -> bool:
    wrong = _NOT_THE_USERS if message.role is USER else _NOT_THE_ASSISTANTS
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
    if request.messages and request.messages[0].role is USER:
        return request
    opening = (Message(USER, (Text(OPENING),)),) if request.messages else ()
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
        if message.role is USER:
            content, due = due + content, []
        messages.append(Message(message.role, tuple(content)))
    if due:
        messages.append(Message(USER, tuple(due)))
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
                if block.id in seen or not WIRE_ID.fullmatch(block.id):
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
        fixed = readable(image)
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

    return _each_message(request, _once_full)


def _full(message: Message) -> Message:
    users = message.role is USER
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


_once_full: Final = _once(_full)
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
    if request.messages and request.messages[-1].role is USER:
        return request
    return replace(request, messages=(*request.messages, Message(USER, (_CONTINUE,))))


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
    literal = tool.literal  # never shorter than what it says
    if literal is not None and len(literal) <= most and literal[1:2].isalnum():
        return tool, ()
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
    return tool if schema == tool.schema else tool.with_schema(schema)


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
    settled = _settled(request)
    if settled is None:
        for rule in CONVERSATION_RULES:
            request = rule(request)
    else:
        request = settled
    tools = [fitted for tool in request.tools if (fitted := _fitted(tool)) is not None]
    if len(tools) < len(request.tools):
        for rule in TOOL_RULES:
            request = rule(request)
        return request
    same = all(new is old for new, old in zip(tools, request.tools, strict=True))
    return request if same else replace(request, tools=tuple(tools))


# Requests whose messages hang together as they are


_Look: TypeAlias = tuple[Message | None, Outline | None]
"""What becomes of a message whatever stands around it, None where it stays as it is; and what stands in that then, None
where more may have to be done to it."""
_LOOK: Final = "rules.look"


def _look(message: Message) -> _Look:
    """What may be done to any message at any time is done: it has no thoughts, and nothing empty."""
    look: _Look = None, _outline(message)
    if look[1] is None and (made := _full(_thoughtless(message))) is not message:
        look = made, _outline(made)
        made.kept[_LOOK] = None, look[1]
    message.kept[_LOOK] = look
    return look


def _outline(message: Message) -> Outline | None:
    if message.role is SYSTEM:
        return None
    seen = outline(message.content, message.role is USER)
    if seen is not None and seen[3] and any(readable(image) is not image for image in seen[3]):
        return None
    return seen


def _settled(request: TurnRequest) -> TurnRequest | None:
    """The request after the rules of the conversation, where a look at each message shows what they do; else None."""
    names = {tool.name for tool in request.tools}
    if request.tool_choice != AUTO or len(names) < len(request.tools) or len(request.messages) > MAX_MESSAGES:
        return None
    known = {name.lower() for name in names}
    speaker = USER
    due: tuple[str, ...] = ()
    seen: set[str] = set()
    messages: list[Message] = []
    calls = images = 0
    for message in request.messages:
        changed, link = message.kept.get(_LOOK) or _look(message)
        if link is None or message.role is not speaker or link[0] != due or not known.issuperset(link[2]):
            return None
        speaker = ASSISTANT if speaker is USER else USER
        due = link[1]
        seen.update(due)
        calls += len(due)
        images += len(link[3])
        messages.append(changed or message)
    if speaker is USER or len(seen) < calls or images > MAX_IMAGES:
        return None
    same = all(map(operator.is_, messages, request.messages))
    return request if same else replace(request, messages=tuple(messages))


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


def _wire_id(call_id: str, nth: int) -> str:
    """The id of the `nth` call of this id. The models' own API takes letters, digits, ``_`` and ``-``, 64 at most."""
    if nth == 0 and WIRE_ID.fullmatch(call_id):
        return call_id
    return f"tooluse_{hashlib.sha256(_utf8(f'{nth}:{call_id}')).hexdigest()[:22]}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
