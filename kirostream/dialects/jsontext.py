"""JSON in and out of wire types, with our errors.

A body is decoded in one pass by msgspec, which validates as it goes and names the path of what it does not like. Where
a list holds things of many shapes (content blocks, tools), its items stay `Raw` and are decoded one by one with `part`,
which puts their own path in front of msgspec's.

What arrives is often not quite JSON, and the reasons are known:

- a byte order mark in front is dropped;
- half of a surrogate pair as an escape (``\\ud83d`` alone: a JavaScript client cut a string in the middle of an emoji)
  becomes U+FFFD, since UTF-8 cannot hold it;
- JSON that passes through unparsed (`raw`) may be parsed by somebody deeper in the stack, so its nesting is limited.
"""

from __future__ import annotations

import base64
import codecs
import re
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Raw

from kirostream.errors import MalformedRequest, RemoteProtocolError
from kirostream.turn.request import RawJson

T = TypeVar("T")

MAX_DEPTH: Final = 100
"""Levels of nesting in JSON that passes through. Real tool schemas stay under 20."""

_BOM: Final = b"\xef\xbb\xbf"
_REPLACEMENT: Final = b"\\ufffd"

# One match per escape, so that an escaped backslash never lends its second half to a `u`. Whole pairs come first.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_LONE_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKETS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|([\[{])|([\]}])', re.DOTALL)
_PIECE: Final = 4_096
"""Bytes whose text stays in the processor's nearest cache."""
_AT: Final = re.compile(r" - at `([^`]+)`$")
_MISSING: Final = re.compile(r"^Object missing required field `([^`]+)`$")

_encoder: Final = msgspec.json.Encoder()


_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


def encode(value: object) -> bytes:
    """Compact JSON. `Raw` members go in as they are."""
    return _encoder.encode(value)


def decode(body: bytes, kind: type[T]) -> T:
    """A whole request body.

    Raises:
        MalformedRequest: it is no JSON (reason ``invalid_json``), or not of this kind; `param` is the path.
    """
    try:
        return _decode(body, kind)
    except msgspec.ValidationError as error:
        _refuse(error, "$")
    except ValueError as error:
        raise MalformedRequest(f"The body is not valid JSON: {_broken(error)}.", reason="invalid_json") from error
    except RecursionError as error:
        raise MalformedRequest("The body is nested too deeply.", reason="invalid_json") from error


def part(value: Raw, kind: type[T], at: str) -> T:
    """A part of a body that `decode` has been through; `at` is its path.

    Raises:
        MalformedRequest: it is not of this kind; `param` is the path, from the root.
    """
    try:
        result: T = _decoder(kind).decode(value)
    except msgspec.ValidationError as error:
        _refuse(error, at)
    except RecursionError as error:
        raise MalformedRequest(f"{at} is nested too deeply.", param=at, reason="invalid_value") from error
    return result


def decode_answer(body: bytes, kind: type[T]) -> T:
    """What an upstream sent, whole or one event of it.

    Raises:
        RemoteProtocolError: it is no JSON, or not of this kind.
    """
    try:
        return _decode(body, kind)
    except ValueError as error:
        raise RemoteProtocolError(f"The upstream's answer cannot be read: {error}") from error
    except RecursionError as error:
        raise RemoteProtocolError("The upstream's answer is nested too deeply.") from error


def _decode(body: bytes, kind: type[T]) -> T:
    check_utf8(body)  # msgspec checks it only in strings that it builds, not in those it skips or keeps raw
    decoder = _decoder(kind)
    body = body.removeprefix(_BOM)
    try:
        result: T = decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if not _LONE_HALF.search(body):
            raise
        result = decoder.decode(mend(body))
    return result


def check_utf8(body: bytes) -> None:
    """Look whether `body` is UTF-8, piece by piece: the text of a whole large one would be made for nothing.

    Raises:
        UnicodeDecodeError: it is not; `start` is the position.
    """
    at = 0
    while at < len(body):
        piece = body[at : at + _PIECE]
        if piece.isascii():
            at += len(piece)
            continue
        try:
            at += codecs.utf_8_decode(piece, "strict", at + len(piece) == len(body))[1]
        except UnicodeDecodeError as error:
            raise UnicodeDecodeError("utf-8", body, at + error.start, at + error.end, error.reason) from None


def mend(text: bytes) -> bytes:
    """JSON text in which no escape is half a surrogate pair."""
    return _ESCAPE.sub(lambda match: _REPLACEMENT if match[1] else match[0], text)


def raw(value: Raw, at: str) -> RawJson:
    """A copy of a part that passes through; a `Raw` alone would keep the whole body alive.

    Raises:
        MalformedRequest: it is nested deeper than `MAX_DEPTH`.
    """
    text = bytes(value)
    if not shallow(text):
        raise MalformedRequest(
            f"{at} is nested deeper than {MAX_DEPTH} levels; flatten it.", param=at, reason="invalid_value"
        )
    return text


def base64_text(data: str, at: str) -> str:
    """The text that base64 data holds; bytes that are not UTF-8 become U+FFFD.

    Raises:
        MalformedRequest: it is not base64; `at` is its path.
    """
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except ValueError as error:
        raise MalformedRequest(f"{at} is not base64.", param=at, reason="invalid_value") from error


def is_object(text: bytes | Raw) -> bool:
    """Whether `text` is one whole JSON object, not nested deeper than `MAX_DEPTH`."""
    try:
        _decoder(dict[str, Raw]).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return shallow(bytes(text))


def as_object(text: bytes) -> RawJson:
    """The arguments of a tool call as a JSON object, whatever a model or a client made of them.

    Nothing at all (also ``null`` and ``""``) is an empty object. What is no object rides in the member ``arguments`` of
    one, as a string, so that it is kept and can be seen.
    """
    if is_object(text):
        return text
    if text.strip() in (b"", b"null", b'""'):
        return b"{}"
    mended = mend(text)
    if mended != text and is_object(mended):
        return mended
    return encode({"arguments": text.decode("utf-8", "replace")})


def shallow(text: bytes) -> bool:
    """Whether JSON is nested no deeper than `MAX_DEPTH`."""
    if len(text) <= 2 * MAX_DEPTH or text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return True
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[1]:
            depth += 1
            if depth > MAX_DEPTH:
                return False
        elif match[2]:
            depth -= 1
    return True


def _broken(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    story = str(error).removeprefix("JSON is malformed: ")
    return "it ends too early" if story == "Input data was truncated" else story


def _refuse(error: msgspec.ValidationError, at: str) -> NoReturn:
    """Say a validation error with the whole path: msgspec's starts at what it was given."""
    story = str(error)
    if found := _AT.search(story):
        story = story[: found.start()]
        at += found[1].removeprefix("$")
    if missing := _MISSING.match(story):
        at = f"{at}.{missing[1]}"
        raise MalformedRequest(f"{at} is required.", param=at, reason="missing_required_parameter") from error
    story = story[0].lower() + story[1:].replace("`", "")
    raise MalformedRequest(f"{at}: {story}.", param=at, reason="invalid_type") from error
