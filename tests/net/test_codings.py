"""Content codings: what is in them comes out, and no more than was asked for."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kirostream.errors import MalformedRequest, RequestTooLarge
from kirostream.net.codings import STEP, decode, parse_codings


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zstd_of_unknown_size(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return stream.compress(data) + stream.flush()


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its wrapper": ("deflate", bare_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "zstd of unknown size": ("zstd", zstd_of_unknown_size),
}
every_coding = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=ENCODERS)
may_repeat = pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstd)])


def whole(coding: str, data: bytes, limit: int = 1 << 30) -> bytes:
    return b"".join(decode(coding, data, limit))


@every_coding
@pytest.mark.parametrize("size", [0, 1, 1000, STEP, 3 * STEP + 17])
def test_round_trip(coding: str, encode: Callable[[bytes], bytes], size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert whole(coding, encode(data)) == data
    assert whole(coding, encode(data), limit=size) == data


@every_coding
def test_one_byte_over_the_limit(coding: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RequestTooLarge, match="limit of 999 bytes"):
        whole(coding, encode(bytes(1000)), limit=999)


@every_coding
def test_a_bomb_costs_one_step(coding: str, encode: Callable[[bytes], bytes]) -> None:
    bomb = encode(bytes(96 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            for _ in decode(coding, bomb, 1 << 20):
                pass
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


@every_coding
def test_every_way_to_end_early(coding: str, encode: Callable[[bytes], bytes]) -> None:
    encoded = encode(b"some text that is long enough" * 3)
    for end in range(len(encoded)):
        with pytest.raises(MalformedRequest):
            whole(coding, encoded[:end])


@every_coding
def test_rubbish_behind_the_end(coding: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(MalformedRequest):
        whole(coding, encode(b"text") + b"rubbish")


@may_repeat
def test_several_members_are_one_body(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert whole(coding, encode(b"one ") + encode(b"") + encode(b"two")) == b"one two"


def test_a_window_over_8_mib_is_not_followed() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(MalformedRequest):
        whole("zstd", stream.compress(b"x" * 100) + stream.flush())


@given(st.sampled_from(["gzip", "deflate", "br", "zstd"]), st.binary(max_size=300))
def test_any_bytes_decode_or_are_malformed(coding: str, data: bytes) -> None:
    try:
        whole(coding, data, limit=1 << 20)
    except (MalformedRequest, RequestTooLarge):
        pass


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([b"identity"], ()),
        ([b"GZIP"], ("gzip",)),
        ([b"x-gzip"], ("gzip",)),
        ([b" gzip ,zstd"], ("zstd", "gzip")),
        ([b"deflate", b"identity, gzip,"], ("gzip", "deflate")),
    ],
)
def test_codings_are_undone_last_first(values: list[bytes], expected: tuple[str, ...]) -> None:
    assert parse_codings(values) == expected


@pytest.mark.parametrize("values", [[b"lzma"], [b"gzip;q=1"], [b"\xff"], [b"gzip,gzip,gzip,gzip"]])
def test_codings_that_are_refused(values: list[bytes]) -> None:
    with pytest.raises(MalformedRequest):
        parse_codings(values)


def test_a_refusal_says_what_is_supported() -> None:
    with pytest.raises(
        MalformedRequest, match=r"'lzma' is not supported. Use one of: gzip, deflate, br, zstd, identity"
    ):
        parse_codings([b"lzma"])
