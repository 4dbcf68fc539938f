"""What a provider is: a place that answers turns.

A provider never touches the bytes of a turn (its dialect does) and never sends anything (the relay does): it says what
to send, and what an answer that is not a turn means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kirostream.accounts.account import Account, Token
from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Complaint, Dialect, Headers
from kirostream.errors import FormRefused, UpstreamError
from kirostream.turn.model import Model
from kirostream.turn.request import SearchHit, Tool, TurnRequest


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP request, ready to be sent. It holds a bearer token: never log it.

    Headers that are `net.fields.Fields` were checked before, and go out as they are.
    """

    method: str
    url: str
    headers: Headers
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<UpstreamRequest {self.method} {self.url}, {len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class Call:
    """What the relay adds to one try of one turn.

    `conversation_id` is stable over the turns of a conversation, `continuation_id` over the tool rounds of one user
    message, `invocation_id` is new for every request; all three are UUIDs. `attempt` counts from 1. `endpoint` is the
    number of one of `Provider.endpoints`.
    """

    model: Model
    conversation_id: str
    continuation_id: str
    invocation_id: str
    attempt: int = 1
    attempts: int = 3
    endpoint: int = 0


class Forms(Protocol):
    """What is known of the form of a place's requests: why it may refuse one, and what may pass in its stead."""

    def stricter(self, request: TurnRequest, model: Model, refused: FormRefused) -> tuple[TurnRequest, Sequence[str]]:
        """The stricter variant of a refused request, and what differs in it; the same and nothing: there is none."""

    def suspects(self, body: bytes) -> Sequence[str]:
        """The rules that a refused body breaks, or may break. They say nothing of its contents."""

    def redacted(self, body: bytes, key: bytes) -> Any:
        """The shape of a body without its contents, as JSON values. `key` is random and new each time."""

    def explain(self, refused: FormRefused, body: bytes, *, repairs: Sequence[str], capture: str) -> UpstreamError:
        """The refusal as the client is told it.

        Args:
            refused: what the upstream said last.
            body: what it said it to.
            repairs: what differs in it from the first one that was refused; empty where that was the first.
            capture: the id of what was kept of it, empty where nothing was.
        """


class Provider(Protocol):
    """A place."""

    @property
    def name(self) -> str:
        """Its name in settings and logs."""

    @property
    def dialect(self) -> Dialect:
        """The language it speaks."""

    @property
    def fallback_models(self) -> Sequence[Model]:
        """The models to show while the catalogue cannot be read. Never a whitelist."""

    @property
    def forms(self) -> Forms | None:
        """What is known of the form of its requests; None where nothing is."""

    def tool_names(self, tools: Sequence[Tool]) -> Mapping[str, str]:
        """What the tools are called here, by their own names: a model knows no others."""

    def fit(self, request: TurnRequest) -> TurnRequest:
        """The request as this place takes it. Done once a turn, before the first try."""

    def endpoints(self, account: Account, token: Token) -> Sequence[str]:
        """Where an account can ask: base URLs, at least one. The next is for when one cannot be reached or fails."""

    def prepare(self, request: TurnRequest, call: Call, account: Account, token: Token) -> UpstreamRequest:
        """The HTTP request that asks for a turn. `request` went through `fit`."""

    def classify(self, status: int, headers: Headers, complaint: Complaint) -> UpstreamError:
        """What a refusal means."""

    def list_models(self, account: Account, token: Token, page: str = "") -> UpstreamRequest:
        """The request for one page of the catalogue. `page` is what `read_models` gave, empty for the first."""

    def web_search(self, query: str, request_id: str, account: Account, token: Token) -> UpstreamRequest:
        """The request that searches the web.

        Args:
            query: at most `filters.websearch.MAX_QUERY` characters.
            request_id: names this search; new for every one.
        """

    def read_web_search(self, body: bytes) -> list[SearchHit]:
        """What a search found, best first.

        Raises:
            UpstreamFault: the place could not search.
            UpstreamRefused: it did not like the query.
            RemoteProtocolError: the body is no answer to a search.
        """

    def read_models(self, body: bytes) -> tuple[list[Model], str]:
        """One page of the catalogue, and the name of the next (empty: there is none).

        Raises:
            RemoteProtocolError: the body is no catalogue.
        """
