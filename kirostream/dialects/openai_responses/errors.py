"""Responses errors. Before the first byte they are chat's, word for word (client-apis.md section 2.5); afterwards a
failed response (section 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kirostream.dialects.dialect import Complaint, ErrorReply, Headers
from kirostream.dialects.hints import overflow
from kirostream.dialects.openai_chat import response as chat
from kirostream.dialects.openai_responses.wire import WireError
from kirostream.errors import (
    AccountThrottled,
    BudgetSpent,
    CallerThrottled,
    ContextOverflow,
    KirostreamError,
    ModelNotOnAccount,
    NoAccount,
    QuotaSpent,
    RequestError,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
)

_CODES: Final[Sequence[tuple[type[KirostreamError], str]]] = (
    (ContextOverflow, "context_length_exceeded"),
    (QuotaSpent, "insufficient_quota"),
    (AccountThrottled, "rate_limit_exceeded"),
    (UpstreamOverloaded, "server_is_overloaded"),
    (NoAccount, "server_is_overloaded"),
    (BudgetSpent, "insufficient_quota"),
    (CallerThrottled, "rate_limit_exceeded"),
    (RequestError, "invalid_prompt"),
    (ModelNotOnAccount, "invalid_prompt"),
    (UpstreamRefused, "invalid_prompt"),
)
"""Codes of a failed response; Codex repeats what says ``server_error``, and knows the others (section 0.6)."""

_CLASSES: Final[Mapping[str, type[UpstreamError]]] = {
    "context_length_exceeded": ContextOverflow,
    "insufficient_quota": QuotaSpent,
    "rate_limit_exceeded": AccountThrottled,
    "server_is_overloaded": UpstreamOverloaded,
    "invalid_prompt": UpstreamRefused,
}


class _Said(msgspec.Struct):
    error: WireError


def error_words(error: KirostreamError) -> str:
    """The message for a client; where it makes sense to wait, with the words from which Codex takes how long."""
    message = msgspec.json.decode(chat.write_error(error, "").body, type=_Said).error.message or error.message
    if isinstance(error, AccountThrottled | CallerThrottled) and error.retry_after is not None:
        message += f" Please try again in {max(error.retry_after, 0.0):.3g}s."
    return message


def write_failure(error: KirostreamError) -> dict[str, object]:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "server_error")
    return {"code": code, "message": error_words(error)}


def failure(said: WireError) -> UpstreamError:
    """The error that a failed response stands for."""
    message = said.message or "The upstream broke off with an error."
    code = said.code or ""
    kind = _CLASSES.get(code, UpstreamFault)
    if issubclass(kind, UpstreamRefused) and (too_long := overflow(message, reason=code)):
        return too_long
    return kind(message, reason=code)


def write_error(error: KirostreamError, request_id: str) -> ErrorReply:
    """An error as a whole HTTP answer."""
    return chat.write_error(error, request_id)


def read_error(headers: Headers, body: bytes) -> Complaint:
    """An error body: `code` is the type, `reason` the code."""
    return chat.read_error(headers, body)
