# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The compiled part of `net.framing` and of `net.hub`; see `_wire.pyi`.

A paced token comes out of silence: since the last one other processes have had the core, and nothing of ours is in its
caches. Then it is not how many instructions a token takes that counts, but over how much memory they are spread, and
the interpreter's are spread widely: the same few functions that take 6 us in a loop take 30 here. So what happens with
every token is a short piece of C: wait, read, undo the chunks, look the frames over, put the pieces between the words of
a template, write. What happens less often is Python's.

That piece needs no object, and not the interpreter: **tokens are carried without the lock** that lets one thread at a
time run Python (`Poller.wait`). A thread that writes logs or the ledger holds no token up, and none of them it. What
the piece reads and changes belongs to the thread of the hub, which is here meanwhile: no Python of ours can run in it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawRealloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from kirostream.net._quick cimport Outlet

from os import strerror
from ssl import SSLWantReadError

cdef extern from *:
    """
    #include <errno.h>
    #include <time.h>
    #include <sys/socket.h>
    #ifdef __linux__
    #include <sys/epoll.h>
    #define KS_EPOLL 1
    #else
    #define KS_EPOLL 0
    #endif

    typedef struct { int fd; } ks_ready;

    static int ks_wait(int epoll, ks_ready *ready, int most, int milliseconds) {
    #ifdef __linux__
        struct epoll_event found[64];
        int i, count = epoll_wait(epoll, found, most, milliseconds);
        for (i = 0; i < count; i++) ready[i].fd = found[i].data.fd;
        return count < 0 ? -errno : count;
    #else
        return -ENOSYS;
    #endif
    }

    static ssize_t ks_receive(int fd, void *into, size_t size) {
        ssize_t count;
        do count = recv(fd, into, size, MSG_DONTWAIT); while (count < 0 && errno == EINTR);
        if (count >= 0) return count;
        return errno == EAGAIN || errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }

    static double ks_now(void) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return at.tv_sec + at.tv_nsec * 1e-9;
    }
    """
    ctypedef struct ks_ready:
        int fd
    enum: KS_EPOLL
    int ks_wait(int epoll, ks_ready *ready, int most, int milliseconds) nogil
    ssize_t ks_receive(int fd, void *into, size_t size) nogil
    double ks_now() nogil
    enum: EINTR
    enum: EAGAIN

cdef extern from "../_runs.h":
    const char* KIROSTREAM_RUNS
    ctypedef struct ks_piece:
        const uint8_t* at
        size_t size
    ctypedef struct ks_runs:
        void* decoder
        Py_ssize_t (*look)(void*, const uint8_t*, size_t, size_t, ks_piece*, size_t) noexcept nogil
        int (*keep)(void*) noexcept nogil

cdef enum:
    BATCH = 64
    READ = 65536
    RECORD = 16384
    DIGITS = 7
    PIECES = 1024  # of one read
    HEAD = 18  # the size of a chunk and its line end, at most
    LONGEST = 20  # digits of a number
    CLOCKED = 64  # laps of the hub that carry something, of which one is clocked
    MOST_BOUNDS = 32

HAS_EPOLL = bool(KS_EPOLL)


# --- chunks (RFC 9112 section 7.1) -----------------------------------------------------------------------------------

cdef Py_ssize_t chunk_at(const char* at, const char* end, const char** body) noexcept nogil:
    """The size of the chunk that lies whole at `at`, and where its body is; 0 if it is not whole, the last, or odd."""
    cdef Py_ssize_t size = 0
    cdef int digits = 0
    cdef char c
    while at < end and digits <= DIGITS:
        c = at[0]
        if c"0" <= c <= c"9":
            size = size << 4 | (c - c"0")
        elif c"a" <= c | 0x20 <= c"f":
            size = size << 4 | ((c | 0x20) - c"a" + 10)
        else:
            break
        digits += 1
        at += 1
    if not 0 < digits <= DIGITS or not size or end - at < size + 4:
        return 0
    if at[0] != c"\r" or at[1] != c"\n" or at[size + 2] != c"\r" or at[size + 3] != c"\n":
        return 0
    body[0] = at + 2
    return size


def whole_chunks(bytes data not None, Py_ssize_t at):
    cdef const char* base = PyBytes_AS_STRING(data)
    cdef const char* end = base + PyBytes_GET_SIZE(data)
    cdef const char* here = base + at
    cdef const char* body = NULL
    cdef Py_ssize_t size, total = 0, count = 0
    cdef bytes joined
    cdef char* into
    while True:
        size = chunk_at(here, end, &body)
        if not size:
            break
        total += size
        count += 1
        here = body + size + 2
    if not count:
        return b"", at
    if count == 1:
        chunk_at(base + at, end, &body)
        return PyBytes_FromStringAndSize(body, total), here - base
    joined = PyBytes_FromStringAndSize(NULL, total)
    into = PyBytes_AS_STRING(joined)
    end, here = here, base + at
    while here < end:
        size = chunk_at(here, end, &body)
        memcpy(into, body, size)
        into += size
        here = body + size + 2
    return joined, end - base


# --- the track -------------------------------------------------------------------------------------------------------

cdef enum Outcome:
    CARRIED
    STRANGE  # not a run of tokens: nothing was done
    BEHIND  # carried, but the client did not take all
    LOST  # no memory

cdef struct Desk:
    # Where a batch of pieces is put together. One for each who can be interrupted by another.
    ks_piece[PIECES] pieces
    uint8_t* wire
    size_t room
    size_t size, sent  # of what was put together last, and how much of it went

cdef Desk desk  # of whoever has the interpreter


cdef bint has_room(uint8_t** block, size_t* room, size_t size) noexcept nogil:
    """Whether a block of memory that grows by doubling has room for so many bytes."""
    cdef size_t more = room[0] or 256
    cdef void* moved
    if size <= room[0]:
        return True
    while more < size:
        more *= 2
    moved = PyMem_RawRealloc(block[0], more)
    if moved is NULL:
        return False
    block[0] = <uint8_t*>moved
    room[0] = more
    return True


cdef inline uint8_t* put(uint8_t* into, const void* data, size_t size) noexcept nogil:
    memcpy(into, data, size)
    return into + size


cdef inline uint8_t* put_hex(uint8_t* into, size_t value) noexcept nogil:
    cdef const char* figures = b"0123456789abcdef"
    cdef int digits = 1, i
    while digits < 16 and value >> 4 * digits:
        digits += 1
    for i in range(digits):
        into[digits - 1 - i] = figures[value >> 4 * i & 15]
    return into + digits


cdef inline uint8_t* put_decimal(uint8_t* into, size_t value) noexcept nogil:
    cdef char[LONGEST] turned
    cdef int digits = 0, i
    while True:
        turned[digits] = c"0" + value % 10
        digits += 1
        value //= 10
        if not value:
            break
    for i in range(digits):
        into[i] = turned[digits - 1 - i]
    return into + digits


@cython.final
cdef class Track:
    cdef object capsule, on_behind
    cdef const ks_runs* runs
    cdef Outlet outlet
    cdef void* outlet_at
    cdef bytes before, between, after
    cdef const char* before_at
    cdef const char* between_at
    cdef const char* after_at
    cdef size_t before_size, between_size, after_size
    cdef bint numbered
    cdef size_t number
    cdef uint8_t* carried  # the pieces since the last `take`, the size before each
    cdef size_t carried_size, carried_room, carried_count
    cdef Py_ssize_t room
    cdef readonly Py_ssize_t count, sent
    cdef readonly double last

    def __init__(self, runs, Outlet outlet not None, template, Py_ssize_t room, on_behind, number=None):
        self.runs = <const ks_runs*>PyCapsule_GetPointer(runs, KIROSTREAM_RUNS)
        self.capsule = runs
        self.outlet = outlet
        self.outlet_at = <void*>outlet
        self.before, self.between, self.after = template
        self.before_at = PyBytes_AS_STRING(self.before)
        self.between_at = PyBytes_AS_STRING(self.between)
        self.after_at = PyBytes_AS_STRING(self.after)
        self.before_size = PyBytes_GET_SIZE(self.before)
        self.between_size = PyBytes_GET_SIZE(self.between)
        self.after_size = PyBytes_GET_SIZE(self.after)
        self.numbered = number is not None
        if self.numbered:
            self.number = number
        self.room = room
        self.on_behind = on_behind

    def __dealloc__(self):
        PyMem_RawFree(self.carried)

    def __repr__(self):
        return f"<Track: {self.count} pieces, room for {self.room} bytes>"

    @property
    def is_open(self):
        return self.room > 0

    def close(self):
        self.room = 0
        self.runs = NULL
        self.outlet_at = NULL
        self.capsule = self.outlet = self.on_behind = None  # whoever is behind them has a way to the track

    def take(self):
        cdef list found = PyList_New(self.carried_count)
        cdef const uint8_t* at = self.carried
        cdef uint32_t size
        cdef Py_ssize_t i
        for i in range(<Py_ssize_t>self.carried_count):
            memcpy(&size, at, sizeof(size))
            piece = PyBytes_FromStringAndSize(<const char*>at + sizeof(size), size)
            Py_INCREF(piece)
            PyList_SET_ITEM(found, i, piece)
            at += sizeof(size) + size
        self.carried_count = self.carried_size = 0
        return found

    def push(self, bytes data not None):
        return self.pushed(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &desk)

    cdef bint pushed(self, const uint8_t* data, size_t size, Desk* at) except -1:
        """`carry` and what has to be said to others of it."""
        cdef Outcome outcome = self.carry(data, size, at, ks_now())
        if outcome == BEHIND:
            self.fall_behind(at)
        elif outcome == LOST:
            raise MemoryError
        return outcome != STRANGE

    cdef int fall_behind(self, Desk* at) except -1:
        self.outlet.owe(PyBytes_FromStringAndSize(<const char*>at.wire + at.sent, at.size - at.sent))
        self.on_behind()  # closes it
        return 0

    cdef Outcome carry(self, const uint8_t* data, size_t size, Desk* at, double now) noexcept nogil:
        """Say the pieces of some body in one chunk."""
        cdef Py_ssize_t count
        cdef size_t texts = 0, words, i
        cdef uint8_t* into
        cdef uint8_t* begin
        cdef uint32_t length
        if self.room <= 0:
            return STRANGE
        count = self.runs.look(self.runs.decoder, data, size, self.room, at.pieces, PIECES)
        if count < 0:
            return STRANGE
        if not count:
            return CARRIED if not self.runs.keep(self.runs.decoder) else LOST
        for i in range(<size_t>count):
            texts += at.pieces[i].size
        words = self.before_size + self.after_size + self.between_size * (count - 1)
        if self.numbered:
            words = (self.before_size + LONGEST + self.between_size + self.after_size) * count
        if not has_room(&at.wire, &at.room, HEAD + texts + words + 2):
            return STRANGE
        if not has_room(
            &self.carried, &self.carried_room, self.carried_size + texts + count * sizeof(uint32_t)
        ):
            return STRANGE
        # They are taken: from here on they are carried, come what may. The size of the chunk is put before it when it
        # is known.
        begin = into = at.wire + HEAD
        if self.numbered:
            for i in range(<size_t>count):
                into = put(into, self.before_at, self.before_size)
                into = put_decimal(into, self.number)
                into = put(into, self.between_at, self.between_size)
                into = put(into, at.pieces[i].at, at.pieces[i].size)
                into = put(into, self.after_at, self.after_size)
                self.number += 1
        else:
            into = put(into, self.before_at, self.before_size)
            for i in range(<size_t>count):
                if i:
                    into = put(into, self.between_at, self.between_size)
                into = put(into, at.pieces[i].at, at.pieces[i].size)
            into = put(into, self.after_at, self.after_size)
        self.sent += into - begin
        begin = self.chunk_head(begin, into - begin)
        into = put(into, b"\r\n", 2)
        for i in range(<size_t>count):
            length = at.pieces[i].size
            put(put(self.carried + self.carried_size, &length, sizeof(length)), at.pieces[i].at, length)
            self.carried_size += sizeof(length) + length
        self.carried_count += count
        self.count += count
        self.room -= texts
        self.last = now
        if self.runs.keep(self.runs.decoder):
            return LOST
        at.sent = (<Outlet>self.outlet_at).write(<const char*>begin, into - begin)
        if at.sent == <size_t>(into - begin):
            return CARRIED
        at.size = into - at.wire
        at.sent += begin - at.wire
        return BEHIND

    cdef inline uint8_t* chunk_head(self, uint8_t* body, size_t size) noexcept nogil:
        """Put the line that begins a chunk before its body. Gives where it begins."""
        cdef uint8_t[HEAD] head
        cdef uint8_t* end = put(put_hex(head, size), b"\r\n", 2)
        cdef size_t length = end - head
        memcpy(body - length, head, length)
        return body - length


# --- the hub ---------------------------------------------------------------------------------------------------------

@cython.final
cdef class Watch:
    cdef readonly int fd
    cdef readonly object task, come
    cdef Track at
    cdef void* way  # the track; NULL: none
    cdef object keep, into, out, read
    cdef bint plain

    def __init__(self, int fd, come, task, secret=None):
        self.fd = fd
        self.come = come
        self.task = task
        self.plain = secret is None
        if secret is not None:
            self.keep, self.into, self.out, self.read = secret.keep, secret.into, secret.out, secret.tls.read

    @property
    def track(self):
        return self.at

    @track.setter
    def track(self, Track track):
        self.at = track
        self.way = <void*>track if track is not None else NULL

    cdef object opened(self, bytes raw):
        """What `raw` says: text of one record; None where its reader has to look, or has nothing yet to look at."""
        cdef bytes text
        self.into.write(raw)
        try:
            text = self.read(RECORD)
        except SSLWantReadError:
            return None
        except OSError as error:
            return error
        if self.into.pending or PyBytes_GET_SIZE(text) == RECORD or not text:
            self.keep(text)
            return None
        return text


cdef Outcome carry_chunks(
    void* way, const uint8_t* data, size_t size, uint8_t* join, Desk* at, double now
) noexcept nogil:
    """Carry what came, if it is whole chunks and nothing else. `join` has room for the bodies of several."""
    cdef const char* here = <const char*>data
    cdef const char* end = here + size
    cdef const char* body = NULL
    cdef uint8_t* into = join
    cdef Py_ssize_t length
    if way is NULL:
        return STRANGE
    length = chunk_at(here, end, &body)
    if length and body + length + 2 == end:
        return (<Track>way).carry(<const uint8_t*>body, length, at, now)
    while length:
        into = put(into, body, length)
        here = body + length + 2
        length = chunk_at(here, end, &body)
    if here != end or into == join:
        return STRANGE
    return (<Track>way).carry(join, into - join, at, now)


@cython.final
cdef class Poller:
    cdef int epoll, trio
    cdef readonly bint called
    cdef object ended
    cdef void** watches  # borrowed, by descriptor
    cdef int most, count
    cdef ssize_t got  # by the last read
    cdef Desk desk
    cdef unsigned int laps  # that have carried something
    cdef bint carries, clocked  # this lap
    cdef double woke  # in this lap
    cdef double[MOST_BOUNDS] bounds
    cdef uint64_t[MOST_BOUNDS + 1] took
    cdef double took_total
    cdef int bounds_count
    cdef uint8_t[READ] buffer
    cdef uint8_t[READ] join

    def __init__(self, int epoll, int trio, ended, bounds=()):
        if len(bounds) > MOST_BOUNDS:
            raise ValueError(f"{len(bounds)} bounds; it takes {MOST_BOUNDS}")
        self.epoll = epoll
        self.trio = trio
        self.ended = ended
        for bound in bounds:
            self.bounds[self.bounds_count] = bound
            self.bounds_count += 1

    def __dealloc__(self):
        PyMem_RawFree(self.watches)
        PyMem_RawFree(self.desk.wire)

    def add(self, Watch watch not None):
        cdef int most = max(self.most, 64)
        cdef void* moved
        while most <= watch.fd:
            most *= 2
        if most > self.most:
            moved = PyMem_RawRealloc(self.watches, most * sizeof(void*))
            if moved is NULL:
                raise MemoryError
            self.watches = <void**>moved
            memset(self.watches + self.most, 0, (most - self.most) * sizeof(void*))
            self.most = most
        self.watches[watch.fd] = <void*>watch
        self.count += 1

    def remove(self, Watch watch not None):
        self.watches[watch.fd] = NULL
        self.count -= 1

    @property
    def times(self):
        return [self.took[i] for i in range(self.bounds_count + 1)], self.took_total

    cdef inline void has_carried(self) noexcept nogil:
        """One more read was carried."""
        self.carries = True
        if self.clocked:
            self.clock()

    cdef void clock(self) noexcept nogil:
        cdef double took = ks_now() - self.woke
        cdef int i = 0
        while i < self.bounds_count and took > self.bounds[i]:
            i += 1
        self.took[i] += 1
        self.took_total += took

    def wait(self, double timeout, bint watched, runq):
        cdef ks_ready[BATCH] ready
        cdef double patience = 0.0 if watched else timeout
        cdef double now = ks_now(), end = now + patience
        cdef int count, i
        cdef Outcome outcome = CARRIED
        self.called = False
        while True:
            with nogil:
                while True:
                    count = ks_wait(self.epoll, ready, BATCH, <int>min(patience * 1000 + 0.999, 86400e3))
                    now = ks_now()
                    patience = end - now
                    self.laps += self.carries
                    self.carries = False
                    self.clocked = not self.laps % CLOCKED
                    self.woke = now
                    i = 0
                    while i < count:
                        outcome = self.carried(ready[i].fd, now)
                        if outcome != CARRIED:
                            break
                        if self.got > 0:
                            self.has_carried()
                        i += 1
                    if i < count or count < 0 or patience <= 0 or watched:
                        break
            if count < 0:
                PyErr_CheckSignals()
                if count != -EINTR:
                    raise OSError(-count, "the hub cannot wait")
            while i < count:
                if ready[i].fd == self.trio:
                    timeout = 0.0  # Trio's own wait finds it at once
                    self.called = True
                elif outcome != CARRIED and self.watches[ready[i].fd] is not NULL:
                    self.serve(<Watch>self.watches[ready[i].fd], outcome)
                i += 1
                if i < count:
                    outcome = self.carried(ready[i].fd, now)
                    if outcome == CARRIED and self.got > 0:
                        self.has_carried()
            if count == BATCH:
                self.called = True  # it may come behind them
            if timeout == 0.0 or watched or runq or not self.count or patience <= 0:
                break
        return timeout != 0.0 and (not watched or bool(runq))

    cdef Outcome carried(self, int fd, double now) noexcept nogil:
        """Read what has come on a socket, and carry it if it is tokens. STRANGE: what was read is for `serve`."""
        cdef void* watch = self.watches[fd] if fd < self.most else NULL
        if watch is NULL:  # Trio's, or it was taken off by another that came at the same time
            return STRANGE
        self.got = ks_receive(fd, self.buffer, READ)
        if self.got == -EAGAIN:
            return CARRIED
        if self.got <= 0 or not (<Watch>watch).plain:
            return STRANGE
        return carry_chunks((<Watch>watch).way, self.buffer, self.got, self.join, &self.desk, now)

    cdef int serve(self, Watch watch, Outcome outcome) except -1:
        """What needs the interpreter, of what was read last."""
        cdef bytes raw
        try:
            if outcome == BEHIND:
                (<Track>watch.way).fall_behind(&self.desk)
                return 0
            if outcome == LOST:
                raise MemoryError
            if self.got < 0:
                came = OSError(-self.got, strerror(-self.got))
            else:
                came = raw = PyBytes_FromStringAndSize(<const char*>self.buffer, self.got)
                if not watch.plain:
                    came = watch.opened(raw) if self.got else None  # of an end, its reader hears by itself
                    if type(came) is bytes and self.carried_text(watch, <bytes>came):
                        if watch.out.pending:
                            self.ended(watch, None)  # TLS has something to answer
                        return 0
            goes_on = watch.come(came)
        except BaseException as error:
            self.ended(watch, error)
        else:
            if not goes_on:
                self.ended(watch, None)
        return 0

    cdef bint carried_text(self, Watch watch, bytes text) except -1:
        cdef Outcome outcome = carry_chunks(
            watch.way,
            <const uint8_t*>PyBytes_AS_STRING(text),
            PyBytes_GET_SIZE(text),
            self.join,
            &self.desk,
            ks_now(),
        )
        if outcome == BEHIND:
            watch.at.fall_behind(&self.desk)
        elif outcome == LOST:
            raise MemoryError
        elif outcome == CARRIED:
            self.has_carried()
        return outcome != STRANGE
