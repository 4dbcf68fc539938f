"""Who may call: the gateway's own key, in any of the places clients put it (client-apis.md section 0.3)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl

from kirostream.accounts.sources.headers import is_guest, names_account
from kirostream.dataclass import dataclass
from kirostream.errors import KeyRejected, NotAllowed, StoreError
from kirostream.net.exchange import Headers, HttpRequest
from kirostream.stores.files import atomic_write, private_folder, read_file

KEY_HEADERS: Final = (b"x-api-key", b"api-key")
KEY_PROTOCOL: Final = b"openai-insecure-api-key."
"""How the subprotocol of a WebSocket begins that is a key."""
KEY_FILE: Final = "key"

SCOPES: Final = frozenset({"api", "watch", "admin"})
"""What a key may do: ask, and see its own turns; see the turns of every key; operate the gateway."""
OWN: Final = "default"
"""The name and the id of the gateway's own key."""
INTERNAL: Final = "internal"
"""The name of the key of a front (`guests.key`)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Nothing of it is secret.

    `name` is the key's, `key_id` what it is known by where names may change hands. `account` is the id of the account
    that the request brings, or empty.
    """

    name: str
    key_id: str
    account: str
    scopes: frozenset[str]

    @property
    def owner(self) -> str:
        """Whose turns, answers and conversations they are: those of two owners have nothing to do with each other."""
        return self.account or self.key_id

    def sees(self, owner: str) -> bool:
        """Whether the turns of `owner` may be watched: one's own, and with the scope ``watch`` those of all keys."""
        return owner == self.owner or ("watch" in self.scopes and not self.account and not is_guest(owner))

    def rules(self, owner: str) -> bool:
        """Whether the turns of `owner` may be ended: one's own, and with the scope ``admin`` those of all keys."""
        return owner == self.owner or ("admin" in self.scopes and not self.account and not is_guest(owner))


def load_or_make_key(data_dir: Path) -> tuple[str, bool]:
    """The gateway's own key, made on the first run and kept in a file only its owner can read.

    Returns:
        The key, and whether it was made just now (then it has to be shown).

    Raises:
        StoreError: the file cannot be read, or there is none and none can be written: a key that is gone with the
            process is not given out.
    """
    path = data_dir / KEY_FILE
    if path.exists():
        key = read_file(path).decode("utf-8", "replace").strip()
        if key:
            return key, False
    key = f"ks-{secrets.token_urlsafe(32)}"
    try:
        private_folder(data_dir)
        atomic_write(path, key.encode() + b"\n")
    except StoreError as error:
        raise StoreError(
            f"There is no key yet, and one that cannot be kept is none: {error.message}. "
            "Put that right, or set a key with --key or PROXY_API_KEY.",
            reason=error.reason,
        ) from error
    return key, True


class Book(Protocol):
    """The keys that the operator has given out (`gateway.key_book`)."""

    def find(self, offered: Sequence[bytes]) -> Caller | None:
        """Whose key was offered; None: nobody's.

        Raises:
            KeyRejected: it is one of ours, and no good any more.
        """


class Callers:
    """Checks keys. Several keys may be valid at once; all comparisons take the same time.

    Args:
        keys: what clients send.
        in_query: also take a key from ``?key=``.
        internal: the key of a front that may bring an account with a request (`sources.headers`); empty: none may.
        admit: takes in the account that a request of that front brings, and gives its id.
        book: the other keys.
    """

    def __init__(
        self,
        keys: Iterable[str],
        *,
        in_query: bool = False,
        internal: str = "",
        admit: Callable[[Headers], str] | None = None,
        book: Book | None = None,
    ) -> None:
        self._keys = tuple(key.encode() for key in keys if key)
        self.in_query = in_query
        self._internal = internal.encode() if admit is not None else b""
        self._admit = admit
        self._book = book

    def __repr__(self) -> str:
        return f"<Callers {len(self._keys)} keys>"

    def check(self, request: HttpRequest, *scopes: str) -> Caller:
        """Let a request in.

        Args:
            request: its head.
            scopes: the key has to have one of them; none named: ``api``.

        Raises:
            KeyRejected: no key came, or a wrong one.
            NotAllowed: the key may not do this, or the request brings an account, and must not.
            MalformedRequest: it brings one that cannot be used.
            NoAccount: it brings one where too many are.
        """
        offered = _offered(request)
        if self.in_query:
            offered += [value for name, value in parse_qsl(request.query.encode()) if name == b"key"]
        if not offered:
            raise KeyRejected(
                "No API key came with the request. "
                "Send the gateway's key as `Authorization: Bearer KEY` or `x-api-key: KEY`."
            )
        trusted = _matches((self._internal,) if self._internal else (), offered)
        own = _matches(self._keys, offered)
        given = self._book.find(offered) if not own | trusted and self._book is not None else None
        if given is None and not own | trusted:
            raise KeyRejected(
                "Incorrect API key provided: it is not the key of this gateway. "
                f"Its key is in the file `{KEY_FILE}` of the data directory, or in PROXY_API_KEY."
            )
        if not names_account(request.headers):
            return self._allowed(given or (_INTERNAL if trusted and not own else _OWN), scopes)
        if self._admit is None or not self._internal:
            raise NotAllowed(
                "The request brings an account, in X-Kiro headers, and this gateway takes none. "
                "To allow it, set guests.key (INTERNAL_API_KEY), and send that key with it."
            )
        if not trusted:
            raise NotAllowed("Only the internal key may bring an account in X-Kiro headers (guests.key).")
        caller = self._allowed(_INTERNAL, scopes)
        return replace(caller, account=self._admit(request.headers))

    @staticmethod
    def _allowed(caller: Caller, scopes: tuple[str, ...]) -> Caller:
        """`caller`, who may do this."""
        needed = scopes or ("api",)
        if caller.scopes.isdisjoint(needed):
            raise NotAllowed(
                f"The key {caller.name!r} may not do this: it takes a key with the scope {' or '.join(needed)}, "
                f"and this one has {', '.join(sorted(caller.scopes)) or 'none'}."
            )
        return caller


_OWN: Final = Caller(OWN, OWN, "", SCOPES)
_INTERNAL: Final = Caller(INTERNAL, OWN, "", frozenset({"api"}))
"""Whoever has the key of the front (`guests.key`)."""


def _matches(keys: Iterable[bytes], offered: Iterable[bytes]) -> bool:
    """Whether a key was offered. How long it takes says nothing of which, nor how much of it."""
    valid = False
    for key in keys:
        for candidate in offered:
            valid |= hmac.compare_digest(key, candidate)
    return valid


def _offered(request: HttpRequest) -> list[bytes]:
    """Every key the request carries. Two may arrive together; either may be the right one."""
    found = []
    for name, value in request.headers:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer" and rest:
                found.append(rest.strip())
        elif name in KEY_HEADERS and value:
            found.append(value.strip())
        elif name == b"sec-websocket-protocol":  # a browser cannot set another header of a WebSocket
            offered = (each.strip() for each in value.split(b","))
            found += [each.removeprefix(KEY_PROTOCOL) for each in offered if each.startswith(KEY_PROTOCOL)]
    return found
