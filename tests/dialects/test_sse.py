"""text/event-stream in any cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuts import bytewise, chunked, cuts
from kirostream.dialects.sse import EventReader, ServerEvent, comment, event, message
from kirostream.errors import RemoteProtocolError

STREAM = (
    b"\xef\xbb\xbf: a comment\n\n"
    b"event: first\ndata: one\n\n"
    b"data:two\r\ndata: and a half\r\n\r\n"
    b"data: cr only\r\r"
    b"event: nothing\n\n"
    b"data\n\n"
    b"id: 7\nretry: 10\nunknown: x\ndata:  two spaces\n\n"
    b"data: \xe6\xbc\xa2\xe2\x80\xa8\xc2\x85\x0b\x0c still one line\n\n"
    b"data: never ended\n"
)
EVENTS = [
    ServerEvent(b"first", b"one"),
    ServerEvent(b"", b"two\nand a half"),
    ServerEvent(b"", b"cr only"),
    ServerEvent(b"", b""),
    ServerEvent(b"", b" two spaces"),
    ServerEvent(b"", b"\xe6\xbc\xa2\xe2\x80\xa8\xc2\x85\x0b\x0c still one line"),
]


def read(pieces: Iterable[bytes]) -> list[ServerEvent]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def test_whole() -> None:
    assert read([STREAM]) == EVENTS


def test_byte_by_byte() -> None:
    assert read(bytewise(STREAM)) == EVENTS


@given(cuts(STREAM))
def test_in_any_cut(pieces: list[bytes]) -> None:
    assert read(pieces) == EVENTS


TOKENS = st.sampled_from([b"\r", b"\n", b":", b" ", b"data", b"event", b"x", b"\xef\xbb\xbf"])


@given(st.lists(TOKENS, max_size=30).map(b"".join), st.data())
def test_no_cut_changes_what_is_read(data: bytes, source: st.DataObject) -> None:
    assert read(source.draw(cuts(data))) == read([data])


def test_a_byte_order_mark_belongs_to_no_field() -> None:
    wire = b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: only in front of the stream\n\n"
    assert read([wire]) == read(bytewise(wire)) == [ServerEvent(b"", b"x")]


def test_what_is_written_is_read() -> None:
    assert read([event(b"name", b"{}"), comment(b"keep-alive"), message(b"x")]) == [
        ServerEvent(b"name", b"{}"),
        ServerEvent(b"", b"x"),
    ]


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("line", [b"data: 0123456789\n", b"data: 0123456789", b":0123456789abcdef"])
def test_an_endless_event_is_refused(line: bytes, size: int) -> None:
    reader = EventReader(max_event=64)
    endless = line * 10
    with pytest.raises(RemoteProtocolError, match="64 bytes"):
        deque(map(reader.feed, chunked(endless, size)), maxlen=0)


def test_many_events_are_not_one_large_one() -> None:
    reader = EventReader(max_event=64)
    assert len(reader.feed(b"data: 0123456789\n\n" * 100)) == 100
    assert reader.feed(b": 0123456789\n" * 100) == []
