"""WAL that lies beyond the point where its timeline was left.

A server that crashes may have sent the beginning of a record whose end it never wrote. When a
standby goes on with a new timeline, that begins where the last whole record ended; what we hold
beyond is of no use to anybody. A whole record there is another matter: it may be a commit.
"""

from __future__ import annotations

from twisted.logger import Logger

from walstream.archive.filesystem import FileSystem
from walstream.archive.ledger import Ledger
from walstream.archive.paths import ArchivePaths
from walstream.archive.provider import ArchiveProvider
from walstream.errors import TimelineMismatch
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE, Buffer
from walstream.formats.positions import WALPosition
from walstream.formats.records import WALEnd, walk
from walstream.formats.segments import SegmentSize, parse_segment_file

__all__ = ["beyond", "give_up_beyond", "remove_abandoned"]

_log = Logger()

# Read first: most records are short. The double of it next, and so on: as much as one record has.
_FIRST = 64 << 10


async def give_up_beyond(
    provider: ArchiveProvider, size: SegmentSize, end: WALPosition, switch_point: LSN
) -> None:
    """See whether the WAL between *switch_point* and *end* may be given up, and say so.

    :raises TimelineMismatch: if it is more than the beginning of a record.
    :raises WALUnavailable: if it cannot be read.
    """
    found = await _read_beyond(provider, size, end, switch_point)
    if found is not None:
        raise TimelineMismatch(found)
    _log.warn(
        "timeline {timeline} was left at {lsn}, inside a record that never became whole: what the "
        "archive has of that record, up to {end}, is given up",
        timeline=end.timeline,
        lsn=str(switch_point),
        end=str(end.lsn),
    )


async def _read_beyond(
    provider: ArchiveProvider, size: SegmentSize, end: WALPosition, switch_point: LSN
) -> str | None:
    start = LSN(switch_point - switch_point % PAGE_SIZE)
    cursor = await provider.open(end.timeline, start)
    try:
        wal, limit = bytearray(), _FIRST
        stop = min(end.lsn, cursor.available)
        while True:
            last = min(stop, start + limit)
            while (missing := last - start - len(wal)) > 0:
                piece = cursor.read(missing)
                wal += piece
                if not piece:
                    await cursor.ready()
            found = beyond(wal, start, size, switch_point)
            if found is not None or last == stop:
                return found
            limit *= 2
    finally:
        cursor.close()


def remove_abandoned(files: FileSystem, paths: ArchivePaths, ledger: Ledger) -> None:
    """Remove each ``.partial`` that begins where its timeline had been left already.

    pg_receivewal would go on with it, if it were there. To be run in a lane.

    :raises OSError: if one cannot be removed.
    """
    for name in files.names(paths.root):
        segment = parse_segment_file(name, ledger.segment_size)
        if segment is None or not segment.partial or segment.compression is not None:
            continue
        if ledger.is_left(segment.timeline, ledger.segment_size.start(segment.number)):
            files.unlink(paths.of(name))
            _log.warn("removed {name}: its timeline was left before it begins", name=name)


def beyond(wal: Buffer, start: LSN, size: SegmentSize, switch_point: LSN) -> str | None:
    """What *wal*, a page's start first, has beyond a point, if not just an unfinished record."""
    records = walk(wal, start, size)
    try:
        while (record := next(records)).end <= switch_point:
            pass
    except StopIteration as stop:
        end: WALEnd = stop.value
        return None if end.exhausted else f"what the archive holds from {end.lsn} on: {end.reason}"
    return f"the record at {record.lsn}, which ends at {record.end}, is whole in the archive"
