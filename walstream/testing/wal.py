"""A builder of valid WAL: what PostgreSQL's own tools read without an error.

Its records do nothing; their positions, lengths, links and checksums are those of real ones.
Needs the package ``crc32c`` (the extra ``testing``).
"""

from __future__ import annotations

import builtins
from array import array

from crc32c import crc32c

from walstream.errors import FormatError
from walstream.formats.lsn import INVALID, LSN
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    FIRST_IS_OVERWRITE_CONTRECORD,
    LONG_HEADER,
    LONG_HEADER_SIZE,
    PAGE_SIZE,
    SHORT_HEADER_SIZE,
    PageHeader,
    SegmentHeader,
    magic_of,
)
from walstream.formats.records import RECORD_HEADER, RecordHeader, record_crc
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["RM_XLOG", "SYSTEM_IDENTIFIER", "WALBuilder", "wal_bytes"]

#: A system identifier for tests that need just one; of the size that real ones have.
SYSTEM_IDENTIFIER = 7_423_190_665_107_412_305

#: The resource manager of PostgreSQL's own records about WAL.
RM_XLOG = 0

# Info values of RM_XLOG's records (catalog/pg_control.h).
_NOOP = 0x20
_SWITCH = 0x40
_OVERWRITE_CONTRECORD = 0xD0

# A record's data follows its header behind one of these ids and its length (access/xlogrecord.h).
_DATA_SHORT = 255
_DATA_LONG = 254
_DATA_SHORT_MAX = 255

# The first release that leaves the rest of a switched segment to zeros, page headers included.
_OLDEST_MAJOR = 11


class WALBuilder:
    """Writes WAL on one timeline, record by record, beginning at the start of a segment.

    :ivar records: what has been written, in the form in which `walk` finds it again.
    """

    def __init__(
        self,
        system_identifier: int = SYSTEM_IDENTIFIER,
        segment_size: SegmentSize = DEFAULT_SEGMENT_SIZE,
        timeline: int = 1,
        major: int = 18,
        start: LSN | None = None,
    ) -> None:
        """Begin at *start*, or where the WAL of a new cluster begins: at segment 1.

        :raises FormatError: if *start* is not where a segment begins, or for a *major* outside
            11 to 18.
        """
        self.system_identifier = system_identifier
        self.segment_size = segment_size
        self.timeline = timeline
        self.major = major
        self.start = segment_size.start(1) if start is None else start
        if segment_size.offset(self.start):
            raise FormatError(f"{self.start} is not where a segment begins")
        if major < _OLDEST_MAJOR:
            raise FormatError(f"cannot write the WAL of a PostgreSQL before {_OLDEST_MAJOR}")
        self.records: list[RecordHeader] = []
        self._magic = magic_of(major)
        self._wal = bytearray()
        self._last = INVALID

    @property
    def end(self) -> LSN:
        """The position up to which WAL is written: the end of the last record, aligned."""
        return LSN(self.start + len(self._wal))

    def record(
        self, resource_manager: int, info: int, data: builtins.bytes = b"", xid: int = 0
    ) -> RecordHeader:
        """Append a record with *data* as its main data, over as many pages as it takes."""
        self._begin_page()
        lsn = self.end
        image = self._image(resource_manager, info, data, xid)
        self._append(image)
        self._wal += bytes(-len(self._wal) % 8)
        return self._written(lsn, image)

    def noop(self, size: int = 100) -> RecordHeader:
        """Append a record that does nothing, with *size* bytes of data that name its position."""
        word = self.end.to_bytes(8, "little")
        return self.record(RM_XLOG, _NOOP, (word * (size // 8 + 1))[:size])

    def fill_to(self, end: int, size: int = 1000) -> None:
        """Append records of about *size* bytes such that WAL ends at *end* exactly.

        :raises FormatError: if *end* is no place where a record can end.
        """
        rest = self._usable(end) - self._usable(self.end)
        if end % 8 or rest < RECORD_HEADER.size or self._ends_in_header(end):
            raise FormatError(f"no record that begins at {self.end} can end at {LSN(end)}")
        length = max(size - size % 8, 32)
        while rest >= length + RECORD_HEADER.size:
            self.noop(_data_size(length))
            rest -= length
        self.noop(_data_size(rest))

    def fill_segment(self) -> None:
        """Append records up to the end of the segment that the WAL has come to."""
        size = self.segment_size
        self.fill_to(size.start(size.number(self.end) + 1))

    def switch(self) -> RecordHeader:
        """Append a segment switch, and the zeros up to the end of the segment."""
        record = self.record(RM_XLOG, _SWITCH)
        tail = -len(self._wal) % self.segment_size
        self._wal += bytes(tail)
        record = self.records[-1] = record._replace(end=self.end)
        return record

    def crash(self) -> RecordHeader:
        """Break a record off at the end of a page, as a crash may, and go on as recovery does.

        :return: recovery's record, which says where the broken one began
            (``XLOG_OVERWRITE_CONTRECORD``).
        """
        self._begin_page()
        broken = self.end
        room = PAGE_SIZE - len(self._wal) % PAGE_SIZE
        self._wal += self._image(RM_XLOG, _NOOP, bytes(room), 0)[:room]
        self._begin_page(FIRST_IS_OVERWRITE_CONTRECORD)
        return self.record(RM_XLOG, _OVERWRITE_CONTRECORD, broken.to_bytes(8, "little") + bytes(8))

    def branch(self, timeline: int, at: LSN | None = None) -> WALBuilder:
        """A builder for a *timeline* that leaves this one at *at*, by default at the end.

        Its first segment begins with a copy of this timeline's WAL, as after a promotion.

        :raises FormatError: if no record ends at *at*.
        """
        at = self.end if at is None else at
        before = [record for record in self.records if record.end <= at]
        if (before[-1].end if before else self.start) != at:
            raise FormatError(f"no record ends at {at}")
        start = self.segment_size.floor(at)
        child = WALBuilder(self.system_identifier, self.segment_size, timeline, self.major, start)
        child._wal += self.bytes(start, at)
        child._last = before[-1].lsn if before else INVALID
        child.records = [record for record in before if record.lsn >= start]
        return child

    def segments(self) -> dict[str, builtins.bytes]:
        """All segments by their file names; the last is filled up with zeros."""
        size, first = self.segment_size, self.segment_size.number(self.start)
        return {
            size.name(self.timeline, first + index): bytes(
                self._wal[index * size : (index + 1) * size].ljust(size, b"\0")
            )
            for index in range(-(-len(self._wal) // size))
        }

    def bytes(self, start: int | None = None, end: int | None = None) -> builtins.bytes:
        """The WAL from *start* to *end*; by default all of it.

        :raises FormatError: for WAL that is not written.
        """
        start = self.start if start is None else start
        end = self.end if end is None else end
        if not self.start <= start <= end <= self.end:
            raise FormatError(f"the WAL from {LSN(start)} to {LSN(end)} is not written")
        return bytes(self._wal[start - self.start : end - self.start])

    def _image(
        self, resource_manager: int, info: int, data: builtins.bytes, xid: int
    ) -> builtins.bytes:
        body = _body(data)
        length = RECORD_HEADER.size + len(body)
        fields = (length, xid, self._last, info, resource_manager)
        crc = record_crc(RECORD_HEADER.pack(*fields, 0) + body, crc32c)
        return RECORD_HEADER.pack(*fields, crc) + body

    def _written(self, lsn: LSN, image: builtins.bytes) -> RecordHeader:
        length, xid, previous, info, resource_manager, crc = RECORD_HEADER.unpack_from(image)
        record = RecordHeader(
            lsn, self.end, length, xid, LSN(previous), info, resource_manager, crc
        )
        self.records.append(record)
        self._last = lsn
        return record

    def _append(self, image: builtins.bytes) -> None:
        while image:
            self._begin_page(FIRST_IS_CONTRECORD, len(image))
            room = PAGE_SIZE - len(self._wal) % PAGE_SIZE
            self._wal += image[:room]
            image = image[room:]

    def _begin_page(self, flags: int = 0, rem_len: int = 0) -> None:
        if len(self._wal) % PAGE_SIZE == 0:
            self._wal += _page_header(
                self.end,
                self.segment_size,
                self.system_identifier,
                self.timeline,
                self._magic,
                flags,
                rem_len,
            )

    def _usable(self, end: int) -> int:
        """How many bytes up to *end* are not those of page headers."""
        size = end - self.start
        segments, pages = -(-size // self.segment_size), -(-size // PAGE_SIZE)
        headers = pages * SHORT_HEADER_SIZE + segments * (LONG_HEADER_SIZE - SHORT_HEADER_SIZE)
        return size - headers

    def _ends_in_header(self, end: int) -> bool:
        header = (
            SHORT_HEADER_SIZE if self.segment_size.offset(end) > PAGE_SIZE else LONG_HEADER_SIZE
        )
        return 0 < end % PAGE_SIZE <= header


def wal_bytes(
    start: int,
    length: int,
    *,
    segment_size: SegmentSize = DEFAULT_SEGMENT_SIZE,
    system_identifier: int = SYSTEM_IDENTIFIER,
    timeline: int = 1,
    history: TimelineHistory | None = None,
    major: int = 18,
) -> bytes:
    """*length* bytes of the shape of WAL from *start* on: valid page headers, and no records.

    Behind the headers each word of eight bytes holds its own position, so that any mix-up shows.
    Quick, for tests of whatever moves WAL without reading it.

    :param history: that of *timeline*, if it has ancestors on which pages were begun.
    """
    history = history or TimelineHistory(timeline, ())
    first = start - start % PAGE_SIZE
    last = start + length + -(start + length) % PAGE_SIZE
    wal = bytearray(array("Q", range(first, last, 8)).tobytes())
    for address in range(first, last, PAGE_SIZE):
        header = _page_header(
            LSN(address),
            segment_size,
            system_identifier,
            history.timeline_at(address),
            magic_of(major),
        )
        wal[address - first : address - first + len(header)] = header
    return bytes(wal[start - first : start - first + length])


def _page_header(
    address: LSN,
    segment_size: SegmentSize,
    system_identifier: int,
    timeline: int,
    magic: int,
    flags: int = 0,
    rem_len: int = 0,
) -> bytes:
    if segment_size.offset(address):
        return PageHeader(magic, flags, timeline, address, rem_len).pack()
    page = (magic, flags | LONG_HEADER, timeline, address, rem_len)
    return SegmentHeader(*page, system_identifier, segment_size, PAGE_SIZE).pack()


def _body(data: bytes) -> bytes:
    if not data:
        return b""
    if len(data) <= _DATA_SHORT_MAX:
        return bytes((_DATA_SHORT, len(data))) + data
    return bytes((_DATA_LONG,)) + len(data).to_bytes(4, "little") + data


def _data_size(length: int) -> int:
    """How much data a record of *length* bytes holds, *length* being a multiple of 8."""
    body = length - RECORD_HEADER.size
    return max(body - 2, 0) if body - 2 <= _DATA_SHORT_MAX else body - 5
