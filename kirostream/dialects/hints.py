"""What the languages share about their clients: who is speaking, when to try again, what an overflow sounds like."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from kirostream.dialects.dialect import Headers
from kirostream.errors import BudgetSpent, ContextOverflow, KirostreamError, MethodNotAllowed, NoAccount, QuotaSpent

LONG_WAIT: Final = 120.0
"""Seconds. OpenAI's SDKs do not wait longer, Anthropic's wait for as long as told (client-apis.md section 0.6)."""

# An older Claude Code: user_<hash>_account_<uuid>_session_<uuid>.
_SESSION: Final = re.compile(r"_session_([0-9A-Za-z-]+)$")
_LENGTHS: Final = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
_OVERFLOW: Final = re.compile(
    r"prompt is too long|input is too long|maximum context length|context_length_exceeded|exceeds the context window"
    r"|CONTENT_LENGTH_EXCEEDS_THRESHOLD|PROMPT_TOO_LONG",
    re.IGNORECASE,
)


class _UserId(msgspec.Struct):
    session_id: str = ""


def session_hint(
    headers: Headers, *, user_id: str = "", cache_key: str = "", previous: str = "", user: str = ""
) -> str:
    """The client's own name for the conversation, empty where it gave none (client-apis.md section 6, first hit wins).

    Args:
        headers: of the request.
        user_id: Anthropic's ``metadata.user_id``, in which Claude Code hides its session.
        cache_key: OpenAI's ``prompt_cache_key``.
        previous: ``previous_response_id``.
        user: ``user`` or ``safety_identifier``: who, not which conversation; better than nothing.
    """
    found: dict[bytes, str] = {}
    for name, value in headers:
        found.setdefault(name, value.decode("latin-1").strip())
    return (
        found.get(b"x-claude-code-session-id")
        or _session_of(user_id)
        or found.get(b"x-session-affinity")
        or found.get(b"x-session-id")
        or found.get(b"session-id")
        or found.get(b"thread-id")
        or cache_key
        or previous
        or found.get(b"x-client-request-id")
        or user
        or user_id
    )


def _session_of(user_id: str) -> str:
    if user_id.startswith("{"):
        try:
            return msgspec.json.decode(user_id, type=_UserId).session_id
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return ""  # the client's own text; it need not be JSON
    named = _SESSION.search(user_id)
    return named[1] if named else ""


def betas_ask_for_thinking(headers: Headers) -> bool:
    """Whether ``anthropic-beta`` alone asks for thinking, in a request whose body says nothing of it.

    Tools that were written for earlier gateways ask in no other way. Claude Code names such a beta in every request,
    also where it wants no thinking (client-apis.md section 5.1): what it wants stands in its bodies.
    """
    betas = {
        token.strip().lower()
        for name, value in headers
        if name == b"anthropic-beta"
        for token in value.decode("latin-1").split(",")
    }
    if any(token.startswith("claude-code-") for token in betas) or any(
        name == b"user-agent" and value.lower().startswith((b"claude-cli/", b"claude-code/")) for name, value in headers
    ):
        return False
    return any("thinking" in token and not token.startswith(_NO_WISH) for token in betas)


_NO_WISH: Final = ("clear-", "redact-")
"""Betas that are about thoughts, and do not ask for any."""


def retry_headers(error: KirostreamError) -> list[tuple[bytes, bytes]]:
    """The headers that tell an SDK whether and when to repeat (client-apis.md section 0.6).

    Without ``x-should-retry`` the SDKs repeat 408, 409, 429 and 5xx, and Claude Code also 401 for minutes. So "no" is
    said where a repeat cannot help: a refused key, spent credits, a wait longer than anyone sits out, no account.
    """
    fields: list[tuple[bytes, bytes]] = []
    wait = error.retry_after
    if wait is not None:
        wait = max(wait, 0.0)
        fields.append((b"retry-after", b"%d" % math.ceil(wait)))
        if wait <= LONG_WAIT:
            fields.append((b"retry-after-ms", b"%d" % math.ceil(wait * 1000)))
    hopeless = (
        error.status in (401, 403)
        or isinstance(error, QuotaSpent | BudgetSpent)
        or (wait is not None and wait > LONG_WAIT)
        or (wait is None and isinstance(error, NoAccount))
    )
    if hopeless:
        fields.append((b"x-should-retry", b"false"))
    if isinstance(error, MethodNotAllowed):
        fields.append((b"allow", ", ".join(error.allowed).encode()))
    return fields


def overflow(message: str, *, reason: str = "", upstream_status: int = 0) -> ContextOverflow | None:
    """The error that an upstream's words for "too long" stand for, None where they say something else."""
    if not (_OVERFLOW.search(message) or _OVERFLOW.search(reason)):
        return None
    counts = _LENGTHS.search(message)
    tokens, limit = (int(counts[1]), int(counts[2])) if counts else (0, 0)
    return ContextOverflow(message, reason=reason, upstream_status=upstream_status, tokens=tokens, limit=limit)
