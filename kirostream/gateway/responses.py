"""The Responses API with its memory (client-apis.md section 3.6).

A request may lean on earlier answers; `responses_input` puts them in place before anything else sees it.

An answer that was asked to be stored is `Kept` from its first moment: in memory while it is said and for a while
afterwards, with every event, so that a stream can be resumed; in the store from its end on. A client that has its last
event may refer to it at once, since memory is asked first.

A background turn belongs to the relay and is seen through by `Responses.run`; whoever streams it only follows. So is
one that its client may come back to (`gateway.attach`, `gateway.watch`): it goes on for a while when that client is
lost, and is kept for as long as another one may ask for it, though not to be retrieved unless it is stored.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import field, replace
from functools import partial
from typing import ClassVar, Final
from urllib.parse import parse_qs

import trio
from msgspec import Raw

from kirostream.dataclass import dataclass
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Dialect, Heading
from kirostream.dialects.jsontext import decode, encode
from kirostream.dialects.openai_responses.compaction import CompactionWriter, write_compacted
from kirostream.dialects.openai_responses.request import read_request
from kirostream.dialects.openai_responses.response import Writer, response_id, write_error, write_status
from kirostream.dialects.openai_responses.thoughts import Seal
from kirostream.errors import (
    KirostreamError,
    MalformedRequest,
    NoSuchRoute,
    RequestError,
    ShuttingDown,
    StoreError,
    TurnCancelled,
)
from kirostream.gateway.attach import Attachments, Claim
from kirostream.gateway.callers import Caller, Callers
from kirostream.gateway.media import Media
from kirostream.gateway.responses_input import Asked, Inputs
from kirostream.gateway.responses_items import number, page
from kirostream.gateway.responses_store import ResponseStore, Stored, StoreSettings
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.gateway.turns import (
    JSON,
    STREAM_HEADERS,
    TURN_HEADER,
    GatewaySettings,
    id_headers,
    timing_headers,
    wants_resumable,
)
from kirostream.net.exchange import Exchange, Headers, PeerGone, PeerStalled
from kirostream.net.router import Router
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import START, Cursor, Rendering
from kirostream.relay.relay import Relay
from kirostream.telemetry.facts import Fact
from kirostream.telemetry.faults import faulted
from kirostream.turn.events import Stop, TurnEnded, TurnFailed, TurnStarted
from kirostream.turn.request import RawJson
from kirostream.turn.result import fold
from kirostream.turn.tokens import estimate
from kirostream.turn.usage import Usage

PATH: Final = "/v1/responses"
NAME: Final = "openai_responses"
SAVE: Final = 5.0
"""Seconds that saving may take after the answer was sent, whatever became of the client."""
MOST_KEPT: Final = 64 << 20
"""Bytes of finished answers that stay in memory for clients that resume a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesSettings:
    """The Responses API."""

    store: StoreSettings = field(default_factory=StoreSettings)
    linger: float = field(
        default=300.0, metadata={"help": "How long the events of a finished answer can be resumed.", "unit": "s"}
    )


class NoSuchResponse(RequestError):
    """No response of this id, or it is somebody else's."""

    status: ClassVar[int] = 404


class Kept:
    """One answer, from its question until it is forgotten."""

    def __init__(self, asked: Asked, live: LiveTurn, caller: str, seal: Seal, *, seals: bool) -> None:
        self.id = response_id(live.heading.turn)
        self.asked = asked
        self.live = live
        self.caller = caller
        self._seal = seal
        self.writer = self._writer(keeps=seals, clock=time.time)
        self.rendering = Rendering(live.log, self.writer)
        self.over_at: float | None = None
        """When it was over, by trio's clock."""

    def __repr__(self) -> str:
        return f"<Kept {self.id} {self.live.log!r}>"

    def _writer(self, *, keeps: bool = False, clock: Callable[[], float] | None = None) -> Writer:
        request, heading = self.asked.request, self.live.heading
        if self.asked.compacts:
            return CompactionWriter(request, heading, seal=self._seal, clock=clock)
        return Writer(request, heading, seal=self._seal, keeps=keeps, clock=clock)

    def identified(self) -> Rendering:
        """The answer with the places of the turn. It says nothing that another process would say otherwise."""
        return self.live.rendering(NAME, self._writer, ids=True)

    @property
    def cancelled(self) -> bool:
        """Whether a client ended it."""
        last = self.live.log.events[-1] if self.live.log.events else None
        return isinstance(last, TurnFailed) and isinstance(last.error, TurnCancelled)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(map(len, self.asked.items)) + 2 * len(self.writer.response)

    def response(self) -> RawJson:
        """The response object as it stands."""
        request, heading = self.asked.request, self.live.heading
        if self.cancelled:
            return write_status(request, heading, "cancelled")
        if not self.live.log.finished:
            return write_status(request, heading, "in_progress" if self.live.log.events else "queued")
        self.rendering.catch_up()
        return self.writer.response

    def stored(self) -> Stored:
        """What is kept of it. Only once it is over."""
        response = self.response()
        items = () if self.cancelled else tuple(self.writer.items)
        created = self.live.heading.created
        return Stored(self.id, self.caller, created, self.asked.previous, response, self.asked.items, items)


class Responses:
    """Serves ``/v1/responses`` and everything below it. `run` has to run as long as it serves."""

    def __init__(
        self,
        relay: Relay,
        callers: Callers,
        heartbeats: Heartbeats,
        media: Media,
        store: ResponseStore,
        seal: Seal,
        tell: Callable[[Fact], None],
        *,
        gateway: GatewaySettings,
        settings: ResponsesSettings,
    ) -> None:
        self.callers = callers
        self.relay = relay
        self.seal = seal
        self.gateway = gateway
        self.settings = settings
        self._heartbeats = heartbeats
        self._store = store
        self.inputs = Inputs(store, media, seal, self._in_memory)
        self._tell = tell
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._attachments = Attachments[Kept](lambda kept: kept.live, coalesce=gateway.coalesce)
        self._nursery: trio.Nursery | None = None
        self.stopping = trio.Event()
        """Set when the gateway takes no more requests; connections without an answer under way end then."""

    def __repr__(self) -> str:
        return f"<Responses {len(self._kept)} in memory>"

    def adopt(self, gateway: GatewaySettings, settings: ResponsesSettings) -> None:
        """Go by other settings, from the next request on."""
        self.gateway, self.settings = gateway, settings
        self._attachments.coalesce = gateway.coalesce
        self._store.adopt(settings.store)

    @property
    def dialect(self) -> Dialect:
        """The language of this API, with the seal that its thoughts have here."""
        reads = partial(read_request, seal=self.seal)
        return replace(DIALECTS[NAME], read_request=reads, writer=partial(Writer, seal=self.seal))

    def add_to(self, router: Router) -> None:
        """Add the routes."""
        router.add("POST", PATH, self.create)
        router.add("POST", f"{PATH}/input_tokens", self.count)
        router.add("POST", f"{PATH}/compact", self.compact)
        router.add("GET", f"{PATH}/{{id}}", self.retrieve)
        router.add("DELETE", f"{PATH}/{{id}}", self.delete)
        router.add("POST", f"{PATH}/{{id}}/cancel", self.cancel)
        router.add("GET", f"{PATH}/{{id}}/input_items", self.input_items)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See background answers through and forget old ones, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await trio.sleep(self.settings.linger / 10)
                self._forget()

    def _in_memory(self, name: str, caller: str) -> Stored | None:
        kept = self._of(name, caller)
        return kept.stored() if kept is not None and kept.live.log.finished else None

    # Answering

    async def create(self, exchange: Exchange) -> None:
        """``POST /v1/responses``."""
        request_id = exchange.request.id
        try:
            caller = self.callers.check(exchange.request)
            body = await exchange.body(self.gateway.body_limit)
            async with self._attachments.claim(caller.owner, exchange.request, body) as claim:
                if claim is not None and claim.found is not None:
                    await self._follow(exchange, claim.found)
                    return
                asked = await self.inputs.read(body, exchange.request.headers, caller.owner)
                del body  # up to 32 MiB, not needed while the turn runs
                if not asked.generates:
                    await self._unasked(exchange, asked, caller.owner, request_id)
                elif asked.background:
                    await self._in_background(exchange, asked, caller, request_id, claim)
                else:
                    await self._attended(exchange, asked, caller, request_id, claim)
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            if exchange.started:
                raise
            reply = write_error(error, request_id)
            await exchange.reply(reply.status, reply.headers, reply.body)

    async def _unasked(self, exchange: Exchange, asked: Asked, caller: str, request_id: str) -> None:
        blocks, stored = await self.prepare(asked, caller, request_id)
        if asked.request.stream:
            kind = (b"content-type", DIALECTS[NAME].content_type)
            await exchange.reply(200, (kind, *STREAM_HEADERS, *id_headers(request_id)), b"".join(blocks))
        else:
            await exchange.reply(200, (JSON, *id_headers(request_id)), stored.response)

    async def prepare(self, asked: Asked, caller: str, request_id: str) -> tuple[list[bytes], Stored]:
        """An answer without a model: what was sent stays, and has an id.

        Returns:
            The events of the answer, and what is kept of it.
        """
        heading = Heading(uuid.uuid4().hex, int(time.time()), request_id)
        writer = Writer(asked.request, heading, clock=time.time)
        blocks = [*writer.write(TurnStarted()), *writer.write(TurnEnded(Stop.END, Usage()))]
        name = response_id(heading.turn)
        stored = Stored(name, caller, heading.created, asked.previous, writer.response, asked.items, output=())
        if asked.store:
            await self._save(stored)
        return blocks, stored

    async def _attended(
        self, exchange: Exchange, asked: Asked, caller: Caller, request_id: str, claim: Claim[Kept] | None
    ) -> None:
        lingers = (claim is not None and claim.named) or wants_resumable(exchange.request)
        linger = self.relay.directory.settings.linger if lingers else 0.0
        async with self.relay.turn(
            asked.request, request_id=request_id, scope=caller.owner, key=caller.name, linger=linger
        ) as live:
            live.traceparent = exchange.request.traceparent
            kept = self.keep(asked, live, caller.owner, lingers=lingers or claim is not None)
            if claim is not None:
                claim.settle(kept)
            if lingers:
                self._owner().start_soon(self._see_through, kept)
                await self._give(exchange, kept)
                return
            try:
                await self._give(exchange, kept)
            finally:
                await self.settle(kept)

    async def _in_background(
        self, exchange: Exchange, asked: Asked, caller: Caller, request_id: str, claim: Claim[Kept] | None
    ) -> None:
        live = await self.relay.begin(asked.request, request_id=request_id, scope=caller.owner, key=caller.name)
        live.traceparent = exchange.request.traceparent
        kept = self.keep(asked, live, caller.owner)
        if claim is not None:
            claim.settle(kept)
        self._owner().start_soon(self._see_through, kept)
        await self._give(exchange, kept, follows=True)

    async def _follow(self, exchange: Exchange, kept: Kept) -> None:
        """Answer a request that came before with the turn it has."""
        with kept.live.watching():
            await self._give(exchange, kept, follows=True)

    async def _give(self, exchange: Exchange, kept: Kept, *, follows: bool = False) -> None:
        """Answer with a turn, as it was asked for."""
        if kept.asked.request.stream:
            await self._stream(exchange, kept, follows=follows)
            return
        if not kept.asked.background:
            await kept.live.over.wait()
            _raise_failure(kept)
        timing = () if follows else timing_headers(kept.live, self.gateway)
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id), *timing), kept.response())

    def _owner(self) -> trio.Nursery:
        if self._nursery is None:
            raise NoSuchRoute("Responses that outlive their connection are not served yet.")
        return self._nursery

    async def _see_through(self, kept: Kept) -> None:
        try:
            await kept.live.over.wait()
        finally:
            if not kept.live.over.is_set():
                kept.live.fail(ShuttingDown("The gateway was stopped before the answer was whole. Ask again."))
            await self.settle(kept)

    async def _stream(
        self, exchange: Exchange, kept: Kept, *, at: Cursor = START, follows: bool = False, hold: bool = True
    ) -> None:
        """Stream an answer from a place on. Where nothing was sent, a failure that comes first keeps its status."""
        log = kept.live.log
        posted = exchange.request.method == "POST"
        resumable = posted and wants_resumable(exchange.request)

        def head() -> Headers:
            kind = (b"content-type", DIALECTS[NAME].content_type)
            headers = [kind, *STREAM_HEADERS, *id_headers(exchange.request.id)]
            if posted and not follows:
                headers += timing_headers(kept.live, self.gateway)
            if resumable:
                headers.append((TURN_HEADER, kept.live.heading.turn.encode()))
            return headers

        pump = Pump(exchange, log, kept.identified() if resumable else kept.rendering, at=at, follows=follows)
        if hold and not kept.asked.background:
            await pump.answer(head, self._heartbeats)
            return
        if hold:
            await self._heartbeats.hold(log)  # a failure of one in the background is what it has to tell
        await pump.run(head(), self._heartbeats)

    def keep(self, asked: Asked, live: LiveTurn, caller: str, *, seals: bool = False, lingers: bool = False) -> Kept:
        """Have an answer at hand, if it may be needed again.

        Args:
            asked, live, caller: the answer.
            seals: its thoughts are needed again though it is not stored.
            lingers: its client may come back to it though it is not stored.
        """
        kept = Kept(asked, live, caller, self.seal, seals=seals or asked.store)
        if asked.store or lingers:
            self._kept[kept.id] = kept
        return kept

    async def settle(self, kept: Kept) -> None:
        """The answer is over, or its client is gone: store it, or forget it."""
        kept.over_at = trio.current_time()
        if self._kept.get(kept.id) is not kept:
            return
        log = kept.live.log
        failed_unheard = bool(log.events) and isinstance(log.events[0], TurnFailed) and not kept.asked.background
        if not log.finished or failed_unheard:
            del self._kept[kept.id]
        elif kept.asked.store:
            await self._save(kept.stored())

    async def _save(self, stored: Stored) -> None:
        with trio.move_on_after(SAVE, shield=True):
            try:
                await self._store.save(stored)
            except StoreError as error:
                # The answer was given. What is lost is that a client can come back to it after a restart.
                self._tell(faulted("responses store", error))

    def _forget(self) -> None:
        """Let go of answers that have been over for long, and of the oldest where there are too many."""
        due = trio.current_time() - self.settings.linger
        over = [kept for kept in self._kept.values() if kept.over_at is not None]
        total = sum(kept.size for kept in over)
        for kept in over:
            if (kept.over_at or 0.0) <= due or total > MOST_KEPT:
                total -= kept.size
                del self._kept[kept.id]

    # Coming back

    async def retrieve(self, exchange: Exchange, id: str) -> None:  # noqa: A002  the name of the path's segment
        """``GET /v1/responses/{id}``, whole, or as a stream from an event on."""
        caller = self.callers.check(exchange.request).owner
        query = parse_qs(exchange.request.query)
        kept = self._of(id, caller)
        if query.get("stream", [""])[-1].lower() in ("true", "1"):
            if kept is None:
                stored = await self._found(id, caller)
                raise MalformedRequest(
                    f"The events of {stored.id} are not kept any more; get it without `stream`.",
                    param="$.stream",
                    reason="unsupported_value",
                )
            after = number(query, "starting_after", -1)
            await self._stream(exchange, kept, at=kept.rendering.behind(after + 1), follows=True, hold=False)
            return
        body = kept.response() if kept is not None else (await self._found(id, caller)).response
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), body)

    async def cancel(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``POST /v1/responses/{id}/cancel``. One that is over stays as it is."""
        caller = self.callers.check(exchange.request).owner
        kept = self._of(id, caller)
        if kept is None:
            body = (await self._found(id, caller)).response
        elif not kept.asked.background:
            raise MalformedRequest(
                f"{id} was not asked for with `background`, so it ends with its connection.", param="$.id"
            )
        else:
            kept.live.cancel()
            body = kept.response()
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), body)

    async def delete(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``DELETE /v1/responses/{id}``. One that is still being said ends."""
        caller = self.callers.check(exchange.request).owner
        kept = self._of(id, caller)
        if kept is not None:
            del self._kept[id]
            if kept.asked.background:
                kept.live.cancel()
        if not await self._store.delete(id, caller) and kept is None:
            raise _unknown(id)
        body = encode({"id": id, "object": "response", "deleted": True})
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), body)

    async def input_items(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``GET /v1/responses/{id}/input_items``: the items that its request brought, in pages."""
        caller = self.callers.check(exchange.request).owner
        query = parse_qs(exchange.request.query)
        kept = self._of(id, caller)
        items = kept.asked.items if kept is not None else (await self._found(id, caller)).input
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), encode(page(items, id, query)))

    async def count(self, exchange: Exchange) -> None:
        """``POST /v1/responses/input_tokens``. The model need not be named."""
        caller = self.callers.check(exchange.request).owner
        body = await exchange.body(self.gateway.body_limit)
        fields = decode(body, dict[str, Raw])
        if bytes(fields.get("model", Raw(b"null"))) == b"null":
            body = encode(fields | {"model": "any"})
        asked = await self.inputs.read(body, exchange.request.headers, caller, fetch=False)
        tokens = self.relay.corrected(asked.request.model, estimate(asked.request), caller)
        said = {"object": "response.input_tokens", "input_tokens": tokens}
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), encode(said))

    async def compact(self, exchange: Exchange) -> None:
        """``POST /v1/responses/compact``: a conversation in one item. The answer is not stored: it is all there is."""
        request_id = exchange.request.id
        try:
            caller = self.callers.check(exchange.request)
            body = await exchange.body(self.gateway.body_limit)
            request, items = await self.inputs.read_whole(body, exchange.request.headers, caller.owner)
            del body
            async with self.relay.turn(request, request_id=request_id, scope=caller.owner, key=caller.name) as live:
                live.traceparent = exchange.request.traceparent
                await live.over.wait()
                compacted = write_compacted(items, fold(live.log.events), live.heading, seal=self.seal)
                await exchange.reply(200, (JSON, *id_headers(request_id)), compacted)
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            reply = write_error(error, request_id)
            await exchange.reply(reply.status, reply.headers, reply.body)

    def _of(self, name: str, caller: str) -> Kept | None:
        kept = self._kept.get(name)
        return kept if kept is not None and kept.caller == caller and kept.asked.store else None

    async def _found(self, name: str, caller: str) -> Stored:
        stored = await self._store.get(name, caller)
        if stored is None:
            raise _unknown(name)
        return stored


def _unknown(name: str) -> NoSuchResponse:
    return NoSuchResponse(
        f"Response with id {name!r} not found. Responses are kept where `store` is not false, and not for ever.",
        reason="response_not_found",
    )


def _raise_failure(kept: Kept) -> None:
    last = kept.live.log.events[-1] if kept.live.log.events else None
    if isinstance(last, TurnFailed):
        raise last.error.anew()
