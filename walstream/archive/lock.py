"""Locks by which one process at a time does something: write an archive, say."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Self

from walstream.archive.filesystem import FileIdentity, FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveError

__all__ = ["ArchiveLock", "LockHeld", "ProcessLock", "is_locked"]


class LockHeld(Exception):
    """Another process has the lock.

    :ivar holder: its number, or ``unknown``.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"locked by process {holder}")
        self.holder = holder


class ProcessLock:
    """An exclusive lock on a file, which names the process that has it.

    It is the kernel's, so it ends with the process, however that ends. The file stays: to remove
    it would be to take it away from under a process that waits at its door.

    :ivar identity: which file is locked. For as long as the path leads to it, the directory is the
        one that was locked, and nobody else can have locked it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self.identity: FileIdentity = (status.st_dev, status.st_ino)

    @classmethod
    def take(cls, path: str) -> Self:
        """Take the lock.

        :raises LockHeld: naming the process that has it.
        :raises OSError: if there can be no such file.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError):  # a full disk: it is ours even so
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise LockHeld(holder) from None
        except OSError:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._fd)


class ArchiveLock(ProcessLock):
    """The lock on ``.walstream/lock``, by which one process at a time writes an archive."""

    @classmethod
    def acquire(cls, paths: ArchivePaths) -> Self:
        """Take the lock.

        :raises ArchiveError: naming the process that has it.
        """
        try:
            return cls.take(paths.lock)
        except LockHeld as held:
            raise ArchiveError(
                f"archive {paths.root} is being written by process {held.holder}: stop that "
                "process, or choose another directory"
            ) from None


def is_locked(files: FileSystem, path: str) -> bool | None:
    """Whether a living process has a file locked; None if there is no such file.

    Who asks has it shared for that moment.

    :raises OSError: if it cannot be told.
    """
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        files.close(fd)
    return False
