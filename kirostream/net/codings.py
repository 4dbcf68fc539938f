"""Content codings of request bodies (RFC 9110 section 8.4): gzip, deflate, br, zstd, and any chain of them.

A body is decoded in bounded steps, so that a bomb costs one step over the limit and not its whole size:

- zlib and brotli take a ceiling for what one call may give out, so their step is `STEP`.
- zstandard's push interface takes none. A block of zstd holds at most 128 KiB (RFC 8878 section 3.1.1.2.4) and needs at
  least four bytes, so what is fed bounds what comes out: 1 KiB in, 32 MiB out. Feeding 1 KiB at a time was measured to
  cost nothing (13 ms for 1.5 MB either way). Its pull interface would bound the output, but cannot tell a whole body
  from a truncated one.

Pure: bytes in, bytes out. The libraries are imported for the first body that needs one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from kirostream.errors import MalformedRequest, RequestTooLarge

SUPPORTED: Final = ("gzip", "deflate", "br", "zstd", "identity")
STEP: Final = 256 << 10
"""Bytes, the most that one step of a zlib or brotli stream gives out."""

_ZSTD_FEED: Final = 1 << 10
_ZSTD_WINDOW: Final = 8 << 20  # RFC 9659: no HTTP sender may ask for more
_MOST_CODINGS: Final = 3  # a chain is legal, and each link multiplies what a bomb can do


def parse_codings(values: list[bytes]) -> tuple[str, ...]:
    """The codings to undo, last applied first, of all values of ``content-encoding``. ``identity`` is left out.

    Raises:
        MalformedRequest: a coding nobody here knows, or a chain of too many.
    """
    names = [name.strip().lower() for value in values for name in value.decode("latin-1").split(",")]
    codings = [{"x-gzip": "gzip"}.get(name, name) for name in names if name not in ("", "identity")]
    for coding in codings:
        if coding not in SUPPORTED:
            raise MalformedRequest(
                f"The content-encoding {coding!r} is not supported. Use one of: {', '.join(SUPPORTED)}."
            )
    if len(codings) > _MOST_CODINGS:
        raise MalformedRequest(f"The body is encoded {len(codings)} times. At most {_MOST_CODINGS} are accepted.")
    return tuple(reversed(codings))


def decode(coding: str, data: bytes | bytearray, limit: int) -> Iterator[bytes]:
    """Undo one coding, piece by piece, so that the caller can rest between the pieces.

    Args:
        coding: a name that `parse_codings` gave.
        limit: bytes, of all pieces together.

    Raises:
        MalformedRequest: the data is not in this coding, ends early, or has something behind its end.
        RequestTooLarge: there is more than `limit`.
    """
    size = 0
    for piece in _PIECES[coding](data):
        size += len(piece)
        if size > limit:
            raise RequestTooLarge(f"The decompressed body is over the limit of {limit} bytes.")
        yield piece


def _gzip(data: bytes | bytearray) -> Iterator[bytes]:
    return _zlib("gzip", data, 16 + zlib.MAX_WBITS)


def _deflate(data: bytes | bytearray) -> Iterator[bytes]:
    # The name means zlib's format; some clients send the bare stream that it wraps. A zlib header is 8 in the low half
    # of its first byte, and divisible by 31 as a whole (RFC 1950 section 2.2).
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _zlib("deflate", data, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _zlib(coding: str, data: bytes | bytearray, wbits: int) -> Iterator[bytes]:
    rest: bytes | bytearray = data
    while True:  # once a gzip member; the format allows several (RFC 1952 section 2.2)
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            try:
                piece = stream.decompress(rest, STEP)
            except zlib.error:
                raise _not_in(coding) from None
            rest = stream.unconsumed_tail
            if piece:
                yield piece
            elif not rest and not stream.eof:
                raise _cut_short(coding)
        rest = stream.unused_data
        if not rest:
            return
        if coding != "gzip":
            raise _not_in(coding)


def _br(data: bytes | bytearray) -> Iterator[bytes]:
    import brotli  # type: ignore[import-untyped]

    stream = brotli.Decompressor()
    fed = bytes(data)
    while not stream.is_finished():
        try:
            piece = stream.process(fed, output_buffer_limit=STEP)
        except brotli.error:
            raise _not_in("br") from None
        fed = b""
        if piece:
            yield piece
        elif stream.can_accept_more_data() and not stream.is_finished():
            raise _cut_short("br")


def _zstd(data: bytes | bytearray) -> Iterator[bytes]:
    import zstandard

    fresh = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    at = 0
    while True:  # once a frame; the format allows several (RFC 8878 section 3.1)
        stream = fresh.decompressobj()
        while not stream.eof:
            if at >= len(data):
                raise _cut_short("zstd")
            fed = data[at : at + _ZSTD_FEED]
            at += len(fed)
            try:
                yield stream.decompress(fed)
            except zstandard.ZstdError:
                raise _not_in("zstd") from None
        at -= len(stream.unused_data)
        if at >= len(data):
            return


def _not_in(coding: str) -> MalformedRequest:
    return MalformedRequest(f"The body is not {coding}, as its content-encoding says it is.")


def _cut_short(coding: str) -> MalformedRequest:
    return MalformedRequest(f"The {coding} body ends early.")


_PIECES: Final = {"gzip": _gzip, "deflate": _deflate, "br": _br, "zstd": _zstd}
