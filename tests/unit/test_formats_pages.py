"""What `walstream.formats.pages` promises."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    LONG_HEADER,
    PageHeader,
    SegmentHeader,
    magic_of,
    major_version,
)
from walstream.formats.segments import SegmentSize

# A segment's first page of PostgreSQL 18, field by field.
_LONG = bytes.fromhex(
    "18d1 0300"  # magic, flags: long header, first is contrecord
    "02000000"  # timeline
    "0000003412000000"  # address 12/34000000
    "a0860100 00000000"  # 100000 bytes to come, padding
    "8d4ab1a2f93b036b"  # system identifier
    "00000001 00200000"  # 16 MiB segments, 8 KiB pages
)
_SEGMENT = SegmentHeader(
    magic=0xD118,
    flags=LONG_HEADER | FIRST_IS_CONTRECORD,
    timeline=2,
    address=LSN.parse("12/34000000"),
    rem_len=100_000,
    system_identifier=0x6B033BF9A2B14A8D,
    segment_size=SegmentSize(1 << 24),
    page_size=8192,
)
_PAGE = PageHeader(0xD110, FIRST_IS_CONTRECORD, 1, LSN(0x1002000), 77)


class MagicTests(SynchronousTestCase):
    """Each major version of PostgreSQL has its magic number."""

    def test_every_version_both_ways(self) -> None:
        """9, which is 9.6, to 18 are known, and each has another number."""
        majors = range(9, 19)
        self.assertEqual([major_version(magic_of(major)) for major in majors], list(majors))
        self.assertEqual((magic_of(15), magic_of(18)), (0xD110, 0xD118))

    def test_unknown_versions_are_named(self) -> None:
        """The error shows the number as PostgreSQL's sources do."""
        with self.assertRaisesRegex(FormatError, "magic D121"):
            major_version(0xD121)
        with self.assertRaisesRegex(FormatError, "PostgreSQL 8 is not known"):
            magic_of(8)


class SegmentHeaderTests(SynchronousTestCase):
    """`SegmentHeader` is the long header of a segment's first page."""

    def test_fields_of_a_header(self) -> None:
        """The 40 bytes are read, and written again."""
        self.assertEqual(SegmentHeader.parse(_LONG), _SEGMENT)
        self.assertEqual(_SEGMENT.pack(), _LONG)
        self.assertEqual(_SEGMENT.size, 40)

    def test_any_buffer_at_any_offset(self) -> None:
        """The header may lie anywhere in bytes, a bytearray or a view."""
        for buffer in (b"xy" + _LONG, bytearray(b"xy" + _LONG), memoryview(b"xy" + _LONG + b"z")):
            self.assertEqual(SegmentHeader.parse(buffer, 2), _SEGMENT)

    def test_what_is_no_segment_start_is_refused(self) -> None:
        """Zeros, other pages, short buffers and impossible sizes each have their error."""
        for header, words in (
            (bytes(40), "magic 0000"),
            (_LONG[:39], "has 40 bytes"),
            (b"", "has 40 bytes"),
            (_PAGE.pack() + bytes(16), "0/1002000 is not the first of a segment"),
            (_LONG[:2] + b"\x12\x00" + _LONG[4:], "flags 0012"),
            (_LONG[:32] + b"\x00\x00\x00\x03" + _LONG[36:], "power of two"),
            (_LONG[:9] + b"\x20" + _LONG[10:], "is not where a segment"),
        ):
            with self.assertRaisesRegex(FormatError, words):
                SegmentHeader.parse(header)


class PageHeaderTests(SynchronousTestCase):
    """`PageHeader` is what every page begins with."""

    def test_bytes_and_back(self) -> None:
        """The 24 bytes are read as they were written."""
        packed = _PAGE.pack()
        self.assertEqual(len(packed), 24)
        self.assertEqual(PageHeader.parse(packed), _PAGE)
        self.assertEqual(_PAGE.size, 24)

    def test_begins_long_headers_too(self) -> None:
        """Of a segment's first page, the first fields are read, and the size told."""
        header = PageHeader.parse(_LONG)
        self.assertEqual((header.address, header.rem_len, header.size), (0x1234000000, 100_000, 40))

    def test_what_is_no_page_is_refused(self) -> None:
        """Neither zeros nor the end of the buffer are a page."""
        with self.assertRaisesRegex(FormatError, "not a WAL page: magic 0000"):
            PageHeader.parse(bytes(24))
        with self.assertRaisesRegex(FormatError, "has 24 bytes"):
            PageHeader.parse(_PAGE.pack(), 1)
