"""What Kiro's errors mean (kiro-protocol.md section 4).

Four tables, asked in this order, for HTTP errors and for exception frames alike: the `reason`, the words of the
message, the exception's type, the HTTP status. Type and reason come before the status because the JSON 1.0 form sends
throttling as 400; the words come early because the oldest errors have nothing else.

Two reasons are ours, for what Kiro says in words only: ``SUSPICIOUS_ACTIVITY`` and ``PROFILE_ARN_REQUIRED``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Complaint
from kirostream.errors import (
    AccessDenied,
    AccountSuspended,
    AccountThrottled,
    ContextOverflow,
    CredentialRejected,
    FormRefused,
    ModelNotOnAccount,
    QuotaSpent,
    UpstreamDown,
    UpstreamError,
    UpstreamFault,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)

SUSPICION_PAUSE: Final = 600.0
"""Seconds to stay away after "suspicious activity" (section 4.3)."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one kind of complaint comes to: a class, and the sentence that says what to do about it."""

    kind: type[UpstreamError]
    advice: str
    reason: str = ""
    pause: float | None = None
    """Seconds to wait at least, None where the upstream's own word counts."""


CONTEXT: Final = Meaning(
    ContextOverflow, "The conversation is too long for the model: shorten it, or compact it and try again."
)
MODEL: Final = Meaning(ModelNotOnAccount, "The account has no model of this name: choose one of its catalogue.")
CAPACITY: Final = Meaning(UpstreamOverloaded, "Kiro has no capacity for this model right now: try again in a moment.")
THROTTLED: Final = Meaning(AccountThrottled, "Too many requests for this account: wait a little.")
DAILY: Final = Meaning(AccountThrottled, "The requests of the day are used up: they return at midnight UTC.")
QUOTA: Final = Meaning(
    QuotaSpent, "The credits of the month are used up: wait for their reset, or raise the plan of the account."
)
SUSPICIOUS: Final = Meaning(
    AccountThrottled,
    "Kiro suspects unusual activity on this account or address: pause for ten minutes or more.",
    reason="SUSPICIOUS_ACTIVITY",
    pause=SUSPICION_PAUSE,
)
TOKEN: Final = Meaning(
    CredentialRejected, "The access token is not accepted: sign in again if refreshing does not help."
)
SUSPENDED: Final = Meaning(AccountSuspended, "The account is suspended: a person has to sort this out with Kiro.")
DENIED: Final = Meaning(AccessDenied, "The account may not do this: check its plan and its profile.")
PROFILE: Final = Meaning(
    AccessDenied,
    "Kiro wants a profile ARN with this account: sign in again, or set account.profile_arn.",
    reason="PROFILE_ARN_REQUIRED",
)
KMS: Final = Meaning(UpstreamRefused, "The account's encryption key cannot be used: ask its administrator.")
SIGNATURE: Final = Meaning(FormRefused, "A thought in the history is not signed rightly: leave thoughts out.")
SCHEMA: Final = Meaning(FormRefused, "A tool's input schema is not accepted: make its root an object.")
PAIRS: Final = Meaning(FormRefused, "Tool calls and results in the history do not match: start a new conversation.")
IMAGE: Final = Meaning(FormRefused, "An image is not accepted: at most ten, gif, jpeg, png or webp, 10 MB each.")
DOCUMENT: Final = Meaning(UpstreamRefused, "A document is not accepted: send its text instead.")
CONVERSATION: Final = Meaning(UpstreamRefused, "The conversation has reached Kiro's limit: start a new one.")
FORM: Final = Meaning(FormRefused, "Kiro rejects the form of the request.")
REFUSED: Final = Meaning(UpstreamRefused, "Kiro rejects the content of the request.")
FAULT: Final = Meaning(UpstreamFault, "Kiro reports a failure of its own: try again.")
TIMEOUT: Final = Meaning(UpstreamTimeout, "Kiro took too long to answer: try again.")
NO_ENDPOINT: Final = Meaning(UpstreamDown, "Nothing answers at this address: check kiro.endpoint and kiro.region.")
UNKNOWN: Final = Meaning(UpstreamFault, "Kiro answers with an error that is not known.")

BY_REASON: Final[Mapping[str, Meaning]] = {
    "CONTENT_LENGTH_EXCEEDS_THRESHOLD": CONTEXT,
    "PROMPT_TOO_LONG": CONTEXT,
    "INVALID_MODEL_ID": MODEL,
    "INSUFFICIENT_MODEL_CAPACITY": CAPACITY,
    "MODEL_TEMPORARILY_UNAVAILABLE": CAPACITY,
    "DAILY_REQUEST_COUNT": DAILY,
    "MONTHLY_REQUEST_COUNT": QUOTA,
    "OVERAGE_REQUEST_LIMIT_EXCEEDED": QUOTA,
    "CONVERSATION_LIMIT_EXCEEDED": CONVERSATION,
    "TEMPORARILY_SUSPENDED": SUSPENDED,
    "PERMANENTLY_SUSPENDED": SUSPENDED,
    "ACCOUNT_SUSPENDED": SUSPENDED,
    "FEATURE_NOT_SUPPORTED": DENIED,
    "UNAUTHORIZED_CUSTOMIZATION_RESOURCE_ACCESS": DENIED,
    "UNAUTHORIZED_WORKSPACE_CONTEXT_FEATURE_ACCESS": DENIED,
    "INVALID_KMS_GRANT": KMS,
    "CUSTOMER_KMS_KEY_DISABLED": KMS,
    "CUSTOMER_KMS_KEY_INVALID_KEY_POLICY": KMS,
    "MISMATCHED_KMS_KEY": KMS,
    "THINKING_SIGNATURE_INVALID": SIGNATURE,
    "TOOL_SCHEMA_INVALID": SCHEMA,
    "TOOL_USE_RESULT_MISMATCH": PAIRS,
    "TOOL_CONFIG_MISSING": PAIRS,
    "TOOL_DUPLICATE": Meaning(FormRefused, "Two tools have one name: rename one of them."),
    "INVALID_CONVERSATION_ID": REFUSED,
    "REQUEST_BODY_INVALID": FORM,
    "REQUEST_BODY_INVALID_JSON": FORM,
    "IMAGE_COUNT_EXCEEDED": IMAGE,
    "IMAGE_DIMENSION_EXCEEDED": IMAGE,
    "IMAGE_FORMAT_UNSUPPORTED": IMAGE,
    "IMAGE_MIME_MISMATCH": IMAGE,
    "IMAGE_SIZE_EXCEEDED": IMAGE,
    "DOCUMENT_COUNT_EXCEEDED": DOCUMENT,
    "DOCUMENT_DUPLICATE_NAME": DOCUMENT,
    "DOCUMENT_MAXIMUM_PAGES_EXCEEDED": DOCUMENT,
    "DOCUMENT_MODEL_NOT_SUPPORTED": DOCUMENT,
    "DOCUMENT_PASSWORD_PROTECTED": DOCUMENT,
    "DOCUMENT_SIZE_EXCEEDED": DOCUMENT,
    "DISALLOWED_FILE_TYPE": DOCUMENT,
    "INVALID_DOCUMENT_NAME": DOCUMENT,
}
"""Every reason of section 4.2."""

BY_WORDS: Final[tuple[tuple[str, Meaning], ...]] = (
    ("input is too long", CONTEXT),
    ("suspicious activity", SUSPICIOUS),
    ("temporarily suspended", SUSPENDED),
    ("bearer token", TOKEN),
    ("token has expired", TOKEN),
    ("profilearn is required", PROFILE),
    ("profilearn must not be null", PROFILE),
    ("invalid profilearn", PROFILE),
    ("unexpectedly high load", CAPACITY),
    ("invalid model", MODEL),
    ("improperly formed request", FORM),
)
"""Words of a message, in lower case."""

BY_TYPE: Final[Mapping[str, Meaning]] = {
    "ContentLengthExceededException": CONTEXT,
    "ThrottlingException": THROTTLED,
    "TooManyRequestsException": THROTTLED,
    "ServiceQuotaExceededException": QUOTA,
    "ExpiredTokenException": TOKEN,
    "UnrecognizedClientException": TOKEN,
    "UnauthorizedException": TOKEN,
    "AccountSuspendedException": SUSPENDED,
    "AccessDeniedException": DENIED,
    "ValidationException": REFUSED,
    "SerializationException": REFUSED,
    "InvalidStateEvent": REFUSED,
    "ConflictException": KMS,
    "ResourceNotFoundException": REFUSED,
    "DryRunOperationException": REFUSED,
    "UnknownOperationException": NO_ENDPOINT,
    "InternalServerException": FAULT,
    "InternalFailure": FAULT,
    "ServiceUnavailableException": CAPACITY,
    "MODEL_TEMPORARILY_UNAVAILABLE": CAPACITY,
}

BY_STATUS: Final[Mapping[int, Meaning]] = {
    400: REFUSED,
    401: TOKEN,
    402: QUOTA,
    403: DENIED,
    404: NO_ENDPOINT,
    408: TIMEOUT,
    409: REFUSED,
    413: CONTEXT,
    423: SUSPENDED,
    429: THROTTLED,
    503: CAPACITY,
    504: TIMEOUT,
}


def meaning(complaint: Complaint, status: int = 0) -> Meaning:
    """What a complaint comes to. `status` is 0 for an exception frame."""
    if found := BY_REASON.get(complaint.reason):
        return found
    words = complaint.message.lower()
    for phrase, found in BY_WORDS:
        if phrase in words:
            return found
    # One name may be told apart by its status only: a quota that is a rate (429) is not the month's (402).
    if complaint.code == "ServiceQuotaExceededException" and status == 429:
        return THROTTLED
    if found := BY_TYPE.get(complaint.code) or BY_STATUS.get(status):
        return found
    if status >= 500:
        return FAULT
    return REFUSED if 400 <= status < 500 else UNKNOWN


def classify(complaint: Complaint, status: int = 0, retry_after: float | None = None) -> UpstreamError:
    """The error of our family that says the same.

    Args:
        complaint: what the body, or the exception frame, says.
        status: the HTTP status, 0 for an exception frame.
        retry_after: seconds, from the header of that name, None where there was none.
    """
    means = meaning(complaint, status)
    said = complaint.message.strip()
    message = f'{means.advice} Kiro says: "{said}"' if said else means.advice
    if means is UNKNOWN and complaint.code:
        message = f"{message} ({complaint.code})"
    reason = means.reason or complaint.reason or complaint.code
    if issubclass(means.kind, ContextOverflow):
        return means.kind(message, reason=reason, upstream_status=status)
    if means.pause is not None:
        retry_after = max(means.pause, retry_after or 0.0)
    return means.kind(message, reason=reason, retry_after=retry_after, upstream_status=status)
