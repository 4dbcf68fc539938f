"""The errors the simulated service answers with, in the words of the real one (kiro-protocol.md section 4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Complaint
from kirostream.dialects.kiro.checks import IMPROPER


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in place of an answer: HTTP status of the REST form, what the body says, and why, for a developer.

    `retry_after` is the pause that a header asks for in seconds, 0 for none.
    """

    status: int
    complaint: Complaint
    detail: str = ""
    retry_after: int = 0


def invalid(detail: str, reason: str = "", message: str = IMPROPER) -> Refusal:
    """The request is not what the service takes. `reason` is empty where the service gives none."""
    return Refusal(400, Complaint("ValidationException", reason, message), detail)


def denied(message: str, reason: str = "") -> Refusal:
    """The caller may not do this."""
    return Refusal(403, Complaint("AccessDeniedException", reason, message))


TOO_LONG: Final = invalid("", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", "Input is too long.")
BAD_BEARER: Final = denied("The bearer token included in the request is invalid.")
NO_PROFILE: Final = invalid("profileArn is missing", message="profileArn is required for this request.")
UNKNOWN_OPERATION: Final = Refusal(404, Complaint("UnknownOperationException", "", "The operation is not known."))

INJECTED: Final[Mapping[str, Refusal]] = {
    "THROTTLE": Refusal(
        429, Complaint("ThrottlingException", "", "Too many requests, please wait before trying again.")
    ),
    "QUOTA": Refusal(
        402, Complaint("ServiceQuotaExceededException", "MONTHLY_REQUEST_COUNT", "You have reached the limit.")
    ),
    "VALIDATION": invalid("as the directive asks"),
    "CONTEXT": TOO_LONG,
    "ACCESS": denied("User is not authorized to make this call."),
    "INTERNAL": Refusal(
        500, Complaint("InternalServerException", "", "Encountered an unexpected error when processing the request.")
    ),
    "UNAVAILABLE": Refusal(503, Complaint("ServiceUnavailableException", "", "Service is temporarily unavailable.")),
}
"""By the NAME of the directives ``error``, ``fail`` and ``fault:exception``."""
