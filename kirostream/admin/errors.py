"""What the admin API refuses, and the one form in which it says so.

::

    {"error": {"type": "not_found", "message": "...", "next": "...", "param": ""}}

`message` says what is wrong, `next` what to do about it, `param` the member that is to blame, where one is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from kirostream.errors import (
    Blame,
    KeyRejected,
    KirostreamError,
    MalformedRequest,
    MethodNotAllowed,
    NoSuchRoute,
    NotAllowed,
    RequestError,
    RequestTooLarge,
    RequestTooSlow,
    SettingsError,
)
from kirostream.net.exchange import Headers


class NotThere(RequestError):
    """What the path names is not there (any more)."""

    status = 404


class Conflict(RequestError):
    """It cannot be done as things are."""

    status = 409


class TooManyTries(RequestError):
    """Too many wrong passwords came; `retry_after` says when the next one is looked at."""

    status = 429


class Unavailable(RequestError):
    """This gateway does not have the part that is asked for."""

    status = 404


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, and what to do about it."""

    type: str
    message: str
    next: str
    param: str = ""


class Failure(msgspec.Struct, frozen=True):
    """The body of every answer that is none."""

    error: Fault


SAFE_HEADERS: Final[Headers] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Of every answer of the API."""

_KINDS: Final[Mapping[type[KirostreamError], tuple[str, str]]] = {
    KeyRejected: ("unauthorized", "Log in at /admin, or send an admin key as `Authorization: Bearer KEY`."),
    TooManyTries: ("too_many_tries", "Wait for the time in `retry-after`, then try again."),
    NotAllowed: ("forbidden", "Load the page again, and log in with a key or password that may do this."),
    Conflict: ("conflict", "Look at the present state, and change that first."),
    Unavailable: ("unavailable", "Switch the feature on in the settings."),
    NotThere: ("not_found", "Ask for the list again; it may have changed."),
    NoSuchRoute: ("not_found", "See /admin/api/openapi.json for what there is."),
    MethodNotAllowed: ("method_not_allowed", "Use one of the methods in `allow`."),
    RequestTooLarge: ("too_large", "Send less at once."),
    RequestTooSlow: ("too_slow", "Send the whole request at once."),
    MalformedRequest: ("bad_request", "Correct what was sent; see /admin/api/openapi.json for its form."),
    SettingsError: ("bad_value", "Correct the value, and send it again."),
}
"""The name of each kind, and what to do about it. Its status is its own."""

_BLAMED: Final[Mapping[Blame, tuple[str, str]]] = {
    Blame.ACCOUNT: ("account", "Look at the account: it may have to sign in again, or to wait."),
    Blame.UPSTREAM: ("upstream", "Try again later; the upstream or the network is to blame."),
    Blame.OPERATOR: ("operator", "Put right what the message names, then try again."),
    Blame.CLIENT: ("bad_request", "Correct what was sent."),
    Blame.US: ("internal", "Look into the logs; if it stays so, report it."),
}


def _status(error: KirostreamError) -> int:
    if isinstance(error, SettingsError):
        return 400  # it has none: elsewhere nothing starts with it
    # What the upstream says of an account is no word of ours: its 401 must not log the operator out.
    return 409 if error.blame is Blame.ACCOUNT else error.status


def word(error: KirostreamError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error's answer. What a client must not see of an error is not in its message."""
    status = _status(error)
    named = next((said for kind, said in _KINDS.items() if isinstance(error, kind)), None)
    name, following = named or _BLAMED[error.blame]
    param = getattr(error, "param", "")
    said = Failure(Fault(name, error.message, following, param if isinstance(param, str) else ""))
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json"), *SAFE_HEADERS]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode("ascii")))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="kirostream admin"'))
    return status, headers, msgspec.json.encode(said)
