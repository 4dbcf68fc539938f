"""Tool calls that a model wrote as text become calls (kiro-protocol.md section 3.4).

Some models print a call now and then where they should make one::

    [Called Read with args: {"path": "a.txt"}]
    <invoke name="Read"><parameter name="path">a.txt</parameter></invoke>

The second form may stand in ``<function_calls>``, and all its tags may have one of `PREFIXES`. Opt-in, as a model that
writes *about* such calls is understood to make them. Three things keep that in bounds: only tools that the request
declares are called (by the client's name for them, or by the one the model knows, in any case), the whole call has to
be well-formed, and a call that the model also made for real is made once.

**Cuts.** Text that may be the beginning of a call is held until the call is whole or can be none. What is held at the
end of its block is no call, and is said. So blocks and texts do not depend on where the answer was cut.

**Effort.** A call that grows is read again from its start with each piece while it is small. Past `SMALL` characters
that happens only when it has grown by an eighth, and at the end of its block; so the work stays linear.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.filters.renumber import Renumber
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    unescape,
)
from kirostream.turn.request import Tool, TurnRequest

SMALL: Final = 4096
PREFIXES: Final = ("", "antml:")
WRAPPERS: Final = tuple(f"<{prefix}function_calls>" for prefix in PREFIXES)
WRAPPER_ENDS: Final = tuple(f"</{prefix}function_calls>" for prefix in PREFIXES)
INVOKES: Final = tuple(f'<{prefix}invoke name="' for prefix in PREFIXES)
BRACKET: Final = "[Called "
Names: TypeAlias = Callable[[], Mapping[str, str]]
NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
JSON_TAIL: Final = 8
"""An error of the JSON reader this near to the end of what there is may be nothing but the missing rest."""


def text_calls_of(request: TurnRequest, names: Names = dict) -> TextCalls | None:
    """The filter for one answer to `request`; None where it has no tools to call.

    Args:
        request: as the client asked it.
        names: tells what the model knows the tools as, by their own names; asked only where there are tools.
    """
    if not request.tools or request.tool_choice.mode == "none":
        return None
    return TextCalls(request.tools, seed=str(len(request.messages)), names=names())


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a place of a text. `end` is the place behind it; `name` is empty for a tag without meaning."""

    end: int
    name: str = ""
    arguments: str = ""
    wrapped: bool = False


class _More(Exception):
    """What there is may be the beginning of a call."""


class _No(Exception):
    """It is no call, whatever follows."""


@dataclass(slots=True)
class _TextBlock:
    """A text block as it comes in."""

    held: str = ""
    tried: int = 0
    """Characters of `held` when it was read last."""
    stripping: bool = False
    """A call was just found: white space behind it is not said."""
    wrapped: bool = False
    """A wrapper was opened, so its end tag is not said either."""
    found: bool = False


@dataclass(slots=True)
class _Call:
    """A call that the model makes for real."""

    name: str
    pieces: list[bytes] = field(default_factory=list)
    held: list[TurnEvent] | None = None
    """Its events, while it may turn out to be one that was found in the text."""


class TextCalls:
    """The filter of one answer. Its output obeys `turn.grammar` where its input does.

    Args:
        tools: what may be called.
        seed: makes the ids of the calls; not the same for two turns of a conversation.
        names: what the model knows a tool as, by its own name, where the two differ. Calls go out under its own.
    """

    def __init__(self, tools: Sequence[Tool], *, seed: str, names: Mapping[str, str] = NO_NAMES) -> None:
        known = {names.get(tool.name, tool.name).lower(): tool for tool in reversed(tools)}
        self._tools = known | {tool.name.lower(): tool for tool in reversed(tools)}
        self._longest = max(map(len, self._tools), default=0)
        self._seed = seed
        self._blocks = Renumber()
        self._texts: dict[int, _TextBlock] = {}
        self._calls: dict[int, _Call] = {}
        self._found: set[tuple[str, str]] = set()
        """Calls that were found in text: name, and arguments in canonical form."""
        self._real: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<TextCalls {len(self._found)} found>"

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events to be said in place of `events`."""
        said: list[TurnEvent] = []
        for event in events:
            match event:
                case BlockDelta(index=index):
                    if (block := self._texts.get(index)) is not None:
                        said += self._text(block, event)
                    elif (call := self._calls.get(index)) is not None:
                        call.pieces += event.pieces
                        said += self._pass(call, event)
                    else:
                        said.append(self._blocks.delta(event))
                case BlockStarted():
                    said += self._started(event)
                case BlockEnded():
                    said += self._ended(event)
                case TurnEnded(stop=Stop.END) if self._found:
                    said.append(replace(event, stop=Stop.TOOL_CALL))
                case TurnFailed():
                    said += self._failed()
                    said.append(event)
                case _:
                    said.append(event)
        return said

    # Blocks

    def _started(self, event: BlockStarted) -> list[TurnEvent]:
        if event.kind is BlockKind.TEXT:
            self._texts[event.index] = _TextBlock()
            return []
        if event.kind is BlockKind.TOOL_CALL:
            call = self._calls[event.index] = _Call(event.name)
            if any(name == event.name for name, _ in self._found):
                call.held = []
            return self._pass(call, event)
        return [self._blocks.start(event)]

    def _pass(self, call: _Call, event: BlockStarted | BlockDelta) -> list[TurnEvent]:
        if call.held is not None:
            call.held.append(event)
            return []
        return [self._blocks.start(event) if isinstance(event, BlockStarted) else self._blocks.delta(event)]

    def _ended(self, event: BlockEnded) -> list[TurnEvent]:
        if (block := self._texts.pop(event.index, None)) is not None:
            said = self._read(block, event.index, last=True)
            if not block.found:
                said += self._open(event.index)
            return [*said, self._blocks.end(event)] if event.index in self._blocks else said
        if (call := self._calls.pop(event.index, None)) is not None:
            made = (call.name, _canonical(unescape(call.pieces)))
            if call.held is not None and made in self._found:
                return []
            self._real.add(made)
            return [*self._release(call), self._blocks.end(event)]
        return [self._blocks.end(event)]

    def _release(self, call: _Call) -> list[TurnEvent]:
        held, call.held = call.held or [], None
        return [
            out for event in held if isinstance(event, BlockStarted | BlockDelta) for out in self._pass(call, event)
        ]

    def _failed(self) -> list[TurnEvent]:
        said = [out for index, block in self._texts.items() for out in self._read(block, index, last=True)]
        return said + [out for call in self._calls.values() for out in self._release(call)]

    # Text

    def _text(self, block: _TextBlock, event: BlockDelta) -> list[TurnEvent]:
        plain = not (block.held or block.stripping or block.wrapped)
        if plain and not any(b"[" in piece or b"<" in piece or b"\\u" in piece for piece in event.pieces):
            return [*self._open(event.index), self._blocks.delta(event)]
        block.held += event.text
        if len(block.held) > SMALL and len(block.held) < block.tried * 9 // 8:
            return []
        return self._read(block, event.index)

    def _read(self, block: _TextBlock, index: int, *, last: bool = False) -> list[TurnEvent]:
        """Say what is held as far as it is decided. At the `last` all of it is."""
        said: list[TurnEvent] = []
        text, block.held, block.tried = block.held, "", 0
        at = 0  # of the text, what is not said yet
        look = 0  # of the text, what is not looked at yet
        while True:
            if block.stripping:
                at = look = len(text) - len(text[at:].lstrip())
                block.stripping = at == len(text)
            start = min((place for mark in "[<" if (place := text.find(mark, look)) >= 0), default=-1)
            if start < 0:
                break
            try:
                found = self._at(text, start, wrapped=block.wrapped)
            except _More:
                if not last:
                    block.held = text[start:]
                    block.tried = len(block.held)
                    text = text[:start]
                    break
                look = start + 1
            except _No:
                look = start + 1
            else:
                said += self._say(index, text[at:start])
                said += self._make(found, index)
                block.found = block.stripping = True
                block.wrapped = found.wrapped
                at = look = found.end
        return said + self._say(index, text[at:])

    def _say(self, index: int, text: str) -> list[TurnEvent]:
        return [*self._open(index), self._blocks.delta(BlockDelta.of(index, text))] if text else []

    def _open(self, index: int) -> list[TurnEvent]:
        """A text block begins, or begins again behind a call; nothing where it is open."""
        return [] if index in self._blocks else [self._blocks.start(BlockStarted(index, BlockKind.TEXT))]

    def _make(self, found: Found, index: int) -> list[TurnEvent]:
        """A call that was found; nothing for a tag, and for a call that was made already."""
        made = (found.name, _canonical(found.arguments))
        if not found.name or made in self._found or made in self._real:
            return []
        self._found.add(made)
        stem = f"{self._seed}:{len(self._found)}:{found.name}:{found.arguments}"
        call_id = f"tooluse_{hashlib.sha256(stem.encode('utf-8', 'replace')).hexdigest()[:22]}"
        closing: list[TurnEvent] = [self._blocks.end(BlockEnded(index))] if index in self._blocks else []
        own = self._blocks.fresh()
        start = BlockStarted(own, BlockKind.TOOL_CALL, call_id, found.name)
        return [*closing, start, BlockDelta.of(own, found.arguments), BlockEnded(own)]

    # Calls

    def _at(self, text: str, start: int, *, wrapped: bool) -> Found:
        """The call, or the end tag of a wrapper, that stands at `start`.

        Raises:
            _More, _No: there is none, or none yet.
        """
        here = _Place(text, start)
        if text[start] == "[":
            return self._bracket(here, wrapped)
        opened = here.one_of((*WRAPPERS, *INVOKES, *(WRAPPER_ENDS if wrapped else ())))
        if opened in WRAPPER_ENDS:
            return Found(here.at)
        if opened in WRAPPERS:
            wrapped = True
            here.space()
            opened = here.one_of(INVOKES)
        return self._invoke(here, PREFIXES[INVOKES.index(opened)], wrapped)

    def _tool(self, name: str) -> Tool:
        tool = self._tools.get(name.strip().lower())
        if tool is None:
            raise _No
        return tool

    def _bracket(self, here: _Place, wrapped: bool) -> Found:
        here.one_of((BRACKET,))
        tool = self._tool(here.until(" with args:", self._longest))
        here.space()
        value = here.json()
        here.space()
        here.one_of(("]",))
        return Found(here.at, tool.name, _dump(value), wrapped)

    def _invoke(self, here: _Place, prefix: str, wrapped: bool) -> Found:
        tool = self._tool(here.until('"', self._longest))
        here.space()
        here.one_of((">",))
        types = _types(tool)
        arguments: dict[str, Any] = {}
        parameter, end = f'<{prefix}parameter name="', f"</{prefix}invoke>"
        while True:
            here.space()
            if here.one_of((parameter, end)) == end:
                return Found(here.at, tool.name, _dump(arguments), wrapped)
            name = here.until('"', 256)
            here.until(">", 256)
            arguments[name] = _value(here.until(f"</{prefix}parameter>"), types.get(name))


class _Place:
    """A place in a text, which moves on over what is there.

    Every method raises `_No` where something else is there, and `_More` where the text ends too early to tell.
    """

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def __repr__(self) -> str:
        return f"<_Place {self._text[self.at :][:20]!r}>"

    def one_of(self, words: Sequence[str]) -> str:
        """The word that is here."""
        for word in words:
            if self._text.startswith(word, self.at):
                self.at += len(word)
                return word
        rest = self._text[self.at : self.at + 64]
        raise _More if any(word.startswith(rest) for word in words) else _No

    def until(self, word: str, at_most: int | None = None) -> str:
        """What is here before `word`, which is passed over too; of `at_most` characters."""
        end = None if at_most is None else self.at + at_most + len(word)
        found = self._text.find(word, self.at, end)
        if found < 0:
            raise _No if end is not None and len(self._text) >= end else _More
        before = self._text[self.at : found]
        self.at = found + len(word)
        return before

    def space(self) -> None:
        """Pass over white space."""
        while self._text[self.at : self.at + 1].isspace():
            self.at += 1

    def json(self) -> dict[str, Any]:
        """The JSON object that is here. Line breaks in its strings are let pass."""
        if self.at == len(self._text):
            raise _More
        try:
            value, self.at = _decoder.raw_decode(self._text, self.at)
        except json.JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated") or error.pos > len(self._text) - JSON_TAIL
            raise (_More if unfinished else _No) from error
        except (ValueError, RecursionError) as error:
            raise _No from error
        if not isinstance(value, dict):
            raise _No
        return value


def _no_constant(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity, which JSON does not have


_decoder: Final = json.JSONDecoder(strict=False, parse_constant=_no_constant)


def _types(tool: Tool) -> Mapping[str, str]:
    """The JSON types of a tool's parameters, where its schema says one."""
    try:
        schema = json.loads(tool.schema)
    except (ValueError, RecursionError):
        return {}
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    types = {name: each.get("type") for name, each in properties.items() if isinstance(each, dict)}
    return {name: kind for name, kind in types.items() if isinstance(kind, str)}


def _value(text: str, kind: str | None) -> Any:
    """A parameter as its schema has it; as text where it has none, or is not what it says."""
    if kind in (None, "string"):
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _canonical(arguments: str) -> str:
    """Arguments in the one form that all their spellings have; as they are where they are no JSON."""
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
