"""Doubles for what stands between an archive and the disk: a lane that waits, files that fail.

The files are real ones, in a directory of the test's own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from walstream.archive.filesystem import FileIdentity, FileSystem

__all__ = ["ManualLane", "ScriptedFiles", "SlowFiles"]

T = TypeVar("T")


class ManualLane:
    """A lane whose jobs are run by the test, or at once.

    :ivar is_held: whether jobs wait for `work`.
    :ivar is_closed: whether the lane was closed.
    """

    def __init__(self, is_held: bool = False) -> None:
        self.is_held = is_held
        self.is_closed = False
        self._jobs: deque[Callable[[], None]] = deque()

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """See `walstream.archive.lane.Lane.run`."""
        result: Deferred[Any] = Deferred()
        self._add(lambda: result.callback(_outcome(job)))
        return result

    def post(self, job: Callable[[], None]) -> None:
        """See `walstream.archive.lane.Lane.post`."""
        self._add(job)

    def tell(self, news: Callable[[], None]) -> None:
        """See `walstream.archive.lane.Lane.tell`."""
        news()

    def close(self) -> Deferred[None]:
        """See `walstream.archive.lane.Lane.close`."""
        self.is_closed = True
        return self.run(lambda: None)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def work(self, jobs: int | None = None) -> None:
        """Run the next so many jobs; without a number, until none is left."""
        while self._jobs and jobs != 0:
            self._jobs.popleft()()
            jobs = None if jobs is None else jobs - 1

    def release(self) -> None:
        """Run what waits, and from now on everything at once."""
        self.is_held = False
        self.work()

    def _add(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        if not self.is_held:
            self.work()


class ScriptedFiles(FileSystem):
    """The file system, with a list of what was done to it, and failures at will.

    :ivar calls: what was changed or synced, such as ``fsync 000000010000000000000001.partial``;
        the paths are relative to the directory that the test works in, which is ``.``.
    :ivar write_at_most: how many bytes one write takes, or None for all.
    """

    def __init__(self, directory: str) -> None:
        self.calls: list[str] = []
        self.write_at_most: int | None = None
        self._directory = os.path.abspath(directory)
        self._unnamed = os.path.join(self._directory, "(unnamed)")
        self._faults: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def fail(self, call: str, error: int) -> None:
        """Let the *call*, in the words of `calls`, fail from now on with this error number."""
        self._faults[call] = error

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._faults.clear()

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_CREAT:
            self._call("create", path)
        self._check("open", path)
        fd = super().open(path, flags)
        self._names[fd] = path
        return fd

    def open_unnamed(self) -> int:
        self._call("create", self._unnamed)
        fd = super().open_unnamed()
        self._names[fd] = self._unnamed
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)
        del self._names[fd]

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._check("read", self._names[fd])
        return super().pread(fd, size, offset)

    def pwrite(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        self._check("write", self._names[fd])
        return super().pwrite(fd, data[: self.write_at_most], offset)

    def find_identity(self, path: str) -> FileIdentity | None:
        self._check("stat", path)
        return super().find_identity(path)

    def set_size(self, fd: int, size: int) -> None:
        self._call("set_size", self._names[fd])
        super().set_size(fd, size)

    def fsync(self, fd: int) -> None:
        self._call("fsync", self._names[fd])
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._call("fdatasync", self._names[fd])
        super().fdatasync(fd)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        self.calls.append(f"start_writeback {self._short(self._names[fd])} {offset}+{length}")
        super().start_writeback(fd, offset, length)

    def rename(self, old: str, new: str) -> None:
        self._call("rename", old)
        super().rename(old, new)
        for fd, name in self._names.items():
            if name == old:
                self._names[fd] = new

    def unlink(self, path: str) -> None:
        self._call("unlink", path)
        super().unlink(path)

    @property
    def open_files(self) -> list[str]:
        """The files that are open."""
        return sorted(map(self._short, self._names.values()))

    def _call(self, what: str, path: str) -> None:
        self._check(what, path)
        self.calls.append(f"{what} {self._short(path)}")

    def _check(self, what: str, path: str) -> None:
        call = f"{what} {self._short(path)}"
        if call in self._faults:
            error = self._faults[call]
            raise OSError(error, os.strerror(error))

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._directory)


class SlowFiles(FileSystem):
    """The file system, on a disk that takes its time for each sync.

    :ivar seconds: how long a sync takes at least; the thread that calls it waits.
    :ivar syncs: how many there were.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.syncs = 0

    def fsync(self, fd: int) -> None:
        self._wait()
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._wait()
        super().fdatasync(fd)

    def _wait(self) -> None:
        time.sleep(self.seconds)
        self.syncs += 1


def _outcome(job: Callable[[], T]) -> T | Failure:
    try:
        return job()
    except Exception:
        return Failure()
