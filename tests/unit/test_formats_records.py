"""What `walstream.formats.records` promises."""

from __future__ import annotations

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.records import RECORD_HEADER, RecordHeader, end_of_wal, record_crc, walk
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import WALBuilder

_SIZE = SegmentSize(1 << 20)

# A record of PostgreSQL 15, as initdb leaves it behind.
_REAL = bytes.fromhex(
    "2a000000d2020000980360000000000001040000aa5be046"  # header
    "ff10050000007f060000010000007f060000"
)


def _builder() -> WALBuilder:
    return WALBuilder(segment_size=_SIZE)


def _records(wal: WALBuilder) -> list[RecordHeader]:
    return list(walk(wal.bytes(), wal.start, _SIZE, crc32c=crc32c))


class RecordCRCTests(SynchronousTestCase):
    """`record_crc` is PostgreSQL's checksum of a record."""

    def test_record_of_a_server(self) -> None:
        """The checksum of a real record is the one that it carries."""
        self.assertEqual(record_crc(_REAL, crc32c), RECORD_HEADER.unpack_from(_REAL)[-1])

    def test_every_byte_counts(self) -> None:
        """A change of any byte but those of the checksum changes it."""
        crc = record_crc(_REAL, crc32c)
        for index in [*range(20), *range(24, len(_REAL))]:
            changed = bytearray(_REAL)
            changed[index] ^= 1
            self.assertNotEqual(record_crc(changed, crc32c), crc)


class WalkTests(SynchronousTestCase):
    """`walk` finds the records that begin in a piece of WAL."""

    def test_records_on_one_page(self) -> None:
        """Each record's header is read, with its position and its aligned end."""
        wal = _builder()
        wal.record(11, 0x30, b"abc", xid=722)
        wal.noop(0)
        first, second = _records(wal)
        self.assertEqual(
            first._replace(crc=0),
            RecordHeader(LSN(0x100028), LSN(0x100048), 29, 722, LSN(0), 0x30, 11, 0),
        )
        self.assertEqual((second.lsn, second.end, second.length), (0x100048, 0x100060, 24))
        self.assertEqual(second.previous, first.lsn)

    def test_records_across_pages_and_segments(self) -> None:
        """A record that is longer than a segment is one record."""
        wal = _builder()
        wal.noop(10)
        wal.noop(_SIZE + 12345)
        wal.noop(10)
        self.assertEqual(_records(wal), wal.records)
        self.assertEqual(wal.records[1].length, 24 + 5 + _SIZE + 12345)

    def test_header_may_be_split(self) -> None:
        """A record may begin in the last eight bytes of a page."""
        wal = _builder()
        wal.fill_to(wal.start + PAGE_SIZE - 8)
        split = wal.noop(100)
        self.assertEqual(split.lsn % PAGE_SIZE, PAGE_SIZE - 8)
        wal.noop(10)
        self.assertEqual(_records(wal), wal.records)

    def test_segment_switch(self) -> None:
        """A switch record ends at the segment's end, and the next segment goes on."""
        wal = _builder()
        wal.noop()
        switch = wal.switch()
        wal.noop()
        self.assertEqual(_records(wal), wal.records)
        self.assertEqual([record.is_switch for record in _records(wal)], [False, True, False])
        self.assertEqual((switch.end, wal.records[2].lsn), (0x200000, 0x200028))

    def test_start_inside_a_record(self) -> None:
        """The rest of a record that began earlier is passed over, over any number of pages."""
        wal = _builder()
        wal.noop(3 * PAGE_SIZE)
        wal.fill_to(wal.start + 9 * PAGE_SIZE + 4000)
        for page in range(1, 10):
            start = wal.start + page * PAGE_SIZE
            found = list(walk(wal.bytes(start), LSN(start), _SIZE, crc32c=crc32c))
            self.assertEqual(found, [record for record in wal.records if record.lsn >= start])
        self.assertEqual(found[0].lsn % 8, 0)

    def test_record_that_ends_with_its_page(self) -> None:
        """When a record fills a page to its end, the next one begins behind the next header."""
        wal = _builder()
        wal.noop(PAGE_SIZE)
        wal.fill_to(wal.start + 2 * PAGE_SIZE, size=2 * PAGE_SIZE)
        wal.noop()
        self.assertEqual(_records(wal), wal.records)
        start = wal.start + PAGE_SIZE
        found = list(walk(wal.bytes(start), LSN(start), _SIZE, crc32c=crc32c))
        self.assertEqual(found, [record for record in wal.records if record.lsn >= start])

    def test_record_that_a_crash_left_unfinished(self) -> None:
        """WAL goes on behind it, with the record before it as the previous one."""
        wal = _builder()
        before = wal.noop()
        recovery = wal.crash()
        wal.noop()
        self.assertEqual(_records(wal), wal.records)
        self.assertEqual(recovery.previous, before.lsn)
        self.assertEqual((recovery.lsn, recovery.info), (wal.start + PAGE_SIZE + 24, 0xD0))

    def test_child_timeline(self) -> None:
        """A segment in which a timeline was left for another is read through."""
        wal = _builder()
        wal.noop()
        child = wal.branch(2)
        child.noop(2 * PAGE_SIZE)
        self.assertEqual(len(_records(child)), 2)
        self.assertEqual(_records(child), child.records)

    def test_any_buffer(self) -> None:
        """Bytes, a bytearray and a view are all right."""
        wal = _builder()
        wal.noop(20000)
        data = wal.bytes()
        for buffer in (data, bytearray(data), memoryview(data)):
            self.assertEqual(list(walk(buffer, wal.start, _SIZE, crc32c=crc32c)), wal.records)

    def test_must_begin_at_a_page(self) -> None:
        """Elsewhere there is no header to begin with."""
        with self.assertRaisesRegex(FormatError, "not from 0/100008"):
            next(walk(b"", LSN(0x100008), _SIZE))

    @settings(deadline=None, database=None, max_examples=30)
    @given(st.lists(st.integers(0, 3 * PAGE_SIZE), min_size=1, max_size=30), st.data())
    def test_what_was_built_is_found(self, sizes: list[int], data: st.DataObject) -> None:
        """Whatever their sizes, the records are found; of a piece, those that are whole."""
        wal = _builder()
        for size in sizes:
            wal.noop(size)
        cut = data.draw(st.integers(wal.start, wal.end))
        self.assertEqual(_records(wal), wal.records)
        found = list(walk(wal.bytes(end=cut), wal.start, _SIZE, crc32c=crc32c))
        whole = [record for record in wal.records if record.end <= cut]
        self.assertEqual(found[: len(whole)], whole)
        self.assertLessEqual(len(found), len(whole) + 1)  # the padding of the last may be cut off

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.dictionaries(st.integers(0, 4 * PAGE_SIZE - 1), st.integers(0, 255), max_size=4))
    def test_damage_only_ends_the_walk(self, damage: dict[int, int]) -> None:
        """Whatever the bytes are, what is found is what was built, or the beginning of it."""
        wal = _builder()
        wal.noop(PAGE_SIZE)
        wal.fill_to(wal.start + 4 * PAGE_SIZE)
        damaged = bytearray(wal.bytes())
        for offset, byte in damage.items():
            damaged[offset] = byte
        found = list(walk(damaged, wal.start, _SIZE, crc32c=crc32c))
        self.assertEqual(found, wal.records[: len(found)])


class EndOfWALTests(SynchronousTestCase):
    """`end_of_wal` and the return value of `walk` tell where WAL ends, and why."""

    def assert_end(self, data: bytes, lsn: int, reason: str, *, exhausted: bool = False) -> None:
        """The WAL *data*, which begins at 0/100000, ends at *lsn* for a *reason*."""
        end = end_of_wal(data, LSN(0x100000), _SIZE, crc32c=crc32c)
        self.assertEqual((end.lsn, end.exhausted), (lsn, exhausted), end.reason)
        self.assertRegex(end.reason, reason)

    def damaged(self, offset: int, data: bytes) -> bytes:
        """Three segments' worth of records, with *data* at *offset*."""
        wal = _builder()
        wal.fill_to(wal.start + 3 * _SIZE)
        self.records = wal.records
        damaged = bytearray(wal.bytes())
        damaged[offset : offset + len(data)] = data
        return bytes(damaged)

    def before(self, lsn: int) -> LSN:
        """Where the last record that is whole before *lsn* ends."""
        return max(record.end for record in self.records if record.end <= lsn)

    def test_end_of_the_buffer(self) -> None:
        """When the buffer ends, so does the walk, with nothing wrong."""
        wal = _builder()
        wal.noop()
        reason = f"the WAL at hand ends at {wal.end}"
        self.assert_end(wal.bytes(), wal.end, reason, exhausted=True)
        self.assert_end(b"", 0x100000, "ends at 0/100000", exhausted=True)

    def test_end_of_the_buffer_inside_a_record(self) -> None:
        """Of a record that is not at hand as a whole, nothing counts, wherever it is cut."""
        wal = _builder()
        first = wal.noop()
        wal.noop(2 * PAGE_SIZE)
        for cut in (1, 3, 4, 30, 8000, PAGE_SIZE, PAGE_SIZE + 4, PAGE_SIZE + 90, 2 * PAGE_SIZE):
            data = wal.bytes(end=first.end + cut)
            self.assert_end(data, first.end, "at hand ends", exhausted=True)

    def test_zeros(self) -> None:
        """In a segment that is not full yet, WAL ends where the zeros begin."""
        wal = _builder()
        wal.noop()
        (data,) = wal.segments().values()
        self.assert_end(
            data, wal.end, f"at {wal.end}: the record's length should be 24 or more, but is 0"
        )

    def test_record_shorter_than_its_header(self) -> None:
        """No record has fewer bytes than its header."""
        for length in (1, 8, 23):
            data = self.damaged(0x28, length.to_bytes(4, "little"))
            self.assert_end(
                data,
                0x100000,
                f"at 0/100028: the record's length should be 24 or more, but is {length}$",
            )

    def test_zeros_from_a_page_on(self) -> None:
        """The same where the last record ends with its page."""
        wal = _builder()
        wal.fill_to(wal.start + 2 * PAGE_SIZE)
        (data,) = wal.segments().values()
        self.assert_end(
            data, wal.end, f"at {wal.end}: the page should be one of WAL, .* magic 0000"
        )

    def test_wrong_checksum(self) -> None:
        """A flipped bit ends the walk, if there is a function to find it."""
        data = self.damaged(0x1000, b"!")
        self.assert_end(
            data,
            self.before(0x101000),
            "at 0/10.*: the checksum of the record up to 0/10.* should be",
        )
        self.assertTrue(end_of_wal(data, LSN(0x100000), _SIZE).exhausted)

    def test_broken_chain(self) -> None:
        """A record must name the one before it; this one is of an earlier use of the file."""
        wal, other = _builder(), _builder()
        wal.noop(100)
        wal.noop(100)
        other.noop(50)
        other.noop(50)
        last = wal.noop(100)
        data = wal.bytes(end=last.lsn) + other.bytes(other.records[-1].lsn)
        self.assert_end(
            data,
            last.lsn,
            f"at {last.lsn}: the previous record should be 0/1000A8, but is 0/100028",
        )

    def test_first_record_must_look_back(self) -> None:
        """Of the record before the first, this much is known: it is before it."""
        data = bytearray(self.damaged(0, b""))
        data[0x28 + 8 : 0x28 + 16] = (0x100028).to_bytes(8, "little")
        self.assert_end(
            bytes(data),
            0x100000,
            "at 0/100028: the previous record should be one before it, but is 0/100028",
        )

    def test_page_of_another_place(self) -> None:
        """A recycled segment has old pages, with old positions."""
        page = 5 * PAGE_SIZE
        data = self.damaged(page + 8, (0x80000).to_bytes(8, "little"))
        reason = "at 0/10A000: the page's address should be 0/10A000, but is 0/80000"
        self.assert_end(data, self.before(0x100000 + page), reason)

    def test_page_of_another_version_or_timeline(self) -> None:
        """All pages are of one version, and timelines never go back."""
        page = 5 * PAGE_SIZE
        for offset, change, reason in (
            (0, b"\x16", "magic should be D118, but is D116"),
            (4, b"\x00", "timeline should be 1, but is 0"),
        ):
            data = self.damaged(page + offset, change)
            self.assert_end(data, self.before(0x100000 + page), reason)

    def test_page_that_does_not_continue(self) -> None:
        """A page that should continue a record must say so, and how much is to come."""
        page = 5 * PAGE_SIZE
        for offset, change in ((2, b"\x00"), (16, b"\x01")):
            data = self.damaged(page + offset, change)
            reason = "at 0/10A000: what the page continues of the record at .* should be 176 bytes"
            self.assert_end(data, self.before(0x100000 + page), reason)

    def test_page_that_continues_nothing(self) -> None:
        """Where a record should begin, the rest of one is an error."""
        wal = _builder()
        wal.fill_to(wal.start + PAGE_SIZE)
        wal.noop()
        data = bytearray(wal.bytes())
        data[PAGE_SIZE + 2] |= 1
        self.assert_end(bytes(data), wal.start + PAGE_SIZE, "should be at least one byte")
        data[PAGE_SIZE + 16] = 16
        reason = "what the page continues of a record should be 0 bytes, but is 16 bytes"
        self.assert_end(bytes(data), wal.start + PAGE_SIZE, reason)

    def test_segment_of_another_cluster(self) -> None:
        """All segments are of one cluster, and of the sizes that were said."""
        pages = "the page size should be 8192, but is 16384"
        for offset, change, reason in (
            (24, b"!", "the system identifier should be"),
            (32, b"\x00\x00\x20\x00", "the segment size should be 1048576, but is 2097152"),
            (36, b"\x00\x40", pages),
        ):
            data = self.damaged(2 * _SIZE + offset, change)
            self.assert_end(data, self.before(0x100000 + 2 * _SIZE), reason)
        self.assert_end(self.damaged(36, b"\x00\x40"), 0x100000, pages)
