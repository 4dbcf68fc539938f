"""Asks until there is an answer: one try after another, each on an account that is leased for it.

A lease lasts one try. What came of it is settled before the next one begins, so that the pool always knows what the
upstream has told us, and another turn does not run into the same wall. What the next try is, `failover.decide` says.
A try that is to go to the same account again (a fresh token, a pause, a stricter form) prefers it with its lease.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio

from kirostream.accounts.account import Account, AccountId, Token
from kirostream.accounts.board import Need
from kirostream.accounts.health import EXPIRED, LOGIN_LOST, SERVED, Kind, Outcome, outcome_of
from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Lease
from kirostream.accounts.profiles import FIXED_ARNS
from kirostream.dataclass import dataclass, replace
from kirostream.errors import Blame, CredentialRejected, FormRefused, KirostreamError, ModelNotOnAccount, QuotaSpent
from kirostream.filters import EventFilter, FilterSettings, emulate, event_filters
from kirostream.filters.continuation import Continuation
from kirostream.filters.stand_in import StandIn
from kirostream.providers.provider import Call, Provider
from kirostream.relay.attempt import Deadlines, attempt
from kirostream.relay.clients import ClientOf
from kirostream.relay.failover import Action, Decision, FailoverSettings, Left, Tried, decide
from kirostream.relay.fleet import Fleet
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import TurnLog
from kirostream.relay.refusals import Refusals
from kirostream.relay.resolver import no_such_model
from kirostream.telemetry.captures import Capture
from kirostream.telemetry.facts import AttemptFailed
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.events import TurnFailed
from kirostream.turn.request import TurnRequest

MOST_WITHOUT_PROFILE: Final = 4096
"""Accounts of which it is remembered that they are asked without the profile of their kind."""


@dataclass(slots=True)
class _Course:
    """What was tried for one request, and where the next try goes.

    `account` is the one to stay on, None for any that is not among the `refused`. `endpoint` counts those of the
    account that were given up.
    """

    began: float
    attempts: int = 0
    refreshed: bool = False
    accounts: int = 1
    seconds: float = 0.0
    account: AccountId | None = None
    refused: Collection[AccountId] = ()
    endpoint: int = 0

    @property
    def tried(self) -> Tried:
        """What was done so far."""
        return Tried(attempts=self.attempts, refreshed=self.refreshed, accounts=self.accounts, seconds=self.seconds)

    def need(self, model: str, conversation: str) -> Need:
        """What the next try needs."""
        return Need(model, conversation, self.account, self.refused)

    def begin(self, account: AccountId) -> None:
        """Another try, on `account`."""
        if self.account is not None and account != self.account:  # it was taken by another turn meanwhile
            self._move(self.account)
        self.account = account
        self.attempts += 1
        self.seconds = trio.current_time() - self.began

    def follow(self, action: Action) -> None:
        """Prepare for what was decided."""
        match action:
            case Action.REFRESH:
                self.refreshed = True
            case Action.NEXT_ENDPOINT:
                self.endpoint += 1
                self.attempts = 0
            case Action.NEXT_ACCOUNT if self.account is not None:
                self._move(self.account)
            case Action.FALL_BACK:
                self.attempts, self.accounts = 0, 1
                self.refused = ()
            case _:
                pass

    def _move(self, account: AccountId) -> None:
        self.refused = {*self.refused, account}
        self.attempts, self.refreshed = 0, False
        self.accounts += 1
        self.account, self.endpoint = None, 0


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a try failed; `token` is None where there was none to try with."""

    error: KirostreamError
    token: Token | None


def new_uuid() -> str:
    """A random UUID (RFC 9562 section 5.4): `uuid.uuid4`, without its object and a system call. It can be guessed."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


class Asker:
    """Asks for turns. See the relay for its parts.

    Args:
        house: what is asked on where a turn has no fleet of its own.
    """

    def __init__(
        self,
        *,
        house: Fleet,
        provider: Provider,
        client_of: ClientOf,
        recorder: Recorder,
        refusals: Refusals,
        deadlines: Deadlines,
        failover: FailoverSettings,
        filters: FilterSettings,
    ) -> None:
        self._house = house
        self._provider = provider
        self._client_of = client_of
        self._recorder = recorder
        self._refusals = refusals
        self._deadlines = deadlines
        self._failover = failover
        self._filters = filters
        self._without_profile: set[AccountId] = set()
        """Accounts that were refused with the profile that all of their kind share."""

    def __repr__(self) -> str:
        return f"<Asker of {self._house.pool!r}>"

    def adopt(self, deadlines: Deadlines, failover: FailoverSettings, filters: FilterSettings) -> None:
        """Go by these from the next try on."""
        self._deadlines, self._failover, self._filters = deadlines, failover, filters

    async def ask(
        self,
        live: LiveTurn,
        asked: TurnRequest,
        log: TurnLog,
        ids: tuple[str, str],
        on_first_event: Callable[[], None],
        filters: Callable[[], Sequence[EventFilter]] | None = None,
        parts: Continuation | None = None,
    ) -> None:
        """Try until `log` holds a whole answer to `asked`, or a whole part of it.

        Args:
            ids: of the conversation and of the user's last words.
            on_first_event: called with the first event of each try.
            filters: makes the filters of one try; None: those that `asked` needs.
            parts: where the answer is one of several that make a turn.

        Raises:
            KirostreamError: what the last try failed with, or why no account can be had.
        """
        fleet = self._fleet(live)
        request = self._fitted(live, asked)
        course = _Course(trio.current_time())
        before = len(log.events)
        last: KirostreamError | None = None
        of_the_first_model: KirostreamError | None = None
        while True:
            lease: Lease | None = None
            try:
                async with fleet.pool.lease(course.need(live.model.id, ids[0])) as lease:
                    account = lease.account
                    course.begin(account.id)
                    live.attempts += 1
                    live.account, live.account_id = account.label, account.id
                    call = self._call(live, ids, course)
                    asked_at = trio.current_time()
                    try:
                        failure = await self._try(
                            fleet.keeper,
                            request,
                            call,
                            account,
                            log,
                            on_first_event,
                            filters() if filters else self.filters(live, asked),
                            live.capture,
                        )
                    except BaseException:
                        live.tried(asked_at, None, cancelled=True)
                        raise
                    if failure is None:
                        end = log.events[-1] if log.events else None
                        live.tried(asked_at, end.error if isinstance(end, TurnFailed) else None)
                        lease.settle(outcome_of(end.error, live.model.id) if isinstance(end, TurnFailed) else SERVED)
                        self._refusals.remember(live.inquiry, ids[0], trio.current_time())
                        return
                    error = last = failure.error
                    live.tried(asked_at, error)
                    committed = parts.begun if parts and before else len(log.events) > before
                    if isinstance(error, FormRefused) and failure.token is not None and not committed:
                        body = self._provider.prepare(request, call, account, failure.token).body
                        await self._refusals.look(live.inquiry, error, request, live.model, body)
                    left = self._left(live, course, account, failure, spare=bool(live.spares) and not before)
                    decision = decide(error, course.tried, committed=committed, settings=self._failover, left=left)
                    lease.settle(self._outcome(failure, decision, live.model.id))
            except KirostreamError as refusal:
                if lease is not None:
                    raise
                known = isinstance(refusal, ModelNotOnAccount) and fleet.catalogues.lists(live.model.id)
                raise (refusal if known else self._worded(live, refusal)) from last
            self._note(live, account, error, decision)
            match decision.action:
                case Action.GIVE_UP:
                    said = self._worded(live, of_the_first_model or error)
                    if said is error:
                        raise error
                    raise said from error
                case Action.FALL_BACK:
                    of_the_first_model = of_the_first_model or error  # the one to tell of
                    live.model, live.stands_in = live.spares.pop(0), True
                    request = self._fitted(live, asked)
                case Action.REPAIR:
                    request = self._refusals.stricter(live.inquiry)
                case Action.WITHOUT_PROFILE:
                    if len(self._without_profile) >= MOST_WITHOUT_PROFILE:  # guests come and go; a try is all it costs
                        self._without_profile.clear()
                    self._without_profile.add(account.id)
                case Action.REFRESH if failure.token is not None:
                    fleet.keeper.reject(failure.token)
                case _:
                    pass
            course.follow(decision.action)
            await trio.sleep(decision.delay)

    def _fleet(self, live: LiveTurn) -> Fleet:
        return live.fleet or self._house

    async def _try(
        self,
        keeper: TokenKeeper,
        request: TurnRequest,
        call: Call,
        account: Account,
        log: TurnLog,
        on_first_event: Callable[[], None],
        filters: Sequence[EventFilter],
        capture: Capture | None = None,
    ) -> _Failure | None:
        """Ask once; why it failed, None if it did not."""
        token: Token | None = None
        try:
            token = await keeper.token(account)
            if account.id in self._without_profile:
                token = replace(token, profile_arn="")
            await attempt(
                request,
                call,
                account=account,
                token=token,
                provider=self._provider,
                client=self._client_of(account),
                log=log,
                deadlines=self._deadlines,
                on_first_event=on_first_event,
                filters=filters,
                capture=capture,
            )
        except KirostreamError as error:
            if capture is not None:
                capture.try_failed(error)
            return _Failure(error.without_trace(), token)
        return None

    def _call(self, live: LiveTurn, ids: tuple[str, str], course: _Course) -> Call:
        return Call(
            model=live.model,
            conversation_id=ids[0],
            continuation_id=ids[1],
            invocation_id=new_uuid(),
            attempt=course.attempts,
            attempts=self._failover.attempts,
            endpoint=course.endpoint,
        )

    def _left(self, live: LiveTurn, course: _Course, account: Account, failure: _Failure, *, spare: bool) -> Left:
        token = failure.token
        return Left(
            endpoint=token is not None and course.endpoint + 1 < len(self._provider.endpoints(account, token)),
            account=self._has_another(live, course, account, failure.error),
            model=spare,
            form=live.inquiry.variant is not None,
            profile=token is not None and token.profile_arn in FIXED_ARNS,
            token=token is not None,
        )

    def _has_another(self, live: LiveTurn, course: _Course, account: Account, error: KirostreamError) -> bool:
        """Whether another account can be had, now or after a wait in line, and it makes sense to ask there."""
        fleet = self._fleet(live)
        if fleet.pool.size < 2:
            return False
        if isinstance(error, ModelNotOnAccount) and not fleet.catalogues.lists(live.model.id):
            return False
        if isinstance(error, QuotaSpent) and not fleet.pool.moves_on:
            return False
        return fleet.pool.outlook(Need(live.model.id, exclude={*course.refused, account.id})) is None

    def _outcome(self, failure: _Failure, decision: Decision, model: str) -> Outcome:
        """What a failed try says of its account."""
        if decision.action is Action.REFRESH:
            return EXPIRED
        if decision.action is Action.WITHOUT_PROFILE:
            return Outcome(Kind.FAILED)  # it is not known yet whether the account may
        if failure.token is None:
            return LOGIN_LOST if isinstance(failure.error, CredentialRejected) else Outcome(Kind.FAILED)
        return outcome_of(failure.error, model)

    def _fitted(self, live: LiveTurn, asked: TurnRequest) -> TurnRequest:
        """`asked` as the model that is asked takes it."""
        request = self._provider.fit(emulate(asked, live.model, self._filters, agentic=live.agentic))
        return self._refusals.as_before(live.inquiry, request, live.model)

    def filters(self, live: LiveTurn, asked: TurnRequest) -> Sequence[EventFilter]:
        """The filters that one answer to `asked` needs."""
        names = functools.partial(self._provider.tool_names, asked.tools)
        filters = event_filters(asked, live.model, self._filters, names)
        return (*filters, StandIn(live.model)) if live.stands_in else filters

    def _worded(self, live: LiveTurn, error: KirostreamError) -> KirostreamError:
        """`error` for the client.

        Of a model that is not to be had it says which there are, of a form what is known; and where no account is left,
        when the first comes back.
        """
        fleet = self._fleet(live)
        if isinstance(error, FormRefused):
            return self._refusals.verdict(live.inquiry, error)
        if isinstance(error, ModelNotOnAccount):
            message = no_such_model(live.request.model, fleet.catalogues.known.models)
            return ModelNotOnAccount(message, reason=error.reason, upstream_status=error.upstream_status)
        if error.blame is Blame.ACCOUNT and fleet.pool.size > 1:
            return fleet.pool.outlook(Need(live.model.id)) or error
        return error

    def _note(self, live: LiveTurn, account: Account, error: KirostreamError, decision: Decision) -> None:
        self._recorder.record(
            AttemptFailed(
                turn=live.heading.turn,
                request=live.heading.request_id,
                account=account.label,
                error=type(error).__name__,
                reason=error.reason,
                blame=error.blame.value,
                action=decision.action.value,
                message=error.message,
            )
        )
