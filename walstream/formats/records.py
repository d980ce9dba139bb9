"""Records of WAL, as PostgreSQL 9.5 and later write them on little-endian machines.

Knows where records begin and end, and what their headers say; what a record does is PostgreSQL's
business. The walk itself is `walstream.formats.record_walk`'s; this is for those who have the WAL
at hand.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

from walstream.errors import DamagedWAL
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE, Buffer
from walstream.formats.record_walk import (
    RECORD_HEADER,
    Checksum,
    FoundRecord,
    RecordWalk,
    is_switch,
)
from walstream.formats.segments import SegmentSize

__all__ = [
    "RECORD_HEADER",
    "Checksum",
    "RecordHeader",
    "WALEnd",
    "end_of_wal",
    "record_crc",
    "walk",
]

_CRC_OFFSET = 20

# How much is walked through before records are given out.
_WINDOW = 16 * PAGE_SIZE


class RecordHeader(NamedTuple):
    """A record: where it lies, and what its header says.

    A tuple, not a dataclass, because one segment may hold a hundred thousand of them.

    :ivar lsn: the position of its first byte.
    :ivar end: the position up to which it occupies the WAL, alignment included; for a segment
        switch, the end of the segment. The next record begins there, or behind the page header
        that is there.
    :ivar length: its length in bytes, this header included, page headers on the way not.
    :ivar previous: the position of the record before it.
    """

    lsn: LSN
    end: LSN
    length: int
    xid: int
    previous: LSN
    info: int
    resource_manager: int
    crc: int

    @property
    def is_switch(self) -> bool:
        """Whether the rest of the segment is unused (``XLOG_SWITCH``)."""
        return is_switch(self.resource_manager, self.info)


@dataclass(frozen=True, slots=True)
class WALEnd:
    """Where a walk ended, and why.

    :ivar lsn: the position up to which everything is whole records.
    :ivar reason: what is wrong with what follows there, for people.
    :ivar exhausted: whether nothing is wrong, but the buffer is at its end.
    """

    lsn: LSN
    reason: str
    exhausted: bool


def walk(
    buffer: Buffer, start: LSN, segment_size: SegmentSize, *, crc32c: Checksum | None = None
) -> Generator[RecordHeader, None, WALEnd]:
    """Go through the records that begin in *buffer*, whose first byte has position *start*.

    The buffer may begin at any page and hold any number of segments; a record that began before
    it is passed over. Checked are page headers, the chain of records, and each record's CRC if
    *crc32c* is given. The generator's return value tells why it ended.

    :raises FormatError: if *start* is not where a page begins.
    """
    records = RecordWalk(start, PageRules(segment_size), crc32c)
    found: list[FoundRecord] = []
    try:
        for offset in range(0, len(buffer), _WINDOW):
            needed = records.needs - start
            records.feed(start + needed, bytes(buffer[needed : offset + _WINDOW]), found)
            yield from map(_header_of, found)
            found.clear()
    except DamagedWAL as damage:
        yield from map(_header_of, found)
        return WALEnd(LSN(records.end), str(damage), exhausted=False)
    end = LSN(start + len(buffer))
    return WALEnd(LSN(records.end), f"the WAL at hand ends at {end}", exhausted=True)


def end_of_wal(
    buffer: Buffer, start: LSN, segment_size: SegmentSize, *, crc32c: Checksum | None = None
) -> WALEnd:
    """Where the valid WAL in *buffer* ends; as `walk`, for those who do not need the records."""
    records = walk(buffer, start, segment_size, crc32c=crc32c)
    while True:
        try:
            next(records)
        except StopIteration as stop:
            end: WALEnd = stop.value
            return end


def record_crc(image: Buffer, crc32c: Checksum) -> int:
    """The CRC of a record: that of what follows the header, then of the header before its CRC."""
    return crc32c(b"".join((image[RECORD_HEADER.size :], image[:_CRC_OFFSET])))


def _header_of(found: FoundRecord) -> RecordHeader:
    lsn, end, (length, xid, previous, info, resource_manager, crc) = found
    return RecordHeader(LSN(lsn), LSN(end), length, xid, LSN(previous), info, resource_manager, crc)
