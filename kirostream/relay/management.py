"""Asking the upstream about an account: what is left, what can be had, which profile it uses.

Nothing is cached: a person asks, or somebody who has just been told that the credits are gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import trio

from kirostream.accounts.account import Account, Token
from kirostream.accounts.keeper import TokenKeeper
from kirostream.errors import AccessDenied, CredentialRejected, KirostreamError, UpstreamError, UpstreamTimeout
from kirostream.net.exchange import Headers
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.kiro_management import (
    PROFILE_REGIONS,
    AccountUsage,
    Checkout,
    KiroManagement,
    Plan,
    Profile,
    pick_profile,
    read_checkout,
    read_plans,
    read_profiles,
    read_usage,
)
from kirostream.providers.provider import UpstreamRequest
from kirostream.turn.model import Model

T = TypeVar("T")

DEADLINE: Final = 20.0
"""Seconds for one call."""
PAGES: Final = 20


class Fetcher(Protocol):
    """What is needed of `net.client.HttpClient`."""

    async def fetch(self, method: str, url: str, headers: Headers, content: bytes = b"") -> tuple[int, Headers, bytes]:
        """See `net.client.HttpClient.fetch`."""


class Management:
    """The calls, each with a token that is given. `with_token` gets one from a keeper."""

    def __init__(self, provider: KiroProvider, client: Fetcher, *, deadline: float = DEADLINE) -> None:
        self._provider = provider
        self._client = client
        self._deadline = deadline
        self._calls = KiroManagement(provider)

    def __repr__(self) -> str:
        return f"<Management at {self._provider!r}>"

    async def usage(self, account: Account, token: Token) -> AccountUsage:
        """What the account has used. Where its kind of account has no such answer, nothing is known: all empty.

        Raises:
            UpstreamError, ProtocolError: there is no answer.
        """
        try:
            return read_usage(await self._ask(self._calls.usage(account, token)))
        except AccessDenied as refused:
            if refused.reason == "FEATURE_NOT_SUPPORTED":
                return AccountUsage()
            raise

    async def models(self, account: Account, token: Token) -> Sequence[Model]:
        """The models that the account has.

        Raises:
            UpstreamError, ProtocolError: there is no answer.
        """
        found: list[Model] = []
        page = ""
        for _ in range(PAGES):
            models, page = self._provider.read_models(await self._ask(self._provider.list_models(account, token, page)))
            found += models
            if not page:
                break
        return found

    async def plans(self, account: Account, token: Token) -> Sequence[Plan]:
        """The plans that can be had.

        Raises:
            UpstreamError, ProtocolError: there is no answer.
        """
        return read_plans(await self._ask(self._calls.plans(account, token)))

    async def checkout(self, account: Account, token: Token, kind: str = "") -> Checkout:
        """A page to pay on. It is shown, never opened.

        Raises:
            UpstreamError, ProtocolError: there is no answer.
        """
        ask = self._calls.checkout(account, token, kind=kind, client_token=str(uuid.uuid4()))
        return read_checkout(await self._ask(ask))

    async def profile(self, account: Account, token: Token) -> str:
        """The ARN of an organisation's profile, an empty string where there is none in any region.

        The regions are asked side by side; one that refuses does not count while another one answers.

        Raises:
            UpstreamError, ProtocolError: no region gave an answer.
        """
        answers: dict[str, Sequence[Profile] | KirostreamError] = {}

        async def ask(region: str) -> None:
            try:
                answers[region] = await self._profiles(account, token, region)
            except KirostreamError as error:
                answers[region] = error

        async with trio.open_nursery() as nursery:
            for region in PROFILE_REGIONS:
                nursery.start_soon(ask, region)
        found = [answers[region] for region in PROFILE_REGIONS]
        for each in found:
            if not isinstance(each, KirostreamError) and (arn := pick_profile(each)):
                return arn
        refusals = [each for each in found if isinstance(each, KirostreamError)]
        if len(refusals) == len(found) and not all(isinstance(each, AccessDenied) for each in refusals):
            raise next(each for each in refusals if not isinstance(each, AccessDenied))
        return ""

    async def _profiles(self, account: Account, token: Token, region: str) -> list[Profile]:
        found: list[Profile] = []
        page = ""
        for _ in range(PAGES):
            profiles, page = read_profiles(await self._ask(self._calls.profiles(account, token, region, page)))
            found += profiles
            if not page:
                break
        return found

    async def _ask(self, ask: UpstreamRequest) -> bytes:
        try:
            with trio.fail_after(self._deadline):
                status, headers, body = await self._client.fetch(ask.method, ask.url, ask.headers, ask.body)
        except trio.TooSlowError:
            raise UpstreamTimeout(f"The upstream did not answer in {self._deadline:g} s.") from None
        if status != 200:
            error: UpstreamError = self._provider.classify(
                status, headers, self._provider.dialect.read_error(headers, body)
            )
            raise error
        return body


async def with_token(keeper: TokenKeeper, account: Account, call: Callable[[Account, Token], Awaitable[T]]) -> T:
    """The result of `call` with a good token: where the upstream refuses the first one, with a fresh one.

    Raises:
        As `TokenKeeper.token`, and what `call` raises.
    """
    token = await keeper.token(account)
    try:
        return await call(account, token)
    except CredentialRejected:
        keeper.reject(token)
        return await call(account, await keeper.token(account))
