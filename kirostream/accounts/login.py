"""Signing in: the two flows, for all who can sign in (kiro-protocol.md sections 5.3 and 5.4).

Theory. A flow starts with a *template*: a `Credential` that says who is asked (service, region, start URL) and holds no
token; it ends with the same credential, whole. What a person has to do goes to a `Screen`.

- *By device code*: get a code, show it, ask until it is confirmed. Time is counted by our own clock that never jumps,
  so a wrong clock, here or there, changes nothing. A network that is lost in between is no reason to stop: the code
  goes on until it expires, and pauses grow while nothing comes. Only the service's word, or that end, is final.
- *By browser*: open a page; the browser comes back to an address of this machine with a code. Where the browser is on
  another machine that visit fails, and the person pastes the address it tried. Whichever comes first counts.

Nothing is kept here: a sign-in that is cancelled or fails leaves no trace, and can be begun again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import trio

from kirostream.accounts import login_messages as messages
from kirostream.accounts.account import (
    BUILDER_ID_START_URL,
    DEFAULT_REGION,
    AuthMethod,
    Credential,
    Secret,
)
from kirostream.accounts.login_messages import DeviceCode, Proof, Registration, SocialProvider
from kirostream.accounts.login_settings import LoginSettings
from kirostream.accounts.loopback import Loopback, open_loopback
from kirostream.accounts.oidc import AuthHosts, AuthRequest, Headers, Refusal, Refused, is_region
from kirostream.dataclass import dataclass
from kirostream.errors import (
    AccessDenied,
    CredentialRejected,
    KirostreamError,
    ProtocolError,
    SettingsError,
    UpstreamDown,
    UpstreamError,
    UpstreamFault,
    UpstreamTimeout,
)

Post: TypeAlias = Callable[[str, str, Headers, bytes], Awaitable[tuple[int, bytes]]]
"""As `keeper.Post`."""

_SLOWER: Final = 5.0
"""Seconds that ``slow_down`` adds to every later pause (RFC 8628 section 3.5)."""

_LONGEST_PAUSE: Final = 60.0
_TRIES: Final = 3
"""Times a code is sent where the connection fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a person has to do: open `url`, and compare or type `code` where there is one.

    `expires_in` is in seconds from now. `pasteable`: the address the browser is sent to may be pasted here.
    """

    url: str
    code: str
    expires_in: float
    pasteable: bool


class Screen(Protocol):
    """Where the person is."""

    def show(self, task: Task) -> None:
        """Say what has to be done."""

    def waiting(self, left: float, trouble: str) -> None:
        """Said once a second: seconds left, and what is wrong at the moment (empty: nothing)."""

    def complain(self, message: str) -> None:
        """What was pasted is not what was asked for."""

    async def paste(self) -> str:
        """What the person pastes next; waits for ever where nobody can."""


def social(provider: str, region: str = DEFAULT_REGION) -> Credential:
    """The template of a sign-in with Google or GitHub.

    Raises:
        SettingsError: another provider.
    """
    known: dict[str, SocialProvider] = {"google": "Google", "github": "Github"}
    name = known.get(provider.lower())
    if name is None:
        raise SettingsError(f"Kiro signs in with google or github, not with {provider!r}.")
    return Credential(auth=AuthMethod.SOCIAL, provider=name, region=_region(region))


def builder_id() -> Credential:
    """The template of a sign-in with an AWS Builder ID."""
    return Credential(auth=AuthMethod.IDC, provider="BuilderId", start_url=BUILDER_ID_START_URL, region=DEFAULT_REGION)


def identity_center(start_url: str, region: str) -> Credential:
    """The template of a sign-in with an organisation's IAM Identity Center.

    Raises:
        SettingsError: the start URL is no https URL, or the region is none.
    """
    url = start_url.strip().rstrip("/").removesuffix("#").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or not url.isprintable():
        raise SettingsError(
            f"The start URL has to begin with https://, such as https://d-1234567890.awsapps.com/start; it is {url!r}."
        )
    if url == BUILDER_ID_START_URL:
        return builder_id()
    return Credential(auth=AuthMethod.IDC, provider="Enterprise", start_url=url, region=_region(region))


def _region(region: str) -> str:
    if not is_region(region):
        raise SettingsError(f"{region!r} is no AWS region; one looks like us-east-1.")
    return region


class Login:
    """Signs people in.

    Args:
        post: how a request is sent.
        screen: where the person is.
        user_agent: of every request.
        time_source: unix seconds, for the end of tokens.
        random: makes what has to be guessed by nobody, of 43 characters of the URL alphabet at least.
    """

    def __init__(
        self,
        post: Post,
        screen: Screen,
        settings: LoginSettings | None = None,
        hosts: AuthHosts | None = None,
        *,
        user_agent: str,
        time_source: Callable[[], float] = time.time,
        random: Callable[[], str] = lambda: secrets.token_urlsafe(48),
    ) -> None:
        self._post = post
        self._screen = screen
        self._settings = settings or LoginSettings()
        self._hosts = hosts or AuthHosts()
        self._agent = user_agent
        self._time = time_source
        self._random = random
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Login{': ' + self._trouble if self._trouble else ''}>"

    async def by_device_code(self, template: Credential) -> Credential:
        """Show a code, and wait until it is confirmed.

        Raises:
            CredentialRejected: it was refused, or has expired.
            AccessDenied: the organisation does not let this client in.
            UpstreamError: the service cannot be reached, or fails.
        """
        region = template.region
        if template.auth is AuthMethod.SOCIAL:
            provider: SocialProvider = "Github" if template.provider == "Github" else "Google"
            request = messages.social_device_request(self._hosts, region, provider, user_agent=self._agent)
            device = await self._device_code(request)
            poll = messages.social_poll_request(self._hosts, region, device, user_agent=self._agent)
        else:
            registration = await self._register(template, by_code=False)
            request = messages.device_request(
                self._hosts, region, registration, start_url=template.start_url, user_agent=self._agent
            )
            device = await self._device_code(request)
            poll = messages.poll_request(self._hosts, region, registration, device, user_agent=self._agent)
            template = _registered(template, registration)
        self._screen.show(
            Task(url=device.whole_url, code=device.user_code, expires_in=device.expires_in, pasteable=False)
        )
        async with self._ticking(device.expires_in):
            return await self._poll(template, poll, device)

    async def by_browser(self, template: Credential) -> Credential:
        """Show a page, and wait until the browser, or the person, brings its code.

        Raises:
            As `by_device_code`; and SettingsError: the port is taken.
        """
        proof = Proof(Secret(self._random()), self._random())
        region, registration = template.region, None
        if template.auth is not AuthMethod.SOCIAL:
            registration = await self._register(template, by_code=True)
            template = _registered(template, registration)
        async with open_loopback(proof, self._settings.callback_port) as loopback:
            callback = f"http://127.0.0.1:{loopback.port}"
            if registration is None:
                url = messages.portal_url(self._hosts, region, proof, callback)
            else:
                callback += messages.CALLBACK_PATH
                url = messages.authorize_url(self._hosts, region, registration, proof, callback)
            patience = self._settings.callback_deadline
            self._screen.show(Task(url=url, code="", expires_in=patience, pasteable=True))
            answer: Secret | Refused | None = None
            with trio.move_on_after(patience):
                async with self._ticking(patience):
                    answer = await self._brought(loopback, proof)
        if answer is None:
            raise _expired(patience)
        if isinstance(answer, Refused):
            raise _refusal(answer, template)
        if registration is None:
            request = messages.social_exchange_request(
                self._hosts, region, proof, code=answer, callback=callback, user_agent=self._agent
            )
        else:
            request = messages.exchange_request(
                self._hosts, region, registration, proof, code=answer, callback=callback, user_agent=self._agent
            )
        return await self._exchange(template, request)

    # -- by device code

    async def _register(self, template: Credential, *, by_code: bool) -> Registration:
        request = messages.register_request(
            self._hosts,
            template.region,
            start_url=template.start_url,
            name=self._settings.client_name,
            by_code=by_code,
            user_agent=self._agent,
        )
        registration = messages.read_registration(*await self._ask(request))
        if isinstance(registration, Refused):
            if registration.reason in ("unauthorized", "access_denied", "unauthorized_client"):
                raise AccessDenied(
                    f"{template.start_url} does not let this client in ({registration.message}): the organisation has"
                    " no subscription to Kiro, or the region is another one (--region)",
                    reason=registration.reason,
                    upstream_status=registration.status,
                )
            raise _refusal(registration, template)
        return registration

    async def _device_code(self, request: AuthRequest) -> DeviceCode:
        device = messages.read_device_code(*await self._ask(request))
        if isinstance(device, Refused):
            raise _refusal(device)
        return device

    async def _poll(self, template: Credential, request: AuthRequest, device: DeviceCode) -> Credential:
        """Ask until there is an answer, or the code has ended. While the network is away, pauses grow."""
        end = trio.current_time() + device.expires_in
        interval, lost = device.interval, 0
        while True:
            now = trio.current_time()
            longer = min(interval * 2 ** min(lost, 10), max(interval, _LONGEST_PAUSE))
            at = min(now + longer, max(now + interval, end - interval))  # a long pause leaves time for a last question
            await trio.sleep_until(min(at, end))
            if at >= end:
                raise _expired(device.expires_in)
            sent_at = self._time()
            try:
                answer = messages.read_token(template, *await self._ask(request), sent_at)
            except (UpstreamError, ProtocolError) as error:
                self._trouble, lost = error.message, lost + 1
            else:
                if isinstance(answer, Credential):
                    return answer
                if answer.kind is not Refusal.TRANSIENT:
                    raise _refusal(answer, template)
                if answer.reason in ("slow_down", "authorization_pending"):
                    self._trouble, lost = "", 0
                    interval += _SLOWER if answer.reason == "slow_down" else 0.0
                else:
                    self._trouble, lost = answer.message, lost + 1

    # -- by browser

    async def _brought(self, loopback: Loopback, proof: Proof) -> Secret | Refused:
        """What comes first: the browser, or what the person pastes."""
        answers: list[Secret | Refused] = []
        async with trio.open_nursery() as nursery:

            async def visited() -> None:
                answers.append(await loopback.wait())
                nursery.cancel_scope.cancel()

            async def pasted() -> None:
                while True:
                    text = await self._screen.paste()
                    answer = messages.read_callback(text, proof)
                    if isinstance(answer, Refused) and answer.kind is Refusal.TRANSIENT:
                        self._screen.complain(f"{answer.message.capitalize()}. Paste the whole address.")
                        continue
                    answers.append(answer)
                    nursery.cancel_scope.cancel()
                    return

            nursery.start_soon(visited)
            nursery.start_soon(pasted)
        return answers[0]

    async def _exchange(self, template: Credential, request: AuthRequest) -> Credential:
        """Change the code for tokens. It is used once at the most, so it may be sent again where no answer came."""
        for _ in range(_TRIES - 1):
            try:
                return await self._exchange_once(template, request)
            except UpstreamDown:
                await trio.sleep(1.0)
        return await self._exchange_once(template, request)

    async def _exchange_once(self, template: Credential, request: AuthRequest) -> Credential:
        sent_at = self._time()
        answer = messages.read_token(template, *await self._ask(request), sent_at)
        if isinstance(answer, Refused):
            raise _refusal(answer, template)
        return answer

    # -- both

    async def _ask(self, request: AuthRequest) -> tuple[int, bytes]:
        deadline = self._settings.request_deadline
        try:
            with trio.fail_after(deadline):
                return await self._post(request.method, request.url, request.headers, request.body)
        except trio.TooSlowError:
            host = urlsplit(request.url).netloc
            raise UpstreamTimeout(
                f"{host} did not answer in {deadline:g} s. Check the network and the proxy."
            ) from None

    @asynccontextmanager
    async def _ticking(self, patience: float) -> AsyncIterator[None]:
        """Tell the screen how long there is, once a second, while the block runs. An error of ours comes out bare."""
        end = trio.current_time() + patience
        self._trouble = ""

        async def tick() -> None:
            while True:
                self._screen.waiting(max(end - trio.current_time(), 0.0), self._trouble)
                await trio.sleep(1.0)

        failure: KirostreamError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            try:
                yield
            except KirostreamError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


def _registered(template: Credential, registration: Registration) -> Credential:
    return replace(
        template,
        client_id=registration.client_id,
        client_secret=registration.client_secret,
        registration_expires_at=registration.expires_at,
    )


def _expired(after: float) -> CredentialRejected:
    return CredentialRejected(
        f"The sign-in was not confirmed within {after / 60:g} minutes. Run: kirostream login", reason="expired_token"
    )


def _refusal(refused: Refused, template: Credential | None = None) -> KirostreamError:
    status, reason = refused.status, refused.reason
    if reason == "access_denied":
        return CredentialRejected("The sign-in was refused on the page.", reason=reason, upstream_status=status)
    if reason == "expired_token":
        return CredentialRejected(
            "The code has expired before it was confirmed. Run: kirostream login", reason=reason, upstream_status=status
        )
    if refused.kind is Refusal.TRANSIENT:
        return UpstreamFault(
            f"The sign-in service failed ({refused.message}). Try again.", reason=reason, upstream_status=status
        )
    at = f" Check {template.start_url} and the region {template.region}." if template and template.start_url else ""
    return CredentialRejected(
        f"The sign-in was not accepted ({refused.message}).{at}", reason=reason, upstream_status=status
    )
