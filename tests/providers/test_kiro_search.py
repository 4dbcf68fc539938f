"""Kiro's web search: what is sent, and what its answers mean (kiro-protocol.md section 6.5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.errors import KirostreamError, RemoteProtocolError, UpstreamFault, UpstreamRefused
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.kiro_search import read_results
from kirostream.turn.request import SearchHit

ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"


def account(auth: AuthMethod = AuthMethod.SOCIAL) -> Account:
    return Account(id=AccountId("a"), label="someone", auth=auth, machine_id="ab" * 32)


def token(arn: str = ARN) -> Token:
    return Token(Secret("aoaSECRET"), NEVER, arn, AccountId("a"))


def said(inner: Any, **more: Any) -> bytes:
    text = inner if isinstance(inner, str) else json.dumps(inner)
    result = {"isError": False, "content": [{"type": "text", "text": text}]} | more
    return json.dumps({"id": "x", "jsonrpc": "2.0", "result": result}).encode()


def test_a_request_for_a_search() -> None:
    ask = KiroProvider().web_search("rust é", "web_search_1", account(), token())
    headers = dict(ask.headers)
    assert (ask.method, ask.url) == ("POST", "https://q.eu-central-1.amazonaws.com/mcp")
    assert headers[b"authorization"] == b"Bearer aoaSECRET"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-amzn-kiro-profile-arn"] == ARN.encode()
    assert b"x-amzn-kiro-agent-mode" not in headers
    assert json.loads(ask.body) == {
        "id": "web_search_1",
        "jsonrpc": "2.0",
        "method": "tools/call",
        "params": {"name": "web_search", "arguments": {"query": "rust é"}},
    }
    assert "aoaSECRET" not in repr(ask)


def test_an_account_without_a_profile_sends_none() -> None:
    headers = dict(KiroProvider().web_search("x", "1", account(AuthMethod.API_KEY), token("")).headers)
    assert b"x-amzn-kiro-profile-arn" not in headers
    assert headers[b"tokentype"] == b"API_KEY"


def test_results() -> None:
    hit = {"title": "T", "url": "https://example.com", "snippet": "S", "publishedDate": 1_767_225_600_000, "id": "1"}
    bare = {"url": "https://example.org", "title": None}
    body = said({"results": [hit, bare, {"title": "no address"}], "totalResults": 3, "query": "q", "error": None})
    assert KiroProvider().read_web_search(body) == [
        SearchHit("https://example.com", "T", "2026-01-01", "S"),
        SearchHit("https://example.org", ""),
    ]
    assert read_results(said({"results": [], "totalResults": 0})) == []


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda d: d.replace(tzinfo=UTC)))
def test_dates(when: datetime) -> None:
    days = (when - datetime(1970, 1, 1, tzinfo=UTC)).days
    hit = {"url": "u", "publishedDate": days * 86_400_000 + 3_600_000}
    assert read_results(said({"results": [hit]}))[0].age == when.date().isoformat()


@pytest.mark.parametrize(
    ("published", "age"),
    [(None, ""), ("2 days ago", "2 days ago"), (1e300, ""), (-1e300, ""), (1_767_225_600_000.5, "2026-01-01")],
)
def test_odd_dates(published: object, age: str) -> None:
    assert read_results(said({"results": [{"url": "u", "publishedDate": published}]}))[0].age == age


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"error":{"code":-32602,"message":"too long"}}', UpstreamRefused, "too long"),
        (b'{"error":{"code":-32000,"message":"no"}}', UpstreamFault, "no"),
        (b'{"error":{"code":-32000}}', UpstreamFault, "-32000"),
        (said("it broke", isError=True), UpstreamFault, "it broke"),
        (said({"results": [], "error": "quota"}), UpstreamFault, "quota"),
        (said({"results": None, "error": {"x": 1}}), UpstreamFault, "x"),
        (said("<html>"), RemoteProtocolError, "cannot be read"),
        (said([1]), RemoteProtocolError, "cannot be read"),
        (said("x", content=[]), RemoteProtocolError, "no content"),
        (b'{"id":"x"}', RemoteProtocolError, "no content"),
        (b"<html>", RemoteProtocolError, "cannot be read"),
        (b"\xff", RemoteProtocolError, "cannot be read"),
    ],
)
def test_what_is_no_result_is_an_error(body: bytes, kind: type[KirostreamError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read_results(body)
