"""Base URLs as people type them, and the one hint that each client is worth."""

from __future__ import annotations

import pytest

from kirostream.gateway.base_urls import BaseUrlHints, canonical, right_base
from kirostream.net.exchange import HttpRequest
from kirostream.telemetry.facts import BaseUrlMended


@pytest.mark.parametrize(
    ("path", "served", "base"),
    [
        ("/messages", "/v1/messages", "/v1"),
        ("/messages/count_tokens", "/v1/messages/count_tokens", "/v1"),
        ("/v1/v1/messages", "/v1/messages", ""),
        ("/v1/v1/v1/messages", "/v1/messages", ""),
        ("/chat/completions", "/v1/chat/completions", "/v1"),
        ("/openai/v1/chat/completions", "/v1/chat/completions", ""),
        ("/openai/chat/completions", "/v1/chat/completions", "/v1"),
        ("/anthropic/v1/messages", "/v1/messages", ""),
        ("/v1/anthropic/v1/messages", "/v1/messages", ""),
        ("//v1/messages", "/v1/messages", ""),
        ("/models/claude-sonnet-4.5", "/v1/models/claude-sonnet-4.5", "/v1"),
        ("/responses/resp_1/cancel", "/v1/responses/resp_1/cancel", "/v1"),
        ("/v1/messages/", "/v1/messages", ""),
        ("/health/", "/health", ""),
        ("/v1", "/v1", ""),
        ("/", "/", "/"),
        ("/elsewhere/v1/messages", "/elsewhere/v1/messages", ""),
    ],
)
def test_a_path_and_what_was_meant(path: str, served: str, base: str) -> None:
    assert canonical(path) == served
    assert right_base(path, served) == base


def test_a_hint_names_the_client_and_the_base_once() -> None:
    told: list[BaseUrlMended] = []
    hints = BaseUrlHints(told.append)
    headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"ai-sdk/4.0 runtime/node")]
    for _ in range(3):
        hints.mended(HttpRequest("POST", "/messages", "", headers), "/v1/messages")
    hints.mended(HttpRequest("POST", "/v1/v1/messages", "", ()), "/v1/messages")
    assert [(hint.client, hint.base_url) for hint in told] == [
        ("ai-sdk/4.0", "http://127.0.0.1:8000/v1"),
        ("a client", "http://HOST"),
    ]
