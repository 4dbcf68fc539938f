"""Errors both ways: every class of the family has words in every dialect, and an upstream's words have a class."""

# ruff: noqa: E501  (a case of a table is one line)

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from kirostream import errors
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Complaint, ErrorReply
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    AnswerTooLarge,
    BudgetSpent,
    CallerThrottled,
    ContextOverflow,
    CredentialRejected,
    FormRefused,
    FrameError,
    KeyRejected,
    KeyReused,
    KirostreamError,
    LocalProtocolError,
    MalformedRequest,
    MethodNotAllowed,
    ModelNotOnAccount,
    NoAccount,
    NoSuchRoute,
    NoSuchTurn,
    NotAllowed,
    QuotaSpent,
    RemoteProtocolError,
    RequestTooLarge,
    RequestTooSlow,
    ShuttingDown,
    StoreError,
    StreamCut,
    TurnCancelled,
    UnknownModel,
    UpstreamDown,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)
from kirostream.turn.events import TurnFailed
from kirostream.turn.model import Model
from vectors.regenerate import CLIENT_DIALECTS, HEADING, REQUEST

TABLE: Final = [
    # the error, Anthropic's status and type, chat's status, type and code
    (MalformedRequest("M"), 400, "invalid_request_error", 400, "invalid_request_error", None),
    (MalformedRequest("M", reason="invalid_json"), 400, "invalid_request_error", 400, "invalid_request_error", "invalid_json"),
    (KeyRejected("M"), 401, "authentication_error", 401, "invalid_request_error", "invalid_api_key"),
    (NotAllowed("M"), 403, "permission_error", 403, "permission_error", None),
    (NoSuchRoute("M"), 404, "not_found_error", 404, "invalid_request_error", "unknown_url"),
    (UnknownModel("M"), 404, "not_found_error", 404, "invalid_request_error", "model_not_found"),
    (NoSuchTurn("M"), 404, "not_found_error", 404, "invalid_request_error", None),
    (KeyReused("M"), 422, "invalid_request_error", 422, "invalid_request_error", None),
    (TurnCancelled("M"), 499, "api_error", 499, "invalid_request_error", "turn_cancelled"),
    (AnswerTooLarge("M"), 502, "api_error", 502, "server_error", "answer_too_large"),
    (MethodNotAllowed("M", allowed=("POST",)), 405, "invalid_request_error", 405, "invalid_request_error", "method_not_allowed"),
    (RequestTooSlow("M"), 408, "timeout_error", 408, "invalid_request_error", "request_timeout"),
    (RequestTooLarge("M"), 413, "request_too_large", 413, "invalid_request_error", "request_too_large"),
    (CallerThrottled("M"), 429, "rate_limit_error", 429, "rate_limit_error", "rate_limit_exceeded"),
    (BudgetSpent("M"), 429, "billing_error", 429, "rate_limit_error", "insufficient_quota"),
    (UpstreamDown("M"), 502, "api_error", 502, "server_error", "upstream_error"),
    (UpstreamFault("M"), 502, "api_error", 502, "server_error", "upstream_error"),
    (UpstreamOverloaded("M"), 529, "overloaded_error", 503, "server_error", "server_is_overloaded"),
    (UpstreamTimeout("M"), 504, "timeout_error", 504, "server_error", "timeout"),
    (StreamCut("M"), 502, "api_error", 502, "server_error", "upstream_error"),
    (AccountThrottled("M"), 429, "rate_limit_error", 429, "rate_limit_error", "rate_limit_exceeded"),
    (QuotaSpent("M"), 429, "billing_error", 429, "rate_limit_error", "insufficient_quota"),
    (CredentialRejected("M"), 401, "authentication_error", 401, "authentication_error", None),
    (AccountSuspended("M"), 403, "permission_error", 403, "permission_error", None),
    (AccessDenied("M"), 403, "permission_error", 403, "permission_error", None),
    (ModelNotOnAccount("M"), 404, "not_found_error", 404, "invalid_request_error", "model_not_found"),
    (UpstreamRefused("M", reason="TOOL_SCHEMA_INVALID"), 400, "invalid_request_error", 400, "invalid_request_error", "TOOL_SCHEMA_INVALID"),
    (FormRefused("M"), 400, "invalid_request_error", 400, "invalid_request_error", None),
    (ContextOverflow("M"), 400, "invalid_request_error", 400, "invalid_request_error", "context_length_exceeded"),
    (NoAccount("M"), 529, "overloaded_error", 503, "server_error", "server_is_overloaded"),
    (ShuttingDown("M"), 529, "overloaded_error", 503, "server_error", "server_is_overloaded"),
    (RemoteProtocolError("M"), 502, "api_error", 502, "server_error", "upstream_error"),
    (FrameError("length", 0), 502, "api_error", 502, "server_error", "upstream_error"),
    (LocalProtocolError("M"), 500, "api_error", 500, "server_error", "internal_error"),
    (StoreError("M"), 500, "api_error", 500, "server_error", "internal_error"),
]  # fmt: skip


def reply(name: str, error: KirostreamError) -> tuple[ErrorReply, dict[str, Any]]:
    written = DIALECTS[name].write_error(error, "req_1")
    return written, json.loads(written.body)


@pytest.mark.parametrize(("error", "status", "kind", "chat_status", "chat_kind", "chat_code"), TABLE)
def test_the_words_of_every_error(
    error: KirostreamError, status: int, kind: str, chat_status: int, chat_kind: str, chat_code: str | None
) -> None:
    written, body = reply("anthropic", error)
    assert (written.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == "req_1"
    assert (b"request-id", b"req_1") in written.headers
    written, body = reply("openai_chat", error)
    assert (written.status, body["error"]["type"], body["error"]["code"]) == (chat_status, chat_kind, chat_code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (b"x-request-id", b"req_1") in written.headers


def concrete(kind: type[KirostreamError]) -> Iterator[type[KirostreamError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from concrete(below)


def test_the_table_has_the_whole_family() -> None:
    groups = {errors.RequestError, errors.UpstreamError, errors.ProtocolError}
    at_start = {errors.SettingsError}  # never reaches a client
    assert {type(row[0]) for row in TABLE} == set(concrete(KirostreamError)) - groups - at_start


@pytest.mark.parametrize("name", CLIENT_DIALECTS)
def test_a_message_reaches_the_client(name: str) -> None:
    written, body = reply(name, UnknownModel("No model x; there are y and z."))
    assert body["error"]["message"] == "No model x; there are y and z."
    assert (b"content-type", b"application/json") in written.headers


def test_chat_names_the_field() -> None:
    _, body = reply("openai_chat", MalformedRequest("n is 2", param="$.n", reason="unsupported_value"))
    assert body["error"]["param"] == "n"


def test_a_kept_conversation_is_refused_as_the_tool_runners_expect() -> None:
    error = MalformedRequest("No.", param="$.thread", reason="thread_unsupported_request")
    written, body = reply("anthropic", error)
    assert written.status == 400
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


@pytest.mark.parametrize(
    ("error", "words", "chat_words"),
    [
        (
            ContextOverflow("M", tokens=210_000, limit=200_000),
            "prompt is too long: 210000 tokens > 200000 maximum",
            "This model's maximum context length is 200000 tokens. prompt is too long: 210000 tokens > 200000 maximum",
        ),
        (
            ContextOverflow("M", limit=200_000),
            "prompt is too long: input is too long for requested model",
            "Input is too long. The prompt is too long for this model's context window; shorten the conversation.",
        ),
    ],
)
def test_an_overflow_in_the_words_that_clients_look_for(error: ContextOverflow, words: str, chat_words: str) -> None:
    assert reply("anthropic", error)[1]["error"]["message"] == words
    message = reply("openai_chat", error)[1]["error"]["message"]
    assert message == chat_words
    assert "prompt is too long" in message


def test_litellm_knows_a_wrong_key_by_its_words() -> None:
    assert "Incorrect API key provided" in reply("openai_chat", KeyRejected("Send the key."))[1]["error"]["message"]


@pytest.mark.parametrize("name", CLIENT_DIALECTS)
def test_whether_to_repeat_is_said(name: str) -> None:
    assert (b"x-should-retry", b"false") in reply(name, KeyRejected("No."))[0].headers
    assert (b"retry-after-ms", b"1500") in reply(name, AccountThrottled("No.", retry_after=1.5))[0].headers
    assert (b"retry-after", b"2") in reply(name, CallerThrottled("No.", retry_after=1.5))[0].headers
    assert (b"x-should-retry", b"false") in reply(name, BudgetSpent("No.", retry_after=60.0))[0].headers


# An upstream's errors

BODIES: Final = [
    ("anthropic", b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow."},"request_id":"r"}', Complaint("rate_limit_error", "", "Slow.")),
    ("anthropic", b'{"type":"error","error":{"type":"x","message":"M","details":{"error_code":"c"}}}', Complaint("x", "c", "M")),
    ("anthropic", b"<html>Bad gateway</html>", Complaint(message="<html>Bad gateway</html>")),
    ("anthropic", b"", Complaint()),
    ("anthropic", b"\xff" * 1000, Complaint(message="\ufffd" * 500)),
    ("openai_chat", b'{"error":{"message":"No.","type":"t","param":null,"code":"c"}}', Complaint("t", "c", "No.")),
    ("openai_chat", b'{"error":{"message":"No.","code":429}}', Complaint("", "429", "No.")),
    ("openai_chat", b'{"error":"just words"}', Complaint(message="just words")),
    ("openai_chat", b'{"detail":"Not Found"}', Complaint(message='{"detail":"Not Found"}')),
    ("openai_chat", b"upstream connect error", Complaint(message="upstream connect error")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "complaint"), BODIES)
def test_an_upstreams_error_body(name: str, body: bytes, complaint: Complaint) -> None:
    assert DIALECTS[name].read_error((), body) == complaint


@pytest.mark.parametrize("name", ["anthropic", "openai_chat"])  # Responses has a shorter list of codes
@pytest.mark.parametrize(
    ("error", "read_as"),
    [
        (UpstreamOverloaded("M"), UpstreamOverloaded),
        (AccountThrottled("M"), AccountThrottled),
        (QuotaSpent("M"), QuotaSpent),
        (CredentialRejected("M"), CredentialRejected),
        (AccountSuspended("M"), AccessDenied),
        (ModelNotOnAccount("M"), ModelNotOnAccount),
        (UpstreamTimeout("M"), UpstreamTimeout),
        (UpstreamRefused("M"), UpstreamRefused),
        (ContextOverflow("M"), ContextOverflow),
        (StreamCut("M"), UpstreamFault),
        (LocalProtocolError("M"), UpstreamFault),
    ],
)
def test_a_failure_in_a_stream_is_read_as_what_it_was(
    name: str, error: KirostreamError, read_as: type[UpstreamError]
) -> None:
    dialect = DIALECTS[name]
    (wire,) = dialect.writer(REQUEST, HEADING).write(TurnFailed(error))
    (event,) = dialect.reader(REQUEST, Model("m")).feed(wire)
    assert isinstance(event, TurnFailed)
    assert type(event.error) is read_as
