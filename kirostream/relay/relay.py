"""The relay: takes a question, keeps trying until there is an answer, and owns every turn in flight.

A turn belongs to the relay, not to the connection that asked: its pump runs in the relay's nursery and writes into the
turn's log. `Relay.turn` is a context: who leaves it last before the turn is over (the client went away) cancels the
pump and with it the upstream call, and waits until both are gone; a turn that lingers goes on for a while, so that its
client can come back. A turn that was only begun (`Relay.begin`) goes on with nobody.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from functools import partial
from typing import Final, Protocol

import trio

from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.dataclass import dataclass, replace
from kirostream.dialects.dialect import Heading
from kirostream.errors import (
    KirostreamError,
    LocalProtocolError,
    TurnCancelled,
    UnknownModel,
    UpstreamFault,
)
from kirostream.filters import EventFilter, FilterSettings
from kirostream.filters.continuation import Continuation, may_go_on
from kirostream.filters.structured import Structured
from kirostream.filters.truncation import TruncationWatch
from kirostream.filters.websearch import SearchSettings
from kirostream.providers.provider import Provider
from kirostream.relay.archive import Archive
from kirostream.relay.attempt import Deadlines
from kirostream.relay.catalogue import Catalogues, Models
from kirostream.relay.clients import ClientOf
from kirostream.relay.directory import Directory, TurnsSettings
from kirostream.relay.failover import FailoverSettings
from kirostream.relay.fleet import Fleet
from kirostream.relay.guests import Guests
from kirostream.relay.live import LiveTurn, Settle
from kirostream.relay.log import TurnLog
from kirostream.relay.resolver import ModelSettings, Names, fallbacks_of, no_such_model, resolve
from kirostream.relay.search import Filters, Searcher
from kirostream.relay.service import Service
from kirostream.telemetry.captures import Capture, Captures, CaptureSettings
from kirostream.telemetry.facts import TurnFinished
from kirostream.telemetry.faults import faulted
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.calibration import Calibration
from kirostream.turn.events import TurnEnded, TurnEvent, TurnFailed
from kirostream.turn.model import Model
from kirostream.turn.request import Message, Role, Text, TurnRequest
from kirostream.turn.result import TurnResult, fold, unfold
from kirostream.turn.tokens import estimate
from kirostream.turn.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """How the relay works."""

    deadlines: Deadlines = field(default_factory=Deadlines, metadata={"live": True})
    failover: FailoverSettings = field(default_factory=FailoverSettings, metadata={"live": True})
    models: ModelSettings = field(default_factory=ModelSettings, metadata={"live": True})
    filters: FilterSettings = field(default_factory=FilterSettings, metadata={"live": True})
    search: SearchSettings = field(default_factory=SearchSettings, metadata={"live": True})
    turns: TurnsSettings = field(default_factory=TurnsSettings, metadata={"live": True})
    captures: CaptureSettings = field(default_factory=CaptureSettings, metadata={"live": True})


@dataclass(frozen=True, slots=True)
class RelaySnapshot:
    """Counts of turns."""

    in_flight: int
    started: int
    answered: int
    failed: int
    left: int


class Gate(Protocol):
    """Judges whether a key may have one turn more."""

    async def admit(self, key: str, request: TurnRequest) -> Settle | None:
        """Let a turn begin. What comes back is called once, when it is over, however it ends.

        Raises:
            CallerThrottled: not now.
            KeyRejected: the key is no good any more.
        """


class Relay:
    """Owns the turns."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        pool: Pool,
        keeper: TokenKeeper,
        provider: Provider,
        client_of: ClientOf,
        catalogues: Catalogues,
        recorder: Recorder,
        settings: RelaySettings,
        clock: Callable[[], float],
        calibration: Calibration | None = None,
        captures: Captures | None = None,
        archive: Archive | None = None,
        guests: Guests | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._nursery = nursery
        self._gate = gate
        self._recorder = recorder
        self._settings = settings
        self._clock = clock
        self._truncations = TruncationWatch() if settings.filters.truncation_recovery else None
        self._names = Names(settings.models)
        self._captures = captures
        self.own: Final = self.service(
            provider,
            Fleet(pool, keeper, catalogues),
            client_of,
            guests=guests,
            calibration=calibration,
            captures=captures,
        )
        """The service that the gateway is for."""
        self.asked = self.own
        """Where turns are asked that begin from now on. What has begun elsewhere, ends there."""
        self.directory = Directory(settings.turns, archive)
        self._started = self._answered = self._failed = self._left = 0

    def __repr__(self) -> str:
        return f"<Relay {self.snapshot()}>"

    def adopt(self, settings: RelaySettings) -> None:
        """Go by other settings from now on; what a turn has begun with, it ends with."""
        self._settings = settings
        self._names = Names(settings.models)
        if settings.filters.truncation_recovery:
            self._truncations = self._truncations or TruncationWatch()
        else:
            self._truncations = None
        if self._captures is not None:
            self._captures.adopt(settings.captures)
        for service in {self.own, self.asked}:
            service.asker.adopt(settings.deadlines, settings.failover, settings.filters)
        self.directory.adopt(settings.turns)

    def service(
        self,
        provider: Provider,
        house: Fleet,
        client_of: ClientOf,
        *,
        guests: Guests | None = None,
        calibration: Calibration | None = None,
        captures: Captures | None = None,
        free: bool = False,
    ) -> Service:
        """A place where turns can be `asked`, under the settings of this relay; see `Service`."""
        settings = self._settings
        return Service(
            provider=provider,
            house=house,
            client_of=client_of,
            recorder=self._recorder,
            deadlines=settings.deadlines,
            failover=settings.failover,
            filters=settings.filters,
            guests=guests,
            calibration=calibration,
            captures=captures,
            free=free,
        )

    def snapshot(self) -> RelaySnapshot:
        """How many turns there were."""
        return RelaySnapshot(len(self.directory), self._started, self._answered, self._failed, self._left)

    def fail_all(self, error: KirostreamError) -> None:
        """End every turn in flight with `error`: the last act before the process stops."""
        for live in self.directory:
            live.fail(error)

    def fleet(self, scope: str) -> Fleet:
        """What the turns of a scope are asked on.

        Raises:
            NoAccount: it is a guest that was let go meanwhile.
        """
        return self.asked.fleet(scope)

    async def models(self, scope: str = "") -> Models:
        """The models that can be asked for. Never fails for want of the upstream.

        Raises:
            NoAccount: as for `fleet`.
        """
        service = self.asked
        service.enter()
        try:
            return await service.fleet(scope).catalogues.models()
        finally:
            service.leave()

    async def offered(self, scope: str = "") -> Sequence[Model]:
        """The models that can be asked for, and the operator's other names for them.

        Raises:
            NoAccount: as for `fleet`.
        """
        known = (await self.models(scope)).models
        names = [name for name in self._settings.models.aliases if name.lower() not in {m.id.lower() for m in known}]
        meant = [(name, resolve(name, known, self._settings.models)) for name in names]
        return [*known, *(replace(found.model, id=name) for name, found in meant if found.listed)]

    async def find(self, name: str, scope: str = "") -> Model:
        """The model that a client means by `name`.

        Raises:
            UnknownModel: the list has none. It can be asked for all the same: the upstream judges.
            NoAccount: as for `fleet`.
        """
        known = (await self.models(scope)).models
        found = resolve(name, known, self._settings.models)
        if not found.listed:
            raise UnknownModel(no_such_model(name, known))
        return found.model

    def corrected(self, model: str, tokens: int, scope: str = "") -> int:
        """An estimate of a prompt, corrected by what was seen of this model; `model` is as a client wrote it.

        Raises:
            NoAccount: as for `fleet`.
        """
        if not model.strip():
            return tokens
        named = resolve(model, self.fleet(scope).catalogues.known.models, self._settings.models)
        return round(tokens * self.asked.calibration.correction(named.model.id))

    def turn(
        self, request: TurnRequest, *, request_id: str = "", scope: str = "", key: str = "", linger: float = 0.0
    ) -> AbstractAsyncContextManager[LiveTurn]:
        """Ask `request`, and stay with the turn.

        Args:
            request: the question.
            request_id: of the HTTP request, for error bodies.
            scope: who asks; conversations of two callers never share an id.
            key: the name of the key it is asked with.
            linger: seconds that the turn goes on after its last watcher has left.

        Entering raises:
            UnknownModel: the request names no model. One that the upstream does not have fails the turn.
            NoAccount: as for `fleet`.
            CallerThrottled, KeyRejected: as for `Gate`.
        """
        return _Attended(
            partial(self.begin, request, request_id=request_id, scope=scope, key=key, attended=True, linger=linger)
        )

    async def begin(
        self,
        request: TurnRequest,
        *,
        request_id: str = "",
        scope: str = "",
        key: str = "",
        attended: bool = False,
        linger: float = math.inf,
    ) -> LiveTurn:
        """Ask `request`. The turn goes on, whoever stays, until it is over, has lingered, or its `scope` is cancelled.

        Args:
            request, request_id, scope, key: as for `turn`.
            attended: somebody reads a streamed answer as it comes, and may hold it back.
            linger: seconds that it goes on with no watcher.

        Raises:
            UnknownModel, NoAccount, CallerThrottled, KeyRejected: as for `turn`.
        """
        service = self.asked
        fleet = service.fleet(scope)
        service.enter()
        settle: Settle | None = None
        try:
            settle = await self._gate.admit(key, request) if self._gate is not None else None
            live = await self._begin(request, service, fleet, request_id, scope, key, attended=attended, linger=linger)
            live.settle = settle
        except BaseException:
            service.leave()
            if settle is not None:
                settle(0, 0.0)
            raise
        return live

    async def _begin(
        self,
        request: TurnRequest,
        service: Service,
        fleet: Fleet,
        request_id: str,
        scope: str,
        key: str,
        *,
        attended: bool,
        linger: float,
    ) -> LiveTurn:
        known = await fleet.catalogues.models()
        named = self._names.resolve(request.model, known.models)
        if named.wishes and ("thinking" in named.wishes or named.effort):
            thinking = request.thinking
            enabled = thinking.enabled or "thinking" in named.wishes
            thinking = replace(thinking, enabled=enabled, effort=thinking.effort or named.effort)
            request = replace(request, thinking=thinking)
        model = service.corrected(named.model)
        ids = conversation_ids(request, scope)
        heading = Heading(new_turn_id(), int(self._clock()), request_id)
        live = LiveTurn(
            request,
            heading,
            model,
            attended=attended,
            caller=scope,
            key=key,
            linger=linger,
            cap=self._settings.turns.cap,
        )
        spares = fallbacks_of(model, known.models, self._settings.models)
        live.spares = [service.corrected(each) for each in spares]
        if fleet is not service.house:
            live.fleet = fleet
        live.agentic = "agentic" in named.wishes
        if self._captures is not None and self._captures.on:
            live.capture = self._captures.join(request_id or f"turn_{heading.turn}")
        service.refusals.recall(live.inquiry, ids[0], trio.current_time())
        self.directory.add(live)
        self._started += 1
        self._nursery.start_soon(self._pump, live, service, ids)
        if 0 < linger < math.inf:
            self._nursery.start_soon(self._linger, live)
        return live

    async def _pump(self, live: LiveTurn, service: Service, ids: tuple[str, str]) -> None:
        """The life of a turn: tries, until the log is finished or the scope is cancelled."""
        began = live.began = trio.current_time()
        try:
            with live.scope:
                try:
                    await self._answer(live, service, ids, began)
                except KirostreamError as error:
                    live.log.append([TurnFailed(error.without_trace())])
                except Exception as error:  # noqa: BLE001  a bug of ours ends this turn, and no other
                    of = live.heading
                    self._recorder.record(faulted("relay", error, turn=of.turn, request=of.request_id))
                    live.log.append([TurnFailed(LocalProtocolError("The gateway failed while it read the answer."))])
        finally:
            service.leave()
            if live.settle is not None:
                live.settle(*_took(live, free=service.free))
            ended = live.ended = trio.current_time()
            if self._truncations is not None:
                self._truncations.learn(ids[0], live.request, live.log.events, ended)
            self._settle(live, service, ended - began)
            live.over.set()
            self.directory.close(live)
            live.left.unpark_all()

    async def _linger(self, live: LiveTurn) -> None:
        """Ends a turn that nobody has watched for its `linger`."""
        while not live.over.is_set():
            if live.watchers:
                await live.left.park()
                continue
            with trio.move_on_after(live.linger) as patience:
                await live.left.park()
            if patience.cancelled_caught:
                live.scope.cancel()
                return

    async def _answer(self, live: LiveTurn, service: Service, ids: tuple[str, str], began: float) -> None:
        asked = live.request
        if self._truncations is not None:
            asked = self._truncations.remind(ids[0], asked, began)
        if asked.search is not None and (not self._settings.search.enabled or asked.tool_choice.mode == "none"):
            asked = replace(asked, search=None)

        def on_first_event() -> None:
            if live.first_event is None:
                live.first_event = trio.current_time() - began

        if may_go_on(asked, self._settings.filters.auto_continue):
            await self._ask_in_parts(live, service, asked, ids, on_first_event)
            return
        if asked.output is None:
            await self._ask(live, service, asked, live.log, ids, on_first_event)
            return
        # Judged whole, so nothing of it is said before it is known to be right.
        structured = Structured(asked, asked.output)
        request, spent, problem = structured.request, Usage(), ""
        for _ in range(2):
            log = TurnLog(sys.maxsize)
            log.spent = live.log.spent
            await self._ask(live, service, request, log, ids, on_first_event)
            result = fold(log.events)
            verdict = structured.judge(replace(result, usage=result.usage.beside(spent)))
            if isinstance(verdict, TurnResult):
                live.log.append(list(unfold(verdict)))
                return
            problem, request, spent = verdict.problem, verdict.again, result.usage
        raise UpstreamFault(
            f"The model did not answer in the form that was asked for, not even when it was told: {problem}.",
            reason="output_format",
        )

    async def _ask_in_parts(
        self,
        live: LiveTurn,
        service: Service,
        asked: TurnRequest,
        ids: tuple[str, str],
        on_first_event: Callable[[], None],
    ) -> None:
        """Ask `asked`, and for the rest of its answer where the service cuts it off in its text."""
        parts = Continuation(asked, self._settings.filters.auto_continue)
        request: TurnRequest | None = asked
        chain: Sequence[EventFilter] = ()

        def filters() -> Sequence[EventFilter]:
            nonlocal chain
            if not live.log.events:  # what comes behind the parts sees one answer, and is made for it once
                chain = service.asker.filters(live, asked)
            return (parts, *chain)

        while request is not None and not live.log.finished:
            first = request is asked
            try:
                await self._ask(live, service, request, live.log, ids, on_first_event, filters, parts)
            except KirostreamError:
                if first or parts.begun:
                    raise
                break  # there is no rest to be had; what was said is an answer that was cut off, as it was before
            request = parts.go_on()
        end: list[TurnEvent] = parts.finish()
        for each in chain:
            end = each.take(end)
        live.log.append(end)

    async def _ask_with_searches(
        self,
        live: LiveTurn,
        service: Service,
        asked: TurnRequest,
        log: TurnLog,
        ids: tuple[str, str],
        on_first_event: Callable[[], None],
    ) -> None:
        """Ask `asked`, and again with what the model searched for, until `log` holds a whole answer."""
        settings = self._settings

        async def ask(request: TurnRequest, filters: Filters) -> None:
            await self._ask(live, service, request, log, ids, on_first_event, filters)

        fleet = live.fleet or service.house
        searcher = Searcher(
            pool=fleet.pool,
            keeper=fleet.keeper,
            provider=service.provider,
            client_of=service.client_of,
            recorder=self._recorder,
            settings=settings.search,
            failover=settings.failover,
            conversation=ids[0],
        )
        await searcher.answer(asked, log, ask, lambda: service.asker.filters(live, asked), live.heading)

    async def _ask(
        self,
        live: LiveTurn,
        service: Service,
        asked: TurnRequest,
        log: TurnLog,
        ids: tuple[str, str],
        on_first_event: Callable[[], None],
        filters: Callable[[], Sequence[EventFilter]] | None = None,
        parts: Continuation | None = None,
    ) -> None:
        """Ask, with the searches that the model wants, until `log` holds a whole answer; see `Asker.ask`."""
        if asked.search is not None:
            await self._ask_with_searches(live, service, asked, log, ids, on_first_event)
            return
        before = len(log.events)
        await service.asker.ask(live, asked, log, ids, on_first_event, filters, parts)
        if not before:  # else its first event is of another prompt than its last
            service.calibration.watch(live.model, log.events)

    def _settle(self, live: LiveTurn, service: Service, seconds: float) -> None:
        usage, error, status = Usage(), "", 200
        match live.log.events[-1] if live.log.events else None:
            case TurnEnded(stop=stop, usage=usage):
                outcome = stop.value
                self._answered += 1
            case TurnFailed(error=failure):
                outcome, error, status = "failed", type(failure).__name__, failure.status
                self._failed += 1
            case _:
                outcome, status = "left", TurnCancelled.status
                self._left += 1
        if live.capture is not None:
            self._capture(live, live.capture, outcome, seconds)
        self._recorder.record(
            TurnFinished(
                turn=live.heading.turn,
                key=live.key,
                dialect=live.request.spoken_in,
                model_asked=live.request.model,
                model_used=live.model.id,
                account=live.account,
                outcome=outcome,
                attempts=live.attempts,
                seconds=round(seconds, 6),
                first_event=live.first_event,
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                credits=None if service.free else usage.credits,
                error=error,
                request=live.heading.request_id,
                account_id=live.account_id,
                provider=service.provider.name,
                status=status,
                own_first=live.log.spent.first,
                own_token=live.log.spent.token,
                traceparent=live.traceparent,
                tries=(*live.tries,),
            )
        )

    def _capture(self, live: LiveTurn, capture: Capture, outcome: str, seconds: float) -> None:
        """Tell the capture of a turn how it ended, and let go of it."""
        last = live.log.events[-1] if live.log.events else None
        if isinstance(last, TurnFailed):
            capture.fail(last.error)
        capture.turn_over(
            {
                "turn": live.heading.turn,
                "dialect": live.request.spoken_in,
                "model_asked": live.request.model,
                "model_used": live.model.id,
                "account": live.account,
                "outcome": outcome,
                "attempts": live.attempts,
                "first_event": live.first_event,
                "seconds": round(seconds, 6),
            }
        )
        capture.release()


def _took(live: LiveTurn, *, free: bool) -> tuple[int, float]:
    """Tokens and credits of a turn that is over: as the upstream counted, or, where its client left, as estimated."""
    last = live.log.events[-1] if live.log.events else None
    if isinstance(last, TurnEnded):
        return last.usage.total_tokens, 0.0 if free else last.usage.credits or 0.0
    return (estimate(live.request) + live.tokens if live.first_event is not None else 0), 0.0


class _Attended(AbstractAsyncContextManager[LiveTurn]):
    """The block of `Relay.turn`. A class, for a generator costs more."""

    __slots__ = ("_begin", "_live")

    def __init__(self, begin: Callable[[], Awaitable[LiveTurn]]) -> None:
        self._begin = begin
        self._live: LiveTurn | None = None

    async def __aenter__(self) -> LiveTurn:
        live = self._live = await self._begin()
        live.enter()
        return live

    async def __aexit__(self, *_: object) -> None:
        live = self._live
        assert live is not None
        live.leave()
        live.log.release()
        if live.scope.cancel_called and not live.over.is_set():
            with trio.CancelScope(shield=True):  # ends as soon as the pump has closed its connection
                await live.over.wait()


_NAMESPACE: Final = uuid.UUID("8f1a1f2e-53f0-5c0e-9f0b-6b69726f7374").bytes


def new_turn_id() -> str:
    """A name for a turn, which nobody can guess."""
    return os.urandom(16).hex()


def conversation_ids(request: TurnRequest, scope: str) -> tuple[str, str]:
    """Stable UUIDs of the conversation and of the user's last utterance (kiro-protocol.md section 2.3).

    The conversation is named by the client's session, else by its first user message; the continuation by the
    conversation and the last message a person wrote, so that the tool rounds of one task share it.
    """
    messages = request.messages
    last = _first_said(reversed(messages))
    first = request.session.encode() or (last if len(messages) == 1 else _first_said(messages))
    conversation = _named(_NAMESPACE, b"%b\n%b" % (scope.encode(), first))
    return _shown(conversation), _shown(_named(conversation, last))


def _first_said(messages: Iterable[Message]) -> bytes:
    """The first text of a person, in UTF-8, empty where there is none."""
    for message in messages:
        if message.role is Role.USER:
            texts = [block.encoded for block in message.content if isinstance(block, Text)]
            said = texts[0] if len(texts) == 1 else b"".join(texts)
            if said:
                return said
    return b""


def _named(namespace: bytes, name: bytes) -> bytes:
    """The UUID that a name has in a namespace (RFC 9562 section 5.5): `uuid.uuid5`, without its objects."""
    raw = bytearray(hashlib.sha1(namespace + name, usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _shown(raw: bytes) -> str:
    """A UUID as text."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
