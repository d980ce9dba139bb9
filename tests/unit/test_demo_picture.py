"""Tests for walstream.demo.picture."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_demo_sample import SAMPLE
from walstream.demo.picture import ASCII, FANCY, block, line, size_text
from walstream.demo.sample import Rows
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize


class BlockTests(SynchronousTestCase):
    """The block of lines."""

    def test_shows_everything(self) -> None:
        """Positions, distances, bars, rows, speed and what was compared, each in its column."""
        self.assertEqual(
            list(block(SAMPLE, 20_480.0, ASCII)),
            [
                "  12 s             position   behind  1 MB segment",
                "  primary          0/580000           #######.......  1,230 rows written",
                "  `- hub           0/540000   256 kB  ###...........  2 segments finished",
                "     `- standby    0/4FFFF0   512 kB  ..............  1,228 rows read back",
                "  20 kB of WAL a second; the primary has 1 walsender",
                "  1,220 rows compared and equal, checksum 0000000000001234",
            ],
        )

    def test_bars_have_finer_steps_where_there_are_characters_for_them(self) -> None:
        """A quarter of fourteen cells is three and a half."""
        self.assertIn(" ███▌░░░░░░░░░░ ", block(SAMPLE, 0.0, FANCY)[2])

    def test_fits_into_a_terminal_of_80_columns(self) -> None:
        """Also with positions, sizes and numbers as large as they get."""
        sample = replace(
            SAMPLE,
            seconds=1e6,
            primary=LSN(0xFFFF_FFFF_FFFF_FFFF),
            written=999_999_999,
            read_back=999_999_999,
            equal=Rows(999_999_999, -1),
            segment_size=SegmentSize(1 << 30),
        )
        before = [len(text) for text in block(SAMPLE, 0.0, FANCY)]
        self.assertLess(max(before), 80)
        huge = block(sample, 999 * 1024.0**3, FANCY)
        self.assertEqual(len(huge), len(before))

    def test_an_hour_of_rows_fits_into_80_columns(self) -> None:
        """What a demo comes to in practice, fully in sight."""
        sample = replace(
            SAMPLE,
            seconds=3600.0,
            primary=LSN(0x1_B374_D848),
            hub=LSN(0xFFFF_FFFF),
            standby=LSN(0x7FFF_FFFF),
            written=3_600_000,
            read_back=3_599_990,
        )
        self.assertLess(max(map(len, block(sample, 9e9, FANCY))), 80)


class LineTests(SynchronousTestCase):
    """The one line."""

    def test_shows_everything(self) -> None:
        """The same as the block."""
        self.assertEqual(
            line(SAMPLE, 20_480.0),
            "12 s: primary 0/580000, hub 0/540000 (256 kB behind), "
            "standby 0/4FFFF0 (512 kB behind); 1,230 rows written, 1,228 read back, "
            "1,220 equal; 20 kB/s of WAL; 1 walsender",
        )


class SizeTextTests(SynchronousTestCase):
    """Numbers of bytes for the eye."""

    def test_uses_the_unit_that_gives_up_to_three_digits(self) -> None:
        """With a decimal, unless it is 0."""
        for size, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (1536, "1.5 kB"),
            (1 << 20, "1 MB"),
            (5_000_000_000, "4.7 GB"),
            (5 << 40, "5120 GB"),
        ):
            self.assertEqual(size_text(size), text)
