"""Reads segment files of every form: as they are, or compressed by any of the known methods.

The name says the form. Whatever a compressed file says of its own size or checksum, it counts only
once it has been decoded to its end, to exactly as many bytes as a segment has. Everything here
waits for the disk and for the processor, so it belongs into a lane.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from walstream.archive.codecs import codec_of
from walstream.archive.filesystem import FileSystem
from walstream.errors import FormatError

__all__ = [
    "WholenessCheck",
    "decode_unnamed",
    "pieces_in",
    "pieces_of",
    "read_head",
    "read_segment",
]

# More at once would be memory that the kernel has to find, and to clear, each time.
_PIECE = 1 << 19
_PEEK = 4096
_REMEMBERED = 8


def pieces_of(files: FileSystem, path: str, size: int) -> Iterator[bytes]:
    """What the segment file at *path* holds, in order, in pieces of at most half a mebibyte or so.

    Only when the last piece has come is it known that the file is whole.

    :param size: what a segment has, in bytes.
    :raises OSError: if the file cannot be read.
    :raises FormatError: naming the file, if it does not hold exactly *size* bytes, or is damaged.
    :raises ArchiveError: if a package is missing to decode it.
    """
    fd = files.open(path, os.O_RDONLY)
    try:
        yield from pieces_in(files, fd, path, size)
    finally:
        files.close(fd)


def pieces_in(files: FileSystem, fd: int, path: str, size: int) -> Iterator[bytes]:
    """As `pieces_of`, of the open file *fd* at *path*."""
    if codec_of(path) is None and (found := files.size_of(fd)) != size:
        raise FormatError(f"{os.path.basename(path)} has {found} bytes and not {size}")
    done = 0
    for piece in _decoded(files, fd, path, _PIECE):
        done += len(piece)
        if done > size:
            raise FormatError(f"{os.path.basename(path)} holds more than {size} bytes")
        yield piece
    if done != size:
        raise FormatError(f"{os.path.basename(path)} holds {done} bytes and not {size}")


def read_segment(files: FileSystem, path: str, size: int) -> bytearray:
    """All that the segment file at *path* holds: *size* bytes. Errors as `pieces_of`."""
    content = bytearray(size)
    done = 0
    for piece in pieces_of(files, path, size):
        content[done : done + len(piece)] = piece
        done += len(piece)
    return content


def decode_unnamed(files: FileSystem, fd: int, path: str, size: int) -> int:
    """What the open segment file *fd* at *path* holds, in a new file without a name.

    Its pages are the kernel's to write out when memory is short, as those of a segment are. Errors
    as `pieces_of`; also if there is no room for it.

    :return: the new file, open; see `FileSystem.open_unnamed`.
    """
    unnamed = files.open_unnamed()
    try:
        done = 0
        for piece in pieces_in(files, fd, path, size):
            _write(files, unnamed, piece, done)
            done += len(piece)
    except BaseException:
        files.close(unnamed)
        raise
    return unnamed


def _write(files: FileSystem, unnamed: int, piece: bytes, offset: int) -> None:
    try:
        files.write_all(unnamed, piece, offset)
    except OSError as error:
        import tempfile

        error.filename = tempfile.gettempdir()
        raise


def read_head(files: FileSystem, path: str, length: int) -> bytes:
    """The first *length* bytes that a segment file holds; fewer if there are no more.

    Little more is read than that takes, so nothing is known of the rest. Errors as `pieces_of`.
    """
    fd = files.open(path, os.O_RDONLY)
    head = b""
    try:
        for piece in _decoded(files, fd, path, _PEEK):
            head += piece[: length - len(head)]
            if len(head) == length:
                break
    finally:
        files.close(fd)
    return head


class WholenessCheck:
    """Tells whether segment files are whole, and decodes none of them twice to know it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[int, ...]], str | None] = {}

    def damage(self, files: FileSystem, path: str, size: int) -> str | None:
        """What is wrong with the segment file at *path*, naming it; None if it is whole.

        :raises OSError: if the file cannot be read.
        :raises ArchiveError: if a package is missing to decode it.
        """
        key = path, files.fingerprint(path)
        if key not in self._known:
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = self._look(files, path, size)
        return self._known[key]

    def _look(self, files: FileSystem, path: str, size: int) -> str | None:
        try:
            for _ in pieces_of(files, path, size):
                pass
        except FormatError as error:
            return str(error)
        return None


def _decoded(files: FileSystem, fd: int, path: str, chunk: int) -> Iterator[bytes]:
    """The contents of a file, *chunk* bytes of it at a time, whatever length they have."""
    read = _Reader(files, fd, chunk)
    codec = codec_of(path)
    if codec is None:
        yield from iter(partial(read, chunk), b"")
        return
    try:
        yield from codec.decode(read)
    except FormatError as error:
        raise FormatError(f"{os.path.basename(path)} is damaged: {error}") from error


class _Reader:
    """Reads a file from its beginning, never more than *limit* bytes at once."""

    def __init__(self, files: FileSystem, fd: int, limit: int) -> None:
        self._files = files
        self._fd = fd
        self._limit = limit
        self._offset = 0

    def __call__(self, size: int) -> bytes:
        data = self._files.pread(self._fd, min(size, self._limit), self._offset)
        self._offset += len(data)
        return data
