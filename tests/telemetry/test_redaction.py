"""Redaction: what opens something is masked wherever it stands, and what was said stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kirostream.evstream import encode_frame
from kirostream.telemetry.redaction import Redactor, runs

FRAMES = b"application/vnd.amazon.eventstream"
SSE = b"text/event-stream; charset=utf-8"
TOKEN = "aoaAAAAAGl0b2tlbi1vZi1zb21lYm9keQ"

SECRETS = [
    TOKEN,
    "ksk_0123456789abcdefghijklmnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "ks-abcdefghijklmnop",
    "sk-ant-api03-abcdefghijklmnop",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "arn:aws:codewhisperer:us-east-1:123456789012:profile/AAAACCCCDDDD",
    "somebody.else@mail.example.org",
    "Bearer abcdefgh1234",
    "f" * 64,
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_goes_and_what_is_around_it_stays(secret: str) -> None:
    shown = Redactor().text(f"before {secret} after")
    assert secret not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@pytest.mark.parametrize(
    "said",
    ["password=hunter22", "API_KEY: abcdef123", '"client_secret": "abcdef"', "X-Api-Key: abcdef", "token=abcdef"],
)
def test_what_is_assigned_to_a_secret_name_goes(said: str) -> None:
    shown = Redactor().text(f"export {said} && run")
    assert "****" in shown
    assert said.rpartition("=" if "=" in said else " ")[2].strip('"') not in shown
    assert shown.endswith(" && run")


def test_plain_words_stay() -> None:
    said = "The token is spent. See https://example.org/a?b=c, 2026-11-21T09:30, sha 1f3a99c0, max_tokens=99."
    assert Redactor().text(said) == said


def test_heads_show_what_says_nothing_of_anybody() -> None:
    redactor = Redactor()
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer an-odd-key"),
        (b"cookie", b"session=a-cookie-of-somebody"),
        (b"anthropic-beta", b"tools-2024"),
        (b"x-amz-security-token", b"a-security-token"),
        (b"x-unknown", b"what is this"),
        (b"user-agent", b"KiroIDE-" + b"0" * 64),
    ]
    assert redactor.headers(headers) == [
        ["content-type", "application/json"],
        ["authorization", "<17 characters>"],
        ["cookie", "<28 characters>"],
        ["anthropic-beta", "tools-2024"],
        ["x-amz-security-token", "<16 characters>"],
        ["x-unknown", "<12 characters>"],
        ["user-agent", "KiroIDE-****"],
    ]
    assert redactor.query("beta=true&key=of-the-query") == ["beta", "key"]
    said = "an-odd-key, a-cookie-of-somebody and of-the-query"
    assert redactor.text(said) == "****, **** and ****", "what heads hide is looked for everywhere"


def test_members_that_name_a_secret_lose_it_wherever_it_is_said_again() -> None:
    redactor = Redactor()
    said = {
        "messages": [{"content": "it is open-sesame"}],
        "clientSecret": "open-sesame",
        "profileArn": "p",
        "max_tokens": 99,
        "tools": [{"properties": {"token": {"type": "string"}}, "required": ["token"]}],
    }
    once = redactor.body(json.dumps(said).encode(), b"application/json")
    assert redactor.value(once) == {
        "messages": [{"content": "it is ****"}],
        "clientSecret": "****",
        "profileArn": "****",
        "max_tokens": 99,
        "tools": [{"properties": {"token": {"type": "string"}}, "required": ["token"]}],
    }


def frame(content: str) -> bytes:
    headers = {":message-type": "event", ":event-type": "assistantResponseEvent", ":content-type": "application/json"}
    return encode_frame(headers, json.dumps({"content": content}).encode())


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_secret_that_comes_in_pieces_is_masked(size: int) -> None:
    said = f"it is {TOKEN}!"
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    frames = b"".join(map(frame, pieces))
    events = "".join(f"event: delta\ndata: {json.dumps({'n': n, 'text': text})}\n\n" for n, text in enumerate(pieces))
    for data, kind in ((frames, FRAMES), (events.encode(), SSE)):
        shown = json.dumps(Redactor().body(data, kind))
        assert "it is ****!" in shown
        assert not any(TOKEN[at : at + 8] in shown for at in range(len(TOKEN) - 8))
        assert json.loads(shown)[0]["lengths"] == list(map(len, pieces))


def test_a_body_is_shown_as_what_it_is() -> None:
    show = Redactor().body
    assert show(b"", b"") is None
    assert show(b'{"a":[1,true,null]}', b"application/json") == {"a": [1, True, None]}
    assert show(b"plain", b"text/plain") == "plain"
    assert show(b"\xff\x00", b"application/octet-stream") == "\\xff\x00"
    assert show(b": beat\n\nid: 1\r\ndata: a\r\ndata: b\r\n\r\ndata: half", SSE) == [
        {"comment": "beat"},
        {"id": "1", "data": "a\nb"},
        {"unfinished": "data: half"},
    ]
    (broken,) = show(frame("x")[:-1] + b"?", FRAMES)
    assert broken["broken"] == "message_crc"
    assert show(frame("x")[:-1], FRAMES)[0]["broken"] == "truncated"


def test_what_was_cut_ends_before_its_last_word() -> None:
    show = Redactor().body
    assert show(b'{"text": "it is ao', b"application/json", cut=True) == '{"text": "it is '
    assert show(b"data: 1\n\ndata: 2", SSE, cut=True) == [{"data": 1}]
    assert show(frame("x")[:-1], FRAMES, cut=True) == []


def test_runs() -> None:
    def said(text: str, n: int, index: int = 0) -> dict[str, Any]:
        return {"n": n, "at": [index, {"text": text}]}

    whole = [said("a", 1), said("b", 2), said("b", 3), {"end": True}, {"end": False}, "x", "y"]
    assert runs(whole) == [
        {"run": said("abb", 1), "lengths": [1, 1, 1]},
        {"end": True},
        {"end": False},
        {"run": "xy", "lengths": [1, 1]},
    ]
    two = [{"a": "1", "b": "1"}, {"a": "2", "b": "2"}]
    assert runs(two) == two
    assert runs([]) == []
