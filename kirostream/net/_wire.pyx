# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled part of `net.framing` and of `net.hub`; see `_wire.pyi`.

A paced token comes out of silence: since the last one other processes have had the core, and nothing of ours is in its
caches. Then it is not how many instructions a token takes that counts, but over how much memory they are spread, and
the interpreter's are spread widely: the same few functions that take 6 us in a loop take 30 here. So what happens with
every token is a short piece of C: wait, read, undo the chunks, look the frames over, put the pieces between the words of
a template, write. What happens less often is Python's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy

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

cdef enum:
    BATCH = 64
    READ = 65536
    RECORD = 16384
    DIGITS = 7

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

cdef class Track:
    cdef object run_of, outlet, on_behind
    cdef bytes before, between, after
    cdef list carried
    cdef Py_ssize_t room
    cdef readonly Py_ssize_t count, sent
    cdef readonly double last

    def __init__(self, run_of, outlet, template, Py_ssize_t room, on_behind):
        self.run_of = run_of
        self.outlet = outlet
        self.before, self.between, self.after = template
        self.room = room
        self.on_behind = on_behind
        self.carried = []

    def __repr__(self):
        return f"<Track: {self.count} pieces, room for {self.room} bytes>"

    @property
    def is_open(self):
        return self.room > 0

    def close(self):
        self.room = 0
        self.run_of = self.outlet = self.on_behind = None  # whoever is behind them has a way to the track

    def take(self):
        cdef list carried = self.carried
        self.carried = []
        return carried

    def push(self, bytes data not None):
        if self.room <= 0:
            return False
        found = self.run_of(data, self.room)
        if found is None:
            return False
        self.carry(<list?>found)
        return True

    cdef int carry(self, list pieces) except -1:
        """Say the pieces in one chunk. They were taken: from here on they are carried, come what may."""
        cdef Py_ssize_t count = len(pieces), size = 0, total, digits, i
        cdef bytes wire
        cdef char[24] head
        cdef char* into
        if not count:
            return 0
        for i in range(count):
            size += PyBytes_GET_SIZE(<bytes?>pieces[i])
        total = size + PyBytes_GET_SIZE(self.before) + PyBytes_GET_SIZE(self.after)
        total += (count - 1) * PyBytes_GET_SIZE(self.between)
        digits = hex_of(total, head)
        wire = PyBytes_FromStringAndSize(NULL, digits + total + 4)
        into = PyBytes_AS_STRING(wire)
        memcpy(into, head, digits)
        memcpy(into + digits, b"\r\n", 2)
        into = put(into + digits + 2, self.before)
        for i in range(count):
            if i:
                into = put(into, self.between)
            into = put(into, <bytes>pieces[i])
            self.carried.append(pieces[i])
        into = put(into, self.after)
        memcpy(into, b"\r\n", 2)
        self.count += count
        self.sent += total
        self.room -= size
        self.last = ks_now()
        if not self.outlet.offer(wire):
            self.on_behind()  # closes it
        return 0


cdef inline char* put(char* into, bytes data) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    memcpy(into, PyBytes_AS_STRING(data), size)
    return into + size


cdef Py_ssize_t hex_of(Py_ssize_t value, char* into) noexcept:
    cdef char[24] turned
    cdef Py_ssize_t n = 0, i
    while value:
        turned[n] = b"0123456789abcdef"[value & 15]
        value >>= 4
        n += 1
    for i in range(n):
        into[i] = turned[n - 1 - i]
    return n


# --- the hub ---------------------------------------------------------------------------------------------------------

cdef class Watch:
    cdef readonly int fd
    cdef readonly object task, come
    cdef public Track track
    cdef object keep, into, out, read

    def __init__(self, int fd, come, task, secret=None):
        self.fd = fd
        self.come = come
        self.task = task
        if secret is not None:
            self.keep, self.into, self.out, self.read = secret.keep, secret.into, secret.out, secret.tls.read

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


cdef class Poller:
    cdef int epoll, trio
    cdef dict watches
    cdef object ended
    cdef char[READ] buffer

    def __init__(self, int epoll, int trio, dict watches not None, ended):
        self.epoll = epoll
        self.trio = trio
        self.watches = watches
        self.ended = ended

    def wait(self, double timeout, bint watched, runq):
        cdef ks_ready[BATCH] ready
        cdef double patience = 0.0 if watched else timeout
        cdef double end = ks_now() + patience
        cdef int count, i, milliseconds
        while True:
            milliseconds = <int>min(patience * 1000 + 0.999, 86400e3)
            with nogil:
                count = ks_wait(self.epoll, ready, BATCH, milliseconds)
            if count < 0:
                PyErr_CheckSignals()
                if count != -EINTR:
                    raise OSError(-count, "the hub cannot wait")
            for i in range(count):
                if ready[i].fd == self.trio:
                    timeout = 0.0  # Trio's own wait finds it at once
                else:
                    watch = self.watches.get(ready[i].fd)
                    if watch is not None:
                        self.serve(<Watch>watch)
            if timeout == 0.0 or watched or runq or not self.watches:
                break
            patience = end - ks_now()
            if patience <= 0:
                break
        return timeout != 0.0 and (not watched or bool(runq))

    cdef int serve(self, Watch watch) except -1:
        cdef ssize_t got
        cdef Py_ssize_t at
        cdef bytes raw
        got = ks_receive(watch.fd, self.buffer, READ)
        if got == -EAGAIN:
            return 0
        if got < 0:
            came = OSError(-got, strerror(-got))
        else:
            came = raw = PyBytes_FromStringAndSize(self.buffer, got)
            if watch.read is not None:
                came = watch.opened(raw) if got else None  # of an end, its reader hears by itself
            if got and type(came) is bytes and watch.track is not None and watch.track.room > 0:
                body, at = whole_chunks(<bytes>came, 0)
                if at == PyBytes_GET_SIZE(<bytes>came) and watch.track.push(body):
                    if watch.out is not None and watch.out.pending:
                        self.ended(watch, None)  # TLS has something to answer
                    return 0
        try:
            goes_on = watch.come(came)
        except BaseException as error:
            self.ended(watch, error)
        else:
            if not goes_on:
                self.ended(watch, None)
        return 0
