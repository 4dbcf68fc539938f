"""The Responses API with its memory (client-apis.md section 3.6).

A request may lean on earlier answers: ``previous_response_id`` stands for a whole conversation, ``item_reference`` for
one item. Both are put in place before the dialect reads the request, so what comes behind never sees them.

An answer that was asked to be stored is `Kept` from its first moment: in memory while it is said and for a while
afterwards, with every event, so that a stream can be resumed; in the store from its end on. A client that has its last
event may refer to it at once, since memory is asked first.

A background turn belongs to the relay and is seen through by `Responses.run`; whoever streams it only follows.
"""

from __future__ import annotations

import re
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import parse_qs

import msgspec
import trio
from msgspec import Raw

from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Headers
from kirostream.dialects.jsontext import decode, encode, part, raw
from kirostream.dialects.openai_responses.request import read_request
from kirostream.dialects.openai_responses.response import Writer, response_id, write_error, write_status
from kirostream.dialects.openai_responses.thoughts import Seal
from kirostream.errors import KirostreamError, MalformedRequest, NoSuchRoute, RequestError, ShuttingDown, StoreError
from kirostream.gateway.callers import Callers
from kirostream.gateway.media import Media
from kirostream.gateway.responses_store import ResponseStore, Stored, StoreSettings
from kirostream.gateway.sse import Heartbeats, Pump
from kirostream.gateway.turns import JSON, STREAM_HEADERS, GatewaySettings, id_headers, new_request_id
from kirostream.net.exchange import Exchange, PeerGone, PeerStalled
from kirostream.net.router import Router
from kirostream.relay.log import START, Cursor, Rendering
from kirostream.relay.relay import LiveTurn, Relay
from kirostream.telemetry.facts import Fact, Faulted
from kirostream.turn.events import TurnFailed
from kirostream.turn.request import RawJson, TurnRequest
from kirostream.turn.tokens import estimate

PATH: Final = "/v1/responses"
SAVE: Final = 5.0
"""Seconds that saving may take after the answer was sent, whatever became of the client."""
MOST_KEPT: Final = 64 << 20
"""Bytes of finished answers that stay in memory for clients that resume a stream."""
PAGE: Final = 20

_ITEM_ID: Final = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4}")
_UNSET: Final = Raw()


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


class ResponseCancelled(KirostreamError):
    """Its client cancelled a background response."""

    level = "info"


class WireState(msgspec.Struct):
    """The fields of a body that are about memory."""

    input: str | list[Raw] | None = None
    previous_response_id: str | None = None
    conversation: Raw = _UNSET
    store: bool | None = None
    background: bool | None = None


class WireReference(msgspec.Struct):
    """``item_reference``."""

    type: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with what it leans on put in place. `items` are those that it brought itself."""

    request: TurnRequest
    items: tuple[RawJson, ...]
    previous: str
    store: bool
    background: bool


class Kept:
    """One answer, from its question until it is forgotten."""

    def __init__(self, asked: Asked, live: LiveTurn, caller: str, seal: Seal, *, seals: bool) -> None:
        self.id = response_id(live.heading.turn)
        self.asked = asked
        self.live = live
        self.caller = caller
        self.writer = Writer(asked.request, live.heading, seal=seal, keeps=seals)
        self.rendering = Rendering(live.log, self.writer)
        self.cancelled = False
        self.over_at: float | None = None
        """When it was over, by trio's clock."""

    def __repr__(self) -> str:
        return f"<Kept {self.id} {self.live.log!r}>"

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
        self.rendering.blocks()
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
        self._media = media
        self._store = store
        self._tell = tell
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self.stopping = trio.Event()
        """Set when the gateway takes no more requests; connections without an answer under way end then."""

    def __repr__(self) -> str:
        return f"<Responses {len(self._kept)} in memory>"

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

    # Asking

    async def ask(self, body: bytes, headers: Headers, caller: str, local: Mapping[str, Stored] | None = None) -> Asked:
        """Read a request and put what it leans on in place.

        Args:
            body, headers: of the request.
            caller: whose answers it may lean on.
            local: further answers it may lean on, by id: those of one connection.

        Raises:
            MalformedRequest: it cannot be understood, or leans on what is not there.
        """
        state = decode(body, WireState)
        _check(state)
        items = _own_items(state.input)
        items = await self._with_references(items, caller, local or {})
        before: list[RawJson] = []
        if state.previous_response_id:
            before = await self._history(state.previous_response_id, caller, local or {})
        if before or any(b'"item_reference"' in item for item in _own_items(state.input)):
            fields = decode(body, dict[str, Raw])
            fields["input"] = Raw(b"[" + b",".join([*before, *items]) + b"]")
            body = encode(fields)
        request = await self._media.settle(read_request(body, headers, seal=self.seal))
        store = state.store is not False
        return Asked(request, items, state.previous_response_id or "", store, bool(state.background))

    async def _with_references(
        self, items: tuple[RawJson, ...], caller: str, local: Mapping[str, Stored]
    ) -> tuple[RawJson, ...]:
        wanted: dict[int, str] = {}
        for i, item in enumerate(items):
            if b'"item_reference"' in item:
                reference = part(Raw(item), WireReference, f"$.input[{i}]")
                if reference.type == "item_reference":
                    wanted[i] = reference.id or ""
        if not wanted:
            return items
        answers = {name: (found := _ITEM_ID.fullmatch(name)) and response_id(found[1]) for name in wanted.values()}
        known: dict[str, Sequence[RawJson]] = {}
        for answer in dict.fromkeys(filter(None, answers.values())):
            stored = local.get(answer) or self._in_memory(answer, caller)
            if stored is not None:
                known[answer] = stored.output
        missing = [answer for answer in dict.fromkeys(filter(None, answers.values())) if answer not in known]
        if missing:
            known |= await self._store.outputs(missing, caller)
        found_items = {_id_of(item): item for output in known.values() for item in output}
        resolved = list(items)
        for i, name in wanted.items():
            if name not in found_items:
                raise MalformedRequest(
                    f"Item with id {name!r} not found. Items are kept where `store` is not false, and not for ever; "
                    "send the item itself.",
                    param=f"$.input[{i}].id",
                    reason="item_not_found",
                )
            resolved[i] = found_items[name]
        return tuple(resolved)

    async def _history(self, name: str, caller: str, local: Mapping[str, Stored]) -> list[RawJson]:
        """The items of a response and of all before it."""
        found: list[Stored] = []
        at = name
        while at:
            stored = local.get(at) or self._in_memory(at, caller)
            if stored is None:
                chain = await self._store.chain(at, caller)
                if chain is None:
                    raise MalformedRequest(
                        f"Previous response with id {name!r} not found. Send the whole conversation instead.",
                        param="$.previous_response_id",
                        reason="previous_response_not_found",
                    )
                found += chain[::-1]
                break
            found.append(stored)
            at = stored.previous
        return [item for stored in reversed(found) for item in (*stored.input, *stored.output)]

    def _in_memory(self, name: str, caller: str) -> Stored | None:
        kept = self._kept.get(name)
        if kept is None or kept.caller != caller or not kept.live.log.finished:
            return None
        return kept.stored()

    # Answering

    async def create(self, exchange: Exchange) -> None:
        """``POST /v1/responses``."""
        request_id = new_request_id()
        try:
            caller = self.callers.check(exchange.request)
            body = await exchange.body(self.gateway.body_limit)
            asked = await self.ask(body, exchange.request.headers, caller)
            del body  # up to 32 MiB, not needed while the turn runs
            if asked.background:
                await self._in_background(exchange, asked, caller, request_id)
            else:
                await self._attended(exchange, asked, caller, request_id)
        except (PeerGone, PeerStalled):
            raise
        except KirostreamError as error:
            if exchange.started:
                raise
            reply = write_error(error, request_id)
            await exchange.reply(reply.status, reply.headers, reply.body)

    async def _attended(self, exchange: Exchange, asked: Asked, caller: str, request_id: str) -> None:
        async with self.relay.turn(asked.request, request_id=request_id, scope=caller) as live:
            kept = self.keep(asked, live, caller)
            try:
                if asked.request.stream:
                    await self._stream(exchange, kept)
                else:
                    await live.over.wait()
                    _raise_failure(kept)
                    await exchange.reply(200, (JSON, *id_headers(request_id)), kept.response())
            finally:
                await self.settle(kept)

    async def _in_background(self, exchange: Exchange, asked: Asked, caller: str, request_id: str) -> None:
        if self._nursery is None:
            raise NoSuchRoute("Background responses are not served yet.")
        live = await self.relay.begin(asked.request, request_id=request_id, scope=caller)
        kept = self.keep(asked, live, caller)
        self._nursery.start_soon(self._see_through, kept)
        if asked.request.stream:
            await self._stream(exchange, kept, follows=True)
        else:
            queued = write_status(asked.request, live.heading, "queued")
            await exchange.reply(200, (JSON, *id_headers(request_id)), queued)

    async def _see_through(self, kept: Kept) -> None:
        try:
            await kept.live.over.wait()
        finally:
            if not kept.live.log.finished:
                kept.live.fail(ShuttingDown("The gateway was stopped before the answer was whole. Ask again."))
            await self.settle(kept)

    async def _stream(
        self, exchange: Exchange, kept: Kept, *, at: Cursor = START, follows: bool = False, hold: bool = True
    ) -> None:
        """Stream an answer from a place on. Where nothing was sent, a failure that comes first keeps its status."""
        log = kept.live.log
        if hold:
            with trio.move_on_after(self.gateway.stream.hold_head):
                await log.beyond(0)
            if log.events and isinstance(log.events[0], TurnFailed) and not follows:
                raise log.events[0].error
        kind = (b"content-type", DIALECTS["openai_responses"].content_type)
        headers = (kind, *STREAM_HEADERS, *id_headers(kept.live.heading.request_id))
        await Pump(exchange, log, kept.rendering, at=at, follows=follows).run(headers, self._heartbeats)

    def keep(self, asked: Asked, live: LiveTurn, caller: str, *, seals: bool = False) -> Kept:
        """Have an answer at hand, if it is to be stored. `seals`: its thoughts are needed again though it is not."""
        kept = Kept(asked, live, caller, self.seal, seals=seals or asked.store)
        if asked.store:
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
            return
        with trio.move_on_after(SAVE, shield=True):
            try:
                await self._store.save(kept.stored())
            except StoreError as error:
                # The answer was given. What is lost is that a client can come back to it after a restart.
                trace = "".join(traceback.format_exception(error))
                self._tell(Faulted(where="responses store", error=repr(error), trace=trace))

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
        caller = self.callers.check(exchange.request)
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
            after = _number(query, "starting_after", -1)
            await self._stream(exchange, kept, at=kept.rendering.behind(after + 1), follows=True, hold=False)
            return
        body = kept.response() if kept is not None else (await self._found(id, caller)).response
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), body)

    async def cancel(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``POST /v1/responses/{id}/cancel``. One that is over stays as it is."""
        caller = self.callers.check(exchange.request)
        kept = self._of(id, caller)
        if kept is None:
            body = (await self._found(id, caller)).response
        elif not kept.asked.background:
            raise MalformedRequest(
                f"{id} was not asked for with `background`, so it ends with its connection.", param="$.id"
            )
        else:
            if not kept.live.log.finished:
                kept.cancelled = True
                kept.live.fail(ResponseCancelled("The response was cancelled by its client."))
            body = kept.response()
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), body)

    async def delete(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``DELETE /v1/responses/{id}``. One that is still being said ends."""
        caller = self.callers.check(exchange.request)
        kept = self._of(id, caller)
        if kept is not None:
            del self._kept[id]
            if kept.asked.background and not kept.live.log.finished:
                kept.live.fail(ResponseCancelled("The response was deleted by its client."))
        if not await self._store.delete(id, caller) and kept is None:
            raise _unknown(id)
        body = encode({"id": id, "object": "response", "deleted": True})
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), body)

    async def input_items(self, exchange: Exchange, id: str) -> None:  # noqa: A002
        """``GET /v1/responses/{id}/input_items``: the items that its request brought, in pages."""
        caller = self.callers.check(exchange.request)
        query = parse_qs(exchange.request.query)
        kept = self._of(id, caller)
        items = kept.asked.items if kept is not None else (await self._found(id, caller)).input
        listed = [_listed(item, id, i) for i, item in enumerate(items)]
        if query.get("order", ["desc"])[-1] != "asc":
            listed.reverse()
        names = [str(item["id"]) for item in listed]
        if after := query.get("after", [""])[-1]:
            listed = listed[names.index(after) + 1 :] if after in names else []
        limit = min(max(_number(query, "limit", PAGE), 1), 100)
        page = listed[:limit]
        body = {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(listed) > limit,
        }
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), encode(body))

    async def count(self, exchange: Exchange) -> None:
        """``POST /v1/responses/input_tokens``."""
        caller = self.callers.check(exchange.request)
        body = await exchange.body(self.gateway.body_limit)
        asked = await self.ask(body, exchange.request.headers, caller)
        tokens = self.relay.corrected(asked.request.model, estimate(asked.request))
        said = {"object": "response.input_tokens", "input_tokens": tokens}
        await exchange.reply(200, (JSON, *id_headers(new_request_id())), encode(said))

    async def compact(self, exchange: Exchange) -> None:
        """``POST /v1/responses/compact``: not served."""
        raise NoSuchRoute("Conversations are not compacted here. Ask for a summary with an ordinary request.")

    def _of(self, name: str, caller: str) -> Kept | None:
        kept = self._kept.get(name)
        return kept if kept is not None and kept.caller == caller else None

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
        raise last.error


def _check(state: WireState) -> None:
    if state.conversation and bytes(state.conversation) != b"null":
        raise MalformedRequest(
            "Conversations are not kept here: use previous_response_id, or send the items.",
            param="$.conversation",
            reason="unsupported_value",
        )
    if state.background and state.store is False:
        raise MalformedRequest(
            "A background response has to be stored: leave store out, or set it to true.",
            param="$.background",
            reason="invalid_value",
        )


def _own_items(said: str | Sequence[Raw] | None) -> tuple[RawJson, ...]:
    """The items of an input; a text is a message."""
    if isinstance(said, str):
        content = [{"type": "input_text", "text": said}]
        return (encode({"type": "message", "role": "user", "content": content}),) if said else ()
    return tuple(raw(item, f"$.input[{i}]") for i, item in enumerate(said or ()))


def _id_of(item: RawJson) -> str:
    return msgspec.json.decode(item, type=WireReference).id or ""


_PREFIXES: Final = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def _listed(item: RawJson, response: str, index: int) -> dict[str, object]:
    """An item as a list shows it: with a type and an id."""
    members = msgspec.json.decode(item, type=dict[str, object])
    kind = str(members.get("type") or "message")
    turn = response.removeprefix("resp_")
    given = members.get("id") or f"{_PREFIXES.get(kind, 'item')}_{turn}i{index:04x}"
    content = members.get("content")
    if kind == "message" and isinstance(content, str):
        part_kind = "output_text" if members.get("role") == "assistant" else "input_text"
        members["content"] = [{"type": part_kind, "text": content}]
    return {**members, "type": kind, "id": given}


def _number(query: Mapping[str, list[str]], name: str, usual: int) -> int:
    said = query.get(name, [""])[-1]
    if not said:
        return usual
    try:
        return int(said)
    except ValueError:
        raise MalformedRequest(f"{name} has to be a whole number.", param=f"$.{name}", reason="invalid_value") from None
