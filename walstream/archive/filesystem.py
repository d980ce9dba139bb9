"""The system calls that an archive makes, as one object, so that a test can make each of them fail.

Knows no names and no formats. Every method raises OSError as the call does.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TypeAlias

__all__ = ["FileIdentity", "FileSystem"]

#: Which file a name or a descriptor stands for: its device and its number there.
FileIdentity: TypeAlias = tuple[int, int]

_ZEROS = bytes(1 << 20)


class FileSystem:
    """The file system as it is. Files are made for their owner only, as PostgreSQL does."""

    def open(self, path: str, flags: int) -> int:
        """A new file descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def open_unnamed(self) -> int:
        """A new file without a name, in the system's directory for temporary files (TMPDIR).

        It is gone when the last who has it open or mapped lets go of it.
        """
        import tempfile  # takes a while, and few need it

        fd, path = tempfile.mkstemp(prefix="walstream-")
        os.unlink(path)
        return fd

    def close(self, fd: int) -> None:
        """Close a file descriptor."""
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Read at a place; fewer bytes only at the end of the file, or for very large sizes."""
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        """Write at a place; returns how much was written, which may be less than was given."""
        return os.pwrite(fd, data, offset)

    def size_of(self, fd: int) -> int:
        """The size of an open file."""
        return os.fstat(fd).st_size

    def find_size(self, path: str) -> int | None:
        """The size of a file, None if there is none."""
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return None

    def find_time(self, path: str) -> float | None:
        """When a file was last written to, in Unix seconds; None if there is none."""
        try:
            return os.stat(path).st_mtime
        except FileNotFoundError:
            return None

    def fingerprint(self, path: str) -> tuple[int, int, int]:
        """What changes when a file is replaced or written to: inode, size, time in ns."""
        status = os.stat(path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def identity_of(self, fd: int) -> FileIdentity:
        """Which file an open one is."""
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def find_identity(self, path: str) -> FileIdentity | None:
        """Which file has a name, None if there is none."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_dev, status.st_ino

    def copy_times(self, source: int, target: int) -> None:
        """Give an open file the times of another: when it was written, above all."""
        status = os.fstat(source)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def set_size(self, fd: int, size: int) -> None:
        """Give a file its size, with disk space for all of it; what it holds up to there stays."""
        if self.size_of(fd) > size:
            os.ftruncate(fd, size)
        if not self._reserve(fd, size):
            self._append_zeros(fd, size)

    def fsync(self, fd: int) -> None:
        """Make a file durable, data and all."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Make a file's data durable, and of the rest what is needed to read it again."""
        # Not every system has it, and to do more is no harm.
        getattr(os, "fdatasync", os.fsync)(fd)

    def fsync_directory(self, path: str) -> None:
        """Make the entries of a directory durable."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """See `walstream.archive.native.start_writeback`."""
        # Not everything that uses files writes WAL, and ctypes takes its time to load.
        from walstream.archive.native import start_writeback

        start_writeback(fd, offset, length)

    def rename(self, old: str, new: str) -> None:
        """Rename a file; one that has the new name already is replaced."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file; there may be none."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Make a directory; it may be there already."""
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)

    def names(self, path: str) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(path)

    def entries(self, path: str) -> dict[str, os.stat_result]:
        """The names in a directory, and what the system says of each file; links are followed."""
        found = {}
        with os.scandir(path) as directory:
            for entry in directory:
                with suppress(FileNotFoundError):  # it may have gone meanwhile
                    found[entry.name] = entry.stat()
        return found

    def read(self, path: str, limit: int = -1) -> bytes:
        """The contents of a small file, or its first *limit* bytes."""
        with open(path, "rb") as file:
            return file.read(limit)

    def store(self, temporary: str, path: str, content: bytes) -> None:
        """Make *content* the contents of the file at *path*, durably, and all of it or nothing."""
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write_all(fd, content, 0)
            self.fsync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.fsync_directory(os.path.dirname(path))

    def write_all(self, fd: int, data: memoryview | bytes, offset: int) -> None:
        """Write all of *data* at a place."""
        view = memoryview(data)
        while view:
            written = self.pwrite(fd, view, offset)
            view = view[written:]
            offset += written

    def _reserve(self, fd: int, size: int) -> bool:
        if not hasattr(os, "posix_fallocate"):
            return False
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        return True

    def _append_zeros(self, fd: int, size: int) -> None:
        offset = self.size_of(fd)
        while offset < size:
            offset += self.pwrite(fd, _ZEROS[: size - offset], offset)
