"""Answers of Kiro's web search (kiro-protocol.md section 6.5): JSON in a JSON string in JSON-RPC.

An error comes in any of three places, all of them with HTTP status 200: as JSON-RPC's ``error``, as ``isError`` of the
tool's result, and as ``error`` beside the list of results.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kirostream.errors import RemoteProtocolError, UpstreamFault, UpstreamRefused
from kirostream.turn.request import SearchHit

INVALID_PARAMS: Final = -32602
"""JSON-RPC's code for arguments that the method does not take."""

DAY: Final = 86_400_000
"""Milliseconds."""
EPOCH: Final = 719_468
"""Days from the first of March of the year 0 to 1970."""
LAST: Final = 3_652_365
"""Days up to about the year 10,000."""


class _Error(msgspec.Struct):
    code: int | float | None = None
    message: str | None = None


class _Content(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Result(msgspec.Struct, rename="camel"):
    is_error: bool | None = None
    content: list[_Content] | None = None


class _Answer(msgspec.Struct):
    result: _Result | None = None
    error: _Error | None = None


class _Hit(msgspec.Struct, rename="camel"):
    url: str | None = None
    title: str | None = None
    snippet: str | None = None
    published_date: int | float | str | None = None


class _Found(msgspec.Struct):
    results: list[_Hit] | None = None
    error: object = None


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_found = msgspec.json.Decoder(_Found).decode


def read_results(body: bytes) -> list[SearchHit]:
    """The pages that were found. See `Provider.read_web_search` for what is raised."""
    try:
        answer = _read_answer(body)
        if answer.error is not None:
            kind = UpstreamRefused if answer.error.code == INVALID_PARAMS else UpstreamFault
            raise kind(f"The search failed: {answer.error.message or answer.error.code}", reason="web_search")
        result = answer.result or _Result()
        said = next((part.text for part in result.content or () if part.text is not None), None)
        if result.is_error:
            raise UpstreamFault(f"The search failed: {said or 'without a reason'}"[:300], reason="web_search")
        if said is None:
            raise RemoteProtocolError("The answer to a search has no content.")
        found = _read_found(said)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is one of the first
        raise RemoteProtocolError(f"The answer to a search cannot be read: {error}") from error
    if found.error:
        raise UpstreamFault(f"The search failed: {found.error}"[:300], reason="web_search")
    return [
        SearchHit(hit.url, hit.title or "", _date(hit.published_date), hit.snippet or "")
        for hit in found.results or ()
        if hit.url
    ]


def _date(published: float | str | None) -> str:
    """A date as the service writes it, in milliseconds since 1970, as ``2026-01-01``; words stay words."""
    if published is None or isinstance(published, str):
        return published or ""
    days = int(published // DAY) + EPOCH
    if not 0 <= days < LAST:
        return ""
    # A year that begins in March ends with the leap day. `days` counts from the first of March of the year 0.
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return f"{era * 400 + year + (month <= 2):04}-{month:02}-{day:02}"
