"""Header fields that are checked once."""

from __future__ import annotations

import pytest

from helpers.servers import OK, always, serving
from kirostream.errors import LocalProtocolError
from kirostream.net.client import HttpClient
from kirostream.net.fields import Fields


def test_they_are_a_sequence_of_pairs() -> None:
    pairs = [(b"x-a", b"1: 2"), (b"X-B", b""), (b"x-a", b"\xff")]
    fields = Fields(pairs)
    assert fields.raw == b"x-a: 1: 2\r\nX-B: \r\nx-a: \xff\r\n"
    assert list(fields) == pairs
    assert (len(fields), fields[1], fields[1:]) == (3, pairs[1], pairs[1:])
    assert fields == Fields.written(fields.raw) != Fields([])
    assert list(Fields([])) == []


def test_they_show_no_values() -> None:
    assert repr(Fields([(b"authorization", b"Bearer secret")])) == "<Fields authorization>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"", b"x"),
        (b"a b", b"x"),
        (b"a", b" x"),
        (b"a", b"x "),
        (b"a", b"x\r\nb: y"),
        (b"a", b"x\ny"),
        (b"a", b"\x00"),
        (b"a: b\r\nc", b"x"),
        (b"Host", b"elsewhere"),
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
    ],
)
def test_what_is_none_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent") as caught:
        Fields([(b"fine", b"yes"), (name, value)])
    assert "elsewhere" not in str(caught.value)


async def test_they_go_out_as_they_are() -> None:
    async with serving(always(OK + b"content-length: 0\r\n\r\n")) as server, HttpClient() as client:
        pairs = [(b"X-One", b"1"), (b"x-two", b"2")]
        assert (await client.fetch("POST", server.url, pairs, b"body"))[0] == 200
        assert (await client.fetch("POST", server.url, Fields(pairs), b"body"))[0] == 200
        plain, written = server.peers[0].requests
        assert plain == written
        assert b"\r\nX-One: 1\r\nx-two: 2\r\n" in written
