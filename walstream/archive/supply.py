"""Where the segment files come from that a stream fills.

A new one is made ahead, in the lane, and only renamed when it is needed: to allocate a segment
takes longer than to receive a small one. One that exists is continued in place, unless a write or
a sync of it has failed: what the kernel still knows of its pages then is not to be trusted, so it
is received again into another file, which takes its place once it holds as much.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from walstream.archive.compression import decode_unnamed
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths, forms_of
from walstream.archive.segment import OpenSegment
from walstream.errors import ArchiveLost, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = ["SegmentSupply"]


class SegmentSupply:
    """Opens and makes the segment files of one archive.

    :param assure: proves that the archive's directory still is ours, or raises `ArchiveLost`:
        whatever makes or renames a file goes by its name.
    :ivar suspect: the timeline whose ``.partial`` files are not trusted any more, or None.
    """

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        size: SegmentSize,
        lane: Lane,
        assure: Callable[[], None],
    ) -> None:
        self.suspect: int | None = None
        self._files = files
        self._paths = paths
        self._size = size
        self._lane = lane
        self._assure = assure
        self._spare: int | None = None
        self._is_making = False

    def prepare(self, timeline: int, start: int, held: int) -> Deferred[OpenSegment | None]:
        """Open the first segment of a stream, of which the bytes up to *held* are durable.

        None if there is no file of it yet; there is a spare one then.

        :raises OSError: (in the Deferred) if there is no place for it.
        :raises ArchiveLost: (in the Deferred) if the archive is not where it was.
        """
        return Deferred.fromCoroutine(self._prepare(timeline, start, held))

    def take(self, timeline: int, number: int) -> OpenSegment:
        """The file of the next segment; a spare one, if there is none of it yet.

        It is not looked for in compressed form: to decode it takes too long here. Nothing finished
        follows where a stream goes on, unless another program has put it there.

        :raises OSError: if there is no place for it.
        :raises ArchiveLost: if the archive is not where it was.
        """
        self._assure()
        start = self._size.start(number)
        return self._open(timeline, start, start) or self._new(timeline, start)

    def path(self, timeline: int, number: int) -> str:
        """Where an unfinished segment is, for messages."""
        return self._paths.partial(self._size.name(timeline, number))

    def close(self) -> Deferred[None]:
        """Give up the spare file."""
        return Deferred.fromCoroutine(self._close())

    # The first segment of a stream.

    async def _prepare(self, timeline: int, start: int, held: int) -> OpenSegment | None:
        segment = await self._lane.run(lambda: self._first(timeline, start, held))
        if segment is None:
            await self._replenish()
        return segment

    def _first(self, timeline: int, start: int, held: int) -> OpenSegment | None:
        self._assure()
        segment = self._open_first(timeline, start, held)
        if segment is None and held > start:
            raise ArchiveLost(
                f"{self._paths.partial(self._name(timeline, start))} is gone, which held "
                f"acknowledged WAL up to {LSN(held)}"
            )
        return segment

    def _open_first(self, timeline: int, start: int, held: int) -> OpenSegment | None:
        if self.suspect != timeline:
            return self._open_compressed(timeline, start) or self._open(timeline, start, held)
        self._discard_suspects(self._name(timeline, start), keep_first=held > start)
        if held > start:
            return self._open_replacement(timeline, start, held)
        self.suspect = None
        return self._open_compressed(timeline, start) or self._open(timeline, start, held)

    def _open_compressed(self, timeline: int, start: int) -> OpenSegment | None:
        """The segment, decoded, if it is finished and compressed: what comes is compared with it.

        A damaged one is as good as none, so that it is received again.
        """
        plain, *compressed = map(self._paths.of, forms_of(self._name(timeline, start))[:-1])
        if self._files.find_size(plain) is not None:
            return None
        for path in compressed:
            with suppress(FileNotFoundError, FormatError):
                fd = self._files.open(path, os.O_RDONLY)
                try:
                    decoded = decode_unnamed(self._files, fd, path, self._size)
                except BaseException:
                    self._files.close(fd)
                    raise
                segment = self._segment(timeline, start, fd)
                segment.is_compressed(path, decoded)
                return segment
        return None

    def _discard_suspects(self, first: str, keep_first: bool) -> None:
        """Remove the .partial files from *first* on: nothing in them was reported as durable."""
        for name in self._files.names(self._paths.root):
            segment, suffix = name[:24], name[24:]
            is_ours = segment[:8] == first[:8] and suffix == ".partial"
            if is_ours and (segment > first or (segment == first and not keep_first)):
                self._files.unlink(self._paths.of(name))

    def _open_replacement(self, timeline: int, start: int, held: int) -> OpenSegment | None:
        name = self._name(timeline, start)
        try:
            old = self._files.open(self._paths.partial(name), os.O_RDONLY)
        except FileNotFoundError:
            self.suspect = None
            return self._open(timeline, start, held)
        try:
            fd = self._make(self._paths.rewrite)
        except OSError:
            self._files.close(old)
            raise
        segment = self._segment(timeline, start, fd)
        segment.holds(held)
        segment.replaces(old, self._paths.rewrite)
        return segment

    # Any segment.

    def _open(self, timeline: int, start: int, held: int) -> OpenSegment | None:
        name = self._name(timeline, start)
        if self._files.find_size(self._paths.of(name)) == self._size:
            segment = self._segment(
                timeline, start, self._files.open(self._paths.of(name), os.O_RDONLY)
            )
            segment.is_finished()
            return segment
        try:
            fd = self._files.open(self._paths.partial(name), os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            if self._files.size_of(fd) != self._size:
                self._files.set_size(fd, self._size)
        except OSError:
            self._files.close(fd)
            raise
        segment = self._segment(timeline, start, fd)
        segment.holds(held)
        return segment

    def _new(self, timeline: int, start: int) -> OpenSegment:
        fd, path = self._spare, self._paths.spare
        if fd is None:
            path = self._paths.fresh
            fd = self._make(path)
        try:
            self._files.rename(path, self._paths.partial(self._name(timeline, start)))
        except OSError:
            if path == self._paths.fresh:
                self._discard(fd, path)
            raise
        if path == self._paths.spare:
            self._spare = None
        self._replenish().addErrback(_leave_to_the_next)
        return self._segment(timeline, start, fd)

    def _segment(self, timeline: int, start: int, fd: int) -> OpenSegment:
        name = self._name(timeline, start)
        return OpenSegment(self._files, self._paths, name, start, self._size, fd, self._assure)

    def _name(self, timeline: int, start: int) -> str:
        return self._size.name(timeline, self._size.number(start))

    # The spare file.

    def _replenish(self) -> Deferred[None]:
        """Have a spare file made, unless there is one, or soon will be."""
        if self._spare is not None or self._is_making:
            return succeed(None)
        self._is_making = True
        return self._lane.run(lambda: self._make(self._paths.spare)).addBoth(self._made)

    def _made(self, result: int | Failure) -> Failure | None:
        self._is_making = False
        if isinstance(result, Failure):
            return result
        self._spare = result
        return None

    def _make(self, path: str) -> int:
        self._assure()
        fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._files.set_size(fd, self._size)
        except OSError:
            self._discard(fd, path)
            raise
        return fd

    async def _close(self) -> None:
        await self._lane.run(lambda: None)  # behind what is being made
        if self._spare is not None:
            fd, self._spare = self._spare, None
            await self._lane.run(lambda: self._discard(fd, self._paths.spare))

    def _discard(self, fd: int, path: str) -> None:
        # A leftover is no harm: it is removed when the archive is taken into use.
        with suppress(OSError):
            if self._files.find_identity(path) == self._files.identity_of(fd):
                self._files.unlink(path)
        with suppress(OSError):
            self._files.close(fd)


def _leave_to_the_next(failure: Failure) -> None:
    # Whoever needs the file and finds no spare one makes it, and reports what is wrong.
    failure.trap(OSError, ArchiveLost)
