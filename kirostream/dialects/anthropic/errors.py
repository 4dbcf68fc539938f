"""Errors of Messages, written and read (client-apis.md section 4.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from kirostream.dialects.dialect import Complaint, ErrorReply, Headers
from kirostream.dialects.hints import overflow, retry_headers
from kirostream.dialects.jsontext import decode_answer, encode
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    BudgetSpent,
    CallerThrottled,
    ContextOverflow,
    CredentialRejected,
    KeyRejected,
    KirostreamError,
    MalformedRequest,
    ModelNotOnAccount,
    NoAccount,
    NoSuchRoute,
    NoSuchTurn,
    NotAllowed,
    QuotaSpent,
    RemoteProtocolError,
    RequestError,
    RequestTooLarge,
    RequestTooSlow,
    ShuttingDown,
    UnknownModel,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)


class WireDetails(msgspec.Struct):
    """``error.details``."""

    error_code: str | None = None


class WireError(msgspec.Struct):
    """``error``."""

    type: str = ""
    message: str = ""
    details: WireDetails | None = None


class WireErrorBody(msgspec.Struct):
    """A whole error."""

    error: WireError


_WORDS: Final[Mapping[type[KirostreamError], tuple[int, str]]] = {
    KeyRejected: (401, "authentication_error"),
    NotAllowed: (403, "permission_error"),
    NoSuchRoute: (404, "not_found_error"),
    UnknownModel: (404, "not_found_error"),
    RequestTooSlow: (408, "timeout_error"),
    RequestTooLarge: (413, "request_too_large"),
    CallerThrottled: (429, "rate_limit_error"),
    BudgetSpent: (429, "billing_error"),
    RequestError: (0, "invalid_request_error"),
    UpstreamOverloaded: (529, "overloaded_error"),
    UpstreamTimeout: (504, "timeout_error"),
    AccountThrottled: (429, "rate_limit_error"),
    QuotaSpent: (429, "billing_error"),
    CredentialRejected: (401, "authentication_error"),
    AccountSuspended: (403, "permission_error"),
    AccessDenied: (403, "permission_error"),
    NoSuchTurn: (404, "not_found_error"),
    ModelNotOnAccount: (404, "not_found_error"),
    UpstreamRefused: (400, "invalid_request_error"),
    NoAccount: (529, "overloaded_error"),
    ShuttingDown: (529, "overloaded_error"),
    KirostreamError: (0, "api_error"),
}
"""Status and type of each class; a class that is not here is worded as its base is. Status 0: the error's own."""

_CLASSES: Final[Mapping[str, type[UpstreamError]]] = {
    "invalid_request_error": UpstreamRefused,
    "request_too_large": UpstreamRefused,
    "authentication_error": CredentialRejected,
    "billing_error": QuotaSpent,
    "permission_error": AccessDenied,
    "not_found_error": ModelNotOnAccount,
    "rate_limit_error": AccountThrottled,
    "timeout_error": UpstreamTimeout,
    "overloaded_error": UpstreamOverloaded,
    "api_error": UpstreamFault,
}


def write_error(error: KirostreamError, request_id: str) -> ErrorReply:
    """An error as a whole HTTP answer, with ``request-id`` and the headers that govern repeats."""
    status = _words(error)[0] or error.status
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    body = error_body(error)
    if request_id:
        headers.append((b"request-id", request_id.encode()))
        body["request_id"] = request_id
    return ErrorReply(status, [*headers, *retry_headers(error)], encode(body))


def _words(error: KirostreamError) -> tuple[int, str]:
    return next(_WORDS[kind] for kind in type(error).__mro__ if kind in _WORDS)


def error_body(error: KirostreamError) -> dict[str, object]:
    """An error as a body, and as the data of an ``error`` event."""
    story: dict[str, object] = {"type": _words(error)[1], "message": _message(error)}
    if isinstance(error, MalformedRequest) and error.reason == "thread_unsupported_request":
        # The SDKs' tool runners read this and send the whole conversation instead (client-surprises.md, 2).
        story["details"] = {"error_code": error.reason, "unsupported": ["thread"]}
    return {"type": "error", "error": story}


def _message(error: KirostreamError) -> str:
    """Claude Code compacts the conversation when it reads one of these two sentences, and only then (section 4.9)."""
    if isinstance(error, ContextOverflow):
        if error.tokens and error.limit:
            return f"prompt is too long: {error.tokens} tokens > {error.limit} maximum"
        # Without counts: the words of both kinds of client, those that look for the first half and for the second.
        return "prompt is too long: input is too long for requested model"
    return error.message


def read_error(headers: Headers, body: bytes) -> Complaint:
    """An error body: `code` is the type, `reason` the code in its details. What is no such body is all message."""
    try:
        error = decode_answer(body, WireErrorBody).error
    except RemoteProtocolError:
        return Complaint(message=body[:500].decode("utf-8", "replace").strip())
    return Complaint(error.type, (error.details and error.details.error_code) or "", error.message)


def failure(code: str, message: str) -> UpstreamError:
    """The error that an ``error`` event in a stream stands for."""
    message = message or "The upstream broke off with an error."
    kind = _CLASSES.get(code, UpstreamFault)
    if kind is UpstreamRefused and (too_long := overflow(message, reason=code)):
        return too_long
    return kind(message, reason=code)
