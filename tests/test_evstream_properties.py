"""What holds for the event-stream codec whatever the bytes and the cuts: the compiled core and the twin do the same.

Streams are built from good messages, from messages that are wrong behind right checksums (so that a decoder gets past
them), from damage, and from garbage; then cut anywhere and fed by either method.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cuts import cuts
from helpers.frames import Header, block, message
from kirostream import _evstream_py as twin
from kirostream._evstream_shared import HeaderValue, Int8, Int16, Int32, Int64, Timestamp
from kirostream.errors import FrameError

LIFT = ("content", "input")


@pytest.fixture(scope="module", params=["python", "compiled"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    return twin if request.param == "python" else compiled_core()


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    return compiled_core()


def compiled_core() -> ModuleType:
    try:
        return importlib.import_module("kirostream._evstream")
    except ModuleNotFoundError:
        if os.environ.get("KIROSTREAM_CORE") == "compiled":
            raise
        pytest.skip("the compiled core is not built")


# --- streams ------------------------------------------------------------------------------------------------------

WIDTHS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
NAMES = st.sampled_from([b":event-type", b":message-type", b"a", b"b", "\u00e9".encode()])


@st.composite
def headers(draw: st.DrawFn) -> Header:
    code = draw(st.integers(0, 9))
    if code == 7:
        return draw(NAMES), code, draw(st.text(max_size=8)).encode()
    if code == 6:
        return draw(NAMES), code, draw(st.binary(max_size=8))
    return draw(NAMES), code, draw(st.binary(min_size=WIDTHS[code], max_size=WIDTHS[code]))


HEADER_BLOCKS = st.one_of(
    st.sampled_from([b"", block([(b":event-type", 7, b"text")]), block([(b":event-type", 7, b"tool")])]),
    st.lists(headers(), max_size=4, unique_by=lambda header: header[0]).map(block),
)
TEXTS = st.text(st.sampled_from('ab"\\/\n\x1f\x7f\u00e9\u20ac\U0001f984\ud83e\udd84 '), max_size=24)
MEMBERS = st.dictionaries(st.sampled_from(["content", "input", "name", "\u00e9", 'q"']), TEXTS, min_size=1, max_size=3)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Payloads as Kiro sends them, now and then with a fault of their own."""
    text = json.dumps(draw(MEMBERS), ensure_ascii=draw(st.booleans()), separators=(",", ":"))
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if draw(st.integers(0, 3)) == 0:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(b'"\\,:{}u\0\x1f\x80\xc3\xed\xf0\xff'))
    return bytes(data)


PAYLOADS = st.one_of(objects(), objects(), st.binary(max_size=40))
GOOD = st.builds(message, HEADER_BLOCKS, PAYLOADS)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(GOOD))
    data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


BAD = st.one_of(
    damaged(),
    st.builds(message, st.binary(max_size=24), st.just(b"")),  # headers at random, with right checksums
    st.builds(lambda raw, at: message(raw[:at]), HEADER_BLOCKS, st.integers(0, 30)),
    st.builds(lambda total, size: message(total=total, headers_length=size), st.integers(0, 40), st.integers(0, 40)),
    st.builds(lambda total: message(total=total), st.integers(0, (1 << 32) - 1)),
    st.binary(max_size=30),
)


@st.composite
def runs_of_messages(draw: st.DrawFn) -> bytes:
    """Many messages of one kind, which is what runs are made of."""
    raw = draw(HEADER_BLOCKS)
    before, after = draw(st.sampled_from([(b'{"content":"', b'"}'), (b'{"name":"n","input":"', b'","x":""}')]))
    texts = draw(st.lists(TEXTS, min_size=1, max_size=6))
    return b"".join(message(raw, before + _inside(text, draw(st.booleans())) + after) for text in texts)


def _inside(text: str, ensure_ascii: bool) -> bytes:
    return json.dumps(text, ensure_ascii=ensure_ascii)[1:-1].encode("utf-8", "surrogatepass")


GOOD_STREAMS = st.lists(st.one_of(GOOD, runs_of_messages()), max_size=5).map(b"".join)
STREAMS = st.lists(st.one_of(GOOD, runs_of_messages(), runs_of_messages(), BAD), max_size=6).map(b"".join)
CUT_STREAMS = STREAMS.flatmap(cuts)
METHODS = st.lists(st.sampled_from(["feed", "feed_runs"]), min_size=1, max_size=4)


# --- what a decoder did, in plain values --------------------------------------------------------------------------


def told(item: Any) -> Any:
    if isinstance(item, list):
        return item
    typed = [(name, type(value).__name__, value) for name, value in item.headers.items()]
    return typed, item.payload, item.lifted, repr(item)


def attempt(method: Any, *args: bytes) -> Any:
    try:
        return [told(item) for item in method(*args) or []]
    except FrameError as fault:
        return fault.fault, fault.offset, fault.detail


def history(core: Any, pieces: Sequence[bytes], methods: Sequence[str], **settings: Any) -> list[Any]:
    """Everything a decoder answers, to the end and beyond."""
    decoder = core.FrameDecoder(lift=LIFT, **settings)
    out = []
    for i, piece in enumerate(pieces):
        out.append(attempt(getattr(decoder, methods[i % len(methods)]), piece))
        out.append((decoder.buffered, decoder.offset, repr(decoder).replace(core.CORE, "")))
    return [*out, attempt(decoder.close), attempt(decoder.feed, b""), attempt(decoder.close)]


def outcome(core: Any, pieces: Sequence[bytes], method: str = "feed") -> tuple[list[Any], Any]:
    """All that is delivered, and the fault."""
    decoder = core.FrameDecoder(lift=LIFT)
    items = []
    try:
        for piece in pieces:
            items += [told(item) for item in getattr(decoder, method)(piece)]
        decoder.close()
    except FrameError as fault:
        return items, (fault.fault, fault.offset, fault.detail)
    return items, None


def flat(items: Sequence[Any]) -> list[bytes | None]:
    """The lifted texts of frames and runs, in order."""
    return [piece for item in items for piece in (item if isinstance(item, list) else [item[2]])]


# --- the properties -----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(pieces=CUT_STREAMS, methods=METHODS)
def test_both_cores_do_the_same(compiled: ModuleType, pieces: list[bytes], methods: list[str]) -> None:
    assert history(compiled, pieces, methods) == history(twin, pieces, methods)


@settings(max_examples=100, deadline=None)
@given(pieces=CUT_STREAMS, methods=METHODS, most=st.integers(16, 60), headers=st.integers(0, 20))
def test_both_cores_have_the_same_limits(
    compiled: ModuleType, pieces: list[bytes], methods: list[str], most: int, headers: int
) -> None:
    limits = {"max_message": most, "max_headers": headers}
    assert history(compiled, pieces, methods, **limits) == history(twin, pieces, methods, **limits)


@settings(max_examples=100, deadline=None)
@given(pieces=CUT_STREAMS)
def test_cuts_change_nothing(core: ModuleType, pieces: list[bytes]) -> None:
    assert outcome(core, pieces) == outcome(core, [b"".join(pieces)])


@settings(max_examples=100, deadline=None)
@given(pieces=CUT_STREAMS)
def test_runs_say_what_frames_say(core: ModuleType, pieces: list[bytes]) -> None:
    frames, fault = outcome(core, pieces)
    runs, same_fault = outcome(core, pieces, "feed_runs")
    assert same_fault == fault
    assert flat(runs) == flat(frames)
    # What is left out can be put back: a run repeats the frame before it, but for its pieces.
    whole: list[Any] = []
    for item in runs:
        if not isinstance(item, list):
            whole.append(item[:3])
            before, _, after = _around(item)
        else:
            assert item
            whole += [(whole[-1][0], before + piece + after, piece) for piece in item]
    assert whole == [item[:3] for item in frames]


RUN_HEADERS = block([(b":event-type", 7, b"text")])
MOSTLY_RUNS = st.lists(
    st.one_of(
        st.text(st.sampled_from('ab"\\\n\u00e9\U0001f984'), max_size=9).map(
            lambda text: message(RUN_HEADERS, json.dumps({"content": text}, separators=(",", ":")).encode())
        ),
        st.sampled_from([message(RUN_HEADERS, b'{"content":"x"}')] * 3 + [message(RUN_HEADERS, b'{"content":1}')]),
        st.sampled_from([message(b"", b'{"content":"y"}'), message(RUN_HEADERS, b'{"content":"z"}', message_crc=1)]),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.one_of(MOSTLY_RUNS.flatmap(cuts), CUT_STREAMS), rooms=st.lists(st.integers(0, 20), min_size=1, max_size=4)
)
def test_what_is_asked_for_as_a_run_is_what_feed_runs_says(
    core: ModuleType, pieces: list[bytes], rooms: list[int]
) -> None:
    """A run is taken whole or not at all, and what is not taken is as if it had never been shown."""
    asked, fed = core.FrameDecoder(lift=LIFT), core.FrameDecoder(lift=LIFT)
    for index, piece in enumerate(pieces):
        room = rooms[index % len(rooms)]
        run = asked.run_of(piece, room)
        if run is not None:
            assert sum(map(len, run)) <= room
            assert all(run)
        said = attempt(asked.feed_runs, piece) if run is None else [run] if run else []
        assert said == attempt(fed.feed_runs, piece)
        assert (asked.buffered, asked.offset) == (fed.buffered, fed.offset)


def _around(item: Any) -> tuple[bytes, bytes, bytes]:
    """The payload before, in and after the lifted string. It stands behind its key, so the key finds it."""
    _, payload, lifted, _ = item
    if lifted is None:
        return b"", b"", b""
    for key in LIFT:
        before, found, after = payload.partition(b'"' + key.encode() + b'":"')
        if found:
            return before + found, lifted, after[len(lifted) :]
    raise AssertionError(payload)


@settings(max_examples=60, deadline=None)
@given(data=GOOD_STREAMS)
def test_a_stream_is_written_as_it_was_read(core: ModuleType, data: bytes) -> None:
    decoder = core.FrameDecoder()
    frames = decoder.feed(data)
    decoder.close()
    assert b"".join(core.encode_frame(frame.headers, frame.payload) for frame in frames) == data


def sized(kind: type[int], bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1).map(kind)


VALUES: st.SearchStrategy[HeaderValue] = st.one_of(
    st.booleans(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.uuids(),
    sized(int, 64),
    sized(Int8, 8),
    sized(Int16, 16),
    sized(Int32, 32),
    sized(Int64, 64),
    sized(Timestamp, 64),
)
NAMED = st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=6)


@settings(max_examples=60, deadline=None)
@given(named=NAMED, payload=st.binary(max_size=100))
def test_headers_are_read_as_they_were_written(core: ModuleType, named: dict[str, HeaderValue], payload: bytes) -> None:
    data = core.encode_frame(named, payload)
    assert data == twin.encode_frame(named, payload)
    [frame] = core.FrameDecoder().feed(data)
    assert frame.payload == payload
    assert list(frame.headers.items()) == list(named.items())
    for name, value in named.items():
        assert type(frame.headers[name]) is _read_type(value)


def _read_type(value: HeaderValue) -> type[HeaderValue]:
    if type(value) is int:
        return Int32 if -(1 << 31) <= value < 1 << 31 else Int64
    if isinstance(value, uuid.UUID):
        return uuid.UUID
    return type(value)


@settings(max_examples=120, deadline=None)
@given(text=st.text(max_size=40), ascii_only=st.booleans())
def test_what_is_lifted_is_the_text(core: ModuleType, text: str, ascii_only: bool) -> None:
    payload = json.dumps({"content": text}, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    [frame] = core.FrameDecoder(lift=LIFT).feed(message((), payload))
    assert frame.lifted is not None
    assert json.loads(b'"' + frame.lifted + b'"') == text


@settings(max_examples=200, deadline=None)
@given(payload=objects())
def test_what_is_lifted_is_a_valid_string(core: ModuleType, payload: bytes) -> None:
    """Lone surrogates, control characters, damage: nothing is lifted that is not the member's value."""
    [frame] = core.FrameDecoder(lift=LIFT).feed(message((), payload))
    if frame.lifted is None:
        return
    text = json.loads(b'"' + frame.lifted + b'"')
    text.encode()  # UnicodeEncodeError if half of a pair got through
    members = json.loads(payload)
    assert [members[key] for key in LIFT if key in members] == [text]


@settings(max_examples=100, deadline=None)
@given(members=MEMBERS)
def test_what_can_be_lifted_is(core: ModuleType, members: dict[str, str]) -> None:
    """The other half of the rule: with clean text and one key of ours, the lift does not give up."""
    clean = {key: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for key, text in members.items()}
    payload = json.dumps(clean, separators=(",", ":")).encode()
    [frame] = core.FrameDecoder(lift=LIFT).feed(message((), payload))
    ours = [key for key in LIFT if key in clean]
    escaped_key = any(json.dumps(key) != f'"{key}"' for key in clean)
    assert (frame.lifted is not None) == (len(ours) == 1 and not escaped_key)
