from __future__ import annotations

import pytest

from kirostream.dialects.dialect import Complaint
from kirostream.dialects.kiro.errors import BY_REASON, BY_STATUS, BY_TYPE, classify
from kirostream.dialects.kiro.response import complain, read_error, write_complaint, write_error
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    FormRefused,
    KirostreamError,
    MalformedRequest,
    ModelNotOnAccount,
    NoSuchRoute,
    QuotaSpent,
    UpstreamDown,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)

BEARER = "The bearer token included in the request is invalid."
V, T, A, Q = "ValidationException", "ThrottlingException", "AccessDeniedException", "ServiceQuotaExceededException"

ROWS: list[tuple[int, str, str, str, type[UpstreamError]]] = [
    # status, type, reason, message: kiro-protocol.md section 4.3, row by row
    (401, "", "", "", CredentialRejected),
    (403, A, "", BEARER, CredentialRejected),
    (403, "ExpiredTokenException", "", "", CredentialRejected),
    (400, "UnrecognizedClientException", "", "", CredentialRejected),
    (403, A, "TEMPORARILY_SUSPENDED", "", AccountSuspended),
    (403, "", "", "Your User ID temporarily suspended", AccountSuspended),
    (423, "", "", "", AccountSuspended),
    (403, "AccountSuspendedException", "", "", AccountSuspended),
    (403, A, "", "User is not authorized to make this call.", AccessDenied),
    (403, A, "FEATURE_NOT_SUPPORTED", "", AccessDenied),
    (403, "", "", "", AccessDenied),
    (402, "", "", "", QuotaSpent),
    (402, Q, "MONTHLY_REQUEST_COUNT", "You have reached the limit.", QuotaSpent),
    (429, T, "MONTHLY_REQUEST_COUNT", "", QuotaSpent),
    (400, T, "OVERAGE_REQUEST_LIMIT_EXCEEDED", "", QuotaSpent),
    (402, Q, "", "", QuotaSpent),
    (429, Q, "", "", AccountThrottled),
    (429, T, "DAILY_REQUEST_COUNT", "", AccountThrottled),
    (429, T, "", "We noticed suspicious activity.", AccountThrottled),
    (429, T, "", "Rate exceeded", AccountThrottled),
    (429, "", "", "", AccountThrottled),
    (400, T, "", "", AccountThrottled),  # JSON 1.0
    (0, T, "", "", AccountThrottled),  # an exception frame
    (429, T, "INSUFFICIENT_MODEL_CAPACITY", "", UpstreamOverloaded),
    (400, T, "INSUFFICIENT_MODEL_CAPACITY", "", UpstreamOverloaded),
    (500, "InternalServerException", "MODEL_TEMPORARILY_UNAVAILABLE", "", UpstreamOverloaded),
    (500, "", "", "Encountered unexpectedly high load when processing the request.", UpstreamOverloaded),
    (503, "ServiceUnavailableException", "", "", UpstreamOverloaded),
    (503, "", "", "", UpstreamOverloaded),
    (0, "MODEL_TEMPORARILY_UNAVAILABLE", "", "", UpstreamOverloaded),
    (408, "", "", "", UpstreamTimeout),
    (504, "", "", "", UpstreamTimeout),
    (500, "InternalServerException", "", "", UpstreamFault),
    (502, "", "", "<html>bad gateway</html>", UpstreamFault),
    (400, V, "CONTENT_LENGTH_EXCEEDS_THRESHOLD", "Input is too long.", ContextOverflow),
    (400, V, "PROMPT_TOO_LONG", "", ContextOverflow),
    (500, "", "", "Input is too long.", ContextOverflow),
    (0, "ContentLengthExceededException", "", "", ContextOverflow),
    (413, "", "", "", ContextOverflow),
    (400, V, "INVALID_MODEL_ID", "", ModelNotOnAccount),
    (400, "", "", "Invalid model. Please select a different model to continue.", ModelNotOnAccount),
    (400, V, "", "profileArn is required for this request.", AccessDenied),
    (400, V, "", "profileArn must not be null", AccessDenied),
    (400, V, "THINKING_SIGNATURE_INVALID", "", FormRefused),
    (400, V, "TOOL_SCHEMA_INVALID", "", FormRefused),
    (400, V, "REQUEST_BODY_INVALID", "", FormRefused),
    (400, "", "", "Improperly formed request.", FormRefused),
    (400, V, "", "Improperly formed request.", FormRefused),
    (400, V, "", "Something else.", UpstreamRefused),
    (409, "ConflictException", "MISMATCHED_KMS_KEY", "", UpstreamRefused),
    (409, "", "", "", UpstreamRefused),
    (404, "ResourceNotFoundException", "", "", UpstreamRefused),
    (404, "UnknownOperationException", "", "", UpstreamDown),
    (404, "", "", "", UpstreamDown),
    (418, "", "", "", UpstreamRefused),
    (0, "InvalidStateEvent", "INVALID_TASK_ASSIST_PLAN", "", UpstreamRefused),
    (0, "SomethingNewException", "", "", UpstreamFault),
    (0, "", "", "", UpstreamFault),
]


@pytest.mark.parametrize(("status", "code", "reason", "message", "kind"), ROWS)
def test_every_row(status: int, code: str, reason: str, message: str, kind: type[UpstreamError]) -> None:
    error = classify(Complaint(code, reason, message), status)
    assert type(error) is kind
    assert error.upstream_status == status
    assert message in error.message


@pytest.mark.parametrize("meaning", {*BY_REASON.values(), *BY_TYPE.values(), *BY_STATUS.values()})
def test_every_message_says_what_to_do(meaning: object) -> None:
    advice = getattr(meaning, "advice", "")
    assert ":" in advice or advice.startswith(("Kiro rejects", "Kiro answers"))


def test_the_pause_is_told() -> None:
    assert classify(Complaint(T), 429, 7.5).retry_after == 7.5
    assert classify(Complaint(T), 429).retry_after is None
    suspicious = Complaint(T, "", "suspicious activity")
    assert classify(suspicious, 429, 5.0).retry_after == 600
    assert classify(suspicious, 429, 900.0).retry_after == 900
    assert classify(suspicious, 429).reason == "SUSPICIOUS_ACTIVITY"


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        (Complaint(V, "PROMPT_TOO_LONG"), "PROMPT_TOO_LONG"),
        (Complaint(T), T),
        (Complaint("", "", "profileArn is required for this request."), "PROFILE_ARN_REQUIRED"),
    ],
)
def test_the_reason_is_kept(complaint: Complaint, reason: str) -> None:
    assert classify(complaint, 400).reason == reason


def test_an_unknown_type_is_named() -> None:
    assert "SomethingNewException" in classify(Complaint("SomethingNewException")).message


BODIES = [
    ("rest", [(b"x-amzn-errortype", b"ThrottlingException:http://x/")], b'{"message":"m","reason":null}', (T, "", "m")),
    (
        "json 1.0",
        [],
        b'{"__type":"com.amazon.aws.codewhisperer#ThrottlingException","message":"m","reason":"R"}',
        (T, "R", "m"),
    ),
    ("nested", [], b'{"error":{"message":"m","reason":"R"}}', ("", "R", "m")),
    (
        "coral",
        [],
        b'{"Output":{"__type":"a#UnknownOperationException"},"Version":"1.0"}',
        ("UnknownOperationException", "", ""),
    ),
    ("upper case", [], b'{"Message":"m"}', ("", "", "m")),
    ("oauth", [], b'{"error":"invalid_grant","error_description":"m"}', ("", "", "m")),
    ("html", [], b"<html>\n <b>Bad</b>  Gateway</html>", ("", "", "<html> <b>Bad</b> Gateway</html>")),
    ("empty", [], b"", ("", "", "")),
    ("not an object", [], b"[1]", ("", "", "")),
    ("wrong types", [], b'{"message":1,"reason":{},"__type":null}', ("", "", "")),
    ("not text", [], b"\xff\xfe", ("", "", "\ufffd\ufffd")),
]


@pytest.mark.parametrize(("headers", "body", "said"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
def test_error_bodies_are_read(headers: list[tuple[bytes, bytes]], body: bytes, said: tuple[str, str, str]) -> None:
    assert read_error(headers, body) == Complaint(*said)


ERRORS: list[UpstreamError] = [
    ContextOverflow("m"),
    ModelNotOnAccount("m"),
    QuotaSpent("m"),
    AccountThrottled("m"),
    CredentialRejected("m"),
    AccountSuspended("m"),
    AccessDenied("m"),
    UpstreamOverloaded("m"),
    FormRefused("m", reason="TOOL_SCHEMA_INVALID"),
    FormRefused("Improperly formed request."),
    UpstreamRefused("m", reason="INVALID_CONVERSATION_ID"),
    UpstreamFault("m"),
]


@pytest.mark.parametrize("rpc", [False, True], ids=["rest", "json 1.0"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_is_written_is_read_as_the_same(error: UpstreamError, rpc: bool) -> None:
    status, complaint = complain(error)
    reply = write_complaint(status, complaint, "r1", rpc=rpc)
    again = classify(read_error(reply.headers, reply.body), reply.status)
    assert type(again) is type(error)
    assert (b"x-amzn-requestid", b"r1") in reply.headers


@pytest.mark.parametrize(
    ("error", "status"),
    [(MalformedRequest("m"), 400), (NoSuchRoute("m"), 404), (UpstreamTimeout("m"), 504), (KirostreamError("m"), 500)],
)
def test_our_own_errors_have_words_too(error: KirostreamError, status: int) -> None:
    reply = write_error(error, "")
    assert reply.status == status
    assert read_error(reply.headers, reply.body).message == "m"


def test_json_1_0_says_throttling_as_400() -> None:
    assert write_complaint(429, Complaint(T), rpc=True).status == 400
    assert write_complaint(500, Complaint("InternalServerException"), rpc=True).status == 500
