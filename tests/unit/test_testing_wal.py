"""What `walstream.testing.wal` promises; `tests.integration.test_wal_builder` asks pg_waldump."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import LONG_HEADER, PAGE_SIZE, PageHeader, SegmentHeader, magic_of
from walstream.formats.records import walk
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder, wal_bytes

_SIZE = SegmentSize(1 << 20)


class WALBuilderTests(SynchronousTestCase):
    """`WALBuilder` writes WAL as PostgreSQL does."""

    def test_begins_where_a_new_cluster_does(self) -> None:
        """The first segment is number 1, unless told otherwise; nothing is written yet."""
        self.assertEqual(WALBuilder().end, LSN(0x1000000))
        self.assertEqual(WALBuilder(segment_size=_SIZE).end, LSN(0x100000))
        self.assertEqual(WALBuilder(start=LSN(0x5000000)).end, LSN(0x5000000))
        self.assertEqual(WALBuilder().segments(), {})

    def test_must_begin_with_a_segment(self) -> None:
        """Elsewhere, and for versions of another format, there is no builder."""
        with self.assertRaisesRegex(FormatError, "0/1002000 is not where a segment begins"):
            WALBuilder(start=LSN(0x1002000))
        with self.assertRaisesRegex(FormatError, "before 11"):
            WALBuilder(major=10)
        with self.assertRaisesRegex(FormatError, "PostgreSQL 19 is not known"):
            WALBuilder(major=19)

    def test_segment_header(self) -> None:
        """The first page says whose WAL it is."""
        wal = WALBuilder(77, _SIZE, 3, 16, LSN(0x500000))
        wal.noop()
        self.assertEqual(
            SegmentHeader.parse(wal.bytes()),
            SegmentHeader(0xD113, LONG_HEADER, 3, LSN(0x500000), 0, 77, _SIZE, PAGE_SIZE),
        )

    def test_records_end_where_the_wal_does(self) -> None:
        """Ends are aligned to eight bytes."""
        wal = WALBuilder(segment_size=_SIZE)
        for size in (0, 1, 255, 256, 5000, 20000):
            record = wal.noop(size)
            self.assertEqual((record.end, record.end % 8), (wal.end, 0))

    def test_fill_to_any_place(self) -> None:
        """WAL can be made to end at any aligned place with room for a record before it."""
        for end in [*range(0x28 + 24, 700, 8), PAGE_SIZE, PAGE_SIZE + 32, 3 * PAGE_SIZE, _SIZE]:
            wal = WALBuilder(segment_size=_SIZE)
            wal.fill_to(wal.start + end, size=100)
            self.assertEqual(wal.end, wal.start + end)
            self.assertEqual(list(walk(wal.bytes(), wal.start, _SIZE)), wal.records)
            self.assertTrue(all(record.length <= 124 for record in wal.records[:-1]))

    def test_fill_to_where_no_record_ends(self) -> None:
        """Not aligned, in a page header, too near or behind: nothing is written."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(0)
        end = wal.end
        for place in (end + 25, end + 16, end, end - 24, *range(0x102008, 0x102019, 8), 0x200028):
            with self.assertRaisesRegex(FormatError, f"can end at {LSN(place)}"):
                wal.fill_to(place)
        self.assertEqual(wal.end, end)

    def test_fill_segment(self) -> None:
        """The segment is filled to its last byte, and so is the next one."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop()
        wal.fill_segment()
        self.assertEqual(wal.end, LSN(0x200000))
        wal.fill_segment()
        self.assertEqual(wal.end, LSN(0x300000))

    def test_switch_leaves_zeros(self) -> None:
        """Behind a switch record are zeros only, where page headers would be too."""
        wal = WALBuilder(segment_size=_SIZE)
        switch = wal.switch()
        self.assertEqual((switch.end, wal.end), (LSN(0x200000), LSN(0x200000)))
        self.assertEqual(set(wal.bytes(switch.lsn + 24)), {0})

    def test_segments_are_files(self) -> None:
        """Each segment has its name and its full size; the last ends with zeros."""
        wal = WALBuilder(segment_size=_SIZE, timeline=2, start=LSN(0xFFF00000))
        wal.noop(_SIZE)
        segments = wal.segments()
        self.assertEqual(list(segments), ["000000020000000000000FFF", "000000020000000100000000"])
        self.assertEqual([len(content) for content in segments.values()], [_SIZE, _SIZE])
        written, end = b"".join(segments.values()), len(wal.bytes())
        self.assertEqual(written[:end], wal.bytes())
        self.assertEqual(set(written[end:]), {0})

    def test_bytes_of_a_range(self) -> None:
        """Any range that is written can be had, and no other."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(5000)
        whole = wal.bytes()
        self.assertEqual(wal.bytes(wal.start + 10, wal.start + 20), whole[10:20])
        for start, end in ((0, wal.end), (wal.start, wal.end + 1), (wal.end, wal.start)):
            with self.assertRaisesRegex(FormatError, "is not written"):
                wal.bytes(start, end)

    def test_branch_copies_up_to_the_switch_point(self) -> None:
        """A child's first segment begins with its parent's bytes; its own pages are its own."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(_SIZE)
        at = wal.noop().end
        wal.noop()
        child = wal.branch(5, at)
        self.assertEqual((child.start, child.end, child.timeline), (LSN(0x200000), at, 5))
        child.noop(PAGE_SIZE)
        self.assertEqual(child.bytes(end=at), wal.bytes(child.start, at))
        first, second = (PageHeader.parse(child.bytes(), n * PAGE_SIZE) for n in (0, 1))
        self.assertEqual((first.timeline, second.timeline), (1, 5))
        self.assertEqual(list(walk(child.bytes(), child.start, _SIZE)), child.records)
        self.assertEqual(list(child.segments()), ["000000050000000000000002"])

    def test_branch_between_records_only(self) -> None:
        """A timeline ends where a record ends."""
        wal = WALBuilder(segment_size=_SIZE)
        end = wal.noop().end
        with self.assertRaisesRegex(FormatError, f"no record ends at {LSN(end - 8)}"):
            wal.branch(2, LSN(end - 8))

    def test_branch_at_a_segment_boundary(self) -> None:
        """The child then begins with a page of its own."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.switch()
        child = wal.branch(2)
        record = child.noop()
        self.assertEqual(record.previous, wal.records[-1].lsn)
        self.assertEqual(SegmentHeader.parse(child.bytes()).timeline, 2)


class WALBytesTests(SynchronousTestCase):
    """`wal_bytes` gives bytes of the shape of WAL, quickly."""

    def test_page_headers_are_valid(self) -> None:
        """Each page has its header, each segment its own."""
        wal = wal_bytes(0x100000, 2 * _SIZE, segment_size=_SIZE, timeline=4, major=17)
        for offset in range(0, 2 * _SIZE, PAGE_SIZE):
            flags = 0 if offset % _SIZE else LONG_HEADER
            header = PageHeader(magic_of(17), flags, 4, LSN(0x100000 + offset), 0)
            self.assertEqual(PageHeader.parse(wal, offset), header)
        self.assertEqual(SegmentHeader.parse(wal, _SIZE).system_identifier, SYSTEM_IDENTIFIER)

    def test_any_piece_is_of_the_same_whole(self) -> None:
        """A piece is what lies there in a longer one; its bytes name their position."""
        whole = wal_bytes(0x100000, 4 * PAGE_SIZE, segment_size=_SIZE)
        for start, length in ((0, 0), (0, 1), (7, 9000), (PAGE_SIZE, PAGE_SIZE), (8191, 2)):
            piece = wal_bytes(0x100000 + start, length, segment_size=_SIZE)
            self.assertEqual(piece, whole[start : start + length])
        self.assertEqual(int.from_bytes(whole[800:808], "little"), 0x100000 + 800)
