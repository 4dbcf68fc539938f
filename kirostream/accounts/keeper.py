"""Tokens that are good when they are handed out: refreshed before they end, and when the upstream refuses one.

Theory. Every account has one `_Keep`: its credential, and at most one *flight*, the task that refreshes it. How long an
access token still lasts decides what `token` does:

======================================  =====================================================================
more than the advisory window           hand it out
between the windows                     hand it out, and refresh in passing; a failure is noted, nothing more
within the mandatory window, or over,   wait for the flight (one for all who wait); if it fails, hand out the
or rejected by the upstream             old token while it lasts and was not rejected, else raise the failure
======================================  =====================================================================

Rules that hold together, and must change together:

- A flight runs in the keeper's nursery. Who asked for it may leave at any checkpoint; the flight does not notice.
- From the moment the request is sent until the new credential is saved nothing but a deadline stops the flight: an
  answer may hold a new refresh token and have killed the old one, and losing that token loses the account. The new
  credential is used only after the save.
- The source is read before each request (the IDE, kiro-cli or another process may have refreshed) and again after each
  failure. What another program wrote wins: `save` compares before it swaps, and we never overwrite.
- A save that fails keeps the new credential in memory, says so, and is tried again: a token at hand beats none.
- A refresh token found dead is not sent again; the source is read instead, until somebody has logged in.
- Nobody has to ask: a sweep starts the flights that are due, a few at a time, each account at its own point between the
  windows, so that tokens that were made together are not renewed together.
- An organisation's account whose profile no source names waits for it as for a token: it is looked up once.
- Where processes share a data folder, a lock file an account makes the flight single among them too.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import Final, TypeAlias

import trio

from kirostream.accounts import oidc
from kirostream.accounts.account import NO_SECRET, Account, AccountId, Credential, Secret, Token
from kirostream.accounts.oidc import AuthHosts, Headers, Refusal, Refused
from kirostream.accounts.profiles import needs_profile, profile_arn
from kirostream.accounts.sources.source import CredentialSource, StaleCredential
from kirostream.dataclass import dataclass
from kirostream.errors import (
    CredentialRejected,
    KirostreamError,
    LocalProtocolError,
    SettingsError,
    StoreError,
    UpstreamDown,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamTimeout,
)
from kirostream.stores.files import UNWRITABLE, FileLock, private_folder

Post: TypeAlias = Callable[[str, str, Headers, bytes], Awaitable[tuple[int, bytes]]]
"""``await post(method, url, headers, body)`` gives status and body. It raises of the `UpstreamError` family, or
`ProtocolError`, where there is no answer. It needs no deadline of its own."""

LookUp: TypeAlias = Callable[[Account, Token], Awaitable[str]]
"""The ARN of an account's profile, an empty string where it has none. It raises as `Post` does."""


async def no_post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
    """For accounts that are added to a keeper without a way of their own: there are none."""
    raise LocalProtocolError("an account was added to the keeper without a way out")


_TRIES: Final = 3
"""Requests in one flight: ours, and one for each time somebody else's write overtook us."""

_LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """When tokens are refreshed, and how long that may take."""

    advisory: float = field(
        default=600.0,
        metadata={"help": "Refresh in passing when a token ends within this time.", "unit": "seconds"},
    )
    mandatory: float = field(
        default=120.0,
        metadata={"help": "Wait for the refresh when a token ends within this time.", "unit": "seconds"},
    )
    refresh_deadline: float = field(
        default=30.0, metadata={"help": "How long the token service may take to answer.", "unit": "seconds"}
    )
    save_deadline: float = field(
        default=15.0, metadata={"help": "How long writing the new token back may take.", "unit": "seconds"}
    )
    pause: float = field(
        default=5.0,
        metadata={
            "help": "Time between a failed refresh and the next; doubles with every failure, up to a minute.",
            "unit": "seconds",
        },
    )
    sweep: float = field(
        default=30.0,
        metadata={"help": "How often tokens are looked at that nobody asks for; 0: never.", "unit": "seconds"},
    )
    sweep_at_once: int = field(
        default=4, metadata={"help": "Most tokens that a sweep has refreshed.", "unit": "tokens"}
    )
    hosts: AuthHosts = field(default_factory=AuthHosts, metadata={"help": "Where tokens are refreshed.", "live": False})

    def __post_init__(self) -> None:
        if not 0 <= self.mandatory <= self.advisory:
            raise SettingsError(
                f"keeper.mandatory is {self.mandatory:g} and keeper.advisory {self.advisory:g};"
                " it takes 0 <= mandatory <= advisory"
            )
        for name in ("refresh_deadline", "save_deadline", "pause"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"keeper.{name} is {getattr(self, name):g}; it takes seconds above 0")
        if self.sweep < 0 or self.sweep_at_once < 1:
            raise SettingsError("keeper.sweep takes seconds, 0 for never, and keeper.sweep_at_once 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptToken:
    """The state of one account's token. `expires_in` is seconds from now: below 0 it has ended, `NEVER` has no end."""

    account: AccountId
    label: str
    expires_in: float
    rejected: bool
    refreshing: bool
    refreshed: int
    failures: int
    """Failed refreshes since the last good one."""
    unsaved: bool
    """The token at hand could not be written back; see `error`."""
    error: str


@dataclass(frozen=True, slots=True)
class KeeperSnapshot:
    """The state of every account's token."""

    tokens: tuple[KeptToken, ...]


class _Flight:
    """One refresh under way. `error` is what came of it, None for a token."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: KirostreamError | None = UpstreamDown("the token refresh was stopped before it had an answer")


class _Keep:
    """What the keeper knows of one account."""

    def __init__(self, account: Account, source: CredentialSource, credential: Credential, post: Post) -> None:
        self.account = account
        self.post = post
        self.source = source
        self.credential = credential
        self.made: Token | None = None  # what is handed out
        self.made_of: Credential | None = None  # the credential it was made of
        self.lifetime = math.inf  # seconds, of the token at hand, where we saw it being made
        self.rejected = NO_SECRET  # the access token the upstream refused
        self.dead: Refused | None = None  # what was said of the refresh token at hand
        self.unsaved: Credential | None = None  # what the source still holds, where a save failed
        self.save_failure: KirostreamError | None = None
        self.save_at = 0.0  # trio time of the next try to save
        self.flight: _Flight | None = None
        self.refreshed = 0
        self.failures = 0
        self.failure: KirostreamError | None = None
        self.resume_at = 0.0  # trio time before which no other flight starts
        self.profile_at = 0.0  # trio time before which nobody asks for the profile
        self.turn = int(hashlib.sha256(account.id.encode()).hexdigest()[:8], 16) / 2**32
        """Its point between the windows, 0 to 1: where the sweep refreshes it."""

    def adopt(self, credential: Credential) -> None:
        """Use what the source holds now."""
        self.credential = credential
        self.lifetime = math.inf
        self.dead = None
        self.saved()

    def saved(self) -> None:
        """The source holds what we hold."""
        self.unsaved = None
        self.save_failure = None


class TokenKeeper:
    """Keeps the tokens of all accounts. Run `run` in a nursery that outlives every user of `token`.

    Args:
        post: how a refresh is sent.
        ide_version: the IDE version named in the user agent of a refresh.
        lock_folder: where lock files are shared with other processes; None where no other process refreshes.
        time_source: unix seconds.
        look_up: asks the upstream for the profile of an account that `profiles.needs_profile`, with a token of it;
            None: nobody asks.
        on_refreshed: told the account's id and the new token's life in seconds.
        on_failed: told the account's id and the error of a refresh, a save or a look at the source; a refresh that
            fails again in the same way is told once.
    """

    def __init__(
        self,
        post: Post,
        settings: KeeperSettings | None = None,
        *,
        ide_version: str = "",
        lock_folder: Path | None = None,
        time_source: Callable[[], float] = time.time,
        look_up: LookUp | None = None,
        on_refreshed: Callable[[AccountId, float], None] = lambda account, seconds: None,
        on_failed: Callable[[AccountId, KirostreamError], None] = lambda account, error: None,
    ) -> None:
        self._post = post
        self._settings = settings or KeeperSettings()
        self._ide_version = ide_version
        self._lock_folder = lock_folder
        self._time = time_source
        self._look_up = look_up
        self._on_refreshed = on_refreshed
        self._on_failed = on_failed
        self._keeps: dict[AccountId, _Keep] = {}
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        flights = sum(keep.flight is not None for keep in self._keeps.values())
        state = "running" if self._nursery is not None else "not running"
        return f"<TokenKeeper {state}, {len(self._keeps)} accounts, {flights} refreshing>"

    def add(self, account: Account, source: CredentialSource, credential: Credential, post: Post | None = None) -> None:
        """Keep the token of `account` from now on. An account added again starts afresh.

        Args:
            post: how its refreshes are sent, where it has a way of its own.
        """
        self._keeps[account.id] = _Keep(account, source, credential, post or self._post)

    def remove(self, account: AccountId) -> None:
        """Forget an account. A flight under way still saves what it gets."""
        self._keeps.pop(account, None)

    def adopt(self, settings: KeeperSettings) -> None:
        """Go by other settings, from the next refresh on. Those of the hosts stay."""
        self._settings = replace(settings, hosts=self._settings.hosts)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the flights until cancelled; those under way are finished and saved first, within their deadlines."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                while True:
                    await trio.sleep(self._settings.sweep or math.inf)
                    self._sweep()
            finally:
                self._nursery = None

    async def token(self, account: Account) -> Token:
        """An access token that is good now.

        Raises:
            CredentialRejected: a person has to log in again; the message says where and how.
            UpstreamError: the token service cannot be reached or fails, and there is no token left to use.
            StoreError: the source, or the lock shared with other processes, cannot be used.
            LocalProtocolError: the account was never added, or the keeper does not run.
        """
        # Not a whole checkpoint: who has a token goes on to a connection, and yields there.
        await trio.lowlevel.checkpoint_if_cancelled()
        keep = self._keeps.get(account.id)
        if keep is None:
            raise LocalProtocolError(f"no credential was given to the keeper for account {account.id}")
        error: KirostreamError | None = None
        for _ in range(2):  # twice: a fresh token may have been rejected by another task meanwhile
            left = self._left(keep)
            advisory, mandatory = self._windows(keep)
            if left > mandatory and not self._lacks_profile(keep):
                if left <= advisory or (keep.unsaved is not None and trio.current_time() >= keep.save_at):
                    self._depart(keep)
                return self._token(keep)
            flight = self._depart(keep)
            if flight is not None:
                await flight.done.wait()
            error = flight.error if flight is not None else keep.failure
            if self._left(keep) > 0:
                return self._token(keep)
            if error is not None:
                break
        raise copy.copy(error or self._short_lived(keep)) from error

    def reject(self, token: Token) -> None:
        """The upstream refused `token`: hand it out no more. Nothing happens if there is a newer one already."""
        keep = self._keeps.get(token.account)
        if keep is not None and keep.credential.access_token == token.access:
            keep.rejected = token.access

    def snapshot(self) -> KeeperSnapshot:
        """The state of every token now. It holds no secrets."""
        return KeeperSnapshot(tuple(self._kept(keep) for keep in self._keeps.values()))

    # -- what is known

    def _kept(self, keep: _Keep) -> KeptToken:
        error = keep.failure or keep.save_failure
        return KeptToken(
            account=keep.account.id,
            label=keep.account.label,
            expires_in=keep.credential.valid_until() - self._time(),
            rejected=self._is_rejected(keep),
            refreshing=keep.flight is not None,
            refreshed=keep.refreshed,
            failures=keep.failures,
            unsaved=keep.unsaved is not None,
            error=error.message if error is not None else "",
        )

    def _is_rejected(self, keep: _Keep) -> bool:
        return bool(keep.rejected) and keep.rejected == keep.credential.access_token

    def _left(self, keep: _Keep) -> float:
        """Seconds the token at hand can be used for; 0 or less: not at all."""
        if self._is_rejected(keep):
            return 0.0
        return keep.credential.valid_until() - self._time()

    def _windows(self, keep: _Keep) -> tuple[float, float]:
        """Advisory and mandatory window, in seconds: smaller for tokens that live shortly, or they were never fresh.

        What cannot be refreshed is used to its end; then the source is read.
        """
        if not keep.credential.refresh_token:
            return 0.0, 0.0
        return min(self._settings.advisory, keep.lifetime / 2), min(self._settings.mandatory, keep.lifetime / 4)

    def _is_fresh(self, keep: _Keep) -> bool:
        return self._left(keep) > self._windows(keep)[0]

    def _token(self, keep: _Keep) -> Token:
        held = keep.credential
        if keep.made_of is not held:
            keep.made_of = held
            keep.made = Token(held.access_token, held.valid_until(), profile_arn(held), keep.account.id)
        assert keep.made is not None
        return keep.made

    def _short_lived(self, keep: _Keep) -> KirostreamError:
        return UpstreamFault(f"{keep.account.label}: the token service hands out tokens that have ended already")

    def _lacks_profile(self, keep: _Keep) -> bool:
        wanted = self._look_up is not None and needs_profile(keep.credential)
        return wanted and trio.current_time() >= keep.profile_at

    # -- flights

    def _sweep(self) -> None:
        """Refresh what is due although nobody asked: the most urgent first, those that wait for a person last."""
        now = trio.current_time()
        due: list[tuple[bool, float, _Keep]] = []
        for keep in self._keeps.values():
            advisory, mandatory = self._windows(keep)
            over = self._left(keep) - (mandatory + (advisory - mandatory) * (1 - keep.turn))
            if over <= 0 and keep.credential.refresh_token and keep.flight is None and now >= keep.resume_at:
                due.append((keep.dead is not None, over, keep))
        for *_, keep in sorted(due, key=lambda each: each[:2])[: self._settings.sweep_at_once]:
            self._depart(keep)

    def _depart(self, keep: _Keep) -> _Flight | None:
        """The flight under way, or a new one; None while a failure is too recent."""
        if keep.flight is not None:
            return keep.flight
        if trio.current_time() < keep.resume_at:
            return None
        if self._nursery is None:
            raise LocalProtocolError("the token keeper is not running")
        keep.flight = _Flight()
        self._nursery.start_soon(self._fly, keep, keep.flight, name=f"refresh {keep.account.id}")
        return keep.flight

    async def _fly(self, keep: _Keep, flight: _Flight) -> None:
        """Refresh, and tell whoever waits what came of it."""
        try:
            await self._refresh(keep)
            flight.error = None
        except KirostreamError as error:
            flight.error = error
        except Exception as error:  # noqa: BLE001 - a bug in one account's source goes to its callers, not to all accounts
            flight.error = LocalProtocolError(
                f"{keep.account.label}: the token refresh failed by a bug ({type(error).__name__})"
            )
            flight.error.__cause__ = error
        finally:
            keep.flight = None
            flight.done.set()
        if flight.error is not None:
            self._note_failure(keep, flight.error)
        else:
            keep.failures, keep.failure, keep.resume_at = 0, None, 0.0

    def _note_failure(self, keep: _Keep, error: KirostreamError) -> None:
        told = keep.failure is not None and keep.failure.message == error.message
        keep.failures += 1
        keep.failure = error
        pause = self._settings.pause
        if not isinstance(error, CredentialRejected):  # then only the source is read, and a person waits for it
            pause = min(pause * 2 ** min(keep.failures - 1, 10), _LONGEST_PAUSE)
            error.retry_after = pause
        keep.resume_at = trio.current_time() + pause
        if not told:
            self._on_failed(keep.account.id, error)

    async def _refresh(self, keep: _Keep) -> None:
        """Until the token at hand is fresh.

        Raises:
            KirostreamError: it is not, and why.
        """
        async with self._alone(keep):
            await self._look(keep)
            if keep.unsaved is not None:
                with trio.CancelScope(shield=True):
                    await self._save(keep, keep.unsaved, keep.credential)
            await self._renew(keep)
            if self._lacks_profile(keep):
                await self._find_profile(keep)

    async def _renew(self, keep: _Keep) -> None:
        for _ in range(_TRIES):
            if self._is_fresh(keep):
                return
            if keep.dead is not None:
                raise self._refusal(keep, keep.dead)
            try:
                if await self._exchange(keep):
                    return
            except KirostreamError:
                if not await self._look(keep):
                    raise
        raise UpstreamFault(f"{keep.account.label}: other programs replace the credential faster than it is refreshed")

    async def _find_profile(self, keep: _Keep) -> None:
        """Ask for the profile. Without one the account may still be of use: the upstream will say so itself.

        A record of ours keeps it; into a file of another program nothing is written that it did not ask for.
        """
        assert self._look_up is not None
        keep.profile_at = trio.current_time() + _LONGEST_PAUSE
        held = keep.credential
        try:
            with trio.fail_after(self._settings.refresh_deadline):
                arn = await self._look_up(keep.account, self._token(keep))
        except trio.TooSlowError:
            self._on_failed(
                keep.account.id, UpstreamTimeout(f"{keep.account.label}: no answer to the question for its profile")
            )
            return
        except KirostreamError as error:
            self._on_failed(keep.account.id, error)
            return
        if not arn or keep.credential is not held:
            return
        found = replace(held, profile_arn=arn)
        if keep.source.kind == "own":
            with trio.CancelScope(shield=True):
                await self._save(keep, held, found)
        else:
            keep.credential = found

    async def _look(self, keep: _Keep) -> bool:
        """Read the source; True if it holds something else than we do, which is ours from now on."""
        try:
            loaded = await keep.source.load()
        except (StoreError, SettingsError) as error:  # what we hold may be good all the same
            self._on_failed(keep.account.id, error)
            return False
        theirs = next((one for one in loaded if one.key == keep.credential.key), None)
        known = keep.unsaved or keep.credential
        if theirs is None or _same(theirs, known):
            return False
        if _same(theirs, keep.credential):
            keep.saved()  # a save that was given up on got through after all
            return False
        keep.adopt(theirs)
        return True

    async def _exchange(self, keep: _Keep) -> bool:
        """Send one refresh and save what comes. True: the token at hand is the one that came.

        Raises:
            KirostreamError: nothing came.
        """
        asked = keep.credential
        user_agent = f"KiroIDE-{self._ide_version}-{keep.account.machine_id}"
        request = oidc.refresh_request(asked, self._settings.hosts, user_agent=user_agent)
        if isinstance(request, Refused):
            keep.dead = request
            raise self._refusal(keep, request)
        await trio.lowlevel.checkpoint_if_cancelled()  # the last chance to stop for a long while
        sent_at = self._time()
        with trio.CancelScope(shield=True):
            try:
                with trio.fail_after(self._settings.refresh_deadline):
                    status, body = await keep.post(request.method, request.url, request.headers, request.body)
            except trio.TooSlowError:
                raise UpstreamTimeout(
                    f"{keep.account.label}: the token service did not answer in {self._settings.refresh_deadline:g} s"
                ) from None
            answer = oidc.read_refresh(asked, status, body, sent_at)
            if isinstance(answer, Refused):
                if answer.kind is not Refusal.TRANSIENT:
                    keep.dead = answer
                raise self._refusal(keep, answer)
            if not await self._save(keep, asked, answer):
                return False
            keep.lifetime = answer.valid_until() - sent_at
            keep.rejected = NO_SECRET
            keep.dead = None
            keep.refreshed += 1
            self._on_refreshed(keep.account.id, keep.lifetime)
        return True

    async def _save(self, keep: _Keep, old: Credential, new: Credential) -> bool:
        """Write `new` back and use it; True unless another program was faster, whose credential is used then."""
        try:
            with trio.fail_after(self._settings.save_deadline):
                await keep.source.save(old, new)
        except StaleCredential:
            keep.saved()
            if await self._look(keep):
                return False
        except Exception as error:  # noqa: BLE001 - a bug in a source must not cost the token either
            keep.unsaved = old
            keep.save_failure = self._unsaved(keep, error)
            keep.save_at = trio.current_time() + self._settings.pause
            self._on_failed(keep.account.id, keep.save_failure)
        else:
            keep.saved()
        keep.credential = new
        return True

    @asynccontextmanager
    async def _alone(self, keep: _Keep) -> AsyncIterator[None]:
        """Alone among the processes that share the lock folder."""
        if self._lock_folder is None:
            yield
            return
        lock = FileLock(self._lock_folder / f"{keep.account.id}.lock")
        longest = self._settings.refresh_deadline + self._settings.save_deadline
        try:
            await trio.to_thread.run_sync(private_folder, self._lock_folder)
            with trio.move_on_after(longest) as scope:
                await lock.acquire()
        except StoreError as error:
            if error.reason not in UNWRITABLE:
                raise
            # To serve comes first. Whoever shares the folder cannot lock, either, nor write what it gets.
            yield
            return
        if scope.cancelled_caught:
            raise StoreError(
                f"another kirostream process has been refreshing {keep.account.label} for {longest:g} s",
                reason="locked",
            )
        try:
            yield
        finally:
            lock.release()

    # -- words

    def _refusal(self, keep: _Keep, refused: Refused) -> KirostreamError:
        label, status = keep.account.label, refused.status
        if refused.kind is Refusal.DEAD:
            message = f"{label}: the sign-in is not accepted any more ({refused.message}). {keep.source.login}"
            return CredentialRejected(message, reason=refused.reason, upstream_status=status)
        if refused.kind is Refusal.REGISTRATION:
            message = f"{label}: the client registration has expired ({refused.message}). {keep.source.login}"
            return CredentialRejected(message, reason=refused.reason, upstream_status=status)
        message = f"{label}: the token service failed ({refused.message})"
        kind = UpstreamOverloaded if status in (429, 503) else UpstreamFault
        return kind(message, reason=refused.reason, upstream_status=status)

    def _unsaved(self, keep: _Keep, error: Exception) -> StoreError:
        why = f"a bug ({type(error).__name__})"
        if isinstance(error, KirostreamError):
            why = error.message
        elif isinstance(error, trio.TooSlowError):
            why = f"no answer in {self._settings.save_deadline:g} s"
        return StoreError(
            f"{keep.account.label}: the new token could not be written back and would be lost with this process: {why}",
            reason="unsaved",
        )


def _same(one: Credential, other: Credential) -> bool:
    """Whether nothing that a refresh or a login changes is different."""

    def unit(credential: Credential) -> tuple[str | Secret, ...]:
        return credential.refresh_token, credential.access_token, credential.client_id, credential.client_secret

    return unit(one) == unit(other)
