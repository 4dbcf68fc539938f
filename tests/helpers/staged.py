"""A relay with a scripted upstream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing

from helpers.tokens import unix_clock
from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.accounts.board import AccountSnapshot
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool, PoolSettings
from kirostream.accounts.store import MemoryPoolStore
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Complaint, Dialect, Headers, Heading
from kirostream.errors import (
    AccessDenied,
    AccountThrottled,
    CredentialRejected,
    KirostreamError,
    ModelNotOnAccount,
    QuotaSpent,
    UpstreamDown,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
)
from kirostream.net.client import HttpClient
from kirostream.net.upstream import ClientResponse, Taker
from kirostream.providers.provider import Call, Forms, UpstreamRequest
from kirostream.relay.attempt import Deadlines
from kirostream.relay.catalogue import Catalogues
from kirostream.relay.failover import FailoverSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.relay import Gate, Relay, RelaySettings
from kirostream.telemetry.facts import Fact, TurnFinished
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    Stop,
    TurnEnded,
    TurnFailed,
    TurnStarted,
)
from kirostream.turn.model import Model
from kirostream.turn.request import (
    Message,
    Role,
    SearchHit,
    Text,
    Tool,
    TurnRequest,
)
from kirostream.turn.usage import Usage

MODEL = Model("m")
ASK = TurnRequest(model="m", messages=(Message(Role.USER, (Text("hi"),)),), stream=True, spoken_in="anthropic")
WRITER = DIALECTS["kiro"].writer(ASK, Heading("0" * 32, 0))
FIRST, MORE, END = (
    b"".join(b"".join(WRITER.write(event)) for event in events)
    for events in (
        (TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), BlockDelta.of(0, "hel")),
        (BlockDelta.of(0, "lo"),),
        (BlockEnded(0), TurnEnded(Stop.END, Usage(credits=0.5, context_percentage=1.0))),
    )
)
HELLO = (FIRST, MORE, END)
Step = bytes | float | KirostreamError | Exception
"""Bytes to read, seconds of silence, or what the read raises."""


@dataclass
class Answer:
    """One scripted answer."""

    status: int
    steps: Sequence[Step]
    headers: Headers = ()
    body: bytes = b""
    closed: bool = False

    async def read_some(self) -> bytes:
        while self.steps:
            step, self.steps = self.steps[0], self.steps[1:]
            if isinstance(step, bytes):
                await trio.lowlevel.checkpoint()
                return step
            if isinstance(step, float):
                await trio.sleep(step)
            else:
                raise step
        return b""

    async def each(self, take: Taker) -> bool:
        return await ClientResponse.each(cast(ClientResponse, self), take)

    async def read_all(self, limit: int) -> bytes:
        return self.body[:limit]


@dataclass
class FakeClient:
    """Gives the scripted answers in order; an exception in their place is raised where a connection would fail."""

    script: list[Answer | KirostreamError]
    asked: list[str] = field(default_factory=list)
    """The tokens, one a try."""
    places: list[str] = field(default_factory=list)
    """The URLs, one a try."""
    found: list[tuple[int, bytes] | float | KirostreamError] = field(default_factory=list)
    """What searches answer, in order: a status and a body, seconds of silence, or what is raised. Then the query."""
    searched: list[str] = field(default_factory=list)
    """Every search: the token and the query."""

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Headers, content: bytes = b""
    ) -> AsyncGenerator[Answer, None]:
        self.asked.append(dict(headers)[b"authorization"].decode())
        self.places.append(url)
        await trio.lowlevel.checkpoint()
        answer = self.script.pop(0)
        if isinstance(answer, KirostreamError):
            raise answer
        try:
            yield answer
        finally:
            answer.closed = True

    async def fetch(
        self, method: str, url: str, headers: Headers, content: bytes = b"", *, limit: int = 0
    ) -> tuple[int, Headers, bytes]:
        if not url.endswith("/mcp"):
            raise UpstreamDown("no catalogue here")
        self.searched.append(f"{dict(headers)[b'authorization'].decode()} {content.decode()}")
        await trio.lowlevel.checkpoint()
        answer = self.found.pop(0) if self.found else (200, content)
        if isinstance(answer, KirostreamError):
            raise answer
        if isinstance(answer, float):
            await trio.sleep(answer)
            answer = (200, content)
        return answer[0], (), answer[1]


class FakeKeeper:
    """Tokens t0, t1, ...: a new one after each rejection. Those of other accounts than `a` begin with their name.

    Who is `lost` gets none.
    """

    def __init__(self) -> None:
        self.rejections = 0
        self.profile = ""
        self.lost: dict[str, KirostreamError] = {}

    async def token(self, account: Account) -> Token:
        await trio.lowlevel.checkpoint()
        if account.id in self.lost:
            raise self.lost[account.id]
        of = "" if account.id == "a" else f"{account.id}-"
        return Token(Secret(f"{of}t{self.rejections}"), NEVER, self.profile, account.id)

    def reject(self, token: Token) -> None:
        self.rejections += 1


class FakeProvider:
    """Speaks Kiro's dialect; HTTP status is all its refusals have."""

    name = "fake"
    fallback_models: Sequence[Model] = (MODEL,)
    forms: Forms | None = None

    @property
    def dialect(self) -> Dialect:
        return DIALECTS["kiro"]

    def __init__(self) -> None:
        self.fitted: list[TurnRequest] = []
        self.profiles: list[str] = []
        self.places = 1
        """How many endpoints it has."""
        self.models: list[str] = []
        """The models that were asked, one a try."""

    def tool_names(self, tools: Sequence[Tool]) -> Mapping[str, str]:
        return {tool.name: f"{tool.name}_x" for tool in tools}

    def endpoints(self, account: Account, token: Token) -> Sequence[str]:
        return ["http://up", "http://other"][: self.places]

    def fit(self, request: TurnRequest) -> TurnRequest:
        self.fitted.append(request)
        return request

    def prepare(self, request: TurnRequest, call: Call, account: Account, token: Token) -> UpstreamRequest:
        self.models.append(call.model.id)
        self.profiles.append(token.profile_arn)
        url = self.endpoints(account, token)[call.endpoint]
        return UpstreamRequest("POST", url, [(b"authorization", token.access.reveal().encode())])

    def classify(self, status: int, headers: Headers, complaint: Complaint) -> UpstreamError:
        kinds: dict[int, type[UpstreamError]] = {
            403: CredentialRejected,
            401: AccessDenied,
            402: QuotaSpent,
            404: ModelNotOnAccount,
            429: AccountThrottled,
            529: UpstreamOverloaded,
        }
        return kinds.get(status, UpstreamFault)(f"status {status}")

    def web_search(self, query: str, request_id: str, account: Account, token: Token) -> UpstreamRequest:
        headers = [(b"authorization", token.access.reveal().encode())]
        return UpstreamRequest("POST", "http://up/mcp", headers, query.encode())

    def read_web_search(self, body: bytes) -> list[SearchHit]:
        return [SearchHit(f"https://example.com/{body.decode()}", body.decode())]

    def list_models(self, account: Account, token: Token, page: str = "") -> UpstreamRequest:
        return UpstreamRequest("GET", "http://up/models", [])

    def read_models(self, body: bytes) -> tuple[list[Model], str]:
        return [MODEL], ""


@dataclass
class Stage:
    """A relay and everything round it."""

    relay: Relay
    client: FakeClient
    keeper: FakeKeeper
    provider: FakeProvider
    facts: list[Fact]
    pool: Pool

    def state(self, account: str) -> AccountSnapshot:
        """One account of the pool, now."""
        return next(each for each in self.pool.snapshot().accounts if each.id == account)

    def finished(self) -> TurnFinished:
        (fact,) = [fact for fact in self.facts if isinstance(fact, TurnFinished)]
        return fact


SETTINGS = RelaySettings(
    deadlines=Deadlines(first_event=10, idle=20, total=100), failover=FailoverSettings(attempts=3, backoff=1.0)
)


@asynccontextmanager
async def stage(
    *script: Answer | KirostreamError,
    settings: RelaySettings = SETTINGS,
    accounts: Sequence[str] = ("a",),
    pool_settings: PoolSettings | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Stage]:
    """A relay that is given the scripted answers in order; no turn is left of it, and no lease."""
    facts: list[Fact] = []
    recorder = Recorder(facts.append)
    client, keeper, provider = FakeClient(list(script)), FakeKeeper(), FakeProvider()
    async with trio.open_nursery() as nursery:
        pool = Pool(pool_settings or PoolSettings(), MemoryPoolStore(), clock=unix_clock())
        for name in accounts:
            label = "someone" if name == "a" else f"someone {name}"
            pool.add(Account(id=AccountId(name), label=label, auth=AuthMethod.SOCIAL))
        keepers = cast(TokenKeeper, keeper)

        def client_of(account: Account) -> HttpClient:
            return cast(HttpClient, client)

        relay = Relay(
            nursery,
            pool=pool,
            keeper=keepers,
            provider=provider,
            client_of=client_of,
            catalogues=Catalogues(nursery, provider, pool, keepers, client_of, recorder),
            recorder=recorder,
            settings=settings,
            clock=lambda: 1_000_000.0,
            gate=gate,
        )
        yield Stage(relay, client, keeper, provider, facts, pool)
        assert relay.snapshot().in_flight == 0
        assert pool.snapshot().in_flight == pool.snapshot().waiting == 0


def ok(*steps: Step) -> Answer:
    """An answer that is read in these steps."""
    return Answer(200, steps)


async def outcome(live: LiveTurn) -> TurnEnded | TurnFailed:
    """How the turn ends, once it has."""
    await live.over.wait()
    last = live.log.events[-1]
    assert isinstance(last, TurnEnded | TurnFailed)
    return last


def saying(text: str, stop: Stop = Stop.END) -> Answer:
    """An answer of one text."""
    events = (TurnStarted("m"), BlockStarted(0, BlockKind.TEXT), BlockDelta.of(0, text), BlockEnded(0))
    ended = TurnEnded(stop, Usage(credits=0.5))
    writer = DIALECTS["kiro"].writer(ASK, Heading("0" * 32, 0))
    return ok(b"".join(b"".join(writer.write(event)) for event in (*events, ended)))
