"""Runs the web searches of a turn, and asks again with what they found (`filters.websearch` says how, purely).

A search is one call of the provider's, with the token of the turn's account. It has a deadline of its own, and what
fails in it is told to the model and the client as a search that failed: a turn is not lost for the want of a search.
A rejected token is refreshed once, and an upstream's fault is tried again, as for a turn (`failover`).

The searches of one round run one after the other: their outcomes go out in order, each as it comes, and an account is
not asked for several at once. All of it is in the turn's pump: whoever cancels the turn cancels its searches.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import trio

from kirostream.accounts.board import Need
from kirostream.accounts.health import EXPIRED, SERVED, outcome_of
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.dialects.dialect import Heading
from kirostream.errors import (
    AccountThrottled,
    KirostreamError,
    QuotaSpent,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)
from kirostream.filters import EventFilter
from kirostream.filters.websearch import SearchSettings, WebSearch
from kirostream.providers.provider import Provider
from kirostream.relay.clients import ClientOf
from kirostream.relay.failover import Action, FailoverSettings, Tried, decide
from kirostream.relay.log import TurnLog
from kirostream.telemetry.facts import Searched
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.events import TurnEvent
from kirostream.turn.request import SearchCall, SearchError, SearchHit, TurnRequest

Filters: TypeAlias = Callable[[], Sequence[EventFilter]]
"""Makes the filters of one try."""

Ask: TypeAlias = Callable[[TurnRequest, Filters], Awaitable[None]]
"""Asks one round, and appends its answer to the turn's log."""


class Searcher:
    """Searches the web for one turn, on the account that its conversation is on."""

    def __init__(
        self,
        *,
        pool: Pool,
        keeper: TokenKeeper,
        provider: Provider,
        client_of: ClientOf,
        recorder: Recorder,
        settings: SearchSettings,
        failover: FailoverSettings,
        conversation: str,
    ) -> None:
        self._pool = pool
        self._keeper = keeper
        self._provider = provider
        self._client_of = client_of
        self._conversation = conversation
        self._account = ""  # the label of the one that was asked last
        self._recorder = recorder
        self._settings = settings
        self._failover = failover

    def __repr__(self) -> str:
        return f"<Searcher of {self._conversation}>"

    async def answer(self, asked: TurnRequest, log: TurnLog, ask: Ask, filters: Filters, heading: Heading) -> None:
        """Ask `asked`, which wants a search, round by round, until `log` holds a whole answer.

        Args:
            filters: makes the filters of the whole answer; they see one turn, whatever the number of rounds.
            heading: of the turn.

        Raises:
            KirostreamError: as `ask` raises it. A search that fails raises nothing.
        """
        search = WebSearch(asked, self._settings, heading.turn)
        chain: Sequence[EventFilter] = ()

        def of_a_try() -> Sequence[EventFilter]:
            nonlocal chain
            if not log.events:  # what an earlier try left in them, it did not say
                chain = filters()
            search.begin()
            return (search, *chain)

        async def say(events: Sequence[TurnEvent]) -> None:
            for each in chain:
                events = each.take(events)
            log.append(events)
            await log.room()

        await self._search_all(search, heading, say)
        while not log.finished:
            await ask(search.request, of_a_try)
            if log.finished:
                return
            await self._search_all(search, heading, say)

    async def _search_all(
        self, search: WebSearch, heading: Heading, say: Callable[[Sequence[TurnEvent]], Awaitable[None]]
    ) -> None:
        """Run the searches that are wanted, and go on to the next round or to the end of the turn."""
        if not search.wanted:
            return
        for wanted in search.wanted:
            await say(search.searching(wanted.call))
            hits, error = ((), wanted.error) if wanted.error else await self._search(wanted.call, heading)
            await say(search.found(wanted.call, hits, error))
        await say(search.go_on())

    async def _search(self, call: SearchCall, heading: Heading) -> tuple[Sequence[SearchHit], SearchError]:
        """What one search finds, or why it finds nothing."""
        began = trio.current_time()
        hits: Sequence[SearchHit] = ()
        failure: KirostreamError | None = None
        try:
            with trio.fail_after(self._settings.deadline):
                hits = await self._tried(call)
        except trio.TooSlowError:
            failure = UpstreamTimeout(
                f"The search took longer than {self._settings.deadline:g} s (relay.search.deadline)."
            )
        except KirostreamError as error:
            failure = error
        self._recorder.record(
            Searched(
                turn=heading.turn,
                request=heading.request_id,
                account=self._account,
                results=len(hits),
                seconds=round(trio.current_time() - began, 6),
                error=f"{type(failure).__name__}: {failure.message}" if failure else "",
            )
        )
        return hits, _word(failure)

    async def _tried(self, call: SearchCall) -> Sequence[SearchHit]:
        """One search, tried as often as a turn is.

        Raises:
            KirostreamError: what the last try failed with.
        """
        tried = Tried(attempts=0)
        while True:
            tried = replace(tried, attempts=tried.attempts + 1)
            async with self._pool.lease(Need(conversation=self._conversation)) as lease:
                self._account = lease.account.label
                token = await self._keeper.token(lease.account)
                request_id = f"web_search_{call.id}_{uuid.uuid4().hex[:8]}"
                ask = self._provider.web_search(call.query, request_id, lease.account, token)
                client = self._client_of(lease.account)
                try:
                    status, headers, body = await client.fetch(ask.method, ask.url, ask.headers, ask.body)
                    if status != 200:
                        complaint = self._provider.dialect.read_error(headers, body)
                        raise self._provider.classify(status, headers, complaint)
                    hits = self._provider.read_web_search(body)
                except KirostreamError as error:
                    decision = decide(error, tried, committed=False, settings=self._failover)
                    lease.settle(EXPIRED if decision.action is Action.REFRESH else outcome_of(error))
                    if decision.action is Action.REFRESH:
                        self._keeper.reject(token)
                        tried = replace(tried, refreshed=True)
                    elif decision.action is not Action.RETRY:
                        raise
                else:
                    lease.settle(SERVED)
                    return hits
            await trio.sleep(decision.delay)


def _word(failure: KirostreamError | None) -> SearchError:
    """A failure in the words that clients know."""
    match failure:
        case None:
            return ""
        case AccountThrottled() | QuotaSpent() | UpstreamOverloaded():
            return "too_many_requests"
        case UpstreamRefused():
            return "invalid_tool_input"
        case _:
            return "unavailable"
