"""Answers on the wire, as they are read. What an upstream may leave out, or send as null, is optional here."""

from __future__ import annotations

import msgspec
from msgspec import Raw


class WireInputDetails(msgspec.Struct):
    """``usage.input_tokens_details``."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class WireOutputDetails(msgspec.Struct):
    """``usage.output_tokens_details``."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: WireInputDetails | None = None
    output_tokens_details: WireOutputDetails | None = None


class WirePart(msgspec.Struct):
    """A part of a message, or of a reasoning item's summary or content."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class WireItem(msgspec.Struct):
    """One of ``output``, of any kind."""

    type: str = ""
    id: str | None = None
    status: str | None = None
    content: list[WirePart] | None = None
    summary: list[WirePart] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = Raw()
    input: str | None = None
    action: Raw = Raw()
    operation: Raw = Raw()


class WireError(msgspec.Struct):
    """``error`` of a failed response."""

    code: str | None = None
    message: str | None = None


class WireIncomplete(msgspec.Struct):
    """``incomplete_details``."""

    reason: str | None = None


class WireResponse(msgspec.Struct):
    """The response object."""

    model: str | None = None
    status: str | None = None
    output: list[WireItem] | None = None
    usage: WireUsage | None = None
    error: WireError | None = None
    incomplete_details: WireIncomplete | None = None


class WireEvent(msgspec.Struct):
    """One event. `code`, `message` and `error` are those of an ``error`` event, which is flat here, nested there."""

    type: str = ""
    response: WireResponse | None = None
    output_index: int = 0
    item: WireItem | None = None
    part: WirePart | None = None
    delta: str | None = None
    code: str | None = None
    message: str | None = None
    error: WireError | None = None
