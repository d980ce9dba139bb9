"""Replaces finished segments by compressed ones, without a moment at which neither is there.

What is to be done is found in the directory each time, so nothing of it is kept anywhere, and a
kill at any point leaves nothing that the next look would not find. Everything here waits for the
disk and the processor, so it belongs into a lane of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from os.path import basename, join

from twisted.logger import Logger

from walstream.archive.codecs import CODECS
from walstream.archive.compression import pieces_in, pieces_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths, forms_of, rank_segments
from walstream.errors import ArchiveError, FormatError
from walstream.formats.compression import Compression
from walstream.formats.segments import SegmentSize, parse_segment_file

__all__ = ["Abandoned", "SegmentCompressor", "find_plain", "remove_leftovers"]

# Writeback of what is compressed is begun this often, so that the sync at the end is short: on
# some file systems those of the stream wait for it.
_WRITEBACK_EVERY = 4 << 20

# How many segments are found at one look. It bounds what a backlog of any length costs.
_BATCH = 256


class Abandoned(Exception):
    """The archive is being closed: the segment stays as it was."""


def find_plain(
    files: FileSystem, paths: ArchivePaths, size: SegmentSize, besides: Collection[str] = ()
) -> list[str]:
    """Some of the segments that wait to be compressed, the oldest first.

    That is what is finished and plain, but for the newest of these: whoever follows the stream is
    about to read it, and pg_receivewal, which does not know zstd, would go on behind it.

    :param besides: segments that are to be passed over.
    """
    plain = rank_segments(name for name in files.names(paths.root) if len(name) == 24)
    found = (
        name
        for name in plain[:0:-1]
        if name not in besides
        and parse_segment_file(name, size) is not None
        and files.find_size(paths.of(name)) == size
    )
    return list(islice(found, _BATCH))


def remove_leftovers(files: FileSystem, paths: ArchivePaths) -> None:
    """Remove what was being made when the process before was killed."""
    with suppress(FileNotFoundError):
        for name in files.names(paths.compressing):
            files.unlink(join(paths.compressing, name))


@dataclass(frozen=True, slots=True)
class _Plain:
    """A finished segment as it is, open for reading."""

    name: str
    size: int
    fd: int


class SegmentCompressor:
    """Compresses segments of one archive, one at a call; several threads may call at once.

    :param assure: proves that the archive still is ours, or raises `ArchiveLost`.
    :param is_stopping: asked before each piece whether to give up.
    """

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        compression: Compression,
        assure: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._files = files
        self._paths = paths
        self._assure = assure
        self._compression = compression
        self._codec = CODECS[compression.method]
        self._is_stopping = is_stopping

    def compress(self, name: str, size: int) -> None:
        """Replace the finished segment *name*, of *size* bytes, by a compressed one.

        The compressed one is decoded and compared before it gets its name, and the plain one goes
        when that name is durable. If a compressed one is there already, since we were killed in
        between or another program made it, it is compared all the same.

        :raises Abandoned: if it was given up.
        :raises OSError: if something cannot be read or written; the plain segment is there still.
        :raises FormatError: if what was compressed does not decode to the same; likewise.
        :raises ArchiveError: if there is a compressed segment that holds other WAL; likewise.
        :raises ArchiveLost: if the archive is not ours any more: nothing was changed.
        """
        try:
            plain = _Plain(name, size, self._files.open(self._paths.of(name), os.O_RDONLY))
        except FileNotFoundError:
            return  # it was removed meanwhile
        try:
            damaged = self._find_damaged(plain)
            if damaged is not None and not self._make(plain):
                return
        finally:
            self._files.close(plain.fd)
        self._files.fsync_directory(self._paths.root)
        self._remove([*(damaged or ()), self._paths.of(name)])

    def _remove(self, paths: Iterable[str]) -> None:
        self._assure()
        for path in paths:
            self._files.unlink(path)
        self._files.fsync_directory(self._paths.root)

    # What is there already.

    def _find_damaged(self, plain: _Plain) -> list[str] | None:
        """Compressed files of the segment that are damaged; None if there is one that is whole."""
        damaged = []
        for path in map(self._paths.of, forms_of(plain.name)[1:-1]):
            if self._files.find_size(path) is None:
                continue
            try:
                self._check_same(path, plain)
            except FormatError as error:
                self._log.warn("{reason}: it is made anew", reason=str(error))
                damaged.append(path)
            else:
                self._sync(path)
                return None
        # That of our own method is replaced, which is as good as removed.
        return [path for path in damaged if not path.endswith(f".{self._codec.suffix}")]

    def _check_same(self, path: str, plain: _Plain) -> None:
        if not self._holds_the_same(pieces_of(self._files, path, plain.size), plain):
            raise ArchiveError(
                f"{basename(path)} holds other WAL than {plain.name} beside it: move the wrong "
                "one away"
            )

    def _sync(self, path: str) -> None:
        fd = self._files.open(path, os.O_RDONLY)
        try:
            self._files.fsync(fd)
        finally:
            self._files.close(fd)

    # A new one.

    def _make(self, plain: _Plain) -> bool:
        """Make it; False if the plain one was removed meanwhile: it is not to be there again."""
        final = f"{plain.name}.{self._codec.suffix}"
        temporary = join(self._paths.compressing, final)
        self._files.make_directory(self._paths.compressing)
        try:
            self._write(temporary, plain)
            self._assure()
            if self._files.find_size(self._paths.of(plain.name)) is None:
                self._files.unlink(temporary)
                return False
            self._files.rename(temporary, self._paths.of(final))
        except BaseException:
            with suppress(OSError):
                self._files.unlink(temporary)
            raise
        return True

    def _write(self, temporary: str, plain: _Plain) -> None:
        fd = self._files.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._encode(fd, plain)
            self._files.copy_times(plain.fd, fd)
            self._files.fsync(fd)
            if not self._holds_the_same(pieces_in(self._files, fd, temporary, plain.size), plain):
                raise FormatError(f"{basename(temporary)} did not decode to what was compressed")
        finally:
            self._files.close(fd)

    def _encode(self, fd: int, plain: _Plain) -> None:
        done = written_back = 0
        pieces = self._unless_stopping(
            pieces_in(self._files, plain.fd, self._paths.of(plain.name), plain.size)
        )
        for piece in self._codec.encode(pieces, self._compression, plain.size):
            self._files.write_all(fd, piece, done)
            done += len(piece)
            if done >= written_back + _WRITEBACK_EVERY:
                self._files.start_writeback(fd, written_back, done - written_back)
                written_back = done

    def _holds_the_same(self, pieces: Iterator[bytes], plain: _Plain) -> bool:
        offset = 0
        for piece in self._unless_stopping(pieces):
            if self._files.pread(plain.fd, len(piece), offset) != piece:
                return False
            offset += len(piece)
        return True

    def _unless_stopping(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._is_stopping():
                raise Abandoned
            yield piece
