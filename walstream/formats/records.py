"""Walking the records of WAL, as PostgreSQL 9.5 and later write them on little-endian machines.

Knows where records begin and end, and what their headers say; what a record does is PostgreSQL's
business. The rules are those of its reader (``xlogreader.c``), so that a walk ends where recovery
would: at the first thing that cannot be WAL, be it zeros, a recycled segment or damage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    FIRST_IS_OVERWRITE_CONTRECORD,
    LONG_HEADER_SIZE,
    PAGE_SIZE,
    SHORT_HEADER_SIZE,
    Buffer,
    PageHeader,
    SegmentHeader,
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

#: A function that gives the CRC-32C (Castagnoli) of bytes, such as that of the package crc32c.
Checksum: TypeAlias = Callable[[bytes], int]

#: ``XLogRecord``: length, xid, previous record, info, resource manager, 2 bytes of padding, CRC.
RECORD_HEADER = struct.Struct("<IIQBB2xI")

_LENGTH = struct.Struct("<I")
_CRC_OFFSET = 20
_ALIGNMENT = 8  # MAXALIGN of every 64-bit platform
_RM_XLOG = 0
_XLOG_SWITCH = 0x40
_RESOURCE_MANAGER_INFO = 0xF0  # the lower half of info is the same for all of them


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
        return (
            self.resource_manager == _RM_XLOG and self.info & _RESOURCE_MANAGER_INFO == _XLOG_SWITCH
        )


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
    wal = _Pages(memoryview(buffer), start, segment_size)
    position, previous = int(start), None
    try:
        position = wal.first_record()
        while True:
            try:
                record, image = wal.record(position)
            except _Abandoned as abandoned:
                position = abandoned.page
                continue
            _check(record, previous)
            if crc32c is not None and record_crc(image, crc32c) != record.crc:
                raise _End(f"the checksum of the record at {record.lsn} is wrong")
            yield record
            position, previous = record.end, record.lsn
    except _End as end:
        return WALEnd(LSN(position), str(end), isinstance(end, _Exhausted))


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


class _End(Exception):
    """The walk ends here; the text says why."""


class _Exhausted(_End):
    """The walk ends because the buffer does."""


class _Abandoned(Exception):
    """A record was never finished: a crash interrupted it, and WAL goes on at *page*."""

    def __init__(self, page: int) -> None:
        super().__init__()
        self.page = page


class _Pages:
    """WAL as pages: reads records across them, and checks each page header on the way."""

    def __init__(self, view: memoryview, start: LSN, segment_size: SegmentSize) -> None:
        if start % PAGE_SIZE:
            raise FormatError(f"WAL can be walked from the start of a page, not from {start}")
        self._view = view
        self._start = start
        self._segment_size = segment_size
        self._newest: PageHeader | None = None
        self._cluster: tuple[int, int, int] | None = None

    def first_record(self) -> int:
        """Where the first record that begins in the buffer may be: as `RecordHeader.end`."""
        address = int(self._start)
        while True:
            header = self._header(address)
            rest = _aligned(header.rem_len) if header.flags & FIRST_IS_CONTRECORD else 0
            if rest == 0:
                return address
            if rest < PAGE_SIZE - header.size:
                return address + header.size + rest
            address += PAGE_SIZE

    def record(self, position: int) -> tuple[RecordHeader, Buffer]:
        """The record at *position*, and its image without the page headers on the way."""
        if position % PAGE_SIZE == 0:
            header = self._header(position)
            if header.flags & FIRST_IS_CONTRECORD:
                raise _End(f"the page at {header.address} continues a record that did not begin")
            position += header.size
        length: int = _LENGTH.unpack(self._slice(position, _LENGTH.size))[0]
        if length < RECORD_HEADER.size:
            raise _End(f"invalid record length {length} at {LSN(position)}")
        image, end = self._image(position, length)
        _, xid, previous, info, resource_manager, crc = RECORD_HEADER.unpack_from(image)
        record = RecordHeader(
            LSN(position), LSN(end), length, xid, LSN(previous), info, resource_manager, crc
        )
        if record.is_switch:
            record = record._replace(end=LSN(end + -end % self._segment_size))
        return record, image

    def _image(self, position: int, length: int) -> tuple[Buffer, int]:
        room = PAGE_SIZE - position % PAGE_SIZE
        if length <= room:
            return self._slice(position, length), _aligned(position + length)
        pieces = [self._slice(position, room)]
        missing = length - room
        address = position + room
        while True:
            start = address + self._continued(address, missing, position)
            piece = self._slice(start, min(missing, address + PAGE_SIZE - start))
            pieces.append(piece)
            missing -= len(piece)
            if not missing:
                return b"".join(pieces), _aligned(start + len(piece))
            address += PAGE_SIZE

    def _continued(self, address: int, missing: int, record: int) -> int:
        """Check that the page at *address* continues a record; return its header's size."""
        header = self._header(address)
        if header.flags & FIRST_IS_OVERWRITE_CONTRECORD:
            raise _Abandoned(address)
        if not header.flags & FIRST_IS_CONTRECORD or header.rem_len != missing:
            raise _End(
                f"the page at {header.address} does not continue the record at {LSN(record)}"
            )
        return header.size

    def _header(self, address: int) -> PageHeader:
        """The header of the page at *address*, checked as ``XLogReaderValidatePageHeader`` does."""
        try:
            if self._segment_size.offset(address):
                header = PageHeader.parse(self._slice(address, SHORT_HEADER_SIZE))
            else:
                header = self._segment_header(address)
        except FormatError as error:
            raise _End(f"no valid page at {LSN(address)}: {error}") from None
        newest = self._newest or header
        if header.address != address:
            raise _End(f"the page at {LSN(address)} says that it is that at {header.address}")
        if header.magic != newest.magic or header.timeline < newest.timeline:
            raise _End(f"the page at {header.address} is of another version or an older timeline")
        self._newest = header
        return header

    def _segment_header(self, address: int) -> SegmentHeader:
        header = SegmentHeader.parse(self._slice(address, LONG_HEADER_SIZE))
        mine = (header.system_identifier, self._segment_size, PAGE_SIZE)
        cluster = self._cluster or mine
        if (header.system_identifier, header.segment_size, header.page_size) != cluster:
            raise _End(f"the segment at {LSN(address)} is of another cluster or of other sizes")
        self._cluster = cluster
        return header

    def _slice(self, position: int, length: int) -> memoryview:
        offset = position - self._start
        piece = self._view[offset : offset + length]
        if len(piece) < length:
            raise _Exhausted(f"the WAL at hand ends at {LSN(self._start + len(self._view))}")
        return piece


def _check(record: RecordHeader, previous: LSN | None) -> None:
    # Of what comes before the first record, only this much is known.
    chained = record.previous < record.lsn if previous is None else record.previous == previous
    if not chained:
        raise _End(f"the record at {record.lsn} does not follow the one before it")


def _aligned(position: int) -> int:
    return position + -position % _ALIGNMENT
