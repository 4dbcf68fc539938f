"""How a chat answer says what the model thought: the operator's choice, as chat has no word of its own for it.

Most clients read ``reasoning_content``; some read ``thinking``; some know neither, and fold away what stands in their
text between ``<think>`` and ``</think>``. The choice rides in the request's extras (`FORM`), so that whoever writes its
answer knows it. In tags, a thought is a text like any other: it is made one before anything is written (`Tagging`,
`tagged`), and so all that chat does with texts is right for it. A client sends such a text back with its answer; there
it is made a thought again, since models are not shown what they thought (`in_form`).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kirostream.dialects.dialect import Dialect, Headers
from kirostream.dialects.jsontext import encode
from kirostream.turn.events import BlockDelta, BlockEnded, BlockKind, BlockStarted, TurnEvent
from kirostream.turn.request import ContentBlock, Message, Role, Text, Thought, TurnRequest
from kirostream.turn.result import TurnResult

OPEN: Final = "<think>"
CLOSE: Final = "</think>\n\n"
_SAID: Final = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class ThoughtForm(enum.Enum):
    """Where a thought stands in an answer."""

    REASONING_CONTENT = "reasoning_content"  #: a member of the message and of deltas
    THINKING = "thinking"  #: the same under another name
    THINK = "think"  #: in the text, between tags


FORM: Final = "kirostream_thoughts"
"""The member of a request's extras that names the form. It goes to no upstream."""

_FORMS: Final = {encode(form.value): form for form in ThoughtForm}


def form_of(request: TurnRequest) -> ThoughtForm:
    """The form that answers to `request` have."""
    return _FORMS.get(request.extras.get(FORM, b""), ThoughtForm.REASONING_CONTENT)


def in_form(request: TurnRequest, form: ThoughtForm) -> TurnRequest:
    """`request`, to be answered in `form`; what it repeats of earlier answers in that form is read as such."""
    if form is ThoughtForm.REASONING_CONTENT:
        return request
    request = replace(request, extras={**request.extras, FORM: encode(form.value)})
    if form is ThoughtForm.THINK:
        request = replace(request, messages=tuple(map(_untagged, request.messages)))
    return request


def with_form(dialect: Dialect, form: ThoughtForm) -> Dialect:
    """Chat, whose answers have `form`."""
    if form is ThoughtForm.REASONING_CONTENT:
        return dialect
    read: Callable[[bytes, Headers], TurnRequest] = dialect.read_request
    return replace(dialect, read_request=lambda body, headers: in_form(read(body, headers), form))


def _untagged(message: Message) -> Message:
    """An assistant's message with the thought at its beginning as a block of its own."""
    first = next((at for at, block in enumerate(message.content) if isinstance(block, Text)), None)
    if message.role is not Role.ASSISTANT or first is None:
        return message
    text = message.content[first]
    found = _SAID.match(text.text) if isinstance(text, Text) else None
    if found is None or not isinstance(text, Text):
        return message
    rest = text.text[found.end() :]
    said: tuple[ContentBlock, ...] = (Thought(found[1]), *((Text(rest),) if rest else ()))
    return replace(message, content=(*message.content[:first], *said, *message.content[first + 1 :]))


class Tagging:
    """Makes texts of the thoughts in one streamed answer. A thought that says nothing is left out."""

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}
        """Open thoughts, and whether they have said anything."""

    def __repr__(self) -> str:
        return f"<Tagging {sorted(self._open)}>"

    def take(self, event: TurnEvent) -> list[TurnEvent]:
        """The events to be written in place of `event`."""
        match event:
            case BlockDelta(index=index) if index in self._open:
                if self._open[index]:
                    return [event]
                self._open[index] = True
                return [BlockStarted(index, BlockKind.TEXT), BlockDelta.of(index, OPEN), event]
            case BlockStarted(index=index, kind=BlockKind.THINKING):
                self._open[index] = False
                return []
            case BlockEnded(index=index) if index in self._open:
                return [BlockDelta.of(index, CLOSE), BlockEnded(index)] if self._open.pop(index) else []
            case _:
                return [event]


def tagged(result: TurnResult) -> TurnResult:
    """The same of a whole answer."""
    content = (
        Text(f"{OPEN}{block.text}{CLOSE}") if isinstance(block, Thought) and block.text else block
        for block in result.content
    )
    return replace(result, content=tuple(content))
