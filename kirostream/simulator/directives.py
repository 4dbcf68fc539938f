r"""The directive language: what a user's message tells the simulated model to do. Pure.

``[[name]]`` or ``[[name:argument]]`` anywhere in a user's message is a directive, if the name is one of the table and
the argument reads as one; everything else is ordinary text. The last user message that holds a directive is the
*source*, and is read as a script of turns; the history behind the source tells which turn is due.

=============================  ========================================================================================
``say:TEXT``                   TEXT; several follow one another without a separator
``tokens:N``                   ``w1 w2 ... wN``
``think:TEXT``                 TEXT as thinking, before the answer of that turn
``tool:NAME {json}``           a call with these arguments (``{}`` when left out); several in a turn are parallel
``next``                       ends a turn
``then:TEXT``                  ``next`` and ``say:TEXT``
``chunk:N``, ``u16``, ``byte`` pieces of N characters; of one UTF-16 unit; of one character, in sends of 3 bytes
``slow:MS``, ``wait:MS``       pause between pieces; before the first byte
``error:NAME``                 this error in place of an answer
``fail:NAME N KEY``            the same for the first N requests with KEY
``cut:N``, ``cut:N COUNT KEY`` the connection breaks after N pieces; only for the first COUNT requests with KEY
``fault:KIND``                 see below
``picky``                      see below
=============================  ========================================================================================

TEXT ends at the first ``]]`` that no backslash stands in or before; it knows the escapes ``\n \t \] \[ \\`` and the
placeholders ``{{result}} {{find:NEEDLE}} {{images}} {{tools}} {{model}} {{attempt}}``.

What the language leaves open is decided here:

- How a turn is delivered (``chunk slow wait error fail cut fault stamps picky``) counts for the whole script; of
  several ``chunk``, ``slow`` or ``wait`` the last counts, of several others the first.
- A turn counts as one with calls if it has calls that the request offers: the others are never made, so no result of
  theirs can come. A turn that has nothing else says ``(no tool NAME)`` for each.
- ``cut`` with more pieces than there are breaks off behind the last one, before the end.
- A script that says nothing at all says ``OK``: a request for a delay is no request for silence.

Three extensions. ``[[stamps:N]]`` says N tokens in place of everything else, and each says when it was sent: token n is
``wN@NS `` with a space at its end, NS the simulator's monotonic clock in nanoseconds, read as the token goes out. All
processes of one machine share that clock, so a client there knows how long each token was under way.

``[[picky]]`` refuses the request, with a bare ``Improperly formed request.``, where it holds anything that is only said
to be refused (`dialects.kiro.checks.doubted`): a stricter form of the same question is answered.

``[[fault:KIND]]`` and ``[[fault:KIND N]]`` break the stream after N pieces, half of them by default.

=====================  ================================================================================================
``reset``              the connection breaks in the middle of a frame
``stall``              nothing comes any more, and the connection stays open
``crc``                one frame has a wrong checksum; the rest follows as if nothing were wrong
``unstopped``          the stream ends in good order where the last call still misses its end (no N)
``exception NAME``     an exception frame ends the stream; NAME as for ``error``
=====================  ================================================================================================
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.simulator.refusals import INJECTED
from kirostream.turn.request import Image, Message, Role, Text, ToolCall, ToolResult, TurnRequest

Chunk: TypeAlias = int | Literal["u16", "byte"]
FAULTS: Final = ("reset", "stall", "crc", "unstopped")
NO_SCRIPT: Final = "OK"
AFTER_THE_LAST: Final = "(end of script)"


# What a script comes to


@dataclass(frozen=True, slots=True)
class Say:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    """Text of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` is JSON, as the user wrote it."""

    name: str
    arguments: str = "{}"


Step: TypeAlias = Say | Think | Call


@dataclass(frozen=True, slots=True)
class Break:
    """How the stream breaks: ``cut``, one of `FAULTS`, or ``exception`` with the name of an error.

    `after` counts pieces, None for half of them.
    """

    kind: str
    after: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Play:
    """What is due: `steps` in order, thinking first; or the error named `error` in place of them.

    `slow` and `wait` are seconds; `chunk` and `slow` are None where the script leaves them to the settings. Where
    `stamps` is not 0, so many tokens that say when they were sent take the place of the steps. `picky` refuses what is
    only said to be refused.
    """

    steps: tuple[Step, ...] = ()
    chunk: Chunk | None = None
    slow: float | None = None
    wait: float = 0.0
    error: str = ""
    breaks: Break | None = None
    stamps: int = 0
    picky: bool = False


# Reading


class Directive(NamedTuple):
    """One directive and where it stands. `value` is what its reader made of the argument."""

    name: str
    value: tuple[str, ...]
    start: int
    end: int


_OPEN = re.compile(r"\[\[([a-z]+)(:|\]\])")
# Possessive throughout: TEXT may be megabytes long, and is read in one pass without a stack.
_TEXT = re.compile(r"((?:[^\\\]]++|\\.|\](?!\]))*+)\]\]", re.DOTALL)
_CLOSE = re.compile(r"\s*\]\]")
_NAME = re.compile(r"\s*([^\s\]{]+)\s*")
_ESCAPE = re.compile(r"\\([nt\]\[\\])")
_ESCAPED: Final = {"n": "\n", "t": "\t"}
_ERROR: Final = "|".join(INJECTED)
_PLAIN: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern + r"\]\]")
    for name, pattern in (
        ("tokens", r"\s*(\d+)\s*"),
        ("stamps", r"\s*(\d+)\s*"),
        ("chunk", r"\s*(\d+|u16|byte)\s*"),
        ("slow", r"\s*(\d+)\s*"),
        ("wait", r"\s*(\d+)\s*"),
        ("error", rf"\s*({_ERROR})\s*"),
        ("fail", rf"\s*({_ERROR})\s+(\d+)\s+([^\s\]]+)\s*"),
        ("cut", r"\s*(\d+)(?:\s+(\d+)\s+([^\s\]]+))?\s*"),
        ("fault", rf"\s*({'|'.join(FAULTS)}|exception\s+(?:{_ERROR}))(?:\s+(\d+))?\s*"),
    )
}


def _no_constant(word: str) -> None:
    raise ValueError(word)


_json = json.JSONDecoder(parse_constant=_no_constant)


def directives(text: str) -> Iterator[Directive]:
    """Every directive of `text`, in order."""
    at = 0
    while found := _OPEN.search(text, at):
        at = found.end()
        if read := _read(text, found):
            yield read
            at = read.end


def without_directives(text: str) -> str:
    """`text` with its directives cut out."""
    kept, at = [], 0
    for found in directives(text):
        kept.append(text[at : found.start])
        at = found.end
    return "".join([*kept, text[at:]])


def _read(text: str, found: re.Match[str]) -> Directive | None:
    name, start, at = found[1], found.start(), found.end()
    if found[2] == "]]":
        return Directive(name, (), start, at) if name in ("next", "picky") else None
    if name in ("say", "think", "then"):
        body = _TEXT.match(text, at)
        return Directive(name, (body[1],), start, body.end()) if body else None
    if name == "tool":
        return _read_call(text, start, at)
    plain = _PLAIN[name].match(text, at) if name in _PLAIN else None
    # A number of more than eight digits is a slip of the keyboard, and shall not fill the memory.
    if plain is None or any(len(group) > 8 for group in plain.groups("") if group.isdecimal()):
        return None
    value = tuple(group or "" for group in plain.groups())
    if name == "chunk" and value[0].isdecimal() and int(value[0]) == 0:
        return None
    return Directive(name, value, start, plain.end())


def _read_call(text: str, start: int, at: int) -> Directive | None:
    name = _NAME.match(text, at)
    if name is None:
        return None
    arguments, at = "{}", name.end()
    if not text.startswith("]]", at):
        try:
            value, end = _json.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
        arguments, at = text[at:end], end
    close = _CLOSE.match(text, at)
    return Directive("tool", (name[1], arguments), start, close.end()) if close else None


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text)


# Playing


def play(request: TurnRequest, count: Callable[[str], int]) -> Play | None:
    """What the conversation makes the model do now; None where no user message holds a directive.

    Args:
        request: the conversation as it was received.
        count: called once for each KEY of the script; says how many requests had it, this one included.
    """
    for at in range(len(request.messages) - 1, -1, -1):
        message = request.messages[at]
        if message.role is Role.USER and (script := list(directives(_own_text(message)))):
            return _play(script, request, request.messages[at + 1 :], count)
    return None


def _play(
    script: Sequence[Directive], request: TurnRequest, after: Sequence[Message], count: Callable[[str], int]
) -> Play:
    keys = dict.fromkeys(d.value[2] for d in script if d.name in ("fail", "cut") and d.value[2])
    counts = {key: count(key) for key in keys}
    last = {d.name: d.value[0] for d in script if d.name in ("chunk", "slow", "wait")}
    chunk = last.get("chunk")
    return Play(
        steps=_steps(script, request, after, next(iter(counts.values()), 1)),
        chunk=int(chunk) if chunk and chunk.isdecimal() else "u16" if chunk == "u16" else "byte" if chunk else None,
        slow=int(last["slow"]) / 1000 if "slow" in last else None,
        wait=int(last.get("wait", 0)) / 1000,
        error=next(_errors(script, counts), ""),
        breaks=next(_breaks(script, counts), None),
        stamps=next((int(d.value[0]) for d in script if d.name == "stamps"), 0),
        picky=any(d.name == "picky" for d in script),
    )


def _errors(script: Sequence[Directive], counts: Mapping[str, int]) -> Iterator[str]:
    for directive in script:
        if directive.name == "error":
            yield directive.value[0]
        elif directive.name == "fail":
            name, times, key = directive.value
            if counts[key] <= int(times):
                yield name


def _breaks(script: Sequence[Directive], counts: Mapping[str, int]) -> Iterator[Break]:
    for directive in script:
        if directive.name == "cut":
            after, times, key = directive.value
            if not key or counts[key] <= int(times):
                yield Break("cut", int(after))
        elif directive.name == "fault":
            kind, *error = directive.value[0].split()
            yield Break(kind, int(directive.value[1]) if directive.value[1] else None, "".join(error))


def _steps(
    script: Sequence[Directive], request: TurnRequest, after: Sequence[Message], attempt: int
) -> tuple[Step, ...]:
    turns = _turns(script)
    offered = {tool.name for tool in request.tools}
    due = _due(turns, after, offered)
    if due is None:
        return (Say(AFTER_THE_LAST),)
    if turns == [[]]:
        return (Say(NO_SCRIPT),)
    steps: list[Step] = []
    missing: list[Step] = []
    for step in due:
        if not isinstance(step, Call):
            text = _fill(step.text, request, attempt)
            steps.append(Say(text) if isinstance(step, Say) else Think(text))
        elif step.name in offered:
            steps.append(step)
        else:
            missing.append(Say(f"(no tool {step.name})"))
    if not any(isinstance(step, (Say, Call)) for step in steps):
        steps += missing
    return _in_order(steps)


def _turns(script: Sequence[Directive]) -> list[list[Step]]:
    turns: list[list[Step]] = [[]]
    for name, value, _, _ in script:
        if name in ("next", "then"):
            turns.append([])
        if name in ("say", "then"):
            turns[-1].append(Say(_unescape(value[0])))
        elif name == "tokens":
            turns[-1].append(Say(" ".join(f"w{n}" for n in range(1, int(value[0]) + 1))))
        elif name == "think":
            turns[-1].append(Think(_unescape(value[0])))
        elif name == "tool":
            turns[-1].append(Call(*value))
    return turns


def _due(turns: Sequence[list[Step]], after: Sequence[Message], offered: set[str]) -> list[Step] | None:
    """The first turn that the history behind the source has not done; None after the last."""
    results = sum(isinstance(block, ToolResult) for message in after for block in message.content)
    answers = 0
    before = Role.USER
    calls = False
    for message in [*after, Message(Role.USER, ())]:  # one more, so that the last run of the assistant ends
        if message.role is Role.ASSISTANT:
            calls = any(isinstance(block, ToolCall) for block in message.content) or (
                before is Role.ASSISTANT and calls
            )
        elif before is Role.ASSISTANT and not calls:
            answers += 1
        before = message.role
    for turn in turns:
        wanted = sum(isinstance(step, Call) and step.name in offered for step in turn)
        if wanted:
            if results < wanted:
                return turn
            results -= wanted
        else:
            if not answers:
                return turn
            answers -= 1
    return None


def _in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Thinking first and in one piece; text that nothing stands between in one piece."""
    thinking = "".join(step.text for step in steps if isinstance(step, Think))
    ordered: list[Step] = [Think(thinking)] if thinking else []
    for step in steps:
        if isinstance(step, Say) and ordered and isinstance(ordered[-1], Say):
            ordered[-1] = Say(ordered[-1].text + step.text)
        elif not isinstance(step, Think):
            ordered.append(step)
    return tuple(ordered)


# Placeholders


_PLACEHOLDER = re.compile(r"\{\{(?:(result|images|tools|model|attempt)|find:(.*?))\}\}", re.DOTALL)


def _fill(text: str, request: TurnRequest, attempt: int) -> str:
    def value(found: re.Match[str]) -> str:
        match found[1]:
            case "result":
                return _last_results(request)
            case "images":
                return _images(request)
            case "tools":
                return f"{len(request.tools)}:{','.join(tool.name for tool in request.tools)}"
            case "model":
                return request.model
            case "attempt":
                return str(attempt)
            case _:
                return "FOUND" if any(found[2] in without_directives(text) for text in _texts(request)) else "MISSING"

    return _PLACEHOLDER.sub(value, text)


def _own_text(message: Message) -> str:
    """What the user wrote: without the results of tools."""
    return "\n".join(block.text for block in message.content if isinstance(block, Text))


def _result_text(result: ToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, Text))


def _last_results(request: TurnRequest) -> str:
    for message in reversed(request.messages):
        results = [block for block in message.content if isinstance(block, ToolResult)]
        if results:
            return "\n".join(map(_result_text, results))
    return ""


def _texts(request: TurnRequest) -> Iterator[str]:
    for part in request.system:
        yield part.text
    for message in request.messages:
        yield _own_text(message)
        yield from (_result_text(block) for block in message.content if isinstance(block, ToolResult))


def _images(request: TurnRequest) -> str:
    images: list[Image] = []
    for message in request.messages:
        for block in message.content:
            parts = block.content if isinstance(block, ToolResult) else (block,)
            images += [part for part in parts if isinstance(part, Image)]
    hashes = (hashlib.sha256(base64.b64decode(image.data)).hexdigest()[:8] for image in images)
    kinds = (image.media_type.removeprefix("image/") for image in images)
    return ",".join([str(len(images)), *map(":".join, zip(kinds, hashes, strict=True))])
