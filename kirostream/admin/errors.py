"""What the admin API refuses, and the one form in which it says so.

::

    {"error": {"type": "not_found", "message": "...", "next": "...", "param": ""}}

`message` says what is wrong, `next` what to do about it, `param` the member that is to blame, where one is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypeAlias

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


_Said: TypeAlias = tuple[int, str, str]

_KINDS: Final[tuple[tuple[type[KirostreamError], _Said], ...]] = (
    (KeyRejected, (401, "unauthorized", "Log in at /admin, or send an admin key as `Authorization: Bearer KEY`.")),
    (TooManyTries, (429, "too_many_tries", "Wait for the time in `retry-after`, then try again.")),
    (NotAllowed, (403, "forbidden", "Load the page again, and log in with a key or password that may do this.")),
    (Conflict, (409, "conflict", "Look at the present state, and change that first.")),
    (Unavailable, (404, "unavailable", "Switch the feature on in the settings.")),
    (NotThere, (404, "not_found", "Ask for the list again; it may have changed.")),
    (NoSuchRoute, (404, "not_found", "See /admin/api/openapi.json for what there is.")),
    (MethodNotAllowed, (405, "method_not_allowed", "Use one of the methods in `allow`.")),
    (RequestTooLarge, (413, "too_large", "Send less at once.")),
    (MalformedRequest, (400, "bad_request", "Correct what was sent; see /admin/api/openapi.json for its form.")),
    (SettingsError, (400, "bad_value", "Correct the value, and send it again.")),
)


_BLAMED: Final[Mapping[Blame, tuple[str, str]]] = {
    Blame.ACCOUNT: ("account", "Look at the account: it may have to sign in again, or to wait."),
    Blame.UPSTREAM: ("upstream", "Try again later; the upstream or the network is to blame."),
    Blame.OPERATOR: ("operator", "Put right what the message names, then try again."),
    Blame.CLIENT: ("bad_request", "Correct what was sent."),
    Blame.US: ("internal", "Look into the logs; if it stays so, report it."),
}


def _said(error: KirostreamError) -> _Said:
    for kind, said in _KINDS:
        if isinstance(error, kind):
            return said
    # What the upstream says of an account is no word of ours: its 401 must not log the operator out.
    status = 409 if error.blame is Blame.ACCOUNT else error.status
    return status, *_BLAMED[error.blame]


def word(error: KirostreamError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error's answer. What a client must not see of an error is not in its message."""
    status, name, following = _said(error)
    param = getattr(error, "param", "")
    said = Failure(Fault(name, error.message, following, param if isinstance(param, str) else ""))
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode("ascii")))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="kirostream admin"'))
    return status, headers, msgspec.json.encode(said)
