# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled core of `net.quick`; see `_quick.pyi`.

What a write takes beside the system call is mostly memory that is not in the cache: with a thousand connections, each
object that is looked at is a miss. So an outlet is one small object with its file descriptor in it, and the calls of a
batch are made one after the other, without the interpreter.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from *:
    """
    #ifdef MSG_NOSIGNAL
    #define KS_NOW (MSG_DONTWAIT | MSG_NOSIGNAL)
    #else
    #define KS_NOW MSG_DONTWAIT
    #endif
    """
    int KS_NOW

cdef enum:
    BATCH = 64

CORE = "compiled"


@cython.final
cdef class Outlet:
    def __init__(self, sock):
        self.sock = sock
        self.fd = sock.fileno() if sock is not None else -1
        self.free = self.fd >= 0
        self.unsent = b""
        self.fanned = 0

    def __repr__(self):
        return f"<Outlet {'free' if self.free else 'not free'}, {len(self.unsent)} bytes unsent>"

    def offer(self, bytes data not None):
        cdef ssize_t sent = self.write(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if sent == PyBytes_GET_SIZE(data):
            return True
        self.owe(data[sent:] if sent else data)
        return False

    cdef ssize_t write(self, const char* data, size_t size) noexcept nogil:
        """How many bytes go without waiting."""
        cdef ssize_t sent = send(self.fd, data, size, KS_NOW) if self.free else 0
        return sent if sent > 0 else 0

    def owe(self, bytes rest not None):
        self.unsent += rest
        self.free = False

    def shut(self):
        self.free = False
        self.fd = -1


def write_each(list outlets not None, bytes data not None):
    cdef int[BATCH] files
    cdef ssize_t[BATCH] sent
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), count = len(outlets), begin, n, i
    cdef Outlet outlet
    cdef list behind = []
    for begin in range(0, count, BATCH):
        n = min(<Py_ssize_t>BATCH, count - begin)
        for i in range(n):
            outlet = outlets[begin + i]
            files[i] = outlet.fd if outlet is not None and outlet.free else -1
        with nogil:
            for i in range(n):
                sent[i] = send(files[i], at, size, KS_NOW) if files[i] >= 0 else 0
        for i in range(n):
            if sent[i] < size:
                behind.append((begin + i, sent[i] if sent[i] > 0 else 0))
    return behind
