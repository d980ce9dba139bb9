"""The headers of WAL pages, as PostgreSQL 9.3 and later write them on little-endian machines.

WAL is a run of pages; each opens with a header that names its own position, and the first page
of a segment with a longer one that names the cluster (PostgreSQL's ``access/xlog_internal.h``).
Knows headers only: what lies behind them is for `walstream.formats.records`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Self, TypeAlias

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = [
    "FIRST_IS_CONTRECORD",
    "FIRST_IS_OVERWRITE_CONTRECORD",
    "LONG_HEADER",
    "LONG_HEADER_SIZE",
    "PAGE_FIELDS",
    "PAGE_SIZE",
    "SEGMENT_FIELDS",
    "SHORT_HEADER_SIZE",
    "SPECIAL_FLAGS",
    "Buffer",
    "PageHeader",
    "SegmentHeader",
    "magic_of",
    "magic_of_server",
    "major_version",
]

#: Anything that bytes can be read from.
Buffer: TypeAlias = bytes | bytearray | memoryview

#: The size of a page: ``XLOG_BLCKSZ`` of every server that was built with the default.
PAGE_SIZE = 8192

#: Flag: the page begins with the rest of a record from the page before.
FIRST_IS_CONTRECORD = 0x0001
#: Flag: the header is a segment's, the long one.
LONG_HEADER = 0x0002
#: Flag: the page begins with a record that gives up the one that the page before left unfinished.
FIRST_IS_OVERWRITE_CONTRECORD = 0x0008

# Servers set it on every page that they begin while no backup is being made: nothing to us.
_BACKUP_REMOVABLE = 0x0004
_ALL_FLAGS = 0x000F

#: The flags, known or not, that pages do not have as a rule.
SPECIAL_FLAGS = 0xFFFF & ~(FIRST_IS_CONTRECORD | _BACKUP_REMOVABLE)
#: ``XLogPageHeaderData``: magic, flags, timeline, address, ``rem_len``, and 4 bytes of padding.
PAGE_FIELDS = struct.Struct("<HHIQI4x")
#: What a segment's first page has behind them: system identifier, sizes of segment and page.
SEGMENT_FIELDS = struct.Struct("<QII")
_LONG = struct.Struct("<HHIQI4xQII")
SHORT_HEADER_SIZE = PAGE_FIELDS.size
LONG_HEADER_SIZE = _LONG.size

# XLOG_PAGE_MAGIC of the releases.
_MAGICS = {
    9: 0xD093,
    10: 0xD097,
    11: 0xD098,
    12: 0xD101,
    13: 0xD106,
    14: 0xD10D,
    15: 0xD110,
    16: 0xD113,
    17: 0xD116,
    18: 0xD118,
}
# Of the releases 9, only 9.6.
_VERSION = re.compile(r"(9)\.6|([1-9][0-9]+)")
_MAJORS = {magic: major for major, magic in _MAGICS.items()}


def major_version(magic: int) -> int:
    """The major version of PostgreSQL whose WAL pages carry *magic*; 9 is 9.6.

    :raises FormatError: if none from 9.6 to 18 does.
    """
    try:
        return _MAJORS[magic]
    except KeyError:
        raise FormatError(f"no PostgreSQL from 9.6 to 18 has WAL page magic {magic:04X}") from None


def magic_of(major: int) -> int:
    """The magic number on the WAL pages of PostgreSQL *major*; 9 is 9.6.

    :raises FormatError: for a version that is not from 9.6 to 18.
    """
    try:
        return _MAGICS[major]
    except KeyError:
        raise FormatError(f"the WAL page magic of PostgreSQL {major} is not known") from None


def magic_of_server(version: str) -> int | None:
    """The magic number that a server of this ``server_version`` writes, such as ``15.19 (Debian)``.

    None if it is not known, as of releases to come.
    """
    match = _VERSION.match(version)
    return _MAGICS.get(int(match[1] or match[2])) if match else None


@dataclass(frozen=True, slots=True)
class PageHeader:
    """What every page begins with (``XLogPageHeaderData``, 24 bytes).

    :ivar magic: see `major_version`.
    :ivar timeline: the timeline that the page was begun on.
    :ivar address: the position of the page's first byte.
    :ivar rem_len: with `FIRST_IS_CONTRECORD`, how many bytes of that record are still to come.
    """

    magic: int
    flags: int
    timeline: int
    address: LSN
    rem_len: int

    @classmethod
    def parse(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Read the header of the page that begins at *offset*.

        :raises FormatError: if no WAL page begins there.
        """
        magic, flags, timeline, address, rem_len = _unpack(PAGE_FIELDS, buffer, offset)
        return cls(magic, flags, timeline, LSN(address), rem_len)

    def pack(self) -> bytes:
        """The header as it stands in the WAL."""
        return PAGE_FIELDS.pack(self.magic, self.flags, self.timeline, self.address, self.rem_len)

    @property
    def size(self) -> int:
        """The length of the header as its flags tell it, in bytes."""
        return LONG_HEADER_SIZE if self.flags & LONG_HEADER else SHORT_HEADER_SIZE


@dataclass(frozen=True, slots=True)
class SegmentHeader(PageHeader):
    """What the first page of a segment begins with (``XLogLongPageHeaderData``, 40 bytes).

    :ivar system_identifier: the cluster that the WAL belongs to.
    :ivar segment_size: the cluster's ``wal_segment_size``.
    :ivar page_size: the size of a page; `PAGE_SIZE` on any server that was built as usual.
    """

    system_identifier: int
    segment_size: SegmentSize
    page_size: int

    @classmethod
    def parse(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Read the header of the segment that begins at *offset*.

        :raises FormatError: if no segment begins there.
        """
        magic, flags, timeline, address, rem_len, *segment = _unpack(_LONG, buffer, offset)
        if not flags & LONG_HEADER:
            raise FormatError(f"the WAL page at {LSN(address)} is not the first of a segment")
        system_identifier, size, page_size = segment
        segment_size = SegmentSize(size)
        if segment_size.offset(address):
            raise FormatError(f"{LSN(address)} is not where a segment of {size} bytes begins")
        page = (magic, flags, timeline, LSN(address), rem_len)
        return cls(*page, system_identifier, segment_size, page_size)

    def pack(self) -> bytes:
        """The header as it stands in the WAL."""
        return _LONG.pack(
            self.magic,
            self.flags,
            self.timeline,
            self.address,
            self.rem_len,
            self.system_identifier,
            self.segment_size,
            self.page_size,
        )


def _unpack(layout: struct.Struct, buffer: Buffer, offset: int) -> tuple[int, ...]:
    try:
        fields = layout.unpack_from(buffer, offset)
    except struct.error:
        raise FormatError(f"a WAL page header has {layout.size} bytes, but WAL ends") from None
    magic, flags = fields[:2]
    if magic >> 8 not in (0xD0, 0xD1):
        raise FormatError(f"not a WAL page: magic {magic:04X}")
    if flags & ~_ALL_FLAGS:
        raise FormatError(f"not a WAL page: flags {flags:04X}")
    return fields
