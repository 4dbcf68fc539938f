"""Canonical JSON of events: one line an event, the same bytes for the same event, both ways without loss.

Fixtures are kept in it and mirrors of a turn travel in it. A delta's pieces go in as the raw strings they are, and come
out again byte for byte, so a rendering made from a copy is the rendering made from the original. An error travels by
the name of its class and its attributes; its cause stays behind.

::

    {"type": "block_started", "index": 0, "kind": "text"}
    {"type": "block_delta", "index": 0, "pieces": ["Hel", "lo"]}

Members that have their default are left out.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from kirostream import errors
from kirostream.errors import KirostreamError, RemoteProtocolError
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Foreign,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    UsageKnown,
)
from kirostream.turn.request import SearchHit, SearchOutcome
from kirostream.turn.usage import Usage

Json: TypeAlias = dict[str, Any]

_NAMES: Final[Mapping[type[TurnEvent], str]] = {
    TurnStarted: "turn_started",
    BlockStarted: "block_started",
    BlockDelta: "block_delta",
    BlockEnded: "block_ended",
    UsageKnown: "usage_known",
    Foreign: "foreign",
    TurnEnded: "turn_ended",
    TurnFailed: "turn_failed",
}
_TYPES: Final = {name: kind for kind, name in _NAMES.items()}
_DELTA: Final = b'{"type":"block_delta","index":'


def dump(event: TurnEvent) -> bytes:
    """One line of JSON, without the line's end."""
    if isinstance(event, BlockDelta):
        return _DELTA + b'%d,"pieces":["%b"]}' % (event.index, b'","'.join(event.pieces))
    said: Json = {"type": _NAMES[type(event)]}
    match event:
        case TurnFailed(error=error):
            said["error"] = {"class": type(error).__name__, **vars(error)}
        case _:
            said.update(_members(event))
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def load(line: bytes) -> TurnEvent:
    """The event that `dump` wrote.

    Raises:
        RemoteProtocolError: the line is none of its.
    """
    try:
        said = json.loads(line)
        kind = _TYPES[said.pop("type")]
        if kind is BlockDelta:
            # Inside a piece no quote is bare, so this byte sequence stands between pieces and nowhere else.
            raw = line.rstrip().removeprefix(_DELTA + b'%d,"pieces":["' % said["index"]).removesuffix(b'"]}')
            pieces = tuple(raw.split(b'","'))
            if len(pieces) != len(said["pieces"]):
                raise ValueError("not the canonical form")
            return BlockDelta(said["index"], pieces)
        return _event(kind, said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RemoteProtocolError(f"Not an event of a turn: {line[:80]!r}") from error


def dump_all(events: Iterable[TurnEvent]) -> bytes:
    """A line an event."""
    return b"".join(dump(event) + b"\n" for event in events)


def load_all(lines: bytes) -> list[TurnEvent]:
    """The events of `dump_all`; blank lines are skipped.

    Raises:
        RemoteProtocolError: a line is none of its.
    """
    return [load(line) for line in lines.split(b"\n") if line.strip()]


def _members(value: Any) -> Json:
    """The members of a dataclass that do not have their default."""
    members: Json = {}
    for field in dataclasses.fields(value):
        member = getattr(value, field.name)
        if member == field.default or (isinstance(member, Usage) and member == Usage()):
            continue
        if isinstance(member, enum.Enum):
            member = member.value
        elif isinstance(member, bytes):
            member = member.decode()
        elif isinstance(member, Usage):
            member = _members(member)
        elif isinstance(member, SearchOutcome):
            member = dataclasses.asdict(member)
        members[field.name] = member
    return members


def _event(kind: type[TurnEvent], said: Json) -> TurnEvent:
    if kind is TurnFailed:
        return TurnFailed(_error(said["error"]))
    if "usage" in said or kind in (UsageKnown, TurnEnded):
        said["usage"] = Usage(**said.get("usage", {}))
    if kind is BlockStarted:
        said["kind"] = BlockKind(said["kind"])
        if "outcome" in said:
            said["outcome"] = _outcome(said["outcome"])
    elif kind is TurnEnded:
        said["stop"] = Stop(said["stop"])
    elif kind is Foreign:
        said["data"] = said["data"].encode()
    return kind(**said)


def _outcome(said: Json) -> SearchOutcome:
    hits = said.pop("hits")
    return SearchOutcome(hits=None if hits is None else tuple(SearchHit(**hit) for hit in hits), **said)


def _error(said: Json) -> KirostreamError:
    kind = getattr(errors, said.pop("class"))
    if not issubclass(kind, KirostreamError):
        raise TypeError
    # Each class has its own signature; what an instance knows is in its attributes, whatever it was built from.
    error: KirostreamError = kind.__new__(kind, said["message"])
    for name, value in said.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error
