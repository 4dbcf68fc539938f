"""Heads and bodies of answers: vectors in whatever pieces, refusals, limits, and h11 as a second opinion."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuts import bytewise
from kirostream.errors import RemoteProtocolError
from kirostream.net.framing import (
    EXTENSION_LIMIT,
    FIELD_LIMIT,
    HEAD_LIMIT,
    LINE_LIMIT,
    TRAILER_LIMIT,
    Chunked,
    framing,
    read_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Read:
    """An answer as it was read. `whole` says whether its end came."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] | None = None
    body: bytes = b""
    whole: bool = False
    surplus: bool = False
    kept_for: float | None = 0
    interim: int = 0


class Broken(RemoteProtocolError):
    """A fault of a body, and what was given of it before."""

    def __init__(self, message: str, body: bytes) -> None:
        super().__init__(message)
        self.body = body


def read(pieces: Iterable[bytes], method: str = "GET", *, ends: bool = False) -> Read:
    """Read an answer as the transport does.

    Raises:
        RemoteProtocolError: as the head was read; `Broken` where it was in the body.
    """
    found = Read()
    data = b""
    body: Any = None
    for piece in pieces:
        if body is None:
            data += piece
            while (head := read_head(data)) is not None:
                answer, at = head
                data = data[at:]
                if answer.status >= 200:
                    body, found.kept_for = framing(answer, method)
                    found.status, found.headers = answer.status, list(answer.headers)
                    break
                found.interim += 1
            piece = data
        if body is not None:
            found.surplus |= body.done and bool(piece)
            if not body.done:
                found.body += body.feed(piece)
            if body.fault is not None:
                raise Broken(str(body.fault), found.body)
    if ends and body is not None:
        body.end()
    if body is not None:
        if body.fault is not None:
            raise Broken(str(body.fault), found.body)
        found.whole = body.done
        found.surplus |= body.surplus
    return found


def cuts(wire: bytes) -> Iterable[list[bytes]]:
    yield [wire]
    yield list(bytewise(wire))
    dice = random.Random(1)
    for _ in range(20):
        places = sorted(dice.randrange(len(wire) + 1) for _ in range(dice.randrange(1, 8)))
        yield [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]


GOOD: dict[str, tuple[bytes, bytes, float | None]] = {
    "counted": (OK + b"content-length: 5\r\n\r\nhello", b"hello", None),
    "counted, empty": (OK + b"content-length: 0\r\n\r\n", b"", None),
    "counted twice the same": (OK + b"content-length: 5\r\ncontent-length:5, 5\r\n\r\nhello", b"hello", None),
    "in chunks": (CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!", None),
    "in no chunk": (CHUNKED + b"0\r\n\r\n", b"", None),
    "sizes in every form": (CHUNKED + b"00A\r\n0123456789\r\na \r\n0123456789\r\n000\r\n\r\n", b"0123456789" * 2, None),
    "chunks that look like framing": (CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n", None),
    "a large chunk": (CHUNKED + b"12345\r\n" + b"x" * 0x12345 + b"\r\n0\r\n\r\n", b"x" * 0x12345, None),
    "extensions": (CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n', b"hello", None),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nx-checksum: 1\r\nEmpty:\r\n\r\n", b"hello", None),
    "CHUNKED": (OK + b"TRANSFER-ENCODING:\tCHUNKED \r\n\r\n1\r\na\r\n0\r\n\r\n", b"a", None),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", None),
    "not modified, with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", None),
    "after other heads": (
        b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + CHUNKED + b"0\r\n\r\n",
        b"",
        None,
    ),
    "to be closed": (OK + b"connection: x, Close\r\ncontent-length: 1\r\n\r\na", b"a", 0),
    "kept for a while": (OK + b"keep-alive: max=9, timeout=5\r\ncontent-length: 1\r\n\r\na", b"a", 4),
    "kept for no time": (OK + b"keep-alive: timeout=0\r\ncontent-length: 1\r\n\r\na", b"a", 0),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na", b"a", 0),
    "without a reason": (b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", b"a", None),
    "a reason in Latin-1": (b"HTTP/1.1 200 D\xe9j\xe0 vu\r\ncontent-length: 1\r\n\r\na", b"a", None),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 1\nx: y\n\na", b"a", None),
    "a folded line": (OK + b"x: a\r\n b\r\ncontent-length: 1\r\n\r\na", b"a", None),
}


@pytest.mark.parametrize(("wire", "body", "kept_for"), GOOD.values(), ids=GOOD)
def test_an_answer_in_whatever_pieces(wire: bytes, body: bytes, kept_for: float | None) -> None:
    status = 304 if b" 304 " in wire else 204 if b" 204 " in wire else 200
    for pieces in cuts(wire) if len(wire) < 1000 else [[wire], [wire[:70], wire[70:50000], wire[50000:]]]:
        found = read(pieces)
        assert (found.status, found.body, found.whole, found.surplus) == (status, body, True, False)
        assert found.kept_for == kept_for
        assert read([*pieces, b"H"]).surplus


@pytest.mark.parametrize(
    "name", [name for name, (wire, _, _) in GOOD.items() if b"\r\n\r\n" in wire and len(wire) < 1000]
)
def test_an_answer_that_is_cut_is_never_whole(name: str) -> None:
    wire, body, _ = GOOD[name]
    start = wire.rindex(b"\r\n\r\n", 0, len(wire) - len(body)) + 4 if b"length" in wire else wire.index(b"\r\n\r\n") + 4
    if name == "after other heads":
        start = wire.index(CHUNKED) + len(CHUNKED)
    for size in range(start, len(wire)):
        with pytest.raises(Broken, match="ended") as caught:
            read([wire[:size]], ends=True)
        assert body.startswith(caught.value.body)
    for size in range(start):
        assert not read([wire[:size]], ends=True).whole


def test_a_body_that_ends_with_the_connection() -> None:
    wire = OK + b"x: y\r\n\r\nhello"
    for pieces in cuts(wire):
        found = read(pieces)
        assert (found.body, found.whole) == (b"hello", False)
        found = read(pieces, ends=True)
        assert (found.body, found.whole, found.kept_for) == (b"hello", True, 0)


@pytest.mark.parametrize("fields", [b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n", b""])
def test_the_answer_to_head_has_no_body(fields: bytes) -> None:
    found = read([OK + fields + b"\r\n"], "HEAD")
    assert (found.whole, found.body, found.kept_for) == (True, b"", None)


def test_headers_in_wire_order() -> None:
    wire = OK + b"X-B:  1 \t\r\nx-a:\r\nX-b: 2, \xff\r\ncontent-length: 0\r\n\r\n"
    headers = [(b"x-b", b"1"), (b"x-a", b""), (b"x-b", b"2, \xff"), (b"content-length", b"0")]
    for pieces in cuts(wire):
        assert read(pieces).headers == headers


BAD_HEADS: dict[str, bytes] = {
    "a length and chunks": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
    "two lengths in one": OK + b"content-length: 5, 6\r\n\r\n",
    "a length with a sign": OK + b"content-length: +5\r\n\r\n",
    "a negative length": OK + b"content-length: -5\r\n\r\n",
    "a length in hex": OK + b"content-length: 0x5\r\n\r\n",
    "a length in other digits": OK + "content-length: ٥\r\n\r\n".encode(),
    "an empty length": OK + b"content-length:\r\n\r\n",
    "a length without end": OK + b"content-length: " + b"9" * 19 + b"\r\n\r\n",
    "another coding": OK + b"transfer-encoding: gzip\r\n\r\n",
    "two codings": OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "nearly chunked": OK + b"transfer-encoding: xchunked\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "a name with a space": OK + b"content-length : 5\r\n\r\n",
    "a name that is none": OK + b"a\x00b: c\r\n\r\n",
    "no name": OK + b": c\r\n\r\n",
    "no colon": OK + b"abc\r\n\r\n",
    "a value with a zero": OK + b"a: b\x00c\r\n\r\n",
    "a value with a carriage return": OK + b"a: b\rc: d\r\n\r\n",
    "a fold at the start": OK + b" a: b\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of no digits": b"HTTP/1.1 abc OK\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "too large": OK + b"a: " + b"x" * HEAD_LIMIT,
    "too large, and whole": OK + b"a: " + b"x" * HEAD_LIMIT + b"\r\n\r\n",
    "too many": OK + b"a: b\r\n" * (FIELD_LIMIT + 1) + b"\r\n",
}


@pytest.mark.parametrize("wire", BAD_HEADS.values(), ids=BAD_HEADS)
def test_a_head_that_is_refused(wire: bytes) -> None:
    for pieces in cuts(wire) if len(wire) < 1000 else [[wire], [wire[:100], wire[100:]]]:
        with pytest.raises(RemoteProtocolError):
            read(pieces)


BAD_BODIES: dict[str, bytes] = {
    "a size that is none": b"xyz\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n",
    "a size with a sign": b"+5\r\nhello\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "a size after a space": b" 5\r\nhello\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n",
    "an empty size": b"\r\nhello\r\n",
    "a size without end": b"0" * 16 + b"5\r\nhello\r\n",
    "a bare line feed after a size": b"5\nhello\r\n0\r\n\r\n",
    "a chunk without its line end": b"5\r\nhelloXX0\r\n\r\n",
    "a chunk that is longer": b"4\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a control character in an extension": b"5;a\x00b\r\nhello\r\n",
    "a line feed in an extension": b"5;a\nb\r\nhello\r\n",
    "a line without end": b"5;" + b"a" * LINE_LIMIT,
    "a trailer that is none": b"0\r\nabc\r\n\r\n",
    "an answer for a trailer": b"0\r\nHTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("wire", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_broken_is_given_up_to_there(wire: bytes) -> None:
    for pieces in cuts(CHUNKED + b"6\r\nbefore\r\n" + wire):
        with pytest.raises(Broken) as caught:
            read(pieces)
        assert caught.value.body in (b"before", b"beforehello", b"beforehell")


def test_extensions_do_not_outweigh_the_body() -> None:
    extended = b"1;" + b"a" * 500 + b"\r\nx\r\n"
    fits = EXTENSION_LIMIT // 485
    assert read([CHUNKED, *[extended] * fits, b"0\r\n\r\n"]).body == b"x" * fits
    with pytest.raises(RemoteProtocolError, match="extensions"):
        read([CHUNKED, *[extended] * (fits + 2)])
    balanced = b"1f4;" + b"a" * 500 + b"\r\n" + b"x" * 500 + b"\r\n"
    assert read([CHUNKED, *[balanced] * 200, b"0\r\n\r\n"]).whole


def test_trailers_are_bounded() -> None:
    trailer = b"a: " + b"b" * 500 + b"\r\n"
    with pytest.raises(RemoteProtocolError, match="trailers"):
        read([CHUNKED, b"0\r\n", *[trailer] * (TRAILER_LIMIT // len(trailer) + 1)])


def test_one_buffer_is_one_piece() -> None:
    body = Chunked()
    assert body.feed(b"3\r\nabc\r\n3\r\ndef\r\n2\r\ng") == b"abcdefg"
    assert body.feed(b"h\r\n0\r\n\r\n") == b"h"
    assert body.done


chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


@given(chunks, st.randoms(use_true_random=False))
def test_any_chunks_in_any_pieces(parts: list[bytes], dice: random.Random) -> None:
    wire = CHUNKED
    for part in parts:
        size = dice.choice([b"%x", b"%X", b"%03x", b"%x;ext", b"%x  "]) % len(part)
        wire += size + b"\r\n" + part + b"\r\n"
    wire += dice.choice([b"0\r\n\r\n", b"0;e=1\r\n\r\n", b"00\r\na: b\r\nc:\r\n\r\n"])
    places = sorted(dice.randrange(len(wire) + 1) for _ in range(dice.randrange(10)))
    pieces = [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]
    found = read(pieces)
    assert (found.body, found.whole, found.surplus) == (b"".join(parts), True, False)
    cut = dice.randrange(len(CHUNKED), len(wire))
    with pytest.raises(RemoteProtocolError):
        read([wire[:cut]], ends=True)


def by_h11(wire: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """What h11 makes of an answer that is whole."""
    judge = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    judge.send(h11.Request(method="GET", target="/", headers=[("host", "any")]))
    judge.send(h11.EndOfMessage())
    judge.receive_data(wire)
    status, headers, body = 0, [], b""
    while True:
        event = judge.next_event()
        if isinstance(event, h11.Response):
            status, headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, headers, body
        else:
            assert isinstance(event, h11.InformationalResponse), event


def others(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without those that h11 rewrites."""
    return [each for each in headers if each[0] not in (b"content-length", b"transfer-encoding")]


SEEDS = [wire for wire, _, _ in GOOD.values() if len(wire) < 1000] + [CHUNKED + wire for wire in BAD_BODIES.values()]
SEEDS += [wire + b"0\r\n\r\n" for wire in BAD_HEADS.values() if len(wire) < 1000]


@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(
            st.integers(0, 200),
            st.sampled_from(
                [
                    b"",
                    b"\r",
                    b"\n",
                    b"\r\n",
                    b" ",
                    b"\t",
                    b"0",
                    b"5",
                    b"a",
                    b":",
                    b";",
                    b",",
                    b"\x00",
                    b"\x0b",
                    b"\x80",
                    b"HTTP/1.1",
                ]
            ),
        ),
        max_size=4,
    ),
)
def test_what_is_taken_is_what_h11_takes(wire: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, put in changes:
        wire = wire[:at] + put + wire[at + (not put) :]
    try:
        found = read([wire])
    except RemoteProtocolError:
        return
    if found.whole and not found.surplus:
        status, headers, body = by_h11(wire)
        assert (status, body) == (found.status, found.body)
        assert others(headers) == others(found.headers or [])
