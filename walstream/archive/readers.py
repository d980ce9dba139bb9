"""Who reads an archive, for whoever wants to remove WAL from it, in this process or another one.

A process that reads keeps a file in ``.walstream/readers`` that says from where on it needs WAL,
and from where on it did a moment ago: a client that comes back asks for some of it again. It has it
locked (``flock``) for as long as it lives, however that ends: a file that can be locked
is a dead process's, and means nothing. The retention lock closes the door between looking at these
files and removing WAL: who removes has it alone, who begins to read shares it meanwhile.

Everything here waits for the disk or a lock, so it belongs into a lane.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import join

from walstream.archive.end_mark import format_position, parse_position
from walstream.archive.filesystem import FileSystem
from walstream.archive.lock import is_locked
from walstream.archive.paths import ArchivePaths
from walstream.archive.process_names import new_name, process_of
from walstream.formats.positions import WALPosition

__all__ = ["Reader", "ReaderFile", "active_readers", "forget_dead_readers", "retention_lock"]

_NOTHING = b"-" * (len(format_position(WALPosition(1, 0))) - 1) + b"\n"  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Reader:
    """A process that reads.

    :ivar position: from where on it needs WAL; None if it needs none at this moment.
    :ivar is_clear: whether its file could be understood.
    :ivar lately: from where on it needed WAL a moment ago, if that was less far on.
    """

    pid: int
    position: WALPosition | None
    is_clear: bool = True
    lately: WALPosition | None = None


@contextmanager
def retention_lock(files: FileSystem, paths: ArchivePaths, *, shared: bool) -> Iterator[None]:
    """Have the retention lock, and wait for it if need be.

    :param shared: whether it is to begin to read, or else to remove.
    :raises OSError: if there is no place for its file.
    """
    files.make_directory(paths.own)
    fd = files.open(paths.retention, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        files.close(fd)


class ReaderFile:
    """This process's file. It is made when something is needed for the first time."""

    def __init__(self, files: FileSystem, paths: ArchivePaths) -> None:
        self._files = files
        self._paths = paths
        self._fd: int | None = None
        self._path = join(paths.readers, new_name())

    def begin(self, position: WALPosition, lately: WALPosition | None = None) -> None:
        """From *position* on WAL is needed, which may be less far than before.

        :param lately: see `Reader`.

        :raises OSError: if that cannot be said to anybody.
        """
        with retention_lock(self._files, self._paths, shared=True):
            if self._fd is None:
                self._fd = self._make()
            self.move(position, lately)

    def move(self, position: WALPosition | None, lately: WALPosition | None = None) -> None:
        """WAL before *position* is not needed any more; without one, none is.

        :param lately: see `Reader`.

        :raises OSError: if that fails; more is held back then than need be.
        """
        if self._fd is not None:
            self._files.pwrite(self._fd, _line(position) + _line(lately), 0)

    def close(self) -> None:
        """Nothing is needed any more."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.unlink(self._path)
            self._files.close(fd)

    def _make(self) -> int:
        self._files.make_directory(self._paths.readers)
        fd = self._files.open(self._path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError:
            self._files.close(fd)
            raise
        return fd


def active_readers(files: FileSystem, paths: ArchivePaths) -> list[Reader]:
    """The processes that read; a look, of which the next moment need not know."""
    return [
        _read(files, path, pid) for path, pid, is_alive in _reader_files(files, paths) if is_alive
    ]


def forget_dead_readers(files: FileSystem, paths: ArchivePaths) -> None:
    """Remove the files of processes that have ended. To be called with the retention lock alone.

    :raises OSError: if that fails.
    """
    for path, _, is_alive in list(_reader_files(files, paths)):
        if not is_alive:
            files.unlink(path)


def _reader_files(files: FileSystem, paths: ArchivePaths) -> Iterator[tuple[str, int, bool]]:
    try:
        names = files.names(paths.readers)
    except FileNotFoundError:
        return
    for name in sorted(names):
        pid = process_of(name)
        if pid is not None:
            path = join(paths.readers, name)
            is_alive = is_locked(files, path)
            if is_alive is not None:
                yield path, pid, is_alive


def _line(position: WALPosition | None) -> bytes:
    return _NOTHING if position is None else format_position(position)


def _read(files: FileSystem, path: str, pid: int) -> Reader:
    size = len(_NOTHING)
    try:
        content = files.read(path, 2 * size + 1)
    except FileNotFoundError:
        return Reader(pid, None)
    lines = content[:size], content[size:] or _NOTHING
    position, lately = map(parse_position, lines)
    is_clear = all(
        _line(each) == line for each, line in zip((position, lately), lines, strict=True)
    )
    return Reader(pid, position, is_clear, lately)
