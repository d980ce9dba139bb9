"""One segment file while it is being filled.

Bytes are put by the reactor's thread; `sync`, `finish`, `start_writeback` and `close` are the
lane's, which runs them in order. Knows one file, and nothing of streams.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile

from twisted.logger import Logger

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveLost, TimelineMismatch
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = ["OpenSegment"]

_PAGE_MASK = ~4095


class OpenSegment:
    """A segment's file, open for writing, and at its full size from the start.

    Where the archive already has durable bytes of the segment, nothing is written over them: they
    are compared with what comes. That is so when a stream begins again at the segment's start.

    A file that was unlinked, or whose file system was unmounted, is written and synced as well as
    any other. So no sync counts before the file was seen to be the one that has its name.

    :param assure: proves that the archive's directory still is ours, or raises `ArchiveLost`.
    :ivar start: the position of the segment's first byte.
    :ivar end: the position behind its last byte.
    :ivar path: the file as the operator knows it.
    :ivar was_replaced: whether another file has taken the place of the ``.partial``.
    """

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        name: str,
        start: int,
        size: SegmentSize,
        fd: int,
        assure: Callable[[], None],
    ) -> None:
        self.start = start
        self.end = start + size
        self.path = self._partial = paths.partial(name)
        self.was_replaced = False
        self.is_writing_back = False
        self._files = files
        self._root = paths.root
        self._final = paths.of(name)
        self._fd = fd
        self._identity = files.identity_of(fd)
        self._assure = assure
        # Durable bytes up to here are in the file of this descriptor; they are compared.
        self._held = 0
        self._held_fd = fd
        self._held_is_readable = True
        self._keeps_held = True
        # The name that the file has for as long as it must not be taken for the .partial.
        self._temporary: str | None = None
        self._is_finished = False
        self._entry_is_durable = False
        self._written_back = 0

    def holds(self, position: int) -> None:
        """The file's bytes up to *position* are durable."""
        self._held = position

    def replaces(self, fd: int, temporary: str) -> None:
        """The file, now named *temporary*, is to replace a ``.partial`` that is not trusted.

        The ``.partial``, open as *fd*, keeps its place until all its durable bytes are durable in
        this file too.
        """
        self._held_fd = fd
        self._keeps_held = False
        self._temporary = temporary

    def is_finished(self) -> None:
        """The file is whole and has its final name: whatever comes is only compared."""
        self._is_finished = True
        self._held = self.end
        self.path = self._final

    def is_compressed(self, path: str, decoded: int) -> None:
        """The file is whole, and compressed at *path*; *decoded* is open and holds its bytes."""
        self.is_finished()
        self.path = path
        self._held_fd = decoded

    @property
    def is_in_place(self) -> bool:
        """Whether the file has the segment's name, so that who looks for the segment finds it."""
        return self._temporary is None

    def put(self, position: int, data: memoryview) -> None:
        """Write *data*, which lies inside the segment, to where it belongs.

        :raises OSError: if that fails.
        :raises TimelineMismatch: if *data* differs from what is durable; nothing was written.
        """
        if position < self._held:
            known = self._compare(position, data)
            if self._keeps_held:
                data, position = data[known:], position + known
                if not data:
                    return
        offset = position - self.start
        written = self._files.pwrite(self._fd, data, offset)
        if written != len(data):
            self._files.write_all(self._fd, data[written:], offset + written)

    def _compare(self, position: int, data: memoryview) -> int:
        """Compare as much of *data* as is durable already; how much that was."""
        known = min(self._held - position, len(data))
        held = self._read_held(known, position - self.start)
        received = bytes(data[:known])  # views would be compared item by item
        if held is not None and held != received:
            same = _same(held, received)
            raise TimelineMismatch(
                f"the server's WAL differs from {self.path} at {LSN(position + same)}, which is "
                "durable in the archive: it is of another history; nothing was overwritten"
            )
        return known

    def _read_held(self, size: int, offset: int) -> bytes | None:
        if not self._held_is_readable:
            return None
        try:
            return self._files.pread(self._held_fd, size, offset)
        except OSError as error:
            if self._keeps_held:
                raise
            # It is about to be replaced, perhaps for this very reason.
            self._held_is_readable = False
            self._log.warn(
                "{path} cannot be read, so it is replaced without being compared: {error}",
                path=self.path,
                error=str(error),
            )
            return None

    # What the lane does.

    def read_back(self, position: int, size: int) -> bytes:
        """What was put at *position*, *size* bytes of it.

        :raises OSError: if that fails.
        """
        return self._files.pread(self._fd, size, position - self.start)

    def sync(self) -> None:
        """Make what was put durable, and at the first time the size and the directory entry too.

        Of a replacement, more must have been put than was durable before.
        """
        if self._entry_is_durable:
            self._files.fdatasync(self._fd)
        else:
            self._files.fsync(self._fd)
            self._take_place()
            self._files.fsync_directory(self._root)
            self._entry_is_durable = True
        self._prove()

    def finish(self) -> None:
        """Make the whole segment durable and give it its final name, in this order."""
        self._files.fsync(self._fd)
        self._take_place()
        self._prove()
        if not self._is_finished:
            self._files.rename(self._partial, self._final)
        self._files.fsync_directory(self._root)
        self._assure()

    def start_writeback(self, end: int) -> None:
        """Have the kernel begin to write what was put up to *end*."""
        self.is_writing_back = False
        offset = (end - self.start) & _PAGE_MASK
        if offset > self._written_back:
            length = offset - self._written_back
            self._files.start_writeback(self._fd, self._written_back, length)
            self._written_back = offset

    def close(self) -> None:
        """Close the file. A replacement that has not taken its place is given up.

        Errors are nobody's business any more: what had to be durable was synced, and what is left
        over is removed when the archive is taken into use.
        """
        if self._temporary is not None:
            with suppress(OSError):
                if self._files.find_identity(self._temporary) == self._identity:
                    self._files.unlink(self._temporary)
        for fd in {self._fd, self._held_fd}:
            with suppress(OSError):
                self._files.close(fd)

    def _prove(self) -> None:
        """See that the file that was synced is the one that has the name, in our archive.

        :raises ArchiveLost: if it is not.
        """
        self._assure()
        if self._files.find_identity(self.path) != self._identity:
            raise ArchiveLost(
                f"{self.path} was removed, or another file was put in its place, while it was "
                "being written"
            )

    def _take_place(self) -> None:
        if self._temporary is not None:
            self._assure()
            self._files.rename(self._temporary, self._partial)
            self._temporary = None
            self.was_replaced = True


def _same(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the beginning of both."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
