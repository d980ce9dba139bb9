"""Two system calls that Python's library lacks, or makes while it holds the interpreter's lock.

Both are hints: where the system has no such call, nothing happens and nothing is lost.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable

__all__ = ["populate", "start_writeback"]

_SYNC_FILE_RANGE_WRITE = 2
_MADV_POPULATE_READ = 22  # Linux 5.14

_libc = ctypes.CDLL(None, use_errno=True)


class _Buffer(ctypes.Structure):
    """``Py_buffer``, part of Python's stable ABI: the way to the address of a read-only mapping."""

    _fields_ = [
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("is_read_only", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def _system_call(name: str, *argument_types: type) -> Callable[..., int] | None:
    function = getattr(_libc, name, None)
    if function is not None:
        function.argtypes = argument_types
        function.restype = ctypes.c_int
    return function


_sync_file_range = _system_call(
    "sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
)
_madvise = _system_call("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range of a file to disk; do not wait for it.

    Errors are not looked at: without a flag to wait, the call leaves a failed write for the next
    fsync to report (sync_file_range(2)).
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def populate(mapping: mmap.mmap, length: int) -> bool:
    """Read the first *length* bytes of a mapping from disk, so that touching them waits no more.

    False where the kernel can't. Blocks, without the interpreter's lock: call it in a thread.

    :raises OSError: if the file cannot be read; without this call, touching the page would be a
        SIGBUS.
    """
    if not length:
        return True
    if _madvise is None:
        return False
    buffer = _Buffer()
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get(ctypes.py_object(mapping), ctypes.byref(buffer), 0)
    try:
        while _madvise(buffer.address, length, _MADV_POPULATE_READ):
            error = ctypes.get_errno()
            if error in (errno.EINVAL, errno.ENOSYS):
                return False
            if error not in (errno.EINTR, errno.EAGAIN):
                raise OSError(error, os.strerror(error))
    finally:
        release(ctypes.byref(buffer))
    return True
