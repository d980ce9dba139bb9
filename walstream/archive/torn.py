"""Whether the unfinished segment holds what the end mark says, after whatever stopped the process.

A disk that lost power may have kept less than it had said: zeros, or pages of before, where synced
WAL should be. That shows in the page headers and in the chain of the records; in their checksums
too, if the package ``crc32c`` is there.
"""

from __future__ import annotations

import os

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.positions import WALPosition
from walstream.formats.records import Checksum, end_of_wal
from walstream.formats.segments import SegmentSize

__all__ = ["valid_end"]

# Of a very large segment only the end is looked at: what was written last is what gets lost.
_MOST = 16 << 20


def valid_end(
    files: FileSystem, paths: ArchivePaths, size: SegmentSize, mark: WALPosition
) -> tuple[LSN, str | None]:
    """How far the ``.partial`` in which *mark* lies is WAL, and what is wrong with it from there.

    A mark at a segment's end, or in one that is finished, is taken as it is.

    :raises OSError: if the file cannot be read.
    """
    name = size.name(mark.timeline, size.number(mark.lsn))
    if not size.offset(mark.lsn) or files.find_size(paths.partial(name)) is None:
        return mark.lsn, None
    segment = size.floor(mark.lsn)
    start = LSN(max(segment, (mark.lsn - _MOST) // PAGE_SIZE * PAGE_SIZE))
    fd = files.open(paths.partial(name), os.O_RDONLY)
    try:
        content = files.pread(fd, mark.lsn - start, start - segment)
    finally:
        files.close(fd)
    content = content.ljust(mark.lsn - start, b"\0")
    end = end_of_wal(content, start, size, crc32c=_checksum())
    return (mark.lsn, None) if end.exhausted else (end.lsn, end.reason)


def _checksum() -> Checksum | None:
    try:
        from crc32c import crc32c
    except ImportError:
        return None
    checksum: Checksum = crc32c
    return checksum
