"""Who is speaking, and when to try again."""

from __future__ import annotations

import pytest

from kirostream.dialects.hints import betas_ask_for_thinking, overflow, retry_headers, session_hint
from kirostream.errors import (
    AccountSuspended,
    AccountThrottled,
    KeyRejected,
    KirostreamError,
    MalformedRequest,
    MethodNotAllowed,
    NoAccount,
    QuotaSpent,
    UpstreamDown,
)


@pytest.mark.parametrize(
    ("betas", "agent", "asks"),
    [
        ("interleaved-thinking-2025-05-14", "anthropic-py/2.12", True),
        ("a-1, Extended-Thinking-2025", "", True),
        ("claude-code-20250219,interleaved-thinking-2025-05-14", "", False),
        ("interleaved-thinking-2025-05-14", "claude-cli/2.1.330 (external, cli)", False),
        ("interleaved-thinking-2025-05-14", "claude-code/2.1.330", False),
        ("clear-thinking-20251015,redact-thinking-2026-02-12", "", False),
        ("context-1m-2025-08-07", "", False),
        ("", "", False),
    ],
)
def test_a_beta_may_ask_for_thinking(betas: str, agent: str, asks: bool) -> None:
    headers = [(b"anthropic-beta", betas.encode()), (b"user-agent", agent.encode())]
    assert betas_ask_for_thinking(headers) is asks
    apart = [(b"anthropic-beta", token.encode()) for token in betas.split(",")]
    assert betas_ask_for_thinking([*apart, (b"user-agent", agent.encode())]) is asks


USER_ID = '{"device_id":"d","account_uuid":"","session_id":"in-user-id"}'
OLD_USER_ID = "user_abc_account_def_session_0d8e-1"

FIRST_HIT = [
    ([(b"x-claude-code-session-id", b"cc")], {"user_id": USER_ID}, "cc"),
    ([(b"x-session-affinity", b"oc")], {"user_id": USER_ID}, "in-user-id"),
    ([(b"x-session-affinity", b"oc")], {"user_id": OLD_USER_ID}, "0d8e-1"),
    ([(b"x-session-id", b"b"), (b"x-session-affinity", b"a")], {}, "a"),
    ([(b"x-session-id", b"b"), (b"session-id", b"c")], {}, "b"),
    ([(b"thread-id", b"d"), (b"session-id", b"c")], {}, "c"),
    ([(b"thread-id", b"d")], {"cache_key": "k"}, "d"),
    ([(b"x-client-request-id", b"r")], {"cache_key": "k", "previous": "p", "user": "u"}, "k"),
    ([(b"x-client-request-id", b"r")], {"previous": "p", "user": "u"}, "p"),
    ([(b"x-client-request-id", b"r")], {"user": "u"}, "r"),
    ([], {"user": "u"}, "u"),
    ([], {"user_id": "somebody"}, "somebody"),
    ([], {"user_id": '{"session_id": 5}'}, '{"session_id": 5}'),
    ([(b"x-session-id", b" ")], {}, ""),
    ([], {}, ""),
]


@pytest.mark.parametrize(("headers", "said", "session"), FIRST_HIT)
def test_the_first_hit_names_the_session(
    headers: list[tuple[bytes, bytes]], said: dict[str, str], session: str
) -> None:
    assert session_hint(headers, **said) == session


NO = (b"x-should-retry", b"false")
RETRY = [
    (KeyRejected("No."), [NO]),
    (AccountSuspended("No."), [NO]),
    (QuotaSpent("No."), [NO]),
    (QuotaSpent("No.", retry_after=5), [(b"retry-after", b"5"), (b"retry-after-ms", b"5000"), NO]),
    (AccountThrottled("No."), []),
    (AccountThrottled("No.", retry_after=0.3), [(b"retry-after", b"1"), (b"retry-after-ms", b"300")]),
    (AccountThrottled("No.", retry_after=120), [(b"retry-after", b"120"), (b"retry-after-ms", b"120000")]),
    (AccountThrottled("No.", retry_after=120.5), [(b"retry-after", b"121"), NO]),
    (AccountThrottled("No.", retry_after=-1), [(b"retry-after", b"0"), (b"retry-after-ms", b"0")]),
    (NoAccount("No."), [NO]),
    (NoAccount("No.", retry_after=2), [(b"retry-after", b"2"), (b"retry-after-ms", b"2000")]),
    (UpstreamDown("No."), []),
    (MalformedRequest("No."), []),
    (MethodNotAllowed("No.", allowed=("POST", "HEAD")), [(b"allow", b"POST, HEAD")]),
]


@pytest.mark.parametrize(("error", "headers"), RETRY)
def test_retry_headers(error: KirostreamError, headers: list[tuple[bytes, bytes]]) -> None:
    assert retry_headers(error) == headers


@pytest.mark.parametrize(
    ("message", "reason", "counts"),
    [
        ("prompt is too long: 210000 tokens > 200000 maximum", "", (210000, 200000)),
        ("Input is too long.", "", (0, 0)),
        ("This model's maximum context length is 8192 tokens.", "", (0, 0)),
        ("No.", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", (0, 0)),
        ("No.", "context_length_exceeded", (0, 0)),
    ],
)
def test_an_overflow_is_known_by_its_words(message: str, reason: str, counts: tuple[int, int]) -> None:
    error = overflow(message, reason=reason)
    assert error is not None
    assert (error.tokens, error.limit) == counts


def test_other_words_are_no_overflow() -> None:
    assert overflow("The image is too large.", reason="IMAGE_SIZE_EXCEEDED") is None
