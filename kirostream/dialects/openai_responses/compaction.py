"""Compaction: a long conversation in one item, and the conversation that goes on from it.

A client asks for it in one of two ways: ``POST /v1/responses/compact``, or a ``compaction_trigger`` as the last item of
an ordinary request, as Codex does. It gets a ``compaction`` item, whose ``encrypted_content`` it sends back in place of
what came before.

Upstreams know none of this. The model is asked for a summary (`summarising`), and the item holds it, sealed as a
thought is. Where such an item is read again, `read_items` puts the summary there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dialects.dialect import Heading
from kirostream.dialects.jsontext import encode
from kirostream.dialects.openai_responses.frame import item_id, response_id, write_usage
from kirostream.dialects.openai_responses.thoughts import PLAIN, Seal, pack_summary
from kirostream.dialects.openai_responses.writer import Writer
from kirostream.errors import UpstreamFault
from kirostream.turn.events import (
    BlockDelta,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnEvent,
    TurnFailed,
    TurnStarted,
    unescape,
)
from kirostream.turn.request import (
    AUTO,
    THINKING_OFF,
    Message,
    RawJson,
    Role,
    Sampling,
    Text,
    TurnRequest,
)
from kirostream.turn.result import TurnResult

PROMPT: Final = """\
Stop here. Do not go on with the task and call no tools. This conversation is about to be replaced by a summary, and \
whoever goes on with the work will see nothing else of it. Write that summary now, as plain text. Say, in this order:

1. what the user wants, with every requirement, preference and limit that was stated, in the user's own words where \
they matter;
2. what was done and decided, and why;
3. the state of things now: files read, made and changed with their paths, commands that were run and what came of \
them, names, numbers, addresses and short pieces of code that will be needed again;
4. what went wrong, and how it was solved;
5. what is left to do, beginning with the very next step.

Be exact and leave out what no longer matters. Write the summary alone, without an introduction."""
"""What the model is told."""

CUT: Final = "\n\n[The summary was cut off here.]"
"""Stands behind a summary that became too long."""

_TRIGGER: Final = "compaction_trigger"


class _Kind(msgspec.Struct):
    type: str | None = None
    role: str | None = None


def is_trigger(items: Sequence[RawJson]) -> bool:
    """Whether a request asks for a compaction: its last item says so."""
    return bool(items) and _TRIGGER.encode() in items[-1] and _kind(items[-1]).type == _TRIGGER


def _kind(item: RawJson) -> _Kind:
    try:
        return msgspec.json.decode(item, type=_Kind)
    except msgspec.ValidationError:
        return _Kind()


def summarising(request: TurnRequest) -> TurnRequest:
    """The question that asks for a summary of the conversation in `request`."""
    return replace(
        request,
        messages=(*request.messages, Message(Role.USER, (Text(PROMPT),))),
        tools=(),
        tool_choice=AUTO,
        sampling=Sampling(),
        thinking=THINKING_OFF,
        output=None,
        search=None,
    )


class CompactionWriter(Writer):
    """Writes the answer to a request that ends with a trigger: one item, ``compaction``.

    The summary is not shown; thoughts and all else that the model may say are left out.
    """

    def __init__(
        self,
        request: TurnRequest,
        heading: Heading,
        *,
        seal: Seal = PLAIN,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(request, heading, seal=seal, clock=clock)
        self._name = item_id("cmp", heading.turn, 0).encode()
        self._texts: set[int] = set()
        self._said: list[bytes] = []

    def write(self, event: TurnEvent) -> list[bytes]:
        """The events that say `event`."""
        match event:
            case TurnStarted():
                added = b'"output_index":0,"item":{"id":"%b","type":"compaction","encrypted_content":""}' % self._name
                working = b'"item_id":"%b","output_index":0' % self._name
                return [
                    *super().write(event),
                    self._event(b"response.output_item.added", added),
                    self._event(b"response.compaction.compacting", working),
                ]
            case BlockStarted(index=index, kind=BlockKind.TEXT):
                self._texts.add(index)
            case BlockDelta(index=index, pieces=pieces) if index in self._texts:
                self._said += pieces
            case TurnEnded():
                try:
                    summary = whole_summary(unescape(self._said), event.stop)
                except UpstreamFault as error:
                    return super().write(TurnFailed(error))
                item = _item(self._name.decode(), summary, self._seal)
                self._done[0] = item
                done = self._event(b"response.output_item.done", b'"output_index":0,"item":%b' % item)
                return [done, *super().write(TurnEnded(Stop.END, event.usage))]
            case TurnFailed():
                return super().write(event)
            case _:
                pass
        return []


def whole_summary(said: str, stop: Stop) -> str:
    """What the model said, as the summary that is kept.

    Raises:
        UpstreamFault: it is none.
    """
    if not said.strip() or stop is Stop.REFUSED:
        raise UpstreamFault("The model wrote no summary of the conversation. Ask again.", reason="no_summary")
    return said.strip() + (CUT if stop in (Stop.MAX_TOKENS, Stop.CONTEXT_FULL) else "")


def write_compacted(items: Sequence[RawJson], result: TurnResult, heading: Heading, *, seal: Seal = PLAIN) -> RawJson:
    """The answer of ``POST /v1/responses/compact``: the user's messages among `items`, and the rest in one item.

    Raises:
        UpstreamFault: `result` is no summary.
    """
    said = "".join(block.text for block in result.content if isinstance(block, Text))
    summary = whole_summary(said, result.stop)
    asked = [item for item in items if _kind(item) in (_Kind("message", "user"), _Kind(None, "user"))]
    output = [_listed(item, heading.turn, index) for index, item in enumerate(asked)]
    output.append(_item(item_id("cmp", heading.turn, len(asked)), summary, seal))
    return encode(
        {
            "id": response_id(heading.turn),
            "object": "response.compaction",
            "created_at": heading.created,
            "output": [Raw(item) for item in output],
            "usage": write_usage(result.usage),
        }
    )


def _item(name: str, summary: str, seal: Seal) -> RawJson:
    return encode({"id": name, "type": "compaction", "encrypted_content": pack_summary(summary, seal)})


def _listed(item: RawJson, turn: str, index: int) -> RawJson:
    """A message as an item of an answer: with a type, an id and a status, its content in parts."""
    members = msgspec.json.decode(item, type=dict[str, object])
    content = members.get("content")
    if isinstance(content, str):
        members["content"] = [{"type": "input_text", "text": content}]
    usual = {"id": item_id("msg", turn, index), "status": "completed"}
    return encode({**usual, **members, "type": "message"})
