"""Web search within a turn, for upstreams whose models cannot search by themselves (kiro-protocol.md section 8.7).

A client asks for it with a tool of its own API's (`TurnRequest.search`); a function that a client calls ``web_search``
is a function like any other, and none of this. Upstream the model is offered an ordinary function. Where it calls it,
the relay runs the search (`relay/search.py`) and asks again, with the call and its result at the end of the
conversation, until an answer comes without a search: several **rounds**, one turn. `WebSearch` is what is pure of that:

- it takes the events of all rounds and says one turn: one beginning, one end, blocks numbered through, costs together.
  Text goes out as it comes. A call of the search is held until its round is over: its query is short, and half of one
  is not worth showing;
- it says what to ask next (`request`), and keeps the count of searches.

**The end of a round.** With searches and nothing else to do, the turn goes on. Where the client's own tools were called
beside them, the searches are run and the turn ends there: the client has the results in its history when it comes back
with its own. A search beyond what is allowed is not run: the model is told so and may answer; where it only asks for
more, the turn ends as PAUSED. So a turn has at most two rounds more than searches.

**A question that is a search.** Claude Code asks for searches in requests of their own: ``Perform a web search for the
query: ...``, the search its only tool. There is nothing to decide in the first round, and a model may still decide
not to search, or rewrite the query. So that query is searched at once, and the model's first round is the one that has
the results; it may search further. What was found is said only when that round begins: until then nothing is committed,
and an upstream that refuses is an HTTP error as ever. Any other wording, and a query that is too long, take the
ordinary way.

**History.** Searches of earlier turns come back as `SearchCall` and `SearchOutcome` in the assistant's message.
`as_calls` makes calls and results of them, in messages of their own, as upstreams know them; so does every round.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from typing import Final

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
    TurnStarted,
    UsageKnown,
    escape,
    unescape,
)
from kirostream.turn.request import (
    AUTO,
    SEARCH_TOOL,
    ContentBlock,
    Message,
    Role,
    Search,
    SearchCall,
    SearchError,
    SearchHit,
    SearchOutcome,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import AnswerBlock, block_of, found, searching
from kirostream.turn.usage import Usage

MAX_QUERY: Final = 200
"""Characters of a query (kiro-protocol.md section 6.5)."""

DESCRIPTION: Final = (
    "Searches the web and returns the titles, addresses and extracts of the pages it finds. Use it for what you cannot "
    "know or what may have changed. In your answer, name the pages you rely on as markdown links: [title](url)."
)
GONE: Final = "(The results of this search are not at hand any more.)"
NOTHING: Final = "Nothing was found."
SPENT: Final = "No further search is possible in this answer: go on with what you have."
ERRORS: Final = {
    "invalid_tool_input": "The search was not run: its arguments have to be an object with a query that is not empty.",
    "query_too_long": f"The search was not run: a query has at most {MAX_QUERY} characters. Ask with a shorter one.",
    "max_uses_exceeded": f"The search was not run. {SPENT}",
    "too_many_requests": "The search failed: there were too many of them. Go on with what you know, and say so.",
    "unavailable": "The search failed: the service did not answer. Go on with what you know, and say so.",
}
"""What the model is told, by `SearchError`."""

_SCHEMA: Final = json.dumps(
    {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": f"What to search for, at most {MAX_QUERY} characters.",
                "maxLength": MAX_QUERY,
            }
        },
        "required": ["query"],
    }
).encode()
_PLAIN: Final = re.compile(r"\s*Perform a web search for the query: (\S.*?)\s*")
_SEARCHES: Final = frozenset((SearchCall, SearchOutcome))
_WORD: Final = re.compile(r"\W")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How the web is searched for clients that ask for it."""

    enabled: bool = field(
        default=True, metadata={"help": "Whether a client's native web search tool is run; without it, it is dropped."}
    )
    most_uses: int = field(default=10, metadata={"help": "Searches in one turn, whatever the client allows."})
    results: int = field(default=10, metadata={"help": "Results of one search that are passed on."})
    extract: int = field(
        default=4_000, metadata={"help": "Length of a result's extract; longer ones are cut.", "unit": "characters"}
    )
    deadline: float = field(
        default=30.0, metadata={"help": "For one search. A search that fails does not fail the turn.", "unit": "s"}
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A search that the model asks for. Where `error` is set it is not to be run."""

    call: SearchCall
    error: SearchError = ""


class WebSearch:
    """The searches of one turn, and the one turn made of its rounds. The first filter of an answer (`EventFilter`).

    Args:
        request: as the client asked it.
        settings: the operator's limits.
        seed: makes the id of a search that no model asked for; new for every turn.
    """

    def __init__(self, request: TurnRequest, settings: SearchSettings, seed: str) -> None:
        self._settings = settings
        self._search = request.search or Search()
        self._left = min(settings.most_uses, self._search.max_uses or settings.most_uses)
        self.tool = tool_name(request)
        """What the model calls the search."""
        self._asked = self._offering(request)
        self._blocks = Renumber()
        self._held: dict[int, tuple[str, list[bytes]]] = {}
        self._calls: list[tuple[str, list[bytes]]] = []
        """Calls of the search in this round: id and arguments."""
        self._said: list[AnswerBlock] = []
        self._open: dict[int, tuple[BlockStarted, list[bytes]]] = {}
        self._before: list[TurnEvent] = []
        self._started = False
        self._client_called = False
        self._refused_rounds = 0
        self._spent = Usage()
        """Cost of the rounds that are over, without their prompts."""
        self._usage = Usage()
        """Cost of the turn so far."""
        self.wanted: list[Wanted] = []
        """The searches of this round, in the order of the calls, once it is over."""
        self.request = self._asked
        """What to ask in the next round."""
        query = _plain_query(request)
        if query is not None and self._left:
            self._left -= 1
            self.wanted.append(Wanted(SearchCall(f"srvtoolu_{seed[:24]}", query)))

    def __repr__(self) -> str:
        return f"<WebSearch as {self.tool}, {len(self.wanted)} wanted, {self._left} left>"

    def _offering(self, request: TurnRequest) -> TurnRequest:
        """`request` with the function in place of the search."""
        where = f" The user is in {self._search.location}." if self._search.location else ""
        choice = request.tool_choice
        if choice.mode == "tool" and choice.name == SEARCH_TOOL and all(t.name != SEARCH_TOOL for t in request.tools):
            choice = replace(choice, name=self.tool)
        return as_calls(
            replace(
                request,
                tools=(*request.tools, Tool(self.tool, DESCRIPTION + where, _SCHEMA)),
                tool_choice=choice,
                search=None,
            ),
            self.tool,
        )

    # A round

    def begin(self) -> None:
        """A try of a round begins. What an earlier try of it left behind, which said nothing, is forgotten."""
        self._held.clear()
        self._calls.clear()

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The events of the round, as events of the turn."""
        said: list[TurnEvent] = []
        for event in events:
            if type(event) is BlockDelta:
                if event.index in self._held:
                    self._held[event.index][1].extend(event.pieces)
                else:
                    self._open[event.index][1].extend(event.pieces)
                    said.append(self._blocks.delta(event))
                continue
            match event:
                case BlockStarted(index=index, kind=BlockKind.TOOL_CALL, name=self.tool):
                    self._held[index] = (event.call_id, [])
                case BlockStarted(index=index, kind=kind):
                    self._client_called = self._client_called or kind is BlockKind.TOOL_CALL
                    self._open[index] = (event, [])
                    said.append(self._blocks.start(event))
                case BlockEnded(index=index):
                    if index in self._held:
                        self._calls.append(self._held.pop(index))
                    else:
                        self._said.append(block_of(*self._open.pop(index), event.signature))
                        said.append(self._blocks.end(event))
                case TurnStarted():
                    said += self._start(event)
                case UsageKnown(usage=usage):
                    said.append(UsageKnown(self._cost(usage)))
                case TurnEnded():
                    said += self._end(event)
                case _:
                    said.append(event)
        return said

    def _start(self, event: TurnStarted) -> list[TurnEvent]:
        self._cost(event.usage)
        if self._started:
            return []
        self._started = True
        before, self._before = self._before, []
        return [event, *before]

    def _end(self, event: TurnEnded) -> list[TurnEvent]:
        usage = self._cost(event.usage)
        if not self._calls or event.stop not in (Stop.END, Stop.TOOL_CALL):
            return [replace(event, usage=usage)]  # what broke off has no searches that are whole
        self.wanted = [self._wanted(*call) for call in self._calls]
        return []

    def _cost(self, usage: Usage) -> Usage:
        """The whole turn's cost so far. A prompt that grows from round to round counts as the last of them."""
        self._usage = usage.beside(self._spent)
        return self._usage

    def _wanted(self, call_id: str, pieces: Sequence[bytes]) -> Wanted:
        try:
            query = _clean(json.loads(unescape(pieces))["query"]).strip()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            query = ""
        call = SearchCall("srvtoolu_" + _WORD.sub("", call_id.removeprefix("tooluse_")), query)
        if not self._left:
            return Wanted(call, "max_uses_exceeded")
        self._left -= 1
        if not query:
            return Wanted(call, "invalid_tool_input")
        return Wanted(call, "query_too_long" if len(query) > MAX_QUERY else "")

    # Between two rounds

    def searching(self, call: SearchCall) -> list[TurnEvent]:
        """The events that say that a search begins."""
        self._said.append(call)
        return self._tell(list(searching(self._blocks.fresh(), call)))

    def found(self, call: SearchCall, hits: Sequence[SearchHit], error: SearchError = "") -> list[TurnEvent]:
        """The events that say what came of it: what may be seen of `hits`, or why there are none."""
        kept = () if error else select(hits, self._search, self._settings)
        outcome = SearchOutcome(call.id, kept, error)
        self._said.append(outcome)
        if not error:
            self._usage = replace(self._usage, searches=self._usage.searches + 1)
        events = list(found(self._blocks.fresh(), outcome))
        return self._tell([*events, UsageKnown(self._usage)] if self._started else events)

    def _tell(self, events: list[TurnEvent]) -> list[TurnEvent]:
        """Say `events` now, or as soon as the turn has begun."""
        if self._started:
            return events
        self._before += events
        return []

    def go_on(self) -> list[TurnEvent]:
        """The searches were run: the end of the turn; or nothing, where `request` is to be asked next."""
        self._refused_rounds += all(wanted.error == "max_uses_exceeded" for wanted in self.wanted)
        self.wanted = []
        if self._client_called:
            return [TurnEnded(Stop.TOOL_CALL, self._usage)]
        if self._refused_rounds > 1:
            return [TurnEnded(Stop.PAUSED, self._usage)]
        self._spent = replace(self._usage, input_tokens=0, cache_read_tokens=0, cache_write_tokens=0)
        again = replace(
            self._asked,
            messages=(*self._asked.messages, Message(Role.ASSISTANT, tuple(self._said))),
            tool_choice=replace(AUTO, parallel=self._asked.tool_choice.parallel),
        )
        again = as_calls(again, self.tool)
        if not self._left:
            again = _with_note(again, SPENT)
        self.request = again
        return []


def tool_name(request: TurnRequest) -> str:
    """A name for the search that no tool of `request` has, compared as Kiro does, without case."""
    names = {tool.name.lower() for tool in request.tools}
    return next(name for i in range(len(names) + 1) if (name := SEARCH_TOOL + "_" * i) not in names)


def _plain_query(request: TurnRequest) -> str | None:
    """The query of a question that is nothing but a search (see the module's theory)."""
    last = request.messages[-1]
    if request.tools or request.tool_choice.mode == "none" or last.role is not Role.USER:
        return None
    match last.content:
        case (Text(text=text),) if (said := _PLAIN.fullmatch(text)) and len(said[1]) <= MAX_QUERY:
            return _clean(said[1])
        case _:
            return None


def _clean(text: str) -> str:
    """`text` without half surrogate pairs, which UTF-8 cannot hold."""
    return unescape((escape(text),))


def _with_note(request: TurnRequest, note: str) -> TurnRequest:
    """`request` with a word behind the results that it ends with."""
    *before, last = request.messages
    return replace(request, messages=(*before, replace(last, content=(*last.content, Text(note)))))


# What a search found


def select(hits: Iterable[SearchHit], search: Search, settings: SearchSettings) -> tuple[SearchHit, ...]:
    """The hits that the client allows, as many and as long as the operator does."""
    kept: list[SearchHit] = []
    for hit in hits:
        if len(kept) == settings.results:
            break
        if search.allowed_domains and not any(_lies_in(hit.url, domain) for domain in search.allowed_domains):
            continue
        if any(_lies_in(hit.url, domain) for domain in search.blocked_domains):
            continue
        kept.append(hit if len(hit.text) <= settings.extract else replace(hit, text=hit.text[: settings.extract]))
    return tuple(kept)


_URL: Final = re.compile(r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/@]*@)?([^/:?#]*)(?::\d*)?([^?#]*)", re.IGNORECASE)


def _lies_in(url: str, domain: str) -> bool:
    """Whether `url` is of `domain` or a subdomain of it. A domain may go on with a path; ``*`` in it is any text."""
    place, wanted = _URL.match(url), _URL.match(domain.strip())
    if place is None or wanted is None:
        return False
    host, suffix = place[1].lower().rstrip("."), wanted[1].lower().strip(".").removeprefix("*.")
    if not suffix or not (host == suffix or host.endswith("." + suffix)):
        return False
    path = ".*".join(map(re.escape, wanted[2].rstrip("/").split("*")))
    return re.match(path + r"(?=/|$)" if path and not path.endswith(".*") else path, place[2]) is not None


def as_text(outcome: SearchOutcome) -> str:
    """What the model reads of it."""
    if outcome.error:
        return ERRORS[outcome.error]
    if outcome.hits is None:
        return GONE
    lines = []
    for number, hit in enumerate(outcome.hits, 1):
        head = f"{number}. {hit.title or hit.url}\n{hit.url}" + (f"\nPublished: {hit.age}" if hit.age else "")
        lines.append(f"{head}\n\n{hit.text}" if hit.text else head)
    return "\n\n".join(lines) or NOTHING


# History


def as_calls(request: TurnRequest, tool: str = "") -> TurnRequest:
    """`request` with searches as calls of `tool` and their results; the same object where there are none.

    An assistant's message comes apart behind each result: what was said from it on was said knowing it.
    """
    if all(_SEARCHES.isdisjoint(map(type, message.content)) for message in request.messages):
        return request
    tool = tool or tool_name(request)
    messages: list[Message] = []
    for message in request.messages:
        if _SEARCHES.isdisjoint(map(type, message.content)):
            messages.append(message)
            continue
        said: list[ContentBlock] = []
        results: list[ContentBlock] = []
        for block in message.content:
            if isinstance(block, SearchOutcome):
                results.append(ToolResult(block.call_id, (Text(as_text(block)),), is_error=bool(block.error)))
                continue
            if results:
                messages += _apart(message.role, said, results)
                said, results = [], []
            if isinstance(block, SearchCall):
                query = json.dumps({"query": block.query}, ensure_ascii=False, separators=(",", ":"))
                block = ToolCall(block.id, tool, query.encode("utf-8", "replace"))
            said.append(block)
        messages += _apart(message.role, said, results)
    return replace(request, messages=tuple(messages))


def _apart(role: Role, said: Sequence[ContentBlock], results: Sequence[ContentBlock]) -> list[Message]:
    parts = [Message(role, tuple(said)), Message(Role.USER, tuple(results))]
    return [message for message in parts if message.content]
