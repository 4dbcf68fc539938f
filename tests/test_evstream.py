"""The event-stream codec, both cores: one class, parametrised.

The public vectors are read from beside the repository; our own are made by `helpers.frames`, which shares no code with
the codec. What must hold for *any* bytes is in `test_evstream_properties`.
"""

from __future__ import annotations

import array
import base64
import hashlib
import importlib
import importlib.util
import json
import os
import random
import sys
import tracemalloc
import uuid
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.cuts import bytewise, chunked
from helpers.frames import TEXT, Header, block, event, message
from kirostream._evstream_shared import Int8, Int16, Int32, Int64, SizedInt, Timestamp
from kirostream.errors import FrameError, LocalProtocolError

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"


def load_index() -> list[Any]:
    index = VECTORS / "index.json"
    return list(json.loads(index.read_text())["vectors"]) if index.exists() else []


@pytest.fixture(params=["python", "compiled"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "python":
        return importlib.import_module("kirostream._evstream_py")
    return compiled_core()


def compiled_core() -> ModuleType:
    try:
        return importlib.import_module("kirostream._evstream")
    except ModuleNotFoundError:
        if os.environ.get("KIROSTREAM_CORE") == "compiled":
            raise
        pytest.skip("the compiled core is not built")


def decode(decoder: Any, pieces: Iterable[bytes]) -> tuple[list[Any], FrameError | None]:
    """All frames of a stream, and the fault it ends with."""
    frames = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
        decoder.close()
    except FrameError as fault:
        return frames, fault
    return frames, None


def random_cuts(data: bytes, seed: str) -> Iterator[bytes]:
    dice = random.Random(seed)
    at = 0
    while at < len(data):
        size = dice.choice((0, 1, 2, 11, 12, 13, 40, 200, 5000))
        yield data[at : at + size]
        at += size


def in_cuts(data: bytes) -> dict[str, list[bytes]]:
    return {
        "whole": [data],
        "bytewise": list(bytewise(data)) if len(data) < 10_000 else list(chunked(data, 7)),
        "random": list(random_cuts(data, hashlib.sha256(data).hexdigest())),
    }


TYPES = {
    "byte": Int8,
    "short": Int16,
    "integer": Int32,
    "long": Int64,
    "timestamp": Timestamp,
    "string": str,
    "bytes": bytes,
    "uuid": uuid.UUID,
    "true": bool,
    "false": bool,
}


def said(frame: Any) -> list[Any]:
    """A frame's headers as the vectors' index has them."""
    names = {kind: name for name, kind in TYPES.items() if kind is not bool}
    out = []
    for name, value in frame.headers.items():
        if isinstance(value, bool):
            out.append([name, "true" if value else "false", value])
        elif isinstance(value, bytes):
            out.append([name, "bytes", base64.b64encode(value).decode()])
        else:
            plain = int(value) if isinstance(value, int) else str(value)
            out.append([name, names[type(value)], plain])
    return out


def check_frames(frames: list[Any], expected: list[Any]) -> None:
    assert len(frames) == len(expected)
    for frame, entry in zip(frames, expected, strict=True):
        assert said(frame) == entry["headers"]
        if "payload_b64" in entry:
            assert frame.payload == base64.b64decode(entry["payload_b64"])
        else:
            assert len(frame.payload) == entry["payload_len"]
            assert hashlib.sha256(frame.payload).hexdigest() == entry["payload_sha256"]


ONE_OF_EACH: list[tuple[Header, Any]] = [
    ((b"yes", 0, b""), True),
    ((b"no", 1, b""), False),
    ((b"int8", 2, b"\x80"), Int8(-128)),
    ((b"int16", 3, b"\x7f\xff"), Int16(32767)),
    ((b"int32", 4, b"\xff\xff\xff\xfe"), Int32(-2)),
    ((b"int64", 5, b"\0\0\0\0\0\0\0\x05"), Int64(5)),
    ((b"bytes", 6, b"\0\xff"), b"\0\xff"),
    ((b"text", 7, "h\u00e9 \U0001f984".encode()), "h\u00e9 \U0001f984"),
    ((b"time", 8, b"\0\0\x01\x7c\x12\x34\x56\x78"), Timestamp(0x17C12345678)),
    ((b"uuid", 9, bytes(range(16))), uuid.UUID("00010203-0405-0607-0809-0a0b0c0d0e0f")),
]

GOOD = event("assistantResponseEvent", b'{"content":"hello"}')

# Fault, and a message that has it; the message is put behind good ones.
FAULTY: list[tuple[str, bytes]] = [
    ("prelude_crc", message(prelude_crc=0)),
    ("message_crc", message(payload=b"x", message_crc=0)),
    ("length", message(total=15)),
    ("length", message(total=0)),
    ("headers_length", message(payload=b"abc", headers_length=4)),
    ("headers_length", message(headers_length=0xFFFFFFFF)),
    ("header_type", message([(b"a", 10, b"")])),
    ("header_type", message([(b"a", 255, b"")])),
    ("header_overrun", message(b"\x05abcd")),
    ("header_overrun", message(b"\x01a")),
    ("header_overrun", message(b"\0")),
    ("header_overrun", message(b"\x01a\x02")),
    ("header_overrun", message(b"\x01a\x07\0")),
    ("header_overrun", message(b"\x01a\x07\0\x02x")),
    ("header_overrun", message(b"\x01a\x09" + bytes(15))),
    ("truncated", GOOD[:-1]),
    ("truncated", GOOD[:11]),
    ("truncated", GOOD[:1]),
    ("too_large", message(total=(16 << 20) + 1)),
    ("too_large", message(total=1 << 20, headers_length=(128 << 10) + 1)),
    ("header_name", message([(b"", 0, b"")])),
    ("header_name", message([(b"\xff", 0, b"")])),
    ("header_name", message([(b"\xed\xa0\x80", 0, b"")])),
    ("header_value", message([(b"a", 7, b"\xc0\x80")])),
    ("header_value", message([(b"a", 7, b"ab\xe2\x82")])),
    ("duplicate_header", message([(b"a", 0, b""), (b"b", 0, b""), (b"a", 1, b"")])),
]

# Payload, and what is lifted from it with lift=("content", "input").
LIFTS: list[tuple[bytes, bytes | None]] = [
    (b'{"content":"hello"}', b"hello"),
    (b'{"content":""}', b""),
    (b'{"content":"a\\"b\\\\c\\/\\b\\f\\n\\r\\t"}', b'a\\"b\\\\c\\/\\b\\f\\n\\r\\t'),
    (b'{"content":"\\u0000\\uD7ff\\ue000\\uFFFF"}', b"\\u0000\\uD7ff\\ue000\\uFFFF"),
    (b'{"content":"\\uD83D\\uDE00"}', b"\\uD83D\\uDE00"),
    (b'{"content":"\\ud83d\\ude00x\\uDBFF\\uDFFF"}', b"\\ud83d\\ude00x\\uDBFF\\uDFFF"),
    ('{"content":"\x7f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"}'.encode(), None),  # set below
    (b'{"modelId":"auto","content":"x"}', b"x"),
    (b'{"content":"x","modelId":"auto"}', b"x"),
    (b'{"toolUseId":"t","name":"n","input":"{\\"a\\":"}', b'{\\"a\\":'),
    ('{"é":"ü","content":"x"}'.encode(), b"x"),
    (b'{"":"","content":"x"}', b"x"),
    (b'{"content":"x",' + b",".join(b'"%d":""' % i for i in range(15)) + b"}", b"x"),
    # not lifted: parsed by the reader
    (b'{"content":"x",' + b",".join(b'"%d":""' % i for i in range(16)) + b"}", None),
    (b"", None),
    (b"{}", None),
    (b'{"content":"x"', None),
    (b'{"content":"x', None),
    (b'{"content":"', None),
    (b'{"content":', None),
    (b'{"content"', None),
    (b'{"content', None),
    (b"{", None),
    (b'{"content":"x"}}', None),
    (b'{"content":"x"} ', None),
    (b'{"content":"x",}', None),
    (b'{"content":"x";"a":"b"}', None),
    (b'{ "content":"x"}', None),
    (b'{"content": "x"}', None),
    (b'["content","x"]', None),
    (b'{"other":"x"}', None),
    (b'{"content":"x","input":"y"}', None),
    (b'{"content":"x","content":"y"}', None),
    (b'{"a":"x","a":"y","content":"z"}', None),
    (b'{"a":"x","content":"z","a":"y"}', None),
    (b'{"content":"x","n":1}', None),
    (b'{"content":"x","n":null}', None),
    (b'{"content":{"a":"b"}}', None),
    (b'{"cont\\u0065nt":"x"}', None),
    (b'{"a\\"b":"","content":"x"}', None),
    (b'{"content":"x","a":"\\ud800"}', None),
    (b'{"content":"x","\xff":""}', None),
    (b'{"content":"\\"}', None),
    (b'{"content":"\\', None),
    (b'{"content":"\\a"}', None),
    (b'{"content":"\\u12g4"}', None),
    (b'{"content":"\\u123"}', None),
    (b'{"content":"\\U0041"}', None),
    (b'{"content":"\\ud83d"}', None),
    (b'{"content":"\\ud83dx"}', None),
    (b'{"content":"\\ud83d\\n"}', None),
    (b'{"content":"\\ud83d\\ud83d"}', None),
    (b'{"content":"\\ud83d\\u0041"}', None),
    (b'{"content":"\\ud83d\\udbff"}', None),
    (b'{"content":"\\ud83d\\ue000"}', None),
    (b'{"content":"\\ud83d\\udc0"}', None),
    (b'{"content":"\\ude00"}', None),
    (b'{"content":"\\ude00\\ud83d"}', None),
    (b'{"content":"a\nb"}', None),
    (b'{"content":"\0"}', None),
    (b'{"content":"\x1f"}', None),
    (b'{"content":"\x80"}', None),
    (b'{"content":"\xc0\x80"}', None),
    (b'{"content":"\xc1\xbf"}', None),
    (b'{"content":"\xc2"}', None),
    (b'{"content":"\xe0\x9f\xbf"}', None),
    (b'{"content":"\xe2\x82"}', None),
    (b'{"content":"\xe2\x28\xa1"}', None),
    (b'{"content":"\xed\xa0\x80"}', None),
    (b'{"content":"\xed\xa0\xbd\xed\xb8\x80"}', None),
    (b'{"content":"\xf0\x8f\xbf\xbf"}', None),
    (b'{"content":"\xf0\x9f\x98"}', None),
    (b'{"content":"\xf4\x90\x80\x80"}', None),
    (b'{"content":"\xf5\x80\x80\x80"}', None),
    (b'{"content":"\xff"}', None),
]
LIFTS = [(payload, payload[12:-2] if b"\x7f" in payload else lifted) for payload, lifted in LIFTS]


class TestEventStream:
    # --- the public vectors ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("entry", load_index() or [None], ids=lambda entry: entry["name"] if entry else "absent")
    def test_vector(self, core: ModuleType, entry: Any) -> None:
        if entry is None:
            pytest.skip("no ../shared/vectors beside the repository")
        data = (VECTORS / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        for cut, pieces in in_cuts(data).items():
            # One vector says 16 MiB + 1: it is about truncation, not about our limit.
            frames, fault = decode(core.FrameDecoder(max_message=24 << 20), pieces)
            if entry["verdict"] == "policy":
                assert fault is not None or b"".join(core.encode_frame(f.headers, f.payload) for f in frames) == data
                if fault is not None:
                    assert fault.fault in ("header_name", "header_value", "duplicate_header")
                    continue
            else:
                assert (fault and fault.fault) == entry.get("error"), cut
            check_frames(frames, entry["frames"])
            if fault is None:
                assert b"".join(core.encode_frame(f.headers, f.payload) for f in frames) == data
            else:
                assert fault.offset == sum(len(core.encode_frame(f.headers, f.payload)) for f in frames)

    @pytest.mark.parametrize("entry", load_index() or [None], ids=lambda entry: entry["name"] if entry else "absent")
    def test_vector_with_a_tail(self, core: ModuleType, entry: Any) -> None:
        if entry is None:
            pytest.skip("no ../shared/vectors beside the repository")
        if entry["verdict"] == "policy" or entry.get("error") == "truncated":
            return  # the first are judged alone; a tail makes the others something else
        data = (VECTORS / entry["file"]).read_bytes()
        for pieces in in_cuts(data + GOOD + GOOD[:13]).values():
            frames, fault = decode(core.FrameDecoder(max_message=24 << 20), pieces)
            assert fault is not None
            if entry["verdict"] == "valid":
                check_frames(frames[:-1], entry["frames"])
                assert frames[-1].payload == b'{"content":"hello"}'
                assert (fault.fault, fault.offset) == ("truncated", len(data + GOOD))
            else:
                check_frames(frames, entry["frames"])
                assert fault.fault == entry["error"]

    # --- headers --------------------------------------------------------------------------------------------------

    def test_all_ten_header_types(self, core: ModuleType) -> None:
        data = message([header for header, _ in ONE_OF_EACH], b"payload")
        [frame] = core.FrameDecoder().feed(data)
        assert list(frame.headers) == [header[0].decode() for header, _ in ONE_OF_EACH]
        for value, (_, expected) in zip(frame.headers.values(), ONE_OF_EACH, strict=True):
            assert value == expected
            assert type(value) is type(expected)
        assert frame.payload == b"payload"
        assert core.encode_frame(frame.headers, frame.payload) == data

    @pytest.mark.parametrize(
        ("value", "header"),
        [
            (0, (b"n", 4, bytes(4))),
            (-(1 << 31), (b"n", 4, b"\x80\0\0\0")),
            ((1 << 31) - 1, (b"n", 4, b"\x7f\xff\xff\xff")),
            (1 << 31, (b"n", 5, b"\0\0\0\0\x80\0\0\0")),
            (-(1 << 31) - 1, (b"n", 5, b"\xff\xff\xff\xff\x7f\xff\xff\xff")),
            (-(1 << 63), (b"n", 5, b"\x80" + bytes(7))),
            (Int8(127), (b"n", 2, b"\x7f")),
            (Timestamp(-1), (b"n", 8, b"\xff" * 8)),
            (True, (b"n", 0, b"")),
            (False, (b"n", 1, b"")),
            ("", (b"n", 7, b"")),
            ("x" * 65535, (b"n", 7, b"x" * 65535)),
            (b"x" * 65535, (b"n", 6, b"x" * 65535)),
        ],
    )
    def test_values_are_written_in_the_smallest_type_that_says_them(
        self, core: ModuleType, value: Any, header: Header
    ) -> None:
        assert core.encode_frame({"n": value}, b"p") == message([header], b"p")

    def test_the_longest_name(self, core: ModuleType) -> None:
        name = "\u00e9" * 127 + "e"
        [frame] = core.FrameDecoder().feed(core.encode_frame({name: "v"}, b""))
        assert frame.headers == {name: "v"}

    @pytest.mark.parametrize(
        ("headers", "error"),
        [
            ({"": "v"}, LocalProtocolError),
            ({"n" * 256: "v"}, LocalProtocolError),
            ({"\u00e9" * 128: True}, LocalProtocolError),
            ({"n": "v" * 65536}, LocalProtocolError),
            ({"n": b"v" * 65536}, LocalProtocolError),
            ({"n": "\ud800"}, LocalProtocolError),
            ({"\ud800": "v"}, LocalProtocolError),
            ({"n": 1 << 63}, LocalProtocolError),
            ({"n": Int8(128)}, LocalProtocolError),
            ({"n": Int16(-32769)}, LocalProtocolError),
            ({"n": None}, TypeError),
            ({"n": 1.5}, TypeError),
            ({b"n": "v"}, TypeError),
        ],
    )
    def test_what_the_format_cannot_say(self, core: ModuleType, headers: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="event-stream header"):
            core.encode_frame(headers, b"")

    def test_a_payload_is_bytes(self, core: ModuleType) -> None:
        with pytest.raises(TypeError, match="payload is bytes"):
            core.encode_frame({}, "text")

    def test_an_empty_message(self, core: ModuleType) -> None:
        data = bytes.fromhex("00000010 00000000 05c248eb 7d98c8ff")
        assert core.encode_frame({}, b"") == data == message()
        [frame] = core.FrameDecoder().feed(data)
        assert (frame.headers, frame.payload, frame.lifted) == ({}, b"", None)
        assert (frame.message_type, frame.event_type, frame.exception_type) == ("", "", "")

    def test_sized_integers_are_integers(self) -> None:
        assert Int8(5) == 5
        assert f"{Int64(7)}" == str(Timestamp(7)) == "7"
        assert repr(Int16(3)) == "Int16(3)"
        assert all(issubclass(kind, SizedInt) for kind in (Int8, Int16, Int32, Int64, Timestamp))

    # --- frames ---------------------------------------------------------------------------------------------------

    def test_frames_own_what_they_hold(self, core: ModuleType) -> None:
        first, second = core.FrameDecoder().feed(GOOD + GOOD)
        assert first.headers == second.headers
        assert first.headers is not second.headers
        first.headers.clear()
        assert second.event_type == "assistantResponseEvent"
        [third] = core.FrameDecoder().feed(GOOD)
        assert third.event_type == "assistantResponseEvent"

    def test_what_a_caller_does_to_headers_does_not_come_back(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder()
        [first] = decoder.feed(GOOD)
        first.headers[":event-type"] = "changed"
        [second] = decoder.feed(GOOD)
        assert second.event_type == "assistantResponseEvent"

    def test_a_frame_is_read_only(self, core: ModuleType) -> None:
        frame = core.Frame({":message-type": "exception", ":exception-type": "ThrottlingException"}, b"{}", b"x")
        assert (frame.message_type, frame.event_type, frame.exception_type) == ("exception", "", "ThrottlingException")
        assert (frame.payload, frame.lifted) == (b"{}", b"x")
        for name in ("headers", "payload", "lifted", "event_type", "other"):
            with pytest.raises(AttributeError):
                setattr(frame, name, None)
        assert repr(frame) == "<Frame ThrottlingException, 2 headers, 2 bytes>"

    def test_a_type_that_is_no_string(self, core: ModuleType) -> None:
        [frame] = core.FrameDecoder().feed(message([(b":event-type", 4, bytes(4))]))
        assert frame.event_type == ""

    # --- feeding --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "wrap",
        [
            bytes,
            bytearray,
            memoryview,
            lambda data: memoryview(bytearray(data)),
            lambda data: memoryview(b"x" + data + b"x")[1:-1],
            lambda data: memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
            lambda data: memoryview(data).cast("B", (2, len(data) // 2)),
            lambda data: array.array("H", data),
            type("Bytes", (bytes,), {}),
        ],
    )
    def test_any_buffer(self, core: ModuleType, wrap: Any) -> None:
        data = GOOD + message(payload=b"x" * (len(GOOD) % 2))
        data += message(payload=b"x" * (len(data) % 2))
        decoder = core.FrameDecoder()
        frames = decoder.feed(wrap(data))
        assert frames[0].payload == b'{"content":"hello"}'
        assert decoder.buffered == 0
        decoder.close()

    @pytest.mark.parametrize("thing", ["text", None, 3, [1, 2]])
    def test_no_buffer(self, core: ModuleType, thing: Any) -> None:
        decoder = core.FrameDecoder()
        for feed in (decoder.feed, decoder.feed_runs):
            with pytest.raises(TypeError):
                feed(thing)
        assert len(decoder.feed(GOOD)) == 1

    def test_the_callers_buffer_is_free_afterwards(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder(lift=["content"])
        buffer_type = type("Buffer", (bytearray,), {})  # a bytearray that weakrefs can see
        for data in (GOOD + GOOD[:50], GOOD[50:] + message(prelude_crc=1)):
            buffer = buffer_type(data)
            frames = decoder.feed(buffer)
            buffer[:] = bytes(len(buffer))
            buffer.clear()  # BufferError if somebody still looks at it
            assert frames[0].lifted == b"hello"
            gone = weakref.ref(buffer)
            del buffer
            assert gone() is None
        buffer = bytearray(message(total=3))
        with pytest.raises(FrameError) as raised:
            core.FrameDecoder().feed(buffer)
        buffer.clear()
        assert raised.value.fault == "length"

    def test_feeding_nothing(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder()
        assert decoder.feed(b"") == decoder.feed_runs(bytearray()) == []
        decoder.close()
        decoder.close()

    def test_what_is_held(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder()
        for i in range(len(GOOD) - 1):
            assert (decoder.buffered, decoder.offset) == (i, 0)
            assert decoder.feed(GOOD[i : i + 1]) == []
        assert len(decoder.feed(GOOD[-1:])) == 1
        assert (decoder.buffered, decoder.offset) == (0, len(GOOD))
        assert len(decoder.feed(GOOD + GOOD[:5])) == 1
        assert (decoder.buffered, decoder.offset) == (5, 2 * len(GOOD))
        assert repr(decoder) == f"<FrameDecoder ({core.CORE}): message at byte {2 * len(GOOD)}, 5 bytes held>"
        with pytest.raises(FrameError):
            decoder.close()
        assert repr(decoder) == f"<FrameDecoder ({core.CORE}): faulty at byte {2 * len(GOOD)}>"
        assert decoder.buffered == 0

    def test_a_message_in_small_pieces_costs_linear_time(self, core: ModuleType) -> None:
        """No clock: what is held grows in few steps, each by a factor, so a byte is moved a bounded number of times."""
        data = message(payload=bytes(1 << 19))
        decoder = core.FrameDecoder()
        rooms = {sys.getsizeof(decoder)}
        for piece in chunked(data[:-1], 64):
            before = decoder.buffered
            decoder.feed(piece)
            assert decoder.buffered == before + len(piece)
            rooms.add(sys.getsizeof(decoder))
        assert len(rooms) < 120  # a fixed step of a page would make it some 130, a step a feed 8192
        assert max(rooms) < 2 * len(data) + 1000
        [frame] = decoder.feed(data[-1:])
        assert len(frame.payload) == 1 << 19
        assert sys.getsizeof(decoder) < 70_000  # and the room is given back

    def test_a_length_allocates_nothing(self, core: ModuleType) -> None:
        huge = message(total=0xFFFFFFFF)[:12]
        allowed = message(total=16 << 20)[:12]
        decoder, patient = core.FrameDecoder(), core.FrameDecoder()
        tracemalloc.start()
        try:
            with pytest.raises(FrameError) as raised:
                decoder.feed(huge)
            assert patient.feed(allowed + b"some") == []
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert raised.value.fault == "too_large"
        assert patient.buffered == 16
        assert peak < 50_000

    # --- limits ---------------------------------------------------------------------------------------------------

    def test_limits(self, core: ModuleType) -> None:
        data = message([(b"abcd", 0, b"")], b"x" * 14)  # 6 of headers, 36 in all
        assert len(data) == 36
        assert len(core.FrameDecoder(max_message=36, max_headers=6).feed(data)) == 1
        for limits in ({"max_message": 35}, {"max_headers": 5}):
            for pieces in ([data], [data[:12]], list(bytewise(data[:12]))):  # the prelude is enough to say no
                frames, fault = decode(core.FrameDecoder(**limits), pieces)
                assert frames == []
                assert fault is not None
                assert (fault.fault, fault.offset) == ("too_large", 0)
        assert len(core.FrameDecoder(max_message=1 << 70, max_headers=1 << 70).feed(data)) == 1

    def test_default_limits(self, core: ModuleType) -> None:
        for data in (message(total=16 << 20), message(total=1 << 20, headers_length=128 << 10)):
            decoder = core.FrameDecoder()
            assert decoder.feed(data[:12]) == []

    def test_impossible_settings(self, core: ModuleType) -> None:
        for settings in ({"max_message": 15}, {"max_headers": -1}):
            with pytest.raises(ValueError, match="at least"):
                core.FrameDecoder(**settings)
        with pytest.raises(TypeError, match="not one string"):
            core.FrameDecoder(lift="content")

    # --- faults ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("word", "bad"), FAULTY)
    def test_faults(self, core: ModuleType, word: str, bad: bytes) -> None:
        assert word in FrameError.FAULTS
        tail = b"" if word == "truncated" else GOOD
        for count in range(3):
            for cut, pieces in in_cuts(GOOD * count + bad + tail).items():
                frames, fault = decode(core.FrameDecoder(), pieces)
                assert fault is not None
                assert (fault.fault, fault.offset, len(frames)) == (word, count * len(GOOD), count), cut

    @pytest.mark.parametrize("next_call", ["feed", "feed_runs", "close"])
    def test_good_frames_first_then_the_fault_then_nothing(self, core: ModuleType, next_call: str) -> None:
        decoder = core.FrameDecoder()
        call = decoder.close if next_call == "close" else lambda: getattr(decoder, next_call)(b"")
        assert len(decoder.feed(GOOD + GOOD + message(prelude_crc=0) + GOOD)) == 2
        assert decoder.buffered == 0
        for word in ("prelude_crc", "refused", "refused"):
            with pytest.raises(FrameError) as raised:
                call()
            assert (raised.value.fault, raised.value.offset) == (word, 2 * len(GOOD))

    def test_a_fault_with_nothing_before_it_is_raised_at_once(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder()
        decoder.feed(GOOD)
        with pytest.raises(FrameError) as raised:
            decoder.feed(message(payload=b"x", message_crc=0))
        assert (raised.value.fault, raised.value.offset) == ("message_crc", len(GOOD))
        with pytest.raises(FrameError) as raised:
            decoder.feed(GOOD)
        assert raised.value.fault == "refused"
        with pytest.raises(FrameError) as raised:
            decoder.close()
        assert raised.value.fault == "refused"

    def test_the_end_inside_a_message(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder()
        decoder.feed(GOOD + GOOD[:20])
        with pytest.raises(FrameError) as raised:
            decoder.close()
        assert (raised.value.fault, raised.value.offset) == ("truncated", len(GOOD))
        assert "20 bytes" in raised.value.detail
        with pytest.raises(FrameError) as raised:
            decoder.feed(GOOD[20:])
        assert raised.value.fault == "refused"

    def test_every_flipped_bit_is_found(self, core: ModuleType) -> None:
        for i in range(8 * len(GOOD)):
            flipped = bytearray(GOOD)
            flipped[i // 8] ^= 1 << i % 8
            frames, fault = decode(core.FrameDecoder(), [bytes(flipped)])
            assert frames == []
            assert fault is not None
            assert fault.offset == 0

    def test_a_call_from_within(self, core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """A finalizer or another thread may call in the middle; what is held must not move under the reader."""
        decoder = core.FrameDecoder()
        caught = []

        def from_within(*, bytes: bytes) -> uuid.UUID:  # noqa: A002 (as UUID names it)
            for call in (decoder.close, lambda: decoder.feed(GOOD)):
                with pytest.raises(LocalProtocolError) as raised:
                    call()
                caught.append(raised.value)
            return uuid.UUID(bytes=bytes)

        monkeypatch.setattr(core, "UUID", from_within)
        data = message([(b"id", 9, bytes(16))])
        decoder.feed(data[:20])
        assert len(decoder.feed(data[20:])) == 1
        assert len(caught) == 2
        decoder.close()

    def test_an_exception_in_the_middle_loses_the_place(
        self, core: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(*, bytes: bytes) -> uuid.UUID:  # noqa: A002
            raise MemoryError

        monkeypatch.setattr(core, "UUID", no_memory)
        decoder = core.FrameDecoder()
        buffer = bytearray(GOOD + message([(b"id", 9, bytes(16))]))
        with pytest.raises(MemoryError):
            decoder.feed(buffer)
        with pytest.raises(LocalProtocolError):
            decoder.feed(GOOD)

    # --- the lift -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("payload", "lifted"), LIFTS)
    def test_lift(self, core: ModuleType, payload: bytes, lifted: bytes | None) -> None:
        data = event("x", payload)
        decoder = core.FrameDecoder(lift=("content", "input"))
        for cut in ([data], list(bytewise(data))):
            [frame] = [frame for piece in cut for frame in decoder.feed(piece)]
            assert frame.lifted == lifted
            assert frame.payload == payload
        if lifted is not None:
            members = json.loads(payload)
            assert json.loads(b'"' + lifted + b'"') == members.get("content", members.get("input"))

    @pytest.mark.parametrize(("payload", "lifted"), LIFTS)
    def test_lift_behind_a_frame_of_the_kind(self, core: ModuleType, payload: bytes, lifted: bytes | None) -> None:
        """The short way, by comparison with the last frame, finds what the long way finds."""
        before = event("x", b'{"content":"before"}')
        decoder = core.FrameDecoder(lift=("content", "input"))
        [_, frame] = decoder.feed(before + event("x", payload))
        assert frame.lifted == lifted
        decoder = core.FrameDecoder(lift=("content", "input"))
        out = decoder.feed_runs(before + event("x", payload))
        if lifted is not None and payload == b'{"content":"' + lifted + b'"}':
            assert out[1] == [lifted]
        else:
            assert out[1].lifted == lifted

    @pytest.mark.parametrize("good", [b" ", b"!", b"#", b"[", b"]", b"\x7f", b"\\n", b"\xc3\xbc", b"\xf0\x9f\x98\x80"])
    @pytest.mark.parametrize("bad", [b"\0", b"\x1f", b"\x80", b"\xff", b"\\x"])
    def test_lift_sees_every_place(self, core: ModuleType, good: bytes, bad: bytes) -> None:
        """Plain text is passed over 32 or 8 bytes at a time: each place of them is looked at."""
        for i in range(48):
            before, after = b"a" * i, b"a" * (48 - i)
            for text, lifted in ((before + good + after, True), (before + bad + after, False)):
                [frame] = core.FrameDecoder(lift=["content"]).feed(event("x", b'{"content":"' + text + b'"}'))
                assert frame.lifted == (text if lifted else None)

    def test_no_lift_unless_asked(self, core: ModuleType) -> None:
        assert core.FrameDecoder().feed(GOOD)[0].lifted is None
        assert core.FrameDecoder(lift=["other"]).feed(GOOD)[0].lifted is None

    # --- runs -----------------------------------------------------------------------------------------------------

    @staticmethod
    def shape(out: list[Any]) -> list[Any]:
        return [item if isinstance(item, list) else (item.event_type, item.lifted) for item in out]

    def test_runs(self, core: ModuleType) -> None:
        def text(content: bytes) -> bytes:
            return event("text", b'{"content":"' + content + b'"}')

        def tool(call: bytes, part: bytes) -> bytes:
            return event("tool", b'{"toolUseId":"' + call + b'","name":"f","input":"' + part + b'"}')

        decoder = core.FrameDecoder(lift=["content", "input"])
        out = decoder.feed_runs(text(b"a") + text(b"b") + text(b"") + tool(b"1", b"{") + tool(b"1", b"}"))
        assert self.shape(out) == [("text", b"a"), [b"b", b""], ("tool", b"{"), [b"}"]]
        out = decoder.feed_runs(tool(b"1", b"x") + tool(b"2", b"y") + tool(b"2", b"z"))
        assert self.shape(out) == [[b"x"], ("tool", b"y"), [b"z"]]
        out = decoder.feed_runs(text(b"c") + event("other", b"{}") + text(b"d") + text(b"e"))
        assert self.shape(out) == [("text", b"c"), ("other", None), ("text", b"d"), [b"e"]]
        assert self.shape(decoder.feed(text(b"f"))) == [("text", b"f")]
        assert decoder.feed_runs(text(b"g")) == [[b"g"]]

    @pytest.mark.parametrize(
        "other",
        [
            event("text", b'{"content":"a\nb"}'),  # not valid inside a string
            event("text", b'{"content":"a"b"}'),  # a bare quote
            event("text", b'{"content":"a\\"}'),  # an escape that runs into the quote
            event("text", b'{"content":"a","modelId":"m"}'),
            event("text", b'{"content":"a","content":"b"}'),  # the same before and after, but two members
            event("Text", b'{"content":"a"}'),
            event("text", b'{"content":"'),
            event("text", b""),
            message([(b":event-type", TEXT, b"text")], b'{"content":"a"}'),
        ],
    )
    def test_what_is_not_more_of_the_same(self, core: ModuleType, other: bytes) -> None:
        text = event("text", b'{"content":"x"}')
        [_, last] = core.FrameDecoder(lift=["content"]).feed_runs(text + other)
        [alone] = core.FrameDecoder(lift=["content"]).feed(other)
        assert (last.headers, last.payload, last.lifted) == (alone.headers, alone.payload, alone.lifted)

    def test_prefix_and_suffix_do_not_overlap(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder(lift=["c"])
        out = decoder.feed_runs(event("t", b'{"c":"","c2":""}') + event("t", b'{"c":""}') + event("t", b'{"c":"}'))
        assert self.shape(out) == [("t", b""), ("t", b""), ("t", None)]

    def test_a_fault_ends_a_run(self, core: ModuleType) -> None:
        decoder = core.FrameDecoder(lift=["content"])
        assert self.shape(decoder.feed_runs(GOOD * 3 + message(total=1))) == [
            ("assistantResponseEvent", b"hello"),
            [b"hello", b"hello"],
        ]
        with pytest.raises(FrameError) as raised:
            decoder.feed_runs(GOOD)
        assert (raised.value.fault, raised.value.offset) == ("length", 3 * len(GOOD))

    def test_a_run_in_any_cut(self, core: ModuleType) -> None:
        texts = [f'{i} "quoted" \U0001f984\n' for i in range(50)]
        data = b"".join(event("text", json.dumps({"content": text}, separators=(",", ":")).encode()) for text in texts)
        for pieces in in_cuts(data).values():
            decoder = core.FrameDecoder(lift=["content"])
            out = [item for piece in pieces for item in decoder.feed_runs(piece)]
            first, *runs = out
            assert not any(run == [] for run in runs)
            lifted = [first.lifted] + [piece for run in runs for piece in run]
            assert [json.loads(b'"' + piece + b'"') for piece in lifted] == texts


# --- what only one core has, and the choice between them ----------------------------------------------------------


def test_crc32_both_ways() -> None:
    compiled: Any = compiled_core()
    dice = random.Random(32)
    data = dice.randbytes(5000)
    assert compiled.CRC in ("pclmulqdq", "slicing")
    for size in [*range(400), 511, 512, 513, 1024, 4999]:
        for start in (0, 1, 15):
            piece = data[start : start + size]
            before = dice.getrandbits(32)
            for portable in (False, True):
                assert compiled._crc32(piece, before, portable=portable) == zlib.crc32(piece, before)


def choose() -> Any:
    """A fresh `kirostream.evstream`, under another name."""
    path = Path(importlib.import_module("kirostream.errors").__file__ or "").with_name("evstream.py")
    spec = importlib.util.spec_from_file_location("evstream_chosen", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestChoice:
    def test_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KIROSTREAM_CORE", "python")
        chosen = choose()
        assert chosen.CORE == "python"
        assert chosen.FrameDecoder.__module__ == "kirostream._evstream_py"

    def test_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compiled_core()
        for wanted in ("compiled", ""):
            monkeypatch.setenv("KIROSTREAM_CORE", wanted)
            assert choose().CORE == "compiled"

    def test_missing_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kirostream._evstream", None)
        monkeypatch.setenv("KIROSTREAM_CORE", "compiled")
        with pytest.raises(ImportError, match="not built"):
            choose()
        monkeypatch.delenv("KIROSTREAM_CORE")
        assert choose().CORE == "python"

    def test_unknown_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KIROSTREAM_CORE", "fast")
        with pytest.raises(ImportError, match="'compiled', 'python'"):
            choose()

    def test_all_names_are_there(self) -> None:
        chosen = choose()
        assert all(hasattr(chosen, name) for name in chosen.__all__)

    def test_block_of_headers_is_what_it_says(self) -> None:
        assert block([(b"a", 6, b"xy")]) == b"\x01a\x06\x00\x02xy"
