"""The end mark: how far an archive is durable, for the next process and for other ones.

A ``.partial`` has its full length from the start, so it does not tell how much of it is WAL; the
mark in ``.walstream/end`` does. It is written after the sync that it reports, and is itself not
synced: a mark that a crash took away, or turned into an older one, is less than the truth, which
is safe. A checksum keeps a mark that is read while it is written from being taken for another.
"""

from __future__ import annotations

import os
import re
from zlib import crc32

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition

__all__ = ["EndMark", "format_position", "parse_position", "read_end_mark"]

_MARK = re.compile(rb"([0-9A-F]{8} ([0-9A-F]{8})/([0-9A-F]{8}) )([0-9A-F]{8})\n")


class EndMark:
    """The mark of an archive that this process writes. Its size never changes."""

    def __init__(self, files: FileSystem, paths: ArchivePaths) -> None:
        self._files = files
        self._path = paths.end
        self._fd = files.open(paths.end, os.O_RDWR | os.O_CREAT)

    def write(self, end: WALPosition) -> None:
        """Say that everything up to *end* is durable. Stays in the page cache.

        :raises OSError: if even that fails.
        """
        try:
            self._files.pwrite(self._fd, format_position(end), 0)
        except OSError as error:
            error.filename = self._path
            raise

    def close(self) -> None:
        """Close the file."""
        self._files.close(self._fd)


def read_end_mark(files: FileSystem, paths: ArchivePaths) -> WALPosition | None:
    """What the mark says; None if there is none, or none that can be trusted."""
    try:
        content = files.read(paths.end, 64)
    except FileNotFoundError:
        return None
    return parse_position(content)


def format_position(position: WALPosition) -> bytes:
    """A position with a checksum, always of the same size, so that it is written in place."""
    text = b"%08X %08X/%08X " % (
        position.timeline,
        position.lsn >> 32,
        position.lsn & 0xFFFFFFFF,
    )
    return b"%b%08X\n" % (text, crc32(text))


def parse_position(content: bytes) -> WALPosition | None:
    """What `format_position` wrote; None for anything else."""
    match = _MARK.fullmatch(content)
    if match is None or crc32(match[1]) != int(match[4], 16):
        return None
    return WALPosition(int(match[1][:8], 16), LSN(int(match[2], 16) << 32 | int(match[3], 16)))
