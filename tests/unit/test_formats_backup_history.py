"""What `walstream.formats.backup_history` promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.backup_history import (
    BackupHistory,
)
from walstream.formats.lsn import LSN
from walstream.formats.segments import (
    DEFAULT_SEGMENT_SIZE,
    SegmentSize,
    backup_history_name,
    parse_backup_history_name,
)

# The name and the contents are those of PostgreSQL 18.
_NAME = "000000010000000000000015.00000028.backup"
_CONTENT = b"""\
START WAL LOCATION: 0/15000028 (file 000000010000000000000015)
STOP WAL LOCATION: 0/15000120 (file 000000010000000000000015)
CHECKPOINT LOCATION: 0/15000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-23 06:47:29 UTC
LABEL: hist label
START TIMELINE: 1
STOP TIME: 2026-11-23 06:47:31 UTC
STOP TIMELINE: 1
"""


class BackupHistoryNameTests(SynchronousTestCase):
    """The name says segment and offset of the backup's start."""

    def test_name_of_a_server(self) -> None:
        """The name is that which a real server gives."""
        self.assertEqual(backup_history_name(1, LSN(0x15000028), DEFAULT_SEGMENT_SIZE), _NAME)

    def test_anything_else_is_another_file(self) -> None:
        """Other names, and positions that cannot be, are not taken."""
        for name in (
            *("", _NAME[:-1], _NAME + "\n", _NAME[:24], _NAME[:24] + ".28.backup"),
            *(_NAME.replace("15", "1d"), _NAME.replace("28", "2d"), _NAME.upper()),
            *(_NAME.replace("00000028", "01000000"), _NAME.replace("00000015", "00000100")),
            "00000000" + _NAME[8:],
        ):
            self.assertIsNone(parse_backup_history_name(name, DEFAULT_SEGMENT_SIZE), name)

    @settings(deadline=None, database=None)
    @given(st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 10))
    def test_name_and_back(self, timeline: int, lsn: int, exponent: int) -> None:
        """Every name is read as what it was made of."""
        size = SegmentSize(1 << 20 + exponent)
        name = backup_history_name(timeline, LSN(lsn), size)
        self.assertEqual(parse_backup_history_name(name, size), (timeline, LSN(lsn)))


class BackupHistoryTests(SynchronousTestCase):
    """`BackupHistory.parse` reads the files of PostgreSQL of any age."""

    def test_file_of_a_server(self) -> None:
        """Every line of a real server's file is read."""
        self.assertEqual(
            BackupHistory.parse(_CONTENT),
            BackupHistory(
                start=LSN(0x15000028),
                start_segment="000000010000000000000015",
                stop=LSN(0x15000120),
                stop_segment="000000010000000000000015",
                checkpoint=LSN(0x15000080),
                method="streamed",
                backup_from="primary",
                start_time="2026-11-23 06:47:29 UTC",
                label="hist label",
                start_timeline=1,
                stop_time="2026-11-23 06:47:31 UTC",
                stop_timeline=1,
            ),
        )

    def test_old_servers_wrote_fewer_lines(self) -> None:
        """What PostgreSQL 9.0 did not write is None."""
        newer = (b"BACKUP", b"START TIMELINE", b"STOP TIMELINE")
        lines = (line for line in _CONTENT.splitlines(True) if not line.startswith(newer))
        history = BackupHistory.parse(b"".join(lines))
        self.assertEqual(history.stop, LSN(0x15000120))
        self.assertEqual(
            (history.method, history.backup_from, history.start_timeline, history.stop_timeline),
            (None, None, None, None),
        )

    def test_label_is_kept_as_it_is(self) -> None:
        """A label may hold a colon, and bytes that are not UTF-8."""
        label = BackupHistory.parse(_CONTENT.replace(b"hist label", b"a: b\xff ")).label
        self.assertEqual(label, "a: b\udcff ")

    def test_positions_are_required(self) -> None:
        """A backup_label, which has no end, is not a backup history file."""
        for key in (b"START WAL LOCATION", b"STOP WAL LOCATION", b"CHECKPOINT LOCATION"):
            content = _CONTENT.replace(key, b"OTHER")
            with self.assertRaisesRegex(FormatError, f"needs a line '{key.decode()}'"):
                BackupHistory.parse(content)

    def test_wrong_values_are_named(self) -> None:
        """A value that cannot be read is shown with its key."""
        for old, new, words in (
            (b"0/15000028 (file", b"0/15000028 (fool", "'START WAL LOCATION' is not"),
            (b"0/15000028", b"15000028", "'15000028' is not an LSN"),
            (b"0/15000080", b"x", "'x' is not an LSN"),
            (b"STOP TIMELINE: 1", b"STOP TIMELINE: -1", "'STOP TIMELINE' is not a number"),
        ):
            with self.assertRaisesRegex(FormatError, words):
                BackupHistory.parse(_CONTENT.replace(old, new))
