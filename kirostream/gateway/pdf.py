"""The text of a PDF. Work for a thread: parsing takes seconds where a document is long."""

from __future__ import annotations

import base64
import io
import logging
import time
from dataclasses import field

from kirostream.dataclass import dataclass
from kirostream.errors import MalformedRequest, RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class PdfSettings:
    """How much of a document is read."""

    pages: int = field(default=200, metadata={"help": "Pages of a PDF that are read; the rest is left out."})
    characters: int = field(
        default=400_000, metadata={"help": "Text taken from one PDF; the rest is left out.", "unit": "characters"}
    )
    deadline: float = field(default=30.0, metadata={"help": "For reading one PDF.", "unit": "s"})


def pdf_text(data: str, at: str, settings: PdfSettings) -> str:
    """The text of every page, under its number, and a note where something is left out.

    A document that can be read and has no text (a scan) is a sentence that says so, not an error: it stands in the
    history of a conversation, and an error would end that for good.

    Args:
        data: base64.
        at: its path in the body.
        settings: how much to read.

    Raises:
        MalformedRequest: it is not base64, not a PDF, or locked by a password.
        RequestError: the deadline passed.
    """
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise MalformedRequest(f"{at} is not base64.", param=at, reason="invalid_value") from error
    until = time.monotonic() + settings.deadline
    try:
        return _read(raw, at, settings, until)
    except RequestError:
        raise
    except Exception as error:  # a parser of foreign files can raise anything
        raise MalformedRequest(
            f"{at} cannot be read as a PDF ({type(error).__name__}). Send the document's text instead.",
            param=at,
            reason="invalid_value",
        ) from error


def _read(raw: bytes, at: str, settings: PdfSettings, until: float) -> str:
    import pypdf  # costs as much to import as the rest of the gateway; few requests need it

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of every flaw of a file, on stderr
    reader = pypdf.PdfReader(io.BytesIO(raw))
    if reader.is_encrypted and not reader.decrypt(""):
        raise MalformedRequest(
            f"{at} is locked by a password. Send the document without one.", param=at, reason="invalid_value"
        )
    count = len(reader.pages)
    parts: list[str] = []
    room = settings.characters
    for number in range(min(count, settings.pages)):
        if time.monotonic() > until:
            raise too_slow(at, settings)
        text = reader.pages[number].extract_text().strip()
        if text and room:
            parts.append(f"[Page {number + 1} of {count}]\n{text[:room]}")
        room = max(0, room - len(text))
        if not room:
            parts.append(f"[The text goes on; {settings.characters:,} characters are shown.]")
            break
    else:
        if count > settings.pages:
            parts.append(f"[The document has {count} pages; the first {settings.pages} are shown.]")
    return (
        "\n\n".join(parts) or f"[A document of {count} pages without text, probably scanned. It cannot be read here.]"
    )


def too_slow(at: str, settings: PdfSettings) -> RequestError:
    """What is said where a document takes too long."""
    return MalformedRequest(
        f"{at} took longer than {settings.deadline:g} s to read (media.pdf.deadline). Send fewer pages, or the text.",
        param=at,
        reason="invalid_value",
    )
