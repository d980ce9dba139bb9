"""Tests for walstream.formats.quantities."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.quantities import parse_count, parse_duration, parse_size


class QuantityTests(SynchronousTestCase):
    """Numbers with units, and without."""

    def test_durations(self) -> None:
        """In PostgreSQL's units, and in weeks."""
        texts = ("90s", "5min", "12h", "30d", "2w", "30 d")
        self.assertEqual(
            [parse_duration(text) for text in texts],
            [90, 300, 43200, 2592000, 1209600, 2592000],
        )

    def test_sizes(self) -> None:
        """Each unit is 1024 of the one before, as in PostgreSQL."""
        texts = ("7B", "1kB", "16MB", "500GB", "2TB")
        self.assertEqual(
            [parse_size(text) for text in texts], [7, 1 << 10, 16 << 20, 500 << 30, 2 << 40]
        )

    def test_counts(self) -> None:
        """From 1 on."""
        self.assertEqual(parse_count("12"), 12)

    def test_what_is_none(self) -> None:
        """A unit has to be named, and to be one of those that there are."""
        for parse, texts in (
            (parse_duration, ("", "30", "d", "30D", "1.5h", "-1d", "30 days")),
            (parse_size, ("", "500", "500gb", "500GiB", "GB")),
            (parse_count, ("", "0", "-1", "1.0", "x", "²")),
        ):
            for text in texts:
                with self.assertRaises(FormatError, msg=text):
                    parse(text)
