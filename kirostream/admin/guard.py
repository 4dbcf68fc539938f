"""Who may use the admin room: passwords, keys, sessions, and how often somebody may guess.

A person logs in once, with the panel's password, the gateway's own key or a client key of scope `admin`, and gets a
session: a cookie that scripts cannot read and other sites cannot send, and beside it a token that each request that
changes something has to carry in a header (CSRF). A program sends its key with every request and needs neither.

Once there is a password, the gateway's own key opens nothing here: every tool that asks a model has it.

Sessions live in this process alone, are bounded in number and age, and end when the password changes. Cookies of one
host are shared by all of its ports, so the cookie's name has the data directory in it: two gateways on one machine do
not log each other's operator out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import field
from typing import Final, Protocol

import trio

from kirostream.admin.errors import TooManyTries
from kirostream.admin.password import PasswordFile, verified
from kirostream.admin.settings import AdminSettings
from kirostream.dataclass import dataclass
from kirostream.errors import KeyRejected, NotAllowed
from kirostream.net.exchange import HttpRequest

OWN: Final = "default"
"""The name of the gateway's own key, as `gateway.callers` has it."""
CSRF: Final = b"x-csrf-token"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing, and so need no token."""
LISTED: Final = 1024
"""Addresses whose wrong passwords are remembered, so many of each; who was quiet longest is forgotten first."""
GUESSES: Final = 10
"""How many times the tries of one address all addresses together have."""


class Keys(Protocol):
    """The keys that open the admin room."""

    def admin(self, key: str) -> str:
        """The name of a key of scope `admin`; empty: it is none. Takes the same time for every wrong key."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks. `csrf` is empty for a key that came with the request itself; `until` is in trio's time."""

    name: str
    csrf: str = field(default="", repr=False)
    until: float = float("inf")


@dataclass(slots=True)
class _Session:
    who: Who
    under: object = field(repr=False)
    """The password that it was opened with, or beside; another one ends it."""


class Tries:
    """How often somebody may guess: `most` failures within `window` seconds.

    Args:
        clock: seconds.
    """

    def __init__(self, most: int, window: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._window = window
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Tries of {len(self._failures)} addresses>"

    def adopt(self, most: int, window: float) -> None:
        """Go by other bounds from now on, also for the failures that there were."""
        self._most, self._window = most, window

    def wait(self, who: str) -> float:
        """Seconds until the next try of `who` is looked at; 0: at once."""
        failures = self._failures.get(who)
        if failures is None:
            return 0.0
        now = self._clock()
        while failures and failures[0] <= now - self._window:
            failures.popleft()
        if not failures:
            del self._failures[who]
        if len(failures) < self._most:
            return 0.0
        return failures[-self._most] + self._window - now

    def failed(self, who: str) -> None:
        """A try of `who` was wrong."""
        failures = self._failures.setdefault(who, deque(maxlen=LISTED))
        failures.append(self._clock())
        self._failures.move_to_end(who)
        while len(self._failures) > LISTED:
            self._failures.popitem(last=False)

    def forget(self, who: str) -> None:
        """A try of `who` was right."""
        self._failures.pop(who, None)


class Guard:
    """Lets people and programs in.

    Args:
        place: names this gateway among others on the same host.
        clock: seconds, for the age of sessions and of wrong passwords.
    """

    def __init__(
        self,
        settings: AdminSettings,
        password: PasswordFile,
        keys: Keys,
        place: str,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._settings = settings
        self._password = password
        self._keys = keys
        self._clock = clock
        self.cookie: Final = f"kirostream_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._tries = Tries(settings.tries, settings.window, clock)
        self._all = Tries(settings.tries * GUESSES, settings.window, clock)
        self._hashing = trio.CapacityLimiter(1)

    def adopt(self, settings: AdminSettings) -> None:
        """Go by other settings. Another password ends every session; their length is that of new ones."""
        self._settings = settings
        self._tries.adopt(settings.tries, settings.window)
        self._all.adopt(settings.tries * GUESSES, settings.window)

    def __repr__(self) -> str:
        return f"<Guard {len(self._sessions)} sessions>"

    @property
    def has_password(self) -> bool:
        """Whether the panel has a password of its own."""
        return bool(self._settings.password or self._password.version())

    # -- a request

    def check(self, request: HttpRequest) -> Who:
        """Let a request in.

        Raises:
            KeyRejected: it brings no key and no session, or one that does not hold.
            NotAllowed: it is to change something, and its session's token did not come with it.
        """
        key = _key_of(request)
        if key:
            return Who(self._named(key) or _refused())
        cookie = self._cookie_of(request)
        session = self._sessions.get(_digest(cookie)) if cookie else None
        if session is None or session.who.until <= self._clock() or session.under != self._version():
            if session is not None:
                del self._sessions[_digest(cookie)]
            raise KeyRejected("Nobody is logged in: there is no session of this request, or it has ended.")
        if request.method not in SAFE:
            sent = (request.header(CSRF) or b"").decode("latin-1")
            if not hmac.compare_digest(sent.encode(), session.who.csrf.encode()):
                raise NotAllowed("The request would change something, and came without its session's X-CSRF-Token.")
        return session.who

    def _named(self, key: str) -> str:
        name = self._keys.admin(key)
        return "" if name == OWN and self.has_password else name

    def _version(self) -> object:
        """Another value after every change of the password."""
        return self._settings.password, self._password.version()

    def _cookie_of(self, request: HttpRequest) -> str:
        for name, value in request.headers:
            if name == b"cookie":
                for pair in value.decode("latin-1").split(";"):
                    said, _, held = pair.strip().partition("=")
                    if said == self.cookie:
                        return held
        return ""

    # -- logging in and out

    async def log_in(self, request: HttpRequest, password: str) -> tuple[Who, str]:
        """Open a session.

        Args:
            password: that of the panel, or a key.

        Returns:
            Who it is of, and the value of its ``set-cookie``.

        Raises:
            TooManyTries: too many wrong ones came from this address, or from all together.
            KeyRejected: it is none.
            StoreError: the password's file cannot be read.
        """
        address = request.peer.rpartition(":")[0] or request.peer
        wait = max(self._tries.wait(address), self._all.wait(""))
        if wait > 0:
            raise TooManyTries("Too many wrong passwords came. No other is looked at for a while.", retry_after=wait)
        under = self._version()
        # Counted before the wait, so that guesses side by side are no way around the count.
        self._tries.failed(address)
        self._all.failed("")
        name = await self._knows(password)
        if not name:
            raise KeyRejected(
                "That is not the password of the panel, nor an admin key."
                if self.has_password
                else "That is not the key of this gateway, nor an admin key. No password of the panel was set; "
                "`kirostream admin password` sets one."
            )
        self._tries.forget(address)
        secret = secrets.token_urlsafe(32)
        who = Who(name, secrets.token_urlsafe(32), self._clock() + self._settings.session)
        self._sessions[_digest(secret)] = _Session(who, under)
        while len(self._sessions) > self._settings.sessions:
            self._sessions.popitem(last=False)
        return who, self._set_cookie(request, secret, round(self._settings.session))

    async def _knows(self, password: str) -> str:
        """Whose password or key this is; empty: nobody's."""
        if not password:
            return ""
        name = self._named(password)
        own = self._settings.password
        if own and hmac.compare_digest(own.encode(), password.encode("utf-8", "surrogatepass")):
            name = name or "admin"
        elif not own and (stored := self._password.read()):
            right = await trio.to_thread.run_sync(verified, password, stored, limiter=self._hashing)
            name = name or ("admin" if right else "")
        return name

    def log_out(self, request: HttpRequest) -> str:
        """End the session of a request, if it has one; gives the ``set-cookie`` that takes the cookie back."""
        cookie = self._cookie_of(request)
        if cookie:
            self._sessions.pop(_digest(cookie), None)
        return self._set_cookie(request, "", 0)

    def _set_cookie(self, request: HttpRequest, value: str, age: int) -> str:
        secure = "; Secure" if is_secure(request) else ""
        return f"{self.cookie}={value}; Path=/admin; HttpOnly; SameSite=Strict; Max-Age={age}{secure}"

    def left(self, who: Who) -> float | None:
        """Seconds that somebody stays logged in; None where no session is."""
        return max(who.until - self._clock(), 0.0) if who.csrf else None


def is_secure(request: HttpRequest) -> bool:
    """Whether the client is behind TLS, here or at a proxy in front, which can only make a cookie stricter."""
    return request.secure or (request.header(b"x-forwarded-proto") or b"").strip().lower() == b"https"


def _refused() -> str:
    raise KeyRejected(
        "The key that came is no admin key of this gateway. The panel's password is for the login alone; once it is "
        "set, the gateway's own key opens nothing here."
    )


def _key_of(request: HttpRequest) -> str:
    for name, value in request.headers:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer" and rest.strip():
                return rest.strip().decode("latin-1")
        elif name == b"x-api-key" and value.strip():
            return value.strip().decode("latin-1")
    return ""


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
