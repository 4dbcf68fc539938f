# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled core of the event-stream codec. `_evstream.pyi` documents it; `_evstream_py.py` is its twin.

Theory. Three rules hold in both cores; a change to one of them changes both files and the .pyi.

**Buffering.** A message that lies whole in the fed data is decoded where it lies: its payload is copied once, into the
`bytes` that the caller gets. Only the remainder that straddles two feeds is kept, in `held`. The next feed first tops
up that one message, and no further: up to 12 bytes until the prelude is whole, then up to the length the prelude says.
So a byte is copied into `held` at most once, `held` grows by doubling, and a message that comes byte by byte costs
linear time. The prelude is checked (its CRC, then its lengths against the limits) before anything after it is kept; a
length alone allocates nothing.

**Faults.** The methods in C return 0 or a fault, with two numbers for the detail; `run` makes the error.
A fault ends the stream for good: framing is lost. If the same call has frames to return, it returns them, the fault
waits in `fault` and the next call raises it; else the call raises it itself. `state` says what a call may do:

    READY --feed--> FEEDING --every message good--> READY
                    FEEDING --a fault--> FAULTY
    READY --close inside a message--> FAULTY --any call raises `fault` once, then "refused"

FEEDING is also what a call from within sees (another thread, a finalizer that runs in the middle): it is turned away,
for `held` is being read. An exception that is no fault (no memory) leaves it FEEDING: the place in the stream is lost.

**Runs.** The decoder remembers the last frame that it delivered: its header block, the headers made of it, and, where
a string was lifted, its payload and the span of that string. A message with the same block gets a copy of the same
dict (the values are immutable). In `feed_runs` a message whose payload is the same before and after the span, and has
valid string content in between, is not delivered as a frame; only its piece is. The comparison proves that the whole
payload parses, and parses alike: up to the opening quote it is the last payload, the content has no bare quote, so the
string ends where the suffix begins.

Where whoever has the bytes knows that a run is on, `look` says where its pieces lie and `keep` takes them: no object is
made, and the interpreter is not needed (`_runs.h`). `run_of` is the same with objects. The last frame's block and
payload stand beside their objects as plain pointers for that.

Both CRCs begin at the first byte of the message (kiro-protocol.md section 3.1), so the second goes on from the first.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_Copy
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from uuid import UUID

from kirostream._evstream_shared import (
    BUSY,
    MAX_HEADERS,
    MAX_MEMBERS,
    MAX_MESSAGE,
    Int8,
    Int16,
    Int32,
    Int64,
    Timestamp,
    check_settings,
    contiguous,
    encode_header,
    frame_error,
    message_size,
)
from kirostream.errors import LocalProtocolError

cdef extern from "_crc32.h" nogil:
    const char* crc32_init()
    uint32_t crc32_of(const uint8_t* at, size_t size, uint32_t crc)
    uint32_t crc32_of_portable(const uint8_t* at, size_t size, uint32_t crc)

cdef extern from "_runs.h":
    const char* KIROSTREAM_RUNS
    ctypedef struct ks_piece:
        const uint8_t* at
        size_t size
    ctypedef struct ks_runs:
        void* decoder
        Py_ssize_t (*look)(void*, const uint8_t*, size_t, size_t, ks_piece*, size_t) noexcept nogil
        int (*keep)(void*) noexcept nogil

CORE = "compiled"
CRC = crc32_init().decode()

cdef enum:
    PRELUDE = 12
    LEAST = 16  # a message without headers and payload
    MEMBERS = 16
    RUN = 1024  # pieces at a time; more are an odd read
    SPARE = 65536  # a larger buffer is given back when its message is done

assert MEMBERS == MAX_MEMBERS

cdef enum State:
    READY
    FEEDING
    FAULTY

cdef enum Fault:
    NO_FAULT
    PRELUDE_CRC
    MESSAGE_CRC
    LENGTH
    HEADERS_LENGTH
    HEADER_TYPE
    HEADER_OVERRUN
    TOO_LARGE
    HEADER_NAME
    HEADER_VALUE
    DUPLICATE_HEADER

cdef tuple FAULT_WORDS = (
    "", "prelude_crc", "message_crc", "length", "headers_length", "header_type", "header_overrun", "too_large",
    "header_name", "header_value", "duplicate_header",
)


cdef inline uint16_t be16(const uint8_t* at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline uint32_t be32(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline uint64_t be64(const uint8_t* at) noexcept nogil:
    return <uint64_t>be32(at) << 32 | be32(at + 4)


cdef inline void put_be32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value >> 24
    at[1] = value >> 16 & 0xFF
    at[2] = value >> 8 & 0xFF
    at[3] = value & 0xFF


# --- JSON strings (RFC 8259 section 7) in UTF-8 (RFC 3629) -----------------------------------------------------------

cdef inline uint64_t special(const uint8_t* at) noexcept nogil:
    """0 if these eight bytes are all ASCII, and none of them a control character, a quote or a backslash.

    A subtraction sets the top bit of a byte that is less than 0x20, or equal to the one that was xored away; it also
    does so for some that are not ASCII, and those count anyway. A borrow can only spoil bytes above one that was found.
    """
    cdef uint64_t eight
    cdef uint64_t ones = 0x0101010101010101
    memcpy(&eight, at, 8)
    return (
        ((eight - ones * 0x20) | ((eight ^ ones * c'"') - ones) | ((eight ^ ones * c"\\") - ones) | eight) & ones * 0x80
    )


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    """Its value, or -1."""
    if c"0" <= c <= c"9":
        return c - c"0"
    c |= 0x20
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return -1


cdef int unicode_escape(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The code unit of the escape ``\\uXXXX`` at `at`, or -1 if there is none."""
    cdef int unit = 0, digit, i
    if end - at < 6 or at[0] != c"\\" or at[1] != c"u":
        return -1
    for i in range(2, 6):
        digit = hex_digit(at[i])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef inline bint continues(uint8_t c) noexcept nogil:
    return c & 0xC0 == 0x80


cdef const uint8_t* string_end(const uint8_t* at, const uint8_t* end, bint escapes) noexcept nogil:
    """Where the content of a JSON string ends: at its closing quote, or at `end` if there is none.

    NULL if the content is not valid: a control character, a broken escape, half of a surrogate pair, bytes that are
    not UTF-8. Without `escapes`, a backslash is not valid either.
    """
    cdef uint8_t c
    cdef int unit
    while at < end:
        while end - at >= 32 and not (special(at) | special(at + 8) | special(at + 16) | special(at + 24)):
            at += 32
        while end - at >= 8 and not special(at):
            at += 8
        if at == end:
            return at
        c = at[0]
        if c == c'"':
            return at
        if c < 0x20:
            return NULL
        if c == c"\\":
            if not escapes or end - at < 2:
                return NULL
            c = at[1]
            if c == c"u":
                unit = unicode_escape(at, end)
                if unit < 0 or 0xDC00 <= unit < 0xE000:
                    return NULL
                at += 6
                if 0xD800 <= unit < 0xDC00:
                    unit = unicode_escape(at, end)
                    if unit < 0xDC00 or unit >= 0xE000:
                        return NULL
                    at += 6
            elif c in (c'"', c"\\", c"/", c"b", c"f", c"n", c"r", c"t"):
                at += 2
            else:
                return NULL
        elif c < 0x80:
            at += 1
        elif c < 0xC2:
            return NULL
        elif c < 0xE0:
            if end - at < 2 or not continues(at[1]):
                return NULL
            at += 2
        elif c < 0xF0:
            if end - at < 3 or not continues(at[1]) or not continues(at[2]):
                return NULL
            if (c == 0xE0 and at[1] < 0xA0) or (c == 0xED and at[1] >= 0xA0):
                return NULL  # overlong; a surrogate
            at += 3
        elif c < 0xF5:
            if end - at < 4 or not continues(at[1]) or not continues(at[2]) or not continues(at[3]):
                return NULL
            if (c == 0xF0 and at[1] < 0x90) or (c == 0xF4 and at[1] >= 0x90):
                return NULL  # overlong; beyond U+10FFFF
            at += 4
        else:
            return NULL
    return at


# --- frames ----------------------------------------------------------------------------------------------------------

# No GC: a frame holds a dict of immutable values and two bytes objects. It could be part of a cycle only if somebody
# put it into its own headers.
@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Frame:
    """One message. See `_evstream.pyi`."""

    cdef readonly dict headers
    cdef readonly bytes payload
    cdef readonly bytes lifted

    def __init__(self, dict headers not None, bytes payload not None, bytes lifted=None):
        self.headers = headers
        self.payload = payload
        self.lifted = lifted

    cdef str text(self, str name):
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""

    @property
    def message_type(self):
        return self.text(":message-type")

    @property
    def event_type(self):
        return self.text(":event-type")

    @property
    def exception_type(self):
        return self.text(":exception-type")

    def __repr__(self):
        kind = self.event_type or self.exception_type or self.message_type or "untyped"
        return f"<Frame {kind}, {len(self.headers)} headers, {len(self.payload)} bytes>"


cdef inline bytes copy(const uint8_t* at, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>at, size)


cdef inline const uint8_t* raw(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)


cdef inline str utf8(const uint8_t* at, Py_ssize_t size):
    """None if it is not UTF-8."""
    try:
        return PyUnicode_DecodeUTF8(<const char*>at, size, NULL)
    except UnicodeDecodeError:
        return None


@cython.final
cdef class FrameDecoder:
    """Decodes a stream that is fed in any cuts. See `_evstream.pyi`."""

    cdef uint64_t max_message, max_headers
    cdef tuple lift
    cdef State state
    cdef object fault  # found, not yet raised
    cdef uint64_t start  # offset of the message that is read now, or of the faulty one
    cdef uint64_t first, second  # what the fault's detail says
    # The first bytes of a message that is not whole yet, and its total length (0 until its prelude is whole and good).
    cdef uint8_t* held
    cdef size_t held_size, held_room, total
    # The last frame that was delivered (see "Runs").
    cdef bytes last_block
    cdef dict last_headers
    cdef bytes last_payload
    cdef Py_ssize_t last_from, last_to
    cdef const uint8_t* block_at  # NULL: there is none
    cdef const uint8_t* payload_at  # NULL: there is none, or nothing was lifted
    cdef size_t block_size, payload_size
    # What `look` found last, and `keep` takes: bytes of whole messages, and what is left behind them.
    cdef size_t seen
    cdef const uint8_t* rest
    cdef size_t rest_size
    cdef ks_runs table

    def __init__(self, *, max_message=MAX_MESSAGE, max_headers=MAX_HEADERS, lift=()):
        max_message, max_headers, self.lift = check_settings(max_message, max_headers, lift)
        self.max_message = min(max_message, 0xFFFFFFFF)
        self.max_headers = min(max_headers, 0xFFFFFFFF)
        self.table.decoder = <void*>self
        self.table.look = look_at
        self.table.keep = keep_of

    def __dealloc__(self):
        PyMem_RawFree(self.held)

    @property
    def runs(self):
        capsule = PyCapsule_New(&self.table, KIROSTREAM_RUNS, let_go)
        PyCapsule_SetContext(capsule, <void*>self)
        Py_INCREF(self)
        return capsule

    @property
    def buffered(self):
        return self.held_size

    @property
    def offset(self):
        return self.start

    def __repr__(self):
        if self.state == FAULTY:
            return f"<FrameDecoder ({CORE}): faulty at byte {self.start}>"
        return f"<FrameDecoder ({CORE}): message at byte {self.start}, {self.held_size} bytes held>"

    def __sizeof__(self):
        return object.__sizeof__(self) + self.held_room

    def feed(self, data, /):
        cdef list frames = []
        self.run(data, frames, False)
        return frames

    def feed_runs(self, data, /):
        cdef list out = []
        self.run(data, out, True)
        return out

    def run_of(self, bytes data not None, Py_ssize_t room, /):
        cdef ks_piece[RUN] pieces
        cdef Py_ssize_t count = self.look(raw(data), PyBytes_GET_SIZE(data), max(room, 0), pieces, RUN), i
        cdef list found
        if count < 0:
            return None
        found = PyList_New(count)
        for i in range(count):
            piece = copy(pieces[i].at, pieces[i].size)
            Py_INCREF(piece)
            PyList_SET_ITEM(found, i, piece)
        if self.keep() < 0:
            raise MemoryError
        return found

    cdef Py_ssize_t look(
        self, const uint8_t* at, size_t left, size_t room, ks_piece* pieces, size_t most
    ) noexcept nogil:
        """See `_runs.h`. A message that straddles is put together behind what is held of it, where nothing counts."""
        cdef const uint8_t* message
        cdef size_t total, have = self.held_size, count = 0
        cdef Py_ssize_t length
        if self.state != READY or self.payload_at is NULL:
            return -1
        self.seen = 0
        if have:
            total = self.total
            if not total and have + left >= PRELUDE:
                memcpy(self.held + have, at, PRELUDE - have)  # the least room holds that
                if self.check_prelude(self.held):
                    return -1
                total = be32(self.held)
            if not total or have + left < total:
                self.rest = at
                self.rest_size = left
                return 0
            if not self.reserve(total):
                return -1
            memcpy(self.held + have, at, total - have)
            at += total - have
            left -= total - have
            length = self.run_piece(self.held, total)
            if length <= 0 or <size_t>length > room or not most:
                return -1
            pieces[0].at = self.held + PRELUDE + self.block_size + self.last_from
            pieces[0].size = length
            room -= length
            self.seen = total
            count = 1
        while left >= PRELUDE:
            if self.check_prelude(at):
                return -1
            total = be32(at)
            if left < total:
                break
            length = self.run_piece(at, total)
            if length <= 0 or <size_t>length > room or count == most:
                return -1
            pieces[count].at = at + PRELUDE + self.block_size + self.last_from
            pieces[count].size = length
            room -= length
            count += 1
            self.seen += total
            at += total
            left -= total
        self.rest = at
        self.rest_size = left
        return count

    cdef int keep(self) noexcept nogil:
        """See `_runs.h`."""
        if self.seen:
            self.start += self.seen
            self.give_back()
        if self.rest_size:
            if not self.reserve(self.held_size + self.rest_size):
                self.state = FEEDING
                return -1
            memcpy(self.held + self.held_size, self.rest, self.rest_size)
            self.held_size += self.rest_size
            if not self.total and self.held_size >= PRELUDE:
                self.total = be32(self.held)
        return 0

    cdef inline Py_ssize_t run_piece(self, const uint8_t* message, size_t total) noexcept nogil:
        """The length of the piece, if this message, whose prelude is good, is one more of the run; else -1."""
        cdef size_t block_size = be32(message + 4)
        cdef const uint8_t* block = message + PRELUDE
        if self.block_size != block_size or memcmp(self.block_at, block, block_size):
            return -1
        if crc32_of(message + 8, total - 12, be32(message + 8)) != be32(message + total - 4):
            return -1
        return self.repeats(block + block_size, total - LEAST - block_size)

    def close(self):
        if self.state != READY:
            raise self.not_ready()
        if self.held_size:
            fault = frame_error("truncated", self.start, self.held_size)
            self.refuse()
            raise fault

    cdef object not_ready(self):
        """Why the decoder takes nothing now: a fault that waits to be raised, one that was raised, or a call inside."""
        if self.state == FEEDING:
            return LocalProtocolError(BUSY)
        fault, self.fault = self.fault, None
        return frame_error("refused", self.start) if fault is None else fault

    cdef int refuse(self) except -1:
        self.state = FAULTY
        self.give_back()
        self.last_block = self.last_headers = self.last_payload = None
        self.block_at = self.payload_at = NULL
        return 0

    cdef inline int run(self, data, list out, bint runs) except -1:
        """Put what `data` completes into `out`; raise a fault, or keep it for the next call if `out` holds something."""
        cdef int found
        if self.state != READY:
            raise self.not_ready()
        if type(data) is bytes:
            self.state = FEEDING
            found = self.split(raw(data), PyBytes_GET_SIZE(data), out, runs)
        else:
            found = self.split_view(contiguous(data), out, runs)
        if found:
            self.found_fault(found, out)
        else:
            self.state = READY
        return 0

    cdef int split_view(self, data, list out, bint runs) except -1:
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.state = FEEDING
            return self.split(<const uint8_t*>view.buf, view.len, out, runs)
        finally:
            PyBuffer_Release(&view)

    cdef int found_fault(self, int found, list out) except -1:
        fault = frame_error(FAULT_WORDS[found], self.start, self.first, self.second)
        self.refuse()
        if not out:
            raise fault
        self.fault = fault
        return 0

    cdef int split(self, const uint8_t* at, size_t left, list out, bint runs) except -1:
        cdef size_t need, take
        cdef int found
        while self.held_size and left:  # top up the message that straddles
            need = self.total or PRELUDE
            take = min(need - self.held_size, left)
            self.hold(at, take)
            at += take
            left -= take
            if self.held_size < need:
                return NO_FAULT
            if not self.total:
                found = self.check_prelude(self.held)
                if found:
                    return found
                self.total = be32(self.held)
            else:
                found = self.deliver(self.held, self.total, out, runs)
                if found:
                    return found
                self.give_back()
        while left >= PRELUDE:  # messages that lie whole in the data
            found = self.check_prelude(at)
            if found:
                return found
            need = be32(at)
            if left < need:
                self.total = need
                break
            found = self.deliver(at, need, out, runs)
            if found:
                return found
            at += need
            left -= need
        if left:
            self.hold(at, left)
        return NO_FAULT

    cdef int hold(self, const uint8_t* at, size_t size) except -1:
        if not self.reserve(self.held_size + size):
            raise MemoryError
        memcpy(self.held + self.held_size, at, size)
        self.held_size += size
        return 0

    cdef inline bint reserve(self, size_t size) noexcept nogil:
        """Whether `held` has room for so many bytes."""
        return size <= self.held_room or self.grow(size)

    cdef bint grow(self, size_t size) noexcept nogil:
        cdef size_t room = self.held_room or 256
        cdef uint8_t* held
        while room < size:
            room *= 2
        held = <uint8_t*>PyMem_RawRealloc(self.held, room)
        if held is NULL:
            return False
        self.held = held
        self.held_room = room
        return True

    cdef void give_back(self) noexcept nogil:
        self.held_size = self.total = 0
        if self.held_room > SPARE:
            PyMem_RawFree(self.held)
            self.held = NULL
            self.held_room = 0

    cdef int fail(self, Fault fault, uint64_t first, uint64_t second) noexcept nogil:
        self.first = first
        self.second = second
        return fault

    cdef int check_prelude(self, const uint8_t* at) noexcept nogil:
        cdef uint32_t total = be32(at), headers = be32(at + 4), said = be32(at + 8)
        cdef uint32_t counted = crc32_of_portable(at, 8, 0)  # eight bytes are too few for the other way
        if counted != said:
            return self.fail(PRELUDE_CRC, said, counted)
        if total < LEAST:
            return self.fail(LENGTH, total, LEAST)
        if headers > total - LEAST:
            return self.fail(HEADERS_LENGTH, headers, total)
        if total > self.max_message:
            return self.fail(TOO_LARGE, total, self.max_message)
        if headers > self.max_headers:
            return self.fail(TOO_LARGE, headers, self.max_headers)
        return NO_FAULT

    cdef int deliver(self, const uint8_t* message, size_t total, list out, bint runs) except -1:
        """Put one whole message, whose prelude is good, into `out`."""
        cdef uint32_t said = be32(message + total - 4)
        cdef uint32_t counted = crc32_of(message + 8, total - 12, be32(message + 8))
        cdef size_t block_size = be32(message + 4)
        cdef const uint8_t* block = message + PRELUDE
        cdef const uint8_t* body = block + block_size
        cdef Py_ssize_t size = total - LEAST - block_size, length
        cdef bint known
        cdef int found
        cdef dict headers
        cdef Frame frame
        if counted != said:
            return self.fail(MESSAGE_CRC, said, counted)
        known = (
            self.block_at is not NULL
            and self.block_size == block_size
            and memcmp(self.block_at, block, block_size) == 0
        )
        if known and self.payload_at is not NULL:
            length = self.repeats(body, size)
            if length >= 0 and runs:
                self.append_piece(out, copy(body + self.last_from, length))
                self.start += total
                return NO_FAULT
        else:
            length = -1
        if not known:
            headers = {}
            found = self.read_headers(block, block_size, headers)
            if found:
                return found
            self.last_headers = headers
            self.last_block = copy(block, block_size)
            self.block_at = raw(self.last_block)
            self.block_size = block_size
        frame = Frame.__new__(Frame)
        frame.headers = PyDict_Copy(self.last_headers)
        frame.payload = copy(body, size)
        if self.lift and (length >= 0 or self.find_lift(body, size)):
            if length >= 0:
                self.last_to = self.last_from + length
            self.last_payload = frame.payload
            self.payload_at = raw(frame.payload)
            self.payload_size = size
            frame.lifted = copy(body + self.last_from, self.last_to - self.last_from)
        else:
            self.last_payload = None
            self.payload_at = NULL
        out.append(frame)
        self.start += total
        return NO_FAULT

    cdef int append_piece(self, list out, bytes piece) except -1:
        cdef Py_ssize_t size = PyList_GET_SIZE(out)
        if size:
            last = <object>PyList_GET_ITEM(out, size - 1)
            if type(last) is list:
                (<list>last).append(piece)
                return 0
        out.append([piece])
        return 0

    cdef inline Py_ssize_t repeats(self, const uint8_t* body, Py_ssize_t size) noexcept nogil:
        """The length of the string to lift, if the payload is the last one but for that string; else -1."""
        cdef const uint8_t* last = self.payload_at
        cdef Py_ssize_t after = <Py_ssize_t>self.payload_size - self.last_to
        cdef Py_ssize_t length = size - self.last_from - after
        cdef const uint8_t* stop
        if length < 0 or memcmp(body, last, self.last_from):
            return -1
        stop = body + self.last_from + length
        if memcmp(stop, last + self.last_to, after) or string_end(body + self.last_from, stop, True) != stop:
            return -1
        return length

    cdef bint find_lift(self, const uint8_t* body, Py_ssize_t size) noexcept:
        """Find the one member to lift in a flat object of strings; False if the payload is not exactly that."""
        cdef const uint8_t* end = body + size
        cdef const uint8_t* at = body
        cdef const uint8_t* value
        cdef const uint8_t* keys[MEMBERS]
        cdef Py_ssize_t sizes[MEMBERS]
        cdef Py_ssize_t key_size
        cdef int count = 0, i
        cdef bint found = False
        if size < 1 or at[0] != c"{":
            return False
        while count < MEMBERS:
            at += 1  # past the brace or the comma
            if at == end or at[0] != c'"':
                return False
            keys[count] = at + 1
            at = string_end(at + 1, end, False)
            if at is NULL or end - at < 3 or at[1] != c":" or at[2] != c'"':
                return False
            key_size = sizes[count] = at - keys[count]
            for i in range(count):
                if sizes[i] == key_size and memcmp(keys[i], keys[count], key_size) == 0:
                    return False
            value = at + 3
            at = string_end(value, end, True)
            if at is NULL or end - at < 2:
                return False
            if self.is_lift_key(keys[count], key_size):
                if found:
                    return False
                found = True
                self.last_from = value - body
                self.last_to = at - body
            count += 1
            at += 1  # past the closing quote
            if at[0] == c"}":
                return found and at + 1 == end
            if at[0] != c",":
                return False
        return False

    cdef bint is_lift_key(self, const uint8_t* key, Py_ssize_t size) noexcept:
        cdef bytes wanted
        for wanted in self.lift:
            if PyBytes_GET_SIZE(wanted) == size and memcmp(raw(wanted), key, size) == 0:
                return True
        return False

    cdef int read_headers(self, const uint8_t* block, size_t size, dict headers) except -1:
        cdef size_t at = 0, begin, name_size, length
        cdef const uint8_t* value_at
        cdef uint8_t code
        cdef str name
        cdef object value
        while at < size:
            begin = at
            name_size = block[at]
            at += 1 + name_size
            if at >= size:
                return self.fail(HEADER_OVERRUN, begin, size)
            name = utf8(block + begin + 1, name_size)
            if not name:
                return self.fail(HEADER_NAME, name_size, begin)
            code = block[at]
            at += 1
            if code <= 1:
                length = 0
            elif code == 2:
                length = 1
            elif code == 3:
                length = 2
            elif code == 4:
                length = 4
            elif code == 5 or code == 8:
                length = 8
            elif code == 9:
                length = 16
            elif code == 6 or code == 7:
                if size - at < 2:
                    return self.fail(HEADER_OVERRUN, begin, size)
                length = be16(block + at)
                at += 2
            else:
                return self.fail(HEADER_TYPE, code, begin)
            if size - at < length:
                return self.fail(HEADER_OVERRUN, begin, size)
            value_at = block + at
            at += length
            if code == 7:
                value = utf8(value_at, length)
                if value is None:
                    return self.fail(HEADER_VALUE, length, begin)
            elif code == 6:
                value = copy(value_at, length)
            elif code <= 1:
                value = code == 0
            elif code == 2:
                value = Int8(<int8_t>value_at[0])
            elif code == 3:
                value = Int16(<int16_t>be16(value_at))
            elif code == 4:
                value = Int32(<int32_t>be32(value_at))
            elif code == 5:
                value = Int64(<int64_t>be64(value_at))
            elif code == 8:
                value = Timestamp(<int64_t>be64(value_at))
            else:
                value = UUID(bytes=copy(value_at, length))
            if name in headers:
                return self.fail(DUPLICATE_HEADER, at - begin, begin)
            headers[name] = value
        return NO_FAULT


cdef void let_go(object capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(capsule))


cdef Py_ssize_t look_at(
    void* decoder, const uint8_t* data, size_t size, size_t room, ks_piece* pieces, size_t most
) noexcept nogil:
    return (<FrameDecoder>decoder).look(data, size, room, pieces, most)


cdef int keep_of(void* decoder) noexcept nogil:
    return (<FrameDecoder>decoder).keep()


# --- the encoder -----------------------------------------------------------------------------------------------------

cdef bytes header(name, value):
    """A header of plain strings, written here; any other one in Python."""
    cdef bytes text, raw_name
    cdef Py_ssize_t name_size, size
    if type(name) is str and type(value) is str:
        try:
            raw_name = (<str>name).encode()
            text = (<str>value).encode()
        except UnicodeEncodeError:
            return encode_header(name, value)
        name_size = PyBytes_GET_SIZE(raw_name)
        size = PyBytes_GET_SIZE(text)
        if 0 < name_size < 256 and size < 65536:
            return bytes((name_size,)) + raw_name + bytes((7, size >> 8, size & 0xFF)) + text
    return encode_header(name, value)


def encode_frame(headers, payload):
    """One message, as bytes. See `_evstream.pyi`."""
    cdef bytes block = b"".join([header(name, value) for name, value in headers.items()])
    cdef Py_ssize_t total = message_size(block, payload)
    cdef Py_ssize_t block_size = PyBytes_GET_SIZE(block)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, total)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(message)
    put_be32(at, total)
    put_be32(at + 4, block_size)
    put_be32(at + 8, crc32_of(at, 8, 0))
    memcpy(at + PRELUDE, raw(block), block_size)
    memcpy(at + PRELUDE + block_size, raw(payload), PyBytes_GET_SIZE(payload))
    put_be32(at + total - 4, crc32_of(at, total - 4, 0))
    return message


def _crc32(data, crc=0, *, portable=False):
    """For tests: CRC-32 as `zlib.crc32` has it, by either way."""
    cdef const uint8_t[::1] view = data
    cdef const uint8_t* at = &view[0] if view.shape[0] else NULL
    return (crc32_of_portable if portable else crc32_of)(at, view.shape[0], crc)
