"""WAL that lies beyond the point where its timeline was left.

A server that crashes may have sent the beginning of a record whose end it never wrote. When a
standby goes on with a new timeline, that begins where the last whole record ended; what we hold
beyond is of no use to anybody. A whole record there is another matter: it may be a commit.
"""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.ledger import Ledger
from walstream.archive.paths import ArchivePaths
from walstream.archive.provider import ArchiveProvider
from walstream.errors import DamagedWAL, TimelineMismatch
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.positions import WALPosition
from walstream.formats.record_walk import FoundRecord, PieceWalk, RecordWalk
from walstream.formats.segments import SegmentSize, parse_segment_file

__all__ = ["beyond", "give_up_beyond", "remove_abandoned"]

_log = Logger()

# So much is looked at in one go: for a thread, less than a millisecond of work as a rule.
_PIECE = 256 << 10


async def give_up_beyond(
    provider: ArchiveProvider,
    lane: Lane,
    size: SegmentSize,
    end: WALPosition,
    switch_point: LSN,
) -> None:
    """See whether the WAL between *switch_point* and *end* may be given up, and say so.

    A record may have 1 GiB: it is looked at in pieces, and none of them is kept.

    :param lane: where it is looked at.
    :raises TimelineMismatch: if it is more than the beginning of a record.
    :raises WALUnavailable: if it cannot be read.
    """
    found = await _read_beyond(provider, lane, size, end, switch_point)
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
    provider: ArchiveProvider,
    lane: Lane,
    size: SegmentSize,
    end: WALPosition,
    switch_point: LSN,
) -> str | None:
    start = LSN(switch_point - switch_point % PAGE_SIZE)
    search = _Search(start, size, switch_point)
    cursor = await provider.open(end.timeline, start)
    try:
        stop = min(end.lsn, cursor.available)
        while cursor.position < stop:
            piece = bytes(cursor.read(min(_PIECE, stop - cursor.position)))
            if not piece:
                await cursor.ready()
            elif (found := await lane.run(partial(search.take, piece))) is not None:
                return found
        return None
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


def beyond(wal: bytes, start: LSN, size: SegmentSize, switch_point: LSN) -> str | None:
    """What *wal*, a page's start first, has beyond a point, if not just an unfinished record."""
    return _Search(start, size, switch_point).take(wal)


class _Search:
    """Looks for what is more than an unfinished record, in WAL that comes in pieces."""

    def __init__(self, start: LSN, size: SegmentSize, switch_point: LSN) -> None:
        self._walk = RecordWalk(start, PageRules(size), None)
        self._pieces = PieceWalk(self._walk, start)
        self._switch_point = switch_point

    def take(self, piece: bytes) -> str | None:
        """What has been found with this piece, if anything; the search is over then."""
        records: list[FoundRecord] = []
        reason: str | None = None
        try:
            self._pieces.feed(piece, records)
        except DamagedWAL as damage:
            reason = f"what the archive holds from {LSN(self._walk.end)} on: {damage}"
        for lsn, end, _ in records:
            if end > self._switch_point:
                record = f"the record at {LSN(lsn)}, which ends at {LSN(end)}"
                return f"{record}, is whole in the archive"
        return reason
