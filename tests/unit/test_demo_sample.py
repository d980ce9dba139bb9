"""Tests for walstream.demo.sample."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from walstream.demo.sample import Rows, Sample, Speed
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

MIB = 1 << 20

SAMPLE = Sample(
    seconds=12.0,
    started=LSN(3 * MIB + 100),
    primary=LSN(5 * MIB + MIB // 2),
    hub=LSN(5 * MIB + MIB // 4),
    standby=LSN(5 * MIB - 16),
    segment_size=SegmentSize(MIB),
    written=1230,
    read_back=1228,
    equal=Rows(1220, 0x1234),
    walsenders=1,
)


class RowsTests(SynchronousTestCase):
    """Rows of parts of a table add up to those of the whole."""

    def test_parts_add_up(self) -> None:
        """Counts are added, and checksums are combined so that the order does not matter."""
        first, second = Rows(2, 0b1100), Rows(3, 0b1010)
        self.assertEqual(first + second, Rows(5, 0b0110))
        self.assertEqual(second + first, first + second)

    def test_a_negative_checksum_has_sixteen_digits_too(self) -> None:
        """PostgreSQL's bigint is shown as the 64 bits that it is."""
        self.assertEqual(Rows(1, -1).checksum_text, "f" * 16)
        self.assertEqual(Rows(1, 0xAB).checksum_text, "00000000000000ab")


class SampleTests(SynchronousTestCase):
    """What follows from positions."""

    def test_tells_how_far_behind_something_is(self) -> None:
        """In bytes behind the primary."""
        self.assertEqual(SAMPLE.behind(SAMPLE.hub), MIB // 4)
        self.assertEqual(SAMPLE.behind(SAMPLE.primary), 0)

    def test_nothing_is_ahead_of_the_primary(self) -> None:
        """A position that was read later, and is further on, is not behind."""
        self.assertEqual(SAMPLE.behind(LSN(SAMPLE.primary + 8)), 0)

    def test_tells_how_full_the_segment_of_the_primary_is(self) -> None:
        """What is still in the segment before has nothing of it."""
        self.assertEqual(SAMPLE.filled(SAMPLE.primary), 0.5)
        self.assertEqual(SAMPLE.filled(SAMPLE.hub), 0.25)
        self.assertEqual(SAMPLE.filled(SAMPLE.standby), 0.0)

    def test_counts_finished_segments_from_the_start(self) -> None:
        """The segment that rows began to flow in is the first that can be finished."""
        self.assertEqual(SAMPLE.segments, 2)
        self.assertEqual(replace(SAMPLE, hub=SAMPLE.started).segments, 0)


class SpeedTests(SynchronousTestCase):
    """WAL per second."""

    def test_one_position_has_no_speed(self) -> None:
        """Nor have two at the same time."""
        speed = Speed()
        self.assertEqual(speed.add(1.0, 500), 0.0)
        self.assertEqual(speed.add(1.0, 600), 0.0)

    def test_is_an_average(self) -> None:
        """All that is in the window counts."""
        speed = Speed(window=5.0)
        speed.add(0.0, 0)
        self.assertEqual(speed.add(1.0, 100), 100.0)
        self.assertEqual(speed.add(4.0, 1000), 250.0)

    def test_forgets_what_was_before_the_window(self) -> None:
        """A burst of long ago does not count."""
        speed = Speed(window=2.0)
        speed.add(0.0, 0)
        for second in range(1, 5):
            speed.add(float(second), 1_000_000 + 10 * second)
        self.assertEqual(speed.add(5.0, 1_000_050), 10.0)
