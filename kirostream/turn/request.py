"""What a client asks, in no dialect's words.

Rules:

- Everything is frozen and slotted; tuples, not lists. A rule that changes a request makes a new one.
- JSON that only passes through (tool arguments, tool schemas) stays raw: `RawJson`, UTF-8 bytes of one JSON value,
  checked by the reader that made it. It is parsed where it has to change, and nowhere else.
- Image data stays base64 text, as both sides of the wire have it.
- What only one dialect knows rides in `extras` and comes out again when the upstream speaks that dialect.
- An agent sends the same messages and tools with every turn. `kept` is where pure functions leave what they made of
  one, under names of their own, for when they meet the same object again. It is no part of the value, and goes with it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from kirostream.dataclass import dataclass

RawJson: TypeAlias = bytes
"""UTF-8 bytes of one whole JSON value."""

EMPTY: Mapping[str, RawJson] = MappingProxyType({})


class Role(enum.Enum):
    """Who speaks. SYSTEM stands only where a client puts a system message between the turns."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


USER: Final = Role.USER
ASSISTANT: Final = Role.ASSISTANT
SYSTEM: Final = Role.SYSTEM
"""For what asks of every message who speaks: a member looked up in its class takes six times as long (Python 3.11)."""


def _decoded(of: Any, name: str, field: str) -> str:
    """What the literal of an object says, which from now on is its `field`."""
    if name != field:
        raise AttributeError(f"{type(of).__name__!r} object has no attribute {name!r}", name=name, obj=of)
    said: str = json.loads(of.literal)
    object.__setattr__(of, field, said)
    return said


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text. `phase` is what it was in an answer, where the client says: ``commentary`` or ``final_answer``.

    A text that was read with `of_literal` has it as JSON, in `literal`, and is decoded when it is first asked for:
    most of a conversation goes upstream as it came. The literal is no part of the value.
    """

    text: str
    phase: str = ""
    literal: RawJson | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of_literal(cls, literal: RawJson) -> Text:
        """The text that a JSON string says: a valid one, not empty, and written as `msgspec` writes it."""
        made = cls.__new__(cls)
        object.__setattr__(made, "phase", "")
        object.__setattr__(made, "literal", literal)
        return made

    @classmethod
    def of(cls, text: str) -> Text:
        """A text that is said often, with its literal."""
        made = cls(text)
        object.__setattr__(made, "literal", json.dumps(text, ensure_ascii=False).encode())
        return made

    @property
    def empty(self) -> bool:
        """Whether it says nothing. Asking this decodes nothing."""
        return self.literal is None and not self.text

    @property
    def encoded(self) -> bytes:
        """The text in UTF-8, half a surrogate pair as ``?``. What is decoded for it is not kept."""
        literal = self.literal
        if literal is None:
            return self.text.encode("utf-8", "replace")
        if b"\\" not in literal:
            return literal[1:-1]
        said: str = json.loads(literal)
        return said.encode()

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Called for a field that is not set: `text`, of a literal, until it is asked for."""
            return _decoded(self, name, "text")


@dataclass(frozen=True, slots=True)
class Image:
    """An image. `media_type` is ``image/png`` and the like; `data` is base64 without a prefix."""

    media_type: str
    data: str


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model thought in an earlier turn, as the client sends it back.

    `redacted` holds the opaque data of a thought that the model did not show; `text` is then empty.
    """

    text: str
    signature: str = ""
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made. `arguments` is the raw JSON of one object."""

    id: str
    name: str
    arguments: RawJson


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document, or a file that is somewhere else: what no model takes as it is.

    The gateway puts its text or the image in its place before the turn is asked, so what comes behind never sees one.

    Attributes:
        media_type: ``application/pdf``; ``image/*`` for an image at `url`, ``*/*`` for a file of any kind there.
        data: base64 without a prefix, of a document.
        url: of an image or a file.
        title: the document's name, empty where it has none.
        at: its path in the client's body, for errors.
    """

    media_type: str
    data: str = ""
    url: str = ""
    title: str = ""
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call. `call_id` is the `ToolCall.id` it answers."""

    call_id: str
    content: tuple[Text | Image | Attachment, ...]
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A page that a web search found.

    Attributes:
        url: where it is.
        title: what it calls itself.
        age: the date it was published, or words for it; empty where unknown.
        text: an extract; empty where there is none.
    """

    url: str
    title: str
    age: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class SearchCall:
    """A web search that was run for the model inside a turn. Its outcome stands behind it, in the same message."""

    id: str
    query: str


SearchError: TypeAlias = Literal[
    "", "invalid_tool_input", "query_too_long", "max_uses_exceeded", "too_many_requests", "unavailable"
]
"""Why a search has no results, in Anthropic's words; empty: it was run."""


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What came of a search.

    Attributes:
        call_id: the `SearchCall.id` it answers.
        hits: best first; empty: nothing was found; None: they are not known any more.
        error: why there are none, one of `SearchError`; empty where the search was run.
    """

    call_id: str
    hits: tuple[SearchHit, ...] | None = ()
    error: SearchError = ""


ContentBlock: TypeAlias = Text | Image | Attachment | Thought | ToolCall | ToolResult | SearchCall | SearchOutcome


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation, oldest first."""

    role: Role
    content: tuple[ContentBlock, ...]
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool the model may call. `schema` is the raw JSON Schema of its arguments.

    A reader may leave the description as JSON, in `literal`, as it leaves a `Text`: valid, not empty, and written as
    `msgspec` writes it.
    """

    name: str
    description: str
    schema: RawJson
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    literal: RawJson | None = field(default=None, init=False, repr=False, compare=False)

    def with_schema(self, schema: RawJson) -> Tool:
        """The tool with another schema. It decodes nothing."""
        if self.literal is None:
            return Tool(self.name, self.description, schema)
        made = Tool.__new__(Tool)
        for name, value in (("name", self.name), ("schema", schema), ("kept", {}), ("literal", self.literal)):
            object.__setattr__(made, name, value)
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """As of `Text`: `description`, of a literal, until it is asked for."""
            return _decoded(self, name, "description")


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether and which tool has to be called. `name` is set for ``tool`` only."""

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str = ""
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model picks tokens. None: the upstream's default. `max_tokens` counts output tokens."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether the model shall think aloud, and how much.

    `effort` is a word of the upstream's scale (``low`` ... ``max``), empty where the client gave none;
    `budget` is a count of tokens.
    """

    enabled: bool = False
    budget: int | None = None
    effort: str = ""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The shape of the whole answer: a value that matches `schema`, as JSON. `description` may be empty."""

    schema: RawJson
    description: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """That the model may search the web while it answers, and how. Whoever answers runs the searches.

    Attributes:
        max_uses: searches in one turn; None: as many as it takes.
        allowed_domains: where results may come from, as the client wrote them; empty: from anywhere.
        blocked_domains: where they may not.
        location: where the user is, in words; empty where unknown.
    """

    max_uses: int | None = None
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    location: str = ""


SEARCH_TOOL = "web_search"
"""What `ToolChoice.name` calls the search, where a client forces it."""

AUTO = ToolChoice()
THINKING_OFF = Thinking()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """One question to a model.

    Attributes:
        model: the name as the client wrote it; answers echo it.
        spoken_in: the name of the dialect that read it.
        session: the client's own name for the conversation, empty where it gave none (client-apis section 6).
        output: the shape the answer has to have, None where it is free.
        search: whether the model may search the web, None where it may not.
        choices: how many answers are wanted; only chat asks for more than one.
        include_usage: a streamed chat answer ends with a usage chunk only where this is set.
    """

    model: str
    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = AUTO
    sampling: Sampling = field(default_factory=Sampling)
    thinking: Thinking = THINKING_OFF
    output: OutputFormat | None = None
    search: Search | None = None
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    session: str = ""
    spoken_in: str = ""
    extras: Mapping[str, RawJson] = field(default_factory=lambda: EMPTY)
