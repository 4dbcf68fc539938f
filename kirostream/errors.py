"""The whole error family. Every error says who is to blame, and what a client may be told.

::

    KirostreamError
    ├── RequestError                 CLIENT    the request cannot be served as it is
    │   ├── MalformedRequest         400       not JSON, a field of the wrong type, an impossible value
    │   ├── KeyRejected              401       no key, or not ours
    │   ├── NotAllowed               403       the key may not do this
    │   ├── NoSuchRoute              404       nothing at this path
    │   ├── UnknownModel             404       no such model, and what there is
    │   ├── NoSuchTurn               404       no turn of this id, or it is forgotten, or somebody else's
    │   ├── KeyReused                422       an idempotency key that came before with another body
    │   ├── MethodNotAllowed         405       the path exists, the method does not
    │   ├── RequestTooSlow           408       head or body did not arrive within the deadline
    │   ├── RequestTooLarge          413       head or body over the limit
    │   └── CallerThrottled          429       the key is over a limit of its own
    │       └── BudgetSpent          429       its credits of the period are spent
    ├── UpstreamError                UPSTREAM  the other side failed, or said no
    │   ├── UpstreamDown             502       cannot connect, or the answer is no answer
    │   ├── UpstreamFault            502       it reports a failure of its own
    │   ├── UpstreamOverloaded       503       it has no capacity right now
    │   ├── UpstreamTimeout          504       a deadline of ours passed
    │   ├── StreamCut                502       the stream ended before the turn did
    │   ├── AccountThrottled         429       ACCOUNT  too many requests for this account
    │   ├── QuotaSpent               429       ACCOUNT  the credits of the period are gone
    │   ├── CredentialRejected       401       ACCOUNT  the token is not accepted
    │   ├── AccountSuspended         403       ACCOUNT  the account is locked
    │   ├── AccessDenied             403       ACCOUNT  the account may not do this
    │   ├── ModelNotOnAccount        404       ACCOUNT  another account may have it
    │   ├── UpstreamRefused          400       CLIENT   it rejects the request's content
    │   ├── FormRefused              400       CLIENT   it rejects the request's form, and mostly does not say why
    │   └── ContextOverflow          400       CLIENT   the conversation is too long for the model
    ├── TurnCancelled            499       CLIENT   a client ended the turn
    ├── AnswerTooLarge               502       OPERATOR the answer is longer than what is kept of one
    ├── NoAccount                    503       OPERATOR no account can serve; says what to do
    ├── ShuttingDown             503       OPERATOR the gateway stops; the same request works on the next one
    ├── ProtocolError
    │   ├── RemoteProtocolError      502       UPSTREAM the peer broke its protocol
    │   │   └── FrameError                     UPSTREAM a broken event-stream frame; fault and offset
    │   └── LocalProtocolError       500       US       our own code broke an invariant
    ├── StoreError                   500       OPERATOR a file or database cannot be read or written
    └── SettingsError                          OPERATOR the settings are not usable

Classes carry the facts (`blame`, `status`, `level`); instances carry the story (`message`, `reason`, `retry_after`).
A dialect maps classes to its wire, `relay.failover` maps blame to action, `telemetry.log` maps level to a log level.
"""

from __future__ import annotations

import enum
import re
from typing import ClassVar, Final, Literal, Self

Level = Literal["debug", "info", "warning", "error"]


_TOKENS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:ao[ar]|ksk_|eyJ)[A-Za-z0-9+/=_.:~-]{20,}"  # kiro-protocol.md section 5.1, and any JWT
    r"|(?<=://)[^/@\s]+(?=@)"  # who a URL signs in as
)


def without_tokens(text: str) -> str:
    """`text`, with everything that looks like a token, and the password of a URL, masked.

    Our own words never hold one; those that an upstream or a library sends may quote what they were given.
    """
    return _TOKENS.sub("****", text)


_LITERALS: Final = re.compile(r"""(?::?\s+)?(?:bytearray\()?\bb(['"]).*\1\)?""", re.DOTALL)


def without_literals(text: str) -> str:
    """`text` without the bytes that it quotes as Python writes them: so a library quotes what was on the wire."""
    return _LITERALS.sub("", text)


class Blame(enum.Enum):
    """Who has to change something for the error to go away."""

    CLIENT = "client"
    ACCOUNT = "account"
    UPSTREAM = "upstream"
    OPERATOR = "operator"
    US = "us"


class KirostreamError(Exception):
    """Root of the family.

    Args:
        message: one sentence for a person, without secrets; it may reach a client. Tokens in what it quotes are masked.
        reason: the machine-readable word, ours or the upstream's (``CONTENT_LENGTH_EXCEEDS_THRESHOLD``).
        retry_after: seconds until a new try makes sense, where that is known.
    """

    blame: ClassVar[Blame] = Blame.US
    status: ClassVar[int] = 500
    level: ClassVar[Level] = "error"

    def __init__(self, message: str, *, reason: str = "", retry_after: float | None = None) -> None:
        self.message = without_tokens(message)
        super().__init__(self.message)
        self.reason = reason
        self.retry_after = retry_after

    def without_trace(self) -> Self:
        """The same error, to be kept: one that was raised holds every frame it passed, and all that these hold."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self

    def anew(self) -> Self:
        """Another one that says the same, to be raised where this one is kept."""
        other = type(self).__new__(type(self), *self.args)
        other.__dict__.update(self.__dict__)
        return other


class RequestError(KirostreamError):
    """The client's request cannot be served as it is."""

    blame = Blame.CLIENT
    status = 400
    level: ClassVar[Level] = "info"


class MalformedRequest(RequestError):
    """The body cannot be read. `param` is the JSON path of the field, where one is to blame."""

    def __init__(self, message: str, *, param: str = "", reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.param = param


class KeyRejected(RequestError):
    """No key came with the request, or one that is not ours."""

    status = 401


class NotAllowed(RequestError):
    """The key is known, and may not do this."""

    status = 403


class NoSuchRoute(RequestError):
    """Nothing is served at this path."""

    status = 404


class UnknownModel(RequestError):
    """No model of this name. The message lists the ones there are."""

    status = 404


class NoSuchTurn(RequestError):
    """No turn of this id, or it is somebody else's, or it ended too long ago."""

    status = 404


class KeyReused(RequestError):
    """An idempotency key that came before, with another body. Not 409: the SDKs repeat a request that is refused so."""

    status = 422


class MethodNotAllowed(RequestError):
    """The path is served, but not by this method. `allowed` holds the methods that are."""

    status = 405

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTooSlow(RequestError):
    """The head or the body did not arrive within its deadline."""

    status = 408


class RequestTooLarge(RequestError):
    """The head or the body (after decompression) is over the limit."""

    status = 413


class CallerThrottled(RequestError):
    """The key is over one of its limits until `retry_after`; `reason` names the limit. No account is to blame."""

    status = 429


class BudgetSpent(CallerThrottled):
    """The key has spent the credits that it has for a day or a month."""


class UpstreamError(KirostreamError):
    """The upstream failed or refused. `upstream_status` is its HTTP status, 0 where there was none."""

    blame = Blame.UPSTREAM
    status = 502
    level: ClassVar[Level] = "warning"

    def __init__(
        self, message: str, *, reason: str = "", retry_after: float | None = None, upstream_status: int = 0
    ) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after)
        self.upstream_status = upstream_status


class UpstreamDown(UpstreamError):
    """No connection (DNS, TCP, TLS), or an answer that is none."""


class UpstreamFault(UpstreamError):
    """The upstream reports a failure of its own (5xx)."""


class UpstreamOverloaded(UpstreamError):
    """The upstream has no capacity for this model right now. No account is to blame."""

    status = 503


class UpstreamTimeout(UpstreamError):
    """A deadline passed: connect, first event, idle or total. The message says which, and the seconds."""

    status = 504


class StreamCut(UpstreamError):
    """The stream ended in the middle of a frame, of a tool call or of a turn."""


class AccountThrottled(UpstreamError):
    """Too many requests for this account."""

    blame = Blame.ACCOUNT
    status = 429


class QuotaSpent(UpstreamError):
    """The account's credits are used up until `retry_after`."""

    blame = Blame.ACCOUNT
    status = 429


class CredentialRejected(UpstreamError):
    """The upstream does not accept the account's token, or the token cannot be refreshed."""

    blame = Blame.ACCOUNT
    status = 401


class AccountSuspended(UpstreamError):
    """The account is locked by the upstream. A person has to look."""

    blame = Blame.ACCOUNT
    status = 403
    level: ClassVar[Level] = "error"


class AccessDenied(UpstreamError):
    """The account may not do this."""

    blame = Blame.ACCOUNT
    status = 403


class ModelNotOnAccount(UpstreamError):
    """This account's catalogue does not hold the model."""

    blame = Blame.ACCOUNT
    status = 404


class UpstreamRefused(UpstreamError):
    """The upstream rejects the content of the request."""

    blame = Blame.CLIENT
    status = 400


class FormRefused(UpstreamRefused):
    """The upstream rejects the request's form. The same question in a stricter form may pass."""


class ContextOverflow(UpstreamRefused):
    """The conversation is longer than the model's window.

    `tokens` and `limit` are counts of tokens, 0 where unknown; dialects word them as their clients expect.
    """

    def __init__(
        self, message: str, *, reason: str = "", upstream_status: int = 0, tokens: int = 0, limit: int = 0
    ) -> None:
        super().__init__(message, reason=reason, upstream_status=upstream_status)
        self.tokens = tokens
        self.limit = limit


class TurnCancelled(KirostreamError):
    """A client ended the turn that this answer comes from."""

    blame = Blame.CLIENT
    status = 499
    level: ClassVar[Level] = "info"


class AnswerTooLarge(KirostreamError):
    """The answer is longer than what is kept of one; the message names the setting."""

    blame = Blame.OPERATOR
    status = 502


class NoAccount(KirostreamError):
    """No account can serve this request now. The message says what the operator can do."""

    blame = Blame.OPERATOR
    status = 503
    level: ClassVar[Level] = "error"


class ShuttingDown(KirostreamError):
    """The gateway is being stopped. Nothing is wrong with the request."""

    blame = Blame.OPERATOR
    status = 503
    level: ClassVar[Level] = "info"


class ProtocolError(KirostreamError):
    """Somebody broke a protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it."""

    blame = Blame.UPSTREAM
    status = 502
    level: ClassVar[Level] = "warning"


class FrameError(RemoteProtocolError):
    """A broken event-stream frame.

    Args:
        fault: one of `FAULTS`.
        offset: bytes from the start of the stream to the first byte of the faulty frame.
    """

    FAULTS: ClassVar[tuple[str, ...]] = (
        "prelude_crc",  # the checksum over the two lengths is wrong
        "message_crc",  # the checksum over the whole message is wrong
        "length",  # a total length under 16 bytes
        "headers_length",  # a header block longer than the message has room for
        "header_type",  # a header value of a type that does not exist
        "header_overrun",  # a header that runs over the end of its block
        "truncated",  # the stream ended inside a message
        "too_large",  # a message or header block over the limit
        "header_name",  # a header name that is empty or not UTF-8
        "header_value",  # a string value that is not UTF-8
        "duplicate_header",  # the same header name twice in one message
        "refused",  # bytes fed after a fault
    )

    def __init__(self, fault: str, offset: int, detail: str = "") -> None:
        super().__init__(f"event stream: {fault} at byte {offset}{': ' + detail if detail else ''}", reason=fault)
        self.fault = fault
        self.offset = offset
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """Our own code broke an invariant: a bug."""


class StoreError(KirostreamError):
    """A file or a database cannot be read or written. The message names it and says what to do."""

    blame = Blame.OPERATOR


class SettingsError(KirostreamError):
    """The settings are not usable. The message names the setting, where it came from, and what it takes."""

    blame = Blame.OPERATOR
