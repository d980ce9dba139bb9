"""What `walstream.formats.segments` promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.segments import (
    DEFAULT_SEGMENT_SIZE,
    SegmentFile,
    SegmentSize,
    history_file_name,
    parse_history_file_name,
    parse_segment_file,
)

_MIB = 1 << 20
_SIZES = st.integers(0, 10).map(lambda exponent: SegmentSize(_MIB << exponent))
_LSNS = st.integers(0, 2**64 - 1)


class SegmentSizeTests(SynchronousTestCase):
    """`SegmentSize` is a power of two, and knows where segments begin."""

    def test_only_what_initdb_allows(self) -> None:
        """Sizes are powers of two from 1 MiB to 1 GiB."""
        self.assertEqual(SegmentSize(_MIB), 1 << 20)
        self.assertEqual(SegmentSize(1 << 30), 1 << 30)
        for size in (0, -_MIB, _MIB // 2, 3 * _MIB, _MIB + 1, 1 << 31):
            with self.assertRaisesRegex(FormatError, f"not {size} bytes"):
                SegmentSize(size)

    def test_names_are_those_of_real_servers(self) -> None:
        """The names of 12/34567890 were seen on servers of four segment sizes."""
        lsn = LSN.parse("12/34567890")
        for mebibytes, name in (
            (16, "000000010000001200000034"),
            (1, "000000010000001200000345"),
            (64, "00000001000000120000000D"),
            (1024, "000000010000001200000000"),
        ):
            size = SegmentSize(mebibytes * _MIB)
            self.assertEqual(size.name(1, size.number(lsn)), name)

    def test_boundary_belongs_to_the_next_segment(self) -> None:
        """The first byte of a segment is at its start, the last one before the next start."""
        size = DEFAULT_SEGMENT_SIZE
        self.assertEqual(size.number(0x2000000), 2)
        self.assertEqual(size.number(0x1FFFFFF), 1)
        self.assertEqual(size.start(2), LSN(0x2000000))
        self.assertEqual(size.floor(0x2000000), LSN(0x2000000))
        self.assertEqual(size.floor(0x2FFFFFF), LSN(0x2000000))
        self.assertEqual(size.offset(0x2FFFFFF), 0xFFFFFF)

    def test_positions_show_as_text(self) -> None:
        """What is a position is an LSN; what is a distance or a number is not."""
        size = DEFAULT_SEGMENT_SIZE
        self.assertIs(type(size.start(1)), LSN)
        self.assertIs(type(size.floor(LSN(5))), LSN)
        self.assertIs(type(size.offset(LSN(5))), int)
        self.assertIs(type(size.number(LSN(5))), int)

    def test_setting_names_the_largest_unit(self) -> None:
        """SHOW wal_segment_size says 1GB, not 1024MB."""
        for text in ("1MB", "16MB", "512MB", "1GB"):
            self.assertEqual(SegmentSize.from_setting(text).setting(), text)
        self.assertEqual(SegmentSize.from_setting("16MB"), DEFAULT_SEGMENT_SIZE)

    def test_setting_must_be_a_size(self) -> None:
        """Other units, signs and sizes that cannot be are refused."""
        for text in ("", "16", "16 MB", "16mb", "16384kB", "-16MB", "2GB", "3MB", "1TB", "16MB\n"):
            self.assertRaises(FormatError, SegmentSize.from_setting, text)

    @settings(deadline=None, database=None)
    @given(_SIZES, _LSNS)
    def test_start_and_offset_make_the_position(self, size: SegmentSize, lsn: int) -> None:
        """Segment and offset together are the position."""
        self.assertEqual(size.start(size.number(lsn)) + size.offset(lsn), lsn)
        self.assertEqual(size.floor(lsn), size.start(size.number(lsn)))
        self.assertLess(size.offset(lsn), size)


class SegmentFileTests(SynchronousTestCase):
    """`parse_segment_file` knows the names that pg_receivewal gives, and no others."""

    def test_plain_compressed_and_partial(self) -> None:
        """Compression comes before .partial."""
        name = "00000002000000120000000D"
        for suffix, compression, partial in (
            ("", None, False),
            (".partial", None, True),
            (".gz", "gz", False),
            (".lz4", "lz4", False),
            (".zst", "zst", False),
            (".gz.partial", "gz", True),
            (".lz4.partial", "lz4", True),
        ):
            self.assertEqual(
                parse_segment_file(name + suffix, DEFAULT_SEGMENT_SIZE),
                SegmentFile(2, 0x120D, compression, partial),
            )

    def test_anything_else_is_another_file(self) -> None:
        """Lower case, other suffixes, wrong lengths and timeline 0 make no segment."""
        name = "00000002000000120000000D"
        for other in (
            *("", name.lower(), name[:-1], name + "0", name + ".partial.gz", name + ".xz"),
            *(name + ".tmp", name + ".00000028.backup", name + "\n", " " + name),
            *("00000002.history", "0" * 8 + name[8:], name.replace("D", "\uff24")),
        ):
            self.assertIsNone(parse_segment_file(other, DEFAULT_SEGMENT_SIZE), other)

    def test_number_must_exist_at_this_size(self) -> None:
        """With 16 MiB segments the last part ends at FF, with 1 MiB at FFF."""
        name = "000000010000000000000100"
        self.assertIsNone(parse_segment_file(name, DEFAULT_SEGMENT_SIZE))
        file = parse_segment_file(name, SegmentSize(_MIB))
        self.assertEqual(file, SegmentFile(1, 0x100, None, False))

    @settings(deadline=None, database=None)
    @given(_SIZES, st.integers(1, 2**32 - 1), _LSNS)
    def test_name_and_back(self, size: SegmentSize, timeline: int, lsn: int) -> None:
        """Every name is read as what it was made of."""
        name = size.name(timeline, size.number(lsn))
        expected = SegmentFile(timeline, size.number(lsn), None, False)
        self.assertEqual(parse_segment_file(name, size), expected)


class HistoryFileNameTests(SynchronousTestCase):
    """The names of timeline history files."""

    def test_name_and_back(self) -> None:
        """The timeline is written in eight upper-case digits."""
        self.assertEqual(history_file_name(0x2A), "0000002A.history")
        self.assertEqual(parse_history_file_name("0000002A.history"), 0x2A)

    def test_anything_else_is_another_file(self) -> None:
        """Lower case, temporary files and timeline 0 are no history files."""
        for name in (
            *("0000002a.history", "0000002A.history.tmp", "2A.history", "00000000.history"),
            *("0000002A.historY", "0000002A.history\n", ""),
        ):
            self.assertIsNone(parse_history_file_name(name), name)
