"""What `_wire.pyx` sees of the compiled core of `net.quick`."""

cdef class Outlet:
    cdef readonly object sock
    cdef public bytes unsent
    cdef public Py_ssize_t fanned
    cdef public bint free
    cdef int fd

    cdef ssize_t write(self, const char* data, size_t size) noexcept nogil
