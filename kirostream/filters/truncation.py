"""Tells the model that its last answer was cut off, so that it does not walk into the same wall again.

An answer that breaks off inside a tool call (a file too large for one call, a connection dropped on the way) is never
presented as whole: it ends as MAX_TOKENS or fails. But the next request looks to the model as if all were well, and it
writes the same large file once more. So what was cut is remembered, and where the conversation goes on a note is put
where the model will read it (kiro-protocol.md section 8.3):

- into the result of the call, as an error: the call was never run as it was meant;
- behind the text, at the beginning of the user's next words, where an answer is in the history and was cut;
- behind the user's last words, where the same question is asked again because the answer broke inside a call.

A cut is remembered for one conversation of one caller, by the ids of the calls and a digest of the text, not by the
text itself. It stays for a while, and is not used up: the same history gets the same notes, so the upstream's prompt
cache holds. What the client cut by its own ``max_tokens`` is no news to anybody, and is not remembered.

Pure: the caller passes the time, and owns the memory.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from kirostream.dataclass import dataclass
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
from kirostream.turn.request import ContentBlock, Message, Role, Text, ToolCall, ToolResult, TurnRequest

TTL: Final = 3600.0
"""Seconds a cut is remembered."""
CONVERSATIONS: Final = 1024
CUTS: Final = 8
"""Cuts remembered of one conversation."""

SMALLER: Final = "Do it in several smaller steps: make the arguments of each call shorter."
CUT_TEXT: Final = (
    "[Note: the answer above was cut off before its end by a limit of the service. Nobody has cut it on purpose. Go on "
    "from where it stops, and do not repeat what is there.]"
)


def cut_call(name: str) -> str:
    """The note in the result of a call whose arguments were cut off."""
    return (
        f"[Note: the call of {name} was cut off by a limit of the service before its arguments were complete, so it "
        f"did not do what it was meant to do. The same call would be cut off again. {SMALLER}]"
    )


def cut_calls(names: Iterable[str]) -> str:
    """The note for calls of which the history has nothing."""
    called = " and ".join(names)
    return (
        f"[Note: the previous answer was cut off by a limit of the service inside a call of {called}, which was not "
        f"run. The same call would be cut off again. {SMALLER}]"
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """One answer that was cut off.

    Attributes:
        calls: names of the calls that are not whole, by id.
        said: digest of the answer's text; empty where it has none.
        asked: digest of the question; empty where no call is cut.
        until: when it is forgotten, on the caller's clock.
    """

    calls: tuple[tuple[str, str], ...]
    said: str
    asked: str
    until: float


class TruncationWatch:
    """Remembers what was cut off. One instance serves every conversation.

    Args:
        ttl: seconds a cut is remembered.
        conversations: that are remembered at most; the one that was cut longest ago is forgotten first.
    """

    def __init__(self, *, ttl: float = TTL, conversations: int = CONVERSATIONS) -> None:
        self._ttl = ttl
        self._most = conversations
        self._cuts: OrderedDict[str, tuple[Cut, ...]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<TruncationWatch of {len(self._cuts)} conversations>"

    def learn(self, conversation: str, request: TurnRequest, events: Sequence[TurnEvent], now: float) -> None:
        """Take note of how a turn ended.

        Args:
            conversation: names the conversation of one caller; never the same for two callers.
            request: as the client asked it.
            events: the whole turn, as it was said to the client.
            now: seconds, on a clock that does not go back.
        """
        ended = events[-1] if events else None
        if not (isinstance(ended, TurnFailed) or (isinstance(ended, TurnEnded) and ended.stop is Stop.MAX_TOKENS)):
            return
        text, calls = _said(events)
        if isinstance(ended, TurnEnded) and not calls and _own_limit(request, ended):
            return
        said = _digest(text)
        if not said and not calls:
            return
        cut = Cut(calls, said, _question(request) if calls else "", now + self._ttl)
        known = [old for old in self._cuts.get(conversation, ()) if (old.calls, old.said) != (calls, said)]
        self._cuts[conversation] = (*known, cut)[-CUTS:]
        self._cuts.move_to_end(conversation)
        while len(self._cuts) > self._most:
            self._cuts.popitem(last=False)

    def remind(self, conversation: str, request: TurnRequest, now: float) -> TurnRequest:
        """`request` with a note for each cut that it follows on; the same object where there is none."""
        cuts = self._cuts.get(conversation)
        if not cuts:
            return request
        cuts = tuple(cut for cut in cuts if cut.until > now)
        if not cuts:
            del self._cuts[conversation]
            return request
        self._cuts[conversation] = cuts
        return _Notes(request, cuts).request()


class _Notes:
    """Puts notes into one request."""

    def __init__(self, request: TurnRequest, cuts: Sequence[Cut]) -> None:
        self._request = request
        self._cuts = cuts
        self._calls = {call_id: name for cut in cuts for call_id, name in cut.calls}
        self._said = {cut.said: cut for cut in cuts if cut.said}
        results = (b for message in request.messages for b in message.content if isinstance(b, ToolResult))
        self._answered = {block.call_id for block in results}

    def request(self) -> TurnRequest:
        messages: list[Message] = []
        spoken: list[Message] = []  # the assistant's, since the user spoke last
        changed = False
        for message in self._request.messages:
            if message.role is Role.ASSISTANT:
                spoken.append(message)
                messages.append(message)
                continue
            content = [self._result(block) for block in message.content]
            if spoken and (note := self._behind(spoken)):
                results = sum(isinstance(block, ToolResult) for block in content)
                content.insert(results, Text(note))
            spoken = []
            noted = tuple(content)
            if noted == message.content:
                messages.append(message)
                continue
            changed = True
            messages.append(replace(message, content=noted))
        if note := self._asked_again():
            last = messages[-1]
            messages[-1] = replace(last, content=(*last.content, Text(note)))
            changed = True
        return replace(self._request, messages=tuple(messages)) if changed else self._request

    def _result(self, block: ContentBlock) -> ContentBlock:
        if not isinstance(block, ToolResult) or block.call_id not in self._calls:
            return block
        note = Text(cut_call(self._calls[block.call_id]))
        return replace(block, content=(*block.content, note), is_error=True)

    def _behind(self, spoken: Sequence[Message]) -> str:
        """The note behind an answer, empty where it was whole or its calls' results say it."""
        blocks = [block for message in spoken for block in message.content]
        text = "".join(block.text for block in blocks if isinstance(block, Text))
        cut = self._said.get(_digest(text))
        if cut is None or any(call_id in self._answered for call_id, _ in cut.calls):
            return ""
        if cut.calls:
            return cut_calls(dict.fromkeys(name for _, name in cut.calls))
        # The text of a cut answer has no call behind it: one that has is another answer with the same words.
        return "" if any(isinstance(block, ToolCall) for block in blocks) else CUT_TEXT

    def _asked_again(self) -> str:
        if not any(cut.asked for cut in self._cuts):
            return ""
        asked = _question(self._request)
        names = [name for cut in self._cuts if cut.asked == asked for _, name in cut.calls]
        return cut_calls(dict.fromkeys(names)) if names else ""


def _said(events: Iterable[TurnEvent]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The text of a turn, and its calls that are not whole: id and name."""
    texts: list[bytes] = []
    kinds: dict[int, BlockStarted] = {}
    arguments: dict[int, list[bytes]] = {}
    ended: set[int] = set()
    for event in events:
        match event:
            case BlockDelta(index=index, pieces=pieces):
                kind = kinds[index].kind
                if kind is BlockKind.TEXT:
                    texts += pieces
                elif kind is BlockKind.TOOL_CALL:
                    arguments[index] += pieces
            case BlockStarted(index=index, kind=kind):
                kinds[index] = event
                if kind is BlockKind.TOOL_CALL:
                    arguments[index] = []
            case BlockEnded(index=index):
                ended.add(index)
            case _:
                pass
    cut = ((kinds[i].call_id, kinds[i].name) for i, said in arguments.items() if i not in ended or not _whole(said))
    return unescape(texts), tuple(cut)


def _whole(pieces: Sequence[bytes]) -> bool:
    try:
        return not pieces or isinstance(json.loads(unescape(pieces)), dict)
    except (ValueError, RecursionError):
        return False


def _own_limit(request: TurnRequest, ended: TurnEnded) -> bool:
    """Whether the client's ``max_tokens`` cut the text, and not the service."""
    limit = request.sampling.max_tokens
    return limit is not None and ended.usage.output_tokens >= limit


def _digest(text: str) -> str:
    """Of a text without its white space, which clients trim and join as they like. Empty for no text."""
    bare = "".join(text.split())
    return hashlib.sha256(bare.encode("utf-8", "replace")).hexdigest() if bare else ""


def _question(request: TurnRequest) -> str:
    """Which question of its conversation `request` is. Only a question of the user's counts."""
    if not request.messages or request.messages[-1].role is not Role.USER:
        return ""
    last = f"{len(request.messages)}:{request.messages[-1]!r}"
    return hashlib.sha256(last.encode("utf-8", "replace")).hexdigest()
